//! Client libraries by TLS, on both sides of Hapax: they pass as they pass without.

use crate::clients::{amqplib, pika, run_at};
use crate::e2e::pki::Pki;
use crate::e2e::relay::Relay;
use crate::e2e::site::{Before, Site, shared_rabbit, without_relay};
use hapax_testbed::free_port;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

/// Scenarios with short messages, long ones, and deliveries.
const SCENARIOS: [&str; 3] = ["publish_with_confirms", "large_body", "consume_ack_nack_reject"];

/// Runs scenarios of a library against a relay that speaks TLS on both sides.
fn scenarios(program: fn() -> Command, vhost: &str) {
    if without_relay() {
        return;
    }
    let pki = Pki::new();
    let port = free_port().unwrap();
    let broker = pki.issue("broker", &["localhost"]);
    shared_rabbit().listen_with_tls(port, broker.paths(), &pki.ca(), false).unwrap();
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let config = format!(
        "[upstream_tls]\nca = {:?}\n[[listener]]\naddress = \"{addr}\"\n[listener.tls]\n{}",
        pki.ca(),
        pki.issue("server", &["localhost"]).toml()
    );
    let relay = Relay::start_before(&format!("amqps://localhost:{port}"), &config, 200);
    let site = Site::of(Before::Relay(Box::new(relay)), vhost);
    for scenario in SCENARIOS {
        let mut program = program();
        program.env("AMQP_CA", pki.ca());
        run_at(program, &["base", scenario], &site, ("localhost", addr.port()));
    }
}

#[test]
fn pika_by_tls() {
    scenarios(pika, "tls-pika");
}

#[test]
fn amqplib_by_tls() {
    scenarios(amqplib, "tls-amqplib");
}
