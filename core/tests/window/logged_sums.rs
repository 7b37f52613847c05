//! A window with a log: whatever its store brings and its operator does, the two sums over its events hold, and the lag counts what is not
//! written.

use crate::{LIMITS, TTL, assert_adds_up, base};
use hapax_core::pressure::Accounting;
use hapax_core::window::engine::EngineKind;
use hapax_core::window::logged::{Batch, RelayId, Written};
use hapax_core::window::{
    Change, Inspect, Key, LoggedWindow, Mailbox, OnOutage, Position, Remember, Reservation, Rules, Setting,
    StorePolicy, Ticket, Verdict, reserve_one,
};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

#[derive(Clone, Debug)]
enum Action {
    Publish(u128),
    Ack,
    Nack,
    /// The store brings a key that was seen this long ago: at the start, or from another relay.
    Bring {
        key: u128,
        age: u64,
        is_live: bool,
    },
    BringFlush,
    BringForgotten(u128),
    Forget(u128),
    Flush,
    Resize(usize),
    Take,
    Written,
    Fail,
    Wait(u64),
}

fn action() -> impl Strategy<Value = Action> {
    let key = || 0..8_u128;
    prop_oneof![
        6 => key().prop_map(Action::Publish),
        4 => Just(Action::Ack),
        1 => Just(Action::Nack),
        4 => (key(), 0..90_u64, any::<bool>()).prop_map(|(key, age, is_live)| Action::Bring { key, age, is_live }),
        1 => Just(Action::BringFlush),
        1 => key().prop_map(Action::BringForgotten),
        1 => key().prop_map(Action::Forget),
        1 => Just(Action::Flush),
        1 => (1..6_usize).prop_map(Action::Resize),
        3 => Just(Action::Take),
        3 => Just(Action::Written),
        1 => Just(Action::Fail),
        2 => (0..40_u64).prop_map(Action::Wait),
    ]
}

struct Bench {
    window: Arc<LoggedWindow<Accounting>>,
    accounting: Arc<Accounting>,
    mailbox: Arc<Mailbox>,
    held: Vec<Reservation>,
    taken: Option<Position>,
    now: Instant,
    wall: SystemTime,
    tickets: u64,
}

impl Bench {
    fn new(engine: EngineKind, policy: StorePolicy) -> Bench {
        let accounting = Arc::new(Accounting::new());
        let (rules, now) = (Rules::named("sums"), base() + Duration::from_secs(1_000));
        let window = LoggedWindow::new(rules, LIMITS, engine, Arc::clone(&accounting), "disk", policy, now);
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mailbox = Arc::new(Mailbox::new());
        Bench { window, accounting, mailbox, held: Vec::new(), taken: None, now, wall, tickets: 0 }
    }

    fn bring(&self, record: Written, is_live: bool) {
        let batch = Batch { relay: RelayId(9), records: vec![record] };
        match is_live {
            true => self.window.merge(&batch, self.now, self.wall),
            false => self.window.recover(&batch, self.now, self.wall),
        };
    }

    fn seen(&self, key: u128, age: u64) -> Written {
        Written::Seen {
            claim: Key(key).into(),
            at: self.wall - Duration::from_secs(age),
            ttl: TTL,
            body: hapax_core::window::BodyDigest::from_bits(0),
            tenant: hapax_core::window::Tenant::COMMON,
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Publish(key) => {
                self.tickets += 1;
                let ticket = Ticket(self.tickets);
                match reserve_one(&self.window, Key(key), self.now, &self.mailbox, ticket) {
                    Verdict::Fresh(reservation) => self.held.push(reservation),
                    Verdict::Duplicate(_) | Verdict::InFlight(_) | Verdict::Crowded => {}
                    other @ (Verdict::Refused(_) | Verdict::Pending(_)) => {
                        panic!("nothing is late here: {other:?}")
                    }
                }
            }
            Action::Ack => self.held.pop().into_iter().for_each(|one| {
                one.commit(self.now, TTL);
            }),
            Action::Nack => drop(self.held.pop()),
            Action::Bring { key, age, is_live } => self.bring(self.seen(key, age), is_live),
            Action::BringFlush => self.bring(Written::Flushed, true),
            Action::BringForgotten(key) => self.bring(Written::Forgotten(Key(key).into()), true),
            Action::Forget(key) => drop(self.window.forget(Key(key).into(), self.now)),
            Action::Flush => drop(Inspect::flush(&*self.window, self.now)),
            Action::Resize(capacity) => drop(self.window.resize(capacity, self.now)),
            Action::Take => self.taken = self.window.take(3).map(|(_, last)| last).or(self.taken),
            Action::Written => {
                self.taken.take().into_iter().for_each(|last| self.window.written(last, self.now));
            }
            Action::Fail => self.window.store_failed(self.now),
            Action::Wait(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.wall += Duration::from_secs(seconds);
                self.window.sweep(self.now);
            }
        }
        // A waiter that is promoted gets its reservation by mail.
        for (_, verdict) in self.mailbox.take() {
            if let Verdict::Fresh(reservation) = verdict {
                self.held.push(reservation);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn the_sums_hold_with_what_a_store_brings(
        actions in prop::collection::vec(action(), 0..60),
        is_sync in any::<bool>(),
    ) {
        let remember = if is_sync { Remember::Sync } else { Remember::Async };
        for engine in EngineKind::ALL {
            let mut bench = Bench::new(engine, StorePolicy { remember, ..StorePolicy::default() });
            for action in &actions {
                bench.act(action);
                assert_adds_up(&bench.window, &bench.accounting);
            }
        }
    }
}

/// With a writer that takes records and hangs, nothing waits to be taken; the lag grows all the same.
#[test]
fn the_lag_counts_what_was_taken_and_not_written() {
    let policy = StorePolicy { remember: Remember::Async, ..StorePolicy::default() };
    let mut bench = Bench::new(EngineKind::default(), policy);
    let lag = |bench: &Bench| {
        let facts = bench.window.store(bench.now).expect("it has a store");
        (facts.waiting, facts.lag.map(|lag| lag.as_secs()))
    };
    assert_eq!(lag(&bench), (0, None));
    for action in [Action::Publish(1), Action::Ack, Action::Wait(3), Action::Publish(2), Action::Ack] {
        bench.act(&action);
    }
    assert_eq!(lag(&bench), (2, Some(3)));
    let (_, first) = bench.window.take(1).expect("two wait");
    bench.act(&Action::Wait(4));
    assert_eq!(lag(&bench), (2, Some(7)));
    let (_, second) = bench.window.take(9).expect("one waits");
    assert_eq!((lag(&bench), bench.window.take(9)), ((2, Some(7)), None));
    bench.window.written(first, bench.now);
    assert_eq!(lag(&bench), (1, Some(4)));
    bench.window.written(second, bench.now);
    assert_eq!(lag(&bench), (0, None));
}

/// A window knows everything for as long as its log goes back without a gap, but no longer than ids are remembered.
#[test]
fn the_log_says_for_how_long_everything_is_known() {
    let bench = || {
        Bench::new(
            EngineKind::default(),
            StorePolicy { on_outage: OnOutage::Refuse, ..StorePolicy::default() },
        )
    };
    let known =
        |bench: &Bench| bench.window.store(bench.now).expect("a store").known_for.map(|age| age.as_secs());
    let change = |setting| Written::Changed(Change { setting, by: "somebody".into() });
    let after = |records: &[&dyn Fn(&Bench) -> Written]| {
        let bench = bench();
        records.iter().for_each(|record| bench.bring(record(&bench), false));
        assert_eq!(known(&bench), None, "it recovers");
        bench.window.recovered();
        known(&bench)
    };
    let (old, young) = (|bench: &Bench| bench.seen(1, 40), |bench: &Bench| bench.seen(2, 10));
    assert_eq!(after(&[]), None, "an empty log says nothing");
    assert_eq!(after(&[&old, &young]), Some(40));
    assert_eq!(after(&[&|bench| bench.seen(1, 900), &young]), Some(60), "and what came before 60 s is gone");
    assert_eq!(after(&[&old, &|_| Written::Flushed, &young]), Some(10), "a flush");
    assert_eq!(
        after(&[&old, &|_| change(Setting::Mode(hapax_core::window::Mode::Enforce)), &young]),
        Some(10)
    );
    assert_eq!(after(&[&old, &|_| change(Setting::Ttl(TTL)), &young]), Some(10));
    assert_eq!(after(&[&old, &|_| change(Setting::Capacity(9)), &young]), Some(40));
    let damaged = bench();
    damaged.bring(damaged.seen(1, 40), false);
    damaged.window.note_damaged(1);
    damaged.window.recovered();
    assert_eq!(known(&damaged), None, "a part of it is missing");
    let flushed = bench();
    flushed.bring(flushed.seen(1, 40), false);
    Inspect::flush(&*flushed.window, flushed.now);
    flushed.window.recovered();
    assert_eq!(known(&flushed), None, "somebody has flushed it meanwhile");
}
