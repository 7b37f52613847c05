//! Waiting for a condition that tells nobody when it comes true: asked for again and again until a deadline.

use std::time::{Duration, Instant};

/// Long enough for a busy two-core machine, short enough to fail while somebody still looks.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The time, for a deadline, or to see how long something takes.
pub fn now() -> Instant {
    Instant::now()
}

/// Asks until there is an answer; panics with `what` when there is none within the deadline.
pub fn until<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
