//! One session driven by octets: a list of things that client, upstream, clock and window do, frames and raw bytes alike.
//! The fuzz target `session` and the test that replays its corpus share it.
//!
//! Whatever they do: no panic, no bytes after a close, whole frames only, bounds kept, no timeout that stands still;
//! before the upstream has let the client in, there is no channel and no question to the window, and no question before it
//! has let anybody publish; and once both sides have ended the session is over and nothing is in flight.

#![allow(dead_code, reason = "each of the users needs its own part")]
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "that is how a check fails")]

use crate::support::frames::{Frame, Frames, Reader, body, heartbeat, message, protocol_header};
use crate::support::late::{Late, LateWindow};
use crate::support::methods as say;
use crate::support::pair::{Everything, LOCALHOST, NoSessionListener, epoch, settings, shared};
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, basic, tx};
use bytes::BytesMut;
use hapax_core::session::{Output, Phase, Session};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::event;
use hapax_core::window::{
    ConfirmRule, InDoubt, Key, KeyMaker, Limits, LocalWindow, Mailbox, MissingId, Mode, OnConflict,
    OnDuplicate, RepublishRule, Reservation, Rules, Scope, Signals, Ticket, Verdict, Window, reserve_one,
};
use hapax_core::wire::properties::IdValue;
use hapax_core::wire::{IdSource, scan};
use std::sync::Arc;
use std::time::{Duration, Instant};

const HELD: usize = 2_000;
const UNRESOLVED: usize = 8;
/// The channel_max that the upstream offers, if the octets do not make the handshake themselves.
const CHANNELS: u16 = 5;
/// The largest that one event can add before the bound on what is held stops the reading: a raw op's frames.
const SLACK: usize = 4_000;

/// Takes its decisions from octets; when they are used up, zeros.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }
}

struct Driver {
    session: Session,
    local: Arc<LocalWindow>,
    late: Option<Arc<LateWindow>>,
    now: Instant,
    split: usize,
    client_in: BytesMut,
    upstream_in: BytesMut,
    to_client: Vec<u8>,
    to_upstream: Vec<u8>,
    client_eof: bool,
    upstream_eof: bool,
    client_closed: bool,
    upstream_closed: bool,
    held: Vec<Reservation>,
    /// The octets make the handshake.
    raw: bool,
    /// The upstream answers questions about rights by itself.
    obliging: bool,
    /// The channel of the last question about rights that has no answer yet.
    asked: Option<u16>,
    /// The upstream has said something by which a right may be known.
    shown: bool,
}

/// Runs a list to its end, and both sides to theirs.
pub(crate) fn drive(octets: &[u8]) {
    let mut octets = Octets(octets);
    let mut driver = Driver::new(octets.next(), octets.next());
    let mailbox = Arc::clone(driver.session.mailbox());
    let (local, late) = (driver.local.clone(), driver.late.clone());
    while !octets.0.is_empty() {
        driver.step(&mut octets);
        driver.check();
        if driver.obliging {
            driver.answer(0);
            driver.check();
        }
    }
    driver.end();
    drop(driver);
    assert_eq!(Arc::strong_count(&mailbox), 1, "somebody still waits");
    drop(mailbox);
    if let Some(late) = &late {
        late.remember(usize::MAX, epoch() + Duration::from_secs(1_000_000));
    }
    assert_eq!(local.in_flight(), 0, "something is still in flight");
    assert_eq!(late.map_or(0, |late| late.questions()), 0, "a question is still open");
}

impl Driver {
    fn new(one: u8, two: u8) -> Driver {
        let rules = Rules {
            name: "fuzz".into(),
            id: if one & 1 != 0 { IdSource::Body } else { IdSource::MessageId },
            scope: Scope::RoutingKey,
            in_doubt: if one & 2 != 0 { InDoubt::Keep } else { InDoubt::Forget },
            missing_id: if one & 4 != 0 { MissingId::Reject } else { MissingId::Forward },
            on_conflict: [OnConflict::Drop, OnConflict::Forward, OnConflict::Reject]
                [usize::from(two >> 5) % 3],
            confirms: if one & 8 != 0 { ConfirmRule::ClientOnly } else { ConfirmRule::Shadow },
            verify_routing: two & 128 != 0,
            forward_to: (one & 16 != 0).then(|| "backing".into()),
            republish: RepublishRule::default(),
            quota: hapax_core::window::Quota::None,
            signals: Signals {
                on_duplicate: [OnDuplicate::Ack, OnDuplicate::Return, OnDuplicate::Nack, OnDuplicate::Return]
                    [usize::from(two & 3)],
                duplicates_to: (two & 32 != 0).then(|| "copies".into()),
                audit: two & 64 != 0,
            },
            ..Rules::named("fuzz")
        };
        let limits = Limits {
            capacity: 10,
            ttl: Duration::from_secs(60),
            mode: if one & 32 != 0 { Mode::Observe } else { Mode::Enforce },
            refresh_on_duplicate: false,
            waiters_per_id: usize::from(two & 3),
        };
        let local: Arc<LocalWindow> =
            LocalWindow::new(rules, limits, EngineKind::default(), Arc::new(event::NoListener));
        let late = Late { verdicts: one & 64 != 0, commits: two & 8 != 0, waits_on: two & 16 != 0 };
        let late = (late.verdicts || late.commits).then(|| LateWindow::with(local.clone(), late));
        let window: Arc<dyn Window> = match &late {
            Some(late) => late.clone(),
            None => local.clone(),
        };
        let mut settings = settings();
        settings.held_bytes = HELD;
        settings.max_unresolved = UNRESOLVED;
        let shared = shared(settings, Arc::new(Everything(window)), Arc::new(NoSessionListener));
        let mut driver = Driver {
            session: Session::new(shared, LOCALHOST, epoch()),
            local,
            late,
            now: epoch(),
            split: usize::MAX,
            client_in: BytesMut::new(),
            upstream_in: BytesMut::new(),
            to_client: Vec::new(),
            to_upstream: Vec::new(),
            client_eof: false,
            upstream_eof: false,
            client_closed: false,
            upstream_closed: false,
            held: Vec::new(),
            raw: one & 128 != 0,
            obliging: two & 4 == 0,
            asked: None,
            shown: false,
        };
        if one & 128 == 0 {
            driver.handshake();
        }
        driver
    }

    fn handshake(&mut self) {
        self.client(&protocol_header().encode());
        self.upstream(&say::start().encode());
        self.client(&say::start_ok("guest").encode());
        self.upstream(&say::tune(CHANNELS, 131_072, 60).encode());
        self.client(&(say::tune_ok(CHANNELS, 131_072, 60) + say::connection_open("/")).encode());
        self.upstream(&say::connection_open_ok().encode());
        for channel in [1, 2] {
            self.client(&say::channel_open(channel).encode());
            self.upstream(&say::channel_open_ok(channel).encode());
        }
    }

    fn step(&mut self, octets: &mut Octets<'_>) {
        match octets.next() % 16 {
            0 => {
                let len = usize::from(octets.next());
                self.client(octets.take(len));
            }
            1 => {
                let len = usize::from(octets.next());
                self.shown = true;
                self.upstream(octets.take(len));
            }
            2 | 3 => {
                let frames = client_frames(octets);
                self.client(&frames.encode());
            }
            4 | 5 => {
                let frames = upstream_frames(octets);
                self.shown |= frames.0.iter().any(shows);
                self.upstream(&frames.encode());
            }
            6 => self.advance(Duration::from_millis(250) * u32::from(octets.next())),
            7 => match octets.next() {
                0..64 => self.end_client(),
                64..128 => self.end_upstream(),
                128..160 => {
                    self.session.handle_drain(self.now);
                    self.pump();
                }
                176..192 => {
                    self.session.handle_forced_close("told to", self.now);
                    self.pump();
                }
                160..176 => {
                    self.session.handle_drain_overdue(self.now);
                    self.pump();
                }
                192..208 => {
                    self.session.handle_drain_over(self.now);
                    self.pump();
                }
                _ => {}
            },
            8 => {
                if let Some(late) = self.late.clone() {
                    self.hear(&late, octets.next());
                    self.pump();
                }
            }
            9 => {
                self.split = match octets.next() {
                    0 => usize::MAX,
                    size => usize::from(size),
                }
            }
            10 => self.hold(octets.next() % 4),
            11 => {
                let how = octets.next();
                if let Some(reservation) = self.held.pop() {
                    match how & 1 {
                        0 => drop(reservation.through(self.local.clone()).commit(self.now, self.local.ttl())),
                        _ => drop(reservation),
                    }
                    self.pump();
                }
            }
            12 => {
                let mode = [Mode::Enforce, Mode::Observe, Mode::Off][usize::from(octets.next() % 3)];
                self.local.set_mode(mode);
            }
            13 => {
                self.local.flush(self.now);
            }
            14 => {
                let frames = hostile_frames(octets);
                self.client(&frames.encode());
            }
            _ => self.answer(octets.next()),
        }
    }

    /// The store does something: it answers, now or never, once or twice, or writes its log.
    fn hear(&self, late: &LateWindow, what: u8) {
        let pick = usize::from(what);
        match what {
            0..128 => _ = late.answer_next(pick, self.now),
            128..160 => _ = late.answer_twice(pick, self.now),
            160..170 => _ = late.silence(pick),
            170..190 => _ = late.answer_withdrawn(),
            190..200 => late.call_in_vain(),
            200..210 => late.remember_silently(self.now),
            210..255 => late.remember(1 + pick % 4, self.now),
            255 => late.remember(usize::MAX, self.now),
        }
    }

    /// The upstream answers a question about rights: yes, no, or no such exchange.
    fn answer(&mut self, how: u8) {
        let Some(channel) = self.asked.take() else { return };
        let opened = say::channel_open_ok(channel) + say::tx_select_ok(channel);
        let answer = match how {
            0..160 => {
                self.shown = true;
                say::tx_rollback_ok(channel)
            }
            160..210 => say::channel_close(channel, 403, "ACCESS_REFUSED"),
            _ => say::channel_close(channel, 404, "NOT_FOUND"),
        };
        let frames = opened + answer + say::channel_close_ok(channel);
        self.upstream(&frames.encode());
    }

    fn client(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.split) {
            if self.client_eof || self.client_closed {
                return;
            }
            self.client_in.extend_from_slice(piece);
            if self.session.wants_client() {
                self.session.handle_client(&mut self.client_in, self.now);
            }
            self.pump();
        }
    }

    fn upstream(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.split) {
            if self.upstream_eof || self.upstream_closed {
                return;
            }
            self.upstream_in.extend_from_slice(piece);
            self.session.handle_upstream(&mut self.upstream_in, self.now);
            self.pump();
        }
    }

    fn hold(&mut self, id: u8) {
        let mailbox = Arc::new(Mailbox::new());
        let verdict = reserve_one(&self.local, key(id), self.now, &mailbox, Ticket(0));
        if let Verdict::Fresh(reservation) = verdict {
            // If it is given up, the window that is late passes the place on to who waits for it.
            self.held.push(match &self.late {
                Some(late) => reservation.through(late.clone()),
                None => reservation,
            });
        }
    }

    fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        let mut still = 0;
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= until) {
            still = if at > self.now { 0 } else { still + 1 };
            assert!(still < 10, "poll_timeout stands still");
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
            self.pump();
        }
        self.now = until;
    }

    fn end_client(&mut self) {
        if !self.client_eof && !self.client_closed {
            self.client_eof = true;
            self.session.handle_client_eof(self.now);
            self.pump();
        }
    }

    fn end_upstream(&mut self) {
        if !self.upstream_eof && !self.upstream_closed {
            self.upstream_eof = true;
            self.session.handle_upstream_eof(self.now);
            self.pump();
        }
    }

    fn pump(&mut self) {
        loop {
            while let Some(output) = self.session.poll_output() {
                self.carry_out(output);
            }
            if self.session.mailbox().clone().register(std::task::Waker::noop()) {
                self.session.handle_mail(self.now);
            } else if self.session.wants_client() && !self.client_in.is_empty() {
                let before = self.client_in.len();
                self.session.handle_client(&mut self.client_in, self.now);
                if self.client_in.len() == before {
                    while let Some(output) = self.session.poll_output() {
                        self.carry_out(output);
                    }
                    return;
                }
            } else {
                return;
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Dial => self.session.handle_upstream_open(self.now),
            Output::ToClient(bytes) => {
                assert!(!self.client_closed, "bytes for a client that was closed");
                self.to_client.extend_from_slice(&bytes);
            }
            Output::ToUpstream(bytes) => {
                assert!(!self.upstream_closed, "bytes for an upstream that was closed");
                self.to_upstream.extend_from_slice(&bytes);
            }
            Output::HeartbeatClient | Output::HeartbeatUpstream => {}
            Output::CloseClient | Output::CutClient => self.client_closed = true,
            Output::CloseUpstream | Output::CutUpstream => self.upstream_closed = true,
            Output::Sighted(_) | Output::Traced(_) | Output::Audited(_) | Output::Copied(_) => {}
            Output::BadHeader(_) | Output::Chaos(_) | Output::Kept(_) => {}
        }
    }

    fn check(&mut self) {
        whole(&mut self.to_client);
        let written = std::mem::take(&mut self.to_upstream);
        whole(&mut written.clone());
        if let Some(channel) = question(&written) {
            self.asked = Some(channel);
        }
        let (unresolved, held) = (self.session.unresolved(), self.session.held_bytes());
        let channels = self.session.channels();
        let most = match self.session.phase() {
            Phase::Handshake => 0,
            _ if self.raw => u16::MAX,
            _ => CHANNELS,
        };
        assert!(channels <= usize::from(most), "{channels} channels, at most {most} are possible now");
        // (A commit that is not remembered keeps its id in flight.)
        if self.session.phase() == Phase::Handshake || !self.shown {
            let questions = self.late.as_ref().map_or(0, |late| late.questions());
            assert_eq!(questions, 0, "the window is asked before a right is known");
            assert!(self.local.in_flight() <= self.held.len(), "an id is reserved before a right is known");
        }
        assert!(unresolved <= UNRESOLVED + 64, "{unresolved} are unresolved");
        assert!(held <= HELD + SLACK, "{held} bytes are held");
    }

    fn end(&mut self) {
        self.end_client();
        self.end_upstream();
        self.check();
        assert!(self.session.is_over(), "both sides have ended: {:#?}", self.session);
        assert_eq!((self.session.unresolved(), self.session.held_bytes()), (0, 0));
        assert!(self.client_closed && self.upstream_closed || self.session.poll_timeout().is_none());
        self.held.clear();
        self.pump();
    }
}

/// Whether a right may be known by this: a message was settled, or a transaction is over.
fn shows(frame: &Frame) -> bool {
    let AMQPFrame::Method(_, class) = &frame.0 else { return false };
    match class {
        AMQPClass::Basic(method) => matches!(method, basic::AMQPMethod::Ack(_) | basic::AMQPMethod::Nack(_)),
        AMQPClass::Tx(method) => !matches!(method, tx::AMQPMethod::SelectOk(_)),
        _ => false,
    }
}

/// The channel of the last `tx.rollback` in these bytes.
fn question(bytes: &[u8]) -> Option<u16> {
    let rolls_back = [0, 90, 0, 30];
    if !bytes.windows(rolls_back.len()).any(|octets| octets == rolls_back) {
        return None;
    }
    let mut reader = Reader::default();
    reader.feed(bytes);
    let mut channel = None;
    while let Ok(Some(frame)) = reader.frame() {
        if matches!(frame.method(), Some(AMQPClass::Tx(tx::AMQPMethod::Rollback(_)))) {
            channel = Some(frame.channel());
        }
    }
    channel
}

/// Whole frames, perhaps behind a protocol header; they are taken.
fn whole(bytes: &mut Vec<u8>) {
    let mut rest = bytes.strip_prefix(b"AMQP\x00\x00\x09\x01").unwrap_or(bytes);
    while !rest.is_empty() {
        let frame = scan(rest, usize::MAX).expect("this is AMQP").expect("a whole frame");
        rest = &rest[frame.wire_len()..];
    }
    bytes.clear();
}

fn key(id: u8) -> Key {
    let id = [b'a' + id];
    KeyMaker::new((1, 2)).key(Scope::RoutingKey, b"/", b"x", b"k", &IdValue::Bytes(&id))
}

fn publish(channel: u16, what: u8) -> Frames {
    let id = char::from(b'a' + what % 4).to_string();
    let mut message = message("x", "k").frame_size(16);
    if what & 4 == 0 {
        message = message
            .id(&id)
            .body([0, 1, 20, 200][usize::from(what >> 4 & 3)].to_string().repeat(what as usize / 8));
    } else {
        message = message.body(&id);
    }
    if what & 8 != 0 {
        message = message.mandatory();
    }
    message.publish(channel)
}

fn client_frames(octets: &mut Octets<'_>) -> Frames {
    let (what, channel, more) = (octets.next(), u16::from(octets.next() % 6), octets.next());
    match what % 20 {
        0..=5 => publish(channel, more),
        6 => Frames(publish(channel, more).0.into_iter().take(usize::from(more % 3) + 1).collect()),
        7 => body(channel, &vec![b'x'; usize::from(more)]),
        8 => say::confirm_select(channel),
        9 => say::tx_select(channel),
        10 => say::tx_commit(channel),
        11 => say::tx_rollback(channel),
        12 => say::channel_open(channel),
        13 => say::channel_close(channel, 200, ""),
        14 => say::channel_close_ok(channel),
        15 => say::consume(channel, "q", ["", "c"][usize::from(more & 1)]),
        16 => heartbeat(),
        17 => match more {
            0..80 => say::connection_close(200, ""),
            80..160 => say::connection_close_ok(),
            _ => say::queue_declare(channel, "q"),
        },
        18 => say::confirm_select_nowait(channel),
        _ => publish(channel, more) + publish(channel, more) + say::tx_commit(channel),
    }
}

/// Frames that no client library sends: a second login, more channels than anybody needs, halves of messages, messages that
/// look like others, and publishes that need many rights at once.
fn hostile_frames(octets: &mut Octets<'_>) -> Frames {
    let (what, channel, more) = (octets.next(), u16::from(octets.next() % 6), octets.next());
    let some = u16::from(more);
    match what % 16 {
        0 => say::connection_open("/"),
        1 => say::connection_open("/other") + publish(channel, more),
        2 => say::start_ok("other") + say::connection_open("/"),
        3 => say::start_ok_as("guest", "guessed"),
        4 => say::update_secret("guessed"),
        5 => say::tune_ok(some * 16, 0, 0),
        6 => (1..=some * 16).map(say::channel_open).fold(Frames::none(), |all, one| all + one),
        7 => say::channel_close(channel, 200, "") + say::channel_open(channel) + publish(channel, more),
        8 => say::tx_select(channel) + publish(channel, more) + publish(channel, more ^ 1),
        9 => Frames(message("x", "k").id("a").body("half").publish(channel).0.into_iter().take(2).collect()),
        10 => message("x", "k").id("a").mandatory().body([more; 3]).publish(channel),
        11 => message("x", "k").id("a").mandatory().bypass().body([more; 3]).publish(channel),
        12 => say::channel_close_ok(channel),
        13 => (0..some % 30)
            .map(|n| message("x", &format!("k{n}")).id("a").publish(channel))
            .fold(Frames::none(), |all, one| all + one),
        14 => {
            let open = say::tune_ok(0, 0, 0) + say::connection_open("/") + say::channel_open(1);
            say::start_ok("guest") + open + say::confirm_select(1) + publish(1, more)
        }
        _ => say::tx_rollback(channel),
    }
}

fn upstream_frames(octets: &mut Octets<'_>) -> Frames {
    let (what, channel, more) = (octets.next(), u16::from(octets.next() % 6), octets.next());
    let tag = u64::from(more % 16);
    match what % 20 {
        0..=2 => say::ack(channel, tag),
        3 | 4 => say::ack_multiple(channel, tag),
        5 => say::nack(channel, tag),
        6 => say::nack_multiple(channel, tag),
        7 => message("x", "k").id(&char::from(b'a' + more % 4).to_string()).body("b").returned(channel),
        8 => say::channel_open_ok(channel),
        9 => say::channel_close(channel, [404, 406, 403][usize::from(more % 3)], ""),
        10 | 11 => say::channel_close_ok(channel),
        12 => say::tx_commit_ok(channel),
        13 => say::tx_rollback_ok(channel),
        14 => say::tx_select_ok(channel),
        15 => say::confirm_select_ok(channel),
        16 => say::consume_ok(channel, "c") + message("x", "k").body("d").deliver(channel, "c", tag),
        17 => Frames(message("x", "k").body("d").deliver(channel, "c", tag).0.into_iter().take(2).collect()),
        18 => match more {
            0..60 => say::connection_close(320, ""),
            60..120 => say::connection_close_ok(),
            _ => say::blocked("memory"),
        },
        _ => heartbeat(),
    }
}

/// Returns the seeds of the fuzzer: a name and a list of actions for each.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    const C: u8 = 2;
    const U: u8 = 4;
    const H: u8 = 14;
    const A: u8 = 15;
    let before_login = || say::connection_open("/") + say::channel_open(1) + publish(1, 0x20);
    let raw = |side: u8, frames: Frames| {
        let bytes = frames.encode();
        bytes
            .chunks(200)
            .flat_map(|piece| [&[side, u8::try_from(piece.len()).unwrap()], piece].concat())
            .collect::<Vec<u8>>()
    };
    let handshake = [
        raw(0, protocol_header()),
        raw(1, say::start()),
        raw(0, say::start_ok("guest")),
        raw(1, say::tune(5, 131_072, 60)),
        raw(0, say::tune_ok(5, 131_072, 60) + say::connection_open("/")),
        raw(1, say::connection_open_ok()),
        raw(0, say::channel_open(1) + say::confirm_select(1) + publish(1, 0x20) + publish(1, 0x21)),
        raw(1, say::channel_open_ok(1) + say::confirm_select_ok(1) + say::ack_multiple(1, 2)),
        raw(0, publish(1, 0x20) + say::connection_close(200, "")),
        raw(1, say::connection_close_ok()),
    ];
    let list = |config: [u8; 2], steps: &[&[u8]]| [&config[..], &steps.concat()].concat();
    let confirm: &[u8] = &[C, 8, 1, 0, U, 15, 1, 0];
    let mut all = vec![
        ("recorded", list([128, 1], &[&handshake.concat()])),
        ("recorded-in-single-octets", list([128, 1], &[&[9, 1], &handshake.concat()])),
        ("duplicates", list([0, 2], &[confirm, &[C, 0, 1, 32, U, 0, 1, 1, C, 0, 1, 32, C, 0, 1, 33]])),
        ("waiter-promoted", list([0, 2], &[confirm, &[10, 0, C, 0, 1, 32, C, 6, 1, 34, 11, 1, U, 0, 1, 1]])),
        ("crowd", list([0, 0], &[&[10, 0, C, 0, 1, 32, C, 17, 1, 200, 6, 10, 11, 0, 6, 10]])),
        ("transaction", list([0, 2], &[&[C, 9, 1, 0, U, 14, 1, 0, C, 19, 1, 32, U, 12, 1, 0]])),
        (
            "tx-after-shadow",
            list([0, 2], &[&[C, 0, 1, 32, C, 9, 1, 0, C, 19, 1, 33, U, 0, 1, 1, U, 10, 1, 0, U, 8, 1, 0]]),
        ),
        ("probe", list([0, 2], &[confirm, &[10, 0, 11, 0, C, 0, 1, 32, U, 9, 5, 1]])),
        (
            "probe-refused",
            list([0, 2], &[confirm, &[10, 0, 11, 0, C, 0, 1, 32, U, 9, 5, 2, U, 10, 1, 0, C, 14, 1, 0]]),
        ),
        ("return", list([0, 2], &[confirm, &[C, 0, 1, 40, U, 7, 1, 0, U, 0, 1, 1]])),
        ("linger", list([2, 2], &[confirm, &[C, 15, 1, 1, C, 0, 1, 32, 7, 0, 6, 20, 6, 30]])),
        (
            "close-settles",
            list([0, 2], &[confirm, &[C, 0, 1, 32, C, 13, 1, 0, U, 0, 1, 1, U, 10, 1, 0, C, 17, 0, 0]]),
        ),
        ("drain", list([0, 2], &[confirm, &[C, 0, 1, 32, 7, 130, U, 0, 1, 1, U, 18, 0, 70]])),
        ("late", list([64, 2], &[confirm, &[C, 0, 1, 32, C, 0, 2, 32, 8, 1, 8, 0, U, 5, 2, 1, U, 0, 1, 1]])),
        (
            "late-out-of-order",
            list(
                [64, 6],
                &[confirm, &[C, 0, 1, 32, A, 0, 8, 0, C, 19, 1, 33, C, 0, 1, 34, 8, 2, 8, 1, 8, 0]],
            ),
        ),
        (
            "late-never",
            list([64, 2], &[confirm, &[C, 0, 1, 32, C, 0, 1, 33, 8, 160, 6, 3, 6, 4, 8, 170, U, 4, 1, 2]]),
        ),
        ("late-twice", list([64, 2], &[confirm, &[C, 0, 1, 32, C, 0, 1, 33, 8, 129, 8, 130, U, 5, 1, 1]])),
        (
            "late-waits-on",
            list([64, 18], &[confirm, &[C, 0, 1, 32, C, 0, 1, 33, 8, 160, 6, 30, 8, 0, C, 13, 1, 0, 6, 60]]),
        ),
        (
            "late-commit",
            list(
                [0, 10],
                &[confirm, &[C, 0, 1, 32, C, 0, 1, 33, C, 0, 1, 34, U, 0, 1, 2, U, 4, 1, 3, 8, 210, 8, 255]],
            ),
        ),
        (
            "late-commit-overdue",
            list([0, 10], &[confirm, &[C, 0, 1, 32, U, 0, 1, 1, C, 0, 2, 32, 6, 3, 6, 3, 8, 255]]),
        ),
        (
            "late-commit-waits-on-and-closes",
            list(
                [0, 26],
                &[confirm, &[C, 0, 1, 32, U, 0, 1, 1, C, 13, 1, 0, 6, 20, 8, 190, 8, 255, U, 10, 1, 0]],
            ),
        ),
        (
            "late-tx-commit-ok",
            list(
                [0, 10],
                &[&[
                    C, 9, 1, 0, U, 14, 1, 0, C, 19, 1, 32, U, 12, 1, 0, C, 11, 1, 0, U, 13, 1, 0, U, 16, 1,
                    1, 8, 255,
                ]],
            ),
        ),
        (
            "late-commit-and-vanishes",
            list([2, 10], &[confirm, &[C, 0, 1, 32, C, 0, 1, 33, U, 0, 1, 1, 7, 0, U, 0, 1, 2, 6, 60]]),
        ),
        (
            "late-commit-disowned",
            list(
                [8, 10],
                &[&[C, 0, 1, 40, U, 4, 1, 1, C, 0, 1, 41, U, 7, 1, 0, 8, 255, U, 9, 1, 0, C, 14, 1, 0]],
            ),
        ),
        ("body-as-id", list([1, 2], &[confirm, &[C, 0, 1, 32, C, 7, 1, 0, C, 0, 1, 4]])),
        (
            "missing-id",
            list([4, 2], &[confirm, &[C, 0, 1, 32, C, 0, 1, 4, C, 13, 1, 0, U, 0, 1, 1, U, 10, 1, 0]]),
        ),
        ("delivery", list([0, 2], &[confirm, &[U, 16, 1, 1, U, 17, 1, 2, C, 0, 1, 32, U, 0, 1, 1]])),
        ("upstream-dies", list([2, 2], &[confirm, &[C, 0, 1, 32, C, 6, 1, 34, 7, 70]])),
        ("second-open", list([0, 2], &[confirm, &[H, 1, 1, 32, H, 0, 0, 0, C, 0, 1, 33, U, 0, 1, 1]])),
        ("second-login", list([0, 2], &[confirm, &[C, 0, 1, 32, H, 2, 0, 0, H, 3, 0, 0, C, 0, 1, 33]])),
        ("many-channels", list([0, 2], &[&[H, 5, 0, 4, H, 6, 0, 20, C, 0, 1, 32]])),
        ("close-and-open", list([0, 2], &[confirm, &[C, 0, 1, 32, H, 7, 1, 33, U, 10, 1, 0, U, 8, 1, 0]])),
        ("endless-transaction", list([0, 2], &[&[H, 8, 1, 32, U, 14, 1, 0, H, 8, 1, 33, 6, 200]])),
        ("half-a-message", list([0, 6], &[confirm, &[H, 9, 1, 0, A, 200, C, 0, 2, 32, 6, 130]])),
        (
            "look-alikes",
            list(
                [0, 2],
                &[confirm, &[H, 10, 1, 1, H, 11, 1, 2, H, 11, 1, 3, U, 7, 1, 0, U, 1, 1, 2, U, 0, 1, 1]],
            ),
        ),
        ("many-rights", list([0, 6], &[confirm, &[H, 13, 1, 29, A, 0, H, 13, 1, 28, A, 200, A, 220]])),
        (
            "right-refused",
            list([0, 6], &[confirm, &[C, 0, 1, 32, C, 0, 1, 33, A, 170, C, 14, 5, 0, C, 0, 2, 32]]),
        ),
        ("asks-and-vanishes", list([2, 6], &[confirm, &[C, 0, 1, 32, C, 0, 2, 32, 7, 0, A, 0, 6, 40]])),
        ("before-login", [&[128, 2][..], &raw(0, protocol_header() + before_login())].concat()),
        ("wrong-password", [&[128, 2][..], &raw(0, protocol_header()), &[H, 3, 0, 0, H, 14, 0, 32]].concat()),
        ("broken-frame", list([0, 2], &[&[0, 8, 1, 0, 1, 0, 0, 0, 0, 0]])),
    ];
    all.push(("http", [&[128, 0, 0, 18][..], b"GET / HTTP/1.1\r\n\r\n"].concat()));
    all
}
