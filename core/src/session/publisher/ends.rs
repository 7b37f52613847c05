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

    /// The upstream channel or connection is closed: what it has not answered, it never will, and nobody knows what it has
    /// stored. `blame`: the broker has closed the channel because of a publish.
    pub(in crate::session) fn upstream_closed(&mut self, blame: Option<&Blame>, now: Instant) {
        // What was not sent whole was not stored, whatever the rule.
        // (In a transaction it is in the open one, which is forgotten anyway.)
        let incomplete = self.is_amid_entry() && matches!(self.mode, Mode::Confirm { .. });
        let mut entries = self.confirms.take_unsettled();
        if incomplete && let Some((_, entry)) = entries.pop() {
            entry.forget(ForgetCause::Incomplete);
        }
        self.give_back(entries, blame, now);
        self.tx.take_unsettled(blame).into_iter().for_each(|entry| entry.in_doubt(now));
        let mut written = self.written.take();
        // (What nobody has judged is written down, too, where something was before it.)
        if self.is_amid_entry() && self.mode == Mode::Plain {
            written.iter_mut().for_each(|written| written.drop_newest());
        }
        if let Content::Body { fate: Fate::Forward { at_write: Some((reservation, _)) }, .. } =
            std::mem::replace(&mut self.content, Content::Idle)
        {
            reservation.forget(ForgetCause::Incomplete);
        }
        if let (Some(written), Some(blame)) = (written, blame) {
            written.blame(blame, now);
        }
        self.abandon_waiting();
    }

    /// Of publishes with confirms, oldest first: where one is to blame, those that may be it, or come after it, are forgotten.
    /// All others are in doubt. (Where those to the named exchange went is known; what has no reservation may be one of them,
    /// but there is nothing to forget.)
    fn give_back(&self, entries: Vec<(UpstreamTag, Entry)>, blame: Option<&Blame>, now: Instant) {
        let guilty = blame.map_or_else(Vec::new, |blame| {
            let named = |tag| blame.names(self.confirms.exchange_of(tag));
            Blame::guilty(
                entries
                    .iter()
                    .map(|(tag, entry)| blame.names_any() && (entry.reservation.is_none() || named(*tag))),
            )
        });
        for (at, (_, entry)) in entries.into_iter().enumerate() {
            if guilty.get(at) == Some(&true) {
                entry.forget(ForgetCause::ChannelClosed);
            } else {
                entry.in_doubt(now);
            }
        }
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
