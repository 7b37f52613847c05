//! Answers as CSV, for spreadsheets and scripts: `?format=csv`, or an `Accept` that names `text/csv`.
//!
//! A spreadsheet takes a cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return for a formula, and clients choose their own
//! names. Hapax writes an apostrophe in front of such a text, which spreadsheets do not show.

use super::Complaint;
use super::query::{Query, bad};
use crate::admin::complaint;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use std::convert::Infallible;
use std::fmt::Write as _;

/// The form of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Json,
    Csv,
}

impl Format {
    /// Returns the form that a request asks for. The query comes before the header.
    pub(super) fn asked(query: &Query, headers: &HeaderMap) -> Result<Format, Complaint> {
        match query.get("format") {
            Some(b"json") => return Ok(Format::Json),
            Some(b"csv") => return Ok(Format::Csv),
            Some(other) => {
                return Err(bad(format!("?format= is \"{}\"; write json or csv", other.escape_ascii())));
            }
            None => {}
        }
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kinds = accept.split(',').filter_map(|kind| kind.split(';').next()).map(str::trim);
        let first = kinds.into_iter().find(|kind| ["application/json", "text/csv"].contains(kind));
        Ok(if first == Some("text/csv") { Format::Csv } else { Format::Json })
    }
}

/// One cell.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Cell {
    /// whatever somebody has chosen
    Text(String),
    /// not known
    Empty,
    /// a number of ours
    Number(f64),
    /// a count of ours
    Count(u64),
}

impl Cell {
    pub(super) fn text(text: Option<impl Into<String>>) -> Cell {
        text.map_or(Cell::Empty, |text| Cell::Text(text.into()))
    }

    /// A value that the API writes as a word.
    pub(super) fn word(value: impl Serialize) -> Cell {
        match serde_json::to_value(value) {
            Ok(serde_json::Value::String(word)) => Cell::Text(word),
            _ => Cell::Empty,
        }
    }

    pub(super) fn number(number: Option<impl Into<f64>>) -> Cell {
        number.map(Into::into).filter(|number: &f64| number.is_finite()).map_or(Cell::Empty, Cell::Number)
    }

    pub(super) fn count(count: Option<impl Into<u64>>) -> Cell {
        count.map_or(Cell::Empty, |count| Cell::Count(count.into()))
    }

    fn write(&self, line: &mut String) {
        match self {
            Cell::Empty => {}
            // Writing to a string can't fail.
            Cell::Number(number) => _ = write!(line, "{number}"),
            Cell::Count(count) => _ = write!(line, "{count}"),
            Cell::Text(text) => {
                line.push('"');
                if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
                    line.push('\'');
                }
                line.push_str(&text.replace('"', "\"\""));
                line.push('"');
            }
        }
    }
}

/// Returns a line with these cells.
pub(super) fn line(cells: &[Cell]) -> String {
    let mut line = String::new();
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            line.push(',');
        }
        cell.write(&mut line);
    }
    line.push_str("\r\n");
    line
}

/// Returns the line with the names of the columns. They are ours.
pub(super) fn head(names: &[&str]) -> String {
    format!("{}\r\n", names.join(","))
}

/// Returns a body that is sent piece by piece: each piece is made when the one before it was taken.
pub(super) fn pieces<S: Send + 'static>(
    head: String,
    state: S,
    mut next: impl FnMut(&mut S) -> Option<String> + Send + 'static,
) -> Body {
    Body::from_stream(stream::unfold((Some(head), state), move |(head, mut state)| {
        let piece = head.or_else(|| next(&mut state));
        std::future::ready(piece.map(|piece| (Ok::<_, Infallible>(Bytes::from(piece)), (None, state))))
    }))
}

/// Answers with a file of this name, in [`pieces`].
pub(super) fn answer<S: Send + 'static>(
    name: &str,
    head: String,
    state: S,
    next: impl FnMut(&mut S) -> Option<String> + Send + 'static,
) -> Response {
    let Ok(disposition) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) else {
        return complaint::Complaint::new(StatusCode::INTERNAL_SERVER_ERROR, "no name for the file")
            .into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    (headers, pieces(head, state, next)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_never_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"] {
            let line = line(&[Cell::Text(text.to_owned())]);
            assert_eq!(line, format!("\"'{text}\"\r\n"));
        }
        let cells = [Cell::Text("a \"b\", c\r\nd".into()), Cell::Empty, Cell::Number(-1.5), Cell::Count(7)];
        assert_eq!(line(&cells), "\"a \"\"b\"\", c\r\nd\",,-1.5,7\r\n");
        assert_eq!(Cell::number(Some(f64::NAN)), Cell::Empty);
    }

    #[test]
    fn the_query_comes_before_the_header() {
        let format = |query: &str, accept: &str| {
            let uri = format!("/x?{query}").parse().unwrap();
            let query = Query::of(&uri, &["format"]).unwrap();
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            Format::asked(&query, &headers).ok()
        };
        assert_eq!(format("", "*/*"), Some(Format::Json));
        assert_eq!(format("", "text/csv"), Some(Format::Csv));
        assert_eq!(format("", "text/csv;q=0.9, */*"), Some(Format::Csv));
        assert_eq!(format("", "application/json, text/csv"), Some(Format::Json));
        assert_eq!(format("format=csv", "application/json"), Some(Format::Csv));
        assert_eq!(format("format=json", "text/csv"), Some(Format::Json));
        assert_eq!(format("format=xml", ""), None);
    }
}
