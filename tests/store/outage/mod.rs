//! A store that really does not work: Redis stopped, Redis killed, the stream's broker out of reach, a disk that is full. The tests look at
//! publishers, `/readyz` and the metrics meanwhile. Nothing is lost, doubled or forgotten when the store works again.

mod stage;
mod stores;

use crate::e2e::relay::Relay;
use crate::e2e::retry;
use crate::e2e::site::{own_rabbit, shared_rabbit, without_relay};
use crate::e2e::wait::{self, PATIENCE};
use hapax::clock::now;
use stage::{Stage, ids};
use std::time::Duration;
use stores::{DeadRedis, FullBroker, FullDisk, FullRedis, SilentRedis, Store, StreamOutOfReach};

/// How long a client listens for an ack that must not come. It is more than twice `timeouts.store`.
const LISTEN: Duration = Duration::from_millis(500);

/// `/readyz` says 503. Clients are told `connection.blocked` and wait. They go on when the store works again.
fn refuses<S: Store>(name: &str, mut store: S) {
    let mut stage = Stage::new(name, &(store.config() + "on_outage = \"refuse\"\n"));
    let (mut client, mut finder) = (stage.client(), stage.client());
    stage.publish(&mut client, ids("before", 20));
    client.until_all_acked();
    assert_eq!((stage.ready().0, stage.metric("store_up")), (200, 1.0));

    store.stop();
    stage.until_down(&mut finder);
    let (status, text) = stage.ready();
    assert!(status == 503 && text.contains("is down, and on_outage = \\\"refuse\\\""), "{status} {text}");
    // One of its publishes comes when the store is known to be down, as all of the client's do.
    stage.publish(&mut finder, ids("waits", 1));
    stage.publish(&mut client, ids("during", 20));
    while client.told.is_empty() {
        client.hear().expect("it is told that it is blocked");
    }
    wait::until("its publishes wait", PATIENCE, || {
        (stage.metric("store_waiting_publishes") >= 21.0).then_some(())
    });
    client.listen(LISTEN);
    assert_eq!((client.open.len(), &client.told[..]), (20, &["blocked"][..]), "acked without the store");
    // The others had as much time.
    finder.listen(LISTEN / 10);
    assert!(finder.acked.is_empty() || !S::STOPS_AT_ONCE, "acked without the store: {:?}", finder.acked);
    // One that comes now waits, too.
    let mut late = stage.client();
    stage.publish(&mut late, ids("late", 20));
    late.listen(LISTEN);
    assert_eq!((late.open.len(), &late.told[..]), (20, &["blocked"][..]));
    assert_eq!((stage.ready().0, stage.metric("store_up")), (503, 0.0));

    store.go_on();
    for client in [&mut client, &mut late, &mut finder] {
        client.until_all_acked();
        while client.told.len() < 2 {
            client.hear().expect("it is told that it may go on");
        }
        assert_eq!(client.told, ["blocked", "unblocked"]);
    }
    stage.until_up();
    assert_eq!((stage.ready().0, stage.metric("store_waiting_publishes")), (200, 0.0));
    assert_eq!(stage.metric("unremembered_total"), 0.0);
    stage.check();
}

/// Clients notice nothing, duplicates are dropped by memory, and it is counted what the store does not know yet.
fn continues<S: Store>(name: &str, mut store: S) {
    let mut stage = Stage::new(name, &(store.config() + "on_outage = \"continue\"\n"));
    let (mut client, mut finder) = (stage.client(), stage.client());
    stage.publish(&mut client, ids("before", 20));
    client.until_all_acked();
    assert_eq!((stage.metric("store_up"), stage.metric("unremembered_total")), (1.0, 0.0));

    store.stop();
    stage.until_down(&mut finder);
    let during = ids("during", 50);
    stage.publish(&mut client, during.clone());
    client.until_all_acked();
    client.publish(&during);
    client.until_all_acked();
    finder.until_all_acked();
    assert_eq!((client.told.len(), finder.told.len()), (0, 0), "a client was told of it");
    assert_eq!((stage.ready().0, stage.metric("store_up")), (200, 0.0));
    let unremembered = stage.metric("unremembered_total");
    let acked_meanwhile = during.len() + finder.acked.len();
    let least = if S::STOPS_AT_ONCE { acked_meanwhile } else { during.len() };
    assert!(
        (least as f64..=acked_meanwhile as f64).contains(&unremembered),
        "{unremembered} of {acked_meanwhile}"
    );

    store.go_on();
    stage.until_up();
    assert_eq!(stage.metric("unremembered_total"), unremembered, "it is counted once");
    stage.check();
}

/// A crash meanwhile forgets what was acked without the store, and nothing else. Nothing is lost.
fn crashes<S: Store>(name: &str, mut store: S) {
    let mut stage = Stage::new(name, &(store.config() + "on_outage = \"continue\"\n"));
    let (mut client, mut finder) = (stage.client(), stage.client());
    let (before, during) = (ids("before", 20), ids("during", 50));
    stage.publish(&mut client, before.clone());
    client.until_all_acked();
    store.stop();
    stage.until_down(&mut finder);
    stage.publish(&mut client, during.clone());
    client.until_all_acked();
    stage.relay.kill9();
    store.go_on();
    stage.relay.restart();
    let mut client = stage.client();
    client.publish(&stage.published);
    client.until_all_acked();
    let queue = retry::held(&mut stage.direct, "q");
    assert_eq!(queue.len(), stage.published.len(), "something is lost");
    assert!(before.iter().all(|id| queue[id] == 1), "the store had these");
    let forgotten = during.iter().filter(|id| queue[*id] == 2).count();
    println!("{name}: {forgotten} of {} ids that were acked without the store are forgotten", during.len());
    assert!(forgotten == during.len() || !S::STOPS_AT_ONCE);
    assert!(queue.values().all(|copies| *copies <= 2));
}

/// Two relays that share the store, and each gets what the other one has: from before and from meanwhile. Returns how many of each pass
/// twice.
fn goes_on_alone<S: Store>(name: &str, mut store: S) -> (usize, usize) {
    let config = store.config() + "on_outage = \"continue\"\n";
    let mut stage = Stage::new(name, &config);
    let other = Relay::start(shared_rabbit().addr(), &config);
    let (mut client, mut finder) = (stage.client(), stage.client());
    let (before, during) = (ids("before", 20), ids("during", 20));
    stage.publish(&mut client, before.clone());
    client.until_all_acked();
    stage.until_known(&other, &before);
    store.stop();
    stage.until_down(&mut finder);
    for relay in [&stage.relay, &other] {
        let mut client = stage.client_of(relay);
        client.publish(&during);
        client.publish(&before);
        client.until_all_acked();
    }
    store.go_on();
    stage.until_up();
    for relay in [&stage.relay, &other] {
        wait::until("both have told the store", PATIENCE, || {
            (relay.metrics().sum("store_waiting_records", &[]) == 0.0).then_some(())
        });
    }
    let queue = retry::held(&mut stage.direct, "q");
    let twice = |ids: &[String]| ids.iter().filter(|id| queue[*id] == 2).count();
    // Both know all of it now.
    for relay in [&stage.relay, &other] {
        let mut client = stage.client_of(relay);
        client.publish(&[before.clone(), during.clone()].concat());
        client.until_all_acked();
    }
    assert_eq!(retry::held(&mut stage.direct, "q").len(), 0, "a retry has passed");
    (twice(&before), twice(&during))
}

#[test]
fn redis_stands_still() {
    if !without_relay() {
        refuses("outage-still-refuse", SilentRedis::new());
        continues("outage-still-continue", SilentRedis::new());
    }
}

#[test]
fn redis_is_killed_and_starts_again() {
    if !without_relay() {
        refuses("outage-dead-refuse", DeadRedis::new());
        continues("outage-dead-continue", DeadRedis::new());
        crashes("outage-dead-crash", DeadRedis::new());
    }
}

/// `noeviction`: Redis has no memory for more.
#[test]
fn redis_answers_with_an_error() {
    if !without_relay() {
        refuses("outage-error-refuse", FullRedis::new());
        continues("outage-error-continue", FullRedis::new());
    }
}

#[test]
fn the_broker_of_the_stream_is_out_of_reach() {
    if !without_relay() {
        let store = |vhost| {
            shared_rabbit().add_vhost(vhost).unwrap();
            (vhost, StreamOutOfReach::new(vhost))
        };
        let (name, stream) = store("outage-stream-refuse");
        refuses(name, stream);
        let (name, stream) = store("outage-stream-continue");
        continues(name, stream);
        let (name, stream) = store("outage-stream-crash");
        crashes(name, stream);
    }
}

#[test]
fn the_broker_of_the_stream_has_a_full_disk() {
    if !without_relay() {
        let rabbit = own_rabbit();
        refuses("outage-broker-refuse", FullBroker::new("outage-broker-refuse", &rabbit));
        continues("outage-broker-continue", FullBroker::new("outage-broker-continue", &rabbit));
    }
}

#[test]
fn the_disk_is_full() {
    if !without_relay() {
        let names = ["outage-full-refuse", "outage-full-continue", "outage-full-crash"];
        let stories: [fn(&str, FullDisk); 3] = [refuses, continues, crashes];
        for (name, story) in names.into_iter().zip(stories) {
            let Some(store) = FullDisk::new(name) else { return };
            story(name, store);
        }
    }
}

/// Each relay knows all that was stored before, because it has read the stream. It can't know what the other one stores meanwhile.
#[test]
fn without_the_stream_two_relays_know_what_was_before() {
    if !without_relay() {
        shared_rabbit().add_vhost("outage-stream-two").unwrap();
        let twice = goes_on_alone("outage-stream-two", StreamOutOfReach::new("outage-stream-two"));
        assert_eq!(twice, (0, 20));
    }
}

/// A relay knows what it has stored itself, or has been asked for. All else it would have to ask Redis for.
#[test]
fn without_redis_a_relay_knows_what_came_to_it() {
    if !without_relay() {
        assert_eq!(goes_on_alone("outage-redis-two", DeadRedis::new()), (20, 20));
    }
}

/// A store that has not everything does not hold up the end: all stores together have what is left of `timeouts.drain`.
fn ends<S: Store>(name: &str, mut store: S, says: &str) {
    let config = store.config().replace("[timeouts]\n", "[timeouts]\ndrain = \"2s\"\n");
    let mut stage = Stage::new(name, &(config + "on_outage = \"continue\"\n"));
    let (mut client, mut finder) = (stage.client(), stage.client());
    store.stop();
    stage.until_down(&mut finder);
    stage.publish(&mut client, ids("during", 20));
    client.until_all_acked();
    let began = now();
    stage.relay.sigterm();
    assert!(stage.relay.ended().success());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "it ends {took:?} after SIGTERM");
    stage.relay.until_says(says);
    store.go_on();
}

#[test]
fn the_end_waits_for_a_store_no_longer_than_the_drain_may_take() {
    if !without_relay() {
        ends("outage-end-redis", SilentRedis::new(), "Redis has not taken everything");
        let vhost = "outage-end-stream";
        shared_rabbit().add_vhost(vhost).unwrap();
        ends(vhost, StreamOutOfReach::new(vhost), "the stream has not taken everything");
    }
}
