//! Point 15, nobody else's messages: what a client without the right does changes nothing that another client sees. (Rights
//! to publish are point 9.)

use super::desk::{Desk, SECOND, confirm, m, publish};
use crate::support::frames::{Frames, message, protocol_header};
use crate::support::methods::{
    ack, channel_close, channel_close_ok, channel_open, channel_open_ok, confirm_select, confirm_select_ok,
    connection_close, connection_open, connection_open_ok, start, start_ok, tune, tune_ok, tx_select,
};
use crate::support::pair::Pair;
use hapax_core::session::Phase;
use hapax_core::window::Scope;

/// A client that has said hello, and the broker has answered.
fn stranger(desk: &Desk) -> Pair {
    let mut pair = Pair::new(&desk.shared);
    pair.client(protocol_header());
    pair.upstream(start());
    assert_eq!((pair.to_client(), pair.to_upstream()), (start(), protocol_header()));
    pair
}

#[test]
fn p15_before_login_nothing_is_judged_reserved_or_answered() {
    let desk = Desk::new();
    desk.store("known");
    let publishes = |id: &str| {
        let opens = channel_open(1) + confirm_select(1);
        opens + m(id).publish(1) + tx_select(2) + m(id).publish(2) + channel_close(1, 200, "")
    };
    for id in ["known", "unknown"] {
        let mut pair = stranger(&desk);
        pair.client(publishes(id));
        assert_eq!(pair.to_upstream(), publishes(id), "it is the broker's to refuse");
        assert_eq!(pair.to_client(), Frames::none(), "and nothing is answered for it");
        assert_eq!((pair.session.channels(), pair.session.publishes(), desk.in_flight()), (0, 0, 0));
        assert_eq!((pair.session.vhost(), pair.session.about()), (None, None));
        pair.upstream_eof();
        assert!(pair.session.is_over());
    }
    let mut honest = desk.confirming();
    publish(&mut honest, &m("unknown"));
}

#[test]
fn p15_before_login_a_vhost_is_no_more_than_a_word() {
    let desk = Desk::new();
    let mut pair = stranger(&desk);
    pair.client(connection_open("/") + channel_open(1) + m("a").publish(1));
    assert_eq!(pair.to_upstream(), connection_open("/"), "what follows waits for the broker's answer");
    assert!(!pair.session.wants_client());
    assert_eq!((pair.session.channels(), desk.in_flight()), (0, 0));
    pair.advance(10 * SECOND);
    assert!(pair.session.is_over(), "a handshake has its time");
}

/// Many channels before login, and many after it.
#[test]
fn p15_channels_are_those_that_were_agreed_on() {
    let desk = Desk::new();
    let mut pair = stranger(&desk);
    (1..=u16::MAX).for_each(|number| pair.client(channel_open(number)));
    assert_eq!(pair.session.channels(), 0);

    for (agreed, numbers) in [(2, [7, 40_000, 3]), (1, [9, 0, 8])] {
        let mut pair = agreed_on(&desk, agreed);
        numbers[..agreed].iter().for_each(|&number| pair.open(number));
        pair.client(channel_open(numbers[2]));
        let before = pair.leave_upstream();
        assert_eq!(before, Frames::none(), "the broker was told of one more: it would allow it");
        let said = format!("{:?}", pair.to_client());
        let text = format!(
            "connection.close 530 \"NOT_ALLOWED - number of channels opened ({agreed}) has reached the negotiated channel_max ({agreed})\""
        );
        assert!(said.contains(&text), "{said}");
    }
}

fn agreed_on(desk: &Desk, channels: usize) -> Pair {
    let channels = u16::try_from(channels).unwrap();
    let mut pair = stranger(desk).proving();
    pair.client(start_ok("guest"));
    pair.upstream(tune(2047, 131_072, 0));
    pair.client(tune_ok(channels, 131_072, 0) + connection_open("/"));
    pair.upstream(connection_open_ok());
    pair.to_client();
    assert!(pair.to_upstream().0.ends_with(&connection_open("/").0));
    pair
}

#[test]
fn p15_a_closed_number_is_free_when_the_broker_says_so() {
    let desk = Desk::new();
    let mut pair = agreed_on(&desk, 1);
    for number in [1, 2, 3] {
        pair.open(number);
        pair.client(channel_close(number, 200, ""));
        pair.upstream(channel_close_ok(number));
        pair.to_client();
        pair.to_upstream();
    }
    assert_eq!(pair.session.channels(), 0);
}

/// As RabbitMQ says it: 504, for a number that is not free yet.
#[test]
fn p15_a_channel_is_not_opened_before_its_close_is_answered() {
    let text = "connection.close 504 \"CHANNEL_ERROR - second 'channel.open' seen\"";
    let closes: [fn(&mut Pair); 4] = [
        |pair| pair.client(channel_close(1, 200, "")),
        |pair| {
            pair.client(m("held").publish(1) + channel_close(1, 200, ""));
        },
        |pair| pair.upstream(channel_close(1, 404, "NOT_FOUND")),
        // Behind a publish that waits for the proof of a right.
        |pair| pair.client(m("unproven").publish(1) + channel_close(1, 200, "")),
    ];
    for (n, close) in closes.into_iter().enumerate() {
        let desk = if n == 3 { Desk::unproven(|_| ()) } else { Desk::new() };
        let mut pair = desk.confirming();
        close(&mut pair);
        pair.client(channel_open(1) + m("a").publish(1));
        let said = format!("{:?}", pair.to_client());
        assert!(said.contains(text), "{said}");
        assert!(!desk.is_seen("a"));
    }
}

/// User and vhost are taken once.
#[test]
fn p15_a_second_login_changes_nothing() {
    let desk = Desk::unproven(|plan| plan.rules.scope = Scope::Vhost);
    let mut victim = desk.user("victim").proving();
    let mut pair = desk.user("guest");
    for again in [connection_open("other"), start_ok("victim"), tune_ok(1, 8192, 1)] {
        pair.client(again.clone());
        assert_eq!(pair.to_upstream(), again, "the broker refuses it");
        assert_eq!(pair.session.vhost().map(|vhost| &**vhost), Some(&b"/"[..]));
        assert_eq!(pair.session.about().and_then(|about| about.user.as_deref()), Some("guest"));
    }
    confirm(&mut victim, 1);
    victim.client(m("a").publish(1));
    victim.to_upstream();
    pair.client(m("a").publish(1));
    assert!(!pair.to_upstream().is_empty(), "asked for rights of its own");
    assert_eq!(pair.to_client(), Frames::none());
    pair.upstream(connection_close(504, "CHANNEL_ERROR - unexpected method in connection state running"));
    assert_eq!(pair.session.phase(), Phase::Closing);
}

/// A client may say all of its methods in one write.
#[test]
fn p15_a_pipelined_handshake_is_heard_in_turn() {
    let desk = Desk::new();
    let mut pair = Pair::new(&desk.shared).proving();
    let login = start_ok("guest") + tune_ok(2046, 131_072, 0) + connection_open("/");
    let first = channel_open(1) + confirm_select(1) + message("x", "k").id("a").publish(1);
    pair.client(protocol_header() + login + first);
    assert_eq!(pair.to_upstream(), protocol_header());
    pair.upstream(start());
    assert_eq!(pair.to_upstream(), start_ok("guest"));
    pair.upstream(tune(2047, 131_072, 0));
    assert_eq!(pair.to_upstream(), tune_ok(2047, 131_072, 0) + connection_open("/"));
    pair.upstream(connection_open_ok());
    let sent = channel_open(1) + confirm_select(1) + message("x", "k").id("a").publish(1);
    assert_eq!(pair.to_upstream(), sent);
    pair.upstream(channel_open_ok(1) + confirm_select_ok(1) + ack(1, 1));
    let answers = start() + tune(2047, 131_072, 0) + connection_open_ok();
    assert_eq!(pair.to_client(), answers + channel_open_ok(1) + confirm_select_ok(1) + ack(1, 1));
    pair.client(message("x", "k").id("a").publish(1));
    assert_eq!((pair.to_upstream(), pair.to_client()), (Frames::none(), ack(1, 2)), "it is judged");
}
