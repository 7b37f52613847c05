//! `capacity = "auto"` with real windows under shifting traffic: the budget against the resident size of a process of its
//! own, and who gets how much. The arithmetic has its properties in `core/src/pressure/budget`.
//!
//! Time is virtual, so that a TTL takes as long as its publishes. `cargo test --test operator budget -- --nocapture` prints how it went.
#![allow(
    clippy::cast_possible_truncation,
    reason = "a failed step is a failed test, and what it saw is its output"
)]

use crate::ground::{resident, run_alone_with};
use hapax::config::{Config, Overrides};
use hapax_core::pressure::budget::{Refused, capacity_at_start};
use hapax_core::pressure::{Budget, Watched};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{Key, Mailbox, Ticket, Verdict, reserve_one};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const BUDGET: usize = 64 << 20;
/// Beside windows: what threads and the test itself take while it runs.
const OTHER: usize = 2 << 20;
const TTL: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const WINDOWS: usize = 4;
const THREADS: usize = 2;
/// Which engine the child is to use.
const CHILD: &str = "HAPAX_TEST_BUDGET_ENGINE";
/// The allocator gives unused pages back after ten real seconds. The child's ten minutes take about eight real seconds,
/// so its allocator waits for less in the same proportion.
pub(crate) const DECAY: (&str, &str) = ("_RJEM_MALLOC_CONF", "dirty_decay_ms:150,muzzy_decay_ms:0");

#[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
fn base() -> Instant {
    Instant::now()
}

/// Windows `w0`, `w1`… as a configuration would make them, and their budget.
fn build(engine: EngineKind, capacity: &str, budget: &str) -> (Vec<Watched>, Budget) {
    let mut text = format!("{budget}\n");
    for n in 0..WINDOWS {
        text.push_str(&format!(
            "[[window]]\nname = \"w{n}\"\nexchange = \"e{n}\"\ncapacity = {capacity}\nttl = \"{}s\"\nengine = \"{}\"\n",
            TTL.as_secs(),
            engine.name()
        ));
    }
    let config = Config::parse(Some("budget.toml"), &text, &Overrides::default()).expect("valid").config;
    (hapax::store::open(&config, base()).expect("opened").windows, config.budget())
}

/// Two threads that publish to all windows, at the given rates per (virtual) second.
struct Traffic {
    windows: Vec<Watched>,
    fresh: AtomicU64,
    now: Instant,
}

impl Traffic {
    /// One second of it.
    fn second(&self, rates: [usize; WINDOWS]) {
        std::thread::scope(|scope| {
            (0..THREADS).for_each(|_| drop(scope.spawn(move || self.work(rates))));
        });
    }

    /// One thread's part: fresh ids, and each fifth of them once more.
    fn work(&self, rates: [usize; WINDOWS]) {
        let mailbox = Arc::new(Mailbox::new());
        let most = rates.iter().max().copied().unwrap_or(0) / THREADS;
        // In turns, so that what they allocate lies side by side.
        for n in 0..most {
            for (watched, rate) in self.windows.iter().zip(rates) {
                if n < rate / THREADS {
                    self.publish(watched, &mailbox, self.now, n % 5 == 0);
                }
            }
        }
    }

    fn publish(&self, watched: &Watched, mailbox: &Arc<Mailbox>, now: Instant, twice: bool) {
        let id = u128::from(self.fresh.fetch_add(1, Relaxed))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let window = &watched.window;
        let key = Key(id & Key::MASK);
        match reserve_one(window, key, now, mailbox, Ticket(0)) {
            Verdict::Fresh(reservation) => drop(reservation.commit(now, window.ttl())),
            other => panic!("{other:?}"),
        }
        if twice {
            let again = reserve_one(window, key, now, mailbox, Ticket(0));
            assert!(matches!(again, Verdict::Duplicate(_) | Verdict::Fresh(_)), "{again:?}");
        }
    }
}

/// How many ids the budget has room for.
fn ids(engine: EngineKind) -> usize {
    capacity_at_start(engine, BUDGET, 1, 1)
}

/// A phase of the traffic: what each window's ids that live at a time are, in hundredths of the whole budget's.
struct Phase {
    name: &'static str,
    live: [usize; WINDOWS],
    ttls: u64,
    /// there is room for all, so nobody may lose an id
    fits: bool,
}

const PHASES: [Phase; 5] = [
    Phase { name: "all small", live: [5, 5, 5, 5], ttls: 1, fits: true },
    Phase { name: "one is large and borrows", live: [55, 3, 3, 3], ttls: 2, fits: true },
    Phase { name: "another takes its turn", live: [3, 55, 3, 3], ttls: 3, fits: false },
    Phase { name: "all want more than there is", live: [60, 60, 60, 60], ttls: 2, fits: false },
    Phase { name: "one wants more than there is", live: [5, 5, 5, 200], ttls: 2, fits: false },
];

#[test]
#[ignore = "a process of its own: see the_budget_holds_in_resident_bytes"]
fn child() {
    let name = std::env::var(CHILD).expect("started by the test");
    let engine = EngineKind::ALL.into_iter().find(|engine| engine.name() == name).expect("an engine");
    let start = base();
    let (windows, budget) = build(engine, "\"auto\"", &format!("memory_budget = {BUDGET}"));
    let mut traffic = Traffic { windows, fresh: AtomicU64::new(1), now: start };
    let before = resident("VmRSS:");
    for phase in &PHASES {
        run(phase, engine, &mut traffic, &budget, before);
    }
    let most = resident("VmHWM:") - before;
    println!("{name}: {} KiB at most, of {}", most >> 10, BUDGET >> 10);
    assert!(most <= BUDGET + OTHER, "{most} bytes resident");
    assert!(most >= BUDGET / 2, "a budget of which only {most} bytes are used");
}

fn run(phase: &Phase, engine: EngineKind, traffic: &mut Traffic, budget: &Budget, before: usize) {
    let ttl = usize::try_from(TTL.as_secs()).expect("small");
    let rates = phase.live.map(|live| live * ids(engine) / 100 / ttl);
    let seconds = phase.ttls * TTL.as_secs();
    let mut early = Vec::new();
    for second in 0..seconds {
        traffic.second(rates);
        let now = traffic.now;
        traffic.windows.iter().for_each(|watched| watched.tick(now));
        budget.tick(&traffic.windows, now);
        traffic.now += SECOND;
        let rss = resident("VmRSS:").saturating_sub(before);
        assert!(rss <= BUDGET + OTHER, "{} in second {second}: {rss} bytes resident", phase.name);
        if second == 5 || second == seconds - 1 {
            early = show(phase, second, &traffic.windows, now, rss);
        }
    }
    check(phase, engine, &traffic.windows, &early);
}

/// Prints, and tells the ids evicted early so far.
fn show(phase: &Phase, second: u64, windows: &[Watched], now: Instant, rss: usize) -> Vec<u64> {
    println!("{}, second {second}: {} KiB resident", phase.name, rss >> 10);
    let row = |watched: &Watched| {
        let facts = watched.facts(now);
        let early = facts.evictions["capacity"] + facts.evictions["resize"];
        println!(
            "    capacity {:8}  entries {:8}  recommended {:8}  pressure {:6.3}  bytes {:8} KiB  early {early}",
            facts.capacity.unwrap(),
            facts.entries.unwrap(),
            facts.recommended_capacity.unwrap_or(0),
            facts.pressure.unwrap(),
            facts.bytes >> 10
        );
        early
    };
    windows.iter().map(row).collect()
}

/// Everybody has what it asks for, or its share.
fn check(phase: &Phase, engine: EngineKind, windows: &[Watched], early: &[u64]) {
    let share = ids(engine) / WINDOWS;
    for (watched, live) in windows.iter().zip(phase.live) {
        let (capacity, wanted) = (watched.window.capacity().unwrap(), ids(engine) * live / 100);
        // Each of the four windows has its minimum, not one of them.
        let fair = wanted.min(share / 10 * 8);
        assert!(capacity >= fair, "{}: {capacity}, less than the {fair} that it may have", phase.name);
        assert!(live > 25 || capacity <= share, "{}: {capacity} without need", phase.name);
    }
    assert!(!phase.fits || early == [0; WINDOWS], "{}: there was room, but {early:?} had to go", phase.name);
}

/// Each engine in its own process: resident bytes are the process's.
#[test]
fn the_budget_holds_in_resident_bytes() {
    for engine in EngineKind::ALL.into_iter().filter(|engine| engine.resizes_in_place()) {
        println!("{}", run_alone_with("budget::child", &[(CHILD, engine.name()), DECAY]));
    }
}

/// A window may size itself, keep what it has, and size itself again; without a budget it can't.
#[test]
fn a_window_is_made_auto_and_fixed_while_it_runs() {
    let start = base();
    let (windows, budget) = build(EngineKind::default(), "5000", "memory_budget = \"64MiB\"");
    assert_eq!(
        (budget.budget_bytes(), budget.is_auto("w1"), budget.is_auto("nobody")),
        (Some(64 << 20), false, false)
    );
    let mailbox = Arc::new(Mailbox::new());
    let mut clock = start;
    let mut fill = |seconds: u32| {
        for _ in 0..seconds {
            clock += SECOND;
            for _ in 0..2000 {
                let id = Key(u128::from(next_id()));
                if let Verdict::Fresh(reservation) =
                    reserve_one(&windows[1].window, id, clock, &mailbox, Ticket(0))
                {
                    reservation.commit(clock, TTL);
                }
            }
            windows.iter().for_each(|watched| watched.tick(clock));
            budget.tick(&windows, clock);
        }
        windows[1].window.capacity().unwrap()
    };
    assert_eq!(fill(5), 5000, "fixed");
    assert_eq!(budget.set_auto("w1", true), Ok(()));
    let grown = fill(20);
    assert!(budget.is_auto("w1") && grown >= 2000 * 20, "{grown}");
    assert_eq!(budget.set_auto("w1", false), Ok(()));
    assert_eq!(fill(5), grown, "it keeps what it has");
    assert_eq!(windows[0].window.capacity(), Some(5000), "others are left alone");
    let (_, none) = build(EngineKind::default(), "5000", "");
    let refused = none.set_auto("w1", true).expect_err("no budget").to_string();
    assert!(refused.contains("memory_budget = \"512MiB\""), "{refused}");
    assert_eq!((none.is_auto("w1"), none.set_auto("w1", false)), (false, Ok(())));
    let (_, budget) = build(EngineKind::Moka, "5000", "memory_budget = \"64MiB\"");
    assert_eq!(budget.set_auto("w1", true), Err(Refused::Engine(EngineKind::Moka)));
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}
