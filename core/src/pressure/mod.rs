//! What a window's events add up to.
//!
//! It listens to [`crate::window`] and knows nothing of sessions, sockets or the clock. [`Accounting`] counts; [`Facts`] are
//! what everybody shows.

mod accounting;
mod ages;
pub mod budget;
mod distinct;
pub mod facts;
mod ghost;
mod layout;
mod level;
mod scopes;
mod stripe;
mod trend;
pub mod whatif;

pub use accounting::Accounting;
pub use budget::Budget;
pub use facts::{Facts, Level};

use crate::window::Inspect;
use std::sync::Arc;
use std::time::Instant;

/// A window, and what its events add up to.
#[derive(Clone, Debug)]
pub struct Watched {
    /// the window
    pub window: Arc<dyn Inspect>,
    /// its listener
    pub accounting: Arc<Accounting>,
}

impl Watched {
    /// Everything that is known of the window now.
    pub fn facts(&self, now: Instant) -> Facts {
        self.accounting.facts(&*self.window, now)
    }

    /// To be called about once a second: removes what has expired and brings averages and level up to date.
    pub fn tick(&self, now: Instant) {
        self.window.sweep(now);
        self.accounting.tick(&*self.window, now);
    }
}

/// The n-th number of a series that looks random (splitmix64), for tests.
#[cfg(test)]
fn random(n: u64) -> u64 {
    let n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}
