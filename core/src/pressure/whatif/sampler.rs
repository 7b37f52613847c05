//! Feeds a [`WhatIf`] with the events of a window. An event that is not sampled costs one comparison, a sampled one a
//! mutex.

use super::WhatIf;
use crate::pressure::facts;
use crate::window::engine::Stamp;
use crate::window::{CacheAligned, Claim, Event, Key, Limits};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// A [`WhatIf`] that many threads feed. It does nothing until the first tick brings the window's settings.
#[derive(Debug, Default)]
pub struct Sampler {
    /// Keys below this are sampled. At 0, none is.
    threshold: AtomicU64,
    what_if: CacheAligned<Mutex<Option<WhatIf>>>,
}

impl Sampler {
    /// Handles an event. It must get all events of the window.
    pub fn on(&self, event: &Event) {
        let (key, now, until) = match *event {
            Event::Recovered { claim: Claim::Digest(key), at, until } => return self.recover(key, at, until),
            Event::Duplicate { claim: Claim::Digest(key), now } => (key, now, None),
            Event::Committed { claim: Claim::Digest(key), now, until }
            | Event::CommittedInDoubt { claim: Claim::Digest(key), now, until } => (key, now, Some(until)),
            _ => return,
        };
        if key.spread() < self.threshold.load(Relaxed)
            && let Some(what_if) = &mut *self.what_if.lock()
        {
            what_if.on_publish(key, now, until);
        }
    }

    /// An id that the window knows from its store is known to all sizes: nobody has published it here, so it counts as nothing.
    #[cold]
    fn recover(&self, key: Key, at: Stamp, until: Stamp) {
        if key.spread() < self.threshold.load(Relaxed)
            && let Some(what_if) = &mut *self.what_if.lock()
        {
            what_if.on_recovered(key, at, until);
        }
    }

    /// Call it about once a second. `publishes` counts the events `Committed`, `CommittedInDoubt` and `Duplicate`
    /// since the start.
    pub fn tick(&self, limits: Limits, now: Instant, publishes: u64) {
        let mut what_if = self.what_if.lock();
        let what_if = what_if.get_or_insert_with(|| WhatIf::new(limits, now, publishes));
        what_if.tick(limits, now, publishes);
        self.threshold.store(what_if.threshold(), Relaxed);
    }

    /// Returns the curve, for this many bytes per id. `publishes` is the same count as in [`Sampler::tick`].
    pub fn facts(&self, bytes_per_id: f64, publishes: u64) -> facts::WhatIf {
        self.what_if.lock().as_ref().map_or_else(facts::WhatIf::default, |w| w.facts(bytes_per_id, publishes))
    }

    /// Returns the bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.what_if.lock().as_ref().map_or(0, WhatIf::bytes)
    }
}
