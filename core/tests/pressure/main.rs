//! Compares the accounting with simple models and scripted traffic, for every engine, on a virtual clock. Nothing here
//! sleeps.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

mod bytes;
mod flood;
#[path = "../support/ground.rs"]
mod ground;
mod model;
mod stores;
mod threads;
mod traffic;
mod whatif;

use ground::key;
use hapax_core::pressure::{Accounting, Facts};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    Limits, Listener, LocalWindow, Mailbox, Mode, Reservation, Rules, Ticket, Verdict, Window, reserve_one,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LIMITS: Limits = Limits {
    capacity: 1000,
    ttl: Duration::from_secs(20),
    mode: Mode::Enforce,
    refresh_on_duplicate: false,
    waiters_per_id: 4,
};

#[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
fn base() -> Instant {
    Instant::now()
}

/// A window with its accounting, and a clock.
struct Rig {
    window: Arc<LocalWindow>,
    accounting: Arc<Accounting>,
    mailbox: Arc<Mailbox>,
    now: Instant,
}

impl Rig {
    fn new(engine: EngineKind, limits: Limits) -> Rig {
        let accounting = Arc::new(Accounting::new());
        Rig::listening(engine, limits, accounting.clone(), accounting)
    }

    fn listening(
        engine: EngineKind,
        limits: Limits,
        accounting: Arc<Accounting>,
        listener: Arc<dyn Listener>,
    ) -> Rig {
        let rules = Rules::named("test");
        let window = LocalWindow::new(rules, limits, engine, listener);
        Rig { window, accounting, mailbox: Arc::default(), now: base() }
    }

    fn window(&self) -> &Arc<LocalWindow> {
        &self.window
    }

    fn fresh(&self, n: u64) -> Option<Reservation> {
        match reserve_one(self.window(), key(n), self.now, &self.mailbox, Ticket(n)) {
            Verdict::Fresh(reservation) => Some(reservation),
            Verdict::Duplicate(_) => None,
            other => panic!("{n}: {other:?}"),
        }
    }

    /// Publishes to a broker that acks. Returns true if the publish was forwarded.
    fn publish(&self, n: u64) -> bool {
        let reservation = self.fresh(n);
        let is_fresh = reservation.is_some();
        if let Some(reservation) = reservation {
            reservation.commit(self.now, self.window().ttl());
        }
        is_fresh
    }

    fn tick(&self) {
        self.window.sweep(self.now);
        self.accounting.tick(&*self.window, self.now);
    }

    fn facts(&self) -> Facts {
        self.accounting.facts(&*self.window, self.now)
    }
}
