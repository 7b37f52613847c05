//! Engines: bounded stores of *seen* keys. One contract, one test suite (`tests/window_contract.rs`).
//!
//! An engine knows nothing of reservations, sessions or listeners, and has no clock: a [`Stamp`] comes with each call, and
//! what leaves the store is handed out as an [`Entry`], so that nothing leaves uncounted.

mod compact;
mod lru;
mod moka;
mod wall;

pub(in crate::window) use compact::Compact;
pub use wall::WallEntry;

use super::{EvictionCause, Key};
use std::fmt::Debug;
use std::time::Duration;

/// Ids of one window at most, 20 GB of them: what `compact` can number.
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

    /// Whether a change of capacity costs no more than what leaves. Otherwise everything is moved to a new store, the old
    /// one and the new one lie in memory together for a moment, and nobody else gets in.
    pub fn resizes_in_place(self) -> bool {
        match self {
            EngineKind::Moka => false,
            EngineKind::Lru | EngineKind::Compact => true,
        }
    }

    /// What a full store for `capacity` keys takes on the heap, at most.
    pub fn bytes_at(self, capacity: usize) -> usize {
        match self {
            EngineKind::Moka => moka::bytes_at(capacity),
            EngineKind::Lru => lru::bytes_at(capacity),
            EngineKind::Compact => compact::bytes_at(capacity),
        }
    }

    /// An empty store for at most `capacity` keys (at least one).
    pub(super) fn build(self, capacity: usize) -> Store {
        match self {
            EngineKind::Moka => Store::Moka(moka::Moka::new(capacity)),
            EngineKind::Lru => Store::Lru(lru::Lru::new(capacity)),
            EngineKind::Compact => Store::Compact(compact::Compact::new(capacity)),
        }
    }
}

/// Nanoseconds since the window's first instant: 8 bytes instead of 16, and 584 years before it ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamp(pub u64);

impl Stamp {
    /// This much later.
    pub fn after(self, delay: Duration) -> Stamp {
        Stamp(self.0.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// From then until now; zero if another thread's clock was read a moment later.
    pub fn since(self, then: Stamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(then.0))
    }
}

/// What is known of a seen key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// when it was committed, or last made young again
    pub at: Stamp,
    /// from then on it is not seen any more
    pub until: Stamp,
    /// dropped since the commit
    pub duplicates: u32,
}

impl Entry {
    /// Its TTL is over.
    pub fn is_expired(&self, now: Stamp) -> bool {
        now >= self.until
    }

    /// A duplicate came; with `refresh` the entry's own TTL starts again.
    fn touch(&mut self, now: Stamp, refresh: bool) {
        self.duplicates = self.duplicates.saturating_add(1);
        if refresh && now > self.at {
            self.until = now.after(self.until.since(self.at));
            self.at = now;
        }
    }
}

/// Takes what leaves the store: the key, what was known of it, and the cause as the engine sees it: an entry that makes room is `Capacity` even if its
/// TTL is over; the window knows better. Called with the engine's lock held: it must not call the engine.
pub trait Gone: FnMut(Key, Entry, EvictionCause) {}

impl<F: FnMut(Key, Entry, EvictionCause)> Gone for F {}

/// The contract.
///
/// * At most `capacity` entries, counted after every call (an engine may state a slack under concurrency).
/// * A live entry makes room only if it is the least recently *seen* of its shard: since its commit or its last duplicate.
/// * An entry whose TTL is over is never reported as seen. It is removed when it is asked for, or in passing: each insert
///   looks at a few old entries. With one TTL for all, and no duplicates, what is oldest expires first and the sweep keeps
///   up exactly; when TTLs differ, an expired entry may stay until it is the least recently seen.
/// * Instants may be kept in coarse steps, if the engine says in which: `at` rounded down and `until` up, so that an id is
///   never forgotten early, and late by less than a step (`compact`: a millisecond, a second for TTLs over 37 hours).
/// * Whatever leaves the store goes through `gone` or is returned by `remove`, exactly once.
///
/// The caller never works on one key from two threads at once.
pub trait Engine: Send + Sync + Debug {
    /// Whether the key is seen; if so the duplicate is counted and the key becomes the most recently seen.
    fn touch(&self, key: Key, now: Stamp, refresh: bool, gone: &mut impl Gone) -> bool;
    /// What is known of the key, expired or not. Changes nothing, not even recency.
    fn peek(&self, key: Key) -> Option<Entry>;
    /// Makes the key seen, as the most recent one. It must not be there yet: ask for it first (`touch`, `remove`).
    fn insert(&self, key: Key, entry: Entry, now: Stamp, gone: &mut impl Gone);
    /// Removes the key, expired or not.
    fn remove(&self, key: Key) -> Option<Entry>;
    /// Changes the capacity; what has no place leaves at once, least recently seen first. What it took goes back to the
    /// allocator, index included.
    fn resize(&self, capacity: usize, gone: &mut impl Gone);
    /// Removes everything.
    fn clear(&self, gone: &mut impl Gone);
    /// Removes expired entries that are easy to find, for times when no insert does it. Bounded work.
    fn sweep(&self, now: Stamp, gone: &mut impl Gone);
    /// Entries held, expired ones that were not yet swept included.
    fn len(&self) -> usize;
    /// Whether it holds none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Entries at most.
    fn capacity(&self) -> usize;
    /// An honest estimate of what the entries and their index occupy on the heap.
    fn bytes(&self) -> usize;
    /// What an entry and its part of the index take when the store is well filled.
    fn bytes_per_entry(&self) -> f64;
    /// A hint: reads what a look-up of these keys will read; and, if they are to be inserted (`insert`), also what has to
    /// make room for them. Waits for no lock.
    fn warm(&self, _keys: &[Key], _insert: bool) {}
    /// The instant of the entry that would have to make room next, or a cheap estimate of it.
    fn oldest(&self) -> Option<Stamp> {
        None
    }
}

/// A store of any kind. Not a `dyn Engine`: calls are inlined, and no jump is predicted badly amid a window's cache misses.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one a window, which lies behind an `Arc`: a box would be one miss more"
)]
pub(super) enum Store {
    Moka(moka::Moka),
    Lru(lru::Lru),
    Compact(compact::Compact),
}

impl Store {
    /// The store, if keys of different locks of the window can be committed in any order, for none of them makes room for
    /// another: then they may come lock by lock.
    pub(super) fn by_lock(&self) -> Option<&Compact> {
        match self {
            Store::Compact(engine) if engine.has_a_shard_for_each_lock() => Some(engine),
            Store::Moka(_) | Store::Lru(_) | Store::Compact(_) => None,
        }
    }
}

/// The same call to whichever it is.
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
    fn touch(&self, key: Key, now: Stamp, refresh: bool, gone: &mut impl Gone) -> bool {
        each!(self, engine => engine.touch(key, now, refresh, gone))
    }

    fn peek(&self, key: Key) -> Option<Entry> {
        each!(self, engine => engine.peek(key))
    }

    #[inline]
    fn insert(&self, key: Key, entry: Entry, now: Stamp, gone: &mut impl Gone) {
        each!(self, engine => engine.insert(key, entry, now, gone));
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

    fn oldest(&self) -> Option<Stamp> {
        each!(self, engine => engine.oldest())
    }
}
