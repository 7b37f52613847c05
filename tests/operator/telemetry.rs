//! OpenTelemetry before a real RabbitMQ: what a collector gets, and that one that is slow or gone holds nothing back.

use crate::e2e::pki::Pki;
use crate::e2e::raw::{Publish, Told, Value as Header};
use crate::e2e::site::Site;
use crate::e2e::wait::{self, now};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use axum::serve::Listener;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls::ServerConfig;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The content of all requests to a collector.
#[derive(Default)]
struct Got {
    spans: Vec<Span>,
    metrics: Option<ExportMetricsServiceRequest>,
    resources: Vec<KeyValue>,
}

/// A listener that shakes hands for TLS first.
struct Secured(tokio::net::TcpListener, TlsAcceptor);

impl Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, peer) = self.0.accept().await.expect("accepted");
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A collector on a port of its own, until its runtime is dropped.
fn collector(tls: Option<Arc<ServerConfig>>) -> (tokio::runtime::Runtime, SocketAddr, Arc<Mutex<Got>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let got = Arc::<Mutex<Got>>::default();
    let (traces, metrics) = (Arc::clone(&got), Arc::clone(&got));
    let router = Router::new()
        .route(
            "/v1/traces",
            post(async move |body: Bytes| {
                let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
                let mut got = traces.lock().unwrap();
                for resource in request.resource_spans {
                    got.resources = resource.resource.unwrap_or_default().attributes;
                    got.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
                }
            }),
        )
        .route(
            "/v1/metrics",
            post(async move |body: Bytes| {
                metrics.lock().unwrap().metrics =
                    Some(ExportMetricsServiceRequest::decode(body).expect("OTLP"));
            }),
        );
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    match tls.map(TlsAcceptor::from) {
        None => runtime.spawn(async move { axum::serve(listener, router).await }),
        Some(tls) => runtime.spawn(async move { axum::serve(Secured(listener, tls), router).await }),
    };
    (runtime, address, got)
}

fn config(collector: SocketAddr, spans: &str) -> String {
    format!(
        "[[window]]\nname = \"live\"\ncapacity = 5000\nttl = \"10m\"\n\
         [telemetry]\nendpoint = \"http://{collector}\"\ninterval = \"200ms\"\nspans = {spans}\n"
    )
}

/// The configuration of a relay that reaches its collector by TLS.
fn by_tls(host: &str, collector: SocketAddr, tls: &str) -> String {
    let config = config(collector, "1").replace("http://127.0.0.1", &format!("https://{host}"));
    format!("{config}[telemetry.tls]\n{tls}")
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    let value =
        attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.as_ref());
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        _ => panic!("no {key} in {attributes:?}"),
    }
}

#[test]
fn spans_have_their_parent_and_metrics_are_those_of_prometheus() {
    let (_runtime, address, got) = collector(None);
    let Some(site) = Site::of_relay("otlp", &config(address, "1.0")) else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let headers = [("traceparent", Header::Text(PARENT))];
    let traced = Publish { headers: &headers, ..Publish::to("q", "a") };
    for publish in [&traced, &traced, &Publish::to("q", "without a trace")] {
        let told = client.publish_and_settle(1, publish);
        assert!(matches!(told[..], [Told::Ack { .. }]), "{told:?}");
    }
    let spans = wait::until("two spans", wait::PATIENCE, || {
        let got = got.lock().unwrap();
        (got.spans.len() >= 2).then(|| got.spans.clone())
    });
    assert_eq!(spans.len(), 2, "{spans:?}");
    for (span, verdict) in spans.iter().zip(["fresh", "duplicate"]) {
        assert_eq!((span.trace_id[0], span.trace_id[15], span.parent_span_id[0]), (0x0a, 0x9c, 0xb7));
        assert!(span.span_id.len() == 8 && span.span_id != span.parent_span_id && span.span_id != [0; 8]);
        assert!(span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano);
        for (key, value) in [
            ("hapax.verdict", verdict),
            ("hapax.window", "live"),
            ("hapax.vhost", "otlp"),
            ("hapax.user", "guest"),
            ("messaging.destination.name", ""),
            ("messaging.rabbitmq.destination.routing_key", "q"),
        ] {
            assert_eq!(attribute(&span.attributes, key), value, "{key}");
        }
    }
    assert_ne!(spans[0].span_id, spans[1].span_id);
    assert_eq!(attribute(&got.lock().unwrap().resources, "service.name"), "hapax");
    let expected = site.metrics().sum("publishes_total", &[("window", "live"), ("verdict", "duplicate")]);
    assert!((expected - 1.0).abs() < f64::EPSILON);
    wait::until("the metrics agree", wait::PATIENCE, || {
        let got = got.lock().unwrap();
        let scope = &got.metrics.as_ref()?.resource_metrics[0].scope_metrics[0];
        let find = |name: &str| scope.metrics.iter().find(|metric| metric.name == name)?.data.clone();
        let Data::Sum(sum) = find("hapax_publishes")? else { panic!("no sum") };
        let duplicates = sum.data_points.iter().find(|point| {
            attribute(&point.attributes, "window") == "live"
                && attribute(&point.attributes, "verdict") == "duplicate"
        })?;
        let Data::Gauge(capacity) = find("hapax_window_capacity")? else { panic!("no gauge") };
        let Data::Histogram(latency) = find("hapax_publish_latency_seconds")? else { panic!("no histogram") };
        let point = &latency.data_points[0];
        let agree = duplicates.value == Some(Number::AsDouble(1.0))
            && capacity.data_points[0].value == Some(Number::AsDouble(5000.0))
            && point.count == point.bucket_counts.iter().sum::<u64>()
            && point.count == 2
            && point.bucket_counts.len() == point.explicit_bounds.len() + 1;
        agree.then_some(())
    });
    site.until_metric("telemetry_spans_total", &[], 2.0);
    client.close();
}

/// It accepts connections and says nothing.
#[test]
fn a_collector_that_says_nothing_holds_no_message_back() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let Some(site) = Site::of_relay("otlp-silent", &config(silent.local_addr().unwrap(), "1")) else {
        return;
    };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let headers = [("traceparent", Header::Text(PARENT))];
    let count = 4000;
    let begun = now();
    for n in 0..count {
        let id = n.to_string();
        client.publish(1, &Publish { headers: &headers, ..Publish::to("q", &id) });
    }
    let mut settled = 0;
    while settled < count {
        match client.next(1) {
            Told::Ack { tag, .. } => settled = tag,
            other => panic!("{other:?}"),
        }
    }
    assert!(begun.elapsed() < wait::PATIENCE);
    let dropped = site.metrics().sum("telemetry_spans_dropped_total", &[]);
    assert!(dropped >= 1000.0, "{dropped}: what finds no room is dropped");
    wait::until("the failure is counted", wait::PATIENCE, || {
        (site.metrics().sum("telemetry_failures_total", &[]) >= 1.0).then_some(())
    });
    wait::until("the log says it", wait::PATIENCE, || {
        site.relay().log().contains("the collector of telemetry takes nothing").then_some(())
    });
    client.close();
}

#[test]
fn a_collector_by_tls_gets_metrics_and_one_that_can_not_show_who_it_is_gets_nothing() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = pki.server(&pki.issue("collector", &["localhost"]));
    let (_runtime, address, got) = collector(Some(server));
    let own = pki.issue("own", &["hapax"]).toml();
    let trusts = |pki: &Pki| format!("ca = {:?}\n", pki.ca());
    for (host, tls, why) in [
        ("127.0.0.1", format!("{}{own}", trusts(&pki)), "not valid for name"),
        ("localhost", format!("{}{own}", trusts(&other)), "UnknownIssuer"),
        ("localhost", trusts(&pki), "the collector of telemetry takes nothing"),
    ] {
        let Some(site) = Site::of_relay("otlp-tls", &by_tls(host, address, &tls)) else { return };
        wait::until(why, wait::PATIENCE, || site.relay().log().contains(why).then_some(()));
        assert!(site.metrics().sum("telemetry_failures_total", &[]) >= 1.0);
        // A request that is not taken takes its spans along, and they are counted.
        let mut client = site.client();
        client.confirming(1);
        client.declare(1, "q", &[]);
        let headers = [("traceparent", Header::Text(PARENT))];
        client.publish_and_settle(1, &Publish { headers: &headers, ..Publish::to("q", "a") });
        site.until_metric("telemetry_spans_dropped_total", &[], 1.0);
        assert!(got.lock().unwrap().metrics.is_none(), "{why}");
    }
    let tls = format!("{}{own}", trusts(&pki));
    let Some(site) = Site::of_relay("otlp-tls", &by_tls("localhost", address, &tls)) else { return };
    wait::until("it has metrics", wait::PATIENCE, || got.lock().unwrap().metrics.take().map(drop));
    let ends = site.metrics().sum("certificate_not_after_timestamp_seconds", &[("use", "telemetry")]);
    assert!(ends > 0.0, "the end of its certificate is shown");
}
