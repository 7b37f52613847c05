//! The client's `basic.get`s. A hidden message is no answer: the broker is asked again, and the client's later `basic.get`s may be
//! answered before that. The client gets its answers in the order of its questions.

use super::guarded::Guarded;
use super::withheld::Withheld;
use crate::session::outbox::Piece;
use crate::window::Reservation;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of a `basic.get`: an estimate.
const GET: usize = 192;

/// The answer to a `basic.get`.
#[derive(Debug)]
pub(super) enum Reply {
    /// `basic.get-empty`
    Empty(Piece),
    /// `basic.get-ok`
    Message(Box<Withheld>, Option<Reservation>),
}

/// A `basic.get` that the client has no answer to.
#[derive(Debug)]
struct Get {
    number: u64,
    guarded: Option<Arc<Guarded>>,
    /// its client does not ack
    no_ack: bool,
    method: Bytes,
    reply: Option<Reply>,
}

/// The `basic.get`s of one channel.
#[derive(Debug, Default)]
pub(super) struct Gets {
    /// in the client's order
    gets: VecDeque<Get>,
    /// the questions that the broker has not answered, in its order
    asked: VecDeque<u64>,
    drawn: u64,
    bytes: usize,
}

impl Gets {
    /// Returns the bytes that they take.
    pub(super) fn memory(&self) -> usize {
        self.gets.len() * GET + self.bytes
    }

    /// Adds a `basic.get`. `method` is sent to the broker.
    pub(super) fn push(&mut self, guarded: Option<Arc<Guarded>>, no_ack: bool, method: Bytes) {
        self.drawn += 1;
        self.asked.push_back(self.drawn);
        self.gets.push_back(Get { number: self.drawn, guarded, no_ack, method, reply: None });
    }

    /// Returns the question of this number. There is none between two that are there.
    fn get(&mut self, number: u64) -> Option<&mut Get> {
        let behind = number.checked_sub(self.gets.front()?.number)?;
        self.gets.get_mut(usize::try_from(behind).ok()?)
    }

    /// Takes the question that the broker answers now: its number, its guard, and whether its client does not ack.
    pub(super) fn answered(&mut self) -> Option<(u64, Option<Arc<Guarded>>, bool)> {
        let number = self.asked.pop_front()?;
        let get = self.get(number)?;
        Some((number, get.guarded.clone(), get.no_ack))
    }

    /// Notes that the question is asked again. Returns the method.
    pub(super) fn again(&mut self, number: u64) -> Option<Bytes> {
        let method = self.get(number)?.method.clone();
        self.asked.push_back(number);
        Some(method)
    }

    /// Returns true if the client's next answer is that to this question.
    pub(super) fn is_next(&self, number: u64) -> bool {
        self.gets.front().is_some_and(|get| get.number == number)
    }

    /// Forgets the next question: its answer is being written.
    pub(super) fn pop(&mut self) {
        self.gets.pop_front();
    }

    /// Keeps the answer to a question until it is its turn.
    pub(super) fn reply(&mut self, number: u64, reply: Reply) {
        let weight = reply.weight();
        if let Some(get) = self.get(number) {
            get.reply = Some(reply);
            self.bytes += weight;
        }
    }

    /// Takes the client's next answer, if it is there.
    pub(super) fn pop_reply(&mut self) -> Option<Reply> {
        let reply = self.gets.pop_front_if(|get| get.reply.is_some())?.reply?;
        self.bytes -= reply.weight();
        Some(reply)
    }

    /// Takes all messages that wait for their turn. Returns them with the numbers of their questions.
    pub(super) fn take_messages(&mut self) -> Vec<(u64, Box<Withheld>, Option<Reservation>)> {
        let mut taken = Vec::new();
        for get in &mut self.gets {
            match get.reply.take() {
                Some(Reply::Message(message, reservation)) => {
                    self.bytes -= message.weight();
                    taken.push((get.number, message, reservation));
                }
                other => get.reply = other,
            }
        }
        taken
    }
}

impl Reply {
    fn weight(&self) -> usize {
        match self {
            Reply::Empty(frame) => frame.view().len(),
            Reply::Message(message, _) => message.weight(),
        }
    }
}
