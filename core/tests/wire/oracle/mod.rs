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
use amq_protocol::types::parsing::{parse_long_string, parse_long_uint, parse_short_string, parse_value};
use amq_protocol::types::{AMQPValue, DecimalValue};
use hapax_core::wire::frame::OVERHEAD;
use hapax_core::wire::method::{MethodId, Publish, Return, Settle};
use hapax_core::wire::properties::IdValue;
use hapax_core::wire::{BadHeader, ContentHeader, Frame, FrameKind, IdPart, IdSource, WireError, emit, scan};

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
    let parts = IdSource::Parts([IdPart::MessageId, IdPart::Header("id".into())].into());
    [IdSource::MessageId, IdSource::CorrelationId, IdSource::Body, parts].into_iter().chain(headers)
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
    let ttl = first("x-cache-ttl").map(|entry| milliseconds(&entry.value));
    let bypass = first("x-hapax-bypass").map_or(Some(false), |entry| truth(&entry.value));
    let special = ["x-death", "CC", "BCC"].into_iter().any(|name| first(name).is_some());
    let is_part =
        |name: &str| first(name).map(HeaderEntry::id_value).filter(|id| *id != IdValue::Other(b'V', b""));

    names.extend(["id", "x-cache-ttl", "x-hapax-bypass", ""]);
    for source in sources(&names) {
        let id = match &source {
            IdSource::MessageId => message_id.map(IdValue::Bytes),
            IdSource::CorrelationId => correlation_id.map(IdValue::Bytes),
            IdSource::Header(name) => first(name).map(HeaderEntry::id_value),
            IdSource::Parts(_) => message_id.map(IdValue::Bytes),
            IdSource::Sequence => first("x-hapax-sequence").map(HeaderEntry::id_value),
            IdSource::Body => None,
        };
        let id = id.filter(|id| !matches!(id, IdValue::Bytes([]) | IdValue::Other(b'V', _)));
        let found = ContentHeader::parse(payload, &source).unwrap();
        let plain = (found.class, found.body_size, found.id, found.message_id);
        assert_eq!(plain, (parsed.class_id, parsed.body_size, id, message_id), "{source:?}");
        assert_eq!(found.bad.contains(BadHeader::Bypass), bypass.is_none());
        assert_eq!(found.bypass, bypass == Some(true));
        let found_ttl = (found.cache_ttl_ms, found.bad.contains(BadHeader::CacheTtl));
        assert!(fits(ttl, found_ttl), "{ttl:?} {found_ttl:?}");
        assert_eq!(found.is_special(), special);
        assert_eq!(found.extra_keys(), extra_keys(&first));
        let death =
            found.death().map(|death| death.map(|death| (death.queue.to_vec(), death.reason.to_vec())));
        assert_eq!(death, newest_death(first("x-death")));
        for name in ["id", "x-death", "nowhere"] {
            assert_eq!(found.part(&IdPart::Header(name.into())), is_part(name));
        }
    }
}

/// Returns the routing keys in `CC` and `BCC` as a sorted set.
fn extra_keys<'a>(first: &impl Fn(&str) -> Option<&'a HeaderEntry<'a>>) -> Result<Vec<&'a [u8]>, BadHeader> {
    let mut keys = std::collections::BTreeSet::new();
    for (name, bad) in [("CC", BadHeader::Cc), ("BCC", BadHeader::Bcc)] {
        match first(name).map(|entry| &entry.value) {
            None => {}
            Some(AMQPValue::FieldArray(values)) => {
                keys.extend(values.as_slice().iter().filter_map(|value| match value {
                    AMQPValue::LongString(key) => Some(key.as_bytes()),
                    _ => None,
                }));
            }
            Some(_) => return Err(bad),
        }
    }
    Ok(keys.into_iter().collect())
}

/// The entries that every death has.
type QueueAndReason = (Vec<u8>, Vec<u8>);

/// Returns the queue and the reason of the newest death.
fn newest_death(entry: Option<&HeaderEntry<'_>>) -> Result<Option<QueueAndReason>, BadHeader> {
    let Some(HeaderEntry { value, raw, .. }) = entry else { return Ok(None) };
    let deaths = match value {
        AMQPValue::Void => return Ok(None),
        AMQPValue::FieldArray(deaths) => deaths.as_slice(),
        _ => return Err(BadHeader::Death),
    };
    match deaths.first() {
        None => return Ok(None),
        Some(AMQPValue::FieldTable(_)) => {}
        Some(_) => return Err(BadHeader::Death),
    }
    // The array's letter and length, then the first table's.
    let (_, table) = parse_long_string(raw.get(6..).unwrap()).unwrap();
    let fields = table_entries(table.as_bytes());
    let field = |name: &str| {
        let field = fields.iter().find(|field| field.name == name).map(HeaderEntry::id_value);
        field.filter(|value| !matches!(value, IdValue::Bytes([]) | IdValue::Other(b'V', _)))
    };
    match (field("queue"), field("reason"), field("count").or(field("time"))) {
        (Some(IdValue::Bytes(queue)), Some(IdValue::Bytes(reason)), Some(_)) => {
            Ok(Some((queue.to_vec(), reason.to_vec())))
        }
        _ => Err(BadHeader::Death),
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

/// The TTL that a value means.
#[derive(Clone, Copy, Debug)]
enum Ttl {
    Absent,
    Bad,
    Milliseconds(u64),
    /// a text with a number and something else: the tests of the forms have these
    Text,
}

fn milliseconds(value: &AMQPValue) -> Ttl {
    let text = match value {
        AMQPValue::Void => return Ttl::Absent,
        AMQPValue::LongString(text) => text.as_bytes(),
        AMQPValue::ByteArray(text) => text.as_slice(),
        AMQPValue::Timestamp(_) => return Ttl::Bad,
        other => {
            let value = integer(other).and_then(|value| u64::try_from(value).ok());
            return value.map_or(Ttl::Bad, Ttl::Milliseconds);
        }
    };
    let digits = text.iter().filter(|octet| octet.is_ascii_digit()).count();
    match digits {
        0 => Ttl::Bad,
        1..=19 if digits == text.len() => {
            Ttl::Milliseconds(std::str::from_utf8(text).unwrap().parse().unwrap())
        }
        _ => Ttl::Text,
    }
}

/// Returns true if a TTL was read as it has to be. `found`: the TTL, and whether it was bad.
fn fits(ttl: Option<Ttl>, found: (Option<u64>, bool)) -> bool {
    match ttl {
        None | Some(Ttl::Absent) => found == (None, false),
        Some(Ttl::Bad) => found == (None, true),
        Some(Ttl::Milliseconds(value)) => found == (Some(value), false),
        Some(Ttl::Text) => found.0.is_none() == found.1,
    }
}

fn truth(value: &AMQPValue) -> Option<bool> {
    let text = match value {
        AMQPValue::Void => return Some(false),
        AMQPValue::Boolean(value) => return Some(*value),
        AMQPValue::LongString(text) => text.as_bytes(),
        AMQPValue::ByteArray(text) => text.as_slice(),
        AMQPValue::Timestamp(_) => return None,
        other => return integer(other).filter(|value| [0, 1].contains(value)).map(|value| value == 1),
    };
    match text.trim_ascii().to_ascii_lowercase().as_slice() {
        b"true" | b"yes" | b"on" | b"1" | b"y" => Some(true),
        b"false" | b"no" | b"off" | b"0" | b"n" | b"" => Some(false),
        _ => None,
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the bound is far below")]
fn integer(value: &AMQPValue) -> Option<i128> {
    let whole = |value: f64| {
        (value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0).then_some(value as i128)
    };
    match *value {
        AMQPValue::ShortShortInt(value) => Some(value.into()),
        AMQPValue::ShortShortUInt(value) => Some(value.into()),
        AMQPValue::ShortInt(value) => Some(value.into()),
        AMQPValue::ShortUInt(value) => Some(value.into()),
        AMQPValue::LongInt(value) => Some(value.into()),
        AMQPValue::LongUInt(value) => Some(value.into()),
        AMQPValue::LongLongInt(value) => Some(value.into()),
        AMQPValue::Float(value) => whole(value.into()),
        AMQPValue::Double(value) => whole(value),
        AMQPValue::DecimalValue(DecimalValue { scale, value }) => {
            let mut unit = Some(1_u32);
            for _ in 0..scale {
                unit = unit.and_then(|unit| unit.checked_mul(10));
            }
            match unit {
                Some(unit) if value % unit == 0 => Some((value / unit).into()),
                _ => (value == 0).then_some(0),
            }
        }
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
    table_entries(after_len.get(..len as usize).unwrap())
}

/// Returns the entries of a table.
fn table_entries(mut table: &[u8]) -> Vec<HeaderEntry<'_>> {
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
