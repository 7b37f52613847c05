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
/// The recommended capacity covers the demand of this share of all moments. The headroom covers the rest.
const PERCENTILE: f64 = 0.99;
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
    interval: Option<Instant>,
    pub(super) gauge: Gauge,
}

/// A sample of the history. Time without any traffic makes no sample.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    seconds: f64,
    ids: f64,
    repeats: f64,
    /// the averages of both at the end of the sample
    ids_rate: f64,
    repeats_rate: f64,
}

impl Sample {
    fn ids_rate(&self) -> f64 {
        self.ids_rate
    }

    fn all_rate(&self) -> f64 {
        self.ids_rate + self.repeats_rate
    }

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
        let ids = (since(|totals| totals.commits) - since(|totals| totals.escaped)).max(0.0);
        let repeats = since(|totals| totals.duplicate) + since(|totals| totals.escaped);
        let constant = (ttl.as_secs_f64() / 10.0).clamp(1.0, 60.0);
        step(&mut self.demand, ids, constant);
        step(&mut self.repeats, repeats, constant);
        self.open.seconds += seconds;
        self.open.ids += ids;
        self.open.repeats += repeats;
        self.open.ids_rate = self.demand.value();
        self.open.repeats_rate = self.repeats.value();
        if self.open.seconds >= ttl.as_secs_f64() / PARTS as f64 {
            self.remember();
        }
    }

    fn remember(&mut self) {
        let sample = std::mem::take(&mut self.open);
        if sample.ids == 0.0 {
            return;
        }
        if self.history.len() == SPAN * PARTS {
            self.history.pop_front();
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

    /// Returns the recommended capacity. It is enough for the demand of almost every moment, and for the largest
    /// number of ids that arrived within a TTL.
    ///
    /// A duplicate makes its id the most recently seen one. An expired id may therefore be behind ids that have not
    /// expired, and take room for up to another TTL. With `refresh_on_duplicate`, a duplicate even renews the id. Both
    /// concern at most as many ids as had a duplicate within a TTL.
    pub(super) fn recommended(&self, ttl: Duration) -> Option<u64> {
        let ttl = ttl.as_secs_f64();
        let ids = self.needed(ttl, Sample::ids_rate, Sample::ids);
        let all = self.needed(ttl, Sample::all_rate, Sample::all).min(2.0 * ids);
        let room = (ids * AT_REST).max(all + ids * HEADROOM);
        (ids > 0.0).then(|| round_up(room.max(LEAST)))
    }

    fn needed(&self, ttl: f64, rate: fn(&Sample) -> f64, count: fn(&Sample) -> f64) -> f64 {
        let mut rates: Vec<f64> = self.samples().map(rate).collect();
        rates.sort_by(f64::total_cmp);
        let rank = (rates.len() as f64 * PERCENTILE).ceil();
        let rate = rates.into_iter().take(whole(rank)).next_back().unwrap_or_default();
        (rate * ttl).max(self.most_within(ttl, count))
    }

    /// Returns the largest count within any span of `seconds`.
    fn most_within(&self, seconds: f64, count: fn(&Sample) -> f64) -> f64 {
        let (mut most, mut sum, mut span) = (0.0_f64, 0.0, 0.0);
        let mut tail = self.samples();
        for sample in self.samples() {
            sum += count(sample);
            span += sample.seconds;
            while span > seconds
                && let Some(oldest) = tail.next()
            {
                // Only a part of the oldest sample is inside the span.
                let over = ((span - seconds) / oldest.seconds).min(1.0);
                most = most.max(sum - count(oldest) * over);
                sum -= count(oldest);
                span -= oldest.seconds;
            }
            most = most.max(sum);
        }
        most
    }

    fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.history.iter().chain(Some(&self.open).filter(|open| open.seconds > 0.0))
    }

    pub(super) fn level(&self) -> Level {
        self.gauge.level()
    }

    pub(super) fn bytes(&self) -> usize {
        self.history.capacity() * size_of::<Sample>() + self.gauge.bytes()
    }
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
        assert_eq!(recommended(vec![1; 50]), Some(1000));
        assert_eq!(recommended(vec![1000; 2]), Some(150_000));
        assert_eq!(recommended(vec![1000; 1000]), Some(150_000));
        // When traffic has ended, the recommendation stays.
        assert_eq!(recommended([vec![1000; 400], vec![0; 5000]].concat()), Some(150_000));
        // There is one burst of 50,000 within each TTL.
        let bursts: Vec<u64> = (0..800).map(|second| if second % 100 == 0 { 50_000 } else { 10 }).collect();
        let recommended = recommended(bursts).unwrap();
        assert!((75_000..=900_000).contains(&recommended), "{recommended}");
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
