//! `/api/v1/connections`: lists the open client connections.

use super::query::Query;
use crate::admin::Admin;
use crate::admin::clock::Now;
use crate::admin::complaint::{Complaint, ComplaintBody};
use crate::net::{ConnectionEntry, ConnectionState};
use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Connections on a page if the request does not say how many.
const PAGE: usize = 100;
/// The most connections on a page.
const PAGE_MOST: usize = 1000;

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
            bytes_in: numbers.bytes_in,
            bytes_out: numbers.bytes_out,
            state: numbers.state,
        }
    }
}

/// List client connections, oldest first
#[utoipa::path(get, path = "/api/v1/connections", tag = "connections", security(("token" = [])),
    params(("limit" = Option<usize>, Query, description = "the most connections, up to 1000 (100)"),
        ("offset" = Option<usize>, Query, description = "how many to skip (0)")),
    responses((status = 200, body = Connections), (status = 400, body = ComplaintBody),
        (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody)))]
pub(super) async fn list(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Json<Connections>, Complaint> {
    let query = Query::of(&uri, &["limit", "offset"])?;
    let limit = query.number("limit", PAGE, PAGE_MOST)?;
    let (total, page) = admin.connections.page(query.number("offset", 0, usize::MAX)?, limit);
    let now = Now::read();
    Ok(Json(Connections {
        connections: page.iter().map(|entry| Connection::of(entry, &now)).collect(),
        total,
    }))
}
