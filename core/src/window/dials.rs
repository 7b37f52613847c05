//! TTL and mode, which a window reads for every publish and an operator may change; and the window's clock.

use super::Mode;
use super::engine::Stamp;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// TTL and mode. They are read for every publish, so they are atomics and take no lock.
#[derive(Debug)]
pub(super) struct Dials {
    /// nanoseconds, 584 years at most
    ttl: AtomicU64,
    /// a place in [`Dials::MODES`]
    mode: AtomicU8,
}

impl Dials {
    const MODES: [Mode; 3] = [Mode::Enforce, Mode::Observe, Mode::Off];

    pub(super) fn new(ttl: Duration, mode: Mode) -> Dials {
        let dials = Dials { ttl: AtomicU64::new(0), mode: AtomicU8::new(0) };
        dials.set_ttl(ttl);
        dials.set_mode(mode);
        dials
    }

    pub(super) fn ttl(&self) -> Duration {
        Duration::from_nanos(self.ttl.load(Relaxed))
    }

    pub(super) fn set_ttl(&self, ttl: Duration) {
        self.ttl.store(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn mode(&self) -> Mode {
        Dials::MODES.get(usize::from(self.mode.load(Relaxed))).copied().unwrap_or_default()
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        let place = Dials::MODES.into_iter().position(|other| other == mode).unwrap_or_default();
        self.mode.store(u8::try_from(place).unwrap_or_default(), Relaxed);
    }
}

/// Makes stamps of instants. The first instant that it is given is its start.
#[derive(Debug, Default)]
pub(super) struct Clock {
    start: OnceLock<Instant>,
}

impl Clock {
    /// Sets the start, unless a stamp was made already.
    pub(super) fn start(&self, start: Instant) {
        let _ = self.start.set(start);
    }

    pub(super) fn stamp(&self, now: Instant) -> Stamp {
        Stamp(0).after(now.saturating_duration_since(*self.start.get_or_init(|| now)))
    }
}
