//! Questions that a window does not answer while its store is out of order.

use crate::window::{Ask, Claim, Mailbox, Ticket};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

/// The questions that wait until the store is back, in the order in which they came. Sessions bound their number.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Questions wait. It changes under the lock.
    is_open: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: BTreeMap<u64, Question>,
    /// The place of each question, by the address of its mailbox. (The weak pointer keeps the address from being used again.)
    places: HashMap<(usize, Ticket), u64>,
    came: u64,
    /// The sessions that are called when questions are answered again.
    callers: Callers,
}

/// Mailboxes, each once, by their addresses. (A weak pointer keeps an address from being used again.)
#[derive(Debug, Default)]
struct Callers {
    mailboxes: HashMap<usize, Weak<Mailbox>>,
    /// At this number of mailboxes, those of sessions that have ended are removed.
    swept_at: usize,
}

impl Callers {
    fn add(&mut self, mailbox: &Arc<Mailbox>) {
        if self.mailboxes.len() >= self.swept_at {
            self.mailboxes.retain(|_, mailbox| mailbox.strong_count() > 0);
            self.swept_at = 2 * self.mailboxes.len() + 16;
        }
        self.mailboxes.entry(Arc::as_ptr(mailbox).addr()).or_insert_with(|| Arc::downgrade(mailbox));
    }
}

/// A question that waits.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) claim: Claim,
    pub(super) mailbox: Weak<Mailbox>,
    pub(super) ticket: Ticket,
}

impl Questions {
    /// Returns true if questions wait from now on.
    #[inline]
    pub(super) fn are_kept(&self) -> bool {
        self.is_open.load(Relaxed)
    }

    /// Lets questions wait from now on.
    pub(super) fn keep(&self) {
        let _inner = self.inner.lock();
        self.is_open.store(true, Relaxed);
    }

    /// Keeps a question. Returns false if questions need not wait any more.
    pub(super) fn push(&self, ask: &Ask, mailbox: &Arc<Mailbox>) -> bool {
        let mut inner = self.inner.lock();
        if !self.is_open.load(Relaxed) {
            return false;
        }
        inner.came += 1;
        let place = inner.came;
        let question = Question { claim: ask.claim, mailbox: Arc::downgrade(mailbox), ticket: ask.ticket };
        inner.waiting.insert(place, question);
        inner.places.insert((Arc::as_ptr(mailbox).addr(), ask.ticket), place);
        true
    }

    /// Withdraws a question.
    pub(super) fn leave(&self, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        let mut inner = self.inner.lock();
        if let Some(place) = inner.places.remove(&(Arc::as_ptr(mailbox).addr(), ticket)) {
            inner.waiting.remove(&place);
        }
    }

    /// Returns true if questions wait from now on, and calls this mailbox when that is over.
    pub(super) fn call_when_released(&self, mailbox: &Arc<Mailbox>) -> bool {
        let mut inner = self.inner.lock();
        let is_open = self.is_open.load(Relaxed);
        if is_open {
            inner.callers.add(mailbox);
        }
        is_open
    }

    /// Ends the waiting. Returns the questions in the order in which they came, and the mailboxes to call when they are answered.
    pub(super) fn release(&self) -> (impl Iterator<Item = Question> + use<>, Vec<Weak<Mailbox>>) {
        let mut inner = self.inner.lock();
        self.is_open.store(false, Relaxed);
        let Inner { waiting, callers, .. } = std::mem::take(&mut *inner);
        (waiting.into_values(), callers.mailboxes.into_values().collect())
    }

    /// Returns the number of questions that wait.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().waiting.len()
    }
}
