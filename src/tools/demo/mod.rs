//! `hapax demo`: publishes repeats through a relay, counts what the broker stored, and shows what recording an id too
//! early would have lost.
//!
//! ```text
//!  publishers (lapin) ──► hapax (this binary, a process) ──► RabbitMQ (a private node) ──► census
//!                            └─ /metrics: forwarded, dropped ──────────► report: PASS or FAIL ◄──┘
//! ```
//!
//! The node and the leash are [`hapax_testbed`]'s, which the end-to-end tests use, too.

mod args;
mod cable;
mod cases;
mod census;
mod client;
mod crash;
mod message;
mod metrics;
mod plan;
mod progress;
mod publishers;
mod report;
mod stage;
mod tally;
mod voice;

use crate::tools::text::grouped;
pub use args::DemoArgs;
use cases::Cases;
use census::Census;
use client::{Address, Client};
use crash::Crashes;
use hapax_testbed::rabbit::{self, Rabbit};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use metrics::Relayed;
use plan::Plan;
use publishers::Publishers;
use report::Report;
use stage::Relay;
use std::io;
use std::sync::Arc;
use tally::Tally;
use tokio::time::Instant;
use voice::Voice;

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The private node can't be started, because RabbitMQ is not there.
    #[error(
        "RabbitMQ is not installed ({0} is missing)\n    fix: `make demo` installs it, so does scripts/setup by itself (Debian, Ubuntu); \
         or name a broker of yours: hapax demo --upstream amqp://USER:PASSWORD@HOST:PORT"
    )]
    NotInstalled(String),
    /// The private node did not do what it should.
    #[error(transparent)]
    Rabbit(rabbit::Error),
    /// AMQP said no.
    #[error("{doing}: {source}")]
    Amqp {
        /// what we were doing
        doing: String,
        /// what it said
        source: Box<lapin::Error>,
    },
    /// The operating system said no.
    #[error("{doing}: {source}")]
    Io {
        /// what we were doing
        doing: String,
        /// what it said
        source: io::Error,
    },
    /// Anything else that a step may come upon.
    #[error("{0}")]
    Step(String),
    /// Publishers wait, and nobody answers.
    #[error(
        "nothing was answered for {seconds} s: {settled} of {sent} publishes are. The end of the relay's log may say why"
    )]
    Stalled {
        /// publishes that were answered
        settled: u64,
        /// publishes
        sent: u64,
        /// the patience
        seconds: u64,
    },
    /// The user said stop.
    #[error("interrupted; nothing was left running")]
    Interrupted,
}

impl Error {
    fn amqp(doing: impl Into<String>) -> impl FnOnce(lapin::Error) -> Error {
        move |source| Error::Amqp { doing: doing.into(), source: Box::new(source) }
    }

    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { doing: doing.into(), source }
    }
}

impl From<rabbit::Error> for Error {
    fn from(error: rabbit::Error) -> Error {
        match error {
            rabbit::Error::Missing(program) => Error::NotInstalled(program),
            error => Error::Rabbit(error),
        }
    }
}

/// Runs it; whether all checks hold.
pub async fn run(args: &DemoArgs) -> Result<bool, Error> {
    tokio::select! {
        result = perform(args) => result,
        // The future owns the processes: dropping it ends them.
        _ = tokio::signal::ctrl_c() => Err(Error::Interrupted),
    }
}

async fn perform(args: &DemoArgs) -> Result<bool, Error> {
    let voice = Voice { json: args.json };
    let (broker, rabbit) = match &args.upstream {
        Some(uri) => {
            let broker = stage::parse(uri, "--upstream")?;
            // Said now, it is about the broker; later it would be about a relay that does not become ready.
            Client::connect(&broker, "first look").await?.close().await?;
            (broker, None)
        }
        None => {
            voice.say("Starting a private RabbitMQ node (a few seconds) …");
            let rabbit = stage::start_rabbit().await?;
            voice.say(&format!("  RabbitMQ   {}", rabbit.uri()));
            (stage::parse(&rabbit.uri(), "the private node")?, Some(rabbit))
        }
    };
    let (entry, relay) = match &args.relay {
        Some(uri) => (stage::parse(uri, "--relay")?, None),
        None => {
            let relay = Relay::start(&broker).await?;
            voice.say(&format!("  Hapax      $ {}", relay.command()));
            (behind(&broker, &relay), Some(relay))
        }
    };
    let report = play(args, &broker, &entry, relay.as_ref(), voice).await?;
    if args.json {
        let text = serde_json::to_string_pretty(&report.json()).unwrap_or_default();
        let _ = io::Write::write_all(&mut io::stdout(), (text + "\n").as_bytes());
    }
    if args.keep {
        keep(rabbit, relay, voice)?;
    }
    Ok(report.passes())
}

/// Publishes, counts and checks.
async fn play(
    args: &DemoArgs,
    broker: &AMQPUri,
    entry: &AMQPUri,
    relay: Option<&Relay>,
    voice: Voice,
) -> Result<Report, Error> {
    let prefix = format!("hapax-demo-{}", std::process::id());
    let queue = format!("{prefix}.credits");
    let plan = Plan::new(args.messages);
    let director = Client::connect(broker, "director").await?;
    let channel = director.channel().await?;
    cases::declare(&channel, &queue, FieldTable::default()).await?;

    let (messages, repeats) = (grouped(plan.messages()), grouped(plan.repeats()));
    voice.say(&format!(
        "\nPublishing {messages} persistent messages with confirms, {repeats} of them repeats:\n"
    ));
    voice.say(&Report::published(&plan).to_string());
    let tally = Arc::new(Tally::default());
    let publishers = Publishers { uri: entry.clone(), to: Address::queue(&queue), tally: Arc::clone(&tally) };
    let started = Instant::now();
    tokio::select! {
        done = publishers.run(&plan) => done?,
        error = progress::watch(&tally, plan.messages(), voice) => return Err(with_log(error, relay)),
    }
    let seconds = started.elapsed().as_secs_f64();
    voice.say(&format!(
        "  published and answered in {seconds:.1} s. Now every message is taken out and counted …\n"
    ));

    let counts = tally.snapshot();
    let relayed = match relay {
        Some(relay) => Some(Relayed::read(relay.admin()).await?),
        None => None,
    };
    let census = Census::take(broker, &queue, plan.ids()).await?;
    cases::delete(&channel, &queue).await?;
    director.close().await?;
    let cases = Cases::play(broker, entry, &prefix).await?;
    let crashes = match relay {
        Some(_) => Crashes { broker, prefix: &prefix, ids: CRASH_IDS.min(args.messages) }.play(voice).await?,
        None => Vec::new(),
    };
    let report = Report { plan, counts, relayed, census, cases, crashes };
    voice.say(&report.flow().to_string());
    voice.say(&report.footnote());
    voice.say("\nThe same broker, the same failures, with a filter that records an id before it knows the outcome:\n");
    voice.say(&report.failures().to_string());
    voice.say(MEASURED);
    if !report.crashes.is_empty() {
        voice.say("\nThe second act: a relay is killed with signal 9 while it works, and its publisher sends everything again:\n");
        voice.say(&report.crashes().to_string());
        voice.say(Report::crash_footnote());
    }
    voice.say(&format!("\n{}", report.verdict()));
    Ok(report)
}

/// How many ids each crash of the second act is played with.
const CRASH_IDS: u64 = 20_000;

const MEASURED: &str = "\
The first column ran just now, against this broker. The two AMQP systems that deduplicate by themselves, noxdafox's
plugin 0.6.2 (RabbitMQ 3.10) and LavinMQ 2.9.1, were measured to lose both messages, too. (In case 2 they return the
second publish once more, although by then a queue is bound.)";

/// The relay's address, with the broker's user, password and vhost.
fn behind(broker: &AMQPUri, relay: &Relay) -> AMQPUri {
    let mut entry = broker.clone();
    entry.authority.host = relay.listen().ip().to_string();
    entry.authority.port = relay.listen().port();
    entry
}

/// The end of the relay's log goes with its folder: what it says must be said now.
fn with_log(error: Error, relay: Option<&Relay>) -> Error {
    let Some(relay) = relay else { return error };
    let log = std::fs::read_to_string(relay.log()).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    let from = lines.len().saturating_sub(20);
    Error::Step(format!("{error}:\n{}", lines.get(from..).unwrap_or_default().join("\n")))
}

/// Leaves what was started running, and says how to end it.
fn keep(rabbit: Option<Rabbit>, relay: Option<Relay>, voice: Voice) -> Result<(), Error> {
    let Some(relay) = relay else { return Ok(()) };
    voice.say("\nKEEP=1: left running");
    let addr = rabbit.as_ref().map(Rabbit::addr);
    let kept = rabbit.map(Rabbit::keep).transpose().map_err(Error::io("letting RabbitMQ go"))?;
    if let (Some(addr), Some(kept)) = (addr, &kept) {
        let pids: Vec<_> = kept.pids.iter().map(u32::to_string).collect();
        voice.say(&format!("  RabbitMQ   amqp://{addr} (guest, guest)   pids {}", pids.join(" ")));
    }
    voice.say(&format!(
        "  Hapax      amqp://{}   pid {}   log {}",
        relay.listen(),
        relay.pid(),
        relay.log().display()
    ));
    voice.say(&format!("  metrics    http://{}/metrics", relay.admin()));
    voice.say(&format!("  stop both  {}", relay.keep(kept.as_ref())?));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_rabbitmq_it_says_what_installs_it() {
        let error = Error::from(rabbit::Error::Missing("/usr/lib/rabbitmq/bin/rabbitmq-server".to_owned()));
        let text = error.to_string();
        assert!(text.contains("make demo") && text.contains("scripts/setup"), "{text}");
    }
}
