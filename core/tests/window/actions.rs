//! Any list of actions: what the window says, holds and tells is what the model says, holds and tells.

use crate::model::{Entry, Letter, Model, Said, Taken};
use crate::{LIMITS, TTL, assert_adds_up, base, key_of, window};
use hapax_core::pressure::Accounting;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    EvictionCause, ForgetCause, Key, Limits, LocalWindow, Mailbox, Republish, Reservation, Seen, TakeOver,
    Ticket, Verdict, Wait, Window, reserve_one,
};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

const KEYS: u128 = 8;
const SESSIONS: usize = 3;

#[derive(Clone, Debug)]
enum Action {
    Reserve {
        key: u128,
        session: usize,
    },
    /// A consumer publishes its delivery again.
    Republish {
        key: u128,
        session: usize,
    },
    Commit {
        pick: usize,
        ttl: Duration,
        in_doubt: bool,
    },
    Rollback {
        pick: usize,
        cause: ForgetCause,
    },
    Drop {
        pick: usize,
    },
    Leave {
        pick: usize,
    },
    /// A waiter has lost its patience.
    TakeOver {
        pick: usize,
    },
    /// A waiter that found no room to wait has lost its patience, too. The instant says since when it has tried.
    TakeOverCrowded {
        key: u128,
        session: usize,
        waited: Duration,
    },
    Upload {
        pick: usize,
        uploading: bool,
    },
    Awaited {
        pick: usize,
    },
    /// A session dies: with its reservations first, or with its waits first.
    Die {
        session: usize,
        reservations_first: bool,
    },
    Forget {
        key: u128,
    },
    Resize {
        capacity: usize,
    },
    Flush,
    Sweep,
    Advance {
        by: Duration,
    },
}

fn action() -> impl Strategy<Value = Action> {
    let pick = 0..16_usize;
    let ttl = prop::sample::select(vec![Duration::ZERO, Duration::from_millis(10), TTL, TTL, TTL, 60 * TTL]);
    let by = prop::sample::select(vec![1, 10, 1_000, 59_999, 60_000]).prop_map(Duration::from_millis);
    let cause = prop::sample::select(ForgetCause::ALL.to_vec());
    prop_oneof![
        12 => (0..KEYS, 0..SESSIONS).prop_map(|(key, session)| Action::Reserve { key, session }),
        3 => (0..KEYS, 0..SESSIONS).prop_map(|(key, session)| Action::Republish { key, session }),
        8 => (pick.clone(), ttl, prop::bool::weighted(0.1))
            .prop_map(|(pick, ttl, in_doubt)| Action::Commit { pick, ttl, in_doubt }),
        2 => (pick.clone(), cause).prop_map(|(pick, cause)| Action::Rollback { pick, cause }),
        1 => pick.clone().prop_map(|pick| Action::Drop { pick }),
        1 => pick.clone().prop_map(|pick| Action::Leave { pick }),
        3 => pick.clone().prop_map(|pick| Action::TakeOver { pick }),
        1 => (0..KEYS, 0..SESSIONS, prop::sample::select(vec![Duration::ZERO, Duration::from_millis(10), TTL]))
            .prop_map(|(key, session, waited)| Action::TakeOverCrowded { key, session, waited }),
        2 => (pick.clone(), any::<bool>()).prop_map(|(pick, uploading)| Action::Upload { pick, uploading }),
        1 => pick.prop_map(|pick| Action::Awaited { pick }),
        1 => (0..SESSIONS, any::<bool>())
            .prop_map(|(session, reservations_first)| Action::Die { session, reservations_first }),
        1 => (0..KEYS).prop_map(|key| Action::Forget { key }),
        1 => (1..6_usize).prop_map(|capacity| Action::Resize { capacity }),
        1 => Just(Action::Flush),
        1 => Just(Action::Sweep),
        4 => by.prop_map(|by| Action::Advance { by }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_list_of_actions(
        actions in prop::collection::vec(action(), 1..120),
        capacity in 1..6_usize,
        waiters_per_id in 0..4_usize,
        refresh_on_duplicate: bool,
    ) {
        for engine in EngineKind::ALL {
            let limits = Limits { capacity, waiters_per_id, refresh_on_duplicate, ..LIMITS };
            let mut run = Run::new(engine, limits);
            for (step, action) in actions.iter().enumerate() {
                println!("{step}: {action:?}");
                run.act(action);
                run.check();
            }
        }
    }
}

struct Run {
    engine: EngineKind,
    window: Arc<LocalWindow>,
    accounting: Arc<Accounting>,
    now: Instant,
    model: Model,
    tickets: u64,
    mailboxes: Vec<Arc<Mailbox>>,
    /// With the model's number of each.
    reservations: Vec<(usize, u64, Reservation)>,
    /// With since when each has waited.
    waits: Vec<(usize, Instant, Wait)>,
}

impl Run {
    fn new(engine: EngineKind, limits: Limits) -> Run {
        let (window, accounting) = window(engine, limits);
        Run {
            engine,
            window,
            accounting,
            now: base(),
            model: Model {
                refresh: limits.refresh_on_duplicate,
                bound: limits.waiters_per_id,
                ..Model::default()
            },
            tickets: 0,
            mailboxes: std::iter::repeat_with(Arc::default).take(SESSIONS).collect(),
            reservations: Vec::new(),
            waits: Vec::new(),
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Reserve { key, session } => self.reserve(key, session),
            Action::Republish { key, session } => {
                let Republish { reservation, beside, .. } =
                    self.window.clone().republish(Key(key).into(), self.now);
                let (id, expected) = self.model.republish(key);
                assert_eq!(beside, expected);
                self.reservations.push((session, id, reservation));
            }
            Action::Commit { pick, ttl, in_doubt } => self.commit(pick, ttl, in_doubt),
            Action::Rollback { pick, cause } => {
                if let Some((_, id, reservation)) = picked(&mut self.reservations, pick) {
                    self.model.rollback(key_of(&reservation), id, cause);
                    reservation.forget(cause);
                }
            }
            Action::Drop { pick } => {
                if let Some((_, id, reservation)) = picked(&mut self.reservations, pick) {
                    self.model.rollback(key_of(&reservation), id, ForgetCause::InDoubt);
                }
            }
            Action::Leave { pick } => {
                if let Some((session, _, wait)) = picked(&mut self.waits, pick) {
                    self.model.leave(|waiter| *waiter == (session, wait.ticket().0));
                }
            }
            Action::TakeOver { pick } => {
                if let Some((session, since, wait)) = picked(&mut self.waits, pick) {
                    self.take_over(session, since, wait);
                }
            }
            Action::TakeOverCrowded { key, session, waited } => {
                let since = self.now.checked_sub(waited).unwrap_or(self.now);
                let taken = self.window.clone().take_over(Key(key).into(), since, self.now, None);
                let expected = self.model.take_over(key, since, self.now, None);
                self.take_in_taken(session, taken, expected);
            }
            Action::Upload { pick, uploading } => {
                if !self.reservations.is_empty() {
                    let (_, id, reservation) = &self.reservations[pick % self.reservations.len()];
                    reservation.set_uploading(uploading);
                    self.model.upload(key_of(reservation), *id, uploading);
                }
            }
            Action::Awaited { pick } => {
                if !self.reservations.is_empty() {
                    let (_, id, reservation) = &self.reservations[pick % self.reservations.len()];
                    let expected = self.model.is_awaited(key_of(reservation), *id);
                    assert_eq!(reservation.is_awaited(), expected);
                }
            }
            Action::Die { session, reservations_first } => self.die(session, reservations_first),
            Action::Forget { key } => {
                assert_eq!(self.window.forget(Key(key), self.now), self.model.forget(key));
            }
            Action::Resize { capacity } => {
                self.window.resize(capacity, self.now);
                assert_eq!(self.window.capacity(), capacity);
                self.reconcile(EvictionCause::Resize);
            }
            Action::Flush => {
                self.window.flush(self.now);
                self.model.flush();
                assert!(self.window.is_empty());
            }
            Action::Sweep => self.window.sweep(self.now),
            Action::Advance { by } => {
                self.now += by;
                self.model.time_is(self.now);
            }
        }
    }

    fn reserve(&mut self, key: u128, session: usize) {
        self.tickets += 1;
        let waiter = (session, self.tickets);
        let mailbox = &self.mailboxes[session];
        let verdict = reserve_one(&self.window, Key(key), self.now, mailbox, Ticket(self.tickets));
        let expected = self.model.reserve(key, self.now, waiter);
        self.take_in(session, verdict, expected);
    }

    /// Keeps the guard.
    fn take_in(&mut self, session: usize, verdict: Verdict, expected: Said) {
        let said = match (verdict, expected) {
            (Verdict::Fresh(reservation), Said::Fresh(id)) => {
                self.reservations.push((session, id, reservation));
                expected
            }
            (Verdict::InFlight(wait), _) => {
                self.waits.push((session, self.now, wait));
                Said::InFlight
            }
            (Verdict::Crowded, _) => Said::Crowded,
            (Verdict::Duplicate(_), _) => Said::Duplicate,
            (verdict, expected) => panic!("{verdict:?} is not {expected:?}"),
        };
        assert_eq!(said, expected);
    }

    fn take_over(&mut self, session: usize, since: Instant, wait: Wait) {
        let waiter = (session, wait.ticket().0);
        let key = self.model.flights.iter().find(|flight| flight.waiters.contains(&waiter)).map(|f| f.key);
        let key = key.unwrap_or_else(|| panic!("{waiter:?} waits for nothing"));
        let taken = wait.take_over(since, self.now);
        let expected = self.model.take_over(key, since, self.now, Some(waiter));
        if let TakeOver::Wait { since } = taken {
            self.waits.push((session, since, wait));
        }
        self.take_in_taken(session, taken, expected);
    }

    fn take_in_taken(&mut self, session: usize, taken: TakeOver, (expected, id): (Taken, u64)) {
        let said = match taken {
            TakeOver::Granted(reservation) => {
                self.reservations.push((session, id, reservation));
                Taken::Granted
            }
            TakeOver::Wait { since } => Taken::Wait(since),
            TakeOver::Answered => Taken::Answered,
        };
        assert_eq!(said, expected);
    }

    fn commit(&mut self, pick: usize, ttl: Duration, in_doubt: bool) {
        let Some((_, id, reservation)) = picked(&mut self.reservations, pick) else { return };
        self.model.commit((key_of(&reservation), id), self.now, ttl, in_doubt);
        if in_doubt {
            reservation.commit_in_doubt(self.now, ttl);
        } else {
            reservation.commit(self.now, ttl);
        }
        self.reconcile(EvictionCause::Capacity);
    }

    /// The letters that came to a mailbox while its session died are dropped with it: what is in them is in doubt.
    fn die(&mut self, session: usize, reservations_first: bool) {
        let mine = |(owner, ..): &mut (usize, _, _)| *owner == session;
        let reservations: Vec<_> = self.reservations.extract_if(.., mine).collect();
        let mine = |(owner, ..): &mut (usize, _, _)| *owner == session;
        let waits: Vec<_> = self.waits.extract_if(.., mine).collect();
        let mailbox = std::mem::take(&mut self.mailboxes[session]);
        if !reservations_first {
            drop(waits);
            self.model.leave(|waiter| waiter.0 == session);
            self.drop_all(reservations);
            return;
        }
        self.drop_all(reservations);
        drop(mailbox);
        self.model.leave(|waiter| waiter.0 == session);
        drop(waits);
        while let Some(index) = self.model.letters.iter().position(|letter| letter.to.0 == session) {
            let Letter { said, key, .. } = self.model.letters.remove(index);
            let Said::Fresh(id) = said else { panic!("{said:?}") };
            self.model.rollback(key, id, ForgetCause::InDoubt);
        }
    }

    fn drop_all(&mut self, reservations: Vec<(usize, u64, Reservation)>) {
        for (_, id, reservation) in reservations {
            self.model.rollback(key_of(&reservation), id, ForgetCause::InDoubt);
        }
    }

    /// Live entries that had to go: the least recently seen, and only because the window is full. With more live ones than
    /// room that is the only way. With expired ones in between it depends: all but `moka` look at more of their tail than
    /// these windows hold, so there an expired one goes first.
    fn reconcile(&mut self, cause: EvictionCause) {
        let capacity = self.window.capacity();
        let must = self.model.entries.len().saturating_sub(capacity);
        let mut went = 0;
        while let Some(oldest) = self.model.entries.first()
            && self.window.get(Key(oldest.key), self.now).is_none()
        {
            self.model.entries.remove(0);
            self.model.evict(cause);
            went += 1;
        }
        assert!(went >= must, "{went} had to go, not {must}");
        if went > must {
            assert_eq!(self.window.len(), capacity, "evicted without need");
            assert!(
                self.engine == EngineKind::Moka || cause == EvictionCause::Resize,
                "an expired one should go"
            );
        }
        assert!(went <= 1 || cause == EvictionCause::Resize, "one came and {went} went");
    }

    fn check(&mut self) {
        self.check_letters();
        for key in 0..KEYS {
            let entry = self.model.entries.iter().find(|entry| entry.key == key);
            let seen = entry.map(|&Entry { at, until, duplicates, .. }| Seen { at, until, duplicates });
            assert_eq!(self.window.get(Key(key), self.now), seen, "key {key}");
            let in_flight = self.model.flights.iter().any(|flight| flight.key == key);
            assert_eq!(self.window.is_in_flight(Key(key)), in_flight, "key {key}");
            assert_eq!(self.window.waits_on(Key(key).into(), None), self.model.waits_on(key), "key {key}");
        }
        assert_eq!(self.window.in_flight(), self.reservations.len());
        assert!(self.window.len() <= self.window.capacity());
        self.check_counts();
        assert_adds_up(&self.window, &self.accounting);
    }

    fn check_letters(&mut self) {
        let mut expected = std::mem::take(&mut self.model.letters);
        for session in 0..SESSIONS {
            for (ticket, verdict) in self.mailboxes[session].take() {
                self.waits.retain(|(owner, _, wait)| (*owner, wait.ticket()) != (session, ticket));
                let index = expected.iter().position(|letter| letter.to == (session, ticket.0));
                let index = index.unwrap_or_else(|| panic!("{ticket:?} of {session}: {verdict:?}"));
                self.take_in(session, verdict, expected.remove(index).said);
            }
        }
        assert!(expected.is_empty(), "did not come: {expected:?}");
    }

    fn check_counts(&self) {
        let accounting = &self.accounting;
        for (what, count) in [
            ("fresh", accounting.fresh()),
            ("duplicate", accounting.duplicate()),
            ("in flight", accounting.in_flight()),
            ("republished", accounting.republished()),
            ("refused", accounting.refused()),
            ("promoted", accounting.promoted()),
            ("taken over", accounting.takeovers()),
            ("committed", accounting.committed()),
            ("in doubt", accounting.committed_in_doubt()),
        ] {
            assert_eq!(count, self.model.said.get(what).copied().unwrap_or(0), "{what}");
        }
        for cause in ForgetCause::ALL {
            assert_eq!(
                accounting.forgotten(cause),
                self.model.forgotten.get(&cause).copied().unwrap_or(0),
                "{cause:?}"
            );
        }
        let unswept = (self.window.len() - self.model.entries.len()) as u64;
        for cause in EvictionCause::ALL {
            let late = if cause == EvictionCause::Expired { unswept } else { 0 };
            let evicted = self.model.evicted.get(&cause).copied().unwrap_or(0);
            assert_eq!(accounting.evicted(cause) + late, evicted, "{cause:?}");
        }
    }
}

fn picked<T>(list: &mut Vec<T>, pick: usize) -> Option<T> {
    if list.is_empty() {
        return None;
    }
    let index = pick % list.len();
    Some(list.remove(index))
}
