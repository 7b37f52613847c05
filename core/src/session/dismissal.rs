//! The part of a handshake that Hapax plays itself for a client, because it can't reach the broker.
//!
//! AMQP lets a server close a connection with a reason only after `connection.start`. Hapax sends that, and closes with the
//! reason when the client wants to open the vhost. It does not close before: clients take a close during the login for a wrong
//! password, and some never try again then. Nothing is read out of the client's methods.
//!
//! ```text
//!  client                                  Hapax
//!    | --- protocol header --------------->  | (nobody answers at the broker's address)
//!    | <-- start, tune --------------------- |
//!    | --- start-ok, tune-ok, open --------> |
//!    | <-- close: 320 CONNECTION_FORCED ---- |
//! ```

use crate::wire::method::MethodId;
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::{AMQPMethod, Start, Tune};
use amq_protocol::types::{AMQPValue, FieldTable};
use bytes::Bytes;

/// The mechanisms that clients of RabbitMQ use. A client that finds none of its own would report that instead of the reason.
const MECHANISMS: &str = "PLAIN AMQPLAIN EXTERNAL";

/// The answer to a method of the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// This frame.
    Say(Bytes),
    /// Nothing yet.
    Wait,
    /// `connection.close`.
    Close,
}

/// Returns the answer to a method of the client.
pub(super) fn answer(method: Option<MethodId>) -> Answer {
    match method {
        Some(MethodId::CONNECTION_START_OK) => Answer::Say(tune()),
        Some(MethodId::CONNECTION_TUNE_OK) => Answer::Wait,
        Some(_) | None => Answer::Close,
    }
}

/// Makes the `connection.start`.
pub(super) fn start() -> Bytes {
    let mut properties = FieldTable::default();
    properties.insert("product".into(), AMQPValue::LongString("Hapax".into()));
    method(AMQPMethod::Start(Start {
        version_major: 0,
        version_minor: 9,
        server_properties: properties,
        mechanisms: MECHANISMS.into(),
        locales: "en_US".into(),
    }))
}

/// Makes the `connection.tune`, with RabbitMQ's own values. Nothing will depend on them.
fn tune() -> Bytes {
    method(AMQPMethod::Tune(Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 }))
}

fn method(method: AMQPMethod) -> Bytes {
    emit::method(ChannelId::CONNECTION, AMQPClass::Connection(method))
}
