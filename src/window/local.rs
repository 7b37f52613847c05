//! The window inside this process: an in-flight table in shards, beside an engine that remembers what was stored.

use super::engine::{Engine, EngineKind};
use super::*;

/// A window over an engine. See the module's doc for what lives where.
#[derive(Debug)]
pub struct LocalWindow {
    rules: Rules,
    _engine: Box<dyn Engine>,
}

/// What can be changed while it runs, and the bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// ids
    pub capacity: usize,
    /// from the commit
    pub ttl: Duration,
    /// see [`Mode`]
    pub mode: Mode,
    /// a duplicate makes the key young again
    pub refresh_on_duplicate: bool,
    /// how many publishes may wait for the outcome of one key
    pub waiters_per_id: usize,
}

impl LocalWindow {
    /// An empty window.
    pub fn new(
        rules: Rules,
        limits: Limits,
        engine: EngineKind,
        listener: Arc<dyn Listener>,
    ) -> Arc<LocalWindow> {
        let _ = (rules, limits, engine, listener);
        todo!()
    }
}
