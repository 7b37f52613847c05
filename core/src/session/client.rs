//! The [`Session`]'s client side: its greeting, its frames, its close, its disappearance.

use super::channel::Channel;
use super::connection::{Client, Ending, Session, Upstream, Why, connection_close_ok, connection_method};
use super::fault::Fault;
use super::handshake::Step;
use super::inbound::Place;
use super::outbox::View;
use crate::wire::frame::{FrameKind, PROTOCOL_HEADER, PROTOCOL_HEADER_0_9};
use crate::wire::method::MethodId;
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::connection::{AMQPMethod as ConnectionMethod, Close};
use bytes::{Bytes, BytesMut};
use std::time::Instant;

impl Session {
    pub(super) fn greet(&mut self, buf: &mut BytesMut) {
        let Some(header) = buf.get(..PROTOCOL_HEADER.len()) else { return };
        if header == PROTOCOL_HEADER || header == PROTOCOL_HEADER_0_9 {
            self.protocol_header = buf.split_to(PROTOCOL_HEADER.len()).freeze();
            self.client = Client::Live;
            self.upstream = Upstream::Dialing;
            self.link.out.dial();
        } else {
            // As a server answers what it does not speak: the version that it does, and the end.
            self.link.out.client.push(Bytes::from_static(&PROTOCOL_HEADER));
            self.link.out.close_client();
            self.client = Client::Gone;
        }
    }

    pub(super) fn pump_inbound(&mut self, now: Instant) {
        if self.link.inbound.is_empty() {
            return;
        }
        let frames = self.link.inbound.frames();
        while self.wants_client() && !self.link.inbound.is_empty() {
            if self.recv_publishes(&frames, now) {
                continue;
            }
            match self.link.inbound.next() {
                Ok(Some(next)) => self.recv_client(next, next.view(&frames), now),
                Ok(None) => {}
                Err(error) => self.fail(&Fault::Wire(error), now),
            }
        }
        self.link.inbound.release();
    }

    /// Publishes that stand whole in the read and come next. Whether there were any.
    fn recv_publishes(&mut self, frames: &Bytes, now: Instant) -> bool {
        let Some(next) = self.link.inbound.peek().filter(|next| next.kind == FrameKind::Method) else {
            return false;
        };
        if self.client != Client::Live || self.upstream != Upstream::Live {
            return false;
        }
        let (before, room) =
            (self.link.publishes, self.shared.settings.max_unresolved.saturating_sub(self.unresolved));
        self.on_channel(next.channel, now, |channel, cx| channel.recv_publishes(frames, room, cx));
        self.link.publishes != before
    }

    pub(super) fn recv_client(&mut self, next: Place, frame: View<'_>, now: Instant) {
        let Place { kind, channel, .. } = next;
        if self.client == Client::Gone || kind == FrameKind::Heartbeat && channel == ChannelId::CONNECTION {
            return;
        }
        if channel == ChannelId::CONNECTION {
            return self.recv_client_connection(kind, frame, now);
        }
        if self.client != Client::Live || self.upstream != Upstream::Live {
            return;
        }
        if !self.handshake.opened() {
            // Nobody has logged in: the broker refuses this, and nothing of it is looked at.
            self.link.out.upstream.forward(frame);
            return;
        }
        let method = frame.method(kind);
        self.link.publishes += u64::from(method == Some(MethodId::BASIC_PUBLISH));
        if method == Some(MethodId::CHANNEL_OPEN) {
            if self.opens_one_too_many(channel) {
                let (open, max) = (self.channels.len(), self.handshake.client_channel_max());
                return self.fail(&Fault::ChannelMax { open, max }, now);
            }
            if !self.channels.contains_key(&channel) {
                self.owed.remove(&channel);
                self.births += 1;
                self.channels.insert(channel, Box::new(Channel::new(channel, self.births)));
                // It is in the books from now on.
                self.on_channel(channel, now, |_, _| Ok(()));
                self.link.out.upstream.forward(frame);
                return;
            }
        }
        let then = self.link.inbound.peek().map(|then| (then.kind, then.channel));
        let whole = then == Some((FrameKind::Header, channel));
        if !self.on_channel(channel, now, |channel, cx| channel.recv_client(kind, frame, whole, cx)) {
            // Not open: the broker says so. Where both had closed, the upstream has had its answer from us.
            if method != Some(MethodId::CHANNEL_CLOSE_OK) || !self.owed.remove(&channel) {
                self.link.out.upstream.forward(frame);
            }
        }
    }

    pub(super) fn recv_client_connection(&mut self, kind: FrameKind, frame: View<'_>, now: Instant) {
        let step = match kind {
            FrameKind::Method => {
                emit::parse_method(frame.payload()).map(|method| self.handshake.recv_client(method))
            }
            FrameKind::Header | FrameKind::Body | FrameKind::Heartbeat => None,
        };
        match (self.client, step.unwrap_or(Step::Pass)) {
            (Client::Told { .. }, Step::CloseOk) => self.client_lost(now),
            (Client::Told { .. }, Step::Close) => {
                self.link.out.client.answer_close(connection_close_ok());
                self.client_lost(now);
            }
            (Client::Told { .. } | Client::Gone | Client::Greeting, _) => {}
            (Client::Live | Client::SaidClose, Step::CloseOk) => {
                self.link.out.upstream.forward(frame);
                self.hang_up(now);
            }
            (Client::SaidClose, _) => {}
            (Client::Live, Step::Close) => {
                self.client = Client::SaidClose;
                // It waits for close-ok, perhaps for as long as we linger: it must go on hearing us.
                self.client_clock.set_listening(false, now);
                let ending = Ending {
                    why: Why::ClientClose(frame.compact()),
                    until: now + self.shared.settings.linger,
                };
                if self.upstream == Upstream::Live {
                    self.ending = Some(ending);
                    self.each_channel(now, |channel, cx| channel.finish(cx));
                } else {
                    self.link.out.client.answer_close(connection_close_ok());
                    self.hang_up(now);
                }
            }
            (Client::Live, Step::Tuned { heartbeat: seconds, instead }) => {
                match instead {
                    Some(frame) => self.link.out.upstream.push(frame),
                    None => self.link.out.upstream.forward(frame),
                }
                self.client_clock.set_interval(seconds, now);
                self.upstream_clock.set_interval(seconds, now);
            }
            (Client::Live, Step::Identified) => {
                self.link.out.upstream.forward(frame);
                self.identify();
            }
            (Client::Live, Step::Instead(_) | Step::Opened | Step::Pass) => {
                self.link.out.upstream.forward(frame)
            }
        }
    }

    /// The broker has accepted the client as this user, at this vhost.
    pub(super) fn identify(&mut self) {
        self.link.rights.set_identity(self.handshake.identity(self.serial));
        // (After that: what it finds is of this identity.)
        self.link.finder.set_vhost(self.handshake.vhost());
    }

    /// The client is gone, or will be told nothing more. The upstream stays until everything is settled.
    pub(super) fn client_lost(&mut self, now: Instant) {
        if self.client == Client::Gone {
            return;
        }
        let told = matches!(self.client, Client::Told { .. });
        self.client = Client::Gone;
        self.client_clock.stop();
        self.link.inbound.clear();
        if !told {
            self.link.out.client.abandon();
        }
        self.link.out.close_client();
        self.leave_upstream(now);
    }

    /// The client has broken the rules.
    pub(super) fn fail(&mut self, fault: &Fault, now: Instant) {
        if self.client != Client::Live {
            return self.client_lost(now);
        }
        self.flush(now);
        self.link.inbound.clear();
        if !self.handshake.opened() && self.upstream != Upstream::Live {
            return self.hang_up(now);
        }
        self.tell_client(fault, now);
        self.leave_upstream(now);
    }

    pub(super) fn tell_client(&mut self, fault: &Fault, now: Instant) {
        let culprit = fault.culprit();
        let close = Close {
            reply_code: fault.code(),
            reply_text: fault.text().into(),
            class_id: culprit.0,
            method_id: culprit.1,
        };
        self.link.out.client.push(connection_method(ConnectionMethod::Close(close)));
        self.link.out.client.conclude();
        self.client = Client::Told { until: now + self.shared.settings.handshake_timeout };
        self.client_clock.stop();
    }

    /// Lets the upstream go as soon as everything is settled.
    pub(super) fn leave_upstream(&mut self, now: Instant) {
        match self.upstream {
            Upstream::Live => {
                self.ending = Some(Ending { why: Why::ClientGone, until: now + self.shared.settings.linger });
                if self.channels.values().any(|channel| !channel.is_settled()) {
                    self.each_channel(now, |channel, cx| channel.abandon(cx));
                }
            }
            Upstream::Unborn | Upstream::Dialing | Upstream::SaidClose { .. } | Upstream::Closing { .. } => {
                self.drop_upstream(now);
            }
            Upstream::Gone => {}
        }
    }
}
