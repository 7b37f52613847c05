//! Finds out whether a user may publish somewhere, without publishing.
//!
//! Hapax opens a channel of its own on the client's upstream connection, and publishes there in a transaction that it rolls
//! back. RabbitMQ checks the permission when it receives a publish, and routes nothing before `tx.commit`. Therefore
//! `tx.rollback-ok` proves all rights that were asked for. If RabbitMQ refuses one of them, it closes the channel and does
//! not say which one it was, but for its text, which names the exchange and, for topics, the routing key. If none of the
//! questions fits the text, Hapax asks each half of the batch again, until a batch has one question: that one was refused.
//!
//! An exchange that keeps messages while it routes them would keep these. A header tells `x-recent-history` not to.
//!
//! Hapax waits for the answer as long as the connection lives, as it does for the answer to any publish. A broker that is
//! short of memory reads nothing from connections that publish, perhaps for long, and the number of Hapax's channel can't be
//! used for anything else until the broker has closed it.
//!
//! ```text
//!  Idle --channel.open, tx.select--> Ready --publishes, tx.rollback--> Probing --rollback-ok--> Ready
//!   ^                                  |                                  |
//!   |                                  \--nothing to ask: channel.close--> Closing --close-ok--> Idle
//!   \---------------------------- channel.close: close-ok ----------------/
//! ```

use super::blame::Blame;
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
/// Questions that are asked for publishes whose turn has not come yet: enough for the next batch.
const AHEAD: usize = BATCH;
/// Bytes of a question, with its names and the channels that wait for it: an estimate.
const QUESTION: usize = 512;
/// NOT_FOUND: the user may write to an exchange of that name, but there is none.
const NOT_FOUND: u16 = 404;

/// A channel whose next publish waits for a proof.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asker {
    pub(super) channel: ChannelId,
    /// tells a channel from a later one of the same number
    pub(super) birth: u64,
}

/// The broker's answer to one question.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) question: Question,
    pub(super) finding: Finding,
    pub(super) askers: Vec<Asker>,
}

/// The result of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Finding {
    /// The user may publish there.
    Allowed,
    /// The user may not publish there.
    Refused,
    /// There is no such exchange. That tells nothing of the user's rights, and the broker refuses publishes there.
    Missing,
    /// Nothing: there was no channel to ask on.
    Unasked,
}

#[derive(Debug)]
enum State {
    /// The channel is open, and nothing is asked.
    Ready,
    /// These questions were asked.
    Probing(Vec<Question>),
    /// `channel.close` was sent.
    Closing,
}

/// The questions of one connection, and the channel on which they are asked.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// Questions that were not asked yet.
    queue: VecDeque<Question>,
    /// Parts of a batch in which a question was refused.
    again: Vec<Vec<Question>>,
    /// Every question that is not answered, and the channels that wait for it.
    askers: HashMap<Right, Vec<Asker>>,
    /// Hapax's own channel.
    channel: Option<(ChannelId, State)>,
    /// The broker has opened the channel.
    opened: bool,
    /// There was no channel to ask on when one was wanted last.
    gave_up: bool,
}

impl Probes {
    /// Adds a question that `asker` waits for. It is `None` if the question is asked before its publish has its turn.
    pub(super) fn ask(&mut self, question: Question, asker: Option<Asker>) {
        let askers = self.askers.entry(question.right).or_insert_with(|| {
            match question.missing {
                // It is a batch of its own, because the broker always closes the channel.
                true => self.again.push(vec![question]),
                false => self.queue.push_back(question),
            }
            Vec::new()
        });
        // A channel waits for one publish at a time. Do not add it twice in a row.
        askers.extend(asker.filter(|asker| askers.last() != Some(asker)));
    }

    /// Returns true if questions may be asked before their publish has its turn. If there was no channel to ask on, all
    /// questions are given up at once, and would have to be asked again for each publish.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < AHEAD && !self.gave_up
    }

    /// Returns the bytes that the questions take.
    pub(super) fn memory(&self) -> usize {
        self.askers.len() * QUESTION
    }

    /// Returns the number of Hapax's own channel, if it is open.
    pub(super) fn channel(&self) -> Option<ChannelId> {
        self.channel.as_ref().map(|(channel, _)| *channel)
    }

    /// Returns true if a channel is open for questions, or wanted.
    pub(super) fn is_at_work(&self) -> bool {
        self.channel.is_some() || !self.is_idle()
    }

    /// Returns true if a question waits for a channel.
    pub(super) fn wants_channel(&self) -> bool {
        self.channel.is_none() && !self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.again.is_empty()
    }

    /// Drops the questions that no channel waits for any more, before anything is asked. `waits` tells whether an asker still
    /// waits. (If a channel was closed because a publish was refused, the questions for its other publishes are of no use.)
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

    /// Opens `channel` and asks on it.
    pub(super) fn start(&mut self, channel: ChannelId, out: &mut Lane) {
        out.push(emit::method(channel, AMQPClass::Channel(ChannelMethod::Open(Open {}))));
        out.push(emit::method(channel, AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {}))));
        self.channel = Some((channel, State::Ready));
        self.opened = false;
        self.gave_up = false;
        self.go_on(out);
    }

    /// Returns true if the broker has not answered `channel.open` yet.
    pub(super) fn is_opening(&self) -> bool {
        self.channel.is_some() && !self.opened
    }

    /// Gives up all questions that wait for a channel, because the client uses all channel numbers. Returns them as unasked.
    pub(super) fn give_up(&mut self) -> Vec<Answer> {
        self.gave_up = true;
        let again = std::mem::take(&mut self.again).into_iter().flatten();
        let questions: Vec<_> = again.chain(std::mem::take(&mut self.queue)).collect();
        self.answer(questions, Finding::Unasked)
    }

    /// Handles a method of the broker on Hapax's own channel. Returns the answers in it.
    pub(super) fn recv(&mut self, payload: &[u8], out: &mut Lane) -> Vec<Answer> {
        let Some((channel, state)) = self.channel.take() else { return Vec::new() };
        self.opened = true;
        match (MethodId::of(payload), state) {
            (Ok(MethodId::TX_ROLLBACK_OK), State::Probing(batch)) => {
                // The channels that have waited for these answers may have more to ask, see `go_on`.
                self.channel = Some((channel, State::Ready));
                self.answer(batch, Finding::Allowed)
            }
            (Ok(MethodId::CHANNEL_CLOSE), State::Probing(batch)) => {
                out.push(close_ok(channel));
                self.closed(batch, payload)
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

    /// Asks the next batch, or closes the channel if there is none. Does nothing while a batch is being asked.
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
            // Names may be any bytes, so this does not use the protocol library.
            let publish = emit::publish_payload(&question.exchange, &question.routing_key);
            emit::raw_method(&mut frames, channel, &publish);
            frames.put_slice(&header);
        }
        out.push(frames.freeze());
        out.push(emit::method(channel, AMQPClass::Tx(tx::AMQPMethod::Rollback(tx::Rollback {}))));
        self.channel = Some((channel, State::Probing(batch)));
    }

    /// Handles that the broker has refused a question of this batch.
    fn closed(&mut self, mut batch: Vec<Question>, close: &[u8]) -> Vec<Answer> {
        let code = code_of(close);
        if batch.len() > 1 {
            let blame = Blame::of(close);
            let refuses = |question: &Question| {
                blame.as_ref().is_some_and(|blame| blame.refuses(&question.exchange, &question.routing_key))
            };
            let (refused, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(refuses);
            if !refused.is_empty() {
                self.again.extend(Some(rest).filter(|rest| !rest.is_empty()));
                return self
                    .answer(refused, if code == NOT_FOUND { Finding::Missing } else { Finding::Refused });
            }
            batch = rest;
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

    /// Answers all questions of a batch.
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

/// Returns the reply-code of a `channel.close`.
fn code_of(payload: &[u8]) -> u16 {
    payload.get(4..).and_then(<[u8]>::first_chunk).map_or(0, |code| u16::from_be_bytes(*code))
}

/// Makes the content header of an empty message.
fn header(channel: ChannelId) -> Bytes {
    let mut headers = FieldTable::default();
    headers.insert("x-recent-history-no-store".into(), AMQPValue::Boolean(true));
    let properties = AMQPProperties::default()
        .with_headers(headers)
        .with_type("hapax: may this user publish? (rolled back)".into());
    let header = AMQPContentHeader { class_id: MethodId::BASIC_PUBLISH.0, body_size: 0, properties };
    emit::frame(&AMQPFrame::Header(channel.0, header))
}
