//! The mailbox of a session. A window puts late verdicts there, each as a letter: the verdict, and the ticket of the question. A window
//! can also call the session without a letter: then it remembers more commits than before.
//!
//! A letter may hold a [`Wait`](super::Wait), which holds the mailbox. A mailbox with such a letter does not end by itself, so its session
//! closes it. Otherwise a window could let a publish through that nobody takes out, and its id would be in flight until the process ends.

use super::{ForgetCause, Verdict};
use parking_lot::Mutex;
use std::task::Waker;

/// The name that a session gives to a question. It is unique within its mailbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// A session's mailbox. It never holds more letters than the session has open tickets.
#[derive(Debug, Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    letters: Vec<(Ticket, Verdict)>,
    /// True if a window has called the session without a letter.
    is_called: bool,
    /// The session is over: later letters are thrown away.
    is_closed: bool,
    waker: Option<Waker>,
}

impl Mailbox {
    /// An empty one.
    pub fn new() -> Mailbox {
        Mailbox::default()
    }

    /// Puts a verdict in and wakes the session's task.
    pub fn deliver(&self, ticket: Ticket, verdict: Verdict) {
        let waker = {
            let mut inner = self.inner.lock();
            if inner.is_closed {
                drop(inner);
                return discard(verdict);
            }
            inner.letters.push((ticket, verdict));
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Throws away all letters, and those that come from now on: the session is over.
    pub fn close(&self) {
        let letters = {
            let mut inner = self.inner.lock();
            inner.is_closed = true;
            std::mem::take(&mut inner.letters)
        };
        // Waits leave their queues first. Otherwise the publishes that are given up would promote these, one after the other.
        let (fresh, others): (Vec<_>, Vec<_>) = letters
            .into_iter()
            .map(|(_, verdict)| verdict)
            .partition(|verdict| matches!(verdict, Verdict::Fresh(_)));
        others.into_iter().chain(fresh).for_each(discard);
    }

    /// Wakes the session's task without a letter. A window does so when it has come to a position that the session waits for.
    pub fn call(&self) {
        let waker = {
            let mut inner = self.inner.lock();
            inner.is_called = true;
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes all letters. A call counts as heard.
    pub fn take(&self) -> Vec<(Ticket, Verdict)> {
        let mut inner = self.inner.lock();
        inner.is_called = false;
        std::mem::take(&mut inner.letters)
    }

    /// Takes all letters, and whether somebody has called.
    pub fn take_all(&self) -> (Vec<(Ticket, Verdict)>, bool) {
        let mut inner = self.inner.lock();
        (std::mem::take(&mut inner.letters), std::mem::take(&mut inner.is_called))
    }

    /// Registers the waker for the next letter or call. Returns true if there is one already.
    pub fn register(&self, waker: &Waker) -> bool {
        let mut inner = self.inner.lock();
        if inner.is_called || !inner.letters.is_empty() {
            return true;
        }
        match &mut inner.waker {
            Some(old) if old.will_wake(waker) => {}
            slot => *slot = Some(waker.clone()),
        }
        false
    }
}

/// Throws a verdict away that nobody will act on.
fn discard(verdict: Verdict) {
    // The message was never sent, so it is not in doubt.
    if let Verdict::Fresh(reservation) = verdict {
        reservation.forget(ForgetCause::ChannelClosed);
    }
}
