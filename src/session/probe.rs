//! Finding out whether a user may publish, without publishing.
//!
//! On a channel of Hapax's own, of the client's own connection, a publish with an `expiration` that is no number is
//! refused by RabbitMQ with 403 (ACCESS_REFUSED) before the permission check is passed and with 404 (NOT_FOUND) or
//! 406 (PRECONDITION_FAILED) after it, and routes nothing. 406 is the proof; anything else is the broker's own answer to the client's
//! publish and is passed on.
//!
//! The answer is waited for as long as the connection lives, as that to any publish is: a broker that is out of memory reads
//! nothing from connections that publish, for as long as that lasts, and the number of our channel can't be used for
//! anything else until the broker has let it go.
//!
//! ```text
//!  Idle --ask--> channel.open, basic.publish, header --> Asking --channel.close--> close-ok, verdict --> Idle
//! ```

use super::confirms::ClientTag;
use super::fault::Fault;
use super::outbox::Lane;
use crate::window::Key;
use crate::wire::method::MethodId;
use crate::wire::{ChannelId, emit};
use amq_protocol::frame::{AMQPContentHeader, AMQPFrame};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic::AMQPProperties;
use amq_protocol::protocol::channel::{AMQPMethod as ChannelMethod, CloseOk, Open};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{HashMap, VecDeque};

/// PRECONDITION_FAILED: what a publish with a bad expiration earns once it may publish.
const REFUSED_FOR_ITS_EXPIRATION: u16 = 406;

/// Who waits for the proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asker {
    pub(super) channel: ChannelId,
    /// tells a channel from a later one of the same number
    pub(super) birth: u64,
    pub(super) client: Option<ClientTag>,
}

#[derive(Debug)]
struct Question {
    right: Key,
    exchange: Box<[u8]>,
    routing_key: Box<[u8]>,
}

/// The proof, or the broker's refusal, and who had asked.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) right: Key,
    pub(super) askers: Vec<Asker>,
    pub(super) refused: Option<Fault>,
}

/// One probe at a time for each connection.
#[derive(Debug, Default)]
pub(super) struct Probes {
    queue: VecDeque<Question>,
    askers: HashMap<Key, Vec<Asker>>,
    asking: Option<(ChannelId, Key)>,
}

impl Probes {
    /// `asker` wants to know whether `right` holds: the right to publish to `exchange` with `routing_key`. Whether it will
    /// be told: of those without a tag one stands for all of its channel.
    pub(super) fn ask(&mut self, right: Key, exchange: &[u8], routing_key: &[u8], asker: Asker) -> bool {
        let askers = self.askers.entry(right).or_default();
        if askers.is_empty() {
            self.queue.push_back(Question {
                right,
                exchange: exchange.into(),
                routing_key: routing_key.into(),
            });
        }
        let counts = asker.client.is_some() || !askers.contains(&asker);
        if counts {
            askers.push(asker);
        }
        counts
    }

    /// The channel number that is Hapax's own now.
    pub(super) fn channel(&self) -> Option<ChannelId> {
        self.asking.map(|(channel, _)| channel)
    }

    /// Whether a question waits for a channel.
    pub(super) fn wants_channel(&self) -> bool {
        self.asking.is_none() && !self.queue.is_empty()
    }

    /// Asks the next question on `channel`, or gives up where the client has taken all numbers.
    pub(super) fn start(&mut self, channel: Option<ChannelId>, out: &mut Lane) -> Option<Answer> {
        let question = self.queue.pop_front()?;
        let Some(channel) = channel else {
            let text =
                "CHANNEL_ERROR - hapax has no channel number left to verify that this user may publish";
            return Some(self.answer(question.right, Some(Fault::Broker { code: 504, text: text.into() })));
        };
        out.push(emit::method(channel, AMQPClass::Channel(ChannelMethod::Open(Open {}))));
        out.push(probe(channel, &question));
        self.asking = Some((channel, question.right));
        None
    }

    /// A frame on our channel.
    pub(super) fn recv(&mut self, payload: &[u8], out: &mut Lane) -> Option<Answer> {
        let (channel, right) = self.asking?;
        if MethodId::of(payload) != Ok(MethodId::CHANNEL_CLOSE) {
            return None;
        }
        let (code, text) = reason(payload);
        out.push(emit::method(channel, AMQPClass::Channel(ChannelMethod::CloseOk(CloseOk {}))));
        self.asking = None;
        let refused = (code != REFUSED_FOR_ITS_EXPIRATION).then_some(Fault::Broker { code, text });
        Some(self.answer(right, refused))
    }

    fn answer(&mut self, right: Key, refused: Option<Fault>) -> Answer {
        Answer { right, askers: self.askers.remove(&right).unwrap_or_default(), refused }
    }
}

/// Code and text of a `channel.close`. The text quotes names as the client gave them, and they need not be UTF-8.
fn reason(payload: &[u8]) -> (u16, Box<str>) {
    let code =
        payload.get(4..6).map_or(0, |code| code.iter().fold(0, |code, &octet| code << 8 | u16::from(octet)));
    let len = payload.get(6).copied().map_or(0, usize::from);
    let text = payload.get(7..7 + len).unwrap_or_default();
    (code, String::from_utf8_lossy(text).into())
}

/// `basic.publish` with its content header and an empty body. Names are bytes, so this is written by hand.
fn probe(channel: ChannelId, question: &Question) -> Bytes {
    let mut publish = BytesMut::new();
    publish.put_u16(MethodId::BASIC_PUBLISH.0);
    publish.put_u16(MethodId::BASIC_PUBLISH.1);
    publish.put_u16(0);
    for name in [&question.exchange, &question.routing_key] {
        publish.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
        publish.put_slice(name);
    }
    publish.put_u8(0);
    let properties = AMQPProperties::default().with_expiration("hapax: may this user publish?".into());
    let header = AMQPContentHeader { class_id: MethodId::BASIC_PUBLISH.0, body_size: 0, properties };
    let mut bytes = BytesMut::new();
    emit::raw_method(&mut bytes, channel, &publish);
    bytes.put_slice(&emit::frame(&AMQPFrame::Header(channel.0, header)));
    bytes.freeze()
}
