//! The trait by which operators look at a window and change it.

use super::engine::Stamp;
use super::{
    Change, Claim, Limits, Mode, ProducerFacts, ProducerKey, Recorder, Seen, StoreFacts, TenantFacts, Window,
};
use std::time::{Duration, Instant};

/// The state of one claim.
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
    /// Returns the number of remembered ids, expired ones that were not swept yet included.
    fn entries(&self) -> Option<usize>;
    /// Returns how many ids can be remembered.
    fn capacity(&self) -> Option<usize>;
    /// Returns the number of reservations whose outcome is not known. They do not count against the capacity.
    fn in_flight(&self) -> Option<usize>;
    /// Returns true if a duplicate makes an id young again.
    fn refreshes_on_duplicate(&self) -> bool;
    /// Returns how many publishes may wait for the outcome of one claim.
    fn waiters_per_id(&self) -> usize;
    /// Estimates the bytes that the window takes in this process.
    fn bytes(&self) -> usize;
    /// Estimates the bytes that the remembered ids take in this process: a part of [`Inspect::bytes`].
    fn store_bytes(&self) -> usize;
    /// Estimates the bytes that this many remembered ids would take in this process.
    fn store_bytes_at(&self, capacity: usize) -> usize;
    /// Estimates the bytes that one remembered id takes in this process when the window is well filled.
    fn bytes_per_id(&self) -> f64;
    /// Returns the age of the id that has to make room next.
    fn oldest(&self, now: Instant) -> Option<Duration>;
    /// Converts an instant to the window's own clock, which its events use.
    fn stamp(&self, now: Instant) -> Stamp;
    /// Looks a claim up. Does not count as a duplicate.
    fn find(&self, claim: Claim, now: Instant) -> Option<Found>;
    /// Makes one seen claim unknown, and says whether it was seen. A claim in flight stays in flight.
    fn forget(&self, claim: Claim, now: Instant) -> Option<bool>;
    /// Makes all seen claims unknown, and says how many there were. Claims in flight stay in flight.
    fn flush(&self, now: Instant) -> Option<usize>;
    /// Changes the capacity (at least 1). Ids that no longer fit are forgotten at once, least recently seen first.
    fn resize(&self, capacity: usize, now: Instant) -> Option<()>;
    /// Changes the TTL of ids that will be committed from now on.
    fn set_ttl(&self, ttl: Duration);
    /// Changes the mode.
    fn set_mode(&self, mode: Mode);
    /// Tells the other relays of a shared store what somebody has done here. They do it, too, and log who it was.
    fn announce(&self, change: Change, now: Instant);
    /// Removes expired ids that are easy to find. To be called when no publish does it in passing.
    fn sweep(&self, now: Instant);
    /// Records the publishes that are judged from now on. Returns `None`, too, if too many recorders are open already.
    fn record(&self, now: Instant) -> Option<Recorder>;
    /// Returns the tenants that have or had ids since the start. Empty if the capacity is not divided among tenants.
    fn tenants(&self) -> Vec<TenantFacts>;
    /// Returns producers, those seen last first: at most this many, and only those whose name or key contains the text. Empty if the
    /// window has ids.
    fn producers(&self, most: usize, containing: &str, now: Instant) -> Vec<ProducerFacts>;
    /// Returns one producer.
    fn producer(&self, producer: ProducerKey, now: Instant) -> Option<ProducerFacts>;
    /// Makes everything about one producer unknown, and says whether it was known. Its numbers in flight stay in flight. `None`: this
    /// window has ids.
    fn forget_producer(&self, producer: ProducerKey, now: Instant) -> Option<bool>;
    /// Returns what is known of the window's store; `None` for a window without one.
    fn store(&self, now: Instant) -> Option<StoreFacts>;
}

impl dyn Inspect + '_ {
    /// Returns capacity, TTL and mode in force now, and the bounds; `None` for a window without a capacity.
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
