//! The dashboard in a real Chromium: before a stub of the API, for what a relay can't be made to say at will, and before
//! the relay itself.
//!
//! `HAPAX_SHOTS=DIR cargo test --test dashboard pictures` writes the screenshots of `docs/images`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "this is test code and the shell: a failed step is a failed test, and deadlines read the clock"
)]

mod access;
mod browser;
mod controls;
#[path = "../e2e/mod.rs"]
mod e2e;
mod facts;
mod pictures;
mod relay;
mod stub;
