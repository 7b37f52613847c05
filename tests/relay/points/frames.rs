//! Points 10 and 12: valid frames in any shape, invalid frames, and methods that the relay only passes on.
//!
//! Most of these say the same octets to the broker itself and through the relay, and hold the two answers side by side,
//! reply-text and all.

use super::{acked, held};
use crate::e2e::raw::{Frame, HEADER, Login, Publish, Raw, Told, Value, method_frame, raw_method};
use crate::e2e::site::Site;
use amq_protocol::protocol::{AMQPClass, basic, channel, connection};
use std::time::Duration;

/// Nobody answers any more: where that is the broker's way, it is to be ours.
const SILENCE: Duration = Duration::from_secs(5);
const OPEN: [u8; 5] = [0, 20, 0, 10, 0];

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    Frame { kind, channel, payload: payload.to_vec() }.encode()
}

/// `basic.qos(0, 0, false)`: its answer says that the channel has come to the end of what was sent before it.
fn qos(channel: u16) -> Vec<u8> {
    raw_method(channel, &[0, 60, 0, 10, 0, 0, 0, 0, 0, 0, 0])
}

fn header(channel: u16, class: u16, size: u64, rest: &[u8]) -> Vec<u8> {
    let mut payload = class.to_be_bytes().to_vec();
    payload.extend([0, 0]);
    payload.extend(size.to_be_bytes());
    payload.extend(rest);
    frame(2, channel, &payload)
}

/// Returns the answers after these octets, up to the close of channel or connection, the answer to [`qos`], or the end.
fn said(client: &mut Raw, octets: &[u8]) -> Vec<Frame> {
    client.write(octets).unwrap();
    let mut frames = Vec::new();
    client.socket().set_read_timeout(Some(SILENCE)).unwrap();
    loop {
        let frame = match client.frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            // Shown as a frame of a type that there is not, for the comparison.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                frames.push(Frame { kind: 0, channel: 0, payload: b"       silence".to_vec() });
                break;
            }
            Err(error) => panic!("{error} after {frames:?}"),
        };
        if frame.kind == 8 {
            continue;
        }
        let method = frame.payload.first_chunk::<4>().copied().unwrap_or_default();
        frames.push(frame);
        match method {
            [0, 20, 0, 40] | [0, 60, 0, 11] => break,
            [0, 10, 0, 50] => {
                let _ = client.write(&raw_method(0, &[0, 10, 0, 51]));
                assert_eq!(client.rest(), [], "nothing after a close");
                break;
            }
            _ => {}
        }
    }
    frames
}

/// The code of a close of channel or connection, 0 where there is none.
fn code(frames: &[Frame]) -> u16 {
    match frames.last() {
        Some(Frame { kind: 1, payload, .. }) if matches!(payload[..4], [0, 10, 0, 50] | [0, 20, 0, 40]) => {
            u16::from_be_bytes([payload[4], payload[5]])
        }
        _ => 0,
    }
}

/// The same, octet by octet, but for two things. Where the relay must itself refuse (501 and 505: frames that it cannot
/// pass on) the words are its own. And where the broker hangs up without a word, the relay says 320 first. A body that is too long
/// is 501 since RabbitMQ 4.3; the relay says 505, if it does not pass the body on.
fn alike(theirs: &[Frame], ours: &[Frame]) -> bool {
    match (code(theirs), code(ours)) {
        (501, 501 | 505) | (505, 505) => theirs.len() == ours.len(),
        (0, 320) => theirs.is_empty() && ours.len() == 1,
        _ => theirs == ours,
    }
}

fn shown(frames: &[Frame]) -> String {
    frames
        .iter()
        .map(|frame| {
            let method = &frame.payload[..frame.payload.len().min(6)];
            let text = frame.payload.get(7..).map(String::from_utf8_lossy).unwrap_or_default();
            format!("\n      channel {} {method:?} {text:?}", frame.channel)
        })
        .collect()
}

/// The code for a body that is longer than its header says: 505 up to RabbitMQ 4.2, 501 from 4.3 on.
const TOO_LONG: u16 = 0xffff;

/// A fault: its name, the code the broker answers it with, the octets, after `channel.open` of channel 1.
struct Case {
    name: &'static str,
    code: u16,
    octets: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let case = |name, code, parts: &[Vec<u8>]| Case { name, code, octets: parts.concat() };
    let publish = Publish { body: b"body", ..Publish::to("q", "a") };
    let (method, content, body) = (publish.method(1), publish.header(1), frame(3, 1, b"body"));
    let mut wrong_end = publish.encode(1, 4096);
    *wrong_end.last_mut().unwrap() = 0;
    let mut method_wrong_end = method.clone();
    *method_wrong_end.last_mut().unwrap() = 0xcd;
    let immediate = method_frame(
        1,
        &AMQPClass::Basic(basic::AMQPMethod::Publish(basic::Publish {
            routing_key: "q".into(),
            immediate: true,
            ..basic::Publish::default()
        })),
    );
    vec![
        case("a body without a method", 505, std::slice::from_ref(&body)),
        case("a header without a method", 505, std::slice::from_ref(&content)),
        case("a body where a header must be", 505, &[method.clone(), body.clone()]),
        case("a method where a header must be", 505, &[method.clone(), qos(1)]),
        case("a publish where a header must be", 505, &[method.clone(), method.clone()]),
        case(
            "a close where a header must be",
            505,
            &[method.clone(), raw_method(1, &[0, 20, 0, 40, 0, 200, 0, 0, 0, 0, 0])],
        ),
        case("a method within a body", 505, &[method.clone(), content.clone(), frame(3, 1, b"bo"), qos(1)]),
        case("a header within a body", 505, &[method.clone(), content.clone(), content.clone()]),
        case("a header of another class", 505, &[method.clone(), header(1, 20, 4, &[0, 0])]),
        case("a header that is cut short", 501, &[method.clone(), frame(2, 1, &[0, 60, 0, 0])]),
        case("a wrong frame-end after a body", 501, &[wrong_end]),
        case("a wrong frame-end after a method", 501, &[method_wrong_end]),
        case("an unknown frame type", 501, &[frame(4, 1, b"x")]),
        case("frame type 0", 501, &[frame(0, 1, b"")]),
        case("a frame that is too large", 501, &[frame(3, 1, &vec![0; 140_000])]),
        case("a channel that is not open", 504, &[qos(7)]),
        case("a publish to a channel that is not open", 504, &[Publish::to("q", "a").encode(7, 4096)]),
        case("a channel that is opened twice", 504, &[raw_method(1, &OPEN)]),
        case("an unknown class", 0, &[raw_method(1, &[0, 99, 0, 10])]),
        case("an unknown method", 0, &[raw_method(1, &[0, 60, 0, 99])]),
        case("an unknown method of the connection", 0, &[raw_method(0, &[0, 10, 0, 99])]),
        case(
            "a method that is cut short",
            501,
            &[raw_method(1, &[0, 60, 0, 40, 0, 0, 9]), content.clone(), body.clone()],
        ),
        case("a method without a method", 501, &[raw_method(1, &[0])]),
        case("a method with too much", 501, &[raw_method(1, &[0, 60, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3])]),
        case("connection.open on a channel", 503, &[raw_method(1, &[0, 10, 0, 40, 1, b'/', 0, 0])]),
        case("a second connection.open", 504, &[raw_method(0, &[0, 10, 0, 40, 1, b'/', 0, 0])]),
        case("channel.open on channel 0", 504, &[raw_method(0, &OPEN)]),
        case("channel.flow to stop us", 540, &[raw_method(1, &[0, 20, 0, 20, 0])]),
        case("channel.flow to go on", 0, &[raw_method(1, &[0, 20, 0, 20, 1]), qos(1)]),
        case("immediate", 540, &[immediate, content.clone(), body.clone()]),
        case(
            "an ack of a tag that was not given",
            406,
            &[raw_method(1, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 9, 0])],
        ),
        case(
            "more body than was announced",
            TOO_LONG,
            &[method.clone(), content.clone(), body.clone(), frame(3, 1, b"x"), qos(1)],
        ),
        case(
            "a longer body frame than was announced",
            TOO_LONG,
            &[method.clone(), content.clone(), frame(3, 1, b"too long"), qos(1)],
        ),
        case("no exchange", 404, &[Publish { exchange: "none", ..publish.clone() }.encode(1, 4096)]),
        case(
            "an expiration that is no number",
            406,
            &[method, header(1, 60, 4, &[1, 0, 1, b'x']), body, qos(1)],
        ),
        case("a heartbeat on a channel", 505, &[frame(8, 1, b""), qos(1)]),
        case("a heartbeat with something in it", 501, &[frame(8, 0, b"x"), qos(1)]),
    ]
}

#[test]
fn p10_faulty_frames_are_answered_as_the_broker_answers_them() {
    let site = Site::new("p10", "");
    let mut different = Vec::new();
    for Case { name, code: wanted, octets } in cases() {
        println!("{name}");
        let [theirs, ours] = [site.direct(), site.client()].map(|mut client| {
            client.open_channel(1);
            said(&mut client, &octets)
        });
        let too_long = wanted == TOO_LONG && matches!(code(&theirs), 501 | 505);
        if code(&theirs) != wanted && !too_long {
            different.push(format!("  {name}: the broker was expected to say {wanted}:{}", shown(&theirs)));
        }
        if !alike(&theirs, &ours) {
            different.push(format!(
                "  {name}\n    the broker:{}\n    the relay:{}",
                shown(&theirs),
                shown(&ours)
            ));
        }
    }
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}

/// Whether there is nothing but a `connection.close` with 501 after this.
fn says_501_after(said: &[u8], octets: &[u8]) -> bool {
    octets.strip_prefix(said).is_some_and(|close| close.len() > 13 && close[7..13] == [0, 10, 0, 50, 1, 245])
}

#[test]
fn p10_faulty_handshakes_are_answered_as_the_broker_answers_them() {
    let site = Site::new("p10-handshake", "");
    let start_ok = |mechanism: &str, response: &str| {
        method_frame(
            0,
            &AMQPClass::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
                mechanism: mechanism.into(),
                response: response.into(),
                locale: "en_US".into(),
                ..connection::StartOk::default()
            })),
        )
    };
    // Everything that is said until the other side hangs up, by octets: not all of it need be frames.
    let to_the_end = |addr, parts: &[&[u8]]| {
        let mut client = Raw::dial(addr).unwrap();
        for part in parts {
            client.write(part).unwrap();
        }
        let mut octets = Vec::new();
        let _ = std::io::Read::read_to_end(&mut client.socket(), &mut octets);
        octets
    };
    // RabbitMQ 4 answers these by the header of AMQP 1.0, which the relay does not speak: it names 0-9-1, as RabbitMQ 3 does.
    let no_amqp_0_9_1 = ["HTTP", "AMQP 1.0", "AMQP 0-9"];
    // These the broker leaves without an answer: it hangs up, and the relay may say 501 before it does.
    let silent = ["a frame with a wrong end", "a frame of an unknown type"];
    let cases: &[(&str, &[&[u8]])] = &[
        ("HTTP", &[b"GET / HTTP/1.1\r\n\r\n"]),
        ("AMQP 1.0", &[b"AMQP\x00\x01\x00\x00"]),
        ("AMQP 0-9", &[b"AMQP\x01\x01\x00\x09"]),
        ("an unknown mechanism", &[HEADER, &start_ok("NONE", "")]),
        ("a wrong method", &[HEADER, &raw_method(0, &[0, 10, 0, 40, 1, b'/', 0, 0])]),
        ("a method on a channel", &[HEADER, &raw_method(1, &OPEN)]),
        ("a body", &[HEADER, &frame(3, 0, b"x")]),
        ("credentials that do not parse", &[HEADER, &start_ok("PLAIN", "no nul")]),
        ("a frame with a wrong end", &[HEADER, &[1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 11, 0]]),
        ("a frame of an unknown type", &[HEADER, &frame(9, 0, b"")]),
    ];
    let mut different = Vec::new();
    // Some of it the broker answers after seconds only: all at once.
    let answers = std::thread::scope(|scope| {
        let asked: Vec<_> = cases
            .iter()
            .map(|(_, parts)| {
                [site.rabbit.addr(), site.addr()].map(|addr| scope.spawn(move || to_the_end(addr, parts)))
            })
            .collect();
        asked.into_iter().map(|both| both.map(|asked| asked.join().unwrap())).collect::<Vec<_>>()
    });
    for ((name, _), [theirs, ours]) in cases.iter().zip(answers) {
        let hangs_up =
            silent.contains(name) && [&b""[..], &theirs].iter().any(|said| says_501_after(said, &ours));
        let offers_0_9_1 = no_amqp_0_9_1.contains(name) && theirs.starts_with(b"AMQP") && ours == HEADER;
        if theirs != ours && !hangs_up && !offers_0_9_1 {
            let [theirs, ours] = [theirs, ours].map(|octets| octets.escape_ascii().to_string());
            different.push(format!("  {name}\n    the broker: {theirs}\n    the relay:  {ours}"));
        }
    }
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}

#[test]
fn p10_a_body_may_be_split_anyhow() {
    let site = Site::new("p10-splits", "");
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let body = b"split";
    let splits: [&[&[u8]]; 5] = [
        &[b"split"],
        &[b"s", b"p", b"l", b"i", b"t"],
        &[b"", b"sp", b"", b"", b"lit"],
        &[b"spli", b"t"],
        &[b"", b"split"],
    ];
    for (n, split) in splits.into_iter().enumerate() {
        let id = n.to_string();
        let publish = Publish { body, ..Publish::to("q", &id) };
        let mut octets = [publish.method(1), publish.header(1)].concat();
        octets.extend(split.iter().flat_map(|part| frame(3, 1, part)));
        client.write(&octets).unwrap();
        assert!(matches!(client.next(1), Told::Ack { .. }));
        let message = client.get(1, "q").unwrap();
        assert_eq!((message.id(), &message.body[..]), (Some(id.as_bytes()), &body[..]), "{split:?}");
    }
    // Octet by octet on the wire, too, and a repeat of it, which is swallowed wherever it is split. Another connection gets the
    // message: a client that publishes what it has got publishes a new message.
    let mut other = site.direct();
    other.open_channel(1);
    for expected in [1, 0] {
        for octet in Publish::to("q", "slow").encode(1, 4096) {
            client.write(&[octet]).unwrap();
        }
        assert!(matches!(client.next(1), Told::Ack { .. }));
        if !crate::e2e::site::without_relay() {
            assert_eq!(held(&mut other, "q"), expected);
        }
    }
}

#[test]
fn p10_channels_may_be_interleaved_frame_by_frame() {
    let site = Site::new("p10-interleaved", "");
    let mut client = site.client();
    let publish = |id, body| Publish { body, ..Publish::to("q", id) };
    let frames = |channel: u16, publish: &Publish<'_>| {
        let (front, back) = publish.body.split_at(publish.body.len() / 2);
        [publish.method(channel), publish.header(channel), frame(3, channel, front), frame(3, channel, back)]
    };
    for channel in 1..=3 {
        client.confirming(channel);
    }
    client.declare(1, "q", &[]);
    acked(&client.publish_and_settle(1, &publish("known", b"first")));
    // Channel 2 publishes a duplicate in the middle of two fresh ones.
    let parts = [
        frames(1, &publish("one", b"of channel 1")),
        frames(2, &publish("known", b"of channel 2, and longer than the others")),
        frames(3, &publish("three", b"of channel 3")),
    ];
    let octets: Vec<u8> =
        (0..4).flat_map(|step| parts.iter().flat_map(move |part| part[step].clone())).collect();
    client.write(&octets).unwrap();
    for channel in 1..=3 {
        assert!(matches!(client.next(channel), Told::Ack { .. }), "channel {channel}");
    }
    let mut bodies: Vec<_> = std::iter::from_fn(|| client.get(1, "q")).map(|message| message.body).collect();
    bodies.sort();
    let mut expected = vec![b"first".to_vec(), b"of channel 1".to_vec(), b"of channel 3".to_vec()];
    if crate::e2e::site::without_relay() {
        expected.insert(2, b"of channel 2, and longer than the others".to_vec());
    }
    assert_eq!(bodies, expected);
}

#[test]
fn p10_frame_max_is_the_minimum_and_headers_may_be_as_large() {
    let site = Site::new("p10-frame-max", "");
    for frame_max in [4096, 8192, 131_072] {
        let login = Login { frame_max, ..Login::guest(&site.vhost) };
        let client = Raw::login(site.addr(), &login);
        if frame_max < 8192 && Raw::login(site.rabbit.addr(), &login).is_err() {
            // RabbitMQ 4.1 and later refuse it.
            assert!(client.is_err());
            continue;
        }
        let mut client = client.unwrap();
        client.confirming(1);
        client.declare(1, "q", &[]);
        let (text, id) = ("x".repeat(frame_max as usize - 100), frame_max.to_string());
        let headers = [("large", Value::Text(&text))];
        let body = vec![b'y'; 3 * frame_max as usize + 1];
        let publish = Publish { headers: &headers, body: &body, ..Publish::to("q", &id) };
        acked(&client.publish_and_settle(1, &publish));
        // Received in frames that are no larger either: one that is would be no answer to basic.get here.
        let message = client.get(1, "q").unwrap();
        assert_eq!((message.id(), message.body.len()), (Some(id.as_bytes()), body.len()));
        let unchanged = message.properties.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(unchanged, "the header table came through");
        client.close();
    }
}

#[test]
fn p10_a_client_that_dies_mid_body_poisons_nothing() {
    let Some(site) = Site::of_relay("p10-dies", "") else { return };
    let mut other = site.client();
    other.confirming(1);
    other.declare(1, "q", &[]);
    let publish = Publish { body: b"never whole", ..Publish::to("q", "a") };
    for parts in 1..=3 {
        let mut dying = site.client();
        dying.open_channel(1);
        let all = [publish.method(1), publish.header(1), frame(3, 1, b"never")];
        dying.write(&all[..parts].concat()).unwrap();
        dying.open_channel(2); // answered, so the rest was read
        drop(dying);
        site.until_metric("connections", &[], 1.0);
        site.until_metric("window_in_flight", &[], 0.0);
    }
    acked(&other.publish_and_settle(1, &publish));
    assert_eq!(other.drain(1, "q"), ["a"]);
}

#[test]
fn p12_the_server_looks_the_same() {
    let site = Site::new("p12", "");
    let start = |addr| {
        let mut client = Raw::dial(addr).unwrap();
        client.write(HEADER).unwrap();
        client.frame().unwrap().unwrap()
    };
    assert_eq!(
        start(site.addr()),
        start(site.rabbit.addr()),
        "properties, capabilities, mechanisms, locales"
    );
    let (ours, theirs) = (site.client(), site.direct());
    assert_eq!(ours.server_properties, theirs.server_properties);
    assert_eq!(ours.frame_max(), theirs.frame_max());
}

#[test]
fn p12_amqplain_logs_in_and_a_refused_login_says_why() {
    let site = Site::new("p12-login", "");
    let answer = |addr, password: &str| {
        let mut client = Raw::dial(addr).unwrap();
        client.write(HEADER).unwrap();
        client.frame().unwrap().unwrap();
        let entry = |name: &str, value: &str| {
            let mut entry = vec![name.len() as u8];
            entry.extend(name.bytes());
            entry.push(b'S');
            entry.extend((value.len() as u32).to_be_bytes());
            entry.extend(value.bytes());
            entry
        };
        let response = [entry("LOGIN", "guest"), entry("PASSWORD", password)].concat();
        let start_ok = connection::StartOk {
            mechanism: "AMQPLAIN".into(),
            response: response.into(),
            locale: "en_US".into(),
            ..connection::StartOk::default()
        };
        let start_ok = AMQPClass::Connection(connection::AMQPMethod::StartOk(start_ok));
        client.write(&method_frame(0, &start_ok)).unwrap();
        client.frame().unwrap()
    };
    for password in ["guest", "wrong"] {
        let [ours, theirs] = [site.addr(), site.rabbit.addr()].map(|addr| answer(addr, password));
        assert_eq!(ours, theirs, "{password}");
    }
    let wrong = Login { password: "wrong".into(), ..Login::guest(&site.vhost) };
    let closed = Login::guest("no-such-vhost");
    for login in [wrong, closed] {
        let [ours, theirs] =
            [site.addr(), site.rabbit.addr()].map(|addr| Raw::login(addr, &login).unwrap_err().to_string());
        assert_eq!(ours, theirs);
    }
}

#[test]
fn p12_update_secret_and_tables_pass_through() {
    let site = Site::new("p12-through", "");
    let answer = |mut client: Raw| {
        let update = connection::UpdateSecret { new_secret: "guest".into(), reason: "renewed".into() };
        let answer = client.call(0, &AMQPClass::Connection(connection::AMQPMethod::UpdateSecret(update)));
        client.open_channel(1);
        let flow = channel::Flow { active: true };
        (answer, client.call(1, &AMQPClass::Channel(channel::AMQPMethod::Flow(flow))))
    };
    assert_eq!(answer(site.client()), answer(site.direct()));

    // Every property and every type that a table can hold, byte by byte as it was sent.
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let mut table = Vec::new();
    // Sorted by their names, which are the types: RabbitMQ 4 sorts the entries of a table.
    for (kind, value) in [
        (b'A', &[0, 0, 0, 3, b't', 0, b'V'][..]),
        (b'B', &[0xff]),
        (b'D', &[2, 0, 0, 0, 7]),
        (b'F', &[0, 0, 0, 3, 1, b'k', b'V']),
        (b'I', &[0, 0, 0, 1]),
        (b'S', &[0, 0, 0, 1, 0xff]),
        (b'T', &[0, 0, 0, 0, 0, 0, 0, 1]),
        (b'V', &[]),
        (b'b', &[0xff]),
        (b'd', &[0x3f, 0xf0, 0, 0, 0, 0, 0, 0]),
        (b'f', &[0x3f, 0x80, 0, 0]),
        (b'i', &[0, 0, 0, 1]),
        (b'l', &[0, 0, 0, 0, 0, 0, 0, 1]),
        (b's', &[1, 2]),
        (b't', &[1]),
        (b'u', &[1, 2]),
        (b'x', &[0, 0, 0, 1, 9]),
    ] {
        table.extend([1, kind, kind]);
        table.extend(value);
    }
    let mut properties = vec![0xff, 0xfc];
    properties.extend(b"\x01t\x01e");
    properties.extend((table.len() as u32).to_be_bytes());
    properties.extend(table);
    properties.extend(b"\x02\x05\x01c\x01r\x0560000\x01m\0\0\0\0\0\0\0\x01\x01y\x05guest\x01a\x01z");
    let publish = Publish { body: b"", ..Publish::to("q", "") };
    client.write(&[publish.method(1), header(1, 60, 0, &properties)].concat()).unwrap();
    assert_eq!(client.next(1), Told::Ack { tag: 1, multiple: false });
    assert_eq!(client.get(1, "q").unwrap().properties, properties);
}

/// The broker closes the channel for one publish while the next is half way: it waits for the rest of that all the
/// same, and takes anything else before it for a fault of the connection. (Go's client does this all the time.)
#[test]
fn p10_a_channel_that_is_closed_amid_content_still_gets_the_rest_of_it() {
    let site = Site::new("p10-amid", "");
    for (id, confirms) in [(None, false), (Some(&b"a"[..]), false), (None, true), (Some(&b"b"[..]), true)] {
        let mut client = site.client();
        if confirms {
            client.confirming(1);
        } else {
            client.open_channel(1);
        }
        for round in 0..20 {
            let body = [b'x'; 100];
            let publish = Publish { exchange: "none", id, body: &body, ..Publish::to("", "") };
            let (front, back) = body.split_at(50);
            let octets =
                [publish.encode(1, 4096), publish.method(1), publish.header(1), frame(3, 1, front)].concat();
            client.write(&octets).unwrap();
            let close = client.frame().unwrap().expect("the connection is open");
            assert_eq!(close.payload[..6], [0, 20, 0, 40, 1, 148], "{id:?} {confirms} {round}");
            client.write(&[frame(3, 1, back), raw_method(1, &[0, 20, 0, 41])].concat()).unwrap();
            client.open_channel(1);
        }
    }
}
