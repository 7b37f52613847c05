//! Which messages are the same, in front of a real RabbitMQ: a message that comes back from a dead-letter queue, routing keys in
//! headers, ids of several parts, and headers of clients that can send only strings.
#![allow(clippy::disallowed_methods, reason = "a failed step is a failed test")]

use crate::e2e::site::Site;
use crate::e2e::wait;
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use std::time::{Duration, Instant};

/// A channel with confirms, at the relay.
struct Client {
    _connection: Connection,
    channel: Channel,
}

impl Client {
    async fn of(site: &Site) -> Client {
        let uri = format!("amqp://guest:guest@{}/{}?heartbeat=0", site.addr(), site.vhost);
        let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Client { _connection: connection, channel }
    }

    async fn declare(&self, queue: &str, arguments: FieldTable) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), options, arguments).await.unwrap();
    }

    /// Publishes to a queue. It is acked, forwarded or not.
    async fn publish(&self, queue: &str, properties: &BasicProperties) {
        let options = BasicPublishOptions::default();
        let publish =
            self.channel.basic_publish("".into(), queue.into(), options, b"body", properties.clone());
        assert_eq!(publish.await.unwrap().await.unwrap(), Confirmation::Ack(None));
    }

    async fn get(&self, queue: &str) -> Option<BasicGetMessage> {
        self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
    }

    /// Waits for a message.
    async fn take(&self, queue: &str) -> BasicProperties {
        let deadline = Instant::now() + wait::PATIENCE;
        loop {
            if let Some(message) = self.get(queue).await {
                return message.delivery.properties;
            }
            assert!(Instant::now() < deadline, "no message comes to {queue}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Takes all messages out of a queue.
    async fn count(&self, queue: &str) -> usize {
        let mut count = 0;
        while self.get(queue).await.is_some() {
            count += 1;
        }
        count
    }
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

fn id(id: &str) -> BasicProperties {
    BasicProperties::default().with_message_id(id.into())
}

/// The message dies in `work`, comes to `dead`, and is moved back by hand with the headers that it has there. Meanwhile its first
/// publisher retries, on another connection.
#[tokio::test]
async fn a_message_from_a_dead_letter_queue_passes_once_and_its_retry_is_a_duplicate() {
    let Some(site) = Site::of_relay("identity-death", "") else { return };
    let (publisher, client) = (Client::of(&site).await, Client::of(&site).await);
    let dying = |queue| {
        table([
            ("x-message-ttl", AMQPValue::LongInt(20)),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(queue)),
        ])
    };
    client.declare("work", dying("dead")).await;
    client.declare("dead", FieldTable::default()).await;
    publisher.publish("work", &id("a")).await;
    let mut seen = Vec::new();
    for round in 0..2 {
        let dead = client.take("dead").await;
        seen.push(format!("{:?}", dead.headers()));
        // The first publisher's retry, and the shovel's: only the shovel's first attempt passes, and it dies again.
        publisher.publish("work", &id("a")).await;
        client.publish("work", &dead).await;
        client.publish("work", &dead).await;
        // RabbitMQ 4 counts from 1 again, and its times are in seconds.
        if round == 0 {
            tokio::time::sleep(Duration::from_millis(1_050)).await;
        }
    }
    client.take("dead").await;
    assert_eq!(client.count("dead").await, 0, "{seen:#?}");
    let metrics = site.metrics();
    let verdict = |verdict| metrics.sum("publishes_total", &[("verdict", verdict)]);
    assert_eq!((verdict("fresh"), verdict("duplicate")), (3.0, 4.0));
    assert_eq!(metrics.sum("bad_headers_total", &[]), 0.0);
}

#[tokio::test]
async fn routing_keys_in_cc_and_bcc_are_routing_keys() {
    let Some(site) = Site::of_relay("identity-cc", "") else { return };
    let client = Client::of(&site).await;
    for queue in ["a", "b", "c"] {
        client.declare(queue, FieldTable::default()).await;
    }
    let list =
        |keys: &[&str]| AMQPValue::FieldArray(keys.iter().map(|key| text(key)).collect::<Vec<_>>().into());
    let with = |header, keys: &[&str]| id("x").with_headers(table([(header, list(keys))]));
    client.publish("a", &with("CC", &["b"])).await;
    client.publish("a", &with("CC", &["c"])).await;
    client.publish("a", &with("CC", &["b", "c"])).await;
    client.publish("a", &with("CC", &["c", "b"])).await;
    client.publish("a", &with("BCC", &["c"])).await;
    assert_eq!([client.count("a").await, client.count("b").await, client.count("c").await], [3, 2, 2]);
    // Not an array: the broker answers, although the id is known.
    let refused = id("x").with_headers(table([("CC", text("b"))]));
    let options = BasicPublishOptions::default();
    let publish = client.channel.basic_publish("".into(), "a".into(), options, b"", refused).await;
    let error = match publish {
        Ok(publish) => publish.await.unwrap_err(),
        Err(error) => error,
    };
    assert!(format!("{error:?}").contains("PRECONDITION"), "{error:?}");
    assert_eq!(site.metrics().sum("bad_headers_total", &[("header", "CC")]), 1.0);
}

/// As kombu sends the tasks of Celery, and what Celery's worker publishes with the same task id.
#[tokio::test]
async fn celery_by_its_preset() {
    let config = "[[window]]\nname = \"tasks\"\npreset = \"celery\"\n";
    let Some(site) = Site::of_relay("identity-celery", config) else { return };
    let client = Client::of(&site).await;
    client.declare("celery", FieldTable::default()).await;
    let task = |name: &str, retries: i32, nesting: i32| {
        BasicProperties::default()
            .with_correlation_id("62845044-296d-4161-9032-dfbbef74be9b".into())
            .with_content_type("application/json".into())
            .with_headers(table([
                ("lang", text("py")),
                ("task", text(name)),
                ("id", text("62845044-296d-4161-9032-dfbbef74be9b")),
                ("shadow", AMQPValue::Void),
                ("eta", AMQPValue::Void),
                ("retries", AMQPValue::LongInt(retries)),
                ("timelimit", AMQPValue::FieldArray(vec![AMQPValue::Void, AMQPValue::Void].into())),
                ("replaced_task_nesting", AMQPValue::LongInt(nesting)),
                ("stamps", AMQPValue::FieldTable(FieldTable::default())),
            ]))
    };
    for _ in 0..2 {
        client.publish("celery", &task("add", 0, 0)).await;
        client.publish("celery", &task("add", 1, 0)).await;
        client.publish("celery", &task("sum", 0, 1)).await;
    }
    assert_eq!(client.count("celery").await, 3);
    let window = site.relay().api("GET", "/api/v1/windows/tasks", "");
    assert_eq!(window["id"], "header:id, header:task, header:retries, header:replaced_task_nesting");
    let path = "/api/v1/windows/tasks/ids/62845044-296d-4161-9032-dfbbef74be9b?vhost=identity-celery&exchange=&routing_key=celery";
    let state = |parts: &str| site.relay().api("GET", &format!("{path}{parts}"), "")["state"].clone();
    let first = "&part=header:task=add&part=header:retries=0&part=header:replaced_task_nesting=0";
    assert_eq!(state(first), "seen");
    assert_eq!(state(&first.replace("retries=0", "retries=2")), "unknown");
}

#[tokio::test]
async fn a_headers_exchange_by_an_id_of_two_parts() {
    let config = "[[window]]\nname = \"all\"\nid = [\"message-id\", \"header:type\"]\n";
    let Some(site) = Site::of_relay("identity-parts", config) else { return };
    let client = Client::of(&site).await;
    client.declare("q", FieldTable::default()).await;
    let of_type = |kind: &str| id("a").with_headers(table([("type", text(kind))]));
    for _ in 0..2 {
        for properties in [id("a"), of_type("created"), of_type("paid")] {
            client.publish("q", &properties).await;
        }
    }
    assert_eq!(client.count("q").await, 3);
}

#[tokio::test]
async fn a_client_that_can_send_only_strings() {
    let Some(site) = Site::of_relay("identity-strings", "") else { return };
    let client = Client::of(&site).await;
    client.declare("q", FieldTable::default()).await;
    let with = |header, value: &str| id("a").with_headers(table([(header, text(value))]));
    client.publish("q", &id("a")).await;
    for bypass in ["true", "1", "false", "perhaps", "perhaps"] {
        client.publish("q", &with("x-hapax-bypass", bypass)).await;
    }
    assert_eq!(client.count("q").await, 3, "the first, and two that bypass");
    let short = |id: &str| {
        let headers = table([("x-cache-ttl", text("50"))]);
        BasicProperties::default().with_message_id(id.into()).with_headers(headers)
    };
    client.publish("q", &short("b")).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    client.publish("q", &short("b")).await;
    assert_eq!(client.count("q").await, 2, "its TTL was over");
    client.publish("q", &with("x-cache-ttl", "soon")).await;

    let metrics = site.metrics();
    let bad = |header| metrics.sum("bad_headers_total", &[("header", header)]);
    assert_eq!([bad("x-hapax-bypass"), bad("x-cache-ttl"), bad("x-death")], [2.0, 1.0, 0.0]);
    site.relay().until_says("can't be understood");
    let log = site.relay().log();
    let lines =
        log.lines().filter(|line| line.contains("can't be understood") && line.contains("x-hapax-bypass"));
    assert_eq!(lines.count(), 1, "once per connection:\n{log}");
    client.channel.queue_delete("q".into(), QueueDeleteOptions::default()).await.unwrap();
}
