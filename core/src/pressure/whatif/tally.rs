//! Counts of one epoch, and the share of caught publishes that they tell.

use super::POINTS;

/// Parts of the sample. Each is a sample of its own, so that they tell how misses and publishes go together.
const GROUPS: usize = 32;

/// What was seen of the sampled keys in one epoch, by part of the sample.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// all publishes, sampled or not
    pub(super) publishes: f64,
    groups: [Group; GROUPS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    sampled: f64,
    missed: [f64; POINTS],
}

impl Tally {
    /// A publish of this key, and which stores missed it.
    #[expect(clippy::cast_possible_truncation, reason = "fewer groups than 2^32")]
    pub(super) fn add(&mut self, key: u64, missed: &[bool; POINTS]) {
        let Some(group) = self.groups.get_mut(key as usize % GROUPS) else { return };
        group.sampled += 1.0;
        for (sum, missed) in group.missed.iter_mut().zip(missed) {
            *sum += f64::from(u8::from(*missed));
        }
    }

    /// Adds the counts of another epoch.
    pub(super) fn join(&mut self, other: &Tally) {
        self.publishes += other.publishes;
        for (group, other) in self.groups.iter_mut().zip(&other.groups) {
            group.sampled += other.sampled;
            group.missed.iter_mut().zip(other.missed).for_each(|(sum, missed)| *sum += missed);
        }
    }

    /// Publishes looked at.
    #[expect(clippy::cast_possible_truncation, reason = "a count")]
    pub(super) fn sampled(&self) -> u64 {
        self.groups.iter().map(|group| group.sampled).sum::<f64>().round() as u64
    }

    /// The share of all publishes that the store of this point would have caught.
    ///
    /// A regression estimate. The sample ought to have `publishes × rate` publishes. If it has more, it has some keys too
    /// many, or one that is busy; how many misses came with them is what the parts of the sample tell: those with more
    /// publishes have `slope` more misses for each. Fresh ids only: slope 1, and the plain share of misses comes out. A
    /// busy key: slope 0, and it does not count, for it misses once.
    pub(super) fn caught(&self, point: usize, rate: f64) -> f64 {
        let expected = self.publishes * rate / GROUPS as f64;
        let missed = |group: &Group| group.missed.get(point).copied().unwrap_or(0.0);
        let mean = |of: &dyn Fn(&Group) -> f64| self.groups.iter().map(of).sum::<f64>() / GROUPS as f64;
        let (sampled, misses) = (mean(&|group| group.sampled), mean(&missed));
        if sampled <= 0.0 || expected <= 0.0 {
            return 0.0;
        }
        let variance = mean(&|group| (group.sampled - sampled).powi(2));
        let together = mean(&|group| (group.sampled - sampled) * (missed(group) - misses));
        let slope = if variance > 0.0 { (together / variance).clamp(0.0, 1.0) } else { misses / sampled };
        (1.0 - (misses + slope * (expected - sampled)) / expected).clamp(0.0, 1.0)
    }

    /// The same epoch as it would have been counted at other capacities, from a sample of `fewer` times as many keys.
    pub(super) fn rescale(&mut self, from: &[f64; POINTS], to: &[f64; POINTS], fewer: f64) {
        for group in &mut self.groups {
            group.sampled *= fewer;
            group.missed = to.map(|capacity| read_off(from, &group.missed, capacity) * fewer);
        }
    }
}

/// The curve's value at this capacity: between two of its points a straight line over the logarithm, outside as at the end.
fn read_off(capacities: &[f64; POINTS], values: &[f64; POINTS], capacity: f64) -> f64 {
    let points = || capacities.iter().zip(values);
    let below = points().rev().find(|(at, _)| **at <= capacity);
    let above = points().find(|(at, _)| **at >= capacity);
    match (below, above) {
        (Some((low, a)), Some((high, b))) if high > low => {
            a + (b - a) * (capacity / low).ln() / (high / low).ln()
        }
        (Some((_, value)), _) | (None, Some((_, value))) => *value,
        (None, None) => 0.0,
    }
}
