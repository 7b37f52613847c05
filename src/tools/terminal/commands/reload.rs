//! `hapax reload`.

use super::super::ApiClient;
use super::super::client::Path;
use super::{Desk, print};
use crate::tools::reach::Failure;
use crate::tools::terminal::args::ReloadArgs;
use crate::tools::text::clean;
use serde::Deserialize;
use ureq::http::Method;

/// The relay's answer, as far as it is shown.
#[derive(Deserialize)]
struct Answer {
    needs_restart: bool,
    changes: Vec<Change>,
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Change {
    key: String,
    from: Option<String>,
    to: Option<String>,
    effect: String,
    note: Option<String>,
}

pub(super) fn run(args: &ReloadArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let path = Path::new("reload");
    let path = if args.dry_run { path.query("dry_run", "true") } else { path };
    let value = client.call(Method::POST, &path, None)?;
    if args.reach.json {
        return print(desk.out, &value);
    }
    let answer: Answer = client.understand(value)?;
    for change in &answer.changes {
        let effect = match change.effect.as_str() {
            "now" => "",
            "new_connections" => " (connections that begin from now on)",
            _ => " (NEEDS A RESTART)",
        };
        let key = clean(&change.key);
        let said = match (&change.from, &change.to) {
            (Some(from), Some(to)) => format!("{key}: {} → {}", clean(from), clean(to)),
            (None, Some(to)) => format!("{key}: added, {}", clean(to)),
            (Some(from), None) => format!("{key}: removed, was {}", clean(from)),
            (None, None) => key,
        };
        writeln!(desk.out, "{said}{effect}")?;
        if let Some(note) = &change.note {
            writeln!(desk.out, "    {}", clean(note))?;
        }
    }
    for warning in &answer.warnings {
        writeln!(desk.remarks, "warning: {}", clean(warning))?;
    }
    let changes = match answer.changes.len() {
        0 => "nothing to change".to_owned(),
        1 => "1 change".to_owned(),
        n => format!("{n} changes"),
    };
    let said = match (args.dry_run, answer.needs_restart) {
        (true, true) => "a reload would refuse this: it does all or nothing, and something needs a restart",
        (true, false) => "nothing was done; a reload would do it",
        (false, _) => "reloaded",
    };
    writeln!(desk.remarks, "{changes}: {said}")?;
    Ok(())
}
