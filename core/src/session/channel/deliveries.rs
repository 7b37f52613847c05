//! The consuming half of a channel: its consumers, and the messages on their way to the client.
//!
//! A message takes several frames. Hapax puts nothing of its own (confirms, `channel.close`) between them, so this half knows
//! where the message on its way is.
//!
//! When the client is gone, its [`Consumers`] are cancelled, so that the broker sends nothing that nobody reads. When the process is about to end, those that ack are cancelled as well. A consumer is cancelled after its `basic.consume-ok`: RabbitMQ ends the connection with 541 if the
//! `basic.cancel` comes earlier. (Without one, because of the nowait bit, it may come at any time.)

use super::consumers::{Change, Consumers, Reads, Recipient};
use super::content::Content;
use super::frames;
use super::last_queue::LastQueue;
use super::unacked::Unacked;
use crate::session::cx::Cx;
use crate::session::guard::{Guard, Guarded, Then};
use crate::session::inbound::{Chunk, Inbound, Whole};
use crate::session::outbox::{Lane, Piece, View};
use crate::wire::consuming::{Cancel, Consume, Get, consumer_tag};
use crate::wire::frame::FrameKind;
use crate::wire::method::{MethodId, Settle};
use crate::wire::properties::ContentHeader;
use crate::wire::{ChannelId, emit};
use std::collections::VecDeque;

/// The name by which RabbitMQ's direct replies are consumed. It is no queue.
const DIRECT_REPLY: &[u8] = b"amq.rabbitmq.reply-to";

/// The consumers of one channel, and what is on its way to the client.
#[derive(Debug, Default)]
pub(in crate::session) struct Deliveries {
    consumers: Consumers,
    /// The client has used `basic.consume`.
    has_consumed: bool,
    /// It has had a consumer or a `basic.get` with `no-ack`.
    has_got_acked: bool,
    last_queue: LastQueue,
    /// how many tags Hapax has drawn
    drawn: u64,
    /// the `no-ack` of each `basic.get` that the broker has not answered
    gets: VecDeque<bool>,
    unacked: Unacked,
    /// All unacked deliveries were given back for a client that is gone. Its acks that come to their turn after that mean nothing to the
    /// broker.
    given_back: bool,
    /// The client wants no deliveries any more: a consumer that starts now is cancelled, too.
    unwanted: bool,
    /// The client has used `basic.consume`, `basic.get` or `basic.qos`.
    used: bool,
    /// A `basic.return`, until its header comes.
    returned: Option<Piece>,
    /// The payload of a delivery's method, until its header comes.
    coming: Vec<u8>,
    delivering: Content,
    /// Octets that are missing of a returned message that the client does not hear of.
    swallowed: u64,
    /// The client waits for `confirm.select-ok`. No confirm may be sent before it.
    selecting: bool,
}

impl Deliveries {
    /// Returns true if the client has used the channel for deliveries: a fresh upstream channel would not be the same.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    /// Returns true if the client has got deliveries, or has asked for some.
    pub(super) fn has_begun(&self) -> bool {
        self.has_consumed || !self.gets.is_empty() || self.unacked.newest() > 0
    }

    /// Returns true if the broker must not be told of what the client settles: it has its deliveries back.
    pub(super) fn are_given_back(&self) -> bool {
        self.given_back
    }

    /// Returns true if a message is on its way to the client and not complete.
    pub(super) fn is_amid_content(&self) -> bool {
        self.delivering != Content::Idle
    }

    /// Returns true if confirms may be written to the client now.
    pub(super) fn takes_confirms(&self) -> bool {
        self.delivering == Content::Idle && !self.selecting
    }

    /// Returns the bytes that the consumers take.
    pub(super) fn memory(&self) -> usize {
        self.consumers.memory() + self.coming.capacity() + self.unacked.memory() + self.gets.len()
    }

    /// Returns true if the client has deliveries that it has not acked.
    pub(super) fn has_unacked(&self) -> bool {
        self.unacked.is_any()
    }

    /// Returns the queue that the client has declared last.
    pub(super) fn last_queue(&self) -> &LastQueue {
        &self.last_queue
    }

    /// Returns true if a consumer that starts now is to be cancelled, too.
    pub(super) fn are_unwanted(&self) -> bool {
        self.unwanted
    }

    // ---- from the client -------------------------------------------------------------------------------------------

    /// Handles `queue.declare` of the client.
    pub(super) fn recv_declare(&mut self, frame: View<'_>) {
        self.last_queue.recv_declare(frame);
    }

    /// Handles `basic.consume` of the client. A consumer that gets no tag from the client gets one from Hapax if the broker's answer would not
    /// tell it for sure.
    pub(super) fn recv_consume(
        &mut self,
        channel: ChannelId,
        frame: View<'_>,
        guard: Option<&mut Guard>,
        cx: &Cx<'_>,
    ) -> Then {
        (self.used, self.has_consumed) = (true, true);
        let Ok(consume) = Consume::parse(frame.payload()) else { return Then::Forward };
        let is_guarded = guard.is_some();
        self.has_got_acked |= consume.no_ack;
        let is_direct = consume.queue == DIRECT_REPLY;
        let reads =
            guard.map_or(Reads::Unguarded, |guard| guard.recv_consume(&consume, &self.last_queue, cx));
        let reads = if is_direct { Reads::DirectReplies } else { reads };
        let Consume { tag, no_ack, nowait, .. } = consume;
        let is_told = !tag.is_empty() || !nowait && !is_direct;
        if !is_told && is_guarded {
            self.drawn += 1;
            let drawn = format!("hapax.ctag-{}", self.drawn);
            self.consumers.push(drawn.as_bytes(), no_ack, reads, nowait);
            return Then::Instead(emit::method_of(channel, &consume.with_tag(drawn.as_bytes())));
        }
        // Without an answer nobody learns its tag. It counts as one that acks.
        if !tag.is_empty() || !nowait {
            self.consumers.push(tag, no_ack, reads, nowait);
        }
        Then::Forward
    }

    /// Handles `basic.cancel` of the client. Behind a guard the broker is always asked for an answer: it comes after the last delivery.
    pub(super) fn recv_cancel(
        &mut self,
        frame: View<'_>,
        guard: Option<&mut Guard>,
        cx: &mut Cx<'_>,
    ) -> Then {
        let Ok(Cancel { tag, nowait }) = Cancel::parse(frame.payload()) else { return Then::Forward };
        match guard.filter(|guard| guard.is_active()) {
            _ if !nowait => _ = self.consumers.cancel(tag, false),
            None => self.consumers.forget(tag),
            Some(guard) => {
                if let Some(number) = self.consumers.cancel(tag, true) {
                    guard.consumer_gone(number, cx);
                }
                return Then::Instead(frames::without_bits(frame, Cancel::NOWAIT));
            }
        }
        Then::Forward
    }

    /// Handles another method of the client, if it is about deliveries; ignores all others. `is_tx`: the channel is transactional.
    pub(super) fn recv_client(&mut self, id: MethodId, frame: View<'_>, is_tx: bool) {
        match id {
            MethodId::BASIC_ACK | MethodId::BASIC_NACK => {
                if let Ok(settle) = Settle::parse(frame.payload()) {
                    self.unacked.recv(settle, is_tx);
                }
            }
            MethodId::BASIC_REJECT => {
                if let Ok(settle) = Settle::of_reject(frame.payload()) {
                    self.unacked.recv(settle, is_tx);
                }
            }
            MethodId::BASIC_GET => {
                self.used = true;
                if let Ok(get) = Get::parse(frame.payload()) {
                    self.has_got_acked |= get.no_ack;
                    self.gets.push_back(get.no_ack);
                }
            }
            MethodId::BASIC_QOS => self.used = true,
            _ => {}
        }
    }

    /// Notes a `basic.get` that a guard handles.
    pub(super) fn note_get(&mut self, frame: View<'_>) {
        self.used = true;
        self.has_got_acked |= Get::parse(frame.payload()).is_ok_and(|get| get.no_ack);
    }

    /// Returns true if the broker may have taken a delivery for acked when it was sent.
    pub(super) fn has_got_acked(&self) -> bool {
        self.has_got_acked
    }

    /// Handles `tx.commit` or `tx.rollback` of the client.
    pub(super) fn recv_tx_end(&mut self) {
        self.unacked.recv_tx_end();
    }

    /// Handles `confirm.select`. The broker answers it, unless the nowait bit is set.
    pub(super) fn recv_confirm_select(&mut self, frame: View<'_>) {
        let nowait = frame.payload().get(4).is_some_and(|bits| bits & 1 != 0);
        self.selecting |= !nowait;
    }

    // ---- from the upstream -----------------------------------------------------------------------------------------

    /// Handles `confirm.select-ok`: from now on, confirms may be sent.
    pub(super) fn recv_confirm_select_ok(&mut self) {
        self.selecting = false;
    }

    /// Handles `queue.declare-ok`: consumers may read the queue already, by its empty name.
    pub(super) fn recv_declare_ok(&mut self, frame: View<'_>, cx: &Cx<'_>) {
        if let Some((declaration, name)) = self.last_queue.recv_declare_ok(frame) {
            let find = || Guarded::find(cx.shared, cx.link.finder.vhost(), &name);
            self.consumers.name(declaration, find);
        }
    }

    /// Handles `basic.consume-ok`, `basic.cancel-ok`, or `basic.cancel` of the broker.
    pub(super) fn recv_change(&mut self, id: MethodId, frame: View<'_>) -> Change {
        let Ok(tag) = consumer_tag(frame.payload()) else { return Change::default() };
        match id {
            MethodId::BASIC_CONSUME_OK => self.consumers.recv_consume_ok(tag),
            MethodId::BASIC_CANCEL_OK => self.consumers.recv_cancel_ok(tag),
            _ => self.consumers.recv_cancel(tag),
        }
    }

    /// Keeps a `basic.return` until its header comes.
    pub(super) fn hold_return(&mut self, frame: View<'_>) {
        self.returned = Some(frame.piece());
    }

    /// Takes the `basic.return` that this frame is the header of, if there is one.
    pub(super) fn take_return(&mut self, kind: FrameKind) -> Option<Piece> {
        if kind == FrameKind::Header { self.returned.take() } else { None }
    }

    /// Drops a returned message, of which this is the header.
    pub(super) fn swallow(&mut self, header: View<'_>) {
        self.swallowed = ContentHeader::size_of(header.payload()).map_or(0, |(_, size)| size);
    }

    /// Returns true if this frame belongs to a message that is dropped.
    #[inline]
    pub(super) fn swallows(&mut self, kind: FrameKind, frame: View<'_>) -> bool {
        if self.swallowed == 0 || kind != FrameKind::Body {
            return false;
        }
        self.swallowed = self.swallowed.saturating_sub(frame.payload().len() as u64);
        true
    }

    /// Forwards a frame to the client.
    pub(in crate::session) fn forward(
        &mut self,
        kind: FrameKind,
        id: Option<MethodId>,
        frame: View<'_>,
        client: &mut Lane,
    ) {
        client.forward(frame);
        self.delivering = self.delivering.after(kind, id, frame);
    }

    /// Notes a frame of the upstream that may be of a delivery: when its header comes, its consumer may publish it again.
    pub(super) fn note(&mut self, kind: FrameKind, id: Option<MethodId>, frame: View<'_>, cx: &mut Cx<'_>) {
        match (kind, id) {
            (_, Some(id @ (MethodId::BASIC_DELIVER | MethodId::BASIC_GET_OK))) => {
                let is_get = id == MethodId::BASIC_GET_OK;
                if is_get && self.gets.pop_front().unwrap_or_default() {
                    self.unacked.delivered_acked();
                } else if is_get {
                    self.unacked.delivered();
                } else {
                    self.count(frame);
                }
                self.coming.clear();
                self.coming.extend_from_slice(frame.payload());
            }
            (FrameKind::Header, _) if !self.coming.is_empty() => {
                cx.link.delivered(cx.shared, &self.coming, frame.payload());
                self.coming.clear();
            }
            (FrameKind::Method, id) => {
                match id {
                    Some(MethodId::BASIC_GET_EMPTY) => drop(self.gets.pop_front()),
                    Some(MethodId::BASIC_RECOVER_OK) => self.unacked.requeued(),
                    _ => {}
                }
                self.coming.clear();
            }
            _ => {}
        }
    }

    /// Returns true if the next message may be forwarded with all its frames at once.
    pub(in crate::session) fn takes_whole(&self) -> bool {
        self.delivering == Content::Idle && self.returned.is_none() && self.swallowed == 0
    }

    /// Forwards the deliveries that stand whole in `read` and come next. `first` is the first of them.
    pub(super) fn forward_whole(
        &mut self,
        channel: ChannelId,
        first: Whole,
        inbound: &mut Inbound,
        read: &Chunk,
        cx: &mut Cx<'_>,
    ) {
        let mut next = Some(first);
        while let Some(whole) = next {
            self.count(whole.method(read));
            cx.link.delivered(cx.shared, whole.method(read).payload(), whole.header(read).payload());
            cx.link.out.client.forward(whole.all(read));
            inbound.skip(whole.frames);
            next = inbound.whole(0, channel, MethodId::BASIC_DELIVER);
        }
    }

    /// Counts a delivery that a guard shows the client, and of whose body `left` octets are still to come. `acked`: the client need not
    /// ack it. Returns the client's tag.
    pub(in crate::session) fn show(&mut self, acked: bool, left: u64) -> u64 {
        if acked {
            self.unacked.delivered_acked();
        } else {
            self.unacked.delivered();
        }
        self.delivering = if left == 0 { Content::Idle } else { Content::Body(left) };
        self.unacked.newest()
    }

    /// Returns the consumer that this `basic.deliver` is for.
    #[inline]
    pub(in crate::session) fn recipient(&self, deliver: View<'_>) -> Recipient {
        self.consumers.recipient(deliver.payload())
    }

    /// Handles that the broker has all unacked deliveries back.
    pub(in crate::session) fn requeued(&mut self) {
        self.unacked.requeued();
    }

    /// Counts the delivery that begins with this `basic.deliver`.
    #[inline]
    fn count(&mut self, deliver: View<'_>) {
        if self.consumers.is_acked_when_sent(deliver.payload()) {
            self.unacked.delivered_acked();
        } else {
            self.unacked.delivered();
        }
    }

    // ---- when the process is about to end --------------------------------------------------------------------------

    /// Cancels the consumers that ack what they get: they finish what they have, and get nothing new. (A consumer with `no-ack` goes on.
    /// It may wait for the reply to a question that another delivery has led to, and what it gets is lost if nobody reads it.)
    pub(super) fn cancel_acking(&mut self, channel: ChannelId, upstream: &mut Lane) {
        self.consumers.stop(true, |tag| upstream.push(frames::cancel(channel, tag)));
    }

    // ---- when the client is gone -----------------------------------------------------------------------------------

    /// Cancels all consumers: the channel stays open for outcomes only. Deliveries that were sent already stay unacked.
    pub(super) fn cancel(&mut self, channel: ChannelId, upstream: &mut Lane) {
        self.unwanted = true;
        self.consumers.stop(false, |tag| upstream.push(frames::cancel(channel, tag)));
    }

    /// Gives all deliveries that the client has not acked back to their queues.
    pub(super) fn requeue(&mut self, channel: ChannelId, upstream: &mut Lane) {
        if self.used {
            self.given_back = true;
            upstream.push(frames::requeue_all(channel));
        }
    }
}
