//! Transcripts with numbers. There are two relays and one Redis, and each test says which verdicts the publishes of a producer get.

use super::base;
use super::examples::SYNC;
use super::redis::Redis;
use hapax_core::pressure::Accounting;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::logged::RelayId;
use hapax_core::window::{
    Claim, ForgetCause, Found, Inspect, Key, KeyMaker, LeasedWindow, Limits, Mailbox, Mode, Numbering, OnGap,
    ProducerKey, Refusal, Reservation, Rules, Ticket, Verdict, Wait, reserve_one,
};
use hapax_core::wire::IdSource;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TTL: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(10);
fn claim(epoch: u64, number: u64) -> Claim {
    Claim::Sequence { producer: ProducerKey::new(Key(7 << 40)), epoch, number }
}

struct Relay {
    window: Arc<LeasedWindow<Accounting>>,
    accounting: Arc<Accounting>,
    mailbox: Arc<Mailbox>,
    tickets: u64,
    now: Instant,
}

impl Relay {
    fn new(id: u64, on_gap: OnGap, now: Instant) -> Relay {
        let numbering = Numbering { on_gap, places: 64 };
        let rules = Rules { id: IdSource::Sequence, numbering, ..Rules::named("orders") };
        let limits = Limits {
            capacity: 100,
            ttl: TTL,
            mode: Mode::Enforce,
            refresh_on_duplicate: false,
            waiters_per_id: 2,
        };
        let (accounting, engine) = (Arc::new(Accounting::new()), EngineKind::default());
        let keys = KeyMaker::new((1, 2));
        let listener = Arc::clone(&accounting);
        let window = LeasedWindow::new(rules, limits, engine, listener, SYNC, keys, RelayId(id), LEASE, now);
        window.works(now);
        Relay { window, accounting, mailbox: Arc::default(), tickets: 0, now }
    }

    fn ask(&mut self, epoch: u64, number: u64, redis: &mut Redis) -> Verdict {
        self.tickets += 1;
        let claim = claim(epoch, number);
        match reserve_one(&self.window, claim, self.now, &self.mailbox, Ticket(self.tickets)) {
            Verdict::Pending(wait) => {
                redis.serve(&self.window, self.now);
                wait.answered();
                let mut letters = self.mailbox.take();
                assert_eq!(letters.len(), 1, "{letters:?}");
                letters.pop().unwrap().1
            }
            verdict => verdict,
        }
    }

    fn fresh(&mut self, epoch: u64, number: u64, redis: &mut Redis) -> Reservation {
        match self.ask(epoch, number, redis) {
            Verdict::Fresh(reservation) => reservation,
            other => panic!("{number} should be fresh and is {other:?}"),
        }
    }

    fn waits(&mut self, epoch: u64, number: u64, redis: &mut Redis) -> Wait {
        match self.ask(epoch, number, redis) {
            Verdict::InFlight(wait) => wait,
            other => panic!("{number} should wait and is {other:?}"),
        }
    }

    /// Publishes it to a broker that stores it; false if it is a duplicate.
    fn publish(&mut self, epoch: u64, number: u64, redis: &mut Redis) -> bool {
        match self.ask(epoch, number, redis) {
            Verdict::Fresh(reservation) => {
                drop(reservation.commit(self.now, TTL));
                redis.serve(&self.window, self.now);
                true
            }
            Verdict::Duplicate(_) => false,
            other => panic!("{number}: {other:?}"),
        }
    }

    fn refusal(&mut self, epoch: u64, number: u64, redis: &mut Redis) -> Refusal {
        match self.ask(epoch, number, redis) {
            Verdict::Refused(refusal) => refusal,
            other => panic!("{number} should be refused and is {other:?}"),
        }
    }
}

fn two(on_gap: OnGap) -> (Relay, Relay, Redis) {
    let now = base();
    (Relay::new(1, on_gap, now), Relay::new(2, on_gap, now), Redis::default())
}

#[test]
fn what_one_relay_has_stored_is_a_duplicate_at_the_other_at_once() {
    let (mut one, mut other, mut redis) = two(OnGap::Forward);
    for number in 1..=50 {
        assert!(one.publish(0, number, &mut redis));
        assert!(!other.publish(0, number, &mut redis) && !one.publish(0, number, &mut redis));
    }
    assert!(other.publish(0, 51, &mut redis) && !one.publish(0, 51, &mut redis));
    assert_eq!(redis.leases(one.now), 0);
    assert_eq!(
        (one.accounting.gaps(), other.accounting.gaps()),
        (0, 0),
        "the numbers between went elsewhere"
    );
}

#[test]
fn a_number_in_flight_elsewhere_is_waited_for() {
    let (mut one, mut other, mut redis) = two(OnGap::Forward);
    let reservation = one.fresh(0, 1, &mut redis);
    let wait = other.waits(0, 1, &mut redis);
    reservation.forget(ForgetCause::Nack);
    redis.serve(&one.window, one.now);
    other.now += Duration::from_secs(1);
    other.window.handle_timeout(other.now);
    redis.serve(&other.window, other.now);
    wait.answered();
    let Some((_, Verdict::Fresh(promoted))) = other.mailbox.take().pop() else { panic!("not promoted") };
    drop(promoted.commit(other.now, TTL));
    redis.serve(&other.window, other.now);
    assert!(!one.publish(0, 1, &mut redis));
}

#[test]
fn a_relay_that_dies_leaves_a_lease_that_ends() {
    let (mut one, mut other, mut redis) = two(OnGap::Forward);
    let lost = one.fresh(0, 1, &mut redis);
    std::mem::forget(lost);
    other.now += LEASE;
    assert!(other.publish(0, 1, &mut redis));
}

#[test]
fn an_epoch_that_begins_at_one_relay_shuts_the_old_one_out_at_the_other_at_once() {
    let (mut one, mut other, mut redis) = two(OnGap::Forward);
    assert!(one.publish(1, 1, &mut redis) && one.publish(1, 2, &mut redis));
    let late = one.fresh(1, 3, &mut redis);
    let begins = other.fresh(2, 1, &mut redis);
    assert_eq!(one.refusal(1, 4, &mut redis), Refusal::Stale);
    assert_eq!(one.accounting.stale(), 1);
    // A message in flight under the old epoch has its outcome, and changes nothing.
    drop(late.commit(one.now, TTL));
    redis.serve(&one.window, one.now);
    drop(begins.commit(other.now, TTL));
    redis.serve(&other.window, other.now);
    assert!(!one.publish(2, 1, &mut redis) && one.publish(2, 3, &mut redis));
    assert_eq!(one.refusal(1, 3, &mut redis), Refusal::Stale);
    assert_eq!(redis.leases(one.now), 0);
}

#[test]
fn with_reject_a_gap_is_one_that_no_relay_has_let_through() {
    let (mut one, mut other, mut redis) = two(OnGap::Reject);
    for number in 1..=9 {
        let relay = if number % 2 == 0 { &mut one } else { &mut other };
        assert!(relay.publish(0, number, &mut redis));
    }
    assert_eq!(one.refusal(0, 11, &mut redis), Refusal::Gap);
    assert!(one.publish(0, 10, &mut redis) && other.publish(0, 11, &mut redis));
}

/// It is counted once, and is no gap any more when the relays are switched on.
#[test]
fn a_gap_that_is_observed_is_let_through_in_redis_too() {
    let (mut one, mut other, mut redis) = two(OnGap::Reject);
    let mode = |relay: &Relay, mode| Inspect::set_mode(&*relay.window, mode);
    mode(&one, Mode::Observe);
    assert!([1, 5, 6].into_iter().all(|number| one.publish(0, number, &mut redis)));
    assert_eq!((one.accounting.refused_gaps(), one.accounting.gaps()), (1, 0));
    mode(&one, Mode::Enforce);
    assert!(one.publish(0, 7, &mut redis) && other.publish(0, 8, &mut redis));
    assert_eq!(other.refusal(0, 10, &mut redis), Refusal::Gap);
}

#[test]
fn a_forgotten_producer_is_forgotten_in_redis() {
    let (mut one, mut other, mut redis) = two(OnGap::Forward);
    assert!(one.publish(8, 1, &mut redis));
    let Claim::Sequence { producer, .. } = claim(0, 0) else { panic!() };
    assert_eq!(one.window.forget_producer(producer, one.now), Some(true));
    redis.serve(&one.window, one.now);
    assert!(other.publish(0, 1, &mut redis), "an epoch that was drawn too high is forgotten, too");
    Inspect::forget(&*other.window, claim(0, 1), other.now);
    redis.serve(&other.window, other.now);
    assert!(matches!(one.window.find(claim(0, 1), one.now), Some(Found::Unknown)));
    assert!(one.publish(0, 1, &mut redis));
}
