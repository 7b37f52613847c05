//! Transcripts in which two things happen at the same time: a publish is given up while others are judged, for
//! example.

use super::base;
use super::examples::Relay;
use super::redis::Redis;
use hapax_core::window::{
    Claim, ForgetCause, Inspect, Key, Mailbox, Ticket, Verdict, Wait, reserve_one,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
