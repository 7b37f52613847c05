//! The methods that Hapax writes on a guarded channel, besides settles.

use crate::session::outbox::View;
use crate::wire::method::MethodId;
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::{AMQPClass, tx};
use bytes::Bytes;

/// Makes a `tx.commit`.
pub(super) fn commit(channel: ChannelId) -> Bytes {
    emit::method(channel, AMQPClass::Tx(tx::AMQPMethod::Commit(tx::Commit {})))
}

/// Makes the `basic.recover` that does what this `basic.recover-async` asks for, and is answered.
pub(super) fn recover(channel: ChannelId, recover: View<'_>) -> Bytes {
    let MethodId(class, method) = MethodId::BASIC_RECOVER;
    let bits = recover.payload().get(4..).unwrap_or_default();
    let mut payload = [class.to_be_bytes(), method.to_be_bytes()].concat();
    payload.extend_from_slice(bits);
    emit::method_of(channel, &payload)
}
