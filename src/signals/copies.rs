//! Copies of dropped publishes, on their way to the exchanges that their windows name (`duplicates_to`).
//!
//! ```text
//!   sessions ──▶ a queue for each exchange, all within one bound ──▶ a task with a connection of its own ──▶ the broker
//! ```
//!
//! A publisher never waits for this. Copies that find no room, or that the broker does not take, are left out and counted by [`Reason`]. Copies go to
//! the vhost of the URI of `[duplicates]`, by Hapax's own user: what its rights allow is what the operator has configured. A copy
//! therefore has nothing of its message that would use these rights in another way: no `user-id`, and no `CC` and `BCC`, which are further routing keys.
//!
//! A message that the broker does not accept closes the channel, and then the copies of others are lost, too. Therefore a copy goes without the
//! properties that the broker would refuse ([`without_origin`]), and a message whose header is too large gets no copy.
//!
//! A copy carries [`WINDOW`]. A publish that does is never copied: copies that come back through Hapax go round only once.

use super::Publisher;
use crate::clock::{Backoff, now, wall};
use crate::config::{Node, PublishingSettings};
use crate::log::LogLimiter;
use crate::store::{BrokerConnection, Why, within};
use crate::tls;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hapax_core::session::CopiedDuplicate;
use hapax_core::window::Seen;
use hapax_core::wire::emit;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

/// The header with the name of the window. It marks a message as a copy.
const WINDOW: &str = "x-hapax-window";
/// Headers that are further routing keys of a message. RabbitMQ takes them in this case only.
const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];
/// A queue of which each channel has its own.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// Copies that the broker may owe an answer for.
const UNCONFIRMED: usize = 256;
/// Bytes of a copy, beside its own.
const PLACE: usize = 512;
/// Octets that the headers of Hapax take at most, beside the texts in them.
const HEADERS: usize = 256;
/// How long the broker may take for one step.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no copy of a dropped publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// the queue had no room: the broker is down, or slower than the duplicates come
    Full,
    /// the broker did not take it: there is no such exchange, or Hapax's user has no right there
    Refused,
    /// no queue took it: nothing is bound to the exchange for its routing key
    Unroutable,
    /// the connection ended before the broker had answered
    Lost,
    /// there was no room to hold the body until it was whole
    NoBody,
    /// it is a copy itself, or was published to the exchange of the copies
    Copy,
    /// its properties or names can't be read, or have no room in a frame
    Unreadable,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 7] = [
        Reason::Full,
        Reason::Refused,
        Reason::Unroutable,
        Reason::Lost,
        Reason::NoBody,
        Reason::Copy,
        Reason::Unreadable,
    ];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Full => "full",
            Reason::Refused => "refused",
            Reason::Unroutable => "unroutable",
            Reason::Lost => "lost",
            Reason::NoBody => "no_body",
            Reason::Copy => "copy",
            Reason::Unreadable => "unreadable",
        }
    }
}

/// The copies of the process.
#[derive(Debug)]
pub struct Copies {
    settings: PublishingSettings,
    tls: Option<Arc<tls::Client>>,
    /// the queue for each exchange
    queues: Mutex<HashMap<Arc<str>, UnboundedSender<Queued>>>,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    copied: AtomicU64,
    uncopied: [AtomicU64; Reason::ALL.len()],
    log_limiter: LogLimiter,
}

/// A message for the broker.
#[derive(Debug)]
struct Queued {
    routing_key: ShortString,
    properties: BasicProperties,
    body: Vec<u8>,
    weight: usize,
    /// octets of its content header, at most
    header: usize,
}

impl Copies {
    pub(super) fn new(settings: PublishingSettings, tls: Option<Arc<tls::Client>>) -> Arc<Copies> {
        Arc::new(Copies {
            settings,
            tls,
            queues: Mutex::default(),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            copied: AtomicU64::new(0),
            uncopied: Default::default(),
            log_limiter: LogLimiter::new(now()),
        })
    }

    /// Puts a copy into the queue of its exchange, if there is room. `first`: what is remembered of its id.
    pub(super) fn put(
        self: &Arc<Copies>,
        publisher: Publisher<'_>,
        copy: CopiedDuplicate,
        first: Option<Seen>,
        now: Instant,
    ) {
        let to = Arc::clone(&copy.to);
        let queued = match message(publisher, copy, first, now, wall()) {
            Ok(queued) => queued,
            Err(reason) => return self.leave_out(reason, 1),
        };
        let weight = queued.weight;
        let has_room = self.waiting.fetch_add(1, Relaxed) < self.settings.messages
            && self.waiting_bytes.load(Relaxed) + weight <= self.settings.bytes;
        self.waiting_bytes.fetch_add(weight, Relaxed);
        if !has_room {
            self.done(1, weight);
            return self.leave_out(Reason::Full, 1);
        }
        // The task of an exchange lives as long as the process.
        let sent = self.queues.lock().entry(to).or_insert_with_key(|to| self.begin(to)).send(queued);
        if sent.is_err() {
            self.done(1, weight);
            self.leave_out(Reason::Lost, 1);
        }
    }

    /// Returns the number of copies that the broker has taken.
    pub fn copied(&self) -> u64 {
        self.copied.load(Relaxed)
    }

    /// Returns the number of dropped publishes without a copy, for this reason.
    pub fn uncopied(&self, reason: Reason) -> u64 {
        self.uncopied.get(reason as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// Returns the copies on their way, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        (self.waiting.load(Relaxed), self.waiting_bytes.load(Relaxed))
    }

    /// Waits until the broker has taken all copies, for at most this time: the process ends.
    pub async fn close(&self, within: Duration) {
        let _ = timeout(within, async {
            while self.waiting.load(Relaxed) > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    fn leave_out(&self, reason: Reason, copies: usize) {
        if let Some(count) = self.uncopied.get(reason as usize) {
            count.fetch_add(copies as u64, Relaxed);
        }
    }

    fn done(&self, copies: usize, bytes: usize) {
        self.waiting.fetch_sub(copies, Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
    }

    fn begin(self: &Arc<Copies>, to: &Arc<str>) -> UnboundedSender<Queued> {
        let (sender, queue) = unbounded_channel();
        let worker = Worker { copies: Arc::clone(self), to: Arc::clone(to), queue, next: None };
        tokio::spawn(worker.run());
        sender
    }
}

/// Publishes the copies for one exchange.
struct Worker {
    copies: Arc<Copies>,
    to: Arc<str>,
    queue: UnboundedReceiver<Queued>,
    /// the copy that goes first
    next: Option<Queued>,
}

impl Worker {
    async fn run(mut self) {
        let copies = Arc::clone(&self.copies);
        let mut backoff = Backoff::of_broker();
        for node in copies.settings.nodes.iter().cycle() {
            // Nobody connects before there is something to say.
            if self.next.is_none() {
                self.next = self.queue.recv().await;
            }
            if self.next.is_none() {
                return;
            }
            match self.publish_at(node, &mut backoff).await {
                Ok(()) => return,
                Err(why) => self.log(node, &why),
            }
            backoff.rest().await;
        }
    }

    fn log(&self, node: &Node, why: &Why) {
        if let Some(left_out) = self.copies.log_limiter.happened(now()) {
            let (waiting, _) = self.copies.waiting();
            tracing::warn!(exchange = &*self.to, node = node.authority(), %why, waiting, left_out, "copies of duplicates can't be published (duplicates_to)");
        }
    }

    /// Publishes at this node until the connection ends. Ends with `Ok` if nothing will come any more.
    async fn publish_at(&mut self, node: &Node, backoff: &mut Backoff) -> Result<(), Why> {
        let live = BrokerConnection::open(node, self.copies.tls.as_ref()).await?;
        let result = self.publish_on(&live, backoff).await;
        live.close().await;
        result
    }

    async fn publish_on(&mut self, live: &BrokerConnection, backoff: &mut Backoff) -> Result<(), Why> {
        let channel = live.confirming_channel(PATIENCE).await?;
        let mut flights = Flights::default();
        let result = self.work(live, &channel, &mut flights, backoff).await;
        // Nobody will hear what became of these.
        self.copies.leave_out(Reason::Lost, flights.outcomes.len());
        self.copies.done(flights.outcomes.len(), flights.bytes);
        result
    }

    async fn work(
        &mut self,
        live: &BrokerConnection,
        channel: &Channel,
        flights: &mut Flights,
        backoff: &mut Backoff,
    ) -> Result<(), Why> {
        let mut is_over = false;
        loop {
            if let Some(queued) = self.next.take_if(|queued| queued.header > live.largest_header()) {
                self.copies.done(1, queued.weight);
                self.copies.leave_out(Reason::Unreadable, 1);
            }
            if let Some(queued) = self.next.take() {
                let weight = queued.weight;
                match self.publish(channel, queued).await {
                    Ok(confirm) => flights.push(confirm, weight),
                    Err(why) => {
                        self.copies.done(1, weight);
                        self.copies.leave_out(Reason::Refused, 1);
                        return Err(why);
                    }
                }
            }
            if is_over && flights.outcomes.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some((outcome, weight)) = flights.outcomes.next() => {
                    flights.bytes -= weight;
                    self.copies.done(1, weight);
                    match outcome {
                        Ok(Confirmation::Ack(Some(_))) => {
                            self.copies.leave_out(Reason::Unroutable, 1);
                            backoff.reset();
                        }
                        Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => {
                            self.copies.copied.fetch_add(1, Relaxed);
                            backoff.reset();
                        }
                        Ok(Confirmation::Nack(_)) => self.copies.leave_out(Reason::Refused, 1),
                        Err(error) => {
                            self.copies.leave_out(Reason::Refused, 1);
                            return Err(Why::from(error));
                        }
                    }
                }
                queued = self.queue.recv(), if !is_over && flights.outcomes.len() < UNCONFIRMED => {
                    is_over = queued.is_none();
                    self.next = queued;
                }
                () = live.ended_with(channel) => return Err(Why::new("the connection has ended")),
            }
        }
    }

    async fn publish(&self, channel: &Channel, queued: Queued) -> Result<PublisherConfirm, Why> {
        let Queued { routing_key, properties, body, .. } = queued;
        // The broker acks what no queue takes.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let to = ShortString::from(&*self.to);
        within(PATIENCE, channel.basic_publish(to, routing_key, options, &body, properties)).await
    }
}

/// The copies that the broker has not answered.
#[derive(Default)]
struct Flights {
    outcomes: FuturesUnordered<Outcome>,
    bytes: usize,
}

/// The broker's answer to a copy, and the bytes that the copy takes.
type Outcome = Pin<Box<dyn Future<Output = (lapin::Result<Confirmation>, usize)> + Send>>;

impl Flights {
    fn push(&mut self, confirm: PublisherConfirm, weight: usize) {
        self.bytes += weight;
        self.outcomes.push(Box::pin(async move { (confirm.await, weight) }));
    }
}

/// Makes the message for the broker.
fn message(
    publisher: Publisher<'_>,
    copy: CopiedDuplicate,
    first: Option<Seen>,
    now: Instant,
    wall: SystemTime,
) -> Result<Queued, Reason> {
    let CopiedDuplicate { window, to, vhost, exchange, routing_key, header, body, .. } = copy;
    let properties = emit::parse_properties(&header).ok_or(Reason::Unreadable)?;
    let before = properties.headers().clone().unwrap_or_default();
    if before.inner().contains_key(WINDOW) || *exchange == *to.as_bytes() {
        return Err(Reason::Copy);
    }
    let body = body.ok_or(Reason::NoBody)?;
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let routing_key =
        ShortString::from(String::from_utf8(routing_key.into()).map_err(|_| Reason::Unreadable)?);
    let mut headers: FieldTable = before
        .into_iter()
        .filter(|(name, _)| !ROUTING_HEADERS.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect::<BTreeMap<_, _>>()
        .into();
    let mut add = |name: &'static str, value| {
        headers.insert(name.into(), value);
    };
    add(WINDOW, long(window.to_string()));
    add("x-hapax-vhost", long(text(&vhost)));
    add("x-hapax-exchange", long(text(&exchange)));
    if let Some(user) = publisher.user {
        add("x-hapax-user", long(user.to_owned()));
    }
    if let Some(seen) = first {
        let at = wall.checked_sub(now.saturating_duration_since(seen.at)).unwrap_or(wall);
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        add("x-hapax-first-seen", AMQPValue::Timestamp(at.as_secs()));
        add("x-hapax-count", AMQPValue::LongLongInt(seen.duplicates.into()));
    }
    let texts = window.len() + vhost.len() + exchange.len() + publisher.user.map_or(0, str::len);
    let weight = PLACE + header.len() + body.len();
    let properties = without_origin(&properties).with_headers(headers);
    Ok(Queued { routing_key, properties, body: body.into(), weight, header: header.len() + texts + HEADERS })
}

fn long(text: String) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Returns the properties without those that the broker accepts from the publisher only: the `user-id`, which it compares with the user who
/// publishes, and that is Hapax; a direct reply-to, for which a consumer of the same channel has to wait; an expiration that it accepts from
/// nobody. (It has not seen that: the message was dropped.) The headers are taken away, too: each caller adds them as it needs them.
pub(crate) fn without_origin(properties: &BasicProperties) -> BasicProperties {
    type With<T> = fn(BasicProperties, T) -> BasicProperties;
    fn keep<T: Clone>(rest: BasicProperties, value: &Option<T>, with: With<T>) -> BasicProperties {
        match value {
            Some(value) => with(rest, value.clone()),
            None => rest,
        }
    }
    let rest = BasicProperties::default();
    let rest = keep(rest, properties.content_type(), BasicProperties::with_content_type);
    let rest = keep(rest, properties.content_encoding(), BasicProperties::with_content_encoding);
    let rest = keep(rest, properties.delivery_mode(), BasicProperties::with_delivery_mode);
    let rest = keep(rest, properties.priority(), BasicProperties::with_priority);
    let rest = keep(rest, properties.correlation_id(), BasicProperties::with_correlation_id);
    let reply_to = properties.reply_to().clone().filter(|queue| queue.as_str() != DIRECT_REPLY_TO);
    let rest = keep(rest, &reply_to, BasicProperties::with_reply_to);
    let expiration = properties.expiration().clone().filter(|time| time.as_str().parse::<u32>().is_ok());
    let rest = keep(rest, &expiration, BasicProperties::with_expiration);
    let rest = keep(rest, properties.message_id(), BasicProperties::with_message_id);
    let rest = keep(rest, properties.timestamp(), BasicProperties::with_timestamp);
    let rest = keep(rest, properties.kind(), BasicProperties::with_type);
    let rest = keep(rest, properties.app_id(), BasicProperties::with_app_id);
    keep(rest, properties.cluster_id(), BasicProperties::with_cluster_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hapax_core::window::Key;

    const PEER: Publisher<'_> = Publisher {
        peer: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1),
        user: Some("u"),
    };

    /// The payload of a header with this table, and a `user-id` and an app-id.
    fn header(table: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0x20, 0x18];
        payload.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
        payload.extend(table);
        payload.extend(b"\x05admin\x03app");
        payload
    }

    fn copy(table: &[u8], exchange: &str) -> CopiedDuplicate {
        CopiedDuplicate {
            window: "w".into(),
            to: "copies".into(),
            claim: Key(7).into(),
            vhost: Box::from(*b"/"),
            exchange: exchange.as_bytes().into(),
            routing_key: Box::from(*b"k"),
            header: header(table).into(),
            body: Some(b"body"[..].into()),
        }
    }

    fn made(copy: CopiedDuplicate) -> Result<Queued, Reason> {
        message(PEER, copy, None, now(), wall())
    }

    /// Nothing of a copy makes Hapax's rights do more than the operator has configured.
    #[test]
    fn a_copy_keeps_all_but_what_would_use_the_rights_of_hapax() {
        let table =
            b"\x02CCA\0\0\0\x06S\0\0\0\x01b\x03BCCA\0\0\0\0\x04mineS\0\0\0\x01v\x0dx-hapax-countS\0\0\0\x011";
        let Queued { routing_key, properties, body, .. } = made(copy(table, "x")).unwrap();
        assert_eq!((routing_key.as_str(), &body[..]), ("k", &b"body"[..]));
        assert_eq!((properties.user_id(), properties.app_id().as_ref().unwrap().as_str()), (&None, "app"));
        let headers = properties.headers().as_ref().unwrap();
        let names: Vec<&str> = headers.inner().keys().map(ShortString::as_str).collect();
        assert_eq!(
            names,
            ["mine", "x-hapax-count", "x-hapax-exchange", "x-hapax-user", "x-hapax-vhost", "x-hapax-window"]
        );
    }

    #[test]
    fn a_copy_has_no_expiration_and_no_reply_to_that_the_broker_would_refuse() {
        let properties = |reply_to: &str, expiration: &str| {
            let one = BasicProperties::default().with_reply_to(reply_to.into());
            let one = without_origin(&one.with_expiration(expiration.into()));
            [one.reply_to().clone(), one.expiration().clone()].map(|value| value.map(|text| text.to_string()))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(properties("replies", "60000"), [some("replies"), some("60000")]);
        assert_eq!(properties("amq.rabbitmq.reply-to", "a while"), [None, None]);
        for refused in ["", "-1", "1.5", "99999999999"] {
            assert_eq!(properties("r", refused)[1], None, "{refused}");
        }
    }

    #[test]
    fn a_copy_is_not_copied_again() {
        let reason = |copy| made(copy).err();
        assert_eq!(reason(copy(b"\x0ex-hapax-windowS\0\0\0\x01v", "x")), Some(Reason::Copy));
        assert_eq!(reason(copy(b"", "copies")), Some(Reason::Copy));
        assert_eq!(reason(CopiedDuplicate { body: None, ..copy(b"", "x") }), Some(Reason::NoBody));
        assert_eq!(
            reason(CopiedDuplicate { header: vec![0, 60].into(), ..copy(b"", "x") }),
            Some(Reason::Unreadable)
        );
        assert_eq!(
            reason(CopiedDuplicate { routing_key: Box::from([0xff]), ..copy(b"", "x") }),
            Some(Reason::Unreadable)
        );
    }

    /// The broker is down: the queue takes what it has room for, the rest is counted, and nobody waits.
    #[tokio::test]
    async fn the_queue_has_a_bound_in_messages_and_in_bytes() {
        for (messages, bytes, fits) in [(3, usize::MAX / 2, 3), (100, 2 * (PLACE + 22 + 4) + 50, 2)] {
            let copies = Copies::new(
                PublishingSettings { nodes: Vec::new(), uri_file: None, tls: None, messages, bytes },
                None,
            );
            (0..10).for_each(|_| copies.put(PEER, copy(b"", "x"), None, now()));
            assert_eq!((copies.waiting().0, copies.uncopied(Reason::Full)), (fits, 10 - fits as u64));
        }
    }
}
