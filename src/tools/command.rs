//! The command line of the tools, and what runs for each command.

use super::bench::{self, BenchArgs};
use super::demo::{self, DemoArgs};
use super::reach::{Access, Failure};
use super::record::{self, RecordArgs};
use super::simulate::{self, SimulateArgs};
use super::terminal::args::TerminalCommand;
use super::terminal::commands::{self, Desk};
use super::terminal::{ApiClient, top};
use crate::process;
use clap::Subcommand;
use std::fmt::Display;
use std::io::{self, IsTerminal};

/// A command of the tools.
#[derive(Subcommand, Clone, PartialEq, Debug)]
pub enum ToolCommand {
    /// Publish repeats through a relay and count what the broker stored
    Demo(DemoArgs),
    #[command(flatten)]
    #[expect(missing_docs, reason = "the flattened enum says it")]
    Terminal(TerminalCommand),
    /// Replay a trace, or a made-up workload, for a grid of capacities and TTLs: how large, how long?
    Simulate(Box<SimulateArgs>),
    /// Record what a window of a running relay judges, for hapax simulate
    Record(RecordArgs),
    /// Put a load on an AMQP broker, or on a relay before it: how fast, and how long does an answer take?
    Bench(Box<BenchArgs>),
}

/// Why a command failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// what is wrong, and what to do
    pub text: String,
    /// the exit code: 1 failed while running, 2 wrong usage
    pub code: u8,
}

impl Ended {
    fn with(code: u8, error: impl Display) -> Ended {
        Ended { text: error.to_string(), code }
    }

    fn at_run_time(error: impl Display) -> Ended {
        Ended::with(1, error)
    }

    /// Says why a request to a running relay failed. A reader that closed the pipe has seen enough: that is no failure.
    fn operate(result: Result<(), Failure>) -> Result<(), Ended> {
        match result {
            Err(failure) if !failure.is_closed_pipe() => Err(Ended::with(failure.exit_code(), &failure)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl ToolCommand {
    /// Runs the command to its end.
    pub fn run(&self) -> Result<(), Ended> {
        match self {
            ToolCommand::Demo(args) => run_demo(args),
            ToolCommand::Terminal(command) => Ended::operate(run_terminal(command)),
            ToolCommand::Simulate(args) => simulate::run(args).map_err(Ended::at_run_time),
            ToolCommand::Record(args) => {
                run_record(args).map_err(|error| Ended::with(error.exit_code(), error))
            }
            ToolCommand::Bench(args) => {
                // A load has many connections. If the limit can't be raised, a connection says so.
                let _ = process::raise_file_limit();
                bench::run(args).map_err(|error| Ended::with(error.exit_code(), error))
            }
        }
    }
}

fn run_demo(args: &DemoArgs) -> Result<(), Ended> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Ended::at_run_time(format!("the operating system refuses what Hapax needs: {error}"))
    })?;
    let result = runtime.block_on(demo::run(args));
    // Do not wait for a node that is still starting: its leash ends it when this process ends.
    runtime.shutdown_background();
    match result {
        Ok(true) => Ok(()),
        Ok(false) => Err(Ended::at_run_time("a check of the demo does not hold")),
        Err(error) => Err(Ended::at_run_time(error)),
    }
}

fn run_terminal(command: &TerminalCommand) -> Result<(), Failure> {
    let reach = command.reach();
    let access =
        Access::new(reach.admin.as_deref(), reach.admin_ca.as_deref(), reach.token_file.as_deref(), token())?;
    let client = match command {
        TerminalCommand::Reload(_) => ApiClient::for_reloads(access),
        _ => ApiClient::new(access),
    };
    let (mut out, mut remarks, mut answers) = (io::stdout().lock(), io::stderr().lock(), io::stdin().lock());
    // Ask for a confirmation only where a person can read the question and answer it.
    let asked = io::stdin().is_terminal() && io::stderr().is_terminal();
    let mut desk = Desk {
        out: &mut out,
        remarks: &mut remarks,
        answers: asked.then_some(&mut answers as &mut dyn io::BufRead),
    };
    match command {
        TerminalCommand::Top(args) if args.reach.json => top::stream(&client, args.once, desk.out),
        TerminalCommand::Top(_) => top::run(client),
        TerminalCommand::Windows(args) => commands::windows(args, &client, &mut desk),
        TerminalCommand::Ids(args) => commands::ids(args, &client, &mut desk),
        TerminalCommand::Producers(args) => commands::producers(args, &client, &mut desk),
        TerminalCommand::Connections(args) => commands::connections(args, &client, &mut desk),
        TerminalCommand::Reload(args) => commands::reload(args, &client, &mut desk),
        TerminalCommand::Upstreams(args) => commands::upstreams(args, &client, &mut desk),
        TerminalCommand::Journal(args) => commands::journal(args, &client, &mut desk),
        TerminalCommand::Drain(args) => commands::drain(args, &client, &mut desk),
        TerminalCommand::Log(args) => commands::log(args, &client, &mut desk),
        TerminalCommand::Drops(args) => commands::drops(args, &client, &mut desk),
        TerminalCommand::Chaos(args) => commands::chaos(args, &client, &mut desk),
    }
}

fn run_record(args: &RecordArgs) -> Result<(), record::Error> {
    record::run(
        args,
        &Access::new(args.admin.as_deref(), args.admin_ca.as_deref(), args.token_file.as_deref(), token())?,
    )
}

fn token() -> Option<String> {
    std::env::var("HAPAX_ADMIN_TOKEN").ok()
}
