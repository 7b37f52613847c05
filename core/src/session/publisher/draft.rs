//! A publish whose id is its body: it is collected, and judged when it is whole.

use super::collected::CollectedBody;
use super::reading::ttl_of;
use crate::session::candidate::{Kept, Terms};
use crate::session::confirms::ClientTag;
use crate::session::delivered::Mark;
use crate::session::outbox::{Piece, View};
use crate::session::returns::ReturnKey;
use crate::session::rights::Right;
use crate::window::{KeyMaker, Scoped, Tenant, Window};
use crate::wire::ChannelId;
use crate::wire::method::Publish;
use crate::wire::properties::{ContentHeader, IdValue};
use std::sync::Arc;

/// A publish whose body is being collected.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) window: Arc<dyn Window>,
    pub(super) client: Option<ClientTag>,
    pub(super) scoped: Scoped,
    pub(super) tenant: Tenant,
    pub(super) right: Right,
    /// Hapax verifies that a queue takes it
    pub(super) verify: bool,
    pub(super) mark: Option<Mark>,
    pub(super) publish: Piece,
    pub(super) header: Piece,
    pub(super) body: CollectedBody,
}

impl Draft {
    /// Returns the bytes that it takes when it is whole.
    pub(super) fn bytes(&self) -> usize {
        self.body.bytes()
    }

    /// Adds a frame of the body.
    pub(super) fn extend(&mut self, frame: View<'_>) {
        self.body.extend(frame.payload());
    }

    /// Makes a candidate of it: the body is whole, so the id is known. Returns `None` if the method or the header can't be
    /// understood.
    pub(super) fn finish(self, channel: ChannelId, keys: &KeyMaker) -> Option<Kept> {
        let Draft { window, client, scoped, tenant, right, verify, mark, publish, header, body } = self;
        let rules = window.rules();
        let fields = Publish::parse(publish.view().payload()).ok()?;
        let found = ContentHeader::parse(header.view().payload(), &rules.id).ok()?;
        let target = rules.forward_to.as_deref().map_or(fields.exchange, str::as_bytes);
        let return_key = (fields.mandatory || verify)
            .then(|| ReturnKey::new(keys, target, fields.routing_key, header.view().payload()));
        let (claim, ttl) = (scoped.key(&IdValue::Bytes(body.octets())).into(), ttl_of(&found, &window));
        let asked = fields.mandatory;
        let terms = Terms { claim, ttl, tenant, client, right, asked, verify, return_key, mark };
        let content = body.content(header.view().octets(), channel);
        Some(Kept { window, terms, publish, content, left: 0 })
    }
}
