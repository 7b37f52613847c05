//! `capacity = "auto"`: the windows that share one memory budget, and the code that sets their capacities.
//!
//! ```text
//! facts ─ pace ──▶ need and wish ─ share ──▶ bytes ─ cost ──▶ capacities ─ shrink first, then grow ──▶ windows
//! ```
//!
//! A window has a plain capacity, and the budget decides which. The cost of a capacity is the memory of a full store
//! as the engine states it ([`Inspect::store_bytes_at`]), or more if the store measurably takes more, plus the memory
//! of the accounting. Windows with a fixed capacity are not part of the budget, and neither is the memory of
//! connections.

pub mod pace;
pub mod plan;
pub mod share;

use super::layout::ghost_bytes;
use super::whatif::WhatIf;
use super::{Facts, Watched};
use crate::window::Inspect;
use crate::window::engine::EngineKind;
use pace::{Pace, Signs};
use parking_lot::Mutex;
use plan::{FLOOR, Seat};
use std::sync::Arc;
use std::time::Instant;

/// Bytes that every window takes, however small it is: tables of ids in flight, counters, sketches.
const FIXED: usize = 128 << 10;
/// The budget sets aside this many times the memory of a store. When other stores grow where this one has shrunk, the
/// allocator may hold as much again in holes. `tests/operator/budget.rs` measured it with glibc's allocator: with
/// three fifths more, `compact` exceeded its part in one run of three.
const HOLES: usize = 2;
/// The allocator loses one part in this many of all other memory: a quarter.
const LOST: usize = 4;

/// The windows that may size themselves, and the memory that they share. There is one budget per process. Every method
/// may be called from any thread.
#[derive(Debug, Default)]
pub struct Budget {
    bytes: Mutex<Option<usize>>,
    members: Mutex<Vec<Member>>,
}

/// A window that is, or may become, part of the budget.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// the window's name
    pub name: Arc<str>,
    /// the window's engine
    pub engine: EngineKind,
    /// whether it sizes itself from the start
    pub auto: bool,
    /// its share of the budget relative to others
    pub weight: u32,
}

/// Why a window can't size itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// no budget is configured
    #[error(
        "no memory_budget is configured, so no window can size itself: write memory_budget = \"512MiB\" at the top of the configuration file and start Hapax again, or give a number"
    )]
    NoBudget,
    /// the engine can't resize in place, see [`EngineKind::resizes_in_place`]
    #[error(
        "a window with engine = \"{}\" can't size itself, for it makes a new store at each change of capacity: give it another engine in the configuration file and start Hapax again, or give a number",
        .0.name()
    )]
    Engine(EngineKind),
}

#[derive(Debug)]
struct Member {
    share: Share,
    /// `None` before the window's first tick as a member
    pace: Option<Pace>,
    /// early evictions at the last tick
    evicted_early: u64,
}

impl Budget {
    /// Creates a budget for all windows of the process. Without `bytes`, none of them can size itself.
    pub fn new(bytes: Option<usize>, windows: impl IntoIterator<Item = Share>) -> Budget {
        let member = |share| Member { share, pace: None, evicted_early: 0 };
        Budget { bytes: Mutex::new(bytes), members: Mutex::new(windows.into_iter().map(member).collect()) }
    }

    /// Replaces the bytes and the windows. A window that sizes itself, and did so before, goes on at its pace.
    pub fn replace(&self, bytes: Option<usize>, windows: impl IntoIterator<Item = Share>) {
        let mut members = self.members.lock();
        let mut before = std::mem::take(&mut *members);
        let member = |share: Share| {
            let known = before.iter().position(|member| member.share.name == share.name);
            let mut member = match known {
                Some(at) => before.swap_remove(at),
                None => Member { share: share.clone(), pace: None, evicted_early: 0 },
            };
            if member.share.auto != share.auto {
                member.pace = None;
            }
            member.share = share;
            member
        };
        *members = windows.into_iter().map(member).collect();
        *self.bytes.lock() = bytes;
    }

    /// Returns the bytes of the whole budget, if there is one.
    pub fn budget_bytes(&self) -> Option<usize> {
        *self.bytes.lock()
    }

    /// Returns true if this window sizes itself.
    pub fn is_auto(&self, name: &str) -> bool {
        self.members.lock().iter().any(|member| *member.share.name == *name && member.share.auto)
    }

    /// Lets a window size itself from the next tick on, or makes it keep its present capacity. An unknown window is
    /// ignored.
    pub fn set_auto(&self, name: &str, auto: bool) -> Result<(), Refused> {
        let mut members = self.members.lock();
        let Some(member) = members.iter_mut().find(|member| *member.share.name == *name) else {
            return Ok(());
        };
        if auto {
            self.check(member)?;
        }
        if member.share.auto != auto {
            member.share.auto = auto;
            member.pace = None;
        }
        Ok(())
    }

    /// Returns whether [`Budget::set_auto`] would allow this window to size itself.
    pub fn may_be_auto(&self, name: &str) -> Result<(), Refused> {
        let members = self.members.lock();
        members.iter().find(|member| *member.share.name == *name).map_or(Ok(()), |member| self.check(member))
    }

    fn check(&self, member: &Member) -> Result<(), Refused> {
        let engine = member.share.engine;
        match *self.bytes.lock() {
            None => Err(Refused::NoBudget),
            Some(_) if !engine.resizes_in_place() => Err(Refused::Engine(engine)),
            Some(_) => Ok(()),
        }
    }

    /// Updates the capacities. Call it about once a second.
    pub fn tick(&self, windows: &[Watched], now: Instant) {
        let Some(budget) = self.budget_bytes() else { return };
        let mut members = self.members.lock();
        for member in &*members {
            if let Some(watched) = find(windows, &member.share.name) {
                watched.accounting.set_auto(member.share.auto);
            }
        }
        let autos: Vec<(&Watched, &mut Member)> = members
            .iter_mut()
            .filter(|member| member.share.auto)
            .filter_map(|member| Some((find(windows, &member.share.name)?, member)))
            .collect();
        let mut seats = Vec::new();
        let mut seated = Vec::new();
        for (watched, member) in autos {
            let facts = watched.facts(now);
            let window = &watched.window;
            let Some(signs) = member.signs(&**window, &facts) else { continue };
            let pace = member.pace.get_or_insert_with(|| Pace::new(signs.capacity, now));
            seats.push(Seat {
                weight: member.share.weight,
                signs,
                cost: cost(&**window, signs.capacity),
                pace,
            });
            seated.push((window, facts, signs.capacity));
        }
        let next = plan::plan(budget, &mut seats, now);
        for grow in [false, true] {
            for ((window, facts, before), capacity) in seated.iter().zip(&next) {
                if capacity != before && (capacity > before) == grow {
                    apply(&***window, facts, (*before, *capacity), now);
                }
            }
        }
    }
}

impl Member {
    /// Returns the state from which the window's size is decided. `None` for a window without a capacity.
    fn signs(&mut self, window: &dyn Inspect, facts: &Facts) -> Option<Signs> {
        let (capacity, entries, pressure) = (window.capacity()?, facts.entries?, facts.pressure?);
        let early = facts.evictions.get("capacity").copied().unwrap_or(0);
        let before = std::mem::replace(&mut self.evicted_early, early);
        Some(Signs {
            capacity,
            entries,
            ttl: window.ttl(),
            pressure,
            arrived: facts.arrived,
            recommended: facts.recommended_capacity,
            evicted_early: if self.pace.is_some() { early.saturating_sub(before) } else { 0 },
        })
    }
}

/// Returns the capacity that a window starts with, before its traffic is known: its fair share.
pub fn capacity_at_start(engine: EngineKind, budget: usize, weight: u32, weights: u32) -> usize {
    let share = budget as u128 * u128::from(weight) / u128::from(weights.max(1));
    let cost = |capacity| full(engine.bytes_at(capacity), capacity) + FIXED;
    plan::capacity_for(&cost, usize::try_from(share).unwrap_or(usize::MAX))
}

/// Returns the most bytes that a full window of this engine and capacity takes.
pub fn full_bytes(engine: EngineKind, capacity: usize) -> usize {
    full(engine.bytes_at(capacity), capacity) + FIXED
}

/// Returns the least bytes that a window of this engine takes as a part of the budget.
pub fn least_bytes(engine: EngineKind) -> usize {
    full(engine.bytes_at(FLOOR), FLOOR) + FIXED
}

/// Returns the most bytes that a full window of this capacity can take.
fn full(store: usize, capacity: usize) -> usize {
    let beside = ghost_bytes(capacity) + WhatIf::bytes_at_most(capacity);
    store * HOLES + beside + beside / LOST
}

fn cost<'a>(window: &'a dyn Inspect, capacity: usize) -> Box<plan::Cost<'a>> {
    let store = window.store_bytes();
    let in_flight = window.bytes().saturating_sub(store);
    // This is 1, unless the engine takes more than it states.
    let measured = (store as f64 / window.store_bytes_at(capacity) as f64).max(1.0);
    Box::new(move |capacity| {
        #[expect(clippy::cast_possible_truncation, reason = "not negative, and a cast saturates")]
        let store = (window.store_bytes_at(capacity) as f64 * measured) as usize;
        full(store, capacity) + FIXED + in_flight
    })
}

fn apply(window: &dyn Inspect, facts: &Facts, (from, to): (usize, usize), now: Instant) {
    tracing::info!(
        window = &*window.rules().name,
        from,
        to,
        recommended = facts.recommended_capacity,
        "capacity = \"auto\": resized"
    );
    window.resize(to, now);
}

fn find<'a>(windows: &'a [Watched], name: &str) -> Option<&'a Watched> {
    windows.iter().find(|watched| *watched.window.rules().name == *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pressure::Accounting;
    use crate::pressure::captured::log_of;
    use crate::window::{Key, Limits, LocalWindow, Mailbox, Mode, Rules, Ticket, Verdict, reserve_one};
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);
    const ENGINE: EngineKind = EngineKind::Compact;

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    fn watched(name: &str, capacity: usize) -> Watched {
        let limits = Limits {
            capacity,
            ttl: 60 * SECOND,
            mode: Mode::Enforce,
            refresh_on_duplicate: false,
            waiters_per_id: 64,
        };
        let accounting = Arc::new(Accounting::new());
        Watched {
            window: LocalWindow::new(Rules::named(name), limits, ENGINE, accounting.clone()),
            accounting,
        }
    }

    /// Lets a second pass, with this many new ids.
    fn second(watched: &Watched, ids: &mut u128, count: usize, now: Instant) {
        let mailbox = Arc::new(Mailbox::new());
        for _ in 0..count {
            *ids += 1;
            let key = Key(ids.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) & Key::MASK);
            if let Verdict::Fresh(reservation) = reserve_one(&watched.window, key, now, &mailbox, Ticket(0)) {
                reservation.commit(now, watched.window.ttl());
            }
        }
        watched.tick(now);
    }

    #[test]
    fn what_a_pressed_window_takes_beside_its_store_is_in_its_cost() {
        let (watched, capacity) = (watched("pressed", 200_000), 200_000);
        let (mut now, mut ids) = (base(), 0);
        for _ in 0..60 {
            now += SECOND;
            second(&watched, &mut ids, 10_000, now);
        }
        let facts = watched.facts(now);
        let took = usize::try_from(facts.bytes).unwrap() - watched.window.bytes();
        let set_aside =
            cost(&*watched.window, capacity)(capacity) - watched.window.store_bytes_at(capacity) * HOLES;
        assert!(took > capacity * 12, "the ghost is there: {took} bytes");
        assert!(took <= set_aside, "{took} bytes of {set_aside}");
    }

    /// Returns window, old capacity and new capacity of each logged resize.
    fn resizes(text: &str) -> Vec<(usize, usize, usize)> {
        let field = |line: &str, name: &str| -> String {
            let (_, rest) = line.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{name}: {line}"));
            rest.split_whitespace().next().unwrap().trim_matches('"').to_owned()
        };
        let number = |line: &str, name: &str| field(line, name).parse::<usize>().unwrap();
        let resize = |line: &str| (number(line, "window"), number(line, "from"), number(line, "to"));
        text.lines().map(resize).collect()
    }

    /// Traffic moves from one window to the other: the first must make room before the second can take it.
    #[test]
    fn the_budget_holds_between_two_resizes_of_one_tick() {
        let bytes = 16 << 20;
        let share = |name: &str| Share { name: name.into(), engine: ENGINE, auto: true, weight: 1 };
        let budget = Budget::new(Some(bytes), ["0", "1"].map(share));
        let start = capacity_at_start(ENGINE, bytes, 1, 2);
        let windows = ["0", "1"].map(|name| watched(name, start));
        let mut capacities = [start; 2];
        let takes = |capacity| full(ENGINE.bytes_at(capacity), capacity) + FIXED;
        let (mut now, mut ids, mut together) = (base(), 0, 0);
        for busy in [0, 1, 0] {
            for _ in 0..150 {
                now += SECOND;
                for (n, watched) in windows.iter().enumerate() {
                    second(watched, &mut ids, if n == busy { 4_000 } else { 10 }, now);
                }
                let resizes = resizes(&log_of(|| budget.tick(&windows, now)));
                together += usize::from(resizes.len() == 2);
                for (window, from, to) in resizes {
                    assert_eq!(capacities[window], from);
                    capacities[window] = to;
                    let sum = capacities.map(takes).iter().sum::<usize>();
                    assert!(sum <= bytes, "{sum} of {bytes} bytes at {capacities:?}");
                }
            }
        }
        assert!(together > 0, "both were resized in one tick");
    }
}
