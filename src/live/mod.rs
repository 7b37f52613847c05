//! The configuration in force, and how a new one takes its place while Hapax runs.
//!
//! ```text
//! SIGHUP, hapax reload, POST /api/v1/reload ── read the file ── diff with what holds now ── prepare what can fail
//!                                                                    │                          │
//!                                              a change that needs a restart: refused      apply: cannot fail
//! ```
//!
//! A reload happens as a whole, or not at all ([`Reloader::reload`]). The API's changes of windows
//! count as a part of the old configuration, so a reload undoes them, and says so.

mod files;
mod refused;
mod reload;
mod resize;
mod retired;

pub use files::{ConfigFiles, Source};
pub use refused::{Refused, one_line};
pub use reload::{Parts, Reloaded, Reloader};

use crate::config::{Config, Diff, WindowConfig};
use hapax_core::pressure::{Budget, Watched};
use parking_lot::{Mutex, RwLock};
use resize::Resizes;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// How long a change of the capacity may take before it goes on behind. Most are done by then.
const FIRST_STEPS: Duration = Duration::from_millis(500);

/// The configuration in force, with its windows.
#[derive(Debug)]
pub struct InForce {
    /// the configuration as it was loaded
    pub config: Config,
    /// its windows, in the same order
    pub windows: Arc<[Watched]>,
    /// the configuration of each, in the same order
    pub configured: Vec<Arc<WindowConfig>>,
}

/// How the last reload ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastReload {
    /// whether it was applied; the start of the process counts as one
    pub is_success: bool,
    /// when one was applied last
    pub succeeded_at: SystemTime,
}

/// The configuration in force, which the admin interface shows and a reload replaces.
#[derive(Debug)]
pub struct Running {
    in_force: RwLock<Arc<InForce>>,
    /// Held during a change. When two changes come at once, the log shows which was first.
    pub changing: Mutex<()>,
    /// sizes the windows with capacity "auto"
    pub budget: Arc<Budget>,
    resizes: Resizes,
    last: Mutex<LastReload>,
    draining: watch::Receiver<bool>,
}

impl InForce {
    fn new(config: Config, windows: Vec<Watched>) -> Arc<InForce> {
        let configured = config.windows.iter().cloned().map(Arc::new).collect();
        Arc::new(InForce { config, windows: windows.into(), configured })
    }

    /// Returns the window of this name.
    fn window(&self, name: &str) -> Option<&Watched> {
        self.windows.iter().find(|watched| *watched.window.rules().name == *name)
    }
}

impl Running {
    /// Begins with this configuration. Its windows are `windows`, in the same order.
    #[expect(clippy::disallowed_methods, reason = "a part of the shell")]
    pub fn new(config: &Config, windows: Vec<Watched>, draining: watch::Receiver<bool>) -> Arc<Running> {
        Arc::new(Running {
            in_force: RwLock::new(InForce::new(config.clone(), windows)),
            changing: Mutex::default(),
            budget: Arc::new(config.budget()),
            resizes: Resizes::default(),
            last: Mutex::new(LastReload { is_success: true, succeeded_at: SystemTime::now() }),
            draining,
        })
    }

    /// Returns the configuration in force.
    pub fn now(&self) -> Arc<InForce> {
        Arc::clone(&self.in_force.read())
    }

    /// Returns how the last reload ended.
    pub fn last_reload(&self) -> LastReload {
        *self.last.lock()
    }

    /// Returns the configuration that holds now: as it was loaded, with what was changed in windows and in the log since.
    pub fn effective(&self) -> Config {
        let in_force = self.now();
        let mut config = in_force.config.clone();
        if let Some(level) = crate::log::level() {
            config.log.level = level;
        }
        for (window, watched) in config.windows.iter_mut().zip(&*in_force.windows) {
            let (name, inner) = (&window.rules.name, &watched.window);
            window.auto = self.budget.is_auto(name);
            let capacity = self.target(name).or_else(|| inner.capacity());
            if let Some(capacity) = capacity.filter(|_| !window.auto) {
                window.limits.capacity = capacity;
            }
            window.limits.ttl = inner.ttl();
            window.limits.mode = inner.mode();
        }
        config
    }

    /// Returns what was changed in windows and in the log since the configuration was loaded.
    pub fn changed_live(&self) -> Diff {
        Diff::between(&self.now().config, &self.effective())
    }

    /// Returns the capacity that a window is on its way to.
    pub fn target(&self, name: &str) -> Option<usize> {
        self.resizes.target(name)
    }

    /// Lets a window keep the capacity that it has now, although it was on its way to another.
    pub fn give_up_resizing(&self, name: &str) {
        self.resizes.give_up(name);
    }

    /// Sets the capacity that a window shall have. It counts from now on. Returns true if the caller has to take the steps there, by
    /// [`Running::go_on_resizing`].
    fn begin_resizing(&self, watched: &Watched, capacity: usize) -> bool {
        self.resizes.aim(watched, capacity)
    }

    /// Changes the capacity: takes steps for a while, and the others on a thread of their own.
    pub fn resize(self: &Arc<Running>, watched: &Watched, configured: &WindowConfig, capacity: usize) {
        if self.begin_resizing(watched, capacity) {
            self.go_on_resizing(watched, configured);
        }
    }

    /// Takes steps for a while, and the others on a thread of their own.
    fn go_on_resizing(self: &Arc<Running>, watched: &Watched, configured: &WindowConfig) {
        let engine = configured.engine;
        let begin = crate::clock::now();
        while self.resizes.step(watched, engine, crate::clock::now()) {
            if crate::clock::now().duration_since(begin) >= FIRST_STEPS {
                let (running, watched) = (Arc::clone(self), watched.clone());
                // The process waits for this thread at its end.
                std::mem::drop(tokio::task::spawn_blocking(move || {
                    while !*running.draining.borrow()
                        && running.resizes.step(&watched, engine, crate::clock::now())
                    {
                        std::thread::yield_now();
                    }
                }));
                return;
            }
        }
    }
}
