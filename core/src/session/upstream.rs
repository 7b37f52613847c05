//! The [`Session`]'s upstream side: its frames, its close, its loss.

use super::Shared;
use super::connection::{Client, Session, Upstream, connection_close_ok};
use super::fault::Fault;
use super::handshake::Step;
use super::inbound::{Inbound, Place};
use super::outbox::View;
use crate::wire::frame::FrameKind;
use crate::wire::method::MethodId;
use crate::wire::{ChannelId, emit};
use bytes::Bytes;
use std::time::Instant;

/// What RabbitMQ closes a connection with that opens more channels than its user may (`max-channels`).
const NOT_ALLOWED: u16 = 530;

/// Of a `connection.close`.
fn reply_code(frame: View<'_>) -> Option<u16> {
    frame.payload().get(4..)?.first_chunk().map(|code| u16::from_be_bytes(*code))
}

impl Session {
    /// Deliveries that stand whole in the read and come next. Whether there were any.
    pub(super) fn recv_deliveries(&mut self, inbound: &mut Inbound, frames: &Bytes, now: Instant) -> bool {
        let Some(channel) = inbound.peek().map(|next| next.channel) else { return false };
        let Some(whole) = inbound.whole(0, channel, MethodId::BASIC_DELIVER) else { return false };
        let mut passed = false;
        self.on_channel(channel, now, |channel, cx| {
            passed = channel.recv_deliveries(whole, inbound, frames, cx);
            Ok(())
        });
        passed
    }

    pub(super) fn recv_upstream(&mut self, next: Place, frame: View<'_>, now: Instant) {
        let Place { kind, channel, .. } = next;
        if kind == FrameKind::Heartbeat {
            return;
        }
        if channel == ChannelId::CONNECTION {
            return self.recv_upstream_connection(kind, frame, now);
        }
        if self.link.probes.channel() == Some(channel) {
            if kind == FrameKind::Method {
                let answers = self.link.probes.recv(frame.payload(), &mut self.link.out.upstream);
                self.probed(answers, now);
            }
            return;
        }
        if !self.on_channel(channel, now, |channel, cx| channel.recv_upstream(kind, frame, cx)) {
            self.link.out.client.forward(frame);
        }
    }

    pub(super) fn recv_upstream_connection(&mut self, kind: FrameKind, frame: View<'_>, now: Instant) {
        let step = match kind {
            FrameKind::Method => {
                emit::parse_method(frame.payload()).map(|method| self.handshake.recv_upstream(method))
            }
            FrameKind::Header | FrameKind::Body | FrameKind::Heartbeat => None,
        };
        match step.unwrap_or(Step::Pass) {
            Step::Instead(frame) => self.link.out.client.push(frame),
            Step::Close => self.upstream_says_close(frame, now),
            Step::CloseOk => {
                if self.client == Client::SaidClose {
                    self.flush(now);
                    self.link.out.client.forward(frame);
                    self.hang_up(now);
                } else {
                    self.drop_upstream(now);
                }
            }
            step @ (Step::Opened | Step::Pass | Step::Tuned { .. } | Step::Identified) => {
                if step == Step::Opened {
                    self.identify();
                }
                if !matches!(self.client, Client::Told { .. }) {
                    self.link.out.client.forward(frame);
                }
            }
        }
    }

    pub(super) fn upstream_says_close(&mut self, frame: View<'_>, now: Instant) {
        self.flush(now);
        match self.client {
            Client::Live if self.link.probes.is_opening() && reply_code(frame) == Some(NOT_ALLOWED) => {
                let Shared { rights, keys, .. } = &*self.shared;
                self.link.rights.learn_limited(rights, keys, now);
                self.link.out.upstream.answer_close(connection_close_ok());
                self.drop_upstream(now);
                self.tell_client(&Fault::ChannelLimit, now);
            }
            Client::Live => {
                self.link.out.client.forward(frame);
                self.link.out.client.conclude();
                self.lose_channels(now);
                self.upstream = Upstream::SaidClose { until: now + self.shared.settings.handshake_timeout };
            }
            Client::SaidClose => {
                self.link.out.client.answer_close(connection_close_ok());
                self.link.out.upstream.answer_close(connection_close_ok());
                self.hang_up(now);
            }
            Client::Told { .. } | Client::Gone | Client::Greeting => {
                self.link.out.upstream.answer_close(connection_close_ok());
                self.drop_upstream(now);
            }
        }
    }

    /// The upstream's socket has ended, or the upstream has been silent for too long. What waits to be written to it is dropped:
    /// it is in doubt from here on, and must not be stored after that.
    pub(super) fn upstream_lost(&mut self, now: Instant) {
        if self.upstream == Upstream::Gone {
            return;
        }
        let expected = matches!(self.upstream, Upstream::SaidClose { .. });
        self.flush(now);
        self.let_go_of_upstream(now);
        self.link.out.cut_upstream();
        match self.client {
            Client::Live if self.handshake.opened() && !expected => {
                self.tell_client(&Fault::UpstreamLost, now);
            }
            Client::SaidClose => {
                self.link.out.client.answer_close(connection_close_ok());
                self.hang_up(now);
            }
            Client::Live | Client::Greeting => self.hang_up(now),
            Client::Told { .. } | Client::Gone => {}
        }
    }

    /// Closes the upstream's socket as soon as all that was said to it is written.
    pub(super) fn drop_upstream(&mut self, now: Instant) {
        if self.upstream != Upstream::Gone {
            self.link.out.close_upstream();
        }
        self.let_go_of_upstream(now);
    }

    fn let_go_of_upstream(&mut self, now: Instant) {
        self.lose_channels(now);
        self.ending = None;
        self.upstream_clock.stop();
        self.upstream = Upstream::Gone;
    }

    /// What the upstream has not answered is in doubt now.
    pub(super) fn lose_channels(&mut self, now: Instant) {
        for channel in self.channels.values_mut() {
            channel.upstream_lost(now);
        }
        self.channels.clear();
        self.due.clear();
        self.ready.clear();
        self.unremembered.clear();
        self.owed.clear();
        self.timed.clear();
        self.unresolved = 0;
        self.held = 0;
        self.memory = 0;
        self.stuck = 0;
    }

    /// Closes both sides; what was said before is still written.
    pub(super) fn hang_up(&mut self, now: Instant) {
        self.drop_upstream(now);
        self.client = Client::Gone;
        self.client_clock.stop();
        self.link.inbound.clear();
        self.link.out.close_client();
    }
}
