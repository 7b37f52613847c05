//! A message made once and sent often: many copies in one buffer, a few octets patched in each, one write for all.

use super::numbers::{Numbers, NumbersAt};
use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;

/// Octets of one write; what the second-level cache of a core holds beside everything else.
const BATCH_BYTES: usize = 128 << 10;

/// A message, and where in it the octets stand that differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Template {
    /// its frames
    pub(super) bytes: Vec<u8>,
    /// where it is patched
    pub(super) at: usize,
}

/// Copies of a [`Template`], one behind the other.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    len: usize,
    at: usize,
    numbers_at: Option<NumbersAt>,
    room: usize,
}

impl Batch {
    /// As many copies as make a good write, and no more than `most`.
    pub(super) fn new(template: &Template, most: usize) -> Batch {
        let len = template.bytes.len().max(1);
        let room = (BATCH_BYTES / len).clamp(1, most.max(1));
        let numbers_at = NumbersAt::find(template);
        Batch { bytes: template.bytes.repeat(room), len, at: template.at, numbers_at, room }
    }

    /// How many messages it takes.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Patches the first messages, one for each patch.
    pub(super) fn patch<const N: usize>(&mut self, patches: impl Iterator<Item = [u8; N]>) {
        self.patch_at(self.at, patches);
    }

    /// Writes the producers and the numbers of the messages with these counters into the first messages.
    pub(super) fn patch_numbers(&mut self, numbers: Numbers, counters: impl Iterator<Item = u64>) {
        let Some(NumbersAt { producer, number }) = self.numbers_at else { return };
        for (message, counter) in self.bytes.chunks_exact_mut(self.len).zip(counters) {
            let (digits, octets) = numbers.of(counter);
            for (at, patch) in [(producer, digits), (number, octets)] {
                if let Some(slot) = message.get_mut(at..at + patch.len()) {
                    slot.copy_from_slice(&patch);
                }
            }
        }
    }

    /// Patches the first messages at another place.
    pub(super) fn patch_at<const N: usize>(&mut self, at: usize, patches: impl Iterator<Item = [u8; N]>) {
        for (message, patch) in self.bytes.chunks_exact_mut(self.len).zip(patches) {
            if let Some(slot) = message.get_mut(at..at + N) {
                slot.copy_from_slice(&patch);
            }
        }
    }
}

/// The way out of a socket that does not block: what it does not take now is kept, and goes first next time.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    rest: Vec<u8>,
    sent: usize,
}

impl Outlet {
    /// Octets that wait.
    pub(super) fn waiting(&self) -> usize {
        self.rest.len() - self.sent
    }

    /// Appends these bytes to the queue.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// Writes as much of the queue as the socket takes. Returns true if the queue is empty.
    pub(super) fn flush(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        while let Some(rest @ [_, ..]) = self.rest.get(self.sent..) {
            match write(stream, rest)? {
                0 => return Ok(false),
                written => self.sent += written,
            }
        }
        self.rest.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Writes the first `messages` of the batch in one go. How many of them are on their way: the rest of one that was cut
    /// in two is kept, those behind it are not sent at all. Nothing may wait.
    pub(super) fn send(
        &mut self,
        stream: &mut TcpStream,
        batch: &Batch,
        messages: usize,
    ) -> io::Result<usize> {
        let bytes = batch.bytes.get(..messages * batch.len).unwrap_or(&batch.bytes);
        let written = write(stream, bytes)?;
        let whole = written.div_ceil(batch.len);
        self.push(bytes.get(written..whole * batch.len).unwrap_or_default());
        Ok(whole)
    }
}

/// 0: not now.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            other => return other,
        }
    }
}
