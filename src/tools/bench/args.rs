//! The command line of `hapax bench`.

use super::Error;
use super::compare::CompareArgs;
use super::compare::flat::FlatArgs;
use super::compare::growth::GrowthArgs;
use super::dial::Target;
use super::load::{End, Load, Route};
use super::message::Shape;
use super::numbers::Producers;
use crate::tools::text::{Share, parse_count, parse_duration};
use clap::{Args, Subcommand};
use std::net::SocketAddr;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  hapax bench                                             as fast as it goes, ten seconds, to the broker on this host
  hapax bench --url amqp://user:password@host:5672/vhost --count 1M --json
  hapax bench --rate 5000 --duration 1m                   a steady load: how long does an answer take?
  hapax bench --url amqp://127.0.0.1:5673 --duplicates 50%   half of the publishes repeat an id

Without --routing-key it declares an exclusive queue of its own, which keeps the newest 100,000 messages and goes with its
connection. With --rate, latency is counted from the moment when a message was due, not from when it could be sent: a
broker that stalls is not excused for the messages that had to wait. docs/bench.md says how to read the result.";

/// Sizes that a client library would send, too.
const SIZE_MAX: usize = 64 << 20;
/// Entries of a headers table fit into one frame.
const HEADERS_MAX: usize = 1000;
/// More connections than any machine has files for.
const CONNECTIONS_MAX: usize = 60_000;
const WINDOW_MAX: u32 = 1_000_000;
/// Their names have eight digits.
const PRODUCERS_MAX: usize = 100_000_000;

/// The arguments of `hapax bench`.
#[derive(Args, Clone, PartialEq, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub(super) command: Option<BenchCommand>,
    #[command(flatten)]
    pub(super) load: LoadArgs,
}

/// The subcommands of `hapax bench`. Without one, it puts a load on a broker.
#[derive(Subcommand, Clone, PartialEq, Debug)]
pub(super) enum BenchCommand {
    /// A broker for measuring only: it confirms everything and stores nothing
    Sink(SinkArgs),
    /// The table of the project's targets: Hapax against a TCP forwarder, on this machine
    #[command(hide = true)]
    Compare(CompareArgs),
    /// How the cost of a message grows with the window and with the connections
    #[command(hide = true)]
    Growth(GrowthArgs),
    /// Whether the memory of producers with sequences stays flat
    #[command(hide = true)]
    Flat(FlatArgs),
}

/// The arguments of `hapax bench sink`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub(super) struct SinkArgs {
    /// Where it listens; it has no passwords: the loopback is a good place
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:5679")]
    pub(super) listen: SocketAddr,
}

/// The load.
#[derive(Args, Clone, PartialEq, Debug)]
pub(super) struct LoadArgs {
    /// The broker, or a relay before it
    #[arg(
        long,
        value_name = "amqp://…",
        default_value = "amqp://guest:guest@127.0.0.1:5672/%2f",
        hide_env_values = true
    )]
    url: String,
    /// Messages per second, over all connections [default: as fast as it goes]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Octets of a message's body
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    size: usize,
    /// Entries of a message's headers table
    #[arg(long, value_name = "N", default_value_t = 10)]
    headers: usize,
    /// The share of messages that repeat an id
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = Share::parse)]
    duplicates: Share,
    /// A repeat takes the id that was new N ids ago on the same connection [default: the larger one of --confirms
    /// and 1000, so that it is answered by then]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    repeat_after: Option<usize>,
    /// Messages in flight on each connection, counted from the oldest unanswered one; 0 is without confirms
    #[arg(long, value_name = "N", default_value_t = 1000)]
    confirms: u32,
    /// How many connections publish
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: usize,
    /// Number the messages, as so many producers do (x-hapax-producer, x-hapax-sequence and x-hapax-epoch)
    #[arg(long, value_name = "N", value_parser = parse_count)]
    producers: Option<usize>,
    /// How many messages, over all connections
    #[arg(long, value_name = "N", value_parser = parse_count, conflicts_with = "duration")]
    count: Option<usize>,
    /// For how long [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// An exchange of yours
    #[arg(long, value_name = "NAME", requires = "routing_key")]
    exchange: Option<String>,
    /// The routing key; without --exchange, a queue of yours [default: a queue that is declared for this]
    #[arg(long, value_name = "KEY")]
    routing_key: Option<String>,
    /// Messages that no queue takes are to be returned
    #[arg(long)]
    mandatory: bool,
    /// Messages are to survive the broker (delivery-mode 2)
    #[arg(long)]
    persistent: bool,
    /// Take the messages out of the queue again, without acks
    #[arg(long, conflicts_with = "exchange")]
    consume: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl LoadArgs {
    /// Returns the load, or everything that is wrong with the arguments.
    pub(super) fn load(&self) -> Result<Load, Error> {
        let mut problems = Vec::new();
        let mut wrong = |what: String, fix: &str| problems.push((what, fix.to_owned()));
        let target = match Target::parse(&self.url) {
            Ok(target) => target,
            Err(what) => {
                wrong(format!("--url: {what}"), "as in amqp://guest:guest@127.0.0.1:5672/%2f");
                Target::guest("")
            }
        };
        if self.rate.is_some_and(|rate| !(0.001..=1e8).contains(&rate)) {
            wrong(
                "--rate: it must lie between 0.001 and 100,000,000".to_owned(),
                "leave it out for as fast as it goes",
            );
        }
        if self.duplicates.0 > 0.99 {
            wrong("--duplicates: at most 99%".to_owned(), "something has to be new");
        }
        for (name, value, range) in [
            ("--size", self.size, 0..=SIZE_MAX),
            ("--headers", self.headers, 0..=HEADERS_MAX),
            ("--confirms", self.confirms as usize, 0..=WINDOW_MAX as usize),
            ("--connections", self.connections, 1..=CONNECTIONS_MAX),
            ("--producers", self.producers.unwrap_or(1), 1..=PRODUCERS_MAX),
        ] {
            if !range.contains(&value) {
                let (least, most) = (range.start(), crate::tools::text::grouped(*range.end() as u64));
                wrong(
                    format!("{name}: it must lie between {least} and {most}"),
                    "choose a number in between",
                );
            }
        }
        for (name, value) in [("--exchange", &self.exchange), ("--routing-key", &self.routing_key)] {
            if value.as_ref().is_some_and(|value| value.len() > 255) {
                wrong(format!("{name}: AMQP names have 255 octets at most"), "choose a shorter one");
            }
        }
        if let Some(error) = Error::usage(&problems) {
            return Err(error);
        }
        Ok(Load {
            target,
            route: match &self.routing_key {
                None => Route::Own,
                Some(routing_key) => Route::Given {
                    exchange: self.exchange.clone().unwrap_or_default(),
                    routing_key: routing_key.clone(),
                },
            },
            rate: self.rate,
            shape: Shape {
                size: self.size,
                headers: self.headers,
                persistent: self.persistent,
                mandatory: self.mandatory,
                producers: self.producers.map(|count| Producers::new(count as u64)),
            },
            duplicates: self.duplicates.0,
            repeat_after: self.repeat_after.map_or(u64::from(self.confirms).max(1000), |ids| ids as u64),
            window: self.confirms,
            connections: self.connections,
            end: match self.count {
                Some(count) => End::Count(count as u64),
                None => End::After(self.duration.unwrap_or(Duration::from_secs(10))),
            },
            consume: self.consume,
        })
    }
}
