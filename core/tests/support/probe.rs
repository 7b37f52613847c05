//! The questions by which a session finds out from the broker whether a user may publish, and the broker's answers.

use super::frames::{Frame, Frames, message};
use super::methods::{
    channel_close, channel_close_ok, channel_open, channel_open_ok, tx_rollback, tx_rollback_ok, tx_select,
    tx_select_ok,
};
use super::pair::Pair;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::basic::AMQPProperties;
use amq_protocol::protocol::{AMQPClass, channel, tx};
use amq_protocol::types::{AMQPValue, FieldTable};

/// The channel that it asks on where the broker allows 2,047.
pub const OWN: u16 = 2047;

/// A name that no pattern allows but one that allows all.
pub const ANY: &str = "~.~.~.~.~";

/// The publishes of a question, and their rollback.
pub fn questions(channel: u16, places: &[(&str, &str)]) -> Frames {
    let mut headers = FieldTable::default();
    headers.insert("x-recent-history-no-store".into(), AMQPValue::Boolean(true));
    let properties = AMQPProperties::default()
        .with_headers(headers)
        .with_type("hapax: may this user publish? (rolled back)".into());
    let publish = |&(exchange, key): &(&str, &str)| {
        message(exchange, key).properties(properties.clone()).publish(channel).0
    };
    Frames(places.iter().flat_map(publish).collect()) + tx_rollback(channel)
}

/// May the user publish to these (exchange, routing key)? On a channel that is opened for it.
pub fn asks_on(channel: u16, places: &[(&str, &str)]) -> Frames {
    channel_open(channel) + tx_select(channel) + questions(channel, places)
}

/// The same on [`OWN`].
pub fn asks(places: &[(&str, &str)]) -> Frames {
    asks_on(OWN, places)
}

/// Yes, to all.
pub fn may() -> Frames {
    channel_open_ok(OWN) + tx_select_ok(OWN) + tx_rollback_ok(OWN)
}

/// Nothing is left to ask.
pub fn ends() -> Frames {
    channel_close(OWN, 200, "hapax knows what it wanted to know")
}

/// No, to one of them.
pub fn may_not() -> Frames {
    refused(403, "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'guest'")
}

/// No, and why.
pub fn refused(code: u16, text: &str) -> Frames {
    channel_open_ok(OWN) + tx_select_ok(OWN) + channel_close(OWN, code, text)
}

/// Returns the answers of a broker that allows everything.
pub fn answers(frames: &[Frame]) -> Frames {
    let answer = |frame: &Frame| match &frame.0 {
        AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::Open(_))) => channel_open_ok(OWN),
        AMQPFrame::Method(_, AMQPClass::Channel(channel::AMQPMethod::Close(_))) => channel_close_ok(OWN),
        AMQPFrame::Method(_, AMQPClass::Tx(tx::AMQPMethod::Select(_))) => tx_select_ok(OWN),
        AMQPFrame::Method(_, AMQPClass::Tx(tx::AMQPMethod::Rollback(_))) => tx_rollback_ok(OWN),
        _ => Frames::none(),
    };
    frames.iter().map(answer).fold(Frames::none(), |all, next| all + next)
}

/// The client has just published to these places for the first time: it may. Gives back what is sent then.
pub fn prove(pair: &mut Pair, places: &[(&str, &str)]) -> Frames {
    assert_eq!(pair.to_upstream(), asks(places));
    pair.upstream(may());
    let mut said = pair.to_upstream().0;
    assert_eq!(said.pop().map(Frames::from), ends().0.pop().map(Frames::from));
    pair.upstream(channel_close_ok(OWN));
    Frames(said)
}
