//! The two failures in which recording an id too early loses the message: played twice against the same broker, once
//! through Hapax and once through a filter that records an id before it knows what becomes of the publish.
//!
//! The filter is real: a set of ids before a `lapin` channel, as deduplication is often written.

use super::Error;
use super::census::depth;
use super::client::{Address, Client, Outcome, Publisher};
use super::message;
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::uri::AMQPUri;
use lapin::{Channel, ExchangeKind};
use serde::Serialize;
use std::collections::HashSet;

/// Numbers of ids that the main run can't have.
const FILLER: u64 = 900_000_000_000;
const FULL: u64 = 900_000_000_001;
const UNROUTABLE: u64 = 900_000_000_002;

/// The answers that a publisher saw, and what the queue held afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Course {
    /// the answer while the broker could not store it
    pub(super) first: Outcome,
    /// the answer to the same id when the broker could
    pub(super) second: Outcome,
    /// how often it is in the queue at the end
    pub(super) stored: u64,
}

impl Course {
    /// Told that it is stored, and it is not.
    pub(super) fn is_lost(&self) -> bool {
        self.second == Outcome::Acked && self.stored == 0
    }

    /// Told that it is stored, and it is, once.
    pub(super) fn is_delivered(&self) -> bool {
        self.second == Outcome::Acked && self.stored == 1
    }
}

/// A failure, with either of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Case {
    pub(super) record_first: Course,
    pub(super) hapax: Course,
}

/// Both failures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cases {
    /// `overflow=reject-publish`, nacked, drained, again
    pub(super) queue_full: Case,
    /// mandatory, returned, bound, again
    pub(super) unroutable: Case,
}

impl Serialize for Course {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut course = serializer.serialize_struct("Course", 3)?;
        course.serialize_field("first", &format!("{:?}", self.first).to_lowercase())?;
        course.serialize_field("again", &format!("{:?}", self.second).to_lowercase())?;
        course.serialize_field("stored", &self.stored)?;
        course.end()
    }
}

impl Cases {
    /// Plays both, twice. The names of its exchanges and queues start with this prefix; they are deleted again.
    pub(super) async fn play(broker: &AMQPUri, relay: &AMQPUri, prefix: &str) -> Result<Cases, Error> {
        let director = Client::connect(broker, "director").await?;
        let mut early = Contender::new(broker, "record-first", Some(HashSet::new())).await?;
        let mut hapax = Contender::new(relay, "hapax", None).await?;
        let stage =
            Stage { channel: director.channel().await?, publisher: director.publisher().await?, prefix };
        let queue_full = Case {
            record_first: stage.queue_full(&mut early).await?,
            hapax: stage.queue_full(&mut hapax).await?,
        };
        let unroutable = Case {
            record_first: stage.unroutable(&mut early).await?,
            hapax: stage.unroutable(&mut hapax).await?,
        };
        early.client.close().await?;
        hapax.client.close().await?;
        director.close().await?;
        Ok(Cases { queue_full, unroutable })
    }
}

/// A publisher, with the filter before it or without.
struct Contender {
    client: Client,
    publisher: Publisher,
    name: &'static str,
    seen: Option<HashSet<String>>,
}

impl Contender {
    async fn new(
        uri: &AMQPUri,
        name: &'static str,
        seen: Option<HashSet<String>>,
    ) -> Result<Contender, Error> {
        let client = Client::connect(uri, name).await?;
        let publisher = client.publisher().await?;
        Ok(Contender { client, publisher, name, seen })
    }

    /// The mistake is in the first line: seen is what was *sent*, not what was stored.
    async fn publish(&mut self, to: &Address, id: &str) -> Result<Outcome, Error> {
        if self.seen.as_mut().is_some_and(|seen| !seen.insert(id.to_owned())) {
            return Ok(Outcome::Acked);
        }
        Ok(Outcome::of(self.publisher.publish(to, id).await?).await)
    }
}

/// Sets the scene, straight at the broker.
struct Stage<'s> {
    channel: Channel,
    publisher: Publisher,
    prefix: &'s str,
}

impl Stage<'_> {
    async fn queue_full(&self, contender: &mut Contender) -> Result<Course, Error> {
        let queue = format!("{}.full.{}", self.prefix, contender.name);
        let mut bounds = FieldTable::default();
        bounds.insert(ShortString::from("x-max-length"), AMQPValue::LongInt(1));
        let reject = AMQPValue::LongString(LongString::from("reject-publish"));
        bounds.insert(ShortString::from("x-overflow"), reject);
        declare(&self.channel, &queue, bounds).await?;
        let to = Address::queue(&queue);
        let filler = self.publisher.publish(&to, &message::id(FILLER)).await?;
        if Outcome::of(filler).await != Outcome::Acked {
            return Err(Error::Step(format!("the queue {queue} can't be filled")));
        }

        let id = message::id(FULL);
        let first = contender.publish(&to, &id).await?;
        let purging =
            self.channel.queue_purge(ShortString::from(queue.as_str()), QueuePurgeOptions::default());
        purging.await.map_err(Error::amqp("draining a queue"))?;
        let second = contender.publish(&to, &id).await?;
        Ok(Course { first, second, stored: self.stored(&queue, &id).await? })
    }

    async fn unroutable(&self, contender: &mut Contender) -> Result<Course, Error> {
        let queue = format!("{}.unrouted.{}", self.prefix, contender.name);
        let exchange = ShortString::from(queue.as_str());
        let failed = || Error::amqp("preparing an exchange");
        let options = ExchangeDeclareOptions::default();
        let declaring = self.channel.exchange_declare(
            exchange.clone(),
            ExchangeKind::Direct,
            options,
            FieldTable::default(),
        );
        declaring.await.map_err(failed())?;
        declare(&self.channel, &queue, FieldTable::default()).await?;
        let key = ShortString::from("credits");
        let to = Address { exchange: queue.clone(), routing_key: key.to_string(), mandatory: true };

        let id = message::id(UNROUTABLE);
        let first = contender.publish(&to, &id).await?;
        let options = QueueBindOptions::default();
        let name = ShortString::from(queue.as_str());
        let binding = self.channel.queue_bind(name, exchange.clone(), key, options, FieldTable::default());
        binding.await.map_err(failed())?;
        let second = contender.publish(&to, &id).await?;
        let stored = self.stored(&queue, &id).await?;
        let deleting = self.channel.exchange_delete(exchange, ExchangeDeleteOptions::default());
        deleting.await.map_err(failed())?;
        Ok(Course { first, second, stored })
    }

    /// How often the id is in the queue, which is emptied and deleted.
    async fn stored(&self, queue: &str, id: &str) -> Result<u64, Error> {
        let mut stored = 0;
        for _ in 0..depth(&self.channel, queue).await? {
            let getting = self.channel.basic_get(ShortString::from(queue), BasicGetOptions { no_ack: true });
            let message = getting.await.map_err(Error::amqp("reading a queue"))?;
            let found = message.and_then(|message| message.properties.message_id().clone());
            stored += u64::from(found.is_some_and(|found| found.as_str() == id));
        }
        delete(&self.channel, queue).await?;
        Ok(stored)
    }
}

/// A durable queue.
pub(super) async fn declare(channel: &Channel, queue: &str, arguments: FieldTable) -> Result<(), Error> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declaring = channel.queue_declare(ShortString::from(queue), options, arguments);
    declaring.await.map(drop).map_err(Error::amqp(format!("declaring the queue {queue}")))
}

/// Its end.
pub(super) async fn delete(channel: &Channel, queue: &str) -> Result<(), Error> {
    let deleting = channel.queue_delete(ShortString::from(queue), QueueDeleteOptions::default());
    deleting.await.map(drop).map_err(Error::amqp(format!("deleting the queue {queue}")))
}
