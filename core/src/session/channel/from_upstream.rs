//! What the upstream says on a [`Channel`]: settles and returns for its publisher, closes, and all the rest for the client.

use super::*;
use crate::session::blame::Blame;
use crate::session::inbound::{Inbound, Whole};

impl Channel {
    /// A frame of the upstream.
    pub(in crate::session) fn recv_upstream(
        &mut self,
        kind: FrameKind,
        frame: View<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        let id = frame.method(kind);
        if let Some(id @ (MethodId::BASIC_ACK | MethodId::BASIC_NACK)) = id
            && self.publisher.ledger().has_confirms()
            && let Ok(settle) = Settle::parse(frame.payload())
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
                        cx.link.out.upstream.push(close_ok(self.id));
                        self.publisher.upstream_closed(Blame::of(frame.payload()).as_ref(), cx.now);
                        // Where both have closed, its answer to ours still comes.
                        *upstream_done = !*told_upstream;
                    }
                    Some(MethodId::TX_COMMIT_OK | MethodId::TX_ROLLBACK_OK) => {
                        // The client is told nothing more, so nothing waits.
                        self.publisher.recv_tx_ended(frame, cx);
                    }
                    // The client hears nothing of it, but the ack that follows does not mean stored.
                    Some(MethodId::BASIC_RETURN) => self.returning = Some(frame.piece()),
                    Some(MethodId::BASIC_CONSUME_OK) => self.note_consume_ok(frame, cx),
                    Some(_) | None => {}
                }
                if kind == FrameKind::Header
                    && let Some(returned) = self.returning.take()
                    && let Ok(fields) = Return::parse(returned.view().payload())
                {
                    self.publisher.recv_return(&fields, frame, cx);
                }
                return self.advance(cx);
            }
            State::Recycling { closing: true, select, .. } => match id {
                Some(MethodId::CHANNEL_CLOSE_OK) => {
                    cx.link.out.upstream.push(channel_method(self.id, ChannelMethod::Open(Open {})));
                    return Ok(());
                }
                // Both have closed: its answer to ours still comes, and is not the client's.
                Some(MethodId::CHANNEL_CLOSE) => {
                    cx.link.out.upstream.push(close_ok(self.id));
                    let client_done = self.drop_backlog();
                    self.pass_close(frame, cx);
                    if client_done {
                        self.answer_closes(cx);
                    }
                    let until = cx.now;
                    self.state =
                        State::Refused { until, told_upstream: true, client_done, upstream_done: false };
                    return self.advance(cx);
                }
                Some(MethodId::CHANNEL_OPEN_OK) => {
                    cx.link.out.upstream.forward(select.view());
                    self.state = State::Open;
                    self.publisher.restart_with_tx();
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
        self.recv_upstream_for_client(kind, id, frame, cx)?;
        self.advance(cx)
    }

    /// Deliveries that stand whole in `frames`, the first of them at `whole`: they go to the client as they are. Whether
    /// they may be taken so.
    pub(in crate::session) fn recv_deliveries(
        &mut self,
        whole: Whole,
        inbound: &mut Inbound,
        frames: &Bytes,
        cx: &mut Cx<'_>,
    ) -> bool {
        let between = self.delivering == Delivering::Nothing && self.returning.is_none();
        if !between || self.refusal.is_some() || !matches!(self.state, State::Open) {
            return false;
        }
        self.flush(cx);
        let mut next = Some(whole);
        while let Some(whole) = next {
            cx.link.out.client.forward(whole.all(frames));
            inbound.skip(whole.places);
            next = inbound.whole(0, self.id, MethodId::BASIC_DELIVER);
        }
        true
    }

    pub(super) fn recv_upstream_for_client(
        &mut self,
        kind: FrameKind,
        id: Option<MethodId>,
        frame: View<'_>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        match id {
            Some(MethodId::BASIC_RETURN) if self.publisher.ledger().hears_returns() => {
                self.returning = Some(frame.piece());
                return Ok(());
            }
            Some(MethodId::TX_COMMIT_OK | MethodId::TX_ROLLBACK_OK) => {
                if self.publisher.recv_tx_ended(frame, cx) {
                    return Ok(());
                }
            }
            Some(MethodId::CHANNEL_CLOSE) => {
                let rest = self.publisher.left_to_forward();
                self.publisher.upstream_closed(Blame::of(frame.payload()).as_ref(), cx.now);
                let said_close = self.drop_backlog() || matches!(self.state, State::Settling { .. });
                self.flush(cx);
                self.publisher.ledger_mut().forget_client();
                match self.state {
                    // Both have closed: each hears of it and gets its answer, the client's from the upstream where it has
                    // been asked.
                    _ if said_close => {
                        cx.link.out.upstream.push(close_ok(self.id));
                        self.pass_close(frame, cx);
                        self.answer_closes(cx);
                        self.state = State::Gone;
                        return Ok(());
                    }
                    State::Closing => {
                        cx.link.out.upstream.push(close_ok(self.id));
                        self.pass_close(frame, cx);
                        return Ok(());
                    }
                    State::Open
                    | State::Settling { .. }
                    | State::UpstreamClosed { .. }
                    | State::Refused { .. }
                    | State::Recycling { .. }
                    | State::Gone => {
                        self.pass_close(frame, cx);
                        self.state = State::UpstreamClosed { rest };
                        return Ok(());
                    }
                }
            }
            Some(MethodId::CHANNEL_CLOSE_OK) => {
                self.publisher.upstream_closed(None, cx.now);
                self.flush(cx);
                self.answer_closes(cx);
                self.state = State::Gone;
                return Ok(());
            }
            Some(MethodId::BASIC_CONSUME_OK) => self.note_consume_ok(frame, cx),
            Some(MethodId::BASIC_CANCEL) => self.note_cancel(frame),
            Some(_) | None => {}
        }
        if self.publisher.ledger_mut().delays(kind, id, frame) {
            return Ok(());
        }
        if id == Some(MethodId::CONFIRM_SELECT_OK) {
            cx.link.out.client.forward(frame);
            self.selecting = false;
            return Ok(());
        }
        self.flush(cx);
        if kind == FrameKind::Header
            && let Some(returned) = self.returning.take()
        {
            self.pass_return(&returned, frame, cx);
        }
        cx.link.out.client.forward(frame);
        self.delivering = self.delivering.after(kind, id, frame);
        Ok(())
    }

    /// The upstream's `channel.close` goes to the client, which owes an answer then.
    fn pass_close(&mut self, close: View<'_>, cx: &mut Cx<'_>) {
        cx.link.out.client.forward(close);
        self.owes_close_ok = true;
    }

    /// As often as the client has said `channel.close`.
    fn answer_closes(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..=std::mem::take(&mut self.closes_again) {
            cx.link.out.client.push(close_ok(self.id));
        }
    }

    /// A return goes to the client under the exchange that the client had named.
    pub(super) fn pass_return(&mut self, returned: &Piece, header: View<'_>, cx: &mut Cx<'_>) {
        let named = match Return::parse(returned.view().payload()) {
            Ok(fields) => self.publisher.recv_return(&fields, header, cx),
            Err(_) => None,
        };
        match named.and_then(|named| emit::return_from(self.id, returned.view().payload(), &named).ok()) {
            Some(frame) => cx.link.out.client.push(frame),
            None => cx.link.out.client.forward(returned.view()),
        }
    }
}
