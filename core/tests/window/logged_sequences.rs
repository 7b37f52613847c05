//! A window of sequences with a log: what a crash, another relay and a pass of the log leave of its producers.

use super::sequences::{Rng, claim, key};
use super::shelf::{ASYNC, SYNC};
use super::{LIMITS, TTL, base};
use hapax_core::pressure::Accounting;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::logged::{Applied, Codec, LoggedWindow, RelayId};
use hapax_core::window::{
    Change, Committed, Found, Inspect, KeyMaker, Limits, Mailbox, Numbering, OnGap, ProducerFacts, Refusal,
    Reservation, Rules, Setting, StorePolicy, Ticket, Verdict, Wait, reserve_one,
};
use hapax_core::wire::IdSource;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const PLACES: u64 = 64;
/// A crash may forget what was seen within an eighth of the TTL and a second.
const EIGHTH: Duration = Duration::from_secs(9);

fn rules() -> Rules {
    let numbering = Numbering { on_gap: OnGap::Forward, places: 64 };
    Rules { id: IdSource::Sequence, numbering, ..Rules::named("sequences") }
}

fn codec(relay: u64) -> Codec {
    Codec::new(KeyMaker::new((1, 2)), &rules(), RelayId(relay))
}

/// A relay with such a window, and the log that it writes.
struct Relay {
    window: Arc<LoggedWindow<Accounting>>,
    mailbox: Arc<Mailbox>,
    policy: StorePolicy,
    capacity: usize,
    codec: Codec,
    log: Vec<Vec<u8>>,
    tickets: u64,
    begin: Instant,
    now: Instant,
}

impl Relay {
    fn new(relay: u64, policy: StorePolicy, capacity: usize) -> Relay {
        let begin = base();
        let window = Relay::window(policy, capacity, begin);
        let (mailbox, codec) = (Arc::default(), codec(relay));
        Relay { window, mailbox, policy, capacity, codec, log: Vec::new(), tickets: 0, begin, now: begin }
    }

    fn window(policy: StorePolicy, capacity: usize, now: Instant) -> Arc<LoggedWindow<Accounting>> {
        let (limits, engine) = (Limits { capacity, ..LIMITS }, EngineKind::default());
        let window = LoggedWindow::new(rules(), limits, engine, Arc::default(), "test", policy, now);
        window.recovered();
        window
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + (self.now - self.begin)
    }

    fn ask(&mut self, (producer, epoch, number): (u64, u64, u64)) -> Verdict {
        self.tickets += 1;
        reserve_one(
            &self.window,
            claim(producer, epoch, number),
            self.now,
            &self.mailbox,
            Ticket(self.tickets),
        )
    }

    fn fresh(&mut self, it: (u64, u64, u64)) -> Reservation {
        match self.ask(it) {
            Verdict::Fresh(reservation) => reservation,
            other => panic!("{it:?} should be fresh and is {other:?}"),
        }
    }

    fn waits(&mut self, it: (u64, u64, u64)) -> Wait {
        match self.ask(it) {
            Verdict::InFlight(wait) => wait,
            other => panic!("{it:?} should wait and is {other:?}"),
        }
    }

    /// Publishes it to a broker that stores it; false if it is a duplicate. Everything is written.
    fn publish(&mut self, it: (u64, u64, u64)) -> bool {
        match self.ask(it) {
            Verdict::Fresh(reservation) => {
                drop(reservation.commit(self.now, TTL));
                self.write();
                true
            }
            Verdict::Duplicate(_) => {
                self.write();
                false
            }
            other => panic!("{it:?}: {other:?}"),
        }
    }

    fn is_stale(&mut self, it: (u64, u64, u64)) -> bool {
        matches!(self.ask(it), Verdict::Refused(Refusal::Stale))
    }

    fn is_stored(&self, (producer, epoch, number): (u64, u64, u64)) -> bool {
        matches!(self.window.find(claim(producer, epoch, number), self.now), Some(Found::Seen(_)))
    }

    /// Writes what waits. Returns the batches.
    fn write(&mut self) -> Vec<Vec<u8>> {
        let mut written = Vec::new();
        while let Some((records, position)) = self.window.take(3) {
            written.push(self.codec.encode(&records, self.now, self.wall()));
            self.window.written(position, self.now);
        }
        self.log.extend(written.iter().cloned());
        written
    }

    /// Makes one batch of the log, as a pass does.
    fn pass(&mut self) {
        self.write();
        let (records, position) = self.window.images(self.now);
        assert!(self.window.is_written(position));
        self.log = match records.is_empty() {
            true => Vec::new(),
            false => vec![self.codec.encode(&records, self.now, self.wall())],
        };
    }

    fn crash(&mut self) {
        self.window = Relay::window(self.policy, self.capacity, self.now);
        self.mailbox = Arc::default();
        self.codec = codec(self.codec.relay().0 + 1);
        for bytes in &self.log {
            let batch = self.codec.decode(bytes).unwrap();
            self.window.recover(&batch, self.now, self.wall());
        }
    }

    /// Reads what another relay has written.
    fn merge(&self, batches: &[Vec<u8>]) -> Applied {
        let mut sum = Applied::default();
        for bytes in batches {
            let applied = self.window.merge(&self.codec.decode(bytes).unwrap(), self.now, self.wall());
            sum.seen += applied.seen;
            sum.crossed += applied.crossed;
            sum.changes.extend(applied.changes);
        }
        sum
    }

    /// Returns the facts about each producer, those seen last first. (The time at which it expires is not exact, so it is left out.)
    fn facts(&self) -> Vec<(String, u64, Option<u64>, u64)> {
        let fact =
            |facts: ProducerFacts| (format!("{:?}", facts.key), facts.epoch, facts.highest, facts.open);
        self.window.producers(100, "", self.now).into_iter().map(fact).collect()
    }
}

fn twice(test: impl Fn(Relay)) {
    [SYNC, ASYNC].into_iter().for_each(|policy| test(Relay::new(1, policy, 10)));
}

#[test]
fn a_crash_keeps_epoch_numbers_holes_and_order() {
    twice(|mut relay| {
        for number in (1..=200).filter(|number| number % 50 != 0) {
            assert!(relay.publish((1, 0, number)));
            relay.now += Duration::from_millis(2);
        }
        for producer in [2, 3] {
            assert!(relay.publish((producer, 7, 5)));
            relay.now += Duration::from_millis(2);
        }
        assert!(relay.publish((2, 7, 6)));
        let before = relay.facts();
        relay.crash();
        assert_eq!(relay.facts(), before);
        assert!(!relay.publish((1, 0, 1)) && !relay.publish((1, 0, 199)) && !relay.publish((3, 7, 5)));
        assert!(relay.publish((1, 0, 50)) && relay.publish((1, 0, 200)), "they were never stored");
        assert!(relay.is_stale((2, 6, 99)));
    });
}

#[test]
fn with_sync_nobody_hears_of_a_number_before_it_is_written() {
    let mut relay = Relay::new(1, SYNC, 10);
    let reservation = relay.fresh((1, 0, 1));
    assert!(matches!(reservation.commit(relay.now, TTL), Committed::Later(_)));
    let wait = relay.waits((1, 0, 1));
    assert!(!relay.is_stored((1, 0, 1)));
    relay.write();
    assert!(relay.is_stored((1, 0, 1)));
    assert!(matches!(relay.mailbox.take().pop(), Some((_, Verdict::Duplicate(_)))));
    wait.answered();
    // A number that was not written is unknown after a crash, and its client was not acked.
    let reservation = relay.fresh((1, 0, 2));
    drop(reservation.commit(relay.now, TTL));
    relay.crash();
    assert!(relay.publish((1, 0, 2)) && !relay.publish((1, 0, 1)));
}

#[test]
fn a_forgotten_number_or_producer_and_a_flush_are_in_the_log() {
    twice(|mut relay| {
        for number in 1..=5 {
            assert!(relay.publish((1, 3, number)) && relay.publish((2, 0, number)));
        }
        relay.window.forget(claim(1, 3, 2), relay.now);
        assert_eq!(relay.window.forget_producer(key(2), relay.now), Some(true));
        relay.write();
        relay.crash();
        assert!(!relay.is_stored((1, 3, 2)) && relay.is_stored((1, 3, 3)));
        assert_eq!(relay.facts().len(), 1);
        assert!(relay.publish((2, 0, 1)), "it begins anew");
        relay.crash();
        assert!(relay.is_stored((2, 0, 1)) && !relay.is_stored((2, 0, 2)));
        Inspect::flush(&*relay.window, relay.now);
        relay.write();
        relay.crash();
        assert_eq!(relay.facts(), []);
    });
}

/// The producer is forgotten while a number is stored and not written.
#[test]
fn what_was_stored_before_a_producer_was_forgotten_is_not_seen_after_that() {
    let mut relay = Relay::new(1, SYNC, 10);
    assert!(relay.publish((1, 9, 1)));
    let reservation = relay.fresh((1, 9, 2));
    drop(reservation.commit(relay.now, TTL));
    assert_eq!(relay.window.forget_producer(key(1), relay.now), Some(true));
    relay.write();
    assert!(!relay.is_stored((1, 9, 2)) && !relay.is_stored((1, 9, 1)));
    relay.crash();
    assert_eq!(relay.facts(), []);
    assert!(relay.publish((1, 0, 1)), "its epoch is forgotten, too");
}

#[test]
fn a_producer_whose_duplicates_keep_it_young_is_kept_by_the_log_too() {
    twice(|mut relay| {
        assert!(relay.publish((1, 0, 1)));
        let records = relay.log.len();
        for _ in 0..100 {
            relay.now += TTL / 20;
            assert!(!relay.publish((1, 0, 1)));
        }
        let told = relay.log.len() - records;
        assert!((20..=40).contains(&told), "{told} records for five TTLs");
        relay.now += TTL - EIGHTH;
        relay.crash();
        assert!(!relay.publish((1, 0, 1)));
        relay.now += TTL;
        relay.crash();
        assert!(relay.publish((1, 0, 1)));
    });
}

/// An id is remembered for its own TTL. A producer that lives on remembers all its numbers, so its log has to say them, too.
#[test]
fn old_numbers_of_a_producer_that_lives_on_are_known_after_a_crash() {
    twice(|mut relay| {
        for number in 1..=9 {
            assert!(relay.publish((1, 0, number)) && relay.publish((2, 0, number)));
            relay.now += TTL / 2;
        }
        relay.now += TTL / 4;
        assert!(relay.publish((1, 0, 10)));
        relay.now += TTL / 2;
        for pass in [false, true] {
            if pass {
                relay.pass();
            }
            relay.crash();
            relay.window.sweep(relay.now);
            assert_eq!(relay.facts().len(), 1, "the other one is expired");
            assert!((1..=10).all(|number| relay.is_stored((1, 0, number))));
            assert!(!relay.is_stored((1, 0, 0)) && !relay.is_stored((1, 0, 11)));
        }
    });
}

#[test]
fn what_another_relay_stores_is_a_duplicate_here_after_the_lag() {
    twice(|mut here| {
        let mut there = Relay { codec: codec(50), ..Relay::new(50, here.policy, 10) };
        (there.begin, there.now) = (here.begin, here.now);
        for number in 1..=100 {
            assert!(there.publish((1, 0, number)));
        }
        let log = std::mem::take(&mut there.log);
        assert_eq!(here.merge(&log).seen, 100);
        assert!((1..=100).all(|number| !here.publish((1, 0, number))));
        assert!(here.publish((1, 0, 101)), "it goes on here");
        // It has gone on there, too, before the record came.
        assert!(there.publish((1, 0, 101)));
        let (mine, theirs) = (here.log.clone(), std::mem::take(&mut there.log));
        assert_eq!(here.merge(&theirs).crossed, 1);
        assert_eq!(there.merge(&mine).crossed, 1);
        assert_eq!(here.window.store(here.now).unwrap().crossed, 1);
    });
}

#[test]
fn a_number_in_flight_here_that_another_relay_stores_is_seen_and_who_waits_hears_it() {
    let mut here = Relay::new(1, SYNC, 10);
    let mut there = Relay::new(50, SYNC, 10);
    (there.begin, there.now) = (here.begin, here.now);
    let reservation = here.fresh((1, 0, 1));
    let wait = here.waits((1, 0, 1));
    assert!(there.publish((1, 0, 1)));
    let applied = here.merge(&there.log);
    assert_eq!((applied.seen, applied.crossed), (1, 1));
    reservation.forget(hapax_core::window::ForgetCause::Nack);
    assert!(matches!(here.mailbox.take().pop(), Some((_, Verdict::Duplicate(_)))));
    wait.answered();
}

#[test]
fn an_epoch_that_has_begun_elsewhere_makes_the_old_one_a_zombie_here() {
    let mut here = Relay::new(1, SYNC, 10);
    let mut there = Relay::new(50, SYNC, 10);
    (there.begin, there.now) = (here.begin, here.now);
    assert!(here.publish((1, 4, 1)));
    let in_flight = here.fresh((1, 4, 2));
    there.merge(&here.log);
    let begins = there.fresh((1, 5, 1));
    assert!(here.publish((1, 4, 3)), "nobody has told yet");
    // The record is made when the epoch begins. Nothing of it is stored yet.
    there.write();
    here.merge(&there.log[..]);
    assert!(here.is_stale((1, 4, 4)));
    drop(begins.commit(there.now, TTL));
    there.write();
    here.merge(&there.log[1..]);
    assert!(here.is_stale((1, 4, 4)) && !here.publish((1, 5, 1)) && here.publish((1, 5, 2)));
    // Its outcome changes nothing of the new epoch, also after a crash.
    drop(in_flight.commit(here.now, TTL));
    here.write();
    let merged = std::mem::take(&mut there.log);
    here.log.extend(merged);
    here.crash();
    assert!(here.is_stale((1, 4, 2)) && here.is_stored((1, 5, 2)) && here.is_stored((1, 5, 1)));
    // And the other way round: a record of the old epoch that comes late.
    there.merge(&here.log);
    assert!(there.is_stale((1, 4, 9)) && there.is_stored((1, 5, 2)));
}

#[test]
fn a_producer_that_is_forgotten_elsewhere_keeps_what_is_still_to_be_written_here() {
    let mut here = Relay::new(1, ASYNC, 10);
    let mut there = Relay::new(50, ASYNC, 10);
    (there.begin, there.now) = (here.begin, here.now);
    for number in 1..=3 {
        assert!(here.publish((1, 8, number)));
    }
    there.merge(&here.log);
    let reservation = here.fresh((1, 8, 4));
    drop(reservation.commit(here.now, TTL));
    assert_eq!(there.window.forget_producer(key(1), there.now), Some(true));
    there.window.announce(Change { setting: Setting::Forgotten, by: "somebody".into() }, there.now);
    there.write();
    assert_eq!(here.merge(&there.log).changes.len(), 1);
    assert!(here.is_stored((1, 8, 4)) && !here.is_stored((1, 8, 3)));
    let mut log = std::mem::take(&mut there.log);
    log.extend(here.write());
    here.log.append(&mut log);
    here.crash();
    assert!(here.is_stored((1, 8, 4)) && !here.is_stored((1, 8, 3)), "a crash knows the same");
}

/// Lists of publishes, nacks, forgotten numbers and producers, passes of the log and crashes. No number counts as stored that was not;
/// nothing is forgotten that was written; and a crash changes nothing of what is known, nor of the order.
fn run(seed: u64, policy: StorePolicy) {
    let mut relay = Relay::new(1, policy, 6);
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut stored: BTreeSet<(u64, u64, u64)> = BTreeSet::new();
    let mut epochs = [0_u64; 4];
    let mut next = [1_u64; 4];
    for step in 0..400 {
        let producer = rng.below(4);
        let at = usize::try_from(producer).unwrap();
        relay.now += Duration::from_millis(1 + rng.below(40));
        match rng.below(40) {
            0 => {
                relay.window.forget_producer(key(producer), relay.now);
                relay.write();
                stored.retain(|(other, ..)| *other != producer);
                (epochs[at], next[at]) = (0, 1);
            }
            1 => (epochs[at], next[at]) = (epochs[at] + 1, 1),
            2 => {
                let number = next[at].saturating_sub(rng.below(10));
                relay.window.forget(claim(producer, epochs[at], number), relay.now);
                relay.write();
                stored.remove(&(producer, epochs[at], number));
            }
            3 => relay.pass(),
            4 => {
                relay.write();
                // (A duplicate or a nack has made some of them young, which is not in the log.)
                let by_key = |relay: &Relay| relay.facts().into_iter().collect::<BTreeSet<_>>();
                let before = by_key(&relay);
                relay.crash();
                assert_eq!(by_key(&relay), before, "seed {seed}, step {step}");
            }
            _ => {
                let number = match rng.below(6) {
                    0 => next[at] + rng.below(4),
                    1 => next[at].saturating_sub(rng.below(PLACES)),
                    _ => next[at],
                };
                let it = (producer, epochs[at], number);
                match relay.ask(it) {
                    Verdict::Fresh(reservation) if rng.below(12) == 0 => drop(reservation),
                    Verdict::Fresh(reservation) => {
                        let is_low = number + PLACES < next[at];
                        assert!(
                            !stored.contains(&it) || is_low,
                            "seed {seed}, step {step}: {it:?} passes twice"
                        );
                        drop(reservation.commit(relay.now, TTL));
                        relay.write();
                        stored.insert(it);
                        stored.retain(|(other, epoch, _)| *other != producer || *epoch == it.1);
                        next[at] = next[at].max(number + 1);
                    }
                    Verdict::Duplicate(_) => {
                        assert!(stored.contains(&it), "seed {seed}, step {step}: {it:?} was never stored");
                    }
                    other => panic!("seed {seed}, step {step}: {it:?}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_crash_at_any_time_changes_nothing_of_what_was_written() {
    for seed in 1..=150 {
        run(seed, SYNC);
        run(seed, ASYNC);
    }
}

/// The least recently seen producer makes room, before a crash and after it.
#[test]
fn the_order_of_eviction_is_the_same_after_a_crash() {
    for pass in [false, true] {
        let mut relay = Relay::new(1, SYNC, 10);
        for producer in [3, 1, 4, 5, 9, 2, 6, 3, 1] {
            relay.now += Duration::from_millis(3);
            relay.publish((producer, 0, relay.tickets));
        }
        if pass {
            relay.pass();
        }
        relay.capacity = 3;
        // (Without a pass, the log has each number of a producer that was pushed out in between.)
        let order = |relay: &Relay| -> Vec<_> {
            relay.facts().into_iter().take(3).map(|(key, _, highest, _)| (key, highest)).collect()
        };
        let before = order(&relay);
        relay.crash();
        assert_eq!(order(&relay), before, "pass: {pass}");
    }
}

#[test]
fn a_capacity_from_elsewhere_has_the_bound_of_bytes() {
    let relay = Relay::new(1, SYNC, 10);
    let mut there = Relay::new(50, SYNC, 10);
    let change = Change { setting: Setting::Capacity(usize::MAX), by: "somebody".into() };
    there.window.announce(change, there.now);
    let log = there.write();
    relay.merge(&log);
    assert_eq!(relay.window.capacity(), Some(rules().most_capacity()));
    assert!(rules().numbering.bytes_at(rules().most_capacity()) <= Numbering::MOST_BYTES);
}
