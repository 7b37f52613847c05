//! Settings that are made from files, and made again when the files change.
//!
//! Connections take the settings that are current when they begin, and keep them. If the files can't be used, the settings stay
//! as they are, and the log says what is wrong.

use super::certificate::{Expiry, Unusable};
use parking_lot::Mutex;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Settings, and when the certificates in them end.
pub(super) struct Made<C> {
    pub(super) config: Arc<C>,
    pub(super) expiries: Vec<Expiry>,
}

type Make<C> = Box<dyn Fn() -> Result<Made<C>, Unusable> + Send + Sync>;

/// The settings of one listener, or of the connections to a server.
pub struct Live<C> {
    used_for: String,
    paths: Vec<PathBuf>,
    make: Make<C>,
    state: Mutex<State<C>>,
}

struct State<C> {
    made: Made<C>,
    /// the files as they were when they were read last, usable or not
    tried: Vec<Stamp>,
    /// the files as they were at the last look
    seen: Vec<Stamp>,
}

/// What changes when a file is replaced or written: device, inode, size, and the time of the last change in nanoseconds. `None`
/// if there is no such file.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let about = std::fs::metadata(path).ok()?;
        Some((about.dev(), about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
    };
    paths.iter().map(stamp).collect()
}

impl<C> Live<C> {
    pub(super) fn open(
        used_for: &str,
        paths: Vec<PathBuf>,
        make: impl Fn() -> Result<Made<C>, Unusable> + Send + Sync + 'static,
    ) -> Result<Arc<Live<C>>, Unusable> {
        let seen = stamps(&paths);
        let state = Mutex::new(State { made: make()?, tried: seen.clone(), seen });
        Ok(Arc::new(Live { used_for: used_for.to_owned(), paths, make: Box::new(make), state }))
    }

    /// Returns the settings for a new connection.
    pub fn config(&self) -> Arc<C> {
        Arc::clone(&self.state.lock().made.config)
    }
}

impl<C> fmt::Debug for Live<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("used_for", &self.used_for)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

/// Settings that can be made again.
pub trait Reread: Send + Sync + fmt::Debug {
    /// Makes the settings again if the files have changed. A file that was just written may be one of two that belong together, so
    /// this waits until two looks in a row find the same files, unless `at_once` is true.
    fn read_again(&self, at_once: bool) -> Result<(), Unusable>;
    /// Says whether the files can be used as they are now. Changes nothing.
    fn check(&self) -> Result<(), Unusable>;
    /// What the settings are for: `upstream`, `admin`, `store.stream`, `telemetry`, or the address of a listener.
    fn used_for(&self) -> &str;
    /// Returns when the certificates end.
    fn expiries(&self) -> Vec<Expiry>;
}

impl<C: Send + Sync> Reread for Live<C> {
    fn read_again(&self, at_once: bool) -> Result<(), Unusable> {
        let now = stamps(&self.paths);
        let mut state = self.state.lock();
        let is_still = std::mem::replace(&mut state.seen, now.clone()) == now;
        if !at_once && (now == state.tried || !is_still) {
            return Ok(());
        }
        state.tried = now;
        drop(state);
        // Reading takes a while, and new connections must not wait for it.
        let made = (self.make)()?;
        self.state.lock().made = made;
        tracing::info!(target: "hapax::tls", used_for = self.used_for, "certificates read again");
        Ok(())
    }

    fn check(&self) -> Result<(), Unusable> {
        (self.make)().map(|_| ())
    }

    fn used_for(&self) -> &str {
        &self.used_for
    }

    fn expiries(&self) -> Vec<Expiry> {
        self.state.lock().made.expiries.clone()
    }
}

/// All settings of the process that are made from files with certificates.
#[derive(Debug, Default)]
pub struct Certificates {
    all: Vec<Arc<dyn Reread>>,
    failures: AtomicU64,
}

impl Certificates {
    /// Creates the list.
    pub fn new(all: Vec<Arc<dyn Reread>>) -> Arc<Certificates> {
        Arc::new(Certificates { all, failures: AtomicU64::new(0) })
    }

    /// Returns true if there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Looks whether files have changed. Call it about once a second. Reads files, so it may block.
    pub fn look(&self) {
        let _ = self.each(false);
    }

    /// Reads all files now, changed or not (SIGHUP, a reload). What can't be used stays as it is; it is logged, counted and
    /// returned.
    pub fn read_again(&self) -> Result<(), Vec<Unusable>> {
        self.each(true)
    }

    /// Returns what is wrong with the files as they are now. Changes nothing.
    pub fn check(&self) -> Vec<Unusable> {
        self.all.iter().filter_map(|live| live.check().err()).collect()
    }

    fn each(&self, at_once: bool) -> Result<(), Vec<Unusable>> {
        let mut failed = Vec::new();
        for live in &self.all {
            if let Err(unusable) = live.read_again(at_once) {
                self.failures.fetch_add(1, Relaxed);
                tracing::error!(
                    target: "hapax::tls",
                    used_for = live.used_for(),
                    file = %unusable.file.display(),
                    fix = unusable.fix,
                    "a certificate can't be read again, and the old one stays: {unusable}"
                );
                failed.push(unusable);
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    /// Returns how often files could not be used.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Calls `each` with what a certificate is for, and its end.
    pub fn expiries(&self, mut each: impl FnMut(&str, &Expiry)) {
        for live in &self.all {
            live.expiries().iter().for_each(|expiry| each(live.used_for(), expiry));
        }
    }
}
