//! `release = "consumed"`: an id is forgotten when a consumer acks its message, and not before.

use super::desk::{Desk, Line, m, publish};
use crate::support::frames::{Frames, Message, message};
use crate::support::methods::{
    ack, ack_multiple, consume, consume_acking, consume_ok, get, nack, reject, tx_commit, tx_commit_ok,
    tx_rollback, tx_rollback_ok, tx_select, tx_select_ok,
};
use crate::support::pair::Pair;
use amq_protocol::types::{AMQPValue, FieldTable};
use hapax_core::window::{Event, EvictionCause, Release, RepublishRule, Scope};
use hapax_core::wire::IdSource;

fn desk() -> Desk {
    Desk::with(|plan| plan.rules.release = Release::Consumed)
}

/// A connection of another user with a consumer.
fn consumer(desk: &Desk, start: Frames) -> Pair {
    let mut pair = desk.pair();
    pair.client(start);
    pair.upstream(consume_ok(1, "c"));
    pair.to_client();
    pair.to_upstream();
    pair
}

fn acking(desk: &Desk) -> Pair {
    consumer(desk, consume_acking(1, "q", "c"))
}

fn deliver(pair: &mut Pair, message: &Message, tag: u64) {
    pair.upstream(message.deliver(1, "c", tag));
    assert_eq!(pair.to_client(), message.deliver(1, "c", tag), "deliveries are as they are");
}

#[test]
fn a_job_may_be_queued_again_when_it_is_done_and_not_before() {
    let desk = desk();
    let (mut line, mut worker) = (Line::of(desk.pair()), acking(&desk));
    for round in 1..=3 {
        assert!(line.passes(&m("job")) && !line.passes(&m("job")));
        deliver(&mut worker, &m("job"), round);
        assert!(!line.passes(&m("job")), "it is not done yet");
        worker.client(ack(1, round));
        assert_eq!(worker.to_upstream(), ack(1, round));
    }
    assert!(!desk.is_seen("job"));
    let consumed = |event: &Event| matches!(event, Event::Evicted { cause: EvictionCause::Consumed, .. });
    assert_eq!(desk.count_like(consumed), 3);
}

#[test]
fn what_is_given_back_or_refused_is_not_consumed() {
    let desk = desk();
    let (mut line, mut worker) = (Line::of(desk.pair()), acking(&desk));
    assert!(line.passes(&m("job")));
    for (tag, settle) in [nack(1, 1), reject(1, 2, true), reject(1, 3, false)].into_iter().enumerate() {
        deliver(&mut worker, &m("job"), tag as u64 + 1);
        worker.client(settle);
        assert!(!line.passes(&m("job")));
    }
    deliver(&mut worker, &m("job"), 4);
    worker.client_eof();
    assert!(!line.passes(&m("job")));
}

#[test]
fn without_acks_it_is_consumed_when_it_is_sent_and_get_counts_too() {
    let desk = desk();
    let mut line = Line::of(desk.pair());
    let mut worker = consumer(&desk, consume(1, "q", "c"));
    assert!(line.passes(&m("a")) && line.passes(&m("b")) && line.passes(&m("c")));
    deliver(&mut worker, &m("a"), 1);
    assert!(line.passes(&m("a")));
    for (tag, no_ack, id) in [(2, true, "b"), (3, false, "c")] {
        worker.client(get(1, "q", no_ack));
        assert_eq!(worker.to_upstream(), get(1, "q", no_ack));
        worker.upstream(m(id).get_ok(1, tag));
        assert_eq!(worker.to_client(), m(id).get_ok(1, tag));
    }
    assert!(line.passes(&m("b")) && !line.passes(&m("c")));
    worker.client(ack(1, 3));
    assert!(line.passes(&m("c")));
}

/// The broker may deliver a message before it confirms it, and the consumer may be faster than the confirm.
#[test]
fn an_ack_of_the_consumer_that_comes_before_the_confirm_counts() {
    let desk = desk();
    let (mut first, mut worker) = (desk.confirming(), acking(&desk));
    publish(&mut first, &m("job"));
    deliver(&mut worker, &m("job"), 1);
    worker.client(ack(1, 1));
    first.upstream(ack(1, 1));
    assert_eq!(first.to_client(), ack(1, 1));
    assert!(!desk.is_seen("job"));
    assert_eq!(desk.in_flight(), 0);
    publish(&mut first, &m("job"));
    first.upstream(ack(1, 2));
    assert!(desk.is_seen("job"), "the next one is as any other");
}

/// A copy that waits for the first one is the same job: it was published before that was done.
#[test]
fn who_waits_meanwhile_is_a_duplicate() {
    let desk = desk();
    let (mut first, mut copy, mut worker) = (desk.confirming(), desk.confirming(), acking(&desk));
    publish(&mut first, &m("job"));
    copy.client(m("job").publish(1));
    deliver(&mut worker, &m("job"), 1);
    worker.client(ack(1, 1));
    first.upstream(ack(1, 1));
    assert_eq!((copy.to_client(), copy.to_upstream()), (ack(1, 1), Frames::none()));
    assert!(!desk.is_seen("job"));
}

/// The job is done, and the broker has not confirmed it. The next one may not be published yet, and must not be taken for it.
#[test]
fn the_next_job_is_no_duplicate_of_one_that_is_done_and_not_confirmed() {
    let desk = desk();
    let (mut first, mut next, mut plain) = (desk.confirming(), desk.confirming(), desk.pair());
    let mut worker = acking(&desk);
    publish(&mut first, &m("job"));
    deliver(&mut worker, &m("job"), 1);
    worker.client(ack(1, 1));
    next.client(m("job").publish(1));
    assert_eq!((next.to_client(), next.to_upstream()), (nack(1, 1), Frames::none()));
    // Without confirms it waits until it may go.
    plain.client(m("job").publish(1));
    assert_eq!(plain.to_upstream(), Frames::none());
    first.upstream(ack(1, 1));
    assert_eq!(first.to_client(), ack(1, 1));
    plain.advance(std::time::Duration::from_millis(20));
    assert!(plain.to_upstream().len() >= 3, "it is forwarded");
    next.client(m("job").publish(1));
    assert_eq!(next.to_upstream(), Frames::none(), "that one is in flight, and not done");
    plain.upstream(ack(1, 1));
    next.pump();
    assert_eq!(next.to_client(), ack(1, 2));
}

/// One that was not stored after all was not the consumed one.
#[test]
fn a_publish_that_is_nacked_leaves_no_note_for_the_next() {
    let desk = desk();
    let (mut first, mut copy, mut worker) = (desk.confirming(), desk.confirming(), acking(&desk));
    publish(&mut first, &m("job"));
    copy.client(m("job").publish(1));
    deliver(&mut worker, &m("job"), 1);
    worker.client(ack(1, 1));
    first.upstream(nack(1, 1));
    assert_eq!(copy.to_upstream(), m("job").publish(1));
    copy.upstream(ack(1, 1));
    assert!(desk.is_seen("job"));
}

#[test]
fn in_a_transaction_it_is_consumed_when_that_is_committed() {
    let desk = desk();
    let mut line = Line::of(desk.pair());
    let mut worker = desk.pair();
    worker.client(tx_select(1) + consume_acking(1, "q", "c"));
    worker.upstream(tx_select_ok(1) + consume_ok(1, "c"));
    worker.to_client();
    assert!(line.passes(&m("a")) && line.passes(&m("b")));
    deliver(&mut worker, &m("a"), 1);
    deliver(&mut worker, &m("b"), 2);
    worker.client(ack_multiple(1, 2) + tx_rollback(1));
    worker.upstream(tx_rollback_ok(1));
    assert!(!line.passes(&m("a")));
    worker.client(ack(1, 1) + tx_commit(1));
    assert!(!line.passes(&m("a")));
    worker.upstream(tx_commit_ok(1));
    assert!(line.passes(&m("a")) && !line.passes(&m("b")));
}

/// The delivery comes from the dead-letter exchange, and its deaths say where it was published. But anybody could have written them.
#[test]
fn the_deaths_of_a_message_release_nothing() {
    let desk = desk();
    let (mut line, mut worker) = (Line::of(desk.pair()), acking(&desk));
    assert!(line.passes(&m("job")) && !line.passes(&m("job")));
    let mut death = FieldTable::default();
    for (name, value) in [
        ("queue", AMQPValue::LongString("work".into())),
        ("reason", AMQPValue::LongString("rejected".into())),
        ("exchange", AMQPValue::LongString("x".into())),
        ("count", AMQPValue::LongLongInt(1)),
        ("routing-keys", AMQPValue::FieldArray(vec![AMQPValue::LongString("k".into())].into())),
    ] {
        death.insert(name.into(), value);
    }
    let letter = message("dlx", "dead")
        .id("job")
        .header("x-death", AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()));
    deliver(&mut worker, &letter, 1);
    worker.client(ack(1, 1));
    assert!(!line.passes(&m("job")));
}

#[test]
fn the_key_is_that_of_the_publish() {
    for (scope, other_key, released) in
        [(Scope::RoutingKey, "k2", false), (Scope::Exchange, "k2", true), (Scope::Vhost, "k2", true)]
    {
        let desk = Desk::with(|plan| {
            plan.rules.release = Release::Consumed;
            plan.rules.republish = RepublishRule::Drop;
            plan.rules.scope = scope;
            plan.rules.id = IdSource::Header("job".into());
        });
        let with = |key: &str, id: &str| message("x", key).header("job", AMQPValue::LongString(id.into()));
        let (mut line, mut worker) = (Line::of(desk.pair()), acking(&desk));
        assert!(line.passes(&with("k", "1")) && line.passes(&with("k", "2")));
        deliver(&mut worker, &with(other_key, "1"), 1);
        worker.client(ack(1, 1));
        assert_eq!(line.passes(&with("k", "1")), released, "{scope:?}");
        assert!(!line.passes(&with("k", "2")), "nobody has consumed that one");
    }
}

/// The relay that has such a window and no guard counts tags, and changes none.
#[test]
fn a_window_that_does_not_release_leaves_deliveries_alone() {
    let desk = Desk::new();
    let (mut line, mut worker) = (Line::of(desk.pair()), acking(&desk));
    assert!(line.passes(&m("job")));
    deliver(&mut worker, &m("job"), 1);
    worker.client(ack(1, 1));
    assert!(!line.passes(&m("job")));
    worker.client(ack(1, 9));
    assert_eq!(worker.to_upstream(), ack(1, 1) + ack(1, 9), "the broker judges it");
}

/// A message that no window has judged says nothing about the one that it has: that one is still in its queue.
#[test]
fn a_bypassed_message_releases_nothing() {
    let desk = desk();
    let (mut line, mut worker) = (Line::of(desk.pair()), acking(&desk));
    assert!(line.passes(&m("job")) && line.passes(&m("job").bypass()));
    deliver(&mut worker, &m("job").bypass(), 1);
    worker.client(ack(1, 1));
    assert!(!line.passes(&m("job")), "the job is still queued");
    deliver(&mut worker, &m("job"), 2);
    worker.client(ack(1, 2));
    assert!(line.passes(&m("job")));
}
