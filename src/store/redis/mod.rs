//! `store = "redis"`: the ids of a window in Redis or Valkey, which several relays share.
//!
//! [`LeasedWindow`] says what is to be asked and written, and in which order. Here it is sent: [`link`] keeps one connection for that,
//! and sends all that has come since the last time as one pipeline. [`follow`] keeps another one: it reads what the other relays
//! tell, and asks Redis once a second how it is.
//!
//! A window is out of order when Redis says an error, or nothing for `timeouts.store`. Then the connection is given up, and opened
//! again with pauses. What was not answered is sent again, in its order. All of it may be executed twice: a lease has a number that
//! is used once, and a record is the same the second time.

mod commands;
mod connect;
mod follow;
mod link;
mod names;
mod sequences;
mod slot;

use super::{Failure, Keeper};
use crate::config::RedisSettings;
use connect::{Connection, Target};
use follow::Follower;
use hapax_core::pressure::Accounting;
use hapax_core::window::logged::{Codec, Identity, RelayId};
use hapax_core::window::{Inspect, KeyMaker, LeasedWindow, Limits, Rules, StorePolicy, Window as _};
use hapax_core::wire::IdSource;
use link::Link;
use names::Names;
use parking_lot::Mutex;
use redis::{RedisError, Value, cmd};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A window in Redis, as this process makes it.
pub(super) type Leased = LeasedWindow<Accounting>;

/// The pause before a connection is opened again. It doubles each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The most changes that one entry of the stream of changes tells.
const CHANGES_AT_ONCE: usize = 500;

/// Why Redis can't be used at present.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("no answer within timeouts.store")]
    Silent,
    #[error("an answer that makes no sense")]
    Strange,
    #[error("{have} of {want} replicas have taken a write in time")]
    Replicas { have: i64, want: usize },
    #[error("it holds the ids of another digest secret, scope or id")]
    Identity,
}

/// The parts that the connections of one window share.
struct Shared {
    window: Arc<Leased>,
    names: Names,
    codec: Codec,
    identity: Identity,
    target: Target,
    timeout: Duration,
    replicas: usize,
    /// what is known of Redis: the follower and the link both add to it
    known: Mutex<hapax_core::window::logged::AtStore>,
}

/// The parts of a window.
pub(super) struct Parts {
    pub(super) rules: Rules,
    pub(super) limits: Limits,
    pub(super) engine: hapax_core::window::engine::EngineKind,
    pub(super) policy: StorePolicy,
    pub(super) listener: Arc<Accounting>,
    /// `timeouts.store`
    pub(super) timeout: Duration,
}

/// Creates a window, and the tasks that connect it with Redis.
pub(super) fn open(
    parts: Parts,
    settings: &RedisSettings,
    (keys, relay): (&KeyMaker, RelayId),
    now: Instant,
) -> Result<(Arc<dyn Inspect>, Keeper), Failure> {
    // Another crate of the process may have chosen one before; then this does nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Parts { rules, limits, engine, policy, listener, timeout } = parts;
    let (names, identity) = (Names::new(&settings.prefix, &rules.name), Identity::new(keys, &rules));
    let codec = Codec::new(keys.clone(), &rules, relay);
    let window =
        LeasedWindow::new(rules, limits, engine, listener, policy, keys.clone(), relay, settings.lease, now);
    let shared = Arc::new(Shared {
        window: Arc::clone(&window),
        names,
        codec,
        identity,
        target: Target::new(settings.clone(), timeout)?,
        timeout,
        replicas: settings.replicas,
        known: Mutex::default(),
    });
    let closed = Arc::clone(&window);
    let (closing, is_closing) = watch::channel(false);
    let (first, is_first) = watch::channel(None);
    let link = tokio::spawn(Link::new(Arc::clone(&shared), first, is_closing.clone()).run());
    let follower = tokio::spawn(Follower::new(Arc::clone(&shared), is_closing).run());
    let keeper = Keeper {
        recover: Box::pin(recover(shared, is_first)),
        close: Box::new(move |within| {
            Box::pin(async move {
                closing.send_replace(true);
                let _ = tokio::time::timeout(within, link).await;
                follower.abort();
                let records = closed.store(crate::clock::now()).map_or(0, |facts| facts.waiting);
                if records > 0 {
                    let window = &*closed.rules().name;
                    tracing::warn!(
                        window,
                        records,
                        "Redis has not taken everything: after a restart these ids are unknown to this window"
                    );
                }
            })
        }),
    };
    Ok((window, keeper))
}

/// How the first attempt to connect ended.
type First = Option<Result<(), String>>;

/// Waits for the first attempt to connect. If it fails, the window begins with its store out of order, and its policy decides. But a
/// store of others must not be used at all.
async fn recover(shared: Arc<Shared>, mut first: watch::Receiver<First>) -> Result<(), Failure> {
    let outcome = first.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
    match outcome {
        Ok(Some(Err(what))) => Err(Failure {
            what: format!("window \"{}\": {what}", shared.window.rules().name),
            fix: format!(
                "give all relays that share it the same file in `digest_secret_file`, and the window the same `id` and `scope`; or call the window otherwise; or forget its ids, with all relays stopped: DEL {} in Redis",
                shared.names.identity
            ),
        }),
        _ => Ok(()),
    }
}

impl Shared {
    /// Opens a connection to a Redis that holds the ids of this window and no others'. Brings the count of flushes.
    async fn connect(&self) -> Result<Connection, Failed> {
        let mut connection = self.target.connect().await?;
        let greet = async {
            let mut identity = String::new();
            self.identity.0.iter().for_each(|byte| {
                let _ = write!(identity, "{byte:02x}");
            });
            let mut set = cmd("SET");
            set.arg(&self.names.identity).arg(&identity).arg("NX").arg("GET");
            match connection.ask(&set).await? {
                Value::Nil => {}
                Value::BulkString(have) if have == identity.as_bytes() => {}
                Value::BulkString(_) => return Err(Failed::Identity),
                _ => return Err(Failed::Strange),
            }
            if self.window.rules().id == IdSource::Sequence {
                let name = connection.ask(&sequences::load()).await?;
                self.names.set_script(redis::from_redis_value(name).map_err(|_| Failed::Strange)?);
            }
            self.learn_generation(&mut connection).await?;
            Ok(())
        };
        tokio::time::timeout(self.timeout, greet).await.map_err(|_| Failed::Silent)??;
        Ok(connection)
    }

    /// Learns how often the window was flushed, and for how long it has been remembered.
    async fn learn_generation(&self, connection: &mut Connection) -> Result<(), Failed> {
        let greet = commands::greet(&self.names, self.window.set_generation(0));
        let reply = connection.ask(&greet).await?;
        let (generation, age): (u32, u64) = redis::from_redis_value(reply).map_err(|_| Failed::Strange)?;
        self.window.set_generation(generation);
        self.learn(|known| known.oldest = Some(Duration::from_secs(age)));
        Ok(())
    }

    fn name(&self) -> &str {
        &self.window.rules().name
    }

    /// Adds to what is known of Redis.
    fn learn(&self, learn: impl FnOnce(&mut hapax_core::window::logged::AtStore)) {
        let mut known = self.known.lock();
        learn(&mut known);
        self.window.set_at_store(known.clone());
    }
}
