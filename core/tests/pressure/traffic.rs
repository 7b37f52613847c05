//! Scripted traffic: the facts that an operator reads must show what the script did.

use crate::{LIMITS, Rig};
use hapax_core::pressure::facts::Bound;
use hapax_core::pressure::{Accounting, Level, Room};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{Event, Limits, Mode, Window};
use std::sync::Arc;
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
        assert_eq!((facts.level, facts.coverage, facts.oldest_seconds), (Level::High, 0.2, None));
        // It is four seconds old, so it knows nothing of what was published before.
        assert_eq!((facts.effective_seconds, facts.warming_seconds), (4.0, 16.0));
        assert_eq!((facts.recommended_capacity, facts.recommended_from), (None, 0.2));
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
        assert_eq!(levels, [Level::Warming, Level::High, Level::Critical]);
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

/// Until it is as old as its TTL, a window does not claim to keep its promise. A flush begins it anew.
#[test]
fn a_young_window_is_warming_and_says_for_how_long() {
    let mut rig = Rig::new(EngineKind::default(), Limits { capacity: 100_000, ..LIMITS });
    rig.tick();
    let mut traffic = Traffic::new(100, 1_000_000);
    let of = |rig: &Rig| {
        let facts = rig.facts();
        (facts.level, facts.warming_seconds, facts.coverage, facts.effective_seconds)
    };
    traffic.run(&mut rig, 5);
    assert_eq!(of(&rig), (Level::Warming, 15.0, 0.25, 5.0));
    traffic.run(&mut rig, 15);
    assert_eq!(of(&rig), (Level::Ok, 0.0, 1.0, 20.0));
    assert!(rig.window().flush(rig.now) > 0);
    assert_eq!(of(&rig).1, 20.0, "before the next tick, too");
    traffic.run(&mut rig, 1);
    assert_eq!(of(&rig), (Level::Warming, 19.0, 0.05, 1.0));
    traffic.run(&mut rig, 19);
    rig.window().set_ttl(Duration::from_secs(40));
    traffic.run(&mut rig, 10);
    assert_eq!(of(&rig).0, Level::Warming, "the ids of before have the old TTL");
    traffic.run(&mut rig, 31);
    assert_eq!(of(&rig), (Level::Ok, 0.0, 1.0, 40.0));
    rig.window().set_mode(Mode::Off);
    traffic.run(&mut rig, 1);
    assert_eq!(of(&rig).0, Level::Ok);
    rig.window().set_mode(Mode::Enforce);
    traffic.run(&mut rig, 1);
    assert_eq!(of(&rig).0, Level::Warming);
}

/// A relay that was asked for 20,000 ids in a second does not need room for a TTL of such seconds.
#[test]
fn one_burst_is_no_reason_for_a_thousand_times_as_much() {
    let mut rig = Rig::new(EngineKind::default(), Limits { ttl: Duration::from_secs(600), ..LIMITS });
    rig.tick();
    Traffic::new(20_000, 1_000_000).run(&mut rig, 1);
    let facts = rig.facts();
    assert_eq!((facts.recommended_capacity, facts.recommended_bytes), (None, None));
    assert!((0.001..0.002).contains(&facts.recommended_from), "{}", facts.recommended_from);
    assert_eq!(facts.arrived, 20_000);
    for _ in 0..700 {
        rig.now += Duration::from_secs(1);
        rig.tick();
    }
    let facts = rig.facts();
    assert_eq!((facts.recommended_capacity, facts.recommended_from), (Some(30_000), 1.0));
}

/// No capacity is recommended that the machine has no memory for, and the facts say why.
#[test]
fn no_more_is_recommended_than_the_machine_and_the_relay_can_hold() {
    for (memory, bound) in [(usize::MAX, None), (2 << 30, None), (2 << 20, Some(Bound::Memory))] {
        let accounting = Arc::new(Accounting::within(&Room::new(memory)));
        let mut rig = Rig::listening(EngineKind::default(), LIMITS, accounting.clone(), accounting);
        rig.tick();
        Traffic::new(5_000, 1_000_000).run(&mut rig, 20);
        let facts = rig.facts();
        assert_eq!(facts.recommended_bound, bound);
        let (ids, bytes) = (facts.recommended_capacity.unwrap(), facts.recommended_bytes.unwrap());
        assert!(bytes <= memory as u64 && (ids == 150_000) == bound.is_none(), "{ids} ids in {bytes} bytes");
    }
}

/// A window of 1,000 ids, and 20,000 or 400,000 of them that come twice. The ghost of the first has room for all. That of
/// the second has not, and says so in the number.
#[test]
fn escaped_duplicates_are_counted_or_estimated_however_many_there_are() {
    for ids in [20_000, 400_000] {
        let rig = Rig::new(EngineKind::default(), Limits { ttl: Duration::from_secs(600), ..LIMITS });
        rig.tick();
        (0..ids).for_each(|n| assert!(rig.publish(n)));
        rig.tick();
        let through = (0..ids).filter(|n| rig.publish(*n)).count() as f64;
        let facts = rig.facts();
        println!(
            "{ids} ids: {through} escaped, at least {}, about {}, {:?}",
            facts.escaped_duplicates, facts.escaped_duplicates_about, facts.ghost
        );
        assert!(through > ids as f64 * 0.99);
        assert_near("about", facts.escaped_duplicates_about as f64, through, 0.03);
        assert!(facts.escaped_duplicates as f64 <= through * 1.001);
        assert!(facts.ghost.bytes <= (1 << 20) + (64 << 10), "{} bytes", facts.ghost.bytes);
        if ids == 20_000 {
            assert_near("counted", facts.escaped_duplicates as f64, through, 0.005);
            assert_eq!(facts.ghost.watched, 1.0);
        } else {
            assert!(facts.ghost.watched < 1.0 && facts.ghost.dropped > 0);
        }
    }
}

/// Most publishes have no id. That is not well, and the accounting says what they have instead.
#[test]
fn a_window_that_sees_no_ids_is_blind() {
    let mut rig = Rig::new(EngineKind::default(), LIMITS);
    rig.tick();
    for second in 0..200 {
        for n in 0..97_u64 {
            rig.window().notice(Event::NoId);
            if rig.window().wants_names() {
                let names: [&[u8]; 2] = [b"x-request-id", b"correlation-id"];
                rig.window().note_names(if n % 16 == 3 { &names[..1] } else { &names });
            }
        }
        assert!((0..3).all(|n| rig.publish(second * 3 + n)));
        rig.now += Duration::from_secs(1);
        rig.tick();
    }
    let facts = rig.facts();
    assert_eq!((facts.level, facts.missing_ids.share), (Level::Blind, Some(0.97)));
    assert_eq!(facts.missing_ids.headers[0].name, "x-request-id");
    assert_eq!(facts.missing_ids.headers[0].share, 1.0);
}
