//! What a [`Publisher`] owes those who wait for an id that it has: its message's body goes on, its transaction ends.
//!
//! Within each in-flight timeout, the body that is on its way has to bring its end, or [`ENOUGH`] of it. If it does not and
//! somebody waits, its client's connection is closed: half a content on its way upstream can be taken back in no other way.
//! As long as it goes on, those who wait wait on.
//!
//! An open transaction with a reservation has to end before those who wait for it lose their patience: it has nine tenths of
//! it. If it does not and somebody waits, its channel is closed, and so it is rolled back.
//!
//! Where nobody waits, the deadline is set anew. Publishes that come whole in one read have nothing to do with any of this.

use super::*;
use crate::session::waiting::LOOKED_AT;

/// Octets of a body that are progress.
const ENOUGH: u64 = 4096;
/// When the rest of a large transaction is looked at.
const NEXT_LOOK: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Progress {
    body: Option<Body>,
    transaction: Option<Look>,
}

/// The body that is on its way upstream.
#[derive(Clone, Copy, Debug)]
struct Body {
    /// octets that were missing when its time began
    left: u64,
    until: Instant,
}

/// When to look whether somebody waits for the open transaction, and at what.
#[derive(Clone, Copy, Debug)]
struct Look {
    from: usize,
    at: Instant,
}

impl Progress {
    /// The open transaction has got its end.
    pub(super) fn transaction_ended(&mut self) {
        self.transaction = None;
    }
}

impl Publisher {
    /// A publish is forwarded that has a reservation; `left` octets of its body are missing.
    pub(super) fn owe_progress(
        &mut self,
        left: u64,
        at_write: Option<&(Reservation, Duration)>,
        cx: &Cx<'_>,
    ) {
        let patience = cx.shared.settings.in_flight_timeout;
        if self.mode == Mode::Tx {
            let at = cx.now + until_rolled_back(patience);
            self.progress.transaction.get_or_insert(Look { from: 0, at });
        }
        if left > 0 {
            self.progress.body = Some(Body { left, until: cx.now + patience });
            self.tell_uploading(true, at_write);
        }
    }

    /// Something that others wait for has to wait for the body that is on its way.
    pub(super) fn owe_body(&mut self, cx: &Cx<'_>) {
        let (left, until) = (self.left_to_forward(), cx.now + cx.shared.settings.in_flight_timeout);
        if left > 0 {
            self.progress.body.get_or_insert(Body { left, until });
        }
    }

    /// The body that was on its way is whole.
    pub(super) fn body_ended(&mut self, fate: &Fate) {
        if self.progress.body.take().is_some()
            && let Fate::Forward { at_write } = fate
        {
            self.tell_uploading(false, at_write.as_ref());
        }
    }

    /// When [`Publisher::check_progress`] has something to do.
    pub(in crate::session) fn progress_deadline(&self) -> Option<Instant> {
        let Progress { body, transaction } = &self.progress;
        if body.is_none() && transaction.is_none() {
            return None;
        }
        let body = body.filter(|_| self.left_to_forward() > 0).map(|body| body.until);
        let look = transaction.filter(|_| self.tx.open_len() > 0).map(|look| look.at);
        body.into_iter().chain(look).min()
    }

    /// Whether what others wait for goes on.
    pub(in crate::session) fn check_progress(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        if self.progress_deadline().is_none_or(|deadline| deadline > cx.now) {
            return Ok(());
        }
        self.check_body(cx)?;
        self.check_transaction(cx)
    }

    fn check_body(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let left = self.left_to_forward();
        let Some(body) = self.progress.body.filter(|body| body.until <= cx.now && left > 0) else {
            return Ok(());
        };
        let patience = cx.shared.settings.in_flight_timeout;
        let stands_still = body.left.saturating_sub(left) < ENOUGH;
        let holder = self.incomplete().and_then(|holder| holder.as_ref());
        let is_awaited = holder.is_some_and(|(reservation, _)| reservation.is_awaited());
        if stands_still && (is_awaited || self.waiting.is_awaited()) {
            self.progress.body = None;
            // (As the client will be heard no more, its channels give back what is not whole.)
            return Err(Fault::BodyTooSlow { channel: self.id, patience });
        }
        self.progress.body = Some(Body { left, until: cx.now + patience });
        Ok(())
    }

    fn check_transaction(&mut self, cx: &mut Cx<'_>) -> Result<(), Fault> {
        let Some(look) = self.progress.transaction.filter(|look| look.at <= cx.now) else { return Ok(()) };
        let patience = until_rolled_back(cx.shared.settings.in_flight_timeout);
        if self.tx.is_awaited(look.from, LOOKED_AT) {
            self.progress.transaction = None;
            // Even where the channel can't be closed yet, amid a content: it will never be committed.
            self.tx.abandon_open();
            return Err(Fault::TxTooSlow { patience });
        }
        let from = look.from + LOOKED_AT;
        self.progress.transaction = Some(if from < self.tx.open_len() {
            Look { from, at: cx.now + NEXT_LOOK }
        } else {
            Look { from: 0, at: cx.now + patience }
        });
        Ok(())
    }

    fn tell_uploading(&mut self, uploading: bool, at_write: Option<&(Reservation, Duration)>) {
        let entered = newest(self.mode, &mut self.confirms, &mut self.tx).and_then(|newest| newest.as_ref());
        if let Some((reservation, _)) = at_write.or(entered) {
            reservation.set_uploading(uploading);
        }
    }

    /// The reservation of the content that is on its way upstream.
    fn incomplete(&mut self) -> Option<&mut Option<(Reservation, Duration)>> {
        match &mut self.content {
            Content::Body { fate: Fate::Forward { at_write: at_write @ Some(_) }, .. } => Some(at_write),
            Content::Body { fate: Fate::Forward { at_write: None }, .. } => {
                newest(self.mode, &mut self.confirms, &mut self.tx)
            }
            Content::Body { .. } | Content::Idle | Content::Header(_) | Content::Opaque { .. } => None,
        }
    }

    /// The content on its way will never be whole: it is not stored.
    pub(super) fn forget_incomplete(&mut self) {
        if let Some((reservation, _)) = self.incomplete().and_then(Option::take) {
            reservation.forget(ForgetCause::Incomplete);
        }
    }
}

/// How long a transaction may stay open while others wait for it, who have this patience.
fn until_rolled_back(patience: Duration) -> Duration {
    patience - patience / 10
}

/// The reservation of what was forwarded last, where an entry has it.
fn newest<'a>(
    mode: Mode,
    confirms: &'a mut Confirms,
    tx: &'a mut Transactions,
) -> Option<&'a mut Option<(Reservation, Duration)>> {
    let entry = match mode {
        Mode::Plain => None,
        Mode::Confirm { .. } => confirms.newest(),
        Mode::Tx => tx.newest(),
    };
    entry.map(|entry| &mut entry.reservation)
}
