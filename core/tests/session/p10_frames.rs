//! Point 10, frames.

use super::desk::{Desk, confirm, cut, m, publish, two};
use crate::support::frames::{FRAME_MAX, Frames, body, message, protocol_header};
use crate::support::methods::{
    ack, ack_multiple, channel_close, channel_open, channel_open_ok, confirm_select, connection_close_ok,
    connection_open, connection_open_ok, queue_declare, start, start_ok, tune, tune_ok,
};
use crate::support::pair::Pair;

#[test]
fn p10_frames_in_any_split() {
    let all = channel_open(1)
        + confirm_select(1)
        + two("a").publish(1)
        + two("seen").publish(1)
        + message("x", "k").publish(1)
        + queue_declare(1, "q")
        + two("b").publish(1);
    let passed = channel_open(1)
        + confirm_select(1)
        + two("a").publish(1)
        + message("x", "k").publish(1)
        + queue_declare(1, "q")
        + two("b").publish(1);
    for size in [1, 2, 3, 7, 8, 9, 50, 1000] {
        let desk = Desk::new();
        desk.store("seen");
        let mut pair = Pair::new(&desk.shared).proving();
        pair.handshake("guest", "/");
        pair.client_in_pieces(&all, size);
        assert_eq!(pair.to_upstream(), passed, "in pieces of {size}");
        let answers =
            (channel_open_ok(1) + crate::support::methods::confirm_select_ok(1) + ack_multiple(1, 3))
                .encode();
        answers.chunks(size).for_each(|piece| pair.upstream_bytes(piece));
        let said = pair.to_client();
        assert_eq!(said.0.first(), channel_open_ok(1).0.first());
        assert_eq!(pair.session.unresolved(), 0, "in pieces of {size}: {said:?}");
    }
}

#[test]
fn p10_frames_handshake_in_single_octets() {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared).proving();
    pair.client_in_pieces(&protocol_header(), 1);
    assert_eq!(pair.to_upstream(), protocol_header());
    start().encode().chunks(1).for_each(|piece| pair.upstream_bytes(piece));
    assert_eq!(pair.to_client(), start());
    pair.client_in_pieces(&start_ok("guest"), 1);
    assert_eq!(pair.to_upstream(), start_ok("guest"));
}

#[test]
fn p10_frames_zero_length_bodies() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    let empty = message("x", "k").id("a");
    publish(&mut pair, &empty);
    pair.upstream(ack(1, 1));
    pair.client(empty.publish(1) + m("b").publish(1));
    assert_eq!(pair.to_upstream(), m("b").publish(1));
    assert_eq!(pair.to_client(), ack(1, 1) + ack(1, 2));
    let (head, rest) = cut(two("c").publish(1), 2);
    let with_an_empty_frame = head + body(1, b"") + rest;
    pair.client(with_an_empty_frame.clone() + with_an_empty_frame.clone());
    assert_eq!(pair.to_upstream(), with_an_empty_frame);
    pair.upstream(ack(1, 2) + ack(1, 3));
    assert_eq!(pair.to_client(), ack_multiple(1, 5));
}

#[test]
fn p10_frames_of_interleaved_channels() {
    let desk = Desk::new();
    desk.store("seen");
    let mut pair = desk.confirming();
    pair.open(2);
    confirm(&mut pair, 2);
    pair.open(3);
    confirm(&mut pair, 3);
    let (fresh, other, seen) = (two("a").publish(1), two("b").publish(2), two("seen").publish(3));
    let mixed = |lists: &[&Frames]| {
        Frames((0..4).flat_map(|at| lists.iter().map(move |list| list.0[at].clone())).collect())
    };
    pair.client(mixed(&[&fresh, &other, &seen]));
    let sent = pair.to_upstream();
    assert_eq!((sent.on(1), sent.on(2), sent.on(3)), (fresh, other, Frames::none()));
    assert_eq!(pair.to_client(), ack(3, 1));
}

#[test]
fn p10_frames_of_another_channel_do_not_make_a_content_whole() {
    let desk = Desk::new();
    desk.store("seen");
    let mut pair = desk.confirming();
    pair.open(2);
    confirm(&mut pair, 2);
    let of = |id, channel| m(id).body("as long as the other").publish(channel).0;
    let [publish, header, body] = of("a", 1).try_into().unwrap();
    let [other, its_header, its_body] = of("seen", 2).try_into().unwrap();
    pair.client(Frames(vec![other, its_header, publish, header, its_body, body]));
    assert_eq!(pair.to_upstream(), Frames(of("a", 1)));
    assert_eq!(pair.to_client(), ack(2, 1));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    let deliveries = |channel| m("d").body("as long as the other").deliver(channel, "c", 1).0;
    let ([deliver, header, body], [other, its_header, its_body]) =
        (deliveries(1).try_into().unwrap(), deliveries(2).try_into().unwrap());
    let mixed = Frames(vec![deliver, header, other, its_header, its_body, body]);
    pair.upstream(mixed.clone());
    assert_eq!(pair.to_client(), mixed);
}

fn tuned(offer: u32, reply: u32) -> (Pair, Frames, Frames) {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared).proving();
    pair.client(protocol_header());
    pair.upstream(start());
    pair.client(start_ok("guest"));
    pair.to_upstream();
    pair.to_client();
    pair.upstream(tune(2047, offer, 0));
    let offered = pair.to_client();
    pair.client(tune_ok(2047, reply, 0));
    let replied = pair.to_upstream();
    pair.client(connection_open("/"));
    pair.upstream(connection_open_ok());
    pair.to_upstream();
    pair.to_client();
    pair.open(1);
    (pair, offered, replied)
}

#[test]
fn p10_frames_the_largest_is_the_minimum_of_both_sides() {
    let common = u32::try_from(FRAME_MAX).unwrap();
    for (offer, offered, reply, replied) in [
        (common, common, common, common),
        (common, common, 16_384, 16_384),
        (16_384, 16_384, 0, 0),
        (1 << 20, common, common, common),
        (1 << 20, common, 0, common),
        (1 << 20, common, 1 << 20, common),
        (0, common, 0, common),
        (0, common, 50_000, 50_000),
    ] {
        let (_, to_client, to_upstream) = tuned(offer, reply);
        assert_eq!(to_client, tune(2047, offered, 0), "the broker offers {offer}");
        assert_eq!(
            to_upstream,
            tune_ok(2047, replied, 0),
            "the broker offers {offer}, the client says {reply}"
        );
    }
}

#[test]
fn p10_frames_that_are_larger_are_501() {
    let (mut pair, ..) = tuned(131_072, 16_384);
    let fits = message("x", "k").id("a").body(vec![b'x'; 16_376]);
    publish(&mut pair, &message("x", "k"));
    pair.client(fits.publish(1));
    assert_eq!(pair.to_upstream().len(), 4);
    pair.client(message("x", "k").body(vec![b'x'; 16_385]).publish(1));
    assert!(format!("{:?}", pair.to_client()).contains("connection.close 501 \"FRAME_ERROR"));
}

#[test]
fn p10_frames_of_8192_octets_are_accepted_before_tune() {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared).proving();
    pair.client(protocol_header());
    pair.upstream(start());
    pair.to_client();
    pair.to_upstream();
    let base = start_ok("").encode().len();
    let large = start_ok(&"u".repeat((8192 - base) / 2));
    pair.client(large.clone());
    assert_eq!(pair.to_upstream(), large);

    let mut pair = Pair::new(&desk.shared).proving();
    pair.client(protocol_header());
    pair.upstream(start());
    pair.to_client();
    pair.client(start_ok(&"u".repeat(4200)));
    assert!(format!("{:?}", pair.to_client()).contains("connection.close 501"));
}

#[test]
fn p10_frames_out_of_place_are_505() {
    let desk = Desk::new();
    desk.store("seen");
    // Hapax forwards faults that the broker also detects, and the broker reports them.
    let mut pair = desk.confirming();
    pair.client(body(1, b"out of place"));
    assert_eq!(pair.to_upstream(), body(1, b"out of place"));
    let mut pair = desk.confirming();
    let (publish, _) = cut(m("a").publish(1), 1);
    pair.client(publish.clone() + body(1, b"no header"));
    assert_eq!(pair.to_upstream(), publish + body(1, b"no header"));

    // Where it does not, we do.
    let (head, _) = cut(m("seen").publish(1), 2);
    for wrong in [queue_declare(1, "q"), cut(m("b").publish(1), 2).0, body(1, b"longer than announced")] {
        let mut pair = desk.confirming();
        pair.client(head.clone() + wrong);
        let said = format!("{:?}", pair.to_client());
        assert!(said.contains("connection.close 505 \"UNEXPECTED_FRAME - expected content body"), "{said}");
        assert!(!said.contains("ack"), "{said}");
        pair.leave_upstream();
        pair.client(m("c").publish(1));
        assert_eq!(pair.to_upstream(), Frames::none());
        pair.client(connection_close_ok());
        assert!(pair.session.is_over());
    }
}

#[test]
fn p10_frames_with_a_wrong_end_are_501() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    let mut bytes = m("b").publish(1).encode();
    *bytes.last_mut().unwrap() = 0;
    pair.client_bytes(&bytes);
    assert!(format!("{:?}", pair.to_client()).contains("connection.close 501"));
    pair.upstream(ack(1, 1));
    assert!(desk.is_seen("a"), "what was right before is settled");
    pair.leave_upstream();
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p10_frames_of_something_else_are_answered_with_our_version() {
    let desk = Desk::new();
    for hello in [&b"AMQP\x00\x01\x00\x00"[..], b"GET / HTTP/1.1\r\n\r\n", b"AMQP\x01\x01\x08\x00"] {
        let mut pair = Pair::new(&desk.shared).proving();
        pair.client_bytes(hello);
        assert_eq!(pair.to_client(), protocol_header());
        assert!(pair.client_closed() && pair.session.is_over());
    }
}

#[test]
fn p10_frames_that_never_come_poison_nothing_else() {
    let desk = Desk::new();
    let (mut dying, mut other) = (desk.confirming(), desk.confirming());
    let (head, _) = cut(two("a").publish(1), 3);
    dying.client(head.clone());
    assert_eq!(dying.to_upstream(), head);
    other.client(m("a").publish(1));
    assert_eq!(other.to_upstream(), Frames::none());
    dying.client_eof();
    assert_eq!(other.to_upstream(), m("a").publish(1), "the other takes its place at once");
    dying.leave_upstream();
    assert!(dying.session.is_over(), "its own upstream connection");
    other.upstream(ack(1, 1));
    assert_eq!(other.to_client(), ack(1, 1));
}

#[test]
fn p10_frames_on_a_channel_that_is_not_open_are_the_brokers_to_refuse() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(7) + channel_close(9, 200, ""));
    assert_eq!(pair.to_upstream(), m("a").publish(7) + channel_close(9, 200, ""));
    assert_eq!(desk.in_flight(), 0);
}
