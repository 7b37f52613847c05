//! The guard and `basic.get`: a hidden message is no answer, so the broker is asked again.

use super::guard_post::{Post, begin, done, job, quiet, says, shown};
use crate::support::frames::Frames;
use crate::support::methods::{
    ack, ack_multiple, consume_acking, get, get_empty, give_back, nack, recover, recover_ok,
};
use hapax_core::window::{Event, ForgetCause};

#[test]
fn the_next_message_is_fetched_instead_of_a_hidden_one() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = post.pair();
    says(&mut pair, get(1, "q", false), get(1, "q", false));
    for tag in 1..=2 {
        pair.upstream(job("a").get_ok(1, tag));
        assert_eq!(
            (pair.to_client(), pair.to_upstream()),
            (Frames::none(), get(1, "q", false) + ack(1, tag))
        );
    }
    pair.upstream(job("b").get_ok(1, 3));
    assert_eq!((pair.to_client(), pair.to_upstream()), (job("b").get_ok(1, 1), Frames::none()));
    says(&mut pair, ack(1, 1), ack(1, 3));
    assert!(post.is_seen("b"));
    says(&mut pair, get(1, "q", false), get(1, "q", false));
    pair.upstream(get_empty(1));
    assert_eq!(pair.to_client(), get_empty(1));
}

#[test]
fn answers_come_in_the_order_of_the_questions() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = post.pair();
    let questions = get(1, "q", false) + get(1, "free", true) + get(1, "q", false);
    says(&mut pair, questions.clone(), questions);
    pair.upstream(job("a").get_ok(1, 1));
    assert_eq!(pair.to_upstream(), get(1, "q", false) + ack(1, 1));
    // These are answers to later questions.
    pair.upstream(job("f").get_ok(1, 2) + get_empty(1));
    quiet(&mut pair);
    pair.upstream(job("b").get_ok(1, 3));
    assert_eq!(pair.to_client(), job("b").get_ok(1, 1) + job("f").get_ok(1, 2) + get_empty(1));
    says(&mut pair, ack_multiple(1, 1), ack(1, 3));
}

/// The client must not be stopped: it may be the one that works on the other copy.
#[test]
fn a_copy_that_another_works_on_is_set_aside() {
    let post = Post::new();
    let mut pair = post.pair();
    says(&mut pair, get(1, "q", false), get(1, "q", false));
    pair.upstream(job("a").get_ok(1, 1));
    assert_eq!(pair.to_client(), job("a").get_ok(1, 1));
    for (tag, id) in [(2, "a"), (3, "a")] {
        says(
            &mut pair,
            if tag == 2 { get(1, "q", false) } else { Frames::none() },
            if tag == 2 { get(1, "q", false) } else { Frames::none() },
        );
        pair.upstream(job(id).get_ok(1, tag));
        assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), get(1, "q", false)));
    }
    pair.upstream(get_empty(1));
    assert_eq!(pair.to_client(), get_empty(1));
    says(&mut pair, ack(1, 1), ack(1, 1) + ack_multiple(1, 3));
}

#[test]
fn what_was_set_aside_goes_back_to_its_queue_if_the_other_is_given_back() {
    let post = Post::new();
    let (mut one, mut pair) = (post.consumer(), post.pair());
    shown(&mut one, &job("a"), 1, 1);
    says(&mut pair, get(1, "q", false), get(1, "q", false));
    pair.upstream(job("a").get_ok(1, 1));
    assert_eq!(pair.to_upstream(), get(1, "q", false));
    pair.upstream(get_empty(1));
    assert_eq!(pair.to_client(), get_empty(1));
    says(&mut one, nack(1, 1), nack(1, 1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), give_back(1, 1)));
    assert_eq!(post.in_flight(), 0);
    assert_eq!(post.count_like(|event| *event == Event::Forgotten(ForgetCause::Nack)), 2);
}

/// It is fetched with an ack, so that it can go back.
#[test]
fn a_get_without_ack_is_acked_by_hapax_when_it_is_shown() {
    let post = Post::new();
    let mut pair = post.pair();
    for (tag, answer) in [(1, Frames::none()), (2, get(1, "q", false))] {
        says(&mut pair, get(1, "q", true), get(1, "q", false));
        pair.upstream(job("a").get_ok(1, tag));
        assert_eq!(pair.to_client(), if tag == 1 { job("a").get_ok(1, 1) } else { Frames::none() });
        assert_eq!(pair.to_upstream(), answer + ack(1, tag));
    }
    pair.upstream(get_empty(1));
    assert_eq!(pair.to_client(), get_empty(1));
    assert!(post.is_seen("a"));
}

#[test]
fn gets_and_consumers_share_the_tags() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = post.pair();
    begin(&mut pair, consume_acking(1, "free", "c"), "c");
    says(&mut pair, get(1, "q", false), get(1, "q", false));
    pair.upstream(job("a").get_ok(1, 1) + job("f").deliver(1, "c", 2));
    assert_eq!(pair.to_client(), job("f").deliver(1, "c", 1));
    pair.to_upstream();
    pair.upstream(job("b").get_ok(1, 3));
    assert_eq!(pair.to_client(), job("b").get_ok(1, 2));
    says(&mut pair, ack_multiple(1, 2), ack_multiple(1, 3));
}

#[test]
fn a_message_that_waits_for_its_turn_is_fetched_again_after_a_recover() {
    let post = Post::new();
    done(&post, "a");
    let mut pair = post.pair();
    let questions = get(1, "q", false) + get(1, "q", false) + recover(1);
    says(&mut pair, questions.clone(), questions);
    pair.upstream(job("a").get_ok(1, 1) + job("b").get_ok(1, 2));
    // The broker is about to take the first one back, so it is not acked.
    assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), get(1, "q", false)));
    pair.upstream(recover_ok(1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (recover_ok(1), get(1, "q", false)));
    assert_eq!(post.in_flight(), 0);
    pair.upstream(get_empty(1) + job("b").get_ok(1, 3));
    assert_eq!(pair.to_client(), get_empty(1) + job("b").get_ok(1, 1));
}
