//! Measures what an engine costs, by a window's own operations: reserve, and commit if the id is fresh. Nobody listens
//! to the window; `benches/window.rs` measures what the accounting adds.
//!
//! * `cargo bench --bench engines` is [`matrix`]: every engine × fresh, duplicate, evict, expire × sizes × 1 and 2
//!   threads, by criterion. It takes less than three minutes. Words select a part of it (`-- compact/evict`), and
//!   `HAPAX_IDS=10000,10000000` sets other sizes.
//! * `cargo bench --bench engines -- 10000 10000000` is [`table`]: bytes per id, and the ratios from the smallest size
//!   to the largest. The numbers are the sizes.

#![allow(clippy::expect_used, reason = "it may fail")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

#[path = "../../tests/support/ground.rs"]
mod ground;
mod matrix;
mod table;

use hapax_core::window::engine::EngineKind;
use hapax_core::window::event::NoListener;
use hapax_core::window::{Limits, LocalWindow, Mailbox, Mode, Rules, Ticket, Verdict, reserve_one};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let sizes: Result<Vec<u64>, _> = args.iter().map(|arg| arg.parse()).collect();
    match (&args[..], sizes) {
        ([child, engine, ids], _) if child == "--child" => table::child(engine, ids),
        ([_, ..], Ok(sizes)) => table::print(&sizes),
        _ => matrix::run(),
    }
}

fn window(engine: EngineKind, ids: u64, ttl: Duration) -> Arc<LocalWindow<NoListener>> {
    let rules = Rules::named("bench");
    let capacity = usize::try_from(ids).expect("so many");
    let limits =
        Limits { capacity, ttl, mode: Mode::Enforce, refresh_on_duplicate: false, waiters_per_id: 2 };
    LocalWindow::new(rules, limits, engine, Arc::new(NoListener))
}

/// Stores the n-th id. Returns true if it was new.
fn fresh(
    window: &Arc<LocalWindow<NoListener>>,
    mailbox: &Arc<Mailbox>,
    now: Instant,
    ttl: Duration,
    n: u64,
) -> bool {
    let verdict = reserve_one(window, ground::key(n), now, mailbox, Ticket(0));
    let Verdict::Fresh(reservation) = verdict else { return false };
    reservation.commit(now, ttl);
    true
}

/// Mixes a number by SplitMix64.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}
