//! One rule of the contract each, told by example, on every engine.

use crate::late::LateWindow;
use crate::{Asker, LIMITS, TTL, assert_adds_up, base, window};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    EvictionCause, ForgetCause, Key, Limits, Mailbox, Mode, Ticket, Verdict, Wait, Window, reserve_one,
};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn wait(verdict: Verdict) -> Wait {
    match verdict {
        Verdict::InFlight(wait) | Verdict::Pending(wait) => wait,
        other => panic!("should wait and is {other:?}"),
    }
}

/// One letter, and what it says: the ticket, and the reservation if it is a promotion.
fn letter(mailbox: &Mailbox) -> (u64, Verdict) {
    let mut letters = mailbox.take();
    assert_eq!(letters.len(), 1, "{letters:?}");
    letters.pop().map(|(ticket, verdict)| (ticket.0, verdict)).unwrap_or_else(|| panic!("no letter"))
}

#[test]
fn window_of_three_lets_five_of_eight_through_and_counts_them() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, Limits { capacity: 3, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        assert!((0..8).all(|key| asker.publish(key, now)));
        assert_eq!(accounting.evicted(EvictionCause::Capacity), 5);
        let through: Vec<u128> = (0..8).rev().filter(|key| asker.publish(*key, now)).collect();
        assert_eq!(through, [4, 3, 2, 1, 0]);
        assert_eq!(accounting.evicted(EvictionCause::Capacity), 10);
        assert_adds_up(&window, &accounting);
    }
}

#[test]
fn the_oldest_waiter_is_promoted_and_the_rest_share_its_fate() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        let first = asker.fresh(1, now);
        let _waits = [wait(asker.ask(1, now)), wait(asker.ask(1, now))];
        first.forget(ForgetCause::Nack);
        let (ticket, verdict) = letter(&asker.mailbox);
        assert_eq!(ticket, 2);
        let Verdict::Fresh(second) = verdict else { panic!("not promoted: {verdict:?}") };
        assert_eq!(window.in_flight(), 1);
        second.commit(now, TTL);
        let (ticket, verdict) = letter(&asker.mailbox);
        assert_eq!(ticket, 3);
        assert!(matches!(verdict, Verdict::Duplicate(_)));
        assert_eq!((accounting.promoted(), accounting.forgotten(ForgetCause::Nack)), (1, 1));
        assert_eq!((accounting.fresh(), accounting.in_flight(), accounting.duplicate()), (2, 2, 1));
        assert_adds_up(&window, &accounting);
    }
}

#[test]
fn no_more_waiters_than_allowed_and_a_place_is_free_when_one_leaves() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        let first = asker.fresh(1, now);
        let one = wait(asker.ask(1, now));
        let _two = wait(asker.ask(1, now));
        assert!(matches!(asker.ask(1, now), Verdict::Crowded));
        assert_eq!(accounting.refused(), 0, "refused is what its asker nacks");
        drop(one);
        let _three = wait(asker.ask(1, now));
        first.commit(now, TTL);
        let tickets: Vec<u64> = asker.mailbox.take().iter().map(|(ticket, _)| ticket.0).collect();
        assert_eq!(tickets, [3, 5]);
    }
}

#[test]
fn the_ttl_starts_with_the_commit() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        let reservation = asker.fresh(1, now);
        let stored = now + 50 * SECOND;
        reservation.commit(stored, TTL);
        assert!(!asker.publish(1, stored + TTL - Duration::from_nanos(1)));
        assert!(asker.publish(1, stored + TTL), "expired to the nanosecond");
        assert_eq!(accounting.evicted(EvictionCause::Expired), 1);
        assert_adds_up(&window, &accounting);
    }
}

#[test]
fn a_message_may_bring_its_own_ttl_and_set_ttl_is_for_what_comes() {
    for engine in EngineKind::ALL {
        let (window, _) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        asker.fresh(1, now).commit(now, SECOND);
        assert!(asker.publish(2, now));
        window.set_ttl(2 * SECOND);
        assert!(asker.publish(3, now));
        assert_eq!((window.ttl(), window.limits().ttl), (2 * SECOND, 2 * SECOND));
        let remembered = |at| [1, 2, 3].map(|key| window.get(Key(key), at).is_some());
        assert_eq!(remembered(now + SECOND), [false, true, true]);
        assert_eq!(remembered(now + 2 * SECOND), [false, true, false]);
    }
}

#[test]
fn a_ttl_of_zero_is_no_memory_but_waiters_learn_that_it_was_stored() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        let first = asker.fresh(1, now);
        let _wait = wait(asker.ask(1, now));
        first.commit(now, Duration::ZERO);
        assert!(matches!(letter(&asker.mailbox).1, Verdict::Duplicate(_)));
        assert!(asker.publish(1, now));
        assert_eq!((accounting.committed(), accounting.evicted(EvictionCause::Expired)), (2, 1));
        assert_adds_up(&window, &accounting);
    }
}

#[test]
fn a_ttl_without_end_does_not_overflow() {
    for engine in EngineKind::ALL {
        let (window, _) = window(engine, Limits { refresh_on_duplicate: true, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        asker.fresh(1, now).commit(now, Duration::MAX);
        assert!(!asker.publish(1, now + 1_000_000 * TTL));
        assert!(window.get(Key(1), now + 1_000_000 * TTL).is_some());
    }
}

#[test]
fn a_duplicate_makes_young_only_where_that_is_asked_for() {
    for (engine, refresh_on_duplicate) in EngineKind::ALL.into_iter().flat_map(|e| [(e, false), (e, true)]) {
        let (window, _) = window(engine, Limits { refresh_on_duplicate, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        asker.publish(1, now);
        assert!(!asker.publish(1, now + 50 * SECOND));
        assert_eq!(asker.publish(1, now + 70 * SECOND), !refresh_on_duplicate);
    }
}

#[test]
fn a_look_is_not_a_duplicate_but_a_duplicate_is_seen_last() {
    for engine in EngineKind::ALL {
        let (window, _) = window(engine, Limits { capacity: 2, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        asker.publish(1, now);
        asker.publish(2, now);
        assert_eq!(window.get(Key(1), now).map(|seen| seen.duplicates), Some(0));
        asker.publish(3, now);
        assert!(window.get(Key(1), now).is_none(), "1 was the least recently seen");
        assert!(!asker.publish(2, now));
        asker.publish(4, now);
        assert!(window.get(Key(3), now).is_none() && window.get(Key(2), now).is_some());
    }
}

#[test]
fn expired_entries_leave_in_the_end_and_are_not_called_early() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, Limits { capacity: 1000, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        assert!((0..500).all(|key| asker.publish(key, now)));
        assert!((500..1000).all(|key| asker.publish(key, now + TTL)));
        assert_eq!(window.len(), 500, "two leave while one comes");
        assert_eq!(accounting.evicted(EvictionCause::Expired), 500);
        window.sweep(now + 2 * TTL);
        assert_eq!(
            (window.len(), accounting.evicted(EvictionCause::Expired)),
            (0, 1000),
            "nobody has to publish"
        );
        assert!((1000..3000).all(|key| asker.publish(key, now + 2 * TTL)));
        assert_eq!(accounting.evicted(EvictionCause::Capacity), 1000);
        assert_adds_up(&window, &accounting);
    }
}

#[test]
fn a_resize_shrinks_at_once_and_keeps_what_was_seen_last() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, Limits { capacity: 10, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        assert!((0..10).all(|key| asker.publish(key, now)));
        assert!(!asker.publish(0, now));
        window.resize(3, now);
        let kept: Vec<u128> = (0..10).filter(|key| window.get(Key(*key), now).is_some()).collect();
        assert_eq!(kept, [0, 8, 9]);
        assert_eq!(accounting.evicted(EvictionCause::Resize), 7);
        window.resize(4, now);
        assert!(asker.publish(20, now) && window.len() == 4 && window.limits().capacity == 4);
        window.resize(0, now);
        assert_eq!((window.capacity(), window.len()), (1, 1));
        assert_adds_up(&window, &accounting);
    }
}

/// Large windows are in shards: there the order is nearly exact, and the bound is exact still.
#[test]
fn a_large_window_keeps_its_bound_its_order_and_its_accounts() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, Limits { capacity: 20_000, ..LIMITS });
        let (mut asker, start) = (Asker::new(&window), base());
        let at = |key: u128| start + Duration::from_millis(u64::try_from(key).unwrap_or(0));
        assert!((0..50_000).all(|key| asker.publish(key, at(key))));
        let now = at(50_000);
        assert!(window.len() <= 20_000);
        assert!((31_500..50_000).all(|key| window.get(Key(key), now).is_some()), "the last 18,500 of 20,000");
        assert!(window.bytes() > 20_000 * 35, "{}", window.bytes());
        window.resize(1000, now);
        assert_eq!(window.len(), 1000);
        assert!((49_100..50_000).all(|key| window.get(Key(key), now).is_some()));
        window.resize(100_000, now);
        assert_eq!((window.len(), window.capacity()), (1000, 100_000));
        assert!((50_000..60_000).all(|key| asker.publish(key, now)));
        assert_eq!(window.len(), 11_000);
        assert_adds_up(&window, &accounting);
        window.flush(now);
        assert_eq!((window.len(), accounting.evicted(EvictionCause::Flush)), (0, 11_000));
        assert_adds_up(&window, &accounting);
    }
}

#[test]
fn a_reservation_is_not_evicted_flushed_forgotten_or_resized_away() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, Limits { capacity: 2, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        let reservation = asker.fresh(1, now);
        assert!((2..20).all(|key| asker.publish(key, now)));
        window.flush(now);
        window.resize(1, now);
        assert!(!window.forget(Key(1), now));
        assert!(window.get(Key(1), now).is_none() && window.is_in_flight(Key(1)));
        reservation.commit(now, TTL);
        assert!(!asker.publish(1, now));
        assert_adds_up(&window, &accounting);
    }
}

#[test]
fn one_key_can_be_forgotten() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        asker.publish(1, now);
        assert!(window.forget(Key(1), now) && !window.forget(Key(1), now));
        assert!(asker.publish(1, now));
        assert!(!window.forget(Key(1), now + TTL), "it was over already");
        assert_eq!(accounting.evicted(EvictionCause::Forget), 1);
        assert_eq!(accounting.evicted(EvictionCause::Expired), 1);
        assert_adds_up(&window, &accounting);
    }
}

#[test]
fn the_mode_can_be_changed() {
    let (window, _) = window(EngineKind::default(), LIMITS);
    window.set_mode(Mode::Observe);
    assert_eq!((window.mode(), window.limits().mode), (Mode::Observe, Mode::Observe));
}

#[test]
fn a_late_window_answers_in_any_order_and_waits_have_a_home() {
    let (inner, accounting) = window(EngineKind::default(), LIMITS);
    let (late, mailbox, now) = (LateWindow::new(inner.clone()), Arc::new(Mailbox::new()), base());
    let ask = |ticket| wait(reserve_one(&late, Key(1), now, &mailbox, Ticket(ticket)));
    let mut waits = vec![ask(1), ask(2), ask(3)];
    drop(waits.pop());
    assert_eq!(late.questions(), 2);
    assert!(late.answer_next(1, now) && late.answer_next(0, now) && !late.answer_next(0, now));
    let mut letters = mailbox.take().into_iter();
    let (Some((Ticket(2), Verdict::Fresh(first))), Some((Ticket(1), Verdict::InFlight(inner_wait)))) =
        (letters.next(), letters.next())
    else {
        panic!("2 is first and 1 waits for it")
    };
    waits.into_iter().for_each(Wait::answered);
    first.forget(ForgetCause::Returned);
    let (1, Verdict::Fresh(second)) = letter(&mailbox) else { panic!("1 takes the place of 2") };
    drop(inner_wait);
    second.commit(now, TTL);
    let _asked = ask(4);
    late.answer_next(7, now);
    assert!(matches!(letter(&mailbox), (4, Verdict::Duplicate(_))));
    assert_adds_up(&inner, &accounting);
}

#[test]
fn what_is_disowned_is_unknown_again_by_a_handle_too() {
    for engine in EngineKind::ALL {
        for by_handle in [false, true] {
            let (window, accounting) = window(engine, LIMITS);
            let (mut asker, now) = (Asker::new(&window), base());
            let handle: Arc<dyn Window> = if by_handle { window.clone().handle() } else { window.clone() };
            assert!(asker.publish(1, now) && asker.publish(2, now));
            let in_flight = asker.fresh(3, now);
            [1, 3, 4].into_iter().for_each(|key| handle.disown(Key(key).into(), now));
            assert_eq!(accounting.evicted(EvictionCause::Forget), 1);
            assert!(asker.publish(1, now) && !asker.publish(2, now));
            assert!(matches!(asker.ask(3, now), Verdict::InFlight(_)), "its outcome will decide");
            in_flight.commit(now, TTL);
            assert!(!asker.publish(3, now));
            assert_adds_up(&window, &accounting);
        }
    }
}
