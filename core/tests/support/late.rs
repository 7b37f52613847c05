//! A window that answers late, as one with a store outside of the process would: verdicts and commits come in any order, late,
//! twice, or never.
//!
//! The test decides when. A question is `Pending` until the test says [`LateWindow::answer_next`]. The verdict comes from the
//! [`LocalWindow`] inside, which keeps what is in flight. Its mail comes to a mailbox of this window, and goes on to the session
//! that has asked.
//!
//! A commit is written to a log. Its id stays in flight in the inner window until the test says [`LateWindow::remember`].
//!
//! For one thread: with several, the final verdict might overtake the mail that says `InFlight`.

#![allow(dead_code, reason = "each test binary uses its own part of it")]
#![allow(clippy::expect_used, clippy::panic, reason = "that is how a test fails")]

use hapax_core::window::{
    Ask, BodyDigest, Claim, Commit, Event, ForgetCause, LocalWindow, Mailbox, Mode, Origin, OverdueCommit,
    Position, Remembered, Republish, Rules, TakeOver, Ticket, Turn, Verdict, Wait, Window, reserve_one,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The settings of a late window: what is late, and what the window does while its store is silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Late {
    /// questions are answered later
    pub(crate) verdicts: bool,
    /// commits are remembered later
    pub(crate) commits: bool,
    /// It waits on for a silent store. Otherwise it judges by its memory, and lets the client be acked.
    pub(crate) waits_on: bool,
}

/// How often which of the unusual things has happened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tally {
    /// verdicts that came by mail
    pub(crate) late_verdicts: u64,
    /// second verdicts for a question
    pub(crate) second_verdicts: u64,
    /// verdicts for questions that were withdrawn
    pub(crate) stale_verdicts: u64,
    /// questions that were overdue
    pub(crate) overdue_verdicts: u64,
    /// commits that were remembered later
    pub(crate) late_commits: u64,
    /// commits that were overdue, and of which the client was told all the same
    pub(crate) acked_anyway: u64,
    /// questions and commits that were overdue, and for which the session waits on
    pub(crate) waited_on: u64,
}

/// A window whose store answers when the test says so.
#[derive(Debug)]
pub(crate) struct LateWindow {
    me: Weak<LateWindow>,
    inner: Arc<LocalWindow>,
    late: Late,
    /// the inner window's mail
    mailbox: Arc<Mailbox>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    questions: Vec<Question>,
    /// Questions that were withdrawn. Their verdicts may be on their way.
    withdrawn: VecDeque<(Weak<Mailbox>, Ticket)>,
    /// Commits that are not remembered, and not told to anybody.
    log: VecDeque<Logged>,
    /// When the commits of the past were remembered, by their claims and their moments.
    history: BTreeMap<(Claim, Instant), Instant>,
    written: u64,
    remembered: u64,
    /// The mailboxes to call, and at which position.
    calls: BTreeMap<(Position, u64), Weak<Mailbox>>,
    /// the waiters of the inner window by the tickets that it knows, and these tickets by mailbox and own ticket
    waiters: BTreeMap<Ticket, Waiter>,
    tickets: BTreeMap<(usize, Ticket), Ticket>,
    drawn: u64,
    tally: Tally,
}

#[derive(Debug)]
struct Waiter {
    mailbox: Weak<Mailbox>,
    ticket: Ticket,
    /// the place in the inner window
    wait: Wait,
}

#[derive(Debug)]
struct Question {
    claim: Claim,
    mailbox: Weak<Mailbox>,
    ticket: Ticket,
    /// It is never answered.
    silent: bool,
}

#[derive(Debug)]
struct Logged {
    position: u64,
    commit: Commit,
    at: Instant,
    disowned: bool,
}

impl LateWindow {
    /// A window whose verdicts are late, over this one, which can be used beside it.
    pub(crate) fn new(inner: Arc<LocalWindow>) -> Arc<LateWindow> {
        LateWindow::with(inner, Late { verdicts: true, commits: false, waits_on: false })
    }

    /// A window of which this is late.
    pub(crate) fn with(inner: Arc<LocalWindow>, late: Late) -> Arc<LateWindow> {
        let mailbox = Arc::new(Mailbox::new());
        Arc::new_cyclic(|me| LateWindow { me: me.clone(), inner, late, mailbox, state: Mutex::default() })
    }

    /// Questions that wait for an answer.
    pub(crate) fn questions(&self) -> usize {
        self.locked().questions.len()
    }

    /// Commits that wait until they are remembered.
    pub(crate) fn unremembered(&self) -> usize {
        self.locked().log.len()
    }

    /// Whether the commit of this claim at this moment waits until it is remembered.
    pub(crate) fn is_unremembered(&self, claim: Claim, at: Instant) -> bool {
        self.locked().log.iter().any(|logged| logged.commit.claim == claim && logged.at == at)
    }

    /// Whether the commit of this claim at this moment was remembered only after another moment, or still waits.
    pub(crate) fn was_unremembered(&self, claim: Claim, at: Instant, then: Instant) -> bool {
        let remembered = self.locked().history.get(&(claim, at)).copied();
        remembered.is_some_and(|remembered| remembered >= then) || self.is_unremembered(claim, at)
    }

    /// How often which of the unusual things has happened.
    pub(crate) fn tally(&self) -> Tally {
        self.locked().tally
    }

    /// The tickets of the questions that wait for an answer, oldest first.
    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        self.locked().questions.iter().map(|question| question.ticket).collect()
    }

    /// Asks a question for somebody, who holds the guard.
    pub(crate) fn ask_for(&self, claim: Claim, ticket: Ticket, mailbox: &Arc<Mailbox>) -> Wait {
        match self.me().ask(Ask { claim, ticket }, mailbox) {
            Verdict::Pending(wait) => wait,
            other => panic!("not pending: {other:?}"),
        }
    }

    /// Answers one of them, the oldest for 0, any for any other number; false if there is none.
    pub(crate) fn answer_next(&self, pick: usize, now: Instant) -> bool {
        self.answer(pick, now, false)
    }

    /// The same, and once more: the second answer is wrong.
    pub(crate) fn answer_twice(&self, pick: usize, now: Instant) -> bool {
        self.answer(pick, now, true)
    }

    fn answer(&self, pick: usize, now: Instant, twice: bool) -> bool {
        let question = {
            let mut state = self.locked();
            let open: Vec<usize> =
                (0..state.questions.len()).filter(|at| !state.questions[*at].silent).collect();
            if open.is_empty() {
                return false;
            }
            state.tally.late_verdicts += 1;
            state.questions.remove(open[pick % open.len()])
        };
        if let Some(mailbox) = question.mailbox.upgrade() {
            let verdict = self.judge(question.claim, now, &mailbox, question.ticket);
            let second = match &verdict {
                Verdict::Fresh(_) => Some(Verdict::Duplicate(BodyDigest::UNKNOWN)),
                Verdict::Duplicate(_) => Some(Verdict::Crowded),
                Verdict::Refused(_) | Verdict::InFlight(_) | Verdict::Crowded | Verdict::Pending(_) => None,
            };
            mailbox.deliver(question.ticket, verdict);
            if let Some(second) = second.filter(|_| twice) {
                self.locked().tally.second_verdicts += 1;
                mailbox.deliver(question.ticket, second);
            }
        }
        true
    }

    /// One of the questions is never answered; false if there is none.
    pub(crate) fn silence(&self, pick: usize) -> bool {
        let mut state = self.locked();
        let many = state.questions.len();
        let question = state.questions.get_mut(pick.checked_rem(many).unwrap_or_default());
        question.map(|question| question.silent = true).is_some()
    }

    /// The store answers a question that was withdrawn, wrongly; false if there is none.
    pub(crate) fn answer_withdrawn(&self) -> bool {
        let Some((mailbox, ticket)) = self.locked().withdrawn.pop_front() else { return false };
        if let Some(mailbox) = mailbox.upgrade() {
            self.locked().tally.stale_verdicts += 1;
            mailbox.deliver(ticket, Verdict::Duplicate(BodyDigest::UNKNOWN));
        }
        true
    }

    /// Writes the log further, so that this many more commits are remembered. Calls those who want to know.
    pub(crate) fn remember(&self, commits: usize, now: Instant) {
        for _ in 0..commits {
            let Some(position) = self.locked().log.front().map(|logged| logged.position) else { return };
            self.write_to(position, now);
        }
    }

    /// The same, but nobody is called: they find out by themselves.
    pub(crate) fn remember_silently(&self, now: Instant) {
        self.locked().calls.clear();
        self.remember(usize::MAX, now);
    }

    /// Calls everybody, though nothing is remembered.
    pub(crate) fn call_in_vain(&self) {
        let calls: Vec<_> = self.locked().calls.values().filter_map(Weak::upgrade).collect();
        calls.into_iter().for_each(|mailbox| mailbox.call());
    }

    /// All commits up to here are remembered.
    fn write_to(&self, position: u64, now: Instant) {
        let due = {
            let mut state = self.locked();
            state.remembered = state.remembered.max(position);
            let later = state.calls.split_off(&(Position(position + 1), 0));
            std::mem::replace(&mut state.calls, later)
        };
        let written = self.let_through(position, now);
        self.locked().tally.late_commits += written;
        self.pass_mail();
        due.values().filter_map(Weak::upgrade).for_each(|mailbox| mailbox.call());
    }

    /// The inner window learns of the commits up to here. Returns how many there were. (Its mail is passed on later.)
    fn let_through(&self, position: u64, now: Instant) -> u64 {
        let mut count = 0;
        loop {
            let next = self.locked().log.pop_front_if(|logged| logged.position <= position);
            let Some(Logged { commit, at, disowned, .. }) = next else { return count };
            let claim = commit.claim;
            count += 1;
            self.locked().history.insert((claim, at), now);
            let _ = self.inner.commit(commit, at);
            if disowned {
                self.inner.disown(claim, at);
            }
        }
    }

    /// Returns the verdict of the inner window, with guards of this window.
    fn judge(&self, claim: Claim, now: Instant, mailbox: &Arc<Mailbox>, ticket: Ticket) -> Verdict {
        let inner = |ask: Ask| reserve_one(&self.inner, ask.claim, now, &self.mailbox, ask.ticket);
        self.judge_by(inner, Ask { claim, ticket }, mailbox)
    }

    fn judge_by(
        &self,
        inner: impl FnOnce(Ask) -> Verdict,
        Ask { claim, ticket }: Ask,
        mailbox: &Arc<Mailbox>,
    ) -> Verdict {
        let own = {
            let mut state = self.locked();
            state.drawn += 1;
            Ticket(state.drawn)
        };
        match inner(Ask { claim, ticket: own }) {
            Verdict::Fresh(reservation) => Verdict::Fresh(reservation.through(self.me())),
            Verdict::InFlight(wait) => {
                let mut state = self.locked();
                state.tickets.insert((Arc::as_ptr(mailbox) as usize, ticket), own);
                state.waiters.insert(own, Waiter { mailbox: Arc::downgrade(mailbox), ticket, wait });
                Verdict::InFlight(Wait::new(self.me(), claim, mailbox.clone(), ticket))
            }
            verdict @ (Verdict::Duplicate(_)
            | Verdict::Refused(_)
            | Verdict::Crowded
            | Verdict::Pending(_)) => verdict,
        }
    }

    /// Passes the inner window's mail on.
    fn pass_mail(&self) {
        loop {
            let mail = self.mailbox.take();
            if mail.is_empty() {
                return;
            }
            for (own, verdict) in mail {
                let verdict = match verdict {
                    Verdict::Fresh(reservation) => Verdict::Fresh(reservation.through(self.me())),
                    verdict => verdict,
                };
                match self.take_waiter(own) {
                    Some((Some(mailbox), ticket)) => mailbox.deliver(ticket, verdict),
                    Some((None, _)) | None => {
                        if let Verdict::Fresh(reservation) = verdict {
                            reservation.forget(ForgetCause::ChannelClosed);
                        }
                    }
                }
            }
        }
    }

    fn take_waiter(&self, own: Ticket) -> Option<(Option<Arc<Mailbox>>, Ticket)> {
        let mut state = self.locked();
        let Waiter { mailbox, ticket, wait } = state.waiters.remove(&own)?;
        state.tickets.remove(&(mailbox.as_ptr() as usize, ticket));
        drop(state);
        wait.answered();
        Some((mailbox.upgrade(), ticket))
    }

    /// The ticket by which the inner window knows a waiter.
    fn ticket_of(&self, (mailbox, ticket): (&Arc<Mailbox>, Ticket)) -> Option<Ticket> {
        self.locked().tickets.get(&(Arc::as_ptr(mailbox) as usize, ticket)).copied()
    }

    fn me(&self) -> Arc<LateWindow> {
        self.me.upgrade().expect("it is there while it is called")
    }

    fn is_stored(&self, claim: Claim) -> bool {
        self.locked().log.iter().any(|logged| logged.commit.claim == claim)
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(self: Arc<Self>, Ask { claim, ticket }: Ask, mailbox: &Arc<Mailbox>) -> Verdict {
        let question = Question { claim, mailbox: Arc::downgrade(mailbox), ticket, silent: false };
        self.locked().questions.push(question);
        Verdict::Pending(Wait::new(self, claim, mailbox.clone(), ticket))
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

    fn reserve(
        self: Arc<Self>,
        asks: &[Ask],
        now: Instant,
        mailbox: &Arc<Mailbox>,
        verdicts: &mut [Option<Verdict>],
    ) {
        for (ask, verdict) in asks.iter().zip(verdicts) {
            *verdict = Some(match self.late.verdicts {
                true => self.clone().ask(*ask, mailbox),
                false => self.judge(ask.claim, now, mailbox, ask.ticket),
            });
        }
    }

    fn republish(self: Arc<Self>, claim: Claim, now: Instant) -> Republish {
        let Republish { reservation, beside, forgotten } = self.inner.clone().republish(claim, now);
        Republish { reservation: reservation.through(self), beside, forgotten }
    }

    fn overdue(
        self: Arc<Self>,
        claim: Claim,
        now: Instant,
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Verdict {
        self.locked().tally.overdue_verdicts += 1;
        if self.late.waits_on {
            self.locked().tally.waited_on += 1;
            return self.ask(Ask { claim, ticket }, mailbox);
        }
        self.judge(claim, now, mailbox, ticket)
    }

    fn supersede(
        self: Arc<Self>,
        ask: Ask,
        body: BodyDigest,
        now: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Verdict {
        let inner = |ask| self.inner.clone().supersede(ask, body, now, &self.mailbox);
        self.judge_by(inner, ask, mailbox)
    }

    fn is_refusing(&self, _: &Arc<Mailbox>) -> bool {
        false
    }

    fn commit(&self, commit: Commit, now: Instant) -> Remembered {
        self.commit_all(&[commit], now)
    }

    fn commit_all(&self, commits: &[Commit], now: Instant) -> Remembered {
        if !self.late.commits {
            let remembered = self.inner.commit_all(commits, now);
            self.pass_mail();
            return remembered;
        }
        let mut state = self.locked();
        state.written += 1;
        let position = state.written;
        for commit in commits {
            state.log.push_back(Logged { position, commit: *commit, at: now, disowned: false });
        }
        Remembered::At(Position(position))
    }

    fn commit_in_doubt(&self, commit: Commit, now: Instant) {
        self.inner.commit_in_doubt(commit, now);
        self.pass_mail();
    }

    fn remembered(&self) -> Position {
        Position(self.locked().remembered)
    }

    fn tell_when(&self, position: Position, mailbox: &Arc<Mailbox>) {
        let mut state = self.locked();
        if state.remembered >= position.0 {
            drop(state);
            return mailbox.call();
        }
        state.drawn += 1;
        let number = state.drawn;
        state.calls.insert((position, number), Arc::downgrade(mailbox));
    }

    fn overdue_commit(&self, Position(position): Position, now: Instant) -> OverdueCommit {
        if self.late.waits_on {
            self.locked().tally.waited_on += 1;
            return OverdueCommit::WaitOn;
        }
        let acked = self.let_through(position, now);
        self.pass_mail();
        self.locked().tally.acked_anyway += acked;
        OverdueCommit::AckAnyway
    }

    fn rollback(self: Arc<Self>, claim: Claim, turn: Turn, cause: ForgetCause) {
        self.inner.clone().rollback(claim, turn, cause);
        self.pass_mail();
    }

    fn take_over(
        self: Arc<Self>,
        claim: Claim,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver {
        // It is stored: a copy must not be.
        if self.is_stored(claim) {
            return TakeOver::Wait { since: now };
        }
        let own = queued.map(|waiter| self.ticket_of(waiter));
        let taken = match own {
            // Its verdict has been passed on.
            Some(None) => return TakeOver::Answered,
            Some(Some(own)) => self.inner.clone().take_over(claim, since, now, Some((&self.mailbox, own))),
            None => self.inner.clone().take_over(claim, since, now, None),
        };
        match taken {
            TakeOver::Granted(reservation) => {
                own.flatten().map(|own| self.take_waiter(own));
                TakeOver::Granted(reservation.through(self))
            }
            other => other,
        }
    }

    fn set_uploading(&self, claim: Claim, turn: Turn, uploading: bool) {
        self.inner.set_uploading(claim, turn, uploading);
    }

    fn waits_on(&self, claim: Claim, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool {
        match queued.map(|waiter| self.ticket_of(waiter)) {
            _ if self.is_stored(claim) => true,
            Some(None) => true,
            Some(Some(own)) => self.inner.waits_on(claim, Some((&self.mailbox, own))),
            None => self.inner.waits_on(claim, None),
        }
    }

    fn is_awaited(&self, claim: Claim, turn: Turn) -> bool {
        self.inner.is_awaited(claim, turn)
    }

    fn disown(&self, claim: Claim, now: Instant) {
        for logged in self.locked().log.iter_mut().filter(|logged| logged.commit.claim == claim) {
            logged.disowned = true;
        }
        self.inner.disown(claim, now);
    }

    fn release(&self, claim: Claim, now: Instant) {
        for logged in self.locked().log.iter_mut().filter(|logged| logged.commit.claim == claim) {
            logged.disowned = true;
        }
        self.inner.release(claim, now);
    }

    fn leave(&self, claim: Claim, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        let mut state = self.locked();
        let before = state.questions.len();
        state.questions.retain(|question| {
            question.claim != claim
                || question.ticket != ticket
                || question.mailbox.as_ptr() != Arc::as_ptr(mailbox)
        });
        if state.questions.len() < before {
            state.withdrawn.push_back((Arc::downgrade(mailbox), ticket));
            state.withdrawn.truncate(100);
        }
        let own = state.tickets.remove(&(Arc::as_ptr(mailbox) as usize, ticket));
        let waiter = own.and_then(|own| state.waiters.remove(&own));
        drop(state);
        drop(waiter);
    }

    fn crowd(&self, claim: Claim) {
        self.inner.crowd(claim);
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

    fn wants_producer(&self, claim: Claim) -> bool {
        self.inner.wants_producer(claim)
    }

    fn note_producer(&self, claim: Claim, name: &[u8]) {
        self.inner.note_producer(claim, name);
    }

    fn wants_names(&self) -> bool {
        self.inner.wants_names()
    }

    fn note_names(&self, names: &[&[u8]]) {
        self.inner.note_names(names);
    }

    fn note_tenant(&self, tenant: hapax_core::window::Tenant, name: &str) {
        self.inner.note_tenant(tenant, name);
    }
}
