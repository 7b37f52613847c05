//! `/api/v1/windows`: lists, shows, changes and flushes windows.

use super::change::{AUTO, Capacity, Change, unprocessable};
use super::csv::{self, Cell, Format};
use super::query::Query;
use super::{Body, ConfiguredWindow, aside, cannot};
use crate::admin::Admin;
use crate::admin::auth::Caller;
use crate::admin::clock::{Now, span};
use crate::admin::complaint::{Complaint, ComplaintBody};
use crate::admin::journal::Kind;
use crate::config::Judges;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hapax_core::pressure::Facts;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    ConfirmRule, InDoubt, MissingId, Mode, OnConflict, OnDuplicate, OnGap, Quota, Release, RepublishRule,
    Scope, Setting,
};
use hapax_core::wire::IdSource;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

/// A change of a window's capacity that takes several steps. `capacity` is the one that holds now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Resizing {
    /// the capacity that the window will have
    to: usize,
    /// ids that have to be forgotten before that
    left: usize,
}

/// A window: its settings and its facts.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
#[schema(as = Window)]
pub(in crate::admin) struct WindowFacts {
    /// the name in metrics and URLs
    name: String,
    /// what it judges: `publishes`, or `deliveries` if it is a guard. The counters of publishes are those of deliveries then
    judges: Judges,
    /// the pattern for vhosts
    vhost: String,
    /// the pattern for exchanges; empty for a guard
    exchange: String,
    /// the pattern for queues of a guard
    queue: Option<String>,
    /// where the id of a message is
    #[schema(example = "message-id")]
    id: String,
    /// the scope within which an id is unique
    #[schema(value_type = String, example = "routing-key")]
    scope: Scope,
    /// what divides the capacity: `none`, `vhost`, `user` or `exchange`
    #[schema(value_type = String, example = "none")]
    quota: Quota,
    /// the engine that stores ids
    #[schema(value_type = String, example = "lru")]
    engine: EngineKind,
    /// `enforce`, `observe` or `off`
    #[schema(value_type = String, example = "enforce")]
    mode: Mode,
    /// what happens to ids whose outcome is unknown
    #[schema(value_type = String, example = "forget")]
    in_doubt: InDoubt,
    /// what happens to publishes without an id
    #[schema(value_type = String, example = "forward")]
    missing_id: MissingId,
    /// what happens to publishes of a known id whose body is not the one that was stored
    #[schema(value_type = String, example = "drop")]
    on_conflict: OnConflict,
    /// what the publisher of a duplicate hears
    #[schema(value_type = String, example = "ack")]
    on_duplicate: OnDuplicate,
    /// the exchange that gets copies of dropped publishes; null: there is none
    duplicates_to: Option<String>,
    /// true if each dropped publish is a line in the log
    audit: bool,
    /// what happens to a number when lower ones were never published; absent unless `id` is `sequence`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "forward")]
    on_gap: Option<OnGap>,
    /// how many of the highest numbers of a producer are known one by one; absent unless `id` is `sequence`
    #[serde(skip_serializing_if = "Option::is_none")]
    places: Option<usize>,
    /// what happens to a message that its consumer publishes again
    #[schema(value_type = String, example = "connection")]
    republish: RepublishRule,
    /// when the id of a stored message is forgotten: `ttl`, or `consumed` if that comes first
    #[schema(value_type = String, example = "ttl")]
    release: Release,
    /// whose confirms tell that a publish was stored
    #[schema(value_type = String, example = "shadow")]
    confirms: ConfirmRule,
    /// true if Hapax sets the mandatory bit, to learn whether a queue takes a message
    verify_routing: bool,
    /// true if a duplicate renews its id's TTL
    refresh_on_duplicate: bool,
    /// publishes that may wait for the outcome of one id
    waiters_per_id: usize,
    /// the exchange that publishes go to instead of theirs
    forward_to: Option<String>,
    /// true if the capacity follows the traffic
    auto: bool,
    /// the change of the capacity that is under way; null if there is none
    resizing: Option<Resizing>,
    #[serde(flatten)]
    facts: Facts,
}

impl WindowFacts {
    fn of(admin: &Admin, found: ConfiguredWindow, now: Instant) -> WindowFacts {
        let ConfiguredWindow { watched, configured } = found;
        let (window, rules) = (&watched.window, watched.window.rules());
        let is_sequence = rules.id == IdSource::Sequence;
        WindowFacts {
            name: rules.name.to_string(),
            judges: configured.judges,
            vhost: configured.vhost.as_str().to_owned(),
            exchange: if configured.is_guard() {
                String::new()
            } else {
                configured.exchange.as_str().to_owned()
            },
            queue: configured.is_guard().then(|| configured.exchange.as_str().to_owned()),
            id: rules.id.to_string(),
            scope: rules.scope,
            quota: rules.quota,
            engine: configured.engine,
            mode: window.mode(),
            in_doubt: rules.in_doubt,
            missing_id: rules.missing_id,
            on_conflict: rules.on_conflict,
            on_duplicate: rules.signals.on_duplicate,
            duplicates_to: rules.signals.duplicates_to.as_deref().map(str::to_owned),
            audit: rules.signals.audit,
            on_gap: is_sequence.then_some(rules.numbering.on_gap),
            places: is_sequence.then_some(rules.numbering.places),
            republish: rules.republish,
            release: rules.release,
            confirms: rules.confirms,
            verify_routing: rules.verify_routing,
            refresh_on_duplicate: window.refreshes_on_duplicate(),
            waiters_per_id: window.waiters_per_id(),
            forward_to: rules.forward_to.as_deref().map(str::to_owned),
            auto: admin.running.budget.is_auto(&rules.name),
            resizing: admin
                .running
                .target(&rules.name)
                .map(|to| Resizing { to, left: window.entries().unwrap_or(0).saturating_sub(to) }),
            facts: watched.facts(now),
        }
    }
}

impl Admin {
    /// Returns all windows in the order of the configuration.
    pub(in crate::admin) fn windows(&self, now: Instant) -> Vec<WindowFacts> {
        self.all_windows().map(|found| WindowFacts::of(self, found, now)).collect()
    }

    /// Applies a change. The change was already found valid.
    fn apply(
        self: &Arc<Admin>,
        name: &str,
        change: Change,
        caller: Caller,
    ) -> Result<WindowFacts, Complaint> {
        let found = self.find(name)?;
        let window = &found.watched.window;
        let _one_at_a_time = self.running.changing.lock();
        self.journal_before(&found.watched);
        let (ttl_before, mode_before, ids_before) = (window.ttl(), window.mode(), window.capacity());
        if matches!(change.capacity, Some(Capacity::Ids(_))) && ids_before.is_none() {
            return Err(cannot("change its capacity"));
        }
        let most = found.configured.rules.most_capacity();
        if change.capacity.and_then(Capacity::ids).is_some_and(|capacity| capacity > most) {
            let error = format!(
                "`capacity` is out of bounds; write a number from 1 to {most}: more producers take more memory than a window may"
            );
            return Err(unprocessable(name, vec![error]));
        }
        let log = |what: &str, from: &dyn tracing::Value, to: &dyn tracing::Value| {
            tracing::info!(target: "hapax::admin", peer = %caller, by = caller.by, window = name, from, to, "{what} changed");
        };
        let was_auto = self.running.budget.is_auto(name);
        // Change the capacity's mode first: this is the only step that can still be refused.
        if let Some(capacity) = change.capacity {
            self.running
                .budget
                .set_auto(name, capacity == Capacity::Auto)
                .map_err(|refused| unprocessable(name, vec![format!("`capacity`: {refused}")]))?;
            match (was_auto, ids_before.unwrap_or_default(), capacity) {
                (false, from, Capacity::Ids(to)) => log("capacity", &from, &to),
                (true, _, Capacity::Ids(to)) => log("capacity", &AUTO, &to),
                (false, from, Capacity::Auto) => log("capacity", &from, &AUTO),
                (true, _, Capacity::Auto) => log("capacity", &AUTO, &AUTO),
            }
        }
        if let Some(ttl) = change.ttl {
            window.set_ttl(ttl);
            log("ttl", &span(ttl_before), &span(ttl));
        }
        if let Some(mode) = change.mode {
            window.set_mode(mode);
            log("mode", &mode_before.name(), &mode.name());
        }
        // The budget's own changes are not announced: each relay sizes its windows by its own memory.
        let announced = [
            change.capacity.and_then(Capacity::ids).map(Setting::Capacity),
            change.ttl.map(Setting::Ttl),
            change.mode.map(Setting::Mode),
        ];
        let settings = announced.into_iter().flatten();
        settings.for_each(|setting| window.announce(caller.change(setting), Now::read().instant));
        match change.capacity {
            // The budget no longer sizes this window, so nobody else resizes it at the same time.
            Some(Capacity::Ids(capacity)) => {
                self.running.resize(&found.watched, &found.configured, capacity);
            }
            Some(Capacity::Auto) => self.running.give_up_resizing(name),
            None => {}
        }
        self.journal_settings(&found.watched, caller);
        Ok(WindowFacts::of(self, found, Now::read().instant))
    }
}

/// The list of windows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Windows {
    /// in the order of the configuration
    windows: Vec<WindowFacts>,
}

/// The columns of the windows as CSV.
const COLUMNS: [&str; 28] = [
    "name",
    "vhost",
    "exchange",
    "id",
    "scope",
    "engine",
    "mode",
    "auto",
    "level",
    "entries",
    "capacity",
    "in_flight",
    "ttl_seconds",
    "pressure",
    "coverage",
    "effective_seconds",
    "bytes",
    "recommended_capacity",
    "fresh_per_second",
    "duplicate_per_second",
    "escaped_per_second",
    "fresh",
    "duplicate",
    "escaped_duplicates",
    "no_id",
    "store",
    "judges",
    "queue",
];

impl WindowFacts {
    fn cells(self) -> [Cell; 28] {
        let WindowFacts { facts, .. } = self;
        let (publishes, rates) = (facts.publishes, facts.rates);
        let store =
            facts.store.map(|store| format!("{} {}", store.kind, if store.up { "up" } else { "down" }));
        [
            Cell::Text(self.name),
            Cell::Text(self.vhost),
            Cell::Text(self.exchange),
            Cell::Text(self.id),
            Cell::word(self.scope),
            Cell::word(self.engine),
            Cell::word(self.mode),
            Cell::Text(self.auto.to_string()),
            Cell::word(facts.level),
            Cell::count(facts.entries),
            Cell::count(facts.capacity),
            Cell::count(facts.in_flight),
            Cell::Number(facts.ttl_seconds),
            Cell::number(facts.pressure),
            Cell::Number(facts.coverage),
            Cell::Number(facts.effective_seconds),
            Cell::Count(facts.bytes),
            Cell::count(facts.recommended_capacity),
            Cell::Number(rates.fresh),
            Cell::Number(rates.duplicate),
            Cell::Number(rates.escaped),
            Cell::Count(publishes.fresh),
            Cell::Count(publishes.duplicate),
            Cell::Count(facts.escaped_duplicates),
            Cell::Count(publishes.no_id),
            Cell::text(store),
            Cell::word(self.judges),
            Cell::text(self.queue),
        ]
    }
}

/// List all windows in the order of the configuration
///
/// As CSV, it has the facts that fit into one line.
#[utoipa::path(get, path = "/api/v1/windows", tag = "windows", security(("token" = [])),
    params(("format" = Option<String>, Query, description = "`json` or `csv`; otherwise what Accept names (json)")),
    responses((status = 200, content((Windows = "application/json"), (String = "text/csv"))),
        (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody)))]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Complaint> {
    let format = Format::asked(&Query::of(&uri, &["format"])?, &headers)?;
    let windows = admin.windows(Now::read().instant);
    if format == Format::Json {
        return Ok(Json(Windows { windows }).into_response());
    }
    let head = csv::head(&COLUMNS);
    Ok(csv::answer("hapax-windows.csv", head, windows.into_iter(), |windows| {
        Some(csv::line(&windows.next()?.cells()))
    }))
}

/// Show one window
#[utoipa::path(get, path = "/api/v1/windows/{name}", tag = "windows", security(("token" = [])),
    params(("name" = String, Path, description = "the window's name")),
    responses((status = 200, body = WindowFacts), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 404, body = ComplaintBody)))]
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<WindowFacts>, Complaint> {
    Ok(Json(WindowFacts::of(&admin, admin.find(&name)?, Now::read().instant)))
}

/// Change capacity, TTL or mode of a running window: either everything in the body, or nothing
///
/// A smaller capacity evicts, least recently seen ids first. If these are many, the answer comes after half a second, with
/// `resizing`, and the rest goes on behind it. A larger one keeps all ids. A TTL applies to ids
/// that are stored from now on. The configuration file is not written, so a restart or a reload
/// undoes the change.
#[utoipa::path(patch, path = "/api/v1/windows/{name}", tag = "windows", security(("admin" = [])),
    params(("name" = String, Path, description = "the window's name")), request_body = Change,
    responses((status = 200, body = WindowFacts), (status = 400, body = ComplaintBody),
        (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody), (status = 404, body = ComplaintBody),
        (status = 413, body = ComplaintBody), (status = 415, body = ComplaintBody), (status = 422, body = ComplaintBody)))]
pub(super) async fn patch(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Json<WindowFacts>, Complaint> {
    admin.find(&name)?;
    let change = Change::parse(&name, &body, &admin.running.budget)?;
    aside(move || admin.apply(&name, change, caller)).await.map(Json)
}

/// The result of a flush.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Flushed {
    /// how many ids were forgotten
    flushed: usize,
}

/// Forget all ids of a window. Ids in flight stay in flight
#[utoipa::path(post, path = "/api/v1/windows/{name}/flush", tag = "windows", security(("admin" = [])),
    params(("name" = String, Path, description = "the window's name")),
    responses((status = 200, body = Flushed), (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody),
        (status = 404, body = ComplaintBody), (status = 415, body = ComplaintBody)))]
pub(super) async fn flush(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Flushed>, Complaint> {
    aside(move || {
        let found = admin.find(&name)?;
        let _one_at_a_time = admin.running.changing.lock();
        let (window, now) = (&found.watched.window, Now::read().instant);
        let flushed = window.flush(now).ok_or_else(|| cannot("be flushed"))?;
        window.announce(caller.change(Setting::Flushed), now);
        let text = format!("flushed: {flushed} ids forgotten");
        admin.journal.add(Kind::Flush, Some(&name), &text, Some(caller.shown()));
        tracing::info!(target: "hapax::admin", peer = %caller, by = caller.by, window = name, flushed, "flushed");
        Ok(Json(Flushed { flushed }))
    })
    .await
}
