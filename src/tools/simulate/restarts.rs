//! Says what restarts of the relay cost: the same replay, but at each restart the window forgets what its store would not have.
//!
//! A restart takes no time here: nothing is published meanwhile. *Passed* are the duplicates that got through because a restart had made
//! the window forget their id. A duplicate whose id had been evicted early before the restart has *escaped*, as ever.

use super::replay::{Outcome, Setting, nanos, replay_through};
use super::study::share_out;
use super::trace::Trace;
use hapax_core::window::engine::Stamp;
use hapax_core::window::{Claim, Event, EvictionCause, Inspect, Key, LocalWindow};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::num::NonZero;
use std::time::{Duration, Instant};

/// How much of what a window has remembered is there after a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps {
    /// Nothing: it remembers in memory only.
    Nothing,
    /// All but the ids that were committed within this time before the restart (`remember = "async"`), if the relay was killed.
    AllBut(Duration),
    /// Everything (`remember = "sync"`).
    Everything,
}

/// The restarts of a relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restarts {
    /// how long the relay runs each time
    pub every: Duration,
    /// what it still knows then
    pub keeps: Keeps,
}

/// The counts of a replay with restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restarted {
    /// how much the window keeps
    pub keeps: Keeps,
    /// as without restarts
    pub outcome: Outcome,
    /// duplicates that got through because a restart had made the window forget their id
    pub passed: u64,
}

/// The same restarts with and without a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// of the window
    pub setting: Setting,
    /// how long the relay runs each time
    pub every: Duration,
    /// how often it was started again
    pub count: u64,
    /// without a store first
    pub rows: Vec<Restarted>,
}

/// Replays the trace with restarts: in memory only, with a store that is `delay` behind, and with one that is never behind.
pub fn compare(
    trace: &Trace,
    setting: Setting,
    every: Duration,
    delay: Duration,
    threads: NonZero<usize>,
) -> Comparison {
    let all = [Keeps::Nothing, Keeps::AllBut(delay), Keeps::Everything];
    let rows = share_out(&all, threads, |keeps| {
        let (outcome, passed) =
            replay_through(trace, setting, Some(Restarts { every, keeps: *keeps }), &|_| {});
        Restarted { keeps: *keeps, outcome, passed }
    });
    let count = u64::try_from(trace.span().as_nanos() / every.as_nanos().max(1)).unwrap_or(u64::MAX);
    Comparison { setting, every, count, rows }
}

/// The restarts of one replay, and what they have made the window forget.
#[derive(Debug)]
pub(super) struct Course {
    restarts: Option<Restarts>,
    /// when the next one is due
    due: u64,
    /// the commits that a restart at this moment would lose, the oldest first
    unwritten: VecDeque<(u64, Key)>,
}

impl Course {
    pub(super) fn new(restarts: Option<Restarts>) -> Course {
        let due = restarts.map_or(u64::MAX, |restarts| nanos(restarts.every).max(1));
        Course { restarts, due, unwritten: VecDeque::new() }
    }

    /// Makes the window forget what the restarts up to this moment lose. If there were several since the last publish, only the first one
    /// has something to lose.
    pub(super) fn restart(&mut self, window: &LocalWindow, lost: &Lost, base: Instant, at: u64) {
        let Some(Restarts { every, keeps }) = self.restarts.filter(|_| at >= self.due) else { return };
        let every = nanos(every).max(1);
        let now = base + Duration::from_nanos(self.due);
        match keeps {
            Keeps::Nothing => {
                lost.sweep(Inspect::stamp(window, now));
                window.flush(now);
            }
            Keeps::AllBut(delay) => {
                lost.sweep(Inspect::stamp(window, now));
                let (delay, due) = (nanos(delay), self.due);
                for (_, key) in self.unwritten.drain(..).filter(|(at, _)| at.saturating_add(delay) > due) {
                    window.forget(key, now);
                }
            }
            Keeps::Everything => {}
        }
        self.due = self.due.saturating_add(((at - self.due) / every + 1).saturating_mul(every));
    }

    /// Notes a commit.
    pub(super) fn committed(&mut self, key: Key, at: u64) {
        if let Some(Restarts { keeps: Keeps::AllBut(delay), .. }) = self.restarts {
            let delay = nanos(delay);
            while self.unwritten.pop_front_if(|(before, _)| before.saturating_add(delay) <= at).is_some() {}
            self.unwritten.push_back((at, key));
        }
    }
}

/// The ids that restarts have made a window forget, with the end of their TTL. Nothing else flushes it or forgets an id.
#[derive(Debug, Default)]
pub(super) struct Lost(Mutex<HashMap<Key, Stamp>>);

impl Lost {
    pub(super) fn on(&self, event: &Event) {
        if let Event::Evicted {
            claim: Claim::Digest(key),
            until,
            cause: EvictionCause::Flush | EvictionCause::Forget,
            ..
        } = event
        {
            self.0.lock().insert(*key, *until);
        }
    }

    /// Returns true if a restart has made the window forget this id since its last commit.
    pub(super) fn take(&self, key: Key) -> bool {
        let mut lost = self.0.lock();
        !lost.is_empty() && lost.remove(&key).is_some()
    }

    fn sweep(&self, now: Stamp) {
        self.0.lock().retain(|_, until| *until > now);
    }
}
