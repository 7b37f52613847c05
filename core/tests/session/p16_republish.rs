//! Point 16, a republish is not a retry: a consumer that publishes its own delivery again publishes something new. Its own
//! retries are duplicates again.

use super::desk::{Desk, SECOND, confirm, cut, key, m, publish, two, unheard};
use crate::support::frames::{Frames, Message, message};
use crate::support::late::{Late, LateWindow};
use crate::support::methods::{
    ack, ack_multiple, confirm_select_nowait, nack, tx_commit, tx_commit_ok, tx_rollback, tx_rollback_ok,
};
use crate::support::pair::Pair;
use amq_protocol::types::AMQPValue;
use hapax_core::window::{Claim, ConfirmRule, Event, EvictionCause, InDoubt, Mode, RepublishRule, Scope};
use hapax_core::wire::IdSource;
use std::time::Duration;

/// The broker delivers a message; nothing else happens.
fn deliver(pair: &mut Pair, message: &Message) {
    pair.upstream(message.deliver(1, "c", 1));
    assert_eq!(pair.to_client(), message.deliver(1, "c", 1));
    assert_eq!(pair.to_upstream(), Frames::none());
}

fn republished(desk: &Desk, id: &str) -> usize {
    desk.count(Event::Republished { claim: Claim::Digest(key(id)) })
}

/// The message with its retry count.
fn tries(id: &str, count: u32) -> Message {
    m(id).header("tries", AMQPValue::LongUInt(count))
}

#[test]
fn p16_a_republish_passes_and_its_retries_are_duplicates() {
    let desk = Desk::new();
    desk.store("a");
    let mut pair = desk.confirming();
    deliver(&mut pair, &m("a"));
    publish(&mut pair, &tries("a", 1));
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (false, 1), "its outcome is not known");
    unheard(&mut pair, tries("a", 1).publish(1));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack_multiple(1, 2), "the retry shares its fate");
    assert!(desk.is_seen("a"));
    pair.client(tries("a", 1).publish(1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (ack(1, 3), Frames::none()));
    assert_eq!(republished(&desk, "a"), 1);
    let evicted =
        |event: &Event| matches!(event, Event::Evicted { cause, .. } if *cause == EvictionCause::Republished);
    assert_eq!(
        (desk.count_like(evicted), desk.count_like(|event| matches!(event, Event::Fresh { .. }))),
        (1, 0)
    );
}

/// A delivery that was there before the connection published anything counts, too.
#[test]
fn p16_ten_rounds_of_consuming_and_publishing_again() {
    let desk = Desk::new();
    desk.store("a");
    let mut pair = desk.confirming();
    for round in 1..=10 {
        deliver(&mut pair, &tries("a", round - 1));
        publish(&mut pair, &tries("a", round));
        pair.upstream(ack(1, round.into()));
        pair.to_client();
        assert!(desk.is_seen("a"));
    }
    assert_eq!(republished(&desk, "a"), 10);
}

/// Somebody else has the id in flight as well. That one is stored, and its id is forgotten at once: the copy is still on its way.
#[test]
fn p16_a_republish_is_waited_for_although_the_message_beside_it_is_past() {
    for nacked in [false, true] {
        let desk = Desk::with(|plan| plan.limits.capacity = 1);
        let mut pair = desk.confirming();
        deliver(&mut pair, &m("a"));
        let mut first = desk.confirming();
        publish(&mut first, &m("a"));
        publish(&mut pair, &m("a"));
        first.upstream(ack(1, 1));
        assert_eq!(first.to_client(), ack(1, 1));
        let mut retry = desk.confirming();
        retry.client(m("a").publish(1));
        assert_eq!(retry.to_client(), ack(1, 1), "it is seen");
        desk.store("b");
        assert!(!desk.is_seen("a"), "there is room for one id only");
        unheard(&mut retry, m("a").publish(1));
        if nacked {
            pair.upstream(nack(1, 1));
            retry.pump();
            assert_eq!(retry.to_upstream(), m("a").publish(1));
            retry.upstream(ack(1, 1));
        } else {
            pair.upstream(ack(1, 1));
            retry.pump();
            assert_eq!(retry.to_upstream(), Frames::none());
        }
        assert_eq!(retry.to_client(), ack(1, 2), "nacked: {nacked}");
        assert_eq!((desk.is_seen("a"), desk.in_flight()), (true, 0));
    }
}

#[test]
fn p16_a_republish_that_is_not_stored_passes_again() {
    let desk = Desk::new();
    desk.store("a");
    let mut pair = desk.confirming();
    deliver(&mut pair, &m("a"));
    for tag in 1..=3 {
        publish(&mut pair, &m("a"));
        pair.upstream(nack(1, tag));
        assert_eq!(pair.to_client(), nack(1, tag));
    }
    let back = m("a").mandatory();
    publish(&mut pair, &back);
    pair.upstream(back.returned(1) + ack(1, 4));
    assert_eq!(pair.to_client(), back.returned(1) + ack(1, 4));
    publish(&mut pair, &m("a"));
    pair.upstream(ack(1, 5));
    pair.to_client();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_client(), ack(1, 6));
}

/// The broker delivers a message before it confirms it to its publisher.
#[test]
fn p16_a_republish_does_not_wait_for_the_first_ones_ack() {
    let desk = Desk::new();
    let (mut publisher, mut consumer) = (desk.confirming(), desk.confirming());
    publish(&mut publisher, &m("a"));
    deliver(&mut consumer, &m("a"));
    publish(&mut consumer, &tries("a", 1));
    publisher.upstream(ack(1, 1));
    assert_eq!(publisher.to_client(), ack(1, 1));
    assert!(desk.is_seen("a"));
    // It was not stored. The window knows the id from the first one.
    consumer.upstream(nack(1, 1));
    assert_eq!(consumer.to_client(), nack(1, 1));
    publish(&mut consumer, &tries("a", 1));
    consumer.upstream(ack(1, 2));
    assert_eq!(consumer.to_client(), ack(1, 2));
    consumer.client(tries("a", 1).publish(1));
    assert_eq!((consumer.to_client(), desk.in_flight()), (ack(1, 3), 0));
}

#[test]
fn p16_the_first_one_is_nacked_after_its_republish_was_stored() {
    let desk = Desk::new();
    let (mut publisher, mut consumer) = (desk.confirming(), desk.confirming());
    publish(&mut publisher, &m("a"));
    deliver(&mut consumer, &m("a"));
    publish(&mut consumer, &m("a"));
    consumer.upstream(ack(1, 1));
    assert_eq!(consumer.to_client(), ack(1, 1));
    publisher.upstream(nack(1, 1));
    assert_eq!(publisher.to_client(), nack(1, 1));
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (true, 0));
}

#[test]
fn p16_only_the_same_exchange_and_routing_key_count_even_in_a_wider_scope() {
    for scope in [Scope::Exchange, Scope::Vhost] {
        let desk = Desk::with(|plan| plan.rules.scope = scope);
        let mut pair = desk.confirming();
        let from = message("x", "from").id("a");
        publish(&mut pair, &from);
        pair.upstream(ack(1, 1));
        pair.to_client();
        // It is delivered, and delivered again.
        for _ in 0..2 {
            deliver(&mut pair, &from);
            pair.client(m("a").publish(1) + m("a").publish(1));
            assert_eq!(pair.to_upstream(), Frames::none(), "{scope:?}");
            pair.to_client();
        }
        publish(&mut pair, &from);
    }
}

#[test]
fn p16_what_others_got_is_no_licence() {
    let desk = Desk::new();
    desk.store("a");
    let (mut consumer, mut other) = (desk.confirming(), desk.confirming());
    deliver(&mut consumer, &m("a"));
    deliver(&mut other, &m("b"));
    other.client(m("a").publish(1));
    assert_eq!((other.to_client(), other.to_upstream()), (ack(1, 1), Frames::none()));
    publish(&mut consumer, &m("a"));
}

#[test]
fn p16_a_get_and_a_delivery_in_pieces_count_and_one_that_ends_early_does_not() {
    let desk = Desk::new();
    ["a", "b", "c", "d"].iter().for_each(|id| desk.store(id));
    let mut pair = desk.confirming();
    pair.upstream(m("a").get_ok(1, 1));
    let (method, rest) = cut(two("b").deliver(1, "c", 2), 1);
    let (header, body) = cut(rest, 1);
    [method, header, body].into_iter().for_each(|part| pair.upstream(part));
    pair.upstream(cut(m("c").deliver(1, "c", 3), 1).0);
    pair.to_client();
    publish(&mut pair, &m("a"));
    publish(&mut pair, &two("b"));
    pair.client(m("c").publish(1) + m("d").publish(1));
    assert_eq!(pair.to_upstream(), Frames::none());
}

/// Two consumers on one connection, each on a channel of its own, and a publisher on a third.
#[test]
fn p16_all_channels_of_a_connection_count() {
    let desk = Desk::new();
    ["a", "b"].iter().for_each(|id| desk.store(id));
    let mut pair = desk.confirming();
    for (channel, id) in [(2, "a"), (3, "b")] {
        pair.open(channel);
        pair.upstream(m(id).deliver(channel, "c", 1));
        pair.to_client();
    }
    publish(&mut pair, &m("a"));
    publish(&mut pair, &m("b"));
}

#[test]
fn p16_in_a_transaction_a_republish_is_stored_by_the_commit() {
    let desk = Desk::new();
    desk.store("a");
    let mut pair = desk.in_tx();
    deliver(&mut pair, &m("a"));
    publish(&mut pair, &m("a"));
    unheard(&mut pair, m("a").publish(1));
    pair.client(tx_rollback(1));
    pair.upstream(tx_rollback_ok(1));
    pair.to_client();
    pair.to_upstream();
    publish(&mut pair, &m("a"));
    pair.client(tx_commit(1));
    pair.upstream(tx_commit_ok(1));
    pair.to_client();
    pair.to_upstream();
    assert!(desk.is_seen("a"));
    unheard(&mut pair, m("a").publish(1));
}

#[test]
fn p16_without_confirms_and_without_waiting_for_acks() {
    let desk = Desk::new();
    desk.store("a");
    let mut pair = desk.pair();
    deliver(&mut pair, &m("a"));
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), confirm_select_nowait(1) + m("a").publish(1));
    pair.upstream(ack(1, 1));
    unheard(&mut pair, m("a").publish(1));

    let desk = Desk::with(|plan| plan.rules.confirms = ConfirmRule::ClientOnly);
    desk.store("a");
    let mut pair = desk.pair();
    deliver(&mut pair, &m("a"));
    let (here, to_come) = cut(two("a").publish(1), 3);
    pair.client(here.clone());
    assert_eq!((pair.to_upstream(), desk.is_seen("a")), (here, false), "not whole");
    pair.client(to_come);
    assert!(desk.is_seen("a"));
    pair.to_upstream();
    unheard(&mut pair, m("a").publish(1));
}

#[test]
fn p16_a_connection_that_ends_amid_a_republish() {
    for keep in [false, true] {
        let rule = if keep { InDoubt::Keep } else { InDoubt::Forget };
        let desk = Desk::with(|plan| plan.rules.in_doubt = rule);
        desk.store("a");
        let mut pair = desk.confirming();
        deliver(&mut pair, &m("a"));
        publish(&mut pair, &m("a"));
        pair.upstream_eof();
        assert_eq!((desk.is_seen("a"), desk.in_flight()), (keep, 0));
    }
}

#[test]
fn p16_the_id_may_be_a_header_or_the_body() {
    let desk = Desk::with(|plan| plan.rules.id = IdSource::Header("h".into()));
    let h = |value: u32| message("x", "k").header("h", AMQPValue::LongUInt(value)).body("b");
    let mut pair = desk.confirming();
    publish(&mut pair, &h(1));
    publish(&mut pair, &h(2));
    pair.upstream(ack(1, 1) + ack(1, 2));
    pair.to_client();
    deliver(&mut pair, &h(1));
    publish(&mut pair, &h(1));
    pair.client(h(2).publish(1));
    assert_eq!(pair.to_client(), ack(1, 4));

    let desk = Desk::with(|plan| plan.rules.id = IdSource::Body);
    let b = |body: &str| message("x", "k").body(body).frame_size(10);
    let mut pair = desk.confirming();
    publish(&mut pair, &b("abc"));
    publish(&mut pair, &b("abcd"));
    pair.upstream(ack(1, 1) + ack(1, 2));
    pair.to_client();
    deliver(&mut pair, &b("abc"));
    publish(&mut pair, &b("abc"));
    pair.client(b("abcd").publish(1));
    assert_eq!(pair.to_client(), ack(1, 4));
}

#[test]
fn p16_messages_without_an_id_or_with_bypass_are_as_ever() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    for plain in [message("x", "k"), m("a").bypass()] {
        deliver(&mut pair, &plain);
        publish(&mut pair, &plain);
    }
    assert_eq!(desk.count_like(|event| matches!(event, Event::Republished { .. })), 0);
}

#[test]
fn p16_drop_takes_a_republish_for_a_duplicate() {
    let desk = Desk::with(|plan| plan.rules.republish = RepublishRule::Drop);
    desk.store("a");
    let mut pair = desk.confirming();
    deliver(&mut pair, &m("a"));
    pair.client(m("a").publish(1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (ack(1, 1), Frames::none()));
}

#[test]
fn p16_host_counts_deliveries_of_the_users_other_connections() {
    let desk = Desk::with(|plan| plan.rules.republish = RepublishRule::Host);
    desk.store("a");
    let (mut consumer, mut publisher, mut other) = (desk.confirming(), desk.confirming(), desk.user("other"));
    confirm(&mut other, 1);
    deliver(&mut consumer, &m("a"));
    other.client(m("a").publish(1));
    assert_eq!((other.to_client(), other.to_upstream()), (ack(1, 1), Frames::none()), "another user");
    let mut elsewhere = Pair::new(&desk.shared).proving();
    elsewhere.handshake("guest", "other");
    elsewhere.open(1);
    elsewhere.client(message("x", "k").id("a").publish(1));
    assert_eq!(republished(&desk, "a"), 0, "another vhost");
    publish(&mut publisher, &m("a"));
    publisher.upstream(ack(1, 1));
    publisher.to_client();
    for pair in [&mut publisher, &mut consumer] {
        pair.client(m("a").publish(1));
        assert_eq!(pair.to_upstream(), Frames::none());
    }
}

#[test]
fn p16_host_means_the_same_peer_address() {
    let desk = Desk::with(|plan| plan.rules.republish = RepublishRule::Host);
    desk.store("a");
    let mut consumer = desk.user("worker");
    confirm(&mut consumer, 1);
    deliver(&mut consumer, &m("a"));
    let mut far = Pair::from_peer(&desk.shared, "10.0.0.1".parse().unwrap()).proving();
    far.handshake("worker", "/");
    far.open(1);
    confirm(&mut far, 1);
    far.client(m("a").publish(1));
    assert_eq!((far.to_client(), far.to_upstream()), (ack(1, 1), Frames::none()));
}

/// They are forgotten with the last connection of the user, and never more than there are connections.
#[test]
fn p16_host_records_end_with_their_connections() {
    let desk = Desk::with(|plan| plan.rules.republish = RepublishRule::Host);
    desk.store("a");
    for _ in 0..100 {
        deliver(&mut desk.confirming(), &m("a"));
    }
    assert!(desk.shared.hosts.len() <= 4, "{}", desk.shared.hosts.len());
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_client(), ack(1, 1));
}

#[test]
fn p16_observe_counts_a_republish_as_one() {
    let desk = Desk::with(|plan| plan.limits.mode = Mode::Observe);
    desk.store("a");
    let mut pair = desk.confirming();
    deliver(&mut pair, &m("a"));
    publish(&mut pair, &m("a"));
    assert_eq!(
        (republished(&desk, "a"), desk.count_like(|event| matches!(event, Event::Duplicate { .. }))),
        (1, 0)
    );
}

/// A window with a store is not asked, so a republish never waits for one.
#[test]
fn p16_a_late_window_is_not_asked() {
    let late = Late { verdicts: true, commits: true, waits_on: true };
    let mut windows = Vec::new();
    let desk = Desk::around(
        |_| (),
        |inner| {
            let window = LateWindow::with(inner, late);
            windows.push(window.clone());
            window
        },
    )
    .proving();
    desk.store("a");
    let mut pair = desk.confirming();
    deliver(&mut pair, &m("a"));
    publish(&mut pair, &m("a"));
    assert_eq!(windows[0].questions(), 0);
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), Frames::none(), "not remembered yet");
    windows[0].remember(1, pair.now());
    pair.advance(Duration::ZERO);
    assert_eq!(pair.to_client(), ack(1, 1));
}

/// A publish that stands among others in a read, and waits its turn among others in the line.
#[test]
fn p16_a_republish_keeps_its_place_among_other_publishes() {
    let desk = Desk::new();
    ["a", "seen"].iter().for_each(|id| desk.store(id));
    let mut pair = desk.confirming();
    deliver(&mut pair, &m("a"));
    let all = m("b").publish(1) + m("seen").publish(1) + m("a").publish(1) + m("c").publish(1);
    pair.client(all);
    assert_eq!(pair.to_upstream(), m("b").publish(1) + m("a").publish(1) + m("c").publish(1));
    pair.upstream(ack(1, 1) + ack(1, 2) + ack(1, 3));
    assert_eq!(pair.to_client(), ack(1, 2) + ack_multiple(1, 4));
}

/// A process that is short of memory forgets the older deliveries of a connection, and closes nothing for that.
#[test]
fn p16_deliveries_are_memory_that_can_be_given_up() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    let before = pair.session.memory();
    for n in 0..5_000 {
        deliver(&mut pair, &m(&format!("{n}")));
    }
    let full = pair.session.memory();
    assert!(full.spare > 5_000 * 8 && full.held - before.held >= full.spare && full.stuck == before.stuck);
    let (share, now) = (before.held + 20_000, pair.now());
    pair.session.handle_memory_pressure(share, now);
    assert!(pair.session.memory().held <= share && pair.session.memory().spare > 0);
    desk.store("4999");
    publish(&mut pair, &m("4999"));
    pair.advance(SECOND);
}
