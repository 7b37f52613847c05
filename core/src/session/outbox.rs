//! The orders for the shell: bytes to write, sockets to close. They are kept until the shell asks.
//!
//! Each direction is a [`Lane`]. Frames that are forwarded unchanged are not copied. If they stand next to each other in one
//! read, they are merged into one slice of it, and written at once.

use super::Output;
use super::copies::CopiedDuplicate;
use super::numbers::Numbers;
use super::sightings::Sightings;
use super::traces::Traces;
use crate::wire::frame::HEADER_LEN;
use crate::wire::method::MethodId;
use crate::wire::{FrameKind, scan};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::ops::Range;

/// One or several whole frames, borrowed from the read that they came with. A [`Piece`] keeps them for longer.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    source: &'a Bytes,
    start: usize,
    end: usize,
}

impl<'a> View<'a> {
    /// Borrows the frames at `range` of `source`.
    pub(super) fn new(source: &'a Bytes, range: Range<usize>) -> View<'a> {
        View { source, start: range.start, end: range.end }
    }

    /// Borrows all of `frames`.
    pub(super) fn whole(frames: &'a Bytes) -> View<'a> {
        View::new(frames, 0..frames.len())
    }

    /// Returns the kind of the first frame.
    pub(super) fn kind(self) -> Option<FrameKind> {
        scan(self.octets(), usize::MAX).ok().flatten().map(|frame| frame.kind)
    }

    /// Returns the method, if this is a method frame. `kind` is the kind of the frame.
    pub(super) fn method(self, kind: FrameKind) -> Option<MethodId> {
        if kind == FrameKind::Method { MethodId::of(self.payload()).ok() } else { None }
    }

    /// Returns the payload, if this is one frame.
    pub(super) fn payload(self) -> &'a [u8] {
        let frame = self.octets();
        frame.get(HEADER_LEN..frame.len().saturating_sub(1)).unwrap_or_default()
    }

    /// Returns all bytes.
    pub(super) fn octets(self) -> &'a [u8] {
        self.source.get(self.start..self.end).unwrap_or_default()
    }

    /// Returns the number of bytes.
    pub(super) fn len(self) -> usize {
        self.end - self.start
    }

    /// Keeps the frames without copying them. The whole read stays in memory with them, so keep them for a moment only.
    pub(super) fn piece(self) -> Piece {
        Piece { source: self.source.clone(), range: self.start..self.end }
    }

    /// Copies the frames, to keep them for longer. The read that they came with can be freed.
    pub(super) fn compact(self) -> Piece {
        Piece { source: Bytes::copy_from_slice(self.octets()), range: 0..self.len() }
    }
}

/// One or several whole frames that are kept.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    source: Bytes,
    range: Range<usize>,
}

impl Piece {
    /// Borrows the frames.
    pub(super) fn view(&self) -> View<'_> {
        View::new(&self.source, self.range.clone())
    }
}

/// The bytes that will be written in one direction.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Bytes in their order.
    ready: VecDeque<Bytes>,
    /// Forwarded frames behind them, that may become more.
    run: Option<Piece>,
    /// Small frames of Hapax behind them. `run` and `made` are never filled at the same time.
    made: BytesMut,
    /// Nothing more may be written.
    shut: bool,
    /// `connection.close` was written.
    concluded: bool,
    /// Something was written since [`Lane::take_wrote`] was called.
    wrote: bool,
    /// The numbers that the peer knows the channels by. Empty for the upstream.
    numbers: Numbers,
}

impl Lane {
    /// Writes frames unchanged.
    pub(super) fn forward(&mut self, view: View<'_>) {
        if let Some(run) = &mut self.run
            && run.range.end == view.start
            && run.source.as_ptr() == view.source.as_ptr()
            && run.source.len() == view.source.len()
        {
            run.range.end = view.end;
            return;
        }
        self.seal();
        self.run = Some(view.piece());
    }

    /// Writes a frame that Hapax has made.
    pub(super) fn push(&mut self, frame: Bytes) {
        self.seal();
        self.put(frame);
    }

    /// Returns the buffer to which small frames of Hapax are appended.
    pub(super) fn made(&mut self) -> &mut BytesMut {
        if self.run.is_some() {
            self.seal();
        }
        &mut self.made
    }

    /// Writes frames with these numbers from now on.
    pub(super) fn renumber(&mut self, numbers: &Numbers) {
        self.seal();
        self.numbers = numbers.clone();
    }

    /// Notes that `connection.close` was written last. Only the answer to the peer's own close may follow.
    pub(super) fn conclude(&mut self) {
        self.seal();
        self.concluded = true;
    }

    /// Writes a `connection.close-ok`, even after `connection.close`.
    pub(super) fn answer_close(&mut self, frame: Bytes) {
        self.seal();
        let concluded = std::mem::take(&mut self.concluded);
        self.put(frame);
        self.concluded = concluded;
    }

    /// Accepts no more bytes. Those that are here will still be written.
    pub(super) fn shut(&mut self) {
        self.seal();
        self.shut = true;
    }

    /// Drops all bytes and accepts no more: nobody reads them.
    pub(super) fn abandon(&mut self) {
        self.ready.clear();
        self.run = None;
        self.made.clear();
        self.shut = true;
    }

    /// Returns true if something was written since the last call.
    pub(super) fn take_wrote(&mut self) -> bool {
        std::mem::take(&mut self.wrote)
    }

    /// Appends bytes, if they may still be written.
    fn put(&mut self, bytes: Bytes) {
        if !self.shut && !self.concluded && !bytes.is_empty() {
            self.wrote = true;
            self.ready.push_back(self.numbers.to_client(bytes));
        }
    }

    /// Appends the forwarded frames, or the small frames, to the bytes before them.
    fn seal(&mut self) {
        if let Some(run) = self.run.take() {
            self.put(run.source.slice(run.range));
        }
        if !self.made.is_empty() {
            let made = self.made.split().freeze();
            self.put(made);
        }
    }

    /// Takes the next bytes to write.
    fn pop(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() {
            self.seal();
        }
        self.ready.pop_front()
    }
}

/// The bytes for both sides, and the orders about their sockets.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) client: Lane,
    pub(super) upstream: Lane,
    dial: bool,
    client_heartbeat: bool,
    upstream_heartbeat: bool,
    close_client: bool,
    cut_client: bool,
    close_upstream: bool,
    cut_upstream: bool,
    /// lines for the log
    pub(super) sightings: Sightings,
    /// spans
    pub(super) traces: Traces,
    /// copies of what was dropped
    pub(super) copies: VecDeque<Box<CopiedDuplicate>>,
}

impl Outbox {
    /// Asks to open the upstream connection.
    pub(super) fn dial(&mut self) {
        self.dial = true;
    }

    /// Asks to send the client a heartbeat.
    pub(super) fn beat_client(&mut self) {
        self.client_heartbeat = true;
    }

    /// Asks to send the upstream a heartbeat.
    pub(super) fn beat_upstream(&mut self) {
        self.upstream_heartbeat = true;
    }

    /// Asks to close the client's socket when everything is written.
    pub(super) fn close_client(&mut self) {
        self.client.shut();
        self.close_client = true;
    }

    /// Asks to close the client's socket at once, and drops the bytes for it.
    pub(super) fn cut_client(&mut self) {
        self.client.abandon();
        self.cut_client = true;
    }

    /// Asks to close the upstream's socket when everything is written.
    pub(super) fn close_upstream(&mut self) {
        self.upstream.shut();
        self.close_upstream = true;
    }

    /// Asks to close the upstream's socket at once, and drops the bytes for it.
    pub(super) fn cut_upstream(&mut self) {
        self.upstream.abandon();
        self.cut_upstream = true;
    }

    /// Takes the next output, beside those for people to read. Bytes come before closes: what was sent before a close is written before it.
    pub(super) fn poll(&mut self) -> Option<Output> {
        if std::mem::take(&mut self.dial) {
            return Some(Output::Dial);
        }
        if let Some(bytes) = self.upstream.pop() {
            return Some(Output::ToUpstream(bytes));
        }
        if let Some(bytes) = self.client.pop() {
            return Some(Output::ToClient(bytes));
        }
        if std::mem::take(&mut self.client_heartbeat) {
            return Some(Output::HeartbeatClient);
        }
        if std::mem::take(&mut self.upstream_heartbeat) {
            return Some(Output::HeartbeatUpstream);
        }
        if std::mem::take(&mut self.close_client) {
            return Some(Output::CloseClient);
        }
        if std::mem::take(&mut self.cut_client) {
            return Some(Output::CutClient);
        }
        if std::mem::take(&mut self.close_upstream) {
            return Some(Output::CloseUpstream);
        }
        if std::mem::take(&mut self.cut_upstream) {
            return Some(Output::CutUpstream);
        }
        self.sightings
            .take()
            .map(Output::Sighted)
            .or_else(|| self.traces.take().map(Output::Traced))
            .or_else(|| self.sightings.take_audited().map(Output::Audited))
            .or_else(|| self.copies.pop_front().map(Output::Copied))
    }
}
