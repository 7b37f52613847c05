//! Point 6, unknown outcomes: who vanishes when, and what is waited for.

use super::desk::{Desk, SECOND, cut, m, publish, two, unheard};
use crate::support::frames::{Frames, message};
use crate::support::methods::{
    ack, ack_multiple, channel_close, channel_close_ok, channel_open, channel_open_ok, connection_close,
    connection_close_ok, consume, consume_ok, flow, nack,
};
use amq_protocol::protocol::{AMQPClass, basic};
use hapax_core::window::{Event, ForgetCause, InDoubt, MissingId};

fn cancelled(channel: u16, tag: &str) -> Frames {
    let cancel = basic::Cancel { consumer_tag: tag.into(), nowait: true };
    Frames::method(channel, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)))
}

fn all_given_back(channel: u16) -> Frames {
    let nack = basic::Nack { delivery_tag: 0, multiple: true, requeue: true };
    Frames::method(channel, AMQPClass::Basic(basic::AMQPMethod::Nack(nack)))
}

fn closed_by_hapax(channel: u16) -> Frames {
    channel_close(channel, 200, "the client's channel was closed by hapax")
}

#[test]
fn p06_unknown_outcome_the_client_vanishes() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    pair.client_eof();
    assert!(pair.client_closed() && !pair.upstream_closed() && !pair.session.is_over());
    let mut retry = desk.confirming();
    unheard(&mut retry, m("a").publish(1));
    pair.upstream(ack(1, 1));
    assert_eq!(retry.to_client(), ack(1, 1), "the retry finds the truth");
    pair.leave_upstream();
    assert!(pair.session.is_over());
    assert!(desk.is_seen("a"));
}

#[test]
fn p06_unknown_outcome_nothing_unresolved_nothing_waited_for() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    pair.upstream(ack(1, 1));
    pair.client_eof();
    pair.leave_upstream();
    assert!(pair.session.is_over());
}

#[test]
fn p06_unknown_outcome_the_linger_is_bounded() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    pair.client_eof();
    pair.advance(9 * SECOND);
    assert_eq!(pair.to_upstream(), Frames::none());
    pair.advance(SECOND);
    pair.leave_upstream();
    assert!(pair.session.is_over());
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (false, 0));
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::InDoubt)), 1);
}

#[test]
fn p06_unknown_outcome_consumers_are_cancelled_at_once() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.open(2);
    pair.client(consume(1, "q", "mine") + consume(1, "q", "") + consume(2, "q", "other"));
    pair.upstream(consume_ok(1, "mine"));
    pair.to_upstream();
    pair.to_client();
    publish(&mut pair, &m("a"));
    pair.client_eof();
    let ended = pair.to_upstream();
    assert_eq!(ended.on(1), cancelled(1, "mine") + all_given_back(1));
    assert_eq!(ended.on(2), closed_by_hapax(2), "a settled channel ends at once");
    pair.upstream(consume_ok(1, "amq.ctag-1"));
    let given_up = cancelled(1, "amq.ctag-1") + all_given_back(1);
    assert_eq!(pair.to_upstream(), given_up, "RabbitMQ takes no cancel before its answer");
    pair.upstream(channel_close_ok(2) + ack(1, 1));
    pair.leave_upstream();
}

#[test]
fn p06_unknown_outcome_channel_close_waits() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(consume(1, "q", "mine"));
    pair.upstream(consume_ok(1, "mine"));
    pair.to_upstream();
    pair.to_client();
    publish(&mut pair, &m("a"));
    publish(&mut pair, &m("b"));
    pair.client(channel_close(1, 200, "bye"));
    assert_eq!(pair.to_upstream(), cancelled(1, "mine") + all_given_back(1));
    pair.upstream(nack(1, 2));
    assert_eq!(pair.to_client(), nack(1, 2));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_upstream(), channel_close(1, 200, "bye"));
    pair.upstream(channel_close_ok(1));
    assert_eq!(pair.to_client(), ack(1, 1) + channel_close_ok(1), "the answer, then the end");
    assert!(desk.is_seen("a"));
    pair.open(1);
}

#[test]
fn p06_unknown_outcome_channel_close_in_one_read_with_a_duplicate() {
    let desk = Desk::new();
    desk.store("a");
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + channel_close(1, 200, "bye"));
    assert_eq!(pair.to_upstream(), channel_close(1, 200, "bye"));
    pair.upstream(channel_close_ok(1));
    assert_eq!(pair.to_client(), ack(1, 1) + channel_close_ok(1));
}

#[test]
fn p06_unknown_outcome_channel_close_after_the_linger() {
    let desk = Desk::new();
    let mut first = desk.confirming();
    publish(&mut first, &m("held"));
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    unheard(&mut pair, m("held").publish(1) + channel_close(1, 200, "bye"));
    pair.advance(10 * SECOND);
    let close = channel_close(1, 200, "bye");
    assert_eq!(pair.to_upstream(), flow(1, true) + close, "the broker did not say that it has handled all");
    first.upstream(nack(1, 1));
    assert_eq!(pair.to_upstream(), Frames::none(), "nothing follows the close");
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1), "and an answer that comes nevertheless is passed on");
    pair.upstream(channel_close_ok(1));
    assert_eq!(pair.to_client(), channel_close_ok(1));
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p06_unknown_outcome_channel_closes_that_cross() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    unheard(&mut pair, channel_close(1, 200, "bye"));
    pair.upstream(channel_close(1, 404, "NOT_FOUND"));
    assert_eq!(pair.to_upstream(), channel_close_ok(1));
    let answers = channel_close(1, 404, "NOT_FOUND") + channel_close_ok(1);
    assert_eq!(pair.to_client(), answers, "as RabbitMQ says it: the client hears of the fault");
    pair.client(channel_close_ok(1));
    assert_eq!(pair.to_upstream(), Frames::none(), "which has had its answer");
    pair.client(channel_close_ok(1));
    assert_eq!(pair.to_upstream(), channel_close_ok(1), "one too many is the broker's to refuse");
    pair.open(1);
}

#[test]
fn p06_unknown_outcome_each_channel_close_is_answered() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    unheard(&mut pair, channel_close(1, 200, "bye") + channel_close(1, 200, "bye"));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_upstream(), channel_close(1, 200, "bye"));
    pair.upstream(channel_close_ok(1));
    assert_eq!(pair.to_client(), ack(1, 1) + channel_close_ok(1) + channel_close_ok(1));
    pair.open(1);
}

/// They are counted for as long as the broker is silent, and answered together: a client must not be able to make that many.
#[test]
fn p06_unknown_outcome_repeated_channel_closes_are_bounded() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    for _ in 0..1_000 {
        pair.client(channel_close(1, 200, "bye"));
    }
    assert_eq!(pair.to_upstream(), channel_close(1, 200, "bye"));
    pair.upstream(channel_close_ok(1));
    assert_eq!(pair.to_client().len(), 65);
    pair.open(1);
}

#[test]
fn p06_unknown_outcome_connection_close_waits() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(consume(1, "q", "mine"));
    pair.upstream(consume_ok(1, "mine"));
    pair.to_upstream();
    pair.to_client();
    publish(&mut pair, &m("a"));
    publish(&mut pair, &m("b"));
    pair.client(connection_close(200, "bye"));
    assert_eq!(pair.to_upstream(), cancelled(1, "mine") + all_given_back(1));
    pair.upstream(ack_multiple(1, 2));
    assert_eq!(pair.to_upstream(), connection_close(200, "bye"));
    pair.upstream(connection_close_ok());
    assert_eq!(pair.to_client(), ack_multiple(1, 2) + connection_close_ok());
    assert!(pair.session.is_over() && pair.client_closed() && pair.upstream_closed());
    assert!(desk.is_seen("a") && desk.is_seen("b"));
}

#[test]
fn p06_unknown_outcome_connection_close_after_the_linger() {
    let desk = Desk::with(|plan| plan.rules.in_doubt = InDoubt::Keep);
    let mut first = desk.confirming();
    publish(&mut first, &m("held"));
    let mut pair = desk.confirming();
    unheard(&mut pair, m("held").publish(1) + connection_close(200, "bye"));
    pair.advance(10 * SECOND);
    assert_eq!(pair.to_upstream(), flow(1, true) + connection_close(200, "bye"));
    first.upstream(nack(1, 1));
    pair.upstream(connection_close_ok());
    assert!(pair.session.is_over());
    assert!(!desk.is_seen("held"), "it was never sent, so it is not in doubt");
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p06_unknown_outcome_connection_close_and_the_client_does_not_wait() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    unheard(&mut pair, connection_close(200, "bye"));
    pair.client_eof();
    assert_eq!(pair.to_upstream(), Frames::none());
    pair.upstream(ack(1, 1));
    pair.leave_upstream();
    assert!(pair.session.is_over() && desk.is_seen("a"));
}

#[test]
fn p06_unknown_outcome_the_upstream_vanishes_forget() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    publish(&mut pair, &m("b"));
    pair.upstream(ack(1, 1));
    pair.upstream_eof();
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("basic.ack 1") && !said.contains("multiple"), "b is never acked: {said}");
    assert!(said.contains("connection.close 320") && said.contains("may or may not be stored"), "{said}");
    assert!(desk.is_seen("a") && !desk.is_seen("b"));
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::InDoubt)), 1);
    pair.client(connection_close_ok());
    assert!(pair.session.is_over() && pair.client_closed());
}

#[test]
fn p06_unknown_outcome_the_upstream_vanishes_keep() {
    let desk = Desk::with(|plan| plan.rules.in_doubt = InDoubt::Keep);
    let mut pair = desk.confirming();
    let returned = m("returned").mandatory();
    publish(&mut pair, &m("a"));
    publish(&mut pair, &returned);
    pair.upstream(returned.returned(1));
    pair.client(cut(two("half").publish(1), 3).0);
    pair.upstream_eof();
    assert!(desk.is_seen("a"));
    assert!(!desk.is_seen("returned") && !desk.is_seen("half"), "of these it is known");
    assert_eq!(desk.count_like(|event| matches!(event, Event::CommittedInDoubt { .. })), 1);
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::Incomplete)), 1);
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p06_unknown_outcome_keep_amid_an_illegal_frame() {
    let desk = Desk::with(|plan| plan.rules.in_doubt = InDoubt::Keep);
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    pair.client(crate::support::frames::body(1, b"out of place"));
    pair.upstream_eof();
    assert!(desk.is_seen("a"), "it was whole");
}

#[test]
fn p06_unknown_outcome_of_a_commit() {
    use crate::support::methods::{tx_commit, tx_select};
    let desk = Desk::with(|plan| plan.rules.in_doubt = InDoubt::Keep);
    let mut pair = desk.pair();
    pair.client(
        tx_select(1) + m("a").publish(1) + tx_commit(1) + m("b").publish(1) + cut(two("c").publish(1), 3).0,
    );
    pair.upstream_eof();
    assert_eq!(
        ["a", "b", "c"].map(|id| desk.is_seen(id)),
        [true, false, false],
        "a is in doubt, the open ones are not"
    );
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p06_unknown_outcome_a_drain_settles_first() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    pair.drain();
    unheard(&mut pair, m("b").publish(1));
    pair.upstream(ack(1, 1));
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("basic.ack 1") && said.contains("connection.close 320"), "{said}");
    assert!(format!("{:?}", pair.to_upstream()).contains("connection.close 200"));
    pair.client(connection_close_ok());
    assert!(!pair.session.is_over(), "the broker may not have read everything");
    pair.upstream(connection_close_ok());
    assert!(pair.session.is_over() && desk.is_seen("a"));
}

#[test]
fn p06_unknown_outcome_the_rest_of_a_body_goes_upstream_after_the_upstream_s_close() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    let (begun, rest) = cut(two("a").publish(1), 3);
    pair.client(begun.clone());
    assert_eq!(pair.to_upstream(), begun);
    pair.upstream(channel_close(1, 404, "NOT_FOUND"));
    pair.client(rest.clone() + m("b").publish(1));
    assert_eq!(pair.to_upstream(), rest, "the broker waits for the rest, and for nothing else");
    pair.client(channel_close_ok(1));
    assert_eq!(pair.to_upstream(), channel_close_ok(1));
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (false, 0));
}

#[test]
fn p06_unknown_outcome_a_refusal_and_the_upstream_s_close_cross() {
    let desk = Desk::with(|plan| plan.rules.missing_id = MissingId::Reject);
    let mut pair = desk.pair();
    pair.client(message("x", "k").body("no id").publish(1));
    assert_eq!(pair.to_upstream(), closed_by_hapax(1));
    assert_eq!(pair.to_client().len(), 1, "406");
    pair.upstream(channel_close(1, 404, "NOT_FOUND"));
    assert_eq!(pair.to_upstream(), channel_close_ok(1));
    pair.client(channel_close_ok(1) + channel_open(1));
    assert_eq!(pair.to_upstream(), channel_open(2046), "the number is taken until the upstream has answered");
    pair.upstream(channel_close_ok(1) + channel_open_ok(2046));
    assert_eq!(pair.to_client(), channel_open_ok(1));
}
