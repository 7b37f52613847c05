//! The guard of a channel's consumers: a delivery whose id was acked by a consumer of its queue is acked by Hapax, and not shown.
//!
//! ```text
//!   basic.deliver ──▶ the window of the queue's guard: reserve
//!      Fresh      ──▶ shown; the client's ack commits the reservation, nack, reject and every end give it back
//!      Duplicate  ──▶ acked by Hapax, and hidden
//!      InFlight   ──▶ waits aside for the outcome of the other copy (copies.rs): acked: hidden; given back: shown
//!      Pending    ──▶ the window's store has to be asked: it waits with all deliveries behind it, in order (line.rs)
//! ```
//!
//! A channel is guarded from its first `basic.consume` or `basic.get` on, if its vhost has guards then. From there on all its deliveries pass
//! here, because tags differ on both sides ([`tags`]), also those of queues without a guard.

mod consumed;
mod copies;
mod gets;
mod line;
mod methods;
mod queues;
mod settles;
mod tags;
mod withheld;

use self::consumed::{Consumed, Releases};
use self::copies::Copies;
use self::gets::{Gets, Reply};
use self::line::Line;
use self::queues::{Guarded, Id, Queues};
use self::settles::{Settles, is_settle, tag_of};
use self::tags::Shown;
use self::withheld::{Arrival, Facts, For, Known, Withheld};
use super::channel::Deliveries;
use super::cx::Cx;
use super::fault::Fault;
use super::inbound::{Chunk, Inbound, Whole};
use super::outbox::{Piece, View};
use super::publisher::Publisher;
use super::timers::earliest;
use super::waiting::Waits;
use crate::window::{Ask, Claim, ForgetCause, HINTED, Reservation, Scoped, Ticket, Verdict, is_same, reserve_one};
use crate::wire::frame::{FrameKind, HEADER_LEN};
use crate::wire::method::MethodId;
use crate::wire::properties::{ContentHeader, IdValue};
use crate::wire::{ChannelId, scan};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Copies of an id that are decided in one go.
const DECIDED_AT_ONCE: usize = 1024;
/// How often a copy that has found no room to wait asks again.
const RETRY: Duration = Duration::from_millis(100);

/// The delivery whose frames are coming.
#[derive(Debug, Default)]
enum Coming {
    #[default]
    Nothing,
    /// Its method has come, and its header comes next.
    Method(Facts, Piece),
    /// Its frames go on to the client. So many octets are missing.
    Passing(u64),
    /// Its frames are dropped.
    Swallowing(u64),
    /// Its frames are kept.
    Keeping(Withheld, Known),
    /// Its frames are kept, because its id is its body.
    Collecting(Withheld, Scoped, Duration),
}

/// How a method of the client goes on.
#[derive(Debug)]
pub(super) enum Then {
    /// It is forwarded.
    Forward,
    /// This one is forwarded in its place.
    Instead(Bytes),
    /// It was forwarded already.
    Done,
}

/// The guard of one channel.
#[derive(Debug)]
pub(super) struct Guard {
    id: ChannelId,
    /// The channel has begun to consume, so that all deliveries pass here.
    is_active: bool,
    /// The client hears of no delivery any more.
    is_over: bool,
    queues: Queues,
    releases: Releases,
    settles: Settles,
    coming: Coming,
    line: Line,
    copies: Copies,
    gets: Gets,
    /// deliveries that the client is to be shown
    ready: VecDeque<(Withheld, Option<Reservation>)>,
    ready_bytes: usize,
}

impl Guard {
    /// Creates the guard of a channel that has no deliveries.
    pub(super) fn new(id: ChannelId) -> Guard {
        Guard {
            id,
            is_active: false,
            is_over: false,
            queues: Queues::default(),
            releases: Releases::default(),
            settles: Settles::new(id),
            coming: Coming::default(),
            line: Line::default(),
            copies: Copies::default(),
            gets: Gets::default(),
            ready: VecDeque::new(),
            ready_bytes: 0,
        }
    }

    /// Returns true if deliveries pass here.
    #[inline]
    pub(super) fn is_active(&self) -> bool {
        self.is_active
    }

    /// Returns true if acks of the client wait until a window remembers their ids.
    pub(super) fn is_unremembered(&self) -> bool {
        self.settles.is_unremembered()
    }

    /// Returns the bytes that it takes. Only clients can end that.
    pub(super) fn memory(&self) -> usize {
        let coming = match &self.coming {
            Coming::Keeping(withheld, _) | Coming::Collecting(withheld, ..) => withheld.weight(),
            Coming::Nothing | Coming::Method(..) | Coming::Passing(_) | Coming::Swallowing(_) => 0,
        };
        let kept = self.line.memory() + self.copies.memory() + self.gets.memory() + self.ready_bytes;
        size_of::<Guard>()
            + self.releases.memory()
            + self.queues.memory()
            + self.settles.memory()
            + kept
            + coming
    }

    /// Returns when [`Guard::handle_timeout`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        earliest([self.line.deadline(), self.copies.deadline(), self.settles.deadline()])
    }

    // ---- from the client -------------------------------------------------------------------------------------------

    /// Handles a method of the client.
    pub(super) fn recv_client(
        &mut self,
        id: MethodId,
        frame: View<'_>,
        is_tx: bool,
        cx: &mut Cx<'_>,
    ) -> Result<Then, Fault> {
        match id {
            MethodId::QUEUE_DECLARE => self.queues.recv_declare(frame),
            MethodId::BASIC_CONSUME => {
                self.is_active = true;
                let vhost = cx.link.finder.vhost();
                if let Some(consume) = methods::consume_of(frame)
                    && let Some(consume) = self.queues.recv_consume(consume, cx.shared, vhost)
                {
                    return Ok(Then::Instead(methods::consume(self.id, consume)));
                }
            }
            MethodId::BASIC_GET => {
                self.is_active = true;
                let Some(get) = methods::get_of(frame) else { return Ok(Then::Forward) };
                let guarded = self.queues.guard_of(get.queue.as_str(), cx.shared, cx.link.finder.vhost());
                let no_ack = get.no_ack;
                // What is given back must not be acked already.
                let method = match &guarded {
                    Some(_) => methods::get(self.id, get),
                    None => Bytes::copy_from_slice(frame.octets()),
                };
                self.gets.push(guarded, no_ack, method.clone());
                return Ok(Then::Instead(method));
            }
            id if is_settle(id) && self.is_active => {
                let done = self.settles.recv_settle(id, frame.payload(), is_tx, cx)?;
                return Ok(done.map_or(Then::Forward, |()| Then::Done));
            }
            MethodId::BASIC_CANCEL => {
                if let Some(gone) = methods::unanswered_cancel(frame).and_then(|tag| self.queues.leaves(&tag))
                {
                    self.take_back(&gone, cx);
                }
            }
            MethodId::BASIC_RECOVER if self.is_active => self.settles.recv_recover(true),
            MethodId::BASIC_RECOVER_ASYNC if self.is_active => {
                self.settles.recv_recover(false);
                return Ok(Then::Instead(methods::recover(self.id, frame)));
            }
            MethodId::TX_COMMIT => self.settles.recv_commit(),
            MethodId::TX_ROLLBACK => self.settles.recv_rollback(),
            _ => {}
        }
        Ok(Then::Forward)
    }

    // ---- from the upstream -----------------------------------------------------------------------------------------

    /// Handles a frame of the upstream. Returns true if it does not go on.
    pub(super) fn recv_upstream(
        &mut self,
        kind: FrameKind,
        id: Option<MethodId>,
        frame: View<'_>,
        deliveries: &mut Deliveries,
        cx: &mut Cx<'_>,
    ) -> bool {
        match (kind, id) {
            (_, Some(MethodId::QUEUE_DECLARE_OK)) => {
                self.queues.recv_declare_ok(frame, cx.shared, cx.link.finder.vhost());
                false
            }
            _ if !self.is_active => false,
            (_, Some(MethodId::BASIC_DELIVER | MethodId::BASIC_GET_OK)) => {
                match self.facts_of(frame, deliveries) {
                    Some(facts) => self.coming = Coming::Method(facts, frame.compact()),
                    None => return false,
                }
                true
            }
            (_, Some(MethodId::BASIC_GET_EMPTY)) => {
                if let Some((number, ..)) = self.gets.answered() {
                    self.gets.reply(number, Reply::Empty(frame.compact()));
                }
                true
            }
            (_, Some(MethodId::BASIC_CONSUME_OK)) => {
                self.queues.recv_consume_ok(frame);
                false
            }
            (_, Some(MethodId::BASIC_CANCEL | MethodId::BASIC_CANCEL_OK)) => {
                self.recv_cancelled(frame, cx);
                false
            }
            (_, Some(MethodId::BASIC_RECOVER_OK)) => {
                self.drop_withheld();
                let is_expected = self.settles.recv_recover_ok();
                if !is_expected {
                    deliveries.requeued();
                }
                !is_expected
            }
            (_, Some(MethodId::TX_COMMIT_OK | MethodId::TX_ROLLBACK_OK)) => {
                self.settles.recv_tx_ended(cx.now)
            }
            (FrameKind::Header, _) => self.recv_header(frame, deliveries, cx),
            (FrameKind::Body, _) => self.recv_body(frame, deliveries, cx),
            _ => false,
        }
    }

    /// Returns the facts that the method of a delivery shows. `None`: it is malformed, or it answers nothing.
    fn facts_of(&mut self, method: View<'_>, deliveries: &Deliveries) -> Option<Facts> {
        let (at, upstream) = tag_of(method)?;
        let facts = if at > 4 {
            let consumer = method.payload().get(5..at)?;
            let no_ack = deliveries.is_acked_when_sent(method);
            let by = self.queues.of_consumer(consumer).map(Arc::clone);
            Facts { upstream, acks: !no_ack, counts: !no_ack, to: For::Consumer, by, id: None }
        } else {
            let (number, by, no_ack) = self.gets.answered()?;
            let acks = by.is_some() || !no_ack;
            Facts { upstream, acks, counts: !no_ack, to: For::Get(number), by, id: None }
        };
        if facts.acks && !self.is_over {
            self.settles.tags.delivered(upstream);
        }
        Some(facts)
    }

    fn recv_header(&mut self, header: View<'_>, deliveries: &mut Deliveries, cx: &mut Cx<'_>) -> bool {
        let (mut facts, method) = match std::mem::take(&mut self.coming) {
            Coming::Method(facts, method) => (facts, method),
            other => {
                self.coming = other;
                return false;
            }
        };
        let left = ContentHeader::size_of(header.payload()).map_or(0, |(_, size)| size);
        let arrival = Arrival { method: method.view(), content: header, left };
        if self.is_over {
            self.coming = swallowing(left);
            return true;
        }
        let id = facts.by.as_ref().map_or(Id::None, |by| by.read(header.payload()));
        match id {
            Id::None => {}
            Id::Known(claim, ttl) => facts.id = Some((claim, ttl)),
            Id::Body(scoped, ttl) if left == 0 => {
                facts.id = Some((scoped.key(&IdValue::Bytes(b"")).into(), ttl))
            }
            Id::Body(scoped, ttl) => {
                self.coming = Coming::Collecting(Withheld::new(facts, arrival), scoped, ttl);
                return true;
            }
        }
        let known = self.ask(&facts, cx);
        self.arrive(arrival, facts, known, deliveries, cx);
        true
    }

    fn recv_body(&mut self, frame: View<'_>, deliveries: &mut Deliveries, cx: &mut Cx<'_>) -> bool {
        let len = frame.payload().len() as u64;
        match std::mem::take(&mut self.coming) {
            Coming::Passing(left) => {
                deliveries.forward(FrameKind::Body, None, frame, &mut cx.link.out.client);
                self.coming = if left > len { Coming::Passing(left - len) } else { Coming::Nothing };
            }
            Coming::Swallowing(left) => self.coming = swallowing(left.saturating_sub(len)),
            Coming::Keeping(mut withheld, known) => {
                withheld.extend(frame);
                match withheld.left {
                    0 => self.place(withheld, known, cx),
                    _ => self.coming = Coming::Keeping(withheld, known),
                }
            }
            Coming::Collecting(mut withheld, scoped, ttl) => {
                withheld.extend(frame);
                if withheld.left > 0 {
                    self.coming = Coming::Collecting(withheld, scoped, ttl);
                    return true;
                }
                let body = body_of(&withheld.content);
                withheld.facts.id = Some((scoped.key(&IdValue::Bytes(&body)).into(), ttl));
                let known = self.ask(&withheld.facts, cx);
                self.place(withheld, known, cx);
            }
            other @ (Coming::Nothing | Coming::Method(..)) => {
                self.coming = other;
                return false;
            }
        }
        true
    }

    /// Handles the deliveries that stand whole in `read` and come next, `first` and those after it. Windows are asked about all of them
    /// together. Returns false if the first of them has to be handled frame by frame.
    pub(super) fn recv_whole(
        &mut self,
        first: Whole,
        inbound: &mut Inbound,
        read: &Chunk,
        deliveries: &mut Deliveries,
        cx: &mut Cx<'_>,
    ) -> bool {
        let mut next = Some(first);
        let mut batch: Vec<(Whole, Facts, Known)> = Vec::new();
        let mut handled = 0;
        while let Some(whole) = next {
            // (A method that can't be read ends the batch.)
            let facts = self.facts_of(whole.method(read), deliveries);
            let any = facts.is_some();
            if let Some(mut facts) = facts {
                inbound.skip(whole.frames);
                if !self.is_over {
                    facts.id = id_of(&facts, whole, read);
                    batch.push((whole, facts, Known::Plain));
                }
            } else if handled == 0 {
                return false;
            }
            handled += 1;
            next = if any { inbound.whole(0, self.id, MethodId::BASIC_DELIVER) } else { None };
            if batch.len() == HINTED || next.is_none() {
                self.ask_all(&mut batch, cx);
                for (whole, facts, known) in batch.drain(..) {
                    let arrival =
                        Arrival { method: whole.method(read), content: whole.content(read), left: 0 };
                    self.arrive(arrival, facts, known, deliveries, cx);
                }
            }
        }
        true
    }

    // ---- the verdict -----------------------------------------------------------------------------------------------

    /// Asks the window about a delivery, unless a copy of it waits here.
    fn ask(&self, facts: &Facts, cx: &mut Cx<'_>) -> Known {
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
    fn ask_all(&self, batch: &mut [(Whole, Facts, Known)], cx: &mut Cx<'_>) {
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

    /// Handles a delivery whose header has come, with what is known of its verdict.
    fn arrive(
        &mut self,
        arrival: Arrival<'_>,
        facts: Facts,
        known: Known,
        deliveries: &mut Deliveries,
        cx: &mut Cx<'_>,
    ) {
        let is_next = match facts.to {
            For::Consumer => self.line.is_empty(),
            For::Get(number) => self.gets.is_next(number),
            For::Nobody => false,
        };
        let observed = facts.is_observed();
        match known {
            Known::Plain if is_next && self.may_show(deliveries) => {
                self.show(arrival, &facts, None, deliveries, cx);
                self.coming = passing(arrival.left);
            }
            Known::Asked(_, Verdict::Fresh(reservation)) if is_next && self.may_show(deliveries) => {
                self.show(arrival, &facts, Some(reservation), deliveries, cx);
                self.coming = passing(arrival.left);
            }
            Known::Asked(_, Verdict::Duplicate(_)) if !observed => {
                self.hide(&facts, cx);
                self.coming = swallowing(arrival.left);
            }
            known => {
                let withheld = Withheld::new(facts, arrival);
                match arrival.left {
                    0 => self.place(withheld, known, cx),
                    _ => self.coming = Coming::Keeping(withheld, known),
                }
            }
        }
    }

    /// Puts a whole delivery where it waits, or decides it if it need not wait.
    fn place(&mut self, withheld: Withheld, known: Known, cx: &mut Cx<'_>) {
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

    fn get_again(&mut self, number: u64) {
        if let Some(method) = self.gets.again(number) {
            self.settles.send(method);
        }
    }

    /// Handles that a delivery is hidden.
    fn hide(&mut self, facts: &Facts, cx: &mut Cx<'_>) {
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

    fn may_show(&self, deliveries: &Deliveries) -> bool {
        deliveries.takes_whole() && self.ready.is_empty()
    }

    /// Shows the client the beginning of a delivery, or all of it.
    fn show(
        &mut self,
        arrival: Arrival<'_>,
        facts: &Facts,
        reservation: Option<Reservation>,
        deliveries: &mut Deliveries,
        cx: &mut Cx<'_>,
    ) {
        let Arrival { method, content, left } = arrival;
        if let For::Get(_) = facts.to {
            self.gets.pop();
        }
        let client = deliveries.show(!facts.counts, left);
        let mut consumed = Consumed::default();
        if let Some(header) = header_of(content) {
            cx.link.delivered(cx.shared, method.payload(), header);
            consumed = self.releases.of(cx.shared, cx.link.finder.vhost(), method.payload(), header);
        }
        if client == facts.upstream {
            cx.link.out.client.forward(method);
        } else {
            write_with_tag(method, client, cx.link.out.client.made());
        }
        cx.link.out.client.forward(content);
        let reserved = reservation.map(|reservation| (reservation, facts.memo()));
        if facts.counts {
            self.settles.tags.show(client, Shown { upstream: facts.upstream, reserved, consumed });
            return;
        }
        // Its consumer does not ack: what it was sent counts as done.
        consumed.release(cx.now);
        if let Some((reservation, memo)) = reserved {
            drop(reservation.commit(cx.now, memo));
        }
        if facts.acks {
            self.settles.hide(facts.upstream);
        }
    }

    // ---- late answers ----------------------------------------------------------------------------------------------

    /// Handles a verdict that came late. Gives it back if it is for none of the deliveries here.
    pub(super) fn recv_verdict(
        &mut self,
        ticket: Ticket,
        mut verdict: Verdict,
        cx: &mut Cx<'_>,
    ) -> Result<(), Verdict> {
        if let Coming::Keeping(_, known) = &mut self.coming {
            match known.recv(ticket, verdict) {
                Ok(()) => return Ok(()),
                Err(back) => verdict = back,
            }
        }
        match self.line.recv(ticket, verdict) {
            Ok(()) => {
                self.advance_line(cx);
                return Ok(());
            }
            Err(back) => verdict = back,
        }
        let Some((waits, copies)) = self.copies.take(ticket) else { return Err(verdict) };
        drop(waits.answered(cx.now));
        self.go_on(copies, Known::Asked(ticket, verdict), cx);
        Ok(())
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
    fn advance_line(&mut self, cx: &mut Cx<'_>) {
        while let Some((withheld, known)) = self.line.pop() {
            self.decide(withheld, known, cx);
        }
    }

    /// Handles that windows may remember more than before.
    pub(super) fn recv_remembered(&mut self) {
        self.settles.recv_remembered();
    }

    /// Does what [`Guard::deadline`] was set for.
    pub(super) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        let timeout = cx.shared.settings.store_timeout;
        self.settles.expire(cx.now, timeout);
        let (id, tickets) = (self.id, &mut cx.link.tickets);
        self.line.expire(cx.now, timeout, || tickets.draw(id));
        self.advance_line(cx);
        while let Some(ticket) = self.copies.expired(cx.now) {
            let Some((waits, copies)) = self.copies.take(ticket) else { return };
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

    // ---- going on --------------------------------------------------------------------------------------------------

    /// Shows what is ready, and settles what Hapax has to settle, if both sides may be written to.
    #[inline]
    pub(super) fn advance(&mut self, publisher: &Publisher, deliveries: &mut Deliveries, cx: &mut Cx<'_>) {
        if !self.is_active {
            return;
        }
        while deliveries.takes_whole()
            && let Some((withheld, reservation)) = self.ready.pop_front()
        {
            self.ready_bytes -= withheld.weight();
            self.show_kept(withheld, reservation, deliveries, cx);
        }
        while deliveries.takes_whole()
            && let Some(reply) = self.gets.pop_reply()
        {
            match reply {
                Reply::Empty(frame) => cx.link.out.client.forward(frame.view()),
                Reply::Message(mut message, reservation) => {
                    // Its question is answered.
                    message.facts.to = For::Consumer;
                    self.show_kept(*message, reservation, deliveries, cx);
                }
            }
        }
        self.settles.flush(publisher, &mut cx.link.out.upstream);
    }

    fn show_kept(
        &mut self,
        withheld: Withheld,
        reservation: Option<Reservation>,
        deliveries: &mut Deliveries,
        cx: &mut Cx<'_>,
    ) {
        let Withheld { facts, method, content, .. } = withheld;
        let content = Bytes::from(content);
        let arrival = Arrival { method: method.view(), content: View::whole(&content), left: 0 };
        self.show(arrival, &facts, reservation, deliveries, cx);
    }

    // ---- ends ------------------------------------------------------------------------------------------------------

    /// Handles that a consumer is gone: what it has not been shown goes back to the queue. It may still settle the rest.
    fn recv_cancelled(&mut self, frame: View<'_>, cx: &mut Cx<'_>) {
        if let Some(gone) = methods::cancelled_of(frame).and_then(|tag| self.queues.cancelled(&tag)) {
            self.take_back(&gone, cx);
        }
    }

    fn take_back(&mut self, gone: &Arc<Guarded>, cx: &mut Cx<'_>) {
        let is_of = |withheld: &Withheld| withheld.facts.by.as_ref().is_some_and(|by| Arc::ptr_eq(by, gone));
        let mut back = self.line.take(is_of);
        self.advance_line(cx);
        for (waits, copies) in self.copies.take_groups(is_of) {
            drop(waits);
            let (gone, stays): (VecDeque<_>, VecDeque<_>) = copies.into_iter().partition(is_of);
            back.extend(gone);
            self.go_on(stays, Known::Ask, cx);
        }
        for withheld in back {
            if withheld.facts.acks && !self.settles.is_recovering() {
                self.settles.give_back(withheld.facts.upstream);
            }
        }
    }

    /// Drops everything that the client has not been shown: the broker has it back, or takes it back when the channel ends.
    fn drop_withheld(&mut self) {
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

    /// Handles that the channel ends, or that its client does: reservations are given back, and what comes is dropped. Acks that were held
    /// back are sent, if they still may be.
    pub(super) fn end(&mut self, publisher: &Publisher, cx: &mut Cx<'_>) {
        if std::mem::replace(&mut self.is_over, true) || !self.is_active {
            return;
        }
        self.give_up();
        self.settles.flush(publisher, &mut cx.link.out.upstream);
    }

    /// Gives all reservations back. Nothing more is sent.
    pub(super) fn give_up(&mut self) {
        self.is_over = true;
        self.drop_withheld();
        self.settles.end();
        self.coming = match std::mem::take(&mut self.coming) {
            Coming::Keeping(withheld, known) => {
                known.give_up(ForgetCause::ChannelClosed);
                swallowing(withheld.left)
            }
            Coming::Collecting(withheld, ..) => swallowing(withheld.left),
            other => other,
        };
    }
}

/// Returns the id of a delivery that stands whole in a read.
fn id_of(facts: &Facts, whole: Whole, read: &Chunk) -> Option<(Claim, Duration)> {
    match facts.by.as_ref()?.read(whole.header(read).payload()) {
        Id::None => None,
        Id::Known(claim, ttl) => Some((claim, ttl)),
        Id::Body(scoped, ttl) => {
            let body = body_of(whole.content(read).octets());
            Some((scoped.key(&IdValue::Bytes(&body)).into(), ttl))
        }
    }
}

fn passing(left: u64) -> Coming {
    if left > 0 { Coming::Passing(left) } else { Coming::Nothing }
}

fn swallowing(left: u64) -> Coming {
    if left > 0 { Coming::Swallowing(left) } else { Coming::Nothing }
}

/// Returns the payload of the header that a content begins with.
fn header_of(content: View<'_>) -> Option<&[u8]> {
    let header = scan(content.octets(), usize::MAX).ok().flatten()?;
    Some(header.payload)
}

/// Returns the body of a content: of a header frame and body frames.
fn body_of(content: &[u8]) -> Vec<u8> {
    let (mut body, mut rest) = (Vec::new(), content);
    while let Ok(Some(frame)) = scan(rest, usize::MAX) {
        if frame.kind == FrameKind::Body {
            body.extend_from_slice(frame.payload);
        }
        rest = rest.get(frame.wire_len()..).unwrap_or_default();
    }
    body
}

/// Writes the method of a delivery with the client's tag.
fn write_with_tag(method: View<'_>, client: u64, out: &mut BytesMut) {
    let Some((at, _)) = tag_of(method) else { return };
    let start = out.len() + HEADER_LEN + at;
    out.extend_from_slice(method.octets());
    if let Some(tag) = out.get_mut(start..start + 8) {
        tag.copy_from_slice(&client.to_be_bytes());
    }
}
