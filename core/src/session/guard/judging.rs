//! Judges the deliveries of a guarded channel: asks windows, lets deliveries wait where their verdict says so, and keeps them until they may be
//! shown.

use super::copies::Copies;
use super::gets::{Gets, Reply};
use super::line::Line;
use super::settles::Settles;
use super::withheld::{Facts, For, Known, Withheld};
use crate::session::cx::Cx;
use crate::session::inbound::Whole;
use crate::session::timers::earliest;
use crate::session::waiting::Waits;
use crate::window::{Ask, ForgetCause, Reservation, Ticket, Verdict, is_same, reserve_one};
use crate::wire::ChannelId;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Copies of an id that are decided in one go.
const DECIDED_AT_ONCE: usize = 1024;
/// How often a copy that has found no room to wait asks again.
const RETRY: Duration = Duration::from_millis(100);

/// The deliveries of one channel that the client has not been shown, and what is settled at the broker.
#[derive(Debug)]
pub(super) struct Judging {
    id: ChannelId,
    pub(super) settles: Settles,
    pub(super) gets: Gets,
    line: Line,
    copies: Copies,
    /// deliveries that the client is to be shown
    ready: VecDeque<(Withheld, Option<Reservation>)>,
    ready_bytes: usize,
}

impl Judging {
    /// Creates it for a channel that has no deliveries.
    pub(super) fn new(id: ChannelId) -> Judging {
        Judging {
            id,
            settles: Settles::new(id),
            gets: Gets::default(),
            line: Line::default(),
            copies: Copies::default(),
            ready: VecDeque::new(),
            ready_bytes: 0,
        }
    }

    /// Returns the bytes that it takes.
    pub(super) fn memory(&self) -> usize {
        let kept = self.line.memory() + self.copies.memory() + self.gets.memory() + self.ready_bytes;
        kept + self.settles.memory()
    }

    /// Returns when [`Judging::handle_timeout`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        earliest([self.line.deadline(), self.copies.deadline(), self.settles.deadline()])
    }

    /// Returns true if nothing stands before this delivery.
    pub(super) fn is_next(&self, facts: &Facts) -> bool {
        match facts.to {
            For::Consumer => self.line.is_empty(),
            For::Get(number) => self.gets.is_next(number),
            For::Nobody => false,
        }
    }

    /// Returns true if no delivery waits to be shown.
    pub(super) fn has_nothing_ready(&self) -> bool {
        self.ready.is_empty()
    }

    /// Takes the next delivery that is to be shown.
    pub(super) fn pop_ready(&mut self) -> Option<(Withheld, Option<Reservation>)> {
        let (withheld, reservation) = self.ready.pop_front()?;
        self.ready_bytes -= withheld.weight();
        Some((withheld, reservation))
    }

    // ---- questions -------------------------------------------------------------------------------------------------

    /// Asks the window about a delivery, unless a copy of it waits here.
    pub(super) fn ask(&self, facts: &Facts, cx: &mut Cx<'_>) -> Known {
        match (&facts.by, facts.id) {
            (Some(by), Some((claim, _))) if !self.copies.holds(claim) => {
                let ticket = cx.link.tickets.draw(self.id);
                Known::Asked(ticket, reserve_one(by.window(), claim, cx.now, &cx.link.mailbox, ticket))
            }
            (Some(_), Some(_)) => Known::Ask,
            _ => Known::Plain,
        }
    }

    /// Does the same for several: one question for all that follow each other and have the same guard.
    pub(super) fn ask_all(&self, batch: &mut [(Whole, Facts, Known)], cx: &mut Cx<'_>) {
        let mut asks: Vec<Ask> = Vec::with_capacity(batch.len());
        let mut verdicts: Vec<Option<Verdict>> = Vec::new();
        let mut rest = batch;
        while let Some((_, facts, known)) = rest.first_mut() {
            let (Some(by), Some(_)) = (facts.by.clone(), facts.id) else {
                *known = Known::Plain;
                rest = rest.split_first_mut().map(|(_, rest)| rest).unwrap_or_default();
                continue;
            };
            asks.clear();
            for (_, facts, _) in rest.iter() {
                match (&facts.by, facts.id) {
                    (Some(other), Some((claim, _)))
                        if Arc::ptr_eq(&by, other) || is_same(by.window(), other.window()) =>
                    {
                        asks.push(Ask { claim, ticket: cx.link.tickets.draw(self.id) });
                    }
                    _ => break,
                }
            }
            let (run, behind) = rest.split_at_mut(asks.len());
            rest = behind;
            // A copy of one that waits here asks when it is its turn.
            let held: Vec<bool> = asks.iter().map(|ask| self.copies.holds(ask.claim)).collect();
            let mut at = held.iter();
            asks.retain(|_| at.next().is_some_and(|held| !held));
            verdicts.clear();
            verdicts.resize_with(asks.len(), || None);
            Arc::clone(by.window()).reserve(&asks, cx.now, &cx.link.mailbox, &mut verdicts);
            let mut answers = asks.iter().zip(&mut verdicts);
            for ((_, _, known), held) in run.iter_mut().zip(held) {
                *known = match if held { None } else { answers.next() } {
                    Some((ask, verdict)) => {
                        Known::Asked(ask.ticket, verdict.take().unwrap_or(Verdict::Crowded))
                    }
                    None => Known::Ask,
                };
            }
        }
    }

    /// Puts a whole delivery where it waits, or decides it if it need not wait.
    pub(super) fn place(&mut self, withheld: Withheld, known: Known, cx: &mut Cx<'_>) {
        if withheld.facts.to == For::Consumer && (!self.line.is_empty() || known.is_pending()) {
            let due = cx.now + cx.shared.settings.store_timeout;
            self.line.push(withheld, known, due);
        } else {
            self.decide(withheld, known, cx);
        }
    }

    /// Decides a whole delivery whose turn it is.
    fn decide(&mut self, mut withheld: Withheld, known: Known, cx: &mut Cx<'_>) {
        let (Some(by), Some((claim, _))) = (withheld.facts.by.clone(), withheld.facts.id) else {
            return self.make_ready(withheld, None);
        };
        let (ticket, verdict) = match known {
            Known::Plain => return self.make_ready(withheld, None),
            Known::Asked(ticket, verdict) => (ticket, verdict),
            Known::Ask if self.copies.holds(claim) => {
                self.set_aside(&mut withheld);
                return self.copies.follow(claim, withheld);
            }
            Known::Ask => {
                let ticket = cx.link.tickets.draw(self.id);
                (ticket, reserve_one(by.window(), claim, cx.now, &cx.link.mailbox, ticket))
            }
        };
        let waits = match verdict {
            Verdict::Fresh(reservation) => return self.make_ready(withheld, Some(reservation)),
            // (A guard compares ids, so it refuses no number.)
            Verdict::Refused(_) => return self.make_ready(withheld, None),
            _ if by.is_observed() => return self.make_ready(withheld, None),
            Verdict::Duplicate(_) => return self.hide(&withheld.facts, cx),
            Verdict::InFlight(wait) => Waits::Outcome(wait),
            Verdict::Crowded => Waits::NoRoom { retry_at: cx.now + RETRY },
            Verdict::Pending(wait) => Waits::Store { wait, due: cx.now + cx.shared.settings.store_timeout },
        };
        if !matches!(waits, Waits::Store { .. }) {
            self.set_aside(&mut withheld);
        }
        self.copies.add(claim, withheld, ticket, waits);
    }

    /// Lets a message wait without the `basic.get` that has brought it: the client's question is asked again.
    fn set_aside(&mut self, withheld: &mut Withheld) {
        if let For::Get(number) = withheld.facts.to {
            withheld.facts.to = For::Nobody;
            withheld.drop_content();
            self.get_again(number);
        }
    }

    pub(super) fn get_again(&mut self, number: u64) {
        if let Some(method) = self.gets.again(number) {
            self.settles.send(method);
        }
    }

    /// Handles that a delivery is hidden.
    pub(super) fn hide(&mut self, facts: &Facts, cx: &mut Cx<'_>) {
        cx.link.deliveries += 1;
        // (A broker that is about to take it back must not be told.)
        if facts.acks && !self.settles.is_recovering() {
            self.settles.hide(facts.upstream);
        }
        if let For::Get(number) = facts.to {
            self.get_again(number);
        }
    }

    /// Handles that a whole delivery is to be shown.
    fn make_ready(&mut self, withheld: Withheld, reservation: Option<Reservation>) {
        match withheld.facts.to {
            For::Consumer => {
                self.ready_bytes += withheld.weight();
                self.ready.push_back((withheld, reservation));
            }
            For::Get(number) => self.gets.reply(number, Reply::Message(Box::new(withheld), reservation)),
            // Others get it.
            For::Nobody => {
                reservation.into_iter().for_each(|reservation| reservation.forget(ForgetCause::Nack));
                self.settles.give_back(withheld.facts.upstream);
            }
        }
    }

    /// Decides the copies of an id, of which this is known about the first one. Each of the others asks when it is its turn. If there are many,
    /// the rest of them goes on in a moment.
    fn go_on(&mut self, mut copies: VecDeque<Withheld>, first: Known, cx: &mut Cx<'_>) {
        let mut known = first;
        for _ in 0..DECIDED_AT_ONCE {
            let Some(copy) = copies.pop_front() else { return };
            self.decide(copy, known, cx);
            known = Known::Ask;
        }
        for mut copy in copies {
            if let Some((claim, _)) = copy.facts.id {
                if self.copies.holds(claim) {
                    self.set_aside(&mut copy);
                }
                let ticket = cx.link.tickets.draw(self.id);
                self.copies.add(claim, copy, ticket, Waits::NoRoom { retry_at: cx.now });
            }
        }
    }

    /// Decides the first deliveries of the line, as far as they need not wait any more.
    pub(super) fn advance_line(&mut self, cx: &mut Cx<'_>) {
        while let Some((withheld, known)) = self.line.pop() {
            self.decide(withheld, known, cx);
        }
    }

    /// Gives back what this consumer has not been shown: it gets nothing any more. The broker has taken the deliveries to a consumer that does
    /// not ack for acked, so they would be lost; they are shown. A stream takes nothing back, and loses nothing by an ack.
    pub(super) fn take_back(&mut self, gone: u64, cx: &mut Cx<'_>) {
        let is_of = |withheld: &Withheld| withheld.facts.consumer == gone;
        let mut back = self.line.take(is_of);
        self.advance_line(cx);
        for (waits, copies) in self.copies.take_groups(is_of) {
            drop(waits);
            let (gone, stays): (VecDeque<_>, VecDeque<_>) = copies.into_iter().partition(is_of);
            back.extend(gone);
            self.go_on(stays, Known::Ask, cx);
        }
        for withheld in back {
            if !withheld.facts.acks {
                self.make_ready(withheld, None);
            } else if self.settles.is_recovering() {
                // The broker is about to take it back.
            } else if withheld.is_of_stream() {
                self.settles.hide(withheld.facts.upstream);
            } else {
                self.settles.give_back(withheld.facts.upstream);
            }
        }
    }

    /// Drops everything that the client has not been shown: the broker has it back, or takes it back when the channel ends.
    pub(super) fn drop_withheld(&mut self) {
        for (_, reservation) in self.ready.drain(..) {
            reservation.into_iter().for_each(|reservation| reservation.forget(ForgetCause::ChannelClosed));
        }
        self.ready_bytes = 0;
        drop(self.line.take(|_| true));
        // Each wait leaves its queue.
        let groups = self.copies.take_groups(|_| true);
        for (waits, copies) in groups {
            drop(waits);
            for get in copies.iter().map(|copy| copy.facts.to) {
                if let For::Get(number) = get {
                    self.get_again(number);
                }
            }
        }
        for (number, _, reservation) in self.gets.take_messages() {
            reservation.into_iter().for_each(|reservation| reservation.forget(ForgetCause::ChannelClosed));
            self.get_again(number);
        }
    }

    // ---- late answers ----------------------------------------------------------------------------------------------

    /// Handles a verdict that came late. Gives it back if it is for none of the deliveries here.
    pub(super) fn recv_verdict(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        cx: &mut Cx<'_>,
    ) -> Result<(), Verdict> {
        let verdict = match self.line.recv(ticket, verdict) {
            Ok(()) => {
                self.advance_line(cx);
                return Ok(());
            }
            Err(back) => back,
        };
        let Some((waits, copies)) = self.copies.take(ticket) else { return Err(verdict) };
        drop(waits.answered(cx.now));
        self.go_on(copies, Known::Asked(ticket, verdict), cx);
        Ok(())
    }

    /// Does what [`Judging::deadline`] was set for.
    pub(super) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        let timeout = cx.shared.settings.store_timeout;
        self.settles.expire(cx.now, timeout);
        let (id, tickets) = (self.id, &mut cx.link.tickets);
        self.line.expire(cx.now, timeout, || tickets.draw(id));
        self.advance_line(cx);
        // A copy that is decided now may be due again at once. The next call looks at it.
        for ticket in self.copies.expired(cx.now) {
            let Some((waits, copies)) = self.copies.take(ticket) else { continue };
            let known = match waits {
                Waits::Store { wait, .. } => {
                    let ticket = cx.link.tickets.draw(self.id);
                    Known::Asked(ticket, wait.overdue(ticket, cx.now))
                }
                Waits::NoRoom { .. } | Waits::Outcome(_) => Known::Ask,
            };
            self.go_on(copies, known, cx);
        }
    }
}
