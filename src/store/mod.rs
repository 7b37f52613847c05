//! The windows of the process, and the stores that some of them have: where their ids outlive the process.
//!
//! A window with a store is a [`LoggedWindow`]. Its store takes the records out of it, writes them, and says how far it has come. At the
//! start it reads what was written before. A store is a [`Keeper`]: two futures, one that ends when everything was read, and one that
//! ends when everything is written.

mod redis;

use crate::config::{self, Config, StoreKind, WindowConfig};
use hapax_core::pressure::{Accounting, Room, Watched};
use hapax_core::window::{Inspect, KeyMaker, LocalWindow, LoggedWindow, WindowSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// A window with a log, as this process makes it.
pub type Logged = LoggedWindow<Accounting>;

type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Everything that [`open`] makes.
pub struct Opened {
    /// the maker of keys
    pub keys: KeyMaker,
    /// the windows, for sessions
    pub set: Arc<WindowSet<dyn Inspect>>,
    /// the windows with their accountings, for operators
    pub windows: Vec<Watched>,
    /// the stores
    pub stores: Stores,
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

/// A store at work.
pub(crate) struct Keeper {
    /// Ends when the window knows what stood in the store, or when its time for that is over.
    pub(crate) recover: Task<Result<(), Failure>>,
    /// Writes what is still to be written, and ends.
    pub(crate) close: Task<()>,
}

/// The stores of the process.
#[derive(Default)]
pub struct Stores {
    keepers: Vec<Keeper>,
}

impl Stores {
    /// Reads what the stores have, all at the same time.
    pub async fn recover(&mut self) -> Result<(), Failure> {
        let all = self.keepers.iter_mut().map(|keeper| &mut keeper.recover);
        futures_util::future::try_join_all(all).await.map(|_| ())
    }

    /// Writes what is still to be written.
    pub async fn close(self) {
        futures_util::future::join_all(self.keepers.into_iter().map(|keeper| keeper.close)).await;
    }
}

/// Creates the windows, empty, and opens their stores.
pub fn open(config: &Config, now: Instant) -> Result<Opened, Failure> {
    let keys = config.keys();
    let room = Room::new(config::memory());
    let mut set = WindowSet::new();
    let (mut windows, mut stores) = (Vec::new(), Stores::default());
    for window in &config.windows {
        let accounting = Arc::new(Accounting::within(&room));
        let built = build(config, window, &keys, &accounting, &mut stores, now)?;
        set.push(window.vhost.clone(), window.exchange.clone(), Arc::clone(&built));
        windows.push(Watched { window: built, accounting });
    }
    Ok(Opened { keys, set: Arc::new(set), windows, stores })
}

/// Creates a window, and opens its store if it has one.
fn build(
    config: &Config,
    window: &WindowConfig,
    keys: &KeyMaker,
    accounting: &Arc<Accounting>,
    stores: &mut Stores,
    now: Instant,
) -> Result<Arc<dyn Inspect>, Failure> {
    let (rules, limits, listener) = (window.rules.clone(), window.limits, Arc::clone(accounting));
    match window.store {
        StoreKind::Memory => Ok(LocalWindow::new(rules, limits, window.engine, listener)),
        StoreKind::Redis => {
            let settings = config.store.redis.as_ref().ok_or_else(|| Failure {
                what: format!("window \"{}\": nobody says where Redis is", window.rules.name),
                fix: "write the section [store.redis]".to_owned(),
            })?;
            let (engine, policy, timeout) = (window.engine, window.policy, config.timeouts.store);
            let parts = redis::Parts { rules, limits, engine, policy, listener, timeout };
            let (built, keeper) = redis::open(parts, settings, keys, now)?;
            stores.keepers.push(keeper);
            Ok(built)
        }
        kind @ (StoreKind::Disk | StoreKind::Stream) => Err(Failure {
            what: format!("window \"{}\": store = \"{}\" is not built yet", window.rules.name, kind.name()),
            fix: "choose another store".to_owned(),
        }),
    }
}
