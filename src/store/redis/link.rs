//! The connection by which a window asks and writes.
//!
//! Whatever has come since the last time goes as one pipeline: first the records, then the questions. A few pipelines may be on
//! their way together. Redis answers them in order, so records are known to be written in order.
//!
//! With `remember = "async"` nobody waits for a record. It goes with the next question, or after half of `remember_delay`. A question never
//! overtakes a record: Redis would answer it by the lease that the record replaces.

use super::connect::{Command, Connection};
use super::{CHANGES_AT_ONCE, FIRST_PAUSE, Failed, First, LONGEST_PAUSE, Shared, commands};
use crate::clock::{now, wall};
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use hapax_core::window::leased::{Question, millis};
use hapax_core::window::logged::{Record, What};
use hapax_core::window::{OnOutage, Position, Remember};
use redis::{Value, cmd};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};

/// The most pipelines that are on their way together.
const TOGETHER: usize = 4;
/// The most records and the most questions of one pipeline.
const MOST: usize = 1_000;

type Replies = Pin<Box<dyn Future<Output = Result<Vec<Value>, Failed>> + Send>>;

/// The link of one window.
pub(super) struct Link {
    shared: Arc<Shared>,
    first: watch::Sender<First>,
    closing: watch::Receiver<bool>,
    /// records that were taken and are not known to be written
    unwritten: VecDeque<(Vec<Record>, Position)>,
    /// Until when records are collected, if nobody asks anything. `None` while there are none.
    collect_until: Option<Instant>,
    /// Records that were there when some of them went are still to go.
    flushes: bool,
    reconnects: u64,
}

/// A pipeline on its way.
struct Batch {
    records: Vec<Record>,
    position: Option<Position>,
    questions: Vec<Question>,
    /// the commands of the records; among them, the one whose reply is a generation
    writes: usize,
    flush: Option<usize>,
    /// a command behind the records says how many replicas have them
    waits: bool,
    sent: Instant,
}

impl Link {
    pub(super) fn new(
        shared: Arc<Shared>,
        first: watch::Sender<First>,
        closing: watch::Receiver<bool>,
    ) -> Link {
        Link {
            shared,
            first,
            closing,
            unwritten: VecDeque::new(),
            collect_until: None,
            flushes: false,
            reconnects: 0,
        }
    }

    /// Keeps the connection until the process ends and everything is written.
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut is_told = false;
        loop {
            let failed = match self.shared.connect().await {
                Ok(connection) => {
                    if is_told || pause > FIRST_PAUSE {
                        tracing::info!(window = self.shared.name(), "connected to Redis");
                    }
                    (pause, is_told) = (FIRST_PAUSE, false);
                    self.shared.window.works(now());
                    self.first.send_replace(Some(Ok(())));
                    match self.serve(connection).await {
                        Ok(()) => return,
                        Err(failed) => failed,
                    }
                }
                Err(failed) => {
                    let is_foreign = matches!(failed, Failed::Identity);
                    self.shared.window.failed(Vec::new(), now());
                    let outcome = if is_foreign { Err(failed.to_string()) } else { Ok(()) };
                    self.first.send_if_modified(|first| first.is_none() && first.replace(outcome).is_none());
                    failed
                }
            };
            if !std::mem::replace(&mut is_told, true) {
                let meanwhile = match self.shared.window.log().policy().on_outage {
                    OnOutage::Continue => "the relay judges by its own memory",
                    OnOutage::Refuse => "publishers wait",
                };
                tracing::error!(
                    window = self.shared.name(),
                    error = %failed,
                    "Redis can't be used; until it can, {meanwhile}"
                );
            }
            self.reconnects += 1;
            let reconnects = self.reconnects;
            self.shared.learn(|known| known.reconnects = Some(reconnects));
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.closing.wait_for(|closing| *closing), if !*self.closing.borrow() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sends and receives until the connection fails, or until everything is written and the process ends.
    async fn serve(&mut self, connection: Connection) -> Result<(), Failed> {
        let mut replies: FuturesOrdered<Replies> = FuturesOrdered::new();
        let mut batches: VecDeque<Batch> = VecDeque::new();
        let served = self.exchange(connection, &mut replies, &mut batches).await;
        if served.is_err() {
            let mut questions = Vec::new();
            let mut records = VecDeque::new();
            for batch in batches {
                questions.extend(batch.questions);
                records.extend(batch.position.map(|position| (batch.records, position)));
            }
            records.append(&mut self.unwritten);
            self.unwritten = records;
            self.shared.window.failed(questions, now());
        }
        served
    }

    async fn exchange(
        &mut self,
        connection: Connection,
        replies: &mut FuturesOrdered<Replies>,
        batches: &mut VecDeque<Batch>,
    ) -> Result<(), Failed> {
        let window = Arc::clone(&self.shared.window);
        let together = if connection.keeps_order() { TOGETHER } else { 1 };
        let mut renewal = interval(window.renews_every());
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closing = self.closing.clone();
        // Records that could not be written in the meantime go at once: leases may have ended.
        self.flushes = true;
        loop {
            while batches.len() < together && batches.iter().all(|batch| batch.flush.is_none()) {
                let Some((batch, sending)) = self.next(&connection) else { break };
                batches.push_back(batch);
                replies.push_back(sending);
            }
            if *closing.borrow() && batches.is_empty() {
                return Ok(());
            }
            let has_room = batches.len() < together && batches.iter().all(|batch| batch.flush.is_none());
            let poll_at = window.deadline();
            tokio::select! {
                biased;
                Some(received) = replies.next(), if !batches.is_empty() => {
                    let received = received?;
                    if let Some(batch) = batches.front() {
                        self.receive(batch, received)?;
                    }
                    batches.pop_front();
                }
                () = work(&window, self.collect_until.is_some()), if has_room => {}
                () = sleep_until(self.collect_until.unwrap_or_else(now).into()),
                    if has_room && self.collect_until.is_some() => {}
                () = sleep_until(poll_at.unwrap_or_else(now).into()), if poll_at.is_some() => {
                    window.handle_timeout(now());
                }
                _ = renewal.tick() => window.handle_timeout(now()),
                _ = closing.wait_for(|closing| *closing), if !*closing.borrow() => {}
            }
        }
    }

    /// Returns true if the records that wait are to wait a little longer. Once some of them go, all go that are there.
    fn collects(&mut self) -> bool {
        let (window, now) = (&self.shared.window, now());
        let collects = !self.flushes
            && self.longest_wait().is_some_and(|longest| {
                let until = *self.collect_until.get_or_insert(now + longest);
                now < until && !window.asks() && !window.log().is_urgent()
            });
        self.flushes = !collects && window.log().has_records();
        if !collects {
            self.collect_until = None;
        }
        collects
    }

    /// Returns how long records may wait for a question, if they may. A lease that a record replaces must not end before.
    fn longest_wait(&self) -> Option<Duration> {
        let window = &self.shared.window;
        let policy = window.log().policy();
        let may_wait = policy.remember == Remember::Async
            && self.unwritten.is_empty()
            && window.log().has_records()
            && !*self.closing.borrow();
        may_wait.then(|| (policy.delay / 2).min(window.renews_every()))
    }

    /// Makes the next pipeline, and the future that sends it and receives the replies.
    fn next(&mut self, connection: &Connection) -> Option<(Batch, Replies)> {
        if self.collects() {
            return None;
        }
        let shared = &self.shared;
        // Before the records: what was committed before a question was asked is among them then.
        let mut questions = shared.window.take_questions(MOST);
        let (mut records, mut position) = match self.unwritten.pop_front() {
            Some((records, position)) => (records, Some(position)),
            None => shared
                .window
                .log()
                .take(MOST)
                .map_or((Vec::new(), None), |(records, position)| (records, Some(position))),
        };
        // A flush ends its pipeline: only its reply says what is to be written into the records behind it.
        let flush = records.iter().position(|record| matches!(record.what, What::Flushed));
        if let Some(at) = flush
            && let Some(last) = position
            && let Some((before, behind)) = split_behind(&mut records, at, last)
        {
            position = Some(before);
            self.unwritten.push_front((behind, last));
        }
        if flush.is_some() || !self.unwritten.is_empty() || records.len() >= MOST {
            shared.window.put_back(std::mem::take(&mut questions));
        }
        questions.retain(|question| shared.window.is_to_be_asked(question));
        if records.is_empty() && questions.is_empty() {
            return None;
        }
        let now = now();
        let mut writes: Vec<Command> = records
            .iter()
            .filter_map(|record| commands::write(&shared.window, &shared.names, record, now))
            .collect();
        let mut told = Vec::new();
        for changes in records
            .iter()
            .filter(|record| commands::is_told(record))
            .cloned()
            .collect::<Vec<_>>()
            .chunks(CHANGES_AT_ONCE)
        {
            let is_flush = changes.iter().any(|record| matches!(record.what, What::Flushed));
            let batch = shared.codec.encode(changes, now, wall());
            told.push(commands::tell(&shared.names, &batch, is_flush));
        }
        let count = writes.len() + told.len();
        let waits = shared.replicas > 0 && count > 0 && connection.keeps_order();
        let mut asks: Vec<Command> =
            questions.iter().map(|question| commands::ask(&shared.window, &shared.names, question)).collect();
        if waits {
            let mut wait = cmd("WAIT");
            // (Redis itself answers in time, so that a replica that is slow is not taken for a Redis that is silent.)
            wait.arg(shared.replicas).arg(millis(shared.timeout / 2).max(1));
            asks.push(Command { key: Vec::new(), cmd: wait });
        }
        let keeps_order = connection.keeps_order();
        let (mut connection, within) = (connection.clone(), shared.timeout);
        let sending = async move {
            let exchange = async {
                if keeps_order {
                    writes.append(&mut told);
                    writes.append(&mut asks);
                    return connection.send(writes).await;
                }
                // Who hears that an id is forgotten may ask for it at once.
                let mut replies = connection.send(writes).await?;
                replies.append(&mut connection.send(told).await?);
                replies.append(&mut connection.send(asks).await?);
                Ok(replies)
            };
            timeout(within, exchange).await.map_err(|_| Failed::Silent)?
        };
        let flush = flush.map(|_| count.saturating_sub(1));
        Some((
            Batch { records, position, questions, writes: count, flush, waits, sent: now },
            Box::pin(sending),
        ))
    }

    /// Takes the replies to a pipeline. If one of them says that it failed, all of it is sent again.
    fn receive(&self, batch: &Batch, replies: Vec<Value>) -> Result<(), Failed> {
        let now = now();
        let shared = &self.shared;
        if let Some(generation) = check(shared.replicas, batch, &replies)? {
            shared.window.set_generation(generation);
        }
        let answers = batch
            .questions
            .iter()
            .zip(replies.into_iter().skip(batch.writes))
            .map(|(question, reply)| commands::answer(question, reply))
            .collect::<Result<Vec<_>, Failed>>()?;
        if let Some(position) = batch.position {
            shared.window.log().written(position, now);
        }
        for (question, answer) in batch.questions.iter().zip(answers) {
            shared.window.answer(question, answer, now);
        }
        shared.learn(|known| known.latency = Some(now.saturating_duration_since(batch.sent)));
        Ok(())
    }
}

/// Takes the records behind this place. Returns them, and the position of those before them; `None` if there are none. Of records that the
/// window has kept while it dropped others, not each has a position: there may be more of them than positions.
fn split_behind(records: &mut Vec<Record>, at: usize, last: Position) -> Option<(Position, Vec<Record>)> {
    let behind = records.split_off(at + 1);
    let before = Position(last.0.saturating_sub(behind.len() as u64));
    (!behind.is_empty()).then_some((before, behind))
}

/// Returns the generation, if the pipeline has a flush.
fn check(replicas: usize, batch: &Batch, replies: &[Value]) -> Result<Option<u32>, Failed> {
    if batch.waits {
        match replies.last() {
            Some(Value::Int(have)) if usize::try_from(*have).unwrap_or(0) >= replicas => {}
            Some(Value::Int(have)) => return Err(Failed::Replicas { have: *have, want: replicas }),
            _ => return Err(Failed::Strange),
        }
    }
    match batch.flush.map(|at| replies.get(at)) {
        None => Ok(None),
        Some(Some(Value::Int(generation))) => Ok(Some(u32::try_from(*generation).unwrap_or(u32::MAX))),
        Some(_) => Err(Failed::Strange),
    }
}

/// Waits until there is something to send, or while records are collected, until somebody waits for one or asks something.
async fn work(window: &super::Leased, collects: bool) {
    poll_fn(|cx| {
        let is_there = match collects {
            true => window.register_urgent(cx.waker()),
            false => window.register(cx.waker()),
        };
        if is_there { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use hapax_core::window::Key;

    fn records(count: u128) -> Vec<Record> {
        let forgotten = |n: u128| Record { at: now(), what: What::Forgotten(Key(n).into()) };
        (0..count).map(forgotten).collect()
    }

    #[test]
    fn what_is_behind_a_flush_has_the_later_positions() {
        let mut five = records(5);
        let (before, behind) = split_behind(&mut five, 1, Position(100)).unwrap();
        assert_eq!((before, five.len(), behind.len()), (Position(97), 2, 3));
        assert_eq!(split_behind(&mut five, 1, before), None);
    }

    /// Redis was away from the start, and the window has kept more records than it has positions for. A position that were too late would
    /// have clients acked whose ids are not written.
    #[test]
    fn records_that_were_kept_have_no_later_position_than_there_is() {
        let (before, behind) = split_behind(&mut records(1_000), 0, Position(0)).unwrap();
        assert_eq!((before, behind.len()), (Position(0), 999));
    }
}
