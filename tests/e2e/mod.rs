//! The ground of the end-to-end tests: a real RabbitMQ, the relay as a process, and a client of our own that hides
//! nothing.
//!
//! A test asks for a [`site::Site`]: a vhost of its own on the node that its test binary shares, with the relay before
//! it. Where the relay stands is one parameter, to tell our bug from a test's:
//!
//! * nothing set: clients go through `hapax`;
//! * `HAPAX_E2E_DIRECT=1`: clients go straight to RabbitMQ. Tests of what only the relay does are passed over;
//! * `HAPAX_E2E_FORWARD=1`: clients go through a forwarder that reads nothing ([`cut::Cut`]), likewise.
//!
//! Nothing here sleeps for time to pass: every wait is for an event, with a deadline.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "this is test code and the shell: a failed step is a failed test, and deadlines read the clock"
)]

pub mod cut;
pub mod http;
pub mod kills;
pub mod load;
pub mod pki;
pub mod prometheus;
pub mod publisher;
pub mod raw;
pub mod relay;
pub mod retry;
pub mod site;
pub mod tunnel;
pub mod wait;
