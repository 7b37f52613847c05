//! A window that is deliberately too small, on a real RabbitMQ: it says so, it counts what it let through, and it is mended
//! while publishers go on.
//!
//! Two publishers send fresh ids at a steady rate, and each id once more a few seconds after its ack: a retry. The window
//! holds ids for about half as long. So retries escape; their number is what a consumer counts in the queue. The operator
//! sets the recommended capacity by the API: coverage returns to 1, escapes stop, and no connection was dropped.
//!
//! `HAPAX_SHOTS=DIR` takes pictures of the dashboard on the way, for `docs/tuning.md`.
#![allow(
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a failed step is a failed test, and publishers keep time"
)]

use crate::dashboard::browser::Browser;
use crate::e2e::prometheus::Prometheus;
use crate::e2e::relay::Relay;
use crate::e2e::site::Site;
use crate::e2e::wait;
use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const WINDOW: &str = "orders";
const QUEUE: &str = "orders.new";
/// Fresh ids of one publisher per tick, and how long a tick is: 200 a second, times two publishers.
const PER_TICK: u64 = 4;
const TICK: Duration = Duration::from_millis(20);
/// The time between the ack of an id and its retry.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Half of what the retries would need: 400 ids a second are remembered for 2.5 s.
const TOO_SMALL: u64 = 1_000;
const TTL: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(90);

/// When which id is to be sent once more.
type Retries = Arc<Mutex<VecDeque<(Instant, String)>>>;

/// A publisher that sends until it has to rest, on one connection, and knows which ids were acked.
struct Publisher {
    name: &'static str,
    resting: watch::Receiver<bool>,
    acked: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Publisher {
    async fn run(self, uri: String) {
        let properties = ConnectionProperties::default().with_connection_name(self.name.into());
        let connection = Connection::connect(&uri, properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let retries = Retries::default();
        let mut tick = tokio::time::interval(TICK);
        let mut number = 0_u64;
        while !self.over.load(Relaxed) {
            tick.tick().await;
            if *self.resting.borrow() {
                continue;
            }
            for _ in 0..PER_TICK {
                number += 1;
                self.publish(&channel, format!("{}-{number}", self.name), Some(&retries)).await;
            }
            let now = Instant::now();
            let due: Vec<String> = {
                let mut retries = retries.lock().unwrap();
                let count = retries.iter().take_while(|(at, _)| *at <= now).count();
                retries.drain(..count).map(|(_, id)| id).collect()
            };
            for id in due {
                self.publish(&channel, id, None).await;
            }
        }
        connection.close(200, "done".into()).await.unwrap();
    }

    /// Publishes; a task waits for the ack, which every publish must get.
    async fn publish(&self, channel: &Channel, id: String, retries: Option<&Retries>) {
        let properties = BasicProperties::default().with_message_id(id.as_str().into());
        let options = BasicPublishOptions::default();
        let confirm =
            channel.basic_publish("".into(), QUEUE.into(), options, id.as_bytes(), properties).await.unwrap();
        self.sent.fetch_add(1, Relaxed);
        let (acked, retries) = (Arc::clone(&self.acked), retries.cloned());
        tokio::spawn(async move {
            assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
            if let Some(retries) = retries {
                retries.lock().unwrap().push_back((Instant::now() + RETRY_AFTER, id));
            }
            acked.fetch_add(1, Relaxed);
        });
    }
}

/// The ids that a consumer has found in the queue, and how often.
#[derive(Clone, Default)]
struct Census(Arc<Mutex<HashMap<String, u64>>>);

impl Census {
    async fn consume(self, uri: String) {
        let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let mut deliveries = channel
            .basic_consume(QUEUE.into(), "census".into(), options, FieldTable::default())
            .await
            .unwrap();
        while let Some(Ok(delivery)) = deliveries.next().await {
            let id = String::from_utf8(delivery.data).unwrap();
            *self.0.lock().unwrap().entry(id).or_default() += 1;
        }
    }

    fn stored(&self) -> u64 {
        self.0.lock().unwrap().values().sum()
    }

    fn twice(&self) -> u64 {
        self.0.lock().unwrap().values().map(|count| count - 1).sum()
    }
}

/// The operator, who has the API and nothing else.
struct Operator<'a>(&'a Relay);

impl Operator<'_> {
    fn window(&self) -> Value {
        self.0.api("GET", &format!("/api/v1/windows/{WINDOW}"), "")
    }

    fn patch(&self, change: &Value) -> Value {
        self.0.api("PATCH", &format!("/api/v1/windows/{WINDOW}"), &change.to_string())
    }

    fn until(&self, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            last = self.window();
            if holds(&last) {
                return last;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        panic!("not within {PATIENCE:?}: {what}; the window says {last:#}");
    }
}

fn number(window: &Value, field: &str) -> f64 {
    window[field].as_f64().unwrap_or_else(|| panic!("{field} of {window:#}"))
}

#[test]
fn a_window_too_small_says_so_and_is_mended_while_publishers_go_on() {
    let config =
        format!("[[window]]\nname = \"{WINDOW}\"\ncapacity = {TOO_SMALL}\nttl = \"{}s\"\n", TTL.as_secs());
    let Some(site) = Site::of_relay("pressure", &config) else { return };
    let operator = Operator(site.relay());
    let prometheus = Prometheus::start(site.relay().admin());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let through = format!("amqp://guest:guest@{}/{}?heartbeat=0", site.addr(), site.vhost);
    let direct = format!("amqp://guest:guest@{}/{}?heartbeat=0", site.rabbit.addr(), site.vhost);

    // The scene: a queue, one who counts what is in it, two who publish.
    let census = Census::default();
    runtime.block_on(async {
        let connection = Connection::connect(&direct, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel
            .queue_declare(QUEUE.into(), QueueDeclareOptions::default(), FieldTable::default())
            .await
            .unwrap();
        connection.close(200, "declared".into()).await.unwrap();
    });
    runtime.spawn(census.clone().consume(direct));
    let (rest, resting) = watch::channel(false);
    let (acked, sent, over) =
        (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::new(AtomicBool::new(false)));
    let publishers = ["till-1", "till-2"].map(|name| {
        let publisher = Publisher {
            name,
            resting: resting.clone(),
            acked: Arc::clone(&acked),
            sent: Arc::clone(&sent),
            over: Arc::clone(&over),
        };
        runtime.spawn(publisher.run(through.clone()))
    });
    // At rest, every publish has its answer, and what was stored has been taken out and counted.
    let settle = || {
        rest.send_replace(true);
        wait::until("publishers rest, all is answered and counted", PATIENCE, || {
            let window = operator.window();
            let stored = window["commits"].as_u64().unwrap();
            let before = sent.load(Relaxed);
            (acked.load(Relaxed) == before
                && census.stored() == stored
                && window["in_flight"] == 0
                && sent.load(Relaxed) == before)
                .then_some(window)
        })
    };

    // 1. It is too small, and says so: level, coverage, log.
    let pressed = operator.until(
        "critical, hundreds of retries have escaped, and there was a TTL of traffic to judge by",
        |window| {
            window["level"] == "critical"
                && number(window, "escaped_duplicates") >= 400.0
                && window["recommended_capacity"].is_u64()
        },
    );
    println!("pressed: {pressed:#}");
    let coverage = number(&pressed, "coverage");
    // By now each of the 400 ids a second escapes once, and counts as fresh again.
    let really = TOO_SMALL as f64 / 800.0 / TTL.as_secs_f64();
    assert!((really * 0.5..really * 2.0).contains(&coverage), "{coverage} instead of about {really}");
    assert!(number(&pressed, "pressure") > 1.0);
    site.relay().until_says("the window is too small: ids are forgotten before their TTL is over");
    let firing = r#"ALERTS{alertname="HapaxDuplicatesEscaping",alertstate="firing",window="orders"}"#;
    wait::until("the alert fires", PATIENCE, || (!prometheus.query(firing).is_empty()).then_some(()));
    runtime.block_on(shot("critical", site.relay().admin()));

    // 2. The consumer finds twice exactly the ids that escaped.
    let recommended = pressed["recommended_capacity"].as_u64().unwrap();
    let at_rest = settle();
    let rate = at_rest["ghost"]["false_positive_rate"].as_f64().unwrap();
    let mistaken = (rate * number(&at_rest, "commits")).ceil() as u64;
    let (escaped, twice) = (at_rest["escaped_duplicates"].as_u64().unwrap(), census.twice());
    println!("escaped {escaped}, found twice {twice}, by mistake at most {mistaken}");
    assert!(
        twice > 0 && (twice..=twice + mistaken).contains(&escaped),
        "{escaped} escaped, {twice} found twice"
    );

    // 3. The operator does what it recommends; publishers go on where they were.
    let (publishing, accepted) = (sent.load(Relaxed), site.metrics().sum("connections_accepted_total", &[]));
    let changed = operator.patch(&json!({ "capacity": recommended }));
    assert_eq!(changed["capacity"], recommended);
    rest.send_replace(false);
    let well = operator.until(
        "coverage is 1 again, the level ok, and the window has been through a TTL",
        |window| {
            window["level"] == "ok"
                && number(window, "coverage") == 1.0
                && number(window, "commits") - number(&at_rest, "commits") > 400.0 * TTL.as_secs_f64() * 1.2
        },
    );
    println!("well: {well:#}");
    runtime.block_on(shot("well", site.relay().admin()));

    // 4. Escapes have stopped, duplicates are caught, nobody was disconnected.
    let later = operator.until("as many retries again, all of them caught", |window| {
        number(window, "commits") - number(&well, "commits") > 400.0 * 6.0
    });
    assert_eq!(later["escaped_duplicates"], well["escaped_duplicates"], "escapes have stopped");
    let caught =
        later["publishes"]["duplicate"].as_u64().unwrap() - well["publishes"]["duplicate"].as_u64().unwrap();
    assert!(caught > 0, "{later:#}");
    let at_rest = settle();
    let (escaped, twice) = (at_rest["escaped_duplicates"].as_u64().unwrap(), census.twice());
    println!("escaped {escaped}, found twice {twice}, caught {}", at_rest["publishes"]["duplicate"]);
    assert!((twice..=twice + mistaken + 1).contains(&escaped), "{escaped} escaped, {twice} found twice");
    assert!(sent.load(Relaxed) > publishing);
    assert_eq!(
        site.metrics().sum("connections_accepted_total", &[]),
        accepted,
        "nobody had to connect again"
    );
    over.store(true, Relaxed);
    rest.send_replace(false);
    for publisher in publishers {
        runtime.block_on(publisher).expect("a publisher that was never disturbed");
    }
}

/// A picture of the dashboard, where somebody asks for them.
async fn shot(name: &str, admin: SocketAddr) {
    let Some(folder) = std::env::var_os("HAPAX_SHOTS") else { return };
    let browser = Browser::open(admin).await;
    // Rates are of the minute that the page has seen; the curve and the gauges are the relay's own.
    browser.until_true("a few seconds are drawn", "return performance.now() > 12000").await;
    browser.shoot(&Path::new(&folder).join(format!("pressure-{name}.png"))).await;
    browser.close(&[]).await;
}
