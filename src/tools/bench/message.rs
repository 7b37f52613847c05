//! The messages of a load: their frames, made once.

use super::ids::{COUNTER_LEN, ID_LEN};
use super::numbers::{self, Producers};
use super::outlet::Template;
use amq_protocol::frame::{AMQPContentHeader, AMQPFrame};
use amq_protocol::protocol::{AMQPClass, basic};
use amq_protocol::types::{AMQPValue, FieldTable, LongString, ShortString};
use hapax_core::wire::ChannelId;
use hapax_core::wire::emit;
use hapax_core::wire::frame::OVERHEAD;

/// `basic`.
const CLASS: u16 = 60;

/// The size of a message and of its headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// octets of the body
    pub size: usize,
    /// entries of the headers table, 22 octets each
    pub headers: usize,
    /// delivery-mode 2 instead of 1
    pub persistent: bool,
    /// to be returned where no queue takes it
    pub mandatory: bool,
    /// who numbers them, if anybody does
    pub producers: Option<Producers>,
}

impl Default for Shape {
    /// 256 octets, 10 headers, transient.
    fn default() -> Shape {
        Shape { size: 256, headers: 10, persistent: false, mandatory: false, producers: None }
    }
}

/// A publish on channel 1; patched is the second half of its message-id.
pub(super) fn publish(
    shape: &Shape,
    exchange: &str,
    routing_key: &str,
    run: u64,
    frame_max: u32,
) -> Template {
    let publish = basic::Publish {
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        mandatory: shape.mandatory,
        immediate: false,
    };
    let mut bytes = method(basic::AMQPMethod::Publish(publish));
    let id = first_id(run);
    bytes.extend(content(shape, &id, frame_max));
    let at = counter_in(&bytes, &id);
    Template { bytes, at }
}

/// The id with which the counter of a run begins.
fn first_id(run: u64) -> String {
    format!("{run:016x}{:016x}", 0)
}

/// Where the counter of this id stands in a message.
fn counter_in(bytes: &[u8], id: &str) -> usize {
    let id_at = bytes.windows(ID_LEN).position(|window| window == id.as_bytes()).unwrap_or_default();
    id_at + ID_LEN - COUNTER_LEN
}

/// Octets of a publish to a queue of our own, with all its frames.
pub(super) fn wire_len(shape: &Shape) -> usize {
    publish(shape, "", &queue_name(0), 0, 0).bytes.len()
}

/// The queue of our own in this run.
pub(super) fn queue_name(run: u64) -> String {
    format!("hapax-bench-{run:016x}")
}

/// A delivery on this channel to this consumer; patched is its delivery-tag, eight octets. Returned beside it is where the second half of
/// its message-id stands.
pub(super) fn deliver(
    shape: &Shape,
    channel: ChannelId,
    consumer: &str,
    run: u64,
    frame_max: u32,
) -> (Template, usize) {
    let deliver = basic::Deliver {
        consumer_tag: consumer.into(),
        delivery_tag: 0,
        redelivered: false,
        exchange: "".into(),
        routing_key: "hapax-bench".into(),
    };
    let mut bytes = emit::method(channel, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))).to_vec();
    let id = first_id(run);
    bytes.extend(on(channel, content(shape, &id, frame_max)));
    let counter = counter_in(&bytes, &id);
    // type, channel, size; class, method; the tag's length and the tag
    (Template { bytes, at: 7 + 4 + 1 + consumer.len() }, counter)
}

fn method(method: basic::AMQPMethod) -> Vec<u8> {
    emit::method(ChannelId(1), AMQPClass::Basic(method)).to_vec()
}

/// Header and body frames on channel 1.
fn content(shape: &Shape, id: &str, frame_max: u32) -> Vec<u8> {
    let mut headers = FieldTable::default();
    for number in 0..shape.headers {
        let value = LongString::from(format!("v-{number:06}"));
        headers.insert(ShortString::from(format!("bench-{number:02}")), AMQPValue::LongString(value));
    }
    for (name, value) in shape.producers.into_iter().flat_map(|producers| numbers::headers(producers.epoch)) {
        headers.insert(name.into(), value);
    }
    let properties = basic::AMQPProperties::default()
        .with_message_id(id.into())
        .with_delivery_mode(if shape.persistent { 2 } else { 1 })
        .with_headers(headers);
    let header = AMQPContentHeader { class_id: CLASS, body_size: shape.size as u64, properties };
    let mut bytes = emit::frame(&AMQPFrame::Header(1, header)).to_vec();
    let frame_max = if frame_max == 0 { usize::MAX } else { frame_max as usize };
    let body = vec![b'x'; shape.size];
    for part in body.chunks(frame_max.saturating_sub(OVERHEAD).max(1)) {
        bytes.extend_from_slice(&emit::frame(&AMQPFrame::Body(1, part.to_vec())));
    }
    bytes
}

/// The same frames on another channel.
fn on(channel: ChannelId, mut frames: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Ok(Some(frame)) = hapax_core::wire::scan(frames.get(at..).unwrap_or_default(), usize::MAX) {
        let len = frame.wire_len();
        if let Some(number) = frames.get_mut(at + 1..at + 3) {
            number.copy_from_slice(&channel.0.to_be_bytes());
        }
        at += len;
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use hapax_core::wire::{FrameKind, scan};

    fn frames(mut bytes: &[u8]) -> Vec<(FrameKind, u16, usize)> {
        let mut frames = Vec::new();
        while let Some(frame) = scan(bytes, usize::MAX).unwrap() {
            frames.push((frame.kind, frame.channel.0, frame.payload.len()));
            bytes = &bytes[frame.wire_len()..];
        }
        assert!(bytes.is_empty());
        frames
    }

    #[test]
    fn a_publish_has_its_id_where_it_is_patched() {
        let template = publish(&Shape::default(), "", "queue", 0xabcd, 131_072);
        assert_eq!(&template.bytes[template.at - 16..template.at + 16], b"000000000000abcd0000000000000000");
        assert_eq!(frames(&template.bytes).len(), 3);
        assert_eq!(frames(&template.bytes)[2], (FrameKind::Body, 1, 256));
    }

    #[test]
    fn a_publish_has_its_producer_and_its_number_where_they_are_patched() {
        let producers = Some(Producers { count: 7, epoch: 5 });
        let template = publish(&Shape { producers, ..Shape::default() }, "", "queue", 1, 131_072);
        let at = numbers::NumbersAt::find(&template).unwrap();
        assert_eq!(&template.bytes[at.producer - 11..at.producer + 8], b"S\0\0\0\x0ebench-00000000");
        assert_eq!(&template.bytes[at.number - 1..at.number + 8], b"l\0\0\0\0\0\0\0\0");
        assert_eq!(numbers::NumbersAt::find(&publish(&Shape::default(), "", "queue", 1, 131_072)), None);
    }

    #[test]
    fn a_body_is_split_by_what_was_agreed() {
        let shape = Shape { size: 10_000, ..Shape::default() };
        let sizes: Vec<usize> =
            frames(&publish(&shape, "", "q", 1, 4096).bytes)[2..].iter().map(|f| f.2).collect();
        assert_eq!(sizes, [4088, 4088, 1824]);
        let empty = publish(&Shape { size: 0, ..Shape::default() }, "", "q", 1, 4096);
        assert_eq!(frames(&empty.bytes).len(), 2, "no body, no body frame");
    }

    #[test]
    fn a_delivery_has_its_tag_where_it_is_patched() {
        let (mut template, counter) = deliver(&Shape::default(), ChannelId(7), "consumer", 0xabcd, 131_072);
        assert_eq!(&template.bytes[counter - 16..counter + 16], b"000000000000abcd0000000000000000");
        template.bytes[template.at..template.at + 8].copy_from_slice(&258_u64.to_be_bytes());
        let frame = scan(&template.bytes, usize::MAX).unwrap().unwrap();
        let Some(AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))) = emit::parse_method(frame.payload)
        else {
            panic!("no delivery")
        };
        assert_eq!((deliver.delivery_tag, deliver.consumer_tag.as_str()), (258, "consumer"));
        assert!(frames(&template.bytes).iter().all(|frame| frame.1 == 7));
    }
}
