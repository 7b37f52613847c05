//! From an outbox to an effect: a producer with sequences, a relay, a broker, a second relay with a guard in Redis, and consumers. Each of
//! them is killed at random. The test counts what took effect, and says of each effect that came twice why nobody could prevent it.
//!
//! Ten seconds in CI; `make chaos` takes ten minutes (`HAPAX_EXACTLY_ONCE`, in seconds) and kills the broker and Redis, too.

use super::redis::server::Server;
use crate::e2e::cut::Cut;
use crate::e2e::raw::Raw;
use crate::e2e::relay::Relay;
use crate::e2e::retry::{self, Rng};
use crate::e2e::site::{own_rabbit, without_relay};
use crate::e2e::wait::{self, now};
use futures_util::StreamExt;
use hapax_testbed::{Leash, Rabbit};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

const VHOST: &str = "exactly-once";
const PRODUCERS: usize = 4;
const CONSUMERS: usize = 3;
/// Rows that a producer has in flight.
const IN_FLIGHT: u64 = 50;
/// Rows that have not taken effect, when the producers rest.
const AHEAD: usize = 1_000;
/// A consumer dies between its work and its ack at one in this many messages.
const DIES: u64 = 300;
/// An ack that was written this long before a kill has arrived before it, and been remembered.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// The shortest time between two kills, and how much longer it may be.
const APART: (Duration, Duration) = (Duration::from_millis(800), Duration::from_millis(1200));
/// How long a step of a client may take: a node that was killed starts again meanwhile.
const STEP: Duration = Duration::from_secs(20);
/// How long clients have at the end for the rest.
const THE_REST: Duration = Duration::from_secs(120);

/// A producer's database: the rows of its outbox, and which of them are published.
#[derive(Default)]
struct Outbox {
    rows: u64,
    /// rows below this one are published
    first: u64,
    /// and these above it
    published: BTreeSet<u64>,
    /// how often a row was in flight when a connection ended
    doubts: BTreeMap<u64, usize>,
}

impl Outbox {
    /// The next rows to publish. The producer's work makes new ones, while it goes on.
    fn next(&mut self, goes_on: bool) -> Vec<u64> {
        while self.published.remove(&(self.first + 1)) {
            self.first += 1;
        }
        if goes_on && self.rows < self.first + IN_FLIGHT {
            self.rows += IN_FLIGHT;
        }
        let rows = (self.first + 1..=self.rows).filter(|row| !self.published.contains(row));
        rows.take(usize::try_from(IN_FLIGHT).unwrap()).collect()
    }
}

/// One time that a message took effect.
struct Effect {
    at: Instant,
    /// when the consumer has written the ack for it
    acked: Option<Instant>,
}

/// The consumers' database. A real one would refuse what it has seen; this one counts it.
#[derive(Default)]
struct Effects(Mutex<BTreeMap<String, Vec<Effect>>>);

impl Effects {
    /// How many messages have taken effect.
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Does the work of a message. Returns how often that was done before.
    fn work(&self, id: &str) -> usize {
        let mut effects = self.0.lock().unwrap();
        let effects = effects.entry(id.to_owned()).or_default();
        effects.push(Effect { at: now(), acked: None });
        effects.len() - 1
    }

    fn acked(&self, id: &str, nth: usize) {
        if let Some(effect) = self.0.lock().unwrap().get_mut(id).and_then(|effects| effects.get_mut(nth)) {
            effect.acked = Some(now());
        }
    }
}

/// Broker, Redis, both relays, and between the relays and their clients what can be cut: a client whose connection is cut knows nothing
/// but what its database says, as one that was killed.
struct World {
    rabbit: Arc<Rabbit>,
    redis: Server,
    front: Relay,
    back: Relay,
    producers: Cut,
    consumers: Cut,
    _state: Leash,
}

impl World {
    fn new() -> World {
        let rabbit = own_rabbit();
        rabbit.add_vhost(VHOST).unwrap();
        let redis = Server::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        let state = Leash::new("exactly-once").unwrap();
        let front = Relay::start(rabbit.addr(), &front(&state.folder().join("state")));
        let back = Relay::start(rabbit.addr(), &back(&redis));
        let mut direct = direct(&rabbit);
        for queue in ["jobs", "ledger"] {
            direct.declare(1, queue, &[]);
            direct.bind(1, queue, ("amq.fanout", ""), &[]);
        }
        rabbit.sync_metadata().unwrap();
        let (producers, consumers) = (Cut::forward(front.addr()), Cut::forward(back.addr()));
        World { rabbit, redis, front, back, producers, consumers, _state: state }
    }

    /// Kills something. Returns true if acks of consumers may have been lost by that.
    fn kill(&mut self, what: u64) -> bool {
        match what {
            0 => self.front.restart(),
            1 => self.producers.cut_all(),
            2 => self.back.restart(),
            3 => self.consumers.cut_all(),
            4 => self.redis.restart(),
            _ => self.rabbit.restart().unwrap(),
        }
        what > 1
    }
}

/// A client that no relay stands before.
fn direct(rabbit: &Rabbit) -> Raw {
    let mut direct = Raw::connect(rabbit.addr(), VHOST);
    direct.open_channel(1);
    direct
}

/// The relay before the producers: it remembers on disk which rows are stored.
fn front(state: &Path) -> String {
    format!(
        "state_dir = \"{}\"\n[[window]]\nname = \"outboxes\"\nid = \"sequence\"\nttl = \"1h\"\nstore = \"disk\"\nremember = \"sync\"\n",
        state.display()
    )
}

/// The relay before the consumers: Redis remembers what they have acked.
fn back(redis: &Server) -> String {
    format!(
        "window = []\ndigest_secret_file = \"{}\"\n[store.redis]\n{}\nlease = \"2s\"\n[[guard]]\nname = \"workers\"\nqueue = \"jobs\"\nid = [\"header:x-hapax-producer\", \"header:x-hapax-sequence\"]\ncapacity = 1000000\nttl = \"1h\"\nstore = \"redis\"\nremember = \"sync\"\non_outage = \"refuse\"\n",
        redis.secret().display(),
        redis.url(),
    )
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn channel(addr: SocketAddr) -> Result<(Connection, Channel), Failed> {
    let uri = format!("amqp://guest:guest@{addr}/{VHOST}");
    let connection = timeout(STEP, Connection::connect(&uri, ConnectionProperties::default())).await??;
    let channel = timeout(STEP, connection.create_channel()).await??;
    Ok((connection, channel))
}

/// A producer, and how far all of them are.
struct Producer {
    name: String,
    outbox: Arc<Mutex<Outbox>>,
    published: Arc<AtomicUsize>,
    effects: Arc<Effects>,
    stop: Arc<AtomicBool>,
}

/// Publishes its outbox until it is told to stop, and then the rest of it.
async fn produce(addr: SocketAddr, producer: Producer) {
    while publish_rows(addr, &producer).await.is_err() {
        sleep(Duration::from_millis(20)).await;
    }
}

async fn publish_rows(addr: SocketAddr, producer: &Producer) -> Result<(), Failed> {
    let Producer { name, outbox, published, effects, stop } = producer;
    let (_connection, channel) = channel(addr).await?;
    timeout(STEP, channel.confirm_select(ConfirmSelectOptions::default())).await??;
    loop {
        let stops = stop.load(SeqCst);
        let rests = published.load(SeqCst) > effects.len() + AHEAD;
        let rows = outbox.lock().unwrap().next(!stops && !rests);
        if rows.is_empty() && stops {
            return Ok(());
        }
        if rows.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        let mut unknown: BTreeSet<u64> = rows.iter().copied().collect();
        let done = timeout(STEP, publish_these(name, &channel, &rows, outbox, &mut unknown)).await;
        published.fetch_add(rows.len() - unknown.len(), SeqCst);
        let mut outbox = outbox.lock().unwrap();
        unknown.into_iter().for_each(|row| *outbox.doubts.entry(row).or_default() += 1);
        drop(outbox);
        done??;
    }
}

/// Publishes these rows, and takes each out of `unknown` whose outcome is known.
async fn publish_these(
    name: &str,
    channel: &Channel,
    rows: &[u64],
    outbox: &Mutex<Outbox>,
    unknown: &mut BTreeSet<u64>,
) -> Result<(), Failed> {
    let mut confirms = Vec::new();
    for row in rows {
        let mut headers = FieldTable::default();
        headers.insert("x-hapax-producer".into(), AMQPValue::LongString(name.into()));
        headers.insert("x-hapax-sequence".into(), AMQPValue::LongLongInt(i64::try_from(*row)?));
        let id = format!("{name}-{row}");
        let properties = BasicProperties::default()
            .with_message_id(id.as_str().into())
            .with_delivery_mode(2)
            .with_headers(headers);
        let options = BasicPublishOptions::default();
        let published =
            channel.basic_publish("amq.fanout".into(), "".into(), options, id.as_bytes(), properties);
        confirms.push((*row, published.await?));
    }
    for (row, confirm) in confirms {
        let answer = confirm.await?;
        unknown.remove(&row);
        if let Confirmation::Ack(None) = answer {
            outbox.lock().unwrap().published.insert(row);
        }
    }
    Ok(())
}

/// Consumes until it is told that all is done.
async fn consume(addr: SocketAddr, effects: Arc<Effects>, over: Arc<AtomicBool>, mut dice: Rng) {
    while work(addr, &effects, &over, &mut dice).await.is_err() {
        sleep(Duration::from_millis(20)).await;
    }
}

async fn work(addr: SocketAddr, effects: &Effects, over: &AtomicBool, dice: &mut Rng) -> Result<(), Failed> {
    let (_connection, channel) = channel(addr).await?;
    timeout(STEP, channel.basic_qos(20, BasicQosOptions::default())).await??;
    let consuming = channel.basic_consume(
        "jobs".into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut deliveries = timeout(STEP, consuming).await??;
    loop {
        let next = match timeout(Duration::from_millis(500), deliveries.next()).await {
            Ok(next) => next.ok_or("the consumer has ended")??,
            Err(_) if over.load(SeqCst) => return Ok(()),
            Err(_) if !channel.status().connected() => return Err("the channel has ended".into()),
            Err(_) => continue,
        };
        let id = next.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
        let nth = effects.work(&id);
        if dice.below(DIES) == 0 {
            return Err("it dies between its work and its ack".into());
        }
        timeout(STEP, next.ack(BasicAckOptions::default())).await??;
        effects.acked(&id, nth);
    }
}

/// How often something came twice, and why nobody could prevent it.
#[derive(Debug, Default)]
struct Report {
    rows: usize,
    stored_twice: usize,
    effects: usize,
    /// the consumer died between its work and its ack
    not_acked: usize,
    /// the ack may have been on its way when something died
    on_its_way: usize,
    /// effects whose ack has certainly arrived: none of them may come again
    certain: usize,
    broken: Vec<String>,
}

impl Report {
    fn add(&mut self, id: &str, effects: &[Effect], kills: &[Instant]) {
        self.effects += effects.len();
        for (nth, effect) in effects.iter().enumerate() {
            let came_again = nth + 1 < effects.len();
            let near = |acked: Instant| {
                kills.iter().any(|kill| *kill + ON_ITS_WAY > effect.at && *kill < acked + ON_ITS_WAY)
            };
            match effect.acked {
                None => self.not_acked += usize::from(came_again),
                Some(acked) if near(acked) => self.on_its_way += usize::from(came_again),
                Some(_) => {
                    self.certain += 1;
                    if came_again {
                        self.broken.push(id.to_owned());
                    }
                }
            }
        }
    }
}

#[test]
fn from_an_outbox_to_an_effect() {
    if without_relay() {
        return;
    }
    let long = std::env::var("HAPAX_EXACTLY_ONCE").ok().and_then(|seconds| seconds.parse().ok());
    let (lasts, kinds) = long.map_or((10, 4), |seconds| (seconds, 6));
    let mut world = World::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let outboxes: Vec<Arc<Mutex<Outbox>>> = (0..PRODUCERS).map(|_| Arc::default()).collect();
    let (effects, published): (Arc<Effects>, Arc<AtomicUsize>) = Default::default();
    let (stop, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut dice = Rng::seeded("from_an_outbox_to_an_effect");
    let producers: Vec<_> = (0..)
        .zip(&outboxes)
        .map(|(n, outbox)| {
            let producer = Producer {
                name: format!("producer-{n}"),
                outbox: Arc::clone(outbox),
                published: Arc::clone(&published),
                effects: Arc::clone(&effects),
                stop: Arc::clone(&stop),
            };
            runtime.spawn(produce(world.producers.addr(), producer))
        })
        .collect();
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|_| {
            let dice = Rng(dice.next());
            runtime.spawn(consume(world.consumers.addr(), Arc::clone(&effects), Arc::clone(&over), dice))
        })
        .collect();

    let (begun, mut kills, mut counts) = (now(), Vec::new(), [0; 6]);
    while now() < begun + Duration::from_secs(lasts) {
        let longer = dice.below(u64::try_from(APART.1.as_millis()).unwrap());
        let until = now() + APART.0 + Duration::from_millis(longer);
        while let Some(left) = until.checked_duration_since(now()) {
            thread::park_timeout(left);
        }
        let what = dice.below(kinds);
        let from = now();
        if world.kill(what) {
            // It took a while to start again. Acks got lost for as long.
            kills.extend([from, now()]);
        }
        counts[usize::try_from(what).unwrap()] += 1;
    }
    stop.store(true, SeqCst);
    runtime.block_on(async {
        for producer in producers {
            timeout(THE_REST, producer).await.expect("all rows are published").unwrap();
        }
    });
    let rows: Vec<String> = (0..)
        .zip(&outboxes)
        .flat_map(|(n, outbox)| {
            let rows = outbox.lock().unwrap().rows;
            (1..=rows).map(move |row| format!("producer-{n}-{row}"))
        })
        .collect();
    wait::until("every row has taken effect", THE_REST, || {
        let effects = effects.0.lock().unwrap();
        rows.iter().all(|row| effects.contains_key(row)).then_some(())
    });
    over.store(true, SeqCst);
    runtime.block_on(async {
        for consumer in consumers {
            timeout(THE_REST, consumer).await.expect("the consumers end").unwrap();
        }
    });

    let stored = retry::held(&mut direct(&world.rabbit), "ledger");
    let mut report = Report { rows: rows.len(), ..Report::default() };
    for (n, outbox) in outboxes.iter().enumerate() {
        let outbox = outbox.lock().unwrap();
        for row in 1..=outbox.rows {
            let copies = stored.get(&format!("producer-{n}-{row}")).copied().unwrap_or_default();
            let doubts = outbox.doubts.get(&row).copied().unwrap_or_default();
            assert!(copies > 0, "producer-{n}-{row} is lost");
            assert!(copies <= 1 + doubts, "producer-{n}-{row}: {copies} copies, {doubts} doubts");
            report.stored_twice += copies - 1;
        }
    }
    effects.0.lock().unwrap().iter().for_each(|(id, effects)| report.add(id, effects, &kills));
    println!(
        "{lasts} s; killed: relay before the producers {}, producers {}, relay before the consumers {}, consumers {}, Redis {}, RabbitMQ {}\n\
         {} rows, 0 lost; copies too many in the broker {}; effects {}: {} came again because their consumer died before its ack, {} because the ack was on its way; of {} that were surely acked {}",
        counts[0],
        counts[1],
        counts[2],
        counts[3],
        counts[4],
        counts[5],
        report.rows,
        report.stored_twice,
        report.effects,
        report.not_acked,
        report.on_its_way,
        report.certain,
        report.broken.len(),
    );
    assert_eq!(report.broken, Vec::<String>::new());
    assert!(report.certain > report.rows / 10, "{report:?}");
}
