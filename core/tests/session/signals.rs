//! What the publisher of a duplicate and others are told: each rule of `on_duplicate`, copies for `duplicates_to`, and lines for `audit`.

use super::desk::{Desk, SECOND, cut, m, publish, unheard};
use super::late;
use crate::support::frames::{Frames, Message, message};
use crate::support::methods::{
    ack, ack_multiple, channel_close, channel_close_ok, nack, tx_commit, tx_commit_ok, tx_rollback,
    tx_rollback_ok,
};
use crate::support::pair::Pair;
use hapax_core::session::Sighted;
use hapax_core::window::{ConfirmRule, Event, Mode, OnConflict, OnDuplicate, Told};

fn desk(rule: OnDuplicate) -> Desk {
    Desk::with(|plan| plan.rules.signals.on_duplicate = rule)
}

/// A body of 10,000 octets in frames of this size.
fn large(id: &str, frame_size: usize) -> Message {
    message("x", "k").id(id).body([7; 10_000]).frame_size(frame_size)
}

fn store(pair: &mut Pair, message: &Message, tag: u64) {
    publish(pair, message);
    pair.upstream(ack(1, tag));
    pair.to_client();
}

fn one_by_one(pair: &mut Pair, frames: Frames) {
    frames.into_iter().for_each(|frame| pair.client(frame.into()));
}

/// How often publishers were told each of these.
fn told(desk: &Desk) -> [usize; 4] {
    Told::ALL.map(|told| desk.count(Event::Told(told)))
}

#[test]
fn a_duplicate_is_nacked_and_no_ack_stands_for_it() {
    let desk = desk(OnDuplicate::Nack);
    let mut pair = desk.confirming();
    store(&mut pair, &m("a"), 1);
    pair.client(m("b").publish(1) + m("a").publish(1) + m("c").publish(1));
    assert_eq!(pair.to_upstream(), m("b").publish(1) + m("c").publish(1));
    assert_eq!(pair.to_client(), nack(1, 3), "at once, beyond one that is open");
    pair.upstream(ack_multiple(1, 3));
    assert_eq!(pair.to_client(), ack_multiple(1, 4), "behind its nack");
    pair.client(m("a").publish(1) + m("b").publish(1));
    assert_eq!(pair.to_client(), nack(1, 5) + nack(1, 6));
    assert_eq!((told(&desk), desk.in_flight()), ([3, 0, 0, 0], 0));
}

#[test]
fn a_duplicate_is_returned_as_it_was_sent_and_acked_right_behind() {
    let desk = desk(OnDuplicate::Return);
    let mut pair = desk.confirming();
    store(&mut pair, &m("a"), 1);
    let again = m("a").ttl_ms(5).app("retry 2").mandatory();
    pair.client(again.publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), again.told(1) + ack(1, 2)));
    // One that waits for another of this channel. The ack of the first does not stand for the second.
    pair.client(m("b").publish(1) + m("b").publish(1) + m("c").publish(1));
    assert_eq!(pair.to_upstream(), m("b").publish(1) + m("c").publish(1));
    pair.upstream(ack_multiple(1, 3));
    assert_eq!(pair.to_client(), ack(1, 3) + m("b").told(1) + ack(1, 4) + ack(1, 5));
    assert_eq!((told(&desk), desk.in_flight()), ([0, 2, 0, 0], 0));
}

/// Beyond a tag that is open, too.
#[test]
fn a_return_does_not_wait_for_others() {
    let desk = desk(OnDuplicate::Return);
    let mut pair = desk.confirming();
    store(&mut pair, &m("a"), 1);
    publish(&mut pair, &m("open"));
    pair.client(m("a").publish(1) + m("a").publish(1));
    assert_eq!(pair.to_client(), m("a").told(1) + ack(1, 3) + m("a").told(1) + ack(1, 4));
    pair.upstream(ack(1, 2));
    assert_eq!(pair.to_client(), ack(1, 2));
}

#[test]
fn without_confirms_a_return_says_it_and_a_nack_can_not() {
    for confirms in [ConfirmRule::Shadow, ConfirmRule::ClientOnly] {
        for (rule, says, counts) in [
            (OnDuplicate::Return, m("a").told(1), [0, 1, 0, 0]),
            (OnDuplicate::Nack, Frames::none(), [0, 0, 0, 1]),
            (OnDuplicate::Ack, Frames::none(), [0, 0, 0, 0]),
        ] {
            let desk = Desk::with(|plan| {
                plan.rules.signals.on_duplicate = rule;
                plan.rules.confirms = confirms;
            });
            desk.store("a");
            let mut pair = desk.pair();
            pair.client(m("b").publish(1));
            pair.to_upstream();
            pair.client(m("a").publish(1));
            assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), says), "{rule:?}");
            assert_eq!(told(&desk), counts);
        }
    }
}

/// As RabbitMQ does it: the returns come before `tx.commit-ok`, and what is rolled back is not returned.
#[test]
fn in_a_transaction_the_return_comes_before_commit_ok() {
    let desk = desk(OnDuplicate::Return);
    desk.store("a");
    let mut pair = desk.in_tx();
    unheard(&mut pair, m("a").publish(1));
    pair.client(tx_rollback(1));
    pair.upstream(tx_rollback_ok(1));
    assert_eq!(pair.to_client(), tx_rollback_ok(1));
    pair.to_upstream();
    // One that is stored, and one that stands in the transaction twice.
    pair.client(m("a").publish(1) + m("b").publish(1) + m("b").publish(1) + tx_commit(1));
    assert_eq!(pair.to_upstream(), m("b").publish(1) + tx_commit(1));
    // The next transaction has begun. Its returns are its own.
    unheard(&mut pair, m("a").publish(1));
    assert_eq!(pair.to_client(), Frames::none());
    pair.upstream(tx_commit_ok(1));
    assert_eq!(pair.to_client(), m("a").told(1) + m("b").told(1) + tx_commit_ok(1));
    pair.client(tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    assert_eq!(pair.to_client(), m("a").told(1) + tx_commit_ok(1));
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn in_a_transaction_a_nack_can_not_be_said() {
    let desk = desk(OnDuplicate::Nack);
    desk.store("a");
    let mut pair = desk.in_tx();
    unheard(&mut pair, m("a").publish(1));
    pair.client(m("b").publish(1) + tx_commit(1));
    assert_eq!(pair.to_upstream(), m("b").publish(1) + tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    assert_eq!((pair.to_client(), told(&desk)), (tx_commit_ok(1), [0, 0, 0, 1]));
}

/// Only the client ends a transaction. Until then returns are counted, and there is a bound.
#[test]
fn returns_that_a_transaction_holds_are_bounded_and_counted() {
    let desk = Desk::with(|plan| {
        plan.rules.signals.on_duplicate = OnDuplicate::Return;
        plan.settings.held_bytes = 25_000;
    });
    desk.store("a");
    let mut pair = desk.in_tx();
    let before = pair.session.memory().stuck;
    (0..10).for_each(|_| unheard(&mut pair, large("a", 20_000).publish(1)));
    let stuck = pair.session.memory().stuck - before;
    assert!((20_000..25_000).contains(&stuck), "{stuck}");
    assert_eq!(told(&desk), [0, 2, 0, 8]);
    pair.client(tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    let returned = large("a", 20_000).told(1);
    assert_eq!(pair.to_client(), returned.clone() + returned + tx_commit_ok(1), "and the channel goes on");
    assert_eq!(pair.session.memory().stuck, before);
}

/// A body that comes in several reads is held until it is whole. Its frames are no larger than the client's.
#[test]
fn a_body_on_the_way_is_held_and_returned_whole() {
    for rule in [OnConflict::Drop, OnConflict::Forward, OnConflict::Reject] {
        let desk = Desk::with(|plan| {
            plan.rules.signals.on_duplicate = OnDuplicate::Return;
            plan.rules.on_conflict = rule;
        });
        let mut pair = desk.confirming();
        store(&mut pair, &large("a", 20_000), 1);
        let (here, to_come) = cut(large("a", 3_000).publish(1), 3);
        let before = pair.session.memory().held;
        unheard(&mut pair, here);
        assert!(pair.session.memory().held >= before + 10_000);
        one_by_one(&mut pair, to_come);
        assert_eq!(pair.to_client(), large("a", 3_000).told(1) + ack(1, 2), "{rule:?}");
        assert_eq!((pair.to_upstream(), desk.count_like(is_duplicate)), (Frames::none(), 1));
    }
}

fn is_duplicate(event: &Event) -> bool {
    matches!(event, Event::Duplicate { .. })
}

#[test]
fn without_room_for_the_body_the_return_has_none() {
    for rule in [OnConflict::Drop, OnConflict::Reject] {
        let desk = Desk::with(|plan| {
            plan.rules.signals.on_duplicate = OnDuplicate::Return;
            plan.rules.signals.duplicates_to = Some("copies".into());
            plan.rules.on_conflict = rule;
            plan.settings.held_bytes = 5_000;
        });
        let mut pair = desk.confirming();
        store(&mut pair, &large("a", 20_000), 1);
        one_by_one(&mut pair, large("a", 3_000).publish(1));
        assert_eq!(pair.to_client(), large("a", 3_000).body("").told(1) + ack(1, 2));
        assert_eq!(told(&desk), [0, 0, 1, 0]);
        assert_eq!(pair.copied().iter().map(|copy| copy.body.clone()).collect::<Vec<_>>(), [None]);
        // In one read it need not be held.
        pair.client(large("a", 3_000).publish(1));
        assert_eq!((pair.to_client(), told(&desk)), (large("a", 3_000).told(1) + ack(1, 3), [0, 1, 1, 0]));
    }
}

/// The window does not know the body that was stored. That may not let the duplicate pass where there is no room.
#[test]
fn a_body_that_can_not_be_compared_does_not_pass_for_want_of_room() {
    let desk = Desk::with(|plan| {
        plan.rules.signals.on_duplicate = OnDuplicate::Return;
        plan.rules.on_conflict = OnConflict::Forward;
        plan.settings.held_bytes = 5_000;
    });
    desk.store("a");
    let mut pair = desk.confirming();
    one_by_one(&mut pair, large("a", 3_000).publish(1));
    assert_eq!(pair.to_upstream(), Frames::none());
    assert_eq!(pair.to_client(), large("a", 3_000).body("").told(1) + ack(1, 1));
    assert_eq!(desk.count(Event::Uncompared), 0);
}

#[test]
fn a_return_does_not_come_amid_a_delivery() {
    for rule in [OnDuplicate::Return, OnDuplicate::Nack] {
        let desk = desk(rule);
        let mut pair = desk.confirming();
        store(&mut pair, &large("a", 20_000), 1);
        let (here, to_come) = cut(large("d", 5_000).deliver(1, "c", 1), 3);
        pair.upstream(here.clone());
        assert_eq!(pair.to_client(), here);
        let held = pair.session.memory().held;
        let again = large("a", 20_000);
        unheard(&mut pair, again.publish(1));
        let held_for_it = pair.session.memory().held - held;
        assert_eq!(held_for_it > 10_000, rule == OnDuplicate::Return, "it is counted while it waits");
        pair.upstream(to_come.clone());
        let answer = if rule == OnDuplicate::Nack { nack(1, 2) } else { again.told(1) + ack(1, 2) };
        assert_eq!(pair.to_client(), to_come + answer);
        assert!(pair.session.memory().held < held + 1_000);
    }
}

/// A publish that waits for another connection's outcome hears the same, whether it is whole by then or not.
#[test]
fn those_who_wait_are_told_when_the_outcome_is_known() {
    for rule in [OnDuplicate::Return, OnDuplicate::Nack] {
        for whole in [true, false] {
            let desk = desk(rule);
            let (mut first, mut pair) = (desk.confirming(), desk.confirming());
            publish(&mut first, &large("a", 5_000));
            let frames = large("a", 5_000).publish(1);
            let (here, to_come) = cut(frames.clone(), if whole { frames.len() } else { 3 });
            unheard(&mut pair, here);
            first.upstream(ack(1, 1));
            assert_eq!(first.to_client(), ack(1, 1), "the first one is none");
            pair.pump();
            pair.client(to_come);
            let answer = match rule {
                OnDuplicate::Nack => nack(1, 1),
                _ => large("a", 5_000).told(1) + ack(1, 1),
            };
            assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), answer), "{rule:?} {whole}");
        }
    }
}

/// The store of a window finds the duplicate.
#[test]
fn a_late_verdict_is_told_too() {
    for (rule, answer) in [(OnDuplicate::Return, m("a").told(1) + ack(1, 2)), (OnDuplicate::Nack, nack(1, 2))]
    {
        let (desk, late) = late::late(|plan| plan.rules.signals.on_duplicate = rule);
        let mut pair = desk.confirming();
        unheard(&mut pair, m("a").publish(1));
        late.answer_next(0, pair.now());
        pair.pump();
        pair.to_upstream();
        pair.upstream(ack(1, 1));
        pair.to_client();
        unheard(&mut pair, m("a").publish(1));
        late.answer_next(0, pair.now());
        pair.pump();
        assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), answer));
    }
}

/// Without confirms a publish waits on when its client has closed the channel. Nothing is said there after the close.
#[test]
fn nothing_is_returned_on_a_channel_that_its_client_has_closed() {
    let desk = desk(OnDuplicate::Return);
    let mut first = desk.confirming();
    publish(&mut first, &m("a"));
    let mut pair = desk.pair();
    pair.client(m("b").publish(1));
    pair.to_upstream();
    pair.upstream(ack(1, 1));
    unheard(&mut pair, m("a").publish(1));
    pair.client(channel_close(1, 200, "bye"));
    pair.advance(SECOND);
    let asked = pair.to_upstream();
    assert_eq!(asked.len(), 1, "a sign is asked for: {asked:?}");
    pair.upstream(crate::support::methods::flow_ok(1, true));
    pair.pump();
    assert_eq!(pair.to_client(), channel_close_ok(1));
    first.upstream(ack(1, 1));
    pair.pump();
    assert_eq!(pair.to_client(), Frames::none());
    assert_eq!(desk.in_flight(), 0);
}

/// It was forwarded to another exchange. Its return names the one that the client knows.
#[test]
fn a_return_names_the_exchange_that_the_client_has_named() {
    let desk = Desk::with(|plan| {
        plan.rules.signals.on_duplicate = OnDuplicate::Return;
        plan.rules.forward_to = Some("backing".into());
    });
    desk.store("a");
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_client(), m("a").told(1) + ack(1, 1));
}

#[test]
fn a_window_that_observes_tells_nobody() {
    let desk = Desk::with(|plan| {
        plan.rules.signals.on_duplicate = OnDuplicate::Return;
        plan.rules.signals.duplicates_to = Some("copies".into());
        plan.rules.signals.audit = true;
        plan.limits.mode = Mode::Observe;
    });
    let mut pair = desk.confirming();
    store(&mut pair, &m("a"), 1);
    publish(&mut pair, &m("a"));
    one_by_one(&mut pair, large("a", 3_000).publish(1));
    assert_eq!(pair.to_upstream(), large("a", 3_000).publish(1));
    pair.upstream(ack_multiple(1, 3));
    assert_eq!(pair.to_client(), ack_multiple(1, 3));
    assert_eq!((told(&desk), pair.copied(), pair.audited()), ([0; 4], vec![], vec![]));
}

/// A conflict that is dropped is a duplicate. One that is refused is nacked, whatever `on_duplicate` says.
#[test]
fn conflicts_are_told_as_duplicates_unless_they_are_refused() {
    for (rule, answer, counts) in [
        (OnConflict::Drop, m("a").body("other").told(1) + ack(1, 2), [0, 1, 0, 0]),
        (OnConflict::Reject, nack(1, 2), [0; 4]),
    ] {
        let desk = Desk::with(|plan| {
            plan.rules.signals.on_duplicate = OnDuplicate::Return;
            plan.rules.signals.duplicates_to = Some("copies".into());
            plan.rules.signals.audit = true;
            plan.rules.on_conflict = rule;
        });
        let mut pair = desk.confirming();
        store(&mut pair, &m("a"), 1);
        pair.client(m("a").body("other").publish(1));
        assert_eq!((pair.to_client(), told(&desk)), (answer, counts), "{rule:?}");
        assert_eq!((pair.copied().len(), pair.audited()[0].what), (1, Sighted::Conflict(rule)));
    }
}

#[test]
fn a_copy_has_all_that_the_publisher_has_sent() {
    let desk = Desk::with(|plan| plan.rules.signals.duplicates_to = Some("copies".into()));
    let mut pair = desk.confirming();
    store(&mut pair, &large("a", 3_000), 1);
    for whole in [true, false] {
        match whole {
            true => pair.client(large("a", 3_000).publish(1)),
            false => one_by_one(&mut pair, large("a", 3_000).publish(1)),
        }
        let copies = pair.copied();
        let [copy] = &copies[..] else { panic!("{copies:?}") };
        assert_eq!((&*copy.window, &*copy.to, &*copy.vhost), ("test", "copies", &b"/"[..]));
        assert_eq!((&*copy.exchange, &*copy.routing_key), (&b"x"[..], &b"k"[..]));
        let sent = large("a", 3_000).publish(1).0[1].encode();
        assert_eq!(copy.header, sent[7..sent.len() - 1]);
        assert_eq!(copy.body.as_deref(), Some(&[7; 10_000][..]));
    }
    assert_eq!(pair.to_client(), ack(1, 2) + ack(1, 3));
    store(&mut pair, &m("b"), 2);
    assert_eq!(pair.copied(), [], "what is forwarded is not copied");
}

/// One line for each, with a bound for each second of a connection.
#[test]
fn what_is_dropped_is_a_line_of_the_audit_up_to_a_bound() {
    let desk = Desk::with(|plan| plan.rules.signals.audit = true);
    let mut pair = desk.confirming();
    store(&mut pair, &m("a"), 1);
    (0..3).for_each(|_| pair.client(m("a").publish(1)));
    let lines = pair.audited();
    assert_eq!(
        lines.iter().map(|line| (line.what, &*line.id)).collect::<Vec<_>>(),
        [(Sighted::Dropped, &b"a"[..]); 3]
    );
    (0..500).for_each(|_| pair.client(m("a").publish(1)));
    assert_eq!(pair.audited().len(), 197);
    assert_eq!(pair.session.unaudited(), 303);
    pair.advance(SECOND);
    pair.client(m("a").publish(1));
    assert_eq!(pair.audited().iter().map(|line| line.left_out).collect::<Vec<_>>(), [303]);
    assert_eq!(pair.session.unaudited(), 0);
}
