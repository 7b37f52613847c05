//! The commands that ask once and end: `windows`, `ids`, `producers`, `connections`, `upstreams`, `journal`, `drain`, `log`, `reload`, `chaos`, `drops` (which can also stay). Text for people, or with `--json` what the relay
//! said.

mod chaos;
mod connections;
mod control;
mod drops;
mod ids;
mod producers;
mod reload;
mod upstreams;
mod windows;

use super::ApiClient;
use crate::tools::reach::Failure;
use crate::tools::terminal::args::{
    ChaosArgs, ConnectionsArgs, DrainArgs, DropsArgs, IdsArgs, JournalArgs, LogArgs, ProducersArgs,
    ReloadArgs, UpstreamsArgs, WindowsArgs,
};
use crate::tools::text::json;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;
use std::io::{BufRead, Write};

/// The input and the outputs of a command.
pub struct Desk<'a> {
    /// for what was asked for
    pub out: &'a mut dyn Write,
    /// for questions and remarks
    pub remarks: &'a mut dyn Write,
    /// for answers; none where nobody can be asked
    pub answers: Option<&'a mut dyn BufRead>,
}

impl Desk<'_> {
    /// Asks whether something is meant that can't be undone. `unasked` is what to say where nobody can be asked.
    fn confirm(&mut self, question: &str, unasked: &str) -> Result<bool, Failure> {
        let Some(answers) = self.answers.as_deref_mut() else {
            let what = format!("{unasked}, and nobody can be asked whether that is meant");
            return Err(Failure::usage(what, "add --yes"));
        };
        write!(self.remarks, "{question} [y/N] ")?;
        self.remarks.flush()?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        let is_meant = matches!(answer.trim(), "y" | "Y" | "yes");
        if !is_meant {
            writeln!(self.remarks, "nothing was changed")?;
        }
        Ok(is_meant)
    }
}

/// `hapax windows …`
pub fn windows(args: &WindowsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    windows::run(args, client, desk)
}

/// `hapax ids …`
pub fn ids(args: &IdsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    ids::run(args, client, desk)
}

/// `hapax producers …`
pub fn producers(args: &ProducersArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    producers::run(args, client, desk)
}

/// `hapax connections`
pub fn connections(args: &ConnectionsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    connections::run(args, client, desk)
}

/// `hapax reload`
pub fn reload(args: &ReloadArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    reload::run(args, client, desk)
}

/// `hapax upstreams`
pub fn upstreams(args: &UpstreamsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    upstreams::run(args, client, desk)
}

/// `hapax journal`
pub fn journal(args: &JournalArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    control::journal(args, client, desk)
}

/// `hapax drain`
pub fn drain(args: &DrainArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    control::drain(args, client, desk)
}

/// `hapax log`
pub fn log(args: &LogArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    control::log(args, client, desk)
}

/// `hapax chaos …`
pub fn chaos(args: &ChaosArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    chaos::run(args, client, desk)
}

/// `hapax drops`
pub fn drops(args: &DropsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    drops::run(args, client, desk)
}

/// A document, for programs and for people who pipe.
fn print(out: &mut dyn Write, value: &Value) -> Result<(), Failure> {
    writeln!(out, "{}", json(&format!("{value:#}")))?;
    Ok(())
}

/// Columns without lines between them. A `<` before a heading says that its column is text, on the left.
fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(headings.iter().map(|heading| heading.trim_start_matches('<')));
    for (column, heading) in table.column_iter_mut().zip(headings) {
        let right = !heading.starts_with('<');
        column.set_cell_alignment(if right { CellAlignment::Right } else { CellAlignment::Left });
        column.set_padding((0, 2));
    }
    table
}
