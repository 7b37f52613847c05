//! Which ids a delivery releases when its consumer acks it: windows with `release = "consumed"` forget them, so that the same message may be
//! published again.
//!
//! The key of the publish is made again from what the delivery shows: exchange, routing key and header. The deaths of a message (`x-death`)
//! would show where it was published before, but any publisher can write them, and release ids of others by that. A job that is done from a
//! dead-letter queue therefore keeps its id until the TTL is over. An id also stays where its key depends on the user who has published, or on
//! `BCC`, which nobody delivers.

use crate::session::{Shared, may_have_topics};
use crate::window::{Claim, Release, Scope, Window};
use crate::wire::method::Delivery;
use crate::wire::properties::{ContentHeader, IdSource};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Exchanges whose windows are remembered.
const KEPT: usize = 256;
/// Bytes of one of them: an estimate.
const EXCHANGE: usize = 320;

/// The ids that are released by the ack of one delivery.
#[derive(Debug, Default)]
pub(super) struct Consumed(Box<[(Arc<dyn Window>, Claim)]>);

impl Consumed {
    /// Forgets them: the consumer has acked the delivery.
    pub(super) fn release(self, now: Instant) {
        self.0.iter().for_each(|(window, claim)| window.release(*claim, now));
    }
}

/// Windows that forget what was consumed.
type Windows = Arc<[Arc<dyn Window>]>;

/// The windows that forget what was consumed, by the exchanges of deliveries.
#[derive(Debug, Default)]
pub(super) struct Releases {
    found: HashMap<Box<[u8]>, Windows>,
    /// what `found` is about
    generation: Option<u64>,
    /// a window of the vhost forgets what was consumed
    is_on: bool,
}

impl Releases {
    /// Returns the bytes that they take.
    pub(super) fn memory(&self) -> usize {
        self.found.len() * EXCHANGE
    }

    /// Returns the ids that the ack of this delivery releases. `method` and `header` are the payloads of its first two frames.
    #[inline]
    pub(super) fn of(&mut self, shared: &Shared, vhost: &[u8], method: &[u8], header: &[u8]) -> Consumed {
        let generation = shared.windows.generation();
        if self.generation != Some(generation) {
            self.found.clear();
            self.generation = Some(generation);
            self.is_on = shared.windows.releases(vhost);
        }
        if self.is_on { self.look(shared, vhost, method, header) } else { Consumed::default() }
    }

    fn look(&mut self, shared: &Shared, vhost: &[u8], method: &[u8], header: &[u8]) -> Consumed {
        let Ok(Delivery { exchange, routing_key, .. }) = Delivery::parse(method) else {
            return Consumed::default();
        };
        let place = (vhost, exchange, routing_key);
        let windows = self.windows(shared, vhost, exchange);
        let claims = windows.iter().map(|window| (window, claim_of(window, shared, place, header)));
        let all: Vec<_> = claims.filter_map(|(window, claim)| Some((Arc::clone(window), claim?))).collect();
        Consumed(all.into())
    }

    fn windows(&mut self, shared: &Shared, vhost: &[u8], exchange: &[u8]) -> Windows {
        if let Some(windows) = self.found.get(exchange) {
            return Arc::clone(windows);
        }
        if self.found.len() >= KEPT {
            self.found.clear();
        }
        let delivering = shared.windows.delivering(vhost, exchange).into_iter();
        let windows: Windows =
            delivering.filter(|window| window.rules().release == Release::Consumed).collect();
        self.found.insert(exchange.into(), Arc::clone(&windows));
        windows
    }
}

/// Returns the claim of the publish of this message at this place; `None` if nobody can know it here.
fn claim_of(
    window: &Arc<dyn Window>,
    shared: &Shared,
    (vhost, exchange, routing_key): (&[u8], &[u8], &[u8]),
    header: &[u8],
) -> Option<Claim> {
    let rules = window.rules();
    let found = ContentHeader::parse(header, &rules.id).ok()?;
    // No window has judged it: the id that it shows is that of another message.
    if found.bypass {
        return None;
    }
    let mut scoped = shared.keys.scoped(rules.scope, vhost, exchange, routing_key);
    if found.is_special() {
        let mut keys = found.extra_keys().ok()?;
        keys.retain(|key| *key != routing_key);
        if rules.scope == Scope::RoutingKey && !keys.is_empty() {
            if may_have_topics(exchange) {
                return None;
            }
            scoped = scoped.with_extra_keys(b"", &keys);
        }
        if let Some(death) = found.death().ok()? {
            scoped = scoped.with_death(&death);
        }
    }
    let id = found.id?;
    match &rules.id {
        IdSource::Body => None,
        IdSource::Parts(parts) => Some(scoped.key_of_parts(parts.iter().map(|part| found.part(part))).into()),
        _ => Some(scoped.key(&id).into()),
    }
}
