//! `hapax check --json`: the output of [`super::show`] and [`super::problem`] as JSON, for programs.

use super::problem::{Problem, Problems, Sources};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Returns `{"settings": …, "sources": {"listen": "flag, --listen"}, "warnings": […]}`. The settings are parsed from
/// the TOML for people, so that the two outputs can't differ. A key without a source has its default.
pub(super) fn loaded(toml: &str, sources: &Sources, warnings: &[Problem]) -> String {
    // Parsing can't fail, because we have written this text. A test reads it back.
    let settings: Value = toml::from_str(toml).unwrap_or_default();
    let sources: BTreeMap<&String, String> =
        sources.iter().map(|(key, source)| (key, source.to_string())).collect();
    let warnings: Vec<Value> = warnings.iter().map(problem).collect();
    let document = json!({"settings": settings, "sources": sources, "warnings": warnings});
    format!("{document:#}")
}

/// Returns `{"errors": [{"place", "what", "fix"}…]}`.
pub(super) fn problems(problems: &Problems) -> String {
    let errors: Vec<Value> = problems.0.iter().map(problem).collect();
    format!("{:#}", json!({"errors": errors}))
}

fn problem(problem: &Problem) -> Value {
    json!({"place": problem.place, "what": problem.what, "fix": problem.fix})
}
