//! What an operator asks of a window, and what an operator changes.

use super::engine::Stamp;
use super::{Claim, Limits, Mode, Recorder, Seen, Window};
use std::time::{Duration, Instant};

/// What a window knows about one claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// It is neither seen nor in flight.
    Unknown,
    /// A publish has it, and its outcome is not known.
    InFlight,
    /// It is seen.
    Seen(Seen),
}

/// A window as operators see it. The admin listener, the accounting and the memory budget use this trait, and no kind of window by its name.
///
/// `None` means that this kind of window can't know, or can't do it. It is shown as absent, never as zero. As in [`Window`],
/// no method has a default: a wrapper that forgets to forward one does not compile.
pub trait Inspect: Window {
    /// The ids that it remembers, expired ones that were not swept yet included.
    fn entries(&self) -> Option<usize>;
    /// The ids that it remembers at most.
    fn capacity(&self) -> Option<usize>;
    /// The reservations whose outcome is not known. They do not count against the capacity.
    fn in_flight(&self) -> Option<usize>;
    /// Whether a duplicate makes an id young again.
    fn refreshes_on_duplicate(&self) -> bool;
    /// How many publishes may wait for the outcome of one claim.
    fn waiters_per_id(&self) -> usize;
    /// The bytes that the window takes in this process.
    fn bytes(&self) -> usize;
    /// Of [`Inspect::bytes`], what the remembered ids take.
    fn store_bytes(&self) -> usize;
    /// What the remembered ids would take in this process if there were so many.
    fn store_bytes_at(&self, capacity: usize) -> usize;
    /// What one remembered id takes in this process when the window is well filled.
    fn bytes_per_id(&self) -> f64;
    /// The age of the id that has to make room next.
    fn oldest(&self, now: Instant) -> Option<Duration>;
    /// This moment on the window's own clock, which its events use.
    fn stamp(&self, now: Instant) -> Stamp;
    /// What is known about a claim. Does not count as a duplicate.
    fn find(&self, claim: Claim, now: Instant) -> Option<Found>;
    /// Makes one seen claim unknown, and says whether it was seen. What is in flight stays so.
    fn forget(&self, claim: Claim, now: Instant) -> Option<bool>;
    /// Makes all seen claims unknown, and says how many there were. What is in flight stays so.
    fn flush(&self, now: Instant) -> Option<usize>;
    /// Changes the capacity (at least 1). What no longer has room is forgotten at once, least recently seen first.
    fn resize(&self, capacity: usize, now: Instant) -> Option<()>;
    /// Changes the TTL of what will be committed from now on.
    fn set_ttl(&self, ttl: Duration);
    /// Changes the mode.
    fn set_mode(&self, mode: Mode);
    /// Removes expired ids that are easy to find. To be called when no publish does it in passing.
    fn sweep(&self, now: Instant);
    /// Records the publishes that are judged from now on; `None` as well if too many record already.
    fn record(&self, now: Instant) -> Option<Recorder>;
}

impl dyn Inspect + '_ {
    /// Capacity, TTL and mode in force now, and the bounds; `None` for a window without a capacity.
    pub fn limits(&self) -> Option<Limits> {
        Some(Limits {
            capacity: self.capacity()?,
            ttl: self.ttl(),
            mode: self.mode(),
            refresh_on_duplicate: self.refreshes_on_duplicate(),
            waiters_per_id: self.waiters_per_id(),
        })
    }
}
