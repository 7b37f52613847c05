//! Point 5, transactions.

use super::desk::{Desk, SECOND, confirm, m, publish, unheard};
use crate::support::frames::Frames;
use crate::support::methods::{
    ack, ack_multiple, channel_close, channel_close_ok, channel_open, channel_open_ok, confirm_select,
    confirm_select_nowait, consume, consume_ok, nack, queue_declare, tx_commit, tx_commit_ok, tx_rollback,
    tx_rollback_ok, tx_select, tx_select_ok,
};
use crate::support::pair::Pair;
use hapax_core::window::{Event, ForgetCause};

fn in_tx(desk: &Desk) -> Pair {
    let mut pair = desk.pair();
    pair.client(tx_select(1));
    pair.upstream(tx_select_ok(1));
    assert_eq!(pair.to_client(), tx_select_ok(1));
    assert_eq!(pair.to_upstream(), tx_select(1));
    pair
}

fn made_room() -> Frames {
    channel_close(1, 200, "hapax makes room for tx.select")
}

#[test]
fn p05_transactions_commit_ok_commits() {
    let desk = Desk::new();
    let mut pair = in_tx(&desk);
    publish(&mut pair, &m("a"));
    pair.client(tx_commit(1));
    assert_eq!(pair.to_upstream(), tx_commit(1));
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (false, 1));
    pair.upstream(tx_commit_ok(1));
    assert_eq!(pair.to_client(), tx_commit_ok(1));
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (true, 0));
}

#[test]
fn p05_transactions_rollback_or_a_fault_forgets() {
    let desk = Desk::new();
    let mut pair = in_tx(&desk);
    publish(&mut pair, &m("a"));
    pair.client(tx_rollback(1));
    pair.upstream(tx_rollback_ok(1));
    assert_eq!(pair.to_client(), tx_rollback_ok(1));
    assert_eq!(pair.to_upstream(), tx_rollback(1));
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (false, 0));
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::Rollback)), 1);
    publish(&mut pair, &m("a"));
    pair.client(tx_commit(1));
    pair.upstream(channel_close(1, 406, "PRECONDITION_FAILED"));
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (false, 0));

    let mut pair = in_tx(&desk);
    publish(&mut pair, &m("a"));
    pair.client_eof();
    assert_eq!(
        (desk.is_seen("a"), desk.in_flight()),
        (false, 0),
        "an open transaction is nothing to wait for"
    );
    pair.leave_upstream();
    assert!(pair.session.is_over());
}

#[test]
fn p05_transactions_a_seen_id_is_dropped_alone() {
    let desk = Desk::new();
    desk.store("seen");
    let mut pair = in_tx(&desk);
    pair.client(m("a").publish(1) + m("seen").publish(1) + m("b").publish(1) + tx_commit(1));
    assert_eq!(pair.to_upstream(), m("a").publish(1) + m("b").publish(1) + tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    assert_eq!(pair.to_client(), tx_commit_ok(1));
    assert!(desk.is_seen("a") && desk.is_seen("b"));
}

#[test]
fn p05_transactions_and_confirms_exclude_each_other() {
    let desk = Desk::new();
    let mut pair = in_tx(&desk);
    pair.client(confirm_select(1));
    assert_eq!(pair.to_upstream(), confirm_select(1), "the broker says so");
    pair.upstream(channel_close(1, 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode"));
    assert_eq!(pair.to_client().len(), 1);

    let mut pair = desk.confirming();
    pair.client(tx_select(1));
    assert_eq!(pair.to_upstream(), tx_select(1));
}

#[test]
fn p05_transactions_pipelined() {
    let desk = Desk::new();
    let mut pair = in_tx(&desk);
    pair.client(
        m("a").publish(1)
            + tx_commit(1)
            + m("b").publish(1)
            + tx_rollback(1)
            + m("c").publish(1)
            + tx_commit(1),
    );
    let sent = m("a").publish(1)
        + tx_commit(1)
        + m("b").publish(1)
        + tx_rollback(1)
        + m("c").publish(1)
        + tx_commit(1);
    assert_eq!(pair.to_upstream(), sent);
    pair.upstream(tx_commit_ok(1));
    assert_eq!(["a", "b", "c"].map(|id| desk.is_seen(id)), [true, false, false]);
    pair.upstream(tx_rollback_ok(1));
    assert_eq!(desk.in_flight(), 1);
    pair.upstream(tx_commit_ok(1));
    assert_eq!(["a", "b", "c"].map(|id| desk.is_seen(id)), [true, false, true]);
}

#[test]
fn p05_transactions_an_id_again_after_a_pipelined_end() {
    let desk = Desk::new();
    let mut pair = in_tx(&desk);
    pair.client(m("a").publish(1) + tx_rollback(1) + m("a").publish(1) + tx_commit(1));
    assert_eq!(pair.to_upstream(), m("a").publish(1) + tx_rollback(1));
    pair.upstream(tx_rollback_ok(1));
    assert_eq!(pair.to_upstream(), m("a").publish(1) + tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    assert!(desk.is_seen("a"));
}

#[test]
fn p05_transactions_an_id_twice_in_one() {
    let desk = Desk::new();
    let mut pair = in_tx(&desk);
    pair.client(m("a").publish(1) + m("a").publish(1) + tx_commit(1));
    assert_eq!(pair.to_upstream(), m("a").publish(1) + tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    assert!(desk.is_seen("a"));
}

#[test]
fn p05_transactions_an_id_twice_in_one_while_it_is_in_flight_elsewhere() {
    let desk = Desk::new();
    let mut first = desk.confirming();
    publish(&mut first, &m("a"));
    let mut pair = in_tx(&desk);
    unheard(&mut pair, m("a").publish(1) + m("a").publish(1) + tx_commit(1));
    first.upstream(nack(1, 1));
    assert_eq!(
        pair.to_upstream(),
        m("a").publish(1) + tx_commit(1),
        "the second does not wait for the first's commit"
    );
    pair.upstream(tx_commit_ok(1));
    assert!(desk.is_seen("a"));
}

#[test]
fn p05_transactions_an_id_twice_in_one_is_no_crowd() {
    let desk = Desk::with(|plan| plan.limits.waiters_per_id = 0);
    let mut pair = in_tx(&desk);
    pair.client(m("a").publish(1) + m("a").publish(1) + tx_commit(1));
    assert_eq!(pair.to_upstream(), m("a").publish(1) + tx_commit(1));
}

#[test]
fn p05_transactions_commit_waits_for_what_is_in_flight_elsewhere() {
    let desk = Desk::new();
    let mut first = desk.confirming();
    publish(&mut first, &m("a"));
    let mut pair = in_tx(&desk);
    publish(&mut pair, &m("b"));
    unheard(&mut pair, m("a").publish(1) + tx_commit(1) + queue_declare(1, "q"));
    first.upstream(ack(1, 1));
    assert_eq!(pair.to_upstream(), tx_commit(1) + queue_declare(1, "q"));
    pair.upstream(tx_commit_ok(1));
    assert!(desk.is_seen("b"));
}

#[test]
fn p05_transactions_rollback_waits_for_nobody() {
    let desk = Desk::new();
    let mut first = desk.confirming();
    publish(&mut first, &m("a"));
    let mut pair = in_tx(&desk);
    unheard(&mut pair, m("a").publish(1));
    pair.client(tx_rollback(1));
    assert_eq!(pair.to_upstream(), tx_rollback(1));
    first.upstream(nack(1, 1));
    assert_eq!(pair.to_upstream(), Frames::none());
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p05_transactions_a_return_inside() {
    let desk = Desk::new();
    let mut pair = in_tx(&desk);
    let a = m("a").mandatory();
    pair.client(a.publish(1) + m("b").publish(1) + tx_commit(1));
    pair.upstream(a.returned(1) + tx_commit_ok(1));
    assert_eq!(pair.to_client(), a.returned(1) + tx_commit_ok(1));
    assert_eq!((desk.is_seen("a"), desk.is_seen("b"), desk.in_flight()), (false, true, 0));
}

#[test]
fn p05_transactions_are_bounded() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 2);
    let mut pair = in_tx(&desk);
    pair.client(m("a").publish(1) + m("b").publish(1) + m("c").publish(1));
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("channel.close 506"), "{said}");
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p05_transactions_after_shadow_confirms_have_a_fresh_channel() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), confirm_select_nowait(1) + m("a").publish(1));
    unheard(&mut pair, tx_select(1) + m("b").publish(1) + tx_commit(1));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_upstream(), made_room(), "once settled");
    assert!(desk.is_seen("a"));
    pair.upstream(channel_close_ok(1));
    assert_eq!(pair.to_upstream(), channel_open(1));
    pair.upstream(channel_open_ok(1));
    assert_eq!(pair.to_upstream(), tx_select(1) + m("b").publish(1) + tx_commit(1));
    pair.upstream(tx_select_ok(1) + tx_commit_ok(1));
    assert_eq!(pair.to_client(), tx_select_ok(1) + tx_commit_ok(1), "and of the rest nothing is seen");
    assert!(desk.is_seen("b"));
}

#[test]
fn p05_transactions_after_shadow_confirms_refused_where_the_channel_was_used_otherwise() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    pair.client(consume(1, "q", "c") + m("a").publish(1));
    pair.upstream(consume_ok(1, "c"));
    assert_eq!(pair.to_client(), consume_ok(1, "c"));
    pair.to_upstream();
    pair.client(tx_select(1));
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("channel.close 406") && said.contains("tx mode"), "{said}");
    pair.client(channel_close_ok(1));
    pair.upstream(ack(1, 1));
    assert!(desk.is_seen("a"));
    let said = format!("{:?}", pair.to_upstream());
    assert!(said.contains("Cancel") && said.contains("channel.close 200"), "{said}");
}

#[test]
fn p05_transactions_after_shadow_confirms_refused_where_nothing_settles() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    pair.client(m("a").publish(1) + tx_select(1));
    pair.to_upstream();
    pair.advance(10 * SECOND);
    assert!(format!("{:?}", pair.to_client()).contains("channel.close 406"));
}

#[test]
fn p05_transactions_after_shadow_confirms_closes_that_cross() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    pair.client(m("a").publish(1) + queue_declare(1, "q"));
    pair.upstream(ack(1, 1));
    pair.to_upstream();
    pair.client(tx_select(1));
    assert_eq!(pair.to_upstream(), made_room());
    pair.upstream(channel_close(1, 404, "NOT_FOUND"));
    assert_eq!(pair.to_client(), channel_close(1, 404, "NOT_FOUND"));
    assert_eq!(pair.to_upstream(), channel_close_ok(1));
    pair.upstream(channel_close_ok(1));
    pair.client(channel_close_ok(1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), Frames::none()));
    pair.open(1);
}

#[test]
fn p05_transactions_before_anything_that_is_judged_need_no_fresh_channel() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    let plain = crate::support::frames::message("x", "k");
    pair.client(plain.publish(1) + tx_select(1));
    assert_eq!(pair.to_upstream(), plain.publish(1) + tx_select(1));
}

#[test]
fn p05_transactions_in_one_channel_and_confirms_in_another() {
    let desk = Desk::new();
    let mut pair = in_tx(&desk);
    pair.open(2);
    confirm(&mut pair, 2);
    publish(&mut pair, &m("a"));
    unheard(&mut pair, m("a").publish(2));
    pair.client(tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    assert_eq!(pair.to_client(), tx_commit_ok(1) + ack(2, 1));
    pair.client(m("b").publish(2) + m("c").publish(2));
    pair.upstream(ack_multiple(2, 2));
    assert_eq!(pair.to_client(), ack_multiple(2, 3));
}
