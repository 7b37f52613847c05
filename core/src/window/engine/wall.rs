//! A seen id in wall-clock time, for a store that outlives the process.
//!
//! A [`Stamp`] counts from the window's first instant, so it means nothing to another process. A store writes the wall clock's time of
//! the commit, and the TTL. The reader uses the TTL that is left.
//!
//! The wall clock may jump, because somebody sets it:
//!
//! * If it went back, the commit lies in the future. Then nothing of the TTL is over: the id is kept for its TTL from now.
//! * If it went forward, more of the TTL seems to be over than is. The id is forgotten early, by the length of the jump at most.
//!
//! In both cases an id never lives longer than its TTL from the moment it is read. It never disappears because the clock went back.
//! The clock is read by the caller: these are functions of their arguments alone.

use super::{Entry, Stamp};
use crate::window::BodyDigest;
use std::time::{Duration, SystemTime};

/// A seen id as a store writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WallEntry {
    /// When it was committed, or last made young again, by the wall clock.
    pub at: SystemTime,
    /// How long it is remembered from then on.
    pub ttl: Duration,
    /// Duplicates since the commit.
    pub duplicates: u32,
    /// The digest of the body that was stored.
    pub body: BodyDigest,
}

impl WallEntry {
    /// Converts an entry. `now` and `wall` are the same moment on the two clocks.
    pub fn new(entry: &Entry, now: Stamp, wall: SystemTime) -> WallEntry {
        let age = now.since(entry.at);
        WallEntry {
            at: wall.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
            ttl: entry.until.since(entry.at),
            duplicates: entry.duplicates,
            body: entry.body,
        }
    }

    /// Returns how much of the TTL is left: at most the TTL, and zero when it is over.
    pub fn left(&self, wall: SystemTime) -> Duration {
        self.ttl.saturating_sub(self.age(wall))
    }

    /// Converts it back; `None` if its TTL is over. `now` and `wall` are the same moment on the two clocks.
    ///
    /// The id may be older than the window's own clock. Then its age is cut to what that clock can say; the end of its life is
    /// right in any case.
    pub fn entry(&self, now: Stamp, wall: SystemTime) -> Option<Entry> {
        (!self.left(wall).is_zero()).then(|| self.past_entry(now, wall))
    }

    /// As [`WallEntry::entry`], also if its TTL is over.
    pub fn past_entry(&self, now: Stamp, wall: SystemTime) -> Entry {
        let at = Stamp(now.0.saturating_sub(nanos(self.age(wall))));
        let until = match self.left(wall) {
            Duration::ZERO => at.after(self.ttl),
            left => now.after(left),
        };
        Entry { at, until, duplicates: self.duplicates, body: self.body }
    }

    /// Returns its age; zero if the clock says that it was committed later than now.
    fn age(&self, wall: SystemTime) -> Duration {
        wall.duration_since(self.at).unwrap_or_default()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TTL: Duration = Duration::from_secs(60);
    const BODY: BodyDigest = BodyDigest::from_bits(7);

    fn seconds(count: u64) -> Stamp {
        Stamp(0).after(Duration::from_secs(count))
    }

    fn wall(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    /// Committed at second 100 of the window's clock, written at second 110, which is second 1,000 of the wall clock.
    fn written() -> WallEntry {
        let entry = Entry { at: seconds(100), until: seconds(160), duplicates: 3, body: BODY };
        WallEntry::new(&entry, seconds(110), wall(1_000))
    }

    #[test]
    fn what_is_written_and_read_by_steady_clocks_is_the_same() {
        assert_eq!(written(), WallEntry { at: wall(990), ttl: TTL, duplicates: 3, body: BODY });
        let entry = written().entry(seconds(120), wall(1_010)).unwrap();
        assert_eq!(entry, Entry { at: seconds(100), until: seconds(160), duplicates: 3, body: BODY });
    }

    #[test]
    fn another_process_counts_what_is_left_from_its_own_now() {
        let entry = written().entry(seconds(500), wall(1_030)).unwrap();
        assert_eq!((entry.at, entry.until), (seconds(460), seconds(520)));
        // The other process has begun a moment ago: its clock can't say how old the id is.
        let entry = written().entry(seconds(2), wall(1_030)).unwrap();
        assert_eq!((entry.at, entry.until), (seconds(0), seconds(22)));
    }

    #[test]
    fn what_is_over_is_not_read() {
        assert_eq!(written().left(wall(1_049)), SECOND);
        assert_eq!(written().left(wall(1_050)), Duration::ZERO);
        assert_eq!(written().entry(seconds(0), wall(1_050)), None);
        assert_eq!(written().entry(seconds(0), wall(9_000)), None);
    }

    #[test]
    fn a_wall_clock_that_went_back_takes_no_id_and_lengthens_no_life() {
        for jumped in [989, 500, 0] {
            assert_eq!(written().left(wall(jumped)), TTL, "{jumped}");
            let entry = written().entry(seconds(7), wall(jumped)).unwrap();
            assert_eq!((entry.at, entry.until), (seconds(7), seconds(67)), "{jumped}");
        }
        let entry = written().entry(seconds(7), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(entry.until, seconds(67));
    }

    #[test]
    fn a_wall_clock_that_went_forward_forgets_early_by_the_jump_at_most() {
        // Second 1,000, but the clock says 1,020.
        assert_eq!(written().left(wall(1_020)), TTL - 30 * SECOND);
        // By more than the TTL.
        assert_eq!(written().entry(seconds(110), wall(1_000_000)), None);
    }

    /// Whatever the clocks say.
    #[test]
    fn nothing_lives_longer_than_its_ttl_from_now() {
        for now in [0, 1, 59, 1_000_000] {
            for time in [0, 1, 989, 990, 1_000, 1_049, 1_050, 10_000_000] {
                if let Some(entry) = written().entry(seconds(now), wall(time)) {
                    assert!(entry.until.since(seconds(now)) <= TTL, "{now} {time}");
                    assert!(entry.until > seconds(now) && entry.at <= seconds(now), "{now} {time}");
                }
            }
        }
    }

    #[test]
    fn what_is_kept_for_ever_stays_for_ever() {
        let entry = Entry { at: seconds(1), until: Stamp(u64::MAX), duplicates: 0, body: BODY };
        let written = WallEntry::new(&entry, seconds(2), wall(0));
        assert!(written.left(wall(1_000_000)) > Duration::from_secs(500 * 365 * 86_400));
    }
}
