//! Everything that changes with time: rates, demand, the recommended capacity, and the level. A tick about once a
//! second updates all of it. Between two ticks nothing changes here.

use super::facts::{Level, Rates};
use super::level::Gauge;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The time constant of the displayed rates, in seconds.
const RATES: f64 = 5.0;
/// The history of the demand covers this many TTLs, and has [`PARTS`] samples per TTL.
const SPAN: usize = 4;
const PARTS: usize = 64;
/// The recommended capacity exceeds the need by this fraction, because the shards of an engine do not fill evenly (4 %
/// at worst, see `window::engine::lru`) and because rates vary.
const HEADROOM: f64 = 0.25;
/// The recommended capacity is at least this many times the demand. With it, the pressure settles where the level is
/// ok.
const AT_REST: f64 = 1.5;
/// The smallest recommended capacity, in ids.
const LEAST: f64 = 1000.0;

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) fresh: u64,
    pub(super) duplicate: u64,
    /// including those in doubt, because they take room, too
    pub(super) commits: u64,
    pub(super) escaped: u64,
    /// early evictions
    pub(super) early: u64,
    /// ids that other relays of a shared store have stored
    pub(super) merged: u64,
}

/// The averages and the history of a window's traffic.
#[derive(Debug, Default)]
pub(super) struct Trend {
    last: Option<(Instant, Totals)>,
    fresh: Average,
    duplicate: Average,
    escaped: Average,
    early: Average,
    /// new ids per second: publishes that would be fresh if nothing were evicted early
    demand: Average,
    /// publishes per second of ids that are not new, whether they escaped or not
    repeats: Average,
    history: VecDeque<Sample>,
    /// the sample that is being collected
    open: Sample,
    /// the begin of the first tick with traffic
    first: Option<Instant>,
    /// the end of the last tick, in seconds since then
    now: f64,
    /// the time from which on the history has all samples, in seconds since then
    from: f64,
    interval: Option<Instant>,
    pub(super) gauge: Gauge,
}

/// A sample of the history. Time without any traffic makes no sample. Times are in seconds since the first traffic.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    begin: f64,
    end: f64,
    ids: f64,
    repeats: f64,
    /// the average rate of repeats at the end
    repeats_rate: f64,
}

impl Sample {
    fn ids(&self) -> f64 {
        self.ids
    }

    fn all(&self) -> f64 {
        self.ids + self.repeats
    }
}

impl Trend {
    /// Updates rates, demand and history.
    pub(super) fn step(&mut self, now: Instant, totals: Totals, ttl: Duration) {
        let Some((then, before)) = self.last.replace((now, totals)) else { return };
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        if seconds <= 0.0 {
            self.last = Some((then, before));
            return;
        }
        let since = |count: fn(&Totals) -> u64| count(&totals).saturating_sub(count(&before)) as f64;
        let step = |average: &mut Average, count, constant| average.step(count, seconds, constant);
        step(&mut self.fresh, since(|totals| totals.fresh), RATES);
        step(&mut self.duplicate, since(|totals| totals.duplicate), RATES);
        step(&mut self.escaped, since(|totals| totals.escaped), RATES);
        step(&mut self.early, since(|totals| totals.early), RATES);
        let stored = since(|totals| totals.commits) + since(|totals| totals.merged);
        let ids = (stored - since(|totals| totals.escaped)).max(0.0);
        let repeats = since(|totals| totals.duplicate) + since(|totals| totals.escaped);
        let constant = (ttl.as_secs_f64() / 10.0).clamp(1.0, 60.0);
        step(&mut self.demand, ids, constant);
        step(&mut self.repeats, repeats, constant);
        if ids + repeats > 0.0 {
            self.first.get_or_insert(then);
        }
        let Some(first) = self.first else { return };
        let at = |moment: Instant| moment.saturating_duration_since(first).as_secs_f64();
        self.now = at(now);
        if self.open.end == 0.0 {
            self.open.begin = at(then);
        }
        self.open.end = self.now;
        self.open.ids += ids;
        self.open.repeats += repeats;
        self.open.repeats_rate = self.repeats.value();
        if self.open.end - self.open.begin >= ttl.as_secs_f64() / PARTS as f64 {
            self.remember();
        }
    }

    fn remember(&mut self) {
        let sample = std::mem::take(&mut self.open);
        if sample.ids == 0.0 {
            return;
        }
        if self.history.len() == SPAN * PARTS
            && let Some(oldest) = self.history.pop_front()
        {
            self.from = oldest.end;
        }
        self.history.push_back(sample);
    }

    /// Returns true once per interval, when it is over.
    pub(super) fn is_interval_over(&mut self, now: Instant, ttl: Duration) -> bool {
        let begun = *self.interval.get_or_insert(now);
        let is_over = now.saturating_duration_since(begun) >= interval(ttl);
        if is_over {
            self.interval = Some(now);
        }
        is_over
    }

    pub(super) fn rates(&self) -> Rates {
        Rates {
            fresh: self.fresh.value(),
            duplicate: self.duplicate.value(),
            escaped: self.escaped.value(),
            evicted_early: self.early.value(),
        }
    }

    /// Returns new ids per second.
    pub(super) fn demand(&self) -> f64 {
        self.demand.value()
    }

    pub(super) fn pressure(&self, ttl: Duration, capacity: usize) -> f64 {
        self.demand() * ttl.as_secs_f64() / capacity.max(1) as f64
    }

    /// Returns for what share of a TTL the history goes back, at most 1. After a longer pause than a TTL it is 1: nothing
    /// came then.
    pub(super) fn seen(&self, ttl: Duration) -> f64 {
        match self.first {
            Some(_) if ttl.is_zero() => 1.0,
            Some(_) => ((self.now - self.from) / ttl.as_secs_f64()).min(1.0),
            None => 0.0,
        }
    }

    /// Returns the new ids that arrived within the last TTL.
    pub(super) fn arrived(&self, ttl: Duration) -> f64 {
        let from = self.now - ttl.as_secs_f64();
        self.samples().map(|sample| sample.ids * part_after(sample, from)).sum()
    }

    /// Returns the recommended capacity, once there was a TTL of traffic. It is enough for the largest number of ids that
    /// arrived within a TTL. It counts them, and never computes them from a rate: in a burst, the rate of a second says
    /// nothing about a TTL.
    ///
    /// A duplicate makes its id the most recently seen one. An expired id may therefore be behind ids that have not
    /// expired, and take room for up to another TTL. With `refresh_on_duplicate`, a duplicate even renews the id. Both
    /// concern at most as many ids as had a duplicate within a TTL.
    pub(super) fn recommended(&self, ttl: Duration) -> Option<u64> {
        let seconds = ttl.as_secs_f64();
        let ids = self.most_within(seconds, Sample::ids);
        // Repeats begin later than the ids that are repeated, so for them a rate counts, too. It can't exceed the ids.
        let rate = self.samples().map(|sample| sample.repeats_rate).fold(0.0, f64::max);
        let all = self.most_within(seconds, Sample::all).max(ids + rate * seconds).min(2.0 * ids);
        let room = (ids * AT_REST).max(all + ids * HEADROOM);
        (ids > 0.0 && self.seen(ttl) >= 1.0).then(|| round_up(room.max(LEAST)))
    }

    /// Returns the largest count within any span of `seconds`.
    fn most_within(&self, seconds: f64, count: fn(&Sample) -> f64) -> f64 {
        let (mut most, mut sum) = (0.0_f64, 0.0);
        let mut tail = self.samples().peekable();
        for sample in self.samples() {
            sum += count(sample);
            let from = sample.end - seconds;
            while let Some(oldest) = tail.next_if(|oldest| oldest.end <= from) {
                sum -= count(oldest);
            }
            // Only a part of the oldest sample is inside the span.
            let outside = tail.peek().map_or(0.0, |oldest| count(oldest) * (1.0 - part_after(oldest, from)));
            most = most.max(sum - outside);
        }
        most
    }

    fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.history.iter().chain(Some(&self.open).filter(|open| open.end > open.begin))
    }

    pub(super) fn level(&self) -> Level {
        self.gauge.level()
    }

    pub(super) fn bytes(&self) -> usize {
        self.history.capacity() * size_of::<Sample>() + self.gauge.bytes()
    }
}

/// Returns the share of the sample that is after this moment.
fn part_after(sample: &Sample, from: f64) -> f64 {
    let all = sample.end - sample.begin;
    if all > 0.0 { ((sample.end - from) / all).clamp(0.0, 1.0) } else { 1.0 }
}

/// Returns the length of an interval, which is what "lately" means for ages and level.
pub(super) fn interval(ttl: Duration) -> Duration {
    (ttl / 10).clamp(Duration::from_secs(2), Duration::from_secs(30))
}

/// An exponentially weighted average of a rate. It is right from the first second of traffic on, because the time
/// before does not count as zero.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    sum: f64,
    weight: f64,
}

impl Average {
    fn step(&mut self, count: f64, seconds: f64, constant: f64) {
        if self.weight == 0.0 && count == 0.0 {
            return;
        }
        let keep = (-seconds / constant).exp();
        self.sum = self.sum * keep + count / seconds * (1.0 - keep);
        self.weight = self.weight * keep + (1.0 - keep);
    }

    fn value(&self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }
}

/// Rounds up to two digits, but ignores an excess of a hundredth of the last digit.
fn round_up(value: f64) -> u64 {
    let unit = 10_f64.powf((value.log10().floor() - 1.0).max(0.0));
    whole((value / unit - 0.01).ceil() * unit) as u64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
fn whole(value: f64) -> usize {
    value as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    /// Runs a trend with this many commits in each second.
    fn run(trend: &mut Trend, ttl: Duration, seconds: impl IntoIterator<Item = u64>) {
        let (base, mut totals) = (base(), Totals::default());
        trend.step(base, totals, ttl);
        for (second, commits) in (1..).zip(seconds) {
            totals.commits += commits;
            trend.step(base + Duration::from_secs(second), totals, ttl);
        }
    }

    #[test]
    fn the_demand_is_right_from_the_first_second_and_follows() {
        let ttl = Duration::from_secs(100);
        for (seconds, demand) in [
            (vec![500], 500.0),
            (vec![0, 0, 0, 0, 500], 500.0),
            (vec![500; 300], 500.0),
            ([vec![500; 300], vec![1000; 10]].concat(), 816.0), // one time constant: 63 % of the way
            ([vec![500; 300], vec![0; 100]].concat(), 0.0),
        ] {
            let mut trend = Trend::default();
            run(&mut trend, ttl, seconds.clone());
            assert!((trend.demand() - demand).abs() < 1.0, "{} after {seconds:?}", trend.demand());
            assert!((trend.pressure(ttl, 50_000) - demand / 500.0).abs() < 0.01);
        }
    }

    #[test]
    fn recommended_is_enough_for_what_came_in_a_ttl() {
        let ttl = Duration::from_secs(100);
        let recommended = |seconds: Vec<u64>| {
            let mut trend = Trend::default();
            run(&mut trend, ttl, seconds);
            trend.recommended(ttl)
        };
        assert_eq!(recommended(vec![]), None);
        assert_eq!(recommended(vec![0; 50]), None);
        assert_eq!(recommended(vec![1; 99]), None, "not for a TTL yet");
        assert_eq!(recommended(vec![1; 100]), Some(1000));
        assert_eq!(recommended(vec![1000; 1000]), Some(150_000));
        // When traffic has ended, the recommendation stays.
        assert_eq!(recommended([vec![1000; 400], vec![0; 5000]].concat()), Some(150_000));
        // One burst, however short, asks for room for its own ids.
        assert_eq!(recommended([vec![20_000], vec![0; 300]].concat()), Some(30_000));
        // There is one burst of 50,000 within each TTL.
        let bursts: Vec<u64> = (0..800).map(|second| if second % 100 == 0 { 50_000 } else { 10 }).collect();
        let recommended = recommended(bursts).unwrap();
        assert!((75_000..=110_000).contains(&recommended), "{recommended}");
    }

    #[test]
    fn a_longer_ttl_needs_a_longer_history() {
        let mut trend = Trend::default();
        run(&mut trend, Duration::from_secs(64), vec![10; 1000]);
        assert_eq!(
            (trend.seen(Duration::from_secs(64)), trend.arrived(Duration::from_secs(64))),
            (1.0, 640.0)
        );
        // 256 samples of a second.
        assert_eq!(trend.seen(Duration::from_secs(512)), 0.5);
        assert_eq!(trend.recommended(Duration::from_secs(512)), None);
        assert!(trend.recommended(Duration::from_secs(250)).is_some());
    }

    #[test]
    fn numbers_are_rounded_up_to_two_digits() {
        for (value, rounded) in [
            (1000.0, 1000),
            (1002.0, 1100),
            (1000.5, 1000),
            (125_000.0, 130_000),
            (99_100.0, 100_000),
            (7.2e6, 7_200_000),
        ] {
            assert_eq!(round_up(value), rounded);
        }
    }
}
