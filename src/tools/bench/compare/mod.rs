//! `hapax bench compare`: the table of targets, Hapax against a TCP forwarder (haproxy) and against none, on this machine
//! and in one run. `make bench` calls it.
//!
//! ```text
//!  load (this process) ─┬─► Hapax, a full window ─┬─► sink, or a private RabbitMQ
//!                       ├─► Hapax, mode off ──────┤
//!                       ├─► haproxy, mode tcp ────┤
//!                       └─────────────────────────┘
//! ```
//!
//! Runs alternate (A B A B …), so that what the machine does meanwhile hits both; a ratio is taken of each pair, and the
//! median of the ratios is what counts. Everything listens on the loopback and ends with this process.

mod awake;
mod files;
pub(super) mod flat;
pub(super) mod growth;
mod producers;
mod rows;
mod stand;
mod stores;
mod table;
mod tls;

use super::Error;
use clap::Args;
use std::io::{self, Write};
use table::Row;

/// The arguments of `hapax bench compare`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub(super) struct CompareArgs {
    /// Measure only this row of the table; may be given more than once
    #[arg(long, value_name = "N", value_parser = row_number)]
    row: Vec<u8>,
    /// A tenth of the messages, three pairs: to see that it works
    #[arg(long)]
    quick: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The rows that are measured here; 7 and 8 are those of `cargo bench --bench engines -- 10000 10000000`.
const ROWS: [u8; 24] =
    [1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26];

fn row_number(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(number) if ROWS.contains(&number) => Ok(number),
        Ok(7 | 8) => {
            Err("rows 7 and 8 are printed by cargo bench --bench engines -- 10000 10000000".to_owned())
        }
        _ => Err("the rows are 1 to 6 and 9 to 26".to_owned()),
    }
}

/// How much is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Extent {
    pairs: usize,
    divisor: u64,
}

impl Extent {
    fn messages(self, full: u64) -> u64 {
        full / self.divisor
    }
}

/// Measures and prints.
pub(super) fn run(args: &CompareArgs) -> Result<(), Error> {
    let wanted = |number: u8| args.row.is_empty() || args.row.contains(&number);
    let extent = if args.quick { Extent { pairs: 3, divisor: 10 } } else { Extent { pairs: 5, divisor: 1 } };
    let about = stand::about()?;
    let mut done: Vec<Row> = Vec::new();
    if wanted(1) || wanted(3) {
        say("rows 1, 3: a full window, before the sink");
        done.extend(rows::full_window(extent)?);
    }
    if wanted(2) {
        say("row 2: deduplication off, before the sink");
        done.push(rows::off(extent)?);
    }
    if wanted(4) {
        say("row 4: one in flight");
        done.extend(rows::one_in_flight(extent)?);
    }
    if wanted(5) || wanted(6) {
        say("rows 5, 6: before a private RabbitMQ");
        done.extend(rows::before_rabbit(extent, wanted(5), wanted(6))?);
    }
    if wanted(9) {
        say("row 9: idle connections");
        done.push(rows::idle(extent)?);
    }
    if wanted(10) {
        say("row 10: deliveries");
        done.push(rows::deliveries(extent)?);
    }
    if wanted(11) {
        say("row 11: many connections");
        done.push(rows::many(extent)?);
    }
    if wanted(12) {
        say("row 12: a second worker thread");
        done.push(rows::second_thread(extent)?);
    }
    if wanted(13) || wanted(14) {
        say("rows 13, 14: processor time before a private RabbitMQ");
        done.extend(rows::cpu_before_rabbit(extent, wanted)?);
    }
    if (15..=18).any(wanted) {
        say("rows 15 to 18: windows with a log, before the sink");
        done.extend(stores::into_sink(extent, wanted)?);
    }
    if wanted(19) {
        say("row 19: windows with a log, before a private RabbitMQ");
        done.extend(stores::before_rabbit(extent)?);
    }
    if wanted(20) || wanted(21) {
        say("rows 20, 21: a window in Redis, before the sink");
        done.extend(stores::redis(extent)?);
    }
    if wanted(22) {
        say("row 22: logs are read");
        done.extend(stores::recovery(extent)?);
    }
    if wanted(23) || wanted(24) {
        say("rows 23, 24: TLS, before the sink");
        done.extend(tls::rows(extent)?);
    }
    if wanted(25) {
        say("row 25: guarded deliveries, before the sink");
        done.push(rows::guarded(extent)?);
    }
    if wanted(26) {
        say("row 26: producers with sequences, before the sink");
        done.extend(producers::rows(extent)?);
    }
    done.retain(|row| wanted(row.number));
    done.sort_by_key(|row| row.number);
    let text =
        if args.json { format!("{:#}", table::json(&about, &done)) } else { table::text(&about, &done) };
    super::print(&text)
}

/// Prints the progress to stderr.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text} …");
}
