//! The log of this process: lines on stderr, as text or JSON. Logging never blocks, and a logged text can't forge a
//! line.
//!
//! ```text
//! event ── text ([`plain`]) ──┐
//!       └─ JSON ([`json`]) ──┴─ sink: bounded, in memory ── its own thread ── stderr
//! ```
//!
//! A thread that logs never waits. If nobody reads the pipe, lines are lost, but the relay goes on. Lost lines are
//! counted ([`lost`]), and the log says how many there were as soon as it can be written again.

mod escape;
mod json;
mod limiter;
mod plain;
mod sink;

#[cfg(any(test, feature = "tools"))]
pub(crate) use escape::{is_hidden, json};

pub(crate) use limiter::LogLimiter;

use crate::config::{LogFormat, LogSettings};
use escape::Escaped;
use json::JsonLine;
use parking_lot::Mutex;
use plain::Plain;
use sink::Sink;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// How long the process waits at its end for lines that are not written yet. A reader that is alive needs
/// milliseconds.
const LAST_LINES: Duration = Duration::from_secs(1);

static SINK: OnceLock<Sink> = OnceLock::new();
static LEVEL: OnceLock<SetFilter> = OnceLock::new();
/// What is logged now; `None`: this process has no log.
static PRESENT: Mutex<Option<String>> = Mutex::new(None);

/// Replaces the filter of a subscriber.
type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

/// The log of this process. Dropping it waits until all lines are written, for at most a second.
#[must_use = "dropping it ends the wait for the last lines"]
#[derive(Debug)]
pub struct Log(());

impl Log {
    /// Writes this text unchanged after all lines so far. It is the reason why the process ends.
    pub fn say(&self, text: &str) {
        if let Some(sink) = SINK.get() {
            sink.put(format!("{text}\n").as_bytes());
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        flush();
    }
}

/// Returns how many lines were lost since the process started, because nobody read the log or a write failed.
pub fn lost() -> u64 {
    SINK.get().map_or(0, Sink::lost)
}

/// Waits until all lines are written, for at most a second.
pub fn flush() {
    if let Some(sink) = SINK.get() {
        sink.flush(LAST_LINES);
    }
}

/// Starts logging to stderr. The form is text on a terminal and JSON otherwise, unless the configuration names one.
/// Panics are logged, too.
///
/// # Errors
///
/// Fails if the system can't start a thread, or if the process has a log already.
pub fn init(settings: &LogSettings) -> io::Result<Log> {
    let terminal = io::stderr().is_terminal();
    let sink = Sink::start(Stderr, |lines| {
        tracing::warn!(target: "hapax::log", lines, "log lines were lost: nobody read the log, or it could not be written");
    })?;
    let (subscriber, set_filter) = subscriber(settings, terminal, sink.clone());
    subscriber.try_init().map_err(io::Error::other)?;
    let _ = LEVEL.set(set_filter);
    *PRESENT.lock() = Some(settings.level.clone());
    // Only the first call gets here, because a second subscriber is an error.
    let _ = SINK.set(sink);
    std::panic::set_hook(Box::new(panicked));
    Ok(Log(()))
}

/// Changes what is logged, as `log.level` says it. The text is a filter that the configuration's check has accepted.
///
/// # Errors
///
/// Fails if the process has no log.
pub fn set_level(level: &str) -> Result<(), String> {
    let set_filter = LEVEL.get().ok_or_else(|| "this process has no log".to_owned())?;
    let mut present = PRESENT.lock();
    set_filter(filter(level)).map_err(|error| error.to_string())?;
    *present = Some(level.to_owned());
    Ok(())
}

/// Returns what is logged now, as `log.level` says it; `None` if the process has no log.
pub fn level() -> Option<String> {
    PRESENT.lock().clone()
}

/// Creates the subscriber that turns events into lines. `terminal` is true if a terminal shows them.
fn subscriber<W>(
    settings: &LogSettings,
    terminal: bool,
    writer: W,
) -> (Box<dyn Subscriber + Send + Sync>, SetFilter)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // The configuration's check has already parsed this filter, so it is valid.
    let filter = filter(&settings.level);
    let builder = tracing_subscriber::fmt()
        .with_ansi(terminal)
        // By default the library reports errors on stderr itself, and panics if that fails.
        .log_internal_errors(false);
    let json = match settings.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    if json {
        let builder = builder.event_format(JsonLine).with_writer(Escaped(writer));
        let builder = builder.with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        (Box::new(builder.finish()), Box::new(move |filter| handle.reload(filter)))
    } else {
        let builder = builder.fmt_fields(Plain).with_writer(writer);
        let builder = builder.with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        (Box::new(builder.finish()), Box::new(move |filter| handle.reload(filter)))
    }
}

/// The filter of this level. What the client library of the streams logs is said by the store itself, in its own words; it would also show whole
/// messages. Who names it in the level wants to read it.
fn filter(level: &str) -> EnvFilter {
    let filter = EnvFilter::builder().parse_lossy(level);
    match "lapin=off".parse() {
        Ok(directive) if !level.contains("lapin") => filter.add_directive(directive),
        _ => filter,
    }
}

/// Logs a panic. The default hook writes to stderr itself, and would block while nobody reads it.
fn panicked(info: &PanicHookInfo<'_>) {
    let what = info.payload_as_str().unwrap_or("a value that is no text");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        tracing::error!(target: "hapax::panic", what, place, thread, %trace, "a panic: please report this");
    } else {
        tracing::error!(target: "hapax::panic", what, place, thread, "a panic: please report this");
    }
}

/// Stderr without the lock of [`std::io::stderr`]: a write that blocks would also block everybody who waits for that
/// lock.
#[derive(Debug)]
struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        use rustix::event::{PollFd, PollFlags, poll};
        use rustix::io::Errno;
        let stderr = io::stderr();
        loop {
            match rustix::io::write(&stderr, bytes) {
                Err(Errno::INTR) => {}
                // Another process that shares this terminal or pipe may have made it non-blocking.
                Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                },
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
