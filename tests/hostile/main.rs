//! Hostile clients in front of a real RabbitMQ: what a client without the right does changes nothing that another client
//! sees, and tells it nothing that the broker would not.
//!
//! Four users stand on each stage: one may do everything, one may write to one exchange, one may write nowhere, and one may
//! write only some routing keys of a topic exchange. Where the question is what a client can find out, the same octets are
//! said to the broker and to the relay, and the two transcripts must be the same. The other tests count messages: in the
//! queue, acked, nacked.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a failed step is a failed test, and a few of them measure time"
)]

#[path = "../e2e/mod.rs"]
mod e2e;

mod before_login;
mod channels;
mod closed_by_broker;
mod copies;
mod oracle;
mod probes;
mod returns;
mod rights;
mod script;
mod stage;
