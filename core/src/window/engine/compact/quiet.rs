//! Until when surely nothing expires: as long as that is to come, nobody has to look for what has expired.
//!
//! Not the earliest end of all entries, which would take a heap, but a bound below it, kept for two generations. An entry
//! belongs to the new one from its commit, or its last duplicate, on. Those of the old one are among the `left` least recently
//! seen; each one that leaves at that end is one fewer, and when none is left, the new generation becomes the old one.
//!
//! So the bound lags by the time in which a shard turns over twice at most. A window that evicts at half its TTL or earlier
//! never looks; one that is large enough has its oldest entry expire all the time, and looks.

use super::slot::Millis;

/// See the module's doc.
#[derive(Debug)]
pub(super) struct Quiet {
    old: Millis,
    new: Millis,
    left: usize,
}

impl Quiet {
    pub(super) const EMPTY: Quiet = Quiet { old: Millis(u64::MAX), new: Millis(u64::MAX), left: 0 };

    /// Whether nothing has expired by now.
    pub(super) fn is_quiet(&self, now: Millis) -> bool {
        now < self.old.min(self.new)
    }

    /// An entry that ends then has become the youngest.
    pub(super) fn came(&mut self, until: Millis) {
        self.new = self.new.min(until);
    }

    /// The oldest leaves, of so many.
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
        /// Entries come, leave at the old end, or from anywhere (a removal; a duplicate, which comes again).
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
