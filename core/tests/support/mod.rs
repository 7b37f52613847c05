//! Helpers that the transcripts and the simulation share.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how a test fails")]
#![allow(
    clippy::wrong_self_convention,
    clippy::needless_pass_by_value,
    reason = "a transcript reads as it is said"
)]

pub mod cost;
pub mod frames;
pub mod late;
pub mod methods;
pub mod pair;
pub mod probe;
