//! The windows of the process, and the stores that some of them have: where their ids outlive the process.
//!
//! A window with a store is a [`LoggedWindow`]. Its store takes the records out of it, writes them, and says how far it has come. At the
//! start it reads what was written before. A store is a [`Keeper`]: two futures, one that ends when everything was read, and one that
//! ends when everything is written.

mod changes;
mod disk;
mod redis;
mod stream;

pub mod command;

pub use changes::log_merged;
pub(crate) use stream::{BrokerConnection, Why, within};

use crate::config::{self, Config, StoreKind, WindowConfig};
use crate::tls;
use disk::StateDir;
use hapax_core::pressure::{Accounting, Room, Watched};
use hapax_core::window::logged::{Codec, RelayId};
use hapax_core::window::{Inspect, KeyMaker, LiveWindows, LocalWindow, LoggedWindow, Window, WindowSet};
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A window with a log, as this process makes it.
pub type Logged = LoggedWindow<Accounting>;

/// Returns the name of a window.
fn name_of(window: &Logged) -> &str {
    &window.rules().name
}

/// Makes the windows of the process, at its start and later.
pub struct Maker {
    keys: KeyMaker,
    /// the folder of the process, if a window has its log there, or if the secret is there
    state: Option<Arc<StateDir>>,
    /// the next process makes the same keys
    is_lasting: bool,
    room: Arc<Room>,
    /// the connection of all windows that have a stream
    link: Mutex<Option<Arc<stream::Link>>>,
    /// the settings of TLS of that connection
    stream_tls: Option<Arc<tls::Client>>,
}

type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// Closes a store within this time.
type Close = Box<dyn FnOnce(Duration) -> Task<()> + Send>;

/// How long a store may take to be closed while the process goes on.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Everything that [`open`] makes.
pub struct Opened {
    /// the maker of keys
    pub keys: KeyMaker,
    /// the windows, for sessions
    pub set: Arc<LiveWindows<dyn Inspect>>,
    /// the windows with their accountings, for operators
    pub windows: Vec<Watched>,
    /// the stores
    pub stores: Stores,
    /// makes more windows
    pub maker: Maker,
}

/// A store can't be used. The text says what to do.
#[derive(Debug)]
pub struct Failure {
    /// what is wrong, and with which window or file
    pub what: String,
    /// what to do
    pub fix: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    fix: {}", self.what, self.fix)
    }
}

impl From<tls::Unusable> for Failure {
    fn from(unusable: tls::Unusable) -> Failure {
        Failure { what: unusable.to_string(), fix: unusable.fix }
    }
}

/// A store at work.
pub struct Keeper {
    /// Ends when the window knows what stood in the store, or when its time for that is over.
    pub(crate) recover: Task<Result<(), Failure>>,
    close: Close,
}

impl Keeper {
    /// Writes what is still to be written. Gives up after this time, and logs what was not written.
    pub(crate) async fn close(self, within: Duration) {
        (self.close)(within).await;
    }
}

/// The stores of the process.
#[derive(Default)]
pub struct Stores {
    keepers: Vec<(Arc<str>, Keeper)>,
}

impl Stores {
    /// Reads what the stores have, all at the same time.
    pub async fn recover(&mut self) -> Result<(), Failure> {
        let all = self.keepers.iter_mut().map(|(_, keeper)| &mut keeper.recover);
        futures_util::future::try_join_all(all).await.map(|_| ())
    }

    /// Writes what is still to be written, for at most this time: all stores at the same time.
    pub async fn close(self, within: Duration) {
        futures_util::future::join_all(self.keepers.into_iter().map(|(_, keeper)| keeper.close(within)))
            .await;
    }

    /// Adds the store of a window that was made later, and has recovered.
    pub fn add(&mut self, window: &Arc<str>, keeper: Keeper) {
        self.keepers.push((Arc::clone(window), keeper));
    }

    /// Takes the store of a window out, so that it can be closed before the others.
    pub fn take(&mut self, window: &str) -> Option<Keeper> {
        let at = self.keepers.iter().position(|(name, _)| **name == *window)?;
        Some(self.keepers.swap_remove(at).1)
    }
}

/// The folder of the process, if a window has its log there, or if the secret is there. No other process has it.
#[derive(Debug, Default)]
pub struct State(Option<Arc<StateDir>>);

impl State {
    /// Returns the folder that the process needs, if it needs one.
    fn path(config: &Config) -> Option<&Path> {
        let has = |is: &dyn Fn(StoreKind) -> bool| config.windows.iter().any(|window| is(window.store));
        let needs_state = needs_secret(config) || has(&|kind| kind == StoreKind::Disk);
        config.state_dir.as_deref().filter(|_| needs_state)
    }

    fn open(config: &Config) -> Result<State, Failure> {
        let opened = State::path(config).map(StateDir::open).transpose()?;
        Ok(State(opened.map(Arc::new)))
    }

    /// Takes the folder over from the process that has it, as soon as that one has written everything and lets go of it. Waits for
    /// `timeouts.takeover` at most.
    pub async fn take_over(config: &Config) -> Result<State, Failure> {
        let Some(path) = State::path(config) else { return Ok(State::default()) };
        let state = StateDir::take_over(path, config.timeouts.takeover).await?;
        Ok(State(Some(Arc::new(state))))
    }
}

/// Returns true if the secret of the digests has to outlive the process, and the configuration names no file with one.
fn needs_secret(config: &Config) -> bool {
    config.digest_secret.is_none() && config.windows.iter().any(|window| window.store != StoreKind::Memory)
}

/// Creates the windows, empty, and opens their stores. The process's folder must be free.
pub fn open(config: &Config, now: Instant) -> Result<Opened, Failure> {
    open_in(State::open(config)?, config, now)
}

/// As [`open`], in a folder that the process has already.
pub fn open_in(state: State, config: &Config, now: Instant) -> Result<Opened, Failure> {
    let maker = Maker::new(state, config)?;
    let mut set = WindowSet::new();
    let (mut windows, mut stores) = (Vec::new(), Stores::default());
    for window in &config.windows {
        let (watched, keeper) = maker.make(config, window, now)?;
        put(&mut set, window, &watched);
        stores.keepers.extend(keeper.map(|keeper| (Arc::clone(&window.rules.name), keeper)));
        windows.push(watched);
    }
    Ok(Opened { keys: maker.keys.clone(), set: LiveWindows::new(set), windows, stores, maker })
}

/// Adds a window to those that sessions ask, or a guard to those that they ask about queues.
pub(crate) fn put(set: &mut WindowSet<dyn Inspect>, config: &WindowConfig, watched: &Watched) {
    let (vhost, name, window) = (config.vhost.clone(), config.exchange.clone(), Arc::clone(&watched.window));
    match config.is_guard() {
        true => set.push_guard(vhost, name, window),
        false => set.push(vhost, name, window),
    }
}

impl Maker {
    fn new(State(state): State, config: &Config) -> Result<Maker, Failure> {
        let needs_secret = needs_secret(config);
        let keys = match &state {
            Some(state) if needs_secret => state.secret()?.keys(),
            _ => config.keys(),
        };
        let is_lasting = config.digest_secret.is_some() || needs_secret && state.is_some();
        let room = Room::new(config::memory());
        let stream_tls = config.store.stream.as_ref().and_then(|stream| stream.tls.clone());
        let stream_tls = stream_tls.map(|files| files.open("store.stream")).transpose()?;
        Ok(Maker { keys, state, is_lasting, room, link: Mutex::default(), stream_tls })
    }

    /// Returns the settings that are made from files with certificates, so that they can be read again.
    pub fn certificates(&self) -> impl Iterator<Item = Arc<dyn tls::Reread>> {
        self.stream_tls.iter().map(|tls| Arc::clone(tls) as _)
    }

    /// Returns true if this process can make a window with this store. If none has had a store at the start, the folder is not
    /// open, and the keys are those of this process alone.
    pub fn can_make(&self, store: StoreKind) -> bool {
        match store {
            StoreKind::Memory => true,
            StoreKind::Disk => self.is_lasting && self.state.is_some(),
            StoreKind::Stream | StoreKind::Redis => self.is_lasting,
        }
    }

    /// Creates a window with its accounting, and opens its store if it has one.
    pub fn make(
        &self,
        config: &Config,
        window: &WindowConfig,
        now: Instant,
    ) -> Result<(Watched, Option<Keeper>), Failure> {
        let accounting = Arc::new(Accounting::within(&self.room));
        let (built, keeper) = self.build(config, window, &accounting, now)?;
        accounting.begin(&*built, now);
        Ok((Watched { window: built, accounting }, keeper))
    }

    fn build(
        &self,
        config: &Config,
        window: &WindowConfig,
        accounting: &Arc<Accounting>,
        now: Instant,
    ) -> Result<(Arc<dyn Inspect>, Option<Keeper>), Failure> {
        let (rules, limits, listener) = (window.rules.clone(), window.limits, Arc::clone(accounting));
        let (kind, policy) = (window.store, window.policy);
        let logged = |name| {
            LoggedWindow::new(rules.clone(), limits, window.engine, Arc::clone(&listener), name, policy, now)
        };
        // A window has a name of its own in its store. If a reload brings it back, it reads what it has written before.
        let relay = RelayId(RandomState::new().hash_one(0_u8));
        let codec = || Codec::new(self.keys.clone(), &window.rules, relay);
        match (kind, &self.state) {
            (StoreKind::Disk, Some(state)) => {
                let logged = logged("disk");
                let keeper = disk::open(state, &logged, codec(), config.timeouts.store)?;
                Ok((logged, Some(keeper)))
            }
            (StoreKind::Stream, _) => {
                let logged = logged("stream");
                let keys = (&self.keys, relay);
                let link = (&mut *self.link.lock(), self.stream_tls.as_ref());
                let keeper = stream::open(config, window, keys, Arc::clone(&logged), link);
                Ok((logged, Some(keeper)))
            }
            (StoreKind::Memory, _) => Ok((LocalWindow::new(rules, limits, window.engine, listener), None)),
            (StoreKind::Redis, _) => {
                let settings = config.store.redis.as_ref().ok_or_else(|| Failure {
                    what: format!("window \"{}\": nobody says where Redis is", window.rules.name),
                    fix: "write the section [store.redis]".to_owned(),
                })?;
                let (engine, timeout) = (window.engine, config.timeouts.store);
                let parts = redis::Parts { rules, limits, engine, policy, listener, timeout };
                let (built, keeper) = redis::open(parts, settings, (&self.keys, relay), now)?;
                Ok((built, Some(keeper)))
            }
            (StoreKind::Disk, None) => Err(Failure {
                what: format!("window \"{}\": nobody says where its log is", window.rules.name),
                fix: "write state_dir = \"/var/lib/hapax\"".to_owned(),
            }),
        }
    }
}
