//! The frame DSL: AMQP frames that can be written in a line, compared, and read in a failing assertion.
//!
//! Everything here is [`Frames`], a list of frames that adds up with `+`:
//!
//! ```ignore
//! assert_eq!(pair.to_upstream(), channel_open(1) + message("x", "k").id("a").body("hello").publish(1));
//! ```
//!
//! Bytes are made and read by `amq-protocol`, never by Hapax's own wire code: this is the other opinion. Methods are in
//! [`super::methods`].

use amq_protocol::frame::{
    AMQPContentHeader, AMQPFrame, ProtocolVersion, WriteContext, gen_frame, parse_frame,
};
use amq_protocol::protocol::{AMQPClass, BasicProperties, basic};
use amq_protocol::types::{AMQPValue, ShortString};
use bytes::{Buf, BytesMut};
use std::fmt;
use std::ops::{Add, AddAssign};

/// The largest frame that [`Message`] cuts bodies into, unless told otherwise: what RabbitMQ offers.
pub const FRAME_MAX: usize = 131_072;
/// Octets that a frame takes beside its payload.
pub const OVERHEAD: usize = 8;

/// One frame. Its `Debug` is one readable line.
#[derive(Clone, PartialEq)]
pub struct Frame(pub AMQPFrame);

/// Some frames, in order.
#[derive(Clone, PartialEq, Default)]
pub struct Frames(pub Vec<Frame>);

impl Frame {
    /// The channel; 0 for the connection.
    pub fn channel(&self) -> u16 {
        self.0.channel_id()
    }

    /// The method, where it is one.
    pub fn method(&self) -> Option<&AMQPClass> {
        match &self.0 {
            AMQPFrame::Method(_, class) => Some(class),
            _ => None,
        }
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let context = WriteContext::from(Vec::with_capacity(64));
        let (bytes, _) = gen_frame(&self.0)(context).expect("a frame can be written").into_inner();
        bytes
    }
}

impl From<Frame> for Frames {
    fn from(frame: Frame) -> Frames {
        Frames(vec![frame])
    }
}

impl Frames {
    /// None.
    pub fn none() -> Frames {
        Frames::default()
    }

    /// A method.
    pub fn method(channel: u16, class: AMQPClass) -> Frames {
        Frame(AMQPFrame::Method(channel, class)).into()
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Vec<u8> {
        self.0.iter().flat_map(Frame::encode).collect()
    }

    /// The frames of whole bytes; panics where they are no AMQP or end amid a frame.
    pub fn parse(bytes: &[u8]) -> Frames {
        let mut reader = Reader::default();
        reader.feed(bytes);
        let frames = reader.frames().expect("these bytes are AMQP");
        assert_eq!(reader.pending(), 0, "the bytes end amid a frame, after {frames:?}");
        frames
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Those of one channel.
    pub fn on(&self, channel: u16) -> Frames {
        Frames(self.0.iter().filter(|frame| frame.channel() == channel).cloned().collect())
    }

    /// Without heartbeats.
    pub fn without_heartbeats(self) -> Frames {
        Frames(self.0.into_iter().filter(|frame| frame.0 != AMQPFrame::Heartbeat).collect())
    }
}

impl Add for Frames {
    type Output = Frames;
    fn add(mut self, more: Frames) -> Frames {
        self.0.extend(more.0);
        self
    }
}

impl AddAssign for Frames {
    fn add_assign(&mut self, more: Frames) {
        self.0.extend(more.0);
    }
}

impl IntoIterator for Frames {
    type Item = Frame;
    type IntoIter = std::vec::IntoIter<Frame>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Takes frames out of a stream of bytes as they become whole.
#[derive(Debug, Default)]
pub struct Reader {
    buf: BytesMut,
}

impl Reader {
    /// More bytes have come.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Bytes that are not a whole frame yet.
    pub fn pending(&self) -> usize {
        self.buf.len()
    }

    /// The next frame, `None` while it is not all there, and what is wrong with it where it is no AMQP.
    pub fn frame(&mut self) -> Result<Option<Frame>, String> {
        let len = match *self.buf {
            [b'A', ..] => 8,
            [_, _, _, a, b, c, d, ..] => OVERHEAD + u32::from_be_bytes([a, b, c, d]) as usize,
            _ => return Ok(None),
        };
        let Some(bytes) = self.buf.get(..len) else { return Ok(None) };
        match parse_frame(bytes) {
            Ok(([], frame)) => {
                self.buf.advance(len);
                Ok(Some(Frame(frame)))
            }
            Ok((rest, frame)) => Err(format!("{} bytes are left in {:?}", rest.len(), Frame(frame))),
            Err(error) => Err(format!("{error} in {}", hex(bytes))),
        }
    }

    /// All that are whole.
    pub fn frames(&mut self) -> Result<Frames, String> {
        let mut frames = Frames::none();
        while let Some(frame) = self.frame()? {
            frames.0.push(frame);
        }
        Ok(frames)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(64).map(|byte| format!("{byte:02x}")).collect()
}

/// A message: what is published, returned or delivered. Built by [`message`].
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    exchange: String,
    routing_key: String,
    mandatory: bool,
    immediate: bool,
    properties: BasicProperties,
    body: Vec<u8>,
    frame_size: usize,
}

/// A message to an exchange with a routing key, no properties, an empty body.
pub fn message(exchange: &str, routing_key: &str) -> Message {
    Message {
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        mandatory: false,
        immediate: false,
        properties: BasicProperties::default(),
        body: Vec::new(),
        frame_size: FRAME_MAX,
    }
}

impl Message {
    /// The `message-id` property.
    pub fn id(mut self, id: &str) -> Message {
        self.properties = self.properties.with_message_id(id.into());
        self
    }

    /// The `correlation-id` property.
    pub fn correlation(mut self, id: &str) -> Message {
        self.properties = self.properties.with_correlation_id(id.into());
        self
    }

    /// The `app-id` property.
    pub fn app(mut self, id: &str) -> Message {
        self.properties = self.properties.with_app_id(id.into());
        self
    }

    /// The `expiration` property.
    pub fn expiration(mut self, text: &str) -> Message {
        self.properties = self.properties.with_expiration(text.into());
        self
    }

    /// An entry of the `headers` table.
    pub fn header(mut self, name: &str, value: AMQPValue) -> Message {
        let mut table = self.properties.headers().clone().unwrap_or_default();
        table.insert(name.into(), value);
        self.properties = self.properties.with_headers(table);
        self
    }

    /// `x-hapax-bypass: true`.
    pub fn bypass(self) -> Message {
        self.header("x-hapax-bypass", AMQPValue::Boolean(true))
    }

    /// `x-cache-ttl`, in milliseconds.
    pub fn ttl_ms(self, ms: u32) -> Message {
        self.header("x-cache-ttl", AMQPValue::LongUInt(ms))
    }

    /// All properties at once.
    pub fn properties(mut self, properties: BasicProperties) -> Message {
        self.properties = properties;
        self
    }

    /// The body.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Message {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Return it if it can't be routed.
    pub fn mandatory(mut self) -> Message {
        self.mandatory = true;
        self
    }

    /// The bit that RabbitMQ does not support.
    pub fn immediate(mut self) -> Message {
        self.immediate = true;
        self
    }

    /// Cuts the body into frames of at most `size` octets, including their overhead.
    pub fn frame_size(mut self, size: usize) -> Message {
        assert!(size > OVERHEAD, "a body frame carries something");
        self.frame_size = size;
        self
    }

    /// As a client publishes it.
    pub fn publish(&self, channel: u16) -> Frames {
        self.after(
            channel,
            basic::AMQPMethod::Publish(basic::Publish {
                exchange: self.exchange.as_str().into(),
                routing_key: self.routing_key.as_str().into(),
                mandatory: self.mandatory,
                immediate: self.immediate,
            }),
        )
    }

    /// As the broker returns it: 312 NO_ROUTE.
    pub fn returned(&self, channel: u16) -> Frames {
        self.after(
            channel,
            basic::AMQPMethod::Return(basic::Return {
                reply_code: 312,
                reply_text: "NO_ROUTE".into(),
                exchange: self.exchange.as_str().into(),
                routing_key: self.routing_key.as_str().into(),
            }),
        )
    }

    /// The message as a broker delivers it that has delivered it before.
    pub fn redelivered(&self, channel: u16, consumer: &str, delivery_tag: u64) -> Frames {
        self.after(
            channel,
            basic::AMQPMethod::Deliver(basic::Deliver {
                consumer_tag: consumer.into(),
                delivery_tag,
                redelivered: true,
                exchange: self.exchange.as_str().into(),
                routing_key: self.routing_key.as_str().into(),
            }),
        )
    }

    /// As Hapax returns it because it is a duplicate: 319 DUPLICATE.
    pub fn told(&self, channel: u16) -> Frames {
        self.after(
            channel,
            basic::AMQPMethod::Return(basic::Return {
                reply_code: 319,
                reply_text: "DUPLICATE".into(),
                exchange: self.exchange.as_str().into(),
                routing_key: self.routing_key.as_str().into(),
            }),
        )
    }

    /// As the broker delivers it to a consumer.
    pub fn deliver(&self, channel: u16, consumer: &str, delivery_tag: u64) -> Frames {
        self.after(
            channel,
            basic::AMQPMethod::Deliver(basic::Deliver {
                consumer_tag: consumer.into(),
                delivery_tag,
                redelivered: false,
                exchange: self.exchange.as_str().into(),
                routing_key: self.routing_key.as_str().into(),
            }),
        )
    }

    /// The same where the exchange has sent it on from another one.
    pub fn deliver_from(mut self, exchange: &str, channel: u16, consumer: &str, delivery_tag: u64) -> Frames {
        self.exchange = exchange.into();
        self.deliver(channel, consumer, delivery_tag)
    }

    /// As the broker answers `basic.get` with it.
    pub fn get_ok(&self, channel: u16, delivery_tag: u64) -> Frames {
        self.after(
            channel,
            basic::AMQPMethod::GetOk(basic::GetOk {
                delivery_tag,
                redelivered: false,
                exchange: self.exchange.as_str().into(),
                routing_key: self.routing_key.as_str().into(),
                message_count: 3,
            }),
        )
    }

    /// The header and body frames, after the method that they belong to.
    fn after(&self, channel: u16, method: basic::AMQPMethod) -> Frames {
        let header = AMQPContentHeader {
            class_id: 60,
            body_size: self.body.len() as u64,
            properties: self.properties.clone(),
        };
        let mut frames = Frames::method(channel, AMQPClass::Basic(method));
        frames.0.push(Frame(AMQPFrame::Header(channel, header)));
        let pieces = self.body.chunks(self.frame_size - OVERHEAD);
        frames.0.extend(pieces.map(|piece| Frame(AMQPFrame::Body(channel, piece.to_vec()))));
        frames
    }
}

/// The protocol header, `AMQP 0 0 9 1`.
pub fn protocol_header() -> Frames {
    Frame(AMQPFrame::ProtocolHeader(ProtocolVersion::amqp_0_9_1())).into()
}

/// A heartbeat.
pub fn heartbeat() -> Frames {
    Frame(AMQPFrame::Heartbeat).into()
}

/// A body frame by itself.
pub fn body(channel: u16, bytes: &[u8]) -> Frames {
    Frame(AMQPFrame::Body(channel, bytes.to_vec())).into()
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [] => write!(f, "(no frames)"),
            frames => frames.iter().try_for_each(|frame| write!(f, "\n    {frame:?}")),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} ", self.channel())?;
        match &self.0 {
            AMQPFrame::ProtocolHeader(version) => write!(f, "AMQP {version}"),
            AMQPFrame::Heartbeat | AMQPFrame::InvalidHeartbeat(_) => write!(f, "heartbeat"),
            AMQPFrame::Header(_, header) => {
                write!(f, "header size={}", header.body_size)?;
                let none = BasicProperties::default();
                let p = &header.properties;
                let named = [("id", p.message_id()), ("app", p.app_id()), ("expires", p.expiration())];
                named.iter().try_for_each(|(name, value)| match value {
                    Some(value) => write!(f, " {name}={value}"),
                    None => Ok(()),
                })?;
                match p.headers() {
                    Some(table) => table.inner().iter().try_for_each(|(name, value)| match value {
                        AMQPValue::LongString(text) => write!(f, " {name}={text}"),
                        value => write!(f, " {name}={value:?}"),
                    }),
                    None if *p == none => write!(f, " (no properties)"),
                    None => Ok(()),
                }
            }
            AMQPFrame::Body(_, bytes) if bytes.len() <= 32 => {
                write!(f, "body {:?}", String::from_utf8_lossy(bytes))
            }
            AMQPFrame::Body(_, bytes) => write!(f, "body of {} bytes", bytes.len()),
            AMQPFrame::Method(_, class) => f.write_str(&super::methods::describe(class)),
        }
    }
}

/// Short strings of a test are short.
pub fn short(text: &str) -> ShortString {
    ShortString::from(text)
}
