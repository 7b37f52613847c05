//! Deliveries that wait aside, because another delivery of their id is being worked on: here or on another connection.
//!
//! If a channel has several copies of an id, only the oldest has a place in the window's queue. The others follow it: when it has its
//! verdict, the next one asks.

use super::withheld::Withheld;
use crate::session::waiting::Waits;
use crate::window::{Claim, Ticket};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

/// The copies of one id.
#[derive(Debug)]
struct Group {
    ticket: Ticket,
    waits: Waits,
    /// when there is something to do about the first one; `None`: its verdict comes by mail
    due: Option<Instant>,
    /// never empty
    copies: VecDeque<Withheld>,
}

/// The copies that wait on one channel.
#[derive(Debug, Default)]
pub(super) struct Copies {
    groups: HashMap<Claim, Group>,
    /// the ids by the tickets of their first copies
    tickets: HashMap<Ticket, Claim>,
    due: BTreeSet<(Instant, Ticket)>,
    bytes: usize,
}

impl Copies {
    /// Returns the bytes that they take.
    pub(super) fn memory(&self) -> usize {
        self.bytes
    }

    /// Returns true if a copy with this id waits.
    pub(super) fn holds(&self, claim: Claim) -> bool {
        self.groups.contains_key(&claim)
    }

    /// Returns when there is something to do about the first of them.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Adds a copy. If copies with its id wait already, it follows them, and `waits` is given up.
    pub(super) fn add(&mut self, claim: Claim, copy: Withheld, ticket: Ticket, waits: Waits) {
        self.bytes += copy.weight();
        if let Some(group) = self.groups.get_mut(&claim) {
            group.copies.push_back(copy);
            return;
        }
        self.lead(claim, VecDeque::from([copy]), ticket, waits);
    }

    /// Adds a copy behind those with its id, which wait already.
    pub(super) fn follow(&mut self, claim: Claim, copy: Withheld) {
        if let Some(group) = self.groups.get_mut(&claim) {
            self.bytes += copy.weight();
            group.copies.push_back(copy);
        }
    }

    fn lead(&mut self, claim: Claim, copies: VecDeque<Withheld>, ticket: Ticket, waits: Waits) {
        let due = match waits {
            Waits::Outcome(_) => None,
            Waits::Store { due, .. } => Some(due),
            Waits::NoRoom { retry_at } => Some(retry_at),
        };
        self.due.extend(due.map(|due| (due, ticket)));
        self.tickets.insert(ticket, claim);
        self.groups.insert(claim, Group { ticket, waits, due, copies });
    }

    /// Takes the copies of the id whose first one has asked under this ticket, in their order.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<(Waits, VecDeque<Withheld>)> {
        let claim = self.tickets.remove(&ticket)?;
        let Group { waits, due, copies, .. } = self.groups.remove(&claim)?;
        due.into_iter().for_each(|due| _ = self.due.remove(&(due, ticket)));
        self.bytes -= copies.iter().map(Withheld::weight).sum::<usize>();
        Some((waits, copies))
    }

    /// Returns the tickets of those about which there is something to do.
    pub(super) fn expired(&self, now: Instant) -> Vec<Ticket> {
        self.due.iter().take_while(|(due, _)| *due <= now).map(|(_, ticket)| *ticket).collect()
    }

    /// Takes all ids that have a copy for which `is_meant` returns true, with all their copies.
    pub(super) fn take_groups(
        &mut self,
        is_meant: impl Fn(&Withheld) -> bool,
    ) -> Vec<(Waits, VecDeque<Withheld>)> {
        let mut tickets: Vec<Ticket> = self
            .groups
            .values()
            .filter(|group| group.copies.iter().any(&is_meant))
            .map(|group| group.ticket)
            .collect();
        tickets.sort_unstable();
        tickets.into_iter().filter_map(|ticket| self.take(ticket)).collect()
    }
}
