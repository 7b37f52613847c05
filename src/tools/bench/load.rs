//! A load as it was asked for, and what became of it.

use super::Error;
use super::dial::{Dialed, Target};
use super::ids::fresh_run;
use super::message::{self, Shape};
use super::now;
use super::outlet::Batch;
use super::publisher::Publisher;
use super::tally::Tally;
use super::worker::{Ran, Worker};
use amq_protocol::protocol::{AMQPClass, basic, confirm, queue};
use amq_protocol::types::{AMQPValue, FieldTable, ShortString};
use hdrhistogram::Histogram;
use std::time::Duration;

/// Messages that the queue of our own holds at most; the oldest go first.
pub const QUEUE_MAX: i32 = 100_000;
/// Channel of the consumer.
const CONSUMER: u16 = 2;

/// Where messages are published to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// an exclusive queue that is declared for this, and gone with it
    Own,
    /// an exchange or a queue that exists already
    Given {
        /// the exchange; empty is the default one
        exchange: String,
        /// the routing key
        routing_key: String,
    },
}

/// When it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// after this number of messages
    Count(u64),
    /// after so long
    After(Duration),
}

/// The description of a load.
#[derive(Clone, PartialEq, Debug)]
pub struct Load {
    /// to whom
    pub target: Target,
    /// where to
    pub route: Route,
    /// messages per second over all connections; as fast as it goes, if there is none
    pub rate: Option<f64>,
    /// what they look like
    pub shape: Shape,
    /// share of messages that repeat an id
    pub duplicates: f64,
    /// a repeat takes the id that was new this many ids ago
    pub repeat_after: u64,
    /// messages in flight on a connection; 0: without confirms
    pub window: u32,
    /// how many
    pub connections: usize,
    /// until when
    pub end: End,
    /// take the messages out again, too
    pub consume: bool,
}

impl Load {
    /// Creates a load of `count` unique messages with the default size, with confirms, 1,000 in flight, over one connection.
    pub fn new(target: Target, count: u64) -> Load {
        Load {
            target,
            route: Route::Own,
            rate: None,
            shape: Shape::default(),
            duplicates: 0.0,
            repeat_after: 1000,
            window: 1000,
            connections: 1,
            end: End::Count(count),
            consume: false,
        }
    }
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// messages
    pub tally: Tally,
    /// octets of a message on the wire, with its frames
    pub message_bytes: u64,
    /// from the first publish to the last answer
    pub elapsed: Duration,
    /// from due to answered, in nanoseconds; empty without confirms
    pub latency: Histogram<u64>,
}

impl Outcome {
    /// Messages per second.
    pub fn rate(&self) -> f64 {
        self.tally.published as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Deliveries per second.
    pub fn delivery_rate(&self) -> f64 {
        self.tally.delivered as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Shown how far it is, ten times a second.
pub type Watch<'w> = &'w mut dyn FnMut(Tally);

/// Puts the load on the broker.
pub fn run(load: &Load, watch: Watch<'_>) -> Result<Outcome, Error> {
    let run = fresh_run();
    let (exchange, routing_key) = match &load.route {
        Route::Own => (String::new(), message::queue_name(run)),
        Route::Given { exchange, routing_key } => (exchange.clone(), routing_key.clone()),
    };
    let mut dialed = Vec::with_capacity(load.connections);
    for number in 0..load.connections {
        dialed.push(prepare(load, number == 0, &routing_key)?);
    }
    let frame_max = dialed.iter().map(|dialed| dialed.frame_max).min().unwrap_or_default();
    let template = message::publish(&load.shape, &exchange, &routing_key, run, frame_max);
    let message_bytes = template.bytes.len() as u64;
    let most = if load.window > 0 { load.window as usize } else { usize::MAX };
    let batch = Batch::new(&template, most);

    let Ran { mut tally, latency, started, ended, connections } =
        Worker::new(dialed, batch, load)?.run(watch)?;
    let mut dialed = connections.into_iter().map(Publisher::into_dialed).collect::<Result<Vec<_>, _>>()?;
    let mut elapsed = ended.duration_since(started);
    if let Some(first) = dialed.first_mut().filter(|_| load.consume) {
        tally.delivered += drain(first, &routing_key)?;
        elapsed = now().duration_since(started);
    }
    dialed.into_iter().for_each(Dialed::close);
    Ok(Outcome { tally, message_bytes, elapsed, latency })
}

/// A connection with all that it needs before the first publish.
fn prepare(load: &Load, first: bool, routing_key: &str) -> Result<Dialed, Error> {
    let mut dialed = Dialed::open(&load.target)?;
    dialed.channel(1)?;
    if first && load.route == Route::Own {
        declare(&mut dialed, routing_key)?;
    }
    if first && load.consume {
        dialed.channel(CONSUMER)?;
        consume(&mut dialed, CONSUMER, routing_key, true)?;
    }
    if load.window > 0 {
        let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
        dialed.ask(1, AMQPClass::Confirm(select))?;
    }
    Ok(dialed)
}

/// A queue that goes with its connection and does not fill the broker.
fn declare(dialed: &mut Dialed, name: &str) -> Result<(), Error> {
    let mut arguments = FieldTable::default();
    arguments.insert(ShortString::from("x-max-length"), AMQPValue::LongInt(QUEUE_MAX));
    let declare =
        queue::Declare { queue: name.into(), exclusive: true, arguments, ..queue::Declare::default() };
    dialed.ask(1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare))).map(drop)
}

/// A consumer without acks.
pub(super) fn consume(dialed: &mut Dialed, channel: u16, queue: &str, no_ack: bool) -> Result<(), Error> {
    let consume = basic::Consume {
        queue: queue.into(),
        consumer_tag: "hapax-bench".into(),
        no_ack,
        ..basic::Consume::default()
    };
    dialed.ask(channel, AMQPClass::Basic(basic::AMQPMethod::Consume(consume))).map(drop)
}

/// Takes the remaining deliveries until the queue is empty and the consumer is cancelled. Returns their number.
fn drain(dialed: &mut Dialed, name: &str) -> Result<u64, Error> {
    loop {
        let declare = queue::Declare { queue: name.into(), passive: true, ..queue::Declare::default() };
        let answer = dialed.ask(CONSUMER, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)))?;
        match answer {
            AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)) if ok.message_count > 0 => {}
            _ => break,
        }
    }
    let cancel = basic::Cancel { consumer_tag: "hapax-bench".into(), nowait: false };
    dialed.ask(CONSUMER, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)))?;
    Ok(dialed.delivered)
}
