//! The frames of a delivery, as they come one by one, or whole in a read.

use super::guarded::Id;
use super::settles::tag_of;
use super::withheld::{Facts, Known, Withheld};
use crate::session::candidate::body_of;
use crate::session::inbound::{Chunk, Whole};
use crate::session::outbox::{Piece, View};
use crate::window::{Claim, Scoped};
use crate::wire::frame::HEADER_LEN;
use crate::wire::properties::IdValue;
use bytes::BytesMut;
use std::time::Duration;

/// The delivery whose frames are coming.
#[derive(Debug, Default)]
pub(super) enum Coming {
    #[default]
    Nothing,
    /// Its method has come, and its header comes next.
    Method(Facts, Piece),
    /// Its frames go on to the client. This many octets are missing.
    Passing(u64),
    /// Its frames are dropped.
    Swallowing(u64),
    /// Its frames are kept.
    Keeping(Withheld, Known),
    /// Its frames are kept, because its id is its body.
    Collecting(Withheld, Scoped, Duration),
}

impl Coming {
    /// Creates the state of a delivery whose next `left` octets go on to the client.
    pub(super) fn passing(left: u64) -> Coming {
        if left > 0 { Coming::Passing(left) } else { Coming::Nothing }
    }

    /// Creates the state of a delivery whose next `left` octets are dropped.
    pub(super) fn swallowing(left: u64) -> Coming {
        if left > 0 { Coming::Swallowing(left) } else { Coming::Nothing }
    }

    /// Returns the bytes that it takes.
    pub(super) fn memory(&self) -> usize {
        match self {
            Coming::Keeping(withheld, _) | Coming::Collecting(withheld, ..) => withheld.weight(),
            Coming::Nothing | Coming::Method(..) | Coming::Passing(_) | Coming::Swallowing(_) => 0,
        }
    }
}

/// Returns the id of a delivery that stands whole in a read.
pub(super) fn id_of(facts: &Facts, whole: Whole, read: &Chunk) -> Option<(Claim, Duration)> {
    match facts.by.as_ref()?.read(whole.header(read).payload()) {
        Id::None => None,
        Id::Known(claim, ttl) => Some((claim, ttl)),
        Id::Body(scoped, ttl) => {
            let body = body_of(whole.content(read).octets());
            Some((scoped.key(&IdValue::Bytes(&body)).into(), ttl))
        }
    }
}

/// Writes the method of a delivery with the client's tag.
pub(super) fn write_with_tag(method: View<'_>, client: u64, out: &mut BytesMut) {
    let Some((at, _)) = tag_of(method) else { return };
    let start = out.len() + HEADER_LEN + at;
    out.extend_from_slice(method.octets());
    if let Some(tag) = out.get_mut(start..start + 8) {
        tag.copy_from_slice(&client.to_be_bytes());
    }
}
