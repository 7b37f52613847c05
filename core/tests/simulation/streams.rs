//! The network: bytes on their way to the relay, and frames on their way from it.
//!
//! To the relay, bytes travel in random pieces, so that every split of a frame occurs. A mark at an offset says what
//! the truth must record once the relay has taken the bytes up to that offset. The bytes from the relay are parsed
//! into frames at once, which also checks that they are legal. The frames then arrive a few at a time.

use super::rng::Rng;
use super::truth::Uid;
use crate::support::frames::{Frame, Frames};
use bytes::BytesMut;
use std::collections::VecDeque;

/// An event that the truth records once the relay has taken the bytes up to a mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// this publish is complete
    Reached(Uid),
    /// the broker has confirmed it: `basic.ack`, or `tx.commit-ok`
    Acked(u16, Uid),
    /// the broker has refused it: `basic.nack`
    Nacked(u16, Uid),
}

/// How a stream ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum End {
    /// it goes on
    #[default]
    Open,
    /// its end comes after what is on the way
    Coming,
    /// its end has come, or nobody reads it any more
    Over,
}

/// Bytes on their way to the relay.
#[derive(Debug, Default)]
pub struct ByteStream {
    bytes: BytesMut,
    marks: VecDeque<(u64, Mark)>,
    written: u64,
    delivered: u64,
    /// how it ends
    pub end: End,
    /// a piece is on its way: an event will take it
    pub busy: bool,
}

impl ByteStream {
    /// Puts a frame in; `marks` hold at its end.
    pub fn write(&mut self, frame: &Frame, marks: &[Mark]) {
        if self.end != End::Open {
            return;
        }
        let bytes = frame.encode();
        self.written += bytes.len() as u64;
        self.bytes.extend_from_slice(&bytes);
        self.marks.extend(marks.iter().map(|mark| (self.written, *mark)));
    }

    /// Takes the next piece.
    pub fn piece(&mut self, rng: &mut Rng) -> BytesMut {
        let len = rng.some_of(self.bytes.len());
        self.delivered += len as u64;
        self.bytes.split_to(len)
    }

    /// The marks that are behind the reader, who has taken all that was delivered but `left` bytes.
    pub fn passed(&mut self, left: usize) -> Vec<Mark> {
        let taken = self.delivered - left as u64;
        let count = self.marks.iter().take_while(|(at, _)| *at <= taken).count();
        self.marks.drain(..count).map(|(_, mark)| mark).collect()
    }

    /// Whether something is still to come: bytes, or their end.
    pub fn has_more(&self) -> bool {
        !self.bytes.is_empty() || self.end == End::Coming
    }

    /// Whether all bytes have been delivered.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes are on the way.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The writer is done.
    pub fn close(&mut self) {
        if self.end == End::Open {
            self.end = End::Coming;
        }
    }

    /// The line breaks: only the next `keep` bytes still arrive.
    pub fn cut(&mut self, keep: usize) {
        let keep = keep.min(self.bytes.len());
        self.bytes.truncate(keep);
        self.written = self.delivered + keep as u64;
        let end = self.written;
        self.marks.retain(|(at, _)| *at <= end);
        self.close();
    }

    /// Nobody reads it any more.
    pub fn drop_reader(&mut self) {
        self.cut(0);
        self.end = End::Over;
    }
}

/// Frames on their way from the relay.
#[derive(Debug, Default)]
pub struct FrameStream {
    frames: VecDeque<Frame>,
    /// how it ends
    pub end: End,
    /// some are on their way: an event will take them
    pub busy: bool,
}

impl FrameStream {
    /// Puts a frame in.
    pub fn write(&mut self, frame: Frame) {
        if self.end == End::Open {
            self.frames.push_back(frame);
        }
    }

    /// Takes the next few.
    pub fn some(&mut self, rng: &mut Rng) -> Vec<Frame> {
        let count = rng.some_of(self.frames.len());
        self.frames.drain(..count).collect()
    }

    /// Whether something is still to come: frames, or their end.
    pub fn has_more(&self) -> bool {
        !self.frames.is_empty() || self.end == End::Coming
    }

    /// Whether all have been delivered.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The writer is done.
    pub fn close(&mut self) {
        if self.end == End::Open {
            self.end = End::Coming;
        }
    }

    /// The line breaks: only the next `keep` frames still arrive.
    pub fn cut(&mut self, keep: usize) {
        self.frames.truncate(keep);
        self.close();
    }

    /// How many are on the way.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Nobody reads it any more.
    pub fn drop_reader(&mut self) {
        self.frames.clear();
        self.end = End::Over;
    }
}

/// A frame that waits to be written to the relay, and what holds once the relay has taken it.
#[derive(Clone, Debug)]
pub struct Out {
    /// the frame
    pub frame: Frame,
    /// what then holds
    pub marks: Vec<Mark>,
}

/// Appends frames; the marks hold at the end of the last.
pub fn push(queue: &mut VecDeque<Out>, frames: Frames, marks: Vec<Mark>) {
    let last = frames.len().saturating_sub(1);
    let marked = |at: usize| if at == last { marks.clone() } else { Vec::new() };
    queue.extend(frames.into_iter().enumerate().map(|(at, frame)| Out { frame, marks: marked(at) }));
}
