//! Helpers for publishers whose connection may end at any moment, and for a look at the queue afterwards.

use super::raw::{Login, Raw, Told, method_frame};
use amq_protocol::protocol::{AMQPClass, channel, confirm};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

/// How often a test kills something: as often as `HAPAX_KILLS` says, which `make chaos` sets.
pub fn kills(default: usize) -> usize {
    std::env::var("HAPAX_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(default)
}

/// How often a test starts a relay again: as often as `HAPAX_RESTARTS` says.
pub fn restarts(default: usize) -> usize {
    std::env::var("HAPAX_RESTARTS").ok().and_then(|restarts| restarts.parse().ok()).unwrap_or(default)
}

/// The error of a connection that has ended.
pub fn over() -> io::Error {
    io::Error::from(io::ErrorKind::UnexpectedEof)
}

/// Logs in, and opens channel 1 in confirm mode. If the connection ends meanwhile, that is an error and no failed test.
pub fn login(addr: SocketAddr, vhost: &str) -> io::Result<Raw> {
    let mut raw = Raw::login(addr, &Login::guest(vhost))?;
    let open = AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}));
    let select = AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false }));
    raw.write(&[method_frame(1, &open), method_frame(1, &select)].concat())?;
    for _ in 0..2 {
        let Some((1, Told::Method(_))) = raw.receive()? else { return Err(over()) };
    }
    Ok(raw)
}

/// Takes out the ids that an ack or a nack answers.
pub fn settled(under_way: &mut BTreeMap<u64, String>, tag: u64, multiple: bool) -> Vec<String> {
    let first = if multiple { 0 } else { tag };
    let tags: Vec<u64> = under_way.range(first..=tag).map(|(tag, _)| *tag).collect();
    assert!(!tags.is_empty(), "tag {tag} is answered twice, or was never given");
    tags.iter().filter_map(|tag| under_way.remove(tag)).collect()
}

/// Returns how often each id is in a queue. Empties it.
pub fn held(direct: &mut Raw, queue: &str) -> BTreeMap<String, usize> {
    let mut held = BTreeMap::new();
    for id in direct.drain(1, queue) {
        *held.entry(id).or_default() += 1;
    }
    held
}

/// Checks what became of the ids that a publisher has acks for: each is in the queue, and more than once only if its outcome was unknown
/// to its publisher, that often at most. Returns how many copies are too many.
pub fn doubled<'a>(
    held: &BTreeMap<String, usize>,
    acked: impl IntoIterator<Item = &'a String>,
    unknown: &BTreeMap<String, usize>,
) -> usize {
    let mut doubled = 0;
    for id in acked {
        let copies = held.get(id).copied().unwrap_or_default();
        let doubts = unknown.get(id).copied().unwrap_or_default();
        assert!(copies > 0, "{id} was acked and is lost");
        assert!(copies <= 1 + doubts, "{id} is there {copies} times, and was in doubt {doubts} times");
        doubled += copies - 1;
    }
    doubled
}

/// SplitMix64: small, and the same everywhere.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    /// Takes the seed from the environment, or a new one each time, and prints it.
    pub fn seeded(test: &str) -> Rng {
        let given = std::env::var("HAPAX_E2E_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            use std::hash::{BuildHasher, RandomState};
            RandomState::new().hash_one(test)
        });
        println!("{test}: HAPAX_E2E_SEED={seed}");
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
