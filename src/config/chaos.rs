//! The section `[chaos]`: whether the relay may make trouble on request, and for whom.

use super::check::most;
use super::problem::{Report, Wrong};
use super::raw::Section;
use super::{Config, PublishingSettings, TICK, defaults, publishing, value};
use hapax_core::window::set::Pattern;
use std::time::Duration;
use toml::de::DeValue;

/// Whether runs of chaos are allowed, and their bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChaosSettings {
    /// whether a run may be started
    pub enabled: bool,
    /// the vhosts whose connections may be troubled; empty: none
    pub vhosts: Vec<Pattern>,
    /// the users whose connections may be troubled
    pub users: Vec<Pattern>,
    /// the longest run
    pub max_duration: Duration,
    /// the longest time that confirms are held back
    pub max_hold: Duration,
    /// this relay, as a client reaches it: where messages are published again; `None`: they are not
    pub replay: Option<PublishingSettings>,
}

impl ChaosSettings {
    /// Returns true if connections of this user to this vhost may be troubled. A user whose name is not known may not.
    pub fn allows(&self, vhost: &[u8], user: Option<&str>) -> bool {
        let fits = |patterns: &[Pattern], name: &[u8]| patterns.iter().any(|pattern| pattern.matches(name));
        self.enabled
            && fits(&self.vhosts, vhost)
            && user.is_some_and(|user| fits(&self.users, user.as_bytes()))
    }
}

/// Reads it.
pub(super) fn read(mut section: Section<'_>, report: &mut Report) -> ChaosSettings {
    let default = ChaosSettings::default();
    let replay = publishing::read(section.section("replay", report), "chaos.replay", report);
    let settings = ChaosSettings {
        enabled: section.read(report, "enabled", default.enabled, value::boolean),
        vhosts: section.read(report, "vhosts", default.vhosts, patterns),
        users: section.read(report, "users", default.users, patterns),
        max_duration: section.read(report, "max_duration", default.max_duration, |v| {
            value::duration(v, Duration::from_secs(1)..=most::TIMEOUT)
        }),
        max_hold: section.read(report, "max_hold", default.max_hold, |v| {
            value::duration(v, TICK..=defaults::LONGEST_HOLD)
        }),
        replay,
    };
    section.finish(report);
    settings
}

fn patterns(value: &DeValue<'_>) -> Result<Vec<Pattern>, Wrong> {
    value::names(value)?.iter().map(|name| value::pattern(name)).collect()
}

/// Warns of what is for a staging system, and of what is allowed and does nothing.
pub(super) fn warn(config: &Config, report: &mut Report) {
    let chaos = &config.chaos;
    let source = report.source("chaos.enabled");
    if !chaos.enabled {
        return;
    }
    if chaos.vhosts.is_empty() {
        let fix = "name them, as in vhosts = [\"staging\"]";
        report.warning(
            &source,
            "`chaos.enabled` is true, but `chaos.vhosts` names no vhost: no run can be started",
            fix,
        );
        return;
    }
    let shown: Vec<&str> = chaos.vhosts.iter().map(Pattern::as_str).collect();
    let what = format!(
        "`chaos.enabled` is true: whoever may change this relay can cut and delay the clients of {} (hapax chaos)",
        shown.join(", ")
    );
    report.warning(&source, what, "leave [chaos] out where messages matter");
}

#[cfg(test)]
mod tests {
    use super::super::{Diff, Effect, Overrides};
    use super::*;

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        let told = |problems: super::super::Problems| {
            problems.0.iter().map(|problem| format!("{}: {}", problem.place, problem.what)).collect()
        };
        Config::parse(Some("t"), text, &Overrides::default()).map(|loaded| loaded.config).map_err(told)
    }

    #[test]
    fn without_the_section_nobody_is_troubled() {
        let chaos = parse("").unwrap().chaos;
        assert_eq!(chaos, ChaosSettings::default());
        assert!(!chaos.allows(b"/", Some("guest")));
        let chaos = parse("[chaos]\nvhosts = [\"*\"]\n").unwrap().chaos;
        assert!(!chaos.allows(b"/", Some("guest")), "it is not enabled");
        let chaos = parse("[chaos]\nenabled = true\n").unwrap().chaos;
        assert!(!chaos.allows(b"/", Some("guest")), "no vhost is named");
    }

    #[test]
    fn only_named_vhosts_and_users_are_troubled() {
        let chaos = parse("[chaos]\nenabled = true\nvhosts = [\"stage*\"]\nusers = [\"app\", \"job-*\"]\n");
        let chaos = chaos.unwrap().chaos;
        for (vhost, user, is_allowed) in [
            (&b"stage"[..], Some("app"), true),
            (b"stage-2", Some("job-7"), true),
            (b"prod", Some("app"), false),
            (b"stage", Some("admin"), false),
            (b"stage", None, false),
        ] {
            assert_eq!(chaos.allows(vhost, user), is_allowed, "{user:?}");
        }
    }

    #[test]
    fn what_is_wrong_says_where() {
        for (text, told) in [
            ("enabled = \"yes\"", "t:2: `chaos.enabled` is a string, but must be true or false"),
            ("vhosts = \"/\"", "t:2: `chaos.vhosts` is a string, but must be a list"),
            ("vhosts = [\"a[\"]", "t:2: `chaos.vhosts` is \"a[\", which is no pattern"),
            ("max_duration = \"2d\"", "t:2: `chaos.max_duration` is"),
            ("max_hold = \"1h\"", "t:2: `chaos.max_hold` is"),
            ("user = []", "t:2: `chaos.user` is not a key"),
            ("[chaos.replay]\nmessages = 5", "t:2: `chaos.replay.uri` is missing"),
        ] {
            let errors = parse(&format!("[chaos]\n{text}\n")).unwrap_err();
            assert!(errors.len() == 1 && errors[0].starts_with(told), "{text}: {errors:?}");
        }
    }

    #[test]
    fn a_reload_can_end_it() {
        let (on, off) = (parse("[chaos]\nenabled = true\nvhosts = [\"a\"]\n").unwrap(), parse("").unwrap());
        let effects: Vec<Effect> = Diff::between(&on, &off).0.iter().map(|change| change.effect).collect();
        assert_eq!(effects, [Effect::Now, Effect::Now]);
    }

    #[test]
    fn it_is_warned_of() {
        let warnings = |text: &str| {
            let loaded = Config::parse(Some("t"), text, &Overrides::default()).expect(text);
            loaded.warnings.into_iter().map(|warning| warning.what).collect::<Vec<_>>()
        };
        assert_eq!(warnings("[chaos]\nvhosts = [\"a\"]\n"), [""; 0]);
        assert!(warnings("[chaos]\nenabled = true\n")[0].contains("names no vhost"));
        assert!(
            warnings("[chaos]\nenabled = true\nvhosts = [\"a\", \"b\"]\n")[0].contains("the clients of a, b")
        );
    }
}
