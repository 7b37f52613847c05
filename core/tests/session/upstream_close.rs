//! How the upstream connection ends. A broker that is out of memory reads nothing for a while, so what was written to it counts
//! as read only when it says `close-ok`.

use super::desk::{Desk, SECOND, m, publish, unheard};
use crate::support::frames::{Frames, heartbeat, message};
use crate::support::methods::{
    ack, channel_close, channel_close_ok, connection_close, connection_close_ok, flow_ok,
};
use crate::support::pair::Pair;
use hapax_core::window::MissingId;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
/// How long `close-ok` is waited for when the client is gone.
const HANDSHAKE: Duration = Duration::from_secs(10);

fn bye() -> Frames {
    connection_close(200, "bye")
}

/// A client without confirms has published `a` and said good-bye. The linger is over, and the broker has not read any of it.
fn closing() -> (Desk, Pair) {
    let desk = Desk::new();
    let mut pair = desk.pair();
    pair.client(m("a").publish(1) + bye());
    pair.to_upstream();
    pair.advance(10 * SECOND);
    assert!(format!("{:?}", pair.to_upstream()).ends_with("connection.close 200 \"bye\""));
    (desk, pair)
}

#[test]
fn a_client_waits_for_close_ok_as_long_as_the_broker_takes() {
    let (desk, mut pair) = closing();
    pair.advance(HOUR);
    assert!(!pair.client_closed() && !pair.upstream_closed(), "as it would at the broker");
    pair.upstream(ack(1, 1) + connection_close_ok());
    assert_eq!(pair.to_client(), connection_close_ok());
    assert!(pair.session.is_over() && desk.is_seen("a"));
}

#[test]
fn a_client_that_does_not_wait_for_close_ok_leaves_it_to_hapax() {
    for answers in [true, false] {
        let (desk, mut pair) = closing();
        pair.advance(HOUR);
        pair.client_eof();
        pair.advance(HANDSHAKE - SECOND);
        assert!(pair.client_closed() && !pair.upstream_closed(), "the broker may not have read all");
        if answers {
            pair.upstream(ack(1, 1) + connection_close_ok());
        } else {
            pair.advance(SECOND);
        }
        assert!(pair.upstream_closed() && pair.session.is_over());
        assert_eq!(desk.is_seen("a"), answers);
        assert_eq!((pair.to_upstream(), desk.in_flight()), (Frames::none(), 0));
    }
}

/// The broker was lost before it had said `close-ok`. A client that got one would believe that all is stored.
#[test]
fn nobody_says_close_ok_for_a_broker_that_is_lost() {
    let (_, mut pair) = closing();
    pair.upstream_eof();
    assert_eq!(pair.to_client(), Frames::none());
    assert!(pair.client_closed() && pair.session.is_over());
}

#[test]
fn a_silent_broker_is_lost_while_close_ok_is_waited_for() {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared).proving();
    pair.handshake_with("guest", "/", (2047, 131_072, 10));
    pair.open(1);
    pair.client(bye());
    assert_eq!(pair.to_upstream(), bye());
    pair.advance(15 * SECOND);
    pair.upstream(heartbeat());
    pair.advance(15 * SECOND);
    assert!(!pair.client_closed(), "it is alive");
    pair.advance(10 * SECOND);
    assert!(pair.client_closed() && pair.session.is_over());
}

/// A message that no window judges is settled when it is written. The broker may not have read it by then.
#[test]
fn good_bye_is_said_for_a_client_that_vanishes_with_nothing_unresolved() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    publish(&mut pair, &message("x", "k").bypass());
    pair.client_eof();
    assert!(pair.client_closed());
    assert_eq!(pair.leave_upstream(), Frames::none());
    assert!(pair.session.is_over());
}

#[test]
fn good_bye_is_waited_for_within_bounds_when_the_linger_is_over() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    publish(&mut pair, &m("b"));
    pair.client_eof();
    pair.advance(10 * SECOND);
    assert_eq!(pair.to_upstream(), connection_close(200, "the client is gone"));
    pair.upstream(ack(1, 1));
    assert!(desk.is_seen("a"), "an ack is an ack");
    pair.advance(HANDSHAKE);
    assert!(pair.upstream_closed() && pair.session.is_over());
    assert_eq!((desk.is_seen("b"), desk.in_flight()), (false, 0));
}

#[test]
fn a_drain_waits_for_the_brokers_close_ok() {
    for answers in [true, false] {
        let desk = Desk::new();
        let mut pair = desk.confirming();
        publish(&mut pair, &message("x", "k").bypass());
        pair.drain();
        pair.upstream(ack(1, 1));
        assert_eq!(pair.to_upstream(), connection_close(200, "hapax is shutting down"));
        pair.client(connection_close_ok());
        pair.advance(HANDSHAKE - SECOND);
        assert!(pair.client_closed() && !pair.upstream_closed());
        if answers {
            pair.upstream(connection_close_ok());
        } else {
            pair.advance(SECOND);
        }
        assert!(pair.session.is_over());
    }
}

/// A `channel.close` was forwarded after the linger, and the broker does not answer it either. The client gives up, and closes
/// its connection.
#[test]
fn close_ok_is_not_given_early_while_a_channel_close_is_unanswered() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    unheard_by_broker(&mut pair, m("a").publish(1) + channel_close(1, 200, "bye"));
    pair.advance(10 * SECOND);
    assert!(format!("{:?}", pair.to_upstream()).contains("channel.close 200"));
    pair.client(bye());
    pair.advance(SECOND);
    assert_eq!(pair.to_client(), Frames::none(), "the broker has not read the message");
    pair.upstream(ack(1, 1) + channel_close_ok(1));
    assert_eq!(pair.to_upstream(), bye());
    pair.upstream(connection_close_ok());
    assert_eq!(pair.to_client(), channel_close_ok(1) + connection_close_ok());
    assert!(pair.session.is_over() && desk.is_seen("a"));
}

#[test]
fn close_ok_is_not_given_early_while_a_refused_channel_is_not_read() {
    let desk = Desk::with(|plan| plan.rules.missing_id = MissingId::Reject);
    let mut pair = desk.pair();
    unheard_by_broker(&mut pair, m("a").publish(1) + message("x", "k").publish(1));
    assert!(format!("{:?}", pair.to_client()).contains("channel.close 406"));
    pair.client(bye());
    pair.advance(SECOND);
    assert_eq!(pair.to_client(), Frames::none(), "the broker has not read the message");
    pair.upstream(flow_ok(1, true));
    assert_eq!(pair.to_client(), connection_close_ok(), "now it has");
    pair.upstream(ack(1, 1) + channel_close_ok(1));
    pair.to_upstream();
    pair.upstream(connection_close_ok());
    assert!(pair.session.is_over() && desk.is_seen("a"));
}

/// The client sends these, and the broker reads nothing.
fn unheard_by_broker(pair: &mut Pair, frames: Frames) {
    pair.client(frames);
    pair.to_upstream();
}

/// Half a message will never be stored. A publish that waits for its id goes on at once.
#[test]
fn half_a_message_keeps_nobody_waiting_for_close_ok() {
    let desk = Desk::new();
    let mut slow = desk.confirming();
    slow.client(super::desk::cut(super::desk::two("a").publish(1), 3).0);
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    slow.client_eof();
    assert_eq!(pair.to_upstream(), m("a").publish(1));
    assert!(!slow.upstream_closed());
}
