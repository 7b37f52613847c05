//! Points 1 and 4, `verify_routing`: seen means that a queue took it. Hapax sets the mandatory bit, and a return that the client
//! has not asked for ends here.

use super::desk::{Desk, Plan, SECOND, confirm, m, two, unheard};
use super::late;
use crate::support::cost::assert_linear;
use crate::support::frames::{Frames, Message, message};
use crate::support::methods::{
    ack, ack_multiple, channel_close, channel_close_ok, channel_open, channel_open_ok, confirm_select_nowait,
    exchange_declare, exchange_declare_ok, exchange_delete, queue_declare, tx_commit, tx_commit_ok,
    tx_rollback, tx_rollback_ok, tx_select, tx_select_ok,
};
use crate::support::pair::{Everything, Pair, settings, shared};
use amq_protocol::protocol::BasicProperties;
use amq_protocol::types::AMQPValue;
use hapax_core::session::SessionListener;
use hapax_core::window::{ConfirmRule, Event, ForgetCause, Mode, Scope};
use hapax_core::wire::IdSource;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const UNROUTABLE: Event = Event::Forgotten(ForgetCause::Unroutable);

fn verifying(change: impl FnOnce(&mut Plan)) -> Desk {
    Desk::with(|plan| {
        plan.rules.verify_routing = true;
        change(plan);
    })
}

fn desk() -> Desk {
    verifying(|_| ())
}

/// The client publishes it; the broker gets it with the mandatory bit, and nothing else is changed.
fn verified(pair: &mut Pair, message: &Message) {
    pair.client(message.publish(1));
    assert_eq!(pair.to_upstream(), message.clone().mandatory().publish(1));
    assert_eq!(pair.to_client(), Frames::none());
}

#[test]
fn p01_what_no_queue_took_is_acked_and_not_seen_and_a_retry_passes() {
    let desk = desk();
    let mut pair = desk.confirming();
    for message in [m("a"), two("b"), message("x", "k").id("c")] {
        verified(&mut pair, &message);
    }
    // The body of b comes back in two frames, c has none.
    pair.upstream(
        m("a").returned(1) + ack(1, 1) + two("b").returned(1) + message("x", "k").id("c").returned(1),
    );
    assert_eq!(pair.to_client(), ack(1, 1));
    pair.upstream(ack_multiple(1, 3));
    assert_eq!(
        pair.to_client(),
        ack_multiple(1, 3),
        "a client that has not asked hears what it hears without Hapax"
    );
    assert_eq!((desk.count(UNROUTABLE), desk.in_flight()), (3, 0));
    verified(&mut pair, &m("a"));
    pair.upstream(ack(1, 4));
    assert_eq!(pair.to_client(), ack(1, 4));
    assert!(desk.is_seen("a"));
    pair.client(m("a").publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack(1, 5)));
}

#[test]
fn p01_the_bit_is_set_where_a_window_judges_and_nowhere_else() {
    let desk = desk();
    let mut pair = desk.confirming();
    desk.store("seen");
    let immediate = m("immediate").immediate();
    let plain = message("x", "k").body("no id");
    let sent = m("a").publish(1)
        + m("seen").publish(1)
        + plain.publish(1)
        + m("b").mandatory().publish(1)
        + m("c").bypass().publish(1)
        + immediate.publish(1)
        + queue_declare(1, "q")
        + two("d").publish(1);
    let written = m("a").mandatory().publish(1)
        + plain.publish(1)
        + m("b").mandatory().publish(1)
        + m("c").bypass().publish(1)
        + immediate.publish(1)
        + queue_declare(1, "q")
        + two("d").mandatory().publish(1);
    pair.client(sent.clone());
    assert_eq!(pair.to_upstream(), written);
    // The same a few bytes at a time, by a client that has not sent them before.
    let other = verifying(|_| ());
    let mut pair = other.confirming();
    other.store("seen");
    pair.client_in_pieces(&sent, 7);
    assert_eq!(pair.to_upstream(), written);
}

#[test]
fn p01_a_window_that_does_not_verify_sets_nothing() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), m("a").publish(1));
    pair.upstream(ack(1, 1));
    assert!(desk.is_seen("a"), "an ack counts as stored");
}

#[test]
fn p01_observed_duplicates_go_on_as_they_are() {
    let desk = verifying(|plan| plan.limits.mode = Mode::Observe);
    let mut pair = desk.confirming();
    verified(&mut pair, &m("a"));
    pair.upstream(ack(1, 1));
    pair.to_client();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), m("a").publish(1));
}

/// (c) Returns of both kinds, in every order, and deliveries between them.
#[test]
fn p04_a_swallowed_return_is_not_taken_for_one_that_the_client_asked_for() {
    let (plain, asked) = (two("plain"), two("asked").mandatory());
    let bypassed = two("bypassed").bypass().mandatory();
    let delivery = message("y", "k").body("abcdef").frame_size(11).deliver(1, "consumer", 1);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let desk = desk();
        let mut pair = desk.confirming();
        for message in [&plain, &asked, &bypassed] {
            pair.client(message.publish(1));
        }
        pair.to_upstream();
        let mut heard = Frames::none();
        for which in order {
            let message = [&plain, &asked, &bypassed][which];
            pair.upstream(message.returned(1) + delivery.clone());
            heard += if which == 0 { delivery.clone() } else { message.returned(1) + delivery.clone() };
        }
        assert_eq!(pair.to_client(), heard, "{order:?}");
        pair.upstream(ack_multiple(1, 3));
        assert_eq!(pair.to_client(), ack_multiple(1, 3));
        assert_eq!(["plain", "asked"].map(|id| desk.is_seen(id)), [false, false]);
        let returned = Event::Forgotten(ForgetCause::Returned);
        assert_eq!((desk.count(UNROUTABLE), desk.count(returned)), (1, 1));
    }
}

#[test]
fn p04_only_those_that_came_back_are_forgotten() {
    let desk = desk();
    let mut pair = desk.confirming();
    let ids: Vec<String> = (0..200).map(|n| format!("{n}")).collect();
    pair.client(ids.iter().fold(Frames::none(), |all, id| all + m(id).publish(1)));
    for (tag, id) in (1..).zip(&ids) {
        if tag % 3 == 0 {
            pair.upstream(m(id).returned(1));
        }
        // Meanwhile others are acked, and more are published: those are found, too.
        if tag % 7 == 0 {
            pair.upstream(ack(1, tag - 6));
            pair.client(m(&format!("late-{tag}")).publish(1));
        }
    }
    pair.upstream(m("late-14").returned(1) + ack_multiple(1, 0));
    let seen = |n: usize| desk.is_seen(&ids[n]);
    assert!((0..200).all(|n| seen(n) == ((n + 1) % 3 != 0)));
    assert!(!desk.is_seen("late-14") && desk.is_seen("late-21"));
    assert_eq!((desk.in_flight(), desk.count(UNROUTABLE)), (0, 67));
}

/// Without confirms Hapax selects them, and the client hears neither acks nor returns.
#[test]
fn p07_shadow_an_unroutable_message_is_not_seen() {
    let desk = desk();
    let mut pair = desk.pair();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), confirm_select_nowait(1) + m("a").mandatory().publish(1));
    pair.upstream(m("a").returned(1) + ack(1, 1));
    assert_eq!(pair.to_client(), Frames::none());
    assert!(!desk.is_seen("a"));
    verified(&mut pair, &m("a"));
}

#[test]
fn p07_client_only_an_unroutable_message_is_forgotten_when_it_comes_back() {
    let desk = verifying(|plan| plan.rules.confirms = ConfirmRule::ClientOnly);
    let mut pair = desk.pair();
    pair.client(m("a").publish(1) + m("b").publish(1) + m("c").mandatory().publish(1));
    pair.to_upstream();
    assert_eq!(["a", "b", "c"].map(|id| desk.is_seen(id)), [true, true, true]);
    pair.upstream(m("a").returned(1) + m("c").mandatory().returned(1));
    assert_eq!(pair.to_client(), m("c").mandatory().returned(1));
    assert_eq!(["a", "b", "c"].map(|id| desk.is_seen(id)), [false, true, false]);
    // It looks like none of them, so it may be any.
    pair.upstream(m("other").returned(1));
    assert_eq!((pair.to_client(), desk.is_seen("b")), (Frames::none(), false));
    // It is found when confirms are selected by then.
    pair.client(m("d").publish(1));
    confirm_later(&mut pair);
    pair.upstream(m("d").returned(1));
    assert_eq!((pair.to_client(), desk.is_seen("d")), (Frames::none(), false));
}

fn confirm_later(pair: &mut Pair) {
    pair.to_upstream();
    confirm(pair, 1);
}

#[test]
fn p05_tx_an_unroutable_message_is_not_seen() {
    let desk = desk();
    let mut pair = desk.pair();
    pair.client(
        tx_select(1) + m("a").publish(1) + m("b").publish(1) + m("c").mandatory().publish(1) + tx_commit(1),
    );
    pair.client(m("d").publish(1) + tx_rollback(1));
    pair.to_upstream();
    pair.upstream(tx_select_ok(1) + m("a").returned(1) + m("c").mandatory().returned(1));
    pair.upstream(tx_commit_ok(1) + tx_rollback_ok(1));
    let heard = tx_select_ok(1) + m("c").mandatory().returned(1) + tx_commit_ok(1) + tx_rollback_ok(1);
    assert_eq!(pair.to_client(), heard);
    assert_eq!(["a", "b", "c", "d"].map(|id| desk.is_seen(id)), [false, true, false, false]);
    assert_eq!(desk.count(UNROUTABLE), 1);
}

/// A consumer publishes its message again, twice, with two bodies, and no queue has taken one of them. Nobody can tell which one, so none
/// is seen: a retry of that one is not lost. (Of two with one body, the other one is stored.)
#[test]
fn p01_of_two_bodies_of_one_id_that_look_alike_neither_is_seen_if_one_comes_back() {
    for (other, is_seen) in [("other", false), ("body", true)] {
        let [desk, in_tx] = [desk(), desk()];
        let [first, second] = [m("a").body("body"), m("a").body(other)];
        let mut pair = desk.confirming();
        let written = [&first, &second].map(|message| message.clone().mandatory().publish(1));
        for message in [&first, &second] {
            pair.upstream(m("a").deliver(1, "c", 1));
            pair.client(message.clone().publish(1));
        }
        assert_eq!(pair.to_upstream(), written[0].clone() + written[1].clone());
        pair.to_client();
        pair.upstream(second.clone().returned(1) + ack_multiple(1, 2));
        assert_eq!((pair.to_client(), desk.is_seen("a")), (ack_multiple(1, 2), is_seen), "{other}");
        let mut another = desk.confirming();
        another.client(second.publish(1));
        assert_eq!(another.to_upstream() == written[1], !is_seen, "{other}: a retry");

        let mut pair = in_tx.pair();
        pair.client(tx_select(1));
        for message in [first, m("a").body(other)] {
            pair.upstream(m("a").deliver(1, "c", 1));
            pair.client(message.publish(1));
        }
        pair.client(tx_commit(1));
        pair.to_upstream();
        pair.to_client();
        pair.upstream(tx_select_ok(1) + m("a").body(other).returned(1) + tx_commit_ok(1));
        assert_eq!((pair.to_client(), in_tx.is_seen("a")), (tx_select_ok(1) + tx_commit_ok(1), is_seen));
    }
}

/// Waiters: one is forwarded in the place of a message that no queue took, and verified, too.
#[test]
fn p02_a_waiter_takes_the_place_of_an_unroutable_message() {
    let desk = desk();
    let (mut one, mut two) = (desk.confirming(), desk.confirming());
    verified(&mut one, &m("a"));
    unheard(&mut two, m("a").publish(1));
    one.upstream(m("a").returned(1) + ack(1, 1));
    assert_eq!(one.to_client(), ack(1, 1));
    assert_eq!(two.to_upstream(), m("a").mandatory().publish(1), "it is promoted");
    two.upstream(m("a").returned(1) + ack(1, 1));
    assert_eq!(two.to_client(), ack(1, 1));
    assert_eq!((desk.is_seen("a"), desk.in_flight()), (false, 0));
}

#[test]
fn p02_a_publish_that_takes_over_is_verified() {
    let desk = verifying(|plan| plan.settings.in_flight_timeout = Duration::from_secs(5));
    let mut holder = desk.confirming();
    let mut waiter = holder.beside();
    waiter.handshake("guest", "/");
    waiter.open(1);
    verified(&mut holder, &m("a"));
    waiter.client(m("b").publish(1) + m("a").publish(1));
    waiter.to_upstream();
    waiter.advance(6 * SECOND);
    assert_eq!(waiter.to_upstream(), m("a").mandatory().publish(1));
    waiter.upstream(m("a").returned(1) + ack(1, 2));
    assert_eq!((waiter.to_client(), desk.is_seen("a")), (Frames::none(), false));
}

/// A channel that stops puts frames back that were asked about. They are what the client has sent.
#[test]
fn p01_what_waits_as_frames_has_the_client_s_own_bits() {
    let desk = verifying(|plan| plan.limits.waiters_per_id = 0);
    let mut holder = desk.confirming();
    verified(&mut holder, &m("taken"));
    let mut pair = desk.pair();
    pair.client(m("shown").publish(1));
    pair.to_upstream();
    pair.client(
        m("a").publish(1) + m("taken").publish(1) + m("b").publish(1) + m("c").mandatory().publish(1),
    );
    assert_eq!(pair.to_upstream(), m("a").mandatory().publish(1));
    holder.upstream(ack(1, 1));
    pair.advance(SECOND);
    assert_eq!(pair.to_upstream(), m("b").mandatory().publish(1) + m("c").mandatory().publish(1));
    pair.upstream(m("b").returned(1) + m("c").mandatory().returned(1));
    assert_eq!(pair.to_client(), m("c").mandatory().returned(1));
}

#[test]
fn p14_a_late_verdict_is_verified() {
    let (desk, window) = late::late(|plan| plan.rules.verify_routing = true);
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + m("b").mandatory().publish(1));
    for _ in 0..2 {
        window.answer_next(0, pair.now());
    }
    pair.pump();
    assert_eq!(pair.to_upstream(), m("a").mandatory().publish(1) + m("b").mandatory().publish(1));
    pair.upstream(m("a").returned(1) + m("b").mandatory().returned(1) + ack_multiple(1, 2));
    assert_eq!(pair.to_client(), m("b").mandatory().returned(1) + ack_multiple(1, 2));
}

#[test]
fn p04_forward_to_and_a_body_as_id_are_verified_by_the_header() {
    let desk = verifying(|plan| plan.rules.forward_to = Some("backing".into()));
    let mut pair = desk.confirming();
    let there = |id: &str| message("backing", "k").id(id).body("body");
    pair.client(m("a").publish(1) + m("b").publish(1) + m("c").mandatory().publish(1));
    let written = ["a", "b", "c"].map(|id| there(id).mandatory().publish(1));
    assert_eq!(pair.to_upstream(), written.into_iter().fold(Frames::none(), |all, one| all + one));
    pair.upstream(there("b").returned(1) + there("c").returned(1) + ack_multiple(1, 3));
    assert_eq!(pair.to_client(), m("c").returned(1) + ack_multiple(1, 3));
    assert_eq!(["a", "b", "c"].map(|id| desk.is_seen(id)), [true, false, false]);

    let desk = verifying(|plan| plan.rules.id = IdSource::Body);
    let mut pair = desk.confirming();
    let [one, two] = ["one", "six"].map(|id| message("x", "k").app(id).body(id));
    verified(&mut pair, &one);
    verified(&mut pair, &two);
    pair.upstream(two.returned(1) + ack_multiple(1, 2));
    assert_eq!(pair.to_client(), ack_multiple(1, 2));
    assert_eq!(["one", "six"].map(|id| desk.is_seen(id)), [true, false]);
}

#[test]
fn p04_a_user_with_ids_of_its_own_and_a_window_switched_off_meanwhile() {
    let desk = verifying(|plan| plan.rules.scope = Scope::Exchange);
    let mut pair = desk.confirming();
    verified(&mut pair, &m("a"));
    desk.window.set_mode(Mode::Off);
    pair.upstream(m("a").returned(1) + ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    assert_eq!(desk.count(UNROUTABLE), 1);
}

/// A broker may alter what it returns. Nobody can tell then which publish of that place has come back.
#[test]
fn p04_an_altered_id_leaves_nothing_seen_that_may_have_come_back() {
    let desk = verifying(|plan| plan.rules.id = IdSource::CorrelationId);
    let mut pair = desk.confirming();
    let to = |key: &str, id: &str| message("x", key).correlation(id).body("body");
    for message in [to("k", "a"), to("k", "b"), to("other", "c")] {
        verified(&mut pair, &message);
    }
    pair.upstream(to("k", "altered").returned(1) + ack_multiple(1, 3));
    assert_eq!(pair.to_client(), ack_multiple(1, 3));
    assert_eq!(["a", "b"].map(|id| desk.is_seen(id)), [false, false]);
    assert!(desk.is_seen_at("x", "other", "c"));
}

/// RabbitMQ writes a name of its own into the header of a message that asks for a direct reply. The id is as it was.
#[test]
fn p04_an_altered_header_shows_the_id_all_the_same() {
    let desk = desk();
    let mut pair = desk.confirming();
    let rpc = |id: &str, reply_to: &str| {
        let properties = BasicProperties::default().with_message_id(id.into()).with_reply_to(reply_to.into());
        message("x", "k").properties(properties).body("body")
    };
    verified(&mut pair, &rpc("a", "amq.rabbitmq.reply-to"));
    verified(&mut pair, &rpc("b", "amq.rabbitmq.reply-to"));
    pair.upstream(rpc("b", "amq.rabbitmq.reply-to.g1h2").returned(1) + ack_multiple(1, 2));
    assert_eq!(pair.to_client(), ack_multiple(1, 2));
    assert_eq!(["a", "b"].map(|id| desk.is_seen(id)), [true, false]);
}

/// RabbitMQ 3.10 returns such a reply, and delivers it.
#[test]
fn p01_a_direct_reply_is_not_verified() {
    let desk = desk();
    let mut pair = desk.confirming();
    let reply = message("", "amq.rabbitmq.reply-to.g1h2").id("a").body("body");
    pair.client(reply.publish(1));
    assert_eq!(pair.to_upstream(), reply.publish(1));
}

/// A return of what was published before anything was judged is the client's own.
#[test]
fn p04_a_return_of_what_was_published_before_is_passed_on() {
    let desk = desk();
    let mut pair = desk.pair();
    let before = message("x", "k").body("no id").mandatory();
    pair.client(before.publish(1) + m("a").publish(1));
    pair.to_upstream();
    pair.upstream(before.returned(1) + ack(1, 1));
    assert_eq!(pair.to_client(), before.returned(1));
    assert!(desk.is_seen("a"));
}

#[test]
fn p04_a_return_of_what_was_published_while_the_window_was_off_is_passed_on() {
    let desk = verifying(|plan| plan.rules.confirms = ConfirmRule::ClientOnly);
    let mut pair = desk.pair();
    let asked = m("asked").mandatory();
    desk.window.set_mode(Mode::Off);
    pair.client(asked.publish(1));
    desk.window.set_mode(Mode::Enforce);
    pair.client(m("a").publish(1));
    pair.upstream(asked.returned(1));
    assert_eq!(pair.to_client(), asked.returned(1));
    assert!(desk.is_seen("a"), "it looks exactly like the one that the window has not judged");
}

/// Without confirms, only the last 4,096 are remembered. A client that has never asked for a return gets none all the same.
#[test]
fn p07_client_only_returns_of_what_is_forgotten_are_nobody_s() {
    let desk = verifying(|plan| {
        plan.rules.confirms = ConfirmRule::ClientOnly;
        plan.limits.capacity = 10_000;
    });
    let mut pair = desk.pair();
    let ids: Vec<String> = (0..5_000).map(|n| format!("{n}")).collect();
    ids.iter().for_each(|id| pair.client(m(id).publish(1)));
    pair.to_upstream();
    ids.iter().for_each(|id| pair.upstream(m(id).returned(1)));
    assert_eq!(pair.to_client(), Frames::none());
    assert!(ids.iter().skip(904).all(|id| !desk.is_seen(id)));
}

/// The end of the channel or of the connection does not make a returned message stored.
#[test]
fn p06_what_came_back_is_not_kept_in_doubt() {
    let desk = verifying(|plan| plan.rules.in_doubt = hapax_core::window::InDoubt::Keep);
    let mut pair = desk.confirming();
    verified(&mut pair, &m("a"));
    verified(&mut pair, &m("b"));
    pair.upstream(m("a").returned(1));
    pair.upstream_eof();
    assert_eq!(["a", "b"].map(|id| desk.is_seen(id)), [false, true]);
}

/// On a channel that Hapax has closed, and on one that the client closes.
#[test]
fn p06_a_return_on_a_channel_that_is_closing() {
    let desk = desk();
    let mut pair = desk.confirming();
    verified(&mut pair, &two("a"));
    pair.client(channel_close(1, 200, "bye"));
    pair.upstream(two("a").returned(1) + ack(1, 1));
    assert!(!desk.is_seen("a"));
    assert_eq!(pair.to_client().0.iter().filter(|frame| frame.method().is_none()).count(), 0, "no content");
}

// ---- exchanges that return what they keep ---------------------------------------------------------------------------

const DELAYED: &str = "x-delayed-message";

fn delayed(id: &str) -> Message {
    message("later", "k").id(id).header("x-delay", AMQPValue::LongInt(500)).body("body")
}

fn publish_as(pair: &mut Pair, message: &Message, written: &Message) {
    pair.client(message.publish(1));
    assert_eq!(pair.to_upstream(), written.publish(1));
}

#[test]
fn p01_the_bit_is_not_set_for_a_delayed_exchange_that_any_connection_has_declared() {
    let desk = desk();
    let (mut one, mut two) = (desk.confirming(), desk.confirming());
    publish_as(&mut two, &delayed("before"), &delayed("before").mandatory());
    one.client(exchange_declare(1, "later", "direct", true) + exchange_declare(1, "later", DELAYED, false));
    publish_as(&mut two, &delayed("asked"), &delayed("asked").mandatory());
    // The first answer is that to the passive declaration.
    one.upstream(exchange_declare_ok(1));
    publish_as(&mut two, &delayed("passive"), &delayed("passive").mandatory());
    one.upstream(exchange_declare_ok(1));
    publish_as(&mut two, &delayed("a"), &delayed("a"));
    two.upstream(ack_multiple(1, 4));
    two.to_client();
    two.client(delayed("a").publish(1));
    assert_eq!((two.to_upstream(), two.to_client()), (Frames::none(), ack(1, 5)), "it is seen");
    // Another exchange is not concerned.
    publish_as(&mut two, &m("b"), &m("b").mandatory());
    one.client(exchange_delete(1, "later"));
    publish_as(&mut two, &delayed("c"), &delayed("c").mandatory());
}

/// (f) The word of a user counts for nothing: only that of the broker does.
#[test]
fn p15_a_declaration_that_the_broker_refuses_changes_nothing() {
    let desk = desk();
    let mut stranger = desk.user("mallory");
    for passive in [false, true] {
        stranger.client(exchange_declare(1, "x", DELAYED, passive));
        stranger.upstream(channel_close(1, 403, "ACCESS_REFUSED"));
        stranger.client(channel_close_ok(1) + channel_open(1));
        stranger.upstream(channel_open_ok(1));
    }
    stranger.client(exchange_declare(1, "x", DELAYED, true));
    stranger.upstream(exchange_declare_ok(1));
    let mut pair = desk.confirming();
    verified(&mut pair, &m("a"));
    pair.upstream(m("a").returned(1) + ack(1, 1));
    assert!(!desk.is_seen("a"));
}

/// An exchange that an administrator has declared: the message itself shows that it is kept.
#[test]
fn p01_what_a_delayed_exchange_returns_and_keeps_is_seen() {
    let desk = desk();
    let mut pair = desk.confirming();
    publish_as(&mut pair, &delayed("a"), &delayed("a").mandatory());
    pair.upstream(delayed("a").returned(1) + ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    assert!(desk.is_seen_at("later", "k", "a"));
    // A message without a delay is routed at once, or not at all.
    for (tag, id, delay) in
        [(2, "b", None), (3, "c", Some(AMQPValue::LongInt(0))), (4, "d", Some(AMQPValue::Boolean(true)))]
    {
        let message = message("later", "k").id(id).body("body");
        let message = delay.into_iter().fold(message, |message, delay| message.header("x-delay", delay));
        publish_as(&mut pair, &message, &message.clone().mandatory());
        pair.upstream(message.returned(1) + ack(1, tag));
        assert!(!desk.is_seen_at("later", "k", id), "{id}");
    }
}

#[test]
fn p01_a_delay_is_no_excuse_where_the_exchange_is_known_to_be_another() {
    let desk = desk();
    let mut pair = desk.confirming();
    pair.client(exchange_declare(1, "later", "topic", false));
    pair.upstream(exchange_declare_ok(1));
    pair.to_upstream();
    publish_as(&mut pair, &delayed("a"), &delayed("a").mandatory());
    let direct = message("amq.direct", "k").id("b").header("x-delay", AMQPValue::LongInt(500)).body("body");
    publish_as(&mut pair, &direct, &direct.clone().mandatory());
    pair.upstream(delayed("a").returned(1) + direct.returned(1) + ack_multiple(1, 2));
    assert!(!desk.is_seen_at("later", "k", "a") && !desk.is_seen_at("amq.direct", "k", "b"));
}

#[derive(Debug, Default)]
struct Told(Mutex<Vec<(String, u32)>>);

impl SessionListener for Told {
    fn bad_header(&self, _: hapax_core::wire::BadHeader) {}
    fn unverified(&self) {}
    fn channel_limited(&self, _: Option<&str>) {}
    fn unmatched(&self) {}
    fn returns_everything(&self, vhost: &[u8], exchange: &[u8], returns: u32) {
        let place = format!("{} {}", String::from_utf8_lossy(vhost), String::from_utf8_lossy(exchange));
        self.0.lock().unwrap().push((place, returns));
    }
    fn publish_latency(&self, _: Duration, _: u64) {}
}

#[test]
fn an_exchange_that_returns_everything_is_told_of_once() {
    let (desk, told) = (desk(), Arc::new(Told::default()));
    let shared = shared(settings(), Arc::new(Everything(desk.window.clone())), told.clone());
    let mut pair = Pair::new(&shared).proving();
    pair.handshake("guest", "/");
    pair.open(1);
    confirm(&mut pair, 1);
    let mut tag = 0;
    let mut send = |exchange: &str, comes_back: bool| {
        tag += 1;
        let message = message(exchange, "k").id(&format!("{tag}"));
        pair.client(message.publish(1));
        let returned = if comes_back { message.returned(1) } else { Frames::none() };
        pair.upstream(returned + ack(1, tag));
    };
    (0..99).for_each(|_| send("bound", true));
    send("bound", false);
    (0..99).for_each(|_| send("bound", true));
    assert_eq!(*told.0.lock().unwrap(), []);
    (0..250).for_each(|_| send("hungry", true));
    assert_eq!(*told.0.lock().unwrap(), [("/ hungry".to_owned(), 100)]);
}

// ---- cost -------------------------------------------------------------------------------------------------------------

fn returns(n: usize, with_acks: bool) -> Vec<u8> {
    let back = |n: usize| m(&format!("{n}")).returned(1);
    let frames = (0..n).flat_map(|n| {
        let ack = if with_acks { ack(1, n as u64 + 1) } else { Frames::none() };
        (back(n) + ack).encode()
    });
    frames.collect()
}

/// A client that publishes what nobody wants: returns and acks in turn, returns first, and one return to each few acks.
#[test]
fn p17_cost_of_returns_that_the_client_has_not_asked_for() {
    let prepare = |n: usize, said: Vec<u8>| {
        let desk = verifying(|plan| {
            plan.limits.capacity = 40_000;
            plan.settings.max_unresolved = 120_000;
        });
        let mut pair = desk.confirming();
        let ids = (0..n).flat_map(|n| m(&format!("{n}")).publish(1).encode());
        pair.client_bytes(&ids.collect::<Vec<_>>());
        assert_eq!(pair.session.unresolved(), n);
        (desk, pair, said)
    };
    let hear = |(desk, mut pair, said): (Desk, Pair, Vec<u8>)| {
        pair.upstream_bytes(&said);
        (desk, pair)
    };
    assert_linear("returns and acks", 500, |n| prepare(n, returns(n, true)), hear);
    assert_linear("returns", 500, |n| prepare(n, returns(n, false)), hear);
    let seldom = |n: usize| {
        let frames = (0..n).flat_map(|at| {
            // The index has been given up before the next one comes, if anything gives it up.
            let returned =
                if at % 5 == 0 { m(&format!("{}", n - 1 - at / 5)).returned(1) } else { Frames::none() };
            (returned + ack(1, at as u64 + 1)).encode()
        });
        frames.collect::<Vec<u8>>()
    };
    assert_linear("few returns", 500, |n| prepare(n, seldom(n)), hear);
    // Very many others are outstanding, and nothing is known of them.
    let among_others = |n: usize| {
        let desk = verifying(|plan| plan.settings.max_unresolved = 120_000);
        let mut pair = desk.confirming();
        let others = (0..n).flat_map(|_| message("x", "k").publish(1).encode());
        pair.client_bytes(&others.collect::<Vec<_>>());
        pair.to_upstream();
        (desk, pair, n)
    };
    assert_linear("returns among others", 500, among_others, |(desk, mut pair, n)| {
        for tag in n..2 * n {
            pair.client(m(&format!("{tag}")).publish(1));
            pair.upstream(m(&format!("{tag}")).returned(1) + ack(1, tag as u64 + 1));
            pair.to_upstream();
            pair.to_client();
        }
        (desk, pair)
    });
}

// ---- the immediate bit --------------------------------------------------------------------------------------------------

#[derive(Debug, Default)]
struct Unmatched(Mutex<u32>);

impl SessionListener for Unmatched {
    fn bad_header(&self, _: hapax_core::wire::BadHeader) {}
    fn unverified(&self) {}
    fn channel_limited(&self, _: Option<&str>) {}
    fn unmatched(&self) {
        *self.0.lock().unwrap() += 1;
    }
    fn returns_everything(&self, _: &[u8], _: &[u8], _: u32) {}
    fn publish_latency(&self, _: Duration, _: u64) {}
}

/// RabbitMQ refuses the bit with 540 and closes the connection: the message passes its window, which counts it.
#[test]
fn an_immediate_message_passes_its_window_and_is_counted_there() {
    for whole in [true, false] {
        let (desk, unmatched) = (desk(), Arc::new(Unmatched::default()));
        let shared = shared(settings(), Arc::new(Everything(desk.window.clone())), unmatched.clone());
        let mut pair = Pair::new(&shared).proving();
        pair.handshake("guest", "/");
        pair.open(1);
        desk.store("a");
        let message = m("a").immediate();
        if whole {
            pair.client(message.publish(1));
        } else {
            pair.client_in_pieces(&message.publish(1), 5);
        }
        assert_eq!(pair.to_upstream(), message.publish(1));
        assert_eq!((desk.count(Event::Bypassed), *unmatched.0.lock().unwrap()), (1, 0));
        desk.window.set_mode(Mode::Off);
        pair.client(message.publish(1));
        assert_eq!((desk.count(Event::Bypassed), *unmatched.0.lock().unwrap()), (1, 1));
    }
}
