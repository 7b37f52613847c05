//! One HTTP/1.1 request to the collector, on a connection of its own. It reads only the status of the answer.

use axum::body::Body;
use hyper::client::conn::http1;
use hyper::header;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Sends a message of protobuf to this URL. Returns the status of the answer.
pub(super) async fn post(url: &str, body: Vec<u8>) -> Result<StatusCode, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
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
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    Ok(answer.status())
}
