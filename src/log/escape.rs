//! Escapes characters that control a terminal, that end a line, or that are invisible. Strangers choose texts that are
//! logged (ids, paths, names), so such characters must not get into the log.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::io;
use tracing_subscriber::fmt::MakeWriter;

/// Returns true for characters that control a terminal (C1), that reverse the direction of text (bidi), or that take
/// no room and make two different names look the same. ASCII control characters are not among them.
pub(crate) fn is_hidden(c: char) -> bool {
    matches!(c, '\u{80}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

fn is_harmful(c: char) -> bool {
    c.is_ascii_control() || is_hidden(c)
}

/// Writes a text with its harmful characters escaped as in Rust: `\n`, `\u{1b}`.
pub(super) fn escaped(out: &mut impl Write, text: &str) -> fmt::Result {
    for c in text.chars() {
        if is_harmful(c) { write!(out, "{}", Rust(c))? } else { out.write_char(c)? }
    }
    Ok(())
}

/// Writes a text in quotes, so that its end is visible.
pub(super) fn quoted(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            c if is_harmful(c) => write!(out, "{}", Rust(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

/// Writes a text, in quotes only if it could be read as more than one value.
pub(super) fn value(out: &mut impl Write, text: &str) -> fmt::Result {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\\' | '=') && !is_harmful(c);
    if !text.is_empty() && text.chars().all(plain) { out.write_str(text) } else { quoted(out, text) }
}

struct Rust(char);

impl fmt::Display for Rust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            '\n' => f.write_str("\\n"),
            '\r' => f.write_str("\\r"),
            '\t' => f.write_str("\\t"),
            c => write!(f, "\\u{{{:x}}}", c as u32),
        }
    }
}

/// Escapes the harmful characters of a JSON text. They can only occur inside strings, so the document stays the same.
pub(crate) fn json(line: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| c == '\x7f' || is_hidden(c);
    if !line.contains(is_harmful) {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len() + 64);
    let mut units = [0; 2];
    for c in line.chars() {
        if is_harmful(c) {
            for unit in c.encode_utf16(&mut units) {
                // Writing to a String can't fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A writer for JSON lines. The JSON library escapes the ASCII control characters, and this escapes the rest.
#[derive(Debug)]
pub(super) struct Escaped<W>(pub(super) W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Escaped<W> {
    type Writer = Escaped<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Escaped(self.0.make_writer())
    }
}

impl<W: io::Write> io::Write for Escaped<W> {
    /// The formatter passes a whole line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) => self.0.write_all(json(text).as_bytes())?,
            Err(_) => self.0.write_all(line.escape_ascii().to_string().as_bytes())?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(write: impl Fn(&mut String, &str) -> fmt::Result, text: &str) -> String {
        let mut out = String::new();
        write(&mut out, text).unwrap();
        out
    }

    #[test]
    fn nothing_harmful_is_left() {
        for c in ('\0'..=char::MAX).filter(|c| is_harmful(*c)) {
            let text = format!("a{c}b");
            for out in [made(escaped, &text), made(quoted, &text), made(value, &text)] {
                assert!(!out.contains(is_harmful), "{c:?} in {out:?}");
            }
        }
    }

    #[test]
    fn a_value_ends_where_it_is_seen_to_end() {
        for (text, shown) in [
            ("127.0.0.1:5672", "127.0.0.1:5672"),
            ("注文-1", "注文-1"),
            ("", "\"\""),
            ("x forgotten=true", "\"x forgotten=true\""),
            ("a=b", "\"a=b\""),
            ("a\nb", "\"a\\nb\""),
            ("a\\nb", "\"a\\\\nb\""),
            ("\" b=\"", "\"\\\" b=\\\"\""),
            ("\x1b[2J\u{9b}2J\u{202e}", "\"\\u{1b}[2J\\u{9b}2J\\u{202e}\""),
            ("a\u{a0}b", "\"a\u{a0}b\""),
        ] {
            assert_eq!(made(value, text), shown, "{text:?}");
        }
    }

    #[test]
    fn json_stays_the_same_document() {
        let document = serde_json::json!({"id": "a\u{9b}2J\u{202e}\x1b\u{7f}\n\u{e0041}", "ü": "注文"});
        let text = document.to_string();
        let out = json(&text);
        assert!(!out.contains(is_harmful), "{out:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), document);
        assert!(matches!(json("{\"id\":\"a\"}\n"), Cow::Borrowed(_)), "a line's own end stays");
    }
}
