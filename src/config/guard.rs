//! Reads `[[guard]]`: a window of the ids that consumers have acked.

use super::check::{read_id, read_memory, read_named};
use super::problem::Report;
use super::raw::Section;
use super::{Config, WindowConfig};
use hapax_core::wire::IdSource;

/// The kind of messages that a window judges.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Judges {
    /// what clients publish: a `[[window]]`
    #[default]
    Publishes,
    /// what consumers are sent: a `[[guard]]`
    Deliveries,
}

impl Judges {
    /// Returns the name of the section in the file.
    pub fn section(self) -> &'static str {
        match self {
            Judges::Publishes => "window",
            Judges::Deliveries => "guard",
        }
    }
}

impl WindowConfig {
    /// Returns true if it judges what consumers are sent.
    pub fn is_guard(&self) -> bool {
        self.judges == Judges::Deliveries
    }

    /// Returns how messages call it: `window "orders"`, `guard "workers"`.
    pub(super) fn title(&self) -> String {
        format!("{} \"{}\"", self.judges.section(), self.rules.name)
    }
}

/// Returns the path of the section of the window at this place of the list. Guards stand behind all other windows.
pub(super) fn path_of(config: &Config, index: usize) -> String {
    let windows = config.windows.iter().filter(|window| !window.is_guard()).count();
    match index.checked_sub(windows) {
        Some(guard) => format!("guard.{guard}"),
        None => format!("window.{index}"),
    }
}

/// Reads all guards.
pub(super) fn read(top: &mut Section<'_>, waiters: usize, report: &mut Report) -> Vec<WindowConfig> {
    let sections = top.sections("guard", report).unwrap_or_default();
    sections.into_iter().map(|section| read_guard(section, waiters, report)).collect()
}

fn read_guard(mut section: Section<'_>, waiters: usize, report: &mut Report) -> WindowConfig {
    let mut guard = read_named(&mut section, "workers", "queue", report);
    guard.judges = Judges::Deliveries;
    guard.rules.id = read_id(&mut section, IdSource::MessageId, report);
    if guard.rules.id == IdSource::Sequence {
        let what = format!("{} is \"sequence\", but a guard compares ids", section.title_of("id"));
        let fix = "write id = [\"header:x-hapax-producer\", \"header:x-hapax-sequence\"]";
        report.problem(&report.source(&section.path_of("id")), what, fix);
    }
    read_memory(&mut section, &mut guard, waiters, report);
    section.finish(report);
    guard
}

#[cfg(test)]
mod tests {
    use super::super::{Diff, Effect, Overrides, StoreKind};
    use super::*;

    fn parse(text: &str) -> Config {
        Config::parse(Some("t"), text, &Overrides::default()).expect(text).config
    }

    fn errors(text: &str) -> Vec<String> {
        let problems = Config::parse(Some("t"), text, &Overrides::default()).expect_err(text);
        problems.0.iter().map(|problem| format!("{}: {}", problem.place, problem.what)).collect()
    }

    #[test]
    fn guards_stand_behind_windows_and_have_the_keys_that_mean_something() {
        let config = parse(
            "[[guard]]\nname = \"g\"\nqueue = \"jobs.*\"\nid = \"header:job\"\nttl = \"1h\"\n[[window]]\nname = \"w\"\n",
        );
        let [window, guard] = &config.windows[..] else { panic!("{:?}", config.windows) };
        assert!(!window.is_guard() && guard.is_guard());
        assert_eq!((guard.exchange.as_str(), guard.rules.id.to_string().as_str()), ("jobs.*", "header:job"));
        assert_eq!((path_of(&config, 0), path_of(&config, 1)), ("window.0".into(), "guard.0".into()));
        let shown = Config::load(None, &Overrides::default()).map(|loaded| loaded.to_toml()).unwrap();
        assert!(!shown.contains("[[guard]]"));
        assert_eq!(
            errors("[[guard]]\nname = \"g\"\nexchange = \"x\"\n"),
            ["t:3: guard \"g\": `exchange` is not a key"]
        );
    }

    #[test]
    fn what_is_wrong_names_the_guard() {
        assert_eq!(
            errors("[[window]]\nname = \"a\"\n[[guard]]\nname = \"a\"\n"),
            ["t:4: a window named \"a\" is there already, at t:2"]
        );
        assert_eq!(
            errors("[[window]]\nname = \"a\"\n[[guard]]\nname = \"g\"\nstore = \"disk\"\n"),
            ["t:5: guard \"g\": `store` is \"disk\", but there is no `state_dir` to keep it in"]
        );
        assert_eq!(errors("[[guard]]\nqueue = \"q\"\n"), ["t:1: guard no. 1: `name` is missing"]);
        assert_eq!(
            errors("[[guard]]\nname = \"g\"\nid = \"sequence\"\n"),
            ["t:3: guard \"g\": `id` is \"sequence\", but a guard compares ids"]
        );
    }

    #[test]
    fn release_needs_a_key_that_a_delivery_shows() {
        let window = |line: &str| format!("[[window]]\nname = \"w\"\nrelease = \"consumed\"\n{line}");
        parse(&window(""));
        parse(&window("forward_to = \"x\"\nscope = \"vhost\"\n"));
        for line in ["id = \"body\"\n", "forward_to = \"x\"\n"] {
            let told = errors(&window(line));
            assert!(
                told.len() == 1 && told[0].starts_with("t:3: window \"w\": `release` is \"consumed\", but"),
                "{told:?}"
            );
        }
    }

    #[test]
    fn a_reload_says_of_guards_what_it_says_of_windows() {
        let guard = |line: &str| parse(&format!("[[guard]]\nname = \"g\"\n{line}"));
        let told = |old: &Config, new: &Config| {
            let changes = Diff::between(old, new).0.into_iter();
            changes.map(|change| (change.key, change.effect)).collect::<Vec<_>>()
        };
        let key = |setting: &str| format!("guard \"g\": {setting}");
        assert_eq!(told(&guard(""), &guard("queue = \"q\"\n")), [(key("queue"), Effect::Now)]);
        assert_eq!(told(&guard(""), &guard("engine = \"lru\"\n")), [(key("engine"), Effect::Restart)]);
        assert_eq!(told(&parse(""), &guard("")), [("guard \"g\"".into(), Effect::Now)]);
        assert_eq!(guard("").windows[1].store, StoreKind::Memory);
    }
}
