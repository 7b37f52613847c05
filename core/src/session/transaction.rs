//! The publishes of a tx channel, by transaction: the open one, and those whose end the upstream has not answered yet.

use super::blame::Blame;
use super::entry::{Entry, Hears};
use super::held_returns::HeldReturns;
use super::returns::{Outstanding, ReturnKey, Returned, Returns, Shown, Told};
use super::rights::Right;
use super::runs::{Runs, is_same_exchange};
use crate::window::{
    BodyDigest, Claim, Committed, ForgetCause, Reservation, Reservations, Unremembered, is_same,
};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// The publishes of one transaction, in their order.
#[derive(Debug, Default)]
struct Batch {
    entries: Vec<Entry>,
    /// by their places among the entries
    returns: Returns,
    /// likewise
    exchanges: Runs<Box<[u8]>>,
    /// the returns of its duplicates, which go to the client when it is committed
    told: HeldReturns,
}

#[derive(Debug)]
enum Ended {
    Commit(Batch),
    Rollback(Batch),
}

impl Ended {
    fn batch(&self) -> &Batch {
        match self {
            Ended::Commit(batch) | Ended::Rollback(batch) => batch,
        }
    }

    fn batch_mut(&mut self) -> &mut Batch {
        match self {
            Ended::Commit(batch) | Ended::Rollback(batch) => batch,
        }
    }
}

/// Returns the publishes that a return shows by their claims, with their places.
fn known_by_claim(entries: &[Entry]) -> Outstanding<impl Iterator<Item = (ReturnKey, u64)>> {
    let known = |(entry, place): (&Entry, u64)| Some((entry.return_key()?, place));
    Outstanding { publishes: entries.iter().zip(0..).filter_map(known), of: entries.len() }
}

/// The transactions of one tx channel.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: Batch,
    /// of the open one, with their places among its entries
    claims: HashMap<Claim, usize>,
    ended: VecDeque<Ended>,
    /// The sum of the weights of those that are ending.
    ending: usize,
    /// The bytes of the returns that they hold.
    ending_told: usize,
}

impl Transactions {
    /// Enters a publish that was forwarded to `exchange` inside the open transaction.
    pub(super) fn forwarded(&mut self, entry: Entry, exchange: &[u8]) {
        if let Some((reservation, _)) = &entry.reservation {
            self.claims.insert(reservation.claim(), self.open.entries.len());
        }
        let Batch { entries, returns, exchanges, .. } = &mut self.open;
        let place = entries.len() as u64;
        exchanges.note(0, place, |last| is_same_exchange(last, exchange), || exchange.into());
        returns.insert(entry.shows(), place);
        entries.push(entry);
    }

    /// Returns true if the open transaction holds this claim already.
    pub(super) fn holds(&self, claim: Claim) -> bool {
        self.claims.contains_key(&claim)
    }

    /// Returns the digest of the body that the open transaction holds for this claim. It is unknown if it holds none, or if the body is
    /// not whole.
    pub(super) fn body_of(&self, claim: Claim) -> BodyDigest {
        let entry = self.claims.get(&claim).and_then(|place| self.open.entries.get(*place));
        let reserved = entry.and_then(|entry| entry.reservation.as_ref());
        reserved.map_or(BodyDigest::UNKNOWN, |(_, memo)| memo.body())
    }

    /// Returns the entry of the publish that was forwarded last in the open transaction.
    pub(super) fn newest(&mut self) -> Option<&mut Entry> {
        self.open.entries.last_mut()
    }

    /// Returns true if others wait for one of `count` publishes of the open transaction, from this one on.
    pub(super) fn is_awaited(&self, from: usize, count: usize) -> bool {
        let mut reservations = self.open.entries.iter().skip(from).take(count).filter_map(Entry::reserved);
        reservations.any(Reservation::is_awaited)
    }

    /// Returns the number of publishes of the open transaction.
    pub(super) fn open_len(&self) -> usize {
        self.open.entries.len()
    }

    /// Holds the return of a duplicate in the open transaction until it is committed.
    pub(super) fn tell(&mut self, frames: Bytes) {
        self.open.told.push(frames);
    }

    /// Returns the bytes of the returns that are held, in the open transaction and in those that are ending.
    pub(super) fn told_bytes(&self) -> usize {
        self.open.told.bytes() + self.ending_told
    }

    /// Forgets the returns: the client hears nothing more.
    pub(super) fn forget_client(&mut self) {
        self.open.told.clear();
        self.ended.iter_mut().for_each(|ended| ended.batch_mut().told.clear());
        self.ending_told = 0;
    }

    /// Returns the number of publishes whose commit or rollback is on its way. A transaction without any counts as one, so that
    /// there is a bound on how many can be on their way.
    pub(super) fn ending_len(&self) -> usize {
        self.ending
    }

    /// Returns true if an answer of the upstream is still to come.
    pub(super) fn is_ending(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Ends the open transaction by `tx.commit`.
    pub(super) fn commit(&mut self) {
        let batch = self.close();
        self.end(Ended::Commit(batch));
    }

    /// Ends the open transaction by `tx.rollback`.
    pub(super) fn rollback(&mut self) {
        let batch = self.close();
        self.end(Ended::Rollback(batch));
    }

    /// Returns true if a publish of the transaction that is being committed looks exactly like this return.
    pub(super) fn looks_like(&mut self, shown: &Shown) -> bool {
        let Some(Ended::Commit(Batch { entries, returns, .. })) = self.ended.front_mut() else {
            return false;
        };
        returns.holds(shown, || known_by_claim(entries))
    }

    /// Handles a return, which belongs to the transaction that is being committed, as
    /// [`super::confirms::Confirms::returned`].
    pub(super) fn returned(&mut self, shown: &Shown) -> (Hears, bool) {
        let Some(Ended::Commit(Batch { entries, returns, .. })) = self.ended.front_mut() else {
            return (Hears::Unknown, false);
        };
        let Returned { exact, marked, alike, told } = returns.recv(shown, || known_by_claim(entries));
        let at = |place: u64| usize::try_from(place).ok();
        let first = marked.first().and_then(|place| entries.get(at(*place)?));
        let body = first.map(Entry::body).unwrap_or_default();
        for place in marked {
            if let Some(entry) = at(place).and_then(|at| entries.get_mut(at)) {
                entry.came_back();
            }
        }
        for place in alike {
            if let Some(entry) = at(place).and_then(|at| entries.get_mut(at)) {
                entry.may_have_come_back(body);
            }
        }
        let hears = match told {
            Told::Client(Some(place)) => {
                Hears::Client(at(place).and_then(|at| entries.get_mut(at)?.take_named()))
            }
            Told::Client(None) => Hears::Unknown,
            Told::Nobody => Hears::Nobody,
        };
        (hears, exact)
    }

    /// Handles `tx.commit-ok` or `tx.rollback-ok`: the oldest transaction that is ending is over. `proven` is called with the
    /// rights that this has proven. Returns the commits that their windows do not remember yet, one for each window, how many publishes
    /// there were, and the returns of its duplicates.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        mut proven: impl FnMut(Right),
    ) -> (Vec<Unremembered>, usize, HeldReturns) {
        let Some(ended) = self.ended.pop_front() else { return (Vec::new(), 0, HeldReturns::default()) };
        let weight = weight(&ended);
        self.ending -= weight;
        self.ending_told -= ended.batch().told.bytes();
        let (mut later, mut returns) = (Vec::new(), HeldReturns::default());
        match ended {
            Ended::Commit(Batch { entries, told, .. }) => {
                returns = told;
                let mut stored = Reservations::default();
                for entry in entries {
                    entry.right.into_iter().for_each(&mut proven);
                    if let Some((reservation, memo)) = entry.stored() {
                        note(&mut later, stored.push(reservation, now, memo));
                    }
                }
                note(&mut later, stored.commit(now));
            }
            Ended::Rollback(Batch { entries, .. }) => {
                for entry in entries {
                    entry.right.into_iter().for_each(&mut proven);
                    entry.forget(ForgetCause::Rollback);
                }
            }
        }
        (later, weight, returns)
    }

    /// Forgets the open transaction: it will never be committed.
    pub(super) fn abandon_open(&mut self) {
        for entry in self.close().entries {
            entry.forget(ForgetCause::Rollback);
        }
    }

    /// Gives up everything. Those of the open transaction are not stored, those being committed are in doubt: they are given
    /// back. Where a publish is to `blame`, the transaction that it belongs to was never committed, nor was any after it:
    /// all of a transaction that may be that one is forgotten.
    pub(super) fn take_unsettled(&mut self, blame: Option<&Blame>) -> Vec<Entry> {
        let open = self.close();
        let mut ended = std::mem::take(&mut self.ended);
        ended.push_back(Ended::Rollback(open));
        ended.retain(|ended| !ended.batch().entries.is_empty());
        (self.ending, self.ending_told) = (0, 0);
        let guilty = blame.map_or_else(Vec::new, |blame| {
            let suspects = ended
                .iter()
                .map(|ended| ended.batch().exchanges.places().any(|exchange| blame.names(exchange)));
            Blame::guilty(suspects)
        });
        let mut doubtful = Vec::new();
        for (at, ended) in ended.into_iter().enumerate() {
            let (entries, cause) = match ended {
                Ended::Commit(Batch { entries, .. }) if guilty.get(at) != Some(&true) => {
                    doubtful.extend(entries);
                    continue;
                }
                Ended::Commit(Batch { entries, .. }) => (entries, ForgetCause::ChannelClosed),
                Ended::Rollback(Batch { entries, .. }) => (entries, ForgetCause::Rollback),
            };
            entries.into_iter().for_each(|entry| entry.forget(cause));
        }
        doubtful
    }

    fn end(&mut self, ended: Ended) {
        self.ending += weight(&ended);
        self.ending_told += ended.batch().told.bytes();
        self.ended.push_back(ended);
    }

    fn close(&mut self) -> Batch {
        self.claims.clear();
        std::mem::take(&mut self.open)
    }
}

fn weight(ended: &Ended) -> usize {
    ended.batch().entries.len().max(1)
}

/// Keeps the last commit of each window: when that one is remembered, so are those before it.
fn note(later: &mut Vec<Unremembered>, committed: Option<Committed>) {
    if let Some(Committed::Later(commit)) = committed {
        later.retain(|earlier| !is_same(earlier.window(), commit.window()));
        later.push(commit);
    }
}
