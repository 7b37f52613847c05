//! The sample of a window's events, for its accounting: one comparison for what is not sampled, a mutex for what is.

use super::WhatIf;
use crate::pressure::facts;
use crate::window::{Apart, Claim, Event, Limits};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// A [`WhatIf`] that many threads feed. It sleeps until the first tick, which tells it what the window is like.
#[derive(Debug, Default)]
pub struct Sampler {
    /// Nothing is below 0: nothing is sampled.
    threshold: AtomicU64,
    what_if: Apart<Mutex<Option<WhatIf>>>,
}

impl Sampler {
    /// To be told all events of a window.
    pub fn on(&self, event: &Event) {
        let (key, now, until) = match *event {
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

    /// About once a second. `publishes`: events `Committed`, `CommittedInDoubt` and `Duplicate` since ever.
    pub fn tick(&self, limits: Limits, now: Instant, publishes: u64) {
        let mut what_if = self.what_if.lock();
        let what_if = what_if.get_or_insert_with(|| WhatIf::new(limits, now, publishes));
        what_if.tick(limits, now, publishes);
        self.threshold.store(what_if.threshold(), Relaxed);
    }

    /// The curve, at this cost of an id. `publishes` as for [`Sampler::tick`].
    pub fn facts(&self, bytes_per_id: f64, publishes: u64) -> facts::WhatIf {
        self.what_if.lock().as_ref().map_or_else(facts::WhatIf::default, |w| w.facts(bytes_per_id, publishes))
    }

    /// What it takes on the heap.
    pub fn bytes(&self) -> usize {
        self.what_if.lock().as_ref().map_or(0, WhatIf::bytes)
    }
}
