//! The binary: reads what is asked for, prepares the process, and hands over to the relay. Exit codes: 0 all went
//! well, 1 failed while running, 2 wrong usage or configuration.

mod run;

use hapax::cli::{Action, Invocation};
use hapax::config::{Config, Loaded};
#[cfg(feature = "tools")]
use hapax::tools::Ended;
use std::io::Write;
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
    let check_as_json = match &invocation.action {
        Action::Serve => None,
        Action::Check { json } => Some(*json),
        // These need no configuration of a relay.
        #[cfg(feature = "tools")]
        Action::Tool(command) => return ended(command.run()),
        #[cfg(feature = "tools")]
        Action::Completions(args) => {
            return written(hapax::cli::generated::completions(args, &mut std::io::stdout()));
        }
        #[cfg(feature = "tools")]
        Action::Man(args) => return written(hapax::cli::generated::man(args, &mut std::io::stdout())),
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
        // Write it by way of the log, so that a reader that has stopped cannot block the end of the process.
        Err(error) => {
            log.say(&format!("error: {error}"));
            ExitCode::from(RUNTIME)
        }
    }
}

#[cfg(feature = "tools")]
fn ended(result: Result<(), Ended>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended { text, code }) => complain(&text, code),
    }
}

/// The end of a command that only prints. A name that is not found is wrong usage; a closed pipe is no failure.
#[cfg(feature = "tools")]
fn written(result: std::io::Result<()>) -> ExitCode {
    use std::io::ErrorKind;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::NotFound => complain(&error, USAGE),
        Err(error) => complain(&format!("can't write: {error}"), RUNTIME),
    }
}

/// Says it on stderr, whatever the log level, and makes the exit code.
fn complain(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let text = error.to_string();
    let prefix = if text.starts_with("error: ") { "" } else { "error: " };
    let _ = writeln!(std::io::stderr(), "{prefix}{text}");
    ExitCode::from(code)
}
