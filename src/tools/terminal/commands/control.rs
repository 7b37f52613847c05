//! `hapax journal`, `hapax drain` and `hapax log`: the recent events of a relay, and orders to it.

use super::super::ApiClient;
use super::super::answer::{Drain, Journal, LogLevel};
use super::super::client::Path;
use super::{Desk, print, table};
use crate::tools::reach::Failure;
use crate::tools::terminal::args::{DrainArgs, JournalArgs, LogArgs};
use crate::tools::text::{clean, grouped, or_dash, span};
use serde_json::json;
use ureq::http::Method;

pub(super) fn journal(args: &JournalArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let value = client.get(&Path::new("journal").query("limit", &args.limit.to_string()))?;
    if args.reach.json {
        return print(desk.out, &value);
    }
    let journal: Journal = client.understand(value)?;
    let mut table = table(&["<AT", "<WHAT", "<WINDOW", "<TEXT", "<BY"]);
    for entry in &journal.entries {
        table.add_row([
            clean(&entry.at),
            clean(&entry.kind),
            or_dash(entry.window.as_deref(), clean),
            clean(&entry.text),
            or_dash(entry.by.as_deref(), clean),
        ]);
    }
    writeln!(desk.out, "{}", table.trim_fmt())?;
    Ok(())
}

pub(super) fn drain(args: &DrainArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let question =
        format!("let the relay at {} end, once all is settled? It can't be taken back.", client.url());
    if !args.yes && !desk.confirm(&question, "a drain ends the relay")? {
        return Ok(());
    }
    let value = client.call(Method::POST, &Path::new("drain"), None)?;
    if args.reach.json {
        return print(desk.out, &value);
    }
    let drain: Drain = client.understand(value)?;
    writeln!(desk.out, "draining: {} connections", grouped(drain.connections))?;
    let (delay, timeout) = (span(drain.delay_seconds), span(drain.timeout_seconds));
    writeln!(desk.remarks, "they are served for {delay}, and settled within {timeout} after that")?;
    Ok(())
}

pub(super) fn log(args: &LogArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let path = Path::new("log");
    let value = match &args.level {
        None => client.get(&path)?,
        Some(level) => client.call(Method::PUT, &path, Some(&json!({ "level": level })))?,
    };
    if args.reach.json {
        return print(desk.out, &value);
    }
    let log: LogLevel = client.understand(value)?;
    writeln!(desk.out, "{}", clean(&log.level))?;
    if log.level != log.configured {
        let configured = clean(&log.configured);
        writeln!(desk.remarks, "until the relay restarts or reloads; the configuration says {configured}")?;
    }
    Ok(())
}
