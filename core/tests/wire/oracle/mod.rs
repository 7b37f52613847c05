//! Compares our views of octets with what `amq-protocol`, the oracle, reads in the same octets. The property tests
//! (`core/tests/wire`) and the fuzz targets (`fuzz/fuzz_targets/`) share these checks.
//!
//! The oracle decodes and allocates, and it knows no ids. Where it and RabbitMQ differ, Hapax does what RabbitMQ does,
//! and the check here spells out the difference.

#![allow(dead_code, reason = "each of the users needs its own part")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "that is how a check fails")]

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, parse_frame, parsing::parse_content_header};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::AMQPMethod;
use amq_protocol::types::AMQPValue;
use amq_protocol::types::parsing::{parse_long_string, parse_long_uint, parse_short_string, parse_value};
use hapax_core::wire::frame::OVERHEAD;
use hapax_core::wire::method::{MethodId, Publish, Return, Settle};
use hapax_core::wire::properties::IdValue;
use hapax_core::wire::{ContentHeader, Frame, FrameKind, IdSource, WireError, emit, scan};

/// The oracle reads tables by recursion and would overflow its stack; our code does not. Octets that may hold more
/// tables and arrays than this are not given to the oracle.
const ORACLE_MAX_CONTAINERS: usize = 64;

/// Returns true if the oracle can safely read `octets`.
pub(crate) fn is_shallow(octets: &[u8]) -> bool {
    let containers = octets.windows(2).filter(|window| matches!(window, [b'A' | b'F', 0..=1]));
    containers.count() <= ORACLE_MAX_CONTAINERS
}

/// Compares how we and the oracle read the first frame of `buf`. Returns the octets that the frame took, if there is
/// one.
pub(crate) fn check_first_frame(buf: &[u8], max: usize) -> Option<usize> {
    let ours = scan(buf, max);
    let declared = buf.get(3..7).map(|size| u32::from_be_bytes(size.try_into().unwrap()) as usize + OVERHEAD);
    let kind_known = buf.first().is_none_or(|kind| [1, 2, 3, 8].contains(kind));
    // These rules are RabbitMQ's. The oracle does not know them.
    match ours {
        Err(WireError::TooLarge { len, .. }) => {
            assert!(len > max && declared == Some(len));
            return None;
        }
        Err(WireError::UnknownKind { kind: 8, .. }) => {
            assert!(declared > Some(OVERHEAD), "an empty heartbeat was refused");
            return None;
        }
        Err(WireError::UnknownKind { .. }) => {
            assert!(!kind_known && buf.len() >= 3);
            return None;
        }
        Ok(None) if !kind_known => {
            assert!(buf.len() < 3);
            return None;
        }
        Ok(_) | Err(WireError::BadEnd { .. } | WireError::Malformed(_)) => {}
    }
    assert!(declared.is_none_or(|declared| declared <= max), "a frame over {max} octets was taken");
    if !is_shallow(buf) {
        return ours.ok().flatten().map(|frame| frame.wire_len());
    }
    match (ours, parse_frame(buf)) {
        (Ok(Some(frame)), Ok((rest, parsed))) => {
            assert_eq!(frame.wire_len(), buf.len() - rest.len());
            check_frame(&frame, &parsed);
            Some(frame.wire_len())
        }
        // We see a whole frame, but the oracle refuses its payload.
        (Ok(Some(frame)), Err(error)) => {
            assert!(!error.is_incomplete(), "a frame was seen before it was whole: {frame:?}");
            assert!(matches!(frame.kind, FrameKind::Method | FrameKind::Header), "{frame:?}");
            look_at(&frame);
            Some(frame.wire_len())
        }
        (Ok(None), Err(error)) => {
            assert!(error.is_incomplete(), "waiting for more where there is an error: {error:?}");
            None
        }
        (Err(WireError::BadEnd { got, .. }), Err(error)) => {
            assert!(!error.is_incomplete());
            assert_eq!(Some(got), declared.and_then(|declared| buf.get(declared - 1).copied()));
            None
        }
        (ours, theirs) => panic!("we say {ours:?}, the oracle {theirs:?}"),
    }
}

/// Compares our view of a frame with the oracle's.
pub(crate) fn check_frame(frame: &Frame<'_>, parsed: &AMQPFrame) {
    assert_eq!(frame.channel.0, parsed.channel_id());
    match (frame.kind, parsed) {
        (FrameKind::Method, AMQPFrame::Method(_, class)) => check_method(frame.payload, class),
        (FrameKind::Header, AMQPFrame::Header(_, header)) => check_header(frame.payload, header),
        (FrameKind::Body, AMQPFrame::Body(_, body)) => assert_eq!(frame.payload, body),
        (FrameKind::Heartbeat, AMQPFrame::Heartbeat | AMQPFrame::InvalidHeartbeat(_)) => {
            assert!(frame.payload.is_empty());
        }
        (kind, parsed) => panic!("we say {kind:?}, the oracle {parsed:?}"),
    }
}

/// Reads everything that we can read of a frame that the oracle refuses. Nothing may panic.
pub(crate) fn look_at(frame: &Frame<'_>) {
    let payload = frame.payload;
    let _ = MethodId::of(payload);
    let _ = Publish::parse(payload);
    let _ = Return::parse(payload);
    let _ = Settle::parse(payload);
    let _ = emit::parse_method(payload);
    let _ = emit::publish_to(frame.channel, payload, b"other", true);
    let _ = emit::return_from(frame.channel, payload, b"other");
    for source in sources(&["id"]) {
        let _ = ContentHeader::parse(payload, &source);
    }
}

fn check_method(payload: &[u8], class: &AMQPClass) {
    let id = MethodId(class.get_amqp_class_id(), class.get_amqp_method_id());
    assert_eq!(MethodId::of(payload), Ok(id));
    assert_eq!(emit::parse_method(payload).as_ref().map(debug), Some(debug(class)));
    let AMQPClass::Basic(method) = class else { return };
    match method {
        AMQPMethod::Publish(publish) => {
            let expected = Publish {
                exchange: publish.exchange.as_str().as_bytes(),
                routing_key: publish.routing_key.as_str().as_bytes(),
                mandatory: publish.mandatory,
                immediate: publish.immediate,
            };
            assert_eq!(id, MethodId::BASIC_PUBLISH);
            assert_eq!(Publish::parse(payload), Ok(expected));
        }
        AMQPMethod::Return(returned) => {
            let expected = Return {
                reply_code: returned.reply_code,
                reply_text: returned.reply_text.as_str().as_bytes(),
                exchange: returned.exchange.as_str().as_bytes(),
                routing_key: returned.routing_key.as_str().as_bytes(),
            };
            assert_eq!(id, MethodId::BASIC_RETURN);
            assert_eq!(Return::parse(payload), Ok(expected));
        }
        AMQPMethod::Ack(ack) => {
            assert_eq!(id, MethodId::BASIC_ACK);
            let expected = Settle { tag: ack.delivery_tag, multiple: ack.multiple };
            assert_eq!(Settle::parse(payload), Ok(expected));
        }
        AMQPMethod::Nack(nack) => {
            assert_eq!(id, MethodId::BASIC_NACK);
            let expected = Settle { tag: nack.delivery_tag, multiple: nack.multiple };
            assert_eq!(Settle::parse(payload), Ok(expected));
        }
        AMQPMethod::Deliver(_) => assert_eq!(id, MethodId::BASIC_DELIVER),
        AMQPMethod::GetOk(_) => assert_eq!(id, MethodId::BASIC_GET_OK),
        _ => {}
    }
}

/// Returns the text of a method, to compare methods by: NaN is not equal to itself, but its text is.
fn debug(class: &AMQPClass) -> String {
    format!("{class:?}")
}

/// Compares how we and the oracle read any octets as the payload of a content header.
pub(crate) fn check_header_payload(payload: &[u8]) {
    if is_shallow(payload)
        && let Ok(([], header)) = parse_content_header(payload)
    {
        check_header(payload, &header);
    } else {
        for source in sources(&["id"]) {
            let _ = ContentHeader::parse(payload, &source);
        }
    }
}

fn sources<'a>(names: &'a [&str]) -> impl Iterator<Item = IdSource> + 'a {
    let headers = names.iter().map(|&name| IdSource::Header(name.into()));
    [IdSource::MessageId, IdSource::CorrelationId, IdSource::Body].into_iter().chain(headers)
}

fn check_header(payload: &[u8], parsed: &AMQPContentHeader) {
    assert_eq!(ContentHeader::size_of(payload), Ok((parsed.class_id, parsed.body_size)));
    let flags = u16::from_be_bytes(payload.get(12..14).unwrap().try_into().unwrap());
    // The oracle knows neither other classes nor continuation words.
    if parsed.class_id != 60 || flags & 1 != 0 {
        for source in sources(&["id"]) {
            let _ = ContentHeader::parse(payload, &source);
        }
        return;
    }
    let properties = &parsed.properties;
    let entries = entries(payload, flags);
    // Check our own reading of the table first: as a map it must have as many entries as the oracle's.
    let in_map = properties.headers().as_ref().map_or(0, |table| table.inner().len());
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), in_map);

    let message_id = properties.message_id().as_ref().map(|id| id.as_str().as_bytes());
    let correlation_id = properties.correlation_id().as_ref().map(|id| id.as_str().as_bytes());
    let first = |name: &str| entries.iter().find(|entry| entry.name == name);
    let cache_ttl_ms = first("x-cache-ttl").and_then(|entry| milliseconds(&entry.value));
    let bypass = first("x-hapax-bypass").is_some_and(|entry| entry.value == AMQPValue::Boolean(true));

    names.extend(["id", "x-cache-ttl", "x-hapax-bypass", ""]);
    for source in sources(&names) {
        let id = match &source {
            IdSource::MessageId => message_id.map(IdValue::Bytes),
            IdSource::CorrelationId => correlation_id.map(IdValue::Bytes),
            IdSource::Header(name) => first(name).map(HeaderEntry::id_value),
            IdSource::Body => None,
        };
        let id = id.filter(|id| !matches!(id, IdValue::Bytes([]) | IdValue::Other(b'V', _)));
        let expected = ContentHeader {
            class: parsed.class_id,
            body_size: parsed.body_size,
            id,
            message_id,
            cache_ttl_ms,
            bypass,
        };
        assert_eq!(ContentHeader::parse(payload, &source), Ok(expected), "{source:?}");
    }
}

/// One entry of a headers table. The oracle's map keeps the last entry of a name, but RabbitMQ looks at the first.
/// Therefore the entries are read one by one with the oracle's parsers.
struct HeaderEntry<'a> {
    name: String,
    value: AMQPValue,
    /// the value's octets, beginning with the letter of its type
    raw: &'a [u8],
}

impl<'a> HeaderEntry<'a> {
    fn id_value(&self) -> IdValue<'a> {
        let (&tag, raw) = self.raw.split_first().unwrap();
        match self.value {
            AMQPValue::ShortShortInt(value) => IdValue::Integer(value.into()),
            AMQPValue::ShortShortUInt(value) => IdValue::Integer(value.into()),
            AMQPValue::ShortInt(value) => IdValue::Integer(value.into()),
            AMQPValue::ShortUInt(value) => IdValue::Integer(value.into()),
            AMQPValue::LongInt(value) => IdValue::Integer(value.into()),
            AMQPValue::LongUInt(value) => IdValue::Integer(value.into()),
            AMQPValue::LongLongInt(value) => IdValue::Integer(value.into()),
            AMQPValue::Timestamp(value) => IdValue::Integer(value.into()),
            AMQPValue::LongString(_) | AMQPValue::ByteArray(_) => IdValue::Bytes(raw.get(4..).unwrap()),
            AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) => IdValue::Other(tag, raw.get(4..).unwrap()),
            _ => IdValue::Other(tag, raw),
        }
    }
}

fn milliseconds(value: &AMQPValue) -> Option<u64> {
    match *value {
        AMQPValue::ShortShortInt(value) => value.try_into().ok(),
        AMQPValue::ShortShortUInt(value) => Some(value.into()),
        AMQPValue::ShortInt(value) => value.try_into().ok(),
        AMQPValue::ShortUInt(value) => Some(value.into()),
        AMQPValue::LongInt(value) => value.try_into().ok(),
        AMQPValue::LongUInt(value) => Some(value.into()),
        AMQPValue::LongLongInt(value) => value.try_into().ok(),
        _ => None,
    }
}

/// Returns the headers table of a content header that the oracle has accepted.
fn entries(payload: &[u8], flags: u16) -> Vec<HeaderEntry<'_>> {
    let mut rest = payload.get(14..).unwrap();
    for bit in [15, 14] {
        if flags & 1 << bit != 0 {
            (rest, _) = parse_short_string(rest).unwrap();
        }
    }
    if flags & 1 << 13 == 0 {
        return Vec::new();
    }
    let (after_len, len) = parse_long_uint(rest).unwrap();
    parse_long_string(rest).unwrap();
    let mut table = after_len.get(..len as usize).unwrap();
    let mut entries = Vec::new();
    while !table.is_empty() {
        let (at_value, name) = parse_short_string(table).unwrap();
        let (next, value) = parse_value(at_value).unwrap();
        let raw = at_value.get(..at_value.len() - next.len()).unwrap();
        entries.push(HeaderEntry { name: name.to_string(), value, raw });
        table = next;
    }
    entries
}
