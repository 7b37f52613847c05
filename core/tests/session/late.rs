//! Windows that answer late: verdicts come late, in any order, twice or never, and commits are remembered later.

use super::desk::{Desk, Plan, SECOND, cut, m, two, unheard};
use crate::support::frames::{Frames, Message, message};
use crate::support::late::{Late, LateWindow};
use crate::support::methods::{
    ack, ack_multiple, channel_close, connection_close, connection_close_ok, consume, consume_ok, flow, nack,
    queue_declare, queue_declare_ok, tx_commit, tx_commit_ok, tx_rollback, tx_rollback_ok, tx_select,
    tx_select_ok,
};
use crate::support::pair::Pair;
use hapax_core::window::{Event, MissingId, Verdict};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub(super) const VERDICTS: Late = Late { verdicts: true, commits: false, waits_on: false };
pub(super) const COMMITS: Late = Late { verdicts: false, commits: true, waits_on: false };

pub(super) fn late(change: impl FnOnce(&mut Plan)) -> (Desk, Arc<LateWindow>) {
    late_as(VERDICTS, change)
}

pub(super) fn late_as(how: Late, change: impl FnOnce(&mut Plan)) -> (Desk, Arc<LateWindow>) {
    let mut late = None;
    let desk = Desk::around(change, |window| late.insert(LateWindow::with(window, how)).clone());
    (desk.proving(), late.unwrap())
}

/// A message of which there is no other.
fn unique() -> Message {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    m(&format!("unique-{}", MADE.fetch_add(1, Ordering::Relaxed)))
}

/// The broker has shown that the user may publish, so nothing waits for that. Channel 1 has selected confirms, and one
/// message was published on it.
pub(super) fn shown(desk: &Desk, late: &LateWindow) -> Pair {
    let (mut pair, message) = (desk.confirming(), unique());
    pair.client(message.publish(1));
    late.answer_next(0, pair.now());
    pair.pump();
    assert_eq!(pair.to_upstream(), message.publish(1));
    pair.upstream(ack(1, 1));
    remember(late, &mut pair, 1);
    assert_eq!(pair.to_client(), ack(1, 1));
    pair
}

/// The same without confirms. (Hapax has selected them.)
pub(super) fn shown_without_confirms(desk: &Desk, late: &LateWindow) -> Pair {
    let mut pair = desk.pair();
    pair.client(unique().publish(1));
    late.answer_next(late.questions().saturating_sub(1), pair.now());
    pair.pump();
    assert_eq!(pair.to_upstream().len(), 4, "confirm.select and the message");
    pair.upstream(ack(1, 1));
    remember(late, &mut pair, 1);
    pair
}

pub(super) fn remember(late: &LateWindow, pair: &mut Pair, commits: usize) {
    late.remember(commits, pair.now());
    pair.pump();
}

pub(super) fn answer(late: &LateWindow, pair: &mut Pair, pick: usize) {
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
    assert_eq!(late.questions(), 2, "about both of them");
    pair.client(queue_declare(2, "q"));
    assert_eq!(pair.to_upstream(), queue_declare(2, "q"));
    unheard(&mut pair, m("c").publish(2));
    answer(&late, &mut pair, 2);
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
    pair.leave_upstream();
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

#[test]
fn pending_publishes_of_a_read_are_asked_about_together() {
    let (desk, late) = late(|_| ());
    let mut pair = shown(&desk, &late);
    unheard(&mut pair, m("a").publish(1) + m("b").publish(1) + m("c").publish(1));
    assert_eq!(late.questions(), 3);
    answer(&late, &mut pair, 2);
    answer(&late, &mut pair, 1);
    assert_eq!(pair.to_upstream(), Frames::none(), "in the order of the publishes");
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), m("a").publish(1) + m("b").publish(1) + m("c").publish(1));
    pair.upstream(ack_multiple(1, 4));
    assert_eq!(pair.to_client(), ack_multiple(1, 4));
}

#[test]
fn pending_publishes_of_the_next_read_are_asked_about_unless_something_else_stands_before_them() {
    let (desk, late) = late(|_| ());
    let mut pair = shown(&desk, &late);
    unheard(&mut pair, m("a").publish(1));
    unheard(&mut pair, m("b").publish(1));
    assert_eq!(late.questions(), 2);
    unheard(&mut pair, m("c").publish(1) + queue_declare(1, "q") + m("d").publish(1));
    unheard(&mut pair, m("e").publish(1));
    assert_eq!(late.questions(), 3, "d and e are behind the declaration");
    (0..3).for_each(|_| answer(&late, &mut pair, 0));
    let first = m("a").publish(1) + m("b").publish(1) + m("c").publish(1) + queue_declare(1, "q");
    assert_eq!(pair.to_upstream(), first);
    answer(&late, &mut pair, 0);
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), m("d").publish(1) + m("e").publish(1));
}

#[test]
fn pending_publishes_are_bounded() {
    let (desk, late) = late(|plan| plan.settings.max_unresolved = 6);
    let mut pair = shown(&desk, &late);
    unheard(&mut pair, (0..20).fold(Frames::none(), |all, n| all + m(&n.to_string()).publish(1)));
    assert!(late.questions() <= 6 && !pair.session.wants_client());
    let mut plain = shown_without_confirms(&desk, &late);
    let before = late.questions();
    unheard(&mut plain, (0..20).fold(Frames::none(), |all, n| all + m(&format!("p{n}")).publish(1)));
    assert!(late.questions() - before <= 6 && !plain.session.wants_client());
}

#[test]
fn pending_for_too_long_is_judged_without_the_store() {
    let (desk, late) = late(|_| ());
    let mut pair = shown(&desk, &late);
    desk.store("b");
    unheard(&mut pair, m("a").publish(1) + m("b").publish(1) + m("c").publish(1) + queue_declare(1, "q"));
    answer(&late, &mut pair, 2);
    pair.advance(SECOND);
    let fresh = m("a").publish(1) + m("c").publish(1) + queue_declare(1, "q");
    assert_eq!(pair.to_upstream(), fresh, "b is a duplicate by the window's own memory");
    assert_eq!(late.tally().overdue_verdicts, 2);
    // Both answers of the store come now, and both are wrong.
    assert!(late.answer_withdrawn() && late.answer_withdrawn());
    pair.pump();
    assert_eq!(pair.to_client(), ack(1, 3), "b alone");
    pair.upstream(nack(1, 2) + ack(1, 3));
    assert_eq!(pair.to_client(), nack(1, 2) + ack(1, 4));
    assert_eq!((desk.in_flight(), pair.session.unresolved(), pair.session.held_bytes()), (0, 0, 0));
}

#[test]
fn pending_for_too_long_waits_on_where_that_is_the_policy() {
    let (desk, late) = late_as(Late { waits_on: true, ..VERDICTS }, |_| ());
    let mut pair = shown(&desk, &late);
    unheard(&mut pair, m("a").publish(1));
    pair.advance(10 * SECOND);
    assert_eq!((pair.to_upstream(), late.questions()), (Frames::none(), 1));
    assert_eq!(late.tally().overdue_verdicts, 10, "each time with a new deadline");
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), m("a").publish(1));
}

#[test]
fn pending_answered_at_the_last_moment_is_answered() {
    let (desk, late) = late(|_| ());
    let mut pair = shown(&desk, &late);
    desk.store("a");
    unheard(&mut pair, m("a").publish(1));
    // The process stands still: the answer is in the mailbox when the time is over.
    pair.stand_still(2 * SECOND);
    late.answer_next(0, pair.now());
    let now = pair.now();
    pair.session.handle_timeout(now);
    assert_eq!(pair.to_client(), ack(1, 2));
    assert_eq!(late.tally().overdue_verdicts, 0);
}

#[test]
fn pending_answered_twice_is_answered_once() {
    let (desk, late) = late(|_| ());
    let mut pair = shown(&desk, &late);
    unheard(&mut pair, m("a").publish(1) + m("b").publish(1));
    assert!(late.answer_twice(1, pair.now()));
    assert!(late.answer_twice(0, pair.now()));
    pair.pump();
    assert_eq!(pair.to_upstream(), m("a").publish(1) + m("b").publish(1));
    assert_eq!(pair.to_client(), Frames::none());
    pair.upstream(nack(1, 2) + ack(1, 3));
    assert_eq!(pair.to_client(), nack(1, 2) + ack(1, 3));
}

/// A publish waits for another's outcome, and its window, which has its mind changed by its store, puts it off.
#[test]
fn pending_while_it_waits_for_anothers_outcome_has_a_deadline() {
    for verdict in ["pending", "crowded"] {
        for confirms in [true, false] {
            let (desk, late) = late(|_| ());
            let mut first = shown(&desk, &late);
            first.client(m("a").publish(1));
            answer(&late, &mut first, 0);
            first.to_upstream();
            let mut pair = if confirms { shown(&desk, &late) } else { shown_without_confirms(&desk, &late) };
            unheard(&mut pair, two("a").publish(1));
            let ticket = late.tickets()[0];
            answer(&late, &mut pair, 0);
            let mailbox = pair.session.mailbox().clone();
            let late_verdict = match verdict {
                "pending" => Verdict::Pending(late.ask_for(super::desk::key("a").into(), ticket, &mailbox)),
                _ => Verdict::Crowded,
            };
            mailbox.deliver(ticket, late_verdict);
            pair.pump();
            if verdict == "crowded" && confirms {
                assert_eq!(pair.to_client(), nack(1, 2), "nothing will come");
                continue;
            }
            assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), Frames::none()));
            pair.advance(SECOND);
            // The window says by its memory that it is in flight. If there was no room, it was asked again.
            let asked = usize::from(verdict == "crowded");
            assert_eq!((pair.to_client(), late.questions()), (Frames::none(), asked));
            if verdict == "crowded" {
                answer(&late, &mut pair, 0);
            }
            first.upstream(nack(1, 2));
            pair.pump();
            assert_eq!(pair.to_upstream(), two("a").publish(1), "{verdict} {confirms}");
            pair.upstream(ack(1, 2));
            assert_eq!(desk.in_flight(), 0);
        }
    }
}

/// A publish that finds no room to wait stops its channel. Those behind it must not keep others waiting meanwhile.
#[test]
fn a_read_that_stops_gives_back_what_it_was_granted() {
    let desk = Desk::with(|plan| plan.limits.waiters_per_id = 0);
    let mut first = desk.confirming();
    super::desk::publish(&mut first, &m("a"));
    let mut pair = desk.pair();
    pair.client(m("shown").publish(1));
    pair.upstream(ack(1, 1));
    pair.to_upstream();
    unheard(&mut pair, m("a").publish(1) + two("b").publish(1) + m("c").publish(1) + queue_declare(1, "q"));
    assert_eq!(desk.in_flight(), 1, "a");
    super::desk::publish(&mut first, &m("c"));
    first.upstream(ack_multiple(1, 2));
    pair.advance(Duration::from_millis(20));
    assert_eq!(pair.to_upstream(), two("b").publish(1) + queue_declare(1, "q"), "a and c are duplicates");
    pair.upstream(ack(1, 2));
    assert_eq!((desk.in_flight(), pair.session.held_bytes()), (0, 0));
}

#[test]
fn frames_that_wait_keep_their_order_when_their_batch_stops() {
    let desk = Desk::with(|plan| plan.limits.waiters_per_id = 0);
    let mut first = desk.confirming();
    super::desk::publish(&mut first, &m("a"));
    super::desk::publish(&mut first, &m("x"));
    let mut pair = desk.pair();
    pair.client(m("shown").publish(1));
    pair.upstream(ack(1, 1));
    pair.to_upstream();
    let behind = two("b").publish(1) + m("c").publish(1) + queue_declare(1, "q") + m("d").publish(1);
    unheard(&mut pair, m("a").publish(1) + m("x").publish(1) + behind.clone());
    first.upstream(ack(1, 1));
    pair.advance(Duration::from_millis(20));
    assert_eq!((pair.to_upstream(), desk.in_flight()), (Frames::none(), 1), "x stops the channel");
    first.upstream(ack(1, 2));
    pair.advance(Duration::from_millis(20));
    assert_eq!(pair.to_upstream(), behind);
    pair.upstream(ack_multiple(1, 4));
    assert_eq!((desk.in_flight(), pair.session.held_bytes()), (0, 0));
}

#[test]
fn pending_publishes_that_waited_as_frames_are_asked_about_together() {
    let (desk, late) = late(|_| ());
    let mut pair = shown(&desk, &late);
    unheard(&mut pair, m("a").publish(1) + queue_declare(1, "q") + two("b").publish(1) + m("c").publish(1));
    unheard(&mut pair, m("d").publish(1) + queue_declare(1, "r") + m("e").publish(1));
    assert_eq!(late.questions(), 1);
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), m("a").publish(1) + queue_declare(1, "q"));
    assert_eq!(late.questions(), 3, "b, c and d");
    answer(&late, &mut pair, 2);
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), two("b").publish(1));
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), m("c").publish(1) + m("d").publish(1) + queue_declare(1, "r"));
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), m("e").publish(1));
    pair.upstream(ack_multiple(1, 6));
    assert_eq!(pair.to_client(), ack_multiple(1, 6));
    assert_eq!((pair.session.unresolved(), pair.session.held_bytes()), (0, 0));
}

/// A publish behind a silent store has its id granted, and can't be sent. Another one that waits for the id takes it over.
#[test]
fn an_id_that_was_granted_long_ago_is_asked_about_again() {
    let (desk, late) = late_as(Late { waits_on: true, ..VERDICTS }, |plan| {
        plan.settings.in_flight_timeout = 3 * SECOND;
    });
    let (mut pair, mut other) = (shown(&desk, &late), shown_without_confirms(&desk, &late));
    unheard(&mut pair, m("a").publish(1) + m("b").publish(1));
    answer(&late, &mut pair, 1);
    unheard(&mut other, m("b").publish(1));
    answer(&late, &mut other, 1);
    other.to_upstream();
    pair.advance(4 * SECOND);
    other.advance(4 * SECOND);
    assert_eq!(other.to_upstream(), m("b").publish(1), "taken over");
    other.upstream(ack(1, 2));
    answer(&late, &mut pair, 0);
    assert_eq!(pair.to_upstream(), m("a").publish(1));
    answer(&late, &mut pair, 0);
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack(1, 3)), "b is a duplicate now");
    pair.upstream(ack(1, 2));
    assert_eq!((desk.in_flight(), late.questions()), (0, 0));
}

/// Each time it asks again, the store says later that there is no room.
#[test]
fn a_publish_that_finds_no_room_takes_over_by_a_late_verdict_too() {
    let (desk, late) = late(|plan| {
        plan.limits.waiters_per_id = 0;
        plan.settings.in_flight_timeout = SECOND;
    });
    let (mut first, mut pair) = (shown(&desk, &late), shown_without_confirms(&desk, &late));
    first.client(m("a").publish(1));
    answer(&late, &mut first, 0);
    pair.to_upstream();
    pair.client(m("a").publish(1));
    for _ in 0..60 {
        late.answer_next(0, pair.now());
        pair.pump();
        pair.advance(Duration::from_millis(20));
    }
    assert_eq!(pair.to_upstream(), m("a").publish(1));
    pair.upstream(ack(1, 2));
    first.upstream(ack(1, 2));
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn an_ack_waits_until_its_id_is_remembered() {
    let (desk, late) = late_as(COMMITS, |_| ());
    let mut pair = shown(&desk, &late);
    pair.client(m("a").publish(1) + m("b").publish(1) + m("c").publish(1) + m("d").publish(1));
    pair.to_upstream();
    pair.upstream(ack(1, 2) + nack(1, 3) + ack_multiple(1, 5));
    assert_eq!(pair.to_client(), nack(1, 3), "a is stored and not remembered");
    late.call_in_vain();
    pair.pump();
    assert_eq!((pair.to_client(), pair.session.unresolved()), (Frames::none(), 3), "c has its answer");
    remember(&late, &mut pair, 1);
    assert_eq!(pair.to_client(), ack(1, 2), "multiple never covers a tag that is not remembered");
    remember(&late, &mut pair, 1);
    assert_eq!(pair.to_client(), ack_multiple(1, 5));
    assert_eq!((pair.session.unresolved(), late.unremembered()), (0, 0));
}

#[test]
fn an_ack_beyond_a_tag_that_is_not_remembered_goes_alone() {
    let (desk, late) = late_as(COMMITS, |_| ());
    let mut pair = shown(&desk, &late);
    pair.client(m("a").publish(1) + m("b").bypass().publish(1) + m("c").publish(1));
    pair.to_upstream();
    pair.upstream(ack_multiple(1, 4));
    assert_eq!(pair.to_client(), ack(1, 3), "no window has to remember b");
    remember(&late, &mut pair, 2);
    assert_eq!(pair.to_client(), ack_multiple(1, 4));
}

#[test]
fn an_ack_that_is_overdue_is_given_or_waits_on() {
    for waits_on in [false, true] {
        let (desk, late) = late_as(Late { waits_on, ..COMMITS }, |_| ());
        let mut pair = shown(&desk, &late);
        pair.client(m("a").publish(1) + m("b").publish(1));
        pair.to_upstream();
        pair.upstream(ack(1, 2));
        pair.advance(Duration::from_millis(900));
        pair.upstream(ack(1, 3));
        pair.advance(Duration::from_millis(99));
        assert_eq!(pair.to_client(), Frames::none());
        pair.advance(Duration::from_millis(1));
        let told = if waits_on { Frames::none() } else { ack(1, 2) };
        assert_eq!(pair.to_client(), told);
        pair.advance(10 * SECOND);
        let told = if waits_on { Frames::none() } else { ack(1, 3) };
        assert_eq!(pair.to_client(), told);
        remember(&late, &mut pair, 2);
        let told = if waits_on { ack_multiple(1, 3) } else { Frames::none() };
        assert_eq!(pair.to_client(), told);
    }
}

#[test]
fn a_duplicate_of_what_is_not_remembered_waits_for_the_same_moment() {
    let (desk, late) = late_as(COMMITS, |_| ());
    let (mut pair, mut other) = (shown(&desk, &late), desk.confirming());
    pair.client(m("a").publish(1));
    pair.upstream(ack(1, 2));
    unheard(&mut other, m("a").publish(1));
    remember(&late, &mut pair, 1);
    assert_eq!(pair.to_client(), ack(1, 2));
    assert_eq!(other.to_client(), ack(1, 1));
}

#[test]
fn without_confirms_nothing_waits_until_it_is_remembered() {
    let (desk, late) = late_as(COMMITS, |_| ());
    let mut pair = shown_without_confirms(&desk, &late);
    pair.client(m("a").publish(1) + channel_close(1, 200, "bye"));
    pair.to_upstream();
    pair.upstream(ack(1, 2));
    assert_eq!(pair.to_upstream(), channel_close(1, 200, "bye"));
    assert_eq!(late.unremembered(), 1);
}

#[test]
fn publishes_that_are_not_remembered_count_as_unresolved() {
    let (desk, late) = late_as(COMMITS, |plan| plan.settings.max_unresolved = 2);
    let mut pair = shown(&desk, &late);
    pair.client(m("a").publish(1) + m("b").publish(1));
    pair.upstream(ack_multiple(1, 3));
    assert!(!pair.session.wants_client());
    remember(&late, &mut pair, 2);
    assert!(pair.session.wants_client());
}

#[test]
fn a_tx_commit_ok_waits_until_its_ids_are_remembered() {
    let (desk, late) = late_as(COMMITS, |_| ());
    let mut pair = desk.pair();
    pair.client(tx_select(1) + consume(1, "q", "c"));
    pair.upstream(tx_select_ok(1) + consume_ok(1, "c"));
    pair.client(m("a").publish(1) + tx_commit(1));
    pair.to_client();
    pair.upstream(tx_commit_ok(1));
    assert_eq!(pair.to_client(), Frames::none());
    // The answer to a later request waits behind it; a delivery does not wait.
    pair.client(queue_declare(1, "p") + tx_rollback(1) + queue_declare(1, "q"));
    let delivered = m("d").deliver(1, "c", 1);
    pair.upstream(
        queue_declare_ok(1, "p") + delivered.clone() + tx_rollback_ok(1) + queue_declare_ok(1, "q"),
    );
    assert_eq!(pair.to_client(), delivered);
    assert!(pair.session.unresolved() >= 1 && pair.session.held_bytes() > 0);
    remember(&late, &mut pair, 1);
    let replies = tx_commit_ok(1) + queue_declare_ok(1, "p") + tx_rollback_ok(1) + queue_declare_ok(1, "q");
    assert_eq!(pair.to_client(), replies);
    assert_eq!((pair.session.unresolved(), pair.session.held_bytes()), (0, 0));
    assert!(desk.is_seen("a"));
}

#[test]
fn a_tx_commit_ok_that_is_overdue_is_given_or_waits_on() {
    for waits_on in [false, true] {
        let (desk, late) = late_as(Late { waits_on, ..COMMITS }, |_| ());
        let mut pair = desk.pair();
        pair.client(tx_select(1));
        pair.upstream(tx_select_ok(1));
        pair.client(m("a").publish(1) + tx_commit(1));
        pair.to_client();
        pair.upstream(tx_commit_ok(1));
        pair.advance(5 * SECOND);
        let told = if waits_on { Frames::none() } else { tx_commit_ok(1) };
        assert_eq!(pair.to_client(), told);
        remember(&late, &mut pair, 1);
        let told = if waits_on { tx_commit_ok(1) } else { Frames::none() };
        assert_eq!(pair.to_client(), told);
    }
}

/// A client that closes its connection or channel first gets the outcomes of its messages.
#[test]
fn a_graceful_end_waits_until_ids_are_remembered() {
    let ends: [fn(&mut Pair); 3] = [
        |pair| pair.client(channel_close(1, 200, "bye")),
        |pair| pair.client(connection_close(200, "bye")),
        Pair::drain,
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let (desk, late) = late_as(Late { waits_on: true, ..COMMITS }, |_| ());
        let mut pair = shown(&desk, &late);
        pair.client(m("a").publish(1));
        pair.to_upstream();
        pair.upstream(ack(1, 2));
        end(&mut pair);
        pair.advance(2 * SECOND);
        // A broker that does not answer could still have something to say, so the client waits for it.
        let asked = if number < 2 { flow(1, true) } else { Frames::none() };
        assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), asked), "end {number}");
        remember(&late, &mut pair, 1);
        let told = format!("{:?}", pair.to_client());
        assert!(told.contains("basic.ack 2"), "end {number}: {told}");
        assert!(format!("{:?}", pair.to_upstream()).contains("lose"), "end {number}");
        // Not for longer than the linger.
        let mut pair = shown(&desk, &late);
        pair.client(m("b").publish(1));
        pair.to_upstream();
        pair.upstream(ack(1, 2));
        end(&mut pair);
        pair.advance(11 * SECOND);
        assert!(!format!("{:?}", pair.to_client()).contains("basic.ack"), "end {number}");
        assert!(format!("{:?}", pair.to_upstream()).contains("lose"), "end {number}");
    }
}

#[test]
fn a_client_that_is_gone_is_not_waited_for() {
    let (desk, late) = late_as(COMMITS, |_| ());
    for acked_before in [true, false] {
        let mut pair = shown(&desk, &late);
        pair.client(m(&acked_before.to_string()).publish(1));
        if acked_before {
            pair.upstream(ack(1, 2));
        }
        pair.client_eof();
        if !acked_before {
            pair.upstream(ack(1, 2));
        }
        pair.leave_upstream();
        assert!(pair.session.is_over(), "{acked_before}");
        remember(&late, &mut pair, 1);
    }
    assert!(desk.is_seen("true") && desk.is_seen("false"));
}

/// Nobody acks what is not remembered: the client publishes again, and that is a duplicate.
#[test]
fn an_upstream_that_is_gone_leaves_unremembered_tags_unanswered() {
    let gone: [fn(&mut Pair); 2] =
        [|pair| pair.upstream(channel_close(1, 404, "NOT_FOUND")), Pair::upstream_eof];
    for (number, gone) in gone.into_iter().enumerate() {
        let (desk, late) = late_as(COMMITS, |_| ());
        let mut pair = shown(&desk, &late);
        pair.client(m("a").publish(1));
        pair.upstream(ack(1, 2));
        gone(&mut pair);
        remember(&late, &mut pair, 1);
        pair.advance(2 * SECOND);
        let told = format!("{:?}", pair.to_client());
        assert!(told.contains("lose") && !told.contains("basic.ack"), "{number}: {told}");
        let mut again = desk.confirming();
        again.client(m("a").publish(1));
        assert_eq!((again.to_client(), again.to_upstream()), (ack(1, 1), Frames::none()), "{number}");
    }
}

/// A publish that waited is refused when its client has closed its connection already, and the client is amid a delivery.
#[test]
fn a_client_that_has_closed_gets_no_close_of_a_channel_amid_a_delivery() {
    for comes in [true, false] {
        let (desk, late) = late(|plan| plan.rules.missing_id = MissingId::Reject);
        let mut pair = shown(&desk, &late);
        let (here, to_come) = cut(two("d").deliver(1, "c", 1), 3);
        pair.upstream(here.clone());
        assert_eq!(pair.to_client(), here);
        unheard(&mut pair, m("a").publish(1) + message("x", "k").publish(1));
        unheard(&mut pair, connection_close(200, "bye"));
        answer(&late, &mut pair, 0);
        assert_eq!(pair.to_upstream(), m("a").publish(1));
        assert_eq!(pair.to_client(), Frames::none(), "the rest of the delivery is to come");
        if comes {
            pair.upstream(to_come);
        }
        pair.upstream(ack(1, 2));
        pair.advance(2 * SECOND);
        assert!(pair.to_upstream().0.contains(&connection_close(200, "bye").0[0]));
        pair.upstream(connection_close_ok());
        assert_eq!(pair.to_client(), connection_close_ok());
    }
}
