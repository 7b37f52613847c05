//! Scripted traffic: the facts that an operator reads must show what the script did.

use crate::{LIMITS, Rig};
use hapax_core::pressure::Level;
use hapax_core::window::Limits;
use hapax_core::window::engine::EngineKind;
use std::time::Duration;

/// New ids at a steady rate. Each one is published again after a while.
struct Traffic {
    rate: u64,
    again_after: u64,
    second: u64,
    /// second publishes that were forwarded
    through: u64,
    again: u64,
}

impl Traffic {
    fn new(rate: u64, again_after: u64) -> Traffic {
        Traffic { rate, again_after, second: 0, through: 0, again: 0 }
    }

    fn run(&mut self, rig: &mut Rig, seconds: u64) {
        for _ in 0..seconds {
            for n in 0..self.rate {
                rig.now += Duration::from_nanos(1_000_000_000 / self.rate);
                assert!(rig.publish(self.second * self.rate + n), "an id is new");
                if let Some(then) = self.second.checked_sub(self.again_after) {
                    self.again += 1;
                    self.through += u64::from(rig.publish(then * self.rate + n));
                }
            }
            self.second += 1;
            rig.tick();
        }
    }
}

fn assert_near(what: &str, found: f64, wanted: f64, share: f64) {
    assert!((found / wanted - 1.0).abs() <= share, "{what}: {found}, not {wanted}");
}

/// 100 new ids a second for 20 s need 2000, but there is room for 1000. Each id is published again after 12 s, is
/// forwarded, and takes room a second time.
#[test]
fn a_window_that_is_too_small_says_so_and_what_it_needs_and_then_is_well() {
    for engine in EngineKind::ALL {
        let mut rig = Rig::new(engine, LIMITS);
        rig.tick();
        let mut traffic = Traffic::new(100, 12);
        traffic.run(&mut rig, 4);
        let facts = rig.facts();
        assert_near("pressure, early on", facts.pressure.unwrap(), 2.0, 0.02);
        assert_eq!((facts.level, facts.coverage, facts.oldest_seconds), (Level::High, 1.0, None));
        assert_eq!(facts.effective_seconds, 20.0);
        traffic.run(&mut rig, 76);
        let facts = rig.facts();
        assert_eq!(facts.escaped_duplicates, traffic.through, "{engine:?}");
        assert_eq!(traffic.through, traffic.again);
        assert_eq!(facts.ghost.dropped, 0);
        // In a second, 100 new ids and 100 old ones arrive, so an id stays for 5 s.
        assert_near("pressure", facts.pressure.unwrap(), 2.0, 0.02);
        assert_near("effective", facts.effective_seconds, 5.0, 0.07);
        assert_near("coverage", facts.coverage, 0.25, 0.07);
        assert_near("p1", facts.age_at_eviction.p1_seconds.unwrap(), 5.0, 0.07);
        assert_near("oldest", facts.oldest_seconds.unwrap(), 5.0, 0.02);
        assert_near("fresh per second", facts.rates.fresh, 200.0, 0.02);
        assert_near("escaped per second", facts.rates.escaped, 100.0, 0.02);
        assert_near("evicted early per second", facts.rates.evicted_early, 200.0, 0.02);
        assert_eq!(facts.level, Level::Critical);
        let levels: Vec<Level> = facts.level_history.iter().map(|change| change.level).collect();
        assert_eq!(levels, [Level::High, Level::Critical]);
        assert_eq!(facts.recommended_capacity, Some(4500), "2000, those that are seen again, and a quarter");
        rig.window().resize(2500, rig.now);
        traffic.run(&mut rig, 40);
        let escaped = rig.facts().escaped_duplicates;
        traffic.run(&mut rig, 40);
        let facts = rig.facts();
        assert_eq!((facts.escaped_duplicates, facts.coverage), (escaped, 1.0), "{engine:?}");
        assert_near("pressure", facts.pressure.unwrap(), 0.8, 0.02);
        assert_near("duplicates per second", facts.rates.duplicate, 100.0, 0.02);
        assert!(facts.rates.escaped < 0.01);
        assert_eq!(facts.level, Level::High);
        assert_eq!(facts.ghost.keys, 0, "nothing is left of what was");
        rig.window().resize(4000, rig.now);
        traffic.run(&mut rig, 4);
        assert_eq!(rig.facts().level, Level::Ok);
    }
}

/// The same at a size at which `lru` has shards, which do not fill evenly.
#[test]
fn the_recommended_capacity_has_no_early_evictions() {
    for engine in EngineKind::ALL {
        let mut rig = Rig::new(engine, Limits { capacity: 3000, ..LIMITS });
        rig.tick();
        let mut traffic = Traffic::new(1000, 10);
        traffic.run(&mut rig, 20);
        let recommended = rig.facts().recommended_capacity.unwrap();
        assert!((45_000..=50_000).contains(&recommended), "{recommended}");
        rig.window().resize(usize::try_from(recommended).unwrap(), rig.now);
        let before = rig.facts().evictions["capacity"];
        traffic.run(&mut rig, 60);
        let facts = rig.facts();
        assert_eq!(facts.evictions["capacity"], before, "{engine:?}");
        assert_eq!((facts.level, facts.coverage), (Level::Ok, 1.0));
        // The same without any duplicates.
        let mut rig = Rig::new(engine, Limits { capacity: 3000, ..LIMITS });
        rig.tick();
        let mut traffic = Traffic::new(1000, 1_000_000);
        traffic.run(&mut rig, 20);
        let recommended = rig.facts().recommended_capacity.unwrap();
        assert_eq!(recommended, 30_000);
        rig.window().resize(usize::try_from(recommended).unwrap(), rig.now);
        let before = rig.facts().evictions["capacity"];
        traffic.run(&mut rig, 60);
        let facts = rig.facts();
        assert_eq!(facts.evictions["capacity"], before, "{engine:?}");
        assert_eq!((facts.level, facts.coverage), (Level::Ok, 1.0));
    }
}

/// Without a TTL the window remembers nothing. Every number must still be valid.
#[test]
fn a_ttl_of_zero_makes_no_number_that_is_none() {
    let mut rig = Rig::new(EngineKind::default(), Limits { ttl: Duration::ZERO, ..LIMITS });
    rig.tick();
    Traffic::new(10, 5).run(&mut rig, 20);
    let text = serde_json::to_string(&rig.facts()).unwrap();
    let facts: hapax_core::pressure::Facts = serde_json::from_str(&text).unwrap();
    assert_eq!((facts.coverage, facts.pressure.unwrap(), facts.level), (1.0, 0.0, Level::Ok));
}
