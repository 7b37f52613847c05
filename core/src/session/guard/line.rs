//! Deliveries that wait in their order, because a window's store has not been heard yet about the first of them.
//!
//! Each has a number, and the numbers have no gaps. An answer finds its delivery by the number, however many wait.

use super::withheld::{Known, Withheld};
use crate::window::{ForgetCause, Ticket, Verdict};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// A delivery in the line.
#[derive(Debug)]
struct Lined {
    withheld: Withheld,
    known: Known,
    /// when its window is asked without its store
    due: Instant,
}

/// The deliveries of one channel that wait in order.
#[derive(Debug, Default)]
pub(super) struct Line {
    lined: VecDeque<Lined>,
    /// the number of the first one
    first: u64,
    coming: Answers,
    bytes: usize,
}

impl Line {
    /// Returns true if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lined.is_empty()
    }

    /// Returns the bytes that it takes.
    pub(super) fn memory(&self) -> usize {
        self.bytes
    }

    /// Returns when [`Line::expire`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.coming.due.first().map(|(due, _)| *due)
    }

    /// Puts a delivery behind the others.
    pub(super) fn push(&mut self, withheld: Withheld, known: Known, due: Instant) {
        self.bytes += withheld.weight();
        let lined = Lined { withheld, known, due };
        self.coming.add(self.first + self.lined.len() as u64, &lined);
        self.lined.push_back(lined);
    }

    /// Takes the first delivery, if it need not wait any more.
    pub(super) fn pop(&mut self) -> Option<(Withheld, Known)> {
        let lined = self.lined.pop_front_if(|lined| !lined.known.is_pending())?;
        self.coming.remove(self.first, &lined);
        self.first += 1;
        self.bytes -= lined.withheld.weight();
        Some((lined.withheld, lined.known))
    }

    /// Handles a verdict that has come late. Gives it back if it is for none of these.
    pub(super) fn recv(&mut self, ticket: Ticket, verdict: Verdict) -> Result<(), Verdict> {
        match self.coming.tickets.get(&ticket).copied() {
            Some(number) => self.change(number, |lined| lined.known.recv(ticket, verdict)).unwrap_or(Ok(())),
            None => Err(verdict),
        }
    }

    /// Asks the windows without their stores about all deliveries that have waited long enough.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration, mut draw: impl FnMut() -> Ticket) {
        while let Some(&(due, number)) = self.coming.due.first()
            && due <= now
        {
            let ticket = draw();
            self.change(number, |lined| {
                if let Known::Asked(_, Verdict::Pending(wait)) =
                    std::mem::replace(&mut lined.known, Known::Ask)
                {
                    lined.known = Known::Asked(ticket, wait.overdue(ticket, now));
                    lined.due = now + timeout;
                }
            });
        }
    }

    /// Takes all deliveries for which `is_meant` returns true.
    pub(super) fn take(&mut self, mut is_meant: impl FnMut(&Withheld) -> bool) -> Vec<Withheld> {
        let mut taken = Vec::new();
        let before = std::mem::take(&mut self.lined);
        self.coming = Answers::default();
        for lined in before {
            if is_meant(&lined.withheld) {
                self.bytes -= lined.withheld.weight();
                lined.known.give_up(ForgetCause::ChannelClosed);
                taken.push(lined.withheld);
            } else {
                self.coming.add(self.first + self.lined.len() as u64, &lined);
                self.lined.push_back(lined);
            }
        }
        taken
    }

    /// Changes what is known of the delivery of this number.
    fn change<T>(&mut self, number: u64, change: impl FnOnce(&mut Lined) -> T) -> Option<T> {
        let Line { lined, first, coming, .. } = self;
        let lined = lined.get_mut(usize::try_from(number.checked_sub(*first)?).ok()?)?;
        coming.remove(number, lined);
        let result = change(lined);
        coming.add(number, lined);
        Some(result)
    }
}

/// The answers that are still to come, by the numbers of their deliveries.
#[derive(Debug, Default)]
struct Answers {
    tickets: HashMap<Ticket, u64>,
    /// those of stores
    due: BTreeSet<(Instant, u64)>,
}

impl Answers {
    fn add(&mut self, number: u64, lined: &Lined) {
        if let Known::Asked(ticket, Verdict::Pending(_) | Verdict::InFlight(_)) = &lined.known {
            self.tickets.insert(*ticket, number);
        }
        if lined.known.is_pending() {
            self.due.insert((lined.due, number));
        }
    }

    fn remove(&mut self, number: u64, lined: &Lined) {
        if let Known::Asked(ticket, _) = &lined.known {
            self.tickets.remove(ticket);
        }
        self.due.remove(&(lined.due, number));
    }
}
