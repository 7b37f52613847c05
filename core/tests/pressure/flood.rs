//! Sends distinct ids at full speed through a window that holds a tenth of them. Memory and latency must stay flat,
//! and the facts must be right.
//!
//! `cargo test --release -p hapax-core --test pressure flood -- --nocapture` sends 10,000,000 ids through 1,000,000. A
//! debug build sends a thirtieth of that.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a failed step is a failed test, and what it saw is its output"
)]

use crate::ground::{key, resident, run_alone};
use hapax_core::pressure::{Accounting, Facts, Level, Watched};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{Limits, LocalWindow, Mailbox, Mode, Rules, Ticket, Verdict, reserve_one};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CAPACITY: u32 = if cfg!(debug_assertions) { 30_000 } else { 1_000_000 };
const PARTS: u32 = 10;
/// The TTL on the window's clock. Within it, twice as many ids arrive as there is room for.
const TTL: Duration = Duration::from_secs(600);

#[test]
fn ten_million_ids_through_a_window_of_one_million() {
    println!("{}", run_alone("flood::child", ("", "")));
}

/// Not a test of its own: the other test starts it in a child process, because it measures its process.
#[test]
#[ignore = "it is the child of ten_million_ids_through_a_window_of_one_million"]
fn child() {
    for engine in EngineKind::ALL {
        let mut flood = Flood::new(engine);
        println!("{:>8}  part  resident MB  ns per id: median     99 %   99.9 %  longest", engine.name());
        let parts: Vec<Part> = (0..PARTS).map(|part| flood.part(part)).collect();
        // After three parts, the window and its ghost are full.
        let (third, last) = (&parts[3], &parts[9]);
        let grown = last.resident as f64 / third.resident as f64;
        assert!(grown < 1.1, "{engine:?}: memory has grown by {grown:.2} since the third part");
        // Other processes disturb a test more than a bench, but a latency that is not flat would be ten times slower.
        let slower = last.median / third.median;
        assert!(slower < 4.0, "{engine:?}: {slower:.2} times slower than in the third part");
        check(&flood.watched.facts(flood.now));
    }
}

fn check(facts: &Facts) {
    let (capacity, all) = (u64::from(CAPACITY), u64::from(CAPACITY * PARTS));
    assert_eq!((facts.publishes.fresh, facts.commits, facts.entries), (all, all, Some(capacity)));
    assert_eq!(facts.evictions["capacity"], all - capacity);
    assert_eq!(facts.evictions["expired"], 0);
    // All ids were new, so every escaped duplicate is a mistake of the ghost.
    assert!(facts.escaped_duplicates as f64 <= 3.0 + all as f64 * facts.ghost.false_positive_rate * 1.5);
    let pressure = facts.pressure.unwrap();
    assert!((pressure - 2.0).abs() < 0.05, "{pressure}");
    assert!((facts.coverage - 0.5).abs() < 0.04, "{}", facts.coverage);
    assert_eq!(facts.level, Level::Critical);
    let recommended = facts.recommended_capacity.expect("there was traffic") as f64 / capacity as f64;
    assert!((3.0..3.3).contains(&recommended), "{recommended}");
    // The ghost holds as many live keys as the window has room for, plus expired ones that were not removed yet.
    assert!((0.95..1.6).contains(&(facts.ghost.keys as f64 / capacity as f64)), "{:?}", facts.ghost);
    assert!(facts.ghost.dropped <= capacity / 1000);
}

struct Flood {
    watched: Watched,
    mailbox: Arc<Mailbox>,
    now: Instant,
    next: u64,
}

struct Part {
    resident: usize,
    median: f64,
}

impl Flood {
    fn new(engine: EngineKind) -> Flood {
        let rules = Rules::named("flood");
        let limits = Limits {
            capacity: CAPACITY as usize,
            ttl: TTL,
            mode: Mode::Enforce,
            refresh_on_duplicate: false,
            waiters_per_id: 4,
        };
        let accounting = Arc::new(Accounting::new());
        let window = LocalWindow::new(rules, limits, engine, accounting.clone());
        let watched = Watched { window, accounting };
        Flood { watched, mailbox: Arc::default(), now: clock(), next: 0 }
    }

    /// Sends as many ids as the window has room for.
    fn part(&mut self, part: u32) -> Part {
        let mut spans = Vec::with_capacity(CAPACITY as usize);
        for n in 0..CAPACITY {
            self.now += TTL / (2 * CAPACITY);
            self.next += 1;
            if n % (CAPACITY / 300) == 0 {
                self.watched.tick(self.now);
            }
            let (key, begin) = (key(self.next), clock());
            match reserve_one(&self.watched.window, key, self.now, &self.mailbox, Ticket(self.next)) {
                Verdict::Fresh(reservation) => drop(reservation.commit(self.now, TTL)),
                other => panic!("{}: {other:?}", self.next),
            }
            spans.push(u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
        spans.sort_unstable();
        let at = |share: f64| f64::from(spans[(share * f64::from(CAPACITY - 1)) as usize]);
        let (resident, median) = (resident("VmRSS:"), at(0.5));
        println!(
            "{:>14} {:>12.1} {:>19.0} {:>8.0} {:>8.0} {:>8.0}",
            part + 1,
            resident as f64 / 1e6,
            median,
            at(0.99),
            at(0.999),
            at(1.0)
        );
        Part { resident, median }
    }
}

#[expect(clippy::disallowed_methods, reason = "latency is measured")]
fn clock() -> Instant {
    Instant::now()
}
