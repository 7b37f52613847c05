//! One real [`Session`] with a test at both ends, both byte buffers, and a clock that only the test moves.
//!
//! After every call, the pair carries out the session's outputs as the shell would. [`Pair::to_client`] and
//! [`Pair::to_upstream`] return what was written since the last call.

use super::frames::{FRAME_MAX, Frames, protocol_header};
use super::methods::{
    channel_open, channel_open_ok, connection_close, connection_close_ok, connection_open,
    connection_open_ok, start, start_ok, tune, tune_ok,
};
use super::probe::{OWN, answers};
use bytes::BytesMut;
use hapax_core::session::{
    ChaosDeed, ChaosOrders, ChaosPlan, CopiedDuplicate, KeptPublish, LoopbackUsers, Output, Session,
    SessionListener, Settings, Shared, Sighting, Traced,
};
use hapax_core::window::Windows;
use hapax_core::window::{KeyMaker, Release, Window};
use hapax_core::wire::BadHeader;
use hapax_core::wire::emit::HEARTBEAT;
use hapax_core::wire::frame::OVERHEAD;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Where every virtual clock starts.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can be had from nowhere else; only distances to it count"
)]
pub fn epoch() -> Instant {
    use std::sync::OnceLock;
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Settings for tests: small enough to be reached, long enough not to be in the way.
pub fn settings() -> Settings {
    Settings {
        linger: Duration::from_secs(10),
        in_flight_timeout: Duration::from_secs(30),
        store_timeout: Duration::from_secs(1),
        handshake_timeout: Duration::from_secs(10),
        rights_held: Duration::from_secs(60),
        max_unresolved: 1000,
        held_bytes: 1 << 20,
        frame_max: 131_072,
        initial_frame_max: 8192,
        external: true,
    }
}

/// One window for everything.
#[derive(Debug)]
pub struct Everything(pub Arc<dyn Window>);

impl Windows for Everything {
    fn find(&self, _: &[u8], _: &[u8]) -> Option<Arc<dyn Window>> {
        Some(self.0.clone())
    }

    fn releases(&self, _: &[u8]) -> bool {
        self.0.rules().release == Release::Consumed
    }
}

/// Where clients come from, if it does not matter.
pub const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A listener that does not listen.
#[derive(Debug)]
pub struct NoSessionListener;

impl SessionListener for NoSessionListener {
    fn unmatched(&self) {}
    fn bad_header(&self, _: BadHeader) {}
    fn unverified(&self) {}
    fn channel_limited(&self, _: Option<&str>) {}
    fn returns_everything(&self, _: &[u8], _: &[u8], _: u32) {}
    fn publish_latency(&self, _: Duration, _: u64) {}
}

/// Returns everything that sessions share, with these windows.
pub fn shared(
    settings: Settings,
    windows: Arc<dyn Windows>,
    listener: Arc<dyn SessionListener>,
) -> Arc<Shared> {
    let keys = KeyMaker::new((1, 2));
    Arc::new(Shared::new(settings, keys, windows, LoopbackUsers::new(["guest"]), listener))
}

/// A session with a test at both ends.
#[derive(Debug)]
pub struct Pair {
    /// The session itself, for its getters.
    pub session: Session,
    shared: Arc<Shared>,
    now: Instant,
    client_in: BytesMut,
    upstream_in: BytesMut,
    to_client: BytesMut,
    to_upstream: BytesMut,
    /// Answers what is asked about rights, as a broker that allows everything; the transcript shows nothing of it.
    proving: bool,
    wanted: bool,
    dialled: bool,
    client_closed: bool,
    upstream_closed: bool,
    sightings: Vec<Sighting>,
    told_duplicates: Vec<Sighting>,
    audited: Vec<Sighting>,
    copied: Vec<CopiedDuplicate>,
    bad_headers: Vec<BadHeader>,
    traced: Vec<Traced>,
    client_cut: bool,
    deeds: Vec<ChaosDeed>,
    kept: Vec<KeptPublish>,
}

impl Pair {
    /// Takes the headers of which the session has told the shell.
    pub fn take_bad_headers(&mut self) -> Vec<BadHeader> {
        std::mem::take(&mut self.bad_headers)
    }

    /// The traced publishes of which the session has told the shell since the last call.
    pub fn traced(&mut self) -> Vec<Traced> {
        std::mem::take(&mut self.traced)
    }

    /// What chaos has done since the last call.
    pub fn deeds(&mut self) -> Vec<ChaosDeed> {
        std::mem::take(&mut self.deeds)
    }

    /// The publishes that come again, since the last call.
    pub fn kept(&mut self) -> Vec<KeptPublish> {
        std::mem::take(&mut self.kept)
    }

    /// Whether the session has closed the client's socket without a word.
    pub fn client_is_cut(&self) -> bool {
        self.client_cut
    }

    /// The connection, which is the first, may be troubled as this plan says; or by no run, but it may.
    pub fn chaos(&mut self, plan: Option<ChaosPlan>) {
        let orders = ChaosOrders { connection: 1, plan: plan.map(Arc::new) };
        self.session.handle_chaos(Some(orders), self.now);
        self.pump();
    }

    /// A client has just connected; the session dials and finds an upstream.
    pub fn new(shared: &Arc<Shared>) -> Pair {
        Pair::at(shared, LOCALHOST, epoch())
    }

    /// The same from another address.
    pub fn from_peer(shared: &Arc<Shared>, peer: IpAddr) -> Pair {
        Pair::at(shared, peer, epoch())
    }

    /// The duplicates that people were told of since the last call.
    pub fn told_duplicates(&mut self) -> Vec<Sighting> {
        std::mem::take(&mut self.told_duplicates)
    }

    /// The lines for the log about what was dropped, since the last call.
    pub fn audited(&mut self) -> Vec<Sighting> {
        std::mem::take(&mut self.audited)
    }

    /// The copies of what was dropped, since the last call.
    pub fn copied(&mut self) -> Vec<CopiedDuplicate> {
        std::mem::take(&mut self.copied)
    }

    /// The conflicts that people were told of since the last call.
    pub fn sightings(&mut self) -> Vec<Sighting> {
        std::mem::take(&mut self.sightings)
    }

    /// Another client of the same process, at the same moment.
    pub fn beside(&self) -> Pair {
        let mut pair = Pair::at(&self.shared, LOCALHOST, self.now);
        pair.proving = self.proving;
        pair
    }

    /// The broker allows its user everything, and the transcript shows nothing of the questions.
    pub fn proving(mut self) -> Pair {
        self.proving = true;
        self
    }

    fn at(shared: &Arc<Shared>, peer: IpAddr, now: Instant) -> Pair {
        let mut pair = Pair {
            session: Session::new(shared.clone(), peer, now),
            shared: shared.clone(),
            now,
            client_in: BytesMut::new(),
            upstream_in: BytesMut::new(),
            to_client: BytesMut::new(),
            to_upstream: BytesMut::new(),
            proving: false,
            wanted: true,
            dialled: false,
            client_closed: false,
            bad_headers: Vec::new(),
            traced: Vec::new(),
            client_cut: false,
            deeds: Vec::new(),
            kept: Vec::new(),
            upstream_closed: false,
            sightings: Vec::new(),
            told_duplicates: Vec::new(),
            audited: Vec::new(),
            copied: Vec::new(),
        };
        pair.pump();
        pair
    }

    /// The client sends these.
    pub fn client(&mut self, frames: Frames) {
        self.client_bytes(&frames.encode());
    }

    /// The client sends these, a few bytes at a time.
    pub fn client_in_pieces(&mut self, frames: &Frames, size: usize) {
        frames.encode().chunks(size).for_each(|piece| self.client_bytes(piece));
    }

    /// The client sends bytes that need not be AMQP.
    pub fn client_bytes(&mut self, bytes: &[u8]) {
        self.client_in.extend_from_slice(bytes);
        if self.session.wants_client() {
            self.session.handle_client(&mut self.client_in, self.now);
        }
        self.pump();
    }

    /// The upstream sends these.
    pub fn upstream(&mut self, frames: Frames) {
        self.upstream_bytes(&frames.encode());
    }

    /// The upstream sends bytes that need not be AMQP.
    pub fn upstream_bytes(&mut self, bytes: &[u8]) {
        self.upstream_in.extend_from_slice(bytes);
        self.session.handle_upstream(&mut self.upstream_in, self.now);
        self.pump();
    }

    /// The client's socket is at its end.
    pub fn client_eof(&mut self) {
        self.session.handle_client_eof(self.now);
        self.pump();
    }

    /// The upstream's socket is at its end.
    pub fn upstream_eof(&mut self) {
        self.session.handle_upstream_eof(self.now);
        self.pump();
    }

    /// The session says good-bye to the upstream for a client that is gone, and waits for the answer, which comes. Returns what
    /// was written to the upstream before that.
    pub fn leave_upstream(&mut self) -> Frames {
        let mut written = self.to_upstream();
        let close = written.0.pop().map(|frame| Frames(vec![frame]));
        assert_eq!(close, Some(connection_close(200, "the client is gone")), "after {written:?}");
        assert!(!self.upstream_closed && !self.session.is_over(), "its close-ok is waited for");
        self.upstream(connection_close_ok());
        assert!(self.upstream_closed);
        written
    }

    /// The process is to end.
    pub fn drain(&mut self) {
        self.session.handle_drain(self.now);
        self.pump();
    }

    /// An operator closes the connection.
    pub fn force_close(&mut self, reason: &str) {
        self.session.handle_forced_close(reason, self.now);
        self.pump();
    }

    /// The client has had its time to finish what it had begun.
    pub fn drain_overdue(&mut self) {
        self.session.handle_drain_overdue(self.now);
        self.pump();
    }

    /// The process ends in a moment.
    pub fn drain_over(&mut self) {
        self.session.handle_drain_over(self.now);
        self.pump();
    }

    /// Begins a turn of so many frames.
    pub fn turn(&mut self, frames: usize) {
        self.session.handle_turn(frames, self.now);
        self.pump();
    }

    /// Time passes; every timeout on the way is handled at its moment.
    pub fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        let mut still = 0;
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= until) {
            still = if at > self.now { 0 } else { still + 1 };
            assert!(still < 10, "poll_timeout stands still: handle_timeout does not move it");
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
            self.pump();
        }
        self.now = until;
    }

    /// Time passes while the process stands still: nothing is handled on the way.
    pub fn stand_still(&mut self, by: Duration) {
        self.now += by;
    }

    /// Returns the frames that were written to the client since the last call.
    pub fn to_client(&mut self) -> Frames {
        self.pump();
        Frames::parse(&self.to_client.split())
    }

    /// Returns the bytes that were written to the client since the last call. They need not be AMQP.
    pub fn to_client_bytes(&mut self) -> Vec<u8> {
        self.pump();
        self.to_client.split().to_vec()
    }

    /// Returns the bytes that were written to the upstream since the last call.
    pub fn to_upstream_bytes(&mut self) -> Vec<u8> {
        self.pump();
        self.to_upstream.split().to_vec()
    }

    /// Returns the frames that were written to the upstream since the last call.
    pub fn to_upstream(&mut self) -> Frames {
        self.pump();
        Frames::parse(&self.to_upstream.split())
    }

    /// Whether the session has closed the client's socket.
    pub fn client_closed(&self) -> bool {
        self.client_closed
    }

    /// Whether the session has closed the upstream's socket.
    pub fn upstream_closed(&self) -> bool {
        self.upstream_closed
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Bytes from the client that the session has not taken.
    pub fn untaken(&self) -> usize {
        self.client_in.len()
    }

    /// The whole handshake, with heartbeats off; nothing of it is left to be read afterwards.
    pub fn handshake(&mut self, user: &str, vhost: &str) {
        self.handshake_with(user, vhost, (2047, u32::try_from(FRAME_MAX).expect("a u32"), 0));
    }

    /// The whole handshake with this tune, which the client accepts: channel_max, frame_max, heartbeat.
    pub fn handshake_with(&mut self, user: &str, vhost: &str, (channels, frame, heartbeat): (u16, u32, u16)) {
        self.client(protocol_header());
        assert!(self.dialled, "a client that has said hello is dialled for");
        assert_eq!(self.to_upstream(), protocol_header());
        self.upstream(start());
        assert_eq!(self.to_client().len(), 1, "connection.start");
        self.client(start_ok(user));
        assert_eq!(self.to_upstream().len(), 1, "connection.start-ok");
        self.upstream(tune(channels, frame, heartbeat));
        assert_eq!(self.to_client().len(), 1, "connection.tune");
        self.client(tune_ok(channels, frame, heartbeat) + connection_open(vhost));
        assert_eq!(self.to_upstream().len(), 2, "connection.tune-ok, connection.open");
        self.upstream(connection_open_ok());
        assert_eq!(self.to_client().len(), 1, "connection.open-ok");
    }

    /// Opens a channel; nothing of it is left to be read afterwards.
    pub fn open(&mut self, channel: u16) {
        self.client(channel_open(channel));
        assert_eq!(self.to_upstream(), channel_open(channel));
        self.upstream(channel_open_ok(channel));
        assert_eq!(self.to_client(), channel_open_ok(channel));
    }

    /// Carries out what the session says until it says nothing more, late verdicts included.
    pub fn pump(&mut self) {
        loop {
            while let Some(output) = self.session.poll_output() {
                self.carry_out(output);
            }
            if self.proving && self.answer_questions() {
                continue;
            }
            let wants = self.session.wants_client();
            if wants && !self.wanted && !self.client_in.is_empty() {
                self.wanted = true;
                self.session.handle_client(&mut self.client_in, self.now);
            } else if self.session.mailbox().clone().register(Waker::noop()) {
                self.session.handle_mail(self.now);
            } else {
                self.wanted = wants;
                break;
            }
        }
    }

    /// Takes the questions about rights out of what was written, and says yes. Whether there was one.
    fn answer_questions(&mut self) -> bool {
        let (mut questions, mut rest) = (Vec::new(), Vec::new());
        let mut written = self.to_upstream.split();
        while !written.is_empty() {
            let len = match *written {
                [b'A', ..] => 8,
                [_, _, _, a, b, c, d, ..] => OVERHEAD + u32::from_be_bytes([a, b, c, d]) as usize,
                _ => written.len(),
            };
            let frame = written.split_to(len);
            let own = frame.get(1..3) == Some(&OWN.to_be_bytes());
            if own { &mut questions } else { &mut rest }.extend_from_slice(&frame);
        }
        self.to_upstream.extend_from_slice(&rest);
        let questions = Frames::parse(&questions).0;
        let answers = answers(&questions);
        if !answers.is_empty() {
            self.upstream_in.extend_from_slice(&answers.encode());
            self.session.handle_upstream(&mut self.upstream_in, self.now);
        }
        !answers.is_empty()
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Dial => {
                // As the shell does it; the simulation lets the session send the header.
                self.dialled = true;
                self.to_upstream.extend_from_slice(self.session.protocol_header());
                self.session.handle_upstream_greeted(self.now);
            }
            Output::ToClient(bytes) => {
                assert!(
                    !self.client_closed,
                    "bytes for a client that was closed: {:?}",
                    Frames::parse(&bytes)
                );
                self.to_client.extend_from_slice(&bytes);
            }
            Output::ToUpstream(bytes) => {
                assert!(
                    !self.upstream_closed,
                    "bytes for an upstream that was closed: {:?}",
                    Frames::parse(&bytes)
                );
                self.to_upstream.extend_from_slice(&bytes);
            }
            Output::HeartbeatClient if !self.to_client.is_empty() => {}
            Output::HeartbeatUpstream if !self.to_upstream.is_empty() => {}
            Output::HeartbeatClient => self.to_client.extend_from_slice(&HEARTBEAT),
            Output::HeartbeatUpstream => self.to_upstream.extend_from_slice(&HEARTBEAT),
            Output::CloseClient => self.client_closed = true,
            Output::CutClient => {
                self.client_closed = true;
                self.client_cut = true;
                self.to_client.clear();
            }
            Output::CloseUpstream | Output::CutUpstream => self.upstream_closed = true,
            Output::Sighted(sighting) if sighting.what.is_conflict() => self.sightings.push(*sighting),
            Output::Sighted(sighting) => self.told_duplicates.push(*sighting),
            Output::Audited(sighting) => self.audited.push(*sighting),
            Output::Copied(copy) => self.copied.push(*copy),
            Output::BadHeader(header) => self.bad_headers.push(header),
            Output::Traced(traced) => self.traced.push(*traced),
            Output::Chaos(deed) => self.deeds.push(*deed),
            Output::Kept(kept) => self.kept.push(*kept),
        }
    }
}
