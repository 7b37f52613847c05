//! Octets that are said to the broker and to the relay alike, and what both answer, as lines of text.

use crate::e2e::raw::{Frame, HEADER, Raw, method_frame};
use amq_protocol::protocol::{AMQPClass, channel, connection, parse_class};
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

/// A method frame of octets that are given.
pub(crate) fn method(channel: u16, payload: &[u8]) -> Vec<u8> {
    frame(1, channel, payload)
}

pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    Frame { kind, channel, payload: payload.to_vec() }.encode()
}

/// A method without arguments, or whose arguments are all zero octets.
fn bare(channel: u16, class: u8, id: u8, zeros: usize) -> Vec<u8> {
    method(channel, &[&[0, class, 0, id][..], &vec![0; zeros]].concat())
}

pub(crate) fn channel_open(channel: u16) -> Vec<u8> {
    bare(channel, 20, 10, 1)
}

pub(crate) fn channel_close(channel: u16) -> Vec<u8> {
    bare(channel, 20, 40, 7)
}

pub(crate) fn channel_close_ok(channel: u16) -> Vec<u8> {
    bare(channel, 20, 41, 0)
}

pub(crate) fn qos(channel: u16) -> Vec<u8> {
    bare(channel, 60, 10, 7)
}

pub(crate) fn confirm_select(channel: u16) -> Vec<u8> {
    bare(channel, 85, 10, 1)
}

pub(crate) fn tx_select(channel: u16) -> Vec<u8> {
    bare(channel, 90, 10, 0)
}

pub(crate) fn tx_commit(channel: u16) -> Vec<u8> {
    bare(channel, 90, 20, 0)
}

pub(crate) fn start_ok(user: &str) -> Vec<u8> {
    method_frame(
        0,
        &AMQPClass::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
            mechanism: "PLAIN".into(),
            response: format!("\0{user}\0{user}").into(),
            locale: "en_US".into(),
            ..connection::StartOk::default()
        })),
    )
}

pub(crate) fn tune_ok(channel_max: u16) -> Vec<u8> {
    let tune_ok = connection::TuneOk { channel_max, frame_max: 131_072, heartbeat: 0 };
    method_frame(0, &AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune_ok)))
}

pub(crate) fn connection_open(vhost: &str) -> Vec<u8> {
    let open = connection::Open { virtual_host: vhost.into() };
    method_frame(0, &AMQPClass::Connection(connection::AMQPMethod::Open(open)))
}

/// A connection that is logged in and has agreed on this many channels.
pub(crate) fn logged_in(addr: SocketAddr, user: &str, vhost: &str, channel_max: u16) -> Raw {
    let mut client = Raw::dial(addr).unwrap();
    client.write(HEADER).unwrap();
    client.frame().unwrap().expect("start");
    client.write(&start_ok(user)).unwrap();
    client.frame().unwrap().expect("tune");
    client.write(&[tune_ok(channel_max), connection_open(vhost)].concat()).unwrap();
    let opened = client.frame().unwrap().expect("open-ok");
    assert_eq!(opened.payload[..4], [0, 10, 0, 41], "{}", shown(&opened));
    client
}

/// Longer than the three seconds that the broker takes to hang up on a client without a word.
const SILENCE: Duration = Duration::from_secs(8);

/// The next frame that is no heartbeat. The end of the connection, or silence, is the last line.
pub(crate) fn next(client: &mut Raw, lines: &mut Lines) -> Option<Frame> {
    client.socket().set_read_timeout(Some(SILENCE)).unwrap();
    loop {
        match client.frame() {
            Ok(Some(frame)) if frame.kind == 8 => {}
            Ok(Some(frame)) => {
                lines.push((frame.channel, shown(&frame)));
                return Some(frame);
            }
            Ok(None) => lines.push((u16::MAX, "the end".to_owned())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                lines.push((u16::MAX, "silence".to_owned()));
            }
            Err(error) => panic!("{error} after {lines:?}"),
        }
        if lines.last().is_some_and(|(channel, _)| *channel == u16::MAX) {
            return None;
        }
    }
}

/// Returns the answers after these octets until the connection ends, or is closed in an orderly way by either side. A
/// `connection.close` is answered.
pub(crate) fn to_the_end(client: &mut Raw, octets: &[u8]) -> Vec<String> {
    let _ = client.write(octets);
    let mut lines = Vec::new();
    while let Some(frame) = next(client, &mut lines) {
        match frame.payload.first_chunk() {
            Some([0, 10, 0, 50]) => say_close_ok(client),
            Some([0, 10, 0, 51]) => break,
            _ => {}
        }
    }
    in_order(lines)
}

/// Returns the answers after these octets until this channel is closed. Nothing follows on it: the channel is opened again
/// as proof. Where the whole connection is closed, until its end.
pub(crate) fn to_the_close(client: &mut Raw, octets: &[u8], channel: u16) -> Vec<String> {
    client.write(octets).unwrap();
    let mut lines = Vec::new();
    let mut opened_again = false;
    while let Some(frame) = next(client, &mut lines) {
        match frame.payload.first_chunk() {
            Some([0, 10, 0, 50]) => say_close_ok(client),
            Some([0, 20, 0, 40]) if frame.channel == channel => {
                let _ = client.write(&[channel_close_ok(channel), channel_open(channel)].concat());
                opened_again = true;
            }
            Some([0, 20, 0, 11]) if frame.channel == channel && opened_again => break,
            _ => {}
        }
    }
    in_order(lines)
}

/// The answer to `connection.close`, and the end of what we say.
fn say_close_ok(client: &mut Raw) {
    let _ = client.write(&bare(0, 10, 51, 0));
    let _ = client.socket().shutdown(Shutdown::Write);
}

/// Lines with their channels.
pub(crate) type Lines = Vec<(u16, String)>;

/// By channel: the broker keeps the order within a channel only.
fn in_order(mut lines: Lines) -> Vec<String> {
    lines.sort_by_key(|(channel, _)| *channel);
    lines.into_iter().map(|(_, line)| line).collect()
}

/// A frame as a line. `connection.start` and `connection.tune` are shown by name: the relay offers what it offers.
pub(crate) fn shown(frame: &Frame) -> String {
    let told = match (frame.kind, parse_class(&frame.payload[..])) {
        (1, Ok((_, AMQPClass::Connection(connection::AMQPMethod::Start(_))))) => "start".to_owned(),
        (1, Ok((_, AMQPClass::Connection(connection::AMQPMethod::Tune(_))))) => "tune".to_owned(),
        (1, Ok((_, AMQPClass::Connection(connection::AMQPMethod::Close(close))))) => {
            closed("connection", close.reply_code, close.reply_text.as_str(), close.class_id, close.method_id)
        }
        (1, Ok((_, AMQPClass::Channel(channel::AMQPMethod::Close(close))))) => {
            closed("channel", close.reply_code, close.reply_text.as_str(), close.class_id, close.method_id)
        }
        (1, Ok((_, method))) => format!("{method:?}"),
        (kind, _) => format!("type {kind}: {}", frame.payload.escape_ascii()),
    };
    format!("channel {}: {told}", frame.channel)
}

fn closed(what: &str, code: u16, text: &str, class: u16, id: u16) -> String {
    format!("{what}.close {code} {text:?} for {class}.{id}")
}

/// The scripts whose two transcripts differ, for a failure's message.
#[derive(Default)]
pub(crate) struct Differences(Vec<String>);

impl Differences {
    /// Notes a difference between what was wanted and what was said.
    pub(crate) fn compare(&mut self, name: &str, wanted: &[String], said: &[String]) {
        if wanted != said {
            let lines =
                |lines: &[String]| lines.iter().map(|line| format!("\n      {line}")).collect::<String>();
            self.0.push(format!("  {name}\n    the broker:{}\n    the relay:{}", lines(wanted), lines(said)));
        }
    }

    /// Notes that a script did not do what the test is about.
    pub(crate) fn expect(&mut self, name: &str, wanted: &str, said: &[String]) {
        if !said.iter().any(|line| line.contains(wanted)) {
            self.0.push(format!("  {name}: {wanted:?} is expected: {said:#?}"));
        }
    }

    /// There must be none.
    pub(crate) fn none(self) {
        assert!(self.0.is_empty(), "{} differ:\n{}", self.0.len(), self.0.join("\n"));
    }
}
