//! The tools as their users run them: the load generator, the demo, the simulation of window sizes, and the recorder.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is test code: a failed step is a failed test"
)]

mod bench;
mod demo;
#[path = "../e2e/mod.rs"]
mod e2e;
mod record;
mod simulate;
