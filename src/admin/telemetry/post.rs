//! One HTTP/1.1 request to the collector, on a connection of its own. It reads only the status of the answer.

use crate::tls;
use axum::body::Body;
use hyper::client::conn::http1;
use hyper::header;
use hyper::http::uri::Scheme;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::error::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Sends a message of protobuf to this URL. `tls`: the settings for an `https` URL. Returns the status of the answer.
pub(super) async fn post(url: &str, tls: Option<&tls::Client>, body: Vec<u8>) -> Result<StatusCode, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let is_https = uri.scheme() == Some(&Scheme::HTTPS);
    let (host, port) =
        (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(if is_https { 443 } else { 80 }));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    if !is_https {
        return exchange(stream, &uri, body).await;
    }
    let tls = tls.ok_or("there are no settings of TLS")?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let shaken = TlsConnector::from(tls.config()).connect(name, stream).await;
    let stream = shaken.map_err(|error| tls::explain_handshake("the collector", &error).to_string())?;
    exchange(stream, &uri, body).await
}

/// Sends the request by this connection.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    uri: &Uri,
    body: Vec<u8>,
) -> Result<StatusCode, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // The connection ends with this set, whatever the collector still has to say.
    let mut running = JoinSet::new();
    running.spawn(connection);
    let request = Request::post(uri.path())
        .header(header::HOST, uri.authority().map(ToString::to_string).unwrap_or_default())
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .header(header::USER_AGENT, concat!("hapax/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Body::from(body))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| with_cause(&error))?;
    Ok(answer.status())
}

/// Says an error, and what it comes from: an alert of TLS may be the cause of a connection that ends.
fn with_cause(error: &hyper::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
