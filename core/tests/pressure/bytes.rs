//! The memory that `Facts` states must be the memory that a window takes. A fresh process fills a window, and its
//! resident size must grow by the stated amount, within a tenth. The resident size also contains what the allocator
//! itself needs, which a count of allocations would miss.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use crate::ground::{key, resident, run_alone};
use hapax_core::pressure::{Accounting, Facts, Watched};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{
    Limits, LocalWindow, Mailbox, Mode, Origin, Rules, Ticket, Verdict, Window, reserve_one,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The variable with the child's task: engine, capacity, ids per TTL, new ids in all.
const ORDER: &str = "HAPAX_BYTES";
const TTL: Duration = Duration::from_secs(600);

#[test]
fn bytes_are_what_the_process_grows_by() {
    let mut wrong = Vec::new();
    for engine in EngineKind::ALL {
        for (capacity, within_ttl, ids) in [
            (150_000, 120_000, 120_000), // not full, no ghost
            (150_000, 400_000, 400_000), // full for long, and a ghost that is half full
        ] {
            let order = format!("{} {capacity} {within_ttl} {ids}", engine.name());
            let text = run_alone("bytes::child", (ORDER, &order));
            let line = text
                .lines()
                .find_map(|line| line.split("measured ").nth(1))
                .unwrap_or_else(|| panic!("{text}"));
            let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().expect(line)).collect();
            let [said, grown, per_id, entries, beside] = numbers[..] else { panic!("{line}") };
            println!("{order}: {said} bytes said, {grown} grown, {per_id} per id");
            let ratio = said / grown;
            // The memory of the ids is divided among them. The sample of the what-if curve and the ghost are beside it.
            let per_id = per_id / ((grown - beside) / entries);
            if !(0.9..=1.1).contains(&ratio) || !(0.9..=1.1).contains(&per_id) {
                wrong.push(format!("{order}: {ratio:.3} of what it takes is said, {per_id:.3} per id"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Not a test of its own: the other test starts it in a child process.
#[test]
#[ignore = "it is the child of bytes_are_what_the_process_grows_by"]
fn child() {
    let order = std::env::var(ORDER).expect("an order");
    let words: Vec<&str> = order.split(' ').collect();
    let number = |n: usize| -> u64 { words[n].parse().expect("a number") };
    let engine = EngineKind::ALL.into_iter().find(|kind| kind.name() == words[0]).expect("an engine");
    let before = resident("RssAnon:");
    let (facts, _keep) = fill(engine, number(1), number(2), number(3));
    let grown = resident("RssAnon:") - before;
    let sample = facts.what_if.bytes + facts.ghost.bytes;
    println!("measured {} {grown} {} {} {sample}", facts.bytes, facts.bytes_per_id, facts.entries.unwrap());
}

fn fill(engine: EngineKind, capacity: u64, within_ttl: u64, ids: u64) -> (Facts, Watched) {
    let rules = Rules::named("bytes");
    let limits = Limits {
        capacity: usize::try_from(capacity).expect("a size"),
        ttl: TTL,
        mode: Mode::Enforce,
        refresh_on_duplicate: false,
        waiters_per_id: 4,
    };
    let accounting = Arc::new(Accounting::new());
    let window = LocalWindow::new(rules, limits, engine, accounting.clone());
    let (mailbox, mut now) = (Arc::new(Mailbox::new()), base());
    let watched = Watched { window: window.clone(), accounting };
    for n in 0..ids {
        now += TTL / u32::try_from(within_ttl).expect("small");
        match reserve_one(&window, key(n), now, &mailbox, Ticket(n)) {
            Verdict::Fresh(reservation) => drop(reservation.commit(now, TTL)),
            other => panic!("{n}: {other:?}"),
        }
        let (exchange, routing_key) = (b"orders", n.to_le_bytes());
        window.note_origin(&Origin { vhost: b"/", exchange, routing_key: &routing_key });
        if n % 1000 == 0 {
            watched.tick(now);
        }
    }
    (watched.facts(now), watched)
}

#[expect(clippy::disallowed_methods, reason = "one base instant; the test counts from there")]
fn base() -> Instant {
    Instant::now()
}
