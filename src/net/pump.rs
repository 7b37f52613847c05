//! One client connection: both sockets, one session, one task.
//!
//! Every side effect of a session is in [`Pump::carry_out`]. Reading stops where writing can't keep up: a slow consumer
//! stops the reading from the broker, a blocked broker the reading from the publisher.

use super::clients::{Entry, Numbers, State};
use super::memory::Holding;
use super::places::Place;
use super::side::{Came, Side};
use super::{Lines, Relay, now};
use bytes::Bytes;
use hapax_core::session::{Output, Session};
use hapax_core::wire::emit::HEARTBEAT;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How long a socket that is to be closed may take to write what is left.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes read from the upstream before others have their turn.
const TURN: u64 = 1 << 20;
/// Bytes read from the upstream before what is due by time is judged, although there is more. It is above what the system
/// keeps for a socket (6 MiB by default), so all that had arrived when the time came has been read.
const BEFORE_JUDGING: u64 = 8 << 20;

/// Runs a client's connection to its end.
pub(super) async fn run(
    relay: &Relay,
    client: TcpStream,
    peer: SocketAddr,
    place: Place,
    lines: &Lines,
    draining: watch::Receiver<bool>,
) {
    let now = now();
    let present = relay.clients.enter(peer, now);
    let pump = Pump {
        relay,
        lines,
        peer,
        place,
        holding: relay.budget.enter(),
        watched: false,
        entry: &present.entry,
        session: Session::new(relay.shared.clone(), now),
        client: Some(Side::new(client)),
        upstream: Upstream::None,
        reading_client: true,
        reading_upstream: true,
        client_eof_told: false,
        upstream_eof_told: false,
        share: None,
        deadline: None,
        put_off: 0,
        now,
    };
    pump.run(draining).await;
}

type Dial<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'a>>;

enum Upstream<'a> {
    None,
    Dialing(Dial<'a>),
    Open(Side),
}

/// What the task woke up for.
enum Wake {
    Sockets,
    Dialled(io::Result<TcpStream>),
    Mail,
    Timeout,
    Drain,
}

struct Pump<'a> {
    relay: &'a Relay,
    lines: &'a Lines,
    peer: SocketAddr,
    place: Place,
    /// What it holds of the process's memory.
    holding: Holding,
    /// The kernel watches whether what is written arrives, or need not.
    watched: bool,
    entry: &'a Entry,
    session: Session,
    client: Option<Side>,
    upstream: Upstream<'a>,
    reading_client: bool,
    reading_upstream: bool,
    client_eof_told: bool,
    upstream_eof_told: bool,
    /// The share of the process's memory that it is above.
    share: Option<usize>,
    /// When something is due by time.
    deadline: Option<Instant>,
    /// Bytes read from the upstream since then.
    put_off: u64,
    now: Instant,
}

impl Pump<'_> {
    async fn run(mut self, mut draining: watch::Receiver<bool>) {
        let mut drained = false;
        loop {
            self.carry_out();
            self.relieve();
            self.bury().await;
            self.note();
            self.know();
            if self.session.is_over() && self.client.is_none() && matches!(self.upstream, Upstream::None) {
                return;
            }
            let wake = self.wait(&mut draining, drained).await;
            self.now = now();
            // Answers that have arrived come before every judgement, whatever the task woke up for: what they answer would
            // be in doubt otherwise. Then the time, then what others want, and last the mail: it must not promote a publish
            // into an upstream that is dead.
            self.read_upstream();
            self.judge_time();
            let mail = matches!(wake, Wake::Mail);
            match wake {
                Wake::Sockets | Wake::Timeout | Wake::Mail => {}
                Wake::Dialled(Ok(stream)) => {
                    self.upstream = Upstream::Open(Side::new(stream));
                    self.session.handle_upstream_open(self.now);
                }
                Wake::Dialled(Err(error)) => {
                    self.upstream = Upstream::None;
                    self.relay.stats.dial_failed();
                    if let Some(left_out) = self.lines.unreachable.happened(self.now) {
                        tracing::warn!(peer = %self.peer, upstream = %self.relay.upstream, %error, left_out, "can't reach the broker");
                    }
                    self.session.handle_upstream_eof(self.now);
                }
                Wake::Drain => {
                    drained = true;
                    self.session.handle_drain(self.now);
                }
            }
            self.read_client();
            if mail {
                self.session.handle_mail(self.now);
            }
        }
    }

    /// For those who look at connections.
    fn note(&self) {
        // (Once the client's socket is closed, its totals stay as they were.)
        let last = self.entry.numbers();
        let (bytes_in, bytes_out) =
            self.client.as_ref().map_or((last.bytes_in, last.bytes_out), Side::totals);
        self.entry.note(Numbers {
            state: State::of(self.session.phase(), self.reading_client),
            channels: self.session.channels() as u64,
            unresolved: self.session.unresolved() as u64,
            publishes: self.session.publishes(),
            bytes_in,
            bytes_out,
        });
        self.entry.identify(self.session.about(), self.session.vhost());
    }

    /// Once the client has logged in: it keeps its place, and where no heartbeats tell whether its host and the broker's are
    /// there, the kernel does.
    fn know(&mut self) {
        if self.watched || self.session.vhost().is_none() {
            return;
        }
        self.watched = true;
        self.place.log_in();
        let timeout = self.relay.tcp_user_timeout;
        if self.session.has_heartbeats() || timeout.is_zero() {
            return;
        }
        if let Some(side) = &mut self.client {
            side.watch(timeout);
        }
        if let Upstream::Open(side) = &mut self.upstream {
            side.watch(timeout);
        }
    }

    /// Waits for whatever comes first.
    async fn wait(&mut self, draining: &mut watch::Receiver<bool>, drained: bool) -> Wake {
        if self.owes_eof() {
            return Wake::Sockets;
        }
        let (reading_client, reading_upstream) = (self.reading_client, self.reading_upstream);
        let mailbox = self.session.mailbox().clone();
        let deadlines = [
            self.session.poll_timeout(),
            self.client.as_ref().and_then(Side::deadline),
            match &self.upstream {
                Upstream::Open(side) => side.deadline(),
                Upstream::None | Upstream::Dialing(_) => None,
            },
        ];
        let deadline = deadlines.into_iter().flatten().min();
        self.deadline = deadline;
        let client = self.client.as_ref();
        let upstream = &mut self.upstream;
        let (waits, holding) = (self.holding.waits(), &mut self.holding);
        tokio::select! {
            () = async {
                match client {
                    Some(side) => side.ready(reading_client).await,
                    None => std::future::pending().await,
                }
            } => Wake::Sockets,
            wake = async {
                match upstream {
                    Upstream::None => std::future::pending().await,
                    Upstream::Dialing(dial) => Wake::Dialled(dial.await),
                    Upstream::Open(side) => {
                        side.ready(reading_upstream).await;
                        Wake::Sockets
                    }
                }
            } => wake,
            () = poll_fn(|cx| if mailbox.register(cx.waker()) { Poll::Ready(()) } else { Poll::Pending }) => Wake::Mail,
            () = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            } => Wake::Timeout,
            () = holding.room(), if waits => Wake::Sockets,
            _ = draining.wait_for(|draining| *draining), if !drained => Wake::Drain,
        }
    }

    /// A socket has ended, while writing perhaps, and the session has not heard of it.
    fn owes_eof(&self) -> bool {
        let client = self.client.as_ref().is_some_and(Side::has_ended) && !self.client_eof_told;
        let upstream =
            matches!(&self.upstream, Upstream::Open(side) if side.has_ended()) && !self.upstream_eof_told;
        client && self.session.wants_client() || upstream
    }

    /// Whether something is due by time.
    fn is_due(&self) -> bool {
        self.deadline.is_some_and(|at| at <= self.now)
    }

    /// Reads from the upstream until nothing is left, but no more than a turn's share and no more than the client's buffer
    /// takes. Where something is due by time, the system is asked what is left.
    fn read_upstream(&mut self) {
        let due = self.is_due();
        let mut read = 0;
        let mut came = Came::More;
        while self.reading_upstream && came == Came::More && read < TURN {
            let Upstream::Open(side) = &mut self.upstream else { break };
            let before = side.totals().0;
            came = if due { side.read_surely() } else { side.read() };
            if due && came == Came::Last && !side.has_ended() {
                came = Came::More;
            }
            if came != Came::Nothing {
                read += side.totals().0 - before;
                self.session.handle_upstream(&mut side.inbox, self.now);
                side.tidy();
            }
            if came == Came::More {
                self.carry_out();
            }
        }
        // (Had nothing more been there, the loop would have ended by that.)
        self.put_off = if due && read >= TURN { self.put_off + read } else { 0 };
        if let Upstream::Open(side) = &self.upstream
            && side.has_ended()
            && !self.upstream_eof_told
        {
            self.upstream_eof_told = true;
            self.session.handle_upstream_eof(self.now);
        }
    }

    /// What is due by time: a peer that is silent, a publish that waits for too long. Not before all is read that had arrived
    /// by then.
    fn judge_time(&mut self) {
        let more_to_read = self.put_off > 0 && self.put_off < BEFORE_JUDGING;
        if !self.is_due() || more_to_read {
            return;
        }
        self.put_off = 0;
        if self.reading_client && self.client.as_ref().is_some_and(Side::has_unread) {
            self.session.handle_client_alive(self.now);
        }
        self.session.handle_timeout(self.now);
    }

    /// One read of the client's socket, if it may be read, and what the session makes of it.
    fn read_client(&mut self) {
        let Some(side) = &mut self.client else { return };
        let came = self.reading_client && side.read() != Came::Nothing;
        if came || !side.inbox.is_empty() && self.session.wants_client() {
            self.session.handle_client(&mut side.inbox, self.now);
            side.tidy();
        }
        // The end is told only when all that came before it has been looked at.
        if side.has_ended() && self.session.wants_client() && !self.client_eof_told {
            self.client_eof_told = true;
            self.session.handle_client_eof(self.now);
        }
    }

    /// Does what the session says, writes what can be written, and decides what may be read.
    fn carry_out(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Dial => self.upstream = Upstream::Dialing(Box::pin(self.relay.dial())),
                Output::ToClient(bytes) => self.write_client(bytes),
                Output::ToUpstream(bytes) => self.write_upstream(bytes),
                Output::HeartbeatClient => self.beat_client(),
                Output::HeartbeatUpstream => self.beat_upstream(),
                Output::CloseClient => self.close_client(),
                Output::CloseUpstream => self.close_upstream(),
                Output::CutUpstream => self.cut_upstream(),
            }
        }
        if let Some(side) = &mut self.client {
            side.flush();
        }
        if let Upstream::Open(side) = &mut self.upstream {
            side.flush();
        }
        self.regulate();
    }

    /// Lets go of sockets that are done with.
    async fn bury(&mut self) {
        if let Upstream::Open(side) = &self.upstream
            && side.is_done(self.now)
            && let Upstream::Open(side) = std::mem::replace(&mut self.upstream, Upstream::None)
        {
            drop(side);
            self.regulate();
        }
        if let Some(side) = self.client.take_if(|side| side.is_done(self.now)) {
            if matches!(self.upstream, Upstream::None) && self.session.is_over() {
                // (In a box: its buffer would be part of every connection's task.)
                Box::pin(side.farewell()).await;
            } else {
                // The upstream still lingers: it can't wait for the client's farewell.
                tokio::spawn(side.farewell());
            }
            self.regulate();
        }
    }

    /// Refuses what would be held for ever, because the client is not read from.
    fn relieve(&mut self) {
        if let Some(share) = self.share.filter(|share| self.session.memory().stuck > *share) {
            self.session.handle_memory_pressure(share, self.now);
            self.carry_out();
        }
    }

    /// Tells what is held. The share that it is above, if that is too much now.
    fn weigh(&mut self) -> Option<usize> {
        let memory = self.session.memory();
        let client = self.client.as_ref().map_or(0, Side::memory);
        let upstream = if let Upstream::Open(side) = &self.upstream { side.memory() } else { 0 };
        let share = self.holding.tell(memory.held + client + upstream, memory.frame);
        let tight = self.holding.is_tight();
        if let Some(side) = &mut self.client {
            side.read_little(tight);
        }
        if let Upstream::Open(side) = &mut self.upstream {
            side.read_little(tight);
        }
        share
    }

    /// Back-pressure: reads from a side only while the other takes what comes of it, and from the client only while it
    /// holds no more than it may.
    fn regulate(&mut self) {
        self.share = self.weigh();
        let room = self.relay.buffer_bytes.min(self.share.unwrap_or(usize::MAX));
        let client_has_room = self.client.as_ref().is_none_or(|side| side.queued() < room);
        let upstream_has_room = match &self.upstream {
            Upstream::Open(side) => side.queued() < room,
            Upstream::None | Upstream::Dialing(_) => true,
        };
        let within = self.share.is_none();
        let reading_client = self.session.wants_client() && client_has_room && upstream_has_room && within;
        if reading_client != self.reading_client {
            self.reading_client = reading_client;
            self.session.handle_reading_client(reading_client, self.now);
        }
        if client_has_room != self.reading_upstream {
            self.reading_upstream = client_has_room;
            self.session.handle_reading_upstream(client_has_room, self.now);
        }
    }

    fn write_client(&mut self, bytes: Bytes) {
        if let Some(side) = &mut self.client {
            side.write(bytes);
        }
    }

    fn write_upstream(&mut self, bytes: Bytes) {
        if let Upstream::Open(side) = &mut self.upstream {
            side.write(bytes);
        }
    }

    fn beat_client(&mut self) {
        if let Some(side) = self.client.as_mut().filter(|side| side.queued() == 0) {
            side.write(Bytes::from_static(&HEARTBEAT));
        }
    }

    fn beat_upstream(&mut self) {
        if let Upstream::Open(side) = &mut self.upstream
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

    fn close_upstream(&mut self) {
        match &mut self.upstream {
            Upstream::Open(side) => side.close(FLUSH_PATIENCE, self.now),
            Upstream::Dialing(_) => self.upstream = Upstream::None,
            Upstream::None => {}
        }
    }

    fn cut_upstream(&mut self) {
        if let Upstream::Open(side) = std::mem::replace(&mut self.upstream, Upstream::None) {
            side.cut();
        }
    }
}
