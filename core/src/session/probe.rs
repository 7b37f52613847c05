//! Finding out whether a user may publish, without publishing.
//!
//! On a channel of Hapax's own, of the client's own connection, the publishes are put into a transaction that is rolled
//! back. RabbitMQ checks the permission when it receives a publish, and routes nothing before `tx.commit`: `tx.rollback-ok`
//! proves all rights that were asked for. If it refuses one of them it closes the channel, and does not say which it was. Then
//! the halves of the batch are asked again, until one question is alone: it is the one that was refused.
//!
//! An exchange type that remembers messages while it routes them would remember ours. `x-recent-history` is told not to.
//!
//! The answer is waited for as long as the connection lives, as that to any publish is: a broker that is out of memory reads
//! nothing from connections that publish, for as long as that lasts, and the number of our channel can't be used for
//! anything else until the broker has let it go.
//!
//! ```text
//!  Idle --channel.open, tx.select--> Ready --publishes, tx.rollback--> Probing --rollback-ok--> Ready
//!   ^                                  |                                  |
//!   |                                  \--nothing to ask: channel.close--> Closing --close-ok--> Idle
//!   \---------------------------- channel.close: close-ok ----------------/
//! ```

use super::outbox::Lane;
use super::rights::{Question, Right};
use crate::wire::method::MethodId;
use crate::wire::{ChannelId, emit};
use amq_protocol::frame::{AMQPContentHeader, AMQPFrame};
use amq_protocol::protocol::basic::AMQPProperties;
use amq_protocol::protocol::channel::{AMQPMethod as ChannelMethod, Close, CloseOk, Open};
use amq_protocol::protocol::{AMQPClass, tx};
use amq_protocol::types::{AMQPValue, FieldTable};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{HashMap, VecDeque};

/// Questions in one transaction.
const BATCH: usize = 1_024;
/// Questions that are taken from publishes whose turn has not come yet: enough for the next batch.
const AHEAD: usize = BATCH;
/// Bytes of a question with its names and those who wait for it: an estimate.
const QUESTION: usize = 512;
/// NOT_FOUND: there is no such exchange, and the user may write to one of that name.
const NOT_FOUND: u16 = 404;

/// A channel whose next publish waits for a proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asker {
    pub(super) channel: ChannelId,
    /// tells a channel from a later one of the same number
    pub(super) birth: u64,
}

/// What the broker says of one question.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) question: Question,
    pub(super) finding: Finding,
    pub(super) askers: Vec<Asker>,
}

/// What became of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Finding {
    Allowed,
    Refused,
    /// There is no such exchange: that says nothing of the user's rights, and what is published there is refused.
    Missing,
    /// There was no channel to ask on.
    Unasked,
}

#[derive(Debug)]
enum State {
    /// Open, and nothing is asked.
    Ready,
    Probing(Vec<Question>),
    Closing,
}

/// The questions of one connection, and the channel on which they are asked.
#[derive(Debug, Default)]
pub(super) struct Probes {
    queue: VecDeque<Question>,
    /// Parts of a batch of which something was refused.
    again: Vec<Vec<Question>>,
    /// Every question that is not answered, with those who wait for it.
    askers: HashMap<Right, Vec<Asker>>,
    channel: Option<(ChannelId, State)>,
    /// The broker has opened the channel.
    opened: bool,
    /// The last time, there was no channel to ask on.
    gave_up: bool,
}

impl Probes {
    /// `asker` waits for this; nobody does where a question is asked beforehand.
    pub(super) fn ask(&mut self, question: Question, asker: Option<Asker>) {
        let askers = self.askers.entry(question.right).or_insert_with(|| {
            match question.missing {
                // It is never part of a batch: the broker always closes the channel.
                true => self.again.push(vec![question]),
                false => self.queue.push_back(question),
            }
            Vec::new()
        });
        // A channel waits for one publish at a time, so nobody is in here twice in a row.
        askers.extend(asker.filter(|asker| askers.last() != Some(asker)));
    }

    /// Whether questions may be asked beforehand. Where there is no channel, each is answered at once, and those asked
    /// beforehand would be asked again before each publish.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < AHEAD && !self.gave_up
    }

    /// Bytes that the questions take.
    pub(super) fn memory(&self) -> usize {
        self.askers.len() * QUESTION
    }

    /// The channel number that is Hapax's own now.
    pub(super) fn channel(&self) -> Option<ChannelId> {
        self.channel.as_ref().map(|(channel, _)| *channel)
    }

    /// Whether a channel is open for questions, or wanted.
    pub(super) fn is_at_work(&self) -> bool {
        self.channel.is_some() || !self.is_idle()
    }

    /// Whether a question waits for a channel.
    pub(super) fn wants_channel(&self) -> bool {
        self.channel.is_none() && !self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.again.is_empty()
    }

    /// Before anything is asked: drops what nobody waits for any more. `waits` says whether an asker still does. (Where a
    /// channel was closed because of a refusal, all that was asked beforehand for its other publishes would be refused, too.)
    pub(super) fn drop_unwanted(&mut self, waits: impl Fn(&Asker) -> bool) {
        if self.is_idle() || !matches!(self.channel, None | Some((_, State::Ready))) {
            return;
        }
        let askers = &mut self.askers;
        let mut is_wanted = |questions: &[Question]| {
            let wanted =
                |question: &Question| askers.get(&question.right).is_some_and(|all| all.iter().any(&waits));
            let is_wanted = questions.iter().any(wanted);
            if !is_wanted {
                questions.iter().for_each(|question| drop(askers.remove(&question.right)));
            }
            is_wanted
        };
        self.again.retain(|questions| is_wanted(questions));
        if !is_wanted(self.queue.make_contiguous()) {
            self.queue.clear();
        }
    }

    /// Asks on `channel`.
    pub(super) fn start(&mut self, channel: ChannelId, out: &mut Lane) {
        out.push(emit::method(channel, AMQPClass::Channel(ChannelMethod::Open(Open {}))));
        out.push(emit::method(channel, AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {}))));
        self.channel = Some((channel, State::Ready));
        self.opened = false;
        self.gave_up = false;
        self.go_on(out);
    }

    /// Whether the broker has been asked for a channel and has not opened it.
    pub(super) fn is_opening(&self) -> bool {
        self.channel.is_some() && !self.opened
    }

    /// The client has taken all channel numbers: every question that waits for one, with those who wait for its answer.
    pub(super) fn give_up(&mut self) -> Vec<Answer> {
        self.gave_up = true;
        let again = std::mem::take(&mut self.again).into_iter().flatten();
        let questions: Vec<_> = again.chain(std::mem::take(&mut self.queue)).collect();
        self.answer(questions, Finding::Unasked)
    }

    /// A method on our channel.
    pub(super) fn recv(&mut self, payload: &[u8], out: &mut Lane) -> Vec<Answer> {
        let Some((channel, state)) = self.channel.take() else { return Vec::new() };
        self.opened = true;
        match (MethodId::of(payload), state) {
            (Ok(MethodId::TX_ROLLBACK_OK), State::Probing(batch)) => {
                // Who has waited for these answers may have more to ask, see `go_on`.
                self.channel = Some((channel, State::Ready));
                self.answer(batch, Finding::Allowed)
            }
            (Ok(MethodId::CHANNEL_CLOSE), State::Probing(batch)) => {
                out.push(close_ok(channel));
                self.closed(batch, code_of(payload))
            }
            (Ok(MethodId::CHANNEL_CLOSE), State::Ready) => {
                out.push(close_ok(channel));
                Vec::new()
            }
            // Both have closed: the broker's answer to our close still comes.
            (Ok(MethodId::CHANNEL_CLOSE), State::Closing) => {
                out.push(close_ok(channel));
                self.channel = Some((channel, State::Closing));
                Vec::new()
            }
            (Ok(MethodId::CHANNEL_CLOSE_OK), State::Closing) => Vec::new(),
            (_, state) => {
                self.channel = Some((channel, state));
                Vec::new()
            }
        }
    }

    /// Where the channel is open and nothing is asked: the next batch, or the end.
    pub(super) fn go_on(&mut self, out: &mut Lane) {
        let Some((channel, State::Ready)) = self.channel else { return };
        let batch = self.again.pop().unwrap_or_else(|| {
            let count = self.queue.len().min(BATCH);
            self.queue.drain(..count).collect()
        });
        if batch.is_empty() {
            let text = "hapax knows what it wanted to know".into();
            let close = Close { reply_code: 200, reply_text: text, class_id: 0, method_id: 0 };
            out.push(emit::method(channel, AMQPClass::Channel(ChannelMethod::Close(close))));
            self.channel = Some((channel, State::Closing));
            return;
        }
        let mut frames = BytesMut::new();
        let header = header(channel);
        for question in &batch {
            put_publish(&mut frames, channel, question);
            frames.put_slice(&header);
        }
        out.push(frames.freeze());
        out.push(emit::method(channel, AMQPClass::Tx(tx::AMQPMethod::Rollback(tx::Rollback {}))));
        self.channel = Some((channel, State::Probing(batch)));
    }

    /// The broker has refused something of this batch.
    fn closed(&mut self, mut batch: Vec<Question>, code: u16) -> Vec<Answer> {
        if batch.len() > 1 {
            let second = batch.split_off(batch.len() / 2);
            self.again.push(second);
            self.again.push(batch);
            return Vec::new();
        }
        let finding = match (code, batch.first().is_some_and(|question| question.missing)) {
            (NOT_FOUND, true) => Finding::Allowed,
            (NOT_FOUND, false) => Finding::Missing,
            _ => Finding::Refused,
        };
        self.answer(batch, finding)
    }

    fn answer(&mut self, batch: Vec<Question>, finding: Finding) -> Vec<Answer> {
        let answer = |question: Question| {
            let askers = self.askers.remove(&question.right).unwrap_or_default();
            Answer { question, finding, askers }
        };
        batch.into_iter().map(answer).collect()
    }
}

fn close_ok(channel: ChannelId) -> Bytes {
    emit::method(channel, AMQPClass::Channel(ChannelMethod::CloseOk(CloseOk {})))
}

/// The code of a `channel.close`.
fn code_of(payload: &[u8]) -> u16 {
    payload.get(4..).and_then(<[u8]>::first_chunk).map_or(0, |code| u16::from_be_bytes(*code))
}

/// Appends `basic.publish`. Names are bytes, so this is written by hand.
fn put_publish(frames: &mut BytesMut, channel: ChannelId, question: &Question) {
    let mut publish = BytesMut::new();
    publish.put_u16(MethodId::BASIC_PUBLISH.0);
    publish.put_u16(MethodId::BASIC_PUBLISH.1);
    publish.put_u16(0);
    for name in [&question.exchange, &question.routing_key] {
        publish.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
        publish.put_slice(name);
    }
    publish.put_u8(0);
    emit::raw_method(frames, channel, &publish);
}

/// The content header of an empty body.
fn header(channel: ChannelId) -> Bytes {
    let mut headers = FieldTable::default();
    headers.insert("x-recent-history-no-store".into(), AMQPValue::Boolean(true));
    let properties = AMQPProperties::default()
        .with_headers(headers)
        .with_type("hapax: may this user publish? (rolled back)".into());
    let header = AMQPContentHeader { class_id: MethodId::BASIC_PUBLISH.0, body_size: 0, properties };
    emit::frame(&AMQPFrame::Header(channel.0, header))
}
