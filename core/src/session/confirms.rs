//! The confirm ledger of one channel: two counts that must not be mixed up.
//!
//! The upstream numbers only what was forwarded to it; the client numbers all that it has published. A forwarded publish
//! has an [`Entry`] at its [`UpstreamTag`], which owns its reservation; a client's publish has an answer slot at its
//! [`ClientTag`].
//!
//! ```text
//!   client tags     1 .. 2 .. 3 .. 4 .. 5 ..          2 is a duplicate, 4 waits for another's outcome
//!   forwarded       1         3         5
//!   upstream tags   1 ....... 2 ....... 3
//! ```
//!
//! Answers are gathered and flushed together: the settled prefix by one `multiple`, what lies beyond an open tag one
//! by one. `multiple` never passes an open tag.

use super::entry::{Entry, Outcome};
use super::returns::{ReturnKey, Returned, Returns};
use super::runs::{Runs, is_same_exchange};
use crate::wire::{ChannelId, emit};
use bytes::BytesMut;
use std::collections::VecDeque;

/// A delivery tag as the client counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientTag(pub u64);

/// A delivery tag as the upstream counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UpstreamTag(pub u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    Open,
    Acked,
    Nacked,
    Answered,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Confirms {
    /// The upstream tag of `entries.front()`.
    first_upstream: u64,
    entries: VecDeque<Option<Entry>>,
    unsettled: usize,
    /// The client tag of `slots.front()`.
    first_client: u64,
    slots: VecDeque<Slot>,
    /// Tags that have an answer which is not written yet.
    due: Vec<ClientTag>,
    /// Outstanding mandatory publishes by their upstream tags.
    returns: Returns,
    /// The exchanges that publishes with a reservation went to, by their upstream tags.
    exchanges: Runs<Box<[u8]>>,
}

impl Confirms {
    pub(super) fn new() -> Confirms {
        Confirms {
            first_upstream: 1,
            entries: VecDeque::new(),
            unsettled: 0,
            first_client: 1,
            slots: VecDeque::new(),
            due: Vec::new(),
            returns: Returns::default(),
            exchanges: Runs::default(),
        }
    }

    /// Forwarded publishes that the upstream has not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// The larger of what the two queues hold: their memory.
    pub(super) fn span(&self) -> usize {
        self.entries.len().max(self.slots.len())
    }

    /// The client's next publish.
    pub(super) fn next_client_tag(&mut self) -> ClientTag {
        let tag = ClientTag(self.first_client + self.slots.len() as u64);
        self.slots.push_back(Slot::Open);
        tag
    }

    /// A publish was forwarded, to `exchange`.
    pub(super) fn forwarded(&mut self, entry: Entry, exchange: &[u8]) {
        let tag = self.first_upstream + self.entries.len() as u64;
        if entry.reservation.is_some() {
            self.exchanges.note(
                self.first_upstream,
                tag,
                |last| is_same_exchange(last, exchange),
                || exchange.into(),
            );
        }
        if let Some(mandatory) = &entry.mandatory {
            self.returns.insert(mandatory.key, tag);
        }
        self.entries.push_back(Some(entry));
        self.unsettled += 1;
    }

    /// What was forwarded last, if it is not settled.
    pub(super) fn newest(&mut self) -> Option<&mut Entry> {
        self.entries.back_mut()?.as_mut()
    }

    /// A return has come: what it means is marked. Gives back the exchange that the client had named, where it was another,
    /// and whether a publish looks exactly like it.
    pub(super) fn returned(&mut self, key: ReturnKey) -> (Option<Box<[u8]>>, bool) {
        let Returned { exact, marked, told_as } = self.returns.recv(key);
        for tag in marked {
            self.entry_mut(tag).into_iter().for_each(Entry::came_back);
        }
        (told_as.and_then(|tag| self.entry_mut(tag)?.take_named()), exact)
    }

    /// The upstream has settled `tag`, or all up to it. `done` is told of every entry, in order.
    pub(super) fn settle(
        &mut self,
        tag: UpstreamTag,
        multiple: bool,
        outcome: Outcome,
        mut done: impl FnMut(Entry),
    ) {
        let Some(last) = tag.0.checked_sub(self.first_upstream) else {
            // Tag 0 with `multiple` is "all so far".
            if multiple && tag.0 == 0 {
                let count = self.entries.len();
                self.settle_first(count, outcome, &mut done);
            }
            return;
        };
        let last = usize::try_from(last).unwrap_or(usize::MAX);
        if multiple {
            self.settle_first(last.saturating_add(1).min(self.entries.len()), outcome, &mut done);
        } else {
            self.settle_one(last, outcome, &mut done);
        }
        // Out-of-order answers may have settled what is now first.
        while self.entries.front().is_some_and(Option::is_none) {
            self.entries.pop_front();
            self.first_upstream += 1;
        }
    }

    fn settle_first(&mut self, count: usize, outcome: Outcome, done: &mut impl FnMut(Entry)) {
        for _ in 0..count {
            self.settle_one(0, outcome, done);
            self.entries.pop_front();
            self.first_upstream += 1;
        }
    }

    fn settle_one(&mut self, at: usize, outcome: Outcome, done: &mut impl FnMut(Entry)) {
        let Some(entry) = self.entries.get_mut(at).and_then(Option::take) else { return };
        self.unsettled -= 1;
        if let Some(mandatory) = &entry.mandatory {
            self.returns.remove(mandatory.key, self.first_upstream + at as u64);
        }
        if let Some(client) = entry.client {
            match outcome {
                Outcome::Acked => self.ack(client),
                Outcome::Nacked => self.nack(client),
            }
        }
        done(entry);
    }

    /// The client's publish is stored: by itself or by another of the same id.
    pub(super) fn ack(&mut self, tag: ClientTag) {
        self.answer(tag, Slot::Acked);
    }

    /// The client's publish is not stored.
    pub(super) fn nack(&mut self, tag: ClientTag) {
        self.answer(tag, Slot::Nacked);
    }

    fn answer(&mut self, tag: ClientTag, answer: Slot) {
        let at = tag.0.checked_sub(self.first_client).and_then(|at| usize::try_from(at).ok());
        if let Some(slot) = at.and_then(|at| self.slots.get_mut(at)).filter(|slot| **slot == Slot::Open) {
            *slot = answer;
            self.due.push(tag);
        }
    }

    /// Whether answers are due.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Writes all answers that are due.
    pub(super) fn flush(&mut self, channel: ChannelId, out: &mut BytesMut) {
        if self.due.is_empty() {
            return;
        }
        // The settled prefix: its nacks one by one, then one ack covers what is left of it.
        let mut acks = 0u32;
        let mut last_ack = 0;
        while let Some(slot) = self.slots.front().copied().filter(|slot| *slot != Slot::Open) {
            match slot {
                Slot::Nacked => emit::nack(out, channel, self.first_client),
                Slot::Acked => {
                    last_ack = self.first_client;
                    acks += 1;
                }
                Slot::Open | Slot::Answered => {}
            }
            self.slots.pop_front();
            self.first_client += 1;
        }
        if acks > 0 {
            emit::ack(out, channel, last_ack, acks > 1);
        }
        // What lies beyond an open tag.
        for tag in std::mem::take(&mut self.due) {
            let Some(at) = tag.0.checked_sub(self.first_client).and_then(|at| usize::try_from(at).ok())
            else {
                continue;
            };
            if let Some(slot) = self.slots.get_mut(at) {
                match std::mem::replace(slot, Slot::Answered) {
                    Slot::Acked => emit::ack(out, channel, tag.0, false),
                    Slot::Nacked => emit::nack(out, channel, tag.0),
                    Slot::Open | Slot::Answered => {}
                }
            }
        }
    }

    /// The client's channel is closed: no tag of it will be answered any more.
    pub(super) fn forget_client(&mut self) {
        self.first_client += self.slots.len() as u64;
        self.slots.clear();
        self.due.clear();
    }

    /// Gives up all that is unsettled, oldest first: nothing more will be heard of it.
    pub(super) fn take_unsettled(&mut self) -> Vec<(UpstreamTag, Entry)> {
        self.unsettled = 0;
        self.returns.clear();
        let first = self.first_upstream;
        let entries = std::mem::take(&mut self.entries);
        self.first_upstream += entries.len() as u64;
        let tagged = (first..).map(UpstreamTag).zip(entries);
        tagged.filter_map(|(tag, entry)| Some((tag, entry?))).collect()
    }

    /// The exchange that an unsettled publish with a reservation went to, or one that was taken last.
    pub(super) fn exchange_of(&self, tag: UpstreamTag) -> &[u8] {
        self.exchanges.of(tag.0).map(|exchange| &**exchange).unwrap_or_default()
    }

    fn entry_mut(&mut self, tag: u64) -> Option<&mut Entry> {
        let at = usize::try_from(tag.checked_sub(self.first_upstream)?).ok()?;
        self.entries.get_mut(at)?.as_mut()
    }
}
