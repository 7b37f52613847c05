//! One client of the sink.

use super::super::ids::{fresh_run, hex};
use super::super::message::{self, Shape};
use super::super::now;
use super::super::outlet::{Batch, Outlet};
use super::super::poll::{Interest, Ready};
use super::methods::{self, Answer, FRAME_MAX};
use bytes::BytesMut;
use hapax_core::wire::ChannelId;
use hapax_core::wire::emit;
use hapax_core::wire::frame::{HEADER_LEN, OVERHEAD, PROTOCOL_HEADER};
use hapax_core::wire::method::MethodId;
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A client that takes no answers is not read any more.
const ANSWERS_MAX: usize = 256 << 10;
/// Writes of deliveries in a row, so that others get their turn.
const WRITES: usize = 8;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// It has gone, or is to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Gone {
        Gone
    }
}

/// The state of a channel.
#[derive(Clone, Copy, Default, Debug)]
struct Channel {
    number: u16,
    confirming: bool,
    /// messages that are here as a whole
    published: u64,
    /// of them acked
    acked: u64,
    /// octets of the body that are still to come
    body_left: u64,
}

/// Deliveries on their way to a consumer.
#[derive(Debug)]
struct Feed {
    channel: u16,
    consumer: String,
    batch: Batch,
    /// where the second half of the message-id stands
    counter: usize,
    next_tag: u64,
    left: u64,
}

/// One connection of a client: its socket, what it has sent, and what it is to be told.
#[derive(Debug)]
pub(super) struct SinkClient {
    pub(super) stream: TcpStream,
    pub(super) interest: Interest,
    /// the beginning of a frame
    input: Vec<u8>,
    outlet: Outlet,
    greeted: bool,
    channels: Vec<Channel>,
    feeds: Vec<Feed>,
    /// half of what was agreed
    beat_every: Option<Duration>,
    written: Instant,
    /// closed as soon as the last answer is out
    leaving: bool,
}

impl SinkClient {
    pub(super) fn new(stream: TcpStream) -> io::Result<SinkClient> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(SinkClient {
            stream,
            interest: Interest::Read,
            input: Vec::new(),
            outlet: Outlet::default(),
            greeted: false,
            channels: Vec::new(),
            feeds: Vec::new(),
            beat_every: None,
            written: now(),
            leaving: false,
        })
    }

    pub(super) fn wanted(&self) -> Interest {
        let write = self.outlet.waiting() > 0 || !self.feeds.is_empty();
        match (self.outlet.waiting() > ANSWERS_MAX, write) {
            (true, _) => Interest::Write,
            (false, true) => Interest::Both,
            (false, false) => Interest::Read,
        }
    }

    pub(super) fn handle(&mut self, ready: Ready, buffer: &mut [u8]) -> Result<(), Gone> {
        if ready.readable && self.outlet.waiting() <= ANSWERS_MAX {
            self.read(buffer)?;
        }
        if self.outlet.flush(&mut self.stream)? {
            if self.leaving {
                return Err(Gone);
            }
            self.feed()?;
        }
        Ok(())
    }

    /// Sends a heartbeat if it is time.
    pub(super) fn beat(&mut self, now: Instant) -> Result<(), Gone> {
        if self.beat_every.is_some_and(|every| now.duration_since(self.written) >= every) {
            self.written = now;
            self.outlet.push(&emit::HEARTBEAT);
            self.outlet.flush(&mut self.stream)?;
        }
        Ok(())
    }

    /// Does one large read. If the socket holds more, it is ready again.
    fn read(&mut self, buffer: &mut [u8]) -> Result<(), Gone> {
        let begin = self.input.len();
        buffer.get_mut(..begin).ok_or(Gone)?.copy_from_slice(&self.input);
        let length = match self.stream.read(buffer.get_mut(begin..).unwrap_or_default()) {
            Ok(0) => return Err(Gone),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(_) => return Err(Gone),
        };
        let all = buffer.get(..begin + length).unwrap_or_default();
        let used = self.take(all)?;
        self.input.clear();
        self.input.extend_from_slice(all.get(used..).unwrap_or_default());
        self.ack();
        Ok(())
    }

    /// How many octets of it were whole frames.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Gone> {
        let mut at = 0;
        if !self.greeted {
            let Some(greeting) = bytes.first_chunk::<8>() else { return Ok(0) };
            if *greeting != PROTOCOL_HEADER {
                return Err(Gone);
            }
            self.greeted = true;
            at = greeting.len();
            self.outlet.push(&methods::start());
        }
        // Its channels are in a list; nearly every frame belongs to the one before.
        let mut place = 0;
        while let Some(&[kind, high, low, a, b, c, d]) =
            bytes.get(at..).and_then(<[u8]>::first_chunk::<HEADER_LEN>)
        {
            let size = u32::from_be_bytes([a, b, c, d]);
            if size > FRAME_MAX {
                return Err(Gone);
            }
            let size = size as usize;
            let Some(payload) = bytes.get(at + HEADER_LEN..at + HEADER_LEN + size) else { return Ok(at) };
            if bytes.len() < at + size + OVERHEAD {
                return Ok(at);
            }
            at += size + OVERHEAD;
            let number = u16::from_be_bytes([high, low]);
            match kind {
                // The method of a publish says nothing of interest; its header and body follow.
                METHOD if payload.starts_with(&[0, 60, 0, 40]) => {}
                METHOD => self.handle_method(number, payload)?,
                HEADER | BODY => self.handle_content(kind, number, payload, &mut place)?,
                _ => {}
            }
        }
        Ok(at)
    }

    fn handle_content(
        &mut self,
        kind: u8,
        number: u16,
        payload: &[u8],
        place: &mut usize,
    ) -> Result<(), Gone> {
        if self.channels.get(*place).is_none_or(|channel| channel.number != number) {
            *place = self.channels.iter().position(|channel| channel.number == number).ok_or(Gone)?;
        }
        let channel = self.channels.get_mut(*place).ok_or(Gone)?;
        if kind == HEADER {
            // class, weight, body size
            let size = payload.get(4..).and_then(<[u8]>::first_chunk::<8>).ok_or(Gone)?;
            channel.body_left = u64::from_be_bytes(*size);
        } else {
            channel.body_left = channel.body_left.checked_sub(payload.len() as u64).ok_or(Gone)?;
        }
        channel.published += u64::from(channel.body_left == 0);
        Ok(())
    }

    fn handle_method(&mut self, number: u16, payload: &[u8]) -> Result<(), Gone> {
        if let Ok(MethodId::BASIC_ACK | MethodId::BASIC_NACK) = MethodId::of(payload) {
            return Ok(());
        }
        let method = emit::parse_method(payload).ok_or(Gone)?;
        match methods::answer(&method) {
            Answer::Nothing => {}
            Answer::Agreed { heartbeat } => {
                self.beat_every = (heartbeat > 0).then(|| Duration::from_millis(500) * u32::from(heartbeat));
            }
            Answer::Say(method) => self.say(number, method),
            Answer::Open(method) => {
                self.channels.push(Channel { number, ..Channel::default() });
                self.say(number, method);
            }
            Answer::Close(method) => {
                self.channels.retain(|channel| channel.number != number);
                self.feeds.retain(|feed| feed.channel != number);
                self.say(number, method);
            }
            Answer::Confirm(method) => {
                let channel =
                    self.channels.iter_mut().find(|channel| channel.number == number).ok_or(Gone)?;
                channel.confirming = true;
                // The first publish from here on is 1.
                (channel.published, channel.acked) = (0, 0);
                if let Some(method) = method {
                    self.say(number, method);
                }
            }
            Answer::Feed { consumer, count, method } => {
                let (template, counter) =
                    message::deliver(&Shape::default(), ChannelId(number), &consumer, fresh_run(), FRAME_MAX);
                let batch = Batch::new(&template, usize::MAX);
                if let Some(method) = method {
                    self.say(number, method);
                }
                if count > 0 {
                    self.feeds.push(Feed {
                        channel: number,
                        consumer,
                        batch,
                        counter,
                        next_tag: 1,
                        left: count,
                    });
                }
            }
            Answer::Cancel { consumer, method } => {
                self.feeds.retain(|feed| feed.channel != number || feed.consumer != consumer);
                if let Some(method) = method {
                    self.say(number, method);
                }
            }
            Answer::Leave(method) => {
                self.feeds.clear();
                self.say(number, method);
                self.leaving = true;
            }
        }
        Ok(())
    }

    fn say(&mut self, number: u16, method: amq_protocol::protocol::AMQPClass) {
        self.outlet.push(&emit::method(ChannelId(number), method));
    }

    /// One ack for each channel that has got something.
    fn ack(&mut self) {
        let mut acks = BytesMut::new();
        for channel in &mut self.channels {
            if channel.confirming && channel.acked < channel.published {
                let multiple = channel.published - channel.acked > 1;
                channel.acked = channel.published;
                emit::ack(&mut acks, ChannelId(channel.number), channel.published, multiple);
            }
        }
        self.outlet.push(&acks);
    }

    /// Writes deliveries until the socket takes no more.
    fn feed(&mut self) -> io::Result<()> {
        for _ in 0..WRITES {
            let Some(feed) = self.feeds.first_mut() else { return Ok(()) };
            let wanted = usize::try_from(feed.left).unwrap_or(usize::MAX).min(feed.batch.room());
            let tags = feed.next_tag..feed.next_tag + wanted as u64;
            feed.batch.patch(tags.clone().map(u64::to_be_bytes));
            feed.batch.patch_at(feed.counter, tags.map(hex));
            let sent = self.outlet.send(&mut self.stream, &feed.batch, wanted)?;
            feed.next_tag += sent as u64;
            feed.left -= sent as u64;
            if feed.left == 0 {
                self.feeds.remove(0);
            }
            if sent < wanted || self.outlet.waiting() > 0 {
                return Ok(());
            }
        }
        Ok(())
    }
}
