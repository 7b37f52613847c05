//! The first reading: TOML as it stands, with the place of everything in it.
//!
//! Not derived with serde, because a derived reader stops at the first thing that it does not understand. Here every
//! key is asked for by name, a value that will not do is reported and replaced by its default, and what was never
//! asked for is reported in the end: one run tells all that is wrong.

use super::problem::{Report, Source, Wrong};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// How alike a misspelt key must be to be suggested (Jaro-Winkler, 1 is the same).
const ALIKE: f64 = 0.75;

/// The whole file. Syntax errors are reported, all of them; what they leave of the file is not worth reading on.
pub(super) fn parse<'a>(text: &'a str, report: &mut Report) -> Option<DeTable<'a>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = report.line(error.span().map_or(0, |span| span.start));
        let what = format!("this is not TOML: {}", error.message());
        report.problem(&Source::File(line), what, "strings need quotes; see https://toml.io for the syntax");
    }
    errors.is_empty().then(|| table.into_inner())
}

/// A table of the file, or what stands for one that is absent. Remembers what it was asked for.
#[derive(Debug)]
pub(super) struct Section<'a> {
    table: Option<&'a DeTable<'a>>,
    /// prefix of its keys in sources: empty, `limits.`, `window.0.`
    path: String,
    /// prefix of its keys in messages: empty, `limits.`, `window "orders": `
    title: String,
    known: Vec<&'static str>,
    /// keys that were reported already; they are not suggested
    retired: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The file's top level; `None` without a file.
    pub(super) fn top(table: Option<&'a DeTable<'a>>) -> Section<'a> {
        Section { table, path: String::new(), title: String::new(), known: Vec::new(), retired: Vec::new() }
    }

    /// The table under this key.
    pub(super) fn section(&mut self, key: &'static str, report: &mut Report) -> Section<'a> {
        let table = match self.value(key).map(|value| (value.span(), value.get_ref())) {
            None => None,
            Some((_, DeValue::Table(table))) => Some(table),
            Some((span, other)) => {
                let what = format!("`{key}` is {}, but must be a table", type_name(other));
                let source = Source::File(report.line(span.start));
                report.problem(&source, what, format!("write a line `[{key}]` and its keys below it"));
                None
            }
        };
        Section {
            table,
            path: format!("{key}."),
            title: format!("{key}."),
            known: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// The tables under this key: `[[key]]`. `None` if there is none.
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
            let path = format!("{key}.{index}.");
            let DeValue::Table(table) = item.get_ref() else {
                report.problem(&source, format!("`{key}` must be a list of tables"), fix.clone());
                continue;
            };
            report.sources.insert(path.trim_end_matches('.').to_owned(), source);
            let title = match table.get("name").map(Spanned::get_ref) {
                Some(DeValue::String(name)) => format!("{key} \"{name}\": "),
                _ => format!("{key} no. {}: ", index + 1),
            };
            sections.push(Section {
                table: Some(table),
                path,
                title,
                known: Vec::new(),
                retired: Vec::new(),
            });
        }
        Some(sections)
    }

    /// The value of a key as `parse` understands it, or the default. A problem is reported, and the default stands in.
    pub(super) fn read<T>(
        &mut self,
        report: &mut Report,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, Wrong>,
    ) -> T {
        self.read_optional(report, key, parse).unwrap_or(default)
    }

    /// As [`Section::read`], where absence means something.
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

    /// A key of former versions: what to do instead, where it is still used.
    pub(super) fn retired(&mut self, report: &mut Report, key: &'static str, instead: &str) {
        let Some((name, _)) = self.table.and_then(|table| table.get_key_value(key)) else { return };
        self.retired.push(key);
        let source = Source::File(report.line(name.span().start));
        report.problem(&source, format!("{} is not a key any more", self.title_of(key)), instead);
    }

    /// The key's path in [`super::problem::Sources`].
    pub(super) fn path_of(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// The key's name in a message.
    pub(super) fn title_of(&self, key: &str) -> String {
        match self.title.strip_suffix('.') {
            Some(_) => format!("`{}{key}`", self.title),
            None => format!("{}`{key}`", self.title),
        }
    }

    /// Where the section begins.
    pub(super) fn source(&self, report: &Report) -> Source {
        report.source(self.path.trim_end_matches('.'))
    }

    /// Reports every key that nobody asked for.
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

/// The known key that looks most like it, or all of them.
fn suggestion(name: &str, known: &[&str]) -> String {
    let alike = |candidate: &&str| strsim::jaro_winkler(name, candidate);
    match known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))) {
        Some(best) if alike(best) >= ALIKE => format!("did you mean `{best}`?"),
        _ => format!("the keys here are: {}", known.join(", ")),
    }
}

/// A value's type, with its article.
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
