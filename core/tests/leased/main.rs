//! Relays that share one Redis. [`redis`] is a model of Redis that is dumber than the code. [`examples`] are transcripts, [`races`] those in
//! which two things happen at the same time; in [`relays`]
//! two or three relays and their publishers do random things, relays are killed and paused, connections are cut, and a model
//! looks at the history of the verdicts. A seed replays it.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how a test fails")]

mod examples;
mod races;
mod redis;
mod relays;
#[allow(dead_code, reason = "the simulation uses all of it")]
#[path = "../simulation/rng.rs"]
mod rng;
mod sequences;

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
fn base() -> Instant {
    Instant::now()
}
