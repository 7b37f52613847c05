//! The relay as the configuration in force has it, and the loop that accepts connections for it.

use super::entrance::Entrance;
use super::slots::{ConnectionSlots, Most};
use super::{Gate, LogLimiters, Relay};
use crate::accept::Acceptor;
use crate::clock::now;
use crate::log::LogLimiter;
use futures_util::future::join_all;
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The most of a drain's time that is left for its end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How a drain ends that is not over by itself, counted from its beginning. The rest of its time is for the stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DrainEnd {
    /// when each client is told 320, whatever is missing
    pub(super) told: Duration,
    /// when each connection is cut
    pub(super) cut: Duration,
}

impl DrainEnd {
    /// Returns the end of a drain that may take so long.
    pub(super) fn of(drain: Duration) -> DrainEnd {
        let rest = (drain / 4).min(LAST_WORDS);
        DrainEnd { told: drain - rest, cut: drain - rest / 2 }
    }
}

/// The relay for connections that begin now. A connection keeps the one that it began with.
#[derive(Debug)]
pub struct CurrentRelay {
    relay: RwLock<Arc<Relay>>,
    slots: Arc<ConnectionSlots>,
}

impl CurrentRelay {
    /// Begins with this one.
    pub fn new(relay: Relay) -> Arc<CurrentRelay> {
        relay.set_limits();
        let slots = ConnectionSlots::new(Most::of(&relay), Arc::clone(&relay.stats));
        Arc::new(CurrentRelay { relay: RwLock::new(Arc::new(relay)), slots })
    }

    /// Returns the one for a new connection.
    pub fn now(&self) -> Arc<Relay> {
        Arc::clone(&self.relay.read())
    }

    /// Replaces it for connections that begin from now on.
    pub fn replace(&self, relay: Relay) {
        self.slots.set_limits(Most::of(&relay));
        relay.set_limits();
        *self.relay.write() = Arc::new(relay);
    }

    /// Accepts connections at all listeners until `draining` turns true. Then waits for the connections to settle. What is
    /// left when `drain_timeout` is nearly over is told and cut ([`DrainEnd`]).
    pub async fn serve(
        self: Arc<Self>,
        listeners: Vec<(TcpListener, Entrance)>,
        draining: watch::Receiver<bool>,
    ) {
        let limiter = || LogLimiter::new(now());
        let gate = Gate {
            slots: Arc::clone(&self.slots),
            log_limiters: Arc::new(LogLimiters {
                refused: limiter(),
                not_let_in: limiter(),
                displaced: limiter(),
                held: limiter(),
                user: limiter(),
                unreachable: limiter(),
                login: limiter(),
                unread: limiter(),
                bad_header: limiter(),
                conflict: limiter(),
            }),
            current: Arc::clone(&self),
            draining,
        };
        let serve = |(socket, entrance)| Arc::clone(&self).serve_at(socket, entrance, gate.clone());
        join_all(listeners.into_iter().map(serve)).await;
    }

    async fn serve_at(self: Arc<Self>, socket: TcpListener, entrance: Entrance, mut gate: Gate) {
        let mut acceptor = Acceptor::new(socket, "listen");
        let entrance = Arc::new(entrance);
        let mut connections = JoinSet::new();
        let shared = gate.clone();
        loop {
            tokio::select! {
                _ = gate.draining.wait_for(|draining| *draining) => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                (client, peer) = acceptor.next() => {
                    let relay = self.now();
                    if let Some(slot) = relay.admit(&entrance, peer, &shared) {
                        let (entrance, gate) = (Arc::clone(&entrance), shared.clone());
                        let number = slot.number();
                        let task = connections.spawn(async move {
                            relay.connection(&entrance, client, peer, slot, &gate).await;
                        });
                        shared.slots.has_task(number, task);
                    }
                }
            }
        }
        drop(acceptor);
        let all = async {
            while let Some(ended) = connections.join_next().await {
                log_panic(ended);
            }
        };
        if tokio::time::timeout(DrainEnd::of(self.now().settings.drain_timeout).cut, all).await.is_err() {
            tracing::warn!(connections = connections.len(), "timeouts.drain is over: cutting what is left");
            connections.shutdown().await;
        }
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task has panicked; its reservations were given back. Please report this");
    }
}
