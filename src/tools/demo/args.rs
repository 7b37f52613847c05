//! The command line of `hapax demo`.

use clap::Args;

/// The arguments of `hapax demo`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct DemoArgs {
    /// How many messages to publish, repeats included
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: u64,
    /// A broker of yours, with credentials [default: a private RabbitMQ node, started for this]
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// A relay of yours before it, with credentials [default: this binary, started for this]
    #[arg(long, value_name = "URL", requires = "upstream")]
    pub relay: Option<String>,
    /// Leave what was started running, and say how to stop it
    #[arg(long, env = "KEEP", value_parser = clap::builder::FalseyValueParser::new())]
    pub keep: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}
