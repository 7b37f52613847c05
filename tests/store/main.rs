//! The stores: what a window remembers when its process is killed, when its disk is full or damaged, and what the operator is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is test code: a failed step is a failed test"
)]

mod alone;
mod disk;
#[path = "../e2e/mod.rs"]
mod e2e;
mod exactly_once;
mod examples;
mod outage;
mod producers;
mod redis;
mod shown;
mod table;
