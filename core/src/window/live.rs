//! A set of windows that can be replaced while sessions use it.
//!
//! A session remembers which window judges what it publishes, and compares one number before it believes that
//! ([`Changes`]). When the set is replaced, the number changes, and the session looks again at its next publish or delivery. A publish that was
//! judged before keeps its window until its outcome is known: it holds the window, whatever the set says.
//!
//! A message that the broker returns is recognized by its claim, which depends on the window that has judged it. So the set remembers the
//! windows that were responsible before, until the process says that nobody can ask about them any more
//! ([`LiveWindows::let_go`]).
//!
//! With `confirms = "client-only"`, nobody says that a publish has its outcome: it counts as stored when it is written, and it may come back
//! as long as its connection is open. A former place of such a window stays until every session has ended that began before.

use super::set::{Pattern, WindowSet, Windows};
use super::{ConfirmRule, LocalWindow, Window};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// With this many former places, the set is not to be replaced again. A place is a pair of patterns with its window. A place stays as long
/// as it may be needed: without it the return of a publish that was judged there would not be recognized, and its message would count as stored.
const CROWDED: usize = 1024;

/// Counts what makes sessions look again: which window judges their publishes, and what is known of exchanges. Its clones count
/// together.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<AtomicU64>);

impl Changes {
    /// Returns a number that is another one after each change.
    #[inline]
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Counts a change that was just made.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// The windows of a process, which a new configuration may replace.
#[derive(Debug)]
pub struct LiveWindows<W: ?Sized = LocalWindow> {
    state: RwLock<State<W>>,
    generation: AtomicU64,
    changes: Changes,
    begun: Arc<Begun>,
}

/// How many sessions there are, by the generation in which they began.
#[derive(Debug, Default)]
struct Begun(Mutex<BTreeMap<u64, usize>>);

/// Says that a session is there. A session holds it until it ends.
#[derive(Debug)]
pub struct Presence {
    begun: Arc<Begun>,
    generation: u64,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut begun = self.begun.0.lock();
        if let Some(count) = begun.get_mut(&self.generation) {
            *count -= 1;
            if *count == 0 {
                begun.remove(&self.generation);
            }
        }
    }
}

#[derive(Debug)]
struct State<W: ?Sized> {
    set: WindowSet<W>,
    /// the places of former sets that are not in this one
    former: Vec<Former<W>>,
}

/// A place of a former set.
#[derive(Debug)]
struct Former<W: ?Sized> {
    place: Place<W>,
    /// the first generation without it
    until: u64,
}

type Place<W> = (Pattern, Pattern, Arc<W>);

fn is_same<W: ?Sized>((v, e, window): &Place<W>, (w, f, other): &Place<W>) -> bool {
    v == w && e == f && Arc::ptr_eq(window, other)
}

impl<W: ?Sized> LiveWindows<W> {
    /// Begins with this set.
    pub fn new(set: WindowSet<W>) -> Arc<LiveWindows<W>> {
        let state = RwLock::new(State { set, former: Vec::new() });
        Arc::new(LiveWindows {
            state,
            generation: AtomicU64::new(0),
            changes: Changes::default(),
            begun: Arc::default(),
        })
    }

    /// Replaces the set. From now on, each session asks the new set about publishes that it has not judged yet.
    pub fn replace(&self, set: WindowSet<W>) {
        let mut state = self.state.write();
        let State { set: current, former } = &mut *state;
        let until = self.generation() + 1;
        former.retain(|former| !set.places().any(|new| is_same(&former.place, new)));
        for place in current.places() {
            let former_places = former.iter().map(|former| &former.place);
            if !set.places().chain(former_places).any(|other| is_same(place, other)) {
                former.push(Former { place: place.clone(), until });
            }
        }
        *current = set;
        self.generation.fetch_add(1, Ordering::Release);
        drop(state);
        // After the set is there: who sees the new number finds the new set.
        self.changes.count();
    }

    /// Returns true if too many former places are remembered: another set has to wait until some are let go.
    pub fn is_crowded(&self) -> bool {
        self.former() >= CROWDED
    }

    /// Returns the number of former places that are remembered.
    pub fn former(&self) -> usize {
        self.state.read().former.len()
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

impl<W: Window + ?Sized> LiveWindows<W> {
    /// Returns the window of this name, if the set has one.
    pub fn named(&self, name: &str) -> Option<Arc<W>> {
        self.state.read().set.iter().find(|window| *window.rules().name == *name).cloned()
    }

    /// Forgets the former places of windows for which `is_done` returns true: no publish that they have judged there is
    /// without an outcome. Those whose publishes may come back without one stay, see above.
    pub fn let_go(&self, is_done: impl Fn(&W) -> bool) {
        if self.state.read().former.is_empty() {
            return;
        }
        let oldest = self.begun.0.lock().keys().next().copied();
        let may_come_back = |window: &W, until: u64| {
            window.rules().confirms == ConfirmRule::ClientOnly && oldest.is_some_and(|oldest| oldest < until)
        };
        let is_kept = |Former { place: (_, _, window), until }: &Former<W>| {
            !is_done(window) || may_come_back(window, *until)
        };
        self.state.write().former.retain(is_kept);
    }
}

impl<W: Window + ?Sized + 'static> Windows for LiveWindows<W> {
    fn find(&self, vhost: &[u8], exchange: &[u8]) -> Option<Arc<dyn Window>> {
        self.state.read().set.find(vhost, exchange)
    }

    fn guard(&self, vhost: &[u8], queue: &[u8]) -> Option<Arc<dyn Window>> {
        self.state.read().set.guard(vhost, queue)
    }

    fn releases(&self, vhost: &[u8]) -> bool {
        self.state.read().set.releases(vhost)
    }

    fn has_guards(&self, vhost: &[u8]) -> bool {
        self.state.read().set.has_guards(vhost)
    }

    fn delivering(&self, vhost: &[u8], exchange: &[u8]) -> Vec<Arc<dyn Window>> {
        self.state.read().set.delivering(vhost, exchange)
    }

    fn once(&self, vhost: &[u8], exchange: &[u8]) -> Vec<Arc<dyn Window>> {
        if self.generation() == 0 {
            return Vec::new();
        }
        let state = self.state.read();
        // The order may have changed, too: any window that matches may have been the first.
        let fits = |(v, e, _): &&Place<W>| v.matches(vhost) && e.matches(exchange);
        let former = state.former.iter().map(|former| &former.place);
        let all = state.set.places().chain(former).filter(fits);
        all.map(|(_, _, window)| Arc::clone(window).handle()).collect()
    }

    fn generation(&self) -> u64 {
        LiveWindows::generation(self)
    }

    fn enter(&self) -> Option<Presence> {
        let mut begun = self.begun.0.lock();
        let generation = LiveWindows::generation(self);
        *begun.entry(generation).or_default() += 1;
        Some(Presence { begun: Arc::clone(&self.begun), generation })
    }

    fn changes(&self) -> Changes {
        self.changes.clone()
    }
}
