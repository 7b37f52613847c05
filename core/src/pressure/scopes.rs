//! Finds out where fresh ids come from: the largest scopes (vhost, exchange, routing key) of the last two intervals.
//! The memory is bounded, however many scopes there are.
//!
//! The algorithm is *space saving* (Metwally, Agrawal, El Abbadi 2005) with 64 counters. A scope without a counter
//! takes over the smallest one together with its count. That count is also the most by which the scope's own count may
//! be too high. A scope with more than a 64th of all ids always has a counter.

use super::facts::TopScope;
use crate::window::Origin;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

const COUNTERS: usize = 64;
/// How many scopes are shown.
const SHOWN: usize = 10;
const INTERVAL: Duration = Duration::from_secs(60);
/// The most bytes of a name that are shown. AMQP has no longer names.
const LONGEST: usize = 255;

/// The largest scopes of the present interval and the one before.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    hasher: RandomState,
    this: Sketch,
    before: Sketch,
    begun: Option<Instant>,
}

impl Scopes {
    /// Adds `ids` fresh ids to this scope.
    pub(super) fn add(&mut self, origin: &Origin<'_>, ids: u64) {
        self.this.add(self.hasher.hash_one(origin), origin, ids);
    }

    pub(super) fn tick(&mut self, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        if now.saturating_duration_since(begun) >= INTERVAL {
            self.begun = Some(now);
            self.before = std::mem::take(&mut self.this);
        }
    }

    /// Returns the largest scopes, largest first. A scope with a counter in only one interval may have had as many ids
    /// in the other as the smallest counter there.
    pub(super) fn top(&self) -> Vec<TopScope> {
        let (this, before) = (self.this.counters(), self.before.counters());
        let both = this.map(|(hash, counter)| (counter, self.before.estimate(hash)));
        let old = before.filter(|(hash, _)| self.this.find(*hash).is_none());
        let all = both.chain(old.map(|(hash, counter)| (counter, self.this.estimate(hash))));
        let mut all: Vec<TopScope> = all.map(|(counter, other)| counter.shown(other)).collect();
        all.sort_by(|a, b| b.fresh.cmp(&a.fresh).then_with(|| a.routing_key.cmp(&b.routing_key)));
        all.truncate(SHOWN);
        all
    }

    pub(super) fn bytes(&self) -> usize {
        self.this.bytes() + self.before.bytes()
    }
}

#[derive(Debug, Default)]
struct Sketch {
    /// The hashes of the scopes. They are separate from the counters, so that all of them fit in eight cache lines.
    hashes: Vec<u64>,
    counters: Vec<Counter>,
}

#[derive(Debug)]
struct Counter {
    ids: u64,
    error: u64,
    /// vhost, exchange and routing key one after the other, and where the second and the third begin
    names: Box<[u8]>,
    cuts: (usize, usize),
}

impl Sketch {
    fn find(&self, hash: u64) -> Option<&Counter> {
        self.hashes.iter().position(|other| *other == hash).and_then(|index| self.counters.get(index))
    }

    fn counters(&self) -> impl Iterator<Item = (u64, &Counter)> {
        self.hashes.iter().copied().zip(&self.counters)
    }

    /// Returns the ids of this scope, and by how much this may be too high.
    fn estimate(&self, hash: u64) -> (u64, u64) {
        let smallest = || self.counters.iter().map(|counter| counter.ids).min();
        match self.find(hash) {
            Some(counter) => (counter.ids, counter.error),
            None if self.counters.len() < COUNTERS => (0, 0),
            None => smallest().map_or((0, 0), |ids| (ids, ids)),
        }
    }

    fn add(&mut self, hash: u64, origin: &Origin<'_>, ids: u64) {
        let found = self.hashes.iter().position(|other| *other == hash);
        if let Some(counter) = found.and_then(|index| self.counters.get_mut(index)) {
            counter.ids += ids;
        } else if self.counters.len() < COUNTERS {
            self.hashes.push(hash);
            self.counters.push(Counter::new(origin, ids, 0));
        } else if let Some((index, smallest)) =
            self.counters.iter_mut().enumerate().min_by_key(|(_, counter)| counter.ids)
        {
            *smallest = Counter::new(origin, smallest.ids + ids, smallest.ids);
            self.hashes.splice(index..=index, [hash]);
        }
    }

    fn bytes(&self) -> usize {
        let names: usize = self.counters.iter().map(|counter| counter.names.len()).sum();
        self.hashes.capacity() * size_of::<u64>() + self.counters.capacity() * size_of::<Counter>() + names
    }
}

impl Counter {
    fn new(origin: &Origin<'_>, ids: u64, error: u64) -> Counter {
        let Origin { vhost, exchange, routing_key } = *origin;
        let cuts = (vhost.len(), vhost.len() + exchange.len());
        Counter { ids, error, names: [vhost, exchange, routing_key].concat().into(), cuts }
    }

    fn shown(&self, (more, error): (u64, u64)) -> TopScope {
        let part = |range| self.names.get::<std::ops::Range<usize>>(range).map(text).unwrap_or_default();
        TopScope {
            vhost: part(0..self.cuts.0),
            exchange: part(self.cuts.0..self.cuts.1),
            routing_key: part(self.cuts.1..self.names.len()),
            fresh: self.ids + more,
            error: self.error + error,
        }
    }
}

/// Returns a name as text. Bytes that are not UTF-8 become replacement characters.
fn text(name: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(name).into_owned();
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(routing_key: &str) -> Origin<'_> {
        Origin { vhost: b"/", exchange: b"orders", routing_key: routing_key.as_bytes() }
    }

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_largest_are_found_among_ten_thousand_and_no_count_is_too_low() {
        let (mut scopes, base) = (Scopes::default(), base());
        let (mut truth, names) =
            (vec![0_u64; 10_000], (0..10_000).map(|n| n.to_string()).collect::<Vec<_>>());
        for second in 0..100 {
            scopes.tick(base + Duration::from_secs(second));
            if second == 60 {
                // The second interval begins here. Both are shown.
                assert_eq!(scopes.this.counters.len(), 0);
            }
            for step in 0..1000_usize {
                // Ten scopes get half of the ids, in 1 to 10 shares each. The rest is spread over all others.
                let scope = if step % 2 == 0 {
                    (step / 2 % 55 * 8 + 1).isqrt().div_ceil(2) % 11
                } else {
                    11 + (step * 7919 + usize::try_from(second).unwrap() * 104_729) % 9_989
                };
                truth[scope] += 1;
                scopes.add(&origin(&names[scope]), 1);
            }
        }
        let mut largest: Vec<usize> = (0..truth.len()).collect();
        largest.sort_by_key(|scope| std::cmp::Reverse(truth[*scope]));
        let top = scopes.top();
        assert_eq!(top.len(), SHOWN);
        for (shown, scope) in top.iter().zip(&largest).take(5) {
            assert_eq!(shown.routing_key, names[*scope]);
        }
        for shown in &top {
            let real = truth[shown.routing_key.parse::<usize>().unwrap()];
            assert!(shown.fresh >= real && shown.fresh - shown.error <= real, "{shown:?}: {real}");
            assert_eq!((&*shown.vhost, &*shown.exchange), ("/", "orders"));
        }
        assert!(scopes.bytes() < 40_000, "{}", scopes.bytes());
    }

    #[test]
    fn names_are_bytes() {
        let mut scopes = Scopes::default();
        let long = [b'x'; 300];
        scopes.add(&Origin { vhost: b"\xff", exchange: b"", routing_key: &long }, 16);
        let top = scopes.top();
        assert_eq!((&*top[0].vhost, &*top[0].exchange), ("\u{fffd}", ""));
        assert_eq!((top[0].routing_key.len(), top[0].fresh, top[0].error), (255, 16, 0));
    }

    #[test]
    fn what_was_two_intervals_ago_is_gone() {
        let (mut scopes, base) = (Scopes::default(), base());
        scopes.tick(base);
        scopes.add(&origin("a"), 1);
        scopes.tick(base + INTERVAL);
        scopes.add(&origin("a"), 2);
        scopes.add(&origin("b"), 4);
        let fresh: Vec<u64> = scopes.top().iter().map(|top| top.fresh).collect();
        assert_eq!(fresh, [4, 3]);
        scopes.tick(base + 2 * INTERVAL);
        scopes.tick(base + 3 * INTERVAL);
        assert!(scopes.top().is_empty());
    }
}
