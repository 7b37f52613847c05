//! What two relays with one stream know of each other.

use super::stage::{Stage, ids, publish_all};
use crate::e2e::publisher::restarted_one_after_the_other;
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
