//! How many connections a user may have (`limits.connections_per_user`), as at RabbitMQ itself.

use super::super::hostile::script::{connection_open, start_ok, to_the_end, tune_ok};
use crate::e2e::raw::{HEADER, Login, Raw};
use crate::e2e::site::Site;
use crate::e2e::wait::{PATIENCE, until};
use std::net::SocketAddr;

const USER: &str = "crowded";

/// Returns the answers to a client that sends a whole login at once.
fn told(addr: SocketAddr, vhost: &str) -> Vec<String> {
    let login = [HEADER, &start_ok(USER), &tune_ok(100), &connection_open(vhost)].concat();
    to_the_end(&mut Raw::dial(addr).unwrap(), &login)
}

#[test]
fn one_connection_too_many_is_refused_with_rabbitmqs_own_words() {
    let vhost = "users-limit";
    let Some(site) = Site::of_relay(vhost, "[limits]\nconnections_per_user = 2\n") else { return };
    site.add_user(USER, ".*");
    let login = Login::new(vhost, USER, USER);
    // The broker has the same limit, and one client has reached it there.
    let rabbit = &site.rabbit;
    let limit = |max: &str| {
        let set = "rabbit_auth_backend_internal:set_user_limits";
        rabbit
            .eval(&format!(
                "ok = {set}(<<\"{USER}\">>, <<\"{{\\\"max-connections\\\":{max}}}\">>, <<\"hapax\">>)."
            ))
            .unwrap();
    };
    limit("2");
    let direct: Vec<Raw> = (0..2).map(|_| Raw::login(rabbit.addr(), &login).unwrap()).collect();
    // (It counts a moment later.)
    let theirs = until("the broker refuses one", PATIENCE, || {
        Some(told(rabbit.addr(), vhost)).filter(|said| said.iter().any(|line| line.contains("close 530")))
    });
    drop(direct);
    limit("-1");

    let mut open: Vec<Raw> = (0..2).map(|_| Raw::login(site.addr(), &login).unwrap()).collect();
    let ours = told(site.addr(), vhost);
    assert_eq!(ours, theirs);
    assert!(ours.iter().any(|line| line.contains("connection.close 530")), "{ours:?}");
    let metrics = site.metrics();
    assert_eq!(metrics.sum("connections_rejected_by_user_total", &[]), 1.0);
    assert_eq!(metrics.sum("connections_rejected_total", &[]), 1.0);
    until("the log says it", PATIENCE, || {
        let log = site.relay().log();
        (log.contains("limits.connections_per_user reached") && log.contains(USER)).then_some(())
    });
    // Whoever has another name comes in.
    site.client().close();
    // A client that closes in order finds its place at once.
    open.pop().unwrap().close();
    open.push(Raw::login(site.addr(), &login).unwrap());
    // One that vanishes gives its place back when the relay notices.
    drop(open.pop());
    until("the place is free", PATIENCE, || Raw::login(site.addr(), &login).ok().map(|raw| open.push(raw)));
    // A wrong password takes no place, however often.
    open.pop().unwrap().close();
    let wrong = Login::new(vhost, USER, "wrong");
    for _ in 0..5 {
        assert!(Raw::login(site.addr(), &wrong).is_err());
    }
    open.push(Raw::login(site.addr(), &login).unwrap());
    // A reload lifts the limit.
    site.relay().write_config("[limits]\nconnections_per_user = 0\n");
    assert_eq!(site.relay().api("POST", "/api/v1/reload", "")["applied"], true);
    open.extend((0..3).map(|_| Raw::login(site.addr(), &login).unwrap()));
}

/// Half handshakes beyond the limit push out each other, and not a client that logs in from elsewhere.
#[test]
fn handshakes_have_a_limit_and_a_crowd_keeps_nobody_out() {
    let config = "[limits]\nhandshakes = 10\n";
    let Some(site) = Site::of_relay("handshakes", config) else { return };
    let other: std::net::IpAddr = [127, 0, 0, 2].into();
    // It takes its time between its steps, and is the oldest of all.
    let slow = Raw::dial_from(other, site.addr()).unwrap();
    site.until_metric("handshakes", &[], 1.0);
    let mut crowd: Vec<Raw> = Vec::new();
    for n in 0..200 {
        let mut raw = Raw::dial(site.addr()).unwrap();
        if n % 2 == 0 {
            // Those that were pushed out already are not there to hear it.
            let _ = raw.write(HEADER);
        }
        crowd.push(raw);
    }
    until("the crowd has pushed itself out", PATIENCE, || {
        (site.metrics().sum("connections_displaced_total", &[]) >= 191.0).then_some(())
    });
    let metrics = site.metrics();
    assert_eq!(metrics.sum("handshakes", &[]), 10.0);
    slow.logged_in(&Login::guest(&site.vhost)).expect("it has not been pushed out");
    until("the log says it", PATIENCE, || {
        site.relay().log().contains("limits.handshakes reached").then_some(())
    });
    // Each client that leaves in the middle gives its place back.
    drop(crowd);
    site.until_metric("handshakes", &[], 0.0);
    site.until_metric("connections", &[], 0.0);
}
