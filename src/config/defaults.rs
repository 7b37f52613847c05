//! All defaults in one place, each with its unit and its reason. `config/hapax.toml` shows the same values, and a test
//! compares the two.

use super::machine;
use super::{
    ChaosSettings, Config, Judges, Limits, LogFormat, LogSettings, ProxyProtocol, StoreKind, StoreSettings,
    Telemetry, Timeouts, UpstreamAddress, UpstreamHealth, UpstreamOrder, WindowConfig,
};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::local::Limits as WindowLimits;
use hapax_core::window::logged::StorePolicy;
use hapax_core::window::set::Pattern;
use hapax_core::window::{Mode, Rules};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// One above RabbitMQ's port, so that both fit on one host. Loopback, because opening it to other hosts should be a
/// decision.
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5673);
/// RabbitMQ on the same host.
pub const UPSTREAM_HOST: &str = "127.0.0.1";
/// AMQP's registered port.
pub const UPSTREAM_PORT: u16 = 5672;
/// The registered port of AMQP over TLS.
pub const UPSTREAM_TLS_PORT: u16 = 5671;
/// RabbitMQ logs each question as a connection that its client closed early. Where clients connect all the time, none is asked.
pub const UPSTREAM_INTERVAL: Duration = Duration::from_secs(30);
/// A node in the same network answers within milliseconds. This leaves time for one lost SYN, and for another node within
/// [`UPSTREAM_CONNECT`].
pub const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// A node that was only slow for a moment is back soon.
pub const UPSTREAM_REST: Duration = Duration::from_secs(1);
/// A node that comes back after a long time gets connections within a minute.
pub const UPSTREAM_MAX_REST: Duration = Duration::from_secs(60);
/// RabbitMQ's own default of `loopback_users`.
pub const LOOPBACK_USERS: [&str; 1] = ["guest"];
/// One above RabbitMQ's management port. Loopback, because beyond it a token is needed.
pub const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15673);

/// Connections. Each takes two sockets, so this takes 20,000 of the 65,536 files that the systemd unit allows.
pub const MAX_CONNECTIONS: usize = 10_000;
/// One address may take this fraction of `max_connections`: one half. A proxy or a NAT in front of Hapax has one
/// address for many clients.
pub const ADDRESS_SHARE: usize = 2;
/// One address may always take this many connections. A relay with fewer in all has few clients, and its operator
/// knows them.
pub const ADDRESS_LEAST: usize = 64;
/// Connections may hold this fraction of the machine's memory: one quarter. The windows, the kernel's sockets, and the
/// broker, if it runs here, need the rest.
pub const MEMORY_SHARE: usize = 4;
/// Publishes. Many more than one read brings, so that an even load below the rate is never held.
pub const PUBLISH_BURST: usize = 10_000;
/// Publishes. This is far more than a publisher leaves unconfirmed in practice.
pub const MAX_UNRESOLVED: usize = 65_536;
/// Bytes. Duplicates in flight are rare.
pub const HELD_BYTES: usize = 16 << 20;
/// Publishes. A publisher that sends an id more often than this before the first confirm does not need all of them.
pub const WAITERS_PER_ID: usize = 64;
/// Bytes. This is eight times RabbitMQ's own default, so it only matters if somebody has raised the broker's
/// `frame_max`.
pub const FRAME_MAX: u32 = 131_072 * 8;
/// Bytes. The same as RabbitMQ's own `initial_frame_max`.
pub const INITIAL_FRAME_MAX: u32 = 8192;
/// Bytes: two of RabbitMQ's largest frames in each direction.
pub const BUFFER_BYTES: usize = 256 << 10;
/// A batch of a million publishes whose client reads nothing meanwhile gets about 21 MB of acks, and deliveries come
/// between them.
pub const UNREAD_BYTES: usize = 64 << 20;

/// A broker confirms faster than this unless it is blocked.
pub const LINGER: Duration = Duration::from_secs(30);
/// The same as [`LINGER`], because the outcome of the first publish takes as long as its connection may linger.
pub const IN_FLIGHT: Duration = Duration::from_secs(30);
/// A store in the same network answers within milliseconds. A publisher waits for this long at most.
pub const STORE: Duration = hapax_core::session::STORE_TIMEOUT;
/// How long a reservation lives whose relay is gone. The same as [`IN_FLIGHT`].
pub const LEASE: Duration = IN_FLIGHT;
/// The beginning of every key in Redis.
pub const REDIS_PREFIX: &str = "hapax:";
/// Messages that wait to be published by Hapax itself: some seconds of a flood, until the broker is back.
pub const COPIES: usize = 10_000;
/// Bytes. They are taken only while the broker does not keep up.
pub const COPIES_BYTES: usize = 64 << 20;
/// The longest run of chaos: long enough to watch a retry of every kind, and over before it is forgotten.
pub const CHAOS: Duration = Duration::from_secs(900);
/// The longest that chaos holds confirms back. Clients have given up on most brokers by then.
pub const CHAOS_HOLD: Duration = Duration::from_secs(30);
/// No configuration allows a longer one: the publishes of a connection would reach `limits.max_unresolved`.
pub const LONGEST_HOLD: Duration = Duration::from_secs(600);
/// Bytes of a stream at least: one of its segments, and some room.
pub const STREAM_LEAST: usize = 1 << 20;
/// The same as RabbitMQ's own `handshake_timeout`.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// A revoked permission shows within a minute. One question to the broker serves many publishes, so asking again is
/// cheap.
pub const RIGHTS: Duration = Duration::from_secs(60);
/// The same as [`LINGER`], and less than the 90 s after which systemd kills a process.
pub const DRAIN: Duration = Duration::from_secs(30);
/// The time that a new process waits for the folder of the old one: longer than [`DRAIN`], which the old one may take.
pub const TAKEOVER: Duration = Duration::from_secs(60);
/// A broker in the same network answers within milliseconds. This leaves time for one lost SYN.
pub const UPSTREAM_CONNECT: Duration = Duration::from_secs(5);

/// The same as the time after which RabbitMQ's own heartbeats give up (60 s, two missed). It must not be shorter: the
/// kernel also counts the time in which a peer accepts no bytes, and a broker with an alarm accepts none.
pub const TCP_USER: Duration = Duration::from_secs(120);

/// Long enough for a client that is busy with a large batch. Its broker connection and everything that it holds stay
/// taken for this long.
pub const UNREAD: Duration = Duration::from_secs(60);

/// A filter of `tracing`.
pub const LOG_LEVEL: &str = "info";

/// The name of the window that exists without a file.
pub const WINDOW_NAME: &str = "default";
/// Ids. With a TTL of 10 minutes this is enough for 1,666 fresh ids per second, and takes about 43 MB when it is full.
pub const CAPACITY: usize = 1_000_000;
/// Producers of a window with `id = "sequence"`. They take about 3 MB.
pub const PRODUCERS: usize = 10_000;
/// The TTL starts with the broker's ack. Retries arrive within seconds, the replay of a crashed publisher within
/// minutes.
pub const TTL: Duration = Duration::from_secs(600);

/// By default all windows have the same weight.
pub const WEIGHT: u32 = 1;

/// How often metrics are sent to a collector.
pub const TELEMETRY_INTERVAL: Duration = Duration::from_secs(15);

impl Default for Telemetry {
    fn default() -> Telemetry {
        Telemetry { endpoint: None, tls: None, interval: TELEMETRY_INTERVAL, spans_every: 0 }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: Some(LISTEN),
            listeners: Vec::new(),
            upstreams: vec![UpstreamAddress::default()],
            upstream_order: UpstreamOrder::default(),
            upstream_health: UpstreamHealth::default(),
            upstream_tls: None,
            upstream_proxy_protocol: ProxyProtocol::default(),
            loopback_users: LOOPBACK_USERS.map(str::to_owned).to_vec(),
            admin: Some(ADMIN),
            admin_tls: None,
            admin_token_file: None,
            admin_token: None,
            admin_read_only_token_file: None,
            admin_read_only_token: None,
            digest_secret_file: None,
            digest_secret: None,
            reuse_port: false,
            state_dir: None,
            store: StoreSettings::default(),
            duplicates: None,
            chaos: ChaosSettings::default(),
            memory_budget: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            log: LogSettings::default(),
            telemetry: Telemetry::default(),
            windows: vec![WindowConfig::named(WINDOW_NAME)],
        }
    }
}

impl Default for ChaosSettings {
    fn default() -> ChaosSettings {
        ChaosSettings {
            enabled: false,
            vhosts: Vec::new(),
            users: vec![Pattern::everything()],
            max_duration: CHAOS,
            max_hold: CHAOS_HOLD,
            replay: None,
        }
    }
}

impl Default for UpstreamAddress {
    fn default() -> UpstreamAddress {
        UpstreamAddress { host: UPSTREAM_HOST.into(), port: UPSTREAM_PORT, tls: false }
    }
}

impl Default for UpstreamHealth {
    fn default() -> UpstreamHealth {
        UpstreamHealth {
            interval: UPSTREAM_INTERVAL,
            timeout: UPSTREAM_TIMEOUT,
            rest: UPSTREAM_REST,
            max_rest: UPSTREAM_MAX_REST,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: MAX_CONNECTIONS,
            connections_per_address: connections_per_address(MAX_CONNECTIONS),
            connections_per_user: 0,
            handshakes: connections_per_address(MAX_CONNECTIONS),
            publish_rate_per_user: 0,
            publish_rate_per_vhost: 0,
            publish_burst: PUBLISH_BURST,
            memory: memory(),
            max_unresolved: MAX_UNRESOLVED,
            held_bytes: HELD_BYTES,
            waiters_per_id: WAITERS_PER_ID,
            frame_max: FRAME_MAX,
            initial_frame_max: INITIAL_FRAME_MAX,
            buffer_bytes: BUFFER_BYTES,
            unread_bytes: UNREAD_BYTES,
        }
    }
}

/// Returns the default of `connections_per_address` and of `handshakes` for this `max_connections`.
pub(super) fn connections_per_address(max_connections: usize) -> usize {
    (max_connections / ADDRESS_SHARE).max(ADDRESS_LEAST).min(max_connections)
}

/// Returns the default of `limits.memory` on this machine, in bytes, rounded down to whole MiB.
pub(super) fn memory() -> usize {
    let share = machine::memory() / MEMORY_SHARE;
    (share - share % (1 << 20)).max(super::check::most::LEAST_MEMORY)
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            linger: LINGER,
            in_flight: IN_FLIGHT,
            store: STORE,
            handshake: HANDSHAKE,
            rights: RIGHTS,
            drain: DRAIN,
            drain_delay: Duration::ZERO,
            takeover: TAKEOVER,
            upstream_connect: UPSTREAM_CONNECT,
            tcp_user: TCP_USER,
            unread: UNREAD,
        }
    }
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { format: LogFormat::default(), level: LOG_LEVEL.to_owned() }
    }
}

impl WindowConfig {
    /// Creates a window for all exchanges with this name and all defaults.
    pub fn named(name: &str) -> WindowConfig {
        WindowConfig {
            judges: Judges::default(),
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
            store: StoreKind::default(),
            policy: StorePolicy::default(),
        }
    }
}
