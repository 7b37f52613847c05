//! The history: an hour of each window, a sample every ten seconds. The dashboard draws its charts from it when it is opened.
//!
//! It is a ring in memory: a window takes [`KEPT`] samples of 32 bytes, which is less than 12 KiB. A restart forgets it. For more
//! than an hour there is Prometheus.

use super::Admin;
use super::clock::Now;
use super::journal::Watch;
use hapax_core::pressure::facts::{Facts, Level};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// The time between two samples.
pub(super) const EVERY: Duration = Duration::from_secs(10);
/// Samples of a window: an hour.
pub(super) const KEPT: usize = 360;
/// The time between two looks at the state of the relay.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A window at one moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Sample {
    /// milliseconds since the relay's start
    at: u32,
    pub(super) fresh: f32,
    pub(super) duplicate: f32,
    pub(super) escaped: f32,
    /// NaN: the window has none
    pressure: f32,
    pub(super) coverage: f32,
    /// `u32::MAX`: the window can't know
    entries: u32,
    /// the upper three bits are the level; the rest is the capacity, all ones without one
    capacity_and_level: u32,
}

/// The bits of a capacity. The most ids of a window (500 million) need 29.
const CAPACITY: u32 = (1 << 29) - 1;

const LEVELS: [Level; 5] = [Level::Ok, Level::Warming, Level::Blind, Level::High, Level::Critical];

impl Sample {
    #[expect(clippy::cast_possible_truncation, reason = "a curve needs no more digits than f32 has")]
    fn of(at: Duration, facts: &Facts) -> Sample {
        let ids = |ids: Option<u64>, most: u32| {
            ids.map_or(most, |ids| u32::try_from(ids).unwrap_or(most - 1).min(most - 1))
        };
        let level = LEVELS.iter().position(|level| *level == facts.level).unwrap_or_default() as u32;
        Sample {
            at: u32::try_from(at.as_millis()).unwrap_or(u32::MAX),
            fresh: facts.rates.fresh as f32,
            duplicate: facts.rates.duplicate as f32,
            escaped: facts.rates.escaped as f32,
            pressure: facts.pressure.map_or(f32::NAN, |pressure| pressure as f32),
            coverage: facts.coverage as f32,
            entries: ids(facts.entries, u32::MAX),
            capacity_and_level: level << 29 | ids(facts.capacity, CAPACITY),
        }
    }

    pub(super) fn pressure(&self) -> Option<f32> {
        Some(self.pressure).filter(|pressure| pressure.is_finite())
    }

    pub(super) fn entries(&self) -> Option<u32> {
        Some(self.entries).filter(|ids| *ids != u32::MAX)
    }

    pub(super) fn capacity(&self) -> Option<u32> {
        Some(self.capacity_and_level & CAPACITY).filter(|ids| *ids != CAPACITY)
    }

    pub(super) fn level(&self) -> Level {
        LEVELS.get((self.capacity_and_level >> 29) as usize).copied().unwrap_or_default()
    }
}

/// The samples of all windows.
#[derive(Debug)]
pub(super) struct History {
    since: Instant,
    windows: Mutex<HashMap<Arc<str>, VecDeque<Sample>>>,
}

impl History {
    pub(super) fn new(now: &Now) -> History {
        History { since: now.instant, windows: Mutex::default() }
    }

    /// Adds a sample of each window. Forgets windows that there are no more.
    fn add(&self, now: Instant, facts: &[(Arc<str>, Facts)]) {
        let at = now.saturating_duration_since(self.since);
        let mut windows = self.windows.lock();
        let names: HashSet<&Arc<str>> = facts.iter().map(|(name, _)| name).collect();
        windows.retain(|name, _| names.contains(name));
        for (name, facts) in facts {
            let samples = windows.entry(Arc::clone(name)).or_default();
            if samples.len() >= KEPT {
                samples.pop_front();
            }
            samples.push_back(Sample::of(at, facts));
        }
    }

    /// Returns the samples of a window, oldest first, each with its moment.
    pub(super) fn of(&self, name: &str) -> Vec<(Instant, Sample)> {
        let windows = self.windows.lock();
        let samples = windows.get(name).into_iter().flatten();
        samples.map(|sample| (self.since + Duration::from_millis(u64::from(sample.at)), *sample)).collect()
    }
}

/// Fills the history and the journal until the task is dropped.
pub(super) async fn keep(admin: Arc<Admin>) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    let mut due = Now::read().instant;
    loop {
        tick.tick().await;
        let now = Now::read();
        watch.look(&admin, &now);
        if now.instant < due {
            continue;
        }
        due += EVERY;
        if due < now.instant {
            due = now.instant + EVERY;
        }
        let in_force = admin.running.now();
        let named = |watched: &hapax_core::pressure::Watched| {
            (watched.window.rules().name.clone(), watched.facts(now.instant))
        };
        let facts: Vec<(Arc<str>, Facts)> = in_force.windows.iter().map(named).collect();
        facts.iter().for_each(|(name, facts)| watch.levels(&admin, name, facts, &now));
        admin.history.add(now.instant, &facts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(entries: u64, level: Level) -> Facts {
        Facts { entries: Some(entries), level, ..Facts::default() }
    }

    #[test]
    fn an_hour_is_kept_in_less_than_12_kib() {
        assert_eq!(size_of::<Sample>(), 32);
        let now = Now::read();
        let history = History::new(&now);
        let name: Arc<str> = "orders".into();
        for n in 0..KEPT as u64 + 40 {
            let at = now.instant + EVERY * u32::try_from(n).unwrap();
            history.add(at, &[(Arc::clone(&name), facts(n, Level::Ok))]);
        }
        let samples = history.of("orders");
        assert_eq!(samples.len(), KEPT);
        assert_eq!(samples[0].1.entries(), Some(40));
        assert_eq!(samples[KEPT - 1].0 - samples[0].0, EVERY * (u32::try_from(KEPT).unwrap() - 1));
        assert!(history.windows.lock()["orders"].capacity() * 32 <= 16 << 10);
        history.add(now.instant, &[]);
        assert!(history.of("orders").is_empty(), "a window that is gone is forgotten");
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        for level in LEVELS {
            let sample = Sample::of(EVERY, &Facts { capacity: Some(500_000_000), ..facts(u64::MAX, level) });
            assert_eq!((sample.level(), sample.capacity()), (level, Some(500_000_000)));
            assert_eq!((sample.entries(), sample.pressure()), (Some(u32::MAX - 1), None));
        }
        let unknown = Sample::of(EVERY, &Facts { pressure: Some(1.5), ..Facts::default() });
        assert_eq!((unknown.entries(), unknown.capacity(), unknown.pressure()), (None, None, Some(1.5)));
    }
}
