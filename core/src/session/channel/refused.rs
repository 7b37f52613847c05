//! A channel that is closed towards the client, and not yet at the upstream: Hapax has refused it, or the client has closed it
//! and was answered before all outcomes were known.
//!
//! ```text
//!   client:    sent channel.close ------close-ok, or its own close------> done
//!   upstream:  Open --settled, or linger over: channel.close--> Closing --close-ok--> Closed
//!                \--------------- the upstream's channel.close ------------------------^
//! ```
//!
//! The upstream's channel stays open until the outcome of everything that was forwarded is known. The channel is gone when both
//! sides are done.

use super::frames;
use super::halves::Halves;
use crate::session::blame::Blame;
use crate::session::cx::Cx;
use crate::session::outbox::{Piece, View};
use crate::wire::frame::FrameKind;
use crate::wire::method::{MethodId, Return};
use std::time::Instant;

/// The state of the upstream's channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum UpstreamChannel {
    /// It waits for outcomes, at most until this time.
    Open { until: Instant },
    /// Hapax has sent `channel.close`; its answer is still to come.
    Closing,
    /// It is closed.
    Closed,
}

/// How far the closing of a refused channel is.
#[derive(Debug)]
pub(super) struct Refused {
    /// The client has closed its channel, or is gone.
    client_done: bool,
    upstream: UpstreamChannel,
    /// The client's `channel.close`, if it was not forwarded.
    close: Option<Piece>,
}

impl Refused {
    /// Creates the state of a channel whose upstream channel waits for outcomes, at most until the time `until`.
    pub(super) fn waiting(until: Instant, client_done: bool) -> Refused {
        Refused { client_done, upstream: UpstreamChannel::Open { until }, close: None }
    }

    /// Creates the state of a channel whose client was told that it is closed. The client's `close` is forwarded when all outcomes
    /// are known, at the time `until` at the latest.
    pub(super) fn hidden(close: Piece, until: Instant) -> Refused {
        Refused { close: Some(close), ..Refused::waiting(until, true) }
    }

    /// Creates the state of a channel whose upstream was sent a `channel.close` already.
    pub(super) fn closing(client_done: bool) -> Refused {
        Refused { client_done, upstream: UpstreamChannel::Closing, close: None }
    }

    /// Returns true if the client has closed its channel: it may believe that the number is free.
    pub(super) fn is_client_done(&self) -> bool {
        self.client_done
    }

    /// Notes that the client is gone: nothing more will come from it.
    pub(super) fn client_gone(&mut self) {
        self.client_done = true;
    }

    /// Returns true if the upstream's channel is open.
    pub(super) fn is_open_upstream(&self) -> bool {
        matches!(self.upstream, UpstreamChannel::Open { .. })
    }

    /// Returns true if the upstream's channel is closed.
    pub(super) fn is_closed_upstream(&self) -> bool {
        self.upstream == UpstreamChannel::Closed
    }

    /// Returns when the upstream's channel is closed although outcomes are not known.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.upstream {
            UpstreamChannel::Open { until } => Some(until),
            UpstreamChannel::Closing | UpstreamChannel::Closed => None,
        }
    }

    /// Handles a method of the client. Only the end of its channel matters any more.
    pub(super) fn recv_client(&mut self, method: Option<MethodId>, halves: &Halves, cx: &mut Cx<'_>) {
        match method {
            Some(MethodId::CHANNEL_CLOSE_OK) => self.client_done = true,
            // Both have closed. The client may answer our close or not, so do not wait for that.
            Some(MethodId::CHANNEL_CLOSE) if !self.client_done => {
                cx.link.out.client.push(frames::close_ok(halves.id()));
                self.client_done = true;
            }
            Some(_) | None => {}
        }
    }

    /// Handles a frame of the upstream. The client hears nothing of it.
    pub(super) fn recv_upstream(
        &mut self,
        kind: FrameKind,
        id: Option<MethodId>,
        frame: View<'_>,
        halves: &mut Halves,
        cx: &mut Cx<'_>,
    ) {
        match id {
            Some(MethodId::CHANNEL_CLOSE_OK) => self.upstream = UpstreamChannel::Closed,
            Some(MethodId::CHANNEL_CLOSE) => {
                cx.link.out.upstream.push(frames::close_ok(halves.id()));
                halves.publisher.upstream_closed(Blame::of(frame.payload()).as_ref(), cx.now);
                // If both have closed, the upstream still answers our close.
                if self.is_open_upstream() {
                    self.upstream = UpstreamChannel::Closed;
                }
            }
            Some(MethodId::TX_COMMIT_OK | MethodId::TX_ROLLBACK_OK) => {
                let is_own = halves.guard.as_mut().is_some_and(|guard| guard.recv_tx_ended(cx));
                // The client receives nothing more, so this answer is not held back.
                if !is_own {
                    halves.publisher.recv_tx_ended(frame, cx);
                }
            }
            // After a return, the ack that follows does not mean that the message is stored.
            Some(MethodId::BASIC_RETURN) => halves.deliveries.hold_return(frame),
            Some(MethodId::BASIC_CONSUME_OK) => {
                drop(halves.deliveries.recv_change(MethodId::BASIC_CONSUME_OK, frame));
                if halves.deliveries.are_unwanted() && self.is_open_upstream() {
                    halves.let_deliveries_go(cx);
                }
            }
            // It was on its way when the consumers were cancelled.
            Some(MethodId::BASIC_DELIVER | MethodId::BASIC_GET_OK)
                if self.close.is_some() && self.is_open_upstream() =>
            {
                halves.requeue(cx);
            }
            Some(MethodId::CHANNEL_FLOW_OK) => drop(halves.round_trip.recv_flow_ok()),
            Some(_) | None => {}
        }
        if let Some(returned) = halves.deliveries.take_return(kind)
            && let Ok(fields) = Return::parse(returned.view().payload())
        {
            halves.publisher.recv_return(&fields, frame, cx);
        }
    }

    /// Closes the upstream's channel if everything is settled or the time is over. Returns true when both sides are done.
    pub(super) fn advance(&mut self, settled: bool, halves: &mut Halves, cx: &mut Cx<'_>) -> bool {
        if let UpstreamChannel::Open { until } = self.upstream
            && !halves.publisher.is_forwarding()
            && (settled || cx.now >= until)
        {
            // A client that hears no outcome could not know that its publishes were dropped. Sending them cannot fail: no
            // window judges them.
            if !settled && halves.publisher.ledger().is_silent() {
                drop(halves.publisher.send_pending(cx));
            }
            halves.publisher.send_waiting(cx);
            halves.publisher.abandon_waiting();
            match self.close.take() {
                Some(close) => cx.link.out.upstream.forward(close.view()),
                None => {
                    let text = "the client's channel was closed by hapax";
                    cx.link.out.upstream.push(frames::close_normally(halves.id(), text));
                }
            }
            self.upstream = UpstreamChannel::Closing;
        }
        self.client_done && self.upstream == UpstreamChannel::Closed
    }
}
