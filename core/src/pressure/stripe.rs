//! One stripe of the counting: the counters of its keys, its part of the ghost, and the journal between the two.
//!
//! A key belongs to one stripe, so all events of a key are handled in the order in which the window reports them.
//! Events that concern the ghost are written into the journal, and applied when it is full. All cache lines that the
//! journal needs are then fetched at once, and the publish that filled it pays for 32 events. While nothing was
//! evicted early, there is no ghost and no journal.

use super::ages::Ages;
use super::ghost::Ghost;
use super::layout::GhostLayout;
use crate::window::engine::Stamp;
use crate::window::{EvictionCause, Key};
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The records of a journal, which are applied together.
const JOURNAL: usize = 32;

/// The counters of one stripe. The alignment keeps two stripes out of the same cache line, and out of the pair of
/// lines that the processor fetches together.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Stripe {
    pub(super) fresh: Cell,
    pub(super) duplicate: Cell,
    pub(super) committed: Cell,
    /// True if the ledger holds a key that was evicted early. A thread that commits such a key sees the flag: the
    /// eviction came before the commit, and the flag is only cleared with the ledger's lock held.
    has_ghosts: AtomicBool,
    ledger: Mutex<Ledger>,
}

/// A counter that never has two writers at once, because the window's lock on a key keeps them apart (see
/// [`Listener`](crate::window::Listener)). An atomic add would have to wait for all earlier writes.
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
    /// Locks the ledger to read it.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// Returns true if a committed key can be in the ghost.
    pub(super) fn has_ghosts(&self) -> bool {
        self.has_ghosts.load(Relaxed)
    }

    /// Locks the ledger to change it, and updates the flag.
    pub(super) fn write<T>(&self, write: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger.lock();
        let result = write(&mut ledger);
        self.has_ghosts.store(ledger.concerns_ghost(), Relaxed);
        result
    }
}

/// The counts that need the stripe's lock.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) committed_in_doubt: u64,
    pub(super) evicted: [u64; EvictionCause::ALL.len()],
    escaped: u64,
    /// what `escaped` would be if all keys were watched: an estimate
    escaped_about: u64,
    journal: Vec<Record>,
    /// the time of the last record, in case the journal is applied without a clock
    last: u64,
    pub(super) ghost: Ghost,
}

/// An event that concerns the ghost.
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
    /// Records a commit. Returns true if the journal is full.
    pub(super) fn commit(&mut self, key: Key, now: Stamp) -> bool {
        self.concerns_ghost() && self.write(key, now, What::Committed)
    }

    /// Counts an eviction, and records it if it is early. Returns true if the journal is full.
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

    /// Records that somebody forgot the key on purpose. Returns true if the journal is full.
    pub(super) fn disown(&mut self, key: Key) -> bool {
        self.concerns_ghost() && self.write(key, Stamp(self.last), What::Disowned)
    }

    /// Forgets all keys, because somebody flushed the window.
    pub(super) fn flush(&mut self, layout: GhostLayout, ages: &Mutex<Ages>) {
        self.apply_journal(layout, Stamp(self.last), ages);
        self.ghost.clear();
    }

    pub(super) fn escaped(&self) -> u64 {
        self.escaped
    }

    pub(super) fn escaped_about(&self) -> u64 {
        self.escaped_about
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

    /// Returns the latest time in the journal.
    pub(super) fn last(&self) -> Stamp {
        Stamp(self.last)
    }

    pub(super) fn bytes(&self) -> usize {
        self.ghost.bytes() + self.journal.capacity() * size_of::<Record>()
    }

    /// Returns true if a key that is committed or disowned can be in the ghost.
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

    /// Applies the journal, and removes keys from the ghost that have expired by `now`.
    pub(super) fn apply_journal(&mut self, layout: GhostLayout, now: Stamp, ages: &Mutex<Ages>) {
        self.last = self.last.max(now.0);
        if !self.concerns_ghost() {
            return;
        }
        let first = self.journal.first().map_or(now, |record| record.now);
        self.ghost.advance(layout, first);
        let warm = self.journal.iter().fold(0_u32, |sum, record| sum ^ self.ghost.warm(record.spread));
        std::hint::black_box(warm);
        let mut good_until = self.ghost.good_until(layout, first);
        let mut journal = std::mem::take(&mut self.journal);
        for Record { spread, now, what } in &journal {
            if *now >= good_until {
                self.ghost.advance(layout, *now);
                good_until = self.ghost.good_until(layout, *now);
            }
            match *what {
                What::Committed => {
                    if let Some(stands_for) = self.ghost.found(*spread, *now) {
                        self.escaped += 1;
                        self.escaped_about += stands_for;
                    }
                }
                What::EvictedEarly { until, .. } => self.ghost.insert(*spread, until, *now, layout),
                What::Disowned => self.ghost.remove(*spread, *now),
            }
        }
        self.ghost.advance(layout, now);
        let mut ages = ages.lock();
        for Record { now, what, .. } in journal.drain(..) {
            if let What::EvictedEarly { at, .. } = what {
                ages.add(now.0.saturating_sub(at.0));
            }
        }
        self.journal = journal;
    }
}

/// Returns true if evictions of this cause mean eviction pressure.
pub(super) fn is_early(cause: EvictionCause) -> bool {
    matches!(cause, EvictionCause::Capacity | EvictionCause::Resize)
}
