//! The way of a publish from the verdict to the outcome. By the window's verdict, which may come later, it is forwarded or
//! dropped, or has to wait.

use super::assembler::{Fate, Reply, Step};
use super::comparison::{self, Compared, Holding, Later, Subject};
use super::ledger::Ledger;
use super::line::{Answer, Asked, Known, Line, Promoted};
use super::sender::Sender;
use super::signals;
use crate::session::Settings;
use crate::session::blame::Blame;
use crate::session::candidate::{Candidate, Kept, Terms, body_of, header_of};
use crate::session::chaos::KeptPublish;
use crate::session::confirms::ClientTag;
use crate::session::cx::{Cx, Link};
use crate::session::fault::Fault;
use crate::session::hosts::Sought;
use crate::session::message_key::MessageKey;
use crate::session::outbox::View;
use crate::session::sightings::{Publication, Sighted};
use crate::session::timers::earliest;
use crate::session::traces;
use crate::session::unremembered::Deadline;
use crate::session::waiting::{Waiter, Waiting, Waits};
use crate::window::{
    Ask, BodyDigest, Claim, Committed, Event, ForgetCause, OnConflict, Origin, Refusal, Republish,
    Reservation, TakeOver, Ticket, Verdict, Wait, Window, reserve_one,
};
use crate::wire::frame::FrameKind;
use crate::wire::method::Publish;
use crate::wire::{ChannelId, ContentHeader, Sequence};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a publish that found no room to wait asks again.
const RETRY: Duration = Duration::from_millis(20);
/// Bytes of a publish that waits, beside its frames: its place here and in the window.
const WAITER: usize = size_of::<Waiter>() + 128;

/// The judged publishes of one channel.
#[derive(Debug)]
pub(in crate::session) struct Verdicts {
    id: ChannelId,
    pub(super) sender: Sender,
    pub(super) line: Line,
    waiting: Waiting,
}

impl Verdicts {
    pub(super) fn new(id: ChannelId) -> Verdicts {
        Verdicts {
            id,
            sender: Sender::new(id, Ledger::new()),
            line: Line::default(),
            waiting: Waiting::default(),
        }
    }

    /// Begins anew with tx: a fresh upstream channel has taken the place of the old one. The line stays as it is.
    pub(super) fn restart_with_tx(&mut self) {
        self.sender = Sender::new(self.id, Ledger::of_transactions());
        self.waiting = Waiting::default();
    }

    /// Returns the bytes of the publishes that wait or are being collected.
    pub(super) fn publish_bytes(&self) -> usize {
        self.waiting.bytes() + self.line.publish_bytes() + self.sender.assembler.collecting()
    }

    /// Returns the bytes of all that waits or is being collected, replies to the client included.
    pub(super) fn held(&self) -> usize {
        let replies = self.sender.ledger.held();
        self.waiting.bytes() + self.line.bytes() + self.sender.assembler.collecting() + replies
    }

    /// Returns the bytes of the entries and places, beside those that are [held](Verdicts::held) and those of an open
    /// transaction.
    pub(super) fn memory(&self) -> usize {
        let comparing = self.sender.assembler.comparing();
        self.sender.ledger.memory() + self.waiting_len() * WAITER + self.line.places() + comparing
    }

    /// Returns how many publishes have no outcome, or an answer that is not written. Those of an open transaction are not
    /// counted: it depends on the client when it ends. Nor is one that is not whole: if reading stopped for it, its rest
    /// would never come.
    pub(super) fn unresolved(&self) -> usize {
        let (entered, waiting) = self.sender.assembler.incomplete();
        // (Where the client counts its publishes, the ledger counts those in the line, too.)
        let asked = if self.sender.ledger.answers_client() { 0 } else { self.line.asked_len() };
        let unresolved = self.sender.ledger.unresolved(entered, self.waiting_len());
        unresolved.saturating_sub(waiting) + asked
    }

    /// Returns true if every whole publish has its outcome, and the client may be told.
    pub(super) fn is_settled(&self) -> bool {
        !self.has_waiting() && !self.line.is_stalled() && self.sender.is_settled()
    }

    /// Returns true if publishes wait for the outcome of others.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting_len() > 0
    }

    fn waiting_len(&self) -> usize {
        self.waiting.len() + self.line.promoted_len()
    }

    /// Returns when [`Verdicts::handle_timeout`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let (line, waiting) = (self.line.deadline(), self.waiting.deadline());
        let commits = self.sender.ledger.deadline();
        earliest([line, waiting, commits, self.sender.deadline()])
    }

    /// Does what [`Verdicts::deadline`] was set for.
    pub(super) fn handle_timeout(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let timeout = cx.shared.settings.store_timeout;
        self.sender.ledger.expire(cx.now, timeout);
        while let Some((ticket, waiter)) = self.waiting.take_expired(cx.now) {
            self.handle_expired(ticket, waiter, cx)?;
        }
        let tickets = &mut cx.link.tickets;
        self.line.expire(cx.now, timeout, || tickets.draw(self.id));
        // (Its store may have failed while it was asked.)
        if let Some(window) = self.line.waits_for() {
            cx.link.publish_waits(window);
        }
        self.decide_known(cx)?;
        self.retry(cx)?;
        let has_room = cx.has_room(self.held(), 0) && cx.may_publish(self.unresolved());
        let reads = has_room && !cx.link.is_held_back;
        self.sender.check_progress(&self.line, reads, cx)
    }

    // ---- the verdict -----------------------------------------------------------------------------------------------

    /// Asks the window about one publish, if it is not a message that its consumer publishes again.
    pub(super) fn judge(&mut self, candidate: Candidate<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        if let Some(mark) = candidate.terms.mark
            && cx.link.marks.holds(mark, candidate.window.rules(), cx.shared)
        {
            return self.republish(candidate, mark, cx);
        }
        let ticket = cx.link.tickets.draw(self.id);
        let claim = candidate.terms.claim;
        let verdict = reserve_one(candidate.window, claim, cx.now, &cx.link.mailbox, ticket);
        self.decide(candidate, ticket, verdict, None, cx)
    }

    /// Forwards a message that its consumer publishes again. It neither waits nor is a duplicate, whatever the window knows of its id.
    /// While another publish holds the id, the mark stays: if that one is stored and this one is not, the window takes the
    /// next attempt for a duplicate. A window with a store forgets the message before in its store first.
    fn republish(&mut self, candidate: Candidate<'_>, mark: Sought, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Republish { reservation, beside, forgotten } =
            Arc::clone(candidate.window).republish(candidate.terms.claim, cx.now);
        if !beside {
            cx.link.marks.take(mark, candidate.window.rules(), cx.shared);
        }
        if self.line.is_stalled() || matches!(forgotten, Committed::Later(_)) {
            self.sender.assembler.let_go();
            cx.link.publish_waits(candidate.window);
            let ticket = cx.link.tickets.draw(self.id);
            let timeout = cx.shared.settings.store_timeout;
            let deadline = Deadline { now: cx.now, timeout, mailbox: &cx.link.mailbox };
            self.line.republish(candidate.keep(), ticket, reservation, forgotten, deadline);
            return Ok(());
        }
        let fate = self.sender.forward(candidate, Some(reservation), cx);
        self.go_on(candidate.left, fate, cx)
    }

    /// Handles the verdict on the next of several publishes that the window was asked about together.
    #[inline]
    pub(super) fn recv_judged(
        &mut self,
        candidate: Candidate<'_>,
        ticket: Ticket,
        verdict: Verdict,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        if !self.line.is_stalled() {
            return self.decide(candidate, ticket, verdict, None, cx);
        }
        if matches!(verdict, Verdict::Pending(_)) {
            cx.link.publish_waits(candidate.window);
        }
        let answer = Answer::of(verdict, cx.now, cx.shared.settings.store_timeout);
        self.line.ask(Asked { candidate: candidate.keep(), ticket, answer, until: None });
        Ok(())
    }

    /// Does what the verdict says. `until`: how long the publish may wait for another's outcome, if it has begun to wait.
    fn decide(
        &mut self,
        candidate: Candidate<'_>,
        ticket: Ticket,
        verdict: Verdict,
        until: Option<Instant>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        if cx.link.out.traces.is_on() && until.is_none() {
            trace(&candidate, &verdict, cx);
            if matches!(verdict, Verdict::Fresh(_)) && !self.sender.ledger.is_tx() {
                keep(&candidate, cx);
            }
        }
        let begun = until;
        let until = || until.unwrap_or(cx.now + cx.shared.settings.in_flight_timeout);
        let Terms { claim, client, .. } = candidate.terms;
        let fate = match verdict {
            Verdict::Fresh(reservation) => {
                note_origin(candidate, cx);
                self.sender.forward(candidate, Some(reservation), cx)
            }
            Verdict::Duplicate(stored) if candidate.observed() => {
                Subject::of(&candidate).is_known(Sighted::Passed, cx);
                self.sender.forward_compared(candidate, stored, cx)
            }
            Verdict::InFlight(_) | Verdict::Crowded if candidate.observed() => {
                self.sender.forward(candidate, None, cx)
            }
            Verdict::Duplicate(stored) => return self.decide_duplicate(candidate, stored, cx),
            Verdict::Refused(_) if candidate.observed() => self.sender.forward(candidate, None, cx),
            Verdict::Refused(why) => Fate::Swallow(out_of_sequence(why, client, candidate.window)?),
            // It stands twice in one transaction: it shares the fate of the first, whatever that is.
            Verdict::InFlight(_) | Verdict::Crowded
                if self.sender.ledger.is_tx() && self.in_transaction(claim) =>
            {
                return self.decide_repeated(candidate, cx);
            }
            Verdict::InFlight(wait) if cx.has_room(self.publish_bytes(), candidate.weight()) => {
                let (weight, until) = (candidate.weight(), until());
                self.waiting.queue(
                    ticket,
                    Waiter { waits: Waits::Outcome(wait), candidate: candidate.keep(), weight, until },
                );
                Fate::Keep(ticket)
            }
            verdict @ (Verdict::InFlight(_) | Verdict::Crowded) => match client {
                Some(tag) => {
                    candidate.window.notice(Event::Refused);
                    Fate::Swallow(Reply::Nack(tag))
                }
                None => {
                    if let Verdict::InFlight(wait) = verdict {
                        wait.no_room();
                    }
                    self.sender.assembler.let_go();
                    let answer = Answer::NoRoom { retry_at: cx.now + RETRY };
                    let until = Some(until());
                    self.line.stall(Asked { candidate: candidate.keep(), ticket, answer, until });
                    return Ok(());
                }
            },
            pending @ Verdict::Pending(_) => {
                cx.link.publish_waits(candidate.window);
                self.sender.assembler.let_go();
                let answer = Answer::of(pending, cx.now, cx.shared.settings.store_timeout);
                self.line.ask(Asked { candidate: candidate.keep(), ticket, answer, until: begun });
                return Ok(());
            }
        };
        self.go_on(candidate.left, fate, cx)
    }

    /// Handles a publish whose id is seen: compares its body with the one that was stored. One that conflicts is dropped, refused or
    /// forwarded, as the window's rule says.
    fn decide_duplicate(
        &mut self,
        candidate: Candidate<'_>,
        stored: BodyDigest,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let subject = Subject::of(&candidate);
        let client = candidate.terms.client;
        let rule = candidate.window.rules().on_conflict;
        let fate = match (subject.compare(stored), rule) {
            (Compared::Same, _) => {
                subject.is_known(Sighted::Dropped, cx);
                Fate::Swallow(self.drop_told(&subject, Sighted::Dropped, cx))
            }
            (Compared::NotWhole, _) if self.may_hold(&candidate, cx) => {
                Fate::Hold(Box::new(Holding::new(candidate.keep(), stored)))
            }
            // If it were dropped and is another message, that would be lost.
            (Compared::NotWhole, OnConflict::Forward) if subject.is_comparable(stored) => {
                candidate.window.notice(Event::Uncompared);
                let (ticket, verdict) = self.supersede(subject, BodyDigest::UNKNOWN, cx);
                return self.decide(candidate, ticket, verdict, None, cx);
            }
            (Compared::NotWhole, _) => {
                subject.is_known(Sighted::Dropped, cx);
                Fate::Compare(Box::new(subject.later(stored)))
            }
            (Compared::Other, OnConflict::Drop) => {
                subject.drops_conflict(cx);
                Fate::Swallow(self.drop_told(&subject, Sighted::Conflict(rule), cx))
            }
            (Compared::Other, OnConflict::Reject) => {
                subject.drops_conflict(cx);
                signals::report(&subject.dropped(), Sighted::Conflict(rule), cx);
                Fate::Swallow(refusal(client, candidate.window)?)
            }
            (Compared::Other, OnConflict::Forward) => {
                let (ticket, verdict) = self.supersede(subject, subject.digest(), cx);
                return self.decide(candidate, ticket, verdict, None, cx);
            }
        };
        self.go_on(candidate.left, fate, cx)
    }

    /// Asks the window whether a publish may go on although its id is seen with another body. Counts a conflict if so.
    fn supersede(&self, subject: Subject<'_>, body: BodyDigest, cx: &mut Cx<'_>) -> (Ticket, Verdict) {
        let ticket = cx.link.tickets.draw(self.id);
        let ask = Ask { claim: subject.claim(), ticket };
        let verdict = Arc::clone(subject.window).supersede(ask, body, cx.now, &cx.link.mailbox);
        if body.is_known() && matches!(verdict, Verdict::Fresh(_)) {
            subject.conflicts(cx);
        }
        (ticket, verdict)
    }

    /// Handles a publish whose id the open transaction has already. It shares the fate of the first, unless its body is another.
    fn decide_repeated(&mut self, candidate: Candidate<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let subject = Subject::of(&candidate);
        let claim = candidate.terms.claim;
        let bodies = [
            self.sender.ledger.transaction_body(claim),
            self.waiting.body_of(claim),
            self.line.body_of(claim),
        ];
        let first = bodies.into_iter().find(|body| body.is_known()).unwrap_or_default();
        let fate = match (subject.compare(first), candidate.window.rules().on_conflict) {
            (Compared::Same, _) => {
                subject.is_known(Sighted::Dropped, cx);
                Fate::Swallow(self.drop_told(&subject, Sighted::Dropped, cx))
            }
            (Compared::NotWhole, _) if self.may_hold(&candidate, cx) => {
                Fate::Hold(Box::new(Holding::new(candidate.keep(), first)))
            }
            (Compared::NotWhole, OnConflict::Forward) if subject.is_comparable(first) => {
                candidate.window.notice(Event::Uncompared);
                self.sender.forward(candidate, None, cx)
            }
            (Compared::NotWhole, _) => {
                subject.is_known(Sighted::Dropped, cx);
                Fate::Compare(Box::new(subject.later(first)))
            }
            (Compared::Other, rule) => {
                match rule {
                    OnConflict::Drop | OnConflict::Reject => subject.drops_conflict(cx),
                    OnConflict::Forward => subject.conflicts(cx),
                }
                match rule {
                    OnConflict::Drop => Fate::Swallow(self.drop_told(&subject, Sighted::Conflict(rule), cx)),
                    OnConflict::Reject => {
                        signals::report(&subject.dropped(), Sighted::Conflict(rule), cx);
                        Fate::Swallow(refusal(None, candidate.window)?)
                    }
                    OnConflict::Forward => self.sender.forward(candidate, None, cx),
                }
            }
        };
        self.go_on(candidate.left, fate, cx)
    }

    /// Returns the reply to a publish that is dropped. Others hear of it, too, if its window has signals.
    #[inline]
    fn drop_told(&mut self, subject: &Subject<'_>, what: Sighted, cx: &mut Cx<'_>) -> Reply {
        if subject.window.rules().signals.is_silent() {
            return Reply::ack(subject.client());
        }
        let held = self.publish_bytes();
        signals::drop_told(&subject.dropped(), what, &mut self.sender.ledger, (self.id, held), cx)
    }

    /// Returns true if a duplicate that is not whole is held until it is: because it may go on, or because its window tells somebody of
    /// the whole message. There has to be room.
    fn may_hold(&self, candidate: &Candidate<'_>, cx: &Cx<'_>) -> bool {
        let rules = candidate.window.rules();
        let needs_body = rules.on_conflict == OnConflict::Forward || rules.signals.needs_body();
        needs_body && cx.has_room(self.publish_bytes(), candidate.weight())
    }

    /// Returns true if the open transaction has this claim already, forwarded or waiting for another's outcome. (A publish that
    /// waits belongs to the open one: `tx.commit` waits for it, `tx.rollback` drops it.)
    fn in_transaction(&self, claim: Claim) -> bool {
        self.sender.ledger.transaction_holds(claim) || self.waiting.holds(claim) || self.line.holds(claim)
    }

    /// Decides the publishes at the head of the line whose verdicts are known.
    fn decide_known(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Settings { in_flight_timeout, store_timeout, .. } = cx.shared.settings;
        while let Some(Known { candidate, ticket, verdict, since, until }) = self.line.take_known(cx.now) {
            match verdict {
                // It was granted long ago. A publish that waited for it may have taken the claim over, so ask again.
                Verdict::Fresh(reservation) if cx.now > since && cx.now >= since + in_flight_timeout => {
                    reservation.forget(ForgetCause::ChannelClosed);
                    let (ticket, claim) = (cx.link.tickets.draw(self.id), candidate.terms.claim);
                    let verdict = reserve_one(&candidate.window, claim, cx.now, &cx.link.mailbox, ticket);
                    let answer = Answer::of(verdict, cx.now, store_timeout);
                    self.line.ask_first(Asked { candidate, ticket, answer, until });
                }
                Verdict::InFlight(_) | Verdict::Crowded => {
                    let (window, claim) = (&candidate.window, candidate.terms.claim);
                    let (verdict, until) = match (until, &verdict) {
                        (Some(mut until), _) => {
                            (self.lose_patience(window, claim, verdict, &mut until, cx)?, until)
                        }
                        // However long the store was silent: the publish has waited for the other one only since then.
                        (None, Verdict::InFlight(_)) => (verdict, since + in_flight_timeout),
                        // It is in no queue, so another one may have had the id then.
                        (None, _) => (verdict, cx.now + in_flight_timeout),
                    };
                    candidate.with(|candidate| self.decide(candidate, ticket, verdict, Some(until), cx))?;
                }
                verdict => {
                    candidate.with(|candidate| self.decide(candidate, ticket, verdict, until, cx))?;
                }
            }
        }
        Ok(())
    }

    /// Forwards the publishes of the line that the window has not judged, and decides the others. The time is over, and their
    /// client could not know that they were dropped.
    pub(super) fn send_pending(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.decide_known(cx)?;
        while let Some(pending) = self.line.take_pending() {
            if !self.line.starts_with_body(pending.left) {
                // Its rest will not come. Nothing else waits behind it.
                self.line.drop_frames();
                return Ok(());
            }
            pending.with(|candidate| {
                let fate = self.sender.forward(candidate, None, cx);
                self.go_on(candidate.left, fate, cx)
            })?;
            self.decide_known(cx)?;
        }
        Ok(())
    }

    /// Forwards the publishes that wait aside and whose client hears no outcome. The time is over, and the outcome that
    /// they wait for is not known: a message that is stored twice is better than one that is lost.
    pub(super) fn send_waiting(&mut self, cx: &mut Cx<'_>) {
        if self.sender.ledger.is_tx() {
            return;
        }
        for ticket in self.waiting.unheard() {
            match self.waiting.take(ticket) {
                Some(waiter) if waiter.candidate.left == 0 => self.promote(ticket, waiter, None, cx),
                // Its rest will not come.
                Some(_) | None => {}
            }
        }
    }

    /// Asks again about the publish in the line that found no room.
    fn retry(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Some(Asked { candidate, until, .. }) = self.line.take_retry(cx.now) else {
            return Ok(());
        };
        let mut until = until.unwrap_or(cx.now + cx.shared.settings.in_flight_timeout);
        let (window, claim) = (&candidate.window, candidate.terms.claim);
        // An answer under the old ticket is discarded from now on.
        let ticket = cx.link.tickets.draw(self.id);
        let verdict = self.ask_again(window, claim, ticket, &mut until, cx)?;
        candidate.with(|candidate| self.decide(candidate, ticket, verdict, Some(until), cx))?;
        self.decide_known(cx)
    }

    /// Asks about a publish that found no room. If it has waited for too long it takes over, as in [`Verdicts::give_up`].
    fn ask_again(
        &self,
        window: &Arc<dyn Window>,
        claim: Claim,
        ticket: Ticket,
        until: &mut Instant,
        cx: &Cx<'_>,
    ) -> Result<Verdict, Fault> {
        let verdict = reserve_one(window, claim, cx.now, &cx.link.mailbox, ticket);
        self.lose_patience(window, claim, verdict, until, cx)
    }

    /// Lets a publish take over that found no room to wait before, and has waited for too long by now.
    fn lose_patience(
        &self,
        window: &Arc<dyn Window>,
        claim: Claim,
        verdict: Verdict,
        until: &mut Instant,
        cx: &Cx<'_>,
    ) -> Result<Verdict, Fault> {
        if cx.now < *until || !matches!(verdict, Verdict::InFlight(_) | Verdict::Crowded) {
            return Ok(verdict);
        }
        let patience = cx.shared.settings.in_flight_timeout;
        if self.sender.ledger.is_tx() {
            // It stands twice in one transaction: it shares the fate of the first.
            if self.in_transaction(claim) {
                return Ok(verdict);
            }
            if !window.waits_on(claim, None) {
                return Err(Fault::TxWaitedTooLong);
            }
            *until = cx.now + patience;
            return Ok(verdict);
        }
        let since = until.checked_sub(patience).unwrap_or(*until);
        let taken = match &verdict {
            Verdict::InFlight(wait) => wait.take_over(since, cx.now),
            _ => Arc::clone(window).take_over(claim, since, cx.now, None),
        };
        match taken {
            TakeOver::Granted(reservation) => return Ok(Verdict::Fresh(reservation)),
            TakeOver::Wait { since } => *until = since + patience,
            TakeOver::Answered => {}
        }
        Ok(verdict)
    }

    /// Handles that windows may remember more than before.
    pub(super) fn recv_remembered(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.sender.ledger.recv_remembered();
        if !self.line.is_forgetting() {
            return Ok(());
        }
        self.line.recv_remembered();
        self.decide_known(cx)
    }

    /// Handles a verdict that came late.
    pub(super) fn recv_verdict(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let timeout = cx.shared.settings.store_timeout;
        let Some(verdict) = self.line.answer(ticket, verdict, cx.now, timeout) else {
            return self.decide_known(cx);
        };
        match (self.waiting.take(ticket), verdict) {
            (Some(mut waiter), verdict) => {
                waiter.waits = waiter.waits.answered(cx.now);
                self.decide_waiter(ticket, waiter, verdict, cx)
            }
            // Nobody waits for it: it was given up, or has had its verdict.
            (None, Verdict::Fresh(reservation)) => {
                reservation.forget(ForgetCause::ChannelClosed);
                Ok(())
            }
            (
                None,
                Verdict::Duplicate(_)
                | Verdict::Refused(_)
                | Verdict::InFlight(_)
                | Verdict::Crowded
                | Verdict::Pending(_),
            ) => Ok(()),
        }
    }

    /// Does what the verdict says with a publish that waits aside.
    fn decide_waiter(
        &mut self,
        ticket: Ticket,
        mut waiter: Waiter,
        verdict: Verdict,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let client = waiter.candidate.terms.client;
        let verdict = match verdict {
            Verdict::Crowded if !self.sender.ledger.is_tx() && client.is_none() => {
                let (window, claim) = (&waiter.candidate.window, waiter.candidate.terms.claim);
                self.lose_patience(window, claim, verdict, &mut waiter.until, cx)?
            }
            verdict => verdict,
        };
        waiter.waits = match verdict {
            Verdict::Fresh(reservation) => {
                self.promote(ticket, waiter, Some(reservation), cx);
                return Ok(());
            }
            Verdict::Duplicate(stored) => return self.decide_stored(ticket, waiter, stored, cx),
            Verdict::Refused(why) => {
                let reply = out_of_sequence(why, client, &waiter.candidate.window)?;
                self.end_waiting(ticket, reply);
                return Ok(());
            }
            Verdict::Crowded if self.sender.ledger.is_tx() || client.is_some() => {
                return self.refuse_waiter(ticket, &waiter);
            }
            Verdict::InFlight(wait) => Waits::Outcome(wait),
            Verdict::Pending(wait) => {
                cx.link.publish_waits(&waiter.candidate.window);
                Waits::Store { wait, due: cx.now + cx.shared.settings.store_timeout }
            }
            Verdict::Crowded => Waits::NoRoom { retry_at: cx.now + RETRY },
        };
        self.waiting.queue(ticket, waiter);
        Ok(())
    }

    /// Handles that what a publish has waited for was stored: compares their bodies, as [`Verdicts::decide_duplicate`] does.
    fn decide_stored(
        &mut self,
        ticket: Ticket,
        waiter: Waiter,
        stored: BodyDigest,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let subject = Subject::of_kept(&waiter.candidate);
        let client = waiter.candidate.terms.client;
        match (subject.compare(stored), waiter.candidate.window.rules().on_conflict) {
            (Compared::Same, _) => {
                subject.is_known(Sighted::Dropped, cx);
                let reply = self.drop_told(&subject, Sighted::Dropped, cx);
                self.end_waiting(ticket, reply);
            }
            (Compared::NotWhole, OnConflict::Drop | OnConflict::Reject)
                if !subject.window.rules().signals.needs_body() =>
            {
                subject.is_known(Sighted::Dropped, cx);
                let fate = Fate::Compare(Box::new(subject.later(stored)));
                self.sender.assembler.decide_kept(ticket, || fate);
            }
            // (Its room was reserved when it began to wait.)
            (Compared::NotWhole, _) => {
                let holding = Holding::new(waiter.candidate, stored);
                self.sender.assembler.decide_kept(ticket, || Fate::Hold(Box::new(holding)));
            }
            (Compared::Other, OnConflict::Drop) => {
                subject.drops_conflict(cx);
                let reply = self.drop_told(&subject, Sighted::Conflict(OnConflict::Drop), cx);
                self.end_waiting(ticket, reply);
            }
            (Compared::Other, OnConflict::Reject) => {
                subject.drops_conflict(cx);
                signals::report(&subject.dropped(), Sighted::Conflict(OnConflict::Reject), cx);
                let reply = refusal(client, &waiter.candidate.window)?;
                self.end_waiting(ticket, reply);
            }
            (Compared::Other, OnConflict::Forward) => {
                let (ticket, verdict) = self.supersede(subject, subject.digest(), cx);
                return self.decide_waiter(ticket, waiter, verdict, cx);
            }
        }
        Ok(())
    }

    /// Handles that the time of a publish that waits aside has come.
    fn handle_expired(&mut self, ticket: Ticket, waiter: Waiter, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Waiter { waits, candidate, weight, mut until } = waiter;
        let (ticket, verdict) = match waits {
            Waits::Outcome(wait) => return self.give_up(ticket, wait, candidate, weight, until, cx),
            Waits::Store { wait, .. } => {
                // An answer under the old ticket is discarded from now on.
                let renewed = cx.link.tickets.draw(self.id);
                self.sender.assembler.renew_kept(ticket, renewed);
                // Meanwhile another one may have taken the id, so its patience counts anew.
                until = cx.now + cx.shared.settings.in_flight_timeout;
                (renewed, wait.overdue(renewed, cx.now))
            }
            Waits::NoRoom { .. } => {
                let (window, claim) = (&candidate.window, candidate.terms.claim);
                let renewed = cx.link.tickets.draw(self.id);
                self.sender.assembler.renew_kept(ticket, renewed);
                (renewed, self.ask_again(window, claim, renewed, &mut until, cx)?)
            }
        };
        let waits = Waits::NoRoom { retry_at: cx.now };
        self.decide_waiter(ticket, Waiter { waits, candidate, weight, until }, verdict, cx)
    }

    /// Handles that a publish has waited long enough for another's outcome. With confirms it is nacked; in a transaction it is
    /// refused. Without, there is no way to say no, and to drop it may be to lose it: it takes the claim over, and the others
    /// that wait share its fate. While the body of the publish that has the claim is still on its way, all of them wait on, and
    /// also a publish whose verdict is in the mailbox.
    fn give_up(
        &mut self,
        ticket: Ticket,
        wait: Wait,
        candidate: Kept,
        weight: usize,
        until: Instant,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let patience = cx.shared.settings.in_flight_timeout;
        let refusable = self.sender.ledger.is_tx() || candidate.terms.client.is_some();
        let since = until.checked_sub(patience).unwrap_or(until);
        let (until, refused) = if refusable {
            (cx.now + patience, !wait.waits_on())
        } else {
            match wait.take_over(since, cx.now) {
                TakeOver::Granted(reservation) => {
                    let waiter = Waiter { waits: Waits::Outcome(wait), candidate, weight, until };
                    self.promote(ticket, waiter, Some(reservation), cx);
                    return Ok(());
                }
                TakeOver::Wait { since } => (since + patience, false),
                TakeOver::Answered => (cx.now + patience, false),
            }
        };
        let waiter = Waiter { waits: Waits::Outcome(wait), candidate, weight, until };
        if refused {
            return self.refuse_waiter(ticket, &waiter);
        }
        self.waiting.queue(ticket, waiter);
        Ok(())
    }

    /// Refuses a publish that has waited in vain: its client can be told so.
    fn refuse_waiter(&mut self, ticket: Ticket, waiter: &Waiter) -> Result<(), Fault> {
        let Some(tag) = waiter.candidate.terms.client else { return Err(Fault::TxWaitedTooLong) };
        waiter.candidate.window.notice(Event::Refused);
        self.end_waiting(ticket, Reply::Nack(tag));
        Ok(())
    }

    /// Ends a publish that waited. Its body may not be whole.
    fn end_waiting(&mut self, ticket: Ticket, reply: Reply) {
        if !self.sender.assembler.decide_kept(ticket, || Fate::Swallow(reply)) {
            self.reply(reply);
        }
    }

    /// Forwards a publish that waited. Its body may not be whole.
    fn promote(&mut self, ticket: Ticket, waiter: Waiter, reservation: Option<Reservation>, cx: &mut Cx<'_>) {
        let Waiter { candidate, weight, .. } = waiter;
        if self.sender.assembler.keeps(ticket) {
            let fate = candidate.with(|candidate| self.sender.forward(candidate, reservation, cx));
            self.sender.assembler.decide_kept(ticket, || fate);
            return;
        }
        self.line.push_promoted(Promoted { candidate, weight, reservation });
        self.sender.hurry_body(cx);
        self.forward_promoted(cx);
    }

    fn forward_promoted(&mut self, cx: &mut Cx<'_>) {
        while !self.sender.assembler.is_forwarding() {
            let Some(Promoted { candidate, reservation, .. }) = self.line.pop_promoted() else { return };
            let fate = candidate.with(|candidate| self.sender.forward(candidate, reservation, cx));
            if let Fate::Forward { at_write, .. } = fate {
                self.sender.written(at_write, None, cx.now);
            }
        }
    }

    /// Sets the fate of the content, of which `left` octets are missing.
    pub(super) fn go_on(&mut self, left: u64, fate: Fate, cx: &mut Cx<'_>) -> Result<(), Fault> {
        match self.sender.assembler.go_on(left, fate) {
            Some(fate) => self.complete(fate, cx),
            None => Ok(()),
        }
    }

    /// Takes a frame of the content that is being received, or one that was not expected.
    pub(super) fn recv_content(
        &mut self,
        kind: FrameKind,
        frame: View<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<Step, Fault> {
        self.sender.assembler.recv(kind, frame, &mut self.waiting, &mut cx.link.out.upstream)
    }

    /// Handles the last frame of a body.
    pub(super) fn body_ended(&mut self, fate: Fate, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.sender.body_ended(&fate);
        self.complete(fate, cx)
    }

    /// Handles that a content is whole.
    fn complete(&mut self, fate: Fate, cx: &mut Cx<'_>) -> Result<(), Fault> {
        match fate {
            Fate::Forward { at_write, digesting, later } => {
                self.sender.written(at_write, digesting.as_deref(), cx.now);
                later.into_iter().for_each(|later| _ = later.compare(cx));
            }
            Fate::Swallow(reply) => self.reply(reply),
            Fate::Compare(later) => {
                let reply = self.end_compared(&later, cx)?;
                self.reply(reply);
            }
            Fate::Hold(holding) => {
                let (kept, stored) = holding.finish(self.id);
                kept.with(|candidate| self.decide_duplicate(candidate, stored, cx))?;
            }
            Fate::Keep(_) => {}
            Fate::Collect(draft) => {
                if let Some(kept) = draft.finish(self.id, &cx.shared.keys) {
                    kept.with(|candidate| self.judge(candidate, cx))?;
                }
            }
        }
        if self.line.has_promoted() {
            self.forward_promoted(cx);
        }
        Ok(())
    }

    /// Returns the reply to a duplicate whose body was compared while it came.
    fn end_compared(&mut self, later: &Later, cx: &mut Cx<'_>) -> Result<Reply, Fault> {
        let (conflicts, window) = (later.compare(cx) == Compared::Other, later.window());
        let what = if conflicts { Sighted::Conflict(window.rules().on_conflict) } else { Sighted::Dropped };
        if conflicts && later.rejects() {
            signals::report(&later.dropped(), what, cx);
            return refusal(later.client(), window);
        }
        if window.rules().signals.is_silent() {
            return Ok(Reply::ack(later.client()));
        }
        let held = self.publish_bytes();
        Ok(signals::drop_told(&later.dropped(), what, &mut self.sender.ledger, (self.id, held), cx))
    }

    fn reply(&mut self, reply: Reply) {
        match reply {
            Reply::Nothing => {}
            Reply::Nack(tag) => self.sender.ledger.nack(tag),
            Reply::Ack(tag) => self.sender.ledger.ack(tag),
        }
    }

    /// Handles `tx.rollback`, which is about to be forwarded.
    pub(super) fn rollback(&mut self) {
        if self.sender.ledger.is_tx() {
            self.drop_waiting();
            self.sender.rollback();
        }
    }

    /// Handles that the client will send nothing more on this channel: content that is not whole never will be, and an open
    /// transaction is rolled back.
    pub(super) fn client_done(&mut self) {
        if self.sender.assembler.is_forwarding() {
            // Nothing can follow on this channel any more.
            self.sender.forget_incomplete();
            self.abandon_waiting();
        } else if let Some(Fate::Keep(ticket)) = self.sender.assembler.client_done() {
            drop(self.waiting.take(ticket));
        }
        if self.sender.ledger.is_tx() {
            self.drop_waiting();
            self.sender.abandon_transaction();
        }
    }

    /// Handles that the upstream channel or connection is closed: the outcome of all that it has not answered is unknown.
    /// `blame`: the broker has closed the channel because of a publish.
    pub(super) fn upstream_closed(&mut self, blame: Option<&Blame>, now: Instant) {
        self.sender.upstream_closed(blame, now);
        self.abandon_waiting();
    }

    /// Handles that Hapax has closed the client's channel. A publish whose client would not hear that it was dropped keeps
    /// waiting for its verdict or for the other's outcome, because nobody would send it again. That may be one of a client that
    /// has selected confirms only after it.
    pub(super) fn refused(&mut self) {
        if self.sender.ledger.is_silent() {
            self.line.drop_stopped();
        } else if self.sender.ledger.is_tx() {
            self.abandon_waiting();
        } else {
            self.sender.assembler.swallow_kept();
            self.waiting.retain_unheard();
            self.line.drop_heard();
            self.line.drop_asked();
        }
    }

    /// Drops all publishes that wait.
    pub(super) fn abandon_waiting(&mut self) {
        self.drop_waiting();
        self.line.drop_asked();
    }

    /// Drops the publishes that wait for another's outcome, or have waited.
    fn drop_waiting(&mut self) {
        // A promoted one that is given back must not promote another of these.
        self.waiting.clear();
        self.line.drop_promoted();
        self.sender.assembler.swallow_kept();
    }
}

/// Returns the reply to a publish whose conflict is refused. Without confirms there is none, so it is a fault.
fn refusal(client: Option<ClientTag>, window: &Arc<dyn Window>) -> Result<Reply, Fault> {
    client.map(Reply::Nack).ok_or_else(|| comparison::fault(window))
}

/// Returns the reply to a number that is refused. One of an epoch that is over closes the channel: its publisher is not to go on. A
/// gap is nacked, so that its publisher tries again; without confirms it is a fault, too.
fn out_of_sequence(
    why: Refusal,
    client: Option<ClientTag>,
    window: &Arc<dyn Window>,
) -> Result<Reply, Fault> {
    let name = || (&*window.rules().name).into();
    match (why, client) {
        (Refusal::Stale, _) => Err(Fault::StaleEpoch { window: name() }),
        (Refusal::Gap, Some(tag)) => Ok(Reply::Nack(tag)),
        (Refusal::Gap, None) => Err(Fault::Gap { window: name() }),
    }
}

/// Looks at a publish for the trace that it belongs to, if it is its turn.
#[cold]
fn trace(candidate: &Candidate<'_>, verdict: &Verdict, cx: &mut Cx<'_>) {
    let Some(word) = traces::word(verdict) else { return };
    let Link { out, finder, .. } = &mut *cx.link;
    if out.traces.is_due() {
        let (window, claim, publish) = (candidate.window, candidate.terms.claim, candidate.publish);
        let header = header_of(candidate.content.octets());
        out.traces.note(word, Publication { window, claim, vhost: finder.vhost(), publish, header });
    }
}

/// Keeps a fresh publish for chaos, if it is to come again. One whose body is not there yet is not among those, nor is one whose id is its
/// user's own: the user who publishes it again is another one, and would not be told that it is a duplicate.
#[cold]
fn keep(candidate: &Candidate<'_>, cx: &mut Cx<'_>) {
    let Link { chaos: Some(chaos), finder, rights, .. } = &mut *cx.link else { return };
    let (name, claim) = (&candidate.window.rules().name, candidate.terms.claim);
    let Ok(Publish { exchange, routing_key, .. }) = Publish::parse(candidate.publish.payload()) else {
        return;
    };
    if candidate.left > 0 {
        return;
    }
    let Some(draw) = chaos.draws_replay(name, cx.now) else { return };
    let content = candidate.content.octets();
    let (header, body) = (header_of(content), body_of(content));
    let route = finder.route(cx.shared, rights, candidate.publish.payload());
    if route.is_some_and(|route| MessageKey::is_common(claim, header, &body, route)) {
        chaos.keep(KeptPublish {
            draw,
            window: Arc::clone(name),
            claim,
            vhost: finder.vhost().into(),
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            header: Bytes::copy_from_slice(header),
            body: body.into(),
        });
    }
}

/// Tells the window where a fresh publish goes, if it counts who fills it.
fn note_origin(candidate: Candidate<'_>, cx: &Cx<'_>) {
    if candidate.window.wants_origin(candidate.terms.claim)
        && let Ok(Publish { exchange, routing_key, .. }) = Publish::parse(candidate.publish.payload())
    {
        candidate.window.note_origin(&Origin { vhost: cx.link.finder.vhost(), exchange, routing_key });
    }
    if let Claim::Sequence { .. } = candidate.terms.claim {
        note_producer(candidate);
    }
}

/// Tells the window the name of a producer that it does not know.
fn note_producer(candidate: Candidate<'_>) {
    let (window, claim) = (candidate.window, candidate.terms.claim);
    if window.wants_producer(claim)
        && let Ok(found) = ContentHeader::parse(header_of(candidate.content.octets()), &window.rules().id)
        && let Ok(Some(Sequence { producer, .. })) = found.sequence()
    {
        window.note_producer(claim, producer);
    }
}
