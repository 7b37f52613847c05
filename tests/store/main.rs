//! The stores: what a window remembers when its process is killed, and what several relays know of each other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is test code: a failed step is a failed test"
)]

#[path = "../e2e/mod.rs"]
mod e2e;
mod redis;
