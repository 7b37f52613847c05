//! The thread that writes the log of one window.
//!
//! * It takes all records that have come while it wrote, writes them at once, and syncs them at once: one sync for many clients.
//!   With `remember = "async"` it begins to write every half of `remember_delay`. The other half is for the disk.
//! * A batch that could not be written is kept and written again, into a new segment, until it is written. As long as that lasts the
//!   store is down. New records wait in the window's queue, which has a bound.
//! * A write that does not return for `timeouts.store` is a store that is down, too. Another task watches that ([`Busy`]).

use super::checkpoint::{self, Prepared};
use super::compact::{self, Judge, Replaced, State};
use super::files::Files;
use super::frame;
use super::log::{Log, Span, UNFINISHED};
use super::recover::{Moment, Recovered, own, recover};
use crate::clock::{now, wall};
use crate::store::{Failure, Logged, name_of};
use hapax_core::window::logged::{AtStore, Codec, Record, Remember, What};
use hapax_core::window::{Found, Inspect, Key, Position, Window};
use hapax_core::wire::IdSource;
use parking_lot::Mutex;
use std::io;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The most records of one write: some 8 MB.
const MOST: usize = 1 << 18;
/// The most records of one batch.
const BATCH: usize = 1 << 14;
/// How often expired segments are looked for, and what is shown is renewed.
const TICK: Duration = Duration::from_secs(1);
/// How long a failed write is not tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// How long a failed pass is not tried again.
const PASS_AGAIN: Duration = Duration::from_secs(60);
/// How long a process that ends tries to write the last records.
const LAST_TRY: Duration = Duration::from_secs(2);
/// Bytes of an id in the log, as an estimate before the first pass.
const ID: usize = 32;

/// Everything that the writer needs.
pub(super) struct Parts<F: Files> {
    pub(super) files: Arc<F>,
    /// for messages
    pub(super) folder: String,
    pub(super) window: Arc<Logged>,
    pub(super) codec: Codec,
    pub(super) segment_bytes: u64,
    pub(super) signals: Arc<Signals>,
    pub(super) clock: Clock,
}

/// Tells the time.
pub(super) type Clock = Arc<dyn Fn() -> Moment + Send + Sync>;

/// Tells the time of the operating system.
pub(super) fn clock() -> Clock {
    Arc::new(|| Moment { now: now(), wall: wall() })
}

impl<F: Files> Parts<F> {
    fn now(&self) -> Instant {
        (self.clock)().now
    }
}

/// The signals between the writer and others.
#[derive(Debug, Default)]
pub(super) struct Signals {
    closing: AtomicBool,
    /// how long the writer may take to end, once it was told to
    within: OnceLock<Duration>,
    thread: Mutex<Option<Thread>>,
    pub(super) busy: Busy,
}

impl Signals {
    /// Lets the writer write the last records and end. It has this time for that.
    pub(super) fn close(&self, within: Duration) {
        let _ = self.within.set(within);
        self.closing.store(true, Release);
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Acquire)
    }

    /// Returns how long the last records are tried again. The writer says what it could not write before its time is over.
    fn last_try(&self) -> Duration {
        self.within.get().map_or(LAST_TRY, |within| LAST_TRY.min(*within / 2))
    }
}

/// Since when a write is under way.
#[derive(Debug, Default)]
pub(super) struct Busy(Mutex<Option<Since>>);

#[derive(Debug)]
struct Since {
    begin: Instant,
    /// it was told that this takes too long
    told: bool,
}

impl Busy {
    pub(super) fn begin(&self, begin: Instant) {
        *self.0.lock() = Some(Since { begin, told: false });
    }

    pub(super) fn end(&self) {
        *self.0.lock() = None;
    }

    /// Notes that the store is down if a write has taken longer than this.
    pub(super) fn watch(&self, window: &Logged, now: Instant, most: Duration) {
        // Under the lock, so that the writer can't say in between that all is well.
        let mut since = self.0.lock();
        let Some(since) = since.as_mut().filter(|since| now.saturating_duration_since(since.begin) > most)
        else {
            return;
        };
        window.store_failed(now);
        if !std::mem::replace(&mut since.told, true) {
            let window = name_of(window);
            tracing::error!(
                window,
                "the disk does not answer: a write of this window's log takes longer than timeouts.store"
            );
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Reads the log and says when that is done. Then writes until it is told to end.
pub(super) fn run<F: Files>(parts: Parts<F>, recovered: oneshot::Sender<Result<(), Failure>>) {
    *parts.signals.thread.lock() = Some(thread::current());
    let start = parts.now();
    match open(&parts, start) {
        Ok((log, earlier)) => {
            let _ = recovered.send(Ok(()));
            Writer::new(parts, log, start, earlier).run();
        }
        Err(failure) => {
            let _ = recovered.send(Err(failure));
        }
    }
}

pub(super) fn open<F: Files>(parts: &Parts<F>, start: Instant) -> Result<(Log<F>, i64), Failure> {
    let Parts { files, folder, window, codec, .. } = parts;
    let mut log = Log::open(Arc::clone(files), parts.segment_bytes).map_err(|error| Failure {
        what: format!("window \"{}\": can't use the folder of its log, {folder}: {error}", name_of(window)),
        fix: "see that the user that runs Hapax may read and write it".to_owned(),
    })?;
    let moment = Moment { now: start, wall: (parts.clock)().wall };
    let found = recover(&mut log, window, codec, folder, moment)?;
    window.recovered();
    let Recovered { ids, expired, segments, bytes, damaged, torn } = found;
    let took = humantime::format_duration(Duration::from_millis(
        u64::try_from(parts.now().saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX),
    ));
    tracing::info!(
        window = name_of(window), %took, ids, expired, entries = window.entries(), segments, bytes, damaged, torn, "read the log of this window"
    );
    Ok((log, moment.clock(start)))
}

pub(super) struct Writer<F: Files> {
    parts: Parts<F>,
    log: Log<F>,
    start: Instant,
    /// the clock when the log was read
    earlier: i64,
    /// what was taken and is not written yet
    kept: Option<(Vec<Record>, Position)>,
    down: Option<Instant>,
    latency: Option<Duration>,
    /// the bytes of the log after the last pass
    floor: u64,
    /// the window remembers producers, not ids
    has_producers: bool,
    pass: Option<Pass>,
    no_pass_before: Instant,
}

/// A pass that is under way in another thread.
struct Pass {
    told: Receiver<Told>,
    prepared: Option<Prepared>,
    thread: thread::JoinHandle<io::Result<()>>,
}

/// A message of a pass to the writer.
enum Told {
    /// Segments were replaced.
    Replaced(Replaced),
    /// A segment can replace others.
    Prepared(Prepared),
}

impl<F: Files> Writer<F> {
    pub(super) fn new(parts: Parts<F>, log: Log<F>, start: Instant, earlier: i64) -> Writer<F> {
        let has_producers = parts.window.rules().id == IdSource::Sequence;
        let floor = (parts.window.entries().unwrap_or(0) * ID) as u64;
        Writer {
            parts,
            log,
            start,
            earlier,
            kept: None,
            down: None,
            latency: None,
            floor,
            has_producers,
            pass: None,
            no_pass_before: start,
        }
    }

    fn run(mut self) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let window = Arc::clone(&self.parts.window);
        let mut next_tick = self.parts.now();
        let mut last = next_tick;
        while !self.parts.signals.is_closing() {
            let moment = self.parts.now();
            if moment >= next_tick {
                self.tick(moment);
                next_tick = moment + TICK;
            }
            let rest = next_tick.saturating_duration_since(moment);
            if self.kept.is_some() {
                self.pause(AGAIN.min(rest), || false);
                self.write();
            } else if window.register(&waker) {
                self.wait_for_more(last, &waker);
                last = self.parts.now();
                self.write();
            } else {
                thread::park_timeout(rest);
            }
        }
        self.end();
    }

    /// With `async` one sync is for everything of some time, unless somebody waits for a record. The last one began at this moment.
    fn wait_for_more(&self, last: Instant, waker: &Waker) {
        let window = &self.parts.window;
        let policy = window.policy();
        if policy.remember == Remember::Async {
            let since = self.parts.now().saturating_duration_since(last);
            self.pause((policy.delay / 2).saturating_sub(since), || window.register_urgent(waker));
        }
    }

    /// Waits, unless the process ends, or there is a reason to go on.
    fn pause(&self, how_long: Duration, goes_on: impl Fn() -> bool) {
        let until = self.parts.now() + how_long.min(Duration::from_secs(3600));
        while !self.parts.signals.is_closing()
            && !goes_on()
            && let left = until.saturating_duration_since(self.parts.now())
            && !left.is_zero()
        {
            thread::park_timeout(left);
        }
    }

    /// Writes what is to be written now. Returns the position up to which the log has everything, if that has worked.
    pub(super) fn write(&mut self) -> Option<Position> {
        let (records, position) = self.kept.take().or_else(|| self.parts.window.take(MOST))?;
        let moment = (self.parts.clock)();
        let before = moment.now;
        self.parts.signals.busy.begin(before);
        let (bytes, span) = self.frames(&records, moment);
        let done = self.log.append(&bytes, span);
        self.parts.signals.busy.end();
        let after = self.parts.now();
        match done {
            Ok(()) => {
                self.latency = Some(after.saturating_duration_since(before));
                if let Some(since) = self.down.take() {
                    let seconds = after.saturating_duration_since(since).as_secs();
                    tracing::info!(
                        window = name_of(&self.parts.window),
                        seconds,
                        "the log can be written again"
                    );
                }
                self.parts.window.written(position, after);
                Some(position)
            }
            Err(error) => {
                self.kept = Some((records, position));
                self.parts.window.store_failed(after);
                if self.down.is_none() {
                    self.down = Some(after);
                    self.tell_failure(&error);
                }
                None
            }
        }
    }

    fn tell_failure(&self, error: &io::Error) {
        let (window, folder) = (name_of(&self.parts.window), &self.parts.folder);
        let fix = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                "make room on the disk"
            }
            _ => "see to the disk",
        };
        tracing::error!(window, folder, %error, fix, "the log of this window can't be written");
    }

    fn frames(&self, records: &[Record], moment: Moment) -> (Vec<u8>, Span) {
        let (mut bytes, mut span) = (Vec::with_capacity(records.len() * ID + 128), Span::default());
        for records in records.chunks(BATCH) {
            let batch = self.parts.codec.encode(records, moment.now, moment.wall);
            frame::put(&mut bytes, moment.clock(self.start), &batch);
        }
        for Record { at, what } in records {
            if let What::Seen(_, memo) | What::Touched(_, memo) = what {
                span.add(*at, at.checked_add(memo.ttl()));
            }
            if let What::Producer(image) = what {
                span.add(*at, at.checked_add(image.ttl));
            }
        }
        (bytes, span)
    }

    /// Deletes expired segments, makes the log smaller if it has grown, and renews the facts that are shown.
    pub(super) fn tick(&mut self, now: Instant) {
        self.follow_pass();
        if self.pass.is_none() {
            // A producer may live on when the records of its numbers have expired: a pass keeps what is remembered of it.
            let is_expired = self.has_producers && self.log.is_expired(now);
            if !self.has_producers
                && let Err(error) = self.log.expire(now)
            {
                let (window, folder) = (name_of(&self.parts.window), &self.parts.folder);
                tracing::warn!(window, folder, %error, "can't delete an expired part of this window's log");
            }
            let most = 2 * self.floor + 3 * self.parts.segment_bytes;
            // A full disk is a reason, too.
            let is_due = is_expired || self.log.bytes() > most || self.down.is_some();
            if is_due && now >= self.no_pass_before {
                self.begin_pass();
            }
        }
        self.parts.window.set_at_store(AtStore {
            bytes: Some(self.log.bytes()),
            oldest: self.log.since().map(|since| now.saturating_duration_since(since)),
            latency: self.latency,
            ..AtStore::default()
        });
    }

    /// Everything in sealed segments has been told to the window, so it knows what it needs of it.
    pub(super) fn begin_pass(&mut self) {
        let segments: Vec<_> = self.log.sealed().copied().collect();
        let (sender, told) = channel();
        let Parts { files, window, codec, segment_bytes, signals, .. } = &self.parts;
        let (files, window, codec) = (Arc::clone(files), Arc::clone(window), codec.clone());
        let (segment_bytes, signals) = (*segment_bytes, Arc::clone(signals));
        let (start, earlier, now) = (self.start, self.earlier, self.parts.now());
        // While the disk works, what waits is written before the pass has replaced anything.
        let lag = window.store(now).filter(|facts| facts.down_since.is_some()).and_then(|facts| facts.lag);
        let written_before = lag.map_or(i64::MAX, |lag| own(now.checked_sub(lag).unwrap_or(start), start));
        self.no_pass_before = now + PASS_AGAIN;
        if self.has_producers {
            let moment = (self.parts.clock)();
            return self.start_pass(told, move || {
                let prepared = checkpoint::prepare(&*files, &segments, &window, &codec, (moment, start))?;
                let _ = sender.send(Told::Prepared(prepared));
                Ok(())
            });
        }
        let clock = Arc::clone(&self.parts.clock);
        let work = move || {
            let state = |key: Key| match window.find(key.into(), clock().now) {
                Some(Found::Seen(seen)) => State::Seen(own(seen.at, start)),
                Some(Found::InFlight) => State::InFlight,
                Some(Found::Unknown) | None => State::Unknown,
            };
            let stop = &signals.closing;
            let judge =
                Judge { codec: &codec, earlier, start, written_before, state: &state, stop, segment_bytes };
            compact::pass(&*files, &segments, &judge, |replaced| {
                let _ = sender.send(Told::Replaced(replaced));
            })
        };
        self.start_pass(told, work);
    }

    fn start_pass(&mut self, told: Receiver<Told>, work: impl FnOnce() -> io::Result<()> + Send + 'static) {
        match thread::Builder::new().name("hapax-log-pass".into()).spawn(work) {
            Ok(thread) => self.pass = Some(Pass { told, prepared: None, thread }),
            Err(error) => tracing::warn!(%error, "can't start a thread that makes a log smaller"),
        }
    }

    pub(super) fn follow_pass(&mut self) {
        let Some(pass) = &mut self.pass else { return };
        loop {
            match pass.told.try_recv() {
                Ok(Told::Replaced(replaced)) => note_replaced(&mut self.log, &self.parts, &replaced),
                Ok(Told::Prepared(prepared)) => pass.prepared = Some(prepared),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => break,
            }
        }
        // While the disk takes nothing, this may make room.
        if let Some(prepared) = &pass.prepared
            && self.down.is_none()
            && !self.parts.window.is_written(prepared.position)
        {
            return;
        }
        let Some(Pass { prepared, thread, .. }) = self.pass.take() else { return };
        let Ok(done) = thread.join() else { return };
        let files = &*self.parts.files;
        let done = done.and_then(|()| match prepared {
            None => Ok(()),
            Some(prepared) => {
                let replaced = prepared.install(files)?;
                note_replaced(&mut self.log, &self.parts, &replaced);
                Ok(())
            }
        });
        match done {
            Ok(()) => {
                self.floor = self.log.bytes();
                self.no_pass_before = self.parts.now();
            }
            Err(error) => {
                // On a full disk, what is unfinished takes the room of what is to be written.
                let _ = files.remove(UNFINISHED);
                let (window, folder) = (name_of(&self.parts.window), &self.parts.folder);
                tracing::warn!(window, folder, %error, "the log of this window can't be made smaller");
            }
        }
    }

    /// Writes the last records.
    fn end(mut self) {
        let until = self.parts.now() + self.parts.signals.last_try();
        loop {
            self.write();
            let left = self.parts.window.store(self.parts.now()).map_or(0, |facts| facts.waiting);
            if self.kept.is_none() && left == 0 {
                break;
            }
            if self.kept.is_some() {
                if self.parts.now() >= until {
                    let window = name_of(&self.parts.window);
                    tracing::error!(
                        window,
                        records = left,
                        "the process ends, and these records are not in the log"
                    );
                    break;
                }
                thread::sleep(AGAIN.min(LAST_TRY));
            }
        }
        if let Some(pass) = self.pass.take() {
            let _ = pass.thread.join();
        }
    }
}

/// Notes that segments were replaced, and tells of what could not be read there.
fn note_replaced<F: Files>(log: &mut Log<F>, parts: &Parts<F>, replaced: &Replaced) {
    log.replaced(&replaced.old, replaced.new);
    let damaged = replaced.damaged;
    parts.window.note_damaged(damaged);
    if damaged > 0 {
        let (window, folder) = (name_of(&parts.window), &parts.folder);
        tracing::error!(
            window,
            folder,
            damaged,
            "a part of this window's log was damaged since it was written"
        );
    }
}

#[cfg(test)]
impl<F: Files> Writer<F> {
    pub(super) fn is_in_pass(&self) -> bool {
        self.pass.is_some()
    }

    pub(super) fn seal(&mut self) {
        self.log.seal();
    }

    pub(super) fn replace_window(&mut self, window: Arc<Logged>) {
        self.parts.window = window;
    }
}
