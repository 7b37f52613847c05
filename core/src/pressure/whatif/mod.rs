//! What another capacity would catch, from a sample of the running traffic.
//!
//! A miniature simulation (Waldspurger, Saemundsson, Ahmad, Park: *Cache Modeling and Optimization using Miniature
//! Simulations*, 2017). Keys are digests, so those whose [`Key::spread`] is below a threshold are a fair sample of all
//! keys, and every publish of a sampled key is seen. They are run through one small store for each capacity of the curve,
//! whose size is that capacity times the rate. The rate follows from the capacity, see [`rate`].
//!
//! *What is counted.* A publish whose outcome is known: `Committed`, `CommittedInDoubt` or `Duplicate`. Each is a publish of
//! its key at each of the capacities; what the window itself made of it does not matter. The counts are those of the last two to
//! two and a half TTLs, but of 40 s at least and 75 min at most ([`EPOCHS`]).
//!
//! *What is made of it.* Which keys are sampled decides how many publishes are: one busy key more or less moves a plain share
//! by points. How many publishes there were in all is known, so the misses are corrected for what the sample has too many
//! or too few, as far as the two go together ([`Tally::caught`]).
//!
//! *Where it is wrong.* A store for `n` keys of a sample holds what a whole one for `n / rate` would, give or take 1/√n: 3 %
//! of the capacity at most. Where the true curve has a cliff (the same ids in a loop), a capacity that is so near to it may be told on
//! the wrong side. After the capacity was lowered to less than half, the sample is drawn anew, and the curve is right a TTL later.

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

/// The capacities of the curve, in parts of the present one.
pub const FACTORS: [f64; POINTS] = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0];
const POINTS: usize = 10;

/// Whole epochs that are remembered, beside the present one. An epoch is half a TTL within [`SHORTEST`] and [`LONGEST`].
const EPOCHS: usize = 4;
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(900);

/// Entries of the store for the present capacity: where the sample is 1/128 of the keys it has between these.
mod bounds {
    /// Of a window that holds no more than this, every key is looked at. A store of this size is 3 % off.
    pub(super) const LEAST: usize = 1024;
    /// What the curve takes in memory ends here: at 35 bytes an entry (47 at worst) and 26 times as many of them, 4 MB.
    pub(super) const MOST: usize = 4096;
    /// Between the two: one key in so many.
    pub(super) const ONE_IN: usize = 128;
}

/// See the module's doc.
#[derive(Debug)]
pub struct WhatIf {
    limits: Limits,
    rate: f64,
    stores: [Mini; POINTS],
    past: VecDeque<Tally>,
    present: Tally,
    since: Instant,
    /// publishes, sampled or not, when the present epoch began
    publishes: u64,
}

impl WhatIf {
    /// Nothing seen yet. `publishes` is the count that [`WhatIf::tick`] will be told, as of now.
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

    /// Sampled is what spreads to less than this.
    pub fn threshold(&self) -> u64 {
        threshold(self.rate)
    }

    /// A publish of a sampled key whose outcome is known; `until` of a commit, otherwise the window's TTL counts.
    pub fn on_publish(&mut self, key: Key, now: Stamp, until: Option<Stamp>) {
        let until = until.unwrap_or_else(|| now.after(self.limits.ttl));
        let publish = Publish { key: key.spread(), now, until, refresh: self.limits.refresh_on_duplicate };
        let mut missed = [false; POINTS];
        for (missed, store) in missed.iter_mut().zip(&mut self.stores) {
            *missed = !store.publish(publish);
        }
        self.present.add(publish.key, &missed);
    }

    /// Begins a new epoch when it is time. `publishes`: all publishes whose outcome is known, sampled or not, since ever.
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

    /// The curve; no points before a publish was looked at.
    pub fn facts(&self, bytes_per_id: f64, publishes: u64) -> facts::WhatIf {
        let mut all = Tally::default();
        all.publishes = publishes.saturating_sub(self.publishes) as f64;
        self.past.iter().chain([&self.present]).for_each(|tally| all.join(tally));
        let sampled = all.sampled();
        let points = if sampled > 0 { self.points(&all, bytes_per_id) } else { Vec::new() };
        facts::WhatIf { sample_rate: self.rate, sampled, bytes: self.bytes() as u64, points }
    }

    /// What it takes on the heap.
    pub fn bytes(&self) -> usize {
        let tallies = self.past.capacity() * size_of::<Tally>();
        tallies + self.stores.iter().map(Mini::bytes).sum::<usize>()
    }

    /// What it takes at most at this capacity, however it got there.
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

    /// Keeps what holds for the new settings: what is remembered, and for another capacity the counts, too: they are read
    /// off the old curve. Another TTL makes another curve.
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
        // Fewer keys at once, since nothing is lost by that; more only when it is worth the gap.
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

/// The share of the keys that is best looked at, for this capacity.
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
