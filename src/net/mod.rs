//! The shell of the relay: the only folder with sockets and the clock.
//!
//! [`CurrentRelay::serve`] accepts client connections. Each one becomes a task, the [`pump`]: it feeds a
//! [`Session`](hapax_core::session::Session) with bytes from both sockets and carries out the session's outputs.
//! [`side`] is one socket with its two bounded buffers, and [`transport`] the socket in it, plain or with TLS ([`records`]).
//! [`upstreams`] finds the node of the broker that the other socket leads to. [`entrance`] is what clients do before AMQP, [`dial`]
//! what Hapax does before AMQP at the broker, and [`proxy`] the header that says who a client is. [`connections`] lists the open
//! connections, [`duplicates`] what
//! they have sent twice of late. [`rates`] says how much a user may publish, [`slots`] decides who
//! may connect, [`memory`] who may be read from, and [`crate::log::LogLimiter`] the log lines that a stranger can cause.

mod alarm;
mod bad_headers;
mod connections;
mod current;
mod dial;
mod drain_watch;
mod duplicates;
mod entrance;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
mod memory;
mod proxy;
mod pump;
mod rates;
mod records;
mod settings;
mod side;
mod slots;
mod spans;
mod strangers;
mod transport;
mod upstreams;

pub use connections::{ConnectionEntry, ConnectionList, ConnectionState, Numbers};
pub use current::CurrentRelay;
pub use dial::Opener;
pub use duplicates::{Duplicates, KEPT, SeenDuplicate};
pub use entrance::Entrance;
pub use memory::MemoryLimit;
pub use proxy::Ends;
pub use rates::{PublishRates, Rates};
pub use settings::RelaySettings;
pub use spans::{Span, Spans};
pub use transport::Transport;
pub use upstreams::{NoAnswer, UpstreamNode, Upstreams};

use crate::chaos::Chaos;
use crate::clock::now;
use crate::config::Config;
use crate::log::LogLimiter;
use crate::signals::Signals;
use crate::stats::Stats;
use entrance::{NotLetIn, accepted};
use hapax_core::session::Shared;
use pump::Arrival;
use side::Side;
use slots::{ConnectionSlot, ConnectionSlots, Full};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The settings and the counters that all connections share. A reload makes another one for new connections ([`CurrentRelay`]).
#[derive(Clone, Debug)]
pub struct Relay {
    /// what all sessions share
    pub shared: Arc<Shared>,
    /// the nodes of the broker
    pub upstreams: Arc<Upstreams>,
    /// the settings of connections
    pub settings: RelaySettings,
    /// the buckets that `settings.rates` fill, one for each user and vhost
    pub buckets: Arc<PublishRates>,
    /// counts connections
    pub stats: Arc<Stats>,
    /// lists connections
    pub connections: Arc<ConnectionList>,
    /// bounds the memory that is held for clients
    pub memory: Arc<MemoryLimit>,
    /// says what is to be said of dropped publishes
    pub signals: Arc<Signals>,
    /// makes trouble on request
    pub chaos: Arc<Chaos>,
    /// takes the spans of judged publishes; `None`: there are none
    pub spans: Option<Arc<Spans>>,
}

/// The log lines that a stranger can cause, limited in number.
#[derive(Debug)]
struct LogLimiters {
    refused: LogLimiter,
    not_let_in: LogLimiter,
    displaced: LogLimiter,
    held: LogLimiter,
    user: LogLimiter,
    unreachable: LogLimiter,
    conflict: LogLimiter,
    unread: LogLimiter,
    bad_header: LogLimiter,
    login: LogLimiter,
}

/// The limits, the log limiters and the order to drain, which all listeners share.
#[derive(Clone, Debug)]
struct Gate {
    slots: Arc<ConnectionSlots>,
    log_limiters: Arc<LogLimiters>,
    /// says how long a drain may take when it begins
    current: Arc<CurrentRelay>,
    draining: watch::Receiver<bool>,
}

impl Relay {
    /// Returns what a new configuration makes of it. What it shares with other relays of this process stays.
    #[must_use]
    pub fn with(self, config: &Config) -> Relay {
        Relay {
            shared: Arc::new(self.shared.with(config.settings(), config.loopback_users())),
            settings: RelaySettings::of(config),
            ..self
        }
    }

    /// Sets the limits that hold for open connections, too.
    fn set_limits(&self) {
        self.shared.places.set_max(self.settings.connections_per_user);
        self.buckets.set(self.settings.rates);
    }

    /// Returns the slot of a new connection, or `None` if it is turned away.
    fn admit(&self, entrance: &Entrance, peer: SocketAddr, gate: &Gate) -> Option<ConnectionSlot> {
        if !entrance.trusts(peer.ip()) {
            self.stats.proxy_header_refused();
            if let Some(left_out) = gate.log_limiters.not_let_in.happened(now()) {
                tracing::warn!(%peer, left_out, "connection refused: this listener takes connections from its `trusted` proxies only");
            }
            return None;
        }
        match gate.slots.take(entrance.address_of(peer)) {
            Ok((slot, displaced)) => {
                if let Some(full) = displaced {
                    self.displaced(full, peer, &gate.log_limiters);
                }
                Some(slot)
            }
            Err(full) => {
                self.refuse(full, peer, &gate.log_limiters);
                None
            }
        }
    }

    /// Notes that a connection without a login gave way to this one.
    fn displaced(&self, full: Full, peer: SocketAddr, log_limiters: &LogLimiters) {
        self.stats.displaced();
        if let Some(left_out) = log_limiters.displaced.happened(now()) {
            tracing::warn!(newcomer = %peer, left_out, "connection without a login closed for a newcomer: {full} reached");
        }
    }

    fn refuse(&self, full: Full, peer: SocketAddr, log_limiters: &LogLimiters) {
        match full {
            Full::Process | Full::Handshakes => self.stats.rejected(),
            Full::Address => self.stats.rejected_by_address(),
        }
        let Some(left_out) = log_limiters.refused.happened(now()) else { return };
        match full {
            Full::Process => {
                tracing::warn!(%peer, max = self.settings.max_connections, left_out, "connection refused: limits.max_connections reached");
            }
            Full::Handshakes => {
                tracing::warn!(%peer, max = self.settings.handshakes, left_out, "connection refused: limits.handshakes reached");
            }
            Full::Address => {
                tracing::warn!(%peer, max = self.settings.connections_per_address, left_out, "connection refused: limits.connections_per_address reached");
            }
        }
    }

    async fn connection(
        &self,
        entrance: &Entrance,
        client: TcpStream,
        peer: SocketAddr,
        slot: ConnectionSlot,
        gate: &Gate,
    ) {
        let _open = self.stats.accepted();
        tracing::debug!(%peer, "client connected");
        let ends = match accepted(&client, peer) {
            Ok(ends) => ends,
            Err(error) => return tracing::debug!(%peer, %error, "client left at once"),
        };
        let client = Side::new(Transport::plain(client));
        let mut arrival = Arrival { client, ends, slot, holding: self.memory.enter(), since: now() };
        let is_in = entrance.is_plain() || {
            // The future holds what only TLS and proxies need. In a box, it does not enlarge the task of every connection.
            Box::pin(self.let_in(entrance, &mut arrival, gate)).await
        };
        let peer = arrival.ends.client;
        if is_in {
            pump::run(self, arrival, gate, gate.draining.clone()).await;
        } else {
            Box::pin(arrival.client.dismiss()).await;
        }
        tracing::debug!(%peer, "client disconnected");
    }

    /// Waits until the client has passed the entrance. Returns false if the connection ends there.
    async fn let_in(&self, entrance: &Entrance, arrival: &mut Arrival, gate: &Gate) -> bool {
        let direct = arrival.ends.client;
        let until = arrival.since + self.shared.settings.handshake_timeout;
        let mut draining = gate.draining.clone();
        let outcome = tokio::select! {
            outcome = self.prepare(entrance, arrival, gate) => outcome,
            () = tokio::time::sleep_until(until.into()) => Err(NotLetIn::TooSlow),
            _ = draining.wait_for(|draining| *draining) => return false,
        };
        let why = match outcome {
            Ok(is_in) => return is_in,
            Err(why) => why,
        };
        let (peer, proxy) = (arrival.ends.client, (direct != arrival.ends.client).then_some(direct));
        let proxy = proxy.map(tracing::field::display);
        match why {
            NotLetIn::Silent => {
                tracing::debug!(%peer, proxy, "client left without a word");
                return false;
            }
            NotLetIn::Header(_) | NotLetIn::HeaderCut => self.stats.proxy_header_refused(),
            NotLetIn::Tls(_) | NotLetIn::TooSlow | NotLetIn::Socket(_) => self.stats.handshake_failed(),
        }
        if let Some(left_out) = gate.log_limiters.not_let_in.happened(now()) {
            tracing::warn!(%peer, proxy, left_out, "connection refused: {why}");
        }
        false
    }

    async fn prepare(
        &self,
        entrance: &Entrance,
        arrival: &mut Arrival,
        gate: &Gate,
    ) -> Result<bool, NotLetIn> {
        let Arrival { client, ends, slot, holding, .. } = arrival;
        *ends = entrance.read_header(client, *ends).await?;
        match slot.comes_from(ends.client.ip()) {
            Ok(Some(full)) => self.displaced(full, ends.client, &gate.log_limiters),
            Ok(None) => {}
            Err(full) => {
                self.refuse(full, ends.client, &gate.log_limiters);
                return Ok(false);
            }
        }
        // Count all that the TLS handshake may hold from the beginning.
        holding.report(client.memory() + entrance.handshake_bytes(), 0);
        entrance.shake_hands(client).await?;
        Ok(true)
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
