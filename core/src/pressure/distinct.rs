//! Estimates how many different ids were published, by a HyperLogLog. It counts each id once, however often it is
//! published.
//!
//! Its registers are atomics. After a few thousand ids they are almost never written, so no lock is needed. The
//! estimator is Ertl's, which has no bias at small or medium counts (O. Ertl, *New cardinality estimation algorithms
//! for HyperLogLog sketches*, 2017, algorithm 6).

use super::facts::Distinct as DistinctFacts;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The number of bits of a key that choose its register.
const CHOOSE: u32 = 12;
const REGISTERS: usize = 1 << CHOOSE;
/// The rank of a key whose other bits are all zero.
const HIGHEST: usize = (u64::BITS - CHOOSE) as usize + 1;
/// The length of an interval. Each interval counts from zero.
const INTERVAL: Duration = Duration::from_secs(60);

/// The estimate of different ids, for the present interval and the last whole one.
#[derive(Debug)]
pub(super) struct Distinct {
    registers: Box<[AtomicU8]>,
    intervals: Mutex<Intervals>,
}

#[derive(Debug, Default)]
struct Intervals {
    begun: Option<Instant>,
    /// the estimate of the last whole interval, and its length
    last: Option<(f64, Duration)>,
}

impl Default for Distinct {
    fn default() -> Distinct {
        let registers = std::iter::repeat_with(AtomicU8::default).take(REGISTERS).collect();
        Distinct { registers, intervals: Mutex::default() }
    }
}

impl Distinct {
    pub(super) const BYTES: usize = REGISTERS;

    pub(super) fn add(&self, spread: u64) {
        let rank =
            u8::try_from((spread << CHOOSE | 1 << (CHOOSE - 1)).leading_zeros() + 1).unwrap_or(u8::MAX);
        let index = usize::try_from(spread >> (u64::BITS - CHOOSE)).unwrap_or_default();
        if let Some(register) = self.registers.get(index)
            && register.load(Relaxed) < rank
        {
            register.fetch_max(rank, Relaxed);
        }
    }

    /// Begins a new interval if the present one is over.
    pub(super) fn tick(&self, now: Instant) {
        let mut intervals = self.intervals.lock();
        let begun = *intervals.begun.get_or_insert(now);
        let gone = now.saturating_duration_since(begun);
        if gone >= INTERVAL {
            intervals.last = Some((self.estimate(), gone));
            intervals.begun = Some(now);
            // An id that arrives meanwhile counts in one of the two intervals, or rarely in none.
            self.registers.iter().for_each(|register| register.store(0, Relaxed));
        }
    }

    /// Returns the estimate of the last whole interval, or that of the present one if there was no whole one yet.
    pub(super) fn facts(&self, now: Instant) -> DistinctFacts {
        let intervals = self.intervals.lock();
        let begun = intervals.begun.unwrap_or(now);
        let (ids, span) =
            intervals.last.unwrap_or_else(|| (self.estimate(), now.saturating_duration_since(begun)));
        DistinctFacts {
            ids: rounded(ids),
            seconds: span.as_secs_f64(),
            standard_error: 1.04 / (REGISTERS as f64).sqrt(),
        }
    }

    fn estimate(&self) -> f64 {
        let mut counts = [0_u32; HIGHEST + 1];
        for register in &self.registers {
            if let Some(count) = counts.get_mut(usize::from(register.load(Relaxed))) {
                *count += 1;
            }
        }
        let registers = REGISTERS as f64;
        let [none, between @ .., full] = counts;
        let mut z = registers * tau(1.0 - f64::from(full) / registers);
        for count in between.iter().rev() {
            z = 0.5 * (z + f64::from(*count));
        }
        z += registers * sigma(f64::from(none) / registers);
        registers * registers / (2.0 * std::f64::consts::LN_2 * z)
    }
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z, mut before) = (1.0, x, f64::NAN);
    while z != before {
        x *= x;
        before = z;
        z += x * y;
        y += y;
    }
    z
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z, mut before) = (1.0, 1.0 - x, f64::NAN);
    while z != before {
        x = x.sqrt();
        before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
    }
    z / 3.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
fn rounded(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::random;

    #[test]
    fn the_standard_error_is_as_stated_at_every_size() {
        for (ids, runs) in [(10_u64, 50), (300, 50), (3_000, 50), (10_000, 50), (20_000, 50), (300_000, 12)] {
            let errors = (0..runs).map(|run| {
                let distinct = Distinct::default();
                // Each id is added twice.
                (0..2 * ids).for_each(|n| distinct.add(random(run * 1_000_000 + n % ids + 1)));
                distinct.estimate() / ids as f64 - 1.0
            });
            let (mut sum, mut squares) = (0.0, 0.0);
            errors.for_each(|error| {
                sum += error;
                squares += error * error;
            });
            let (bias, error) = (sum / runs as f64, (squares / runs as f64).sqrt());
            let stated = 1.04 / (REGISTERS as f64).sqrt();
            assert!(error < stated * 1.35, "{ids}: {error}");
            assert!(bias.abs() < stated * 0.6, "{ids}: {bias}");
        }
    }

    #[test]
    fn none_is_none_and_a_tick_begins_anew() {
        #[expect(clippy::disallowed_methods, reason = "one base instant; the test counts from there")]
        let base = Instant::now();
        let distinct = Distinct::default();
        distinct.tick(base);
        assert_eq!(distinct.facts(base).ids, 0);
        (0..100).for_each(|n| distinct.add(random(n)));
        distinct.add(0);
        distinct.add(u64::MAX);
        assert!((99..106).contains(&distinct.facts(base).ids));
        distinct.tick(base + INTERVAL);
        assert_eq!(distinct.estimate(), 0.0);
        let facts = distinct.facts(base + INTERVAL);
        assert!((99..106).contains(&facts.ids) && facts.seconds == 60.0);
        distinct.tick(base + 2 * INTERVAL);
        assert_eq!(distinct.facts(base + 2 * INTERVAL).ids, 0);
    }
}
