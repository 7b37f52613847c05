//! OpenTelemetry (`[telemetry]`): sends the metrics and the spans of judged publishes to a collector, as OTLP over HTTP or HTTPS with
//! protobuf.
//!
//! ```text
//! connections ── spans, bounded ──┐
//! /metrics, the same numbers ─────┴─ this task: encode, POST, forget the answer ── collector
//! ```
//!
//! A collector that is slow, dead or hostile holds nothing back: each request has [`PATIENCE`], of an answer only the status is read, and
//! what could not be delivered is counted and dropped.

mod openmetrics;
mod post;

use super::Admin;
use crate::config::Telemetry;
use crate::log::LogLimiter;
use crate::net::{Span, Spans};
use crate::tls;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, span::SpanKind};
use post::post;
use prost::Message;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// How long a request to the collector may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Spans in a request.
const BATCH: usize = 512;
/// How long a span may wait for others.
const GATHER: Duration = Duration::from_secs(1);

/// The counters of the exporter.
#[derive(Debug, Default)]
pub(super) struct Exports {
    /// where spans wait
    pub(super) queue: Option<Arc<Spans>>,
    /// spans that the collector has taken
    pub(super) spans: AtomicU64,
    /// requests that the collector did not take
    pub(super) failures: AtomicU64,
}

/// Sends metrics and spans until the task is dropped. `tls`: the settings for a collector that is reached by TLS.
pub async fn export(
    admin: Arc<Admin>,
    (telemetry, tls): (Telemetry, Option<Arc<tls::Client>>),
    queue: Option<mpsc::Receiver<Span>>,
) {
    let Some(endpoint) = telemetry.endpoint else { return };
    let exporter = Exporter {
        admin,
        endpoint,
        tls,
        ids: RandomState::new(),
        made: AtomicU64::new(0),
        began: crate::clock::wall(),
        failed: LogLimiter::new(crate::clock::now()),
    };
    let mut tick = tokio::time::interval(telemetry.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(BATCH);
    // Without spans, nothing ever comes out of this one, because its sender lives on.
    let (_sender, silent) = mpsc::channel(1);
    let mut queue = queue.unwrap_or(silent);
    loop {
        tokio::select! {
            _ = tick.tick() => exporter.send_metrics().await,
            got = queue.recv_many(&mut batch, BATCH) => {
                if got == 0 {
                    return;
                }
                // Wait for others, so that a few spans a second are a request a second.
                let more = async {
                    while batch.len() < BATCH {
                        let room = BATCH - batch.len();
                        if queue.recv_many(&mut batch, room).await == 0 {
                            break;
                        }
                    }
                };
                let _ = tokio::time::timeout(GATHER, more).await;
                exporter.send_spans(batch.drain(..)).await;
            }
        }
    }
}

struct Exporter {
    admin: Arc<Admin>,
    endpoint: String,
    tls: Option<Arc<tls::Client>>,
    /// makes the ids of spans
    ids: RandomState,
    made: AtomicU64,
    began: SystemTime,
    failed: LogLimiter,
}

impl Exporter {
    async fn send_metrics(&self) {
        let Ok(text) = self.admin.metrics.text(super::Format::OpenMetrics) else { return };
        let metrics = openmetrics::metrics(&text, nanos(self.began), nanos(crate::clock::wall()));
        let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..Default::default() }];
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(resource()),
                scope_metrics,
                ..Default::default()
            }],
        };
        self.send("/v1/metrics", request.encode_to_vec()).await;
    }

    async fn send_spans(&self, batch: impl ExactSizeIterator<Item = Span>) {
        let count = batch.len() as u64;
        let spans = batch.map(|span| self.span(span)).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..Default::default() }];
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource()),
                scope_spans,
                ..Default::default()
            }],
        };
        if self.send("/v1/traces", request.encode_to_vec()).await {
            self.admin.exports.spans.fetch_add(count, Relaxed);
        } else {
            self.admin.exports.queue.iter().for_each(|queue| queue.dropped(count));
        }
    }

    /// Returns true if the collector has taken it.
    async fn send(&self, path: &str, body: Vec<u8>) -> bool {
        let url = format!("{}{path}", self.endpoint);
        let sent = tokio::time::timeout(PATIENCE, post(&url, self.tls.as_deref(), body)).await;
        let error = match sent {
            Ok(Ok(status)) if status.is_success() => return true,
            Ok(Ok(status)) => format!("it answers with {status}"),
            Ok(Err(error)) => error,
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        self.admin.exports.failures.fetch_add(1, Relaxed);
        if let Some(left_out) = self.failed.happened(crate::clock::now()) {
            tracing::warn!(target: "hapax::admin", endpoint = self.endpoint, error, left_out, "the collector of telemetry takes nothing: it is dropped");
        }
        false
    }

    fn span(&self, span: Span) -> OtlpSpan {
        let Span { traced, user, began, ended } = span;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let id = self.ids.hash_one((
            traced.parent.trace,
            traced.parent.span,
            ended,
            self.made.fetch_add(1, Relaxed),
        ));
        let mut attributes = vec![
            attribute("messaging.system", "rabbitmq".to_owned()),
            attribute("messaging.destination.name", text(&traced.exchange)),
            attribute("messaging.rabbitmq.destination.routing_key", text(&traced.routing_key)),
            attribute("hapax.vhost", text(&traced.vhost)),
            attribute("hapax.window", traced.window.to_string()),
            attribute("hapax.verdict", traced.verdict.to_owned()),
        ];
        attributes.extend(user.map(|user| attribute("hapax.user", user.into())));
        OtlpSpan {
            trace_id: traced.parent.trace.to_vec(),
            span_id: id.max(1).to_be_bytes().to_vec(),
            parent_span_id: traced.parent.span.to_vec(),
            name: format!("hapax {}", traced.verdict),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: nanos(began),
            end_time_unix_nano: nanos(ended),
            attributes,
            ..Default::default()
        }
    }
}

fn attribute(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

fn resource() -> Resource {
    let attributes = vec![
        attribute("service.name", "hapax".to_owned()),
        attribute("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        attribute("process.pid", std::process::id().to_string()),
    ];
    Resource { attributes, ..Default::default() }
}

fn scope() -> InstrumentationScope {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    InstrumentationScope { name: "hapax".to_owned(), version, ..Default::default() }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
