//! `/api/v1/journal` and `/api/v1/history`: the last entries of the journal, and an hour of samples.

use super::Complaint;
use super::csv::{self, Cell, Format};
use super::query::Query;
use crate::admin::Admin;
use crate::admin::clock::Now;
use crate::admin::complaint::ComplaintBody;
use crate::admin::history::{self, Sample};
use crate::admin::journal::{Entry, KEPT, Kind};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use hapax_core::pressure::Level;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

/// Entries of the journal if the request does not say how many.
const ENTRIES: usize = 100;

/// The journal.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Journal {
    /// oldest first
    entries: Vec<JournalEntry>,
    /// the number of the newest entry that there is
    last: u64,
}

/// One thing that has happened.
#[derive(Debug, Serialize, ToSchema)]
struct JournalEntry {
    /// counts from 1 since the start of the process
    number: u64,
    /// when it happened
    at: String,
    kind: Kind,
    /// the window that it is about; null: none
    window: Option<String>,
    /// what happened, in words
    text: String,
    /// who did it; null: nobody, it has happened
    by: Option<String>,
}

impl From<Entry> for JournalEntry {
    fn from(entry: Entry) -> JournalEntry {
        let Entry { number, at, kind, window, text, by } = entry;
        JournalEntry { number, at: humantime::format_rfc3339_millis(at).to_string(), kind, window, text, by }
    }
}

/// Show the last events of the relay, and who caused them
///
/// The newest 500 entries are kept. A restart forgets them; the log has all of them.
#[utoipa::path(get, path = "/api/v1/journal", tag = "process", security(("token" = [])),
    params(("after" = Option<u64>, Query, description = "only entries with larger numbers (0)"),
        ("limit" = Option<usize>, Query, description = "the newest entries, up to 500 (100)")),
    responses((status = 200, body = Journal), (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody)))]
pub(super) async fn journal(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Json<Journal>, Complaint> {
    let query = Query::of(&uri, &["after", "limit"])?;
    let after = query.number("after", 0, usize::MAX)? as u64;
    let entries = admin.journal.after(after, query.number("limit", ENTRIES, KEPT)?);
    let last = admin.journal.last();
    Ok(Json(Journal { entries: entries.into_iter().map(JournalEntry::from).collect(), last }))
}

/// The last hour.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History {
    /// seconds between two samples
    every_seconds: u64,
    /// in the order of the configuration
    windows: Vec<WindowHistory>,
}

/// The last hour of a window.
#[derive(Debug, Serialize, ToSchema)]
struct WindowHistory {
    name: String,
    /// oldest first
    samples: Vec<HistorySample>,
}

/// A window at one moment.
#[derive(Debug, Serialize, ToSchema)]
struct HistorySample {
    at: String,
    /// how long ago that is
    ago_seconds: f64,
    /// fresh publishes per second
    fresh: f32,
    /// duplicates per second
    duplicate: f32,
    /// escaped duplicates per second
    escaped: f32,
    pressure: Option<f32>,
    coverage: f32,
    /// ids remembered
    entries: Option<u32>,
    capacity: Option<u32>,
    level: Level,
}

impl HistorySample {
    fn of(at: Instant, sample: &Sample, now: &Now) -> HistorySample {
        HistorySample {
            at: now.iso(at),
            ago_seconds: now.since(at),
            fresh: sample.fresh,
            duplicate: sample.duplicate,
            escaped: sample.escaped,
            pressure: sample.pressure(),
            coverage: sample.coverage,
            entries: sample.entries(),
            capacity: sample.capacity(),
            level: sample.level(),
        }
    }

    fn cells(self, window: &str) -> [Cell; 10] {
        [
            Cell::Text(window.to_owned()),
            Cell::Text(self.at),
            Cell::number(Some(self.fresh)),
            Cell::number(Some(self.duplicate)),
            Cell::number(Some(self.escaped)),
            Cell::number(self.pressure),
            Cell::number(Some(self.coverage)),
            Cell::count(self.entries),
            Cell::count(self.capacity),
            Cell::word(self.level),
        ]
    }
}

const COLUMNS: [&str; 10] =
    ["window", "at", "fresh", "duplicate", "escaped", "pressure", "coverage", "entries", "capacity", "level"];

/// Show the last hour of one window, or of all: a sample every ten seconds
#[utoipa::path(get, path = "/api/v1/history", tag = "windows", security(("token" = [])),
    params(("window" = Option<String>, Query, description = "only this window"),
        ("format" = Option<String>, Query, description = "`json` or `csv`; otherwise what Accept names (json)")),
    responses((status = 200, content((History = "application/json"), (String = "text/csv"))),
        (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody),
        (status = 404, body = ComplaintBody)))]
pub(super) async fn history(
    State(admin): State<Arc<Admin>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Complaint> {
    let query = Query::of(&uri, &["window", "format"])?;
    let format = Format::asked(&query, &headers)?;
    let mut names: Vec<String> =
        admin.all_windows().map(|window| window.configured.rules.name.to_string()).collect();
    if let Some(name) = query.get("window") {
        let name = String::from_utf8_lossy(name).into_owned();
        admin.find(&name)?;
        names = vec![name];
    }
    let now = Now::read();
    let samples = move |admin: &Admin, name: &str| {
        let samples = admin.history.of(name);
        samples.into_iter().map(|(at, sample)| HistorySample::of(at, &sample, &now)).collect::<Vec<_>>()
    };
    // One window after the other, so that no answer is held in memory as a whole.
    let mut names = names.into_iter();
    if format == Format::Csv {
        return Ok(csv::answer("hapax-history.csv", csv::head(&COLUMNS), admin, move |admin| {
            let name = names.next()?;
            Some(samples(admin, &name).into_iter().map(|sample| csv::line(&sample.cells(&name))).collect())
        }));
    }
    let head = format!("{{\"every_seconds\":{},\"windows\":[", history::EVERY.as_secs());
    let mut before = "";
    // The last piece is the end.
    let mut names = names.map(Some).chain([None]);
    let pieces = csv::pieces(head, admin, move |admin| {
        let Some(name) = names.next()? else { return Some("]}".to_owned()) };
        let window = WindowHistory { samples: samples(admin, &name), name };
        let text = serde_json::to_string(&window).unwrap_or_else(|_| "null".to_owned());
        Some(format!("{}{text}", std::mem::replace(&mut before, ",")))
    });
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((json, pieces).into_response())
}
