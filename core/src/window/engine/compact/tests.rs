//! Tests that look inside: `compact` against `lru`, which has the same shards and the same order; its bytes, and how long it
//! holds a lock.

use super::super::{EngineKind, Store};
use super::*;
use proptest::prelude::*;
use std::collections::HashSet;
use std::time::Duration;

const MILLI: u64 = 1_000_000;
const MINUTE: u64 = 60_000 * MILLI;

#[derive(Clone, Debug)]
enum Op {
    /// As a window does it: a key that is seen is a duplicate, and one that is not becomes seen.
    Publish {
        key: u128,
        ttl: u64,
    },
    Remove(u128),
    Advance(u64),
    Sweep,
    Resize(usize),
    /// The last: here the order is not that of `lru`.
    Clear,
}

/// Some body, another one for each number.
fn body(number: u64) -> BodyDigest {
    BodyDigest::of(&number.to_le_bytes())
}

fn op() -> impl Strategy<Value = Op> {
    let ttl =
        prop::sample::select(vec![MILLI, 20 * MILLI, MINUTE, MINUTE, 40 * MINUTE, 60 * 24 * 60 * MINUTE]);
    let by = prop::sample::select(vec![MILLI, 7 * MILLI, MINUTE / 2, MINUTE]);
    prop_oneof![
        40 => (0..300_u128, ttl).prop_map(|(key, ttl)| Op::Publish { key, ttl }),
        3 => (0..300_u128).prop_map(Op::Remove),
        3 => by.prop_map(Op::Advance),
        1 => Just(Op::Sweep),
        1 => (1..200_usize).prop_map(Op::Resize),
    ]
}

/// An engine, and all that it says.
struct Told {
    engine: Store,
    now: Stamp,
    refresh: bool,
}

impl Told {
    fn new(kind: EngineKind, capacity: usize, refresh: bool) -> Told {
        Told { engine: kind.build(capacity, false), now: Stamp(0), refresh }
    }

    fn act(&mut self, op: &Op) -> (Option<Entry>, Vec<(Key, Entry, EvictionCause)>) {
        let mut told = Vec::new();
        let mut gone = |key, entry, cause| told.push((key, entry, cause));
        let mut found = None;
        match *op {
            Op::Publish { key, ttl } => {
                let (key, at) = (Key(key), self.now);
                if self.engine.touch(key, at, self.refresh, &mut gone).is_none() {
                    let until = at.after(Duration::from_nanos(ttl));
                    let entry = Entry { at, until, duplicates: 0, body: body(ttl) };
                    self.engine.insert(key, entry, Tenant::COMMON, at, &mut gone);
                }
                found = self.engine.peek(key);
            }
            Op::Remove(key) => found = self.engine.remove(Key(key)),
            Op::Advance(by) => self.now = Stamp(self.now.0 + by),
            Op::Sweep => self.engine.sweep(self.now, &mut gone),
            Op::Resize(capacity) => self.engine.resize(capacity, &mut gone),
            Op::Clear => self.engine.clear(&mut gone),
        }
        (found, told)
    }
}

/// The same answers, and the same entries leave in the same order for the same cause.
fn assert_as_lru(ops: impl IntoIterator<Item = Op>, capacity: usize, refresh: bool) {
    let mut lru = Told::new(EngineKind::Lru, capacity, refresh);
    let mut compact = Told::new(EngineKind::Compact, capacity, refresh);
    for (step, op) in ops.into_iter().enumerate() {
        assert_eq!(compact.act(&op), lru.act(&op), "step {step}: {op:?}");
        if step % 64 == 0 {
            let sizes = |told: &Told| (told.engine.len(), told.engine.capacity());
            assert_eq!(sizes(&compact), sizes(&lru), "step {step}");
        }
    }
    let left =
        |told: &mut Told| told.act(&Op::Clear).1.into_iter().map(|gone| gone.0).collect::<HashSet<_>>();
    assert_eq!(left(&mut compact), left(&mut lru));
}

proptest! {
    #[test]
    fn a_small_window_is_as_lru(
        ops in prop::collection::vec(op(), 1..1500),
        capacity in 1..200_usize,
        refresh: bool,
    ) {
        assert_as_lru(ops, capacity, refresh);
    }
}

/// Four shards, then as many with less and with more, long after all have filled.
#[test]
fn a_large_window_is_as_lru() {
    let mut seed = 1_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        seed >> 33
    };
    let mut ops = Vec::new();
    for capacity in [20_000, 17_000, 30_000, 20_000] {
        ops.push(Op::Resize(capacity));
        for _ in 0..60_000 {
            ops.push(match random() % 64 {
                0 => Op::Advance(random() % 20 * MILLI),
                1 => Op::Remove(u128::from(random() % 60_000)),
                n => Op::Publish {
                    key: u128::from(random() % 60_000),
                    ttl: if n < 8 { 900 * MILLI } else { MINUTE },
                },
            });
        }
        ops.push(Op::Sweep);
    }
    assert_as_lru(ops, 20_000, false);
}

fn entry(at: u64) -> Entry {
    Entry { at: Stamp(at * MILLI), until: Stamp(at * MILLI + MINUTE), duplicates: 0, body: body(at) }
}

fn filled(capacity: usize, ids: u64) -> Compact {
    let compact = Compact::new(capacity, false);
    for n in 0..ids {
        compact.insert(Key(n.into()), entry(n), Tenant::COMMON, Stamp(0), &mut |_, _, _| {});
    }
    compact
}

fn holds(compact: &Compact, n: u64) -> bool {
    compact.peek(Key(n.into())).is_some()
}

/// An operation moves one segment of the index at most, and the lines are as full as they should be.
#[test]
fn it_grows_in_small_pieces_and_churns_without_growing() {
    let compact = filled(200_000, 200_000);
    let full = compact.bytes();
    assert!(full / compact.len() <= 45, "{full}");
    let largest = compact.shards.iter().map(|shard| shard.lock().largest_segment()).max();
    assert!(largest < Some(200_000 / MAX_SHARDS / SEGMENTS * 2), "{largest:?}");
    for n in 200_000..800_000 {
        compact.insert(Key(n), entry(200), Tenant::COMMON, Stamp(0), &mut |_, _, cause| {
            assert_eq!(cause, EvictionCause::Capacity);
        });
    }
    assert!(compact.bytes() < full + full / 20, "{full} has become {}", compact.bytes());
}

#[test]
fn what_a_resize_takes_away_is_given_back_and_what_stays_is_found() {
    let compact = filled(200_000, 250_000);
    let before = compact.bytes();
    let mut gone = Vec::new();
    compact.resize(100_000, &mut |key, _, _| gone.push(key));
    assert_eq!((compact.len(), compact.capacity()), (100_000, 100_000));
    assert!(compact.bytes() < before * 6 / 10, "{before} has become {}", compact.bytes());
    assert!((160_000..250_000).all(|n| holds(&compact, n)));
    assert!(gone.iter().all(|key| compact.peek(*key).is_none()));
    // Below the line to fewer shards, to one, and back.
    for capacity in [20_000, 100, 1_000_000] {
        compact.resize(capacity, &mut |_, _, cause| assert_eq!(cause, EvictionCause::Resize));
        assert_eq!(compact.capacity(), capacity);
        assert!((249_901..250_000).all(|n| holds(&compact, n)));
    }
    assert_eq!(compact.len(), 100);
    compact.clear(&mut |_, _, _| {});
    assert!(compact.is_empty() && compact.bytes() < 200_000, "{}", compact.bytes());
}

#[test]
fn what_expires_while_nobody_publishes_is_given_back() {
    let compact = filled(200_000, 200_000);
    let before = compact.bytes();
    let mut calls = 0;
    while !compact.is_empty() {
        compact.sweep(Stamp(10 * MINUTE), &mut |_, _, cause| assert_eq!(cause, EvictionCause::Expired));
        calls += 1;
        assert!(calls < 100, "{} are left", compact.len());
    }
    (0..20).for_each(|_| compact.sweep(Stamp(10 * MINUTE), &mut |_, _, _| {}));
    assert!(compact.bytes() < before / 5, "{before} has become {}", compact.bytes());
}

/// A hint about keys that are there, that are not, and that somebody else has locked.
#[test]
fn a_hint_changes_nothing_and_waits_for_nobody() {
    let compact = filled(200_000, 250_000);
    let order = |compact: &Compact| {
        let of = |shard: &CacheAligned<Mutex<Shard>>| {
            shard.lock().iter().map(|(_, slot)| slot.key()).collect::<Vec<_>>()
        };
        compact.shards.iter().map(of).collect::<Vec<_>>()
    };
    let (before, keys) = (order(&compact), [0, 249_999, 1 << 40].map(Key));
    for insert in [false, true] {
        compact.warm(&keys, insert);
        compact.warm(&[], insert);
        Compact::new(1, false).warm(&keys, insert);
        let _locked = compact.lock(keys[0]);
        compact.warm(&keys, insert);
    }
    assert!(before == order(&compact) && compact.len() <= 200_000);
}

/// Two publishers and a resizer that changes the number of shards under them: every key left once, or is still there.
#[test]
fn no_key_is_lost_or_doubled_while_the_shards_change() {
    let compact = Compact::new(100_000, false);
    let publish = |from: u128| {
        let mut gone = Vec::new();
        for n in 0..60_000_u128 {
            let entry = entry(u64::try_from(n / 100).unwrap());
            compact.insert(Key(from + n), entry, Tenant::COMMON, Stamp(0), &mut |key, _, _| gone.push(key));
        }
        gone
    };
    let resize = || {
        let mut gone = Vec::new();
        for capacity in [3_000, 70_000, 20_000, 90_000, 1_000, 40_000].repeat(3) {
            compact.resize(capacity, &mut |key, _, _| gone.push(key));
            std::thread::yield_now();
        }
        gone
    };
    let gone: Vec<Key> = std::thread::scope(|scope| {
        let threads = [scope.spawn(|| publish(0)), scope.spawn(|| publish(1 << 64)), scope.spawn(resize)];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut left = Vec::new();
    assert!(compact.len() <= 40_000);
    compact.clear(&mut |key, _, _| left.push(key));
    let all: HashSet<Key> = gone.iter().chain(&left).copied().collect();
    assert_eq!((all.len(), gone.len() + left.len()), (120_000, 120_000));
}

/// After a window was made smaller, its store takes what one of the new size takes.
#[test]
fn a_smaller_store_gives_its_memory_back() {
    for (from, to) in [(1_000_000, 700_000), (200_000, 20_000), (300_000, 4_000), (8_000, 5_000)] {
        let engine = Compact::new(from, false);
        for n in 0..from as u128 {
            let key = Key(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) & Key::MASK);
            let entry =
                Entry { at: Stamp(0), until: Stamp(MINUTE), duplicates: 0, body: BodyDigest::UNKNOWN };
            engine.insert(key, entry, Tenant::COMMON, Stamp(0), &mut |_, _, _| {});
        }
        engine.resize(to, &mut |_, _, _| {});
        let (bytes, stated) = (engine.bytes(), bytes_at(to));
        assert!(bytes <= stated, "{from} to {to}: {bytes} bytes of {stated}");
    }
}
