//! Every default, in one place, with its unit and its reason. `config/hapax.toml` says the same; a test holds it to it.

use super::machine;
use super::{Config, Limits, Log, LogFormat, Timeouts, Upstream, WindowConfig};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::local::Limits as WindowLimits;
use hapax_core::window::set::Pattern;
use hapax_core::window::{Mode, Rules};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// One above RabbitMQ's, so that both fit on one host. Loopback: who opens it to others says so.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5673);
/// RabbitMQ on the same host.
pub const UPSTREAM_HOST: &str = "127.0.0.1";
/// AMQP's registered port.
pub const UPSTREAM_PORT: u16 = 5672;
/// One above RabbitMQ's management port. Loopback: beyond it, a token is needed.
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15673);

/// Connections. Each takes two sockets: 20,000 of the 65,536 files that the systemd unit allows.
pub const MAX_CONNECTIONS: usize = 10_000;
/// Of `max_connections`, what one address may take: a proxy or a NAT in front of Hapax has one address for many clients, so
/// it may have half.
pub const ADDRESS_SHARE: usize = 2;
/// What one address may take in any case: where so few are allowed at all, they are few clients that somebody knows.
pub const ADDRESS_LEAST: usize = 64;
/// Of the machine's memory, what connections may hold: windows, the kernel's sockets and the broker, if it is here, need
/// theirs.
pub const MEMORY_SHARE: usize = 4;
/// Publishes. Far more than a publisher leaves unconfirmed in practice.
pub const MAX_UNRESOLVED: usize = 65_536;
/// Bytes. Duplicates in flight are rare, and their bodies are the same message again.
pub const HELD_BYTES: usize = 16 << 20;
/// Publishes. A producer that sends one id more often than this before the first is confirmed does not need them all.
pub const WAITERS_PER_ID: usize = 64;
/// Bytes. Eight times RabbitMQ's own default, so that it never is what decides, unless someone raised the broker's.
pub const FRAME_MAX: u32 = 131_072 * 8;
/// Bytes. Two of RabbitMQ's largest frames, in each direction.
pub const BUFFER_BYTES: usize = 256 << 10;

/// Longer than a broker takes to confirm, unless it blocks.
pub const LINGER: Duration = Duration::from_secs(30);
/// As [`LINGER`]: the first one's outcome takes as long as its connection may.
pub const IN_FLIGHT: Duration = Duration::from_secs(30);
/// RabbitMQ's own `handshake_timeout`.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// A revoked permission shows within a minute. The broker is asked once for many rights, so asking again costs little.
pub const RIGHTS: Duration = Duration::from_secs(60);
/// As [`LINGER`]; below the 90 s after which systemd kills.
pub const DRAIN: Duration = Duration::from_secs(30);
/// A broker in the same network answers within milliseconds; one lost SYN is forgiven.
pub const UPSTREAM_CONNECT: Duration = Duration::from_secs(5);

/// As long as RabbitMQ's own heartbeats (60 s, given up after two) would take. Not shorter: the kernel counts the time for
/// which a peer takes no bytes, too, and a broker with an alarm takes none.
pub const TCP_USER: Duration = Duration::from_secs(120);

/// A filter of `tracing`.
pub const LOG_LEVEL: &str = "info";

/// The window that there is without a file.
pub const WINDOW_NAME: &str = "default";
/// Ids. At 10 minutes that is 1,666 fresh ids a second, for about 100 MB when full.
pub const CAPACITY: usize = 1_000_000;
/// From the broker's ack. Retries come within seconds; a crashed producer's replay within minutes.
pub const TTL: Duration = Duration::from_secs(600);

/// Every window counts the same.
pub const WEIGHT: u32 = 1;

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: LISTEN,
            upstream: Upstream::default(),
            admin: Some(ADMIN),
            admin_token_file: None,
            admin_token: None,
            digest_secret_file: None,
            digest_secret: None,
            memory_budget: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            log: Log::default(),
            windows: vec![WindowConfig::named(WINDOW_NAME)],
        }
    }
}

impl Default for Upstream {
    fn default() -> Upstream {
        Upstream { host: UPSTREAM_HOST.into(), port: UPSTREAM_PORT }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: MAX_CONNECTIONS,
            connections_per_address: connections_per_address(MAX_CONNECTIONS),
            memory: memory(),
            max_unresolved: MAX_UNRESOLVED,
            held_bytes: HELD_BYTES,
            waiters_per_id: WAITERS_PER_ID,
            frame_max: FRAME_MAX,
            buffer_bytes: BUFFER_BYTES,
        }
    }
}

/// Where so many connections are allowed.
pub(super) fn connections_per_address(max_connections: usize) -> usize {
    (max_connections / ADDRESS_SHARE).max(ADDRESS_LEAST).min(max_connections)
}

/// On this machine, in whole MiB.
pub(super) fn memory() -> usize {
    let share = machine::memory() / MEMORY_SHARE;
    (share - share % (1 << 20)).max(super::check::most::LEAST_MEMORY)
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            linger: LINGER,
            in_flight: IN_FLIGHT,
            handshake: HANDSHAKE,
            rights: RIGHTS,
            drain: DRAIN,
            upstream_connect: UPSTREAM_CONNECT,
            tcp_user: TCP_USER,
        }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::default(), level: LOG_LEVEL.to_owned() }
    }
}

impl WindowConfig {
    /// A window for everything, with this name and every default.
    pub fn named(name: &str) -> WindowConfig {
        WindowConfig {
            vhost: Pattern::everything(),
            exchange: Pattern::everything(),
            rules: Rules::named(name),
            limits: WindowLimits {
                capacity: CAPACITY,
                ttl: TTL,
                mode: Mode::default(),
                refresh_on_duplicate: false,
                waiters_per_id: WAITERS_PER_ID,
            },
            auto: false,
            weight: WEIGHT,
            engine: EngineKind::default(),
        }
    }
}
