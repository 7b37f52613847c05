//! Both sides of a session, the channels between them, and how they end.
//!
//! The sides end separately. When the client is gone, the upstream connection is kept until the outcome of every publish is
//! known, or until the linger is over.

use super::Shared;
use super::blocked::has_capability;
use super::channel::Channel;
use super::channels::Channels;
use super::chaos::{ChaosFault, ChaosOrders, ChaosWhat};
use super::client::ClientState;
use super::cx::{Cx, Link, Tickets};
use super::dismissal;
use super::ending::{Why, close, close_ok, reply_code};
use super::external::refuse_external;
use super::fault::Fault;
use super::handshake::Meaning;
use super::liveness::Beat;
use super::loopback::{RefusedBecause, RefusedLogin};
use super::outbox::View;
use super::places::{UserPlace, counted_as};
use super::probe::Answer;
use super::sides::Sides;
use super::upstream::UpstreamState;
use crate::window::{ForgetCause, Verdict};
use crate::wire::frame::FrameKind;
use crate::wire::method::MethodId;
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::AMQPMethod;
use bytes::Bytes;
use core::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The reply-code of RabbitMQ's `connection.close` when a user opens more channels than it may (`max-channels`).
const NOT_ALLOWED: u16 = 530;

/// How long a client may take to answer a `connection.close` of Hapax when nothing else is waited for.
const CLOSE_ANSWER: Duration = Duration::from_secs(1);

/// How long a client whose login was refused is left without a word before its socket is closed. RabbitMQ has the same delay:
/// it makes guessing slow.
const SILENT_CLOSE_DELAY: Duration = Duration::from_secs(3);

/// The client's connection, the upstream connection, and the channels between them.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    /// the client's address
    peer: IpAddr,
    /// the login that was refused, until the shell has taken it
    refused_login: Option<RefusedLogin>,
    /// counts the connection for its user, until the client has left
    place: Option<UserPlace>,
    sides: Sides,
    channels: Channels,
    link: Link,
}

impl Connection {
    /// Creates the connection of a client that has just connected.
    pub(super) fn new(shared: Arc<Shared>, peer: IpAddr, now: Instant) -> Connection {
        Connection {
            peer,
            refused_login: None,
            place: None,
            sides: Sides::new(&shared.settings, now),
            channels: Channels::default(),
            link: Link::new(&shared),
            shared,
        }
    }

    /// Returns what all sessions of the process share.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Takes the login that was refused, if there was one since the last call.
    pub(super) fn take_refused_login(&mut self) -> Option<RefusedLogin> {
        self.refused_login.take()
    }

    /// Returns how far both sides are.
    pub(super) fn sides(&self) -> &Sides {
        &self.sides
    }

    /// Returns how far both sides are, to change it.
    pub(super) fn sides_mut(&mut self) -> &mut Sides {
        &mut self.sides
    }

    /// Returns the channels.
    pub(super) fn channels(&self) -> &Channels {
        &self.channels
    }

    /// Returns the channels, to change them.
    pub(super) fn channels_mut(&mut self) -> &mut Channels {
        &mut self.channels
    }

    /// Returns the things that all channels use.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Returns the things that all channels use, to change them.
    pub(super) fn link_mut(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Returns its bytes. Those of the channels and of the outbox are not among them.
    pub(super) fn memory(&self) -> usize {
        self.link.memory() + self.sides.handshake.memory()
    }

    /// Returns true if the client's next frame is for a channel number that is not free on the upstream's side yet.
    pub(super) fn next_is_blocked(&self) -> bool {
        let Link { inbound, probes, .. } = &self.link;
        let Some(next) = inbound.peek() else { return false };
        // If both have closed a channel, the client still answers the other's close. Nothing waits for that.
        let answers = || {
            inbound.method(next) == Some(MethodId::CHANNEL_CLOSE_OK) && self.channels.is_owed(next.channel)
        };
        self.channels.is_blocked(next.channel, probes, &self.sides.handshake) && !answers()
    }

    /// Returns true if the client's next frame is a `basic.publish`.
    pub(super) fn next_is_publish(&self) -> bool {
        let inbound = &self.link.inbound;
        inbound.peek().is_some_and(|next| inbound.method(next) == Some(MethodId::BASIC_PUBLISH))
    }

    /// If the client's next frame opens a channel whose number is still in use at the upstream, because the outcomes of an
    /// earlier channel are not known, gives it another number there. Returns true if the frames that were read have changed.
    pub(super) fn renumber_next(&mut self) -> bool {
        let Link { inbound, probes, .. } = &self.link;
        if self.channels.total().hidden == 0 && inbound.numbers().is_empty() {
            return false;
        }
        let Some(next) = inbound.peek() else { return false };
        let opens = inbound.method(next) == Some(MethodId::CHANNEL_OPEN);
        let is_free = |id: ChannelId| !self.channels.contains(id) && probes.channel() != Some(id);
        if !opens || !self.sides.are_live() {
            return false;
        }
        let own = inbound.numbers().client(next.channel);
        let number = if own != next.channel && is_free(own) && is_free(next.channel) {
            // The client's own number is free again.
            Some(own)
        } else if self.channels.is_hidden(next.channel) {
            // The largest number is left to Hapax's own questions.
            let most = self.sides.handshake.upstream_channel_max();
            // If the client has still to answer a close, that must not be taken for something about the hidden channel.
            let is_silent = |id: ChannelId| !self.channels.is_answered_late(id);
            (1..most).rev().map(ChannelId).find(|id| is_free(*id) && is_silent(*id))
        } else {
            None
        };
        let Some(number) = number else { return false };
        self.channels.forget_owed(next.channel);
        self.link.inbound.swap(next.channel, number);
        let Link { inbound, out, .. } = &mut self.link;
        out.client.renumber(inbound.numbers());
        true
    }

    /// Tells the heartbeats which sides something was written to.
    pub(super) fn note_sent(&mut self, now: Instant) {
        self.sides.note_sent(&mut self.link.out, now);
    }

    /// Ends everything whose time is over, and sends the heartbeats that are due. Returns true if the client has fallen silent:
    /// the session treats it as one whose socket has ended.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.sides.handshake.deadline().is_some_and(|until| now >= until) {
            self.hang_up(now);
        }
        let silent = match self.sides.client.clock_mut().check(now) {
            Beat::Quiet => false,
            Beat::Send => {
                self.link.out.beat_client();
                false
            }
            Beat::Dead => {
                self.sides.client.clock_mut().stop();
                true
            }
        };
        match self.sides.upstream.clock_mut().check(now) {
            Beat::Quiet => {}
            Beat::Send => self.link.out.beat_upstream(),
            Beat::Dead => self.upstream_lost(now),
        }
        if let Some(chaos) = &mut self.link.chaos {
            chaos.release(now);
        }
        // Answers that have come in time count, even if the session looks at them too late.
        self.recv_mail(now);
        for id in self.channels.expired(now) {
            self.on_channel(id, now, |channel, cx| channel.handle_timeout(cx));
        }
        if self.sides.client.is_late(now) {
            self.client_lost(now);
        }
        if self.sides.upstream.is_late(now) {
            self.hang_up(now);
        }
        silent
    }

    // ---- channels --------------------------------------------------------------------------------------------------

    /// Opens a channel of the client. If the client has too many channels already, the connection fails.
    pub(super) fn open_channel(&mut self, id: ChannelId, open: View<'_>, now: Instant) {
        let max = self.sides.handshake.client_channel_max();
        if self.channels.is_one_too_many(id, max) {
            return self.fail(&Fault::ChannelMax { open: self.channels.len(), max }, now);
        }
        self.channels.open(id);
        self.link.out.upstream.forward(open);
    }

    /// Tells a channel of an event. Returns false if there is no such channel.
    pub(super) fn on_channel(
        &mut self,
        id: ChannelId,
        now: Instant,
        event: impl FnOnce(&mut Channel, &mut Cx<'_>) -> Result<(), Fault>,
    ) -> bool {
        match self.channels.tell(id, &self.shared, &mut self.link, now, event) {
            None => return false,
            Some(Ok(())) => {}
            Some(Err(fault)) => self.fail(&fault, now),
        }
        true
    }

    fn each_channel(&mut self, now: Instant, event: impl Fn(&mut Channel, &mut Cx<'_>) -> Result<(), Fault>) {
        for id in self.channels.ids() {
            self.on_channel(id, now, &event);
        }
    }

    /// Writes the confirms that are due on all channels.
    #[inline]
    pub(super) fn flush(&mut self, now: Instant) {
        if self.channels.has_due() {
            self.flush_due(now);
        }
    }

    fn flush_due(&mut self, now: Instant) {
        for id in self.channels.take_due() {
            self.on_channel(id, now, |channel, cx| {
                channel.flush(cx);
                Ok(())
            });
        }
    }

    /// Lets waiting frames of all channels go on, as far as there is room for unresolved publishes.
    pub(super) fn go_on(&mut self, now: Instant) {
        for id in self.channels.take_ready() {
            if self.sides.upstream.is_live() {
                self.on_channel(id, now, |channel, cx| channel.go_on(cx));
            }
        }
        self.flush(now);
    }

    /// Handles the late verdicts in the mailbox, and the calls of windows that remember more than before. Returns true if there
    /// were any.
    pub(super) fn recv_mail(&mut self, now: Instant) -> bool {
        let (mail, called) = self.link.mailbox.take_all();
        let any = called || !mail.is_empty();
        for (ticket, verdict) in mail {
            let id = Tickets::channel(ticket);
            if self.channels.contains(id) {
                self.on_channel(id, now, |channel, cx| channel.recv_verdict(ticket, verdict, cx));
            } else if let Verdict::Fresh(reservation) = verdict {
                // Its channel is gone. The message was never sent, so it is not in doubt.
                reservation.forget(ForgetCause::ChannelClosed);
            }
        }
        if called {
            for id in self.channels.unremembered() {
                self.on_channel(id, now, |channel, cx| channel.recv_remembered(cx));
            }
        }
        any
    }

    // ---- rights ----------------------------------------------------------------------------------------------------

    /// Asks the broker about the rights that publishes wait for. If there is no channel to ask on, these publishes go on
    /// without an answer.
    pub(super) fn start_probe(&mut self, now: Instant) {
        loop {
            let is_live = self.sides.upstream.is_live();
            let most = self.sides.handshake.upstream_channel_max();
            let given_up = self.link.ask(&self.shared, &self.channels, most, is_live, now);
            if given_up.is_empty() {
                return;
            }
            self.recv_answers(given_up, now);
        }
    }

    /// Handles the broker's answers about rights: keeps them, and lets the publishes go on that wait for them.
    pub(super) fn recv_answers(&mut self, answers: Vec<Answer>, now: Instant) {
        self.link.learn(&self.shared.rights, &answers, now);
        for Answer { question, finding, askers } in answers {
            for asker in askers {
                self.on_channel(asker.channel, now, |channel, cx| match channel.waits_as(asker.birth) {
                    true => channel.recv_finding(question.right, finding, cx),
                    false => Ok(()),
                });
            }
        }
    }

    // ---- channel 0 -------------------------------------------------------------------------------------------------

    /// Opens the upstream connection for a client that has sent this protocol header.
    pub(super) fn greet(&mut self, protocol_header: Bytes) {
        self.sides.client.greeted();
        self.sides.upstream.dial(protocol_header);
        self.link.out.dial();
    }

    /// Answers a protocol header that Hapax does not speak as a server does: with the one that it speaks. Then it closes.
    pub(super) fn reject(&mut self, protocol_header: Bytes) {
        self.link.out.client.push(protocol_header);
        self.link.out.close_client();
        self.sides.client.gone();
    }

    /// Handles a frame of the client on channel 0.
    pub(super) fn recv_client(&mut self, kind: FrameKind, frame: View<'_>, now: Instant) {
        let method = if kind == FrameKind::Method { emit::parse_method(frame.payload()) } else { None };
        if self.is_login(kind, frame)
            && let Some(refused) = self.refused(frame.payload())
        {
            let told = method.as_ref().is_some_and(takes_refusal);
            return self.refuse_login(refused, told, now);
        }
        if self.is_open(kind, frame)
            && let Err(max) = self.take_place()
        {
            return self.refuse_place(max, now);
        }
        let handshake = &mut self.sides.handshake;
        if let Some(AMQPClass::Connection(AMQPMethod::StartOk(start_ok))) = &method
            && !handshake.has_started()
        {
            self.link.blocked.recv_start_ok(start_ok);
        }
        let meaning = match method {
            Some(method) => handshake.recv_client(method),
            None => {
                handshake.recv_unreadable(frame.method(kind));
                Meaning::Pass
            }
        };
        let Link { out, .. } = &mut self.link;
        match (self.sides.client.state(), meaning) {
            (ClientState::Told { .. }, Meaning::CloseOk) => self.client_lost(now),
            (ClientState::Told { .. }, Meaning::Close) => {
                out.client.answer_close(close_ok());
                self.client_lost(now);
            }
            (ClientState::Dismissed { .. }, Meaning::Close) => {
                out.client.answer_close(close_ok());
                self.hang_up(now);
            }
            (ClientState::Dismissed { .. }, _) => match dismissal::answer(frame.method(kind)) {
                dismissal::Answer::Say(frame) => out.client.push(frame),
                dismissal::Answer::Wait => {}
                dismissal::Answer::Close => self.tell_client(&Fault::Unreachable, now),
            },
            (ClientState::Told { .. } | ClientState::Gone | ClientState::Greeting, _) => {}
            (ClientState::Live | ClientState::SaidClose, Meaning::CloseOk) => {
                out.upstream.forward(frame);
                self.hang_up(now);
            }
            (ClientState::SaidClose, _) => {}
            (ClientState::Live, Meaning::Close) => self.recv_client_close(frame, now),
            (ClientState::Live, Meaning::Tuned { heartbeat: seconds, instead }) => {
                match instead {
                    Some(frame) => out.upstream.push(frame),
                    None => out.upstream.forward(frame),
                }
                self.sides.client.clock_mut().set_interval(seconds, now);
                self.sides.upstream.clock_mut().set_interval(seconds, now);
            }
            (ClientState::Live, Meaning::Identified) => {
                out.upstream.forward(frame);
                self.link.identify(&self.sides.handshake, self.peer);
            }
            (
                ClientState::Live,
                Meaning::Instead(_) | Meaning::Opened | Meaning::Blocked(_) | Meaning::Pass,
            ) => {
                out.upstream.forward(frame);
            }
        }
    }

    /// Returns why a `connection.start-ok` must not reach the broker.
    fn refused(&self, payload: &[u8]) -> Option<RefusedLogin> {
        let external = if self.shared.settings.external { None } else { refuse_external(payload) };
        external.or_else(|| self.shared.loopback_users.refuse(self.peer, payload))
    }

    /// Returns true if a frame of the client tries to log in.
    fn is_login(&self, kind: FrameKind, frame: View<'_>) -> bool {
        !self.sides.handshake.opened()
            && self.sides.client.is_live()
            && frame.method(kind) == Some(MethodId::CONNECTION_START_OK)
    }

    /// Returns true if a frame of the client is its first `connection.open`, and the broker has accepted the login.
    fn is_open(&self, kind: FrameKind, frame: View<'_>) -> bool {
        let handshake = &self.sides.handshake;
        handshake.is_accepted()
            && !handshake.opened()
            && self.place.is_none()
            && self.sides.client.is_live()
            && frame.method(kind) == Some(MethodId::CONNECTION_OPEN)
    }

    /// Counts the connection for its user, or returns the limit that the user has reached.
    fn take_place(&mut self) -> Result<(), usize> {
        let user = counted_as(self.sides.handshake.named_user(), self.peer);
        self.place = Some(self.shared.places.take(&user)?);
        Ok(())
    }

    /// Refuses a `connection.open` as RabbitMQ does when a user has reached its own limit (`max-connections`).
    fn refuse_place(&mut self, max: usize, now: Instant) {
        let user: Option<Box<str>> = self.sides.handshake.named_user().map(Box::from);
        let fault = Fault::UserConnections { user: user.clone().unwrap_or_default(), max };
        let reason = RefusedBecause::UserConnections { max };
        self.refused_login = Some(RefusedLogin { mechanism: Box::default(), user, reason });
        self.fail(&fault, now);
    }

    /// Stops counting the connection for its user if the client has left, or was told to.
    #[inline]
    pub(super) fn free_place(&mut self) {
        if self.place.is_some() && (self.sides.client.is_gone() || self.sides.client.is_told()) {
            self.place = None;
        }
    }

    /// Handles the client's `connection.close`. It is held back while outcomes are not known.
    fn recv_client_close(&mut self, close: View<'_>, now: Instant) {
        if self.sides.upstream.is_live() {
            self.sides.end_for_client(close.compact(), self.shared.settings.linger, now);
            self.each_channel(now, |channel, cx| channel.finish(cx));
        } else {
            self.sides.client.said_close(now);
            self.link.out.client.answer_close(close_ok());
            self.hang_up(now);
        }
    }

    /// If outcomes take so long that the client has waited long enough for the answer to its `connection.close`, answers it, as
    /// soon as the broker has handled all that the client has sent. The upstream connection waits for the outcomes without the
    /// client.
    fn answer_overdue_close(&mut self, now: Instant) {
        if !self.sides.is_overdue(now) || self.channels.are_settled() {
            return;
        }
        let mut all = true;
        for id in self.channels.ids() {
            self.on_channel(id, now, |channel, cx| {
                all &= channel.ask_whether_all_is_said(cx);
                Ok(())
            });
        }
        if all {
            self.flush(now);
            self.link.out.client.answer_close(close_ok());
            self.link.out.client.shut();
            self.sides.client.gone();
            self.link.inbound.clear();
            self.link.out.close_client();
            self.leave_upstream(now);
        }
    }

    /// Handles a frame of the upstream on channel 0.
    pub(super) fn recv_upstream(&mut self, kind: FrameKind, frame: View<'_>, now: Instant) {
        let method = if kind == FrameKind::Method { emit::parse_method(frame.payload()) } else { None };
        self.sides.upstream.spoke();
        match method.map_or(Meaning::Pass, |method| self.sides.handshake.recv_upstream(method)) {
            Meaning::Instead(frame) => self.link.out.client.push(frame),
            Meaning::Blocked(blocked) => {
                if self.link.blocked.recv_broker(blocked) && !self.sides.client.is_told() {
                    self.link.out.client.forward(frame);
                }
            }
            Meaning::Close => self.recv_upstream_close(frame, now),
            Meaning::CloseOk if self.sides.client.state() == ClientState::SaidClose => {
                self.flush(now);
                self.link.out.client.forward(frame);
                self.hang_up(now);
            }
            Meaning::CloseOk => self.drop_upstream(now),
            meaning @ (Meaning::Opened | Meaning::Pass | Meaning::Tuned { .. } | Meaning::Identified) => {
                if meaning == Meaning::Opened {
                    self.link.identify(&self.sides.handshake, self.peer);
                }
                if !self.sides.client.is_told() {
                    self.link.out.client.forward(frame);
                }
            }
        }
    }

    /// Tells the client whether it may publish, if that has changed because of a window.
    #[inline]
    pub(super) fn tell_blocked(&mut self) {
        if self.link.blocked.is_any() {
            self.tell_of_windows();
        }
    }

    #[cold]
    fn tell_of_windows(&mut self) {
        let Link { blocked, mailbox, out, .. } = &mut self.link;
        // (One that has sent `connection.close` reads nothing but the answer.)
        if self.sides.are_live()
            && !self.sides.are_ending()
            && let Some(frame) = blocked.poll(mailbox)
        {
            out.client.push(frame);
        }
    }

    /// Handles the upstream's `connection.close`.
    fn recv_upstream_close(&mut self, close: View<'_>, now: Instant) {
        self.flush(now);
        let Link { out, rights, probes, .. } = &mut self.link;
        // A channel that lives on without the client counts, too: it is not done again for this user.
        let has_own = probes.is_opening() || self.channels.total().hidden > 0;
        match self.sides.client.state() {
            ClientState::Live if has_own && reply_code(close) == Some(NOT_ALLOWED) => {
                rights.learn_limited(&self.shared.rights, &self.shared.keys, now);
                let user = self.sides.handshake.about().and_then(|about| about.user.as_deref());
                self.shared.listener.channel_limited(user);
                out.upstream.answer_close(close_ok());
                self.drop_upstream(now);
                self.tell_client(&Fault::ChannelLimit, now);
            }
            ClientState::Live => {
                out.client.forward(close);
                out.client.conclude();
                self.channels.lose(now);
                self.sides.upstream.said_close(now + self.shared.settings.handshake_timeout);
            }
            ClientState::SaidClose => {
                // Both have closed: the client hears why, and each hears the other's answer.
                out.client.forward(close);
                out.client.answer_close(close_ok());
                out.upstream.answer_close(close_ok());
                self.hang_up(now);
            }
            ClientState::Dismissed { .. }
            | ClientState::Told { .. }
            | ClientState::Gone
            | ClientState::Greeting => {
                out.upstream.answer_close(close_ok());
                self.drop_upstream(now);
            }
        }
    }

    // ---- the client's end ------------------------------------------------------------------------------------------

    /// Ends the client's side. The upstream stays until everything is settled.
    pub(super) fn client_lost(&mut self, now: Instant) {
        if self.sides.client.is_gone() {
            return;
        }
        let told = self.sides.client.is_told();
        self.sides.client.gone();
        self.link.inbound.clear();
        if !told {
            self.link.out.client.abandon();
        }
        self.link.out.close_client();
        self.leave_upstream(now);
    }

    /// Follows orders about chaos. `None`: the connection is not to be troubled.
    pub(super) fn order_chaos(&mut self, orders: Option<ChaosOrders>) {
        let messages = self.link.messages();
        let Link { chaos, out, publishes, .. } = &mut self.link;
        let keeps = |orders: &ChaosOrders| {
            orders.plan.as_ref().is_some_and(|plan| plan.shares.of(ChaosFault::Replay) > 0.0)
        };
        out.traces.set_keeping(orders.as_ref().is_some_and(keeps));
        let Some(orders) = orders else {
            *chaos = None;
            return;
        };
        let is_new = chaos.is_none();
        let chaos = chaos.get_or_insert_default();
        chaos.order(orders, messages);
        if is_new && *publishes > 0 {
            // Nobody has watched on which of them.
            self.channels.silent().for_each(|id| chaos.publishes_unheard(id));
        }
    }

    /// Ends the connection if chaos wants that, and if nothing can be lost by it. A client that publishes without confirms, or gets
    /// deliveries that count as acked when they are sent, would lose what is on its way, and what is in an exclusive queue is lost with
    /// the queue. A delivery that came back before does not come back once more: a queue may drop what does so too often.
    #[cold]
    pub(super) fn inflict(&mut self, now: Instant) {
        let messages = self.link.messages();
        let Link { chaos, exclusive, .. } = &mut self.link;
        let Some(chaos) = chaos else { return };
        let Some(mut deed) = chaos.take_end(messages, now) else { return };
        if !self.sides.client.is_live() || !self.sides.handshake.opened() {
            return;
        }
        let loses = !exclusive.is_empty()
            || self.channels.would_lose(|id| chaos.is_unheard(id))
            || self.channels.hold_redelivered();
        if let (true, ChaosWhat::Done(fault)) = (loses, deed.what) {
            deed.what = ChaosWhat::Spared(fault);
        }
        chaos.tell(deed);
        if !loses {
            self.cut_client(now);
        }
    }

    /// Ends the client's side without a word. What was not written to it is lost. The upstream stays until everything is settled, as
    /// for any client that vanishes.
    fn cut_client(&mut self, now: Instant) {
        self.sides.client.gone();
        self.link.inbound.clear();
        self.link.out.cut_client();
        self.leave_upstream(now);
    }

    /// Closes the client's connection because of a fault.
    pub(super) fn fail(&mut self, fault: &Fault, now: Instant) {
        if !self.sides.client.is_live() {
            return self.client_lost(now);
        }
        self.flush(now);
        self.link.inbound.clear();
        if !self.sides.handshake.opened() && !self.sides.upstream.is_live() {
            return self.hang_up(now);
        }
        self.tell_client(fault, now);
        self.leave_upstream(now);
    }

    /// Refuses a login as RabbitMQ does: with a `connection.close` if the client has said that it understands one (`told`), and
    /// by the end of the socket a little later.
    fn refuse_login(&mut self, refused: RefusedLogin, told: bool, now: Instant) {
        if told {
            let fault = match refused.reason {
                RefusedBecause::Loopback => Fault::LoopbackUser { mechanism: refused.mechanism.clone() },
                RefusedBecause::External => Fault::External,
                RefusedBecause::UserConnections { max } => {
                    Fault::UserConnections { user: refused.user.clone().unwrap_or_default(), max }
                }
            };
            self.tell_client(&fault, now);
        }
        self.refused_login = Some(refused);
        self.link.inbound.clear();
        self.sides.client.told(now + SILENT_CLOSE_DELAY);
        self.leave_upstream(now);
    }

    /// Sends the client a `connection.close` with this fault.
    fn tell_client(&mut self, fault: &Fault, now: Instant) {
        let MethodId(class, method) = fault.culprit();
        self.link.out.client.push(close(fault.code(), &fault.text(), (class, method)));
        self.link.out.client.conclude();
        let patience = match fault {
            Fault::Draining | Fault::Unreachable => CLOSE_ANSWER.min(self.shared.settings.handshake_timeout),
            _ => self.shared.settings.handshake_timeout,
        };
        self.sides.client.told(now + patience);
    }

    // ---- the upstream's end ----------------------------------------------------------------------------------------

    /// Closes the upstream connection as soon as everything is settled, for a client that is gone or was told to go.
    fn leave_upstream(&mut self, now: Instant) {
        match self.sides.upstream.state() {
            UpstreamState::Live => {
                self.end(Why::ClientGone, now);
                if !self.channels.are_settled() {
                    self.each_channel(now, |channel, cx| channel.abandon(cx));
                    let most = self.sides.handshake.upstream_channel_max();
                    self.link.delete_exclusive_queues(&self.shared, &self.channels, most, now);
                }
            }
            // The upstream may not have read everything yet.
            UpstreamState::Closing { .. } => {
                self.sides.upstream.close_until(now + self.shared.settings.handshake_timeout);
            }
            UpstreamState::Unborn | UpstreamState::Dialing | UpstreamState::SaidClose { .. } => {
                self.drop_upstream(now);
            }
            UpstreamState::Gone => {}
        }
    }

    /// Returns true if something has begun that only the client can end: its login, or what [`Channel::awaits_client`] names. A client that
    /// has not said a word waits for nobody.
    pub(super) fn awaits_client(&self) -> bool {
        if !self.sides.client.is_live() || self.sides.are_ending() {
            return false;
        }
        !self.sides.handshake.opened() || self.channels.await_client()
    }

    /// Cancels the consumers that ack what they get.
    pub(super) fn stop_consumers(&mut self, now: Instant) {
        if self.sides.are_live() {
            self.each_channel(now, |channel, cx| {
                channel.stop_consumers(cx);
                Ok(())
            });
        }
    }

    /// Ends both sides because the process is about to end. Outcomes are awaited until this time.
    pub(super) fn drain(&mut self, until: Instant, now: Instant) {
        let opened = self.sides.handshake.opened();
        if self.sides.upstream.state() == UpstreamState::Unborn || !opened {
            self.hang_up(now);
        } else if self.sides.are_live() && !self.sides.are_ending() {
            self.sides.end(Why::Drain, until);
        }
    }

    /// Tells a client that has logged in why it is about to be cut. Outcomes that come after that are still noted.
    pub(super) fn drain_over(&mut self, now: Instant) {
        if self.sides.client.is_live() && self.sides.handshake.opened() {
            self.fail(&Fault::Draining, now);
        }
    }

    fn end(&mut self, why: Why, now: Instant) {
        self.sides.end(why, now + self.shared.settings.linger);
    }

    /// Carries out the ending if everything is settled, or if its time is over.
    pub(super) fn end_if_settled(&mut self, now: Instant) {
        self.answer_overdue_close(now);
        let Some(why) = self.sides.take_ending(now, || self.channels.are_settled()) else { return };
        self.flush(now);
        // If the linger is over, publishes still wait. They must not be promoted any more: they could not be sent.
        self.each_channel(now, |channel, cx| {
            channel.end(cx);
            Ok(())
        });
        match why {
            Why::ClientClose(close) => {
                self.link.out.upstream.forward(close.view());
                self.close_upstream(None);
            }
            // Nobody has logged in, so there is nothing that the upstream could miss.
            Why::ClientGone if !self.sides.handshake.opened() => self.drop_upstream(now),
            Why::ClientGone => {
                self.link.out.upstream.push(close(200, "the client is gone", (0, 0)));
                self.close_upstream(Some(now));
            }
            Why::Drain => {
                self.tell_client(&Fault::Draining, now);
                self.link.out.upstream.push(close(200, "hapax is shutting down", (0, 0)));
                self.close_upstream(Some(now));
            }
        }
    }

    /// Waits for the upstream's answer to the `connection.close` that was written last: for `timeouts.handshake` from `since` on,
    /// or for as long as the client waits for it. When it has come, the upstream has read everything.
    fn close_upstream(&mut self, since: Option<Instant>) {
        self.link.out.upstream.conclude();
        self.sides.upstream.closing(since.map(|since| since + self.shared.settings.handshake_timeout));
    }

    /// Handles that the upstream's socket has ended, or that the upstream was silent for too long. Frames that wait to be
    /// written to it are dropped: they are in doubt from now on, and must not be stored after that.
    pub(super) fn upstream_lost(&mut self, now: Instant) {
        if self.sides.upstream.is_gone() {
            return;
        }
        let expected = matches!(self.sides.upstream.state(), UpstreamState::SaidClose { .. });
        self.flush(now);
        self.let_go_of_upstream(now);
        self.link.out.cut_upstream();
        match self.sides.client.state() {
            ClientState::Live if self.sides.handshake.opened() && !expected => {
                self.tell_client(&Fault::UpstreamLost, now);
            }
            ClientState::SaidClose => self.hang_up(now),
            ClientState::Live if !self.sides.upstream.has_spoken() => {
                self.link.out.client.push(dismissal::start());
                self.sides.client.dismissed(now + self.shared.settings.handshake_timeout);
            }
            ClientState::Live | ClientState::Greeting => self.hang_up(now),
            ClientState::Dismissed { .. } | ClientState::Told { .. } | ClientState::Gone => {}
        }
    }

    /// Closes the upstream's socket as soon as all that was sent to it is written.
    fn drop_upstream(&mut self, now: Instant) {
        if !self.sides.upstream.is_gone() {
            self.link.out.close_upstream();
        }
        self.let_go_of_upstream(now);
    }

    fn let_go_of_upstream(&mut self, now: Instant) {
        self.channels.lose(now);
        self.sides.upstream_gone();
    }

    /// Closes both sides. Everything that was sent before is still written.
    pub(super) fn hang_up(&mut self, now: Instant) {
        self.drop_upstream(now);
        self.sides.client.gone();
        self.link.inbound.clear();
        self.link.out.close_client();
    }
}

/// Returns true if a `start-ok` says that its client understands a `connection.close` as the answer to its login.
fn takes_refusal(method: &AMQPClass) -> bool {
    let AMQPClass::Connection(AMQPMethod::StartOk(start_ok)) = method else { return false };
    has_capability(start_ok, "authentication_failure_close")
}
