//! Makes the manual page `hapax.toml(5)` of the documented configuration file. The file stays the only text about keys.
//!
//! In the file, a comment stands above its key, and the key has its default. A key without a default is commented out. A `[section]`
//! begins a section of the page; the comment above it is the section's introduction. An optional section is commented out as a whole,
//! with empty comment lines between its keys. Lines of a comment that are indented are shown as they are.

use clap_mangen::roff::{Inline, Roff, bold, roman};
use std::mem::take;

/// The documented configuration file.
const FILE: &str = include_str!("../../config/hapax.toml");

/// One line of the file, by its kind.
enum Line<'a> {
    Blank,
    Section(&'a str),
    Key { line: &'a str, name: &'a str },
    Comment(&'a str),
}

/// Returns the page, as man(1) reads it.
pub(super) fn page() -> Roff {
    let mut page = Roff::new();
    page.control("TH", ["hapax.toml", "5", "", concat!("hapax ", env!("CARGO_PKG_VERSION")), ""]);
    page.control("SH", ["NAME"]);
    page.text([roman("hapax.toml - the configuration of hapax(1)")]);
    page.control("SH", ["DESCRIPTION"]);
    let mut comment = Vec::new();
    let mut lines = FILE.lines().peekable();
    let mut has_keys = false;
    while let Some(line) = lines.next() {
        match kind(line, lines.peek().copied()) {
            // An empty comment line stands between paragraphs, and not at their begin.
            Line::Comment("") if comment.is_empty() => {}
            Line::Comment(text) => comment.push(text),
            Line::Blank => paragraphs(&mut page, take(&mut comment)),
            Line::Section(name) => {
                page.control("SH", [name]);
                paragraphs(&mut page, take(&mut comment));
                has_keys = true;
            }
            Line::Key { line, name } => {
                if !has_keys {
                    page.control("SH", ["TOP LEVEL"]);
                    has_keys = true;
                }
                page.control("TP", []);
                page.text([bold(name), roman(line.strip_prefix(name).unwrap_or_default())]);
                paragraphs(&mut page, take(&mut comment));
            }
        }
    }
    paragraphs(&mut page, comment);
    page.control("SH", ["FILES"]);
    page.control("TP", []);
    page.text([bold("/etc/hapax/hapax.toml")]);
    page.text([roman("the file that the service of the Debian package reads; hapax reads a file only if it is named by --config or HAPAX_CONFIG")]);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("hapax"), roman("(1), "), bold("hapax-check"), roman("(1)")]);
    page
}

fn kind<'a>(line: &'a str, next: Option<&str>) -> Line<'a> {
    let (commented, text) = match line.strip_prefix('#') {
        Some(text) => (true, text.strip_prefix(' ').unwrap_or(text)),
        None => (false, line),
    };
    if line.trim().is_empty() {
        return Line::Blank;
    }
    if is_header(text) {
        return Line::Section(text);
    }
    match key(text) {
        // Prose may begin like a key; a key that is commented out ends its block.
        Some(name) if !commented || ends(next) => Line::Key { line: text, name },
        _ => Line::Comment(text),
    }
}

/// Returns true if this line ends a block, or is a key or a section that is commented out.
fn ends(next: Option<&str>) -> bool {
    next.is_none_or(|line| {
        let text = line.trim_start_matches('#').trim();
        text.is_empty() || key(text).is_some() || is_header(text)
    })
}

/// Returns true for a line `[section]` or `[[section]]`.
fn is_header(text: &str) -> bool {
    let name = text.trim_start_matches('[').trim_end_matches(']');
    let brackets = text.len() - name.len();
    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'.');
    !name.is_empty() && is_name && (brackets == 2 || brackets == 4)
}

/// Returns the key of a line `key = value`.
fn key(text: &str) -> Option<&str> {
    let (name, _) = text.split_once(" = ")?;
    let is_key = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_key.then_some(name)
}

/// Adds a comment: lines of prose as one text, indented lines as they are, an empty comment line as a new paragraph.
fn paragraphs(page: &mut Roff, lines: Vec<&str>) {
    let mut verbatim = false;
    for line in lines {
        let indented = line.starts_with(' ');
        if indented != verbatim {
            // The paragraph keeps the indentation of a key.
            page.control("sp", []);
            page.control(if indented { "nf" } else { "fi" }, []);
            verbatim = indented;
        }
        if line.trim().is_empty() {
            page.control("sp", []);
        } else {
            page.text([Inline::from(line.to_owned())]);
        }
    }
    if verbatim {
        page.control("fi", []);
        page.control("sp", []);
    }
}
