//! The log and its writer over a disk that a test can break.

use super::compact::State;
use super::fake::{Dice, Fake, Faults};
use super::files::{Files, Folder};
use super::frame;
use super::log::{self, Log};
use super::recover::{Moment, Recovered, recover};
use super::writer::{Busy, Clock, Parts, Signals, Writer};
use crate::store::{Failure, Logged};
use hapax_core::pressure::Accounting;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::logged::{Codec, OnOutage, Record, RelayId, StorePolicy, What};
use hapax_core::window::{
    Claim, Commit, ForgetCause, Found, Inspect, Key, KeyMaker, Limits, LoggedWindow, Mode, Position,
    ProducerKey, Remembered, Republish, Rules, Turn, Window,
};
use hapax_core::wire::IdSource;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const TTL: Duration = Duration::from_secs(3600);
const SEGMENT: u64 = 700;

/// A clock that a test moves. The wall clock can be set apart from the other one.
#[derive(Clone)]
struct Hands(Arc<Mutex<Moment>>);

impl Hands {
    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn new() -> Hands {
        let now = Instant::now() + Duration::from_secs(400 * 86_400);
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Hands(Arc::new(Mutex::new(Moment { now, wall })))
    }

    fn pass(&self, time: Duration) {
        let mut moment = self.0.lock();
        moment.now += time;
        moment.wall += time;
    }

    fn set_wall(&self, change: impl FnOnce(SystemTime) -> SystemTime) {
        let mut moment = self.0.lock();
        moment.wall = change(moment.wall);
    }

    fn now(&self) -> Instant {
        self.0.lock().now
    }

    fn clock(&self) -> Clock {
        let hands = self.clone();
        Arc::new(move || *hands.0.lock())
    }
}

/// The kind of things that a window remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Ids,
    /// the numbers of four producers
    Numbers,
}

impl Kind {
    fn rules(self) -> Rules {
        let id = match self {
            Kind::Ids => IdSource::MessageId,
            Kind::Numbers => IdSource::Sequence,
        };
        Rules { id, ..Rules::named("orders") }
    }

    fn claim(self, key: u128) -> Claim {
        match self {
            Kind::Ids => Key(key).into(),
            Kind::Numbers => Claim::Sequence {
                producer: producer(key % 4),
                epoch: 0,
                number: u64::try_from(key / 4).unwrap(),
            },
        }
    }
}

fn producer(n: u128) -> ProducerKey {
    ProducerKey::new(Key((n + 1) << 64))
}

fn window_of(kind: Kind, policy: StorePolicy, capacity: usize, now: Instant) -> Arc<Logged> {
    let limits =
        Limits { capacity, ttl: TTL, mode: Mode::Enforce, refresh_on_duplicate: false, waiters_per_id: 2 };
    let listener = Arc::new(Accounting::new());
    LoggedWindow::new(kind.rules(), limits, EngineKind::default(), listener, "disk", policy, now)
}

fn window(policy: StorePolicy, capacity: usize, now: Instant) -> Arc<Logged> {
    window_of(Kind::Ids, policy, capacity, now)
}

fn codec_of(kind: Kind, relay: u64) -> Codec {
    Codec::new(KeyMaker::of_secret(b"a secret of a test"), &kind.rules(), RelayId(relay))
}

fn codec(relay: u64) -> Codec {
    codec_of(Kind::Ids, relay)
}

/// A process with its log.
struct Process {
    kind: Kind,
    window: Arc<Logged>,
    writer: Writer<Fake>,
    files: Arc<Fake>,
    hands: Hands,
}

impl Process {
    fn start(files: Fake, hands: &Hands, relay: u64, capacity: usize) -> Result<Process, Failure> {
        Process::start_of(Kind::Ids, files, hands, relay, capacity)
    }

    fn start_of(
        kind: Kind,
        files: Fake,
        hands: &Hands,
        relay: u64,
        capacity: usize,
    ) -> Result<Process, Failure> {
        let window = window_of(kind, StorePolicy::default(), capacity, hands.now());
        let files = Arc::new(files);
        let parts = Parts {
            files: Arc::clone(&files),
            folder: "/test".to_owned(),
            window: Arc::clone(&window),
            codec: codec_of(kind, relay),
            segment_bytes: SEGMENT,
            signals: Arc::new(Signals::default()),
            clock: hands.clock(),
        };
        let start = hands.now();
        let (log, earlier) = super::writer::open(&parts, start)?;
        let writer = Writer::new(parts, log, start, earlier);
        Ok(Process { kind, window, writer, files, hands: hands.clone() })
    }

    /// Commits this key. Returns the position that it waits for.
    fn commit(&self, key: u128) -> Position {
        let commit = Commit { claim: self.kind.claim(key), turn: Turn(u64::MAX), memo: TTL.into() };
        match self.window.commit(commit, self.hands.now()) {
            Remembered::At(position) => position,
            // The store is down: the client is acked without it.
            Remembered::Now => Position(u64::MAX),
        }
    }

    fn is_seen(&self, key: u128) -> bool {
        matches!(self.window.find(self.kind.claim(key), self.hands.now()), Some(Found::Seen(_)))
    }

    fn seen(&self, keys: impl IntoIterator<Item = u128>) -> Vec<u128> {
        keys.into_iter().filter(|key| self.is_seen(*key)).collect()
    }

    /// Writes all that waits, in writes of their own.
    fn write_all(&mut self) {
        while self.window.store(self.hands.now()).is_some_and(|facts| facts.waiting > 0) {
            self.writer.write();
        }
    }

    /// Lets the log be made smaller, whether or not it is due.
    fn pass(&mut self) {
        self.end_pass();
        self.writer.begin_pass();
        self.end_pass();
    }

    fn end_pass(&mut self) {
        while self.writer.is_in_pass() {
            self.writer.follow_pass();
            // A pass of producers waits for what is to be written.
            if self.kind == Kind::Numbers {
                self.writer.write();
            }
            std::thread::yield_now();
        }
    }

    fn facts(&self) -> hapax_core::window::StoreFacts {
        self.window.store(self.hands.now()).unwrap()
    }
}

fn found(files: &Arc<Fake>, hands: &Hands, capacity: usize) -> (Recovered, Arc<Logged>) {
    let mut log = Log::open(Arc::clone(files), SEGMENT).unwrap();
    let window = window(StorePolicy::default(), capacity, hands.now());
    let found = recover(&mut log, &window, &codec(99), "/test", (hands.clock())()).unwrap();
    (found, window)
}

#[test]
fn what_was_written_is_back_after_a_restart_in_its_order() {
    let hands = Hands::new();
    let mut process = Process::start(Fake::default(), &hands, 1, 100).unwrap();
    for key in 1..=60 {
        let position = process.commit(key);
        assert!(!process.is_seen(key), "an id is not seen before it is written");
        process.writer.write();
        assert!(process.window.remembered() >= position && process.is_seen(key));
    }
    process.window.forget(Key(7).into(), hands.now());
    process.writer.write();
    assert!(process.files.names().unwrap().len() > 3);

    // Half as much room: the youngest are kept.
    let again = Process::start(process.files.after_kill(), &hands, 2, 30).unwrap();
    assert_eq!(again.seen(1..=60), (31..=60).collect::<Vec<_>>());
    let again = Process::start(process.files.after_kill(), &hands, 2, 100).unwrap();
    let but_one: Vec<_> = (1..=60).filter(|key| *key != 7).collect();
    assert_eq!(again.seen(1..=60), but_one);
    assert_eq!(again.facts().recovered, 60);
    assert!(!again.facts().recovering);
}

#[test]
fn a_log_ends_at_any_byte_and_the_rest_is_used() {
    let hands = Hands::new();
    let mut process = Process::start(Fake::default(), &hands, 1, 100).unwrap();
    for key in 1..=3 {
        process.commit(key);
        process.writer.write();
    }
    let name = log::name(1);
    let bytes = process.files.read(&name).unwrap();
    let ends: Vec<usize> = frame::scan(&bytes)
        .scan(0, |end, found| {
            let frame::Found::Frame { batch, .. } = found else { panic!("{found:?}") };
            *end += frame::HEAD + batch.len();
            Some(*end)
        })
        .collect();
    for cut in ends[1]..bytes.len() {
        let files = Arc::new(process.files.after_kill());
        files.change(&name, |bytes| bytes.truncate(cut));
        let (recovered, window) = found(&files, &hands, 100);
        assert_eq!((recovered.ids, recovered.damaged), (2, 0), "cut {cut}");
        assert_eq!(recovered.torn, u64::from(cut > ends[1]), "cut {cut}");
        assert_eq!(window.entries(), Some(2));
        // The end was cut off: the next start has nothing to tell.
        assert_eq!(files.read(&name).unwrap().len(), ends[1]);
        assert_eq!(found(&files, &hands, 100).0.torn, 0);
    }
}

#[test]
fn a_turned_bit_costs_one_batch_and_is_told() {
    let hands = Hands::new();
    let mut process = Process::start(Fake::default(), &hands, 1, 100).unwrap();
    for key in 1..=4 {
        process.commit(key);
        process.writer.write();
    }
    let name = log::name(1);
    let length = process.files.read(&name).unwrap().len();
    for bit in 0..length * 8 {
        let files = Arc::new(process.files.after_kill());
        files.change(&name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let (recovered, window) = found(&files, &hands, 100);
        assert_eq!((recovered.ids, recovered.damaged + recovered.torn), (3, 1), "bit {bit}");
        let facts = window.store(hands.now()).unwrap();
        assert_eq!((facts.damaged, window.entries()), (recovered.damaged, Some(3)), "bit {bit}");
    }
}

#[test]
fn a_log_of_another_secret_or_format_is_refused_with_what_to_do() {
    let hands = Hands::new();
    let mut process = Process::start(Fake::default(), &hands, 1, 100).unwrap();
    // Enough for the thread that reads ahead to wait.
    for key in 1..=60 {
        process.commit(key);
        process.writer.write();
    }
    let refuse = |files: Fake, codec: Codec| {
        let mut log = Log::open(Arc::new(files), SEGMENT).unwrap();
        let window = window(StorePolicy::default(), 100, hands.now());
        let error = recover(&mut log, &window, &codec, "/test", (hands.clock())()).unwrap_err();
        assert_eq!(window.entries(), Some(0));
        error.to_string()
    };
    let other =
        Codec::new(KeyMaker::of_secret(b"another secret of a test"), &Rules::named("orders"), RelayId(3));
    let error = refuse(process.files.after_kill(), other);
    assert!(error.contains("another digest secret") && error.contains("move /test away"), "{error}");
    let mut rules = Rules::named("orders");
    rules.id = IdSource::Body;
    let other = Codec::new(KeyMaker::of_secret(b"a secret of a test"), &rules, RelayId(3));
    assert!(refuse(process.files.after_kill(), other).contains("`id` back as they were"));
    let files = process.files.after_kill();
    files.change(&log::name(1), |bytes| {
        bytes.clear();
        bytes.extend(b"HXF\x02 and what only a later version can read, which goes on");
    });
    assert!(refuse(files, codec(3)).contains("has format 2"));
}

/// Nothing is acked before it is synced. The batch of a failed sync is written again, into another segment.
#[test]
fn a_failed_sync_is_never_taken_for_a_good_one() {
    let hands = Hands::new();
    let mut process = Process::start(Fake::default(), &hands, 1, 100).unwrap();
    process.commit(1);
    process.writer.write();
    process.files.set(Faults { bad_syncs: 2, ..Faults::default() });
    let position = process.commit(2);
    process.writer.write();
    assert!(process.facts().down_since.is_some());
    assert_eq!((process.facts().unremembered, process.is_seen(2)), (1, true), "the client was acked anyway");
    process.writer.write();
    assert!(process.facts().down_since.is_some());
    process.writer.write();
    assert!(process.facts().down_since.is_none() && process.window.remembered() >= position);
    assert!(process.files.names().unwrap().len() > 1, "a new segment");
    for seed in 0..20 {
        let again = Process::start(process.files.after_power_loss(seed), &hands, 2, 100).unwrap();
        assert_eq!(again.seen(1..=3), [1, 2]);
    }
}

/// A write that does not return: the store is down, and works again when it has returned.
#[test]
fn a_disk_that_does_not_answer_is_down_until_it_does() {
    let hands = Hands::new();
    let mut process = Process::start(Fake::default(), &hands, 1, 100).unwrap();
    let (busy, most) = (Busy::default(), Duration::from_secs(1));
    busy.watch(&process.window, hands.now(), most);
    busy.begin(hands.now());
    hands.pass(Duration::from_millis(900));
    busy.watch(&process.window, hands.now(), most);
    assert!(process.facts().down_since.is_none());
    let position = process.commit(1);
    hands.pass(Duration::from_millis(200));
    busy.watch(&process.window, hands.now(), most);
    assert!(process.facts().down_since.is_some());
    assert!(process.window.remembered() >= position, "the client goes on, and is counted");
    assert_eq!(process.facts().unremembered, 1);
    busy.end();
    process.writer.write();
    busy.watch(&process.window, hands.now(), most);
    assert!(process.facts().down_since.is_none());
}

/// With `refuse` nobody is acked while the disk is full. With room again everything goes on.
#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    for on_outage in [OnOutage::Continue, OnOutage::Refuse] {
        let hands = Hands::new();
        let mut process = Process::start(Fake::default(), &hands, 1, 10_000).unwrap();
        let policy = StorePolicy { on_outage, ..StorePolicy::default() };
        process.window = window(policy, 10_000, hands.now());
        process.writer.replace_window(Arc::clone(&process.window));
        process.window.recovered();
        process.files.set(Faults { room: 5_000, ..Faults::default() });
        let (mut key, mut positions) = (0, Vec::new());
        while process.facts().down_since.is_none() {
            key += 1;
            positions.push(process.commit(key));
            process.writer.write();
        }
        for _ in 0..50 {
            key += 1;
            positions.push(process.commit(key));
            process.writer.write();
        }
        let acked = process.window.remembered();
        let unremembered = process.facts().unremembered;
        match on_outage {
            OnOutage::Continue => assert!(unremembered > 50, "{unremembered}"),
            OnOutage::Refuse => {
                assert_eq!(unremembered, 0);
                assert!(acked < positions[positions.len() - 51], "nobody was acked while the disk was full");
            }
        }
        assert!(process.files.bytes() <= 5_000);
        assert!(process.files.names().unwrap().len() < 20, "no file for each try");
        process.files.set(Faults::default());
        process.write_all();
        assert!(process.facts().down_since.is_none());
        let again = Process::start(process.files.after_power_loss(1), &hands, 2, 10_000).unwrap();
        assert_eq!(again.seen(1..=key), (1..=key).collect::<Vec<_>>());
    }
}

/// However much is stored and stored anew, the log has the size of the window.
#[test]
fn the_log_does_not_outgrow_the_window() {
    let hands = Hands::new();
    let mut process = Process::start(Fake::default(), &hands, 1, 50).unwrap();
    let mut most = 0;
    for key in 0..3_000 {
        // Some ids come again and again, some are forgotten, most are pushed out by capacity.
        process.commit(if key % 3 == 0 { 1 } else { key });
        if key % 10 == 0 {
            process.window.forget(Key(key - key % 7).into(), hands.now());
        }
        process.writer.write();
        hands.pass(Duration::from_millis(400));
        process.writer.tick(hands.now());
        process.end_pass();
        most = most.max(process.files.bytes());
    }
    assert!(most < 30_000, "{most}");
    let seen = process.seen(0..3_000);
    let again = Process::start(process.files.after_kill(), &hands, 2, 50).unwrap();
    assert_eq!(again.seen(0..3_000), seen);
    // And when everything has expired, it is gone.
    hands.pass(TTL + TTL);
    process.commit(9_999);
    process.writer.write();
    process.writer.tick(hands.now());
    assert!(process.files.bytes() < 1_500, "{}", process.files.bytes());
}

/// However many numbers are stored, the log has the size of the producers. A producer stays known when the records of its
/// numbers go.
#[test]
fn the_log_of_numbers_does_not_outgrow_the_producers() {
    let hands = Hands::new();
    let mut process = Process::start_of(Kind::Numbers, Fake::default(), &hands, 1, 50).unwrap();
    let mut most = 0;
    for key in (0..8_000).filter(|key| key % 4 < 2 || *key < 400) {
        process.commit(key);
        process.writer.write();
        hands.pass(Duration::from_secs(2));
        process.writer.tick(hands.now());
        process.end_pass();
        most = most.max(process.files.bytes());
    }
    assert!(most < 4_200, "{most}");
    process.window.sweep(hands.now());
    assert_eq!(process.window.entries(), Some(2), "two producers have ended long ago");
    let seen = process.seen(0..8_004);
    assert_eq!(seen.len(), 4_000);
    let again = Process::start_of(Kind::Numbers, process.files.after_kill(), &hands, 2, 50).unwrap();
    again.window.sweep(hands.now());
    assert_eq!((again.window.entries(), again.seen(0..8_004)), (Some(2), seen));
    // And when everything has expired, it is gone.
    hands.pass(TTL + TTL);
    process.writer.seal();
    process.window.sweep(hands.now());
    process.writer.tick(hands.now());
    process.end_pass();
    assert_eq!(process.files.bytes(), 0);
}

/// The first segment has expired, and its producer still publishes. Whenever the process dies, all numbers of the producer are known: a
/// pass puts them into a new segment before the old one goes.
#[test]
fn a_segment_of_numbers_expires_and_their_producer_stays_known() {
    let hands = Hands::new();
    let mut process = Process::start_of(Kind::Numbers, Fake::default(), &hands, 1, 50).unwrap();
    let numbers = [0, 4, 8];
    for key in numbers {
        process.commit(key);
    }
    process.write_all();
    process.writer.seal();
    hands.pass(TTL / 2);
    process.commit(12);
    process.write_all();
    hands.pass(TTL / 2 + Duration::from_secs(1));
    let known = |files: Fake| {
        let again = Process::start_of(Kind::Numbers, files, &hands, 2, 50).unwrap();
        again.seen([0, 4, 8, 12, 16])
    };
    process.writer.tick(hands.now());
    assert_eq!(known(process.files.after_kill()), [0, 4, 8, 12], "the pass is under way");
    process.end_pass();
    assert_eq!(known(process.files.after_kill()), [0, 4, 8, 12], "the pass has ended");
    // There is no pass soon after another one. The next segment that has expired waits for it.
    process.writer.seal();
    process.commit(16);
    process.write_all();
    hands.pass(TTL - Duration::from_secs(1));
    process.writer.tick(hands.now());
    process.writer.tick(hands.now());
    process.end_pass();
    assert_eq!(known(process.files.after_kill()), [0, 4, 8, 12, 16], "another pass has ended");
}

/// The window has forgotten a number, and the log has not: the pass waits for the log.
#[test]
fn a_pass_of_numbers_waits_for_what_is_forgotten_and_not_written() {
    let hands = Hands::new();
    let mut process = Process::start_of(Kind::Numbers, Fake::default(), &hands, 1, 50).unwrap();
    for key in [0, 4, 8] {
        process.commit(key);
        process.writer.write();
    }
    process.writer.seal();
    process.window.forget(Kind::Numbers.claim(4), hands.now());
    let before = process.files.bytes();
    process.writer.begin_pass();
    while process.files.names().unwrap().len() < 2 {
        std::thread::yield_now();
    }
    for _ in 0..1_000 {
        process.writer.follow_pass();
    }
    assert!(process.writer.is_in_pass(), "it has not replaced anything");
    assert!(process.files.bytes() >= before);
    let again = Process::start_of(Kind::Numbers, process.files.after_kill(), &hands, 2, 50).unwrap();
    assert_eq!(again.seen([0, 4, 8]), [0, 4, 8], "nobody was told that it is forgotten");
    process.end_pass();
    let again = Process::start_of(Kind::Numbers, process.files.after_kill(), &hands, 2, 50).unwrap();
    assert_eq!(again.seen([0, 4, 8]), [0, 8]);
}

/// An earlier version reads the log of a window of ids, and refuses that of a window of sequences.
#[test]
fn a_log_of_sequences_has_a_format_of_its_own() {
    let hands = Hands::new();
    for (kind, format) in [(Kind::Ids, 1), (Kind::Numbers, 2)] {
        let mut process = Process::start_of(kind, Fake::default(), &hands, 1, 50).unwrap();
        process.commit(1);
        process.writer.write();
        let bytes = process.files.read(&log::name(1)).unwrap();
        let Some(frame::Found::Frame { batch, .. }) = frame::scan(&bytes).next() else { panic!("no frame") };
        assert_eq!(batch[3], format, "{kind:?}");
    }
}

/// A wall clock that somebody sets takes no id away while the process runs, and none that a pass looks at.
#[test]
fn a_wall_clock_that_is_set_costs_the_log_nothing() {
    let hands = Hands::new();
    let mut process = Process::start(Fake::default(), &hands, 1, 100).unwrap();
    let hour = Duration::from_secs(3600);
    for (n, key) in (1..=30).enumerate() {
        process.commit(key);
        process.writer.write();
        hands.pass(Duration::from_secs(5));
        match n {
            10 => hands.set_wall(|wall| wall + 5 * hour),
            20 => hands.set_wall(|wall| wall - 5 * hour - hour / 3),
            _ => {}
        }
        process.writer.tick(hands.now());
    }
    hands.set_wall(|wall| wall + hour / 3);
    process.writer.seal();
    process.pass();
    let again = Process::start(process.files.after_kill(), &hands, 2, 100).unwrap();
    assert_eq!(again.seen(1..=30), (1..=30).collect::<Vec<_>>());
}

/// A wall clock that was set forward ends ids early by the jump, but not before the process starts again.
#[test]
fn a_wall_clock_that_was_set_forward_costs_its_jump_after_a_restart() {
    let (hands, minute) = (Hands::new(), Duration::from_secs(60));
    let mut process = Process::start(Fake::default(), &hands, 1, 100).unwrap();
    process.commit(1);
    process.write_all();
    hands.set_wall(|wall| wall + 30 * minute);
    let again = Process::start(process.files.after_kill(), &hands, 2, 100).unwrap();
    hands.pass(29 * minute);
    assert!(process.is_seen(1) && again.is_seen(1));
    hands.pass(2 * minute);
    assert!(process.is_seen(1) && !again.is_seen(1), "30 minutes early");
    hands.set_wall(|wall| wall + TTL);
    assert!(process.is_seen(1));
    assert!(!Process::start(process.files.after_kill(), &hands, 3, 100).unwrap().is_seen(1));
}

/// A wall clock that was set back makes ids younger, but none lives for longer than its TTL from the start on.
#[test]
fn a_wall_clock_that_was_set_back_costs_nothing() {
    let (hands, minute) = (Hands::new(), Duration::from_secs(60));
    let mut process = Process::start(Fake::default(), &hands, 1, 100).unwrap();
    process.commit(1);
    process.write_all();
    hands.pass(10 * minute);
    hands.set_wall(|wall| wall - 5 * TTL);
    let again = Process::start(process.files.after_kill(), &hands, 2, 100).unwrap();
    hands.pass(TTL - minute);
    assert!(!process.is_seen(1) && again.is_seen(1));
    hands.pass(2 * minute);
    assert!(!again.is_seen(1), "not for longer than its TTL");
}

/// All ids of a log of many segments are back, in files of the disk. `HAPAX_LOG_IDS=10000000` prints the time for more of them.
#[test]
fn a_large_log_is_read_back() {
    let ids = std::env::var("HAPAX_LOG_IDS").ok().and_then(|n| n.parse().ok()).unwrap_or(50_000_usize);
    let path = std::env::temp_dir().join(format!("disk-{}-large", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    let (files, hands) = (Arc::new(Folder::open(&path).unwrap()), Hands::new());
    let segment_bytes = if ids > 1_000_000 { log::SEGMENT } else { 100_000 };
    let mut log = Log::open(Arc::clone(&files), segment_bytes).unwrap();
    let moment = (hands.clock())();
    let keys = KeyMaker::of_secret(b"keys of a test");
    for batch in 0..ids.div_ceil(400) {
        let record = |n: usize| {
            let digest = u128::from_le_bytes(keys.seal(&n.to_le_bytes()));
            Record { at: moment.now, what: What::Seen(Key(digest & Key::MASK).into(), TTL.into()) }
        };
        let records: Vec<Record> = (batch * 400..ids.min(batch * 400 + 400)).map(record).collect();
        let mut bytes = Vec::new();
        frame::put(&mut bytes, 0, &codec(1).encode(&records, moment.now, moment.wall));
        log.append_unsynced(&bytes).unwrap();
    }
    let bytes = log.bytes();
    let mut log = Log::open(files, segment_bytes).unwrap();
    let window = window(StorePolicy::default(), ids + ids / 4, hands.now());
    let begin = crate::clock::now();
    let found = recover(&mut log, &window, &codec(2), "/test", moment).unwrap();
    let seconds = crate::clock::now().duration_since(begin).as_secs_f64();
    println!(
        "{ids} ids, {} segments, {} bytes an id, back in {seconds:.2} s",
        found.segments,
        bytes / ids as u64
    );
    assert_eq!((found.ids, found.damaged, found.torn, found.bytes), (ids as u64, 0, 0, bytes));
    assert!(found.segments > 5 && window.entries() == Some(ids));
    std::fs::remove_dir_all(path).unwrap();
}

/// A key in the model: the events that happened to it, in order, with their positions.
#[derive(Clone, Debug, Default)]
struct Life {
    /// (position, whether it is seen from then on)
    events: Vec<(u64, bool)>,
}

/// Random lives of a process, with a power loss or a kill after any operation of the disk. After each restart, a key is in a state that it
/// had after the last event that was remembered, or later. Nothing that was remembered is forgotten, and nothing comes back that was
/// taken back.
#[test]
fn a_crash_after_any_operation_takes_nothing_that_was_remembered() {
    let lives = std::env::var("HAPAX_LOG_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    for seed in 0..lives {
        one_story(Kind::Ids, seed);
        one_story(Kind::Numbers, seed);
    }
}

fn one_story(kind: Kind, seed: u64) {
    const KEYS: usize = 40;
    let (mut dice, hands) = (Dice::new(seed), Hands::new());
    let mut files = Fake::default();
    let mut lives: BTreeMap<u128, Life> = BTreeMap::new();
    for run in 1..=4 {
        let mut process = Process::start_of(kind, files, &hands, run, 1_000).unwrap();
        // The state at the beginning of this run.
        for (key, life) in &mut lives {
            let is_seen = process.is_seen(*key);
            assert!(
                life.events.iter().any(|(_, seen)| *seen == is_seen),
                "{kind:?}, seed {seed}, run {run}: key {key} is seen: {is_seen}, but {life:?}"
            );
            life.events = vec![(0, is_seen)];
        }
        let (mut last, mut remembered) = (0, 0);
        let mut republished: BTreeMap<u128, Republish> = BTreeMap::new();
        let operations = dice.below(300) as u64;
        process.files.set(Faults { operations, ..Faults::default() });
        for _ in 0..dice.below(300) {
            let key = dice.below(KEYS) as u128;
            let mut note = |last: &mut u64, key, is_seen| {
                *last += 1;
                let events =
                    &mut lives.entry(key).or_insert_with(|| Life { events: vec![(0, false)] }).events;
                events.push((*last, is_seen));
            };
            match dice.below(20) {
                0..=7 if !republished.contains_key(&key) => {
                    process.commit(key);
                    note(&mut last, key, true);
                }
                8 => {
                    process.window.forget(kind.claim(key), hands.now());
                    note(&mut last, key, false);
                }
                9 if !republished.contains_key(&key) => {
                    let before = process.facts().waiting;
                    let republish = Arc::clone(&process.window).republish(kind.claim(key), hands.now());
                    republished.insert(key, republish);
                    // A commit that is not written yet stays.
                    if process.facts().waiting > before {
                        note(&mut last, key, false);
                    }
                }
                10 => {
                    if let Some((key, republish)) = republished.pop_first() {
                        if dice.below(2) == 0 {
                            drop(republish.reservation.commit(hands.now(), TTL));
                            note(&mut last, key, true);
                        } else {
                            let before = process.facts().waiting;
                            republish.reservation.forget(ForgetCause::Nack);
                            // It is forgotten once more, unless it was beside another one.
                            if process.facts().waiting > before {
                                note(&mut last, key, false);
                            }
                        }
                    }
                }
                11 if dice.below(10) == 0 => {
                    process.window.flush(hands.now());
                    last += 1;
                    for life in lives.values_mut() {
                        life.events.push((last, false));
                    }
                }
                16 if kind == Kind::Numbers && dice.below(4) == 0 => {
                    process.window.forget_producer(producer(key % 4), hands.now());
                    last += 1;
                    for (_, life) in lives.iter_mut().filter(|(other, _)| *other % 4 == key % 4) {
                        life.events.push((last, false));
                    }
                }
                12..=14 => hands.pass(Duration::from_millis(dice.below(3_000) as u64)),
                15 => process.pass(),
                _ => remembered = process.writer.write().map_or(remembered, |position| position.0),
            }
        }
        // The promise of the window. (An id that the policy has let through, because the disk did not work, is not.)
        if process.facts().unremembered == 0 && process.facts().down_since.is_none() {
            remembered = remembered.max(process.window.remembered().0);
        }
        for life in lives.values_mut() {
            let first = life.events.iter().rposition(|(position, _)| *position <= remembered).unwrap_or(0);
            life.events.drain(..first);
        }
        files = match dice.below(2) {
            0 => process.files.after_power_loss(seed ^ run),
            _ => process.files.after_kill(),
        };
        republished.into_values().for_each(|republish| republish.reservation.forget(ForgetCause::Nack));
    }
}

/// An id was stored, and once more while the disk did not work. The log has it by its first record only.
#[test]
fn a_pass_while_records_wait_keeps_what_they_would_replace() {
    let hands = Hands::new();
    let mut process = Process::start(Fake::default(), &hands, 1, 100).unwrap();
    process.commit(1);
    process.write_all();
    process.writer.seal();
    hands.pass(Duration::from_secs(10));
    process.files.set(Faults { bad_syncs: 1, ..Faults::default() });
    process.commit(2);
    process.writer.write();
    assert!(process.facts().down_since.is_some());
    process.commit(1);
    process.pass();
    let again = Process::start(process.files.after_kill(), &hands, 2, 100).unwrap();
    assert_eq!(again.seen(1..=1), [1]);
    // When they are written, it goes.
    process.write_all();
    process.writer.seal();
    hands.pass(Duration::from_secs(10));
    let before = process.files.bytes();
    process.pass();
    assert!(process.files.bytes() < before);
    let again = Process::start(process.files.after_kill(), &hands, 3, 100).unwrap();
    assert_eq!(again.seen(1..=3), [1, 2]);
}

/// A pass drops what the window does not remember, and what was stored anew; what is in flight keeps its record and what takes it back.
#[test]
fn a_pass_keeps_what_is_needed() {
    let hands = Hands::new();
    let start = hands.now();
    let files = Fake::default();
    let record = |what| Record { at: start, what };
    let seen = |key: u128| record(What::Seen(Key(key).into(), TTL.into()));
    let forgotten = |key: u128| record(What::Forgotten(Key(key).into()));
    let moment = (hands.clock())();
    let write = |number, records: &[Record]| {
        let (mut bytes, mut file) = (Vec::new(), files.create(&log::name(number)).unwrap());
        frame::put(&mut bytes, moment.clock(start), &codec(1).encode(records, moment.now, moment.wall));
        files.append(&mut file, &bytes).unwrap();
        log::Segment { number, bytes: bytes.len() as u64, span: log::Span::default() }
    };
    let segments = [
        write(1, &[seen(1), seen(2), seen(3), seen(4)]),
        write(2, &[forgotten(2), forgotten(3), seen(5)]),
        write(3, &[record(What::Flushed), seen(6), seen(7)]),
    ];
    let state = |key: Key| match key.0 {
        1 => State::Seen(0),
        2 => State::InFlight,
        // It was stored anew ten seconds later.
        4 => State::Seen(10_000),
        6 => State::Seen(500),
        // It was stored anew, too, but that is not known to be written.
        7 => State::Seen(19_000),
        _ => State::Unknown,
    };
    let (stop, codec) = (Default::default(), codec(1));
    let judge = super::compact::Judge {
        codec: &codec,
        earlier: 0,
        start,
        written_before: 20_000,
        state: &state,
        stop: &stop,
        segment_bytes: SEGMENT,
    };
    let mut told = Vec::new();
    super::compact::pass(&files, &segments, &judge, |replaced| told.push(replaced)).unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(files.names().unwrap(), [log::name(1)]);
    let bytes = files.read(&log::name(1)).unwrap();
    let Some(frame::Found::Frame { batch, .. }) = frame::scan(&bytes).next() else { panic!("no frame") };
    let kinds: Vec<_> = codec
        .decode(batch)
        .unwrap()
        .records
        .iter()
        .map(|record| match record {
            hapax_core::window::logged::Written::Seen { claim, at, .. } => {
                assert_eq!(*at, moment.wall);
                format!("seen {}", claim.key().0)
            }
            hapax_core::window::logged::Written::Forgotten(claim) => format!("forgotten {}", claim.key().0),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["seen 1", "seen 2", "forgotten 2", "Flushed", "seen 6", "seen 7"]);
}
