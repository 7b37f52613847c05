//! The answers to one client: an ack or a nack for each of its delivery tags, once.
//!
//! Answers are gathered and written together: the answered prefix by one `multiple`, those beyond an open tag one by one.
//! `multiple` never passes an open tag. The tag of a stored message stays open until the window remembers its id.

use super::confirms::ClientTag;
use super::unremembered::{Deadline, Outstanding};
use crate::window::Committed;
use crate::wire::{ChannelId, emit};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    /// not answered, or stored and not remembered yet
    Open,
    Acked,
    Nacked,
    /// written already, behind an open tag
    Answered,
}

/// The tags of one client that are not answered, or lie behind one that is not.
#[derive(Debug)]
pub(super) struct Answers {
    /// The tag of `slots.front()`.
    first: u64,
    slots: VecDeque<Slot>,
    /// Tags that have an answer which is not written yet. Those from `committing` on may still be open: they are acked
    /// when their commit is done.
    due: Vec<ClientTag>,
    committing: usize,
    /// Tags whose ids are stored, and not remembered yet.
    unremembered: Outstanding<Vec<ClientTag>>,
    /// The client hears nothing more.
    deaf: bool,
}

impl Answers {
    pub(super) fn new() -> Answers {
        Answers {
            first: 1,
            slots: VecDeque::new(),
            due: Vec::new(),
            committing: 0,
            unremembered: Outstanding::default(),
            deaf: false,
        }
    }

    /// Returns how many tags are kept.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the tag of the client's next publish.
    #[inline]
    pub(super) fn next_tag(&mut self) -> ClientTag {
        let tag = ClientTag(self.first + self.slots.len() as u64);
        self.slots.push_back(Slot::Open);
        tag
    }

    /// Acks the client's publish: it is stored and remembered, by itself or by another of the same id.
    pub(super) fn ack(&mut self, tag: ClientTag) {
        self.answer(tag, Slot::Acked);
    }

    /// Nacks the client's publish: it is not stored.
    pub(super) fn nack(&mut self, tag: ClientTag) {
        self.answer(tag, Slot::Nacked);
    }

    fn answer(&mut self, tag: ClientTag, answer: Slot) {
        if let Some(slot) = open(&mut self.slots, self.first, tag) {
            *slot = answer;
            self.due.push(tag);
        }
    }

    /// Lets the client's publish, which is stored, wait for its commit. [`Answers::committed`] acks it.
    #[inline]
    pub(super) fn await_commit(&mut self, tag: ClientTag) {
        if open(&mut self.slots, self.first, tag).is_some() {
            self.due.push(tag);
        }
    }

    /// Acks the publishes that await their commit, because it is done. If the window does not remember them yet, their tags
    /// stay open.
    pub(super) fn committed(&mut self, committed: Committed, deadline: Deadline<'_>) {
        let from = std::mem::replace(&mut self.committing, self.due.len());
        let (slots, first) = (&mut self.slots, self.first);
        match committed {
            Committed::Later(commit) if !self.deaf => {
                // Only the tags of this commit are looked at: one ack of the upstream may cause very many commits.
                let (tags, answered): (Vec<ClientTag>, Vec<ClientTag>) = self
                    .due
                    .split_off(from.min(self.due.len()))
                    .into_iter()
                    .partition(|tag| open(slots, first, *tag).is_some());
                self.due.extend(answered);
                self.committing = self.due.len();
                if !tags.is_empty() {
                    self.unremembered.push(commit, tags, deadline);
                }
            }
            Committed::Now | Committed::Later(_) => {
                for tag in self.due.get(from..).unwrap_or_default() {
                    if let Some(slot) = open(slots, first, *tag) {
                        *slot = Slot::Acked;
                    }
                }
            }
        }
    }

    /// Begins another commit: the tags that come now await that one.
    #[inline]
    pub(super) fn begin_commit(&mut self) {
        self.committing = self.due.len();
    }

    /// Returns true if tags wait until a window remembers their ids.
    #[inline]
    pub(super) fn is_unremembered(&self) -> bool {
        !self.unremembered.is_empty()
    }

    /// Acks the tags whose ids windows remember by now.
    pub(super) fn recv_remembered(&mut self) {
        let mut unremembered = std::mem::take(&mut self.unremembered);
        unremembered.recv_remembered(|tags| tags.into_iter().for_each(|tag| self.ack(tag)));
        self.unremembered = unremembered;
    }

    /// Returns when a window will have been silent for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unremembered.deadline()
    }

    /// Asks windows that have been silent for too long what to do.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) {
        let mut unremembered = std::mem::take(&mut self.unremembered);
        unremembered.expire(now, timeout, |tags| tags.into_iter().for_each(|tag| self.ack(tag)));
        self.unremembered = unremembered;
    }

    /// Returns true if answers are due.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Writes all answers that are due.
    pub(super) fn flush(&mut self, channel: ChannelId, out: &mut BytesMut) {
        if self.due.is_empty() {
            return;
        }
        // The answered prefix: its nacks one by one, then one ack for the rest of it.
        let mut acks = 0u32;
        let mut last_ack = 0;
        while let Some(slot) = self.slots.front().copied().filter(|slot| *slot != Slot::Open) {
            match slot {
                Slot::Nacked => emit::nack(out, channel, self.first),
                Slot::Acked => {
                    last_ack = self.first;
                    acks += 1;
                }
                Slot::Open | Slot::Answered => {}
            }
            self.slots.pop_front();
            self.first += 1;
        }
        if acks > 0 {
            emit::ack(out, channel, last_ack, acks > 1);
        }
        // Those beyond an open tag.
        self.committing = 0;
        for tag in std::mem::take(&mut self.due) {
            if let Some(slot) = slot(&mut self.slots, self.first, tag) {
                match std::mem::replace(slot, Slot::Answered) {
                    Slot::Acked => emit::ack(out, channel, tag.0, false),
                    Slot::Nacked => emit::nack(out, channel, tag.0),
                    Slot::Open | Slot::Answered => {}
                }
            }
        }
    }

    /// Forgets all tags, because the client's channel is closed, or the client is gone.
    pub(super) fn forget_client(&mut self) {
        self.first += self.slots.len() as u64;
        self.slots.clear();
        self.due.clear();
        self.committing = 0;
        self.not_heard();
    }

    /// Notes that the client is gone: nothing has to wait until its ids are remembered.
    pub(super) fn not_heard(&mut self) {
        self.unremembered.clear();
        self.deaf = true;
    }
}

#[inline]
fn slot(slots: &mut VecDeque<Slot>, first: u64, tag: ClientTag) -> Option<&mut Slot> {
    let at = tag.0.checked_sub(first).and_then(|at| usize::try_from(at).ok())?;
    slots.get_mut(at)
}

/// Returns the slot of a tag that has no answer yet.
#[inline]
fn open(slots: &mut VecDeque<Slot>, first: u64, tag: ClientTag) -> Option<&mut Slot> {
    slot(slots, first, tag).filter(|slot| **slot == Slot::Open)
}
