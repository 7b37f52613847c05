//! One shard of the store: slots in the order in which they were last seen, and the index that finds them.

use super::super::{Entry, EvictionCause, Gone, Stamp};
use super::index::Index;
use super::quiet::Quiet;
use super::slab::{Chain, Slab};
use super::slot::{Millis, NONE, Slot};
use crate::window::{BodyDigest, Key};

/// Expired entries that one insert removes from the old end.
const SWEEP: usize = 2;
/// How many entries from the old end are searched for an expired one, which then makes room instead of a live one. `lru` does the
/// same.
const LOOK: usize = 8;
/// A shard gives places back only when it has this many free places more than taken ones.
const FREE: usize = 1024;

/// One shard of the store. Its lock is held by the caller.
#[derive(Debug)]
pub(super) struct Shard {
    slab: Slab,
    index: Index,
    /// The slots by when they were last seen.
    seen: Chain,
    quiet: Quiet,
    /// The time of the last insert.
    now: Millis,
    pub(super) capacity: usize,
}

impl Shard {
    pub(super) fn new(capacity: usize, segments: usize) -> Shard {
        Shard {
            slab: Slab::new(),
            index: Index::new(segments),
            seen: Chain::EMPTY,
            quiet: Quiet::EMPTY,
            now: Millis(0),
            capacity,
        }
    }

    /// Returns an empty shard with the same capacity.
    pub(super) fn empty(&self) -> Shard {
        Shard::new(self.capacity, self.index.segments())
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Returns the bytes that a full shard takes at most.
    pub(super) fn bytes_at(capacity: usize, segments: usize) -> usize {
        Slab::bytes_at(capacity) + Index::bytes_at(capacity, segments)
    }

    pub(super) fn bytes(&self) -> usize {
        self.slab.bytes() + self.index.bytes()
    }

    pub(super) fn touch(
        &mut self,
        key: Key,
        now: Millis,
        refresh: bool,
        gone: &mut impl Gone,
    ) -> Option<BodyDigest> {
        let place = self.find(key)?;
        if self.slab[place].is_expired(now) {
            self.evict(place, EvictionCause::Expired, gone);
            return None;
        }
        self.slab[place].touch(now, refresh);
        if self.seen.youngest != place {
            self.leaves_end(place);
            self.quiet.came(self.slab[place].until());
            self.seen.unlink(&mut self.slab, place);
            self.seen.push_young(&mut self.slab, place);
        }
        Some(self.slab[place].body())
    }

    pub(super) fn peek(&self, key: Key) -> Option<Entry> {
        self.find(key).map(|place| self.slab[place].entry())
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Entry> {
        self.find(key).map(|place| self.take(place).entry())
    }

    pub(super) fn insert(&mut self, key: Key, entry: Entry, now: Millis, gone: &mut impl Gone) {
        self.now = now;
        self.sweep(now, SWEEP, gone);
        debug_assert!(self.find(key).is_none(), "asked for before");
        // The shard holds more than its capacity only while a resize is under way, and the resize removes the rest.
        if self.len() >= self.capacity {
            match self.expired_near_the_end(now) {
                Some(place) => self.evict(place, EvictionCause::Expired, gone),
                None => self.evict(self.seen.oldest, EvictionCause::Capacity, gone),
            }
        }
        self.push(Slot::new(key, entry));
    }

    /// Adds a slot as the youngest one.
    pub(super) fn push(&mut self, slot: Slot) {
        self.quiet.came(slot.until());
        let place = self.slab.put(slot);
        self.seen.push_young(&mut self.slab, place);
        self.index.insert(slot.key().spread(), place);
    }

    /// Removes expired entries from the old end, at most `bound`. Returns true if there may be more.
    pub(super) fn sweep(&mut self, now: Millis, bound: usize, gone: &mut impl Gone) -> bool {
        if self.quiet.is_quiet(now) {
            return false;
        }
        for _ in 0..bound {
            let oldest = self.seen.oldest;
            if oldest == NONE || !self.slab[oldest].is_expired(now) {
                return false;
            }
            self.evict(oldest, EvictionCause::Expired, gone);
        }
        true
    }

    /// Removes entries above the capacity, least recently seen first, at most `bound`. Returns true if there are more.
    pub(super) fn shrink(&mut self, bound: usize, gone: &mut impl Gone) -> bool {
        let excess = self.len().saturating_sub(self.capacity);
        (0..excess.min(bound)).for_each(|_| self.evict(self.seen.oldest, EvictionCause::Resize, gone));
        excess > bound
    }

    /// Gives free places back, at most `bound`. Returns true if there are more.
    pub(super) fn pack(&mut self, bound: usize) -> bool {
        for _ in 0..bound.min(self.slab.free_places()) {
            if let Some((from, to)) = self.slab.drop_last(&mut self.seen) {
                self.index.replace(self.slab[to].key().spread(), from, to);
            }
        }
        if self.slab.free_places() == 0 {
            self.slab.trim();
        }
        self.slab.free_places() > 0
    }

    /// Gives back the unused memory of the `n`th part of the index. Returns false if there is no such part.
    pub(super) fn tighten(&mut self, n: usize) -> bool {
        self.index.tighten(n)
    }

    /// Returns true if more than half of the places are free, and they are enough to be worth the work.
    pub(super) fn is_sparse(&self) -> bool {
        self.slab.free_places() > self.len() + FREE
    }

    /// Returns when the entry that has to make room next was committed.
    pub(super) fn oldest(&self) -> Option<Stamp> {
        self.iter().next().map(|slot| slot.entry().at)
    }

    /// Iterates over the slots, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        let mut place = self.seen.oldest;
        std::iter::from_fn(move || {
            let slot = (place != NONE).then(|| &self.slab[place])?;
            place = slot.younger();
            Some(slot)
        })
    }

    /// Reads what a look-up reads first. The result means nothing.
    pub(super) fn warm(&self, spread: u64) -> u32 {
        self.index.warm(spread)
    }

    /// Reads what an insert reads next if the first line was not enough. The result means nothing.
    pub(super) fn warm_next(&self, spread: u64) -> u32 {
        self.index.warm_next(spread)
    }

    /// Goes nearly as far as a look-up would. Returns the place where the key probably is.
    pub(super) fn warm_find(&self, spread: u64) -> u32 {
        self.index.warm_find(spread)
    }

    /// Reads the slot at this place. The result means nothing.
    pub(super) fn warm_place(&self, place: u32) -> u32 {
        self.slab[place].younger()
    }

    /// Reads the two neighbours of the slot at this place. The result means nothing.
    pub(super) fn warm_neighbours(&self, place: u32) -> u32 {
        let slot = &self.slab[place];
        let read = |place| if place == NONE { 0 } else { self.slab[place].younger() };
        read(slot.older()) ^ read(slot.younger())
    }

    /// Returns how many of the oldest slots an insert reads beside the one that it evicts. It reads at least the next oldest one.
    pub(super) fn looks_at(&self) -> usize {
        if self.quiet.is_quiet(self.now) { 1 } else { LOOK }
    }

    pub(super) fn oldest_place(&self) -> u32 {
        self.seen.oldest
    }

    /// Returns the spread of the key at this place, and the place of the next younger slot.
    pub(super) fn slot_at(&self, place: u32) -> (u64, u32) {
        let slot = &self.slab[place];
        (slot.key().spread(), slot.younger())
    }

    /// Returns the place of the key.
    fn find(&self, key: Key) -> Option<u32> {
        self.index.find(key.spread(), |place| self.slab[place].key() == key)
    }

    fn expired_near_the_end(&self, now: Millis) -> Option<u32> {
        if self.quiet.is_quiet(now) {
            return None;
        }
        let mut place = self.seen.oldest;
        for _ in 0..LOOK {
            let slot = (place != NONE).then(|| &self.slab[place])?;
            if slot.is_expired(now) {
                return Some(place);
            }
            place = slot.younger();
        }
        None
    }

    /// Evicts the entry at this place. Tells `gone` before it writes anything: the listener takes a lock, and a locked instruction
    /// would wait until those writes are in memory.
    fn evict(&mut self, place: u32, cause: EvictionCause, gone: &mut impl Gone) {
        if place != NONE {
            let slot = &self.slab[place];
            gone(slot.key(), slot.entry(), cause);
            self.take(place);
        }
    }

    fn take(&mut self, place: u32) -> Slot {
        let slot = self.slab[place];
        self.leaves_end(place);
        self.index.remove(slot.key().spread(), place);
        self.seen.unlink(&mut self.slab, place);
        self.slab.free(place);
        slot
    }

    /// Notes that the oldest entry leaves, if it is at this place. To be called before the place is unlinked.
    fn leaves_end(&mut self, place: u32) {
        if self.seen.oldest == place {
            self.quiet.oldest_goes(self.len());
        }
    }

    #[cfg(test)]
    pub(super) fn largest_segment(&self) -> usize {
        self.index.largest_segment()
    }
}
