//! The guard and ends: of a consumer, a channel, a connection, the process. What the client has not acked is given back; what it has
//! acked is done, whatever becomes of the ack.

use super::guard_post::{Post, begin, done, hidden, job, quiet, says, shown, waits};
use crate::support::frames::{Frames, message};
use crate::support::methods::{
    ack, cancel, cancel_nowait, cancel_ok, channel_close, channel_close_ok, connection_close, consume_acking,
    give_back, nack,
};
use crate::support::pair::Pair;
use hapax_core::window::{Event, ForgetCause};

/// A consumer that works on `a`, has acked `b`, and has a copy of `c` that waits for another consumer.
fn amid(post: &Post) -> (Pair, Pair) {
    let (mut one, mut pair) = (post.consumer(), post.consumer());
    shown(&mut one, &job("c"), 1, 1);
    shown(&mut pair, &job("a"), 1, 1);
    shown(&mut pair, &job("b"), 2, 2);
    waits(&mut pair, &job("c"), 3);
    says(&mut pair, ack(1, 2), ack(1, 2));
    (one, pair)
}

/// What is unacked is worked on by others, and what was acked is not.
fn is_given_back(post: &Post, mut one: Pair) {
    assert_eq!(post.in_flight(), 1, "the other consumer's");
    shown(&mut one, &job("a"), 2, 2);
    hidden(&mut one, &job("b"), 3);
    waits(&mut one, &job("c"), 4);
    one.client(nack(1, 1));
    assert_eq!(one.to_client(), job("c").deliver(1, "c", 3), "nobody else waits for it");
    assert_eq!(one.to_upstream(), nack(1, 1));
    assert_eq!(post.count_like(|event| *event == Event::Forgotten(ForgetCause::ChannelClosed)), 1);
}

#[test]
fn the_channel_is_closed_by_its_client() {
    let post = Post::new();
    let (one, mut pair) = amid(&post);
    says(&mut pair, channel_close(1, 200, ""), channel_close(1, 200, ""));
    // These were on their way. The client does not listen any more.
    pair.upstream(job("b").deliver(1, "c", 4) + job("d").deliver(1, "c", 5));
    quiet(&mut pair);
    pair.upstream(channel_close_ok(1));
    assert_eq!(pair.to_client(), channel_close_ok(1));
    is_given_back(&post, one);
}

#[test]
fn the_channel_is_closed_by_the_broker() {
    let post = Post::new();
    let (one, mut pair) = amid(&post);
    pair.upstream(channel_close(1, 404, "NOT_FOUND"));
    assert_eq!(pair.to_client(), channel_close(1, 404, "NOT_FOUND"));
    is_given_back(&post, one);
}

#[test]
fn the_connection_is_closed_by_its_client() {
    let post = Post::new();
    let (one, mut pair) = amid(&post);
    pair.client(connection_close(200, ""));
    is_given_back(&post, one);
}

#[test]
fn the_client_vanishes() {
    let post = Post::new();
    let (one, mut pair) = amid(&post);
    pair.client_eof();
    is_given_back(&post, one);
}

#[test]
fn the_broker_vanishes() {
    let post = Post::new();
    let (one, mut pair) = amid(&post);
    pair.upstream_eof();
    is_given_back(&post, one);
}

#[test]
fn an_operator_closes_the_connection() {
    let post = Post::new();
    let (one, mut pair) = amid(&post);
    pair.force_close("maintenance");
    is_given_back(&post, one);
}

#[test]
fn the_process_ends() {
    let post = Post::new();
    let (one, mut pair) = amid(&post);
    pair.drain();
    assert_eq!(pair.to_upstream(), cancel_nowait(1, "c"), "it has something to finish");
    // A copy that waits does not hold up the end.
    pair.client(ack(1, 1));
    assert!(format!("{:?}", pair.to_client()).contains("connection.close 320"));
    assert!(post.is_seen("a"));
    assert_eq!(post.in_flight(), 1);
    drop(one);
}

/// The client's work is done, so the broker's next delivery of it is hidden.
#[test]
fn an_ack_that_may_not_have_reached_the_broker_counts() {
    let post = Post::new();
    let mut pair = post.consumer();
    shown(&mut pair, &job("a"), 1, 1);
    pair.client(ack(1, 1));
    pair.upstream_eof();
    let mut next = post.consumer();
    hidden(&mut next, &job("a"), 1);
}

#[test]
fn a_cancelled_consumer_gets_nothing_more_and_may_ack_what_it_has() {
    let post = Post::new();
    let (mut one, mut pair) = amid(&post);
    says(&mut pair, cancel(1, "c"), cancel(1, "c"));
    pair.upstream(cancel_ok(1, "c"));
    assert_eq!((pair.to_client(), pair.to_upstream()), (cancel_ok(1, "c"), give_back(1, 3)));
    says(&mut one, nack(1, 1), nack(1, 1));
    quiet(&mut pair);
    says(&mut pair, ack(1, 1), ack(1, 1));
    assert!(post.is_seen("a"));
    assert_eq!(post.in_flight(), 0);
}

#[test]
fn the_broker_cancels_a_consumer() {
    let post = Post::new();
    let (_one, mut pair) = amid(&post);
    begin(&mut pair, consume_acking(1, "q", "d"), "d");
    pair.upstream(job("c").deliver(1, "d", 4));
    quiet(&mut pair);
    pair.upstream(cancel_nowait(1, "c"));
    assert_eq!((pair.to_client(), pair.to_upstream()), (cancel_nowait(1, "c"), give_back(1, 3)));
    // The copy of the other consumer waits on.
    drop(_one);
    assert_eq!(pair.to_client(), job("c").deliver(1, "d", 3));
}

#[test]
fn a_consumer_that_is_cancelled_without_an_answer_is_guarded_to_the_last() {
    let post = Post::new();
    let (mut one, mut pair) = amid(&post);
    // Hapax asks for the answer: it comes after the last delivery.
    says(&mut pair, cancel_nowait(1, "c"), cancel(1, "c") + give_back(1, 3));
    hidden(&mut pair, &job("b"), 4);
    says(&mut one, nack(1, 1), nack(1, 1));
    quiet(&mut pair);
    pair.upstream(cancel_ok(1, "c"));
    quiet(&mut pair);
}

#[test]
fn a_client_that_is_short_of_memory_loses_what_waits() {
    let post = Post::new();
    let (mut one, mut pair) = (post.consumer(), post.consumer());
    shown(&mut one, &job("a"), 1, 1);
    let before = pair.session.memory();
    let large = message("x", "k").id("a").body("b".repeat(100_000));
    (1..=3).for_each(|tag| waits(&mut pair, &large, tag));
    let held = pair.session.memory();
    assert!(held.stuck > before.stuck + 300_000 && held.held > before.held + 300_000);
    let now = pair.now();
    pair.session.handle_memory_pressure(20_000, now);
    assert!(format!("{:?}", pair.to_client()).contains("channel.close 506"));
    assert!(pair.session.memory().stuck < before.stuck + 1_000);
}

#[test]
fn unacked_deliveries_count_as_memory() {
    let post = Post::new();
    let mut pair = post.consumer();
    let before = pair.session.memory().stuck;
    for tag in 1..=1_000 {
        shown(&mut pair, &job(&tag.to_string()), tag, tag);
    }
    assert!(pair.session.memory().stuck > before + 100_000);
    pair.client(crate::support::methods::ack_multiple(1, 1_000));
    assert!(pair.session.memory().stuck < before + 1_000);
}

#[test]
fn a_channel_that_has_consumed_before_there_was_a_guard_is_left_alone() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = post.at("other");
    begin(&mut pair, consume_acking(1, "q", "c"), "c");
    shown(&mut pair, &job("a"), 1, 1);
    shown(&mut pair, &job("a"), 2, 2);
    assert_eq!(pair.to_upstream(), Frames::none());
}

/// A client that vanishes has sent more than was its turn. RabbitMQ would close the channel for an ack of what it has back, and the publishes
/// would be in doubt. (The simulation shows the same with a guard.)
#[test]
fn an_ack_that_waits_while_its_client_vanishes_is_not_sent_after_its_delivery_was_given_back() {
    for queue in ["q", "free"] {
        let (desk, late) = super::late::late(|_| ());
        let mut pair = super::late::shown(&desk, &late);
        begin(&mut pair, consume_acking(1, queue, "c"), "c");
        pair.upstream(job("a").deliver(1, "c", 1));
        pair.to_client();
        // The publish waits for the store, and the ack behind it.
        pair.client(super::desk::m("new").publish(1) + ack(1, 1));
        pair.client_eof();
        let given_back = Frames(pair.to_upstream().0);
        assert!(format!("{given_back:?}").contains("basic.nack 0 multiple"), "{given_back:?}");
        super::late::answer(&late, &mut pair, 0);
        assert_eq!(pair.to_upstream(), super::desk::m("new").publish(1), "and no ack");
    }
}
