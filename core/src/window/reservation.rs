//! The two guards: a [`Reservation`] is undone by dropping it, a [`Wait`] leaves its queue by dropping it.

use super::{
    Claim, Commit, Committed, ForgetCause, HINTED, Mailbox, Memo, TakeOver, Ticket, Turn, Verdict, Window,
    is_same,
};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// A claim in flight: its publish was forwarded, or is about to be, and its outcome is not known yet. Drop = forget.
#[must_use = "dropping a reservation forgets the claim"]
pub struct Reservation {
    /// `None` once committed or given up.
    window: Option<Arc<dyn Window>>,
    claim: Packed,
    turn: Turn,
}

/// A claim that is aligned to 8 bytes only. A ledger holds many reservations, and they would be padded otherwise.
#[derive(Clone, Copy)]
#[repr(Rust, packed(8))]
struct Packed(Claim);

impl Reservation {
    /// For windows: the claim must have been put in flight just before.
    pub fn new(window: Arc<dyn Window>, claim: Claim, turn: Turn) -> Reservation {
        Reservation { window: Some(window), claim: Packed(claim), turn }
    }

    /// The same reservation, settled through another window: one with a store that keeps its claims in flight in the window that
    /// has made this one.
    pub fn through(mut self, window: Arc<dyn Window>) -> Reservation {
        self.window = None;
        Reservation { window: Some(window), claim: self.claim, turn: self.turn }
    }

    /// The claim that is reserved.
    pub fn claim(&self) -> Claim {
        self.claim.0
    }

    /// The window that it is reserved in.
    pub fn window(&self) -> Option<&Arc<dyn Window>> {
        self.window.as_ref()
    }

    /// Commits: the upstream has stored the message. For the TTL of the memo the claim is seen, and all waiters learn it.
    pub fn commit(mut self, now: Instant, memo: impl Into<Memo>) -> Committed {
        let Some(window) = self.window.take() else { return Committed::Now };
        let remembered = window.commit(self.stored(memo.into()), now);
        Committed::new(window, remembered)
    }

    fn stored(&self, memo: Memo) -> Commit {
        Commit { claim: self.claim(), turn: self.turn, memo }
    }

    /// As [`Reservation::commit`], but counted apart: nobody knows whether the upstream has stored the message, and the window's
    /// rule is to keep its id (`in_doubt = "keep"`).
    pub fn commit_in_doubt(mut self, now: Instant, memo: impl Into<Memo>) {
        if let Some(window) = self.window.take() {
            window.commit_in_doubt(self.stored(memo.into()), now);
        }
    }

    /// Tells the window whether the content of the publish is still on its way. Those who wait for it wait longer then. The
    /// caller has to see to it that the content comes, or that the reservation is given up.
    pub fn set_uploading(&self, uploading: bool) {
        if let Some(window) = &self.window {
            window.set_uploading(self.claim(), self.turn, uploading);
        }
    }

    /// Returns true if somebody waits for the outcome, or has found no room to wait since the last call.
    pub fn is_awaited(&self) -> bool {
        self.window.as_ref().is_some_and(|window| window.is_awaited(self.claim(), self.turn))
    }

    /// Gives the claim up: the message was not stored. The oldest waiter takes its place, unless one has done so already.
    pub fn forget(mut self, cause: ForgetCause) {
        if let Some(window) = self.window.take() {
            window.rollback(self.claim(), self.turn, cause);
        }
    }
}

/// A batch of reservations of one window that the upstream has stored together. Dropping it forgets all of them.
#[derive(Debug, Default)]
pub struct Reservations {
    /// The first reservation. In most batches there is no other, so it needs no allocation.
    first: Option<(Reservation, Memo)>,
    more: Vec<(Reservation, Memo)>,
}

impl Reservations {
    /// Adds a reservation. If the batch is full (64), or is of another window, it is committed first, and what became of that
    /// is given back. It says nothing about the reservation that is added.
    pub fn push(
        &mut self,
        reservation: Reservation,
        now: Instant,
        memo: impl Into<Memo>,
    ) -> Option<Committed> {
        let memo = memo.into();
        let before = if self.takes(&reservation) { None } else { self.commit(now) };
        if self.first.is_none() {
            self.first = Some((reservation, memo));
            return before;
        }
        if self.more.is_empty() {
            self.more.reserve(HINTED - 1);
        }
        self.more.push((reservation, memo));
        before
    }

    /// Commits all of them, in an order of the window's choice; `None` if there are none.
    pub fn commit(&mut self, now: Instant) -> Option<Committed> {
        let (mut first, memo) = self.first.take()?;
        let window = first.window.take()?;
        if self.more.is_empty() {
            let remembered = window.commit(first.stored(memo), now);
            return Some(Committed::new(window, remembered));
        }
        let mut commits = Vec::with_capacity(HINTED);
        commits.push(first.stored(memo));
        for (mut reservation, memo) in self.more.drain(..) {
            reservation.window = None;
            commits.push(reservation.stored(memo));
        }
        let remembered = window.commit_all(&commits, now);
        Some(Committed::new(window, remembered))
    }

    /// Whether the batch has room for this one, and is of the same window.
    fn takes(&self, reservation: &Reservation) -> bool {
        let Some((first, _)) = &self.first else { return true };
        match (&first.window, &reservation.window) {
            (Some(one), Some(other)) => self.more.len() < HINTED - 1 && is_same(one, other),
            _ => false,
        }
    }
}

impl Drop for Reservation {
    /// A reservation that nobody settled belonged to a session that is gone: its outcome is in doubt.
    fn drop(&mut self) {
        if let Some(window) = self.window.take() {
            window.rollback(self.claim(), self.turn, ForgetCause::InDoubt);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("claim", &self.claim()).finish_non_exhaustive()
    }
}

/// A place in the queue behind a reservation (or behind a store that has to be asked). Drop = leave.
#[must_use = "dropping a wait leaves the queue"]
pub struct Wait {
    /// `None` once it has its answer.
    window: Option<Arc<dyn Window>>,
    claim: Claim,
    mailbox: Arc<Mailbox>,
    ticket: Ticket,
}

impl Wait {
    /// For windows: the waiter must have been queued just before.
    pub fn new(window: Arc<dyn Window>, claim: Claim, mailbox: Arc<Mailbox>, ticket: Ticket) -> Wait {
        Wait { window: Some(window), claim, mailbox, ticket }
    }

    /// Asks the window to let this publish take the claim over from its holder, see [`Window::take_over`].
    pub fn take_over(&self, since: Instant, now: Instant) -> TakeOver {
        let queued = Some((&self.mailbox, self.ticket));
        match &self.window {
            Some(window) => Arc::clone(window).take_over(self.claim, since, now, queued),
            None => TakeOver::Answered,
        }
    }

    /// Returns true if it has to wait on, however long it has waited, see [`Window::waits_on`].
    pub fn waits_on(&self) -> bool {
        let queued = Some((&self.mailbox, self.ticket));
        self.window.as_ref().is_none_or(|window| window.waits_on(self.claim, queued))
    }

    /// Withdraws the question, because the answer to a [`Verdict::Pending`] is overdue, and asks the window what it says without
    /// its store, under a new ticket. See [`Window::overdue`]. The session discards an answer that comes under the old ticket.
    pub fn overdue(mut self, ticket: Ticket, now: Instant) -> Verdict {
        match self.window.take() {
            Some(window) => {
                window.leave(self.claim, &self.mailbox, self.ticket);
                window.overdue(self.claim, now, &self.mailbox, ticket)
            }
            None => Verdict::Crowded,
        }
    }

    /// Its verdict has come by mail, so it is in no queue any more. Unlike a drop, this does not ask the window to take the
    /// ticket out: the verdict may hold a new place under the same ticket.
    pub fn answered(mut self) {
        self.window = None;
    }

    /// The session has no room for the publish, and will ask again: gives the place in the queue back. Somebody waits all the same,
    /// as after [`Verdict::Crowded`].
    pub fn no_room(self) {
        if let Some(window) = &self.window {
            window.crowd(self.claim);
        }
    }

    /// The ticket that the answer will carry.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(window) = &self.window {
            window.leave(self.claim, &self.mailbox, self.ticket);
        }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait")
            .field("claim", &self.claim)
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}
