//! How a [`Channel`] ends: refused by Hapax, finished or abandoned by its client, lost by its upstream.

use super::*;

impl Channel {
    /// The user was found to have the right that the publish of `client` needed.
    pub(in crate::session) fn verified(
        &mut self,
        client: Option<crate::session::ClientTag>,
        cx: &mut Cx<'_>,
    ) -> Result<(), Fault> {
        self.publisher.verified(client);
        self.advance(cx)
    }

    /// Hapax closes the channel towards the client. Gives the fault back where it can't be confined to the channel.
    pub(in crate::session) fn refuse(&mut self, fault: Fault, cx: &mut Cx<'_>) -> Result<(), Fault> {
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
    pub(in crate::session) fn flush(&mut self, cx: &mut Cx<'_>) {
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
    pub(in crate::session) fn finish(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        self.client_gone = true;
        self.advance(cx)?;
        if !self.is_settled() && matches!(self.state, State::Open) {
            self.cancel_consumers(cx);
        }
        Ok(())
    }

    /// The client has vanished, or will be told nothing more: what it has sent whole is settled, all else ends at once.
    pub(in crate::session) fn abandon(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
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
    pub(in crate::session) fn end(&mut self) {
        self.publisher.abandon_waiting();
        self.drop_backlog();
    }

    /// The upstream connection is gone.
    pub(in crate::session) fn upstream_lost(&mut self, now: Instant) {
        self.publisher.upstream_closed(None, now);
        self.drop_backlog();
    }

    /// Whether the client's `channel.close` was in it.
    pub(super) fn drop_backlog(&mut self) -> bool {
        self.backlog_bytes = 0;
        self.awaits_waiters = false;
        let says_close = |frame: Piece| {
            frame.view().kind().and_then(|kind| frame.view().method(kind)) == Some(MethodId::CHANNEL_CLOSE)
        };
        self.backlog.drain(..).any(says_close)
    }
}
