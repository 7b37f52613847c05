//! Point 9, rights: nothing of a publish is judged before its user is known to have the right to publish there.

use super::desk::{Desk, SECOND, confirm, cut, m, publish, two, unheard};
use crate::support::frames::protocol_header;
use crate::support::frames::{Frames, message};
use crate::support::methods::{
    ack, ack_multiple, channel_close, channel_close_ok, channel_open, channel_open_ok, confirm_select_nowait,
    connection_close, connection_open, connection_open_ok, publish_refused, queue_declare, start, start_ok,
    tune, tune_ok, tx_commit, tx_rollback_ok, tx_select, tx_select_ok,
};
use crate::support::pair::Pair;
use crate::support::probe::{ANY, OWN, asks, asks_on, ends, may, may_not, prove, questions, refused};
use hapax_core::window::Scope;
use hapax_core::wire::IdSource;

/// Returns a desk where `a` is seen and no user's rights are known.
fn stored() -> Desk {
    let desk = Desk::unproven(|_| ());
    desk.store("a");
    desk
}

#[test]
fn p09_rights_are_verified_on_a_channel_of_our_own() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), asks(&[("x", "k")]));
    assert_eq!(pair.to_client(), Frames::none());
    pair.upstream(may());
    assert_eq!(pair.to_upstream(), ends());
    assert_eq!(pair.to_client(), ack(1, 1), "and of our channel the client sees nothing");
    pair.upstream(channel_close_ok(OWN));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), Frames::none()));
}

/// A client without the right does not learn which ids are known, and changes nothing.
#[test]
fn p09_rights_refused_is_the_brokers_own_answer_whether_the_id_is_known_or_not() {
    let transcript = |id: &str| {
        let desk = stored();
        let mut pair = desk.confirming();
        pair.client(two(id).publish(1) + queue_declare(1, "q"));
        assert_eq!(pair.to_upstream(), asks(&[("x", "k")]), "no window is asked, and the channel waits");
        assert_eq!(desk.in_flight(), 0);
        pair.upstream(may_not());
        assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + two(id).publish(1) + queue_declare(1, "q"));
        assert_eq!(desk.in_flight(), 0, "the broker has the last word, and no window the first");
        let text = "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'guest'";
        pair.upstream(channel_close(1, 403, text));
        assert_eq!(pair.to_client(), channel_close(1, 403, text));
        pair.client(channel_close_ok(1));
        assert_eq!((pair.to_client(), pair.to_upstream()), (Frames::none(), channel_close_ok(1)));
        assert_eq!((desk.in_flight(), desk.is_seen("a")), (0, true));
        pair.open(1);
    };
    transcript("a");
    transcript("unknown");
}

#[test]
fn p09_rights_404_is_passed_on_in_whatever_bytes() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    pair.to_upstream();
    pair.upstream(refused(404, "NOT_FOUND - no exchange 'x' in vhost '/'"));
    let mut close = channel_close(1, 404, "NOT_FOUND - no exchange '??'").encode();
    let at = close.windows(2).position(|two| two == b"??").unwrap();
    close[at..at + 2].copy_from_slice(b"\xff\xfe");
    pair.upstream_bytes(&close);
    assert_eq!(pair.to_client_bytes(), close);
}

#[test]
fn p09_rights_are_verified_once_for_each_user() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + m("a").publish(1));
    assert!(prove(&mut pair, &[("x", "k")]).is_empty(), "one question for both");
    assert_eq!(pair.to_client(), ack_multiple(1, 2), "acked together");
    let mut other_connection = desk.confirming();
    other_connection.client(m("a").publish(1));
    assert_eq!(other_connection.to_client(), ack(1, 1));
    let mut other_user = desk.user("somebody");
    confirm(&mut other_user, 1);
    other_user.client(m("a").publish(1));
    assert_eq!(other_user.to_client(), Frames::none());
    assert_eq!(other_user.to_upstream(), asks(&[("x", "k")]));
}

#[test]
fn p09_rights_fade() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    prove(&mut pair, &[("x", "k")]);
    pair.to_client();
    pair.advance(59 * SECOND);
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_client(), ack(1, 2));
    pair.advance(SECOND);
    pair.client(m("b").publish(1));
    assert_eq!(pair.to_upstream(), asks(&[("x", "k")]));
}

#[test]
fn p09_rights_are_proven_anew_by_a_publish_that_was_accepted() {
    let desk = Desk::unproven(|_| ());
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    prove(&mut pair, &[("x", "k")]);
    pair.upstream(ack(1, 1));
    pair.to_client();
    for n in 2..=6 {
        pair.advance(40 * SECOND);
        publish(&mut pair, &m(&format!("fresh {n}")));
        pair.upstream(ack(1, n));
        assert_eq!(pair.to_client(), ack(1, n));
    }
}

#[test]
fn p09_rights_to_topics_are_each_routing_keys_own_and_asked_together() {
    let desk = Desk::unproven(|plan| plan.settings.max_unresolved = 2_000);
    let mut pair = desk.confirming();
    let places: Vec<(String, String)> = (0..1_500).map(|n| ("x".to_owned(), format!("key {n}"))).collect();
    let places: Vec<(&str, &str)> = places.iter().map(|(x, k)| (&**x, &**k)).collect();
    let all = || places.iter().map(|(x, k)| message(x, k).id("a").publish(1));
    pair.client(all().fold(Frames::none(), |all, next| all + next));
    assert_eq!(pair.to_upstream(), asks(&places[..1_024]));
    pair.upstream(may());
    let first: Frames = all().take(1_024).fold(Frames::none(), |all, next| all + next);
    let last: Frames = all().skip(1_024).fold(Frames::none(), |all, next| all + next);
    assert_eq!(pair.to_upstream(), first + questions(OWN, &places[1_024..]));
    pair.upstream(tx_rollback_ok(OWN));
    assert_eq!(pair.to_upstream(), last + ends());
}

#[test]
fn p09_rights_the_one_that_is_refused_is_found() {
    let desk = Desk::unproven(|_| ());
    let mut pair = desk.confirming();
    let [a, b, c] = [("x", "a"), ("x", "b"), ("x", "c")];
    let message = |(exchange, key)| message(exchange, key).id("1").publish(1);
    pair.client(message(a) + message(b) + message(c));
    assert_eq!(pair.to_upstream(), asks(&[a, b, c]));
    pair.upstream(may_not());
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + asks(&[a]));
    pair.upstream(may());
    assert_eq!(pair.to_upstream(), message(a) + questions(OWN, &[b, c]));
    pair.upstream(channel_close(OWN, 403, "ACCESS_REFUSED"));
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + asks(&[b]));
    pair.upstream(may_not());
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + message(b) + asks(&[c]));
    assert_eq!(desk.in_flight(), 1, "only what may be published is judged");
}

/// A channel that is closed because of a refusal asks nothing more, however many publishes it had.
#[test]
fn p09_rights_what_nobody_waits_for_is_not_asked() {
    let desk = Desk::unproven(|_| ());
    let mut pair = desk.confirming();
    let keys: Vec<String> = (0..8).map(|n| format!("key {n}")).collect();
    let places: Vec<(&str, &str)> = keys.iter().map(|key| ("x", &**key)).collect();
    let publish = |n: usize| message("x", &keys[n]).id("1").publish(1);
    pair.client((0..8).fold(Frames::none(), |all, n| all + publish(n)));
    assert_eq!(pair.to_upstream(), asks(&places));
    for half in [4, 2, 1] {
        pair.upstream(may_not());
        assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + asks(&places[..half]));
    }
    pair.upstream(may_not());
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + publish(0) + asks(&places[1..]));
    pair.upstream(channel_close(1, 403, "ACCESS_REFUSED"));
    pair.to_client();
    pair.upstream(may_not());
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN), "and no part of those is asked again");
}

/// A publish after another method may depend on that method, so no question may overtake it.
#[test]
fn p09_rights_are_not_asked_beforehand_across_another_method() {
    let desk = Desk::unproven(|_| ());
    let mut pair = desk.confirming();
    let [a, b, c] = ["a", "b", "c"].map(|key| message("x", key).id("1").publish(1));
    pair.client(a.clone() + b.clone() + queue_declare(1, "q") + c.clone());
    assert_eq!(pair.to_upstream(), asks(&[("x", "a"), ("x", "b")]));
    pair.upstream(may());
    assert_eq!(pair.to_upstream(), a + b + queue_declare(1, "q") + questions(OWN, &[("x", "c")]));
    pair.upstream(tx_rollback_ok(OWN));
    assert_eq!(pair.to_upstream(), c + ends());
}

#[test]
fn p09_rights_without_an_id_nothing_is_asked() {
    let desk = Desk::unproven(|_| ());
    let mut pair = desk.confirming();
    publish(&mut pair, &message("x", "k").body("no id"));
    publish(&mut pair, &m("a").bypass());
}

/// With `scope = "exchange"`, clients that may publish with every routing key share their ids. A client that may not has ids
/// of its own.
#[test]
fn p09_rights_to_some_keys_are_no_right_to_the_others() {
    let desk = Desk::unproven(|plan| plan.rules.scope = Scope::Exchange);
    let says = |pair: &mut Pair, key: &str| pair.client(message("x", key).id("1").publish(1));
    let user = |name: &str, key: &str, may_all: bool| {
        let mut pair = desk.user(name);
        confirm(&mut pair, 1);
        says(&mut pair, key);
        assert_eq!(pair.to_upstream(), asks(&[("x", key), ("x", ANY)]));
        if may_all {
            pair.upstream(may());
            pair.to_upstream();
            return pair;
        }
        pair.upstream(may_not());
        assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + asks(&[("x", key)]));
        pair.upstream(may());
        pair.to_upstream();
        pair.upstream(channel_close(OWN, 403, "ACCESS_REFUSED"));
        pair
    };
    let mut narrow = user("b only", "b.1", false);
    assert_eq!(narrow.to_upstream(), channel_close_ok(OWN) + message("x", "b.1").id("1").publish(1));
    narrow.upstream(ack(1, 1));
    assert_eq!(narrow.to_client(), ack(1, 1));
    let mut wide = user("all", "a.1", true);
    assert_eq!(desk.in_flight(), 1, "its id is not taken by the other's");
    wide.upstream(ack(1, 1));
    assert_eq!(wide.to_client(), ack(1, 1));
    let mut also_wide = user("all, too", "a.2", true);
    assert_eq!(also_wide.to_client(), ack(1, 1), "a duplicate of what the other has stored");
    assert_eq!(also_wide.to_upstream(), Frames::none());
    narrow.client(message("x", "b.1").id("1").publish(1));
    assert_eq!(
        (narrow.to_client(), narrow.to_upstream()),
        (ack(1, 2), Frames::none()),
        "a duplicate of its own"
    );
    let mut again = desk.user("b only");
    confirm(&mut again, 1);
    again.client(message("x", "b.1").id("1").publish(1));
    assert_eq!(again.to_upstream(), Frames::none(), "a refusal is remembered for the user");
    assert_eq!(again.to_client(), ack(1, 1));
}

#[test]
fn p09_rights_to_one_exchange_are_no_right_to_the_vhost() {
    let desk = Desk::unproven(|plan| plan.rules.scope = Scope::Vhost);
    let says = message("x", "k").id("1").publish(1);
    for (user, code, apart) in [("all", 404, false), ("x only", 403, true)] {
        let mut pair = desk.user(user);
        confirm(&mut pair, 1);
        pair.client(says.clone());
        assert_eq!(pair.to_upstream(), asks(&[(ANY, ANY)]));
        pair.upstream(refused(code, "whatever"));
        assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + asks(&[("x", "k"), ("x", ANY)]));
        pair.upstream(may());
        let fresh = if apart || user == "all" { says.clone() } else { Frames::none() };
        assert_eq!(pair.to_upstream(), fresh + ends(), "{user}");
        pair.upstream(ack(1, 1));
        assert_eq!(pair.to_client(), ack(1, 1));
    }
}

#[test]
fn p09_rights_the_number_that_the_client_opens_is_ours_for_a_moment() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    pair.to_upstream();
    unheard(&mut pair, channel_open(OWN));
    pair.upstream(may());
    assert_eq!(pair.to_upstream(), ends());
    pair.upstream(channel_close_ok(OWN));
    assert_eq!(pair.to_upstream(), channel_open(OWN));
    pair.upstream(channel_open_ok(OWN));
    assert_eq!(pair.to_client(), ack(1, 1) + channel_open_ok(OWN));
}

#[test]
fn p09_rights_an_answer_that_comes_late_is_still_ours() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    pair.to_upstream();
    pair.advance(50 * SECOND);
    assert_eq!(
        pair.to_client(),
        Frames::none(),
        "a broker that is out of memory reads nothing from publishers"
    );
    pair.upstream(may());
    assert_eq!(pair.to_client(), ack(1, 1));
    assert_eq!(pair.to_upstream(), ends());
}

#[test]
fn p09_rights_a_spare_channel_is_asked_for() {
    let desk = stored();
    let mut pair = Pair::new(&desk.shared);
    pair.client(protocol_header());
    pair.upstream(start());
    pair.client(start_ok("guest"));
    pair.upstream(tune(2047, 131_072, 0));
    pair.to_upstream();
    pair.client(tune_ok(1, 131_072, 0) + connection_open("/"));
    assert_eq!(pair.to_upstream(), tune_ok(2, 131_072, 0) + connection_open("/"));
    pair.upstream(connection_open_ok());
    pair.to_client();
    pair.open(1);
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), asks_on(2, &[("x", "k")]));
}

/// The client's last channel and Hapax's own are never open at the same time.
#[test]
fn p09_rights_the_last_channel_waits_for_ours() {
    let desk = stored();
    let mut pair = Pair::new(&desk.shared);
    pair.handshake_with("guest", "/", (2, 131_072, 0));
    pair.open(1);
    confirm(&mut pair, 1);
    pair.client(m("a").publish(1) + channel_open(7));
    assert_eq!(pair.to_upstream(), asks_on(2, &[("x", "k")]));
    pair.upstream(channel_open_ok(2) + tx_select_ok(2) + tx_rollback_ok(2));
    assert_eq!(pair.to_upstream(), channel_close(2, 200, "hapax knows what it wanted to know"));
    pair.upstream(channel_close_ok(2));
    assert_eq!(pair.to_upstream(), channel_open(7));
    pair.upstream(channel_open_ok(7));
    assert_eq!(pair.to_client(), ack(1, 1) + channel_open_ok(7));
}

/// A broker that allows one channel, and the client has it: its ack is the proof.
#[test]
fn p09_rights_without_a_channel_an_ack_is_the_proof() {
    let desk = stored();
    let mut pair = Pair::new(&desk.shared);
    pair.handshake_with("guest", "/", (1, 131_072, 0));
    pair.open(1);
    confirm(&mut pair, 1);
    publish(&mut pair, &m("a"));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    pair.client(m("a").publish(1));
    assert_eq!((pair.to_client(), pair.to_upstream()), (ack(1, 2), Frames::none()));
}

#[test]
fn p09_rights_channel_close_waits_for_the_proof() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1) + channel_close(1, 200, "bye"));
    assert_eq!(pair.to_upstream(), asks(&[("x", "k")]));
    pair.upstream(may());
    assert_eq!(pair.to_upstream(), channel_close(1, 200, "bye") + ends());
    pair.upstream(channel_close_ok(1));
    assert_eq!(pair.to_client(), ack(1, 1) + channel_close_ok(1));
}

#[test]
fn p09_rights_a_transaction_waits_for_the_proof() {
    let desk = stored();
    let mut pair = desk.pair();
    pair.client(tx_select(1) + m("a").publish(1) + tx_commit(1));
    assert_eq!(pair.to_upstream(), tx_select(1) + asks(&[("x", "k")]));
    pair.upstream(may_not());
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + m("a").publish(1) + tx_commit(1));
}

#[test]
fn p09_rights_a_body_comes_while_the_proof_is_awaited() {
    let desk = Desk::unproven(|_| ());
    let mut pair = desk.confirming();
    let (here, to_come) = cut(two("a").publish(1), 3);
    pair.client(here.clone());
    assert_eq!(pair.to_upstream(), asks(&[("x", "k")]));
    let (next, last) = cut(to_come, 1);
    unheard(&mut pair, next.clone());
    pair.upstream(may());
    assert_eq!(pair.to_upstream(), here + next.clone() + ends());
    assert_eq!(last, Frames::none());
    pair.upstream(ack(1, 1));
    assert_eq!((pair.to_client(), pair.session.held_bytes()), (ack(1, 1), 0));
}

/// Where the body is the id, a publish that stands whole in a read waits for its proof, and has its id all the same.
#[test]
fn p09_rights_a_body_that_is_the_id_is_one_after_the_proof() {
    let desk = Desk::unproven(|plan| plan.rules.id = IdSource::Body);
    let mut pair = desk.confirming();
    let message = message("x", "k").body("this is the id");
    pair.client(message.publish(1) + message.publish(1));
    assert_eq!(prove(&mut pair, &[("x", "k")]), message.publish(1));
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack_multiple(1, 2), "the second is a duplicate");
}

/// A publish that was complete before its client vanished is settled, if the broker answers within the linger.
#[test]
fn p09_rights_of_a_client_that_is_gone() {
    for answers in [true, false] {
        let desk = Desk::unproven(|_| ());
        let mut pair = desk.pair();
        pair.client(m("a").publish(1));
        assert_eq!(pair.to_upstream(), asks(&[("x", "k")]));
        pair.client_eof();
        if answers {
            pair.upstream(may());
            assert!(format!("{:?}", pair.to_upstream()).contains("basic.publish"));
            pair.upstream(ack(1, 1));
            assert!(desk.is_seen("a"));
        } else {
            pair.advance(10 * SECOND);
            assert_eq!((desk.in_flight(), desk.is_seen("a")), (0, false));
            pair.leave_upstream();
            assert!(pair.session.is_over());
        }
    }
}

#[test]
fn p09_rights_what_waits_for_a_proof_is_bounded() {
    let desk = Desk::unproven(|plan| plan.settings.held_bytes = 10_000);
    let mut pair = desk.confirming();
    for n in 0..1_000 {
        pair.client(message("x", &format!("key {n}")).id("a").body([0; 100]).publish(1));
    }
    assert!(pair.session.held_bytes() < 11_000, "{}", pair.session.held_bytes());
    assert!(!pair.session.wants_client() && pair.untaken() > 100_000);
}

/// RabbitMQ closes the connection of a user that opens more channels than its limit: it is not asked to do so twice.
#[test]
fn p09_rights_a_users_limit_of_channels_costs_one_connection() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), asks(&[("x", "k")]));
    let text = "NOT_ALLOWED - number of channels opened for user 'guest' has reached the maximum allowed user limit of (1)";
    pair.upstream(connection_close(530, text));
    let said = format!("{:?}", pair.to_client());
    assert!(said.contains("connection.close 320") && said.contains("max-channels"), "{said}");
    assert_eq!(desk.in_flight(), 0);

    let mut again = desk.confirming();
    publish(&mut again, &m("a"));
    again.upstream(ack(1, 1));
    again.to_client();
    again.client(m("a").publish(1));
    assert_eq!(
        (again.to_client(), again.to_upstream()),
        (ack(1, 2), Frames::none()),
        "its ack was the proof"
    );
    let mut other = desk.user("other");
    confirm(&mut other, 1);
    other.client(m("a").publish(1));
    assert_eq!(other.to_upstream(), asks(&[("x", "k")]));
}

/// For a while, no connection of the user asks again for a right that the broker has refused: each question that is refused is two
/// lines in the broker's log.
#[test]
fn p09_rights_a_refusal_is_remembered_for_all_connections_of_the_user() {
    let desk = stored();
    let mut pair = desk.confirming();
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), asks(&[("x", "k")]));
    pair.upstream(may_not());
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + m("a").publish(1));
    let mut again = desk.confirming();
    again.client(m("a").publish(1));
    assert_eq!(again.to_upstream(), m("a").publish(1), "the broker has the last word");
    // It may by now: the ack is the proof.
    again.upstream(ack(1, 1));
    assert_eq!(again.to_client(), ack(1, 1));
    again.client(m("a").publish(1));
    assert_eq!((again.to_client(), again.to_upstream()), (ack(1, 2), Frames::none()));
    let mut other = desk.user("other");
    confirm(&mut other, 1);
    other.client(m("a").publish(1));
    assert_eq!(other.to_upstream(), asks(&[("x", "k")]), "another user's refusal says nothing");
    let mut late = desk.user("late");
    confirm(&mut late, 1);
    for _ in 0..2 {
        late.client(m("a").publish(1));
        assert_eq!(late.to_upstream(), asks(&[("x", "k")]));
        late.upstream(may_not());
        late.to_upstream();
        late.advance(60 * SECOND);
    }
}

/// No, as RabbitMQ says it.
fn named(text: &str) -> Frames {
    channel_open_ok(OWN) + tx_select_ok(OWN) + publish_refused(OWN, 403, text)
}

/// In a wide scope, each connection would ask for every routing key, and be refused.
#[test]
fn p09_rights_to_every_key_are_refused_once_for_each_user() {
    let desk = Desk::unproven(|plan| plan.rules.scope = Scope::Exchange);
    for connection in 0..20 {
        let mut pair = desk.confirming();
        let key = format!("key.{connection}");
        pair.client(message("x", &key).id("a").publish(1));
        if connection > 0 {
            assert_eq!(pair.to_upstream(), asks(&[("x", &key)]));
            continue;
        }
        assert_eq!(pair.to_upstream(), asks(&[("x", &key), ("x", ANY)]));
        let text = format!(
            "ACCESS_REFUSED - access to topic '{ANY}' in exchange 'x' in vhost '/' refused for user 'guest'"
        );
        pair.upstream(named(&text));
        assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + asks(&[("x", &key)]), "the text says which");
    }
}

/// RabbitMQ's text names what it refuses. The others are asked for together.
#[test]
fn p09_rights_each_refused_key_costs_one_question() {
    let desk = Desk::unproven(|_| ());
    let mut pair = desk.confirming();
    let keys = ["a.1", "b.1", "a.2", "b.2"];
    for (channel, key) in (1..).zip(keys) {
        if channel > 1 {
            pair.open(channel);
        }
        pair.client(message("x", key).id("a").publish(channel));
        if channel == 1 {
            assert_eq!(pair.to_upstream(), asks(&[("x", "a.1")]));
        }
    }
    let no = |key: &str| {
        named(&format!(
            "ACCESS_REFUSED - access to topic '{key}' in exchange 'x' in vhost '/' refused for user 'guest'"
        ))
    };
    pair.upstream(no("a.1"));
    let first = message("x", "a.1").id("a").publish(1);
    assert_eq!(
        pair.to_upstream(),
        channel_close_ok(OWN) + first + asks(&[("x", "b.1"), ("x", "a.2"), ("x", "b.2")])
    );
    pair.upstream(no("a.2"));
    let third = message("x", "a.2").id("a").publish(3);
    assert_eq!(
        pair.to_upstream(),
        channel_close_ok(OWN) + confirm_select_nowait(3) + third + asks(&[("x", "b.1"), ("x", "b.2")])
    );
}
