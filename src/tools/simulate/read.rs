//! A trace from a file: CSV, JSON lines, or what `hapax record` wrote (which is JSON lines with a first and a last line
//! that say what it is).
//!
//! Everything is read to the end, so that all lines that will not do are counted; the first few are kept with their
//! numbers. Times may run backwards a little (several writers, one log): such events are put in their place. One that is
//! later than [`Options::reorder`] is a line that will not do.

use super::time::TimeUnit;
use super::trace::TraceBuilder;
use crate::tools::text::parse_duration;
use serde::Deserialize;
use serde_json::Value;
use std::io::{self, BufRead, Read};
use std::time::Duration;

/// Lines that are shown.
const SHOWN: usize = 5;
/// A line that is longer is no event.
const LINE_MAX: u64 = 1 << 20;
/// Some editors write this in front of the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a trace is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// what times are; none = found out by the first one
    pub unit: Option<TimeUnit>,
    /// how late an event may stand
    pub reorder: Duration,
}

/// What was read.
#[derive(Debug)]
pub struct Input {
    /// the events
    pub trace: TraceBuilder,
    /// what their times are; none if there was none
    pub unit: Option<TimeUnit>,
    /// events without an id: a relay does not judge them
    pub without_id: u64,
    /// lines that will not do
    pub bad: BadLines,
    /// what a recording says of itself, if it is one
    pub recording: Option<Recording>,
    /// the setting of the window while it was recorded
    pub present: Option<Present>,
}

/// A window's setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Present {
    /// ids that it has room for
    pub capacity: usize,
    /// how long it remembers them
    pub ttl: Duration,
}

/// How well the recording went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recording {
    /// it was written to its end; the relay had no place for `dropped` events
    Whole {
        /// events that are missing
        dropped: u64,
    },
    /// its last line is missing
    Cut,
}

/// Lines that will not do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BadLines {
    /// how many
    pub count: u64,
    /// the first of them: number, and what is wrong
    pub first: Vec<(u64, String)>,
}

impl BadLines {
    fn add(&mut self, line: u64, what: String) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push((line, what));
        }
    }
}

/// Reads to the end.
pub fn read(mut input: impl BufRead, options: Options) -> io::Result<Input> {
    let mut reader = Reader {
        unit: options.unit,
        options,
        form: None,
        trace: TraceBuilder::new(),
        without_id: 0,
        bad: BadLines::default(),
        recording: None,
        present: None,
    };
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        // A recording that was cut off may end within a line. The report says that it was cut off.
        if reader.recording == Some(Recording::Cut) && !line.ends_with(b"\n") {
            break;
        }
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line).trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if let Err(what) = reader.line(line) {
            reader.bad.add(number, what);
        }
    }
    let Reader { trace, unit, without_id, bad, recording, present, .. } = reader;
    Ok(Input { trace, unit, without_id, bad, recording, present })
}

struct Reader {
    options: Options,
    unit: Option<TimeUnit>,
    /// known from the first line on
    form: Option<Form>,
    trace: TraceBuilder,
    without_id: u64,
    bad: BadLines,
    recording: Option<Recording>,
    present: Option<Present>,
}

#[derive(Clone, Copy)]
enum Form {
    Json,
    Csv(Columns),
}

/// A line of JSON: an event, or what a recording says of itself.
#[derive(Deserialize)]
struct JsonLine {
    #[serde(alias = "timestamp", alias = "ts")]
    time: Option<Value>,
    #[serde(alias = "message_id", alias = "message-id")]
    id: Option<Value>,
    ttl: Option<Value>,
    producer: Option<Value>,
    #[serde(alias = "sequence")]
    number: Option<Value>,
    hapax_record: Option<u32>,
    setting: Option<JsonSetting>,
    end: Option<JsonEnd>,
}

#[derive(Deserialize)]
struct JsonSetting {
    capacity: usize,
    ttl_seconds: f64,
}

#[derive(Deserialize)]
struct JsonEnd {
    dropped: u64,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        match self.form {
            Some(Form::Json) => self.json_line(line),
            Some(Form::Csv(columns)) => self.csv_line(line, columns),
            None if line.starts_with(b"{") => {
                self.form = Some(Form::Json);
                self.json_line(line)
            }
            None => {
                let header = Columns::of_header(&fields(line)?);
                let columns = header.unwrap_or_default();
                self.form = Some(Form::Csv(columns));
                if header.is_some() { Ok(()) } else { self.csv_line(line, columns) }
            }
        }
    }

    fn json_line(&mut self, line: &[u8]) -> Result<(), String> {
        let line: JsonLine = serde_json::from_slice(line)
            .map_err(|error| format!("this is no JSON object with \"time\" and \"id\": {error}"))?;
        if line.hapax_record.is_some() {
            self.recording = Some(Recording::Cut);
            self.present = line.setting.and_then(|JsonSetting { capacity, ttl_seconds }| {
                let ttl = Duration::try_from_secs_f64(ttl_seconds).ok()?;
                (capacity > 0 && !ttl.is_zero()).then_some(Present { capacity, ttl })
            });
            return Ok(());
        }
        if let Some(JsonEnd { dropped }) = line.end {
            self.recording = Some(Recording::Whole { dropped });
            return Ok(());
        }
        let time = scalar(line.time.as_ref(), "time")?.ok_or("it has no \"time\"")?;
        let id = scalar(line.id.as_ref(), "id")?.unwrap_or_default();
        let ttl = scalar(line.ttl.as_ref(), "ttl")?.unwrap_or_default();
        let producer = scalar(line.producer.as_ref(), "producer")?.unwrap_or_default();
        let number = scalar(line.number.as_ref(), "number")?.unwrap_or_default();
        self.event(&time, id.as_bytes(), &ttl, (producer.as_bytes(), &number))
    }

    fn csv_line(&mut self, line: &[u8], columns: Columns) -> Result<(), String> {
        let fields = fields(line)?;
        let field = |place: usize| fields.get(place).unwrap_or_default();
        let text = |place: usize| std::str::from_utf8(field(place)).unwrap_or("\u{fffd}");
        let needed = [columns.time, columns.id].into_iter().filter(|column| *column < usize::MAX).max();
        if needed.is_some_and(|needed| fields.len() <= needed) {
            return Err(format!("it has {} column(s), but time and id are needed", fields.len()));
        }
        let ttl = columns.ttl.map(text).unwrap_or_default();
        let (producer, number) =
            columns.number.map_or((&b""[..], ""), |(producer, number)| (field(producer), text(number)));
        self.event(text(columns.time), field(columns.id), ttl, (producer, number))
    }

    fn event(&mut self, time: &str, id: &[u8], ttl: &str, number: (&[u8], &str)) -> Result<(), String> {
        let unit = match self.unit {
            Some(unit) => unit,
            None => {
                let guess = TimeUnit::guess(time).ok_or_else(|| {
                    format!("{time:?} is no time: write seconds, milliseconds or ISO 8601, as in 2026-11-24T22:18:07Z")
                })?;
                *self.unit.insert(guess)
            }
        };
        let at = unit
            .parse(time)
            .ok_or_else(|| format!("{time:?} is no time in the unit {:?} of this trace", unit.name()))?;
        let ttl = if ttl.is_empty() { None } else { Some(parse_ttl(ttl)?) };
        let number = match number {
            ([], _) | (_, "") => None,
            (producer, number) => {
                Some((producer, number.parse().map_err(|_| format!("{number:?} is no number of a message"))?))
            }
        };
        // The number is an id, too.
        let made = number
            .map(|(producer, number): (&[u8], u64)| [producer, b"/", number.to_string().as_bytes()].concat());
        let id = if id.is_empty() { made.as_deref().unwrap_or_default() } else { id };
        if id.is_empty() {
            self.without_id += 1;
            return Ok(());
        }
        let late = self.trace.newest().map_or(0, |newest| newest.saturating_sub(at));
        if late > i128::try_from(self.options.reorder.as_nanos()).unwrap_or(i128::MAX) {
            let seconds = u64::try_from(late / 1_000_000_000).unwrap_or(u64::MAX).saturating_add(1);
            let late = humantime::format_duration(Duration::from_secs(seconds));
            return Err(format!(
                "its time lies before that of an earlier line, by up to {late}; --reorder '{late}' sorts it in"
            ));
        }
        match number {
            Some(number) => self.trace.push_number(at, id, ttl, number),
            None => self.trace.push(at, id, ttl),
        }
        Ok(())
    }
}

/// The fields of a line of CSV, without the blanks around them.
fn fields(line: &[u8]) -> Result<csv::ByteRecord, String> {
    if !line.contains(&b'"') {
        return Ok(line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).collect());
    }
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(line);
    let mut record = csv::ByteRecord::new();
    match reader.read_byte_record(&mut record) {
        Ok(_) => Ok(record),
        Err(error) => Err(format!("this is no CSV: {error}")),
    }
}

/// Where things stand in a line of CSV.
#[derive(Clone, Copy)]
struct Columns {
    time: usize,
    id: usize,
    ttl: Option<usize>,
    /// the producer, and its number
    number: Option<(usize, usize)>,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns { time: 0, id: 1, ttl: Some(2), number: None }
    }
}

impl Columns {
    fn of_header(record: &csv::ByteRecord) -> Option<Columns> {
        let find = |names: &[&str]| {
            record
                .iter()
                .position(|field| names.iter().any(|name| field.eq_ignore_ascii_case(name.as_bytes())))
        };
        let time = find(&["time", "timestamp", "ts"])?;
        let number = find(&["producer"]).zip(find(&["number", "sequence"]));
        // Without a column of ids, the numbers are the ids; a column that is never there is empty.
        let id = find(&["id", "message_id", "message-id"]).or(number.map(|_| usize::MAX))?;
        Some(Columns { time, id, ttl: find(&["ttl"]), number })
    }
}

/// A string or a number, as text.
fn scalar(value: Option<&Value>, name: &str) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(format!("\"{name}\" must be a string or a number")),
    }
}

/// A duration; a number without a unit counts seconds.
fn parse_ttl(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|fix| format!("{text:?} is no TTL: {fix}"))
}
