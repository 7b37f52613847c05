//! Limits log lines that others can cause: at most one line per second of each kind, with the number of lines that
//! were left out.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(1);

/// One kind of log line.
#[derive(Debug)]
pub(crate) struct LogLimiter {
    since: Instant,
    /// When the next line may be written, in milliseconds after `since`.
    next: AtomicU64,
    left_out: AtomicU64,
}

impl LogLimiter {
    pub(crate) fn new(now: Instant) -> LogLimiter {
        LogLimiter { since: now, next: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Counts one more event. Returns the number of lines left out since the last one if this event is to be logged.
    pub(crate) fn happened(&self, now: Instant) -> Option<u64> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let at = millis(now.saturating_duration_since(self.since));
        let next = self.next.load(Relaxed);
        let due =
            at >= next && self.next.compare_exchange(next, at + millis(EVERY), Relaxed, Relaxed).is_ok();
        if due {
            return Some(self.left_out.swap(0, Relaxed));
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant; only distances to it count")]
    fn one_line_a_second_and_the_rest_counted() {
        let start = Instant::now();
        let log_limiters = LogLimiter::new(start);
        let at = |millis| log_limiters.happened(start + Duration::from_millis(millis));
        assert_eq!(at(0), Some(0));
        assert_eq!((at(1), at(500), at(999)), (None, None, None));
        assert_eq!(at(1000), Some(3));
        assert_eq!(at(5000), Some(0));
    }
}
