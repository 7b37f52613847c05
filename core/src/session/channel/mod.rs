//! One channel: who may say what when, around its [`Publisher`].
//!
//! ```text
//!            channel.close, unsettled            settled, or linger over
//!   Open ---------------------------> Settling --------------------------> Closing --close-ok--> gone
//!    |  \-- channel.close, settled ---------------------------------------^
//!    |  \-- upstream's channel.close ---> UpstreamClosed --client's close-ok--> gone
//!    |  \-- Hapax refuses --------------> Refused --client's and upstream's close-ok--> gone
//!    \-- tx.select after shadow confirms -> Recycling --fresh upstream channel--> Open
//! ```
//!
//! Frames that have to wait (for a verdict, for waiters before `tx.commit`, for a fresh upstream channel) are kept in order in the
//! backlog; other channels go on.

mod consumers;
mod ends;
mod from_upstream;

use crate::session::cx::Cx;
use crate::session::entry::Outcome;
use crate::session::fault::{Fault, Scope};
use crate::session::outbox::{Piece, View};
use crate::session::probe::Finding;
use crate::session::publisher::{self, Publisher};
use crate::session::rights::Right;
use crate::window::{Ticket, Verdict};
use crate::wire::frame::FrameKind;
use crate::wire::method::{MethodId, Return, Settle};
use crate::wire::properties::ContentHeader;
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::channel::{AMQPMethod as ChannelMethod, Close, CloseOk, Open};
use amq_protocol::protocol::{AMQPClass, basic};
use bytes::Bytes;
use std::collections::HashSet;
use std::time::Instant;

/// Repeated `channel.close`s that are answered. They are all answered at once when the upstream says close-ok, which may take long.
const CLOSES_AGAIN: u32 = 64;
/// Frames of the backlog that are looked at when a publish begins to wait for the proof of a right.
const LOOKED_AT: usize = 4_096;

#[derive(Debug)]
enum State {
    Open,
    /// The client has said close; it is held back until every outcome is known.
    Settling {
        close: Piece,
        until: Instant,
    },
    /// The close went upstream.
    Closing,
    /// The upstream has closed it, the client has been told. `rest` octets are missing of a content that was on its way: the
    /// broker waits for them all the same, and takes anything else before them for a fault of the connection.
    UpstreamClosed {
        rest: u64,
    },
    /// Hapax has closed it. The upstream's channel is closed once it is settled.
    Refused {
        until: Instant,
        told_upstream: bool,
        client_done: bool,
        upstream_done: bool,
    },
    /// A fresh upstream channel is made for tx.
    Recycling {
        select: Piece,
        until: Instant,
        closing: bool,
    },
    Gone,
}

/// Where the content is that the client is being sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Delivering {
    Nothing,
    Header,
    Body(u64),
}

impl Delivering {
    /// After this frame.
    fn after(self, kind: FrameKind, id: Option<MethodId>, frame: View<'_>) -> Delivering {
        let left = match (self, kind, id) {
            (_, _, Some(MethodId::BASIC_DELIVER | MethodId::BASIC_GET_OK | MethodId::BASIC_RETURN)) => {
                return Delivering::Header;
            }
            (_, FrameKind::Header, _) => ContentHeader::size_of(frame.payload()).map_or(0, |(_, size)| size),
            (Delivering::Body(left), FrameKind::Body, _) => left.saturating_sub(frame.payload().len() as u64),
            (as_before, _, _) => return as_before,
        };
        if left == 0 { Delivering::Nothing } else { Delivering::Body(left) }
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::session) struct Channel {
    id: ChannelId,
    birth: u64,
    state: State,
    publisher: Publisher,
    /// Consumers by their tags: they are cancelled when the client vanishes.
    consumers: HashSet<String>,
    /// Consumers, qos or gets: a fresh upstream channel would not be the same.
    used_otherwise: bool,
    /// `basic.return`, until its header comes.
    returning: Option<Piece>,
    /// What is missing of the content that the client is being sent: nothing may come between its frames.
    delivering: Delivering,
    /// Nothing but publishes waits in the backlog, behind one that waits for the proof of a right: theirs are asked for, too.
    asks_ahead: bool,
    /// `tx.select` or `tx.commit` waits at the head of the backlog for the waiters before it.
    awaits_waiters: bool,
    /// To be refused as soon as the contents on their way, upstream and to the client, are whole.
    refusal: Option<Fault>,
    client_gone: bool,
    /// How often the client has said `channel.close` after the first, up to [`CLOSES_AGAIN`]: each is answered.
    closes_again: u32,
    /// The client was sent `channel.close` and has not answered.
    owes_close_ok: bool,
    /// The client has said `confirm.select` and waits for the answer: no ack may come before it.
    selecting: bool,
    /// The client wants no deliveries any more: consumers are cancelled.
    unwanted: bool,
    booked: Booked,
}

/// What a channel counts for in its session's books.
#[derive(Clone, Copy, Default, Debug)]
pub(in crate::session) struct Booked {
    /// publishes whose outcome is unknown
    pub(in crate::session) unresolved: usize,
    /// bytes held
    pub(in crate::session) held: usize,
    /// bytes that it takes, all told
    pub(in crate::session) memory: usize,
    /// of them, those that only the client can end
    pub(in crate::session) stuck: usize,
}

/// Bytes of a channel, with its place among others.
const CHANNEL: usize = size_of::<Channel>() + 64;
/// Bytes of a consumer: its tag has 255 at most.
const CONSUMER: usize = 320;

impl Channel {
    /// `channel.open` has passed.
    pub(in crate::session) fn new(id: ChannelId, birth: u64) -> Channel {
        Channel {
            id,
            birth,
            state: State::Open,
            publisher: Publisher::new(id, birth),
            consumers: HashSet::new(),
            used_otherwise: false,
            returning: None,
            delivering: Delivering::Nothing,
            asks_ahead: false,
            awaits_waiters: false,
            refusal: None,
            client_gone: false,
            closes_again: 0,
            owes_close_ok: false,
            selecting: false,
            unwanted: false,
            booked: Booked::default(),
        }
    }

    /// Whether it is the channel of this birth, and its next publish waits for the proof of a right.
    pub(in crate::session) fn waits_as(&self, birth: u64) -> bool {
        self.birth == birth && self.publisher.is_held()
    }

    pub(in crate::session) fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    /// Whether the client has still to answer a `channel.close`, perhaps after the channel is gone.
    pub(in crate::session) fn owes_close_ok(&self) -> bool {
        self.owes_close_ok
    }

    /// Whether answers to the client are due.
    pub(in crate::session) fn is_due(&self) -> bool {
        self.publisher.ledger().is_due()
    }

    /// Whether the number is taken although the client thinks that it is free: the upstream has not answered yet.
    pub(in crate::session) fn is_free_for_client(&self) -> bool {
        matches!(self.state, State::Refused { client_done: true, .. })
    }

    /// As it was booked last.
    pub(in crate::session) fn booked(&self) -> Booked {
        self.booked
    }

    /// Books it anew: what was booked before, and what is now.
    pub(in crate::session) fn book(&mut self) -> (Booked, Booked) {
        let held = self.publisher.held();
        let stuck = CHANNEL + self.consumers.len() * CONSUMER + self.publisher.stuck();
        let ends = self.publisher.memory() + held;
        let after = Booked {
            unresolved: self.publisher.unresolved(),
            held,
            memory: stuck + ends,
            stuck: stuck + self.publisher.collecting(),
        };
        (std::mem::replace(&mut self.booked, after), after)
    }

    /// Whether every outcome is known and nothing waits.
    pub(in crate::session) fn is_settled(&self) -> bool {
        self.publisher.is_settled() && !self.publisher.line().has_frames()
    }

    /// Whether its backlog waits for nothing but room for unresolved publishes.
    pub(in crate::session) fn is_ready(&self) -> bool {
        self.publisher.line().has_frames() && matches!(self.state, State::Open) && !self.is_blocked()
    }

    /// There may be room again for what waits in the backlog.
    pub(in crate::session) fn go_on(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.advance(cx)
    }

    fn is_blocked(&self) -> bool {
        let refused = self.refusal.is_some() && !self.publisher.is_forwarding();
        refused
            || self.publisher.is_stalled()
            || self.awaits_waiters
            || matches!(self.state, State::Recycling { .. })
    }

    /// When [`Channel::handle_timeout`] has something to do.
    pub(in crate::session) fn deadline(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Settling { until, .. } => Some(*until),
            State::Recycling { until, closing: false, .. } => Some(*until),
            State::Refused { until, told_upstream: false, upstream_done: false, .. }
                if !self.publisher.is_forwarding() =>
            {
                Some(*until)
            }
            State::Recycling { .. }
            | State::Refused { .. }
            | State::Open
            | State::Closing
            | State::UpstreamClosed { .. }
            | State::Gone => None,
        };
        state.into_iter().chain(self.publisher.deadline()).min()
    }

    /// A frame of the client. `whole`: the frame after it in the same read is this channel's content header.
    pub(in crate::session) fn recv_client(
        &mut self,
        kind: FrameKind,
        frame: View<'_>,
        whole: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let blocked = self.is_blocked() || self.publisher.line().has_frames();
        let method = frame.method(kind);
        // It is not closed. Where the broker has heard all that the client has said, it says so itself.
        if method == Some(MethodId::CHANNEL_OPEN) && (blocked || !matches!(self.state, State::Open)) {
            return Err(Fault::SecondOpen);
        }
        self.owes_close_ok &= method != Some(MethodId::CHANNEL_CLOSE_OK);
        match &mut self.state {
            State::Open | State::Recycling { .. } if blocked => {
                if self.asks_ahead {
                    self.asks_ahead = ask_ahead(kind, frame, cx);
                }
                self.publisher.line_mut().push_frame(frame);
                Ok(())
            }
            State::Open | State::Recycling { .. } => {
                self.recv_open(kind, frame, whole, cx)?;
                self.advance(cx)
            }
            State::Settling { .. } | State::Closing | State::Gone => {
                if method == Some(MethodId::CHANNEL_CLOSE) {
                    self.closes_again = CLOSES_AGAIN.min(self.closes_again + 1);
                }
                Ok(())
            }
            State::UpstreamClosed { rest } => {
                if kind == FrameKind::Body && *rest > 0 {
                    *rest = rest.saturating_sub(frame.payload().len() as u64);
                    cx.link.out.upstream.forward(frame);
                }
                match method {
                    Some(MethodId::CHANNEL_CLOSE_OK) => {
                        cx.link.out.upstream.forward(frame);
                        self.state = State::Gone;
                    }
                    // Both have closed: each gets its answer from us, and the client's own is not waited for.
                    Some(MethodId::CHANNEL_CLOSE) => {
                        cx.link.out.upstream.push(close_ok(self.id));
                        cx.link.out.client.push(close_ok(self.id));
                        self.state = State::Gone;
                    }
                    Some(_) | None => {}
                }
                Ok(())
            }
            State::Refused { client_done, .. } => {
                match method {
                    Some(MethodId::CHANNEL_CLOSE_OK) => *client_done = true,
                    // Both have closed: its answer to ours may come or not.
                    Some(MethodId::CHANNEL_CLOSE) if !*client_done => {
                        cx.link.out.client.push(close_ok(self.id));
                        *client_done = true;
                    }
                    Some(_) | None => {}
                }
                self.advance(cx)
            }
        }
    }

    /// Publishes of the client that stand whole in `frames`, the read that is being looked at: `most` at most.
    pub(in crate::session) fn recv_publishes(
        &mut self,
        frames: &Bytes,
        most: usize,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let in_order = self.refusal.is_none() && !self.awaits_waiters && !self.publisher.line().has_frames();
        if !in_order || !matches!(self.state, State::Open) || !self.publisher.takes_publishes() {
            return Ok(());
        }
        self.publisher.recv_publishes(frames, most, cx)?;
        self.advance(cx)
    }

    fn recv_open(
        &mut self,
        kind: FrameKind,
        frame: View<'_>,
        whole: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let id = match frame.method(kind) {
            Some(id) if self.publisher.is_between_contents() => id,
            _ => return self.publisher.recv_content(kind, frame, cx),
        };
        match id {
            MethodId::BASIC_PUBLISH => {
                self.publisher.recv_publish(frame, whole);
                return Ok(());
            }
            MethodId::CONFIRM_SELECT => {
                let nowait = frame.payload().get(4).is_some_and(|bits| bits & 1 != 0);
                self.selecting |= !nowait;
                self.publisher.ledger_mut().select_confirm();
            }
            // What waits was said before the transaction, or belongs to it: either way it comes first.
            MethodId::TX_SELECT | MethodId::TX_COMMIT
                if !self.publisher.ledger().answers_client() && self.publisher.has_waiting() =>
            {
                self.awaits_waiters = true;
                self.publisher.line_mut().push_frame_first(frame);
                return Ok(());
            }
            MethodId::TX_SELECT => {
                if self.publisher.ledger().is_unseen() {
                    return self.recycle(frame, cx);
                }
                self.publisher.ledger_mut().select_tx();
            }
            MethodId::TX_COMMIT => self.publisher.commit(),
            MethodId::TX_ROLLBACK => self.publisher.rollback(),
            MethodId::CHANNEL_CLOSE => {
                self.drop_backlog();
                self.publisher.client_done();
                if !self.is_settled() {
                    let until = cx.now + cx.shared.settings.linger;
                    self.state = State::Settling { close: frame.compact(), until };
                    self.cancel_consumers(cx);
                    return Ok(());
                }
                self.state = State::Closing;
            }
            MethodId::BASIC_CONSUME => self.note_consumer(frame),
            MethodId::BASIC_CANCEL => self.note_cancel(frame),
            MethodId::BASIC_GET | MethodId::BASIC_QOS => self.used_otherwise = true,
            _ => {}
        }
        cx.link.out.upstream.forward(frame);
        Ok(())
    }

    /// `tx.select` where Hapax has selected confirms unseen: RabbitMQ would refuse it. A fresh upstream channel of the same
    /// number takes its place, if the old one held nothing but publishes.
    fn recycle(&mut self, select: View<'_>, cx: &mut Cx<'_>) -> Result<(), Fault> {
        if self.used_otherwise {
            return Err(Fault::TxAfterPublish);
        }
        let until = cx.now + cx.shared.settings.linger;
        self.state = State::Recycling { select: select.compact(), until, closing: false };
        Ok(())
    }

    /// Whether the client waits until a window remembers its ids.
    pub(in crate::session) fn is_unremembered(&self) -> bool {
        self.publisher.ledger().is_unremembered()
    }

    /// Windows may remember more than before.
    pub(in crate::session) fn recv_remembered(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.publisher.ledger_mut().recv_remembered();
        self.advance(cx)
    }

    /// A verdict that came late.
    pub(in crate::session) fn recv_verdict(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        self.publisher.recv_verdict(ticket, verdict, cx)?;
        self.advance(cx)
    }

    /// The broker has shown whether the user has a right that a publish of this channel waits for.
    pub(in crate::session) fn recv_finding(
        &mut self,
        right: Right,
        finding: Finding,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        self.publisher.recv_finding(right, finding, cx)?;
        self.advance(cx)
    }

    /// [`Channel::deadline`] has passed.
    pub(in crate::session) fn handle_timeout(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.publisher.handle_timeout(cx)?;
        if let State::Recycling { until, closing: false, .. } = self.state
            && cx.now >= until
        {
            self.state = State::Open;
            return Err(Fault::TxAfterPublish);
        }
        self.advance(cx)
    }

    /// When a publish has begun to wait for the proof of a right, those behind it may need others: all are asked for together.
    fn look_ahead(&mut self, cx: &mut Cx<'_>) {
        if !self.publisher.take_newly_held() {
            return;
        }
        let mut frames = self.publisher.line().frames().take(LOOKED_AT);
        self.asks_ahead = frames.all(|frame| frame.kind().is_some_and(|kind| ask_ahead(kind, frame, cx)));
    }

    /// Does what the last event has made possible.
    fn advance(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        if self.awaits_waiters && !self.publisher.has_waiting() {
            self.awaits_waiters = false;
        }
        if !self.publisher.is_forwarding()
            && self.delivering == Delivering::Nothing
            && let Some(fault) = self.refusal.take()
        {
            return Err(fault);
        }
        while !self.is_blocked()
            && matches!(self.state, State::Open)
            && (cx.may_publish(self.publisher.unresolved()) || !self.publisher.is_between_contents())
        {
            let Some(frame) = self.publisher.line_mut().pop_frame() else { break };
            let frame = frame.view();
            if let Some(kind) = frame.kind() {
                self.recv_open(kind, frame, true, cx)?;
            }
        }
        self.look_ahead(cx);
        if self.client_gone && !self.publisher.line().has_frames() && !self.is_blocked() {
            self.publisher.client_done();
        }
        // (What has come after a `tx.select` waits in the backlog for the fresh channel.)
        let settled = self.publisher.is_settled()
            && (!self.publisher.line().has_frames() || matches!(self.state, State::Recycling { .. }));
        let free = !self.publisher.is_forwarding();
        match &mut self.state {
            State::Settling { close, until } if settled || cx.now >= *until => {
                // Where the linger is over: nothing may follow the close.
                self.publisher.abandon_waiting();
                cx.link.out.upstream.forward(close.view());
                self.state = State::Closing;
            }
            State::Refused { until, told_upstream, client_done, upstream_done } => {
                if !*told_upstream && !*upstream_done && free && (settled || cx.now >= *until) {
                    self.publisher.abandon_waiting();
                    let text = "the client's channel was closed by hapax";
                    cx.link.out.upstream.push(close(self.id, 200, text, MethodId(0, 0)));
                    *told_upstream = true;
                }
                if *client_done && *upstream_done {
                    self.publisher.upstream_closed(None, cx.now);
                    self.state = State::Gone;
                }
            }
            State::Recycling { closing, .. } if settled && !*closing => {
                *closing = true;
                let text = "hapax makes room for tx.select";
                cx.link.out.upstream.push(close(self.id, 200, text, MethodId(0, 0)));
            }
            State::Settling { .. }
            | State::Recycling { .. }
            | State::Open
            | State::Closing
            | State::UpstreamClosed { .. }
            | State::Gone => {}
        }
        Ok(())
    }
}

/// Asks for the right that a publish of the backlog needs. Whether the frames after it may be looked at, too.
fn ask_ahead(kind: FrameKind, frame: View<'_>, cx: &mut Cx<'_>) -> bool {
    match frame.method(kind) {
        Some(MethodId::BASIC_PUBLISH) if cx.link.probes.has_room() => {
            publisher::ask(frame, None, cx);
            true
        }
        // What it does may decide where the publishes after it may go.
        Some(_) => false,
        None => true,
    }
}

fn channel_method(channel: ChannelId, method: ChannelMethod) -> Bytes {
    emit::method(channel, AMQPClass::Channel(method))
}

fn close_ok(channel: ChannelId) -> Bytes {
    channel_method(channel, ChannelMethod::CloseOk(CloseOk {}))
}

fn close(channel: ChannelId, code: u16, text: &str, culprit: MethodId) -> Bytes {
    let close =
        Close { reply_code: code, reply_text: text.into(), class_id: culprit.0, method_id: culprit.1 };
    channel_method(channel, ChannelMethod::Close(close))
}
