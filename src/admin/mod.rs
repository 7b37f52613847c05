//! HTTP for operators: metrics, health and the dashboard's files for everybody, and the API for those who may.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | for Prometheus, as OpenMetrics or in the classic text format |
//! | `/healthz` | 200 while the process answers at all |
//! | `/readyz` | 200 if the upstream answers an AMQP handshake and we are not draining, else 503; detail as JSON |
//! | `/`, `/assets/…` | the page of [`dashboard`]: it asks the API as everybody else does |
//! | `/api/v1/openapi.json` | what the rest is |
//! | `/api/v1/…` | see [`api`], behind [`auth`] |
//! | anything else | 404 as JSON |
//!
//! All of it is answered only where the request's `Host` can be this listener ([`auth`]). [`listen`] bounds connections,
//! [`events`] streams; [`activity`] says who of them gives way; [`complaint`] is what every error looks like.

mod activity;
mod api;
mod auth;
mod clock;
mod complaint;
pub mod dashboard;
mod events;
mod health;
mod listen;
mod metrics;
mod probe;
pub(crate) mod process;

pub use probe::{Probe, ProbeError};

use crate::config::{Config, WindowConfig};
use crate::net::Clients;
use crate::stats::Stats;
use auth::Door;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use clock::Now;
use complaint::{Complaint, ComplaintBody};
use events::Events;
use hapax_core::pressure::{Budget, Watched};
use hapax_core::window::KeyMaker;
use metrics::{Format, Metrics};
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a scrape waits for the upstream's answer, before it shows an older one: little, measured by Prometheus'
/// timeout of ten seconds, and much for a handshake.
const SCRAPE_PATIENCE: Duration = Duration::from_millis(250);

/// Connections at a time. Each takes a file.
pub const CONNECTIONS: usize = 256;
/// Connections that the system may hold until they are accepted: many, because one that finds no place there is tried
/// again after a second, which is what a health check waits in all. The system has a bound of its own (`somaxconn`).
pub const BACKLOG: u32 = 4096;

/// What the admin interface is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// what is in force; its windows are those below, in the same order
    pub config: &'a Config,
    /// the windows
    pub windows: Vec<Watched>,
    /// who of them sizes itself, and within what
    pub budget: Arc<Budget>,
    /// makes the keys that sessions make
    pub keys: KeyMaker,
    /// what the process counts
    pub stats: Arc<Stats>,
    /// who is connected
    pub clients: Arc<Clients>,
    /// asks the upstream
    pub probe: Probe,
    /// turns true when the process is told to end
    pub draining: watch::Receiver<bool>,
}

/// Everything that is shown, and what may be changed.
#[derive(Debug)]
pub struct Admin {
    windows: Arc<[Watched]>,
    /// of each window, what it does not know of itself
    configured: Vec<WindowConfig>,
    budget: Arc<Budget>,
    keys: KeyMaker,
    stats: Arc<Stats>,
    clients: Arc<Clients>,
    metrics: Metrics,
    probe: Arc<Probe>,
    draining: watch::Receiver<bool>,
    door: Door,
    events: Events,
    /// Held while something is changed: of two changes at once, the log tells which came first.
    changing: Mutex<()>,
    since: Now,
    listen: SocketAddr,
    max_connections: usize,
}

impl Admin {
    /// Of these parts.
    pub fn new(parts: Parts<'_>) -> Arc<Admin> {
        let Parts { config, windows, budget, keys, stats, clients, probe, draining } = parts;
        let windows: Arc<[Watched]> = windows.into();
        let probe = Arc::new(probe);
        Arc::new(Admin {
            metrics: Metrics::new(Arc::clone(&windows), Arc::clone(&stats), Arc::clone(&probe)),
            windows,
            configured: config.windows.clone(),
            budget,
            keys,
            stats,
            clients,
            probe,
            draining,
            door: Door { token: config.admin_token.clone(), address: config.admin },
            events: Events::default(),
            changing: Mutex::default(),
            since: Now::read(),
            listen: config.listen,
            max_connections: config.limits.max_connections,
        })
    }
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) -> io::Result<()> {
    listen::serve(listener, router(admin), listen::BOUNDS).await
}

/// All routes.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::from(open())
        .merge(dashboard::routes())
        .merge(api::guarded(&admin))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Arc::clone(&admin), auth::know_host))
        .with_state(admin)
}

/// What asks for no token: it reveals no more than that something works, and how much.
fn open() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new()
        .routes(routes!(show_metrics))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(api::openapi::show))
}

/// For Prometheus
///
/// In the classic text format, or as OpenMetrics where `Accept` names it.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses(
        (status = 200, content((String = "text/plain"), (String = "application/openmetrics-text"))),
        (status = 403, body = ComplaintBody)
    )
)]
async fn show_metrics(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    admin.probe.refresh(SCRAPE_PATIENCE).await;
    let format = Format::accepted(&headers);
    match admin.metrics.text(format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(_) => {
            Complaint::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written").into_response()
        }
    }
}

async fn not_found(uri: Uri) -> Complaint {
    let path = uri.path();
    let hint = match path.trim_end_matches('/') {
        bare if bare.len() < path.len() && !bare.is_empty() => {
            format!("without the slash at its end, {bare}")
        }
        _ => "/, /metrics, /healthz, /readyz or /api/v1/openapi.json".to_owned(),
    };
    Complaint::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}; try {hint}"))
}

async fn not_allowed(method: Method, uri: Uri) -> Complaint {
    Complaint::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!(
            "{method} can't be used on {}; the header Allow says what can, /api/v1/openapi.json why",
            uri.path()
        ),
    )
}
