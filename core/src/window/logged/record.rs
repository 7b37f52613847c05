//! The records of a window's log, before they are written and after they are read.

use crate::window::{BodyDigest, Claim, Memo, Mode, ProducerImage, ProducerKey, Tenant};
use std::time::{Duration, Instant, SystemTime};

/// One thing that happened to a window, on its way to the store.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// when
    pub at: Instant,
    /// what
    pub what: What,
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// A claim became seen, for the TTL of the memo.
    Seen(Claim, Memo),
    /// A duplicate made a seen claim young again (`refresh_on_duplicate`). The memo is that of the commit, which the store may have thrown
    /// away by now, because its TTL is over.
    Touched(Claim, Memo),
    /// A claim is unknown again, whether it was seen or not.
    Forgotten(Claim),
    /// Everything about a producer is unknown again (`id = "sequence"`).
    ProducerForgotten(ProducerKey),
    /// All that is remembered of a producer, or that an epoch of it has begun. A store writes it when it makes its log smaller, in place of a
    /// record for each number.
    Producer(Box<ProducerImage>),
    /// All claims are unknown again.
    Flushed,
    /// Somebody has changed something.
    Changed(Change),
}

/// A change that an operator has made to a running window. The other relays of a shared store do it, too, and log who it was.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// what is different now
    pub setting: Setting,
    /// who has made it, for the log
    pub by: Box<str>,
}

/// A setting that can be changed while the window runs, and its new value; or what else an operator can do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Setting {
    /// how many ids are remembered
    Capacity(usize),
    /// the TTL of ids that are committed from now on
    Ttl(Duration),
    /// the mode
    Mode(Mode),
    /// No setting: all ids are unknown again. That is a record of its own, [`What::Flushed`]; this one says who it was.
    Flushed,
    /// No setting: one id or producer is unknown again. That is a record of its own, [`What::Forgotten`] or
    /// [`What::ProducerForgotten`]; this one says who it was.
    Forgotten,
}

/// One thing that happened to a window, as it stands in the store: in wall-clock time.
#[derive(Clone, PartialEq, Debug)]
pub enum Written {
    /// A claim became seen.
    Seen {
        /// which
        claim: Claim,
        /// when
        at: SystemTime,
        /// for how long
        ttl: Duration,
        /// the digest of the message's body
        body: BodyDigest,
        /// whose it is
        tenant: Tenant,
    },
    /// A duplicate made a seen claim young again.
    Touched {
        /// which
        claim: Claim,
        /// when
        at: SystemTime,
        /// for how long from then on
        ttl: Duration,
        /// the digest of the message's body
        body: BodyDigest,
        /// whose it is
        tenant: Tenant,
    },
    /// A claim is unknown again.
    Forgotten(Claim),
    /// Everything about a producer is unknown again.
    ProducerForgotten(ProducerKey),
    /// All that is remembered of a producer.
    Producer {
        /// what
        image: Box<ProducerImage>,
        /// when it was seen last
        at: SystemTime,
    },
    /// All claims are unknown again.
    Flushed,
    /// Somebody has changed something.
    Changed(Change),
}

impl Written {
    /// Returns the claim that becomes seen or young again.
    pub(super) fn claim(&self) -> Option<Claim> {
        match self {
            Written::Seen { claim, .. } | Written::Touched { claim, .. } => Some(*claim),
            Written::Forgotten(_)
            | Written::ProducerForgotten(_)
            | Written::Producer { .. }
            | Written::Flushed
            | Written::Changed(_) => None,
        }
    }
}
