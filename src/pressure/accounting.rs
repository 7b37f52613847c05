//! One counter per kind of event. One [`Accounting`] per window, rendered by [`crate::admin`].

use super::facts::{Facts, Publishes};
use super::whatif::Sampler;
use crate::window::{Event, EvictionCause, ForgetCause, Listener, LocalWindow, Window};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Counts a window's events since the start, without a lock. Two counters that are read one after the other may be an
/// event apart.
#[derive(Debug, Default)]
pub struct Accounting {
    fresh: Counter,
    duplicate: Counter,
    in_flight: Counter,
    no_id: Counter,
    bypassed: Counter,
    committed: Counter,
    committed_in_doubt: Counter,
    promoted: Counter,
    refused: Counter,
    forgotten: [Counter; ForgetCause::ALL.len()],
    evicted: [Counter; EvictionCause::ALL.len()],
    what_if: Sampler,
}

impl Accounting {
    /// All zero.
    pub fn new() -> Accounting {
        Accounting::default()
    }

    /// Verdicts *fresh*, those by promotion included: publishes forwarded on the window's word.
    pub fn fresh(&self) -> u64 {
        self.fresh.value()
    }

    /// Verdicts *duplicate*, those that had to wait for it included: publishes taken out (or, observed, forwarded).
    pub fn duplicate(&self) -> u64 {
        self.duplicate.value()
    }

    /// Verdicts *in flight*: publishes that had to wait. Each is counted again by what came of it.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.value()
    }

    /// Publishes without an id.
    pub fn no_id(&self) -> u64 {
        self.no_id.value()
    }

    /// Publishes that asked not to be judged.
    pub fn bypassed(&self) -> u64 {
        self.bypassed.value()
    }

    /// Keys that became seen because the upstream said so.
    pub fn committed(&self) -> u64 {
        self.committed.value()
    }

    /// Keys that became seen although nobody knows whether they were stored.
    pub fn committed_in_doubt(&self) -> u64 {
        self.committed_in_doubt.value()
    }

    /// Waiters that took the place of a first that failed.
    pub fn promoted(&self) -> u64 {
        self.promoted.value()
    }

    /// Publishes that could not be kept waiting.
    pub fn refused(&self) -> u64 {
        self.refused.value()
    }

    /// Reservations given up for this cause.
    pub fn forgotten(&self, cause: ForgetCause) -> u64 {
        self.forgotten.get(cause as usize).map_or(0, Counter::value)
    }

    /// Reservations given up.
    pub fn forgotten_total(&self) -> u64 {
        self.forgotten.iter().map(Counter::value).sum()
    }

    /// Seen keys removed for this cause.
    pub fn evicted(&self, cause: EvictionCause) -> u64 {
        self.evicted.get(cause as usize).map_or(0, Counter::value)
    }

    /// Seen keys removed.
    pub fn evicted_total(&self) -> u64 {
        self.evicted.iter().map(Counter::value).sum()
    }

    /// Everything that is known of the window that this listens to.
    pub fn facts(&self, window: &LocalWindow, _now: Instant) -> Facts {
        let by_cause = |name: &'static str, count: u64| (name.to_owned(), count);
        let (entries, bytes) = (window.len() as u64, window.bytes() as u64);
        Facts {
            publishes: Publishes {
                fresh: self.fresh(),
                duplicate: self.duplicate(),
                in_flight: self.in_flight(),
                no_id: self.no_id(),
                bypassed: self.bypassed(),
            },
            commits: self.committed(),
            commits_in_doubt: self.committed_in_doubt(),
            promoted: self.promoted(),
            refused: self.refused(),
            forgotten: ForgetCause::ALL.map(|cause| by_cause(cause.name(), self.forgotten(cause))).into(),
            evictions: EvictionCause::ALL.map(|cause| by_cause(cause.name(), self.evicted(cause))).into(),
            entries,
            in_flight: window.in_flight() as u64,
            capacity: window.capacity() as u64,
            ttl_seconds: window.ttl().as_secs_f64(),
            bytes: bytes + self.what_if.bytes() as u64,
            what_if: self.what_if.facts(bytes_per_id(window), self.resolved()),
            ..Facts::default()
        }
    }

    /// About once a second: averages and level.
    pub fn tick(&self, window: &LocalWindow, now: Instant) {
        self.what_if.tick(window.limits(), now, self.resolved());
    }

    /// Publishes whose outcome is known, as the what-if curve counts them.
    fn resolved(&self) -> u64 {
        self.committed() + self.committed_in_doubt() + self.duplicate()
    }

    fn counter(&self, event: &Event) -> Option<&Counter> {
        Some(match event {
            Event::Fresh { .. } => &self.fresh,
            Event::Duplicate { .. } => &self.duplicate,
            Event::InFlight => &self.in_flight,
            Event::NoId => &self.no_id,
            Event::Bypassed => &self.bypassed,
            Event::Committed { .. } => &self.committed,
            Event::CommittedInDoubt { .. } => &self.committed_in_doubt,
            Event::Promoted => &self.promoted,
            Event::Refused => &self.refused,
            Event::Forgotten(cause) => return self.forgotten.get(*cause as usize),
            Event::Evicted { cause, .. } => return self.evicted.get(*cause as usize),
        })
    }
}

impl Listener for Accounting {
    fn on(&self, event: &Event) {
        if let Some(counter) = self.counter(event) {
            counter.0.fetch_add(1, Relaxed);
        }
        self.what_if.on(event);
    }
}

/// Of a full window: the measured figure of an empty one says little.
fn bytes_per_id(window: &LocalWindow) -> f64 {
    window.store_bytes_at(window.capacity()) as f64 / window.capacity() as f64
}

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Key;
    use crate::window::engine::Stamp;

    /// Every event has a counter of its own: after the n-th event was told n times, all counters differ.
    #[test]
    fn every_event_moves_its_own_counter() {
        let accounting = Accounting::new();
        let (key, now, until) = (Key(1), Stamp(1), Stamp(2));
        let plain = [
            Event::Fresh { key },
            Event::Duplicate { key, now },
            Event::InFlight,
            Event::NoId,
            Event::Bypassed,
            Event::Committed { key, now, until },
            Event::CommittedInDoubt { key, now, until },
            Event::Promoted,
            Event::Refused,
        ];
        let forgotten = ForgetCause::ALL.map(Event::Forgotten);
        let evicted = EvictionCause::ALL.map(|cause| Event::Evicted { key, at: now, until, now, cause });
        let events: Vec<Event> = plain.into_iter().chain(forgotten).chain(evicted).collect();
        for (n, event) in events.iter().enumerate() {
            (0..=n).for_each(|_| accounting.on(event));
        }
        let read: Vec<u64> = [
            accounting.fresh(),
            accounting.duplicate(),
            accounting.in_flight(),
            accounting.no_id(),
            accounting.bypassed(),
            accounting.committed(),
            accounting.committed_in_doubt(),
            accounting.promoted(),
            accounting.refused(),
        ]
        .into_iter()
        .chain(ForgetCause::ALL.map(|cause| accounting.forgotten(cause)))
        .chain(EvictionCause::ALL.map(|cause| accounting.evicted(cause)))
        .collect();
        assert_eq!(read, (1..=events.len() as u64).collect::<Vec<_>>());
        assert_eq!(accounting.forgotten_total(), (10..=15).sum::<u64>());
        assert_eq!(accounting.evicted_total(), (16..=20).sum::<u64>());
    }
}
