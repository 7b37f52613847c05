//! The session: two sides, their channels, and how they end.
//!
//! ```text
//!   client:    Greeting --header--> Live --close--> SaidClose --close-ok--> Gone
//!                                     \---Hapax says close--> Told --close-ok--> Gone
//!   upstream:  Unborn --dial--> Dialing --> Live --Hapax or client says close--> Closing --close-ok, eof--> Gone
//!                                             \--upstream says close--> SaidClose --close-ok--> Gone
//! ```
//!
//! The sides end apart: when the client is gone, the upstream is kept (an [`Ending`] with a deadline) until the outcome of
//! everything that was sent is known.

use super::channel::Channel;
use super::cx::{Cx, Finder, Tickets};
use super::fault::Fault;
use super::handshake::{Handshake, Step};
use super::inbound::{Inbound, Next};
use super::liveness::{Beat, Clock};
use super::outbox::{Outbox, Piece};
use super::probe::{self, Probes};
use super::rights::OwnRights;
use super::{Output, Shared};
use crate::wire::frame::{FrameKind, PROTOCOL_HEADER};
use crate::wire::method::MethodId;
use crate::wire::{ChannelId, emit};
use crate::window::Mailbox;
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::{AMQPMethod as ConnectionMethod, Close, CloseOk};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Tells connections apart where their credentials do not.
static SERIAL: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Client {
    Greeting,
    Live,
    SaidClose,
    Told { until: Instant },
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Upstream {
    Unborn,
    Dialing,
    Live,
    SaidClose { until: Instant },
    Closing { until: Instant },
    Gone,
}

/// Why the upstream connection is about to be let go, once everything is settled.
#[derive(Debug)]
enum Why {
    /// The client's `connection.close`, to be passed on.
    ClientClose(Piece),
    ClientGone,
    Drain,
}

#[derive(Debug)]
struct Ending {
    why: Why,
    until: Instant,
}

/// One client connection and its upstream connection.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    serial: u64,
    client: Client,
    upstream: Upstream,
    ending: Option<Ending>,
    handshake: Handshake,
    handshake_until: Instant,
    channels: HashMap<ChannelId, Channel>,
    births: u64,
    inbound: Inbound,
    /// The client's socket has ended; what it sent before is still looked at first.
    client_eof: bool,
    draining: bool,
    out: Outbox,
    rights: OwnRights,
    probes: Probes,
    finder: Finder,
    tickets: Tickets,
    client_clock: Clock,
    upstream_clock: Clock,
    unresolved: usize,
    held: usize,
    /// Channels that have answers for the client.
    due: BTreeSet<ChannelId>,
    /// Channels that wait for a time.
    timed: BTreeSet<ChannelId>,
}

impl Session {
    /// For a client that has just connected.
    pub fn new(shared: Arc<Shared>, now: Instant) -> Session {
        let settings = shared.settings;
        Session {
            mailbox: Arc::new(Mailbox::new()),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            client: Client::Greeting,
            upstream: Upstream::Unborn,
            ending: None,
            handshake: Handshake::new(settings.frame_max),
            handshake_until: now + settings.handshake_timeout,
            channels: HashMap::new(),
            births: 0,
            inbound: Inbound::default(),
            client_eof: false,
            draining: false,
            out: Outbox::default(),
            rights: OwnRights::new(now),
            probes: Probes::default(),
            finder: Finder::default(),
            tickets: Tickets::default(),
            client_clock: Clock::new(now),
            upstream_clock: Clock::new(now),
            unresolved: 0,
            held: 0,
            due: BTreeSet::new(),
            timed: BTreeSet::new(),
            shared,
        }
    }

    // ---- getters -------------------------------------------------------------------------------------------------

    /// Where late verdicts for this session come; the shell registers its waker there.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Whether bytes from the client are wanted now.
    pub fn wants_client(&self) -> bool {
        match self.client {
            Client::Greeting | Client::SaidClose | Client::Told { .. } => true,
            Client::Gone => false,
            Client::Live => {
                matches!(self.upstream, Upstream::Live | Upstream::SaidClose { .. })
                    && !self.draining
                    && self.unresolved < self.shared.settings.max_unresolved
                    && self.held <= self.shared.settings.held_bytes
                    && !self.next_is_blocked()
            }
        }
    }

    /// Both sides are closed and nothing is left.
    pub fn is_over(&self) -> bool {
        self.client == Client::Gone && matches!(self.upstream, Upstream::Unborn | Upstream::Gone)
    }

    /// Publishes whose outcome is unknown: forwarded and unanswered, or waiting.
    pub fn unresolved(&self) -> usize {
        self.unresolved
    }

    /// Bytes held for waiting publishes.
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// The user's vhost, once known.
    pub fn vhost(&self) -> Option<&Bytes> {
        self.handshake.vhost()
    }

    /// The client opens a channel whose number is Hapax's own for a moment.
    fn next_is_blocked(&self) -> bool {
        let Some((_, channel)) = self.inbound.peek() else { return false };
        self.probes.channel() == Some(channel)
            || self.channels.get(&channel).is_some_and(Channel::is_free_for_client)
    }

    // ---- from the world ------------------------------------------------------------------------------------------

    /// Bytes from the client. Whole frames are taken out of `buf`; the beginning of a frame stays in it, and so does
    /// everything while [`Session::wants_client`] is false. Call again when that turns true and `buf` is not empty.
    pub fn handle_client(&mut self, buf: &mut BytesMut, now: Instant) {
        self.client_clock.heard(now);
        if self.client == Client::Greeting {
            self.greet(buf);
        }
        while self.wants_client() && self.client != Client::Greeting {
            let one = !self.handshake.opened();
            if !self.inbound.refill(buf, self.handshake.client_limit(), one) {
                break;
            }
            self.pump_inbound(now);
        }
        if self.client == Client::Gone {
            buf.clear();
        }
        self.settle_down(now);
    }

    /// Bytes from the upstream, likewise (it never pauses by itself).
    pub fn handle_upstream(&mut self, buf: &mut BytesMut, now: Instant) {
        self.upstream_clock.heard(now);
        let mut inbound = Inbound::default();
        while matches!(self.upstream, Upstream::Live | Upstream::Closing { .. })
            && inbound.refill(buf, self.handshake.upstream_limit(), !self.handshake.opened())
        {
            match inbound.next() {
                Ok(Some(next)) => self.recv_upstream(next, now),
                Ok(None) => {}
                Err(_) => self.upstream_lost(now),
            }
        }
        if matches!(self.upstream, Upstream::Gone | Upstream::SaidClose { .. }) {
            buf.clear();
        }
        self.settle_down(now);
    }

    /// The upstream connection is open (answers [`Output::Dial`]).
    pub fn handle_upstream_open(&mut self, now: Instant) {
        if self.upstream == Upstream::Dialing {
            self.upstream = Upstream::Live;
            self.upstream_clock.heard(now);
            self.out.upstream.push(Bytes::from_static(&PROTOCOL_HEADER));
        }
        self.settle_down(now);
    }

    /// The client's socket is at its end or broken.
    pub fn handle_client_eof(&mut self, now: Instant) {
        self.client_eof = true;
        self.settle_down(now);
    }

    /// The upstream's socket is at its end or broken, or could not be opened.
    pub fn handle_upstream_eof(&mut self, now: Instant) {
        self.upstream_lost(now);
        self.settle_down(now);
    }

    /// There is mail in [`Session::mailbox`].
    pub fn handle_mail(&mut self, now: Instant) {
        self.settle_down(now);
    }

    /// [`Session::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.handshake.opened() && now >= self.handshake_until && !self.is_over() {
            self.hang_up(now);
        }
        match self.client_clock.check(now) {
            Beat::Quiet => {}
            Beat::Send => self.out.beat_client(),
            Beat::Dead => self.client_lost(now),
        }
        match self.upstream_clock.check(now) {
            Beat::Quiet => {}
            Beat::Send => self.out.beat_upstream(),
            Beat::Dead => self.upstream_lost(now),
        }
        if self.probes.deadline().is_some_and(|until| now >= until)
            && let Some(answer) = self.probes.expire()
        {
            self.probed(answer, now);
        }
        for id in self.timed.clone() {
            self.on_channel(id, now, |channel, cx| channel.handle_timeout(cx));
        }
        if matches!(self.client, Client::Told { until } if now >= until) {
            self.client_lost(now);
        }
        if matches!(self.upstream, Upstream::Closing { until } | Upstream::SaidClose { until } if now >= until) {
            self.hang_up(now);
        }
        self.settle_down(now);
    }

    /// The process is to end: settle what is in flight, then close the client with 320.
    pub fn handle_drain(&mut self, now: Instant) {
        self.draining = true;
        if !self.handshake.opened() || self.upstream != Upstream::Live {
            if self.upstream == Upstream::Unborn || !self.handshake.opened() {
                self.hang_up(now);
            }
        } else if self.ending.is_none() && self.client == Client::Live {
            self.ending = Some(Ending { why: Why::Drain, until: now + self.shared.settings.linger });
        }
        self.settle_down(now);
    }

    /// The shell has stopped, or begun again, to read from the client: its buffers are full, or have room.
    pub fn handle_reading_client(&mut self, reading: bool, now: Instant) {
        self.client_clock.set_listening(reading, now);
    }

    /// The same for the upstream.
    pub fn handle_reading_upstream(&mut self, reading: bool, now: Instant) {
        self.upstream_clock.set_listening(reading, now);
    }

    // ---- to the world --------------------------------------------------------------------------------------------

    /// The next thing to do, `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.poll()
    }

    /// When [`Session::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let handshake = (!self.handshake.opened()).then_some(self.handshake_until);
        let client = match self.client {
            Client::Told { until } => Some(until),
            Client::Greeting | Client::Live | Client::SaidClose | Client::Gone => None,
        };
        let upstream = match self.upstream {
            Upstream::Closing { until } | Upstream::SaidClose { until } => Some(until),
            Upstream::Unborn | Upstream::Dialing | Upstream::Live | Upstream::Gone => None,
        };
        [
            handshake,
            client,
            upstream,
            self.ending.as_ref().map(|ending| ending.until),
            self.client_clock.deadline(),
            self.upstream_clock.deadline(),
            self.probes.deadline(),
        ]
        .into_iter()
        .flatten()
        .chain(self.timed.iter().filter_map(|id| self.channels.get(id)?.deadline()))
        .min()
    }

    // ---- the client ----------------------------------------------------------------------------------------------

    fn greet(&mut self, buf: &mut BytesMut) {
        let Some(header) = buf.get(..PROTOCOL_HEADER.len()) else { return };
        if header == PROTOCOL_HEADER {
            let _ = buf.split_to(PROTOCOL_HEADER.len());
            self.client = Client::Live;
            self.upstream = Upstream::Dialing;
            self.out.dial();
        } else {
            // As a server answers what it does not speak: the version that it does, and the end.
            self.out.client.push(Bytes::from_static(&PROTOCOL_HEADER));
            self.out.close_client();
            self.client = Client::Gone;
        }
    }

    fn pump_inbound(&mut self, now: Instant) {
        while self.wants_client() && !self.inbound.is_empty() {
            match self.inbound.next() {
                Ok(Some(next)) => self.recv_client(next, now),
                Ok(None) => {}
                Err(error) => self.fail(&Fault::Wire(error), now),
            }
        }
    }

    fn recv_client(&mut self, next: Next, now: Instant) {
        let Next { kind, channel, piece } = next;
        if kind == FrameKind::Heartbeat || self.client == Client::Gone {
            return;
        }
        if channel == ChannelId::CONNECTION {
            return self.recv_client_connection(kind, &piece, now);
        }
        if self.client != Client::Live || self.upstream != Upstream::Live {
            return;
        }
        let is_open = kind == FrameKind::Method && MethodId::of(piece.payload()) == Ok(MethodId::CHANNEL_OPEN);
        if is_open {
            self.on_channel(channel, now, |channel, cx| {
                channel.reopen(cx);
                Ok(())
            });
            if !self.channels.contains_key(&channel) && channel.0 <= self.handshake.channel_max() {
                self.births += 1;
                self.channels.insert(channel, Channel::new(channel, self.births));
                self.out.upstream.forward(&piece);
                return;
            }
        }
        let whole = self.inbound.peek() == Some((FrameKind::Header, channel));
        if !self.on_channel(channel, now, |channel, cx| channel.recv_client(kind, &piece, whole, cx)) {
            // Not open: the broker says so. An answer to a close that crossed another is nobody's business.
            if MethodId::of(piece.payload()) != Ok(MethodId::CHANNEL_CLOSE_OK) || kind != FrameKind::Method {
                self.out.upstream.forward(&piece);
            }
        }
    }

    fn recv_client_connection(&mut self, kind: FrameKind, piece: &Piece, now: Instant) {
        let step = match kind {
            FrameKind::Method => emit::parse_method(piece.payload()).map(|method| self.handshake.recv_client(method)),
            FrameKind::Header | FrameKind::Body | FrameKind::Heartbeat => None,
        };
        match (self.client, step.unwrap_or(Step::Pass)) {
            (Client::Told { .. }, Step::CloseOk) => self.client_lost(now),
            (Client::Told { .. }, Step::Close) => {
                self.out.client.push(connection_close_ok());
                self.client_lost(now);
            }
            (Client::Told { .. } | Client::Gone | Client::Greeting, _) => {}
            (Client::Live | Client::SaidClose, Step::CloseOk) => {
                self.out.upstream.forward(piece);
                self.hang_up(now);
            }
            (Client::SaidClose, _) => {}
            (Client::Live, Step::Close) => {
                self.client = Client::SaidClose;
                self.client_clock.stop();
                let ending = Ending { why: Why::ClientClose(piece.compact()), until: now + self.shared.settings.linger };
                if self.upstream == Upstream::Live {
                    self.ending = Some(ending);
                    self.each_channel(now, |channel, cx| channel.finish(cx));
                } else {
                    self.out.client.push(connection_close_ok());
                    self.hang_up(now);
                }
            }
            (Client::Live, Step::Tuned(seconds)) => {
                self.out.upstream.forward(piece);
                self.client_clock.set_interval(seconds, now);
                self.upstream_clock.set_interval(seconds, now);
            }
            (Client::Live, Step::Identified) => {
                self.out.upstream.forward(piece);
                self.finder.set_vhost(self.handshake.vhost());
                self.rights.set_identity(self.handshake.identity(self.serial));
            }
            (Client::Live, Step::Instead(_) | Step::Opened | Step::Pass) => self.out.upstream.forward(piece),
        }
    }

    /// The client is gone, or will be told nothing more. The upstream stays until everything is settled.
    fn client_lost(&mut self, now: Instant) {
        if self.client == Client::Gone {
            return;
        }
        let told = matches!(self.client, Client::Told { .. });
        self.client = Client::Gone;
        self.client_clock.stop();
        self.inbound.clear();
        if !told {
            self.out.client.abandon();
        }
        self.out.close_client();
        self.leave_upstream(now);
    }

    /// The client has broken the rules.
    fn fail(&mut self, fault: &Fault, now: Instant) {
        if self.client != Client::Live {
            return self.client_lost(now);
        }
        self.flush(now);
        self.inbound.clear();
        if !self.handshake.opened() && self.upstream != Upstream::Live {
            return self.hang_up(now);
        }
        self.tell_client(fault, now);
        self.leave_upstream(now);
    }

    fn tell_client(&mut self, fault: &Fault, now: Instant) {
        let culprit = fault.culprit();
        let close = Close {
            reply_code: fault.code(),
            reply_text: fault.text().into(),
            class_id: culprit.0,
            method_id: culprit.1,
        };
        self.out.client.push(connection_method(ConnectionMethod::Close(close)));
        self.client = Client::Told { until: now + self.shared.settings.handshake_timeout };
        self.client_clock.stop();
    }

    /// Lets the upstream go as soon as everything is settled.
    fn leave_upstream(&mut self, now: Instant) {
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

    // ---- the upstream --------------------------------------------------------------------------------------------

    fn recv_upstream(&mut self, next: Next, now: Instant) {
        let Next { kind, channel, piece } = next;
        if kind == FrameKind::Heartbeat {
            return;
        }
        if channel == ChannelId::CONNECTION {
            return self.recv_upstream_connection(kind, &piece, now);
        }
        if self.probes.channel() == Some(channel) {
            if kind == FrameKind::Method
                && let Some(answer) = self.probes.recv(piece.payload(), &mut self.out.upstream)
            {
                self.probed(answer, now);
            }
            return;
        }
        if !self.on_channel(channel, now, |channel, cx| channel.recv_upstream(kind, &piece, cx)) {
            self.out.client.forward(&piece);
        }
    }

    fn recv_upstream_connection(&mut self, kind: FrameKind, piece: &Piece, now: Instant) {
        let step = match kind {
            FrameKind::Method => emit::parse_method(piece.payload()).map(|method| self.handshake.recv_upstream(method)),
            FrameKind::Header | FrameKind::Body | FrameKind::Heartbeat => None,
        };
        match step.unwrap_or(Step::Pass) {
            Step::Instead(frame) => self.out.client.push(frame),
            Step::Close => self.upstream_says_close(piece, now),
            Step::CloseOk => {
                if self.client == Client::SaidClose {
                    self.flush(now);
                    self.out.client.forward(piece);
                    self.hang_up(now);
                } else {
                    self.drop_upstream(now);
                }
            }
            Step::Opened | Step::Pass | Step::Tuned(_) | Step::Identified => {
                if !matches!(self.client, Client::Told { .. }) {
                    self.out.client.forward(piece);
                }
            }
        }
    }

    fn upstream_says_close(&mut self, piece: &Piece, now: Instant) {
        self.flush(now);
        match self.client {
            Client::Live => {
                self.out.client.forward(piece);
                self.lose_channels(now);
                self.upstream = Upstream::SaidClose { until: now + self.shared.settings.handshake_timeout };
            }
            Client::SaidClose => {
                self.out.client.push(connection_close_ok());
                self.out.upstream.push(connection_close_ok());
                self.hang_up(now);
            }
            Client::Told { .. } | Client::Gone | Client::Greeting => {
                self.out.upstream.push(connection_close_ok());
                self.drop_upstream(now);
            }
        }
    }

    /// The upstream's socket has ended.
    fn upstream_lost(&mut self, now: Instant) {
        if self.upstream == Upstream::Gone {
            return;
        }
        let expected = matches!(self.upstream, Upstream::SaidClose { .. });
        self.flush(now);
        self.drop_upstream(now);
        match self.client {
            Client::Live if self.handshake.opened() && !expected => self.tell_client(&Fault::UpstreamLost, now),
            Client::SaidClose => {
                self.out.client.push(connection_close_ok());
                self.hang_up(now);
            }
            Client::Live | Client::Greeting => self.hang_up(now),
            Client::Told { .. } | Client::Gone => {}
        }
    }

    fn drop_upstream(&mut self, now: Instant) {
        self.lose_channels(now);
        self.ending = None;
        self.upstream_clock.stop();
        self.out.close_upstream();
        self.upstream = Upstream::Gone;
    }

    /// What the upstream has not answered is in doubt now.
    fn lose_channels(&mut self, now: Instant) {
        for channel in self.channels.values_mut() {
            channel.upstream_lost(now);
        }
        self.channels.clear();
        self.due.clear();
        self.timed.clear();
        self.unresolved = 0;
        self.held = 0;
    }

    /// Closes both sides; what was said before is still written.
    fn hang_up(&mut self, now: Instant) {
        self.drop_upstream(now);
        self.client = Client::Gone;
        self.client_clock.stop();
        self.inbound.clear();
        self.out.close_client();
    }

    // ---- what comes to pass --------------------------------------------------------------------------------------

    /// Everything that an event has made possible.
    fn settle_down(&mut self, now: Instant) {
        loop {
            let mail = self.mailbox.take();
            if mail.is_empty() {
                break;
            }
            for (ticket, verdict) in mail {
                let id = Tickets::channel(ticket);
                self.on_channel(id, now, |channel, cx| channel.recv_verdict(ticket, verdict, cx));
            }
            self.pump_inbound(now);
        }
        self.pump_inbound(now);
        if self.client_eof && (self.inbound.is_empty() || self.ending.is_some() || self.upstream != Upstream::Live) {
            self.client_eof = false;
            self.client_lost(now);
        }
        self.start_probe(now);
        self.end_if_settled(now);
        self.flush(now);
        if self.out.client.take_wrote() {
            self.client_clock.sent(now);
        }
        if self.out.upstream.take_wrote() {
            self.upstream_clock.sent(now);
        }
    }

    fn end_if_settled(&mut self, now: Instant) {
        let Some(until) = self.ending.as_ref().map(|ending| ending.until) else { return };
        if now < until && !self.channels.values().all(Channel::is_settled) {
            return;
        }
        let Some(ending) = self.ending.take() else { return };
        self.flush(now);
        let patience = self.shared.settings.handshake_timeout;
        match ending.why {
            Why::ClientClose(close) => {
                self.out.upstream.forward(&close);
                self.upstream = Upstream::Closing { until: now + patience };
            }
            Why::ClientGone => self.drop_upstream(now),
            Why::Drain => {
                self.tell_client(&Fault::Draining, now);
                let text = "hapax is shutting down".into();
                let close = Close { reply_code: 200, reply_text: text, class_id: 0, method_id: 0 };
                self.out.upstream.push(connection_method(ConnectionMethod::Close(close)));
                self.upstream = Upstream::Closing { until: now + patience };
            }
        }
    }

    fn start_probe(&mut self, now: Instant) {
        while self.probes.wants_channel() && self.upstream == Upstream::Live {
            let highest = self.handshake.channel_max();
            let free = (1..=highest).rev().map(ChannelId).find(|id| !self.channels.contains_key(id));
            let patience = self.shared.settings.handshake_timeout;
            match self.probes.start(free, patience, &mut self.out.upstream, now) {
                Some(answer) => self.probed(answer, now),
                None => break,
            }
        }
    }

    /// The broker has said whether this user may publish somewhere.
    fn probed(&mut self, answer: probe::Answer, now: Instant) {
        let probe::Answer { right, askers, refused } = answer;
        if refused.is_none() {
            self.rights.learn(&self.shared.rights, right, now);
        }
        for asker in askers {
            let refused = refused.clone();
            self.on_channel(asker.channel, now, |channel, cx| {
                if channel.birth() != asker.birth {
                    return Ok(());
                }
                match refused {
                    Some(fault) => channel.refuse(fault, cx),
                    None => {
                        channel.verified(asker.client);
                        Ok(())
                    }
                }
            });
        }
    }

    fn flush(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.due) {
            self.on_channel(id, now, |channel, cx| {
                channel.flush(cx);
                Ok(())
            });
        }
    }

    fn each_channel(&mut self, now: Instant, event: impl Fn(&mut Channel, &mut Cx<'_>) -> Result<(), Fault>) {
        let ids: Vec<ChannelId> = self.channels.keys().copied().collect();
        for id in ids {
            self.on_channel(id, now, &event);
        }
    }

    /// Tells a channel of an event, refuses what it refuses, and keeps the books. Whether there is such a channel.
    fn on_channel(
        &mut self,
        id: ChannelId,
        now: Instant,
        event: impl FnOnce(&mut Channel, &mut Cx<'_>) -> Result<(), Fault>,
    ) -> bool {
        let Some(channel) = self.channels.get_mut(&id) else { return false };
        self.unresolved -= channel.unresolved();
        self.held -= channel.held();
        let mut cx = Cx {
            shared: &self.shared,
            mailbox: &self.mailbox,
            out: &mut self.out,
            rights: &mut self.rights,
            probes: &mut self.probes,
            finder: &mut self.finder,
            tickets: &mut self.tickets,
            held_elsewhere: self.held,
            now,
        };
        let result = event(channel, &mut cx).or_else(|fault| channel.refuse(fault, &mut cx));
        self.unresolved += channel.unresolved();
        self.held += channel.held();
        if channel.is_due() {
            self.due.insert(id);
        }
        if channel.deadline().is_some() {
            self.timed.insert(id);
        } else if !self.timed.is_empty() {
            self.timed.remove(&id);
        }
        if channel.is_gone() {
            self.unresolved -= channel.unresolved();
            self.held -= channel.held();
            self.channels.remove(&id);
            self.due.remove(&id);
            self.timed.remove(&id);
        }
        if let Err(fault) = result {
            self.fail(&fault, now);
        }
        true
    }
}

fn connection_method(method: ConnectionMethod) -> Bytes {
    emit::method(ChannelId::CONNECTION, AMQPClass::Connection(method))
}

fn connection_close_ok() -> Bytes {
    connection_method(ConnectionMethod::CloseOk(CloseOk {}))
}
