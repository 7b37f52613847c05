//! Engines: bounded stores of *seen* keys, in memory. They have one contract and one test suite (`core/tests/window`). (The store of a
//! window that answers late is something else, see [`super::Window`].)
//!
//! An engine knows nothing of reservations, sessions or listeners, and has no clock. A [`Stamp`] comes with each call. Each entry that
//! leaves the store is handed out, so that nothing leaves uncounted.

mod compact;
mod lru;
mod moka;
mod wall;

pub(in crate::window) use compact::Compact;
pub use wall::WallEntry;

use super::{BodyDigest, EvictionCause, Key, Tenant};
use std::fmt::Debug;
use std::time::Duration;

/// Ids of one window at most. `compact` can number no more. They take 20 GB.
pub const MOST_IDS: usize = 500_000_000;

/// Which engine a window uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// `moka::sync::Cache` with the LRU policy
    Moka,
    /// the `lru` crate, in shards
    Lru,
    /// a slab under an index of 64-byte lines, in shards; instants in milliseconds
    #[default]
    Compact,
}

impl EngineKind {
    /// Every engine, for test suites and error messages.
    pub const ALL: [EngineKind; 3] = [EngineKind::Moka, EngineKind::Lru, EngineKind::Compact];

    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Moka => "moka",
            EngineKind::Lru => "lru",
            EngineKind::Compact => "compact",
        }
    }

    /// Returns true if a change of capacity costs no more than the entries that leave. Otherwise everything moves to a new store. Both
    /// stores are in memory for a moment, and every other caller waits.
    pub fn resizes_in_place(self) -> bool {
        match self {
            EngineKind::Moka => false,
            EngineKind::Lru | EngineKind::Compact => true,
        }
    }

    /// Returns the bytes that a full store for `capacity` keys takes on the heap at most.
    pub fn bytes_at(self, capacity: usize) -> usize {
        match self {
            EngineKind::Moka => moka::bytes_at(capacity),
            EngineKind::Lru => lru::bytes_at(capacity),
            EngineKind::Compact => compact::bytes_at(capacity),
        }
    }

    /// Returns the bytes that a full store takes beyond that if its capacity is divided among tenants.
    pub fn tenant_bytes_at(self, capacity: usize) -> usize {
        if self.has_tenants() { compact::tenant_bytes_at(capacity) } else { 0 }
    }

    /// Returns true if the engine can divide its capacity among tenants.
    pub fn has_tenants(self) -> bool {
        matches!(self, EngineKind::Compact)
    }

    /// Returns an empty store for at most `capacity` keys (at least one). `by_tenant`: the capacity is divided among tenants, if the
    /// engine can do that.
    pub(super) fn build(self, capacity: usize, by_tenant: bool) -> Store {
        match self {
            EngineKind::Moka => Store::Moka(moka::Moka::new(capacity)),
            EngineKind::Lru => Store::Lru(lru::Lru::new(capacity)),
            EngineKind::Compact => Store::Compact(compact::Compact::new(capacity, by_tenant)),
        }
    }
}

/// Nanoseconds since the window's first instant: 8 bytes instead of 16, and 584 years before it ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Returns the moment that is this much later.
    pub fn after(self, delay: Duration) -> Stamp {
        Stamp(self.0.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Returns the time from `then` until this moment. It is zero if another thread read its clock a moment later.
    pub fn since(self, then: Stamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(then.0))
    }
}

/// One seen key in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// when it was committed, or last made young again
    pub at: Stamp,
    /// from this moment on it is not seen any more
    pub until: Stamp,
    /// duplicates since the commit
    pub duplicates: u32,
    /// the digest of the body that was stored
    pub body: BodyDigest,
}

impl Entry {
    /// Returns true if its TTL is over.
    pub fn is_expired(&self, now: Stamp) -> bool {
        now >= self.until
    }

    /// Counts a duplicate. With `refresh` the entry's TTL starts again.
    fn touch(&mut self, now: Stamp, refresh: bool) {
        self.duplicates = self.duplicates.saturating_add(1);
        if refresh && now > self.at {
            self.until = now.after(self.until.since(self.at));
            self.at = now;
        }
    }
}

/// Takes an entry that leaves the store, with its key and the cause. The cause is the engine's: an entry that makes room is
/// `Capacity` even if its TTL is over, and the window corrects that. Called with the engine's lock held, so it must not call the
/// engine.
pub trait Gone: FnMut(Key, Entry, EvictionCause) {}

impl<F: FnMut(Key, Entry, EvictionCause)> Gone for F {}

/// The contract of all engines.
///
/// * At most `capacity` entries, counted after every call (an engine may state a slack under concurrency).
/// * A live entry makes room only if it is the least recently *seen* of its shard: since its commit or its last duplicate. If the
///   capacity is divided among tenants, it is the least recently seen of the tenant that has the most entries in the shard, that of the
///   new entry included.
/// * An entry whose TTL is over is never reported as seen. It is removed when it is asked for, or in passing: each insert
///   looks at a few old entries. With one TTL for all, and no duplicates, what is oldest expires first and the sweep keeps
///   up exactly; when TTLs differ, an expired entry may stay until it is the least recently seen.
/// * Instants may be kept in coarse steps, if the engine says in which: `at` rounded down and `until` up, so that an id is
///   never forgotten early, and late by less than a step (`compact`: a millisecond, a second for TTLs over 37 hours).
/// * Whatever leaves the store goes through `gone` or is returned by `remove`, exactly once.
///
/// A key has 96 bits ([`Key::BITS`]): an engine may keep something else in the place of the upper 32. The caller never works on one key
/// from two threads at once.
pub trait Engine: Send + Sync + Debug {
    /// Returns the body of a key that is seen. Then it counts a duplicate, and the key becomes the most recently seen one.
    fn touch(&self, key: Key, now: Stamp, refresh: bool, gone: &mut impl Gone) -> Option<BodyDigest>;
    /// Returns the key's entry, expired or not. Changes nothing, not even recency.
    fn peek(&self, key: Key) -> Option<Entry>;
    /// Adds the key as the most recently seen one of this tenant. It must not be there yet: call `touch` or `remove` first.
    fn insert(&self, key: Key, entry: Entry, tenant: Tenant, now: Stamp, gone: &mut impl Gone);
    /// Removes the key, expired or not.
    fn remove(&self, key: Key) -> Option<Entry>;
    /// Changes the capacity. Entries that no longer fit leave at once, least recently seen first. Their memory goes back to the
    /// allocator, with that of the index.
    fn resize(&self, capacity: usize, gone: &mut impl Gone);
    /// Removes everything.
    fn clear(&self, gone: &mut impl Gone);
    /// Removes expired entries that are easy to find, with a bound on the work. For times when no insert does it.
    fn sweep(&self, now: Stamp, gone: &mut impl Gone);
    /// Returns the number of entries, expired ones that were not swept yet included.
    fn len(&self) -> usize;
    /// Returns true if there is no entry.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Returns how many entries there can be.
    fn capacity(&self) -> usize;
    /// Estimates the bytes that the entries and their index take on the heap.
    fn bytes(&self) -> usize;
    /// Estimates the bytes of one entry with its part of the index when the store is well filled.
    fn bytes_per_entry(&self) -> f64;
    /// A hint: reads what a look-up of these keys will read. With `insert`, also reads the entries that will have to make room for
    /// them. Waits for no lock.
    fn warm(&self, _keys: &[Key], _insert: bool) {}
    /// Returns the tenants that have or had entries, each with the number of its entries, and of those that had to make room before
    /// their TTL was over. Empty if the capacity is not divided.
    fn tenants(&self) -> Vec<(Tenant, usize, u64)> {
        Vec::new()
    }
    /// Returns when the entry that has to make room next was committed, or a cheap estimate of that.
    fn oldest(&self) -> Option<Stamp> {
        None
    }
}

/// A store of any kind. It is an enum and not a `dyn Engine`, so that calls are inlined and the processor predicts no jump wrongly
/// among a window's cache misses.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each window, behind an `Arc`; a box would be one more cache miss"
)]
pub(super) enum Store {
    Moka(moka::Moka),
    Lru(lru::Lru),
    Compact(compact::Compact),
}

impl Store {
    /// Returns the store if commits can be made lock by lock. That needs a shard for each lock of the window, so that no key makes room
    /// for a key of another lock.
    pub(super) fn by_lock(&self) -> Option<&Compact> {
        match self {
            Store::Compact(engine) if engine.has_a_shard_for_each_lock() => Some(engine),
            Store::Moka(_) | Store::Lru(_) | Store::Compact(_) => None,
        }
    }
}

/// Makes the same call on whichever store it is.
macro_rules! each {
    ($store:expr, $engine:ident => $call:expr) => {
        match $store {
            Store::Moka($engine) => $call,
            Store::Lru($engine) => $call,
            Store::Compact($engine) => $call,
        }
    };
}

impl Engine for Store {
    #[inline]
    fn touch(&self, key: Key, now: Stamp, refresh: bool, gone: &mut impl Gone) -> Option<BodyDigest> {
        each!(self, engine => engine.touch(key, now, refresh, gone))
    }

    fn peek(&self, key: Key) -> Option<Entry> {
        each!(self, engine => engine.peek(key))
    }

    #[inline]
    fn insert(&self, key: Key, entry: Entry, tenant: Tenant, now: Stamp, gone: &mut impl Gone) {
        each!(self, engine => engine.insert(key, entry, tenant, now, gone));
    }

    fn remove(&self, key: Key) -> Option<Entry> {
        each!(self, engine => engine.remove(key))
    }

    fn resize(&self, capacity: usize, gone: &mut impl Gone) {
        each!(self, engine => engine.resize(capacity, gone));
    }

    fn clear(&self, gone: &mut impl Gone) {
        each!(self, engine => engine.clear(gone));
    }

    fn sweep(&self, now: Stamp, gone: &mut impl Gone) {
        each!(self, engine => engine.sweep(now, gone));
    }

    fn len(&self) -> usize {
        each!(self, engine => engine.len())
    }

    fn capacity(&self) -> usize {
        each!(self, engine => engine.capacity())
    }

    fn bytes(&self) -> usize {
        each!(self, engine => engine.bytes())
    }

    fn bytes_per_entry(&self) -> f64 {
        each!(self, engine => engine.bytes_per_entry())
    }

    fn warm(&self, keys: &[Key], insert: bool) {
        each!(self, engine => engine.warm(keys, insert));
    }

    fn tenants(&self) -> Vec<(Tenant, usize, u64)> {
        each!(self, engine => engine.tenants())
    }

    fn oldest(&self) -> Option<Stamp> {
        each!(self, engine => engine.oldest())
    }
}
