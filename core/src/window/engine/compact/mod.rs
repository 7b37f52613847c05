//! The smallest store: 32 bytes a slot and 8 for its part of the index (11 with the holes that its growth leaves in the heap), in exact order of last sight within a shard.
//!
//! * [`slot`]: key, neighbours, instants and counter in half a cache line. Instants are whole milliseconds.
//! * [`slab`]: slots in chunks, linked by 25-bit places: it grows and shrinks by chunks.
//! * [`index`]: from a key to its place, one cache miss a look-up; grows in many small pieces.
//! * [`quiet`]: a time before which surely nothing expires.
//! * [`lanes`]: the order in which slots make room, one for each tenant where there are tenants (a byte more for each id).
//! * [`shard`]: the five together.
//!
//! Shards are as those of `lru`: one for a small window, up to [`MAX_SHARDS`] for a large one, each with its part of the
//! capacity, and the first early eviction comes when the window is about 99 % full.
//!
//! Nothing stops the world: a large window that fills, churns, expires, is resized or flushed holds a lock for no more than
//! a batch of [`BATCH`] entries, or for the growth of one part of the index (5,000 entries at 10,000,000 ids). While a
//! resize is under way an insert takes one out for the one it brings, so a shard may be over its new capacity but never
//! grows. The exception is a resize that changes the number of shards: it moves up to 131,072 entries at once, some ten
//! milliseconds. It happens only below 65,536 ids, or across that line.

mod index;
mod lanes;
mod quiet;
mod shard;
mod slab;
mod slot;
#[cfg(test)]
mod tests;

use super::{Engine, Entry, EvictionCause, Gone, MOST_IDS, Stamp};
use crate::window::{BodyDigest, CacheAligned, HINTED, Key, Tenant};
use index::NOTHING;
use lanes::Lanes;
use parking_lot::{Mutex, MutexGuard};
use shard::Shard;
use slot::Slot;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A shard is not made for fewer entries than this: below twice as many the order of eviction is exact.
const PER_SHARD: usize = 4096;
/// A power of two.
const MAX_SHARDS: usize = Key::LOCKS;
/// Parts of the index of one of [`MAX_SHARDS`]; where there are fewer shards, each is small enough for one part.
const SEGMENTS: usize = 128;
/// A place has 25 bits, and one place stands for "no neighbour". The configuration has this bound, too.
const _: () = assert!(MOST_IDS / MAX_SHARDS < slot::NONE as usize);
/// Entries that are moved or evicted under one lock.
const BATCH: usize = 256;
/// Batches of expired entries that a call to `sweep` removes from each shard, and of places that it gives back.
const SWEEP_ROUNDS: usize = 4;

/// The smallest store. It divides its keys among up to [`MAX_SHARDS`] shards.
#[derive(Debug)]
pub(in crate::window) struct Compact {
    /// The first `count` are in use.
    shards: [CacheAligned<Mutex<Shard>>; MAX_SHARDS],
    /// Changes only while all shards are locked, so it is reliable for a caller that holds any shard's lock.
    count: AtomicUsize,
    /// The capacity is divided among tenants.
    by_tenant: bool,
    /// One resize at a time.
    resizing: Mutex<()>,
}

impl Compact {
    pub(super) fn new(capacity: usize, by_tenant: bool) -> Compact {
        let mut shards = plan(capacity, by_tenant);
        Compact {
            count: AtomicUsize::new(shards.len()),
            shards: std::array::from_fn(|_| CacheAligned(Mutex::new(shards.next().unwrap_or_else(unused)))),
            by_tenant,
            resizing: Mutex::new(()),
        }
    }

    /// Whether keys of different locks of the window are in different shards, each with a capacity of its own.
    pub(super) fn has_a_shard_for_each_lock(&self) -> bool {
        self.count.load(Relaxed) == MAX_SHARDS
    }

    /// Locks the shard of this key, which is that of all keys of its lock.
    pub(in crate::window) fn hold(&self, key: Key) -> Held<'_> {
        Held(self.lock(key))
    }

    /// The key's shard. A resize may change which that is before the lock is had, but not afterwards.
    fn lock(&self, key: Key) -> MutexGuard<'_, Shard> {
        loop {
            let count = self.count.load(Relaxed);
            let shard = self.shards[key.shard(count)].lock();
            if self.count.load(Relaxed) == count {
                return shard;
            }
        }
    }

    /// Calls `action` for each shard in turn, in rounds (0, 1, …), until it returns false. Between two rounds the lock is given to
    /// threads that wait for it.
    fn each(&self, mut action: impl FnMut(&mut Shard, usize) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let mut round = 0;
            while action(&mut shard, round) {
                round += 1;
                MutexGuard::bump(&mut shard);
            }
        }
    }

    fn sum(&self, what: impl Fn(&Shard) -> usize) -> usize {
        self.shards.iter().map(|shard| what(&shard.lock())).sum()
    }

    /// Moves everything into another number of shards. Holds all locks until it is done.
    ///
    /// Within an old shard the order stays exact. Between shards, an entry counts as last seen at the latest commit that stands
    /// before it in its own shard. That is exact up to the time between two fresh ids.
    fn reshard(&self, capacity: usize, gone: &mut impl Gone) {
        let mut shards: Vec<MutexGuard<'_, Shard>> = self.shards.iter().map(|shard| shard.lock()).collect();
        let mut all: Vec<(u64, Tenant, Slot)> = Vec::new();
        let mut evicted: Vec<(Tenant, u64)> = Vec::new();
        for shard in &shards {
            let (mut whose, mut seen) = (Tenant::COMMON, 0);
            all.extend(shard.iter().map(|(tenant, slot)| {
                if tenant != whose {
                    (whose, seen) = (tenant, 0);
                }
                seen = slot.at().0.max(seen);
                (seen, tenant, *slot)
            }));
            evicted.extend(shard.tenants().map(|(tenant, _, evicted)| (tenant, evicted)));
        }
        all.sort_by_key(|(seen, ..)| *seen);
        // With tenants, the new shards find out below who has to make room.
        let excess = if self.by_tenant { 0 } else { all.len().saturating_sub(capacity) };
        for (_, _, slot) in all.drain(..excess) {
            gone(slot.key(), slot.entry(), EvictionCause::Resize);
        }
        let mut plan = plan(capacity, self.by_tenant);
        let count = plan.len();
        shards.iter_mut().for_each(|shard| **shard = plan.next().unwrap_or_else(unused));
        for (tenant, evicted) in evicted {
            shards[0].count_evicted(tenant, evicted);
        }
        for (_, tenant, slot) in all {
            let shard = &mut shards[slot.key().shard(count)];
            shard.push(slot, tenant);
            shard.shrink(1, gone);
        }
        self.count.store(count, Relaxed);
    }
}

impl Engine for Compact {
    /// Takes all locks first and reads afterwards, because a locked instruction in between would wait for the reads before it.
    /// Leaves out shards that another thread holds. A window with fewer than [`MAX_SHARDS`] shards is small enough to be in the
    /// cache anyway.
    fn warm(&self, keys: &[Key], insert: bool) {
        let keys = keys.get(..HINTED).unwrap_or(keys);
        if self.count.load(Relaxed) < MAX_SHARDS {
            return;
        }
        let mut keys_of = [0_usize; MAX_SHARDS];
        for key in keys {
            keys_of[key.shard(MAX_SHARDS)] += 1;
        }
        let mut shards =
            Shards(std::array::from_fn(|n| if keys_of[n] > 0 { self.shards[n].try_lock() } else { None }));
        let mut sum = shards.warm_lines(keys, Shard::warm);
        // The first lines are in the cache now. They say which keys need a second line.
        if insert {
            sum ^= shards.warm_oldest(keys_of);
            sum ^= shards.warm_lines(keys, Shard::warm_next);
        } else {
            sum ^= shards.warm_slots(keys);
        }
        std::hint::black_box(sum);
        shards.0.iter_mut().for_each(|shard| *shard = None);
    }

    fn touch(&self, key: Key, now: Stamp, refresh: bool, gone: &mut impl Gone) -> Option<BodyDigest> {
        self.lock(key).touch(key, now.into(), refresh, gone)
    }

    fn peek(&self, key: Key) -> Option<Entry> {
        self.lock(key).peek(key)
    }

    fn insert(&self, key: Key, entry: Entry, tenant: Tenant, now: Stamp, gone: &mut impl Gone) {
        self.lock(key).insert(key, entry, tenant, now.into(), gone);
    }

    fn remove(&self, key: Key) -> Option<Entry> {
        self.lock(key).remove(key)
    }

    /// Exact within each shard.
    fn resize(&self, capacity: usize, gone: &mut impl Gone) {
        let _one = self.resizing.lock();
        let capacity = capacity.clamp(1, MOST_IDS);
        let (old, new) = (self.count.load(Relaxed), shards(capacity));
        let is_smaller = capacity < self.capacity();
        for (shard, n) in self.shards.iter().zip(0..old) {
            let mut shard = shard.lock();
            shard.capacity = match old {
                _ if old == new => share(capacity, new, n),
                1 => capacity.min(shard.capacity),
                // Entries that cannot fit are evicted in batches before the shards are divided anew. The bound is twice a fair
                // share, because the shards are not filled evenly.
                _ => (2 * capacity / old + 64).min(shard.capacity),
            };
        }
        self.each(|shard, _| shard.shrink(BATCH, gone));
        if old != new {
            self.reshard(capacity, gone);
        }
        self.each(|shard, _| shard.pack(BATCH));
        if is_smaller {
            self.each(Shard::tighten);
        }
    }

    fn clear(&self, gone: &mut impl Gone) {
        for shard in &self.shards {
            let all = {
                let mut shard = shard.lock();
                let empty = shard.empty();
                std::mem::replace(&mut *shard, empty)
            };
            for (_, slot) in all.iter() {
                gone(slot.key(), slot.entry(), EvictionCause::Flush);
            }
        }
    }

    fn sweep(&self, now: Stamp, gone: &mut impl Gone) {
        self.each(|shard, round| {
            let more = shard.sweep(now.into(), BATCH, gone);
            let sparse = shard.is_sparse() && shard.pack(BATCH);
            (more || sparse) && round + 1 < SWEEP_ROUNDS
        });
    }

    fn len(&self) -> usize {
        self.sum(Shard::len)
    }

    fn capacity(&self) -> usize {
        self.sum(|shard| shard.capacity)
    }

    /// Measured: within 3 % of the resident size at 1,000,000 and 10,000,000 ids, with glibc's allocator.
    fn bytes(&self) -> usize {
        size_of::<Compact>() + self.sum(Shard::bytes)
    }

    /// Counts a slot and its part of an index that is half-way between just grown and full.
    fn bytes_per_entry(&self) -> f64 {
        43.0
    }

    fn tenants(&self) -> Vec<(Tenant, usize, u64)> {
        let mut all: BTreeMap<Tenant, (usize, u64)> = BTreeMap::new();
        for shard in &self.shards {
            for (tenant, len, evicted) in shard.lock().tenants() {
                let sum = all.entry(tenant).or_default();
                *sum = (sum.0 + len, sum.1 + evicted);
            }
        }
        all.into_iter().map(|(tenant, (len, evicted))| (tenant, len, evicted)).collect()
    }

    /// Returns the oldest of the shards' oldest entries.
    fn oldest(&self) -> Option<Stamp> {
        let of = |shard: &CacheAligned<Mutex<Shard>>| shard.lock().oldest();
        self.shards.iter().filter_map(of).min()
    }
}

/// A shard that stays locked for several calls.
pub(in crate::window) struct Held<'a>(MutexGuard<'a, Shard>);

impl Held<'_> {
    /// Does what [`Engine::insert`] does, without taking the lock.
    pub(in crate::window) fn insert(
        &mut self,
        key: Key,
        entry: Entry,
        tenant: Tenant,
        now: Stamp,
        gone: &mut impl Gone,
    ) {
        self.0.insert(key, entry, tenant, now.into(), gone);
    }

    /// Does what [`Engine::touch`] does, without taking the lock.
    pub(in crate::window) fn touch(
        &mut self,
        key: Key,
        now: Stamp,
        refresh: bool,
        gone: &mut impl Gone,
    ) -> Option<BodyDigest> {
        self.0.touch(key, now.into(), refresh, gone)
    }

    /// Does what [`Engine::remove`] does, without taking the lock.
    pub(in crate::window) fn remove(&mut self, key: Key) -> Option<Entry> {
        self.0.remove(key)
    }
}

/// The shards that [`Compact::warm`] reads: all that it could lock without waiting.
struct Shards<'a>([Option<MutexGuard<'a, Shard>>; MAX_SHARDS]);

impl Shards<'_> {
    /// Returns the shard of a key, if it is locked here, and the spread of the key.
    fn of(&self, key: Key) -> Option<(&Shard, u64)> {
        let spread = key.spread();
        Some((self.0[Key::shard_of(spread, MAX_SHARDS)].as_deref()?, spread))
    }

    /// Reads one line of the index for each key.
    fn warm_lines(&self, keys: &[Key], line: impl Fn(&Shard, u64) -> u32) -> u32 {
        keys.iter().filter_map(|key| self.of(*key)).fold(0, |sum, (shard, spread)| sum ^ line(shard, spread))
    }

    /// Reads the oldest slots of each shard: those that will be evicted (`leave` of them), and the few more that an insert looks at.
    /// Then reads the index lines of those that will be evicted. If the shard still has room, nothing is evicted; then the reads
    /// were not needed, and they cost next to nothing.
    ///
    /// Each slot says where the next younger one is, so the reads within a shard have to wait for each other. All shards therefore
    /// go one step at a time together, and sixteen reads are on their way at once.
    fn warm_oldest(&self, leave: [usize; MAX_SHARDS]) -> u32 {
        let shards = self.0.each_ref().map(Option::as_deref);
        let mut places = shards.map(|shard| shard.map_or(slot::NONE, Shard::oldest_place));
        let looks: [usize; MAX_SHARDS] =
            std::array::from_fn(|n| shards[n].map_or(0, |shard| leave[n] + shard.looks_at()));
        let mut going = [(0_usize, 0_u64); HINTED + 1];
        let mut count = 0;
        for step in 0..looks.into_iter().max().unwrap_or(0) {
            for (n, place) in places.iter_mut().enumerate() {
                if let Some(shard) = shards[n]
                    && *place != slot::NONE
                    && step < looks[n]
                {
                    let (spread, younger) = shard.slot_at(*place);
                    going[count] = (n, spread);
                    count += usize::from(step < leave[n]);
                    *place = younger;
                }
            }
        }
        let each = |line: fn(&Shard, u64) -> u32| {
            let going = going[..count].iter();
            going.fold(0, |sum, (n, spread)| sum ^ shards[*n].map_or(0, |shard| line(shard, *spread)))
        };
        each(Shard::warm) ^ each(Shard::warm_next)
    }

    /// Reads the last line of each look-up, then the slots of the keys that are there, then the neighbours of these slots, which a
    /// duplicate unlinks them from. Makes each step for all keys before the next step.
    fn warm_slots(&self, keys: &[Key]) -> u32 {
        let mut found = [(0_usize, 0_u32); HINTED + 1];
        let mut count = 0;
        for key in keys {
            if let Some((shard, spread)) = self.of(*key) {
                let place = shard.warm_find(spread);
                found[count] = (Key::shard_of(spread, MAX_SHARDS), place);
                count += usize::from(place != NOTHING);
            }
        }
        let found = found.get(..count).unwrap_or_default();
        let each = |what: fn(&Shard, u32) -> u32| {
            found
                .iter()
                .fold(0, |sum, (n, place)| sum ^ self.0[*n].as_deref().map_or(0, |shard| what(shard, *place)))
        };
        each(Shard::warm_place) ^ each(Shard::warm_neighbours)
    }
}

/// Returns the number of shards for a capacity: a power of two.
fn shards(capacity: usize) -> usize {
    1 << (capacity / PER_SHARD).clamp(1, MAX_SHARDS).ilog2()
}

/// Returns the capacity of the `n`th of `count` shards.
fn share(capacity: usize, count: usize, n: usize) -> usize {
    capacity / count + usize::from(n < capacity % count)
}

/// Returns empty shards for a capacity.
fn plan(capacity: usize, by_tenant: bool) -> impl ExactSizeIterator<Item = Shard> {
    let capacity = capacity.clamp(1, MOST_IDS);
    let count = shards(capacity);
    (0..count).map(move |n| Shard::new(share(capacity, count, n), segments(count), by_tenant))
}

/// Returns the number of segments in the index of one of `count` shards.
fn segments(count: usize) -> usize {
    if count == MAX_SHARDS { SEGMENTS } else { 1 }
}

/// Returns the bytes of a full store, see [`EngineKind::bytes_at`](super::EngineKind::bytes_at).
pub(super) fn bytes_at(capacity: usize) -> usize {
    let capacity = capacity.clamp(1, MOST_IDS);
    let count = shards(capacity);
    size_of::<Compact>() + count * Shard::bytes_at(capacity.div_ceil(count), segments(count))
}

/// Returns the bytes that a full store takes beyond that if its capacity is divided among tenants.
pub(super) fn tenant_bytes_at(capacity: usize) -> usize {
    let capacity = capacity.clamp(1, MOST_IDS);
    let count = shards(capacity);
    count * Lanes::bytes_at(capacity.div_ceil(count))
}

/// Returns the shard that fills the array beyond the count.
fn unused() -> Shard {
    Shard::new(0, 1, false)
}
