//! Commits that come together: whatever is asked in between, it is as if they had come one by one.

use crate::{LIMITS, TTL, assert_adds_up, base, window};
use hapax_core::pressure::Accounting;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    EvictionCause, ForgetCause, Key, Limits, LocalWindow, Mailbox, Reservation, Reservations, Ticket,
    Verdict, Wait, reserve_one,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// With as many shards as there can be, and with one, where the order is exact.
const CAPACITIES: [usize; 2] = [65_536, 200];
const ROUNDS: u64 = 120;

#[test]
fn commits_that_come_together_are_as_commits_one_by_one() {
    for engine in [EngineKind::Compact, EngineKind::Lru] {
        for capacity in CAPACITIES {
            let limits = Limits { capacity, waiters_per_id: 4, ..LIMITS };
            let (mut one, mut all) = (Run::new(engine, limits, false), Run::new(engine, limits, true));
            let ids = capacity as u64 * 5 / 4;
            let (mut seed, mut now) = (7, base());
            for run in [&mut one, &mut all] {
                (0..ids).for_each(|id| run.publish(id, now));
            }
            for round in 0..ROUNDS {
                let publishes: Vec<(u64, Duration)> = (0..next(&mut seed) % 200)
                    .map(|_| (next(&mut seed) % ids, ttl(next(&mut seed))))
                    .collect();
                let answers = next(&mut seed);
                for run in [&mut one, &mut all] {
                    run.round(&publishes, answers, now);
                }
                assert_eq!(all.counts(), one.counts(), "{engine:?}, {capacity}, round {round}");
                assert_eq!(all.letters, one.letters, "{engine:?}, {capacity}, round {round}");
                now += Duration::from_millis(next(&mut seed) % 2_000);
            }
            for id in 0..ids {
                assert_eq!(all.window.get(key(id), now), one.window.get(key(id), now), "{engine:?}, {id}");
            }
            let [(_, escaped), (_, early), (_, waited), ..] = all.counts();
            assert!(escaped > 0 && early > 0 && waited > 0, "{escaped}, {early}, {waited}");
            assert_adds_up(&all.window, &all.accounting);
        }
    }
}

/// A commit of keys that nobody has reserved any more must give the right result, and so must one of another window's
/// keys.
#[test]
fn those_of_two_windows_and_those_that_end_at_once_go_to_their_own() {
    let limits = Limits { capacity: CAPACITIES[0], ..LIMITS };
    let [(one, told_one), (other, told_other)] = [(); 2].map(|()| window(EngineKind::Compact, limits));
    let (now, mailbox) = (base(), Arc::default());
    let mut stored = Reservations::default();
    for n in 0..300 {
        let of = if n % 3 == 0 { &other } else { &one };
        let ttl = if n % 5 == 0 { Duration::ZERO } else { TTL };
        stored.push(fresh(reserve_one(of, key(n), now, &mailbox, Ticket(n))), now, ttl);
    }
    stored.commit(now);
    stored.commit(now);
    assert_eq!((one.len(), other.len()), (160, 80));
    assert_eq!((one.in_flight(), other.in_flight()), (0, 0));
    assert_eq!((told_one.committed(), told_other.committed()), (200, 100));
    assert_eq!(told_one.evicted(EvictionCause::Expired) + told_other.evicted(EvictionCause::Expired), 60);
    [(one, told_one), (other, told_other)].iter().for_each(|(window, told)| assert_adds_up(window, told));
}

/// A session that dies between the ack and the commit: nobody knows.
#[test]
fn what_is_dropped_before_it_is_committed_is_forgotten() {
    let (window, told) = window(EngineKind::Compact, LIMITS);
    let (now, mailbox) = (base(), Arc::default());
    let mut stored = Reservations::default();
    for n in 0..3 {
        stored.push(fresh(reserve_one(&window, key(n), now, &mailbox, Ticket(n))), now, TTL);
    }
    drop(stored);
    assert_eq!((window.len(), window.in_flight(), told.forgotten(ForgetCause::InDoubt)), (0, 0, 3));
}

struct Run {
    together: bool,
    window: Arc<LocalWindow>,
    accounting: Arc<Accounting>,
    mailbox: Arc<Mailbox>,
    waits: Vec<Wait>,
    tickets: u64,
    /// Ticket and whether it was promoted, of the last round, by ticket.
    letters: Vec<(u64, bool)>,
}

impl Run {
    fn new(engine: EngineKind, limits: Limits, together: bool) -> Run {
        let (window, accounting) = window(engine, limits);
        let (mailbox, waits, letters) = (Arc::default(), Vec::new(), Vec::new());
        Run { together, window, accounting, mailbox, waits, tickets: 0, letters }
    }

    fn publish(&mut self, id: u64, now: Instant) {
        fresh(self.ask(id, now)).commit(now, TTL);
    }

    fn ask(&mut self, id: u64, now: Instant) -> Verdict {
        self.tickets += 1;
        reserve_one(&self.window, key(id), now, &self.mailbox, Ticket(self.tickets))
    }

    /// All are asked for, then most are acked, together or one by one, and some nacked.
    fn round(&mut self, publishes: &[(u64, Duration)], mut answers: u64, now: Instant) {
        let mut held = Vec::new();
        for (id, ttl) in publishes {
            match self.ask(*id, now) {
                Verdict::Fresh(reservation) => held.push((reservation, *ttl)),
                Verdict::InFlight(wait) => self.waits.push(wait),
                Verdict::Duplicate(_) | Verdict::Crowded => {}
                Verdict::Refused(_) | Verdict::Pending(_) => panic!("a local window knows at once"),
            }
        }
        let mut stored = Reservations::default();
        let mut letters = Vec::new();
        while !held.is_empty() {
            for (reservation, ttl) in held.drain(..) {
                self.answer(reservation, ttl, next(&mut answers), &mut stored, now);
            }
            stored.commit(now);
            for (ticket, verdict) in self.mailbox.take() {
                letters.push((ticket.0, matches!(verdict, Verdict::Fresh(_))));
                if let Verdict::Fresh(reservation) = verdict {
                    held.push((reservation, TTL));
                }
            }
            held.sort_by_key(|(reservation, _)| reservation.claim());
        }
        letters.sort_unstable();
        self.letters = letters;
        self.waits.clear();
        assert_eq!(self.window.in_flight(), 0);
    }

    fn answer(
        &self,
        reservation: Reservation,
        ttl: Duration,
        answer: u64,
        stored: &mut Reservations,
        now: Instant,
    ) {
        match answer % 16 {
            0 => reservation.forget(ForgetCause::Nack),
            _ if self.together => drop(stored.push(reservation, now, ttl)),
            _ => drop(reservation.commit(now, ttl)),
        }
    }

    fn counts(&self) -> [(&'static str, u64); 8] {
        let told = &self.accounting;
        [
            ("escaped", told.escaped()),
            ("early", told.evicted(EvictionCause::Capacity)),
            ("in flight", told.in_flight()),
            ("expired", told.evicted(EvictionCause::Expired)),
            ("committed", told.committed()),
            ("duplicate", told.duplicate()),
            ("fresh", told.fresh()),
            ("entries", self.window.len() as u64),
        ]
    }
}

fn key(id: u64) -> Key {
    Key(u128::from(id) + 1)
}

fn ttl(random: u64) -> Duration {
    match random % 8 {
        0 => Duration::ZERO,
        1 => Duration::from_millis(500),
        _ => TTL,
    }
}

fn fresh(verdict: Verdict) -> Reservation {
    match verdict {
        Verdict::Fresh(reservation) => reservation,
        other => panic!("should be fresh and is {other:?}"),
    }
}

/// A linear congruential generator: rounds are the same each time.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
    *seed >> 33
}
