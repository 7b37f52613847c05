//! Opens a connection: by hand, blocking, with the codec that the relay uses for its own methods.

use super::Error;
use amq_protocol::protocol::{AMQPClass, basic, channel, connection};
use amq_protocol::types::{AMQPValue, FieldTable, LongString, ShortString};
use hapax_core::wire::emit;
use hapax_core::wire::frame::{MIN_FRAME_MAX, PROTOCOL_HEADER, limit};
use hapax_core::wire::{ChannelId, FrameKind, scan};
use lapin::uri::{AMQPScheme, AMQPUri};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A broker that is busy with ten thousand others takes its time.
const PATIENCE: Duration = Duration::from_secs(30);
/// The frame size that this client proposes: RabbitMQ's default. A broker may ask for less.
const FRAME_MAX: u32 = 131_072;

/// Which broker, and as whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// `HOST:PORT`
    pub address: String,
    /// who logs in
    pub user: String,
    /// with which password
    pub password: String,
    /// where
    pub vhost: String,
}

impl Target {
    /// From `amqp://USER:PASSWORD@HOST:PORT/VHOST`.
    pub fn parse(url: &str) -> Result<Target, String> {
        match url.parse::<AMQPUri>() {
            Ok(uri) if uri.scheme == AMQPScheme::AMQP => Ok(Target {
                address: format!("{}:{}", uri.authority.host, uri.authority.port),
                user: uri.authority.userinfo.username,
                password: uri.authority.userinfo.password,
                vhost: uri.vhost,
            }),
            Ok(_) => Err("it speaks amqp:// only, not amqps://".to_owned()),
            Err(error) => Err(format!("{error}; amqp://USER:PASSWORD@HOST:PORT/VHOST is wanted")),
        }
    }

    /// `guest` in `/` at this address.
    pub fn guest(address: &str) -> Target {
        let guest = || "guest".to_owned();
        Target { address: address.to_string(), user: guest(), password: guest(), vhost: "/".to_owned() }
    }
}

/// An open connection that blocks.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) stream: TcpStream,
    pub(super) address: String,
    pub(super) frame_max: u32,
    /// read, and not looked at yet
    pub(super) input: Vec<u8>,
    /// deliveries that came while something else was waited for
    pub(super) delivered: u64,
}

impl Dialed {
    /// Connects, logs in and opens the vhost.
    pub(super) fn open(target: &Target) -> Result<Dialed, Error> {
        let stream = connect(&target.address).map_err(|source| unreachable(target, source))?;
        let mut dialed = Dialed {
            stream,
            address: target.address.clone(),
            frame_max: MIN_FRAME_MAX,
            input: Vec::new(),
            delivered: 0,
        };
        dialed.write(&PROTOCOL_HEADER)?;
        let AMQPClass::Connection(connection::AMQPMethod::Start(_)) = dialed.read(0)? else {
            return Err(dialed.strange("something else than connection.start"));
        };
        let start_ok = connection::StartOk {
            client_properties: properties(),
            mechanism: "PLAIN".into(),
            response: format!("\0{}\0{}", target.user, target.password).into(),
            locale: "en_US".into(),
        };
        let answer = dialed.ask(0, connection(connection::AMQPMethod::StartOk(start_ok)));
        let AMQPClass::Connection(connection::AMQPMethod::Tune(tune)) = answer? else {
            return Err(dialed.strange("something else than connection.tune"));
        };
        let frame_max = if tune.frame_max == 0 { FRAME_MAX } else { tune.frame_max.min(FRAME_MAX) };
        let tune_ok = connection::TuneOk { channel_max: tune.channel_max, frame_max, heartbeat: 0 };
        dialed.say(0, connection(connection::AMQPMethod::TuneOk(tune_ok)))?;
        dialed.frame_max = frame_max;
        let open = connection::Open { virtual_host: target.vhost.as_str().into() };
        match dialed.ask(0, connection(connection::AMQPMethod::Open(open)))? {
            AMQPClass::Connection(connection::AMQPMethod::OpenOk(_)) => {}
            _ => return Err(dialed.strange("something else than connection.open-ok")),
        }
        Ok(dialed)
    }

    /// Opens a channel.
    pub(super) fn channel(&mut self, number: u16) -> Result<(), Error> {
        self.ask(number, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))).map(drop)
    }

    /// Says a method and takes the next one on the same channel for its answer.
    pub(super) fn ask(&mut self, number: u16, method: AMQPClass) -> Result<AMQPClass, Error> {
        self.say(number, method)?;
        self.read(number)
    }

    /// Closes it, if the broker answers within its time. A farewell: what fails here has no consequence any more.
    pub(super) fn close(mut self) {
        let close =
            connection::Close { reply_code: 200, reply_text: "done".into(), class_id: 0, method_id: 0 };
        let _ = self.ask(0, connection(connection::AMQPMethod::Close(close)));
    }

    fn say(&mut self, number: u16, method: AMQPClass) -> Result<(), Error> {
        self.write(&emit::method(ChannelId(number), method))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream.write_all(bytes).map_err(|error| self.lost(&error.to_string()))
    }

    /// The next method on this channel. Deliveries are counted and passed over; a close is an error.
    fn read(&mut self, number: u16) -> Result<AMQPClass, Error> {
        let mut at = 0;
        loop {
            let frame = match scan(self.input.get(at..).unwrap_or_default(), limit(FRAME_MAX)) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    self.input.drain(..at);
                    at = 0;
                    self.fill()?;
                    continue;
                }
                Err(error) => return Err(self.strange(&error.to_string())),
            };
            at += frame.wire_len();
            if frame.kind != FrameKind::Method {
                continue;
            }
            let channel = frame.channel.0;
            let Some(method) = emit::parse_method(frame.payload) else {
                return Err(self.strange("a method that nobody knows"));
            };
            if let AMQPClass::Basic(basic::AMQPMethod::Deliver(_)) = method {
                self.delivered += 1;
                continue;
            }
            if let Some((code, text)) = refusal(&method) {
                return Err(Error::Refused { code, text });
            }
            if channel == number {
                self.input.drain(..at);
                return Ok(method);
            }
        }
    }

    fn fill(&mut self) -> Result<(), Error> {
        let mut part = [0; 16_384];
        match self.stream.read(&mut part) {
            Ok(0) => Err(self.lost("closed by the other side")),
            Ok(length) => {
                self.input.extend_from_slice(part.get(..length).unwrap_or_default());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(self.lost(&format!("no answer within {} s", PATIENCE.as_secs())))
            }
            Err(error) => Err(self.lost(&error.to_string())),
        }
    }

    fn lost(&self, why: &str) -> Error {
        Error::Lost { address: self.address.clone(), doing: "opening or closing it", why: why.to_owned() }
    }

    fn strange(&self, what: &str) -> Error {
        Error::Strange { address: self.address.clone(), what: what.to_owned() }
    }
}

/// Code and text, if this closes the connection or a channel.
pub(super) fn refusal(method: &AMQPClass) -> Option<(u16, String)> {
    match method {
        AMQPClass::Connection(connection::AMQPMethod::Close(close)) => {
            Some((close.reply_code, close.reply_text.to_string()))
        }
        AMQPClass::Channel(channel::AMQPMethod::Close(close)) => {
            Some((close.reply_code, close.reply_text.to_string()))
        }
        _ => None,
    }
}

fn connection(method: connection::AMQPMethod) -> AMQPClass {
    AMQPClass::Connection(method)
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unreachable(target: &Target, source: io::Error) -> Error {
    if source.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) {
        let doing = "opening so many connections; allow more files (ulimit -n)".to_owned();
        return Error::Io { doing, source };
    }
    Error::Unreachable { address: target.address.clone(), source }
}

/// With a capability that makes the broker say 403 instead of hanging up on a wrong password.
fn properties() -> FieldTable {
    let mut capabilities = FieldTable::default();
    for name in ["authentication_failure_close", "basic.nack", "publisher_confirms"] {
        capabilities.insert(ShortString::from(name), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(LongString::from(text));
    properties.insert(ShortString::from("product"), text("hapax bench"));
    properties.insert(ShortString::from("version"), text(env!("CARGO_PKG_VERSION")));
    properties.insert(ShortString::from("capabilities"), AMQPValue::FieldTable(capabilities));
    properties
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_as_whom() {
        let target = Target::parse("amqp://u:p@host:1234/%2f").unwrap();
        assert_eq!(
            (target.address.as_str(), target.user.as_str(), target.vhost.as_str()),
            ("host:1234", "u", "/")
        );
        assert_eq!(Target::parse("amqp://127.0.0.1:5672").unwrap(), Target::guest("127.0.0.1:5672"));
        assert!(Target::parse("amqps://host").unwrap_err().contains("amqp:// only"));
        assert!(Target::parse("http://host").is_err());
    }
}
