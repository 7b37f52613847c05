//! A publish that a window judges, with the frames it is made of.

use super::confirms::ClientTag;
use super::entry::{Entry, Mandatory, Verified};
use super::hosts::Sought;
use super::outbox::{Lane, Piece, View};
use super::returns::ReturnKey;
use super::rights::Right;
use crate::window::{BodyDigest, BodyHasher, Claim, Memo, Mode, Reservation, Tenant, Window};
use crate::wire::method::Publish;
use crate::wire::properties::{ContentHeader, IdSource};
use crate::wire::{ChannelId, emit, scan};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The claim of a publish, and everything else that is kept of it with its entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) claim: Claim,
    pub(super) ttl: Duration,
    /// whose the claim is
    pub(super) tenant: Tenant,
    /// the client's tag, where it uses confirms
    pub(super) client: Option<ClientTag>,
    /// the right that the publish needs
    pub(super) right: Right,
    /// the client has set the mandatory bit
    pub(super) asked: bool,
    /// Hapax verifies that a queue takes it
    pub(super) verify: bool,
    /// what a return would show of it, where the return is known by its header
    pub(super) return_key: Option<ReturnKey>,
    /// the mark of a delivery that it may publish again
    pub(super) mark: Option<Sought>,
}

/// A publish that a window judges. Its frames are where they were read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) window: &'a Arc<dyn Window>,
    pub(super) terms: Terms,
    pub(super) publish: View<'a>,
    /// its header, and the frames of its body that have come
    pub(super) content: View<'a>,
    /// octets of the body that are missing
    pub(super) left: u64,
}

impl Candidate<'_> {
    /// Returns the bytes that it takes to keep it until its verdict is known.
    pub(super) fn weight(&self) -> usize {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        left.saturating_add(self.publish.len() + self.content.len())
    }

    pub(super) fn observed(&self) -> bool {
        self.window.mode() == Mode::Observe
    }

    /// Makes a copy that lets go of the reads that its frames came with.
    pub(super) fn keep(&self) -> Kept {
        Kept {
            window: Arc::clone(self.window),
            terms: self.terms,
            publish: self.publish.compact(),
            content: self.content.octets().to_vec(),
            left: self.left,
        }
    }

    /// Writes the frames that have come. Returns the entry. `body`: the digest of its body, if it is whole.
    pub(super) fn forward(
        self,
        channel: ChannelId,
        reservation: Option<Reservation>,
        body: BodyDigest,
        upstream: &mut Lane,
        now: Instant,
    ) -> Entry {
        let Terms { ttl, tenant, client, right, asked, verify, return_key, .. } = self.terms;
        let verify = verify && reservation.is_some();
        let target = self.window.rules().forward_to.as_deref();
        let named = forward_to(target, channel, self.publish, asked || verify, upstream);
        upstream.forward(self.content);
        let return_key = return_key.filter(|_| asked || verify);
        Entry {
            client,
            reservation: reservation.map(|reservation| (reservation, Memo::new(ttl, body).of_tenant(tenant))),
            since: now,
            right: Some(right),
            verified: if verify && return_key.is_none() { Verified::Yes } else { Verified::No },
            mandatory: return_key.map(|key| Mandatory::new(key, asked, named)),
        }
    }
}

/// A candidate that is kept until its verdict is known.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) window: Arc<dyn Window>,
    pub(super) terms: Terms,
    pub(super) publish: Piece,
    /// header and body frames, one after another
    pub(super) content: Vec<u8>,
    /// octets of the body that are missing
    pub(super) left: u64,
}

impl Kept {
    /// Returns the bytes that it takes now. The rest of its body is not counted: it waits as frames, which are counted.
    pub(super) fn size(&self) -> usize {
        self.publish.view().len() + self.content.len()
    }

    /// Returns the digest of its body, if it is whole and is ever compared.
    pub(super) fn body(&self) -> BodyDigest {
        if self.left > 0 || !self.window.rules().compares_bodies() {
            return BodyDigest::UNKNOWN;
        }
        digest_of(&self.content)
    }

    /// Calls `decide` with the candidate that was kept.
    pub(super) fn with<T>(self, decide: impl FnOnce(Candidate<'_>) -> T) -> T {
        let Kept { window, terms, publish, content, left } = self;
        let content = Bytes::from(content);
        let (publish, content) = (publish.view(), View::whole(&content));
        decide(Candidate { window: &window, terms, publish, content, left })
    }
}

/// Returns the payload of the header of a content.
pub(super) fn header_of(content: &[u8]) -> &[u8] {
    pieces(content).next().unwrap_or_default()
}

/// Returns true if this is the header of a delivery from a stream.
pub(super) fn is_of_stream(header: &[u8]) -> bool {
    ContentHeader::parse(header, &IdSource::MessageId).is_ok_and(|found| found.is_of_stream())
}

/// Returns the payloads of the body frames of a content, which begins with its header.
pub(super) fn bodies(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    pieces(content).skip(1)
}

/// Returns the body of a content, in one piece.
pub(super) fn body_of(content: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(content.len());
    bodies(content).for_each(|piece| body.extend_from_slice(piece));
    body
}

/// Returns the digest of the body in these frames.
pub(super) fn digest_of(content: &[u8]) -> BodyDigest {
    let mut pieces = bodies(content);
    let first = pieces.next().unwrap_or_default();
    let Some(second) = pieces.next() else { return BodyDigest::of(first) };
    let mut hasher = BodyHasher::new();
    hasher.write(first);
    hasher.write(second);
    pieces.for_each(|piece| hasher.write(piece));
    hasher.finish()
}

fn pieces(mut content: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let frame = scan(content, usize::MAX).ok().flatten()?;
        content = content.get(frame.wire_len()..).unwrap_or_default();
        Some(frame.payload)
    })
}

/// Writes a `basic.publish`, to another exchange where there is a `target`, and with the mandatory bit or without it. Gives back
/// the exchange that the client had named, where it was replaced.
#[inline]
pub(super) fn forward_to(
    target: Option<&str>,
    channel: ChannelId,
    publish: View<'_>,
    mandatory: bool,
    upstream: &mut Lane,
) -> Option<Box<[u8]>> {
    if target.is_none() && Publish::is_mandatory(publish.octets()) == mandatory {
        upstream.forward(publish);
        return None;
    }
    rewrite(target, channel, publish, mandatory, upstream)
}

#[inline(never)]
fn rewrite(
    target: Option<&str>,
    channel: ChannelId,
    publish: View<'_>,
    mandatory: bool,
    upstream: &mut Lane,
) -> Option<Box<[u8]>> {
    let replaced = target.and_then(|exchange| {
        let frame = emit::publish_to(channel, publish.payload(), exchange.as_bytes(), mandatory).ok()?;
        Some((frame, Publish::parse(publish.payload()).ok()?.exchange.into()))
    });
    match replaced {
        Some((frame, named)) => {
            upstream.push(frame);
            Some(named)
        }
        None => {
            emit::publish_as(upstream.made(), publish.octets(), mandatory);
            None
        }
    }
}
