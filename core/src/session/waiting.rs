//! Publishes that wait: for the outcome of another of the same id, or for a window's late verdict.
//!
//! What waits is bounded in bytes, and every byte is counted here: `held` is the weight of all that is queued, promoted,
//! stalled or being collected.

use super::candidate::Kept;
use super::outbox::View;
use crate::window::{Claim, ForgetCause, Reservation, Ticket, Wait};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

/// Reservations that are looked at in one go.
pub(super) const LOOKED_AT: usize = 1024;

/// A publish that waits for the outcome of another with the same id.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) wait: Wait,
    pub(super) candidate: Kept,
    pub(super) weight: usize,
    pub(super) until: Instant,
}

/// A waiter whose turn has come, with the reservation that it was given.
#[derive(Debug)]
pub(super) struct Promoted {
    pub(super) candidate: Kept,
    pub(super) weight: usize,
    pub(super) reservation: Option<Reservation>,
}

/// A publish that stops its channel until its verdict is known.
#[derive(Debug)]
pub(super) struct Stall {
    pub(super) candidate: Kept,
    pub(super) ticket: Ticket,
    /// The window will answer by mail; otherwise there was no room to wait, and it asks again.
    pub(super) asked: Option<Wait>,
    pub(super) retry_at: Instant,
    pub(super) until: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queued: BTreeMap<Ticket, Waiter>,
    /// Until when each of them is patient.
    due: BTreeSet<(Instant, Ticket)>,
    /// Promoted while other content was on its way upstream: contents do not interleave.
    promoted: VecDeque<Promoted>,
    /// How many of each claim wait aside.
    claims: HashMap<Claim, usize>,
    stalled: Option<Stall>,
    held: usize,
}

impl Waiting {
    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Publishes that wait aside.
    pub(super) fn len(&self) -> usize {
        self.queued.len() + self.promoted.len()
    }

    /// Whether a publish of this claim waits aside.
    pub(super) fn holds(&self, claim: Claim) -> bool {
        self.claims.contains_key(&claim)
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// When a stalled publish asks again, or a queued one has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let retry = self.stalled.as_ref().filter(|stall| stall.asked.is_none()).map(|stall| stall.retry_at);
        let expiry = self.due.first().map(|(until, _)| *until);
        retry.into_iter().chain(expiry).min()
    }

    pub(super) fn hold(&mut self, bytes: usize) {
        self.held += bytes;
    }

    pub(super) fn release(&mut self, bytes: usize) {
        self.held -= bytes;
    }

    pub(super) fn queue(&mut self, ticket: Ticket, waiter: Waiter) {
        self.held += waiter.weight;
        self.due.insert((waiter.until, ticket));
        self.came(waiter.candidate.terms.claim);
        self.queued.insert(ticket, waiter);
    }

    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.queued.remove(&ticket)?;
        self.due.remove(&(waiter.until, ticket));
        self.held -= waiter.weight;
        self.went(waiter.candidate.terms.claim);
        Some(waiter)
    }

    /// The first that has waited long enough.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<(Ticket, Waiter)> {
        let (_, ticket) = *self.due.first().filter(|(until, _)| *until <= now)?;
        self.take(ticket).map(|waiter| (ticket, waiter))
    }

    /// More of the body of a queued publish. Its payload was counted when it was queued.
    pub(super) fn extend(&mut self, ticket: Ticket, frame: View<'_>, left: u64) {
        if let Some(waiter) = self.queued.get_mut(&ticket) {
            let overhead = frame.len() - frame.payload().len();
            waiter.candidate.content.extend_from_slice(frame.octets());
            waiter.candidate.left = left;
            waiter.weight += overhead;
            self.held += overhead;
        }
    }

    pub(super) fn push_promoted(&mut self, promoted: Promoted) {
        self.held += promoted.weight;
        self.came(promoted.candidate.terms.claim);
        self.promoted.push_back(promoted);
    }

    /// Whether a publish was promoted and has not gone.
    #[inline]
    pub(super) fn has_promoted(&self) -> bool {
        !self.promoted.is_empty()
    }

    pub(super) fn pop_promoted(&mut self) -> Option<Promoted> {
        let promoted = self.promoted.pop_front()?;
        self.held -= promoted.weight;
        self.went(promoted.candidate.terms.claim);
        Some(promoted)
    }

    pub(super) fn stall(&mut self, stall: Stall) {
        self.held += stall.candidate.size();
        self.stalled = Some(stall);
    }

    pub(super) fn take_stalled(&mut self) -> Option<Stall> {
        self.take_stalled_if(|_| true)
    }

    pub(super) fn take_stalled_if(&mut self, condition: impl FnOnce(&mut Stall) -> bool) -> Option<Stall> {
        let stall = self.stalled.take_if(condition)?;
        self.held -= stall.candidate.size();
        Some(stall)
    }

    /// Whether others wait for what was promoted and has not gone yet. (Of very many, the oldest are asked.)
    pub(super) fn is_awaited(&self) -> bool {
        let reservations = self.promoted.iter().filter_map(|promoted| promoted.reservation.as_ref());
        reservations.take(LOOKED_AT).any(Reservation::is_awaited)
    }

    /// Forgets all that waits aside.
    pub(super) fn drop_queued(&mut self) {
        self.due.clear();
        for (_, waiter) in std::mem::take(&mut self.queued) {
            self.held -= waiter.weight;
            self.went(waiter.candidate.terms.claim);
        }
        while let Some(Promoted { reservation, .. }) = self.pop_promoted() {
            if let Some(reservation) = reservation {
                reservation.forget(ForgetCause::ChannelClosed);
            }
        }
    }

    fn came(&mut self, claim: Claim) {
        *self.claims.entry(claim).or_default() += 1;
    }

    fn went(&mut self, claim: Claim) {
        if let Entry::Occupied(mut count) = self.claims.entry(claim) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
