//! Bodies beside ids: every engine keeps the digest of what was stored, and a publish with another body may replace it.

use crate::{Asker, LIMITS, TTL, assert_adds_up, base, window};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    Ask, BodyDigest, EvictionCause, ForgetCause, Key, Limits, Memo, Reservation, Reservations, Ticket,
    Verdict, Window,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The small one has one shard. The large one has the largest number.
const CAPACITIES: [usize; 2] = [100, 70_000];

fn body(number: u128) -> BodyDigest {
    BodyDigest::of(&number.to_le_bytes())
}

fn memo(number: u128) -> Memo {
    Memo::new(TTL, body(number))
}

fn supersede(asker: &mut Asker, key: u128, own: BodyDigest, now: Instant) -> Verdict {
    asker.tickets += 1;
    let ask = Ask { claim: Key(key).into(), ticket: Ticket(asker.tickets) };
    Arc::clone(&asker.window).supersede(ask, own, now, &asker.mailbox)
}

fn fresh(verdict: Verdict) -> Reservation {
    match verdict {
        Verdict::Fresh(reservation) => reservation,
        other => panic!("should be fresh and is {other:?}"),
    }
}

fn stored(verdict: Verdict) -> BodyDigest {
    match verdict {
        Verdict::Duplicate(body) => body,
        other => panic!("should be a duplicate and is {other:?}"),
    }
}

/// Whatever happens to an id while it is remembered, its body is the one that was stored.
#[test]
fn every_engine_keeps_the_body_with_the_id() {
    for engine in EngineKind::ALL {
        for (capacity, refresh_on_duplicate) in [(100, false), (100, true), (20_000, false)] {
            let limits = Limits { capacity, refresh_on_duplicate, ..LIMITS };
            let (window, accounting) = window(engine, limits);
            let (mut asker, mut now) = (Asker::new(&window), base());
            for key in 0..100 {
                asker.fresh(key, now).commit(now, memo(key));
            }
            for round in 0..3 {
                now += Duration::from_secs(5);
                for key in 0..100 {
                    assert_eq!(stored(asker.ask(key, now)), body(key), "{engine:?}, {key}, round {round}");
                }
                window.resize([30_000, 100, 70_000][round], now);
            }
            let forgotten = window.forget(Key(7), now);
            asker.fresh(7, now).commit(now, memo(1_007));
            assert_eq!((forgotten, stored(asker.ask(7, now))), (true, body(1_007)));
            assert_adds_up(&window, &accounting);
        }
    }
}

/// A commit of a batch, and one by one, and to those who wait.
#[test]
fn a_commit_tells_its_body_to_all_who_wait() {
    for engine in EngineKind::ALL {
        for capacity in CAPACITIES {
            let (window, accounting) = window(engine, Limits { capacity, ..LIMITS });
            let (mut asker, now) = (Asker::new(&window), base());
            let mut batch = Reservations::default();
            for key in 0..40 {
                let first = asker.fresh(key, now);
                let Verdict::InFlight(wait) = asker.ask(key, now) else { panic!("not in flight") };
                batch.push(first, now, memo(key));
                wait.answered();
            }
            batch.commit(now);
            let letters = asker.mailbox.take();
            assert_eq!(letters.len(), 40);
            for (Ticket(ticket), verdict) in letters {
                assert_eq!(stored(verdict), body(u128::from(ticket) / 2 - 1), "{engine:?}, ticket {ticket}");
            }
            assert_adds_up(&window, &accounting);
        }
    }
}

/// The new body replaces the old one with the ack, and not before; the sums hold at every moment.
#[test]
fn what_was_stored_stays_seen_until_another_body_is_stored() {
    for engine in EngineKind::ALL {
        for capacity in CAPACITIES {
            for batch in [false, true] {
                let (window, accounting) = window(engine, Limits { capacity, ..LIMITS });
                let (mut asker, now) = (Asker::new(&window), base());
                asker.fresh(1, now).commit(now, memo(10));
                assert_eq!(stored(supersede(&mut asker, 1, body(10), now)), body(10), "it is the same");
                let second = fresh(supersede(&mut asker, 1, body(20), now));
                assert_eq!((window.len(), window.in_flight()), (1, 1));
                assert_adds_up(&window, &accounting);
                let Verdict::InFlight(_) = asker.ask(1, now) else { panic!("not in flight") };
                second.forget(ForgetCause::Nack);
                assert_eq!(stored(asker.ask(1, now)), body(10), "what was stored is still there");
                assert_adds_up(&window, &accounting);

                let third = fresh(supersede(&mut asker, 1, body(30), now));
                if batch {
                    let others = (2..9).map(|key| asker.fresh(key, now)).collect::<Vec<_>>();
                    let mut all = Reservations::default();
                    all.push(third, now, memo(30));
                    others.into_iter().for_each(|other| drop(all.push(other, now, memo(1))));
                    all.commit(now);
                } else {
                    third.commit(now, memo(30));
                }
                assert_eq!(stored(asker.ask(1, now)), body(30), "{engine:?}, {capacity}, batch {batch}");
                assert_eq!(accounting.evicted(EvictionCause::Superseded), 1);
                assert_eq!(window.len(), if batch { 8 } else { 1 });
                assert_adds_up(&window, &accounting);
            }
        }
    }
}

/// One is forwarded; those who have waited for it hear of what is stored, or take its place.
#[test]
fn those_who_wait_for_another_body_that_is_not_stored_hear_of_the_first() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, Limits { capacity: 100, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        asker.fresh(1, now).commit(now, memo(10));
        let second = fresh(supersede(&mut asker, 1, body(20), now));
        let waits = [asker.ask(1, now), supersede(&mut asker, 1, body(20), now)];
        assert!(waits.iter().all(|verdict| matches!(verdict, Verdict::InFlight(_))), "{waits:?}");
        second.forget(ForgetCause::Nack);
        let letters = asker.mailbox.take();
        assert_eq!(letters.len(), 2);
        letters.into_iter().for_each(|(_, verdict)| assert_eq!(stored(verdict), body(10)));
        assert_eq!(window.in_flight(), 0);
        drop(waits);

        // The first body is forgotten meanwhile: the first who waits takes the place.
        let third = fresh(supersede(&mut asker, 1, body(30), now));
        let Verdict::InFlight(wait) = asker.ask(1, now) else { panic!("not in flight") };
        window.forget(Key(1), now);
        third.forget(ForgetCause::Nack);
        let promoted = asker.mailbox.take().pop().map(|(_, verdict)| fresh(verdict)).expect("a letter");
        wait.answered();
        promoted.commit(now, memo(40));
        assert_eq!(stored(asker.ask(1, now)), body(40));
        assert_adds_up(&window, &accounting);
    }
}

/// A publish that waits never hears of a body that had expired before it asked.
#[test]
fn what_expires_while_another_body_is_in_flight_is_not_heard_of() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, Limits { capacity: 100, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        asker.fresh(1, now).commit(now, memo(10));
        let second = fresh(supersede(&mut asker, 1, body(20), now));
        let Verdict::InFlight(wait) = asker.ask(1, now + TTL) else { panic!("not in flight") };
        assert_adds_up(&window, &accounting);
        second.forget(ForgetCause::Nack);
        let promoted = asker.mailbox.take().pop().map(|(_, verdict)| fresh(verdict));
        assert!(promoted.is_some(), "{engine:?}");
        wait.answered();
        drop(promoted);
        assert_eq!((window.len(), window.in_flight()), (0, 0));
        assert_adds_up(&window, &accounting);
        // And it is superseded as if it had never been there.
        asker.fresh(2, now).commit(now, memo(10));
        fresh(supersede(&mut asker, 2, body(10), now + TTL)).commit(now + TTL, memo(10));
        assert_adds_up(&window, &accounting);
    }
}

/// Its content is still on its way, it is overtaken, the overtaker fails: what is stored is heard of at the end.
#[test]
fn one_that_was_overtaken_still_supersedes() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, Limits { capacity: 100, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        asker.fresh(1, now).commit(now, memo(10));
        let second = fresh(supersede(&mut asker, 1, body(20), now));
        second.set_uploading(true);
        second.set_uploading(false);
        let Verdict::InFlight(wait) = asker.ask(1, now) else { panic!("not in flight") };
        let later = now + Duration::from_secs(1);
        let hapax_core::window::TakeOver::Granted(third) = wait.take_over(now, later) else {
            panic!("granted")
        };
        assert_adds_up(&window, &accounting);
        third.forget(ForgetCause::Nack);
        second.commit(later, memo(20));
        assert_eq!((stored(asker.ask(1, later)), window.len()), (body(20), 1), "{engine:?}");
        assert_adds_up(&window, &accounting);
    }
}
