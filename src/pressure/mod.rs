//! What a window's events add up to.
//!
//! It listens to [`crate::window`] and knows nothing of sessions, sockets or the clock. [`Accounting`] counts; [`Facts`] are
//! what everybody shows.

mod accounting;
mod ages;
pub mod budget;
mod distinct;
pub mod facts;
mod form;
mod ghost;
mod level;
mod scopes;
mod stripe;
mod trend;
pub mod whatif;

pub use accounting::Accounting;
pub use budget::Budget;
pub use facts::{Facts, Level};

use crate::window::LocalWindow;
use std::sync::Arc;
use std::time::Instant;

/// A window, and what its events add up to.
#[derive(Clone, Debug)]
pub struct Watched {
    /// the window
    pub window: Arc<LocalWindow>,
    /// its listener
    pub accounting: Arc<Accounting>,
}

impl Watched {
    /// Everything that is known of the window now.
    pub fn facts(&self, now: Instant) -> Facts {
        self.accounting.facts(&self.window, now)
    }

    /// To be called about once a second: removes what has expired and brings averages and level up to date.
    pub fn tick(&self, now: Instant) {
        self.window.sweep(now);
        self.accounting.tick(&self.window, now);
    }
}
