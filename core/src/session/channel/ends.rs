//! How a [`Channel`] ends: refused by Hapax, finished or abandoned by its client, lost by its upstream.

use super::*;

impl Channel {
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
            cx.link.out.client.push(close_ok(self.id));
        } else {
            cx.link.out.client.push(close(self.id, fault.code(), &fault.text(), fault.culprit()));
            self.owes_close_ok = true;
        }
        self.publisher.ledger_mut().forget_client();
        self.publisher.client_done();
        self.publisher.refused();
        let until = cx.now + cx.shared.settings.linger;
        self.state = State::Refused { until, told_upstream, client_done, upstream_done: false };
        if !told_upstream && !self.is_settled() {
            self.cancel_consumers(cx);
        }
        self.advance(cx)
    }

    /// Gives up what only the client could end: its process is short of memory.
    pub(in crate::session) fn relieve(&mut self) -> Result<(), Fault> {
        let scope = if self.publisher.is_forwarding() { Scope::Connection } else { Scope::Channel };
        Err(Fault::MemoryShort { held: self.booked.stuck, scope })
    }

    /// Writes the answers that are due.
    pub(in crate::session) fn flush(&mut self, cx: &mut Cx<'_>) {
        if self.publisher.ledger().is_due() && self.delivering == Delivering::Nothing && !self.selecting {
            match self.state {
                State::Open | State::Settling { .. } | State::Closing | State::Recycling { .. } => {
                    self.publisher.ledger_mut().flush(self.id, cx.link.out.client.made());
                    while let Some(reply) = self.publisher.ledger_mut().pop_reply() {
                        let frame = reply.view();
                        cx.link.out.client.forward(frame);
                        if let Some(kind) = frame.kind() {
                            self.delivering = self.delivering.after(kind, frame.method(kind), frame);
                        }
                    }
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
        self.publisher.ledger_mut().client_gone();
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
            cx.link.out.upstream.push(emit::method(self.id, AMQPClass::Basic(basic::AMQPMethod::Nack(nack))));
        }
        Ok(())
    }

    /// `connection.close` goes upstream: what waits will never go there, and is not in doubt. What waits for the proof of a
    /// right goes unjudged where its client would not hear that it was dropped: that would be to lose it.
    pub(in crate::session) fn end(&mut self, cx: &mut Cx<'_>) {
        let unheard = self.publisher.ledger().is_silent();
        while unheard && matches!(self.state, State::Open) && self.publisher.is_held() {
            // (The answers of what is given up are for those that end here, too.)
            drop(cx.link.probes.give_up());
            // What is faulty is not passed on, nor what comes after it.
            if self.recv_finding(Right::NONE, Finding::Unasked, cx).is_err() {
                break;
            }
        }
        self.publisher.abandon_waiting();
        self.drop_backlog();
    }

    /// The upstream connection is gone.
    pub(in crate::session) fn upstream_lost(&mut self, now: Instant) {
        self.publisher.upstream_closed(None, now);
        self.drop_backlog();
    }

    /// Drops the frames that wait. Returns true if the client's `channel.close` was among them.
    pub(super) fn drop_backlog(&mut self) -> bool {
        self.awaits_waiters = false;
        self.publisher.line_mut().drop_frames()
    }
}
