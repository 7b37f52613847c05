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
use super::by_tag::ByTag;
use super::entry::{Entry, Hears, Outcome};
use super::returns::{Outstanding, ReturnKey, Returned, Returns, Shown, Told};
use super::runs::{Runs, is_same_exchange};
use super::unremembered::Deadline;
use crate::window::{ForgetCause, Reservation, Reservations};
use std::collections::BTreeMap;

/// A delivery tag as the client counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientTag(pub u64);

/// A delivery tag as the upstream counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UpstreamTag(pub u64);

/// Bytes of a publish in the ledger: its entry, its slot, its reservation in the window, and what a return would show.
pub(super) const ENTRY: usize = size_of::<Entry>() + 128;
/// A queue of this many places does not count as memory: most channels have one.
const UNCOUNTED: usize = 128;

/// The exchange that a publish with a reservation went to.
#[derive(Clone, Copy)]
pub(super) struct WentTo<'a> {
    exchanges: &'a Runs<Box<[u8]>>,
    old: &'a BTreeMap<u64, Box<[u8]>>,
    tag: u64,
}

impl<'a> WentTo<'a> {
    /// Looks it up.
    pub(super) fn exchange(self) -> &'a [u8] {
        let exchange = self.old.get(&self.tag).or_else(|| self.exchanges.of(self.tag));
        exchange.map(|exchange| &**exchange).unwrap_or_default()
    }
}

/// The entries of what was forwarded, and the answers to the client.
#[derive(Debug)]
pub(super) struct Confirms {
    /// The publishes that the upstream has not settled, by their upstream tags.
    entries: ByTag<Entry>,
    /// The answers to the client.
    pub(super) answers: Answers,
    /// Outstanding mandatory publishes by their upstream tags.
    returns: Returns,
    /// The exchanges that publishes with a reservation went to, by their upstream tags.
    exchanges: Runs<Box<[u8]>>,
    /// The same for entries that have waited for very long: the runs may forget them.
    old_exchanges: BTreeMap<u64, Box<[u8]>>,
}

impl Confirms {
    pub(super) fn new() -> Confirms {
        Confirms {
            entries: ByTag::new(),
            answers: Answers::new(),
            returns: Returns::default(),
            exchanges: Runs::default(),
            old_exchanges: BTreeMap::new(),
        }
    }

    /// Returns how many forwarded publishes the upstream has not settled.
    #[inline]
    pub(super) fn unsettled(&self) -> usize {
        self.entries.len()
    }

    /// Returns how many publishes have no outcome, or an answer that is not written. `waiting` are not forwarded yet; the client
    /// may count them already.
    #[inline]
    pub(super) fn unresolved(&self, waiting: usize) -> usize {
        (self.entries.len() + waiting).max(self.answers.len())
    }

    /// Returns the bytes that the entries take.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        let places = self.entries.places().saturating_sub(UNCOUNTED);
        self.entries.len().max(self.answers.len()) * ENTRY + places * size_of::<Option<Entry>>()
    }

    /// Enters a publish that was forwarded to `exchange`.
    #[inline]
    pub(super) fn forwarded(&mut self, entry: Entry, exchange: &[u8]) {
        let (reserved, shows) = (entry.reservation.is_some(), entry.shows());
        let tag = self.entries.push(entry);
        if reserved {
            let oldest = self.entries.first_near();
            self.exchanges.note(oldest, tag, |last| is_same_exchange(last, exchange), || exchange.into());
        }
        if shows.is_some() || self.returns.is_busy() {
            self.returns.insert(shows, tag);
        }
    }

    /// Returns the entry of the publish that was forwarded last, if it is not settled.
    pub(super) fn newest(&mut self) -> Option<&mut Entry> {
        self.entries.newest_mut()
    }

    /// Returns true if a publish looks exactly like this return.
    pub(super) fn looks_like(&mut self, shown: &Shown) -> bool {
        let entries = &self.entries;
        self.returns.holds(shown, || known_by_claim(entries))
    }

    /// Marks the publishes that a return may mean. Says who hears of it, and whether a publish looks exactly like it.
    pub(super) fn returned(&mut self, shown: &Shown) -> (Hears, bool) {
        let entries = &self.entries;
        let Returned { exact, marked, alike, told } = self.returns.recv(shown, || known_by_claim(entries));
        let body =
            marked.first().and_then(|tag| Some(self.entries.get_mut(*tag)?.body())).unwrap_or_default();
        for tag in marked {
            self.entries.get_mut(tag).into_iter().for_each(Entry::came_back);
        }
        for tag in alike {
            self.entries.get_mut(tag).into_iter().for_each(|entry| entry.may_have_come_back(body));
        }
        let hears = match told {
            Told::Client(Some(tag)) => Hears::Client(self.entries.get_mut(tag).and_then(Entry::take_named)),
            Told::Client(None) => Hears::Unknown,
            Told::Nobody => Hears::Nobody,
        };
        (hears, exact)
    }

    /// Settles `tag`, or all tags up to it, as the upstream has said. `tell` is shown every entry, in order. Those that are
    /// stored are committed. The client gets an ack or a nack for each.
    pub(super) fn settle(
        &mut self,
        tag: UpstreamTag,
        multiple: bool,
        outcome: Outcome,
        deadline: Deadline<'_>,
        mut tell: impl FnMut(&Entry, WentTo<'_>),
    ) {
        let mut stored = Reservations::default();
        self.answers.begin_commit();
        if multiple {
            // Tag 0 with `multiple` is "all so far".
            let last = if tag.0 == 0 { u64::MAX } else { tag.0 };
            while let Some((tag, entry)) = self.entries.pop_first_if(|tag, _| tag <= last) {
                self.settle_one(tag, entry, outcome, &mut stored, deadline, &mut tell);
            }
        } else if let Some(entry) = self.entries.take(tag.0) {
            self.settle_one(tag.0, entry, outcome, &mut stored, deadline, &mut tell);
        }
        if let Some(committed) = stored.commit(deadline.now) {
            self.answers.committed(committed, deadline);
        }
        let (exchanges, old) = (&self.exchanges, &mut self.old_exchanges);
        self.entries.tidy(|tag, entry| {
            if entry.reservation.is_some() {
                old.extend(exchanges.of(tag).map(|exchange| (tag, exchange.clone())));
            }
        });
    }

    #[inline]
    fn settle_one(
        &mut self,
        tag: u64,
        entry: Entry,
        outcome: Outcome,
        stored: &mut Reservations,
        deadline: Deadline<'_>,
        tell: &mut impl FnMut(&Entry, WentTo<'_>),
    ) {
        if entry.mandatory.is_some() || self.returns.is_busy() {
            self.returns.remove(entry.shows(), tag);
        }
        tell(&entry, self.went_to(tag));
        if !self.old_exchanges.is_empty() {
            self.old_exchanges.remove(&tag);
        }
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

    /// Returns the publishes that this settles, with the exchanges that they went to.
    pub(super) fn settled_by(
        &self,
        tag: UpstreamTag,
        multiple: bool,
    ) -> impl Iterator<Item = (&Entry, WentTo<'_>)> {
        let last = if multiple && tag.0 == 0 { u64::MAX } else { tag.0 };
        let first = if multiple { 0 } else { tag.0 };
        let entries = self.entries.iter().skip_while(move |(tag, _)| *tag < first);
        entries.take_while(move |(tag, _)| *tag <= last).map(|(tag, entry)| (entry, self.went_to(tag)))
    }

    /// Returns true if others wait for one of `count` unsettled publishes, from this one on.
    pub(super) fn is_awaited(&self, from: usize, count: usize) -> bool {
        let mut some = self.entries.iter().skip(from).take(count);
        some.any(|(_, entry)| entry.reserved().is_some_and(Reservation::is_awaited))
    }

    /// Takes all entries that are not settled, oldest first: nothing more will be heard of them.
    pub(super) fn take_unsettled(&mut self) -> Vec<Entry> {
        self.returns.clear();
        self.old_exchanges.clear();
        self.entries.take_all().collect()
    }

    /// Returns the exchanges of the publishes that are not settled, oldest first: `None` where a publish has no reservation.
    pub(super) fn unsettled_exchanges(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.entries.iter().map(|(tag, entry)| {
            entry.reservation.as_ref()?;
            Some(self.went_to(tag).exchange())
        })
    }

    fn went_to(&self, tag: u64) -> WentTo<'_> {
        WentTo { exchanges: &self.exchanges, old: &self.old_exchanges, tag }
    }
}

/// Returns the publishes that a return shows by their claims, with their tags.
fn known_by_claim(entries: &ByTag<Entry>) -> Outstanding<impl Iterator<Item = (ReturnKey, u64)>> {
    let known = |(tag, entry): (u64, &Entry)| Some((entry.return_key()?, tag));
    Outstanding { publishes: entries.iter().filter_map(known), of: entries.len() }
}
