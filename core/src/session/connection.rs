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

use super::about::About;
use super::channel::Channel;
use super::cx::{Cx, Link, Tickets};
use super::fault::{Fault, Scope};
use super::handshake::Handshake;
use super::inbound::Inbound;
use super::liveness::{Beat, Clock};
use super::outbox::Piece;
use super::probe::{Answer, Finding};
use super::timers::Timers;
use super::{Memory, Output, Phase, Shared};
use crate::window::{ForgetCause, Mailbox, Verdict};
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::{AMQPMethod as ConnectionMethod, Close, CloseOk};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Tells connections apart where their credentials do not.
static SERIAL: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Client {
    Greeting,
    Live,
    SaidClose,
    Told { until: Instant },
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Upstream {
    Unborn,
    Dialing,
    Live,
    SaidClose { until: Instant },
    Closing { until: Instant },
    Gone,
}

/// Why the upstream connection is about to be let go, once everything is settled.
#[derive(Debug)]
pub(super) enum Why {
    /// The client's `connection.close`, to be passed on.
    ClientClose(Piece),
    ClientGone,
    Drain,
}

#[derive(Debug)]
pub(super) struct Ending {
    pub(super) why: Why,
    pub(super) until: Instant,
}

/// Bytes that a session takes before its client has said anything, with what the shell has for it.
const IDLE: usize = 16 << 10;

/// One client connection and its upstream connection.
#[derive(Debug)]
pub struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) serial: u64,
    pub(super) client: Client,
    pub(super) upstream: Upstream,
    pub(super) ending: Option<Ending>,
    /// As the client has said it, until the upstream is there to hear it.
    pub(super) protocol_header: Bytes,
    pub(super) handshake: Handshake,
    pub(super) handshake_until: Instant,
    /// In the order of their numbers: what a session writes depends on nothing but what it was told. (In boxes: a node of the
    /// tree has room for eleven, and most connections have one channel.)
    pub(super) channels: BTreeMap<ChannelId, Box<Channel>>,
    pub(super) births: u64,
    /// The client's socket has ended; what it sent before is still looked at first.
    pub(super) client_eof: bool,
    /// Bytes that the shell still holds since the last look: no sign of life when they are shown again.
    pub(super) client_rest: usize,
    pub(super) draining: bool,
    pub(super) link: Link,
    pub(super) client_clock: Clock,
    pub(super) upstream_clock: Clock,
    pub(super) unresolved: usize,
    pub(super) held: usize,
    /// What the channels take, and of that what only the client can end.
    pub(super) memory: usize,
    pub(super) stuck: usize,
    /// Channels that have answers for the client.
    pub(super) due: BTreeSet<ChannelId>,
    /// Numbers of channels that are gone, whose client has still to answer a `channel.close` that crossed its own.
    pub(super) owed: BTreeSet<ChannelId>,
    /// Channels with a backlog that is not stopped by anything but the bound on unresolved publishes.
    pub(super) ready: BTreeSet<ChannelId>,
    /// Channels whose client waits until a window remembers its ids.
    pub(super) unremembered: BTreeSet<ChannelId>,
    /// Channels that wait for a time.
    pub(super) timed: Timers,
}

impl Session {
    /// For a client that has just connected.
    pub fn new(shared: Arc<Shared>, now: Instant) -> Session {
        let settings = shared.settings;
        Session {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            client: Client::Greeting,
            upstream: Upstream::Unborn,
            ending: None,
            protocol_header: Bytes::new(),
            handshake: Handshake::new(settings.frame_max),
            handshake_until: now + settings.handshake_timeout,
            channels: BTreeMap::new(),
            births: 0,
            client_eof: false,
            client_rest: 0,
            draining: false,
            link: Link::new(&shared),
            client_clock: Clock::new(now),
            upstream_clock: Clock::new(now),
            unresolved: 0,
            held: 0,
            memory: 0,
            stuck: 0,
            due: BTreeSet::new(),
            owed: BTreeSet::new(),
            ready: BTreeSet::new(),
            unremembered: BTreeSet::new(),
            timed: Timers::default(),
            shared,
        }
    }

    // ---- getters -------------------------------------------------------------------------------------------------

    /// Where late verdicts for this session come; the shell registers its waker there.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.link.mailbox
    }

    /// Whether bytes from the client are wanted now.
    pub fn wants_client(&self) -> bool {
        match self.client {
            Client::Greeting | Client::SaidClose | Client::Told { .. } => true,
            Client::Gone => false,
            Client::Live => {
                matches!(self.upstream, Upstream::Live | Upstream::SaidClose { .. })
                    && self.handshake.is_clients_turn()
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

    /// What is held for the client.
    pub fn memory(&self) -> Memory {
        let beside = self.link.memory();
        let frame = self.handshake.client_limit();
        Memory { held: IDLE + beside + self.memory, stuck: self.stuck, frame }
    }

    /// The user's vhost, once known.
    pub fn vhost(&self) -> Option<&Bytes> {
        self.handshake.vhost()
    }

    /// What the client has said of itself, once it has.
    pub fn about(&self) -> Option<&Arc<About>> {
        self.handshake.about()
    }

    /// The client's channels that are open, or not closed yet by both sides.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Publishes of the client since it connected, those that were dropped included.
    pub fn publishes(&self) -> u64 {
        self.link.publishes
    }

    /// Whether both sides have agreed on heartbeats.
    pub fn has_heartbeats(&self) -> bool {
        self.upstream_clock.is_running()
    }

    /// How far the connection is.
    pub fn phase(&self) -> Phase {
        match (self.client, self.upstream) {
            (Client::Gone, _) => Phase::Lingering,
            (Client::SaidClose | Client::Told { .. }, _)
            | (_, Upstream::SaidClose { .. } | Upstream::Closing { .. } | Upstream::Gone) => Phase::Closing,
            _ if self.ending.is_some() => Phase::Closing,
            (Client::Greeting | Client::Live, _) if !self.handshake.opened() => Phase::Handshake,
            (Client::Greeting | Client::Live, _) => Phase::Open,
        }
    }

    /// What the upstream says is looked at.
    fn hears_upstream(&self) -> bool {
        matches!(self.upstream, Upstream::Live | Upstream::Closing { .. })
    }

    /// The client opens a channel whose number is Hapax's own for a moment.
    fn next_is_blocked(&self) -> bool {
        let Some(channel) = self.link.inbound.peek().map(|next| next.channel) else { return false };
        self.link.probes.channel() == Some(channel)
            || self.channels.get(&channel).is_some_and(|channel| channel.is_free_for_client())
            || self.opens_one_too_many(channel) && self.channels.values().any(|one| one.is_free_for_client())
            || self.link.probes.is_at_work()
                && self.upstream_is_full()
                && !self.channels.contains_key(&channel)
    }

    /// Whether the client's channels and Hapax's own are all that the upstream allows.
    fn upstream_is_full(&self) -> bool {
        self.channels.len() + 1 >= usize::from(self.handshake.upstream_channel_max())
    }

    /// Whether all channels are taken that the client may have, and this is none of them.
    pub(super) fn opens_one_too_many(&self, channel: ChannelId) -> bool {
        channel != ChannelId::CONNECTION
            && self.channels.len() >= usize::from(self.handshake.client_channel_max())
            && !self.channels.contains_key(&channel)
    }

    // ---- from the world ------------------------------------------------------------------------------------------

    /// Bytes from the client. Whole frames are taken out of `buf`; the beginning of a frame stays in it, and so does
    /// everything while [`Session::wants_client`] is false. Call again when that turns true and `buf` is not empty.
    pub fn handle_client(&mut self, buf: &mut BytesMut, now: Instant) {
        if buf.len() != self.client_rest {
            self.client_clock.heard(now);
        }
        if self.client == Client::Greeting {
            self.greet(buf);
        }
        while self.wants_client() && self.client != Client::Greeting {
            let one = !self.handshake.opened();
            if !self.link.inbound.refill(buf, self.handshake.client_limit(), one) {
                break;
            }
            self.pump_inbound(now);
        }
        if self.client == Client::Gone {
            buf.clear();
        }
        self.client_rest = buf.len();
        self.settle_down(now);
    }

    /// Bytes from the upstream, likewise (it never pauses by itself).
    pub fn handle_upstream(&mut self, buf: &mut BytesMut, now: Instant) {
        self.upstream_clock.heard(now);
        let mut inbound = Inbound::default();
        while self.hears_upstream()
            && inbound.refill(buf, self.handshake.upstream_limit(), !self.handshake.opened())
        {
            let frames = inbound.frames();
            while self.hears_upstream() && !inbound.is_empty() {
                if self.recv_deliveries(&mut inbound, &frames, now) {
                    continue;
                }
                match inbound.next() {
                    Ok(Some(next)) => self.recv_upstream(next, next.view(&frames), now),
                    Ok(None) => {}
                    Err(_) => self.upstream_lost(now),
                }
            }
        }
        if matches!(self.upstream, Upstream::Gone | Upstream::SaidClose { .. }) {
            buf.clear();
        }
        self.settle_down(now);
    }

    /// Bytes of the client lie where nobody has looked at them yet: it is alive.
    pub fn handle_client_alive(&mut self, now: Instant) {
        self.client_clock.heard(now);
    }

    /// The upstream connection is open (answers [`Output::Dial`]).
    pub fn handle_upstream_open(&mut self, now: Instant) {
        if self.upstream == Upstream::Dialing {
            self.upstream = Upstream::Live;
            self.upstream_clock.heard(now);
            let header = std::mem::take(&mut self.protocol_header);
            self.link.out.upstream.push(header);
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
            Beat::Send => self.link.out.beat_client(),
            Beat::Dead => self.client_lost(now),
        }
        match self.upstream_clock.check(now) {
            Beat::Quiet => {}
            Beat::Send => self.link.out.beat_upstream(),
            Beat::Dead => self.upstream_lost(now),
        }
        // An answer that has come in time is used, even if it is looked at too late.
        self.recv_mail(now);
        for id in self.timed.due(now) {
            self.on_channel(id, now, |channel, cx| channel.handle_timeout(cx));
        }
        if matches!(self.client, Client::Told { until } if now >= until) {
            self.client_lost(now);
        }
        if matches!(self.upstream, Upstream::Closing { until } | Upstream::SaidClose { until } if now >= until)
        {
            self.hang_up(now);
        }
        self.settle_down(now);
    }

    /// The process holds too much, and this session more than `share` bytes. What only the client could end is given up, for its
    /// client is not read from: the largest first, until the rest is within the share.
    pub fn handle_memory_pressure(&mut self, share: usize, now: Instant) {
        while self.client == Client::Live && self.upstream == Upstream::Live && self.stuck > share {
            let before = self.stuck;
            let largest = self.channels.iter().max_by_key(|(_, channel)| channel.booked().stuck);
            let Some((&id, _)) = largest else { break };
            self.on_channel(id, now, |channel, _| channel.relieve());
            if self.stuck >= before && self.client == Client::Live {
                // It is no single channel, but that there are so many.
                self.fail(&Fault::MemoryShort { held: before, scope: Scope::Connection }, now);
            }
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
        self.link.out.poll()
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
        ]
        .into_iter()
        .flatten()
        .chain(self.timed.first())
        .min()
    }

    // ---- what comes to pass --------------------------------------------------------------------------------------

    /// Everything that an event has made possible.
    fn settle_down(&mut self, now: Instant) {
        // The mail may promote a waiter, and what is dead by now would take it along. (The shell hands over all that the
        // upstream has said before it asks.)
        if self.upstream_clock.is_dead(now) {
            self.upstream_lost(now);
        }
        loop {
            let quiet = !self.recv_mail(now);
            self.pump_inbound(now);
            // An answer that is written may make room for what was read already.
            self.flush(now);
            let room = self.unresolved < self.shared.settings.max_unresolved;
            if room && !self.ready.is_empty() {
                self.go_on(now);
            }
            if quiet
                && (self.link.inbound.is_empty() || !self.wants_client())
                && (self.ready.is_empty() || !room)
            {
                break;
            }
        }
        if self.client_eof
            && (self.link.inbound.is_empty() || self.ending.is_some() || self.upstream != Upstream::Live)
        {
            self.client_eof = false;
            self.client_lost(now);
        }
        self.start_probe(now);
        self.end_if_settled(now);
        self.flush(now);
        if self.link.out.client.take_wrote() {
            self.client_clock.sent(now);
        }
        if self.link.out.upstream.take_wrote() {
            self.upstream_clock.sent(now);
        }
    }

    /// Late verdicts, and calls of windows that remember more than before. Whether there were any.
    fn recv_mail(&mut self, now: Instant) -> bool {
        let (mail, called) = self.link.mailbox.take_all();
        let any = called || !mail.is_empty();
        for (ticket, verdict) in mail {
            let id = Tickets::channel(ticket);
            if self.channels.contains_key(&id) {
                self.on_channel(id, now, |channel, cx| channel.recv_verdict(ticket, verdict, cx));
            } else if let Verdict::Fresh(reservation) = verdict {
                // Its channel is gone: it was never sent, so nothing is in doubt.
                reservation.forget(ForgetCause::ChannelClosed);
            }
        }
        if called {
            let waiting: Vec<ChannelId> = self.unremembered.iter().copied().collect();
            for id in waiting {
                self.on_channel(id, now, |channel, cx| channel.recv_remembered(cx));
            }
        }
        any
    }

    fn end_if_settled(&mut self, now: Instant) {
        let Some(until) = self.ending.as_ref().map(|ending| ending.until) else { return };
        if now < until && !self.channels.values().all(|channel| channel.is_settled()) {
            return;
        }
        let Some(ending) = self.ending.take() else { return };
        self.flush(now);
        // Where the linger is over: a waiter must not be promoted any more, for it could not go.
        self.each_channel(now, |channel, cx| {
            channel.end(cx);
            Ok(())
        });
        let patience = self.shared.settings.handshake_timeout;
        match ending.why {
            Why::ClientClose(close) => {
                self.link.out.upstream.forward(close.view());
                self.link.out.upstream.conclude();
                self.upstream = Upstream::Closing { until: now + patience };
            }
            Why::ClientGone => self.drop_upstream(now),
            Why::Drain => {
                self.tell_client(&Fault::Draining, now);
                let text = "hapax is shutting down".into();
                let close = Close { reply_code: 200, reply_text: text, class_id: 0, method_id: 0 };
                self.link.out.upstream.push(connection_method(ConnectionMethod::Close(close)));
                self.link.out.upstream.conclude();
                self.upstream = Upstream::Closing { until: now + patience };
            }
        }
    }

    fn start_probe(&mut self, now: Instant) {
        let channels = &self.channels;
        self.link.probes.drop_unwanted(|asker| {
            channels.get(&asker.channel).is_some_and(|channel| channel.waits_as(asker.birth))
        });
        if self.upstream == Upstream::Live {
            self.link.probes.go_on(&mut self.link.out.upstream);
        }
        while self.link.probes.wants_channel() && self.upstream == Upstream::Live {
            // RabbitMQ counts the open channels of a connection, whatever their numbers.
            let most = self.handshake.upstream_channel_max();
            let shared = &self.shared;
            let room = self.channels.len() < usize::from(most)
                && self.link.rights.may_ask(&shared.rights, &shared.keys, now);
            let free = (1..=most).rev().map(ChannelId).find(|id| room && !self.channels.contains_key(id));
            match free {
                Some(channel) => self.link.probes.start(channel, &mut self.link.out.upstream),
                None => {
                    let answers = self.link.probes.give_up();
                    self.probed(answers, now);
                }
            }
        }
    }

    /// The broker has said whether this user may publish here and there.
    pub(super) fn probed(&mut self, answers: Vec<Answer>, now: Instant) {
        for Answer { question, finding, .. } in &answers {
            match (finding, question.otherwise) {
                (Finding::Allowed, _) => self.link.rights.learn(&self.shared.rights, question.right, now),
                (Finding::Refused, Some(fact)) => self.link.rights.learn_refusal(fact, now),
                (Finding::Refused, None) | (Finding::Missing | Finding::Unasked, _) => {}
            }
        }
        for Answer { question, finding, askers } in answers {
            for asker in askers {
                self.on_channel(asker.channel, now, |channel, cx| match channel.waits_as(asker.birth) {
                    true => channel.recv_finding(question.right, finding, cx),
                    false => Ok(()),
                });
            }
        }
    }

    pub(super) fn flush(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.due) {
            self.on_channel(id, now, |channel, cx| {
                channel.flush(cx);
                Ok(())
            });
        }
    }

    /// What waits in backlogs goes on as far as there is room for it.
    fn go_on(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.ready) {
            if self.upstream == Upstream::Live {
                self.on_channel(id, now, |channel, cx| channel.go_on(cx));
            }
        }
        self.flush(now);
    }

    pub(super) fn each_channel(
        &mut self,
        now: Instant,
        event: impl Fn(&mut Channel, &mut Cx<'_>) -> Result<(), Fault>,
    ) {
        let ids: Vec<ChannelId> = self.channels.keys().copied().collect();
        for id in ids {
            self.on_channel(id, now, &event);
        }
    }

    /// Tells a channel of an event, refuses what it refuses, and keeps the books. Whether there is such a channel.
    pub(super) fn on_channel(
        &mut self,
        id: ChannelId,
        now: Instant,
        event: impl FnOnce(&mut Channel, &mut Cx<'_>) -> Result<(), Fault>,
    ) -> bool {
        let Some(channel) = self.channels.get_mut(&id) else { return false };
        let held_elsewhere = self.held - channel.booked().held;
        let unresolved_elsewhere = self.unresolved - channel.booked().unresolved;
        let mut cx =
            Cx { shared: &self.shared, link: &mut self.link, held_elsewhere, unresolved_elsewhere, now };
        let result = event(channel, &mut cx).or_else(|fault| channel.refuse(fault, &mut cx));
        let (before, after) = channel.book();
        self.unresolved = self.unresolved - before.unresolved + after.unresolved;
        self.held = self.held - before.held + after.held;
        self.memory = self.memory - before.memory + after.memory;
        self.stuck = self.stuck - before.stuck + after.stuck;
        if channel.is_due() {
            self.due.insert(id);
        }
        if channel.is_ready() {
            self.ready.insert(id);
        }
        if channel.is_unremembered() {
            self.unremembered.insert(id);
        } else if !self.unremembered.is_empty() {
            self.unremembered.remove(&id);
        }
        self.timed.set(id, channel.deadline());
        if channel.is_gone() {
            self.unresolved -= after.unresolved;
            self.held -= after.held;
            self.memory -= after.memory;
            self.stuck -= after.stuck;
            if self.channels.remove(&id).is_some_and(|channel| channel.owes_close_ok()) {
                self.owed.insert(id);
            }
            self.due.remove(&id);
            self.ready.remove(&id);
            self.unremembered.remove(&id);
            self.timed.set(id, None);
        }
        if let Err(fault) = result {
            self.fail(&fault, now);
        }
        true
    }
}

pub(super) fn connection_method(method: ConnectionMethod) -> Bytes {
    emit::method(ChannelId::CONNECTION, AMQPClass::Connection(method))
}

pub(super) fn connection_close_ok() -> Bytes {
    connection_method(ConnectionMethod::CloseOk(CloseOk {}))
}
