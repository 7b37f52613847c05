//! A drain that is not over by itself in its time: whoever can be told why is told, before the process ends.

use crate::e2e::cut::Cut;
use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::relay::Relay;
use crate::e2e::site::{shared_rabbit, without_relay};
use crate::e2e::wait::{self, PATIENCE};
use hapax::clock::now;
use std::io::Write as _;
use std::thread;
use std::time::Duration;

const CONFIG: &str = "[timeouts]\ndrain = \"2s\"\n[[window]]\nname = \"w\"\n";

/// A relay that drains while its broker is silent. `stall` silences it, and `publish` publishes what gets no outcome.
fn drains(vhost: &str, stall: fn(&Cut), publish: impl FnOnce(&mut Raw)) {
    if without_relay() {
        return;
    }
    let rabbit = shared_rabbit();
    rabbit.add_vhost(vhost).unwrap();
    let broker = Cut::forward(rabbit.addr());
    let mut relay = Relay::start(broker.addr(), CONFIG);
    let mut client = Raw::connect(relay.addr(), vhost);
    client.confirming(1);
    client.declare(1, "q", &[]);
    client.publish_and_settle(1, &Publish::to("q", "before"));
    stall(&broker);
    publish(&mut client);
    wait::until("it has come", PATIENCE, || {
        (relay.metrics().sum("publishes_total", &[]) >= 2.0).then_some(())
    });
    let began = now();
    relay.sigterm();
    let told = client.receive().expect("the socket ends well");
    assert!(
        matches!(&told, Some((0, Told::ConnectionClosed { code: 320, text })) if text.contains("shutting down")),
        "neither an ack nor a bare end: {told:?}"
    );
    assert!(relay.ended().success());
    assert!(began.elapsed() < Duration::from_millis(3_500), "it takes {:?}", began.elapsed());
}

#[test]
fn a_client_whose_outcomes_do_not_come_is_told_320() {
    drains("drain-over-down", Cut::stall_down, |client| {
        for n in 0..5 {
            client.publish(1, &Publish::to("q", &format!("m-{n}")));
        }
    });
}

#[test]
fn a_client_that_the_broker_takes_nothing_from_is_told_320() {
    drains("drain-over-up", Cut::stall_up, |client| {
        let body = vec![0; 100_000];
        let mut octets = Vec::new();
        for n in 0..100 {
            let id = format!("m-{n}");
            octets.extend(Publish { body: &body, ..Publish::to("q", &id) }.encode(1, client.frame_max()));
        }
        let mut socket = client.socket();
        // It can't be written to the end.
        thread::spawn(move || socket.write_all(&octets));
    });
}

/// It has half of the drain's time for that. Then it is told at once.
#[test]
fn a_client_amid_a_transaction_may_end_it() {
    if without_relay() {
        return;
    }
    let rabbit = shared_rabbit();
    rabbit.add_vhost("drain-tx").unwrap();
    let mut relay = Relay::start(rabbit.addr(), "[timeouts]\ndrain = \"40s\"\n[[window]]\nname = \"w\"\n");
    let mut client = Raw::connect(relay.addr(), "drain-tx");
    client.open_channel(1);
    client.declare(1, "q", &[]);
    client.tx_select(1).unwrap();
    client.publish(1, &Publish::to("q", "a"));
    wait::until("it has come", PATIENCE, || {
        (relay.metrics().sum("publishes_total", &[]) >= 1.0).then_some(())
    });
    let began = now();
    relay.sigterm();
    wait::until("it drains", PATIENCE, || (relay.metrics().sum("draining", &[]) == 1.0).then_some(()));
    assert!(client.tx_commit(1).is_ok());
    let told = client.receive().expect("the socket ends well");
    assert!(matches!(told, Some((0, Told::ConnectionClosed { code: 320, .. }))), "{told:?}");
    assert!(relay.ended().success());
    assert!(began.elapsed() < Duration::from_secs(15), "nothing else is waited for");
    let mut direct = Raw::connect(rabbit.addr(), "drain-tx");
    direct.open_channel(1);
    assert_eq!(direct.drain(1, "q"), ["a"]);
}
