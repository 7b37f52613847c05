//! How long a client waits for the answer to its close while outcomes of its publishes are not known.

use std::time::{Duration, Instant};

/// The time after which the client is answered without the outcomes. They are awaited behind the answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// The patience of one client with one close. When it is over, the close is looked at again each time as much has passed.
#[derive(Debug)]
pub(super) struct Patience {
    again: Instant,
    is_over: bool,
}

impl Patience {
    /// Begins to wait. `linger` bounds the time.
    pub(super) fn new(linger: Duration, now: Instant) -> Patience {
        Patience { again: now + PATIENCE.min(linger), is_over: false }
    }

    /// Returns when [`Patience::is_over`] has to be asked again, if nothing else happens.
    pub(super) fn deadline(&self) -> Instant {
        self.again
    }

    /// Returns true if the client has waited long enough.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        if now >= self.again {
            self.again = now + PATIENCE;
            self.is_over = true;
        }
        self.is_over
    }
}
