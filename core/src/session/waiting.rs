//! Publishes that wait for the outcome of another of the same id.
//!
//! They wait aside: the publishes behind them go on. Their bytes are counted here.

use super::candidate::Kept;
use super::outbox::View;
use crate::window::{BodyDigest, Claim, Ticket, Wait};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

/// Reservations that are looked at in one go.
pub(super) const LOOKED_AT: usize = 1024;

/// A publish that waits for the outcome of another with the same id.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) waits: Waits,
    pub(super) candidate: Kept,
    pub(super) weight: usize,
    /// how long it may wait
    pub(super) until: Instant,
}

/// The event that a publish waits for now.
#[derive(Debug)]
pub(super) enum Waits {
    /// The outcome of the other.
    Outcome(Wait),
    /// The window has put the verdict off. It is asked again when this time is over.
    Store { wait: Wait, due: Instant },
    /// There is no room to wait. The window is asked again at this time.
    NoRoom { retry_at: Instant },
}

impl Waits {
    /// Releases the guard, because the verdict has come by mail. The publish has no place in a queue any more, unless the
    /// verdict brings a new one.
    pub(super) fn answered(self, now: Instant) -> Waits {
        match self {
            Waits::Outcome(wait) | Waits::Store { wait, .. } => wait.answered(),
            Waits::NoRoom { .. } => {}
        }
        Waits::NoRoom { retry_at: now }
    }
}

impl Waiter {
    /// Returns when there is something to do about it.
    fn due(&self) -> Instant {
        match self.waits {
            Waits::Outcome(_) => self.until,
            Waits::Store { due, .. } => due,
            Waits::NoRoom { retry_at } => retry_at,
        }
    }
}

/// The publishes of one channel that wait aside.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queued: BTreeMap<Ticket, Waiter>,
    /// When there is something to do about each of them.
    due: BTreeSet<(Instant, Ticket)>,
    /// How many there are of each claim.
    claims: ClaimCounts,
    bytes: usize,
}

impl Waiting {
    /// Returns the bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of publishes that wait.
    pub(super) fn len(&self) -> usize {
        self.queued.len()
    }

    /// Returns true if a publish of this claim waits.
    pub(super) fn holds(&self, claim: Claim) -> bool {
        self.claims.holds(claim)
    }

    /// Returns the body of a publish of this claim that waits, if one does and it is whole.
    pub(super) fn body_of(&self, claim: Claim) -> BodyDigest {
        self.claims.body_of(claim)
    }

    /// Returns when there is something to do about the first of them.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(super) fn queue(&mut self, ticket: Ticket, waiter: Waiter) {
        self.bytes += waiter.weight;
        self.due.insert((waiter.due(), ticket));
        self.claims.add(waiter.candidate.terms.claim, waiter.candidate.body());
        self.queued.insert(ticket, waiter);
    }

    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.queued.remove(&ticket)?;
        self.due.remove(&(waiter.due(), ticket));
        self.bytes -= waiter.weight;
        self.claims.remove(waiter.candidate.terms.claim);
        Some(waiter)
    }

    /// Takes the first about which there is something to do.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<(Ticket, Waiter)> {
        let (_, ticket) = *self.due.first().filter(|(due, _)| *due <= now)?;
        self.take(ticket).map(|waiter| (ticket, waiter))
    }

    /// Adds a frame of the body of a publish. Its payload was counted when the publish was queued.
    pub(super) fn extend(&mut self, ticket: Ticket, frame: View<'_>, left: u64) {
        if let Some(waiter) = self.queued.get_mut(&ticket) {
            let overhead = frame.len() - frame.payload().len();
            waiter.candidate.content.extend_from_slice(frame.octets());
            waiter.candidate.left = left;
            if left == 0 {
                self.claims.set_body(waiter.candidate.terms.claim, waiter.candidate.body());
            }
            waiter.weight += overhead;
            self.bytes += overhead;
        }
    }

    /// Forgets those whose client hears that they were dropped: their confirms do not come.
    pub(super) fn retain_unheard(&mut self) {
        self.tickets_of(true).into_iter().for_each(|ticket| drop(self.take(ticket)));
    }

    /// Returns the tickets of those whose client would not hear that they were dropped, oldest first.
    pub(super) fn unheard(&self) -> Vec<Ticket> {
        self.tickets_of(false)
    }

    fn tickets_of(&self, heard: bool) -> Vec<Ticket> {
        let some = self.queued.iter().filter(|(_, waiter)| waiter.candidate.terms.client.is_some() == heard);
        some.map(|(ticket, _)| *ticket).collect()
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        *self = Waiting::default();
    }
}

/// How many publishes there are of each claim, and the body of the one that came last.
#[derive(Debug, Default)]
pub(super) struct ClaimCounts(HashMap<Claim, (usize, BodyDigest)>);

impl ClaimCounts {
    pub(super) fn holds(&self, claim: Claim) -> bool {
        self.0.contains_key(&claim)
    }

    /// Returns the body of the one that came last.
    pub(super) fn body_of(&self, claim: Claim) -> BodyDigest {
        self.0.get(&claim).map_or(BodyDigest::UNKNOWN, |(_, body)| *body)
    }

    pub(super) fn add(&mut self, claim: Claim, body: BodyDigest) {
        let (count, last) = self.0.entry(claim).or_default();
        (*count, *last) = (*count + 1, body);
    }

    /// Sets the body of the one that came last: it is whole by now.
    pub(super) fn set_body(&mut self, claim: Claim, body: BodyDigest) {
        self.0.get_mut(&claim).into_iter().for_each(|(_, last)| *last = body);
    }

    pub(super) fn remove(&mut self, claim: Claim) {
        if let Entry::Occupied(mut count) = self.0.entry(claim) {
            count.get_mut().0 -= 1;
            if count.get().0 == 0 {
                count.remove();
            }
        }
    }
}
