//! The end of the process: who is closed at once, who may finish what it has begun, and how long.

use super::desk::{Desk, cut, m, publish, two, unheard};
use crate::support::frames::{Frames, protocol_header};
use crate::support::methods::{
    ack, ack_multiple, cancel_nowait, connection_close, connection_open, connection_open_ok, consume,
    consume_acking, consume_nowait, consume_ok, get, nack, start, start_ok, tune, tune_ok, tx_commit,
    tx_commit_ok, tx_select, tx_select_ok,
};
use crate::support::pair::Pair;

/// Whether the client was told 320 since the last call.
fn is_told(pair: &mut Pair) -> bool {
    format!("{:?}", pair.to_client()).contains("connection.close 320")
}

/// A client with a consumer that acks and has this many deliveries, which are not acked.
fn consuming(desk: &Desk, deliveries: u64) -> Pair {
    let mut pair = desk.confirming();
    pair.client(consume_acking(1, "q", "c"));
    pair.upstream(consume_ok(1, "c"));
    for tag in 1..=deliveries {
        pair.upstream(m("work").deliver(1, "c", tag));
    }
    pair.to_client();
    pair.to_upstream();
    pair
}

#[test]
fn who_has_nothing_to_finish_is_told_at_once() {
    let desk = Desk::new();
    let mut pair = consuming(&desk, 3);
    pair.client(ack_multiple(1, 2) + nack(1, 3));
    let mut in_tx = desk.in_tx();
    in_tx.client(m("a").publish(1) + tx_commit(1));
    in_tx.upstream(tx_commit_ok(1));
    let mut without_acks = desk.pair();
    without_acks.client(consume(1, "q", "c"));
    without_acks.upstream(consume_ok(1, "c") + m("x").deliver(1, "c", 1));
    let mut empty = desk.pair();
    empty.client(get(1, "q", true) + get(1, "q", true));
    empty.upstream(m("x").get_ok(1, 1));
    for pair in [&mut pair, &mut in_tx, &mut without_acks, &mut empty] {
        pair.drain();
        assert!(is_told(pair));
    }
}

#[test]
fn deliveries_are_acked_before_the_close_and_no_new_ones_come() {
    let desk = Desk::new();
    let mut pair = consuming(&desk, 3);
    pair.drain();
    assert_eq!(pair.to_upstream(), cancel_nowait(1, "c"));
    // One more was on its way.
    pair.upstream(m("late").deliver(1, "c", 4));
    assert!(!is_told(&mut pair));
    // What the work leads to is published before its delivery is acked.
    pair.client(m("result").publish(1) + ack(1, 2) + ack(1, 1));
    assert_eq!(pair.to_upstream(), m("result").publish(1) + ack(1, 2) + ack(1, 1));
    pair.client(ack_multiple(1, 4));
    assert_eq!(pair.to_upstream(), ack_multiple(1, 4));
    assert!(!is_told(&mut pair), "its message is not stored yet");
    unheard(&mut pair, m("too late").publish(1));
    pair.upstream(ack(1, 1));
    assert!(is_told(&mut pair) && desk.is_seen("result"));
    assert!(format!("{:?}", pair.to_upstream()).contains("connection.close 200"));
}

#[test]
fn a_consumer_whose_start_is_not_confirmed_is_cancelled_when_it_is() {
    let desk = Desk::new();
    let mut pair = consuming(&desk, 1);
    pair.client(consume_acking(1, "q", "d") + consume_acking(1, "q", ""));
    pair.to_upstream();
    pair.drain();
    assert_eq!(pair.to_upstream(), cancel_nowait(1, "c"), "RabbitMQ ends the connection for the others");
    pair.upstream(consume_ok(1, "d") + consume_ok(1, "amq.ctag-1"));
    assert_eq!(pair.to_client(), consume_ok(1, "d") + consume_ok(1, "amq.ctag-1"));
    let mut cancelled = pair.to_upstream().0;
    cancelled.sort_by_key(|frame| format!("{frame:?}"));
    let mut both = (cancel_nowait(1, "d") + cancel_nowait(1, "amq.ctag-1")).0;
    both.sort_by_key(|frame| format!("{frame:?}"));
    assert_eq!(cancelled, both);
    pair.client(ack(1, 1));
    assert!(is_told(&mut pair));
}

/// The broker answers the second one only.
#[test]
fn a_consumer_that_the_broker_names_acks_as_its_own_client_has_said() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(consume_nowait(1, "q") + consume_acking(1, "q", ""));
    pair.upstream(consume_ok(1, "amq.ctag-2") + m("work").deliver(1, "amq.ctag-2", 1));
    pair.to_client();
    pair.to_upstream();
    pair.drain();
    assert_eq!(pair.to_upstream(), cancel_nowait(1, "amq.ctag-2"));
    assert!(!is_told(&mut pair), "its work is not done yet");
    pair.client(ack(1, 1));
    assert!(is_told(&mut pair));
}

/// It may wait for the reply to a question that the unacked delivery has led to.
#[test]
fn a_consumer_without_acks_is_not_cancelled() {
    let desk = Desk::new();
    let mut pair = consuming(&desk, 1);
    pair.client(consume(1, "amq.rabbitmq.reply-to", "replies"));
    pair.upstream(consume_ok(1, "replies"));
    pair.to_upstream();
    pair.to_client();
    pair.drain();
    assert_eq!(pair.to_upstream(), cancel_nowait(1, "c"));
    pair.upstream(m("reply").deliver(1, "replies", 2));
    assert_eq!(pair.to_client(), m("reply").deliver(1, "replies", 2));
    pair.client(ack(1, 1));
    assert!(is_told(&mut pair), "the reply needs no ack");
}

#[test]
fn a_transaction_is_ended_by_its_client() {
    let desk = Desk::new();
    let mut pair = desk.in_tx();
    publish(&mut pair, &m("a"));
    pair.drain();
    assert!(!is_told(&mut pair));
    pair.client(m("b").publish(1) + tx_commit(1) + m("c").publish(1));
    assert_eq!(pair.to_upstream(), m("b").publish(1) + tx_commit(1), "nothing of the next one");
    pair.upstream(tx_commit_ok(1));
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("CommitOk") && said.contains("connection.close 320"), "{said}");
    assert_eq!(["a", "b", "c"].map(|id| desk.is_seen(id)), [true, true, false]);
}

#[test]
fn acks_in_a_transaction_wait_for_its_commit() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    pair.client(tx_select(1) + consume_acking(1, "q", "c"));
    pair.upstream(tx_select_ok(1) + consume_ok(1, "c") + m("work").deliver(1, "c", 1));
    pair.client(ack(1, 1));
    pair.to_client();
    pair.drain();
    assert!(!is_told(&mut pair));
    pair.client(tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    assert!(is_told(&mut pair));
}

#[test]
fn a_message_that_has_begun_is_read_to_its_end_and_none_after_it() {
    for (id, frames) in ["fresh", "known"].into_iter().flat_map(|id| [(id, 1), (id, 2), (id, 3)]) {
        let desk = Desk::new();
        desk.store("known");
        let mut pair = desk.confirming();
        let (begun, rest) = cut(two(id).publish(1), frames);
        pair.client(begun);
        pair.drain();
        assert!(!is_told(&mut pair), "{id} {frames}");
        pair.client(rest + m("next").publish(1));
        let sent = format!("{:?}", pair.to_upstream());
        assert!(!sent.contains("next"), "{id} {frames}: {sent}");
        if id == "fresh" {
            assert_eq!(pair.to_client(), Frames::none(), "{frames}: it is not stored yet; {sent}");
            pair.upstream(ack(1, 1));
        }
        let said = format!("{:?}", pair.to_client());
        assert!(
            said.contains("basic.ack 1") && said.contains("connection.close 320"),
            "{id} {frames}: {said}"
        );
    }
}

#[test]
fn the_time_for_the_rest_is_bounded() {
    let desk = Desk::new();
    let mut consumer = consuming(&desk, 1);
    let mut in_tx = desk.in_tx();
    publish(&mut in_tx, &m("a"));
    let mut amid = desk.confirming();
    amid.client(cut(two("b").publish(1), 2).0);
    for pair in [&mut consumer, &mut in_tx, &mut amid] {
        pair.drain();
        assert!(!is_told(pair));
        pair.drain_overdue();
        assert!(is_told(pair));
        pair.to_upstream();
        unheard(pair, m("late").publish(1));
    }
    assert_eq!(desk.in_flight(), 0);
}

/// Many clients take the end of the socket for a wrong password.
#[test]
fn a_login_that_has_begun_is_answered_before_the_close() {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared);
    pair.client(protocol_header());
    pair.upstream(start());
    pair.drain();
    pair.client(start_ok("guest"));
    pair.upstream(tune(2047, 131_072, 0));
    pair.client(tune_ok(2047, 131_072, 0) + connection_open("/"));
    assert_eq!(pair.to_client().len(), 2, "start and tune");
    pair.upstream(connection_open_ok());
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("OpenOk") && said.contains("connection.close 320"), "{said}");
}

#[test]
fn who_has_said_nothing_and_who_takes_too_long_with_the_login_are_hung_up_on() {
    let desk = Desk::new();
    let mut silent = Pair::new(&desk.shared);
    silent.drain();
    assert!(silent.client_closed());
    let mut slow = Pair::new(&desk.shared);
    slow.client(protocol_header());
    slow.upstream(start());
    slow.drain();
    assert!(!slow.client_closed());
    slow.drain_overdue();
    assert!(slow.client_closed());
}

#[test]
fn a_client_that_closes_or_vanishes_meanwhile_ends_as_ever() {
    let desk = Desk::new();
    let mut closes = consuming(&desk, 1);
    closes.drain();
    closes.to_upstream();
    closes.client(connection_close(200, "bye"));
    assert_eq!(closes.to_upstream(), connection_close(200, "bye"));
    closes.drain_overdue();
    assert_eq!((closes.to_client(), closes.to_upstream()), (Frames::none(), Frames::none()));
    let mut vanishes = consuming(&desk, 1);
    vanishes.drain();
    vanishes.to_upstream();
    vanishes.client_eof();
    vanishes.leave_upstream();
    assert!(vanishes.session.is_over());
}

#[test]
fn who_still_waits_for_an_outcome_is_told_before_the_end_and_gets_no_ack() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("stored"));
    publish(&mut pair, &m("late"));
    publish(&mut pair, &m("never"));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    let mut consumer = consuming(&desk, 1);
    let mut in_tx = desk.in_tx();
    publish(&mut in_tx, &m("a"));
    in_tx.client(tx_commit(1));
    for pair in [&mut pair, &mut consumer, &mut in_tx] {
        pair.drain();
        assert!(!is_told(pair));
        pair.drain_over();
        let said = format!("{:?}", pair.to_client());
        assert!(said.contains("connection.close 320") && !said.contains("ack"), "{said}");
        pair.drain_over();
        pair.to_upstream();
        unheard(pair, m("too late").publish(1));
    }
    // An outcome that still comes is noted, and a retry is judged by it.
    pair.upstream(ack(1, 2));
    assert_eq!(pair.to_client(), Frames::none());
    assert_eq!(["stored", "late", "never"].map(|id| desk.is_seen(id)), [true, true, false]);
}

#[test]
fn the_end_of_a_drain_says_nothing_to_who_was_told_or_has_closed() {
    let desk = Desk::new();
    let mut told = desk.confirming();
    told.drain();
    assert!(is_told(&mut told));
    told.drain_over();
    assert_eq!(told.to_client(), Frames::none());
    let mut closes = desk.confirming();
    publish(&mut closes, &m("a"));
    closes.client(connection_close(200, "bye"));
    closes.drain_over();
    assert_eq!(closes.to_client(), Frames::none(), "no close-ok: its message may not be stored");
    assert!(!desk.is_seen("a"));
}
