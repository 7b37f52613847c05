//! A relay is killed, and knows its ids again.

use super::stage::{Stage, With, ids, publish_all};
use crate::e2e::kills::{Lane, Outcome, Plan, killed_again_and_again};
use crate::e2e::retry::kills;
use crate::e2e::site::{shared_rabbit, without_relay};
use std::time::Duration;

#[test]
fn a_relay_that_was_killed_knows_its_ids_again() {
    if without_relay() {
        return;
    }
    let stage = Stage::new(shared_rabbit(), "stream-killed");
    let mut relay = stage.relay();
    let all = ids("a", 2000);
    publish_all(&mut stage.client(&relay), &mut 0, &all);
    relay.kill9();
    relay.restart();
    stage.until_known(&relay, all.len());
    publish_all(&mut stage.client(&relay), &mut 0, &all);
    let held = stage.held();
    assert_eq!(held.len(), all.len());
    assert!(held.values().all(|copies| *copies == 1), "a retry has passed");
}

/// How many relays are killed at a time.
const LANES: usize = 6;

/// Relays with a stream of their own each, killed so often altogether.
fn killed(test: &str, plan: Plan, window: &str) -> Option<Outcome> {
    if without_relay() {
        return None;
    }
    let stages: Vec<Stage> =
        (0..LANES).map(|n| Stage::new(shared_rabbit(), &format!("stream-{test}-{n}"))).collect();
    let lane = |stage: &Stage| Lane {
        vhost: stage.name.clone(),
        relay: stage.relay_with(&With { window: window.to_owned(), ..stage.with() }),
    };
    Some(killed_again_and_again(stages.iter().map(lane).collect(), plan))
}

/// With `sync`: an id whose ack a client has received is never forgotten, whenever the relay is killed. (`refuse`: a broker that is slow
/// for a second makes no exception.)
#[test]
fn killed_at_any_moment_a_relay_forgets_no_id_that_was_acked() {
    if let Some(outcome) =
        killed("kills", Plan { kills: kills(200), acks: 150, other: None }, "on_outage = \"refuse\"")
    {
        outcome.assert_nothing_is_forgotten();
    }
}

/// The same with sequences: each round has a producer of its own.
#[test]
fn killed_at_any_moment_a_relay_forgets_no_number_that_was_acked() {
    let window = "id = \"sequence\"\non_outage = \"refuse\"";
    if let Some(outcome) = killed("numbers", Plan { kills: kills(60), acks: 1_500, other: None }, window) {
        outcome.assert_nothing_is_forgotten();
    }
}

/// With `async` a crash forgets what was acked within the last `remember_delay`, and no more.
#[test]
fn with_async_a_crash_forgets_what_the_delay_allows() {
    let window = "remember = \"async\"\nremember_delay = \"250ms\"";
    if let Some(outcome) = killed("async", Plan { kills: kills(20), acks: 3_000, other: None }, window) {
        outcome.assert_forgotten_within(Duration::from_millis(250));
    }
}
