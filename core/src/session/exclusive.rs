//! The exclusive queues of a client whose upstream connection outlives it.
//!
//! RabbitMQ deletes a connection's exclusive queues when the connection ends. If Hapax keeps the upstream connection to learn
//! outcomes, it deletes them itself, on a channel of its own: others may wait for the names.
//!
//! A queue may be gone meanwhile, and somebody else may have one of its name. Hapax declares each queue again before it
//! deletes it. For another's queue, RabbitMQ refuses the declaration and closes the channel. It does not look at the
//! `queue.delete` then. (Names that RabbitMQ has made are never used twice.)
//!
//! ```text
//!   known --client gone: channel.open--> queue.declare, queue.delete --delete-ok--> the next one, or channel.close
//!                                                     \--channel.close--> close-ok, channel.open, the next one
//! ```

use super::outbox::{Lane, View};
use crate::wire::method::MethodId;
use crate::wire::{ChannelId, emit};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::channel::{AMQPMethod as ChannelMethod, Close, CloseOk, Open};
use amq_protocol::protocol::queue::{AMQPMethod as QueueMethod, Declare, Delete};
use std::collections::BTreeMap;

/// Exclusive queues that are known. Others are deleted when the upstream connection ends.
const KNOWN: usize = 1_024;
/// The longest declaration that is kept. A queue with a longer one is deleted when the upstream connection ends.
const LONGEST: usize = 4_096;
/// Names that RabbitMQ makes begin so, and nobody else may declare such.
const RESERVED: &str = "amq.";

/// The exclusive queues that a client has declared.
#[derive(Debug, Default)]
pub(super) struct ExclusiveQueues {
    /// With its declaration, unless RabbitMQ has made the name.
    known: BTreeMap<String, Option<Declare>>,
    /// bytes of the declarations
    bytes: usize,
    /// A `queue.declare-ok` with a name of RabbitMQ's may be about another's queue.
    is_ambiguous: bool,
    /// Hapax's own channel, from the first deletion on.
    channel: Option<ChannelId>,
}

impl ExclusiveQueues {
    /// Returns the bytes that the declarations take.
    pub(super) fn memory(&self) -> usize {
        self.bytes
    }

    /// Returns true if there is something to delete.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Returns the number of Hapax's own channel, if it was opened.
    pub(super) fn channel(&self) -> Option<ChannelId> {
        self.channel
    }

    // ---- what the client declares --------------------------------------------------------------------------------------

    /// Handles `queue.declare` of the client.
    pub(super) fn recv_declare(&mut self, frame: View<'_>) {
        let Some(AMQPClass::Queue(QueueMethod::Declare(declare))) = emit::parse_method(frame.payload())
        else {
            return;
        };
        let (name, is_exclusive) = (declare.queue.as_str(), declare.exclusive && !declare.passive);
        if name.is_empty() || name.starts_with(RESERVED) {
            let is_own = name.is_empty() && is_exclusive || self.known.contains_key(name);
            self.is_ambiguous |= !is_own;
        } else if is_exclusive && frame.len() <= LONGEST {
            let name = name.to_owned();
            self.learn(name, Some(declare), frame.len());
        }
    }

    /// Handles `queue.declare-ok`.
    pub(super) fn recv_declare_ok(&mut self, frame: View<'_>) {
        if let Some(AMQPClass::Queue(QueueMethod::DeclareOk(ok))) = emit::parse_method(frame.payload())
            && ok.queue.as_str().starts_with(RESERVED)
            && !self.is_ambiguous
        {
            self.learn(ok.queue.as_str().to_owned(), None, 0);
        }
    }

    /// Handles `queue.delete` of the client.
    pub(super) fn recv_delete(&mut self, frame: View<'_>) {
        if let Some(AMQPClass::Queue(QueueMethod::Delete(delete))) = emit::parse_method(frame.payload()) {
            self.known.remove(delete.queue.as_str());
        }
    }

    fn learn(&mut self, name: String, declare: Option<Declare>, length: usize) {
        if self.known.len() < KNOWN && !self.known.contains_key(&name) {
            self.bytes += 2 * name.len() + length + 256;
            self.known.insert(name, declare);
        }
    }

    // ---- when the client is gone ---------------------------------------------------------------------------------------

    /// Deletes all of them on this channel, which is free.
    pub(super) fn delete(&mut self, channel: ChannelId, upstream: &mut Lane) {
        self.channel = Some(channel);
        upstream.push(method(channel, ChannelMethod::Open(Open {})));
        self.delete_next(channel, upstream);
    }

    fn delete_next(&mut self, channel: ChannelId, upstream: &mut Lane) {
        let Some((name, declare)) = self.known.pop_first() else {
            let text = "the client's exclusive queues are deleted".into();
            let close = Close { reply_code: 200, reply_text: text, class_id: 0, method_id: 0 };
            return upstream.push(method(channel, ChannelMethod::Close(close)));
        };
        if let Some(declare) = declare {
            let declare = QueueMethod::Declare(Declare { nowait: true, ..declare });
            upstream.push(emit::method(channel, AMQPClass::Queue(declare)));
        }
        let delete = Delete { queue: name.into(), if_unused: false, if_empty: false, nowait: false };
        upstream.push(emit::method(channel, AMQPClass::Queue(QueueMethod::Delete(delete))));
    }

    /// Handles a method of the broker on Hapax's own channel.
    pub(super) fn recv(&mut self, id: MethodId, upstream: &mut Lane) {
        let Some(channel) = self.channel else { return };
        match id {
            MethodId::QUEUE_DELETE_OK => self.delete_next(channel, upstream),
            MethodId::CHANNEL_CLOSE => {
                upstream.push(method(channel, ChannelMethod::CloseOk(CloseOk {})));
                if !self.is_empty() {
                    self.delete(channel, upstream);
                }
            }
            _ => {}
        }
    }
}

fn method(channel: ChannelId, method: ChannelMethod) -> bytes::Bytes {
    emit::method(channel, AMQPClass::Channel(method))
}
