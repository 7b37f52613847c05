//! The difference between two configurations, key by key, and when each change can take effect.
//!
//! It is made of what `hapax check` prints, so no key can be missing. A key that [`effect_of`] does not know needs a restart. Secrets
//! are compared, and never shown.

use super::{Config, show};
use std::collections::BTreeMap;
use std::fmt;

/// How a secret is shown.
const HIDDEN: &str = "\"***\"";

/// When a change takes effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// at the reload
    Now,
    /// at the reload, for connections that begin after it
    NewConnections,
    /// when the process starts again; a reload refuses it
    Restart,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = ConfigChange)]
pub struct Change {
    /// the key as messages call it: `limits.memory`, `window "orders": ttl`, `window "orders"` for a whole one
    pub key: String,
    /// the old value as TOML; null: it was not set
    pub from: Option<String>,
    /// the new value as TOML; null: it is not set
    pub to: Option<String>,
    /// when it takes effect
    pub effect: Effect,
    /// what it means, if that needs words
    pub note: Option<&'static str>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{}: {from} -> {to}", self.key),
            (None, Some(to)) => write!(f, "{}: added, {to}", self.key),
            (Some(from), None) => write!(f, "{}: removed, was {from}", self.key),
            (None, None) => f.write_str(&self.key),
        }
    }
}

/// The changes between two configurations, in the order of the new one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Diff(pub Vec<Change>);

/// The key of the order of windows.
const ORDER: &str = "window order";
/// The notes.
const ADDED: &str = "it begins without ids";
const REMOVED: &str = "its ids are forgotten; publishes in flight keep it until their outcome is known";
const MOVED: &str =
    "an exchange that comes to another window is unknown there: retries of what was stored before may pass";
const READ_ANEW: &str =
    "it holds for consumers that begin after it, on channels that have not consumed before";
const OTHER_WINDOW: &str = "its ids would mean something else, or it would need another store; give the window another name to have a new one, without ids";

/// Returns when a change of this key takes effect. `window`: the key of a window.
fn effect_of(key: &str, window: bool) -> Effect {
    match (window, key) {
        (true, "capacity" | "ttl" | "mode" | "weight" | "vhost" | "exchange" | "queue") => Effect::Now,
        (true, _) => Effect::Restart,
        (
            false,
            "limits.max_connections"
            | "limits.connections_per_address"
            | "limits.connections_per_user"
            | "limits.handshakes"
            | "limits.publish_rate_per_user"
            | "limits.publish_rate_per_vhost"
            | "limits.publish_burst"
            | "limits.memory"
            | "limits.waiters_per_id"
            | "timeouts.drain"
            | "memory_budget"
            | "chaos.enabled"
            | "chaos.vhosts"
            | "chaos.users"
            | "chaos.max_duration"
            | "chaos.max_hold"
            | "log.level",
        ) => Effect::Now,
        (
            false,
            "limits.max_unresolved"
            | "limits.held_bytes"
            | "limits.frame_max"
            | "limits.initial_frame_max"
            | "limits.buffer_bytes"
            | "limits.unread_bytes"
            | "timeouts.linger"
            | "timeouts.in_flight"
            | "timeouts.handshake"
            | "timeouts.rights"
            | "timeouts.tcp_user"
            | "timeouts.unread"
            | "loopback_users",
        ) => Effect::NewConnections,
        (false, _) => Effect::Restart,
    }
}

/// The keys of a configuration in groups: those of no window, and those of each window and guard, by its title.
struct Keys {
    plain: Vec<(String, String)>,
    windows: Vec<(String, Vec<(String, String)>)>,
}

impl Keys {
    fn of(config: &Config) -> Keys {
        let title = |window: &super::WindowConfig| (window.title(), Vec::new());
        let mut keys = Keys { plain: Vec::new(), windows: config.windows.iter().map(title).collect() };
        let guards = config.windows.iter().filter(|window| !window.is_guard()).count();
        for (path, value) in show::entries(config) {
            let of = |section, first| {
                let (index, key) = path.strip_prefix(section)?.split_once('.')?;
                Some((first + index.parse::<usize>().ok()?, key))
            };
            let window = of("window.", 0).or_else(|| of("guard.", guards));
            match window.and_then(|(index, key)| Some((keys.windows.get_mut(index)?, key))) {
                Some(((_, settings), key)) => settings.push((key.to_owned(), value)),
                None => keys.plain.push((path, value)),
            }
        }
        keys
    }

    fn names(&self) -> Vec<&str> {
        self.windows.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn window(&self, name: &str) -> Option<&Vec<(String, String)>> {
        self.windows.iter().find(|(other, _)| other == name).map(|(_, settings)| settings)
    }
}

/// Writes all settings of a window in one line.
fn inline(settings: &[(String, String)]) -> String {
    let settings: Vec<String> = settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", settings.join(", "))
}

/// Calls `each` with every key whose value is not the same, and the two values.
fn compare(
    old: &[(String, String)],
    new: &[(String, String)],
    mut each: impl FnMut(&str, Option<&String>, Option<&String>),
) {
    let before: BTreeMap<&String, &String> = old.iter().map(|(key, value)| (key, value)).collect();
    let after: BTreeMap<&String, &String> = new.iter().map(|(key, value)| (key, value)).collect();
    for (key, to) in new {
        let from = before.get(key).copied();
        if from != Some(to) {
            each(key, from, Some(to));
        }
    }
    for (key, from) in old.iter().filter(|(key, _)| !after.contains_key(key)) {
        each(key, Some(from), None);
    }
}

impl Diff {
    /// Returns the changes from the old configuration to the new one.
    pub fn between(old: &Config, new: &Config) -> Diff {
        let (before, after) = (Keys::of(old), Keys::of(new));
        let mut changes = Vec::new();
        compare(&before.plain, &after.plain, |key, from, to| {
            changes.push(Change {
                key: key.to_owned(),
                from: from.cloned(),
                to: to.cloned(),
                effect: effect_of(key, false),
                note: None,
            });
        });
        let secret = |key: &str| Change {
            key: key.to_owned(),
            from: Some(HIDDEN.to_owned()),
            to: Some(HIDDEN.to_owned()),
            effect: Effect::Restart,
            note: Some("its value has changed"),
        };
        let is_told = |changes: &[Change], begin: &str| {
            changes.iter().any(|change: &Change| change.key.starts_with(begin))
        };
        for (key, differs) in [
            ("admin_token", old.admin_token != new.admin_token),
            ("digest_secret", old.digest_secret != new.digest_secret),
            ("store.stream", old.store.stream != new.store.stream),
            ("store.redis", old.store.redis != new.store.redis),
            ("chaos.replay", old.chaos.replay != new.chaos.replay),
        ] {
            if differs && !is_told(&changes, key) {
                changes.push(secret(key));
            }
        }
        Diff::windows(&before, &after, &mut changes);
        if changes.is_empty() && old != new {
            // A setting that `hapax check` does not print.
            changes.push(secret("a setting that is not shown"));
        }
        Diff(changes)
    }

    fn windows(before: &Keys, after: &Keys, changes: &mut Vec<Change>) {
        for (name, settings) in &after.windows {
            let key = name.clone();
            let Some(old) = before.window(name) else {
                let to = Some(inline(settings));
                changes.push(Change { key, from: None, to, effect: Effect::Now, note: Some(ADDED) });
                continue;
            };
            compare(old, settings, |setting, from, to| {
                let effect = effect_of(setting, true);
                changes.push(Change {
                    key: format!("{key}: {setting}"),
                    from: from.cloned(),
                    to: to.cloned(),
                    effect,
                    note: match (effect, setting) {
                        (Effect::Restart, _) => Some(OTHER_WINDOW),
                        (_, "queue") => Some(READ_ANEW),
                        (_, "vhost") if key.starts_with("guard") => Some(READ_ANEW),
                        (_, "vhost" | "exchange") => Some(MOVED),
                        _ => None,
                    },
                });
            });
        }
        for (name, settings) in &before.windows {
            if after.window(name).is_none() {
                let key = name.clone();
                let from = Some(inline(settings));
                changes.push(Change { key, from, to: None, effect: Effect::Now, note: Some(REMOVED) });
            }
        }
        // The order of those that stay: the first window that matches judges.
        let kept: Vec<&str> =
            before.names().into_iter().filter(|name| after.window(name).is_some()).collect();
        let then: Vec<&str> =
            after.names().into_iter().filter(|name| before.window(name).is_some()).collect();
        if kept != then || after.names().get(..kept.len()) != Some(&kept[..]) {
            let names = |names: Vec<&str>| {
                let name = |title: &str| title.split('"').nth(1).unwrap_or(title).to_owned();
                Some(toml::Value::from(names.into_iter().map(name).collect::<Vec<_>>()).to_string())
            };
            changes.push(Change {
                key: ORDER.to_owned(),
                from: names(before.names()),
                to: names(after.names()),
                effect: Effect::Now,
                note: Some(MOVED),
            });
        }
    }

    /// Returns the changes that need a restart.
    pub fn needs_restart(&self) -> impl Iterator<Item = &Change> {
        self.0.iter().filter(|change| change.effect == Effect::Restart)
    }

    /// Returns true if nothing changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
