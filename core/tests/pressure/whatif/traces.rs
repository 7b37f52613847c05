//! Makes synthetic traffic from fixed seeds.

use std::time::Duration;

/// The least number of publishes in a trace.
const LENGTH: usize = 200_000;

/// A publish of an id, at a time since the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publish {
    pub(crate) id: u64,
    pub(crate) at: Duration,
}

/// A kind of traffic.
pub(crate) struct Trace {
    pub(crate) name: &'static str,
    /// the capacity of the window that is judged
    pub(crate) capacity: usize,
    /// makes the publishes for this capacity, in the order of their times
    pub(crate) publishes: fn(u64) -> Vec<Publish>,
}

/// All kinds of traffic.
pub(crate) const ALL: &[Trace] = &[
    Trace { name: "retries", capacity: 16_384, publishes: retries },
    Trace { name: "late retries", capacity: 8_192, publishes: late_retries },
    Trace { name: "popular ids", capacity: 4_096, publishes: popular },
    Trace { name: "uniform", capacity: 16_384, publishes: uniform },
    Trace { name: "replay bursts", capacity: 8_192, publishes: bursts },
    Trace { name: "loops", capacity: 8_192, publishes: loops },
    Trace { name: "one busy id", capacity: 8_192, publishes: busy },
    Trace { name: "fresh only", capacity: 16_384, publishes: fresh },
];

/// A random number generator (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns a number from 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / 2.0_f64.powi(53)
    }

    /// Returns a number whose logarithm is evenly distributed, so that few are large.
    fn log_uniform(&mut self, from: f64, to: f64) -> f64 {
        from * (to / from).powf(self.share())
    }
}

/// Spreads the ids evenly over this many seconds.
fn spaced(ids: Vec<u64>, seconds: f64) -> Vec<Publish> {
    let step = seconds / ids.len() as f64;
    let at = |n: usize| Duration::from_secs_f64(step * n as f64);
    ids.into_iter().enumerate().map(|(n, id)| Publish { id, at: at(n) }).collect()
}

/// A third of the ids is sent again, a few of them often, after milliseconds to minutes.
fn with_retries(seed: u64, seconds: f64, longest: f64) -> Vec<Publish> {
    let mut random = Random(seed);
    let mut publishes = Vec::new();
    let fresh = LENGTH * 2 / 3;
    for id in 0..fresh as u64 {
        let first = seconds * id as f64 / fresh as f64;
        publishes.push(Publish { id, at: Duration::from_secs_f64(first) });
        if random.below(3) > 0 {
            continue;
        }
        let retries = random.log_uniform(1.0, 20.0).floor();
        let mut at = first;
        for _ in 0..u32::try_from(retries as i64).expect("few") {
            at += random.log_uniform(0.05, longest);
            publishes.push(Publish { id, at: Duration::from_secs_f64(at) });
        }
    }
    publishes.retain(|publish| publish.at.as_secs_f64() < seconds);
    publishes.sort_by_key(|publish| publish.at);
    publishes
}

fn retries(_: u64) -> Vec<Publish> {
    with_retries(1, 1200.0, 600.0)
}

/// A third of the ids is sent again, some of them after the TTL.
fn late_retries(_: u64) -> Vec<Publish> {
    with_retries(2, 6000.0, 3000.0)
}

/// 100,000 ids, of which the n-th most popular one is sent 1/n as often as the first.
fn popular(_: u64) -> Vec<Publish> {
    let mut random = Random(3);
    let ids = (0..LENGTH).map(|_| random.log_uniform(1.0, 100_000.0) as u64).collect();
    spaced(ids, 900.0)
}

/// Twice as many ids as the window has room for, in random order.
fn uniform(capacity: u64) -> Vec<Publish> {
    let mut random = Random(4);
    spaced((0..LENGTH).map(|_| random.below(capacity * 2)).collect(), 1500.0)
}

/// Fresh ids. Now and then a publisher crashes and sends its last ids again, a few hundred or many.
fn bursts(capacity: u64) -> Vec<Publish> {
    let mut random = Random(5);
    let mut ids: Vec<u64> = Vec::new();
    let mut next = 0;
    while ids.len() < LENGTH {
        let run = capacity / 8 + random.below(capacity / 4);
        ids.extend(next..next + run);
        next += run;
        let again = random.log_uniform(200.0, capacity as f64 * 6.0) as u64;
        if random.below(2) == 0 {
            ids.extend(next.saturating_sub(again)..next);
        }
    }
    spaced(ids, 1500.0)
}

/// Two loops that send the same ids in the same order again and again, among fresh ids. One loop fits into the window,
/// and the other one does not.
fn loops(capacity: u64) -> Vec<Publish> {
    let mut random = Random(6);
    let (short, long) = (capacity / 6, capacity * 5 / 4);
    let (mut a, mut b, mut fresh) = (0, 0, 1 << 40);
    let ids = (0..LENGTH)
        .map(|_| match random.below(8) {
            0..3 => {
                a = (a + 1) % short;
                a
            }
            3..7 => {
                b = (b + 1) % long;
                1 << 32 | b
            }
            _ => {
                fresh += 1;
                fresh
            }
        })
        .collect();
    spaced(ids, 1200.0)
}

/// A third of all publishes has the same id, and another third has 20 other ids.
fn busy(capacity: u64) -> Vec<Publish> {
    let mut random = Random(7);
    let ids = (0..LENGTH)
        .map(|n| match random.below(3) {
            0 => 1,
            1 => 2 + random.below(20),
            _ if n % 2 == 0 => 100 + random.below(capacity * 2),
            _ => 1 << 32 | n as u64,
        })
        .collect();
    spaced(ids, 900.0)
}

fn fresh(_: u64) -> Vec<Publish> {
    spaced((0..LENGTH as u64).collect(), 1200.0)
}
