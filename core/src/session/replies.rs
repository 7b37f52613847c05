//! The replies to a client whose transaction is committed, but not remembered yet: `tx.commit-ok` waits, and the replies behind
//! it wait with it.
//!
//! The upstream answers the requests of a channel in their order, and so must Hapax. Deliveries and returns answer no request:
//! they go on, and so does the upstream's `channel.close`.

use super::outbox::{Piece, View};
use super::unremembered::{Deadline, Outstanding};
use crate::window::Unremembered;
use crate::wire::frame::FrameKind;
use crate::wire::method::MethodId;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A frame for the client. A `tx.commit-ok` may wait for commits.
#[derive(Debug)]
struct Reply {
    frame: Piece,
    /// of how many windows
    commits: usize,
    /// publishes of the transaction
    publishes: usize,
}

/// The replies of one channel that wait.
#[derive(Debug, Default)]
pub(super) struct Replies {
    waiting: VecDeque<Reply>,
    /// how many replies were taken from the front of `waiting` so far
    taken: usize,
    /// which `tx.commit-ok` waits for a commit, by its place among all replies that ever waited
    commits: Outstanding<usize>,
    bytes: usize,
    publishes: usize,
    /// The content that the upstream is sending belongs to a reply that waits.
    amid_content: bool,
    /// The client hears nothing more.
    deaf: bool,
}

impl Replies {
    /// Returns the bytes of the frames.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of publishes of the transactions whose `tx.commit-ok` waits.
    pub(super) fn publishes(&self) -> usize {
        self.publishes
    }

    /// Returns true if nothing waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns true if a `tx.commit-ok` waits until a window remembers its ids.
    pub(super) fn is_unremembered(&self) -> bool {
        !self.commits.is_empty()
    }

    /// Handles `tx.commit-ok` or `tx.rollback-ok` of a transaction with this number of publishes. Returns true if it has to
    /// wait.
    pub(super) fn recv_tx_ended(
        &mut self,
        frame: View<'_>,
        commits: Vec<Unremembered>,
        publishes: usize,
        deadline: Deadline<'_>,
    ) -> bool {
        if self.deaf || commits.is_empty() && self.waiting.is_empty() {
            return false;
        }
        let (place, count) = (self.taken + self.waiting.len(), commits.len());
        commits.into_iter().for_each(|commit| self.commits.push(commit, place, deadline));
        self.push(frame, count, publishes);
        true
    }

    /// Takes another frame of the upstream, if it has to wait behind a `tx.commit-ok`. Returns false if it may go on.
    pub(super) fn take(&mut self, kind: FrameKind, id: Option<MethodId>, frame: View<'_>) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let waits = match (kind, id) {
            (FrameKind::Method, Some(MethodId::BASIC_DELIVER | MethodId::BASIC_RETURN)) => {
                self.amid_content = false;
                false
            }
            (FrameKind::Method, Some(MethodId::BASIC_CANCEL | MethodId::CHANNEL_CLOSE)) => false,
            (FrameKind::Method, _) => {
                self.amid_content = true;
                true
            }
            (FrameKind::Header | FrameKind::Body | FrameKind::Heartbeat, _) => self.amid_content,
        };
        if waits {
            self.push(frame, 0, 0);
        }
        waits
    }

    fn push(&mut self, frame: View<'_>, commits: usize, publishes: usize) {
        self.bytes += frame.len();
        self.publishes += publishes;
        self.waiting.push_back(Reply { frame: frame.compact(), commits, publishes });
    }

    /// Returns true if the first reply need not wait any more.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        self.waiting.front().is_some_and(|reply| reply.commits == 0)
    }

    /// Takes the first reply, if it need not wait any more.
    pub(super) fn pop(&mut self) -> Option<Piece> {
        let reply = self.waiting.pop_front_if(|reply| reply.commits == 0)?;
        self.taken += 1;
        self.bytes -= reply.frame.view().len();
        self.publishes -= reply.publishes;
        Some(reply.frame)
    }

    /// Lets the replies go whose ids windows remember by now.
    pub(super) fn recv_remembered(&mut self) {
        let (waiting, taken) = (&mut self.waiting, self.taken);
        self.commits.recv_remembered(|place| done(waiting, taken, place));
    }

    /// Returns when a window will have been silent for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.commits.deadline()
    }

    /// Asks windows that have been silent for too long what to do.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) {
        let (waiting, taken) = (&mut self.waiting, self.taken);
        self.commits.expire(now, timeout, |place| done(waiting, taken, place));
    }

    /// Drops all replies, because the client's channel is closed, or the client is gone.
    pub(super) fn forget_client(&mut self) {
        *self = Replies { deaf: true, ..Replies::default() };
    }
}

/// Counts down the commits that the reply at this place waits for.
fn done(waiting: &mut VecDeque<Reply>, taken: usize, place: usize) {
    if let Some(reply) = place.checked_sub(taken).and_then(|at| waiting.get_mut(at)) {
        reply.commits -= 1;
    }
}
