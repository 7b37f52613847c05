//! Closes that are answered while outcomes are not known, and what the broker says before its answer.

use super::desk::{Desk, SECOND, m, publish, unheard};
use crate::support::frames::{Frames, protocol_header};
use crate::support::methods::{
    ack, channel_close, channel_close_ok, channel_open, channel_open_ok, confirm_select, confirm_select_ok,
    connection_close, connection_close_ok, connection_open, consume, consume_ok, flow, flow_ok, nack,
    queue_declare_ok, start, start_ok, tune, tune_ok,
};
use crate::support::pair::Pair;
use amq_protocol::protocol::{AMQPClass, basic, queue};
use hapax_core::window::{Event, ForgetCause};
use std::time::Duration;

/// Shorter than a client has to wait for the answer to its close.
const SHORT: Duration = Duration::from_millis(499);
const MOMENT: Duration = Duration::from_millis(1);

fn bye(channel: u16) -> Frames {
    channel_close(channel, 200, "bye")
}

/// The client closes its channel while the outcome of `a` is unknown, and has `close-ok` half a second later.
fn hidden(desk: &Desk) -> Pair {
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    unheard(&mut pair, bye(1));
    pair.advance(SHORT);
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), Frames::none()), "it may come soon");
    pair.advance(MOMENT);
    assert_eq!(pair.to_upstream(), flow(1, true));
    assert_eq!(pair.to_client(), Frames::none(), "the broker may have something to say");
    pair.upstream(flow_ok(1, true));
    assert_eq!(pair.to_client(), channel_close_ok(1));
    pair
}

#[test]
fn p06_a_channel_is_closed_for_its_client_while_an_outcome_is_awaited() {
    let desk = Desk::new();
    let mut pair = hidden(&desk);
    let mut retry = desk.confirming();
    unheard(&mut retry, m("a").publish(1));
    assert_eq!(desk.in_flight(), 1, "its id stays reserved");
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_upstream(), bye(1), "the client's own words");
    pair.upstream(channel_close_ok(1));
    assert_eq!(pair.to_client(), Frames::none(), "the client has heard that already");
    assert!(desk.is_seen("a"));
    assert_eq!(retry.to_client(), ack(1, 1), "who waits for it shares its fate");
    pair.open(1);
}

#[test]
fn p06_a_closed_channel_without_an_outcome_ends_with_the_linger() {
    let desk = Desk::new();
    let mut pair = hidden(&desk);
    pair.advance(10 * SECOND);
    assert_eq!(pair.to_upstream(), bye(1));
    pair.upstream(channel_close_ok(1));
    assert_eq!(pair.to_client(), Frames::none());
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::InDoubt)), 1);
}

/// The number is taken at the broker, so it stands for another one. The client does not notice.
#[test]
fn p06_the_number_of_a_closed_channel_can_be_used_at_once() {
    let desk = Desk::new();
    let mut pair = hidden(&desk);
    // All in one write, behind the open.
    let words = channel_open(1) + confirm_select(1) + m("b").publish(1) + channel_open(2);
    pair.client(words);
    let there = channel_open(2046) + confirm_select(2046) + m("b").publish(2046) + channel_open(2);
    assert_eq!(pair.to_upstream(), there);
    pair.upstream(channel_open_ok(2046) + confirm_select_ok(2046) + channel_open_ok(2) + ack(2046, 1));
    let said = pair.to_client();
    assert_eq!(said.on(1), channel_open_ok(1) + confirm_select_ok(1) + ack(1, 1));
    assert_eq!(said.on(2), channel_open_ok(2));
    pair.upstream(nack(1, 1));
    assert_eq!(pair.to_client(), Frames::none());
    assert_eq!(pair.to_upstream(), bye(1));
    assert_eq!((desk.is_seen("a"), desk.is_seen("b")), (false, true));
    // The client uses the other number, too, while it is taken.
    pair.client(channel_open(2046));
    assert_eq!(pair.to_upstream(), channel_open(2045));
    pair.upstream(channel_open_ok(2045) + channel_close_ok(1));
    assert_eq!(pair.to_client(), channel_open_ok(2046));
    pair.client(bye(1));
    assert_eq!(pair.to_upstream(), bye(2046));
    pair.upstream(channel_close_ok(2046));
    assert_eq!(pair.to_client(), channel_close_ok(1));
    pair.open(1);
}

#[test]
fn p06_what_the_broker_says_before_the_sign_reaches_the_client() {
    let desk = Desk::new();
    for after in [Duration::ZERO, SECOND] {
        let mut pair = desk.confirming();
        pair.client(m("refused").publish(1) + bye(1));
        pair.advance(after);
        pair.upstream(channel_close(1, 404, "NOT_FOUND"));
        assert_eq!(pair.to_client(), channel_close(1, 404, "NOT_FOUND") + channel_close_ok(1), "{after:?}");
        pair.client(channel_close_ok(1));
        pair.to_upstream();
        pair.open(1);
        assert!(!desk.is_seen("refused"));
    }
}

/// The client's own question has its own answer.
#[test]
fn p06_a_clients_flow_is_not_taken_for_the_sign() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(flow(1, true) + m("a").publish(1) + bye(1));
    pair.advance(SECOND);
    assert_eq!(pair.to_upstream(), flow(1, true) + m("a").publish(1) + flow(1, true));
    pair.upstream(flow_ok(1, true));
    assert_eq!(pair.to_client(), flow_ok(1, true));
    pair.upstream(channel_close(1, 404, "NOT_FOUND"));
    assert_eq!(pair.to_client(), channel_close(1, 404, "NOT_FOUND") + channel_close_ok(1));
}

/// Each of them has a channel at the broker. A client that wants more than 64 waits for its `close-ok` as long as before.
#[test]
fn p06_the_closed_channels_that_live_on_are_bounded() {
    let desk = Desk::with(|plan| plan.settings.linger = 100 * SECOND);
    let mut pair = desk.pair();
    for number in 1..=70 {
        if number > 1 {
            pair.client(channel_open(1));
            let opened = pair.to_upstream();
            let there = opened.0.first().unwrap().channel();
            pair.upstream(channel_open_ok(there));
            assert_eq!(pair.to_client(), channel_open_ok(1));
        }
        pair.client(m(&number.to_string()).publish(1) + bye(1));
        let there = pair.to_upstream().0.last().unwrap().channel();
        pair.advance(SECOND);
        if number > 64 {
            assert_eq!(pair.to_client(), Frames::none(), "{number}");
            assert_eq!(pair.to_upstream(), Frames::none(), "it is not even asked for");
            break;
        }
        pair.upstream(flow_ok(there, true));
        assert_eq!(pair.to_client(), channel_close_ok(1), "{number}");
        pair.to_upstream();
    }
    assert_eq!(pair.session.channels(), 65);
    // One of them has its outcome: there is room again.
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_upstream(), bye(1));
    pair.upstream(channel_close_ok(1));
    pair.advance(SECOND);
    assert_eq!(pair.to_upstream().len(), 1, "the question for a sign");
}

#[test]
fn p06_a_connection_is_closed_for_its_client_while_an_outcome_is_awaited() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    unheard(&mut pair, connection_close(200, "bye"));
    pair.advance(SHORT + MOMENT);
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), flow(1, true)));
    pair.upstream(flow_ok(1, true));
    assert_eq!(pair.to_client(), connection_close_ok());
    assert!(pair.client_closed() && !pair.upstream_closed());
    let mut retry = desk.confirming();
    unheard(&mut retry, m("a").publish(1));
    pair.upstream(ack(1, 1));
    pair.leave_upstream();
    assert!(pair.session.is_over(), "given back as soon as nothing is unresolved");
    assert_eq!(retry.to_client(), ack(1, 1));
}

#[test]
fn p06_a_refusal_before_the_sign_reaches_a_client_that_closes_its_connection() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + connection_close(200, "bye"));
    pair.advance(SECOND);
    pair.to_upstream();
    pair.upstream(channel_close(1, 403, "ACCESS_REFUSED"));
    assert_eq!(pair.to_client(), channel_close(1, 403, "ACCESS_REFUSED"));
    assert_eq!(pair.to_upstream(), connection_close(200, "bye"), "nothing is unresolved any more");
    pair.upstream(connection_close_ok());
    assert_eq!(pair.to_client(), connection_close_ok());
}

#[test]
fn p06_both_close_the_connection_and_the_client_hears_why() {
    let desk = Desk::new();
    for unresolved in [false, true] {
        let mut pair = desk.confirming();
        if unresolved {
            pair.client(m("a").publish(1));
        }
        pair.client(connection_close(200, "bye"));
        pair.upstream(connection_close(541, "INTERNAL_ERROR"));
        assert_eq!(pair.to_client(), connection_close(541, "INTERNAL_ERROR") + connection_close_ok());
        assert!(pair.session.is_over());
    }
}

fn declare(queue: &str, exclusive: bool) -> Frames {
    let declare = queue::Declare { queue: queue.into(), exclusive, ..queue::Declare::default() };
    Frames::method(1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)))
}

fn declared_again(queue: &str) -> Frames {
    let declare = queue::Declare { queue: queue.into(), exclusive: true, nowait: true, ..Default::default() };
    Frames::method(2046, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)))
}

fn delete(channel: u16, queue: &str) -> Frames {
    let delete = queue::Delete { queue: queue.into(), ..queue::Delete::default() };
    Frames::method(channel, AMQPClass::Queue(queue::AMQPMethod::Delete(delete)))
}

fn delete_ok() -> Frames {
    let ok = queue::DeleteOk { message_count: 0 };
    Frames::method(2046, AMQPClass::Queue(queue::AMQPMethod::DeleteOk(ok)))
}

#[test]
fn p06_the_exclusive_queues_of_a_client_that_vanishes_are_deleted_at_once() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(declare("mine", true) + declare("", true) + declare("shared", false) + declare("gone", true));
    pair.client(declare("another's by now", true) + delete(1, "gone"));
    pair.upstream(queue_declare_ok(1, "mine") + queue_declare_ok(1, "amq.gen-1"));
    pair.to_upstream();
    pair.to_client();
    publish(&mut pair, &m("a"));
    pair.client_eof();
    assert_eq!(pair.to_upstream(), channel_open(2046) + delete(2046, "amq.gen-1"));
    pair.upstream(channel_open_ok(2046) + delete_ok());
    let again = declared_again("another's by now") + delete(2046, "another's by now");
    assert_eq!(pair.to_upstream(), again);
    pair.upstream(channel_close(2046, 405, "RESOURCE_LOCKED"));
    let next = channel_open(2046) + declared_again("mine") + delete(2046, "mine");
    assert_eq!(pair.to_upstream(), channel_close_ok(2046) + next);
    pair.upstream(channel_open_ok(2046) + delete_ok());
    assert_eq!(pair.to_upstream(), channel_close(2046, 200, "the client's exclusive queues are deleted"));
    pair.upstream(channel_close_ok(2046) + ack(1, 1));
    pair.leave_upstream();
    assert!(pair.session.is_over() && desk.is_seen("a"));
}

/// Names that the broker has made are known from its answers, as long as these can be about nothing else.
#[test]
fn p06_a_queue_that_may_be_anothers_is_left_alone() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(declare("", false) + declare("", true));
    pair.upstream(queue_declare_ok(1, "amq.gen-1") + queue_declare_ok(1, "amq.gen-2"));
    pair.to_upstream();
    pair.to_client();
    publish(&mut pair, &m("a"));
    pair.client_eof();
    assert_eq!(pair.to_upstream(), Frames::none());
}

#[test]
fn p06_a_drain_waits_one_second_for_a_client_that_does_not_answer() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.drain();
    assert!(format!("{:?}", pair.to_client()).contains("connection.close 320"));
    pair.upstream(connection_close_ok());
    pair.advance(999 * MOMENT);
    assert!(!pair.session.is_over());
    pair.advance(MOMENT);
    assert!(pair.session.is_over());
}

#[test]
fn a_client_is_told_that_there_is_no_broker() {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared);
    pair.client(protocol_header());
    pair.upstream_eof();
    assert_eq!(pair.to_client().len(), 1, "connection.start");
    pair.client(start_ok("guest"));
    assert_eq!(pair.to_client(), tune(2047, 131_072, 60), "a close now would be taken for a wrong password");
    pair.client(tune_ok(2047, 131_072, 60) + connection_open("/"));
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("connection.close 320") && said.contains("can't reach the broker"), "{said}");
    pair.client(connection_close_ok());
    assert!(pair.session.is_over() && pair.client_closed());
}

/// As for a client that is refused: what the broker does after its `connection.start` is passed on as it is.
#[test]
fn a_broker_that_hangs_up_amid_the_handshake_is_left_to_speak_for_itself() {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared);
    pair.client(protocol_header());
    pair.upstream(start());
    pair.client(start_ok("guest"));
    pair.to_client();
    pair.upstream_eof();
    assert_eq!(pair.to_client(), Frames::none());
    assert!(pair.session.is_over());
}

#[test]
fn a_client_that_says_nothing_to_the_dismissal_is_let_go() {
    let desk = Desk::new();
    for eof in [false, true] {
        let mut pair = Pair::new(&desk.shared);
        pair.client(protocol_header());
        pair.upstream_eof();
        if eof {
            pair.client_eof();
        } else {
            pair.advance(10 * SECOND);
        }
        assert!(pair.session.is_over(), "{eof}");
    }
}

/// RabbitMQ ends the connection with 541 if a consumer is cancelled before its `basic.consume-ok`.
#[test]
fn p06_a_consumer_is_cancelled_when_the_broker_knows_it() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + consume(1, "q", "mine") + bye(1));
    assert_eq!(pair.to_upstream(), m("a").publish(1) + consume(1, "q", "mine") + requeued(1));
    pair.upstream(consume_ok(1, "mine"));
    let said = format!("{:?}", pair.to_upstream());
    assert!(said.contains("Cancel") && said.contains("nack 0 multiple"), "{said}");
}

#[test]
fn p06_what_is_delivered_to_a_closed_channel_is_given_back() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(consume(1, "q", "mine"));
    pair.upstream(consume_ok(1, "mine"));
    pair.to_client();
    pair.client(m("a").publish(1) + bye(1));
    pair.advance(SECOND);
    pair.upstream(flow_ok(1, true));
    assert_eq!(pair.to_client(), channel_close_ok(1));
    pair.to_upstream();
    pair.upstream(m("late").deliver(1, "mine", 7));
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), requeued(1)));
}

fn requeued(channel: u16) -> Frames {
    let nack = basic::Nack { delivery_tag: 0, multiple: true, requeue: true };
    Frames::method(channel, AMQPClass::Basic(basic::AMQPMethod::Nack(nack)))
}
