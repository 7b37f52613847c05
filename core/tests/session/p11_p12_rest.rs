//! Point 11, liveness, and point 12, all the rest.

use super::desk::{Desk, SECOND, cut, m, publish, two, unheard};
use crate::support::frames::{Frames, heartbeat, message, protocol_header};
use crate::support::methods::{
    ack, ack_multiple, blocked, cancel, cancel_ok, channel_open, channel_open_ok, consume, consume_ok, flow,
    flow_ok, nack, queue_declare, start, start_ok, tune, unblocked,
};
use crate::support::pair::Pair;
use crate::support::probe::{asks, prove};
use amq_protocol::protocol::{AMQPClass, basic, connection};
use amq_protocol::types::FieldTable;
use hapax_core::window::{Event, ForgetCause};

fn beating(desk: &Desk) -> Pair {
    let mut pair = Pair::new(&desk.shared).proving();
    pair.handshake_with("guest", "/", (2047, 131_072, 10));
    pair.open(1);
    super::desk::confirm(&mut pair, 1);
    pair
}

#[test]
fn p11_liveness_the_upstream_hears_of_us_when_all_is_dropped() {
    let desk = Desk::new();
    desk.store("a");
    let mut pair = beating(&desk);
    for tag in 1..=10 {
        pair.client(m("a").publish(1));
        pair.upstream(heartbeat());
        assert_eq!(pair.to_client(), ack(1, tag), "who is being spoken to needs no heartbeat");
        pair.advance(5 * SECOND);
        assert_eq!(pair.to_upstream(), heartbeat());
        pair.to_client();
    }
    assert!(!pair.client_closed() && !pair.upstream_closed());
}

#[test]
fn p11_liveness_a_silent_client_is_gone_after_two_intervals() {
    let desk = Desk::new();
    let mut pair = beating(&desk);
    for _ in 0..3 {
        pair.advance(5 * SECOND);
        assert_eq!(pair.to_client(), heartbeat());
        pair.upstream(heartbeat());
    }
    pair.client_bytes(&heartbeat().encode()[..3]);
    pair.advance(5 * SECOND);
    pair.upstream(heartbeat());
    pair.advance(14 * SECOND);
    assert!(!pair.client_closed(), "half a frame is a sign of life");
    pair.upstream(heartbeat());
    pair.to_upstream();
    pair.advance(SECOND);
    assert!(pair.client_closed());
    pair.leave_upstream();
    assert!(pair.session.is_over());
}

#[test]
fn p11_liveness_a_silent_upstream_is_gone_after_two_intervals() {
    let desk = Desk::new();
    let mut pair = beating(&desk);
    publish(&mut pair, &m("a"));
    for _ in 0..4 {
        pair.client(heartbeat());
        assert!(!pair.upstream_closed());
        pair.advance(5 * SECOND);
    }
    assert!(pair.upstream_closed());
    assert!(format!("{:?}", pair.to_client()).contains("connection.close 320"));
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p11_liveness_a_waiter_is_not_promoted_into_an_upstream_that_is_dead() {
    let desk = Desk::new();
    let (mut first, mut waiter, mut other) = (beating(&desk), beating(&desk), beating(&desk));
    publish(&mut first, &m("a"));
    unheard(&mut waiter, m("a").publish(1));
    unheard(&mut other, m("a").publish(1));
    for pair in [&mut first, &mut waiter, &mut other] {
        pair.stand_still(21 * SECOND);
    }
    // Only the third one's upstream has said something meanwhile.
    other.upstream(heartbeat());
    first.upstream_eof();
    waiter.pump();
    assert_eq!(waiter.to_upstream(), Frames::none(), "its upstream has been silent for too long");
    assert!(waiter.upstream_closed());
    assert!(format!("{:?}", waiter.to_client()).contains("connection.close 320"));
    assert_eq!(other.to_upstream(), m("a").publish(1), "so it is the next one's turn");
    other.upstream(ack(1, 1));
    assert_eq!(other.to_client(), ack(1, 1));
    assert!(desk.is_seen("a"));
}

#[test]
fn p11_liveness_nothing_is_written_to_an_upstream_that_was_lost() {
    let desk = Desk::new();
    let mut pair = beating(&desk);
    // The user's right is known.
    publish(&mut pair, &m("first"));
    pair.upstream(ack(1, 1));
    pair.to_client();
    let now = pair.now();
    let mut bytes = bytes::BytesMut::from(&m("a").publish(1).encode()[..]);
    pair.session.handle_client(&mut bytes, now);
    // The shell has not asked what is to be written, and the socket has ended.
    pair.session.handle_upstream_eof(now);
    assert_eq!(pair.to_upstream(), Frames::none(), "it is called in doubt already");
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::InDoubt)), 1);
    assert!(pair.upstream_closed());
}

#[test]
fn p11_liveness_bytes_that_nobody_has_looked_at_are_a_sign_of_life() {
    let desk = Desk::new();
    let mut pair = beating(&desk);
    pair.stand_still(21 * SECOND);
    let now = pair.now();
    pair.upstream(heartbeat());
    pair.session.handle_client_alive(now);
    pair.session.handle_timeout(now);
    pair.pump();
    assert!(!pair.client_closed());
    pair.stand_still(20 * SECOND);
    let now = pair.now();
    pair.upstream(heartbeat());
    pair.session.handle_timeout(now);
    pair.pump();
    assert!(pair.client_closed());
}

#[test]
fn p11_liveness_what_a_client_said_before_it_fell_silent_is_handled() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 1);
    let mut pair = beating(&desk);
    publish(&mut pair, &m("first"));
    pair.upstream(ack(1, 1));
    pair.client(m("a").publish(1) + m("b").publish(1));
    assert_eq!(pair.to_upstream(), m("a").publish(1), "only one may be unresolved");
    for _ in 0..5 {
        pair.advance(5 * SECOND);
        pair.upstream(heartbeat());
    }
    pair.to_upstream();
    pair.upstream(ack(1, 2));
    assert_eq!(pair.to_upstream(), m("b").publish(1), "it had been read");
    assert!(pair.client_closed());
}

/// A client that is gone does not keep its place for ever, even if the broker never answers.
#[test]
fn p11_liveness_a_client_that_is_gone_is_waited_for_no_longer_than_the_linger() {
    for vanishes in [false, true] {
        let desk = Desk::with(|plan| plan.settings.max_unresolved = 1);
        let mut pair = beating(&desk);
        publish(&mut pair, &m("first"));
        pair.upstream(ack(1, 1));
        pair.client(m("a").publish(1) + m("b").publish(1));
        if vanishes {
            pair.client_eof();
        }
        for _ in 0..12 {
            pair.advance(5 * SECOND);
            pair.upstream(heartbeat());
        }
        assert!(pair.client_closed(), "socket ended: {vanishes}");
    }
}

#[test]
fn p11_liveness_silence_means_nothing_while_nobody_listens() {
    let desk = Desk::new();
    let mut pair = beating(&desk);
    let now = pair.now();
    pair.session.handle_reading_client(false, now);
    for _ in 0..8 {
        pair.advance(5 * SECOND);
        pair.upstream(heartbeat());
    }
    assert!(!pair.client_closed());
    let now = pair.now();
    pair.session.handle_reading_client(true, now);
    pair.advance(19 * SECOND);
    assert!(!pair.client_closed());
}

#[test]
fn p11_liveness_blocked_and_flow_pass_through() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.upstream(blocked("memory") + unblocked() + flow(1, false));
    assert_eq!(pair.to_client(), blocked("memory") + unblocked() + flow(1, false));
    pair.client(flow_ok(1, false) + flow(1, true));
    assert_eq!(pair.to_upstream(), flow_ok(1, false) + flow(1, true));
    pair.upstream(flow_ok(1, true));
    assert_eq!(pair.to_client(), flow_ok(1, true));
}

#[test]
fn p11_liveness_unresolved_publishes_are_bounded() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 2);
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + m("b").publish(1) + m("c").publish(1));
    assert_eq!(pair.to_upstream(), m("a").publish(1) + m("b").publish(1));
    assert!(!pair.session.wants_client());
    pair.upstream(ack(1, 2));
    assert_eq!(
        pair.to_upstream(),
        m("c").publish(1),
        "one is unresolved, although it stands before the other"
    );
    assert!(!pair.session.wants_client());
    pair.upstream(ack(1, 1));
    assert!(pair.session.wants_client());
    assert_eq!(pair.to_client(), ack(1, 2) + ack(1, 1));
}

#[test]
fn p11_liveness_unresolved_publishes_are_bounded_when_they_wait_for_others() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 6);
    let mut first = desk.confirming();
    publish(&mut first, &m("a"));
    let mut pair = desk.confirming();
    unheard(&mut pair, (0..12).fold(Frames::none(), |all, _| all + m("a").publish(1)));
    assert_eq!(pair.session.unresolved(), 6, "six that wait, each counts once");
    assert!(!pair.session.wants_client());
    first.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack_multiple(1, 6) + ack_multiple(1, 12), "the rest had been read already");
    assert_eq!(pair.session.unresolved(), 0);
    assert_eq!(desk.count_like(|event| matches!(event, Event::Duplicate { .. })), 12);
}

#[test]
fn p11_liveness_what_is_not_whole_can_become_so() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 1);
    let mut pair = desk.confirming();
    pair.client(two("a").publish(1) + m("b").publish(1));
    assert_eq!(pair.to_upstream(), two("a").publish(1));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_upstream(), m("b").publish(1));
}

#[test]
fn p11_liveness_bytes_held_are_bounded() {
    let desk = Desk::with(|plan| {
        plan.settings.held_bytes = 1000;
        plan.limits.waiters_per_id = 0;
    });
    let mut first = desk.confirming();
    publish(&mut first, &m("a"));
    let mut pair = desk.pair();
    let large = m("b").body(vec![b'x'; 2000]);
    unheard(&mut pair, m("a").publish(1));
    unheard(&mut pair, large.publish(1));
    assert!(!pair.session.wants_client(), "what follows a stalled publish is held, too");
    let held = pair.session.held_bytes();
    unheard(&mut pair, m("c").body(vec![b'x'; 2000]).publish(1));
    assert_eq!(pair.session.held_bytes(), held);
    first.upstream(ack(1, 1));
    pair.advance(SECOND);
    assert_eq!(pair.session.held_bytes(), 0);
    assert_eq!(pair.to_upstream().len(), 7, "confirm.select and two publishes");
}

#[test]
fn p11_liveness_a_handshake_has_a_time() {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared).proving();
    pair.advance(10 * SECOND);
    assert!(pair.client_closed() && pair.session.is_over());
    let mut pair = Pair::new(&desk.shared).proving();
    pair.client(protocol_header());
    pair.advance(10 * SECOND);
    assert!(pair.client_closed() && pair.session.is_over());
}

#[test]
fn p12_all_the_rest_consumers_gets_and_acks() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    let both_ways = |pair: &mut Pair, client: Frames, upstream: Frames| {
        pair.client(client.clone());
        assert_eq!(pair.to_upstream(), client);
        pair.upstream(upstream.clone());
        assert_eq!(pair.to_client(), upstream);
    };
    both_ways(
        &mut pair,
        consume(1, "q", "c"),
        consume_ok(1, "c") + two("a").deliver(1, "c", 1) + m("a").deliver(1, "c", 2),
    );
    both_ways(&mut pair, ack(1, 1) + nack(1, 2), Frames::none());
    let get = Frames::method(
        1,
        AMQPClass::Basic(basic::AMQPMethod::Get(basic::Get { queue: "q".into(), no_ack: true })),
    );
    let mut got = two("a").deliver(1, "", 3);
    let get_ok = basic::GetOk {
        delivery_tag: 3,
        redelivered: true,
        exchange: "x".into(),
        routing_key: "k".into(),
        message_count: 7,
    };
    got.0[0] = Frames::method(1, AMQPClass::Basic(basic::AMQPMethod::GetOk(get_ok))).0.remove(0);
    both_ways(&mut pair, get, got);
    both_ways(&mut pair, cancel(1, "c"), cancel_ok(1, "c"));
    both_ways(&mut pair, queue_declare(1, "q"), Frames::none());
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p12_all_the_rest_nothing_comes_between_the_frames_of_a_delivery() {
    let desk = Desk::new();
    desk.store("seen");
    let mut pair = desk.confirming();
    let (here, to_come) = cut(two("d").deliver(1, "c", 1), 3);
    pair.upstream(here.clone());
    pair.client(m("seen").publish(1));
    assert_eq!(pair.to_client(), here);
    pair.upstream(to_come.clone());
    assert_eq!(pair.to_client(), to_come + ack(1, 1));
}

#[test]
fn p12_all_the_rest_acks_and_deliveries_keep_their_order() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    publish(&mut pair, &m("b"));
    let said = ack(1, 1)
        + m("d").deliver(1, "c", 1)
        + m("d").deliver(1, "c", 2)
        + ack(1, 2)
        + m("d").deliver(1, "c", 3);
    pair.upstream(said.clone());
    assert_eq!(pair.to_client(), said);
}

#[test]
fn p12_all_the_rest_rpc_by_direct_reply_to() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(consume(1, "amq.rabbitmq.reply-to", "r"));
    pair.upstream(consume_ok(1, "r"));
    pair.to_client();
    pair.to_upstream();
    let properties = amq_protocol::protocol::BasicProperties::default()
        .with_correlation_id("1".into())
        .with_reply_to("amq.rabbitmq.reply-to".into());
    let request = message("", "rpc").properties(properties).body("ping");
    publish(&mut pair, &request);
    publish(&mut pair, &request);
    let reply = message("", "amq.rabbitmq.reply-to.g1").correlation("1").body("pong").deliver(1, "r", 1);
    pair.upstream(reply.clone());
    assert_eq!(pair.to_client(), reply);
}

#[test]
fn p12_all_the_rest_unknown_methods_and_bytes_pass_as_they_are() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    for bytes in [
        &b"\x01\0\x01\0\0\0\x08\0\x3c\x03\xe7\xff\xfe\0\x01\xce"[..],
        b"\x01\0\x01\0\0\0\x04\x27\x0f\0\x01\xce",
        b"\x01\0\0\0\0\0\x06\0\x0a\x03\xe7\xff\0\xce",
        b"\x01\0\x09\0\0\0\x00\xce",
    ] {
        let mut input = bytes::BytesMut::from(bytes);
        let now = pair.now();
        pair.session.handle_client(&mut input, now);
        let mut sent = Vec::new();
        while let Some(hapax_core::session::Output::ToUpstream(more)) = pair.session.poll_output() {
            sent.extend_from_slice(&more);
        }
        assert_eq!(sent, bytes);
        let mut input = bytes::BytesMut::from(bytes);
        pair.session.handle_upstream(&mut input, now);
        let mut sent = Vec::new();
        while let Some(hapax_core::session::Output::ToClient(more)) = pair.session.poll_output() {
            sent.extend_from_slice(&more);
        }
        assert_eq!(sent, bytes);
    }
}

#[test]
fn p12_all_the_rest_server_properties_and_every_mechanism() {
    let desk = Desk::new();
    for (mechanism, challenges) in [("EXTERNAL", 0), ("RABBIT-CR-DEMO", 1), ("SCRAM-WHATEVER", 3)] {
        let mut pair = Pair::new(&desk.shared).proving();
        pair.client(protocol_header());
        pair.upstream(start());
        assert_eq!(pair.to_client(), start());
        let ok = connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: mechanism.into(),
            response: "".into(),
            locale: "en_US".into(),
        };
        let ok = Frames::method(0, AMQPClass::Connection(connection::AMQPMethod::StartOk(ok)));
        pair.client(ok.clone());
        assert_eq!(pair.to_upstream(), protocol_header() + ok);
        for _ in 0..challenges {
            let secure = connection::AMQPMethod::Secure(connection::Secure { challenge: "who?".into() });
            let secure = Frames::method(0, AMQPClass::Connection(secure));
            pair.upstream(secure.clone());
            assert_eq!(pair.to_client(), secure);
            let answer = connection::AMQPMethod::SecureOk(connection::SecureOk { response: "me".into() });
            let answer = Frames::method(0, AMQPClass::Connection(answer));
            pair.client(answer.clone());
            assert_eq!(pair.to_upstream(), answer);
        }
        pair.upstream(tune(2047, 131_072, 60));
        assert_eq!(pair.to_client(), tune(2047, 131_072, 60));
    }
}

#[test]
fn p12_all_the_rest_a_refused_login_is_the_brokers_word() {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared).proving();
    pair.client(protocol_header());
    pair.upstream(start());
    pair.client(start_ok("nobody"));
    pair.to_client();
    let refused = crate::support::methods::connection_close(403, "ACCESS_REFUSED - Login was refused");
    pair.upstream(refused.clone());
    assert_eq!(pair.to_client(), refused);
    let mut pair = Pair::new(&desk.shared).proving();
    pair.client(protocol_header());
    pair.upstream(start());
    pair.client(start_ok("nobody"));
    pair.upstream_eof();
    assert!(pair.client_closed(), "or its silence");
}

#[test]
fn p12_all_the_rest_update_secret_passes_and_does_not_change_the_user() {
    let desk = Desk::unproven(|_| ());
    desk.store("a");
    let mut pair = desk.confirming();
    let update = connection::UpdateSecret { new_secret: "\0guest\0guest".into(), reason: "expires".into() };
    let update = Frames::method(0, AMQPClass::Connection(connection::AMQPMethod::UpdateSecret(update)));
    pair.client(update.clone());
    assert_eq!(pair.to_upstream(), update);
    let ok = Frames::method(
        0,
        AMQPClass::Connection(connection::AMQPMethod::UpdateSecretOk(connection::UpdateSecretOk {})),
    );
    pair.upstream(ok.clone());
    assert_eq!(pair.to_client(), ok);

    let mut thief = desk.user("thief");
    super::desk::confirm(&mut thief, 1);
    thief.client(update);
    thief.to_upstream();
    pair.client(m("a").publish(1));
    prove(&mut pair, &[("x", "k")]);
    thief.client(m("a").publish(1));
    assert_eq!(thief.to_client(), Frames::none(), "rights are not taken over with a secret alone");
    assert_eq!(thief.to_upstream(), asks(&[("x", "k")]));
}

#[test]
fn p12_all_the_rest_channels_come_and_go() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    for _ in 0..3 {
        pair.open(2);
        pair.client(crate::support::methods::channel_close(2, 200, ""));
        pair.upstream(crate::support::methods::channel_close_ok(2));
        pair.to_client();
        pair.to_upstream();
    }
    pair.client(channel_open(1));
    assert_eq!(pair.to_upstream(), channel_open(1), "twice: the broker says 504");
    pair.upstream(channel_open_ok(3));
    assert_eq!(pair.to_client(), channel_open_ok(3));
}

#[test]
fn p11_liveness_bytes_held_are_bounded_for_all_channels_together() {
    let desk = Desk::with(|plan| plan.settings.held_bytes = 3000);
    let mut first = desk.confirming();
    publish(&mut first, &m("a"));
    publish(&mut first, &m("b"));
    let mut pair = desk.confirming();
    pair.open(2);
    super::desk::confirm(&mut pair, 2);
    let large = |id: &str| m(id).body(vec![b'x'; 2000]);
    unheard(&mut pair, large("a").publish(1));
    pair.client(large("b").publish(2));
    assert_eq!(pair.to_client(), nack(2, 1), "the first channel has taken the room");
}
