//! Says which of a window's [`Facts`] is which metric, in tables: a name, its help with the unit, and where the number
//! is. A histogram, or a metric with one more label beside `window`, has no row but a function of its own.
//!
//! Rates are left out, because Prometheus computes better ones from the counters. Scopes are left out, because a
//! routing key must not be a label.

use super::histogram;
use hapax_core::pressure::{Facts, Level};
use hapax_core::window::Mode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;

/// A window's facts at the moment of a scrape.
pub(super) struct NamedFacts {
    pub(super) name: Arc<str>,
    pub(super) mode: Mode,
    /// it judges what consumers are sent
    pub(super) is_guard: bool,
    pub(super) facts: Facts,
}

/// A metric with one value per window, or with none for a window to which it does not apply. The value is one of these facts.
pub(super) struct Metric<F, V> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) value: fn(&F) -> V,
}

pub(super) const fn metric<F, V>(name: &'static str, help: &'static str, value: fn(&F) -> V) -> Metric<F, V> {
    Metric { name, help, value }
}

const COUNTERS: [Metric<Facts, u64>; 9] = [
    metric("commits", "Ids that became seen because the broker acked their publish.", |f| f.commits),
    metric(
        "promoted",
        "Waiting publishes that were forwarded because the one before them was not stored.",
        |f| f.promoted,
    ),
    metric(
        "takeovers",
        "Waiting publishes that were forwarded because the outcome of the one before them did not come in time.",
        |f| f.takeovers,
    ),
    metric(
        "refused",
        "Publishes nacked because waiters_per_id or held_bytes was reached, or because they waited for timeouts.in_flight.",
        |f| f.refused,
    ),
    metric(
        "conflicts",
        "Publishes of a known id whose body is not the one that was stored under it. Each is counted as a duplicate, too.",
        |f| f.conflicts,
    ),
    metric(
        "uncompared",
        "Publishes of a known id that were forwarded because their body was too large to hold until it could be compared.",
        |f| f.uncompared,
    ),
    metric(
        "escaped_duplicates",
        "Duplicates that got through because their id was evicted before its TTL was over: those that were counted. A few are counted by mistake, see hapax_ghost_false_positive_ratio.",
        |f| f.escaped_duplicates,
    ),
    metric(
        "escaped_duplicates_estimate",
        "About how many duplicates got through so: those that were counted, and an estimate of those whose ids could not be watched.",
        |f| f.escaped_duplicates_about,
    ),
    metric(
        "ghost_dropped",
        "Ids evicted early that could not be watched for lack of room. Their escaping duplicates are only estimated.",
        |f| f.ghost.dropped,
    ),
];

/// Those of a window with `id = "sequence"`; absent from any other.
const OF_SEQUENCES: [Metric<Facts, Option<u64>>; 4] = [
    metric(
        "sequence_zombies",
        "Publishes refused because their producer has begun a higher epoch: another process has taken its place.",
        |f| f.sequences.map(|s| s.stale),
    ),
    metric(
        "sequence_gaps",
        "Publishes forwarded although lower numbers of their producer were never published.",
        |f| f.sequences.map(|s| s.gaps),
    ),
    metric(
        "sequence_gaps_refused",
        "Publishes refused because lower numbers of their producer were never published (on_gap = \"reject\").",
        |f| f.sequences.map(|s| s.gaps_refused),
    ),
    metric(
        "sequence_below_places",
        "Publishes forwarded although their number is lower than those that are known one by one, because it is not known to be stored.",
        |f| f.sequences.map(|s| s.below),
    ),
];

const WHOLE: [Metric<Facts, Option<u64>>; 14] = [
    metric("window_entries", "Ids remembered, including expired ones that were not swept yet.", |f| {
        f.entries
    }),
    metric("window_tenants", "Tenants that have ids in the window; absent without a quota.", |f| f.tenants),
    metric(
        "window_largest_tenant_entries",
        "Ids of the tenant that has the most; absent without a quota.",
        |f| f.largest_tenant_entries,
    ),
    metric("window_in_flight", "Ids whose outcome is not known yet.", |f| f.in_flight),
    metric("window_capacity", "Ids that can be remembered.", |f| f.capacity),
    metric("window_bytes", "Memory that the window and its accounting take, in bytes.", |f| Some(f.bytes)),
    metric("window_store_bytes", "Memory that the remembered ids take: a part of hapax_window_bytes.", |f| {
        Some(f.store_bytes)
    }),
    metric(
        "window_recommended_capacity",
        "Ids that the window should have room for; absent before there was a TTL of traffic.",
        |f| f.recommended_capacity,
    ),
    metric(
        "window_recommended_bytes",
        "Memory that a full window of the recommended capacity would take, in bytes; absent before there was a TTL of traffic.",
        |f| f.recommended_bytes,
    ),
    metric("window_level", "Level of eviction pressure: 0 ok, 1 high, 2 critical.", |f| Some(level(f.level))),
    metric(
        "window_distinct_ids",
        "Estimated number of different ids published in the last whole interval.",
        |f| Some(f.distinct.ids),
    ),
    metric("ghost_keys", "Ids evicted early that are watched for escaping duplicates.", |f| {
        Some(f.ghost.keys)
    }),
    metric("ghost_capacity", "Ids evicted early that can be watched.", |f| Some(f.ghost.capacity)),
    metric("ghost_bytes", "Memory that the watched ids take: a part of hapax_window_bytes.", |f| {
        Some(f.ghost.bytes)
    }),
];

const REAL: [Metric<Facts, Option<f64>>; 11] = [
    metric("window_bytes_per_id", "Memory that one remembered id takes, in bytes.", |f| Some(f.bytes_per_id)),
    metric(
        "window_ttl_seconds",
        "How long an id is remembered, in seconds, unless its message sets a TTL of its own.",
        |f| Some(f.ttl_seconds),
    ),
    metric(
        "window_pressure",
        "Fresh ids per second x TTL / capacity: above 1, ids are forgotten early.",
        |f| f.pressure,
    ),
    metric("window_effective_seconds", "How long an id is really remembered now, in seconds.", |f| {
        Some(f.effective_seconds)
    }),
    metric(
        "window_warming_seconds",
        "How long it takes until the window is as old as its TTL, in seconds; 0 if it is. Until then, duplicates of what was published before get through uncounted.",
        |f| Some(f.warming_seconds),
    ),
    metric(
        "window_missing_id_ratio",
        "Share of the publishes of the last one to two minutes that carried no id; absent without any.",
        |f| f.missing_ids.share,
    ),
    metric("window_coverage", "Effective window / TTL, at most 1: below it, ids are forgotten early.", |f| {
        Some(f.coverage)
    }),
    metric(
        "window_oldest_seconds",
        "Age of the oldest id, in seconds; absent unless the window is full.",
        |f| f.oldest_seconds,
    ),
    metric(
        "window_hit_ratio",
        "Share of the judged publishes that were duplicates, since the start; absent before the first one.",
        |f| f.hit_ratio,
    ),
    metric(
        "window_distinct_interval_seconds",
        "Length of the interval of hapax_window_distinct_ids, in seconds.",
        |f| Some(f.distinct.seconds),
    ),
    metric(
        "ghost_false_positive_ratio",
        "Largest share of fresh publishes that may count as escaped duplicates by mistake.",
        |f| Some(f.ghost.false_positive_rate),
    ),
];

fn level(level: Level) -> u64 {
    match level {
        // These two have metrics of their own.
        Level::Ok | Level::Warming | Level::Blind => 0,
        Level::High => 1,
        Level::Critical => 2,
    }
}

/// Writes all metrics of windows. `unmatched` counts the publishes that belong to no window.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    windows: &[NamedFacts],
    unmatched: u64,
) -> fmt::Result {
    publishes(encoder, windows, unmatched)?;
    guarded(encoder, windows)?;
    outcomes(encoder, windows)?;
    for Metric { name, help, value } in COUNTERS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for window in windows {
            count(&mut family, &[("window", &*window.name)], value(&window.facts))?;
        }
    }
    for Metric { name, help, value } in OF_SEQUENCES {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for window in windows {
            if let Some(value) = value(&window.facts) {
                count(&mut family, &[("window", &*window.name)], value)?;
            }
        }
    }
    let all = || windows.iter().map(|window| (&*window.name, &window.facts));
    WHOLE.iter().try_for_each(|metric| gauge(encoder, all(), metric))?;
    REAL.iter().try_for_each(|metric| gauge(encoder, all(), metric))?;
    modes(encoder, windows)?;
    ages(encoder, windows)?;
    super::stores::encode(encoder, windows)
}

/// Writes the mode of each window: a series for each mode, which is 1 for the one that holds.
fn modes(encoder: &mut DescriptorEncoder<'_>, windows: &[NamedFacts]) -> fmt::Result {
    let help = "1 for the mode that the window has now, 0 for the others.";
    let mut family = encoder.encode_descriptor("window_mode", help, None, MetricType::Gauge)?;
    for window in windows {
        for mode in [Mode::Enforce, Mode::Observe, Mode::Off] {
            let labels = [("window", &*window.name), ("mode", mode.name())];
            ConstGauge::new(u64::from(window.mode == mode)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn publishes(encoder: &mut DescriptorEncoder<'_>, windows: &[NamedFacts], unmatched: u64) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "publishes",
        "Publishes by verdict. A publish that waited in flight is counted again by its final verdict.",
        None,
        MetricType::Counter,
    )?;
    count(&mut family, &[("window", ""), ("verdict", "unmatched")], unmatched)?;
    for NamedFacts { name, facts, .. } in windows.iter().filter(|window| !window.is_guard) {
        let publishes = &facts.publishes;
        for (verdict, value) in [
            ("fresh", publishes.fresh),
            ("duplicate", publishes.duplicate),
            ("in_flight", publishes.in_flight),
            ("republished", publishes.republished),
            ("no_id", publishes.no_id),
            ("bypassed", publishes.bypassed),
        ] {
            count(&mut family, &[("window", name), ("verdict", verdict)], value)?;
        }
    }
    Ok(())
}

fn guarded(encoder: &mut DescriptorEncoder<'_>, windows: &[NamedFacts]) -> fmt::Result {
    let help = "Deliveries from queues with a guard, by what became of them. One that waited is counted again when it is shown or hidden.";
    let mut family = encoder.encode_descriptor("guard_deliveries", help, None, MetricType::Counter)?;
    for NamedFacts { name, facts, .. } in windows.iter().filter(|window| window.is_guard) {
        let deliveries = &facts.publishes;
        for (verdict, value) in [
            ("shown", deliveries.fresh),
            ("hidden", deliveries.duplicate),
            ("waited", deliveries.in_flight),
            ("no_id", deliveries.no_id),
            ("bypassed", deliveries.bypassed),
        ] {
            count(&mut family, &[("window", name), ("verdict", verdict)], value)?;
        }
    }
    Ok(())
}

fn outcomes(encoder: &mut DescriptorEncoder<'_>, windows: &[NamedFacts]) -> fmt::Result {
    let forgotten = "Ids forgotten instead of stored, by cause. A retry of such an id passes.";
    let mut family = encoder.encode_descriptor("forgotten", forgotten, None, MetricType::Counter)?;
    for NamedFacts { name, facts, .. } in windows {
        for (cause, value) in &facts.forgotten {
            count(&mut family, &[("window", name), ("cause", cause)], *value)?;
        }
    }
    let told = "Duplicates by what their publisher was told, in a window whose on_duplicate is not ack: nack, return, return_without_body (there was no room for the body), nothing (a nack can't be said without confirms, or there was no room in a transaction).";
    let mut family = encoder.encode_descriptor("duplicates_told", told, None, MetricType::Counter)?;
    for NamedFacts { name, facts, .. } in windows {
        for (how, value) in &facts.told {
            count(&mut family, &[("window", name), ("how", how)], *value)?;
        }
    }
    let evictions =
        "Seen ids removed, by cause. With the causes capacity and resize, the TTL was not over yet.";
    let mut family = encoder.encode_descriptor("evictions", evictions, None, MetricType::Counter)?;
    for NamedFacts { name, facts, .. } in windows {
        for (cause, value) in &facts.evictions {
            count(&mut family, &[("window", name), ("cause", cause)], *value)?;
        }
    }
    let in_doubt = "Publishes with an unknown outcome, because the upstream connection broke or the channel was closed. Their ids are forgotten (a duplicate is possible) or kept (a loss is possible).";
    let mut family = encoder.encode_descriptor("in_doubt", in_doubt, None, MetricType::Counter)?;
    for NamedFacts { name, facts, .. } in windows {
        let forgotten = facts.forgotten.get("in_doubt").copied().unwrap_or_default();
        count(&mut family, &[("window", name), ("outcome", "forgotten")], forgotten)?;
        count(&mut family, &[("window", name), ("outcome", "kept")], facts.commits_in_doubt)?;
    }
    Ok(())
}

/// Writes the histogram of the ages at which ids were evicted early.
fn ages(encoder: &mut DescriptorEncoder<'_>, windows: &[NamedFacts]) -> fmt::Result {
    let help = "Age of ids when they were evicted before their TTL was over, in seconds.";
    let mut family = encoder.encode_descriptor("eviction_age_seconds", help, None, MetricType::Histogram)?;
    for NamedFacts { name, facts, .. } in windows {
        let ages = &facts.age_at_eviction;
        let bound = |le: Option<f64>| le.unwrap_or(f64::INFINITY);
        let mut buckets: Vec<(f64, u64)> =
            ages.buckets.iter().map(|bucket| (bound(bucket.le), bucket.count)).collect();
        // A histogram must end with its infinite bucket, even if nothing has fallen into it.
        if buckets.last().is_none_or(|(le, _)| le.is_finite()) {
            buckets.push((f64::INFINITY, 0));
        }
        // Count from the buckets, so that the two never disagree.
        let count = buckets.iter().map(|(_, count)| count).sum();
        histogram(&mut family.encode_family(&[("window", &**name)])?, ages.sum_seconds, count, &buckets)?;
    }
    Ok(())
}

/// Writes a gauge with one value for each of these windows for which there is one.
pub(super) fn gauge<'w, F: 'w, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    windows: impl Iterator<Item = (&'w str, &'w F)>,
    metric: &Metric<F, Option<V>>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(metric.name, metric.help, None, MetricType::Gauge)?;
    for (name, facts) in windows {
        if let Some(value) = (metric.value)(facts) {
            family.encode_family(&[("window", name)])?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

pub(super) fn count<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); N],
    value: u64,
) -> fmt::Result {
    ConstCounter::new(value).encode(family.encode_family(labels)?)
}
