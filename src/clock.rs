//! The two clocks of the operating system, and its dice, for everything in the shell that needs no more than to read one.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::sleep;

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

/// The pauses between attempts that fail: each is twice as long as the one before, up to a bound, and [jittered].
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// The first pause is this long at most, and no pause is longer than the other.
    pub(crate) fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { next: first, first, longest }
    }

    /// The pauses between connections of Hapax's own to a broker.
    pub(crate) fn of_broker() -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(5))
    }

    /// Begins with the first pause again: an attempt has not failed.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// Returns the next pause.
    pub(crate) fn draw(&mut self) -> Duration {
        let pause = jittered(self.next);
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// Waits for the next pause.
    pub(crate) async fn rest(&mut self) {
        sleep(self.draw()).await;
    }
}

/// Returns half of the pause with the luck 0, and all of it with the luck `u32::MAX`.
pub(crate) fn part(pause: Duration, luck: u32) -> Duration {
    let half = pause / 2;
    half + half.mul_f64(f64::from(luck) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_begin_anew() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 5 * second);
        for longest in [1, 2, 4, 5, 5] {
            let pause = backoff.draw();
            assert!((longest * second / 2..=longest * second).contains(&pause), "{pause:?} of {longest} s");
        }
        backoff.reset();
        assert!(backoff.draw() <= second);
    }
}
