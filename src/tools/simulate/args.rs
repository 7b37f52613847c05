//! The command line of `hapax simulate`.

use super::read::{Options, Present};
use super::synth::{Delay, Ids, Synthetic};
use super::time::TimeUnit;
use crate::config::defaults;
use crate::tools::text::{Share, parse_count, parse_duration};
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use clap::{ArgGroup, Args};
use hapax_core::window::engine::EngineKind;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  hapax simulate publishes.csv                          ten capacities by ten TTLs around what the trace suggests
  hapax simulate - --time-unit ms < publishes.jsonl     lines like {\"time\": 1764022687123, \"id\": \"order-1\"}
  hapax simulate trace.jsonl --capacities 10k,100k,1M --ttls 1m,10m,1h --plot caught.svg
  hapax simulate --rate 2000 --duplicates 5% --delay exp:30s
  hapax simulate trace.jsonl --restart-every 1h         what restarts cost, without and with a store
  hapax record --window orders --seconds 600 -o trace.jsonl && hapax simulate trace.jsonl

A trace is CSV (columns time,id and, if you like, ttl; with a header or without), JSON lines, or what `hapax record` wrote.
With a producer and a number in each line, the result also says what a window of sequences would do.
Ids are compared as they stand: if they are unique within a queue only, put the queue's name into them.";

/// The arguments of `hapax simulate`.
#[derive(Args, Clone, PartialEq, Debug)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("input").required(true).args(["trace", "rate"]))]
pub struct SimulateArgs {
    /// The trace; "-" is standard input
    #[arg(value_name = "TRACE")]
    pub trace: Option<PathBuf>,
    /// The unit of times [default: guessed from the first one]
    #[arg(long, value_name = "UNIT", conflicts_with = "rate")]
    pub time_unit: Option<TimeUnit>,
    /// How late a line may stand and still be sorted in
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration, conflicts_with = "rate")]
    pub reorder: Duration,
    /// Leave out the lines that can't be read instead of giving up
    #[arg(long, conflicts_with = "rate")]
    pub skip_bad: bool,
    #[command(flatten)]
    made_up: MadeUpArgs,
    /// Ids that the window has room for [default: ten, up to what the longest TTL needs]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = parse_count)]
    pub capacities: Option<Vec<usize>>,
    /// How long an id is remembered [default: ten, up to the longest delay of a repeat]
    #[arg(long, value_name = "DURATION,…", value_delimiter = ',', value_parser = parse_duration)]
    pub ttls: Option<Vec<Duration>>,
    /// The window's present capacity, to compare with [default: the recording's, or that of a window without settings]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub present_capacity: Option<usize>,
    /// The window's present TTL, to compare with [default: likewise]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub present_ttl: Option<Duration>,
    /// How ids are stored
    #[arg(long, value_name = "ENGINE", default_value = EngineKind::default().name(), value_parser = engines())]
    pub engine: EngineKind,
    /// A duplicate makes its id young again
    #[arg(long)]
    pub refresh_on_duplicate: bool,
    /// The share of all repeats that is to be caught
    #[arg(long, value_name = "SHARE", default_value = "99.9%", value_parser = Share::parse)]
    pub target: Share,
    /// Restart the relay this often, at the present setting: how many duplicates pass because of it, without and with a store?
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub restart_every: Option<Duration>,
    /// How far a store with remember = "async" is behind at a restart
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = parse_duration, requires = "restart_every")]
    pub remember_delay: Duration,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Draw caught repeats against capacity, a line for each TTL
    #[arg(long, value_name = "FILE.svg", value_parser = svg)]
    pub plot: Option<PathBuf>,
    /// Worker threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZero<usize>>,
}

/// A made-up workload instead of a trace.
#[derive(Args, Clone, PartialEq, Debug)]
#[command(next_help_heading = "Made-up workload, instead of a trace")]
struct MadeUpArgs {
    /// Publishes per second, repeats included
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// The share of publishes that repeat one
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = again, requires = "rate")]
    duplicates: Share,
    /// How long after it: fixed:5s, exp:30s (the mean), uniform:1s..60s or lognormal:30s,1.2 (median, sigma)
    #[arg(long, value_name = "DISTRIBUTION", default_value = "exp:30s", value_parser = Delay::parse, requires = "rate")]
    delay: Delay,
    /// How many ids there are: endless (each new message has its own), or a number to draw from
    #[arg(long, value_name = "N", default_value = "endless", value_parser = Ids::parse, requires = "rate")]
    ids: Ids,
    /// How many publishes
    #[arg(long, value_name = "N", default_value = "1M", value_parser = parse_count, requires = "rate")]
    events: usize,
    /// The same seed makes the same workload
    #[arg(long, value_name = "N", default_value_t = 1, requires = "rate")]
    seed: u64,
}

impl SimulateArgs {
    /// Returns the made-up workload, if there is no trace.
    pub fn synthetic(&self) -> Option<Synthetic> {
        let MadeUpArgs { rate, duplicates, delay, ids, events, seed } = self.made_up;
        rate.map(|rate| Synthetic { rate, duplicates, delay, ids, events: events as u64, seed })
    }

    /// Returns the setting to compare with: what was given, or that of the recording, or the default of a window.
    pub fn present(&self, recorded: Option<Present>) -> Present {
        let otherwise = recorded.unwrap_or(Present { capacity: defaults::CAPACITY, ttl: defaults::TTL });
        Present {
            capacity: self.present_capacity.unwrap_or(otherwise.capacity),
            ttl: self.present_ttl.unwrap_or(otherwise.ttl),
        }
    }

    /// How the trace is read.
    pub fn options(&self) -> Options {
        Options { unit: self.time_unit, reorder: self.reorder }
    }
}

fn engines() -> impl clap::builder::TypedValueParser<Value = EngineKind> {
    PossibleValuesParser::new(EngineKind::ALL.map(EngineKind::name))
        .map(|name| EngineKind::ALL.into_iter().find(|engine| engine.name() == name).unwrap_or_default())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e8).contains(&rate) => Ok(rate),
        _ => Err("write publishes per second, from 0.001 to 100000000".to_owned()),
    }
}

fn again(text: &str) -> Result<Share, String> {
    match Share::parse(text)? {
        Share(share) if share <= 0.99 => Ok(Share(share)),
        _ => Err("at most 99%: something has to be new".to_owned()),
    }
}

fn svg(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) if extension.eq_ignore_ascii_case("svg") => Ok(path),
        _ => Err(
            "plots are written as SVG: end the name with .svg (rsvg-convert or a browser makes a PNG of it)"
                .to_owned(),
        ),
    }
}
