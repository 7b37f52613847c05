//! Point 3, delivery tags, and point 4, return then ack.

use super::desk::{Desk, confirm, m, publish, unheard};
use crate::support::frames::{Frames, message};
use crate::support::methods::{ack, ack_multiple, nack, nack_multiple};
use hapax_core::window::{Event, ForgetCause};

#[test]
fn p03_delivery_tags_the_upstream_numbers_only_what_was_forwarded() {
    let desk = Desk::new();
    desk.store("seen");
    let mut pair = desk.confirming();
    pair.client(m("seen").publish(1) + m("a").publish(1) + m("seen").publish(1) + m("b").publish(1));
    assert_eq!(pair.to_upstream(), m("a").publish(1) + m("b").publish(1));
    assert_eq!(pair.to_client(), ack(1, 1) + ack(1, 3));
    pair.upstream(ack(1, 2));
    assert_eq!(pair.to_client(), ack(1, 4));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 2));
}

#[test]
fn p03_delivery_tags_upstream_multiple_is_expanded() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    for id in ["a", "b", "c"] {
        publish(&mut pair, &m(id));
        unheard(&mut pair, m(id).publish(1));
    }
    pair.upstream(ack_multiple(1, 2));
    assert_eq!(pair.to_client(), ack_multiple(1, 4));
    assert!(desk.is_seen("a") && desk.is_seen("b") && !desk.is_seen("c"));
    pair.upstream(nack_multiple(1, 3));
    assert_eq!(pair.to_client(), nack(1, 5));
    assert_eq!(pair.to_upstream(), m("c").publish(1));
    pair.upstream(ack_multiple(1, 0));
    assert_eq!(pair.to_client(), ack(1, 6), "0 is all so far");
}

#[test]
fn p03_delivery_tags_multiple_never_crosses_a_held_or_unresolved_tag() {
    let desk = Desk::new();
    desk.store("seen");
    let mut other = desk.confirming();
    publish(&mut other, &m("held"));
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + m("held").publish(1) + m("b").publish(1) + m("c").publish(1));
    pair.client(m("seen").publish(1) + m("d").publish(1));
    assert_eq!(pair.to_client(), ack(1, 5));
    pair.upstream(ack_multiple(1, 3));
    assert_eq!(pair.to_client(), ack(1, 1) + ack(1, 3) + ack(1, 4), "2 is held");
    other.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 2), "not 5 again");
    pair.upstream(ack(1, 4));
    assert_eq!(pair.to_client(), ack(1, 6));
}

#[test]
fn p03_delivery_tags_each_is_answered_once() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + m("b").publish(1));
    pair.upstream(ack(1, 2) + ack(1, 2) + nack(1, 2));
    assert_eq!(pair.to_client(), ack(1, 2));
    pair.upstream(ack_multiple(1, 2) + ack_multiple(1, 2) + ack(1, 1) + ack(1, 7) + ack_multiple(1, 9));
    assert_eq!(pair.to_client(), ack(1, 1));
    assert_eq!(pair.session.unresolved(), 0);
}

#[test]
fn p03_delivery_tags_out_of_order_acks_and_nacks() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    for id in ["a", "b", "c", "d", "e"] {
        pair.client(m(id).publish(1));
    }
    pair.upstream(nack(1, 4));
    assert_eq!(pair.to_client(), nack(1, 4));
    pair.upstream(ack(1, 2) + ack(1, 3));
    assert_eq!(pair.to_client(), ack(1, 2) + ack(1, 3));
    pair.upstream(nack(1, 1) + ack(1, 5));
    assert_eq!(pair.to_client(), nack(1, 1) + ack(1, 5), "a lone ack is not multiple");
    assert_eq!(["a", "b", "c", "d", "e"].map(|id| desk.is_seen(id)), [false, true, true, false, true]);
}

#[test]
fn p03_delivery_tags_of_what_is_not_judged_count_too() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    let plain = message("x", "k");
    pair.client(plain.publish(1) + m("a").publish(1) + m("b").bypass().publish(1));
    pair.upstream(ack_multiple(1, 3));
    assert_eq!(pair.to_client(), ack_multiple(1, 3));
    assert!(desk.is_seen("a") && !desk.is_seen("b"));
}

#[test]
fn p03_delivery_tags_are_each_channels_own() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.open(2);
    confirm(&mut pair, 2);
    pair.client(m("a").publish(1) + m("b").publish(2) + m("c").publish(2));
    pair.upstream(ack(2, 1));
    assert_eq!(pair.to_client(), ack(2, 1));
    pair.upstream(ack(1, 1) + nack(2, 2));
    assert_eq!(pair.to_client(), ack(1, 1) + nack(2, 2));
    assert_eq!(["a", "b", "c"].map(|id| desk.is_seen(id)), [true, true, false]);
}

#[test]
fn p04_return_then_ack_is_not_stored() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    let a = m("a").mandatory();
    publish(&mut pair, &a);
    pair.upstream(a.returned(1) + ack(1, 1));
    assert_eq!(pair.to_client(), a.returned(1) + ack(1, 1), "both, in that order");
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (false, 0));
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::Returned)), 1);
    publish(&mut pair, &a);
    pair.upstream(ack(1, 2));
    assert_eq!(pair.to_client(), ack(1, 2));
    assert!(desk.is_seen("a"));
}

#[test]
fn p04_return_belongs_to_the_oldest_that_looks_like_it() {
    let desk = Desk::with(|plan| plan.rules.id = hapax_core::wire::IdSource::CorrelationId);
    let mut pair = desk.confirming();
    let one = m("same").correlation("1").mandatory();
    let twin = m("same").correlation("2").mandatory();
    let not_mandatory = m("same").correlation("3");
    let elsewhere = message("x", "other").id("same").correlation("4").mandatory();
    for message in [&not_mandatory, &elsewhere, &one, &twin] {
        publish(&mut pair, message);
    }
    pair.upstream(one.returned(1) + ack_multiple(1, 4));
    assert_eq!(pair.to_client(), one.returned(1) + ack_multiple(1, 4));
    assert_eq!(desk.window.len(), 3);
    pair.client(twin.publish(1) + not_mandatory.publish(1) + one.publish(1));
    assert_eq!(pair.to_upstream(), one.publish(1), "the oldest mandatory one of that key was returned");
    pair.to_client();
}

#[test]
fn p04_return_goes_to_the_next_when_the_oldest_is_settled() {
    let desk = Desk::with(|plan| plan.rules.id = hapax_core::wire::IdSource::CorrelationId);
    let mut pair = desk.confirming();
    let (one, twin) = (m("i").correlation("1").mandatory(), m("i").correlation("2").mandatory());
    publish(&mut pair, &one);
    publish(&mut pair, &twin);
    pair.upstream(ack(1, 1) + twin.returned(1) + ack(1, 2));
    assert_eq!(desk.window.len(), 1);
    pair.to_client();
    publish(&mut pair, &twin);
}

#[test]
fn p04_return_promotes_a_waiter() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    let a = m("a").mandatory();
    publish(&mut pair, &a);
    unheard(&mut pair, m("a").publish(1));
    pair.upstream(a.returned(1));
    assert_eq!(pair.to_upstream(), Frames::none(), "not before the ack");
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), a.returned(1) + ack(1, 1));
    assert_eq!(pair.to_upstream(), m("a").publish(1));
}

#[test]
fn p04_return_is_never_earned_by_a_duplicate() {
    let desk = Desk::new();
    desk.store("a");
    let mut pair = desk.confirming();
    pair.client(m("a").mandatory().publish(1));
    assert_eq!(pair.to_client(), ack(1, 1));
    assert_eq!(pair.to_upstream(), Frames::none());
}

#[test]
fn p04_return_shows_the_exchange_that_the_client_named() {
    let desk = Desk::with(|plan| plan.rules.forward_to = Some("backing".into()));
    let mut pair = desk.confirming();
    let named = message("front", "k").id("a").body("body").mandatory();
    let sent = message("backing", "k").id("a").body("body").mandatory();
    pair.client(named.publish(1));
    assert_eq!(pair.to_upstream(), sent.publish(1));
    pair.upstream(sent.returned(1) + ack(1, 1));
    assert_eq!(pair.to_client(), named.returned(1) + ack(1, 1));
    pair.client(named.publish(1));
    assert_eq!(pair.to_upstream(), sent.publish(1));
}

#[test]
fn p04_return_of_a_publish_without_an_id_shows_the_named_exchange_too() {
    let desk = Desk::with(|plan| plan.rules.forward_to = Some("backing".into()));
    let mut pair = desk.confirming();
    let named = message("front", "k").body("body").mandatory();
    let sent = message("backing", "k").body("body").mandatory();
    pair.client(named.publish(1));
    assert_eq!(
        pair.to_upstream(),
        sent.publish(1),
        "every publish of the window goes to the backing exchange"
    );
    pair.upstream(sent.returned(1) + ack(1, 1));
    assert_eq!(pair.to_client(), named.returned(1) + ack(1, 1));
}

#[test]
fn p04_return_is_heeded_on_a_channel_that_hapax_has_closed() {
    let desk = Desk::with(|plan| plan.rules.missing_id = hapax_core::window::MissingId::Reject);
    let mut pair = desk.confirming();
    let a = m("a").mandatory();
    publish(&mut pair, &a);
    pair.client(message("x", "k").publish(1));
    assert_eq!(pair.to_client().len(), 1, "406");
    pair.upstream(a.returned(1) + ack(1, 1));
    assert_eq!(pair.to_client(), Frames::none());
    assert!(!desk.is_seen("a"), "it came back");
}
