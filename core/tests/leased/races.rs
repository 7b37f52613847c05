//! Transcripts in which two things happen at the same time: a publish is given up while others are judged, or an id is forgotten while the
//! reply of Redis about it is on its way.

use super::base;
use super::examples::Relay;
use super::redis::{Command, Redis, write};
use hapax_core::window::leased::{Answer, Question};
use hapax_core::window::logged::{Batch, RelayId, Written};
use hapax_core::window::{
    Claim, Committed, ForgetCause, Inspect, Key, Mailbox, Ticket, Verdict, Wait, reserve_one,
};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const TTL: Duration = Duration::from_secs(600);

fn id() -> Claim {
    Key(7).into()
}

/// A publish of another session.
fn ask(relay: &Relay, mailbox: &Arc<Mailbox>, now: Instant) -> Wait {
    match reserve_one(&relay.window, id(), now, mailbox, Ticket(0)) {
        Verdict::Pending(wait) | Verdict::InFlight(wait) => wait,
        other => panic!("{other:?}"),
    }
}

/// Takes the question that is out, and has Redis answer it. The answer is on its way.
fn asked(relay: &Relay, redis: &mut Redis, now: Instant) -> (Question, Answer) {
    let question = relay.window.take_questions(1).pop().expect("a question");
    let (value, life) = (relay.window.value(&question), relay.window.lease_time(question.lease));
    let answer = redis.execute(Command::Ask(question.clone(), value, life), now);
    (question, answer)
}

/// Another relay tells that it has the id forgotten.
fn told(relay: &Relay, now: Instant) {
    let batch = Batch { relay: RelayId(9), records: vec![Written::Forgotten(id())] };
    relay.window.merge(&batch, now, SystemTime::UNIX_EPOCH);
}

/// Two sessions wait for the lease, and the first one is over. Its publish is given up as soon as it is let through, and the lease with it. The
/// second one must not be let through without a lease.
#[test]
fn a_publish_that_is_given_up_at_once_leaves_the_next_one_a_lease() {
    let (now, mut redis) = (base(), Redis::default());
    let (one, mut other) = (Relay::new(1, now), Relay::new(2, now));
    let mailboxes: [Arc<Mailbox>; 2] = std::array::from_fn(|_| Arc::default());
    let _waits = mailboxes.each_ref().map(|mailbox| ask(&one, mailbox, now));
    mailboxes[0].close();
    redis.serve(&one.window, now);
    let letters = mailboxes[1].take();
    let Some((_, Verdict::Fresh(second))) = letters.into_iter().next_back() else {
        panic!("not let through")
    };
    assert_eq!((redis.leases(now), one.window.leases()), (1, 1));
    drop(other.elsewhere(7, &mut redis, now));
    second.forget(ForgetCause::Nack);
    redis.serve(&one.window, now);
    assert_eq!((redis.leases(now), one.window.leases()), (0, 0));
    other.fresh(7, &mut redis, now).forget(ForgetCause::Nack);
}

/// A session ends while the letter is in its mailbox that says: another relay has the id. That letter holds the mailbox. Nothing stays.
#[test]
fn a_session_that_ends_with_mail_holds_no_id() {
    let (now, mut redis) = (base(), Redis::default());
    let (mut one, other) = (Relay::new(1, now), Relay::new(2, now));
    let first = one.fresh(7, &mut redis, now);
    let mailbox = Arc::new(Mailbox::new());
    ask(&other, &mailbox, now).answered();
    redis.serve(&other.window, now);
    assert_eq!(other.window.store(now).unwrap().waiting_publishes, 1);
    mailbox.close();
    drop(mailbox);
    assert_eq!(other.window.store(now).unwrap().waiting_publishes, 0);
    first.forget(ForgetCause::Nack);
    redis.serve(&one.window, now);
    other.window.handle_timeout(now + TTL);
    redis.serve(&other.window, now);
    assert_eq!((redis.leases(now), other.window.in_flight()), (0, Some(0)));
}

/// Redis has said "seen", and then the id is forgotten, here or at another relay, before the reply is read. The reply is no news any more.
#[test]
fn an_answer_that_is_older_than_a_forget_is_not_believed() {
    for is_told in [true, false] {
        let (now, mut redis) = (base(), Redis::default());
        let (mut one, mut other) = (Relay::new(1, now), Relay::new(2, now));
        one.store(7, &mut redis, now);
        let Verdict::Pending(wait) = other.ask(7, now) else { panic!("known") };
        // (The value, and then for how long Redis has it.)
        let (question, answer) = asked(&other, &mut redis, now);
        other.window.answer(&question, answer, now);
        let (question, answer) = asked(&other, &mut redis, now);
        if is_told {
            one.window.forget(id(), now);
            redis.serve(&one.window, now);
            told(&other, now);
        } else {
            other.window.forget(id(), now);
        }
        other.window.answer(&question, answer, now);
        assert!(other.mailbox.take().is_empty(), "it asks again");
        redis.serve(&other.window, now);
        let Some((_, Verdict::Fresh(again))) = other.mailbox.take().pop() else { panic!("not forgotten") };
        wait.answered();
        again.forget(ForgetCause::Nack);
        redis.serve(&other.window, now);
        [&one, &other].into_iter().for_each(Relay::adds_up);
    }
}

/// Redis has written a commit, and then another relay has the id forgotten, before the first relay knows that it is written.
#[test]
fn a_commit_that_is_older_than_a_forget_is_not_remembered() {
    let (now, mut redis) = (base(), Redis::default());
    let (mut one, other) = (Relay::new(1, now), Relay::new(2, now));
    let committed = one.fresh(7, &mut redis, now).commit(now, TTL);
    let (records, position) = one.window.log().take(10).expect("a record");
    for record in &records {
        redis.execute(write(&one.window, record, now), now);
    }
    other.window.forget(id(), now);
    redis.serve(&other.window, now);
    told(&one, now);
    one.window.log().written(position, now);
    assert!(matches!(committed, Committed::Later(unremembered) if unremembered.is_remembered()));
    one.fresh(7, &mut redis, now).forget(ForgetCause::Nack);
    redis.serve(&one.window, now);
    [&one, &other].into_iter().for_each(Relay::adds_up);
}

/// A renewal that waits to be sent while its publish is committed and forgotten would be a lease that nobody gives back.
#[test]
fn a_lease_is_not_renewed_after_the_outcome_of_its_publish() {
    let (now, mut redis) = (base(), Redis::default());
    let mut one = Relay::new(1, now);
    let reservation = one.fresh(7, &mut redis, now);
    one.window.handle_timeout(now + TTL);
    let questions = one.window.take_questions(10);
    assert!(questions.len() == 1 && one.window.is_to_be_asked(&questions[0]));
    reservation.commit(now, TTL);
    assert!(!one.window.is_to_be_asked(&questions[0]));
}
