//! `/api/v1/windows/{name}/record`: streams each publish that a window judges, for `hapax record`. The stream is JSON,
//! one line per publish with its time and its key. The key is a digest with a secret of this process, so no id leaves
//! the relay.
//!
//! ```text
//! {"hapax_record":1,"setting":{"capacity":1000000,"ttl_seconds":600.0},"started":"2026-11-24T22:18:07.123Z","window":"orders"}
//! {"time":0.001203400,"id":"35fee671960622b246923415e698f89a"}
//! …
//! {"end":{"events":1234,"dropped":0,"seconds":60.0}}
//! ```
//!
//! The relay never waits for a client. A client that reads too slowly loses publishes, and the last line says how
//! many.

use super::query::{Query, bad};
use crate::admin::Admin;
use crate::admin::auth::Caller;
use crate::admin::clock::Now;
use crate::admin::complaint::{Complaint, ComplaintBody};
use crate::config::number;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hapax_core::window::Recorder;
use hapax_core::window::tap::{RECORDERS, Sample};
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often the recorder is emptied. It holds more ([`BUFFERED`](hapax_core::window::tap::BUFFERED)) than a window
/// can judge in this time.
const TAKE_EVERY: Duration = Duration::from_millis(50);
/// Length of a recording in seconds, if the request does not say `seconds`.
const SECONDS: f64 = 60.0;
/// The longest recording: a day.
const SECONDS_MAX: f64 = 86_400.0;
/// The most publishes in a recording if the request does not say `max`. That is 70 MB.
const EVENTS: usize = 1_000_000;
const EVENTS_MAX: usize = 1_000_000_000;
/// The content type: one JSON document per line.
const NDJSON: &str = "application/x-ndjson";

/// Record what a window judges, as it happens
///
/// One line of JSON per publish: `time` in seconds since the recording began, and `id`, a digest with a secret of the
/// process. The first line has the key `hapax_record`, the last line `end`: how many publishes there were and how many
/// were lost because the client read too slowly.
#[utoipa::path(get, path = "/api/v1/windows/{name}/record", tag = "windows", security(("token" = [])),
    params(("name" = String, Path, description = "the window's name"),
        ("seconds" = Option<f64>, Query, description = "length in seconds (60)"),
        ("max" = Option<u64>, Query, description = "the most publishes (1000000)")),
    responses((status = 200, body = String, content_type = NDJSON), (status = 400, body = ComplaintBody),
        (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody), (status = 404, body = ComplaintBody),
        (status = 503, body = ComplaintBody)))]
pub(super) async fn stream(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Complaint> {
    let query = Query::of(&uri, &["seconds", "max"])?;
    let span = seconds(&query)?;
    let left = query.number("max", EVENTS, EVENTS_MAX)?.max(1);
    let window = &admin.find(&name)?.watched.window;
    let now = Now::read();
    let recorder = window.record(now.instant).ok_or_else(|| {
        let text = format!("window {name:?} is recorded by {RECORDERS} already: wait until one of them ends");
        Complaint::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    tracing::info!(target: "hapax::admin", peer = %caller, by = caller.by, window = name, seconds = span.as_secs_f64(), "being recorded");
    let begin = Instant::from_std(now.instant);
    let recording = Recording { recorder, begin, end: begin + span, left, sent: 0, samples: Vec::new() };
    // serde_json sorts keys, so `hapax_record` comes first.
    let setting = window.capacity().map(
        |capacity| serde_json::json!({ "capacity": capacity, "ttl_seconds": window.ttl().as_secs_f64() }),
    );
    let head = serde_json::json!({ "hapax_record": 1, "setting": setting, "window": name, "started": now.iso(now.instant) });
    let lines = futures_util::stream::unfold(StreamState::Head(format!("{head}\n"), recording), next);
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response())
}

fn seconds(query: &Query) -> Result<Duration, Complaint> {
    let Some(value) = query.get("seconds") else { return Ok(Duration::from_secs_f64(SECONDS)) };
    let span = std::str::from_utf8(value).ok().and_then(number::duration);
    span.filter(|span| (0.001..=SECONDS_MAX).contains(&span.as_secs_f64())).ok_or_else(|| {
        bad(format!("?seconds= is \"{}\"; write a number from 0.001 to {SECONDS_MAX}", value.escape_ascii()))
    })
}

enum StreamState {
    Head(String, Recording),
    Running(Recording),
    Done,
}

async fn next(stage: StreamState) -> Option<(Result<Bytes, Infallible>, StreamState)> {
    let (text, stage) = match stage {
        StreamState::Head(head, recording) => (head, StreamState::Running(recording)),
        StreamState::Running(recording) => recording.run().await,
        StreamState::Done => return None,
    };
    Some((Ok(text.into()), stage))
}

struct Recording {
    recorder: Recorder,
    begin: Instant,
    end: Instant,
    left: usize,
    sent: usize,
    samples: Vec<Sample>,
}

impl Recording {
    /// Waits until there are publishes to send or the recording is over. Returns the next lines.
    async fn run(mut self) -> (String, StreamState) {
        loop {
            tokio::time::sleep_until(self.end.min(Instant::now() + TAKE_EVERY)).await;
            let over = Instant::now() >= self.end;
            self.recorder.take(&mut self.samples);
            self.samples.truncate(self.left);
            let count = self.samples.len();
            (self.sent, self.left) = (self.sent + count, self.left - count);
            let mut text = String::with_capacity(self.samples.len() * 72 + 80);
            for Sample { at, key } in &self.samples {
                let (seconds, nanos) = (at.as_secs(), at.subsec_nanos());
                let _ = writeln!(text, "{{\"time\":{seconds}.{nanos:09},\"id\":\"{key:?}\"}}");
            }
            if over || self.left == 0 {
                let (dropped, seconds) = (self.recorder.dropped(), self.begin.elapsed().as_secs_f64());
                let end = serde_json::json!({ "end": { "events": self.sent, "dropped": dropped, "seconds": seconds } });
                let _ = writeln!(text, "{end}");
                return (text, StreamState::Done);
            }
            if !text.is_empty() {
                return (text, StreamState::Running(self));
            }
        }
    }
}
