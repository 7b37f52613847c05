//! What a [`Publisher`] gives back when its client is done, its upstream channel closed, or its upstream gone.

use super::*;

impl Publisher {
    /// The client will send nothing more on this channel: content that is not whole never will be, and an open transaction
    /// is rolled back.
    pub(in crate::session) fn client_done(&mut self) {
        match std::mem::replace(&mut self.content, Content::Idle) {
            Content::Body { fate: Fate::Keep(ticket), .. } => drop(self.waiting.take(ticket)),
            Content::Body { fate: Fate::Collect(draft), .. } => {
                self.waiting.release(size_of(draft.size));
            }
            // Nothing can follow on this channel any more.
            content @ (Content::Body { fate: Fate::Forward { .. }, .. } | Content::Opaque { .. }) => {
                self.content = content;
                self.forget_incomplete();
                self.abandon_waiting();
            }
            Content::Idle | Content::Header(_) | Content::Body { fate: Fate::Swallow(_), .. } => {}
        }
        if self.mode == Mode::Tx {
            self.drop_waiting();
            self.tx.abandon_open();
        }
    }

    /// The upstream channel is closed: what it has not answered, it never will.
    pub(in crate::session) fn upstream_channel_closed(&mut self) {
        self.give_back(|entry| entry.forget(ForgetCause::ChannelClosed));
    }

    /// The upstream connection is gone: nobody knows what it has stored.
    pub(in crate::session) fn upstream_lost(&mut self, now: Instant) {
        self.give_back(|entry| entry.in_doubt(now));
    }

    pub(super) fn give_back(&mut self, mut each: impl FnMut(Entry)) {
        // What was not sent whole was not stored, whatever the rule.
        // (In a transaction it is in the open one, which is forgotten anyway.)
        let incomplete = self.is_amid_entry() && matches!(self.mode, Mode::Confirm { .. });
        let mut entries: Vec<Entry> =
            self.confirms.take_unsettled().chain(self.tx.take_unsettled()).collect();
        if incomplete && let Some(entry) = entries.pop() {
            entry.forget(ForgetCause::Incomplete);
        }
        entries.into_iter().for_each(&mut each);
        if let Content::Body { fate: Fate::Forward { at_write: Some((reservation, _)) }, .. } =
            std::mem::replace(&mut self.content, Content::Idle)
        {
            reservation.forget(ForgetCause::Incomplete);
        }
        self.abandon_waiting();
    }

    /// The client is told that its channel is closed. What waits without a tag was sent before that: it keeps waiting,
    /// for nobody would send it again.
    pub(in crate::session) fn refused(&mut self) {
        if matches!(self.mode, Mode::Plain | Mode::Confirm { client: false }) {
            self.drop_held();
            drop(self.waiting.take_stalled());
        } else {
            self.abandon_waiting();
        }
    }

    /// Nobody asks any more for what waits.
    pub(in crate::session) fn abandon_waiting(&mut self) {
        self.drop_held();
        self.drop_waiting();
        drop(self.waiting.take_stalled());
    }

    pub(super) fn drop_waiting(&mut self) {
        self.waiting.drop_queued();
        if let Content::Body { fate, .. } = &mut self.content
            && matches!(fate, Fate::Keep(_))
        {
            *fate = Fate::Swallow(Reply::Nothing);
        }
    }
}
