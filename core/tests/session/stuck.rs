//! One publish is not answered for very long, and very many go on behind it: `max_unresolved` counts those without an outcome,
//! and memory depends on them alone.

#![allow(clippy::cast_possible_truncation, reason = "these numbers are small")]

use super::desk::{Desk, m, publish};
use crate::support::cost::assert_linear;
use crate::support::frames::{Frames, Message, message};
use crate::support::methods::{ack, ack_multiple, nack, publish_refused};
use crate::support::pair::Pair;
use hapax_core::window::{Event, ForgetCause, InDoubt};

/// Publishes at a time.
const ROUND: u64 = 1_000;
/// Bytes that a session may take more than before, whatever has passed.
const FLAT: usize = 144 << 10;

/// Acks of a channel 1, one by one.
fn acks(tags: impl Iterator<Item = u64>) -> Vec<u8> {
    let ack = |tag: u64| {
        let mut frame = [1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xce];
        frame[11..19].copy_from_slice(&tag.to_be_bytes());
        frame
    };
    tags.flat_map(ack).collect()
}

/// The first publish is stuck; `count` more are acked one by one. `each` makes them, by their tags.
fn behind_a_stuck_one(pair: &mut Pair, count: u64, each: impl Fn(u64) -> Message, confirming: bool) {
    let before = pair.session.memory().held;
    for first in (2..2 + count).step_by(ROUND as usize) {
        let tags = first..first + ROUND;
        let publishes: Vec<u8> = tags.clone().flat_map(|tag| each(tag).publish(1).encode()).collect();
        run_round(pair, &publishes, first, before, confirming);
    }
}

fn run_round(pair: &mut Pair, publishes: &[u8], first: u64, before: usize, confirming: bool) {
    let acks = acks(first..first + ROUND);
    pair.client_bytes(publishes);
    assert_eq!(pair.untaken(), 0, "all are read, at {first}");
    assert!(!pair.to_upstream_bytes().is_empty());
    pair.upstream_bytes(&acks);
    let told = pair.to_client_bytes();
    assert!(if confirming { told == acks } else { told.is_empty() }, "each is acked once, at {first}");
    assert_eq!(pair.session.unresolved(), 1);
    let held = pair.session.memory().held;
    assert!(held < before + FLAT, "{held} bytes at {first}, {before} before");
}

#[test]
fn p17_two_million_pass_behind_one_that_is_stuck() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 2 * ROUND as usize);
    let mut pair = desk.confirming();
    publish(&mut pair, &m("stuck"));
    let publishes = message("x", "k").publish(1).encode().repeat(ROUND as usize);
    let before = pair.session.memory().held;
    for first in (2..2_000_002).step_by(ROUND as usize) {
        run_round(&mut pair, &publishes, first, before, true);
    }
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1), "and nothing is acked twice");
    assert!(desk.is_seen("stuck"));
    publish(&mut pair, &m("then"));
    pair.upstream(ack(1, 2_000_002));
    assert_eq!(pair.to_client(), ack(1, 2_000_002));
}

#[test]
fn p17_many_pass_behind_one_without_confirms() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 2 * ROUND as usize);
    let mut pair = desk.pair();
    pair.client(m("stuck").publish(1));
    pair.to_upstream();
    behind_a_stuck_one(&mut pair, 50_000, |tag| m(&tag.to_string()), false);
    pair.upstream(nack(1, 1));
    assert_eq!(pair.to_client(), Frames::none());
    assert!(!desk.is_seen("stuck"));
    assert_eq!(pair.session.unresolved(), 0);
}

/// Each run of one exchange takes memory, too.
#[test]
fn p17_many_pass_to_two_exchanges_in_turn_and_the_stuck_one_is_still_known() {
    let desk = Desk::with(|plan| {
        plan.settings.max_unresolved = 2 * ROUND as usize;
        plan.rules.in_doubt = InDoubt::Keep;
    });
    let mut pair = desk.confirming();
    let to = |exchange: &str, id: &str| message(exchange, "k").id(id).body("body");
    publish(&mut pair, &to("first", "stuck"));
    let exchanges = ["one", "another"];
    let each = |tag: u64| to(exchanges[(tag % 2) as usize], &tag.to_string()).mandatory();
    behind_a_stuck_one(&mut pair, 50_000, each, true);
    // The broker closes the channel because of the first.
    publish(&mut pair, &to("one", "last"));
    pair.upstream(publish_refused(1, 404, "NOT_FOUND - no exchange 'first' in vhost '/'"));
    assert_eq!(desk.count_like(|event| matches!(event, Event::Forgotten(ForgetCause::ChannelClosed))), 2);
    assert!(!desk.is_seen_at("first", "k", "stuck") && !desk.is_seen_at("one", "k", "last"));
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p17_the_exchange_of_a_stuck_one_is_not_mistaken_for_a_later_one() {
    let desk = Desk::with(|plan| {
        plan.settings.max_unresolved = 2 * ROUND as usize;
        plan.rules.in_doubt = InDoubt::Keep;
    });
    let mut pair = desk.confirming();
    publish(&mut pair, &message("first", "k").id("stuck").body("body"));
    behind_a_stuck_one(&mut pair, 2 * ROUND, |tag| message("one", "k").id(&tag.to_string()).body("b"), true);
    publish(&mut pair, &message("two", "k").id("culprit").body("body"));
    pair.upstream(publish_refused(1, 404, "NOT_FOUND - no exchange 'two' in vhost '/'"));
    assert!(desk.is_seen_at("first", "k", "stuck"), "it is in doubt, and kept");
    assert!(!desk.is_seen_at("two", "k", "culprit"));
}

/// Every tenth is stuck, until an ack answers many of them together.
#[test]
fn p04_tags_behind_stuck_ones_are_each_answered_once() {
    let count: u64 = 5_000;
    let is_stuck = |tag: &u64| tag % 10 == 1;
    let desk = Desk::with(|plan| {
        plan.settings.max_unresolved = 2 * count as usize;
        plan.limits.capacity = 40_000;
    });
    let mut pair = desk.confirming();
    let publishes: Vec<u8> = (1..=count).flat_map(|n| m(&n.to_string()).publish(1).encode()).collect();
    pair.client_bytes(&publishes);
    pair.to_upstream_bytes();
    let others = acks((1..=count).filter(|tag| !is_stuck(tag)));
    pair.upstream_bytes(&others);
    assert_eq!(pair.to_client_bytes(), others);
    assert_eq!(pair.session.unresolved(), 500);
    pair.upstream(nack(1, 11) + ack(1, 4_991));
    assert_eq!(pair.to_client(), nack(1, 11) + ack(1, 4_991));
    pair.upstream(ack_multiple(1, 1_001));
    assert_eq!(pair.to_client(), ack_multiple(1, 1_001));
    pair.upstream(ack(1, 1_021));
    assert_eq!(pair.to_client(), ack(1, 1_021), "not multiple: 1,011 is open");
    pair.upstream(ack_multiple(1, 0));
    assert_eq!(pair.to_client(), ack_multiple(1, 4_981));
    assert_eq!(pair.session.unresolved(), 0);
    assert!((1..=count).all(|n| desk.is_seen(&n.to_string()) == (n != 11)));
}

#[test]
fn p17_a_publish_that_waits_counts_once() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 4);
    let mut first = desk.confirming();
    publish(&mut first, &m("a"));
    let mut pair = desk.confirming();
    (1..=3).for_each(|waiting| {
        pair.client(m("a").publish(1));
        assert_eq!(pair.session.unresolved(), waiting);
    });
    assert!(pair.session.wants_client());
    publish(&mut pair, &m("b"));
    assert_eq!((pair.session.unresolved(), pair.session.wants_client()), (4, false));
    first.upstream(ack(1, 1));
    pair.pump();
    assert_eq!(pair.to_client(), ack_multiple(1, 3));
    assert!(pair.session.wants_client());
}

/// Half of the publishes are stuck, and the others pass.
#[test]
fn p17_cost_of_acks_behind_stuck_publishes() {
    let prepare = |n: usize| {
        let desk = Desk::with(|plan| {
            plan.settings.max_unresolved = 100_000;
            plan.limits.capacity = 40_000;
        });
        let mut pair = desk.confirming();
        let publishes: Vec<u8> = (0..n).flat_map(|n| m(&n.to_string()).publish(1).encode()).collect();
        pair.client_bytes(&publishes);
        pair.to_upstream_bytes();
        let (odd, even): (Vec<u64>, Vec<u64>) = (1..=n as u64).rev().partition(|tag| tag % 2 == 1);
        (desk, pair, acks(even.into_iter().chain(odd)))
    };
    assert_linear("acks behind stuck ones", 1_000, prepare, |(desk, mut pair, said)| {
        pair.upstream_bytes(&said);
        assert_eq!(pair.session.unresolved(), 0);
        (desk, pair)
    });
}
