//! The process's own log: lines to stderr, as text or JSON, that stand in nobody's way and that nobody can forge.
//!
//! ```text
//! event ── text ([`plain`]) ──┐
//!       └─ JSON ([`escape`]) ─┴─ sink: bounded, in memory ── its own thread ── stderr
//! ```
//!
//! Whoever logs never waits: a pipe that nobody reads costs lines, not the relay. Lines that were lost are counted
//! ([`lost`]) and told of in the log when it flows again.

mod escape;
mod plain;
mod sink;

pub(crate) use escape::{is_hidden, json};

use crate::config::{Log as Settings, LogFormat};
use escape::Escaped;
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
use tracing_subscriber::util::SubscriberInitExt;

/// How long the end of the process waits for what has not been written yet. Who reads the log does it in milliseconds.
const LAST_LINES: Duration = Duration::from_secs(1);

static SINK: OnceLock<Sink> = OnceLock::new();

/// The log of this process. Dropping it waits until all lines are written, for a second at most.
#[must_use = "dropping it ends the wait for the last lines"]
#[derive(Debug)]
pub struct Log(());

impl Log {
    /// Writes this text as it is, behind what was logged: the reason why the process ends.
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

/// Lines that were lost since the start of the process: nobody read the log, or it could not be written.
pub fn lost() -> u64 {
    SINK.get().map_or(0, Sink::lost)
}

/// Waits until all lines are written, for a second at most.
pub fn flush() {
    if let Some(sink) = SINK.get() {
        sink.flush(LAST_LINES);
    }
}

/// Logs to stderr from now on: text for a terminal, JSON otherwise, unless the configuration says which. Panics are
/// logged, too.
///
/// # Errors
///
/// The system gives no thread, or the process has a log already.
pub fn init(settings: &Settings) -> io::Result<Log> {
    let terminal = io::stderr().is_terminal();
    let sink = Sink::start(Stderr, |lines| {
        tracing::warn!(target: "hapax::log", lines, "log lines were lost: nobody read the log, or it could not be written");
    })?;
    subscriber(settings, terminal, sink.clone()).try_init().map_err(io::Error::other)?;
    // Only the first one gets here: a second subscriber is an error.
    let _ = SINK.set(sink);
    std::panic::set_hook(Box::new(panicked));
    Ok(Log(()))
}

/// What makes lines of events. `terminal` is whether a terminal shows them.
fn subscriber<W>(settings: &Settings, terminal: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // The filter has been parsed once, by the configuration's check.
    let filter = EnvFilter::builder().parse_lossy(&settings.level);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(terminal)
        // The default complains to stderr itself, and panics when it can't.
        .log_internal_errors(false);
    let json = match settings.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    if json {
        Box::new(builder.json().flatten_event(true).with_writer(Escaped(writer)).finish())
    } else {
        Box::new(builder.fmt_fields(Plain).with_writer(writer).finish())
    }
}

/// The default hook writes to stderr itself, and would wait for whoever reads it.
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

/// Stderr without the lock of [`std::io::stderr`], which others would wait for while a write does not end.
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
                // Whoever has the other end of a terminal or a pipe may have made it so.
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
