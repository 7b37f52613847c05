//! Deliveries that wait in their order, because a window's store has not been heard yet about the first of them.

use super::withheld::{Known, Withheld};
use crate::window::{ForgetCause, Ticket, Verdict};
use std::collections::VecDeque;
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
        self.lined.iter().filter(|lined| lined.known.is_pending()).map(|lined| lined.due).min()
    }

    /// Puts a delivery behind the others.
    pub(super) fn push(&mut self, withheld: Withheld, known: Known, due: Instant) {
        self.bytes += withheld.weight();
        self.lined.push_back(Lined { withheld, known, due });
    }

    /// Takes the first delivery, if it need not wait any more.
    pub(super) fn pop(&mut self) -> Option<(Withheld, Known)> {
        let Lined { withheld, known, .. } = self.lined.pop_front_if(|lined| !lined.known.is_pending())?;
        self.bytes -= withheld.weight();
        Some((withheld, known))
    }

    /// Handles a verdict that has come late. Gives it back if it is for none of these.
    pub(super) fn recv(&mut self, ticket: Ticket, mut verdict: Verdict) -> Result<(), Verdict> {
        for lined in &mut self.lined {
            match lined.known.recv(ticket, verdict) {
                Ok(()) => return Ok(()),
                Err(back) => verdict = back,
            }
        }
        Err(verdict)
    }

    /// Asks the windows without their stores about all deliveries that have waited long enough.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration, mut draw: impl FnMut() -> Ticket) {
        for lined in self.lined.iter_mut().filter(|lined| lined.due <= now && lined.known.is_pending()) {
            let ticket = draw();
            if let Known::Asked(_, Verdict::Pending(wait)) = std::mem::replace(&mut lined.known, Known::Ask) {
                lined.known = Known::Asked(ticket, wait.overdue(ticket, now));
                lined.due = now + timeout;
            }
        }
    }

    /// Takes all deliveries for which `is_meant` returns true.
    pub(super) fn take(&mut self, mut is_meant: impl FnMut(&Withheld) -> bool) -> Vec<Withheld> {
        let mut taken = Vec::new();
        for lined in std::mem::take(&mut self.lined) {
            if is_meant(&lined.withheld) {
                self.bytes -= lined.withheld.weight();
                lined.known.give_up(ForgetCause::ChannelClosed);
                taken.push(lined.withheld);
            } else {
                self.lined.push_back(lined);
            }
        }
        taken
    }
}
