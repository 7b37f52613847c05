//! Chaos: what a session does on purpose is what the world does, and nothing is lost by it.

use super::desk::{Desk, SECOND, m, publish, unheard};
use super::guard::in_tx;
use super::guard_post::{Post, begin, hidden, job, says, shown};
use crate::support::frames::{Frames, message};
use crate::support::methods::{
    ack, ack_multiple, connection_close, connection_close_ok, consume, consume_acking, consume_ok, give_back,
    nack, queue_declare, queue_declare_ok, recover, recover_ok, tx_commit, tx_commit_ok,
};
use crate::support::pair::Pair;
use amq_protocol::types::AMQPValue;
use hapax_core::session::{ChaosDeed, ChaosFault, ChaosPlan, ChaosShares, ChaosWhat};
use hapax_core::window::{Event, ForgetCause};
use std::time::Duration;

/// A plan for a minute in which this fault always happens.
fn always(pair: &Pair, fault: ChaosFault) -> ChaosPlan {
    ChaosPlan {
        seed: 7,
        shares: ChaosShares::default().with(fault, 1.0),
        hold_for: 5 * SECOND,
        windows: None,
        until: pair.now() + 60 * SECOND,
    }
}

fn begin_chaos(pair: &mut Pair, fault: ChaosFault) {
    let plan = always(pair, fault);
    pair.chaos(Some(plan));
}

fn whats(deeds: &[ChaosDeed]) -> Vec<ChaosWhat> {
    deeds.iter().map(|deed| deed.what).collect()
}

fn done(fault: ChaosFault) -> Vec<ChaosWhat> {
    vec![ChaosWhat::Done(fault)]
}

// ---- drop_acks -------------------------------------------------------------------------------------------------------

#[test]
fn a_dropped_ack_is_of_a_stored_message_and_ends_the_connection() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    begin_chaos(&mut pair, ChaosFault::DropAck);
    publish(&mut pair, &m("a"));
    assert_eq!(pair.deeds(), [], "nothing is stored yet");
    pair.upstream(ack(1, 1));
    assert!(pair.client_is_cut());
    assert_eq!(pair.to_client(), Frames::none(), "no ack, and no word");
    let deeds = pair.deeds();
    assert_eq!(whats(&deeds), done(ChaosFault::DropAck));
    assert_eq!((deeds[0].window.as_deref(), &*deeds[0].place), (Some("test"), &b"x"[..]));
    assert!(desk.is_seen("a"), "it is stored, so its id is seen");
    pair.leave_upstream();
    // The retry is what the team wants to see.
    let mut retry = desk.confirming();
    retry.client(m("a").publish(1));
    assert_eq!((retry.to_upstream(), retry.to_client()), (Frames::none(), ack(1, 1)));
}

#[test]
fn what_is_in_flight_at_a_dropped_ack_is_resolved_as_for_any_client_that_vanishes() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    begin_chaos(&mut pair, ChaosFault::DropAck);
    publish(&mut pair, &m("a"));
    publish(&mut pair, &m("b"));
    publish(&mut pair, &m("c"));
    pair.upstream(ack(1, 1));
    assert!(pair.client_is_cut() && !pair.upstream_closed());
    let mut retry = desk.confirming();
    unheard(&mut retry, m("b").publish(1));
    pair.upstream(ack(1, 2) + nack(1, 3));
    assert_eq!(retry.to_client(), ack(1, 1), "b was stored meanwhile");
    pair.leave_upstream();
    assert_eq!(["a", "b", "c"].map(|id| desk.is_seen(id)), [true, true, false]);
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn neither_a_nack_nor_a_return_is_dropped() {
    let desk = Desk::with(|plan| plan.rules.verify_routing = true);
    let mut pair = desk.confirming();
    begin_chaos(&mut pair, ChaosFault::DropAck);
    pair.client(m("a").publish(1));
    pair.upstream(nack(1, 1));
    assert_eq!((pair.to_client(), pair.deeds()), (nack(1, 1), vec![]));
    pair.to_upstream();
    pair.client(m("b").mandatory().publish(1));
    pair.upstream(m("b").returned(1) + ack(1, 2));
    assert_eq!(pair.to_client(), m("b").returned(1) + ack(1, 2), "it is not stored");
    assert!(pair.deeds().is_empty() && !pair.client_is_cut());
}

// ---- hold_acks -------------------------------------------------------------------------------------------------------

#[test]
fn held_acks_come_late_and_in_their_order() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    begin_chaos(&mut pair, ChaosFault::HoldAcks);
    publish(&mut pair, &m("a"));
    publish(&mut pair, &m("b"));
    pair.upstream(ack(1, 1));
    pair.advance(2 * SECOND);
    pair.upstream(nack(1, 2));
    assert_eq!(pair.to_client(), Frames::none(), "the later one waits behind it");
    assert!(desk.is_seen("a"), "it is stored whatever its client hears");
    pair.advance(3 * SECOND - Duration::from_millis(1));
    assert_eq!(pair.to_client(), Frames::none());
    pair.advance(Duration::from_millis(1));
    assert_eq!(pair.to_client(), nack(1, 2) + ack(1, 1));
    assert_eq!(whats(&pair.deeds()), done(ChaosFault::HoldAcks), "one hold, however many wait");
    assert!(!pair.client_is_cut());
    // The next ack begins the next hold.
    publish(&mut pair, &m("c"));
    pair.upstream(ack(1, 3));
    assert_eq!(pair.to_client(), Frames::none());
    pair.advance(5 * SECOND);
    assert_eq!(pair.to_client(), ack(1, 3));
}

#[test]
fn deliveries_and_replies_pass_held_acks() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    begin_chaos(&mut pair, ChaosFault::HoldAcks);
    publish(&mut pair, &m("a"));
    pair.upstream(ack(1, 1));
    pair.client(queue_declare(1, "q"));
    pair.upstream(queue_declare_ok(1, "q"));
    assert_eq!(pair.to_client(), queue_declare_ok(1, "q"));
    pair.advance(5 * SECOND);
    assert_eq!(pair.to_client(), ack(1, 1));
}

#[test]
fn held_acks_are_written_when_the_run_ends_and_when_the_client_closes() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    begin_chaos(&mut pair, ChaosFault::HoldAcks);
    publish(&mut pair, &m("a"));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), Frames::none());
    pair.chaos(None);
    assert_eq!(pair.to_client(), ack(1, 1));
    begin_chaos(&mut pair, ChaosFault::HoldAcks);
    publish(&mut pair, &m("b"));
    pair.upstream(ack(1, 2));
    pair.client(connection_close(200, "bye"));
    assert_eq!(pair.to_client(), ack(1, 2), "before close-ok");
    pair.upstream(connection_close_ok());
    assert_eq!(pair.to_client(), connection_close_ok());
}

/// Messages whose confirms are held count as unresolved, however long that takes.
#[test]
fn held_acks_have_the_bound_of_unresolved_messages() {
    let desk = Desk::with(|plan| plan.settings.max_unresolved = 100);
    let mut pair = desk.confirming();
    let plan = always(&pair, ChaosFault::HoldAcks);
    pair.chaos(Some(ChaosPlan { hold_for: 50 * SECOND, ..plan }));
    let mut stored = 0;
    for number in 0..1_000 {
        let id = number.to_string();
        pair.client(m(&id).publish(1));
        if pair.to_upstream() != Frames::none() {
            stored += 1;
            pair.upstream(ack(1, stored));
        }
        // And a duplicate of it.
        pair.client(m(&id).publish(1));
    }
    assert_eq!(pair.to_client(), Frames::none());
    assert!(stored <= 110, "{stored} messages have passed");
    assert!(pair.untaken() > 0, "the rest waits outside");
    pair.advance(50 * SECOND);
    assert!(!pair.to_client().is_empty());
}

// ---- cut -------------------------------------------------------------------------------------------------------------

#[test]
fn a_cut_closes_the_socket_without_a_word_and_resolves_what_is_in_flight() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    begin_chaos(&mut pair, ChaosFault::Cut);
    pair.client(m("a").publish(1) + m("b").publish(1));
    assert!(pair.client_is_cut());
    assert_eq!(pair.to_client(), Frames::none());
    assert_eq!(whats(&pair.deeds()), done(ChaosFault::Cut));
    assert_eq!(pair.to_upstream(), m("a").publish(1) + m("b").publish(1), "what was read is stored");
    pair.upstream(ack_multiple(1, 2));
    pair.leave_upstream();
    assert_eq!(["a", "b"].map(|id| desk.is_seen(id)), [true, true]);
}

#[test]
fn a_cut_amid_a_message_forgets_it() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    begin_chaos(&mut pair, ChaosFault::Cut);
    let bytes = m("a").publish(1).encode();
    pair.client_bytes(&bytes[..bytes.len() - 3]);
    assert!(pair.client_is_cut());
    assert!(!desk.is_seen("a"));
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn a_consumer_that_is_cut_gives_back_what_it_has() {
    let post = Post::new();
    let mut pair = post.pair();
    pair.chaos(None);
    begin(&mut pair, consume_acking(1, "q", "c"), "c");
    begin_chaos(&mut pair, ChaosFault::Cut);
    pair.upstream(job("a").deliver(1, "c", 1));
    assert!(pair.client_is_cut());
    assert_eq!(post.in_flight(), 0, "another consumer may have it");
    assert!(!post.is_seen("a"));
}

/// Whoever could lose a message by it is spared, and that is told.
#[test]
fn a_connection_that_would_lose_something_is_spared() {
    let spared = [ChaosWhat::Spared(ChaosFault::Cut)];
    let desk = Desk::new();
    // Without confirms: what is on its way would be lost, and nobody would send it again.
    let mut pair = desk.pair();
    begin_chaos(&mut pair, ChaosFault::Cut);
    pair.client(m("a").publish(1));
    assert_eq!((whats(&pair.deeds()), pair.client_is_cut()), (spared.to_vec(), false));
    // The same, where nobody has watched from the beginning.
    let mut pair = desk.pair();
    pair.client(m("b").publish(1));
    begin_chaos(&mut pair, ChaosFault::Cut);
    pair.client(m("c").publish(1));
    assert_eq!((whats(&pair.deeds()), pair.client_is_cut()), (spared.to_vec(), false));
    // A consumer that does not ack.
    let mut pair = desk.pair();
    pair.chaos(None);
    pair.client(consume(1, "q", "c"));
    pair.upstream(consume_ok(1, "c"));
    begin_chaos(&mut pair, ChaosFault::Cut);
    pair.upstream(m("d").deliver(1, "c", 1));
    assert_eq!((whats(&pair.deeds()), pair.client_is_cut()), (spared.to_vec(), false));
    assert_eq!(pair.to_client().0.last(), m("d").deliver(1, "c", 1).0.last());
}

/// A queue may have a limit for how often it delivers a message. Chaos brings none back twice.
#[test]
fn a_delivery_that_came_back_does_not_come_back_once_more() {
    let spared = [ChaosWhat::Spared(ChaosFault::Cut)];
    let post = Post::new();
    let mut pair = post.consumer();
    begin_chaos(&mut pair, ChaosFault::Cut);
    pair.upstream(job("a").redelivered(1, "c", 1));
    assert_eq!((pair.to_client(), pair.client_is_cut()), (job("a").redelivered(1, "c", 1), false));
    assert_eq!(pair.deeds().last().map(|deed| deed.what), Some(spared[0]));
    // Another one, and it is still there.
    pair.upstream(job("b").deliver(1, "c", 2));
    assert_eq!((whats(&pair.deeds()), pair.client_is_cut()), (spared.to_vec(), false));
    pair.to_client();
    says(&mut pair, ack(1, 1), ack(1, 1));
    pair.upstream(job("d").deliver(1, "c", 3));
    assert!(pair.client_is_cut(), "only new ones are left");
}

/// The same for one that was acked in a transaction: it comes back if there is no `tx.commit-ok`.
#[test]
fn an_ack_in_a_transaction_does_not_count_before_its_commit() {
    let post = Post::new();
    let mut pair = in_tx(&post);
    begin_chaos(&mut pair, ChaosFault::Cut);
    pair.upstream(job("a").redelivered(1, "c", 1));
    pair.to_client();
    for (method, tag) in [(ack(1, 1), 2), (tx_commit(1), 3)] {
        says(&mut pair, method.clone(), method);
        pair.upstream(job(&tag.to_string()).deliver(1, "c", tag));
        assert!(!pair.client_is_cut());
        pair.to_client();
    }
    pair.upstream(tx_commit_ok(1));
    pair.upstream(job("4").deliver(1, "c", 4));
    assert!(pair.client_is_cut());
}

/// A channel that has consumed before it was watched: nobody knows what it holds.
#[test]
fn a_channel_that_was_not_watched_is_spared_while_it_holds_anything() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    begin(&mut pair, consume_acking(1, "q", "c"), "c");
    begin_chaos(&mut pair, ChaosFault::Cut);
    pair.upstream(job("a").deliver(1, "c", 1));
    assert_eq!(
        (whats(&pair.deeds()), pair.client_is_cut()),
        (vec![ChaosWhat::Spared(ChaosFault::Cut)], false)
    );
}

#[test]
fn confirms_are_dropped_only_if_no_other_channel_would_lose_something() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.open(2);
    begin_chaos(&mut pair, ChaosFault::DropAck);
    pair.client(m("other").publish(2));
    pair.to_upstream();
    publish(&mut pair, &m("a"));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    assert_eq!(whats(&pair.deeds()), [ChaosWhat::Spared(ChaosFault::DropAck)]);
}

// ---- redeliver -------------------------------------------------------------------------------------------------------

#[test]
fn a_lost_ack_brings_the_delivery_back_and_the_guard_hides_it() {
    let post = Post::new();
    let mut pair = post.consumer();
    begin_chaos(&mut pair, ChaosFault::Redeliver);
    shown(&mut pair, &job("a"), 1, 1);
    assert_eq!(pair.deeds(), [], "it is not acked yet");
    says(&mut pair, ack(1, 1), give_back(1, 1));
    assert!(post.is_seen("a"), "the client has acked: the job is done");
    let deeds = pair.deeds();
    assert_eq!(whats(&deeds), done(ChaosFault::Redeliver));
    assert_eq!((deeds[0].window.as_deref(), deeds[0].message.is_some()), (Some("guard"), true));
    // It comes again: nobody is shown it, and it is acked for good.
    pair.upstream(job("a").redelivered(1, "c", 2));
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), ack(1, 2)));
    assert_eq!(pair.deeds(), []);
    assert_eq!(post.count_like(|event| matches!(event, Event::Duplicate { .. })), 1);
    let mut other = post.consumer();
    hidden(&mut other, &job("a"), 1);
}

#[test]
fn without_a_guard_the_job_is_shown_twice_and_that_is_told() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    pair.chaos(None);
    begin(&mut pair, consume_acking(1, "q", "c"), "c");
    begin_chaos(&mut pair, ChaosFault::Redeliver);
    shown(&mut pair, &job("a"), 1, 1);
    says(&mut pair, ack(1, 1), give_back(1, 1));
    let before = pair.deeds();
    pair.upstream(job("a").redelivered(1, "c", 2));
    assert_eq!(pair.to_client(), job("a").redelivered(1, "c", 2));
    let again = pair.deeds();
    assert_eq!(whats(&again), [ChaosWhat::ShownAgain]);
    assert!(again[0].message.is_some() && again[0].message == before[0].message, "the same message");
    // It comes again only once.
    says(&mut pair, ack(1, 2), ack(1, 2));
    assert_eq!(pair.deeds(), []);
}

#[test]
fn what_the_client_gives_back_itself_is_its_own_business() {
    let post = Post::new();
    let mut pair = post.consumer();
    begin_chaos(&mut pair, ChaosFault::Redeliver);
    for tag in 1..=3 {
        shown(&mut pair, &job(&tag.to_string()), tag, tag);
    }
    says(&mut pair, give_back(1, 1), give_back(1, 1));
    says(&mut pair, nack(1, 2), nack(1, 2));
    assert_eq!(pair.deeds(), []);
    // A run that is over turns nothing round any more.
    pair.chaos(None);
    says(&mut pair, ack(1, 3), ack(1, 3));
    assert_eq!(pair.deeds(), []);
}

#[test]
fn several_acks_at_once_keep_their_meaning() {
    let post = Post::new();
    let mut pair = post.consumer();
    shown(&mut pair, &job("a"), 1, 1);
    begin_chaos(&mut pair, ChaosFault::Redeliver);
    shown(&mut pair, &job("b"), 2, 2);
    pair.chaos(None);
    let plan = always(&pair, ChaosFault::Redeliver);
    pair.chaos(Some(ChaosPlan { shares: ChaosShares::default(), ..plan }));
    shown(&mut pair, &job("c"), 3, 3);
    pair.client(ack_multiple(1, 3));
    assert_eq!(pair.to_upstream(), ack(1, 1) + ack(1, 3) + give_back(1, 2));
    assert_eq!(["a", "b", "c"].map(|id| post.is_seen(id)), [true; 3]);
}

#[test]
fn an_ack_in_a_transaction_is_left_alone() {
    let post = Post::new();
    let mut pair = in_tx(&post);
    begin_chaos(&mut pair, ChaosFault::Redeliver);
    shown(&mut pair, &job("a"), 1, 1);
    says(&mut pair, ack(1, 1), ack(1, 1));
    says(&mut pair, tx_commit(1), tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    assert!(post.is_seen("a"));
    assert_eq!(pair.deeds(), []);
}

#[test]
fn deliveries_that_the_broker_takes_back_are_forgotten() {
    let post = Post::new();
    let mut pair = post.consumer();
    begin_chaos(&mut pair, ChaosFault::Redeliver);
    shown(&mut pair, &job("a"), 1, 1);
    says(&mut pair, recover(1), recover(1));
    pair.upstream(recover_ok(1));
    assert_eq!(pair.to_client(), recover_ok(1));
    pair.upstream(job("a").redelivered(1, "c", 2));
    assert_eq!(pair.to_client(), job("a").redelivered(1, "c", 2));
    says(&mut pair, ack(1, 2), ack(1, 2));
    assert_eq!(whats(&pair.deeds()), [ChaosWhat::ShownAgain]);
}

// ---- replay ----------------------------------------------------------------------------------------------------------

#[test]
fn fresh_publishes_are_kept_as_they_were_sent() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    begin_chaos(&mut pair, ChaosFault::Replay);
    publish(&mut pair, &m("a"));
    pair.upstream(ack(1, 1));
    pair.client(m("a").publish(1));
    let kept = pair.kept();
    assert_eq!(kept.len(), 1, "a duplicate is not kept");
    assert_eq!(pair.to_client(), ack(1, 1) + ack(1, 2));
    let parts = (&*kept[0].vhost, &*kept[0].exchange, &*kept[0].routing_key, &kept[0].body[..]);
    assert_eq!(parts, (&b"/"[..], &b"x"[..], &b"k"[..], &b"body"[..]));
    assert_eq!((&*kept[0].window, kept[0].claim), ("test", super::desk::key("a").into()));
    pair.chaos(None);
    publish(&mut pair, &m("b"));
    assert_eq!(pair.kept(), []);
}

#[test]
fn a_transaction_is_not_kept_because_it_may_be_rolled_back() {
    let desk = Desk::new();
    let mut pair = desk.in_tx();
    begin_chaos(&mut pair, ChaosFault::Replay);
    // (Without a body it is whole when its header has come.)
    pair.client(message("x", "k").id("a").publish(1) + m("b").publish(1));
    assert_eq!(pair.kept(), []);
}

/// The user who publishes again is another one, so it would not be a duplicate.
#[test]
fn a_message_whose_id_is_its_users_own_is_not_kept() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    begin_chaos(&mut pair, ChaosFault::Replay);
    let keys = |key: &str| AMQPValue::FieldArray(vec![AMQPValue::LongString(key.into())].into());
    for header in ["CC", "BCC"] {
        publish(&mut pair, &m(header).header(header, keys("other")));
        assert_eq!(pair.kept(), [], "{header}");
    }
    publish(&mut pair, &m("same").header("CC", keys("k")));
    assert_eq!(pair.kept().len(), 1, "it names no other key");
}

// ---- who, and how long -----------------------------------------------------------------------------------------------

#[test]
fn a_run_ends_by_itself() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    begin_chaos(&mut pair, ChaosFault::Cut);
    pair.advance(60 * SECOND);
    publish(&mut pair, &m("a"));
    assert!(!pair.client_is_cut());
    assert_eq!(pair.deeds(), []);
}

#[test]
fn only_the_messages_of_the_chosen_windows_are_troubled() {
    let desk = Desk::new();
    for (window, is_cut) in [("other", false), ("test", true)] {
        for fault in [ChaosFault::DropAck, ChaosFault::Cut] {
            let mut pair = desk.confirming();
            let plan = always(&pair, fault);
            pair.chaos(Some(ChaosPlan { windows: Some(Box::from([window.into()])), ..plan }));
            let id = format!("{window} {fault:?}");
            publish(&mut pair, &m(&id));
            pair.upstream(ack(1, 1));
            pair.client(m(&format!("{id} 2")).publish(1));
            assert_eq!(pair.client_is_cut(), is_cut, "{fault:?}");
        }
    }
}

/// The same traffic gets the same trouble.
#[test]
fn a_seed_replays_its_decisions() {
    let run = |seed| {
        let desk = Desk::new();
        let mut pair = desk.confirming();
        let plan = always(&pair, ChaosFault::HoldAcks);
        let shares = ChaosShares::default().with(ChaosFault::HoldAcks, 0.2);
        pair.chaos(Some(ChaosPlan { seed, shares, hold_for: Duration::from_millis(1), ..plan }));
        let mut held = Vec::new();
        for tag in 1..=50 {
            publish(&mut pair, &m(&tag.to_string()));
            pair.upstream(ack(1, tag));
            if pair.to_client() == Frames::none() {
                held.push(tag);
            }
            pair.advance(Duration::from_millis(1));
            pair.to_client();
        }
        held
    };
    let (one, again, other) = (run(1), run(1), run(2));
    assert_eq!(one, again);
    assert_ne!(one, other);
    assert!((3..25).contains(&one.len()), "{one:?}");
}

/// A message to `x` with `k` that carries no id is troubled, too, as long as no window is named.
#[test]
fn messages_without_an_id_are_troubled_but_never_kept() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    begin_chaos(&mut pair, ChaosFault::Replay);
    pair.client(message("x", "k").body("body").publish(1));
    assert_eq!(pair.kept(), []);
    begin_chaos(&mut pair, ChaosFault::DropAck);
    pair.upstream(ack(1, 1));
    assert!(pair.client_is_cut());
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::InDoubt)), 0);
}

/// A stream takes nothing back: the broker closes the connection of who tries.
#[test]
fn a_delivery_from_a_stream_is_not_redelivered() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    pair.chaos(None);
    begin(&mut pair, consume_acking(1, "log", "c"), "c");
    begin_chaos(&mut pair, ChaosFault::Redeliver);
    let of_stream = job("a").header("x-stream-offset", AMQPValue::LongLongInt(7));
    shown(&mut pair, &of_stream, 1, 1);
    says(&mut pair, ack(1, 1), ack(1, 1));
    assert_eq!(pair.deeds(), []);
}
