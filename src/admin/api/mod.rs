//! `/api/v1`: the windows, their ids, changes to a running window, the client connections, what they send twice, the broker's
//! nodes, what has happened lately, and what an operator does to the process.
//!
//! The routes and the OpenAPI document come from the same annotations ([`utoipa`]), so they always agree.

mod access;
mod change;
mod chaos;
mod connections;
mod control;
mod csv;
mod drops;
mod events;
mod forecast;
mod ids;
mod message;
pub(super) mod openapi;
mod producers;
mod query;
mod recent;
mod record;
mod reload;
mod status;
mod tenants;
mod upstreams;
mod windows;

pub(super) use drops::Followers;
pub(super) use events::Events;

use super::Admin;
use super::auth::{self, Right};
use super::complaint::Complaint;
use crate::config::{StoreKind, WindowConfig};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use hapax_core::pressure::Watched;
use hapax_core::window::Inspect;
use std::sync::Arc;
use std::time::{Duration, Instant};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The most bytes in a request's body.
const BODY: usize = 64 << 10;
/// How long a request's body may take to arrive after its head.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// Returns the routes that need the permission of [`auth`].
pub(super) fn guarded(admin: &Arc<Admin>) -> Router<Arc<Admin>> {
    let guarded = |routes: OpenApiRouter<Arc<Admin>>, right: Right| {
        Router::from(routes)
            .layer(DefaultBodyLimit::max(BODY))
            .route_layer(from_fn_with_state((Arc::clone(admin), right), auth::guard))
    };
    guarded(reading(), Right::Read).merge(guarded(changing(), Right::Change))
}

/// Returns the routes that change something. Their security scheme is `admin`: a test compares the two.
fn changing() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new()
        .routes(routes!(windows::patch))
        .routes(routes!(windows::flush))
        .routes(routes!(ids::forget))
        .routes(routes!(producers::forget))
        .routes(routes!(connections::close))
        .routes(routes!(chaos::start, chaos::stop))
        .routes(routes!(control::drain))
        .routes(routes!(control::set_log))
        .routes(routes!(reload::reload))
}

/// Returns the routes that only show something.
fn reading() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::new()
        .routes(routes!(access::show))
        .routes(routes!(windows::list))
        .routes(routes!(windows::show))
        .routes(routes!(tenants::list))
        .routes(routes!(record::stream))
        .routes(routes!(forecast::show))
        .routes(routes!(ids::show))
        .routes(routes!(producers::list))
        .routes(routes!(producers::show))
        .routes(routes!(connections::list))
        .routes(routes!(chaos::show))
        .routes(routes!(control::show_log))
        .routes(routes!(recent::journal))
        .routes(routes!(recent::history))
        .routes(routes!(drops::list))
        .routes(routes!(drops::stream))
        .routes(routes!(status::show))
        .routes(routes!(reload::config))
        .routes(routes!(upstreams::list))
        .routes(routes!(events::stream))
}

/// A window together with the accounting that watches it and its configuration.
#[derive(Clone)]
struct ConfiguredWindow {
    watched: Watched,
    configured: Arc<WindowConfig>,
}

impl Admin {
    fn all_windows(&self) -> impl Iterator<Item = ConfiguredWindow> {
        let in_force = self.running.now();
        (0..in_force.windows.len()).filter_map(move |at| {
            let (watched, configured) = (in_force.windows.get(at)?, in_force.configured.get(at)?);
            Some(ConfiguredWindow { watched: watched.clone(), configured: Arc::clone(configured) })
        })
    }

    fn find(&self, name: &str) -> Result<ConfiguredWindow, Complaint> {
        self.all_windows().find(|found| &*found.configured.rules.name == name).ok_or_else(|| {
            let names: Vec<String> =
                self.all_windows().map(|window| window.configured.rules.name.to_string()).collect();
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Complaint::new(
                StatusCode::NOT_FOUND,
                format!("there is no window named {name:?}; the windows are: {there}"),
            )
        })
    }
}

/// Returns the error for something that this kind of window can't do.
fn cannot(what: &str) -> Complaint {
    Complaint::new(StatusCode::UNPROCESSABLE_ENTITY, format!("this kind of window can't {what}"))
}

/// Returns true if the window's store may know what this process does not. Redis is asked about each id that is not in memory here, and a
/// log that is being read may have more.
fn store_may_know_more(window: &dyn Inspect, now: Instant) -> bool {
    window.store(now).is_some_and(|store| store.kind == StoreKind::Redis.name() || store.recovering)
}

/// Runs work that takes long for a large window (it removes millions of ids) outside the threads that serve requests.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Complaint> + Send + 'static,
) -> Result<T, Complaint> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(Complaint::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "this has failed within Hapax: please report it",
        ))
    })
}

/// The whole body of a request, within its limits of size and time.
struct Body(Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Complaint;

    async fn from_request(request: Request, state: &S) -> Result<Body, Complaint> {
        let bytes = tokio::time::timeout(BODY_PATIENCE, Bytes::from_request(request, state)).await;
        match bytes {
            Ok(Ok(bytes)) => Ok(Body(bytes)),
            Ok(Err(rejection)) => Err(refused(&rejection)),
            Err(_) => Err(Complaint::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
        }
    }
}

fn refused(rejection: &BytesRejection) -> Complaint {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let text = format!("the body has more than the {BODY} bytes that are read");
        return Complaint::new(StatusCode::PAYLOAD_TOO_LARGE, text);
    }
    Complaint::new(StatusCode::BAD_REQUEST, "the body can't be read; send it again")
}
