//! Restarts, against a model that is a list: what passes because of them, without and with a store.

use super::{Events, SECOND, events, exact, replayed, setting, trace};
use hapax::tools::simulate::{Keeps, Restarted, compare};
use hapax_core::window::engine::EngineKind;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::num::NonZero;
use std::time::Duration;

const DELAY: u64 = 2;

struct Known {
    id: u8,
    at: u64,
    until: u64,
}

/// caught, escaped, passed
fn model(events: &Events, capacity: usize, ttl: u64, every: u64, keeps: Keeps) -> (u64, u64, u64) {
    let mut known: Vec<Known> = Vec::new();
    let mut promised: HashMap<u8, u64> = HashMap::new();
    let mut lost: HashSet<u8> = HashSet::new();
    let mut due = every;
    let (mut caught, mut escaped, mut passed) = (0, 0, 0);
    for (at, id, _) in events {
        while *at >= due {
            let is_lost = |one: &Known| match keeps {
                Keeps::Nothing => true,
                Keeps::AllBut(_) => one.at + DELAY > due,
                Keeps::Everything => false,
            };
            lost.extend(known.iter().filter(|one| is_lost(one)).map(|one| one.id));
            known.retain(|one| !is_lost(one));
            due += every;
        }
        known.retain(|one| one.until > *at);
        if let Some(place) = known.iter().position(|one| one.id == *id) {
            caught += 1;
            let one = known.remove(place);
            known.push(one);
            continue;
        }
        let is_broken = promised.insert(*id, at + ttl).is_some_and(|until| until > *at);
        match (lost.remove(id), is_broken) {
            (true, true) => passed += 1,
            (false, true) => escaped += 1,
            (_, false) => {}
        }
        known.push(Known { id: *id, at: *at, until: at + ttl });
        if known.len() > capacity {
            known.remove(0);
        }
    }
    (caught, escaped, passed)
}

fn compared(events: &Events, setting: hapax::tools::simulate::Setting, every: u64) -> Vec<Restarted> {
    let (every, delay) = (Duration::from_secs(every), Duration::from_secs(DELAY));
    let one = NonZero::<usize>::MIN;
    compare(&trace(events), setting, every, delay, one).rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn restarts_cost_what_a_list_says(events in events(false), capacity in 1..=8_usize, ttl in 1..20_u64, every in 1..15_u64) {
        // The model's time begins with the first event, as that of a trace does.
        let first = events.first().map_or(0, |(at, _, _)| *at);
        let events: Events = events.into_iter().map(|(at, id, own)| (at - first, id, own)).collect();
        for engine in EngineKind::ALL {
            let ttl = exact(engine, ttl);
            let setting = setting(capacity, ttl, engine, false);
            for Restarted { keeps, outcome, passed } in compared(&events, setting, every) {
                let counted = (outcome.caught, outcome.escaped, passed);
                prop_assert_eq!(counted, model(&events, capacity, ttl, every, keeps), "{:?} {:?}", engine, keeps);
                if keeps == Keeps::Everything {
                    prop_assert_eq!((outcome, passed), (replayed(&events, setting), 0));
                }
            }
        }
    }
}

/// Three ids, a restart, and all three again: in memory all pass, and with a store the youngest one at most.
#[test]
fn a_restart_without_a_store_lets_everything_through() {
    let events: Events =
        (0..3).chain(0..3).zip([0, 1, 9, 11, 12, 13]).map(|(id, at)| (at, id, None)).collect();
    let rows = compared(&events, setting(10, 60, EngineKind::default(), false), 10);
    let told = rows.iter().map(|row| (row.keeps, row.outcome.caught, row.passed));
    let delay = Keeps::AllBut(Duration::from_nanos(DELAY * SECOND));
    assert_eq!(told.collect::<Vec<_>>(), [(Keeps::Nothing, 0, 3), (delay, 2, 1), (Keeps::Everything, 3, 0)]);
}
