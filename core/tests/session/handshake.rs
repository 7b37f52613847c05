//! The handshake in all its orders: a client may send everything at once, and a login may be large.

use super::desk::Desk;
use crate::support::frames::{Frames, protocol_header};
use crate::support::methods::{connection_open, connection_open_ok, start, start_ok_with, tune, tune_ok};
use crate::support::pair::Pair;
use std::cmp::Ordering;
use std::ops::Add;

/// Returns what the broker gets after its `tune`, if it offers `offer` channels and the client wants `wanted`. The client waits for its
/// turn with the first `apart` messages, and sends the rest at once.
fn passed_on(offer: u16, wanted: u16, apart: usize) -> Frames {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared);
    let login = start_ok_with("PLAIN", "\0bob\0bob", &[]);
    let says = [protocol_header(), login.clone(), tune_ok(wanted, 8192, 0), connection_open("/")];
    let say = |pair: &mut Pair, turn: usize| match turn.cmp(&apart) {
        Ordering::Less => pair.client(says[turn].clone()),
        Ordering::Equal => pair.client(says[turn..].iter().cloned().fold(Frames::none(), Add::add)),
        Ordering::Greater => {}
    };
    say(&mut pair, 0);
    assert_eq!(pair.to_upstream(), protocol_header());
    pair.upstream(start());
    say(&mut pair, 1);
    assert_eq!(pair.to_upstream(), login, "the broker has not offered anything yet");
    pair.upstream(tune(offer, 8192, 0));
    say(&mut pair, 2);
    say(&mut pair, 3);
    let passed = pair.to_upstream();
    pair.upstream(connection_open_ok());
    assert!(pair.session.vhost().is_some());
    passed
}

#[test]
fn one_channel_more_is_asked_for_only_within_the_brokers_offer() {
    for (offer, wanted, asked) in [
        (2047, 2047, 2047),
        (2047, 2046, 2047),
        (2047, 100, 101),
        (2047, 1, 2),
        (2047, 0, 0),
        (2047, 2048, 2048),
        (2047, 65_535, 65_535),
        (0, 2047, 2048),
        (0, 65_535, 65_535),
        (0, 0, 0),
        (1, 1, 1),
        (65_535, 65_535, 65_535),
    ] {
        for apart in 0..4 {
            let expected = tune_ok(asked, 8192, 0) + connection_open("/");
            assert_eq!(passed_on(offer, wanted, apart), expected, "{offer} {wanted}, {apart} messages apart");
        }
    }
}

/// A `start-ok` whose client-properties have a key that is no UTF-8. RabbitMQ reads it; the protocol library does not.
fn odd_login() -> Vec<u8> {
    let (table, response) = (b"\x01\xfft\x01", b"\0bob\0bob");
    let mut payload = vec![0, 10, 0, 11, 0, 0, 0, 4];
    payload.extend(table);
    payload.extend(b"\x05PLAIN\0\0\0\x08");
    payload.extend(response);
    payload.extend(b"\x05en_US");
    let mut frame = vec![1, 0, 0, 0, 0, 0, u8::try_from(payload.len()).unwrap()];
    frame.extend(payload);
    frame.push(0xce);
    frame
}

#[test]
fn a_login_that_only_the_broker_can_read_still_waits_for_its_answer() {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared);
    let rest = tune_ok(2047, 8192, 0) + connection_open("/");
    pair.client_bytes(&[protocol_header().encode(), odd_login(), rest.encode()].concat());
    pair.upstream(start());
    assert_eq!(pair.to_upstream_bytes(), [protocol_header().encode(), odd_login()].concat());
    pair.upstream(tune(2047, 8192, 0));
    assert_eq!(pair.to_upstream(), rest, "no channel more than the broker has offered");
    pair.upstream(connection_open_ok());
    assert!(pair.session.vhost().is_some());
}

/// A login in a frame of this many bytes.
fn login_of(frame: usize) -> Frames {
    let empty = start_ok_with("PLAIN", "", &[]).encode().len();
    start_ok_with("PLAIN", &"t".repeat(frame - empty), &[])
}

#[test]
fn a_login_may_be_as_large_as_initial_frame_max() {
    for (initial, length, passes) in [
        (8192, 8192, true),
        (8192, 9 << 10, false),
        (16 << 10, 9 << 10, true),
        (16 << 10, 16 << 10, true),
        (16 << 10, 17 << 10, false),
    ] {
        let desk = Desk::with(|plan| plan.settings.initial_frame_max = initial);
        let mut pair = Pair::new(&desk.shared);
        pair.client(protocol_header());
        pair.upstream(start());
        pair.to_upstream();
        let before = pair.session.memory();
        assert_eq!(before.frame, initial as usize + 8, "as much as a stranger can make Hapax hold");
        pair.client(login_of(length));
        let sent = pair.to_upstream();
        assert_eq!(sent == login_of(length), passes, "{initial} {length}");
        if passes {
            let more = pair.session.memory().held - before.held;
            assert!((length - 100..=2 * length).contains(&more), "a login of {length} is counted as {more}");
            pair.upstream(tune(100, 8192, 0));
            pair.client(tune_ok(100, 8192, 0));
            assert_eq!(pair.session.memory().frame, 8200, "what was agreed on counts from here");
        } else {
            assert_eq!(sent, Frames::none());
        }
    }
}
