//! RabbitMQ's own shovel as a publisher: it moves dead letters back to the exchange that they came from, through Hapax.
//!
//! The shovel runs in the broker. It reads from a queue of the broker and publishes, with confirms, wherever its destination
//! points. It keeps all properties, so its messages have the ids of their first publish, and `x-death` besides.
#![allow(clippy::disallowed_methods, reason = "a failed step is a failed test, and a second has to pass")]

use crate::e2e::site::{Site, shared_rabbit, without_relay};
use crate::e2e::wait;
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const MESSAGES: usize = 20;

async fn channel(addr: SocketAddr, vhost: &str) -> (Connection, Channel) {
    let uri = format!("amqp://guest:guest@{addr}/{vhost}?heartbeat=0");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

/// Declares the exchange `in`, the queue `work` behind it, and `dead`, where `work` sends what is rejected.
async fn declare(channel: &Channel) {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare("in".into(), ExchangeKind::Topic, durable, FieldTable::default()).await.unwrap();
    let mut dies = FieldTable::default();
    dies.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    dies.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString("dead".into()));
    for (queue, arguments) in [("work", dies), ("dead", FieldTable::default())] {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), options, arguments).await.unwrap();
    }
    let options = QueueBindOptions::default();
    channel
        .queue_bind("work".into(), "in".into(), "a.#".into(), options, FieldTable::default())
        .await
        .unwrap();
}

/// Starts the plugin on the shared node, and a shovel from `dead` to `in`.
fn shovel(site: &Site) {
    let (vhost, broker, to) = (&site.vhost, site.rabbit.addr(), site.addr());
    let plugin = "Plugins = rabbit_plugins:enabled_plugins_file(), \
                  ok = file:write_file(Plugins, \"[rabbitmq_shovel].\\n\"), \
                  rabbit_plugins:ensure(Plugins).";
    shared_rabbit().eval(plugin).unwrap();
    let definition = format!(
        r#"{{"src-protocol": "amqp091", "src-uri": "amqp://guest:guest@{broker}/{vhost}", "src-queue": "dead",
            "dest-protocol": "amqp091", "dest-uri": "amqp://guest:guest@{to}/{vhost}",
            "dest-exchange": "in", "dest-exchange-key": "a.b", "ack-mode": "on-confirm", "reconnect-delay": 1}}"#
    );
    let definition = definition.replace('"', "\\\"").replace('\n', " ");
    let set = "ok = rabbit_runtime_parameters:parse_set";
    site.rabbit
        .eval(&format!("{set}(<<\"{vhost}\">>, <<\"shovel\">>, <<\"back\">>, <<\"{definition}\">>, none)."))
        .unwrap();
}

async fn get(channel: &Channel, queue: &str, no_ack: bool) -> Option<BasicGetMessage> {
    channel.basic_get(queue.into(), BasicGetOptions { no_ack }).await.unwrap()
}

/// Waits for that many messages in `work` and takes them, without an ack.
async fn take(channel: &Channel, round: usize) -> Vec<BasicGetMessage> {
    let deadline = Instant::now() + wait::PATIENCE;
    let mut taken = Vec::new();
    while taken.len() < MESSAGES {
        match get(channel, "work", false).await {
            Some(message) => taken.push(message),
            None => {
                assert!(
                    Instant::now() < deadline,
                    "round {round}: {} of {MESSAGES} messages came",
                    taken.len()
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    taken
}

fn bodies(messages: &[BasicGetMessage]) -> Vec<String> {
    let mut bodies: Vec<_> =
        messages.iter().map(|message| String::from_utf8_lossy(&message.data).into_owned()).collect();
    bodies.sort();
    bodies
}

/// Each message dies twice and comes back twice, and is published three times by its first publisher. Directly at the broker, it is
/// published once, because each one would be stored.
#[tokio::test]
async fn a_shovel_moves_each_dead_letter_back_once() {
    let site = Site::new("shovel", "");
    let (_publisher, publisher) = channel(site.addr(), &site.vhost).await;
    let (_worker, worker) = channel(site.rabbit.addr(), &site.vhost).await;
    declare(&publisher).await;
    let tries = if without_relay() { 1 } else { 3 };
    let wanted: Vec<_> = (0..MESSAGES).map(|number| format!("body {number:02}")).collect();
    for body in &wanted {
        let properties = BasicProperties::default().with_message_id(body.as_str().into());
        for _ in 0..tries {
            let (options, properties) = (BasicPublishOptions::default(), properties.clone());
            let publish =
                publisher.basic_publish("in".into(), "a.b".into(), options, body.as_bytes(), properties);
            assert_eq!(publish.await.unwrap().await.unwrap(), Confirmation::Ack(None));
        }
    }
    shovel(&site);
    for round in 0..3 {
        let taken = take(&worker, round).await;
        assert_eq!(bodies(&taken), wanted, "round {round}");
        assert!(
            get(&worker, "work", true).await.is_none(),
            "round {round}: more than {MESSAGES} messages came"
        );
        if round == 2 {
            taken.last().unwrap().delivery.acker.ack(BasicAckOptions { multiple: true }).await.unwrap();
            break;
        }
        // RabbitMQ 4 has only the second in which a message died, and does not count on.
        tokio::time::sleep(Duration::from_millis(1_050)).await;
        for message in &taken {
            message.delivery.acker.reject(BasicRejectOptions { requeue: false }).await.unwrap();
        }
    }
    for queue in ["work", "dead"] {
        assert!(get(&worker, queue, true).await.is_none(), "a message is left in {queue}");
    }
    if !without_relay() {
        let metrics = site.metrics();
        let verdict = |verdict| metrics.sum("publishes_total", &[("verdict", verdict)]);
        assert_eq!((verdict("fresh"), verdict("duplicate")), (60.0, 40.0));
    }
}
