//! What the session wants done, kept until the shell asks for it.
//!
//! Each direction is a [`Lane`]. Frames that go on untouched are not copied: neighbours of the same read are merged
//! into one slice of it, so that a run of frames that nobody needs to change is one write.

use super::Output;
use crate::wire::frame::HEADER_LEN;
use crate::wire::method::MethodId;
use crate::wire::{FrameKind, scan};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::ops::Range;

/// Whole frames where they were read, one or several in a row. Looking costs nothing; a [`Piece`] keeps the read alive.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    source: &'a Bytes,
    start: usize,
    end: usize,
}

impl<'a> View<'a> {
    /// The frames at `range` of `source`.
    pub(super) fn new(source: &'a Bytes, range: Range<usize>) -> View<'a> {
        View { source, start: range.start, end: range.end }
    }

    /// Frames that stand alone.
    pub(super) fn whole(frames: &'a Bytes) -> View<'a> {
        View::new(frames, 0..frames.len())
    }

    /// What the type octet of the first one says.
    pub(super) fn kind(self) -> Option<FrameKind> {
        scan(self.octets(), usize::MAX).ok().flatten().map(|frame| frame.kind)
    }

    /// The method, where it is one frame of this kind that has one.
    pub(super) fn method(self, kind: FrameKind) -> Option<MethodId> {
        if kind == FrameKind::Method { MethodId::of(self.payload()).ok() } else { None }
    }

    /// The payload, where it is one frame.
    pub(super) fn payload(self) -> &'a [u8] {
        let frame = self.octets();
        frame.get(HEADER_LEN..frame.len().saturating_sub(1)).unwrap_or_default()
    }

    /// All of it.
    pub(super) fn octets(self) -> &'a [u8] {
        self.source.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn len(self) -> usize {
        self.end - self.start
    }

    /// To be kept for a moment: the whole read stays alive with it.
    pub(super) fn piece(self) -> Piece {
        Piece { source: self.source.clone(), range: self.start..self.end }
    }

    /// A copy of its own, for whoever keeps it for longer: it does not hold the read that it came with.
    pub(super) fn compact(self) -> Piece {
        Piece { source: Bytes::copy_from_slice(self.octets()), range: 0..self.len() }
    }
}

/// Frames that are kept.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    source: Bytes,
    range: Range<usize>,
}

impl Piece {
    pub(super) fn view(&self) -> View<'_> {
        View::new(&self.source, self.range.clone())
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Lane {
    ready: VecDeque<Bytes>,
    run: Option<Piece>,
    made: BytesMut,
    shut: bool,
    /// `connection.close` was written.
    concluded: bool,
    wrote: bool,
}

impl Lane {
    /// Frames go on untouched.
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

    /// A frame of Hapax's own.
    pub(super) fn push(&mut self, frame: Bytes) {
        self.seal();
        self.put(frame);
    }

    /// Where small frames of Hapax's own are appended.
    pub(super) fn made(&mut self) -> &mut BytesMut {
        if self.run.is_some() {
            self.seal();
        }
        &mut self.made
    }

    /// What was written last was `connection.close`: nothing may follow it but the answer to the peer's own.
    pub(super) fn conclude(&mut self) {
        self.seal();
        self.concluded = true;
    }

    /// `connection.close-ok`.
    pub(super) fn answer_close(&mut self, frame: Bytes) {
        self.seal();
        let concluded = std::mem::take(&mut self.concluded);
        self.put(frame);
        self.concluded = concluded;
    }

    /// Nothing is to be written here any more; what was asked before still is.
    pub(super) fn shut(&mut self) {
        self.seal();
        self.shut = true;
    }

    /// Nobody reads any more: what is left is pointless.
    pub(super) fn abandon(&mut self) {
        self.ready.clear();
        self.run = None;
        self.made.clear();
        self.shut = true;
    }

    /// Whether something was written since the last question.
    pub(super) fn take_wrote(&mut self) -> bool {
        std::mem::take(&mut self.wrote)
    }

    fn put(&mut self, bytes: Bytes) {
        if !self.shut && !self.concluded && !bytes.is_empty() {
            self.wrote = true;
            self.ready.push_back(bytes);
        }
    }

    fn seal(&mut self) {
        if let Some(run) = self.run.take() {
            self.put(run.source.slice(run.range));
        }
        if !self.made.is_empty() {
            let made = self.made.split().freeze();
            self.put(made);
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() {
            self.seal();
        }
        self.ready.pop_front()
    }
}

/// Both directions, and the orders about the sockets.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) client: Lane,
    pub(super) upstream: Lane,
    dial: bool,
    client_heartbeat: bool,
    upstream_heartbeat: bool,
    close_client: bool,
    close_upstream: bool,
    cut_upstream: bool,
}

impl Outbox {
    pub(super) fn dial(&mut self) {
        self.dial = true;
    }

    pub(super) fn beat_client(&mut self) {
        self.client_heartbeat = true;
    }

    pub(super) fn beat_upstream(&mut self) {
        self.upstream_heartbeat = true;
    }

    pub(super) fn close_client(&mut self) {
        self.client.shut();
        self.close_client = true;
    }

    pub(super) fn close_upstream(&mut self) {
        self.upstream.shut();
        self.close_upstream = true;
    }

    /// What was to be written to the upstream is pointless.
    pub(super) fn cut_upstream(&mut self) {
        self.upstream.abandon();
        self.cut_upstream = true;
    }

    /// Bytes before closes: what was said before a close is written before it.
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
        if std::mem::take(&mut self.close_upstream) {
            return Some(Output::CloseUpstream);
        }
        std::mem::take(&mut self.cut_upstream).then_some(Output::CutUpstream)
    }
}
