//! One reading of both clocks. Ages come from the monotonic clock, dates from the wall clock.

use std::time::{Duration, Instant, SystemTime};

/// The present moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) date: SystemTime,
}

impl Now {
    #[expect(clippy::disallowed_methods, reason = "the admin interface is a part of the shell")]
    pub(super) fn read() -> Now {
        Now { instant: Instant::now(), date: SystemTime::now() }
    }

    /// Returns the seconds since `then`; zero if it is in the future.
    pub(super) fn since(&self, then: Instant) -> f64 {
        self.instant.saturating_duration_since(then).as_secs_f64()
    }

    /// Returns the seconds until `then`; zero if it has passed.
    pub(super) fn until(&self, then: Instant) -> f64 {
        then.saturating_duration_since(self.instant).as_secs_f64()
    }

    /// Returns that instant as a date, in ISO 8601 and UTC.
    pub(super) fn iso(&self, at: Instant) -> String {
        let date = match at.checked_duration_since(self.instant) {
            Some(ahead) => self.date.checked_add(ahead),
            None => self.date.checked_sub(self.instant.saturating_duration_since(at)),
        };
        humantime::format_rfc3339_millis(date.unwrap_or(self.date)).to_string()
    }
}

/// Writes a duration as a person would, cut to whole milliseconds.
pub(super) fn span(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_before_and_after_now() {
        let instant = Now::read().instant;
        let now = Now { instant, date: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000) };
        let second = Duration::from_secs(1);
        assert_eq!(now.iso(instant), "2001-09-09T01:46:40.000Z");
        assert_eq!(now.iso(instant + second), "2001-09-09T01:46:41.000Z");
        assert_eq!((now.until(instant + second), now.since(instant + second)), (1.0, 0.0));
        assert_eq!((now.until(instant), now.since(instant)), (0.0, 0.0));
        assert_eq!(now.iso(instant + Duration::from_secs(584 * 31_557_600)).len(), 24);
    }
}
