//! Copies of dropped publishes, for the shell to publish (`duplicates_to`).

use crate::window::Claim;
use bytes::Bytes;
use std::sync::Arc;

/// A publish that was dropped because its id is known, as its client has sent it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopiedDuplicate {
    /// the name of the window
    pub window: Arc<str>,
    /// the exchange that the copy is for
    pub to: Arc<str>,
    /// what the window knows it by
    pub claim: Claim,
    /// the publisher's vhost
    pub vhost: Box<[u8]>,
    /// the exchange that the publisher names
    pub exchange: Box<[u8]>,
    /// routing key
    pub routing_key: Box<[u8]>,
    /// the payload of its content header: its properties
    pub header: Bytes,
    /// its body; `None`: there was no room to hold the body until it was whole
    pub body: Option<Bytes>,
}
