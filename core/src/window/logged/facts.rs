//! The facts about a window's store: for metrics, the API and the dashboard.

use super::StorePolicy;
use std::time::{Duration, Instant};

/// The facts about a store. A fact that a kind of store can't know is `None`, and what is `None` is shown nowhere.
#[derive(Clone, PartialEq, Debug)]
pub struct StoreFacts {
    /// as the configuration writes it
    pub kind: &'static str,
    /// what an operator has chosen for the store
    pub policy: StorePolicy,
    /// For how long the window knows everything that was published, by what its store has told it. `None` while it recovers, and
    /// if the store knew nothing, or a part of it could not be read.
    pub known_for: Option<Duration>,
    /// since when the store takes nothing; `None`: it works
    pub down_since: Option<Instant>,
    /// The window does not know yet what stood in the store when this process started.
    pub recovering: bool,
    /// records that are made and that the store does not have yet, whether they are on their way to it or not
    pub waiting: u64,
    /// how old the oldest of them is
    pub lag: Option<Duration>,
    /// commits whose clients are not acked yet, because they are not written
    pub waiting_commits: u64,
    /// publishes that are not judged yet, because the store is out of order
    pub waiting_publishes: u64,
    /// ids whose clients were acked although the store did not have them, because it was out of order
    pub unremembered: u64,
    /// records that the store will never learn of: too many were waiting
    pub dropped: u64,
    /// ids that came from the store when this process started
    pub recovered: u64,
    /// ids that other relays have stored since then
    pub merged: u64,
    /// ids that this relay and another one have let through at the same time
    pub crossed: u64,
    /// batches that could not be read
    pub damaged: u64,
    /// what the store itself says
    pub at_store: AtStore,
}

/// The facts that a store gives about itself. The writer of the store sets it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AtStore {
    /// bytes that the window takes in the store
    pub bytes: Option<u64>,
    /// how old the oldest thing is that the store remembers
    pub oldest: Option<Duration>,
    /// how far this relay is behind what the others have written
    pub behind: Option<Duration>,
    /// how long the store took to write, or to answer, the last time
    pub latency: Option<Duration>,
    /// how often the connection to the store was opened again
    pub reconnects: Option<u64>,
    /// keys that the store has thrown out for want of memory
    pub evicted_keys: Option<u64>,
    /// bytes of memory that the store uses
    pub used_memory: Option<u64>,
    /// bytes of memory that the store may use
    pub max_memory: Option<u64>,
}
