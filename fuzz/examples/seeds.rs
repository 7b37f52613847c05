//! Writes `corpus/scan`, `corpus/properties` and `corpus/session`: one file for each frame that clients and brokers
//! really exchange, and for each special case that random octets rarely hit. Run it again after a change here. It
//! deletes no file.

#[path = "../../core/tests/session/driver/mod.rs"]
mod driver;
#[path = "../../core/tests/support/mod.rs"]
mod support;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame};
use amq_protocol::protocol::AMQPClass::{self, Basic, Confirm, Connection, Exchange, Queue, Tx};
use amq_protocol::protocol::BasicProperties as Properties;
use amq_protocol::protocol::{basic, channel, confirm, connection, exchange, queue, tx};
use amq_protocol::types::{AMQPValue, DecimalValue, FieldTable};
use std::path::Path;
use std::{fs, io};

fn octets(frame: AMQPFrame) -> Vec<u8> {
    gen_frame(&frame)(WriteContext::from(Vec::new())).expect("a Vec takes all").into_inner().0
}

fn method(channel: u16, class: AMQPClass) -> Vec<u8> {
    octets(AMQPFrame::Method(channel, class))
}

fn content(body_size: u64, properties: Properties) -> Vec<u8> {
    octets(AMQPFrame::Header(1, AMQPContentHeader { class_id: 60, body_size, properties }))
}

fn body(octets_of_it: &[u8]) -> Vec<u8> {
    octets(AMQPFrame::Body(1, octets_of_it.to_vec()))
}

fn table(entries: Vec<(&str, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn with_headers(entries: Vec<(&str, AMQPValue)>) -> Properties {
    Properties::default().with_headers(table(entries))
}

fn publish(exchange: &str, routing_key: &str, mandatory: bool) -> Vec<u8> {
    let publish = basic::Publish {
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        mandatory,
        immediate: false,
    };
    method(1, Basic(basic::AMQPMethod::Publish(publish)))
}

fn client_properties() -> FieldTable {
    let capabilities = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ];
    let capabilities = capabilities.map(|name| (name, AMQPValue::Boolean(true))).to_vec();
    table(vec![
        ("product", text("Pika Python Client Library")),
        ("platform", text("Python 3.12.3")),
        ("version", text("1.3.2")),
        ("information", text("See http://pika.rtfd.org")),
        ("capabilities", AMQPValue::FieldTable(table(capabilities))),
    ])
}

/// Returns content headers as they occur in practice.
fn headers() -> Vec<(&'static str, Properties)> {
    let all_types = vec![
        ("t", AMQPValue::Boolean(true)),
        ("b", AMQPValue::ShortShortInt(-1)),
        ("B", AMQPValue::ShortShortUInt(255)),
        ("s", AMQPValue::ShortInt(-2)),
        ("u", AMQPValue::ShortUInt(65534)),
        ("I", AMQPValue::LongInt(i32::MIN)),
        ("i", AMQPValue::LongUInt(u32::MAX)),
        ("l", AMQPValue::LongLongInt(i64::MIN)),
        ("f", AMQPValue::Float(1.5)),
        ("d", AMQPValue::Double(-2.5)),
        ("D", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 })),
        ("S", text("long string")),
        ("x", AMQPValue::ByteArray(vec![0, 1, 2, 255].into())),
        ("T", AMQPValue::Timestamp(1_753_000_000)),
        ("V", AMQPValue::Void),
        ("A", AMQPValue::FieldArray(vec![AMQPValue::LongInt(1), text("two"), AMQPValue::Void].into())),
        ("F", AMQPValue::FieldTable(table(vec![("inner", text("value"))]))),
    ];
    let death = table(vec![
        ("count", AMQPValue::LongLongInt(3)),
        ("exchange", text("orders")),
        ("queue", text("orders.work")),
        ("reason", text("rejected")),
        ("routing-keys", AMQPValue::FieldArray(vec![text("orders.new")].into())),
        ("time", AMQPValue::Timestamp(1_753_000_000)),
    ]);
    let nested = (0..12).fold(AMQPValue::Void, |inner, level| match level % 2 {
        0 => AMQPValue::FieldArray(vec![inner].into()),
        _ => AMQPValue::FieldTable(table(vec![("n", inner)])),
    });
    vec![
        ("no-properties", Properties::default()),
        ("message-id", Properties::default().with_message_id("0190a6c1-7d3f-7cc2-a2f5-1b9d1b1f6c11".into())),
        ("message-id-empty", Properties::default().with_message_id("".into())),
        ("message-id-255-octets", Properties::default().with_message_id("m".repeat(255).into())),
        ("message-id-utf8", Properties::default().with_message_id("Bestellung-ä-注文".into())),
        (
            "rpc-request",
            Properties::default()
                .with_correlation_id("42".into())
                .with_reply_to("amq.rabbitmq.reply-to".into())
                .with_expiration("60000".into()),
        ),
        (
            "all-fourteen",
            with_headers(vec![("id", text("h-1")), ("x-cache-ttl", AMQPValue::LongInt(5000))])
                .with_content_type("application/json".into())
                .with_content_encoding("utf-8".into())
                .with_delivery_mode(2)
                .with_priority(9)
                .with_correlation_id("c-1".into())
                .with_reply_to("replies".into())
                .with_expiration("1000".into())
                .with_message_id("m-1".into())
                .with_timestamp(1_753_000_000)
                .with_type("order.created".into())
                .with_user_id("guest".into())
                .with_app_id("shop".into())
                .with_cluster_id("c".into()),
        ),
        ("headers-empty", with_headers(vec![])),
        ("headers-all-types", with_headers(all_types)),
        ("headers-nested", with_headers(vec![("n", nested), ("id", text("after the nest"))])),
        (
            "headers-x-death",
            with_headers(vec![
                ("x-death", AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into())),
                ("x-first-death-queue", text("orders.work")),
            ])
            .with_message_id("m-2".into()),
        ),
        ("headers-ttl-negative", with_headers(vec![("x-cache-ttl", AMQPValue::ShortShortInt(-1))])),
        ("headers-ttl-timestamp", with_headers(vec![("x-cache-ttl", AMQPValue::Timestamp(5))])),
        ("headers-bypass", with_headers(vec![("x-hapax-bypass", AMQPValue::Boolean(true))])),
        (
            "headers-cc-and-bcc",
            with_headers(vec![
                ("BCC", AMQPValue::FieldArray(vec![text("b")].into())),
                ("CC", AMQPValue::FieldArray(vec![text("c"), AMQPValue::Void, text("a")].into())),
            ]),
        ),
        ("headers-cc-text", with_headers(vec![("CC", text("c"))])),
        (
            "headers-texts",
            with_headers(vec![("x-cache-ttl", text("500ms")), ("x-hapax-bypass", text("true"))]),
        ),
        ("headers-id-integer", with_headers(vec![("id", AMQPValue::LongLongInt(-7))])),
        ("headers-id-bytes", with_headers(vec![("id", AMQPValue::ByteArray(vec![0xFF; 16].into()))])),
        ("headers-id-void", with_headers(vec![("id", AMQPValue::Void)])),
    ]
}

/// Returns payloads of content headers that no client library writes.
fn odd_headers() -> Vec<(&'static str, Vec<u8>)> {
    let odd = |class: u8, rest: &[u8]| [&[0, class, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5], rest].concat();
    vec![
        ("odd-flags-continued", odd(60, b"\x00\x81\x00\x00\x03msg")),
        ("odd-flags-continued-twice", odd(60, b"\x00\x81\x80\x01\x40\x00\x03msg\x07unknown")),
        ("odd-flag-1", odd(60, b"\x00\x82\x03msg")),
        ("odd-class-50", odd(50, b"\xff\xff")),
        ("odd-weight", [&[0, 60, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5][..], b"\x00\x80\x03msg"].concat()),
        ("odd-octets-left-over", odd(60, b"\x00\x80\x03msg!")),
        ("odd-message-id-not-utf8", odd(60, b"\x00\x80\x02\xff\xfe")),
        ("odd-header-twice", odd(60, b"\x20\x00\0\0\0\x12\x02idS\0\0\0\x01a\x02idS\0\0\0\x01b")),
        ("odd-death-cut-short", odd(60, b"\x20\x00\0\0\0\x12\x07x-deathA\0\0\0\x05F\0\0\0\x09")),
        ("odd-header-type-U", odd(60, b"\x20\x00\0\0\0\x06\x02idU\xff\xfe")),
        ("odd-header-type-L", odd(60, b"\x20\x00\0\0\0\x0c\x02idL\xff\xff\xff\xff\xff\xff\xff\xff")),
        ("odd-header-type-unknown", odd(60, b"\x20\x00\0\0\0\x05\x02idZ\x00")),
        ("odd-string-out-of-its-table", odd(60, b"\x20\x80\0\0\0\x08\x01kS\0\0\0\x04x\x09123456789")),
        ("odd-table-of-4-GiB", odd(60, b"\x20\x00\xff\xff\xff\xff\x01kV")),
    ]
}

fn streams() -> Vec<(&'static str, Vec<u8>)> {
    let start = connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: client_properties(),
        mechanisms: "PLAIN AMQPLAIN".into(),
        locales: "en_US".into(),
    };
    let start_ok = connection::StartOk {
        client_properties: client_properties(),
        mechanism: "PLAIN".into(),
        response: "\0guest\0guest".into(),
        locale: "en_US".into(),
    };
    let tune_ok = connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
    let open = connection::Open { virtual_host: "/".into() };
    let close = connection::Close {
        reply_code: 501,
        reply_text: "FRAME_ERROR - type 4, all octets = <<>>".into(),
        class_id: 0,
        method_id: 0,
    };
    let handshake = [
        method(0, Connection(connection::AMQPMethod::StartOk(start_ok))),
        method(0, Connection(connection::AMQPMethod::TuneOk(tune_ok))),
        method(0, Connection(connection::AMQPMethod::Open(open))),
        method(1, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))),
        method(1, Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false }))),
    ];
    let declare = queue::Declare {
        queue: "orders.work".into(),
        durable: true,
        arguments: table(vec![
            ("x-max-length", AMQPValue::LongInt(1000)),
            ("x-overflow", text("reject-publish")),
            ("x-dead-letter-exchange", text("dlx")),
        ]),
        ..Default::default()
    };
    let exchange = exchange::Declare {
        exchange: "orders".into(),
        kind: "topic".into(),
        durable: true,
        ..Default::default()
    };
    let consume = basic::Consume { queue: "orders.work".into(), ..Default::default() };
    let deliver = basic::Deliver {
        consumer_tag: "ctag1.0".into(),
        delivery_tag: 1,
        redelivered: false,
        exchange: "orders".into(),
        routing_key: "orders.new".into(),
    };
    let returned = basic::Return {
        reply_code: 312,
        reply_text: "NO_ROUTE".into(),
        exchange: "orders".into(),
        routing_key: "nowhere".into(),
    };
    let ack = |delivery_tag, multiple| {
        method(1, Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple })))
    };
    let nack = basic::Nack { delivery_tag: 4, multiple: false, requeue: true };
    let message = || Properties::default().with_message_id("m-1".into()).with_delivery_mode(2);
    let half = publish("orders", "orders.new", false);
    vec![
        ("broker-start", method(0, Connection(connection::AMQPMethod::Start(start)))),
        ("client-handshake", handshake.concat()),
        ("protocol-header", b"AMQP\x00\x00\x09\x01".to_vec()),
        ("heartbeat", octets(AMQPFrame::Heartbeat)),
        ("heartbeat-on-channel-1", octets(AMQPFrame::InvalidHeartbeat(1))),
        ("heartbeat-with-payload", b"\x08\0\0\0\0\0\x01x\xce".to_vec()),
        ("connection-close", method(0, Connection(connection::AMQPMethod::Close(close)))),
        (
            "declare-and-consume",
            [
                method(1, Exchange(exchange::AMQPMethod::Declare(exchange))),
                method(1, Queue(queue::AMQPMethod::Declare(declare))),
                method(1, Basic(basic::AMQPMethod::Consume(consume))),
            ]
            .concat(),
        ),
        (
            "publish-one-body-frame",
            [publish("orders", "orders.new", true), content(5, message()), body(b"hello")].concat(),
        ),
        (
            "publish-three-body-frames",
            [publish("", "q", false), content(9, message()), body(b"one"), body(b"two"), body(b"thr")]
                .concat(),
        ),
        ("publish-without-body", [publish("", "q", false), content(0, message())].concat()),
        ("publish-half", half[..half.len() / 2].to_vec()),
        (
            "deliver",
            [method(1, Basic(basic::AMQPMethod::Deliver(deliver))), content(5, message()), body(b"hello")]
                .concat(),
        ),
        (
            "return-then-ack",
            [
                method(1, Basic(basic::AMQPMethod::Return(returned))),
                content(5, message()),
                body(b"hello"),
                ack(1, false),
            ]
            .concat(),
        ),
        (
            "acks-and-nack",
            [
                ack(1, false),
                ack(3, true),
                ack(u64::MAX, true),
                method(1, Basic(basic::AMQPMethod::Nack(nack))),
            ]
            .concat(),
        ),
        (
            "transaction",
            [
                method(1, Tx(tx::AMQPMethod::Select(tx::Select {}))),
                publish("orders", "orders.new", false),
                content(0, message()),
                method(1, Tx(tx::AMQPMethod::Commit(tx::Commit {}))),
            ]
            .concat(),
        ),
        ("method-unknown", b"\x01\0\x01\0\0\0\x04\0\x3c\x03\xe7\xce".to_vec()),
        ("body-empty", body(b"")),
        ("frame-of-4-GiB", b"\x03\0\x01\xff\xff\xff\xffxyz".to_vec()),
        ("frame-end-wrong", b"\x03\0\x01\0\0\0\x01x\xcd".to_vec()),
        ("frame-type-4", b"\x04\0\x01\0\0\0\0\xce".to_vec()),
        ("http-request", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
    ]
}

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: &str, octets: &[u8]| -> io::Result<()> {
        fs::create_dir_all(corpus.join(target))?;
        fs::write(corpus.join(target).join(name), octets)
    };
    for (name, octets) in streams() {
        write("scan", name, &octets)?;
    }
    for (name, properties) in headers() {
        let frame = content(5, properties);
        write("scan", &format!("header-{name}"), &frame)?;
        write("properties", name, &frame[7..frame.len() - 1])?;
    }
    for (name, payload) in odd_headers() {
        write("properties", name, &payload)?;
    }
    for (name, octets) in driver::seeds() {
        write("session", name, &octets)?;
    }
    Ok(())
}
