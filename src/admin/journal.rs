//! The journal: the last things that have happened to this relay, and who did them. It is what the dashboard shows as recent
//! events. The log says the same and more; the journal is for people who look at the page.
//!
//! A route that changes something adds an entry itself. [`Watch`] finds everything else, which compares the state of
//! each second with that of the second before: a window that another relay or a reload has changed, a store or a node of the broker
//! that went down or came back, a level, a drain.

use super::Admin;
use super::auth::Caller;
use super::clock::{Now, span};
use hapax_core::pressure::{Facts, Level};
use hapax_core::window::Mode;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use utoipa::ToSchema;

/// Entries that are kept. With [`LONGEST`], they take 300 KiB at most.
pub(super) const KEPT: usize = 500;
/// Bytes of a text.
const LONGEST: usize = 400;

/// The kind of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// the process has started
    Start,
    /// capacity, TTL or mode of a window was changed
    Settings,
    /// a window was flushed
    Flush,
    /// an id was forgotten
    Forget,
    /// the configuration was loaded again, or refused
    Reload,
    /// the level of the log was changed
    Log,
    /// the process drains
    Drain,
    /// a run of chaos has begun, or is over
    Chaos,
    /// an operator has closed a connection
    Close,
    /// a window's store went down, or came back
    Store,
    /// a node of the broker went down, or came back
    Upstream,
    /// a window's level has changed
    Level,
}

/// One thing that has happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// counts from 1
    pub(super) number: u64,
    pub(super) at: SystemTime,
    pub(super) kind: Kind,
    /// the window that it is about
    pub(super) window: Option<String>,
    pub(super) text: String,
    /// who did it, if it was somebody
    pub(super) by: Option<String>,
}

/// The last entries.
#[derive(Debug, Default)]
pub(super) struct Journal {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    entries: VecDeque<Entry>,
    /// the settings of each window as the journal knows them
    settings: HashMap<Arc<str>, Settings>,
    /// who has asked for a reload that the journal does not know of yet
    reloads_for: Option<String>,
}

/// The settings of a window that can change while it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Settings {
    /// "auto", or the number of ids; on its way to a smaller one, that
    capacity: String,
    ttl: Duration,
    mode: Mode,
}

impl Settings {
    /// Returns the differences in words.
    fn changes(&self, new: &Settings) -> Vec<String> {
        let mut changes = Vec::new();
        if self.capacity != new.capacity {
            changes.push(format!("capacity {} → {}", self.capacity, new.capacity));
        }
        if self.ttl != new.ttl {
            changes.push(format!("TTL {} → {}", span(self.ttl), span(new.ttl)));
        }
        if self.mode != new.mode {
            changes.push(format!("mode {} → {}", self.mode.name(), new.mode.name()));
        }
        changes
    }
}

impl Journal {
    /// Adds an entry. The oldest one goes if there is no room.
    pub(super) fn add(&self, kind: Kind, window: Option<&str>, text: &str, by: Option<String>) {
        self.add_at(Now::read().date, kind, window, text, by);
    }

    fn add_at(&self, at: SystemTime, kind: Kind, window: Option<&str>, text: &str, by: Option<String>) {
        let end = (0..=LONGEST.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        let text = text.get(..end).unwrap_or_default().to_owned();
        let mut inner = self.inner.lock();
        inner.last += 1;
        let number = inner.last;
        if inner.entries.len() >= KEPT {
            inner.entries.pop_front();
        }
        inner.entries.push_back(Entry { number, at, kind, window: window.map(str::to_owned), text, by });
    }

    /// Returns the number of the newest entry.
    pub(super) fn last(&self) -> u64 {
        self.inner.lock().last
    }

    /// Returns at most `limit` of the newest entries with larger numbers than `after`, oldest first.
    pub(super) fn after(&self, after: u64, limit: usize) -> Vec<Entry> {
        let inner = self.inner.lock();
        let newest = inner.entries.iter().rev().take_while(|entry| entry.number > after).take(limit);
        let mut entries: Vec<Entry> = newest.cloned().collect();
        entries.reverse();
        entries
    }

    /// Notes who asks for a reload. [`Watch`] sees how it ends.
    pub(super) fn reload_is_for(&self, caller: Caller) {
        self.inner.lock().reloads_for = Some(caller.shown());
    }

    /// Takes the settings of a window that is not known yet.
    fn know(&self, name: &Arc<str>, settings: Settings) {
        self.inner.lock().settings.entry(Arc::clone(name)).or_insert(settings);
    }

    /// Takes the settings of a window, and adds an entry if they are not those that were known. `by` is who has changed them.
    fn learn(&self, name: &Arc<str>, settings: &Settings, by: Option<String>) {
        let before = self.inner.lock().settings.insert(Arc::clone(name), settings.clone());
        let changes = before.map(|before| before.changes(settings)).unwrap_or_default();
        if !changes.is_empty() {
            let text = changes.join(", ");
            let text = if by.is_none() { format!("{text} (a reload, or another relay)") } else { text };
            self.add(Kind::Settings, Some(name), &text, by);
        }
    }
}

impl Admin {
    fn settings(&self, watched: &hapax_core::pressure::Watched) -> Settings {
        let (window, name) = (&watched.window, &watched.window.rules().name);
        let ids = || self.running.target(name).or_else(|| window.capacity());
        Settings {
            capacity: if self.running.budget.is_auto(name) {
                "auto".to_owned()
            } else {
                ids().map_or_else(|| "none".to_owned(), |ids| ids.to_string())
            },
            ttl: window.ttl(),
            mode: window.mode(),
        }
    }

    /// Looks at a window that somebody is about to change.
    pub(super) fn journal_before(&self, watched: &hapax_core::pressure::Watched) {
        self.journal.know(&watched.window.rules().name, self.settings(watched));
    }

    /// Adds to the journal what this caller has changed in a window.
    pub(super) fn journal_settings(&self, watched: &hapax_core::pressure::Watched, caller: Caller) {
        let name = &watched.window.rules().name;
        self.journal.learn(name, &self.settings(watched), Some(caller.shown()));
    }
}

/// The state of the second before.
#[derive(Debug, Default)]
pub(super) struct Watch {
    stores: HashMap<Arc<str>, bool>,
    levels: HashMap<Arc<str>, Level>,
    upstreams: HashMap<Arc<str>, bool>,
    draining: bool,
    /// the number of the last run of chaos whose end the journal has
    chaos: u64,
    reload: Option<crate::live::LastReload>,
}

impl Watch {
    /// Compares the present state with that of the last call.
    pub(super) fn look(&mut self, admin: &Admin, now: &Now) {
        let journal = &admin.journal;
        let in_force = admin.running.now();
        let names: HashSet<&Arc<str>> =
            in_force.windows.iter().map(|watched| &watched.window.rules().name).collect();
        self.stores.retain(|name, _| names.contains(name));
        self.levels.retain(|name, _| names.contains(name));
        journal.inner.lock().settings.retain(|name, _| names.contains(name));
        for watched in &*in_force.windows {
            let name = &watched.window.rules().name;
            // A route that is amid a change adds its entry afterwards. A flush of a large window takes seconds, so do not wait for it.
            if let Some(_one_at_a_time) = admin.running.changing.try_lock() {
                journal.learn(name, &admin.settings(watched), None);
            }
            let Some(store) = watched.window.store(now.instant) else { continue };
            let up = store.down_since.is_none();
            let before = self.stores.insert(Arc::clone(name), up).unwrap_or(true);
            if before != up {
                let text = format!("the store ({}) {}", store.kind, came_or_went(up));
                journal.add(Kind::Store, Some(name), &text, None);
            }
        }
        for node in admin.upstreams.nodes() {
            let Some(up) = node.up else { continue };
            let before = self.upstreams.insert(Arc::clone(&node.address), up).unwrap_or(true);
            if before != up {
                let why = node.error.filter(|_| !up).map(|why| format!(": {why}")).unwrap_or_default();
                let text = format!("{} {}{why}", node.address, came_or_went(up));
                journal.add(Kind::Upstream, None, &text, None);
            }
        }
        let draining = *admin.draining.borrow();
        if draining && !std::mem::replace(&mut self.draining, draining) {
            journal.add(Kind::Drain, None, "the relay drains, and then ends", None);
        }
        let over = admin.chaos.report().filter(|report| !report.running && report.number > self.chaos);
        if let Some(over) = over {
            self.chaos = over.number;
            let why = over.ended.as_deref().unwrap_or_default();
            journal.add(Kind::Chaos, None, &format!("the run of chaos is over ({why})"), over.ended_by);
        }
        let last = admin.running.last_reload();
        if self.reload.replace(last).is_some_and(|before| before != last) {
            let text = if last.is_success { "the configuration was loaded" } else { "a reload was refused" };
            let by = journal.inner.lock().reloads_for.take();
            journal.add(Kind::Reload, None, text, by.or_else(|| Some("SIGHUP".to_owned())));
        }
    }

    /// Adds the changes of a window's level since the last call.
    pub(super) fn levels(&mut self, admin: &Admin, name: &Arc<str>, facts: &Facts, now: &Now) {
        let before = self.levels.insert(Arc::clone(name), facts.level).unwrap_or_default();
        if before == facts.level {
            return;
        }
        let ago = facts.level_history.last().map_or(0.0, |change| change.ago_seconds);
        let ago = Duration::try_from_secs_f64(ago).unwrap_or_default();
        let pressure = facts.pressure.map(|pressure| format!(", pressure {pressure:.2}")).unwrap_or_default();
        let text = format!("level {} → {}{pressure}", word(before), word(facts.level));
        let at = now.date.checked_sub(ago).unwrap_or(now.date);
        admin.journal.add_at(at, Kind::Level, Some(name), &text, None);
    }
}

fn came_or_went(up: bool) -> &'static str {
    if up { "is up again" } else { "is down" }
}

/// Returns a level as the API writes it.
fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warming => "warming",
        Level::Blind => "blind",
        Level::High => "high",
        Level::Critical => "critical",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_and_a_text_has_a_bound() {
        let journal = Journal::default();
        for n in 0..KEPT + 7 {
            journal.add(Kind::Log, None, &n.to_string(), None);
        }
        assert_eq!(journal.last(), KEPT as u64 + 7);
        let all = journal.after(0, usize::MAX);
        assert_eq!((all.len(), &*all[0].text, all[0].number), (KEPT, "7", 8));
        let last: Vec<String> = journal.after(0, 2).into_iter().map(|entry| entry.text).collect();
        assert_eq!(last, [(KEPT + 5).to_string(), (KEPT + 6).to_string()]);
        assert_eq!(journal.after(KEPT as u64 + 6, 100).len(), 1);
        assert!(journal.after(u64::MAX, 100).is_empty());
        journal.add(Kind::Close, None, &"ü".repeat(LONGEST), None);
        assert_eq!(journal.after(0, 1)[0].text.len(), LONGEST);
        journal.add(Kind::Close, None, &format!("x{}", "ü".repeat(LONGEST)), None);
        assert_eq!(journal.after(0, 1)[0].text.len(), LONGEST - 1, "never within a character");
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let journal = Journal::default();
        let name: Arc<str> = "orders".into();
        let settings = |capacity: &str, ttl| Settings {
            capacity: capacity.to_owned(),
            ttl: Duration::from_secs(ttl),
            mode: Mode::Enforce,
        };
        journal.learn(&name, &settings("10", 5), None);
        journal.learn(&name, &settings("10", 5), None);
        assert_eq!(journal.last(), 0);
        journal.learn(&name, &settings("auto", 60), Some("me".to_owned()));
        journal.learn(&name, &settings("auto", 60), None);
        journal.learn(&name, &settings("7", 60), None);
        let texts: Vec<String> = journal.after(0, 9).into_iter().map(|entry| entry.text).collect();
        assert_eq!(
            texts,
            ["capacity 10 → auto, TTL 5s → 1m", "capacity auto → 7 (a reload, or another relay)"]
        );
    }
}
