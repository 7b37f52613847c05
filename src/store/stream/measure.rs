//! How long a start takes. Not a test: it prints figures. `cargo test --release --lib ids_are_read -- --ignored --nocapture`

use super::envelope::{Envelope, Kind};
use crate::clock::now;
use crate::config::{Config, Overrides};
use hapax_core::window::Key;
use hapax_core::window::logged::{Record, RelayId, What};
use hapax_testbed::Rabbit;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use std::time::{Duration, SystemTime};

/// `HAPAX_IDS` ids, ten million if the variable says nothing, in batches of `HAPAX_BATCH`.
#[test]
#[ignore = "it measures"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn ids_are_read() {
    let number =
        |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (ids, batch) = (number("HAPAX_IDS", 10_000_000_u64), number("HAPAX_BATCH", 500));
    let rabbit = Rabbit::start().unwrap();
    let leash = hapax_testbed::Leash::new("measure").unwrap();
    let secret = leash.folder().join("secret");
    std::fs::write(&secret, "00112233445566778899aabbccddeeff").unwrap();
    std::process::Command::new("chmod").arg("600").arg(&secret).status().unwrap();
    let text = format!(
        "digest_secret_file = {secret:?}\n[store.stream]\nuri = \"{}\"\n[[window]]\nname = \"w\"\nttl = \"1h\"\n\
         capacity = {}\nstore = \"stream\"\n",
        rabbit.uri(),
        ids + ids / 4
    );
    let config = Config::parse(None, &text, &Overrides::default()).unwrap().config;
    let envelope = Envelope::new(config.keys(), &config.windows[0].rules, RelayId(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connection = Connection::connect(&rabbit.uri(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare("hapax.window.w".into(), durable, arguments).await.unwrap();
        let mut confirms = std::collections::VecDeque::new();
        for n in 0..ids.div_ceil(batch) {
            let at = now();
            let what = |id: u64| {
                What::Seen(
                    Key(u128::from(id) << 30 | u128::from(id)).into(),
                    Duration::from_secs(3600).into(),
                )
            };
            let records: Vec<_> =
                (n * batch..ids.min((n + 1) * batch)).map(|id| Record { at, what: what(id) }).collect();
            let bytes = envelope.seal(Kind::Records(n + 1), &records, at, SystemTime::now());
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            confirms.push_back(
                channel
                    .basic_publish("".into(), "hapax.window.w".into(), options, &bytes, properties)
                    .await
                    .unwrap(),
            );
            if confirms.len() > 200 {
                confirms.pop_front().unwrap().await.unwrap();
            }
        }
        for confirm in confirms {
            confirm.await.unwrap();
        }
        let began = now();
        let mut opened = crate::store::open(&config, began).unwrap();
        opened.stores.recover().await.unwrap();
        let took = began.elapsed();
        let known = opened.windows[0].window.entries().unwrap();
        println!("{known} ids, in batches of {batch}, are read in {took:?}");
        assert_eq!(known as u64, ids);
        opened.stores.close(Duration::from_secs(10)).await;
    });
}
