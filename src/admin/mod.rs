//! HTTP for operators. Metrics, health and the dashboard's files are for everybody; the API is for those who may use
//! it.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | for Prometheus, as OpenMetrics or in the classic text format |
//! | `/healthz` | 200 while the process answers at all |
//! | `/readyz` | 200 if a node of the broker answers an AMQP handshake, we are not draining and no window waits for its store, else 503; detail as JSON |
//! | `/`, `/assets/…` | the [`dashboard`], a page that calls the API as everybody else does |
//! | `/api/v1/openapi.json` | the description of the API |
//! | `/api/v1/…` | the [`api`], protected by [`auth`] |
//! | anything else | 404 as JSON |
//!
//! Every path answers only if the request's `Host` can be this listener and no foreign page sends it ([`auth`]). [`listen`] limits connections,
//! `events` limits streams, [`activity`] records which connection should give way, and [`complaint`] is the form of
//! every error.

mod activity;
mod api;
mod auth;
mod clock;
mod complaint;
pub mod dashboard;
mod health;
mod history;
mod journal;
mod listen;
mod metrics;
pub mod telemetry;

use crate::chaos::Chaos;
use crate::config::Config;
use crate::live::{Reloader, Running};
use crate::net::{ConnectionList, Spans, Upstreams};
use crate::signals::Signals;
use crate::stats::Stats;
use crate::tls::{self, Certificates};
use api::{Events, Followers};
use auth::AccessCheck;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use clock::Now;
use complaint::{Complaint, ComplaintBody};
use hapax_core::window::KeyMaker;
use history::History;
use journal::{Journal, Kind};
use metrics::{Format, Metrics};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a scrape waits for the upstream's answer before it shows an older one. This is short against Prometheus'
/// timeout of ten seconds, and long for a handshake.
const SCRAPE_PATIENCE: Duration = Duration::from_millis(250);

/// The most connections at a time. Each takes a file descriptor.
pub const CONNECTIONS: usize = 256;
/// How many connections the kernel may hold before we accept them. It is large, because a client whose connection
/// finds no room there tries again only after a second, and a health check waits no longer than that in all. The
/// kernel has a limit of its own (`somaxconn`).
pub const BACKLOG: u32 = 4096;

/// The parts that the admin interface is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// the configuration of the start
    pub config: &'a Config,
    /// the configuration in force, with the windows
    pub running: Arc<Running>,
    /// makes the same keys as sessions do
    pub keys: KeyMaker,
    /// what the process counts
    pub stats: Arc<Stats>,
    /// the list of client connections
    pub connections: Arc<ConnectionList>,
    /// the nodes of the broker
    pub upstreams: Arc<Upstreams>,
    /// the certificates of the process
    pub certificates: Arc<Certificates>,
    /// what is said of dropped publishes
    pub signals: Arc<Signals>,
    /// makes trouble on request
    pub chaos: Arc<Chaos>,
    /// the settings of TLS of this listener; `None`: it is served without
    pub tls: Option<Arc<tls::Server>>,
    /// reads the configuration again; `None`: this process can't
    pub reloader: Option<Arc<Reloader>>,
    /// turns true when the process begins to drain
    pub draining: watch::Receiver<bool>,
    /// takes the order to drain, with who gives it; `None`: this process can't be drained by the API
    pub drain: Option<mpsc::Sender<String>>,
    /// the spans on their way to the collector; `None`: there are none
    pub spans: Option<Arc<Spans>>,
}

/// Everything that the admin interface shows, and what it may change.
#[derive(Debug)]
pub struct Admin {
    /// the configuration in force, with the windows
    running: Arc<Running>,
    reloader: Option<Arc<Reloader>>,
    keys: KeyMaker,
    stats: Arc<Stats>,
    connections: Arc<ConnectionList>,
    chaos: Arc<Chaos>,
    metrics: Metrics,
    upstreams: Arc<Upstreams>,
    draining: watch::Receiver<bool>,
    drain: Option<mpsc::Sender<String>>,
    journal: Journal,
    history: History,
    exports: Arc<telemetry::Exports>,
    access: AccessCheck,
    events: Events,
    followers: Followers,
    since: Now,
    /// where clients connect
    listen: String,
    tls: Option<Arc<tls::Server>>,
}

impl Admin {
    /// Creates the admin interface from its parts.
    pub fn new(parts: Parts<'_>) -> Arc<Admin> {
        let Parts {
            config,
            running,
            keys,
            stats,
            connections,
            upstreams,
            certificates,
            signals,
            chaos,
            tls,
            reloader,
            draining,
            drain,
            spans,
        } = parts;
        let since = Now::read();
        let exports = Arc::new(telemetry::Exports { queue: spans, ..telemetry::Exports::default() });
        Arc::new(Admin {
            metrics: Metrics::new(
                Arc::clone(&running),
                Arc::clone(&stats),
                Arc::clone(&upstreams),
                certificates,
                draining.clone(),
                Arc::clone(&exports),
                (signals, Arc::clone(&chaos)),
            ),
            chaos,
            journal: Journal::default(),
            history: History::new(&since),
            exports: Arc::clone(&exports),
            drain,
            running,
            reloader,
            keys,
            stats,
            connections,
            upstreams,
            draining,
            access: AccessCheck::of(config),
            events: Events::default(),
            followers: Followers::default(),
            since,
            listen: config.listen_addresses(),
            tls,
        })
    }
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) -> io::Result<()> {
    let tls = admin.tls.clone();
    admin.journal.add(Kind::Start, None, concat!("Hapax ", env!("CARGO_PKG_VERSION"), " has started"), None);
    // Dropping the set ends the task.
    let mut keeping = JoinSet::new();
    keeping.spawn(history::keep(Arc::clone(&admin)));
    listen::serve(listener, router(admin), listen::BOUNDS, tls).await
}

/// Returns all routes.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::from(open())
        .merge(dashboard::routes())
        .merge(api::guarded(&admin))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Arc::clone(&admin), auth::at_the_gate))
        .with_state(admin)
}

/// Returns the routes that need no token. They reveal only that something works, and how much.
fn open() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new()
        .routes(routes!(show_metrics))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(api::openapi::show))
}

/// Show metrics for Prometheus
///
/// They are in the classic text format, or in OpenMetrics if `Accept` names it.
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
    admin.upstreams.refresh(SCRAPE_PATIENCE).await;
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
