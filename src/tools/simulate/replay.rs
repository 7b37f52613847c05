//! One trace through one window: the real [`LocalWindow`] over the real engine, on a clock that the trace drives.
//!
//! Each publish is judged when it came and, if it is fresh, committed at once: the broker of a simulation acks in no time
//! and never says no. Once a second the window is swept, as the relay does.
//!
//! These are the counts, exactly:
//!
//! * *caught*: the window's verdict was `Duplicate`.
//! * *escaped*: the verdict was `Fresh`, although the same id had been committed less than its TTL ago in this very run. Only
//!   an early eviction can do that.
//! * *catchable* ([`Unlimited`]): what a window without any bound would have caught with this TTL.
//!
//! caught ≤ catchable ≤ caught + escaped, as long as all events have one TTL and duplicates do not refresh. The second is not
//! an equality: an id that escaped is remembered anew, from then on, and so longer than an unlimited window would have
//! remembered it.

use super::restarts::{Course, Lost, Restarts};
use super::trace::{NO_SLOT, Trace};
use crate::config::WindowConfig;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    Event, EvictionCause, Key, Limits, Listener, LocalWindow, Mailbox, Ticket, Verdict, reserve_one,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// As the relay's tick.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Sweeps of one silence: what a sweep does not get, the following inserts do.
const SWEEPS_AT_ONCE: u64 = 64;
/// Events between two looks at the memory, and between two reports of progress.
const LOOK_EVERY: usize = 1024;

/// The setting of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// ids
    pub capacity: usize,
    /// for events that have none of their own
    pub ttl: Duration,
    /// how ids are stored
    pub engine: EngineKind,
    /// a duplicate makes its id young again
    pub refresh_on_duplicate: bool,
}

/// The counts of a replay, as this module defines them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// duplicates that the window took out
    pub caught: u64,
    /// duplicates that got through because their id had been evicted early
    pub escaped: u64,
    /// ids that were pushed out before their TTL was over
    pub evicted_early: u64,
    /// ids remembered at the same time, at most
    pub peak_entries: usize,
    /// memory of the window, at most; looked at once in [`LOOK_EVERY`] events
    pub peak_bytes: usize,
}

/// Replays the whole trace; now and then it calls `progress` with the number of events since the last call.
pub fn replay(trace: &Trace, setting: Setting, progress: &dyn Fn(u64)) -> Outcome {
    replay_through(trace, setting, None, progress).0
}

/// Replays the whole trace, with restarts. Also returns how many duplicates got through because of them.
pub(super) fn replay_through(
    trace: &Trace,
    setting: Setting,
    restarts: Option<Restarts>,
    progress: &dyn Fn(u64),
) -> (Outcome, u64) {
    let (mut course, mut passed) = (Course::new(restarts), 0);
    let tally = Arc::new(Tally::default());
    let window = window(setting, Arc::clone(&tally) as _);
    let (base, mailbox) = (base(), Arc::new(Mailbox::new()));
    let mut escapes = Escapes::new(trace);
    let mut outcome = Outcome::default();
    let mut next_sweep = nanos(SWEEP_EVERY);
    let (mut since_look, mut peak) = (0, 0);
    for (at, key, slot, ttl) in trace.iter() {
        if at >= next_sweep {
            next_sweep = sweep(&window, base, at, next_sweep);
        }
        course.restart(&window, &tally.lost, base, at);
        let now = base + Duration::from_nanos(at);
        let ttl = ttl.map_or(setting.ttl, Duration::from_nanos);
        match reserve_one(&window, key, now, &mailbox, Ticket(0)) {
            Verdict::Fresh(reservation) => {
                reservation.commit(now, ttl);
                course.committed(key, at);
                match (tally.lost.take(key), escapes.committed(slot, at, ttl)) {
                    (true, true) => passed += 1,
                    (false, true) => outcome.escaped += 1,
                    (_, false) => {}
                }
                peak = peak.max(tally.entries.load(Relaxed));
            }
            Verdict::Duplicate(_) => {
                outcome.caught += 1;
                if setting.refresh_on_duplicate {
                    escapes.refreshed(slot, at);
                }
            }
            // Nothing is ever in flight here, and a local window always knows.
            Verdict::InFlight(_) | Verdict::Refused(_) | Verdict::Crowded | Verdict::Pending(_) => {}
        }
        since_look += 1;
        if since_look == LOOK_EVERY {
            since_look = 0;
            outcome.look(&window);
            progress(LOOK_EVERY as u64);
        }
    }
    outcome.look(&window);
    progress(since_look as u64);
    (Outcome { evicted_early: tally.early.load(Relaxed), peak_entries: peak, ..outcome }, passed)
}

impl Outcome {
    fn look(&mut self, window: &LocalWindow) {
        self.peak_bytes = self.peak_bytes.max(window.bytes());
    }
}

/// Fills a window of this capacity and returns its size in bytes. Above [`FILL`] ids the size is extrapolated from there.
pub fn bytes_when_full(capacity: usize, engine: EngineKind) -> u64 {
    let filled = capacity.min(FILL);
    let ttl = Duration::from_secs(1);
    let setting = Setting { capacity: filled, ttl, engine, refresh_on_duplicate: false };
    let (window, mailbox, now) =
        (window(setting, Arc::new(Tally::default())), Arc::new(Mailbox::new()), base());
    for n in 0..filled as u128 {
        if let Verdict::Fresh(reservation) = reserve_one(&window, Key(n), now, &mailbox, Ticket(0)) {
            reservation.commit(now, ttl);
        }
    }
    let bytes = window.bytes() as u128 * capacity as u128 / filled.max(1) as u128;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A power of two, so that tables scale as they grow.
const FILL: usize = 1 << 20;

fn window(setting: Setting, listener: Arc<dyn Listener>) -> Arc<LocalWindow> {
    let Setting { capacity, ttl, engine, refresh_on_duplicate } = setting;
    let default = WindowConfig::named("simulation");
    let limits = Limits { capacity, ttl, refresh_on_duplicate, ..default.limits };
    LocalWindow::new(default.rules, limits, engine, listener)
}

/// The sweeps that were due by now, and when the next one is.
fn sweep(window: &LocalWindow, base: Instant, at: u64, due: u64) -> u64 {
    let every = nanos(SWEEP_EVERY);
    let missed = (at - due) / every;
    for n in 0..=missed.min(SWEEPS_AT_ONCE) {
        let before = window.len();
        window.sweep(base + Duration::from_nanos(due.saturating_add(n * every)));
        if window.len() == before && n > 0 {
            break;
        }
    }
    due.saturating_add((missed + 1).saturating_mul(every))
}

#[expect(clippy::disallowed_methods, reason = "any instant will do for the zero of a virtual clock")]
pub(super) fn base() -> Instant {
    Instant::now()
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Counts what the window says. By one thread only, so that nothing has to be added atomically.
#[derive(Debug, Default)]
struct Tally {
    entries: AtomicUsize,
    early: AtomicU64,
    lost: Lost,
}

impl Listener for Tally {
    fn on(&self, event: &Event) {
        self.lost.on(event);
        match event {
            Event::Committed { .. } => self.entries.store(self.entries.load(Relaxed) + 1, Relaxed),
            Event::Evicted { cause, .. } => {
                self.entries.store(self.entries.load(Relaxed).saturating_sub(1), Relaxed);
                if *cause == EvictionCause::Capacity {
                    self.early.store(self.early.load(Relaxed) + 1, Relaxed);
                }
            }
            _ => {}
        }
    }
}

/// Until when each id that repeats ought to be remembered, whatever the window does.
struct Escapes(Vec<Promise>);

#[derive(Clone, Copy, Default)]
struct Promise {
    until: u64,
    ttl: u64,
}

impl Escapes {
    fn new(trace: &Trace) -> Escapes {
        Escapes(vec![Promise::default(); trace.repeating()])
    }

    /// It went through. Whether it should not have.
    fn committed(&mut self, slot: u32, at: u64, ttl: Duration) -> bool {
        let Some(promise) = self.slot(slot) else { return false };
        let ttl = nanos(ttl);
        let broken = at < promise.until;
        *promise = Promise { until: at.saturating_add(ttl), ttl };
        broken
    }

    fn refreshed(&mut self, slot: u32, at: u64) {
        if let Some(promise) = self.slot(slot) {
            promise.until = at.saturating_add(promise.ttl);
        }
    }

    fn slot(&mut self, slot: u32) -> Option<&mut Promise> {
        if slot == NO_SLOT { None } else { self.0.get_mut(slot as usize) }
    }
}

/// A window without any bound, with this TTL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unlimited {
    /// duplicates that it catches
    pub catchable: u64,
    /// ids that it remembers at the same time, at most: less room than this means early evictions
    pub peak_ids: usize,
}

impl Unlimited {
    /// By a walk over the trace.
    pub fn of(trace: &Trace, ttl: Duration, refresh_on_duplicate: bool) -> Unlimited {
        let mut promises = Escapes::new(trace);
        let (mut catchable, mut spans) = (0, Vec::with_capacity(trace.ids()));
        // by slot: the span that a refresh makes longer
        let mut latest = vec![0_usize; trace.repeating()];
        for (at, _, slot, own) in trace.iter() {
            let ttl = own.map_or(ttl, Duration::from_nanos);
            let Some(promise) = promises.slot(slot).map(|promise| *promise).filter(|known| at < known.until)
            else {
                promises.committed(slot, at, ttl);
                if let Some(latest) = latest.get_mut(slot as usize) {
                    *latest = spans.len();
                }
                spans.push((at, at.saturating_add(nanos(ttl))));
                continue;
            };
            catchable += 1;
            if refresh_on_duplicate {
                promises.refreshed(slot, at);
                let span = latest.get(slot as usize).and_then(|latest| spans.get_mut(*latest));
                if let Some((_, end)) = span {
                    *end = at.saturating_add(promise.ttl);
                }
            }
        }
        Unlimited { catchable, peak_ids: peak(&spans) }
    }
}

/// How many of these spans overlap, at most. They come in order of their beginning.
fn peak(spans: &[(u64, u64)]) -> usize {
    let mut ends: Vec<u64> = spans.iter().map(|(_, end)| *end).collect();
    ends.sort_unstable(); // one TTL for all: sorted already
    let mut ends: VecDeque<u64> = ends.into();
    let (mut open, mut most) = (0_usize, 0);
    for (begin, _) in spans {
        while ends.front().is_some_and(|end| end <= begin) {
            ends.pop_front();
            open -= 1;
        }
        open += 1;
        most = most.max(open);
    }
    most
}
