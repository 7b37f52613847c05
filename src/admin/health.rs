//! `/healthz` says whether the process answers, and `/readyz` whether publishes would reach the broker.

use super::Admin;
use super::complaint::ComplaintBody;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hapax_core::pressure::{Level, Watched};
use hapax_core::window::Mode;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

/// The answer to `/readyz`.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct Readiness {
    ready: bool,
    draining: bool,
    upstream: UpstreamState,
    windows: Vec<WindowState>,
}

/// The broker's last answer.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema, Debug)]
#[schema(as = Upstream)]
pub(super) struct UpstreamState {
    /// `HOST:PORT`
    pub(super) address: String,
    /// true if it answers an AMQP handshake
    pub(super) ok: bool,
    /// why it does not
    pub(super) error: Option<String>,
}

/// A summary of a window.
#[derive(Serialize, ToSchema, Debug)]
struct WindowState {
    name: String,
    #[schema(value_type = String)]
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<u64>,
    ttl_seconds: f64,
    level: Level,
    #[serde(skip_serializing_if = "Option::is_none")]
    pressure: Option<f64>,
    coverage: f64,
}

impl WindowState {
    fn of(watched: &Watched, now: Instant) -> WindowState {
        let facts = watched.facts(now);
        WindowState {
            name: watched.window.rules().name.to_string(),
            mode: watched.window.mode(),
            entries: facts.entries,
            in_flight: facts.in_flight,
            capacity: facts.capacity,
            ttl_seconds: facts.ttl_seconds,
            level: facts.level,
            pressure: facts.pressure,
            coverage: facts.coverage,
        }
    }
}

impl Admin {
    async fn readiness(&self) -> Readiness {
        let upstream = UpstreamState::of(&self.probe, self.probe.check().await);
        let draining = *self.draining.borrow();
        let now = super::Now::read().instant;
        Readiness {
            ready: upstream.ok && !draining,
            draining,
            upstream,
            windows: self.windows.iter().map(|watched| WindowState::of(watched, now)).collect(),
        }
    }
}

impl UpstreamState {
    pub(super) fn of(probe: &super::Probe, answer: Result<(), super::ProbeError>) -> UpstreamState {
        UpstreamState {
            address: probe.address().to_owned(),
            ok: answer.is_ok(),
            error: answer.err().map(|error| error.to_string()),
        }
    }
}

/// Check whether the process answers
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = String), (status = 403, body = ComplaintBody)))]
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

/// Check whether publishes would reach the broker: it answers an AMQP handshake, and Hapax is not draining
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = Readiness), (status = 403, body = ComplaintBody), (status = 503, body = Readiness)))]
pub(super) async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let readiness = admin.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}
