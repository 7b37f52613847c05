//! The `lru` crate, in shards behind mutexes.
//!
//! The order is exact within a shard, and a small window ([`PER_SHARD`]) has one shard only. A large one has up to
//! [`MAX_SHARDS`], each with its part of the capacity. Keys are digests, so the shards fill evenly but not to the key: with
//! `n` entries per shard the fullest is about 2.5/√n ahead of the average. At 1,000,000 ids (62,500 a shard) the first early
//! eviction comes when the window is 99 % full, and which entry it takes is the least recently seen sixteenth's oldest.

use super::{Engine, Entry, EvictionCause, Gone, Stamp};
use crate::window::key::KeyHash;
use crate::window::{BodyDigest, Key, Tenant};
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use std::hash::{Hash, Hasher};

/// A shard is not made for fewer entries than this: below twice as many the order of eviction is exact.
const PER_SHARD: usize = 4096;
/// A power of two.
const MAX_SHARDS: usize = 16;
/// Expired entries that one insert removes from the tail.
const SWEEP: usize = 2;
/// How many entries from the tail are searched for an expired one, which then makes room instead of a live one. Without that, a few
/// long-lived ids at the tail would cause live ids to be evicted while expired ones stay.
const LOOK: usize = 8;
/// Expired entries that a call to `sweep` removes from each shard.
const SWEEP_IDLE: usize = 1024;
/// A node of the list is an allocation of its own: key, slot and two links, with the allocator's header, in steps of 16.
const NODE: usize = (size_of::<(Packed, Slot, [usize; 2])>() + 8).next_multiple_of(16);
/// Two pointers and a tag.
const BUCKET: usize = size_of::<[usize; 2]>() + 1;

/// Returns the bytes of a full store, see [`EngineKind::bytes_at`](super::EngineKind::bytes_at).
pub(super) fn bytes_at(capacity: usize) -> usize {
    let count = count(capacity);
    count * Shard::bytes_for(capacity.div_ceil(count), capacity.div_ceil(count), true)
}

/// A store over the `lru` crate, in shards.
#[derive(Debug)]
pub(in crate::window) struct Lru {
    /// Only a resize that changes the number of shards takes the outer write lock.
    shards: RwLock<Box<[Mutex<Shard>]>>,
}

impl Lru {
    pub(super) fn new(capacity: usize) -> Lru {
        Lru { shards: RwLock::new(shards(capacity)) }
    }

    fn with<T>(&self, key: Key, action: impl FnOnce(&mut Shard) -> T) -> T {
        let shards = self.shards.read();
        let mut shard = shards[key.shard(shards.len())].lock();
        action(&mut shard)
    }

    fn sum(&self, what: impl Fn(&Shard) -> usize) -> usize {
        self.shards.read().iter().map(|shard| what(&shard.lock())).sum()
    }
}

impl Engine for Lru {
    fn touch(&self, key: Key, now: Stamp, refresh: bool, gone: &mut impl Gone) -> Option<BodyDigest> {
        self.with(key, |shard| shard.touch(key, now, refresh, gone))
    }

    fn peek(&self, key: Key) -> Option<Entry> {
        self.with(key, |shard| shard.map.peek(&Packed::from(key)).map(|slot| slot.entry()))
    }

    fn insert(&self, key: Key, entry: Entry, _: Tenant, now: Stamp, gone: &mut impl Gone) {
        self.with(key, |shard| shard.insert(key, entry, now, gone));
    }

    fn remove(&self, key: Key) -> Option<Entry> {
        self.with(key, |shard| shard.map.pop(&Packed::from(key)).map(|slot| slot.entry()))
    }

    /// Exact within each shard. Where the number of shards changes (a small window grows large or the other way round),
    /// the order between shards is that of [`Slot::seen`], and nobody else gets in until it is done.
    fn resize(&self, capacity: usize, gone: &mut impl Gone) {
        let mut old = self.shards.write();
        let mut new = shards(capacity);
        if old.len() == new.len() {
            for (shard, share) in old.iter_mut().zip(&mut new) {
                shard.get_mut().resize(share.get_mut().capacity, gone);
            }
            return;
        }
        let capacity = capacity.max(1);
        let mut all = Vec::new();
        for shard in old.iter_mut() {
            shard.get_mut().resize(capacity, gone);
            all.extend(std::iter::from_fn(|| shard.get_mut().map.pop_lru()));
        }
        all.sort_by_key(|(_, slot)| slot.seen);
        for (key, slot) in all.drain(..all.len().saturating_sub(capacity)) {
            gone(key.into(), slot.entry(), EvictionCause::Resize);
        }
        for (key, slot) in all {
            let n = Key::from(key).shard(new.len());
            new[n].get_mut().put(key, slot, EvictionCause::Resize, gone);
        }
        *old = new;
    }

    fn clear(&self, gone: &mut impl Gone) {
        for shard in &**self.shards.read() {
            shard.lock().clear(gone);
        }
    }

    fn sweep(&self, now: Stamp, gone: &mut impl Gone) {
        for shard in &**self.shards.read() {
            shard.lock().sweep(now, SWEEP_IDLE, gone);
        }
    }

    fn len(&self) -> usize {
        self.sum(|shard| shard.map.len())
    }

    fn capacity(&self) -> usize {
        self.sum(|shard| shard.capacity)
    }

    fn bytes(&self) -> usize {
        self.sum(Shard::bytes)
    }

    /// The average between two doublings of the index.
    fn bytes_per_entry(&self) -> f64 {
        NODE as f64 + 1.5 * 8.0 / 7.0 * BUCKET as f64
    }

    fn oldest(&self) -> Option<Stamp> {
        let tail = |shard: &Mutex<Shard>| shard.lock().map.peek_lru().map(|(_, slot)| slot.at);
        self.shards.read().iter().filter_map(tail).min()
    }
}

fn shards(capacity: usize) -> Box<[Mutex<Shard>]> {
    let capacity = capacity.max(1);
    let count = count(capacity);
    let share = |n: usize| capacity / count + usize::from(n < capacity % count);
    (0..count).map(|n| Mutex::new(Shard::new(share(n)))).collect()
}

fn count(capacity: usize) -> usize {
    1 << (capacity / PER_SHARD).clamp(1, MAX_SHARDS).ilog2()
}

#[derive(Debug)]
struct Shard {
    /// Unbounded, because a bounded one allocates for its bound at once; `capacity` is kept here.
    map: LruCache<Packed, Slot, KeyHash>,
    capacity: usize,
    /// The most entries that its table has held: it grows with them and does not shrink by itself.
    peak: usize,
    /// Entries have made room for others.
    is_churned: bool,
}

impl Shard {
    fn new(capacity: usize) -> Shard {
        Shard {
            map: LruCache::unbounded_with_hasher(KeyHash::default()),
            capacity,
            peak: 0,
            is_churned: false,
        }
    }

    fn touch(&mut self, key: Key, now: Stamp, refresh: bool, gone: &mut impl Gone) -> Option<BodyDigest> {
        let key = Packed::from(key);
        let slot = self.map.get_mut(&key)?;
        let mut entry = slot.entry();
        if !entry.is_expired(now) {
            entry.touch(now, refresh);
            *slot = Slot::new(entry, now);
            return Some(entry.body);
        }
        if let Some(slot) = self.map.pop(&key) {
            gone(key.into(), slot.entry(), EvictionCause::Expired);
        }
        None
    }

    fn insert(&mut self, key: Key, entry: Entry, now: Stamp, gone: &mut impl Gone) {
        self.sweep(now, SWEEP, gone);
        if self.map.len() >= self.capacity {
            let oldest = self.map.iter().rev().take(LOOK);
            let expired = oldest.filter(|(_, slot)| slot.entry().is_expired(now)).map(|(key, _)| *key).next();
            if let Some((key, slot)) = expired.and_then(|key| self.map.pop_entry(&key)) {
                gone(key.into(), slot.entry(), EvictionCause::Expired);
            }
        }
        self.put(key.into(), Slot::new(entry, now), EvictionCause::Capacity, gone);
    }

    fn put(&mut self, key: Packed, slot: Slot, cause: EvictionCause, gone: &mut impl Gone) {
        if let Some(old) = self.map.put(key, slot) {
            gone(key.into(), old.entry(), EvictionCause::Expired);
        }
        self.peak = self.peak.max(self.map.len());
        self.trim(cause, gone);
    }

    /// Evicts an entry. Tells `gone` before it writes anything: the listener takes a lock, and a locked instruction would wait until
    /// those writes are in memory.
    fn trim(&mut self, cause: EvictionCause, gone: &mut impl Gone) {
        while self.map.len() > self.capacity {
            let Some((key, slot)) = self.map.peek_lru() else { break };
            gone((*key).into(), slot.entry(), cause);
            self.map.pop_lru();
            self.is_churned = true;
        }
    }

    fn resize(&mut self, capacity: usize, gone: &mut impl Gone) {
        self.capacity = capacity;
        self.trim(EvictionCause::Resize, gone);
        if buckets(self.peak) > buckets(capacity) {
            self.rebuild();
        }
    }

    /// Moves everything to a table that is as small as it can be.
    fn rebuild(&mut self) {
        let mut old = std::mem::replace(&mut self.map, LruCache::unbounded_with_hasher(KeyHash::default()));
        (self.peak, self.is_churned) = (old.len(), false);
        while let Some((key, slot)) = old.pop_lru() {
            self.map.put(key, slot);
        }
    }

    fn sweep(&mut self, now: Stamp, bound: usize, gone: &mut impl Gone) {
        for _ in 0..bound {
            match self.map.peek_lru() {
                Some((key, slot)) if slot.entry().is_expired(now) => {
                    gone((*key).into(), slot.entry(), EvictionCause::Expired);
                }
                _ => break,
            }
            self.map.pop_lru();
        }
    }

    fn clear(&mut self, gone: &mut impl Gone) {
        let map = std::mem::replace(&mut self.map, LruCache::unbounded_with_hasher(KeyHash::default()));
        (self.peak, self.is_churned) = (0, false);
        for (key, slot) in &map {
            gone((*key).into(), slot.entry(), EvictionCause::Flush);
        }
    }

    fn bytes(&self) -> usize {
        Shard::bytes_for(self.map.len(), self.peak, self.is_churned)
    }

    /// Measured with glibc's allocator, at 50,000 to 2,000,000 ids: within 5 % of the resident size.
    fn bytes_for(entries: usize, peak: usize, is_churned: bool) -> usize {
        let buckets = buckets(peak);
        // Removed keys leave marks in a table that is nearly full: once something was pushed out, it doubles for them.
        let is_doubled = is_churned && peak > buckets * 3 / 5;
        size_of::<Mutex<Shard>>() + entries * NODE + (buckets << u32::from(is_doubled)) * BUCKET
    }
}

/// A power of two of buckets, at most 7/8 full.
fn buckets(entries: usize) -> usize {
    (entries * 8 / 7 + 1).next_power_of_two()
}

/// An [`Entry`] and, in the bytes that would be padding, when it was last seen, in steps of 67 ms (they last for nine
/// years). The exact order is that of the list; this is for merging lists. It is aligned to 4 bytes, as [`Packed`] is, so that
/// a node of the list has no padding.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
struct Slot {
    at: Stamp,
    until: Stamp,
    duplicates: u32,
    seen: u32,
    body: BodyDigest,
}

const _: () = assert!(size_of::<(Packed, Slot, [usize; 2])>() == 56);

impl Slot {
    fn new(entry: Entry, now: Stamp) -> Slot {
        let Entry { at, until, duplicates, body } = entry;
        Slot { at, until, duplicates, seen: u32::try_from(now.0 >> 26).unwrap_or(u32::MAX), body }
    }

    fn entry(&self) -> Entry {
        Entry { at: self.at, until: self.until, duplicates: self.duplicates, body: self.body }
    }
}

/// A [`Key`] in its 96 bits, aligned to 4 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Packed([u32; 3]);

impl From<Key> for Packed {
    #[expect(clippy::cast_possible_truncation, reason = "the three parts are meant")]
    fn from(key: Key) -> Packed {
        Packed([key.0 as u32, (key.0 >> 32) as u32, (key.0 >> 64) as u32])
    }
}

impl From<Packed> for Key {
    fn from(Packed([low, middle, high]): Packed) -> Key {
        Key(u128::from(high) << 64 | u128::from(middle) << 32 | u128::from(low))
    }
}

impl Hash for Packed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Key::from(*self).hash(state);
    }
}
