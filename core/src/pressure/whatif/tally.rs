//! The counts of one epoch, and the share of caught publishes that follows from them.

use super::POINTS;

/// The number of groups that the sample is divided into. Each group is a small sample of its own. Comparing them shows
/// how misses depend on publishes.
const GROUPS: usize = 32;

/// The counts of the sampled keys in one epoch, by group.
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
    /// Counts a publish of this key, and which stores missed it.
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

    /// Returns how many publishes were sampled.
    #[expect(clippy::cast_possible_truncation, reason = "a count")]
    pub(super) fn sampled(&self) -> u64 {
        self.groups.iter().map(|group| group.sampled).sum::<f64>().round() as u64
    }

    /// Returns the share of all publishes that the store of this point would have caught.
    ///
    /// This is a regression estimate. The sample should have `publishes × rate` publishes. If it has more, it contains
    /// too many keys, or a busy one. The groups of the sample show how many misses belong to the excess: a group has
    /// `slope` more misses for each publish more. With fresh ids only, the slope is 1, and the result is the plain
    /// share of misses. With a busy key, which misses only once, the slope is 0, and the excess does not matter.
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

    /// Converts the counts to those of other capacities, and of a sample with `fewer` times as many keys.
    pub(super) fn rescale(&mut self, from: &[f64; POINTS], to: &[f64; POINTS], fewer: f64) {
        for group in &mut self.groups {
            group.sampled *= fewer;
            group.missed = to.map(|capacity| read_off(from, &group.missed, capacity) * fewer);
        }
    }
}

/// Returns the curve's value at this capacity. Between two points it interpolates over the logarithm of the capacity.
/// Past an end, it returns the value at that end.
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
