//! Writes the frames that Hapax itself sends. `ack`, `nack` and heartbeat are on the hot path and are written by hand.
//! All others go through the generators of `amq-protocol`.

use super::frame::{FRAME_END, HEADER_LEN, OVERHEAD};
use super::method::{MethodId, Publish, Return};
use super::{ChannelId, WireError};
use amq_protocol::frame::parsing::parse_content_header;
use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame};
use amq_protocol::protocol::basic::AMQPProperties;
use amq_protocol::protocol::{AMQPClass, confirm, parse_class};
use bytes::{BufMut, Bytes, BytesMut};

/// A heartbeat frame, ready to be sent.
pub const HEARTBEAT: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 0xCE];

/// How deeply the tables and arrays of a method may be nested. `amq-protocol` parses them by recursion, and a stack
/// overflow would end the whole process. In a debug build 400 levels overflow a stack of 2 MiB. That is 2 KB of
/// `connection.start-ok`, from a client that has not logged in yet. Real methods have two levels.
const MAX_NESTING: usize = 64;

/// Appends `basic.ack(tag, multiple)`: 21 octets.
pub fn ack(out: &mut BytesMut, channel: ChannelId, tag: u64, multiple: bool) {
    settle(out, channel, MethodId::BASIC_ACK, tag, u8::from(multiple));
}

/// Appends `basic.nack(tag, multiple = false, requeue = false)`.
pub fn nack(out: &mut BytesMut, channel: ChannelId, tag: u64) {
    settle(out, channel, MethodId::BASIC_NACK, tag, 0);
}

/// Returns any method as a frame, written by `amq-protocol`.
pub fn method(channel: ChannelId, class: AMQPClass) -> Bytes {
    frame(&AMQPFrame::Method(channel.0, class))
}

/// Returns `confirm.select(nowait = true)`. The broker sends no answer to it.
pub fn confirm_select(channel: ChannelId) -> Bytes {
    method(channel, AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: true })))
}

/// Returns any frame, written by `amq-protocol`.
pub fn frame(frame: &AMQPFrame) -> Bytes {
    // A generator only fails when its output is full, and a `Vec` is never full.
    let written = gen_frame(frame)(WriteContext::from(Vec::new()));
    debug_assert!(written.is_ok(), "a Vec took no more: {frame:?}");
    written.map(|context| Bytes::from(context.into_inner().0)).unwrap_or_default()
}

/// Returns a method frame with this payload.
pub fn method_of(channel: ChannelId, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + OVERHEAD);
    raw_method(&mut frame, channel, payload);
    frame.freeze()
}

/// Appends a method frame with this payload.
pub fn raw_method(out: &mut BytesMut, channel: ChannelId, payload: &[u8]) {
    raw(out, 1, channel, payload);
}

/// Appends a body frame.
pub fn body(out: &mut BytesMut, channel: ChannelId, payload: &[u8]) {
    raw(out, 3, channel, payload);
}

/// Appends a `basic.return` method with this code and text. Names of more than 255 octets are cut.
pub fn returned(
    out: &mut BytesMut,
    channel: ChannelId,
    (code, text): (u16, &str),
    exchange: &[u8],
    routing_key: &[u8],
) {
    let MethodId(class, method) = MethodId::BASIC_RETURN;
    let mut payload: Vec<u8> = [class, method, code].iter().flat_map(|short| short.to_be_bytes()).collect();
    [text.as_bytes(), exchange, routing_key].iter().for_each(|name| push_shortstr(&mut payload, name));
    raw_method(out, channel, &payload);
}

/// Appends a content header like this payload, of a message with an empty body.
pub fn header_without_body(out: &mut BytesMut, channel: ChannelId, payload: &[u8]) {
    let begin = out.len() + HEADER_LEN;
    raw(out, 2, channel, payload);
    // The size stands behind the class and the weight.
    if let Some(size) = out.get_mut(begin + 4..begin + 12).filter(|_| payload.len() >= 12) {
        size.fill(0);
    }
}

/// Appends a short string. One of more than 255 octets is cut.
pub(super) fn push_shortstr(payload: &mut Vec<u8>, text: &[u8]) {
    let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
    payload.push(len);
    payload.extend(text.iter().take(usize::from(len)));
}

fn raw(out: &mut BytesMut, kind: u8, channel: ChannelId, payload: &[u8]) {
    out.put_u8(kind);
    out.put_u16(channel.0);
    out.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    out.put_slice(payload);
    out.put_u8(FRAME_END);
}

/// Parses the payload of a method frame with `amq-protocol`. Returns `None` if the class or method is unknown, if the
/// payload is longer or shorter than its fields, if a short string is not UTF-8, or if tables are nested more deeply
/// than [`MAX_NESTING`].
pub fn parse_method(payload: &[u8]) -> Option<AMQPClass> {
    if is_nested_beyond(MAX_NESTING, payload) {
        return None;
    }
    match parse_class(payload) {
        Ok(([], class)) => Some(class),
        Ok(_) | Err(_) => None,
    }
}

/// Parses the payload of a content header of the class basic with `amq-protocol`. Returns `None` where [`parse_method`] would.
pub fn parse_properties(payload: &[u8]) -> Option<AMQPProperties> {
    if is_nested_beyond(MAX_NESTING, payload) {
        return None;
    }
    match parse_content_header(payload) {
        Ok(([], header)) => Some(header.properties),
        Ok(_) | Err(_) => None,
    }
}

/// Returns a `basic.publish` to another exchange (`forward_to`), with the mandatory bit or without it. The rest stays as in
/// `payload`.
pub fn publish_to(
    channel: ChannelId,
    payload: &[u8],
    exchange: &[u8],
    mandatory: bool,
) -> Result<Bytes, WireError> {
    let Publish { exchange: old, .. } = Publish::parse(payload)?;
    // The exchange begins after class, method and reserved-1.
    let mut frame = with_exchange(channel, payload, 6, old, exchange)?;
    set_mandatory(&mut frame, mandatory);
    Ok(frame.freeze())
}

/// Returns the payload of a `basic.publish` without bits. Names of more than 255 octets are cut.
pub fn publish_payload(exchange: &[u8], routing_key: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(9 + exchange.len() + routing_key.len());
    let MethodId(class, method) = MethodId::BASIC_PUBLISH;
    payload.extend([class, method, 0].iter().flat_map(|short| short.to_be_bytes()));
    push_shortstr(&mut payload, exchange);
    push_shortstr(&mut payload, routing_key);
    payload.push(0);
    payload
}

/// Appends the frame of a `basic.publish`, with the mandatory bit or without it.
pub fn publish_as(out: &mut BytesMut, frame: &[u8], mandatory: bool) {
    out.extend_from_slice(frame);
    set_mandatory(out, mandatory);
}

/// Sets the mandatory bit of the `basic.publish` whose frame ends here, or takes it away.
pub fn set_mandatory(frame: &mut [u8], mandatory: bool) {
    // The bits stand before the octet that ends the frame.
    if let Some(bits) = frame.len().checked_sub(2).and_then(|at| frame.get_mut(at)) {
        *bits = *bits & !Publish::MANDATORY | u8::from(mandatory);
    }
}

/// Returns a `basic.return` from another exchange (the way back of `forward_to`).
pub fn return_from(channel: ChannelId, payload: &[u8], exchange: &[u8]) -> Result<Bytes, WireError> {
    let Return { reply_text, exchange: old, .. } = Return::parse(payload)?;
    // The exchange begins after class, method, reply-code, the length of the reply-text, and the reply-text.
    with_exchange(channel, payload, 7 + reply_text.len(), old, exchange).map(BytesMut::freeze)
}

/// Appends `basic.ack`, `basic.nack` or `basic.reject` with this tag and these bits.
pub fn settle(out: &mut BytesMut, channel: ChannelId, id: MethodId, tag: u64, bits: u8) {
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

/// Returns a method frame like `payload`, but with the exchange `new` instead of `old`. The length octet of `old` is
/// at `at`.
fn with_exchange(
    channel: ChannelId,
    payload: &[u8],
    at: usize,
    old: &[u8],
    new: &[u8],
) -> Result<BytesMut, WireError> {
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
    Ok(out)
}

/// Returns true if tables and arrays may be nested more deeply than `max`. It does not parse the method: it counts
/// every letter of a table or an array that a length follows which fits in the rest of the payload. Text is almost
/// never counted, because four letters read as a length are far too large a number.
fn is_nested_beyond(max: usize, payload: &[u8]) -> bool {
    let mut open_ends = Vec::new();
    for (at, window) in payload.windows(5).enumerate() {
        let &[b'A' | b'F', a, b, c, d] = window else { continue };
        let Ok(len) = usize::try_from(u32::from_be_bytes([a, b, c, d])) else { continue };
        let begin = at + window.len();
        if len > payload.len() - begin {
            continue;
        }
        open_ends.retain(|&end| end > at);
        open_ends.push(begin + len);
        if open_ends.len() > max {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::protocol::basic::{self, AMQPMethod};
    use amq_protocol::protocol::{connection, queue};
    use amq_protocol::types::{AMQPValue, FieldTable};

    const CHANNEL: ChannelId = ChannelId(0x0102);

    #[test]
    fn acks_and_nacks_are_what_the_generators_write() {
        for (tag, multiple) in [(1, false), (0x0102_0304_0506_0708, true), (u64::MAX, false)] {
            let mut out = BytesMut::from(&b"before"[..]);
            ack(&mut out, CHANNEL, tag, multiple);
            let expected = AMQPMethod::Ack(basic::Ack { delivery_tag: tag, multiple });
            assert_eq!(out.split_off(6), method(CHANNEL, AMQPClass::Basic(expected)));
            assert_eq!(out, &b"before"[..]);

            let mut out = BytesMut::new();
            nack(&mut out, CHANNEL, tag);
            let expected = basic::Nack { delivery_tag: tag, multiple: false, requeue: false };
            assert_eq!(out, method(CHANNEL, AMQPClass::Basic(AMQPMethod::Nack(expected))));
        }
    }

    #[test]
    fn a_method_comes_back_as_it_went() {
        let tune = connection::TuneOk { channel_max: 7, frame_max: 131_072, heartbeat: 60 };
        let class = AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune));
        let frame = method(ChannelId::CONNECTION, class.clone());
        assert_eq!(&frame[..], b"\x01\0\0\0\0\0\x0c\0\x0a\0\x1f\0\x07\0\x02\0\0\0\x3c\xce");
        assert_eq!(parse_method(frame.get(7..19).unwrap_or_default()), Some(class));
    }

    #[test]
    fn what_is_not_known_or_not_whole_is_none() {
        assert_eq!(parse_method(b""), None);
        assert_eq!(parse_method(b"\0\x3c\x03\xe7"), None, "no such method");
        assert_eq!(parse_method(b"\0\x5a\0\x0b"), Some(parsed_select_ok()));
        assert_eq!(parse_method(b"\0\x5a\0\x0b\0"), None, "octets left over");
        assert_eq!(parse_method(b"\0\x0a\0\x28\x02\xff\xfe\0\0"), None, "a vhost that is no text");
    }

    fn parsed_select_ok() -> AMQPClass {
        AMQPClass::Tx(amq_protocol::protocol::tx::AMQPMethod::SelectOk(Default::default()))
    }

    /// Returns a `queue.declare` with an argument of arrays inside arrays.
    fn declare_nested(depth: usize) -> Vec<u8> {
        let nested = (0..depth).fold(Vec::new(), |inner, _| {
            [&[b'A'][..], &u32::try_from(inner.len()).unwrap_or_default().to_be_bytes(), &inner].concat()
        });
        let table = [b"\x01n", &nested[..]].concat();
        let len = u32::try_from(table.len()).unwrap_or_default();
        [b"\0\x32\0\x0a\0\0\x01q\0", &len.to_be_bytes()[..], &table].concat()
    }

    #[test]
    fn a_method_nested_beyond_reason_does_not_overflow_the_stack() {
        assert!(parse_method(&declare_nested(MAX_NESTING)).is_some());
        assert_eq!(parse_method(&declare_nested(MAX_NESTING + 1)), None);
        assert_eq!(parse_method(&declare_nested(25_000)), None, "as deep as 128 KiB go");
    }

    #[test]
    fn tables_beside_each_other_are_not_nested() {
        let value = AMQPValue::FieldArray(vec![AMQPValue::FieldTable(FieldTable::default()); 1000].into());
        let mut arguments = FieldTable::default();
        arguments.insert("wide".into(), value);
        let declare = queue::Declare { queue: "q".into(), arguments, ..Default::default() };
        let class = AMQPClass::Queue(queue::AMQPMethod::Declare(declare));
        let frame = method(CHANNEL, class.clone());
        let payload = frame.get(7..frame.len() - 1).unwrap_or_default();
        assert_eq!(parse_method(payload), Some(class));
    }

    #[test]
    fn text_is_not_taken_for_tables() {
        let name = "FA".repeat(127);
        let declare = queue::Declare { queue: name.as_str().into(), ..Default::default() };
        let class = AMQPClass::Queue(queue::AMQPMethod::Declare(declare));
        let frame = method(CHANNEL, class.clone());
        let payload = frame.get(7..frame.len() - 1).unwrap_or_default();
        assert_eq!(parse_method(payload), Some(class));
    }

    #[test]
    fn another_exchange_leaves_all_else_as_it_was() {
        // Reserved octets and unused bits are kept, although no client sets them.
        let publish = b"\x00\x3c\x00\x28\x12\x34\x02ex\x03key\xf3";
        for (exchange, expected) in [
            (&b"other"[..], &b"\x01\x01\x02\0\0\0\x11\x00\x3c\x00\x28\x12\x34\x05other\x03key\xf3\xce"[..]),
            (b"", b"\x01\x01\x02\0\0\0\x0c\x00\x3c\x00\x28\x12\x34\x00\x03key\xf3\xce"),
        ] {
            assert_eq!(publish_to(CHANNEL, publish, exchange, true).as_deref(), Ok(expected));
        }
        let returned = b"\x00\x3c\x00\x32\x01\x38\x08NO_ROUTE\x02ex\x03key";
        let expected = b"\x01\x01\x02\0\0\0\x19\x00\x3c\x00\x32\x01\x38\x08NO_ROUTE\x05other\x03key\xce";
        assert_eq!(return_from(CHANNEL, returned, b"other").as_deref(), Ok(&expected[..]));
    }

    #[test]
    fn a_return_has_the_names_as_they_were_and_a_header_may_lose_its_body() {
        let mut out = BytesMut::new();
        returned(&mut out, CHANNEL, (319, "DUPLICATE"), b"e\xff", b"key");
        let expected = b"\x01\x01\x02\0\0\0\x17\0\x3c\0\x32\x01\x3f\x09DUPLICATE\x02e\xff\x03key\xce";
        assert_eq!(&out[..], &expected[..]);
        let mut out = BytesMut::from(&b"before"[..]);
        header_without_body(&mut out, CHANNEL, b"\0\x3c\0\0\0\0\0\0\0\0\x01\x02\x80\0\x01t");
        let expected = b"\x02\x01\x02\0\0\0\x10\0\x3c\0\0\0\0\0\0\0\0\0\0\x80\0\x01t\xce";
        assert_eq!(out.split_off(6), &expected[..]);
    }

    #[test]
    fn an_exchange_has_255_octets_at_most() {
        let publish = b"\x00\x3c\x00\x28\0\0\0\0\0";
        assert!(publish_to(CHANNEL, publish, &[b'x'; 255], true).is_ok());
        assert!(matches!(publish_to(CHANNEL, publish, &[b'x'; 256], true), Err(WireError::Malformed(_))));
        assert!(matches!(publish_to(CHANNEL, b"\x00\x3c", b"", true), Err(WireError::Malformed(_))));
    }
}
