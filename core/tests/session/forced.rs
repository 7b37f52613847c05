//! An operator closes a connection: its client hears 320 and the reason, and what the broker acks afterwards is remembered.

use super::desk::{Desk, SECOND, m, publish, unheard};
use crate::support::frames::{Frames, protocol_header};
use crate::support::methods::{ack, connection_close_ok, consume, consume_ok, nack, start};
use crate::support::pair::Pair;
use hapax_core::window::{Event, ForgetCause};

fn said(frames: &Frames) -> String {
    format!("{frames:?}")
}

#[test]
fn p06_a_forced_close_tells_the_client_why_and_awaits_what_is_in_flight() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    publish(&mut pair, &m("b"));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    pair.force_close("moved to another cluster");
    let told = said(&pair.to_client());
    assert!(told.contains("connection.close 320") && told.contains("CONNECTION_FORCED - moved to"), "{told}");
    // From now on, nothing of the client is read.
    unheard(&mut pair, m("c").publish(1));
    pair.client(connection_close_ok());
    assert!(pair.client_closed() && !pair.upstream_closed(), "b has no outcome yet");
    // A retry waits for the first one, and shares its fate.
    let mut retry = desk.confirming();
    unheard(&mut retry, m("b").publish(1));
    pair.upstream(ack(1, 2));
    pair.leave_upstream();
    assert!(pair.session.is_over());
    assert_eq!(["a", "b", "c"].map(|id| desk.is_seen(id)), [true, true, false]);
    assert_eq!(retry.to_client(), ack(1, 1), "the broker has it");
}

#[test]
fn p06_a_forced_close_forgets_what_the_broker_refuses() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    pair.force_close("x");
    let mut retry = desk.confirming();
    unheard(&mut retry, m("a").publish(1));
    pair.upstream(nack(1, 1));
    assert_eq!(retry.to_upstream(), m("a").publish(1), "the retry takes its place");
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::Nack)), 1);
}

#[test]
fn p06_a_client_that_does_not_answer_a_forced_close_is_cut() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.force_close("x");
    assert!(!pair.client_closed());
    pair.advance(60 * SECOND);
    assert!(pair.client_closed());
    // Told twice is cut at once.
    let mut pair = desk.confirming();
    pair.force_close("x");
    pair.force_close("x");
    assert!(pair.client_closed());
}

#[test]
fn p06_a_forced_close_before_the_login_ends_both_sides() {
    let desk = Desk::new();
    for frames in [Frames::none(), protocol_header()] {
        let mut pair = Pair::new(&desk.shared);
        pair.client(frames);
        pair.force_close("x");
        pair.advance(60 * SECOND);
        assert!(pair.session.is_over());
    }
    let mut pair = Pair::new(&desk.shared);
    pair.client(protocol_header());
    pair.upstream(start());
    pair.force_close("x");
    pair.advance(60 * SECOND);
    assert!(pair.session.is_over());
    pair.force_close("it is over already");
    assert!(pair.session.is_over());
}

/// A reply-text is a short string. A reason that is too long is cut, and never within a character.
#[test]
fn p10_a_long_reason_is_cut() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.force_close(&"ü".repeat(300));
    let told = said(&pair.to_client());
    assert!(told.contains("CONNECTION_FORCED - üüü"), "{told}");
}

#[test]
fn deliveries_are_counted() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    pair.client(consume(1, "q", "c"));
    pair.upstream(consume_ok(1, "c"));
    pair.upstream(m("a").deliver(1, "c", 1) + m("b").deliver(1, "c", 2));
    pair.upstream(m("c").get_ok(1, 3));
    // In pieces.
    let bytes = m("d").deliver(1, "c", 4).encode();
    pair.upstream_bytes(&bytes[..bytes.len() - 3]);
    pair.upstream_bytes(&bytes[bytes.len() - 3..]);
    assert_eq!(pair.session.deliveries(), 4);
    assert_eq!(pair.session.publishes(), 0);
}
