//! Point 9, rights: nobody is acked a duplicate whom the broker would refuse.

use super::desk::{Desk, SECOND, confirm, m, publish, unheard};
use crate::support::frames::protocol_header;
use crate::support::frames::{Frames, message};
use crate::support::methods::{
    ack, channel_close, channel_close_ok, channel_open, channel_open_ok, connection_open, connection_open_ok,
    start, start_ok, tune, tune_ok, tx_commit, tx_select,
};
use crate::support::pair::Pair;

const OWN: u16 = 2047;

fn probe(channel: u16, exchange: &str, routing_key: &str) -> Frames {
    let message = message(exchange, routing_key).expiration("hapax: may this user publish?");
    channel_open(channel) + message.publish(channel)
}

fn may() -> Frames {
    channel_open_ok(OWN) + channel_close(OWN, 406, "PRECONDITION_FAILED - invalid expiration")
}

fn may_not() -> Frames {
    channel_open_ok(OWN)
        + channel_close(OWN, 403, "ACCESS_REFUSED - write access to exchange 'x' refused for user 'guest'")
}

/// `a` is seen, and nobody's rights are known.
fn stored() -> Desk {
    let desk = Desk::unproven(|_| ());
    desk.store("a");
    desk
}

#[test]
fn p09_rights_are_verified_on_a_channel_of_our_own() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), probe(OWN, "x", "k"));
    assert_eq!(pair.to_client(), Frames::none());
    pair.upstream(may());
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN));
    assert_eq!(pair.to_client(), ack(1, 1), "and of our channel the client sees nothing");
}

#[test]
fn p09_rights_refused_is_the_brokers_own_403() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + m("fresh").publish(1));
    assert_eq!(pair.to_upstream(), m("fresh").publish(1) + probe(OWN, "x", "k"));
    pair.upstream(may_not());
    let said = format!("{:?}", pair.to_client());
    assert!(
        said.contains("channel.close 403 \"ACCESS_REFUSED - write access") && !said.contains("ack"),
        "{said}"
    );
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN), "our channel ends, theirs when it is settled");
    pair.upstream(channel_close(1, 403, "ACCESS_REFUSED"));
    assert_eq!(pair.to_upstream(), channel_close_ok(1));
    pair.client(channel_close_ok(1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), Frames::none()));
    assert_eq!(desk.in_flight(), 0);
    pair.open(1);
}

#[test]
fn p09_rights_404_is_passed_on_in_whatever_bytes() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    pair.to_upstream();
    let mut close = channel_close(OWN, 404, "NOT_FOUND - no exchange '??'").encode();
    let at = close.windows(2).position(|two| two == b"??").unwrap();
    close[at..at + 2].copy_from_slice(b"\xff\xfe");
    pair.upstream_bytes(&close);
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("channel.close 404 \"NOT_FOUND - no exchange"), "{said}");
}

#[test]
fn p09_rights_are_verified_once_for_each_user() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + m("a").publish(1));
    assert_eq!(pair.to_upstream(), probe(OWN, "x", "k"), "one question for both");
    pair.upstream(may());
    assert_eq!(pair.to_client().len(), 1, "acked together");
    let mut other_connection = desk.confirming();
    other_connection.client(m("a").publish(1));
    assert_eq!(other_connection.to_client(), ack(1, 1));
    let mut other_user = desk.user("somebody");
    confirm(&mut other_user, 1);
    other_user.client(m("a").publish(1));
    assert_eq!(other_user.to_client(), Frames::none());
    assert_eq!(other_user.to_upstream(), probe(OWN, "x", "k"));
}

#[test]
fn p09_rights_fade() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").ttl_ms(0).publish(1));
    pair.upstream(may());
    pair.to_upstream();
    pair.to_client();
    pair.advance(59 * SECOND);
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_client(), ack(1, 2));
    pair.advance(SECOND);
    publish(&mut pair, &m("a"));
}

#[test]
fn p09_rights_are_proven_by_a_publish_that_was_accepted() {
    let desk = stored();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("b"));
    pair.upstream(ack(1, 1));
    pair.client(m("a").publish(1) + m("b").publish(1));
    assert_eq!(pair.to_upstream(), Frames::none());
    assert_eq!(pair.to_client().len(), 2);
}

#[test]
fn p09_rights_to_topics_are_each_routing_keys_own() {
    let desk = Desk::unproven(|plan| plan.rules.scope = hapax::window::Scope::Vhost);
    let mut pair = desk.confirming();
    publish(&mut pair, &message("x", "one").id("a"));
    pair.upstream(ack(1, 1));
    pair.to_client();
    pair.client(message("x", "two").id("a").publish(1));
    assert_eq!(pair.to_upstream(), probe(OWN, "x", "two"));
    pair.upstream(may());
    pair.client(message("", "q").id("a").publish(1));
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + probe(OWN, "", "q"));
}

#[test]
fn p09_rights_the_number_that_the_client_opens_is_ours_for_a_moment() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    pair.to_upstream();
    unheard(&mut pair, channel_open(OWN));
    pair.upstream(may());
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + channel_open(OWN));
    pair.upstream(channel_open_ok(OWN));
    assert_eq!(pair.to_client(), ack(1, 1) + channel_open_ok(OWN));
}

#[test]
fn p09_rights_an_answer_that_comes_late_is_still_ours() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    pair.to_upstream();
    pair.advance(300 * SECOND);
    assert_eq!(
        pair.to_client(),
        Frames::none(),
        "a broker that is out of memory reads nothing from publishers"
    );
    pair.upstream(may());
    assert_eq!(pair.to_client(), ack(1, 1));
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN));
}

#[test]
fn p09_rights_a_spare_channel_is_asked_for() {
    let desk = stored();
    let mut pair = Pair::new(&desk.shared);
    pair.client(protocol_header());
    pair.upstream(start());
    pair.client(start_ok("guest"));
    pair.upstream(tune(2047, 131_072, 0));
    pair.to_client();
    pair.to_upstream();
    pair.client(tune_ok(1, 131_072, 0) + connection_open("/"));
    assert_eq!(pair.to_upstream(), tune_ok(2, 131_072, 0) + connection_open("/"));
    pair.upstream(connection_open_ok());
    pair.to_client();
    pair.open(1);
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), probe(2, "x", "k"));
}

#[test]
fn p09_rights_channel_close_waits_for_the_proof() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + channel_close(1, 200, "bye"));
    assert_eq!(pair.to_upstream(), probe(OWN, "x", "k"));
    pair.upstream(may());
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + channel_close(1, 200, "bye"));
    pair.upstream(channel_close_ok(1));
    assert_eq!(pair.to_client(), ack(1, 1) + channel_close_ok(1));
}

#[test]
fn p09_rights_a_commit_waits_for_the_proof() {
    let desk = stored();
    let mut pair = desk.pair();
    pair.client(tx_select(1) + m("a").publish(1) + tx_commit(1));
    assert_eq!(pair.to_upstream(), tx_select(1) + probe(OWN, "x", "k"));
    pair.upstream(may_not());
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("channel.close 403"), "{said}");
    assert!(!format!("{:?}", pair.to_upstream()).contains("ommit"));
}

#[test]
fn p09_rights_a_client_that_is_gone_needs_no_proof() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    pair.client_eof();
    pair.advance(10 * SECOND);
    assert!(pair.session.is_over());
}
