//! How a channel is opened, refused and closed: its [`State`], and every event that changes it.

use super::frames;
use super::halves::Halves;
use super::refused::Refused;
use super::settling::{Settling, Step};
use crate::session::blame::Blame;
use crate::session::cx::Cx;
use crate::session::fault::{Closes, Fault};
use crate::session::outbox::{Piece, View};
use crate::wire::frame::FrameKind;
use crate::wire::method::MethodId;
use std::time::Instant;

#[derive(Debug)]
enum State {
    Open,
    /// The client has sent `channel.close`. It is held back while outcomes are not known.
    Settling(Settling),
    /// The client's `channel.close` was forwarded.
    Closing,
    /// The upstream has closed the channel, and the client was told. `rest` bytes are missing of a message that was being
    /// forwarded: the broker waits for them all the same, and treats any other frame before them as a connection error.
    UpstreamClosed {
        rest: u64,
    },
    /// The channel is closed towards the client, by Hapax or because the client has closed it.
    Refused(Refused),
    /// `tx.select` came after shadow confirms. It waits until every outcome is known.
    Recycling {
        select: Piece,
        until: Instant,
    },
    /// The upstream's channel is being closed and opened again for tx.
    Reopening {
        select: Piece,
    },
    Gone,
}

/// Tells the channel how to go on with a frame of the upstream, after its state has looked at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Then {
    /// The frame is for the client.
    ForClient,
    /// The frame was handled.
    Handled,
    /// The frame was handled, and nothing else has become possible.
    Wait,
}

/// The state of a channel, and what will end it.
#[derive(Debug)]
pub(super) struct Life {
    state: State,
    /// The channel will be refused for this, as soon as the messages that are on their way (in both directions) are complete.
    refusal: Option<Fault>,
    /// The client will send nothing more.
    client_gone: bool,
}

impl Life {
    /// Creates the life of a channel that is open.
    pub(super) fn new() -> Life {
        Life { state: State::Open, refusal: None, client_gone: false }
    }

    /// Returns true if both sides may use the channel.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Returns true if the channel waits to be refused.
    #[inline]
    pub(super) fn has_refusal(&self) -> bool {
        self.refusal.is_some()
    }

    /// Returns true if the client will send nothing more.
    pub(super) fn is_client_gone(&self) -> bool {
        self.client_gone
    }

    /// Returns true if both sides have closed the channel.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    /// Returns true if the client may believe that the number is free, but the upstream's channel is not closed yet.
    pub(super) fn is_free_for_client(&self) -> bool {
        matches!(&self.state, State::Refused(refused) if refused.is_client_done())
    }

    /// Returns true if a fresh upstream channel is being made for tx. Frames of the client wait for it.
    pub(super) fn is_changing_to_tx(&self) -> bool {
        matches!(self.state, State::Recycling { .. } | State::Reopening { .. })
    }

    /// Returns true if the upstream's channel is open, whatever the client has been told.
    pub(super) fn is_open_upstream(&self) -> bool {
        match &self.state {
            State::Open | State::Settling(_) | State::Recycling { .. } => true,
            State::Refused(refused) => refused.is_open_upstream(),
            State::Closing | State::UpstreamClosed { .. } | State::Reopening { .. } | State::Gone => false,
        }
    }

    /// Returns true if the upstream's channel is open, and the client has not been told of an end.
    pub(super) fn is_open_or_settling(&self) -> bool {
        matches!(self.state, State::Open | State::Settling(_))
    }

    /// Returns true if the broker has handled all that was forwarded to it, and all that it has to say about that has come.
    pub(super) fn has_said_all(&self, halves: &Halves) -> bool {
        let is_closed = match &self.state {
            State::UpstreamClosed { .. } | State::Gone => true,
            State::Refused(refused) => refused.is_closed_upstream(),
            State::Open
            | State::Settling(_)
            | State::Closing
            | State::Recycling { .. }
            | State::Reopening { .. } => false,
        };
        is_closed || halves.round_trip.is_answered()
    }

    /// Returns true if the broker may be asked whether it has handled all. It answers a `channel.close`, too, and nothing after
    /// that.
    pub(super) fn may_ask(&self) -> bool {
        match &self.state {
            State::Open | State::Settling(_) => true,
            State::Refused(refused) => refused.is_open_upstream(),
            State::UpstreamClosed { .. }
            | State::Gone
            | State::Closing
            | State::Recycling { .. }
            | State::Reopening { .. } => false,
        }
    }

    /// Returns when the state changes by itself.
    pub(super) fn deadline(&self, halves: &Halves) -> Option<Instant> {
        match &self.state {
            State::Settling(settling) => Some(settling.deadline()),
            State::Recycling { until, .. } => Some(*until),
            State::Refused(refused) if !halves.publisher.is_forwarding() => refused.deadline(),
            State::Refused(_)
            | State::Reopening { .. }
            | State::Open
            | State::Closing
            | State::UpstreamClosed { .. }
            | State::Gone => None,
        }
    }

    /// Writes the confirms that are due, if the client may receive them in this state.
    pub(super) fn flush(&self, halves: &mut Halves, cx: &mut Cx<'_>) {
        if halves.may_flush() {
            match self.state {
                // (A client that has closed its connection gets all that is there.)
                State::Open if !self.client_gone && cx.link.holds_confirms(halves.id()) => {}
                State::Open
                | State::Settling(_)
                | State::Closing
                | State::Recycling { .. }
                | State::Reopening { .. } => halves.flush(cx),
                State::UpstreamClosed { .. } | State::Refused(_) | State::Gone => {}
            }
        }
    }

    // ---- from the client -------------------------------------------------------------------------------------------

    /// Handles a frame of the client in a state in which it is not handled by the publisher.
    pub(super) fn recv_client(
        &mut self,
        kind: FrameKind,
        frame: View<'_>,
        halves: &mut Halves,
        cx: &mut Cx<'_>,
    ) {
        let method = frame.method(kind);
        match &mut self.state {
            State::Open | State::Recycling { .. } | State::Reopening { .. } => {}
            State::Settling(_) | State::Closing | State::Gone => {
                if method == Some(MethodId::CHANNEL_CLOSE) {
                    halves.recv_client_close_again();
                }
            }
            State::Refused(refused) => refused.recv_client(method, halves, cx),
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
                    // Both have closed. Hapax answers each of them, and does not wait for the client's answer.
                    Some(MethodId::CHANNEL_CLOSE) => {
                        cx.link.out.upstream.push(frames::close_ok(halves.id()));
                        cx.link.out.client.push(frames::close_ok(halves.id()));
                        self.state = State::Gone;
                    }
                    Some(_) | None => {}
                }
            }
        }
    }

    /// Handles the client's `channel.close` on an open channel. It is held back if outcomes are unknown.
    pub(super) fn recv_client_close(&mut self, close: View<'_>, halves: &mut Halves, cx: &mut Cx<'_>) {
        for _ in 0..halves.drop_frames() {
            halves.recv_client_close_again();
        }
        halves.publisher.client_done();
        if halves.is_settled() {
            self.state = State::Closing;
            cx.link.out.upstream.forward(close);
        } else {
            let settling = Settling::new(close.compact(), cx.shared.settings.linger, cx.now);
            self.state = State::Settling(settling);
            halves.let_deliveries_go(cx);
        }
    }

    /// Handles `tx.select` where Hapax has selected confirms without the client's knowledge: RabbitMQ would refuse it. A fresh
    /// upstream channel of the same number takes the place of the old one, if that was used for nothing but publishes.
    pub(super) fn recycle(&mut self, select: View<'_>, halves: &Halves, cx: &Cx<'_>) -> Result<(), Fault> {
        if halves.deliveries.is_used() {
            return Err(Fault::TxAfterPublish);
        }
        let until = cx.now + cx.shared.settings.linger;
        self.state = State::Recycling { select: select.compact(), until };
        Ok(())
    }

    // ---- from the upstream -----------------------------------------------------------------------------------------

    /// Handles a frame of the upstream, if it means something for the state.
    pub(super) fn recv_upstream(
        &mut self,
        kind: FrameKind,
        id: Option<MethodId>,
        frame: View<'_>,
        halves: &mut Halves,
        cx: &mut Cx<'_>,
    ) -> Then {
        match (&mut self.state, id) {
            (State::Refused(refused), _) => refused.recv_upstream(kind, id, frame, halves, cx),
            (State::Reopening { .. }, Some(MethodId::CHANNEL_CLOSE_OK)) => {
                cx.link.out.upstream.push(frames::open(halves.id()));
                return Then::Wait;
            }
            (State::Reopening { select }, Some(MethodId::CHANNEL_OPEN_OK)) => {
                cx.link.out.upstream.forward(select.view());
                self.state = State::Open;
                halves.publisher.restart_with_tx();
            }
            // Both have closed: the upstream's answer to our close still comes, and is not for the client.
            (State::Reopening { .. }, Some(MethodId::CHANNEL_CLOSE)) => {
                cx.link.out.upstream.push(frames::close_ok(halves.id()));
                let closes = halves.drop_frames();
                let client_done = closes > 0;
                halves.forward_close(frame, cx);
                for _ in 1..closes {
                    halves.recv_client_close_again();
                }
                if client_done {
                    halves.answer_closes(cx);
                }
                self.state = State::Refused(Refused::closing(client_done));
            }
            (_, Some(MethodId::CHANNEL_CLOSE)) => self.recv_upstream_close(frame, halves, cx),
            (_, Some(MethodId::CHANNEL_CLOSE_OK)) => {
                halves.publisher.upstream_closed(None, cx.now);
                self.flush(halves, cx);
                halves.answer_closes(cx);
                self.state = State::Gone;
            }
            _ => return Then::ForClient,
        }
        Then::Handled
    }

    /// Handles the upstream's `channel.close`.
    fn recv_upstream_close(&mut self, close: View<'_>, halves: &mut Halves, cx: &mut Cx<'_>) {
        let rest = halves.publisher.left_to_forward();
        halves.publisher.upstream_closed(Blame::of(close.payload()).as_ref(), cx.now);
        let closes = halves.drop_frames();
        for _ in 1..closes {
            halves.recv_client_close_again();
        }
        let said_close = closes > 0 || matches!(self.state, State::Settling(_));
        self.flush(halves, cx);
        halves.publisher.ledger_mut().forget_client();
        // If the client has closed, too, both hear of the other's close, and both get an answer. The upstream answers the
        // client's close if it was forwarded.
        let both_closed = said_close || matches!(self.state, State::Closing);
        if both_closed {
            cx.link.out.upstream.push(frames::close_ok(halves.id()));
        }
        halves.forward_close(close, cx);
        if said_close {
            halves.answer_closes(cx);
            self.state = State::Gone;
        } else if !both_closed {
            self.state = State::UpstreamClosed { rest };
        }
    }

    // ---- ends ------------------------------------------------------------------------------------------------------

    /// Returns the fault that the channel is to be refused for, if that is possible now.
    pub(super) fn take_refusal(&mut self, halves: &Halves) -> Result<(), Fault> {
        if self.refusal.is_some() && !halves.is_amid_content() {
            return self.refusal.take().map_or(Ok(()), Err);
        }
        Ok(())
    }

    /// Closes the channel towards the client because of a fault, at once or as soon as that is possible. Returns true if it is
    /// closed now. Gives the fault back if the whole connection has to end.
    pub(super) fn refuse(
        &mut self,
        fault: Fault,
        halves: &mut Halves,
        cx: &mut Cx<'_>,
    ) -> Result<bool, Fault> {
        if fault.closes() == Closes::Connection {
            return Err(fault);
        }
        let upstream_is_told = match self.state {
            State::Open | State::Settling(_) | State::Recycling { .. } => false,
            State::Reopening { .. } => true,
            State::Closing | State::UpstreamClosed { .. } | State::Refused(_) | State::Gone => {
                return Ok(false);
            }
        };
        if halves.is_amid_content() && !self.client_gone {
            self.refusal = Some(fault);
            return Ok(false);
        }
        self.flush(halves, cx);
        let said_close = halves.drop_frames() > 0 || matches!(self.state, State::Settling(_));
        let client_done = self.client_gone || said_close;
        if halves.deliveries.is_amid_content() {
            // The client has closed its connection, or its end of it. It needs no other answer, and amid a message it must not get one.
        } else if said_close {
            cx.link.out.client.push(frames::close_ok(halves.id()));
        } else {
            halves.close_client(&fault, cx);
        }
        halves.publisher.ledger_mut().forget_client();
        halves.publisher.client_done();
        halves.publisher.refused();
        if upstream_is_told {
            self.state = State::Refused(Refused::closing(client_done));
            return Ok(true);
        }
        let until = cx.now + cx.shared.settings.linger;
        self.state = State::Refused(Refused::waiting(until, client_done));
        if !halves.is_settled() {
            halves.cancel_consumers(cx);
        }
        Ok(true)
    }

    /// Notes that the client will send nothing more.
    pub(super) fn finish(&mut self) {
        self.client_gone = true;
    }

    /// Notes that the client has vanished: it will answer nothing.
    pub(super) fn abandon(&mut self) {
        if let State::Refused(refused) = &mut self.state {
            refused.client_gone();
        }
    }

    /// Closes the upstream's channel for a client that has vanished.
    pub(super) fn close_settled(&mut self, now: Instant) {
        self.state = State::Refused(Refused::waiting(now, true));
    }

    /// Gives up changing to tx if outcomes were unknown for too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), Fault> {
        if matches!(self.state, State::Recycling { until, .. } if now >= until) {
            self.state = State::Open;
            return Err(Fault::TxAfterPublish);
        }
        Ok(())
    }

    /// Goes on to the next state if everything is settled, or the time is over.
    pub(super) fn advance(&mut self, halves: &mut Halves, cx: &mut Cx<'_>) {
        if self.is_open() {
            return;
        }
        // Frames after a `tx.select` wait for the fresh channel. They do not keep the old one open.
        let settled = halves.publisher.is_settled() && (!halves.has_frames() || self.is_changing_to_tx());
        match &mut self.state {
            State::Settling(settling) => {
                match settling.step(settled, &halves.round_trip, cx.may_hide(), cx.now) {
                    Step::Wait => {}
                    Step::Forward => {
                        // If the linger is over, publishes still wait. Nothing may follow the close.
                        halves.publisher.send_waiting(cx);
                        halves.publisher.abandon_waiting();
                        cx.link.out.upstream.forward(settling.close().view());
                        self.state = State::Closing;
                    }
                    Step::Ask => halves.ask_round_trip(cx),
                    Step::Answer => {
                        let hidden = Refused::hidden(settling.close().clone(), settling.until());
                        self.flush(halves, cx);
                        halves.publisher.ledger_mut().forget_client();
                        halves.answer_closes(cx);
                        self.state = State::Refused(hidden);
                    }
                }
            }
            State::Refused(refused) => {
                if refused.advance(settled, halves, cx) {
                    halves.publisher.upstream_closed(None, cx.now);
                    self.state = State::Gone;
                }
            }
            State::Recycling { select, .. } if settled => {
                let close = frames::close_normally(halves.id(), "hapax makes room for tx.select");
                cx.link.out.upstream.push(close);
                self.state = State::Reopening { select: select.clone() };
            }
            State::Recycling { .. }
            | State::Reopening { .. }
            | State::Open
            | State::Closing
            | State::UpstreamClosed { .. }
            | State::Gone => {}
        }
    }
}
