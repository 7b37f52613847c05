//! Changes the settings of one window in the text of a configuration file. Everything else stays as it is, byte for byte.
//!
//! A value that is there is replaced where it stands. A key that is not there gets a line of its own below the last of the window's keys
//! that can be set. The text is cut at the places that the parser of the configuration gives, so no layout is known here.

use crate::config::number;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};
use toml::{Table, Value};

/// The keys that can be set, and the key that each window has.
const PLACES: [&str; 4] = ["name", "capacity", "ttl", "mode"];

/// A line of the file that was changed.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub(super) struct Line {
    /// its number, from 1
    pub(super) line: usize,
    /// the key
    pub(super) key: &'static str,
    /// the value that stood there, as it was written; null: the key is new
    pub(super) from: Option<String>,
    /// the value that stands there now
    pub(super) to: String,
}

/// A file that was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Edited {
    pub(super) text: String,
    /// the lines that were changed: none if it said so before
    pub(super) lines: Vec<Line>,
}

/// Why a text can't be changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Cannot {
    /// it is not TOML
    Parse { line: usize, why: String },
    /// it has no `[[window]]` of this name, or more than one
    Windows(usize),
    /// the changed text would not mean what was asked for
    Unsure,
}

/// A piece of text that takes the place of another.
struct Cut {
    place: Range<usize>,
    text: String,
    key: &'static str,
    from: Option<String>,
    to: String,
}

/// Sets these keys of a window.
pub(super) fn set(text: &str, window: &str, settings: &[(&'static str, Value)]) -> Result<Edited, Cannot> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if let Some(error) = errors.first() {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        return Err(Cannot::Parse { line, why: error.message().to_owned() });
    }
    let windows = match table.get_ref().get("window").map(Spanned::get_ref) {
        Some(DeValue::Array(windows)) => named(windows, window),
        _ => Vec::new(),
    };
    let [(begin, found)] = windows.as_slice() else { return Err(Cannot::Windows(windows.len())) };
    let is_inline = text.get(*begin..).is_some_and(|rest| rest.starts_with('{'));
    let mut cuts = Vec::new();
    for (key, value) in settings {
        let (key, to) = (*key, value.to_string());
        match found.get(key) {
            Some(there) if is_same(key, there.get_ref(), value) => {}
            Some(there) => {
                let from = text.get(there.span()).map(str::to_owned);
                cuts.push(Cut { place: there.span(), text: to.clone(), key, from, to });
            }
            None => {
                let (at, text) = new_line(text, found, is_inline, key, &to).ok_or(Cannot::Unsure)?;
                cuts.push(Cut { place: at..at, text, key, from: None, to });
            }
        }
    }
    let edited = splice(text, cuts).ok_or(Cannot::Unsure)?;
    if means(text, &edited, window, settings) { Ok(edited) } else { Err(Cannot::Unsure) }
}

/// Returns the windows of this name, each with the place where it begins.
fn named<'a, 't>(windows: &'a DeArray<'t>, name: &str) -> Vec<(usize, &'a DeTable<'t>)> {
    let table = |window: &'a Spanned<DeValue<'t>>| match window.get_ref() {
        DeValue::Table(table) => Some((window.span().start, table)),
        _ => None,
    };
    let is_named = |table: &DeTable<'_>| match table.get("name").map(Spanned::get_ref) {
        Some(DeValue::String(have)) => *have == *name,
        _ => false,
    };
    windows.iter().filter_map(table).filter(|(_, table)| is_named(table)).collect()
}

/// Returns true if the file says this already, in whatever words.
fn is_same(key: &str, there: &DeValue<'_>, value: &Value) -> bool {
    let text = match there {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        _ => return false,
    };
    let wanted = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let alike = match key {
        "capacity" => number::count(&text).zip(number::count(&wanted)).is_some_and(|(a, b)| a == b),
        "ttl" => number::duration(&text).zip(number::duration(&wanted)).is_some_and(|(a, b)| a == b),
        _ => false,
    };
    alike || text == wanted
}

/// Returns where a key that is new goes, and how it is written there.
fn new_line(
    text: &str,
    window: &DeTable<'_>,
    is_inline: bool,
    key: &str,
    value: &str,
) -> Option<(usize, String)> {
    let places = window.iter().filter(|(key, _)| PLACES.contains(&&**key.get_ref()));
    let (last, end) =
        places.map(|(key, value)| (key.span().start, value.span().end)).max_by_key(|at| at.1)?;
    if is_inline {
        return Some((end, format!(", {key} = {value}")));
    }
    let line = text.get(..last)?.rfind('\n').map_or(0, |newline| newline + 1);
    let indent = text.get(line..last)?;
    let indent = if indent.trim().is_empty() { indent } else { "" };
    let rest = text.get(end..)?;
    let (at, newline) = match rest.find('\n') {
        Some(newline) if rest.get(..newline)?.ends_with('\r') => (end + newline - 1, "\r\n"),
        Some(newline) => (end + newline, "\n"),
        None => (text.len(), if text.contains("\r\n") { "\r\n" } else { "\n" }),
    };
    Some((at, format!("{newline}{indent}{key} = {value}")))
}

fn splice(text: &str, mut cuts: Vec<Cut>) -> Option<Edited> {
    // Several that go to the same place keep their order.
    cuts.sort_by_key(|cut| cut.place.start);
    let (mut out, mut lines, mut done) = (String::new(), Vec::new(), 0);
    for Cut { place, text: new, key, from, to } in cuts {
        out.push_str(text.get(done..place.start)?);
        out.push_str(&new);
        done = place.end;
        lines.push(Line { line: line_of(&out, out.len()), key, from, to });
    }
    out.push_str(text.get(done..)?);
    Some(Edited { text: out, lines })
}

/// Returns the line, from 1, that this byte is in.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Returns true if the new text says what the old one says, with these settings of this window, and nothing else.
fn means(before: &str, edited: &Edited, window: &str, settings: &[(&'static str, Value)]) -> bool {
    let parse = |text: &str| toml::from_str::<Table>(text).ok();
    let (Some(mut wanted), Some(is)) = (parse(before), parse(&edited.text)) else { return false };
    let windows = wanted.get_mut("window").and_then(Value::as_array_mut);
    let found = windows.and_then(|windows| {
        let mut tables = windows.iter_mut().filter_map(Value::as_table_mut);
        tables.find(|table| table.get("name").and_then(Value::as_str) == Some(window))
    });
    let Some(found) = found else { return false };
    for (key, value) in settings.iter().filter(|(key, _)| edited.lines.iter().any(|line| line.key == *key)) {
        found.insert((*key).to_owned(), value.clone());
    }
    wanted == is
}

#[cfg(test)]
mod tests;
