//! `hapax simulate`: the replay against a model that is simpler than any engine, properties of every trace, made-up
//! workloads against their own parameters, and the command as scripts see it.

use hapax::tools::simulate::{
    Delay, Grid, Ids, Options, Outcome, Recording, Setting, Share, Synthetic, Terms, TimeUnit, Trace,
    TraceBuilder, Unlimited, bytes_when_full, read, replay, study,
};
use hapax_core::window::engine::EngineKind;
use proptest::prelude::*;
use std::collections::HashMap;
use std::num::NonZero;
use std::time::Duration;

mod command;
mod restarts;

const SECOND: u64 = 1_000_000_000;

/// Moment in seconds, id, own TTL in seconds.
type Events = Vec<(u64, u8, Option<u64>)>;

fn trace(events: &Events) -> Trace {
    let mut trace = TraceBuilder::new();
    for (at, id, ttl) in events {
        trace.push(i128::from(at * SECOND), &[*id], ttl.map(Duration::from_secs));
    }
    trace.build()
}

fn setting(capacity: usize, ttl: u64, engine: EngineKind, refresh_on_duplicate: bool) -> Setting {
    Setting { capacity, ttl: Duration::from_secs(ttl), engine, refresh_on_duplicate }
}

fn replayed(events: &Events, setting: Setting) -> Outcome {
    replay(&trace(events), setting, &|_| {})
}

/// A list of ids, least recently seen first, without anything that has expired.
fn model(events: &Events, capacity: usize, ttl: u64, refresh: bool) -> (u64, u64, u64) {
    let mut seen: Vec<(u8, u64, u64)> = Vec::new();
    let mut promised: HashMap<u8, u64> = HashMap::new();
    let (mut caught, mut escaped, mut early) = (0, 0, 0);
    for (at, id, own) in events {
        seen.retain(|(_, until, _)| until > at);
        if let Some(place) = seen.iter().position(|(known, _, _)| known == id) {
            caught += 1;
            let (id, mut until, ttl) = seen.remove(place);
            if refresh {
                until = at + ttl;
                promised.insert(id, until);
            }
            seen.push((id, until, ttl));
            continue;
        }
        let ttl = own.unwrap_or(ttl);
        escaped += u64::from(promised.insert(*id, at + ttl).is_some_and(|until| until > *at));
        seen.push((*id, at + ttl, ttl));
        if seen.len() > capacity {
            seen.remove(0);
            early += 1;
        }
    }
    (caught, escaped, early)
}

fn events(own: bool) -> impl Strategy<Value = Events> {
    let ttl = if own { prop::option::weighted(0.2, 1..12_u64).boxed() } else { Just(None).boxed() };
    prop::collection::vec((0..4_u64, 0..10_u8, ttl), 0..60).prop_map(|steps| {
        let mut now = 0;
        let later = |(pause, id, ttl)| {
            now += pause;
            (now, id, ttl)
        };
        steps.into_iter().map(later).collect()
    })
}

/// The TTL for which each engine's promise is exact. moka may find later than others that an id has expired, and meanwhile evict
/// one that has not: for it, nothing expires here.
fn exact(engine: EngineKind, ttl: u64) -> u64 {
    if engine == EngineKind::Moka { 1_000_000 } else { ttl }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// A window of up to 8 ids: there, every engine looks at all of them before it pushes out one that has not expired.
    #[test]
    fn a_replay_counts_as_a_list_does(events in events(true), capacity in 1..=8_usize, ttl in 1..20_u64, refresh: bool) {
        for engine in EngineKind::ALL {
            if engine == EngineKind::Moka && events.iter().any(|(_, _, own)| own.is_some()) {
                continue;
            }
            let ttl = exact(engine, ttl);
            let outcome = replayed(&events, setting(capacity, ttl, engine, refresh));
            let counted = (outcome.caught, outcome.escaped, outcome.evicted_early);
            prop_assert_eq!(counted, model(&events, capacity, ttl, refresh), "{:?}", engine);
        }
    }

    /// As many ids as there are at the same time is what a window needs to be as good as one without a bound, to the id.
    #[test]
    fn unlimited_is_what_a_window_with_room_does(events in events(true), ttl in 1..20_u64, refresh: bool) {
        let unlimited = Unlimited::of(&trace(&events), Duration::from_secs(ttl), refresh);
        for engine in EngineKind::ALL {
            let enough = replayed(&events, setting(10, ttl, engine, refresh));
            prop_assert_eq!((enough.caught, enough.escaped), (unlimited.catchable, 0), "{:?}", engine);
        }
        let (_, _, early) = model(&events, unlimited.peak_ids, ttl, refresh);
        prop_assert_eq!(early, 0);
        if unlimited.peak_ids > 1 {
            let (_, _, early) = model(&events, unlimited.peak_ids - 1, ttl, refresh);
            prop_assert!(early > 0);
        }
    }

    /// A duplicate that a smaller window does not catch has escaped, for each engine and whatever it evicts.
    #[test]
    fn what_is_not_caught_escapes(events in events(false), capacity in 1..=10_usize, ttl in 1..20_u64) {
        let catchable = Unlimited::of(&trace(&events), Duration::from_secs(ttl), false).catchable;
        for engine in EngineKind::ALL {
            let Outcome { caught, escaped, evicted_early, .. } = replayed(&events, setting(capacity, ttl, engine, false));
            prop_assert!(caught <= catchable && catchable <= caught + escaped, "{:?}", engine);
            prop_assert!(escaped <= evicted_early, "{:?}", engine);
        }
    }

    /// Among capacities with exact order (one shard), a larger one never catches less, as long as nothing expires.
    #[test]
    fn a_larger_capacity_catches_no_less(events in events(false)) {
        for engine in EngineKind::ALL {
            let caught = |capacity| replayed(&events, setting(capacity, 1_000_000, engine, false)).caught;
            let caught: Vec<u64> = (1..=8).map(caught).collect();
            prop_assert!(caught.is_sorted(), "{:?}: {:?}", engine, caught);
        }
    }

    /// Without a bound, a longer TTL never catches less.
    #[test]
    fn a_longer_ttl_catches_no_less_if_there_is_room(events in events(false)) {
        let trace = trace(&events);
        let caught = |ttl| Unlimited::of(&trace, Duration::from_secs(ttl), false).catchable;
        prop_assert!((1..40).map(caught).collect::<Vec<_>>().is_sorted());
    }
}

/// With a bound, it may: expired ids make room for others, and with a longer TTL they have not expired yet.
#[test]
fn a_longer_ttl_may_catch_less_in_a_small_window() {
    let events = vec![(4, 0, None), (5, 3, None), (7, 0, None), (10, 1, None), (10, 3, None)];
    for engine in [EngineKind::Lru, EngineKind::Compact] {
        let caught = |ttl| replayed(&events, setting(2, ttl, engine, false)).caught;
        assert_eq!((caught(6), caught(7)), (2, 1), "{engine:?}");
    }
}

/// Where ids expire, it may: what a smaller window has let escape is remembered anew, and so for longer.
#[test]
fn a_larger_window_may_catch_less_where_ids_expire() {
    let steps = [
        (9, 5),
        (11, 0),
        (14, 3),
        (14, 2),
        (17, 5),
        (17, 0),
        (24, 1),
        (26, 5),
        (26, 0),
        (30, 3),
        (30, 4),
        (30, 1),
    ];
    let events = steps.into_iter().map(|(at, id)| (at, id, None)).collect();
    for engine in [EngineKind::Lru, EngineKind::Compact] {
        let counts = [3, 4].map(|capacity| replayed(&events, setting(capacity, 12, engine, false)));
        let [smaller, larger] = counts.map(|outcome| (outcome.caught, outcome.escaped));
        assert_eq!((smaller, larger), ((3, 2), (2, 1)), "{engine:?}");
    }
}

#[test]
fn an_escape_is_what_was_evicted_and_came_again_in_time() {
    // Room for two: a is pushed out by c, comes again within its TTL, and is remembered from then on.
    let events = vec![(0, 1, None), (1, 2, None), (2, 3, None), (3, 1, None), (12, 1, None), (13, 1, None)];
    for engine in EngineKind::ALL {
        let outcome = replayed(&events, setting(2, 10, engine, false));
        let Outcome { caught, escaped, evicted_early, peak_entries, peak_bytes } = outcome;
        // At 12, an unlimited window would have forgotten the first publish of a; this one remembers the one at 3.
        assert_eq!((caught, escaped, evicted_early, peak_entries), (1, 1, 2, 2), "{engine:?}");
        assert!(peak_bytes > 0);
        assert_eq!(Unlimited::of(&trace(&events), Duration::from_secs(10), false).catchable, 2);
    }
}

#[test]
fn memory_of_a_full_window_is_that_of_the_engine() {
    let bytes = EngineKind::ALL.map(|engine| bytes_when_full(10_000, engine) / 10_000);
    assert!(bytes.iter().all(|bytes| (20..600).contains(bytes)), "{bytes:?}");
    let lru = |capacity| bytes_when_full(capacity, EngineKind::Lru);
    assert!(lru(100_000) > 8 * lru(10_000));
}

fn made_up() -> Synthetic {
    Synthetic {
        rate: 500.0,
        duplicates: Share(0.2),
        delay: Delay::Exp(Duration::from_secs(2)),
        ids: Ids::Endless,
        events: 100_000,
        seed: 7,
    }
}

/// Whether it is within 5 %.
fn about(have: f64, want: f64) -> bool {
    (have - want).abs() <= want * 0.05
}

#[test]
fn a_made_up_workload_has_the_rate_share_and_delay_that_it_was_asked_for() {
    let trace = made_up().trace();
    assert_eq!(trace.events(), 100_000);
    assert!(about(trace.span().as_secs_f64(), 200.0), "{:?}", trace.span());
    assert!(about(trace.repeats() as f64, 20_000.0), "{}", trace.repeats());
    let quantile = |trace: &Trace, q| trace.repeat_delay(q).expect("repeats").as_secs_f64();
    // The median of an exponential distribution is its mean × ln 2.
    assert!(about(quantile(&trace, 0.5), 2.0 * std::f64::consts::LN_2), "{}", quantile(&trace, 0.5));
    let second = Duration::from_secs(1);
    let table = [
        (Delay::Fixed(3 * second), 3.0, 3.0),
        (Delay::Uniform(second, 5 * second), 3.0, 4.6),
        // 90 % lie below median × e^(σ × 1.2816).
        (Delay::LogNormal { median: second, sigma: 0.5 }, 1.0, (0.5_f64 * 1.2816).exp()),
    ];
    for (delay, half, nine_tenths) in table {
        let trace = Synthetic { delay, ..made_up() }.trace();
        let (have_half, have_nine) = (quantile(&trace, 0.5), quantile(&trace, 0.9));
        assert!(
            about(have_half, half) && about(have_nine, nine_tenths),
            "{delay:?}: {have_half}, {have_nine}"
        );
    }
}

#[test]
fn the_same_seed_is_the_same_workload() {
    let outcome = |seed| {
        let trace = Synthetic { seed, events: 5_000, ..made_up() }.trace();
        (trace.span(), trace.repeats(), replay(&trace, setting(100, 5, EngineKind::Lru, false), &|_| {}))
    };
    assert_eq!(outcome(1), outcome(1));
    assert_ne!(outcome(1).0, outcome(2).0);
}

#[test]
fn few_ids_come_again_by_themselves() {
    let trace = Synthetic { ids: Ids::Of(100), duplicates: Share(0.0), events: 5_000, ..made_up() }.trace();
    assert_eq!((trace.ids(), trace.repeats()), (100, 4_900));
}

/// 500 publishes a second, a fixed delay of 4 s: about 1,600 new ids stand between a publish and its repeat.
#[test]
fn the_smallest_setting_is_the_one_that_the_workload_needs() {
    let delay = Delay::Fixed(Duration::from_secs(4));
    let trace = Synthetic { delay, events: 20_000, ..made_up() }.trace();
    let ttls = vec![Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(60)];
    let grid = Grid { capacities: vec![100, 1_000, 4_000], ttls };
    // A repeat may be repeated: with a refresh, 5 s reach for these, too.
    let terms = Terms { engine: EngineKind::Lru, refresh_on_duplicate: true, target: 0.999 };
    let two = NonZero::new(2).expect("not 0");
    let found = study(&trace, &grid, terms, two, &());
    let smallest = found.smallest.expect("4,000 are enough");
    assert_eq!(smallest.ttl, Duration::from_secs(5), "the shortest that reaches");
    assert!((1_500..2_100).contains(&smallest.capacity), "{smallest:?}");
    let below = setting(smallest.capacity * 97 / 100, 5, EngineKind::Lru, true);
    let repeats = trace.repeats() as u64;
    assert!(!terms.met(replay(&trace, below, &|_| {}).caught, repeats), "it is the smallest, to a per cent");
    assert!(terms.met(smallest.outcome.caught, repeats));
    assert_eq!(found.enough_for(Duration::from_secs(1)), Some(100), "nothing is to be caught there");
    let alone = study(&trace, &grid, terms, NonZero::<usize>::MIN, &());
    assert_eq!(alone, found, "threads change nothing");
}

const OPTIONS: Options = Options { unit: None, reorder: Duration::from_secs(10) };

#[test]
fn traces_are_read_in_every_form() {
    let plain = "0,a\n1.5,b\n3,a\n";
    let forms = [
        plain,
        "\u{feff}time,id\r\n0,a\r\n\r\n1.5,b\r\n3,a",
        "# a comment\nqueue,ID,Timestamp\nq,a,100\nq,b,101.5\nq,a,103\n",
        "time,id,ttl\n0,a,\n 1.5 , \"b\" ,\n3,a,\n",
        "{\"time\":0,\"id\":\"a\"}\n\n{\"time\":\"1.5\",\"id\":\"b\",\"more\":[1]}\n{\"ts\":3,\"message_id\":\"a\",\"ttl\":null}\n",
        "1764022687000,a\n1764022688500,b\n1764022690000,a\n",
        "2026-11-24T22:18:00Z,a\n2026-11-24T23:18:01.5+01:00,b\n2026-11-24T22:18:03Z,a\n",
        "3,a\n0,a\n1.5,b\n",
    ];
    for form in forms {
        let input = read(form.as_bytes(), OPTIONS).expect("readable");
        assert_eq!(input.bad.first, [], "{form}");
        let trace = input.trace.build();
        assert_eq!((trace.events(), trace.ids(), trace.span().as_millis()), (3, 2, 3000), "{form}");
        assert_eq!(trace.repeat_delay(1.0), Some(Duration::from_secs(3)), "{form}");
    }
}

#[test]
fn a_ttl_of_its_own_is_kept() {
    for form in [
        "time,id,ttl\n0,a,2s\n1,a,\n5,a,\n6,a,\n",
        "{\"time\":0,\"id\":1,\"ttl\":2}\n{\"time\":1,\"id\":1}\n{\"time\":5,\"id\":1}\n{\"time\":6,\"id\":1}",
    ] {
        let trace = read(form.as_bytes(), OPTIONS).expect("readable").trace.build();
        assert_eq!(replay(&trace, setting(5, 60, EngineKind::Lru, false), &|_| {}).caught, 2, "{form}");
    }
}

#[test]
fn bad_lines_are_counted_and_the_first_are_told_with_their_numbers() {
    let text = "time,id\n1,a\nlater,b\n\n2\n# fine\n3,\n40,c\n29,d\n31,e\n1e999,f\nx\ny\n";
    let input = read(text.as_bytes(), OPTIONS).expect("readable");
    assert_eq!((input.bad.count, input.without_id), (6, 1));
    let numbers: Vec<u64> = input.bad.first.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [3, 5, 9, 11, 12]);
    let texts = ["no time in the unit \"s\"", "1 column(s)", "--reorder '12s'", "\"1e999\"", "1 column(s)"];
    for ((_, what), text) in input.bad.first.iter().zip(texts) {
        assert!(what.contains(text), "{text} in {what}");
    }
    assert_eq!(input.trace.build().events(), 3);
    let json = "{\"time\":1,\"id\":\"a\"}\n{\"id\":\"a\"}\n[1]\n{\"time\":true,\"id\":\"a\"}\n{\"time\":2,\"id\":\"a\"";
    let input = read(json.as_bytes(), OPTIONS).expect("readable");
    let numbers: Vec<u64> = input.bad.first.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [2, 3, 4, 5]);
}

#[test]
fn a_recording_says_how_well_it_went() {
    let head = "{\"hapax_record\":1,\"window\":\"orders\"}\n{\"time\":0.5,\"id\":\"00ff\"}\n";
    let whole = format!("{head}{{\"end\":{{\"events\":1,\"dropped\":3,\"seconds\":1.0}}}}\n");
    let cut = format!("{head}{{\"time\":0.6,\"i");
    for (text, recording) in [(whole, Recording::Whole { dropped: 3 }), (cut, Recording::Cut)] {
        let input = read(text.as_bytes(), OPTIONS).expect("readable");
        assert_eq!((input.bad.count, input.recording), (0, Some(recording)));
        assert_eq!(input.trace.build().events(), 1);
    }
    assert_eq!(read(&b"0,a\n"[..], OPTIONS).expect("readable").recording, None);
}

#[test]
fn the_unit_may_be_said() {
    let options = Options { unit: Some(TimeUnit::Ms), ..OPTIONS };
    let trace = read(&b"0,a\n1500,a\n"[..], options).expect("readable").trace.build();
    assert_eq!(trace.span(), Duration::from_millis(1500));
}
