//! The two guards: a [`Reservation`] is undone by dropping it, a [`Wait`] leaves its queue by dropping it.

use super::{ForgetCause, HINTED, Key, Mailbox, TakeOver, Ticket, Turn, Window, is_same};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A key in flight: forwarded, or about to be; its outcome is not known yet. Drop = forget.
#[must_use = "dropping a reservation forgets the key"]
pub struct Reservation {
    /// `None` once committed or given up.
    window: Option<Arc<dyn Window>>,
    key: Packed,
    turn: Turn,
}

/// A key that asks for no more than 8 bytes' alignment: a ledger holds many reservations, and would be padded.
#[derive(Clone, Copy)]
#[repr(Rust, packed(8))]
struct Packed(Key);

impl Reservation {
    /// For windows: the key must have been put in flight just before.
    pub fn new(window: Arc<dyn Window>, key: Key, turn: Turn) -> Reservation {
        Reservation { window: Some(window), key: Packed(key), turn }
    }

    /// The key that is reserved.
    pub fn key(&self) -> Key {
        self.key.0
    }

    /// The window that it is reserved in.
    pub fn window(&self) -> Option<&Arc<dyn Window>> {
        self.window.as_ref()
    }

    /// The upstream has stored it: from now on, and for `ttl`, the key is seen. All waiters learn it.
    pub fn commit(mut self, now: Instant, ttl: Duration) {
        if let Some(window) = self.window.take() {
            window.commit(self.key(), now, ttl);
        }
    }

    /// Nobody knows whether the upstream has stored it, and the window's rule is to keep it (`in_doubt = "keep"`): as
    /// [`Reservation::commit`], but counted apart.
    pub fn commit_in_doubt(mut self, now: Instant, ttl: Duration) {
        if let Some(window) = self.window.take() {
            window.commit_in_doubt(self.key(), now, ttl);
        }
    }

    /// Says that the content of its publish is not whole (or, later, that it is): who waits for it waits longer then. Whoever
    /// says so has to see to it that the content comes, or that the reservation is given up.
    pub fn set_uploading(&self, uploading: bool) {
        if let Some(window) = &self.window {
            window.set_uploading(self.key(), self.turn, uploading);
        }
    }

    /// Whether somebody waits for its outcome, or found no room to wait since this was asked last.
    pub fn is_awaited(&self) -> bool {
        self.window.as_ref().is_some_and(|window| window.is_awaited(self.key(), self.turn))
    }

    /// It was not stored, and why. The oldest waiter takes its place, unless one has done so already.
    pub fn forget(mut self, cause: ForgetCause) {
        if let Some(window) = self.window.take() {
            window.rollback(self.key(), self.turn, cause);
        }
    }
}

/// Reservations that the upstream has stored together. Drop = forget, as for each of them.
#[derive(Debug, Default)]
pub struct Reservations {
    /// Mostly there is no other.
    first: Option<(Reservation, Duration)>,
    more: Vec<(Reservation, Duration)>,
}

impl Reservations {
    /// This one, too. If there are many by now, they are committed.
    pub fn push(&mut self, reservation: Reservation, now: Instant, ttl: Duration) {
        if self.first.is_none() {
            self.first = Some((reservation, ttl));
            return;
        }
        if self.more.is_empty() {
            self.more.reserve(HINTED - 1);
        }
        self.more.push((reservation, ttl));
        if self.more.len() == HINTED - 1 {
            self.commit(now);
        }
    }

    /// [`Reservation::commit`] for each of them, in an order of the window's choice.
    pub fn commit(&mut self, now: Instant) {
        let Some((mut first, ttl)) = self.first.take() else { return };
        let Some(window) = first.window.take() else { return };
        if self.more.is_empty() {
            return window.commit(first.key(), now, ttl);
        }
        let mut commits = Vec::with_capacity(HINTED);
        commits.push((first.key(), ttl));
        for (mut reservation, ttl) in self.more.drain(..) {
            match &reservation.window {
                Some(other) if is_same(other, &window) => {
                    reservation.window = None;
                    commits.push((reservation.key(), ttl));
                }
                _ => reservation.commit(now, ttl),
            }
        }
        window.commit_all(&commits, now);
    }
}

impl Drop for Reservation {
    /// A reservation that nobody settled belonged to a session that is gone: its outcome is in doubt.
    fn drop(&mut self) {
        if let Some(window) = self.window.take() {
            window.rollback(self.key(), self.turn, ForgetCause::InDoubt);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("key", &self.key()).finish_non_exhaustive()
    }
}

/// A place in the queue behind a reservation (or behind a store that has to be asked). Drop = leave.
#[must_use = "dropping a wait leaves the queue"]
pub struct Wait {
    window: Arc<dyn Window>,
    key: Key,
    mailbox: Arc<Mailbox>,
    ticket: Ticket,
}

impl Wait {
    /// For windows: the waiter must have been queued just before.
    pub fn new(window: Arc<dyn Window>, key: Key, mailbox: Arc<Mailbox>, ticket: Ticket) -> Wait {
        Wait { window, key, mailbox, ticket }
    }

    /// Asks for the place of whoever has the key, see [`Window::take_over`].
    pub fn take_over(&self, since: Instant, now: Instant) -> TakeOver {
        Arc::clone(&self.window).take_over(self.key, since, now, Some((&self.mailbox, self.ticket)))
    }

    /// Whether it has to wait on, however long it has waited, see [`Window::waits_on`].
    pub fn waits_on(&self) -> bool {
        self.window.waits_on(self.key, Some((&self.mailbox, self.ticket)))
    }

    /// The ticket that the answer will carry.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.window.leave(self.key, &self.mailbox, self.ticket);
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("key", &self.key).field("ticket", &self.ticket).finish_non_exhaustive()
    }
}
