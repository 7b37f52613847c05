//! Reads the configuration again and puts it in force.

use super::files::{ConfigFiles, Source};
use super::refused::{Refused, one_line};
use super::retired::{GRACE, RetiredStores};
use super::{InForce, LastReload, Running};
use crate::config::{Config, Diff, Effect, Problem, WindowConfig};
use crate::net::{CurrentRelay, MemoryLimit, Relay};
use crate::process::TooFewFiles;
use crate::store::{self, CLOSE_WITHIN, Failure, Keeper, Maker, Stores};
use crate::tls::Certificates;
use hapax_core::pressure::Watched;
use hapax_core::window::set::Pattern;
use hapax_core::window::{Inspect, LiveWindows, Mode, WindowSet};
use parking_lot::Mutex;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Mutex as AsyncMutex, watch};

/// How long the store of a new window may take to be read before the reload is refused.
const RECOVER_WITHIN: Duration = Duration::from_secs(10);

/// A reload that was applied, or that would be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reloaded {
    /// what changes
    pub diff: Diff,
    /// settings of the new configuration that are allowed, but probably not meant
    pub warnings: Vec<Problem>,
}

/// The parts of the process that a reload changes.
pub struct Parts {
    /// where the configuration comes from
    pub source: Source,
    /// what is in force
    pub running: Arc<Running>,
    /// the windows, for sessions
    pub set: Arc<LiveWindows<dyn Inspect>>,
    /// makes windows
    pub maker: Maker,
    /// their stores
    pub stores: Stores,
    /// what connections share
    pub relay: Arc<CurrentRelay>,
    /// the memory of connections
    pub memory: Arc<MemoryLimit>,
    /// the certificates of the process
    pub certificates: Arc<Certificates>,
    /// files that are open besides those of clients
    pub other_files: u64,
    /// turns true when the process begins to drain
    pub draining: watch::Receiver<bool>,
}

/// Puts new configurations in force. There is one per process.
pub struct Reloader {
    files: ConfigFiles,
    running: Arc<Running>,
    set: Arc<LiveWindows<dyn Inspect>>,
    maker: Maker,
    /// Held by the reload that is under way.
    stores: AsyncMutex<Stores>,
    retired: RetiredStores,
    relay: Arc<CurrentRelay>,
    memory: Arc<MemoryLimit>,
    certificates: Arc<Certificates>,
    other_files: u64,
    draining: watch::Receiver<bool>,
    /// when windows were replaced last
    replaced: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The windows of the new configuration, in its order: those that are there already, and new ones.
struct Prepared {
    windows: Vec<Watched>,
    keepers: Vec<(Arc<str>, Keeper)>,
}

impl Reloader {
    /// Creates it from the parts of the process.
    pub fn new(parts: Parts) -> Arc<Reloader> {
        let Parts { source, running, set, maker, stores, relay, memory, certificates, other_files, draining } =
            parts;
        Arc::new(Reloader {
            files: ConfigFiles::new(source),
            running,
            set,
            maker,
            stores: AsyncMutex::new(stores),
            retired: RetiredStores::default(),
            relay,
            memory,
            certificates,
            other_files,
            draining,
            replaced: Mutex::default(),
        })
    }

    /// Returns what is in force.
    pub fn running(&self) -> &Arc<Running> {
        &self.running
    }

    /// Returns the file, and how it is read.
    pub fn files(&self) -> &ConfigFiles {
        &self.files
    }

    /// Reads what the stores have, at the start. Reloads wait for that.
    pub async fn recover(&self) -> Result<(), Failure> {
        self.stores.lock().await.recover().await
    }

    /// Closes all stores, at the end. They have this time together.
    pub async fn close(&self, within: Duration) {
        let close = async {
            let stores = std::mem::take(&mut *self.stores.lock().await);
            stores.close(within).await;
        };
        tokio::join!(close, self.retired.close(within));
    }

    /// Closes what is not needed any more. Call it about once a second.
    pub fn tick(&self, now: Instant) {
        self.retired.tick(now);
        let replaced = *self.replaced.lock();
        if replaced.is_some_and(|replaced| now.duration_since(replaced) >= GRACE) {
            self.set.let_go(|window| window.in_flight() == Some(0));
        }
    }

    /// Puts the file in force: all of it, or nothing. With `dry_run`, only says what would change. Refuses when another one is under
    /// way, unless `waits`.
    pub async fn reload(&self, dry_run: bool, waits: bool) -> Result<Reloaded, Refused> {
        let stores = match self.stores.try_lock() {
            Ok(stores) => stores,
            Err(_) if waits => self.stores.lock().await,
            Err(_) => {
                let text =
                    "another reload is under way, or Hapax is still starting; try again when that is over";
                return Err(Refused::Busy(text));
            }
        };
        if *self.draining.borrow() {
            return Err(drains());
        }
        let outcome = self.reload_with(stores, dry_run).await;
        if !dry_run {
            self.note(&outcome);
        }
        outcome
    }

    #[expect(clippy::disallowed_methods, reason = "a part of the shell")]
    fn note(&self, outcome: &Result<Reloaded, Refused>) {
        let mut last = self.running.last.lock();
        match outcome {
            Ok(Reloaded { diff, warnings }) => {
                *last = LastReload { is_success: true, succeeded_at: SystemTime::now() };
                for change in &diff.0 {
                    tracing::info!("{change}");
                }
                for warning in warnings {
                    tracing::warn!(place = warning.place, fix = warning.fix, "{}", warning.what);
                }
                tracing::info!(changes = diff.0.len(), "configuration reloaded");
            }
            Err(Refused::Wrong(errors)) => {
                last.is_success = false;
                for error in errors {
                    tracing::error!("the reload is refused, and the old configuration stays: {error}");
                }
            }
            Err(Refused::Busy(_)) => {}
        }
    }

    /// Returns the diff of what holds now and of the file as it is, without putting it in force.
    pub async fn pending(&self) -> Result<Diff, Refused> {
        let loaded = self.files.load().await?;
        Ok(Diff::between(&self.running.effective(), &loaded.config))
    }

    /// Waits for a step of a reload, but not when Hapax begins to drain.
    async fn unless_draining<T>(&self, step: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
        let mut draining = self.draining.clone();
        tokio::select! {
            done = step => done,
            Ok(_) = draining.wait_for(|draining| *draining) => Err(drains()),
        }
    }

    async fn reload_with(
        &self,
        mut stores: tokio::sync::MutexGuard<'_, Stores>,
        dry_run: bool,
    ) -> Result<Reloaded, Refused> {
        let mut loaded = self.unless_draining(self.files.load()).await?;
        loaded.warnings.extend(self.too_few_files(&loaded.config));
        let new = loaded.config;
        let mut diff = Diff::between(&self.running.effective(), &new);
        let in_force = self.running.now();
        for window in added(&in_force, &new) {
            if !self.maker.can_make(window.store) {
                let key = format!("window \"{}\"", window.rules.name);
                for change in diff.0.iter_mut().filter(|change| change.key == key) {
                    change.effect = Effect::Restart;
                    change.note = Some(
                        "no window had a store when the process started, so it has no lasting secret of the digests",
                    );
                }
            }
        }
        let certificates = Arc::clone(&self.certificates);
        let unusable = self.unless_draining(self.files.read(move || certificates.check())).await?;
        let mut errors: Vec<String> =
            unusable.iter().map(|unusable| format!("{unusable}; fix: {}", unusable.fix)).collect();
        if dry_run && errors.is_empty() {
            return Ok(Reloaded { diff, warnings: loaded.warnings });
        }
        let restart = "this needs a restart, and a reload does all or nothing: restart Hapax, or take it out of the file";
        errors.extend(diff.needs_restart().map(|change| {
            let note = change.note.map(|note| format!(" ({note})")).unwrap_or_default();
            format!("{change}: {restart}{note}")
        }));
        for window in added(&in_force, &new) {
            if self.retired.has(&window.rules.name) {
                errors.push(format!(
                    "window \"{}\" was removed a moment ago, and its store is not closed yet; try again in some seconds",
                    window.rules.name
                ));
            }
        }
        for window in &new.windows {
            let before = in_force.configured.iter().find(|before| before.rules.name == window.rules.name);
            if before.is_some_and(|before| before.judges != window.judges) {
                errors.push(format!(
                    "\"{}\" was a {} and is a {} now: this needs a restart, or another name",
                    window.rules.name,
                    before.map(|before| before.judges).unwrap_or_default().section(),
                    window.judges.section()
                ));
            }
        }
        if self.set.is_crowded() {
            errors.push(
                "earlier reloads have just moved many windows; try again when the publishes that were judged before have an outcome"
                    .to_owned(),
            );
        }
        if !errors.is_empty() {
            return Err(Refused::Wrong(errors));
        }
        // A store that says nothing must not hold up the end. The new windows have taken nothing yet.
        let prepared = self.unless_draining(self.prepare(&in_force, &new)).await?;
        self.apply(&in_force, new, prepared, &mut stores).await;
        Ok(Reloaded { diff, warnings: loaded.warnings })
    }

    fn too_few_files(&self, new: &Config) -> Option<Problem> {
        let few = TooFewFiles::of(new.limits.max_connections, self.other_files)?;
        let place = "limits.max_connections".to_owned();
        Some(Problem { place, what: few.to_string(), fix: TooFewFiles::FIX.to_owned() })
    }

    /// Makes the new windows, and reads their stores. If one fails, all of them are given up.
    async fn prepare(&self, in_force: &InForce, new: &Config) -> Result<Prepared, Refused> {
        let mut prepared = Prepared { windows: Vec::new(), keepers: Vec::new() };
        let mut errors = Vec::new();
        for window in &new.windows {
            let name = &window.rules.name;
            if let Some(watched) = in_force.window(name) {
                prepared.windows.push(watched.clone());
                continue;
            }
            match self.maker.make(new, window, crate::clock::now()) {
                Ok((watched, keeper)) => {
                    prepared.windows.push(watched);
                    prepared.keepers.extend(keeper.map(|keeper| (Arc::clone(name), keeper)));
                }
                Err(failure) => errors.push(one_line(&failure)),
            }
        }
        let recovering = prepared.keepers.iter_mut().map(|(name, keeper)| async move {
            match tokio::time::timeout(RECOVER_WITHIN, &mut keeper.recover).await {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(one_line(&failure)),
                Err(_) => Some(format!(
                    "window \"{name}\": its store was not read within {} s; try again when it answers",
                    RECOVER_WITHIN.as_secs()
                )),
            }
        });
        errors.extend(futures_util::future::join_all(recovering).await.into_iter().flatten());
        if errors.is_empty() {
            return Ok(prepared);
        }
        let closing = prepared.keepers.into_iter().map(|(_, keeper)| keeper.close(CLOSE_WITHIN));
        futures_util::future::join_all(closing).await;
        Err(Refused::Wrong(errors))
    }

    /// Puts the configuration in force. Nothing in here can fail.
    async fn apply(&self, in_force: &InForce, new: Config, prepared: Prepared, stores: &mut Stores) {
        let now = crate::clock::now();
        let Prepared { windows, keepers } = prepared;
        {
            let _one_at_a_time = self.running.changing.lock();
            let before = self.running.effective();
            self.running.budget.replace(new.memory_budget, new.shares());
            let pairs = || new.windows.iter().zip(&windows);
            let resized: Vec<(Watched, WindowConfig)> = pairs()
                .filter(|(window, watched)| self.set_window(&before, window, watched))
                // Before the next change, which must not be overtaken by this one.
                .filter(|(window, watched)| self.running.begin_resizing(watched, window.limits.capacity))
                .map(|(window, watched)| (watched.clone(), window.clone()))
                .collect();
            let running = Arc::clone(&self.running);
            // Forgetting many ids takes long.
            drop(tokio::task::spawn_blocking(move || {
                for (watched, window) in resized {
                    running.go_on_resizing(&watched, &window);
                }
            }));
            if !places(&in_force.config, &in_force.windows).eq(places(&new, &windows)) {
                let mut set = WindowSet::new();
                for (window, watched) in new.windows.iter().zip(&windows) {
                    store::put(&mut set, window, watched);
                }
                self.set.replace(set);
                *self.replaced.lock() = Some(now);
            }
            self.memory.set_limit(new.limits.memory);
            self.relay.replace(Relay::clone(&self.relay.now()).with(&new));
            self.relay.now().chaos.configure(&new.chaos);
            if before.log.level != new.log.level {
                let _ = crate::log::set_level(&new.log.level);
            }
            *self.running.in_force.write() = InForce::new(new, windows.clone());
        }
        for (name, keeper) in keepers {
            stores.add(&name, keeper);
        }
        for watched in in_force.windows.iter() {
            if windows.iter().any(|other| Arc::ptr_eq(&other.window, &watched.window)) {
                continue;
            }
            let name = &watched.window.rules().name;
            self.running.give_up_resizing(name);
            if let Some(keeper) = stores.take(name) {
                // Nobody waits for a store that is down any more.
                watched.window.set_mode(Mode::Off);
                self.retired.add(Arc::clone(&watched.window), keeper, now);
            }
        }
        let certificates = Arc::clone(&self.certificates);
        // They were checked. If one has become unusable since, that is logged and counted, and the old one stays.
        let _ = self.files.read(move || certificates.read_again()).await;
    }

    /// Gives a window that was there before the settings that can change. Returns true if it needs another capacity.
    fn set_window(&self, before: &Config, window: &WindowConfig, watched: &Watched) -> bool {
        let name = &window.rules.name;
        let Some(old) = before.windows.iter().find(|old| old.rules.name == *name) else { return false };
        let inner = &watched.window;
        inner.set_ttl(window.limits.ttl);
        inner.set_mode(window.limits.mode);
        if window.auto {
            self.running.give_up_resizing(name);
        }
        !window.auto && (old.auto || old.limits.capacity != window.limits.capacity)
    }
}

/// Says that no reload begins or goes on while Hapax drains.
fn drains() -> Refused {
    tracing::warn!("not reloaded: Hapax is draining");
    Refused::Busy("Hapax is draining; the next process reads the file as it is then")
}

/// Returns which window judges where, in order.
fn places<'a>(
    config: &'a Config,
    windows: &'a [Watched],
) -> impl Iterator<Item = (&'a Pattern, &'a Pattern, usize)> {
    let place = |(window, watched): (&'a WindowConfig, &'a Watched)| {
        (&window.vhost, &window.exchange, Arc::as_ptr(&watched.window).addr())
    };
    config.windows.iter().zip(windows).map(place)
}

/// Returns the windows of a configuration that are not there yet.
fn added<'a>(in_force: &'a InForce, new: &'a Config) -> impl Iterator<Item = &'a WindowConfig> {
    new.windows.iter().filter(|window| in_force.window(&window.rules.name).is_none())
}
