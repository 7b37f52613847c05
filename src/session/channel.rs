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

use super::cx::Cx;
use super::entry::Outcome;
use super::fault::{Fault, Scope};
use super::outbox::Piece;
use super::publisher::{Mode, Publisher};
use crate::window::{Ticket, Verdict};
use crate::wire::frame::FrameKind;
use crate::wire::method::{MethodId, Return, Settle};
use crate::wire::properties::ContentHeader;
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::channel::{AMQPMethod as ChannelMethod, Close, CloseOk, Open};
use amq_protocol::protocol::{AMQPClass, basic};
use std::collections::{HashSet, VecDeque};
use std::time::Instant;

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
    fn after(self, kind: FrameKind, id: Option<MethodId>, piece: &Piece) -> Delivering {
        let left = match (self, kind, id) {
            (_, _, Some(MethodId::BASIC_DELIVER | MethodId::BASIC_GET_OK | MethodId::BASIC_RETURN)) => {
                return Delivering::Header;
            }
            (_, FrameKind::Header, _) => ContentHeader::size_of(piece.payload()).map_or(0, |(_, size)| size),
            (Delivering::Body(left), FrameKind::Body, _) => left.saturating_sub(piece.payload().len() as u64),
            (as_before, _, _) => return as_before,
        };
        if left == 0 { Delivering::Nothing } else { Delivering::Body(left) }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Channel {
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
    backlog: VecDeque<Piece>,
    backlog_bytes: usize,
    /// `tx.select` or `tx.commit` waits at the head of the backlog for the waiters before it, and for the proof that the
    /// user may publish where the duplicates went.
    awaits_waiters: bool,
    /// To be refused as soon as the contents on their way, upstream and to the client, are whole.
    refusal: Option<Fault>,
    client_gone: bool,
    /// The client has said `confirm.select` and waits for the answer: no ack may come before it.
    selecting: bool,
    /// The client wants no deliveries any more: consumers are cancelled.
    unwanted: bool,
}

impl Channel {
    /// `channel.open` has passed.
    pub(super) fn new(id: ChannelId, birth: u64) -> Channel {
        Channel {
            id,
            birth,
            state: State::Open,
            publisher: Publisher::new(id, birth, Mode::Plain),
            consumers: HashSet::new(),
            used_otherwise: false,
            returning: None,
            delivering: Delivering::Nothing,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            awaits_waiters: false,
            refusal: None,
            client_gone: false,
            selecting: false,
            unwanted: false,
        }
    }

    pub(super) fn birth(&self) -> u64 {
        self.birth
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    /// A client takes its number again without having said close-ok: the upstream still waits for that.
    pub(super) fn reopen(&mut self, cx: &mut Cx<'_>) {
        if matches!(self.state, State::UpstreamClosed { .. }) {
            cx.out.upstream.push(close_ok(self.id));
            self.state = State::Gone;
        }
    }

    /// Whether answers to the client are due.
    pub(super) fn is_due(&self) -> bool {
        self.publisher.is_due()
    }

    /// Whether the number is taken although the client thinks that it is free: the upstream has not answered yet.
    pub(super) fn is_free_for_client(&self) -> bool {
        matches!(self.state, State::Refused { client_done: true, .. })
    }

    /// Publishes whose outcome is unknown.
    pub(super) fn unresolved(&self) -> usize {
        self.publisher.unresolved()
    }

    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        self.publisher.held() + self.backlog_bytes
    }

    /// Whether every outcome is known and nothing waits.
    pub(super) fn is_settled(&self) -> bool {
        self.publisher.is_settled() && self.backlog.is_empty()
    }

    fn is_blocked(&self) -> bool {
        let refused = self.refusal.is_some() && !self.publisher.is_forwarding();
        refused
            || self.publisher.is_stalled()
            || self.awaits_waiters
            || matches!(self.state, State::Recycling { .. })
    }

    /// When [`Channel::handle_timeout`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
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
        [state, self.publisher.waiting.deadline()].into_iter().flatten().min()
    }

    // ---- from the client -----------------------------------------------------------------------------------------

    /// A frame of the client. `whole`: the frame after it in the same read is this channel's content header.
    pub(super) fn recv_client(
        &mut self,
        kind: FrameKind,
        piece: &Piece,
        whole: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let blocked = self.is_blocked();
        match &mut self.state {
            State::Open | State::Recycling { .. } if blocked => {
                self.backlog_bytes += piece.frame().len();
                self.backlog.push_back(piece.compact());
                Ok(())
            }
            State::Open | State::Recycling { .. } => {
                self.recv_open(kind, piece, whole, cx)?;
                self.advance(cx)
            }
            State::Settling { .. } | State::Closing | State::Gone => Ok(()),
            State::UpstreamClosed { rest } => {
                if kind == FrameKind::Body && *rest > 0 {
                    *rest = rest.saturating_sub(piece.payload().len() as u64);
                    cx.out.upstream.forward(piece);
                }
                match method(kind, piece) {
                    Some(MethodId::CHANNEL_CLOSE_OK) => {
                        cx.out.upstream.forward(piece);
                        self.state = State::Gone;
                    }
                    // Both have closed: each gets its answer from us, and the client's own is not waited for.
                    Some(MethodId::CHANNEL_CLOSE) => {
                        cx.out.upstream.push(close_ok(self.id));
                        cx.out.client.push(close_ok(self.id));
                        self.state = State::Gone;
                    }
                    Some(_) | None => {}
                }
                Ok(())
            }
            State::Refused { client_done, .. } => {
                match method(kind, piece) {
                    Some(MethodId::CHANNEL_CLOSE_OK) => *client_done = true,
                    // Both have closed: its answer to ours may come or not.
                    Some(MethodId::CHANNEL_CLOSE) if !*client_done => {
                        cx.out.client.push(close_ok(self.id));
                        *client_done = true;
                    }
                    Some(_) | None => {}
                }
                self.advance(cx)
            }
        }
    }

    fn recv_open(
        &mut self,
        kind: FrameKind,
        piece: &Piece,
        whole: bool,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let id = match method(kind, piece) {
            Some(id) if self.publisher.is_between_contents() => id,
            _ => return self.publisher.recv_content(kind, piece, cx),
        };
        match id {
            MethodId::BASIC_PUBLISH => {
                self.publisher.recv_publish(piece, whole);
                return Ok(());
            }
            MethodId::CONFIRM_SELECT => {
                let nowait = piece.payload().get(4).is_some_and(|bits| bits & 1 != 0);
                self.selecting |= !nowait;
                self.publisher.select_confirm();
            }
            // What waits was said before the transaction, or belongs to it: either way it comes first.
            MethodId::TX_SELECT | MethodId::TX_COMMIT
                if self.publisher.mode() != (Mode::Confirm { client: true })
                    && self.publisher.has_waiting() =>
            {
                self.awaits_waiters = true;
                self.backlog_bytes += piece.frame().len();
                self.backlog.push_front(piece.compact());
                return Ok(());
            }
            MethodId::TX_SELECT => {
                if self.publisher.mode() == (Mode::Confirm { client: false }) {
                    return self.recycle(piece, cx);
                }
                self.publisher.select_tx();
            }
            MethodId::TX_COMMIT => self.publisher.commit(),
            MethodId::TX_ROLLBACK => self.publisher.rollback(),
            MethodId::CHANNEL_CLOSE => {
                self.drop_backlog();
                self.publisher.client_done();
                if !self.is_settled() {
                    let until = cx.now + cx.shared.settings.linger;
                    self.state = State::Settling { close: piece.compact(), until };
                    self.cancel_consumers(cx);
                    return Ok(());
                }
                self.state = State::Closing;
            }
            MethodId::BASIC_CONSUME => self.note_consumer(piece),
            MethodId::BASIC_CANCEL => self.note_cancel(piece),
            MethodId::BASIC_GET | MethodId::BASIC_QOS => self.used_otherwise = true,
            _ => {}
        }
        cx.out.upstream.forward(piece);
        Ok(())
    }

    fn note_consumer(&mut self, piece: &Piece) {
        self.used_otherwise = true;
        if let Some(AMQPClass::Basic(basic::AMQPMethod::Consume(consume))) =
            emit::parse_method(piece.payload())
            && !consume.consumer_tag.as_str().is_empty()
        {
            self.consumers.insert(consume.consumer_tag.as_str().to_owned());
        }
    }

    fn note_consume_ok(&mut self, piece: &Piece, cx: &mut Cx<'_>) {
        if let Some(AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok))) = emit::parse_method(piece.payload())
        {
            self.consumers.insert(ok.consumer_tag.as_str().to_owned());
        }
        let open_upstream = matches!(
            self.state,
            State::Open
                | State::Settling { .. }
                | State::Refused { told_upstream: false, upstream_done: false, .. }
        );
        if self.unwanted && open_upstream {
            self.cancel_consumers(cx);
        }
    }

    /// What is delivered from now on would be lost, or given back late: the channel stays open for outcomes only. Amid a
    /// content there is no way to say so.
    fn cancel_consumers(&mut self, cx: &mut Cx<'_>) {
        if self.publisher.is_forwarding() {
            return;
        }
        self.unwanted = true;
        for tag in self.consumers.drain() {
            let cancel = basic::Cancel { consumer_tag: tag.into(), nowait: true };
            cx.out.upstream.push(emit::method(self.id, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel))));
        }
    }

    fn note_cancel(&mut self, piece: &Piece) {
        if let Some(AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel))) = emit::parse_method(piece.payload())
        {
            self.consumers.remove(cancel.consumer_tag.as_str());
        }
    }

    /// `tx.select` where Hapax has selected confirms unseen: RabbitMQ would refuse it. A fresh upstream channel of the same
    /// number takes its place, if the old one held nothing but publishes.
    fn recycle(&mut self, select: &Piece, cx: &mut Cx<'_>) -> Result<(), Fault> {
        if self.used_otherwise {
            return Err(Fault::TxAfterPublish);
        }
        let until = cx.now + cx.shared.settings.linger;
        self.state = State::Recycling { select: select.compact(), until, closing: false };
        Ok(())
    }

    // ---- from the upstream ---------------------------------------------------------------------------------------

    /// A frame of the upstream.
    pub(super) fn recv_upstream(
        &mut self,
        kind: FrameKind,
        piece: &Piece,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let id = method(kind, piece);
        if let Some(id @ (MethodId::BASIC_ACK | MethodId::BASIC_NACK)) = id
            && matches!(self.publisher.mode(), Mode::Confirm { .. })
            && let Ok(settle) = Settle::parse(piece.payload())
        {
            let outcome = if id == MethodId::BASIC_ACK { Outcome::Acked } else { Outcome::Nacked };
            self.publisher.recv_settle(settle, outcome, cx);
            return self.advance(cx);
        }
        match &mut self.state {
            State::Refused { upstream_done, told_upstream, .. } => {
                match id {
                    Some(MethodId::CHANNEL_CLOSE_OK) => *upstream_done = true,
                    Some(MethodId::CHANNEL_CLOSE) => {
                        cx.out.upstream.push(close_ok(self.id));
                        self.publisher.upstream_channel_closed();
                        // Where both have closed, its answer to ours still comes.
                        *upstream_done = !*told_upstream;
                    }
                    Some(MethodId::TX_COMMIT_OK | MethodId::TX_ROLLBACK_OK) => {
                        self.publisher.recv_tx_ended(cx);
                    }
                    // The client hears nothing of it, but the ack that follows does not mean stored.
                    Some(MethodId::BASIC_RETURN) => self.returning = Some(piece.clone()),
                    Some(MethodId::BASIC_CONSUME_OK) => self.note_consume_ok(piece, cx),
                    Some(_) | None => {}
                }
                if kind == FrameKind::Header
                    && let Some(returned) = self.returning.take()
                    && let Ok(fields) = Return::parse(returned.payload())
                {
                    self.publisher.recv_return(&fields, piece, cx);
                }
                return self.advance(cx);
            }
            State::Recycling { closing: true, select, .. } => match id {
                Some(MethodId::CHANNEL_CLOSE_OK) => {
                    cx.out.upstream.push(channel_method(self.id, ChannelMethod::Open(Open {})));
                    return Ok(());
                }
                // Both have closed: its answer to ours still comes, and is not the client's.
                Some(MethodId::CHANNEL_CLOSE) => {
                    cx.out.upstream.push(close_ok(self.id));
                    let client_done = self.drop_backlog();
                    match client_done {
                        true => cx.out.client.push(close_ok(self.id)),
                        false => cx.out.client.forward(piece),
                    }
                    let until = cx.now;
                    self.state =
                        State::Refused { until, told_upstream: true, client_done, upstream_done: false };
                    return self.advance(cx);
                }
                Some(MethodId::CHANNEL_OPEN_OK) => {
                    cx.out.upstream.forward(select);
                    self.state = State::Open;
                    self.publisher = Publisher::new(self.id, self.birth, Mode::Tx);
                    return self.advance(cx);
                }
                Some(_) | None => {}
            },
            State::Recycling { closing: false, .. }
            | State::Open
            | State::Settling { .. }
            | State::Closing
            | State::UpstreamClosed { .. }
            | State::Gone => {}
        }
        self.recv_upstream_for_client(kind, id, piece, cx)?;
        self.advance(cx)
    }

    fn recv_upstream_for_client(
        &mut self,
        kind: FrameKind,
        id: Option<MethodId>,
        piece: &Piece,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        match id {
            Some(MethodId::BASIC_RETURN) if self.publisher.mode() != Mode::Plain => {
                self.returning = Some(piece.clone());
                return Ok(());
            }
            Some(MethodId::TX_COMMIT_OK | MethodId::TX_ROLLBACK_OK) => self.publisher.recv_tx_ended(cx),
            Some(MethodId::CHANNEL_CLOSE) => {
                let rest = self.publisher.left_to_forward();
                self.publisher.upstream_channel_closed();
                let said_close = self.drop_backlog() || matches!(self.state, State::Settling { .. });
                self.flush(cx);
                self.publisher.confirms().forget_client();
                match self.state {
                    // Both have closed: each gets its answer, the client's from the upstream where it has been asked.
                    _ if said_close => {
                        cx.out.upstream.push(close_ok(self.id));
                        cx.out.client.push(close_ok(self.id));
                        self.state = State::Gone;
                        return Ok(());
                    }
                    State::Closing => {
                        cx.out.upstream.push(close_ok(self.id));
                        return Ok(());
                    }
                    State::Open
                    | State::Settling { .. }
                    | State::UpstreamClosed { .. }
                    | State::Refused { .. }
                    | State::Recycling { .. }
                    | State::Gone => self.state = State::UpstreamClosed { rest },
                }
            }
            Some(MethodId::CHANNEL_CLOSE_OK) => {
                self.publisher.upstream_channel_closed();
                self.flush(cx);
                self.state = State::Gone;
            }
            Some(MethodId::BASIC_CONSUME_OK) => self.note_consume_ok(piece, cx),
            Some(MethodId::BASIC_CANCEL) => self.note_cancel(piece),
            Some(_) | None => {}
        }
        if id == Some(MethodId::CONFIRM_SELECT_OK) {
            cx.out.client.forward(piece);
            self.selecting = false;
            return Ok(());
        }
        self.flush(cx);
        if kind == FrameKind::Header
            && let Some(returned) = self.returning.take()
        {
            self.pass_return(&returned, piece, cx);
        }
        cx.out.client.forward(piece);
        self.delivering = self.delivering.after(kind, id, piece);
        Ok(())
    }

    /// A return goes to the client under the exchange that the client had named.
    fn pass_return(&mut self, returned: &Piece, header: &Piece, cx: &mut Cx<'_>) {
        let named = match Return::parse(returned.payload()) {
            Ok(fields) => self.publisher.recv_return(&fields, header, cx),
            Err(_) => None,
        };
        match named.and_then(|named| emit::return_from(self.id, returned.payload(), &named).ok()) {
            Some(frame) => cx.out.client.push(frame),
            None => cx.out.client.forward(returned),
        }
    }

    // ---- what comes to pass --------------------------------------------------------------------------------------

    /// A verdict that came late.
    pub(super) fn recv_verdict(
        &mut self,
        ticket: Ticket,
        verdict: Verdict,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        self.publisher.recv_verdict(ticket, verdict, cx)?;
        self.advance(cx)
    }

    /// [`Channel::deadline`] has passed.
    pub(super) fn handle_timeout(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.publisher.expire(cx)?;
        self.publisher.retry(cx)?;
        if let State::Recycling { until, closing: false, .. } = self.state
            && cx.now >= until
        {
            self.state = State::Open;
            return Err(Fault::TxAfterPublish);
        }
        self.advance(cx)
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
        while !self.is_blocked() && matches!(self.state, State::Open) {
            let Some(piece) = self.backlog.pop_front() else { break };
            self.backlog_bytes -= piece.frame().len();
            if let Some(kind) = piece.kind() {
                self.recv_open(kind, &piece, true, cx)?;
            }
        }
        if self.client_gone && self.backlog.is_empty() && !self.is_blocked() {
            self.publisher.client_done();
        }
        // (What has come after a `tx.select` waits in the backlog for the fresh channel.)
        let settled = self.publisher.is_settled()
            && (self.backlog.is_empty() || matches!(self.state, State::Recycling { .. }));
        let free = !self.publisher.is_forwarding();
        match &mut self.state {
            State::Settling { close, until } if settled || cx.now >= *until => {
                // Where the linger is over: nothing may follow the close.
                self.publisher.abandon_waiting();
                cx.out.upstream.forward(close);
                self.state = State::Closing;
            }
            State::Refused { until, told_upstream, client_done, upstream_done } => {
                if !*told_upstream && !*upstream_done && free && (settled || cx.now >= *until) {
                    self.publisher.abandon_waiting();
                    let text = "the client's channel was closed by hapax";
                    cx.out.upstream.push(close(self.id, 200, text, MethodId(0, 0)));
                    *told_upstream = true;
                }
                if *client_done && *upstream_done {
                    self.publisher.upstream_channel_closed();
                    self.state = State::Gone;
                }
            }
            State::Recycling { closing, .. } if settled && !*closing => {
                *closing = true;
                let text = "hapax makes room for tx.select";
                cx.out.upstream.push(close(self.id, 200, text, MethodId(0, 0)));
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

    /// The user was found to have the right that the publish of `client` needed.
    pub(super) fn verified(
        &mut self,
        client: Option<super::ClientTag>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        self.publisher.verified(client);
        self.advance(cx)
    }

    /// Hapax closes the channel towards the client. Gives the fault back where it can't be confined to the channel.
    pub(super) fn refuse(&mut self, fault: Fault, cx: &mut Cx<'_>) -> Result<(), Fault> {
        if fault.scope() == Scope::Connection {
            return Err(fault);
        }
        if !matches!(self.state, State::Open | State::Recycling { .. } | State::Settling { .. }) {
            return Ok(());
        }
        let amid = self.publisher.is_forwarding() || self.delivering != Delivering::Nothing;
        if amid && !self.client_gone {
            self.refusal = Some(fault);
            return Ok(());
        }
        self.flush(cx);
        let said_close = self.drop_backlog() || matches!(self.state, State::Settling { .. });
        let client_done = self.client_gone || said_close;
        let told_upstream = matches!(self.state, State::Recycling { closing: true, .. });
        if said_close {
            cx.out.client.push(close_ok(self.id));
        } else {
            cx.out.client.push(close(self.id, fault.code(), &fault.text(), fault.culprit()));
        }
        self.publisher.confirms().forget_client();
        self.publisher.client_done();
        self.publisher.refused();
        let until = cx.now + cx.shared.settings.linger;
        self.state = State::Refused { until, told_upstream, client_done, upstream_done: false };
        if !told_upstream && !self.is_settled() {
            self.cancel_consumers(cx);
        }
        self.advance(cx)
    }

    /// Writes the answers that are due.
    pub(super) fn flush(&mut self, cx: &mut Cx<'_>) {
        if self.publisher.is_due() && self.delivering == Delivering::Nothing && !self.selecting {
            match self.state {
                State::Open | State::Settling { .. } | State::Closing | State::Recycling { .. } => {
                    self.publisher.confirms().flush(self.id, cx.out.client.made());
                }
                State::UpstreamClosed { .. } | State::Refused { .. } | State::Gone => {}
            }
        }
    }

    /// The client has said `connection.close`: it will send nothing more.
    pub(super) fn finish(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.client_gone = true;
        self.advance(cx)?;
        if !self.is_settled() && matches!(self.state, State::Open) {
            self.cancel_consumers(cx);
        }
        Ok(())
    }

    /// The client has vanished, or will be told nothing more: what it has sent whole is settled, all else ends at once.
    pub(super) fn abandon(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        if let State::Refused { client_done, .. } = &mut self.state {
            *client_done = true;
        }
        self.finish(cx)?;
        if self.publisher.is_forwarding() || !matches!(self.state, State::Open | State::Settling { .. }) {
            return Ok(());
        }
        if self.is_settled() {
            let until = cx.now;
            self.state =
                State::Refused { until, told_upstream: false, client_done: true, upstream_done: false };
            return self.advance(cx);
        }
        self.cancel_consumers(cx);
        if self.used_otherwise {
            let nack = basic::Nack { delivery_tag: 0, multiple: true, requeue: true };
            cx.out.upstream.push(emit::method(self.id, AMQPClass::Basic(basic::AMQPMethod::Nack(nack))));
        }
        Ok(())
    }

    /// `connection.close` goes upstream: what waits will never go there, and is not in doubt.
    pub(super) fn end(&mut self) {
        self.publisher.abandon_waiting();
        self.drop_backlog();
    }

    /// The upstream connection is gone.
    pub(super) fn upstream_lost(&mut self, now: Instant) {
        self.publisher.upstream_lost(now);
        self.drop_backlog();
    }

    /// Whether the client's `channel.close` was in it.
    fn drop_backlog(&mut self) -> bool {
        self.backlog_bytes = 0;
        self.awaits_waiters = false;
        let says_close = |piece: Piece| {
            piece.kind().and_then(|kind| method(kind, &piece)) == Some(MethodId::CHANNEL_CLOSE)
        };
        self.backlog.drain(..).any(says_close)
    }
}

fn method(kind: FrameKind, piece: &Piece) -> Option<MethodId> {
    if kind != FrameKind::Method {
        return None;
    }
    MethodId::of(piece.payload()).ok()
}

fn channel_method(channel: ChannelId, method: ChannelMethod) -> bytes::Bytes {
    emit::method(channel, AMQPClass::Channel(method))
}

fn close_ok(channel: ChannelId) -> bytes::Bytes {
    channel_method(channel, ChannelMethod::CloseOk(CloseOk {}))
}

fn close(channel: ChannelId, code: u16, text: &str, culprit: MethodId) -> bytes::Bytes {
    let close =
        Close { reply_code: code, reply_text: text.into(), class_id: culprit.0, method_id: culprit.1 };
    channel_method(channel, ChannelMethod::Close(close))
}
