//! What is known of a window at one moment: the one set of numbers that metrics, API, dashboard and terminal show.
//!
//! The names here are the names of the JSON. Counters count since the start of the process; everything else is as of now.
//! Ages and spans are in seconds, sizes in bytes, capacities in ids, rates per second, shares from 0 to 1.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How hard a window is pressed, in one word.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// pressure below 0.8, no early evictions
    #[default]
    Ok,
    /// pressure from 0.8 on: it is nearly too small
    High,
    /// ids are evicted before their TTL is over: it is too small
    Critical,
}

/// A window's numbers.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Facts {
    /// publishes by verdict
    pub publishes: Publishes,
    /// ids that became seen because the upstream said so
    pub commits: u64,
    /// ids that became seen although nobody knows whether they were stored
    pub commits_in_doubt: u64,
    /// waiters that took the place of a first that failed
    pub promoted: u64,
    /// waiters that took the place of a first whose outcome did not come
    pub takeovers: u64,
    /// publishes that were nacked because they could not wait, or not any longer
    pub refused: u64,
    /// reservations given up, by cause
    pub forgotten: BTreeMap<String, u64>,
    /// seen ids removed, by cause
    pub evictions: BTreeMap<String, u64>,
    /// duplicates that got through because their id had been evicted early
    pub escaped_duplicates: u64,
    /// what the count of escaped duplicates rests on
    pub ghost: GhostFacts,
    /// ids remembered, expired ones that were not swept yet included; absent if the window can't know
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// ids whose outcome is not known; absent if the window can't know
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    /// ids that can be remembered; absent if the window has no bound of its own
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// how long an id is remembered, unless its message says otherwise
    pub ttl_seconds: f64,
    /// memory that the window and its accounting take
    pub bytes: u64,
    /// what one remembered id takes; the engine's own figure while the window is nearly empty
    pub bytes_per_id: f64,
    /// per second, lately
    pub rates: Rates,
    /// share of the judged publishes that were duplicates, since the start; none before the first one
    pub hit_ratio: Option<f64>,
    /// different ids published in the last whole interval
    pub distinct: Distinct,
    /// how old ids were when they were evicted early
    pub age_at_eviction: Ages,
    /// age of the oldest id, if the window is full
    pub oldest_seconds: Option<f64>,
    /// fresh ids per second × TTL / capacity: above 1, ids are forgotten early; absent without a capacity
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<f64>,
    /// how long an id is really remembered now
    pub effective_seconds: f64,
    /// effective / TTL, at most 1
    pub coverage: f64,
    /// ids that the window ought to have room for; none before there was traffic
    pub recommended_capacity: Option<u64>,
    /// what that would take
    pub recommended_bytes: Option<u64>,
    /// in one word
    pub level: Level,
    /// when it became so; the newest last
    pub level_history: Vec<LevelChange>,
    /// where the fresh ids come from: the largest first, ten at most
    pub top_scopes: Vec<TopScope>,
    /// caught duplicates by capacity
    pub what_if: WhatIf,
}

impl Facts {
    /// The share of its capacity that a window has filled, if it has a capacity.
    pub fn full(&self) -> Option<f64> {
        Some(self.entries? as f64 / self.capacity?.max(1) as f64)
    }
}

/// Publishes since the start, by verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Publishes {
    /// forwarded on the window's word
    pub fresh: u64,
    /// taken out (or, observed, forwarded)
    pub duplicate: u64,
    /// had to wait; each is counted again by what came of it
    pub in_flight: u64,
    /// without an id
    pub no_id: u64,
    /// asked not to be judged
    pub bypassed: u64,
}

/// The memory of what was evicted early.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct GhostFacts {
    /// keys held; those included whose time is over and that were not met again yet
    pub keys: u64,
    /// keys it has room for
    pub capacity: u64,
    /// keys that had no place: duplicates of these escape uncounted
    pub dropped: u64,
    /// bits that a key takes
    pub bits_per_key: u32,
    /// share of fresh publishes that are taken for escaped duplicates by mistake, at most
    pub false_positive_rate: f64,
}

/// Publishes per second.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Rates {
    /// verdict fresh
    pub fresh: f64,
    /// verdict duplicate
    pub duplicate: f64,
    /// escaped duplicates
    pub escaped: f64,
    /// early evictions
    pub evicted_early: f64,
}

/// An estimate of how many different ids there were.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Distinct {
    /// ids
    pub ids: u64,
    /// within so many seconds
    pub seconds: f64,
    /// relative standard error of the estimate
    pub standard_error: f64,
}

/// Ages at early eviction.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Ages {
    /// 99 % were at least this old, lately
    pub p1_seconds: Option<f64>,
    /// half were at least this old, lately
    pub p50_seconds: Option<f64>,
    /// sum of all ages since the start
    pub sum_seconds: f64,
    /// since the start: how many were at most so old, but older than the bucket before says
    pub buckets: Vec<AgeBucket>,
}

/// One bucket of a histogram, not cumulated.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct AgeBucket {
    /// upper bound, in seconds; none = no bound
    pub le: Option<f64>,
    /// evictions
    pub count: u64,
}

/// A change of level.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LevelChange {
    /// seconds ago
    pub ago_seconds: f64,
    /// from then on
    pub level: Level,
}

/// Where fresh ids come from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TopScope {
    /// vhost
    pub vhost: String,
    /// exchange that the publisher names
    pub exchange: String,
    /// routing key
    pub routing_key: String,
    /// fresh ids lately: an estimate, at most `error` too high
    pub fresh: u64,
    /// how much `fresh` may be too high
    pub error: u64,
}

/// The curve of caught duplicates against capacity, from a sample of the traffic.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct WhatIf {
    /// share of the ids that are looked at
    pub sample_rate: f64,
    /// publishes that were looked at
    pub sampled: u64,
    /// memory that looking takes; part of the window's `bytes`, and not of its `bytes_per_id`
    pub bytes: u64,
    /// from small to large
    pub points: Vec<WhatIfPoint>,
}

/// What a capacity would have caught.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WhatIfPoint {
    /// of the present capacity
    pub factor: f64,
    /// ids
    pub capacity: u64,
    /// of the sampled publishes, the share that would have been caught as duplicates
    pub caught: f64,
    /// what it would take in memory
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kind of window can't know is not shown as zero.
    #[test]
    fn facts_that_are_not_known_are_absent() {
        let keys = ["entries", "in_flight", "capacity", "pressure"];
        let has = |facts: &Facts| {
            let json = serde_json::to_value(facts).unwrap();
            keys.map(|key| json.get(key).is_some())
        };
        let nothing = Facts::default();
        let all = Facts {
            entries: Some(0),
            in_flight: Some(0),
            capacity: Some(0),
            pressure: Some(0.0),
            ..Facts::default()
        };
        assert_eq!((has(&nothing), has(&all)), ([false; 4], [true; 4]));
        let text = serde_json::to_string(&nothing).unwrap();
        assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), nothing);
        assert_eq!(
            (nothing.full(), Facts { entries: Some(1), capacity: Some(4), ..nothing.clone() }.full()),
            (None, Some(0.25))
        );
    }
}
