//! A lower bound of the time at which the next entry of a shard expires. Before that time nobody has to look for expired entries.
//!
//! The exact time would need a heap. The bound is kept for two generations of entries instead. An entry joins the new generation
//! when it is committed, and again with each duplicate. The entries of the old generation are among the `left` least recently seen
//! ones. When one of these leaves, `left` counts down. At zero the new generation becomes the old one.
//!
//! The bound lags behind by the time in which a shard turns over twice, at most. A window that evicts ids at half their TTL or
//! earlier never looks for expired entries. In a window that is large enough the oldest entry expires all the time, so it looks.

use super::slot::Millis;

/// The earliest ends of the entries of two generations.
#[derive(Debug)]
pub(super) struct Quiet {
    old: Millis,
    new: Millis,
    left: usize,
}

impl Quiet {
    pub(super) const EMPTY: Quiet = Quiet { old: Millis(u64::MAX), new: Millis(u64::MAX), left: 0 };

    /// Returns true if surely nothing has expired by now.
    pub(super) fn is_quiet(&self, now: Millis) -> bool {
        now < self.old.min(self.new)
    }

    /// Notes that an entry with this end has become the youngest.
    pub(super) fn came(&mut self, until: Millis) {
        self.new = self.new.min(until);
    }

    /// Notes that the oldest of `len` entries leaves.
    pub(super) fn oldest_goes(&mut self, len: usize) {
        if self.left == 0 {
            *self = Quiet { old: self.new, new: Millis(u64::MAX), left: len };
        }
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// Entries come, leave at the old end, or leave from anywhere (a removal, or a duplicate, which comes again at once).
        #[test]
        fn nothing_expires_in_the_quiet(steps in prop::collection::vec((0..4_u8, any::<usize>(), 0..100_u64), 1..600)) {
            let (mut quiet, mut all) = (Quiet::EMPTY, VecDeque::new());
            for (step, pick, end) in steps {
                match step {
                    0 if !all.is_empty() => {
                        quiet.oldest_goes(all.len());
                        all.pop_front();
                    }
                    1 if !all.is_empty() => {
                        let place = pick % all.len();
                        if place == 0 {
                            quiet.oldest_goes(all.len());
                        }
                        let end = all.remove(place).unwrap();
                        if end % 2 == 0 {
                            quiet.came(Millis(end));
                            all.push_back(end);
                        }
                    }
                    _ => {
                        quiet.came(Millis(end));
                        all.push_back(end);
                    }
                }
                if let Some(first) = all.iter().min() {
                    prop_assert!(!quiet.is_quiet(Millis(*first)));
                }
            }
        }
    }

    #[test]
    fn it_follows_within_two_turns() {
        let mut quiet = Quiet::EMPTY;
        (0..10).for_each(|n| quiet.came(Millis(n + 100)));
        for n in 10..100 {
            quiet.oldest_goes(10);
            quiet.came(Millis(n + 100));
            assert!(quiet.is_quiet(Millis((n + 100).saturating_sub(21).max(99))), "{n}: {quiet:?}");
        }
    }
}
