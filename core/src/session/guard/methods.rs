//! The methods that Hapax writes on a guarded channel, besides settles.

use crate::session::outbox::View;
use crate::wire::method::MethodId;
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::{AMQPClass, basic, tx};
use bytes::{Bytes, BytesMut};

/// Makes a `tx.commit`.
pub(super) fn commit(channel: ChannelId) -> Bytes {
    emit::method(channel, AMQPClass::Tx(tx::AMQPMethod::Commit(tx::Commit {})))
}

/// Makes a `basic.consume`.
pub(super) fn consume(channel: ChannelId, consume: basic::Consume) -> Bytes {
    emit::method(channel, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)))
}

/// Makes a `basic.get` whose message has to be acked.
pub(super) fn get(channel: ChannelId, get: basic::Get) -> Bytes {
    let get = basic::Get { no_ack: false, ..get };
    emit::method(channel, AMQPClass::Basic(basic::AMQPMethod::Get(get)))
}

/// Makes the `basic.recover` that does what this `basic.recover-async` asks for, and is answered.
pub(super) fn recover(channel: ChannelId, recover: View<'_>) -> Bytes {
    let MethodId(class, method) = MethodId::BASIC_RECOVER;
    let bits = recover.payload().get(4..).unwrap_or_default();
    let mut payload = [class.to_be_bytes(), method.to_be_bytes()].concat();
    payload.extend_from_slice(bits);
    let mut frame = BytesMut::new();
    emit::raw_method(&mut frame, channel, &payload);
    frame.freeze()
}

/// Reads a `basic.consume`.
pub(super) fn consume_of(frame: View<'_>) -> Option<basic::Consume> {
    match emit::parse_method(frame.payload())? {
        AMQPClass::Basic(basic::AMQPMethod::Consume(consume)) => Some(consume),
        _ => None,
    }
}

/// Reads a `basic.get`.
pub(super) fn get_of(frame: View<'_>) -> Option<basic::Get> {
    match emit::parse_method(frame.payload())? {
        AMQPClass::Basic(basic::AMQPMethod::Get(get)) => Some(get),
        _ => None,
    }
}

/// Returns the consumer tag of a `basic.cancel` that the broker does not answer.
pub(super) fn unanswered_cancel(frame: View<'_>) -> Option<String> {
    match emit::parse_method(frame.payload())? {
        AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)) => {
            cancel.nowait.then(|| cancel.consumer_tag.to_string())
        }
        _ => None,
    }
}

/// Returns the consumer tag of a `basic.cancel` or a `basic.cancel-ok`.
pub(super) fn cancelled_of(frame: View<'_>) -> Option<String> {
    match emit::parse_method(frame.payload())? {
        AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)) => Some(cancel.consumer_tag.to_string()),
        AMQPClass::Basic(basic::AMQPMethod::CancelOk(cancel)) => Some(cancel.consumer_tag.to_string()),
        _ => None,
    }
}
