//! Point 17: all that is held for a client is counted, and what only the client could end is given up when there is too little.

use super::desk::{Desk, SECOND, cut, m, publish, unheard};
use crate::support::frames::{Frames, message};
use crate::support::methods::{
    ack, ack_multiple, channel_close, channel_close_ok, channel_open, consume, tx_commit, tx_commit_ok,
    tx_select, tx_select_ok,
};
use crate::support::pair::Pair;
use hapax_core::wire::IdSource;

const ROOM: usize = 20_000;

fn pressed(pair: &mut Pair) -> String {
    let now = pair.now();
    pair.session.handle_memory_pressure(ROOM, now);
    format!("{:?}", pair.to_client())
}

fn many(pair: &mut Pair, count: usize) {
    for n in 0..count {
        pair.client(m(&n.to_string()).publish(1));
    }
    assert_eq!(pair.to_upstream().len(), 3 * count);
}

#[test]
fn p17_memory_is_counted_and_given_back() {
    let desk = Desk::new();
    let mut first = desk.confirming();
    publish(&mut first, &m("held"));
    let mut pair = desk.confirming();
    let idle = pair.session.memory();
    let mut last = idle.held;
    let mut grows = |pair: &Pair, by: usize, what: &str| {
        let held = pair.session.memory().held;
        assert!(held >= last + by, "{what}: {last}, then {held}");
        last = held;
    };
    many(&mut pair, 100);
    grows(&pair, 100 * 64, "entries of the ledger");
    unheard(&mut pair, message("x", "k").id("held").body("b".repeat(5000)).publish(1));
    grows(&pair, 5000, "a publish that waits");
    pair.client(channel_open(2) + channel_open(3));
    grows(&pair, 2 * 256, "channels");
    pair.client(consume(2, "q", "tag"));
    grows(&pair, 64, "consumers");
    pair.upstream(ack_multiple(1, 100));
    first.upstream(ack(1, 1));
    pair.pump();
    pair.client(channel_close(2, 200, "") + channel_close(3, 200, ""));
    pair.upstream(channel_close_ok(2) + channel_close_ok(3));
    let after = pair.session.memory();
    assert_eq!(after.stuck, idle.stuck);
    // (It has learned of rights and windows meanwhile.)
    assert!(after.held < idle.held + 2048, "{idle:?} then {after:?}");
}

#[test]
fn p17_an_open_transaction_that_is_too_much_is_refused() {
    let desk = Desk::new();
    let mut pair = desk.in_tx();
    many(&mut pair, 200);
    assert!(pair.session.memory().stuck > ROOM);
    let said = pressed(&mut pair);
    assert!(said.contains("channel.close 506"), "{said}");
    assert!(pair.session.memory().stuck <= ROOM);
    assert_eq!(desk.in_flight(), 0, "nothing of it is stored");
    assert!(!pair.client_closed(), "another channel may go on");
}

#[test]
fn p17_of_several_transactions_the_largest_is_refused() {
    let desk = Desk::new();
    let mut pair = desk.in_tx();
    pair.open(2);
    pair.client(tx_select(2));
    pair.upstream(tx_select_ok(2));
    pair.to_client();
    pair.to_upstream();
    pair.client(m("small").publish(2));
    pair.to_upstream();
    many(&mut pair, 200);
    let said = pressed(&mut pair);
    assert_eq!(said.matches("close 506").count(), 1, "{said}");
    pair.to_upstream();
    pair.client(tx_commit(2));
    assert_eq!(pair.to_upstream(), tx_commit(2));
    pair.upstream(tx_commit_ok(2));
    assert!(desk.is_seen("small"));
}

#[test]
fn p17_a_transaction_amid_a_content_ends_the_connection() {
    let desk = Desk::new();
    let mut pair = desk.in_tx();
    many(&mut pair, 200);
    let (here, _) = cut(message("x", "k").id("last").body("abcdef").publish(1), 2);
    pair.client(here);
    let said = pressed(&mut pair);
    assert!(said.contains("connection.close 506"), "{said}");
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p17_a_body_that_is_its_own_id_is_given_up() {
    let desk = Desk::with(|plan| plan.rules.id = IdSource::Body);
    let mut pair = desk.confirming();
    let (here, rest) = cut(message("x", "k").body("b".repeat(ROOM + 1)).frame_size(4096).publish(1), 3);
    unheard(&mut pair, here);
    let said = pressed(&mut pair);
    assert!(said.contains("channel.close 506"), "{said}");
    assert_eq!(pair.session.held_bytes(), 0);
    pair.to_upstream();
    unheard(&mut pair, rest);
}

#[test]
fn p17_too_many_channels_end_the_connection() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    (2..200).for_each(|channel| pair.client(channel_open(channel)));
    let said = pressed(&mut pair);
    assert!(said.contains("connection.close 506"), "{said}");
}

#[test]
fn p17_what_ends_by_itself_is_not_refused() {
    let desk = Desk::new();
    let mut first = desk.confirming();
    publish(&mut first, &m("held"));
    let mut pair = desk.confirming();
    many(&mut pair, 200);
    unheard(&mut pair, message("x", "k").id("held").body("b".repeat(2 * ROOM)).publish(1));
    assert!(pair.session.memory().held > 3 * ROOM);
    let now = pair.now();
    pair.session.handle_memory_pressure(ROOM, now);
    assert_eq!(pair.to_client(), Frames::none());
    pair.advance(30 * SECOND);
    assert!(pair.session.held_bytes() == 0, "the wait is over");
}
