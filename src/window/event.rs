//! The closed list of what can happen in a window, and who listens.

use std::time::Duration;

/// Why a seen key was removed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EvictionCause {
    /// pushed out before its TTL was over
    Capacity,
    /// its TTL was over
    Expired,
    /// the capacity was lowered
    Resize,
    /// the window was flushed
    Flush,
    /// somebody asked for this one key
    Forget,
}

/// Why a reservation was given up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ForgetCause {
    /// the upstream nacked it
    Nack,
    /// the upstream returned it as unroutable
    Returned,
    /// `tx.rollback`
    Rollback,
    /// its channel was closed before the outcome was known
    ChannelClosed,
    /// the upstream connection died before the outcome was known
    InDoubt,
    /// the client vanished before the message was complete
    Incomplete,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// verdict: fresh
    Fresh,
    /// verdict: duplicate. `waited` = it had waited in flight first and was then stored
    Duplicate,
    /// verdict: in flight
    InFlight,
    /// a publish without an id
    NoId,
    /// a publish with `x-hapax-bypass: true`
    Bypassed,
    /// a key became seen
    Committed,
    /// a key became seen although its outcome is not known (`in_doubt = "keep"`)
    CommittedInDoubt,
    /// a reservation was dropped
    Forgotten(ForgetCause),
    /// a waiter took the place of a first that failed
    Promoted,
    /// a waiter could not be kept (waiters per id, or bytes held, at their bound)
    Refused,
    /// a seen key was removed at this age
    Evicted {
        /// since its commit
        age: Duration,
        /// why
        cause: EvictionCause,
    },
}

/// Who is told. Called with a window's lock held: count and return.
pub trait Listener: Send + Sync + std::fmt::Debug {
    /// Something happened.
    fn on(&self, event: &Event);
}

/// Nobody.
#[derive(Debug, Default)]
pub struct Deaf;

impl Listener for Deaf {
    fn on(&self, _: &Event) {}
}
