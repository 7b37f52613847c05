//! The keys of a window with `id = "sequence"`, and those that it can't have.

use super::problem::{Report, Wrong};
use super::raw::Section;
use super::show::about_bytes;
use super::{Config, WindowConfig, defaults, value};
use hapax_core::window::local::Limits;
use hapax_core::window::{Numbering, OnConflict, Release, Rules};
use hapax_core::wire::IdSource;

/// Reads the keys that say how numbers are judged.
pub(super) fn read(section: &mut Section<'_>, rules: &mut Rules, report: &mut Report) {
    let numbering = &mut rules.numbering;
    numbering.on_gap = section.read(report, "on_gap", numbering.on_gap, |v| value::word(v, "forward"));
    numbering.places = section.read(report, "places", numbering.places, |v| {
        let places = value::count(v, Numbering::LEAST..=Numbering::MOST)?;
        match places % 64 {
            0 => Ok(places),
            rest => Err(Wrong::new(
                format!("is {places}, which is no multiple of 64"),
                format!("write {}", places - rest + 64),
            )),
        }
    });
}

/// Sets the default of a capacity that is counted in producers.
pub(super) fn default_capacity(rules: &Rules, limits: &mut Limits) {
    if rules.id == IdSource::Sequence {
        limits.capacity = defaults::PRODUCERS;
    }
}

/// Reports keys that a window of sequences can't have, and keys that only such a window has.
pub(super) fn check(config: &Config, report: &mut Report) {
    for (index, window) in config.windows.iter().enumerate().filter(|(_, window)| !window.is_guard()) {
        let (rules, name) = (&window.rules, &window.rules.name);
        let path = |key: &str| format!("window.{index}.{key}");
        if rules.id != IdSource::Sequence {
            for key in ["on_gap", "places"] {
                if report.sources.contains_key(&path(key)) {
                    let what =
                        format!("window \"{name}\": `{key}` is about numbers, but `id` is \"{}\"", rules.id);
                    report.problem(
                        &report.source(&path(key)),
                        what,
                        "write id = \"sequence\" (docs/sequences.md), or leave it out",
                    );
                }
            }
            continue;
        }
        let wrong = [
            (window.auto, "capacity", "give it a number: how many producers there are, and some more"),
            (
                report.sources.contains_key(&path("engine")),
                "engine",
                "leave it out: an engine stores ids, and this window has none",
            ),
            (
                rules.quota.is_some(),
                "quota",
                "leave it out: the capacity is counted in producers, and is not divided among tenants; give each tenant a window of its own by `vhost` or `exchange`",
            ),
            (
                rules.on_conflict != OnConflict::Drop,
                "on_conflict",
                "leave it out: of a number one bit is remembered, and nothing of the body",
            ),
            (
                rules.release != Release::Ttl,
                "release",
                "leave it out: a producer does not use a number again",
            ),
            (
                window.limits.refresh_on_duplicate,
                "refresh_on_duplicate",
                "leave it out: a producer is remembered for the TTL from its last publish on, whatever that was",
            ),
        ];
        check_bytes(index, window, report);
        for (_, key, fix) in wrong.into_iter().filter(|(is_wrong, ..)| *is_wrong) {
            let what = format!("window \"{name}\": `{key}` can't be had together with id = \"sequence\"");
            report.problem(&report.source(&path(key)), what, fix);
        }
    }
}

/// Reports a window whose producers would take more memory than any window may.
fn check_bytes(index: usize, window: &WindowConfig, report: &mut Report) {
    let (rules, capacity) = (&window.rules, window.limits.capacity);
    let most = rules.most_capacity();
    if capacity <= most {
        return;
    }
    let what = format!(
        "window \"{}\": {capacity} producers (`capacity`) with {} `places` each take {}, and a window may take {}",
        rules.name,
        rules.numbering.places,
        about_bytes(rules.numbering.bytes_at(capacity)),
        about_bytes(Numbering::MOST_BYTES)
    );
    let fix = format!("write capacity = {most} at most, or fewer places");
    report.problem(&report.source(&format!("window.{index}.capacity")), what, fix);
}
