//! The simulation: real sessions and windows between model clients and a model broker, under a virtual clock.
//!
//! A seed decides everything. [`world`] steps through it: [`client`]s and [`broker`]s write frames, [`streams`] carry
//! them in pieces, [`link`] plays the shell around one session, [`tap`] judges what the session writes, [`truth`] knows
//! what became of every publish and says when an invariant is broken.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "that is how a test fails")]
#![allow(clippy::cast_possible_truncation, reason = "the models' numbers are small")]
#![allow(
    clippy::wrong_self_convention,
    clippy::needless_pass_by_value,
    reason = "a step reads as it is said"
)]

pub mod broker;
pub mod broker_channel;
pub mod client;
pub mod client_channel;
pub mod content;
pub mod ctx;
pub mod hostile;
pub mod link;
pub mod plan;
pub mod relay;
pub mod rng;
pub mod runs;
pub mod schedule;
pub mod streams;
pub mod tap;
pub mod transcript;
pub mod truth;
pub mod users;
pub mod watch;
pub mod windows;
pub mod world;
