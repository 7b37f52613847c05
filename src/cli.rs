//! Parses the command line and the environment: which command to run, and which settings override the file. Values of
//! settings are not checked here but in [`crate::config`], which reports their errors together with those of the file.

#[cfg(feature = "tools")]
mod config_page;
#[cfg(feature = "tools")]
pub mod generated;

use crate::config::{Given, Overrides, Secret, Source};
use crate::store::command::StoreCommand;
#[cfg(feature = "tools")]
use crate::tools::{ToolCommand, terminal::args::TerminalCommand};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

#[cfg(feature = "tools")]
use generated::{CompletionsArgs, ManArgs};

#[cfg(feature = "tools")]
const EXAMPLES: &str = "\
Examples:
  hapax                                        defaults: one window, a RabbitMQ on this host
  hapax --upstream amqp://rabbitmq:5672 --listen 0.0.0.0:5673
  hapax check --config hapax.toml              what holds, or all that is wrong
  hapax --config hapax.toml                    serve
  hapax demo                                   watch it work
  hapax top                                    watch the relay that runs here

Publishers connect to --listen instead of to RabbitMQ, with the same user, password and vhost.
The admin listener's token comes from `admin_token_file` in the file or from HAPAX_ADMIN_TOKEN.
SIGTERM or Ctrl-C drains: what is in flight is settled first. The second one ends at once.

Exit codes: 0 all went well, 1 failed while running, 2 wrong usage or configuration.";
#[cfg(not(feature = "tools"))]
const EXAMPLES: &str = "\
Examples:
  hapax                                        defaults: one window, a RabbitMQ on this host
  hapax --upstream amqp://rabbitmq:5672 --listen 0.0.0.0:5673
  hapax check --config hapax.toml              what holds, or all that is wrong
  hapax --config hapax.toml                    serve

Publishers connect to --listen instead of to RabbitMQ, with the same user, password and vhost.
The admin listener's token comes from `admin_token_file` in the file or from HAPAX_ADMIN_TOKEN.
SIGTERM or Ctrl-C drains: what is in flight is settled first. The second one ends at once.

This build has no tools (demo, top, windows, bench and others): the cargo feature `tools` adds them.

Exit codes: 0 all went well, 1 failed while running, 2 wrong usage or configuration.";

/// An AMQP 0-9-1 relay that takes out the publishes whose message-id RabbitMQ has already stored.
#[derive(Parser, Debug)]
#[command(name = "hapax", version, about, after_help = EXAMPLES, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Relay (what hapax does without a command)
    Serve(SettingsArgs),
    /// Validate the configuration and print what holds as TOML, each line with its source
    Check(CheckArgs),
    /// Look at what windows with `store = "disk"` have kept in a folder; a relay may be at work there
    #[command(subcommand)]
    Store(StoreCommand),
    #[cfg(feature = "tools")]
    #[command(flatten)]
    Tool(ToolCommand),
    /// Print completions for a shell
    #[cfg(feature = "tools")]
    Completions(CompletionsArgs),
    /// Print the manual page, in the form that man(1) reads
    #[cfg(feature = "tools")]
    Man(ManArgs),
}

/// The arguments of `hapax check`.
#[derive(Args, Debug)]
struct CheckArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Print it, or what is wrong, as JSON
    #[arg(long)]
    json: bool,
}

/// Flags come before the environment, the environment before the file.
#[derive(Args, Debug)]
struct SettingsArgs {
    /// The configuration file; without one, defaults hold
    #[arg(long, value_name = "FILE", env = "HAPAX_CONFIG")]
    config: Option<OsString>,
    /// Where AMQP clients connect [default: 127.0.0.1:5673]
    #[arg(long, value_name = "IP:PORT", env = "HAPAX_LISTEN")]
    listen: Option<String>,
    /// The broker [default: amqp://127.0.0.1:5672]
    #[arg(long, value_name = "amqp://HOST:PORT", env = "HAPAX_UPSTREAM", hide_env_values = true)]
    upstream: Option<String>,
    /// Where metrics, health and the API are served, or "off" [default: 127.0.0.1:15673]
    #[arg(long, value_name = "IP:PORT", env = "HAPAX_ADMIN")]
    admin: Option<String>,
    /// What is logged: a level, or levels by target [default: info]
    #[arg(long, value_name = "FILTER", env = "HAPAX_LOG")]
    log: Option<String>,
}

/// The command to run.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "tools", expect(clippy::large_enum_variant, reason = "there is one for each process"))]
pub enum Action {
    /// run the relay until a signal stops it
    Serve,
    /// check the configuration, print it, and end
    Check {
        /// print it as JSON
        json: bool,
    },
    /// look at what stores have kept in a folder
    Store(StoreCommand),
    /// run a tool
    #[cfg(feature = "tools")]
    Tool(ToolCommand),
    /// print completions for a shell
    #[cfg(feature = "tools")]
    Completions(CompletionsArgs),
    /// print manual pages
    #[cfg(feature = "tools")]
    Man(ManArgs),
}

/// A valid command line.
#[derive(Clone, PartialEq, Debug)]
pub struct Invocation {
    /// the command to run
    pub action: Action,
    /// the configuration file
    pub file: Option<PathBuf>,
    /// values that override the file
    pub overrides: Overrides,
}

impl Invocation {
    /// Parses this process's arguments and environment. The error prints itself; its exit code is 2 for wrong usage
    /// and 0 for help or version.
    pub fn of_process() -> Result<Invocation, clap::Error> {
        Invocation::parse(std::env::args_os())
    }

    /// Parses these arguments and this process's environment.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
        let matches = definition().try_get_matches_from(args)?;
        let cli = Cli::from_arg_matches(&matches)?;
        let (action, inner) = match cli.command {
            None => (Action::Serve, None),
            Some(Command::Serve(_)) => (Action::Serve, matches.subcommand()),
            Some(Command::Check(CheckArgs { settings: _, json })) => {
                (Action::Check { json }, matches.subcommand())
            }
            Some(Command::Store(command)) => (Action::Store(command), None),
            #[cfg(feature = "tools")]
            Some(Command::Tool(ToolCommand::Terminal(command))) => {
                (Action::Tool(ToolCommand::Terminal(complete(command, &matches)?)), None)
            }
            #[cfg(feature = "tools")]
            Some(Command::Tool(command)) => (Action::Tool(command), None),
            #[cfg(feature = "tools")]
            Some(Command::Completions(args)) => (Action::Completions(args), None),
            #[cfg(feature = "tools")]
            Some(Command::Man(args)) => (Action::Man(args), None),
        };
        // Settings may stand before or after the command: `hapax --config F check` is the same as `hapax check
        // --config F`.
        let levels = [Some(&matches), inner.map(|(_, matches)| matches)];
        Ok(Invocation {
            action,
            file: pick::<OsString>(&levels, "config").map(|(value, _)| PathBuf::from(value)),
            overrides: Overrides {
                listen: given(&levels, "listen", "--listen", "HAPAX_LISTEN"),
                upstream: given(&levels, "upstream", "--upstream", "HAPAX_UPSTREAM"),
                admin: given(&levels, "admin", "--admin", "HAPAX_ADMIN"),
                log: given(&levels, "log", "--log", "HAPAX_LOG"),
                admin_token: secret("HAPAX_ADMIN_TOKEN"),
            },
        })
    }
}

/// Returns the definition of the command line, from which completions and manual pages are made.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Adds the relay's address from settings that stand before the command: `hapax --admin X top` means `hapax top
/// --admin X`. `HAPAX_ADMIN`, a setting of the relay, is used as well. A command that asks a running relay ignores all
/// other settings.
#[cfg(feature = "tools")]
fn complete(mut command: TerminalCommand, matches: &ArgMatches) -> Result<TerminalCommand, clap::Error> {
    for (id, flag) in
        [("config", "--config"), ("listen", "--listen"), ("upstream", "--upstream"), ("log", "--log")]
    {
        if matches.value_source(id) == Some(ValueSource::CommandLine) {
            let text = format!(
                "{flag} is for a relay that is started; this command asks one that runs (--admin URL)"
            );
            return Err(definition().error(clap::error::ErrorKind::ArgumentConflict, text));
        }
    }
    let own = matches.subcommand().map(|(_, matches)| matches);
    let levels = [own, Some(matches)];
    let url = pick::<String>(&levels[..1], "admin_url");
    let admin = pick::<String>(&levels[1..], "admin");
    // A flag wins over a variable. Among variables `HAPAX_ADMIN_URL` wins, because it is meant for these commands.
    let chosen = [url, admin].into_iter().flatten().rev().max_by_key(|(_, source)| *source);
    command.reach_mut().admin = chosen.map(|(value, _)| value);
    Ok(command)
}

fn given(levels: &[Option<&ArgMatches>], id: &str, flag: &'static str, env: &'static str) -> Option<Given> {
    let (value, source) = pick::<String>(levels, id)?;
    let source = if source == ValueSource::EnvVariable { Source::Env(env) } else { Source::Flag(flag) };
    Some(Given { value, source })
}

/// Reads a secret from the environment. There is no flag for it, because every user of a host can read command lines.
fn secret(env: &str) -> Option<Secret> {
    let value = std::env::var_os(env).filter(|value| !value.is_empty())?;
    // A token that is not UTF-8 is invalid. The text with replacement characters is invalid, too, so it is rejected
    // later.
    Some(Secret(value.to_string_lossy().into_owned()))
}

/// Returns the value whose source is strongest. If a flag is given twice, the one after the command wins. An empty
/// variable counts as unset.
fn pick<T>(levels: &[Option<&ArgMatches>], id: &str) -> Option<(T, ValueSource)>
where
    T: Clone + Send + Sync + AsRef<std::ffi::OsStr> + 'static,
{
    let value = |matches: &&ArgMatches| Some((matches.get_one::<T>(id)?.clone(), matches.value_source(id)?));
    let empty =
        |(value, source): &(T, ValueSource)| *source == ValueSource::EnvVariable && value.as_ref().is_empty();
    levels.iter().flatten().filter_map(value).filter(|found| !empty(found)).max_by_key(|(_, source)| *source)
}

#[cfg(test)]
#[cfg(feature = "tools")]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, clap::Error> {
        Invocation::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn serve_is_what_it_does_without_a_command() {
        let plain = parse("hapax --listen 127.0.0.1:1").expect("valid");
        assert_eq!(plain, parse("hapax serve --listen 127.0.0.1:1").expect("valid"));
        assert_eq!(plain.action, Action::Serve);
        let listen = plain.overrides.listen.expect("given");
        assert_eq!((listen.value.as_str(), listen.source), ("127.0.0.1:1", Source::Flag("--listen")));
    }

    #[test]
    fn flags_may_stand_before_or_behind_the_command() {
        let before = parse("hapax --config a.toml check").expect("valid");
        assert_eq!(before, parse("hapax check --config a.toml").expect("valid"));
        assert_eq!(before.file, Some(PathBuf::from("a.toml")));
        let both = parse("hapax --config a.toml check --config b.toml").expect("valid");
        assert_eq!(both.file, Some(PathBuf::from("b.toml")));
    }

    fn admin_of(line: &str) -> Option<String> {
        let Action::Tool(ToolCommand::Terminal(command)) = parse(line).expect("valid").action else {
            panic!("another command: {line}")
        };
        command.reach().admin.clone()
    }

    #[test]
    fn the_relay_is_named_before_or_behind_the_command() {
        for line in [
            "hapax --admin h:1 top",
            "hapax top --admin h:1",
            "hapax windows --admin h:1 list",
            "hapax windows list --admin h:1",
            "hapax --admin h:2 ids get w i --admin h:1",
        ] {
            assert_eq!(admin_of(line).as_deref(), Some("h:1"), "{line}");
        }
    }

    #[test]
    fn what_is_for_a_start_is_refused_where_nothing_is_started() {
        let error = parse("hapax --config a.toml top").expect_err("not for top");
        assert!(error.to_string().contains("--config is for a relay that is started"), "{error}");
        for line in ["hapax windows set w", "hapax top --once", "hapax ids get w", "hapax completions"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn windows_and_ids_alone_list() {
        for line in ["hapax windows", "hapax ids", "hapax windows --json"] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn demo_has_its_own_urls() {
        let Action::Tool(ToolCommand::Demo(args)) =
            parse("hapax demo --messages 5 --json").expect("valid").action
        else {
            panic!("not the demo")
        };
        assert_eq!((args.messages, args.json, args.upstream), (5, true, None));
        assert!(parse("hapax demo --relay amqp://127.0.0.1").is_err(), "before which broker?");
        assert!(parse("hapax demo --messages 0").is_err());
    }
}
