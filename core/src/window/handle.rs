//! A window as one session holds it: the same window, with a reference count of its own.
//!
//! Each reservation holds its window. If all sessions held the same `Arc`, every publish of every thread would write twice to the
//! one cache line of its count. The count of a handle is written by its own session, and by sessions that were given a reservation
//! which began with this one.

use super::table::Table;
use super::*;

/// A session's handle of a window. It is aligned so that two handles never share a cache line, nor the pair of lines that a processor
/// fetches together.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Handle<L: Listener + ?Sized>(pub(super) Arc<LocalWindow<L>>);

impl<L: Listener + ?Sized> Window for Handle<L> {
    fn rules(&self) -> &Rules {
        self.0.rules()
    }

    fn mode(&self) -> Mode {
        self.0.mode()
    }

    fn ttl(&self) -> Duration {
        self.0.ttl()
    }

    fn handle(self: Arc<Self>) -> Arc<dyn Window> {
        self
    }

    fn reserve(
        self: Arc<Self>,
        asks: &[Ask],
        now: Instant,
        mailbox: &Arc<Mailbox>,
        verdicts: &mut [Option<Verdict>],
    ) {
        Table::reserve(self, |handle| handle.0.table(), asks, now, mailbox, verdicts);
    }

    fn republish(self: Arc<Self>, claim: Claim, now: Instant) -> Republish {
        self.0.table().republish(claim, now).republish(self, claim)
    }

    fn overdue(
        self: Arc<Self>,
        claim: Claim,
        now: Instant,
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Verdict {
        reserve_one(&self, claim, now, mailbox, ticket)
    }

    fn supersede(
        self: Arc<Self>,
        ask: Ask,
        body: BodyDigest,
        now: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Verdict {
        Table::supersede(self, |handle| handle.0.table(), ask, body, now, mailbox)
    }

    fn is_refusing(&self, mailbox: &Arc<Mailbox>) -> bool {
        self.0.is_refusing(mailbox)
    }

    fn commit(&self, commit: Commit, now: Instant) -> Remembered {
        self.0.commit(commit, now)
    }

    fn commit_all(&self, commits: &[Commit], now: Instant) -> Remembered {
        self.0.commit_all(commits, now)
    }

    fn commit_in_doubt(&self, commit: Commit, now: Instant) {
        self.0.commit_in_doubt(commit, now);
    }

    fn remembered(&self) -> Position {
        self.0.remembered()
    }

    fn tell_when(&self, position: Position, mailbox: &Arc<Mailbox>) {
        self.0.tell_when(position, mailbox);
    }

    fn overdue_commit(&self, position: Position, now: Instant) -> OverdueCommit {
        self.0.overdue_commit(position, now)
    }

    fn rollback(self: Arc<Self>, claim: Claim, turn: Turn, cause: ForgetCause) {
        Table::rollback(self, |handle| handle.0.table(), claim, turn, cause);
    }

    fn take_over(
        self: Arc<Self>,
        claim: Claim,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver {
        self.0.table().take_over(claim, since, now, queued).result(self, claim)
    }

    fn set_uploading(&self, claim: Claim, turn: Turn, uploading: bool) {
        self.0.set_uploading(claim, turn, uploading);
    }

    fn waits_on(&self, claim: Claim, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool {
        self.0.waits_on(claim, queued)
    }

    fn is_awaited(&self, claim: Claim, turn: Turn) -> bool {
        self.0.is_awaited(claim, turn)
    }

    fn disown(&self, claim: Claim, now: Instant) {
        self.0.disown(claim, now);
    }

    fn release(&self, claim: Claim, now: Instant) {
        self.0.release(claim, now);
    }

    fn leave(&self, claim: Claim, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        self.0.leave(claim, mailbox, ticket);
    }

    fn crowd(&self, claim: Claim) {
        self.0.crowd(claim);
    }

    fn notice(&self, event: Event) {
        self.0.notice(event);
    }

    fn wants_origin(&self, claim: Claim) -> bool {
        self.0.wants_origin(claim)
    }

    fn note_origin(&self, origin: &Origin<'_>) {
        self.0.note_origin(origin);
    }

    fn wants_producer(&self, claim: Claim) -> bool {
        self.0.wants_producer(claim)
    }

    fn note_producer(&self, claim: Claim, name: &[u8]) {
        self.0.note_producer(claim, name);
    }

    fn wants_names(&self) -> bool {
        self.0.wants_names()
    }

    fn note_names(&self, names: &[&[u8]]) {
        self.0.note_names(names);
    }

    fn note_tenant(&self, tenant: Tenant, name: &str) {
        self.0.note_tenant(tenant, name);
    }
}
