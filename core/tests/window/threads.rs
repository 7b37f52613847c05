//! Two threads at the same keys.

use crate::{LIMITS, TTL, assert_adds_up, base, window};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    ForgetCause, Key, Limits, LocalWindow, Mailbox, Reservation, Reservations, Ticket, Verdict, Wait,
    reserve_one,
};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

const KEYS: u64 = 2_000;
const ROUNDS: u64 = 5;

/// Each key is committed once, whichever thread reserves it. Every eighth outcome is a nack, so that waiters are
/// promoted. One of the threads commits in batches, which go lock by lock if there are as many shards as possible.
#[test]
fn two_threads_commit_each_key_once_and_leave_nothing_in_flight() {
    for (engine, capacity) in
        EngineKind::ALL.into_iter().flat_map(|engine| [(engine, 10_000), (engine, 70_000)])
    {
        let limits = Limits { capacity, waiters_per_id: 16, ..LIMITS };
        let (window, accounting) = window(engine, limits);
        let now = base();
        let publish = |seed| {
            let window = window.clone();
            move || Publisher::new(window, now, seed).run()
        };
        let threads = [thread::spawn(publish(1)), thread::spawn(publish(2))];
        let committed: u64 = threads.into_iter().map(|t| t.join().unwrap_or_else(|_| panic!("thread"))).sum();
        assert_eq!(committed, KEYS, "each key once");
        assert_eq!((window.len() as u64, window.in_flight()), (KEYS, 0));
        assert_eq!(accounting.fresh() + accounting.duplicate(), 2 * ROUNDS * KEYS);
        assert_adds_up(&window, &accounting);
    }
}

/// Small capacity: evictions, sweeps and resizes of one thread meet the commits of the other.
#[test]
fn two_threads_and_a_resizer_lose_no_count() {
    for engine in EngineKind::ALL {
        let limits = Limits { capacity: 100, waiters_per_id: 16, ..LIMITS };
        let (window, accounting) = window(engine, limits);
        let now = base();
        let resizer = window.clone();
        thread::scope(|scope| {
            for seed in [1, 2] {
                let window = window.clone();
                scope.spawn(move || Publisher::new(window, now, seed).run());
            }
            scope.spawn(move || {
                for step in 0..200 {
                    resizer.resize(if step % 2 == 0 { 50 } else { 100 }, now);
                    resizer.sweep(now + TTL);
                    thread::yield_now();
                }
            });
        });
        window.sweep(now);
        assert!(window.len() <= 100, "{}", window.len());
        assert_eq!(window.in_flight(), 0);
        assert_adds_up(&window, &accounting);
    }
}

struct Publisher {
    window: Arc<LocalWindow>,
    now: Instant,
    seed: u64,
    mailbox: Arc<Mailbox>,
    waits: HashMap<Ticket, Wait>,
    held: VecDeque<(Ticket, Reservation)>,
    committed: u64,
}

impl Publisher {
    fn new(window: Arc<LocalWindow>, now: Instant, seed: u64) -> Publisher {
        Publisher {
            window,
            now,
            seed,
            mailbox: Arc::default(),
            waits: HashMap::new(),
            held: VecDeque::new(),
            committed: 0,
        }
    }

    /// All keys, a few times, in an order of its own; then whatever still waits.
    fn run(mut self) -> u64 {
        for n in 0..KEYS * ROUNDS {
            let key = Key(u128::from((n * (4 * self.seed - 1)) % KEYS));
            let verdict = reserve_one(&self.window, key, self.now, &self.mailbox, Ticket(n));
            self.take_in(Ticket(n), verdict);
            self.read_mail();
            self.settle(if n % 64 == 0 { 8 } else { 72 });
        }
        self.settle(0);
        let mut patience = 10_000_000_u32;
        while !self.waits.is_empty() {
            patience = patience.checked_sub(1).unwrap_or_else(|| panic!("nobody answers: {:?}", self.waits));
            self.read_mail();
            self.settle(0);
            thread::yield_now();
        }
        self.committed
    }

    /// The upstream answers, but for the last few.
    fn settle(&mut self, keep: usize) {
        let mut stored = Reservations::default();
        while self.held.len() > keep
            && let Some((ticket, reservation)) = self.held.pop_front()
        {
            if ticket.0 % 8 == self.seed {
                reservation.forget(ForgetCause::Nack);
            } else {
                if self.seed == 1 {
                    stored.push(reservation, self.now, TTL);
                } else {
                    reservation.commit(self.now, TTL);
                }
                self.committed += 1;
            }
        }
        stored.commit(self.now);
    }

    fn read_mail(&mut self) {
        for (ticket, verdict) in self.mailbox.take() {
            self.waits.remove(&ticket);
            self.take_in(ticket, verdict);
        }
    }

    fn take_in(&mut self, ticket: Ticket, verdict: Verdict) {
        match verdict {
            Verdict::Fresh(reservation) => self.held.push_back((ticket, reservation)),
            Verdict::InFlight(wait) => {
                self.waits.insert(ticket, wait);
            }
            Verdict::Duplicate(_) => {}
            Verdict::Crowded | Verdict::Refused(_) | Verdict::Pending(_) => panic!("{ticket:?}: {verdict:?}"),
        }
    }
}
