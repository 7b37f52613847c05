//! One publishing connection, without a wait in it: it sends when it may, and reads the answers that have arrived.

use super::Error;
use super::dial::{Dialed, refusal};
use super::ids::{Ids, hex};
use super::ledger::{Ledger, Strange};
use super::numbers::Numbers;
use super::outlet::{Batch, Outlet};
use super::pace::Pace;
use super::poll::Interest;
use super::tally::Tally;
use amq_protocol::protocol::{AMQPClass, channel};
use hapax_core::wire::emit;
use hapax_core::wire::frame::limit;
use hapax_core::wire::method::{MethodId, Settle};
use hapax_core::wire::{ChannelId, FrameKind, scan};
use hdrhistogram::Histogram;
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;

/// Writes in a row, so that others get their turn.
const WRITES: usize = 8;

/// How far the end is, for a connection without confirms: when the broker has closed its channel, it has taken all before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Farewell {
    NotYet,
    Said,
    Answered,
}

/// Counters over all connections.
#[derive(Debug)]
pub(super) struct Sums {
    pub(super) tally: Tally,
    pub(super) latency: Histogram<u64>,
}

/// One publishing connection: its socket, its messages that wait for an ack, and what it has measured.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) stream: TcpStream,
    address: String,
    frame_max: u32,
    outlet: Outlet,
    /// the beginning of a frame
    input: Vec<u8>,
    ids: Ids,
    numbers: Option<Numbers>,
    ledger: Option<Ledger>,
    number: u64,
    left: u64,
    sent: u64,
    farewell: Farewell,
    /// more could be sent if the socket took it
    wants_write: bool,
    pub(super) interest: Interest,
    /// its owner knows that it is done
    pub(super) counted: bool,
}

impl Publisher {
    /// `left` messages are to be sent over the connection with this number.
    pub(super) fn new(
        dialed: Dialed,
        number: usize,
        ids: Ids,
        numbers: Option<Numbers>,
        ledger: Option<Ledger>,
        left: u64,
    ) -> Result<Publisher, Error> {
        let Dialed { stream, address, frame_max, input, .. } = dialed;
        stream.set_nonblocking(true).map_err(Error::io("making a socket nonblocking"))?;
        Ok(Publisher {
            stream,
            address,
            frame_max,
            outlet: Outlet::default(),
            input,
            ids,
            numbers,
            ledger,
            number: number as u64,
            left,
            sent: 0,
            farewell: Farewell::NotYet,
            wants_write: false,
            interest: Interest::Read,
            counted: false,
        })
    }

    /// Nothing more is to be published.
    pub(super) fn stop(&mut self) {
        self.left = 0;
    }

    /// All is sent and answered.
    pub(super) fn is_done(&self) -> bool {
        let settled = match &self.ledger {
            Some(ledger) => ledger.is_empty(),
            None => self.farewell == Farewell::Answered,
        };
        self.left == 0 && self.outlet.waiting() == 0 && settled
    }

    /// Returns the events that its socket must be watched for.
    pub(super) fn wanted(&self) -> Interest {
        if self.wants_write { Interest::Both } else { Interest::Read }
    }

    /// Sends what may be sent at `now`, nanoseconds after the start.
    pub(super) fn pump(
        &mut self,
        now: u64,
        pace: Option<&Pace>,
        batch: &mut Batch,
        sums: &mut Sums,
    ) -> Result<(), Error> {
        self.wants_write = true;
        for _ in 0..WRITES {
            let flushed = self.outlet.flush(&mut self.stream);
            if !flushed.map_err(|error| self.lost("publishing", &error))? {
                return Ok(());
            }
            let allowed = self.allowed(now, pace);
            let wanted = usize::try_from(allowed).unwrap_or(usize::MAX).min(batch.room());
            if wanted == 0 {
                self.wants_write = self.say_farewell();
                if !self.wants_write {
                    return Ok(());
                }
                continue;
            }
            let before = self.ids;
            let ids = &mut self.ids;
            batch.patch((0..wanted).map(|_| hex(ids.next())));
            if let Some(numbers) = self.numbers {
                let mut ids = before;
                batch.patch_numbers(numbers, (0..wanted).map(|_| ids.next()));
            }
            let sent = self.outlet.send(&mut self.stream, batch, wanted);
            let sent = sent.map_err(|error| self.lost("publishing", &error))?;
            if sent < wanted {
                self.ids = before;
                self.ids.skip(sent);
            }
            sums.tally.repeated += sent as u64 - (self.ids.fresh() - before.fresh());
            sums.tally.published += sent as u64;
            self.record(sent as u64, now, pace);
            if sent < wanted {
                return Ok(());
            }
        }
        Ok(())
    }

    fn allowed(&self, now: u64, pace: Option<&Pace>) -> u64 {
        let room = self.ledger.as_ref().map_or(u64::MAX, Ledger::room);
        let owed = pace.map_or(u64::MAX, |pace| pace.owed(self.number, now).saturating_sub(self.sent));
        self.left.min(room).min(owed)
    }

    /// Records when each of `count` messages that were just sent was due. Without a rate, that is now.
    fn record(&mut self, count: u64, now: u64, pace: Option<&Pace>) {
        if let Some(ledger) = &mut self.ledger {
            for number in self.sent..self.sent + count {
                ledger.publish(pace.map_or(now, |pace| pace.due(self.number, number)));
            }
        }
        self.sent += count;
        self.left -= count;
    }

    /// Without confirms, asks the broker to close the channel; whether there is something to write now.
    fn say_farewell(&mut self) -> bool {
        if self.ledger.is_some() || self.left > 0 || self.farewell != Farewell::NotYet {
            return false;
        }
        let close = channel::Close { reply_code: 200, reply_text: "done".into(), class_id: 0, method_id: 0 };
        let close = AMQPClass::Channel(channel::AMQPMethod::Close(close));
        self.outlet.push(&emit::method(ChannelId(1), close));
        self.farewell = Farewell::Said;
        true
    }

    /// Reads the answers that have arrived at `now`. `buffer` is scratch space that all connections share.
    pub(super) fn read(&mut self, now: u64, buffer: &mut [u8], sums: &mut Sums) -> Result<(), Error> {
        let mut held = std::mem::take(&mut self.input);
        loop {
            let begin = held.len();
            if let Some(front) = buffer.get_mut(..begin) {
                front.copy_from_slice(&held);
            }
            let room = buffer.get_mut(begin..).unwrap_or_default();
            let (room_len, length) = match self.stream.read(room) {
                Ok(0) => return Err(self.lost("waiting for answers", &ErrorKind::UnexpectedEof.into())),
                Ok(length) => (room.len(), length),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => (usize::MAX, 0),
                Err(error) => return Err(self.lost("waiting for answers", &error)),
            };
            let all = buffer.get(..begin + length).unwrap_or_default();
            let used = self.handle_all(all, now, sums)?;
            held.clear();
            held.extend_from_slice(all.get(used..).unwrap_or_default());
            if length < room_len {
                self.input = held;
                return Ok(());
            }
        }
    }

    /// How many octets of it were whole frames.
    fn handle_all(&mut self, bytes: &[u8], now: u64, sums: &mut Sums) -> Result<usize, Error> {
        let mut at = 0;
        loop {
            match scan(bytes.get(at..).unwrap_or_default(), limit(self.frame_max)) {
                Ok(Some(frame)) => {
                    at += frame.wire_len();
                    if frame.kind == FrameKind::Method {
                        self.handle_method(frame.payload, now, sums)?;
                    }
                }
                Ok(None) => return Ok(at),
                Err(error) => return Err(self.strange(&error.to_string())),
            }
        }
    }

    fn handle_method(&mut self, payload: &[u8], now: u64, sums: &mut Sums) -> Result<(), Error> {
        match MethodId::of(payload) {
            Ok(id @ (MethodId::BASIC_ACK | MethodId::BASIC_NACK)) => {
                let Settle { tag, multiple } =
                    Settle::parse(payload).map_err(|error| self.strange(&error.to_string()))?;
                let counter = match id {
                    MethodId::BASIC_ACK => &mut sums.tally.acked,
                    _ => &mut sums.tally.nacked,
                };
                let latency = &mut sums.latency;
                let Some(ledger) = &mut self.ledger else {
                    return Err(self.strange("an answer without confirms"));
                };
                let settled = ledger.settle(tag, multiple, |due, count| {
                    *counter += count;
                    latency.saturating_record_n(now.saturating_sub(due), count);
                });
                settled.map_err(|Strange { tag }| {
                    self.strange(&format!("an answer to {tag}, which is none that waits for one"))
                })
            }
            Ok(MethodId::BASIC_RETURN) => {
                sums.tally.returned += 1;
                Ok(())
            }
            Ok(MethodId::BASIC_DELIVER) => {
                sums.tally.delivered += 1;
                Ok(())
            }
            Ok(MethodId::CHANNEL_CLOSE_OK) => {
                self.farewell = Farewell::Answered;
                Ok(())
            }
            _ => match emit::parse_method(payload).as_ref().and_then(refusal) {
                Some((code, text)) => Err(Error::Refused { code, text }),
                None => Ok(()),
            },
        }
    }

    /// Back to a connection that blocks.
    pub(super) fn into_dialed(self) -> Result<Dialed, Error> {
        let Publisher { stream, address, frame_max, input, .. } = self;
        stream.set_nonblocking(false).map_err(Error::io("making a socket blocking"))?;
        Ok(Dialed { stream, address, frame_max, input, delivered: 0 })
    }

    fn lost(&self, doing: &'static str, error: &io::Error) -> Error {
        let why = match error.kind() {
            ErrorKind::UnexpectedEof => "closed by the other side".to_owned(),
            _ => error.to_string(),
        };
        Error::Lost { address: self.address.clone(), doing, why }
    }

    fn strange(&self, what: &str) -> Error {
        Error::Strange { address: self.address.clone(), what: what.to_owned() }
    }
}
