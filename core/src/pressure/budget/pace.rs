//! Decides how fast a window's demand for memory follows its traffic: up at once, down slowly, and not at all for
//! small changes.
//!
//! ```text
//!  need ─ ids that must have room now: the largest of what the present rate needs (but no more than twice what arrived within a
//!         TTL), what is remembered already, and, if a full
//!         window has evicted ids early, one and a half times its capacity at that time (for as long as a wish is kept)
//!  like ─ the larger of the need and of the recommended capacity, which looks further back, plus a tenth; when that falls, the
//!         wish stays for a TTL and then approaches it with a TTL's time constant
//! ```

use std::time::{Duration, Instant};

/// The need is rate × TTL times this factor. The recommended capacity has the same headroom.
const HEADROOM: f64 = 1.25;
/// A present rate counts for no more than this many times the ids that arrived within a TTL. The room is then always ahead
/// of steady traffic, and a burst, whose rate would mean a thousand times as many ids, asks for no more than twice its own.
const AHEAD: f64 = 2.0;
/// The wish is the need times this factor, so that a slow rise does not cause a resize each second.
const SPARE: f64 = 1.1;
/// A need above this share of the wish is no reason to shrink.
const TRIFLE: f64 = 0.8;
/// A window counts as full from this share of its capacity on.
const FULL: f64 = 0.9;
/// When a full window evicts early, its need is at least its capacity times this factor, whatever the averages say.
const BURST: f64 = 1.5;
/// The shortest and the longest time for which a wish is kept.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// The state of a window at a tick.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signs {
    /// the capacity in force
    pub capacity: usize,
    /// ids that are remembered
    pub entries: u64,
    /// the TTL in force
    pub ttl: Duration,
    /// see [`Facts::pressure`](crate::pressure::Facts::pressure)
    pub pressure: f64,
    /// see [`Facts::arrived`](crate::pressure::Facts::arrived)
    pub arrived: u64,
    /// see [`Facts::recommended_capacity`](crate::pressure::Facts::recommended_capacity)
    pub recommended: Option<u64>,
    /// ids evicted early since the last tick
    pub evicted_early: u64,
}

/// How many ids a window must have room for, and for how many it would like to have room.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Demand {
    /// ids that it must have room for
    pub need: f64,
    /// ids that it would like to have room for
    pub like: f64,
}

/// The demand of one window over time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    like: f64,
    /// the need after early evictions, and when it was set
    burst: (f64, Instant),
    /// when the wish was last justified: the need was not much below it
    justified: Instant,
    ticked: Instant,
}

impl Pace {
    /// Creates the pace of a window that would like to keep its present capacity.
    pub fn new(capacity: usize, now: Instant) -> Pace {
        Pace { like: capacity as f64, burst: (0.0, now), justified: now, ticked: now }
    }

    /// Returns the next demand. `floor` is the least need. `rest` is the least wish: an idle window keeps it for when
    /// it wakes up.
    pub fn tick(&mut self, signs: &Signs, floor: f64, rest: f64, now: Instant) -> Demand {
        let patience = signs.ttl.clamp(PATIENCE.0, PATIENCE.1);
        let need = need(signs).max(self.burst(signs, patience, now)).max(floor);
        let since = now.saturating_duration_since(self.ticked);
        self.ticked = now;
        let wanted = need.max(signs.recommended.unwrap_or(0) as f64);
        if wanted > self.like {
            self.like = wanted * SPARE;
        }
        // A window without any traffic yet keeps its wish, because its need is unknown.
        if wanted >= self.like * TRIFLE || signs.recommended.is_none() {
            self.justified = now;
        } else if now.saturating_duration_since(self.justified) >= patience {
            let target = (wanted * SPARE).max(rest);
            let kept = (-since.as_secs_f64() / patience.as_secs_f64()).exp();
            self.like = self.like.min(target + (self.like - target) * kept);
        }
        Demand { need, like: self.like.max(need) }
    }

    /// Returns the need that follows from early evictions. Averages can be late or wrong, but an early eviction is a
    /// fact.
    fn burst(&mut self, signs: &Signs, patience: Duration, now: Instant) -> f64 {
        let capacity = signs.capacity as f64;
        if signs.evicted_early > 0 && signs.entries as f64 >= capacity * FULL {
            self.burst = (self.burst.0.max(capacity * BURST), now);
        } else if now.saturating_duration_since(self.burst.1) >= patience {
            self.burst.0 = 0.0;
        }
        self.burst.0
    }
}

fn need(signs: &Signs) -> f64 {
    let rate = signs.pressure * signs.capacity as f64;
    let rate = rate.min(signs.arrived as f64 * AHEAD) * HEADROOM;
    rate.max(signs.entries as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    fn signs(recommended: u64) -> Signs {
        Signs { capacity: 10_000, ttl: TTL, recommended: Some(recommended), ..Signs::default() }
    }

    #[test]
    fn up_at_once_down_after_a_ttl_and_not_for_trifles() {
        let (start, mut pace) = (base(), Pace::new(10_000, base()));
        let mut at = |seconds: u64, recommended| {
            pace.tick(&signs(recommended), 1000.0, 0.0, start + Duration::from_secs(seconds))
        };
        assert_eq!(at(1, 9_000), Demand { need: 1_000.0, like: 10_000.0 });
        assert_eq!(at(2, 50_000), Demand { need: 1_000.0, like: 50_000.0 * SPARE });
        assert_eq!(at(3, 45_000).like, 50_000.0 * SPARE, "a trifle");
        assert_eq!(at(302, 2_000), Demand { need: 1_000.0, like: 50_000.0 * SPARE }, "not yet");
        let (mut before, mut steps) = (50_000.0 * SPARE, 0);
        for seconds in 303..2_500 {
            let like = at(seconds, 2_000).like;
            assert!(like <= before && like > before * 0.99, "{before} to {like} in a second");
            steps += u32::from(like < before);
            before = like;
        }
        assert!(steps > 1_000 && (2_000.0..=2_600.0).contains(&before), "{before} after {steps} steps");
    }

    #[test]
    fn an_idle_window_keeps_its_rest_and_one_without_a_past_all() {
        let (start, mut pace) = (base(), Pace::new(10_000, base()));
        for minutes in 1..500 {
            let now = start + Duration::from_secs(60 * minutes);
            let unknown = Signs { recommended: None, ..signs(0) };
            assert_eq!(pace.tick(&unknown, 1000.0, 4_000.0, now), Demand { need: 1000.0, like: 10_000.0 });
        }
        for minutes in 500..1000 {
            pace.tick(&signs(0), 1000.0, 4_000.0, start + Duration::from_secs(60 * minutes));
        }
        let rested = pace.tick(&signs(0), 1000.0, 4_000.0, start + Duration::from_secs(60_000));
        assert!((rested.like - 4_000.0).abs() < 1.0, "{rested:?}");
    }

    #[test]
    fn a_full_window_that_evicts_early_needs_more_before_the_averages_say_so() {
        let (start, mut pace) = (base(), Pace::new(10_000, base()));
        let full = Signs { entries: 10_000, evicted_early: 7, ..signs(1_000) };
        assert_eq!(pace.tick(&full, 1000.0, 0.0, start).need, 15_000.0);
        let roomy = Signs { capacity: 15_000, entries: 10_000, ..full };
        assert_eq!(
            pace.tick(&roomy, 1000.0, 0.0, start + TTL / 2).need,
            15_000.0,
            "it does not forget at once"
        );
        assert_eq!(pace.tick(&roomy, 1000.0, 0.0, start + TTL).need, 10_000.0, "what is remembered");
        let pressed = Signs { pressure: 3.0, arrived: 20_000, ..signs(1_000) };
        assert_eq!(pace.tick(&pressed, 1000.0, 0.0, start).need, 37_500.0, "the present rate");
        let burst = Signs { pressure: 1800.0, arrived: 20_000, ..signs(1_000) };
        assert_eq!(pace.tick(&burst, 1000.0, 0.0, start).need, 50_000.0, "a burst is no rate");
    }
}
