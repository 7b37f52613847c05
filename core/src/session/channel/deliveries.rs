//! The consuming half of a channel: its consumers, and the messages on their way to the client.
//!
//! A message takes several frames. Hapax puts nothing of its own (confirms, `channel.close`) between them, so this half knows
//! where the message on its way is.
//!
//! Consumers are known by their tags: when their client is gone, they are cancelled, so that the broker sends nothing that
//! nobody reads. A consumer is cancelled after its `basic.consume-ok`: RabbitMQ ends the connection with 541 if the
//! `basic.cancel` comes earlier. (Without one, because of the nowait bit, it may come at any time.)

use super::frames;
use crate::session::cx::Cx;
use crate::session::inbound::{Chunk, Inbound, Whole};
use crate::session::outbox::{Lane, Piece, View};
use crate::wire::frame::FrameKind;
use crate::wire::method::MethodId;
use crate::wire::properties::ContentHeader;
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::{AMQPClass, basic};
use std::collections::HashMap;

/// Bytes of a consumer: an estimate. Its tag has at most 255 bytes.
const CONSUMER: usize = 320;

/// Where the message is that is being sent to the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Delivering {
    /// No message is on its way, or all of it has been sent.
    #[default]
    Idle,
    /// Its method was sent. Its header comes next.
    Header,
    /// Its body is being sent. This many bytes are missing.
    Body(u64),
}

impl Delivering {
    /// Returns where the message is after this frame.
    fn after(self, kind: FrameKind, id: Option<MethodId>, frame: View<'_>) -> Delivering {
        let left = match (self, kind, id) {
            (_, _, Some(MethodId::BASIC_DELIVER | MethodId::BASIC_GET_OK | MethodId::BASIC_RETURN)) => {
                return Delivering::Header;
            }
            (_, FrameKind::Header, _) => ContentHeader::size_of(frame.payload()).map_or(0, |(_, size)| size),
            (Delivering::Body(left), FrameKind::Body, _) => left.saturating_sub(frame.payload().len() as u64),
            (as_before, _, _) => return as_before,
        };
        if left == 0 { Delivering::Idle } else { Delivering::Body(left) }
    }
}

/// The consumers of one channel, and what is on its way to the client.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    /// Tags of the client's consumers, and whether they may be cancelled.
    consumers: HashMap<String, bool>,
    /// The client wants no deliveries any more: a consumer that starts now is cancelled, too.
    unwanted: bool,
    /// The client has used `basic.consume`, `basic.get` or `basic.qos`.
    used: bool,
    /// A `basic.return`, until its header comes.
    returned: Option<Piece>,
    /// The payload of a delivery's method, until its header comes.
    coming: Vec<u8>,
    delivering: Delivering,
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

    /// Returns true if a message is on its way to the client and not complete.
    pub(super) fn is_amid_content(&self) -> bool {
        self.delivering != Delivering::Idle
    }

    /// Returns true if confirms may be written to the client now.
    pub(super) fn takes_confirms(&self) -> bool {
        self.delivering == Delivering::Idle && !self.selecting
    }

    /// Returns the bytes that the consumers take.
    pub(super) fn memory(&self) -> usize {
        self.consumers.len() * CONSUMER + self.coming.capacity()
    }

    // ---- from the client -------------------------------------------------------------------------------------------

    /// Handles a method of the client that is about deliveries; ignores all others.
    pub(super) fn recv_client(&mut self, id: MethodId, frame: View<'_>) {
        match id {
            MethodId::BASIC_CONSUME => {
                self.used = true;
                if let Some(basic::AMQPMethod::Consume(consume)) = parse(frame)
                    && !consume.consumer_tag.as_str().is_empty()
                {
                    self.consumers.insert(consume.consumer_tag.as_str().to_owned(), consume.nowait);
                }
            }
            MethodId::BASIC_CANCEL => self.recv_cancel(frame),
            MethodId::BASIC_GET | MethodId::BASIC_QOS => self.used = true,
            _ => {}
        }
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

    /// Handles `basic.consume-ok`. Returns true if this consumer and all others are to be cancelled.
    pub(super) fn recv_consume_ok(&mut self, frame: View<'_>) -> bool {
        if let Some(basic::AMQPMethod::ConsumeOk(ok)) = parse(frame) {
            self.consumers.insert(ok.consumer_tag.as_str().to_owned(), true);
        }
        self.unwanted
    }

    /// Handles `basic.cancel` of either side: the consumer is gone.
    pub(super) fn recv_cancel(&mut self, frame: View<'_>) {
        if let Some(basic::AMQPMethod::Cancel(cancel)) = parse(frame) {
            self.consumers.remove(cancel.consumer_tag.as_str());
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
    pub(super) fn forward(
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
            (_, Some(MethodId::BASIC_DELIVER | MethodId::BASIC_GET_OK)) => {
                self.coming.clear();
                self.coming.extend_from_slice(frame.payload());
            }
            (FrameKind::Header, _) if !self.coming.is_empty() => {
                cx.link.delivered(cx.shared, &self.coming, frame.payload());
                self.coming.clear();
            }
            (FrameKind::Method, _) => self.coming.clear(),
            _ => {}
        }
    }

    /// Returns true if the next message may be forwarded with all its frames at once.
    pub(super) fn takes_whole(&self) -> bool {
        self.delivering == Delivering::Idle && self.returned.is_none() && self.swallowed == 0
    }

    /// Forwards the deliveries that stand whole in `read` and come next. `first` is the first of them.
    pub(super) fn forward_whole(
        &self,
        channel: ChannelId,
        first: Whole,
        inbound: &mut Inbound,
        read: &Chunk,
        cx: &mut Cx<'_>,
    ) {
        let mut next = Some(first);
        while let Some(whole) = next {
            cx.link.delivered(cx.shared, whole.method(read).payload(), whole.header(read).payload());
            cx.link.out.client.forward(whole.all(read));
            inbound.skip(whole.frames);
            next = inbound.whole(0, channel, MethodId::BASIC_DELIVER);
        }
    }

    // ---- when the client is gone -----------------------------------------------------------------------------------

    /// Cancels all consumers: the channel stays open for outcomes only. Deliveries that were sent already stay unacked.
    pub(super) fn cancel(&mut self, channel: ChannelId, upstream: &mut Lane) {
        self.unwanted = true;
        for (tag, _) in self.consumers.extract_if(|_, may_be_cancelled| *may_be_cancelled) {
            upstream.push(frames::cancel(channel, tag));
        }
    }

    /// Gives all deliveries that the client has not acked back to their queues.
    pub(super) fn requeue(&self, channel: ChannelId, upstream: &mut Lane) {
        if self.used {
            upstream.push(frames::requeue_all(channel));
        }
    }
}

fn parse(frame: View<'_>) -> Option<basic::AMQPMethod> {
    match emit::parse_method(frame.payload()) {
        Some(AMQPClass::Basic(method)) => Some(method),
        _ => None,
    }
}
