//! The relay as a process in front of a real RabbitMQ: the promises for every publish, hostile clients, client libraries,
//! and chaos.
//!
//! The tests share one node ([`e2e::site::shared_rabbit`]), each in a vhost of its own. A test that does something to a
//! whole node, such as a memory alarm or a kill, starts a node for itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is test code: a failed step is a failed test"
)]

mod chaos;
mod clients;
mod clients_lapin;
mod clients_sequences;
mod clients_shovel;
mod closes;
mod closes_unread;
mod drain_over;
#[path = "../e2e/mod.rs"]
mod e2e;
mod ground;
mod guard;
mod hostile;
mod identity;
mod points;
mod proxy;
mod record_first;
mod reload;
mod restart;
mod routing_cost;
mod stream;
mod tls;
mod troubled;
mod upstreams;
