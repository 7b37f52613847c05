//! The store of a window with a log: a list of batches, which the world writes when it likes. A crash of the relay leaves the batches.

use super::plan::Micros;
use super::schedule::instant;
use hapax_core::window::logged::{Codec, LoggedWindow, Record, RelayId, What};
use hapax_core::window::{Claim, Inspect, KeyMaker, OnOutage, Position, Remember, StorePolicy};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// A window with a log, and its store.
#[derive(Debug)]
pub struct Shelf {
    /// the window
    pub window: Arc<LoggedWindow>,
    policy: StorePolicy,
    codec: Codec,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// what is in the store
    batches: Vec<Vec<u8>>,
    /// what the writer has taken
    taken: VecDeque<(Vec<Record>, Position)>,
    /// the commits that are not in the store
    unwritten: BTreeSet<(Claim, Instant)>,
    /// when the others came there
    history: BTreeMap<(Claim, Instant), Instant>,
}

/// The wall clock, which nobody sets here.
fn wall(now: Micros) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_micros(now)
}

impl Shelf {
    /// A window, and a store that has what was left of the one before.
    pub fn new(window: Arc<LoggedWindow>, before: Option<&Shelf>, now: Micros) -> Shelf {
        let relay = before.map_or(1, |before| before.codec.relay().0 + 1);
        let rules = hapax_core::window::Window::rules(&*window);
        let codec = Codec::new(KeyMaker::new((1, 2)), rules, RelayId(relay));
        let batches = before.map(|before| before.locked().batches.clone()).unwrap_or_default();
        for bytes in &batches {
            window.recover(&codec.decode(bytes).unwrap(), instant(now), wall(now));
        }
        window.recovered();
        let policy = *window.policy();
        let state = Mutex::new(State { batches, ..State::default() });
        Shelf { window, policy, codec, state }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer takes what there is.
    fn take(&self) -> MutexGuard<'_, State> {
        let mut state = self.locked();
        while let Some((records, position)) = self.window.take(3) {
            for Record { at, what } in &records {
                if let What::Seen(claim, _) = what {
                    state.unwritten.insert((*claim, *at));
                }
            }
            state.taken.push_back((records, position));
        }
        state
    }

    /// Batches that wait to be written.
    pub fn waiting(&self) -> usize {
        self.take().taken.len()
    }

    /// Whether there is something to write, or somebody waits for the store.
    pub fn is_busy(&self) -> bool {
        self.waiting() > 0 || self.is_down()
    }

    /// Whether it takes nothing.
    pub fn is_down(&self) -> bool {
        self.facts().is_some_and(|facts| facts.down_since.is_some())
    }

    fn facts(&self) -> Option<hapax_core::window::StoreFacts> {
        self.window.store(instant(0))
    }

    /// Questions that wait until the store works.
    pub fn questions(&self) -> usize {
        self.facts().map_or(0, |facts| facts.waiting_publishes as usize)
    }

    /// Writes this many batches.
    pub fn write(&self, count: usize, now: Micros) {
        for _ in 0..count {
            let mut state = self.take();
            let Some((records, position)) = state.taken.pop_front() else { return };
            let bytes = self.codec.encode(&records, instant(now), wall(now));
            state.batches.push(bytes);
            for Record { at, what } in records {
                if let What::Seen(claim, _) = what {
                    state.unwritten.remove(&(claim, at));
                    state.history.insert((claim, at), instant(now));
                }
            }
            drop(state);
            self.window.written(position, instant(now));
        }
    }

    /// Whether an ack says that a crash does not forget its id.
    pub fn is_safe(&self) -> bool {
        let went_on = self.facts().is_some_and(|facts| facts.unremembered > 0);
        self.policy.remember == Remember::Sync && (self.policy.on_outage == OnOutage::Refuse || !went_on)
    }

    /// Whether the commit of this claim at this moment must not be told to anybody.
    pub fn is_unremembered(&self, claim: Claim, at: Instant) -> bool {
        self.is_safe() && self.take().unwritten.contains(&(claim, at))
    }

    /// Whether it was written only after another moment, or is not.
    pub fn was_unremembered(&self, claim: Claim, at: Instant, then: Instant) -> bool {
        let state = self.take();
        let written = state.history.get(&(claim, at)).copied();
        written.is_some_and(|written| written >= then) || state.unwritten.contains(&(claim, at))
    }
}
