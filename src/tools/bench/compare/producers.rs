//! Row 26: producers that number their messages, before the sink.

use super::super::Error;
use super::super::Producers;
use super::super::load::Load;
use super::super::message::Shape;
use super::Extent;
use super::rows::{FILLING, RUN, alternate};
use super::stand::{Process, Settings, put};
use super::table::{Goal, Pairs, Row};

/// How many there are, and the connections that they share.
const PRODUCERS: u64 = 10_000;
const CONNECTIONS: u64 = 100;
/// Numbers that each of them has in flight.
const IN_FLIGHT: u64 = 100;
/// Producers in whose memory a buffer more or less does not count, and how few there are before them.
const MANY: u64 = 200_000;
const FEW: u64 = 100;

/// The row, twice: what a producer takes, and what its numbers cost against ids. The messages are the same.
pub(super) fn rows(extent: Extent) -> Result<Vec<Row>, Error> {
    let sink = Process::sink()?;
    let memory = memory(&sink)?;
    let scope = "scope = \"exchange\"\n".to_owned();
    let ids = Process::relay_with(sink.address(), &Settings { window: scope, ..Settings::default() })?;
    let numbers = numbered(&sink, PRODUCERS)?;
    let load = |relay: &Process, count| numbers_in_flight(Load::new(relay.target(), count), PRODUCERS);
    // Then each id evicts another one, and all producers are known.
    put(&load(&ids, FILLING))?;
    put(&load(&numbers, FILLING))?;
    let rate = |relay: &Process| put(&load(relay, extent.messages(RUN))).map(|outcome| outcome.rate());
    let pairs = alternate(extent, || rate(&ids), || rate(&numbers))?;
    let throughput = Row {
        number: 26,
        what: "10,000 producers with sequences: throughput into the sink",
        against: "ids",
        unit: "msg/s",
        pairs,
        goal: Goal::AtLeast(1.0),
        note: None,
    };
    Ok(vec![memory, throughput])
}

/// What the relay's memory grows by with many more producers, for each of them.
fn memory(sink: &Process) -> Result<Row, Error> {
    let relay = numbered(sink, MANY)?;
    let after = |producers| {
        let Load { shape, .. } = Load::new(relay.target(), 0);
        let shape = Shape { producers: Some(Producers::new(producers)), ..shape };
        // (The connections have as much in flight both times.)
        put(&Load { shape, ..numbers_in_flight(Load::new(relay.target(), MANY * 3), PRODUCERS) })?;
        relay.settled()
    };
    let (few, many) = (after(FEW)?, after(MANY)?);
    let mut pairs = Pairs::default();
    pairs.push((many - few) / (MANY - FEW) as f64, 1.0);
    Ok(Row {
        number: 26,
        what: "memory per producer with a sequence",
        against: "-",
        unit: "bytes",
        pairs,
        goal: Goal::AtMost(300.0),
        note: Some(format!("memory: by which the relay's grows when {} producers more come", MANY - FEW)),
    })
}

/// A relay whose window has room for so many producers.
pub(super) fn numbered(sink: &Process, producers: u64) -> Result<Process, Error> {
    let window = "id = \"sequence\"\nscope = \"exchange\"\n".to_owned();
    Process::relay_with(sink.address(), &Settings { capacity: producers, window, ..Settings::default() })
}

/// The same load by so many producers, each with 100 numbers in flight.
pub(super) fn numbers_in_flight(load: Load, producers: u64) -> Load {
    let connections = CONNECTIONS.min(producers);
    Load {
        shape: Shape { producers: Some(Producers::new(producers)), ..load.shape },
        connections: usize::try_from(connections).unwrap_or(1),
        window: u32::try_from(producers.div_ceil(connections) * IN_FLIGHT).unwrap_or(u32::MAX),
        ..load
    }
}
