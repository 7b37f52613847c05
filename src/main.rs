//! The binary. It reads the command line, prepares the process, and runs the relay or a tool. Exit codes: 0 success, 1
//! failed while running, 2 wrong usage or configuration.

mod run;

use hapax::cli::{Action, Invocation};
use hapax::config::{Config, Loaded};
use hapax::live::Source;
use hapax::service::Sockets;
#[cfg(feature = "tools")]
use hapax::tools::Ended;
use std::io::Write;
use std::process::ExitCode;

/// Exit code: the process failed while running.
const RUNTIME: u8 = 1;
/// Exit code: wrong usage or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // This changes the environment, so it comes first: there is no other thread yet.
    let sockets = Sockets::of_process();
    let invocation = match Invocation::of_process() {
        Ok(invocation) => invocation,
        // Help, version, or wrong usage. clap prints the text to the right stream and exits with 0 or 2.
        Err(error) => error.exit(),
    };
    let check_as_json = match &invocation.action {
        Action::Serve => None,
        Action::Check { json } => Some(*json),
        // These need no configuration of a relay.
        Action::Store(command) => return looked(command.run(&mut std::io::stdout())),
        #[cfg(feature = "tools")]
        Action::Tool(command) => return ended(command.run()),
        #[cfg(feature = "tools")]
        Action::Completions(args) => {
            return written(hapax::cli::generated::completions(args, &mut std::io::stdout()));
        }
        #[cfg(feature = "tools")]
        Action::Man(args) => return written(hapax::cli::generated::man(args, &mut std::io::stdout())),
    };
    // Before the configuration is read, which may take a while.
    let begun = match check_as_json.is_none().then(run::Begun::new).transpose() {
        Ok(begun) => begun,
        Err(failure) => return complain(&failure, RUNTIME),
    };
    let loaded = match Config::load(invocation.file.as_deref(), &invocation.overrides) {
        Ok(loaded) => loaded,
        Err(problems) if check_as_json == Some(true) => return check_json(&problems.to_json(), USAGE),
        Err(problems) => return complain(&problems, USAGE),
    };
    let Some(begun) = begun else {
        return if check_as_json == Some(true) { check_json(&loaded.to_json(), 0) } else { check(&loaded) };
    };
    match sockets {
        Ok(sockets) => {
            let source = Source { file: invocation.file, overrides: invocation.overrides };
            serve(begun, loaded, source, sockets)
        }
        Err(error) => complain(&error, RUNTIME),
    }
}

/// Runs `hapax check`: prints the settings in force on stdout, and warnings on stderr.
fn check(loaded: &Loaded) -> ExitCode {
    for warning in &loaded.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    // A closed pipe (`hapax check | head`) does not make the configuration wrong.
    let _ = std::io::stdout().write_all(loaded.to_toml().as_bytes());
    ExitCode::SUCCESS
}

/// Runs `hapax check --json`: prints settings, sources and warnings, or all errors, as one JSON document on stdout.
fn check_json(document: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stdout(), "{document}");
    ExitCode::from(code)
}

fn serve(begun: run::Begun, loaded: Loaded, source: Source, sockets: Sockets) -> ExitCode {
    let log = match hapax::log::init(&loaded.config.log) {
        Ok(log) => log,
        Err(error) => return complain(&format!("the log can't be started: {error}"), RUNTIME),
    };
    for warning in &loaded.warnings {
        tracing::warn!(place = warning.place, fix = warning.fix, "{}", warning.what);
    }
    run::raise_file_limit(loaded.config.limits.max_connections);
    match run::serve(begun, loaded.config, source, sockets) {
        Ok(()) => ExitCode::SUCCESS,
        // Write through the log. A direct write would block if nobody reads stderr, and the process could not end.
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

/// Ends a command that has looked at a store. Damage is a failure.
fn looked(result: std::io::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(RUNTIME),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&error, RUNTIME),
    }
}

/// Ends a command that only prints. An unknown name is wrong usage. A closed pipe is not a failure.
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

/// Prints an error on stderr, whatever the log level is. Returns the exit code.
fn complain(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let text = error.to_string();
    let prefix = if text.starts_with("error: ") { "" } else { "error: " };
    let _ = writeln!(std::io::stderr(), "{prefix}{text}");
    ExitCode::from(code)
}
