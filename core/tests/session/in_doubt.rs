//! Point 6, unknown outcomes, where a channel ends: the culprit is known, all others are in doubt.

use super::desk::{Desk, SECOND, cut, m, publish, two};
use crate::support::frames::{Frames, Message, message};
use crate::support::methods::{
    ack, channel_close, channel_close_for, channel_close_ok, flow, publish_refused, tx_commit, tx_rollback,
    tx_select, tx_select_ok,
};
use crate::support::pair::Pair;
use hapax_core::window::{Event, ForgetCause, InDoubt, MissingId};

const PARTIAL: &str = "PRECONDITION_FAILED - partial tx completion";

fn desk(rule: InDoubt) -> Desk {
    Desk::with(|plan| plan.rules.in_doubt = rule)
}

fn no_exchange(name: &str) -> Frames {
    publish_refused(1, 404, &format!("NOT_FOUND - no exchange '{name}' in vhost '/'"))
}

fn y(id: &str) -> Message {
    message("y", "k").id(id).body("body")
}

/// Returns the numbers of reservations that were kept in doubt, forgotten in doubt, and forgotten as a possible culprit.
fn outcomes(desk: &Desk) -> [usize; 3] {
    [
        desk.count_like(|event| matches!(event, Event::CommittedInDoubt { .. })),
        desk.count(Event::Forgotten(ForgetCause::InDoubt)),
        desk.count(Event::Forgotten(ForgetCause::ChannelClosed)),
    ]
}

fn publish_all(pair: &mut Pair, messages: &[Message]) {
    messages.iter().for_each(|message| publish(pair, message));
}

fn seen<const N: usize>(desk: &Desk, ids: [&str; N]) -> [bool; N] {
    ids.map(|id| desk.is_seen(id) || desk.is_seen_at("y", "k", id))
}

#[test]
fn p06_a_close_for_another_message_leaves_the_rest_in_doubt() {
    for (rule, right) in [(InDoubt::Keep, [20, 0, 1]), (InDoubt::Forget, [0, 20, 1])] {
        let desk = desk(rule);
        let mut pair = desk.confirming();
        (0..20).for_each(|n| publish(&mut pair, &m(&format!("{n}"))));
        publish(&mut pair, &y("culprit"));
        pair.upstream(no_exchange("y"));
        assert_eq!(outcomes(&desk), right);
        assert!(!desk.is_seen_at("y", "k", "culprit"));
        assert_eq!((0..20).filter(|n| desk.is_seen(&format!("{n}"))).count(), right[0]);
        assert_eq!(desk.in_flight(), 0);
    }
}

#[test]
fn p06_all_to_the_named_exchange_are_suspects() {
    let desk = desk(InDoubt::Keep);
    let mut pair = desk.confirming();
    publish_all(&mut pair, &[m("a"), y("b"), m("c"), y("d"), m("e")]);
    pair.upstream(no_exchange("y"));
    assert_eq!(
        seen(&desk, ["a", "b", "c", "d", "e"]),
        [true, false, true, false, false],
        "e came after the last suspect, so the broker has never looked at it"
    );
    assert_eq!(outcomes(&desk), [2, 0, 3]);
}

#[test]
fn p06_suspects_by_every_text_that_names_an_exchange() {
    for (code, text) in [
        (403, "ACCESS_REFUSED - access to exchange 'y' in vhost '/' refused for user 'guest'"),
        (403, "ACCESS_REFUSED - write access to exchange 'y' in vhost '/' refused for user 'guest'"),
        (403, "ACCESS_REFUSED - access to topic 'k' in exchange 'y' in vhost '/' refused for user 'guest'"),
        (
            403,
            "ACCESS_REFUSED - write access to topic 'k' in exchange 'y' in vhost '/' refused for user 'guest'",
        ),
        (403, "ACCESS_REFUSED - cannot publish to internal exchange 'y' in vhost '/'"),
        (404, "NOT_FOUND - no exchange 'y' in vhost '/'"),
    ] {
        let desk = desk(InDoubt::Keep);
        let mut pair = desk.confirming();
        publish_all(&mut pair, &[m("a"), y("b")]);
        pair.upstream(publish_refused(1, code, text));
        assert_eq!(seen(&desk, ["a", "b"]), [true, false], "{text}");
    }
}

#[test]
fn p06_without_a_name_the_newest_whole_one_is_the_culprit() {
    let desk = desk(InDoubt::Keep);
    let mut pair = desk.confirming();
    publish_all(&mut pair, &[m("a"), m("b")]);
    pair.client(cut(two("half").publish(1), 3).0);
    pair.upstream(publish_refused(1, 406, "PRECONDITION_FAILED - invalid expiration 'soon'"));
    assert_eq!(seen(&desk, ["a", "b", "half"]), [true, false, false]);
    assert_eq!(outcomes(&desk), [1, 0, 1]);
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::Incomplete)), 1);
}

#[test]
fn p06_one_alone_is_the_culprit_whatever_the_text_says() {
    let desk = desk(InDoubt::Keep);
    let mut pair = desk.confirming();
    publish_all(&mut pair, &[m("settled"), m("a")]);
    pair.upstream(ack(1, 1) + no_exchange("cut ..."));
    assert_eq!(seen(&desk, ["settled", "a"]), [true, false]);
    assert_eq!(outcomes(&desk), [0, 0, 1]);
}

#[test]
fn p06_a_publish_that_nobody_judges_can_be_the_culprit() {
    let desk = desk(InDoubt::Keep);
    let mut pair = desk.confirming();
    publish_all(&mut pair, &[m("a"), message("gone", "k").bypass().body("body"), m("b"), m("c")]);
    pair.upstream(no_exchange("gone"));
    assert_eq!(seen(&desk, ["a", "b", "c"]), [true, false, false], "b and c came after it");
    assert_eq!(outcomes(&desk), [1, 0, 2]);
}

#[test]
fn p06_a_close_that_blames_no_publish_leaves_all_in_doubt() {
    for (method, text) in [((50, 10), "NOT_FOUND - no exchange 'x' in vhost '/'"), ((0, 0), "")] {
        let desk = desk(InDoubt::Keep);
        let mut pair = desk.confirming();
        publish_all(&mut pair, &[m("a"), m("b")]);
        pair.upstream(channel_close_for(1, 404, text, method));
        assert_eq!(outcomes(&desk), [2, 0, 0]);
    }
}

#[test]
fn p06_what_came_back_is_not_kept() {
    let desk = desk(InDoubt::Keep);
    let mut pair = desk.confirming();
    let returned = m("returned").mandatory();
    publish_all(&mut pair, &[returned.clone(), m("a"), y("culprit")]);
    pair.upstream(returned.returned(1) + no_exchange("y"));
    assert_eq!(seen(&desk, ["returned", "a", "culprit"]), [false, true, false]);
}

#[test]
fn p06_a_channel_that_is_closed_after_the_linger_leaves_its_publishes_in_doubt() {
    let desk = desk(InDoubt::Keep);
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    pair.client(channel_close(1, 200, "bye"));
    pair.advance(10 * SECOND);
    assert_eq!(pair.to_upstream(), flow(1, true) + channel_close(1, 200, "bye"));
    assert_eq!(desk.in_flight(), 1);
    pair.upstream(channel_close_ok(1));
    assert_eq!(outcomes(&desk), [1, 0, 0]);
    assert!(desk.is_seen("a"));
}

#[test]
fn p06_a_channel_that_hapax_has_closed_leaves_its_publishes_in_doubt() {
    for closed_by_broker in [false, true] {
        let desk = Desk::with(|plan| {
            plan.rules.in_doubt = InDoubt::Keep;
            plan.rules.missing_id = MissingId::Reject;
        });
        let mut pair = desk.confirming();
        publish_all(&mut pair, &[m("a"), m("b")]);
        pair.client(message("x", "k").publish(1));
        assert!(format!("{:?}", pair.to_client()).contains("channel.close 406"));
        pair.client(channel_close_ok(1));
        if closed_by_broker {
            pair.upstream(no_exchange("x"));
        } else {
            pair.advance(10 * SECOND);
            pair.upstream(channel_close_ok(1));
        }
        assert_eq!(outcomes(&desk), if closed_by_broker { [0, 0, 2] } else { [2, 0, 0] });
        assert_eq!(desk.in_flight(), 0);
    }
}

/// A transaction that is open, and nothing that is left to be read.
fn in_tx(desk: &Desk, frames: Frames) -> Pair {
    let mut pair = desk.pair();
    pair.client(tx_select(1) + frames);
    pair.upstream(tx_select_ok(1));
    pair.to_client();
    pair.to_upstream();
    pair
}

#[test]
fn p06_a_partial_commit_is_in_doubt_and_what_is_open_is_not() {
    for (rule, right) in [(InDoubt::Keep, [2, 0, 0]), (InDoubt::Forget, [0, 2, 0])] {
        let desk = desk(rule);
        let frames = m("a").publish(1) + y("b").publish(1) + tx_commit(1) + m("open").publish(1);
        let mut pair = in_tx(&desk, frames);
        pair.upstream(channel_close_for(1, 406, PARTIAL, (90, 20)));
        assert_eq!(outcomes(&desk), right);
        assert_eq!(desk.count(Event::Forgotten(ForgetCause::Rollback)), 1);
        assert_eq!(desk.in_flight(), 0);
    }
}

#[test]
fn p06_a_rollback_is_never_in_doubt() {
    let desk = desk(InDoubt::Keep);
    let mut pair = in_tx(&desk, m("a").publish(1) + tx_rollback(1));
    pair.upstream(channel_close_for(1, 406, PARTIAL, (90, 20)));
    assert_eq!(outcomes(&desk), [0, 0, 0]);
    assert_eq!(desk.count(Event::Forgotten(ForgetCause::Rollback)), 1);
}

#[test]
fn p06_a_transaction_with_the_culprit_was_never_committed() {
    let desk = desk(InDoubt::Keep);
    let frames = m("a").publish(1) + tx_commit(1) + m("b").publish(1) + y("c").publish(1) + tx_commit(1);
    let mut pair = in_tx(&desk, frames + m("d").publish(1) + tx_commit(1) + m("e").publish(1));
    pair.upstream(no_exchange("y"));
    assert_eq!(seen(&desk, ["a", "b", "c", "d", "e"]), [true, false, false, false, false]);
    assert_eq!(outcomes(&desk), [1, 0, 3]);
    assert_eq!(desk.in_flight(), 0);
}

#[test]
fn p06_a_culprit_in_the_open_transaction_leaves_the_commit_in_doubt() {
    let desk = desk(InDoubt::Keep);
    let mut pair = in_tx(&desk, m("a").publish(1) + tx_commit(1) + y("b").publish(1));
    pair.upstream(publish_refused(1, 406, "PRECONDITION_FAILED - invalid expiration 'soon'"));
    assert_eq!(seen(&desk, ["a", "b"]), [true, false]);
}
