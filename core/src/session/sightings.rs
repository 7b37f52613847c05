//! Messages to the shell about publishes of known ids, for people to read. They are a sample: the window counts all of them.

use super::outbox::View;
use crate::window::{OnConflict, Window};
use crate::wire::method::Publish;
use crate::wire::properties::{ContentHeader, IdSource, IdValue};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One sighting of a connection in this time, at most.
const EVERY: Duration = Duration::from_secs(1);
/// Octets kept of an id. A header may be longer.
const LONGEST: usize = 255;

/// A publish of a known id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// what is to say about it
    pub what: Sighted,
    /// the name of the window
    pub window: Arc<str>,
    /// the first octets of the id
    pub id: Box<[u8]>,
    /// vhost
    pub vhost: Box<[u8]>,
    /// the exchange that the publisher names
    pub exchange: Box<[u8]>,
    /// routing key
    pub routing_key: Box<[u8]>,
    /// how many publishes of this connection were not told of since the last one
    pub left_out: u64,
}

/// The kind of a [`Sighting`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sighted {
    /// Its body is not the one that was stored. By this rule of its window it was dropped, forwarded or refused.
    Conflict(OnConflict),
    /// The same in a window with mode observe: it was forwarded, as all duplicates are.
    Observed,
}

/// The sightings of one session. It holds one at most.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    waiting: Option<Box<Sighting>>,
    next: Option<Instant>,
    left_out: u64,
}

impl Sightings {
    /// Notes a publish, if it is time for one.
    pub(super) fn note(
        &mut self,
        what: Sighted,
        window: &Arc<dyn Window>,
        vhost: &[u8],
        (publish, header): (View<'_>, &[u8]),
        now: Instant,
    ) {
        if self.waiting.is_some() || self.next.is_some_and(|next| now < next) {
            self.left_out += 1;
            return;
        }
        let rules = window.rules();
        let Ok(Publish { exchange, routing_key, .. }) = Publish::parse(publish.payload()) else { return };
        let found = ContentHeader::parse(header, &rules.id).ok();
        let id = found.and_then(|found| match &rules.id {
            IdSource::Parts(parts) => {
                let parts = parts.iter().filter_map(|part| found.part(part));
                Some(parts.map(|part| text(&part)).collect::<Vec<_>>().join(&b' ').into())
            }
            _ => found.id.as_ref().map(text),
        });
        self.next = Some(now + EVERY);
        self.waiting = Some(Box::new(Sighting {
            what,
            window: Arc::clone(&rules.name),
            id: id.unwrap_or_default(),
            vhost: vhost.into(),
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            left_out: std::mem::take(&mut self.left_out),
        }));
    }

    /// Takes the one that waits.
    pub(super) fn take(&mut self) -> Option<Box<Sighting>> {
        self.waiting.take()
    }
}

/// Returns an id as people read it.
fn text(id: &IdValue<'_>) -> Box<[u8]> {
    match *id {
        IdValue::Bytes(bytes) | IdValue::Other(_, bytes) => bytes.iter().take(LONGEST).copied().collect(),
        IdValue::Integer(number) => number.to_string().into_bytes().into(),
    }
}
