//! Runs any list of actions. The counters must add up, and the escaped duplicates must be those that a plain map of
//! early evictions finds.

use crate::{LIMITS, Rig, key};
use hapax_core::pressure::{Accounting, Facts};
use hapax_core::window::engine::{EngineKind, Stamp};
use hapax_core::window::{Claim, Event, EvictionCause, ForgetCause, Key, Limits, Listener, Reservation};
use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A tick of the ghost. The TTL is 1024 ticks.
const TICK: Duration = Duration::from_nanos(1 << 20);
const TTL: Duration = Duration::from_nanos(1024 << 20);

/// The time until which each key that was evicted early should have been remembered.
#[derive(Debug, Default)]
struct Model {
    refresh: bool,
    gone: HashMap<Key, Stamp>,
    escaped: u64,
}

impl Model {
    /// Compares in whole ticks, as the ghost does: an engine that rounds up to its own unit ends between two ticks.
    fn holds(&self, key: Key, now: Stamp) -> bool {
        self.gone.get(&key).is_some_and(|until| Model::is_before(now, *until))
    }

    fn is_before(now: Stamp, until: Stamp) -> bool {
        let tick = |stamp: Stamp| u128::from(stamp.0) / TICK.as_nanos();
        tick(now) < tick(until)
    }

    fn on(&mut self, event: &Event) {
        match *event {
            Event::Evicted { claim: Claim::Digest(key), until, now, cause, .. } => {
                let early = matches!(cause, EvictionCause::Capacity | EvictionCause::Resize);
                let held = self.holds(key, now);
                // A key that ends within this tick is not remembered.
                if early && Model::is_before(now, until) && (self.refresh || !held) {
                    self.gone.insert(key, until);
                }
            }
            Event::Committed { claim: Claim::Digest(key), now, .. } => {
                self.escaped += u64::from(self.holds(key, now));
            }
            Event::Disowned { claim: Claim::Digest(key) } => {
                self.gone.remove(&key);
            }
            Event::Flushed => self.gone.clear(),
            _ => {}
        }
    }
}

/// A listener that tells both the accounting and the model.
#[derive(Debug)]
struct Both(Arc<Accounting>, Arc<Mutex<Model>>);

impl Listener for Both {
    fn on(&self, event: &Event) {
        self.0.on(event);
        self.1.lock().on(event);
    }

    fn limits(&self, limits: &Limits) {
        self.0.limits(limits);
    }
}

#[derive(Clone, Debug)]
enum Action {
    /// publish an id that the broker acks at once
    Publish(u64),
    /// reserve an id whose outcome comes later
    Reserve(u64),
    /// end the youngest reservation; true: acked, false: in doubt, but kept
    Commit(bool, Duration),
    Nack,
    Forget(u64),
    Flush,
    Resize(usize),
    Tick,
    Look,
    Advance(u32),
}

fn action() -> impl Strategy<Value = Action> {
    let keys = 0..24_u64;
    prop_oneof![
        16 => keys.clone().prop_map(Action::Publish),
        4 => keys.clone().prop_map(Action::Reserve),
        4 => (prop::bool::weighted(0.8), prop::sample::select(vec![TTL / 2, TTL, TTL, TTL * 3 / 2]))
            .prop_map(|(acked, ttl)| Action::Commit(acked, ttl)),
        1 => Just(Action::Nack),
        1 => keys.prop_map(Action::Forget),
        1 => prop::sample::select(vec![Action::Flush, Action::Tick, Action::Look, Action::Tick]),
        1 => (1..8_usize).prop_map(Action::Resize),
        6 => prop::sample::select(vec![1, 3, 50, 400, 1023, 1024, 3000, 9000]).prop_map(Action::Advance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn counters_add_up_and_escaped_is_what_the_model_says(
        actions in prop::collection::vec(action(), 1..300),
        capacity in 1..8_usize,
        refresh_on_duplicate: bool,
    ) {
        for engine in EngineKind::ALL {
            let limits = Limits { capacity, refresh_on_duplicate, ttl: TTL, ..LIMITS };
            let accounting = Arc::new(Accounting::new());
            let model = Arc::new(Mutex::new(Model { refresh: refresh_on_duplicate, ..Model::default() }));
            let both = Arc::new(Both(accounting.clone(), model.clone()));
            let mut rig = Rig::listening(engine, limits, accounting, both);
            let mut held = Vec::new();
            for action in &actions {
                act(&mut rig, &mut held, action);
            }
            let facts = rig.facts();
            prop_assert_eq!(facts.escaped_duplicates, model.lock().escaped, "{:?}", engine);
            prop_assert_eq!(facts.ghost.dropped, 0);
            assert_adds_up(&facts);
        }
    }
}

fn act(rig: &mut Rig, held: &mut Vec<Reservation>, action: &Action) {
    let is_held =
        |held: &[Reservation], n| held.iter().any(|reservation| reservation.claim() == key(n).into());
    match *action {
        Action::Publish(n) if !is_held(held, n) => drop(rig.publish(n)),
        Action::Reserve(n) if !is_held(held, n) => held.extend(rig.fresh(n)),
        Action::Publish(_) | Action::Reserve(_) => {}
        Action::Commit(acked, ttl) => {
            if let Some(reservation) = held.pop() {
                if acked {
                    reservation.commit(rig.now, ttl);
                } else {
                    reservation.commit_in_doubt(rig.now, ttl);
                }
            }
        }
        Action::Nack => held.pop().into_iter().for_each(|held| held.forget(ForgetCause::Nack)),
        Action::Forget(n) => drop(rig.window().forget(key(n), rig.now)),
        Action::Flush => drop(rig.window().flush(rig.now)),
        Action::Resize(capacity) => rig.window().resize(capacity, rig.now),
        Action::Tick => rig.tick(),
        Action::Look => assert_adds_up(&rig.facts()),
        Action::Advance(ticks) => rig.now += TICK * ticks,
    }
}

/// Checks the promises of `hapax_core::window::event`.
fn assert_adds_up(facts: &Facts) {
    let evicted: u64 = facts.evictions.values().sum();
    let forgotten: u64 = facts.forgotten.values().sum();
    assert_eq!(
        facts.publishes.fresh,
        facts.entries.unwrap() + evicted + forgotten + facts.in_flight.unwrap()
    );
    assert_eq!(facts.commits + facts.commits_in_doubt, facts.entries.unwrap() + evicted);
    let early = facts.evictions["capacity"] + facts.evictions["resize"];
    let ages: u64 = facts.age_at_eviction.buckets.iter().map(|bucket| bucket.count).sum();
    assert_eq!(ages, early, "each early eviction has its age");
}
