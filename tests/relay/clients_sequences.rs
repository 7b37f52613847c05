//! Outboxes whose row number is the sequence, with a real broker: the samples of `docs/sequences.md`, and lapin.
#![allow(clippy::disallowed_methods, reason = "a failed step is a failed test")]

use crate::clients::{amqplib_program, pika_program};
use crate::e2e::site::Site;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use std::path::PathBuf;
use std::process::Command;

const WINDOW: &str =
    "[[window]]\nname = \"orders\"\nexchange = \"orders\"\nid = \"sequence\"\nscope = \"exchange\"\n";

/// A sample of the page, by the marker before it.
fn sample(name: &str) -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sequences.md")).unwrap();
    let (_, rest) = page.split_once(&format!("<!-- sample: {name} -->\n```")).expect(name);
    let (_, rest) = rest.split_once('\n').unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

fn file(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sequences");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

async fn channel(uri: &str) -> (Connection, Channel) {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

/// The exchange and its queue.
async fn scene(channel: &Channel) {
    let (exchange, queue) = (ExchangeDeclareOptions::default(), QueueDeclareOptions::default());
    channel
        .exchange_declare("orders".into(), ExchangeKind::Fanout, exchange, FieldTable::default())
        .await
        .unwrap();
    channel.queue_declare("q".into(), queue, FieldTable::default()).await.unwrap();
    let bind = QueueBindOptions::default();
    channel.queue_bind("q".into(), "orders".into(), "".into(), bind, FieldTable::default()).await.unwrap();
}

async fn drain(channel: &Channel) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(got) = channel.basic_get("q".into(), BasicGetOptions { no_ack: true }).await.unwrap() {
        bodies.push(String::from_utf8(got.delivery.data).unwrap());
    }
    bodies
}

fn orders() -> Vec<String> {
    (1..=20).map(|number| format!("order {number}")).collect()
}

#[tokio::test]
async fn the_outbox_of_the_page_publishes_each_row_once_with_pika() {
    let Some(site) = Site::of_relay("sequences-pika", WINDOW) else { return };
    let uri = format!("amqp://guest:guest@{}/{}", site.addr(), site.vhost);
    let (connection, channel) = channel(&uri).await;
    scene(&channel).await;
    let (outbox, program) = (file("outbox.db"), file("outbox.py"));
    let _ = std::fs::remove_file(&outbox);
    std::fs::write(&program, sample("pika")).unwrap();
    let sql = |text: &str| {
        let script = "import os, sqlite3, sys; db = sqlite3.connect(os.environ['OUTBOX']); db.executescript(sys.argv[1])";
        run(pika_program().args(["-c", script, text]).env("OUTBOX", &outbox));
    };
    let rows = |from: u32, to: u32| {
        let row = |n: u32| format!("insert into outbox (id, body, sent) values ({n}, 'order {n}', 0);");
        (from..=to).map(row).collect::<String>()
    };
    sql(&format!("create table outbox (id integer primary key, body text, sent integer); {}", rows(1, 12)));
    let publish = || run(pika_program().arg(&program).env("OUTBOX", &outbox).env("AMQP", &uri));
    publish();
    // It was killed between the ack and the mark, five rows ago; and more rows have come.
    sql(&format!("update outbox set sent = 0 where id > 7; {}", rows(13, 20)));
    publish();
    assert_eq!(drain(&channel).await, orders());
    let metrics = site.metrics();
    assert_eq!(metrics.sum("publishes_total", &[("window", "orders"), ("verdict", "duplicate")]), 5.0);
    assert_eq!(metrics.sum("window_entries", &[("window", "orders")]), 1.0);
    connection.close(200, "done".into()).await.unwrap();
}

#[tokio::test]
async fn amqplib_and_lapin_count_in_one_window_and_a_zombie_is_shut_out() {
    let Some(site) = Site::of_relay("sequences-lapin", WINDOW) else { return };
    let uri = format!("amqp://guest:guest@{}/{}", site.addr(), site.vhost);
    let (connection, first) = channel(&uri).await;
    scene(&first).await;
    let publish = async |channel: &Channel, epoch: i64, number: i64| {
        let mut headers = FieldTable::default();
        headers.insert("x-hapax-producer".into(), AMQPValue::LongString("lapin".into()));
        headers.insert("x-hapax-sequence".into(), AMQPValue::LongLongInt(number));
        headers.insert("x-hapax-epoch".into(), AMQPValue::LongLongInt(epoch));
        let properties = BasicProperties::default().with_headers(headers);
        let options = BasicPublishOptions::default();
        let body = format!("order {number}");
        channel
            .basic_publish("orders".into(), "new".into(), options, body.as_bytes(), properties)
            .await?
            .await
    };
    for number in (1..=20).chain(5..=20) {
        assert!(publish(&first, 1, number).await.unwrap().is_ack());
    }
    assert_eq!(drain(&first).await, orders());
    // The process starts again under a higher epoch, while the old one still publishes.
    let (other, second) = channel(&uri).await;
    assert!(publish(&second, 2, 1).await.unwrap().is_ack());
    let shut_out = publish(&first, 1, 21).await.map(|_| ());
    assert!(shut_out.is_err() || !first.status().connected(), "{shut_out:?}");
    assert_eq!(drain(&second).await, ["order 1"]);
    site.until_metric("sequence_zombies_total", &[("window", "orders")], 1.0);
    // The same numbers by another library, of another producer, twice.
    let script = "const [uri] = process.argv.slice(1);
        (async () => {
          const connection = await require('amqplib').connect(uri);
          const channel = await connection.createConfirmChannel();
          for (let number = 1; number <= 20; number++) {
            const headers = { 'x-hapax-producer': 'amqplib', 'x-hapax-sequence': number };
            channel.publish('orders', 'new', Buffer.from(`order ${number}`), { headers });
          }
          await channel.waitForConfirms();
          await connection.close();
        })();";
    for _ in 0..2 {
        run(amqplib_program().args(["-e", script, &uri]));
    }
    assert_eq!(drain(&second).await, orders());
    other.close(200, "done".into()).await.unwrap();
    let _ = connection.close(200, "done".into()).await;
}
