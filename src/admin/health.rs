//! `/healthz` says whether the process answers, and `/readyz` whether publishes would reach the broker.

use super::Admin;
use super::complaint::ComplaintBody;
use crate::net::UpstreamNode;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hapax_core::pressure::facts::Store;
use hapax_core::pressure::{Facts, Level, Watched};
use hapax_core::window::{Mode, OnOutage};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The answer to `/readyz`.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct Readiness {
    ready: bool,
    /// why it is not: a sentence for each reason
    reasons: Vec<String>,
    draining: bool,
    upstream: UpstreamState,
    windows: Vec<WindowState>,
}

/// The broker, as its nodes have last answered.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema, Debug)]
#[schema(as = Upstream)]
pub(super) struct UpstreamState {
    /// `HOST:PORT`; of several nodes, all of them, separated by commas
    pub(super) address: String,
    /// true if a node answers an AMQP handshake
    pub(super) ok: bool,
    /// why none does
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
    /// absent for a window in memory
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<StoreState>,
}

/// A summary of a window's store.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema, Debug)]
struct StoreState {
    /// `disk`, `stream` or `redis`
    kind: String,
    /// true if it works
    up: bool,
    /// true while the window reads what stood in the store when this process started
    recovering: bool,
}

impl WindowState {
    fn of(watched: &Watched, facts: &Facts) -> WindowState {
        let store = facts.store.as_ref();
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
            store: store.map(|store| StoreState {
                kind: store.kind.clone(),
                up: store.up,
                recovering: store.recovering,
            }),
        }
    }
}

/// Says why publishes to this window should go to another relay: they would wait here, or be judged without what its store knows.
fn store_reason(name: &str, mode: Mode, store: &Store) -> Option<String> {
    let kind = &store.kind;
    if store.recovering {
        return Some(format!("window {name:?} still reads what its store ({kind}) knows"));
    }
    if store.on_outage == OnOutage::Continue || mode == Mode::Off {
        return None;
    }
    let down = || {
        format!(
            "the store ({kind}) of window {name:?} is down, and on_outage = \"refuse\" holds publishes until it is back"
        )
    };
    let behind =
        || format!("publishes to window {name:?} wait, because its store ({kind}) is too far behind");
    match (store.up, store.waiting_publishes) {
        (true, 0) => None,
        (true, _) => Some(behind()),
        (false, _) => Some(down()),
    }
}

impl Admin {
    async fn readiness(&self) -> Readiness {
        let upstream = self.asked_upstream().await;
        let draining = *self.draining.borrow();
        let now = super::Now::read().instant;
        let mut reasons = Vec::new();
        if draining {
            reasons.push("Hapax is draining".to_owned());
        }
        if let Some(error) = &upstream.error {
            reasons.push(format!("the broker does not answer: {error}"));
        }
        let mut windows = Vec::new();
        for watched in &*self.running.now().windows {
            let facts = watched.facts(now);
            let (name, mode) = (&watched.window.rules().name, watched.window.mode());
            reasons.extend(facts.store.as_ref().and_then(|store| store_reason(name, mode, store)));
            windows.push(WindowState::of(watched, &facts));
        }
        Readiness { ready: reasons.is_empty(), reasons, draining, upstream, windows }
    }
}

impl Admin {
    /// Asks the broker, unless its last answer is young.
    async fn asked_upstream(&self) -> UpstreamState {
        let answer = self.upstreams.check().await;
        let state = UpstreamState::of(&self.upstreams.nodes());
        match answer {
            Ok(()) => UpstreamState { ok: true, error: None, ..state },
            Err(failed) => {
                let failed = failed.iter().map(|(node, error)| (&**node, error.to_string()));
                UpstreamState { ok: false, error: Some(why(failed)), ..state }
            }
        }
    }
}

impl UpstreamState {
    /// Sums the nodes up.
    pub(super) fn of(nodes: &[UpstreamNode]) -> UpstreamState {
        let ok = nodes.iter().any(|node| node.up == Some(true));
        let addresses: Vec<&str> = nodes.iter().map(|node| &*node.address).collect();
        let unknown = || "it was not asked yet".to_owned();
        let failed = nodes.iter().map(|node| (&*node.address, node.error.clone().unwrap_or_else(unknown)));
        let error = (!ok).then(|| why(failed));
        UpstreamState { address: addresses.join(", "), ok, error }
    }
}

/// Says why no node answers. With several, each is named.
fn why<'a>(failed: impl Iterator<Item = (&'a str, String)>) -> String {
    let failed: Vec<(&str, String)> = failed.collect();
    match failed.as_slice() {
        [(_, error)] => error.clone(),
        failed => {
            failed.iter().map(|(node, error)| format!("{node}: {error}")).collect::<Vec<_>>().join("; ")
        }
    }
}

/// Check whether the process answers
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = String), (status = 403, body = ComplaintBody)))]
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

/// Check whether publishes would reach the broker: a node of it answers an AMQP handshake, Hapax is not draining, and no window waits for its store
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = Readiness), (status = 403, body = ComplaintBody), (status = 503, body = Readiness)))]
pub(super) async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    let readiness = admin.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}
