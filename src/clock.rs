//! The two clocks of the operating system, and its dice, for everything in the shell that needs no more than to read one.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant, SystemTime};

/// Reads the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the shell is where time is read")]
pub fn now() -> Instant {
    Instant::now()
}

/// Reads the wall clock.
#[expect(clippy::disallowed_methods, reason = "the shell is where time is read")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// Returns a random number.
pub(crate) fn luck() -> u32 {
    u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or(0)
}

/// Returns a pause between half of it and all of it, so that many relays don't come at the same time.
pub(crate) fn jittered(pause: Duration) -> Duration {
    part(pause, luck())
}

/// Returns half of the pause with the luck 0, and all of it with the luck `u32::MAX`.
pub(crate) fn part(pause: Duration, luck: u32) -> Duration {
    let half = pause / 2;
    half + half.mul_f64(f64::from(luck) / f64::from(u32::MAX))
}
