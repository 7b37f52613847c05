//! Transcripts: two relays, one Redis, and what each publish is told.

use super::base;
use super::redis::{Command, Redis, write};
use hapax_core::pressure::Accounting;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::logged::RelayId;
use hapax_core::window::{
    Ask, BodyDigest, Committed, ForgetCause, InDoubt, Inspect, Key, KeyMaker, LeasedWindow, Limits, Mailbox,
    Memo, Mode, OnOutage, OverdueCommit, Remember, Reservation, Rules, StorePolicy, TakeOver, Ticket,
    Verdict, Wait, Window, reserve_one,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TTL: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(10);
const MS: Duration = Duration::from_millis(1);
pub const SYNC: StorePolicy =
    StorePolicy { remember: Remember::Sync, delay: MS, on_outage: OnOutage::Continue };

/// A relay, and one publisher of it.
pub struct Relay {
    pub window: Arc<LeasedWindow<Accounting>>,
    accounting: Arc<Accounting>,
    pub mailbox: Arc<Mailbox>,
    tickets: u64,
}

impl Relay {
    pub fn new(id: u64, now: Instant) -> Relay {
        Relay::with(id, Rules::named("orders"), SYNC, now)
    }

    pub fn with(id: u64, rules: Rules, policy: StorePolicy, now: Instant) -> Relay {
        Relay::of(id, KeyMaker::new((1, 2)), rules, policy, now)
    }

    fn of(id: u64, keys: KeyMaker, rules: Rules, policy: StorePolicy, now: Instant) -> Relay {
        let limits = Limits {
            capacity: 100,
            ttl: TTL,
            mode: Mode::Enforce,
            refresh_on_duplicate: false,
            waiters_per_id: 2,
        };
        let accounting = Arc::new(Accounting::new());
        let window = LeasedWindow::new(
            rules,
            limits,
            EngineKind::default(),
            accounting.clone(),
            policy,
            keys,
            RelayId(id),
            LEASE,
            now,
        );
        window.works(now);
        Relay { window, accounting, mailbox: Arc::new(Mailbox::new()), tickets: 0 }
    }

    pub fn ask(&mut self, key: u128, now: Instant) -> Verdict {
        self.tickets += 1;
        reserve_one(&self.window, Key(key), now, &self.mailbox, Ticket(self.tickets))
    }

    /// Serves, and takes the one letter.
    fn letter(&self, redis: &mut Redis, now: Instant) -> Verdict {
        redis.serve(&self.window, now);
        let mut letters = self.mailbox.take();
        assert_eq!(letters.len(), 1, "{letters:?}");
        letters.pop().unwrap().1
    }

    /// Publishes; the guard of the question is of no use any more when its answer is there.
    pub fn publish(&mut self, key: u128, redis: &mut Redis, now: Instant) -> Verdict {
        match self.ask(key, now) {
            Verdict::Pending(wait) => {
                let verdict = self.letter(redis, now);
                wait.answered();
                verdict
            }
            verdict => verdict,
        }
    }

    pub fn fresh(&mut self, key: u128, redis: &mut Redis, now: Instant) -> Reservation {
        fresh(self.publish(key, redis, now))
    }

    pub fn elsewhere(&mut self, key: u128, redis: &mut Redis, now: Instant) -> Wait {
        match self.publish(key, redis, now) {
            Verdict::InFlight(wait) => wait,
            other => panic!("{key} should be in flight and is {other:?}"),
        }
    }

    /// Publishes to an upstream that acks.
    pub fn store(&mut self, key: u128, redis: &mut Redis, now: Instant) {
        let reservation = self.fresh(key, redis, now);
        let committed = reservation.commit(now, Memo::new(TTL, BodyDigest::of(b"body")));
        redis.serve(&self.window, now);
        assert!(is_remembered(&committed));
    }

    /// The identities of `hapax_core::window::event`.
    pub fn adds_up(&self) {
        let accounting = &self.accounting;
        let removed = self.window.entries().unwrap() as u64 + accounting.evicted_total();
        let unsettled = accounting.forgotten_total() + self.window.in_flight().unwrap() as u64;
        let came = accounting.fresh() + accounting.republished() + accounting.recovered();
        assert_eq!(came, removed + unsettled, "fresh + republished + recovered");
        let stored = accounting.committed() + accounting.committed_in_doubt() + accounting.recovered();
        assert_eq!(stored, removed, "committed + in doubt + recovered");
    }
}

fn fresh(verdict: Verdict) -> Reservation {
    match verdict {
        Verdict::Fresh(reservation) => reservation,
        other => panic!("not fresh: {other:?}"),
    }
}

fn is_remembered(committed: &Committed) -> bool {
    match committed {
        Committed::Now => true,
        Committed::Later(unremembered) => unremembered.is_remembered(),
    }
}

fn is_duplicate(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Duplicate(body) if *body == BodyDigest::of(b"body"))
}

#[test]
fn what_one_relay_has_stored_is_a_duplicate_at_the_other_and_needs_no_second_question() {
    let (now, mut redis) = (base(), Redis::default());
    let (mut one, mut other) = (Relay::new(1, now), Relay::new(2, now));
    one.store(7, &mut redis, now);
    let later = now + 100 * MS;
    assert!(is_duplicate(&other.publish(7, &mut redis, later)));
    // It knows it by itself now, and for no longer than Redis does.
    assert!(is_duplicate(&other.ask(7, later)));
    let Some(hapax_core::window::Found::Seen(seen)) = other.window.find(Key(7).into(), later) else {
        panic!("not seen")
    };
    assert_eq!((seen.at, seen.until), (now, now + TTL));
    assert_eq!((other.accounting.recovered(), other.accounting.fresh()), (1, 0));
    let over = now + TTL;
    other.fresh(7, &mut redis, over).forget(ForgetCause::Nack);
    redis.serve(&one.window, over);
    [&one, &other].into_iter().for_each(Relay::adds_up);
}

#[test]
fn a_client_is_acked_when_redis_has_the_id() {
    let (now, mut redis) = (base(), Redis::default());
    let mut one = Relay::new(1, now);
    let reservation = one.fresh(7, &mut redis, now);
    let committed = reservation.commit(now, TTL);
    assert!(!is_remembered(&committed) && redis.value(7, now) == Some('L'));
    // Nobody hears of a duplicate before that, either.
    let Verdict::InFlight(wait) = one.ask(7, now) else { panic!("not in flight") };
    redis.serve(&one.window, now);
    assert!(is_remembered(&committed) && redis.value(7, now) == Some('S'));
    assert!(matches!(one.mailbox.take().pop(), Some((_, Verdict::Duplicate(_)))));
    drop(wait);
    one.adds_up();
}

#[test]
fn a_publish_waits_for_the_one_at_another_relay() {
    for is_stored in [true, false] {
        let (now, mut redis) = (base(), Redis::default());
        let (mut one, mut other) = (Relay::new(1, now), Relay::new(2, now));
        let first = one.fresh(7, &mut redis, now);
        let wait = other.elsewhere(7, &mut redis, now);
        // A second one here waits, too, and needs no question. A third finds no room.
        let Verdict::InFlight(second) = other.ask(7, now) else { panic!("not in flight") };
        assert!(matches!(other.ask(7, now), Verdict::Crowded));
        assert!(other.window.take_questions(10).is_empty());
        let again_at = other.window.deadline().unwrap();
        assert!(again_at > now && again_at <= now + 2 * MS);
        if is_stored {
            let _ = first.commit(now, Memo::new(TTL, BodyDigest::of(b"body")));
        } else {
            first.forget(ForgetCause::Nack);
        }
        redis.serve(&one.window, again_at);
        other.window.handle_timeout(again_at);
        redis.serve(&other.window, again_at);
        let mut letters = other.mailbox.take();
        if is_stored {
            assert!(letters.len() == 2 && letters.iter().all(|(_, verdict)| is_duplicate(verdict)));
        } else {
            // The first is promoted, and the second waits for it here.
            let (_, last) = letters.pop().unwrap();
            assert!(matches!(last, Verdict::InFlight(_)));
            let promoted = fresh(letters.pop().unwrap().1);
            let _ = promoted.commit(again_at, TTL);
            redis.serve(&other.window, again_at);
            assert!(matches!(other.mailbox.take().pop(), Some((_, Verdict::Duplicate(_)))));
        }
        drop((wait, second));
        [&one, &other].into_iter().for_each(Relay::adds_up);
        assert_eq!(redis.leases(again_at), 0);
    }
}

#[test]
fn all_local_publishes_of_an_id_wait_for_one_question() {
    let (now, mut redis) = (base(), Redis::default());
    let mut one = Relay::new(1, now);
    let waits: Vec<Verdict> = (0..3).map(|_| one.ask(7, now)).collect();
    assert!(waits.iter().all(|verdict| matches!(verdict, Verdict::Pending(_))));
    let questions = one.window.take_questions(10);
    assert_eq!(questions.len(), 1);
    let answer =
        redis.execute(Command::Ask(questions[0].clone(), one.window.value(&questions[0]), LEASE), now);
    one.window.answer(&questions[0], answer, now);
    let kinds: Vec<&str> = one.mailbox.take().iter().map(|(_, verdict)| kind(verdict)).collect();
    assert_eq!(kinds, ["fresh", "in flight", "in flight"]);
}

fn kind(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Fresh(_) => "fresh",
        Verdict::InFlight(_) => "in flight",
        Verdict::Crowded => "crowded",
        Verdict::Duplicate(_) => "duplicate",
        Verdict::Refused(_) => "refused",
        Verdict::Pending(_) => "pending",
    }
}

#[test]
fn a_lease_is_renewed_for_as_long_as_its_publish_is_in_flight() {
    let (now, mut redis) = (base(), Redis::default());
    let (mut one, mut other) = (Relay::new(1, now), Relay::new(2, now));
    let first = one.fresh(7, &mut redis, now);
    let mut time = now;
    while time < now + 5 * LEASE {
        time += one.window.renews_every();
        one.window.handle_timeout(time);
        redis.serve(&one.window, time);
    }
    drop(other.elsewhere(7, &mut redis, time));
    let _ = first.commit(time, TTL);
    redis.serve(&one.window, time);
    assert_eq!(one.window.leases(), 0);
}

#[test]
fn the_lease_of_a_dead_relay_ends_as_in_doubt_says() {
    for in_doubt in [InDoubt::Forget, InDoubt::Keep] {
        let (now, mut redis) = (base(), Redis::default());
        let rules = Rules { in_doubt, ..Rules::named("orders") };
        let [mut one, mut other] = [1, 2].map(|id| Relay::with(id, rules.clone(), SYNC, now));
        std::mem::forget(one.fresh(7, &mut redis, now));
        // It dies here.
        let wait = other.elsewhere(7, &mut redis, now + LEASE - MS);
        let later = now + LEASE + 100 * MS;
        other.window.handle_timeout(later);
        let verdict = other.letter(&mut redis, later);
        wait.answered();
        match in_doubt {
            InDoubt::Forget => fresh(verdict).forget(ForgetCause::Nack),
            InDoubt::Keep => {
                assert!(matches!(verdict, Verdict::Duplicate(BodyDigest::UNKNOWN)));
                other.fresh(7, &mut redis, now + LEASE + TTL).forget(ForgetCause::Nack);
            }
        }
        other.adds_up();
    }
}

/// A relay was stopped for longer than its lease lives. Then its publish is nacked.
#[test]
fn a_rollback_removes_no_lease_of_another_relay() {
    let (now, mut redis) = (base(), Redis::default());
    let [mut one, mut other, mut third] = [1, 2, 3].map(|id| Relay::new(id, now));
    let stopped = one.fresh(7, &mut redis, now);
    let later = now + LEASE;
    let second = other.fresh(7, &mut redis, later);
    stopped.forget(ForgetCause::Nack);
    redis.serve(&one.window, later);
    drop(third.elsewhere(7, &mut redis, later));
    // Nor does an earlier lease of the same relay remove a later one.
    second.forget(ForgetCause::Nack);
    let earlier = other.window.take_questions(10);
    let third_lease = other.publish(7, &mut redis, later);
    let again = fresh(third_lease);
    for question in earlier {
        let value = other.window.value(&question);
        redis.execute(Command::Ask(question, value, LEASE), later);
    }
    assert_eq!(redis.value(7, later), Some('L'));
    drop(third.elsewhere(7, &mut redis, later));
    drop(again);
}

#[test]
fn what_is_stored_is_seen_even_if_the_lease_has_ended() {
    let (now, mut redis) = (base(), Redis::default());
    let (mut one, mut other) = (Relay::new(1, now), Relay::new(2, now));
    let stopped = one.fresh(7, &mut redis, now);
    let later = now + LEASE;
    let second = other.fresh(7, &mut redis, later);
    let _ = stopped.commit(later, TTL);
    redis.serve(&one.window, later);
    second.forget(ForgetCause::Nack);
    redis.serve(&other.window, later);
    assert_eq!(redis.value(7, later), Some('S'));
    assert!(matches!(other.publish(7, &mut redis, later), Verdict::Duplicate(_)));
}

#[test]
fn a_publish_without_confirms_takes_over_from_another_relay() {
    let (now, mut redis) = (base(), Redis::default());
    let (mut one, mut other) = (Relay::new(1, now), Relay::new(2, now));
    let first = one.fresh(7, &mut redis, now);
    let wait = other.elsewhere(7, &mut redis, now);
    assert!(!wait.waits_on());
    assert!(matches!(wait.take_over(now, now + MS), TakeOver::Wait { since } if since == now + MS));
    let second = fresh(other.letter(&mut redis, now + MS));
    wait.answered();
    // The first does not come to its end; that changes nothing.
    first.forget(ForgetCause::Nack);
    redis.serve(&one.window, now + MS);
    drop(one.elsewhere(7, &mut redis, now + MS));
    let _ = second.commit(now + MS, TTL);
    redis.serve(&other.window, now + MS);
    // A take-over of what was stored in the meantime is a duplicate.
    let third = one.fresh(8, &mut redis, now);
    let wait = other.elsewhere(8, &mut redis, now);
    let _ = third.commit(now, Memo::new(TTL, BodyDigest::of(b"body")));
    redis.serve(&one.window, now);
    let _ = wait.take_over(now, now + MS);
    assert!(is_duplicate(&other.letter(&mut redis, now + MS)));
    wait.answered();
    [&one, &other].into_iter().for_each(Relay::adds_up);
}

#[test]
fn a_republish_is_no_duplicate_at_any_relay_and_its_retry_waits_for_it() {
    let (now, mut redis) = (base(), Redis::default());
    let (mut one, mut other) = (Relay::new(1, now), Relay::new(2, now));
    one.store(7, &mut redis, now);
    let again = Arc::clone(&one.window).republish(Key(7).into(), now);
    assert!(!again.beside);
    redis.serve(&one.window, now);
    let wait = other.elsewhere(7, &mut redis, now);
    let _ = again.reservation.commit(now, Memo::new(TTL, BodyDigest::of(b"body")));
    redis.serve(&one.window, now);
    other.window.handle_timeout(now + 5 * MS);
    assert!(is_duplicate(&other.letter(&mut redis, now + 5 * MS)));
    wait.answered();
    // One that is not stored leaves nothing.
    let again = Arc::clone(&one.window).republish(Key(7).into(), now);
    again.reservation.forget(ForgetCause::Nack);
    redis.serve(&one.window, now);
    assert_eq!(redis.value(7, now), None);
    [&one, &other].into_iter().for_each(Relay::adds_up);
}

/// The first relay has acked the message, and writes its record later. Meanwhile a consumer at another relay has published it again, and that
/// is not stored.
#[test]
fn a_republish_is_unknown_when_it_is_not_stored_also_if_the_record_before_came_late() {
    let (now, mut redis) = (base(), Redis::default());
    let policy = StorePolicy { remember: Remember::Async, ..SYNC };
    let [mut one, other, mut third] =
        [1, 2, 3].map(|id| Relay::with(id, Rules::named("orders"), policy, now));
    let _ = one.fresh(7, &mut redis, now).commit(now, TTL);
    let again = Arc::clone(&other.window).republish(Key(7).into(), now);
    redis.serve(&other.window, now);
    redis.serve(&one.window, now);
    assert_eq!((again.beside, redis.value(7, now)), (false, Some('S')));
    again.reservation.forget(ForgetCause::Nack);
    redis.serve(&other.window, now);
    third.fresh(7, &mut redis, now).forget(ForgetCause::Nack);
    [&one, &other, &third].into_iter().for_each(Relay::adds_up);
}

#[test]
fn what_is_forgotten_or_disowned_here_is_forgotten_there_and_a_lease_is_not() {
    let (now, mut redis) = (base(), Redis::default());
    let (mut one, mut other) = (Relay::new(1, now), Relay::new(2, now));
    for disowns in [false, true] {
        one.store(7, &mut redis, now);
        match disowns {
            true => one.window.disown(Key(7).into(), now),
            false => assert_eq!(one.window.forget(Key(7).into(), now), Some(true)),
        }
        redis.serve(&one.window, now);
        assert_eq!(redis.value(7, now), None);
        let held = other.fresh(7, &mut redis, now);
        assert_eq!(one.window.forget(Key(7).into(), now), Some(false));
        redis.serve(&one.window, now);
        assert_eq!(redis.value(7, now), Some('L'));
        held.forget(ForgetCause::Nack);
        redis.serve(&other.window, now);
    }
}

#[test]
fn a_flush_makes_every_record_unknown_and_no_lease() {
    let (now, mut redis) = (base(), Redis::default());
    let (mut one, mut other) = (Relay::new(1, now), Relay::new(2, now));
    one.store(7, &mut redis, now);
    let held = other.fresh(8, &mut redis, now);
    one.window.flush(now);
    redis.serve(&one.window, now);
    one.store(7, &mut redis, now);
    drop(one.elsewhere(8, &mut redis, now));
    // The other one has not heard of it, but takes what was stored later for seen.
    assert!(is_duplicate(&other.publish(7, &mut redis, now)));
    let _ = held.commit(now, TTL);
    redis.serve(&other.window, now);
    // A record of the generation before counts as nothing.
    let seen = one.fresh(9, &mut redis, now).commit(now, TTL);
    redis.serve(&one.window, now);
    assert!(is_remembered(&seen));
    other.window.set_generation(2);
    other.fresh(9, &mut redis, now).forget(ForgetCause::Nack);
}

#[test]
fn a_duplicate_with_another_body_tells_so_and_replaces_the_record() {
    let (now, mut redis) = (base(), Redis::default());
    let (mut one, mut other) = (Relay::new(1, now), Relay::new(2, now));
    one.store(7, &mut redis, now);
    let Verdict::Duplicate(stored) = other.publish(7, &mut redis, now) else { panic!("not seen") };
    let body = BodyDigest::of(b"another");
    assert!(stored.differs(body));
    let ask = Ask { claim: Key(7).into(), ticket: Ticket(99) };
    let verdict = Arc::clone(&other.window).supersede(ask, body, now, &other.mailbox);
    let _ = fresh(verdict).commit(now, Memo::new(TTL, body));
    redis.serve(&other.window, now);
    let mut third = Relay::new(3, now);
    assert!(matches!(third.publish(7, &mut redis, now), Verdict::Duplicate(stored) if stored == body));
    other.adds_up();
}

#[test]
fn a_silent_redis_stops_nobody_who_goes_on_without_it() {
    let (now, mut redis) = (base(), Redis::default());
    let mut one = Relay::new(1, now);
    one.store(1, &mut redis, now);
    // One question is overdue before the shell knows.
    let Verdict::Pending(wait) = one.ask(7, now) else { panic!("not pending") };
    let alone = fresh(wait.overdue(Ticket(100), now));
    // The shell knows now: who waits is judged at once.
    let Verdict::Pending(wait) = one.ask(8, now) else { panic!("not pending") };
    let lost = one.window.take_questions(10);
    one.window.failed(lost, now);
    let judged = fresh(one.mailbox.take().pop().unwrap().1);
    wait.answered();
    assert!(matches!(one.ask(1, now), Verdict::Duplicate(_)));
    let third = fresh(one.ask(9, now));
    for reservation in [alone, judged, third] {
        assert!(matches!(reservation.commit(now, TTL), Committed::Now));
    }
    assert_eq!(one.window.store(now).unwrap().unremembered, 3);
    assert!(one.window.take_questions(10).is_empty());
    // When it is back, it is told.
    one.window.works(now);
    redis.serve(&one.window, now);
    let mut other = Relay::new(2, now);
    for key in [7, 8, 9] {
        assert!(matches!(other.publish(key, &mut redis, now), Verdict::Duplicate(_)));
    }
    [&one, &other].into_iter().for_each(Relay::adds_up);
}

#[test]
fn a_silent_redis_is_waited_for_by_those_who_refuse() {
    let (now, mut redis) = (base(), Redis::default());
    let policy = StorePolicy { on_outage: OnOutage::Refuse, ..SYNC };
    let mut one = Relay::with(1, Rules::named("orders"), policy, now);
    one.store(1, &mut redis, now);
    let held = one.fresh(2, &mut redis, now);
    let Verdict::Pending(wait) = one.ask(7, now) else { panic!("not pending") };
    let lost = one.window.take_questions(10);
    one.window.failed(lost, now);
    let Verdict::Pending(wait) = wait.overdue(Ticket(100), now) else { panic!("judged alone") };
    // Nothing is judged by the memory.
    let Verdict::Pending(known) = one.ask(1, now) else { panic!("judged alone") };
    let Committed::Later(unremembered) = held.commit(now, TTL) else { panic!("acked") };
    assert_eq!(unremembered.overdue(now), OverdueCommit::WaitOn);
    assert_eq!(one.window.store(now).unwrap().waiting_publishes, 2);
    one.window.works(now);
    redis.serve(&one.window, now);
    let kinds: Vec<&str> = one.mailbox.take().iter().map(|(_, verdict)| kind(verdict)).collect();
    assert_eq!(kinds, ["fresh", "duplicate"]);
    assert!(unremembered.is_remembered());
    drop((wait, known));
    one.adds_up();
}

#[test]
fn a_lease_that_ended_while_redis_was_silent_is_got_again() {
    let (now, mut redis) = (base(), Redis::default());
    let (mut one, mut other) = (Relay::new(1, now), Relay::new(2, now));
    let held = one.fresh(7, &mut redis, now);
    one.window.failed(Vec::new(), now);
    let later = now + 2 * LEASE;
    one.window.works(later);
    redis.serve(&one.window, later);
    drop(other.elsewhere(7, &mut redis, later));
    drop(held);
}

/// An operator switches the window off, or takes it out of the configuration, to let the traffic flow.
#[test]
fn a_window_that_is_switched_off_waits_for_redis_no_more() {
    let now = base();
    let policy = StorePolicy { on_outage: OnOutage::Refuse, ..SYNC };
    let mut one = Relay::with(1, Rules::named("orders"), policy, now);
    let Verdict::Pending(wait) = one.ask(7, now) else { panic!("not pending") };
    one.window.failed(one.window.take_questions(10), now);
    let Verdict::Pending(wait) = wait.overdue(Ticket(90), now) else { panic!("not pending") };
    Inspect::set_mode(&*one.window, Mode::Off);
    drop(fresh(wait.overdue(Ticket(91), now)));
    assert_eq!(Inspect::store(&*one.window, now).map(|store| store.waiting_publishes), Some(0));
}

/// The answer that brings the lease is lost; the question is asked again.
#[test]
fn an_answer_that_is_lost_costs_nothing() {
    let (now, mut redis) = (base(), Redis::default());
    let policy = StorePolicy { on_outage: OnOutage::Refuse, ..SYNC };
    let mut one = Relay::with(1, Rules::named("orders"), policy, now);
    let Verdict::Pending(wait) = one.ask(7, now) else { panic!("not pending") };
    let questions = one.window.take_questions(10);
    let value = one.window.value(&questions[0]);
    redis.execute(Command::Ask(questions[0].clone(), value, LEASE), now);
    one.window.failed(questions, now);
    one.window.works(now);
    drop(fresh(one.letter(&mut redis, now)));
    wait.answered();
    // Nobody waits any more: the lease is given back.
    redis.serve(&one.window, now);
    let Verdict::Pending(wait) = one.ask(8, now) else { panic!("not pending") };
    drop(wait);
    redis.serve(&one.window, now);
    assert_eq!((redis.leases(now), one.window.leases()), (0, 0));
}

/// What becomes of a lease in an outage, before its publish is nacked in the outage.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Lost {
    /// it was granted, and the answer came
    Nothing,
    /// it was granted, and the answer was lost
    Answer,
    /// it is given back before the outage, and that was lost
    Release,
}

/// Otherwise another relay would wait for it, and with `in_doubt = "keep"` it would take a message for seen that was not stored.
#[test]
fn a_lease_is_given_back_after_an_outage_if_its_publish_was_nacked_meanwhile() {
    for in_doubt in [InDoubt::Forget, InDoubt::Keep] {
        for lost in [Lost::Nothing, Lost::Answer, Lost::Release] {
            let (now, mut redis) = (base(), Redis::default());
            let rules = Rules { in_doubt, ..Rules::named("orders") };
            let [mut one, mut other] = [1, 2].map(|id| Relay::with(id, rules.clone(), SYNC, now));
            let reservation = match lost {
                Lost::Answer => {
                    let Verdict::Pending(wait) = one.ask(7, now) else { panic!("not pending") };
                    let questions = one.window.take_questions(10);
                    let (value, life) =
                        (one.window.value(&questions[0]), one.window.lease_time(questions[0].lease));
                    redis.execute(Command::Ask(questions[0].clone(), value, life), now);
                    one.window.failed(questions, now);
                    wait.answered();
                    fresh(one.mailbox.take().pop().unwrap().1)
                }
                Lost::Nothing | Lost::Release => one.fresh(7, &mut redis, now),
            };
            match lost {
                Lost::Release => {
                    reservation.forget(ForgetCause::Nack);
                    one.window.failed(one.window.take_questions(10), now);
                }
                Lost::Nothing | Lost::Answer => {
                    one.window.failed(Vec::new(), now);
                    reservation.forget(ForgetCause::Nack);
                }
            }
            // Another attempt to connect fails.
            one.window.failed(Vec::new(), now);
            assert_eq!(redis.value(7, now), Some('L'));
            one.window.works(now);
            redis.serve(&one.window, now);
            assert_eq!(redis.value(7, now), None, "{in_doubt:?} {lost:?}");
            let later = now + LEASE;
            other.fresh(7, &mut redis, later).forget(ForgetCause::Nack);
            [&one, &other].into_iter().for_each(Relay::adds_up);
        }
    }
}

/// A publish was judged alone, and Redis has granted its lease all the same. It is renewed like any other.
#[test]
fn a_lease_whose_answer_was_lost_is_held() {
    let (now, mut redis) = (base(), Redis::default());
    let (mut one, mut other) = (Relay::new(1, now), Relay::new(2, now));
    let Verdict::Pending(wait) = one.ask(7, now) else { panic!("not pending") };
    one.window.failed(one.window.take_questions(10), now);
    wait.answered();
    let reservation = fresh(one.mailbox.take().pop().unwrap().1);
    one.window.works(now);
    redis.serve(&one.window, now);
    drop(other.elsewhere(7, &mut redis, now));
    let _ = reservation.commit(now, TTL);
    redis.serve(&one.window, now);
    assert_eq!((redis.value(7, now), one.window.leases()), (Some('S'), 0));
    // Nobody waits for it any more when the answer is lost.
    let Verdict::Pending(wait) = one.ask(8, now) else { panic!("not pending") };
    let questions = one.window.take_questions(10);
    drop(wait);
    one.window.failed(questions, now);
    one.window.works(now);
    redis.serve(&one.window, now);
    assert_eq!((redis.leases(now), one.window.leases()), (0, 0));
}

/// `x-cache-ttl: 0`, or a TTL that is over before the record is written. If the lease stayed, other relays would wait for it, and with
/// `in_doubt = "keep"` they would take the next message of the id for a duplicate.
#[test]
fn an_id_whose_time_is_over_leaves_no_lease() {
    for ttl in [Duration::ZERO, MS] {
        let (now, mut redis) = (base(), Redis::default());
        let rules = Rules { in_doubt: InDoubt::Keep, ..Rules::named("orders") };
        let [mut one, mut other] = [1, 2].map(|id| Relay::with(id, rules.clone(), SYNC, now));
        let _ = one.fresh(7, &mut redis, now).commit(now, ttl);
        let held = one.fresh(8, &mut redis, now);
        redis.serve(&one.window, now + 5 * MS);
        assert_eq!(redis.value(7, now + 5 * MS), None);
        other.fresh(7, &mut redis, now + LEASE).forget(ForgetCause::Nack);
        // The lease of another relay stays.
        let held_there = other.fresh(9, &mut redis, now);
        let alone = one.window.own_lease();
        redis.execute(Command::Clear(Key(9).octets(), alone), now);
        assert_eq!(redis.value(9, now), Some('L'));
        drop((held, held_there));
    }
}

#[test]
fn what_a_stranger_has_written_is_nothing() {
    let (now, mut redis) = (base(), Redis::default());
    let mut stranger = Relay::of(9, KeyMaker::new((8, 8)), Rules::named("orders"), SYNC, now);
    stranger.store(7, &mut redis, now);
    let mut one = Relay::new(1, now);
    one.store(7, &mut redis, now);
    assert_eq!(one.window.store(now).unwrap().damaged, 1);
}

/// Redis' clock alone decides.
#[test]
fn a_relay_whose_clock_is_an_hour_off_changes_nothing() {
    let (now, mut redis) = (base(), Redis::default());
    let hour = Duration::from_secs(3_600);
    let (mut one, mut other) = (Relay::new(1, now + hour), Relay::new(2, now));
    let held = one.fresh(7, &mut redis, now + hour);
    // (The fake's clock is that of the other.)
    let questions = {
        held.forget(ForgetCause::Nack);
        one.window.take_questions(10)
    };
    for question in questions {
        let value = one.window.value(&question);
        redis.execute(Command::Ask(question, value, LEASE), now);
    }
    let Verdict::Pending(wait) = one.ask(7, now + hour) else { panic!("not pending") };
    let question = one.window.take_questions(1).remove(0);
    let (value, life) = (one.window.value(&question), one.window.lease_time(question.lease));
    let answer = redis.execute(Command::Ask(question.clone(), value, life), now);
    one.window.answer(&question, answer, now + hour);
    let reservation = fresh(one.mailbox.take().pop().unwrap().1);
    wait.answered();
    drop(other.elsewhere(7, &mut redis, now + LEASE - MS));
    let _ = reservation.commit(now + hour, Memo::new(TTL, BodyDigest::of(b"body")));
    let (records, position) = one.window.log().take(10).unwrap();
    redis.execute(write(&one.window, &records[0], now + hour), now);
    one.window.log().written(position, now + hour);
    assert!(is_duplicate(&other.publish(7, &mut redis, now + TTL - MS)));
    drop(other.fresh(7, &mut redis, now + TTL));
}
