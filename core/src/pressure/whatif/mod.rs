//! Estimates what other capacities would catch, from a sample of the running traffic.
//!
//! This is a miniature simulation (Waldspurger, Saemundsson, Ahmad, Park: *Cache Modeling and Optimization using
//! Miniature Simulations*, 2017). Keys are digests, so the keys whose [`Key::spread`] is below a threshold are a fair
//! sample. Every publish of a sampled key is seen. The sample runs through one small store per capacity of the curve.
//! The size of a store is its capacity times the sampling rate, and the rate follows from the window's capacity, see
//! [`rate`].
//!
//! *What is counted.* Publishes with a known outcome: `Committed`, `CommittedInDoubt` and `Duplicate`. Each one is
//! published to all stores, whatever the window itself has decided. The counts cover the last two to two and a half
//! TTLs, but at least 40 s and at most 75 min ([`EPOCHS`]). An id that the window knows from its store (`Recovered`) is put into all stores,
//! and not counted.
//!
//! *How the share is computed.* The number of sampled publishes depends on which keys are sampled: one busy key more
//! or less would change a plain share by several points. The number of all publishes is known. [`Tally::caught`]
//! therefore corrects the misses for the publishes that the sample has too many or too few.
//!
//! *Where it is wrong.* A store for `n` keys of a sample holds what a whole store for `n / rate` keys would hold, with
//! an error of 1/√n: at most 3 % of the capacity. If the true curve has a cliff (the same ids in a loop), a capacity
//! that close to it may be on the wrong side. When the capacity is lowered to less than half, a new sample is drawn,
//! and the curve is right again after a TTL.

mod mini;
mod sampler;
mod tally;

pub use sampler::Sampler;

use super::facts;
use crate::window::engine::Stamp;
use crate::window::{Key, Limits};
use mini::{Mini, Publish};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tally::Tally;

/// The capacities of the curve, as multiples of the present one.
pub const FACTORS: [f64; POINTS] = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0];
const POINTS: usize = 10;

/// How many whole epochs are remembered besides the present one. An epoch is half a TTL, but not shorter than
/// [`SHORTEST`] and not longer than [`LONGEST`].
const EPOCHS: usize = 4;
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(900);

/// How many entries the store for the present capacity has: a 128th of the window's, but within these bounds.
mod bounds {
    /// The least entries. In a window of at most this capacity, every key is sampled. A store of this size has an
    /// error of 3 %.
    pub(super) const LEAST: usize = 1024;
    /// The most entries, which bound the memory of the curve: all stores together have 26 times as many. At 35 bytes
    /// per entry (47 at worst) they take 4 MB.
    pub(super) const MOST: usize = 4096;
    /// Between the bounds, one key in this many is sampled.
    pub(super) const ONE_IN: usize = 128;
}

/// The small stores of a curve, and their counts.
#[derive(Debug)]
pub struct WhatIf {
    limits: Limits,
    rate: f64,
    stores: [Mini; POINTS],
    past: VecDeque<Tally>,
    present: Tally,
    since: Instant,
    /// all publishes, sampled or not, at the begin of the present epoch
    publishes: u64,
}

impl WhatIf {
    /// Creates an empty curve. `publishes` is the present value of the count that [`WhatIf::tick`] gets.
    pub fn new(limits: Limits, now: Instant, publishes: u64) -> WhatIf {
        let rate = rate(limits.capacity);
        WhatIf {
            limits,
            rate,
            stores: stores(limits.capacity, rate),
            past: VecDeque::new(),
            present: Tally::default(),
            since: now,
            publishes,
        }
    }

    /// Returns the threshold: keys that spread to less than this are sampled.
    pub fn threshold(&self) -> u64 {
        threshold(self.rate)
    }

    /// Adds a publish of a sampled key with a known outcome. For a commit, `until` is the end of its TTL. Otherwise
    /// the window's TTL counts.
    pub fn on_publish(&mut self, key: Key, now: Stamp, until: Option<Stamp>) {
        let until = until.unwrap_or_else(|| now.after(self.limits.ttl));
        let publish = Publish { key: key.spread(), now, until, refresh: self.limits.refresh_on_duplicate };
        let mut missed = [false; POINTS];
        for (missed, store) in missed.iter_mut().zip(&mut self.stores) {
            *missed = !store.publish(publish);
        }
        self.present.add(publish.key, &missed);
    }

    /// Adds a sampled key that the window knows from its store. It is no publish.
    pub fn on_recovered(&mut self, key: Key, at: Stamp, until: Stamp) {
        let publish = Publish { key: key.spread(), now: at, until, refresh: false };
        for store in &mut self.stores {
            store.publish(publish);
        }
    }

    /// Begins a new epoch if it is time. `publishes` counts all publishes with a known outcome since the start,
    /// sampled or not.
    pub fn tick(&mut self, limits: Limits, now: Instant, publishes: u64) {
        if limits != self.limits {
            self.adapt(limits, now, publishes);
        }
        if now.saturating_duration_since(self.since) >= (limits.ttl / 2).clamp(SHORTEST, LONGEST) {
            self.present.publishes = publishes.saturating_sub(self.publishes) as f64;
            (self.since, self.publishes) = (now, publishes);
            self.past.push_back(std::mem::take(&mut self.present));
            if self.past.len() > EPOCHS {
                self.past.pop_front();
            }
        }
    }

    /// Returns the curve. It has no points before the first sampled publish.
    pub fn facts(&self, bytes_per_id: f64, publishes: u64) -> facts::WhatIf {
        let mut all = Tally::default();
        all.publishes = publishes.saturating_sub(self.publishes) as f64;
        self.past.iter().chain([&self.present]).for_each(|tally| all.join(tally));
        let sampled = all.sampled();
        let points = if sampled > 0 { self.points(&all, bytes_per_id) } else { Vec::new() };
        facts::WhatIf { sample_rate: self.rate, sampled, bytes: self.bytes() as u64, points }
    }

    /// Returns the bytes on the heap.
    pub fn bytes(&self) -> usize {
        let tallies = self.past.capacity() * size_of::<Tally>();
        tallies + self.stores.iter().map(Mini::bytes).sum::<usize>()
    }

    /// Returns the most bytes that a curve takes at this capacity, whatever happened before.
    pub fn bytes_at_most(capacity: usize) -> usize {
        let factors: f64 = FACTORS.iter().sum();
        Mini::bytes_at_most(whole(scaled(capacity, rate(capacity)) * factors))
            + 2 * EPOCHS * size_of::<Tally>()
    }

    fn points(&self, all: &Tally, bytes_per_id: f64) -> Vec<facts::WhatIfPoint> {
        let point = |(n, factor): (usize, &f64)| {
            let capacity = at(self.limits.capacity, *factor);
            let bytes = whole(capacity as f64 * bytes_per_id) as u64;
            facts::WhatIfPoint {
                factor: *factor,
                capacity: capacity as u64,
                caught: all.caught(n, self.rate),
                bytes,
            }
        };
        FACTORS.iter().enumerate().map(point).collect()
    }

    /// Adapts to new settings. A new capacity keeps the remembered keys, and reads the counts off the old curve. A new
    /// TTL or refresh mode starts the counts again.
    fn adapt(&mut self, limits: Limits, now: Instant, publishes: u64) {
        let old = std::mem::replace(&mut self.limits, limits);
        let same = Limits { capacity: old.capacity, mode: old.mode, ..limits } == old;
        if limits.capacity != old.capacity {
            self.rescale(old.capacity);
        }
        if !same {
            self.forget_counts(now, publishes);
        }
    }

    fn rescale(&mut self, old_capacity: usize) {
        let capacity = self.limits.capacity;
        let (before, best) = (self.rate, rate(capacity));
        // Lower the rate at once, because that loses nothing. Raise it only if the gap is worth a new sample.
        if !(best / 2.0..=best).contains(&before) {
            self.rate = best;
        }
        let below = self.threshold();
        let mut stores = stores(capacity, self.rate);
        let [.., largest] = &self.stores;
        for store in &mut stores {
            let mut kept = largest.recent().filter(|(key, _)| *key < below);
            while kept.next().is_some_and(|(key, until)| store.append(key, until)) {}
        }
        self.stores = stores;
        let from = FACTORS.map(|factor| at(old_capacity, factor) as f64);
        let to = FACTORS.map(|factor| at(capacity, factor) as f64);
        let fewer = self.rate / before;
        self.past.iter_mut().chain([&mut self.present]).for_each(|tally| tally.rescale(&from, &to, fewer));
    }

    fn forget_counts(&mut self, now: Instant, publishes: u64) {
        self.past.clear();
        self.present = Tally::default();
        (self.since, self.publishes) = (now, publishes);
    }
}

fn stores(capacity: usize, rate: f64) -> [Mini; POINTS] {
    FACTORS.map(|factor| Mini::new(whole((scaled(capacity, rate) * factor).round())))
}

/// Returns the best sampling rate for this capacity: the share of keys to sample.
fn rate(capacity: usize) -> f64 {
    let entries = (capacity / bounds::ONE_IN).clamp(bounds::LEAST, bounds::MOST);
    (entries as f64 / capacity.max(1) as f64).min(1.0)
}

fn scaled(capacity: usize, rate: f64) -> f64 {
    capacity as f64 * rate
}

fn threshold(rate: f64) -> u64 {
    if rate >= 1.0 { u64::MAX } else { bits(rate) }
}

#[expect(clippy::cast_possible_truncation, reason = "a share of 2^64, rounded down")]
fn bits(share: f64) -> u64 {
    (share * 2.0_f64.powi(64)) as u64
}

fn at(capacity: usize, factor: f64) -> usize {
    whole((capacity as f64 * factor).round()).max(1)
}

#[expect(clippy::cast_possible_truncation, reason = "not negative, and a cast saturates")]
fn whole(value: f64) -> usize {
    value as usize
}
