//! A guarded queue: its window, and the ids of its deliveries.

use crate::session::Shared;
use crate::window::{Claim, Event, Mode, Scoped, Window, is_same};
use crate::wire::ContentHeader;
use crate::wire::properties::{IdSource, IdValue};
use std::sync::Arc;
use std::time::Duration;

/// A guarded queue, as one consumer or one `basic.get` reads it.
#[derive(Debug)]
pub(in crate::session) struct Guarded {
    window: Arc<dyn Window>,
    /// an id is unique within the queue
    scoped: Scoped,
}

/// The id of a delivery, as its header shows it.
pub(super) enum Id {
    /// Nobody judges the delivery.
    None,
    /// It is known, and this is for how long it is remembered.
    Known(Claim, Duration),
    /// It is the body, and this makes the claim of it.
    Body(Scoped, Duration),
}

impl Guarded {
    /// Returns the guard of this queue, if it has one.
    pub(in crate::session) fn find(shared: &Shared, vhost: &[u8], name: &[u8]) -> Option<Arc<Guarded>> {
        let window = shared.windows.guard(vhost, name)?;
        Some(Arc::new(Guarded { window, scoped: shared.keys.scoped_to_queue(vhost, name) }))
    }

    /// Returns true if both are the guard of the same queue.
    pub(in crate::session) fn is_as(&self, other: &Guarded) -> bool {
        let key = |guarded: &Guarded| guarded.scoped.key(&IdValue::Bytes(b""));
        is_same(&self.window, &other.window) && key(self) == key(other)
    }

    /// Returns the window that remembers which ids were acked.
    pub(super) fn window(&self) -> &Arc<dyn Window> {
        &self.window
    }

    /// Returns true if duplicates are counted and shown.
    pub(super) fn is_observed(&self) -> bool {
        self.window.mode() == Mode::Observe
    }

    /// Reads the content header of a delivery. A message that has died and came back is another one than before, as it is for who
    /// publishes it again. A delivery whose header can't be read is shown:
    /// one that is hidden by mistake is lost.
    pub(super) fn read(&self, header: &[u8]) -> Id {
        let window = &self.window;
        let source = &window.rules().id;
        if window.mode() == Mode::Off {
            return Id::None;
        }
        let Ok(found) = ContentHeader::parse(header, source) else { return Id::None };
        if found.is_of_stream() {
            return Id::None;
        }
        if found.bypass {
            window.notice(Event::Bypassed);
            return Id::None;
        }
        let scoped = match if found.is_special() { found.death() } else { Ok(None) } {
            Ok(None) => self.scoped,
            Ok(Some(death)) => self.scoped.with_death(&death),
            Err(_) => return Id::None,
        };
        let ttl = found.cache_ttl_ms.map_or_else(|| window.ttl(), Duration::from_millis);
        match (source, found.id) {
            (IdSource::Body, _) => Id::Body(scoped, ttl),
            (IdSource::Parts(parts), Some(_)) => {
                let parts = parts.iter().map(|part| found.part(part));
                Id::Known(scoped.key_of_parts(parts).into(), ttl)
            }
            (_, Some(id)) => Id::Known(scoped.key(&id).into(), ttl),
            (_, None) => {
                window.notice(Event::NoId);
                Id::None
            }
        }
    }
}
