//! Same id, other content: each rule of `on_conflict`, however the body comes.

use super::desk::{Desk, SECOND, cut, m, publish, unheard};
use super::late;
use crate::support::frames::{Frames, Message, message};
use crate::support::methods::{ack, nack, tx_commit, tx_commit_ok, tx_rollback, tx_rollback_ok};
use crate::support::pair::Pair;
use hapax_core::session::Sighted;
use hapax_core::window::{ConfirmRule, Event, InDoubt, Mode, OnConflict};
use hapax_core::wire::IdSource;

fn desk(rule: OnConflict) -> Desk {
    Desk::with(|plan| plan.rules.on_conflict = rule)
}

/// The same id with another body.
fn other(id: &str) -> Message {
    message("x", "k").id(id).body("other")
}

/// A large body in frames of this size.
fn large(id: &str, fill: u8, frame_size: usize) -> Message {
    message("x", "k").id(id).body([fill; 10_000]).frame_size(frame_size)
}

/// Publishes it, and the broker acks it with this tag.
fn store(pair: &mut Pair, message: &Message, tag: u64) {
    publish(pair, message);
    pair.upstream(ack(1, tag));
    pair.to_client();
}

/// Each frame in a read of its own.
fn one_by_one(pair: &mut Pair, frames: Frames) {
    frames.into_iter().for_each(|frame| pair.client(frame.into()));
}

fn conflicts(desk: &Desk) -> usize {
    desk.count_like(|event| matches!(event, Event::Conflict { .. }))
}

#[test]
fn a_conflict_is_dropped_acked_counted_and_told_of() {
    let desk = desk(OnConflict::Drop);
    let mut pair = desk.confirming();
    store(&mut pair, &m("a"), 1);
    pair.client(m("a").publish(1));
    assert_eq!((pair.to_client(), conflicts(&desk)), (ack(1, 2), 0), "a retry is none");
    assert_eq!(pair.sightings(), []);
    pair.client(other("a").publish(1));
    assert_eq!(pair.to_upstream(), Frames::none());
    assert_eq!((pair.to_client(), conflicts(&desk)), (ack(1, 3), 1));
    let told = pair.sightings().pop().expect("people are told");
    assert_eq!(told.what, Sighted::Conflict(OnConflict::Drop));
    assert_eq!((&*told.window, &*told.vhost), ("test", &b"/"[..]));
    assert_eq!((&*told.id, &*told.exchange, &*told.routing_key), (&b"a"[..], &b"x"[..], &b"k"[..]));
}

/// A log gets a sample, with the number of the others. A stranger can't fill it.
#[test]
fn of_many_conflicts_one_a_second_is_told_of() {
    let desk = desk(OnConflict::Drop);
    let mut pair = desk.confirming();
    store(&mut pair, &m("a"), 1);
    (0..100).for_each(|_| pair.client(other("a").publish(1)));
    pair.advance(SECOND);
    (0..100).for_each(|_| pair.client(other("a").publish(1)));
    let left_out: Vec<u64> = pair.sightings().iter().map(|told| told.left_out).collect();
    assert_eq!((left_out, conflicts(&desk)), (vec![0, 99], 200));
}

/// The digest is that of the body, not of its frames, on the first way and on the second.
#[test]
fn frames_do_not_make_a_conflict() {
    for rule in [OnConflict::Drop, OnConflict::Forward, OnConflict::Reject] {
        for (first, second) in [(5_000, 1_000), (9, 20_000), (20_000, 9), (1_000, 1_000)] {
            for (whole, whole_again) in [(true, true), (true, false), (false, true), (false, false)] {
                let desk = desk(rule);
                let mut pair = desk.confirming();
                let say = |pair: &mut Pair, message: &Message, whole| match whole {
                    true => pair.client(message.publish(1)),
                    false => one_by_one(pair, message.publish(1)),
                };
                say(&mut pair, &large("a", 7, first), whole);
                pair.upstream(ack(1, 1));
                pair.to_upstream();
                pair.to_client();
                say(&mut pair, &large("a", 7, second), whole_again);
                assert_eq!(pair.to_upstream(), Frames::none(), "{rule:?} {first} {second}");
                assert_eq!((pair.to_client(), conflicts(&desk)), (ack(1, 2), 0));
                say(&mut pair, &large("a", 8, second), whole_again);
                assert_eq!(conflicts(&desk), 1, "{rule:?} {first} {second} {whole} {whole_again}");
                let forwarded = large("a", 8, second).publish(1);
                let (to_upstream, to_client) = match rule {
                    OnConflict::Drop => (Frames::none(), ack(1, 3)),
                    OnConflict::Forward => (forwarded, Frames::none()),
                    OnConflict::Reject => (Frames::none(), nack(1, 3)),
                };
                assert_eq!((pair.to_upstream(), pair.to_client()), (to_upstream, to_client));
            }
        }
    }
}

#[test]
fn an_empty_body_is_a_body_too() {
    let desk = desk(OnConflict::Drop);
    let mut pair = desk.confirming();
    store(&mut pair, &m("a").body(""), 1);
    pair.client(m("a").body("").publish(1));
    assert_eq!((pair.to_client(), conflicts(&desk)), (ack(1, 2), 0));
    pair.client(m("a").publish(1));
    assert_eq!((pair.to_client(), conflicts(&desk)), (ack(1, 3), 1));
}

/// Headers, properties and bits are not compared.
#[test]
fn a_retry_with_other_headers_is_no_conflict() {
    let desk = desk(OnConflict::Reject);
    let mut pair = desk.confirming();
    store(&mut pair, &m("a"), 1);
    pair.client(m("a").ttl_ms(5).mandatory().app("retry 2").publish(1));
    assert_eq!((pair.to_client(), conflicts(&desk)), (ack(1, 2), 0));
}

/// The ack of a duplicate comes when its body has ended, and acks of others pass it.
#[test]
fn a_duplicate_is_answered_at_its_end_and_nobody_waits_for_it() {
    for rule in [OnConflict::Drop, OnConflict::Forward, OnConflict::Reject] {
        let desk = desk(rule);
        let mut pair = desk.confirming();
        store(&mut pair, &large("a", 7, 5_000), 1);
        publish(&mut pair, &m("b"));
        let (here, to_come) = cut(large("a", 7, 5_000).publish(1), 3);
        unheard(&mut pair, here);
        pair.upstream(ack(1, 2));
        assert_eq!(pair.to_client(), ack(1, 2), "{rule:?}");
        pair.client(to_come + m("c").publish(1));
        assert_eq!(pair.to_upstream(), m("c").publish(1));
        assert_eq!(pair.to_client(), ack(1, 3));
    }
}

#[test]
fn a_conflict_that_is_forwarded_is_remembered_from_its_ack_on() {
    let desk = desk(OnConflict::Forward);
    let mut pair = desk.confirming();
    store(&mut pair, &m("a"), 1);
    store(&mut pair, &other("a"), 2);
    assert_eq!(conflicts(&desk), 1);
    pair.client(other("a").publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack(1, 3)), "its own retry");
    publish(&mut pair, &m("a"));
    assert_eq!((conflicts(&desk), desk.in_flight()), (2, 1));
    pair.upstream(ack(1, 3));
    assert_eq!((pair.to_client(), desk.in_flight()), (ack(1, 4), 0));
}

/// Not stored: what was stored before is still a duplicate, and the retry of the other one passes.
#[test]
fn a_conflict_that_is_not_stored_changes_nothing() {
    let desk = desk(OnConflict::Forward);
    let mut pair = desk.confirming();
    store(&mut pair, &m("a"), 1);
    publish(&mut pair, &other("a"));
    pair.upstream(nack(1, 2));
    assert_eq!(pair.to_client(), nack(1, 2));
    pair.client(m("a").publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack(1, 3)));
    publish(&mut pair, &other("a"));
    // Its connection ends before its outcome is known.
    drop(pair);
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack(1, 1)));
}

/// Two copies of the other body: one goes, the other one waits for it.
#[test]
fn copies_of_a_conflict_share_one_fate() {
    let desk = desk(OnConflict::Forward);
    let (mut pair, mut beside) = (desk.confirming(), desk.confirming());
    store(&mut pair, &m("a"), 1);
    publish(&mut pair, &other("a"));
    unheard(&mut beside, other("a").publish(1) + m("a").publish(1));
    pair.upstream(ack(1, 2));
    beside.pump();
    assert_eq!(beside.to_client(), ack(1, 1));
    assert_eq!(beside.to_upstream(), m("a").publish(1), "the first body is the other one now");
    beside.upstream(ack(1, 1));
    assert_eq!((beside.to_client(), desk.in_flight()), (ack(1, 2), 0));
    assert_eq!(conflicts(&desk), 2);
}

/// A message of the id is in flight, and another one of it is stored beside it. The stored one says nothing of the one in flight.
#[test]
fn a_copy_of_a_conflict_in_flight_waits_whatever_else_is_stored() {
    let desk = desk(OnConflict::Forward);
    let (mut first, mut one, mut two) = (desk.confirming(), desk.confirming(), desk.confirming());
    publish(&mut first, &m("a"));
    // Its consumer publishes it again, which waits for nobody.
    first.upstream(other("a").deliver(1, "c", 1));
    first.to_client();
    publish(&mut first, &other("a"));
    first.upstream(ack(1, 2));
    first.to_client();
    let third = m("a").body("third");
    unheard(&mut one, third.publish(1));
    first.upstream(ack(1, 1));
    one.pump();
    assert_eq!(one.to_upstream(), third.publish(1));
    unheard(&mut two, third.publish(1));
    one.upstream(ack(1, 1));
    two.pump();
    assert_eq!((two.to_client(), two.to_upstream()), (ack(1, 1), Frames::none()));
    assert_eq!(desk.in_flight(), 0);
}

/// It waits for one in flight whose body is another.
#[test]
fn those_who_wait_are_compared_when_the_outcome_is_known() {
    for rule in [OnConflict::Drop, OnConflict::Forward, OnConflict::Reject] {
        for whole in [true, false] {
            let desk = desk(rule);
            let (mut first, mut pair) = (desk.confirming(), desk.confirming());
            publish(&mut first, &large("a", 7, 5_000));
            let frames = large("a", 8, 5_000).publish(1);
            let (here, to_come) = cut(frames.clone(), if whole { frames.len() } else { 3 });
            unheard(&mut pair, here);
            first.upstream(ack(1, 1));
            assert_eq!(first.to_client(), ack(1, 1));
            pair.pump();
            pair.client(to_come);
            let (to_upstream, to_client) = match rule {
                OnConflict::Drop => (Frames::none(), ack(1, 1)),
                OnConflict::Forward => (frames, Frames::none()),
                OnConflict::Reject => (Frames::none(), nack(1, 1)),
            };
            assert_eq!((pair.to_upstream(), pair.to_client()), (to_upstream, to_client), "{rule:?} {whole}");
            assert_eq!(conflicts(&desk), 1);
        }
    }
}

#[test]
fn a_conflict_that_nobody_hears_of_closes_the_channel() {
    let desk = desk(OnConflict::Reject);
    let mut pair = desk.pair();
    desk.store("b");
    pair.client(m("a").publish(1));
    pair.to_upstream();
    pair.upstream(ack(1, 1));
    pair.client(m("a").publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), Frames::none()));
    let (here, to_come) = cut(large("a", 9, 5_000).publish(1), 3);
    unheard(&mut pair, here);
    pair.client(to_come);
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("406") && said.contains("on_conflict"), "{said}");
}

/// A body that is too large to be held is forwarded: it may be another message.
#[test]
fn what_can_not_be_held_is_forwarded_rather_than_lost() {
    let desk = Desk::with(|plan| {
        plan.rules.on_conflict = OnConflict::Forward;
        plan.settings.held_bytes = 5_000;
    });
    let mut pair = desk.confirming();
    store(&mut pair, &large("a", 7, 1_000), 1);
    for (round, fill) in [7, 8].into_iter().enumerate() {
        let before = desk.count(Event::Uncompared);
        one_by_one(&mut pair, large("a", fill, 1_000).publish(1));
        assert_eq!(pair.to_upstream(), large("a", fill, 1_000).publish(1));
        assert_eq!(desk.count(Event::Uncompared), before + 1);
        pair.upstream(ack(1, 2 + round as u64));
        pair.to_client();
    }
    // In one read it need not be held. The body that came last is the one that is remembered.
    pair.client(large("a", 8, 20_000).publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack(1, 4)));
    assert_eq!((conflicts(&desk), desk.in_flight()), (0, 0));
}

/// A body that is held for a comparison is counted. When the client goes, it is dropped.
#[test]
fn what_is_held_is_counted_and_given_back() {
    for rule in [OnConflict::Drop, OnConflict::Forward, OnConflict::Reject] {
        let desk = desk(rule);
        let mut pair = desk.confirming();
        store(&mut pair, &large("a", 7, 5_000), 1);
        let before = pair.session.memory();
        let (here, _) = cut(large("a", 8, 5_000).publish(1), 3);
        unheard(&mut pair, here);
        let now = pair.session.memory();
        let least = if rule == OnConflict::Forward { 10_000 } else { 100 };
        assert!(
            now.held >= before.held + least && now.stuck >= before.stuck + least,
            "{rule:?} {before:?} {now:?}"
        );
        pair.client_eof();
        assert_eq!((desk.in_flight(), conflicts(&desk)), (0, 0), "{rule:?}");
        // It was never whole, so nobody knows whether it was the same.
        let mut pair = desk.confirming();
        pair.client(large("a", 7, 20_000).publish(1));
        assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack(1, 1)));
    }
}

#[test]
fn observe_counts_conflicts_and_forwards_everything() {
    let desk = Desk::with(|plan| {
        plan.rules.on_conflict = OnConflict::Reject;
        plan.limits.mode = Mode::Observe;
    });
    let mut pair = desk.confirming();
    store(&mut pair, &large("a", 7, 5_000), 1);
    for (fill, count) in [(7, 0), (8, 1)] {
        publish(&mut pair, &large("a", fill, 20_000));
        assert_eq!(conflicts(&desk), count);
    }
    one_by_one(&mut pair, large("a", 9, 1_000).publish(1));
    assert_eq!((pair.to_upstream(), conflicts(&desk)), (large("a", 9, 1_000).publish(1), 2));
    assert_eq!(pair.sightings().pop().map(|told| told.what), Some(Sighted::Observed));
}

#[test]
fn a_body_that_is_the_id_never_conflicts() {
    let desk = Desk::with(|plan| {
        plan.rules.id = IdSource::Body;
        plan.rules.on_conflict = OnConflict::Reject;
    });
    let mut pair = desk.confirming();
    store(&mut pair, &m("a"), 1);
    pair.client(m("b").publish(1));
    assert_eq!((pair.to_client(), conflicts(&desk)), (ack(1, 2), 0));
}

/// Without confirms upstream, an id is committed when its message is written: with the digest of all of its body.
#[test]
fn an_id_that_is_committed_when_it_is_written_has_its_body() {
    let desk = Desk::with(|plan| plan.rules.confirms = ConfirmRule::ClientOnly);
    let mut pair = desk.pair();
    one_by_one(&mut pair, large("a", 7, 1_000).publish(1));
    pair.client(m("b").publish(1));
    pair.to_upstream();
    pair.client(large("a", 7, 20_000).publish(1) + m("b").publish(1));
    assert_eq!((pair.to_upstream(), conflicts(&desk)), (Frames::none(), 0));
    pair.client(large("a", 8, 20_000).publish(1) + other("b").publish(1));
    assert_eq!((pair.to_upstream(), conflicts(&desk)), (Frames::none(), 2));
}

#[test]
fn what_is_kept_in_doubt_keeps_its_body() {
    let desk = Desk::with(|plan| plan.rules.in_doubt = InDoubt::Keep);
    let mut pair = desk.confirming();
    publish(&mut pair, &large("a", 7, 5_000));
    pair.upstream_eof();
    let mut pair = desk.confirming();
    pair.client(large("a", 7, 20_000).publish(1));
    assert_eq!((pair.to_client(), conflicts(&desk)), (ack(1, 1), 0));
    pair.client(large("a", 8, 20_000).publish(1));
    assert_eq!((pair.to_client(), conflicts(&desk)), (ack(1, 2), 1));
}

/// A stored id in a transaction, and one that stands in it twice.
#[test]
fn in_a_transaction_every_rule_does_what_it_says() {
    for rule in [OnConflict::Drop, OnConflict::Forward, OnConflict::Reject] {
        for stored in [true, false] {
            for whole in [true, false] {
                let desk = desk(rule);
                if stored {
                    store(&mut desk.confirming(), &large("a", 7, 5_000), 1);
                }
                let mut pair = desk.in_tx();
                if !stored {
                    publish(&mut pair, &large("a", 7, 5_000));
                }
                let frames = large("a", 8, 5_000).publish(1);
                match whole {
                    true => pair.client(frames.clone()),
                    false => one_by_one(&mut pair, frames.clone()),
                }
                assert_eq!(conflicts(&desk), 1, "{rule:?} {stored} {whole}");
                let (to_upstream, to_client) = (pair.to_upstream(), pair.to_client());
                match rule {
                    OnConflict::Drop => assert!(to_upstream.is_empty() && to_client.is_empty()),
                    OnConflict::Forward => assert_eq!((to_upstream, to_client), (frames, Frames::none())),
                    OnConflict::Reject => {
                        assert!(format!("{to_client:?}").contains("on_conflict"), "{to_client:?}");
                        continue;
                    }
                }
                pair.client(large("a", 7, 5_000).publish(1));
                pair.to_upstream();
                pair.client(tx_commit(1));
                pair.upstream(tx_commit_ok(1));
                assert_eq!((pair.to_client(), desk.in_flight()), (tx_commit_ok(1), 0));
            }
        }
    }
}

#[test]
fn a_conflict_in_a_transaction_that_is_rolled_back_changes_nothing() {
    let desk = desk(OnConflict::Forward);
    store(&mut desk.confirming(), &m("a"), 1);
    let mut pair = desk.in_tx();
    publish(&mut pair, &other("a"));
    pair.client(tx_rollback(1));
    pair.upstream(tx_rollback_ok(1));
    pair.to_client();
    pair.to_upstream();
    pair.client(m("a").publish(1));
    assert_eq!((pair.to_upstream(), desk.in_flight()), (Frames::none(), 0));
}

/// A window whose verdicts come by mail.
#[test]
fn a_late_verdict_is_compared_too() {
    for rule in [OnConflict::Drop, OnConflict::Forward, OnConflict::Reject] {
        for whole in [true, false] {
            let (desk, late) = late::late(|plan| plan.rules.on_conflict = rule);
            let mut pair = desk.confirming();
            unheard(&mut pair, m("a").publish(1));
            late.answer_next(0, pair.now());
            pair.pump();
            assert_eq!(pair.to_upstream(), m("a").publish(1));
            pair.upstream(ack(1, 1));
            pair.to_client();
            let frames = large("a", 8, 5_000).publish(1);
            let (here, to_come) = cut(frames.clone(), if whole { frames.len() } else { 3 });
            unheard(&mut pair, here);
            late.answer_twice(0, pair.now());
            pair.pump();
            pair.client(to_come);
            let (to_upstream, to_client) = match rule {
                OnConflict::Drop => (Frames::none(), ack(1, 2)),
                OnConflict::Forward => (frames, Frames::none()),
                OnConflict::Reject => (Frames::none(), nack(1, 2)),
            };
            assert_eq!((pair.to_upstream(), pair.to_client()), (to_upstream, to_client), "{rule:?} {whole}");
            assert_eq!(conflicts(&desk), 1);
        }
    }
}
