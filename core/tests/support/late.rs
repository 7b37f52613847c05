//! A window that answers late and out of order, as one outside of the process would.
//!
//! Every question is `Pending` until the test says [`LateWindow::answer_next`]. The verdict comes from the [`LocalWindow`]
//! inside, and so do its guards: a reservation is settled there, and a `Verdict::InFlight` that comes by mail brings the
//! inner window's own [`Wait`] along, with the same ticket. The asker then holds that one, and what is final comes later
//! under the same ticket. The outer `Wait` is out of its queue by then: dropping it does not touch the inner queue.
//!
//! For one thread: with several, the final verdict might overtake the mail that says `InFlight`.

use hapax_core::window::{
    Ask, Claim, Event, ForgetCause, LocalWindow, Mailbox, Mode, Origin, OverdueCommit, Position, Remembered,
    Rules, TakeOver, Ticket, Turn, Verdict, Wait, Window, reserve_one,
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
    claim: Claim,
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
            let verdict = reserve_one(&self.inner, question.claim, now, &mailbox, question.ticket);
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

    fn warm(&self, claims: &[Claim]) {
        self.inner.warm(claims);
    }

    fn reserve(
        self: Arc<Self>,
        asks: &[Ask],
        _: Instant,
        mailbox: &Arc<Mailbox>,
        verdicts: &mut [Option<Verdict>],
    ) {
        for (ask, verdict) in asks.iter().zip(verdicts) {
            let Ask { claim, ticket } = *ask;
            self.locked().push(Question { claim, mailbox: Arc::downgrade(mailbox), ticket });
            *verdict = Some(Verdict::Pending(Wait::new(self.clone(), claim, mailbox.clone(), ticket)));
        }
    }

    fn overdue(
        self: Arc<Self>,
        claim: Claim,
        now: Instant,
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Verdict {
        self.leave(claim, mailbox, ticket);
        reserve_one(&self.inner, claim, now, mailbox, ticket)
    }

    fn commit(&self, claim: Claim, now: Instant, ttl: Duration) -> Remembered {
        self.inner.commit(claim, now, ttl)
    }

    fn commit_all(&self, commits: &[(Claim, Duration)], now: Instant) -> Remembered {
        self.inner.commit_all(commits, now)
    }

    fn commit_in_doubt(&self, claim: Claim, now: Instant, ttl: Duration) {
        self.inner.commit_in_doubt(claim, now, ttl);
    }

    fn remembered(&self) -> Position {
        self.inner.remembered()
    }

    fn tell_when(&self, position: Position, mailbox: &Arc<Mailbox>) {
        self.inner.tell_when(position, mailbox);
    }

    fn overdue_commit(&self, position: Position, now: Instant) -> OverdueCommit {
        self.inner.overdue_commit(position, now)
    }

    fn rollback(self: Arc<Self>, claim: Claim, turn: Turn, cause: ForgetCause) {
        self.inner.clone().rollback(claim, turn, cause);
    }

    fn take_over(
        self: Arc<Self>,
        claim: Claim,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver {
        self.inner.clone().take_over(claim, since, now, queued)
    }

    fn set_uploading(&self, claim: Claim, turn: Turn, uploading: bool) {
        self.inner.set_uploading(claim, turn, uploading);
    }

    fn waits_on(&self, claim: Claim, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool {
        self.inner.waits_on(claim, queued)
    }

    fn is_awaited(&self, claim: Claim, turn: Turn) -> bool {
        self.inner.is_awaited(claim, turn)
    }

    fn disown(&self, claim: Claim, now: Instant) {
        self.inner.disown(claim, now);
    }

    fn leave(&self, claim: Claim, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        self.locked().retain(|question| {
            question.claim != claim
                || question.ticket != ticket
                || question.mailbox.as_ptr() != Arc::as_ptr(mailbox)
        });
    }

    fn notice(&self, event: Event) {
        self.inner.notice(event);
    }

    fn wants_origin(&self, claim: Claim) -> bool {
        self.inner.wants_origin(claim)
    }

    fn note_origin(&self, origin: &Origin<'_>) {
        self.inner.note_origin(origin);
    }
}
