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
//! A [`Ghost`] is the part of one stripe, and the stripe's lock protects it. When capacity or TTL change, a table
//! can't be resized, because it does not hold the bits that say where a key would go. Instead, a new table is begun,
//! and the old one is also searched until it is empty.

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

/// A stripe's part of the ghost: the keys that were evicted early.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    table: Option<Table>,
    /// the table from before the last large change of capacity or TTL
    old: Option<Table>,
    /// keys that found no room, or lost their slot
    dropped: u64,
}

impl Ghost {
    pub(super) fn keys(&self) -> usize {
        self.tables().map(|table| table.len).sum()
    }

    pub(super) fn capacity(&self) -> usize {
        self.tables().map(|table| table.buckets * SLOTS).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.tables().map(|table| table.slots.capacity() * size_of::<u32>()).sum()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tables().all(|table| table.len == 0)
    }

    /// Removes some of the expired keys. Begins a new table if the window has changed too much for the present one.
    /// `now` may be slightly earlier than in the call before, because another thread may have read the clock first.
    pub(super) fn advance(&mut self, layout: GhostLayout, now: Stamp) {
        self.tables_mut().for_each(|table| table.advance(now));
        if self.old.as_ref().is_some_and(|table| table.len == 0) {
            self.old = None;
        }
        if let Some(table) = &self.table
            && !table.layout.serves(layout)
        {
            let lost = std::mem::replace(&mut self.old, self.table.take().filter(|table| table.len > 0));
            self.dropped += lost.map_or(0, |table| table.len as u64);
        }
    }

    /// Returns the latest moment at which [`Ghost::advance`] must be called again, after it was called at `now`.
    pub(super) fn good_until(&self, layout: GhostLayout, now: Stamp) -> Stamp {
        let ends = self.tables().map(|table| table.layout.begin(table.at + ROUND / 8));
        ends.min().unwrap_or(Stamp(u64::MAX)).min(layout.begin(layout.tick(now) + ROUND / 8))
    }

    /// Reads the slots in which the key would be searched. The result has no meaning. A batch of keys does this first,
    /// so that all of its cache misses overlap.
    pub(super) fn warm(&self, spread: u64) -> u32 {
        self.tables().fold(0, |sum, table| sum ^ table.bucket(spread).first().copied().unwrap_or_default())
    }

    /// Adds a key that was evicted early. If the key is still here, its time is not extended: a larger window would
    /// also have forgotten it at the end of its first TTL. If duplicates renew ids, the time is extended.
    pub(super) fn insert(&mut self, spread: u64, until: Stamp, now: Stamp, layout: GhostLayout) {
        if let Some(old) = &mut self.old
            && old.holds(spread, now)
        {
            if !layout.refresh {
                return;
            }
            old.remove(spread, now);
        }
        let table = self.table.get_or_insert_with(|| Table::new(layout, now));
        if !table.insert(spread, until, now, layout.refresh) {
            self.dropped += 1;
        }
    }

    /// Returns true if the key's TTL is not over yet.
    pub(super) fn holds(&self, spread: u64, now: Stamp) -> bool {
        self.tables().any(|table| table.holds(spread, now))
    }

    pub(super) fn remove(&mut self, spread: u64, now: Stamp) {
        self.tables_mut().for_each(|table| table.remove(spread, now));
    }

    /// Forgets all keys and frees the memory.
    pub(super) fn clear(&mut self) {
        self.table = None;
        self.old = None;
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.table.iter().chain(&self.old)
    }

    fn tables_mut(&mut self) -> impl Iterator<Item = &mut Table> {
        self.table.iter_mut().chain(&mut self.old)
    }
}

#[derive(Debug)]
struct Table {
    layout: GhostLayout,
    /// The slots from index `start` on. With this offset a bucket is one cache line. Zero is an empty slot.
    slots: Vec<u32>,
    start: usize,
    buckets: usize,
    /// slots in use, including expired ones that were not removed yet
    len: usize,
    /// the tick at which the table was made, and that of the last [`Table::advance`]
    born: u64,
    at: u64,
    /// the number of buckets looked at since the table was made, and the next one to look at
    steps: u64,
    cursor: usize,
}

impl Table {
    fn new(layout: GhostLayout, now: Stamp) -> Table {
        let buckets = layout.slots.div_ceil(SLOTS).max(1);
        // The memory is zeroed, so the kernel only provides the pages that are written to.
        let slots = vec![0_u32; (buckets + 1) * SLOTS];
        let start = slots.as_ptr().align_offset(64).min(SLOTS);
        let at = layout.tick(now);
        Table { layout, slots, start, buckets, len: 0, born: at, at, steps: 0, cursor: 0 }
    }

    fn index(&self, spread: u64) -> usize {
        let scaled = ((spread & 0xFFFF_FFFF) * self.buckets as u64) >> 32;
        self.start + usize::try_from(scaled).unwrap_or_default() * SLOTS
    }

    fn bucket(&self, spread: u64) -> &[u32] {
        let index = self.index(spread);
        self.slots.get(index..index + SLOTS).unwrap_or_default()
    }

    fn bucket_mut(&mut self, spread: u64) -> &mut [u32] {
        let index = self.index(spread);
        self.slots.get_mut(index..index + SLOTS).unwrap_or_default()
    }

    fn holds(&self, spread: u64, now: Stamp) -> bool {
        let (bucket, print) = (self.bucket(spread), fingerprint(spread));
        if !has(bucket, print) {
            return false;
        }
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
        let new = print | low(until);
        let bucket = self.bucket_mut(spread);
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
        for slot in self.bucket_mut(spread) {
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
        let steps = now.saturating_sub(self.born).saturating_mul(self.buckets as u64) / LAP;
        if gone > ROUND / 8 {
            self.sweep(0..self.buckets, self.at, gone);
        } else {
            let due = usize::try_from(steps - self.steps).unwrap_or(usize::MAX).min(self.buckets);
            let end = self.cursor + due;
            self.sweep(self.cursor..end.min(self.buckets), now, 0);
            self.sweep(0..end.saturating_sub(self.buckets), now, 0);
            self.cursor = end % self.buckets;
        }
        (self.at, self.steps) = (now, steps);
    }

    /// Empties the slots that have at most `more` ticks left at `now`.
    fn sweep(&mut self, buckets: std::ops::Range<usize>, now: u64, more: u64) {
        let range = self.start + buckets.start * SLOTS..self.start + buckets.end * SLOTS;
        let mut emptied = 0;
        for slot in self.slots.get_mut(range).unwrap_or_default() {
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

fn is_of(slot: u32, fingerprint: u32) -> bool {
    slot ^ fingerprint < 1 << (32 - FINGERPRINT_BITS)
}

/// Returns true if any slot has this fingerprint. It always compares the whole bucket, which compiles to four
/// comparisons of four slots.
fn has(bucket: &[u32], fingerprint: u32) -> bool {
    let shift = 32 - FINGERPRINT_BITS;
    let same = |slot: &u32| *slot >> shift == fingerprint >> shift;
    bucket
        .first_chunk::<SLOTS>()
        .is_some_and(|bucket| bucket.iter().fold(false, |any, slot| any | same(slot)))
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
    use crate::window::{Limits, Mode};
    use std::time::Duration;

    const TTL: Duration = Duration::from_secs(600);

    fn layout(capacity: usize, ttl: Duration) -> GhostLayout {
        let in_force = InForce::default();
        let limits =
            Limits { capacity, ttl, mode: Mode::Enforce, refresh_on_duplicate: false, waiters_per_id: 1 };
        in_force.set(&limits);
        in_force.layout()
    }

    fn at(seconds: u64) -> Stamp {
        Stamp(0).after(Duration::from_secs(seconds))
    }

    #[test]
    fn strangers_are_taken_for_known_as_seldom_as_stated() {
        let (mut ghost, layout) = (Ghost::default(), layout(4_000 * STRIPES, TTL));
        (0..20_000).for_each(|n| ghost.insert(random(n), at(600), at(0), layout));
        let load = ghost.keys() as f64 / ghost.capacity() as f64;
        assert!(load > 0.9, "{load}");
        let asked = 3_000_000;
        let wrong = (0..asked).filter(|n| ghost.holds(random(n + 1_000_000), at(1))).count();
        let stated = asked as f64 * SLOTS as f64 / f64::from(1 << FINGERPRINT_BITS) * load;
        assert!((wrong as f64 / stated - 1.0).abs() < 0.5, "{wrong} instead of {stated}");
    }

    #[test]
    fn half_full_it_loses_one_in_five_hundred_at_most_and_counts_it() {
        let (mut ghost, layout) = (Ghost::default(), layout(4_000 * STRIPES, TTL));
        let keys = 8_000;
        (0..keys).for_each(|n| ghost.insert(random(n), at(600), at(0), layout));
        assert!((0.45..0.55).contains(&(keys as f64 / ghost.capacity() as f64)));
        let found = (0..keys).filter(|n| ghost.holds(random(*n), at(599))).count() as u64;
        assert_eq!(found + ghost.dropped(), keys);
        assert!(ghost.dropped() <= keys / 500, "{}", ghost.dropped());
        assert!((0..keys).all(|n| !ghost.holds(random(n), at(600))), "over");
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
                assert_eq!(ghost.holds(random(1), at(now)), now < 600, "at {now}");
            }
            // An expired key is removed within half a TTL.
            (1..=30).for_each(|step| ghost.advance(layout, at(now.max(600) + step * 10)));
            assert_eq!(ghost.keys(), 0);
        }
    }

    #[test]
    fn after_a_great_change_the_old_table_is_asked_too() {
        let small = layout(1_000, TTL);
        for changed in
            [layout(10_000, TTL), layout(100, TTL), layout(1_000, TTL / 10), layout(1_000, TTL * 10)]
        {
            let mut ghost = Ghost::default();
            ghost.insert(random(1), at(600), at(0), small);
            ghost.advance(changed, at(10));
            ghost.insert(random(2), at(30), at(10), changed);
            assert!(ghost.holds(random(1), at(20)) && ghost.holds(random(2), at(20)));
            assert_eq!((ghost.keys(), ghost.dropped()), (2, 0));
            ghost.remove(random(1), at(20));
            assert_eq!((ghost.keys(), ghost.holds(random(1), at(20))), (1, false));
            // There can be only two tables, so the oldest one is dropped.
            ghost.insert(random(3), at(600), at(20), changed);
            ghost.advance(layout(50_000, TTL / 50), at(21));
            ghost.advance(layout(50, TTL * 50), at(22));
            assert!(ghost.keys() <= 2);
            ghost.clear();
            assert_eq!((ghost.keys(), ghost.bytes()), (0, 0));
        }
        let near = [layout(1_900, TTL), layout(600, TTL), layout(1_000, TTL / 2), layout(1_000, TTL * 2)];
        assert!(near.into_iter().all(|near| small.serves(near)), "small changes need no new table");
    }
}
