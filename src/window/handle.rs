//! A window as one session holds it.

use super::{
    Event, ForgetCause, Key, Listener, LocalWindow, Mailbox, Mode, Origin, Reservation, Rules, Ticket,
    Verdict, Window,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Every reservation counts a reference to its window, and gives it back. Were that the window itself, all sessions would
/// write to one count, which goes from core to core for every publish. So each session has a handle of its own, and counts
/// there.
#[derive(Debug)]
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

    fn reserve(self: Arc<Self>, key: Key, now: Instant, mailbox: &Arc<Mailbox>, ticket: Ticket) -> Verdict {
        self.0.judge(key, now, mailbox, ticket).verdict(self, key, mailbox, ticket)
    }

    fn handle(self: Arc<Self>) -> Arc<dyn Window> {
        Arc::new(Handle(Arc::clone(&self.0)))
    }

    fn warm(&self, keys: &[Key]) {
        self.0.warm(keys);
    }

    fn warm_commits(&self, keys: &[Key]) {
        self.0.warm_commits(keys);
    }

    fn commit(&self, key: Key, now: Instant, ttl: Duration) {
        self.0.commit(key, now, ttl);
    }

    fn commit_in_doubt(&self, key: Key, now: Instant, ttl: Duration) {
        self.0.commit_in_doubt(key, now, ttl);
    }

    fn rollback(self: Arc<Self>, key: Key, cause: ForgetCause) {
        if let Some((mailbox, ticket)) = self.0.pass_on(key, cause) {
            mailbox.deliver(ticket, Verdict::Fresh(Reservation::new(self, key)));
        }
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
