//! `/api/v1/status`: the process, its version, upstream, connections and memory.

use super::upstreams::UpstreamFacts;
use crate::admin::Admin;
use crate::admin::clock::Now;
use crate::admin::complaint::ComplaintBody;
use crate::admin::health::UpstreamState;
use crate::process::resident_bytes;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// How long a page waits for the upstream's answer before it shows an older one.
pub(super) const UPSTREAM_PATIENCE: Duration = Duration::from_millis(250);

/// The state of the process.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Status {
    /// the version of Hapax
    version: &'static str,
    /// seconds since the process started
    uptime_seconds: f64,
    /// true after the process was told to end
    draining: bool,
    upstream: UpstreamState,
    /// the broker's nodes, in the order of the configuration
    upstreams: Vec<UpstreamFacts>,
    connections: Counts,
    memory: Memory,
    /// where AMQP clients connect
    listen: String,
    /// true if this API asks for a token
    token_required: bool,
    /// the number of the newest entry of `/api/v1/journal`
    journal: u64,
    /// the run of chaos that is on; null: there is none
    chaos: Option<ChaosOn>,
}

/// A run of chaos that is on.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
struct ChaosOn {
    /// by which it decides
    seed: u64,
    /// who has started it
    by: String,
    /// seconds until it is over
    left_seconds: f64,
    /// faults that it has done
    done: u64,
}

/// Counts of client connections.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
struct Counts {
    /// open now
    open: u64,
    /// accepted since the start
    accepted: u64,
    /// turned away since the start because `max` were open
    rejected: u64,
    /// the most that may be open at a time
    max: usize,
}

/// Memory of the process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
struct Memory {
    /// bytes of RAM that the process uses; 0 where the system does not say
    resident_bytes: u64,
    /// bytes that all windows with capacity "auto" may use together; null if no budget is configured
    budget_bytes: Option<usize>,
}

impl Admin {
    pub(in crate::admin) fn status(&self, upstream: UpstreamState, now: &Now) -> Status {
        let stats = self.stats.snapshot();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: now.since(self.since.instant),
            draining: *self.draining.borrow(),
            upstream,
            upstreams: self.upstream_facts(),
            connections: Counts {
                open: stats.connections,
                accepted: stats.accepted,
                rejected: stats.rejected,
                max: self.running.now().config.limits.max_connections,
            },
            memory: Memory {
                resident_bytes: resident_bytes().unwrap_or(0),
                budget_bytes: self.running.budget.budget_bytes(),
            },
            listen: self.listen.clone(),
            token_required: self.access.asks_for_token(),
            journal: self.journal.last(),
            chaos: self.chaos.report().filter(|report| report.running).map(|report| ChaosOn {
                seed: report.seed,
                left_seconds: (report.duration_seconds - report.elapsed_seconds).max(0.0),
                done: report.faults.iter().map(|fault| fault.done).sum(),
                by: report.by,
            }),
        }
    }

    /// Returns the upstream's state. It may be some seconds old.
    pub(in crate::admin) async fn upstream(&self) -> UpstreamState {
        self.upstreams.refresh(UPSTREAM_PATIENCE).await;
        UpstreamState::of(&self.upstreams.nodes())
    }
}

/// Show the process: version, upstream, connections, memory
#[utoipa::path(get, path = "/api/v1/status", tag = "process", security(("token" = [])),
    responses((status = 200, body = Status), (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody)))]
pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<Status> {
    let upstream = admin.upstream().await;
    Json(admin.status(upstream, &Now::read()))
}
