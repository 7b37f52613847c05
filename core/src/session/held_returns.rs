//! The returns by which publishers hear that their messages were duplicates (`on_duplicate = "return"`), until they may be written: not
//! amid a delivery, and in a transaction when it is committed.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Bytes of a return, beside its frames.
const PLACE: usize = size_of::<Bytes>() + 32;

/// Returns of one channel, in their order.
#[derive(Debug, Default)]
pub(super) struct HeldReturns {
    returns: VecDeque<Bytes>,
    bytes: usize,
}

impl HeldReturns {
    /// Returns the bytes that a return with these frames takes.
    pub(super) fn weight(frames: &Bytes) -> usize {
        frames.len() + PLACE
    }

    /// Returns the bytes of all of them.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns true if there is none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.returns.is_empty()
    }

    /// Adds one: its method, its header and its body.
    pub(super) fn push(&mut self, frames: Bytes) {
        self.bytes += HeldReturns::weight(&frames);
        self.returns.push_back(frames);
    }

    /// Takes all of these.
    pub(super) fn append(&mut self, mut others: HeldReturns) {
        self.bytes += others.bytes;
        self.returns.append(&mut others.returns);
    }

    /// Takes the first one.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let frames = self.returns.pop_front()?;
        self.bytes -= HeldReturns::weight(&frames);
        Some(frames)
    }

    /// Writes all of them.
    pub(super) fn flush(&mut self, out: &mut BytesMut) {
        while let Some(frames) = self.pop() {
            out.extend_from_slice(&frames);
        }
    }

    /// Forgets all of them: the client hears nothing more.
    pub(super) fn clear(&mut self) {
        *self = HeldReturns::default();
    }
}
