//! The settings of a configuration that connections need beside those of their sessions.

use super::rates::Rates;
use crate::config::Config;
use std::time::Duration;

/// The settings of connections.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// bytes that may wait to be written in one direction before reading for that direction stops
    pub(super) buffer_bytes: usize,
    /// bytes that may wait for a client that does not read while Hapax needs the broker's answers; at least
    /// `buffer_bytes`
    pub(super) unread_bytes: usize,
    /// how long a client may read nothing after that, while it has more to say
    pub(super) unread_timeout: Duration,
    /// the most client connections at a time
    pub(super) max_connections: usize,
    /// the most client connections from one address
    pub(super) connections_per_address: usize,
    /// the most connections of one user; 0: no limit
    pub(super) connections_per_user: usize,
    /// the most connections that have not logged in
    pub(super) handshakes: usize,
    /// how many messages may be published in a second
    pub(super) rates: Rates,
    /// how long written bytes may stay unacknowledged on a connection without heartbeats; zero: the kernel's default
    pub(super) tcp_user_timeout: Duration,
    /// how long a drain may take before the remaining connections are cut
    pub drain_timeout: Duration,
}

impl RelaySettings {
    /// Returns those of a configuration.
    pub fn of(config: &Config) -> RelaySettings {
        let (limits, timeouts) = (&config.limits, &config.timeouts);
        RelaySettings {
            buffer_bytes: limits.buffer_bytes,
            unread_bytes: limits.unread_bytes.max(limits.buffer_bytes),
            unread_timeout: timeouts.unread,
            max_connections: limits.max_connections,
            connections_per_address: limits.connections_per_address,
            connections_per_user: limits.connections_per_user,
            handshakes: limits.handshakes,
            rates: Rates::of(limits),
            tcp_user_timeout: timeouts.tcp_user,
            drain_timeout: timeouts.drain,
        }
    }
}
