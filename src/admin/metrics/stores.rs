//! Says which fact of a window's store is which metric, in tables as in [`super::windows`]. A window in memory has none of them, and a
//! store has those that it can know.

use super::windows::{Metric, NamedFacts, count, gauge, metric};
use hapax_core::pressure::facts::Store;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use std::fmt;

type Counted = Metric<Store, Option<u64>>;

const COUNTERS: [Counted; 8] = [
    metric(
        "unremembered",
        "Ids whose clients were acked although the store did not have them, because it was down. A crash before the store has caught up forgets them.",
        |s| Some(s.unremembered),
    ),
    metric(
        "store_dropped",
        "Records that the store will never get, because it was down and too many were waiting.",
        |s| Some(s.dropped_records),
    ),
    metric("recovered", "Ids that came from the store when this process started.", |s| Some(s.recovered)),
    metric("merged", "Ids that other relays have stored since this process started.", |s| Some(s.merged)),
    metric(
        "crossed",
        "Ids that this relay and another one have both let through, because neither knew of the other yet: duplicates.",
        |s| Some(s.crossed),
    ),
    metric(
        "store_damaged",
        "Batches of records that could not be read: they are damaged, or were not written by Hapax.",
        |s| Some(s.damaged_batches),
    ),
    metric("store_reconnects", "How often the connection to the store was opened again.", |s| s.reconnects),
    metric(
        "store_evicted_keys",
        "Keys that the store has thrown out for want of memory, of everything in it. Duplicates of them pass.",
        |s| s.evicted_keys,
    ),
];

const WHOLE: [Counted; 6] = [
    metric(
        "store_recovering",
        "Whether the window still reads what stood in the store when this process started: 1 or 0.",
        |s| Some(u64::from(s.recovering)),
    ),
    metric("store_waiting_records", "Records on their way to the store.", |s| Some(s.waiting_records)),
    metric("store_waiting_publishes", "Publishes that are not judged yet, because the store is down.", |s| {
        Some(s.waiting_publishes)
    }),
    metric("store_bytes", "Room that the window takes in the store, in bytes.", |s| s.bytes),
    metric("store_memory_bytes", "Memory that the store uses for everything in it, in bytes.", |s| {
        s.memory_bytes
    }),
    metric(
        "store_memory_max_bytes",
        "Memory that the store may use, in bytes; absent if it has no bound.",
        |s| s.memory_max_bytes,
    ),
];

const REAL: [Metric<Store, Option<f64>>; 4] = [
    metric(
        "store_lag_seconds",
        "Age of the oldest record on its way to the store, in seconds; 0 if there is none.",
        |s| Some(s.lag_seconds),
    ),
    metric(
        "store_behind_seconds",
        "How far this relay is behind what the other relays have written, in seconds.",
        |s| s.behind_seconds,
    ),
    metric("store_latency_seconds", "How long the store took for its last answer, in seconds.", |s| {
        s.latency_seconds
    }),
    metric("store_oldest_seconds", "Age of the oldest thing that the store remembers, in seconds.", |s| {
        s.oldest_seconds
    }),
];

/// Writes all metrics of stores.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, windows: &[NamedFacts]) -> fmt::Result {
    let up = "Whether the window's store works: 1 or 0.";
    let mut family = encoder.encode_descriptor("store_up", up, None, MetricType::Gauge)?;
    for (name, store) in stores(windows) {
        let labels = [("window", name), ("store", &store.kind)];
        family.encode_family(&labels)?.encode_gauge(&u32::from(store.up))?;
    }
    for Metric { name, help, value } in COUNTERS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (name, store) in stores(windows) {
            if let Some(value) = value(store) {
                count(&mut family, &[("window", name)], value)?;
            }
        }
    }
    WHOLE.iter().try_for_each(|metric| gauge(encoder, stores(windows), metric))?;
    REAL.iter().try_for_each(|metric| gauge(encoder, stores(windows), metric))
}

fn stores(windows: &[NamedFacts]) -> impl Iterator<Item = (&str, &Store)> {
    windows.iter().filter_map(|window| Some((&*window.name, window.facts.store.as_ref()?)))
}
