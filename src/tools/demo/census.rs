//! Counts what the queue really holds: asks the broker, and takes out every message.

use super::Error;
use super::client::Client;
use super::message;
use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::uri::AMQPUri;
use std::time::Duration;

/// Messages under way at a time; half of them are acked at once.
const PREFETCH: u16 = 2_000;
/// A broker that has messages for us does not make us wait so long.
const SILENCE: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Clone, PartialEq, Eq, Default, Debug, serde::Serialize)]
pub(super) struct Census {
    /// as a passive declare says
    pub(super) declared: u64,
    /// as taken out
    pub(super) messages: u64,
    /// ids that are there once
    pub(super) once: u64,
    /// ids that are there more than once
    pub(super) repeated: u64,
    /// ids that are not there
    pub(super) missing: u64,
    /// messages that nobody of us has sent
    pub(super) foreign: u64,
    /// how often each id is there
    #[serde(skip)]
    pub(super) counts: Vec<u32>,
}

impl Census {
    /// Takes all messages out of a queue to which nobody publishes any more, and looks for these many ids.
    pub(super) async fn take(uri: &AMQPUri, queue: &str, ids: u64) -> Result<Census, Error> {
        let client = Client::connect(uri, "census").await?;
        let channel = client.channel().await?;
        let declared = depth(&channel, queue).await?;
        let mut counts = Counts { by_id: vec![0; usize::try_from(ids).unwrap_or_default()], foreign: 0 };
        let mut messages = 0;
        // With the relay left out, a crashed producer's publishes may still come in: look again until it is empty.
        while let left @ 1.. = depth(&channel, queue).await? {
            messages += left;
            consume(&client, queue, left, &mut counts).await?;
        }
        client.close().await?;
        let Counts { by_id: counts, foreign } = counts;
        let having = |wanted: fn(u32) -> bool| counts.iter().filter(|count| wanted(**count)).count() as u64;
        let (once, repeated, missing) =
            (having(|count| count == 1), having(|count| count > 1), having(|count| count == 0));
        Ok(Census { declared, messages, once, repeated, missing, foreign, counts })
    }

    /// Every id exactly once, and nothing else.
    pub(super) fn is_exact(&self) -> bool {
        self.repeated + self.missing + self.foreign == 0
            && self.messages == self.once
            && self.declared == self.once
    }
}

struct Counts {
    by_id: Vec<u32>,
    foreign: u64,
}

impl Counts {
    fn add(&mut self, id: Option<&ShortString>) {
        let number = id.and_then(|id| message::number(id.as_str()));
        let slot = number.and_then(|number| self.by_id.get_mut(usize::try_from(number).ok()?));
        match slot {
            Some(count) => *count += 1,
            None => self.foreign += 1,
        }
    }
}

/// Takes out `left` messages and counts them.
async fn consume(client: &Client, queue: &str, left: u64, counts: &mut Counts) -> Result<(), Error> {
    let channel = client.channel().await?;
    let failed = || Error::amqp("consuming from the queue");
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(failed())?;
    let options = BasicConsumeOptions::default();
    let tag = ShortString::from("census");
    let consuming = channel.basic_consume(ShortString::from(queue), tag, options, FieldTable::default());
    let mut consumer = consuming.await.map_err(failed())?;
    for taken in 1..=left {
        let delivery = match tokio::time::timeout(SILENCE, consumer.next()).await {
            Ok(Some(delivery)) => delivery.map_err(failed())?,
            Ok(None) | Err(_) => {
                let text =
                    format!("the queue {queue} said that it had {left} messages and gave {}", taken - 1);
                return Err(Error::Step(text));
            }
        };
        counts.add(delivery.properties.message_id().as_ref());
        if taken == left || taken % u64::from(PREFETCH / 2) == 0 {
            delivery.ack(BasicAckOptions { multiple: true }).await.map_err(failed())?;
        }
    }
    channel.close(200, ShortString::from("done")).await.map_err(failed())
}

/// How many messages are ready, by a passive declare.
pub(super) async fn depth(channel: &Channel, queue: &str) -> Result<u64, Error> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declaring = channel.queue_declare(ShortString::from(queue), options, FieldTable::default());
    let queue = declaring.await.map_err(Error::amqp("asking for the queue's depth"))?;
    Ok(u64::from(queue.message_count()))
}
