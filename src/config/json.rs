//! What [`super::show`] and [`super::problem`] say, for programs: `hapax check --json`.

use super::problem::{Problem, Problems, Sources};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `{"settings": …, "sources": {"listen": "flag, --listen"}, "warnings": […]}`. The settings are read back from the text
/// for people, so that the two can't say different things. What has no source has its default.
pub(super) fn loaded(toml: &str, sources: &Sources, warnings: &[Problem]) -> String {
    // It is our own text; a test reads it back.
    let settings: Value = toml::from_str(toml).unwrap_or_default();
    let sources: BTreeMap<&String, String> =
        sources.iter().map(|(key, source)| (key, source.to_string())).collect();
    let warnings: Vec<Value> = warnings.iter().map(problem).collect();
    let document = json!({"settings": settings, "sources": sources, "warnings": warnings});
    format!("{document:#}")
}

/// `{"errors": [{"place", "what", "fix"}…]}`
pub(super) fn problems(problems: &Problems) -> String {
    let errors: Vec<Value> = problems.0.iter().map(problem).collect();
    format!("{:#}", json!({"errors": errors}))
}

fn problem(problem: &Problem) -> Value {
    json!({"place": problem.place, "what": problem.what, "fix": problem.fix})
}
