//! The session as the shell sees it: its events, its outputs, and the order in which frames are handled.

use super::about::About;
use super::awaited::Awaited;
use super::chaos::ChaosOrders;
use super::client::ClientState;
use super::connection::Connection;
use super::cx::Link;
use super::drain::Drain;
use super::fault::{Closes, Fault};
use super::flow::{Queued, Reading, Room, Wants};
use super::inbound::{Chunk, Inbound, ReadFrame};
use super::outbox::View;
use super::timers::earliest;
use super::upstream::UpstreamState;
use super::{Memory, Output, Phase, RefusedLogin, Shared};
use crate::window::Mailbox;
use crate::wire::ChannelId;
use crate::wire::frame::{FrameKind, PROTOCOL_HEADER, PROTOCOL_HEADER_0_9};
use crate::wire::method::MethodId;
use bytes::{Bytes, BytesMut};
use core::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that a session takes before its client has sent anything, with what the shell has for it.
const IDLE: usize = 16 << 10;

/// One client connection and its upstream connection.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// The client's socket has ended, or the client has fallen silent. Frames that it sent before that are handled first, as far
    /// as that is possible until this time.
    client_eof: Option<Instant>,
    /// Bytes that were left in the shell's buffer by the last look. They are no sign of life when they are shown again.
    client_rest: usize,
    /// how far the end is that the end of the process asks for
    drain: Drain,
    /// While the upstream is not read, it is looked whether others wait for its answers.
    awaited: Awaited,
    /// How many publishes of the client are taken in all, until the shell says another number.
    publish_limit: u64,
    /// How many frames of the client are still handled in this turn.
    turn_left: usize,
}

impl Session {
    /// Creates the session of a client that has just connected from the address `peer`.
    pub fn new(shared: Arc<Shared>, peer: IpAddr, now: Instant) -> Session {
        let connection = Connection::new(shared, peer, now);
        Session {
            connection,
            client_eof: None,
            client_rest: 0,
            drain: Drain::No,
            awaited: Awaited::default(),
            publish_limit: u64::MAX,
            turn_left: usize::MAX,
        }
    }

    // ---- getters -------------------------------------------------------------------------------------------------

    /// Returns the mailbox in which late verdicts for this session arrive. The shell registers its waker there.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.connection.link().mailbox
    }

    /// Returns true if bytes from the client are wanted now.
    pub fn wants_client(&self) -> bool {
        let (total, settings) = (self.connection.channels().total(), &self.connection.shared().settings);
        let has_room = total.unresolved < settings.max_unresolved && total.held <= settings.held_bytes;
        let is_free = || {
            has_room
                && self.drain.reads(&self.connection)
                && !self.is_at_publish_limit()
                && !self.connection.next_is_blocked()
        };
        let sides = self.connection.sides();
        !self.is_turn_over() && sides.want_client() && (!sides.client.is_live() || is_free())
    }

    /// Returns true if nothing more is taken from the client before the next [`Session::handle_turn`].
    #[inline]
    pub fn is_turn_over(&self) -> bool {
        self.turn_left == 0
    }

    /// Returns true if nothing is taken from the client because its next frame is a publish beyond [`Session::handle_publish_limit`].
    #[inline]
    pub fn is_at_publish_limit(&self) -> bool {
        self.connection.link().publishes >= self.publish_limit && self.connection.next_is_publish()
    }

    /// Returns the sides that may be read from, while these bytes wait to be written.
    pub fn reading(&self, queued: Queued, room: Room) -> Reading {
        let sides = self.connection.sides();
        let client = self.wants_client();
        let answers = !client && sides.want_client() || self.awaited.is_any() && self.unresolved() > 0;
        Wants { client, answers, deaf: sides.client.is_told() || sides.client.is_gone() }
            .reading(queued, room)
    }

    /// Returns true if both sides are closed and nothing is left.
    pub fn is_over(&self) -> bool {
        self.connection.sides().are_over()
    }

    /// Returns the number of publishes whose outcome is unknown: forwarded and unanswered, or waiting.
    pub fn unresolved(&self) -> usize {
        self.connection.channels().total().unresolved
    }

    /// Returns the bytes held for waiting publishes.
    pub fn held_bytes(&self) -> usize {
        self.connection.channels().total().held
    }

    /// Returns the bytes that are held for the client.
    pub fn memory(&self) -> Memory {
        let total = self.connection.channels().total();
        Memory {
            held: IDLE + self.connection.memory() + total.memory,
            stuck: total.stuck,
            spare: self.connection.link().marks.spare(),
            frame: self.connection.sides().handshake.client_limit(),
        }
    }

    /// Returns the vhost, after the broker has opened the connection.
    pub fn vhost(&self) -> Option<&Bytes> {
        self.connection.sides().handshake.vhost()
    }

    /// Returns the names that the client has given for itself, after the broker has opened the connection.
    pub fn about(&self) -> Option<&Arc<About>> {
        self.connection.sides().handshake.about()
    }

    /// Returns the number of the client's channels that are open, or not closed yet by both sides.
    pub fn channels(&self) -> usize {
        self.connection.channels().len()
    }

    /// Returns the number of publishes of the client since it connected. Duplicates count, too.
    pub fn publishes(&self) -> u64 {
        self.connection.link().publishes
    }

    /// Returns how many of them were duplicates: dropped, or forwarded because the window only observes.
    pub fn duplicates(&self) -> u64 {
        self.connection.link().out.sightings.known()
    }

    /// Returns how many dropped publishes of audited windows were not told of since the last [`Output::Audited`].
    pub fn unaudited(&self) -> u64 {
        self.connection.link().out.sightings.unaudited()
    }

    /// Returns the number of messages that the broker has sent to the client: for its consumers, or in answer to `basic.get`.
    pub fn deliveries(&self) -> u64 {
        self.connection.link().deliveries
    }

    /// Returns true if both sides have agreed on heartbeats.
    pub fn has_heartbeats(&self) -> bool {
        self.connection.sides().upstream.clock().is_running()
    }

    /// Returns a login that was refused because the user may not log in from the client's address. Returns it once.
    pub fn take_refused_login(&mut self) -> Option<RefusedLogin> {
        self.connection.take_refused_login()
    }

    /// Returns how far the connection is.
    pub fn phase(&self) -> Phase {
        self.connection.sides().phase()
    }

    // ---- from the world ------------------------------------------------------------------------------------------

    /// Handles bytes from the client. Whole frames are taken out of `buf`; the beginning of a frame stays in it, and so does
    /// everything while [`Session::wants_client`] is false. Call again when that turns true and `buf` is not empty.
    pub fn handle_client(&mut self, buf: &mut BytesMut, now: Instant) {
        if buf.len() != self.client_rest {
            self.connection.sides_mut().client.clock_mut().heard(now);
        }
        if self.connection.sides().client.state() == ClientState::Greeting {
            self.greet(buf);
        }
        while self.wants_client() && self.connection.sides().client.state() != ClientState::Greeting {
            let (limit, one) = (
                self.connection.sides().handshake.client_limit(),
                !self.connection.sides().handshake.opened(),
            );
            if !self.connection.link_mut().inbound.refill(buf, limit, one) {
                break;
            }
            self.pump_inbound(now);
        }
        if self.connection.sides().client.is_gone() {
            buf.clear();
        }
        self.client_rest = buf.len();
        self.settle_down(now);
    }

    /// Handles bytes from the upstream. Whole frames are taken out of `buf`, always.
    pub fn handle_upstream(&mut self, buf: &mut BytesMut, now: Instant) {
        self.connection.sides_mut().upstream.clock_mut().heard(now);
        let mut inbound = Inbound::default();
        while self.connection.sides().upstream.is_heard() {
            let (limit, one) = (
                self.connection.sides().handshake.upstream_limit(),
                !self.connection.sides().handshake.opened(),
            );
            if !inbound.refill(buf, limit, one) {
                break;
            }
            let read = inbound.whole_read();
            while self.connection.sides().upstream.is_heard() && !inbound.is_empty() {
                if self.recv_deliveries(&mut inbound, &read, now) {
                    continue;
                }
                match inbound.next() {
                    Ok(Some(next)) => self.recv_upstream(next, next.view(&read), now),
                    Ok(None) => {}
                    Err(_) => self.connection.upstream_lost(now),
                }
            }
        }
        if matches!(
            self.connection.sides().upstream.state(),
            UpstreamState::Gone | UpstreamState::SaidClose { .. }
        ) {
            buf.clear();
        }
        self.settle_down(now);
    }

    /// Notes that the client is alive: bytes of it have arrived that were not handed over yet.
    pub fn handle_client_alive(&mut self, now: Instant) {
        self.connection.sides_mut().client.clock_mut().heard(now);
    }

    /// Returns the client's protocol header while the upstream connection is being opened; empty before and after.
    pub fn protocol_header(&self) -> &Bytes {
        self.connection.sides().upstream.protocol_header()
    }

    /// Handles that the upstream connection is open (answers [`Output::Dial`]).
    pub fn handle_upstream_open(&mut self, now: Instant) {
        if let Some(header) = self.connection.sides_mut().upstream.opened(now) {
            self.connection.link_mut().out.upstream.push(header);
        }
        self.settle_down(now);
    }

    /// As [`Session::handle_upstream_open`], but the shell has sent [`Session::protocol_header`] already. It has waited for the
    /// answer, too, because it wanted to know whether this node of the broker is alive.
    pub fn handle_upstream_greeted(&mut self, now: Instant) {
        self.connection.sides_mut().upstream.opened(now);
        self.settle_down(now);
    }

    /// Handles that the client's socket is at its end or broken.
    pub fn handle_client_eof(&mut self, now: Instant) {
        self.note_client_eof(now);
        self.settle_down(now);
    }

    fn note_client_eof(&mut self, now: Instant) {
        let linger = self.connection.shared().settings.linger;
        self.client_eof.get_or_insert(now + linger);
    }

    /// Handles that the upstream's socket is at its end or broken, or could not be opened.
    pub fn handle_upstream_eof(&mut self, now: Instant) {
        self.connection.upstream_lost(now);
        self.settle_down(now);
    }

    /// Handles the mail in [`Session::mailbox`].
    pub fn handle_mail(&mut self, now: Instant) {
        self.settle_down(now);
    }

    /// Handles that [`Session::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_held_back = self.is_at_publish_limit() || self.connection.next_is_blocked();
        self.connection.link_mut().is_held_back = is_held_back;
        if !self.is_over() && self.connection.handle_timeout(now) {
            self.note_client_eof(now);
        }
        self.awaited.look(self.connection.channels(), now);
        self.settle_down(now);
    }

    /// Frees memory, because the process holds too much, and this session more than `share` bytes. Channels with memory that
    /// only the client could free are closed, because the client is not read from: the largest channel first, until the rest
    /// is within the share. Before that, older deliveries are forgotten.
    pub fn handle_memory_pressure(&mut self, share: usize, now: Instant) {
        while self.memory().held > share && self.memory().spare > 0 {
            self.connection.link_mut().marks.halve();
        }
        while self.connection.sides().are_live() && self.connection.channels().total().stuck > share {
            let before = self.connection.channels().total().stuck;
            let Some(id) = self.connection.channels().most_stuck() else { break };
            self.connection.on_channel(id, now, |channel, _| channel.relieve());
            if self.connection.channels().total().stuck >= before && self.connection.sides().client.is_live()
            {
                // It is no single channel: there are too many of them.
                let fault = Fault::MemoryShort { held: before, closes: Closes::Connection };
                self.connection.fail(&fault, now);
            }
        }
        self.settle_down(now);
    }

    /// Closes the client's connection with the reason that it does not read: nothing of the `unread` bytes that wait for it could
    /// be written for as long as `patience`. The outcomes of its publishes are still awaited.
    pub fn handle_unread(&mut self, unread: usize, patience: Duration, now: Instant) {
        let unresolved = self.unresolved();
        self.connection.fail(&Fault::Unread { unread, unresolved, patience }, now);
        self.settle_down(now);
    }

    /// Looks at every n-th judged publish from now on, for a trace that it belongs to ([`Output::Traced`]). `left`: how many are passed
    /// over before the first one. 0, the default, looks at none.
    pub fn trace_every(&mut self, every: u32, left: u32) {
        self.connection.link_mut().out.traces.set(every, left);
    }

    /// Lets the connection be troubled as the orders say, or not at all. Begins a run, or ends one: then confirms that were held
    /// back are written.
    pub fn handle_chaos(&mut self, orders: Option<ChaosOrders>, now: Instant) {
        self.connection.order_chaos(orders);
        self.settle_down(now);
    }

    /// Closes the client's connection with 320 and this reason, because an operator wants it closed. The outcomes of its publishes
    /// are still awaited, so an id whose message the broker acks is remembered, although the client hears no ack.
    pub fn handle_forced_close(&mut self, reason: &str, now: Instant) {
        self.connection.fail(&Fault::Forced { reason: reason.into() }, now);
        self.settle_down(now);
    }

    /// Ends the session, because the process is about to end: settles everything in flight, then closes the client with 320. If the
    /// client has begun something that only it can end, it is read from until it has, or until [`Session::handle_drain_overdue`].
    pub fn handle_drain(&mut self, now: Instant) {
        self.drain = Drain::WhenClientHasFinished { until: now + self.connection.shared().settings.linger };
        self.settle_down(now);
    }

    /// Handles that the client has had its time to finish what it had begun.
    pub fn handle_drain_overdue(&mut self, now: Instant) {
        self.stop_reading(now);
        self.settle_down(now);
    }

    /// Handles that the process ends in a moment, although outcomes are missing: tells the client 320. What it has no ack for, it has to
    /// publish again.
    pub fn handle_drain_over(&mut self, now: Instant) {
        self.drain = Drain::Now;
        self.connection.drain_over(now);
        self.settle_down(now);
    }

    /// Sets how many publishes of the client are taken in all, of those that [`Session::publishes`] counts. The next one waits with
    /// everything behind it, and no message is left in the middle.
    pub fn handle_publish_limit(&mut self, limit: u64, now: Instant) {
        let was_held = self.is_at_publish_limit();
        self.publish_limit = limit;
        if was_held && !self.is_at_publish_limit() {
            self.settle_down(now);
        }
    }

    /// Begins a turn, in which as many frames of the client are handled as this, at least one. Publishes that stand whole behind each
    /// other count as one. Frames that were read and do not fit wait for the next turn. Without this call, a turn never ends.
    ///
    /// The shell lets others have their turns in between. A read of frames that are short and cost much, as `channel.open` does, would
    /// take milliseconds otherwise, and hundreds of clients that send nothing else would delay everybody by seconds.
    pub fn handle_turn(&mut self, frames: usize, now: Instant) {
        let was_over = self.is_turn_over();
        self.turn_left = frames.max(1);
        if was_over {
            self.settle_down(now);
        }
    }

    /// Notes whether the shell reads from the client. It stops while its buffers are full.
    pub fn handle_reading_client(&mut self, reading: bool, now: Instant) {
        self.connection.sides_mut().client.clock_mut().set_listening(reading, now);
    }

    /// Notes whether the shell reads from the upstream. It stops while its buffers are full.
    pub fn handle_reading_upstream(&mut self, reading: bool, now: Instant) {
        self.connection.sides_mut().upstream.clock_mut().set_listening(reading, now);
        self.awaited.set_reading(reading, now);
    }

    // ---- to the world --------------------------------------------------------------------------------------------

    /// Returns the next order for the shell; `None` when there is nothing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        let link = self.connection.link_mut();
        let output = link.out.poll().or_else(|| link.bad_headers.poll());
        output.or_else(|| link.chaos.as_mut()?.poll())
    }

    /// Returns when [`Session::handle_timeout`] has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let channels = self.connection.channels().deadline();
        let awaited = self.awaited.deadline().filter(|_| self.unresolved() > 0);
        let held = self.connection.link().chaos.as_ref().and_then(|chaos| chaos.deadline());
        earliest([self.connection.sides().deadline(), channels, self.client_eof, awaited, held])
    }

    // ---- the client's frames ---------------------------------------------------------------------------------------

    /// Reads the protocol header, if all of it is there.
    fn greet(&mut self, buf: &mut BytesMut) {
        let Some(header) = buf.get(..PROTOCOL_HEADER.len()) else { return };
        if header == PROTOCOL_HEADER || header == PROTOCOL_HEADER_0_9 {
            let header = buf.split_to(PROTOCOL_HEADER.len()).freeze();
            self.connection.greet(header);
        } else {
            self.connection.reject(Bytes::from_static(&PROTOCOL_HEADER));
        }
    }

    /// Handles the frames that were read, as far as they are wanted now.
    fn pump_inbound(&mut self, now: Instant) {
        if self.connection.link().inbound.is_empty() {
            return;
        }
        let mut chunk = Chunk::default();
        loop {
            if self.connection.renumber_next() {
                chunk = Chunk::default();
            }
            if !self.wants_client() || self.connection.link().inbound.is_empty() {
                break;
            }
            if self.turn_left != usize::MAX {
                self.turn_left -= 1;
            }
            if self.recv_publishes(now) {
                continue;
            }
            match self.connection.link_mut().inbound.next() {
                Ok(Some(next)) => {
                    if !chunk.holds(next) {
                        chunk = self.connection.link_mut().inbound.chunk_of(next);
                    }
                    self.recv_client(next, next.view(&chunk), now);
                }
                Ok(None) => {}
                Err(error) => self.connection.fail(&Fault::Wire(error), now),
            }
        }
        self.connection.link_mut().inbound.release();
    }

    /// Handles publishes that stand whole in the read and come next. Returns true if there were any.
    fn recv_publishes(&mut self, now: Instant) -> bool {
        let next = self.connection.link().inbound.peek().filter(|next| next.kind == FrameKind::Method);
        let Some(next) = next.filter(|_| self.connection.sides().are_live()) else { return false };
        let before = self.connection.link().publishes;
        let most = self.connection.shared().settings.max_unresolved;
        let room = most.saturating_sub(self.connection.channels().total().unresolved);
        let room = room.min(usize::try_from(self.publish_limit.saturating_sub(before)).unwrap_or(usize::MAX));
        self.connection.on_channel(next.channel, now, |channel, cx| channel.recv_publishes(room, cx));
        self.connection.link().publishes != before
    }

    /// Handles a frame of the client.
    fn recv_client(&mut self, next: ReadFrame, frame: View<'_>, now: Instant) {
        let ReadFrame { kind, channel, .. } = next;
        let is_heartbeat = kind == FrameKind::Heartbeat && channel == ChannelId::CONNECTION;
        if self.connection.sides().client.is_gone() || is_heartbeat {
            return;
        }
        if channel == ChannelId::CONNECTION {
            return self.connection.recv_client(kind, frame, now);
        }
        if !self.connection.sides().are_live() {
            return;
        }
        let opened = self.connection.sides().handshake.opened();
        let Link { out, inbound, publishes, .. } = self.connection.link_mut();
        if !opened {
            // Nobody has logged in: the broker refuses this frame. It is not looked at.
            out.upstream.forward(frame);
            return;
        }
        let method = frame.method(kind);
        *publishes += u64::from(method == Some(MethodId::BASIC_PUBLISH));
        let then = inbound.peek().map(|then| (then.kind, then.channel));
        let whole = then == Some((FrameKind::Header, channel));
        if method == Some(MethodId::CHANNEL_OPEN) && !self.connection.channels().contains(channel) {
            return self.connection.open_channel(channel, frame, now);
        }
        if !self
            .connection
            .on_channel(channel, now, |channel, cx| channel.recv_client(kind, frame, whole, cx))
        {
            // The channel is not open: the broker says so. If both sides had closed it, Hapax has answered the upstream
            // already.
            let is_close_ok = method == Some(MethodId::CHANNEL_CLOSE_OK);
            if !is_close_ok || !self.connection.channels_mut().recv_close_ok(channel) {
                self.connection.link_mut().out.upstream.forward(frame);
            }
        }
    }

    // ---- the upstream's frames -------------------------------------------------------------------------------------

    /// Handles deliveries that stand whole in the read and come next. Returns true if there were any.
    fn recv_deliveries(&mut self, inbound: &mut Inbound, read: &Chunk, now: Instant) -> bool {
        let Some(channel) = inbound.peek().map(|next| next.channel) else { return false };
        let Some(first) = inbound.whole(0, channel, MethodId::BASIC_DELIVER) else { return false };
        let mut passed = false;
        self.connection.on_channel(channel, now, |channel, cx| {
            passed = channel.recv_deliveries(first, inbound, read, cx);
            Ok(())
        });
        passed
    }

    /// Handles a frame of the upstream.
    fn recv_upstream(&mut self, next: ReadFrame, frame: View<'_>, now: Instant) {
        let ReadFrame { kind, channel, .. } = next;
        if kind == FrameKind::Heartbeat {
            return;
        }
        if channel == ChannelId::CONNECTION {
            return self.connection.recv_upstream(kind, frame, now);
        }
        let Link { out, probes, exclusive, .. } = self.connection.link_mut();
        if exclusive.channel() == Some(channel) {
            if let Some(id) = frame.method(kind) {
                exclusive.recv(id, &mut out.upstream);
            }
            return;
        }
        if probes.channel() == Some(channel) {
            if kind == FrameKind::Method {
                let answers = probes.recv(frame.payload(), &mut out.upstream);
                self.connection.recv_answers(answers, now);
            }
            return;
        }
        if !self.connection.on_channel(channel, now, |channel, cx| channel.recv_upstream(kind, frame, cx)) {
            self.connection.link_mut().out.client.forward(frame);
        }
    }

    // ---- going on ---------------------------------------------------------------------------------------------------

    /// Ends the session when the process is about to end and the client has finished what it had begun.
    fn follow_drain(&mut self, now: Instant) {
        if matches!(self.drain, Drain::No | Drain::Now) {
            return;
        }
        if self.connection.awaits_client() {
            self.connection.stop_consumers(now);
        } else {
            self.stop_reading(now);
        }
    }

    /// Reads nothing more from the client, and ends the session when everything is settled.
    fn stop_reading(&mut self, now: Instant) {
        let until = match std::mem::replace(&mut self.drain, Drain::Now) {
            Drain::WhenClientHasFinished { until } => until,
            Drain::No | Drain::Now => now + self.connection.shared().settings.linger,
        };
        self.connection.drain(until, now);
    }

    /// Does everything that an event has made possible.
    fn settle_down(&mut self, now: Instant) {
        // The mail may promote a waiter, which would be in doubt with everything else if the upstream is dead by now. (The
        // shell hands over all that the upstream has sent before it asks.)
        if self.connection.sides().upstream.clock().is_dead(now) {
            self.connection.upstream_lost(now);
        }
        loop {
            let quiet = !self.connection.recv_mail(now);
            self.pump_inbound(now);
            // An answer that is written may make room for frames that were read already.
            self.connection.flush(now);
            let most = self.connection.shared().settings.max_unresolved;
            let room = self.unresolved() < most;
            if room && self.connection.channels().has_ready() {
                self.connection.go_on(now);
            }
            let reads = !self.connection.link().inbound.is_empty() && self.wants_client();
            if quiet && !reads && !(room && self.connection.channels().has_ready()) {
                break;
            }
        }
        let nothing_read = self.connection.link().inbound.is_empty();
        if let Some(until) = self.client_eof
            && (nothing_read
                || now >= until
                || self.connection.sides().are_ending()
                || !self.connection.sides().upstream.is_live())
        {
            self.client_eof = None;
            self.connection.client_lost(now);
        }
        if self.connection.link().chaos.is_some() {
            self.connection.inflict(now);
        }
        self.follow_drain(now);
        self.connection.start_probe(now);
        self.connection.free_place();
        self.connection.end_if_settled(now);
        self.connection.flush(now);
        self.connection.tell_blocked();
        self.connection.note_sent(now);
    }
}
