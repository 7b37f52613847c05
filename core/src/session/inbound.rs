//! Whole frames that were read and not handled yet.
//!
//! The frames of a read are handed out as slices of it, and may not change any more then. Hapax sets the mandatory bit of
//! publishes in place, after their verdicts and before they are handed out. Therefore a read is handed out in [`Chunk`]s: the
//! publishes of one question, or all frames up to the next publish.

use super::numbers::{Numbers, each_number};
use super::outbox::View;
use crate::wire::emit;
use crate::wire::frame::HEADER_LEN;
use crate::wire::method::MethodId;
use crate::wire::properties::{BASIC, ContentHeader};
use crate::wire::{ChannelId, FrameKind, WireError, scan};
use bytes::{Bytes, BytesMut};

/// Bytes of a usual frame. It is used to reserve room for the frames of a read.
const USUAL: usize = 64;
/// An idle connection keeps a list of this many frames, 384 octets: enough for a read of a kilobyte. A publisher that waits for each ack would make one for each message
/// and one for each ack.
const KEPT: usize = 16;

/// A frame, by its position in the read that it came with.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadFrame {
    start: usize,
    end: usize,
    pub(super) channel: ChannelId,
    pub(super) kind: FrameKind,
}

impl ReadFrame {
    /// Returns the frame. `chunk` holds it.
    pub(super) fn view(self, chunk: &Chunk) -> View<'_> {
        chunk.view(self.start, self.end)
    }
}

/// A part of a read that does not change any more. Positions count from the start of the read.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    bytes: Bytes,
    start: usize,
}

impl Chunk {
    /// Returns true if this frame is a part of it.
    #[inline]
    pub(super) fn holds(&self, frame: ReadFrame) -> bool {
        self.covers(frame.start, frame.end)
    }

    #[inline]
    fn covers(&self, start: usize, end: usize) -> bool {
        start >= self.start && end - self.start <= self.bytes.len()
    }

    fn view(&self, start: usize, end: usize) -> View<'_> {
        debug_assert!(self.covers(start, end), "of another chunk");
        View::new(&self.bytes, start.saturating_sub(self.start)..end.saturating_sub(self.start))
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
    /// Returns the number of its bytes.
    pub(super) fn len(self) -> usize {
        self.end - self.start
    }

    /// Returns the method frame. `chunk` holds the message.
    pub(super) fn method(self, chunk: &Chunk) -> View<'_> {
        chunk.view(self.start, self.header)
    }

    /// Returns the header frame.
    pub(super) fn header(self, chunk: &Chunk) -> View<'_> {
        chunk.view(self.header, self.body)
    }

    /// Returns header and body.
    pub(super) fn content(self, chunk: &Chunk) -> View<'_> {
        chunk.view(self.header, self.end)
    }

    /// Returns all frames.
    pub(super) fn all(self, chunk: &Chunk) -> View<'_> {
        chunk.view(self.start, self.end)
    }
}

/// The frames of one read. Bytes behind the last whole frame stay in the shell's buffer.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The chunk that was handed out last.
    chunk: Chunk,
    /// The rest of the read, of which nothing was handed out.
    rest: BytesMut,
    /// Where the rest begins in the read.
    rest_at: usize,
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
        self.let_go();
        if self.frames.is_empty() {
            // Most connections are idle most of the time. Even an empty slice would keep the read's memory.
            if self.frames.capacity() > KEPT {
                self.frames = Vec::new();
            }
        } else {
            self.rest = buf.split_to(end);
            if !self.numbers.is_empty() {
                self.numbers.as_upstream(&mut self.rest);
                self.frames.iter_mut().for_each(|frame| frame.channel = self.numbers.upstream(frame.channel));
            }
        }
        !self.is_empty()
    }

    /// Returns the numbers that the client's channels have at the upstream.
    pub(super) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// Lets two numbers at the upstream change places, in the frames that were not handled, too. A chunk that was fetched before
    /// has the old numbers.
    pub(super) fn swap(&mut self, one: ChannelId, other: ChannelId) {
        self.numbers.swap(one, other);
        let number = |id| match id {
            id if id == one => other,
            id if id == other => one,
            id => id,
        };
        let mut chunk = BytesMut::from(&self.chunk.bytes[..]);
        each_number(&mut chunk, number);
        self.chunk.bytes = chunk.freeze();
        each_number(&mut self.rest, number);
        self.frames.iter_mut().for_each(|frame| frame.channel = number(frame.channel));
    }

    /// Returns the chunk of a frame. If it was not handed out, neither were the frames behind it, up to the next publish.
    pub(super) fn chunk_of(&mut self, frame: ReadFrame) -> Chunk {
        if frame.start >= self.rest_at {
            let behind = self.frames.iter().skip(self.next).skip_while(|next| next.start <= frame.start);
            let publish =
                behind.into_iter().find(|next| self.method(**next) == Some(MethodId::BASIC_PUBLISH));
            let end = publish.map_or(usize::MAX, |publish| publish.start);
            self.hand_out(end);
        }
        self.chunk.clone()
    }

    /// Makes `chunk` the one that holds the messages from `first` to `last`, which come next.
    pub(super) fn fetch_all(&mut self, first: Whole, last: Whole, chunk: &mut Chunk) {
        if first.start >= self.rest_at {
            self.hand_out(last.end);
        }
        if !chunk.covers(first.start, last.end) {
            *chunk = self.chunk.clone();
        }
    }

    /// Makes `chunk` the one that holds this message. If it was not handed out, the rest of the read is handed out with it.
    #[inline]
    pub(super) fn fetch(&mut self, message: Whole, chunk: &mut Chunk) {
        if !chunk.covers(message.start, message.end) {
            if message.start >= self.rest_at {
                self.hand_out(usize::MAX);
            }
            *chunk = self.chunk.clone();
        }
    }

    /// Returns the read as one chunk, if nothing of it was handed out.
    pub(super) fn whole_read(&mut self) -> Chunk {
        self.hand_out(usize::MAX);
        self.chunk.clone()
    }

    /// Makes a chunk of the rest, as far as this position.
    fn hand_out(&mut self, end: usize) {
        let len = end.saturating_sub(self.rest_at);
        let part =
            if len >= self.rest.len() { std::mem::take(&mut self.rest) } else { self.rest.split_to(len) };
        if !part.is_empty() {
            let start = self.rest_at;
            self.rest_at += part.len();
            self.chunk = Chunk { bytes: part.freeze(), start };
        }
    }

    /// Sets the mandatory bit of a publish. Does nothing if it was handed out.
    #[inline]
    pub(super) fn set_mandatory(&mut self, publish: Whole) {
        if let Some(start) = publish.start.checked_sub(self.rest_at)
            && let Some(frame) = self.rest.get_mut(start..publish.header - self.rest_at)
        {
            emit::set_mandatory(frame, true);
        }
    }

    /// Returns the next frame without taking it.
    pub(super) fn peek(&self) -> Option<ReadFrame> {
        self.frames.get(self.next).copied()
    }

    /// Returns how many messages with one body frame each the frames that were not handled could be, rounded up.
    pub(super) fn messages_left(&self) -> usize {
        self.frames.len().saturating_sub(self.next).div_ceil(3)
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
        if !channels || header.kind != FrameKind::Header || self.method(*method) != Some(id) {
            return None;
        }
        let Ok((BASIC, mut left)) = ContentHeader::size_of(self.payload(header.start, header.end)) else {
            return None;
        };
        let (mut end, mut count) = (header.end, 2);
        while left > 0 {
            let body = frames.next()?;
            if body.kind != FrameKind::Body || body.channel != channel {
                return None;
            }
            left = left.checked_sub(self.payload(body.start, body.end).len() as u64)?;
            end = body.end;
            count += 1;
        }
        Some(Whole { start: method.start, header: header.start, body: header.end, end, frames: count })
    }

    /// Returns the payload of the method of a message that comes next.
    #[inline]
    pub(super) fn method_of(&self, whole: Whole) -> &[u8] {
        self.payload(whole.start, whole.header)
    }

    /// Returns the payload of the header of a message that comes next.
    #[inline]
    pub(super) fn header_of(&self, whole: Whole) -> &[u8] {
        self.payload(whole.header, whole.body)
    }

    /// Returns which method a frame is that comes next, if it is one.
    pub(super) fn method(&self, frame: ReadFrame) -> Option<MethodId> {
        let is_method = frame.kind == FrameKind::Method;
        is_method.then(|| MethodId::of(self.payload(frame.start, frame.end)).ok()).flatten()
    }

    /// Returns the payload of a frame that is in the rest, or in the chunk that was handed out last.
    #[inline]
    fn payload(&self, start: usize, end: usize) -> &[u8] {
        let (bytes, at): (&[u8], usize) = match start >= self.rest_at {
            true => (&self.rest, self.rest_at),
            false => (&self.chunk.bytes, self.chunk.start),
        };
        let range = (start + HEADER_LEN).checked_sub(at).zip((end - 1).checked_sub(at));
        range.and_then(|(start, end)| bytes.get(start..end)).unwrap_or_default()
    }

    /// Notes that the next `frames` frames were handled.
    pub(super) fn skip(&mut self, frames: usize) {
        self.next += frames;
    }

    /// Lets the read go if all of it was handled. The shell can use its buffer again when the frames are written.
    pub(super) fn release(&mut self) {
        if self.is_empty() {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        (self.chunk, self.rest, self.rest_at) = (Chunk::default(), BytesMut::new(), 0);
    }

    /// Returns the bytes that the read and its frames take.
    pub(super) fn memory(&self) -> usize {
        self.rest_at + self.rest.len() + self.frames.capacity() * size_of::<ReadFrame>()
    }

    /// Drops the frames that were not handled.
    pub(super) fn clear(&mut self) {
        let numbers = std::mem::take(&mut self.numbers);
        *self = Inbound { numbers, ..Inbound::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two publishes, `basic.qos`, and another publish, all of channel 1 and without bodies.
    fn read() -> (Inbound, *const u8) {
        let mut bytes = BytesMut::new();
        let header: &[u8] = &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for what in ["publish", "publish", "qos", "publish"] {
            if what == "qos" {
                emit::raw_method(&mut bytes, ChannelId(1), &[0, 60, 0, 10, 0, 0, 0, 0, 0, 0, 0]);
                continue;
            }
            emit::raw_method(&mut bytes, ChannelId(1), &emit::publish_payload(b"x", b"k"));
            bytes.extend([2, 0, 1, 0, 0, 0, 14].iter().chain(header).chain(&[0xCE]));
        }
        let start = bytes.as_ptr();
        let mut inbound = Inbound::default();
        assert!(inbound.refill(&mut bytes, 4096, false));
        (inbound, start)
    }

    fn next_publish(inbound: &mut Inbound) -> Whole {
        inbound.whole(0, ChannelId(1), MethodId::BASIC_PUBLISH).unwrap()
    }

    #[test]
    fn the_bit_is_set_in_place_until_a_message_is_handed_out() {
        let (mut inbound, start) = read();
        let (first, second) =
            (next_publish(&mut inbound), inbound.whole(2, ChannelId(1), MethodId::BASIC_PUBLISH).unwrap());
        inbound.set_mandatory(second);
        let mut chunk = Chunk::default();
        inbound.fetch_all(first, second, &mut chunk);
        let is_mandatory = |whole: Whole, chunk: &Chunk| {
            crate::wire::method::Publish::is_mandatory(whole.method(chunk).octets())
        };
        assert_eq!((is_mandatory(first, &chunk), is_mandatory(second, &chunk)), (false, true));
        assert_eq!(first.all(&chunk).octets().as_ptr(), start, "nothing was copied");
        inbound.set_mandatory(first);
        assert!(!is_mandatory(first, &chunk), "it was handed out");
        inbound.skip(4);
        // Another frame is handed out with those up to the next publish, whose bit can still be set.
        let qos = inbound.next().unwrap().unwrap();
        assert!(!chunk.holds(qos));
        let chunk = inbound.chunk_of(qos);
        assert_eq!(qos.view(&chunk).len(), 19);
        let third = next_publish(&mut inbound);
        inbound.set_mandatory(third);
        let mut last = chunk.clone();
        inbound.fetch(third, &mut last);
        assert!(is_mandatory(third, &last) && last.bytes.as_ptr() > chunk.bytes.as_ptr());
        inbound.skip(2);
        inbound.release();
        assert_eq!((inbound.is_empty(), inbound.rest_at), (true, 0));
    }
}
