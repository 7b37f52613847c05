//! The channel's state machine as a table: each state, each event, what either side hears of it.

use super::desk::{Desk, m};
use crate::support::frames::{Frame, Frames, message};
use crate::support::methods::{
    ack, channel_close, channel_close_ok, channel_open_ok, nack, queue_declare, queue_declare_ok, tx_select,
};
use crate::support::pair::Pair;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, basic, channel, queue};

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Open,
    Settling,
    Closing,
    UpstreamClosed,
    Refused,
    Recycling,
    RecyclingClosed,
}

const STATES: [State; 7] = [
    State::Open,
    State::Settling,
    State::Closing,
    State::UpstreamClosed,
    State::Refused,
    State::Recycling,
    State::RecyclingClosed,
];

/// Channel 1 in this state, with a publish of `a` unresolved where the state knows such.
fn bring(desk: &Desk, state: State) -> Pair {
    let recycling = matches!(state, State::Recycling | State::RecyclingClosed);
    let mut pair = if recycling { desk.pair() } else { desk.confirming() };
    if state != State::Closing {
        pair.client(m("a").publish(1));
    }
    match state {
        State::Open => {}
        State::Settling | State::Closing => pair.client(channel_close(1, 200, "")),
        State::UpstreamClosed => pair.upstream(channel_close(1, 404, "")),
        State::Refused => pair.client(message("x", "k").publish(1)),
        State::Recycling => pair.client(tx_select(1)),
        State::RecyclingClosed => {
            pair.client(tx_select(1));
            pair.upstream(ack(1, 1));
        }
    }
    pair.to_client();
    pair.to_upstream();
    pair
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Declare,
    Publish,
    Close,
    CloseOk,
    UpstreamDeclareOk,
    UpstreamAck,
    UpstreamNack,
    UpstreamClose,
    UpstreamCloseOk,
    Eof,
    UpstreamEof,
    LongTime,
}

fn happen(pair: &mut Pair, event: Event) {
    match event {
        Event::Declare => pair.client(queue_declare(1, "q")),
        Event::Publish => pair.client(m("b").publish(1)),
        Event::Close => pair.client(channel_close(1, 200, "")),
        Event::CloseOk => pair.client(channel_close_ok(1)),
        Event::UpstreamDeclareOk => pair.upstream(queue_declare_ok(1, "q")),
        Event::UpstreamAck => pair.upstream(ack(1, 1)),
        Event::UpstreamNack => pair.upstream(nack(1, 1)),
        Event::UpstreamClose => pair.upstream(channel_close(1, 404, "")),
        Event::UpstreamCloseOk => pair.upstream(channel_close_ok(1)),
        Event::Eof => pair.client_eof(),
        Event::UpstreamEof => pair.upstream_eof(),
        Event::LongTime => pair.advance(std::time::Duration::from_secs(11)),
    }
}

/// Returns the frames in a few words.
fn words(frames: &Frames) -> String {
    let word = |Frame(frame): &Frame| match frame {
        AMQPFrame::Method(0, _) => "end",
        AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::Open(_))) => "open",
        AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::Close(_))) => "close",
        AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::CloseOk(_))) => "close-ok",
        AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::Flow(_))) => "flow",
        AMQPFrame::Method(_, AMQPClass::Queue(queue::AMQPMethod::Declare(_))) => "declare",
        AMQPFrame::Method(_, AMQPClass::Queue(queue::AMQPMethod::DeclareOk(_))) => "declare-ok",
        AMQPFrame::Method(_, AMQPClass::Basic(basic::AMQPMethod::Ack(_))) => "ack",
        AMQPFrame::Method(_, AMQPClass::Basic(basic::AMQPMethod::Nack(_))) => "nack",
        AMQPFrame::Method(_, AMQPClass::Basic(basic::AMQPMethod::Publish(_))) => "publish",
        AMQPFrame::Header(..) | AMQPFrame::Body(..) => "",
        _ => "other",
    };
    frames.0.iter().map(word).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// For each event, what client and upstream hear in the states in the order of [`STATES`]: `client|upstream`. Then
/// ` seen` where `a` is seen afterwards, and ` over` where the session is.
const TABLE: [(Event, [&str; 7]); 12] = [
    (Event::Declare, ["|declare", "|", "|", "|", "|", "|", "| seen"]),
    (Event::Publish, ["|publish", "|", "|", "|", "|", "|", "| seen"]),
    (Event::Close, ["|", "|", "|", "close-ok|close-ok", "close-ok|", "|", "| seen"]),
    (Event::CloseOk, ["|close-ok", "|", "|", "|close-ok", "|", "|", "| seen"]),
    (
        Event::UpstreamDeclareOk,
        ["declare-ok|", "declare-ok|", "declare-ok|", "declare-ok|", "|", "declare-ok|", "declare-ok| seen"],
    ),
    (Event::UpstreamAck, ["ack| seen", "ack|close seen", "|", "|", "|close seen", "|close seen", "| seen"]),
    (Event::UpstreamNack, ["nack|", "nack|close", "|", "|", "|close", "|close", "| seen"]),
    (
        Event::UpstreamClose,
        [
            "close|",
            "close close-ok|close-ok",
            "close|close-ok",
            "close|",
            "|close-ok",
            "close|",
            "close|close-ok seen",
        ],
    ),
    (
        Event::UpstreamCloseOk,
        ["close-ok|", "close-ok|", "close-ok|", "close-ok|", "|", "close-ok|", "|open seen"],
    ),
    (Event::Eof, ["|", "|", "|end", "|end", "|", "|", "|end seen"]),
    (Event::UpstreamEof, ["end|", "end|", "end|", "end|", "end|", "end|", "end| seen"]),
    (Event::LongTime, ["|", "|flow close", "|", "|", "|close", "close|", "| seen"]),
];

#[test]
fn channel_states_and_events() {
    let mut wrong = Vec::new();
    for (event, row) in TABLE {
        for (state, expected) in STATES.into_iter().zip(row) {
            let desk = Desk::with(|plan| plan.rules.missing_id = hapax_core::window::MissingId::Reject);
            let mut pair = bring(&desk, state);
            happen(&mut pair, event);
            let (client, upstream) = (words(&pair.to_client()), words(&pair.to_upstream()));
            let seen = if desk.is_seen("a") { " seen" } else { "" };
            let over = if pair.session.is_over() { " over" } else { "" };
            let got = format!("{client}|{upstream}{seen}{over}");
            if got != expected {
                wrong.push(format!("{state:?} × {event:?}: {got:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A timeout that is not moved by handling it would have the shell spin.
#[test]
fn every_state_and_event_lets_time_pass() {
    for (first, _) in TABLE {
        for (second, _) in TABLE {
            for state in STATES {
                let desk = Desk::with(|plan| plan.rules.missing_id = hapax_core::window::MissingId::Reject);
                let mut pair = bring(&desk, state);
                happen(&mut pair, first);
                if !pair.client_closed() && !pair.upstream_closed() {
                    happen(&mut pair, second);
                }
                pair.advance(std::time::Duration::from_secs(60));
            }
        }
    }
}

#[test]
fn every_state_ends_when_both_sides_do() {
    for state in STATES {
        for client_first in [true, false] {
            let desk = Desk::with(|plan| plan.rules.missing_id = hapax_core::window::MissingId::Reject);
            let mut pair = bring(&desk, state);
            if client_first {
                pair.client_eof();
                pair.upstream_eof();
            } else {
                pair.upstream_eof();
                pair.client_eof();
            }
            assert!(pair.session.is_over(), "{state:?}, client first: {client_first}");
            assert_eq!(
                (desk.in_flight(), pair.session.unresolved(), pair.session.held_bytes()),
                (0, 0, 0),
                "{state:?}"
            );
        }
    }
    let _ = channel_open_ok(1);
}
