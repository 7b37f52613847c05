//! The signals that a window gives of a duplicate: to its publisher, to an exchange, and to those who read the log.

use std::sync::Arc;

/// The answer that the publisher of a duplicate hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDuplicate {
    /// an ack, as for a message that was stored
    #[default]
    Ack,
    /// a nack; without confirms and in a transaction nothing, because nothing could be said there without closing the channel
    Nack,
    /// `basic.return` with the message as it was sent, and then the ack
    Return,
}

/// The signals of a window: who hears of its duplicates, and how. By default only the publisher does, by an ordinary ack.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Signals {
    /// see [`OnDuplicate`]
    pub on_duplicate: OnDuplicate,
    /// the exchange that gets a copy of every publish that is dropped
    pub duplicates_to: Option<Arc<str>>,
    /// every publish that is dropped is a line in the log
    pub audit: bool,
}

impl Signals {
    /// Returns true if a duplicate ends with an ack, and nobody else hears of it.
    #[inline]
    pub fn is_silent(&self) -> bool {
        self.on_duplicate == OnDuplicate::Ack && !self.audit && self.duplicates_to.is_none()
    }

    /// Returns true if a signal carries the whole message.
    pub fn needs_body(&self) -> bool {
        self.on_duplicate == OnDuplicate::Return || self.duplicates_to.is_some()
    }
}

/// The answer that the publisher of a duplicate has got, in a window that tells it more than an ack.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Told {
    /// by a nack
    Nacked,
    /// by a return
    Returned,
    /// by a return without the body, because there was no room to hold the body until it was whole
    ReturnedEmpty,
    /// nothing, although its window has `nack` or `return`: the channel has no confirms or is in a transaction (`nack`), or there was
    /// no room to hold the return until the transaction ends
    Nothing,
}

impl Told {
    /// All of them.
    pub const ALL: [Told; 4] = [Told::Nacked, Told::Returned, Told::ReturnedEmpty, Told::Nothing];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Told::Nacked => "nack",
            Told::Returned => "return",
            Told::ReturnedEmpty => "return_without_body",
            Told::Nothing => "nothing",
        }
    }
}
