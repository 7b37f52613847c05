//! The `connection.start` that Hapax sends itself to a client for which it can't reach the broker.
//!
//! AMQP lets a server close a connection with a reason only after `connection.start`. So Hapax says it, waits for
//! `start-ok`, and closes with the reason. Nothing is read out of `start-ok`.

use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::{AMQPMethod, Start};
use amq_protocol::types::{AMQPValue, FieldTable};
use bytes::Bytes;

/// The mechanisms that clients of RabbitMQ use. A client that finds none of its own would report that instead of the reason.
const MECHANISMS: &str = "PLAIN AMQPLAIN EXTERNAL";

/// Makes the `connection.start`.
pub(super) fn start() -> Bytes {
    let mut capabilities = FieldTable::default();
    // The client is told of the close, as of a refused login.
    capabilities.insert("authentication_failure_close".into(), AMQPValue::Boolean(true));
    let mut properties = FieldTable::default();
    properties.insert("product".into(), AMQPValue::LongString("Hapax".into()));
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    let start = Start {
        version_major: 0,
        version_minor: 9,
        server_properties: properties,
        mechanisms: MECHANISMS.into(),
        locales: "en_US".into(),
    };
    emit::method(ChannelId::CONNECTION, AMQPClass::Connection(AMQPMethod::Start(start)))
}
