//! The plan of the demo in numbers: how many ids, how many repeats, and of which kind.
//!
//! A repeat is one of three kinds, as they come about in practice:
//!
//! * **replay**: a producer crashes before it has read its confirms, and starts again with the same batch;
//! * **redundant**: two producers publish the same ids, each without knowing of the other;
//! * **in flight**: an impatient producer publishes an id again before the first one is answered.

use std::ops::Range;

/// One publish in five is a repeat.
const REPEATS: u64 = 5;
/// Producers that crash, one after the other.
const CRASHES: u64 = 24;

/// Ids are numbers here; [`super::message`] gives them their names. The ranges follow each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// published once
    pub(super) once: Range<u64>,
    /// published twice, by one producer before its crash and one after
    pub(super) replayed: Range<u64>,
    /// published twice, by two producers
    pub(super) redundant: Range<u64>,
    /// published twice, at once
    pub(super) hasty: Range<u64>,
}

impl Plan {
    /// Creates a plan of `messages` publishes, repeats included.
    pub(super) fn new(messages: u64) -> Plan {
        let repeats = messages / REPEATS;
        let replayed = repeats * 3 / 10;
        let hasty = repeats * 3 / 10;
        let redundant = repeats - replayed - hasty;
        let once = messages - 2 * repeats;
        let mut end = 0;
        let mut next = |count| {
            end += count;
            end - count..end
        };
        Plan { once: next(once), replayed: next(replayed), redundant: next(redundant), hasty: next(hasty) }
    }

    /// How many different ids there are.
    pub(super) fn ids(&self) -> u64 {
        self.hasty.end
    }

    /// How many publishes are repeats.
    pub(super) fn repeats(&self) -> u64 {
        self.hasty.end - self.once.end
    }

    /// How many publishes there are.
    pub(super) fn messages(&self) -> u64 {
        self.ids() + self.repeats()
    }

    /// Returns the ids of each producer that crashes.
    pub(super) fn crashes(&self) -> Vec<Range<u64>> {
        split(&self.replayed, CRASHES)
    }
}

/// Splits a range into `parts` of about the same size. There are fewer parts if the range is too short.
pub(super) fn split(range: &Range<u64>, parts: u64) -> Vec<Range<u64>> {
    let count = range.end - range.start;
    let edge = |part: u64| range.start + count * part / parts;
    (0..parts).map(|part| edge(part)..edge(part + 1)).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_is_repeats_and_nothing_is_lost_by_rounding() {
        for messages in (1..300).chain([2_000, 99_999, 100_000]) {
            let plan = Plan::new(messages);
            assert_eq!((plan.messages(), plan.repeats()), (messages, messages / 5));
            let crashed: u64 = plan.crashes().iter().map(|part| part.end - part.start).sum();
            assert_eq!(crashed, plan.replayed.end - plan.replayed.start);
        }
        assert_eq!(Plan::new(100_000).ids(), 80_000);
    }

    #[test]
    fn parts_follow_each_other() {
        assert_eq!(split(&(10..20), 3), [10..13, 13..16, 16..20]);
        assert_eq!(split(&(0..2), 24), [0..1, 1..2]);
    }
}
