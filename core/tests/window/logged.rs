//! A window with a log, by examples on every engine: what is remembered, who waits for what, and what a crash leaves.

use crate::shelf::{ASYNC, ASYNC_REFUSE, POLICIES, SYNC, SYNC_REFUSE, Shelf, later, name};
use crate::{LIMITS, TTL};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::logged::Written;
use hapax_core::window::{
    Ask, BodyDigest, Change, Claim, Commit, EvictionCause, ForgetCause, Inspect, Key, Limits, Mailbox, Memo,
    Mode, OnOutage, OverdueCommit, Position, Remember, Setting, StorePolicy, TakeOver, Ticket, Turn, Verdict,
    Window,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Wake, Waker};
use std::time::Duration;

const ROOM: Limits = Limits { capacity: 100, waiters_per_id: 8, ..LIMITS };
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// More records than a store that is out of order may be behind.
const MANY: u128 = (1 << 20) + 1000;

/// Every engine with each of these policies.
fn each(policies: &[StorePolicy], test: impl Fn(Shelf)) {
    each_with(ROOM, policies, test);
}

fn each_with(limits: Limits, policies: &[StorePolicy], test: impl Fn(Shelf)) {
    for engine in EngineKind::ALL {
        policies.iter().for_each(|policy| test(Shelf::new(engine, limits, *policy)));
    }
}

fn claim(key: u128) -> Claim {
    Key(key).into()
}

fn seen(shelf: &Shelf, key: u128) -> Written {
    Written::Seen {
        claim: claim(key),
        at: shelf.wall(),
        ttl: TTL,
        body: BodyDigest::UNKNOWN,
        tenant: hapax_core::window::Tenant::COMMON,
    }
}

// ---- a store that works ------------------------------------------------------------------------------------------

#[test]
fn with_sync_nobody_hears_of_an_id_before_it_is_written() {
    each(&[SYNC, SYNC_REFUSE], |mut shelf| {
        let first = shelf.fresh(1);
        let _wait = shelf.waits(1);
        let commit = shelf.commit(first).expect("it is not written yet");
        assert_eq!((shelf.state(1), commit.is_remembered(), shelf.mail()), ('f', false, vec![]));
        let _late = shelf.waits(1);
        commit.tell_when(&shelf.mailbox);
        shelf.take(10);
        assert!(!commit.is_remembered() && !shelf.mailbox.take_all().1, "it is on its way");
        shelf.write();
        assert!(commit.is_remembered() && shelf.mailbox.register(Waker::noop()));
        assert_eq!((shelf.mail(), shelf.state(1)), (vec![(2, 'D'), (3, 'D')], 's'));
        shelf.assert_adds_up();
        shelf.crash();
        assert!(shelf.is_duplicate(1));
        shelf.assert_adds_up();
    });
}

#[test]
fn with_async_an_id_is_seen_at_once_and_a_crash_may_forget_it() {
    each(&[ASYNC, ASYNC_REFUSE], |mut shelf| {
        let first = shelf.fresh(1);
        let _wait = shelf.waits(1);
        assert!(shelf.commit(first).is_none());
        assert_eq!((shelf.mail(), shelf.state(1)), (vec![(2, 'D')], 's'));
        shelf.crash();
        assert_eq!(shelf.state(1), '-');
        shelf.stored(1);
        shelf.crash();
        assert!(shelf.is_duplicate(1));
        shelf.assert_adds_up();
    });
}

/// Two batches are on their way, and the store has the first one.
#[test]
fn a_position_is_that_of_the_batch() {
    each(&[SYNC], |mut shelf| {
        let (first, second) = (shelf.fresh(1), shelf.fresh(2));
        let first = shelf.commit(first).unwrap();
        shelf.take(1);
        let second = shelf.commit(second).unwrap();
        shelf.take(1);
        assert!(shelf.write_one() && first.is_remembered() && !second.is_remembered());
        assert_eq!((shelf.state(1), shelf.state(2)), ('s', 'f'));
        shelf.crash();
        assert_eq!((shelf.state(1), shelf.state(2)), ('s', '-'));
    });
}

#[test]
fn who_asks_to_be_told_of_the_past_is_told_at_once() {
    each(&[SYNC], |mut shelf| {
        let first = shelf.fresh(1);
        let commit = shelf.commit(first).unwrap();
        shelf.write();
        let mailbox = Arc::new(Mailbox::new());
        commit.tell_when(&mailbox);
        assert!(mailbox.take_all().1);
        drop(mailbox);
        shelf.window.tell_when(Position(1000), &Arc::new(Mailbox::new()));
        shelf.stored(2);
    });
}

#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn the_writer_is_woken_and_told_what_is_urgent() {
    each(&[ASYNC], |mut shelf| {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        assert!(!shelf.window.register(&waker));
        let first = shelf.fresh(1);
        assert!(shelf.commit(first).is_none());
        assert_eq!((count.0.load(Relaxed), shelf.window.is_urgent()), (1, false));
        assert!(shelf.window.register(&waker), "there is something to take");
        shelf.write();
        assert!(!shelf.window.register(&waker));
        let (_new, _, forgotten) = shelf.republish(1);
        assert_eq!((count.0.load(Relaxed), shelf.window.is_urgent()), (2, true));
        shelf.take(10);
        assert!(!shelf.window.is_urgent() && !forgotten.as_ref().unwrap().is_remembered());
        shelf.write();
        assert!(forgotten.unwrap().is_remembered());
    });
}

#[test]
fn a_writer_that_collects_is_woken_by_what_is_urgent_only() {
    each(&[ASYNC], |mut shelf| {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        for claim in [1, 2] {
            let fresh = shelf.fresh(claim);
            assert!(shelf.commit(fresh).is_none());
            assert!(shelf.window.has_records() && !shelf.window.register_urgent(&waker));
        }
        assert_eq!(count.0.load(Relaxed), 0, "nobody waits for a commit");
        let (_new, _, _forgotten) = shelf.republish(1);
        assert_eq!(count.0.load(Relaxed), 1);
        assert!(shelf.window.register_urgent(&waker));
        // What was asked for last counts.
        shelf.write();
        assert!(!shelf.window.has_records() && !shelf.window.register_urgent(&waker));
        assert!(!shelf.window.register(&waker));
        let fresh = shelf.fresh(3);
        assert!(shelf.commit(fresh).is_none());
        assert_eq!(count.0.load(Relaxed), 2);
    });
}

// ---- a store that does not work ------------------------------------------------------------------------------------

#[test]
fn a_silent_store_stops_nobody_if_the_rule_is_to_continue() {
    each(&[SYNC], |mut shelf| {
        let first = shelf.fresh(1);
        let _wait = shelf.waits(1);
        let commit = shelf.commit(first).unwrap();
        assert_eq!(commit.overdue(shelf.now), OverdueCommit::AckAnyway);
        assert_eq!((shelf.mail(), shelf.state(1), shelf.facts().unremembered), (vec![(2, 'D')], 's', 1));
        // It is written later, and counted once.
        assert_eq!(commit.overdue(shelf.now), OverdueCommit::AckAnyway);
        shelf.write();
        assert_eq!((shelf.facts().unremembered, shelf.facts().waiting), (1, 0));
        shelf.assert_adds_up();
        shelf.crash();
        assert!(shelf.is_duplicate(1));
    });
}

#[test]
fn a_store_that_fails_stops_nobody_if_the_rule_is_to_continue() {
    each(&[SYNC], |mut shelf| {
        let (first, second) = (shelf.fresh(1), shelf.fresh(2));
        let commit = shelf.commit(first).unwrap();
        commit.tell_when(&shelf.mailbox);
        shelf.take(10);
        shelf.window.store_failed(shelf.now);
        assert!(commit.is_remembered() && shelf.mailbox.take_all().1, "nobody waits for it any more");
        assert!(shelf.commit(second).is_none() && shelf.is_duplicate(2), "nor for what comes now");
        assert_eq!((shelf.facts().unremembered, shelf.facts().down_since), (2, Some(shelf.now)));
        shelf.write();
        assert_eq!(shelf.facts().down_since, None, "what is written says that the store works");
        let third = shelf.fresh(3);
        assert!(shelf.commit(third).is_some());
        shelf.crash();
        assert_eq!([1, 2, 3].map(|key| shelf.state(key)), ['s', 's', '-']);
        shelf.assert_adds_up();
    });
}

#[test]
fn while_a_window_refuses_nothing_is_judged() {
    each(&[SYNC_REFUSE, ASYNC_REFUSE], |mut shelf| {
        shelf.stored(1);
        let second = shelf.fresh(2);
        shelf.window.store_failed(shelf.now);
        let [known, in_flight, new, withdrawn] = [1, 2, 3, 4].map(|key| shelf.pending(key));
        assert_eq!((shelf.facts().waiting_publishes, shelf.mail()), (4, vec![]));
        drop(withdrawn);
        // The question is overdue: the policy is to wait on, under a new ticket.
        let Verdict::Pending(new) = new.overdue(Ticket(50), shelf.now) else { panic!("it judges") };
        let commit = shelf.commit(second);
        if let Some(commit) = &commit {
            assert_eq!(commit.overdue(shelf.now), OverdueCommit::WaitOn);
        }
        shelf.window.store_failed(shelf.now + SECOND);
        assert_eq!(shelf.facts().down_since, Some(shelf.now), "since the first failure");
        shelf.window.store_works(shelf.now);
        let second_is = if commit.is_some() { 'I' } else { 'D' };
        assert_eq!(shelf.mail(), [(3, 'D'), (4, second_is), (50, 'F')]);
        assert_eq!(shelf.facts().waiting_publishes, 0);
        drop((known, in_flight, new));
        shelf.write();
        let unremembered = u64::from(commit.is_none());
        assert_eq!((shelf.state(2), shelf.facts().unremembered), ('s', unremembered));
        shelf.assert_adds_up();
    });
}

/// An operator switches it off, or takes it out of the configuration, to let the traffic flow.
#[test]
fn a_window_that_is_switched_off_holds_nobody_up() {
    each(&[SYNC_REFUSE, ASYNC_REFUSE], |mut shelf| {
        shelf.stored(1);
        let second = shelf.fresh(2);
        shelf.window.store_failed(shelf.now);
        let [known, new] = [1, 3].map(|key| shelf.pending(key));
        let commit = shelf.commit(second);
        let mailbox = Arc::clone(&shelf.mailbox);
        assert!(shelf.window.is_refusing(&mailbox));
        Inspect::set_mode(&*shelf.window, Mode::Off);
        assert!(!shelf.window.is_refusing(&mailbox));
        let verdict = new.overdue(Ticket(50), shelf.now);
        assert_eq!(name(&verdict), 'F');
        assert_eq!(name(&known.overdue(Ticket(51), shelf.now)), 'D');
        if let Some(commit) = &commit {
            assert_eq!(commit.overdue(shelf.now), OverdueCommit::AckAnyway);
        }
        let facts = shelf.facts();
        assert_eq!((facts.waiting_publishes, facts.waiting_commits), (0, 0));
        drop(verdict);
        // It is as strict as before when it is on again.
        Inspect::set_mode(&*shelf.window, Mode::Enforce);
        let again = shelf.pending(4);
        shelf.window.store_works(shelf.now);
        assert_eq!(shelf.mail(), [(5, 'F')]);
        drop(again);
    });
}

/// A question is answered in the same moment in which it is withdrawn. The mail is thrown away, and what it holds with it.
#[test]
fn an_answer_to_a_question_that_was_withdrawn_gives_back_what_it_grants() {
    each(&[SYNC_REFUSE], |mut shelf| {
        shelf.window.store_failed(shelf.now);
        let question = shelf.pending(1);
        shelf.window.store_works(shelf.now);
        let Verdict::InFlight(wait) = question.overdue(Ticket(9), shelf.now) else { panic!("not in flight") };
        assert_eq!(shelf.mail(), [(1, 'F')], "dropped unseen");
        assert_eq!(shelf.mail(), [(9, 'F')], "so the new question is answered");
        drop(wait);
        shelf.assert_adds_up();
    });
}

/// The store fails again while the questions of the first outage are answered.
#[test]
fn a_question_may_have_to_wait_again() {
    each(&[SYNC_REFUSE], |mut shelf| {
        shelf.window.store_failed(shelf.now);
        let _question = shelf.pending(1);
        shelf.window.store_failed(shelf.now);
        shelf.window.store_works(shelf.now);
        shelf.window.store_works(shelf.now);
        let mut mail = shelf.mailbox.take();
        assert_eq!(mail.len(), 1);
        let (_, verdict) = mail.remove(0);
        shelf.window.store_failed(shelf.now);
        let _other = shelf.pending(2);
        assert_eq!((name(&verdict), shelf.facts().waiting_publishes), ('F', 1));
    });
}

// ---- a commit that is not written yet ----------------------------------------------------------------------------------

#[test]
fn nobody_takes_over_from_a_message_that_is_stored() {
    each(&[SYNC, SYNC_REFUSE], |mut shelf| {
        let first = shelf.fresh(1);
        let wait = shelf.waits(1);
        assert!(!wait.waits_on());
        let commit = shelf.commit(first).unwrap();
        let later = shelf.now + HOUR;
        assert!(matches!(wait.take_over(shelf.now, later), TakeOver::Wait { since } if since == later));
        let crowded = shelf.window.clone().take_over(claim(1), shelf.now, later, None);
        assert!(matches!(crowded, TakeOver::Wait { .. }));
        assert!(wait.waits_on() && shelf.window.waits_on(claim(1), None));
        shelf.write();
        assert!(commit.is_remembered());
        assert!(matches!(wait.take_over(shelf.now, later), TakeOver::Answered));
    });
}

#[test]
fn who_took_over_and_fails_gives_the_key_back_to_what_is_stored() {
    each(&[SYNC], |mut shelf| {
        let first = shelf.fresh(1);
        let one = shelf.waits(1);
        let _two = shelf.waits(1);
        let TakeOver::Granted(second) = one.take_over(shelf.now, shelf.now + HOUR) else { panic!("waits") };
        let commit = shelf.commit(first).unwrap();
        second.forget(ForgetCause::Nack);
        assert_eq!((shelf.mail(), shelf.state(1)), (vec![], 'f'));
        shelf.write();
        assert!(commit.is_remembered());
        assert_eq!((shelf.mail(), shelf.state(1)), (vec![(3, 'D')], 's'));
        shelf.assert_adds_up();
    });
}

/// A consumer's message beside another publish is stored, and not written yet. Then the other one is nacked. Its waiter would store the
/// message a second time.
#[test]
fn nobody_is_promoted_while_a_message_of_the_key_is_stored() {
    each(&[SYNC, SYNC_REFUSE], |mut shelf| {
        let first = shelf.fresh(1);
        let _wait = shelf.waits(1);
        let (second, beside, forgotten) = shelf.republish(1);
        assert!(beside && forgotten.is_none(), "there is nothing to forget");
        let commit = shelf.commit(second).unwrap();
        first.forget(ForgetCause::Nack);
        assert_eq!((shelf.mail(), shelf.state(1)), (vec![], 'f'));
        assert!(matches!(shelf.ask(1), Verdict::InFlight(_)));
        shelf.assert_adds_up();
        shelf.write();
        assert!(commit.is_remembered());
        assert_eq!((shelf.mail(), shelf.state(1)), (vec![(2, 'D')], 's'));
        shelf.assert_adds_up();
        shelf.crash();
        assert_eq!(shelf.state(1), 's');
    });
}

#[test]
fn what_is_disowned_before_it_is_written_is_not_seen() {
    for how in 0..3 {
        each(&POLICIES, |mut shelf| {
            let (first, other) = (shelf.fresh(1), shelf.fresh(2));
            let commits = [first, other].map(|reservation| shelf.commit(reservation));
            match how {
                0 => shelf.window.disown(claim(1), shelf.now),
                1 => assert!(shelf.window.forget(claim(1), shelf.now).is_some()),
                _ => assert!(shelf.window.flush(shelf.now).is_some()),
            }
            let other_is = if how == 2 { '-' } else { 's' };
            shelf.write();
            assert!(commits.iter().flatten().all(hapax_core::window::Unremembered::is_remembered));
            assert_eq!([1, 2].map(|key| shelf.state(key)), ['-', other_is]);
            shelf.assert_adds_up();
            shelf.crash();
            assert_eq!([1, 2].map(|key| shelf.state(key)), ['-', other_is]);
            shelf.assert_adds_up();
            // A later publish is remembered as before.
            shelf.stored(1);
            shelf.crash();
            assert_eq!(shelf.state(1), 's');
        });
    }
}

/// The message before was stored, and only its id is not written: it counts, whatever becomes of the consumer's one.
#[test]
fn a_republish_beside_a_commit_that_is_not_written_takes_nothing_from_it() {
    each(&[SYNC, SYNC_REFUSE], |mut shelf| {
        let first = shelf.fresh(1);
        let commit = shelf.commit(first).unwrap();
        let (again, beside, forgotten) = shelf.republish(1);
        assert!(beside && forgotten.is_none());
        again.forget(ForgetCause::Nack);
        shelf.write();
        assert!(commit.is_remembered() && shelf.state(1) == 's');
        shelf.assert_adds_up();
        shelf.crash();
        assert_eq!(shelf.state(1), 's', "its client has an ack");
    });
}

/// The same where the commit that is not written replaces one with another body, which is.
#[test]
fn a_republish_beside_an_unwritten_commit_with_another_body_takes_nothing_from_it() {
    each(&[SYNC], |mut shelf| {
        let first = shelf.fresh(1);
        let _ = first.commit(shelf.now, Memo::new(TTL, BodyDigest::from_bits(6)));
        shelf.write();
        let ask = Ask { claim: claim(1), ticket: Ticket(70) };
        let body = BodyDigest::from_bits(7);
        let Verdict::Fresh(other) = shelf.window.clone().supersede(ask, body, shelf.now, &shelf.mailbox)
        else {
            panic!("not fresh")
        };
        let commit = later(other.commit(shelf.now, Memo::new(TTL, body))).unwrap();
        let (again, _, forgotten) = shelf.republish(1);
        assert!(forgotten.is_none());
        again.forget(ForgetCause::Nack);
        shelf.write();
        assert!(commit.is_remembered());
        shelf.crash();
        assert!(matches!(shelf.ask(1), Verdict::Duplicate(stored) if !stored.differs(body)));
        assert_eq!(shelf.accounting.recovered(), 2);
        shelf.assert_adds_up();
    });
}

#[test]
fn a_message_that_replaces_another_one_is_seen_with_its_own_body_after_a_crash() {
    each(&[SYNC, ASYNC], |mut shelf| {
        let first = shelf.fresh(1);
        let _ = first.commit(shelf.now, Memo::new(TTL, BodyDigest::from_bits(6)));
        shelf.write();
        for (bits, stored) in [(7, false), (8, true)] {
            let ask = Ask { claim: claim(1), ticket: Ticket(70) };
            let body = BodyDigest::from_bits(bits);
            let Verdict::Fresh(other) = shelf.window.clone().supersede(ask, body, shelf.now, &shelf.mailbox)
            else {
                panic!("not fresh")
            };
            match stored {
                true => drop(later(other.commit(shelf.now, Memo::new(TTL, body)))),
                false => other.forget(ForgetCause::Nack),
            }
        }
        shelf.now += SECOND;
        shelf.write();
        assert_eq!(shelf.accounting.evicted(EvictionCause::Superseded), 1);
        shelf.crash();
        let body = BodyDigest::from_bits(8);
        assert!(matches!(shelf.ask(1), Verdict::Duplicate(stored) if stored == body));
        shelf.assert_adds_up();
    });
}

/// (If it were forwarded before, a crash in between would make the message before it count again. The retry would be dropped, and the
/// message that was never stored would be lost.)
#[test]
fn a_republish_goes_when_the_store_has_forgotten_the_message_before() {
    each(&POLICIES, |mut shelf| {
        shelf.stored(1);
        let (again, beside, forgotten) = shelf.republish(1);
        let forgotten = forgotten.expect("it has to wait");
        assert!(!beside && !forgotten.is_remembered());
        forgotten.tell_when(&shelf.mailbox);
        shelf.write();
        assert!(forgotten.is_remembered() && shelf.mailbox.take_all().1);
        // It is forwarded, and the process ends.
        drop(again);
        shelf.crash();
        assert_eq!(shelf.state(1), '-', "its retry passes");
        shelf.stored(1);
        shelf.crash();
        assert_eq!(shelf.state(1), 's', "and is remembered");
        shelf.assert_adds_up();
    });
}

#[test]
fn a_republish_does_not_wait_for_ever_for_a_silent_store() {
    for (policy, then) in [
        (SYNC, OverdueCommit::AckAnyway),
        (ASYNC, OverdueCommit::AckAnyway),
        (SYNC_REFUSE, OverdueCommit::WaitOn),
        (ASYNC_REFUSE, OverdueCommit::WaitOn),
    ] {
        each(&[policy], |mut shelf| {
            shelf.stored(1);
            let (_again, _, forgotten) = shelf.republish(1);
            assert_eq!(forgotten.unwrap().overdue(shelf.now), then);
            assert_eq!(shelf.facts().unremembered, 0, "no id is unremembered");
        });
    }
}

/// Those who wait for it are told that they are duplicates, so a crash must not forget it either.
#[test]
fn an_id_that_is_kept_in_doubt_is_written_first_too() {
    each(&[SYNC, SYNC_REFUSE], |mut shelf| {
        let first = shelf.fresh(1);
        let _wait = shelf.waits(1);
        first.commit_in_doubt(shelf.now, TTL);
        assert_eq!((shelf.mail(), shelf.state(1)), (vec![], 'f'));
        shelf.write();
        assert_eq!((shelf.mail(), shelf.state(1)), (vec![(2, 'D')], 's'));
        assert_eq!((shelf.accounting.committed_in_doubt(), shelf.accounting.committed()), (1, 0));
        shelf.assert_adds_up();
        shelf.crash();
        assert_eq!(shelf.state(1), 's');
    });
    each(&[ASYNC, ASYNC_REFUSE], |mut shelf| {
        shelf.fresh(1).commit_in_doubt(shelf.now, TTL);
        assert_eq!(shelf.state(1), 's');
        shelf.write();
        shelf.crash();
        assert_eq!(shelf.state(1), 's');
    });
}

/// The store may have thrown the commit away by then, or its TTL may be over: what makes an id young again stands by itself.
#[test]
fn an_id_that_duplicates_keep_young_is_young_after_a_crash() {
    each_with(Limits { refresh_on_duplicate: true, ..ROOM }, &POLICIES, |mut shelf| {
        shelf.stored(1);
        shelf.stored(2);
        for _ in 0..3 {
            shelf.now += TTL * 3 / 4;
            assert!(shelf.is_duplicate(1));
        }
        shelf.write();
        shelf.crash();
        assert_eq!([1, 2].map(|key| shelf.state(key)), ['s', '-']);
        shelf.now += TTL * 3 / 4;
        assert_eq!(shelf.state(1), 's');
        shelf.now += TTL / 4;
        assert_eq!(shelf.state(1), '-', "and not for longer");
        shelf.assert_adds_up();
    });
    each(&[SYNC], |mut shelf| {
        shelf.stored(1);
        assert!(shelf.is_duplicate(1) && shelf.unwritten().is_empty(), "nothing is written of others");
    });
}

// ---- bounds ------------------------------------------------------------------------------------------------------------

fn commit_many(shelf: &Shelf, from: u128, count: u128) {
    let commit = |key| Commit { claim: claim(key), turn: Turn(u64::MAX), memo: TTL.into() };
    let commits: Vec<Commit> = (from..from + count).map(commit).collect();
    let _ = shelf.window.commit_all(&commits, shelf.now);
}

/// The oldest commits are dropped. What made ids unknown is not: it would be the loss of a message.
#[test]
fn a_store_that_is_out_of_order_for_long_learns_what_was_forgotten() {
    let mut shelf = Shelf::new(EngineKind::Compact, Limits { capacity: 2_000_000, ..ROOM }, SYNC);
    shelf.stored(1);
    shelf.stored(2);
    shelf.window.store_failed(shelf.now);
    let (again, _, forgotten) = shelf.republish(1);
    commit_many(&shelf, 1000, MANY);
    assert!(shelf.facts().dropped > 0 && shelf.facts().waiting <= 1 + (1 << 20));
    assert_eq!(u128::from(shelf.facts().unremembered), MANY);
    let forgotten = forgotten.unwrap();
    shelf.take(1);
    assert!(shelf.write_one());
    drop(again);
    shelf.write();
    assert!(forgotten.is_remembered());
    shelf.crash();
    assert_eq!(shelf.state(1), '-', "its retry passes");
}

/// So much was forgotten that it is not kept: then everything is.
#[test]
fn a_store_that_missed_too_much_forgets_everything() {
    let mut shelf = Shelf::new(EngineKind::Compact, Limits { capacity: 2_000_000, ..ROOM }, ASYNC);
    shelf.stored(1);
    shelf.stored(2);
    shelf.window.store_failed(shelf.now);
    (1..70_000).for_each(|key| shelf.window.disown(claim(key), shelf.now));
    commit_many(&shelf, 1_000_000, MANY);
    shelf.write();
    shelf.crash();
    assert_eq!([1, 2, 1_000_000].map(|key| shelf.state(key)), ['-'; 3]);
    assert_eq!(shelf.state(1_000_000 + MANY - 1), 's', "the youngest are there");
}

/// Clients wait for these commits: none is dropped, though there are too many.
#[test]
fn a_commit_that_a_client_waits_for_is_not_dropped() {
    let mut shelf = Shelf::new(EngineKind::Compact, ROOM, SYNC);
    let first = shelf.fresh(1);
    let commit = shelf.commit(first).unwrap();
    commit_many(&shelf, 1000, MANY);
    assert_eq!(shelf.facts().dropped, 0);
    shelf.take(1);
    assert!(shelf.write_one() && commit.is_remembered());
    shelf.crash();
    assert_eq!(shelf.state(1), 's');
}

/// Nobody waits for these, and none may be dropped: publishers have to.
#[test]
fn a_store_that_is_too_slow_stops_publishers_if_the_rule_is_to_refuse() {
    let mut shelf = Shelf::new(EngineKind::Compact, ROOM, ASYNC_REFUSE);
    commit_many(&shelf, 1000, MANY);
    let _question = shelf.pending(1);
    assert_eq!(shelf.facts().dropped, 0);
    shelf.take(100);
    assert!(shelf.write_one());
    let _other = shelf.pending(2);
    shelf.write();
    assert_eq!(shelf.mail(), [(1, 'F'), (2, 'F')]);
    assert!(matches!(shelf.ask(3), Verdict::Fresh(_)));
}

// ---- what other relays write ---------------------------------------------------------------------------------------------

#[test]
fn what_another_relay_has_stored_is_a_duplicate_here() {
    each(&POLICIES, |mut shelf| {
        let applied = shelf.merge(vec![seen(&shelf, 1)]);
        assert_eq!((applied.seen, applied.crossed, applied.expired), (1, 0, 0));
        assert!(shelf.is_duplicate(1));
        assert!(shelf.unwritten().is_empty(), "the store has it already");
        assert_eq!((shelf.facts().merged, shelf.facts().recovered), (1, 0));
        shelf.assert_adds_up();
    });
}

#[test]
fn what_crosses_is_counted_and_stays_one_id() {
    each(&POLICIES, |mut shelf| {
        // In flight here: stored here, too.
        let first = shelf.fresh(1);
        assert_eq!(shelf.merge(vec![seen(&shelf, 1)]).crossed, 1);
        let wait = shelf.waits(1);
        let _ = shelf.commit(first);
        shelf.write();
        assert_eq!((shelf.mail(), shelf.state(1)), (vec![(2, 'D')], 's'));
        drop(wait);
        // In flight here: not stored here. Those who wait are duplicates all the same.
        let second = shelf.fresh(2);
        let (_wait, _other) = (shelf.waits(2), shelf.waits(2));
        shelf.merge(vec![seen(&shelf, 2)]);
        second.forget(ForgetCause::Nack);
        assert_eq!((shelf.mail(), shelf.state(2)), (vec![(4, 'D'), (5, 'D')], 's'));
        // Seen here.
        shelf.stored(3);
        assert_eq!(shelf.merge(vec![seen(&shelf, 3)]).crossed, 1);
        assert_eq!((shelf.facts().crossed, shelf.window.entries()), (3, Some(3)));
        shelf.assert_adds_up();
    });
}

/// A consumer publishes a message again whose id comes late from another relay: that id is the one of the message before.
#[test]
fn what_another_relay_has_stored_before_is_no_republish() {
    each(&POLICIES, |mut shelf| {
        let (again, beside, _) = shelf.republish(1);
        let applied = shelf.merge(vec![seen(&shelf, 1)]);
        assert_eq!((beside, applied.seen, applied.crossed), (false, 0, 0));
        again.forget(ForgetCause::Nack);
        assert_eq!(shelf.state(1), '-', "its retry passes");
        let (again, _, _) = shelf.republish(1);
        shelf.merge(vec![seen(&shelf, 1)]);
        let _ = shelf.commit(again);
        shelf.write();
        assert_eq!(shelf.state(1), 's');
        shelf.assert_adds_up();
    });
}

/// Another relay was flushed while this one had no connection: the flush is read when it is back, before its own records are written.
#[test]
fn a_flush_of_another_relay_takes_nothing_that_comes_behind_it_in_the_log() {
    each(&[ASYNC, SYNC], |mut shelf| {
        shelf.stored(1);
        shelf.window.store_failed(shelf.now);
        for key in [2, 3, 4] {
            let reservation = shelf.fresh(key);
            assert!(shelf.commit(reservation).is_none());
        }
        shelf.window.forget(claim(3), shelf.now);
        let (_again, _, _) = shelf.republish(4);
        shelf.merge(vec![Written::Flushed]);
        assert_eq!([1, 2, 3, 4].map(|key| shelf.state(key)), ['-', 's', '-', 'f']);
        shelf.assert_adds_up();
        // With sync, one that is not written is in flight, and seen when it is written.
        shelf.window.store_works(shelf.now);
        let reservation = shelf.fresh(5);
        let _ = shelf.commit(reservation);
        shelf.merge(vec![Written::Flushed]);
        shelf.write();
        assert_eq!((shelf.state(2), shelf.state(5)), ('s', 's'));
        shelf.assert_adds_up();
    });
}

/// The record of the message before comes behind the record that forgets it: the other relay was slow. The copy is not stored.
#[test]
fn a_republish_that_is_not_stored_is_unknown_after_a_crash_too() {
    each(&POLICIES, |mut shelf| {
        for has_waiter in [false, true] {
            let (again, _, _) = shelf.republish(1);
            shelf.write();
            shelf.stored_elsewhere(1);
            let waiter = has_waiter.then(|| shelf.waits(1));
            again.forget(ForgetCause::Nack);
            if let Some(waiter) = waiter {
                // It takes its place, and is not stored, either.
                waiter.answered();
                shelf.write();
                drop(shelf.mailbox.take());
            }
            shelf.write();
            shelf.crash();
            assert_eq!(shelf.state(1), '-', "its retry passes");
        }
        // What was stored in its place stays.
        let (again, _, _) = shelf.republish(1);
        let _ = shelf.commit(again);
        shelf.write();
        let (again, _, _) = shelf.republish(2);
        again.forget(ForgetCause::Nack);
        shelf.stored(2);
        shelf.crash();
        assert_eq!((shelf.state(1), shelf.state(2)), ('s', 's'));
    });
}

#[test]
fn what_is_over_is_not_merged() {
    each(&[SYNC], |mut shelf| {
        let old = seen(&shelf, 1);
        shelf.now += TTL;
        let applied = shelf.merge(vec![old]);
        assert_eq!((applied.seen, applied.expired, shelf.state(1)), (0, 1, '-'));
        shelf.assert_adds_up();
    });
}

/// A clock that is ahead does not lengthen a life. One that is behind by more than the TTL makes an id unknown: relays need one time.
#[test]
fn a_relay_whose_clock_is_an_hour_off() {
    each(&[SYNC], |mut shelf| {
        // (Its clock is ahead of ours, so ours is behind.)
        let applied = shelf.merge_at(vec![seen(&shelf, 1)], HOUR, Duration::ZERO);
        assert_eq!((applied.seen, shelf.state(1)), (1, 's'));
        shelf.now += TTL - Duration::from_millis(1);
        assert_eq!(shelf.state(1), 's');
        shelf.now += Duration::from_millis(2);
        assert_eq!(shelf.state(1), '-', "not for longer than its TTL from now");
        let applied = shelf.merge_at(vec![seen(&shelf, 2)], Duration::ZERO, HOUR);
        assert_eq!((applied.seen, applied.expired, shelf.state(2)), (0, 1, '-'));
        let applied = shelf.merge_at(vec![seen(&shelf, 3)], Duration::ZERO, TTL / 2);
        assert_eq!((applied.seen, shelf.state(3)), (1, 's'));
        shelf.now += TTL / 2;
        assert_eq!(shelf.state(3), '-', "early, by as much as the clock is off");
    });
}

#[test]
fn what_others_touch_forget_flush_and_change_happens_here_too() {
    each(&POLICIES, |mut shelf| {
        (1..=4).for_each(|key| shelf.stored(key));
        shelf.now += TTL / 2;
        let touch = |key, at| Written::Touched {
            claim: claim(key),
            at,
            ttl: TTL,
            body: BodyDigest::UNKNOWN,
            tenant: hapax_core::window::Tenant::COMMON,
        };
        let applied = shelf.merge(vec![
            touch(1, shelf.wall()),
            // It is not known here, and young there.
            touch(9, shelf.wall()),
            Written::Forgotten(claim(2)),
            Written::Forgotten(claim(77)),
        ]);
        assert_eq!((applied.seen, applied.crossed), (1, 0));
        assert_eq!([1, 2, 3, 9].map(|key| shelf.state(key)), ['s', '-', 's', 's']);
        shelf.now += TTL / 2;
        assert_eq!([1, 3, 9].map(|key| shelf.state(key)), ['s', '-', 's']);
        shelf.merge(vec![Written::Flushed]);
        assert_eq!([1, 9].map(|key| shelf.state(key)), ['-', '-']);
        let change = |setting| Change { setting, by: "somebody".into() };
        let changes = [Setting::Capacity(7), Setting::Ttl(SECOND), Setting::Mode(Mode::Observe)].map(change);
        let applied = shelf.merge(changes.iter().cloned().map(Written::Changed).collect());
        assert_eq!(applied.changes, changes);
        let window = &shelf.window;
        assert_eq!((window.capacity(), window.ttl(), window.mode()), (Some(7), SECOND, Mode::Observe));
        assert!(shelf.unwritten().is_empty(), "it is not passed on");
        shelf.merge(vec![Written::Changed(change(Setting::Capacity(usize::MAX)))]);
        assert!(shelf.window.capacity() <= Some(500_000_000));
        shelf.assert_adds_up();
    });
}

/// The configuration says what holds at a start, not what somebody has changed before.
#[test]
fn a_change_is_recorded_and_not_made_again_by_a_crash() {
    each(&[SYNC], |mut shelf| {
        shelf.window.set_ttl(SECOND);
        shelf.window.announce(Change { setting: Setting::Ttl(SECOND), by: "me".into() }, shelf.now);
        assert!(matches!(&shelf.unwritten()[..], [Written::Changed(_)]));
        shelf.write();
        shelf.crash();
        assert_eq!(shelf.window.ttl(), TTL);
    });
}

/// What is forgotten elsewhere while a publish of it is in flight here, and seen, too.
#[test]
fn a_flight_over_a_seen_key_that_is_forgotten_is_an_ordinary_one() {
    each(&[SYNC], |mut shelf| {
        let first = shelf.fresh(1);
        let _wait = shelf.waits(1);
        shelf.merge(vec![seen(&shelf, 1), Written::Forgotten(claim(1))]);
        first.forget(ForgetCause::Nack);
        assert_eq!(shelf.mail(), [(2, 'F')], "promoted");
        shelf.assert_adds_up();
    });
}

#[test]
fn policies_are_what_they_say() {
    let both = POLICIES.map(|policy| (policy.remember, policy.on_outage));
    assert!(
        both.contains(&(Remember::Async, OnOutage::Refuse))
            && both.contains(&(Remember::Sync, OnOutage::Continue))
    );
}
