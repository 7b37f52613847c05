//! How many publishes a user may send in a second: `limits.publish_rate`.
//!
//! All connections of a user share one bucket. A connection whose read has brought more than the bucket holds is not read from until the
//! bucket has paid for it. TCP tells the publisher. RabbitMQ's own flow control does the same: the connection's consumers get their
//! deliveries, and their acks wait with the publishes. A client that is not read from is not taken for dead.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Buckets that may be there before those are looked for that nobody needs.
const FEW: usize = 1024;

/// The buckets of all users.
#[derive(Debug)]
pub struct PublishRates {
    /// the time that one publish takes at the rate; `None`: there is no limit
    each: Option<Duration>,
    burst: Duration,
    users: Mutex<HashMap<Box<str>, Arc<Bucket>>>,
}

/// What one user has sent of late: the moment at which it is all paid for.
#[derive(Debug)]
pub(super) struct Bucket {
    each: Duration,
    burst: Duration,
    paid: Mutex<Instant>,
}

impl PublishRates {
    /// Makes the buckets for a rate in publishes per second (0: no limit) and a burst in publishes.
    pub fn new(rate: usize, burst: usize) -> PublishRates {
        let each = (rate > 0).then(|| Duration::from_secs_f64(1.0 / rate as f64));
        let burst = times(each.unwrap_or_default(), burst as u64);
        PublishRates { each, burst, users: Mutex::default() }
    }

    /// Returns the bucket of a user; `None` if there is no limit. A bucket outlives its connections until it is full: who connects again
    /// gets no new burst.
    pub(super) fn of(&self, user: &str, now: Instant) -> Option<Arc<Bucket>> {
        let each = self.each?;
        let mut users = self.users.lock();
        if let Some(bucket) = users.get(user) {
            return Some(Arc::clone(bucket));
        }
        if users.len() >= FEW && users.len() == users.capacity() {
            users.retain(|_, bucket| Arc::strong_count(bucket) > 1 || *bucket.paid.lock() > now);
        }
        let bucket = Arc::new(Bucket { each, burst: self.burst, paid: Mutex::new(now) });
        users.insert(user.into(), Arc::clone(&bucket));
        Some(bucket)
    }
}

impl Bucket {
    /// Takes publishes that were read. Returns until when their connection is not to be read from.
    pub(super) fn take(&self, publishes: u64, now: Instant) -> Option<Instant> {
        let mut paid = self.paid.lock();
        *paid = (*paid).max(now) + times(self.each, publishes);
        let until = paid.checked_sub(self.burst)?;
        (until > now).then_some(until)
    }
}

/// A day at most: a connection is never held for longer by one read.
fn times(each: Duration, count: u64) -> Duration {
    const MOST: Duration = Duration::from_secs(86_400);
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    each.checked_mul(count).unwrap_or(MOST).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn connections_of_a_user_share_one_bucket_and_wait_in_turn() {
        let (rates, now) = (PublishRates::new(100, 50), base());
        let bucket = rates.of("bob", now).unwrap();
        assert_eq!(bucket.take(50, now), None, "the burst");
        assert_eq!(bucket.take(100, now), Some(now + SECOND));
        assert_eq!(rates.of("bob", now).unwrap().take(100, now), Some(now + 2 * SECOND), "behind the first");
        assert_eq!(rates.of("eve", now).unwrap().take(50, now), None, "another user has another bucket");
        assert_eq!(bucket.take(1, now + 10 * SECOND), None);
    }

    #[test]
    fn who_connects_again_gets_no_new_burst() {
        let (rates, now) = (PublishRates::new(10, 10), base());
        rates.of("bob", now).unwrap().take(1000, now);
        for n in 0..5000 {
            rates.of(&format!("user-{n}"), now).unwrap();
        }
        assert!(rates.of("bob", now).unwrap().take(1, now).is_some());
        assert!(rates.users.lock().len() < 4000, "buckets that are full and of nobody go");
    }

    #[test]
    fn without_a_rate_there_is_no_bucket() {
        assert!(PublishRates::new(0, 0).of("bob", base()).is_none());
    }
}
