//! The sockets of the admin listener: how many there may be, how long a slow or silent peer is tolerated, and which
//! connection gives way when all places are taken. These limits apply to every route; the routes have none of their
//! own.
//!
//! A connection is never refused. When all places are taken, one connection gives way. Connections without a request
//! (silent, or between two requests) go first, the one that has been silent longest before the others. If all have a
//! request, the one goes whose peer has read nothing for the longest time. A health check therefore always finds a
//! place, however many connections say nothing and however fast new ones arrive.

use super::activity::{Activity, Busy, ObservedStream, Stage};
use super::auth::Peer;
use crate::accept::Acceptor;
use crate::tls;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::TcpKeepalive;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

/// The shortest time between two log lines that say that all places are taken.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long a new connection may say nothing before it gives way. A peer needs that long to send its request. With
/// this value, 10,000 connections can come and go in a second.
const GRACE: Duration = Duration::from_millis(25);
/// How many connections may have been told to leave and still be open. Each takes a file descriptor.
const LEAVING: usize = 64;
/// The most bytes in a request's head, and in an answer that waits to be written, per connection.
const BUFFER: usize = 64 << 10;

/// TCP keepalive: after three probes without an answer, the peer's machine counts as gone.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(3);

/// The limits of the admin listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// the most connections at a time, at least 1
    pub(super) connections: usize,
    /// how long a request's head may take, counted from the accept or from the previous answer
    pub(super) head: Duration,
    /// how long a peer may accept no bytes of what is written to it
    pub(super) write: Duration,
}

/// The limits in production: room for dashboards in many tabs, for Prometheus, and for a few more.
pub(super) const BOUNDS: Bounds =
    Bounds { connections: super::CONNECTIONS, head: Duration::from_secs(5), write: Duration::from_secs(10) };

/// Serves until the task is dropped.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    tls: Option<Arc<tls::Server>>,
) -> io::Result<()> {
    let mut acceptor = Acceptor::new(listener, "admin");
    let mut connections = Connections::new(bounds.connections.max(1));
    loop {
        tokio::select! {
            () = connections.next_end() => {}
            (stream, peer) = acceptor.next() => {
                connections.make_room(peer).await;
                let (router, activity) = (router.clone(), Arc::new(Activity::default()));
                let tls = tls.clone();
                connections.take(Arc::clone(&activity), async move {
                    tokio::select! {
                        () = connection(stream, peer, router, bounds, tls, &activity) => {}
                        () = activity.told_to_leave() => {}
                    }
                });
            }
        }
    }
}

/// The open connections.
struct Connections {
    max: usize,
    tasks: JoinSet<()>,
    open: HashMap<Id, Arc<Activity>>,
    /// when the last log line about full places was written; `gave_way` counts since then
    told: Option<Instant>,
    gave_way: u64,
}

impl Connections {
    fn new(max: usize) -> Connections {
        Connections { max, tasks: JoinSet::new(), open: HashMap::new(), told: None, gave_way: 0 }
    }

    fn take(&mut self, activity: Arc<Activity>, connection: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(connection);
        self.open.insert(task.id(), activity);
    }

    /// Waits until a connection has ended. Never returns while there is no connection.
    async fn next_end(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => self.forget(ended),
            None => std::future::pending().await,
        }
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.map_or_else(|panicked| panicked.id(), |(id, ())| id);
        self.open.remove(&id);
    }

    /// Returns true if there is one connection too many. Connections that have ended since the last call do not count.
    fn is_full(&mut self) -> bool {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.forget(ended);
        }
        self.open.len() - self.leaving() >= self.max
    }

    /// Tells a connection to leave if all places are taken. Waits while all connections are new, and while too many
    /// that were told to leave are still open. The wait must be short: connections that nobody accepts are no better
    /// off than closed ones.
    async fn make_room(&mut self, peer: SocketAddr) {
        while self.is_full() {
            let staying = self.open.values().filter(|activity| !activity.is_leaving());
            match staying.map(|activity| (activity.rank(), activity)).min_by_key(|(rank, _)| *rank) {
                Some(((Stage::Silent, since), _)) if since.elapsed() < GRACE => {
                    tokio::time::sleep_until(since + GRACE).await;
                }
                Some(((Stage::Silent | Stage::Busy, _), first)) => {
                    first.leave();
                    self.gave_way += 1;
                    self.tell(peer);
                }
                // New connections are read soon and then count as silent or busy.
                Some(((Stage::New, _), _)) | None => tokio::task::yield_now().await,
            }
        }
        while self.leaving() > LEAVING {
            self.next_end().await;
        }
    }

    /// Returns how many connections have been told to leave and are still open.
    fn leaving(&self) -> usize {
        self.open.values().filter(|activity| activity.is_leaving()).count()
    }

    /// Logs that a connection gives way. A stranger can cause this a thousand times per second, so most lines are left
    /// out.
    fn tell(&mut self, peer: SocketAddr) {
        let now = Instant::now();
        if self.told.is_some_and(|told| now - told < TELL_EVERY) {
            return;
        }
        let gave_way = std::mem::take(&mut self.gave_way);
        self.told = Some(now);
        tracing::warn!(target: "hapax::admin", %peer, max = self.max, gave_way, "all places of the admin listener are taken: the oldest connections without a request give way to new ones");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
    tls: Option<Arc<tls::Server>>,
    activity: &Arc<Activity>,
) {
    // Send a small event at once instead of waiting for the next. Keepalive lets the kernel notice a peer whose
    // machine died.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE);
    let mut stream = TimeoutStream::new(ObservedStream::new(stream, Arc::clone(activity)));
    stream.set_write_timeout(Some(bounds.write));
    let stream = Box::pin(stream);
    let Some(tls) = tls else { return http(stream, peer, router, bounds, activity).await };
    // As slow as the head of a request may be, and with the same rank among connections that say nothing.
    let shaking = TlsAcceptor::from(tls.config()).accept(stream);
    match tokio::time::timeout(bounds.head, shaking).await {
        Ok(Ok(stream)) => Box::pin(http(stream, peer, router, bounds, activity)).await,
        Ok(Err(error)) => tracing::debug!(target: "hapax::admin", %peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(target: "hapax::admin", %peer, "TLS handshake took too long"),
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    bounds: Bounds,
    activity: &Arc<Activity>,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(Arc::clone(activity));
        let busy = Busy::new(Arc::clone(activity));
        let answer = router.call(request);
        async move { answer.await.map(|answer| answer.map(|body| Answer { body, _busy: busy })) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(target: "hapax::admin", %peer, %error, "admin connection broken");
    }
}

/// The body of an answer. Its request is in progress until the whole body is handed over.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
