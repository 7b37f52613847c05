//! The closed list of the events of a window, and the trait of its listeners. The window reports most of them itself; a session reports
//! the others by [`Window::notice`](super::Window::notice).
//!
//! Two identities hold between calls (for moka: when no call is under way), and tests check them:
//!
//! * fresh + republished + recovered = entries + evicted (all causes) + forgotten (all causes) + in flight
//! * committed + committed in doubt + recovered = entries + evicted (all causes)
//!
//! ("In flight" counts all reservations whose outcome is not known, overtaken ones included.)
//!
//! A publish that waits is counted as `InFlight` when it is queued, and again by its final verdict: `Fresh` with `Promoted` or
//! `TakenOver`, or `Duplicate`, or `Refused`. The count of `Fresh` is therefore the number of forwarded publishes, that of `Duplicate`
//! the number of publishes taken out, and that of `InFlight` the number of publishes that had to wait. A conflict is counted as a
//! `Duplicate` first. With `on_conflict = "forward"` it is forwarded, and counted as `Fresh`, too. A publish that a consumer makes of
//! its own delivery is counted as `Republished` and not as `Fresh`: it is forwarded, too.

use super::engine::{Entry, Stamp};
use super::{Claim, Key, Limits, Refusal, Told};

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
    /// its id was stored again with another body (`on_conflict = "forward"`)
    Superseded,
    /// a consumer publishes its message again: the key is in flight from now on
    Republished,
    /// a consumer has acked its message (`release = "consumed"`)
    Consumed,
}

impl EvictionCause {
    /// Every cause.
    pub const ALL: [EvictionCause; 8] = [
        EvictionCause::Capacity,
        EvictionCause::Expired,
        EvictionCause::Resize,
        EvictionCause::Flush,
        EvictionCause::Forget,
        EvictionCause::Superseded,
        EvictionCause::Republished,
        EvictionCause::Consumed,
    ];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            EvictionCause::Capacity => "capacity",
            EvictionCause::Expired => "expired",
            EvictionCause::Resize => "resize",
            EvictionCause::Flush => "flush",
            EvictionCause::Forget => "forget",
            EvictionCause::Superseded => "superseded",
            EvictionCause::Republished => "republished",
            EvictionCause::Consumed => "consumed",
        }
    }
}

/// Why a reservation was given up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ForgetCause {
    /// the upstream nacked it
    Nack,
    /// the upstream returned it as unroutable, and its client had asked for that
    Returned,
    /// the upstream returned it as unroutable, and only Hapax had asked for that
    Unroutable,
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
    pub const ALL: [ForgetCause; 7] = [
        ForgetCause::Nack,
        ForgetCause::Returned,
        ForgetCause::Unroutable,
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
            ForgetCause::Unroutable => "unroutable",
            ForgetCause::Rollback => "rollback",
            ForgetCause::ChannelClosed => "channel_closed",
            ForgetCause::InDoubt => "in_doubt",
            ForgetCause::Incomplete => "incomplete",
        }
    }
}

/// An event of a window. An event that concerns one claim names it; `now` is the time on the window's own clock.
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
    /// a publish of a seen id has another body than the one that was stored (its `Duplicate` came before)
    Conflict {
        /// of which key
        claim: Claim,
    },
    /// a publish of a seen id was forwarded because its body was too large to hold until it could be compared
    /// (`on_conflict = "forward"`)
    Uncompared,
    /// what the publisher of a duplicate was told (`on_duplicate`; the duplicate's own event came before)
    Told(Told),
    /// a consumer publishes its message again: a new message, whatever was known of its key
    Republished {
        /// of which key
        claim: Claim,
    },
    /// a number was refused (`id = "sequence"`): its producer has begun a higher epoch, or numbers before it are missing
    OutOfSequence(Refusal),
    /// a number was let through before numbers that are lower have been (its `Fresh` came before)
    Gap,
    /// a number was let through that is too low to be known by a bit, and is not known to be stored (its `Fresh` came before)
    Below,
    /// a publish without an id
    NoId,
    /// a publish with `x-hapax-bypass: true`
    Bypassed,
    /// a key became seen; if another one has to make room for it, its event comes after this one
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
    /// a key became seen because its store says so: an earlier run of this process has committed it, or another relay
    Recovered {
        /// which
        claim: Claim,
        /// when it was committed
        at: Stamp,
        /// until when it will be remembered, if there is room
        until: Stamp,
    },
    /// a reservation was given up: its message was not stored, or nobody knows
    Forgotten(ForgetCause),
    /// a waiter took the place of a publish that was not stored (the event `Fresh` comes as well)
    Promoted,
    /// a waiter took the place of a publish whose outcome did not come in time (the event `Fresh` comes as well)
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

impl Event {
    /// Returns the event of a key that leaves the store. An entry whose TTL is over counts as expired, whatever removed it.
    pub(super) fn evicted(now: Stamp, key: Key, entry: Entry, cause: EvictionCause) -> Event {
        let cause = if entry.is_expired(now) { EvictionCause::Expired } else { cause };
        Event::Evicted { claim: key.into(), at: entry.at, until: entry.until, now, cause }
    }
}

/// A listener of a window's events. It is called with a lock of the window held, so it should count and return.
///
/// For `Fresh`, `Duplicate` and `Committed` the key's lock is held. All keys with the same `key.shard(Key::LOCKS)` have the same
/// lock, so two threads never bring events of such keys at the same time. For `Evicted` the engine's lock is held, and no other
/// thread can see yet that the key is gone.
pub trait Listener: Send + Sync + std::fmt::Debug + 'static {
    /// Takes an event.
    fn on(&self, event: &Event);
    /// Takes several events in their order. The locks of all of them are held together.
    fn on_all(&self, events: &[Event]) {
        events.iter().for_each(|event| self.on(event));
    }
    /// Takes the limits that are in force from now on. Called when the window is made, and after each change. No lock is held.
    fn limits(&self, _: &Limits) {}
    /// Returns true if the listener wants to know where this fresh publish goes. It may ask for a sample only.
    fn wants_origin(&self, _: Claim) -> bool {
        false
    }
    /// Takes the place where a fresh publish goes. No lock is held.
    fn origin(&self, _: &Origin<'_>) {}
    /// Returns true if the listener wants to know which headers this publish without an id carries. It may ask for a sample only.
    fn wants_names(&self) -> bool {
        false
    }
    /// Takes the names of the headers and properties of a publish without an id. No lock is held.
    fn names(&self, _: &[&[u8]]) {}
}

/// The place where a publish goes, as its publisher names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin<'a> {
    /// vhost
    pub vhost: &'a [u8],
    /// exchange; not the one that a window forwards to instead
    pub exchange: &'a [u8],
    /// routing key
    pub routing_key: &'a [u8],
}

/// A listener that ignores everything.
#[derive(Debug, Default)]
pub struct NoListener;

impl Listener for NoListener {
    fn on(&self, _: &Event) {}
}
