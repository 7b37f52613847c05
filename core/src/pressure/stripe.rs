//! One stripe of the counting: the counters of its keys, its part of the ghost, and the journal between the two.
//!
//! A key belongs to one stripe, so per key everything happens in the order in which the window tells it. What concerns the
//! ghost is written into the journal and worked off when that is full: then all the cache lines that it takes are asked for
//! at once, and the publish that filled it pays for 32. While nothing was evicted early there is no ghost and no journal.

use super::ages::Ages;
use super::form::Form;
use super::ghost::Ghost;
use crate::window::engine::Stamp;
use crate::window::{EvictionCause, Key};
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Records that are worked off together.
const JOURNAL: usize = 32;

/// See the module's doc. Aligned so that no two share a cache line, nor the pair of lines that is fetched together.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Stripe {
    pub(super) fresh: Cell,
    pub(super) duplicate: Cell,
    pub(super) committed: Cell,
    /// Somewhere in the ledger there is a key that was evicted early. Whoever commits such a key sees it: the eviction came
    /// before, and only with the ledger's lock held is it taken back.
    is_haunted: AtomicBool,
    ledger: Mutex<Ledger>,
}

/// A counter that never has two writers at once: the window's lock on a key keeps them apart (see
/// [`Listener`](crate::window::Listener)). Without that lock, adding would wait for all that was written before it.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    pub(super) fn add(&self) {
        self.0.store(self.0.load(Relaxed) + 1, Relaxed);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Stripe {
    /// To read.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// Whether a key that is committed can be in the ghost.
    pub(super) fn is_haunted(&self) -> bool {
        self.is_haunted.load(Relaxed)
    }

    /// To write.
    pub(super) fn write<T>(&self, write: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger.lock();
        let result = write(&mut ledger);
        self.is_haunted.store(ledger.concerns_ghost(), Relaxed);
        result
    }
}

/// What is counted under the stripe's lock.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) committed_in_doubt: u64,
    pub(super) evicted: [u64; EvictionCause::ALL.len()],
    escaped: u64,
    journal: Vec<Record>,
    /// Of the last record: to know how far time has gone when it is worked off.
    last: u64,
    pub(super) ghost: Ghost,
}

/// What the ghost has to know of.
#[derive(Clone, Copy, Debug)]
struct Record {
    spread: u64,
    now: Stamp,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Committed,
    EvictedEarly { at: Stamp, until: Stamp },
    Disowned,
}

impl Ledger {
    /// True if the journal is full.
    pub(super) fn commit(&mut self, key: Key, now: Stamp) -> bool {
        self.concerns_ghost() && self.write(key, now, What::Committed)
    }

    /// True if the journal is full.
    pub(super) fn evict(
        &mut self,
        key: Key,
        at: Stamp,
        until: Stamp,
        now: Stamp,
        cause: EvictionCause,
    ) -> bool {
        if let Some(count) = self.evicted.get_mut(cause as usize) {
            *count += 1;
        }
        is_early(cause) && self.write(key, now, What::EvictedEarly { at, until })
    }

    /// Somebody wants the key to be unknown. True if the journal is full.
    pub(super) fn disown(&mut self, key: Key) -> bool {
        self.concerns_ghost() && self.write(key, Stamp(self.last), What::Disowned)
    }

    /// Somebody wants every key to be unknown.
    pub(super) fn flush(&mut self, form: Form, ages: &Mutex<Ages>) {
        self.work_off(form, Stamp(self.last), ages);
        self.ghost.clear();
    }

    pub(super) fn escaped(&self) -> u64 {
        self.escaped
    }

    pub(super) fn early(&self) -> u64 {
        EvictionCause::ALL
            .into_iter()
            .filter(|cause| is_early(*cause))
            .map(|cause| self.evictions(cause))
            .sum()
    }

    pub(super) fn evictions(&self, cause: EvictionCause) -> u64 {
        self.evicted.get(cause as usize).copied().unwrap_or_default()
    }

    /// The latest time that the journal knows of.
    pub(super) fn last(&self) -> Stamp {
        Stamp(self.last)
    }

    pub(super) fn bytes(&self) -> usize {
        self.ghost.bytes() + self.journal.capacity() * size_of::<Record>()
    }

    /// Whether a key that comes, or is disowned, can be in the ghost.
    fn concerns_ghost(&self) -> bool {
        !self.journal.is_empty() || !self.ghost.is_empty()
    }

    fn write(&mut self, key: Key, now: Stamp, what: What) -> bool {
        if self.journal.capacity() == 0 {
            self.journal.reserve_exact(JOURNAL);
        }
        self.last = self.last.max(now.0);
        self.journal.push(Record { spread: key.spread(), now, what });
        self.journal.len() >= JOURNAL
    }

    /// Does what the journal says, and removes from the ghost what is over by `now`.
    pub(super) fn work_off(&mut self, form: Form, now: Stamp, ages: &Mutex<Ages>) {
        self.last = self.last.max(now.0);
        if !self.concerns_ghost() {
            return;
        }
        let first = self.journal.first().map_or(now, |record| record.now);
        self.ghost.advance(form, first);
        let warm = self.journal.iter().fold(0_u32, |sum, record| sum ^ self.ghost.warm(record.spread));
        std::hint::black_box(warm);
        let mut good_until = self.ghost.good_until(form, first);
        let mut journal = std::mem::take(&mut self.journal);
        for Record { spread, now, what } in &journal {
            if *now >= good_until {
                self.ghost.advance(form, *now);
                good_until = self.ghost.good_until(form, *now);
            }
            match *what {
                What::Committed => self.escaped += u64::from(self.ghost.holds(*spread, *now)),
                What::EvictedEarly { until, .. } => self.ghost.insert(*spread, until, *now, form),
                What::Disowned => self.ghost.remove(*spread, *now),
            }
        }
        self.ghost.advance(form, now);
        let mut ages = ages.lock();
        for Record { now, what, .. } in journal.drain(..) {
            if let What::EvictedEarly { at, .. } = what {
                ages.add(now.0.saturating_sub(at.0));
            }
        }
        self.journal = journal;
    }
}

/// Whether it is eviction pressure.
pub(super) fn is_early(cause: EvictionCause) -> bool {
    matches!(cause, EvictionCause::Capacity | EvictionCause::Resize)
}
