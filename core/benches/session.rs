//! Measures what a session alone costs per message: no socket, no runtime, only bytes in and bytes out.
//!
//! * `unique`: publishes of new ids with confirms, into a full window of 1,000,000 ids, so that each evicts an id. The
//!   broker acks once per read, with `multiple`.
//! * `duplicate`: publishes of ids that are remembered.
//! * `off`: publishes that no window judges, and their acks.
//! * `deliver`: deliveries on their way to a consumer.
//! * `copy`: copies the bytes of as many publishes into a buffer and out of it again, which every relay must do.
//!
//! A message has 256 octets of body and 10 headers, and a read has 64 messages. `HAPAX_BENCH=unique:100000` only runs
//! this many messages, for callgrind: `scripts/instructions` counts the instructions per message.

use bytes::{Buf, BytesMut};
use criterion::{Criterion, Throughput};
use hapax_core::pressure::Accounting;
use hapax_core::session::{Output, Session, SessionListener, Settings};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    KeyMaker, Limits, LocalWindow, Mailbox, Mode, Rules, Scope, Ticket, Verdict, Window, reserve_one,
};
use hapax_core::wire::properties::IdValue;
use hapax_core::wire::{BadHeader, ChannelId, emit};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

#[path = "../tests/support/mod.rs"]
mod support;

use amq_protocol::types::AMQPValue;
use support::frames::message;
use support::methods::{ack, confirm_select, confirm_select_ok};
use support::pair::{Everything, Pair, epoch, settings, shared};

const CAPACITY: u64 = 1_000_000;
/// The capacity under callgrind. A larger window would take a minute to fill.
const COUNTED_CAPACITY: u64 = 100_000;
/// Messages in a read.
const BATCH: u64 = 64;
/// Digits of an id.
const DIGITS: usize = 16;
/// How far the clock moves per new id, under criterion and callgrind. It is so short that no id expires.
const STEP: Duration = Duration::from_micros(1);

#[derive(Clone, Copy, PartialEq, Debug)]
enum Job {
    Unique,
    Duplicate,
    Off,
    Deliver,
    Copy,
}

const JOBS: [(Job, &str); 5] = [
    (Job::Unique, "unique"),
    (Job::Duplicate, "duplicate"),
    (Job::Off, "off"),
    (Job::Deliver, "deliver"),
    (Job::Copy, "copy"),
];

/// Counts as the relay does: with atomics.
#[derive(Debug, Default)]
struct Counters {
    unjudged: AtomicU64,
    publishes: AtomicU64,
    latency: AtomicU64,
}

impl SessionListener for Counters {
    fn unmatched(&self) {
        self.unjudged.fetch_add(1, Relaxed);
    }

    fn bad_header(&self, _: BadHeader) {}

    fn unverified(&self) {}

    fn channel_limited(&self, _: Option<&str>) {}

    fn returns_everything(&self, _: &[u8], _: &[u8], _: u32) {}

    fn publish_latency(&self, latency: Duration, publishes: u64) {
        self.publishes.fetch_add(publishes, Relaxed);
        self.latency.fetch_add(latency.as_micros().try_into().unwrap_or(u64::MAX), Relaxed);
    }
}

/// A client with channel 1 open and confirms selected, its broker, and the progress of both.
struct Rig {
    job: Job,
    capacity: u64,
    session: Session,
    /// a read from the client or from the broker, into which new ids are written
    read: Vec<u8>,
    /// the positions of the ids in it
    ids: Vec<usize>,
    client: BytesMut,
    upstream: BytesMut,
    sent: u64,
    now: Instant,
}

impl Rig {
    fn new(job: Job, capacity: u64) -> Rig {
        // As a window is that nobody has configured.
        let limits = Limits {
            capacity: usize::try_from(capacity).unwrap_or(usize::MAX),
            ttl: Duration::from_secs(600),
            mode: if job == Job::Off { Mode::Off } else { Mode::Enforce },
            refresh_on_duplicate: false,
            waiters_per_id: 64,
        };
        let accounting = Arc::new(Accounting::new());
        let window =
            LocalWindow::new(Rules::named("bench"), limits, EngineKind::default(), accounting.clone());
        let now = epoch();
        if matches!(job, Job::Unique | Job::Duplicate) {
            // Tick as the relay does, so that the accounting sees that the window is busy.
            accounting.tick(&*window, now);
            fill(&window, capacity, now);
            accounting.tick(&*window, now + Duration::from_secs(1));
        }
        let settings = Settings { max_unresolved: 100_000, held_bytes: 1 << 24, ..settings() };
        let mut pair =
            Pair::new(&shared(settings, Arc::new(Everything(window)), Arc::new(Counters::default())))
                .proving();
        pair.handshake("guest", "/");
        pair.open(1);
        pair.client(confirm_select(1));
        pair.upstream(confirm_select_ok(1));
        // The first publish proves that the user has the right to publish.
        pair.client(message("x", "k").id("first").publish(1));
        pair.upstream(ack(1, 1));
        let (read, ids) = template(job);
        let (client, upstream) = (BytesMut::new(), BytesMut::new());
        let session = pair.session;
        Rig { job, capacity, session, read, ids, client, upstream, sent: 0, now }
    }

    fn client_says(&mut self, bytes: &[u8]) {
        self.client.extend_from_slice(bytes);
        self.session.handle_client(&mut self.client, self.now);
        self.drain();
    }

    fn upstream_says(&mut self, bytes: &[u8]) {
        self.upstream.extend_from_slice(bytes);
        self.session.handle_upstream(&mut self.upstream, self.now);
        self.drain();
    }

    /// Drains the outputs as the shell does, but writes them nowhere.
    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            drop(black_box::<Output>(output));
        }
    }

    fn batch(&mut self) {
        self.now += STEP * 64;
        for (n, at) in (0..).zip(&self.ids) {
            let next = self.sent + n;
            // Duplicates repeat the younger ids.
            let id = match self.job {
                Job::Duplicate => self.capacity - 1 - next % (self.capacity / 2),
                Job::Unique | Job::Off | Job::Deliver | Job::Copy => self.capacity + next,
            };
            write_id(&mut self.read, *at, id);
        }
        self.sent += BATCH;
        let read = std::mem::take(&mut self.read);
        match self.job {
            Job::Deliver => self.upstream_says(&read),
            Job::Copy => {
                self.client.extend_from_slice(&read);
                self.client.advance(read.len());
                black_box(&mut self.client).clear();
            }
            Job::Unique | Job::Off => {
                self.client_says(&read);
                let mut ack = BytesMut::new();
                emit::ack(&mut ack, ChannelId(1), self.sent + 1, true);
                self.upstream_says(&ack);
            }
            Job::Duplicate => self.client_says(&read),
        }
        self.read = read;
    }
}

/// Fills a window with the ids from 0 on.
fn fill(window: &Arc<LocalWindow<Accounting>>, capacity: u64, now: Instant) {
    // Make the keys as the sessions of the tests do.
    let keys = KeyMaker::new((1, 2));
    let mailbox = Arc::new(Mailbox::new());
    for n in 0..capacity {
        let id = format!("{n:016x}");
        let key = keys.key(Scope::RoutingKey, b"/", b"x", b"k", &IdValue::Bytes(id.as_bytes()));
        if let Verdict::Fresh(reservation) = reserve_one(window, key, now, &mailbox, Ticket(n)) {
            reservation.commit(now, window.ttl());
        }
    }
}

/// Returns a read and the positions of its ids.
fn template(job: Job) -> (Vec<u8>, Vec<usize>) {
    let mark = "#".repeat(DIGITS);
    let mut message = message("x", "k").id(&mark).body("b".repeat(256));
    for n in 0..10 {
        message =
            message.header(&format!("header-{n}"), AMQPValue::LongString(format!("value of {n}").into()));
    }
    let mut read = Vec::new();
    for n in 0..BATCH {
        read.extend(match job {
            Job::Deliver => message.deliver(1, "consumer", n + 1).encode(),
            Job::Unique | Job::Duplicate | Job::Off | Job::Copy => message.publish(1).encode(),
        });
    }
    let ids =
        read.windows(DIGITS).enumerate().filter(|(_, at)| *at == mark.as_bytes()).map(|(at, _)| at).collect();
    (read, ids)
}

fn write_id(read: &mut [u8], at: usize, id: u64) {
    for (digit, octet) in (0..).zip(read[at..at + DIGITS].iter_mut().rev()) {
        *octet = b"0123456789abcdef"[(id >> (4 * digit) & 15) as usize];
    }
}

/// Runs `job:messages` once, without criterion.
fn count_only(what: &str) -> Option<()> {
    let (job, count) = what.split_once(':')?;
    let (job, _) = JOBS.into_iter().find(|(_, name)| *name == job)?;
    let mut rig = Rig::new(job, COUNTED_CAPACITY);
    (0..count.parse::<u64>().ok()? / BATCH).for_each(|_| rig.batch());
    Some(())
}

fn main() {
    if let Ok(what) = std::env::var("HAPAX_BENCH") {
        assert!(count_only(&what).is_some(), "HAPAX_BENCH={what}: write it as unique:100000");
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("session, 64 messages");
    for (job, name) in JOBS {
        let mut rig = Rig::new(job, CAPACITY);
        group.throughput(Throughput::Elements(BATCH));
        group.bench_function(name, |bencher| bencher.iter(|| rig.batch()));
    }
    group.finish();
    criterion.final_summary();
}
