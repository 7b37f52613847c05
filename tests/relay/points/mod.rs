//! The promises of the relay by their numbers, end to end: the relay as a process in front of a real
//! RabbitMQ. The session's own tests say the same by transcript, with a broker that does whatever a test wants; here it
//! is seen that the real one does what those assume.
#![allow(
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    reason = "a failed step is a failed test, and a few of them measure time"
)]

mod confirms;
mod conflicts;
mod frames;
mod liveness;
mod memory;
mod outcome;
mod paused;
mod rates;
mod republish;
mod routing;
mod scope;
mod signals;
mod stored;
mod strangers;
mod stuck;
mod tenants;
mod unread;
mod users;
mod vanished;

use crate::e2e::raw::{Raw, Told};

/// The tag that was acked, and nothing else said.
fn acked(told: &[Told]) -> u64 {
    match told {
        [Told::Ack { tag, .. }] => *tag,
        other => panic!("an ack and nothing else is expected: {other:?}"),
    }
}

/// How many messages a queue holds, seen by a client that stands at the broker itself.
fn held(direct: &mut Raw, queue: &str) -> usize {
    direct.drain(1, queue).len()
}
