//! Ids that were committed when they were written, because nobody would say later what became of them.
//!
//! With `confirms = "client-only"` and a client without confirms, a written id counts as stored. Two things can still show
//! that it is not: a `basic.return`, and a `channel.close` that names its exchange. The last [`KEPT`] ids are remembered for
//! that, 16 bytes each (and 64 bytes more for each mandatory one).

use super::blame::Blame;
use super::returns::{ReturnKey, Returned, Returns};
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
    mandatory: HashMap<u64, ReturnKey>,
}

impl Written {
    /// Adds a publish that is being written to `exchange`. When it is whole, `committed` will be seen.
    pub(super) fn push(
        &mut self,
        committed: Option<(&Arc<dyn Window>, Claim)>,
        exchange: &[u8],
        return_key: Option<ReturnKey>,
    ) {
        if self.claims.len() >= KEPT {
            self.claims.pop_front();
            self.forget_return(self.first);
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
        if let Some(key) = return_key {
            self.mandatory.insert(tag, key);
            self.returns.insert(key, tag);
        }
    }

    /// Drops the newest, which was not written whole and so was not committed.
    pub(super) fn drop_newest(&mut self) {
        if self.claims.pop_back().is_some() {
            self.forget_return(self.first + self.claims.len() as u64);
        }
    }

    /// Returns true if a publish looks exactly like this return.
    pub(super) fn holds(&self, key: ReturnKey) -> bool {
        self.returns.holds(key)
    }

    /// Handles a return: the publishes that it may mean were not stored.
    pub(super) fn recv_return(&mut self, key: ReturnKey, now: Instant) {
        let Returned { marked, .. } = self.returns.recv(key);
        for tag in marked {
            self.disown(tag, now);
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
        if let Some(key) = self.mandatory.remove(&tag) {
            self.returns.remove(key, tag);
        }
    }
}
