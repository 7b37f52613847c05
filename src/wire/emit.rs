//! The frames that Hapax itself originates. Hot ones (`ack`, `nack`, heartbeat) are written by hand; the others go
//! through `amq-protocol`'s generators.

use super::frame::{FRAME_END, OVERHEAD};
use super::method::{MethodId, Publish, Return};
use super::{ChannelId, WireError};
use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame};
use amq_protocol::protocol::{AMQPClass, confirm, parse_class};
use bytes::{BufMut, Bytes, BytesMut};

/// A heartbeat frame, ready to send.
pub const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 0xCE];

/// How many tables and arrays a method may hold, nested or not, to be parsed: `amq-protocol` recurses into them, and
/// a stack that runs over takes the whole process along. Real methods hold a handful.
const MAX_CONTAINERS: usize = 128;

/// Appends `basic.ack(tag, multiple)`: 21 octets.
pub fn ack(out: &mut BytesMut, channel: ChannelId, tag: u64, multiple: bool) {
    settle(out, channel, MethodId::BASIC_ACK, tag, u8::from(multiple));
}

/// Appends `basic.nack(tag, multiple = false, requeue = false)`.
pub fn nack(out: &mut BytesMut, channel: ChannelId, tag: u64) {
    settle(out, channel, MethodId::BASIC_NACK, tag, 0);
}

/// Any method as a frame, through `amq-protocol`.
pub fn method(channel: ChannelId, class: AMQPClass) -> Bytes {
    frame(&AMQPFrame::Method(channel.0, class))
}

/// `confirm.select(nowait = true)`: no answer comes.
pub fn confirm_select(channel: ChannelId) -> Bytes {
    method(channel, AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: true })))
}

/// Any frame, through `amq-protocol`.
pub fn frame(frame: &AMQPFrame) -> Bytes {
    // The one error that generators know is a sink that is full, and a `Vec` never is.
    let written = gen_frame(frame)(WriteContext::from(Vec::new()));
    debug_assert!(written.is_ok(), "a Vec took no more: {frame:?}");
    written.map(|context| Bytes::from(context.into_inner().0)).unwrap_or_default()
}

/// Appends a method frame around a payload that is already written.
pub fn raw_method(out: &mut BytesMut, channel: ChannelId, payload: &[u8]) {
    out.put_u8(1);
    out.put_u16(channel.0);
    out.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    out.put_slice(payload);
    out.put_u8(FRAME_END);
}

/// A method frame, parsed by `amq-protocol`; `None` where it does not know the class or method, where fields and
/// payload do not end together, where a short string is no UTF-8, or where tables are nested beyond reason.
pub fn parse_method(payload: &[u8]) -> Option<AMQPClass> {
    if containers(payload) > MAX_CONTAINERS {
        return None;
    }
    match parse_class(payload) {
        Ok(([], class)) => Some(class),
        Ok(_) | Err(_) => None,
    }
}

/// `basic.publish` with another exchange (`forward_to`): routing key and bits as in `payload`.
pub fn publish_to(channel: ChannelId, payload: &[u8], exchange: &[u8]) -> Result<Bytes, WireError> {
    let Publish { exchange: old, .. } = Publish::parse(payload)?;
    // class, method, reserved-1
    with_exchange(channel, payload, 6, old, exchange)
}

/// `basic.return` with another exchange (the way back of `forward_to`).
pub fn return_from(channel: ChannelId, payload: &[u8], exchange: &[u8]) -> Result<Bytes, WireError> {
    let Return { reply_text, exchange: old, .. } = Return::parse(payload)?;
    // class, method, reply-code, length of the reply-text
    with_exchange(channel, payload, 7 + reply_text.len(), old, exchange)
}

fn settle(out: &mut BytesMut, channel: ChannelId, id: MethodId, tag: u64, bits: u8) {
    out.reserve(13 + OVERHEAD);
    out.put_u8(1);
    out.put_u16(channel.0);
    out.put_u32(13);
    out.put_u16(id.0);
    out.put_u16(id.1);
    out.put_u64(tag);
    out.put_u8(bits);
    out.put_u8(FRAME_END);
}

/// A method frame with all octets of `payload` but the exchange `old`, whose length octet stands at `at`.
fn with_exchange(
    channel: ChannelId,
    payload: &[u8],
    at: usize,
    old: &[u8],
    new: &[u8],
) -> Result<Bytes, WireError> {
    let new_len = u8::try_from(new.len()).map_err(|_| WireError::Malformed("exchange over 255 octets"))?;
    let cut = WireError::Malformed("method cut short");
    let before = payload.get(..at).ok_or(cut)?;
    let after = payload.get(at + 1 + old.len()..).ok_or(cut)?;
    let len = before.len() + 1 + new.len() + after.len();
    let size = u32::try_from(len).map_err(|_| WireError::Malformed("method over 4 GiB"))?;

    let mut out = BytesMut::with_capacity(len + OVERHEAD);
    out.put_u8(1);
    out.put_u16(channel.0);
    out.put_u32(size);
    out.put_slice(before);
    out.put_u8(new_len);
    out.put_slice(new);
    out.put_slice(after);
    out.put_u8(FRAME_END);
    Ok(out.freeze())
}

/// How many tables and arrays `payload` can hold at most: places where one's letter and a length stand that fits in
/// what follows. Text hardly ever looks so: no four letters make a length that small.
fn containers(payload: &[u8]) -> usize {
    let fits = |window: &[u8], left: usize| match *window {
        [b'A' | b'F', a, b, c, d] => {
            usize::try_from(u32::from_be_bytes([a, b, c, d])).is_ok_and(|len| len <= left)
        }
        _ => false,
    };
    payload.windows(5).enumerate().filter(|(at, window)| fits(window, payload.len() - at - 5)).count()
}
