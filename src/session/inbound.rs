//! Whole frames that were read and not looked at yet.

use super::outbox::Piece;
use crate::wire::{ChannelId, FrameKind, WireError, scan};
use bytes::{Bytes, BytesMut};

/// A frame is taken to have so many octets when room for the places of a read's frames is made.
const USUAL: usize = 64;

/// A frame's place in the read.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) kind: FrameKind,
    pub(super) channel: ChannelId,
    pub(super) piece: Piece,
}

/// One direction's frames. Bytes behind the last whole frame stay with the shell.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    frames: Bytes,
    /// Every frame is scanned once: these are the ones that are left, from `next` on.
    places: Vec<Place>,
    next: usize,
    error: Option<WireError>,
}

/// Where in a read a frame is.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    end: usize,
    channel: ChannelId,
    kind: FrameKind,
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
                    self.places.push(Place { start, end, channel: frame.channel, kind: frame.kind });
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
        self.frames = buf.split_to(end).freeze();
        if self.places.is_empty() {
            // Most connections are idle most of the time.
            self.places = Vec::new();
        }
        !self.is_empty()
    }

    /// The channel that the next frame is for.
    pub(super) fn peek(&self) -> Option<(FrameKind, ChannelId)> {
        let place = self.places.get(self.next)?;
        Some((place.kind, place.channel))
    }

    /// The next frame, or what is wrong with the bytes behind the last one.
    pub(super) fn next(&mut self) -> Result<Option<Next>, WireError> {
        let Some(&Place { start, end, channel, kind }) = self.places.get(self.next) else {
            self.frames = Bytes::new();
            return self.error.take().map_or(Ok(None), Err);
        };
        self.next += 1;
        let piece = Piece::new(&self.frames, start..end);
        Ok(Some(Next { kind, channel, piece }))
    }

    /// Nobody wants the rest.
    pub(super) fn clear(&mut self) {
        *self = Inbound::default();
    }
}
