//! The binary: reads what is asked for, prepares the process, and hands over to the relay. Exit codes: 0 all went
//! well, 1 failed while running, 2 wrong usage or configuration.

mod run;

use hapax::cli::{self, Action, Invocation};
use hapax::config::{Config, Loaded};
use hapax::tools::terminal::Failure;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Failed while running.
const RUNTIME: u8 = 1;
/// Wrong usage or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let invocation = match Invocation::of_process() {
        Ok(invocation) => invocation,
        // Help, version, or wrong usage: clap prints each where it belongs and ends with 0 or 2.
        Err(error) => error.exit(),
    };
    // What needs no configuration of a relay is done at once; of the rest, `check` says in which form.
    let check_as_json = match &invocation.action {
        Action::Demo(args) => return finish(run::demo(args)),
        Action::Terminal(command) => return operate(run::terminal(command)),
        Action::Completions(args) => {
            return written(cli::generated::completions(args, &mut std::io::stdout()));
        }
        Action::Man(args) => return written(cli::generated::man(args, &mut std::io::stdout())),
        Action::Simulate(args) => return finish(run::simulate(args)),
        Action::Record(args) => return ended(run::record(args), |error| error.exit_code()),
        Action::Bench(args) => return ended(run::bench(args), |error| error.exit_code()),
        Action::Serve => None,
        Action::Check { json } => Some(*json),
    };
    let loaded = match Config::load(invocation.file.as_deref(), &invocation.overrides) {
        Ok(loaded) => loaded,
        Err(problems) if check_as_json == Some(true) => return check_json(&problems.to_json(), USAGE),
        Err(problems) => return complain(&problems, USAGE),
    };
    match check_as_json {
        Some(true) => check_json(&loaded.to_json(), 0),
        Some(false) => check(&loaded),
        None => serve(loaded),
    }
}

/// `hapax check`: the effective settings to stdout, warnings to stderr.
fn check(loaded: &Loaded) -> ExitCode {
    for warning in &loaded.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    // A closed pipe (`hapax check | head`) is no failure of the configuration.
    let _ = std::io::stdout().write_all(loaded.to_toml().as_bytes());
    ExitCode::SUCCESS
}

/// `hapax check --json`: settings, sources and warnings, or all that is wrong, as one document on stdout.
fn check_json(document: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stdout(), "{document}");
    ExitCode::from(code)
}

/// The commands that ask a running relay.
fn operate(result: Result<(), Failure>) -> ExitCode {
    match result {
        Err(failure) if !failure.is_closed_pipe() => complain(&failure, failure.exit_code()),
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

fn written(result: std::io::Result<()>) -> ExitCode {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => complain(&error, USAGE),
        result => operate(result.map_err(Failure::Io)),
    }
}

fn serve(loaded: Loaded) -> ExitCode {
    let log = match hapax::log::init(&loaded.config.log) {
        Ok(log) => log,
        Err(error) => return complain(&format!("the log can't be started: {error}"), RUNTIME),
    };
    for warning in &loaded.warnings {
        tracing::warn!(place = warning.place, fix = warning.fix, "{}", warning.what);
    }
    run::raise_file_limit(loaded.config.limits.max_connections);
    match run::serve(loaded.config) {
        Ok(()) => ExitCode::SUCCESS,
        // By way of the log: whoever does not read that must not keep the process from its end.
        Err(error) => {
            log.say(&format!("error: {error}"));
            ExitCode::from(RUNTIME)
        }
    }
}

fn finish(result: Result<(), run::Failure>) -> ExitCode {
    ended(result, |_| RUNTIME)
}

fn ended<E: std::fmt::Display>(result: Result<(), E>, code: impl FnOnce(&E) -> u8) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, code(&error)),
    }
}

/// Says it on stderr, whatever the log level, and makes the exit code.
fn complain(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let text = error.to_string();
    let prefix = if text.starts_with("error: ") { "" } else { "error: " };
    let _ = writeln!(std::io::stderr(), "{prefix}{text}");
    ExitCode::from(code)
}
