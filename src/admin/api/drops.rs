//! `/api/v1/drops`: the last duplicates that clients have sent, and the same as they come. They are a sample
//! ([`crate::net::Duplicates`]): `left_out` says how many are not shown.
//!
//! Nothing is done for a follower until it reads: it asks the list again each half second, and what the list has lost meanwhile it
//! misses. The age of an id and the number of its duplicates are looked up in the window when somebody asks for them, never while a
//! publish is judged.

use super::query::Query;
use crate::admin::Admin;
use crate::admin::activity::Activity;
use crate::admin::clock::Now;
use crate::admin::complaint::{Complaint, ComplaintBody};
use crate::net::{KEPT, SeenDuplicate};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream;
use hapax_core::session::{Sighted, Sighting};
use hapax_core::window::{Found, OnConflict};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::ToSchema;

/// Duplicates in an answer if the request does not say how many.
const SHOWN: usize = 100;
/// The most followers at a time.
const FOLLOWERS: usize = 16;
/// How often a follower asks the list.
const EVERY: Duration = Duration::from_millis(500);
/// A follower hears something this often, so that it knows that the relay lives.
const BEATS: u32 = 20;

/// The last duplicates.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Drops {
    /// oldest first
    drops: Vec<DropEntry>,
    /// the number of the last one: give it as `after` to get those that come later
    last: u64,
}

/// A publish of a known id.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DropEntry {
    /// counts from 1; a number is never given twice while the process lives
    number: u64,
    /// when it came
    at: String,
    /// how long ago that is
    age_seconds: f64,
    /// `dropped`, `refused`, or `forwarded` (the window only observes, or forwards conflicts)
    outcome: &'static str,
    /// true if its body is not the one that was stored under the id
    conflict: bool,
    /// the window
    window: String,
    /// the first 255 octets of the id; the parts of one that has several stand one after the other
    id: String,
    /// the publisher's vhost
    vhost: String,
    /// the exchange that it was published to; empty is the default exchange
    exchange: String,
    /// routing key
    routing_key: String,
    /// the publisher's user, if it is known
    user: Option<String>,
    /// the address that the publisher connects from
    #[schema(example = "10.0.0.7:51422")]
    peer: String,
    /// when the id was stored (or last renewed by a duplicate, where the window does that); absent if it is forgotten by now
    first_seen_at: Option<String>,
    /// how long ago that is
    first_seen_seconds: Option<f64>,
    /// duplicates of the id since then
    duplicates: Option<u32>,
    /// duplicates that are not shown, since the one before
    left_out: u64,
}

/// Places for followers.
#[derive(Debug)]
pub(in crate::admin) struct Followers(Arc<Semaphore>);

impl Default for Followers {
    fn default() -> Followers {
        Followers(Arc::new(Semaphore::new(FOLLOWERS)))
    }
}

fn outcome(what: Sighted) -> &'static str {
    match what {
        Sighted::Dropped | Sighted::Conflict(OnConflict::Drop) => "dropped",
        Sighted::Conflict(OnConflict::Reject) => "refused",
        Sighted::Passed | Sighted::Observed | Sighted::Conflict(OnConflict::Forward) => "forwarded",
    }
}

impl Admin {
    fn show_drop(&self, seen: &SeenDuplicate, now: &Now) -> DropEntry {
        let Sighting { what, window, claim, id, vhost, exchange, routing_key, .. } = &*seen.sighting;
        let named = self.all_windows().find(|found| found.configured.rules.name == *window);
        let known = match named.and_then(|found| found.watched.window.find(*claim, now.instant)) {
            Some(Found::Seen(known)) => Some(known),
            Some(Found::InFlight | Found::Unknown) | None => None,
        };
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        DropEntry {
            number: seen.number,
            at: now.iso(seen.at),
            age_seconds: now.since(seen.at),
            outcome: outcome(*what),
            conflict: what.is_conflict(),
            window: window.to_string(),
            id: text(id),
            vhost: text(vhost),
            exchange: text(exchange),
            routing_key: text(routing_key),
            user: seen.user.as_deref().map(str::to_owned),
            peer: seen.peer.to_string(),
            first_seen_at: known.map(|known| now.iso(known.at)),
            first_seen_seconds: known.map(|known| now.since(known.at)),
            duplicates: known.map(|known| known.duplicates),
            left_out: seen.left_out,
        }
    }

    fn drops(&self, after: u64, limit: usize) -> Drops {
        let (last, seen) = self.connections.duplicates.after(after, limit);
        let now = Now::read();
        Drops { drops: seen.iter().map(|seen| self.show_drop(seen, &now)).collect(), last }
    }
}

/// List the last duplicates that clients have sent, oldest first
///
/// They are a sample: a few a second of each connection, and at most 500 of the process.
#[utoipa::path(get, path = "/api/v1/drops", tag = "connections", security(("token" = [])),
    params(("limit" = Option<usize>, Query, description = "the newest, up to 500 (100)"),
        ("after" = Option<u64>, Query, description = "only those with a larger number (0)")),
    responses((status = 200, body = Drops), (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody)))]
pub(super) async fn list(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Json<Drops>, Complaint> {
    let query = Query::of(&uri, &["limit", "after"])?;
    let limit = query.number("limit", SHOWN, KEPT)?;
    let after = query.number("after", 0, usize::MAX)?;
    Ok(Json(admin.drops(after as u64, limit)))
}

/// Stream the duplicates that clients send from now on, as server-sent events
///
/// Each event is named `drop`, and its data is one of the entries that `/api/v1/drops` lists.
#[utoipa::path(get, path = "/api/v1/drops/events", tag = "connections", security(("token" = [])),
    responses((status = 200, body = DropEntry, content_type = "text/event-stream"), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 503, body = ComplaintBody)))]
pub(super) async fn stream(
    State(admin): State<Arc<Admin>>,
    activity: Option<Extension<Arc<Activity>>>,
) -> Result<Response, Complaint> {
    let place = Arc::clone(&admin.followers.0).try_acquire_owned().map_err(|_| {
        let text = format!("{FOLLOWERS} follow the drops already: end one of them, or read /api/v1/drops");
        Complaint::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    if let Some(Extension(activity)) = activity {
        activity.keep_short();
    }
    let (last, _) = admin.connections.duplicates.after(0, 0);
    let follower = Follower { admin, last, begun: false, _place: place };
    let events = stream::unfold(follower, async |mut follower| Some((follower.next().await, follower)));
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response())
}

struct Follower {
    admin: Arc<Admin>,
    /// the number of the last one that it has got
    last: u64,
    begun: bool,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// Waits for duplicates. Returns their events, or a comment if there were none for long.
    async fn next(&mut self) -> Result<Bytes, Infallible> {
        // The first comment comes at once: the follower gets every duplicate of the list from now on.
        let beats = if std::mem::replace(&mut self.begun, true) { BEATS } else { 0 };
        for _ in 0..beats {
            tokio::time::sleep(EVERY).await;
            let Drops { drops, last } = self.admin.drops(self.last, KEPT);
            self.last = last;
            let events: Vec<String> = drops.iter().filter_map(event).collect();
            if !events.is_empty() {
                return Ok(Bytes::from(events.concat()));
            }
        }
        Ok(Bytes::from_static(b": nothing\n\n"))
    }
}

/// JSON text has no line breaks, which would end the event.
fn event(drop: &DropEntry) -> Option<String> {
    serde_json::to_string(drop).ok().map(|json| format!("event: drop\ndata: {json}\n\n"))
}
