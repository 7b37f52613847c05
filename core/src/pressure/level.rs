//! The level of a window and its history. The level of eviction pressure rises at once, and falls only after a calm
//! interval. A lower level may stand for a window that is not pressed but not well, either: it is warming, or blind.

use super::facts::{Level, LevelChange};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The level is high from this pressure on.
const HIGH: f64 = 0.8;
/// Below this pressure, a high level falls again.
const CALM: f64 = 0.7;
/// How many changes of level are remembered.
const HISTORY: usize = 64;

/// The level, and what is needed to lower it.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    level: Level,
    /// the level of eviction pressure alone
    pressed: Level,
    /// since when the level could be lower
    calm: Option<Instant>,
    history: VecDeque<(Instant, Level)>,
}

impl Gauge {
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Updates the level with a new measurement. `state` is the level without any pressure. Returns the previous level if it
    /// has changed.
    pub(super) fn measure(
        &mut self,
        pressure: f64,
        is_early: bool,
        state: Level,
        interval: Duration,
        now: Instant,
    ) -> Option<Level> {
        self.press(pressure, is_early, interval, now);
        let target = self.pressed.max(state);
        if target == self.level {
            return None;
        }
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((now, target));
        Some(std::mem::replace(&mut self.level, target))
    }

    fn press(&mut self, pressure: f64, is_early: bool, interval: Duration, now: Instant) {
        let high = if self.pressed == Level::Ok { HIGH } else { CALM };
        let target = match pressure {
            _ if is_early => Level::Critical,
            pressure if pressure >= high => Level::High,
            _ => Level::Ok,
        };
        if target >= self.pressed {
            self.calm = None;
        } else {
            let since = *self.calm.get_or_insert(now);
            if now.saturating_duration_since(since) < interval {
                return;
            }
            self.calm = None;
        }
        self.pressed = target;
    }

    pub(super) fn history(&self, now: Instant) -> Vec<LevelChange> {
        let ago = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        self.history.iter().map(|(at, level)| LevelChange { ago_seconds: ago(*at), level: *level }).collect()
    }

    pub(super) fn bytes(&self) -> usize {
        self.history.capacity() * size_of::<(Instant, Level)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[expect(clippy::disallowed_methods, reason = "one base instant; the test counts from there")]
    fn base() -> Instant {
        Instant::now()
    }

    #[test]
    fn up_at_once_and_down_after_an_interval_of_calm() {
        let (mut gauge, base) = (Gauge::default(), base());
        let script = [
            (0, 0.79, false, Level::Ok),
            (1, 0.8, false, Level::High),
            (2, 0.75, false, Level::High),
            (20, 0.75, false, Level::High), // above 0.7, however long
            (21, 0.6, false, Level::High),
            (30, 0.6, false, Level::High),
            (31, 0.6, false, Level::Ok),
            (32, 0.75, false, Level::Ok), // the way up is at 0.8
            (33, 0.5, true, Level::Critical),
            (40, 0.9, false, Level::Critical),
            (49, 0.9, true, Level::Critical), // calm begins anew
            (50, 0.9, false, Level::Critical),
            (60, 0.9, false, Level::High),
            (61, 0.1, false, Level::High),
            (71, 0.1, false, Level::Ok),
        ];
        for (second, pressure, is_early, level) in script {
            let now = base + Duration::from_secs(second);
            let before = gauge.level();
            let change = gauge.measure(pressure, is_early, Level::Ok, INTERVAL, now);
            assert_eq!(gauge.level(), level, "at {second} s");
            assert_eq!(change, (before != level).then_some(before), "at {second} s");
        }
        let history = gauge.history(base + Duration::from_secs(72));
        let levels: Vec<Level> = history.iter().map(|change| change.level).collect();
        assert_eq!(levels, [Level::High, Level::Ok, Level::Critical, Level::High, Level::Ok]);
        assert!((history[4].ago_seconds - 1.0).abs() < 1e-9);
    }

    /// A window that is warming or blind is not well, and a pressed one is worse. These two end without an interval of
    /// calm: they are no measurements that vary.
    #[test]
    fn a_state_is_a_level_below_all_pressure() {
        let (mut gauge, base) = (Gauge::default(), base());
        let script = [
            (0, 0.1, Level::Warming, Level::Warming),
            (1, 0.1, Level::Blind, Level::Blind),
            (2, 0.9, Level::Blind, Level::High),
            (3, 0.1, Level::Warming, Level::High),
            (13, 0.1, Level::Warming, Level::Warming),
            (14, 0.75, Level::Warming, Level::Warming),
            (15, 0.1, Level::Ok, Level::Ok),
        ];
        for (second, pressure, state, level) in script {
            gauge.measure(pressure, false, state, INTERVAL, base + Duration::from_secs(second));
            assert_eq!(gauge.level(), level, "at {second} s");
        }
        assert_eq!(gauge.history(base).len(), 5);
    }

    #[test]
    fn the_history_is_bounded() {
        let (mut gauge, base) = (Gauge::default(), base());
        for second in 0..1000 {
            gauge.measure(
                0.0,
                second % 2 == 0,
                Level::Ok,
                Duration::ZERO,
                base + Duration::from_secs(second),
            );
        }
        assert_eq!(gauge.history(base).len(), HISTORY);
    }
}
