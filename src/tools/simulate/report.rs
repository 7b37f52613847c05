//! The result of a simulation: tables for people, JSON for programs.

use super::read::Present;
use super::restarts::{Comparison, Keeps, Restarted};
use super::sequences::{Row, Sequences};
use super::study::{Cell, Study};
use super::trace::Trace;
use crate::tools::text::grouped;
use crate::tools::text::{Span, decimal_bytes, exact_count, percent};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// A study, and what it was made of.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) about: About,
    pub(super) trace: &'a Trace,
    pub(super) study: &'a Study,
    pub(super) restarts: Option<&'a Comparison>,
    pub(super) sequences: Option<&'a Sequences>,
    pub(super) took: Duration,
}

/// Where the trace came from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct About {
    /// the file's name, or how it was made up
    pub(super) source: String,
    /// what its times are, if it was read
    pub(super) time_unit: Option<&'static str>,
    /// lines left out
    pub(super) skipped: u64,
    /// events without an id
    pub(super) without_id: u64,
    /// what the recording says it has missed
    pub(super) dropped: u64,
    /// the window's present setting
    pub(super) present: Option<Present>,
}

impl Report<'_> {
    /// For people.
    pub(super) fn text(&self) -> String {
        let Report { about, trace, study, restarts, sequences, .. } = self;
        let repeats = trace.repeats() as u64;
        let mut text = self.advice() + "\n";
        text += &self.about_present();
        text += &self.horizon();
        let _ = writeln!(
            text,
            "\n{}{}: {} publishes of {} ids in {}, {} repeats ({} %){}",
            about.source,
            about.time_unit.map(|unit| format!(" (times in {unit})")).unwrap_or_default(),
            grouped(trace.events() as u64),
            grouped(trace.ids() as u64),
            Span(rough(trace.span())),
            grouped(repeats),
            if repeats == 0 { "0".to_owned() } else { percent(repeats, trace.events() as u64) },
            self.left_out(),
        );
        if let Some((half, most)) = trace.repeat_delay(0.5).zip(trace.repeat_delay(0.99)) {
            let _ = writeln!(
                text,
                "A repeat follows the id's last publish within {} (half of them), within {} (99 %)",
                Span(rough(half)),
                Span(rough(most))
            );
        }
        let _ = writeln!(
            text,
            "\nRepeats caught, in % of all repeats, by capacity and TTL (engine {})",
            study.terms.engine.name()
        );
        let _ = writeln!(text, "{}", self.caught());
        let _ =
            writeln!(text, "\nDuplicates that escaped: their id had been evicted before its TTL was over");
        let _ = write!(text, "{}", self.escaped());
        text += &restarts.map(restarted).unwrap_or_default();
        text += &sequences.map(|sequences| self.by_numbers(sequences)).unwrap_or_default();
        text
    }

    /// Says what the present setting does, in one sentence.
    fn about_present(&self) -> String {
        let repeats = self.trace.repeats() as u64;
        let found = self.about.present.and_then(|present| self.study.at(present));
        let Some(cell) = found.filter(|_| repeats > 0) else { return String::new() };
        format!(
            "Now, with capacity = {} and ttl = \"{}\" ({} when full): caught {} of {} ({} %), escaped {}\n",
            cell.capacity,
            Span(cell.ttl),
            decimal_bytes(cell.bytes_when_full),
            grouped(cell.outcome.caught),
            grouped(repeats),
            percent(cell.outcome.caught, repeats),
            grouped(cell.outcome.escaped)
        )
    }

    /// Says what a trace cannot show, because it ends.
    fn horizon(&self) -> String {
        let span = Span(rough(self.trace.span()));
        format!(
            "The trace is {span} long, so it shows no repeat that comes later than that: record for longer than a publisher may wait \
             before its last retry, and do not lower the TTL because of a short trace\n"
        )
    }

    fn left_out(&self) -> String {
        let About { skipped, without_id, dropped, .. } = self.about;
        let parts = [
            (skipped, "lines left out"),
            (without_id, "without an id"),
            (dropped, "missing from the recording"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        parts.map(|(count, what)| format!("; {} {what}", grouped(*count))).collect()
    }

    /// Rows are capacities, columns TTLs; below, what no capacity can beat.
    fn caught(&self) -> Table {
        let repeats = self.trace.repeats() as u64;
        let mut table = self.grid_table(|cell| {
            if repeats == 0 { "-".to_owned() } else { percent(cell.outcome.caught, repeats) }
        });
        let unlimited = self.study.unlimited.iter();
        let caught = unlimited
            .clone()
            .map(|of| if repeats == 0 { "-".to_owned() } else { percent(of.catchable, repeats) });
        table.add_row(["unlimited".to_owned(), "-".to_owned()].into_iter().chain(caught));
        let peaks = unlimited.map(|of| grouped(of.peak_ids as u64));
        table.add_row(["ids at the same time".to_owned(), "-".to_owned()].into_iter().chain(peaks));
        table
    }

    fn escaped(&self) -> Table {
        let mut table = self.grid_table(|cell| grouped(cell.outcome.escaped));
        let enough = |ttl: &Duration| self.study.enough_for(*ttl).map_or_else(|| "-".to_owned(), exact_count);
        let share = format!("{} % of the TTL's", trimmed(self.study.terms.target * 100.0));
        table.add_row([share, "-".to_owned()].into_iter().chain(self.study.grid.ttls.iter().map(enough)));
        table
    }

    fn grid_table(&self, shown: impl Fn(&Cell) -> String) -> Table {
        let Study { grid, cells, .. } = self.study;
        let mut table = Table::new();
        let header = ["capacity".to_owned(), "memory".to_owned()];
        let ttls = grid.ttls.iter().map(|ttl| Span(*ttl).to_string());
        table.load_style(UTF8_FULL_CONDENSED).set_header(header.into_iter().chain(ttls));
        for column in 0..grid.ttls.len() + 2 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for row in cells.chunks(grid.ttls.len().max(1)) {
            let first =
                row.first().map(|cell| [exact_count(cell.capacity), decimal_bytes(cell.bytes_when_full)]);
            table.add_row(first.into_iter().flatten().chain(row.iter().map(&shown)));
        }
        table
    }

    /// The answer in one sentence. It comes first.
    fn advice(&self) -> String {
        let Study { terms, unlimited, smallest, grid, .. } = self.study;
        let (repeats, target) = (self.trace.repeats() as u64, trimmed(terms.target * 100.0));
        if repeats == 0 {
            return "No id came twice: there is nothing to catch, and nothing to learn about capacity and TTL.".to_owned();
        }
        if let Some(cell) = smallest {
            return format!(
                "Smallest that catches {target} % of all repeats: capacity = {}, ttl = \"{}\" ({} when full; caught {} of {}, escaped {})",
                cell.capacity,
                Span(cell.ttl),
                decimal_bytes(cell.bytes_when_full),
                grouped(cell.outcome.caught),
                grouped(repeats),
                grouped(cell.outcome.escaped)
            );
        }
        let longest = grid.ttls.last().copied().unwrap_or_default();
        let most = unlimited.iter().map(|of| of.catchable).max().unwrap_or_default();
        if terms.met(most, repeats) {
            format!(
                "Nothing on this grid catches {target} % of all repeats: the capacities are too small; try larger --capacities"
            )
        } else {
            format!(
                "Nothing on this grid catches {target} % of all repeats: with a TTL of {} even an unlimited window catches {} %; \
                 try longer --ttls, or a lower --target",
                Span(longest),
                percent(most, repeats)
            )
        }
    }

    /// Shows the same publishes in a window of sequences.
    fn by_numbers(&self, sequences: &Sequences) -> String {
        let repeats = self.trace.repeats() as u64;
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["capacity", "memory", "caught", "passed", "numbers used twice"]);
        for column in 0..5 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for Row { capacity, bytes_when_full, caught, passed, used_twice } in sequences.rows.iter().copied() {
            let share = if repeats == 0 { "-".to_owned() } else { percent(caught, repeats) };
            let bytes = decimal_bytes(bytes_when_full);
            table.add_row([exact_count(capacity), bytes, share, grouped(passed), grouped(used_twice)]);
        }
        let Sequences { producers, ttl, .. } = sequences;
        format!(
            "\n\nThe same with id = \"sequence\": {} producers, ttl = \"{}\"; caught in % of all repeats\n{table}",
            grouped(*producers as u64),
            Span(*ttl)
        )
    }

    /// For programs. Shares from 0 to 1, spans in seconds, sizes in bytes.
    pub(super) fn json(&self) -> Value {
        let Report { about, trace, study, restarts, sequences, took } = self;
        let repeats = trace.repeats() as u64;
        let delay = |quantile: f64| trace.repeat_delay(quantile).map(|delay| delay.as_secs_f64());
        let ttls: Vec<Value> = study
            .grid
            .ttls
            .iter()
            .zip(&study.unlimited)
            .map(|(ttl, unlimited)| {
                json!({
                    "ttl_seconds": ttl.as_secs_f64(),
                    "catchable": unlimited.catchable,
                    "peak_ids": unlimited.peak_ids,
                    "enough_capacity": study.enough_for(*ttl),
                })
            })
            .collect();
        json!({
            "trace": {
                "source": about.source,
                "time_unit": about.time_unit,
                "events": trace.events(),
                "ids": trace.ids(),
                "repeats": repeats,
                "seconds": trace.span().as_secs_f64(),
                "repeat_delay_seconds": { "p50": delay(0.5), "p99": delay(0.99), "max": delay(1.0) },
                "skipped_lines": about.skipped,
                "without_id": about.without_id,
                "dropped_by_recorder": about.dropped,
            },
            "engine": study.terms.engine.name(),
            "refresh_on_duplicate": study.terms.refresh_on_duplicate,
            "target": study.terms.target,
            "ttls": ttls,
            "cells": study.cells.iter().map(|cell| cell_json(cell, repeats)).collect::<Vec<_>>(),
            "present": about.present.and_then(|present| study.at(present)).map(|cell| cell_json(cell, repeats)),
            "longest_visible_delay_seconds": trace.span().as_secs_f64(),
            "restarts": restarts.map(restarts_json),
            "sequences": sequences.map(sequences_json),
            "smallest": study.smallest.as_ref().map(|cell| cell_json(cell, repeats)),
            "took_seconds": took.as_secs_f64(),
        })
    }
}

/// What restarts cost, without and with a store.
fn restarted(comparison: &Comparison) -> String {
    let Comparison { setting, every, count, rows } = comparison;
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["the window remembers", "caught", "passed because of restarts"]);
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for Restarted { keeps, outcome, passed } in rows {
        let place = match keeps {
            Keeps::Nothing => "in memory only".to_owned(),
            Keeps::AllBut(delay) => format!("in a store, remember = \"async\" ({} behind)", Span(*delay)),
            Keeps::Everything => "in a store, remember = \"sync\"".to_owned(),
        };
        table.add_row([place, grouped(outcome.caught), grouped(*passed)]);
    }
    format!(
        "\n\nRestarts of the relay every {} ({} of them), with capacity = {} and ttl = \"{}\"\n{table}",
        Span(*every),
        grouped(*count),
        setting.capacity,
        Span(setting.ttl)
    )
}

fn restarts_json(comparison: &Comparison) -> Value {
    let Comparison { setting, every, count, rows } = comparison;
    let row = |Restarted { keeps, outcome, passed }: &Restarted| {
        let (store, remember, delay) = match keeps {
            Keeps::Nothing => (false, None, None),
            Keeps::AllBut(delay) => (true, Some("async"), Some(delay.as_secs_f64())),
            Keeps::Everything => (true, Some("sync"), None),
        };
        json!({
            "store": store,
            "remember": remember,
            "remember_delay_seconds": delay,
            "caught": outcome.caught,
            "escaped": outcome.escaped,
            "passed_because_of_restarts": passed,
        })
    };
    json!({
        "every_seconds": every.as_secs_f64(),
        "count": count,
        "capacity": setting.capacity,
        "ttl_seconds": setting.ttl.as_secs_f64(),
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn sequences_json(Sequences { producers, ttl, rows }: &Sequences) -> Value {
    let row = |Row { capacity, bytes_when_full, caught, passed, used_twice }: &Row| {
        json!({
            "capacity": capacity,
            "bytes_when_full": bytes_when_full,
            "caught": caught,
            "passed": passed,
            "used_twice": used_twice,
        })
    };
    json!({
        "producers": producers,
        "ttl_seconds": ttl.as_secs_f64(),
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn cell_json(cell: &Cell, repeats: u64) -> Value {
    let Cell { capacity, ttl, outcome, catchable, bytes_when_full } = *cell;
    let share = |of: u64| (of > 0).then(|| ratio(outcome.caught, of));
    json!({
        "capacity": capacity,
        "ttl_seconds": ttl.as_secs_f64(),
        "caught": outcome.caught,
        "caught_of_repeats": share(repeats),
        "caught_of_catchable": share(catchable),
        "escaped": outcome.escaped,
        "evicted_early": outcome.evicted_early,
        "peak_entries": outcome.peak_entries,
        "peak_bytes": outcome.peak_bytes,
        "bytes_when_full": bytes_when_full,
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// A number without needless zeros, and without what binary fractions add.
pub(super) fn trimmed(number: f64) -> String {
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Without digits that nobody reads.
fn rough(span: Duration) -> Duration {
    let unit = match span.as_secs() {
        0 => Duration::from_micros(1),
        1..60 => Duration::from_millis(1),
        _ => Duration::from_secs(1),
    };
    let units = span.as_nanos() / unit.as_nanos();
    u32::try_from(units).map_or(span, |units| unit * units)
}
