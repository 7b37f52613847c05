//! One shard of the store: slots in the order in which they were last seen, and the index that finds them.

use super::super::{Entry, EvictionCause, Gone, Stamp};
use super::index::Index;
use super::lanes::{LaneNumber, Lanes};
use super::slab::Slab;
use super::slot::{Millis, NONE, Slot};
use crate::window::{BodyDigest, Key, Tenant};

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
    lanes: Lanes,
    /// The time of the last insert.
    now: Millis,
    pub(super) capacity: usize,
}

impl Shard {
    pub(super) fn new(capacity: usize, segments: usize, by_tenant: bool) -> Shard {
        Shard {
            slab: Slab::new(),
            index: Index::new(segments),
            lanes: Lanes::new(by_tenant),
            now: Millis(0),
            capacity,
        }
    }

    /// Returns an empty shard with the same capacity.
    pub(super) fn empty(&self) -> Shard {
        Shard { lanes: self.lanes.emptied(), ..Shard::new(self.capacity, self.index.segments(), false) }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Returns the bytes that a full shard takes at most.
    pub(super) fn bytes_at(capacity: usize, segments: usize) -> usize {
        Slab::bytes_at(capacity) + Index::bytes_at(capacity, segments)
    }

    pub(super) fn bytes(&self) -> usize {
        self.slab.bytes() + self.index.bytes() + self.lanes.bytes()
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
        if self.lanes.of(place).chain.youngest != place {
            self.lanes.leaves_end(place, &self.slab);
            let lane = self.lanes.of(place);
            lane.quiet.came(self.slab[place].until());
            lane.chain.unlink(&mut self.slab, place);
            lane.chain.push_young(&mut self.slab, place);
        }
        Some(self.slab[place].body())
    }

    pub(super) fn peek(&self, key: Key) -> Option<Entry> {
        self.find(key).map(|place| self.slab[place].entry())
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Entry> {
        self.find(key).map(|place| self.take(place).entry())
    }

    pub(super) fn insert(
        &mut self,
        key: Key,
        entry: Entry,
        tenant: Tenant,
        now: Millis,
        gone: &mut impl Gone,
    ) {
        self.now = now;
        let turn = self.lanes.turn();
        self.sweep_lane(turn, now, SWEEP, gone);
        debug_assert!(self.find(key).is_none(), "asked for before");
        let lane = self.lanes.lane_for(tenant);
        let slot = Slot::new(key, entry);
        // The shard holds more than its capacity only while a resize is under way, and the resize removes the rest.
        if self.len() < self.capacity {
            return self.push_to(lane, slot);
        }
        let fullest = self.lanes.fullest(lane);
        let (place, cause) = match self.expired_near_the_end(fullest, now) {
            Some(place) => (place, EvictionCause::Expired),
            None => (self.lanes.get(fullest).chain.oldest, EvictionCause::Capacity),
        };
        if place == NONE {
            return self.push_to(lane, slot);
        }
        self.tell(place, cause, gone);
        self.unlink(place);
        // The newcomer takes the place over, so the shard's memory is used in the order in which ids make room.
        self.slab[place] = slot;
        self.link(lane, place, slot);
    }

    /// Adds a slot as the youngest one of its tenant.
    pub(super) fn push(&mut self, slot: Slot, tenant: Tenant) {
        let lane = self.lanes.lane_for(tenant);
        self.push_to(lane, slot);
    }

    fn push_to(&mut self, lane: LaneNumber, slot: Slot) {
        let place = self.slab.put(slot);
        self.link(lane, place, slot);
    }

    /// Makes a slot, which is at this place, the youngest one of the lane.
    fn link(&mut self, lane: LaneNumber, place: u32, slot: Slot) {
        let lane = self.lanes.comes(place, lane);
        lane.quiet.came(slot.until());
        lane.chain.push_young(&mut self.slab, place);
        self.index.insert(slot.key().spread(), place);
    }

    /// Removes expired entries from the old end of each lane, at most `bound`. Returns true if there may be more.
    pub(super) fn sweep(&mut self, now: Millis, bound: usize, gone: &mut impl Gone) -> bool {
        (0..self.lanes.count()).fold(false, |more, _| {
            let lane = self.lanes.turn();
            more | self.sweep_lane(lane, now, bound / self.lanes.count() + 1, gone)
        })
    }

    fn sweep_lane(&mut self, lane: LaneNumber, now: Millis, bound: usize, gone: &mut impl Gone) -> bool {
        if self.lanes.get(lane).quiet.is_quiet(now) {
            return false;
        }
        for _ in 0..bound {
            let oldest = self.lanes.get(lane).chain.oldest;
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
        for _ in 0..excess.min(bound) {
            let fullest = self.lanes.fullest_now();
            self.evict(self.lanes.get(fullest).chain.oldest, EvictionCause::Resize, gone);
        }
        excess > bound
    }

    /// Gives free places back, at most `bound`. Returns true if there are more.
    pub(super) fn pack(&mut self, bound: usize) -> bool {
        for _ in 0..bound.min(self.slab.free_places()) {
            let lane = self.lanes.of(self.slab.last_place());
            if let Some((from, to)) = self.slab.drop_last(&mut lane.chain) {
                self.lanes.moved(from, to);
                self.index.replace(self.slab[to].key().spread(), from, to);
            }
        }
        if self.slab.free_places() == 0 {
            self.slab.trim();
            self.lanes.trim(self.slab.len());
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
        self.lanes.get(self.lanes.fullest_now()).oldest().map(|place| self.slab[place].entry().at)
    }

    /// Iterates over the slots, tenant by tenant, and the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Tenant, &Slot)> {
        self.lanes.iter().flat_map(move |(tenant, lane)| {
            let mut place = lane.chain.oldest;
            std::iter::from_fn(move || {
                let slot = (place != NONE).then(|| &self.slab[place])?;
                place = slot.younger();
                Some((tenant, slot))
            })
        })
    }

    /// Returns the tenants, each with the number of its entries, and of those that had to make room before their TTL was over.
    pub(super) fn tenants(&self) -> impl Iterator<Item = (Tenant, usize, u64)> {
        self.lanes.facts()
    }

    /// Adds to the count of a tenant's entries that had to make room.
    pub(super) fn count_evicted(&mut self, tenant: Tenant, count: u64) {
        self.lanes.count_evicted(tenant, count);
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
        if self.lanes.get(self.lanes.fullest_now()).quiet.is_quiet(self.now) { 1 } else { LOOK }
    }

    pub(super) fn oldest_place(&self) -> u32 {
        self.lanes.get(self.lanes.fullest_now()).chain.oldest
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

    fn expired_near_the_end(&self, lane: LaneNumber, now: Millis) -> Option<u32> {
        let lane = self.lanes.get(lane);
        if lane.quiet.is_quiet(now) {
            return None;
        }
        let mut place = lane.chain.oldest;
        for _ in 0..LOOK {
            let slot = (place != NONE).then(|| &self.slab[place])?;
            if slot.is_expired(now) {
                return Some(place);
            }
            place = slot.younger();
        }
        None
    }

    /// Evicts the entry at this place.
    fn evict(&mut self, place: u32, cause: EvictionCause, gone: &mut impl Gone) {
        if place != NONE {
            self.tell(place, cause, gone);
            self.take(place);
        }
    }

    /// Tells `gone` of an entry that is about to leave, before anything is written: the listener takes a lock, and a locked
    /// instruction would wait until those writes are in memory.
    fn tell(&mut self, place: u32, cause: EvictionCause, gone: &mut impl Gone) {
        let slot = &self.slab[place];
        gone(slot.key(), slot.entry(), cause);
        if cause == EvictionCause::Capacity {
            self.lanes.makes_room(place);
        }
    }

    fn take(&mut self, place: u32) -> Slot {
        let slot = self.unlink(place);
        self.slab.free(place);
        slot
    }

    /// Takes the slot at this place out of its lane and out of the index. The place is not free yet.
    fn unlink(&mut self, place: u32) -> Slot {
        let slot = self.slab[place];
        self.lanes.leaves_end(place, &self.slab);
        self.index.remove(slot.key().spread(), place);
        self.lanes.of(place).chain.unlink(&mut self.slab, place);
        self.lanes.left(place);
        slot
    }

    #[cfg(test)]
    pub(super) fn largest_segment(&self) -> usize {
        self.index.largest_segment()
    }
}
