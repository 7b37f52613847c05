//! How many messages may be published in a second: `limits.publish_rate_per_user` and `limits.publish_rate_per_vhost`.
//!
//! All connections of a user share one bucket, and so do all of a vhost. A connection takes a publish from both. When one of them is
//! empty, the connection books a few publishes ahead, and its session takes no more of the client's frames until these are paid for:
//! the next one is a publish, so no message is left in the middle. TCP tells the publisher. The broker is read from meanwhile, so the
//! client gets its deliveries, acks and heartbeats. Bookings are paid in the order in which they come, so the connections of a user
//! take turns. A client that is not read from is not taken for dead.

use crate::config::Limits;
use crate::stats::{HeldByRate, Stats};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Buckets that may be there before those are looked for that nobody needs.
const FEW: usize = 1024;
/// A connection books as many publishes as the rate pays for in this time, so that it wakes up no more often than that.
const BOOKED: Duration = Duration::from_millis(10);
/// The most publishes that are booked at once.
const MOST_BOOKED: u64 = 256;
/// A connection is never held for longer by one booking.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The rates of a configuration, in publishes per second; 0: no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    /// of a user
    pub per_user: usize,
    /// of a vhost
    pub per_vhost: usize,
    /// publishes that may come at once beyond that
    pub burst: usize,
}

/// The buckets of all users and vhosts.
#[derive(Debug, Default)]
pub struct PublishRates {
    users: Buckets,
    vhosts: Buckets,
}

#[derive(Debug, Default)]
struct Buckets {
    rate: Arc<Rate>,
    all: Mutex<HashMap<Box<[u8]>, Arc<Bucket>>>,
}

/// A rate, which a reload may change.
#[derive(Debug, Default)]
struct Rate {
    /// the time that one publish takes, in nanoseconds; 0: there is no limit
    each: AtomicU64,
    /// in publishes
    burst: AtomicU64,
}

/// The publishes of one user or vhost of late: the moment at which they are all paid for.
#[derive(Debug)]
struct Bucket {
    rate: Arc<Rate>,
    paid: Mutex<Instant>,
}

impl Rates {
    /// Returns those of a configuration.
    pub fn of(limits: &Limits) -> Rates {
        Rates {
            per_user: limits.publish_rate_per_user,
            per_vhost: limits.publish_rate_per_vhost,
            burst: limits.publish_burst,
        }
    }
}

impl PublishRates {
    /// Creates the buckets, with these rates.
    pub fn new(rates: Rates) -> Arc<PublishRates> {
        let all = PublishRates::default();
        all.set(rates);
        Arc::new(all)
    }

    /// Changes the rates, for open connections, too. Bookings stay as they are.
    pub fn set(&self, rates: Rates) {
        let set = |buckets: &Buckets, rate: usize| {
            let each = if rate == 0 { 0 } else { (1_000_000_000 / rate as u64).max(1) };
            buckets.rate.each.store(each, Relaxed);
            buckets.rate.burst.store(rates.burst as u64, Relaxed);
        };
        set(&self.users, rates.per_user);
        set(&self.vhosts, rates.per_vhost);
    }

    /// Returns what a connection of this user at this vhost may publish. A bucket outlives its connections until it is full: who connects
    /// again gets no new burst.
    pub(super) fn of(&self, user: &[u8], vhost: &[u8], now: Instant) -> Allowance {
        let buckets = [self.users.of(user, now), self.vhosts.of(vhost, now)];
        Allowance { buckets: Some(buckets), counted: 0, booked: 0, until: None, held: None }
    }
}

impl Buckets {
    fn of(&self, name: &[u8], now: Instant) -> Arc<Bucket> {
        let mut all = self.all.lock();
        if let Some(bucket) = all.get(name) {
            return Arc::clone(bucket);
        }
        if all.len() >= FEW && all.len() == all.capacity() {
            all.retain(|_, bucket| Arc::strong_count(bucket) > 1 || *bucket.paid.lock() > now);
        }
        let bucket = Arc::new(Bucket { rate: Arc::clone(&self.rate), paid: Mutex::new(now) });
        all.insert(name.into(), Arc::clone(&bucket));
        bucket
    }
}

impl Rate {
    /// Returns the time that one publish takes; `None`: there is no limit.
    fn each(&self) -> Option<u64> {
        Some(self.each.load(Relaxed)).filter(|each| *each > 0)
    }

    /// Returns the time that this many publishes take.
    fn time(&self, publishes: u64) -> Duration {
        let each = self.each.load(Relaxed);
        Duration::from_nanos(each.saturating_mul(publishes)).min(LONGEST)
    }
}

impl Bucket {
    /// Returns how many publishes may come now.
    fn room(&self, now: Instant) -> u64 {
        let Some(each) = self.rate.each() else { return u64::MAX };
        let owed = self.paid.lock().saturating_duration_since(now);
        let room = self.rate.time(self.rate.burst.load(Relaxed)).saturating_sub(owed);
        u64::try_from(room.as_nanos()).unwrap_or(u64::MAX) / each
    }

    /// Returns how many publishes are booked at once.
    fn batch(&self) -> u64 {
        let Some(each) = self.rate.each() else { return MOST_BOOKED };
        (u64::try_from(BOOKED.as_nanos()).unwrap_or(u64::MAX) / each).clamp(1, MOST_BOOKED)
    }

    /// Takes publishes. Returns when they are paid for.
    fn take(&self, publishes: u64, now: Instant) -> Instant {
        if self.rate.each().is_none() {
            return now;
        }
        let mut paid = self.paid.lock();
        *paid = (*paid).max(now) + self.rate.time(publishes);
        let burst = self.rate.time(self.rate.burst.load(Relaxed));
        paid.checked_sub(burst).map_or(now, |until| until.max(now))
    }

    /// Gives publishes back that were booked and never came.
    fn give_back(&self, publishes: u64) {
        let mut paid = self.paid.lock();
        *paid = paid.checked_sub(self.rate.time(publishes)).unwrap_or(*paid);
    }
}

/// How much one connection may publish.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// that of its user and that of its vhost; `None` before the login
    buckets: Option<[Arc<Bucket>; 2]>,
    /// publishes that were taken from them
    counted: u64,
    /// publishes that were taken and have not come yet
    booked: u64,
    /// when those are paid for
    until: Option<Instant>,
    held: Option<HeldByRate>,
}

impl Allowance {
    /// Returns how many publishes the client may have sent in all by now.
    pub(super) fn limit(&mut self, now: Instant) -> u64 {
        let Some(buckets) = &self.buckets else { return u64::MAX };
        if self.until.is_some_and(|until| until > now) {
            return self.counted;
        }
        (self.until, self.held) = (None, None);
        let room = match self.booked {
            0 => buckets.iter().map(|bucket| bucket.room(now)).min().unwrap_or(u64::MAX),
            booked => booked,
        };
        self.counted.saturating_add(room)
    }

    /// Notes how many publishes the client has sent in all. `more`: the next one is beyond the limit. Then some are booked. Returns true
    /// if the connection has to wait for them.
    pub(super) fn spend(&mut self, publishes: u64, more: bool, stats: &Arc<Stats>, now: Instant) -> bool {
        let Some(buckets) = &self.buckets else { return false };
        let came = publishes - std::mem::replace(&mut self.counted, publishes);
        let booked = came.min(self.booked);
        self.booked -= booked;
        if came > booked {
            for bucket in buckets {
                bucket.take(came - booked, now);
            }
        }
        if !more || self.until.is_some() {
            return false;
        }
        let batch = buckets.iter().map(|bucket| bucket.batch()).min().unwrap_or(1);
        let paid = buckets.iter().map(|bucket| bucket.take(batch, now)).max().unwrap_or(now);
        self.booked += batch;
        self.until = Some(paid);
        let waits = paid > now;
        self.held = waits.then(|| stats.held_by_rate());
        waits
    }

    /// Returns until when the connection waits.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        if let (Some(buckets), 1..) = (&self.buckets, self.booked) {
            buckets.iter().for_each(|bucket| bucket.give_back(self.booked));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn per_user(rate: usize, burst: usize) -> Arc<PublishRates> {
        PublishRates::new(Rates { per_user: rate, per_vhost: 0, burst })
    }

    /// Publishes as much as it may for a second, and always has more to say. Returns how much that was.
    fn pour(all: &mut [Allowance], sent: &mut [u64], stats: &Arc<Stats>, from: Instant) -> u64 {
        let before: u64 = sent.iter().sum();
        for millis in 0..1000 {
            let now = from + Duration::from_millis(millis);
            for (allowance, sent) in all.iter_mut().zip(sent.iter_mut()) {
                // No read brings more than that.
                let most = allowance.limit(now).min(*sent + 1000);
                let more = most < *sent + 1000;
                *sent = most;
                allowance.spend(*sent, more, stats, now);
            }
        }
        sent.iter().sum::<u64>() - before
    }

    #[test]
    fn connections_of_a_user_share_one_bucket_and_take_turns() {
        let (rates, stats, now) = (per_user(100, 50), Stats::new(), base());
        let mut all: Vec<Allowance> = (0..10).map(|_| rates.of(b"bob", b"/", now)).collect();
        let mut sent = [0; 10];
        assert!(
            (145..=160).contains(&pour(&mut all, &mut sent, &stats, now)),
            "the burst, and the rate: {sent:?}"
        );
        let before = sent;
        assert!((95..=105).contains(&pour(&mut all, &mut sent, &stats, now + SECOND)), "{sent:?}");
        let each: Vec<u64> = sent.iter().zip(before).map(|(sent, before)| sent - before).collect();
        assert!(each.iter().all(|each| (8..=12).contains(each)), "in turn: {each:?}");
        assert_eq!(stats.snapshot().held_now, 10);
        assert_eq!(rates.of(b"eve", b"/", now).limit(now), 50, "another user has another bucket");
        drop(all);
        assert_eq!(stats.snapshot().held_now, 0);
    }

    #[test]
    fn a_vhost_has_a_bucket_for_all_of_its_users() {
        let (stats, now) = (Stats::new(), base());
        let rates = PublishRates::new(Rates { per_user: 1000, per_vhost: 100, burst: 10 });
        let mut all: Vec<Allowance> =
            ["a", "b", "c"].iter().map(|user| rates.of(user.as_bytes(), b"v", now)).collect();
        let mut sent = [0; 3];
        assert!((100..=120).contains(&pour(&mut all, &mut sent, &stats, now)), "{sent:?}");
        assert_eq!(rates.of(b"a", b"other", now + SECOND).limit(now + SECOND), 10, "another vhost");
    }

    #[test]
    fn who_connects_again_gets_no_new_burst_and_what_was_booked_comes_back() {
        let (rates, stats, now) = (per_user(10, 10), Stats::new(), base());
        let mut first = rates.of(b"bob", b"/", now);
        assert_eq!(first.limit(now), 10);
        assert!(first.spend(10, true, &stats, now));
        assert_eq!(first.until(), Some(now + SECOND / 10));
        for n in 0..5000 {
            drop(rates.of(format!("user-{n}").as_bytes(), b"/", now));
        }
        assert!(rates.users.all.lock().len() < 4000, "buckets that are full and of nobody go");
        assert_eq!(rates.of(b"bob", b"/", now).limit(now), 0);
        drop(first);
        let later = now + SECOND / 10;
        assert_eq!(rates.of(b"bob", b"/", later).limit(later), 1, "the one that was booked never came");
    }

    #[test]
    fn without_a_rate_there_is_no_limit_and_a_reload_sets_one_for_everybody() {
        let (rates, stats, now) = (per_user(0, 0), Stats::new(), base());
        let mut open = rates.of(b"bob", b"/", now);
        assert_eq!(open.limit(now), u64::MAX);
        assert!(!open.spend(1 << 40, false, &stats, now));
        rates.set(Rates { per_user: 10, per_vhost: 0, burst: 3 });
        assert_eq!(open.limit(now), (1 << 40) + 3);
        rates.set(Rates::default());
        assert_eq!(open.limit(now), u64::MAX);
    }

    #[test]
    fn a_client_that_has_left_is_charged_for_all_that_it_had_sent() {
        let (rates, stats, now) = (per_user(10, 10), Stats::new(), base());
        let mut gone = rates.of(b"bob", b"/", now);
        gone.limit(now);
        // The pump lifts the limit when the client's socket has ended.
        gone.spend(110, false, &stats, now);
        drop(gone);
        let mut next = rates.of(b"bob", b"/", now);
        assert_eq!(next.limit(now + 10 * SECOND), 0);
        assert_eq!(next.limit(now + 11 * SECOND), 10);
    }
}
