//! A window with a store shows its store, its age, and the room that the ids of other relays take.

use crate::{LIMITS, base};
use hapax_core::pressure::facts::Store;
use hapax_core::pressure::{Accounting, Facts, Level};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::logged::{AtStore, Batch, RelayId, Written};
use hapax_core::window::{
    BodyDigest, Inspect, Key, Limits, LoggedWindow, Mailbox, OnOutage, Remember, Rules, StorePolicy, Ticket,
    Verdict, reserve_one,
};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const SECOND: Duration = Duration::from_secs(1);

struct Rig {
    window: Arc<LoggedWindow<Accounting>>,
    accounting: Arc<Accounting>,
    now: Instant,
    wall: SystemTime,
}

impl Rig {
    fn new(limits: Limits, policy: StorePolicy) -> Rig {
        let accounting = Arc::new(Accounting::new());
        let now = base() + Duration::from_secs(1_000);
        let (rules, engine) = (Rules::named("test"), EngineKind::default());
        let window = LoggedWindow::new(rules, limits, engine, Arc::clone(&accounting), "stream", policy, now);
        accounting.begin(&*window, now);
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Rig { window, accounting, now, wall }
    }

    fn asynchronous() -> Rig {
        Rig::new(LIMITS, StorePolicy { remember: Remember::Async, ..StorePolicy::default() })
    }

    /// Keys that were seen this long ago.
    fn batch(&self, keys: std::ops::Range<u32>, age: Duration) -> Batch {
        let seen = |n: u32| Written::Seen {
            claim: crate::key(u64::from(n)).into(),
            at: self.wall - age,
            ttl: LIMITS.ttl,
            body: BodyDigest::from_bits(0),
            tenant: hapax_core::window::Tenant::COMMON,
        };
        Batch { relay: RelayId(9), records: keys.map(seen).collect() }
    }

    fn recover(&self, keys: std::ops::Range<u32>, age: Duration) {
        self.window.recover(&self.batch(keys, age), self.now, self.wall);
    }

    /// Publishes it to a broker that acks; true if it was forwarded.
    fn publish(&self, n: u32) -> bool {
        let key: Key = crate::key(u64::from(n));
        match reserve_one(&self.window, key, self.now, &Arc::new(Mailbox::new()), Ticket(1)) {
            Verdict::Fresh(reservation) => {
                reservation.commit(self.now, LIMITS.ttl);
                true
            }
            _ => false,
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.wall += time;
        self.accounting.tick(&*self.window, self.now);
    }

    fn facts(&self) -> Facts {
        self.accounting.facts(&*self.window, self.now)
    }
}

#[test]
fn a_window_that_has_read_a_log_of_a_ttl_is_warm_at_once() {
    let mut rig = Rig::asynchronous();
    rig.recover(0..10, LIMITS.ttl * 3);
    rig.recover(10..20, SECOND);
    rig.wait(SECOND);
    let facts = rig.facts();
    assert_eq!((facts.level, facts.coverage < 0.1), (Level::Warming, true), "it recovers: {facts:?}");
    rig.window.recovered();
    // The first who looks sees it, before the next tick.
    assert_eq!((rig.facts().coverage, rig.facts().warming_seconds), (1.0, 0.0));
    rig.wait(SECOND);
    let facts = rig.facts();
    assert_eq!((facts.level, facts.coverage, facts.warming_seconds), (Level::Ok, 1.0, 0.0));
    assert_eq!((facts.entries, facts.recovered, facts.publishes.fresh), (Some(10), 10, 0));
    Inspect::flush(&*rig.window, rig.now);
    rig.wait(SECOND);
    assert_eq!(rig.facts().level, Level::Warming, "a flush counts as ever");
}

#[test]
fn a_log_of_half_a_ttl_makes_a_window_half_warm() {
    let mut rig = Rig::asynchronous();
    rig.recover(0..10, LIMITS.ttl / 2);
    rig.window.recovered();
    rig.wait(SECOND);
    assert_eq!(rig.facts().warming_seconds, (LIMITS.ttl / 2 - SECOND).as_secs_f64());
}

#[test]
fn what_other_relays_store_takes_room_and_what_stood_in_the_store_at_the_start_is_no_rate() {
    let mut rig = Rig::asynchronous();
    rig.wait(SECOND);
    rig.recover(0..500, SECOND);
    rig.window.recovered();
    rig.wait(SECOND);
    assert_eq!(rig.facts().pressure, Some(0.0));
    let ttl = u32::try_from(LIMITS.ttl.as_secs()).unwrap();
    for second in 0..ttl * 2 {
        let first = 1_000 + second * 40;
        rig.window.merge(&rig.batch(first..first + 30, Duration::ZERO), rig.now, rig.wall);
        (first + 30..first + 40).for_each(|n| assert!(rig.publish(n)));
        rig.wait(SECOND);
    }
    let facts = rig.facts();
    let pressure = facts.pressure.unwrap();
    assert!((0.79..0.81).contains(&pressure), "40 ids/s x 20 s of 1000: {pressure}");
    assert!(facts.recommended_capacity.unwrap() >= 1_000, "{:?}", facts.recommended_capacity);
    assert_eq!((facts.rates.fresh.round(), facts.publishes.fresh), (10.0, u64::from(ttl) * 20));
}

/// The curve knows what the window knows: a duplicate of an id that came from the store would be caught by every capacity that holds it.
#[test]
fn the_what_if_curve_knows_what_came_from_the_store() {
    let mut rig = Rig::asynchronous();
    rig.recover(0..200, SECOND);
    rig.window.recovered();
    let sampled = rig.facts().what_if.sampled;
    (0..200).for_each(|n| assert!(!rig.publish(n), "{n} is known"));
    rig.wait(SECOND);
    let curve = rig.facts().what_if;
    assert_eq!((sampled, curve.sampled), (0, 200), "what came from the store is no publish");
    let present = curve.points.iter().find(|point| point.factor == 1.0).unwrap();
    assert!(present.caught > 0.99, "{curve:?}");
}

/// An id that was evicted early and comes from the store again is known again: nothing has escaped.
#[test]
fn an_id_that_comes_back_from_the_store_has_not_escaped() {
    let mut rig = Rig::asynchronous();
    rig.window.recovered();
    (0..2_000).for_each(|n| assert!(rig.publish(n)));
    rig.wait(SECOND);
    let evicted = rig.facts().ghost.keys;
    assert!(evicted > 900, "{evicted}");
    rig.window.merge(&rig.batch(0..100, Duration::ZERO), rig.now, rig.wall);
    rig.wait(SECOND);
    let facts = rig.facts();
    assert_eq!(facts.escaped_duplicates, 0);
    assert!(facts.store.unwrap().merged >= 100);
}

#[test]
fn a_store_is_shown_with_what_is_known_of_it() {
    let policy = StorePolicy { on_outage: OnOutage::Refuse, ..StorePolicy::default() };
    let mut rig = Rig::new(LIMITS, policy);
    let recovering = rig.facts().store.unwrap();
    let new = Store {
        kind: "stream".to_owned(),
        on_outage: OnOutage::Refuse,
        up: true,
        recovering: true,
        ..Store::default()
    };
    assert_eq!(recovering, new);
    rig.recover(0..3, SECOND);
    rig.window.recovered();
    rig.window.merge(&rig.batch(2..5, Duration::ZERO), rig.now, rig.wall);
    rig.publish(9);
    rig.window.note_damaged(1);
    rig.window.set_at_store(AtStore {
        bytes: Some(7),
        oldest: Some(SECOND * 8),
        behind: Some(SECOND * 9),
        latency: Some(SECOND / 2),
        reconnects: Some(10),
        evicted_keys: Some(11),
        used_memory: Some(12),
        max_memory: Some(0),
    });
    rig.window.store_failed(rig.now);
    rig.wait(SECOND * 3);
    let shown = Store {
        up: false,
        down_seconds: Some(3.0),
        recovering: false,
        waiting_records: 1,
        lag_seconds: 3.0,
        waiting_commits: 1,
        recovered: 3,
        merged: 3,
        crossed: 1,
        damaged_batches: 1,
        bytes: Some(7),
        oldest_seconds: Some(8.0),
        behind_seconds: Some(9.0),
        latency_seconds: Some(0.5),
        reconnects: Some(10),
        evicted_keys: Some(11),
        memory_bytes: Some(12),
        memory_max_bytes: None, // Redis says 0 if it has no bound
        ..new
    };
    assert_eq!(rig.facts().store.unwrap(), shown);
    let text = serde_json::to_string(&shown).unwrap();
    assert!(!text.contains("null") && !text.contains("max"), "{text}");
}
