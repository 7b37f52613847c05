//! The answers to one client: an ack or a nack for each of its delivery tags, once.
//!
//! Answers are gathered and written together: the answered prefix by one `multiple`, those beyond an open tag one by one.
//! `multiple` never passes an open tag, nor a return. The tag of a stored message stays open until the window remembers its id.

use super::by_tag::ByTag;
use super::confirms::ClientTag;
use super::held_returns::HeldReturns;
use super::unremembered::{Deadline, Outstanding};
use crate::window::Committed;
use crate::wire::{ChannelId, emit};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// An empty list of due tags keeps memory for this many. Most turns write fewer answers.
const KEPT: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Slot {
    /// not answered, or stored and not remembered yet
    Open,
    Acked,
    Nacked,
    /// acked, and the return in [`Answers::returns`] goes right before the ack
    Returned,
}

/// The tags of one client whose answers are not written.
#[derive(Debug)]
pub(super) struct Answers {
    slots: ByTag<Slot>,
    /// Tags that have an answer which is not written yet. Those from `committing` on may still be open: they are acked
    /// when their commit is done.
    due: Vec<ClientTag>,
    committing: usize,
    /// Tags whose ids are stored, and not remembered yet.
    unremembered: Outstanding<Vec<ClientTag>>,
    /// The returns of duplicates whose tags are due, in the order of the tags.
    returns: BTreeMap<u64, Bytes>,
    return_bytes: usize,
    /// The client hears nothing more.
    deaf: bool,
}

impl Answers {
    pub(super) fn new() -> Answers {
        Answers {
            slots: ByTag::new(),
            due: Vec::new(),
            committing: 0,
            unremembered: Outstanding::default(),
            returns: BTreeMap::new(),
            return_bytes: 0,
            deaf: false,
        }
    }

    /// Returns how many tags have no answer that is written.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the tag of the client's next publish.
    #[inline]
    pub(super) fn next_tag(&mut self) -> ClientTag {
        ClientTag(self.slots.push(Slot::Open))
    }

    /// Acks the client's publish: it is stored and remembered, by itself or by another of the same id.
    pub(super) fn ack(&mut self, tag: ClientTag) {
        self.answer(tag, Slot::Acked);
    }

    /// Nacks the client's publish: it is not stored.
    pub(super) fn nack(&mut self, tag: ClientTag) {
        self.answer(tag, Slot::Nacked);
    }

    /// Returns the client's publish, a duplicate, with these frames, and acks it right behind them: then every client library knows
    /// which message was returned.
    pub(super) fn return_and_ack(&mut self, tag: ClientTag, frames: Bytes) {
        if open(&mut self.slots, tag).is_some() {
            self.return_bytes += HeldReturns::weight(&frames);
            self.returns.insert(tag.0, frames);
        }
        self.answer(tag, Slot::Returned);
    }

    /// Returns the bytes of the returns that wait.
    #[inline]
    pub(super) fn return_bytes(&self) -> usize {
        self.return_bytes
    }

    fn answer(&mut self, tag: ClientTag, answer: Slot) {
        if let Some(slot) = open(&mut self.slots, tag) {
            *slot = answer;
            self.due.push(tag);
        }
    }

    /// Lets the client's publish, which is stored, wait for its commit. [`Answers::committed`] acks it.
    #[inline]
    pub(super) fn await_commit(&mut self, tag: ClientTag) {
        if open(&mut self.slots, tag).is_some() {
            self.due.push(tag);
        }
    }

    /// Acks the publishes that await their commit, because it is done. If the window does not remember them yet, their tags
    /// stay open.
    pub(super) fn committed(&mut self, committed: Committed, deadline: Deadline<'_>) {
        let from = std::mem::replace(&mut self.committing, self.due.len());
        let slots = &mut self.slots;
        match committed {
            Committed::Later(commit) if !self.deaf => {
                // Only the tags of this commit are looked at: one ack of the upstream may cause very many commits.
                let (tags, answered): (Vec<ClientTag>, Vec<ClientTag>) = self
                    .due
                    .split_off(from.min(self.due.len()))
                    .into_iter()
                    .partition(|tag| open(slots, *tag).is_some());
                self.due.extend(answered);
                self.committing = self.due.len();
                if !tags.is_empty() {
                    self.unremembered.push(commit, tags, deadline);
                }
            }
            Committed::Now | Committed::Later(_) => {
                for tag in self.due.get(from..).unwrap_or_default() {
                    if let Some(slot) = open(slots, *tag) {
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
        while let Some((tag, slot)) = self.slots.pop_first_if(|_, slot| *slot != Slot::Open) {
            match slot {
                Slot::Nacked => emit::nack(out, channel, tag),
                Slot::Acked => {
                    last_ack = tag;
                    acks += 1;
                }
                Slot::Returned => {
                    if acks > 0 {
                        emit::ack(out, channel, last_ack, acks > 1);
                        acks = 0;
                    }
                    self.write_returned(channel, tag, out);
                }
                Slot::Open => {}
            }
        }
        if acks > 0 {
            emit::ack(out, channel, last_ack, acks > 1);
        }
        // Those beyond an open tag.
        self.committing = 0;
        let mut due = std::mem::take(&mut self.due);
        for tag in due.drain(..) {
            if self.slots.get_mut(tag.0).is_none_or(|slot| *slot == Slot::Open) {
                continue;
            }
            match self.slots.take(tag.0) {
                Some(Slot::Acked) => emit::ack(out, channel, tag.0, false),
                Some(Slot::Nacked) => emit::nack(out, channel, tag.0),
                Some(Slot::Returned) => self.write_returned(channel, tag.0, out),
                Some(Slot::Open) | None => {}
            }
        }
        if due.capacity() <= KEPT {
            self.due = due;
        }
        self.slots.tidy(|_, _| ());
    }

    /// Writes the return of a duplicate, and its ack.
    fn write_returned(&mut self, channel: ChannelId, tag: u64, out: &mut BytesMut) {
        if let Some(frames) = self.returns.remove(&tag) {
            self.return_bytes -= HeldReturns::weight(&frames);
            out.extend_from_slice(&frames);
        }
        emit::ack(out, channel, tag, false);
    }

    /// Forgets all tags, because the client's channel is closed, or the client is gone.
    pub(super) fn forget_client(&mut self) {
        drop(self.slots.take_all());
        self.due.clear();
        self.committing = 0;
        self.not_heard();
    }

    /// Notes that the client is gone: nothing has to wait until its ids are remembered.
    pub(super) fn not_heard(&mut self) {
        self.unremembered.clear();
        self.returns.clear();
        self.return_bytes = 0;
        self.deaf = true;
    }
}

/// Returns the slot of a tag that has no answer yet.
#[inline]
fn open(slots: &mut ByTag<Slot>, tag: ClientTag) -> Option<&mut Slot> {
    slots.get_mut(tag.0).filter(|slot| **slot == Slot::Open)
}
