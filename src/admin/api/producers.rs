//! `/api/v1/windows/{name}/producers`: the producers of a window with `id = "sequence"`.

use super::query::{Query, bad};
use super::{ConfiguredWindow, aside, store_may_know_more};
use crate::admin::Admin;
use crate::admin::auth::Caller;
use crate::admin::clock::Now;
use crate::admin::complaint::{Complaint, ComplaintBody};
use crate::admin::journal::Kind;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::{Extension, Json};
use hapax_core::window::{Key, ProducerFacts, ProducerKey, Setting};
use hapax_core::wire::IdSource;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Producers in one answer, unless the request says how many.
const LIMIT: usize = 100;
/// Producers in one answer at most.
const MOST: usize = 10_000;

/// The producers of a window.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Producers {
    /// how many the window remembers
    entries: u64,
    /// how many it has room for
    capacity: u64,
    /// true: these are the producers in the memory of this process, and the window's store may know more. It is Redis, which is asked about
    /// each number, or a log that is being read
    store_may_know_more: bool,
    /// those that were seen last first
    producers: Vec<Producer>,
}

/// One producer of a window.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Producer {
    /// what the window knows it by: a digest of its name and its scope, in hexadecimal digits
    key: String,
    /// the first 64 bytes of its name; null until it publishes again, if the window knows it from a store
    name: Option<String>,
    /// its epoch: publishes of a lower one are refused
    epoch: u64,
    /// the highest number of this epoch that was stored; null before the first
    highest: Option<u64>,
    /// how many of the numbers that are known one by one are not stored: holes, gaps, and those in flight
    open: u64,
    /// numbers in flight
    in_flight: u32,
    /// duplicates since it became known
    duplicates: u32,
    /// since it was seen last
    idle_seconds: f64,
    /// how long it will be remembered if it is not seen again
    expires_in_seconds: f64,
}

impl From<ProducerFacts> for Producer {
    fn from(facts: ProducerFacts) -> Producer {
        Producer {
            key: format!("{:?}", facts.key),
            name: facts.name.map(|name| String::from_utf8_lossy(&name).into_owned()),
            epoch: facts.epoch,
            highest: facts.highest,
            open: facts.open,
            in_flight: facts.in_flight,
            duplicates: facts.duplicates,
            idle_seconds: facts.idle.as_secs_f64(),
            expires_in_seconds: facts.left.as_secs_f64(),
        }
    }
}

/// Whether the producer was known.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ForgottenProducer {
    /// true if the producer was known before; now it is forgotten
    forgotten: bool,
    /// true: it was not known in this process, but the window's store may have known it. It is forgotten there, too
    store_may_know_more: bool,
}

/// Returns the window, if it has producers.
fn find(admin: &Admin, name: &str) -> Result<ConfiguredWindow, Complaint> {
    let found = admin.find(name)?;
    match &found.configured.rules.id {
        IdSource::Sequence => Ok(found),
        id => Err(Complaint::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("window {name:?} remembers ids ({id}), not producers: its `id` is not \"sequence\""),
        )),
    }
}

/// Reads the key of a producer.
fn key_of(text: &str) -> Result<ProducerKey, Complaint> {
    let digits = text.len() == 24 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let key = u128::from_str_radix(text, 16).ok().filter(|_| digits);
    key.map(|key| ProducerKey::new(Key(key))).ok_or_else(|| {
        bad(format!("{text:?} is no key of a producer: write the 24 digits that the list of producers shows"))
    })
}

/// List the producers of a window with `id = "sequence"`, those that were seen last first
#[utoipa::path(get, path = "/api/v1/windows/{name}/producers", tag = "producers", security(("token" = [])),
    params(("name" = String, Path, description = "the window's name"),
        ("containing" = Option<String>, Query, description = "only those whose name or key contains this text"),
        ("limit" = Option<usize>, Query, description = "at most so many: 100, unless it is given, and no more than 10000")),
    responses((status = 200, body = Producers), (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 404, body = ComplaintBody), (status = 422, body = ComplaintBody)))]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Json<Producers>, Complaint> {
    aside(move || {
        let window = find(&admin, &name)?.watched.window;
        let query = Query::of(&uri, &["containing", "limit"])?;
        let limit = query.number("limit", LIMIT, MOST)?;
        let containing = query.get("containing").map(String::from_utf8_lossy).unwrap_or_default();
        let now = Now::read().instant;
        let producers = window.producers(limit, &containing, now);
        Ok(Json(Producers {
            entries: window.entries().unwrap_or_default() as u64,
            capacity: window.capacity().unwrap_or_default() as u64,
            store_may_know_more: store_may_know_more(&*window, now),
            producers: producers.into_iter().map(Producer::from).collect(),
        }))
    })
    .await
}

/// Show one producer
#[utoipa::path(get, path = "/api/v1/windows/{name}/producers/{key}", tag = "producers", security(("token" = [])),
    params(("name" = String, Path, description = "the window's name"), ("key" = String, Path, description = "the producer's key, as the list shows it")),
    responses((status = 200, body = Producer), (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 404, body = ComplaintBody), (status = 422, body = ComplaintBody)))]
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path((name, key)): Path<(String, String)>,
) -> Result<Json<Producer>, Complaint> {
    let window = find(&admin, &name)?.watched.window;
    let now = Now::read().instant;
    let facts = window.producer(key_of(&key)?, now);
    let unknown = || {
        let but = match store_may_know_more(&*window, now) {
            true => {
                " in the memory of this process; its store may: look again when the producer has published here"
            }
            false => "",
        };
        Complaint::new(StatusCode::NOT_FOUND, format!("window {name:?} does not know producer {key}{but}"))
    };
    facts.map(|facts| Json(facts.into())).ok_or_else(unknown)
}

/// Forget a producer: its numbers and its epoch. Its numbers in flight stay in flight
#[utoipa::path(delete, path = "/api/v1/windows/{name}/producers/{key}", tag = "producers", security(("admin" = [])),
    params(("name" = String, Path, description = "the window's name"), ("key" = String, Path, description = "the producer's key, as the list shows it")),
    responses((status = 200, body = ForgottenProducer), (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 404, body = ComplaintBody), (status = 415, body = ComplaintBody),
        (status = 422, body = ComplaintBody)))]
pub(super) async fn forget(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path((name, key)): Path<(String, String)>,
) -> Result<Json<ForgottenProducer>, Complaint> {
    let window = find(&admin, &name)?.watched.window;
    let (producer, now) = (key_of(&key)?, Now::read().instant);
    let forgotten = window.forget_producer(producer, now).unwrap_or_default();
    window.announce(caller.change(Setting::Forgotten), now);
    let store_may_know_more = !forgotten && store_may_know_more(&*window, now);
    let text = match (forgotten, store_may_know_more) {
        (true, _) => format!("producer {key} forgotten"),
        (_, true) => format!("producer {key} forgotten, if the store knew it"),
        _ => format!("producer {key} was not there to forget"),
    };
    admin.journal.add(Kind::Forget, Some(&name), &text, Some(caller.shown()));
    tracing::info!(target: "hapax::admin", peer = %caller, by = caller.by, window = name, producer = key, forgotten, "producer forgotten");
    Ok(Json(ForgottenProducer { forgotten, store_may_know_more }))
}
