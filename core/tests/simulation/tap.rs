//! Reads everything that the relay writes, and checks that it is legal AMQP: invariant (i).
//!
//! There is one tap per direction. It knows nothing of deduplication. It checks that content is a method, a header,
//! and bodies of the stated size, without another frame of the same channel between them. It also checks that a
//! channel is opened before it is used, that it is silent after it was closed, and that no frame is larger than
//! agreed.

use crate::support::frames::{Frame, Reader};
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, basic, channel, connection};
use std::collections::BTreeMap;

/// To whom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Toward {
    /// the client
    Client,
    /// the broker
    Broker,
}

/// Where a channel's content is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Content {
    #[default]
    None,
    Header,
    Body(u64),
}

/// The state of a channel, as far as the writer has changed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Life {
    #[default]
    Unknown,
    Open,
    /// `close` was written: nothing but `close-ok` may follow
    Closing,
}

#[derive(Clone, Copy, Debug, Default)]
struct Channel {
    life: Life,
    content: Content,
}

/// A tap on one direction of a link.
#[derive(Debug)]
pub struct Tap {
    toward: Toward,
    reader: Reader,
    channels: BTreeMap<u16, Channel>,
    connection: Life,
    over: bool,
    /// who speaks through the writer may do anything: it is not judged
    lenient: bool,
    max: usize,
}

impl Tap {
    /// Nothing has been written. `lenient`: nothing will be judged.
    pub fn new(toward: Toward, lenient: bool) -> Tap {
        Tap {
            toward,
            reader: Reader::default(),
            channels: BTreeMap::new(),
            connection: Life::Open,
            over: false,
            lenient,
            max: 8192,
        }
    }

    /// The frame_max that was agreed.
    pub fn agreed(&mut self, max: u32) {
        self.max = max as usize;
    }

    /// Reads what was written. `Err` says how it is not legal.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, String> {
        self.reader.feed(bytes);
        let mut frames = Vec::new();
        while let Some(frame) = self.reader.frame()? {
            self.judge(&frame).map_err(|why| format!("to the {:?}: {why}: {frame:?}", self.toward))?;
            frames.push(frame);
        }
        Ok(frames)
    }

    /// Whether a channel is open as far as the writer has said.
    pub fn is_open(&self, channel: u16) -> bool {
        self.connection == Life::Open && self.channels.get(&channel).is_some_and(|c| c.life == Life::Open)
    }

    fn judge(&mut self, frame: &Frame) -> Result<(), String> {
        if self.lenient {
            return Ok(());
        }
        if self.over {
            return Err("after connection.close-ok".into());
        }
        if frame.channel() == 0 { self.judge_connection(&frame.0) } else { self.judge_channel(frame) }
    }

    fn judge_connection(&mut self, frame: &AMQPFrame) -> Result<(), String> {
        use connection::AMQPMethod as C;
        let closing = self.connection != Life::Open;
        match frame {
            AMQPFrame::Method(_, AMQPClass::Connection(C::CloseOk(_))) => self.over = true,
            AMQPFrame::Heartbeat => {}
            _ if closing => return Err("after connection.close".into()),
            AMQPFrame::Method(_, AMQPClass::Connection(C::Close(_))) => self.connection = Life::Closing,
            AMQPFrame::Method(_, AMQPClass::Connection(_)) => {}
            AMQPFrame::ProtocolHeader(_) if self.toward == Toward::Broker => {}
            _ => return Err("nothing for channel 0".into()),
        }
        Ok(())
    }

    fn judge_channel(&mut self, frame: &Frame) -> Result<(), String> {
        if self.connection != Life::Open {
            return Err("after connection.close".into());
        }
        let channel = self.channels.entry(frame.channel()).or_default();
        match &frame.0 {
            AMQPFrame::Method(_, class) => channel.method(class, self.toward),
            AMQPFrame::Header(_, header) => channel.header(header.body_size),
            AMQPFrame::Body(_, bytes) if bytes.len() + 8 > self.max => {
                Err(format!("{} bytes, {} were agreed", bytes.len() + 8, self.max))
            }
            AMQPFrame::Body(_, bytes) => channel.body(bytes.len() as u64),
            other => Err(format!("{other:?} on a channel")),
        }
    }
}

impl Channel {
    fn method(&mut self, class: &AMQPClass, toward: Toward) -> Result<(), String> {
        use channel::AMQPMethod as Ch;
        let close_ok = matches!(class, AMQPClass::Channel(Ch::CloseOk(_)));
        if close_ok && toward == Toward::Broker {
            // A client that was closed amid a message says no more of it.
            self.content = Content::None;
        }
        if self.content != Content::None {
            return Err(format!("amid content ({:?} to come)", self.content));
        }
        let opens = match toward {
            Toward::Client => matches!(class, AMQPClass::Channel(Ch::OpenOk(_))),
            Toward::Broker => matches!(class, AMQPClass::Channel(Ch::Open(_))),
        };
        match (class, self.life) {
            _ if opens && self.life == Life::Open => return Err("the channel is open already".into()),
            _ if opens => self.life = Life::Open,
            (_, Life::Open | Life::Closing) if close_ok => self.life = Life::Unknown,
            (_, Life::Unknown | Life::Closing) => {
                return Err(format!("the channel is not open ({:?})", self.life));
            }
            (AMQPClass::Channel(Ch::Close(_)), Life::Open) => self.life = Life::Closing,
            (class, Life::Open) if has_content(class) => self.content = Content::Header,
            (_, Life::Open) => {}
        }
        Ok(())
    }

    fn header(&mut self, size: u64) -> Result<(), String> {
        match self.content {
            Content::Header => self.content = if size == 0 { Content::None } else { Content::Body(size) },
            other => return Err(format!("a header out of place ({other:?} to come)")),
        }
        Ok(())
    }

    fn body(&mut self, len: u64) -> Result<(), String> {
        match self.content {
            Content::Body(left) if left == len => self.content = Content::None,
            Content::Body(left) if left > len => self.content = Content::Body(left - len),
            other => return Err(format!("a body of {len} out of place ({other:?} to come)")),
        }
        Ok(())
    }
}

/// Whether a method is followed by a content header.
pub fn has_content(class: &AMQPClass) -> bool {
    use basic::AMQPMethod as B;
    matches!(class, AMQPClass::Basic(B::Publish(_) | B::Return(_) | B::Deliver(_) | B::GetOk(_)))
}
