//! A window as one session holds it: the same window, with a reference count of its own.
//!
//! Each reservation holds its window. If all sessions held the same `Arc`, every publish of every thread would write to the
//! one cache line of its count, twice. A handle's count is written by its own session, and by whoever got a reservation that
//! this session had to give up.

use super::*;

/// See the module's doc. Aligned so that two of them share no cache line, nor the pair of lines that is fetched together.
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

    fn warm(&self, keys: &[Key]) {
        self.0.warm(keys);
    }

    fn warm_commits(&self, keys: &[Key]) {
        self.0.warm_commits(keys);
    }

    fn reserve(self: Arc<Self>, key: Key, now: Instant, mailbox: &Arc<Mailbox>, ticket: Ticket) -> Verdict {
        let judgement = self.0.ask(key, now, mailbox, ticket);
        judgement.verdict(self, key, mailbox, ticket)
    }

    fn commit(&self, key: Key, now: Instant, ttl: Duration) {
        self.0.commit(key, now, ttl);
    }

    fn commit_all(&self, commits: &[(Key, Duration)], now: Instant) {
        self.0.commit_all(commits, now);
    }

    fn commit_in_doubt(&self, key: Key, now: Instant, ttl: Duration) {
        self.0.commit_in_doubt(key, now, ttl);
    }

    fn rollback(self: Arc<Self>, key: Key, turn: Turn, cause: ForgetCause) {
        if let Some((mailbox, ticket, turn)) = self.0.pass_on(key, turn, cause) {
            mailbox.deliver(ticket, Verdict::Fresh(Reservation::new(self, key, turn)));
        }
    }

    fn take_over(
        self: Arc<Self>,
        key: Key,
        since: Instant,
        now: Instant,
        queued: Option<(&Arc<Mailbox>, Ticket)>,
    ) -> TakeOver {
        self.0.overtake(key, since, now, queued).result(self, key)
    }

    fn set_uploading(&self, key: Key, turn: Turn, uploading: bool) {
        self.0.set_uploading(key, turn, uploading);
    }

    fn waits_on(&self, key: Key, queued: Option<(&Arc<Mailbox>, Ticket)>) -> bool {
        self.0.waits_on(key, queued)
    }

    fn is_awaited(&self, key: Key, turn: Turn) -> bool {
        self.0.is_awaited(key, turn)
    }

    fn disown(&self, key: Key, now: Instant) {
        self.0.disown(key, now);
    }

    fn leave(&self, key: Key, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        self.0.leave(key, mailbox, ticket);
    }

    fn notice(&self, event: Event) {
        self.0.notice(event);
    }

    fn wants_origin(&self, key: Key) -> bool {
        self.0.wants_origin(key)
    }

    fn note_origin(&self, origin: &Origin<'_>) {
        self.0.note_origin(origin);
    }
}
