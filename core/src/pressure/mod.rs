//! Eviction pressure: counts the events of a window, and derives facts from them.
//!
//! It listens to [`crate::window`] and knows no sessions, sockets or clock. [`Accounting`] counts, and [`Facts`] are
//! the result that everybody shows.

mod accounting;
mod ages;
pub mod budget;
#[cfg(test)]
mod captured;
mod distinct;
pub mod facts;
mod ghost;
mod layout;
mod level;
mod log;
mod missing;
mod room;
mod scopes;
mod stripe;
mod trend;
mod warmth;
pub mod whatif;

pub use accounting::Accounting;
pub use budget::Budget;
pub use facts::{Facts, Level};
pub use room::Room;

use crate::window::Inspect;
use std::sync::Arc;
use std::time::Instant;

/// A window together with its accounting.
#[derive(Clone, Debug)]
pub struct Watched {
    /// the window
    pub window: Arc<dyn Inspect>,
    /// the accounting, which is the window's listener
    pub accounting: Arc<Accounting>,
}

impl Watched {
    /// Returns everything that is known about the window.
    pub fn facts(&self, now: Instant) -> Facts {
        self.accounting.facts(&*self.window, now)
    }

    /// Removes expired ids, and updates averages and level. Call it about once a second.
    pub fn tick(&self, now: Instant) {
        self.window.sweep(now);
        self.accounting.tick(&*self.window, now);
    }
}

/// Returns the n-th number of a series that looks random (splitmix64), for tests.
#[cfg(test)]
fn random(n: u64) -> u64 {
    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}
