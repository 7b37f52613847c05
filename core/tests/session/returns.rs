//! Point 4, returns: whose a return is where several publishes look alike, and where it looks like none of them.

use super::desk::{Desk, m, publish};
use crate::support::frames::{Frames, Message, message};
use crate::support::methods::{ack, nack, tx_commit, tx_commit_ok, tx_select, tx_select_ok};
use crate::support::pair::Pair;
use amq_protocol::protocol::BasicProperties;
use amq_protocol::types::AMQPValue;
use hapax_core::window::{Event, ForgetCause};
use hapax_core::wire::IdSource;

const HEADER: &str = "x-deduplication-header";

/// Its id is in a header, as publishers that come from the plugins have it. To `x` with `k`, mandatory.
fn with_header(id: &str) -> Message {
    message("x", "k").header(HEADER, AMQPValue::LongString(id.into())).body("body").mandatory()
}

fn by_header() -> Desk {
    Desk::with(|plan| plan.rules.id = IdSource::Header(HEADER.into()))
}

fn ids() -> Vec<String> {
    (0..40).map(|n| format!("id-{n}")).collect()
}

/// Checks that every second one of 40 ids is stored, because the others were returned.
fn assert_half_is_stored(desk: &Desk) {
    let stored: Vec<String> = ids().into_iter().filter(|id| desk.is_seen(id)).collect();
    let right: Vec<String> = ids().into_iter().step_by(2).collect();
    assert_eq!(stored, right);
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::Returned)), 20);
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p04_a_return_is_known_by_its_whole_header() {
    let desk = by_header();
    let mut pair = desk.confirming();
    ids().iter().for_each(|id| publish(&mut pair, &with_header(id)));
    // As a broker does: a return at once, and the acks when the stored ones are on disk.
    let mut expected = Frames::none();
    for id in ids().iter().skip(1).step_by(2) {
        pair.upstream(with_header(id).returned(1));
        expected += with_header(id).returned(1);
    }
    for tag in 1..=40 {
        pair.upstream(ack(1, tag));
        expected += ack(1, tag);
    }
    assert_eq!(pair.to_client(), expected);
    assert_half_is_stored(&desk);
}

#[test]
fn p04_a_return_is_known_by_its_whole_header_whatever_the_order_of_the_acks() {
    let desk = by_header();
    let mut pair = desk.confirming();
    ids().iter().for_each(|id| publish(&mut pair, &with_header(id)));
    // The stored ones are acked first, from the last to the first; then the others come back.
    (1..=40).rev().filter(|tag| tag % 2 == 1).for_each(|tag| pair.upstream(ack(1, tag)));
    for (tag, id) in (1..).zip(ids()).filter(|(tag, _)| tag % 2 == 0) {
        pair.upstream(with_header(&id).returned(1) + ack(1, tag));
    }
    assert_half_is_stored(&desk);
}

#[test]
fn p04_p05_a_return_in_a_transaction_is_known_by_its_whole_header() {
    let desk = by_header();
    let mut pair = desk.pair();
    let messages = ids().iter().fold(Frames::none(), |all, id| all + with_header(id).publish(1));
    pair.client(tx_select(1) + messages + tx_commit(1));
    pair.upstream(tx_select_ok(1));
    for id in ids().iter().skip(1).step_by(2) {
        pair.upstream(with_header(id).returned(1));
    }
    pair.upstream(tx_commit_ok(1));
    assert_half_is_stored(&desk);
}

#[test]
fn p04_a_return_of_a_bypassed_message_is_not_that_of_another_with_its_id() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    let (bypassed, judged) = (m("a").bypass().mandatory(), m("a").mandatory());
    publish(&mut pair, &bypassed);
    publish(&mut pair, &judged);
    pair.upstream(judged.returned(1) + ack(1, 1) + ack(1, 2));
    assert!(!desk.is_seen("a"), "it was the judged one that came back");
    pair.to_client();
    publish(&mut pair, &bypassed);
    publish(&mut pair, &judged);
    pair.upstream(bypassed.returned(1) + ack(1, 3) + ack(1, 4));
    assert!(desk.is_seen("a"), "it was the other one");
}

/// Hapax selects confirms when the first message is judged. Returns of messages before that may come later.
#[test]
fn p04_a_return_of_a_message_from_before_confirms_is_that_of_no_other() {
    for first_ack in [1, 2] {
        let desk = Desk::new();
        let mut pair = desk.pair();
        let plain = |body: &str| message("x", "k").mandatory().body(body).publish(1);
        says_unchanged(&mut pair, plain("one") + plain("two"));
        pair.client(m("a").mandatory().publish(1) + m("b").mandatory().publish(1));
        pair.to_upstream();
        let returned = message("x", "k").mandatory().body("one").returned(1);
        pair.upstream(returned.clone() + ack(1, first_ack));
        assert_eq!(pair.to_client(), returned);
        pair.upstream(ack(1, 3 - first_ack));
        assert!(desk.is_seen("a") && desk.is_seen("b"), "neither has come back");
        // Nothing from before can come back any more.
        publish(&mut pair, &m("c").mandatory());
        pair.upstream(returned + ack(1, 3));
        assert!(!desk.is_seen("c"), "nobody knows whose return that was");
    }
}

fn says_unchanged(pair: &mut Pair, frames: Frames) {
    pair.client(frames.clone());
    assert_eq!((pair.to_upstream(), pair.to_client()), (frames, Frames::none()));
}

/// With the body as id, headers do not tell messages apart. The broker routes in order, so the oldest is meant; what is
/// acked by then is not.
#[test]
fn p04_of_those_that_look_alike_the_oldest_unsettled_came_back() {
    for first_ack in [2, 3] {
        let desk = Desk::with(|plan| plan.rules.id = IdSource::Body);
        let mut pair = desk.confirming();
        let alike = ["one", "two", "six"].map(|id| message("x", "k").body(id).mandatory());
        alike.iter().for_each(|message| publish(&mut pair, message));
        pair.upstream(ack(1, first_ack) + alike[0].returned(1) + ack(1, 1));
        pair.upstream(ack(1, 5 - first_ack));
        assert_eq!(["one", "two", "six"].map(|id| desk.is_seen(id)), [false, true, true], "{first_ack}");
    }
}

#[test]
fn p04_of_those_that_look_alike_each_return_means_another() {
    let desk = Desk::with(|plan| plan.rules.id = IdSource::Body);
    let mut pair = desk.confirming();
    let alike = ["one", "two", "six", "ten"].map(|id| message("x", "k").body(id).mandatory());
    alike.iter().for_each(|message| publish(&mut pair, message));
    pair.upstream(ack(1, 3) + alike[0].returned(1) + alike[1].returned(1) + ack(1, 2) + ack(1, 1));
    pair.upstream(nack(1, 4));
    assert_eq!(["one", "two", "six", "ten"].map(|id| desk.is_seen(id)), [false, false, true, false]);
    pair.to_client();
    publish(&mut pair, &alike[3]);
    pair.upstream(alike[3].returned(1) + ack(1, 5));
    assert!(!desk.is_seen("ten"), "what was settled before does not take its place");
}

fn rpc(id: &str, reply_to: &str) -> Message {
    let properties = BasicProperties::default().with_message_id(id.into()).with_reply_to(reply_to.into());
    message("x", "k").properties(properties).body("body").mandatory()
}

/// RabbitMQ writes a name of its own into the header of a message that asks for a direct reply.
#[test]
fn p04_a_return_with_an_altered_header_leaves_nothing_stored_that_may_have_come_back() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    let other = message("x", "other").id("c").body("body").mandatory();
    for message in [rpc("a", "amq.rabbitmq.reply-to"), rpc("b", "amq.rabbitmq.reply-to"), other, m("d")] {
        publish(&mut pair, &message);
    }
    let altered = rpc("b", "amq.rabbitmq.reply-to.g1h2");
    pair.upstream(altered.returned(1));
    assert_eq!(pair.to_client(), altered.returned(1));
    (1..=4).for_each(|tag| pair.upstream(ack(1, tag)));
    assert_eq!(["a", "b", "d"].map(|id| desk.is_seen(id)), [false, false, true], "a may have come back");
    assert!(desk.is_seen_at("x", "other", "c"), "another routing key");
    // Later publishes are not affected.
    pair.to_client();
    publish(&mut pair, &m("e").mandatory());
    pair.upstream(ack(1, 5));
    assert!(desk.is_seen("e"));
}

#[test]
fn p04_p05_a_return_with_an_altered_header_in_a_transaction() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    let (asked, altered) = (rpc("a", "amq.rabbitmq.reply-to"), rpc("a", "amq.rabbitmq.reply-to.g1h2"));
    pair.client(tx_select(1) + asked.publish(1) + m("b").mandatory().publish(1) + m("c").publish(1));
    pair.client(tx_commit(1));
    pair.upstream(tx_select_ok(1) + altered.returned(1) + tx_commit_ok(1));
    assert_eq!(pair.to_client(), tx_select_ok(1) + altered.returned(1) + tx_commit_ok(1));
    assert_eq!(["a", "b", "c"].map(|id| desk.is_seen(id)), [false, false, true]);
}

/// Each return names the exchange that the client had published to.
#[test]
fn p04_a_return_with_an_altered_header_from_another_exchange() {
    let desk = Desk::with(|plan| plan.rules.forward_to = Some("backing".into()));
    let mut pair = desk.confirming();
    let ids = ["a", "b"];
    ids.iter().for_each(|id| pair.client(rpc(id, "amq.rabbitmq.reply-to").publish(1)));
    pair.to_upstream();
    let altered = |exchange, id: &str| {
        let properties = BasicProperties::default().with_message_id(id.into()).with_reply_to("g1h2".into());
        message(exchange, "k").properties(properties).body("body").returned(1)
    };
    for (tag, id) in (1..).zip(ids) {
        pair.upstream(altered("backing", id) + ack(1, tag));
        assert_eq!(pair.to_client(), altered("x", id) + ack(1, tag));
    }
    assert_eq!(ids.map(|id| desk.is_seen(id)), [false, false]);
}
