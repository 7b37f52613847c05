//! Point 7, publishers without confirms, and point 8, scope.

use super::desk::{Desk, cut, key, m, publish, two, unheard};
use crate::support::frames::{Frames, message};
use crate::support::methods::{
    ack, ack_multiple, confirm_select, confirm_select_nowait, confirm_select_ok, nack, queue_declare,
    queue_declare_ok,
};
use amq_protocol::protocol::BasicProperties;
use amq_protocol::types::AMQPValue;
use hapax_core::window::{ConfirmRule, Event, Scope};
use hapax_core::wire::IdSource;

#[test]
fn p07_no_confirms_are_selected_unseen() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    let plain = message("x", "k");
    publish(&mut pair, &plain);
    pair.client(m("a").publish(1));
    assert_eq!(
        pair.to_upstream(),
        confirm_select_nowait(1) + m("a").publish(1),
        "before the first that is judged"
    );
    publish(&mut pair, &m("b"));
    pair.upstream(ack(1, 1) + nack(1, 2));
    assert_eq!(pair.to_client(), Frames::none(), "the answers are swallowed");
    assert!(desk.is_seen("a") && !desk.is_seen("b"));
    unheard(&mut pair, m("a").publish(1));
    assert_eq!(pair.session.unresolved(), 0);
}

#[test]
fn p07_no_confirms_selected_later_by_the_client_count_from_there() {
    let desk = Desk::new();
    desk.store("seen");
    let mut pair = desk.pair();
    pair.client(m("a").publish(1) + confirm_select(1));
    assert_eq!(pair.to_upstream(), confirm_select_nowait(1) + m("a").publish(1) + confirm_select(1));
    pair.upstream(confirm_select_ok(1));
    assert_eq!(pair.to_client(), confirm_select_ok(1));
    pair.client(m("seen").publish(1) + m("b").publish(1) + m("c").publish(1));
    assert_eq!(pair.to_client(), ack(1, 1));
    pair.upstream(ack_multiple(1, 2));
    assert_eq!(pair.to_client(), ack(1, 2));
    pair.upstream(ack(1, 3));
    assert_eq!(pair.to_client(), ack(1, 3));
}

#[test]
fn p07_no_confirms_before_their_selection_is_answered() {
    let desk = Desk::new();
    desk.store("seen");
    let mut pair = desk.pair();
    pair.client(queue_declare(1, "q") + confirm_select(1) + m("seen").publish(1));
    assert_eq!(pair.to_client(), Frames::none(), "an ack may not overtake select-ok");
    pair.upstream(queue_declare_ok(1, "q"));
    assert_eq!(pair.to_client(), queue_declare_ok(1, "q"));
    pair.upstream(confirm_select_ok(1));
    assert_eq!(pair.to_client(), confirm_select_ok(1) + ack(1, 1));

    let mut pair = desk.pair();
    pair.client(confirm_select_nowait(1) + m("seen").publish(1));
    assert_eq!(pair.to_client(), ack(1, 1), "where no answer comes, none is waited for");
}

#[test]
fn p07_no_confirms_client_only_commits_at_write() {
    let desk = Desk::with(|plan| plan.rules.confirms = ConfirmRule::ClientOnly);
    let mut pair = desk.pair();
    let (here, to_come) = cut(two("a").publish(1), 3);
    pair.client(here.clone());
    assert_eq!(pair.to_upstream(), here, "no select");
    assert!(!desk.is_seen("a"), "not whole");
    pair.client(to_come);
    assert!(desk.is_seen("a"));
    pair.to_upstream();
    unheard(&mut pair, m("a").publish(1));

    let mut pair = desk.pair();
    pair.client(cut(two("b").publish(1), 3).0);
    pair.client_eof();
    assert_eq!((desk.is_seen("b"), desk.in_flight()), (false, 0));
    pair.leave_upstream();
    assert!(pair.session.is_over());
}

#[test]
fn p07_no_confirms_client_only_still_heeds_the_clients() {
    let desk = Desk::with(|plan| plan.rules.confirms = ConfirmRule::ClientOnly);
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    assert!(!desk.is_seen("a"));
    pair.upstream(nack(1, 1));
    assert_eq!(pair.to_client(), nack(1, 1));
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (false, 0));
}

#[test]
fn p07_no_confirms_returns_are_heeded() {
    let desk = Desk::new();
    let mut pair = desk.pair();
    let a = m("a").mandatory();
    pair.client(a.publish(1));
    pair.to_upstream();
    pair.upstream(a.returned(1) + ack(1, 1));
    assert_eq!(pair.to_client(), a.returned(1));
    publish(&mut pair, &a);
}

#[test]
fn p08_scope_is_exchange_and_routing_key() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    for message in [
        message("x", "k").id("a"),
        message("y", "k").id("a"),
        message("x", "other").id("a"),
        message("", "one-queue").id("a"),
        message("", "another-queue").id("a"),
        message("xk", "").id("a"),
    ] {
        pair.client(message.publish(1));
        assert_eq!(pair.to_upstream(), message.publish(1));
    }
    assert_eq!(desk.in_flight(), 6);
}

#[test]
fn p08_scope_can_be_wider() {
    let desk = Desk::with(|plan| plan.rules.scope = Scope::Exchange);
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a"));
    unheard(&mut pair, message("x", "other").id("a").publish(1));
    publish(&mut pair, &message("y", "k").id("a"));
}

#[test]
fn p08_scope_is_compared_as_bytes() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    for id in ["Ä", "A\u{308}", "ä", "a", "A", "a ", " a", "1", "01"] {
        publish(&mut pair, &m(id));
    }
    let raw = |id: &[u8]| {
        let mut frames = m("??").publish(1);
        let body = frames.0.split_off(2).remove(0).encode();
        let header = frames.0.remove(1).encode();
        let at = header.windows(2).position(|two| two == b"??").unwrap();
        let header = [&header[..at], id, &header[at + 2..]].concat();
        [frames.encode(), header, body].concat()
    };
    for id in [b"\xff\xfe", b"\xff\xfd", b"\0\0"] {
        pair.client_bytes(&raw(id));
    }
    assert_eq!(desk.in_flight(), 12, "what is no UTF-8 is an id like any other");
}

#[test]
fn p08_scope_no_id_is_forwarded_and_counted() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    for message in [message("x", "k"), message("x", "k").id("").body("empty id")] {
        publish(&mut pair, &message);
        publish(&mut pair, &message);
    }
    pair.upstream(ack_multiple(1, 4));
    assert_eq!(pair.to_client(), ack_multiple(1, 4));
    assert_eq!((desk.count(Event::NoId), desk.in_flight(), desk.window.len()), (4, 0, 0));
}

#[test]
fn p08_scope_bypass_lets_a_replay_through() {
    let desk = Desk::new();
    desk.store("a");
    let mut pair = desk.confirming();
    publish(&mut pair, &m("a").bypass());
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    assert_eq!(desk.count(Event::Bypassed), 1);
    let not_true = m("a").header("x-hapax-bypass", AMQPValue::LongString("maybe".into()));
    unheard_but_acked(&mut pair, &not_true.publish(1), 2);
}

fn unheard_but_acked(pair: &mut crate::support::pair::Pair, frames: &Frames, tag: u64) {
    pair.client(frames.clone());
    assert_eq!(pair.to_upstream(), Frames::none());
    assert_eq!(pair.to_client(), ack(1, tag));
}

#[test]
fn p08_scope_the_id_may_be_elsewhere() {
    let desk = Desk::with(|plan| plan.rules.id = IdSource::Header("x-deduplication-header".into()));
    let mut pair = desk.confirming();
    let one = m("1").header("x-deduplication-header", AMQPValue::LongString("a".into()));
    let same = m("2").header("x-deduplication-header", AMQPValue::LongString("a".into()));
    publish(&mut pair, &one);
    unheard(&mut pair, same.publish(1));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack_multiple(1, 2));
    assert!(desk.window.get(key("a"), pair.now()).is_some());
    let none = m("3").properties(BasicProperties::default());
    publish(&mut pair, &none);
}
