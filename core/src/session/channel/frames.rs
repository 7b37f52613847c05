//! The frames that Hapax itself writes on a channel, besides confirms.

use crate::session::outbox::View;
use crate::wire::consuming::Cancel;
use crate::wire::method::MethodId;
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::channel::{AMQPMethod as ChannelMethod, Close, CloseOk, Flow, Open};
use amq_protocol::protocol::{AMQPClass, basic};
use bytes::{Bytes, BytesMut};

/// Makes a `channel.open`.
pub(super) fn open(channel: ChannelId) -> Bytes {
    emit::method(channel, AMQPClass::Channel(ChannelMethod::Open(Open {})))
}

/// Makes a `channel.flow` that changes nothing: the flow is active already.
pub(super) fn flow(channel: ChannelId) -> Bytes {
    emit::method(channel, AMQPClass::Channel(ChannelMethod::Flow(Flow { active: true })))
}

/// Makes a `channel.close` that blames the method `culprit`.
pub(super) fn close(channel: ChannelId, code: u16, text: &str, culprit: MethodId) -> Bytes {
    let close =
        Close { reply_code: code, reply_text: text.into(), class_id: culprit.0, method_id: culprit.1 };
    emit::method(channel, AMQPClass::Channel(ChannelMethod::Close(close)))
}

/// Makes a `channel.close` with code 200 that blames no method.
pub(super) fn close_normally(channel: ChannelId, text: &str) -> Bytes {
    close(channel, 200, text, MethodId(0, 0))
}

/// Makes a `channel.close-ok`.
pub(super) fn close_ok(channel: ChannelId) -> Bytes {
    emit::method(channel, AMQPClass::Channel(ChannelMethod::CloseOk(CloseOk {})))
}

/// Makes a `basic.cancel` that the broker does not answer.
pub(super) fn cancel(channel: ChannelId, tag: &[u8]) -> Bytes {
    emit::method_of(channel, &Cancel::nowait(tag))
}

/// Makes the same method without these bits, which are in the last octet of its payload.
pub(in crate::session) fn without_bits(method: View<'_>, bits: u8) -> Bytes {
    let mut frame = BytesMut::from(method.octets());
    if let [.., last, _] = &mut frame[..] {
        *last &= !bits;
    }
    frame.freeze()
}

/// Makes a `basic.nack` that puts all unacked deliveries of the channel back into their queues.
pub(super) fn requeue_all(channel: ChannelId) -> Bytes {
    let nack = basic::Nack { delivery_tag: 0, multiple: true, requeue: true };
    emit::method(channel, AMQPClass::Basic(basic::AMQPMethod::Nack(nack)))
}
