//! `hapax chaos start|status|stop|report`: a run of chaos, and what it has done.

use super::super::ApiClient;
use super::super::answer::{Chaos, ChaosAnswers, ChaosReplays, ChaosRun};
use super::super::client::Path;
use super::{Desk, print, table};
use crate::tools::reach::Failure;
use crate::tools::terminal::args::{ChaosArgs, ChaosCommand, ChaosStartArgs, ReportFormat};
use crate::tools::text::{clean, grouped, or_dash, span};
use serde_json::{Map, Value, json};
use std::io::Write;
use ureq::http::Method;

pub(super) fn run(args: &ChaosArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let path = Path::new("chaos");
    match &args.command {
        ChaosCommand::Start(start) => {
            let value = client.call(Method::POST, &path, Some(&order(start)))?;
            if args.reach.json {
                return print(desk.out, &value);
            }
            let run: ChaosRun = client.understand(value)?;
            writeln!(desk.out, "chaos for {}, seed {}", span(run.duration_seconds), run.seed)?;
            writeln!(
                desk.remarks,
                "it ends by itself; hapax chaos stop ends it now, hapax chaos report says what it does"
            )?;
        }
        ChaosCommand::Status => {
            let value = client.get(&path)?;
            if args.reach.json {
                return print(desk.out, &value);
            }
            status(&client.understand(value)?, desk)?;
        }
        ChaosCommand::Stop => {
            let value = client.call(Method::DELETE, &path, None)?;
            if args.reach.json {
                return print(desk.out, &value);
            }
            let run: ChaosRun = client.understand(value)?;
            writeln!(desk.out, "stopped after {}: {}", span(run.elapsed_seconds), done(&run))?;
        }
        ChaosCommand::Report { format } => {
            let mut value = client.get(&path)?;
            if args.reach.json || *format == ReportFormat::Json {
                return print(desk.out, value.get_mut("run").unwrap_or(&mut Value::Null));
            }
            let chaos: Chaos = client.understand(value)?;
            match &chaos.run {
                Some(run) => report(run, desk)?,
                None => writeln!(desk.out, "there was no run since the relay started")?,
            }
        }
    }
    Ok(())
}

/// Writes a run as the API reads it.
fn order(args: &ChaosStartArgs) -> Value {
    let mut order = Map::new();
    let shares = [
        ("drop_acks", args.drop_acks),
        ("hold_acks", args.hold_acks),
        ("cut", args.cut),
        ("redeliver", args.redeliver),
        ("replay", args.replay),
    ];
    order.extend(args.seed.map(|seed| ("seed".to_owned(), json!(seed))));
    order.insert("duration".to_owned(), json!(args.duration));
    order.insert("hold_for".to_owned(), json!(args.hold_for));
    let named = shares.into_iter().filter_map(|(name, share)| Some((name.to_owned(), json!(share?.0))));
    order.extend(named);
    order.insert("windows".to_owned(), json!(args.windows));
    Value::Object(order)
}

fn status(chaos: &Chaos, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let list = |names: &[String]| clean(&names.join(", "));
    match (&chaos.run, chaos.enabled) {
        (Some(run), _) if run.running => {
            let left = span((run.duration_seconds - run.elapsed_seconds).max(0.0));
            writeln!(desk.out, "on, seed {}, {left} left: {}", run.seed, done(run))?;
        }
        (_, true) => writeln!(desk.out, "off; it may be started for vhosts {}", list(&chaos.vhosts))?,
        (_, false) => writeln!(desk.out, "off; the configuration does not allow it (chaos.enabled)")?,
    }
    Ok(())
}

/// Returns what was done in one line.
fn done(run: &ChaosRun) -> String {
    let counts = run.faults.iter().filter(|fault| fault.share > 0.0 || fault.done > 0);
    let counts: Vec<String> =
        counts.map(|fault| format!("{} {}", clean(&fault.fault), grouped(fault.done))).collect();
    counts.join(", ")
}

fn report(run: &ChaosRun, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let out = &mut *desk.out;
    let end = match (&run.ended, &run.ended_by) {
        (None, _) => "it is on".to_owned(),
        (Some(why), None) => format!("ended: {}", clean(why)),
        (Some(why), Some(by)) => format!("ended: {} by {}", clean(why), clean(by)),
    };
    writeln!(out, "seed        {}", run.seed)?;
    writeln!(out, "began       {} by {}", clean(&run.began_at), clean(&run.by))?;
    writeln!(out, "lasted      {} of {} ({end})", span(run.elapsed_seconds), span(run.duration_seconds))?;
    let chosen = clean(&run.chosen.join(", "));
    writeln!(out, "windows     {}", if chosen.is_empty() { "all messages" } else { &chosen })?;
    writeln!(out)?;
    let mut faults = table(&["<FAULT", "SHARE", "DONE", "SPARED"]);
    for fault in &run.faults {
        let share = fault.share.to_string();
        faults.add_row([clean(&fault.fault), share, grouped(fault.done), grouped(fault.spared)]);
    }
    writeln!(out, "{}", faults.trim_fmt())?;
    if !run.rows.is_empty() {
        let mut rows = table(&["<WHAT", "<WINDOW", "<VHOST", "<USER", "<PLACE", "COUNT"]);
        for row in &run.rows {
            rows.add_row([
                clean(&row.what),
                or_dash(row.window.as_deref(), clean),
                clean(&row.vhost),
                clean(&row.user),
                clean(&row.place),
                grouped(row.count),
            ]);
        }
        writeln!(out, "\n{}", rows.trim_fmt())?;
    }
    if run.rows_left_out > 0 {
        writeln!(out, "and {} more", grouped(run.rows_left_out))?;
    }
    if let Some(replays) = &run.replays {
        writeln!(out, "\n{}", replayed(replays))?;
    }
    answers(&run.windows, out)?;
    writeln!(
        out,
        "\ndeliveries that consumers were shown again: {}; of these, acked before: {}",
        grouped(run.shown_again),
        grouped(run.acked_shown_again)
    )?;
    if run.acked_shown_again > 0 {
        writeln!(out, "jobs were shown twice after they were done: a [[guard]] for their queues hides them")?;
    }
    Ok(())
}

fn answers(windows: &[ChaosAnswers], out: &mut dyn Write) -> Result<(), Failure> {
    let headings =
        ["<WINDOW", "<MODE", "FRESH", "DUPLICATES", "ESCAPED", "CONFLICTS", "REFUSED", "NO ID", "IN DOUBT"];
    let mut answers = table(&headings);
    for window in windows {
        answers.add_row([
            clean(&window.name),
            clean(&window.mode),
            grouped(window.fresh),
            grouped(window.duplicates),
            grouped(window.escaped),
            grouped(window.conflicts),
            grouped(window.refused),
            grouped(window.no_id),
            grouped(window.in_doubt),
        ]);
    }
    writeln!(out, "\n{}", answers.trim_fmt())?;
    Ok(())
}

/// Writes the counts of messages that were to come again, without those that are zero.
fn replayed(replays: &ChaosReplays) -> String {
    let counts = [
        ("refused", replays.refused),
        ("not stored by anybody", replays.not_stored),
        ("without room", replays.full),
        ("of another vhost", replays.other_vhost),
        ("unreadable", replays.unreadable),
        ("lost", replays.lost),
        ("waiting", replays.waiting),
    ];
    let rest = counts.into_iter().filter(|(_, count)| *count > 0);
    let rest: String = rest.map(|(what, count)| format!(", {} {what}", grouped(count))).collect();
    format!(
        "replay: {} picked, {} published again{rest}",
        grouped(replays.picked),
        grouped(replays.published)
    )
}
