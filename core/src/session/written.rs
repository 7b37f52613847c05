//! Ids that were committed when they were written, because nobody would say later what became of them.
//!
//! With `confirms = "client-only"` and a client without confirms, a written id counts as stored. Two things can still show
//! that it is not: a `basic.return`, and a `channel.close` that names its exchange. The last [`KEPT`] ids are remembered for
//! that, 24 bytes each (and 64 bytes more for each one whose return is known by its header).

use super::blame::Blame;
use super::entry::Hears;
use super::returns::{Outstanding, ReturnKey, Returned, Returns, Shown, Shows, Told};
use super::runs::{Runs, is_same_exchange};
use crate::window::{Claim, Key, Window, is_same};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Publishes that are remembered for each channel. Older ones are believed to be stored.
const KEPT: usize = 4_096;

/// The place that a run of publishes went to.
#[derive(Debug)]
struct Place {
    exchange: Box<[u8]>,
    /// `None`: nobody has judged them, so there is nothing to forget.
    window: Option<Arc<dyn Window>>,
}

/// The last ids of a channel that were committed when they were written.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The tag of `claims.front()`.
    first: u64,
    claims: VecDeque<Claim>,
    places: Runs<Place>,
    returns: Returns,
    /// How a return would show them, where it is known by the header.
    by_header: HashMap<u64, (ReturnKey, bool)>,
    /// The place as a return would show it, where it is known by the claim. 0: it is not, or cannot come back.
    verified: VecDeque<u64>,
}

impl Written {
    /// Adds a publish that is being written to `exchange`. When it is whole, `committed` will be seen.
    pub(super) fn push(
        &mut self,
        committed: Option<(&Arc<dyn Window>, Claim)>,
        exchange: &[u8],
        shows: Option<Shows>,
    ) {
        if self.claims.len() >= KEPT {
            self.forget_return(self.first);
            self.claims.pop_front();
            self.verified.pop_front();
            self.first += 1;
        }
        let tag = self.first + self.claims.len() as u64;
        let window = committed.map(|(window, _)| window);
        let is_it = |place: &Place| {
            let same = match (&place.window, window) {
                (Some(one), Some(other)) => is_same(one, other),
                (None, None) => true,
                _ => false,
            };
            same && is_same_exchange(&place.exchange, exchange)
        };
        self.places
            .note(self.first, tag, is_it, || Place { exchange: exchange.into(), window: window.cloned() });
        self.claims.push_back(committed.map_or(Claim::Digest(Key(0)), |(_, claim)| claim));
        let mut place = 0;
        match shows {
            Some(Shows::Header { key, asked }) => drop(self.by_header.insert(tag, (key, asked))),
            Some(Shows::Claim(key)) => place = key.place(),
            None => {}
        }
        self.verified.push_back(place);
        self.returns.insert(shows, tag);
    }

    /// Drops the newest, which was not written whole and so was not committed.
    pub(super) fn drop_newest(&mut self) {
        if let Some(last) = self.claims.len().checked_sub(1) {
            self.forget_return(self.first + last as u64);
            self.claims.pop_back();
            self.verified.pop_back();
        }
    }

    /// Returns true if a publish looks exactly like this return.
    pub(super) fn holds(&mut self, shown: &Shown) -> bool {
        let (claims, verified, first) = (&self.claims, &self.verified, self.first);
        self.returns.holds(shown, || all(claims, verified, first))
    }

    /// Handles a return: the publishes that it may mean were not stored. Says who hears of it.
    pub(super) fn recv_return(&mut self, shown: &Shown, now: Instant) -> Hears {
        let (claims, verified, first) = (&self.claims, &self.verified, self.first);
        let Returned { marked, told, .. } = self.returns.recv(shown, || all(claims, verified, first));
        for tag in marked {
            self.disown(tag, now);
        }
        match told {
            // It was written to the exchange that the client has named.
            Told::Client(Some(_)) => Hears::Client(None),
            Told::Client(None) => Hears::Unknown,
            Told::Nobody => Hears::Nobody,
        }
    }

    /// Handles that the broker has closed the channel because of a publish. Those that may be the one were not stored.
    pub(super) fn blame(self, blame: &Blame, now: Instant) {
        let tags = self.first..self.first + self.claims.len() as u64;
        let is_suspect = |tag| self.places.of(tag).is_some_and(|place| blame.names(&place.exchange));
        let guilty = Blame::guilty(tags.clone().map(is_suspect));
        tags.zip(guilty).filter(|(_, guilty)| *guilty).for_each(|(tag, _)| self.disown(tag, now));
    }

    fn disown(&self, tag: u64, now: Instant) {
        let at = tag.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let claim = at.and_then(|at| self.claims.get(at));
        let window = self.places.of(tag).and_then(|place| place.window.as_ref());
        if let (Some(claim), Some(window)) = (claim, window) {
            window.disown(*claim, now);
        }
    }

    fn forget_return(&mut self, tag: u64) {
        let by_header = self.by_header.remove(&tag).map(|(key, asked)| Shows::Header { key, asked });
        let at = tag.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let by_claim = || at.and_then(|at| by_claim(*self.claims.get(at)?, *self.verified.get(at)?));
        let shows = by_header.or_else(|| by_claim().map(Shows::Claim));
        self.returns.remove(shows, tag);
    }
}

/// Returns the publishes that a return shows by their claim, with their tags.
fn all(
    claims: &VecDeque<Claim>,
    verified: &VecDeque<u64>,
    first: u64,
) -> Outstanding<impl Iterator<Item = (ReturnKey, u64)>> {
    let publishes = claims.iter().zip(verified).zip(first..);
    let known = |((claim, place), tag): ((&Claim, &u64), u64)| Some((by_claim(*claim, *place)?, tag));
    Outstanding { publishes: publishes.filter_map(known), of: claims.len() }
}

fn by_claim(claim: Claim, place: u64) -> Option<ReturnKey> {
    (place != 0).then(|| ReturnKey::at(place, claim))
}
