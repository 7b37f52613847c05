//! The numbers that have left a producer's places without being stored, as ranges.
//!
//! There is a bound on the ranges. If there are more, the two that are nearest to each other become one, with the numbers between
//! them. Those are stored, and count as not stored from then on: a duplicate of one of them passes. No message is ever lost by it.

/// Ranges of one producer at most. A producer without holes has none, and no allocation for them.
pub(super) const MOST: usize = 16;

/// Numbers that are not stored: ranges with both ends, in order, and none touches the next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Holes(Vec<(u64, u64)>);

impl Holes {
    /// Returns true if the number may not be stored.
    pub(super) fn contains(&self, number: u64) -> bool {
        let next = self.0.partition_point(|(_, last)| *last < number);
        self.0.get(next).is_some_and(|(first, _)| *first <= number)
    }

    /// Returns true if there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the ranges, in order.
    pub(super) fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Adds numbers that are not stored.
    pub(super) fn insert(&mut self, first: u64, last: u64) {
        let from = self.0.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self.0.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        let touched = self.0.get(from..to.max(from)).unwrap_or_default();
        let first = touched.first().map_or(first, |(begin, _)| first.min(*begin));
        let last = touched.last().map_or(last, |(_, end)| last.max(*end));
        self.0.splice(from..to.max(from), [(first, last)]);
        self.keep_bound();
    }

    /// Notes that a number is stored.
    pub(super) fn remove(&mut self, number: u64) {
        let at = self.0.partition_point(|(_, last)| *last < number);
        let Some((first, last)) = self.0.get(at).copied().filter(|(first, _)| *first <= number) else {
            return;
        };
        let before = (first < number).then(|| (first, number - 1));
        let behind = (number < last).then(|| (number + 1, last));
        self.0.splice(at..=at, before.into_iter().chain(behind));
        self.keep_bound();
    }

    /// Returns the bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(u64, u64)>()
    }

    /// Makes one of the two ranges that are nearest to each other, if there are too many.
    fn keep_bound(&mut self) {
        if self.0.len() <= MOST {
            return;
        }
        let between = |pair: &[(u64, u64)]| match pair {
            [(_, end), (begin, _)] => begin - end,
            _ => u64::MAX,
        };
        let nearest = self.0.windows(2).enumerate().min_by_key(|(_, pair)| between(pair));
        if let Some((at, &[(first, _), (_, last)])) = nearest {
            self.0.splice(at..=at + 1, [(first, last)]);
        }
    }
}
