//! Who may look and who may change: the token, and the browser of somebody who reads another page meanwhile.
//!
//! With a token, it must come with each request that reveals or changes anything. Without one the listener is on
//! loopback (the configuration sees to that) and asks for nothing; but a browser on this host carries out what any
//! page says, so:
//!
//! * a `Host` that is neither a loopback address nor `localhost` is refused: the name of a foreign page can be made to
//!   point at loopback (DNS rebinding). This holds for every path, `/metrics` and health included. A listener beyond
//!   loopback is reached by names that Hapax can't know; there the token, which no foreign page has, does this work, and
//!   what asks for no token is for everybody who reaches the port;
//! * an `Origin` other than the host itself is refused;
//! * a change must say `Content-Type: application/json` or bring an `Authorization` header: a foreign page can send
//!   neither without asking first, and the question is never answered with yes.

use super::Admin;
use super::complaint::Complaint;
use crate::config::Token;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Where a request comes from; put in by the listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who was let in: for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    peer: Option<SocketAddr>,
    /// by what: "token" or "loopback"
    pub(super) by: &'static str,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => peer.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

/// Looks at who comes.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) token: Option<Token>,
    /// where the listener is; `None` in the tests of a router without one
    pub(super) address: Option<SocketAddr>,
}

/// Lets a request through whose `Host` can be this listener, whatever it asks for.
pub(super) async fn know_host(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    match admin.door.check_host(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(complaint) => refused(&request, complaint),
    }
}

fn refused(request: &Request, complaint: Complaint) -> Response {
    let shown = Caller { peer: request.extensions().get::<Peer>().map(|peer| peer.0), by: "" };
    tracing::debug!(target: "hapax::admin", peer = %shown, status = complaint.status.as_u16(), path = request.uri().path(), "refused");
    complaint.into_response()
}

/// Lets a request through to the API, or answers in its place.
pub(super) async fn guard(State(admin): State<Arc<Admin>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    match admin.door.admit(request.method(), request.headers()) {
        Ok(by) => {
            request.extensions_mut().insert(Caller { peer, by });
            let mut response = next.run(request).await;
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            response
        }
        Err(complaint) => refused(&request, complaint),
    }
}

impl Door {
    /// By what they are let in, or why not. Their `Host` has been looked at.
    fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<&'static str, Complaint> {
        check_origin(headers)?;
        let by = self.check_token(headers)?;
        if !method.is_safe() {
            check_type(headers)?;
        }
        Ok(by)
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<&'static str, Complaint> {
        let Some(token) = &self.token else { return Ok("loopback") };
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        match given.map(bearer) {
            Some(Some(given)) if token.matches(given) => Ok("token"),
            Some(Some(_)) => Err(unauthorized("the token is not the right one")),
            Some(None) => Err(unauthorized("the Authorization header is no bearer token")),
            None => Err(unauthorized("a token is needed here")),
        }
    }

    fn check_host(&self, headers: &HeaderMap) -> Result<(), Complaint> {
        let beyond = self.address.is_some_and(|address| !address.ip().is_loopback());
        // Without a Host it is no browser.
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

/// The token of `Bearer TOKEN`.
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
    // What a page embeds (an image, say) has no Origin, but a browser still says where it is from.
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

/// `HOST[:PORT]` with a host that means this host everywhere.
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
            "{what}: send the header Authorization: Bearer TOKEN, with the token of admin_token_file or HAPAX_ADMIN_TOKEN"
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
