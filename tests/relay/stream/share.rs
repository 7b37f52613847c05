//! What two relays with one stream know of each other.

use super::stage::{Stage, With, ids, publish_all};
use crate::e2e::publisher::{persistent, restarted_one_after_the_other};
use crate::e2e::raw::{Publish, Raw, Told, Value};
use crate::e2e::relay::Relay;
use crate::e2e::site::{shared_rabbit, without_relay};
use crate::e2e::wait::{self, PATIENCE};

#[test]
fn what_one_relay_has_stored_the_other_one_knows_a_moment_later() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-share");
    let (one, other) = (stage.relay(), stage.relay());
    let all = ids("a", 1000);
    publish_all(&mut stage.client(&one), &mut 0, &all);
    stage.until_known(&other, all.len());
    publish_all(&mut stage.client(&other), &mut 0, &all);
    assert!(stage.held().into_values().all(|copies| copies == 1), "a retry at the other relay has passed");
    assert_eq!(stage.metric(&other, "merged_total"), 1000.0);
    for relay in [&one, &other] {
        assert_eq!(
            stage.metric(relay, "crossed_total"),
            0.0,
            "nobody has published anything twice at a time"
        );
    }
    // What an operator changes at one of them happens at the other one.
    one.api("DELETE", &stage.path("a-7"), "");
    stage.until_known(&other, all.len() - 1);
    one.api("POST", &format!("/api/v1/windows/{}/flush", stage.name), "");
    stage.until_known(&other, 0);
}

/// A producer goes on at another relay: what it has stored here is a duplicate there, and a process of an old epoch is shut out there.
#[test]
fn a_producer_goes_on_at_the_other_relay() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-producers");
    let with = With { window: "id = \"sequence\"".to_owned(), ..stage.with() };
    let (one, other) = (stage.relay_with(&with), stage.relay_with(&with));
    let known = |relay: &Relay, highest: u64, epoch: u64| {
        wait::until("the producer is known", PATIENCE, || {
            let list = relay.api("GET", &format!("/api/v1/windows/{}/producers", stage.name), "");
            let first = &list["producers"][0];
            (first["highest"] == highest && first["epoch"] == epoch).then_some(())
        });
    };
    let numbers = |epoch, numbers: std::ops::Range<i64>| -> Vec<[(&'static str, Value<'static>); 3]> {
        let headers = |n| {
            let producer = ("x-hapax-producer", Value::Text("outbox"));
            [producer, ("x-hapax-sequence", Value::Long(n)), ("x-hapax-epoch", Value::Long(epoch))]
        };
        numbers.map(headers).collect()
    };
    let publish = |client: &mut Raw, headers: &[[(&str, Value<'_>); 3]]| {
        for headers in headers {
            let Value::Long(number) = headers[1].1 else { panic!("no number") };
            let id = number.to_string();
            let told = client.publish_and_settle(1, &Publish { headers, ..persistent(&id) });
            assert!(matches!(told[..], [Told::Ack { .. }]), "{told:?}");
        }
    };
    let (mut left, mut right) = (stage.client(&one), stage.client(&other));
    publish(&mut left, &numbers(1, 0..100));
    known(&other, 99, 1);
    publish(&mut right, &numbers(1, 50..150));
    known(&one, 149, 1);
    publish(&mut left, &numbers(1, 120..160));
    let held = stage.held();
    assert!(held.len() == 160 && held.values().all(|copies| *copies == 1), "{held:?}");
    assert_eq!(stage.metric(&one, "crossed_total") + stage.metric(&other, "crossed_total"), 0.0);
    // It starts again, at the other relay: the old process is shut out here.
    known(&other, 159, 1);
    publish(&mut right, &numbers(2, 0..1));
    known(&one, 0, 2);
    left.publish(1, &Publish { headers: &numbers(1, 160..161)[0], ..persistent("160") });
    assert!(!matches!(left.next(1), Told::Ack { .. }), "a zombie is told");
    assert_eq!(stage.metric(&one, "sequence_zombies_total"), 1.0);
    // An operator makes one relay forget it, and the other one forgets it, too.
    let list = one.api("GET", &format!("/api/v1/windows/{}/producers", stage.name), "");
    let key = list["producers"][0]["key"].as_str().unwrap();
    one.api("DELETE", &format!("/api/v1/windows/{}/producers/{key}", stage.name), "");
    stage.until_known(&other, 0);
    other.until_says("producer or number forgotten at another relay");
}

#[test]
fn an_id_that_comes_to_both_at_a_time_is_counted_as_crossed() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-crossed");
    let (one, other) = (stage.relay(), stage.relay());
    let (mut left, mut right) = (stage.client(&one), stage.client(&other));
    let all = ids("a", 3000);
    std::thread::scope(|scope| {
        scope.spawn(|| publish_all(&mut left, &mut 0, &all));
        scope.spawn(|| publish_all(&mut right, &mut 0, &all));
    });
    let doubled = stage.held().into_values().filter(|copies| *copies == 2).count();
    println!("{doubled} of {} ids were let through by both", all.len());
    assert!(doubled > 0, "the two were never asked at a time");
    for relay in [&one, &other] {
        wait::until("all crossings are counted", PATIENCE, || {
            (stage.metric(relay, "crossed_total") == doubled as f64).then_some(())
        });
    }
}

/// Nothing is lost, nothing is doubled, and a restart costs a publisher one reconnect at most.
#[test]
fn two_relays_are_restarted_one_after_the_other_under_load() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-rolling");
    let mut relays = [stage.relay(), stage.relay()];
    restarted_one_after_the_other(&mut relays, &stage.name, || stage.held());
}
