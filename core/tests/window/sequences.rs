//! A window of sequences: what it says of numbers, against a model that keeps every number of every producer for ever.

use super::{LIMITS, TTL, base};
use hapax_core::pressure::Accounting;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    Claim, EvictionCause, ForgetCause, Found, InDoubt, Inspect, Key, Limits, LocalWindow, Mailbox, Numbering,
    OnGap, ProducerKey, Refusal, Reservation, Reservations, Rules, TakeOver, Ticket, Verdict, Wait, Window,
    reserve_one,
};
use hapax_core::wire::IdSource;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PLACES: u64 = 64;

fn rules(on_gap: OnGap) -> Rules {
    Rules { id: IdSource::Sequence, numbering: Numbering { on_gap, places: 64 }, ..Rules::named("sequences") }
}

fn window(capacity: usize, on_gap: OnGap) -> (Arc<LocalWindow>, Arc<Accounting>) {
    let accounting = Arc::new(Accounting::new());
    let limits = Limits { capacity, ..LIMITS };
    (LocalWindow::new(rules(on_gap), limits, EngineKind::default(), accounting.clone()), accounting)
}

pub(crate) fn claim(producer: u64, epoch: u64, number: u64) -> Claim {
    // As digests are: two producers have nothing in common.
    let digest = u128::from(producer + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060);
    Claim::Sequence { producer: ProducerKey::new(Key(digest & Key::MASK)), epoch, number }
}

pub(crate) fn key(producer: u64) -> ProducerKey {
    match claim(producer, 0, 0) {
        Claim::Sequence { producer, .. } => producer,
        Claim::Digest(_) => panic!("a digest"),
    }
}

/// The same of a producer whose digest is as random as a real one, so that shards are not filled evenly.
fn random(producer: u64, number: u64) -> Claim {
    let mix = |seed: u64| {
        let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let halves = [1_u64, 2].map(|half| mix((2 * producer + half).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let digest = (u128::from(halves[0]) << 64 | u128::from(halves[1])) & Key::MASK;
    Claim::Sequence { producer: ProducerKey::new(Key(digest)), epoch: 0, number }
}

/// One asker.
struct Desk {
    window: Arc<LocalWindow>,
    mailbox: Arc<Mailbox>,
    now: Instant,
    tickets: u64,
}

impl Desk {
    fn new(window: &Arc<LocalWindow>) -> Desk {
        Desk { window: window.clone(), mailbox: Arc::default(), now: base(), tickets: 0 }
    }

    fn ask(&mut self, claim: Claim) -> Verdict {
        self.tickets += 1;
        reserve_one(&self.window, claim, self.now, &self.mailbox, Ticket(self.tickets))
    }

    fn fresh(&mut self, producer: u64, epoch: u64, number: u64) -> Reservation {
        match self.ask(claim(producer, epoch, number)) {
            Verdict::Fresh(reservation) => reservation,
            other => panic!("{producer}/{epoch}/{number} should be fresh and is {other:?}"),
        }
    }

    /// Publishes it to a broker that stores it; false if it is a duplicate.
    fn publish(&mut self, producer: u64, epoch: u64, number: u64) -> bool {
        match self.ask(claim(producer, epoch, number)) {
            Verdict::Fresh(reservation) => {
                reservation.commit(self.now, TTL);
                true
            }
            Verdict::Duplicate(_) => false,
            other => panic!("{producer}/{epoch}/{number}: {other:?}"),
        }
    }

    fn refusal(&mut self, producer: u64, epoch: u64, number: u64) -> Refusal {
        match self.ask(claim(producer, epoch, number)) {
            Verdict::Refused(refusal) => refusal,
            other => panic!("{producer}/{epoch}/{number} should be refused and is {other:?}"),
        }
    }

    fn waits(&mut self, producer: u64, epoch: u64, number: u64) -> Wait {
        match self.ask(claim(producer, epoch, number)) {
            Verdict::InFlight(wait) => wait,
            other => panic!("{producer}/{epoch}/{number} should wait and is {other:?}"),
        }
    }

    fn letter(&self) -> Option<Verdict> {
        self.mailbox.take().pop().map(|(_, verdict)| verdict)
    }
}

#[test]
fn a_nack_leaves_a_hole_that_can_be_filled_even_when_it_has_left_the_places() {
    let (window, accounting) = window(4, OnGap::Forward);
    let mut desk = Desk::new(&window);
    let holes = [desk.fresh(1, 0, 5), desk.fresh(1, 0, 6)];
    assert!((7..10).all(|number| desk.publish(1, 0, number)));
    holes.into_iter().for_each(|hole| hole.forget(ForgetCause::Nack));
    assert!(desk.publish(1, 0, 6) && !desk.publish(1, 0, 6) && !desk.publish(1, 0, 8));
    assert!((10..10 + 3 * PLACES).all(|number| desk.publish(1, 0, number)));
    assert!(!desk.publish(1, 0, 6), "below the places: a duplicate");
    assert_eq!(accounting.below(), 0);
    assert!(desk.publish(1, 0, 5) && accounting.below() == 1, "the hole is known");
    assert!(!desk.publish(1, 0, 5));
}

/// What is in flight when the places move on is not lost: its outcome comes later.
#[test]
fn a_number_in_flight_keeps_its_outcome_when_the_places_move_on() {
    for stored in [true, false] {
        let (window, _) = window(4, OnGap::Forward);
        let mut desk = Desk::new(&window);
        assert!(desk.publish(1, 0, 1));
        let slow = desk.fresh(1, 0, 2);
        assert!((3..3 + 4 * PLACES).all(|number| desk.publish(1, 0, number)));
        let wait = desk.waits(1, 0, 2);
        match stored {
            true => drop(slow.commit(desk.now, TTL)),
            false => slow.forget(ForgetCause::Nack),
        }
        match desk.letter() {
            Some(Verdict::Duplicate(_)) if stored => {}
            Some(Verdict::Fresh(next)) if !stored => drop(next.commit(desk.now, TTL)),
            other => panic!("{stored}: {other:?}"),
        }
        wait.answered();
        assert!(!desk.publish(1, 0, 2));
    }
}

#[test]
fn a_jump_and_back_loses_nothing() {
    let (window, accounting) = window(4, OnGap::Forward);
    let mut desk = Desk::new(&window);
    assert!((1..=10).all(|number| desk.publish(1, 0, number)));
    assert!(desk.publish(1, 0, i64::MAX as u64), "a timestamp, say");
    assert_eq!(accounting.gaps(), 1);
    assert!((11..=200).all(|number| desk.publish(1, 0, number)), "the real ones");
    assert!((1..=200).all(|number| !desk.publish(1, 0, number)), "each of them is known");
}

#[test]
fn a_lower_epoch_is_a_zombie_and_a_higher_one_begins_anew() {
    let (window, accounting) = window(4, OnGap::Forward);
    let mut desk = Desk::new(&window);
    assert!((1..=5).all(|number| desk.publish(1, 1, number)));
    let late = desk.fresh(1, 1, 6);
    assert!(desk.publish(1, 2, 1), "the same number of another epoch is another message");
    assert_eq!(desk.refusal(1, 1, 6), Refusal::Stale, "in flight or not");
    assert_eq!(desk.refusal(1, 1, 5), Refusal::Stale, "stored or not");
    drop(late.commit(desk.now, TTL));
    assert!(desk.publish(1, 2, 6), "the late ack is one of the other epoch");
    assert!(!desk.publish(1, 2, 6) && !desk.publish(1, 2, 1));
    assert_eq!((accounting.stale(), window.in_flight()), (2, 0));
}

/// Two connections of one producer, and a third that takes its place.
#[test]
fn who_waits_under_an_old_epoch_is_not_promoted_after_a_new_one_has_begun() {
    let (window, _) = window(4, OnGap::Forward);
    let mut desk = Desk::new(&window);
    let first = desk.fresh(1, 1, 1);
    let waits = [desk.waits(1, 1, 1), desk.waits(1, 1, 1)];
    let began = desk.fresh(1, 2, 1);
    let now = desk.now + Duration::from_secs(60);
    assert!(matches!(waits[0].take_over(desk.now, now), TakeOver::Wait { .. }));
    first.forget(ForgetCause::Nack);
    let letters = desk.mailbox.take();
    let refused = |(_, verdict): &(Ticket, Verdict)| matches!(verdict, Verdict::Refused(Refusal::Stale));
    assert!(letters.len() == 2 && letters.iter().all(refused), "{letters:?}");
    waits.into_iter().for_each(Wait::answered);
    drop(began.commit(desk.now, TTL));
    assert!(!desk.publish(1, 2, 1));
}

#[test]
fn who_waits_under_an_old_epoch_hears_that_it_was_stored() {
    let (window, _) = window(4, OnGap::Forward);
    let mut desk = Desk::new(&window);
    let first = desk.fresh(1, 1, 1);
    let wait = desk.waits(1, 1, 1);
    let began = desk.fresh(1, 2, 1);
    drop(first.commit(desk.now, TTL));
    assert!(matches!(desk.letter(), Some(Verdict::Duplicate(_))));
    wait.answered();
    assert!(window.find(claim(1, 2, 1), desk.now) == Some(hapax_core::window::Found::InFlight));
    began.forget(ForgetCause::Nack);
    assert!(desk.publish(1, 2, 1));
}

#[test]
fn with_reject_a_number_waits_for_those_before_it() {
    let (window, accounting) = window(4, OnGap::Reject);
    let mut desk = Desk::new(&window);
    assert!(desk.publish(1, 0, 17), "where a producer begins is its own matter");
    let pipelined: Vec<Reservation> = (18..=20).map(|number| desk.fresh(1, 0, number)).collect();
    assert_eq!(desk.refusal(1, 0, 22), Refusal::Gap);
    pipelined.into_iter().for_each(|reservation| reservation.forget(ForgetCause::Nack));
    assert!(desk.publish(1, 0, 21), "holes are no gap: those numbers were let through");
    assert!([20, 18, 19, 22].into_iter().all(|number| desk.publish(1, 0, number)));
    assert!(desk.publish(1, 3, 500), "a new epoch begins where it likes");
    assert_eq!(desk.refusal(1, 3, 502), Refusal::Gap);
    assert_eq!((accounting.refused_gaps(), accounting.gaps()), (2, 0));
}

#[test]
fn a_producer_is_evicted_when_it_is_the_least_recently_seen_and_nothing_of_it_is_in_flight() {
    let (window, accounting) = window(3, OnGap::Forward);
    let mut desk = Desk::new(&window);
    let in_flight = desk.fresh(1, 0, 1);
    assert!((2..=3).all(|producer| desk.publish(producer, 0, 1)));
    assert!(!desk.publish(2, 0, 1), "a duplicate makes it young");
    assert!(desk.publish(4, 0, 1));
    let known = |desk: &Desk| {
        (1..=6).filter(|n| desk.window.producer(key(*n), desk.now).is_some()).collect::<Vec<_>>()
    };
    assert_eq!(known(&desk), [1, 2, 4]);
    let more = [desk.fresh(2, 0, 2), desk.fresh(4, 0, 2), desk.fresh(5, 0, 1), desk.fresh(6, 0, 1)];
    assert_eq!(window.len(), 5, "what is in flight stays, whatever the capacity");
    drop(more.map(|reservation| reservation.commit(desk.now, TTL)));
    drop(in_flight.commit(desk.now, TTL));
    assert!(desk.publish(7, 0, 1) && window.len() == 3);
    assert_eq!(accounting.evicted_total(), 1 + 3);
}

/// Large windows are divided into shards. A shard that gets more than its part takes the room that others leave.
#[test]
fn a_window_with_room_for_all_its_producers_evicts_none() {
    for capacity in [5_000_u64, 10_000] {
        let (window, accounting) = window(usize::try_from(capacity).unwrap(), OnGap::Forward);
        let mut desk = Desk::new(&window);
        let mut publish = |producer, number| match desk.ask(random(producer, number)) {
            Verdict::Fresh(reservation) => {
                reservation.commit(desk.now, TTL);
                true
            }
            Verdict::Duplicate(_) => false,
            other => panic!("{other:?}"),
        };
        for number in 1..=3 {
            for producer in 0..capacity {
                assert!(publish(producer, number));
            }
            let known = (0..capacity).filter(|producer| !publish(*producer, number)).count();
            assert_eq!(known as u64, capacity, "duplicates of number {number}");
        }
        assert_eq!(window.entries(), usize::try_from(capacity).ok());
        assert_eq!(accounting.evicted(EvictionCause::Capacity), 0);
        // One more takes the place of one that was not seen for long.
        assert!((capacity..capacity + 100).all(|producer| publish(producer, 1)));
        assert_eq!(window.entries(), usize::try_from(capacity).ok());
        let known = (0..capacity)
            .filter(|producer| {
                desk.window
                    .find(random(*producer, 3), desk.now)
                    .is_some_and(|found| matches!(found, Found::Seen(_)))
            })
            .count();
        assert_eq!(known as u64, capacity - 100);
        // Smaller, it has as many as it is told.
        window.resize(1_000, desk.now);
        assert_eq!(window.entries(), Some(1_000));
    }
}

/// More producers than there is room for are in flight at once, as before a broker that stands still: there is no bound for these but that of
/// what is in flight. When it is over, they go, and not those that were seen after them.
#[test]
fn a_crowd_in_flight_leaves_those_who_come_after_it_alone() {
    const CAPACITY: u64 = 4_800;
    let capacity = usize::try_from(CAPACITY).unwrap();
    let (window, accounting) = window(capacity, OnGap::Forward);
    let mut desk = Desk::new(&window);
    let ask = |desk: &mut Desk, producer, number| match desk.ask(random(producer, number)) {
        Verdict::Fresh(reservation) => Some(reservation),
        Verdict::Duplicate(_) => None,
        other => panic!("{other:?}"),
    };
    let honest = || 0..CAPACITY * 9 / 10;
    for producer in honest() {
        drop(ask(&mut desk, producer, 1).unwrap().commit(desk.now, TTL));
    }
    // The honest have something in flight, too, so that they are there when the crowd has gone.
    let working: Vec<Reservation> = honest().map(|producer| ask(&mut desk, producer, 2).unwrap()).collect();
    let crowd = CAPACITY..5 * CAPACITY;
    let waiting: Vec<Reservation> =
        crowd.clone().map(|producer| ask(&mut desk, producer, 1).unwrap()).collect();
    assert_eq!(window.len(), working.len() + waiting.len(), "nobody in flight is evicted");
    waiting.into_iter().for_each(|reservation| drop(reservation.commit(desk.now, TTL)));
    desk.now += Duration::from_secs(1);
    working.into_iter().for_each(|reservation| drop(reservation.commit(desk.now, TTL)));
    // Newcomers make room, and so does the clock.
    for producer in 0..100 {
        drop(ask(&mut desk, 10 * CAPACITY + producer, 1).unwrap().commit(desk.now, TTL));
    }
    for _ in 0..10 {
        window.sweep(desk.now);
    }
    assert!(window.len() as u64 <= CAPACITY, "{} producers", window.len());
    let forgotten = honest().filter(|producer| ask(&mut desk, *producer, 2).is_some()).count();
    assert_eq!(forgotten, 0, "of {}", honest().count());
    assert!(accounting.evicted(EvictionCause::Capacity) > 3 * CAPACITY);
}

/// An operator in a hurry: the window is made smaller, larger and empty while everybody has something in flight.
#[test]
fn a_capacity_that_changes_while_all_are_in_flight_counts_when_they_are_not() {
    for (capacity, flush) in [(4_800, false), (100, false), (100, true)] {
        let (window, _) = window(capacity, OnGap::Reject);
        let mut desk = Desk::new(&window);
        let mut ask = |producer, number| match desk.ask(random(producer, number)) {
            Verdict::Fresh(reservation) => reservation,
            other => panic!("{producer}: {other:?}"),
        };
        (0..4_800).for_each(|producer| drop(ask(producer, 1).commit(base(), TTL)));
        let known = window.len() as u64;
        let first = 4_800 - known.min(4_800);
        let working: Vec<Reservation> = (first..4_800).map(|producer| ask(producer, 2)).collect();
        window.resize(1, base());
        assert_eq!(window.len(), working.len(), "nobody in flight is evicted");
        if flush {
            assert_eq!(window.flush(base()), working.len());
        }
        window.resize(50, base());
        // A gap is none for who is not known.
        let more = if flush { Some(ask(first, 7)) } else { None };
        working.into_iter().for_each(|reservation| drop(reservation.commit(base(), TTL)));
        drop(more.map(|reservation| reservation.commit(base(), TTL)));
        (0..10).for_each(|_| window.sweep(base()));
        assert_eq!((window.len(), window.in_flight()), (50, 0));
        let is_seen = |producer| window.get(random(producer, 2), base()).is_some();
        assert_eq!((first..4_800).filter(|producer| is_seen(*producer)).count(), 50, "its numbers are known");
    }
}

#[test]
fn a_producer_lives_for_the_ttl_from_its_last_use() {
    let (window, accounting) = window(4, OnGap::Forward);
    let mut desk = Desk::new(&window);
    assert!(desk.publish(1, 5, 1));
    for _ in 0..3 {
        desk.now += TTL - Duration::from_secs(1);
        assert!(!desk.publish(1, 5, 1));
    }
    let in_flight = desk.fresh(1, 5, 2);
    desk.now += 3 * TTL;
    assert_eq!(desk.refusal(1, 4, 1), Refusal::Stale, "while something is in flight it does not expire");
    drop(in_flight.commit(desk.now, TTL));
    desk.now += TTL;
    window.sweep(desk.now);
    assert_eq!((window.len(), accounting.evicted_total()), (0, 1));
    assert!(desk.publish(1, 4, 1), "it is forgotten, and its epoch with it");
}

#[test]
fn a_producer_of_which_nothing_was_stored_is_not_kept() {
    let (window, accounting) = window(4, OnGap::Forward);
    let mut desk = Desk::new(&window);
    let (one, two) = (desk.fresh(1, 0, 1), desk.fresh(1, 0, 2));
    one.forget(ForgetCause::Nack);
    assert_eq!(window.len(), 1);
    two.forget(ForgetCause::Nack);
    assert_eq!((window.len(), accounting.evicted_total()), (0, 0));
}

#[test]
fn a_consumer_that_publishes_its_delivery_again_makes_the_number_open_until_it_is_stored() {
    let (window, _) = window(4, OnGap::Forward);
    let mut desk = Desk::new(&window);
    assert!((1..=2 * PLACES).all(|number| desk.publish(1, 1, number)));
    for number in [2, 2 * PLACES] {
        let again = Arc::clone(&window).republish(claim(1, 1, number), desk.now);
        assert!(!again.beside);
        again.reservation.forget(ForgetCause::Nack);
        assert!(desk.publish(1, 1, number), "{number}: the retry of what was not stored");
        let again = Arc::clone(&window).republish(claim(1, 1, number), desk.now);
        drop(again.reservation.commit(desk.now, TTL));
        assert!(!desk.publish(1, 1, number), "{number}: its own retry");
    }
    // One of an epoch that is over keeps its mark, so that its retry passes, too.
    assert!(desk.publish(1, 2, 1));
    let again = Arc::clone(&window).republish(claim(1, 1, 2), desk.now);
    assert!(again.beside);
    drop(again.reservation.commit(desk.now, TTL));
    assert_eq!(window.in_flight(), 0);
}

#[test]
fn forget_and_flush_make_producers_unknown_and_what_is_in_flight_decides_for_itself() {
    let (window, _) = window(4, OnGap::Forward);
    let mut desk = Desk::new(&window);
    let in_flight = desk.fresh(1, 7, 2);
    assert!(desk.publish(1, 7, 1) && desk.publish(2, 7, 1));
    assert_eq!(window.forget_producer(key(1), desk.now), Some(true));
    assert_eq!(window.forget_producer(key(9), desk.now), Some(false));
    assert!(desk.publish(1, 7, 1) && !desk.publish(2, 7, 1));
    drop(in_flight.commit(desk.now, TTL));
    assert!(!desk.publish(1, 7, 2));
    window.flush(desk.now);
    assert!(desk.publish(1, 6, 1) && desk.publish(2, 6, 1), "no epoch is remembered either");
}

#[test]
fn producers_are_shown_with_their_names_those_seen_last_first() {
    let (window, _) = window(10, OnGap::Forward);
    let mut desk = Desk::new(&window);
    for producer in 1..=3 {
        assert!(desk.publish(producer, 4, 9 + producer) && window.wants_producer(claim(producer, 4, 1)));
        window.note_producer(claim(producer, 4, 1), format!("orders-{producer}").as_bytes());
        assert!(!window.wants_producer(claim(producer, 4, 1)));
        desk.now += Duration::from_secs(1);
    }
    let names = |most, text| -> Vec<String> {
        let facts = window.producers(most, text, desk.now).into_iter();
        facts.map(|facts| String::from_utf8_lossy(&facts.name.unwrap_or_default()).into_owned()).collect()
    };
    assert_eq!(names(2, ""), ["orders-3", "orders-2"]);
    assert_eq!(names(9, "s-1"), ["orders-1"]);
    let facts = window.producer(key(1), desk.now).unwrap();
    assert_eq!((facts.epoch, facts.highest, facts.in_flight, facts.duplicates), (4, Some(10), 0, 0));
    assert_eq!((facts.idle, facts.left), (Duration::from_secs(3), TTL - Duration::from_secs(3)));
}

#[test]
fn a_producer_takes_three_hundred_bytes_and_no_more_with_a_hundred_in_flight() {
    let numbering = Numbering::default();
    let rules = Rules { numbering, ..rules(OnGap::Forward) };
    let limits = Limits { capacity: 10_000, ..LIMITS };
    let window: Arc<LocalWindow> =
        LocalWindow::new(rules, limits, EngineKind::default(), Arc::new(Accounting::new()));
    let mut desk = Desk::new(&window);
    for round in 0..3 {
        for producer in 0..10_000 {
            let mut stored = Reservations::default();
            let numbers = round * 100..round * 100 + 100;
            let all: Vec<Reservation> = numbers.map(|number| desk.fresh(producer, 0, number)).collect();
            all.into_iter().for_each(|reservation| drop(stored.push(reservation, desk.now, TTL)));
            drop(stored.commit(desk.now));
            if window.wants_producer(claim(producer, 0, 0)) {
                window
                    .note_producer(claim(producer, 0, 0), format!("orders-service-{producer:05}").as_bytes());
            }
        }
        let each = window.store_bytes() / window.len();
        println!("round {round}: {each} bytes for each of {} producers", window.len());
        assert!(each <= 300, "{each}");
    }
}

// ---- the model ---------------------------------------------------------------------------------------------------------

/// Everything that was ever stored, in sets.
#[derive(Default)]
struct Model {
    /// by producer: the epoch that was begun last
    epochs: BTreeMap<u64, u64>,
    /// by producer and epoch
    stored: BTreeMap<(u64, u64), BTreeSet<u64>>,
    /// the highest number that was let through
    top: BTreeMap<(u64, u64), u64>,
    in_flight: BTreeSet<(u64, u64, u64)>,
    /// who waits for what
    waiting: Vec<((u64, u64, u64), Wait)>,
}

impl Model {
    /// A producer of which nothing was ever stored is not kept when nothing of it is in flight.
    fn drop_unknown(&mut self) {
        let Model { epochs, stored, top, in_flight, .. } = self;
        epochs.retain(|producer, _| {
            stored.keys().any(|(other, _)| other == producer)
                || in_flight.iter().any(|(other, ..)| other == producer)
        });
        top.retain(|(producer, _), _| epochs.contains_key(producer));
    }
}

pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }
}

/// Random lists of publishes, acks and nacks out of order, waiters, new epochs and zombies. `roomy`: no producer is ever evicted, so every
/// verdict is known to the model. If not, only this holds: what was not stored is never a duplicate.
fn run(seed: u64, roomy: bool, on_gap: OnGap) {
    let (window, accounting) = window(if roomy { 10 } else { 3 }, on_gap);
    let (mut desk, mut model, mut rng) =
        (Desk::new(&window), Model::default(), Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let mut held: Vec<((u64, u64, u64), Reservation)> = Vec::new();
    for step in 0..1500 {
        let place = || format!("seed {seed}, step {step}");
        let producer = rng.below(6);
        let epoch = *model.epochs.entry(producer).or_default();
        match rng.below(10) {
            0..6 => {
                let epoch = match rng.below(60) {
                    0 => epoch + 1,
                    1 => epoch.saturating_sub(1),
                    _ => epoch,
                };
                let next = model.top.get(&(producer, epoch)).map_or(rng.below(3), |top| top + 1);
                let number = match rng.below(8) {
                    0 => next.saturating_sub(1 + rng.below(2 * PLACES)),
                    1 => next + rng.below(4),
                    2 if rng.below(20) == 0 => next + rng.below(3 * PLACES),
                    _ => next,
                };
                let it = (producer, epoch, number);
                let stored = model.stored.get(&(producer, epoch));
                let is_stored = stored.is_some_and(|stored| stored.contains(&number));
                let highest = stored.and_then(|stored| stored.last().copied()).unwrap_or_default();
                let is_stale = epoch < model.epochs.get(&producer).copied().unwrap_or_default();
                let is_gap = model.top.get(&(producer, epoch)).is_some_and(|top| number > top + 1);
                let verdict = desk.ask(claim(producer, epoch, number));
                let said = format!("{}: {it:?}: {verdict:?}", place());
                match verdict {
                    Verdict::Fresh(reservation) => {
                        assert!(!model.in_flight.contains(&it), "{said}");
                        if roomy {
                            let has_bit = number + PLACES > highest;
                            assert!(!(is_stale || is_stored && has_bit), "{said}");
                            assert!(on_gap == OnGap::Forward || !is_gap, "{said}");
                        }
                        model.in_flight.insert(it);
                        let top = model.top.entry((producer, epoch)).or_insert(number);
                        *top = number.max(*top);
                        let begun = model.epochs.entry(producer).or_default();
                        *begun = epoch.max(*begun);
                        held.push((it, reservation));
                    }
                    Verdict::Duplicate(_) => assert!(is_stored && !is_stale, "{said}: nobody has stored it"),
                    Verdict::InFlight(wait) => {
                        assert!(model.in_flight.contains(&it), "{said}");
                        model.waiting.push((it, wait));
                    }
                    Verdict::Crowded => assert!(model.in_flight.contains(&it), "{said}"),
                    Verdict::Refused(Refusal::Stale) => assert!(is_stale, "{said}"),
                    Verdict::Refused(Refusal::Gap) => {
                        assert!((is_gap || !roomy) && on_gap == OnGap::Reject, "{said}");
                    }
                    Verdict::Pending(_) => panic!("{said}"),
                }
            }
            6..9 if !held.is_empty() => {
                let at = usize::try_from(rng.below(held.len() as u64)).unwrap();
                let (it, reservation) = held.swap_remove(at);
                model.in_flight.remove(&it);
                let is_acked = rng.below(4) > 0;
                if is_acked {
                    model.stored.entry((it.0, it.1)).or_default().insert(it.2);
                    drop(reservation.commit(desk.now, TTL));
                } else {
                    reservation.forget(ForgetCause::Nack);
                }
                for (ticket, verdict) in desk.mailbox.take() {
                    let at = model.waiting.iter().position(|(_, wait)| wait.ticket() == ticket).unwrap();
                    let (other, wait) = model.waiting.swap_remove(at);
                    wait.answered();
                    assert_eq!(other, it, "{}", place());
                    match verdict {
                        Verdict::Duplicate(_) => assert!(is_acked, "{}: {it:?}", place()),
                        Verdict::Fresh(reservation) => {
                            assert!(!is_acked && model.in_flight.insert(it), "{}: {it:?}", place());
                            held.push((it, reservation));
                        }
                        Verdict::Refused(Refusal::Stale) => {
                            assert!(
                                !is_acked && it.1 < model.epochs.get(&it.0).copied().unwrap_or_default(),
                                "{}: {it:?}",
                                place()
                            );
                        }
                        other => panic!("{}: {it:?}: {other:?}", place()),
                    }
                }
            }
            _ => desk.now += Duration::from_millis(rng.below(2_000)),
        }
        model.drop_unknown();
        let in_flight = window.in_flight();
        assert_eq!(in_flight, model.in_flight.len(), "{}", place());
        let settled = accounting.committed() + accounting.forgotten_total();
        assert_eq!(accounting.fresh(), settled + in_flight as u64, "{}", place());
        let pinned: BTreeSet<u64> = model.in_flight.iter().map(|(producer, ..)| *producer).collect();
        assert!(
            pinned.iter().all(|producer| window.producer(key(*producer), desk.now).is_some()),
            "{}",
            place()
        );
    }
}

#[test]
fn no_number_is_a_duplicate_that_was_not_stored() {
    for seed in 1..=60 {
        for on_gap in [OnGap::Forward, OnGap::Reject] {
            run(seed, true, on_gap);
            run(seed, false, on_gap);
        }
    }
}

/// What a channel leaves behind when it ends without outcomes.
#[test]
fn in_doubt_keep_stores_the_number() {
    let rules = Rules { in_doubt: InDoubt::Keep, ..rules(OnGap::Forward) };
    let window: Arc<LocalWindow> =
        LocalWindow::new(rules, LIMITS, EngineKind::default(), Arc::new(Accounting::new()));
    let mut desk = Desk::new(&window);
    desk.fresh(1, 0, 1).commit_in_doubt(desk.now, TTL);
    drop(desk.fresh(1, 0, 2));
    assert!(!desk.publish(1, 0, 1) && desk.publish(1, 0, 2));
}

/// Epochs that end with holes leave nothing behind: the window counts as many bytes as before.
#[test]
fn the_holes_of_old_epochs_take_no_bytes() {
    let (window, _) = window(10, OnGap::Forward);
    let mut desk = Desk::new(&window);
    let epoch = |desk: &mut Desk, epoch: u64| {
        for number in (0..40 * PLACES).step_by(2) {
            desk.publish(1, epoch, number);
        }
    };
    epoch(&mut desk, 1);
    let bytes = window.store_bytes();
    (2..200).for_each(|n| epoch(&mut desk, n));
    assert!(window.store_bytes() <= bytes, "{} and {bytes}", window.store_bytes());
}
