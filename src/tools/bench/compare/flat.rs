//! `hapax bench flat`: does the memory of 10,000 producers stay flat over a hundred million messages? Prints what the relay has in RAM at
//! each tenth, and fails if that grows after the first one.

use super::super::Error;
use super::super::load::{self, Load};
use super::super::tally::Tally;
use super::producers::{numbered, numbers_in_flight};
use super::stand::Process;
use crate::tools::text::{grouped, parse_count};
use clap::Args;

/// A tenth at which there is more than this times as much in RAM as at the first one is a leak.
const FLAT: f64 = 1.05;
const TENTHS: u64 = 10;

/// The arguments of `hapax bench flat`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub(in crate::tools::bench) struct FlatArgs {
    /// How many messages
    #[arg(long, value_name = "N", default_value = "100M", value_parser = parse_count)]
    count: usize,
    /// How many producers, each with 100 numbers in flight
    #[arg(long, value_name = "N", default_value = "10k", value_parser = parse_count)]
    producers: usize,
}

/// Measures and prints. Growth is an error.
pub(in crate::tools::bench) fn run(args: &FlatArgs) -> Result<(), Error> {
    let FlatArgs { count, producers } = *args;
    let sink = Process::sink()?;
    let relay = numbered(&sink, producers as u64)?;
    let load = numbers_in_flight(Load::new(relay.target(), count as u64), producers as u64);
    let (mut resident, mut failed) = (Vec::new(), None);
    let outcome = load::run(&load, &mut |tally: Tally| {
        let tenth = (resident.len() as u64 + 1) * (count as u64 / TENTHS);
        // The last one is measured while the load is still on, too.
        if resident.len() as u64 == TENTHS || tally.acked < tenth.min(count as u64 * 99 / 100) {
            return;
        }
        match relay.resident() {
            Ok(bytes) => {
                super::say(&format!("{} messages: {}", grouped(tally.acked), mib(bytes)));
                resident.push(bytes);
            }
            Err(error) => failed = failed.take().or(Some(error)),
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let (Some(first), Some(most)) = (resident.first().copied(), resident.iter().copied().reduce(f64::max))
    else {
        return Err(Error::Step("the load was over before anything could be measured".to_owned()));
    };
    let text = format!(
        "{} producers, {} messages in {:.0} s: {} at the first tenth, {} at most ({:.3} times as much)",
        grouped(producers as u64),
        grouped(outcome.tally.acked),
        outcome.elapsed.as_secs_f64(),
        mib(first),
        mib(most),
        most / first,
    );
    if most > first * FLAT {
        return Err(Error::Step(format!("memory grows: {text}")));
    }
    super::super::print(&format!("memory is flat: {text}"))
}

fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / (1024.0 * 1024.0))
}
