//! Point 17 behind a guard: a delivery, a verdict or a settle costs the same however many deliveries wait.

use super::guard_late::late;
use super::guard_post::{Post, done, job};
use super::late::VERDICTS;
use crate::support::cost::assert_linear;
use crate::support::frames::{Frames, Message};
use crate::support::late::Late;
use crate::support::methods::{ack, consume_acking, get, nack_multiple, tx_rollback, tx_rollback_ok};
use crate::support::pair::Pair;

/// The number of items; the other measurement has 16 times as many.
const N: usize = 500;

fn id(n: usize) -> Message {
    job(&n.to_string())
}

fn bytes(frames: impl Iterator<Item = Frames>) -> Vec<u8> {
    frames.flat_map(|frames| frames.encode()).collect()
}

/// Deliveries of these jobs, from this tag of the broker on.
fn deliveries(jobs: impl Iterator<Item = Message>, first: u64) -> Vec<u8> {
    bytes((first..).zip(jobs).map(|(tag, job)| job.deliver(1, "c", tag)))
}

/// The client asks for many before it reads, and the first message is hidden: its question is asked again, behind all others.
#[test]
fn p17_cost_of_gets_behind_one_that_is_asked_again() {
    let prepare = |n: usize| {
        let post = Post::new();
        done(&post, "a");
        let mut pair = post.pair();
        pair.client_bytes(&bytes((0..n).map(|_| get(1, "q", false))));
        pair.to_upstream_bytes();
        pair.upstream(job("a").get_ok(1, 1));
        let answers = bytes((1..n).map(|n| id(n).get_ok(1, n as u64 + 1)));
        (post, pair, answers)
    };
    assert_linear("gets", 4 * N, prepare, |(post, mut pair, answers)| {
        pair.upstream_bytes(&answers);
        pair.upstream(id(0).get_ok(1, 1_000_000));
        assert!(pair.to_client_bytes().len() > answers.len() / 2);
        (post, pair)
    });
}

/// The store of the guard is slow. Its answers come in the order of the questions, or a part of it answers earlier than the rest.
#[test]
fn p17_cost_of_deliveries_that_wait_for_the_store() {
    for last_first in [false, true] {
        let prepare = |n: usize| {
            let (post, store) = late(Late { waits_on: true, ..VERDICTS });
            let pair = post.consumer();
            (
                post,
                store,
                pair,
                (1..=n).map(|n| deliveries([id(n)].into_iter(), n as u64)).collect::<Vec<_>>(),
            )
        };
        assert_linear("deliveries", N / 2, prepare, |(post, store, mut pair, reads)| {
            for read in &reads {
                pair.upstream_bytes(read);
                pair.session.poll_timeout();
            }
            for left in (0..reads.len()).rev() {
                assert!(store.answer_next(if last_first { left } else { 0 }, pair.now()));
                pair.pump();
                pair.session.poll_timeout();
            }
            assert!(!pair.to_client_bytes().is_empty());
            (post, store, pair)
        });
    }
}

/// Copies wait for another consumer, who settles one after another, or all at once.
#[test]
fn p17_cost_of_copies_that_wait() {
    for all_alike in [false, true] {
        for settles in [ack as fn(u16, u64) -> Frames, nack_multiple] {
            let prepare = move |n: usize| {
                let post = Post::with(|terms| terms.waiters = 100_000, |window| window);
                let (mut one, mut pair) = (post.consumer(), post.consumer());
                let copies = if all_alike { 1 } else { n };
                one.upstream_bytes(&deliveries((0..copies).map(id), 1));
                pair.upstream_bytes(&deliveries((0..n).map(|n| id(n % copies)), 1));
                assert!(pair.to_client_bytes().is_empty());
                let said = bytes((1..=copies as u64).map(|tag| settles(1, tag)));
                (post, one, pair, said)
            };
            assert_linear(
                "copies",
                N,
                prepare,
                |(post, mut one, mut pair, said): (Post, Pair, Pair, Vec<u8>)| {
                    one.client_bytes(&said);
                    pair.pump();
                    pair.advance(std::time::Duration::from_secs(1));
                    assert!(!pair.to_client_bytes().is_empty() || !pair.to_upstream_bytes().is_empty());
                    (post, one, pair)
                },
            );
        }
    }
}

/// Acks one by one from the last one on, and a transaction that is rolled back.
#[test]
fn p17_cost_of_acks() {
    let prepare = |n: usize| {
        let post = Post::new();
        let mut pair = super::guard::in_tx(&post);
        pair.upstream_bytes(&deliveries((0..n).map(id), 1));
        let acks = bytes((1..=n as u64).rev().map(|tag| ack(1, tag)));
        (post, pair, acks)
    };
    assert_linear("acks in a transaction", N, prepare, |(post, mut pair, acks)| {
        for _ in 0..2 {
            pair.client_bytes(&acks);
            pair.client(tx_rollback(1));
            pair.upstream(tx_rollback_ok(1));
        }
        (post, pair)
    });
    let prepare = |n: usize| {
        let post = Post::with(|_| (), |window| window);
        let mut pair = post.consumer();
        pair.upstream_bytes(&deliveries((0..n).map(id), 1));
        (post, pair, bytes((1..=n as u64).rev().map(|tag| ack(1, tag))))
    };
    assert_linear("acks", N, prepare, |(post, mut pair, acks)| {
        pair.client_bytes(&acks);
        (post, pair)
    });
}

/// Many consumers of one channel have copies that wait, and the client cancels one after the other.
#[test]
fn p17_cost_of_consumers_that_are_cancelled() {
    use crate::support::methods::{cancel, cancel_ok, consume_ok};
    let prepare = |n: usize| {
        let post = Post::with(|terms| terms.waiters = 100_000, |window| window);
        let mut one = post.consumer();
        one.upstream_bytes(&deliveries((0..n).map(id), 1));
        let mut pair = post.pair();
        for consumer in 0..n {
            let tag = format!("c{consumer}");
            pair.client(consume_acking(1, "q", &tag));
            pair.upstream(consume_ok(1, &tag) + id(consumer).deliver(1, &tag, consumer as u64 + 1));
        }
        (post, one, pair)
    };
    assert_linear("cancelled consumers", N / 4, prepare, |(post, one, mut pair)| {
        for consumer in 0.. {
            let tag = format!("c{consumer}");
            pair.client(cancel(1, &tag));
            pair.upstream(cancel_ok(1, &tag));
            if !pair.to_upstream_bytes().windows(4).any(|octets| octets == [0, 60, 0, 120]) {
                break;
            }
        }
        (post, one, pair)
    });
}
