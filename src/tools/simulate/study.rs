//! The grid, cell by cell: every capacity with every TTL, each a replay of the whole trace through a window of its own.
//!
//! Cells have nothing to do with each other, so they are shared out among threads, the largest first.

use super::read::Present;
use super::replay::{Outcome, Setting, Unlimited, bytes_when_full, replay};
use super::trace::Trace;
use hapax_core::window::engine::EngineKind;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Capacities and TTLs of a grid that nobody asked otherwise for.
const STEPS: usize = 10;
/// The smallest capacity of such a grid is this part of the largest.
const CAPACITY_RANGE: f64 = 1000.0;
/// The largest is so much more than the ids that there are at the same time: an engine in shards needs a little slack.
const CAPACITY_SLACK: f64 = 1.25;
/// The smallest sufficient capacity is found to this factor.
const PRECISION: f64 = 1.01;

/// What is tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grid {
    /// rising
    pub capacities: Vec<usize>,
    /// rising
    pub ttls: Vec<Duration>,
}

impl Grid {
    /// Takes the values that were given and chooses the others from the trace. TTLs: from the shortest per cent of the delays of its
    /// repeats to the longest delay. Capacities: up to what the longest of these TTLs needs. The present setting is among them.
    pub fn around(
        trace: &Trace,
        capacities: Option<Vec<usize>>,
        ttls: Option<Vec<Duration>>,
        present: Option<Present>,
        refresh_on_duplicate: bool,
    ) -> Grid {
        let (is_free, any_ttl) = (capacities.is_none(), ttls.is_none());
        let ttls = ttls.unwrap_or_else(|| suggested_ttls(trace));
        let ttls = rising(ttls);
        let capacities = capacities.unwrap_or_else(|| {
            let longest = ttls.last().copied().unwrap_or(Duration::from_secs(1));
            let needed = Unlimited::of(trace, longest, refresh_on_duplicate).peak_ids.max(1);
            #[expect(clippy::cast_precision_loss, reason = "it is rounded anyway")]
            let most = needed as f64 * CAPACITY_SLACK;
            spaced(most / CAPACITY_RANGE, most).into_iter().map(|step| whole(step.max(1.0))).collect()
        });
        // Only the values that were asked for are tried.
        let with = present.filter(|_| is_free).map(|present| present.capacity);
        let capacities = rising(capacities.into_iter().chain(with).collect());
        let with = present.filter(|_| any_ttl).map(|present| present.ttl);
        Grid { capacities, ttls: rising(ttls.into_iter().chain(with).collect()) }
    }
}

fn suggested_ttls(trace: &Trace) -> Vec<Duration> {
    const LEAST: f64 = 0.001;
    let span = trace.span().as_secs_f64().max(LEAST);
    let ends = trace.repeat_delay(0.01).zip(trace.repeat_delay(1.0));
    let (from, to) = match ends.map(|(short, long)| (short.as_secs_f64(), long.as_secs_f64())) {
        // A TTL that equals a delay does not catch it.
        Some((from, to)) => (from.max(LEAST), to.max(LEAST) * 1.05),
        None => (span / 1000.0, span),
    };
    let from = if from * 2.0 > to { to / 10.0 } else { from };
    spaced(from, to).into_iter().map(|step| Duration::from_secs_f64(step.max(LEAST))).collect()
}

/// [`STEPS`] numbers with one factor between them, each rounded up to two digits.
fn spaced(from: f64, to: f64) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let at = |step: usize| from * (to / from).powf(step as f64 / (STEPS - 1) as f64);
    (0..STEPS).map(|step| two_digits(at(step))).collect()
}

fn two_digits(number: f64) -> f64 {
    let unit = 10_f64.powf(number.log10().floor() - 1.0);
    // The steps' own rounding errors must not cost a digit; a unit below 1 is divided by, because 0.001 is no exact number.
    let digits = (number / unit - 1e-6).ceil();
    if unit < 1.0 { digits / (1.0 / unit).round() } else { digits * unit.round() }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from f64 saturates")]
fn whole(number: f64) -> usize {
    // Round up, as steps do. A number with two digits that is not whole is below 10.
    number.ceil() as usize
}

fn rising<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}

/// The terms of a study that do not come from the trace.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Terms {
    /// how ids are stored
    pub engine: EngineKind,
    /// a duplicate makes its id young again
    pub refresh_on_duplicate: bool,
    /// the share of the repeats that is to be caught
    pub target: f64,
}

impl Terms {
    pub(super) fn setting(&self, capacity: usize, ttl: Duration) -> Setting {
        let Terms { engine, refresh_on_duplicate, .. } = *self;
        Setting { capacity, ttl, engine, refresh_on_duplicate }
    }

    /// Returns true if `caught` of `of` repeats reach the target share.
    pub fn met(&self, caught: u64, of: u64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let needed = self.target * of as f64;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let caught = caught as f64;
        caught >= needed
    }
}

/// One capacity with one TTL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// ids
    pub capacity: usize,
    /// for events that have none of their own
    pub ttl: Duration,
    /// the counts
    pub outcome: Outcome,
    /// what a window without a bound would have caught
    pub catchable: u64,
    /// what this capacity takes when it is full
    pub bytes_when_full: u64,
}

/// All of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Study {
    /// as asked for
    pub terms: Terms,
    /// as asked for
    pub grid: Grid,
    /// by TTL
    pub unlimited: Vec<Unlimited>,
    /// by capacity, and within that by TTL
    pub cells: Vec<Cell>,
    /// the least capacity that catches the target share of all repeats, with the shortest TTL that does; to a per cent, from
    /// further replays between two capacities of the grid. `None` if no cell of the grid does.
    pub smallest: Option<Cell>,
}

/// How far it is. Called from several threads.
pub trait Progress: Sync {
    /// Adds this number of events to those that will be replayed.
    fn more(&self, events: u64);
    /// So many were.
    fn done(&self, events: u64);
}

impl Progress for () {
    fn more(&self, _: u64) {}
    fn done(&self, _: u64) {}
}

/// Replays the trace for every cell of the grid.
pub fn study(
    trace: &Trace,
    grid: &Grid,
    terms: Terms,
    threads: NonZero<usize>,
    progress: &dyn Progress,
) -> Study {
    let Grid { capacities, ttls } = grid;
    let events = trace.events() as u64;
    progress.more(events * (capacities.len() * ttls.len()) as u64);
    let unlimited = share_out(ttls, threads, |ttl| Unlimited::of(trace, *ttl, terms.refresh_on_duplicate));
    let full = share_out(capacities, threads, |capacity| bytes_when_full(*capacity, terms.engine));
    let settings: Vec<(usize, Duration, u64, u64)> = capacities
        .iter()
        .zip(&full)
        .flat_map(|(capacity, full)| {
            let ttls = ttls.iter().zip(&unlimited);
            ttls.map(|(ttl, unlimited)| (*capacity, *ttl, unlimited.catchable, *full))
        })
        .collect();
    let cells = share_out(&settings, threads, |(capacity, ttl, catchable, bytes_when_full)| Cell {
        capacity: *capacity,
        ttl: *ttl,
        outcome: replay(trace, terms.setting(*capacity, *ttl), &|events| progress.done(events)),
        catchable: *catchable,
        bytes_when_full: *bytes_when_full,
    });
    let mut study = Study { terms, grid: grid.clone(), unlimited, cells, smallest: None };
    study.smallest = study.find_smallest(trace, progress);
    study
}

impl Study {
    /// The cell of this setting, if it is on the grid.
    pub fn at(&self, present: Present) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.capacity == present.capacity && cell.ttl == present.ttl)
    }

    /// The cells of one TTL, by rising capacity.
    pub fn of_ttl(&self, ttl: Duration) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.ttl == ttl)
    }

    /// The least capacity of the grid that catches the target share of what this TTL allows.
    pub fn enough_for(&self, ttl: Duration) -> Option<usize> {
        let mut cells = self.of_ttl(ttl);
        let enough = cells.find(|cell| self.terms.met(cell.outcome.caught, cell.catchable));
        enough.map(|cell| cell.capacity)
    }

    /// On the grid first; then between that capacity and the one below it.
    fn find_smallest(&self, trace: &Trace, progress: &dyn Progress) -> Option<Cell> {
        let repeats = trace.repeats() as u64;
        if repeats == 0 {
            return None;
        }
        let met = |cell: &Cell| self.terms.met(cell.outcome.caught, repeats);
        let mut best = *self.cells.iter().find(|cell| met(cell))?;
        let below = self.grid.capacities.iter().rev().find(|capacity| **capacity < best.capacity);
        let mut too_small = below.copied().unwrap_or(0);
        loop {
            #[expect(clippy::cast_precision_loss, reason = "it is rounded anyway")]
            let (low, high) = (too_small.max(1) as f64, best.capacity as f64);
            if best.capacity - too_small <= 1 || high / low <= PRECISION {
                break Some(best);
            }
            let capacity = whole((low * high).sqrt()).clamp(too_small + 1, best.capacity - 1);
            progress.more(trace.events() as u64);
            let setting = self.terms.setting(capacity, best.ttl);
            let outcome = replay(trace, setting, &|events| progress.done(events));
            let bytes_when_full = bytes_when_full(capacity, self.terms.engine);
            let cell = Cell { capacity, outcome, bytes_when_full, ..best };
            if met(&cell) {
                best = cell;
            } else {
                too_small = capacity;
            }
        }
    }
}

/// Does this for each item, the last one first: the largest take longest. Results are in the order of the items.
pub(super) fn share_out<T: Sync, R: Send>(
    items: &[T],
    threads: NonZero<usize>,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    let worker = || {
        while let Some((index, item)) = items.iter().enumerate().rev().nth(next.fetch_add(1, Relaxed)) {
            let result = work(item);
            results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, result));
        }
    };
    // The calling thread is one of them; a worker's panic is passed on by the scope.
    thread::scope(|scope| {
        for _ in 1..threads.get().min(items.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::simulate::TraceBuilder;

    #[test]
    fn steps_have_two_digits_and_one_factor() {
        let steps = spaced(1.0, 1000.0);
        assert_eq!(steps, [1.0, 2.2, 4.7, 10.0, 22.0, 47.0, 100.0, 220.0, 470.0, 1000.0]);
        assert_eq!(spaced(0.001, 1.0).first(), Some(&0.001));
        assert_eq!(two_digits(123_456.0), 130_000.0);
        assert_eq!(two_digits(0.01234), 0.013);
    }

    #[test]
    fn a_grid_reaches_from_too_little_to_enough() {
        let mut trace = TraceBuilder::new();
        for n in 0..2_000_u32 {
            trace.push(i128::from(n) * 1_000_000_000, &(n % 1_000).to_le_bytes(), None);
        }
        let trace = trace.build();
        let grid = Grid::around(&trace, None, None, None, false);
        assert!(grid.ttls.last().is_some_and(|ttl| *ttl > Duration::from_secs(1_000)), "{grid:?}");
        assert_eq!((grid.capacities.first(), grid.capacities.last()), (Some(&2), Some(&1_300)), "{grid:?}");
        let asked =
            Grid::around(&trace, Some(vec![9, 3, 9]), Some(vec![Duration::from_secs(1)]), None, false);
        assert_eq!(asked.capacities, [3, 9]);
        let present = Present { capacity: 777, ttl: Duration::from_secs(77) };
        let around = Grid::around(&trace, None, None, Some(present), false);
        assert_eq!((around.capacities.len(), around.ttls.len()), (STEPS + 1, STEPS + 1));
        assert!(
            around.capacities.contains(&777) && around.ttls.contains(&Duration::from_secs(77)),
            "{around:?}"
        );
        let asked = Grid::around(&trace, Some(vec![9]), None, Some(present), false);
        assert_eq!(asked.capacities, [9], "what was asked for, and nothing else");
    }

    #[test]
    fn work_is_shared_out_and_comes_back_in_order() {
        let items: Vec<u32> = (0..100).collect();
        let three = NonZero::new(3).expect("not 0");
        assert_eq!(share_out(&items, three, |n| n * 2), items.iter().map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(share_out(&[] as &[u32], three, |n| *n), [] as [u32; 0]);
    }
}
