//! The accounting against dumb models and scripted traffic, for every engine, on a virtual clock: nothing here sleeps.

#![expect(clippy::panic, reason = "helpers of tests")]

mod model;
mod threads;
mod traffic;

use hapax::pressure::{Accounting, Facts, Watched};
use hapax::window::engine::EngineKind;
use hapax::window::{
    Confirms, InDoubt, Key, Limits, Listener, LocalWindow, Mailbox, MissingId, Mode, Reservation, Rules,
    Scope, Ticket, Verdict, Window,
};
use hapax::wire::IdSource;
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

/// The n-th key: spread as a digest would be.
fn key(n: u64) -> Key {
    let mix = |n: u64| {
        let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ n >> 31
    };
    let high = mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1));
    Key(u128::from(high) << 64 | u128::from(mix(high ^ 0xdead_beef)))
}

/// A window under accounting, and a clock.
struct Rig {
    watched: Watched,
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
        let rules = Rules {
            name: "test".into(),
            id: IdSource::MessageId,
            scope: Scope::default(),
            in_doubt: InDoubt::Forget,
            missing_id: MissingId::Forward,
            confirms: Confirms::Shadow,
            forward_to: None,
        };
        let window = LocalWindow::new(rules, limits, engine, listener);
        Rig { watched: Watched { window, accounting }, mailbox: Arc::default(), now: base() }
    }

    fn window(&self) -> &Arc<LocalWindow> {
        &self.watched.window
    }

    fn fresh(&self, n: u64) -> Option<Reservation> {
        match self.window().clone().reserve(key(n), self.now, &self.mailbox, Ticket(n)) {
            Verdict::Fresh(reservation) => Some(reservation),
            Verdict::Duplicate => None,
            other => panic!("{n}: {other:?}"),
        }
    }

    /// To a broker that acks; true if it was forwarded.
    fn publish(&self, n: u64) -> bool {
        let reservation = self.fresh(n);
        let is_fresh = reservation.is_some();
        if let Some(reservation) = reservation {
            reservation.commit(self.now, self.window().ttl());
        }
        is_fresh
    }

    fn tick(&self) {
        self.watched.tick(self.now);
    }

    fn facts(&self) -> Facts {
        self.watched.facts(self.now)
    }
}
