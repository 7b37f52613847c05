//! The guard of consumers: what is shown, what is hidden, what waits, and the delivery tags of both sides.

use super::desk::cut;
use super::guard_post::{Post, begin, done, hidden, job, quiet, says, shown, waits};
use crate::support::frames::{Frames, message};
use crate::support::methods::{
    ack, ack_multiple, channel_close, channel_close_for, channel_close_ok, channel_open, channel_open_ok,
    confirm_select, consume, consume_acking, consume_ok, give_back, nack, nack_multiple, queue_declare,
    queue_declare_ok, recover, recover_async, recover_ok, reject, tx_commit, tx_commit_ok, tx_rollback,
    tx_rollback_ok, tx_select, tx_select_ok,
};
use crate::support::pair::Pair;
use amq_protocol::protocol::{AMQPClass, basic};
use amq_protocol::types::{AMQPValue, FieldTable};
use hapax_core::window::{Event, ForgetCause, Mode};
use hapax_core::wire::IdSource;

#[test]
fn what_a_consumer_has_acked_is_acked_and_not_shown_again() {
    let post = Post::new();
    let (mut one, mut other) = (post.consumer(), post.consumer());
    shown(&mut one, &job("a"), 1, 1);
    assert!(!post.is_seen("a"));
    says(&mut one, ack(1, 1), ack(1, 1));
    assert!(post.is_seen("a"));
    hidden(&mut one, &job("a"), 2);
    shown(&mut one, &job("b"), 3, 2);
    says(&mut one, ack(1, 2), ack(1, 3));
    hidden(&mut other, &job("a"), 1);
    hidden(&mut other, &job("b"), 2);
    shown(&mut other, &job("c"), 3, 1);
    assert_eq!(post.count_like(|event| matches!(event, Event::Duplicate { .. })), 3);
    assert_eq!(post.count_like(|event| matches!(event, Event::Fresh { .. })), 3);
}

#[test]
fn what_a_consumer_gives_back_is_shown_again() {
    let post = Post::new();
    let mut pair = post.consumer();
    for (tag, settle) in
        [nack(1, 1), give_back(1, 2), reject(1, 3, true), reject(1, 4, false)].into_iter().enumerate()
    {
        let tag = tag as u64 + 1;
        shown(&mut pair, &job("a"), tag, tag);
        says(&mut pair, settle.clone(), settle);
    }
    shown(&mut pair, &job("a"), 5, 5);
    assert_eq!(post.count_like(|event| *event == Event::Forgotten(ForgetCause::Nack)), 4);
}

#[test]
fn a_copy_waits_for_the_outcome_and_is_hidden_if_the_other_is_acked() {
    let post = Post::new();
    let (mut one, mut other) = (post.consumer(), post.consumer());
    shown(&mut one, &job("a"), 1, 1);
    waits(&mut other, &job("a"), 1);
    // What comes behind it need not wait.
    shown(&mut other, &job("b"), 2, 1);
    says(&mut one, ack(1, 1), ack(1, 1));
    assert_eq!((other.to_client(), other.to_upstream()), (Frames::none(), ack(1, 1)));
    says(&mut other, ack(1, 1), ack(1, 2));
    assert_eq!(post.count_like(|event| *event == Event::InFlight), 1);
}

#[test]
fn a_copy_is_shown_if_the_other_is_given_back() {
    let post = Post::new();
    let (mut one, mut other) = (post.consumer(), post.consumer());
    shown(&mut one, &job("a"), 1, 1);
    waits(&mut other, &job("a"), 1);
    shown(&mut other, &job("b"), 2, 1);
    says(&mut one, nack(1, 1), nack(1, 1));
    assert_eq!(other.to_client(), job("a").deliver(1, "c", 2));
    says(&mut other, ack(1, 2), ack(1, 1));
    assert!(post.is_seen("a") && !post.is_seen("b"));
}

#[test]
fn the_next_copy_is_shown_and_the_others_follow_it() {
    let post = Post::with(|terms| terms.waiters = 2, |window| window);
    let mut pair = post.consumer();
    shown(&mut pair, &job("a"), 1, 1);
    for tag in 2..=50 {
        waits(&mut pair, &job("a"), tag);
    }
    pair.client(nack(1, 1));
    assert_eq!(pair.to_client(), job("a").deliver(1, "c", 2));
    assert_eq!(pair.to_upstream(), nack(1, 1));
    pair.client(ack(1, 2));
    // All copies go at once.
    assert_eq!(pair.to_upstream(), ack(1, 2) + ack_multiple(1, 50));
    quiet(&mut pair);
}

/// The work of one event has a bound.
#[test]
fn very_many_copies_go_in_several_steps() {
    let post = Post::new();
    let mut pair = post.consumer();
    shown(&mut pair, &job("a"), 1, 1);
    let copies =
        (2..=5_000).map(|tag| job("a").deliver(1, "c", tag)).fold(Frames::none(), |all, one| all + one);
    pair.upstream(copies);
    quiet(&mut pair);
    pair.client(ack(1, 1));
    assert_eq!(pair.to_upstream(), ack(1, 1) + ack_multiple(1, 1_025));
    pair.advance(std::time::Duration::ZERO);
    assert_eq!(pair.to_upstream().0.pop().unwrap(), ack_multiple(1, 5_000).0.pop().unwrap());
}

#[test]
fn one_that_finds_no_room_to_wait_asks_again() {
    let post = Post::with(|terms| terms.waiters = 1, |window| window);
    let (mut one, mut other, mut third) = (post.consumer(), post.consumer(), post.consumer());
    shown(&mut one, &job("a"), 1, 1);
    waits(&mut other, &job("a"), 1);
    waits(&mut third, &job("a"), 1);
    says(&mut one, ack(1, 1), ack(1, 1));
    assert_eq!(other.to_upstream(), ack(1, 1));
    quiet(&mut third);
    third.advance(std::time::Duration::from_millis(100));
    assert_eq!((third.to_client(), third.to_upstream()), (Frames::none(), ack(1, 1)));
}

#[test]
fn multiple_means_what_the_client_has_been_shown() {
    let post = Post::new();
    done(&post, "old");
    let (mut one, mut pair) = (post.consumer(), post.consumer());
    shown(&mut one, &job("held"), 1, 1);
    shown(&mut pair, &job("a"), 1, 1);
    hidden(&mut pair, &job("old"), 2);
    shown(&mut pair, &job("b"), 3, 2);
    waits(&mut pair, &job("held"), 4);
    shown(&mut pair, &job("c"), 5, 3);
    shown(&mut pair, &job("d"), 6, 4);
    // 4 is not the client's, so it may not be acked with the others.
    says(&mut pair, ack_multiple(1, 3), ack_multiple(1, 3) + ack(1, 5));
    says(&mut one, nack(1, 1), nack(1, 1));
    assert_eq!(pair.to_client(), job("held").deliver(1, "c", 5));
    shown(&mut pair, &job("e"), 7, 6);
    says(&mut pair, nack_multiple(1, 0), nack_multiple(1, 7));
    assert_eq!(
        ["a", "b", "c", "d", "e", "held"].map(|id| post.is_seen(id)),
        [true, true, true, false, false, false]
    );
    says(&mut pair, ack_multiple(1, 0), Frames::none());
}

#[test]
fn an_unknown_tag_is_refused_as_rabbitmq_refuses_it() {
    for (settle, tag, method) in [
        (ack(1, 2), 2, (60, 80)),
        (ack(1, 0), 0, (60, 80)),
        (ack_multiple(1, 7), 7, (60, 80)),
        (nack(1, 2), 2, (60, 120)),
        (reject(1, 2, true), 2, (60, 90)),
        (ack(1, 1) + ack(1, 1), 1, (60, 80)),
        (ack(1, 1) + ack_multiple(1, 1), 1, (60, 80)),
    ] {
        let post = Post::new();
        done(&post, "old");
        let mut pair = post.consumer();
        shown(&mut pair, &job("a"), 1, 1);
        hidden(&mut pair, &job("old"), 2);
        pair.client(settle);
        let text = format!("PRECONDITION_FAILED - unknown delivery tag {tag}");
        assert_eq!(pair.to_client(), channel_close_for(1, 406, &text, method));
        assert_eq!(post.in_flight(), 0);
    }
}

#[test]
fn hidden_ones_that_come_together_are_acked_together() {
    let post = Post::new();
    (1..=3).for_each(|n| done(&post, &n.to_string()));
    let mut pair = post.consumer();
    let copies = (1..=3).map(|n| job(&n.to_string()).deliver(1, "c", n));
    pair.upstream(copies.fold(Frames::none(), |all, one| all + one) + job("new").deliver(1, "c", 4));
    assert_eq!(pair.to_client(), job("new").deliver(1, "c", 1));
    assert_eq!(pair.to_upstream(), ack_multiple(1, 3));
}

#[test]
fn two_copies_in_one_read_are_one_and_a_waiter() {
    let post = Post::new();
    let mut pair = post.consumer();
    pair.upstream(job("a").deliver(1, "c", 1) + job("a").deliver(1, "c", 2) + job("b").deliver(1, "c", 3));
    assert_eq!(pair.to_client(), job("a").deliver(1, "c", 1) + job("b").deliver(1, "c", 2));
    says(&mut pair, ack_multiple(1, 2), ack(1, 1) + ack(1, 3) + ack(1, 2));
}

#[test]
fn a_consumer_that_does_not_ack_is_done_when_it_is_sent() {
    let post = Post::new();
    let mut pair = post.pair();
    begin(&mut pair, consume(1, "q", "c"), "c");
    shown(&mut pair, &job("a"), 1, 1);
    assert!(post.is_seen("a"));
    pair.upstream(job("a").deliver(1, "c", 2));
    quiet(&mut pair);
    shown(&mut pair, &job("b"), 3, 2);
    pair.client(ack(1, 2));
    assert!(format!("{:?}", pair.to_client()).contains("unknown delivery tag 2"), "it has nothing to ack");
}

#[test]
fn a_copy_for_a_consumer_that_does_not_ack_waits_too() {
    let post = Post::new();
    let (mut one, mut pair) = (post.consumer(), post.pair());
    begin(&mut pair, consume(1, "q", "c"), "c");
    shown(&mut one, &job("a"), 1, 1);
    shown(&mut one, &job("b"), 2, 2);
    waits(&mut pair, &job("a"), 1);
    waits(&mut pair, &job("b"), 2);
    says(&mut one, ack(1, 1) + nack(1, 2), ack(1, 1) + nack(1, 2));
    assert_eq!((pair.to_client(), pair.to_upstream()), (job("b").deliver(1, "c", 1), Frames::none()));
    assert!(post.is_seen("b"));
}

// ---- which queue, which id -------------------------------------------------------------------------------------------

#[test]
fn each_queue_has_its_own_ids() {
    let post = Post::new();
    let mut pair = post.consumer();
    begin(&mut pair, consume_acking(1, "r", "d"), "d");
    shown(&mut pair, &job("a"), 1, 1);
    pair.upstream(job("a").deliver(1, "d", 2));
    assert_eq!(pair.to_client(), job("a").deliver(1, "d", 2));
    says(&mut pair, ack(1, 2), ack(1, 2));
    assert!(post.is_seen_in("r", "a") && !post.is_seen("a"));
}

#[test]
fn a_queue_without_a_guard_shares_the_tags_only() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = post.consumer();
    begin(&mut pair, consume_acking(1, "free", "d"), "d");
    hidden(&mut pair, &job("a"), 1);
    pair.upstream(job("a").deliver(1, "d", 2) + job("a").deliver(1, "d", 3));
    assert_eq!(pair.to_client(), job("a").deliver(1, "d", 1) + job("a").deliver(1, "d", 2));
    says(&mut pair, ack_multiple(1, 2), ack_multiple(1, 3));
}

#[test]
fn a_vhost_without_guards_is_left_alone() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = post.at("other");
    begin(&mut pair, consume_acking(1, "q", "c"), "c");
    shown(&mut pair, &job("a"), 1, 1);
    says(&mut pair, ack(1, 7), ack(1, 7));
}

#[test]
fn an_empty_name_is_the_queue_that_was_declared_last() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = post.pair();
    says(
        &mut pair,
        queue_declare(1, "q") + consume_acking(1, "", "c"),
        queue_declare(1, "q") + consume_acking(1, "", "c"),
    );
    pair.upstream(queue_declare_ok(1, "q") + consume_ok(1, "c"));
    pair.to_client();
    hidden(&mut pair, &job("a"), 1);
}

#[test]
fn names_that_the_broker_gives_are_learned_in_their_order() {
    let post = Post::new();
    let mut pair = post.pair();
    // A queue without a name, and two consumers of it without tags; one reads a queue without a guard.
    let said = queue_declare(1, "")
        + consume_acking(1, "", "")
        + consume_acking(1, "free", "")
        + consume_acking(1, "", "");
    says(&mut pair, said.clone(), said);
    let answers =
        queue_declare_ok(1, "amq.gen-1") + consume_ok(1, "t1") + consume_ok(1, "t2") + consume_ok(1, "t3");
    pair.upstream(answers.clone());
    assert_eq!(pair.to_client(), answers);
    for (consumer, tag) in [("t1", 1), ("t2", 2)] {
        pair.upstream(job("a").deliver(1, consumer, tag));
        assert_eq!(pair.to_client(), job("a").deliver(1, consumer, tag));
    }
    says(&mut pair, ack_multiple(1, 2), ack_multiple(1, 2));
    assert!(post.is_seen_in("amq.gen-1", "a") && !post.is_seen_in("free", "a"));
    pair.upstream(job("a").deliver(1, "t3", 3));
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), ack(1, 3)));
}

#[test]
fn a_consumer_without_a_tag_that_is_not_answered_gets_one() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = post.pair();
    let nowait = |tag: &str| {
        let consume = basic::Consume {
            queue: "q".into(),
            consumer_tag: tag.into(),
            nowait: true,
            ..Default::default()
        };
        Frames::method(1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)))
    };
    says(&mut pair, nowait(""), nowait("hapax.ctag-1"));
    pair.upstream(job("a").deliver(1, "hapax.ctag-1", 1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), ack(1, 1)));
}

#[test]
fn streams_and_direct_replies_are_left_alone() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = post.pair();
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let of = basic::Consume { queue: "q".into(), consumer_tag: "c".into(), arguments, ..Default::default() };
    begin(&mut pair, Frames::method(1, AMQPClass::Basic(basic::AMQPMethod::Consume(of))), "c");
    shown(&mut pair, &job("a"), 1, 1);
    begin(&mut pair, consume(1, "amq.rabbitmq.reply-to", "d"), "d");
    let reply = job("a").deliver(1, "d", 2) + job("a").deliver(1, "d", 3);
    pair.upstream(reply.clone());
    assert_eq!(pair.to_client(), reply);
    // One that does not say that it reads a stream: the broker says it with each delivery.
    begin(&mut pair, consume_acking(1, "q", "e"), "e");
    let message = job("a").header("x-stream-offset", AMQPValue::LongLongInt(4));
    pair.upstream(message.deliver(1, "e", 4));
    assert_eq!(pair.to_client(), message.deliver(1, "e", 4));
}

#[test]
fn what_has_no_id_or_is_exempt_is_shown() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = post.consumer();
    let without = message("x", "k").body("work");
    shown(&mut pair, &without, 1, 1);
    shown(&mut pair, &without, 2, 2);
    shown(&mut pair, &job("a").bypass(), 3, 3);
    let odd = job("a").header("x-death", AMQPValue::LongString("?".into()));
    shown(&mut pair, &odd, 4, 4);
    hidden(&mut pair, &job("a"), 5);
    assert_eq!(post.count_like(|event| *event == Event::NoId), 2);
}

/// A consumer that has put it into a queue for later has acked it, and gets it again.
#[test]
fn a_message_that_has_died_and_came_back_is_another_one() {
    let post = Post::new();
    let mut pair = post.consumer();
    let died = |count: i64| {
        let mut death = FieldTable::default();
        death.insert("queue".into(), AMQPValue::LongString("later".into()));
        death.insert("reason".into(), AMQPValue::LongString("expired".into()));
        death.insert("count".into(), AMQPValue::LongLongInt(count));
        job("a").header("x-death", AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()))
    };
    for (tag, message) in [job("a"), died(1), died(2)].into_iter().enumerate() {
        let tag = tag as u64 + 1;
        shown(&mut pair, &message, 2 * tag - 1, tag);
        says(&mut pair, ack(1, tag), ack(1, 2 * tag - 1));
        hidden(&mut pair, &message, 2 * tag);
    }
}

#[test]
fn the_id_may_be_the_body() {
    let post = Post::with(|terms| terms.id = IdSource::Body, |window| window);
    let mut pair = post.consumer();
    let message = |body: &str| message("x", "k").body(body).frame_size(11);
    shown(&mut pair, &message("abcdef"), 1, 1);
    says(&mut pair, ack(1, 1), ack(1, 1));
    // Once whole in a read, once frame by frame.
    hidden(&mut pair, &message("abcdef"), 2);
    for frame in message("abcdef").deliver(1, "c", 3) {
        assert_eq!(pair.to_upstream(), Frames::none());
        pair.upstream(frame.into());
    }
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), ack(1, 3)));
    let other = message("abcdeg").deliver(1, "c", 4);
    other.into_iter().for_each(|frame| pair.upstream(frame.into()));
    assert_eq!(pair.to_client(), message("abcdeg").deliver(1, "c", 2));
    shown(&mut pair, &message(""), 5, 3);
}

#[test]
fn an_observing_guard_counts_and_shows() {
    let post = Post::with(|terms| terms.mode = Mode::Observe, |window| window);
    let mut pair = post.consumer();
    for tag in [1, 2] {
        shown(&mut pair, &job("a"), tag, tag);
    }
    says(&mut pair, ack_multiple(1, 2), ack_multiple(1, 2));
    shown(&mut pair, &job("a"), 3, 3);
    assert_eq!(post.count_like(|event| matches!(event, Event::Duplicate { .. })), 1);
    post.window.set_mode(Mode::Off);
    shown(&mut pair, &job("a"), 4, 4);
}

// ---- frames ----------------------------------------------------------------------------------------------------------

#[test]
fn deliveries_that_come_frame_by_frame_are_as_those_that_come_whole() {
    let post = Post::new();
    done(&post, "old");
    let (mut one, mut pair) = (post.consumer(), post.consumer());
    shown(&mut one, &job("held"), 1, 1);
    let large = |id: &str| message("x", "k").id(id).body("abcdefgh").frame_size(11);
    let mut tag = 0;
    let mut pieces = |pair: &mut Pair, id: &str| {
        tag += 1;
        large(id).deliver(1, "c", tag).into_iter().for_each(|frame| pair.upstream(frame.into()));
        tag
    };
    pieces(&mut pair, "old");
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), ack(1, 1)));
    pieces(&mut pair, "held");
    quiet(&mut pair);
    pieces(&mut pair, "a");
    assert_eq!(pair.to_client(), large("a").deliver(1, "c", 1));
    // A fresh one is passed on before it is whole, and what has waited is not put into it.
    let (begun, rest) = cut(large("b").deliver(1, "c", 4), 3);
    pair.upstream(begun.clone());
    one.client(nack(1, 1));
    assert_eq!(pair.to_client().len(), begun.len());
    pair.upstream(rest);
    let last = Frames(vec![large("b").deliver(1, "c", 2).0.pop().unwrap()]);
    let body = pair.to_client();
    assert_eq!(Frames(body.0[..2].to_vec()).0[1], last.0[0]);
    assert_eq!(Frames(body.0[2..].to_vec()), large("held").deliver(1, "c", 3));
}

#[test]
fn the_outcome_may_come_before_the_copy_is_whole() {
    for settle in [ack(1, 1), nack(1, 1)] {
        let post = Post::new();
        let (mut one, mut pair) = (post.consumer(), post.consumer());
        let large = message("x", "k").id("a").body("abcdefgh").frame_size(11);
        shown(&mut one, &job("a"), 1, 1);
        let (begun, rest) = cut(large.deliver(1, "c", 1), 3);
        pair.upstream(begun);
        one.client(settle.clone());
        quiet(&mut pair);
        pair.upstream(rest);
        if settle == ack(1, 1) {
            assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), ack(1, 1)));
        } else {
            assert_eq!((pair.to_client(), pair.to_upstream()), (large.deliver(1, "c", 1), Frames::none()));
        }
    }
}

#[test]
fn nothing_is_said_amid_a_message_of_the_client() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = post.consumer();
    says(&mut pair, confirm_select(1), confirm_select(1));
    let (begun, rest) = cut(message("y", "k").body("abcdef").frame_size(11).publish(1), 3);
    says(&mut pair, begun.clone(), begun);
    waits(&mut pair, &job("a"), 1);
    says(&mut pair, rest.clone(), rest + ack(1, 1));
}

// ---- basic.recover ---------------------------------------------------------------------------------------------------

#[test]
fn recover_gives_everything_back() {
    let post = Post::new();
    done(&post, "old");
    let (mut one, mut pair) = (post.consumer(), post.consumer());
    shown(&mut one, &job("held"), 1, 1);
    shown(&mut pair, &job("a"), 1, 1);
    waits(&mut pair, &job("held"), 2);
    says(&mut pair, recover(1), recover(1));
    // It takes this back, too, so an ack of it would be one of an unknown tag.
    waits(&mut pair, &job("old"), 3);
    says(&mut one, ack(1, 1), ack(1, 1));
    quiet(&mut pair);
    pair.upstream(recover_ok(1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (recover_ok(1), Frames::none()));
    assert_eq!(post.in_flight(), 0);
    shown(&mut pair, &job("a"), 4, 2);
    hidden(&mut pair, &job("held"), 5);
    hidden(&mut pair, &job("old"), 6);
    says(&mut pair, ack(1, 2), ack(1, 4));
}

#[test]
fn recover_async_is_as_recover_and_not_answered() {
    let post = Post::new();
    let mut pair = post.consumer();
    shown(&mut pair, &job("a"), 1, 1);
    says(&mut pair, recover_async(1), recover(1));
    pair.upstream(recover_ok(1));
    quiet(&mut pair);
    shown(&mut pair, &job("a"), 2, 2);
    says(&mut pair, ack(1, 2), ack(1, 2));
}

// ---- transactions ----------------------------------------------------------------------------------------------------

pub(super) fn in_tx(post: &Post) -> Pair {
    let mut pair = post.pair();
    says(&mut pair, tx_select(1), tx_select(1));
    pair.upstream(tx_select_ok(1));
    assert_eq!(pair.to_client(), tx_select_ok(1));
    begin(&mut pair, consume_acking(1, "q", "c"), "c");
    pair
}

/// The upstream channel has confirms that Hapax has selected, so that a fresh one takes its place.
#[test]
fn a_channel_that_gets_a_fresh_one_for_tx_is_guarded_as_before() {
    let post = Post::new();
    let mut pair = post.pair();
    says(&mut pair, queue_declare(1, "q"), queue_declare(1, "q"));
    pair.upstream(queue_declare_ok(1, "q"));
    pair.client(message("judged", "k").id("p").publish(1) + tx_select(1));
    pair.to_upstream();
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_upstream(), channel_close(1, 200, "hapax makes room for tx.select"));
    pair.upstream(channel_close_ok(1));
    assert_eq!(pair.to_upstream(), channel_open(1));
    pair.upstream(channel_open_ok(1));
    assert_eq!(pair.to_upstream(), tx_select(1));
    pair.upstream(tx_select_ok(1));
    assert_eq!(pair.to_client(), queue_declare_ok(1, "q") + tx_select_ok(1));
    done(&post, "a");
    begin(&mut pair, consume_acking(1, "q", "c"), "c");
    shown(&mut pair, &job("b"), 1, 1);
    pair.upstream(job("a").deliver(1, "c", 2));
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), ack(1, 2) + tx_commit(1)));
    pair.upstream(tx_commit_ok(1));
    says(&mut pair, ack(1, 1) + tx_commit(1), ack(1, 1) + tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    assert!(post.is_seen("a") && post.is_seen("b"));
}

#[test]
fn an_ack_in_a_transaction_counts_when_it_is_committed() {
    let post = Post::new();
    let mut pair = in_tx(&post);
    shown(&mut pair, &job("a"), 1, 1);
    shown(&mut pair, &job("b"), 2, 2);
    says(&mut pair, ack(1, 1) + nack(1, 2) + tx_commit(1), ack(1, 1) + nack(1, 2) + tx_commit(1));
    assert!(!post.is_seen("a"));
    assert_eq!(post.in_flight(), 2);
    pair.upstream(tx_commit_ok(1));
    assert_eq!(pair.to_client(), tx_commit_ok(1));
    assert!(post.is_seen("a") && !post.is_seen("b"));
    assert_eq!(post.in_flight(), 0);
}

#[test]
fn a_rollback_makes_acks_undone() {
    let post = Post::new();
    let mut pair = in_tx(&post);
    for tag in 1..=3 {
        shown(&mut pair, &job(&tag.to_string()), tag, tag);
    }
    says(&mut pair, ack_multiple(1, 2) + tx_rollback(1), ack_multiple(1, 2) + tx_rollback(1));
    pair.upstream(tx_rollback_ok(1));
    assert_eq!(pair.to_client(), tx_rollback_ok(1));
    assert_eq!(post.in_flight(), 3);
    says(
        &mut pair,
        ack(1, 1) + ack_multiple(1, 3) + tx_commit(1),
        ack(1, 1) + ack_multiple(1, 3) + tx_commit(1),
    );
    pair.upstream(tx_commit_ok(1));
    pair.to_client();
    assert!(["1", "2", "3"].iter().all(|id| post.is_seen(id)));
}

/// Otherwise it would take a place in the prefetch until the client ends a transaction, which it may never begin.
#[test]
fn what_is_hidden_outside_of_a_transaction_is_committed_by_hapax() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = in_tx(&post);
    pair.upstream(job("a").deliver(1, "c", 1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), ack(1, 1) + tx_commit(1)));
    pair.upstream(tx_commit_ok(1) + job("b").deliver(1, "c", 2));
    assert_eq!(pair.to_client(), job("b").deliver(1, "c", 1));
    says(&mut pair, ack(1, 1) + tx_commit(1), ack(1, 2) + tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    assert_eq!(pair.to_client(), tx_commit_ok(1));
}

#[test]
fn what_is_hidden_inside_of_a_transaction_belongs_to_it() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = in_tx(&post);
    shown(&mut pair, &job("b"), 1, 1);
    says(&mut pair, ack(1, 1), ack(1, 1));
    hidden(&mut pair, &job("a"), 2);
    // The rollback makes both undone. The client has begun nothing new, so Hapax can commit its own.
    says(&mut pair, tx_rollback(1), tx_rollback(1) + ack(1, 2) + tx_commit(1));
    pair.upstream(tx_rollback_ok(1) + tx_commit_ok(1));
    assert_eq!(pair.to_client(), tx_rollback_ok(1));
}

/// RabbitMQ takes no other method then.
#[test]
fn nothing_is_said_while_a_commit_is_on_its_way() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = in_tx(&post);
    says(&mut pair, message("y", "k").publish(1) + tx_commit(1), message("y", "k").publish(1) + tx_commit(1));
    waits(&mut pair, &job("a"), 1);
    pair.upstream(tx_commit_ok(1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (tx_commit_ok(1), ack(1, 1) + tx_commit(1)));
}

#[test]
fn a_transaction_whose_end_nobody_knows_is_not_done() {
    let post = Post::new();
    let mut pair = in_tx(&post);
    shown(&mut pair, &job("a"), 1, 1);
    says(&mut pair, ack(1, 1) + tx_commit(1), ack(1, 1) + tx_commit(1));
    pair.upstream_eof();
    assert!(!post.is_seen("a"));
    assert_eq!(post.in_flight(), 0);
}
