//! What becomes of a judged publish: the [`Publisher`] decides by the window's verdict, at once or late.

use super::{Content, Fate, Mode, Publisher, Reply, commit_at_write};
use crate::session::candidate::{Candidate, Terms};
use crate::session::cx::Cx;
use crate::session::fault::Fault;
use crate::session::waiting::{Promoted, Stall, Waiter};
use crate::window::{
    Claim, Event, ForgetCause, Origin, Reservation, TakeOver, Ticket, Verdict, Wait, reserve_one,
};
use crate::wire::method::Publish;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a publish that found no room to wait asks again.
const RETRY: Duration = Duration::from_millis(20);

impl Publisher {
    pub(in crate::session) fn judge(
        &mut self,
        candidate: Candidate<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let ticket = cx.tickets.draw(self.id);
        let verdict = reserve_one(candidate.window, candidate.terms.claim, cx.now, cx.mailbox, ticket);
        self.decide(candidate, ticket, verdict, None, cx)
    }

    /// `until` says how long it may wait, if it has begun to.
    pub(super) fn decide(
        &mut self,
        candidate: Candidate<'_>,
        ticket: Ticket,
        verdict: Verdict,
        until: Option<Instant>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let until = || until.unwrap_or(cx.now + cx.shared.settings.in_flight_timeout);
        let Terms { claim, client, .. } = candidate.terms;
        let fate = match verdict {
            Verdict::Fresh(reservation) => {
                note_origin(candidate, cx);
                self.forward(candidate, Some(reservation), cx)
            }
            Verdict::Duplicate | Verdict::InFlight(_) | Verdict::Crowded if candidate.observed() => {
                self.forward(candidate, None, cx)
            }
            Verdict::Duplicate => Fate::Swallow(client.map_or(Reply::Nothing, Reply::Ack)),
            // Said twice in one transaction: it shares the fate of the first, whatever that is.
            Verdict::InFlight(_) | Verdict::Crowded
                if self.mode == Mode::Tx && self.in_transaction(claim) =>
            {
                Fate::Swallow(Reply::Nothing)
            }
            Verdict::InFlight(wait) if cx.has_room(self.waiting.held(), candidate.weight()) => {
                let (weight, until) = (candidate.weight(), until());
                self.waiting.queue(ticket, Waiter { wait, candidate: candidate.keep(), weight, until });
                Fate::Keep(ticket)
            }
            Verdict::InFlight(_) | Verdict::Crowded => match client {
                Some(tag) => {
                    candidate.window.notice(Event::Refused);
                    Fate::Swallow(Reply::Nack(tag))
                }
                None => {
                    let until = until();
                    self.stall(candidate, ticket, None, until, cx);
                    return Ok(());
                }
            },
            Verdict::Pending(wait) => {
                let until = until();
                self.stall(candidate, ticket, Some(wait), until, cx);
                return Ok(());
            }
        };
        self.go_on(candidate.left, fate, cx)
    }

    /// Whether the open transaction has this claim already, forwarded or waiting for another's outcome. (What waits belongs
    /// to the open one: `tx.commit` waits for it, `tx.rollback` drops it.)
    pub(super) fn in_transaction(&self, claim: Claim) -> bool {
        self.tx.holds(claim) || self.waiting.holds(claim)
    }

    pub(super) fn stall(
        &mut self,
        candidate: Candidate<'_>,
        ticket: Ticket,
        asked: Option<Wait>,
        until: Instant,
        cx: &Cx<'_>,
    ) {
        self.content = Content::Idle;
        let candidate = candidate.keep();
        self.waiting.stall(Stall { candidate, ticket, asked, retry_at: cx.now + RETRY, until });
    }

    /// A stalled publish that found no room asks again. After the in-flight timeout it takes over, as [`Publisher::give_up`].
    pub(in crate::session) fn retry(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Some(stall) =
            self.waiting.take_stalled_if(|stall| stall.asked.is_none() && stall.retry_at <= cx.now)
        else {
            return Ok(());
        };
        let Stall { candidate, ticket, mut until, .. } = stall;
        let (window, claim) = (Arc::clone(&candidate.window), candidate.terms.claim);
        let mut verdict = reserve_one(&window, claim, cx.now, cx.mailbox, ticket);
        if cx.now >= until && matches!(verdict, Verdict::InFlight(_) | Verdict::Crowded) {
            let patience = cx.shared.settings.in_flight_timeout;
            if self.mode == Mode::Tx {
                if !window.waits_on(claim, None) {
                    return Err(Fault::TxWaitedTooLong);
                }
                until = cx.now + patience;
            } else {
                let since = until.checked_sub(patience).unwrap_or(until);
                let taken = match &verdict {
                    Verdict::InFlight(wait) => wait.take_over(since, cx.now),
                    _ => window.take_over(claim, since, cx.now, None),
                };
                match taken {
                    TakeOver::Granted(reservation) => verdict = Verdict::Fresh(reservation),
                    TakeOver::Wait { since } => until = since + patience,
                    TakeOver::Answered => {}
                }
            }
        }
        candidate.with(|candidate| self.decide(candidate, ticket, verdict, Some(until), cx))
    }

    /// A verdict that came late.
    pub(in crate::session) fn recv_verdict(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        if let Some(stall) =
            self.waiting.take_stalled_if(|stall| stall.ticket == ticket && stall.asked.is_some())
        {
            let Stall { candidate, asked, until, .. } = stall;
            let result = candidate.with(|candidate| self.decide(candidate, ticket, verdict, Some(until), cx));
            drop(asked);
            return result;
        }
        match (self.waiting.take(ticket), verdict) {
            (Some(mut waiter), Verdict::InFlight(wait)) => {
                waiter.wait = wait;
                self.waiting.queue(ticket, waiter);
            }
            (Some(waiter), Verdict::Fresh(reservation)) => {
                self.promote(ticket, waiter, Some(reservation), cx);
            }
            (Some(waiter), Verdict::Duplicate) => {
                self.swallow(ticket, waiter.candidate.terms.client.map_or(Reply::Nothing, Reply::Ack));
            }
            (Some(waiter), Verdict::Crowded | Verdict::Pending(_)) => self.give_up(ticket, waiter, cx)?,
            (None, Verdict::Fresh(reservation)) => reservation.forget(ForgetCause::ChannelClosed),
            (None, Verdict::Duplicate | Verdict::InFlight(_) | Verdict::Crowded | Verdict::Pending(_)) => {}
        }
        Ok(())
    }

    /// Gives up the publishes that have waited long enough.
    pub(in crate::session) fn expire(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        while let Some((ticket, waiter)) = self.waiting.take_expired(cx.now) {
            self.give_up(ticket, waiter, cx)?;
        }
        Ok(())
    }

    /// It has waited long enough. With confirms it is nacked, in a transaction it is refused. Without, there is no way to say
    /// no, and to drop it may be to lose it: it takes the key over, and those who wait with it share its fate. While the
    /// body of the publish that has the key is still on its way, all of them wait on. So does whose verdict is in the mailbox.
    pub(super) fn give_up(
        &mut self,
        ticket: Ticket,
        mut waiter: Waiter,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let patience = cx.shared.settings.in_flight_timeout;
        if self.mode == Mode::Tx || waiter.candidate.terms.client.is_some() {
            if !waiter.wait.waits_on() {
                return self.refuse_waiter(ticket, &waiter);
            }
            waiter.until = cx.now + patience;
            self.waiting.queue(ticket, waiter);
            return Ok(());
        }
        let since = waiter.until.checked_sub(patience).unwrap_or(waiter.until);
        match waiter.wait.take_over(since, cx.now) {
            TakeOver::Granted(reservation) => self.promote(ticket, waiter, Some(reservation), cx),
            TakeOver::Wait { since } => {
                waiter.until = since + patience;
                self.waiting.queue(ticket, waiter);
            }
            TakeOver::Answered => {
                waiter.until = cx.now + patience;
                self.waiting.queue(ticket, waiter);
            }
        }
        Ok(())
    }

    fn refuse_waiter(&mut self, ticket: Ticket, waiter: &Waiter) -> Result<(), Fault> {
        match (self.mode, waiter.candidate.terms.client) {
            (Mode::Confirm { .. }, Some(tag)) => {
                waiter.candidate.window.notice(Event::Refused);
                self.swallow(ticket, Reply::Nack(tag));
                Ok(())
            }
            _ => Err(Fault::TxWaitedTooLong),
        }
    }

    /// A waiter ends here, its body perhaps still on its way.
    pub(super) fn swallow(&mut self, ticket: Ticket, reply: Reply) {
        match &mut self.content {
            Content::Body { left, fate: Fate::Keep(kept) } if *kept == ticket => {
                self.content = Content::Body { left: *left, fate: Fate::Swallow(reply) };
            }
            _ => self.reply(reply),
        }
    }

    /// A waiter goes upstream, its body perhaps still on its way.
    pub(super) fn promote(
        &mut self,
        ticket: Ticket,
        waiter: Waiter,
        reservation: Option<Reservation>,
        cx: &mut Cx<'_>,
    ) {
        let Waiter { candidate, weight, .. } = waiter;
        match self.content {
            Content::Body { left, fate: Fate::Keep(kept) } if kept == ticket => {
                let fate = candidate.with(|candidate| self.forward(candidate, reservation, cx));
                self.content = Content::Body { left, fate };
            }
            _ => {
                self.waiting.push_promoted(Promoted { candidate, weight, reservation });
                self.owe_body(cx);
                self.forward_promoted(cx);
            }
        }
    }

    pub(in crate::session) fn forward_promoted(&mut self, cx: &mut Cx<'_>) {
        while !self.is_forwarding() {
            let Some(Promoted { candidate, reservation, .. }) = self.waiting.pop_promoted() else { return };
            let fate = candidate.with(|candidate| self.forward(candidate, reservation, cx));
            if let Fate::Forward { at_write } = fate {
                commit_at_write(at_write, cx.now);
            }
        }
    }
}

/// For the accounting of who fills the window.
fn note_origin(candidate: Candidate<'_>, cx: &Cx<'_>) {
    if candidate.window.wants_origin(candidate.terms.claim)
        && let Ok(Publish { exchange, routing_key, .. }) = Publish::parse(candidate.publish.payload())
    {
        candidate.window.note_origin(&Origin { vhost: cx.finder.vhost(), exchange, routing_key });
    }
}
