//! The two clocks of the operating system, for everything in the shell that needs no more than to read one.

use std::time::{Instant, SystemTime};

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
