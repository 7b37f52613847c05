//! A body that is collected until it is whole.

use super::assembler::size_of;
use crate::wire::{ChannelId, emit};
use bytes::BytesMut;

/// The body of a message, kept without its frames, so that it takes no more bytes than its header says.
#[derive(Debug)]
pub(super) struct CollectedBody {
    /// octets of the whole body
    size: u64,
    /// the octets that have come
    octets: Vec<u8>,
    /// The largest payload of its frames. The body is cut into frames of this size again.
    largest: usize,
}

impl CollectedBody {
    /// Creates the beginning of a body of this size.
    pub(super) fn new(size: u64) -> CollectedBody {
        CollectedBody { size, octets: Vec::new(), largest: 0 }
    }

    /// Adds the payload of a frame.
    pub(super) fn extend(&mut self, payload: &[u8]) {
        self.octets.extend_from_slice(payload);
        self.largest = self.largest.max(payload.len());
    }

    /// Returns the bytes that it takes when it is whole.
    pub(super) fn bytes(&self) -> usize {
        size_of(self.size)
    }

    /// Returns the octets that have come.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Returns the content of a message: this header frame, and the frames of the body.
    pub(super) fn content(&self, header: &[u8], channel: ChannelId) -> Vec<u8> {
        let mut frames = BytesMut::from(header);
        for piece in self.octets.chunks(self.largest.max(1)) {
            emit::body(&mut frames, channel, piece);
        }
        frames.into()
    }
}
