//! Rust's `lapin` through Hapax, as it is at RabbitMQ itself: the same scenarios as the other languages' in
//! `tests/clients/`, here as tests. `HAPAX_E2E_DIRECT=1` leaves the relay out (see [`e2e`]).
#![allow(
    clippy::disallowed_methods,
    reason = "a failed step is a failed test, and the heartbeat test measures time"
)]

use crate::e2e::site::{Site, own_rabbit};
use futures_util::{Stream, StreamExt};
use lapin::message::BasicReturnMessage;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions,
    BasicQosOptions, BasicRecoverOptions, BasicRejectOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind, Event};
use std::time::{Duration, Instant};

/// A connection and a channel, and what goes with them.
struct Scene {
    connection: Connection,
    channel: Channel,
}

fn uri(site: &Site, user: &str, password: &str, vhost: &str, heartbeat: u32) -> String {
    format!("amqp://{user}:{password}@{}/{vhost}?heartbeat={heartbeat}", site.addr())
}

async fn connect(uri: &str) -> lapin::Result<Connection> {
    Connection::connect(uri, ConnectionProperties::default()).await
}

impl Scene {
    async fn new(site: &Site, confirm: bool) -> Scene {
        Scene::at(&uri(site, "guest", "guest", &site.vhost, 0), confirm).await
    }

    async fn at(uri: &str, confirm: bool) -> Scene {
        let connection = connect(uri).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        if confirm {
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        }
        Scene { connection, channel }
    }

    async fn declare(&self, queue: &str, arguments: FieldTable) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), options, arguments).await.unwrap();
    }

    /// Publishes and waits for the answer.
    async fn publish(&self, queue: &str, id: &str) -> Confirmation {
        publish(&self.channel, "", queue, id, id.as_bytes(), false).await.unwrap()
    }

    async fn drain(&self, queue: &str) -> Vec<String> {
        drain(&self.channel, queue).await
    }
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    id: &str,
    body: &[u8],
    mandatory: bool,
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_message_id(id.into());
    channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?.await
}

async fn drain(channel: &Channel, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
    {
        bodies.push(String::from_utf8_lossy(&message.data).into_owned());
    }
    bodies
}

/// The code that the broker closed with.
fn code<T: std::fmt::Debug>(result: lapin::Result<T>) -> u16 {
    match result.unwrap_err().kind() {
        ErrorKind::ProtocolError(error) => error.get_id(),
        other => panic!("not closed by the broker but {other:?}"),
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(crate::e2e::wait::PATIENCE, what).await.expect("it happens before the deadline")
}

async fn heard(events: &mut (impl Stream<Item = Event> + Unpin), wanted: impl Fn(&Event) -> bool) {
    while let Some(event) = soon(events.next()).await {
        if wanted(&event) {
            return;
        }
    }
    panic!("no more events");
}

fn returned(confirmation: Confirmation) -> BasicReturnMessage {
    match confirmation {
        Confirmation::Ack(Some(message)) => message,
        other => panic!("a return and an ack are expected: {other:?}"),
    }
}

const PLAIN_ACK: Confirmation = Confirmation::Ack(None);

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn publishing_with_and_without_confirms() {
    let site = Site::new("lapin-publish", "");
    for (queue, confirm, expected) in [("c", true, PLAIN_ACK), ("p", false, Confirmation::NotRequested)] {
        let scene = Scene::new(&site, confirm).await;
        scene.declare(queue, FieldTable::default()).await;
        let mut under_way = Vec::new();
        for id in numbers(100) {
            let properties = BasicProperties::default().with_message_id(id.as_str().into());
            let options = BasicPublishOptions::default();
            let publish =
                scene.channel.basic_publish("".into(), queue.into(), options, id.as_bytes(), properties);
            under_way.push(publish.await.unwrap());
        }
        for confirmation in under_way {
            assert_eq!(confirmation.await.unwrap(), expected);
        }
        assert_eq!(scene.drain(queue).await, numbers(100));
        scene.connection.close(200, "".into()).await.unwrap();
    }
}

#[tokio::test]
async fn mandatory_and_nacks() {
    let site = Site::new("lapin-mandatory", "");
    let scene = Scene::new(&site, true).await;
    let message = returned(publish(&scene.channel, "", "none", "a", b"lost", true).await.unwrap());
    assert_eq!((message.reply_code, &message.delivery.data[..]), (312, &b"lost"[..]));

    let mut full = FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(1));
    full.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    scene.declare("full", full).await;
    assert_eq!(scene.publish("full", "b").await, PLAIN_ACK);
    assert_eq!(scene.publish("full", "c").await, Confirmation::Nack(None));
}

#[tokio::test]
async fn tx_commit_and_rollback() {
    let site = Site::new("lapin-tx", "");
    let scene = Scene::new(&site, false).await;
    scene.declare("q", FieldTable::default()).await;
    scene.channel.tx_select().await.unwrap();
    scene.publish("q", "committed").await;
    scene.channel.tx_commit().await.unwrap();
    scene.publish("q", "rolled-back").await;
    scene.channel.tx_rollback().await.unwrap();
    let other = scene.connection.create_channel().await.unwrap();
    assert_eq!(drain(&other, "q").await, ["committed"]);
}

#[tokio::test]
async fn large_and_empty_bodies() {
    let site = Site::new("lapin-bodies", "");
    let scene = Scene::new(&site, true).await;
    scene.declare("q", FieldTable::default()).await;
    let large: Vec<u8> =
        (0..16 << 20_u32).map(|n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    assert_eq!(publish(&scene.channel, "", "q", "large", &large, false).await.unwrap(), PLAIN_ACK);
    assert_eq!(publish(&scene.channel, "", "q", "empty", b"", false).await.unwrap(), PLAIN_ACK);
    for expected in [&large[..], b""] {
        let get = scene.channel.basic_get("q".into(), BasicGetOptions { no_ack: true });
        assert!(get.await.unwrap().unwrap().data == expected, "it came back changed");
    }
}

#[tokio::test]
async fn two_hundred_channels() {
    let site = Site::new("lapin-channels", "");
    let scene = Scene::new(&site, true).await;
    scene.declare("q", FieldTable::default()).await;
    let mut channels = Vec::new();
    for id in numbers(200) {
        let channel = scene.connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        assert_eq!(publish(&channel, "", "q", &id, id.as_bytes(), false).await.unwrap(), PLAIN_ACK);
        channels.push(channel);
    }
    assert_eq!(scene.drain("q").await, numbers(200));
    for channel in channels {
        channel.close(200, "".into()).await.unwrap();
    }
}

#[tokio::test]
async fn consuming() {
    let site = Site::new("lapin-consume", "");
    let scene = Scene::new(&site, true).await;
    scene.declare("q", FieldTable::default()).await;
    for id in ["ack", "nack", "reject"] {
        scene.publish("q", id).await;
    }
    let options = BasicConsumeOptions::default();
    scene.channel.basic_qos(2, BasicQosOptions::default()).await.unwrap();
    let mut consumer =
        scene.channel.basic_consume("q".into(), "some".into(), options, FieldTable::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let delivery = soon(consumer.next()).await.unwrap().unwrap();
        let body = String::from_utf8_lossy(&delivery.data).into_owned();
        match (&body[..], delivery.redelivered) {
            ("ack", _) | (_, true) => delivery.ack(BasicAckOptions::default()).await.unwrap(),
            ("nack", _) => delivery
                .nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() })
                .await
                .unwrap(),
            _ => delivery.reject(BasicRejectOptions { requeue: false }).await.unwrap(),
        };
        seen.push((body, delivery.redelivered));
    }
    seen.sort();
    let expected = [("ack", false), ("nack", false), ("nack", true), ("reject", false)];
    assert_eq!(seen, expected.map(|(body, again)| (body.to_owned(), again)));
    // The broker cancels a consumer whose queue goes.
    scene.channel.queue_delete("q".into(), QueueDeleteOptions::default()).await.unwrap();
    assert!(soon(consumer.next()).await.is_none());

    scene.declare("got", FieldTable::default()).await;
    scene.publish("got", "got").await;
    for redelivered in [false, true] {
        let get = scene.channel.basic_get("got".into(), BasicGetOptions { no_ack: false });
        assert_eq!(get.await.unwrap().unwrap().delivery.redelivered, redelivered);
        scene.channel.basic_recover(BasicRecoverOptions { requeue: true }).await.unwrap();
    }
}

#[tokio::test]
async fn rpc_by_direct_reply_to() {
    let site = Site::new("lapin-rpc", "");
    let (client, server) = (Scene::new(&site, true).await, Scene::new(&site, true).await);
    server.declare("q", FieldTable::default()).await;
    let reply_to: ShortString = "amq.rabbitmq.reply-to".into();
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut replies = client
        .channel
        .basic_consume(reply_to.clone(), "".into(), options, FieldTable::default())
        .await
        .unwrap();
    let question = BasicProperties::default().with_message_id("question".into()).with_reply_to(reply_to);
    let options = BasicPublishOptions::default();
    client
        .channel
        .basic_publish("".into(), "q".into(), options, b"?", question)
        .await
        .unwrap()
        .await
        .unwrap();
    let asked =
        server.channel.basic_get("q".into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
    let to = asked.properties.reply_to().clone().unwrap();
    publish(&server.channel, "", to.as_str(), "answer", b"!", false).await.unwrap();
    assert_eq!(soon(replies.next()).await.unwrap().unwrap().data, b"!");
}

#[tokio::test]
async fn exclusive_queues_end_with_their_owner() {
    let site = Site::new("lapin-exclusive", "");
    let (owner, other) = (Scene::new(&site, false).await, Scene::new(&site, false).await);
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    owner.channel.queue_declare("own".into(), exclusive, FieldTable::default()).await.unwrap();
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    for expected in [405, 404] {
        let channel = other.connection.create_channel().await.unwrap();
        let answer = channel.queue_declare("own".into(), passive, FieldTable::default()).await;
        assert_eq!(code(answer), expected);
        let _ = owner.connection.close(200, "".into()).await;
    }
}

#[tokio::test]
async fn the_broker_closes_channels_and_connections() {
    let site = Site::new("lapin-closes", "");
    site.add_user("lapin-reader", "");
    let scene = Scene::new(&site, true).await;
    scene.declare("q", FieldTable::default()).await;
    let transient = QueueDeclareOptions::default();
    assert_eq!(code(scene.channel.queue_declare("q".into(), transient, FieldTable::default()).await), 406);
    let channel = scene.connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    assert_eq!(code(publish(&channel, "none", "q", "a", b"", false).await), 404);

    let reader = Scene::at(&uri(&site, "lapin-reader", "lapin-reader", &site.vhost, 0), true).await;
    assert_eq!(code(publish(&reader.channel, "", "q", "a", b"", false).await), 403);
    // The connection outlives its channel.
    reader.connection.create_channel().await.unwrap();

    assert_eq!(code(connect(&uri(&site, "guest", "wrong", &site.vhost, 0)).await), 403);
    assert_eq!(code(connect(&uri(&site, "lapin-reader", "lapin-reader", "%2f", 0)).await), 530);
}

#[tokio::test]
async fn the_secret_is_updated() {
    let site = Site::new("lapin-secret", "");
    let scene = Scene::new(&site, true).await;
    scene.connection.update_secret("guest".into(), "renewed".into()).await.unwrap();
    scene.declare("q", FieldTable::default()).await;
}

#[tokio::test]
async fn heartbeats_of_two_seconds_while_only_one_id_flows() {
    let site = Site::new("lapin-heartbeat", "");
    let scene = Scene::at(&uri(&site, "guest", "guest", &site.vhost, 2), true).await;
    scene.declare("q", FieldTable::default()).await;
    let begin = Instant::now();
    // The confirms pace it; more than three intervals are what is tested.
    while begin.elapsed() < Duration::from_secs(7) {
        assert_eq!(scene.publish("q", "again").await, PLAIN_ACK);
    }
    scene.connection.close(200, "".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_and_unblocked() {
    let site = Site::on(&own_rabbit(), "lapin-blocked", "");
    let scene = Scene::new(&site, true).await;
    scene.declare("q", FieldTable::default()).await;
    let mut events = scene.connection.events_listener();
    site.rabbit.ctl(&["set_vm_memory_high_watermark", "0"]).unwrap();
    let properties = BasicProperties::default().with_message_id("a".into());
    let options = BasicPublishOptions::default();
    let during = scene.channel.basic_publish("".into(), "q".into(), options, b"a", properties).await.unwrap();
    heard(&mut events, |event| matches!(event, Event::ConnectionBlocked(_))).await;
    site.rabbit.ctl(&["set_vm_memory_high_watermark", "0.4"]).unwrap();
    heard(&mut events, |event| matches!(event, Event::ConnectionUnblocked)).await;
    assert_eq!(soon(during).await.unwrap(), PLAIN_ACK);
    assert_eq!(scene.drain("q").await, ["a"]);
}

/// What the publisher is told comes with the confirmation of that very message.
#[tokio::test]
async fn a_duplicate_is_told_by_its_confirmation() {
    for rule in ["nack", "return"] {
        let config = format!("[[window]]\nname = \"told\"\non_duplicate = \"{rule}\"\n");
        let Some(site) = Site::of_relay(&format!("lapin-told-{rule}"), &config) else { return };
        let at = Scene::new(&site, true).await;
        at.declare("q", FieldTable::default()).await;
        assert!(matches!(at.publish("q", "a").await, Confirmation::Ack(None)));
        let (fresh, again) = tokio::join!(at.publish("q", "b"), at.publish("q", "a"));
        assert!(matches!(fresh, Confirmation::Ack(None)), "{fresh:?}");
        match (rule, again) {
            ("nack", Confirmation::Nack(None)) => {}
            ("return", Confirmation::Ack(Some(told))) => {
                assert_eq!((told.reply_code, told.reply_text.as_str()), (319, "DUPLICATE"));
                assert_eq!((told.delivery.routing_key.as_str(), &told.delivery.data[..]), ("q", &b"a"[..]));
                assert_eq!(
                    told.delivery.properties.message_id().as_ref().map(ShortString::as_str),
                    Some("a")
                );
            }
            (rule, other) => panic!("{rule}: {other:?}"),
        }
        assert_eq!(at.drain("q").await, ["a", "b"]);
        at.connection.close(200, "".into()).await.unwrap();
    }
}

#[tokio::test]
async fn duplicates_are_acked_plainly_and_not_stored() {
    let Some(site) = Site::of_relay("lapin-duplicates", "") else { return };
    let (one, other) = (Scene::new(&site, true).await, Scene::new(&site, true).await);
    for queue in ["q", "r"] {
        one.declare(queue, FieldTable::default()).await;
        for scene in [&one, &other, &one] {
            assert_eq!(publish(&scene.channel, "", queue, "a", b"a", true).await.unwrap(), PLAIN_ACK);
        }
        assert_eq!(one.drain(queue).await, ["a"], "the same id to two queues is two messages");
    }
    let message = returned(publish(&one.channel, "", "later", "b", b"b", true).await.unwrap());
    assert_eq!(message.reply_code, 312);
    one.declare("later", FieldTable::default()).await;
    assert_eq!(publish(&other.channel, "", "later", "b", b"b", true).await.unwrap(), PLAIN_ACK);
    assert_eq!(one.drain("later").await, ["b"]);
}
