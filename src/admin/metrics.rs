//! Counters as OpenMetrics text, made when somebody scrapes: what counts has only atomics, and no registry to ask.
//!
//! `prometheus-client` appends `_total` to counters and `_info` to infos: the names here are without. The prefix
//! `hapax_` comes from the registry.

use crate::pressure::Watched;
use crate::stats::{Snapshot, Stats};
use crate::window::{EvictionCause, ForgetCause, Window};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;

/// A registry that asks these.
pub(super) fn registry(windows: Arc<[Watched]>, stats: Arc<Stats>) -> Registry {
    let mut registry = Registry::with_prefix("hapax");
    registry.register_collector(Box::new(Numbers { windows, stats }));
    registry
}

#[derive(Debug)]
struct Numbers {
    windows: Arc<[Watched]>,
    stats: Arc<Stats>,
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.stats.snapshot();
        self.publishes(&mut encoder, &stats)?;
        self.outcomes(&mut encoder)?;
        self.evictions(&mut encoder)?;
        self.gauges(&mut encoder)?;
        process(&mut encoder, &stats)
    }
}

impl Numbers {
    /// One family with a value per window.
    fn per_window(
        &self,
        mut family: MetricEncoder<'_>,
        mut encode: impl FnMut(&mut MetricEncoder<'_>, &Watched, &str) -> fmt::Result,
    ) -> fmt::Result {
        self.windows.iter().try_for_each(|watched| encode(&mut family, watched, &watched.window.rules().name))
    }

    fn publishes(&self, encoder: &mut DescriptorEncoder<'_>, stats: &Snapshot) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "publishes",
            "Publishes by verdict. One that had to wait in flight is counted again by its final verdict.",
            None,
            MetricType::Counter,
        )?;
        let unmatched = [("window", ""), ("verdict", "unmatched")];
        ConstCounter::new(stats.unmatched).encode(family.encode_family(&unmatched)?)?;
        self.per_window(family, |family, Watched { accounting, .. }, name| {
            let verdicts = [
                ("fresh", accounting.fresh()),
                ("duplicate", accounting.duplicate()),
                ("in_flight", accounting.in_flight()),
                ("no_id", accounting.no_id()),
                ("bypassed", accounting.bypassed()),
            ];
            verdicts.iter().try_for_each(|(verdict, value)| {
                count(family, &[("window", name), ("verdict", verdict)], *value)
            })
        })
    }

    fn outcomes(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let commits =
            counter(encoder, "commits", "Ids that became seen because the broker acked their publish.")?;
        self.per_window(commits, |family, watched, name| {
            count(family, &[("window", name)], watched.accounting.committed())
        })?;
        let forgotten =
            counter(encoder, "forgotten", "Reservations given up, by cause: a retry of the id will pass.")?;
        self.per_window(forgotten, |family, watched, name| {
            ForgetCause::ALL.iter().try_for_each(|cause| {
                let labels = [("window", name), ("cause", cause.name())];
                count(family, &labels, watched.accounting.forgotten(*cause))
            })
        })?;
        let in_doubt = counter(
            encoder,
            "in_doubt",
            "Publishes whose outcome nobody knows, because the upstream connection broke; forgotten (a duplicate is possible) or kept (a loss is).",
        )?;
        self.per_window(in_doubt, |family, Watched { accounting, .. }, name| {
            let forgotten = accounting.forgotten(ForgetCause::InDoubt);
            count(family, &[("window", name), ("outcome", "forgotten")], forgotten)?;
            count(family, &[("window", name), ("outcome", "kept")], accounting.committed_in_doubt())
        })?;
        let promoted =
            counter(encoder, "promoted", "Waiters that took the place of a first that was not stored.")?;
        self.per_window(promoted, |family, watched, name| {
            count(family, &[("window", name)], watched.accounting.promoted())
        })?;
        let refused = counter(
            encoder,
            "refused",
            "Publishes nacked because waiters per id or held bytes are at their bound.",
        )?;
        self.per_window(refused, |family, watched, name| {
            count(family, &[("window", name)], watched.accounting.refused())
        })
    }

    fn evictions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let evictions = counter(
            encoder,
            "evictions",
            "Seen ids removed, by cause. Those by capacity and resize went before their TTL was over.",
        )?;
        self.per_window(evictions, |family, watched, name| {
            EvictionCause::ALL.iter().try_for_each(|cause| {
                let labels = [("window", name), ("cause", cause.name())];
                count(family, &labels, watched.accounting.evicted(*cause))
            })
        })
    }

    fn gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let entries = "Ids remembered; expired ones that were not swept yet included.";
        self.gauge(encoder, "window_entries", entries, |w| w.window.len())?;
        self.gauge(encoder, "window_in_flight", "Ids whose outcome is not known yet.", |w| {
            w.window.in_flight()
        })?;
        self.gauge(encoder, "window_capacity", "Ids that can be remembered.", |w| w.window.capacity())?;
        let bytes = "Memory that the window takes, estimated, in bytes.";
        self.gauge(encoder, "window_bytes", bytes, |w| w.window.bytes())?;
        let ttl = "How long an id is remembered, in seconds, unless its message says otherwise.";
        self.gauge(encoder, "window_ttl_seconds", ttl, |w| w.window.ttl().as_secs_f64())
    }

    /// A gauge with a value per window.
    fn gauge<V: EncodeGaugeValue>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&Watched) -> V,
    ) -> fmt::Result {
        let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        self.per_window(family, |family, watched, name| {
            family.encode_family(&[("window", name)])?.encode_gauge(&value(watched))
        })
    }
}

/// What belongs to no window.
fn process(encoder: &mut DescriptorEncoder<'_>, stats: &Snapshot) -> fmt::Result {
    let connections = encoder.encode_descriptor(
        "connections",
        "Client connections that are open.",
        None,
        MetricType::Gauge,
    )?;
    ConstGauge::new(stats.connections).encode(connections)?;
    let plain = [
        ("connections_accepted", "Client connections accepted.", stats.accepted),
        (
            "connections_rejected",
            "Client connections turned away, because limits.max_connections are open.",
            stats.rejected,
        ),
        ("upstream_dial_failures", "Failed attempts to connect to the upstream.", stats.dial_failures),
    ];
    for (name, help, value) in plain {
        ConstCounter::new(value).encode(counter(encoder, name, help)?)?;
    }
    let latency = &stats.latency;
    let no_labels: Option<&std::collections::HashMap<usize, _>> = None;
    encoder
        .encode_descriptor(
            "publish_latency_seconds",
            "From a publish's arrival to its answer by the upstream, in seconds.",
            None,
            MetricType::Histogram,
        )?
        .encode_histogram::<[(&str, &str); 0]>(latency.sum, latency.count, &latency.buckets, no_labels)?;
    encoder
        .encode_descriptor("build", "What is running.", None, MetricType::Info)?
        .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
}

fn counter<'s>(
    encoder: &'s mut DescriptorEncoder<'_>,
    name: &'s str,
    help: &str,
) -> Result<MetricEncoder<'s>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

fn count<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); N],
    value: u64,
) -> fmt::Result {
    ConstCounter::new(value).encode(family.encode_family(labels)?)
}
