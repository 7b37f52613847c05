//! Compares `wire` with `amq-protocol`: for every frame that `amq-protocol` can write, our views must show what it
//! reads.
//!
//! `PROPTEST_CASES=10000 cargo test -p hapax-core --test wire` tries more frames. `oracle/` holds the generators, and
//! the checks, which the fuzz targets use, too.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "that is how a check fails")]

#[path = "oracle/generate.rs"]
mod generate;
mod oracle;

use amq_protocol::frame::{AMQPFrame, parse_frame};
use generate::{every_method, frame, octets, short_string};
use hapax_core::wire::frame::limit;
use hapax_core::wire::{ChannelId, Frame, FrameKind, WireError, emit, scan};
use oracle::{check_first_frame, check_frame, check_header_payload, look_at};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use std::fs;
use std::path::Path;

const MAX: usize = 1 << 20;

/// Checks that we and the oracle find the same single frame in `octets`.
fn agreed(octets: &[u8]) {
    let ours = scan(octets, MAX).unwrap().expect("a whole frame");
    let (rest, parsed) = parse_frame(octets).expect("what was generated can be parsed");
    assert!(rest.is_empty());
    assert_eq!(ours.wire_len(), octets.len());
    check_frame(&ours, &parsed);
}

/// A frame's kind, channel and payload, independent of the buffer.
type Seen = (FrameKind, u16, Vec<u8>);

/// Returns the frames of a stream that arrives in pieces, and the octets that are left over.
fn scan_all<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    max: usize,
) -> (Vec<Seen>, Result<Vec<u8>, WireError>) {
    let mut buf = Vec::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buf.extend_from_slice(piece);
        let mut at = 0;
        loop {
            match scan(&buf[at..], max) {
                Ok(Some(frame)) => {
                    frames.push((frame.kind, frame.channel.0, frame.payload.to_vec()));
                    at += frame.wire_len();
                }
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        buf.drain(..at);
    }
    (frames, Ok(buf))
}

/// Returns `stream`, cut at these places.
fn pieces<'a>(stream: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn our_views_agree_with_the_oracle(frame in frame()) {
        agreed(&octets(&frame));
    }

    #[test]
    fn a_truncated_frame_is_waited_for(frame in frame(), cut in any::<Index>()) {
        let octets = octets(&frame);
        prop_assert_eq!(scan(&octets[..cut.index(octets.len())], MAX), Ok(None));
    }

    #[test]
    fn any_split_of_the_stream_gives_the_same_frames(
        frames in vec(frame(), 1..6),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let stream: Vec<u8> = frames.iter().flat_map(octets).collect();
        let (seen, rest) = scan_all(pieces(&stream, &cuts), MAX);
        prop_assert_eq!(rest, Ok(Vec::new()));
        let whole: Vec<_> = frames.iter().map(|frame| {
            let octets = octets(frame);
            let seen = scan(&octets, MAX).unwrap().unwrap();
            (seen.kind, seen.channel.0, seen.payload.to_vec())
        }).collect();
        prop_assert_eq!(&seen, &whole);
        let octet_by_octet = scan_all(stream.chunks(1), MAX);
        prop_assert_eq!(octet_by_octet, (whole, Ok(Vec::new())));
    }

    #[test]
    fn any_split_of_a_damaged_stream_gives_the_same_frames_and_fault(
        frames in vec(frame(), 1..4),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        cuts in vec(any::<Index>(), 0..12),
        max in prop_oneof![Just(MAX), 8_usize..400],
    ) {
        let mut stream: Vec<u8> = frames.iter().flat_map(octets).collect();
        for (at, octet) in damage {
            let at = at.index(stream.len());
            stream[at] = octet;
        }
        prop_assert_eq!(scan_all(pieces(&stream, &cuts), max), scan_all([&stream[..]], max));
    }

    #[test]
    fn a_damaged_frame_is_taken_as_the_oracle_takes_it(
        frame in frame(),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut octets = octets(&frame);
        for (at, octet) in damage {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        check_first_frame(&octets, MAX);
    }

    #[test]
    fn a_damaged_content_header_is_taken_as_the_oracle_takes_it(
        header in generate::content_header(),
        damage in vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        let octets = octets(&AMQPFrame::Header(1, header));
        let mut payload = octets[7..octets.len() - 1].to_vec();
        for (at, octet) in damage {
            let at = at.index(payload.len());
            payload[at] = octet;
        }
        check_header_payload(&payload);
    }

    #[test]
    fn arbitrary_octets_never_panic(octets in vec(any::<u8>(), 0..200), max in 0..300_usize) {
        check_first_frame(&octets, max);
        check_header_payload(&octets);
        look_at(&Frame {
            kind: FrameKind::Method,
            channel: ChannelId(1),
            payload: &octets,
        });
    }

    #[test]
    fn a_frame_is_taken_up_to_the_maximum_and_not_beyond(frame in frame(), less in 1..20_usize) {
        let octets = octets(&frame);
        let len = octets.len();
        prop_assert!(scan(&octets, len).unwrap().is_some());
        prop_assert!(scan(&octets, limit(u32::try_from(len - 8).unwrap())).unwrap().is_some());
        let max = len - less.min(len);
        let refused = scan(&octets[..7], max);
        let is_too_large =
            matches!(refused, Err(WireError::TooLarge { len: l, max: m, .. }) if (l, m) == (len, max));
        prop_assert!(is_too_large, "{:?}", refused);
    }

    #[test]
    fn another_exchange_is_what_the_oracle_would_have_written(
        old in short_string(), new in short_string(), key in short_string(), text in short_string(),
        mandatory: bool, immediate: bool, reply_code: u16, channel: u16,
    ) {
        use amq_protocol::protocol::AMQPClass::Basic;
        use amq_protocol::protocol::basic::{AMQPMethod, Publish, Return};

        let channel = ChannelId(channel);
        let publish = |exchange: &_| Basic(AMQPMethod::Publish(Publish {
            exchange: Clone::clone(exchange), routing_key: key.clone(), mandatory, immediate,
        }));
        let before = emit::method(channel, publish(&old));
        let after = emit::publish_to(channel, &before[7..before.len() - 1], new.as_str().as_bytes(), mandatory);
        prop_assert_eq!(after, Ok(emit::method(channel, publish(&new))));

        let returned = |exchange: &_| Basic(AMQPMethod::Return(Return {
            reply_code, reply_text: text.clone(), exchange: Clone::clone(exchange), routing_key: key.clone(),
        }));
        let before = emit::method(channel, returned(&old));
        let after = emit::return_from(channel, &before[7..before.len() - 1], new.as_str().as_bytes());
        prop_assert_eq!(after, Ok(emit::method(channel, returned(&new))));
    }
}

#[test]
fn every_method_of_every_class_agrees() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let methods = every_method();
    assert_eq!(methods.len(), 66, "the methods of AMQP 0-9-1 and RabbitMQ's own");
    for (name, method) in methods {
        for _ in 0..20 {
            let class = method.new_tree(&mut runner).expect(name).current();
            let frame = emit::method(ChannelId(9), class.clone());
            assert_eq!(frame, octets(&AMQPFrame::Method(9, class)), "{name}");
            agreed(&frame);
        }
    }
}

/// Checks the seeds of the fuzz targets and all inputs that they have found. This needs no nightly compiler and no
/// fuzzer.
#[test]
fn the_fuzz_corpus_agrees() {
    let corpus = |target: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() >= 20, "{} seeds for {target}", files.len());
        files.into_iter().map(|file| fs::read(file).unwrap())
    };
    for stream in corpus("scan") {
        let mut rest = &stream[..];
        while let Some(len) = check_first_frame(rest, limit(4096)) {
            rest = &rest[len..];
        }
    }
    for payload in corpus("properties") {
        check_header_payload(&payload);
    }
}
