//! Which window judges a publish, and where the publish goes.
//!
//! The answer depends on the payload of `basic.publish` only (exchange, routing key and bits), so the last answer is kept: most
//! clients publish to the same place again.

use super::Shared;
use super::delivered::RouteMark;
use super::rights::{Needs, OwnRights};
use crate::window::{Mode, Quota, RepublishRule, Rules, Scoped, Tenant, Window};
use crate::wire::IdSource;
use crate::wire::method::{self, Publish};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;

/// Exchanges whose window a session remembers, before it asks the windows of the process again.
const FOUND_KEPT: usize = 256;
/// Bytes of a remembered exchange: an estimate. Its name has at most 255 bytes.
const FOUND: usize = 320;

/// The beginning of the routing key of a reply to a direct reply-to.
const DIRECT_REPLY: &[u8] = b"amq.rabbitmq.reply-to.";

/// Finds the window of a publish, and remembers what it found.
#[derive(Debug, Default)]
pub(super) struct Finder {
    vhost: Option<Bytes>,
    /// the user's name, if it is known
    user: Option<Box<str>>,
    found: HashMap<Box<[u8]>, Option<Place>>,
    /// the answer to the last question
    route: Option<Route>,
    /// the state of the windows and of what is known of exchanges, when the answers were found
    changes: u64,
    /// the generation of the windows that the answers are about
    generation: u64,
    /// the same of the last delivery
    delivery: Delivery,
    /// where the ids of deliveries are, by their exchanges
    sources: HashMap<Box<[u8]>, Arc<[Source]>>,
}

/// The facts about every publish with the same method payload: the same exchange, routing key and bits.
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
    /// Returns the window that would judge these publishes, if it were not for the immediate bit. RabbitMQ refuses those with 540
    /// and closes the connection, so they pass unjudged.
    pub(super) fn passed_by(&self) -> Option<&Arc<dyn Window>> {
        let judge = self.judge.as_ref().filter(|_| self.immediate);
        judge.map(|judge| &judge.window).filter(|window| window.mode() != Mode::Off)
    }

    /// Returns the window that judges these publishes, or judged them before it was switched off.
    pub(super) fn once_judged(&self) -> Option<&Judge> {
        self.judge.as_ref()
    }

    /// Returns the window that judges these publishes, if one does now.
    pub(super) fn judge(&self) -> Option<&Judge> {
        self.judge.as_ref().filter(|judge| judge.window.mode() != Mode::Off && !self.immediate)
    }
}

/// A window that judges publishes, and what it needs for that.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) window: Arc<dyn Window>,
    /// what an id is unique within, for all users who may publish there
    pub(super) scoped: Scoped,
    /// the rights that the user has to have
    pub(super) needs: Needs,
    pub(super) verify: Verify,
    /// whose the ids are
    pub(super) tenant: Tenant,
    /// the mark of a delivery that a consumer may publish again so; `None` if that is a duplicate
    pub(super) mark: Option<RouteMark>,
}

/// A window, and the tenant of it that publishes to an exchange.
#[derive(Clone, Debug)]
struct Place {
    window: Arc<dyn Window>,
    tenant: Tenant,
}

impl Place {
    fn new(
        window: Arc<dyn Window>,
        shared: &Shared,
        vhost: &[u8],
        user: Option<&str>,
        exchange: &[u8],
    ) -> Place {
        let quota = window.rules().quota;
        let tenant = shared.keys.tenant(quota, vhost, user.map(str::as_bytes), exchange);
        if tenant != Tenant::COMMON {
            let text = String::from_utf8_lossy;
            let name = match quota {
                Quota::User => user.unwrap_or_default().into(),
                Quota::Exchange => format!("{}@{}", text(exchange), text(vhost)).into(),
                Quota::Vhost | Quota::None => text(vhost),
            };
            window.note_tenant(tenant, &name);
        }
        Place { window, tenant }
    }
}

/// Whether Hapax verifies that a queue takes a publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verify {
    No,
    /// A return will be known by its claim.
    ByClaim,
    /// A return will be known by its header, because it does not show the claim.
    ByHeader,
}

impl Verify {
    fn of(shared: &Shared, rules: &Rules, vhost: &[u8], target: &[u8], routing_key: &[u8]) -> Verify {
        // RabbitMQ 3.10 returns every mandatory reply to a direct reply-to, and delivers it all the same.
        let is_direct_reply = target.is_empty() && routing_key.starts_with(DIRECT_REPLY);
        if !rules.verify_routing || is_direct_reply || shared.exchanges.is_delayed(vhost, target) {
            return Verify::No;
        }
        match rules.forward_to.is_some() || rules.id == IdSource::Body {
            true => Verify::ByHeader,
            false => Verify::ByClaim,
        }
    }
}

/// The facts about every delivery of a message that was published to the same exchange with the same routing key.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// exchange and routing key, as a method has them
    names: Vec<u8>,
    pub(super) mark: RouteMark,
    pub(super) sources: Arc<[Source]>,
}

/// Where the id of a delivery is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Source {
    pub(super) id: IdSource,
    pub(super) rule: RepublishRule,
}

impl Finder {
    /// Sets the vhost and the user of the connection. Forgets what was found for others.
    pub(super) fn set_place(&mut self, vhost: Option<&Bytes>, user: Option<&str>) {
        self.vhost = vhost.cloned();
        self.user = user.map(Box::from);
        self.found.clear();
        self.route = None;
        self.delivery = Delivery::default();
        self.sources.clear();
    }

    /// Returns the vhost; empty before it is known.
    pub(super) fn vhost(&self) -> &[u8] {
        self.vhost.as_deref().unwrap_or_default()
    }

    /// Returns the route of a publish with this method payload. `None`: the payload is not a well-formed `basic.publish`.
    #[inline]
    pub(super) fn route(&mut self, shared: &Shared, rights: &OwnRights, payload: &[u8]) -> Option<&Route> {
        self.keep_up(shared);
        if self.route.as_ref().is_none_or(|route| *route.method != *payload) {
            self.route = Some(self.find_route(shared, rights, payload)?);
        }
        self.route.as_ref()
    }

    /// Forgets what is not true any more.
    #[inline]
    fn keep_up(&mut self, shared: &Shared) {
        let changes = shared.exchanges.changes();
        if self.changes != changes {
            self.look_again(shared, changes);
        }
    }

    #[cold]
    fn look_again(&mut self, shared: &Shared, changes: u64) {
        self.changes = changes;
        self.route = None;
        let generation = shared.windows.generation();
        if std::mem::replace(&mut self.generation, generation) != generation {
            self.found.clear();
            self.sources.clear();
            self.delivery = Delivery::default();
        }
    }

    fn find_route(&mut self, shared: &Shared, rights: &OwnRights, payload: &[u8]) -> Option<Route> {
        let publish = Publish::parse(payload).ok()?;
        let place = self.find(shared, publish.exchange);
        Some(self.route_by(place, shared, rights, payload, &publish))
    }

    /// Returns the routes that publishes with this method payload may have had when they were forwarded, if others than now. The windows may
    /// have changed since.
    pub(super) fn former_routes(&self, shared: &Shared, rights: &OwnRights, payload: &[u8]) -> Vec<Route> {
        let (Ok(publish), Some(vhost)) = (Publish::parse(payload), self.vhost.as_ref()) else {
            return Vec::new();
        };
        let windows = shared.windows.once(vhost, publish.exchange);
        let user = self.user.as_deref();
        let place = |window| Place::new(window, shared, vhost, user, publish.exchange);
        let route = |window| self.route_by(Some(place(window)), shared, rights, payload, &publish);
        windows.into_iter().map(route).collect()
    }

    /// Returns the route of a publish that this window judges.
    fn route_by(
        &self,
        place: Option<Place>,
        shared: &Shared,
        rights: &OwnRights,
        payload: &[u8],
        publish: &Publish<'_>,
    ) -> Route {
        let Publish { exchange, routing_key, mandatory, immediate } = *publish;
        let target = place.as_ref().and_then(|place| place.window.rules().forward_to.as_deref());
        let target: Box<[u8]> = target.map_or(exchange, str::as_bytes).into();
        let judge = place.map(|Place { window, tenant }| {
            let scope = window.rules().scope;
            let marks = window.rules().republish != RepublishRule::Drop;
            Judge {
                mark: marks.then(|| RouteMark::new(&target, routing_key)),
                scoped: shared.keys.scoped(scope, self.vhost(), exchange, routing_key),
                needs: rights.needs(&shared.keys, scope, (exchange, &target), routing_key),
                verify: Verify::of(shared, window.rules(), self.vhost(), &target, routing_key),
                tenant,
                window,
            }
        });
        let (method, routing_key) = (payload.into(), routing_key.into());
        Route { method, mandatory, immediate, target, routing_key, judge }
    }

    /// Returns the facts about a delivery with this method payload. `None`: the payload is not well-formed.
    #[inline]
    pub(super) fn delivery(&mut self, shared: &Shared, payload: &[u8]) -> Option<&Delivery> {
        self.keep_up(shared);
        let fields = method::Delivery::parse(payload).ok()?;
        if self.delivery.names != fields.names {
            self.look_up(shared, &fields);
        }
        Some(&self.delivery)
    }

    fn look_up(&mut self, shared: &Shared, fields: &method::Delivery<'_>) {
        let sources = self.sources(shared, fields.exchange);
        let Delivery { names, mark, sources: of_delivery } = &mut self.delivery;
        names.clear();
        names.extend_from_slice(fields.names);
        *mark = RouteMark::new(fields.exchange, fields.routing_key);
        *of_delivery = sources;
    }

    /// Returns where the windows look for ids that may judge what is published to this exchange.
    pub(super) fn sources(&mut self, shared: &Shared, exchange: &[u8]) -> Arc<[Source]> {
        if let Some(sources) = self.sources.get(exchange) {
            return Arc::clone(sources);
        }
        if self.sources.len() >= FOUND_KEPT {
            self.sources.clear();
        }
        let vhost = self.vhost.as_deref().unwrap_or_default();
        let mut sources: Vec<Source> = Vec::new();
        for window in shared.windows.delivering(vhost, exchange) {
            let source = Source { id: window.rules().id.clone(), rule: window.rules().republish };
            if source.rule != RepublishRule::Drop && !sources.contains(&source) {
                sources.push(source);
            }
        }
        let sources: Arc<[Source]> = sources.into();
        self.sources.insert(exchange.into(), Arc::clone(&sources));
        sources
    }

    /// Returns the bytes that the remembered exchanges take, about.
    pub(super) fn memory(&self) -> usize {
        (self.found.len() + self.sources.len()) * FOUND
    }

    fn find(&mut self, shared: &Shared, exchange: &[u8]) -> Option<Place> {
        let vhost = self.vhost.as_ref()?;
        if let Some(found) = self.found.get(exchange) {
            return found.clone();
        }
        if self.found.len() >= FOUND_KEPT {
            self.found.clear();
        }
        let user = self.user.as_deref();
        let found = shared
            .windows
            .find(vhost, exchange)
            .map(|window| Place::new(window, shared, vhost, user, exchange));
        self.found.insert(exchange.into(), found.clone());
        found
    }
}
