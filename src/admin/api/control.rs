//! `/api/v1/drain` and `/api/v1/log`: what an operator does to the process while it runs.

use super::Body;
use crate::admin::Admin;
use crate::admin::auth::Caller;
use crate::admin::complaint::{Complaint, ComplaintBody};
use crate::admin::journal::Kind;
use crate::config::check_log_level;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A drain that has begun.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Drain {
    /// true
    draining: bool,
    /// connections that were open
    connections: usize,
    /// seconds in which /readyz says 503 and clients are still served (`timeouts.drain_delay`)
    delay_seconds: f64,
    /// seconds after that in which connections may settle what is in flight (`timeouts.drain`)
    timeout_seconds: f64,
}

/// End the process as SIGTERM does: /readyz says 503, no new connections, and what is in flight is settled first
///
/// It can't be taken back. A drain that has begun already goes on, and is answered in the same way.
#[utoipa::path(post, path = "/api/v1/drain", tag = "process", security(("admin" = [])),
    responses((status = 200, body = Drain), (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody),
        (status = 415, body = ComplaintBody), (status = 503, body = ComplaintBody)))]
pub(super) async fn drain(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Drain>, Complaint> {
    if !*admin.draining.borrow() {
        let cannot =
            || Complaint::new(StatusCode::SERVICE_UNAVAILABLE, "this process can't be drained by the API");
        let order = admin.drain.as_ref().ok_or_else(cannot)?;
        // If somebody else was first, one order is enough.
        if order.try_send(caller.shown()).is_ok() {
            tracing::info!(target: "hapax::admin", peer = %caller, by = caller.by, "told to drain");
            admin.journal.add(Kind::Drain, None, "told to drain", Some(caller.shown()));
        }
    }
    let timeouts = admin.running.now().config.timeouts;
    Ok(Json(Drain {
        draining: true,
        connections: admin.connections.page(0, 0).0,
        delay_seconds: timeouts.drain_delay.as_secs_f64(),
        timeout_seconds: timeouts.drain.as_secs_f64(),
    }))
}

/// The level of the log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LogLevel {
    /// what is logged now
    #[schema(example = "info,hapax::net=debug")]
    level: String,
    /// what the configuration says
    #[schema(example = "info")]
    configured: String,
}

impl Admin {
    fn log_level(&self) -> LogLevel {
        let configured = self.running.now().config.log.level.clone();
        LogLevel { level: crate::log::level().unwrap_or_else(|| configured.clone()), configured }
    }
}

/// Show what is logged
#[utoipa::path(get, path = "/api/v1/log", tag = "process", security(("token" = [])),
    responses((status = 200, body = LogLevel), (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody)))]
pub(super) async fn show_log(State(admin): State<Arc<Admin>>) -> Json<LogLevel> {
    Json(admin.log_level())
}

/// The level to log from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewLogLevel {
    /// as `log.level` in the configuration: a level, or levels by target
    #[schema(example = "info,hapax::net=debug")]
    level: String,
}

/// Change what is logged, until a restart or a reload
#[utoipa::path(put, path = "/api/v1/log", tag = "process", security(("admin" = [])), request_body = NewLogLevel,
    responses((status = 200, body = LogLevel), (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 413, body = ComplaintBody), (status = 415, body = ComplaintBody),
        (status = 422, body = ComplaintBody), (status = 503, body = ComplaintBody)))]
pub(super) async fn set_log(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Result<Json<LogLevel>, Complaint> {
    let example = "write {\"level\": \"debug\"}";
    let NewLogLevel { level } = serde_json::from_slice(&body).map_err(|error| {
        Complaint::new(StatusCode::BAD_REQUEST, format!("the body can't be read ({error}); {example}"))
    })?;
    let level = check_log_level(&level).map_err(|(what, fix)| {
        let text = format!("`level` {what}: {fix}");
        Complaint::new(StatusCode::UNPROCESSABLE_ENTITY, text)
    })?;
    let _one_at_a_time = admin.running.changing.lock();
    let from = admin.log_level().level;
    let log = || tracing::info!(target: "hapax::admin", peer = %caller, by = caller.by, from, to = level, "log level changed");
    // One of the two levels shows this line, unless both hide it.
    let shown_before = tracing::enabled!(target: "hapax::admin", tracing::Level::INFO);
    if shown_before {
        log();
    }
    crate::log::set_level(&level).map_err(|error| Complaint::new(StatusCode::SERVICE_UNAVAILABLE, error))?;
    if !shown_before {
        log();
    }
    admin.journal.add(Kind::Log, None, &format!("log level {from} → {level}"), Some(caller.shown()));
    Ok(Json(admin.log_level()))
}
