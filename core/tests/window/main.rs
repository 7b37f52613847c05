//! The rules that every engine must follow. Lists of actions run against a simple model ([`model`], [`actions`]).
//! Examples show what that would hide ([`examples`], [`takeovers`]). There are also commits in batches ([`together`]),
//! a capacity that tenants share ([`tenants`]), two threads at once ([`threads`]), costs ([`costs`]), and a
//! window with a log ([`logged_sums`], [`logged_sequences`]).
//!
//! Nothing here sleeps: `now` is one base instant plus the time that the test adds.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::print_stdout, reason = "shown when a test fails: engine and step")]

mod actions;
mod beside;
mod conflicts;
#[path = "../support/cost.rs"]
mod cost;
mod costs;
mod examples;
#[path = "../support/late.rs"]
mod late;
mod logged;
mod logged_actions;
mod logged_sequences;
mod logged_sums;
mod model;
mod sequences;
mod shelf;
mod slices;
mod takeovers;
mod tenants;
mod threads;
mod together;

use hapax_core::pressure::Accounting;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    Inspect, Key, Limits, LocalWindow, Mailbox, Mode, Reservation, Rules, Ticket, Verdict, Window,
    reserve_one,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TTL: Duration = Duration::from_secs(60);
const LIMITS: Limits =
    Limits { capacity: 4, ttl: TTL, mode: Mode::Enforce, refresh_on_duplicate: false, waiters_per_id: 2 };

#[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
fn base() -> Instant {
    Instant::now()
}

fn window(engine: EngineKind, limits: Limits) -> (Arc<LocalWindow>, Arc<Accounting>) {
    let rules = Rules::named("contract");
    // Which engine a failure belongs to: the last line that was printed.
    println!("{engine:?}, {limits:?}");
    let accounting = Arc::new(Accounting::new());
    (LocalWindow::new(rules, limits, engine, accounting.clone()), accounting)
}

/// The identities of `hapax_core::window::event`.
fn assert_adds_up(window: &Arc<impl Inspect>, accounting: &Accounting) {
    let count = |of: Option<usize>| of.map_or(0, |count| count as u64);
    let removed = count(window.entries()) + accounting.evicted_total();
    let unsettled = accounting.forgotten_total() + count(window.in_flight());
    let (forwarded, brought) = (accounting.fresh() + accounting.republished(), accounting.recovered());
    assert_eq!(
        forwarded + brought,
        removed + unsettled,
        "fresh + republished + recovered = entries + evicted + forgotten + in flight"
    );
    let committed = accounting.committed() + accounting.committed_in_doubt();
    assert_eq!(committed + brought, removed, "committed + in doubt + recovered = entries + evicted");
}

/// One asker with one mailbox: for tests in which it does not matter who asks.
struct Asker {
    window: Arc<LocalWindow>,
    mailbox: Arc<Mailbox>,
    tickets: u64,
}

impl Asker {
    fn new(window: &Arc<LocalWindow>) -> Asker {
        Asker { window: window.clone(), mailbox: Arc::new(Mailbox::new()), tickets: 0 }
    }

    fn ask(&mut self, key: u128, now: Instant) -> Verdict {
        self.tickets += 1;
        reserve_one(&self.window, Key(key), now, &self.mailbox, Ticket(self.tickets))
    }

    fn fresh(&mut self, key: u128, now: Instant) -> Reservation {
        match self.ask(key, now) {
            Verdict::Fresh(reservation) => reservation,
            other => panic!("{key} should be fresh and is {other:?}"),
        }
    }

    /// Publishes it to an upstream that acks; true if it was forwarded.
    fn publish(&mut self, key: u128, now: Instant) -> bool {
        match self.ask(key, now) {
            Verdict::Fresh(reservation) => {
                reservation.commit(now, self.window.ttl());
                true
            }
            Verdict::Duplicate(_) => false,
            other => panic!("{key} should be fresh or a duplicate and is {other:?}"),
        }
    }
}

/// The number of the key that is reserved.
fn key_of(reservation: &Reservation) -> u128 {
    reservation.claim().key().0
}
