//! Publishes wait for an id that another publish has: its body has to go on, and its transaction has to end.
//!
//! Within each in-flight timeout, the body that is on its way has to come to its end, or [`ENOUGH`] of it has to come. If it
//! does not and somebody waits, the client's connection is closed: half a content on its way upstream can be taken back in
//! no other way. As long as the body goes on, those who wait for it wait on.
//!
//! An open transaction with a reservation has to end before those who wait for it are given up: it has nine tenths of their
//! time. If it does not end and somebody waits, its channel is closed, and so the transaction is rolled back.
//!
//! If nobody waits, the deadline is set anew. Publishes that come whole in one read are not concerned.

use crate::session::fault::Fault;
use crate::session::timers::earliest;
use crate::session::transaction::Transactions;
use crate::session::waiting::LOOKED_AT;
use crate::wire::ChannelId;
use std::time::{Duration, Instant};

/// Octets of a body that are progress.
const ENOUGH: u64 = 4096;
/// When the rest of a large transaction is looked at.
const NEXT_LOOK: Duration = Duration::from_millis(1);

/// The deadlines of the body that is on its way and of the open transaction.
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

/// When to look whether somebody waits for the open transaction, and at which of its publishes to begin.
#[derive(Clone, Copy, Debug)]
struct Look {
    from: usize,
    at: Instant,
}

impl Progress {
    /// Sets the time of the open transaction: a publish of it was forwarded that has a reservation.
    pub(super) fn owe_transaction(&mut self, patience: Duration, now: Instant) {
        self.transaction.get_or_insert(Look { from: 0, at: now + until_rolled_back(patience) });
    }

    /// Sets the time of a body: its publish was forwarded and has a reservation. `left` octets of its body are missing.
    pub(super) fn owe_body(&mut self, left: u64, patience: Duration, now: Instant) {
        self.body = Some(Body { left, until: now + patience });
    }

    /// Sets the time of the body that is on its way, if it has none: a publish that others wait for has to wait for it. `left`
    /// octets are missing.
    pub(super) fn hurry_body(&mut self, left: u64, patience: Duration, now: Instant) {
        if left > 0 {
            self.body.get_or_insert(Body { left, until: now + patience });
        }
    }

    /// Ends the time of the body, which is whole. Returns true if it had one.
    pub(super) fn body_ended(&mut self) -> bool {
        self.body.take().is_some()
    }

    /// Ends the time of the open transaction.
    pub(super) fn transaction_ended(&mut self) {
        self.transaction = None;
    }

    /// Returns when there is something to check: `left` octets of a body are missing, and there are `open` publishes in the open
    /// transaction.
    pub(super) fn deadline(&self, left: u64, open: usize) -> Option<Instant> {
        if self.body.is_none() && self.transaction.is_none() {
            return None;
        }
        let body = self.body.filter(|_| left > 0).map(|body| body.until);
        let look = self.transaction.filter(|_| open > 0).map(|look| look.at);
        earliest([body, look])
    }

    /// Fails if the body that is on its way does not go on. `is_awaited` says whether others wait for it.
    pub(super) fn check_body(
        &mut self,
        channel: ChannelId,
        left: u64,
        patience: Duration,
        now: Instant,
        is_awaited: impl FnOnce() -> bool,
    ) -> Result<(), Fault> {
        let Some(body) = self.body.filter(|body| body.until <= now && left > 0) else { return Ok(()) };
        if body.left.saturating_sub(left) < ENOUGH && is_awaited() {
            self.body = None;
            // The client will be heard no more, so its channels give back the content that is not whole.
            return Err(Fault::BodyTooSlow { channel, patience });
        }
        self.body = Some(Body { left, until: now + patience });
        Ok(())
    }

    /// Fails if the open transaction may not stay open.
    pub(super) fn check_transaction(
        &mut self,
        transactions: &mut Transactions,
        patience: Duration,
        now: Instant,
    ) -> Result<(), Fault> {
        let Some(look) = self.transaction.filter(|look| look.at <= now) else { return Ok(()) };
        let patience = until_rolled_back(patience);
        if transactions.is_awaited(look.from, LOOKED_AT) {
            self.transaction = None;
            // The channel can't be closed amid a content, but the transaction will not be committed in any case.
            transactions.abandon_open();
            return Err(Fault::TxTooSlow { patience });
        }
        let from = look.from + LOOKED_AT;
        self.transaction = Some(if from < transactions.open_len() {
            Look { from, at: now + NEXT_LOOK }
        } else {
            Look { from: 0, at: now + patience }
        });
        Ok(())
    }
}

/// How long a transaction may stay open while others wait for it, who have this patience.
fn until_rolled_back(patience: Duration) -> Duration {
    patience - patience / 10
}
