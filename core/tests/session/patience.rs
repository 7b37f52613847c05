//! Point 2, when patience ends: who waited takes over, one at a time; and what is waited for has to go on, bodies and
//! transactions.

use super::desk::{Desk, SECOND, confirm, cut, m, publish, two, unheard};
use crate::support::frames::{Frames, body, message};
use crate::support::methods::{
    ack, channel_close_ok, confirm_select_nowait, connection_close_ok, nack, queue_declare, tx_commit,
    tx_select, tx_select_ok,
};
use crate::support::pair::Pair;
use hapax_core::window::{Event, ForgetCause};
use std::time::Duration;

/// `timeouts.in_flight` of a desk.
const PATIENCE: Duration = Duration::from_secs(30);
/// No publish went upstream.
const NOBODY: [usize; 0] = [];

/// Another connection has `id` in flight.
fn holder(desk: &Desk, id: &str) -> Pair {
    let mut pair = desk.confirming();
    publish(&mut pair, &m(id));
    pair
}

/// The same, with the last frame of its body missing.
fn uploading(desk: &Desk, id: &str) -> (Pair, Frames) {
    let mut pair = desk.confirming();
    let (here, to_come) = cut(two(id).publish(1), 3);
    pair.client(here.clone());
    assert_eq!(pair.to_upstream(), here);
    (pair, to_come)
}

fn tx(desk: &Desk) -> Pair {
    let mut pair = desk.pair();
    pair.client(tx_select(1));
    pair.upstream(tx_select_ok(1));
    assert_eq!(pair.to_client(), tx_select_ok(1));
    assert_eq!(pair.to_upstream(), tx_select(1));
    pair
}

/// Time passes for all of them, a second at a time. How many publishes went upstream.
fn together(pairs: &mut [Pair], time: Duration) -> Vec<usize> {
    let mut went = Vec::new();
    for _ in 0..time.as_secs() {
        for (at, pair) in pairs.iter_mut().enumerate() {
            pair.advance(SECOND);
            if format!("{:?}", pair.to_upstream()).contains("basic.publish") {
                went.push(at);
            }
        }
    }
    went
}

fn said(frames: &Frames) -> String {
    format!("{frames:?}")
}

#[test]
fn p02_patience_of_five_copies_one_takes_over_and_the_others_share_its_fate() {
    let desk = Desk::new();
    let _stuck = holder(&desk, "a");
    let mut copies: Vec<Pair> = (0..5).map(|_| desk.pair()).collect();
    copies.iter_mut().for_each(|copy| unheard(copy, m("a").publish(1)));
    assert_eq!(together(&mut copies, PATIENCE - SECOND), NOBODY);
    let went = together(&mut copies, SECOND);
    let [first] = went[..] else { panic!("{went:?} went") };
    copies[first].upstream(ack(1, 1));
    assert_eq!(together(&mut copies, 2 * PATIENCE), NOBODY, "they are stored");
    assert_eq!((desk.count(Event::TakenOver), desk.count(Event::Refused)), (1, 0));
    assert_eq!(desk.count_like(|event| matches!(event, Event::Duplicate { .. })), 4);
    assert!(desk.is_seen("a") && copies.iter().all(|copy| copy.session.held_bytes() == 0));
}

#[test]
fn p02_patience_of_65_copies_one_takes_over_in_each_timeout() {
    let desk = Desk::with(|plan| plan.limits.waiters_per_id = 20);
    let _stuck = holder(&desk, "a");
    let mut copies: Vec<Pair> = (0..65).map(|_| desk.pair()).collect();
    copies.iter_mut().for_each(|copy| unheard(copy, m("a").publish(1)));
    let mut last = 0;
    for round in 1..=4 {
        let went = together(&mut copies, PATIENCE);
        let [one] = went[..] else { panic!("{went:?} went in round {round}") };
        last = one;
    }
    copies[last].upstream(ack(1, 1));
    assert_eq!(together(&mut copies, 3 * PATIENCE), NOBODY, "in the crowd, too");
    assert_eq!((desk.count(Event::TakenOver), desk.count(Event::Refused)), (4, 0));
    assert!(copies.iter().all(|copy| copy.session.held_bytes() == 0));
}

#[test]
fn p02_patience_the_stuck_one_is_acked_after_all() {
    let desk = Desk::new();
    let mut stuck = holder(&desk, "a");
    let mut copies = [desk.pair(), desk.pair()];
    copies.iter_mut().for_each(|copy| unheard(copy, m("a").publish(1)));
    assert_eq!(together(&mut copies, PATIENCE), [0]);
    stuck.upstream(ack(1, 1));
    assert_eq!(stuck.to_client(), ack(1, 1));
    assert!(desk.is_seen("a"));
    copies[0].upstream(nack(1, 1));
    assert_eq!(together(&mut copies, PATIENCE), NOBODY, "the other one is a duplicate");
    assert_eq!((desk.in_flight(), desk.is_seen("a")), (0, true));
}

#[test]
fn p02_patience_the_stuck_one_fails_after_all() {
    let desk = Desk::new();
    let mut stuck = holder(&desk, "a");
    let mut copies = [desk.pair(), desk.pair()];
    copies.iter_mut().for_each(|copy| unheard(copy, m("a").publish(1)));
    assert_eq!(together(&mut copies, PATIENCE), [0]);
    stuck.upstream(nack(1, 1));
    assert_eq!(stuck.to_client(), nack(1, 1));
    assert_eq!(together(&mut copies, SECOND), NOBODY, "the place is another's");
    copies[0].upstream(nack(1, 1));
    assert_eq!(copies[1].to_upstream(), confirm_select_nowait(1) + m("a").publish(1));
    copies[1].upstream(ack(1, 1));
    assert_eq!((desk.in_flight(), desk.is_seen("a")), (0, true));
}

#[test]
fn p02_patience_without_room_for_the_bytes_takes_over_too() {
    let desk = Desk::with(|plan| plan.settings.held_bytes = 10);
    let _stuck = holder(&desk, "a");
    let mut copies = [desk.pair(), desk.pair()];
    copies.iter_mut().for_each(|copy| unheard(copy, m("a").publish(1) + queue_declare(1, "q")));
    let went = together(&mut copies, PATIENCE);
    assert_eq!(went.len(), 1, "{went:?}");
    copies[went[0]].upstream(ack(1, 1));
    copies.iter_mut().for_each(|copy| copy.advance(SECOND));
    assert_eq!(copies[1 - went[0]].to_upstream(), queue_declare(1, "q"), "and not its publish");
}

/// 1 MB at 20 kB/s.
#[test]
fn p02_patience_waits_for_a_body_that_comes_slowly() {
    let desk = Desk::new();
    let mut slow = desk.confirming();
    let large = message("x", "k").id("a").body([b'x'; 1_000_000]).frame_size(20_008).publish(1);
    let (here, mut to_come) = cut(large, 2);
    slow.client(here);
    let (mut twin, mut plain, mut in_tx) = (desk.confirming(), desk.pair(), tx(&desk));
    for pair in [&mut twin, &mut plain, &mut in_tx] {
        unheard(pair, m("a").publish(1));
    }
    while !to_come.is_empty() {
        for pair in [&mut slow, &mut twin, &mut plain, &mut in_tx] {
            pair.advance(SECOND);
        }
        let (next, rest) = cut(to_come, 1);
        slow.client(next);
        to_come = rest;
    }
    for pair in [&mut twin, &mut plain, &mut in_tx] {
        pair.advance(SECOND);
        assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), Frames::none()));
    }
    slow.upstream(ack(1, 1));
    assert_eq!(slow.to_client(), ack(1, 1));
    assert_eq!(twin.to_client(), ack(1, 1));
    for pair in [&mut plain, &mut in_tx] {
        pair.advance(PATIENCE);
        assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), Frames::none()));
    }
    assert_eq!((desk.count(Event::TakenOver), desk.count(Event::Refused)), (0, 0));
}

#[test]
fn p02_patience_a_body_that_stands_still_is_closed_for_who_waits() {
    let desk = Desk::new();
    let (mut slow, to_come) = uploading(&desk, "a");
    publish_on_2(&mut slow);
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    slow.advance(PATIENCE - SECOND);
    assert_eq!(slow.to_client(), Frames::none());
    slow.advance(SECOND);
    let close = said(&slow.to_client());
    assert!(
        close.contains("connection.close 320") && close.contains("body") && close.contains("channel 1"),
        "{close}"
    );
    assert_eq!(pair.to_upstream(), m("a").publish(1), "in its place");
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::Incomplete)), 1);
    slow.client(to_come + m("c").publish(1));
    assert_eq!(slow.to_upstream(), Frames::none(), "it is not heard any more");
    slow.upstream(ack(2, 1));
    slow.client(connection_close_ok());
    slow.leave_upstream();
    assert!(slow.session.is_over());
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    assert_eq!((desk.is_seen("a"), desk.is_seen("b"), desk.in_flight()), (true, true, 0));
}

/// The rest of the body is there, behind a publish of another channel that the rate holds back. Its client is not to blame.
#[test]
fn p02_patience_a_body_behind_a_publish_that_is_held_back_may_stand_still() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    pair.open(2);
    let (here, to_come) = cut(two("a").publish(1), 3);
    pair.client(here);
    pair.to_upstream();
    let mut other = desk.confirming();
    unheard(&mut other, m("a").publish(1));
    pair.session.handle_publish_limit(pair.session.publishes(), pair.now());
    pair.client(m("b").publish(2) + to_come.clone());
    assert!(pair.session.is_at_publish_limit());
    pair.advance(2 * PATIENCE);
    assert_eq!(pair.to_client(), Frames::none(), "its connection is not closed");
    pair.session.handle_publish_limit(u64::MAX, pair.now());
    pair.pump();
    let went = said(&pair.to_upstream());
    assert!(went.contains(said(&to_come).trim()), "the body goes on: {went}");
}

/// A publish without confirms finds no room to wait aside (`held_bytes`). It asks again and again, so it waits all the same.
#[test]
fn p02_patience_a_body_that_stands_still_is_closed_for_who_has_no_room_to_wait() {
    let desk = Desk::with(|plan| plan.settings.held_bytes = 10);
    let (mut slow, _) = uploading(&desk, "a");
    let mut pair = desk.pair();
    unheard(&mut pair, m("a").publish(1));
    for _ in 0..PATIENCE.as_secs() + 1 {
        pair.advance(SECOND);
        slow.advance(SECOND);
    }
    assert!(said(&slow.to_client()).contains("connection.close 320"));
    pair.advance(SECOND);
    assert_eq!(said(&pair.to_upstream()).matches("basic.publish").count(), 1);
}

/// Something else of this connection is in flight, so that its end has to wait.
fn publish_on_2(pair: &mut Pair) {
    pair.open(2);
    confirm(pair, 2);
    pair.client(m("b").publish(2));
    assert_eq!(pair.to_upstream(), m("b").publish(2));
}

#[test]
fn p02_patience_a_body_that_stands_still_may_do_so_while_nobody_waits() {
    let desk = Desk::new();
    let (mut slow, to_come) = uploading(&desk, "a");
    slow.advance(5 * PATIENCE + SECOND);
    assert_eq!(slow.to_client(), Frames::none());
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    slow.client(to_come);
    assert_eq!(slow.to_upstream().len(), 1);
    slow.advance(5 * PATIENCE);
    assert_eq!(slow.to_client(), Frames::none(), "it is whole now, and the broker's turn");
    pair.advance(PATIENCE);
    assert_eq!(pair.to_client(), nack(1, 1));
    slow.upstream(ack(1, 1));
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (true, 0));
}

#[test]
fn p02_patience_a_body_that_drips_does_not_go_on() {
    let desk = Desk::new();
    let mut slow = desk.confirming();
    slow.client(cut(message("x", "k").id("a").body([b'x'; 100_000]).publish(1), 2).0);
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    let drip = |slow: &mut Pair, size: usize| {
        for _ in 0..30 {
            slow.client(body(1, &vec![b'x'; size]));
            slow.advance(SECOND);
        }
    };
    drip(&mut slow, 4096_usize.div_ceil(29));
    assert_eq!(slow.to_client(), Frames::none(), "4 KiB in time");
    drip(&mut slow, 100);
    assert!(said(&slow.to_client()).contains("connection.close 320"));
    assert_eq!(pair.to_upstream(), m("a").publish(1));
}

/// Publishes that wait for the body take the room, so the rest of the body is not read. The client is not to blame.
#[test]
fn p02_patience_ends_when_the_rest_of_the_body_is_behind_those_who_wait() {
    for (held, unresolved) in [(10, 1000), (10_000, 1)] {
        for confirms in [false, true] {
            let desk = Desk::with(|plan| {
                (plan.settings.held_bytes, plan.settings.max_unresolved) = (held, unresolved);
            });
            let (mut pair, to_come) = uploading(&desk, "a");
            pair.open(2);
            if confirms {
                confirm(&mut pair, 2);
            }
            pair.client(m("a").publish(2) + queue_declare(2, "q"));
            pair.client(to_come.clone());
            let (mut went, mut heard) = (Frames::none(), Frames::none());
            for _ in 0..2 * PATIENCE.as_secs() + 1 {
                pair.advance(SECOND);
                let now = pair.to_upstream();
                if said(&now).contains("basic.publish") {
                    pair.upstream(ack(2, 1));
                }
                went += now;
                heard += pair.to_client();
            }
            pair.upstream(ack(1, 1));
            went += pair.to_upstream();
            heard += pair.to_client();
            let case = format!("{held} {unresolved} {confirms}: {} {}", said(&went), said(&heard));
            let refused = if confirms { nack(2, 1) } else { Frames::none() };
            assert_eq!(heard, refused + ack(1, 1), "{case}");
            let count = |frames: Frames| said(&went).matches(&said(&frames)).count();
            assert_eq!(count(m("a").publish(2)), usize::from(!confirms), "{case}");
            assert_eq!((count(to_come), count(queue_declare(2, "q"))), (1, 1), "{case}");
        }
    }
}

#[test]
fn p02_patience_a_waiter_whose_own_body_stands_still_when_it_is_promoted() {
    let desk = Desk::new();
    let mut first = holder(&desk, "a");
    let mut slow = desk.confirming();
    let (here, _) = cut(two("a").publish(1), 3);
    unheard(&mut slow, here.clone());
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    first.upstream(nack(1, 1));
    assert_eq!(slow.to_upstream(), here);
    slow.advance(PATIENCE);
    assert!(said(&slow.to_client()).contains("connection.close 320"));
    assert_eq!(pair.to_upstream(), m("a").publish(1));
}

/// Contents do not interleave: what was promoted has to wait for a body of another id, for which nobody waits.
#[test]
fn p02_patience_a_body_that_stands_still_before_what_others_wait_for() {
    let desk = Desk::new();
    let mut first = holder(&desk, "a");
    let mut slow = desk.confirming();
    unheard(&mut slow, m("a").publish(1));
    let large = message("x", "k").bypass().body("abcdef").frame_size(11).publish(1);
    let (here, _) = cut(large, 3);
    slow.client(here.clone());
    assert_eq!(slow.to_upstream(), here);
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    slow.advance(SECOND);
    first.upstream(nack(1, 1));
    assert_eq!((slow.to_upstream(), pair.to_upstream()), (Frames::none(), Frames::none()));
    slow.advance(PATIENCE);
    assert!(said(&slow.to_client()).contains("connection.close 320"));
    assert_eq!(pair.to_upstream(), m("a").publish(1));
}

#[test]
fn p02_patience_a_client_that_vanishes_amid_a_body_keeps_nobody_waiting() {
    let desk = Desk::new();
    let (mut slow, _) = uploading(&desk, "a");
    publish_on_2(&mut slow);
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    slow.client_eof();
    assert!(!slow.session.is_over(), "b is in flight");
    assert_eq!(pair.to_upstream(), m("a").publish(1), "but a will never be whole");
    slow.upstream(ack(2, 1));
    slow.leave_upstream();
    assert!(slow.session.is_over() && desk.is_seen("b"));
}

#[test]
fn p05_patience_a_transaction_that_does_not_end_is_rolled_back_for_who_waits() {
    let desk = Desk::new();
    let mut open = tx(&desk);
    publish(&mut open, &m("a"));
    open.advance(10 * SECOND);
    publish(&mut open, &m("b"));
    let mut pair = desk.confirming();
    pair.advance(10 * SECOND);
    unheard(&mut pair, m("b").publish(1));
    open.advance(16 * SECOND);
    assert_eq!(open.to_client(), Frames::none());
    open.advance(SECOND);
    let close = said(&open.to_client());
    assert!(close.contains("channel.close 406") && close.contains("transaction"), "{close}");
    assert!(said(&open.to_upstream()).contains("channel.close 200"), "the broker rolls it back");
    assert_eq!(pair.to_upstream(), m("b").publish(1), "before its own patience ends");
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::Rollback)), 2);
    open.client(channel_close_ok(1));
    open.upstream(channel_close_ok(1));
    open.open(1);
}

#[test]
fn p05_patience_a_transaction_may_stay_open_while_nobody_waits() {
    let desk = Desk::new();
    let mut open = tx(&desk);
    publish(&mut open, &m("a"));
    open.advance(10 * PATIENCE);
    assert_eq!(open.to_client(), Frames::none());
    open.client(tx_commit(1));
    assert_eq!(open.to_upstream(), tx_commit(1));
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    open.advance(10 * PATIENCE);
    assert_eq!(open.to_client(), Frames::none(), "its end is the broker's");
}

#[test]
fn p05_patience_each_transaction_has_a_time_of_its_own() {
    let desk = Desk::new();
    let mut open = tx(&desk);
    publish(&mut open, &m("a"));
    open.advance(20 * SECOND);
    open.client(tx_commit(1));
    assert_eq!(open.to_upstream(), tx_commit(1));
    publish(&mut open, &m("b"));
    let mut pair = desk.confirming();
    unheard(&mut pair, m("b").publish(1));
    open.advance(26 * SECOND);
    assert_eq!(open.to_client(), Frames::none());
    open.advance(SECOND);
    assert!(said(&open.to_client()).contains("channel.close 406"));
}

/// The channel can't be closed amid a content; the ids are given back all the same.
#[test]
fn p05_patience_a_transaction_that_hides_behind_half_a_body() {
    let desk = Desk::new();
    let mut open = tx(&desk);
    publish(&mut open, &m("a"));
    let (here, to_come) = cut(two("b").publish(1), 3);
    open.client(here.clone());
    assert_eq!(open.to_upstream(), here);
    let mut pair = desk.confirming();
    unheard(&mut pair, m("a").publish(1));
    open.advance(PATIENCE);
    assert_eq!(pair.to_upstream(), m("a").publish(1));
    assert_eq!((open.to_client(), desk.in_flight()), (Frames::none(), 1));
    open.client(to_come.clone());
    assert!(said(&open.to_client()).contains("channel.close 406"));
}

#[test]
fn p05_patience_a_large_transaction_is_looked_at_to_its_end() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 10_000);
    let mut open = tx(&desk);
    (0..3000).for_each(|n| open.client(m(&n.to_string()).publish(1)));
    let mut pair = desk.confirming();
    unheard(&mut pair, m("2999").publish(1));
    open.to_upstream();
    open.advance(PATIENCE - SECOND);
    assert!(said(&open.to_client()).contains("channel.close 406"));
    assert_eq!(pair.to_upstream(), m("2999").publish(1));
}
