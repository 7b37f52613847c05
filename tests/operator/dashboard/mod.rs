//! The dashboard in a real Chromium: before a stub of the API, for what a relay can't be made to say at will, and before
//! the relay itself.
//!
//! `HAPAX_SHOTS=DIR cargo test --test operator pictures` writes the screenshots of `docs/images`.
#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "this is test code and the shell: a failed step is a failed test, and deadlines read the clock"
)]

mod access;
pub(crate) mod browser;
mod controls;
mod drift;
mod facts;
mod numbers;
mod pictures;
mod process;
mod relay;
mod stub;
mod words;
