//! A window that answers late and out of order, as one outside of the process would.
//!
//! Every question is `Pending` until the test says [`LateWindow::answer_next`]. The verdict comes from the [`LocalWindow`]
//! inside, and so do its guards: a reservation is settled there, and a `Verdict::InFlight` that comes by mail brings the
//! inner window's own [`Wait`] along, with the same ticket. The asker then holds that one, and what is final comes later
//! under the same ticket. The outer `Wait` is out of its queue by then: dropping it does not touch the inner queue.
//!
//! For one thread: with several, the final verdict might overtake the mail that says `InFlight`.

use hapax_core::window::{
    Event, Key, LocalWindow, Mailbox, Mode, Rules, TakeOver, Ticket, Turn, Verdict, Wait, Window,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// See the module's doc.
#[derive(Debug)]
pub(crate) struct LateWindow {
    inner: Arc<LocalWindow>,
    questions: Mutex<Vec<Question>>,
}

#[derive(Debug)]
struct Question {
    key: Key,
    mailbox: Weak<Mailbox>,
    ticket: Ticket,
}

impl LateWindow {
    /// Over this one, which can be used beside it.
    pub(crate) fn new(inner: Arc<LocalWindow>) -> Arc<LateWindow> {
        Arc::new(LateWindow { inner, questions: Mutex::default() })
    }

    /// Questions that wait for an answer.
    pub(crate) fn questions(&self) -> usize {
        self.locked().len()
    }

    /// Answers one of them, the oldest for 0, any for any other number; false if there is none.
    pub(crate) fn answer_next(&self, pick: usize, now: Instant) -> bool {
        let question = {
            let mut questions = self.locked();
            if questions.is_empty() {
                return false;
            }
            let index = pick % questions.len();
            questions.remove(index)
        };
        if let Some(mailbox) = question.mailbox.upgrade() {
            let verdict = self.inner.clone().reserve(question.key, now, &mailbox, question.ticket);
            mailbox.deliver(question.ticket, verdict);
        }
        true
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Question>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window for LateWindow {
    fn handle(self: Arc<Self>) -> Arc<dyn Window> {
        self
    }

    fn rules(&self) -> &Rules {
        self.inner.rules()
    }

    fn mode(&self) -> Mode {
        self.inner.mode()
    }

    fn ttl(&self) -> Duration {
        self.inner.ttl()
    }

    fn reserve(self: Arc<Self>, key: Key, _: Instant, mailbox: &Arc<Mailbox>, ticket: Ticket) -> Verdict {
        self.locked().push(Question { key, mailbox: Arc::downgrade(mailbox), ticket });
        Verdict::Pending(Wait::new(self, key, mailbox.clone(), ticket))
    }

    fn commit(&self, key: Key, now: Instant, ttl: Duration) {
        self.inner.commit(key, now, ttl);
    }

    fn commit_in_doubt(&self, key: Key, now: Instant, ttl: Duration) {
        self.inner.commit_in_doubt(key, now, ttl);
    }

    fn rollback(self: Arc<Self>, key: Key, turn: Turn, cause: hapax_core::window::ForgetCause) {
        self.inner.clone().rollback(key, turn, cause);
    }

    fn take_over(
        self: Arc<Self>,
        key: Key,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver {
        self.inner.clone().take_over(key, since, now, queued)
    }

    fn set_uploading(&self, key: Key, turn: Turn, uploading: bool) {
        self.inner.set_uploading(key, turn, uploading);
    }

    fn waits_on(&self, key: Key, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool {
        self.inner.waits_on(key, queued)
    }

    fn is_awaited(&self, key: Key, turn: Turn) -> bool {
        self.inner.is_awaited(key, turn)
    }

    fn disown(&self, key: Key, now: Instant) {
        self.inner.disown(key, now);
    }

    fn leave(&self, key: Key, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        self.locked().retain(|question| {
            question.key != key
                || question.ticket != ticket
                || question.mailbox.as_ptr() != Arc::as_ptr(mailbox)
        });
    }

    fn notice(&self, event: Event) {
        self.inner.notice(event);
    }
}
