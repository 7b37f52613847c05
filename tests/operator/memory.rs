//! The memory that a window states against the resident size of a process of its own: for a pressed small window, for one that
//! was made smaller, and after a flush. `core/tests/pressure/bytes.rs` does the same for windows that fill, with all engines.

use crate::budget::DECAY;
use crate::ground::{key, resident, run_alone_with};
use hapax_core::pressure::{Accounting, Facts, Watched};
use hapax_core::window::engine::EngineKind;
use hapax_core::window::{Limits, LocalWindow, Mailbox, Mode, Rules, Ticket, Verdict, reserve_one};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TTL: Duration = Duration::from_secs(600);

#[expect(clippy::disallowed_methods, reason = "one base instant, and a deadline")]
fn clock() -> Instant {
    Instant::now()
}

fn window(capacity: usize) -> Watched {
    let limits =
        Limits { capacity, ttl: TTL, mode: Mode::Enforce, refresh_on_duplicate: false, waiters_per_id: 4 };
    let accounting = Arc::new(Accounting::new());
    let window = LocalWindow::new(Rules::named("memory"), limits, EngineKind::Compact, accounting.clone());
    Watched { window, accounting }
}

/// Publishes this many new ids within one TTL.
fn fill(watched: &Watched, ids: u64, from: Instant) -> Instant {
    let (mailbox, mut now) = (Arc::new(Mailbox::new()), from);
    for n in 0..ids {
        now += TTL / u32::try_from(ids).unwrap();
        if n % 1000 == 0 {
            watched.tick(now);
        }
        match reserve_one(&watched.window, key(n), now, &mailbox, Ticket(n)) {
            Verdict::Fresh(reservation) => drop(reservation.commit(now, TTL)),
            other => panic!("{n}: {other:?}"),
        }
    }
    // A TTL of traffic begins with the first tick.
    now += Duration::from_secs(2);
    watched.tick(now);
    now
}

/// Waits until the process has given back what it does not need: no more than this is left.
fn settles_at(most: usize, before: usize) -> usize {
    let deadline = clock() + Duration::from_secs(20);
    loop {
        let left = resident("RssAnon:").saturating_sub(before);
        if left <= most || clock() > deadline {
            return left;
        }
        // The allocator gives memory back by its own clock.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Returns what the process takes when the allocator has given back what was used before: it does not become less any more.
fn ground() -> usize {
    const SAME: u32 = 10;
    let (mut least, mut same, deadline) = (resident("RssAnon:"), 0, clock() + Duration::from_secs(10));
    while same < SAME && clock() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        let now = resident("RssAnon:");
        same = if now < least { 0 } else { same + 1 };
        least = least.min(now);
    }
    least
}

/// Compares the stated bytes with the growth of the process, when the allocator has given back unused memory.
fn near(what: &str, said: u64, before: usize) {
    near_to(what, said, before, 0.85..=1.15);
}

fn near_to(what: &str, said: u64, before: usize, ratios: RangeInclusive<f64>) {
    let said_bytes = usize::try_from(said).unwrap();
    let grown = settles_at(said_bytes + said_bytes / 10, before);
    let ratio = said as f64 / grown as f64;
    println!("{what}: {said} bytes said, {grown} grown, {ratio:.3}");
    assert!(ratios.contains(&ratio), "{what}: {said} bytes said, {grown} grown");
}

/// Windows of 1,000 ids that get 20,000 ids each: a hundred of them, so that pages do not matter.
#[test]
#[ignore = "a process of its own: see what_a_window_states_is_what_the_process_takes"]
fn pressed_child() {
    fill(&window(1000), 20_000, clock());
    let (before, start) = (ground(), clock());
    let windows: Vec<Watched> = (0..100).map(|_| window(1000)).collect();
    let ends: Vec<Instant> = windows.iter().map(|watched| fill(watched, 20_000, start)).collect();
    let facts: Vec<Facts> = windows.iter().zip(&ends).map(|(watched, now)| watched.facts(*now)).collect();
    near("pressed", facts.iter().map(|facts| facts.bytes).sum(), before);
    let one = &facts[0];
    println!(
        "{} bytes: store {}, ghost {}, what-if {}",
        one.bytes, one.store_bytes, one.ghost.bytes, one.what_if.bytes
    );
    assert!((40.0..56.0).contains(&one.bytes_per_id), "{} bytes an id", one.bytes_per_id);
    // A window of the recommended capacity takes what was stated.
    let (ids, bytes) = (one.recommended_capacity.unwrap(), one.recommended_bytes.unwrap());
    let before = ground();
    let roomy: Vec<Watched> = (0..20).map(|_| window(usize::try_from(ids).unwrap())).collect();
    for watched in &roomy {
        fill(watched, ids, start);
    }
    // It is stated for the largest sample of the what-if curve, which a window that is large enough does not fill.
    near_to("recommended", bytes * 20, before, 0.85..=1.35);
}

#[test]
#[ignore = "a process of its own: see what_a_window_states_is_what_the_process_takes"]
fn smaller_child() {
    fill(&window(1000), 20_000, clock());
    let before = ground();
    let watched = window(600_000);
    let now = fill(&watched, 600_000, clock());
    let large = watched.facts(now);
    println!("600,000 ids: {} bytes resident, {} said", resident("RssAnon:") - before, large.bytes);
    watched.window.resize(60_000, now);
    watched.tick(now);
    let small = watched.facts(now);
    assert!((59_000..=60_000).contains(&small.entries.unwrap()), "{:?}", small.entries);
    near("made smaller", small.bytes, before);
    assert!(small.bytes < large.bytes / 3, "{} of {}", small.bytes, large.bytes);
    assert!((40.0..50.0).contains(&small.bytes_per_id), "{} bytes an id", small.bytes_per_id);
    watched.window.flush(now);
    watched.tick(now);
    let flushed = watched.facts(now);
    assert!(flushed.store_bytes < 200_000 && flushed.ghost.bytes == 0, "{flushed:?}");
    let left = settles_at(usize::try_from(flushed.bytes).unwrap() + (3 << 20), before);
    println!("flushed: {} bytes said, {left} left", flushed.bytes);
    assert!(left <= usize::try_from(flushed.bytes).unwrap() + (3 << 20), "{left} bytes are left");
}

#[test]
fn what_a_window_states_is_what_the_process_takes() {
    for child in ["memory::pressed_child", "memory::smaller_child"] {
        println!("{}", run_alone_with(child, &[DECAY]));
    }
}
