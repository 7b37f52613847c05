//! Point 17, one budget: the work of a session must grow linearly with what it receives, and not with its square. Each test
//! is for one collection that a client or the broker can fill.

use super::desk::{Desk, SECOND, confirm, m};
use super::late::late_as;
use crate::support::cost::assert_linear;
use crate::support::frames::{Frames, Message, message};
use crate::support::late::Late;
use crate::support::methods::{
    ack, ack_multiple, channel_open, channel_open_ok, consume, nack_multiple, publish_refused, queue_declare,
    tx_commit, tx_commit_ok, tx_rollback, tx_rollback_ok, tx_select, tx_select_ok,
};
use crate::support::pair::Pair;
use hapax_core::window::{ConfirmRule, InDoubt};

/// The number of items; the other measurement has 16 times as many.
const N: usize = 1_000;
const ALL: usize = 40_000;

/// Each publish is committed alone, and remembered alone, by a window that is late.
#[test]
fn p17_cost_of_commits_that_are_remembered_late() {
    let how = Late { verdicts: false, commits: true, waits_on: true };
    let prepare = |n: usize| {
        let (desk, late) = late_as(how, |plan| {
            plan.limits.capacity = ALL;
            plan.settings.max_unresolved = 3 * ALL;
        });
        let mut pair = desk.confirming();
        pair.client_bytes(&ids(n));
        pair.to_upstream();
        (late, pair, acks(1..=n))
    };
    assert_linear("commits", N / 2, prepare, |(late, mut pair, acks)| {
        pair.upstream_bytes(&acks);
        while late.unremembered() > 0 {
            late.remember(1, pair.now());
            pair.pump();
        }
        (late, pair)
    });
}

/// No bound is in the way.
fn desk() -> Desk {
    Desk::with(|plan| {
        plan.limits.capacity = ALL;
        plan.settings.max_unresolved = 3 * ALL;
        plan.settings.held_bytes = usize::MAX;
    })
}

fn bytes(frames: impl Iterator<Item = Frames>) -> Vec<u8> {
    frames.flat_map(|frames| frames.encode()).collect()
}

fn id(n: usize) -> Message {
    m(&format!("{n}"))
}

/// Publishes of `n` ids.
fn ids(n: usize) -> Vec<u8> {
    bytes((0..n).map(|n| id(n).publish(1)))
}

fn mandatory(n: usize) -> Message {
    id(n).mandatory()
}

/// All of them look the same to a broker.
fn alike() -> Message {
    m("alike").bypass().mandatory()
}

/// Acks one by one, in the order of these tags.
fn acks(tags: impl Iterator<Item = usize>) -> Vec<u8> {
    bytes(tags.map(|tag| ack(1, tag as u64)))
}

fn in_tx(desk: &Desk) -> Pair {
    let mut pair = desk.pair();
    pair.client(tx_select(1));
    pair.upstream(tx_select_ok(1));
    pair
}

/// `n` publishes that are in flight, and what the upstream says then.
fn published(n: usize, publish: impl Fn(usize) -> Message, said: Vec<u8>) -> (Desk, Pair, Vec<u8>) {
    let desk = desk();
    let mut pair = desk.confirming();
    pair.client_bytes(&bytes((0..n).map(|n| publish(n).publish(1))));
    assert_eq!(pair.session.unresolved(), n);
    (desk, pair, said)
}

/// The upstream says it; how many are unresolved after that.
fn hear(unresolved: usize) -> impl Fn((Desk, Pair, Vec<u8>)) -> (Desk, Pair) {
    move |(desk, mut pair, said)| {
        pair.upstream_bytes(&said);
        assert_eq!(pair.session.unresolved(), unresolved);
        (desk, pair)
    }
}

#[test]
fn p17_cost_of_publishes_and_of_acks_in_order() {
    assert_linear("acks", N, |n| published(n, id, acks(1..=n)), hear(0));
    let prepare = |n| (desk(), ids(n));
    assert_linear("publishes", N, prepare, |(desk, ids)| {
        let mut pair = desk.confirming();
        pair.client_bytes(&ids);
        (desk, pair)
    });
}

#[test]
fn p17_cost_of_acks_out_of_order() {
    assert_linear("acks, last first", N, |n| published(n, id, acks((1..=n).rev())), hear(0));
    let scattered = |n: usize| (0..n).map(move |at| at * 7_919 % n + 1);
    assert_linear("acks, scattered", N, |n| published(n, id, acks(scattered(n))), hear(0));
}

#[test]
fn p17_cost_of_one_ack_or_nack_for_many() {
    let acked = |n| published(n, id, ack_multiple(1, n as u64).encode());
    assert_linear("ack multiple", N, acked, hear(0));
    let nacked = |n| published(n, id, nack_multiple(1, n as u64).encode());
    assert_linear("nack multiple", N, nacked, hear(0));
}

#[test]
fn p17_cost_of_mandatory_publishes_that_are_acked_out_of_order() {
    let last_first = |n: usize| acks((1..=n).rev());
    assert_linear("mandatory", N, |n| published(n, mandatory, last_first(n)), hear(0));
    assert_linear("mandatory, alike", N, |n| published(n, |_| alike(), last_first(n)), hear(0));
}

#[test]
fn p17_cost_of_returns() {
    let returns = |n: usize| bytes((0..n).rev().map(|n| mandatory(n).returned(1)));
    assert_linear(
        "returns",
        N,
        |n| published(n, mandatory, returns(n)),
        |(desk, mut pair, said)| {
            pair.upstream_bytes(&said);
            (desk, pair)
        },
    );
    let returned_alike = |n: usize| bytes((0..n).map(|_| alike().returned(1)));
    let said = |n: usize| [returned_alike(n), acks((1..=n).rev())].concat();
    assert_linear("returns, alike", N, |n| published(n, |_| alike(), said(n)), hear(0));
    let altered = |n: usize| bytes((0..n).map(|n| mandatory(n).app("altered").returned(1)));
    let said = |n: usize| [altered(n), acks((1..=n).rev())].concat();
    assert_linear("returns, altered", N, |n| published(n, mandatory, said(n)), hear(0));
}

#[test]
fn p17_cost_of_two_transactions_of_returned_messages() {
    for altered in [false, true] {
        let back = move |n| if altered { mandatory(n).app("altered") } else { mandatory(n) };
        let prepare = |n: usize| {
            let desk = desk();
            let mut pair = in_tx(&desk);
            let half = |first: usize| (first..first + n).map(mandatory);
            let publishes = |first| bytes(half(first).map(|message| message.publish(1)));
            let commit = tx_commit(1).encode();
            pair.client_bytes(&[publishes(0), commit.clone(), publishes(n), commit].concat());
            let returns = |first: usize| bytes((first..first + n).rev().map(|n| back(n).returned(1)));
            let ok = tx_commit_ok(1).encode();
            (desk, pair, [returns(0), ok.clone(), returns(n), ok].concat())
        };
        assert_linear("two transactions that come back", N, prepare, hear(0));
    }
}

/// Others have the ids of a transaction in flight, and the transaction says each of them twice.
#[test]
fn p17_cost_of_a_transaction_whose_ids_others_have_in_flight() {
    let prepare = |n| (published(n, id, ack_multiple(1, n as u64).encode()), [ids(n), ids(n)].concat());
    assert_linear("a transaction that waits", N, prepare, |((desk, mut first, said), ids)| {
        let mut pair = in_tx(&desk);
        pair.client_bytes(&ids);
        first.upstream_bytes(&said);
        pair.pump();
        assert_eq!(pair.session.unresolved(), 0);
        (desk, first, pair)
    });
}

#[test]
fn p17_cost_of_a_transaction_whose_ids_others_repeat() {
    let prepare = |n| {
        let desk = desk();
        let mut pair = in_tx(&desk);
        pair.client_bytes(&ids(n));
        (desk, pair, ids(n))
    };
    for commits in [true, false] {
        assert_linear("a transaction that others wait for", N, prepare, |(desk, mut pair, ids)| {
            let mut others = desk.confirming();
            others.client_bytes(&ids);
            pair.client_bytes(&ids);
            pair.client(if commits { tx_commit(1) } else { tx_rollback(1) });
            pair.upstream(if commits { tx_commit_ok(1) } else { tx_rollback_ok(1) });
            others.pump();
            (desk, pair, others)
        });
    }
}

#[test]
fn p17_cost_of_transactions_that_are_empty() {
    let prepare = |n: usize| {
        let desk = desk();
        let pair = in_tx(&desk);
        let commits = bytes((0..n).map(|_| tx_commit(1)));
        (desk, pair, commits, bytes((0..n).map(|_| tx_commit_ok(1))))
    };
    assert_linear("empty transactions", N, prepare, |(desk, mut pair, commits, oks)| {
        pair.client_bytes(&commits);
        pair.upstream_bytes(&oks);
        (desk, pair)
    });
}

/// A transaction that waits for an id of somebody else, and all that is said after its commit.
#[test]
fn p17_cost_of_frames_that_wait_their_turn() {
    let prepare = |n: usize| {
        let desk = desk();
        let mut first = desk.confirming();
        first.client(m("held").publish(1));
        let mut pair = in_tx(&desk);
        pair.client(m("held").publish(1) + tx_commit(1));
        (desk, first, pair, ids(n))
    };
    assert_linear("frames behind a commit", N, prepare, |(desk, mut first, mut pair, ids)| {
        pair.client_bytes(&ids);
        first.upstream(ack(1, 1));
        pair.pump();
        pair.upstream(tx_commit_ok(1));
        (desk, first, pair)
    });
}

#[test]
fn p17_cost_of_publishes_that_wait() {
    let waiting = |n| {
        let (desk, first, said) = published(n, id, acks(1..=n));
        (desk, first, said, ids(n))
    };
    assert_linear("waiters that share the fate", N, waiting, |(desk, mut first, said, ids)| {
        let mut pair = desk.confirming();
        pair.client_bytes(&ids);
        first.upstream_bytes(&said);
        pair.pump();
        assert_eq!(pair.session.unresolved(), 0);
        (desk, first, pair)
    });
    assert_linear("waiters that are promoted", N, waiting, |(desk, mut first, _, ids)| {
        let mut pair = desk.confirming();
        pair.client_bytes(&ids);
        first.upstream_eof();
        pair.pump();
        (desk, first, pair)
    });
    assert_linear("waiters that are given up", N, waiting, |(desk, first, _, ids)| {
        let mut pair = desk.confirming();
        pair.client_bytes(&ids);
        pair.advance(30 * SECOND);
        assert_eq!(pair.session.unresolved(), 0);
        (desk, first, pair)
    });
    assert_linear("waiters that leave", N, waiting, |(desk, first, _, ids)| {
        let mut pair = desk.confirming();
        pair.client_bytes(&ids);
        pair.upstream_eof();
        (desk, first, pair)
    });
}

#[test]
fn p17_cost_of_a_channel_that_ends() {
    let to = |n: usize| message(["x", "y"][n % 2], "k").id(&format!("{n}"));
    let prepare = |rule| {
        move |n| {
            let desk = Desk::with(|plan| {
                plan.rules.in_doubt = rule;
                plan.limits.capacity = ALL;
                plan.settings.max_unresolved = ALL;
            });
            let mut pair = desk.confirming();
            pair.client_bytes(&bytes((0..n).map(|n| to(n).publish(1))));
            (desk, pair, publish_refused(1, 404, "NOT_FOUND - no exchange 'y' in vhost '/'").encode())
        }
    };
    for rule in [InDoubt::Keep, InDoubt::Forget] {
        assert_linear("a close for one of many", N, prepare(rule), hear(0));
    }
}

#[test]
fn p17_cost_of_ids_that_are_committed_at_their_writing() {
    let prepare = |n: usize| {
        let desk = Desk::with(|plan| {
            plan.rules.confirms = ConfirmRule::ClientOnly;
            plan.limits.capacity = ALL;
        });
        let publishes = bytes((0..n).map(|n| mandatory(n).publish(1)));
        let returns = bytes((0..n).rev().map(|n| mandatory(n).returned(1)));
        let altered = bytes((0..n).map(|n| mandatory(n).app("altered").returned(1)));
        (desk, publishes, [returns, altered].concat())
    };
    assert_linear("client-only", N, prepare, |(desk, publishes, returns)| {
        let mut pair = desk.pair();
        pair.client_bytes(&publishes);
        pair.upstream_bytes(&returns);
        pair.client_bytes(&publishes);
        (desk, pair)
    });
}

#[test]
fn p17_cost_of_consumers() {
    let prepare = |n: usize| {
        let desk = desk();
        (desk, bytes((0..n).map(|n| consume(1, "q", &format!("consumer {n}")))))
    };
    assert_linear("consumers", N, prepare, |(desk, consumes)| {
        let mut pair = desk.confirming();
        pair.client_bytes(&consumes);
        pair.client(m("unsettled").publish(1));
        pair.client_eof();
        (desk, pair)
    });
}

#[test]
fn p17_cost_of_channels() {
    let prepare = |n: usize| {
        let desk = desk();
        let mut pair = Pair::new(&desk.shared);
        pair.handshake_with("guest", "/", (65_535, 131_072, 0));
        let channels = 1..=u16::try_from(n).unwrap();
        pair.client_bytes(&bytes(channels.clone().map(channel_open)));
        pair.upstream_bytes(&bytes(channels.clone().map(channel_open_ok)));
        confirm_first(&mut pair);
        let declares = bytes(channels.map(|channel| queue_declare(channel, "q")));
        (desk, pair, declares)
    };
    assert_linear("channels", N, prepare, |(desk, mut pair, declares)| {
        pair.client_bytes(&declares);
        pair.client_eof();
        (desk, pair)
    });
}

fn confirm_first(pair: &mut Pair) {
    pair.to_client();
    pair.to_upstream();
    confirm(pair, 1);
    pair.client(m("unsettled").publish(1));
}
