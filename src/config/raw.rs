//! The first step of reading a configuration: parses TOML and keeps the place of every value.
//!
//! The code is not derived with serde, because a derived reader stops at the first error. Here the caller asks for
//! each key by name. A value that is wrong is reported and replaced by its default. A key that nobody has asked for is
//! reported at the end. This way, one run reports all errors.

use super::problem::{Report, Source, Wrong};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The Jaro-Winkler similarity from which on a misspelt key gets a suggestion. 1 is the same word.
const ALIKE: f64 = 0.75;

/// Parses the whole file. Reports all syntax errors; a file with such an error is not read further.
pub(super) fn parse<'a>(text: &'a str, report: &mut Report) -> Option<DeTable<'a>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = report.line(error.span().map_or(0, |span| span.start));
        let what = format!("this is not TOML: {}", error.message());
        report.problem(&Source::File(line), what, "strings need quotes; see https://toml.io for the syntax");
    }
    errors.is_empty().then(|| table.into_inner())
}

/// A table of the file, or an empty one in place of an absent table. It remembers the keys that were asked for.
#[derive(Debug)]
pub(super) struct Section<'a> {
    table: Option<&'a DeTable<'a>>,
    /// prefix of its keys in sources: empty, `limits.`, `window.0.`
    path: String,
    /// prefix of its keys in messages: empty, `limits.`, `window "orders": `
    title: String,
    /// where it begins
    begin: Source,
    known: Vec<&'static str>,
    /// keys that [`Section::retired`] has handled, so they are never suggested
    retired: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Creates the section for the file's top level; `None`: there is no file.
    pub(super) fn top(table: Option<&'a DeTable<'a>>) -> Section<'a> {
        Section {
            table,
            path: String::new(),
            title: String::new(),
            begin: Source::default(),
            known: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// Returns the table under this key. If there is none, returns an empty one.
    pub(super) fn section(&mut self, key: &'static str, report: &mut Report) -> Section<'a> {
        let mut begin = Source::default();
        let table = match self.value(key).map(|value| (value.span(), value.get_ref())) {
            None => None,
            Some((span, DeValue::Table(table))) => {
                begin = Source::File(report.line(span.start));
                Some(table)
            }
            Some((span, other)) => {
                let what = format!("`{key}` is {}, but must be a table", type_name(other));
                let source = Source::File(report.line(span.start));
                report.problem(&source, what, format!("write a line `[{key}]` and its keys below it"));
                None
            }
        };
        Section {
            table,
            path: format!("{}{key}.", self.path),
            title: format!("{}{key}.", self.title),
            begin,
            known: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// Returns true if the file does not have this table.
    pub(super) fn is_absent(&self) -> bool {
        self.table.is_none()
    }

    /// Returns the tables under this key, `[[key]]`. `None` if the key is absent.
    pub(super) fn sections(&mut self, key: &'static str, report: &mut Report) -> Option<Vec<Section<'a>>> {
        let value = self.value(key)?;
        let fix = format!("write a line `[[{key}]]` (two brackets each side) and its keys below it");
        let DeValue::Array(items) = value.get_ref() else {
            let source = Source::File(report.line(value.span().start));
            report.problem(&source, format!("`{key}` must be a list of tables"), fix);
            return None;
        };
        let mut sections = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let source = Source::File(report.line(item.span().start));
            let path = format!("{}{key}.{index}.", self.path);
            let DeValue::Table(table) = item.get_ref() else {
                report.problem(&source, format!("`{key}` must be a list of tables"), fix.clone());
                continue;
            };
            report.sources.insert(path.trim_end_matches('.').to_owned(), source.clone());
            let title = match table.get("name").map(Spanned::get_ref) {
                Some(DeValue::String(name)) => format!("{}{key} \"{name}\": ", self.title),
                _ => format!("{}{key} no. {}: ", self.title, index + 1),
            };
            sections.push(Section {
                table: Some(table),
                path,
                title,
                begin: source,
                known: Vec::new(),
                retired: Vec::new(),
            });
        }
        Some(sections)
    }

    /// Returns the value of a key, parsed by `parse`, or the default. If the value is wrong, reports it and returns
    /// the default.
    pub(super) fn read<T>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> T {
        self.read_optional(report, key, parse).unwrap_or(default)
    }

    /// Returns the value of a key, parsed by `parse`, or `None` if the key is absent or the value is wrong (and
    /// reported).
    pub(super) fn read_optional<T>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let source = Source::File(report.line(value.span().start));
        report.sources.insert(self.path_of(key), source.clone());
        match parse(value.get_ref()) {
            Ok(value) => Some(value),
            Err(wrong) => {
                report.problem(&source, format!("{} {}", self.title_of(key), wrong.what), wrong.fix);
                None
            }
        }
    }

    /// Reports a key of former versions, and says what to do instead.
    pub(super) fn retired(&mut self, report: &mut Report, key: &'static str, instead: &str) {
        let Some((name, _)) = self.table.and_then(|table| table.get_key_value(key)) else { return };
        self.retired.push(key);
        let source = Source::File(report.line(name.span().start));
        report.problem(&source, format!("{} is not a key any more", self.title_of(key)), instead);
    }

    /// Returns the key's path in [`super::problem::Sources`].
    pub(super) fn path_of(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// Returns the key's name in a message.
    pub(super) fn title_of(&self, key: &str) -> String {
        match self.title.rsplit_once(": ") {
            Some((place, path)) => format!("{place}: `{path}{key}`"),
            None => format!("`{}{key}`", self.title),
        }
    }

    /// Returns the place at which the section begins.
    pub(super) fn source(&self) -> Source {
        self.begin.clone()
    }

    /// Reports every key that nobody has asked for.
    pub(super) fn finish(self, report: &mut Report) {
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) && !self.retired.contains(&name) {
                let source = Source::File(report.line(key.span().start));
                report.problem(
                    &source,
                    format!("{} is not a key", self.title_of(name)),
                    suggestion(name, &self.known),
                );
            }
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.and_then(|table| table.get(key))
    }
}

/// Returns the known key that looks most like this one, or all known keys.
fn suggestion(name: &str, known: &[&str]) -> String {
    let alike = |candidate: &&str| strsim::jaro_winkler(name, candidate);
    match known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))) {
        Some(best) if alike(best) >= ALIKE => format!("did you mean `{best}`?"),
        _ => format!("the keys here are: {}", known.join(", ")),
    }
}

/// Returns the type of a value, with its article.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
