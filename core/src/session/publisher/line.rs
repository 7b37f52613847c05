//! Everything of one channel that has to wait, in its order. Other channels go on meanwhile.
//!
//! ```text
//!   promoted   publishes that may go as soon as no other content is on its way upstream
//!   asked      publishes that the window was asked about: the verdict of the first is not known,
//!              or it found no room to wait
//!   frames     all that the client has sent after them
//! ```
//!
//! Verdicts may come in any order. They are used in the order of the publishes. Every byte is counted.

use crate::session::candidate::Kept;
use crate::session::outbox::{Piece, View};
use crate::session::waiting::{KeyCounts, LOOKED_AT};
use crate::window::{ForgetCause, Key, Reservation, Ticket, Wait};
use crate::wire::frame::FrameKind;
use crate::wire::method::MethodId;
use std::collections::VecDeque;
use std::time::Instant;

/// Bytes of a frame that waits, beside its own.
const QUEUED: usize = size_of::<Piece>() + 48;

/// A publish that has waited for another's outcome, and goes on now.
#[derive(Debug)]
pub(super) struct Promoted {
    pub(super) candidate: Kept,
    pub(super) weight: usize,
    pub(super) reservation: Option<Reservation>,
}

/// A publish that the window was asked about.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) candidate: Kept,
    pub(super) ticket: Ticket,
    pub(super) answer: Answer,
    /// how long it may wait for another's outcome
    pub(super) until: Instant,
}

/// What the window has said.
#[derive(Debug)]
pub(super) enum Answer {
    /// It will answer by mail. Dropping the guard withdraws the question.
    Pending(#[expect(dead_code, reason = "a guard")] Wait),
    /// There was no room to wait. It is asked again at this time.
    NoRoom { retry_at: Instant },
}

/// What waits on one channel.
#[derive(Debug, Default)]
pub(in crate::session) struct Line {
    promoted: VecDeque<Promoted>,
    /// How many promoted publishes there are of each key.
    keys: KeyCounts,
    asked: VecDeque<Asked>,
    /// of the promoted and the asked
    bytes: usize,
    frames: VecDeque<Piece>,
    frame_bytes: usize,
}

impl Line {
    /// Bytes of the publishes that wait, without the frames behind them.
    pub(super) fn publish_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of all that waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.frame_bytes
    }

    /// Bytes of the places of the frames.
    pub(super) fn places(&self) -> usize {
        self.frames.len() * QUEUED
    }

    /// Promoted publishes.
    pub(super) fn promoted_len(&self) -> usize {
        self.promoted.len()
    }

    /// Whether a publish was promoted and has not gone.
    #[inline]
    pub(super) fn has_promoted(&self) -> bool {
        !self.promoted.is_empty()
    }

    /// Whether a publish of this key was promoted and has not gone.
    pub(super) fn holds(&self, key: Key) -> bool {
        self.keys.holds(key)
    }

    pub(super) fn push_promoted(&mut self, promoted: Promoted) {
        self.bytes += promoted.weight;
        self.keys.add(promoted.candidate.terms.key);
        self.promoted.push_back(promoted);
    }

    pub(super) fn pop_promoted(&mut self) -> Option<Promoted> {
        let promoted = self.promoted.pop_front()?;
        self.bytes -= promoted.weight;
        self.keys.remove(promoted.candidate.terms.key);
        Some(promoted)
    }

    /// Forgets the promoted publishes: they will not be sent.
    pub(super) fn drop_promoted(&mut self) {
        while let Some(Promoted { reservation, .. }) = self.pop_promoted() {
            if let Some(reservation) = reservation {
                reservation.forget(ForgetCause::ChannelClosed);
            }
        }
    }

    /// Whether others wait for a promoted publish. (If there are very many, the oldest are asked.)
    pub(super) fn is_awaited(&self) -> bool {
        let reservations = self.promoted.iter().filter_map(|promoted| promoted.reservation.as_ref());
        reservations.take(LOOKED_AT).any(Reservation::is_awaited)
    }

    /// Whether a publish waits for its verdict.
    #[inline]
    pub(super) fn is_stalled(&self) -> bool {
        !self.asked.is_empty()
    }

    /// The window was asked about the next publish.
    pub(super) fn ask(&mut self, asked: Asked) {
        self.bytes += asked.candidate.size();
        self.asked.push_back(asked);
    }

    /// Takes the first publish, if it waits for the mail of this ticket.
    pub(super) fn take_answered(&mut self, ticket: Ticket) -> Option<Asked> {
        self.take_first_if(|asked| asked.ticket == ticket && matches!(asked.answer, Answer::Pending(_)))
    }

    /// Takes the first publish, if it found no room and is to ask again now.
    pub(super) fn take_retry(&mut self, now: Instant) -> Option<Asked> {
        self.take_first_if(|asked| matches!(asked.answer, Answer::NoRoom { retry_at } if retry_at <= now))
    }

    fn take_first_if(&mut self, condition: impl FnOnce(&Asked) -> bool) -> Option<Asked> {
        if !condition(self.asked.front()?) {
            return None;
        }
        let asked = self.asked.pop_front()?;
        self.bytes -= asked.candidate.size();
        Some(asked)
    }

    /// Forgets the publishes that wait for their verdict.
    pub(super) fn drop_asked(&mut self) {
        for asked in std::mem::take(&mut self.asked) {
            self.bytes -= asked.candidate.size();
        }
    }

    /// When the first publish asks again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.asked.front()?.answer {
            Answer::NoRoom { retry_at } => Some(retry_at),
            Answer::Pending(_) => None,
        }
    }

    /// Whether frames wait.
    #[inline]
    pub(in crate::session) fn has_frames(&self) -> bool {
        !self.frames.is_empty()
    }

    /// The frames that wait, in their order.
    pub(in crate::session) fn frames(&self) -> impl Iterator<Item = View<'_>> {
        self.frames.iter().map(Piece::view)
    }

    /// A frame waits behind all the others.
    pub(in crate::session) fn push_frame(&mut self, frame: View<'_>) {
        self.frame_bytes += frame.len();
        self.frames.push_back(frame.compact());
    }

    /// A frame waits before all the others.
    pub(in crate::session) fn push_frame_first(&mut self, frame: View<'_>) {
        self.frame_bytes += frame.len();
        self.frames.push_front(frame.compact());
    }

    /// Takes the first frame.
    pub(in crate::session) fn pop_frame(&mut self) -> Option<Piece> {
        let frame = self.frames.pop_front()?;
        self.frame_bytes -= frame.view().len();
        Some(frame)
    }

    /// Drops all frames. Returns true if a `channel.close` of the client was among them.
    pub(in crate::session) fn drop_frames(&mut self) -> bool {
        self.frame_bytes = 0;
        let says_close = |frame: Piece| {
            frame.view().kind() == Some(FrameKind::Method)
                && frame.view().method(FrameKind::Method) == Some(MethodId::CHANNEL_CLOSE)
        };
        self.frames.drain(..).any(says_close)
    }
}
