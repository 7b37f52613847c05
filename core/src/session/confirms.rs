//! The part of a channel's ledger that hears acks and nacks: two counts that must not be mixed up.
//!
//! The upstream numbers only the publishes that were forwarded to it; the client numbers all that it has sent. A forwarded
//! publish has an [`Entry`] at its [`UpstreamTag`], which owns its reservation; a client's publish has an answer slot at its
//! [`ClientTag`] (see [`Answers`]).
//!
//! ```text
//!   client tags     1 .. 2 .. 3 .. 4 .. 5 ..          2 is a duplicate, 4 waits for another's outcome
//!   forwarded       1         3         5
//!   upstream tags   1 ....... 2 ....... 3
//! ```
//!
//! A publish that the upstream has acked is committed first. Its client is acked when the commit is remembered.

use super::answers::Answers;
use super::entry::{Entry, Outcome};
use super::returns::{ReturnKey, Returned, Returns};
use super::runs::{Runs, is_same_exchange};
use super::unremembered::Deadline;
use crate::window::{ForgetCause, Reservations};
use std::collections::VecDeque;

/// A delivery tag as the client counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientTag(pub u64);

/// A delivery tag as the upstream counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UpstreamTag(pub u64);

/// The entries of what was forwarded, and the answers to the client.
#[derive(Debug)]
pub(super) struct Confirms {
    /// The upstream tag of `entries.front()`.
    first_upstream: u64,
    entries: VecDeque<Option<Entry>>,
    unsettled: usize,
    /// The answers to the client.
    pub(super) answers: Answers,
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
            answers: Answers::new(),
            returns: Returns::default(),
            exchanges: Runs::default(),
        }
    }

    /// Returns how many forwarded publishes the upstream has not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Returns the larger of the lengths of the two queues: their memory.
    #[inline]
    pub(super) fn span(&self) -> usize {
        self.entries.len().max(self.answers.len())
    }

    /// Enters a publish that was forwarded to `exchange`.
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

    /// Returns the entry of the publish that was forwarded last, if it is not settled.
    pub(super) fn newest(&mut self) -> Option<&mut Entry> {
        self.entries.back_mut()?.as_mut()
    }

    /// Marks the publishes that a return may mean. Gives back the exchange that the client had named, where it was another,
    /// and whether a publish looks exactly like it.
    pub(super) fn returned(&mut self, key: ReturnKey) -> (Option<Box<[u8]>>, bool) {
        let Returned { exact, marked, told_as } = self.returns.recv(key);
        for tag in marked {
            self.entry_mut(tag).into_iter().for_each(Entry::came_back);
        }
        (told_as.and_then(|tag| self.entry_mut(tag)?.take_named()), exact)
    }

    /// Settles `tag`, or all tags up to it, as the upstream has said. `tell` is shown every entry, in order. Those that are
    /// stored are committed. The client gets an ack or a nack for each.
    pub(super) fn settle(
        &mut self,
        tag: UpstreamTag,
        multiple: bool,
        outcome: Outcome,
        deadline: Deadline<'_>,
        mut tell: impl FnMut(&Entry),
    ) {
        let mut stored = Reservations::default();
        self.answers.begin_commit();
        if multiple {
            // Tag 0 with `multiple` is "all so far".
            let last = if tag.0 == 0 { u64::MAX } else { tag.0 };
            let count = last.saturating_add(1).saturating_sub(self.first_upstream);
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.entries.len());
            for _ in 0..count {
                self.settle_one(0, outcome, &mut stored, deadline, &mut tell);
                self.entries.pop_front();
                self.first_upstream += 1;
            }
        } else if let Some(at) = tag.0.checked_sub(self.first_upstream) {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            self.settle_one(at, outcome, &mut stored, deadline, &mut tell);
        }
        if let Some(committed) = stored.commit(deadline.now) {
            self.answers.committed(committed, deadline);
        }
        // Out-of-order answers may have settled the entries that are first now.
        while self.entries.front().is_some_and(Option::is_none) {
            self.entries.pop_front();
            self.first_upstream += 1;
        }
    }

    fn settle_one(
        &mut self,
        at: usize,
        outcome: Outcome,
        stored: &mut Reservations,
        deadline: Deadline<'_>,
        tell: &mut impl FnMut(&Entry),
    ) {
        let Some(entry) = self.entries.get_mut(at).and_then(Option::take) else { return };
        self.unsettled -= 1;
        if let Some(mandatory) = &entry.mandatory {
            self.returns.remove(mandatory.key, self.first_upstream + at as u64);
        }
        tell(&entry);
        let client = entry.client;
        match outcome {
            Outcome::Nacked => {
                entry.forget(ForgetCause::Nack);
                client.into_iter().for_each(|tag| self.answers.nack(tag));
            }
            Outcome::Acked => match entry.stored() {
                Some((reservation, memo)) => {
                    // A full batch is committed before this one is put into the next.
                    if let Some(committed) = stored.push(reservation, deadline.now, memo) {
                        self.answers.committed(committed, deadline);
                    }
                    client.into_iter().for_each(|tag| self.answers.await_commit(tag));
                }
                None => client.into_iter().for_each(|tag| self.answers.ack(tag)),
            },
        }
    }

    /// Takes all entries that are not settled, oldest first: nothing more will be heard of them.
    pub(super) fn take_unsettled(&mut self) -> Vec<(UpstreamTag, Entry)> {
        self.unsettled = 0;
        self.returns.clear();
        let first = self.first_upstream;
        let entries = std::mem::take(&mut self.entries);
        self.first_upstream += entries.len() as u64;
        let tagged = (first..).map(UpstreamTag).zip(entries);
        tagged.filter_map(|(tag, entry)| Some((tag, entry?))).collect()
    }

    /// Returns the exchange that a publish with a reservation went to: one that is not settled, or was among those that were
    /// taken last.
    pub(super) fn exchange_of(&self, tag: UpstreamTag) -> &[u8] {
        self.exchanges.of(tag.0).map(|exchange| &**exchange).unwrap_or_default()
    }

    fn entry_mut(&mut self, tag: u64) -> Option<&mut Entry> {
        let at = usize::try_from(tag.checked_sub(self.first_upstream)?).ok()?;
        self.entries.get_mut(at)?.as_mut()
    }
}
