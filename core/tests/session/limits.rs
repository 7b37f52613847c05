//! Limits of users: how many connections (`limits.connections_per_user`), and how many publishes the shell lets a session take.

use super::desk::{Desk, SECOND, m};
use crate::support::frames::{Frames, heartbeat, protocol_header};
use crate::support::methods::{
    ack, channel_close, channel_close_ok, channel_open, confirm_select_nowait, connection_close,
    connection_close_ok, connection_open, connection_open_ok, start, start_ok, tune, tune_ok, tx_commit,
};
use crate::support::pair::Pair;
use hapax_core::session::{RefusedBecause, RefusedLogin};

const REFUSED: &str = "connection.close 530 \"NOT_ALLOWED - connection refused for user 'bob': user connection limit (2) is reached\"";

fn users(desk: &Desk) -> (usize, usize) {
    desk.shared.places.users()
}

/// A client whose login the broker has accepted.
fn accepted(desk: &Desk, user: &str) -> Pair {
    let mut pair = Pair::new(&desk.shared);
    pair.client(protocol_header());
    pair.upstream(start());
    pair.client(start_ok(user));
    pair.upstream(tune(100, 8192, 0));
    pair.to_client();
    pair.to_upstream();
    pair
}

#[test]
fn one_connection_more_than_a_user_may_have_is_refused_as_by_rabbitmq() {
    let desk = Desk::new();
    desk.shared.places.set_max(2);
    let mut open = [desk.user("bob"), desk.user("bob")];
    let mut third = accepted(&desk, "bob");
    third.client(tune_ok(100, 8192, 0) + connection_open("/"));
    assert_eq!(third.to_upstream(), tune_ok(100, 8192, 0), "the broker hears nothing of it");
    assert!(third.upstream_closed());
    let said = format!("{:?}", third.to_client());
    assert!(said.contains(REFUSED), "{said}");
    let reason = RefusedBecause::UserConnections { max: 2 };
    let refused = RefusedLogin { mechanism: "".into(), user: Some("bob".into()), reason };
    assert_eq!(third.session.take_refused_login(), Some(refused));
    third.client(connection_close_ok());
    assert!(third.session.is_over());
    let eve = desk.user("eve");
    assert_eq!(users(&desk), (2, 2), "another user is not concerned");
    open[0].client(connection_close(200, "bye"));
    assert_eq!(users(&desk), (2, 2), "it waits for its close-ok");
    open[0].upstream(connection_close_ok());
    assert_eq!(users(&desk), (2, 1));
    let again = desk.user("bob");
    assert_eq!(users(&desk), (2, 2));
    drop((open, third, eve, again));
    assert_eq!(users(&desk), (0, 0));
}

/// Nobody takes a place in another's name: a stranger has none, whatever it says.
#[test]
fn who_is_not_logged_in_takes_no_place() {
    let desk = Desk::new();
    desk.shared.places.set_max(1);
    let mut strangers = Vec::new();
    for said in [
        start_ok("bob") + tune_ok(100, 8192, 0) + connection_open("/"),
        connection_open("/") + start_ok("bob"),
        tune_ok(100, 8192, 0) + connection_open("/"),
    ] {
        let mut stranger = Pair::new(&desk.shared);
        stranger.client(protocol_header() + said);
        stranger.upstream(start());
        strangers.push(stranger);
    }
    assert_eq!(users(&desk), (0, 0));
    // A second start-ok changes nothing, either.
    let mut eve = accepted(&desk, "eve");
    eve.client(start_ok("bob") + tune_ok(100, 8192, 0) + connection_open("/"));
    let _bob = desk.user("bob");
    assert_eq!(users(&desk), (2, 1));
}

/// The connection ends after each octet of a login and some work, in each way in which it can: its place is free again.
#[test]
fn a_connection_that_ends_at_any_octet_gives_its_place_back() {
    let client = protocol_header()
        + start_ok("bob")
        + tune_ok(100, 8192, 0)
        + connection_open("/")
        + channel_open(1)
        + m("a").publish(1)
        + channel_close(1, 200, "")
        + connection_close(200, "bye");
    let octets = client.encode();
    let mut most = 0;
    for end in 0..=octets.len() {
        for way in 0..5 {
            let desk = Desk::new();
            let mut pair = Pair::new(&desk.shared);
            pair.client_bytes(&octets[..end]);
            for said in [start(), tune(100, 8192, 0), connection_open_ok()] {
                pair.upstream(said);
            }
            most = most.max(users(&desk).1);
            match way {
                0 => pair.client_eof(),
                1 => pair.upstream_eof(),
                2 => pair.drain(),
                3 => pair.advance(60 * SECOND),
                _ => {}
            }
            if way == 1 {
                // It was told, and does not answer.
                assert_eq!(users(&desk), (0, 0), "{end} {way}");
            }
            if way == 0 {
                assert_eq!(
                    users(&desk),
                    (0, 0),
                    "outcomes that are awaited without a client take no place: {end}"
                );
            }
            drop(pair);
            assert_eq!(users(&desk), (0, 0), "{end} {way}");
        }
    }
    assert_eq!(most, 1, "it had one");
}

// ---- how much a client may publish ---------------------------------------------------------------------------------

#[test]
fn a_client_at_its_limit_waits_before_a_message_and_never_within_one() {
    let desk = Desk::new();
    let mut pair = desk.confirming();
    pair.session.handle_publish_limit(2, pair.now());
    let all = m("a").publish(1) + m("b").publish(1) + m("c").publish(1) + channel_close(1, 200, "");
    // In one read, and in pieces, which go another way through the session.
    let (first, rest) = super::desk::cut(all, 4);
    pair.client(first);
    pair.client_in_pieces(&rest, 3);
    assert_eq!(pair.to_upstream(), m("a").publish(1) + m("b").publish(1));
    assert!(pair.session.is_at_publish_limit() && !pair.session.wants_client());
    assert_eq!(pair.session.publishes(), 2);
    // Acks and deliveries go on.
    pair.upstream(ack(1, 1) + m("d").deliver(1, "c", 1));
    assert_eq!(pair.to_client(), ack(1, 1) + m("d").deliver(1, "c", 1));
    pair.session.handle_publish_limit(3, pair.now());
    pair.client_bytes(&[]);
    assert_eq!(pair.to_upstream(), m("c").publish(1));
    assert_eq!(pair.session.publishes(), 3);
    pair.upstream(ack(1, 3) + ack(1, 2));
    assert!(
        format!("{:?}", pair.to_upstream()).contains("channel.close"),
        "what stood behind it goes on, too"
    );
    pair.upstream(channel_close_ok(1));
}

#[test]
fn other_frames_and_the_rest_of_a_large_message_pass_at_the_limit() {
    let desk = Desk::new();
    let mut pair = desk.in_tx();
    pair.session.handle_publish_limit(1, pair.now());
    let large = m("large").body("x".repeat(5000)).frame_size(1000);
    let (head, tail) = super::desk::cut(large.publish(1), 3);
    pair.client(head);
    assert_eq!(pair.session.publishes(), 1);
    pair.client(tail + tx_commit(1));
    assert_eq!(pair.to_upstream(), large.publish(1) + tx_commit(1));
    assert!(pair.session.wants_client());
}

#[test]
fn a_client_that_is_held_back_gets_heartbeats_and_is_not_taken_for_dead() {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared).proving();
    pair.handshake_with("bob", "/", (2047, 8192, 10));
    pair.open(1);
    pair.session.handle_publish_limit(0, pair.now());
    pair.client(m("a").publish(1));
    // The shell does not read from it meanwhile.
    pair.session.handle_reading_client(false, pair.now());
    for _ in 0..20 {
        pair.advance(5 * SECOND);
        assert_eq!(pair.to_client(), heartbeat());
        assert_eq!(pair.to_upstream(), heartbeat());
        pair.upstream(heartbeat());
    }
    pair.session.handle_reading_client(true, pair.now());
    pair.session.handle_publish_limit(u64::MAX, pair.now());
    assert_eq!(pair.to_upstream(), confirm_select_nowait(1) + m("a").publish(1));
    assert_eq!(pair.to_client(), Frames::none());
}
