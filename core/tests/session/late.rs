//! Windows whose verdicts come late and out of order (`Verdict::Pending`).

use super::desk::{Desk, Plan, cut, m, two, unheard};
use crate::support::frames::Frames;
use crate::support::late::LateWindow;
use crate::support::methods::{ack, ack_multiple, nack, queue_declare, tx_commit, tx_commit_ok, tx_select};
use crate::support::pair::Pair;
use hapax_core::window::Event;
use std::sync::Arc;

fn late(change: impl FnOnce(&mut Plan)) -> (Desk, Arc<LateWindow>) {
    let mut late = None;
    let desk = Desk::around(change, |window| late.insert(LateWindow::new(window)).clone());
    (desk.proving(), late.unwrap())
}

fn answer(late: &LateWindow, pair: &mut Pair, pick: usize) {
    assert!(late.answer_next(pick, pair.now()), "a question");
    pair.pump();
}

fn confirming(desk: &Desk) -> Pair {
    let mut pair = desk.confirming();
    pair.open(2);
    super::desk::confirm(&mut pair, 2);
    pair
}

#[test]
fn pending_holds_its_channel_in_order_and_others_go_on() {
    let (desk, late) = late(|_| ());
    let mut pair = confirming(&desk);
    unheard(&mut pair, m("a").publish(1) + m("b").publish(1) + queue_declare(1, "q"));
    assert_eq!(late.questions(), 1, "one at a time");
    pair.client(queue_declare(2, "q"));
    assert_eq!(pair.to_upstream(), queue_declare(2, "q"));
    unheard(&mut pair, m("c").publish(2));
    answer(&late, &mut pair, 1);
    assert_eq!(pair.to_upstream(), m("c").publish(2), "out of order");
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), m("a").publish(1));
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), m("b").publish(1) + queue_declare(1, "q"));
    pair.upstream(ack_multiple(1, 2) + ack(2, 1));
    assert_eq!(pair.to_client(), ack_multiple(1, 2) + ack(2, 1));
    assert_eq!(pair.session.held_bytes(), 0);
}

#[test]
fn pending_amid_a_body() {
    let (desk, late) = late(|_| ());
    let mut pair = confirming(&desk);
    let (here, to_come) = cut(two("a").publish(1), 3);
    unheard(&mut pair, here.clone());
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), here);
    pair.client(to_come.clone());
    assert_eq!(pair.to_upstream(), to_come);
    pair.upstream(ack(1, 1));
    pair.to_client();
    unheard(&mut pair, here);
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_client(), Frames::none(), "a duplicate is not acked before it is whole");
    pair.client(to_come);
    assert_eq!(pair.to_client(), ack(1, 2));
}

#[test]
fn pending_then_in_flight_then_final() {
    let (desk, late) = late(|_| ());
    let mut pair = confirming(&desk);
    unheard(&mut pair, m("a").publish(1));
    unheard(&mut pair, m("a").publish(2));
    answer(&late, &mut pair, 1);
    assert_eq!(pair.to_upstream(), m("a").publish(2));
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), Frames::none());
    assert_eq!(desk.count(Event::InFlight), 1);
    pair.upstream(nack(2, 1));
    assert_eq!(pair.to_upstream(), m("a").publish(1));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), nack(2, 1) + ack(1, 1));
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn pending_then_crowded() {
    let (desk, late) = late(|plan| plan.limits.waiters_per_id = 0);
    let mut pair = confirming(&desk);
    unheard(&mut pair, m("a").publish(1) + m("a").publish(1));
    answer(&late, &mut pair, 0);
    pair.to_upstream();
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_client(), nack(1, 2));
    assert_eq!(desk.count(Event::Refused), 1);
}

#[test]
fn pending_when_the_client_vanishes() {
    let (desk, late) = late(|_| ());
    let mut pair = confirming(&desk);
    unheard(&mut pair, m("a").publish(1));
    pair.client_eof();
    assert!(!pair.upstream_closed());
    answer(&late, &mut pair, 0);
    assert!(format!("{:?}", pair.to_upstream()).contains("publish"), "it was whole");
    pair.upstream(ack(1, 1));
    assert!(pair.session.is_over());
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn pending_when_the_upstream_or_the_channel_is_lost() {
    let (desk, late) = late(|_| ());
    let mut pair = confirming(&desk);
    unheard(&mut pair, m("a").publish(1) + m("b").publish(2));
    pair.upstream(crate::support::methods::channel_close(1, 404, "NOT_FOUND"));
    assert_eq!(late.questions(), 1, "nobody asks for a any more");
    pair.upstream_eof();
    assert_eq!(late.questions(), 0);
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn pending_inside_a_transaction() {
    let (desk, late) = late(|_| ());
    let mut pair = desk.pair();
    pair.client(tx_select(1) + m("a").publish(1) + m("a").publish(1) + tx_commit(1));
    assert_eq!(pair.to_upstream(), tx_select(1));
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), m("a").publish(1));
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    assert!(desk.is_seen("a"));
}

#[test]
fn pending_and_what_is_held_is_bounded() {
    let (desk, late) = late(|plan| plan.settings.held_bytes = 1000);
    let mut pair = confirming(&desk);
    unheard(&mut pair, m("a").body(vec![b'x'; 3000]).publish(1));
    assert!(!pair.session.wants_client());
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), m("a").body(vec![b'x'; 3000]).publish(1));
    assert!(pair.session.wants_client());
    assert_eq!(pair.session.held_bytes(), 0);
}
