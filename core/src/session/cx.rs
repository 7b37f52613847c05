//! What a channel needs of its session while it handles something.

use super::Shared;
use super::inbound::Inbound;
use super::outbox::Outbox;
use super::probe::Probes;
use super::rights::{Needs, OwnRights};
use crate::window::{Mailbox, Mode, Scoped, Ticket, Window};
use crate::wire::ChannelId;
use crate::wire::method::Publish;
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
    /// what the client has said and nobody has looked at
    pub(super) inbound: &'a mut Inbound,
    /// how many publishes the client has said
    pub(super) publishes: &'a mut u64,
    /// bytes held by the session's other channels
    pub(super) held_elsewhere: usize,
    /// unresolved publishes of the session's other channels
    pub(super) unresolved_elsewhere: usize,
    pub(super) now: Instant,
}

impl Cx<'_> {
    /// Whether another publish may be taken, beside the `own` unresolved ones of this channel.
    pub(super) fn may_publish(&self, own: usize) -> bool {
        self.unresolved_elsewhere + own < self.shared.settings.max_unresolved
    }

    /// Whether `more` bytes can be held, beside the `own` of this channel.
    pub(super) fn has_room(&self, own: usize, more: usize) -> bool {
        self.held_elsewhere.saturating_add(own).saturating_add(more) <= self.shared.settings.held_bytes
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

/// What is the same for all publishes whose methods are alike: the same exchange, routing key and bits.
#[derive(Debug)]
pub(super) struct Route {
    /// the method's payload
    method: Box<[u8]>,
    pub(super) mandatory: bool,
    pub(super) immediate: bool,
    /// the exchange that it goes to, if it is judged
    pub(super) target: Box<[u8]>,
    pub(super) routing_key: Box<[u8]>,
    judge: Option<Judge>,
}

impl Route {
    /// Who judges them, if anybody does now.
    pub(super) fn judge(&self) -> Option<&Judge> {
        self.judge.as_ref().filter(|judge| judge.window.mode() != Mode::Off && !self.immediate)
    }
}

/// Who judges them, and as what.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) window: Arc<dyn Window>,
    /// what an id is unique within, for all who may publish there
    pub(super) scoped: Scoped,
    /// what has to be known of the user
    pub(super) needs: Needs,
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

    /// The way of a publish with this payload. `None`: it is no publish that can be understood.
    #[inline]
    pub(super) fn route(&mut self, shared: &Shared, rights: &OwnRights, payload: &[u8]) -> Option<&Route> {
        if self.route.as_ref().is_none_or(|route| *route.method != *payload) {
            self.route = Some(self.find_route(shared, rights, payload)?);
        }
        self.route.as_ref()
    }

    fn find_route(&mut self, shared: &Shared, rights: &OwnRights, payload: &[u8]) -> Option<Route> {
        let Publish { exchange, routing_key, mandatory, immediate } = Publish::parse(payload).ok()?;
        let window = self.find(shared, exchange);
        let target = window.as_ref().and_then(|window| window.rules().forward_to.as_deref());
        let target: Box<[u8]> = target.map_or(exchange, str::as_bytes).into();
        let judge = window.map(|window| {
            let scope = window.rules().scope;
            Judge {
                scoped: shared.keys.scoped(scope, self.vhost(), exchange, routing_key),
                needs: rights.needs(&shared.keys, scope, (exchange, &target), routing_key),
                window,
            }
        });
        let (method, routing_key) = (payload.into(), routing_key.into());
        Some(Route { method, mandatory, immediate, target, routing_key, judge })
    }

    /// Bytes that what was found takes, about: a name has 255 at most.
    pub(super) fn memory(&self) -> usize {
        self.found.len() * 320
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
