//! The deliveries that the client of a channel has still to ack.
//!
//! They decide one thing only: whether a drain may close the client already ([`Unacked::is_any`]). The broker numbers the deliveries of a
//! channel from 1 on, so a count of them is the newest tag. In the usual order of acks this holds two numbers.
//!
//! ```text
//!   1  2  3  4  5  6  7  8      all up to `floor` = 3 are settled, 5 and 6 are in `above`, `newest` = 8
//!   ■  ■  ■  □  ■  ■  □  □      4, 7 and 8 are unacked
//! ```

use crate::wire::method::Settle;
use std::collections::BTreeSet;

/// The most tags that are kept because a delivery before them is unacked. If a client acks more than that out of order, some
/// that it has acked count as unacked until it acks several at once. A drain closes such a client at the end of its time, and not earlier.
const MOST_ABOVE: usize = 4_096;
/// Bytes of such a tag, as an estimate.
const TAG: usize = 24;

/// The deliveries that the client has still to ack.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    newest: u64,
    floor: u64,
    above: BTreeSet<u64>,
    /// The client has acked deliveries in a transaction that it has not ended.
    in_transaction: bool,
}

impl Unacked {
    /// Returns true if there is a delivery that the client has not acked for good.
    pub(super) fn is_any(&self) -> bool {
        self.floor < self.newest || self.in_transaction
    }

    /// Returns the tag of the newest delivery.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    /// Returns the bytes that this takes.
    pub(super) fn memory(&self) -> usize {
        self.above.len() * TAG
    }

    /// Counts a delivery that has to be acked.
    #[inline]
    pub(super) fn delivered(&mut self) {
        self.newest += 1;
    }

    /// Counts a delivery that counts as acked when it is sent (`no-ack`).
    pub(super) fn delivered_acked(&mut self) {
        self.newest += 1;
        self.settle(Settle { tag: self.newest, multiple: false });
    }

    /// Handles `basic.ack`, `basic.nack` or `basic.reject`, in a transaction or not.
    pub(super) fn recv(&mut self, settle: Settle, in_transaction: bool) {
        self.in_transaction |= in_transaction;
        self.settle(settle);
    }

    /// Handles `tx.commit` or `tx.rollback`. (A rollback makes the acks undone. Those deliveries go on counting as acked: a client that
    /// is closed before it acks them once more gets them again, as from any close.)
    pub(super) fn recv_tx_end(&mut self) {
        self.in_transaction = false;
    }

    /// Handles that all deliveries go back to their queues.
    pub(super) fn requeued(&mut self) {
        self.floor = self.newest;
        self.above.clear();
    }

    fn settle(&mut self, Settle { tag, multiple }: Settle) {
        match multiple {
            true if tag == 0 => return self.requeued(),
            true => {
                self.floor = self.floor.max(tag.min(self.newest));
                self.above.retain(|above| *above > self.floor);
            }
            false if tag == self.floor + 1 && tag <= self.newest => self.floor = tag,
            false => {
                if tag > self.floor && tag <= self.newest && self.above.len() < MOST_ABOVE {
                    self.above.insert(tag);
                }
                return;
            }
        }
        while self.above.remove(&(self.floor + 1)) {
            self.floor += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// The dumb way: a set of all tags.
        #[test]
        fn it_knows_what_a_set_of_all_tags_knows(steps in proptest::collection::vec((0_u8..5, 0_u64..40), 0..200)) {
            let (mut unacked, mut model, mut newest) = (Unacked::default(), BTreeSet::new(), 0);
            for (step, tag) in steps {
                match step {
                    0 | 1 => {
                        newest += 1;
                        model.insert(newest);
                        unacked.delivered();
                    }
                    2 => {
                        newest += 1;
                        unacked.delivered_acked();
                    }
                    3 => {
                        model.remove(&tag);
                        unacked.recv(Settle { tag, multiple: false }, false);
                    }
                    _ => {
                        model.retain(|own| tag != 0 && *own > tag);
                        unacked.recv(Settle { tag, multiple: true }, false);
                    }
                }
                prop_assert_eq!(unacked.is_any(), !model.is_empty());
            }
        }
    }

    #[test]
    fn a_client_that_leaves_one_out_takes_no_memory_without_bound() {
        let mut unacked = Unacked::default();
        for tag in 1..=1_000_000 {
            unacked.delivered();
            if tag > 1 {
                unacked.recv(Settle { tag, multiple: false }, false);
            }
        }
        assert!(unacked.is_any() && unacked.memory() <= MOST_ABOVE * TAG);
        unacked.recv(Settle { tag: 1_000_000, multiple: true }, false);
        assert!(!unacked.is_any() && unacked.memory() == 0);
    }
}
