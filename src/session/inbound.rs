//! Whole frames that were read and not looked at yet.

use super::outbox::Piece;
use crate::wire::{ChannelId, FrameKind, WireError, scan};
use bytes::{Bytes, BytesMut};

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
    at: usize,
    error: Option<WireError>,
}

impl Inbound {
    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.frames.len() && self.error.is_none()
    }

    /// Takes the whole frames at the beginning of `buf`, or the first of them alone. Whether there is something now.
    pub(super) fn refill(&mut self, buf: &mut BytesMut, max: usize, one: bool) -> bool {
        if !self.is_empty() {
            return true;
        }
        let mut end = 0;
        loop {
            match scan(buf.get(end..).unwrap_or_default(), max) {
                Ok(Some(frame)) => end += frame.wire_len(),
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
        self.at = 0;
        !self.is_empty()
    }

    /// The channel that the next frame is for.
    pub(super) fn peek(&self) -> Option<(FrameKind, ChannelId)> {
        let frame = scan(self.frames.get(self.at..)?, usize::MAX).ok()??;
        Some((frame.kind, frame.channel))
    }

    /// The next frame, or what is wrong with the bytes behind the last one.
    pub(super) fn next(&mut self) -> Result<Option<Next>, WireError> {
        let rest = self.frames.get(self.at..).unwrap_or_default();
        match scan(rest, usize::MAX) {
            Ok(Some(frame)) => {
                let end = self.at + frame.wire_len();
                let piece = Piece::new(&self.frames, self.at..end);
                let next = Next { kind: frame.kind, channel: frame.channel, piece };
                self.at = end;
                Ok(Some(next))
            }
            Ok(None) | Err(_) => {
                self.frames = Bytes::new();
                self.at = 0;
                self.error.take().map_or(Ok(None), Err)
            }
        }
    }

    /// Nobody wants the rest.
    pub(super) fn clear(&mut self) {
        *self = Inbound::default();
    }
}
