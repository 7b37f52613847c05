//! What the user asked for, checked once. After that nothing is "maybe": a [`Config`] is complete and consistent.
//!
//! Read twice: `raw` takes the file apart and keeps the place of every value, `check` makes a [`Config`] of it. All
//! that is wrong is reported at once, each with its place and its fix ([`Problems`]). Flags come before environment,
//! environment before file, file before [`defaults`].
//!
//! ```text
//! file ── raw ──┐
//! flags, env ───┴─ check ── Config ─┬─ settings() ─→ session::Settings
//!                                   └─ window_set() ─→ window::WindowSet
//! ```

mod check;
mod json;
mod machine;
mod problem;
mod raw;
mod show;
mod token;
mod value;

pub mod defaults;

pub(crate) use check::{TICK, most};
pub use problem::{Problem, Problems, Source, Sources};
pub use token::{DigestSecret, Secret, Token};
pub(crate) use token::{Shared, read_secret};

use hapax_core::pressure::budget::{Budget, Share};
use hapax_core::session::Settings;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::local::Limits as WindowLimits;
use hapax_core::window::set::Pattern;
use hapax_core::window::{KeyMaker, Listener, LocalWindow, Rules, WindowSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Everything that can be configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// where AMQP clients connect
    pub listen: SocketAddr,
    /// the broker
    pub upstream: Upstream,
    /// where metrics, health and the API are served; `None` is off
    pub admin: Option<SocketAddr>,
    /// the file that the token came from
    pub admin_token_file: Option<PathBuf>,
    /// what the admin listener asks for; `None`: nothing, and then `admin` is on loopback
    pub admin_token: Option<Token>,
    /// the file that the secret of the id digests came from
    pub digest_secret_file: Option<PathBuf>,
    /// the secret of the id digests; `None`: each start draws a new one
    pub digest_secret: Option<DigestSecret>,
    /// bytes that the windows with `capacity = "auto"` share
    pub memory_budget: Option<usize>,
    /// bounds
    pub limits: Limits,
    /// times
    pub timeouts: Timeouts,
    /// logging
    pub log: Log,
    /// in order: the first match judges a publish
    pub windows: Vec<WindowConfig>,
}

/// The broker's address. No credentials and no vhost: both are the client's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upstream {
    /// a name or an IP address, without brackets
    pub host: Arc<str>,
    /// the port
    pub port: u16,
}

impl Upstream {
    /// `HOST:PORT`, as resolvers take it.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "amqp://{}", self.authority())
    }
}

/// Bounds, so that nothing grows without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// client connections at a time
    pub max_connections: usize,
    /// of them, from one address
    pub connections_per_address: usize,
    /// bytes that all connections together may hold
    pub memory: usize,
    /// publishes of one connection whose outcome is unknown, before its client is not read any more
    pub max_unresolved: usize,
    /// bytes of publishes that wait for the outcome of another one, per connection
    pub held_bytes: usize,
    /// publishes that may wait for the outcome of one id; a window can have its own
    pub waiters_per_id: usize,
    /// the largest frame, in bytes, that the broker may offer to the client
    pub frame_max: u32,
    /// bytes that may wait to be written, per connection and direction, before reading stops
    pub buffer_bytes: usize,
}

/// Times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// how long an upstream connection outlives its client to learn the outcome of its publishes
    pub linger: Duration,
    /// how long a publish waits for the outcome of another one of the same id
    pub in_flight: Duration,
    /// from a client's connecting to `connection.open-ok`
    pub handshake: Duration,
    /// how long the broker's proof that a user may publish somewhere is believed
    pub rights: Duration,
    /// from SIGTERM to the end
    pub drain: Duration,
    /// to open a TCP connection to the broker
    pub upstream_connect: Duration,
    /// for written bytes to arrive at a peer's host, where no heartbeats are agreed on
    pub tcp_user: Duration,
}

/// Logging, to stderr.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// how a line looks
    pub format: LogFormat,
    /// what is logged: a level, or levels by target
    pub level: String,
}

/// How a log line looks.
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

/// One `[[window]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowConfig {
    /// which vhosts
    pub vhost: Pattern,
    /// which exchanges
    pub exchange: Pattern,
    /// how publishes are judged
    pub rules: Rules,
    /// what can be changed while it runs, and the bounds
    pub limits: WindowLimits,
    /// `capacity = "auto"`: the one in `limits` is where it starts
    pub auto: bool,
    /// its share of the memory budget, relative to others
    pub weight: u32,
    /// how seen ids are stored
    pub engine: EngineKind,
}

impl Config {
    /// The values that sessions need.
    pub fn settings(&self) -> Settings {
        Settings {
            linger: self.timeouts.linger,
            in_flight_timeout: self.timeouts.in_flight,
            handshake_timeout: self.timeouts.handshake,
            rights_held: self.timeouts.rights,
            max_unresolved: self.limits.max_unresolved,
            held_bytes: self.limits.held_bytes,
            frame_max: self.limits.frame_max,
        }
    }

    /// What makes digests of ids: with the secret that is configured, or else with one that is drawn now.
    pub fn keys(&self) -> KeyMaker {
        self.digest_secret
            .as_ref()
            .map_or_else(KeyMaker::random, |secret| KeyMaker::of_secret(secret.bytes()))
    }

    /// The memory budget, and who may have a share of it.
    pub fn budget(&self) -> Budget {
        let share = |window: &WindowConfig| Share {
            name: Arc::clone(&window.rules.name),
            engine: window.engine,
            auto: window.auto,
            weight: window.weight,
        };
        Budget::new(self.memory_budget, self.windows.iter().map(share))
    }

    /// The windows, empty, each with the listener that `listener` makes for it.
    pub fn window_set<L: Listener + ?Sized>(
        &self,
        mut listener: impl FnMut(&WindowConfig) -> Arc<L>,
    ) -> WindowSet<LocalWindow<L>> {
        let mut set = WindowSet::new();
        for window in &self.windows {
            let built =
                LocalWindow::new(window.rules.clone(), window.limits, window.engine, listener(window));
            set.push(window.vhost.clone(), window.exchange.clone(), built);
        }
        set
    }

    /// The configuration from a file (none: defaults) and what flags and environment say over it.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Loaded, Problems> {
        let Some(path) = file else { return Config::parse(None, "", overrides) };
        let place = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(Some(&place), &text, overrides),
            Err(error) => Err(Problems(vec![Problem {
                what: format!("the configuration file can't be read: {error}"),
                fix: "name a readable UTF-8 file with --config or HAPAX_CONFIG, or leave both out for the defaults".into(),
                place,
            }])),
        }
    }

    /// As [`Config::load`], of a text; `name` stands for it in messages.
    pub fn parse(name: Option<&str>, text: &str, overrides: &Overrides) -> Result<Loaded, Problems> {
        check::check(name, text, overrides)
    }
}

impl Problems {
    /// All of them as JSON.
    pub fn to_json(&self) -> String {
        json::problems(self)
    }
}

/// A configuration, and what is to be said about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// what holds
    pub config: Config,
    /// where it came from
    pub sources: Sources,
    /// what is allowed, but hardly meant
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// The effective settings as TOML that can be used as a file, each line with its source.
    pub fn to_toml(&self) -> String {
        show::to_toml(&self.config, &self.sources)
    }

    /// The same as JSON, with the sources and the warnings beside it.
    pub fn to_json(&self) -> String {
        json::loaded(&self.to_toml(), &self.sources, &self.warnings)
    }
}

/// A value that a flag or the environment gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// its text
    pub value: String,
    /// [`Source::Flag`] or [`Source::Env`]
    pub source: Source,
}

/// What flags and environment say over the file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overrides {
    /// over `listen`
    pub listen: Option<Given>,
    /// over `upstream`
    pub upstream: Option<Given>,
    /// over `admin`
    pub admin: Option<Given>,
    /// over `log.level`
    pub log: Option<Given>,
    /// over `admin_token_file`, by `HAPAX_ADMIN_TOKEN`
    pub admin_token: Option<Secret>,
}
