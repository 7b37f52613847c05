//! The simulation: real sessions and windows between model clients and a model broker, under a virtual clock.
//!
//! A seed decides everything; how to replay a failure stands in `docs/testing.md`. [`world`] steps through it: [`client`]s and
//! [`broker`]s write frames, [`streams`] carry them in pieces, [`link`] plays the shell around one session, [`tap`] judges what
//! the session writes, [`truth`] knows what became of every publish and says when an invariant is broken.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how a test fails")]
#![allow(clippy::cast_possible_truncation, reason = "the models' numbers are small")]
#![allow(
    clippy::wrong_self_convention,
    clippy::needless_pass_by_value,
    reason = "a step reads as it is said"
)]

#[path = "../support/mod.rs"]
mod support;

mod broker;
mod broker_channel;
mod client;
mod client_channel;
mod content;
mod ctx;
mod hostile;
mod jobs;
mod link;
mod plan;
mod relay;
mod rng;
mod runs;
mod schedule;
mod shelf;
mod streams;
mod tap;
mod transcript;
mod truth;
mod users;
mod watch;
mod windows;
mod world;

use runs::{Report, STEPS, run, run_many, survey};
use world::Middle;

/// The base of the seeds that CI runs.
const BASE: u64 = 20_091;

fn from_env<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// The models by themselves: what they do to each other is legal, and nothing is lost on a plain wire.
#[test]
fn models_agree_without_a_relay() {
    let report = run_many(BASE, from_env("HAPAX_SIM_STEPS").unwrap_or(200_000), Middle::Wire);
    println!("{report:#?}");
}

/// A million steps, or one run where `HAPAX_SIM_SEED` says which.
#[test]
fn simulation_million_steps() {
    if let Some(seed) = from_env("HAPAX_SIM_SEED") {
        run(seed, STEPS, Middle::Sessions, &mut Report::default());
        return;
    }
    let base = from_env("HAPAX_SIM_BASE").unwrap_or(BASE);
    let total = from_env("HAPAX_SIM_STEPS").unwrap_or(1_000_000);
    let report = run_many(base, total, Middle::Sessions);
    println!("{report:#?}");
    if total >= 1_000_000 {
        let rare: Vec<_> = MUST_HAPPEN.iter().filter(|what| report.count(what) < 10).collect();
        assert!(rare.is_empty(), "hardly ever, so hardly tested: {rare:?} in {report:#?}");
    }
}

/// Seeds that were red once. `docs/testing.md` tells the fault of each.
const KEPT: [u64; 18] = [
    600_305, 610_160, 700_542, 700_610, 710_012, 710_338, 711_122, 712_384, 712_656, 800_026, 801_572,
    802_004, 900_650, 901_009, 3_000_864, 4_000_649, 4_001_209, 8_002_020,
];

#[test]
fn seeds_that_were_red_once() {
    KEPT.iter().for_each(|seed| _ = run(*seed, STEPS, Middle::Sessions, &mut Report::default()));
}

/// Events that must occur within a million steps. Without them a run would prove little.
const MUST_HAPPEN: [&str; 75] = [
    "broker closed a channel",
    "broker closed a connection",
    "broker nacked",
    "broker refused a user",
    "client answered by multiple",
    "client committed",
    "client froze",
    "client nacked",
    "client returned",
    "client told by a nack",
    "client told by a return",
    "client vanished",
    "client was closed",
    "client's channel was closed",
    "closed before the outcome",
    "closed by force",
    "delivered",
    "delivered with an id",
    "drained",
    "drained to the end",
    "dropped",
    "duplicate answered",
    "duplicate of one in doubt answered",
    "guard: a tag is used again",
    "guard: given back",
    "guard: hidden",
    "guard: job shown",
    "guard: job settled",
    "guard: waited",
    "hostile: half a message",
    "hostile: impostor",
    "hostile: intrudes",
    "hostile: its channel was closed",
    "hostile: key holder",
    "hostile: many channels",
    "hostile: may publish",
    "hostile: neighbour",
    "hostile: second thoughts",
    "hostile: stranger",
    "hostile: tenant",
    "hostile: was closed",
    "looks like others",
    "probe",
    "recovered",
    "relay asked for a sign",
    "released",
    "relay: a client is cut",
    "relay: a client is spared",
    "relay: a copy",
    "relay: a line of the audit",
    "relay: a publish comes again",
    "relay: acks are held",
    "relay: an ack is dropped",
    "relay crashed",
    "relay: held back by a rate",
    "republished",
    "returned to the relay alone",
    "rollback",
    "store: failed",
    "store: late commit",
    "store: late verdict",
    "store: overdue commit, acked anyway",
    "store: overdue verdict",
    "store: overdue, waited on",
    "store: second verdict",
    "store: verdict for a question that was withdrawn",
    "upstream lost",
    "window: a tenant made room",
    "window: duplicate",
    "window: evicted early",
    "window: in flight",
    "window: promoted",
    "window: refused",
    "window: released",
    "window: stale",
];

/// A seed decides everything, the order of what the sessions write included: otherwise no failure would replay.
#[test]
fn same_seed_same_run() {
    for seed in BASE..BASE + 20 {
        let digest = || run(seed, STEPS, Middle::Sessions, &mut Report::default());
        assert_eq!(digest(), digest(), "seed {seed}");
    }
}

/// All that is broken, a line each, instead of the first alone: `HAPAX_SIM_RUNS=300 cargo test -p hapax-core --test simulation
/// survey`.
#[test]
fn simulation_survey() {
    let runs = from_env("HAPAX_SIM_RUNS").unwrap_or(10);
    let failures = survey(from_env("HAPAX_SIM_BASE").unwrap_or(BASE), runs, Middle::Sessions);
    assert!(failures.is_empty(), "{} of {runs} runs failed:\n{}", failures.len(), failures.join("\n"));
}
