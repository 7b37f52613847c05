//! The configuration. It is checked once; a [`Config`] is then complete and consistent, and no value in it is "maybe".
//!
//! There are two steps. `raw` parses the file and keeps the line of every value. `check` makes a [`Config`] of it, and
//! reports all errors at once, each with its place and its fix ([`Problems`]). Flags override the environment, the
//! environment overrides the file, and the file overrides [`defaults`].
//!
//! ```text
//! file ── raw ──┐
//! flags, env ───┴─ check ── Config ─┬─ settings() ─→ session::Settings
//!                                   └─ windows ─→ store::open
//! ```

mod addresses;
mod chaos;
mod check;
mod diff;
mod duplicates;
mod guard;
mod json;
mod listener;
mod log_filter;
mod machine;
pub(crate) mod number;
mod preset;
mod problem;
mod publishing;
mod raw;
mod sequence;
mod show;
mod show_tls;
mod store;
mod telemetry;
mod token;
mod upstream;
mod value;
mod warnings;

pub mod defaults;

pub use chaos::ChaosSettings;
pub(crate) use check::{TICK, most};
pub use diff::{Change, Diff, Effect};
pub use guard::Judges;
pub use listener::{ListenerConfig, ProxyProtocol};
pub use machine::memory;
pub use problem::{Problem, Problems, Source, Sources};
pub use publishing::PublishingSettings;
pub(crate) use store::AMQPS;
pub use store::{Node, RedisMode, RedisSettings, StoreKind, StoreSettings, StreamSettings};
pub use token::{DigestSecret, Secret, Token};
pub use upstream::{UpstreamHealth, UpstreamOrder};

use crate::bounded_file;
use crate::tls::{ClientFiles, ServerFiles};
use hapax_core::pressure::budget::{Budget, Share};
use hapax_core::session::{LoopbackUsers, Settings, is_loopback};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::local::Limits as WindowLimits;
use hapax_core::window::logged::StorePolicy;
use hapax_core::window::set::Pattern;
use hapax_core::window::{KeyMaker, Rules};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Everything that can be configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// where AMQP clients connect without TLS and without a proxy; `None`: only where `listeners` say
    pub listen: Option<SocketAddr>,
    /// where else AMQP clients connect
    pub listeners: Vec<ListenerConfig>,
    /// the addresses of the broker's nodes: at least one, and none twice
    pub upstreams: Vec<UpstreamAddress>,
    /// which node a new connection goes to
    pub upstream_order: UpstreamOrder,
    /// when nodes are asked whether they are alive
    pub upstream_health: UpstreamHealth,
    /// the files of TLS to the broker; `None`: it is reached without
    pub upstream_tls: Option<ClientFiles>,
    /// whether the broker is told who the clients are
    pub upstream_proxy_protocol: ProxyProtocol,
    /// the broker's users who may log in from this host only
    pub loopback_users: Vec<String>,
    /// where metrics, health and the API are served; `None`: nowhere
    pub admin: Option<SocketAddr>,
    /// the files of TLS there; `None`: it is served without
    pub admin_tls: Option<ServerFiles>,
    /// the file that the token came from
    pub admin_token_file: Option<PathBuf>,
    /// the token that the admin listener asks for; `None`: it asks for none, and `admin` is on loopback
    pub admin_token: Option<Token>,
    /// the file that the read-only token came from
    pub admin_read_only_token_file: Option<PathBuf>,
    /// the token of those who may read but not change; only beside `admin_token`
    pub admin_read_only_token: Option<Token>,
    /// the file that the secret of the id digests came from
    pub digest_secret_file: Option<PathBuf>,
    /// the secret of the id digests; `None`: each start draws a new one
    pub digest_secret: Option<DigestSecret>,
    /// whether another process may listen on the same addresses
    pub reuse_port: bool,
    /// the folder where windows with `store = "disk"` keep their ids
    pub state_dir: Option<PathBuf>,
    /// how Hapax reaches the stores that are servers
    pub store: StoreSettings,
    /// the broker that gets copies of dropped publishes; `None`: nobody gets any
    pub duplicates: Option<PublishingSettings>,
    /// whether the relay may make trouble on request
    pub chaos: ChaosSettings,
    /// bytes that the windows with `capacity = "auto"` share
    pub memory_budget: Option<usize>,
    /// limits of size and number
    pub limits: Limits,
    /// timeouts
    pub timeouts: Timeouts,
    /// logging
    pub log: LogSettings,
    /// where metrics and spans are sent
    pub telemetry: Telemetry,
    /// in order: the first window that matches judges a publish. Guards stand behind all other windows; of them, too, the first that matches
    /// judges a delivery
    pub windows: Vec<WindowConfig>,
}

/// The address of the broker, or of one node of its cluster. It has no credentials and no vhost, because each client brings its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamAddress {
    /// a name or an IP address, without brackets
    pub host: Arc<str>,
    /// the port
    pub port: u16,
    /// `amqps`: it is reached by TLS
    pub tls: bool,
}

impl UpstreamAddress {
    /// Returns `HOST:PORT` as resolvers take it.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

/// Returns `HOST:PORT`, with brackets around an IPv6 address.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl UpstreamAddress {
    /// Returns true if the broker is certainly on this host, as its address says. Only the name `localhost` is resolved.
    pub fn is_loopback(&self) -> bool {
        self.address().is_some_and(is_loopback)
    }

    /// Returns the IP address, if the host is one or `localhost`.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self.host.as_ref() {
            "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
            host => host.parse().ok(),
        }
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "amqps" } else { "amqp" }, self.authority())
    }
}

/// Limits of size and number, so that nothing grows without a bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// the most client connections at a time
    pub max_connections: usize,
    /// the most client connections from one address
    pub connections_per_address: usize,
    /// the most client connections of one user; 0: as many as it likes
    pub connections_per_user: usize,
    /// the most client connections that have not logged in
    pub handshakes: usize,
    /// publishes that a user may send in a second; 0: as many as it likes
    pub publish_rate_per_user: usize,
    /// publishes that all users of a vhost together may send in a second; 0: as many as they like
    pub publish_rate_per_vhost: usize,
    /// publishes that may come at once, beyond either rate
    pub publish_burst: usize,
    /// bytes that all connections together may hold
    pub memory: usize,
    /// publishes of one connection with an unknown outcome; at this number, its client is not read any more
    pub max_unresolved: usize,
    /// bytes of publishes that wait for the outcome of another publish, per connection
    pub held_bytes: usize,
    /// publishes that may wait for the outcome of one id; a window can have its own
    pub waiters_per_id: usize,
    /// the largest frame, in bytes, that the broker may offer to the client
    pub frame_max: u32,
    /// the largest frame, in bytes, that a client may send before `tune-ok`
    pub initial_frame_max: u32,
    /// bytes that may wait to be written, per connection and direction, before reading stops
    pub buffer_bytes: usize,
    /// bytes that may wait for a client that publishes and does not read
    pub unread_bytes: usize,
}

/// Timeouts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// how long an upstream connection outlives its client to learn the outcomes of its publishes
    pub linger: Duration,
    /// how long a publish waits for the outcome of another publish with the same id
    pub in_flight: Duration,
    /// how long a store may be silent about one question
    pub store: Duration,
    /// from a client's connect to `connection.open-ok`
    pub handshake: Duration,
    /// how long the broker's proof that a user may publish is believed
    pub rights: Duration,
    /// from SIGTERM to the end of the process
    pub drain: Duration,
    /// from SIGTERM, when `/readyz` turns to 503, to the begin of the drain
    pub drain_delay: Duration,
    /// how long a process that starts waits until another one lets go of `state_dir`
    pub takeover: Duration,
    /// how long connecting to the broker may take
    pub upstream_connect: Duration,
    /// how long written bytes may stay unacknowledged on a connection without heartbeats
    pub tcp_user: Duration,
    /// how long a client that publishes may read nothing, when the bytes that wait for it have reached their bound
    pub unread: Duration,
}

/// Where metrics and spans are sent, as OTLP over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Telemetry {
    /// `http://HOST:PORT` or `https://HOST:PORT`; `None`: nothing is sent
    pub endpoint: Option<String>,
    /// the files of TLS to the collector; `None`: it is reached without
    pub tls: Option<ClientFiles>,
    /// how often metrics are sent
    pub interval: Duration,
    /// of the judged publishes of a connection, every n-th is looked at for a trace; 0: none
    pub spans_every: u32,
}

/// Logging. The log goes to stderr.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSettings {
    /// the form of a log line
    pub format: LogFormat,
    /// what is logged: a level, or levels by target
    pub level: String,
}

/// The form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// text for a terminal, JSON otherwise
    #[default]
    Auto,
    /// one line of text
    Text,
    /// one JSON object per line
    Json,
}

/// One `[[window]]` or `[[guard]]` of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowConfig {
    /// which of them
    pub judges: Judges,
    /// the vhosts that match
    pub vhost: Pattern,
    /// the exchanges that match; of a guard: the queues
    pub exchange: Pattern,
    /// how publishes are judged
    pub rules: Rules,
    /// the settings that can be changed while Hapax runs, and the bounds
    pub limits: WindowLimits,
    /// `capacity = "auto"`: the capacity in `limits` is only the first one
    pub auto: bool,
    /// the window's share of the memory budget, relative to the other windows
    pub weight: u32,
    /// the engine that stores seen ids
    pub engine: EngineKind,
    /// where the window remembers
    pub store: StoreKind,
    /// the rules of its store, if it has one
    pub policy: StorePolicy,
}

impl Config {
    /// Returns the settings that sessions need.
    pub fn settings(&self) -> Settings {
        Settings {
            linger: self.timeouts.linger,
            in_flight_timeout: self.timeouts.in_flight,
            store_timeout: self.timeouts.store,
            handshake_timeout: self.timeouts.handshake,
            rights_held: self.timeouts.rights,
            max_unresolved: self.limits.max_unresolved,
            held_bytes: self.limits.held_bytes,
            frame_max: self.limits.frame_max,
            initial_frame_max: self.limits.initial_frame_max,
            external: !self.upstreams.iter().any(|upstream| upstream.tls)
                && self.listeners.iter().all(|listener| listener.tls.is_none()),
        }
    }

    /// Returns all places where clients connect, with the key of each in the file.
    pub fn all_listeners(&self) -> impl Iterator<Item = (String, ListenerConfig)> {
        let short = self.listen.map(|address| ("listen".to_owned(), ListenerConfig::plain(address)));
        let listed = self.listeners.iter().cloned().enumerate();
        short
            .into_iter()
            .chain(listed.map(|(index, listener)| (format!("listener.{index}.address"), listener)))
    }

    /// Returns the addresses of all places where clients connect, separated by commas.
    pub fn listen_addresses(&self) -> String {
        let addresses: Vec<String> =
            self.all_listeners().map(|(_, listener)| listener.address.to_string()).collect();
        addresses.join(", ")
    }

    /// Returns the users who may log in from this host only.
    pub fn loopback_users(&self) -> LoopbackUsers {
        LoopbackUsers::new(self.loopback_users.iter().map(String::as_str))
    }

    /// Returns the maker of id digests: with the configured secret, or else with one that is drawn now.
    pub fn keys(&self) -> KeyMaker {
        self.digest_secret.as_ref().map_or_else(KeyMaker::random, DigestSecret::keys)
    }

    /// Returns the memory budget and the windows that may have a share of it.
    pub fn budget(&self) -> Budget {
        Budget::new(self.memory_budget, self.shares())
    }

    /// Returns the part of each window in the memory budget.
    pub(crate) fn shares(&self) -> impl Iterator<Item = Share> {
        let share = |window: &WindowConfig| Share {
            name: Arc::clone(&window.rules.name),
            engine: window.engine,
            auto: window.auto,
            weight: window.weight,
        };
        self.windows.iter().map(share)
    }

    /// Reads the configuration from a file, or takes the defaults if there is none. Flags and environment override it.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded, Problems> {
        let Some(path) = file else { return Config::parse(None, "", overrides) };
        let text = Config::read(path)?;
        Config::parse(Some(&path.display().to_string()), &text, overrides)
    }

    /// Returns the text of a configuration file.
    pub(crate) fn read(path: &Path) -> Result<String, Problems> {
        let read = bounded_file::read_text(path, bounded_file::MOST).map(|(text, _)| text);
        read.map_err(|error| {
            Problems(vec![Problem {
                what: format!("the configuration file can't be read: {error}"),
                fix: "name a readable UTF-8 file with --config or HAPAX_CONFIG, or leave both out for the defaults".into(),
                place: path.display().to_string(),
            }])
        })
    }

    /// Parses a configuration as [`Config::load`] does, but from a text. Messages call it `name`.
    pub fn parse(name: Option<&str>, text: &str, overrides: &Overrides) -> Result<Loaded, Problems> {
        check::check(name, text, overrides)
    }
}

/// Returns a text that changes whenever a file is written or replaced, and that no other file has. Two processes that look at one file
/// get the same.
pub(crate) fn version(about: &std::fs::Metadata) -> String {
    use std::os::unix::fs::MetadataExt;
    let moment = |seconds: i64, nanoseconds: i64| format!("{seconds}.{nanoseconds:09}");
    let (written, changed) =
        (moment(about.mtime(), about.mtime_nsec()), moment(about.ctime(), about.ctime_nsec()));
    format!("{}-{}-{written}-{changed}", about.ino(), about.len())
}

impl Problems {
    /// Returns all problems as JSON.
    pub fn to_json(&self) -> String {
        json::problems(self)
    }
}

/// A configuration with its sources and warnings.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// the settings in force
    pub config: Config,
    /// where each value came from
    pub sources: Sources,
    /// problems of settings that are allowed, but probably not meant
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// Returns the settings in force as TOML, each line with its source. The text is a valid configuration file.
    pub fn to_toml(&self) -> String {
        show::to_toml(&self.config, &self.sources)
    }

    /// Returns the settings in force as JSON, with their sources and the warnings.
    pub fn to_json(&self) -> String {
        json::loaded(&self.to_toml(), &self.sources, &self.warnings)
    }
}

/// A value from a flag or the environment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// the text of the value
    pub value: String,
    /// [`Source::Flag`] or [`Source::Env`]
    pub source: Source,
}

/// Checks what is to be logged, as `log.level` says it. Returns it in the words of the log. An error says what is wrong and what to do.
pub fn check_log_level(text: &str) -> Result<String, (String, String)> {
    log_filter::parse(text).map_err(|wrong| (wrong.what, wrong.fix))
}

/// Values of flags and the environment, which override the file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overrides {
    /// overrides `listen`
    pub listen: Option<Given>,
    /// overrides `upstream`
    pub upstream: Option<Given>,
    /// overrides `admin`
    pub admin: Option<Given>,
    /// overrides `log.level`
    pub log: Option<Given>,
    /// `HAPAX_ADMIN_TOKEN`, which overrides `admin_token_file`
    pub admin_token: Option<Secret>,
}
