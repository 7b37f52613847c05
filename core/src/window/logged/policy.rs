//! The choices of an operator for a window with a store: what an ack promises, and what happens while the store is out of order.

use std::time::Duration;

/// When the client is acked: after its id is in the store, or before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Remember {
    /// After: no crash makes the window forget an id whose ack a client has received.
    #[default]
    Sync,
    /// Before: a crash may forget what was acked within the last [`StorePolicy::delay`].
    Async,
}

/// The rule for the time in which the store fails or is silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnOutage {
    /// It judges by its memory and lets clients be acked. These ids are counted as not remembered until the store has them.
    #[default]
    Continue,
    /// It judges nothing until the store is back. Publishers wait.
    Refuse,
}

/// The rules of a window with a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StorePolicy {
    /// see [`Remember`]
    pub remember: Remember,
    /// With [`Remember::Async`], how long an acked id may be on its way to the store.
    pub delay: Duration,
    /// see [`OnOutage`]
    pub on_outage: OnOutage,
}

impl Default for StorePolicy {
    fn default() -> StorePolicy {
        StorePolicy {
            remember: Remember::default(),
            delay: Duration::from_millis(100),
            on_outage: OnOutage::default(),
        }
    }
}
