//! Writes an event as one JSON object, with each key once: `timestamp`, `level`, `target`, `message`, and the event's
//! fields. A field whose name is taken already gets an underscore at its end. Numbers and truth values stay what they are.
//!
//! The library's own formatter writes a key twice if a field is named `level` or `target`.

use serde::Serializer as _;
use serde_json::Value;
use std::fmt::{self, Debug};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The formatter of JSON lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let metadata = event.metadata();
        let mut line = Line(Vec::new());
        line.put("timestamp", time.into());
        line.put("level", metadata.level().as_str().into());
        line.put("target", metadata.target().into());
        event.record(&mut line);
        let mut text = Vec::new();
        serde_json::Serializer::new(&mut text).collect_map(line.0).map_err(|_| fmt::Error)?;
        writeln!(writer, "{}", str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// The keys and values, in order.
struct Line(Vec<(String, Value)>);

impl Line {
    fn put(&mut self, name: &str, value: Value) {
        let name = name.strip_prefix("r#").unwrap_or(name);
        // Events of the `log` crate name their origin a second time in fields that begin with `log.`.
        if name.starts_with("log.") {
            return;
        }
        let mut key = name.to_owned();
        while self.0.iter().any(|(taken, _)| *taken == key) {
            key.push('_');
        }
        self.0.push((key, value));
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity. It is null.
        self.put(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field.name(), format!("{value:?}").into());
    }
}
