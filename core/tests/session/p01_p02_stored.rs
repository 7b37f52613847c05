//! Point 1, seen means stored, and point 2, in flight. (`waiters` has more tests of waiting publishes.)

use super::desk::{Desk, SECOND, cut, m, publish, two, unheard};
use crate::support::frames::{Frames, message};
use crate::support::methods::{
    ack, ack_multiple, channel_close_ok, connection_close, connection_close_ok, nack, publish_refused,
};
use hapax_core::window::{Event, ForgetCause};

#[test]
fn p01_seen_means_stored_committed_on_ack() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    assert!(!desk.is_seen("a"));
    assert_eq!(desk.in_flight(), 1, "reserved at publish");
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    assert!(desk.is_seen("a"));
    assert_eq!(desk.in_flight(), 0);
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), Frames::none());
    assert_eq!(pair.to_client(), ack(1, 2));
}

#[test]
fn p01_seen_means_stored_forgotten_on_nack() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    pair.upstream(nack(1, 1));
    assert_eq!(pair.to_client(), nack(1, 1));
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (false, 0));
    publish(&mut pair, &m("a"));
    pair.upstream(ack(1, 2));
    assert_eq!(pair.to_client(), ack(1, 2));
}

#[test]
fn p01_seen_means_stored_forgotten_when_the_channel_or_connection_is_closed() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    let not_found = publish_refused(1, 404, "NOT_FOUND - no exchange 'x' in vhost '/'");
    pair.upstream(not_found.clone());
    assert_eq!(pair.to_client(), not_found);
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (false, 0));
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::ChannelClosed)), 1);
    pair.client(channel_close_ok(1));
    assert_eq!(pair.to_upstream(), channel_close_ok(1));

    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    pair.upstream(connection_close(320, "CONNECTION_FORCED"));
    assert_eq!(pair.to_client(), connection_close(320, "CONNECTION_FORCED"));
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (false, 0));
    pair.client(connection_close_ok());
    assert_eq!(pair.to_upstream(), connection_close_ok());
    assert!(pair.session.is_over() && pair.client_closed() && pair.upstream_closed());
}

#[test]
fn p01_seen_means_stored_for_the_ttl_from_the_commit_on() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    pair.advance(50 * SECOND);
    pair.upstream(ack(1, 1));
    pair.advance(59 * SECOND);
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), Frames::none(), "a minute from the commit, not from the publish");
    assert_eq!(pair.to_client(), ack(1, 1) + ack(1, 2));
    pair.advance(SECOND);
    publish(&mut pair, &m("a"));
}

#[test]
fn p01_seen_means_stored_for_a_messages_own_ttl() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a").ttl_ms(2000));
    pair.upstream(ack(1, 1));
    pair.advance(SECOND);
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), Frames::none());
    pair.advance(SECOND);
    pair.to_client();
    publish(&mut pair, &m("a").ttl_ms(0));
    pair.upstream(ack(1, 2));
    pair.to_client();
    publish(&mut pair, &m("a"));
}

#[test]
fn p02_in_flight_shares_the_fate_of_what_is_stored() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    unheard(&mut pair, m("a").publish(1));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack_multiple(1, 2));
    assert_eq!(pair.to_upstream(), Frames::none());
    assert_eq!(pair.session.unresolved(), 0);
    assert_eq!(pair.session.held_bytes(), 0);
}

#[test]
fn p02_in_flight_takes_the_place_of_what_is_not_stored() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    let again = m("a").body("the same, said again");
    unheard(&mut pair, again.publish(1));
    unheard(&mut pair, m("a").publish(1));
    pair.upstream(nack(1, 1));
    assert_eq!(pair.to_client(), nack(1, 1));
    assert_eq!(pair.to_upstream(), again.publish(1));
    pair.upstream(ack(1, 2));
    assert_eq!(pair.to_client(), ack_multiple(1, 3));
    assert_eq!(pair.to_upstream(), Frames::none());
}

#[test]
fn p02_in_flight_is_shared_between_connections() {
    let desk = Desk::new();
    let (mut one, mut two) = (desk.confirming(), desk.confirming());
    publish(&mut one, &m("a"));
    unheard(&mut two, m("a").publish(1));
    one.upstream_eof();
    assert_eq!(two.to_upstream(), m("a").publish(1));
    two.upstream(ack(1, 1));
    assert_eq!(two.to_client(), ack(1, 1));
}

#[test]
fn p02_in_flight_waiters_for_an_id_are_bounded_and_counted() {
    let desk = Desk::with(|plan| plan.limits.waiters_per_id = 1);
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    unheard(&mut pair, m("a").publish(1));
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_client(), nack(1, 3));
    assert_eq!(desk.count(Event::Refused), 1);
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack_multiple(1, 2));
}

#[test]
fn p02_in_flight_bytes_held_are_bounded_and_counted() {
    let desk = Desk::with(|plan| plan.settings.held_bytes = 300);
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    unheard(&mut pair, m("a").body([b'x'; 100]).publish(1));
    assert!((100..=300).contains(&pair.session.held_bytes()));
    let (first, rest) = cut(m("a").body([b'x'; 300]).publish(1), 2);
    unheard(&mut pair, first);
    pair.client(rest);
    assert_eq!(pair.to_client(), nack(1, 3), "once its body is in");
    assert_eq!(pair.to_upstream(), Frames::none());
    assert_eq!(desk.count(Event::Refused), 1);
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack_multiple(1, 2));
    assert_eq!(pair.session.held_bytes(), 0);
}

#[test]
fn p02_in_flight_of_another_content_is_not_mixed_up() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    let (head, body) = cut(two("a").publish(1), 3);
    pair.client(head.clone());
    assert_eq!(pair.to_upstream(), head, "streamed on, not buffered");
    pair.client(body.clone() + message("x", "k").id("b").publish(1));
    assert_eq!(pair.to_upstream(), body + message("x", "k").id("b").publish(1));
}
