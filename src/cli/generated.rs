//! Prints texts that are made from the definition of the command line and of the documented configuration file: shell completions and
//! manual pages.

use super::config_page;
use clap::{Args, Command};
use clap_complete::Shell;
use std::io::{self, Write};
use std::path::PathBuf;

/// The arguments of `hapax completions`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
#[command(after_help = "\
bash  hapax completions bash > ~/.local/share/bash-completion/completions/hapax
zsh   hapax completions zsh > ~/.zfunc/_hapax        (with ~/.zfunc in fpath)
fish  hapax completions fish > ~/.config/fish/completions/hapax.fish")]
pub struct CompletionsArgs {
    /// For which shell
    pub shell: Shell,
}

/// The arguments of `hapax man`.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
#[command(after_help = "hapax man | man -l -            read it\nhapax man windows set | man -l -
hapax man hapax.toml | man -l -     the configuration file")]
pub struct ManArgs {
    /// The command whose page is printed, or `hapax.toml` [default: hapax itself]
    pub command: Vec<String>,
    /// Write all pages into this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    pub out: Option<PathBuf>,
}

/// Prints completions for a shell.
pub fn completions(args: &CompletionsArgs, out: &mut dyn Write) -> io::Result<()> {
    // The generator panics if it can't write. A closed pipe must not cause a panic, so write to memory first.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut super::definition(), "hapax", &mut text);
    out.write_all(&text)
}

/// The name of the configuration file's page, where a command could stand.
const CONFIG: &str = "hapax.toml";

/// Prints a manual page, or writes all pages to a directory.
pub fn man(args: &ManArgs, out: &mut dyn Write) -> io::Result<()> {
    let mut root = super::definition();
    root.build();
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder)?;
        clap_mangen::generate_to(root, folder)?;
        return std::fs::write(folder.join("hapax.toml.5"), config_page::page().render());
    }
    if args.command == [CONFIG] {
        return config_page::page().to_writer(out);
    }
    let command = find(&root, &args.command).ok_or_else(|| {
        let text = format!("there is no command `hapax {}`; see hapax --help", args.command.join(" "));
        io::Error::new(io::ErrorKind::NotFound, text)
    })?;
    clap_mangen::Man::new(command.clone()).render(out)
}

fn find<'a>(command: &'a Command, path: &[String]) -> Option<&'a Command> {
    path.iter().try_fold(command, |command, name| command.find_subcommand(name))
}
