//! Consumer tags that are used again: what is on its way to the old consumer is never judged by the guard of the new one, and nobody is
//! asked to ack what the broker takes for acked.

#![allow(clippy::needless_pass_by_value, reason = "a transcript reads as it is said")]

use super::guard_post::{Post, begin, done_in, hidden, job, quiet, says, shown, waits};
use crate::support::frames::Frames;
use crate::support::methods::{
    ack, ack_multiple, cancel, cancel_nowait, cancel_ok, channel_close, consume, consume_acking, consume_ok,
    give_back, give_back_multiple, nack, queue_declare, queue_declare_ok, recover, recover_ok,
};
use crate::support::pair::Pair;
use amq_protocol::protocol::{AMQPClass, basic};

/// `basic.consume` of a consumer that acks, and that the broker does not answer.
fn consume_unanswered(queue: &str) -> Frames {
    let consume =
        basic::Consume { queue: queue.into(), consumer_tag: "c".into(), nowait: true, ..Default::default() };
    Frames::method(1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)))
}

/// The broker says this, and the client hears the same.
fn hears(pair: &mut Pair, said: Frames) {
    pair.upstream(said.clone());
    assert_eq!(pair.to_client(), said);
}

/// The broker says this. The client hears nothing of it, and the broker hears `heard`.
fn unheard(pair: &mut Pair, said: Frames, heard: Frames) {
    pair.upstream(said);
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), heard));
}

/// A client that has a consumer of `q`, and uses its tag for one of `r` at once.
fn reusing(post: &Post) -> Pair {
    let mut pair = post.consumer();
    let both = cancel(1, "c") + consume_acking(1, "r", "c");
    says(&mut pair, both.clone(), both);
    pair
}

/// RabbitMQ 4 sends a few deliveries of a quorum queue after the `cancel-ok`. Between that and the `consume-ok`, both consumers of the tag
/// may be meant: the guard judges if it is the guard of both.
#[test]
fn what_comes_after_the_cancel_ok_is_judged_if_the_tag_stays_at_its_queue() {
    for (queue, is_judged) in [("q", true), ("r", false)] {
        let post = Post::new();
        done_in(&post, "q", "old");
        done_in(&post, "r", "old");
        let mut pair = post.consumer();
        let both = cancel(1, "c") + consume_acking(1, queue, "c");
        says(&mut pair, both.clone(), both);
        hears(&mut pair, cancel_ok(1, "c"));
        match is_judged {
            true => hidden(&mut pair, &job("old"), 1),
            false => shown(&mut pair, &job("old"), 1, 1),
        }
        let late = u64::from(!is_judged);
        shown(&mut pair, &job("late"), 2, late + 1);
        hears(&mut pair, consume_ok(1, "c"));
        hidden(&mut pair, &job("old"), 3);
        says(&mut pair, ack(1, late + 1), ack(1, 2));
        assert_eq!(post.is_seen_in("q", "late"), is_judged, "who acks it has been judged, or not");
        assert_eq!(post.in_flight(), 0);
    }
}

/// The broker closes a channel (406) that acks what it has taken for acked. Which of the two it is for, nobody knows.
#[test]
fn what_comes_after_the_cancel_ok_is_shown_if_only_one_of_the_consumers_acks() {
    type Begins = fn(u16, &str, &str) -> Frames;
    for (before, after) in [(consume as Begins, consume_acking as Begins), (consume_acking, consume)] {
        let post = Post::new();
        done_in(&post, "q", "old");
        let mut pair = post.pair();
        begin(&mut pair, before(1, "q", "c"), "c");
        let both = cancel(1, "c") + after(1, "q", "c");
        says(&mut pair, both.clone(), both);
        hears(&mut pair, cancel_ok(1, "c"));
        shown(&mut pair, &job("old"), 1, 1);
        hears(&mut pair, consume_ok(1, "c"));
    }
}

#[test]
fn what_was_on_its_way_is_judged_by_the_old_guard() {
    let post = Post::new();
    done_in(&post, "q", "old");
    done_in(&post, "r", "new");
    let mut pair = reusing(&post);
    // Consumers have acked `new` in the new queue, and `old` in the old one.
    shown(&mut pair, &job("new"), 1, 1);
    unheard(&mut pair, job("old").deliver(1, "c", 2), ack(1, 2));
    hears(&mut pair, cancel_ok(1, "c") + consume_ok(1, "c"));
    unheard(&mut pair, job("new").deliver(1, "c", 3), ack(1, 3));
    pair.upstream(job("old").deliver(1, "c", 4));
    assert_eq!(pair.to_client(), job("old").deliver(1, "c", 2));
    says(&mut pair, ack_multiple(1, 2), ack_multiple(1, 4));
    for (queue, id) in [("q", "old"), ("q", "new"), ("r", "old"), ("r", "new")] {
        assert!(post.is_seen_in(queue, id), "{id} of {queue}");
    }
    assert_eq!(post.in_flight(), 0);
}

#[test]
fn the_new_consumer_is_guarded_and_what_the_old_one_waits_for_goes_back() {
    let post = Post::new();
    let mut one = post.consumer();
    shown(&mut one, &job("a"), 1, 1);
    let mut pair = post.consumer();
    waits(&mut pair, &job("a"), 1);
    says(&mut pair, cancel(1, "c"), cancel(1, "c"));
    says(&mut pair, consume_acking(1, "q", "c"), consume_acking(1, "q", "c"));
    waits(&mut pair, &job("a"), 2);
    pair.upstream(cancel_ok(1, "c") + consume_ok(1, "c"));
    assert_eq!(pair.to_client(), cancel_ok(1, "c") + consume_ok(1, "c"));
    assert_eq!(pair.to_upstream(), give_back_multiple(1, 2));
    waits(&mut pair, &job("a"), 3);
    says(&mut one, ack(1, 1), ack(1, 1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), ack(1, 3)));
}

#[test]
fn many_consumers_of_a_tag_come_and_go_in_their_order() {
    let post = Post::new();
    let mut pair = post.consumer();
    let queues = ["r", "free", "s", "q"];
    for queue in queues {
        pair.client(cancel(1, "c") + consume_acking(1, queue, "c"));
    }
    pair.to_upstream();
    let mut tag = 0;
    for queue in ["q"].into_iter().chain(queues) {
        tag += 1;
        let id = tag.to_string();
        shown(&mut pair, &job(&id), tag, tag);
        says(&mut pair, ack(1, tag), ack(1, tag));
        assert_eq!(post.is_seen_in(queue, &id), queue != "free");
        if tag <= queues.len() as u64 {
            hears(&mut pair, cancel_ok(1, "c") + consume_ok(1, "c"));
        }
    }
}

/// RabbitMQ answers the second cancel at once: it does not know the tag any more. The queue answers the first one, after its last delivery.
#[test]
fn an_answer_to_a_second_cancel_is_not_the_end() {
    let post = Post::new();
    done_in(&post, "q", "old");
    done_in(&post, "r", "a");
    let mut pair = post.consumer();
    let said = cancel(1, "c") + cancel(1, "c") + consume_acking(1, "r", "c");
    says(&mut pair, said.clone(), said);
    hears(&mut pair, cancel_ok(1, "c"));
    shown(&mut pair, &job("a"), 1, 1);
    unheard(&mut pair, job("old").deliver(1, "c", 2), ack(1, 2));
    hears(&mut pair, cancel_ok(1, "c") + consume_ok(1, "c"));
    unheard(&mut pair, job("a").deliver(1, "c", 3), ack(1, 3));
}

#[test]
fn an_answer_to_the_cancel_of_nobody_is_not_the_end_of_the_next_one() {
    let post = Post::new();
    done_in(&post, "r", "a");
    let mut pair = post.consumer();
    let said = cancel(1, "x") + consume_acking(1, "r", "x") + cancel(1, "x");
    says(&mut pair, said.clone(), said);
    hears(&mut pair, cancel_ok(1, "x") + consume_ok(1, "x"));
    unheard(&mut pair, job("a").deliver(1, "x", 1), ack(1, 1));
    hears(&mut pair, cancel_ok(1, "x"));
}

// ---- who says what without an answer ---------------------------------------------------------------------------------

#[test]
fn a_cancel_without_an_answer_is_answered_to_hapax() {
    let post = Post::new();
    done_in(&post, "q", "old");
    done_in(&post, "r", "new");
    let mut pair = post.consumer();
    let said = cancel_nowait(1, "c") + consume_acking(1, "r", "c");
    says(&mut pair, said, cancel(1, "c") + consume_acking(1, "r", "c"));
    shown(&mut pair, &job("new"), 1, 1);
    unheard(&mut pair, job("old").deliver(1, "c", 2), ack(1, 2));
    unheard(&mut pair, cancel_ok(1, "c"), Frames::none());
    hears(&mut pair, consume_ok(1, "c"));
    unheard(&mut pair, job("new").deliver(1, "c", 3), ack(1, 3));
    // One that it asks for itself it gets, and only that one.
    says(&mut pair, cancel_nowait(1, "c") + cancel(1, "c"), cancel(1, "c") + cancel(1, "c"));
    hears(&mut pair, cancel_ok(1, "c"));
    unheard(&mut pair, cancel_ok(1, "c"), Frames::none());
}

/// Nothing tells the deliveries of one from those of the other, so nobody judges them: a loss is worse than a copy.
#[test]
fn until_the_old_consumer_is_gone_a_new_one_that_is_not_answered_is_not_guarded() {
    let post = Post::new();
    done_in(&post, "q", "old");
    done_in(&post, "r", "new");
    let mut pair = post.consumer();
    says(
        &mut pair,
        cancel_nowait(1, "c") + consume_unanswered("r"),
        cancel(1, "c") + consume_unanswered("r"),
    );
    shown(&mut pair, &job("old"), 1, 1);
    shown(&mut pair, &job("new"), 2, 2);
    shown(&mut pair, &job("a"), 3, 3);
    says(&mut pair, ack_multiple(1, 3), ack_multiple(1, 3));
    assert!(!post.is_seen_in("q", "a") && !post.is_seen_in("r", "a"));
    unheard(&mut pair, cancel_ok(1, "c"), Frames::none());
    unheard(&mut pair, job("new").deliver(1, "c", 4), ack(1, 4));
    shown(&mut pair, &job("old"), 5, 4);
}

#[test]
fn it_is_guarded_all_the_time_if_both_read_the_same_queue() {
    let post = Post::new();
    done_in(&post, "q", "old");
    let mut pair = post.consumer();
    says(&mut pair, cancel(1, "c") + consume_unanswered("q"), cancel(1, "c") + consume_unanswered("q"));
    unheard(&mut pair, job("old").deliver(1, "c", 1), ack(1, 1));
    shown(&mut pair, &job("a"), 2, 1);
    hears(&mut pair, cancel_ok(1, "c"));
    unheard(&mut pair, job("old").deliver(1, "c", 3), ack(1, 3));
    says(&mut pair, ack(1, 1), ack(1, 2));
    assert!(post.is_seen("a"));
}

// ---- without acks ----------------------------------------------------------------------------------------------------

/// RabbitMQ would close the channel for an ack of what it takes for acked.
#[test]
fn nobody_acks_what_a_cancelled_consumer_without_acks_gets() {
    for cancel in [cancel(1, "c"), cancel_nowait(1, "c")] {
        let post = Post::new();
        done_in(&post, "q", "old");
        let mut pair = post.pair();
        begin(&mut pair, consume(1, "q", "c"), "c");
        pair.client(cancel + consume_acking(1, "r", "c"));
        pair.to_upstream();
        unheard(&mut pair, job("old").deliver(1, "c", 1), Frames::none());
        shown(&mut pair, &job("a"), 2, 1);
        assert!(post.is_seen("a"), "it is done when it is sent");
        pair.upstream(cancel_ok(1, "c") + consume_ok(1, "c") + job("a").deliver(1, "c", 3));
        pair.to_client();
        says(&mut pair, ack_multiple(1, 0), ack(1, 3));
        assert!(post.is_seen_in("r", "a"));
    }
}

/// It can't go back, and if the other copy is dropped, nobody would have worked on it.
#[test]
fn what_waits_for_a_consumer_without_acks_is_shown_before_its_end() {
    let post = Post::new();
    let (mut one, mut pair) = (post.consumer(), post.pair());
    begin(&mut pair, consume(1, "q", "c"), "c");
    shown(&mut one, &job("a"), 1, 1);
    waits(&mut pair, &job("a"), 1);
    says(&mut pair, cancel(1, "c"), cancel(1, "c"));
    pair.upstream(cancel_ok(1, "c"));
    assert_eq!(pair.to_client(), job("a").deliver(1, "c", 1) + cancel_ok(1, "c"));
    assert_eq!(pair.to_upstream(), Frames::none());
    says(&mut one, nack(1, 1), nack(1, 1));
    quiet(&mut pair);
}

// ---- the broker's part -----------------------------------------------------------------------------------------------

#[test]
fn the_cancels_of_both_sides_cross_each_other() {
    let post = Post::new();
    done_in(&post, "r", "a");
    let mut pair = reusing(&post);
    hears(&mut pair, cancel_nowait(1, "c"));
    hears(&mut pair, cancel_ok(1, "c") + consume_ok(1, "c"));
    unheard(&mut pair, job("a").deliver(1, "c", 1), ack(1, 1));
    // The broker may cancel the new one, too.
    hears(&mut pair, cancel_nowait(1, "c"));
    begin(&mut pair, consume_acking(1, "q", "c"), "c");
    shown(&mut pair, &job("a"), 2, 1);
}

/// It says nothing to a client that has not announced that it understands it.
#[test]
fn a_consumer_that_the_broker_has_dropped_without_a_word_is_gone_when_its_tag_is_taken() {
    let post = Post::new();
    done_in(&post, "q", "a");
    let (mut one, mut pair) = (post.consumer(), post.consumer());
    shown(&mut one, &job("b"), 1, 1);
    waits(&mut pair, &job("b"), 1);
    says(&mut pair, consume_acking(1, "r", "c"), consume_acking(1, "r", "c"));
    unheard(&mut pair, job("a").deliver(1, "c", 2), ack(1, 2));
    pair.upstream(consume_ok(1, "c"));
    assert_eq!((pair.to_client(), pair.to_upstream()), (consume_ok(1, "c"), give_back(1, 1)));
    shown(&mut pair, &job("a"), 3, 1);
    says(&mut pair, ack(1, 1), ack(1, 3));
    assert!(post.is_seen_in("r", "a"));
}

#[test]
fn a_tag_that_is_used_twice_and_a_queue_that_is_not_there_end_as_the_broker_says() {
    let post = Post::new();
    done_in(&post, "q", "a");
    let mut pair = reusing(&post);
    hears(&mut pair, cancel_ok(1, "c"));
    pair.upstream(channel_close(1, 404, "NOT_FOUND"));
    assert_eq!(pair.to_client(), channel_close(1, 404, "NOT_FOUND"));
    let mut pair = post.consumer();
    says(&mut pair, consume_acking(1, "r", "c"), consume_acking(1, "r", "c"));
    // It serves the first one until it comes to the second.
    unheard(&mut pair, job("a").deliver(1, "c", 1), ack(1, 1));
    shown(&mut pair, &job("b"), 2, 1);
    let close = crate::support::methods::connection_close(530, "NOT_ALLOWED");
    pair.upstream(close.clone());
    assert_eq!(pair.to_client(), close);
    assert_eq!(post.in_flight(), 0);
}

#[test]
fn recover_gives_back_what_both_consumers_have() {
    let post = Post::new();
    let mut pair = reusing(&post);
    shown(&mut pair, &job("a"), 1, 1);
    hears(&mut pair, cancel_ok(1, "c") + consume_ok(1, "c"));
    shown(&mut pair, &job("a"), 2, 2);
    assert_eq!(post.in_flight(), 2);
    says(&mut pair, recover(1), recover(1));
    hears(&mut pair, recover_ok(1));
    assert_eq!(post.in_flight(), 0);
    shown(&mut pair, &job("a"), 3, 3);
    says(&mut pair, ack(1, 3), ack(1, 3));
    assert!(post.is_seen_in("r", "a") && !post.is_seen("a"));
}

// ---- direct replies --------------------------------------------------------------------------------------------------

/// A reply to a question.
fn reply(id: &str) -> crate::support::frames::Message {
    crate::support::frames::message("", "amq.rabbitmq.reply-to.g1h2").id(id).body("answer")
}

/// RabbitMQ answers their consumers itself, and for others the queue does, which takes longer.
#[test]
fn a_consumer_of_replies_takes_nobodys_answer() {
    let post = Post::new();
    done_in(&post, "q", "a");
    let mut pair = post.pair();
    let said = consume_acking(1, "q", "") + consume(1, "amq.rabbitmq.reply-to", "");
    let heard = consume_acking(1, "q", "") + consume(1, "amq.rabbitmq.reply-to", "hapax.ctag-1");
    says(&mut pair, said, heard);
    hears(&mut pair, consume_ok(1, "hapax.ctag-1") + consume_ok(1, "amq.ctag-1"));
    hears(&mut pair, reply("a").deliver(1, "hapax.ctag-1", 1) + reply("a").deliver(1, "hapax.ctag-1", 2));
    unheard(&mut pair, job("a").deliver(1, "amq.ctag-1", 3), ack(1, 3));
}

#[test]
fn replies_under_a_tag_that_is_used_again_are_known_by_themselves() {
    let post = Post::new();
    done_in(&post, "q", "a");
    let mut pair = post.consumer();
    let both = cancel(1, "c") + consume(1, "amq.rabbitmq.reply-to", "c");
    says(&mut pair, both.clone(), both);
    hears(&mut pair, consume_ok(1, "c"));
    hears(&mut pair, reply("a").deliver(1, "c", 1));
    unheard(&mut pair, job("a").deliver(1, "c", 2), ack(1, 2));
    pair.upstream(job("b").deliver(1, "c", 3));
    assert_eq!(pair.to_client(), job("b").deliver(1, "c", 2));
    hears(&mut pair, cancel_ok(1, "c"));
    says(&mut pair, ack_multiple(1, 0), ack(1, 3));
}

// ---- names -----------------------------------------------------------------------------------------------------------

/// A reload may bring the first guard while the answer to a declaration is on its way.
#[test]
fn an_answer_from_before_there_was_a_guard_names_no_other_queue() {
    for is_late in [false, true] {
        let post = Post::new();
        done_in(&post, "amq.gen-1", "a");
        let mut pair = post.pair();
        post.show_guards(false);
        says(&mut pair, queue_declare(1, ""), queue_declare(1, ""));
        post.show_guards(true);
        says(&mut pair, queue_declare(1, ""), queue_declare(1, ""));
        let consume = consume_acking(1, "", "c");
        if is_late {
            hears(&mut pair, queue_declare_ok(1, "amq.gen-1"));
            says(&mut pair, consume.clone(), consume);
        } else {
            says(&mut pair, consume.clone(), consume);
            hears(&mut pair, queue_declare_ok(1, "amq.gen-1"));
        }
        hears(&mut pair, queue_declare_ok(1, "amq.gen-2") + consume_ok(1, "c"));
        shown(&mut pair, &job("a"), 1, 1);
        says(&mut pair, ack(1, 1), ack(1, 1));
        assert!(post.is_seen_in("amq.gen-2", "a"));
    }
}

#[test]
fn two_consumers_of_a_queue_without_a_name_are_two() {
    let post = Post::new();
    let mut one = post.pair();
    begin_at(&mut one, "amq.gen-1");
    one.upstream(job("a").deliver(1, "c", 1));
    one.to_client();
    let mut pair = post.pair();
    let said = queue_declare(1, "") + consume_acking(1, "", "c") + consume_acking(1, "", "d");
    says(&mut pair, said.clone(), said);
    hears(&mut pair, queue_declare_ok(1, "amq.gen-1") + consume_ok(1, "c") + consume_ok(1, "d"));
    waits(&mut pair, &job("a"), 1);
    unheard(&mut pair, job("a").deliver(1, "d", 2), Frames::none());
    says(&mut pair, cancel(1, "c"), cancel(1, "c"));
    pair.upstream(cancel_ok(1, "c"));
    assert_eq!(
        (pair.to_client(), pair.to_upstream()),
        (cancel_ok(1, "c"), give_back(1, 1)),
        "not the other's"
    );
}

fn begin_at(pair: &mut Pair, queue: &str) {
    begin(pair, consume_acking(1, queue, "c"), "c");
}

/// RabbitMQ takes names that are no text. Their answers belong to them.
#[test]
fn names_need_not_be_text() {
    let raw = |payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[1, 0, 1], &length[..], payload, &[0xCE]].concat()
    };
    let consume_odd = raw(b"\0\x3c\0\x14\0\0\x01\xff\x01x\0\0\0\0\0");
    let get_odd = raw(b"\0\x3c\0\x46\0\0\x01\xff\0");
    let post = Post::new();
    ["a", "b"].iter().for_each(|id| done_in(&post, "q", id));
    let mut pair = post.pair();
    pair.client_bytes(&consume_odd);
    pair.client(consume_acking(1, "q", ""));
    pair.to_upstream_bytes();
    hears(&mut pair, consume_ok(1, "x") + consume_ok(1, "amq.ctag-1"));
    hears(&mut pair, job("a").deliver(1, "x", 1));
    unheard(&mut pair, job("a").deliver(1, "amq.ctag-1", 2), ack(1, 2));
    pair.client_bytes(&get_odd);
    pair.client(crate::support::methods::get(1, "q", false));
    pair.to_upstream_bytes();
    // `b` is done in `q`, and the first answer is from the other queue.
    pair.upstream(job("b").get_ok(1, 3) + job("b").get_ok(1, 4));
    assert_eq!(pair.to_client(), job("b").get_ok(1, 2));
}

/// It has no deliveries, so the channel is guarded from its first consumer on.
#[test]
fn a_cancel_of_nobody_is_no_use_of_the_channel() {
    let post = Post::new();
    done_in(&post, "q", "a");
    let mut pair = post.pair();
    let said = cancel(1, "c") + consume_acking(1, "q", "c");
    says(&mut pair, said.clone(), said);
    hears(&mut pair, cancel_ok(1, "c") + consume_ok(1, "c"));
    unheard(&mut pair, job("a").deliver(1, "c", 1), ack(1, 1));
}

// ---- bounds ----------------------------------------------------------------------------------------------------------

#[test]
fn consumers_count_as_memory_until_they_are_gone() {
    let post = Post::new();
    let mut pair = post.consumer();
    let before = pair.session.memory().stuck;
    for _ in 0..1_000 {
        pair.client(cancel_nowait(1, "c") + consume_acking(1, "q", "c") + cancel(1, "unknown"));
    }
    pair.to_upstream();
    assert!(pair.session.memory().stuck > before + 300_000);
    for _ in 0..1_000 {
        pair.upstream(cancel_ok(1, "c") + consume_ok(1, "c") + cancel_ok(1, "unknown"));
    }
    assert_eq!(pair.session.memory().stuck, before);
    let mut expected = Frames::none();
    (0..1_000).for_each(|_| expected += consume_ok(1, "c") + cancel_ok(1, "unknown"));
    assert_eq!(pair.to_client(), expected);
}
