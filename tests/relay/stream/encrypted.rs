//! The broker that keeps the stream is reached by TLS.

use super::stage::{Stage, With, ids, publish_all, until_logged};
use crate::e2e::pki::Pki;
use crate::e2e::relay::Relay;
use crate::e2e::site::{shared_rabbit, without_relay};
use hapax_testbed::free_port;

/// The configuration of a relay that reaches the stream at this host and port by TLS, with these settings.
fn by_tls(stage: &Stage, (host, port): (&str, u16), tls: &str) -> String {
    let with = With { timeouts: "store = \"200ms\"".to_owned(), ..stage.with() };
    let plain = format!("amqp://guest:guest@{}", stage.rabbit.addr());
    let config = stage.config(&with).replace(&plain, &format!("amqps://guest:guest@{host}:{port}"));
    config.replace("[[window]]", &format!("[store.stream.tls]\n{tls}\n[[window]]"))
}

#[test]
fn the_stream_of_a_broker_with_tls_is_as_any_other() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-tls");
    let (pki, port) = (Pki::new(), free_port().unwrap());
    let broker = pki.issue("broker", &["localhost"]);
    shared_rabbit().listen_with_tls(port, broker.paths(), &pki.ca(), true).unwrap();
    let own = pki.issue("own", &["hapax"]);
    let tls = format!("ca = {:?}\n{}", pki.ca(), own.toml());
    let mut relay = Relay::start(stage.rabbit.addr(), &by_tls(&stage, ("localhost", port), &tls));
    let all = ids("a", 500);
    publish_all(&mut stage.client(&relay), &mut 0, &all);
    // Its ids come back by TLS, and many in one read.
    relay.restart();
    stage.until_known(&relay, all.len());
    publish_all(&mut stage.client(&relay), &mut 0, &all);
    assert!(stage.held().into_values().all(|copies| copies == 1), "a retry has passed");
    let ends = relay.metrics().sum("certificate_not_after_timestamp_seconds", &[("use", "store.stream")]);
    assert!(ends > 0.0, "the end of its certificate is shown");
    // A relay that reaches the same stream without TLS knows them, too.
    stage.until_known(&stage.relay(), all.len());
}

#[test]
fn a_broker_that_can_not_show_who_it_is_gets_no_login_for_the_stream() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-tls-who");
    let (pki, other, port) = (Pki::new(), Pki::new(), free_port().unwrap());
    let broker = pki.issue("broker", &["localhost"]);
    shared_rabbit().listen_with_tls(port, broker.paths(), &pki.ca(), false).unwrap();
    let trusts = |pki: &Pki| format!("ca = {:?}\n", pki.ca());
    for (at, tls, why) in [
        (("127.0.0.1", port), trusts(&pki), "not valid for name"),
        (("localhost", port), trusts(&other), "UnknownIssuer"),
        // No TLS is spoken there.
        (("localhost", stage.rabbit.addr().port()), trusts(&pki), "TLS: "),
    ] {
        let relay = Relay::start(stage.rabbit.addr(), &by_tls(&stage, at, &tls));
        until_logged(&relay, why);
        assert_eq!(stage.metric(&relay, "store_up"), 0.0, "{why}");
    }
}
