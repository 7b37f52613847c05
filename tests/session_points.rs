//! The twelve points of the design (section 3), as transcripts of one session between a client and an upstream: each test is
//! named after its point. The clock is virtual.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how a test fails")]

mod session;
mod support;
