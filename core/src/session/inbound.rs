//! Whole frames that were read and not looked at yet.

use super::outbox::View;
use crate::wire::method::MethodId;
use crate::wire::properties::{BASIC, ContentHeader};
use crate::wire::{ChannelId, FrameKind, WireError, scan};
use bytes::{Bytes, BytesMut};

/// A frame is taken to have so many octets when room for the places of a read's frames is made.
const USUAL: usize = 64;

/// Where in a read a frame is.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadFrame {
    start: usize,
    end: usize,
    pub(super) channel: ChannelId,
    pub(super) kind: FrameKind,
}

impl ReadFrame {
    /// The frame, in the read that it is of.
    pub(super) fn view(self, frames: &Bytes) -> View<'_> {
        View::new(frames, self.start..self.end)
    }
}

/// A content that stands whole in a read: method, header and body, and nothing between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    start: usize,
    header: usize,
    body: usize,
    end: usize,
    /// How many frames it takes.
    pub(super) frames: usize,
}

impl Whole {
    pub(super) fn method(self, frames: &Bytes) -> View<'_> {
        View::new(frames, self.start..self.header)
    }

    pub(super) fn header(self, frames: &Bytes) -> View<'_> {
        View::new(frames, self.header..self.body)
    }

    /// Header and body.
    pub(super) fn content(self, frames: &Bytes) -> View<'_> {
        View::new(frames, self.header..self.end)
    }

    /// All of it.
    pub(super) fn all(self, frames: &Bytes) -> View<'_> {
        View::new(frames, self.start..self.end)
    }
}

/// One direction's frames. Bytes behind the last whole frame stay with the shell.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    frames: Bytes,
    /// Every frame is scanned once: these are the ones that are left, from `next` on.
    places: Vec<ReadFrame>,
    next: usize,
    error: Option<WireError>,
}

impl Inbound {
    pub(super) fn is_empty(&self) -> bool {
        self.next >= self.places.len() && self.error.is_none()
    }

    /// Takes the whole frames at the beginning of `buf`, or the first of them alone. Whether there is something now.
    pub(super) fn refill(&mut self, buf: &mut BytesMut, max: usize, one: bool) -> bool {
        if !self.is_empty() {
            return true;
        }
        self.next = 0;
        self.places.clear();
        let mut end = 0;
        loop {
            match scan(buf.get(end..).unwrap_or_default(), max) {
                Ok(Some(frame)) => {
                    let start = end;
                    end += frame.wire_len();
                    if self.places.is_empty() {
                        self.places.reserve(if one { 1 } else { buf.len() / USUAL + 1 });
                    }
                    self.places.push(ReadFrame { start, end, channel: frame.channel, kind: frame.kind });
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
        if self.places.is_empty() {
            // Most connections are idle most of the time. (Even an empty part would keep the read alive.)
            self.places = Vec::new();
            self.frames = Bytes::new();
        } else {
            self.frames = buf.split_to(end).freeze();
        }
        !self.is_empty()
    }

    /// The read that the places are in.
    pub(super) fn frames(&self) -> Bytes {
        self.frames.clone()
    }

    /// The next frame, which stays.
    pub(super) fn peek(&self) -> Option<ReadFrame> {
        self.places.get(self.next).copied()
    }

    /// The next frame, or what is wrong with the bytes behind the last one.
    pub(super) fn next(&mut self) -> Result<Option<ReadFrame>, WireError> {
        let Some(&place) = self.places.get(self.next) else {
            return self.error.take().map_or(Ok(None), Err);
        };
        self.next += 1;
        Ok(Some(place))
    }

    /// The content that begins so many frames from here, if it is this channel's, whole, and its method is `id`.
    #[inline]
    pub(super) fn whole(&self, ahead: usize, channel: ChannelId, id: MethodId) -> Option<Whole> {
        let mut places = self.places.get(self.next + ahead..)?.iter();
        let (method, header) = (places.next()?, places.next()?);
        let channels = method.channel == channel && header.channel == channel;
        let is_it =
            header.kind == FrameKind::Header && method.view(&self.frames).method(method.kind) == Some(id);
        if !channels || !is_it {
            return None;
        }
        let Ok((BASIC, mut left)) = ContentHeader::size_of(header.view(&self.frames).payload()) else {
            return None;
        };
        let (mut end, mut count) = (header.end, 2);
        while left > 0 {
            let body = places.next()?;
            if body.kind != FrameKind::Body || body.channel != channel {
                return None;
            }
            left = left.checked_sub(body.view(&self.frames).payload().len() as u64)?;
            end = body.end;
            count += 1;
        }
        Some(Whole { start: method.start, header: header.start, body: header.end, end, frames: count })
    }

    /// So many frames are done with.
    pub(super) fn skip(&mut self, places: usize) {
        self.next += places;
    }

    /// Lets the read go when all of it is looked at: its buffer can be read into again as soon as it is written.
    pub(super) fn release(&mut self) {
        if self.is_empty() {
            self.frames = Bytes::new();
        }
    }

    /// Bytes that it takes.
    pub(super) fn memory(&self) -> usize {
        self.frames.len() + self.places.capacity() * size_of::<ReadFrame>()
    }

    /// Nobody wants the rest.
    pub(super) fn clear(&mut self) {
        *self = Inbound::default();
    }
}
