//! Whole frames that were read and not handled yet.

use super::numbers::{Numbers, each_number};
use super::outbox::View;
use crate::wire::method::MethodId;
use crate::wire::properties::{BASIC, ContentHeader};
use crate::wire::{ChannelId, FrameKind, WireError, scan};
use bytes::{Bytes, BytesMut};

/// Bytes of a usual frame. It is used to reserve room for the frames of a read.
const USUAL: usize = 64;

/// A frame, by its position in the read that it came with.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadFrame {
    start: usize,
    end: usize,
    pub(super) channel: ChannelId,
    pub(super) kind: FrameKind,
}

impl ReadFrame {
    /// Returns the frame. `frames` is the read that it came with.
    pub(super) fn view(self, frames: &Bytes) -> View<'_> {
        View::new(frames, self.start..self.end)
    }
}

/// A message that stands whole in a read: method, header and body, and nothing between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    start: usize,
    header: usize,
    body: usize,
    end: usize,
    /// how many frames it has
    pub(super) frames: usize,
}

impl Whole {
    /// Returns the method frame.
    pub(super) fn method(self, frames: &Bytes) -> View<'_> {
        View::new(frames, self.start..self.header)
    }

    /// Returns the header frame.
    pub(super) fn header(self, frames: &Bytes) -> View<'_> {
        View::new(frames, self.header..self.body)
    }

    /// Returns header and body.
    pub(super) fn content(self, frames: &Bytes) -> View<'_> {
        View::new(frames, self.header..self.end)
    }

    /// Returns all frames.
    pub(super) fn all(self, frames: &Bytes) -> View<'_> {
        View::new(frames, self.start..self.end)
    }
}

/// The frames of one read. Bytes behind the last whole frame stay in the shell's buffer.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The read.
    read: Bytes,
    /// The frames of the read. Each was scanned once.
    frames: Vec<ReadFrame>,
    /// The first frame that was not handled.
    next: usize,
    /// The error in the bytes behind the last frame.
    error: Option<WireError>,
    /// The numbers that the client's channels have at the upstream.
    numbers: Numbers,
}

impl Inbound {
    /// Returns true if every frame was handled.
    pub(super) fn is_empty(&self) -> bool {
        self.next >= self.frames.len() && self.error.is_none()
    }

    /// Takes the whole frames out of the beginning of `buf`, or only the first one. `max` bounds the length of a frame.
    /// Returns true if there is something to handle now.
    pub(super) fn refill(&mut self, buf: &mut BytesMut, max: usize, one: bool) -> bool {
        if !self.is_empty() {
            return true;
        }
        self.next = 0;
        self.frames.clear();
        let mut end = 0;
        loop {
            match scan(buf.get(end..).unwrap_or_default(), max) {
                Ok(Some(frame)) => {
                    let start = end;
                    end += frame.wire_len();
                    if self.frames.is_empty() {
                        self.frames.reserve(if one { 1 } else { buf.len() / USUAL + 1 });
                    }
                    self.frames.push(ReadFrame { start, end, channel: frame.channel, kind: frame.kind });
                }
                Ok(None) => break,
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
            if one {
                break;
            }
        }
        if self.frames.is_empty() {
            // Most connections are idle most of the time. Even an empty slice would keep the read's memory.
            self.frames = Vec::new();
            self.read = Bytes::new();
        } else {
            let mut read = buf.split_to(end);
            if !self.numbers.is_empty() {
                self.numbers.from_client(&mut read);
                self.frames.iter_mut().for_each(|frame| frame.channel = self.numbers.upstream(frame.channel));
            }
            self.read = read.freeze();
        }
        !self.is_empty()
    }

    /// Returns the numbers that the client's channels have at the upstream.
    pub(super) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Lets two numbers at the upstream change places, in the frames that were not handled, too.
    pub(super) fn swap(&mut self, one: ChannelId, other: ChannelId) {
        self.numbers.swap(one, other);
        let number = |id| match id {
            id if id == one => other,
            id if id == other => one,
            id => id,
        };
        let mut read = BytesMut::from(&self.read[..]);
        each_number(&mut read, number);
        self.read = read.freeze();
        self.frames.iter_mut().for_each(|frame| frame.channel = number(frame.channel));
    }

    /// Returns the read that the frames came with.
    pub(super) fn read(&self) -> Bytes {
        self.read.clone()
    }

    /// Returns the next frame without taking it.
    pub(super) fn peek(&self) -> Option<ReadFrame> {
        self.frames.get(self.next).copied()
    }

    /// Takes the next frame. Returns an error if the bytes behind the last frame are no frame.
    pub(super) fn next(&mut self) -> Result<Option<ReadFrame>, WireError> {
        let Some(&frame) = self.frames.get(self.next) else {
            return self.error.take().map_or(Ok(None), Err);
        };
        self.next += 1;
        Ok(Some(frame))
    }

    /// Returns the message that begins `ahead` frames from here, if it stands whole in the read, belongs to this channel, and
    /// its method is `id`.
    #[inline]
    pub(super) fn whole(&self, ahead: usize, channel: ChannelId, id: MethodId) -> Option<Whole> {
        let mut frames = self.frames.get(self.next + ahead..)?.iter();
        let (method, header) = (frames.next()?, frames.next()?);
        let channels = method.channel == channel && header.channel == channel;
        let is_it =
            header.kind == FrameKind::Header && method.view(&self.read).method(method.kind) == Some(id);
        if !channels || !is_it {
            return None;
        }
        let Ok((BASIC, mut left)) = ContentHeader::size_of(header.view(&self.read).payload()) else {
            return None;
        };
        let (mut end, mut count) = (header.end, 2);
        while left > 0 {
            let body = frames.next()?;
            if body.kind != FrameKind::Body || body.channel != channel {
                return None;
            }
            left = left.checked_sub(body.view(&self.read).payload().len() as u64)?;
            end = body.end;
            count += 1;
        }
        Some(Whole { start: method.start, header: header.start, body: header.end, end, frames: count })
    }

    /// Notes that the next `frames` frames were handled.
    pub(super) fn skip(&mut self, frames: usize) {
        self.next += frames;
    }

    /// Lets the read go if all of it was handled. The shell can use its buffer again when the frames are written.
    pub(super) fn release(&mut self) {
        if self.is_empty() {
            self.read = Bytes::new();
        }
    }

    /// Returns the bytes that the read and its frames take.
    pub(super) fn memory(&self) -> usize {
        self.read.len() + self.frames.capacity() * size_of::<ReadFrame>()
    }

    /// Drops the frames that were not handled.
    pub(super) fn clear(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        *self = Inbound { numbers, ..Inbound::default() };
    }
}
