//! The work on one connection: reading the messages that the stream has, then writing and reading at the same time.

use super::Why;
use super::envelope::Kind;
use super::keeper::{Closing, Start, Stream};
use super::link::{Live, within};
use super::outbox::MOST_RECORDS;
use super::reader::{Came, Rejoined};
use crate::clock::{now, wall};
use crate::log::LogLimiter;
use crate::store::{Logged, log_merged};
use futures_util::StreamExt;
use hapax_core::window::logged::{AtStore, BadBatch, Remember};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Consumer};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

/// How long the broker has for each step of the preparation.
const PREPARE: Duration = Duration::from_secs(5);
/// How long the broker may be silent while something is owed. Then another connection is tried.
const SILENT: Duration = Duration::from_secs(10);
/// How long a mark that was written may take to come back when nothing else comes.
const LOST: Duration = Duration::from_secs(2);
/// The most messages that the broker sends ahead, and how many are acked at a time.
const PREFETCH: u16 = 200;
const ACK_EVERY: u16 = 50;
/// With `sync`, a batch takes what came while that many were on their way.
const ON_THEIR_WAY: usize = 2;
/// How often facts are told and silence is looked for.
const TICK: Duration = Duration::from_millis(500);
/// How much earlier than the oldest id the reading begins.
const MARGIN: Duration = Duration::from_secs(60);

/// What the broker will say about a message that was published.
type Outcome = Pin<Box<dyn Future<Output = lapin::Result<Confirmation>> + Send>>;

/// A message on its way.
struct Flight {
    outcome: Outcome,
    /// It is the oldest batch of the outbox that is not confirmed. Otherwise it is a mark.
    is_batch: bool,
}

/// One connection's channels, and what is on its way there.
pub(super) struct Session {
    node: String,
    publisher: Channel,
    consumer: Consumer,
    flights: VecDeque<Flight>,
    /// The number of the mark that has to come back before anything is written.
    mark: Option<u64>,
    unacked: u16,
    /// The last batch was full, so there is more.
    is_busy: bool,
    /// With `async`, until when records are collected.
    collect_until: Option<Instant>,
    began: Instant,
    read: u64,
    ids: u64,
    /// The broker was heard of, or nothing was owed.
    heard: Instant,
    /// The mark was written at that time, or a message came since then.
    delivered: Option<Instant>,
    /// The reading has begun behind a message that was read on an earlier connection.
    is_resumed: bool,
    latency: Option<Duration>,
    /// of what others can cause
    log_limiter: LogLimiter,
}

impl Session {
    /// Opens the channels, begins to consume, and publishes the mark.
    pub(super) async fn open(stream: &mut Stream, live: &Live) -> Result<Session, Why> {
        let publisher = live.confirming_channel(PREPARE).await?;
        let channel = within(PREPARE, live.connection.create_channel()).await?;
        within(PREPARE, channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let from = stream.reader.attach();
        let offset = match from {
            Some(offset) => AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
            // The broker counts back from its own clock.
            None => AMQPValue::LongString(format!("{}s", (stream.layout.age() + MARGIN).as_secs()).into()),
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), offset);
        let queue = stream.layout.name.as_str().into();
        let options = BasicConsumeOptions::default();
        let consumer =
            within(PREPARE, channel.basic_consume(queue, "hapax".into(), options, arguments)).await?;
        let began = now();
        let mut session = Session {
            node: live.node.clone(),
            publisher,
            consumer,
            flights: VecDeque::new(),
            mark: None,
            unacked: 0,
            is_busy: false,
            collect_until: None,
            began,
            read: 0,
            ids: 0,
            heard: began,
            delivered: None,
            is_resumed: from.is_some(),
            latency: None,
            log_limiter: LogLimiter::new(now()),
        };
        let (mark, bytes) = stream.outbox.mark(&stream.envelope, began, wall());
        session.mark = Some(mark);
        session.publish(stream, bytes, false);
        Ok(session)
    }

    /// Works until the connection ends, or everything is written that is to be written before the end.
    pub(super) async fn work(
        &mut self,
        stream: &mut Stream,
        closing: &mut watch::Receiver<Closing>,
    ) -> Result<(), Why> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_closing = closing.borrow_and_update().is_some();
        loop {
            if is_closing && self.mark.is_none() && stream.outbox.is_empty() && !self.write(stream, true) {
                return Ok(());
            }
            let may_write = self.may_write(stream);
            let window = &stream.window;
            tokio::select! {
                delivery = self.consumer.next() => self.on_delivery(stream, delivery)?,
                outcome = first(&mut self.flights) => self.on_outcome(stream, outcome)?,
                () = records(window, self.collect_until.is_some()), if may_write => self.on_records(stream),
                () = until(self.collect_until), if may_write && self.collect_until.is_some() => {
                    self.write(stream, true);
                }
                _ = closing.changed(), if !is_closing => is_closing = true,
                _ = tick.tick() => self.on_tick(stream)?,
            }
        }
    }

    /// Returns true if another batch may be published.
    fn may_write(&self, stream: &Stream) -> bool {
        self.mark.is_none() && stream.outbox.has_room() && (self.is_busy || self.flights.len() < ON_THEIR_WAY)
    }

    fn on_records(&mut self, stream: &mut Stream) {
        let policy = stream.window.policy();
        match (policy.remember, self.collect_until) {
            (Remember::Sync, _) => {
                self.write(stream, false);
            }
            // Half of the delay is for collecting, the other half for writing.
            (Remember::Async, None) => self.collect_until = Some(now() + policy.delay / 2),
            (Remember::Async, Some(_)) => {
                self.write(stream, true);
            }
        }
    }

    /// Publishes what waits, or one batch of it. Returns false if nothing waits.
    fn write(&mut self, stream: &mut Stream, all: bool) -> bool {
        self.collect_until = None;
        let mut has_written = false;
        while stream.outbox.has_room() {
            let Some(taken) = stream.window.take(MOST_RECORDS) else {
                self.is_busy = false;
                break;
            };
            self.is_busy = taken.0.len() == MOST_RECORDS;
            let now = now();
            let batch = stream.outbox.push(&stream.envelope, taken, now, wall());
            stream.health.owes(now);
            let bytes = batch.bytes.clone();
            self.publish(stream, bytes, true);
            has_written = true;
            if !all && !self.is_busy {
                break;
            }
        }
        has_written
    }

    /// Puts a message behind those that are on their way. What the broker says about it is asked for later.
    fn publish(&mut self, stream: &Stream, bytes: Vec<u8>, is_batch: bool) {
        if self.flights.is_empty() {
            self.heard = now();
        }
        let (channel, queue) = (self.publisher.clone(), stream.layout.name.clone());
        let mut outcome: Outcome = Box::pin(async move {
            // Mandatory: a message for a stream that is not there any more comes back.
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let properties = BasicProperties::default().with_delivery_mode(2);
            channel.basic_publish("".into(), queue.as_str().into(), options, &bytes, properties).await?.await
        });
        // The first poll gives the frames to the connection, so they go out in the order of these calls.
        let early = outcome.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(early) = early {
            outcome = Box::pin(std::future::ready(early));
        }
        self.flights.push_back(Flight { outcome, is_batch });
    }

    fn on_outcome(
        &mut self,
        stream: &mut Stream,
        (outcome, is_batch): (lapin::Result<Confirmation>, bool),
    ) -> Result<(), Why> {
        let now = now();
        self.heard = now;
        match outcome? {
            Confirmation::Ack(None) => {}
            Confirmation::Ack(Some(_)) => {
                stream.outbox.not_taken();
                return Err(Why::new("the stream is gone: the broker has returned a message"));
            }
            Confirmation::Nack(_) => {
                stream.outbox.not_taken();
                return Err(Why::new("the broker has not taken a message"));
            }
            Confirmation::NotRequested => return Err(Why::new("the broker does not confirm")),
        }
        if !is_batch {
            self.delivered = Some(now);
        }
        if is_batch && let Some((position, latency)) = stream.outbox.confirmed(now) {
            self.latency = Some(latency);
            stream.health.written(position, stream.outbox.oldest(), now);
        }
        Ok(())
    }

    fn on_delivery(
        &mut self,
        stream: &mut Stream,
        delivery: Option<lapin::Result<Delivery>>,
    ) -> Result<(), Why> {
        let Some(delivery) = delivery else {
            return Err(Why::new(
                "the broker has cancelled the consumer: the stream was deleted, or has moved",
            ));
        };
        let delivery = delivery?;
        let now = now();
        self.heard = now;
        self.delivered = self.delivered.map(|_| now);
        self.ack(&delivery);
        let Some(offset) = offset(&delivery) else {
            return Err(stream.layout.is_no_stream());
        };
        match stream.reader.place(offset, &delivery.data) {
            Rejoined::Same => return Ok(()),
            Rejoined::Next => {}
            Rejoined::Gap => tracing::warn!(
                window = &*stream.name,
                offset,
                "the broker has dropped what other relays have written while this one was away: it does not know these ids"
            ),
            Rejoined::Other => return Err(self.is_another_stream(stream)),
        }
        self.read += 1;
        match stream.reader.take(stream.envelope.open(&delivery.data)) {
            Came::Own(kind) => {
                stream.outbox.came_back(kind, now);
                if self.mark.is_some_and(|mark| kind == Kind::Mark(mark)) {
                    self.mark = None;
                    self.on_mark(stream);
                }
            }
            Came::Nothing => {}
            Came::Batch { message, missed } => {
                if missed > 0
                    && let Some(left_out) = self.log_limiter.happened(now)
                {
                    tracing::warn!(
                        window = &*stream.name,
                        missed,
                        left_out,
                        "batches of another relay are missing in the stream"
                    );
                }
                let wall = wall();
                let (there, skew) =
                    stream.reader.moment(&message, stream.is_recovered && self.mark.is_none(), (now, wall));
                if let Some(skew) = skew
                    && let Some(left_out) = self.log_limiter.happened(now)
                {
                    tracing::warn!(
                        window = &*stream.name,
                        seconds_behind = skew.seconds_behind(),
                        left_out,
                        "the clock of another relay and the clock of this one differ: after a restart ids may be forgotten early"
                    );
                }
                if stream.is_recovered {
                    let applied = stream.window.merge(&message.batch, now, there);
                    log_merged(&*stream.window, &applied.changes);
                } else {
                    self.ids += stream.window.recover(&message.batch, now, there).seen;
                }
            }
            Came::Bad(bad) => self.on_bad(stream, now, bad),
        }
        if self.mark.is_some() {
            stream.health.goes_on(now);
            if !stream.is_recovered {
                let read = self.read;
                stream.start.send_if_modified(|start| match start {
                    Start::Reading(count) => {
                        *count = read;
                        true
                    }
                    Start::Done | Start::Refused(_) => false,
                });
            }
        }
        Ok(())
    }

    /// The stream was deleted, and there is another one with its name, perhaps this relay's own. It is to be read from its beginning.
    fn is_another_stream(&self, stream: &mut Stream) -> Why {
        stream.reader.lose_place();
        tracing::error!(
            window = &*stream.name,
            stream = stream.layout.name,
            "the stream was deleted, and there is another one: what was written to the old one is in the memory of the relays only"
        );
        Why::new("the stream is another one, and has to be read from its beginning")
    }

    /// Everything is read that stood in the stream when this connection was opened.
    fn on_mark(&mut self, stream: &mut Stream) {
        let now = now();
        if !stream.is_recovered {
            if let Some(bad) = stream.reader.stranger() {
                stream.refuse_stranger(bad);
            }
            stream.is_recovered = true;
            stream.window.recovered();
            stream.start.send_if_modified(|start| {
                let is_open = matches!(start, Start::Reading(_));
                if is_open {
                    *start = Start::Done;
                }
                is_open
            });
            let took = now.saturating_duration_since(self.began);
            tracing::info!(
                window = &*stream.name,
                stream = stream.layout.name,
                node = self.node,
                messages = self.read,
                ids = self.ids,
                took = ?took,
                "the stream is read"
            );
        }
        stream.is_well(&self.node);
        match stream.outbox.oldest() {
            None => stream.health.works(now),
            Some(_) => stream.health.goes_on(now),
        }
        for bytes in stream.outbox.again(&stream.envelope, now, wall()) {
            self.publish(stream, bytes, true);
        }
    }

    fn on_bad(&mut self, stream: &mut Stream, now: Instant, bad: BadBatch) {
        stream.window.note_damaged(1);
        if let Some(left_out) = self.log_limiter.happened(now) {
            tracing::error!(
                window = &*stream.name,
                stream = stream.layout.name,
                why = %bad,
                left_out,
                fix = "let nobody but Hapax write to the stream, and give all relays of it the same digest_secret_file, scope and id",
                "a message of the stream was passed over"
            );
        }
    }

    fn on_tick(&mut self, stream: &mut Stream) -> Result<(), Why> {
        let now = now();
        let is_owed = self.mark.is_some() || !self.flights.is_empty();
        if !is_owed {
            self.heard = now;
        }
        // The broker keeps back what stands before the offset that was asked for, also if that is a mark of a moment ago.
        let is_lost = self.delivered.is_some_and(|last| now.saturating_duration_since(last) > LOST);
        if self.mark.is_some() && self.is_resumed && is_lost {
            return Err(self.is_another_stream(stream));
        }
        if now.saturating_duration_since(self.heard) > SILENT {
            return Err(Why::new(format!("{} is silent", self.node)));
        }
        stream.window.set_at_store(AtStore {
            behind: stream.outbox.behind(now),
            latency: self.latency,
            reconnects: Some(stream.link.reconnects()),
            ..AtStore::default()
        });
        Ok(())
    }

    /// Acks what was delivered, many at a time. A stream drops nothing by that: the broker sends more.
    fn ack(&mut self, delivery: &Delivery) {
        self.unacked += 1;
        if self.unacked >= ACK_EVERY {
            self.unacked = 0;
            let acker = delivery.acker.clone();
            // The frame is given to the connection when this is polled. An error ends the consumer, too.
            tokio::spawn(async move { acker.ack(BasicAckOptions { multiple: true }).await });
        }
    }
}

/// Waits for what the broker says about the oldest message that is on its way.
async fn first(flights: &mut VecDeque<Flight>) -> (lapin::Result<Confirmation>, bool) {
    let outcome = poll_fn(|context| match flights.front_mut() {
        Some(flight) => flight.outcome.as_mut().poll(context).map(|outcome| (outcome, flight.is_batch)),
        None => Poll::Pending,
    })
    .await;
    flights.pop_front();
    outcome
}

/// Waits until there are records, or while they are collected, until somebody waits for one.
async fn records(window: &Logged, collects: bool) {
    poll_fn(|context| {
        let is_there = match collects {
            true => window.register_urgent(context.waker()),
            false => window.register(context.waker()),
        };
        if is_there { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Waits until then.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn offset(delivery: &Delivery) -> Option<u64> {
    let headers = delivery.properties.headers().as_ref()?;
    match headers.inner().get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        _ => None,
    }
}
