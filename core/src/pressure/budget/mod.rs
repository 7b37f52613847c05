//! `capacity = "auto"`: the windows that share one memory budget, and the task that sets their capacities.
//!
//! ```text
//! facts ─ pace ──▶ need and wish ─ share ──▶ bytes ─ cost ──▶ capacities ─ shrink first, then grow ──▶ windows
//! ```
//!
//! A window keeps a plain capacity; this decides which. What a capacity costs is what the engine says of a full store
//! ([`LocalWindow::store_bytes_at`]), more if a measurement says more, and what its accounting takes beside it. Windows with a fixed
//! capacity are not part of the budget, nor is what connections take.

pub mod pace;
pub mod plan;
pub mod share;

use super::form::ghost_bytes;
use super::whatif::WhatIf;
use super::{Accounting, Facts, Watched};
use crate::window::engine::EngineKind;
use crate::window::{LocalWindow, Window};
use pace::{Pace, Signs};
use parking_lot::Mutex;
use plan::{FLOOR, Seat};
use std::sync::Arc;
use std::time::Instant;

/// What a window takes however small it is: tables of what is in flight, counters, sketches.
const FIXED: usize = 128 << 10;
/// So many times what a store takes is set aside for it: the allocator may hold as much again in holes, when other stores grow
/// where this one has shrunk. Measured by `tests/budget.rs` with glibc's; three fifths were too little for `compact` in one run
/// of three.
const HOLES: usize = 2;
/// What the allocator loses between the other pieces: a quarter.
const LOST: usize = 4;

/// Which windows size themselves, and within what. One per process; every method may be called from any thread.
#[derive(Debug, Default)]
pub struct Budget {
    bytes: Option<usize>,
    members: Mutex<Vec<Member>>,
}

/// A window that is, or may be, part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// the window's
    pub name: Arc<str>,
    /// how it stores ids
    pub engine: EngineKind,
    /// sizes itself from the start
    pub auto: bool,
    /// its share relative to others
    pub weight: u32,
}

/// Why a window can't size itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// there is nothing that it could have a share of
    #[error(
        "no memory_budget is configured, so no window can size itself: write memory_budget = \"512MiB\" at the top of the configuration file and start Hapax again, or give a number"
    )]
    NoBudget,
    /// see [`EngineKind::resizes_in_place`]
    #[error(
        "a window with engine = \"{}\" can't size itself, for it makes a new store at each change of capacity: give it another engine in the configuration file and start Hapax again, or give a number",
        .0.name()
    )]
    Engine(EngineKind),
}

#[derive(Debug)]
struct Member {
    share: Share,
    /// none before the first tick as a member
    pace: Option<Pace>,
    /// early evictions at the last tick
    evicted_early: u64,
}

impl Budget {
    /// All windows of the process; without `bytes` none of them can be auto.
    pub fn new(bytes: Option<usize>, windows: impl IntoIterator<Item = Share>) -> Budget {
        let member = |share| Member { share, pace: None, evicted_early: 0 };
        Budget { bytes, members: Mutex::new(windows.into_iter().map(member).collect()) }
    }

    /// The whole of it.
    pub fn budget_bytes(&self) -> Option<usize> {
        self.bytes
    }

    /// Whether this window sizes itself.
    pub fn is_auto(&self, name: &str) -> bool {
        self.members.lock().iter().any(|member| *member.share.name == *name && member.share.auto)
    }

    /// Lets a window size itself from the next tick on, or keep the capacity that it has. A window that is not known stays so.
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

    /// Whether [`Budget::set_auto`] would let it.
    pub fn may_be_auto(&self, name: &str) -> Result<(), Refused> {
        let members = self.members.lock();
        members.iter().find(|member| *member.share.name == *name).map_or(Ok(()), |member| self.check(member))
    }

    fn check(&self, member: &Member) -> Result<(), Refused> {
        let engine = member.share.engine;
        match self.bytes {
            None => Err(Refused::NoBudget),
            Some(_) if !engine.resizes_in_place() => Err(Refused::Engine(engine)),
            Some(_) => Ok(()),
        }
    }

    /// About once a second: brings the capacities up to date.
    pub fn tick(&self, windows: &[Watched], now: Instant) {
        let Some(budget) = self.bytes else { return };
        let mut members = self.members.lock();
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
            let signs = member.signs(window, &facts);
            let pace = member.pace.get_or_insert_with(|| Pace::new(signs.capacity, now));
            seats.push(Seat { weight: member.share.weight, signs, cost: cost(window), pace });
            seated.push((window, facts));
        }
        let next = plan::plan(budget, &mut seats, now);
        for grow in [false, true] {
            for ((window, facts), capacity) in seated.iter().zip(&next) {
                if *capacity != window.capacity() && (*capacity > window.capacity()) == grow {
                    apply(window, facts, *capacity, now);
                }
            }
        }
    }
}

impl Member {
    fn signs(&mut self, window: &LocalWindow<Accounting>, facts: &Facts) -> Signs {
        let early = facts.evictions.get("capacity").copied().unwrap_or(0);
        let before = std::mem::replace(&mut self.evicted_early, early);
        Signs {
            capacity: window.capacity(),
            entries: facts.entries,
            ttl: window.ttl(),
            pressure: facts.pressure,
            recommended: facts.recommended_capacity,
            evicted_early: if self.pace.is_some() { early.saturating_sub(before) } else { 0 },
        }
    }
}

/// The capacity that a window has before anything is known of its traffic: its fair share.
pub fn capacity_at_start(engine: EngineKind, budget: usize, weight: u32, weights: u32) -> usize {
    let share = budget as u128 * u128::from(weight) / u128::from(weights.max(1));
    let cost = |capacity| full(engine.bytes_at(capacity), capacity) + FIXED;
    plan::capacity_for(&cost, usize::try_from(share).unwrap_or(usize::MAX))
}

/// What a window of this engine takes at least, as part of a budget.
pub fn least_bytes(engine: EngineKind) -> usize {
    full(engine.bytes_at(FLOOR), FLOOR) + FIXED
}

/// What a window of some capacity takes when it is full, whatever happens in it.
fn full(store: usize, capacity: usize) -> usize {
    let beside = ghost_bytes(capacity) + WhatIf::bytes_at_most(capacity);
    store * HOLES + beside + beside / LOST
}

fn cost<'a>(window: &'a LocalWindow<Accounting>) -> Box<plan::Cost<'a>> {
    let (capacity, store) = (window.capacity(), window.store_bytes());
    let in_flight = window.bytes().saturating_sub(store);
    // 1, unless the engine takes more than it says.
    let measured = (store as f64 / window.store_bytes_at(capacity) as f64).max(1.0);
    Box::new(move |capacity| {
        #[expect(clippy::cast_possible_truncation, reason = "not negative, and a cast saturates")]
        let store = (window.store_bytes_at(capacity) as f64 * measured) as usize;
        full(store, capacity) + FIXED + in_flight
    })
}

fn apply(window: &LocalWindow<Accounting>, facts: &Facts, capacity: usize, now: Instant) {
    tracing::info!(
        window = &*window.rules().name,
        from = window.capacity(),
        to = capacity,
        recommended = facts.recommended_capacity,
        "capacity = \"auto\": resized"
    );
    window.resize(capacity, now);
}

fn find<'a>(windows: &'a [Watched], name: &str) -> Option<&'a Watched> {
    windows.iter().find(|watched| *watched.window.rules().name == *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Key, Limits, Mailbox, Mode, Rules, Ticket, Verdict, reserve_one};
    use std::io::{self, Write};
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

    /// A second in which so many new ids come.
    fn second(watched: &Watched, ids: &mut u128, count: usize, now: Instant) {
        let mailbox = Arc::new(Mailbox::new());
        for _ in 0..count {
            *ids += 1;
            let key = Key(ids.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
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
        let set_aside = cost(&watched.window)(capacity) - watched.window.store_bytes_at(capacity) * HOLES;
        assert!(took > capacity * 12, "the ghost is there: {took} bytes");
        assert!(took <= set_aside, "{took} bytes of {set_aside}");
    }

    /// What is logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Window, capacity from, capacity to.
    fn resizes(lines: &Lines) -> Vec<(usize, usize, usize)> {
        let text = String::from_utf8(std::mem::take(&mut *lines.0.lock())).unwrap();
        let field = |line: &str, name: &str| -> String {
            let (_, rest) = line.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{name}: {line}"));
            rest.split_whitespace().next().unwrap().trim_matches('"').to_owned()
        };
        let number = |line: &str, name: &str| field(line, name).parse::<usize>().unwrap();
        let resize = |line: &str| (number(line, "window"), number(line, "from"), number(line, "to"));
        text.lines().map(resize).collect()
    }

    /// Traffic moves from one window to the other: the first has to make room before the second takes it.
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
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || {
            for busy in [0, 1, 0] {
                for _ in 0..150 {
                    now += SECOND;
                    for (n, watched) in windows.iter().enumerate() {
                        second(watched, &mut ids, if n == busy { 4_000 } else { 10 }, now);
                    }
                    lines.0.lock().clear();
                    budget.tick(&windows, now);
                    let resizes = resizes(&lines);
                    together += usize::from(resizes.len() == 2);
                    for (window, from, to) in resizes {
                        assert_eq!(capacities[window], from);
                        capacities[window] = to;
                        let sum = capacities.map(takes).iter().sum::<usize>();
                        assert!(sum <= bytes, "{sum} of {bytes} bytes at {capacities:?}");
                    }
                }
            }
        });
        assert!(together > 0, "both were resized in one tick");
    }
}
