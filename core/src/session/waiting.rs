//! Publishes that wait for the outcome of another of the same id.
//!
//! They wait aside: the publishes behind them go on. Their bytes are counted here.

use super::candidate::Kept;
use super::outbox::View;
use crate::window::{Key, Ticket, Wait};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// The publishes of one channel that wait aside.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queued: BTreeMap<Ticket, Waiter>,
    /// Until when each of them waits.
    due: BTreeSet<(Instant, Ticket)>,
    /// How many there are of each key.
    keys: KeyCounts,
    bytes: usize,
}

impl Waiting {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Publishes that wait.
    pub(super) fn len(&self) -> usize {
        self.queued.len()
    }

    /// Whether a publish of this key waits.
    pub(super) fn holds(&self, key: Key) -> bool {
        self.keys.holds(key)
    }

    /// When the first of them has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(until, _)| *until)
    }

    pub(super) fn queue(&mut self, ticket: Ticket, waiter: Waiter) {
        self.bytes += waiter.weight;
        self.due.insert((waiter.until, ticket));
        self.keys.add(waiter.candidate.terms.key);
        self.queued.insert(ticket, waiter);
    }

    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.queued.remove(&ticket)?;
        self.due.remove(&(waiter.until, ticket));
        self.bytes -= waiter.weight;
        self.keys.remove(waiter.candidate.terms.key);
        Some(waiter)
    }

    /// Takes the first that has waited long enough.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<(Ticket, Waiter)> {
        let (_, ticket) = *self.due.first().filter(|(until, _)| *until <= now)?;
        self.take(ticket).map(|waiter| (ticket, waiter))
    }

    /// More of the body of a publish has come. Its payload was counted when the publish was queued.
    pub(super) fn extend(&mut self, ticket: Ticket, frame: View<'_>, left: u64) {
        if let Some(waiter) = self.queued.get_mut(&ticket) {
            let overhead = frame.len() - frame.payload().len();
            waiter.candidate.content.extend_from_slice(frame.octets());
            waiter.candidate.left = left;
            waiter.weight += overhead;
            self.bytes += overhead;
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        *self = Waiting::default();
    }
}

/// How many publishes there are of each key.
#[derive(Debug, Default)]
pub(super) struct KeyCounts(HashMap<Key, usize>);

impl KeyCounts {
    pub(super) fn holds(&self, key: Key) -> bool {
        self.0.contains_key(&key)
    }

    pub(super) fn add(&mut self, key: Key) {
        *self.0.entry(key).or_default() += 1;
    }

    pub(super) fn remove(&mut self, key: Key) {
        if let Entry::Occupied(mut count) = self.0.entry(key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}
