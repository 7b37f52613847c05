//! Point 2 in depth: promotion, timeouts, crowds; and what windows can be told to do: body as id, missing_id, observe.

use super::desk::{Desk, SECOND, confirm, cut, m, publish, two, unheard};
use crate::support::frames::{Frames, body, message};
use crate::support::methods::{
    ack, ack_multiple, channel_close, channel_close_ok, confirm_select_nowait, connection_close, nack,
    queue_declare, tx_commit, tx_select, tx_select_ok,
};
use crate::support::pair::Pair;
use hapax_core::window::{Event, MissingId, Mode};
use hapax_core::wire::IdSource;

/// Another connection has `id` in flight; its next answer decides.
fn holder(desk: &Desk, id: &str) -> Pair {
    let mut pair = desk.confirming();
    publish(&mut pair, &m(id));
    pair
}

fn publishes(said: &Frames) -> usize {
    format!("{said:?}").matches("basic.publish").count()
}

fn tx(desk: &Desk) -> Pair {
    let mut pair = desk.pair();
    pair.client(tx_select(1));
    pair.upstream(tx_select_ok(1));
    assert_eq!(pair.to_client(), tx_select_ok(1));
    assert_eq!(pair.to_upstream(), tx_select(1));
    pair
}

#[test]
fn p02_in_flight_promoted_with_its_body_on_the_way() {
    let desk = Desk::new();
    let mut first = holder(&desk, "a");
    let mut pair = desk.confirming();
    let (here, to_come) = cut(two("a").publish(1), 3);
    unheard(&mut pair, here.clone());
    first.upstream(nack(1, 1));
    assert_eq!(pair.to_upstream(), here);
    pair.client(to_come.clone());
    assert_eq!(pair.to_upstream(), to_come);
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
}

#[test]
fn p02_in_flight_promoted_amid_another_content() {
    let desk = Desk::new();
    let mut first = holder(&desk, "a");
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    let (here, to_come) = cut(two("b").publish(1), 3);
    pair.client(here.clone());
    assert_eq!(pair.to_upstream(), here);
    first.upstream(nack(1, 1));
    assert_eq!(pair.to_upstream(), Frames::none(), "contents do not interleave");
    pair.client(to_come.clone());
    assert_eq!(pair.to_upstream(), to_come + m("a").publish(1));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 2), "upstream's first is the client's second");
    pair.upstream(ack(1, 2));
    assert_eq!(pair.to_client(), ack(1, 1));
}

#[test]
fn p02_in_flight_promoted_between_method_and_header_of_another() {
    let desk = Desk::new();
    let mut first = holder(&desk, "a");
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    let (method, rest) = cut(m("b").publish(1), 1);
    unheard(&mut pair, method);
    first.upstream(nack(1, 1));
    assert_eq!(pair.to_upstream(), m("a").publish(1));
    pair.client(rest);
    assert_eq!(pair.to_upstream(), m("b").publish(1));
}

#[test]
fn p02_in_flight_too_long_with_confirms_is_nacked() {
    let desk = Desk::new();
    let mut first = holder(&desk, "a");
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    pair.advance(29 * SECOND);
    assert_eq!(pair.to_client(), Frames::none());
    pair.advance(SECOND);
    assert_eq!(pair.to_client(), nack(1, 1));
    assert_eq!(desk.count(Event::Refused), 1);
    first.upstream(nack(1, 1));
    assert_eq!(pair.to_upstream(), Frames::none());
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p02_in_flight_too_long_without_confirms_is_forwarded() {
    let desk = Desk::new();
    let first = holder(&desk, "a");
    let mut pair = desk.pair();
    unheard(&mut pair, m("a").publish(1));
    pair.advance(30 * SECOND);
    assert_eq!(
        pair.to_upstream(),
        confirm_select_nowait(1) + m("a").publish(1),
        "a duplicate, perhaps; no loss"
    );
    pair.upstream(ack(1, 1));
    assert_eq!(desk.in_flight(), 1, "the first one's outcome is its own");
    drop(first);
}

#[test]
fn p02_in_flight_too_long_in_a_transaction_is_406() {
    let desk = Desk::new();
    let _first = holder(&desk, "a");
    let mut pair = tx(&desk);
    pair.client(m("b").publish(1));
    assert_eq!(pair.to_upstream(), m("b").publish(1));
    unheard(&mut pair, m("a").publish(1) + tx_commit(1));
    pair.advance(30 * SECOND);
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("channel.close 406"), "{said}");
    let said = format!("{:?}", pair.to_upstream());
    assert!(said.contains("channel.close 200") && !said.contains("ommit"), "{said}");
    assert_eq!(desk.in_flight(), 1, "b is forgotten, a is another's");
}

#[test]
fn p02_in_flight_crowd_with_confirms_is_nacked() {
    let desk = Desk::with(|plan| plan.limits.waiters_per_id = 0);
    let mut first = holder(&desk, "a");
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_client(), nack(1, 1));
    first.upstream(ack(1, 1));
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_client(), ack(1, 2));
}

#[test]
fn p02_in_flight_crowd_without_confirms_holds_its_channel() {
    let desk = Desk::with(|plan| plan.limits.waiters_per_id = 0);
    let mut first = holder(&desk, "a");
    let mut pair = desk.pair();
    pair.open(2);
    unheard(&mut pair, m("a").publish(1) + queue_declare(1, "q"));
    pair.client(queue_declare(2, "q"));
    assert_eq!(pair.to_upstream(), queue_declare(2, "q"), "other channels go on");
    first.upstream(ack(1, 1));
    pair.advance(SECOND);
    assert_eq!(pair.to_upstream(), queue_declare(1, "q"));
    assert_eq!(pair.session.held_bytes(), 0);
}

#[test]
fn p02_in_flight_crowd_without_confirms_goes_on_after_the_timeout() {
    let desk = Desk::with(|plan| plan.limits.waiters_per_id = 0);
    let _first = holder(&desk, "a");
    let mut pair = desk.pair();
    unheard(&mut pair, m("a").publish(1) + queue_declare(1, "q"));
    pair.advance(30 * SECOND);
    assert_eq!(pair.to_upstream(), confirm_select_nowait(1) + m("a").publish(1) + queue_declare(1, "q"));
}

#[test]
fn p02_in_flight_crowd_of_a_body_that_never_ends_is_counted_right() {
    let desk = Desk::with(|plan| plan.limits.waiters_per_id = 0);
    let _first = holder(&desk, "a");
    let mut pair = desk.pair();
    let (method, _) = cut(m("a").publish(1), 1);
    let mut header = m("a").publish(1).0.remove(1).encode();
    header[11..19].copy_from_slice(&u64::MAX.to_be_bytes());
    pair.client(method);
    pair.client_bytes(&header);
    unheard(&mut pair, body(1, b"abc"));
    assert!(pair.session.held_bytes() < 200);
    pair.client_eof();
    pair.advance(60 * SECOND);
    assert!(pair.session.is_over());
}

#[test]
fn p02_in_flight_of_a_client_that_left_amid_a_content_waits_for_nobody() {
    let desk = Desk::new();
    let mut first = holder(&desk, "a");
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    pair.client(cut(two("b").publish(1), 3).0);
    pair.client_eof();
    pair.leave_upstream();
    assert!(pair.session.is_over(), "nothing can follow half a content");
    first.upstream(nack(1, 1));
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p02_in_flight_on_a_channel_that_hapax_has_closed() {
    let desk = Desk::with(|plan| plan.rules.missing_id = MissingId::Reject);
    let mut first = holder(&desk, "a");
    let mut second = holder(&desk, "b");
    let mut pair = desk.pair();
    unheard(&mut pair, m("a").publish(1) + m("b").publish(1));
    pair.client(message("x", "k").publish(1));
    assert_eq!(pair.to_client().len(), 1, "406");
    first.upstream(nack(1, 1));
    assert_eq!(
        pair.to_upstream(),
        confirm_select_nowait(1) + m("a").publish(1),
        "nobody would send it again"
    );
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_upstream(), Frames::none());
    pair.advance(10 * SECOND);
    let said = pair.to_upstream();
    assert_eq!(publishes(&said), 1, "and the other one with the close, after the linger: {said:?}");
    second.upstream(nack(1, 1));
    assert_eq!(pair.to_upstream(), Frames::none(), "and nothing behind it");
    assert_eq!(desk.in_flight(), 0);
}

/// Its client is told of nothing, so nobody would send it again. (The one that it waits for may be stored after all: then both are.)
#[test]
fn p02_in_flight_no_message_without_confirms_is_lost_when_the_linger_is_over() {
    let ends: [fn(&mut Pair); 8] = [
        |pair| pair.client(connection_close(200, "bye")),
        Pair::client_eof,
        |pair| {
            let now = pair.now();
            pair.session.handle_drain(now);
            pair.pump();
        },
        |pair| pair.client(channel_close(1, 200, "bye")),
        |pair| {
            pair.client(channel_close(1, 200, "bye"));
            pair.client_eof();
        },
        // It breaks the rules amid another content, which the broker has nothing of.
        |pair| pair.client(cut(two("a").publish(1), 3).0 + channel_close(1, 200, "bye")),
        |pair| pair.client(cut(two("a").publish(1), 3).0 + body(1, &[0; 99])),
        // It waits for a fresh channel, which needs all outcomes.
        |pair| {
            pair.client(tx_select(1));
            pair.client_eof();
        },
    ];
    for (end, ends) in ends.into_iter().enumerate() {
        for (mode, forwarded) in [("none", 2), ("later", 2), ("confirm", 0), ("tx", 0)] {
            let desk = Desk::new();
            let _holders = ["a", "b"].map(|id| holder(&desk, id));
            let mut pair = match mode {
                "confirm" => desk.confirming(),
                "tx" => tx(&desk),
                _ => desk.pair(),
            };
            unheard(&mut pair, m("a").publish(1) + two("b").publish(1));
            if mode == "later" {
                confirm(&mut pair, 1);
            }
            ends(&mut pair);
            pair.to_upstream();
            pair.advance(9 * SECOND);
            assert_eq!(publishes(&pair.to_upstream()), 0, "{mode}, end {end}: they wait as long as they may");
            pair.advance(30 * SECOND);
            let said = pair.to_upstream();
            assert_eq!(publishes(&said), forwarded, "{mode}, end {end}: {said:?}");
            drop(pair);
            assert_eq!(desk.in_flight(), 2, "{mode}, end {end}");
        }
    }
}

#[test]
fn what_follows_a_tx_select_that_waits_belongs_to_the_transaction() {
    let desk = Desk::new();
    let mut first = holder(&desk, "a");
    let mut pair = desk.pair();
    unheard(&mut pair, m("a").publish(1));
    unheard(&mut pair, tx_select(1));
    unheard(&mut pair, m("b").publish(1) + m("c").publish(1));
    first.upstream(ack(1, 1));
    pair.advance(SECOND);
    assert_eq!(pair.to_upstream(), tx_select(1) + m("b").publish(1) + m("c").publish(1));
}

#[test]
fn body_as_id() {
    let desk = Desk::with(|plan| plan.rules.id = IdSource::Body);
    let mut pair = desk.confirming();
    let one = message("x", "k").body("abcdef").frame_size(11);
    let (here, to_come) = cut(one.publish(1), 3);
    unheard(&mut pair, here);
    assert!(pair.session.held_bytes() > 0);
    pair.client(to_come);
    assert_eq!(pair.to_upstream(), one.publish(1), "frames as they were");
    assert_eq!(pair.session.held_bytes(), 0);
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    let same = message("x", "k").id("another").body("abcdef");
    pair.client(same.publish(1));
    assert_eq!(pair.to_client(), ack(1, 2), "in one frame or in two");
    let other = message("x", "k").body("abcdeg");
    pair.client(other.publish(1));
    assert_eq!(pair.to_upstream(), other.publish(1));
    let empty = message("x", "k");
    pair.client(empty.publish(1));
    assert_eq!(pair.to_upstream(), empty.publish(1));
    assert_eq!(desk.count(Event::NoId), 1);
}

#[test]
fn body_as_id_that_is_too_large_to_hold_is_forwarded() {
    let desk = Desk::with(|plan| {
        plan.rules.id = IdSource::Body;
        plan.settings.held_bytes = 100;
    });
    let mut pair = desk.confirming();
    let large = message("x", "k").body([b'x'; 200]);
    pair.client(large.publish(1) + large.publish(1));
    assert_eq!(pair.to_upstream(), large.publish(1) + large.publish(1));
    assert_eq!(desk.count(Event::NoId), 2);
}

#[test]
fn body_as_id_in_empty_frames_takes_no_memory() {
    let desk = Desk::with(|plan| plan.rules.id = IdSource::Body);
    let mut pair = desk.confirming();
    let (here, to_come) = cut(two("a").publish(1), 3);
    unheard(&mut pair, here.clone());
    let held = pair.session.held_bytes();
    (0..100).for_each(|_| unheard(&mut pair, body(1, b"")));
    assert_eq!(pair.session.held_bytes(), held);
    pair.client(to_come);
    assert_eq!(pair.to_upstream(), two("a").publish(1));
}

#[test]
fn missing_id_rejected_is_406() {
    let desk = Desk::with(|plan| plan.rules.missing_id = MissingId::Reject);
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    pair.client(message("x", "k").body("no id").publish(1) + m("b").publish(1));
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("channel.close 406") && said.contains("window 'test'"), "{said}");
    assert_eq!(pair.to_upstream(), Frames::none(), "not before a is settled");
    pair.client(channel_close_ok(1));
    pair.upstream(ack(1, 1));
    assert!(desk.is_seen("a"));
    assert_eq!(pair.to_client(), Frames::none());
    let close = channel_close(1, 200, "the client's channel was closed by hapax");
    assert_eq!(pair.to_upstream(), close);
    pair.upstream(channel_close_ok(1));
    pair.open(1);
}

#[test]
fn observed_duplicates_are_counted_and_forwarded() {
    let desk = Desk::with(|plan| plan.limits.mode = Mode::Observe);
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    publish(&mut pair, &m("a"));
    pair.upstream(ack_multiple(1, 2));
    assert_eq!(pair.to_client(), ack_multiple(1, 2));
    publish(&mut pair, &m("a"));
    pair.upstream(nack(1, 3));
    assert_eq!(pair.to_client(), nack(1, 3));
    assert!(desk.is_seen("a"));
    let duplicates = desk.count_like(|event| matches!(event, Event::Duplicate { .. }));
    assert_eq!((desk.count(Event::InFlight), duplicates), (1, 1));
}

#[test]
fn off_judges_nothing() {
    let desk = Desk::with(|plan| plan.limits.mode = Mode::Off);
    let mut pair = desk.pair();
    publish(&mut pair, &m("a"));
    publish(&mut pair, &m("a"));
    assert_eq!(desk.in_flight(), 0);
}

/// A publish without confirms waits. Then its client selects confirms, and Hapax closes the channel. The publish has no tag, so its
/// client would not hear that it was dropped: it goes on waiting. One with a tag does not.
#[test]
fn p07_no_confirms_what_came_before_the_confirms_outlives_a_refusal() {
    let desk = Desk::new();
    let (mut first, mut second) = (holder(&desk, "a"), holder(&desk, "b"));
    let mut pair = desk.pair();
    unheard(&mut pair, m("a").publish(1));
    pair.to_upstream();
    confirm(&mut pair, 1);
    unheard(&mut pair, m("b").publish(1));
    let now = pair.now();
    pair.session.handle_memory_pressure(0, now);
    pair.pump();
    assert!(format!("{:?}", pair.to_client()).contains("channel.close"));
    assert_eq!(pair.to_upstream(), Frames::none(), "one waits");
    second.upstream(nack(1, 1));
    pair.pump();
    assert_eq!(pair.to_upstream(), Frames::none(), "its client publishes it again");
    first.upstream(nack(1, 1));
    pair.pump();
    assert_eq!(pair.to_upstream(), m("a").publish(1));
}
