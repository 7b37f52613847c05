//! A publish that a window judges, with the frames it is made of.

use super::confirms::ClientTag;
use super::entry::Entry;
use super::outbox::{Lane, Piece};
use crate::window::{Key, Mode, Reservation, Window};
use crate::wire::method::Publish;
use crate::wire::{ChannelId, emit};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) window: Arc<dyn Window>,
    pub(super) key: Key,
    pub(super) ttl: Duration,
    /// the client's tag, where it uses confirms
    pub(super) client: Option<ClientTag>,
    /// the right that the publish needs
    pub(super) right: Key,
    /// what a return would show of it, where it is mandatory
    pub(super) return_key: Option<Key>,
    pub(super) publish: Piece,
    pub(super) header: Piece,
    /// body frames that were kept, one after another
    pub(super) body: Vec<u8>,
    /// octets of the body that are still to come
    pub(super) left: u64,
}

impl Candidate {
    /// Bytes it takes to keep it until its verdict is known.
    pub(super) fn weight(&self) -> usize {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        left.saturating_add(self.kept())
    }

    /// Bytes it takes now. What is missing of its body is not counted: it comes by the backlog, which is.
    pub(super) fn kept(&self) -> usize {
        self.body.len() + self.publish.frame().len() + self.header.frame().len()
    }

    /// Lets go of the reads that its frames came with.
    pub(super) fn compact(mut self) -> Candidate {
        self.publish = self.publish.compact();
        self.header = self.header.compact();
        self
    }

    pub(super) fn observed(&self) -> bool {
        self.window.mode() == Mode::Observe
    }

    /// Writes the frames that are there, and gives back what has to be remembered of it.
    pub(super) fn forward(
        self,
        channel: ChannelId,
        reservation: Option<Reservation>,
        upstream: &mut Lane,
        now: Instant,
    ) -> Entry {
        let target = self.window.rules().forward_to.as_deref();
        let named = forward_to(target, channel, &self.publish, upstream);
        upstream.forward(&self.header);
        upstream.push(self.body.into());
        Entry {
            client: self.client,
            reservation: reservation.map(|reservation| (reservation, self.ttl)),
            since: now,
            right: Some(self.right),
            return_key: self.return_key,
            returned: false,
            named,
        }
    }
}

/// Writes a `basic.publish`, to another exchange where there is a `target`. Gives back the exchange that the client had
/// named, where it was replaced.
pub(super) fn forward_to(
    target: Option<&str>,
    channel: ChannelId,
    publish: &Piece,
    upstream: &mut Lane,
) -> Option<Box<[u8]>> {
    let replaced = target.and_then(|exchange| {
        let frame = emit::publish_to(channel, publish.payload(), exchange.as_bytes()).ok()?;
        Some((frame, Publish::parse(publish.payload()).ok()?.exchange.into()))
    });
    match replaced {
        Some((frame, named)) => {
            upstream.push(frame);
            Some(named)
        }
        None => {
            upstream.forward(publish);
            None
        }
    }
}
