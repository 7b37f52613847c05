//! Makes windows smaller in steps. Forgetting millions of ids takes seconds, so the API answers after the first steps, and
//! the rest goes on behind it. Publishes get in between two steps, and so do other requests.
//!
//! ```text
//!   PATCH ── first steps ── done? ── yes ─→ the answer
//!                             └──── no ──→ the answer, with `resizing`; a thread takes step after step
//! ```
//!
//! A step lowers the capacity by so much that at most [`STEP`] ids are forgotten. The window's capacity is always the one
//! that holds now. A later change of the same window replaces the target. A window that a reload has taken out is left as it is, also if
//! another one has its name by then.

use hapax_core::pressure::Watched;
use hapax_core::window::engine::EngineKind;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Ids that are forgotten in one step. That takes about 15 ms, with the accounting of each.
const STEP: usize = 20_000;

/// The windows that are being made smaller, by name, with the capacity that they will have.
#[derive(Debug, Default)]
pub(super) struct Resizes {
    targets: Mutex<HashMap<String, Target>>,
    /// Held during a step, so that no step goes on with a target that was replaced before it began.
    stepping: Mutex<()>,
}

/// A capacity, and the window that it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Target {
    window: usize,
    capacity: usize,
}

/// Returns a number that no other window of the process has meanwhile.
fn id(watched: &Watched) -> usize {
    Arc::as_ptr(&watched.window).addr()
}

impl Resizes {
    /// Returns the capacity that this window is on its way to.
    pub(super) fn target(&self, name: &str) -> Option<usize> {
        self.targets.lock().get(name).map(|target| target.capacity)
    }

    /// Sets the capacity that this window shall have. Returns true if nobody works on it yet: the caller has to, by
    /// [`Resizes::step`].
    pub(super) fn aim(&self, watched: &Watched, capacity: usize) -> bool {
        self.aim_at(&watched.window.rules().name, Target { window: id(watched), capacity })
    }

    fn aim_at(&self, name: &str, target: Target) -> bool {
        let before = self.targets.lock().insert(name.to_owned(), target);
        before.is_none_or(|before| before.window != target.window)
    }

    /// Gives up: the window keeps the capacity that it has now.
    pub(super) fn give_up(&self, name: &str) {
        self.targets.lock().remove(name);
    }

    /// Takes the next step toward the target. Returns true if there are more steps to take.
    pub(super) fn step(&self, watched: &Watched, engine: EngineKind, now: Instant) -> bool {
        let window = &watched.window;
        let name = &window.rules().name;
        let _one = self.stepping.lock();
        let aimed = self.targets.lock().get(&**name).copied().filter(|target| target.window == id(watched));
        let Some(Target { capacity: target, .. }) = aimed else { return false };
        let next = next(window.capacity().unwrap_or(target), window.entries().unwrap_or(0), target, engine);
        window.resize(next, now);
        // A new target may have come meanwhile.
        let mut targets = self.targets.lock();
        let of_this = |target: &Target| target.window == id(watched);
        if targets.get(&**name).is_some_and(|target| of_this(target) && target.capacity == next) {
            targets.remove(&**name);
        }
        targets.get(&**name).is_some_and(of_this)
    }
}

/// Returns the next capacity on the way to the target.
fn next(capacity: usize, entries: usize, target: usize, engine: EngineKind) -> usize {
    // An engine that makes a new store at each change makes one only. Growing forgets nothing.
    if target >= capacity || !engine.resizes_in_place() {
        return target;
    }
    entries.min(capacity).saturating_sub(STEP).max(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hapax_core::pressure::Accounting;
    use hapax_core::window::{Key, Limits, LocalWindow, Mailbox, Mode, Rules, Ticket, Verdict, reserve_one};
    use std::time::Duration;

    const TTL: Duration = Duration::from_secs(3600);

    fn watched(capacity: usize) -> Watched {
        let limits = Limits {
            capacity,
            ttl: TTL,
            mode: Mode::Enforce,
            refresh_on_duplicate: false,
            waiters_per_id: 4,
        };
        let accounting = Arc::new(Accounting::new());
        let window =
            LocalWindow::new(Rules::named("w"), limits, EngineKind::Compact, Arc::clone(&accounting));
        Watched { window, accounting }
    }

    /// 64 bits that look drawn, as those of a digest do (splitmix64).
    fn mixed(id: usize) -> u128 {
        let mut z = (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u128::from(z ^ (z >> 31))
    }

    /// Puts ids in, one a millisecond: it is certain which one is the oldest.
    fn fill(watched: &Watched, ids: usize, now: Instant) {
        let (mailbox, window) = (Arc::new(Mailbox::new()), &watched.window);
        for id in 0..ids {
            let now = now + Duration::from_millis(id as u64);
            let key = Key((mixed(id) << 64 | mixed(id + 1)) & Key::MASK);
            if let Verdict::Fresh(reservation) = reserve_one(window, key, now, &mailbox, Ticket(0)) {
                reservation.commit(now, TTL);
            }
        }
    }

    #[test]
    fn a_step_forgets_a_bounded_number_of_ids() {
        let compact = EngineKind::Compact;
        for (capacity, entries, target, expected) in [
            (10_000_000, 10_000_000, 1_000_000, 9_980_000),
            (10_000_000, 1_010_000, 1_000_000, 1_000_000),
            (10_000_000, 300, 1_000, 1_000),
            (10_000_000, 5_000_000, 1_000, 4_980_000),
            (1_000, 1_000, 10_000_000, 10_000_000),
            (7, 7, 7, 7),
        ] {
            assert_eq!(next(capacity, entries, target, compact), expected, "{capacity} {entries} {target}");
        }
        assert_eq!(next(10_000_000, 10_000_000, 1_000, EngineKind::Moka), 1_000);
    }

    #[test]
    fn the_last_target_counts() {
        let resizes = Resizes::default();
        let aim = |window, capacity| resizes.aim_at("w", Target { window, capacity });
        assert!(aim(1, 5), "somebody has to begin");
        assert!(!aim(1, 9), "somebody is at it");
        assert_eq!(resizes.target("w"), Some(9));
        assert!(aim(2, 7), "nobody is at the new window of that name");
        resizes.give_up("w");
        assert_eq!(resizes.target("w"), None);
    }

    /// Smaller, larger and smaller again, while the steps of an earlier change are taken: wherever these are, the last change holds at the
    /// end, and one thread at most is at it.
    #[test]
    fn of_changes_that_overtake_each_other_the_last_one_holds() {
        const IDS: usize = 45_000;
        let (resizes, watched, now) = (Resizes::default(), watched(IDS), crate::clock::now());
        for steps in [[0, 0], [1, 1], [2, 0], [3, 3]] {
            assert!(resizes.aim(&watched, IDS));
            while resizes.step(&watched, EngineKind::Compact, now) {}
            fill(&watched, IDS, now);
            let mut is_somebody_at_it = false;
            for (capacity, steps) in
                [1_000, 2 * IDS, 500].into_iter().zip(steps.into_iter().chain([usize::MAX]))
            {
                let begins = resizes.aim(&watched, capacity);
                assert_ne!(begins, is_somebody_at_it, "{steps:?}");
                is_somebody_at_it = true;
                for _ in 0..steps {
                    if !is_somebody_at_it {
                        break;
                    }
                    is_somebody_at_it = resizes.step(&watched, EngineKind::Compact, now);
                }
            }
            let (window, is_over) = (&watched.window, !is_somebody_at_it && resizes.target("w").is_none());
            assert_eq!((window.capacity(), is_over), (Some(500), true), "{steps:?}");
            assert!(window.entries().is_some_and(|entries| entries <= 500));
        }
    }
}
