//! Publishes stored messages again, as a client of this relay that does not know that they are stored.
//!
//! ```text
//!   a session keeps a fresh publish ──▶ it waits here, up to a minute ──▶ its window has it as stored ──▶ published
//!                                                                     \─▶ it has not: left out
//! ```
//!
//! A message that the broker has refused, or whose transaction was rolled back, is never published here: chaos stores nothing that nobody
//! has stored. A message leaves without what the broker accepts from its publisher only, see [`without_origin`].

use crate::clock::{Backoff, now};
use crate::config::{Node, PublishingSettings};
use crate::signals::without_origin;
use crate::store::{BrokerConnection, Why, within};
use crate::tls;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hapax_core::session::KeptPublish;
use hapax_core::window::{Found, Inspect, LiveWindows};
use hapax_core::wire::emit;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, PublisherConfirm};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::sleep_until;
use utoipa::ToSchema;

/// A stored message comes again within this time: "the last minute".
const WITHIN: Duration = Duration::from_secs(60);
/// Bytes of a message that waits, beside its own.
const PLACE: usize = 512;
/// Messages that the relay may owe an answer for.
const UNCONFIRMED: usize = 256;
/// How long the relay may take for one step.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counts of the messages that were to be published again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, ToSchema)]
pub struct ReplayFacts {
    /// picked by the seed
    pub picked: u64,
    /// published again, and acked
    pub published: u64,
    /// published again, and nacked, or refused with the channel
    pub refused: u64,
    /// not published: nobody has stored them
    pub not_stored: u64,
    /// not published: `messages` or `bytes` of [chaos.replay] were reached
    pub full: u64,
    /// not published: they belong to another vhost than that of the URI
    pub other_vhost: u64,
    /// not published: their properties or names can't be read, or have no room in a frame
    pub unreadable: u64,
    /// taken to be published, but the connection or the run ended before the answer came; they are not tried again
    pub lost: u64,
    /// still waiting; when the run is over they are not published
    pub waiting: u64,
}

/// The messages of one run that come again.
#[derive(Debug)]
pub(super) struct Replays {
    vhosts: Vec<String>,
    messages: usize,
    bytes: usize,
    inner: Mutex<Inner>,
    /// there is one that is due earlier than those before
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// by the time when they are due, and a number
    waiting: BTreeMap<(Instant, u64), KeptPublish>,
    bytes: usize,
    facts: ReplayFacts,
}

/// A message that is being published again. Dropped before its outcome is known, it counts as lost.
#[derive(Debug)]
struct Taken<'a> {
    replays: &'a Replays,
    has_outcome: bool,
}

impl Taken<'_> {
    /// Counts its outcome.
    fn ends(mut self, count: impl FnOnce(&mut ReplayFacts)) {
        self.has_outcome = true;
        self.replays.count(count);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.has_outcome {
            self.replays.count(|facts| facts.lost += 1);
        }
    }
}

impl Replays {
    /// Begins with nothing that waits.
    pub(super) fn new(settings: &PublishingSettings) -> Replays {
        let PublishingSettings { nodes, messages, bytes, .. } = settings;
        let vhosts = nodes.iter().map(|node| node.path.clone()).collect();
        Replays {
            vhosts,
            messages: *messages,
            bytes: *bytes,
            inner: Mutex::default(),
            earlier: Notify::new(),
        }
    }

    /// Keeps a publish until it is due: within a minute, and before the run is over.
    pub(super) fn keep(&self, publish: KeptPublish, now: Instant, until: Instant) {
        let mut inner = self.inner.lock();
        inner.facts.picked += 1;
        if !self.vhosts.iter().any(|vhost| *vhost.as_bytes() == *publish.vhost) {
            inner.facts.other_vhost += 1;
            return;
        }
        let weight = weight(&publish);
        if inner.waiting.len() >= self.messages || inner.bytes + weight > self.bytes {
            inner.facts.full += 1;
            return;
        }
        let within = WITHIN.min(until.saturating_duration_since(now));
        let due = now + within.mul_f64((publish.draw >> 11) as f64 / (1_u64 << 53) as f64);
        let number = inner.facts.picked;
        inner.bytes += weight;
        inner.waiting.insert((due, number), publish);
        if inner.waiting.first_key_value().is_some_and(|(key, _)| *key == (due, number)) {
            self.earlier.notify_one();
        }
    }

    /// Returns what became of them until now.
    pub(super) fn facts(&self) -> ReplayFacts {
        let inner = self.inner.lock();
        ReplayFacts { waiting: inner.waiting.len() as u64, ..inner.facts }
    }

    fn count(&self, count: impl FnOnce(&mut ReplayFacts)) {
        count(&mut self.inner.lock().facts);
    }

    /// Takes the next one that is due, or returns when it is.
    fn pop_due(&self, now: Instant) -> Result<KeptPublish, Option<Instant>> {
        let mut inner = self.inner.lock();
        match inner.waiting.first_key_value().map(|((due, _), _)| *due) {
            Some(due) if due <= now => {
                let (_, publish) = inner.waiting.pop_first().ok_or(None)?;
                inner.bytes -= weight(&publish);
                Ok(publish)
            }
            due => Err(due),
        }
    }

    /// Waits until one is due, and takes it.
    async fn next(&self) -> (KeptPublish, Taken<'_>) {
        loop {
            match self.pop_due(now()) {
                Ok(publish) => return (publish, Taken { replays: self, has_outcome: false }),
                Err(Some(due)) => tokio::select! {
                    () = sleep_until(due.into()) => {}
                    () = self.earlier.notified() => {}
                },
                Err(None) => self.earlier.notified().await,
            }
        }
    }

    /// Publishes what is due, until nobody waits for this any more. `done` is called with the number of those that were acked.
    pub(super) async fn publish(
        &self,
        settings: &PublishingSettings,
        tls: Option<&Arc<tls::Client>>,
        windows: &LiveWindows<dyn Inspect>,
        done: impl Fn(u64),
    ) {
        let mut backoff = Backoff::of_broker();
        for node in settings.nodes.iter().cycle() {
            // Nobody connects before there is something to say.
            let first = self.next().await;
            if let Err(why) = self.publish_at(node, tls, windows, first, &done, &mut backoff).await {
                tracing::warn!(node = node.authority(), %why, "messages can't be published again (chaos.replay)");
            }
            backoff.rest().await;
        }
    }

    async fn publish_at(
        &self,
        node: &Node,
        tls: Option<&Arc<tls::Client>>,
        windows: &LiveWindows<dyn Inspect>,
        first: (KeptPublish, Taken<'_>),
        done: &impl Fn(u64),
        backoff: &mut Backoff,
    ) -> Result<(), Why> {
        let live = BrokerConnection::open(node, tls).await?;
        let result = async {
            let channel = live.confirming_channel(PATIENCE).await?;
            self.work(&live, &channel, windows, first, done, backoff).await
        };
        let result = result.await;
        live.close().await;
        result
    }

    async fn work(
        &self,
        live: &BrokerConnection,
        channel: &Channel,
        windows: &LiveWindows<dyn Inspect>,
        first: (KeptPublish, Taken<'_>),
        done: &impl Fn(u64),
        backoff: &mut Backoff,
    ) -> Result<(), Why> {
        let mut outcomes = FuturesUnordered::new();
        let mut next = Some(first);
        loop {
            if let Some((publish, taken)) = next.take()
                && let Some((confirm, taken)) = send((live, channel), windows, publish, taken).await?
            {
                outcomes.push(async move { (confirm.await, taken) });
            }
            tokio::select! {
                Some((outcome, taken)) = outcomes.next() => match outcome {
                    Ok(Confirmation::Ack(_) | Confirmation::NotRequested) => {
                        taken.ends(|facts| facts.published += 1);
                        done(1);
                        backoff.reset();
                    }
                    Ok(Confirmation::Nack(_)) => taken.ends(|facts| facts.refused += 1),
                    Err(error) => {
                        taken.ends(|facts| facts.refused += 1);
                        return Err(Why::from(error));
                    }
                },
                publish = self.next(), if outcomes.len() < UNCONFIRMED => next = Some(publish),
                () = live.ended_with(channel) => return Err(Why::new("the connection has ended")),
            }
        }
    }
}

/// Publishes one, if its window has it as stored.
async fn send<'a>(
    (live, channel): (&BrokerConnection, &Channel),
    windows: &LiveWindows<dyn Inspect>,
    publish: KeptPublish,
    taken: Taken<'a>,
) -> Result<Option<(PublisherConfirm, Taken<'a>)>, Why> {
    let found = windows.named(&publish.window).and_then(|window| window.find(publish.claim, now()));
    if !matches!(found, Some(Found::Seen(_))) {
        taken.ends(|facts| facts.not_stored += 1);
        return Ok(None);
    }
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(ShortString::from).ok();
    let parts =
        (text(&publish.exchange), text(&publish.routing_key), emit::parse_properties(&publish.header));
    let fits = publish.header.len() <= live.largest_header();
    let (true, (Some(exchange), Some(routing_key), Some(properties))) = (fits, parts) else {
        taken.ends(|facts| facts.unreadable += 1);
        return Ok(None);
    };
    let mut again = without_origin(&properties);
    if let Some(headers) = properties.headers() {
        again = again.with_headers(headers.clone());
    }
    let options = BasicPublishOptions::default();
    let publishing = channel.basic_publish(exchange, routing_key, options, &publish.body, again);
    Ok(Some((within(PATIENCE, publishing).await?, taken)))
}

fn weight(publish: &KeptPublish) -> usize {
    let names = publish.exchange.len() + publish.routing_key.len() + publish.vhost.len();
    PLACE + names + publish.header.len() + publish.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hapax_core::window::Key;

    fn settings(messages: usize, bytes: usize) -> PublishingSettings {
        let node = Node {
            scheme: "amqp",
            host: "h".to_owned(),
            port: 1,
            user: None,
            password: None,
            path: "/".to_owned(),
        };
        PublishingSettings { nodes: vec![node], uri_file: None, tls: None, messages, bytes }
    }

    fn kept(draw: u64, vhost: &str) -> KeptPublish {
        KeptPublish {
            draw,
            window: "w".into(),
            claim: Key(7).into(),
            vhost: vhost.as_bytes().into(),
            exchange: Box::from(*b"x"),
            routing_key: Box::from(*b"k"),
            header: b"header"[..].into(),
            body: b"body"[..].into(),
        }
    }

    #[test]
    fn what_is_kept_has_a_bound_in_messages_and_in_bytes() {
        let now = now();
        let one = weight(&kept(0, "/"));
        for (messages, bytes, fits) in [(3, usize::MAX, 3), (100, 2 * one, 2)] {
            let replays = Replays::new(&settings(messages, bytes));
            (0..10).for_each(|_| replays.keep(kept(0, "/"), now, now + WITHIN));
            let ReplayFacts { picked, full, waiting, .. } = replays.facts();
            assert_eq!((picked, full, waiting), (10, 10 - fits, fits));
            assert!(replays.pop_due(now).is_ok(), "its room is free again");
            replays.keep(kept(0, "/"), now, now + WITHIN);
            assert_eq!(replays.facts().waiting, fits);
        }
    }

    #[test]
    fn all_come_again_within_a_minute_and_before_the_run_is_over() {
        let now = now();
        for (until, latest) in
            [(Duration::from_secs(600), WITHIN), (Duration::from_secs(9), Duration::from_secs(9))]
        {
            let replays = Replays::new(&settings(1_000, usize::MAX));
            for draw in [u64::MAX, 0, u64::MAX / 2] {
                replays.keep(kept(draw, "/"), now, now + until);
            }
            let draws: Vec<u64> = (0..3).map(|_| replays.pop_due(now + latest).unwrap().draw).collect();
            assert_eq!(draws, [0, u64::MAX / 2, u64::MAX], "in the order of the time");
            replays.keep(kept(u64::MAX / 2, "/"), now, now + until);
            assert!(replays.pop_due(now + latest / 3).is_err(), "it is not due yet");
        }
    }

    #[test]
    fn other_vhosts_are_left_out() {
        let replays = Replays::new(&settings(10, usize::MAX));
        replays.keep(kept(0, "other"), now(), now() + WITHIN);
        assert_eq!((replays.facts().other_vhost, replays.facts().waiting), (1, 0));
    }
}
