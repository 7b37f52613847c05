//! What a channel needs of its session while it handles something.

use super::Shared;
use super::outbox::Outbox;
use super::probe::Probes;
use super::rights::OwnRights;
use crate::window::{Key, Mailbox, Scope, Scoped, Ticket, Window};
use crate::wire::ChannelId;
use crate::wire::method::Publish;
use crate::wire::properties::IdValue;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Windows that a session looks up for itself before it asks the common set.
const FOUND_KEPT: usize = 256;

/// See the module.
pub(super) struct Cx<'a> {
    pub(super) shared: &'a Shared,
    pub(super) mailbox: &'a Arc<Mailbox>,
    pub(super) out: &'a mut Outbox,
    pub(super) rights: &'a mut OwnRights,
    pub(super) probes: &'a mut Probes,
    pub(super) finder: &'a mut Finder,
    pub(super) tickets: &'a mut Tickets,
    /// bytes held by the session's other channels
    pub(super) held_elsewhere: usize,
    pub(super) now: Instant,
}

impl Cx<'_> {
    /// Whether `more` bytes can be held, beside the `own` of this channel.
    pub(super) fn has_room(&self, own: usize, more: usize) -> bool {
        self.held_elsewhere.saturating_add(own).saturating_add(more) <= self.shared.settings.held_bytes
    }

    /// What a return would show of a publish.
    pub(super) fn return_key(&self, exchange: &[u8], routing_key: &[u8], message_id: Option<&[u8]>) -> Key {
        let id = message_id.unwrap_or_default();
        self.shared.keys.key(Scope::RoutingKey, b"return", exchange, routing_key, &IdValue::Bytes(id))
    }
}

/// Finds windows, and remembers what it found.
#[derive(Debug, Default)]
pub(super) struct Finder {
    vhost: Option<Bytes>,
    found: HashMap<Box<[u8]>, Option<Arc<dyn Window>>>,
    /// The last one asked for: the next publish mostly goes the same way.
    route: Option<Route>,
}

/// What is the same for all publishes to an exchange with a routing key.
#[derive(Debug)]
pub(super) struct Route {
    exchange: Box<[u8]>,
    routing_key: Box<[u8]>,
    judge: Option<Judge>,
}

/// Who judges them, and as what.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) window: Arc<dyn Window>,
    pub(super) scoped: Scoped,
    /// the right that is needed to publish there
    pub(super) right: Key,
}

impl Finder {
    pub(super) fn set_vhost(&mut self, vhost: Option<&Bytes>) {
        self.vhost = vhost.cloned();
        self.found.clear();
        self.route = None;
    }

    pub(super) fn vhost(&self) -> &[u8] {
        self.vhost.as_deref().unwrap_or_default()
    }

    /// Who judges this publish, if anybody does.
    pub(super) fn judge(
        &mut self,
        shared: &Shared,
        rights: &OwnRights,
        publish: &Publish<'_>,
    ) -> Option<&Judge> {
        let Publish { exchange, routing_key, .. } = *publish;
        let is_same = |route: &Route| *route.exchange == *exchange && *route.routing_key == *routing_key;
        if !self.route.as_ref().is_some_and(is_same) {
            let judge = self.find(shared, exchange).map(|window| {
                let rules = window.rules();
                let target = rules.forward_to.as_deref().map_or(exchange, str::as_bytes);
                let scoped = shared.keys.scoped(rules.scope, self.vhost(), exchange, routing_key);
                let right = rights.needed(&shared.keys, target, routing_key);
                Judge { scoped, right, window }
            });
            self.route = Some(Route { exchange: exchange.into(), routing_key: routing_key.into(), judge });
        }
        self.route.as_ref()?.judge.as_ref()
    }

    pub(super) fn find(&mut self, shared: &Shared, exchange: &[u8]) -> Option<Arc<dyn Window>> {
        let vhost = self.vhost.as_ref()?;
        if let Some(found) = self.found.get(exchange) {
            return found.clone();
        }
        if self.found.len() >= FOUND_KEPT {
            self.found.clear();
        }
        let found = shared.windows.find(vhost, exchange);
        self.found.insert(exchange.into(), found.clone());
        found
    }
}

/// Draws tickets.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    drawn: u64,
}

impl Tickets {
    /// A ticket carries its channel in the upper bits. Later tickets of a channel are larger.
    pub(super) fn draw(&mut self, channel: ChannelId) -> Ticket {
        self.drawn += 1;
        Ticket(u64::from(channel.0) << 48 | self.drawn & 0xFFFF_FFFF_FFFF)
    }

    pub(super) fn channel(ticket: Ticket) -> ChannelId {
        ChannelId(u16::try_from(ticket.0 >> 48).unwrap_or_default())
    }
}
