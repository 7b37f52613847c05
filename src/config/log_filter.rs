//! Parses `log.level`: a level for everything, and levels for single targets, as in `info,hapax::net=debug`.
//!
//! `tracing_subscriber` takes any word that is no level for a target. With `warning` it would log nothing but the target
//! `warning`, which does not exist, and the log would be empty. Here a word must be a level or a target that exists.

use super::problem::Wrong;

/// Levels, each with other words for it.
const LEVELS: [(&str, &[&str]); 6] = [
    ("off", &["none", "no", "silent", "quiet", "0"]),
    ("error", &["err", "critical", "crit", "fatal", "alert", "emerg", "emergency", "severe", "1"]),
    ("warn", &["warning", "warnings", "2"]),
    ("info", &["information", "informational", "notice", "normal", "3"]),
    ("debug", &["dbg", "fine", "4"]),
    ("trace", &["verbose", "all", "finest", "5"]),
];
/// The level of targets that the filter does not name.
const OTHERWISE: &str = "info";
/// The beginnings of the targets in Hapax itself. Deeper modules may follow.
pub(super) const TARGETS: [&str; 26] = [
    "hapax",
    "hapax::accept",
    "hapax::admin",
    "hapax::audit",
    "hapax::bounded_file",
    "hapax::chaos",
    "hapax::cli",
    "hapax::clock",
    "hapax::config",
    "hapax::live",
    "hapax::log",
    "hapax::net",
    "hapax::panic",
    "hapax::private_file",
    "hapax::process",
    "hapax::run",
    "hapax::service",
    "hapax::signals",
    "hapax::stats",
    "hapax::store",
    "hapax::tls",
    "hapax_core",
    "hapax_core::pressure",
    "hapax_core::session",
    "hapax_core::window",
    "hapax_core::wire",
];
/// Libraries that log.
const LIBRARIES: [&str; 7] = ["axum", "hyper", "hyper_util", "mio", "tokio", "tower", "want"];
/// The Jaro-Winkler similarity from which on a word gets a suggestion.
const ALIKE: f64 = 0.75;
/// What to write.
const FIX: &str = "write error, warn, info, debug, trace or off, and more for single targets, as in \"info,hapax::net=debug\"";

/// Parses a filter. Returns it in the words of `tracing_subscriber`.
pub(super) fn parse(text: &str) -> Result<String, Wrong> {
    let mut general = None;
    let mut single = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((name, level)) => {
                let name = target(name.trim()).map_err(|why| wrong(text, &why))?;
                single
                    .push(format!("{name}={}", self::level(level.trim()).map_err(|why| wrong(text, &why))?));
            }
            None if is_target(part) && level(part).is_err() => {
                let why =
                    Why { what: format!("{part:?} has no level"), fix: format!("write \"{part}=debug\"") };
                return Err(wrong(text, &why));
            }
            None => {
                let level = level(part).map_err(|why| wrong(text, &why))?;
                if general.replace(level).is_some() {
                    let fix = "write one level for everything, and TARGET=LEVEL for exceptions";
                    return Err(wrong(text, &Why { what: "it has two levels".into(), fix: fix.into() }));
                }
            }
        }
    }
    if general.is_none() && single.is_empty() {
        return Err(wrong(text, &Why { what: "it is empty".into(), fix: FIX.into() }));
    }
    single.insert(0, general.unwrap_or(OTHERWISE).to_owned());
    Ok(single.join(","))
}

struct Why {
    what: String,
    fix: String,
}

fn wrong(text: &str, why: &Why) -> Wrong {
    Wrong::new(format!("is {text:?}, which is no log filter: {}", why.what), why.fix.clone())
}

/// Finds the level that a word means.
fn level(word: &str) -> Result<&'static str, Why> {
    let lower = word.to_ascii_lowercase();
    let named = |(name, others): &&(&'static str, &[&str])| *name == lower || others.contains(&&*lower);
    if let Some((name, _)) = LEVELS.iter().find(named) {
        return Ok(name);
    }
    let words =
        LEVELS.iter().flat_map(|(name, others)| others.iter().chain([name]).map(move |word| (*word, *name)));
    let what = format!("{word:?} is no level");
    Err(match alike(&lower, words) {
        Some(level) => Why { what, fix: format!("did you mean \"{level}\"?") },
        None => Why { what, fix: FIX.into() },
    })
}

/// Checks the name of a target.
fn target(name: &str) -> Result<&str, Why> {
    if is_target(name) {
        return Ok(name);
    }
    let what = format!("nothing logs as {name:?}");
    let all = TARGETS.iter().chain(&LIBRARIES).map(|target| (*target, *target));
    // Compare as many modules as the list has.
    let head = name.splitn(3, "::").take(2).collect::<Vec<_>>().join("::");
    Err(match alike(&head, all) {
        Some(target) => Why { what, fix: format!("did you mean `{target}`?") },
        None => Why { what, fix: format!("the targets are: {}", TARGETS.join(", ")) },
    })
}

fn is_target(name: &str) -> bool {
    let modules: Vec<&str> = name.split("::").collect();
    let valid =
        |module: &str| !module.is_empty() && module.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let begins = |target: &str| target == modules.iter().take(2).copied().collect::<Vec<_>>().join("::");
    modules.iter().all(|module| valid(module))
        && (TARGETS.iter().any(|target| begins(target))
            || modules.first().is_some_and(|first| LIBRARIES.contains(first)))
}

/// Returns what belongs to the candidate that looks most like this word, if it looks like it at all.
fn alike<'a>(word: &str, candidates: impl Iterator<Item = (&'a str, &'a str)>) -> Option<&'a str> {
    candidates
        .map(|(candidate, means)| (strsim::jaro_winkler(word, candidate), means))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, means)| means)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_filter_means_what_it_says() {
        for (text, filter) in [
            ("warn", "warn"),
            ("WARNING", "warn"),
            ("err", "error"),
            ("information", "info"),
            ("notice", "info"),
            ("fatal", "error"),
            ("verbose", "trace"),
            ("none", "off"),
            ("3", "info"),
            ("info,hapax::net=debug", "info,hapax::net=debug"),
            (" hapax::net::pump = Warning , debug ", "debug,hapax::net::pump=warn"),
            ("hapax_core::session=trace", "info,hapax_core::session=trace"),
            ("hapax=debug,hyper=warn", "info,hapax=debug,hyper=warn"),
        ] {
            assert_eq!(parse(text), Ok(filter.to_owned()), "{text:?}");
            assert!(tracing_subscriber::EnvFilter::builder().parse(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn what_is_not_known_gets_a_suggestion() {
        for (text, what, fix) in [
            ("", "it is empty", "write error"),
            (" , ", "it is empty", "write error"),
            ("wraning", "\"wraning\" is no level", "did you mean \"warn\"?"),
            ("debgu", "\"debgu\" is no level", "did you mean \"debug\"?"),
            ("inf", "\"inf\" is no level", "did you mean \"info\"?"),
            ("loud", "\"loud\" is no level", "write error"),
            ("info=loud", "nothing logs as \"info\"", "the targets are: hapax, "),
            ("hapax::net", "\"hapax::net\" has no level", "write \"hapax::net=debug\""),
            ("hapx=debug", "nothing logs as \"hapx\"", "did you mean `hapax`?"),
            ("hapax::nett=debug", "nothing logs as \"hapax::nett\"", "did you mean `hapax::net`?"),
            ("hapax::net=lots", "\"lots\" is no level", "write error"),
            ("info,debug", "it has two levels", "write one level"),
            ("hapax::net[span]=debug", "nothing logs as", ""),
        ] {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.what.contains(what) && wrong.fix.contains(fix), "{text:?}: {wrong:?}");
        }
    }

    #[test]
    fn the_targets_are_the_modules() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        // Two targets are no modules.
        let mut modules = ["hapax", "hapax::audit", "hapax::panic", "hapax_core"].map(str::to_owned).to_vec();
        for (folder, name) in [("src", "hapax"), ("core/src", "hapax_core")] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
                let module = entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
                // The tools run without a log.
                if !["lib", "main", "tools"].contains(&&*module) {
                    modules.push(format!("{name}::{module}"));
                }
            }
        }
        modules.sort();
        modules.dedup();
        assert_eq!(modules, TARGETS);
    }
}
