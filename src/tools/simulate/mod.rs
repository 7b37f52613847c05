//! `hapax simulate`: how large, how long? A trace, or a made-up workload, through the real engines, for a grid of capacities
//! and TTLs, before anybody deploys anything.
//!
//! ```text
//!  file ── read ──┐                      ┌─ report (tables, JSON)
//!                 ├─► Trace ─► study ────┤
//!  made up: synth ┘            │         └─ plot (SVG)
//!                              └─ replay, once for each cell; restarts: with and without a store; sequences
//! ```
//!
//! [`mod@replay`] says exactly what is counted.

mod args;
mod plot;
mod read;
mod replay;
mod report;
mod restarts;
mod sequences;
mod study;
mod synth;
mod time;
mod trace;

pub use crate::tools::text::Share;
pub use args::SimulateArgs;
pub use read::{BadLines, Input, Options, Present, Recording, read};
pub use replay::{Outcome, Setting, Unlimited, bytes_when_full, replay};
pub use restarts::{Comparison, Keeps, Restarted, Restarts, compare};
pub use sequences::{Row, Sequences, sequences};
pub use study::{Cell, Grid, Progress, Study, Terms, study};
pub use synth::{Delay, Ids, Synthetic};
pub use time::TimeUnit;
pub use trace::{Trace, TraceBuilder};

use indicatif::{ProgressBar, ProgressStyle};
use report::{About, Report};
use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

const STYLE: &str = "  {msg} {bar:40} {percent:>3} %  {per_sec}  {eta} left";

/// Why there is no result. Its text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// the file can't be opened or read
    #[error(
        "the trace {name} can't be read: {source}\n    fix: name a readable file, or - for standard input"
    )]
    Read {
        /// which
        name: String,
        /// why
        source: io::Error,
    },
    /// there are lines that will not do
    #[error(
        "{name}: {count} of its lines can't be used\n{lines}    fix: correct them, or leave them out with --skip-bad"
    )]
    Bad {
        /// of which file
        name: String,
        /// how many
        count: u64,
        /// the first of them
        lines: String,
    },
    /// there is nothing in it
    #[error(
        "{name}: there is no event in it\n    fix: a trace is CSV or JSON lines with a time and an id; see hapax simulate --help"
    )]
    Empty {
        /// which
        name: String,
    },
    /// the plot can't be written
    #[error(
        "the plot {path} can't be written: {what}\n    fix: name a file in a folder that exists and can be written to"
    )]
    Plot {
        /// where
        path: PathBuf,
        /// why
        what: String,
    },
    /// the result can't be written
    #[error("the result can't be written: {0}")]
    Output(io::Error),
}

/// Does what it is asked for, result to stdout.
pub fn run(args: &SimulateArgs) -> Result<(), Error> {
    let begin = now();
    let (trace, about) = obtain(args)?;
    let present = args.present(about.present);
    let about = About { present: Some(present), ..about };
    let (capacities, ttls) = (args.capacities.clone(), args.ttls.clone());
    let grid = Grid::around(&trace, capacities, ttls, Some(present), args.refresh_on_duplicate);
    let Share(target) = args.target;
    let terms = Terms { engine: args.engine, refresh_on_duplicate: args.refresh_on_duplicate, target };
    let threads =
        args.threads.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZero::<usize>::MIN);
    let study = if io::stderr().is_terminal() {
        study(&trace, &grid, terms, threads, &Bar::new())
    } else {
        study(&trace, &grid, terms, threads, &())
    };
    if let Some(path) = &args.plot {
        write_plot(path, &study, &trace, &about)?;
    }
    let restarts = args.restart_every.map(|every| {
        let setting = terms.setting(present.capacity, present.ttl);
        compare(&trace, setting, every, args.remember_delay, threads)
    });
    let sequences = sequences(&trace, present.ttl);
    let report = Report {
        about,
        trace: &trace,
        study: &study,
        restarts: restarts.as_ref(),
        sequences: sequences.as_ref(),
        took: now().duration_since(begin),
    };
    let text = if args.json { format!("{:#}", report.json()) } else { report.text() };
    match writeln!(io::stdout(), "{text}") {
        // Nobody reads on (`hapax simulate | head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::Output),
    }
}

/// Reads it, or makes it up.
fn obtain(args: &SimulateArgs) -> Result<(Trace, About), Error> {
    if let Some(synthetic) = args.synthetic() {
        let source = format!("made up with seed {}", synthetic.seed);
        return Ok((synthetic.trace(), About { source, ..About::default() }));
    }
    let path = args.trace.as_deref().unwrap_or(Path::new("-"));
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let input = if path == Path::new("-") {
        read(io::stdin().lock(), args.options())
    } else {
        File::open(path).and_then(|file| read(BufReader::with_capacity(1 << 16, file), args.options()))
    };
    let input = input.map_err(|source| Error::Read { name: name.clone(), source })?;
    let bad = &input.bad;
    if bad.count > 0 && !args.skip_bad {
        return Err(Error::Bad { name, count: bad.count, lines: listed(bad) });
    }
    if bad.count > 0 {
        warn(&format!(
            "{name}: {} line(s) left out, the first of them:\n{}",
            bad.count,
            listed(bad).trim_end()
        ));
    }
    if input.trace.is_empty() {
        return Err(Error::Empty { name });
    }
    let dropped = match input.recording {
        Some(Recording::Whole { dropped }) => dropped,
        Some(Recording::Cut) => {
            warn(&format!("{name}: the recording's last line is missing: it was cut off"));
            0
        }
        None => 0,
    };
    if dropped > 0 {
        warn(&format!(
            "{name}: the recorder has missed {dropped} publishes: the shares are not those of the whole traffic"
        ));
    }
    let about = About {
        source: name,
        time_unit: input.unit.map(TimeUnit::name),
        skipped: bad.count,
        without_id: input.without_id,
        dropped,
        present: input.present,
    };
    Ok((input.trace.build(), about))
}

fn listed(bad: &BadLines) -> String {
    let mut lines: String =
        bad.first.iter().map(|(line, what)| format!("    line {line}: {what}\n")).collect();
    if bad.count > bad.first.len() as u64 {
        lines += "    …\n";
    }
    lines
}

fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "warning: {text}");
}

fn write_plot(path: &Path, study: &Study, trace: &Trace, about: &About) -> Result<(), Error> {
    let fail = |what: String| Error::Plot { path: path.to_owned(), what };
    let repeats = trace.repeats() as u64;
    let subtitle = format!(
        "{}: {} publishes, {} repeats; engine {}",
        about.source,
        crate::tools::text::grouped(trace.events() as u64),
        crate::tools::text::grouped(repeats),
        study.terms.engine.name()
    );
    let svg = plot::svg(study, repeats, &subtitle).map_err(|error| fail(error.to_string()))?;
    std::fs::write(path, svg).map_err(|error| fail(error.to_string()))
}

#[expect(clippy::disallowed_methods, reason = "how long the command took")]
fn now() -> Instant {
    Instant::now()
}

/// On a terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Bar {
        let style = ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar());
        Bar(ProgressBar::new(0).with_style(style).with_message("replaying"))
    }
}

impl Progress for Bar {
    fn more(&self, events: u64) {
        self.0.inc_length(events);
    }

    fn done(&self, events: u64) {
        self.0.inc(events);
    }
}

impl Drop for Bar {
    /// Off the screen.
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
