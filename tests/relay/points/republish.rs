//! Point 16: a consumer that publishes its own delivery again, by a real client.

use crate::e2e::raw::{Publish, Told};
use crate::e2e::site::Site;
use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use std::time::Duration;

/// How long a delivery may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing may come. It only has to be long enough for what would come at once.
const QUIET: Duration = Duration::from_millis(300);

/// A confirming channel of a connection of its own.
async fn channel(site: &Site) -> Channel {
    let uri = format!("amqp://guest:guest@{}/{}", site.addr(), site.vhost);
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    // The connection lives as long as the process of the test.
    std::mem::forget(connection);
    channel
}

/// A consumer that gets the next message when it has acked the one before.
async fn consume(channel: &Channel, queue: &str) -> Consumer {
    channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    channel.queue_declare(queue.into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    channel
        .basic_consume(queue.into(), "c".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .unwrap()
}

async fn next(consumer: &mut Consumer) -> Delivery {
    tokio::time::timeout(PATIENCE, consumer.next()).await.expect("a delivery").unwrap().unwrap()
}

async fn is_quiet(consumer: &mut Consumer) -> bool {
    tokio::time::timeout(QUIET, consumer.next()).await.is_err()
}

/// Publishes with the retry count that every hand-made retry has, and waits for the ack.
async fn publish(channel: &Channel, queue: &str, id: &str, tries: i64) {
    let mut headers = FieldTable::default();
    headers.insert("tries".into(), AMQPValue::LongLongInt(tries));
    let properties = BasicProperties::default().with_message_id(id.into()).with_headers(headers);
    let options = BasicPublishOptions::default();
    let confirm = channel.basic_publish("".into(), queue.into(), options, b"", properties).await.unwrap();
    assert!(confirm.await.unwrap().is_ack());
}

fn tries(delivery: &Delivery) -> i64 {
    let headers = delivery.properties.headers().clone().unwrap_or_default();
    match headers.inner().get("tries") {
        Some(AMQPValue::LongLongInt(tries)) => *tries,
        other => panic!("{other:?}"),
    }
}

fn id(delivery: &Delivery) -> String {
    delivery.properties.message_id().clone().unwrap().to_string()
}

async fn ack(delivery: &Delivery) {
    delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
}

/// A message, ten retries by its consumer, each published a second time because its ack was lost.
#[tokio::test]
async fn p16_ten_rounds_of_a_retry_by_hand() {
    let Some(site) = Site::of_relay("p16-rounds", "") else { return };
    let (consuming, publishing) = (channel(&site).await, channel(&site).await);
    let mut jobs = consume(&consuming, "jobs").await;
    publish(&publishing, "jobs", "job", 0).await;
    for round in 0..10 {
        let delivery = next(&mut jobs).await;
        assert_eq!((tries(&delivery), id(&delivery).as_str()), (round, "job"));
        publish(&consuming, "jobs", "job", round + 1).await;
        publish(&publishing, "jobs", "job", round + 1).await;
        ack(&delivery).await;
    }
    let last = next(&mut jobs).await;
    assert_eq!(tries(&last), 10);
    ack(&last).await;
    publish(&publishing, "jobs", "job", 0).await;
    assert!(is_quiet(&mut jobs).await, "every copy was stored once");
    let publishes = |verdict| site.metrics().sum("publishes_total", &[("verdict", verdict)]);
    assert_eq!((publishes("fresh"), publishes("republished"), publishes("duplicate")), (1.0, 10.0, 11.0));
}

/// The consumer publishes each message again while its publisher still publishes: often before the publisher has its ack.
#[tokio::test]
async fn p16_none_of_many_republished_messages_is_lost() {
    const MESSAGES: usize = 100;
    let Some(site) = Site::of_relay("p16-many", "") else { return };
    let (consuming, publishing) = (channel(&site).await, channel(&site).await);
    let mut jobs = consume(&consuming, "jobs").await;
    let publisher = tokio::spawn(async move {
        for n in 0..MESSAGES {
            let id = format!("job-{n}");
            publish(&publishing, "jobs", &id, 0).await;
        }
    });
    let mut ids = [Vec::new(), Vec::new()];
    while ids[1].len() < MESSAGES {
        let delivery = next(&mut jobs).await;
        let (id, round) = (id(&delivery), tries(&delivery) as usize);
        if round == 0 {
            publish(&consuming, "jobs", &id, 1).await;
        }
        ids[round].push(id);
        ack(&delivery).await;
    }
    publisher.await.unwrap();
    assert!(is_quiet(&mut jobs).await);
    ids.iter_mut().for_each(|ids| ids.sort());
    assert_eq!(ids[0], ids[1]);
    ids[0].dedup();
    assert_eq!(ids[0].len(), MESSAGES);
    assert_eq!(site.metrics().sum("publishes_total", &[("verdict", "republished")]), MESSAGES as f64);
}

/// A pipeline that reads from one queue and publishes the same id to the next one publishes each message there once, also when
/// the first one is delivered again.
#[tokio::test]
async fn p16_a_pipeline_stays_deduplicated() {
    let config = "[[window]]\nname = \"w\"\nscope = \"exchange\"\n";
    for (vhost, config) in [("p16-pipe", ""), ("p16-pipe-wide", config)] {
        let Some(site) = Site::of_relay(vhost, config) else { return };
        let (working, publishing) = (channel(&site).await, channel(&site).await);
        let mut first = consume(&working, "first").await;
        let mut second = consume(&channel(&site).await, "second").await;
        publish(&publishing, "first", "a", 0).await;
        for _ in 0..3 {
            let delivery = next(&mut first).await;
            publish(&working, "second", "a", 0).await;
            delivery
                .acker
                .nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() })
                .await
                .unwrap();
        }
        let copies = usize::from(config.is_empty());
        for _ in 0..copies {
            ack(&next(&mut second).await).await;
        }
        assert!(is_quiet(&mut second).await, "{vhost}");
        assert_eq!(site.metrics().sum("publishes_total", &[("verdict", "republished")]), 0.0);
    }
}

/// Rascal, MassTransit and Spring publish on a second connection.
#[tokio::test]
async fn p16_a_second_connection_needs_the_rule_host() {
    for (rule, copies) in [("connection", 0), ("host", 1), ("drop", 0)] {
        let config = format!("[[window]]\nname = \"w\"\nrepublish = \"{rule}\"\n");
        let Some(site) = Site::of_relay(&format!("p16-{rule}"), &config) else { return };
        let (consuming, publishing) = (channel(&site).await, channel(&site).await);
        let mut jobs = consume(&consuming, "jobs").await;
        publish(&publishing, "jobs", "a", 0).await;
        let delivery = next(&mut jobs).await;
        publish(&publishing, "jobs", "a", 1).await;
        publish(&publishing, "jobs", "a", 1).await;
        ack(&delivery).await;
        for _ in 0..copies {
            ack(&next(&mut jobs).await).await;
        }
        assert!(is_quiet(&mut jobs).await, "{rule}");
    }
}

/// Another user on the same host has got nothing, so its copy is a duplicate, even if it knows the id.
#[test]
fn p16_another_user_can_not_use_a_delivery() {
    let config = "[[window]]\nname = \"w\"\nrepublish = \"host\"\n";
    let Some(site) = Site::of_relay("p16-user", config) else { return };
    site.add_user("p16-other", ".*");
    let mut consumer = site.client();
    consumer.confirming(1);
    consumer.declare(1, "q", &[]);
    consumer.publish_and_settle(1, &Publish::to("q", "a"));
    assert!(consumer.get(1, "q").is_some());
    let login = crate::e2e::raw::Login::new(&site.vhost, "p16-other", "p16-other");
    let mut other = crate::e2e::raw::Raw::login(site.addr(), &login).unwrap();
    other.confirming(1);
    for _ in 0..2 {
        assert!(matches!(other.publish_and_settle(1, &Publish::to("q", "a"))[..], [Told::Ack { .. }]));
    }
    let mut direct = site.direct();
    direct.open_channel(1);
    assert_eq!(direct.drain(1, "q"), [""; 0]);
    // The consumer itself may.
    consumer.publish_and_settle(1, &Publish::to("q", "a"));
    consumer.publish_and_settle(1, &Publish::to("q", "a"));
    assert_eq!(direct.drain(1, "q"), ["a"]);
}
