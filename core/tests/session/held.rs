//! Publishes that wait for the proof of a right: nothing of them is lost, and none waits for ever.

use super::desk::{Desk, SECOND, confirm, m, two};
use crate::support::cost::assert_linear;
use crate::support::frames::{Frames, message};
use crate::support::methods::{ack, channel_close, channel_close_ok, connection_close};
use crate::support::pair::Pair;
use crate::support::probe::{ANY, OWN, asks, ends, may, refused};
use hapax_core::window::{
    Ask, BodyDigest, Claim, Commit, Event, ForgetCause, LocalWindow, Mailbox, Mode, Origin, OverdueCommit,
    Position, Remembered, Republish, Rules, Scope, TakeOver, Ticket, Turn, Verdict, Window,
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
        self.inner.clone().reserve(asks, now, mailbox, verdicts);
    }

    fn republish(self: Arc<Self>, claim: Claim, now: Instant) -> Republish {
        self.inner.clone().republish(claim, now)
    }

    fn overdue(
        self: Arc<Self>,
        claim: Claim,
        now: Instant,
        mailbox: &Arc<Mailbox>,
        ticket: Ticket,
    ) -> Verdict {
        self.inner.clone().overdue(claim, now, mailbox, ticket)
    }

    fn supersede(
        self: Arc<Self>,
        ask: Ask,
        body: BodyDigest,
        now: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> Verdict {
        self.inner.clone().supersede(ask, body, now, mailbox)
    }

    fn commit(&self, commit: Commit, now: Instant) -> Remembered {
        self.inner.commit(commit, now)
    }

    fn commit_all(&self, commits: &[Commit], now: Instant) -> Remembered {
        self.inner.commit_all(commits, now)
    }

    fn commit_in_doubt(&self, commit: Commit, now: Instant) {
        self.inner.commit_in_doubt(commit, now);
    }

    fn is_refusing(&self, mailbox: &Arc<Mailbox>) -> bool {
        self.inner.is_refusing(mailbox)
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

    fn release(&self, claim: Claim, now: Instant) {
        self.inner.release(claim, now);
    }

    fn leave(&self, claim: Claim, mailbox: &Arc<Mailbox>, ticket: Ticket) {
        self.inner.leave(claim, mailbox, ticket);
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

/// A client without confirms says its messages and then good-bye; the broker, out of memory, does not answer within the linger.
/// At the broker itself they lie in the socket until it reads again.
#[test]
fn p09_rights_that_are_not_answered_within_the_linger_lose_no_message() {
    let ends: [fn(&mut Pair); 3] = [
        |pair| pair.client(connection_close(200, "bye")),
        |pair| pair.client_eof(),
        |pair| {
            let now = pair.now();
            pair.session.handle_drain(now);
            pair.pump();
        },
    ];
    for (linger, end) in [(0, 0), (0, 1), (0, 2), (10, 0), (10, 1), (10, 2)] {
        let desk = Desk::unproven(|plan| plan.settings.linger = linger * SECOND);
        let mut pair = desk.pair();
        pair.client(m("a").publish(1) + two("b").publish(1));
        assert_eq!(pair.to_upstream(), asks(&[("x", "k")]));
        ends[end](&mut pair);
        pair.advance((linger + 1) * SECOND);
        let said = format!("{:?}", pair.to_upstream());
        assert_eq!(said.matches("basic.publish").count(), 2, "linger {linger}, end {end}: {said}");
        assert_eq!(desk.in_flight(), 0);
    }
}

/// 404 says nothing about which keys the user may write.
#[test]
fn p09_rights_to_an_exchange_that_is_missing_are_unknown_and_not_narrow() {
    let desk = Desk::unproven(|plan| plan.rules.scope = Scope::Exchange);
    let mut pair = desk.confirming();
    let missing = || refused(404, "NOT_FOUND - no exchange 'x' in vhost '/'");
    pair.client(m("a").publish(1) + m("b").publish(1));
    assert_eq!(pair.to_upstream(), asks(&[("x", "k"), ("x", ANY)]));
    // The publish's own right, then (the next one waits) all keys.
    pair.upstream(missing());
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + asks(&[("x", "k")]));
    pair.upstream(missing());
    assert_eq!(pair.to_upstream(), channel_close_ok(OWN) + m("a").publish(1) + asks(&[("x", ANY)]));
    pair.upstream(missing());
    pair.upstream(channel_close(1, 404, "NOT_FOUND - no exchange 'x' in vhost '/'"));
    pair.client(channel_close_ok(1));
    pair.to_client();
    pair.to_upstream();
    pair.open(1);
    confirm(&mut pair, 1);
    // It is declared now, and the user may write whatever it likes.
    pair.client(m("a").publish(1));
    assert_eq!(pair.to_upstream(), asks(&[("x", "k"), ("x", ANY)]));
    pair.upstream(may());
    assert_eq!(pair.to_upstream(), m("a").publish(1) + ends());
    pair.upstream(ack(1, 1));
    assert_eq!(pair.to_client(), ack(1, 1));
    let mut again = desk.confirming();
    again.client(m("a").publish(1));
    assert_eq!((again.to_client(), again.to_upstream()), (ack(1, 1), Frames::none()), "a duplicate");
}

/// Where there is no channel to ask on, nothing is asked beforehand for the publishes behind, again before each of them.
#[test]
fn p17_cost_of_publishes_that_nobody_can_ask_for() {
    let prepare = |n: usize| {
        let desk = Desk::unproven(|plan| {
            plan.settings.max_unresolved = 1 << 20;
            plan.settings.held_bytes = 1 << 30;
        });
        let mut pair = Pair::new(&desk.shared);
        pair.handshake_with("guest", "/", (1, 131_072, 0));
        pair.open(1);
        confirm(&mut pair, 1);
        let publish = |n| message("x", &format!("key {n}")).id("a").publish(1);
        let all: Vec<u8> = (0..n).flat_map(|n| publish(n).encode()).collect();
        (desk, pair, all)
    };
    assert_linear("publishes", 250, prepare, |(desk, mut pair, all)| {
        pair.client_bytes(&all);
        (desk, pair)
    });
}
