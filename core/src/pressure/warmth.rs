//! Whether a window has kept its promise for a whole TTL yet.
//!
//! A window that has just started, or was flushed, does not know what was published before. Until it is a TTL old, a
//! duplicate of such a message gets through, and nothing can count it. The same holds for a longer TTL, until it has been in
//! force for as long as it is, and for a window that was off.
//!
//! A window that has read what its store knows is as old as that: after a restart it is warm at once, if its log reaches back for a TTL.

use crate::window::Mode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Says that a window was flushed. The event has no time, so the next look at the clock begins anew.
#[derive(Debug, Default)]
pub(super) struct FlushFlag(AtomicBool);

impl FlushFlag {
    pub(super) fn raise(&self) {
        self.0.store(true, Relaxed);
    }

    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }
}

/// Since when the window has kept its present promise.
#[derive(Debug, Default)]
pub(super) struct Warmth {
    since: Option<Instant>,
    ttl: Duration,
    is_off: bool,
    /// The store has said how far back it reaches. It is asked once: what happens later, happens here.
    has_store_told: bool,
    /// how warm the window was when it was last followed
    last: Option<Warming>,
}

/// How far a window is on its way to be warm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Warming {
    /// for how long the promise has been kept: an id is not remembered for longer
    pub(super) kept: Duration,
    /// how long it takes until the window is warm; zero for a warm window
    pub(super) left: Duration,
}

impl Warmth {
    /// Follows the settings and flushes of the window, and returns how warm it is. `known_for` is how far back the window's store reaches, as
    /// soon as the window knows what it knows.
    pub(super) fn follow(
        &mut self,
        mode: Mode,
        ttl: Duration,
        flushed: bool,
        known_for: Option<Duration>,
        now: Instant,
    ) -> Warming {
        let was_off = std::mem::replace(&mut self.is_off, mode == Mode::Off);
        let ttl_before = std::mem::replace(&mut self.ttl, ttl);
        if flushed || was_off || self.is_off || ttl > ttl_before {
            self.since = None;
        }
        let mut since = *self.since.get_or_insert(now);
        if let Some(known_for) = known_for.filter(|_| !std::mem::replace(&mut self.has_store_told, true)) {
            since = since.min(now.checked_sub(known_for).unwrap_or(now));
            self.since = Some(since);
        }
        let kept = now.saturating_duration_since(since);
        let warming =
            Warming { kept, left: if self.is_off { Duration::ZERO } else { ttl.saturating_sub(kept) } };
        self.last = Some(warming);
        warming
    }

    /// Returns what [`Warmth::follow`] said last, unless a setting has changed since: between two ticks, numbers stay.
    pub(super) fn look(
        &mut self,
        mode: Mode,
        ttl: Duration,
        flushed: bool,
        known_for: Option<Duration>,
        now: Instant,
    ) -> Warming {
        let is_told = known_for.is_none() || self.has_store_told;
        let is_same = !flushed && is_told && ttl == self.ttl && (mode == Mode::Off) == self.is_off;
        match self.last.filter(|_| is_same) {
            Some(last) => last,
            None => self.follow(mode, ttl, flushed, known_for, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_warm_when_it_has_kept_its_promise_for_a_ttl() {
        #[expect(clippy::disallowed_methods, reason = "one base instant; the test counts from there")]
        let base = Instant::now();
        let seconds = Duration::from_secs;
        let mut warmth = Warmth::default();
        let on = Mode::Enforce;
        let script = [
            (0, on, 60, false, 60),
            (20, on, 60, false, 40),
            (60, on, 60, false, 0),
            (70, on, 30, false, 0),
            (80, on, 90, false, 90), // the ids of before have the old TTL
            (90, Mode::Observe, 90, false, 80),
            (100, on, 20, false, 0),
            (110, on, 20, true, 20),
            (140, Mode::Off, 20, false, 0), // nothing is promised
            (150, on, 20, false, 20),
            (171, on, 20, false, 0),
        ];
        for (at, mode, ttl, flushed, left) in script {
            let warming = warmth.follow(mode, seconds(ttl), flushed, None, base + seconds(at));
            assert_eq!(warming.left, seconds(left), "at {at} s");
        }
        assert_eq!(warmth.follow(on, Duration::ZERO, true, None, base + seconds(200)).left, Duration::ZERO);
    }

    /// With 60 s of TTL: what the store says counts once, and what happens here counts from then on.
    #[test]
    fn a_window_is_as_old_as_what_its_store_knows() {
        #[expect(clippy::disallowed_methods, reason = "one base instant; the test counts from there")]
        let base = Instant::now() + Duration::from_secs(1_000);
        let seconds = Duration::from_secs;
        let script = |known: &[(u64, Option<u64>, bool, u64)]| {
            let mut warmth = Warmth::default();
            for (at, known_for, flushed, left) in known {
                let known_for = known_for.map(seconds);
                let now = base + seconds(*at);
                let warming = warmth.look(Mode::Enforce, seconds(60), *flushed, known_for, now);
                assert_eq!(warming.left, seconds(*left), "at {at} s of {known:?}");
            }
        };
        script(&[(0, None, false, 60), (5, Some(60), true, 0), (6, Some(60), true, 60)]);
        script(&[(0, None, false, 60), (5, Some(25), false, 35)]);
        script(&[(0, Some(900), false, 0), (5, Some(900), true, 60), (6, Some(901), false, 60)]);
        script(&[(0, None, true, 60), (5, Some(1), false, 55)]);
    }
}
