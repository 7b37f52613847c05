//! `/api/v1/connections`: lists the open client connections, and closes one.

use super::csv::{self, Cell, Format};
use super::query::{Query, bad, last_part};
use crate::admin::Admin;
use crate::admin::auth::Caller;
use crate::admin::clock::Now;
use crate::admin::complaint::{Complaint, ComplaintBody};
use crate::admin::journal::Kind;
use crate::net::{ConnectionEntry, ConnectionState};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Connections on a page if the request does not say how many.
const PAGE: usize = 100;
/// The most connections on a page.
const PAGE_MOST: usize = 1000;
/// Connections in a piece of the CSV.
const PIECE: usize = 500;
/// The most bytes of a reason to close a connection. With the text in front of it, it fits into AMQP's reply-text.
const REASON: usize = 200;
/// The reason if the operator gives none.
const NO_REASON: &str = "closed by an operator of hapax";

/// A page of connections.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Connections {
    /// oldest first
    connections: Vec<Connection>,
    /// how many there are on all pages
    total: usize,
}

/// A client connection.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Connection {
    /// counts from 1; a number is never given twice while the process lives
    id: u64,
    /// the address that the client connects from, `IP:PORT`
    #[schema(example = "10.0.0.7:51422")]
    peer: String,
    /// the user's name, if the mechanism shows it; proven once the state is `open`
    user: Option<String>,
    /// the vhost, once the client has named it
    vhost: Option<String>,
    /// the broker's node that it leads to, `HOST:PORT`, once that has answered
    upstream: Option<String>,
    /// when the connection was accepted
    since: String,
    /// how long ago that is
    age_seconds: f64,
    /// how the client describes itself
    client: ClientProperties,
    /// open channels
    channels: u64,
    /// publishes whose outcome is not known yet
    unresolved: u64,
    /// publishes since the connection was opened, dropped ones included
    publishes: u64,
    /// how many of them were duplicates: dropped, or forwarded because their window only observes
    duplicates: u64,
    /// messages that the broker has sent to the client
    deliveries: u64,
    /// bytes read from the client
    bytes_in: u64,
    /// bytes written to the client
    bytes_out: u64,
    /// `handshake`, `open`, `paused` (not read from: its buffers are full, or a limit is reached), `closing`, or
    /// `lingering` (the client has gone; the outcomes of its publishes are still awaited)
    #[schema(value_type = String, example = "open")]
    state: ConnectionState,
}

/// How a client describes itself. Nobody has verified it.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct ClientProperties {
    /// the client library
    product: Option<String>,
    /// the library's version
    version: Option<String>,
    /// the platform that it runs on
    platform: Option<String>,
    /// the name that the application gives the connection
    connection_name: Option<String>,
}

impl Connection {
    fn of(entry: &ConnectionEntry, now: &Now) -> Connection {
        let (about, numbers) = (entry.about(), entry.numbers());
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        Connection {
            id: entry.id,
            peer: entry.peer.to_string(),
            user: about.and_then(|about| text(&about.user)),
            vhost: entry.vhost().map(|vhost| String::from_utf8_lossy(vhost).into_owned()),
            upstream: entry.upstream().map(str::to_owned),
            since: now.iso(entry.since),
            age_seconds: now.since(entry.since),
            client: about.map_or_else(ClientProperties::default, |about| ClientProperties {
                product: text(&about.product),
                version: text(&about.version),
                platform: text(&about.platform),
                connection_name: text(&about.connection_name),
            }),
            channels: numbers.channels,
            unresolved: numbers.unresolved,
            publishes: numbers.publishes,
            duplicates: numbers.duplicates,
            deliveries: numbers.deliveries,
            bytes_in: numbers.bytes_in,
            bytes_out: numbers.bytes_out,
            state: numbers.state,
        }
    }
}

const COLUMNS: [&str; 19] = [
    "id",
    "peer",
    "user",
    "vhost",
    "upstream",
    "since",
    "age_seconds",
    "product",
    "version",
    "platform",
    "connection_name",
    "state",
    "channels",
    "unresolved",
    "publishes",
    "duplicates",
    "deliveries",
    "bytes_in",
    "bytes_out",
];

impl Connection {
    fn cells(self) -> [Cell; 19] {
        let client = self.client;
        [
            Cell::Count(self.id),
            Cell::Text(self.peer),
            Cell::text(self.user),
            Cell::text(self.vhost),
            Cell::text(self.upstream),
            Cell::Text(self.since),
            Cell::Number(self.age_seconds),
            Cell::text(client.product),
            Cell::text(client.version),
            Cell::text(client.platform),
            Cell::text(client.connection_name),
            Cell::word(self.state),
            Cell::Count(self.channels),
            Cell::Count(self.unresolved),
            Cell::Count(self.publishes),
            Cell::Count(self.duplicates),
            Cell::Count(self.deliveries),
            Cell::Count(self.bytes_in),
            Cell::Count(self.bytes_out),
        ]
    }
}

/// List client connections, oldest first
///
/// As CSV, it has all of them.
#[utoipa::path(get, path = "/api/v1/connections", tag = "connections", security(("token" = [])),
    params(("limit" = Option<usize>, Query, description = "the most connections, up to 1000 (100)"),
        ("offset" = Option<usize>, Query, description = "how many to skip (0)"),
        ("format" = Option<String>, Query, description = "`json` or `csv`; otherwise what Accept names (json)")),
    responses((status = 200, content((Connections = "application/json"), (String = "text/csv"))), (status = 400, body = ComplaintBody),
        (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody)))]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Complaint> {
    let query = Query::of(&uri, &["limit", "offset", "format"])?;
    if Format::asked(&query, &headers)? == Format::Csv {
        // There may be many thousands of them, so no more than a piece is in memory.
        return Ok(csv::answer("hapax-connections.csv", csv::head(&COLUMNS), 0, move |last| {
            let piece = admin.connections.after(*last, PIECE);
            *last = piece.last()?.id;
            let now = Now::read();
            Some(piece.iter().map(|entry| csv::line(&Connection::of(entry, &now).cells())).collect())
        }));
    }
    let limit = query.number("limit", PAGE, PAGE_MOST)?;
    let (total, page) = admin.connections.page(query.number("offset", 0, usize::MAX)?, limit);
    let now = Now::read();
    let connections = page.iter().map(|entry| Connection::of(entry, &now)).collect();
    Ok(Json(Connections { connections, total }).into_response())
}

/// A connection that closes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Closing {
    /// the connection as it was
    closing: Connection,
    /// the reason that its client gets
    reason: String,
}

/// Close a client connection
///
/// Its client gets `connection.close` with 320 CONNECTION_FORCED and the reason, and what it sends from now on is not read. Hapax
/// still waits for the broker's answers, so it recognises a retry of a message that the broker has acked.
#[utoipa::path(delete, path = "/api/v1/connections/{id}", tag = "connections", security(("admin" = [])),
    params(("id" = u64, Path, description = "the connection's number"),
        ("reason" = Option<String>, Query, description = "what the client is told, up to 200 bytes")),
    responses((status = 200, body = Closing), (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 404, body = ComplaintBody), (status = 415, body = ComplaintBody)))]
pub(super) async fn close(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Json<Closing>, Complaint> {
    let query = Query::of(&uri, &["reason"])?;
    let reason = reason(query.get("reason"))?;
    let id = last_part(&uri);
    let id = String::from_utf8_lossy(&id);
    let entry = id.parse().ok().and_then(|id| admin.connections.close(id, &reason)).ok_or_else(|| {
        let text = format!("there is no open connection {id:?}; /api/v1/connections lists them");
        Complaint::new(StatusCode::NOT_FOUND, text)
    })?;
    let closing = Connection::of(&entry, &Now::read());
    let user = closing.user.as_deref().unwrap_or_default();
    tracing::info!(target: "hapax::admin", peer = %caller, by = caller.by, connection = entry.id, client = closing.peer, user, reason, "connection closed");
    let of = if user.is_empty() { String::new() } else { format!(" of {user}") };
    let text = format!("connection {} from {}{of}: {reason}", entry.id, closing.peer);
    admin.journal.add(Kind::Close, None, &text, Some(caller.shown()));
    Ok(Json(Closing { closing, reason }))
}

fn reason(given: Option<&[u8]>) -> Result<String, Complaint> {
    let Some(given) = given.filter(|given| !given.trim_ascii().is_empty()) else {
        return Ok(NO_REASON.to_owned());
    };
    let text = std::str::from_utf8(given).ok().filter(|text| !text.chars().any(char::is_control));
    match text {
        Some(text) if text.len() <= REASON => Ok(text.trim().to_owned()),
        Some(text) => Err(bad(format!("?reason= has {} bytes; write at most {REASON}", text.len()))),
        None => Err(bad("?reason= is no text, or has control characters in it")),
    }
}
