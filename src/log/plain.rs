//! Formats the fields of a text line as `name=value`. Each value is escaped, and is in quotes if it could be read as
//! more than one value. The library's own formatter would write values that are logged with `%` unchanged, so an id
//! with a line end would begin a new line.

use super::escape::{escaped, quoted, value};
use std::fmt::{self, Debug};
use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// The formatter for the fields of a text line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain;

impl<'w> FormatFields<'w> for Plain {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line { writer, first: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'w> {
    writer: Writer<'w>,
    first: bool,
    result: fmt::Result,
}

impl Line<'_> {
    /// Writes a space, and the field's name unless the field is the message.
    fn begin(&mut self, field: &Field) -> fmt::Result {
        if !std::mem::replace(&mut self.first, false) {
            self.writer.write_char(' ')?;
        }
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        match name {
            MESSAGE => Ok(()),
            // Write the name in italics and a faint equals sign.
            name if self.writer.has_ansi_escapes() => {
                write!(self.writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")
            }
            name => write!(self.writer, "{name}="),
        }
    }

    fn put(&mut self, field: &Field, write: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        // Events of the `log` crate name their origin a second time in fields that begin with `log.`.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.begin(field).and_then(|()| write(&mut self.writer));
        }
    }
}

const MESSAGE: &str = "message";

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, text: &str) {
        let message = field.name() == MESSAGE;
        self.put(field, |out| if message { escaped(out, text) } else { quoted(out, text) });
    }

    fn record_debug(&mut self, field: &Field, shown: &dyn Debug) {
        let (message, text) = (field.name() == MESSAGE, format!("{shown:?}"));
        self.put(field, |out| if message { escaped(out, &text) } else { value(out, &text) });
    }
}
