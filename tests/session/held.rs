//! Publishes that wait for the proof of a right: nothing of them is lost, and none waits for ever.

use super::desk::{Desk, m};
use crate::support::pair::Pair;
use crate::support::probe::{asks, ends, may};
use hapax::window::{
    Event, ForgetCause, Key, LocalWindow, Mailbox, Mode, Rules, TakeOver, Ticket, Turn, Verdict,
    Window,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A window that lets something happen while it is asked for its rules, as another thread might at that moment.
#[derive(Debug)]
struct Interrupted {
    inner: Arc<LocalWindow>,
    /// Another connection, which hears from the broker then.
    other: Mutex<Option<Pair>>,
    /// Calls of `rules` before that.
    rules: AtomicUsize,
    /// Calls of `mode` until it says "off", counted down.
    modes: AtomicUsize,
}

impl Window for Interrupted {
    fn rules(&self) -> &Rules {
        let left = self.rules.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_err()
            && let Some(mut other) = self.other.try_lock().ok().and_then(|mut other| other.take())
        {
            other.upstream(may());
        }
        self.inner.rules()
    }

    fn mode(&self) -> Mode {
        let left = self.modes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() { self.inner.mode() } else { Mode::Off }
    }

    fn ttl(&self) -> Duration {
        self.inner.ttl()
    }

    fn reserve(self: Arc<Self>, key: Key, now: Instant, mailbox: &Arc<Mailbox>, ticket: Ticket) -> Verdict {
        self.inner.clone().reserve(key, now, mailbox, ticket)
    }

    fn commit(&self, key: Key, now: Instant, ttl: Duration) {
        self.inner.commit(key, now, ttl);
    }

    fn rollback(self: Arc<Self>, key: Key, turn: Turn, cause: ForgetCause) {
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
        self.inner.leave(key, mailbox, ticket);
    }

    fn notice(&self, event: Event) {
        self.inner.notice(event);
    }
}

/// The window, and a desk around it.
fn interrupted() -> (Arc<Interrupted>, Desk) {
    let mut made = None;
    let desk = Desk::around(
        |_| (),
        |inner| {
            let window = Arc::new(Interrupted {
                inner,
                other: Mutex::default(),
                rules: AtomicUsize::new(0),
                modes: AtomicUsize::new(usize::MAX),
            });
            made = Some(window.clone());
            window
        },
    );
    (made.unwrap(), desk)
}

/// Two connections of one user have asked for the same right, and the answer of one comes between the other's look and its
/// question.
#[test]
fn p09_rights_that_another_connection_proves_at_that_very_moment_are_waited_for_by_nobody() {
    for calls in 0..8 {
        let (window, desk) = interrupted();
        let mut other = desk.confirming();
        other.client(m("b").publish(1));
        assert_eq!(other.to_upstream(), asks(&[("x", "k")]));
        let mut pair = desk.confirming();
        *window.other.lock().unwrap() = Some(other);
        window.rules.store(calls, Ordering::Relaxed);
        pair.client(m("a").publish(1));
        if window.other.lock().unwrap().is_some() {
            // It is not asked so often before the question.
            assert!(calls > 3 && pair.to_upstream() == asks(&[("x", "k")]), "{calls}");
            continue;
        }
        assert_eq!(pair.to_upstream(), m("a").publish(1), "{calls}");
    }
}

/// The operator switches the window off between the look at it and the question about rights.
#[test]
fn p09_rights_of_a_window_that_is_switched_off_at_that_very_moment_are_not_needed() {
    for calls in 0..12 {
        let (window, desk) = interrupted();
        let mut pair = desk.confirming();
        window.modes.store(calls, Ordering::Relaxed);
        pair.client(m("a").publish(1));
        window.modes.store(usize::MAX, Ordering::Relaxed);
        let mut sent = pair.to_upstream();
        if sent == asks(&[("x", "k")]) {
            pair.upstream(may());
            sent = pair.to_upstream();
            assert_eq!(sent, m("a").publish(1) + ends(), "{calls}");
            continue;
        }
        assert_eq!(sent, m("a").publish(1), "{calls}");
    }
}
