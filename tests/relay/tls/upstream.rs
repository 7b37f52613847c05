//! TLS between Hapax and RabbitMQ: whom Hapax trusts, and what clients hear if it trusts nobody there.

use super::{publish_and_read_back, vhost};
use crate::e2e::pki::Pki;
use crate::e2e::raw::{Login, Raw};
use crate::e2e::relay::Relay;
use crate::e2e::site::{shared_rabbit, without_relay};
use crate::e2e::wait;
use hapax_testbed::free_port;
use std::net::TcpListener;

/// A port where the shared node speaks TLS with this certificate.
fn broker(pki: &Pki, files: &crate::e2e::pki::Files, asks: bool) -> u16 {
    let port = free_port().unwrap();
    shared_rabbit().listen_with_tls(port, files.paths(), &pki.ca(), asks).unwrap();
    port
}

fn trusts(pki: &Pki) -> String {
    format!("[upstream_tls]\nca = {:?}\n", pki.ca())
}

#[test]
fn messages_pass_to_a_broker_by_tls_and_duplicates_are_dropped() {
    if without_relay() {
        return;
    }
    let pki = Pki::new();
    let port = broker(&pki, &pki.issue("broker", &["localhost"]), false);
    let relay = Relay::start_before(&format!("amqps://localhost:{port}"), &trusts(&pki), 200);
    let login = vhost("tls-upstream");
    Raw::login(relay.addr(), &login).unwrap().close();
    wait::until("the connection is gone", wait::PATIENCE, || {
        (relay.metrics().sum("connections", &[]) == 0.0).then_some(())
    });
    // RabbitMQ warns of a connection that was cut. Of an orderly end it only informs.
    let to = format!(":{port}");
    wait::until("the broker logs an orderly end", wait::PATIENCE, || {
        (shared_rabbit().lines_with(&["[info]", "closing AMQP connection", &to]) > 0).then_some(())
    });
    publish_and_read_back(Raw::login(relay.addr(), &login).unwrap());
}

#[test]
fn a_broker_that_can_not_show_who_it_is_gets_no_login() {
    if without_relay() {
        return;
    }
    let (pki, other) = (Pki::new(), Pki::new());
    let good = broker(&pki, &pki.issue("good", &["localhost"]), false);
    let late = broker(&pki, &pki.expired("late", &["localhost"]), false);
    let login = Login::guest("/");
    for (what, host, port, config, why) in [
        ("another host", "127.0.0.1", good, trusts(&pki), "not valid for name"),
        ("another authority", "localhost", good, trusts(&other), "UnknownIssuer"),
        ("the system's authorities", "localhost", good, String::new(), "UnknownIssuer"),
        ("too late", "localhost", late, trusts(&pki), "certificate expired"),
    ] {
        let relay = Relay::start_before(&format!("amqps://{host}:{port}"), &config, 503);
        let error = Raw::login(relay.addr(), &login).expect_err(what).to_string();
        assert!(error.contains("320") && error.contains("hapax can't reach the broker"), "{what}: {error}");
        wait::until("the log says why", wait::PATIENCE, || relay.log().contains(why).then_some(()));
        let (_, ready) = crate::e2e::http::get(relay.admin(), "/readyz").unwrap();
        assert!(ready.contains(why), "{what}: {ready}");
        assert_eq!(relay.metrics().sum("upstream_dial_failures_total", &[]), 1.0);
    }
}

#[test]
fn hapax_shows_its_certificate_to_a_broker_that_asks_for_one() {
    if without_relay() {
        return;
    }
    let pki = Pki::new();
    let port = broker(&pki, &pki.issue("broker", &["localhost"]), true);
    let own = pki.issue("own", &["hapax"]);
    let url = format!("amqps://localhost:{port}");
    let relay = Relay::start_before(&url, &format!("{}{}", trusts(&pki), own.toml()), 200);
    let login = vhost("tls-own-certificate");
    publish_and_read_back(Raw::login(relay.addr(), &login).unwrap());
    drop(relay);
    let relay = Relay::start_before(&url, &trusts(&pki), 503);
    let error = Raw::login(relay.addr(), &login).expect_err("without a certificate").to_string();
    assert!(error.contains("hapax"), "{error}");
}

#[test]
fn a_broker_that_stops_in_the_handshake_is_given_up() {
    if without_relay() {
        return;
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqps://{}", silent.local_addr().unwrap());
    let pki = Pki::new();
    let config = format!("{}[timeouts]\nupstream_connect = \"500ms\"\n", trusts(&pki));
    let relay = Relay::start_before(&url, &config, 503);
    let error = Raw::login(relay.addr(), &Login::guest("/")).expect_err("nobody is there").to_string();
    assert!(error.contains("hapax can't reach the broker"), "{error}");
}
