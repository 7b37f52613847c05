//! The settings of a window that the accounting needs while it counts: the capacity, the TTL, and whether duplicates
//! renew ids. They determine the layout of the ghost.

use super::room::Room;
use crate::window::engine::Stamp;
use crate::window::{Key, Limits};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The number of stripes. It is the number of locks among which the window divides its keys.
pub(super) const STRIPES: usize = Key::LOCKS;
/// The memory that the ghost may take for each id of the window's capacity: four slots. The process may allow less, see
/// [`Room::ghost_share`].
const GHOST_BYTES_PER_ID: usize = 4 * size_of::<u32>();
/// The ghost of every window may take this much, however small the window is. A small window under heavy traffic needs
/// the count of escaped duplicates most.
pub(super) const GHOST_LEAST: usize = 1 << 20;
/// The same for a window that sizes itself. The memory budget counts it, and such a window needs no ghost while the budget
/// has room for its ids.
const GHOST_LEAST_AUTO: usize = 64 << 10;

/// The settings in force. They are rarely written, and are read each time that a journal is applied.
#[derive(Debug)]
pub(super) struct InForce {
    capacity: AtomicU64,
    ttl: AtomicU64,
    refresh: AtomicBool,
    is_auto: AtomicBool,
}

impl Default for InForce {
    fn default() -> InForce {
        let ttl = AtomicU64::new(nanos(Duration::from_secs(600)));
        InForce {
            capacity: AtomicU64::new(1_000_000),
            ttl,
            refresh: AtomicBool::new(false),
            is_auto: AtomicBool::new(false),
        }
    }
}

/// Returns the most bytes that the whole ghost takes, for a window of this capacity that sizes itself.
pub(super) fn ghost_bytes(capacity: usize) -> usize {
    capacity.saturating_mul(GHOST_BYTES_PER_ID).max(GHOST_LEAST_AUTO)
}

impl InForce {
    pub(super) fn set(&self, limits: &Limits) {
        self.capacity.store(limits.capacity as u64, Relaxed);
        self.ttl.store(nanos(limits.ttl), Relaxed);
        self.refresh.store(limits.refresh_on_duplicate, Relaxed);
    }

    /// Says whether the window sizes itself within a memory budget.
    pub(super) fn set_auto(&self, is_auto: bool) {
        self.is_auto.store(is_auto, Relaxed);
    }

    pub(super) fn layout(&self, room: &Room) -> GhostLayout {
        let capacity = usize::try_from(self.capacity.load(Relaxed)).unwrap_or(usize::MAX);
        let least = if self.is_auto.load(Relaxed) { GHOST_LEAST_AUTO } else { GHOST_LEAST };
        let most = ghost_bytes(capacity).min(room.ghost_share()).max(least);
        // The length of a tick is a power of two, to avoid a division. A TTL is 512 to 1024 ticks.
        let shift = (self.ttl.load(Relaxed) / 1024).max(1).next_power_of_two().ilog2();
        GhostLayout { most: most / STRIPES / size_of::<u32>(), shift, refresh: self.refresh.load(Relaxed) }
    }
}

/// The layout of a stripe's part of the ghost.
#[derive(Clone, Copy, Debug)]
pub(super) struct GhostLayout {
    /// the most slots that all its tables may have together
    pub(super) most: usize,
    /// a tick is 2 to the power of `shift` nanoseconds
    shift: u32,
    /// whether a duplicate renews its id, see [`Limits`]
    pub(super) refresh: bool,
}

impl GhostLayout {
    pub(super) fn tick(self, at: Stamp) -> u64 {
        at.0 >> self.shift
    }

    /// Returns the moment at which this tick begins.
    pub(super) fn begin(self, tick: u64) -> Stamp {
        Stamp(tick.saturating_mul(1 << self.shift))
    }

    /// Returns true if a table of this layout also serves for the other one: the ticks differ by at most a factor of
    /// two.
    pub(super) fn serves(self, other: GhostLayout) -> bool {
        self.shift.abs_diff(other.shift) <= 1
    }

    /// Returns the ticks of a TTL, or more.
    pub(super) fn lifetime(self) -> u64 {
        1024
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
