//! The shell of the relay: the only folder with sockets and the clock.
//!
//! [`Relay::serve`] accepts client connections. Each one becomes a task, the [`pump`]: it feeds a
//! [`Session`](hapax_core::session::Session) with bytes from both sockets and carries out the session's outputs.
//! [`side`] is one socket with its two bounded buffers, and [`upstreams`] finds the node of the broker that the other one leads to.
//! [`connections`] lists the open connections, [`duplicates`] what
//! they have sent twice of late. [`slots`] decides who
//! may connect, [`memory`] who may be read from, and [`crate::log::LogLimiter`] the log lines that a stranger can cause.

mod bad_headers;
mod connections;
mod duplicates;
mod memory;
mod pump;
mod side;
mod slots;
mod upstreams;

pub use connections::{ConnectionEntry, ConnectionList, ConnectionState, Numbers};
pub use duplicates::{Duplicates, KEPT, SeenDuplicate};
pub use memory::MemoryLimit;
pub use upstreams::{NoAnswer, UpstreamNode, Upstreams};

use crate::accept::Acceptor;
use crate::clock::now;
use crate::log::LogLimiter;
use crate::stats::Stats;
use hapax_core::session::Shared;
use slots::{ConnectionSlot, ConnectionSlots, Full};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The settings and the counters that all connections share.
#[derive(Debug)]
pub struct Relay {
    /// what all sessions share
    pub shared: Arc<Shared>,
    /// the nodes of the broker
    pub upstreams: Arc<Upstreams>,
    /// bytes that may wait to be written in one direction before reading for that direction stops
    pub buffer_bytes: usize,
    /// bytes that may wait for a client that does not read while Hapax needs the broker's answers; at least
    /// `buffer_bytes`
    pub unread_bytes: usize,
    /// how long a client may read nothing after that, while it has more to say
    pub unread_timeout: Duration,
    /// the most client connections at a time
    pub max_connections: usize,
    /// the most client connections from one address
    pub connections_per_address: usize,
    /// how long written bytes may stay unacknowledged on a connection without heartbeats; zero: the kernel's default
    pub tcp_user_timeout: Duration,
    /// how long a drain may take before the remaining connections are cut
    pub drain_timeout: Duration,
    /// counts connections
    pub stats: Arc<Stats>,
    /// lists connections
    pub connections: Arc<ConnectionList>,
    /// bounds the memory that is held for clients
    pub memory: Arc<MemoryLimit>,
}

/// The log lines that a stranger can cause, limited in number.
#[derive(Debug)]
struct LogLimiters {
    refused: LogLimiter,
    unreachable: LogLimiter,
    conflict: LogLimiter,
    unread: LogLimiter,
    bad_header: LogLimiter,
    login: LogLimiter,
}

impl Relay {
    /// Accepts connections until `draining` turns true. Then waits for the connections to settle, for at most
    /// `drain_timeout`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, mut draining: watch::Receiver<bool>) {
        let slots = ConnectionSlots::new(self.max_connections, self.connections_per_address);
        let limiter = || LogLimiter::new(now());
        let log_limiters = Arc::new(LogLimiters {
            refused: limiter(),
            unreachable: limiter(),
            login: limiter(),
            unread: limiter(),
            bad_header: limiter(),
            conflict: limiter(),
        });
        let mut acceptor = Acceptor::new(listener, "listen");
        let mut connections = JoinSet::new();
        let orders = draining.clone();
        loop {
            tokio::select! {
                _ = draining.wait_for(|draining| *draining) => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                (client, peer) = acceptor.next() => match slots.take(peer.ip()) {
                    Ok((slot, displaced)) => {
                        if displaced {
                            self.stats.displaced();
                        }
                        let (relay, log_limiters, draining) = (Arc::clone(&self), Arc::clone(&log_limiters), orders.clone());
                        let number = slot.number();
                        let task = connections.spawn(async move {
                            relay.connection(client, peer, slot, &log_limiters, draining).await;
                        });
                        slots.has_task(number, task);
                    }
                    Err(full) => self.refuse(full, peer, &log_limiters),
                },
            }
        }
        drop(acceptor);
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

    fn refuse(&self, full: Full, peer: SocketAddr, log_limiters: &LogLimiters) {
        match full {
            Full::Process => self.stats.rejected(),
            Full::Address => self.stats.rejected_by_address(),
        }
        let Some(left_out) = log_limiters.refused.happened(now()) else { return };
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
        slot: ConnectionSlot,
        log_limiters: &LogLimiters,
        draining: watch::Receiver<bool>,
    ) {
        let _open = self.stats.accepted();
        tracing::debug!(%peer, "client connected");
        match configure(&client) {
            Ok(()) => pump::run(self, client, peer, slot, log_limiters, draining).await,
            Err(error) => tracing::debug!(%peer, %error, "client left at once"),
        }
        tracing::debug!(%peer, "client disconnected");
    }
}

/// Sends small frames without delay, and turns keepalive on: it notices a peer whose machine died, even without
/// heartbeats.
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
