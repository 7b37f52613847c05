//! Commits that come together, as a broker acks them: each lock is taken once for all keys that it is the lock of.
//!
//! In a full window one commit takes the lock of its flight, the lock of its engine's shard and, twice, the lock of its stripe of
//! the accounting. A locked instruction waits for all reads before it, so a lock costs more than the work that is done under it.

use super::by_lock::ByLock;
use super::engine::{Compact, Entry, Stamp};
use super::flight::Flights;
use super::{BodyDigest, Commit, Event, EvictionCause, Listener, Mailbox, Ticket, Verdict};
use std::sync::Arc;

/// There is room for this many events from the beginning. A lock has four of 64 commits on average, and a commit has two events in
/// a full window.
const EVENTS: usize = 16;

/// A group of commits that is under way.
pub(super) struct CommitGroup<'a, L: ?Sized> {
    flights: &'a Flights,
    engine: &'a Compact,
    listener: &'a L,
    now: Stamp,
    /// The events of one lock, told while it is held.
    events: Vec<Event>,
    /// The waiters of all keys. Their letters are delivered when no lock is held.
    waiters: Vec<(Arc<Mailbox>, Ticket, BodyDigest)>,
    /// Commits that have to be made one by one: the reservation was overtaken, or another one is beside it, or the TTL is zero.
    special: Vec<Commit>,
}

impl<'a, L: Listener + ?Sized> CommitGroup<'a, L> {
    /// An empty group. The engine must have one shard for each lock.
    pub(super) fn new(
        flights: &'a Flights,
        engine: &'a Compact,
        listener: &'a L,
        now: Stamp,
    ) -> CommitGroup<'a, L> {
        let (waiters, special) = Default::default();
        let events = Vec::with_capacity(EVENTS);
        CommitGroup { flights, engine, listener, now, events, waiters, special }
    }

    /// Commits all of them, [`HINTED`](super::HINTED) at most, lock by lock. `one` makes a commit that needs more than that.
    pub(super) fn commit(mut self, commits: &[Commit], one: impl Fn(&Commit)) {
        let order = ByLock::of(commits.iter().map(|commit| commit.claim.key()));
        for places in order.groups() {
            self.commit_of_lock(places.iter().filter_map(|place| commits.get(usize::from(*place))));
        }
        self.special.iter().for_each(one);
        for (mailbox, ticket, body) in self.waiters {
            mailbox.deliver(ticket, Verdict::Duplicate(body));
        }
    }

    /// Commits all keys of one lock.
    fn commit_of_lock<'b>(&mut self, commits: impl Iterator<Item = &'b Commit> + Clone) {
        let now = self.now;
        let Some(first) = commits.clone().next().map(|commit| commit.claim.key()) else { return };
        let mut in_flight = self.flights.lock(first);
        let mut shard = self.engine.hold(first);
        for commit in commits {
            let &Commit { claim, turn, memo } = commit;
            let key = claim.key();
            let entry = Entry { at: now, until: memo.until(now), duplicates: 0, body: memo.body() };
            let flight = if entry.is_expired(now) { None } else { in_flight.take_alone(key, turn) };
            let Some(flight) = flight else {
                self.special.push(*commit);
                continue;
            };
            let events = &mut self.events;
            events.push(Event::Committed { claim, now, until: entry.until });
            if flight.supersedes()
                && let Some(old) = shard.remove(key)
            {
                events.push(Event::evicted(now, key, old, EvictionCause::Superseded));
            }
            shard.insert(key, entry, memo.tenant(), now, &mut |key, entry, cause| {
                events.push(Event::evicted(now, key, entry, cause));
            });
            for waiter in flight.into_waiters() {
                events.push(Event::Duplicate { claim, now });
                self.waiters.push((waiter.0, waiter.1, entry.body));
            }
        }
        self.listener.on_all(&self.events);
        self.events.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::engine::EngineKind;
    use crate::window::event::NoListener;
    use crate::window::{Key, Limits, LocalWindow, Mode, Reservations, Rules, reserve_one};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;
    use std::time::{Duration, Instant};

    /// Keys of one lock, for as many rounds as it takes until somebody would come in between.
    const ROUNDS: usize = 20_000;
    const GROUP: usize = 8;

    /// Somebody asks for a key all the time while it is committed with others: it is in flight, then seen, and never neither.
    #[test]
    fn nobody_comes_between_in_flight_and_seen() {
        #[expect(clippy::disallowed_methods, reason = "one base instant")]
        let now = Instant::now();
        let ttl = Duration::from_secs(60);
        let limits = Limits {
            capacity: 70_000,
            ttl,
            mode: Mode::Enforce,
            refresh_on_duplicate: false,
            waiters_per_id: 16,
        };
        let rules = Rules::named("group");
        let window = LocalWindow::new(rules, limits, EngineKind::Compact, Arc::new(NoListener));
        let keys: Vec<Key> =
            (1..).map(Key).filter(|key| key.shard(Key::LOCKS) == 3).take(ROUNDS * GROUP).collect();
        let [reserved, seen, neither] = [0; 3].map(AtomicUsize::new);
        let wait_for = |round: &AtomicUsize, at_least| {
            while round.load(SeqCst) < at_least {
                thread::yield_now();
            }
        };
        let ask = |key, mailbox: &Arc<Mailbox>| reserve_one(&window, key, now, mailbox, Ticket(1));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mailbox = Arc::default();
                for (round, group) in keys.chunks(GROUP).enumerate() {
                    let verdicts: Vec<Verdict> = group.iter().map(|key| ask(*key, &mailbox)).collect();
                    reserved.store(round + 1, SeqCst);
                    let mut stored = Reservations::default();
                    for verdict in verdicts {
                        if let Verdict::Fresh(reservation) = verdict {
                            stored.push(reservation, now, ttl);
                        }
                    }
                    stored.commit(now);
                    wait_for(&seen, round + 1);
                }
            });
            scope.spawn(|| {
                let mailbox = Arc::default();
                for (round, group) in keys.chunks(GROUP).enumerate() {
                    wait_for(&reserved, round + 1);
                    loop {
                        match ask(group[0], &mailbox) {
                            Verdict::Duplicate(_) => break,
                            Verdict::Fresh(_) => neither.fetch_add(1, SeqCst),
                            _ => 0,
                        };
                    }
                    seen.store(round + 1, SeqCst);
                }
            });
        });
        assert_eq!((neither.into_inner(), window.in_flight()), (0, 0));
    }
}
