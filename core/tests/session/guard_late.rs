//! A guard whose store answers late: deliveries keep their order while it is asked, and an ack waits until its id is remembered.

use super::desk::SECOND;
use super::guard_post::{Post, begin, job, quiet, says, shown, waits};
use super::late::{COMMITS, VERDICTS};
use crate::support::frames::Frames;
use crate::support::late::{Late, LateWindow};
use crate::support::methods::{
    ack, ack_multiple, cancel, cancel_ok, channel_close, consume_acking, get, nack, recover, recover_ok,
};
use crate::support::pair::Pair;
use amq_protocol::types::AMQPValue;
use std::sync::Arc;

pub(super) fn late(how: Late) -> (Post, Arc<LateWindow>) {
    let mut late = None;
    let post = Post::with(|_| (), |window| late.insert(LateWindow::with(window, how)).clone());
    (post, late.unwrap())
}

fn answer(late: &LateWindow, pair: &mut Pair, pick: usize) {
    assert!(late.answer_next(pick, pair.now()), "a question");
    pair.pump();
}

#[test]
fn deliveries_keep_their_order_while_the_store_is_asked() {
    let (post, store) = late(VERDICTS);
    let mut pair = post.consumer();
    pair.upstream(job("a").deliver(1, "c", 1) + job("b").deliver(1, "c", 2) + job("c").deliver(1, "c", 3));
    assert_eq!(store.questions(), 3);
    answer(&store, &mut pair, 1);
    answer(&store, &mut pair, 1);
    quiet(&mut pair);
    answer(&store, &mut pair, 0);
    let all = job("a").deliver(1, "c", 1) + job("b").deliver(1, "c", 2) + job("c").deliver(1, "c", 3);
    assert_eq!(pair.to_client(), all);
    says(&mut pair, ack_multiple(1, 3), ack_multiple(1, 3));
    pair.upstream(job("b").deliver(1, "c", 4) + job("d").deliver(1, "c", 5));
    answer(&store, &mut pair, 0);
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), ack(1, 4)));
    answer(&store, &mut pair, 0);
    assert_eq!(pair.to_client(), job("d").deliver(1, "c", 4));
}

#[test]
fn a_silent_store_stops_nobody_for_long() {
    let (post, store) = late(VERDICTS);
    let mut pair = post.consumer();
    waits(&mut pair, &job("a"), 1);
    pair.advance(2 * SECOND);
    assert_eq!(pair.to_client(), job("a").deliver(1, "c", 1));
    let (post, patient) = late(Late { waits_on: true, ..VERDICTS });
    let mut pair = post.consumer();
    waits(&mut pair, &job("a"), 1);
    pair.advance(20 * SECOND);
    quiet(&mut pair);
    answer(&patient, &mut pair, 0);
    assert_eq!(pair.to_client(), job("a").deliver(1, "c", 1));
    drop(store);
}

#[test]
fn a_get_waits_for_the_store_too() {
    let (post, store) = late(VERDICTS);
    let mut pair = post.pair();
    says(&mut pair, get(1, "q", false), get(1, "q", false));
    pair.upstream(job("a").get_ok(1, 1));
    quiet(&mut pair);
    answer(&store, &mut pair, 0);
    assert_eq!(pair.to_client(), job("a").get_ok(1, 1));
    says(&mut pair, ack(1, 1) + get(1, "q", false), ack(1, 1) + get(1, "q", false));
    pair.upstream(job("a").get_ok(1, 2));
    answer(&store, &mut pair, 0);
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), get(1, "q", false) + ack(1, 2)));
}

#[test]
fn what_the_store_was_asked_about_goes_back_with_its_consumer() {
    let (post, store) = late(VERDICTS);
    let mut pair = post.consumer();
    waits(&mut pair, &job("a"), 1);
    waits(&mut pair, &job("b"), 2);
    answer(&store, &mut pair, 1);
    says(&mut pair, cancel(1, "c"), cancel(1, "c"));
    pair.upstream(cancel_ok(1, "c"));
    assert_eq!(pair.to_client(), cancel_ok(1, "c"));
    assert_eq!(pair.to_upstream().len(), 1, "both go back together");
    assert_eq!(post.in_flight(), 0);
}

/// Otherwise a crash of Hapax in between would show the other copy to a consumer, although one has done the work.
#[test]
fn an_ack_goes_on_when_its_id_is_remembered() {
    let (post, store) = late(COMMITS);
    let (mut pair, mut other) = (post.consumer(), post.consumer());
    shown(&mut pair, &job("a"), 1, 1);
    shown(&mut pair, &job("b"), 2, 2);
    waits(&mut other, &job("a"), 1);
    says(&mut pair, ack(1, 1), Frames::none());
    says(&mut pair, nack(1, 2), nack(1, 2));
    quiet(&mut other);
    store.remember(1, pair.now());
    pair.pump();
    assert_eq!(pair.to_upstream(), ack(1, 1));
    assert_eq!((other.to_client(), other.to_upstream()), (Frames::none(), ack(1, 1)));
}

#[test]
fn an_ack_is_not_held_back_when_the_channel_ends_or_the_store_is_silent() {
    let (post, store) = late(COMMITS);
    let mut pair = post.consumer();
    shown(&mut pair, &job("a"), 1, 1);
    says(&mut pair, ack(1, 1), Frames::none());
    pair.advance(2 * SECOND);
    assert_eq!(pair.to_upstream(), ack(1, 1));
    shown(&mut pair, &job("b"), 2, 2);
    says(&mut pair, ack(1, 2), Frames::none());
    says(&mut pair, channel_close(1, 200, ""), ack(1, 2) + channel_close(1, 200, ""));
    drop(store);
}

/// The broker takes the delivery back, because it has not heard of the ack. It is hidden when it comes again.
#[test]
fn an_ack_that_was_held_back_is_not_sent_into_a_recover() {
    let (post, store) = late(COMMITS);
    let mut pair = post.consumer();
    shown(&mut pair, &job("a"), 1, 1);
    says(&mut pair, ack(1, 1) + recover(1), recover(1));
    store.remember(1, pair.now());
    quiet(&mut pair);
    pair.upstream(recover_ok(1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (recover_ok(1), Frames::none()));
    pair.upstream(job("a").deliver(1, "c", 2));
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), ack(1, 2)));
}

/// A consumer of a stream is cancelled while its deliveries wait behind those of a guarded queue. A stream takes nothing back: the broker
/// would close the connection.
#[test]
fn what_came_from_a_stream_is_acked_and_not_given_back() {
    let (post, store) = late(VERDICTS);
    let mut pair = post.consumer();
    begin(&mut pair, consume_acking(1, "log", "d"), "d");
    waits(&mut pair, &job("a"), 1);
    let of_stream = job("s").header("x-stream-offset", AMQPValue::LongLongInt(7));
    pair.upstream(of_stream.deliver(1, "d", 2));
    quiet(&mut pair);
    says(&mut pair, cancel(1, "d"), cancel(1, "d"));
    pair.upstream(cancel_ok(1, "d"));
    assert_eq!((pair.to_client(), pair.to_upstream()), (cancel_ok(1, "d"), ack(1, 2)));
    answer(&store, &mut pair, 0);
    assert_eq!(pair.to_client(), job("a").deliver(1, "c", 1));
}
