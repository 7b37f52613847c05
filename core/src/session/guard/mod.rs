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
//! A channel is guarded from its first `basic.consume` or `basic.get` on, if its vhost has guards then. After that, all its deliveries pass
//! here, also those of queues without a guard, because tags differ on both sides ([`tags`]).

mod coming;
mod consumed;
mod copies;
mod gets;
mod guarded;
mod judging;
mod line;
mod methods;
mod settles;
mod tags;
mod withheld;

use self::coming::{Coming, id_of, write_with_tag};
use self::consumed::Releases;
use self::gets::Reply;
pub(super) use self::guarded::Guarded;
use self::guarded::Id;
use self::judging::Judging;
pub(super) use self::settles::is_settle;
use self::settles::{is_redelivered, tag_of};
use self::tags::Shown;
use self::withheld::{Arrival, Facts, For, Known, Withheld};
use super::candidate::{body_of, header_of};
use super::channel::{Deliveries, LastName, LastQueue, Reads, Recipient, without_bits};
use super::cx::Cx;
use super::fault::Fault;
use super::inbound::{Chunk, Inbound, Whole};
use super::outbox::View;
use super::publisher::Publisher;
use crate::window::{ForgetCause, HINTED, Reservation, Ticket, Verdict};
use crate::wire::ChannelId;
use crate::wire::consuming::{Consume, Get};
use crate::wire::frame::FrameKind;
use crate::wire::method::MethodId;
use crate::wire::properties::{ContentHeader, IdValue};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

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
    releases: Releases,
    coming: Coming,
    judging: Judging,
}

impl Guard {
    /// Creates the guard of a channel that has no deliveries.
    pub(super) fn new(id: ChannelId) -> Guard {
        Guard {
            id,
            is_active: false,
            is_over: false,
            releases: Releases::default(),
            coming: Coming::default(),
            judging: Judging::new(id),
        }
    }

    /// Returns true if deliveries pass here.
    #[inline]
    pub(super) fn is_active(&self) -> bool {
        self.is_active
    }

    /// Returns true if acks of the client wait until a window remembers their ids.
    pub(super) fn is_unremembered(&self) -> bool {
        self.judging.settles.is_unremembered()
    }

    /// Returns true if the broker would take back a delivery that was delivered before already, if the connection ended now.
    pub(super) fn holds_redelivered(&self) -> bool {
        self.judging.settles.holds_redelivered()
    }

    /// Returns the bytes that it takes. Only clients can end that.
    pub(super) fn memory(&self) -> usize {
        let kept = self.judging.memory() + self.coming.memory();
        size_of::<Guard>() + self.releases.memory() + kept
    }

    /// Returns when [`Guard::handle_timeout`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.judging.deadline()
    }

    // ---- from the client -------------------------------------------------------------------------------------------

    /// Handles `basic.consume` of the client. Returns what its consumer reads.
    pub(super) fn recv_consume(&mut self, consume: &Consume<'_>, last: &LastQueue, cx: &Cx<'_>) -> Reads {
        self.is_active = true;
        match (consume.queue, last.name()) {
            _ if consume.is_of_stream() => Reads::Unguarded,
            (b"", LastName::Coming(declaration)) => Reads::Unnamed(*declaration),
            (queue, _) => guard_of(queue, last, cx).map_or(Reads::Unguarded, Reads::Guarded),
        }
    }

    /// Handles another method of the client. `last`: the queue that it has declared last.
    pub(super) fn recv_client(
        &mut self,
        id: MethodId,
        frame: View<'_>,
        is_tx: bool,
        last: &LastQueue,
        cx: &mut Cx<'_>,
    ) -> Result<Then, Fault> {
        match id {
            MethodId::BASIC_GET => {
                self.is_active = true;
                let Ok(Get { queue, no_ack }) = Get::parse(frame.payload()) else {
                    return Ok(Then::Forward);
                };
                let guarded = guard_of(queue, last, cx);
                // The broker must not take it for acked: it may have to go back.
                let method = match &guarded {
                    Some(_) => without_bits(frame, Get::NO_ACK),
                    None => Bytes::copy_from_slice(frame.octets()),
                };
                self.judging.gets.push(guarded, no_ack, method.clone());
                return Ok(Then::Instead(method));
            }
            id if is_settle(id) && self.is_active => {
                let done = self.judging.settles.recv_settle(id, frame.payload(), is_tx, cx)?;
                return Ok(done.map_or(Then::Forward, |()| Then::Done));
            }
            MethodId::BASIC_RECOVER | MethodId::BASIC_RECOVER_ASYNC
                if self.is_active && self.judging.settles.is_mute() =>
            {
                return Ok(Then::Done);
            }
            MethodId::BASIC_RECOVER if self.is_active => self.judging.settles.recv_recover(true),
            MethodId::BASIC_RECOVER_ASYNC if self.is_active => {
                self.judging.settles.recv_recover(false);
                return Ok(Then::Instead(methods::recover(self.id, frame)));
            }
            _ => {}
        }
        Ok(Then::Forward)
    }

    /// Handles `tx.commit` of the client, which is forwarded.
    pub(super) fn recv_commit(&mut self) {
        self.judging.settles.recv_commit();
    }

    /// Handles `tx.rollback` of the client, which is forwarded.
    pub(super) fn recv_rollback(&mut self) {
        self.judging.settles.recv_rollback();
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
            (_, Some(MethodId::TX_COMMIT_OK | MethodId::TX_ROLLBACK_OK)) => self.recv_tx_ended(cx),
            _ if !self.is_active => false,
            (_, Some(MethodId::BASIC_DELIVER | MethodId::BASIC_GET_OK)) => {
                match self.facts_of(frame, deliveries) {
                    Some(facts) => self.coming = Coming::Method(facts, frame.compact()),
                    None => return false,
                }
                true
            }
            (_, Some(MethodId::BASIC_GET_EMPTY)) => {
                if let Some((number, ..)) = self.judging.gets.answered() {
                    self.judging.gets.reply(number, Reply::Empty(frame.compact()));
                }
                true
            }
            (_, Some(MethodId::BASIC_RECOVER_OK)) => {
                self.judging.drop_withheld();
                let is_expected = self.judging.settles.recv_recover_ok();
                if !is_expected {
                    deliveries.requeued();
                }
                !is_expected
            }
            (FrameKind::Header, _) => self.recv_header(frame, deliveries, cx),
            (FrameKind::Body, _) => self.recv_body(frame, deliveries, cx),
            _ => false,
        }
    }

    /// Handles `tx.commit-ok` or `tx.rollback-ok`, in whatever state the channel is: answers come in the order of what was sent. Returns true if
    /// it is the answer to Hapax, and nobody else's business.
    pub(super) fn recv_tx_ended(&mut self, cx: &Cx<'_>) -> bool {
        self.judging.settles.recv_tx_ended(cx.now)
    }

    /// Returns the facts that the method of a delivery shows. `None`: it is malformed, or it answers nothing.
    fn facts_of(&mut self, method: View<'_>, deliveries: &Deliveries) -> Option<Facts> {
        let (at, upstream) = tag_of(method)?;
        let facts = if at > 4 {
            let Recipient { number: consumer, no_ack, by } = deliveries.recipient(method);
            Facts { upstream, acks: !no_ack, counts: !no_ack, to: For::Consumer, consumer, by, id: None }
        } else {
            let (number, by, no_ack) = self.judging.gets.answered()?;
            let acks = by.is_some() || !no_ack;
            Facts { upstream, acks, counts: !no_ack, to: For::Get(number), consumer: 0, by, id: None }
        };
        if facts.acks && !self.is_over {
            self.judging.settles.delivered(upstream, is_redelivered(method));
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
            self.coming = Coming::swallowing(left);
            return true;
        }
        let id = facts.by.as_ref().map_or(Id::None, |by| by.read(header.payload()));
        match id {
            Id::None => {}
            Id::Known(claim, ttl) => facts.id = Some((claim, ttl)),
            Id::Body(scoped, ttl) if left == 0 => {
                facts.id = Some((scoped.key(&IdValue::Bytes(b"")).into(), ttl));
            }
            Id::Body(scoped, ttl) => {
                self.coming = Coming::Collecting(Withheld::new(facts, arrival), scoped, ttl);
                return true;
            }
        }
        let known = self.judging.ask(&facts, cx);
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
            Coming::Swallowing(left) => self.coming = Coming::swallowing(left.saturating_sub(len)),
            Coming::Keeping(mut withheld, known) => {
                withheld.extend(frame);
                match withheld.left {
                    0 => self.judging.place(withheld, known, cx),
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
                let known = self.judging.ask(&withheld.facts, cx);
                self.judging.place(withheld, known, cx);
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
                self.judging.ask_all(&mut batch, cx);
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

    /// Handles a delivery whose header has come, with what is known of its verdict.
    fn arrive(
        &mut self,
        arrival: Arrival<'_>,
        facts: Facts,
        known: Known,
        deliveries: &mut Deliveries,
        cx: &mut Cx<'_>,
    ) {
        let is_next = self.judging.is_next(&facts);
        let observed = facts.is_observed();
        match known {
            Known::Plain if is_next && self.may_show(deliveries) => {
                self.show(arrival, &facts, None, deliveries, cx);
                self.coming = Coming::passing(arrival.left);
            }
            Known::Asked(_, Verdict::Fresh(reservation)) if is_next && self.may_show(deliveries) => {
                self.show(arrival, &facts, Some(reservation), deliveries, cx);
                self.coming = Coming::passing(arrival.left);
            }
            Known::Asked(_, Verdict::Duplicate(_)) if !observed => {
                self.judging.hide(&facts, cx);
                self.coming = Coming::swallowing(arrival.left);
            }
            known => {
                let withheld = Withheld::new(facts, arrival);
                match arrival.left {
                    0 => self.judging.place(withheld, known, cx),
                    _ => self.coming = Coming::Keeping(withheld, known),
                }
            }
        }
    }

    fn may_show(&self, deliveries: &Deliveries) -> bool {
        deliveries.takes_whole() && self.judging.has_nothing_ready()
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
            self.judging.gets.pop();
        }
        let client = deliveries.show(!facts.counts, left);
        let header = header_of(content.octets());
        cx.link.delivered(cx.shared, method.payload(), header);
        let consumed = self.releases.of(cx.shared, cx.link.finder.vhost(), method.payload(), header);
        if cx.link.chaos.is_some() {
            self.trouble(method, header, facts, cx);
        }
        if client == facts.upstream {
            cx.link.out.client.forward(method);
        } else {
            write_with_tag(method, client, cx.link.out.client.made());
        }
        cx.link.out.client.forward(content);
        let reserved = reservation.map(|reservation| (reservation, facts.memo()));
        if facts.counts {
            self.judging.settles.tags.show(client, Shown { upstream: facts.upstream, reserved, consumed });
            return;
        }
        // Its consumer does not ack: what it was sent counts as done.
        consumed.release(cx.now);
        if let Some((reservation, memo)) = reserved {
            drop(reservation.commit(cx.now, memo));
        }
        if facts.acks {
            self.judging.settles.hide(facts.upstream);
        }
    }

    /// Lets chaos look at a delivery that the client is shown: its ack may be turned into its opposite.
    #[cold]
    fn trouble(&mut self, method: View<'_>, header: &[u8], facts: &Facts, cx: &mut Cx<'_>) {
        let Some(chaos) = &mut cx.link.chaos else { return };
        let guard = facts.by.as_ref().map(|by| &by.window().rules().name);
        let kind = (is_redelivered(method), facts.counts);
        if let Some(deed) = chaos.recv_shown((method.payload(), header), guard, kind, cx.now) {
            self.judging.settles.lose_ack(facts.upstream, deed);
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
        self.judging.recv_verdict(ticket, verdict, cx)
    }

    /// Handles that windows may remember more than before.
    pub(super) fn recv_remembered(&mut self) {
        self.judging.settles.recv_remembered();
    }

    /// Does what [`Guard::deadline`] was set for.
    pub(super) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        self.judging.handle_timeout(cx);
    }

    // ---- going on --------------------------------------------------------------------------------------------------

    /// Shows what is ready, and settles what Hapax has to settle, if both sides may be written to.
    #[inline]
    pub(super) fn advance(&mut self, publisher: &Publisher, deliveries: &mut Deliveries, cx: &mut Cx<'_>) {
        if !self.is_active {
            return;
        }
        while deliveries.takes_whole()
            && let Some((withheld, reservation)) = self.judging.pop_ready()
        {
            self.show_kept(withheld, reservation, deliveries, cx);
        }
        while deliveries.takes_whole()
            && let Some(reply) = self.judging.gets.pop_reply()
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
        self.judging.settles.flush(publisher, &mut cx.link.out.upstream);
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

    /// Handles that this consumer is gone: what it has not been shown goes back to the queue. It may still settle the rest.
    pub(super) fn consumer_gone(&mut self, number: u64, cx: &mut Cx<'_>) {
        self.judging.take_back(number, cx);
    }

    /// Handles that the channel ends, or that its client does: reservations are given back, and later deliveries are dropped. Acks that were held
    /// back are sent, if they still may be.
    pub(super) fn end(&mut self, publisher: &Publisher, cx: &mut Cx<'_>) {
        if std::mem::replace(&mut self.is_over, true) || !self.is_active {
            return;
        }
        self.give_up();
        self.judging.settles.flush(publisher, &mut cx.link.out.upstream);
    }

    /// Notes that the broker has all unacked deliveries back, because the client is gone. An ack that the client had
    /// sent before still makes its id seen, but it is not passed on to the broker.
    pub(super) fn mute(&mut self) {
        self.judging.settles.mute();
    }

    /// Gives all reservations back. Nothing more is sent.
    pub(super) fn give_up(&mut self) {
        self.is_over = true;
        self.judging.drop_withheld();
        self.judging.settles.end();
        self.coming = match std::mem::take(&mut self.coming) {
            Coming::Keeping(withheld, known) => {
                known.give_up(ForgetCause::ChannelClosed);
                Coming::swallowing(withheld.left)
            }
            Coming::Collecting(withheld, ..) => Coming::swallowing(withheld.left),
            other => other,
        };
    }
}

/// Returns the guard of the queue with this name, if it has one. An empty name is the queue that was declared last.
fn guard_of(name: &[u8], last: &LastQueue, cx: &Cx<'_>) -> Option<Arc<Guarded>> {
    match (name, last.name()) {
        (b"", LastName::Known(last)) => Guarded::find(cx.shared, cx.link.finder.vhost(), last),
        (b"", _) => None,
        (name, _) => Guarded::find(cx.shared, cx.link.finder.vhost(), name),
    }
}
