//! `hapax drops`: which duplicates came of late, and who sent them.

use super::super::ApiClient;
use super::super::answer::{Drop, Drops};
use super::super::client::Path;
use super::super::columns::fit;
use super::{Desk, print, table};
use crate::tools::reach::Failure;
use crate::tools::terminal::args::DropsArgs;
use crate::tools::text::{clean, count, grouped, json, or_dash, span};
use serde_json::Value;
use std::time::Duration;

/// Columns of an id or a name that a client has chosen; the rest is cut.
const NAME: usize = 36;
/// Those that a follower begins with.
const BEFORE: u64 = 10;
/// How often a follower asks.
const EVERY: Duration = Duration::from_millis(500);
/// The number that the relay keeps.
const ALL: u64 = 500;

pub(super) fn run(args: &DropsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    if args.follow {
        return follow(args, client, desk);
    }
    let value = client.get(&Path::new("drops").query("limit", &args.limit.unwrap_or(100).to_string()))?;
    if args.reach.json {
        return print(desk.out, &value);
    }
    let answer: Drops = client.understand(value)?;
    let mut table = table(&[
        "AGE",
        "<OUTCOME",
        "<WINDOW",
        "<ID",
        "<VHOST",
        "<EXCHANGE",
        "<ROUTING KEY",
        "<USER",
        "<PEER",
        "FIRST SEEN",
        "DUPLICATES",
        "LEFT OUT",
    ]);
    for drop in &answer.drops {
        table.add_row([
            span(drop.age_seconds),
            outcome(drop),
            fit(&drop.window, NAME),
            fit(&drop.id, NAME),
            fit(&drop.vhost, NAME),
            fit(exchange(drop), NAME),
            fit(&drop.routing_key, NAME),
            or_dash(drop.user.as_deref(), |user| fit(user, NAME)),
            clean(&drop.peer),
            or_dash(drop.first_seen_seconds, span),
            or_dash(drop.duplicates, count),
            count(drop.left_out),
        ]);
    }
    writeln!(desk.out, "{}", table.trim_fmt())?;
    if answer.drops.is_empty() {
        writeln!(desk.remarks, "no duplicate has come yet")?;
    }
    Ok(())
}

/// Prints the last ones, and then each as it comes, until it is stopped.
fn follow(args: &DropsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let (mut last, mut limit) = (0, args.limit.unwrap_or(BEFORE));
    loop {
        let path = Path::new("drops").query("after", &last.to_string()).query("limit", &limit.to_string());
        let value = client.get(&path)?;
        let lines = value.get("drops").and_then(Value::as_array).cloned().unwrap_or_default();
        let answer: Drops = client.understand(value)?;
        for (drop, value) in answer.drops.iter().zip(&lines) {
            if args.reach.json {
                writeln!(desk.out, "{}", json(&value.to_string()))?;
            } else {
                writeln!(desk.out, "{}", line(drop))?;
            }
        }
        desk.out.flush()?;
        // A relay that was started anew counts from one again.
        last = if answer.last < last { 0 } else { answer.last };
        limit = ALL;
        std::thread::sleep(EVERY);
    }
}

fn line(drop: &Drop) -> String {
    let mut line = format!(
        "{} {} {}: id {} to {} key {} in {} from {} at {}",
        clean(&drop.at),
        outcome(drop),
        clean(&drop.window),
        clean(&drop.id),
        clean(exchange(drop)),
        clean(&drop.routing_key),
        clean(&drop.vhost),
        or_dash(drop.user.as_deref(), clean),
        clean(&drop.peer),
    );
    if let (Some(seen), Some(duplicates)) = (drop.first_seen_seconds, drop.duplicates) {
        line.push_str(&format!(", first seen {} ago, duplicates {}", span(seen), count(duplicates)));
    }
    if drop.left_out > 0 {
        line.push_str(&format!(" ({} more not shown)", grouped(drop.left_out)));
    }
    line
}

fn outcome(drop: &Drop) -> String {
    let outcome = clean(&drop.outcome);
    if drop.conflict { format!("{outcome}, other content") } else { outcome }
}

fn exchange(drop: &Drop) -> &str {
    if drop.exchange.is_empty() { "(default)" } else { &drop.exchange }
}
