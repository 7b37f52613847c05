//! The ages of ids that were evicted early, in two histograms: a fine one of the last two intervals, for percentiles,
//! and a coarse one since the start, for Prometheus.

use super::facts::{AgeBucket, Ages as AgeFacts};

/// Steps per doubling of the age. An interpolated percentile is exact within 6 %.
const STEPS: u32 = 16;
/// Ages below 2²⁰ ns (about a millisecond) all count in the lowest bucket.
const LOWEST: u32 = 20;
/// Ages from 2⁵⁰ ns (13 days) on all count in the highest bucket.
const HIGHEST: u32 = 50;
/// The number of fine buckets: one per step, and one for all lower ages.
const FINE: usize = ((HIGHEST - LOWEST) * STEPS) as usize + 1;

/// The upper bounds of the coarse histogram, in milliseconds. They go up to a week.
const BOUNDS: [u64; 23] = [
    1,
    5,
    10,
    50,
    100,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    1_200_000,
    1_800_000,
    3_600_000,
    10_800_000,
    21_600_000,
    43_200_000,
    86_400_000,
    604_800_000,
];

/// Both histograms of ages at early eviction.
#[derive(Debug)]
pub(super) struct Ages {
    /// the present interval and the one before
    fine: [Interval; 2],
    coarse: [u64; BOUNDS.len() + 1],
    /// The coarse bucket of the last age. It is tried first, because the next age is mostly in the same bucket.
    last: usize,
    /// the sum of all ages, in nanoseconds
    nanos: f64,
}

#[derive(Clone, Debug)]
struct Interval {
    counts: Box<[u32]>,
    total: u64,
}

impl Interval {
    fn new() -> Interval {
        Interval { counts: vec![0; FINE].into(), total: 0 }
    }
}

impl Default for Ages {
    fn default() -> Ages {
        let fine = [Interval::new(), Interval::new()];
        Ages { fine, coarse: [0; BOUNDS.len() + 1], last: 0, nanos: 0.0 }
    }
}

impl Ages {
    pub(super) fn bytes() -> usize {
        2 * FINE * size_of::<u32>()
    }

    pub(super) fn add(&mut self, nanos: u64) {
        self.nanos += nanos as f64;
        let [this, _] = &mut self.fine;
        this.total += 1;
        if let Some(count) = this.counts.get_mut(fine_of(nanos)) {
            *count = count.saturating_add(1);
        }
        if !is_in(self.last, nanos) {
            self.last = BOUNDS.partition_point(|bound| bound * 1_000_000 < nanos);
        }
        if let Some(count) = self.coarse.get_mut(self.last) {
            *count += 1;
        }
    }

    /// Begins a new interval.
    pub(super) fn turn(&mut self) {
        self.fine.swap(0, 1);
        let [this, _] = &mut self.fine;
        this.counts.fill(0);
        this.total = 0;
    }

    /// Returns the number of early evictions in this interval and the one before.
    pub(super) fn lately(&self) -> u64 {
        self.fine.iter().map(|interval| interval.total).sum()
    }

    /// Returns the age, in seconds, that this share of the early evictions did not exceed, in this interval and the
    /// one before.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let [this, before] = &self.fine;
        let counts = || this.counts.iter().zip(&before.counts).map(|(a, b)| f64::from(*a) + f64::from(*b));
        let total: f64 = counts().sum();
        let mut wanted = (total > 0.0).then_some(total * share)?;
        for (index, count) in counts().enumerate() {
            if wanted <= count && count > 0.0 {
                let (from, to) = (lower(index), lower(index + 1));
                return Some(from + (to - from) * wanted / count);
            }
            wanted -= count;
        }
        None
    }

    pub(super) fn facts(&self) -> AgeFacts {
        let bounds = BOUNDS.iter().map(|bound| Some(*bound as f64 / 1e3)).chain([None]);
        let bucket = |(le, count): (_, &u64)| AgeBucket { le, count: *count };
        AgeFacts {
            p1_seconds: self.quantile(0.01),
            p50_seconds: self.quantile(0.5),
            sum_seconds: self.nanos / 1e9,
            buckets: bounds.zip(&self.coarse).map(bucket).collect(),
        }
    }
}

fn is_in(index: usize, nanos: u64) -> bool {
    let below = index.checked_sub(1).and_then(|below| BOUNDS.get(below));
    below.is_none_or(|bound| nanos > bound * 1_000_000)
        && BOUNDS.get(index).is_none_or(|bound| nanos <= bound * 1_000_000)
}

fn fine_of(nanos: u64) -> usize {
    let octave = nanos.max(1).ilog2();
    if octave < LOWEST {
        return 0;
    }
    let step = (nanos >> (octave - STEPS.ilog2())) & u64::from(STEPS - 1);
    let index = u64::from((octave - LOWEST) * STEPS) + step + 1;
    usize::try_from(index).unwrap_or(FINE).min(FINE - 1)
}

/// Returns the lower bound of a fine bucket, in seconds.
fn lower(index: usize) -> f64 {
    let Some(index) = index.checked_sub(1).and_then(|index| u32::try_from(index).ok()) else { return 0.0 };
    let octave = f64::from(LOWEST + index / STEPS).exp2();
    octave * (1.0 + f64::from(index % STEPS) / f64::from(STEPS)) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn nanos(millis: u64) -> u64 {
        millis * 1_000_000
    }

    #[test]
    fn each_fine_bucket_begins_where_it_says() {
        for index in 1..FINE {
            let begin = (lower(index) * 1e9).round();
            let nanos = Duration::from_secs_f64(begin / 1e9).as_nanos();
            let nanos = u64::try_from(nanos).unwrap();
            assert_eq!(fine_of(nanos + 1), index, "{nanos}");
            assert_eq!(fine_of(nanos - 2), index - 1, "{nanos}");
        }
        assert_eq!((fine_of(0), fine_of(u64::MAX)), (0, FINE - 1));
    }

    #[test]
    fn percentiles_are_within_a_step_and_leave_after_two_turns() {
        let mut ages = Ages::default();
        (1..=1000).for_each(|tenth| ages.add(nanos(tenth * 100)));
        for (share, seconds) in [(0.01, 1.0), (0.5, 50.0), (0.99, 99.0)] {
            let found = ages.quantile(share).unwrap();
            assert!((found / seconds - 1.0).abs() < 0.065, "{share}: {found} instead of {seconds}");
        }
        ages.turn();
        assert_eq!(ages.lately(), 1000);
        ages.turn();
        assert_eq!((ages.lately(), ages.quantile(0.5)), (0, None));
        assert!((ages.facts().sum_seconds - 50_050.0).abs() < 1e-6);
    }

    #[test]
    fn coarse_buckets_have_their_upper_bound() {
        let mut ages = Ages::default();
        for millis in BOUNDS {
            ages.add(nanos(millis));
        }
        ages.add(nanos(604_800_001));
        ages.add(0);
        let counts: Vec<u64> = ages.facts().buckets.iter().map(|bucket| bucket.count).collect();
        assert_eq!(counts[0], 2);
        assert!(counts[1..].iter().all(|count| *count == 1), "{counts:?}");
    }
}
