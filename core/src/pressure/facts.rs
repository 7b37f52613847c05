//! The facts: everything that is known about a window at one moment. Metrics, API, dashboard and terminal show the
//! same facts. The API shows every field. The others show the fields that they name.
//!
//! The names here are the names in the JSON. Counters count since the start of the process; everything else is a
//! present value. Ages and durations are in seconds, sizes in bytes, capacities in ids, rates per second, shares from
//! 0 to 1.

use crate::window::logged::{OnOutage, Remember, StoreFacts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// The level of eviction pressure.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// pressure below 0.8, no early evictions
    #[default]
    Ok,
    /// younger than its TTL: duplicates of what was published before are not known
    Warming,
    /// most publishes carry no id: their duplicates can't be seen
    Blind,
    /// pressure from 0.8 on: it is nearly too small
    High,
    /// ids are evicted before their TTL is over: it is too small
    Critical,
}

/// The facts about a window.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Facts {
    /// publishes by verdict
    pub publishes: Publishes,
    /// ids that became seen because the upstream has acked them
    pub commits: u64,
    /// ids that became seen although it is unknown whether they were stored
    pub commits_in_doubt: u64,
    /// ids that became seen because the window's store says so: when the process started, or because another relay has stored them
    #[serde(default)]
    pub recovered: u64,
    /// waiting publishes that were forwarded because the first one was not stored
    pub promoted: u64,
    /// waiting publishes that were forwarded because the outcome of the first one did not come in time
    pub takeovers: u64,
    /// publishes that were nacked because they could not wait, or not any longer
    pub refused: u64,
    /// publishes of a known id whose body is not the one that was stored: somebody uses ids twice. Each is one of the duplicates
    #[serde(default)]
    pub conflicts: u64,
    /// publishes of a known id that were forwarded because their body was too large to hold until it could be compared
    #[serde(default)]
    pub uncompared: u64,
    /// duplicates by what their publisher was told, in a window that tells it more than an ack
    #[serde(default)]
    pub told: BTreeMap<String, u64>,
    /// what happened to numbers; absent unless the window's id is `sequence`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequences: Option<Sequences>,
    /// reservations given up, by cause
    pub forgotten: BTreeMap<String, u64>,
    /// seen ids removed, by cause
    pub evictions: BTreeMap<String, u64>,
    /// duplicates that got through because their id was evicted early: those that were counted
    pub escaped_duplicates: u64,
    /// about how many duplicates got through so: `escaped_duplicates`, and an estimate of those that could not be watched
    #[serde(default)]
    pub escaped_duplicates_about: u64,
    /// publishes without an id, lately
    #[serde(default)]
    pub missing_ids: MissingIds,
    /// the ids that are watched for escaping duplicates
    pub ghost: GhostFacts,
    /// ids remembered, including expired ones that were not swept yet; absent if the window can't know
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// tenants that have ids; absent unless the capacity is divided among tenants (`quota`)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<u64>,
    /// ids of the tenant that has the most; absent unless there are tenants
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_tenant_entries: Option<u64>,
    /// ids whose outcome is not known yet; absent if the window can't know
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    /// ids that can be remembered; absent if the window has no bound of its own
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// how long an id is remembered, unless its message sets a TTL of its own
    pub ttl_seconds: f64,
    /// memory that the window and its accounting take
    pub bytes: u64,
    /// memory of the remembered ids: the part of `bytes` that grows with them
    #[serde(default)]
    pub store_bytes: u64,
    /// memory per remembered id: `store_bytes` / `entries`; the engine's own figure while the window is nearly empty
    pub bytes_per_id: f64,
    /// rates of the last seconds
    pub rates: Rates,
    /// share of the judged publishes that were duplicates, since the start; null before the first one
    pub hit_ratio: Option<f64>,
    /// different ids published in the last whole interval
    pub distinct: Distinct,
    /// how old ids were when they were evicted early
    pub age_at_eviction: Ages,
    /// age of the oldest id; null unless the window is full
    pub oldest_seconds: Option<f64>,
    /// fresh ids per second × TTL / capacity: above 1, ids are forgotten early; absent without a capacity
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<f64>,
    /// how long an id is really remembered now; for a window that is younger than its TTL, no longer than its age
    pub effective_seconds: f64,
    /// effective window / TTL, at most 1
    pub coverage: f64,
    /// how long it takes until the window is as old as its TTL; 0 if it is. Until then, duplicates of what was published
    /// before it began get through and are not counted
    #[serde(default)]
    pub warming_seconds: f64,
    /// new ids that arrived within the last TTL
    #[serde(default)]
    pub arrived: u64,
    /// ids that the window should have room for; null before there was a TTL of traffic
    pub recommended_capacity: Option<u64>,
    /// for what share of a TTL the traffic was seen so far, at most 1; the recommendation begins at 1
    #[serde(default)]
    pub recommended_from: f64,
    /// what keeps the recommendation below what the traffic needs; null if nothing does
    #[serde(default)]
    pub recommended_bound: Option<Bound>,
    /// memory that a full window of the recommended capacity would take at most
    pub recommended_bytes: Option<u64>,
    /// the level of eviction pressure
    pub level: Level,
    /// the changes of level, the newest last
    pub level_history: Vec<LevelChange>,
    /// where the fresh ids come from: the largest scopes first, at most ten
    pub top_scopes: Vec<TopScope>,
    /// the share of duplicates that other capacities would catch
    pub what_if: WhatIf,
    /// where the window remembers beside its memory; absent if it is nowhere
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
}

impl Facts {
    /// Returns the share of its capacity that the window has filled, or `None` if it has no capacity.
    pub fn full(&self) -> Option<f64> {
        Some(self.entries? as f64 / self.capacity?.max(1) as f64)
    }
}

/// The numbers of a window with `id = "sequence"` that were not simply fresh or duplicates, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Sequences {
    /// refused because their producer has begun a higher epoch
    pub stale: u64,
    /// refused because lower numbers of their producer were never published (`on_gap = "reject"`)
    pub gaps_refused: u64,
    /// forwarded although lower numbers of their producer were never published
    pub gaps: u64,
    /// forwarded although they are lower than the numbers that are known one by one: they are not known to be stored
    pub below: u64,
}

/// The store of a window: what keeps its ids outside of the process.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Store {
    /// `disk`, `stream` or `redis`
    pub kind: String,
    /// when a client is acked: after its id is in the store (`sync`), or before (`async`)
    #[schema(value_type = String, example = "sync")]
    pub remember: Remember,
    /// with `async`, how long an acked id may be on its way to the store
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remember_delay_seconds: Option<f64>,
    /// what the window does while the store is down: `continue` or `refuse`
    #[schema(value_type = String, example = "continue")]
    pub on_outage: OnOutage,
    /// true if the store works
    pub up: bool,
    /// for how long it has been down; absent if it works
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_seconds: Option<f64>,
    /// true while the window reads what stood in the store when this process started
    pub recovering: bool,
    /// records on their way to the store
    pub waiting_records: u64,
    /// how old the oldest of them is; 0 if there are none
    pub lag_seconds: f64,
    /// stored messages whose clients are not acked yet, because the store does not have their ids
    pub waiting_commits: u64,
    /// publishes that are not judged yet, because the store is down (`refuse`)
    pub waiting_publishes: u64,
    /// ids whose clients were acked although the store did not have them, because it was down
    pub unremembered: u64,
    /// records that the store will never get, because too many were waiting
    pub dropped_records: u64,
    /// ids that came from the store when this process started
    pub recovered: u64,
    /// ids that other relays have stored since then
    pub merged: u64,
    /// ids that this relay and another one have both let through, because neither knew of the other yet
    pub crossed: u64,
    /// batches of records that could not be read
    pub damaged_batches: u64,
    /// how much room the window takes in the store
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// how old the oldest thing is that the store remembers
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_seconds: Option<f64>,
    /// how far this relay is behind what the other relays have written
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_seconds: Option<f64>,
    /// how long the store took for its last answer
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_seconds: Option<f64>,
    /// how often the connection to the store was opened again
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnects: Option<u64>,
    /// keys that the store has thrown out for want of memory: duplicates of them pass
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evicted_keys: Option<u64>,
    /// memory that the store uses, for everything in it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// memory that the store may use; absent if it has no bound
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_max_bytes: Option<u64>,
}

impl Store {
    /// Returns what is known of a store, as it is shown.
    pub(super) fn new(facts: &StoreFacts, now: Instant) -> Store {
        let StoreFacts { policy, at_store, .. } = facts;
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs_f64());
        let is_async = policy.remember == Remember::Async;
        Store {
            kind: facts.kind.to_owned(),
            remember: policy.remember,
            remember_delay_seconds: is_async.then_some(policy.delay.as_secs_f64()),
            on_outage: policy.on_outage,
            up: facts.down_since.is_none(),
            down_seconds: seconds(facts.down_since.map(|since| now.saturating_duration_since(since))),
            recovering: facts.recovering,
            waiting_records: facts.waiting,
            lag_seconds: seconds(facts.lag).unwrap_or_default(),
            waiting_commits: facts.waiting_commits,
            waiting_publishes: facts.waiting_publishes,
            unremembered: facts.unremembered,
            dropped_records: facts.dropped,
            recovered: facts.recovered,
            merged: facts.merged,
            crossed: facts.crossed,
            damaged_batches: facts.damaged,
            bytes: at_store.bytes,
            oldest_seconds: seconds(at_store.oldest),
            behind_seconds: seconds(at_store.behind),
            latency_seconds: seconds(at_store.latency),
            reconnects: at_store.reconnects,
            evicted_keys: at_store.evicted_keys,
            memory_bytes: at_store.used_memory,
            memory_max_bytes: at_store.max_memory.filter(|most| *most > 0),
        }
    }
}

/// Why no larger capacity is recommended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// the memory that the process may use
    Memory,
    /// the most ids that a window can have
    Maximum,
}

/// The publishes without an id of the last one to two minutes. Nothing is known about their duplicates.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct MissingIds {
    /// their share of all publishes that were asked for an id; null without any
    pub share: Option<f64>,
    /// how many there were
    pub publishes: u64,
    /// which headers and properties they carry instead, from a sample: the most frequent ones first, at most five
    pub headers: Vec<HeaderShare>,
}

/// A header or property of publishes without an id.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HeaderShare {
    /// its name as the publisher wrote it, cut off after 64 bytes; properties have AMQP's names
    pub name: String,
    /// the share of the publishes without an id that carry it
    pub share: f64,
}

/// Publishes since the start, by verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Publishes {
    /// forwarded because the window said so
    pub fresh: u64,
    /// dropped (or forwarded, in mode observe)
    pub duplicate: u64,
    /// had to wait; each is counted again by its final verdict
    pub in_flight: u64,
    /// forwarded because a consumer has published its own message again
    #[serde(default)]
    pub republished: u64,
    /// without an id
    pub no_id: u64,
    /// asked not to be judged
    pub bypassed: u64,
}

/// The keys that were evicted early and are watched until their TTL is over.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct GhostFacts {
    /// keys that are watched, including expired ones that were not removed yet
    pub keys: u64,
    /// the most keys that can be watched
    pub capacity: u64,
    /// keys that found no room; what they let through is only estimated
    pub dropped: u64,
    /// the share of the keys that is watched now: 1, unless there are more than there is room for
    #[serde(default)]
    pub watched: f64,
    /// memory that the watched keys take; included in the window's `bytes`
    #[serde(default)]
    pub bytes: u64,
    /// bits of memory per key
    pub bits_per_key: u32,
    /// the largest share of fresh publishes that may count as escaped duplicates by mistake
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

/// An estimate of the number of different ids.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Distinct {
    /// different ids
    pub ids: u64,
    /// length of the interval, in seconds
    pub seconds: f64,
    /// relative standard error of the estimate
    pub standard_error: f64,
}

/// Ages at early eviction.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Ages {
    /// 99 % of the ids evicted lately were at least this old
    pub p1_seconds: Option<f64>,
    /// half of the ids evicted lately were at least this old
    pub p50_seconds: Option<f64>,
    /// sum of all ages since the start
    pub sum_seconds: f64,
    /// early evictions since the start, by age
    pub buckets: Vec<AgeBucket>,
}

/// One bucket of a histogram. Buckets are not cumulative.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct AgeBucket {
    /// upper bound, in seconds; null in the last bucket, which has none
    pub le: Option<f64>,
    /// evictions
    pub count: u64,
}

/// A change of level.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LevelChange {
    /// how many seconds ago it changed
    pub ago_seconds: f64,
    /// the new level
    pub level: Level,
}

/// A scope from which fresh ids come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct TopScope {
    /// vhost
    pub vhost: String,
    /// exchange that the publisher names
    pub exchange: String,
    /// routing key
    pub routing_key: String,
    /// fresh ids of the last minutes: an estimate that may be too high by `error`
    pub fresh: u64,
    /// by how much `fresh` may be too high
    pub error: u64,
}

/// The curve of caught duplicates over capacity, estimated from a sample of the traffic.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct WhatIf {
    /// share of the ids that are sampled
    pub sample_rate: f64,
    /// publishes that were sampled
    pub sampled: u64,
    /// memory of the sampling; included in the window's `bytes`, but not in its `bytes_per_id`
    pub bytes: u64,
    /// by capacity, the smallest first
    pub points: Vec<WhatIfPoint>,
}

/// A point of the curve: what a capacity would have caught.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, ToSchema)]
pub struct WhatIfPoint {
    /// this capacity as a multiple of the present one
    pub factor: f64,
    /// ids
    pub capacity: u64,
    /// share of the publishes that would have been caught as duplicates
    pub caught: f64,
    /// memory that this capacity would take
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fact that a kind of window can't know is left out, not shown as zero.
    #[test]
    fn facts_that_are_not_known_are_absent() {
        let keys = ["entries", "in_flight", "capacity", "pressure", "store"];
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
            store: Some(Store::default()),
            ..Facts::default()
        };
        assert_eq!((has(&nothing), has(&all)), ([false; 5], [true; 5]));
        let text = serde_json::to_string(&nothing).unwrap();
        assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), nothing);
        assert_eq!(
            (nothing.full(), Facts { entries: Some(1), capacity: Some(4), ..nothing.clone() }.full()),
            (None, Some(0.25))
        );
    }
}
