//! Decides who may read and who may change. There are two dangers: a caller without the token, and a web page of
//! somebody else in the browser of a user who can reach this listener.
//!
//! With a token configured, each request that shows or changes anything must carry one. There are two kinds: the admin
//! token allows all, the read-only token allows what a route of [`Right::Read`] does. Each route says which right it needs
//! (`api`). Without a token the listener is on loopback (the configuration checks that) and asks for nothing. But a browser
//! on this host sends requests for any page that it shows, and therefore:
//!
//! * A `Host` that is neither a loopback address nor `localhost` is refused: the owner of a foreign page can make its
//!   name point at loopback (DNS rebinding). This applies to every path, including `/metrics` and health. A listener
//!   beyond loopback has names that Hapax can't know, so there the token protects instead: a foreign page does not
//!   have it. Paths that need no token are open to everybody who reaches the port.
//! * An `Origin` other than the host itself is refused, on every path.
//! * A change must have `Content-Type: application/json` or an `Authorization` header. A foreign page can send neither
//!   without a preflight request, and a preflight request is never granted.

use super::Admin;
use super::complaint::Complaint;
use crate::config::{Config, Token};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hapax_core::window::{Change, Setting};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The address that a request comes from. The listener adds it to each request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// A right that a route needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Right {
    /// see everything, and change nothing
    Read,
    /// change windows, connections and the process
    Change,
}

/// A caller who was let in, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    peer: Option<SocketAddr>,
    /// why: "token", "read-only token" or "loopback"
    pub(super) by: &'static str,
    /// what the caller may do
    pub(super) right: Right,
}

impl Caller {
    /// Returns who it is, for people.
    pub(super) fn shown(self) -> String {
        format!("{self} ({})", self.by)
    }

    /// Returns what this caller has done, for the other relays of a shared store.
    pub(super) fn change(self, setting: Setting) -> Change {
        Change { setting, by: self.shown().into() }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => peer.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

/// Checks each request before it is served.
#[derive(Debug)]
pub(super) struct AccessCheck {
    /// `None`: nobody needs a token
    token: Option<Token>,
    /// only beside the other
    read_only: Option<Token>,
    /// the listener's address; `None` in tests of a router without a listener
    address: Option<SocketAddr>,
}

/// Lets a request pass if its `Host` can be this listener and no foreign page sends it, whatever path it asks for.
pub(super) async fn at_the_gate(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    match admin.access.check_host(request.headers()).and_then(|()| check_origin(request.headers())) {
        Ok(()) => next.run(request).await,
        Err(complaint) => refused(&request, complaint),
    }
}

fn refused(request: &Request, complaint: Complaint) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let shown = Caller { peer, by: "", right: Right::Read };
    tracing::debug!(target: "hapax::admin", peer = %shown, status = complaint.status.as_u16(), path = request.uri().path(), "refused");
    complaint.into_response()
}

/// Lets a request pass to a route of the API that needs this right, or answers with an error.
pub(super) async fn guard(
    State((admin, needed)): State<(Arc<Admin>, Right)>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    match admin.access.admit(needed, request.method(), request.headers()) {
        Ok((by, right)) => {
            request.extensions_mut().insert(Caller { peer, by, right });
            let mut response = next.run(request).await;
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            response
        }
        Err(complaint) => refused(&request, complaint),
    }
}

impl AccessCheck {
    pub(super) fn of(config: &Config) -> AccessCheck {
        AccessCheck {
            token: config.admin_token.clone(),
            read_only: config.admin_read_only_token.clone(),
            address: config.admin,
        }
    }

    /// Returns true if the API asks for a token.
    pub(super) fn asks_for_token(&self) -> bool {
        self.token.is_some()
    }

    /// Returns why the caller is let in and what the caller may do, or the error. `Host` and `Origin` are already checked.
    fn admit(
        &self,
        needed: Right,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<(&'static str, Right), Complaint> {
        let (by, right) = self.check_token(headers)?;
        if right < needed {
            return Err(forbidden(
                "this token may only read, and this would change something: send the token of admin_token_file or HAPAX_ADMIN_TOKEN",
            ));
        }
        if !method.is_safe() {
            check_type(headers)?;
        }
        Ok((by, right))
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(&'static str, Right), Complaint> {
        let Some(token) = &self.token else { return Ok(("loopback", Right::Change)) };
        let given = match headers.get(header::AUTHORIZATION).map(|value| bearer(value.as_bytes())) {
            Some(Some(given)) => given,
            Some(None) => return Err(unauthorized("the Authorization header is no bearer token")),
            None => return Err(unauthorized("a token is needed here")),
        };
        // Both are compared, so that the time tells nothing about which of them it is.
        let is_admin = token.matches(given);
        let reads = self.read_only.as_ref().is_some_and(|token| token.matches(given));
        match (is_admin, reads) {
            (true, _) => Ok(("token", Right::Change)),
            (false, true) => Ok(("read-only token", Right::Read)),
            (false, false) => Err(unauthorized("the token is not the right one")),
        }
    }

    fn check_host(&self, headers: &HeaderMap) -> Result<(), Complaint> {
        let beyond = self.address.is_some_and(|address| !address.ip().is_loopback());
        // A request without a Host does not come from a browser.
        let Some(host) = headers.get(header::HOST) else { return Ok(()) };
        if beyond || host.to_str().is_ok_and(is_loopback) {
            return Ok(());
        }
        Err(forbidden(format!(
            "the Host {} is not this listener: use a loopback address or localhost",
            shown(host)
        )))
    }
}

/// Returns the token of `Bearer TOKEN`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn check_origin(headers: &HeaderMap) -> Result<(), Complaint> {
    let host = headers.get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
    if let Some(origin) = headers.get(header::ORIGIN) {
        let own = [&b"http://"[..], b"https://"]
            .iter()
            .any(|scheme| origin.as_bytes().strip_prefix(*scheme).is_some_and(|rest| rest == host));
        if !own {
            return Err(forbidden(format!(
                "this request comes from another page, {}: open the dashboard of this listener itself",
                shown(origin)
            )));
        }
    }
    // A browser sends no Origin for things that a page embeds, such as an image. But it sends `Sec-Fetch-Site`.
    let says = |name: &str, value: &str| headers.get(name).is_some_and(|have| have == value);
    let foreign = says("sec-fetch-site", "cross-site") || says("sec-fetch-site", "same-site");
    if foreign && !says("sec-fetch-mode", "navigate") {
        return Err(forbidden(
            "this request comes from another page: open the dashboard of this listener itself",
        ));
    }
    Ok(())
}

fn check_type(headers: &HeaderMap) -> Result<(), Complaint> {
    let json = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    });
    if json || headers.contains_key(header::AUTHORIZATION) {
        return Ok(());
    }
    Err(Complaint::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "a change needs the header Content-Type: application/json (curl: -H 'Content-Type: application/json')",
    ))
}

/// Returns true if `HOST[:PORT]` names this host on every machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn unauthorized(what: &str) -> Complaint {
    Complaint::new(
        StatusCode::UNAUTHORIZED,
        format!(
            "{what}: send the header Authorization: Bearer TOKEN, with the token of admin_token_file or HAPAX_ADMIN_TOKEN, or of admin_read_only_token_file"
        ),
    )
}

fn forbidden(what: impl Into<String>) -> Complaint {
    Complaint::new(StatusCode::FORBIDDEN, what)
}

fn shown(value: &HeaderValue) -> String {
    format!("\"{}\"", value.as_bytes().escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_mean_this_host() {
        for host in ["localhost", "LocalHost:1", "127.0.0.1:15673", "127.9.9.9", "[::1]:15673", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:15673",
            "10.0.0.1",
            "[::2]:1",
            "::1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn bearers() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER  abc ", Some("abc")),
            ("Bearer ", Some("")),
            ("Bearer", None),
            ("Basic abc", None),
            ("abc", None),
        ] {
            assert_eq!(bearer(value.as_bytes()), token.map(str::as_bytes), "{value}");
        }
    }
}
