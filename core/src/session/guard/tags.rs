//! The delivery tags of a guarded channel. The client counts what it is shown, the broker what it has sent.
//!
//! ```text
//!   broker   1  2  3  4  5  6     2 is hidden, 3 waits for the outcome of a copy
//!   client   1  -  ?  2  3  4     if 3 is shown later, its tag for the client is 5
//! ```
//!
//! As in RabbitMQ, a tag that is not unacked is an error, with or without `multiple`. A `multiple` of the client becomes a `multiple` for the
//! broker only as far as no tag that the client does not mean stands among those that it means.

use super::consumed::Consumed;
use crate::window::{Memo, Reservation};
use crate::wire::method::Settle;
use std::collections::{BTreeMap, BTreeSet};

/// A reservation, and what its commit tells the window.
pub(super) type Reserved = (Reservation, Memo);

/// Bytes of an unacked delivery, with the reservation that its window has for it: an estimate.
const SHOWN: usize = 240;

/// A delivery that the client has been shown and has to settle.
#[derive(Debug)]
pub(super) struct Shown {
    /// the broker's tag
    pub(super) upstream: u64,
    /// `None`: no guard judges it
    pub(super) reserved: Option<Reserved>,
    /// what is forgotten when it is acked
    pub(super) consumed: Consumed,
}

/// The unacked deliveries of a channel, by the tags of both sides.
#[derive(Debug, Default)]
pub(super) struct Tags {
    /// by the client's tags
    shown: BTreeMap<u64, Shown>,
    /// the broker's tags of all deliveries that it waits for, those that the client has not been shown included
    open: BTreeSet<u64>,
}

impl Tags {
    /// Returns the bytes that they take.
    pub(super) fn memory(&self) -> usize {
        self.open.len() * SHOWN
    }

    /// Notes a delivery that the broker wants to be settled.
    pub(super) fn delivered(&mut self, upstream: u64) {
        self.open.insert(upstream);
    }

    /// Notes that the client has been shown a delivery that it has to settle.
    pub(super) fn show(&mut self, client: u64, shown: Shown) {
        self.shown.insert(client, shown);
    }

    /// Notes that a `tx.rollback` makes the client's ack of this delivery undone.
    pub(super) fn restore(&mut self, client: u64, shown: Shown) {
        self.open.insert(shown.upstream);
        self.shown.insert(client, shown);
    }

    /// Takes the deliveries that the client settles. `None`: it names a tag that is not unacked.
    pub(super) fn take(&mut self, Settle { tag, multiple }: Settle) -> Option<BTreeMap<u64, Shown>> {
        if multiple && tag == 0 {
            return Some(std::mem::take(&mut self.shown));
        }
        let (_, newest) = (self.shown.get(&tag)?, self.shown.last_key_value()?.0);
        if !multiple {
            return self.shown.remove_entry(&tag).map(|one| BTreeMap::from([one]));
        }
        let rest = if *newest == tag { BTreeMap::new() } else { self.shown.split_off(&(tag + 1)) };
        Some(std::mem::replace(&mut self.shown, rest))
    }

    /// Settles these deliveries at the broker. `write` is called for each method. `multiple`: the method may settle several.
    pub(super) fn settle(&mut self, mut upstream: Vec<u64>, multiple: bool, mut write: impl FnMut(Settle)) {
        upstream.sort_unstable();
        let together = self.open.iter().zip(&upstream).take_while(|(open, tag)| open == tag).count();
        let together = if multiple && together > 1 { together } else { 0 };
        if let Some(tag) = together.checked_sub(1).and_then(|last| upstream.get(last)) {
            write(Settle { tag: *tag, multiple: true });
        }
        for tag in upstream.iter().skip(together) {
            write(Settle { tag: *tag, multiple: false });
        }
        for tag in upstream {
            self.open.remove(&tag);
        }
    }

    /// Takes all that the client was shown: it can't settle them any more.
    pub(super) fn take_shown(&mut self) -> BTreeMap<u64, Shown> {
        std::mem::take(&mut self.shown)
    }

    /// Forgets all: the broker has them back. Returns those that the client was shown.
    pub(super) fn clear(&mut self) -> BTreeMap<u64, Shown> {
        self.open.clear();
        std::mem::take(&mut self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Does what RabbitMQ does with a settle. Returns the tags that it takes out of the unacked ones.
    fn broker(unacked: &mut Vec<u64>, Settle { tag, multiple }: Settle) -> Option<Vec<u64>> {
        if multiple && tag == 0 {
            return Some(std::mem::take(unacked));
        }
        let at = unacked.iter().position(|own| *own == tag)?;
        Some(if multiple { unacked.drain(..=at).collect() } else { vec![unacked.remove(at)] })
    }

    proptest! {
        /// The dumb way: a list of pairs, and a broker that closes the channel at an unknown tag.
        #[test]
        fn each_settle_means_the_same_on_both_sides(
            steps in proptest::collection::vec((0_u8..6, 0_u64..30, any::<bool>()), 0..120),
        ) {
            let (mut tags, mut upstream, mut client) = (Tags::default(), 0, 0);
            let (mut unacked, mut pairs, mut withheld) = (Vec::new(), Vec::<(u64, u64)>::new(), Vec::new());
            for (step, tag, multiple) in steps {
                let pick = usize::try_from(tag).unwrap();
                match step {
                    0..=2 => {
                        upstream += 1;
                        unacked.push(upstream);
                        tags.delivered(upstream);
                        withheld.push(upstream);
                        if step < 2 {
                            let shown = withheld.remove(pick % withheld.len());
                            client += 1;
                            pairs.push((client, shown));
                            tags.show(client, Shown { upstream: shown, reserved: None, consumed: Consumed::default() });
                        }
                    }
                    3 if !withheld.is_empty() => {
                        let hidden = withheld.remove(pick % withheld.len());
                        tags.settle(vec![hidden], true, |settle| {
                            assert_eq!(broker(&mut unacked, settle), Some(vec![hidden]));
                        });
                    }
                    3 => {}
                    _ => {
                        let settle = Settle { tag, multiple };
                        let mut own: Vec<u64> = pairs.iter().map(|(client, _)| *client).collect();
                        let meant = broker(&mut own, settle);
                        let taken = tags.take(settle);
                        let taken_tags = taken.as_ref().map(|taken| taken.keys().copied().collect::<Vec<_>>());
                        prop_assert_eq!(&taken_tags, &meant);
                        let Some(taken) = taken else { continue };
                        let before = unacked.clone();
                        tags.settle(taken.values().map(|shown| shown.upstream).collect(), step == 4, |settle| {
                            assert!(broker(&mut unacked, settle).is_some(), "406 for {settle:?} of {before:?}");
                        });
                        pairs.retain(|(client, _)| !taken.contains_key(client));
                        let mut expected: Vec<u64> = pairs.iter().map(|(_, upstream)| *upstream).collect();
                        expected.extend(&withheld);
                        expected.sort_unstable();
                        prop_assert_eq!(&unacked, &expected);
                    }
                }
            }
        }
    }
}
