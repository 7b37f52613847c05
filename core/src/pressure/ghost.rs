//! The keys that were evicted early, for as long as they ought to have been remembered: what comes again in that time is
//! an escaped duplicate.
//!
//! Not the keys themselves: 32 bits of each, in buckets of one cache line.
//!
//! ```text
//!   spread of the key   63      53 52  48 47   41 40      32 31                           0
//!                       fingerprint stripe        fingerprint  bucket = these × buckets / 2³²
//!
//!   slot                31                       12 11          0
//!                       fingerprint, never 0        until, in ticks of TTL/1024 to TTL/512, modulo 4096
//! ```
//!
//! * A key that was never here is taken for one that is here with a probability of [`SLOTS`] × 2⁻²⁰ × load, at most.
//! * `until` is rounded down: who comes again in the last tick of its TTL is not counted, nobody is counted too long.
//! * A tick number is compared modulo 4096, so it must be looked at before it is half a round old: see [`Table::advance`].
//! * What finds its bucket full pushes out who would leave first, and is counted as dropped.
//!
//! A [`Ghost`] is one stripe's part; its lock is the stripe's. Capacity and TTL can change: a table can't be resized, for
//! the bits that would say where a key goes are not there any more. So a new one is begun and the old one is asked, too,
//! until it is empty.

use super::form::Form;
use crate::window::engine::Stamp;

/// Slots of a bucket: 64 bytes of 4.
pub(super) const SLOTS: usize = 16;
/// Bits of the fingerprint.
pub(super) const FINGERPRINT_BITS: u32 = 20;
/// Ticks that are told apart. Half of them are to come, half have gone.
const ROUND: u64 = 1 << (32 - FINGERPRINT_BITS);
/// The furthest tick to come that can be written down; the TTL is at most half of it.
const HORIZON: u64 = ROUND / 2 - 1;
/// In so many ticks, a quarter to half of the TTL, every slot is looked at once.
const LAP: u64 = ROUND / 16;

/// See the module's doc.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    table: Option<Table>,
    /// From before the last great change of capacity or TTL.
    old: Option<Table>,
    /// Keys that found no place, or lost it.
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

    /// Removes what is over, in passing; makes a new table where the window has changed too much for this one. `now` never
    /// goes back much: a clock that another thread read a moment ago does no harm.
    pub(super) fn advance(&mut self, form: Form, now: Stamp) {
        self.tables_mut().for_each(|table| table.advance(now));
        if self.old.as_ref().is_some_and(|table| table.len == 0) {
            self.old = None;
        }
        if let Some(table) = &self.table
            && !table.form.serves(form)
        {
            let lost = std::mem::replace(&mut self.old, self.table.take().filter(|table| table.len > 0));
            self.dropped += lost.map_or(0, |table| table.len as u64);
        }
    }

    /// When it has to be advanced at the latest, now that it just was.
    pub(super) fn good_until(&self, form: Form, now: Stamp) -> Stamp {
        let ends = self.tables().map(|table| table.form.begin(table.at + ROUND / 8));
        ends.min().unwrap_or(Stamp(u64::MAX)).min(form.begin(form.tick(now) + ROUND / 8))
    }

    /// Reads what the key will be looked for in, and tells nothing: a batch that does this first waits for all of its cache
    /// lines at once.
    pub(super) fn warm(&self, spread: u64) -> u32 {
        self.tables().fold(0, |sum, table| sum ^ table.bucket(spread).first().copied().unwrap_or_default())
    }

    /// A key was evicted early. One that is still here is not made to stay longer, for a larger window would have let it
    /// pass at the end of its first TTL; unless duplicates make keys young again.
    pub(super) fn insert(&mut self, spread: u64, until: Stamp, now: Stamp, form: Form) {
        if let Some(old) = &mut self.old
            && old.holds(spread, now)
        {
            if !form.refresh {
                return;
            }
            old.remove(spread, now);
        }
        let table = self.table.get_or_insert_with(|| Table::new(form, now));
        if !table.insert(spread, until, now, form.refresh) {
            self.dropped += 1;
        }
    }

    /// Whether the key ought to be remembered.
    pub(super) fn holds(&self, spread: u64, now: Stamp) -> bool {
        self.tables().any(|table| table.holds(spread, now))
    }

    pub(super) fn remove(&mut self, spread: u64, now: Stamp) {
        self.tables_mut().for_each(|table| table.remove(spread, now));
    }

    /// Forgets all, and gives the memory back.
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
    form: Form,
    /// From `start` on, so that a bucket is one cache line. Zero is an empty slot.
    slots: Vec<u32>,
    start: usize,
    buckets: usize,
    /// Slots in use, those included that are over and were not met again yet.
    len: usize,
    /// Tick of its making, and of the last [`Table::advance`].
    born: u64,
    at: u64,
    /// Buckets looked at since it was made, and the next one to be looked at.
    steps: u64,
    cursor: usize,
}

impl Table {
    fn new(form: Form, now: Stamp) -> Table {
        let buckets = form.slots.div_ceil(SLOTS).max(1);
        // All zero, so the system gives memory only where it is written to.
        let slots = vec![0_u32; (buckets + 1) * SLOTS];
        let start = slots.as_ptr().align_offset(64).min(SLOTS);
        let at = form.tick(now);
        Table { form, slots, start, buckets, len: 0, born: at, at, steps: 0, cursor: 0 }
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
        let now = self.form.tick(now);
        bucket.iter().any(|slot| is_of(*slot, print) && is_live(*slot, now))
    }

    /// False if somebody lost a place by it.
    fn insert(&mut self, spread: u64, until: Stamp, now: Stamp, refresh: bool) -> bool {
        let (now, until) = (self.form.tick(now), self.form.tick(until));
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
            // A slot whose time is over is counted in `len` already.
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
        let (print, now) = (fingerprint(spread), self.form.tick(now));
        let mut removed = 0;
        for slot in self.bucket_mut(spread) {
            if is_of(*slot, print) && is_live(*slot, now) {
                *slot = 0;
                removed += 1;
            }
        }
        self.len -= removed;
    }

    /// Looks at the next part of the table, as large as the time that has gone, so that every slot is looked at within a
    /// [`LAP`]. After a pause that was long for a round, at all of it, and from where the pause began: nothing had run
    /// around by then.
    fn advance(&mut self, now: Stamp) {
        let now = self.form.tick(now);
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

/// In its place in the slot, and never 0, so that no slot in use is.
fn fingerprint(spread: u64) -> u32 {
    let bits = (spread >> 53) << 9 | (spread >> 32) & 0x1ff;
    let print = u32::try_from(bits).unwrap_or_default();
    print.max(1) << (32 - FINGERPRINT_BITS)
}

fn is_of(slot: u32, fingerprint: u32) -> bool {
    slot ^ fingerprint < 1 << (32 - FINGERPRINT_BITS)
}

/// Whether any slot has this fingerprint. (No early end, and a whole bucket: that is four comparisons of four.)
fn has(bucket: &[u32], fingerprint: u32) -> bool {
    let shift = 32 - FINGERPRINT_BITS;
    let same = |slot: &u32| *slot >> shift == fingerprint >> shift;
    bucket
        .first_chunk::<SLOTS>()
        .is_some_and(|bucket| bucket.iter().fold(false, |any, slot| any | same(slot)))
}

/// Ticks until it is over; 0 if it is.
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
    use crate::pressure::form::{InForce, STRIPES};
    use crate::pressure::random;
    use crate::window::{Limits, Mode};
    use std::time::Duration;

    const TTL: Duration = Duration::from_secs(600);

    fn form(capacity: usize, ttl: Duration) -> Form {
        let in_force = InForce::default();
        let limits =
            Limits { capacity, ttl, mode: Mode::Enforce, refresh_on_duplicate: false, waiters_per_id: 1 };
        in_force.set(&limits);
        in_force.form()
    }

    fn at(seconds: u64) -> Stamp {
        Stamp(0).after(Duration::from_secs(seconds))
    }

    #[test]
    fn strangers_are_taken_for_known_as_seldom_as_stated() {
        let (mut ghost, form) = (Ghost::default(), form(4_000 * STRIPES, TTL));
        (0..20_000).for_each(|n| ghost.insert(random(n), at(600), at(0), form));
        let load = ghost.keys() as f64 / ghost.capacity() as f64;
        assert!(load > 0.9, "{load}");
        let asked = 3_000_000;
        let wrong = (0..asked).filter(|n| ghost.holds(random(n + 1_000_000), at(1))).count();
        let stated = asked as f64 * SLOTS as f64 / f64::from(1 << FINGERPRINT_BITS) * load;
        assert!((wrong as f64 / stated - 1.0).abs() < 0.5, "{wrong} instead of {stated}");
    }

    #[test]
    fn half_full_it_loses_one_in_five_hundred_at_most_and_counts_it() {
        let (mut ghost, form) = (Ghost::default(), form(4_000 * STRIPES, TTL));
        let keys = 8_000;
        (0..keys).for_each(|n| ghost.insert(random(n), at(600), at(0), form));
        assert!((0.45..0.55).contains(&(keys as f64 / ghost.capacity() as f64)));
        let found = (0..keys).filter(|n| ghost.holds(random(*n), at(599))).count() as u64;
        assert_eq!(found + ghost.dropped(), keys);
        assert!(ghost.dropped() <= keys / 500, "{}", ghost.dropped());
        assert!((0..keys).all(|n| !ghost.holds(random(n), at(600))), "over");
    }

    #[test]
    fn what_is_over_leaves_without_being_asked_for_whatever_the_pauses() {
        for steps in [vec![300, 300, 1], vec![1; 601], vec![601], vec![100_000], vec![599, 2], vec![7; 90]] {
            let (mut ghost, form) = (Ghost::default(), form(1_000, TTL));
            (0..100).for_each(|n| ghost.insert(random(n), at(600), at(0), form));
            let mut now = 0;
            for step in steps {
                now += step;
                ghost.advance(form, at(now));
                assert_eq!(ghost.holds(random(1), at(now)), now < 600, "at {now}");
            }
            // Whoever is over is met within half a TTL.
            (1..=30).for_each(|step| ghost.advance(form, at(now.max(600) + step * 10)));
            assert_eq!(ghost.keys(), 0);
        }
    }

    #[test]
    fn after_a_great_change_the_old_table_is_asked_too() {
        let small = form(1_000, TTL);
        for changed in [form(10_000, TTL), form(100, TTL), form(1_000, TTL / 10), form(1_000, TTL * 10)] {
            let mut ghost = Ghost::default();
            ghost.insert(random(1), at(600), at(0), small);
            ghost.advance(changed, at(10));
            ghost.insert(random(2), at(30), at(10), changed);
            assert!(ghost.holds(random(1), at(20)) && ghost.holds(random(2), at(20)));
            assert_eq!((ghost.keys(), ghost.dropped()), (2, 0));
            ghost.remove(random(1), at(20));
            assert_eq!((ghost.keys(), ghost.holds(random(1), at(20))), (1, false));
            // A third table is one too many.
            ghost.insert(random(3), at(600), at(20), changed);
            ghost.advance(form(50_000, TTL / 50), at(21));
            ghost.advance(form(50, TTL * 50), at(22));
            assert!(ghost.keys() <= 2);
            ghost.clear();
            assert_eq!((ghost.keys(), ghost.bytes()), (0, 0));
        }
        let near = [form(1_900, TTL), form(600, TTL), form(1_000, TTL / 2), form(1_000, TTL * 2)];
        assert!(near.into_iter().all(|near| small.serves(near)), "small changes need no new table");
    }
}
