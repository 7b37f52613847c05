//! Point 15: connections that say nothing keep nobody out.

use super::acked;
use crate::e2e::raw::{Login, Publish, Raw};
use crate::e2e::site::Site;
use crate::e2e::wait;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

const REFUSED: &str = "connection refused";

fn other_address() -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))
}

#[test]
fn p15_silent_connections_give_way_to_clients_that_log_in() {
    let config = "[limits]\nmax_connections = 20\nconnections_per_address = 30\n";
    let Some(site) = Site::of_relay("p15-silent", config) else { return };
    let mut here = site.client();
    here.confirming(1);
    here.declare(1, "q", &[]);
    let silent = |count: usize| -> Vec<Raw> {
        let all = (0..count).map(|_| Raw::dial(site.addr()).unwrap()).collect();
        // Those that found no place have pushed others out: nobody is turned away.
        all
    };
    let strangers = silent(200);
    site.until_metric("connections", &[], 20.0);
    for n in 0..5 {
        let mut client = site.client();
        client.confirming(1);
        acked(&client.publish_and_settle(1, &Publish::to("q", &n.to_string())));
        client.close();
    }
    acked(&here.publish_and_settle(1, &Publish::to("q", "here")));
    let metrics = site.metrics();
    assert_eq!(metrics.sum("connections_rejected_total", &[]), 0.0);
    assert!(metrics.sum("connections_displaced_total", &[]) >= 181.0);
    drop(strangers);
}

#[test]
fn p15_an_address_has_its_share_and_refusals_are_few_lines() {
    let config = "[limits]\nmax_connections = 20\nconnections_per_address = 5\n";
    let Some(site) = Site::of_relay("p15-address", config) else { return };
    let mut here: Vec<Raw> = (0..5).map(|_| site.client()).collect();
    let begin = Instant::now();
    for _ in 0..100 {
        // It is closed before it hears a word.
        let turned_away = Raw::dial(site.addr()).and_then(|raw| raw.logged_in(&Login::guest(&site.vhost)));
        assert!(turned_away.is_err());
    }
    let seconds = begin.elapsed().as_secs() as usize + 1;
    site.relay().until_says(REFUSED);
    let lines = site.relay().log().matches(REFUSED).count();
    assert!((1..=seconds).contains(&lines), "{lines} lines in {seconds} s");
    let metrics = site.metrics();
    assert_eq!(metrics.sum("connections_rejected_by_address_total", &[]), 100.0);
    assert_eq!(metrics.sum("connections_rejected_total", &[]), 100.0);
    let mut other = Raw::dial_from(other_address(), site.addr())
        .and_then(|raw| raw.logged_in(&Login::guest(&site.vhost)))
        .unwrap();
    other.confirming(1);
    here.pop();
    wait::until("the place is free again", wait::PATIENCE, || {
        Raw::login(site.addr(), &Login::guest(&site.vhost)).ok().map(drop)
    });
}
