//! The frames that Hapax itself originates. Hot ones (`ack`, `nack`, heartbeat) are written by hand; the others go
//! through `amq-protocol`'s generators.

use super::ChannelId;
use amq_protocol::protocol::AMQPClass;
use bytes::{Bytes, BytesMut};

/// A heartbeat frame, ready to send.
pub const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 0xCE];

/// Appends `basic.ack(tag, multiple)`: 21 octets.
pub fn ack(out: &mut BytesMut, channel: ChannelId, tag: u64, multiple: bool) {
    let _ = (out, channel, tag, multiple);
    todo!()
}

/// Appends `basic.nack(tag, multiple = false, requeue = false)`.
pub fn nack(out: &mut BytesMut, channel: ChannelId, tag: u64) {
    let _ = (out, channel, tag);
    todo!()
}

/// Any method as a frame, through `amq-protocol`.
pub fn method(channel: ChannelId, class: AMQPClass) -> Bytes {
    let _ = (channel, class);
    todo!()
}

/// A method frame, parsed by `amq-protocol`; `None` where it does not know the class or method.
pub fn parse_method(payload: &[u8]) -> Option<AMQPClass> {
    let _ = payload;
    todo!()
}

/// `basic.publish` with another exchange (`forward_to`): routing key and bits as in `payload`.
pub fn publish_to(channel: ChannelId, payload: &[u8], exchange: &[u8]) -> Result<Bytes, super::WireError> {
    let _ = (channel, payload, exchange);
    todo!()
}

/// `basic.return` with another exchange (the way back of `forward_to`).
pub fn return_from(channel: ChannelId, payload: &[u8], exchange: &[u8]) -> Result<Bytes, super::WireError> {
    let _ = (channel, payload, exchange);
    todo!()
}
