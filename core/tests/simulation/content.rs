//! Makes the messages of a run, and assembles messages from their frames.

use super::plan::{MILLI, Micros};
use super::truth::{EXCHANGES, Publish, ROUTING_KEYS, Truth, Uid, What};
use crate::support::frames::{Frame, Message, message};
use amq_protocol::frame::{AMQPContentHeader, AMQPFrame};
use amq_protocol::protocol::{AMQPClass, basic};
use amq_protocol::types::{AMQPValue, FieldTable, LongString};
use hapax_core::wire::Death;
use hapax_core::wire::properties::IdValue;

/// The bytes of a body: each publish has its own.
pub fn body(uid: Uid, len: usize) -> Vec<u8> {
    (0..len).map(|at| (uid as usize).wrapping_mul(31).wrapping_add(at).to_le_bytes()[0]).collect()
}

/// The body that is an id.
pub fn body_of_id(id: u32) -> Vec<u8> {
    let text = format!("id-{id};");
    text.bytes().cycle().take(text.len() + id as usize % 40).collect()
}

/// The body of a publish.
pub fn body_of(uid: Uid, p: &Publish) -> Vec<u8> {
    match p.what.id {
        Some(id) if p.by_body => body_of_id(id),
        Some(id) if p.edition.is_some() => body(id * 4 + p.edition.unwrap_or_default(), p.len),
        _ => body(uid, p.len),
    }
}

/// The id as the client writes it. An odd id is an incarnation of the even one before it: the same id, and a death. The truth
/// knows only the numbers, so it counts two ids where the wire has one.
pub fn text_of(id: u32) -> String {
    format!("id-{}", without_death(id))
}

/// The ids of two epochs are this far apart.
pub const EPOCH: u32 = 100_000;
/// The last epoch.
pub const EPOCHS: u32 = 9;

/// An id as a producer counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counted {
    /// the name of the producer
    pub producer: String,
    /// how often it had begun anew
    pub epoch: u32,
    /// the number
    pub number: u32,
}

/// The same id as a producer and its number. The ids that clients share are those of three producers. The ids that a client makes are its
/// own numbers, which have no gaps: a window knows all of them.
pub fn counted(id: u32) -> Counted {
    let (client, own) = (id / 1_000_000, id % 1_000_000);
    let (epoch, at) = (own / EPOCH, without_death(own % EPOCH) / 2);
    match client {
        0 => Counted { producer: format!("p{}", at % 3), epoch, number: at / 3 },
        _ => Counted { producer: format!("c{client}"), epoch, number: at },
    }
}

/// The even id of an incarnation.
pub fn without_death(id: u32) -> u32 {
    id & !1
}

/// The death of an odd id, unless the id is the body.
pub fn death_of(id: u32) -> Option<Death<'static>> {
    let (count, time) = (Some(IdValue::Integer(1)), Some(IdValue::Integer(7)));
    let death = Death { queue: b"q", reason: b"expired", count, time, exchange: None, routing_keys: None };
    (id % 2 == 1).then_some(death)
}

/// `x-death` of an odd id, with an older death behind the newest.
fn x_death() -> AMQPValue {
    let death = |queue: &str, time| {
        let mut table = FieldTable::default();
        table.insert("count".into(), AMQPValue::LongLongInt(1));
        table.insert("queue".into(), AMQPValue::LongString(queue.into()));
        table.insert("reason".into(), AMQPValue::LongString("expired".into()));
        table.insert("time".into(), AMQPValue::Timestamp(time));
        AMQPValue::FieldTable(table)
    };
    AMQPValue::FieldArray(vec![death("q", 7), death("older", 3)].into())
}

/// The message of a publish. Its id stands in `message-id` and in a header, so that both kinds of windows find it. Where the
/// window looks at the header, `message-id` may say the same for all, or nothing.
pub fn compose(uid: Uid, p: &Publish) -> Message {
    let What { exchange, routing_key, id } = p.what;
    let mut message = message(EXCHANGES[exchange], ROUTING_KEYS[routing_key]);
    if p.alike {
        return message.mandatory().body(body_of(uid, p));
    }
    message = message.app(&format!("u{uid}"));
    if let Some(id) = id {
        if death_of(id).is_some() && !p.by_body {
            message = message.header("x-death", x_death());
        }
        let Counted { producer, epoch, number } = counted(id);
        message = message.header("x-hapax-producer", AMQPValue::LongString(producer.as_str().into()));
        if epoch > 0 {
            message = message.header("x-hapax-epoch", AMQPValue::LongLongInt(epoch.into()));
        }
        message = message.header(
            "x-hapax-sequence",
            match uid % 2 {
                0 => AMQPValue::LongUInt(number),
                _ => AMQPValue::LongString(number.to_string().into()),
            },
        );
        let id = if p.by_body { format!("id-{id}") } else { text_of(id) };
        let value: LongString = id.as_str().into();
        message = message.header("x-dedup", AMQPValue::LongString(value));
        message = match uid % 3 {
            0 if p.by_header => message.id("same"),
            1 if p.by_header => message,
            _ => message.id(&id),
        };
    }
    if p.bypass {
        message = match uid % 3 {
            0 => message.header("x-hapax-bypass", AMQPValue::LongString("true".into())),
            1 => message.header("x-hapax-bypass", AMQPValue::LongInt(1)),
            _ => message.bypass(),
        };
    }
    if let Some(ttl) = p.ttl {
        let ttl = u32::try_from(ttl / MILLI).expect("a short ttl");
        message = match uid % 3 {
            0 => message.header("x-cache-ttl", AMQPValue::LongString(format!("{ttl}ms").into())),
            1 => message.header("x-cache-ttl", AMQPValue::Double(ttl.into())),
            _ => message.ttl_ms(ttl),
        };
    }
    if p.mandatory {
        message = message.mandatory();
    }
    message.body(body_of(uid, p))
}

/// The publish that a header belongs to. Hapax's own probes and the broker's deliveries have none.
pub fn uid_of(header: &AMQPContentHeader) -> Option<Uid> {
    header.properties.app_id().as_ref()?.as_str().strip_prefix('u')?.parse().ok()
}

/// The id that is a body.
fn id_of_body(body: &[u8]) -> Option<u32> {
    let text = body.strip_prefix(b"id-")?.split(|octet| *octet == b';').next()?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A message whose frames have all come.
#[derive(Clone, Debug)]
pub struct Whole {
    /// publish, return or deliver
    pub method: basic::AMQPMethod,
    /// its header
    pub header: AMQPContentHeader,
    /// its body
    pub body: Vec<u8>,
}

impl Whole {
    /// The publish that it is, or is the return of.
    pub fn uid(&self, truth: &Truth) -> Option<Uid> {
        uid_of(&self.header).or_else(|| truth.alike(id_of_body(&self.body)?))
    }
}

/// Assembles the frames of one channel. The tap has already found frames that are out of order.
#[derive(Debug, Default)]
pub struct Assembler(Option<(basic::AMQPMethod, Option<AMQPContentHeader>, Vec<u8>)>);

impl Assembler {
    /// A frame of the channel; `Some` when it completes a message.
    pub fn frame(&mut self, frame: &Frame) -> Option<Whole> {
        match (&frame.0, &mut self.0) {
            (AMQPFrame::Method(_, AMQPClass::Basic(method)), slot) => {
                *slot = Some((method.clone(), None, Vec::new()));
            }
            (AMQPFrame::Header(_, header), Some((_, slot, _))) => *slot = Some(header.clone()),
            (AMQPFrame::Body(_, bytes), Some((_, _, body))) => body.extend_from_slice(bytes),
            _ => return None,
        }
        let complete =
            matches!(&self.0, Some((_, Some(header), body)) if body.len() as u64 >= header.body_size);
        let (method, header, body) = self.0.take_if(|_| complete)?;
        Some(Whole { method, header: header?, body })
    }

    /// Whether a message has begun and not ended.
    pub fn is_amid(&self) -> bool {
        self.0.as_ref().is_some_and(|(method, ..)| matches!(method, basic::AMQPMethod::Publish(_)))
    }
}

/// How long a probe's expiration may be and still be a number.
pub fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A distance in time, for people.
pub fn human(at: Micros) -> String {
    format!("{}.{:06}s", at / 1_000_000, at % 1_000_000)
}
