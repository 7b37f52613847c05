//! Whether the stream works: the window is told when it has not for too long, also while the window's task waits for something.

use crate::store::Logged;
use hapax_core::window::Position;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Since when a window's stream does not work, and whether the window knows. All that is told is told under the lock.
pub(super) struct Health {
    window: Arc<Logged>,
    patience: Duration,
    state: Mutex<State>,
}

struct State {
    /// Since when something is owed: a connection, what stood in the stream, or a confirm.
    owed: Option<Instant>,
    is_told: bool,
}

impl Health {
    pub(super) fn new(window: Arc<Logged>, patience: Duration, now: Instant) -> Health {
        Health { window, patience, state: Mutex::new(State { owed: Some(now), is_told: false }) }
    }

    /// Something is owed since then, unless something is since before.
    pub(super) fn owes(&self, since: Instant) {
        self.state.lock().owed.get_or_insert(since);
    }

    /// Something is still owed, but it goes on.
    pub(super) fn goes_on(&self, now: Instant) {
        self.state.lock().owed = Some(now);
    }

    /// The stream has everything up to this position. The oldest batch that is owed a confirm now was made at that time.
    pub(super) fn written(&self, position: Position, owed: Option<Instant>, now: Instant) {
        let mut state = self.state.lock();
        *state = State { owed, is_told: false };
        self.window.written(position, now);
    }

    /// Nothing is owed.
    pub(super) fn works(&self, now: Instant) {
        let mut state = self.state.lock();
        *state = State { owed: None, is_told: false };
        self.window.store_works(now);
    }

    /// Tells the window if something is owed for too long. Returns true when it is told for the first time.
    pub(super) fn look(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let is_late = state.owed.is_some_and(|since| now.saturating_duration_since(since) >= self.patience);
        if !is_late {
            return false;
        }
        // Each time: a commit may have begun to wait at the moment when the first one was told.
        self.window.store_failed(now);
        !std::mem::replace(&mut state.is_told, true)
    }

    /// How often to look.
    pub(super) fn look_every(&self) -> Duration {
        (self.patience / 4).clamp(Duration::from_millis(10), Duration::from_millis(250))
    }
}
