//! Several messages of one key are in flight at a time: a consumer's copy beside another one, or one that took over from another. Each
//! stays in flight until its own outcome is known.

use crate::shelf::{SYNC, SYNC_REFUSE, Shelf};
use crate::{Asker, LIMITS, TTL, assert_adds_up, base, window};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::logged::Written;
use hapax_core::window::{
    BodyDigest, ForgetCause, Key, Limits, LocalWindow, Mailbox, Republish, Reservation, Reservations,
    TakeOver, Tenant, Verdict, Wait, Window,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn wait(verdict: Verdict) -> Wait {
    match verdict {
        Verdict::InFlight(wait) => wait,
        other => panic!("should wait and is {other:?}"),
    }
}

fn republish(window: &Arc<LocalWindow>, key: u128, now: Instant) -> (Reservation, bool) {
    let Republish { reservation, beside, .. } = window.clone().republish(Key(key).into(), now);
    (reservation, beside)
}

/// `F`: promoted; `D`: a duplicate.
fn letters(mailbox: &Mailbox) -> String {
    let letter = |verdict| if matches!(verdict, Verdict::Fresh(_)) { 'F' } else { 'D' };
    mailbox.take().into_iter().map(|(_, verdict)| letter(verdict)).collect()
}

/// How the window forgets the one that was stored.
#[derive(Clone, Copy, Debug)]
enum Past {
    Forgotten,
    Flushed,
    Evicted,
    Expired,
    NeverSeen,
}

const PASTS: [Past; 5] = [Past::Forgotten, Past::Flushed, Past::Evicted, Past::Expired, Past::NeverSeen];

/// Two reservations of key 1: the holder first. `overtakes`: the second one took over from the first, and so it holds the key.
fn both(asker: &mut Asker, overtakes: bool, now: Instant) -> (Reservation, Reservation) {
    let first = asker.fresh(1, now);
    if overtakes {
        let TakeOver::Granted(second) = wait(asker.ask(1, now)).take_over(now, now + PATIENCE) else {
            panic!("not granted")
        };
        return (first, second);
    }
    let (second, beside) = republish(&asker.window, 1, now);
    assert!(beside);
    (first, second)
}

#[test]
fn what_is_in_flight_is_never_forgotten() {
    for (engine, past) in EngineKind::ALL.into_iter().flat_map(|engine| PASTS.map(|past| (engine, past))) {
        for (overtakes, in_batch, is_stored) in (0..8).map(|n| (n & 1 == 0, n & 2 == 0, n & 4 == 0)) {
            let what = format!(
                "{engine:?}, {past:?}, overtakes {overtakes}, in a batch {in_batch}, stored {is_stored}"
            );
            // Only a large window commits a batch by its locks.
            let capacity = if in_batch && !matches!(past, Past::Evicted) { 70_000 } else { 2 };
            let (window, accounting) = window(engine, Limits { capacity, waiters_per_id: 4, ..LIMITS });
            let (mut asker, mut now) = (Asker::new(&window), base());
            let (first, second) = both(&mut asker, overtakes, now);
            let before = wait(asker.ask(1, now));
            let ttl = if matches!(past, Past::NeverSeen) { Duration::ZERO } else { TTL };
            if in_batch {
                let other = asker.fresh(7, now);
                let mut stored = Reservations::default();
                stored.push(other, now, TTL);
                stored.push(first, now, ttl);
                stored.commit(now);
            } else {
                first.commit(now, ttl);
            }
            assert_eq!(letters(&asker.mailbox), "D", "{what}: who has waited is told");
            before.answered();
            assert_eq!(window.in_flight(), 1, "{what}");
            assert_adds_up(&window, &accounting);
            match past {
                Past::NeverSeen => {}
                _ => assert!(!asker.publish(1, now), "{what}: it is seen"),
            }
            match past {
                Past::Forgotten => assert!(window.forget(Key(1), now)),
                Past::Flushed => assert!(window.flush(now) > 0),
                Past::Evicted => (10..14).for_each(|key| drop(asker.fresh(key, now).commit(now, TTL))),
                Past::Expired => now += TTL,
                Past::NeverSeen => {}
            }
            assert!(window.is_in_flight(Key(1)) && window.get(Key(1), now).is_none(), "{what}");
            let one = wait(asker.ask(1, now));
            match is_stored {
                true => drop(second.commit(now, TTL)),
                false => second.forget(ForgetCause::Nack),
            }
            assert_eq!(letters(&asker.mailbox), if is_stored { "D" } else { "F" }, "{what}");
            one.answered();
            if is_stored {
                assert!(!asker.publish(1, now), "{what}");
            }
            assert_eq!(window.in_flight(), 0, "{what}");
            assert_adds_up(&window, &accounting);
        }
    }
}

/// The holder is not stored. A waiter that is promoted then would be stored beside the copy.
#[test]
fn who_waits_waits_for_the_copy_beside_as_well() {
    for (engine, is_stored) in
        EngineKind::ALL.into_iter().flat_map(|engine| [(engine, false), (engine, true)])
    {
        let (window, accounting) = window(engine, Limits { waiters_per_id: 4, ..LIMITS });
        let (mut asker, now) = (Asker::new(&window), base());
        let (first, copy) = both(&mut asker, false, now);
        let one = wait(asker.ask(1, now));
        first.forget(ForgetCause::Nack);
        assert_eq!((letters(&asker.mailbox).as_str(), window.in_flight()), ("", 1));
        assert!(copy.is_awaited(), "it holds the key now");
        match is_stored {
            true => drop(copy.commit(now, TTL)),
            false => copy.forget(ForgetCause::Nack),
        }
        assert_eq!(letters(&asker.mailbox), if is_stored { "D" } else { "F" });
        one.answered();
        assert_eq!(window.in_flight(), 0);
        assert_adds_up(&window, &accounting);
    }
}

/// One that nobody has waited for any longer is not waited for again: a publish that is never confirmed stops nobody for good.
#[test]
fn an_overtaken_one_is_not_waited_for_again() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, LIMITS);
        let (mut asker, mut now) = (Asker::new(&window), base());
        let (stuck, second) = both(&mut asker, true, now);
        for _ in 0..3 {
            now += TTL;
            assert!(window.is_in_flight(Key(1)) || asker.publish(1, now));
        }
        second.commit(now, TTL);
        now += TTL;
        assert!(asker.publish(1, now), "its TTL is over");
        assert_eq!(window.in_flight(), 1, "the one that is stuck");
        drop(stuck);
        assert_eq!(window.in_flight(), 0);
        assert_adds_up(&window, &accounting);
    }
}

/// A consumer publishes again what was stored while a copy of another one is still on its way.
#[test]
fn a_copy_beside_one_that_outlives_the_message_before_is_a_new_message() {
    for engine in EngineKind::ALL {
        let (window, accounting) = window(engine, LIMITS);
        let (mut asker, now) = (Asker::new(&window), base());
        let (first, second) = both(&mut asker, false, now);
        first.commit(now, TTL);
        let (third, beside) = republish(&window, 1, now);
        assert!(beside && window.get(Key(1), now).is_none());
        let one = wait(asker.ask(1, now));
        second.forget(ForgetCause::Nack);
        third.forget(ForgetCause::Nack);
        assert_eq!(letters(&asker.mailbox), "F", "neither was stored");
        one.answered();
        assert_eq!((window.len(), window.in_flight()), (0, 0));
        assert_adds_up(&window, &accounting);
    }
}

/// The message before is stored, and not written. The copy beside it is acked before the store has its id, or is not acked at all.
#[test]
fn a_copy_is_in_flight_until_it_is_written_whatever_is_written_before() {
    for (engine, policy) in
        EngineKind::ALL.into_iter().flat_map(|engine| [(engine, SYNC), (engine, SYNC_REFUSE)])
    {
        for is_acked in [false, true] {
            let limits = Limits { capacity: 100, waiters_per_id: 8, ..LIMITS };
            let mut shelf = Shelf::new(engine, limits, policy);
            let first = shelf.fresh(1);
            let commit = shelf.commit(first).unwrap();
            let (copy, beside, forgotten) = shelf.republish(1);
            assert!(beside && forgotten.is_none());
            shelf.write();
            assert!(commit.is_remembered() && shelf.state(1) == 's');
            shelf.now += TTL;
            assert_eq!(shelf.state(1), 'f', "the copy is on its way");
            let _wait = shelf.waits(1);
            if is_acked {
                let commit = shelf.commit(copy).unwrap();
                assert_eq!((shelf.mail(), shelf.state(1)), (vec![], 'f'), "it is not written");
                shelf.write();
                assert!(commit.is_remembered());
                assert_eq!(shelf.mail().iter().map(|(_, name)| *name).collect::<String>(), "D");
                shelf.assert_adds_up();
                shelf.crash();
                assert_eq!(shelf.state(1), 's');
            } else {
                copy.forget(ForgetCause::Nack);
                assert_eq!(shelf.mail().iter().map(|(_, name)| *name).collect::<String>(), "F");
                shelf.assert_adds_up();
            }
        }
    }
}

/// Two copies of one delivery. The first one is stored. That the second one is not says nothing about the id in the store.
#[test]
fn a_copy_that_is_not_stored_takes_nothing_from_the_one_beside_it() {
    for engine in EngineKind::ALL {
        let mut shelf = Shelf::new(engine, Limits { capacity: 100, waiters_per_id: 8, ..LIMITS }, SYNC);
        shelf.stored(1);
        let (one, _, forgotten) = shelf.republish(1);
        shelf.write();
        assert!(forgotten.unwrap().is_remembered());
        let (two, beside, _) = shelf.republish(1);
        assert!(beside);
        let commit = shelf.commit(one).unwrap();
        shelf.write();
        assert!(commit.is_remembered() && shelf.state(1) == 's');
        two.forget(ForgetCause::Nack);
        shelf.write();
        shelf.assert_adds_up();
        shelf.crash();
        assert_eq!(shelf.state(1), 's', "its client has an ack");
    }
}

/// Another relay may mean the message before the copy, also while a third message is in flight.
#[test]
fn what_another_relay_has_stored_before_is_not_the_copy_beside() {
    for engine in EngineKind::ALL {
        let mut shelf = Shelf::new(engine, Limits { capacity: 100, waiters_per_id: 8, ..LIMITS }, SYNC);
        let first = shelf.fresh(1);
        let (two, _, _) = shelf.republish(1);
        let _commit = shelf.commit(first);
        shelf.write();
        let (three, beside, forgotten) = shelf.republish(1);
        assert!(beside && forgotten.is_some(), "the first one was seen");
        let seen = Written::Seen {
            claim: Key(1).into(),
            at: shelf.wall(),
            ttl: TTL,
            body: BodyDigest::UNKNOWN,
            tenant: Tenant::COMMON,
        };
        assert_eq!(shelf.merge(vec![seen]).seen, 0);
        for copy in [two, three] {
            copy.forget(ForgetCause::Nack);
        }
        assert_eq!(shelf.state(1), '-', "their retries pass");
        shelf.assert_adds_up();
    }
}
