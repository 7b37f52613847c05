//! `/api/v1/chaos`: starts a run of chaos, shows what it does, and ends it.

use super::Body;
use crate::admin::Admin;
use crate::admin::auth::Caller;
use crate::admin::complaint::{Complaint, ComplaintBody};
use crate::admin::journal::Kind;
use crate::chaos::{ChaosOrder, ChaosReport, Refused};
use crate::clock::luck;
use crate::config::number;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use hapax_core::session::{ChaosFault, ChaosShares};
use hapax_core::window::set::Pattern;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// How long a run lasts if nobody says it.
const DURATION: Duration = Duration::from_secs(60);
/// How long confirms are held back if nobody says it.
const HOLD_FOR: Duration = Duration::from_secs(5);

/// A run to start. Shares are of the occasions of each fault, from 0 to 1; what is not named is not done.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NewRun {
    /// by which the run decides; left out: a new one is drawn
    seed: Option<u64>,
    /// how long the run lasts ("1m")
    #[schema(example = "5m")]
    duration: Option<String>,
    /// stored publishes whose confirm is lost with their connection
    #[schema(example = 0.01)]
    drop_acks: f64,
    /// stored publishes at which the confirms of their channel begin to wait
    #[schema(example = 0.01)]
    hold_acks: f64,
    /// how long they wait ("5s")
    #[schema(example = "5s")]
    hold_for: Option<String>,
    /// publishes and deliveries at which their connection is cut
    #[schema(example = 0.001)]
    cut: f64,
    /// deliveries that are delivered again although they are acked
    #[schema(example = 0.01)]
    redeliver: f64,
    /// fresh publishes that are published again, within a minute
    #[schema(example = 0.1)]
    replay: f64,
    /// the windows and guards whose messages are troubled; left out: all messages
    windows: Vec<String>,
}

/// Whether chaos is allowed, and the run that is on, or the last one.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChaosState {
    /// true if a run may be started (`chaos.enabled`)
    enabled: bool,
    /// the vhosts whose connections may be troubled
    vhosts: Vec<String>,
    /// the users whose connections may be troubled
    users: Vec<String>,
    /// true while a run is on
    running: bool,
    /// the run that is on, or else the last one; null: there was none since the process started
    run: Option<ChaosReport>,
}

impl Admin {
    fn chaos_state(&self) -> ChaosState {
        let settings = self.chaos.settings();
        let texts =
            |patterns: &[Pattern]| patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect();
        let run = self.chaos.report();
        ChaosState {
            enabled: settings.enabled,
            vhosts: texts(&settings.vhosts),
            users: texts(&settings.users),
            running: run.as_ref().is_some_and(|run| run.running),
            run,
        }
    }
}

/// Show the run of chaos that is on, or what the last one has done
#[utoipa::path(get, path = "/api/v1/chaos", tag = "process", security(("token" = [])),
    responses((status = 200, body = ChaosState), (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody)))]
pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<ChaosState> {
    Json(admin.chaos_state())
}

/// Start a run of chaos: clients lose confirms and connections, and messages come twice, as they do in the world
///
/// It troubles only connections of the vhosts and users that the configuration names under `[chaos]`, and ends by itself.
#[utoipa::path(post, path = "/api/v1/chaos", tag = "process", security(("admin" = [])), request_body = NewRun,
    responses((status = 200, body = ChaosReport), (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 408, body = ComplaintBody), (status = 409, body = ComplaintBody),
        (status = 413, body = ComplaintBody), (status = 415, body = ComplaintBody), (status = 422, body = ComplaintBody)))]
pub(super) async fn start(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> Result<Json<ChaosReport>, Complaint> {
    let order = read(&body)?;
    let in_force = admin.running.now();
    let connections = admin.connections.last_number();
    let report =
        admin.chaos.start(&order, &caller.shown(), &in_force.windows, connections).map_err(complaint)?;
    let shares = report.faults.iter().filter(|fault| fault.share > 0.0);
    let shares: Vec<String> = shares.map(|fault| format!("{} {}", fault.fault, fault.share)).collect();
    let text = format!("a run of chaos has begun: seed {}, {}", report.seed, shares.join(", "));
    admin.journal.add(Kind::Chaos, None, &text, Some(caller.shown()));
    Ok(Json(report))
}

/// End the run of chaos that is on
#[utoipa::path(delete, path = "/api/v1/chaos", tag = "process", security(("admin" = [])),
    responses((status = 200, body = ChaosReport), (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody),
        (status = 409, body = ComplaintBody), (status = 415, body = ComplaintBody)))]
pub(super) async fn stop(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<ChaosReport>, Complaint> {
    let none = || {
        Complaint::new(
            StatusCode::CONFLICT,
            "no run of chaos is on; GET /api/v1/chaos says what the last one has done",
        )
    };
    admin.chaos.stop(&caller.shown()).map(Json).ok_or_else(none)
}

fn read(body: &[u8]) -> Result<ChaosOrder, Complaint> {
    // (An array would do for a struct, too.)
    let object: serde_json::Result<Map<String, Value>> = serde_json::from_slice(body);
    let run = object.and_then(|object| serde_json::from_value(Value::Object(object)));
    let run: NewRun = run.map_err(|error| {
        let text = format!("the body can't be read ({error}); write an object, as in {{\"seed\": 7, \"duration\": \"5m\", \"cut\": 0.001}}");
        Complaint::new(StatusCode::BAD_REQUEST, text)
    })?;
    let mut errors = Vec::new();
    let mut duration = |name: &str, text: Option<&str>, default: Duration| match text.map(number::duration) {
        None => default,
        Some(Some(duration)) => duration,
        Some(None) => {
            errors.push(format!(
                "`{name}` is {:?}, which is no duration; write it as in \"30s\"",
                text.unwrap_or_default()
            ));
            default
        }
    };
    let order = ChaosOrder {
        seed: run.seed.unwrap_or_else(|| luck().into()),
        duration: duration("duration", run.duration.as_deref(), DURATION),
        shares: ChaosShares::default()
            .with(ChaosFault::DropAck, run.drop_acks)
            .with(ChaosFault::HoldAcks, run.hold_acks)
            .with(ChaosFault::Cut, run.cut)
            .with(ChaosFault::Redeliver, run.redeliver)
            .with(ChaosFault::Replay, run.replay),
        hold_for: duration("hold_for", run.hold_for.as_deref(), HOLD_FOR),
        windows: run.windows.iter().map(|name| name.as_str().into()).collect(),
    };
    if errors.is_empty() { Ok(order) } else { Err(wrong(errors)) }
}

fn complaint(refused: Refused) -> Complaint {
    let conflict = |text: String| Complaint::new(StatusCode::CONFLICT, text);
    match refused {
        Refused::Off(fix) => conflict(format!("the configuration does not allow chaos: {fix}, and reload")),
        Refused::On { seed, left } => conflict(format!(
            "a run is on already (seed {seed}, {left} s are left): stop it first (hapax chaos stop)"
        )),
        Refused::Draining => conflict("the relay is about to end".to_owned()),
        Refused::Wrong(errors) => wrong(errors),
    }
}

fn wrong(errors: Vec<String>) -> Complaint {
    let text = format!("no run was started: {}", errors.join("; "));
    Complaint::of_many(StatusCode::UNPROCESSABLE_ENTITY, text, errors)
}
