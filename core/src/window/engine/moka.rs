//! `moka::sync::Cache` with the LRU policy.
//!
//! moka does not do all that a window needs. This file adds the rest:
//!
//! * *It is lazy*: inserts and reads are logged, and applied later. Each insert here applies them, so that after it there
//!   are at most `capacity` entries, plus one for each thread that is inside an insert at that moment. The order is exact as
//!   long as no more than 384 duplicates of a window come between two inserts or moka's own housekeeping: its log of reads
//!   is lossy.
//! * *Its clock cannot be driven*: it is given no TTL, the instants are ours.
//! * *It cannot look without touching*: [`Peek`] reads from the stored key while moka compares it.
//! * *It cannot be resized*: a resize makes a new cache and moves the most recently seen entries over. Nobody else gets in.
//! * *It does not show its tail*: a queue in commit order finds expired entries. It may find one later than `lru` does, or find one
//!   where `lru` does not look.

use super::{Engine, Entry, EvictionCause, Gone, Stamp};
use crate::window::key::KeyHash;
use crate::window::{BodyDigest, Key, Tenant};
use moka::Equivalent;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::{Cache, CacheBuilder};
use parking_lot::{Mutex, RwLock};
use std::borrow::Borrow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Entries of the queue that one insert looks at. More than one, so that the queue does not grow.
const SWEEP: usize = 2;
/// After this many inserts and duplicates, live entries at the front of the queue are moved to its end.
const TURN: u64 = 64;
/// How many entries of the queue may have left the cache, beside an eighth of it.
const SLACK: usize = 16;
/// Entries of the queue that a call to `sweep` looks at.
const SWEEP_IDLE: usize = 1024;
/// Measured with glibc's allocator, our slot included; moka does not say. It is 6 % too much for a window that has just
/// filled and 6 % too little after five times as many ids.
const BYTES_PER_ENTRY: usize = 436;

/// Returns the bytes of a full store, see [`EngineKind::bytes_at`](super::EngineKind::bytes_at). The queue may be an eighth longer
/// than the cache, and its buffer twice as long.
pub(super) fn bytes_at(capacity: usize) -> usize {
    capacity / 16 * 17 * BYTES_PER_ENTRY
        + capacity / 8 * size_of::<Slot>()
        + capacity / 4 * 9 * size_of::<Arc<Slot>>()
}

/// A store over one moka cache.
#[derive(Debug)]
pub(in crate::window) struct Moka {
    /// Only a resize takes the write lock.
    store: RwLock<Store>,
    /// Counts inserts and duplicates. A resize needs the order.
    ticks: AtomicU64,
}

impl Moka {
    pub(super) fn new(capacity: usize) -> Moka {
        Moka { store: RwLock::new(Store::new(capacity)), ticks: AtomicU64::new(0) }
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Relaxed)
    }
}

impl Engine for Moka {
    fn touch(&self, key: Key, now: Stamp, refresh: bool, gone: &mut impl Gone) -> Option<BodyDigest> {
        let store = self.store.read();
        let slot = store.peek(key)?;
        let mut entry = slot.entry.lock();
        if !entry.is_expired(now) {
            entry.touch(now, refresh);
            slot.seen.store(self.tick(), Relaxed);
            let body = entry.body;
            drop(entry);
            store.cache.get(&key);
            return Some(body);
        }
        drop(entry);
        if let Some(slot) = store.take(key) {
            gone(slot.key, slot.entry(), EvictionCause::Expired);
        }
        None
    }

    fn peek(&self, key: Key) -> Option<Entry> {
        self.store.read().peek(key).map(|slot| slot.entry())
    }

    fn insert(&self, key: Key, entry: Entry, _: Tenant, now: Stamp, gone: &mut impl Gone) {
        let store = self.store.read();
        if let Some(old) = store.take(key) {
            gone(old.key, old.entry(), EvictionCause::Expired);
        }
        let tick = self.tick();
        store.sweep(now, SWEEP, tick.is_multiple_of(TURN), gone);
        store.put(Arc::new(Slot { key, entry: Mutex::new(entry), seen: AtomicU64::new(tick) }));
        store.settle(EvictionCause::Capacity, gone);
    }

    fn remove(&self, key: Key) -> Option<Entry> {
        self.store.read().take(key).map(|slot| slot.entry())
    }

    fn resize(&self, capacity: usize, gone: &mut impl Gone) {
        let mut store = self.store.write();
        store.settle(EvictionCause::Capacity, gone);
        let mut slots: Vec<Arc<Slot>> = store.cache.iter().map(|(_, slot)| slot).collect();
        slots.sort_by_key(|slot| slot.seen.load(Relaxed));
        for slot in slots.drain(..slots.len().saturating_sub(capacity)) {
            gone(slot.key, slot.entry(), EvictionCause::Resize);
        }
        *store = Store::new(capacity);
        for slot in slots {
            store.put(slot);
        }
        store.settle(EvictionCause::Resize, gone);
    }

    fn clear(&self, gone: &mut impl Gone) {
        let mut store = self.store.write();
        store.settle(EvictionCause::Capacity, gone);
        for (_, slot) in &store.cache {
            gone(slot.key, slot.entry(), EvictionCause::Flush);
        }
        *store = Store::new(store.capacity);
    }

    fn sweep(&self, now: Stamp, gone: &mut impl Gone) {
        let store = self.store.read();
        store.sweep(now, SWEEP_IDLE, false, gone);
        store.settle(EvictionCause::Capacity, gone);
    }

    fn len(&self) -> usize {
        self.store.read().len()
    }

    fn capacity(&self) -> usize {
        self.store.read().capacity
    }

    fn bytes(&self) -> usize {
        let store = self.store.read();
        let queue = store.queue.lock();
        let left = queue.len().saturating_sub(store.len());
        store.len() * BYTES_PER_ENTRY + left * size_of::<Slot>() + queue.capacity() * size_of::<Arc<Slot>>()
    }

    fn bytes_per_entry(&self) -> f64 {
        (BYTES_PER_ENTRY + size_of::<Arc<Slot>>()) as f64
    }

    /// Returns the age of the front of the queue. It is the oldest entry, unless a duplicate has made it young or it has left.
    fn oldest(&self) -> Option<Stamp> {
        let store = self.store.read();
        let queue = store.queue.lock();
        queue.front().map(|slot| slot.entry().at)
    }
}

/// A cache, and what moka does not say about it.
#[derive(Debug)]
struct Store {
    cache: Cache<Stored, Arc<Slot>, KeyHash>,
    capacity: usize,
    shelf: Arc<Shelf>,
    /// Holds every entry once, in commit order at first. Entries that have left the cache stay here for a while.
    queue: Mutex<VecDeque<Arc<Slot>>>,
}

/// Evicted entries, which moka's eviction listener puts here. It may run in any call.
#[derive(Debug, Default)]
struct Shelf {
    /// The entries in the cache. Moka's own count lags behind.
    len: AtomicUsize,
    evicted: Mutex<Vec<Arc<Slot>>>,
}

impl Store {
    fn new(capacity: usize) -> Store {
        let capacity = capacity.max(1);
        let shelf = Arc::new(Shelf::default());
        let theirs = shelf.clone();
        let cache = CacheBuilder::new(capacity as u64)
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, slot, cause| {
                if cause == RemovalCause::Size {
                    theirs.len.fetch_sub(1, Relaxed);
                    theirs.evicted.lock().push(slot);
                }
            })
            .build_with_hasher(KeyHash::default());
        Store { cache, capacity, shelf, queue: Mutex::default() }
    }

    fn peek(&self, key: Key) -> Option<Arc<Slot>> {
        let peek = Peek { key, found: RefCell::new(None) };
        self.cache.contains_key(&peek).then(|| peek.found.take()).flatten()
    }

    fn put(&self, slot: Arc<Slot>) {
        self.queue.lock().push_back(slot.clone());
        self.shelf.len.fetch_add(1, Relaxed);
        self.cache.insert(Stored(slot.clone()), slot);
    }

    fn take(&self, key: Key) -> Option<Arc<Slot>> {
        let slot = self.cache.remove(&key)?;
        self.shelf.len.fetch_sub(1, Relaxed);
        Some(slot)
    }

    /// Applies the operations that moka has put off, and hands out the entries that it has evicted.
    fn settle(&self, cause: EvictionCause, gone: &mut impl Gone) {
        self.cache.run_pending_tasks();
        for slot in std::mem::take(&mut *self.shelf.evicted.lock()) {
            gone(slot.key, slot.entry(), cause);
        }
    }

    /// Looks at the next few entries of the queue. Drops those that have left the cache, and removes expired ones. Stops at a live
    /// one. If `turn` is set, or if too much of the queue must have left the cache, a live entry moves to the end instead, and the
    /// search goes on.
    ///
    /// The queue stays locked from looking to removing: a key that is committed anew goes through the queue before the
    /// cache, so it is never the new entry that is removed.
    fn sweep(&self, now: Stamp, steps: usize, turn: bool, gone: &mut impl Gone) {
        let mut queue = self.queue.lock();
        for _ in 0..steps.min(queue.len()) {
            let Some(slot) = queue.pop_front() else { break };
            let stored = self.peek(slot.key).is_some_and(|stored| Arc::ptr_eq(&stored, &slot));
            if !stored {
                continue;
            }
            if slot.entry().is_expired(now) {
                if self.take(slot.key).is_some() {
                    gone(slot.key, slot.entry(), EvictionCause::Expired);
                }
            } else if turn || queue.len() > self.len() / 8 * 9 + SLACK {
                queue.push_back(slot);
            } else {
                queue.push_front(slot);
                break;
            }
        }
    }

    fn len(&self) -> usize {
        self.shelf.len.load(Relaxed)
    }
}

#[derive(Debug)]
struct Slot {
    key: Key,
    entry: Mutex<Entry>,
    /// The count of inserts and duplicates at its commit or last duplicate.
    seen: AtomicU64,
}

impl Slot {
    fn entry(&self) -> Entry {
        *self.entry.lock()
    }
}

/// The key as moka stores it. It holds the slot, so that [`Peek`] can read it.
#[derive(Debug)]
struct Stored(Arc<Slot>);

impl Borrow<Key> for Stored {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Stored) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Stored {}

impl Hash for Stored {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

/// A look-up that brings the slot back. `contains_key` is the only look-up of moka that does not count as a use, and it says only
/// yes or no.
struct Peek {
    key: Key,
    found: RefCell<Option<Arc<Slot>>>,
}

impl Hash for Peek {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl Equivalent<Stored> for Peek {
    fn equivalent(&self, stored: &Stored) -> bool {
        let same = self.key == stored.0.key;
        if same {
            self.found.replace(Some(stored.0.clone()));
        }
        same
    }
}
