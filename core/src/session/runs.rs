//! Where the publishes of a ledger went: neighbours mostly went to the same place, so one entry stands for a run of them.

use std::collections::VecDeque;

/// Whether two exchanges have the same name. Empty names, those of the default exchange, are not compared: an empty box points
/// to no memory, and where `memcmp` uses masked loads, to look there costs hundreds of cycles although nothing is read.
#[inline]
pub(super) fn is_same_exchange(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

/// Places by the tag of the first publish of each run, in order.
#[derive(Debug)]
pub(super) struct Runs<T> {
    runs: VecDeque<(u64, T)>,
}

impl<T> Default for Runs<T> {
    fn default() -> Runs<T> {
        Runs { runs: VecDeque::new() }
    }
}

impl<T> Runs<T> {
    /// The publish of `tag`, the largest so far, went to a place. `is_it` says whether that is the place of the last one.
    /// Nobody will ask for tags below `oldest` any more.
    #[inline]
    pub(super) fn note(
        &mut self,
        oldest: u64,
        tag: u64,
        is_it: impl FnOnce(&T) -> bool,
        place: impl FnOnce() -> T,
    ) {
        if !self.runs.back().is_some_and(|(_, last)| is_it(last)) {
            self.push(oldest, tag, place());
        }
    }

    #[cold]
    fn push(&mut self, oldest: u64, tag: u64, place: T) {
        while self.runs.get(1).is_some_and(|(first, _)| *first <= oldest) {
            self.runs.pop_front();
        }
        self.runs.push_back((tag, place));
    }

    /// Where the publish of `tag` went, or the last one before it that was noted.
    pub(super) fn of(&self, tag: u64) -> Option<&T> {
        let after = self.runs.partition_point(|(first, _)| *first <= tag);
        after.checked_sub(1).and_then(|at| self.runs.get(at)).map(|(_, place)| place)
    }

    /// All places, each once for each of its runs.
    pub(super) fn places(&self) -> impl Iterator<Item = &T> {
        self.runs.iter().map(|(_, place)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_noted_once_and_forgotten_from_the_front() {
        let mut runs = Runs::default();
        let mut note = |oldest, tag, place| runs.note(oldest, tag, |last| *last == place, || place);
        [(1, 'a'), (2, 'a'), (3, 'b'), (5, 'a')].into_iter().for_each(|(tag, place)| note(1, tag, place));
        let places =
            |runs: &Runs<char>| [0, 1, 2, 3, 4, 5, 6].map(|tag| runs.of(tag).copied().unwrap_or('-'));
        assert_eq!(places(&runs), ['-', 'a', 'a', 'b', 'b', 'a', 'a']);
        runs.note(4, 6, |last| *last == 'c', || 'c');
        assert_eq!(places(&runs), ['-', '-', '-', 'b', 'b', 'a', 'c']);
        assert_eq!(runs.places().collect::<String>(), "bac");
    }
}
