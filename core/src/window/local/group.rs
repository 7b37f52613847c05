//! Commits that come together, as a broker acks them: each lock is taken once for all keys that it is the lock of.
//!
//! In a full window one commit takes the locks of its flight, of its shard of the engine and, twice, of its stripe of the
//! accounting. A locked instruction waits for everything before it, so that costs more than what is done under it.

use super::*;
use crate::window::engine::Compact;

impl<L: Listener + ?Sized> LocalWindow<L> {
    /// As many times [`LocalWindow::settle`], lock by lock. `commits` are [`HINTED`] at most.
    pub(super) fn settle_all(&self, engine: &Compact, commits: &[(Claim, Duration)], now: Instant) {
        let at = self.clock.stamp(now);
        let (order, ends) = by_lock(commits);
        let mut group = Group::default();
        let mut begin = 0;
        for end in ends {
            let places = order.get(begin..end).unwrap_or_default();
            let keys = places.iter().filter_map(|place| commits.get(usize::from(*place)));
            self.settle_group(engine, keys, at, &mut group);
            begin = end;
        }
        for (key, ttl) in group.special {
            self.settle(key, now, ttl, false);
        }
        for (mailbox, ticket) in group.waiters {
            mailbox.deliver(ticket, Verdict::Duplicate);
        }
    }

    /// All of one lock.
    fn settle_group<'a>(
        &self,
        engine: &Compact,
        keys: impl Iterator<Item = &'a (Claim, Duration)> + Clone,
        now: Stamp,
        group: &mut Group,
    ) {
        let Group { events, waiters, special } = group;
        let Some((Claim::Digest(first), _)) = keys.clone().next() else { return };
        let mut in_flight = self.flights.lock(*first);
        let mut shard = engine.hold(*first);
        for &(Claim::Digest(key), ttl) in keys {
            let entry = Entry { at: now, until: now.after(ttl), duplicates: 0 };
            let flight = if entry.is_expired(now) { None } else { in_flight.flights.remove(&key) };
            let Some(flight) = flight else {
                special.push((key, ttl));
                continue;
            };
            events.push(Event::Committed { claim: key.into(), now, until: entry.until });
            let mut tell = |key, entry, cause| events.push(gone(now, key, entry, cause));
            shard.insert(key, entry, now, &mut tell);
            for waiter in flight.into_waiters() {
                events.push(Event::Duplicate { claim: key.into(), now });
                waiters.push(waiter);
            }
        }
        self.listener.on_all(events);
        events.clear();
    }
}

/// What is gathered under the locks of one group, and of all groups what is done without.
#[derive(Default)]
struct Group {
    events: Vec<Event>,
    waiters: Vec<(Arc<Mailbox>, Ticket)>,
    /// Keys that nobody has, for their reservations were overtaken, or that are to be seen for no time.
    special: Vec<(Key, Duration)>,
}

/// The places of the commits, those of a lock together and in order, and where each lock's end.
#[expect(clippy::cast_possible_truncation, reason = "they are fewer")]
fn by_lock(commits: &[(Claim, Duration)]) -> ([u8; HINTED], [usize; Key::LOCKS]) {
    let mut locks = [0_u8; HINTED];
    let mut ends = [0_usize; Key::LOCKS];
    for (lock, (Claim::Digest(key), _)) in locks.iter_mut().zip(commits) {
        *lock = key.shard(Key::LOCKS) as u8;
        ends[usize::from(*lock)] += 1;
    }
    let mut sum = 0;
    let mut places = ends.map(|count| {
        sum += count;
        sum - count
    });
    let mut order = [0_u8; HINTED];
    for (place, (lock, _)) in (0..).zip(locks.iter().zip(commits)) {
        let next = &mut places[usize::from(*lock)];
        order[*next] = place;
        *next += 1;
    }
    (order, places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::event::Deaf;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;

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
        let window = LocalWindow::new(rules, limits, EngineKind::Compact, Arc::new(Deaf));
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
                            Verdict::Duplicate => break,
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
