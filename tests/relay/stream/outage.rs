//! What a relay does while its stream can't be reached, and that it catches up.

use super::stage::{Stage, With, ids, publish_all, until_logged};
use crate::e2e::cut::Cut;
use crate::e2e::http;
use crate::e2e::publisher::{Publisher, check, persistent, publish_while};
use crate::e2e::raw::HEADER;
use crate::e2e::relay::Relay;
use crate::e2e::site::{own_rabbit, shared_rabbit, without_relay};
use crate::e2e::wait::{self, PATIENCE};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// A relay whose stream is behind a forwarder, and one that is always connected.
fn behind_cut(name: &str, on_outage: &str) -> (Stage, Cut, Relay, Relay) {
    let rabbit = shared_rabbit();
    let stage = Stage::new(rabbit, name);
    let cut = Cut::forward(rabbit.addr());
    let with = With {
        nodes: vec![cut.addr()],
        window: format!("on_outage = \"{on_outage}\""),
        timeouts: "store = \"300ms\"".to_owned(),
        ..stage.with()
    };
    let relay = stage.relay_with(&with);
    let other = stage.relay();
    (stage, cut, relay, other)
}

/// Each time it connects again, writes what is not confirmed, and reads what it has missed. No id is written twice, or not at all.
#[test]
fn a_connection_that_is_cut_again_and_again_costs_nothing() {
    if without_relay() {
        return;
    }
    let (stage, cut, relay, other) = behind_cut("stream-cut", "refuse");
    let acked = AtomicUsize::new(0);
    let mut publisher = Publisher::new(&stage.name, &[relay.addr()], ids("a", 20_000), 100);
    let mut others = Publisher::new(&stage.name, &[other.addr()], ids("b", 5_000), 20);
    std::thread::scope(|scope| {
        let acked = &acked;
        let publishing = scope.spawn(|| {
            publisher.run(&|publisher| {
                acked.store(publisher.acked.len(), SeqCst);
                true
            });
            acked.store(usize::MAX, SeqCst);
        });
        scope.spawn(|| others.run(&|_| true));
        for n in 1..=10 {
            wait::until("it goes on", PATIENCE, || (acked.load(SeqCst) > n * 1500).then_some(()));
            cut.cut_all();
        }
        publishing.join().unwrap();
    });
    for relay in [&relay, &other] {
        stage.until_known(relay, 25_000);
        assert_eq!(stage.metric(relay, "crossed_total"), 0.0);
        assert_eq!(stage.metric(relay, "store_damaged_total"), 0.0);
    }
    assert_eq!(stage.metric(&other, "merged_total"), 20_000.0, "each batch counts once");
    assert_eq!(stage.metric(&relay, "unremembered_total"), 0.0);
    assert!(stage.metric(&relay, "store_reconnects_total") >= 5.0);
    assert_eq!(check(&stage.held(), &[&publisher, &others]), 0);
}

/// The broker does not answer, and the connection stays. Clients are acked, and when the broker is back, it is told of all.
#[test]
fn with_continue_a_silent_stream_stops_nobody() {
    if without_relay() {
        return;
    }
    let (stage, cut, relay, other) = behind_cut("stream-silent", "continue");
    let mut client = stage.client(&relay);
    publish_all(&mut client, &mut 0, &ids("a", 10));
    cut.stall_down();
    publish_all(&mut client, &mut 10, &ids("b", 10));
    assert!(stage.metric(&relay, "unremembered_total") >= 10.0);
    wait::until("it is seen", PATIENCE, || (stage.metric(&relay, "store_up") == 0.0).then_some(()));
    until_logged(&relay, "the stream takes nothing");
    publish_all(&mut client, &mut 20, &ids("b", 10));
    publish_all(&mut client, &mut 30, &ids("c", 10));
    publish_all(&mut stage.client(&other), &mut 0, &ids("d", 10));
    cut.resume();
    for relay in [&relay, &other] {
        stage.until_known(relay, 40);
    }
    wait::until("it works again", PATIENCE, || (stage.metric(&relay, "store_up") == 1.0).then_some(()));
    assert!(stage.held().into_values().all(|copies| copies == 1));
}

/// A relay that has not read its stream yet greets nobody: it would take a retry for a new message.
#[test]
fn a_relay_that_still_reads_judges_nothing() {
    if without_relay() {
        return;
    }
    let (stage, cut, mut relay, _other) = behind_cut("stream-start", "continue");
    let all = ids("a", 100);
    publish_all(&mut stage.client(&relay), &mut 0, &all);
    let (addr, admin) = (relay.addr(), relay.admin());
    relay.kill9();
    cut.stall_down();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| relay.restart());
        wait::until("it says that it reads", PATIENCE, || {
            http::get(admin, "/readyz")
                .is_ok_and(|(status, text)| status == 503 && text.contains("still reads"))
                .then_some(())
        });
        let mut client = TcpStream::connect(addr).unwrap();
        client.write_all(HEADER).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(client.read(&mut [0]).is_err(), "it greets a client");
        cut.resume();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut [0]).unwrap();
        starting.join().unwrap();
    });
    publish_all(&mut stage.client(&relay), &mut 0, &all);
    assert!(stage.held().into_values().all(|copies| copies == 1), "a retry has passed");
}

/// Publishers wait, and nothing passes twice: the id that another relay has stored meanwhile is known before anything is judged.
#[test]
fn with_refuse_publishers_wait_until_the_stream_is_back() {
    if without_relay() {
        return;
    }
    let (stage, cut, relay, other) = behind_cut("stream-refuse", "refuse");
    let mut client = stage.client(&relay);
    publish_all(&mut client, &mut 0, &ids("a", 10));
    cut.stall_down();
    cut.cut_all();
    wait::until("it refuses", PATIENCE, || (stage.metric(&relay, "store_up") == 0.0).then_some(()));
    let late = ids("b", 10);
    for id in &late {
        client.publish(1, &persistent(id));
    }
    wait::until("they wait", PATIENCE, || {
        (stage.metric(&relay, "store_waiting_publishes") == 10.0).then_some(())
    });
    publish_all(&mut stage.client(&other), &mut 0, &late);
    cut.resume();
    wait::until("all are judged", PATIENCE, || {
        (stage.metric(&relay, "store_waiting_publishes") == 0.0).then_some(())
    });
    assert!(stage.held().into_values().all(|copies| copies == 1), "the other relay's ids were not known");
}

/// The broker that has the stream is the upstream, too.
#[test]
fn the_broker_is_killed_with_its_streams() {
    if without_relay() {
        return;
    }
    let rabbit = own_rabbit();
    let stage = Stage::new(&rabbit, "stream-broker");
    let relays = [stage.relay(), stage.relay()];
    rabbit.sync_metadata().unwrap();
    let mut publishers: Vec<Publisher> = relays
        .iter()
        .enumerate()
        .map(|(n, relay)| Publisher::new(&stage.name, &[relay.addr()], ids(&format!("{n}"), 4000), 50))
        .collect();
    publish_while(&mut publishers, |acked| {
        acked.wait_for(2000);
        rabbit.kill9();
        rabbit.restart().unwrap_or_else(|error| panic!("{error}"));
    });
    let doubled = check(&stage.held(), &publishers.iter().collect::<Vec<_>>());
    println!("{doubled} ids are there twice: their outcome was unknown to their publishers");
    // What was acked is known to both, once the stream is back.
    for relay in &relays {
        wait::until("the stream is back", PATIENCE, || {
            (stage.metric(relay, "store_up") == 1.0).then_some(())
        });
        wait::until("both know all", PATIENCE, || {
            (stage.metric(relay, "window_entries") == 8000.0).then_some(())
        });
    }
    for (publisher, relay) in publishers.iter().zip(relays.iter().rev()) {
        publish_all(&mut stage.client(relay), &mut 0, &publisher.acked);
    }
    assert!(stage.held().is_empty(), "a retry at the other relay has passed");
}

/// It takes connections and says nothing. Each attempt ends, and leaves nothing behind.
#[test]
#[ignore = "it waits for a minute: make chaos"]
fn a_stream_that_is_silent_for_a_minute_leaves_nothing_behind() {
    if without_relay() {
        return;
    }
    let (stage, cut, relay, other) = behind_cut("stream-minute", "continue");
    let mut client = stage.client(&relay);
    publish_all(&mut client, &mut 0, &ids("a", 10));
    cut.stall_down();
    for n in 0..60 {
        publish_all(&mut client, &mut (10 + 10 * n), &ids(&format!("{n}"), 10));
        std::thread::park_timeout(Duration::from_secs(1));
    }
    let attempts = cut.accepted();
    assert!(attempts > 3, "{attempts} attempts");
    let threads = relay.threads("lapin-io-loop");
    assert!(threads <= 2, "{threads} threads of connections that nobody uses");
    cut.resume();
    for relay in [&relay, &other] {
        stage.until_known(relay, 610);
    }
    assert!(stage.held().into_values().all(|copies| copies == 1));
}
