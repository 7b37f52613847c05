//! One client connection: one task with both sockets and one session.
//!
//! [`Pump::carry_out`] holds every side effect of a session. The pump stops reading from one side while the other side
//! can't be written to: a slow consumer stops the reading from the broker, and a blocked broker stops the reading from
//! the publisher. A client that publishes and does not read must not stop itself by that: see `Session::reading`.

use super::alarm::Alarm;
use super::connections::{ConnectionEntry, ConnectionState, Numbers};
use super::current::DrainEnd;
use super::drain_watch::DrainWatch;
use super::memory::Holding;
use super::proxy::Ends;
use super::rates::Allowance;
use super::side::{ReadOutcome, Side};
use super::slots::ConnectionSlot;
use super::upstreams::{Dialled, Unreachable};
use super::{CurrentRelay, Gate, LogLimiters, Rates, Relay, Span, bad_headers, now};
use crate::signals::Publisher;
use bytes::Bytes;
use hapax_core::session::{
    ChaosDeed, Memory, Output, Queued, Reading, RefusedBecause, Room, Session, Sighted, Sighting, Traced,
    counted_as,
};
use hapax_core::window::OnConflict;
use hapax_core::wire::BadHeader;
use hapax_core::wire::emit::HEARTBEAT;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a closing socket may take to write the bytes that are still queued.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);
/// How long a client that has not logged in yet may take for that when a drain begins, so that it can be told why it is closed. Strangers
/// hold up the end of the process for this long.
const LOGIN_PATIENCE: Duration = Duration::from_secs(1);
/// The most bytes that are read from a client while it waits for a node of the broker, in addition to one read.
const EARLY_BYTES: usize = 8 << 10;
/// Frames of the client that are handled before other tasks get a turn. The dearest frame takes about a microsecond and a half.
const FRAMES_PER_TURN: usize = 256;
/// Bytes to read from both sides before other tasks get a turn, however soon there is more. A read full of duplicates takes a millisecond.
const READ_BEFORE_OTHERS: u64 = 256 << 10;
/// Bytes to read from the upstream before other tasks get a turn.
const READ_PER_TURN: u64 = 1 << 20;
/// Bytes to read from the upstream before an overdue timeout is handled, even if there is more to read. A socket
/// buffers less than this (6 MiB by default), so everything that had arrived when the timeout became due has been
/// read.
const READ_BEFORE_TIMEOUT: u64 = 8 << 20;

/// A client connection that has come as far as AMQP.
pub(super) struct Arrival {
    /// its socket, with what was read already
    pub(super) client: Side,
    /// where it comes from, and where to
    pub(super) ends: Ends,
    pub(super) slot: ConnectionSlot,
    /// reports its memory to the process's memory limit
    pub(super) holding: Holding,
    /// when it was accepted
    pub(super) since: Instant,
}

/// Runs a client connection until it ends.
pub(super) async fn run(relay: &Relay, arrival: Arrival, gate: &Gate, draining: watch::Receiver<bool>) {
    let log_limiters = &*gate.log_limiters;
    let Arrival { client, ends, slot, holding, since } = arrival;
    let peer = ends.client;
    let mut session = Session::new(relay.shared.clone(), peer.ip(), since);
    if let Some(spans) = &relay.spans {
        let (every, left) = spans.pace();
        session.trace_every(every, left);
    }
    let present = relay.connections.enter(peer, since, session.mailbox());
    let pump = Pump {
        relay,
        log_limiters,
        current: &gate.current,
        peer,
        ends,
        slot,
        holding,
        logged_in: false,
        entry: &present.entry,
        session,
        client: Some(client),
        upstream: UpstreamSocket::None,
        reading_client: true,
        reading_upstream: true,
        unheard: true,
        client_eof_told: false,
        upstream_eof_told: false,
        share: None,
        stall: None,
        allowance: Allowance::default(),
        was_held: false,
        chaos_seen: 0,
        gave_way_at: 0,
        deadline: None,
        alarm: Alarm::default(),
        drained: false,
        forced: false,
        drain_overdue: None,
        drain_over: None,
        read_while_due: 0,
        now: now(),
    };
    pump.run(draining).await;
}

type Dial<'a> = Pin<Box<dyn Future<Output = Result<Dialled, Unreachable>> + Send + 'a>>;

enum UpstreamSocket<'a> {
    None,
    Dialing(Dial<'a>),
    Open(Side),
}

/// Why the task woke up.
enum Wake {
    Sockets,
    Dialled(Result<Dialled, Unreachable>),
    Mail,
    Timeout,
    Drain,
}

/// A time in which neither side is read from, because the client does not read.
#[derive(Clone, Copy)]
struct Stall {
    /// When the connection is closed for that.
    until: Instant,
    /// Bytes that were written to the client when it began.
    written: u64,
}

struct Pump<'a> {
    relay: &'a Relay,
    log_limiters: &'a LogLimiters,
    /// Says how long a drain may take when it begins.
    current: &'a CurrentRelay,
    peer: SocketAddr,
    ends: Ends,
    slot: ConnectionSlot,
    /// Reports this connection's memory to the process's memory limit.
    holding: Holding,
    /// The client has logged in, and the work that follows a login is done ([`Pump::on_login`]).
    logged_in: bool,
    entry: &'a ConnectionEntry,
    session: Session,
    client: Option<Side>,
    upstream: UpstreamSocket<'a>,
    reading_client: bool,
    reading_upstream: bool,
    /// The session has not seen what lies in the client's inbox, or did not want all of it. No event of the socket says when it does.
    unheard: bool,
    client_eof_told: bool,
    upstream_eof_told: bool,
    /// The connection's share of the memory limit, if the connection holds more than that now.
    share: Option<usize>,
    /// The client does not read, and so nothing goes on.
    stall: Option<Stall>,
    /// How much the client may publish.
    allowance: Allowance,
    /// The client had to wait for that once.
    was_held: bool,
    /// The generation of the orders about chaos that the session follows.
    chaos_seen: u64,
    /// Bytes that were read when other tasks had their last turn.
    gave_way_at: u64,
    /// The earliest timeout, as of the last wait.
    deadline: Option<Instant>,
    alarm: Alarm,
    /// The process is about to end, and the session knows it.
    drained: bool,
    /// An operator wants the connection closed, and the session knows it.
    forced: bool,
    /// When the client has had its time to finish what it had begun.
    drain_overdue: Option<Instant>,
    /// The time at which the client is told that the process ends, even if outcomes are missing.
    drain_over: Option<Instant>,
    /// Bytes read from the upstream since that timeout became due.
    read_while_due: u64,
    now: Instant,
}

impl Pump<'_> {
    async fn run(mut self, draining: watch::Receiver<bool>) {
        let mut drain = DrainWatch::new(draining);
        loop {
            self.carry_out();
            self.refuse_stuck();
            self.end_if_stalled();
            self.drop_closed_sockets().await;
            self.note();
            self.on_login();
            self.on_refused_login();
            if self.session.is_over()
                && self.client.is_none()
                && matches!(self.upstream, UpstreamSocket::None)
            {
                self.relay.signals.audit.leave_out(self.session.unaudited());
                return;
            }
            if self.close_if_asked() {
                continue;
            }
            self.give_way().await;
            let wake = self.wait(&mut drain).await;
            self.now = now();
            self.limit_publishes();
            self.follow_chaos();
            // Read the upstream's answers first, whatever woke the task: if a timeout were handled before an answer
            // that has already arrived, the publish would count as in doubt. Then handle timeouts, then the reason for
            // waking up. Handle mail last: mail may promote a waiting publish, and that must not be sent to an
            // upstream that is dead.
            self.read_upstream();
            self.handle_due_timeouts();
            let mail = matches!(wake, Wake::Mail);
            match wake {
                Wake::Sockets | Wake::Timeout | Wake::Mail => {}
                Wake::Dialled(Ok(dialled)) => self.on_dialled(dialled),
                Wake::Dialled(Err(unreachable)) => self.on_unreachable(&unreachable),
                Wake::Drain => {
                    self.drained = true;
                    let drain = self.current.now().settings.drain_timeout;
                    self.drain_overdue = Some(self.now + self.drain_patience(drain));
                    self.drain_over = Some(self.now + DrainEnd::of(drain).told);
                    self.session.handle_drain(self.now);
                }
            }
            self.session.handle_turn(FRAMES_PER_TURN, self.now);
            self.read_client();
            if mail {
                self.session.handle_mail(self.now);
            }
            self.count_publishes();
        }
    }

    /// Closes the connection if an operator wants that. Returns true if there is something to carry out. Nothing takes calls out of the
    /// mailbox between this and the wait, so the call that comes with the wish is never missed.
    fn close_if_asked(&mut self) -> bool {
        let Some(reason) = self.entry.close_reason().filter(|_| !self.forced) else { return false };
        self.forced = true;
        self.session.handle_forced_close(reason, self.now);
        true
    }

    /// Handles that a node of the broker has answered the client's protocol header.
    fn on_dialled(&mut self, dialled: Dialled) {
        self.entry.set_upstream(&dialled.upstream);
        let mut side = Side::dialled(dialled);
        self.session.handle_upstream_greeted(self.now);
        self.session.handle_upstream(&mut side.inbox, self.now);
        side.free_idle_inbox();
        self.upstream = UpstreamSocket::Open(side);
    }

    /// Handles that no node of the broker could be reached.
    fn on_unreachable(&mut self, unreachable: &Unreachable) {
        self.upstream = UpstreamSocket::None;
        self.relay.stats.dial_failed();
        if let Some(left_out) = self.log_limiters.unreachable.happened(self.now) {
            let Unreachable { upstream, error } = unreachable;
            tracing::warn!(peer = %self.peer, upstream = &**upstream, %error, left_out, "can't reach the broker");
        }
        self.session.handle_upstream_eof(self.now);
    }

    /// Gives the session its orders about chaos, if they have changed. Before the login nobody knows whether it may be troubled.
    #[inline]
    fn follow_chaos(&mut self) {
        let generation = self.relay.chaos.generation();
        if generation != self.chaos_seen && self.logged_in {
            self.chaos_seen = generation;
            let user = self.session.about().and_then(|about| about.user.as_deref());
            let vhost = self.session.vhost().map(|vhost| &**vhost).unwrap_or_default();
            let orders = self.relay.chaos.orders(self.entry.id, vhost, user);
            self.session.handle_chaos(orders, self.now);
        }
    }

    /// Notes what the session has done because of chaos.
    fn on_chaos(&self, deed: ChaosDeed) {
        let user = self.session.about().and_then(|about| about.user.as_deref());
        let vhost = self.session.vhost().map(|vhost| &**vhost).unwrap_or_default();
        self.relay.chaos.note(deed, vhost, user);
    }

    /// Updates this connection's entry in the list of connections.
    fn note(&self) {
        // The client's socket may be closed already. Then the byte counts stay at their last values.
        let last = self.entry.numbers();
        let (bytes_in, bytes_out) =
            self.client.as_ref().map_or((last.bytes_in, last.bytes_out), Side::totals);
        let deliveries = self.session.deliveries();
        self.relay.stats.delivered(deliveries - last.deliveries);
        self.entry.note(Numbers {
            state: ConnectionState::of(self.session.phase(), self.reading_client),
            channels: self.session.channels() as u64,
            unresolved: self.session.unresolved() as u64,
            publishes: self.session.publishes(),
            duplicates: self.session.duplicates(),
            deliveries,
            bytes_in,
            bytes_out,
        });
        self.entry.identify(self.session.about(), self.session.vhost());
    }

    /// Does what is due once, when the client has logged in. The connection keeps its slot, so a newcomer can't
    /// displace it. If the connection has no heartbeats, the kernel is asked to notice when a peer's host vanishes.
    fn on_login(&mut self) {
        if self.logged_in || self.session.vhost().is_none() {
            return;
        }
        self.logged_in = true;
        self.slot.log_in();
        self.follow_chaos();
        let user = self.session.about().and_then(|about| about.user.as_deref());
        let user = counted_as(user, self.peer.ip());
        let vhost = self.session.vhost().map(|vhost| &**vhost).unwrap_or_default();
        self.allowance = self.relay.buckets.of(user.as_bytes(), vhost, self.now);
        let timeout = self.relay.settings.tcp_user_timeout;
        if self.session.has_heartbeats() || timeout.is_zero() {
            return;
        }
        if let Some(side) = &mut self.client {
            side.break_when_unacked(timeout);
        }
        if let UpstreamSocket::Open(side) = &mut self.upstream {
            side.break_when_unacked(timeout);
        }
    }

    /// Counts and logs a login that the session has refused.
    fn on_refused_login(&mut self) {
        let Some(refused) = self.session.take_refused_login() else { return };
        if let RefusedBecause::UserConnections { max } = refused.reason {
            self.relay.stats.rejected_by_user();
            let Some(left_out) = self.log_limiters.user.happened(self.now) else { return };
            let user = refused.user.as_deref().unwrap_or_default();
            tracing::warn!(peer = %self.peer, user, max, left_out, "connection refused: limits.connections_per_user reached");
            return;
        }
        self.relay.stats.login_refused();
        let Some(left_out) = self.log_limiters.login.happened(self.now) else { return };
        let (peer, mechanism) = (self.peer, &refused.mechanism);
        match (refused.reason, refused.user) {
            (RefusedBecause::UserConnections { .. }, _) => {}
            (RefusedBecause::External, _) => {
                tracing::warn!(%peer, mechanism = &**mechanism, left_out, "login refused: TLS ends in hapax, so the broker can't see the client's certificate");
            }
            (RefusedBecause::Loopback, Some(user)) => {
                tracing::warn!(%peer, user = &*user, mechanism = &**mechanism, left_out, "login refused: this user may log in from this host only (loopback_users)");
            }
            (RefusedBecause::Loopback, None) => {
                tracing::warn!(%peer, mechanism = &**mechanism, left_out, "login refused: this mechanism does not show the user, who may be one of loopback_users; loopback_users = [] allows it");
            }
        }
    }

    /// Gives other tasks a turn if much was read since their last one. While a socket has more to read, [`Pump::wait`] ends at once: a client
    /// that never stops would keep a worker thread for itself, and as many of them as there are threads would keep the process.
    async fn give_way(&mut self) {
        let client = self.client.as_ref().map_or(0, |side| side.totals().0);
        let upstream = if let UpstreamSocket::Open(side) = &self.upstream { side.totals().0 } else { 0 };
        let read = client + upstream;
        if read.abs_diff(self.gave_way_at) >= READ_BEFORE_OTHERS {
            self.gave_way_at = read;
            tokio::task::yield_now().await;
        }
    }

    /// Waits until a socket is ready, the dial ends, mail arrives, a timeout is due, memory is free again, or the
    /// drain begins.
    async fn wait(&mut self, drain: &mut DrainWatch) -> Wake {
        if self.owes_eof() || self.unheard && self.client.as_ref().is_some_and(|side| self.is_wanted(side)) {
            return Wake::Sockets;
        }
        let (reading_client, reading_upstream) = (self.reading_client, self.reading_upstream);
        let drained = self.drained;
        let deadlines = [
            self.session.poll_timeout(),
            self.stall.map(|stall| stall.until),
            self.drain_overdue,
            self.drain_over,
            self.allowance.until(),
            self.client.as_ref().and_then(Side::deadline),
            match &self.upstream {
                UpstreamSocket::Open(side) => side.deadline(),
                UpstreamSocket::None | UpstreamSocket::Dialing(_) => None,
            },
        ];
        let deadline = deadlines.into_iter().flatten().min();
        self.deadline = deadline;
        let (client, upstream, mailbox) = (self.client.as_ref(), &mut self.upstream, self.session.mailbox());
        let mut alarm = pin!(self.alarm.wait(deadline));
        let (waits, is_turn_over) = (self.holding.is_waiting(), self.session.is_turn_over());
        let mut room = pin!(waits.then(|| self.holding.wait_for_room()));
        let mut turn = pin!(is_turn_over.then(tokio::task::yield_now));
        // Whatever has woken the task, both sockets are read and what is due is handled: the order of these questions starves nobody.
        poll_fn(|cx| {
            if !drained && drain.poll_begun(cx).is_ready() {
                return Poll::Ready(Wake::Drain);
            }
            if let UpstreamSocket::Dialing(dial) = upstream
                && let Poll::Ready(dialled) = dial.as_mut().poll(cx)
            {
                return Poll::Ready(Wake::Dialled(dialled));
            }
            if mailbox.register(cx.waker()) {
                return Poll::Ready(Wake::Mail);
            }
            let mut is_ready = client.is_some_and(|side| side.poll_ready(reading_client, cx).is_ready());
            if let UpstreamSocket::Open(side) = upstream {
                is_ready |= side.poll_ready(reading_upstream, cx).is_ready();
            }
            is_ready |= room.as_mut().as_pin_mut().is_some_and(|room| room.poll(cx).is_ready());
            is_ready |= turn.as_mut().as_pin_mut().is_some_and(|turn| turn.poll(cx).is_ready());
            if is_ready {
                return Poll::Ready(Wake::Sockets);
            }
            alarm.as_mut().poll(cx).map(|()| Wake::Timeout)
        })
        .await
    }

    /// Returns true if a socket has ended (a failed write can end it, too) and the session does not know that yet.
    fn owes_eof(&self) -> bool {
        let client = self.client.as_ref().is_some_and(Side::has_ended) && !self.client_eof_told;
        let upstream = matches!(&self.upstream, UpstreamSocket::Open(side) if side.has_ended())
            && !self.upstream_eof_told;
        let is_dialing = matches!(self.upstream, UpstreamSocket::Dialing(_));
        client && (self.session.wants_client() || is_dialing) || upstream
    }

    /// Returns true if the session takes frames of the client, and the inbox may have some.
    fn is_wanted(&self, client: &Side) -> bool {
        !client.inbox.is_empty() && self.session.wants_client()
    }

    /// Returns true if the client waits for a node of the broker. It has nothing to say yet, but it may leave: then nobody must be
    /// dialled for it any longer, least of all while a crowd of strangers keeps the nodes busy. Few bytes are read meanwhile.
    fn is_early(&self) -> bool {
        let few = self.client.as_ref().is_some_and(|side| side.inbox.len() < EARLY_BYTES);
        few && matches!(self.upstream, UpstreamSocket::Dialing(_))
    }

    /// Returns true if a timeout is due.
    fn is_due(&self) -> bool {
        self.deadline.is_some_and(|at| at <= self.now)
    }

    /// Reads from the upstream until nothing is left, `READ_PER_TURN` bytes are read, or the client's write buffer is full.
    /// When a timeout is due, the kernel is asked directly whether more has arrived.
    fn read_upstream(&mut self) {
        let due = self.is_due();
        let mut read = 0;
        let mut outcome = ReadOutcome::More;
        while self.reading_upstream && outcome == ReadOutcome::More && read < READ_PER_TURN {
            let UpstreamSocket::Open(side) = &mut self.upstream else { break };
            let before = side.totals().0;
            outcome = if due { side.read_from_kernel() } else { side.read() };
            if due && outcome == ReadOutcome::Last && !side.has_ended() {
                outcome = ReadOutcome::More;
            }
            if outcome != ReadOutcome::Nothing {
                read += side.totals().0 - before;
                self.session.handle_upstream(&mut side.inbox, self.now);
                side.free_idle_inbox();
            }
            if outcome == ReadOutcome::More {
                self.carry_out();
            }
        }
        // If the loop stopped before `READ_PER_TURN` bytes, it had read everything.
        self.read_while_due = if due && read >= READ_PER_TURN { self.read_while_due + read } else { 0 };
        if let UpstreamSocket::Open(side) = &self.upstream
            && side.has_ended()
            && !self.upstream_eof_told
        {
            self.upstream_eof_told = true;
            if side.was_cut() {
                tracing::debug!(peer = %self.peer, "the broker has cut TLS: nothing said that its data was whole (close_notify)");
            }
            self.session.handle_upstream_eof(self.now);
        }
    }

    /// Handles timeouts that are due, such as a silent peer or a publish that has waited too long. Waits with that
    /// until all bytes are read that had arrived before the timeout.
    fn handle_due_timeouts(&mut self) {
        let more_to_read = self.read_while_due > 0 && self.read_while_due < READ_BEFORE_TIMEOUT;
        if !self.is_due() || more_to_read {
            return;
        }
        self.read_while_due = 0;
        if self.reading_client && self.client.as_ref().is_some_and(Side::has_unread) {
            self.session.handle_client_alive(self.now);
        }
        self.session.handle_timeout(self.now);
        if self.drain_overdue.take_if(|at| *at <= self.now).is_some() {
            self.session.handle_drain_overdue(self.now);
        }
        if self.drain_over.take_if(|at| *at <= self.now).is_some() {
            self.session.handle_drain_over(self.now);
        }
    }

    /// Returns how long the client may take to finish what it has begun, when a drain begins. The second half of the drain's time is for
    /// outcomes that the broker owes.
    fn drain_patience(&self, drain: Duration) -> Duration {
        let half = drain / 2;
        if self.logged_in { half } else { half.min(LOGIN_PATIENCE) }
    }

    /// Reads the client's socket once, if it may be read, and passes the bytes to the session.
    fn read_client(&mut self) {
        let Some(side) = &mut self.client else { return };
        let came = self.reading_client && side.read() != ReadOutcome::Nothing;
        if came || !side.inbox.is_empty() && self.session.wants_client() {
            self.session.handle_client(&mut side.inbox, self.now);
            side.free_idle_inbox();
        }
        self.unheard = !side.inbox.is_empty() && !self.session.wants_client();
        // Report the end only after the session has seen all bytes that came before it.
        let has_ended = side.has_ended() && !self.client_eof_told;
        let is_dialing = matches!(self.upstream, UpstreamSocket::Dialing(_));
        if has_ended && (self.session.wants_client() || is_dialing) {
            self.client_eof_told = true;
            if side.was_cut() {
                tracing::debug!(peer = %self.peer, "the client has cut TLS: nothing said that its data was whole (close_notify)");
            }
            self.session.handle_client_eof(self.now);
        }
    }

    /// Carries out the session's outputs, writes what the sockets accept, and decides which side may be read.
    fn carry_out(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Dial => self.dial(),
                Output::ToClient(bytes) => self.write_client(bytes),
                Output::ToUpstream(bytes) => self.write_upstream(bytes),
                Output::HeartbeatClient => self.beat_client(),
                Output::HeartbeatUpstream => self.beat_upstream(),
                Output::CloseClient => self.close_client(),
                Output::CutClient => self.cut_client(),
                Output::CloseUpstream => self.close_upstream(),
                Output::CutUpstream => self.cut_upstream(),
                Output::Sighted(sighting) => self.on_sighting(sighting),
                Output::Audited(sighting) => self.relay.signals.audit(self.publisher(), &sighting, self.now),
                Output::Copied(copy) => self.relay.signals.copy(self.publisher(), *copy, self.now),
                Output::BadHeader(header) => self.log_bad_header(header),
                Output::Chaos(deed) => self.on_chaos(*deed),
                Output::Kept(publish) => self.relay.chaos.keep(*publish),
                Output::Traced(traced) => self.on_traced(traced),
            }
        }
        if let Some(side) = &mut self.client {
            side.flush();
        }
        if let UpstreamSocket::Open(side) = &mut self.upstream {
            side.flush();
        }
        self.apply_back_pressure();
    }

    fn dial(&mut self) {
        let (upstreams, ends) = (&self.relay.upstreams, self.ends);
        let header = self.session.protocol_header().clone();
        self.upstream = UpstreamSocket::Dialing(Box::pin(async move { upstreams.dial(&header, ends).await }));
    }

    /// Closes and drops the sockets that have nothing more to write.
    async fn drop_closed_sockets(&mut self) {
        // Before the login there is nothing that the broker must have read.
        let must_be_read = self.logged_in;
        if let UpstreamSocket::Open(side) = &mut self.upstream
            && if must_be_read { side.is_read_out(self.now) } else { side.is_done(self.now) }
        {
            side.say_good_bye();
            self.upstream = UpstreamSocket::None;
            self.apply_back_pressure();
        }
        if let Some(mut side) = self.client.take_if(|side| side.is_done(self.now)) {
            if self.drained {
                // The client has answered `connection.close`, or has had the time to.
                side.say_good_bye();
                drop(side);
            } else if matches!(self.upstream, UpstreamSocket::None) && self.session.is_over() {
                // The future holds a read buffer. In a box, that buffer does not enlarge the task of every connection.
                Box::pin(side.farewell()).await;
            } else {
                // The upstream connection still waits for outcomes, so do not make it wait for the client's socket to
                // close.
                tokio::spawn(side.farewell());
            }
            self.apply_back_pressure();
        }
    }

    /// Refuses held publishes that would never leave memory, because the client is not read from while it holds too
    /// much.
    fn refuse_stuck(&mut self) {
        let Some(share) = self.share else { return };
        let memory = self.session.memory();
        // If nothing else can become less, all that is held has to fit into the share, and not only what is stuck.
        let queued = self.client.as_ref().map_or(0, Side::queued) + self.upstream_queued();
        let rest = if queued == 0 && self.session.unresolved() == 0 {
            self.held(&memory).saturating_sub(memory.stuck + memory.spare)
        } else {
            0
        };
        let room = share.saturating_sub(rest);
        if memory.stuck > room || (memory.spare > 0 && memory.held > share) {
            self.session.handle_memory_pressure(room, self.now);
            self.carry_out();
        }
    }

    /// Returns the bytes that the connection holds.
    fn held(&self, memory: &Memory) -> usize {
        let client = self.client.as_ref().map_or(0, Side::memory);
        let upstream = if let UpstreamSocket::Open(side) = &self.upstream { side.memory() } else { 0 };
        memory.held + client + upstream
    }

    /// Reports how much memory the connection holds. Returns its share of the limit if it holds too much.
    fn report_memory(&mut self) -> Option<usize> {
        let memory = self.session.memory();
        let share = self.holding.report(self.held(&memory), memory.frame);
        let tight = self.holding.is_tight();
        if let Some(side) = &mut self.client {
            side.set_short_reads(tight);
        }
        if let UpstreamSocket::Open(side) = &mut self.upstream {
            side.set_short_reads(tight);
        }
        share
    }

    /// Applies back-pressure. The session says which side may be read from. The client is read only while the connection
    /// holds no more memory than it may.
    fn apply_back_pressure(&mut self) {
        self.share = self.report_memory();
        let queued =
            Queued { client: self.client.as_ref().map_or(0, Side::queued), upstream: self.upstream_queued() };
        let room = Room {
            buffer: self.relay.settings.buffer_bytes.min(self.share.unwrap_or(usize::MAX)),
            unread: self.share.is_none().then_some(self.relay.settings.unread_bytes),
        };
        let Reading { mut client, mut upstream } = self.session.reading(queued, room);
        client |= self.is_early();
        // The session drops the bytes that come.
        upstream |= matches!(&self.upstream, UpstreamSocket::Open(side) if side.is_closing());
        if client != self.reading_client {
            self.reading_client = client;
            self.session.handle_reading_client(client, self.now);
        }
        if upstream != self.reading_upstream {
            self.reading_upstream = upstream;
            self.session.handle_reading_upstream(upstream, self.now);
        }
    }

    /// Tells the session how many publishes it may take. When the client's socket has ended, the session takes at once all that was read, and
    /// the user is charged for it. Otherwise it would be lost when the linger is over.
    fn limit_publishes(&mut self) {
        let has_left = self.client.as_ref().is_none_or(Side::has_ended);
        let limit = self.allowance.limit(self.now);
        self.session.handle_publish_limit(if has_left { u64::MAX } else { limit }, self.now);
    }

    /// Charges the user and the vhost for what the client has published. If the client has more to publish than it may, it waits.
    fn count_publishes(&mut self) {
        let more = self.session.is_at_publish_limit();
        let stats = &self.relay.stats;
        if !self.allowance.spend(self.session.publishes(), more, stats, self.now) || self.was_held {
            return;
        }
        self.was_held = true;
        let Some(left_out) = self.log_limiters.held.happened(self.now) else { return };
        let user = self.session.about().and_then(|about| about.user.as_deref()).unwrap_or_default();
        let vhost = self.session.vhost().map(|vhost| String::from_utf8_lossy(vhost)).unwrap_or_default();
        let Rates { per_user, per_vhost, .. } = self.relay.settings.rates;
        tracing::warn!(peer = %self.peer, user, vhost = &*vhost, per_user, per_vhost, left_out, "the client publishes more than limits.publish_rate_per_user or limits.publish_rate_per_vhost: it is read from at that rate");
    }

    /// Makes a span of a judged publish: from when it was read until now.
    fn on_traced(&self, traced: Box<Traced>) {
        let Some(spans) = &self.relay.spans else { return };
        let user = self.session.about().and_then(|about| about.user.clone());
        let ended = crate::clock::wall();
        let began = ended.checked_sub(now().saturating_duration_since(self.now)).unwrap_or(ended);
        spans.put(Span { traced, user, began, ended });
    }

    /// Says who the client is.
    fn publisher(&self) -> Publisher<'_> {
        Publisher { peer: self.peer, user: self.session.about().and_then(|about| about.user.as_deref()) }
    }

    /// Shows people a publish of a known id.
    fn on_sighting(&self, sighting: Box<Sighting>) {
        if sighting.what.is_conflict() {
            self.log_conflict(&sighting);
        }
        let user = self.session.about().and_then(|about| about.user.as_deref());
        self.relay.connections.duplicates.note(self.peer, user, sighting, self.now);
    }

    /// Logs that an id was used twice: one line a second for the whole process.
    fn log_conflict(&self, sighting: &Sighting) {
        let Some(left_out) = self.log_limiters.conflict.happened(self.now) else { return };
        let outcome = match sighting.what {
            Sighted::Conflict(OnConflict::Drop) | Sighted::Dropped => "dropped",
            Sighted::Conflict(OnConflict::Forward) => "forwarded",
            Sighted::Conflict(OnConflict::Reject) => "refused",
            Sighted::Observed | Sighted::Passed => "forwarded (mode observe)",
        };
        let user = self.session.about().and_then(|about| about.user.as_deref()).unwrap_or_default();
        let text = |bytes| String::from_utf8_lossy(bytes);
        tracing::warn!(
            window = &*sighting.window,
            id = &*text(&sighting.id),
            vhost = &*text(&sighting.vhost),
            exchange = &*text(&sighting.exchange),
            routing_key = &*text(&sighting.routing_key),
            peer = %self.peer,
            user,
            outcome,
            left_out = left_out + sighting.left_out,
            "same id, other content: the body is not the one that was stored under this id"
        );
    }

    /// Returns the bytes that wait to be written to the upstream.
    fn upstream_queued(&self) -> usize {
        match &self.upstream {
            UpstreamSocket::Open(side) => side.queued(),
            UpstreamSocket::None | UpstreamSocket::Dialing(_) => 0,
        }
    }

    /// Closes a connection that has stood still for `unread_timeout`: the client has sent more than was read from it,
    /// and nothing can be read from either side before the client reads.
    fn end_if_stalled(&mut self) {
        // Outcomes give memory back, too, as long as there are some to come.
        let waits_for_client =
            !self.reading_upstream || self.share.is_some() && self.session.unresolved() == 0;
        // One that waits for a rate, or for its turn, has not been asked to read.
        let is_held = self.session.is_at_publish_limit() || self.session.is_turn_over();
        let stands_still = !self.reading_client
            && !is_held
            && waits_for_client
            && self.upstream_queued() < self.relay.settings.buffer_bytes;
        let Some(side) = self.client.as_ref().filter(|_| stands_still) else {
            self.stall = None;
            return;
        };
        let (_, written) = side.totals();
        let patience = self.relay.settings.unread_timeout;
        let stall = self.stall.filter(|stall| stall.written == written);
        let over = stall.is_some_and(|stall| self.now >= stall.until);
        if over && (side.has_unread() || !side.inbox.is_empty()) {
            let unread = side.queued();
            self.stall = None;
            self.relay.stats.closed_unread();
            if let Some(left_out) = self.log_limiters.unread.happened(self.now) {
                let unresolved = self.session.unresolved();
                tracing::warn!(peer = %self.peer, unread, unresolved, left_out, "connection closed: the client publishes, but does not read (timeouts.unread)");
            }
            self.session.handle_unread(unread, patience, self.now);
            self.carry_out();
            return;
        }
        self.stall = stall.filter(|_| !over).or(Some(Stall { until: self.now + patience, written }));
    }

    /// Logs that the client means something by a header that can't be understood.
    fn log_bad_header(&self, header: BadHeader) {
        let Some(left_out) = self.log_limiters.bad_header.happened(self.now) else { return };
        bad_headers::warn(header, self.peer, &self.session, left_out);
    }

    fn write_client(&mut self, bytes: Bytes) {
        if let Some(side) = &mut self.client {
            side.write(bytes);
        }
    }

    fn write_upstream(&mut self, bytes: Bytes) {
        if let UpstreamSocket::Open(side) = &mut self.upstream {
            side.write(bytes);
        }
    }

    fn beat_client(&mut self) {
        if let Some(side) = self.client.as_mut().filter(|side| side.queued() == 0) {
            side.write(Bytes::from_static(&HEARTBEAT));
        }
    }

    fn beat_upstream(&mut self) {
        if let UpstreamSocket::Open(side) = &mut self.upstream
            && side.queued() == 0
        {
            side.write(Bytes::from_static(&HEARTBEAT));
        }
    }

    fn close_client(&mut self) {
        if let Some(side) = &mut self.client {
            side.close(FLUSH_PATIENCE, self.now);
        }
    }

    fn cut_client(&mut self) {
        if let Some(side) = self.client.take() {
            side.cut();
        }
    }

    fn close_upstream(&mut self) {
        match &mut self.upstream {
            UpstreamSocket::Open(side) => side.close(FLUSH_PATIENCE, self.now),
            UpstreamSocket::Dialing(_) => self.upstream = UpstreamSocket::None,
            UpstreamSocket::None => {}
        }
    }

    fn cut_upstream(&mut self) {
        if let UpstreamSocket::Open(side) = std::mem::replace(&mut self.upstream, UpstreamSocket::None) {
            side.cut();
        }
    }
}
