//! The metrics for Prometheus. They are made when Prometheus scrapes: the counting code uses only atomics and no
//! registry.
//!
//! A scrape asks each window once for its [`Facts`](hapax_core::pressure::Facts). [`windows`] and [`stores`] say which fact
//! is which metric, and [`mod@format`] which of the two text formats is written. Labels are the names of windows, the addresses of the broker's nodes, and fixed
//! lists of causes. An id or a routing key never becomes a label, so the configuration determines the number of
//! series.
//!
//! `prometheus-client` appends `_total` to counters and `_info` to infos, so the names here are written without. The
//! registry adds the prefix `hapax_`. By convention, the metrics of the process itself have no prefix.

mod chaos;
mod format;
mod signals;
mod stores;
mod tls;
mod upstreams;
mod windows;

pub(super) use format::Format;

use super::telemetry::Exports;
use crate::chaos::Chaos;
use crate::config::WindowConfig;
use crate::live::{LastReload, Running};
use crate::net::Upstreams;
use crate::process::Process;
use crate::signals::Signals;
use crate::stats::{Snapshot, Stats};
use crate::tls::Certificates;
use hapax_core::pressure::Watched;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;
use tokio::sync::watch;
use windows::NamedFacts;

/// All metrics of the process.
#[derive(Debug)]
pub(super) struct Metrics(Registry);

impl Metrics {
    /// Collects metrics from these sources.
    pub(super) fn new(
        running: Arc<Running>,
        stats: Arc<Stats>,
        upstreams: Arc<Upstreams>,
        certificates: Arc<Certificates>,
        draining: watch::Receiver<bool>,
        exports: Arc<Exports>,
        (signals, chaos): (Arc<Signals>, Arc<Chaos>),
    ) -> Metrics {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process::this()));
        registry.sub_registry_with_prefix("hapax").register_collector(Box::new(Relay {
            running,
            stats,
            upstreams,
            certificates,
            draining,
            exports,
            signals,
            chaos,
        }));
        Metrics(registry)
    }

    /// Returns all metrics as they are now.
    pub(super) fn text(&self, format: Format) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        Ok(match format {
            Format::OpenMetrics => text,
            Format::Classic => format::classic(&text),
        })
    }
}

/// The metrics that Hapax counts itself.
#[derive(Debug)]
struct Relay {
    running: Arc<Running>,
    stats: Arc<Stats>,
    upstreams: Arc<Upstreams>,
    certificates: Arc<Certificates>,
    draining: watch::Receiver<bool>,
    exports: Arc<Exports>,
    signals: Arc<Signals>,
    chaos: Arc<Chaos>,
}

impl Collector for Relay {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.stats.snapshot();
        let now = tokio::time::Instant::now().into_std();
        let in_force = self.running.now();
        let named = |(watched, configured): (&Watched, &Arc<WindowConfig>)| NamedFacts {
            name: watched.window.rules().name.clone(),
            mode: watched.window.mode(),
            is_guard: configured.is_guard(),
            facts: watched.facts(now),
        };
        let windows: Vec<NamedFacts> = in_force.windows.iter().zip(&in_force.configured).map(named).collect();
        windows::encode(&mut encoder, &windows, stats.unmatched)?;
        relay(&mut encoder, &stats)?;
        let help =
            "1 while the process drains: it takes no new connections, or will soon take none, and then ends.";
        gauge(&mut encoder, "draining", help, &u64::from(*self.draining.borrow()))?;
        signals::encode(&mut encoder, &self.signals)?;
        chaos::encode(&mut encoder, &self.chaos)?;
        telemetry(&mut encoder, &self.exports)?;
        reloads(&mut encoder, self.running.last_reload())?;
        tls::encode(&mut encoder, &stats, &self.certificates)?;
        upstreams::encode(&mut encoder, &self.upstreams.nodes(), stats.dial_failures)
    }
}

/// Writes what the exporter of OpenTelemetry has done.
fn telemetry(encoder: &mut DescriptorEncoder<'_>, exports: &Exports) -> fmt::Result {
    let help = "Spans that the collector has taken.";
    count(encoder, "telemetry_spans", help, exports.spans.load(Relaxed))?;
    let dropped = exports.queue.as_ref().map_or(0, |queue| queue.dropped_total());
    let help = "Spans that were dropped, because too many waited or the collector did not take them.";
    count(encoder, "telemetry_spans_dropped", help, dropped)?;
    let help = "Requests with metrics or spans that the collector did not take.";
    count(encoder, "telemetry_failures", help, exports.failures.load(Relaxed))
}

/// Writes how the last reload of the configuration ended. Prometheus calls its own so, too.
fn reloads(encoder: &mut DescriptorEncoder<'_>, last: LastReload) -> fmt::Result {
    let help = "1 if the last reload of the configuration was applied, 0 if it was refused.";
    gauge(encoder, "config_last_reload_successful", help, &u64::from(last.is_success))?;
    let at = last.succeeded_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let help = "When a configuration was put in force last, in seconds since 1970-01-01 UTC.";
    let name = "config_last_reload_success_timestamp_seconds";
    let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(at).encode(family)
}

/// Writes the metrics of client connections, and those that no single window owns.
fn relay(encoder: &mut DescriptorEncoder<'_>, stats: &Snapshot) -> fmt::Result {
    gauge(encoder, "connections", "Client connections that are open.", &stats.connections)?;
    count(encoder, "connections_accepted", "Client connections accepted.", stats.accepted)?;
    let rejected = "Client connections turned away, because limits.max_connections, limits.connections_per_address or limits.connections_per_user was reached.";
    count(encoder, "connections_rejected", rejected, stats.rejected)?;
    let lost = "Log lines that were lost, because nobody read the log or it could not be written.";
    count(encoder, "log_lines_lost", lost, crate::log::lost())?;
    let by_address = "Client connections turned away, because limits.connections_per_address was reached.";
    count(encoder, "connections_rejected_by_address", by_address, stats.rejected_by_address)?;
    let by_user = "Client connections turned away, because limits.connections_per_user was reached.";
    count(encoder, "connections_rejected_by_user", by_user, stats.rejected_by_user)?;
    let handshakes = "Client connections that have not logged in.";
    gauge(encoder, "handshakes", handshakes, &stats.handshakes)?;
    let displaced =
        "Client connections that had not logged in and were closed to make room for newer ones at a limit.";
    count(encoder, "connections_displaced", displaced, stats.displaced)?;
    let held = "Times that a client connection was not read from for a while, because its user or its vhost had published more than its rate.";
    count(encoder, "publish_rate_holds", held, stats.held_by_rate)?;
    let held = "Client connections that are not read from now, because their user or their vhost has published more than its rate.";
    gauge(encoder, "publish_rate_held_connections", held, &stats.held_now)?;
    let unread =
        "Client connections closed, because the client had more to say and did not read for timeouts.unread.";
    count(encoder, "connections_unread", unread, stats.unread)?;
    let deliveries =
        "Messages that the broker has sent to clients, for their consumers or in answer to basic.get.";
    count(encoder, "deliveries", deliveries, stats.deliveries)?;
    let refused = "Logins refused, because the user is one of loopback_users and the client is on another host, or because EXTERNAL was used where TLS ends in Hapax.";
    count(encoder, "logins_refused", refused, stats.logins_refused)?;
    gauge(
        encoder,
        "memory_bytes",
        "Memory that is held for client connections, in bytes.",
        &stats.memory.used,
    )?;
    let limit = "Memory that may be held for client connections, in bytes.";
    gauge(encoder, "memory_limit_bytes", limit, &stats.memory.limit)?;
    let paused = "Client connections that are not read from, because they hold more than their share while memory is short.";
    gauge(encoder, "memory_paused_connections", paused, &stats.memory.paused)?;
    let bad = "Publishes with a header whose value can't be understood.";
    let mut family = encoder.encode_descriptor("bad_headers", bad, None, MetricType::Counter)?;
    for (header, count) in stats.bad_headers {
        ConstCounter::new(count).encode(family.encode_family(&[("header", header)])?)?;
    }
    let unverified = "Publishes that were forwarded unjudged, because there was no channel to verify their users' rights on.";
    count(encoder, "unverified", unverified, stats.unverified)?;
    let latency = &stats.latency;
    encoder
        .encode_descriptor(
            "publish_latency_seconds",
            "Time from a publish's arrival to the upstream's answer, in seconds.",
            None,
            MetricType::Histogram,
        )
        .and_then(|mut family| histogram(&mut family, latency.sum, latency.count, &latency.buckets))?;
    encoder
        .encode_descriptor("build", "The version of Hapax that is running.", None, MetricType::Info)?
        .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
}

/// Writes a counter without labels.
fn count(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

/// Writes a gauge without labels.
fn gauge<V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &V,
) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)
}

/// Writes a histogram. The counts of `buckets` are not cumulative, and the last bucket's bound is infinite.
fn histogram(family: &mut MetricEncoder<'_>, sum: f64, count: u64, buckets: &[(f64, u64)]) -> fmt::Result {
    let no_exemplars: Option<&std::collections::HashMap<usize, _>> = None;
    family.encode_histogram::<[(&str, &str); 0]>(sum, count, buckets, no_exemplars)
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let Some(now) = self.now() else { return Ok(()) };
        let cpu = "User and system CPU time spent, in seconds.";
        ConstCounter::new(now.cpu_seconds).encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            cpu,
            None,
            MetricType::Counter,
        )?)?;
        let resident = "Resident memory, in bytes.";
        gauge(encoder, "process_resident_memory_bytes", resident, &now.resident_bytes)?;
        let virtual_ = "Virtual memory, in bytes.";
        gauge(encoder, "process_virtual_memory_bytes", virtual_, &now.virtual_bytes)?;
        if let Some(files) = now.open_files {
            gauge(encoder, "process_open_fds", "Open file descriptors.", &files)?;
        }
        if let Some(limit) = now.max_files {
            gauge(encoder, "process_max_fds", "File descriptors that may be open.", &limit)?;
        }
        let start = "When the process started, in seconds since 1970-01-01 UTC.";
        match self.started_at() {
            Some(at) => {
                let family = encoder.encode_descriptor(
                    "process_start_time_seconds",
                    start,
                    None,
                    MetricType::Gauge,
                )?;
                ConstGauge::new(at).encode(family)
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
