//! What the accounting has to know of its window while it counts: capacity, TTL, and whether duplicates make ids young.

use crate::window::engine::Stamp;
use crate::window::{Key, Limits};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Parts that the counting is divided into: as the window divides its keys among locks.
pub(super) const STRIPES: usize = Key::LOCKS;
/// The ghost has room for so many times the window's capacity.
const GHOST_FACTOR: usize = 4;
/// A stripe's part of the ghost has at least so many slots, 128 KiB in all: a small window under far too much traffic is
/// where one wants the count most, and four times little is little.
const GHOST_LEAST: usize = 1024;

/// As it is in force. Written seldom, read by whoever works a journal off.
#[derive(Debug)]
pub(super) struct InForce {
    capacity: AtomicU64,
    ttl: AtomicU64,
    refresh: AtomicBool,
}

impl Default for InForce {
    fn default() -> InForce {
        let ttl = AtomicU64::new(nanos(Duration::from_secs(600)));
        InForce { capacity: AtomicU64::new(1_000_000), ttl, refresh: AtomicBool::new(false) }
    }
}

/// A stripe's part of the ghost of a window of this capacity.
fn slots(capacity: usize) -> usize {
    (capacity.saturating_mul(GHOST_FACTOR) / STRIPES).max(GHOST_LEAST)
}

/// What the whole ghost of a window of this capacity takes.
pub(super) fn ghost_bytes(capacity: usize) -> usize {
    slots(capacity).saturating_mul(STRIPES * size_of::<u32>())
}

impl InForce {
    pub(super) fn set(&self, limits: &Limits) {
        self.capacity.store(limits.capacity as u64, Relaxed);
        self.ttl.store(nanos(limits.ttl), Relaxed);
        self.refresh.store(limits.refresh_on_duplicate, Relaxed);
    }

    pub(super) fn form(&self) -> Form {
        let capacity = usize::try_from(self.capacity.load(Relaxed)).unwrap_or(usize::MAX);
        let slots = slots(capacity);
        // A power of two, so that there is no division: the TTL is 512 to 1024 ticks.
        let shift = (self.ttl.load(Relaxed) / 1024).max(1).next_power_of_two().ilog2();
        Form { slots, shift, refresh: self.refresh.load(Relaxed) }
    }
}

/// How a stripe's part of the ghost is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// keys that it has room for
    pub(super) slots: usize,
    /// a tick is 2 to this many nanoseconds
    shift: u32,
    /// see [`Limits`]
    pub(super) refresh: bool,
}

impl Form {
    pub(super) fn tick(self, at: Stamp) -> u64 {
        at.0 >> self.shift
    }

    /// When this tick begins.
    pub(super) fn begin(self, tick: u64) -> Stamp {
        Stamp(tick.saturating_mul(1 << self.shift))
    }

    /// Whether a table of this form does for another, too: within a factor of two.
    pub(super) fn serves(self, other: Form) -> bool {
        let sizes = self.slots <= other.slots * 2 && other.slots <= self.slots * 2;
        sizes && self.shift.abs_diff(other.shift) <= 1
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
