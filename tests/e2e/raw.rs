//! An AMQP client that hides nothing: blocking, one thread, every frame as it comes.
//!
//! The client libraries stand in `tests/clients/`. This one shows the details that they hide: which tag was acked and how,
//! in which order frames came, and octets that are no legal frame.

use super::wait::PATIENCE;
use amq_protocol::protocol::{
    AMQPClass, basic, channel, confirm, connection, gen_class, parse_class, queue, tx,
};
use amq_protocol::types::{AMQPValue, FieldTable, ShortString};
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

pub const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// The user who logs in, and the limits that the connection agrees on.
#[derive(Clone, Debug)]
pub struct Login {
    pub vhost: String,
    pub user: String,
    pub password: String,
    pub frame_max: u32,
    pub heartbeat: u16,
}

impl Login {
    /// As `guest`.
    pub fn guest(vhost: &str) -> Login {
        Login::new(vhost, "guest", "guest")
    }

    pub fn new(vhost: &str, user: &str, password: &str) -> Login {
        let (vhost, user, password) = (vhost.to_owned(), user.to_owned(), password.to_owned());
        Login { vhost, user, password, frame_max: 131_072, heartbeat: 0 }
    }
}

/// A frame's type, channel and payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub kind: u8,
    pub channel: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind];
        bytes.extend(self.channel.to_be_bytes());
        bytes.extend((self.payload.len() as u32).to_be_bytes());
        bytes.extend(&self.payload);
        bytes.push(0xce);
        bytes
    }
}

/// An event on a channel.
#[derive(Clone, PartialEq, Debug)]
pub enum Told {
    Ack { tag: u64, multiple: bool },
    Nack { tag: u64, multiple: bool },
    Returned { code: u16, message: Message },
    Delivered { tag: u64, message: Message },
    ChannelClosed { code: u16, text: String },
    ConnectionClosed { code: u16, text: String },
    Method(AMQPClass),
}

/// A message as it was delivered or returned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Message {
    pub exchange: String,
    pub key: String,
    pub redelivered: bool,
    /// the property list, flags and all, as it came
    pub properties: Vec<u8>,
    pub body: Vec<u8>,
}

impl Message {
    /// The message-id, found by a walk of our own.
    pub fn id(&self) -> Option<&[u8]> {
        self.property(7)
    }

    /// The short string that this bit of the flags stands for.
    pub fn property(&self, wanted: u32) -> Option<&[u8]> {
        let flags = u16::from_be_bytes([self.properties[0], self.properties[1]]);
        let mut rest = &self.properties[2..];
        for bit in (0..16).rev() {
            if flags & (1 << bit) == 0 {
                continue;
            }
            let length = match bit {
                13 => 4 + u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize,
                11 | 12 => 1,
                6 => 8,
                _ => 1 + usize::from(rest[0]),
            };
            if bit == wanted {
                return Some(&rest[1..length]);
            }
            rest = &rest[length..];
        }
        None
    }
}

/// A value for a header of a message of ours.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Long(i64),
    Bool(bool),
    Text(&'a str),
}

/// A message to be published. Not persistent, without an id, to the default exchange unless it says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Publish<'a> {
    pub exchange: &'a str,
    pub key: &'a str,
    pub id: Option<&'a [u8]>,
    pub mandatory: bool,
    pub persistent: bool,
    pub headers: &'a [(&'a str, Value<'a>)],
    pub reply_to: Option<&'a str>,
    pub body: &'a [u8],
}

impl<'a> Publish<'a> {
    /// By the default exchange to a queue, with an id; the body is the id too.
    pub fn to(queue: &'a str, id: &'a str) -> Publish<'a> {
        Publish { key: queue, id: Some(id.as_bytes()), body: id.as_bytes(), ..Publish::default() }
    }

    pub fn mandatory(self) -> Publish<'a> {
        Publish { mandatory: true, ..self }
    }

    /// Method, header and body frames, in bytes.
    pub fn encode(&self, channel: u16, frame_max: u32) -> Vec<u8> {
        let mut bytes = self.method(channel);
        bytes.extend(self.header(channel));
        for part in self.body.chunks(frame_max as usize - 8) {
            bytes.extend(Frame { kind: 3, channel, payload: part.to_vec() }.encode());
        }
        bytes
    }

    /// The method frame alone.
    pub fn method(&self, channel: u16) -> Vec<u8> {
        let method = AMQPClass::Basic(basic::AMQPMethod::Publish(basic::Publish {
            exchange: self.exchange.into(),
            routing_key: self.key.into(),
            mandatory: self.mandatory,
            immediate: false,
        }));
        method_frame(channel, &method)
    }

    /// The header frame alone.
    pub fn header(&self, channel: u16) -> Vec<u8> {
        let (mut flags, mut list) = (0_u16, Vec::new());
        if !self.headers.is_empty() {
            flags |= 1 << 13;
            let table = self.headers.iter().fold(Vec::new(), |mut table, (name, value)| {
                short(&mut table, name.as_bytes());
                match value {
                    Value::Long(number) => {
                        table.push(b'l');
                        table.extend(number.to_be_bytes());
                    }
                    Value::Bool(truth) => table.extend([b't', u8::from(*truth)]),
                    Value::Text(text) => {
                        table.push(b'S');
                        table.extend((text.len() as u32).to_be_bytes());
                        table.extend(text.as_bytes());
                    }
                }
                table
            });
            list.extend((table.len() as u32).to_be_bytes());
            list.extend(table);
        }
        if self.persistent {
            flags |= 1 << 12;
            list.push(2);
        }
        if let Some(address) = self.reply_to {
            flags |= 1 << 9;
            short(&mut list, address.as_bytes());
        }
        if let Some(id) = self.id {
            flags |= 1 << 7;
            short(&mut list, id);
        }
        let mut payload = vec![0, 60, 0, 0];
        payload.extend((self.body.len() as u64).to_be_bytes());
        payload.extend(flags.to_be_bytes());
        payload.extend(list);
        Frame { kind: 2, channel, payload }.encode()
    }
}

fn short(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.push(u8::try_from(text.len()).unwrap());
    bytes.extend(text);
}

/// A method frame around these octets.
pub fn raw_method(channel: u16, payload: &[u8]) -> Vec<u8> {
    Frame { kind: 1, channel, payload: payload.to_vec() }.encode()
}

pub fn method_frame(channel: u16, method: &AMQPClass) -> Vec<u8> {
    let (payload, _) = gen_class(method)(Vec::new().into()).unwrap().into_inner();
    Frame { kind: 1, channel, payload }.encode()
}

/// A connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
    frame_max: u32,
    told: VecDeque<(u16, Told)>,
    /// as `connection.start` said
    pub server_properties: FieldTable,
    pub heartbeats: usize,
}

impl Raw {
    /// A socket and nothing else.
    pub fn dial(addr: SocketAddr) -> io::Result<Raw> {
        Raw::over(TcpStream::connect_timeout(&addr, PATIENCE)?)
    }

    /// Connects from this local address.
    pub fn dial_from(from: IpAddr, addr: SocketAddr) -> io::Result<Raw> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&addr.into(), PATIENCE)?;
        Raw::over(socket.into())
    }

    /// The peer of a connection that exists already. Nothing is said on it.
    pub fn over(stream: TcpStream) -> io::Result<Raw> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Raw {
            stream,
            buffer: Vec::new(),
            frame_max: 4096,
            told: VecDeque::new(),
            server_properties: FieldTable::default(),
            heartbeats: 0,
        })
    }

    /// A whole handshake as guest; no refusal is expected.
    pub fn connect(addr: SocketAddr, vhost: &str) -> Raw {
        Raw::login(addr, &Login::guest(vhost)).unwrap()
    }

    /// A whole handshake; a refusal by the broker is an error that quotes it.
    pub fn login(addr: SocketAddr, login: &Login) -> io::Result<Raw> {
        Raw::dial(addr)?.logged_in(login)
    }

    /// The handshake of a socket that has said nothing yet.
    pub fn logged_in(self, login: &Login) -> io::Result<Raw> {
        let mut raw = self;
        raw.write(HEADER)?;
        let AMQPClass::Connection(connection::AMQPMethod::Start(start)) = raw.method0()? else {
            return Err(io::Error::other("no connection.start"));
        };
        raw.server_properties = start.server_properties;
        raw.write(&method_frame(0, &start_ok(login)))?;
        let AMQPClass::Connection(connection::AMQPMethod::Tune(tune)) = raw.method0()? else {
            return Err(io::Error::other("no connection.tune"));
        };
        raw.frame_max = login.frame_max.min(tune.frame_max);
        let tune_ok = connection::TuneOk {
            channel_max: tune.channel_max,
            frame_max: raw.frame_max,
            heartbeat: login.heartbeat,
        };
        let open = connection::Open { virtual_host: login.vhost.as_str().into() };
        let mut both = method_frame(0, &AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune_ok)));
        both.extend(method_frame(0, &AMQPClass::Connection(connection::AMQPMethod::Open(open))));
        raw.write(&both)?;
        match raw.method0()? {
            AMQPClass::Connection(connection::AMQPMethod::OpenOk(_)) => Ok(raw),
            other => Err(io::Error::other(format!("no open-ok but {other:?}"))),
        }
    }

    pub fn frame_max(&self) -> u32 {
        self.frame_max
    }

    /// A handle for another thread that writes, or cuts.
    pub fn socket(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// Returns the bytes that were read of the socket after the last frame that was taken.
    pub fn read_ahead(&self) -> &[u8] {
        &self.buffer
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame; `None` at the end of the connection, whether orderly or by a reset.
    pub fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.buffered_frame() {
                return Ok(Some(frame));
            }
            let mut part = [0; 65_536];
            match self.stream.read(&mut part) {
                Ok(0) => return Ok(None),
                Ok(length) => self.buffer.extend(&part[..length]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn buffered_frame(&mut self) -> Option<Frame> {
        let head = self.buffer.first_chunk::<7>()?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let (kind, channel) = (head[0], u16::from_be_bytes([head[1], head[2]]));
        if self.buffer.len() < length + 8 {
            return None;
        }
        assert_eq!(self.buffer[length + 7], 0xce, "a frame to us ends as it must");
        let payload = self.buffer[7..length + 7].to_vec();
        self.buffer.drain(..length + 8);
        Some(Frame { kind, channel, payload })
    }

    /// All that is left, to the end of the connection.
    pub fn rest(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.frame().unwrap()).filter(|frame| frame.kind != 8).collect()
    }

    fn method0(&mut self) -> io::Result<AMQPClass> {
        match self.receive()? {
            Some((0, Told::Method(method))) => Ok(method),
            Some((0, Told::ConnectionClosed { code, text })) => {
                Err(io::Error::other(format!("{code} {text}")))
            }
            other => Err(io::Error::other(format!("instead of a method on channel 0: {other:?}"))),
        }
    }

    /// The next thing that is said, on any channel; closes are answered. `None` at the end of the connection.
    pub fn receive(&mut self) -> io::Result<Option<(u16, Told)>> {
        let Some(frame) = self.frame()? else { return Ok(None) };
        if frame.kind == 8 {
            self.heartbeats += 1;
            return self.receive();
        }
        let channel = frame.channel;
        assert_eq!(frame.kind, 1, "content only after its method: {frame:?}");
        let (_, method) = parse_class(&frame.payload[..]).expect("a method that is known");
        let told = match method {
            AMQPClass::Basic(basic::AMQPMethod::Ack(ack)) => {
                Told::Ack { tag: ack.delivery_tag, multiple: ack.multiple }
            }
            AMQPClass::Basic(basic::AMQPMethod::Nack(nack)) => {
                Told::Nack { tag: nack.delivery_tag, multiple: nack.multiple }
            }
            AMQPClass::Basic(basic::AMQPMethod::Return(returned)) => Told::Returned {
                code: returned.reply_code,
                message: self.content(&returned.exchange, &returned.routing_key, false)?,
            },
            AMQPClass::Basic(basic::AMQPMethod::Deliver(given)) => Told::Delivered {
                tag: given.delivery_tag,
                message: self.content(&given.exchange, &given.routing_key, given.redelivered)?,
            },
            AMQPClass::Basic(basic::AMQPMethod::GetOk(given)) => Told::Delivered {
                tag: given.delivery_tag,
                message: self.content(&given.exchange, &given.routing_key, given.redelivered)?,
            },
            AMQPClass::Channel(channel::AMQPMethod::Close(close)) => {
                let ok = AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {}));
                let _ = self.write(&method_frame(channel, &ok));
                Told::ChannelClosed { code: close.reply_code, text: close.reply_text.to_string() }
            }
            AMQPClass::Connection(connection::AMQPMethod::Close(close)) => {
                let ok = AMQPClass::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}));
                let _ = self.write(&method_frame(0, &ok));
                Told::ConnectionClosed { code: close.reply_code, text: close.reply_text.to_string() }
            }
            method => Told::Method(method),
        };
        Ok(Some((channel, told)))
    }

    fn content(
        &mut self,
        exchange: &ShortString,
        key: &ShortString,
        redelivered: bool,
    ) -> io::Result<Message> {
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let header = self.frame()?.ok_or_else(end)?;
        assert_eq!(header.kind, 2, "a content header follows: {header:?}");
        let size = u64::from_be_bytes(header.payload[4..12].try_into().unwrap());
        let mut body = Vec::new();
        while (body.len() as u64) < size {
            let part = self.frame()?.ok_or_else(end)?;
            assert_eq!(part.kind, 3, "a body frame follows");
            body.extend(part.payload);
        }
        let properties = header.payload[12..].to_vec();
        Ok(Message { exchange: exchange.to_string(), key: key.to_string(), redelivered, properties, body })
    }

    /// Returns the next event on this channel. The close of the connection is an event on every channel.
    pub fn next(&mut self, channel: u16) -> Told {
        let mine = |(on, told): &(u16, Told)| *on == channel || matches!(told, Told::ConnectionClosed { .. });
        if let Some(position) = self.told.iter().position(mine) {
            return self.told.remove(position).unwrap().1;
        }
        loop {
            let item = self.receive().unwrap().expect("the connection is open");
            if mine(&item) {
                return item.1;
            }
            self.told.push_back(item);
        }
    }

    /// Sends a method.
    pub fn send(&mut self, channel: u16, method: &AMQPClass) {
        self.write(&method_frame(channel, method)).unwrap();
    }

    /// Sends a method and waits for the method that answers it; what is said in between is kept for [`Raw::next`].
    pub fn call(&mut self, channel: u16, method: &AMQPClass) -> Result<AMQPClass, Told> {
        self.send(channel, method);
        let mut between = Vec::new();
        let answer = loop {
            match self.next(channel) {
                Told::Method(answer) => break Ok(answer),
                closed @ (Told::ChannelClosed { .. } | Told::ConnectionClosed { .. }) => break Err(closed),
                told => between.push((channel, told)),
            }
        };
        for item in between.into_iter().rev() {
            self.told.push_front(item);
        }
        answer
    }

    pub fn open_channel(&mut self, channel: u16) {
        self.call(channel, &AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))).unwrap();
    }

    /// Opens a channel and selects confirms on it.
    pub fn confirming(&mut self, channel: u16) {
        self.open_channel(channel);
        let select = confirm::Select { nowait: false };
        self.call(channel, &AMQPClass::Confirm(confirm::AMQPMethod::Select(select))).unwrap();
    }

    pub fn close_channel(&mut self, channel: u16) {
        let close = channel::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };
        self.call(channel, &AMQPClass::Channel(channel::AMQPMethod::Close(close))).unwrap();
    }

    /// Says goodbye and waits for the answer.
    pub fn close(mut self) {
        let _ = self.call(0, &goodbye());
    }

    /// Says goodbye and reads to the end, where the connection may break before the answer.
    pub fn leave(mut self) -> io::Result<()> {
        self.write(&method_frame(0, &goodbye()))?;
        while self.receive()?.is_some() {}
        Ok(())
    }

    pub fn tx_select(&mut self, channel: u16) -> Result<AMQPClass, Told> {
        self.call(channel, &AMQPClass::Tx(tx::AMQPMethod::Select(tx::Select {})))
    }

    pub fn tx_commit(&mut self, channel: u16) -> Result<AMQPClass, Told> {
        self.call(channel, &AMQPClass::Tx(tx::AMQPMethod::Commit(tx::Commit {})))
    }

    pub fn tx_rollback(&mut self, channel: u16) -> Result<AMQPClass, Told> {
        self.call(channel, &AMQPClass::Tx(tx::AMQPMethod::Rollback(tx::Rollback {})))
    }

    /// Declares a queue that lives as long as its vhost.
    pub fn declare(&mut self, channel: u16, name: &str, arguments: &[(&str, AMQPValue)]) {
        let declare = queue::Declare {
            queue: name.into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: table(arguments),
        };
        self.call(channel, &AMQPClass::Queue(queue::AMQPMethod::Declare(declare))).unwrap();
    }

    /// Binds a queue.
    pub fn bind(
        &mut self,
        channel: u16,
        queue: &str,
        (exchange, key): (&str, &str),
        arguments: &[(&str, AMQPValue)],
    ) {
        let bind = queue::Bind {
            queue: queue.into(),
            exchange: exchange.into(),
            routing_key: key.into(),
            nowait: false,
            arguments: table(arguments),
        };
        self.call(channel, &AMQPClass::Queue(queue::AMQPMethod::Bind(bind))).unwrap();
    }

    pub fn publish(&mut self, channel: u16, publish: &Publish<'_>) {
        let bytes = publish.encode(channel, self.frame_max);
        self.write(&bytes).unwrap();
    }

    /// Publishes on a confirming channel and gives all that is said up to the ack or nack, which comes last.
    pub fn publish_and_settle(&mut self, channel: u16, publish: &Publish<'_>) -> Vec<Told> {
        self.publish(channel, publish);
        let mut said = Vec::new();
        loop {
            let told = self.next(channel);
            let last = !matches!(told, Told::Returned { .. } | Told::Delivered { .. });
            said.push(told);
            if last {
                return said;
            }
        }
    }

    /// `basic.get` with automatic acknowledgement.
    pub fn get(&mut self, channel: u16, queue: &str) -> Option<Message> {
        let get = basic::Get { queue: queue.into(), no_ack: true };
        self.send(channel, &AMQPClass::Basic(basic::AMQPMethod::Get(get)));
        self.got(channel)
    }

    /// The answer to a `basic.get`.
    fn got(&mut self, channel: u16) -> Option<Message> {
        loop {
            match self.next(channel) {
                Told::Delivered { message, .. } => return Some(message),
                Told::Method(AMQPClass::Basic(basic::AMQPMethod::GetEmpty(_))) => return None,
                told => assert!(
                    matches!(told, Told::Ack { .. } | Told::Nack { .. } | Told::Returned { .. }),
                    "instead of an answer to basic.get: {told:?}"
                ),
            }
        }
    }

    /// Takes all messages out of a queue and gives their ids, in order. Many are asked for at a time.
    pub fn drain(&mut self, channel: u16, queue: &str) -> Vec<String> {
        const AT_A_TIME: usize = 100;
        let get = AMQPClass::Basic(basic::AMQPMethod::Get(basic::Get { queue: queue.into(), no_ack: true }));
        let asked = method_frame(channel, &get).repeat(AT_A_TIME);
        let (mut ids, mut is_empty) = (Vec::new(), false);
        while !is_empty {
            self.write(&asked).unwrap();
            for message in (0..AT_A_TIME).map(|_| self.got(channel)).collect::<Vec<_>>() {
                is_empty |= message.is_none();
                let id =
                    |message: Message| String::from_utf8_lossy(message.id().unwrap_or_default()).into_owned();
                ids.extend(message.map(id));
            }
        }
        ids
    }
}

fn goodbye() -> AMQPClass {
    let close = connection::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };
    AMQPClass::Connection(connection::AMQPMethod::Close(close))
}

fn start_ok(login: &Login) -> AMQPClass {
    let mut capabilities = FieldTable::default();
    for name in [
        "publisher_confirms",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ] {
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut client_properties = FieldTable::default();
    client_properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    AMQPClass::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
        client_properties,
        mechanism: "PLAIN".into(),
        response: format!("\0{}\0{}", login.user, login.password).into(),
        locale: "en_US".into(),
    }))
}

fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert((*name).into(), value.clone());
    }
    table
}
