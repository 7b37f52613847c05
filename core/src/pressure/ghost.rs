//! The ghost: remembers the keys that were evicted early until their TTL is over. A key that is stored again in that
//! time is an escaped duplicate.
//!
//! It does not hold whole keys but 32 bits of each, in buckets of one cache line.
//!
//! ```text
//!   spread of the key   63      53 52  48 47   41 40      32 31                           0
//!                       fingerprint stripe        fingerprint  bucket = these × buckets / 2³²
//!
//!   slot                31                       12 11          0
//!                       fingerprint, never 0        until, in ticks of TTL/1024 to TTL/512, modulo 4096
//! ```
//!
//! * The probability that a new key is taken for one in the ghost is at most [`SLOTS`] × 2⁻²⁰ × load.
//! * `until` is rounded down. A duplicate in the last tick of its TTL is therefore not counted, but none is counted
//!   too late.
//! * Ticks are compared modulo 4096. Each slot must therefore be looked at before it is half a round old, see
//!   [`Table::advance`].
//! * A key whose bucket is full replaces the key that would expire first. This counts as dropped.
//!
//! A [`Ghost`] is the part of one stripe, and the stripe's lock protects it.
//!
//! *Its size follows the demand.* A table can't be made larger, because it does not hold the bits that say where a key
//! would go. When a table is full, a larger one is begun, and the old ones are also searched until they are empty. When
//! a table has had nearly nothing in it for a TTL, a small one is begun.
//!
//! *Where there is no more memory, it holds a sample.* Its table then keeps only the keys whose fingerprint ends in
//! `level` zero bits, and a key found in it stands for 2^`level` keys. The number of keys that were found is the least that
//! escaped, and the number of keys that they stand for is an estimate of all. The sample is chosen by the key and not by its age: the oldest keys
//! are the next ones to come again.

use super::layout::GhostLayout;
use crate::window::engine::Stamp;

/// Slots per bucket. A slot has 4 bytes, and a bucket 64.
pub(super) const SLOTS: usize = 16;
/// Bits of the fingerprint.
pub(super) const FINGERPRINT_BITS: u32 = 20;
/// The number of ticks that a slot can tell apart: half of them in the future and half in the past.
const ROUND: u64 = 1 << (32 - FINGERPRINT_BITS);
/// The most distant tick in the future that a slot can hold. A TTL has at most half as many ticks.
const HORIZON: u64 = ROUND / 2 - 1;
/// Every slot is looked at once within this many ticks, which is a quarter to half of the TTL.
const LAP: u64 = ROUND / 16;

/// The slots of the first table: 4 KiB, 64 KiB for all stripes. A multiple of this many slots can be halved a few times.
const FIRST: usize = 1024;
/// The next table has this many times the slots of the present one, if there is memory for it.
const GROWTH: usize = 4;
/// A larger table is begun when the present one uses this many hundredths of its slots: hardly a key has found a full bucket
/// by then. Where there is no memory for one, the present one is full with the second number.
const GROWS: usize = 40;
const FULL: usize = 60;
/// Nothing happens if it uses this many hundredths less after its expired keys were removed.
const EXPIRED: usize = 5;
/// A table is sparse when it uses less than one slot in this many.
const SPARSE: usize = 16;
/// The most tables. Their sizes differ by a factor, so there is no more memory for one more before that.
const TABLES: usize = 8;
/// The highest level of a sample. Eight bits of the fingerprint are left.
const MOST_LEVEL: u32 = 12;

/// A stripe's part of the ghost: the keys that were evicted early.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    /// Keys are added to the last one. The others are searched until they are empty.
    tables: Vec<Table>,
    /// keys that found no room, or lost their slot
    dropped: u64,
}

impl Ghost {
    pub(super) fn keys(&self) -> usize {
        self.tables.iter().map(|table| table.len).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        let buckets: usize = self.tables.iter().map(|table| table.buckets.capacity()).sum();
        buckets * size_of::<Bucket>() + self.tables.capacity() * size_of::<Table>()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the expected number of slots with the fingerprint of a key that is not here.
    pub(super) fn mistakes(&self) -> f64 {
        let in_table = |table: &Table| {
            table.len as f64 / table.buckets.len() as f64 / f64::from(1_u32 << FINGERPRINT_BITS)
        };
        self.tables.iter().map(in_table).sum()
    }

    /// Returns the level of the sample that new keys belong to. At 0, all keys are watched.
    pub(super) fn level(&self) -> u32 {
        self.tables.last().map_or(0, |table| table.level)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tables.iter().all(|table| table.len == 0)
    }

    /// Removes some of the expired keys, and tables that are not needed any longer. `now` may be slightly earlier than
    /// in the call before, because another thread may have read the clock first.
    pub(super) fn advance(&mut self, layout: GhostLayout, now: Stamp) {
        self.tables.iter_mut().for_each(|table| table.advance(now));
        if self.is_empty() {
            return self.clear();
        }
        let last = self.tables.len() - 1;
        let mut n = 0;
        self.tables.retain(|table| {
            n += 1;
            n > last || table.len > 0
        });
        while self.slots() > layout.most {
            let Some(table) = self.tables.iter_mut().max_by_key(|table| table.buckets.len()) else { break };
            if table.slots() <= FIRST {
                break;
            }
            self.dropped += if table.buckets.len() % 2 == 0 {
                table.halve(now)
            } else {
                std::mem::replace(table, Table::new(layout, FIRST, now)).len as u64
            };
        }
        let Some(table) = self.tables.last() else { return };
        if !table.layout.serves(layout) {
            while !self.begin(layout, now) {
                self.dropped += self.tables.remove(0).len as u64;
            }
        } else if table.is_too_large(now) && !self.begin(layout, now) {
            // Half of the memory of a sample is enough for all keys.
            if let Some(table) = self.tables.last_mut().filter(|table| table.buckets.len() % 2 == 0) {
                self.dropped += table.halve(now);
            }
            self.begin(layout, now);
        }
    }

    /// Returns the latest moment at which [`Ghost::advance`] must be called again, after it was called at `now`.
    pub(super) fn good_until(&self, layout: GhostLayout, now: Stamp) -> Stamp {
        let ends = self.tables.iter().map(|table| table.layout.begin(table.at + ROUND / 8));
        ends.min().unwrap_or(Stamp(u64::MAX)).min(layout.begin(layout.tick(now) + ROUND / 8))
    }

    /// Reads the slots in which the key would be searched. The result has no meaning. A batch of keys does this first,
    /// so that all of its cache misses overlap.
    pub(super) fn warm(&self, spread: u64) -> u32 {
        self.tables.iter().fold(0, |sum, table| sum ^ table.bucket(spread).map_or(0, |bucket| bucket[0]))
    }

    /// Adds a key that was evicted early. If the key is still here, its time is not extended: a larger window would
    /// also have forgotten it at the end of its first TTL. If duplicates renew ids, the time is extended.
    pub(super) fn insert(&mut self, spread: u64, until: Stamp, now: Stamp, layout: GhostLayout) {
        if let Some((_, older)) = self.tables.split_last_mut()
            && let Some(old) = older.iter_mut().find(|table| table.holds(spread, now))
        {
            if !layout.refresh {
                return;
            }
            old.remove(spread, now);
        }
        if self.tables.last().is_none_or(|table| table.uses(GROWS)) {
            self.make_room(layout, now);
        }
        let Some(table) = self.tables.last_mut() else { return };
        if !table.insert(spread, until, now, layout.refresh) {
            self.dropped += 1;
        }
    }

    /// Returns how many keys this one stands for: 1, or more in a table that holds a sample. `None` if the key is not
    /// here, or its TTL is over.
    pub(super) fn found(&self, spread: u64, now: Stamp) -> Option<u64> {
        self.tables.iter().find(|table| table.holds(spread, now)).map(|table| 1 << table.level)
    }

    pub(super) fn remove(&mut self, spread: u64, now: Stamp) {
        self.tables.iter_mut().for_each(|table| table.remove(spread, now));
    }

    /// Forgets all keys and frees the memory.
    pub(super) fn clear(&mut self) {
        self.tables = Vec::new();
    }

    fn slots(&self) -> usize {
        self.tables.iter().map(Table::slots).sum()
    }

    /// Begins a larger table if there is memory for it. Otherwise, a full one goes on with half of its keys.
    fn make_room(&mut self, layout: GhostLayout, now: Stamp) {
        let next = self.next_slots(layout);
        let limit = if next.is_some() { GROWS } else { FULL };
        if let Some(table) = self.tables.last_mut() {
            if !table.uses(limit) || !table.still_uses(limit - EXPIRED, now) {
                return;
            }
            if next.is_none() {
                self.dropped += table.thin_out(now);
                return;
            }
        }
        self.begin(layout, now);
    }

    /// Begins a table for the keys that come from now on, if there is memory for one that is large enough.
    fn begin(&mut self, layout: GhostLayout, now: Stamp) -> bool {
        let next = self.next_slots(layout);
        self.tables.extend(next.map(|slots| Table::new(layout, slots, now)));
        next.is_some()
    }

    /// Returns the slots of the next table, if there is memory for one that is large enough.
    fn next_slots(&self, layout: GhostLayout) -> Option<usize> {
        let Some(table) = self.tables.last() else { return Some(FIRST) };
        let slots = table.slots();
        let (least, wanted) = match table.uses(GROWS) {
            true => (slots * 3 / 2, slots * GROWTH),
            false => (FIRST, (table.demand() * GROWTH).max(FIRST)),
        };
        let free = layout.most.saturating_sub(self.slots());
        // If too little is free for one more table after this one, this one takes it all.
        let next = if free < wanted * 5 / 2 { free.min(wanted * 3) } else { wanted } / FIRST * FIRST;
        (next >= least && self.tables.len() < TABLES).then_some(next)
    }
}

/// The slots of one cache line. Zero is an empty slot.
type Bucket = [u32; SLOTS];

#[derive(Debug)]
struct Table {
    layout: GhostLayout,
    /// Only keys whose fingerprint ends in this many zero bits are kept.
    level: u32,
    /// The program's allocator puts them on a page, so that a bucket is one cache line.
    buckets: Vec<Bucket>,
    /// slots in use, including expired ones that were not removed yet
    len: usize,
    /// the tick at which the table was made, or made smaller, and that of the last [`Table::advance`]
    born: u64,
    /// the tick at which its first key came
    begun: u64,
    at: u64,
    /// the number of buckets looked at since the table was made, and the next one to look at
    steps: u64,
    cursor: usize,
}

impl Table {
    fn new(layout: GhostLayout, slots: usize, now: Stamp) -> Table {
        // The memory is zeroed, so the kernel only provides the pages that are written to.
        let buckets = vec![[0; SLOTS]; slots.div_ceil(SLOTS).max(1)];
        let at = layout.tick(now);
        Table { layout, level: 0, buckets, len: 0, born: at, begun: at, at, steps: 0, cursor: 0 }
    }

    fn slots(&self) -> usize {
        self.buckets.len() * SLOTS
    }

    /// Returns true if this many hundredths of the slots are in use.
    fn uses(&self, hundredths: usize) -> bool {
        self.level < MOST_LEVEL && self.len * 100 >= self.slots() * hundredths
    }

    /// Removes the expired keys. Returns true if this many hundredths of the slots are in use without them.
    fn still_uses(&mut self, hundredths: usize, now: Stamp) -> bool {
        self.sweep(0..self.buckets.len(), self.layout.tick(now), 0);
        self.uses(hundredths)
    }

    /// Returns the slots that all keys would use, those that the sample leaves out included.
    fn demand(&self) -> usize {
        self.len << self.level
    }

    /// Returns true if a smaller table, or one with a lower level, is enough. A table that is younger than a TTL is
    /// still filling.
    fn is_too_large(&self, now: Stamp) -> bool {
        let slots = self.slots();
        let is_old = self.layout.tick(now).saturating_sub(self.begun) > self.layout.lifetime();
        is_old && slots > FIRST && self.demand() * if self.level > 0 { GROWTH } else { SPARSE } < slots
    }

    /// Raises the level: keeps half of the keys. Returns how many keys were dropped.
    fn thin_out(&mut self, now: Stamp) -> u64 {
        self.level += 1;
        let (now, level) = (self.layout.tick(now), self.level);
        let (mut emptied, mut dropped) = (0, 0);
        for slot in self.buckets.as_flattened_mut() {
            if *slot != 0 && !is_in_sample(*slot, level) {
                dropped += u64::from(is_live(*slot, now));
                *slot = 0;
                emptied += 1;
            }
        }
        self.len -= emptied;
        dropped
    }

    /// Makes a table of half the size, with half of the keys. A bucket of it takes the keys of two. Returns how many
    /// keys were dropped.
    fn halve(&mut self, now: Stamp) -> u64 {
        let mut dropped = self.thin_out(now);
        let mut half = Table::new(self.layout, self.slots() / 2, now);
        (half.level, half.begun) = (self.level, self.begun);
        let tick = self.layout.tick(now);
        for (from, to) in self.buckets.chunks(2).zip(&mut half.buckets) {
            for slot in from.iter().flatten().filter(|slot| is_live(**slot, tick)) {
                match to.iter_mut().find(|slot| **slot == 0) {
                    Some(free) => {
                        *free = *slot;
                        half.len += 1;
                    }
                    None => dropped += 1,
                }
            }
        }
        *self = half;
        dropped
    }

    #[inline]
    fn index(&self, spread: u64) -> usize {
        let scaled = ((spread & 0xFFFF_FFFF) * self.buckets.len() as u64) >> 32;
        usize::try_from(scaled).unwrap_or_default()
    }

    #[inline]
    fn bucket(&self, spread: u64) -> Option<&Bucket> {
        self.buckets.get(self.index(spread))
    }

    #[inline]
    fn bucket_mut(&mut self, spread: u64) -> Option<&mut Bucket> {
        let index = self.index(spread);
        self.buckets.get_mut(index)
    }

    #[inline]
    fn holds(&self, spread: u64, now: Stamp) -> bool {
        let print = fingerprint(spread);
        let Some(bucket) = self.bucket(spread).filter(|bucket| has(bucket, print)) else { return false };
        let now = self.layout.tick(now);
        bucket.iter().any(|slot| is_of(*slot, print) && is_live(*slot, now))
    }

    /// Adds a key. Returns false if a key was dropped for it, or if it was dropped itself.
    fn insert(&mut self, spread: u64, until: Stamp, now: Stamp, refresh: bool) -> bool {
        let (now, until) = (self.layout.tick(now), self.layout.tick(until));
        if until <= now {
            return true;
        }
        let until = until.min(now + HORIZON);
        let print = fingerprint(spread);
        if !is_in_sample(print, self.level) {
            return false;
        }
        let new = print | low(until);
        let Some(bucket) = self.bucket_mut(spread) else { return false };
        if has(bucket, print)
            && let Some(known) = bucket.iter_mut().find(|slot| is_of(**slot, print) && is_live(**slot, now))
        {
            if refresh {
                *known = new;
            }
            return true;
        }
        if let Some(free) = bucket.iter_mut().find(|slot| **slot == 0 || !is_live(**slot, now)) {
            // An expired slot is counted in `len` already.
            let more = usize::from(*free == 0);
            *free = new;
            self.len += more;
            return true;
        }
        let first = bucket.iter_mut().min_by_key(|slot| left(**slot, now));
        if let Some(first) = first
            && u64::from(left(*first, now)) < until - now
        {
            *first = new;
        }
        false
    }

    fn remove(&mut self, spread: u64, now: Stamp) {
        let (print, now) = (fingerprint(spread), self.layout.tick(now));
        let mut removed = 0;
        for slot in self.bucket_mut(spread).into_iter().flatten() {
            if is_of(*slot, print) && is_live(*slot, now) {
                *slot = 0;
                removed += 1;
            }
        }
        self.len -= removed;
    }

    /// Removes expired keys from the next part of the table. The part is proportional to the time that has passed, so
    /// that every slot is looked at within a [`LAP`]. After a long pause, looks at the whole table, and compares with
    /// the tick at which the pause began, because at that tick no slot had wrapped around.
    fn advance(&mut self, now: Stamp) {
        let now = self.layout.tick(now);
        let gone = now.saturating_sub(self.at);
        if gone == 0 {
            return;
        }
        let steps = now.saturating_sub(self.born).saturating_mul(self.buckets.len() as u64) / LAP;
        if gone > ROUND / 8 {
            self.sweep(0..self.buckets.len(), self.at, gone);
        } else {
            let buckets = self.buckets.len();
            let due = usize::try_from(steps - self.steps).unwrap_or(usize::MAX).min(buckets);
            let end = self.cursor + due;
            self.sweep(self.cursor..end.min(buckets), now, 0);
            self.sweep(0..end.saturating_sub(buckets), now, 0);
            self.cursor = end % buckets;
        }
        (self.at, self.steps) = (now, steps);
    }

    /// Empties the slots that have at most `more` ticks left at `now`.
    fn sweep(&mut self, buckets: std::ops::Range<usize>, now: u64, more: u64) {
        let mut emptied = 0;
        for slot in self.buckets.get_mut(buckets).unwrap_or_default().as_flattened_mut() {
            if *slot != 0 && u64::from(left(*slot, now)) <= more {
                *slot = 0;
                emptied += 1;
            }
        }
        self.len -= emptied;
    }
}

/// Returns the fingerprint in the upper bits of a slot. It is never 0, so no slot in use is 0.
fn fingerprint(spread: u64) -> u32 {
    let bits = (spread >> 53) << 9 | (spread >> 32) & 0x1ff;
    let print = u32::try_from(bits).unwrap_or_default();
    print.max(1) << (32 - FINGERPRINT_BITS)
}

/// Returns true if the slot's key is kept at this level.
fn is_in_sample(slot: u32, level: u32) -> bool {
    (slot >> (32 - FINGERPRINT_BITS)).trailing_zeros() >= level
}

fn is_of(slot: u32, fingerprint: u32) -> bool {
    slot ^ fingerprint < 1 << (32 - FINGERPRINT_BITS)
}

/// Returns true if any slot has this fingerprint. It always compares the whole bucket, which compiles to four
/// comparisons of four slots.
#[inline]
fn has(bucket: &Bucket, fingerprint: u32) -> bool {
    const PRINT: u32 = u32::MAX << (32 - FINGERPRINT_BITS);
    bucket.iter().fold(false, |any, slot| any | (*slot & PRINT == fingerprint))
}

/// Returns how many ticks are left until the slot expires; 0 if it has expired.
fn left(slot: u32, now: u64) -> u32 {
    let ahead = slot.wrapping_sub(low(now)) & (low(u64::MAX));
    if u64::from(ahead) <= HORIZON { ahead } else { 0 }
}

fn is_live(slot: u32, now: u64) -> bool {
    left(slot, now) > 0
}

fn low(tick: u64) -> u32 {
    u32::try_from(tick & (ROUND - 1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::layout::{InForce, STRIPES};
    use crate::pressure::random;
    use crate::pressure::room::Room;
    use crate::window::{Limits, Mode};
    use std::time::Duration;

    const TTL: Duration = Duration::from_secs(600);

    /// The layout for this many slots in a stripe, or 16,384 at least.
    fn layout(slots: usize, ttl: Duration) -> GhostLayout {
        let in_force = InForce::default();
        let capacity = slots * STRIPES / 4;
        let limits =
            Limits { capacity, ttl, mode: Mode::Enforce, refresh_on_duplicate: false, waiters_per_id: 1 };
        in_force.set(&limits);
        in_force.layout(&Room::new(usize::MAX))
    }

    fn at(seconds: u64) -> Stamp {
        Stamp(0).after(Duration::from_secs(seconds))
    }

    fn holds(ghost: &Ghost, n: u64, now: Stamp) -> bool {
        ghost.found(random(n), now).is_some()
    }

    #[test]
    fn strangers_are_taken_for_known_as_seldom_as_stated() {
        for keys in [700, 5_000, 20_000] {
            let (mut ghost, layout) = (Ghost::default(), layout(8_000, TTL));
            (0..keys).for_each(|n| ghost.insert(random(n), at(600), at(0), layout));
            let asked = 3_000_000;
            let wrong: u64 = (0..asked).filter_map(|n| ghost.found(random(n + 1_000_000), at(1))).sum();
            // A mistake in a sample is as much rarer as it counts for more.
            let stated = asked as f64 * ghost.mistakes();
            assert!((wrong as f64 / stated - 1.0).abs() < 0.5, "{keys}: {wrong} instead of {stated}");
        }
    }

    #[test]
    fn it_grows_with_the_demand_and_loses_one_in_two_hundred_at_most_and_counts_it() {
        for keys in [100, 1_000, 10_000, 60_000] {
            let (mut ghost, layout) = (Ghost::default(), layout(200_000, TTL));
            (0..keys).for_each(|n| ghost.insert(random(n), at(600), at(0), layout));
            let found = (0..keys).filter(|n| holds(&ghost, *n, at(599))).count() as u64;
            assert_eq!(found + ghost.dropped(), keys);
            assert!(ghost.dropped() <= keys / 200, "{} of {keys}", ghost.dropped());
            assert!((0..keys).all(|n| !holds(&ghost, n, at(600))), "over");
            // No more than it needs: the tables before the last one are a third of it.
            let slots = ghost.bytes() / size_of::<u32>();
            assert!(slots <= FIRST + 400 || slots as u64 <= keys * 12, "{slots} slots for {keys} keys");
        }
    }

    /// Where there is no room for all keys, those that are there stand for all.
    #[test]
    fn what_it_has_no_room_for_is_estimated() {
        for keys in [4_000_u64, 8_000, 30_000, 300_000, 3_000_000] {
            let (mut ghost, layout) = (Ghost::default(), layout(16_384, TTL));
            (0..keys).for_each(|n| ghost.insert(random(n), at(600), at(0), layout));
            assert!(ghost.bytes() <= 16_384 * 4 + 4_096, "{} bytes", ghost.bytes());
            let found: Vec<u64> = (0..keys).filter_map(|n| ghost.found(random(n), at(1))).collect();
            let (least, about) = (found.len() as u64, found.iter().sum::<u64>());
            assert!(least <= keys && least >= keys.min(2_000), "{least} of {keys}");
            let off = about as f64 / keys as f64 - 1.0;
            assert!(off.abs() < 0.06, "about {about} of {keys}");
        }
    }

    /// A window that is made smaller has less room for its ghost, too.
    #[test]
    fn it_gives_memory_back_when_it_may_take_less_or_needs_less() {
        let (mut ghost, large) = (Ghost::default(), layout(200_000, TTL));
        let keys = 100_000;
        (0..keys).for_each(|n| ghost.insert(random(n), at(600), at(0), large));
        assert!(ghost.bytes() > 400_000, "{} bytes", ghost.bytes());
        let small = layout(16_384, TTL);
        ghost.advance(small, at(1));
        assert!(ghost.bytes() <= 16_384 * 4 + 4_096, "{} bytes", ghost.bytes());
        let about: u64 = (0..keys).filter_map(|n| ghost.found(random(n), at(2))).sum();
        assert!((about as f64 / keys as f64 - 1.0).abs() < 0.1, "about {about} of {keys}");
        // The demand has fallen: after two TTLs, all keys are watched again.
        let mut now = 2;
        for n in 0..3_000 {
            now += 1;
            ghost.insert(random(keys + n), at(now + 600), at(now), small);
            ghost.advance(small, at(now));
        }
        assert_eq!(ghost.level(), 0);
        assert!((keys + 2_500..keys + 3_000).all(|n| holds(&ghost, n, at(now))));
        assert!((0..200).all(|_| {
            now += 10;
            ghost.advance(small, at(now));
            true
        }));
        assert_eq!(ghost.bytes(), 0, "nothing is left");
    }

    #[test]
    fn what_is_over_leaves_without_being_asked_for_whatever_the_pauses() {
        for steps in [vec![300, 300, 1], vec![1; 601], vec![601], vec![100_000], vec![599, 2], vec![7; 90]] {
            let (mut ghost, layout) = (Ghost::default(), layout(1_000, TTL));
            (0..100).for_each(|n| ghost.insert(random(n), at(600), at(0), layout));
            let mut now = 0;
            for step in steps {
                now += step;
                ghost.advance(layout, at(now));
                assert_eq!(holds(&ghost, 1, at(now)), now < 600, "at {now}");
            }
            // An expired key is removed within half a TTL.
            (1..=30).for_each(|step| ghost.advance(layout, at(now.max(600) + step * 10)));
            assert_eq!(ghost.keys(), 0);
        }
    }

    #[test]
    fn after_a_great_change_of_the_ttl_the_old_table_is_asked_too() {
        let before = layout(1_000, TTL);
        for changed in [layout(1_000, TTL / 10), layout(1_000, TTL * 10)] {
            let mut ghost = Ghost::default();
            ghost.insert(random(1), at(600), at(0), before);
            ghost.advance(changed, at(10));
            ghost.insert(random(2), at(30), at(10), changed);
            assert!(holds(&ghost, 1, at(20)) && holds(&ghost, 2, at(20)));
            assert_eq!((ghost.keys(), ghost.dropped()), (2, 0));
            ghost.remove(random(1), at(20));
            assert_eq!((ghost.keys(), holds(&ghost, 1, at(20))), (1, false));
            // Any number of changes is bounded.
            for n in 0..50 {
                let ttl = if n % 2 == 0 { TTL } else { TTL / 10 };
                ghost.insert(random(100 + n), at(600), at(20 + n), layout(1_000, ttl));
                ghost.advance(layout(1_000, ttl), at(20 + n));
                assert!(ghost.bytes() <= 16_384 * 4 + 4_096, "{} bytes", ghost.bytes());
            }
            ghost.clear();
            assert_eq!((ghost.keys(), ghost.bytes()), (0, 0));
        }
        let near = [layout(1_000, TTL / 2), layout(1_000, TTL * 2)];
        assert!(near.into_iter().all(|near| before.serves(near)), "small changes need no new table");
    }
}
