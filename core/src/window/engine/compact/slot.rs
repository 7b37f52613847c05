//! One remembered id in 32 bytes, half a cache line: the key, its two neighbours in a [`Chain`](super::slab::Chain), and
//! what an [`Entry`] says.
//!
//! ```text
//! key     body 32 | key 96
//! before  older neighbour 25 | at, ms since the window's first instant 39
//! after   younger neighbour 25 | ttl 28 | duplicates 11
//! ```
//!
//! * `at` is rounded down and `until` up to the millisecond, so an id is never forgotten early, and at most a millisecond
//!   late. A TTL of over 37 hours is kept in seconds, rounded up; one of over four years is taken as "for ever".
//! * Duplicates are counted up to [`MOST_DUPLICATES`].
//! * A ttl of 0, which no entry has, marks a place that is free.

use super::super::{Entry, Stamp};
use crate::window::{BodyDigest, Key};

/// Bits of a neighbour. A shard has less than 2^25 places.
const LINK: u32 = 25;
const AT: u32 = 64 - LINK;
const DUPLICATES: u32 = 11;
const TTL: u32 = 64 - LINK - DUPLICATES;

const AT_MASK: u64 = (1 << AT) - 1;
const DUPLICATES_MASK: u64 = (1 << DUPLICATES) - 1;
const TTL_MASK: u64 = (1 << TTL) - 1;
/// A bit of a ttl. If it is set, the other bits are seconds.
const IN_SECONDS: u64 = 1 << (TTL - 1);
/// A ttl without end, also for every ttl that is too long to be told in seconds.
const FOR_EVER: u64 = TTL_MASK;

/// The place that stands for "no neighbour". No slot has it.
pub(super) const NONE: u32 = (1 << LINK) - 1;
/// Duplicates are counted up to here.
pub(super) const MOST_DUPLICATES: u32 = (1 << DUPLICATES) - 1;

const NANOS: u64 = 1_000_000;

/// A [`Stamp`] in whole milliseconds, rounded down. All instants of slots are whole, so comparing with it is exact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Millis(pub(super) u64);

impl From<Stamp> for Millis {
    fn from(stamp: Stamp) -> Millis {
        Millis(stamp.0 / NANOS)
    }
}

/// One remembered id.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(super) struct Slot {
    /// The body's digest lies above the key.
    key: u128,
    before: u64,
    after: u64,
}

impl Slot {
    /// Returns a slot without neighbours.
    pub(super) fn new(key: Key, entry: Entry) -> Slot {
        let at = Millis::from(entry.at).0.min(AT_MASK);
        let ttl = match entry.until {
            Stamp(u64::MAX) => FOR_EVER,
            Stamp(until) => pack_ttl(until.div_ceil(NANOS).saturating_sub(at)),
        };
        let link = u64::from(NONE);
        let duplicates = u64::from(entry.duplicates.min(MOST_DUPLICATES));
        debug_assert!(key.0 <= Key::MASK, "a key has 96 bits");
        let body = u128::from(entry.body.bits());
        Slot {
            key: body << Key::BITS | key.0 & Key::MASK,
            before: link << AT | at,
            after: link << AT | ttl << DUPLICATES | duplicates,
        }
    }

    pub(super) fn key(&self) -> Key {
        Key(self.key & Key::MASK)
    }

    pub(super) fn body(&self) -> BodyDigest {
        BodyDigest::from_bits((self.key >> Key::BITS) as u32)
    }

    pub(super) fn at(&self) -> Millis {
        Millis(self.before & AT_MASK)
    }

    pub(super) fn until(&self) -> Millis {
        let ttl = self.after >> DUPLICATES & TTL_MASK;
        match ttl {
            FOR_EVER => Millis(u64::MAX),
            _ if ttl & IN_SECONDS != 0 => Millis(self.at().0 + (ttl ^ IN_SECONDS) * 1000),
            _ => Millis(self.at().0 + ttl),
        }
    }

    pub(super) fn is_expired(&self, now: Millis) -> bool {
        now >= self.until()
    }

    pub(super) fn entry(&self) -> Entry {
        Entry {
            at: Stamp(self.at().0 * NANOS),
            until: Stamp(self.until().0.saturating_mul(NANOS)),
            duplicates: self.duplicates(),
            body: self.body(),
        }
    }

    fn duplicates(&self) -> u32 {
        (self.after & DUPLICATES_MASK) as u32
    }

    /// Counts a duplicate, as [`Entry`] does.
    pub(super) fn touch(&mut self, now: Millis, refresh: bool) {
        if self.duplicates() < MOST_DUPLICATES {
            self.after += 1;
        }
        if refresh && now > self.at() {
            self.before = self.before & !AT_MASK | now.0.min(AT_MASK);
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.after >> DUPLICATES & TTL_MASK == 0
    }

    pub(super) fn set_free(&mut self) {
        self.after &= !(TTL_MASK << DUPLICATES);
    }

    pub(super) fn older(&self) -> u32 {
        (self.before >> AT) as u32
    }

    pub(super) fn younger(&self) -> u32 {
        (self.after >> AT) as u32
    }

    pub(super) fn set_older(&mut self, place: u32) {
        self.before = self.before & AT_MASK | u64::from(place) << AT;
    }

    pub(super) fn set_younger(&mut self, place: u32) {
        self.after = self.after & AT_MASK | u64::from(place) << AT;
    }
}

/// Packs a ttl into its bits. The result is never 0, and never shorter than `millis`.
fn pack_ttl(millis: u64) -> u64 {
    let seconds = millis.div_ceil(1000);
    match millis {
        0 => 1,
        _ if millis < IN_SECONDS => millis,
        _ if seconds < FOR_EVER ^ IN_SECONDS => IN_SECONDS | seconds,
        _ => FOR_EVER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const YEAR: u64 = 365 * 24 * 3600;

    fn packed(at: u64, ttl: u64) -> Entry {
        let entry = Entry {
            at: Stamp(at),
            until: Stamp(at).after(Duration::from_nanos(ttl)),
            duplicates: 0,
            body: BodyDigest::UNKNOWN,
        };
        Slot::new(Key(1), entry).entry()
    }

    proptest! {
        /// Whatever it is asked for, it is never forgotten early; and late by no more than the module's doc says.
        #[test]
        fn instants_are_rounded_to_the_safe_side(
            at in 0..10 * YEAR * 1_000_000_000,
            ttl in prop_oneof![
                1..1_000_000_000_u64,
                1..134_217_728 * NANOS,
                1..3 * YEAR * 1_000_000_000,
                Just(u64::MAX),
            ],
        ) {
            let entry = packed(at, ttl);
            let until = at.saturating_add(ttl);
            let slack = if ttl > 134_000_000 * NANOS { 1_002 } else { 1 };
            prop_assert!(entry.at.0 <= at && at - entry.at.0 < NANOS);
            prop_assert!(entry.until.0 >= until && entry.until.0 - until < slack * NANOS);
        }
    }

    #[test]
    fn fields_do_not_spill() {
        let body = BodyDigest::from_bits(u32::MAX - 2);
        let entry = Entry { at: Stamp(5 * NANOS), until: Stamp(9 * NANOS), duplicates: 0, body };
        let mut slot = Slot::new(Key(Key::MASK - 1), entry);
        assert_eq!((size_of::<Slot>(), slot.older(), slot.younger()), (32, NONE, NONE));
        slot.set_older(7);
        slot.set_younger(NONE - 1);
        (0..5_000).for_each(|_| slot.touch(Millis(4), true));
        assert_eq!((slot.older(), slot.younger(), slot.key()), (7, NONE - 1, Key(Key::MASK - 1)));
        assert_eq!(
            slot.entry(),
            Entry { duplicates: MOST_DUPLICATES, ..entry },
            "a late clock changes nothing"
        );
        slot.touch(Millis(8), true);
        assert_eq!((slot.at(), slot.until()), (Millis(8), Millis(12)));
        assert!(!slot.is_expired(Millis(11)) && slot.is_expired(Millis(12)) && !slot.is_free());
        slot.set_free();
        assert!(slot.is_free() && slot.older() == 7 && slot.younger() == NONE - 1);
    }

    #[test]
    fn for_ever_is_for_ever() {
        let mut slot = Slot::new(
            Key(1),
            Entry { at: Stamp(0), until: Stamp(u64::MAX), duplicates: 0, body: BodyDigest::UNKNOWN },
        );
        slot.touch(Millis(1_000), true);
        assert_eq!(slot.entry().until, Stamp(u64::MAX));
        assert!(!slot.is_expired(Millis(u64::MAX / NANOS)));
    }
}
