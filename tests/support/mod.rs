//! What transcripts and the simulation have in common.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of it")]

pub mod frames;
pub mod late;
pub mod methods;
pub mod pair;
