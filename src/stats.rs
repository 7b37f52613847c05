//! Counters of the process that belong to no window: connections, failed dials, publishes that no window judged,
//! latency. Sessions and the shell write them, and [`crate::admin`] reads them. They are atomics, so a scrape blocks
//! nobody.

use hapax_core::session::SessionListener;
use hapax_core::wire::BadHeader;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the latency buckets, in microseconds. They range from a broker on the same host to one that fsyncs
/// a quorum over a slow disk. A longer latency goes into the `+Inf` bucket.
pub const LATENCY_BOUNDS_US: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Exchanges of which is said once that they return everything. Others are not logged.
const RETURNING: usize = 1_024;

/// The counters. There is one set per process.
#[derive(Debug, Default)]
pub struct Stats {
    accepted: AtomicU64,
    closed: AtomicU64,
    rejected: AtomicU64,
    rejected_by_address: AtomicU64,
    rejected_by_user: AtomicU64,
    displaced: AtomicU64,
    handshakes: AtomicUsize,
    held_by_rate: AtomicU64,
    held_now: AtomicUsize,
    logins_refused: AtomicU64,
    handshakes_failed: AtomicU64,
    proxy_headers_refused: AtomicU64,
    dial_failures: AtomicU64,
    unread: AtomicU64,
    deliveries: AtomicU64,
    unmatched: AtomicU64,
    bad_headers: [AtomicU64; BadHeader::ALL.len()],
    unverified: AtomicU64,
    latency: Histogram,
    /// exchanges of which was said that they return everything: vhost and name
    returning: Mutex<HashSet<Box<[u8]>>>,
    /// written by [`crate::net`]
    pub(crate) memory: MemoryCounters,
}

/// The memory that connections hold, and how many of them are paused.
#[derive(Debug, Default)]
pub(crate) struct MemoryCounters {
    /// the most bytes that may be held
    pub(crate) limit: AtomicUsize,
    /// bytes that are held
    pub(crate) used: AtomicUsize,
    /// connections that count toward `used`
    pub(crate) holders: AtomicUsize,
    /// connections that are not read from because they hold too much
    pub(crate) paused: AtomicUsize,
}

impl Stats {
    /// Creates the counters, all zero.
    pub fn new() -> Arc<Stats> {
        Arc::default()
    }

    /// Counts an accepted client connection. It counts as open until the guard is dropped.
    pub fn accepted(self: &Arc<Stats>) -> OpenConnection {
        self.accepted.fetch_add(1, Relaxed);
        OpenConnection(Arc::clone(self))
    }

    /// Counts a client connection that was turned away because the limit of all connections is reached.
    pub fn rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    /// Counts a client connection that was turned away because the limit of its address is reached. It also counts as
    /// rejected.
    pub fn rejected_by_address(&self) {
        self.rejected();
        self.rejected_by_address.fetch_add(1, Relaxed);
    }

    /// Counts a client connection that was turned away because the limit of its user is reached. It also counts as rejected.
    pub fn rejected_by_user(&self) {
        self.rejected();
        self.rejected_by_user.fetch_add(1, Relaxed);
    }

    /// Notes how many connections have not logged in.
    pub fn set_handshakes(&self, handshakes: usize) {
        self.handshakes.store(handshakes, Relaxed);
    }

    /// Counts a connection that had not logged in and gave way to a newer one.
    pub fn displaced(&self) {
        self.displaced.fetch_add(1, Relaxed);
    }

    /// Counts that a connection is not read from for a while, because its user or its vhost has published too much. It counts as held
    /// until the guard is dropped.
    pub fn held_by_rate(self: &Arc<Stats>) -> HeldByRate {
        self.held_by_rate.fetch_add(1, Relaxed);
        self.held_now.fetch_add(1, Relaxed);
        HeldByRate(Arc::clone(self))
    }

    /// Counts a connection that was closed because its TLS handshake, or all that comes before AMQP, has failed or took too long.
    pub fn handshake_failed(&self) {
        self.handshakes_failed.fetch_add(1, Relaxed);
    }

    /// Counts a connection that was closed because of its PROXY header: it can't be read, or its sender is not trusted.
    pub fn proxy_header_refused(&self) {
        self.proxy_headers_refused.fetch_add(1, Relaxed);
    }

    /// Counts a login that was refused: the user may log in from this host only, or the broker can't see the client's certificate.
    pub fn login_refused(&self) {
        self.logins_refused.fetch_add(1, Relaxed);
    }

    /// Counts a failed attempt to connect to the upstream.
    pub fn dial_failed(&self) {
        self.dial_failures.fetch_add(1, Relaxed);
    }

    /// Counts a client connection that was closed because the client did not read.
    pub fn closed_unread(&self) {
        self.unread.fetch_add(1, Relaxed);
    }

    /// Counts messages that the broker has sent to clients.
    pub fn delivered(&self, messages: u64) {
        if messages > 0 {
            self.deliveries.fetch_add(messages, Relaxed);
        }
    }

    fn bad_headers(&self, header: BadHeader) -> Option<&AtomicU64> {
        BadHeader::ALL
            .iter()
            .zip(&self.bad_headers)
            .find(|(have, _)| **have == header)
            .map(|(_, count)| count)
    }

    /// Returns all numbers. They are read one by one, so two of them may be an event apart.
    pub fn snapshot(&self) -> Snapshot {
        let closed = self.closed.load(Relaxed);
        let accepted = self.accepted.load(Relaxed);
        Snapshot {
            accepted,
            connections: accepted.saturating_sub(closed),
            rejected: self.rejected.load(Relaxed),
            rejected_by_address: self.rejected_by_address.load(Relaxed),
            rejected_by_user: self.rejected_by_user.load(Relaxed),
            displaced: self.displaced.load(Relaxed),
            handshakes: self.handshakes.load(Relaxed),
            held_by_rate: self.held_by_rate.load(Relaxed),
            held_now: self.held_now.load(Relaxed),
            logins_refused: self.logins_refused.load(Relaxed),
            handshakes_failed: self.handshakes_failed.load(Relaxed),
            proxy_headers_refused: self.proxy_headers_refused.load(Relaxed),
            dial_failures: self.dial_failures.load(Relaxed),
            unread: self.unread.load(Relaxed),
            deliveries: self.deliveries.load(Relaxed),
            unmatched: self.unmatched.load(Relaxed),
            bad_headers: BadHeader::ALL.map(|header| {
                (header.name(), self.bad_headers(header).map_or(0, |count| count.load(Relaxed)))
            }),
            unverified: self.unverified.load(Relaxed),
            latency: self.latency.snapshot(),
            memory: HeldMemory {
                limit: self.memory.limit.load(Relaxed),
                used: self.memory.used.load(Relaxed),
                paused: self.memory.paused.load(Relaxed),
            },
        }
    }
}

impl SessionListener for Stats {
    fn unmatched(&self) {
        self.unmatched.fetch_add(1, Relaxed);
    }

    fn bad_header(&self, header: BadHeader) {
        if let Some(count) = self.bad_headers(header) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn unverified(&self) {
        self.unverified.fetch_add(1, Relaxed);
    }

    fn channel_limited(&self, user: Option<&str>) {
        tracing::warn!(
            user = user.unwrap_or("?"),
            "the user's limit of channels (max-channels) leaves none for hapax to verify its rights on: one connection was closed; \
             until tomorrow, duplicates of this user pass where no ack has shown its right lately; allow it one channel more"
        );
    }

    fn returns_everything(&self, vhost: &[u8], exchange: &[u8], returns: u32) {
        let place = [vhost, b"\0", exchange].concat();
        let mut known = self.returning.lock();
        if known.len() >= RETURNING || !known.insert(place.into()) {
            return;
        }
        let (vhost, exchange) = (String::from_utf8_lossy(vhost), String::from_utf8_lossy(exchange));
        tracing::warn!(
            %vhost,
            %exchange,
            returns,
            "the broker has returned the last messages of a connection to this exchange, all of them: no queue took them, so none \
             of their ids is remembered, and duplicates pass. Bind a queue. If the exchange keeps what it returns (a plugin), \
             set `verify_routing = false` for its window"
        );
    }

    fn publish_latency(&self, elapsed: Duration, publishes: u64) {
        self.latency.record(elapsed, publishes);
    }
}

/// A guard: a client connection counts as open while this lives.
#[must_use = "dropping it counts the connection as closed"]
#[derive(Debug)]
pub struct OpenConnection(Arc<Stats>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Relaxed);
    }
}

/// A guard: a connection is not read from, because of a rate, while this lives.
#[must_use = "dropping it counts the connection as read from"]
#[derive(Debug)]
pub struct HeldByRate(Arc<Stats>);

impl Drop for HeldByRate {
    fn drop(&mut self) {
        self.0.held_now.fetch_sub(1, Relaxed);
    }
}

/// The values of [`Stats`] at one moment, counted since the start of the process.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// client connections accepted
    pub accepted: u64,
    /// client connections that are open now
    pub connections: u64,
    /// client connections turned away
    pub rejected: u64,
    /// client connections turned away because of their address's limit; included in `rejected`
    pub rejected_by_address: u64,
    /// client connections turned away because of their user's limit; included in `rejected`
    pub rejected_by_user: u64,
    /// client connections that gave way before they had logged in
    pub displaced: u64,
    /// client connections that have not logged in
    pub handshakes: usize,
    /// times that a connection was not read from, because its user or its vhost had published more than its rate
    pub held_by_rate: u64,
    /// connections that are not read from now for that reason
    pub held_now: usize,
    /// logins that were refused: by `loopback_users`, or because they need a certificate that the broker can't see
    pub logins_refused: u64,
    /// client connections that did not get through the TLS handshake
    pub handshakes_failed: u64,
    /// client connections that were closed because of their PROXY header
    pub proxy_headers_refused: u64,
    /// failed attempts to connect to the upstream
    pub dial_failures: u64,
    /// client connections that were closed because the client did not read
    pub unread: u64,
    /// messages that the broker has sent to clients
    pub deliveries: u64,
    /// publishes that no window judged
    pub unmatched: u64,
    /// publishes with a header whose value can't be understood, by the header's name
    pub bad_headers: [(&'static str, u64); BadHeader::ALL.len()],
    /// publishes that were forwarded unjudged, because there was no channel to verify their users' rights on
    pub unverified: u64,
    /// time from a publish's arrival to the upstream's answer
    pub latency: Latency,
    /// memory that is held for clients
    pub memory: HeldMemory,
}

/// The memory that is held for clients at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldMemory {
    /// the most bytes that may be held; 0 before there is a relay
    pub limit: usize,
    /// bytes that are held
    pub used: usize,
    /// connections that are not read from because they hold more than their share while the process is above its mark
    pub paused: usize,
}

/// A histogram at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct Latency {
    /// each bucket's upper bound in seconds (the last is infinite), and how many values are in this bucket alone
    pub buckets: Vec<(f64, u64)>,
    /// the sum of all values, in seconds
    pub sum: f64,
    /// how many values there are
    pub count: u64,
}

/// A histogram with one bucket per bound and one for all above. The sum is in nanoseconds, which is enough for 584
/// years.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len()],
    above: AtomicU64,
    nanos: AtomicU64,
}

impl Histogram {
    fn record(&self, elapsed: Duration, times: u64) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let index = LATENCY_BOUNDS_US.partition_point(|bound| bound.saturating_mul(1_000) < nanos);
        self.buckets.get(index).unwrap_or(&self.above).fetch_add(times, Relaxed);
        self.nanos.fetch_add(nanos.saturating_mul(times), Relaxed);
    }

    fn snapshot(&self) -> Latency {
        let bounds = LATENCY_BOUNDS_US.iter().map(|us| Duration::from_micros(*us).as_secs_f64());
        let counts = self.buckets.iter().chain([&self.above]).map(|bucket| bucket.load(Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        // Count from the buckets, so that the two never disagree.
        let count = buckets.iter().map(|(_, count)| count).sum();
        Latency { buckets, sum: Duration::from_nanos(self.nanos.load(Relaxed)).as_secs_f64(), count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_open_while_its_guard_lives() {
        let stats = Stats::new();
        let first = stats.accepted();
        let second = stats.accepted();
        assert_eq!((stats.snapshot().accepted, stats.snapshot().connections), (2, 2));
        drop(first);
        assert_eq!((stats.snapshot().accepted, stats.snapshot().connections), (2, 1));
        drop(second);
        assert_eq!(stats.snapshot().connections, 0);
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let stats = Stats::new();
        for us in [0, 100, 101, 30_000_000, 30_000_001] {
            stats.publish_latency(Duration::from_micros(us), 1);
        }
        let latency = stats.snapshot().latency;
        let filled: Vec<(f64, u64)> =
            latency.buckets.iter().copied().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0001, 2), (0.00025, 1), (30.0, 1), (f64::INFINITY, 1)]);
        assert_eq!(latency.count, 5);
        assert!((latency.sum - 60.000_202).abs() < 1e-9, "{}", latency.sum);
    }
}
