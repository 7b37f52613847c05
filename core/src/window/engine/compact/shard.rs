//! One shard: slots in the order in which they were last seen, and the index to them.

use super::super::{Entry, EvictionCause, Gone, Stamp};
use super::index::Index;
use super::quiet::Quiet;
use super::slab::{Chain, Slab};
use super::slot::{Millis, NONE, Slot};
use crate::window::Key;

/// Expired entries that one insert removes from the old end.
const SWEEP: usize = 2;
/// How far from the old end one that is expired is looked for, to make room instead of a live one, as `lru` does.
const LOOK: usize = 8;
/// Free places that nobody minds, beside as many as are taken.
const FREE: usize = 1024;

/// See the module's doc.
#[derive(Debug)]
pub(super) struct Shard {
    slab: Slab,
    index: Index,
    /// By when they were last seen.
    seen: Chain,
    quiet: Quiet,
    /// Of the last insert.
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

    /// One of its kind with nothing in it.
    pub(super) fn empty(&self) -> Shard {
        Shard::new(self.capacity, self.index.segments())
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// At most, when it is full.
    pub(super) fn bytes_at(capacity: usize, segments: usize) -> usize {
        Slab::bytes_at(capacity) + Index::bytes_at(capacity, segments)
    }

    pub(super) fn bytes(&self) -> usize {
        self.slab.bytes() + self.index.bytes()
    }

    pub(super) fn touch(&mut self, key: Key, now: Millis, refresh: bool, gone: &mut impl Gone) -> bool {
        let Some(place) = self.find(key) else { return false };
        if self.slab[place].is_expired(now) {
            self.evict(place, EvictionCause::Expired, gone);
            return false;
        }
        self.slab[place].touch(now, refresh);
        if self.seen.youngest != place {
            self.leaves_end(place);
            self.quiet.came(self.slab[place].until());
            self.seen.unlink(&mut self.slab, place);
            self.seen.push_young(&mut self.slab, place);
        }
        true
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
        // More than the capacity are here only while a resize is under way, and that will see to the rest.
        if self.len() >= self.capacity {
            match self.expired_near_the_end(now) {
                Some(place) => self.evict(place, EvictionCause::Expired, gone),
                None => self.evict(self.seen.oldest, EvictionCause::Capacity, gone),
            }
        }
        self.push(Slot::new(key, entry));
    }

    /// As the youngest.
    pub(super) fn push(&mut self, slot: Slot) {
        self.quiet.came(slot.until());
        let place = self.slab.put(slot);
        self.seen.push_young(&mut self.slab, place);
        self.index.insert(slot.key().spread(), place);
    }

    /// Some of the expired ones at the old end; true if there may be more.
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

    /// Some of what is too much, least recently seen first; true if there is more.
    pub(super) fn shrink(&mut self, bound: usize, gone: &mut impl Gone) -> bool {
        let excess = self.len().saturating_sub(self.capacity);
        (0..excess.min(bound)).for_each(|_| self.evict(self.seen.oldest, EvictionCause::Resize, gone));
        excess > bound
    }

    /// Gives some free places back; true if there are more.
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

    /// Whether more than half of the places are free, and that is worth the trouble.
    pub(super) fn is_sparse(&self) -> bool {
        self.slab.free_places() > self.len() + FREE
    }

    /// When what would have to make room next was committed.
    pub(super) fn oldest(&self) -> Option<Stamp> {
        self.iter().next().map(|slot| slot.entry().at)
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        let mut place = self.seen.oldest;
        std::iter::from_fn(move || {
            let slot = (place != NONE).then(|| &self.slab[place])?;
            place = slot.younger();
            Some(slot)
        })
    }

    /// Reads what a look-up of it reads first, and tells nothing.
    pub(super) fn warm(&self, spread: u64) -> u32 {
        self.index.warm(spread)
    }

    /// What an insert reads next, if the first did not do.
    pub(super) fn warm_next(&self, spread: u64) -> u32 {
        self.index.warm_next(spread)
    }

    /// Goes nearly as far as a look-up would, and says where it probably is.
    pub(super) fn warm_find(&self, spread: u64) -> u32 {
        self.index.warm_find(spread)
    }

    /// Reads the slot.
    pub(super) fn warm_place(&self, place: u32) -> u32 {
        self.slab[place].younger()
    }

    /// Reads those between which it is.
    pub(super) fn warm_neighbours(&self, place: u32) -> u32 {
        let slot = &self.slab[place];
        let read = |place| if place == NONE { 0 } else { self.slab[place].younger() };
        read(slot.older()) ^ read(slot.younger())
    }

    /// How many of the oldest an insert reads beside those that it takes out: at least the one that is the oldest then.
    pub(super) fn looks_at(&self) -> usize {
        if self.quiet.is_quiet(self.now) { 1 } else { LOOK }
    }

    pub(super) fn oldest_place(&self) -> u32 {
        self.seen.oldest
    }

    /// What the one there looks for, and which is the next younger one.
    pub(super) fn slot_at(&self, place: u32) -> (u64, u32) {
        let slot = &self.slab[place];
        (slot.key().spread(), slot.younger())
    }

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

    /// Told before it is done: the listener's lock would wait for whatever is written here to arrive in memory.
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

    /// To be called before this place is unlinked.
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
