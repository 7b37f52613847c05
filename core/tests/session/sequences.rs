//! `id = "sequence"`: what a producer sees that numbers its messages.

use super::desk::{Desk, Line, begin_tx, confirm, publish, unheard};
use crate::support::frames::{Frame, Frames, Message, message};
use crate::support::methods::{
    ack, ack_multiple, nack, publish_refused, tx_commit, tx_commit_ok, tx_rollback, tx_rollback_ok,
};
use crate::support::pair::Pair;
use crate::support::probe::{asks, may_not};
use amq_protocol::types::{AMQPValue, LongString};
use hapax_core::window::{Event, MissingId, Mode, OnGap, Refusal};
use hapax_core::wire::{BadHeader, IdSource};

fn desk() -> Desk {
    Desk::with(|plan| plan.rules.id = IdSource::Sequence)
}

fn rejecting() -> Desk {
    Desk::with(|plan| {
        plan.rules.id = IdSource::Sequence;
        plan.rules.numbering.on_gap = OnGap::Reject;
    })
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

fn of(producer: &str, epoch: Option<i64>, number: i64) -> Message {
    let message = message("x", "k").body("body").header("x-hapax-producer", text(producer));
    let message = message.header("x-hapax-sequence", AMQPValue::LongLongInt(number));
    match epoch {
        Some(epoch) => message.header("x-hapax-epoch", AMQPValue::LongLongInt(epoch)),
        None => message,
    }
}

fn n(number: i64) -> Message {
    of("p", None, number)
}

#[test]
fn a_number_is_stored_once_and_its_duplicate_is_acked() {
    let desk = desk();
    let mut line = Line::of(desk.pair());
    assert!((1..=100).all(|number| line.passes(&n(number))));
    assert!((1..=100).all(|number| !line.passes(&n(number))));
    assert!(line.passes(&of("q", None, 1)) && line.passes(&of("p", Some(1), 1)));
}

/// The body is not part of it, nor is any other property.
#[test]
fn another_body_with_the_same_number_is_a_duplicate_and_no_conflict() {
    let desk = desk();
    let mut line = Line::of(desk.pair());
    assert!(line.passes(&n(1)) && !line.passes(&n(1).body("other").id("id").ttl_ms(1)));
    assert_eq!(desk.count_like(|event| matches!(event, Event::Conflict { .. })), 0);
}

#[test]
fn pipelined_numbers_are_judged_together_and_acked_by_one_multiple() {
    let desk = desk();
    let mut pair = desk.confirming();
    let all = |numbers: std::ops::Range<i64>| {
        numbers.map(|number| n(number).publish(1)).fold(Frames::none(), |frames, more| frames + more)
    };
    pair.client(all(1..201));
    assert_eq!(pair.to_upstream(), all(1..201));
    // Those that are in flight wait for their outcome.
    unheard(&mut pair, all(150..180));
    pair.upstream(ack_multiple(1, 200));
    assert_eq!(pair.to_client(), ack_multiple(1, 230));
    pair.client(all(1..201));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack_multiple(1, 430)));
}

#[test]
fn nacks_out_of_order_leave_holes_that_are_filled_later() {
    let desk = desk();
    let mut pair = desk.confirming();
    (1..=6).for_each(|number| publish(&mut pair, &n(number)));
    pair.upstream(ack(1, 5) + nack(1, 2) + ack(1, 1) + nack(1, 4) + ack(1, 6) + ack(1, 3));
    assert!(!pair.to_client().is_empty());
    for (number, is_new) in [(1, false), (2, true), (3, false), (4, true), (5, false), (6, false)] {
        pair.client(n(number).publish(1));
        assert_eq!(!pair.to_upstream().is_empty(), is_new, "{number}");
    }
}

/// A client that has lost its connection asks again on another one, while the first one's outcome is open.
#[test]
fn two_connections_of_one_producer_share_its_numbers() {
    let desk = desk();
    let (mut one, mut two) = (desk.confirming(), desk.confirming());
    publish(&mut one, &n(1));
    publish(&mut two, &n(2));
    unheard(&mut two, n(1).publish(1));
    one.upstream(nack(1, 1));
    assert_eq!(one.to_client(), nack(1, 1));
    two.pump();
    assert_eq!(two.to_upstream(), n(1).publish(1), "it takes the place of the first");
    two.upstream(ack_multiple(1, 2));
    assert_eq!(two.to_client(), ack_multiple(1, 2));
    one.client(n(2).publish(1));
    assert_eq!((one.to_upstream(), one.to_client()), (Frames::none(), ack(1, 2)));
}

#[test]
fn a_reconnect_under_a_higher_epoch_shuts_the_old_process_out() {
    let desk = desk();
    let (mut old, mut new) = (desk.confirming(), desk.confirming());
    publish(&mut old, &of("p", Some(1), 1));
    publish(&mut new, &of("p", Some(2), 1));
    // What the old one has in flight has its outcome, and the numbers of the new one are others.
    old.upstream(ack(1, 1));
    assert_eq!(old.to_client(), ack(1, 1));
    new.upstream(ack(1, 1));
    assert_eq!(new.to_client(), ack(1, 1));
    old.client(of("p", Some(1), 2).publish(1));
    assert_eq!(closed(&mut old), Some(406), "a zombie");
    assert_eq!(desk.count(Event::OutOfSequence(Refusal::Stale)), 1);
    publish(&mut new, &of("p", Some(2), 2));
}

/// The code of the `channel.close` that the client hears.
fn closed(pair: &mut Pair) -> Option<u16> {
    use amq_protocol::protocol::{AMQPClass, channel};
    let frames = pair.to_client();
    let mut codes = frames.0.iter().filter_map(|frame| match frame.method() {
        Some(AMQPClass::Channel(channel::AMQPMethod::Close(close))) => Some(close.reply_code),
        _ => None,
    });
    codes.next()
}

/// Whether a message goes to the broker.
fn forwards(pair: &mut Pair) -> bool {
    use amq_protocol::protocol::{AMQPClass, basic};
    let is_publish =
        |frame: &Frame| matches!(frame.method(), Some(AMQPClass::Basic(basic::AMQPMethod::Publish(_))));
    pair.to_upstream().0.iter().any(is_publish)
}

/// It waits behind the copy of another connection, and the epoch ends meanwhile.
#[test]
fn a_waiter_of_an_old_epoch_is_shut_out_when_what_it_waits_for_was_not_stored() {
    for stored in [true, false] {
        let desk = desk();
        let (mut old, mut older, mut new) = (desk.confirming(), desk.confirming(), desk.confirming());
        publish(&mut old, &of("p", Some(1), 1));
        unheard(&mut older, of("p", Some(1), 1).publish(1));
        publish(&mut new, &of("p", Some(2), 1));
        old.upstream(if stored { ack(1, 1) } else { nack(1, 1) });
        older.pump();
        assert!(!forwards(&mut older));
        match stored {
            true => assert_eq!(older.to_client(), ack(1, 1)),
            false => assert_eq!(closed(&mut older), Some(406)),
        }
        assert_eq!(desk.in_flight(), 1);
    }
}

#[test]
fn with_reject_a_gap_is_nacked_and_without_confirms_it_is_a_fault() {
    let desk = rejecting();
    let mut pair = desk.confirming();
    publish(&mut pair, &n(7));
    pair.client(n(9).publish(1) + n(8).publish(1) + n(9).publish(1));
    assert_eq!(pair.to_upstream(), n(8).publish(1) + n(9).publish(1));
    assert_eq!(pair.to_client(), nack(1, 2));
    pair.upstream(ack_multiple(1, 3));
    pair.to_client();
    let mut pair = desk.pair();
    pair.client(n(11).publish(1));
    assert_eq!(closed(&mut pair), Some(406));
    assert_eq!(desk.count(Event::OutOfSequence(Refusal::Gap)), 2);
}

#[test]
fn with_forward_a_gap_is_counted_and_can_be_filled() {
    let desk = desk();
    let mut line = Line::of(desk.pair());
    assert!([1, 2, 9, 5, 3, 4].into_iter().all(|number| line.passes(&n(number))));
    assert_eq!(desk.count(Event::Gap), 1);
}

#[test]
fn observe_forwards_what_enforce_would_drop_or_refuse() {
    let desk = Desk::with(|plan| {
        plan.rules.id = IdSource::Sequence;
        plan.rules.numbering.on_gap = OnGap::Reject;
        plan.limits.mode = Mode::Observe;
    });
    let mut line = Line::of(desk.pair());
    for message in [of("p", Some(2), 1), of("p", Some(2), 1), of("p", Some(1), 1), of("p", Some(2), 5)] {
        assert!(line.passes(&message));
    }
    assert_eq!(desk.count(Event::OutOfSequence(Refusal::Stale)), 1);
    assert_eq!(desk.count(Event::OutOfSequence(Refusal::Gap)), 1);
}

#[test]
fn headers_that_are_missing_or_bad_follow_missing_id() {
    let number =
        |value| message("x", "k").header("x-hapax-producer", text("p")).header("x-hapax-sequence", value);
    let named =
        |value| message("x", "k").header("x-hapax-producer", value).header("x-hapax-sequence", text("1"));
    let cases = [
        (message("x", "k").id("a"), &[][..]),
        (message("x", "k").header("x-hapax-sequence", text("1")), &[]),
        (message("x", "k").header("x-hapax-producer", text("p")), &[]),
        (number(AMQPValue::Void), &[]),
        (number(AMQPValue::LongLongInt(-1)), &[BadHeader::Sequence]),
        (number(AMQPValue::Double(1.5)), &[BadHeader::Sequence]),
        (number(text("one")), &[BadHeader::Sequence]),
        (number(text("9223372036854775808")), &[BadHeader::Sequence]),
        (named(text("")), &[BadHeader::Producer]),
        (named(text(&"p".repeat(256))), &[BadHeader::Producer]),
        (named(AMQPValue::LongInt(7)), &[BadHeader::Producer]),
        (n(1).header("x-hapax-epoch", AMQPValue::LongInt(-1)), &[BadHeader::Epoch]),
        (n(1).header("x-hapax-epoch", text("now")), &[BadHeader::Epoch]),
    ];
    for (message, bad) in &cases {
        let desk = desk();
        let mut line = Line::of(desk.pair());
        assert!(line.passes(message) && line.passes(message), "{message:?}");
        assert_eq!((desk.count(Event::NoId), desk.window.len()), (2, 0), "{message:?}");
        assert_eq!(line.pair.take_bad_headers(), *bad, "{message:?}: told once");
        let strict = Desk::with(|plan| {
            plan.rules.id = IdSource::Sequence;
            plan.rules.missing_id = MissingId::Reject;
        });
        let mut pair = strict.confirming();
        pair.client(message.publish(1));
        assert_eq!((forwards(&mut pair), closed(&mut pair)), (false, Some(406)), "{message:?}");
    }
}

#[test]
fn a_text_is_a_number_too() {
    let desk = desk();
    let mut line = Line::of(desk.pair());
    let written = |number: &str| {
        message("x", "k").header("x-hapax-producer", text("p")).header("x-hapax-sequence", text(number))
    };
    assert!(
        line.passes(&n(41))
            && !line.passes(&written("41"))
            && line.passes(&written("42"))
            && !line.passes(&n(42))
    );
}

#[test]
fn bypass_is_not_judged_and_x_cache_ttl_says_nothing() {
    let desk = desk();
    let mut line = Line::of(desk.pair());
    assert!(line.passes(&n(1).ttl_ms(0)) && !line.passes(&n(1)));
    assert!(line.passes(&n(1).bypass()) && line.passes(&n(2).bypass()) && line.passes(&n(2)));
}

#[test]
fn the_scope_is_that_of_ids() {
    let desk = desk();
    let mut line = Line::of(desk.pair());
    let elsewhere = |number| {
        let message = message("x", "other").header("x-hapax-producer", text("p"));
        message.header("x-hapax-sequence", AMQPValue::LongLongInt(number)).body("body")
    };
    assert!(line.passes(&n(1)) && line.passes(&elsewhere(1)) && !line.passes(&elsewhere(1)));
}

#[test]
fn a_transaction_stores_its_numbers_together_or_not_at_all() {
    let desk = desk();
    let mut pair = desk.in_tx();
    publish(&mut pair, &n(1));
    publish(&mut pair, &n(2));
    unheard(&mut pair, n(1).publish(1));
    pair.client(tx_rollback(1));
    pair.upstream(tx_rollback_ok(1));
    pair.to_client();
    pair.to_upstream();
    publish(&mut pair, &n(1));
    publish(&mut pair, &n(2));
    pair.client(tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    assert_eq!(pair.to_client(), tx_commit_ok(1));
    pair.to_upstream();
    unheard(&mut pair, n(2).publish(1));
    unheard(&mut pair, n(1).header("x-hapax-epoch", AMQPValue::LongInt(0)).publish(1));
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn a_gap_in_a_transaction_is_a_fault_and_rolls_it_back() {
    let desk = rejecting();
    let mut pair = desk.pair();
    begin_tx(&mut pair);
    publish(&mut pair, &n(1));
    pair.client(n(3).publish(1));
    assert_eq!(closed(&mut pair), Some(406));
    let mut line = Line::of(desk.pair());
    assert!(line.passes(&n(1)));
}

#[test]
fn a_consumer_that_publishes_its_delivery_again_is_no_retry() {
    let desk = desk();
    let mut pair = desk.confirming();
    publish(&mut pair, &n(1));
    pair.upstream(ack(1, 1));
    pair.to_client();
    let written = message("x", "k").body("b").header("x-hapax-sequence", text("1"));
    let written = written.header("x-hapax-producer", text("p"));
    pair.upstream(written.deliver(1, "c", 1));
    pair.to_client();
    publish(&mut pair, &n(1));
    pair.upstream(ack(1, 2));
    pair.to_client();
    unheard_but(&mut pair, &n(1), ack(1, 3));
}

fn unheard_but(pair: &mut Pair, message: &Message, answer: Frames) {
    pair.client(message.publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), answer));
}

/// A user without the right can't begin an epoch, nor fill a hole, nor learn a number.
#[test]
fn a_stranger_moves_nobodys_numbers() {
    let desk = Desk::unproven(|plan| plan.rules.id = IdSource::Sequence);
    let mut stranger = desk.user("mallory");
    confirm(&mut stranger, 1);
    stranger.client(of("p", Some(1_000), 1).publish(1));
    assert_eq!(stranger.to_upstream(), asks(&[("x", "k")]));
    assert_eq!(desk.window.len(), 0);
    stranger.upstream(may_not());
    assert_eq!((desk.window.len(), desk.in_flight()), (0, 0));
    let desk = desk.proving();
    let mut line = Line::of(desk.pair());
    assert!((1..=3).all(|number| line.passes(&of("p", Some(1), number))));
}

#[test]
fn the_reply_text_says_what_to_do() {
    let desk = desk();
    let mut pair = desk.confirming();
    publish(&mut pair, &of("p", Some(2), 1));
    pair.client(of("p", Some(1), 1).publish(1));
    let text = "PRECONDITION_FAILED - window 'test' has seen a higher x-hapax-epoch of this producer: another process has taken its \
                place; stop, or start again with a higher epoch";
    assert_eq!(pair.to_client(), publish_refused(1, 406, text));
}

/// A dead letter that somebody moves back with its headers, `x-death` among them.
fn dead(letter: &Message, second: u64) -> Message {
    use amq_protocol::types::FieldTable;
    let mut death = FieldTable::default();
    for (name, value) in [
        ("count", AMQPValue::LongLongInt(1)),
        ("queue", text("q")),
        ("reason", text("rejected")),
        ("time", AMQPValue::Timestamp(second)),
    ] {
        death.insert(name.into(), value);
    }
    letter.clone().header("x-death", AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()))
}

/// Dead letters come back in any order, some of them, and of old processes, too. They are no part of the count that their producer makes.
#[test]
fn dead_letters_of_one_second_are_no_gap_and_no_zombies() {
    let desk = rejecting();
    let mut line = Line::of(desk.pair());
    let letters = [of("p", Some(2), 9), of("p", Some(2), 5), of("p", Some(2), 30), of("p", Some(1), 7)];
    for letter in &letters {
        assert!(line.passes(&dead(letter, 7)), "{letter:?}");
    }
    for letter in &letters {
        assert!(!line.passes(&dead(letter, 7)), "its retry is a duplicate: {letter:?}");
        assert!(line.passes(&dead(letter, 8)), "it has died again: {letter:?}");
    }
    assert_eq!(desk.count_like(|event| matches!(event, Event::OutOfSequence(_))), 0);
}

/// A gap that was observed and forwarded is no gap any more when the window is switched on.
#[test]
fn a_gap_that_was_observed_stops_nobody_when_the_window_is_switched_on() {
    let desk = Desk::with(|plan| {
        plan.rules.id = IdSource::Sequence;
        plan.rules.numbering.on_gap = OnGap::Reject;
        plan.limits.mode = Mode::Observe;
    });
    let mut line = Line::of(desk.pair());
    assert!([1, 2, 5, 6, 7].into_iter().all(|number| line.passes(&n(number))));
    assert_eq!(desk.count(Event::OutOfSequence(Refusal::Gap)), 1, "one gap");
    desk.window.set_mode(Mode::Enforce);
    assert!(line.passes(&n(8)), "it goes on");
    assert!((5..=8).all(|number| !line.passes(&n(number))), "what was forwarded is stored");
    assert!([3, 4].into_iter().all(|number| line.passes(&n(number))), "and what was left out is not");
}
