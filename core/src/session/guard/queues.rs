//! Which queue each consumer of a channel reads, and which guard it has.
//!
//! `basic.consume` names the queue, or none: then it is the one that was declared last on the channel. A queue or a consumer without
//! a name gets one by the broker's answer. The answers come in the order of the questions.

use crate::session::Shared;
use crate::session::outbox::View;
use crate::window::{Claim, Event, Mode, Scoped, Window};
use crate::wire::properties::IdSource;
use crate::wire::{ContentHeader, emit};
use amq_protocol::protocol::basic::{self, Consume};
use amq_protocol::protocol::queue::AMQPMethod as QueueMethod;
use amq_protocol::protocol::{AMQPClass, queue};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a consumer, beside its tag: an estimate.
const CONSUMER: usize = 256;
/// Consumers that are remembered after they were cancelled.
const LEAVING: usize = 64;
/// The name by which RabbitMQ's direct replies are consumed. It is no queue.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";
/// The argument by which a consumer says that it reads a stream.
const STREAM_OFFSET: &str = "x-stream-offset";

/// A guarded queue, as one consumer or one `basic.get` reads it.
#[derive(Debug)]
pub(in crate::session) struct Guarded {
    window: Arc<dyn Window>,
    /// an id is unique within the queue
    scoped: Scoped,
}

/// The id of a delivery, as its header shows it.
pub(super) enum Id {
    /// Nobody judges the delivery.
    None,
    /// It is known, and this is for how long it is remembered.
    Known(Claim, Duration),
    /// It is the body, and this makes the claim of it.
    Body(Scoped, Duration),
}

impl Guarded {
    /// Returns the guard of this queue, if it has one.
    fn find(shared: &Shared, vhost: &[u8], name: &str) -> Option<Arc<Guarded>> {
        if name == DIRECT_REPLY {
            return None;
        }
        let window = shared.windows.guard(vhost, name.as_bytes())?;
        Some(Arc::new(Guarded { window, scoped: shared.keys.scoped_to_queue(vhost, name.as_bytes()) }))
    }

    /// Returns the window that remembers which ids were acked.
    pub(super) fn window(&self) -> &Arc<dyn Window> {
        &self.window
    }

    /// Returns true if duplicates are counted and shown.
    pub(super) fn is_observed(&self) -> bool {
        self.window.mode() == Mode::Observe
    }

    /// Reads the content header of a delivery. A message that has died and came back is another one than before, as it is for who
    /// publishes it again. A delivery whose header can't be read is shown:
    /// one that is hidden by mistake is lost.
    pub(super) fn read(&self, header: &[u8]) -> Id {
        let window = &self.window;
        let source = &window.rules().id;
        if window.mode() == Mode::Off {
            return Id::None;
        }
        let Ok(found) = ContentHeader::parse(header, source) else { return Id::None };
        if found.is_of_stream() {
            return Id::None;
        }
        if found.bypass {
            window.notice(Event::Bypassed);
            return Id::None;
        }
        let scoped = match if found.is_special() { found.death() } else { Ok(None) } {
            Ok(None) => self.scoped,
            Ok(Some(death)) => self.scoped.with_death(&death),
            Err(_) => return Id::None,
        };
        let ttl = found.cache_ttl_ms.map_or_else(|| window.ttl(), Duration::from_millis);
        match (source, found.id) {
            (IdSource::Body, _) => Id::Body(scoped, ttl),
            (IdSource::Parts(parts), Some(_)) => {
                let parts = parts.iter().map(|part| found.part(part));
                Id::Known(scoped.key_of_parts(parts).into(), ttl)
            }
            (_, Some(id)) => Id::Known(scoped.key(&id).into(), ttl),
            (_, None) => {
                window.notice(Event::NoId);
                Id::None
            }
        }
    }
}

/// A queue that was declared, or that a consumer has named by having declared it last.
#[derive(Clone, Debug)]
enum Declared {
    Named(Arc<str>),
    /// It gets its name by the answer to the declaration of this number.
    Coming(u64),
}

/// A consumer: which queue it reads.
#[derive(Clone, Debug)]
enum Consumer {
    Unguarded,
    Guarded(Arc<Guarded>),
    /// Its queue has no name yet.
    Of(u64),
}

/// The queues and consumers of one channel.
#[derive(Debug, Default)]
pub(super) struct Queues {
    last: Option<Declared>,
    /// declarations that the broker has not answered
    declaring: VecDeque<u64>,
    declarations: u64,
    consumers: HashMap<Box<[u8]>, Consumer>,
    /// consumers without a tag that the broker has not answered
    unnamed: VecDeque<Consumer>,
    named: u64,
    /// consumers that were cancelled without an answer: some deliveries may still come
    leaving: VecDeque<Box<[u8]>>,
}

impl Queues {
    /// Returns the bytes that they take.
    pub(super) fn memory(&self) -> usize {
        (self.consumers.len() + self.unnamed.len()) * CONSUMER + self.declaring.len() * 8
    }

    /// Handles `queue.declare` of the client.
    pub(super) fn recv_declare(&mut self, frame: View<'_>) {
        let Some(declare) = declare_of(frame) else { return };
        self.declarations += 1;
        if !declare.nowait {
            self.declaring.push_back(self.declarations);
        }
        self.last = Some(match declare.queue.as_str() {
            "" => Declared::Coming(self.declarations),
            name => Declared::Named(name.into()),
        });
    }

    /// Handles `queue.declare-ok`.
    pub(super) fn recv_declare_ok(&mut self, frame: View<'_>, shared: &Shared, vhost: &[u8]) {
        let Some(AMQPClass::Queue(QueueMethod::DeclareOk(ok))) = emit::parse_method(frame.payload()) else {
            return;
        };
        let Some(number) = self.declaring.pop_front() else { return };
        if matches!(self.last, Some(Declared::Coming(last)) if last == number) {
            self.last = Some(Declared::Named(ok.queue.as_str().into()));
        }
        let guarded = Guarded::find(shared, vhost, ok.queue.as_str());
        for consumer in self.consumers.values_mut().chain(&mut self.unnamed) {
            if matches!(consumer, Consumer::Of(of) if *of == number) {
                *consumer = guarded.clone().map_or(Consumer::Unguarded, Consumer::Guarded);
            }
        }
    }

    /// Returns the guard of the queue with this name. An empty name is the queue that was declared last.
    pub(super) fn guard_of(&self, name: &str, shared: &Shared, vhost: &[u8]) -> Option<Arc<Guarded>> {
        match (name, &self.last) {
            ("", Some(Declared::Named(last))) => Guarded::find(shared, vhost, last),
            ("", _) => None,
            (name, _) => Guarded::find(shared, vhost, name),
        }
    }

    /// Handles `basic.consume` of the client. Returns the method that has to be sent instead, if it has to be another one: a consumer
    /// without a name that the broker does not answer gets one, so that its deliveries can be known.
    pub(super) fn recv_consume(
        &mut self,
        mut consume: Consume,
        shared: &Shared,
        vhost: &[u8],
    ) -> Option<Consume> {
        let is_stream = consume.arguments.inner().keys().any(|name| name.as_str() == STREAM_OFFSET);
        let consumer = match (consume.queue.as_str(), &self.last) {
            _ if is_stream => Consumer::Unguarded,
            ("", Some(Declared::Coming(number))) => Consumer::Of(*number),
            (name, _) => self.guard_of(name, shared, vhost).map_or(Consumer::Unguarded, Consumer::Guarded),
        };
        if consume.consumer_tag.as_str().is_empty() && !consume.nowait {
            self.unnamed.push_back(consumer);
            return None;
        }
        let renamed = consume.consumer_tag.as_str().is_empty();
        if renamed {
            self.named += 1;
            consume.consumer_tag = format!("hapax.ctag-{}", self.named).into();
        }
        let tag = consume.consumer_tag.as_str().as_bytes();
        self.leaving.retain(|leaving| **leaving != *tag);
        self.consumers.insert(tag.into(), consumer);
        renamed.then_some(consume)
    }

    /// Handles `basic.consume-ok`.
    pub(super) fn recv_consume_ok(&mut self, frame: View<'_>) {
        if let Some(AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok))) = emit::parse_method(frame.payload())
        {
            let tag = ok.consumer_tag.as_str().as_bytes();
            if !self.consumers.contains_key(tag)
                && let Some(consumer) = self.unnamed.pop_front()
            {
                self.consumers.insert(tag.into(), consumer);
            }
        }
    }

    /// Handles that a consumer is being cancelled, and that nobody says when it is gone. Returns its guard.
    pub(super) fn leaves(&mut self, tag: &str) -> Option<Arc<Guarded>> {
        let guarded = self.of_consumer(tag.as_bytes()).map(Arc::clone);
        if self.consumers.contains_key(tag.as_bytes()) {
            self.leaving.push_back(tag.as_bytes().into());
            if self.leaving.len() > LEAVING
                && let Some(oldest) = self.leaving.pop_front()
            {
                self.consumers.remove(&oldest);
            }
        }
        guarded
    }

    /// Handles that a consumer is gone. Returns its guard.
    pub(super) fn cancelled(&mut self, tag: &str) -> Option<Arc<Guarded>> {
        match self.consumers.remove(tag.as_bytes())? {
            Consumer::Guarded(guarded) => Some(guarded),
            Consumer::Unguarded | Consumer::Of(_) => None,
        }
    }

    /// Returns the guard of the queue that this consumer reads.
    pub(super) fn of_consumer(&self, tag: &[u8]) -> Option<&Arc<Guarded>> {
        match self.consumers.get(tag)? {
            Consumer::Guarded(guarded) => Some(guarded),
            Consumer::Unguarded | Consumer::Of(_) => None,
        }
    }
}

fn declare_of(frame: View<'_>) -> Option<queue::Declare> {
    match emit::parse_method(frame.payload()) {
        Some(AMQPClass::Queue(QueueMethod::Declare(declare))) => Some(declare),
        _ => None,
    }
}
