//! The problems of a configuration, each with its place and its fix, and the source of each value.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Where a value came from. The variants are in order of precedence, weakest first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Source {
    /// nobody has set it, so it comes from [`super::defaults`]
    #[default]
    Default,
    /// the configuration file, at this line (1 is the first)
    File(usize),
    /// this environment variable
    Env(&'static str),
    /// this flag of the command line
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(line) => write!(f, "file, line {line}"),
            Source::Env(name) => write!(f, "environment, {name}"),
            Source::Flag(name) => write!(f, "flag, {name}"),
        }
    }
}

/// The source of each key, by its path: `listen`, `limits.frame_max`, `window.0.ttl`. A key that is not in here has
/// its default.
pub type Sources = BTreeMap<String, Source>;

/// One problem of a configuration. Its text is for people; programs look at the exit code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// `FILE:LINE`, `FILE`, or the flag or variable
    pub place: String,
    /// what is wrong
    pub what: String,
    /// what to do about it
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    fix: {}", self.place, self.what, self.fix)
    }
}

/// All problems, in the order of the lines in the file. There is at least one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "error: {problem}")?;
        }
        match self.0.len() {
            1 => f.write_str("1 error in the configuration"),
            n => write!(f, "{n} errors in the configuration"),
        }
    }
}

impl std::error::Error for Problems {}

/// Why a value is refused. `what` completes a sentence that begins with the key's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) fix: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, fix: impl Into<String>) -> Wrong {
        Wrong { what: what.into(), fix: fix.into() }
    }
}

/// Collects problems, warnings and sources while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// the file's name as the user gave it; `None` without a file
    file: Option<Arc<str>>,
    /// offsets at which the lines of the file begin
    lines: Vec<usize>,
    /// each with its line to sort by; 0: no line
    problems: Vec<(usize, Problem)>,
    warnings: Vec<Problem>,
    pub(super) sources: Sources,
}

impl Report {
    pub(super) fn new(file: Option<&str>, text: &str) -> Report {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Report { file: file.map(Arc::from), lines, ..Report::default() }
    }

    /// Returns the line that holds this byte of the file.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= offset).max(1)
    }

    /// Returns `FILE:LINE`, or the flag or variable.
    pub(super) fn place(&self, source: &Source) -> String {
        let file = self.file.as_deref().unwrap_or("configuration");
        match source {
            Source::Default => file.to_owned(),
            Source::File(line) => format!("{file}:{line}"),
            Source::Env(name) | Source::Flag(name) => (*name).to_owned(),
        }
    }

    pub(super) fn problem(&mut self, source: &Source, what: impl Into<String>, fix: impl Into<String>) {
        let line = if let Source::File(line) = source { *line } else { 0 };
        let problem = Problem { place: self.place(source), what: what.into(), fix: fix.into() };
        self.problems.push((line, problem));
    }

    pub(super) fn warning(&mut self, source: &Source, what: impl Into<String>, fix: impl Into<String>) {
        let warning = Problem { place: self.place(source), what: what.into(), fix: fix.into() };
        self.warnings.push(warning);
    }

    /// Returns true if a problem is already reported at this key's place. Consequences of it need no report of their
    /// own.
    pub(super) fn is_wrong(&self, key: &str) -> bool {
        let source = self.source(key);
        let place = self.place(&source);
        source != Source::Default && self.problems.iter().any(|(_, problem)| problem.place == place)
    }

    /// Returns the source of a key.
    pub(super) fn source(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or_default()
    }

    /// Returns the warnings and sources, or all problems in the file's order (flags and variables first).
    pub(super) fn finish(mut self) -> Result<(Vec<Problem>, Sources), Problems> {
        if self.problems.is_empty() {
            return Ok((self.warnings, self.sources));
        }
        self.problems.sort_by_key(|(line, _)| *line);
        Err(Problems(self.problems.into_iter().map(|(_, problem)| problem).collect()))
    }
}
