//! When a commit is done: at once, or later. A window that remembers commits later writes them to a log in their order, and names each
//! by its position in the log. The log may be a number that the window only counts up.

use super::{Mailbox, Window};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// How far the log of a window is written. It only grows. Positions of two windows have nothing to do with each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(pub u64);

/// The answer of a window to a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remembered {
    /// The window remembers it.
    Now,
    /// The window will remember it when [`Window::remembered`] has come to this position.
    At(Position),
}

/// The answer of a window about a commit that it does not remember in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OverdueCommit {
    /// Tell the client now. The window counts the id as not remembered.
    AckAnyway,
    /// Wait on, with a new deadline.
    WaitOn,
}

/// The result of committing one [`Reservation`](super::Reservation), or several of one window.
#[derive(Debug)]
pub enum Committed {
    /// The window remembers them: the client may be told.
    Now,
    /// The window does not remember them yet: the client has to wait.
    Later(Unremembered),
}

/// A commit that its window does not remember yet.
#[must_use = "the client may be told only when its id is remembered"]
pub struct Unremembered {
    window: Arc<dyn Window>,
    position: Position,
}

impl Committed {
    /// Makes the result of the answer that `window` has given.
    pub(super) fn new(window: Arc<dyn Window>, remembered: Remembered) -> Committed {
        match remembered {
            Remembered::Now => Committed::Now,
            Remembered::At(position) => Committed::Later(Unremembered { window, position }),
        }
    }
}

impl Unremembered {
    /// The window that will remember it.
    pub fn window(&self) -> &Arc<dyn Window> {
        &self.window
    }

    /// The position that the window has to come to.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns true once the window remembers it.
    pub fn is_remembered(&self) -> bool {
        self.window.remembered() >= self.position
    }

    /// Asks the window to wake the session of this mailbox when it remembers the commit.
    pub fn tell_when(&self, mailbox: &Arc<Mailbox>) {
        self.window.tell_when(self.position, mailbox);
    }

    /// Asks the window what to do now that it has been silent for too long.
    pub fn overdue(&self, now: Instant) -> OverdueCommit {
        self.window.overdue_commit(self.position, now)
    }
}

impl fmt::Debug for Unremembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unremembered").field("position", &self.position).finish_non_exhaustive()
    }
}
