//! The admin listener's sockets: how many, and how long a slow or silent peer is put up with. Nothing else has a bound
//! there, so these hold for whatever is served.

use super::auth::Peer;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

/// How long accepting rests when the system refuses (out of files, out of memory).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// connections at a time; one more is closed at once
    pub(super) connections: usize,
    /// how long a request's head may take, and how long a connection may be idle
    pub(super) head: Duration,
    /// how long a peer may take nothing of what is written to it
    pub(super) write: Duration,
}

/// A dashboard in each of many tabs, Prometheus, and a few more.
pub(super) const BOUNDS: Bounds =
    Bounds { connections: 256, head: Duration::from_secs(60), write: Duration::from_secs(10) };

/// Serves until the task is dropped.
pub(super) async fn serve(listener: TcpListener, router: Router, bounds: Bounds) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        tracing::warn!(target: "hapax::admin", %peer, max = bounds.connections, "admin connection refused: there are too many");
                        continue;
                    };
                    let router = router.clone();
                    connections.spawn(async move {
                        connection(stream, peer, router, bounds).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::error!(target: "hapax::admin", %error, "can't accept; is the limit of open files too low? (ulimit -n)");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, bounds: Bounds) {
    // A small event must not wait for the next one.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(bounds.write));
    let service = TowerToHyperService::new(router.layer(Extension(Peer(peer))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(target: "hapax::admin", %peer, %error, "admin connection broken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use futures_util::stream;
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SOON: Duration = Duration::from_millis(50);
    const DEADLINE: Duration = Duration::from_secs(20);

    async fn start(router: Router, connections: usize, head: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, router, Bounds { connections, head, write: SOON }));
        address
    }

    async fn ask(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        stream
    }

    /// A body that never ends.
    fn endless() -> Router {
        let chunk = || Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 65_536]));
        Router::new().route("/", get(async move || Body::from_stream(stream::repeat_with(chunk))))
    }

    #[tokio::test]
    async fn who_reads_nothing_is_dropped() {
        let address = start(endless(), 1, DEADLINE).await;
        let mut slow = ask(address).await;
        let mut first = [0; 12];
        slow.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        // The one place is free again: the next one is served.
        let served = async {
            loop {
                let mut next = ask(address).await;
                if next.read_exact(&mut first).await.is_ok() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, served).await.expect("the slow one is dropped");
        drop(slow);
    }

    #[tokio::test]
    async fn who_says_nothing_is_dropped() {
        let router = Router::new().route("/", get(async || "here"));
        let address = start(router, 8, SOON).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"GET / HT").await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(DEADLINE, silent.read_to_end(&mut rest)).await;
        end.expect("closed in time").unwrap();
    }

    #[tokio::test]
    async fn one_too_many_is_closed_at_once() {
        let address = start(endless(), 0, DEADLINE).await;
        let mut refused = TcpStream::connect(address).await.unwrap();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(DEADLINE, refused.read_to_end(&mut rest)).await;
        end.expect("closed in time").unwrap();
        assert!(rest.is_empty());
    }
}
