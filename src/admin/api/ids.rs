//! `/api/v1/windows/{name}/ids/{id}`: looks up one id, or forgets it.
//!
//! A request names the id as the publisher did, not its key: the secret of the digest never leaves the process.

use super::message::{self, Place};
use super::query::{Query, bad, last_part};
use super::{ConfiguredWindow, aside, cannot, store_may_know_more};
use crate::admin::Admin;
use crate::admin::auth::Caller;
use crate::admin::clock::Now;
use crate::admin::complaint::{Complaint, ComplaintBody};
use crate::admin::journal::Kind;
use axum::extract::State;
use axum::http::Uri;
use axum::{Extension, Json};
use hapax_core::window::set::Pattern;
use hapax_core::window::{Found, Key, Scope, Setting};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The vhost that every broker has from the start.
const VHOST: &[u8] = b"/";

/// Everything that is known about an id.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
pub(super) struct Id {
    /// the id
    id: String,
    /// the state of the id
    state: IdState,
    /// when it was stored, or when a duplicate last renewed it
    seen_at: Option<String>,
    /// how long ago that is
    age_seconds: Option<f64>,
    /// duplicates of it since it was stored
    duplicates: u32,
    /// when it will be forgotten, unless it is evicted earlier
    expires_at: Option<String>,
    /// in how many seconds that is
    expires_in_seconds: Option<f64>,
    /// true: it is not known in this process, and the window's store may know it. It is Redis, which is asked when the id is published, or
    /// a log that is being read
    store_may_know_more: bool,
}

/// The state of an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum IdState {
    /// stored: a publish of it would be a duplicate
    Seen,
    /// published, and the outcome is not known yet
    InFlight,
    /// neither seen nor in flight: a publish of it would be fresh, unless the window's store knows it
    Unknown,
}

/// Whether the id was known.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Forgotten {
    /// true if the id was seen before; now it is forgotten
    forgotten: bool,
    /// true: it was not known in this process, but the window's store may have known it. It is forgotten there, too
    store_may_know_more: bool,
}

/// Returns the id, and all keys that a delivery with this id from a guarded queue may have.
fn keys_of_guard(
    admin: &Admin,
    found: &ConfiguredWindow,
    uri: &Uri,
) -> Result<(Vec<u8>, Vec<Key>), Complaint> {
    let [part, _, death] = message::KNOWN;
    let query = Query::of(uri, &["vhost", "queue", part, death])?;
    let rules = &found.configured.rules;
    let vhost = vhost_of(found, &query)?;
    let queue = match (query.get("queue"), &found.configured.exchange) {
        (Some(given), pattern) => fitting("queue", given, pattern, &rules.name)?,
        (None, pattern) if pattern.is_literal() => pattern.as_str().as_bytes(),
        (None, pattern) => return Err(missing("queue", pattern, &rules.name)),
    };
    let id = last_part(uri);
    let scoped = admin.keys.scoped_to_queue(vhost, queue);
    let place = Place { scope: Scope::Vhost, source: &rules.id, exchange: b"", routing_key: b"" };
    let keys = message::keys(scoped, place, &id, &query)?;
    Ok((id, keys))
}

fn vhost_of<'a>(found: &'a ConfiguredWindow, query: &'a Query) -> Result<&'a [u8], Complaint> {
    let name = &found.configured.rules.name;
    match (query.get("vhost"), &found.configured.vhost) {
        (Some(given), pattern) => fitting("vhost", given, pattern, name),
        (None, pattern) if pattern.is_literal() => Ok(pattern.as_str().as_bytes()),
        (None, pattern) if pattern.matches(VHOST) => Ok(VHOST),
        (None, pattern) => Err(missing("vhost", pattern, name)),
    }
}

/// Returns the id, and all keys that a publish with this id may have.
fn keys(admin: &Admin, found: &ConfiguredWindow, uri: &Uri) -> Result<(Vec<u8>, Vec<Key>), Complaint> {
    if found.configured.is_guard() {
        return keys_of_guard(admin, found, uri);
    }
    let [part, cc, death] = message::KNOWN;
    let query = Query::of(uri, &["vhost", "exchange", "routing_key", part, cc, death])?;
    let rules = &found.configured.rules;
    let (scope, name) = (rules.scope, &rules.name);
    let vhost = vhost_of(found, &query)?;
    let exchange = match (query.get("exchange"), &found.configured.exchange) {
        (_, _) if scope == Scope::Vhost => b"",
        (Some(given), pattern) => fitting("exchange", given, pattern, name)?,
        (None, pattern) if pattern.is_literal() => pattern.as_str().as_bytes(),
        (None, pattern) => return Err(missing("exchange", pattern, name)),
    };
    let routing_key = match query.get("routing_key") {
        _ if scope != Scope::RoutingKey => b"",
        Some(given) => given,
        None => {
            return Err(bad(format!(
                "window {name:?} tells ids apart by routing key: add ?routing_key=KEY (an empty one: ?routing_key=)"
            )));
        }
    };
    let id = last_part(uri);
    let scoped = admin.keys.scoped(scope, vhost, exchange, routing_key);
    let place = Place { scope, source: &rules.id, exchange, routing_key };
    let keys = message::keys(scoped, place, &id, &query)?;
    Ok((id, keys))
}

/// Decodes the window's name by hand: axum's `Path` would also insist that the id is UTF-8.
fn window_part(uri: &Uri) -> String {
    let part = uri.path().rsplit('/').nth(2).unwrap_or_default();
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn fitting<'a>(what: &str, given: &'a [u8], pattern: &Pattern, window: &str) -> Result<&'a [u8], Complaint> {
    if pattern.matches(given) {
        return Ok(given);
    }
    Err(bad(format!(
        "window {window:?} is for {what}s that fit \"{}\", and \"{}\" does not: ask the window that judges it",
        pattern.as_str(),
        given.escape_ascii()
    )))
}

fn missing(what: &str, pattern: &Pattern, window: &str) -> Complaint {
    let hint = if what == "exchange" { " (the default exchange: ?exchange=)" } else { "" };
    bad(format!(
        "window {window:?} is for every {what} that fits \"{}\", so the {what} must be named: add ?{what}=NAME{hint}",
        pattern.as_str()
    ))
}

/// Look up an id
///
/// An unknown id is not an error. `{id}` is percent-encoded (a slash is %2F). The vhost is the window's own, or else
/// `/`.
#[utoipa::path(get, path = "/api/v1/windows/{name}/ids/{id}", tag = "ids", security(("token" = [])),
    params(("name" = String, Path, description = "the window's name"), ("id" = String, Path, description = "the id, percent-encoded"),
        ("exchange" = Option<String>, Query, description = "the exchange that the id is published to; needed unless the window is for one exchange, or its scope is the vhost"),
        ("queue" = Option<String>, Query, description = "of a guard: the queue; needed unless the guard is for one queue"),
        ("routing_key" = Option<String>, Query, description = "needed if the window's scope is the routing key"),
        ("part" = Option<Vec<String>>, Query, description = "where an id has several parts: one beyond the first, as in `header:type=order`; several are given one by one"),
        ("cc" = Option<Vec<String>>, Query, description = "a routing key that the message has in CC or BCC; several are given one by one"),
        ("death" = Option<String>, Query, description = "of a message that was dead-lettered: the first entry of its x-death, as JSON"),
        ("vhost" = Option<String>, Query, description = "default: the window's own vhost, or / if the window matches several and / is one of them")),
    responses((status = 200, body = Id), (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 404, body = ComplaintBody)))]
pub(super) async fn show(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Json<Id>, Complaint> {
    let found = admin.find(&window_part(&uri))?;
    let (id, keys) = keys(&admin, &found, &uri)?;
    let (window, now) = (&found.watched.window, Now::read());
    let find = |key: &Key| window.find((*key).into(), now.instant);
    let found: Vec<Found> =
        keys.iter().map(find).collect::<Option<_>>().ok_or_else(|| cannot("look up an id"))?;
    let seen = found.iter().find_map(|found| match found {
        Found::Seen(seen) => Some(*seen),
        Found::InFlight | Found::Unknown => None,
    });
    let state = match seen {
        Some(_) => IdState::Seen,
        None if found.contains(&Found::InFlight) => IdState::InFlight,
        None => IdState::Unknown,
    };
    Ok(Json(Id {
        id: String::from_utf8_lossy(&id).into_owned(),
        state,
        seen_at: seen.map(|seen| now.iso(seen.at)),
        age_seconds: seen.map(|seen| now.since(seen.at)),
        duplicates: seen.map_or(0, |seen| seen.duplicates),
        expires_at: seen.map(|seen| now.iso(seen.until)),
        expires_in_seconds: seen.map(|seen| now.until(seen.until)),
        store_may_know_more: state == IdState::Unknown && store_may_know_more(&**window, now.instant),
    }))
}

/// Forget an id: its next publish is fresh. An id in flight stays in flight
#[utoipa::path(delete, path = "/api/v1/windows/{name}/ids/{id}", tag = "ids", security(("admin" = [])),
    params(("name" = String, Path, description = "the window's name"), ("id" = String, Path, description = "the id, percent-encoded"),
        ("exchange" = Option<String>, Query, description = "the exchange that the id is published to; needed unless the window is for one exchange, or its scope is the vhost"),
        ("queue" = Option<String>, Query, description = "of a guard: the queue; needed unless the guard is for one queue"),
        ("routing_key" = Option<String>, Query, description = "needed if the window's scope is the routing key"),
        ("part" = Option<Vec<String>>, Query, description = "where an id has several parts: one beyond the first, as in `header:type=order`; several are given one by one"),
        ("cc" = Option<Vec<String>>, Query, description = "a routing key that the message has in CC or BCC; several are given one by one"),
        ("death" = Option<String>, Query, description = "of a message that was dead-lettered: the first entry of its x-death, as JSON"),
        ("vhost" = Option<String>, Query, description = "default: the window's own vhost, or / if the window matches several and / is one of them")),
    responses((status = 200, body = Forgotten), (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 404, body = ComplaintBody), (status = 415, body = ComplaintBody)))]
pub(super) async fn forget(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Json<Forgotten>, Complaint> {
    aside(move || {
        let name = window_part(&uri);
        let found = admin.find(&name)?;
        let (id, keys) = keys(&admin, &found, &uri)?;
        let now = Now::read().instant;
        // Forget every key, whether or not the one before it was known.
        let forget = |key: Key| found.watched.window.forget(key.into(), now);
        let each: Vec<bool> =
            keys.into_iter().map(forget).collect::<Option<_>>().ok_or_else(|| cannot("forget an id"))?;
        found.watched.window.announce(caller.change(Setting::Forgotten), now);
        let forgotten = each.contains(&true);
        let id = String::from_utf8_lossy(&id);
        let store_may_know_more = !forgotten && store_may_know_more(&*found.watched.window, now);
        let text = match (forgotten, store_may_know_more) {
            (true, _) => format!("id {id} forgotten"),
            (_, true) => format!("id {id} forgotten, if the store knew it"),
            _ => format!("id {id} was not there to forget"),
        };
        admin.journal.add(Kind::Forget, Some(&name), &text, Some(caller.shown()));
        tracing::info!(target: "hapax::admin", peer = %caller, by = caller.by, window = name, %id, forgotten, "id forgotten");
        Ok(Json(Forgotten { forgotten, store_may_know_more }))
    })
    .await
}
