//! `/api/v1/upstreams`: the broker's nodes, and which of them take new connections.

use super::status::UPSTREAM_PATIENCE;
use crate::admin::Admin;
use crate::admin::complaint::ComplaintBody;
use crate::net::UpstreamNode;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The broker's nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Upstreams {
    /// in the order of the configuration
    upstreams: Vec<UpstreamFacts>,
}

/// A node of the broker.
#[derive(Clone, PartialEq, Debug, Serialize, ToSchema)]
#[schema(as = UpstreamNode)]
pub(in crate::admin) struct UpstreamFacts {
    /// `HOST:PORT`, as in the configuration
    #[schema(example = "rabbit-1.internal:5672")]
    address: String,
    /// `up`: it answered an AMQP handshake last; `down`: it did not; `unknown`: it was not asked yet
    #[schema(example = "up")]
    state: &'static str,
    /// why it is down
    error: Option<String>,
    /// how long ago it answered, or did not
    age_seconds: Option<f64>,
    /// how long it gets no new connections, as long as another node does; null if it gets some. When it is over, Hapax asks it again
    rest_seconds: Option<f64>,
    /// connections that are open
    connections: u64,
    /// connections that were opened for clients since the start
    opened: u64,
    /// attempts since the start that got no AMQP handshake: for clients, and to see whether it is alive
    failures: u64,
}

impl UpstreamFacts {
    fn of(node: &UpstreamNode) -> UpstreamFacts {
        UpstreamFacts {
            address: node.address.to_string(),
            state: match node.up {
                Some(true) => "up",
                Some(false) => "down",
                None => "unknown",
            },
            error: node.error.clone(),
            age_seconds: node.age.map(|age| age.as_secs_f64()),
            rest_seconds: node.rest.map(|rest| rest.as_secs_f64()),
            connections: node.connections,
            opened: node.opened,
            failures: node.failures,
        }
    }
}

impl Admin {
    /// Returns the broker's nodes.
    pub(in crate::admin) fn upstream_facts(&self) -> Vec<UpstreamFacts> {
        self.upstreams.nodes().iter().map(UpstreamFacts::of).collect()
    }
}

/// List the broker's nodes: which answer, which rest, and how many connections each has
#[utoipa::path(get, path = "/api/v1/upstreams", tag = "process", security(("token" = [])),
    responses((status = 200, body = Upstreams), (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody)))]
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<Upstreams> {
    admin.upstreams.refresh(UPSTREAM_PATIENCE).await;
    Json(Upstreams { upstreams: admin.upstream_facts() })
}
