//! HTTP for operators: `/metrics`, `/healthz`, `/readyz`. Reads counters, changes nothing, asks for no password: the
//! configuration keeps it on loopback unless told otherwise.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | OpenMetrics text |
//! | `/healthz` | 200 while the process answers at all |
//! | `/api/v1/windows/{name}/record` | what the window judges, as it happens; see [`record`] |
//! | `/readyz` | 200 if the upstream answers an AMQP handshake and we are not draining, else 503; detail as JSON |
//! | anything else | 404 as JSON |

mod metrics;
mod probe;
mod record;

pub use probe::{Probe, ProbeError};

use crate::pressure::Watched;
use crate::stats::Stats;
use crate::window::{Mode, Window};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::registry::Registry;
use serde::Serialize;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What Prometheus takes an OpenMetrics text for. `text/plain` would not do: there, counters are declared with their
/// `_total`.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is shown.
#[derive(Debug)]
pub struct Admin {
    windows: Arc<[Watched]>,
    registry: Registry,
    probe: Probe,
    draining: watch::Receiver<bool>,
}

impl Admin {
    /// `draining` turns true when the process is told to end.
    pub fn new(
        windows: Vec<Watched>,
        stats: Arc<Stats>,
        probe: Probe,
        draining: watch::Receiver<bool>,
    ) -> Arc<Admin> {
        let windows: Arc<[Watched]> = windows.into();
        let registry = metrics::registry(Arc::clone(&windows), stats);
        Arc::new(Admin { windows, registry, probe, draining })
    }

    async fn readiness(&self) -> Readiness {
        let upstream = self.probe.check().await;
        let draining = *self.draining.borrow();
        Readiness {
            ready: upstream.is_ok() && !draining,
            draining,
            upstream: UpstreamState {
                address: self.probe.address().to_owned(),
                ok: upstream.is_ok(),
                error: upstream.err().map(|error| error.to_string()),
            },
            windows: self.windows.iter().map(WindowState::of).collect(),
        }
    }
}

/// The answer to `/readyz`.
#[derive(Serialize, Debug)]
struct Readiness {
    ready: bool,
    draining: bool,
    upstream: UpstreamState,
    windows: Vec<WindowState>,
}

#[derive(Serialize, Debug)]
struct UpstreamState {
    address: String,
    ok: bool,
    error: Option<String>,
}

#[derive(Serialize, Debug)]
struct WindowState {
    name: String,
    mode: Mode,
    entries: usize,
    in_flight: usize,
    capacity: usize,
    ttl_seconds: f64,
}

impl WindowState {
    fn of(watched: &Watched) -> WindowState {
        let window = &watched.window;
        WindowState {
            name: window.rules().name.to_string(),
            mode: window.mode(),
            entries: window.len(),
            in_flight: window.in_flight(),
            capacity: window.capacity(),
            ttl_seconds: window.ttl().as_secs_f64(),
        }
    }
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) -> io::Result<()> {
    axum::serve(listener, router(admin)).await
}

/// All routes.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(show_readiness))
        .route("/api/v1/windows/{name}/record", get(show_record))
        .fallback(not_found)
        .with_state(admin)
}

async fn show_metrics(State(admin): State<Arc<Admin>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admin.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => complaint(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written".to_owned()),
    }
}

async fn show_readiness(State(admin): State<Arc<Admin>>) -> Response {
    let readiness = admin.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn show_record(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(wish): Query<record::Wish>,
) -> Response {
    let Some(watched) = admin.windows.iter().find(|watched| *watched.window.rules().name == *name) else {
        return complaint(StatusCode::NOT_FOUND, format!("there is no window named {name:?}"));
    };
    match record::lines(&watched.window, wish) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response(),
        Err(record::Refusal::Wish(wrong)) => complaint(StatusCode::UNPROCESSABLE_ENTITY, wrong.join("; ")),
        Err(record::Refusal::Busy(text)) => complaint(StatusCode::CONFLICT, text),
    }
}

async fn not_found(uri: Uri) -> Response {
    complaint(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {}; try /metrics, /healthz or /readyz", uri.path()),
    )
}

/// An error as JSON.
fn complaint(status: StatusCode, error: String) -> Response {
    #[derive(Serialize)]
    struct Complaint {
        error: String,
    }
    (status, Json(Complaint { error })).into_response()
}
