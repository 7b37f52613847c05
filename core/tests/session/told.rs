//! The sample of duplicates for people to read, and the number that each connection has sent.

use super::desk::{Desk, SECOND, cut, m, publish};
use crate::support::frames::message;
use crate::support::methods::{ack, tx_select, tx_select_ok};
use crate::support::pair::Pair;
use amq_protocol::types::AMQPValue;
use hapax_core::session::Sighted;
use hapax_core::window::{Mode, OnConflict};
use hapax_core::wire::IdSource;

fn store(pair: &mut Pair, id: &str, tag: u64) {
    publish(pair, &m(id));
    pair.upstream(ack(1, tag));
    pair.to_client();
}

#[test]
fn a_duplicate_is_told_of_with_its_id_and_its_route() {
    let desk = Desk::with(|_| ());
    let mut pair = desk.confirming();
    store(&mut pair, "a", 1);
    assert_eq!((pair.told_duplicates(), pair.session.duplicates()), (vec![], 0), "a fresh one is none");
    pair.client(m("a").publish(1));
    let told = pair.told_duplicates();
    let [told] = &told[..] else { panic!("{told:?}") };
    assert_eq!((told.what, told.left_out, &*told.window), (Sighted::Dropped, 0, "test"));
    assert_eq!((&*told.id, &*told.vhost), (&b"a"[..], &b"/"[..]));
    assert_eq!((&*told.exchange, &*told.routing_key), (&b"x"[..], &b"k"[..]));
    assert_eq!((pair.session.duplicates(), pair.session.publishes()), (1, 2));
    assert_eq!(pair.sightings(), [], "it is no conflict");
}

/// A stranger who sends nothing but duplicates costs four notes a second. The fifth and later ones are a number.
#[test]
fn of_a_flood_a_few_are_told_of_and_the_rest_is_counted() {
    let desk = Desk::with(|_| ());
    let mut pair = desk.confirming();
    store(&mut pair, "a", 1);
    (0..100).for_each(|_| pair.client(m("a").publish(1)));
    let left_out =
        |pair: &mut Pair| pair.told_duplicates().iter().map(|told| told.left_out).collect::<Vec<_>>();
    assert_eq!(left_out(&mut pair), [0; 4]);
    pair.advance(SECOND);
    (0..50).for_each(|_| pair.client(m("a").publish(1)));
    assert_eq!(left_out(&mut pair), [96, 0, 0, 0]);
    assert_eq!(pair.session.duplicates(), 150);
    // A flood of duplicates does not hide a conflict.
    pair.client(message("x", "k").id("a").body("another").publish(1));
    assert_eq!(pair.sightings().len(), 1);
}

#[test]
fn a_long_id_is_cut() {
    let desk = Desk::with(|plan| plan.rules.id = IdSource::Header("key".into()));
    let mut pair = desk.confirming();
    let long = message("x", "k").header("key", AMQPValue::LongString("k".repeat(5_000).into()));
    publish(&mut pair, &long);
    pair.upstream(ack(1, 1));
    pair.client(long.publish(1));
    assert_eq!(pair.told_duplicates().pop().map(|told| told.id.len()), Some(255));
}

#[test]
fn mode_observe_says_that_it_has_passed() {
    let desk = Desk::with(|plan| plan.limits.mode = Mode::Observe);
    let mut pair = desk.confirming();
    store(&mut pair, "a", 1);
    publish(&mut pair, &m("a"));
    assert_eq!(pair.told_duplicates().pop().map(|told| told.what), Some(Sighted::Passed));
    assert_eq!(pair.session.duplicates(), 1);
}

/// Each way in which a publish turns out to be a duplicate counts once.
#[test]
fn every_way_to_be_a_duplicate_is_counted_once() {
    let desk = Desk::with(|plan| plan.rules.on_conflict = OnConflict::Drop);
    let mut pair = desk.confirming();
    // It waits for the first one's outcome.
    publish(&mut pair, &m("a"));
    pair.client(m("a").publish(1));
    assert_eq!(pair.session.duplicates(), 0, "that is not known yet");
    pair.upstream(ack(1, 1));
    assert_eq!((pair.session.duplicates(), pair.told_duplicates().len()), (1, 1));
    // Its body is not whole when it is judged.
    let (head, body) = cut(m("a").publish(1), 2);
    pair.client(head);
    pair.client(body);
    assert_eq!((pair.session.duplicates(), pair.told_duplicates().len()), (2, 1));
    // It is dropped although its body is another one.
    pair.client(message("x", "k").id("a").body("another").publish(1));
    assert_eq!((pair.session.duplicates(), pair.sightings().len()), (3, 1));
    // It stands twice in one transaction.
    let mut tx = desk.pair();
    tx.client(tx_select(1));
    tx.upstream(tx_select_ok(1));
    tx.to_upstream();
    tx.to_client();
    publish(&mut tx, &m("t"));
    tx.client(m("t").publish(1));
    assert_eq!((tx.session.duplicates(), tx.told_duplicates().len()), (1, 1));
}
