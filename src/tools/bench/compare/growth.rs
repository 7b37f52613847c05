//! `hapax bench growth`: how the cost of a message grows with the size of the window and with the number of connections. Each point is
//! measured in turns with haproxy, so that a slow moment of the machine hits both. `make growth` calls it.

mod plot;

use super::super::Error;
use super::super::load::Load;
use super::Extent;
use super::files;
use super::rows::{FILLING, RUN, cpu_of_put};
use super::stand::{self, Process, Settings, put};
use super::table::Pairs;
use crate::tools::text::{exact_count, grouped};
use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// Sizes of the window. The largest takes 2.2 GB.
const SIZES: [u64; 5] = [10_000, 100_000, 1_000_000, 10_000_000, 50_000_000];
/// The relay opens two files for each connection, so there may be fewer.
const CONNECTIONS: [u64; 5] = [1, 10, 100, 1_000, 10_000];
/// Messages in flight on all connections together, and on one at most.
const IN_FLIGHT: u64 = 10_000;
const MOST_ON_ONE: u64 = 1_000;
/// haproxy, as it is configured here, takes a few more than this.
const MOST_OF_HAPROXY: u64 = 1_000;
/// Points above this are left out of a quick run.
const QUICK: u64 = 1_000_000;

/// The arguments of `hapax bench growth`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub(in crate::tools::bench) struct GrowthArgs {
    /// A tenth of the messages, three pairs, no window above 1,000,000 ids: to see that it works
    #[arg(long)]
    quick: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Draw the curves into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// The cost of a message at one size.
#[derive(Debug)]
struct Point {
    /// ids, or connections
    size: u64,
    /// microseconds of processor time of Hapax, and of haproxy; the second is 1 where haproxy takes no such number of connections
    cpu: Pairs,
    /// haproxy was measured, too
    is_compared: bool,
    /// messages per second through Hapax
    rate: f64,
}

/// The points of one kind of size, the smallest first.
#[derive(Debug)]
struct Curve {
    what: &'static str,
    /// the name of the size
    size: &'static str,
    points: Vec<Point>,
}

/// Measures and prints.
pub(in crate::tools::bench) fn run(args: &GrowthArgs) -> Result<(), Error> {
    let extent = Extent { pairs: 3, divisor: if args.quick { 10 } else { 1 } };
    let about = stand::about()?;
    let curves = [by_window(extent, args.quick)?, by_connections(extent)?];
    if let Some(file) = &args.svg {
        let picture = plot::svg(&curves, &about)
            .map_err(|error| Error::Step(format!("drawing the curves: {error}")))?;
        fs::write(file, picture).map_err(Error::io(format!("writing {}", file.display())))?;
    }
    let text = if args.json { format!("{:#}", as_json(&about, &curves)) } else { text(&about, &curves) };
    super::super::print(&text)
}

/// Each window is full, so each message evicts an id.
fn by_window(extent: Extent, quick: bool) -> Result<Curve, Error> {
    let sink = Process::sink()?;
    let haproxy = Process::haproxy(sink.address())?;
    let mut points = Vec::new();
    for capacity in SIZES.into_iter().filter(|size| !quick || *size <= QUICK) {
        super::say(&format!("a window of {} ids", grouped(capacity)));
        let relay = Process::relay_with(sink.address(), &Settings { capacity, ..Settings::default() })?;
        put(&Load::new(relay.target(), capacity + capacity / 20))?;
        let load = |process: &Process| Load::new(process.target(), extent.messages(RUN));
        points.push(point(extent, capacity, &relay, Some(&haproxy), load)?);
    }
    Ok(Curve { what: "CPU per unique message, full window", size: "ids", points })
}

/// The window is full: only the connections differ.
fn by_connections(extent: Extent) -> Result<Curve, Error> {
    let sink = Process::sink()?;
    let haproxy = Process::haproxy(sink.address())?;
    let relay = Process::relay(sink.address(), "enforce")?;
    put(&Load::new(relay.target(), FILLING))?;
    let mut points = Vec::new();
    for wanted in CONNECTIONS {
        let connections = files::connections(wanted);
        super::say(&format!("{} connections", grouped(connections)));
        let in_flight = (IN_FLIGHT / connections).clamp(1, MOST_ON_ONE);
        let load = |process: &Process| Load {
            connections: usize::try_from(connections).unwrap_or(1),
            window: u32::try_from(in_flight).unwrap_or(1),
            ..Load::new(process.target(), extent.messages(RUN))
        };
        let other = Some(&haproxy).filter(|_| connections <= MOST_OF_HAPROXY);
        points.push(point(extent, connections, &relay, other, load)?);
    }
    Ok(Curve { what: "CPU per unique message, 10,000 in flight", size: "connections", points })
}

/// Measures one point: Hapax and, in turns, haproxy.
fn point(
    extent: Extent,
    size: u64,
    relay: &Process,
    haproxy: Option<&Process>,
    load: impl Fn(&Process) -> Load,
) -> Result<Point, Error> {
    let run = |process: &Process| cpu_of_put(process, &load(process), extent.messages(RUN));
    let (mut cpu, mut rates) = (Pairs::default(), Vec::new());
    for _ in 0..extent.pairs {
        let theirs = haproxy.map(run).transpose()?.map_or(1.0, |(cpu, _)| cpu);
        let (ours, rate) = run(relay)?;
        cpu.push(ours, theirs);
        rates.push(rate);
    }
    let rate = super::table::middle(rates.into_iter());
    Ok(Point { size, cpu, is_compared: haproxy.is_some(), rate })
}

/// For people.
fn text(about: &[String], curves: &[Curve]) -> String {
    let mut text = format!("{}\n", about.join("\n"));
    for curve in curves {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header([curve.size, "Hapax", "haproxy", "ratio", "spread", "Hapax"]);
        for point in &curve.points {
            let (ratio, least, most) = point.cpu.ratio();
            let if_compared = |text: String| if point.is_compared { text } else { String::new() };
            table.add_row([
                exact_count(usize::try_from(point.size).unwrap_or(usize::MAX)),
                format!("{:.3} µs", point.cpu.ours()),
                if_compared(format!("{:.3} µs", point.cpu.theirs())),
                if_compared(format!("{ratio:.2}")),
                if_compared(format!("{least:.2}..{most:.2}")),
                format!("{} msg/s", rounded(point.rate)),
            ]);
        }
        for column in 0..6 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        text += &format!("\n{}\n{table}\n", curve.what);
    }
    text
}

/// For programs.
fn as_json(about: &[String], curves: &[Curve]) -> Value {
    let point = |point: &Point| {
        json!({
            "size": point.size,
            "hapax_cpu_us": point.cpu.ours(),
            "haproxy_cpu_us": point.is_compared.then(|| point.cpu.theirs()),
            "ratio": point.is_compared.then(|| point.cpu.ratio().0),
            "messages_per_second": point.rate,
        })
    };
    let curve = |curve: &Curve| {
        let points: Vec<Value> = curve.points.iter().map(point).collect();
        json!({ "what": curve.what, "size": curve.size, "points": points })
    };
    json!({ "about": about, "curves": curves.iter().map(curve).collect::<Vec<_>>() })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
fn rounded(rate: f64) -> String {
    grouped(rate.round() as u64)
}
