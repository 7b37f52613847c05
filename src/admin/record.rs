//! What a window judges, as it happens, for `hapax record`: lines of JSON, one for each publish, with its moment and its key.
//! The key is a digest with this process's own secret: no id leaves it.
//!
//! ```text
//! {"hapax_record":1,"window":"orders","started":"2026-11-24T22:18:07.123Z"}
//! {"time":0.001203400,"id":"35fee671960622b246923415e698f89a"}
//! …
//! {"end":{"events":1234,"dropped":0,"seconds":60.0}}
//! ```
//!
//! A client that reads too slowly loses publishes, and the last line says how many; the relay does not wait for it.

use crate::window::tap::{BUFFERED, RECORDERS, Sample};
use crate::window::{LocalWindow, Recorder, Window};
use axum::body::{Body, Bytes};
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// [`BUFFERED`] publishes in this time are more than a window can judge.
const TAKE_EVERY: Duration = Duration::from_millis(50);
/// Seconds without `seconds`.
const SECONDS: f64 = 60.0;
/// A day.
const SECONDS_MAX: f64 = 86_400.0;
/// Publishes without `max`: 70 MB.
const EVENTS: u64 = 1_000_000;
const EVENTS_MAX: u64 = 1_000_000_000;

/// How much is asked for.
#[derive(serde::Deserialize, Clone, Copy, Debug)]
pub(super) struct Wish {
    /// for so long
    seconds: Option<f64>,
    /// so many publishes at most
    max: Option<u64>,
}

impl Wish {
    /// Within bounds, or all that is wrong.
    fn check(self) -> Result<(Duration, u64), Vec<String>> {
        let (seconds, max) = (self.seconds.unwrap_or(SECONDS), self.max.unwrap_or(EVENTS));
        let mut wrong = Vec::new();
        if !(0.001..=SECONDS_MAX).contains(&seconds) {
            wrong.push(format!("`seconds` is {seconds}; write a number from 0.001 to {SECONDS_MAX}"));
        }
        if !(1..=EVENTS_MAX).contains(&max) {
            wrong.push(format!("`max` is {max}; write a number from 1 to {EVENTS_MAX}"));
        }
        if wrong.is_empty() { Ok((Duration::from_secs_f64(seconds), max)) } else { Err(wrong) }
    }
}

/// Why there is no recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// wrong bounds
    Wish(Vec<String>),
    /// there are too many already
    Busy(String),
}

/// The lines, until it is enough or nobody listens any more.
pub(super) fn lines(window: &Arc<LocalWindow>, wish: Wish) -> Result<Body, Refusal> {
    let (span, max) = wish.check().map_err(Refusal::Wish)?;
    let begin = Instant::now();
    let name = &window.rules().name;
    let recorder = window.record(begin.into_std()).ok_or_else(|| {
        Refusal::Busy(format!(
            "window {name:?} has {RECORDERS} recorders already: wait until one of them ends"
        ))
    })?;
    let tape = Tape { recorder, begin, end: begin + span, left: max, told: 0, samples: Vec::new() };
    let head = serde_json::json!({ "hapax_record": 1, "window": &**name, "started": started() });
    // serde_json sorts its keys: `hapax_record` stands first.
    let head = Stage::Head(format!("{head}\n"), tape);
    Ok(Body::from_stream(futures_util::stream::unfold(head, next)))
}

#[expect(clippy::disallowed_methods, reason = "the shell may say what time it is")]
fn started() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

enum Stage {
    Head(String, Tape),
    Running(Tape),
    Done,
}

async fn next(stage: Stage) -> Option<(Result<Bytes, Infallible>, Stage)> {
    let (text, stage) = match stage {
        Stage::Head(head, tape) => (head, Stage::Running(tape)),
        Stage::Running(tape) => tape.run().await,
        Stage::Done => return None,
    };
    Some((Ok(text.into()), stage))
}

struct Tape {
    recorder: Recorder,
    begin: Instant,
    end: Instant,
    left: u64,
    told: u64,
    samples: Vec<Sample>,
}

impl Tape {
    /// Waits until there is something to tell, or nothing will be any more.
    async fn run(mut self) -> (String, Stage) {
        loop {
            tokio::time::sleep_until(self.end.min(Instant::now() + TAKE_EVERY)).await;
            let over = Instant::now() >= self.end;
            self.recorder.take(&mut self.samples);
            self.samples.truncate(usize::try_from(self.left).unwrap_or(BUFFERED));
            let count = self.samples.len() as u64;
            (self.told, self.left) = (self.told + count, self.left - count);
            let mut text = String::with_capacity(self.samples.len() * 72 + 80);
            for Sample { at, key } in &self.samples {
                let (seconds, nanos) = (at.as_secs(), at.subsec_nanos());
                let _ = writeln!(text, "{{\"time\":{seconds}.{nanos:09},\"id\":\"{key:?}\"}}");
            }
            if over || self.left == 0 {
                let (dropped, seconds) = (self.recorder.dropped(), self.begin.elapsed().as_secs_f64());
                let end = serde_json::json!({ "end": { "events": self.told, "dropped": dropped, "seconds": seconds } });
                let _ = writeln!(text, "{end}");
                return (text, Stage::Done);
            }
            if !text.is_empty() {
                return (text, Stage::Running(self));
            }
        }
    }
}
