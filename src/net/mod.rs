//! The shell: the one place with sockets and the clock.
//!
//! [`Relay::serve`] accepts; each client connection is one task, the [`pump`], which feeds a
//! [`Session`](hapax_core::session::Session) from both sockets and carries out what it says. [`side`] is one socket with its
//! two bounded buffers. [`clients`] is the list of who is connected. [`places`] says who may connect, [`memory`] who may be
//! read from, [`sparse`] what is logged of strangers.

mod clients;
mod memory;
mod places;
mod pump;
mod side;
mod sparse;

pub use clients::{Clients, Entry, Numbers, State};
pub use memory::Budget;

use crate::stats::Stats;
use hapax_core::session::Shared;
use places::{Full, Place, Places};
use sparse::Sparse;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long accepting rests when the system refuses (out of files, out of memory).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What all connections need.
#[derive(Debug)]
pub struct Relay {
    /// for the sessions
    pub shared: Arc<Shared>,
    /// the broker, `HOST:PORT`
    pub upstream: String,
    /// how long dialling may take
    pub connect_timeout: Duration,
    /// bytes that may wait to be written in one direction before reading for it stops
    pub buffer_bytes: usize,
    /// connections at a time
    pub max_connections: usize,
    /// of them, from one address
    pub connections_per_address: usize,
    /// how long written bytes may stay unacknowledged where no heartbeats are agreed on; zero: the kernel's own time
    pub tcp_user_timeout: Duration,
    /// from the order to drain until what is left is cut
    pub drain_timeout: Duration,
    /// counts connections
    pub stats: Arc<Stats>,
    /// lists them
    pub clients: Arc<Clients>,
    /// bounds what they hold
    pub budget: Arc<Budget>,
}

/// The log lines that a stranger can cause.
#[derive(Debug)]
struct Lines {
    refused: Sparse,
    unreachable: Sparse,
}

impl Relay {
    /// Accepts until `draining` turns true, then waits for the connections to settle, `drain_timeout` at most.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, mut draining: watch::Receiver<bool>) {
        let places = Places::new(self.max_connections, self.connections_per_address);
        let lines = Arc::new(Lines { refused: Sparse::new(now()), unreachable: Sparse::new(now()) });
        let mut connections = JoinSet::new();
        let orders = draining.clone();
        loop {
            tokio::select! {
                _ = draining.wait_for(|draining| *draining) => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                accepted = listener.accept() => match accepted {
                    Ok((client, peer)) => match places.take(peer.ip()) {
                        Ok((place, gave_way)) => {
                            if gave_way {
                                self.stats.displaced();
                            }
                            let (relay, lines, draining) = (Arc::clone(&self), Arc::clone(&lines), orders.clone());
                            let number = place.number();
                            let task = connections.spawn(async move {
                                relay.connection(client, peer, place, &lines, draining).await;
                            });
                            places.has_task(number, task);
                        }
                        Err(full) => self.refuse(full, peer, &lines),
                    },
                    Err(error) => {
                        tracing::error!(%error, "can't accept; is the limit of open files too low? (ulimit -n)");
                        tokio::time::sleep(ACCEPT_REST).await;
                    }
                },
            }
        }
        drop(listener);
        let all = async {
            while let Some(ended) = connections.join_next().await {
                log_panic(ended);
            }
        };
        if tokio::time::timeout(self.drain_timeout, all).await.is_err() {
            tracing::warn!(connections = connections.len(), "timeouts.drain is over: cutting what is left");
            connections.shutdown().await;
        }
    }

    fn refuse(&self, full: Full, peer: SocketAddr, lines: &Lines) {
        match full {
            Full::Process => self.stats.rejected(),
            Full::Address => self.stats.rejected_by_address(),
        }
        let Some(left_out) = lines.refused.happened(now()) else { return };
        match full {
            Full::Process => {
                tracing::warn!(%peer, max = self.max_connections, left_out, "connection refused: limits.max_connections reached");
            }
            Full::Address => {
                tracing::warn!(%peer, max = self.connections_per_address, left_out, "connection refused: limits.connections_per_address reached");
            }
        }
    }

    async fn connection(
        &self,
        client: TcpStream,
        peer: SocketAddr,
        place: Place,
        lines: &Lines,
        draining: watch::Receiver<bool>,
    ) {
        let _open = self.stats.accepted();
        tracing::debug!(%peer, "client connected");
        match configure(&client) {
            Ok(()) => pump::run(self, client, peer, place, lines, draining).await,
            Err(error) => tracing::debug!(%peer, %error, "client left at once"),
        }
        tracing::debug!(%peer, "client disconnected");
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let connect = TcpStream::connect(&self.upstream);
        let stream = tokio::time::timeout(self.connect_timeout, connect)
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        configure(&stream)?;
        Ok(stream)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell is where time is read: once for each batch of bytes"
)]
fn now() -> Instant {
    Instant::now()
}

/// No delay for small frames; a peer whose machine has died is noticed even without heartbeats.
fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task has panicked; its reservations were given back. Please report this");
    }
}
