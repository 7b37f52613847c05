//! A waiter that has waited long enough takes the key over: by examples on every engine, with many waiters for the
//! cost, and with two threads.

use crate::cost::assert_linear;
use crate::{Asker, LIMITS, TTL, assert_adds_up, base, window};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    ForgetCause, Key, Limits, LocalWindow, Mailbox, Reservation, TakeOver, Ticket, Verdict, Wait, Window,
    reserve_one,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn wait(verdict: Verdict) -> Wait {
    match verdict {
        Verdict::InFlight(wait) => wait,
        other => panic!("should wait and is {other:?}"),
    }
}

fn granted(taken: TakeOver) -> Reservation {
    match taken {
        TakeOver::Granted(reservation) => reservation,
        other => panic!("not granted: {other:?}"),
    }
}

fn since(taken: TakeOver) -> Instant {
    match taken {
        TakeOver::Wait { since } => since,
        other => panic!("need not wait: {other:?}"),
    }
}

/// Returns the tickets of the letters that have arrived, and whether each one is a promotion.
fn letters(mailbox: &Mailbox) -> Vec<(u64, bool)> {
    let letters = mailbox.take();
    letters.iter().map(|(ticket, verdict)| (ticket.0, matches!(verdict, Verdict::Fresh(_)))).collect()
}

#[test]
fn of_all_who_wait_one_takes_over_and_the_others_share_its_fate() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, Limits { waiters_per_id: 64, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        let stuck = asker.fresh(1, now);
        let mut waits: Vec<(Instant, Wait)> = (0..64).map(|_| (now, wait(asker.ask(1, now)))).collect();
        let mut taken = Vec::new();
        for round in 1..=3 {
            let now = now + PATIENCE * round;
            let mut over = 0;
            waits.retain_mut(|(begin, wait)| {
                if *begin + PATIENCE > now {
                    return true;
                }
                match wait.take_over(*begin, now) {
                    TakeOver::Granted(reservation) => {
                        over += 1;
                        taken.push(reservation);
                        false
                    }
                    TakeOver::Wait { since } => {
                        *begin = since;
                        true
                    }
                    TakeOver::Answered => panic!("nobody has answered"),
                }
            });
            assert_eq!(over, 1, "round {round}");
        }
        assert_eq!((accounting.takeovers(), window.in_flight()), (3, 4));
        assert_adds_up(&window, &accounting);
        taken.pop().into_iter().for_each(|last| drop(last.commit(now, TTL)));
        assert_eq!(letters(&asker.mailbox).len(), 61, "all others are told");
        assert_eq!(accounting.duplicate(), 61);
        drop(stuck);
        drop(taken);
        assert_eq!((window.len(), window.in_flight()), (1, 0), "what is stored stays seen");
        assert_adds_up(&window, &accounting);
    }
}

#[test]
fn the_rollback_of_an_overtaken_reservation_disturbs_nobody() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        let first = asker.fresh(1, now);
        let one = wait(asker.ask(1, now));
        let _two = wait(asker.ask(1, now));
        let second = granted(one.take_over(now, now + PATIENCE));
        first.forget(ForgetCause::Nack);
        assert_eq!((letters(&asker.mailbox), window.in_flight()), (vec![], 1));
        second.forget(ForgetCause::Returned);
        assert_eq!(letters(&asker.mailbox), [(3, true)], "and the next one is promoted as ever");
        assert_adds_up(&window, &accounting);
    }
}

/// Its own turn is not that of any reservation that comes after it.
#[test]
fn an_overtaken_reservation_does_not_touch_a_later_flight_of_its_key() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        let first = asker.fresh(1, now);
        granted(wait(asker.ask(1, now)).take_over(now, now + PATIENCE)).commit(now, TTL);
        assert_eq!(window.in_flight(), 1, "the first one's outcome is open");
        assert!(window.forget(Key(1), now));
        let later = asker.fresh(1, now);
        let _wait = wait(asker.ask(1, now));
        first.forget(ForgetCause::Nack);
        assert!(window.is_in_flight(Key(1)) && letters(&asker.mailbox).is_empty());
        later.commit(now, TTL);
        assert_eq!(letters(&asker.mailbox), [(4, false)]);
        assert_adds_up(&window, &accounting);
    }
}

/// The one that took over fails while the first is still on its way: nobody is fresh, for the first may be stored yet.
#[test]
fn a_key_goes_back_to_the_one_that_was_overtaken() {
    for (engine, stored) in EngineKind::ALL.into_iter().flat_map(|engine| [(engine, false), (engine, true)]) {
        let (window, accounting) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        let first = asker.fresh(1, now);
        let mut asked = now;
        for _ in 0..3 {
            let one = wait(asker.ask(1, asked));
            granted(one.take_over(asked, asked + PATIENCE)).forget(ForgetCause::ChannelClosed);
            asked += PATIENCE;
        }
        assert_eq!(window.in_flight(), 1);
        let _waits = wait(asker.ask(1, asked));
        match stored {
            true => drop(first.commit(asked, TTL)),
            false => first.forget(ForgetCause::Nack),
        }
        assert_eq!(letters(&asker.mailbox), [(5, !stored)]);
        assert_adds_up(&window, &accounting);
    }
}

#[test]
fn what_an_overtaken_reservation_stores_is_seen() {
    for (engine, second_stores) in EngineKind::ALL.into_iter().flat_map(|e| [(e, false), (e, true)]) {
        let (window, accounting) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        let first = asker.fresh(1, now);
        let (one, _two) = (wait(asker.ask(1, now)), wait(asker.ask(1, now)));
        let second = granted(one.take_over(now, now + PATIENCE));
        first.commit(now + PATIENCE, TTL);
        assert_eq!(letters(&asker.mailbox), [(3, false)]);
        assert_eq!(window.in_flight(), 1, "the second is on its way to the broker, too");
        match second_stores {
            true => drop(second.commit(now + PATIENCE, TTL)),
            false => second.forget(ForgetCause::Nack),
        }
        assert!(!asker.publish(1, now + PATIENCE));
        assert_eq!((window.len(), window.in_flight()), (1, 0));
        assert_adds_up(&window, &accounting);
    }
}

#[test]
fn who_was_promoted_is_given_the_same_patience() {
    for engine in EngineKind::ALL {
        let (window, _) = window(engine, Limits { waiters_per_id: 9, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        let first = asker.fresh(1, now);
        let (_one, two) = (wait(asker.ask(1, now)), wait(asker.ask(1, now)));
        first.forget(ForgetCause::Nack);
        let promoted = asker.mailbox.take();
        // Nobody has looked at a clock when it was promoted: from the first look on.
        let later = now + PATIENCE;
        let three = wait(asker.ask(1, later));
        assert_eq!(since(two.take_over(now, later + Duration::from_secs(1))), later);
        granted(three.take_over(later, later + PATIENCE)).forget(ForgetCause::Nack);
        drop(promoted);
    }
}

#[test]
fn while_a_body_is_on_its_way_nobody_takes_over() {
    for engine in EngineKind::ALL {
        let (window, _) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        let first = asker.fresh(1, now);
        first.set_uploading(true);
        assert!(!first.is_awaited());
        let one = wait(asker.ask(1, now));
        assert!(first.is_awaited() && one.waits_on() && window.waits_on(Key(1).into(), None));
        let later = now + PATIENCE;
        assert_eq!(since(one.take_over(now, later)), later);
        first.set_uploading(false);
        assert!(!one.waits_on());
        let second = granted(one.take_over(later, later + PATIENCE));
        first.set_uploading(true);
        assert!(!window.waits_on(Key(1).into(), None), "an overtaken one has no say");
        assert!(!second.is_awaited() && !first.is_awaited());
    }
}

#[test]
fn who_finds_no_room_to_wait_takes_over_as_others_do() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, Limits { waiters_per_id: 0, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        let first = asker.fresh(1, now);
        let take = |since, now| window.clone().take_over(Key(1).into(), since, now, None);
        assert!(matches!(asker.ask(1, now), Verdict::Crowded));
        assert!(first.is_awaited(), "by somebody who asks again");
        assert!(!first.is_awaited(), "until it does");
        let later = now + PATIENCE;
        let second = granted(take(now, later));
        assert_eq!(since(take(now, later)), later, "somebody has just done so");
        second.commit(later, TTL);
        assert!(matches!(take(later, later + PATIENCE), TakeOver::Answered));
        assert_eq!((accounting.takeovers(), accounting.refused()), (1, 0));
    }
}

#[test]
fn a_letter_that_is_on_its_way_is_the_answer() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        let first = asker.fresh(1, now);
        let (one, two) = (wait(asker.ask(1, now)), wait(asker.ask(1, now)));
        first.forget(ForgetCause::Nack);
        assert!(matches!(one.take_over(now, now + PATIENCE), TakeOver::Answered), "it has the key already");
        assert!(one.waits_on() && !two.waits_on());
        let promoted = asker.mailbox.take();
        drop(promoted);
        assert_eq!(letters(&asker.mailbox), [(3, true)]);
        assert!(matches!(two.take_over(now, now + PATIENCE), TakeOver::Answered));
        assert_adds_up(&window, &accounting);
    }
}

/// 16,000 who wait for one id cost about as much for each as 1,000.
#[test]
fn cost_of_those_who_wait_for_one_key() {
    type Rig = (Arc<LocalWindow>, Vec<Wait>, Reservation);
    let prepare = |count: usize| {
        let (window, _) = window(EngineKind::Compact, Limits { waiters_per_id: usize::MAX, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        let first = asker.fresh(1, now);
        let waits: Vec<Wait> = (0..count).map(|_| wait(asker.ask(1, now))).collect();
        (window, waits, first)
    };
    let leave_backwards = |(window, mut waits, first): Rig| {
        while waits.pop().is_some() {}
        (window, first)
    };
    let leave_from_the_middle = |(window, mut waits, first): Rig| {
        while !waits.is_empty() {
            drop(waits.swap_remove(waits.len() / 2));
        }
        (window, first)
    };
    let take_over = |(_, waits, first): Rig| {
        let now = base();
        let taken: Vec<Reservation> = waits.iter().map(|wait| granted(wait.take_over(now, now))).collect();
        // The oldest first: each was overtaken by all that came after it.
        drop(first);
        taken.into_iter().for_each(drop);
    };
    let promote = |(_, waits, first): Rig| {
        first.forget(ForgetCause::Nack);
        drop(waits);
    };
    assert_linear("leave backwards", 1_000, prepare, leave_backwards);
    assert_linear("leave from the middle", 1_000, prepare, leave_from_the_middle);
    assert_linear("take over", 1_000, prepare, take_over);
    assert_linear("promote", 1_000, prepare, promote);
}

/// Two threads with holders that are stuck and waiters that lose their patience. If both publishes are stored, the id
/// is stored twice, but seen once.
#[test]
fn two_threads_that_take_over_lose_no_count_and_leave_nobody_waiting() {
    const KEYS: u64 = 200;
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, Limits { capacity: 10_000, waiters_per_id: 16, ..LIMITS });
        let now = base();
        let run = |seed: u64| {
            let (window, mailbox) = (window.clone(), Arc::new(Mailbox::new()));
            move || {
                let mut waits: HashMap<Ticket, Wait> = HashMap::new();
                let mut held: Vec<(Ticket, Reservation)> = Vec::new();
                for n in 0..20 * KEYS {
                    let now = now + Duration::from_micros(n);
                    let key = Key(u128::from((n * (4 * seed - 1)) % KEYS));
                    match reserve_one(&window, key, now, &mailbox, Ticket(n)) {
                        Verdict::Fresh(reservation) => held.push((Ticket(n), reservation)),
                        Verdict::InFlight(wait) => drop(waits.insert(Ticket(n), wait)),
                        Verdict::Crowded | Verdict::Duplicate(_) => {}
                        Verdict::Refused(_) | Verdict::Pending(_) => panic!("a local window knows at once"),
                    }
                    if n % 16 == 0
                        && let Some(ticket) = waits.keys().next().copied()
                        && let TakeOver::Granted(reservation) = waits[&ticket].take_over(now, now)
                    {
                        waits.remove(&ticket);
                        held.push((ticket, reservation));
                    }
                    for (ticket, verdict) in mailbox.take() {
                        assert!(waits.remove(&ticket).is_some(), "nobody waits for {ticket:?}");
                        if let Verdict::Fresh(reservation) = verdict {
                            held.push((ticket, reservation));
                        }
                    }
                    // Most of the keys, so that everybody waits for somebody.
                    if held.len() > 150 {
                        let (ticket, reservation) = held.swap_remove(held.len() / 2);
                        match ticket.0 % 3 {
                            0 => drop(reservation.commit(now, Duration::from_micros(50))),
                            _ => reservation.forget(ForgetCause::Nack),
                        }
                    }
                }
                drop(held);
                while !waits.is_empty() {
                    for (ticket, verdict) in mailbox.take() {
                        assert!(waits.remove(&ticket).is_some(), "nobody waits for {ticket:?}");
                        drop(verdict);
                    }
                    thread::yield_now();
                }
            }
        };
        let threads = [thread::spawn(run(1)), thread::spawn(run(2))];
        threads.into_iter().for_each(|thread| thread.join().unwrap_or_else(|_| panic!("thread")));
        window.sweep(now + TTL);
        assert_eq!(window.in_flight(), 0);
        assert!(accounting.takeovers() > 0 && accounting.promoted() > 0);
        assert_adds_up(&window, &accounting);
    }
}
