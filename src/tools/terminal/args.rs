//! The arguments of the commands that send requests to a running relay. [`crate::tools::terminal`] runs these
//! commands.

use crate::config::number;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::str::FromStr;

/// Commands that ask a running relay.
#[derive(Subcommand, Clone, PartialEq, Eq, Debug)]
pub enum TerminalCommand {
    /// Watch the windows of a running relay
    Top(TopArgs),
    /// List, inspect, change and flush the windows of a running relay
    Windows(WindowsArgs),
    /// Look an id up, or forget it
    Ids(IdsArgs),
    /// List the producers of a window with id = "sequence", look at one, or forget it
    Producers(ProducersArgs),
    /// Let a running relay read its configuration file again
    Reload(ReloadArgs),
    /// List the clients of a running relay, or close their connections
    Connections(ConnectionsArgs),
    /// List the broker's nodes: which of them answer, and how many connections each has
    Upstreams(UpstreamsArgs),
    /// Show what has happened lately: changes, and who made them; stores and nodes that went down or came back
    Journal(JournalArgs),
    /// Let a running relay end, as SIGTERM does: /readyz says 503, and what is in flight is settled first
    Drain(DrainArgs),
    /// Show or change what a running relay logs
    Log(LogArgs),
    /// Show the last duplicates and who sent them, or follow them as they come
    Drops(DropsArgs),
    /// Test your own pipeline: let clients lose confirms and connections, and messages come twice, where the configuration allows it
    Chaos(ChaosArgs),
}

impl TerminalCommand {
    /// Returns the arguments that all of these commands have.
    pub fn reach(&self) -> &Reach {
        match self {
            TerminalCommand::Top(args) => &args.reach,
            TerminalCommand::Windows(args) => &args.reach,
            TerminalCommand::Ids(args) => &args.reach,
            TerminalCommand::Producers(args) => &args.reach,
            TerminalCommand::Connections(args) => &args.reach,
            TerminalCommand::Reload(args) => &args.reach,
            TerminalCommand::Upstreams(args) => &args.reach,
            TerminalCommand::Journal(args) => &args.reach,
            TerminalCommand::Drain(args) => &args.reach,
            TerminalCommand::Log(args) => &args.reach,
            TerminalCommand::Drops(args) => &args.reach,
            TerminalCommand::Chaos(args) => &args.reach,
        }
    }

    pub(crate) fn reach_mut(&mut self) -> &mut Reach {
        match self {
            TerminalCommand::Top(args) => &mut args.reach,
            TerminalCommand::Windows(args) => &mut args.reach,
            TerminalCommand::Ids(args) => &mut args.reach,
            TerminalCommand::Producers(args) => &mut args.reach,
            TerminalCommand::Connections(args) => &mut args.reach,
            TerminalCommand::Reload(args) => &mut args.reach,
            TerminalCommand::Upstreams(args) => &mut args.reach,
            TerminalCommand::Journal(args) => &mut args.reach,
            TerminalCommand::Drain(args) => &mut args.reach,
            TerminalCommand::Log(args) => &mut args.reach,
            TerminalCommand::Drops(args) => &mut args.reach,
            TerminalCommand::Chaos(args) => &mut args.reach,
        }
    }
}

/// How to reach the relay: its address and token, and the form of the answer. The token comes from `HAPAX_ADMIN_TOKEN`
/// or a file.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct Reach {
    /// The relay's admin listener [default: http://127.0.0.1:15673]
    #[arg(
        id = "admin_url",
        long = "admin",
        value_name = "URL",
        env = "HAPAX_ADMIN_URL",
        global = true,
        hide_env_values = true
    )]
    pub admin: Option<String>,
    /// The authorities that may sign the certificate of an https:// admin listener, in PEM [default: those of this system]
    #[arg(long, value_name = "FILE", env = "HAPAX_ADMIN_CA", global = true, hide_env_values = true)]
    pub admin_ca: Option<PathBuf>,
    /// The file that holds the relay's token [default: the token is in HAPAX_ADMIN_TOKEN, if there is one]
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// Print what the relay says, as JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// The arguments of `hapax top`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
#[command(
    after_help = "With --json: one line a second, {\"windows\": […], \"status\": {…}}, until stopped.\nColours are off with NO_COLOR."
)]
pub struct TopArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened struct says it")]
    pub reach: Reach,
    /// With --json: one document, then end
    #[arg(long, requires = "json")]
    pub once: bool,
}

/// The arguments of `hapax windows`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct WindowsArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened struct says it")]
    pub reach: Reach,
    #[command(subcommand)]
    /// The command to run [default: list]
    pub command: Option<WindowsCommand>,
}

/// `hapax windows …`
#[derive(Subcommand, Clone, PartialEq, Eq, Debug)]
pub enum WindowsCommand {
    /// All windows, a line each
    List,
    /// All that is known of one window
    Show {
        /// The window
        name: String,
    },
    /// Change a window while it runs, or see what a change would bring
    Set(SetArgs),
    /// Forget all ids of a window: their duplicates will get through
    Flush {
        /// The window
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// The arguments of `hapax windows set`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct SetArgs {
    /// The window
    pub name: String,
    /// Ids that it has room for: 2000000, 1.5M, or "auto"
    #[arg(long, value_name = "N|auto", group = "change")]
    pub capacity: Option<CapacityArg>,
    /// How long ids are remembered: 10m, "1h 30m", or a number of seconds
    #[arg(long, value_name = "DURATION", group = "change", value_parser = NonEmptyStringValueParser::new())]
    pub ttl: Option<String>,
    /// Whether duplicates are dropped
    #[arg(long, value_name = "MODE", group = "change")]
    pub mode: Option<ModeArg>,
    /// Only say what it would bring: memory, pressure, coverage, duplicates caught
    #[arg(long, conflicts_with = "save")]
    pub dry_run: bool,
    /// Write it into the relay's configuration file, too, so that it outlives a restart. Works on the relay's host, for a user who may
    /// write the file
    #[arg(long)]
    pub save: bool,
}

/// The mode of a window: what it does with duplicates.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModeArg {
    /// drop them
    Enforce,
    /// count and forward them
    Observe,
    /// do not judge
    Off,
}

impl ModeArg {
    /// Returns the mode as the API writes it.
    pub fn word(self) -> &'static str {
        match self {
            ModeArg::Enforce => "enforce",
            ModeArg::Observe => "observe",
            ModeArg::Off => "off",
        }
    }
}

/// A capacity: a number of ids, or "auto".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CapacityArg {
    /// the relay sizes it
    Auto,
    /// a fixed number of ids
    Ids(u64),
}

impl CapacityArg {
    /// Returns the capacity as the API reads it.
    pub fn to_json(self) -> Value {
        match self {
            CapacityArg::Auto => json!("auto"),
            CapacityArg::Ids(ids) => json!(ids),
        }
    }
}

impl FromStr for CapacityArg {
    type Err = String;

    fn from_str(text: &str) -> Result<CapacityArg, String> {
        match text.trim() {
            "auto" => Ok(CapacityArg::Auto),
            text => {
                number::count(text).map(CapacityArg::Ids).ok_or_else(|| format!("{}, or auto", number::COUNT))
            }
        }
    }
}

/// The arguments of `hapax ids`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct IdsArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened struct says it")]
    pub reach: Reach,
    #[command(subcommand)]
    /// The command to run [default: list the windows and how many ids each remembers]
    pub command: Option<IdsCommand>,
}

/// `hapax ids …`
#[derive(Subcommand, Clone, PartialEq, Eq, Debug)]
pub enum IdsCommand {
    /// Seen when, how many duplicates since, forgotten when
    Get(IdArgs),
    /// Forget one id: the next publish of it gets through
    Forget(IdArgs),
}

/// An id and its place. Only the parts that the window's scope uses need to be given.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct IdArgs {
    /// The window
    pub window: String,
    /// The id, e.g. a message-id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub id: String,
    /// The vhost of the publisher
    #[arg(long)]
    pub vhost: Option<String>,
    /// The exchange that it was published to; "" is the default exchange
    #[arg(long)]
    pub exchange: Option<String>,
    /// The queue, if the window is a guard
    #[arg(long)]
    pub queue: Option<String>,
    /// The routing key that it was published with
    #[arg(long)]
    pub routing_key: Option<String>,
    /// Where an id has several parts: one beyond the first, as in header:type=order (repeat it for others)
    #[arg(long = "part", value_name = "NAME=VALUE")]
    pub parts: Vec<String>,
    /// A routing key that the message has in CC or BCC (repeat it for others)
    #[arg(long, value_name = "KEY")]
    pub cc: Vec<String>,
    /// The first entry of x-death as JSON, if the message was dead-lettered
    #[arg(long, value_name = "JSON")]
    pub death: Option<String>,
}

/// The arguments of `hapax producers`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct ProducersArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened struct says it")]
    pub reach: Reach,
    #[command(subcommand)]
    #[expect(missing_docs, reason = "its variants say it")]
    pub command: ProducersCommand,
}

/// `hapax producers …`
#[derive(Subcommand, Clone, PartialEq, Eq, Debug)]
pub enum ProducersCommand {
    /// The producers that were seen last, a line each
    List {
        /// The window
        window: String,
        /// Only those whose name or key contains this text
        #[arg(long, value_name = "TEXT")]
        containing: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u16,
    },
    /// All that is known of one producer
    Show {
        /// The window
        window: String,
        /// The key, as the list shows it
        key: String,
    },
    /// Forget a producer, its numbers and its epoch: all of its numbers get through
    Forget {
        /// The window
        window: String,
        /// The key, as the list shows it
        key: String,
    },
}

/// The arguments of `hapax reload`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
#[command(
    after_help = "All of the file is put in force, or nothing. A change that needs a restart refuses the whole reload.\nSIGHUP does the same; the log says how it went."
)]
pub struct ReloadArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened struct says it")]
    pub reach: Reach,
    /// Only say what would change
    #[arg(long)]
    pub dry_run: bool,
}

/// The arguments of `hapax connections`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct ConnectionsArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened struct says it")]
    pub reach: Reach,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub limit: u64,
    /// How many to pass over
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = any_count)]
    pub offset: u64,
    #[command(subcommand)]
    /// The command to run [default: list]
    pub command: Option<ConnectionsCommand>,
}

/// `hapax connections …`
#[derive(Subcommand, Clone, PartialEq, Eq, Debug)]
pub enum ConnectionsCommand {
    /// Close connections: their clients get 320 CONNECTION_FORCED, and what is in flight is still settled with the broker
    Close {
        /// Their numbers: the column ID
        #[arg(required = true, value_name = "ID", value_parser = at_least_one)]
        ids: Vec<u64>,
        /// What the clients are told
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// The arguments of `hapax journal`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct JournalArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened struct says it")]
    pub reach: Reach,
    /// How many of the last entries, up to 500
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub limit: u64,
}

/// The arguments of `hapax drain`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct DrainArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened struct says it")]
    pub reach: Reach,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// The arguments of `hapax log`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct LogArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened struct says it")]
    pub reach: Reach,
    /// What to log from now on: a level, or levels by target, as in info,hapax::net=debug [default: only show it]
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub level: Option<String>,
}

/// The arguments of `hapax upstreams`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct UpstreamsArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened struct says it")]
    pub reach: Reach,
}

/// The arguments of `hapax drops`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
#[command(
    after_help = "It is a sample: a few a second of each client. LEFT OUT says how many more there were.\nWith --json and --follow: one line for each."
)]
pub struct DropsArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened struct says it")]
    pub reach: Reach,
    /// Go on with those that come, until stopped
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the last ones, up to 500 [default: 100, or 10 with --follow]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<u64>,
}

/// The arguments of `hapax chaos`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct ChaosArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened struct says it")]
    pub reach: Reach,
    #[command(subcommand)]
    #[expect(missing_docs, reason = "its variants say it")]
    pub command: ChaosCommand,
}

/// `hapax chaos …`
#[derive(Subcommand, Clone, PartialEq, Eq, Debug)]
pub enum ChaosCommand {
    /// Start a run. It ends by itself
    Start(ChaosStartArgs),
    /// Show whether a run is on, and its faults until now
    Status,
    /// End the run that is on
    Stop,
    /// Show the faults of the run that is on, or of the last one, and the answers of windows and guards
    Report {
        /// The form of the report
        #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
        format: ReportFormat,
    },
}

/// The form of a report.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReportFormat {
    /// for people
    Text,
    /// for programs, as --json
    Json,
}

/// The arguments of `hapax chaos start`. A share is a part of the occasions, from 0 to 1.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
#[command(group = clap::ArgGroup::new("fault").required(true).multiple(true))]
pub struct ChaosStartArgs {
    /// By which the run decides: the same seed decides the same for the same traffic [default: a new one]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How long the run lasts: 5m, "1h 30m", or a number of seconds
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = NonEmptyStringValueParser::new())]
    pub duration: String,
    /// The share of stored messages whose confirm is lost with their connection
    #[arg(long, value_name = "SHARE", group = "fault")]
    pub drop_acks: Option<ShareArg>,
    /// The share of stored messages at which the confirms of their channel begin to wait
    #[arg(long, value_name = "SHARE", group = "fault")]
    pub hold_acks: Option<ShareArg>,
    /// How long they wait
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = NonEmptyStringValueParser::new())]
    pub hold_for: String,
    /// The share of publishes and deliveries at which their connection is cut
    #[arg(long, value_name = "SHARE", group = "fault")]
    pub cut: Option<ShareArg>,
    /// The share of deliveries that are delivered again although they are acked
    #[arg(long, value_name = "SHARE", group = "fault")]
    pub redeliver: Option<ShareArg>,
    /// The share of fresh messages that are published again, within a minute
    #[arg(long, value_name = "SHARE", group = "fault")]
    pub replay: Option<ShareArg>,
    /// Only messages of this window or guard (repeat it for others)
    #[arg(long = "window", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub windows: Vec<String>,
}

/// A share, from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ShareArg(pub f64);

impl Eq for ShareArg {}

impl FromStr for ShareArg {
    type Err = String;

    fn from_str(text: &str) -> Result<ShareArg, String> {
        let share = text.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
        share.map(ShareArg).ok_or_else(|| "it must be a number from 0 to 1, as in 0.01".to_owned())
    }
}

fn any_count(text: &str) -> Result<u64, String> {
    number::count(text).ok_or_else(|| number::COUNT.to_owned())
}

fn at_least_one(text: &str) -> Result<u64, String> {
    any_count(text)
        .and_then(|count| if count > 0 { Ok(count) } else { Err("it must be 1 or more".to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capacity_is_a_number_of_ids_or_auto() {
        for (text, ids) in [
            ("7", 7),
            ("2_000_000", 2_000_000),
            ("500k", 500_000),
            ("2M", 2_000_000),
            ("1,000", 1000),
            ("1.5M", 1_500_000),
        ] {
            assert_eq!(text.parse(), Ok(CapacityArg::Ids(ids)), "{text}");
        }
        assert_eq!("auto".parse(), Ok(CapacityArg::Auto));
        for text in ["", "k", "-1", "1,5M", "many", "99999999999999999999", "99999999999999999G", "10é"] {
            assert!(text.parse::<CapacityArg>().is_err(), "{text}");
        }
    }
}
