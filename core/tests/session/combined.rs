//! Closes, returns, republished messages and conflicts, two of them at a time.

use super::desk::{Desk, Plan, SECOND, m, unheard};
use crate::support::frames::{Frames, Message, message};
use crate::support::methods::{
    ack, ack_multiple, channel_close, channel_close_ok, channel_open, channel_open_ok, confirm_select,
    confirm_select_ok, flow, flow_ok,
};
use crate::support::pair::Pair;
use amq_protocol::types::AMQPValue;
use hapax_core::window::{ConfirmRule, OnConflict};

fn verifying(change: impl FnOnce(&mut Plan)) -> Desk {
    Desk::with(|plan| {
        plan.rules.verify_routing = true;
        change(plan);
    })
}

fn verified(pair: &mut Pair, message: &Message) {
    pair.client(message.publish(1));
    assert_eq!(pair.to_upstream(), message.clone().mandatory().publish(1));
    assert_eq!(pair.to_client(), Frames::none());
}

fn bye(channel: u16) -> Frames {
    channel_close(channel, 200, "bye")
}

fn other(id: &str) -> Message {
    message("x", "k").id(id).body("other")
}

/// Both close the channel at the same time, and a message is stuck there. The client's answer stops nobody.
#[test]
fn both_close_a_channel_with_a_stuck_message_and_the_others_go_on() {
    let desk = Desk::with(|plan| plan.rules.on_conflict = OnConflict::Reject);
    let mut pair = desk.pair();
    desk.store("seen");
    pair.client(channel_open(2) + m("known").publish(1));
    pair.to_upstream();
    pair.upstream(channel_open_ok(2) + ack(1, 1));
    pair.to_client();
    pair.client(m("stuck").publish(1) + other("known").publish(1));
    let said = pair.to_client();
    assert_eq!(said.len(), 1, "channel.close: {said:?}");
    pair.client(bye(1));
    assert_eq!(pair.to_client(), channel_close_ok(1));
    pair.to_upstream();
    // It answers the close of Hapax, too.
    pair.client(channel_close_ok(1) + m("next").publish(2) + channel_open(1));
    let sent = pair.to_upstream();
    assert!(!sent.on(2).is_empty(), "{sent:?}");
    assert_eq!(sent.on(2046), channel_open(2046));
}

/// The broker and the client close another channel, and its number is the one that would be used for the number of a hidden
/// channel. The client's answer comes after that.
#[test]
fn a_number_whose_close_is_not_answered_stands_for_no_other() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.open(2046);
    pair.client(m("stuck").publish(1));
    pair.to_upstream();
    hide(&mut pair, 1);
    pair.client(m("b").publish(2046));
    pair.to_upstream();
    pair.client(bye(2046));
    pair.upstream(channel_close(2046, 404, "NOT_FOUND"));
    assert_eq!(pair.to_client(), channel_close(2046, 404, "NOT_FOUND") + channel_close_ok(2046));
    pair.to_upstream();
    pair.client(channel_open(1) + channel_close_ok(2046) + channel_open(3));
    let sent = pair.to_upstream();
    assert_eq!(sent, channel_open(2045) + channel_open(3));
    pair.upstream(channel_open_ok(2045));
    assert_eq!(pair.to_client(), channel_open_ok(1));
}

fn cc(id: &str, name: &str, keys: &[&str]) -> Message {
    let keys = keys.iter().map(|key| AMQPValue::LongString((*key).into())).collect::<Vec<_>>();
    m(id).header(name, AMQPValue::FieldArray(keys.into()))
}

/// RabbitMQ takes `BCC` out of what it returns, so the first return looks like the second message.
#[test]
fn a_return_without_its_bcc_is_not_taken_for_another_s() {
    let desk = verifying(|_| ());
    let mut pair = desk.confirming();
    let with = cc("a", "BCC", &["nowhere"]);
    verified(&mut pair, &with);
    verified(&mut pair, &m("a"));
    pair.upstream(m("a").returned(1) + ack(1, 1));
    pair.to_client();
    pair.upstream(m("a").returned(1) + ack(1, 2));
    assert_eq!(pair.to_client(), ack(1, 2));
    verified(&mut pair, &m("a"));
    verified(&mut pair, &with);
}

/// The same where the client has asked for one of them.
#[test]
fn a_return_without_its_bcc_that_the_client_has_asked_for() {
    let desk = verifying(|_| ());
    for (first, second) in [(true, false), (false, true), (true, true)] {
        let asks = |message: Message, asks: bool| if asks { message.mandatory() } else { message };
        let mut pair = desk.confirming();
        let (one, two) = (asks(cc("a", "BCC", &["nowhere"]), first), asks(m("a"), second));
        verified(&mut pair, &one);
        verified(&mut pair, &two);
        pair.upstream(m("a").returned(1) + ack(1, 1));
        pair.to_client();
        pair.upstream(m("a").returned(1) + ack(1, 2));
        pair.to_client();
        verified(&mut pair, &one);
        verified(&mut pair, &two);
        pair.upstream_eof();
    }
}

fn hide(pair: &mut Pair, there: u16) {
    unheard(pair, bye(1));
    pair.advance(SECOND);
    assert_eq!(pair.to_upstream(), flow(there, true));
    pair.upstream(flow_ok(there, true));
    assert_eq!(pair.to_client(), channel_close_ok(1));
}

fn reopen(pair: &mut Pair) -> u16 {
    pair.client(channel_open(1) + confirm_select(1));
    let there = pair.to_upstream().0[0].channel();
    pair.upstream(channel_open_ok(there) + confirm_select_ok(there));
    assert_eq!(pair.to_client(), channel_open_ok(1) + confirm_select_ok(1));
    there
}

/// A message of a closed channel comes back after the number was opened again, and the same id is published there.
#[test]
fn what_comes_back_on_a_closed_channel_is_not_taken_for_the_open_one_s() {
    for asked in [false, true] {
        let desk = verifying(|_| ());
        let mut pair = desk.confirming();
        let message = if asked { m("a").mandatory() } else { m("a") };
        pair.client(message.publish(1) + m("b").publish(1));
        pair.to_upstream();
        hide(&mut pair, 1);
        let there = reopen(&mut pair);
        pair.client(m("c").publish(1) + message.publish(1));
        assert_eq!(pair.to_upstream(), m("c").mandatory().publish(there));
        pair.upstream(message.returned(1) + ack_multiple(1, 2));
        assert_eq!(pair.to_client(), Frames::none());
        assert!(!desk.is_seen("a") && desk.is_seen("b"));
        assert_eq!(pair.to_upstream(), bye(1) + message.clone().mandatory().publish(there));
        pair.upstream(channel_close_ok(1) + message.returned(there) + ack_multiple(there, 2));
        let heard = if asked { message.returned(1) } else { Frames::none() };
        assert_eq!(pair.to_client(), heard + ack_multiple(1, 2));
        assert!(!desk.is_seen("a") && desk.is_seen("c"));
    }
}

#[test]
fn a_republished_message_that_no_queue_took_passes_again() {
    let desk = verifying(|_| ());
    desk.store("a");
    let mut pair = desk.confirming();
    pair.upstream(m("a").deliver(1, "c", 1));
    pair.to_client();
    for tag in 1..=3 {
        verified(&mut pair, &m("a"));
        pair.upstream(m("a").returned(1) + ack(1, tag));
        assert_eq!(pair.to_client(), ack(1, tag));
    }
    verified(&mut pair, &m("a"));
    pair.upstream(ack(1, 4));
    assert_eq!(pair.to_client(), ack(1, 4));
    pair.client(m("a").publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack(1, 5)));
}

#[test]
fn a_conflict_that_is_forwarded_and_comes_back_is_not_seen() {
    let desk = verifying(|plan| plan.rules.on_conflict = OnConflict::Forward);
    let mut pair = desk.confirming();
    verified(&mut pair, &m("a"));
    pair.upstream(ack(1, 1));
    pair.to_client();
    for tag in 2..4 {
        verified(&mut pair, &other("a"));
        pair.upstream(other("a").returned(1) + ack(1, tag));
        assert_eq!(pair.to_client(), ack(1, tag));
    }
    pair.client(m("a").publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack(1, 4)), "it is stored");
}

#[test]
fn two_bodies_of_one_id_in_one_read_and_one_comes_back() {
    for rule in [OnConflict::Drop, OnConflict::Forward, OnConflict::Reject] {
        let desk = verifying(|plan| plan.rules.on_conflict = rule);
        let mut pair = desk.confirming();
        pair.client(m("a").publish(1) + other("a").publish(1) + m("b").publish(1));
        assert_eq!(pair.to_upstream(), m("a").mandatory().publish(1) + m("b").mandatory().publish(1));
        pair.upstream(m("a").returned(1) + ack_multiple(1, 2));
        assert_eq!(pair.to_upstream(), other("a").mandatory().publish(1));
        pair.upstream(ack(1, 3));
        let heard = pair.to_client();
        assert_eq!(heard, ack(1, 1) + ack(1, 3) + ack(1, 2), "{rule:?} {heard:?}");
    }
}

#[test]
fn client_only_a_closed_channel_s_return_comes_before_the_close_ok() {
    let desk = verifying(|plan| plan.rules.confirms = ConfirmRule::ClientOnly);
    let mut pair = desk.pair();
    pair.client(m("a").publish(1) + bye(1));
    assert_eq!(pair.to_upstream(), m("a").mandatory().publish(1) + bye(1));
    pair.upstream(m("a").returned(1) + channel_close_ok(1));
    assert_eq!(pair.to_client(), channel_close_ok(1));
    assert!(!desk.is_seen("a"));
}

/// The mandatory bits are set in place before and behind a `channel.open` that renumbers the read.
#[test]
fn a_read_is_renumbered_in_its_midst_and_verified() {
    let desk = verifying(|_| ());
    let mut pair = desk.confirming();
    verified(&mut pair, &m("a"));
    pair.client(channel_open(2) + confirm_select(2));
    pair.upstream(channel_open_ok(2) + confirm_select_ok(2));
    pair.to_client();
    pair.to_upstream();
    hide(&mut pair, 1);
    let read = m("b").publish(2)
        + m("c").publish(2)
        + channel_open(1)
        + m("d").publish(2)
        + confirm_select(1)
        + m("e").publish(1)
        + m("f").mandatory().publish(1)
        + m("g").publish(2);
    pair.client(read);
    let sent = pair.to_upstream();
    let on = |id: &str, channel| m(id).mandatory().publish(channel);
    assert_eq!(sent.on(2), on("b", 2) + on("c", 2) + on("d", 2) + on("g", 2));
    assert_eq!(sent.on(2046), channel_open(2046) + confirm_select(2046) + on("e", 2046) + on("f", 2046));
}
