//! Measures what reading the wire costs, beside `amq-protocol`'s own parser on the same octets. That parser is also
//! the oracle of `core/tests/wire`.
//!
//! * `read`: 64 KiB of a client's publishes, 589 octets each (method, header with 10 headers, body of 256), the last
//!   one cut. `scan` only finds the frames. `scan and look` also reads what a judged publish needs. Criterion's
//!   elements are publishes.
//! * `content header`: finds the id behind 0, 10 or 50 headers.
//! * `publish`, `settle`: the two methods that every message brings.
//!
//! The oracle decodes into strings, tables and bodies that it owns. The hot path does not need them. The ratio
//! therefore shows what Hapax saves, not which parser is better. `session.rs` measures what a session does
//! with the frames.

#[path = "../tests/support/mod.rs"]
mod support;

use amq_protocol::frame::{parse_frame, parsing::parse_content_header};
use amq_protocol::protocol::parse_class;
use amq_protocol::types::AMQPValue;
use criterion::{Criterion, Throughput};
use hapax_core::wire::method::{MethodId, Publish, Settle};
use hapax_core::wire::{ChannelId, ContentHeader, FrameKind, IdSource, emit, scan};
use std::hint::black_box;
use std::time::Duration;
use support::frames::{FRAME_MAX, Message, OVERHEAD, message};

const READ: usize = 64 << 10;
/// Octets of a publish, its three frames together. `hapax bench` sends such publishes by default.
const PUBLISH: usize = 589;
/// Octets of a frame before its payload.
const BEFORE: usize = 7;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    read(&mut criterion);
    headers(&mut criterion);
    methods(&mut criterion);
    criterion.final_summary();
}

fn read(criterion: &mut Criterion) {
    let publish = typical().publish(1).encode();
    assert_eq!(publish.len(), PUBLISH, "adjust the names");
    let read: Vec<u8> = publish.iter().copied().cycle().take(READ).collect();
    let whole = READ / PUBLISH;
    assert_eq!((found(&read), looked_at(&read), decoded(&read)), (whole * 3 + 1, whole, whole * 3 + 1));

    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::ElementsAndBytes { elements: whole as u64, bytes: READ as u64 });
    group.bench_function("scan", |bencher| bencher.iter(|| found(black_box(&read))));
    group.bench_function("scan and look", |bencher| bencher.iter(|| looked_at(black_box(&read))));
    group.bench_function("amq-protocol", |bencher| bencher.iter(|| decoded(black_box(&read))));
    group.finish();
}

/// Returns the number of frames.
fn found(mut read: &[u8]) -> usize {
    let mut frames = 0;
    while let Ok(Some(frame)) = scan(read, FRAME_MAX) {
        read = &read[black_box(frame).wire_len()..];
        frames += 1;
    }
    frames
}

/// Returns the number of publishes that have an id.
fn looked_at(mut read: &[u8]) -> usize {
    let mut ids = 0;
    while let Ok(Some(frame)) = scan(read, FRAME_MAX) {
        read = &read[frame.wire_len()..];
        match frame.kind {
            FrameKind::Method if MethodId::of(frame.payload) == Ok(MethodId::BASIC_PUBLISH) => {
                let _ = black_box(Publish::parse(frame.payload));
            }
            FrameKind::Header => {
                let header = black_box(ContentHeader::parse(frame.payload, &IdSource::MessageId));
                ids += usize::from(header.is_ok_and(|header| header.id.is_some()));
            }
            FrameKind::Method | FrameKind::Body | FrameKind::Heartbeat => {}
        }
    }
    ids
}

/// Returns the number of frames that the oracle finds.
fn decoded(mut read: &[u8]) -> usize {
    let mut frames = 0;
    while let Ok((rest, frame)) = parse_frame(read) {
        black_box(frame);
        read = rest;
        frames += 1;
    }
    frames
}

fn headers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("content header");
    for count in [0, 10, 50] {
        let frames = with_headers(count).publish(1);
        let octets = frames.0[1].encode();
        let payload = payload(&octets);
        let id = ContentHeader::parse(payload, &IdSource::MessageId).is_ok_and(|header| header.id.is_some());
        assert!(id && parse_content_header(payload).is_ok());

        group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: payload.len() as u64 });
        group.bench_function(format!("parse, {count} headers"), |bencher| {
            bencher.iter(|| ContentHeader::parse(black_box(payload), black_box(&IdSource::MessageId)));
        });
        group.bench_function(format!("amq-protocol, {count} headers"), |bencher| {
            bencher.iter(|| parse_content_header(black_box(payload)));
        });
    }
    group.finish();
}

fn methods(criterion: &mut Criterion) {
    let octets = typical().publish(1).0[0].encode();
    let publish = payload(&octets);
    let mut ack = bytes::BytesMut::new();
    emit::ack(&mut ack, ChannelId(1), 123_456, true);
    let ack = payload(&ack);
    assert!(Publish::parse(publish).is_ok() && parse_class(publish).is_ok());
    assert!(Settle::parse(ack).is_ok() && parse_class(ack).is_ok());

    let mut group = criterion.benchmark_group("publish");
    group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: publish.len() as u64 });
    group.bench_function("parse", |bencher| bencher.iter(|| Publish::parse(black_box(publish))));
    group.bench_function("amq-protocol", |bencher| bencher.iter(|| parse_class(black_box(publish))));
    group.finish();

    let mut group = criterion.benchmark_group("settle");
    group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: ack.len() as u64 });
    group.bench_function("parse", |bencher| bencher.iter(|| Settle::parse(black_box(ack))));
    group.bench_function("amq-protocol", |bencher| bencher.iter(|| parse_class(black_box(ack))));
    group.finish();
}

/// Returns a publish of [`PUBLISH`] octets.
fn typical() -> Message {
    with_headers(10)
}

fn with_headers(count: usize) -> Message {
    let message = message("work", "today").id("0123456789abcdef0123456789abcdef").body([b'b'; 256]);
    (0..count).fold(message, |message, n| {
        message.header(&format!("header-{n}"), AMQPValue::LongString(format!("value of {n}").into()))
    })
}

/// Returns the payload of one frame.
fn payload(frame: &[u8]) -> &[u8] {
    &frame[BEFORE..frame.len() - (OVERHEAD - BEFORE)]
}
