//! Checks who asks a window: only a client that the broker has let in, and only about an exchange to which the broker
//! has let this user publish.
//!
//! The sessions of a run get every window behind a [`Gate`], which knows the exchange and looks at each question.

use super::truth::LinkId;
use hapax_core::window::{
    Ask, BodyDigest, Claim, Commit, Event, ForgetCause, Mailbox, Mode, Origin, OverdueCommit, Position,
    Remembered, Republish, Rules, TakeOver, Ticket, Turn, Verdict, Window,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The rights that the broker has shown so far.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// whose mailbox: its connection, its user
    mailboxes: BTreeMap<usize, (LinkId, &'static str)>,
    /// connections to which the broker has said `connection.open-ok`
    open: BTreeSet<LinkId>,
    /// user, exchange: the broker has taken a message, or would have
    shown: BTreeSet<(&'static str, String)>,
    wrong: Option<String>,
}

impl Watch {
    fn locked(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session of this user has begun.
    pub fn begun(&self, mailbox: &Arc<Mailbox>, link: LinkId, user: &'static str) {
        self.locked().mailboxes.insert(Arc::as_ptr(mailbox) as usize, (link, user));
    }

    /// The broker has let somebody in.
    pub fn let_in(&self, link: LinkId) {
        self.locked().open.insert(link);
    }

    /// The broker has let a user publish.
    pub fn shown(&self, user: &'static str, exchange: &str) {
        let mut seen = self.locked();
        if !seen.shown.contains(&(user, exchange.to_owned())) {
            seen.shown.insert((user, exchange.to_owned()));
        }
    }

    /// Returns the first question that should not have been asked.
    pub fn wrong(&self) -> Option<String> {
        self.locked().wrong.take()
    }

    fn asked(&self, mailbox: &Arc<Mailbox>, exchange: &str) {
        let mut seen = self.locked();
        let Some((link, user)) = seen.mailboxes.get(&(Arc::as_ptr(mailbox) as usize)).copied() else {
            return;
        };
        if !seen.open.contains(&link) {
            let text = format!("link {link}: a window is asked for {user}, who has not been let in");
            seen.wrong.get_or_insert(text);
        } else if !seen.shown.contains(&(user, exchange.to_owned())) {
            let text = format!(
                "link {link}: a window is asked for {user}, who is not known to have a right at {exchange}"
            );
            seen.wrong.get_or_insert(text);
        }
    }
}

/// A window as one exchange sees it. Its reservations are settled at the window itself.
#[derive(Debug)]
pub struct Gate {
    /// the window
    pub window: Arc<dyn Window>,
    /// where a right is needed: the exchange that the broker will see
    pub exchange: &'static str,
    /// who may ask
    pub watch: Arc<Watch>,
}

impl Window for Gate {
    fn handle(self: Arc<Self>) -> Arc<dyn Window> {
        self
    }
    fn rules(&self) -> &Rules {
        self.window.rules()
    }
    fn mode(&self) -> Mode {
        self.window.mode()
    }
    fn ttl(&self) -> Duration {
        self.window.ttl()
    }
    fn reserve(
        self: Arc<Self>,
        asks: &[Ask],
        now: Instant,
        mailbox: &Arc<Mailbox>,
        verdicts: &mut [Option<Verdict>],
    ) {
        asks.iter().for_each(|_| self.watch.asked(mailbox, self.exchange));
        self.window.clone().reserve(asks, now, mailbox, verdicts);
    }

    fn republish(self: Arc<Self>, claim: Claim, now: Instant) -> Republish {
        self.window.clone().republish(claim, now)
    }

    fn overdue(
        self: Arc<Self>,
        claim: Claim,
        now: Instant,
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Verdict {
        self.watch.asked(mailbox, self.exchange);
        self.window.clone().overdue(claim, now, mailbox, ticket)
    }

    fn supersede(
        self: Arc<Self>,
        ask: Ask,
        body: BodyDigest,
        now: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Verdict {
        self.watch.asked(mailbox, self.exchange);
        self.window.clone().supersede(ask, body, now, mailbox)
    }

    fn commit(&self, commit: Commit, now: Instant) -> Remembered {
        self.window.commit(commit, now)
    }

    fn commit_all(&self, commits: &[Commit], now: Instant) -> Remembered {
        self.window.commit_all(commits, now)
    }

    fn commit_in_doubt(&self, commit: Commit, now: Instant) {
        self.window.commit_in_doubt(commit, now);
    }

    fn is_refusing(&self, mailbox: &Arc<Mailbox>) -> bool {
        self.window.is_refusing(mailbox)
    }

    fn remembered(&self) -> Position {
        self.window.remembered()
    }

    fn tell_when(&self, position: Position, mailbox: &Arc<Mailbox>) {
        self.window.tell_when(position, mailbox);
    }

    fn overdue_commit(&self, position: Position, now: Instant) -> OverdueCommit {
        self.window.overdue_commit(position, now)
    }

    fn rollback(self: Arc<Self>, claim: Claim, turn: Turn, cause: ForgetCause) {
        self.window.clone().rollback(claim, turn, cause);
    }

    fn take_over(
        self: Arc<Self>,
        claim: Claim,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver {
        self.window.clone().take_over(claim, since, now, queued)
    }

    fn set_uploading(&self, claim: Claim, turn: Turn, uploading: bool) {
        self.window.set_uploading(claim, turn, uploading);
    }

    fn waits_on(&self, claim: Claim, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool {
        self.window.waits_on(claim, queued)
    }

    fn is_awaited(&self, claim: Claim, turn: Turn) -> bool {
        self.window.is_awaited(claim, turn)
    }

    fn disown(&self, claim: Claim, now: Instant) {
        self.window.disown(claim, now);
    }

    fn release(&self, claim: Claim, now: Instant) {
        self.window.release(claim, now);
    }

    fn leave(&self, claim: Claim, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        self.window.leave(claim, mailbox, ticket);
    }

    fn crowd(&self, claim: Claim) {
        self.window.crowd(claim);
    }

    fn notice(&self, event: Event) {
        self.window.notice(event);
    }

    fn wants_origin(&self, claim: Claim) -> bool {
        self.window.wants_origin(claim)
    }

    fn note_origin(&self, origin: &Origin<'_>) {
        self.window.note_origin(origin);
    }

    fn wants_producer(&self, claim: Claim) -> bool {
        self.window.wants_producer(claim)
    }

    fn note_producer(&self, claim: Claim, name: &[u8]) {
        self.window.note_producer(claim, name);
    }

    fn wants_names(&self) -> bool {
        self.window.wants_names()
    }

    fn note_names(&self, names: &[&[u8]]) {
        self.window.note_names(names);
    }

    fn note_tenant(&self, tenant: hapax_core::window::Tenant, name: &str) {
        self.window.note_tenant(tenant, name);
    }
}
