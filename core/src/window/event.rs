//! The closed list of what can happen in a window, and who listens.
//!
//! Two identities hold between calls (for moka: once nobody is inside one), and tests hold them:
//!
//! * fresh = entries + evicted (all causes) + forgotten (all causes) + in flight
//! * committed + committed in doubt = entries + evicted (all causes)
//!
//! (In flight are all reservations whose outcome is not known: those that were overtaken, too.)
//!
//! A publish that waits is counted `InFlight` when it is queued, and again by its final verdict: `Fresh` and `Promoted` or
//! `TakenOver`, or `Duplicate`, or `Refused`. So fresh = forwarded, duplicate = taken out, and in flight = how many had to wait for it.

use super::engine::Stamp;
use super::{Claim, Limits};

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

impl EvictionCause {
    /// Every cause.
    pub const ALL: [EvictionCause; 5] = [
        EvictionCause::Capacity,
        EvictionCause::Expired,
        EvictionCause::Resize,
        EvictionCause::Flush,
        EvictionCause::Forget,
    ];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            EvictionCause::Capacity => "capacity",
            EvictionCause::Expired => "expired",
            EvictionCause::Resize => "resize",
            EvictionCause::Flush => "flush",
            EvictionCause::Forget => "forget",
        }
    }
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
    /// the broker closed its channel because of it, or may have, or before it was sent
    ChannelClosed,
    /// its channel or the upstream connection ended before the outcome was known
    InDoubt,
    /// the client vanished before the message was complete
    Incomplete,
}

impl ForgetCause {
    /// Every cause.
    pub const ALL: [ForgetCause; 6] = [
        ForgetCause::Nack,
        ForgetCause::Returned,
        ForgetCause::Rollback,
        ForgetCause::ChannelClosed,
        ForgetCause::InDoubt,
        ForgetCause::Incomplete,
    ];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            ForgetCause::Nack => "nack",
            ForgetCause::Returned => "returned",
            ForgetCause::Rollback => "rollback",
            ForgetCause::ChannelClosed => "channel_closed",
            ForgetCause::InDoubt => "in_doubt",
            ForgetCause::Incomplete => "incomplete",
        }
    }
}

/// What happened. Those that concern one key come with it, and with when (`now`, on the window's own clock).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// verdict: fresh, at once or by promotion
    Fresh {
        /// of which key
        claim: Claim,
    },
    /// verdict: duplicate, at once or because what it had waited for was stored
    Duplicate {
        /// of which key
        claim: Claim,
        /// when
        now: Stamp,
    },
    /// verdict: in flight (the final one follows, if the publish still waits by then)
    InFlight,
    /// a publish without an id
    NoId,
    /// a publish with `x-hapax-bypass: true`
    Bypassed,
    /// a key became seen. What makes room for it is told after this.
    Committed {
        /// which
        claim: Claim,
        /// when
        now: Stamp,
        /// until when it will be remembered, if there is room
        until: Stamp,
    },
    /// a key became seen although its outcome is not known (`in_doubt = "keep"`)
    CommittedInDoubt {
        /// which
        claim: Claim,
        /// when
        now: Stamp,
        /// until when it will be remembered, if there is room
        until: Stamp,
    },
    /// a reservation was dropped
    Forgotten(ForgetCause),
    /// a waiter took the place of a first that failed (`Fresh` is told as well)
    Promoted,
    /// a waiter took the place of a first whose outcome did not come (`Fresh` is told as well)
    TakenOver,
    /// a publish was nacked that could not wait (waiters per id, or bytes held, at their bound), or not any longer
    Refused,
    /// a seen key was removed
    Evicted {
        /// which
        claim: Claim,
        /// its commit, or when it was last made young again
        at: Stamp,
        /// until when it ought to have been remembered
        until: Stamp,
        /// when
        now: Stamp,
        /// why
        cause: EvictionCause,
    },
    /// somebody had this one key made unknown, whether it was seen or not (if it was, its `Evicted` came before)
    Disowned {
        /// which
        claim: Claim,
    },
    /// somebody had all seen keys made unknown (their `Evicted` came before)
    Flushed,
}

/// Who is told. Called with a window's lock held: count and return.
///
/// `Fresh`, `Duplicate` and `Committed` are told with the key's lock held (one for all keys with the same
/// `key.shard(Key::LOCKS)`), so never by two threads at once for such keys. `Evicted` is told with the engine's lock held,
/// before anybody can see that the key is gone.
pub trait Listener: Send + Sync + std::fmt::Debug + 'static {
    /// Something happened.
    fn on(&self, event: &Event);
    /// Several things happened, one after the other, and all locks that they are told with are held together.
    fn on_all(&self, events: &[Event]) {
        events.iter().for_each(|event| self.on(event));
    }
    /// What is in force from now on: told when the window is made, and after each change. No lock is held.
    fn limits(&self, _: &Limits) {}
    /// Whether it is to be told where this fresh publish goes; it may do with a part of them.
    fn wants_origin(&self, _: Claim) -> bool {
        false
    }
    /// Where a fresh publish goes. No lock is held.
    fn origin(&self, _: &Origin<'_>) {}
}

/// Where a publish goes, as its publisher names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin<'a> {
    /// vhost
    pub vhost: &'a [u8],
    /// exchange; not the one that a window forwards to instead
    pub exchange: &'a [u8],
    /// routing key
    pub routing_key: &'a [u8],
}

/// Nobody.
#[derive(Debug, Default)]
pub struct Deaf;

impl Listener for Deaf {
    fn on(&self, _: &Event) {}
}
