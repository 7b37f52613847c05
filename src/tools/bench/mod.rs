//! `hapax bench`: how fast is a broker, or a relay before it, and how long does an answer take?
//!
//! ```text
//!  Load ─► Dialed (blocking: login, queue, confirms) ─► Worker: one thread, one epoll
//!                                                         ├─ Publisher ─ Ids, Ledger, Outlet ─► broker
//!                                                         └─ …, sharing one Batch of ready-made messages
//! ```
//!
//! A load generator must cost less than what it measures. A message is made once, as octets; for each publish the half
//! of its id is patched, and hundreds go out with one write. [`sink`] is the other end, as cheap.
//!
//! Linux only, as far as it waits for sockets (epoll).

mod args;
mod compare;
mod dial;
mod error;
mod ids;
mod ledger;
pub mod load;
mod message;
mod numbers;
mod outlet;
mod pace;
mod poll;
mod publisher;
mod report;
pub mod sink;
mod take;
mod tally;
mod worker;

pub use args::BenchArgs;
pub use dial::Target;
pub use error::Error;
pub use message::Shape;
pub use numbers::Producers;
pub use tally::Tally;

use args::{BenchCommand, LoadArgs};
use indicatif::{ProgressBar, ProgressStyle};
use load::{End, Load};
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

const STYLE: &str = "  {msg} {human_pos} messages  {per_sec}  {elapsed}";

/// Does what it is asked for, result to stdout.
pub fn run(args: &BenchArgs) -> Result<(), Error> {
    match &args.command {
        None => put(&args.load),
        Some(BenchCommand::Sink(args)) => sink::run(args.listen),
        Some(BenchCommand::Compare(args)) => compare::run(args),
        Some(BenchCommand::Growth(args)) => compare::growth::run(args),
        Some(BenchCommand::Flat(args)) => compare::flat::run(args),
    }
}

fn put(args: &LoadArgs) -> Result<(), Error> {
    let load = args.load()?;
    let bar = io::stderr().is_terminal().then(|| bar(&load));
    let result = load::run(&load, &mut |tally: Tally| {
        if let Some(bar) = &bar {
            bar.set_position(tally.published);
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let outcome = result?;
    let text = if args.json {
        format!("{:#}", report::json(&load, &outcome))
    } else {
        report::text(&load, &outcome)
    };
    print(&text)
}

fn bar(load: &Load) -> ProgressBar {
    let style = ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = match load.end {
        End::Count(count) => ProgressBar::new(count),
        End::After(_) => ProgressBar::no_length(),
    };
    bar.with_style(style).with_message("published")
}

fn print(text: &str) -> Result<(), Error> {
    match writeln!(io::stdout(), "{text}") {
        // Nobody reads on (`hapax bench | head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::io("writing the result")),
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock: it is what it is for")]
fn now() -> Instant {
    Instant::now()
}
