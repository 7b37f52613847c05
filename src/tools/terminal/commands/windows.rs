//! `hapax windows list|show|set|flush`.

use super::super::ApiClient;
use super::super::answer::{Forecast, Window, Windows};
use super::super::client::Path;
use super::super::columns::fit;
use super::super::save::Save;
use super::super::sections::{Sections, advice, escaped};
use super::super::theme::{Theme, word};
use super::{Desk, print, table};
use crate::tools::reach::Failure;
use crate::tools::terminal::args::{SetArgs, WindowsArgs, WindowsCommand};
use crate::tools::text::{bytes, clean, count, factor, grouped, or_dash, rate, share, span};
use serde_json::{Map, Value, json};
use std::time::Duration;
use ureq::http::Method;

/// Columns of a window's name in the list; the rest is cut.
const NAME: usize = 32;
/// How often the relay is asked whether a window is as small as it should be, and the time between two questions: two
/// minutes in all.
const WAITS: u32 = 600;
const BETWEEN: Duration = Duration::from_millis(200);
/// Columns for `show`: a terminal of ordinary width, and a mail.
const WIDTH: usize = 72;

pub(super) fn run(args: &WindowsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let json = args.reach.json;
    match args.command.as_ref().unwrap_or(&WindowsCommand::List) {
        WindowsCommand::List => list(client, json, desk),
        WindowsCommand::Show { name } => show(client, name, json, desk),
        WindowsCommand::Set(set) => change(client, set, json, desk),
        WindowsCommand::Flush { name, yes } => flush(client, name, *yes, json, desk),
    }
}

pub(super) fn list(client: &ApiClient, json: bool, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let value = client.get(&Path::new("windows"))?;
    if json {
        return print(desk.out, &value);
    }
    let windows: Windows = client.understand(value)?;
    let mut table = table(&[
        "<NAME",
        "<LEVEL",
        "<MODE",
        "ENTRIES",
        "CAPACITY",
        "PRESSURE",
        "COVERAGE",
        "TTL",
        "REMEMBERS",
        "FRESH/S",
        "DUP/S",
        "ESC/S",
        "ESCAPED",
        "NO-ID",
        "RECOMMENDED",
    ]);
    for window in &windows.windows {
        let facts = &window.facts;
        let auto = if window.auto { " auto" } else { "" };
        table.add_row([
            fit(&window.name, NAME),
            word(facts.level).to_owned(),
            clean(&window.mode),
            or_dash(facts.entries, count),
            format!("{}{auto}", or_dash(facts.capacity, count)),
            or_dash(facts.pressure, factor),
            share(facts.coverage),
            span(facts.ttl_seconds),
            span(facts.effective_seconds),
            rate(facts.rates.fresh),
            rate(facts.rates.duplicate),
            rate(facts.rates.escaped),
            escaped(facts, count),
            or_dash(facts.missing_ids.share, share),
            or_dash(facts.recommended_capacity, count),
        ]);
    }
    writeln!(desk.out, "{}", table.trim_fmt())?;
    Ok(())
}

fn show(client: &ApiClient, name: &str, json: bool, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let value = client.of_window(Method::GET, name, |path| path, None)?;
    if json {
        return print(desk.out, &value);
    }
    let window: Window = client.understand(value)?;
    writeln!(desk.out, "{}", clean(&window.name))?;
    if let Some(resizing) = window.resizing {
        writeln!(
            desk.out,
            "becomes smaller: capacity → {}, {} ids are left to forget",
            count(resizing.to),
            count(resizing.left)
        )?;
    }
    if let Some(advice) = advice(&window) {
        writeln!(desk.out, "{advice}")?;
    }
    for section in Sections::of(&window, WIDTH, Theme::PLAIN).into_list() {
        writeln!(desk.out, "\n{}", section.title)?;
        for line in section.lines {
            writeln!(desk.out, "  {}", line.to_string().trim_end())?;
        }
    }
    Ok(())
}

/// Waits until the relay has made a window smaller, and says how far it is. Returns what is known of the window then. After
/// [`WAITS`] questions, the relay goes on alone.
fn settled(client: &ApiClient, first: Window, desk: &mut Desk<'_>) -> Result<Window, Failure> {
    let mut window = first;
    let mut said = None;
    for _ in 0..WAITS {
        let Some(resizing) = window.resizing else { break };
        if desk.answers.is_some() && said != Some(resizing.left) {
            said = Some(resizing.left);
            write!(
                desk.remarks,
                "\r{}: {} ids are left to forget   ",
                clean(&window.name),
                count(resizing.left)
            )?;
            desk.remarks.flush()?;
        }
        std::thread::sleep(BETWEEN);
        let value = client.of_window(Method::GET, &window.name, |path| path, None)?;
        window = client.understand(value)?;
    }
    if said.is_some() {
        writeln!(desk.remarks)?;
    }
    Ok(window)
}

fn change(client: &ApiClient, set: &SetArgs, json: bool, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let mut body = Map::new();
    if let Some(capacity) = set.capacity {
        body.insert("capacity".to_owned(), capacity.to_json());
    }
    // The relay judges how a duration may be written.
    if let Some(ttl) = &set.ttl {
        body.insert("ttl".to_owned(), json!(ttl));
    }
    if let Some(mode) = set.mode {
        body.insert("mode".to_owned(), json!(mode.word()));
    }
    let body = Value::Object(body);
    let before = client.of_window(Method::GET, &set.name, |path| path, None)?;
    let before: Window = client.understand(before)?;
    if set.dry_run {
        let forecast =
            client.of_window(Method::POST, &set.name, |path| path.then("forecast"), Some(&body))?;
        return if json { print(desk.out, &forecast) } else { foretell(client, &before, forecast, desk) };
    }
    let mut save = set.save.then(|| Save::prepare(client, set)).transpose()?;
    let mut after = client.of_window(Method::PATCH, &set.name, |path| path, Some(&body))?;
    if let (Some(save), Some(after)) = (&mut save, after.as_object_mut()) {
        after.insert("saved".to_owned(), save.put()?);
    }
    if json {
        return print(desk.out, &after);
    }
    let after = settled(client, client.understand(after)?, desk)?;
    let name = clean(&after.name);
    let mut same = after.resizing.is_none();
    for (what, old, new) in [
        ("capacity", capacity(&before), capacity(&after)),
        ("ttl", span(before.facts.ttl_seconds), span(after.facts.ttl_seconds)),
        ("mode", clean(&before.mode), clean(&after.mode)),
    ] {
        if old != new {
            same = false;
            writeln!(desk.out, "{name}: {what} {old} → {new}")?;
        }
    }
    if same {
        writeln!(desk.out, "{name}: nothing to change")?;
    }
    if let Some(resizing) = after.resizing {
        writeln!(
            desk.out,
            "{name}: capacity → {}, in steps: {} ids are left to forget (hapax windows show {name})",
            count(resizing.to),
            count(resizing.left)
        )?;
    }
    match save {
        Some(save) => save.say(desk.out)?,
        // A setting that is changed here ends with the relay's process. Say so.
        None => {
            writeln!(
                desk.remarks,
                "until the relay restarts or reloads; --save writes it into the configuration file"
            )?;
        }
    }
    Ok(())
}

fn capacity(window: &Window) -> String {
    let auto = if window.auto { " (auto)" } else { "" };
    format!("{}{auto}", or_dash(window.facts.capacity, grouped))
}

/// Prints a window as it is and as it would be.
fn foretell(client: &ApiClient, now: &Window, forecast: Value, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let then: Forecast = client.understand(forecast)?;
    let facts = &now.facts;
    let caught = facts.what_if.points.iter().find(|point| (point.factor - 1.0).abs() < 1e-9);
    let mut table = table(&["<", "NOW", "THEN"]);
    table.add_row(["capacity".to_owned(), or_dash(facts.capacity, grouped), or_dash(then.capacity, grouped)]);
    table.add_row(["memory".to_owned(), bytes(facts.bytes), or_dash(then.bytes, bytes)]);
    table.add_row(["pressure".to_owned(), or_dash(facts.pressure, factor), or_dash(then.pressure, factor)]);
    table.add_row(["coverage".to_owned(), share(facts.coverage), or_dash(then.coverage, share)]);
    table.add_row([
        "caught".to_owned(),
        or_dash(caught.map(|point| point.caught), share),
        or_dash(then.caught, share),
    ]);
    writeln!(desk.out, "{}", table.trim_fmt())?;
    writeln!(desk.remarks, "a forecast: nothing was changed")?;
    Ok(())
}

fn flush(client: &ApiClient, name: &str, yes: bool, json: bool, desk: &mut Desk<'_>) -> Result<(), Failure> {
    if !yes {
        // Refuse an unknown name before asking the question.
        let window = client.of_window(Method::GET, name, |path| path, None)?;
        let window: Window = client.understand(window)?;
        let (shown, ids) = (clean(name), or_dash(window.facts.entries, grouped));
        let question = format!("forget all {ids} ids of {shown}? Their duplicates will get through.");
        if !desk.confirm(&question, "flush forgets all ids of the window")? {
            return Ok(());
        }
    }
    let value = client.of_window(Method::POST, name, |path| path.then("flush"), None)?;
    if json {
        return print(desk.out, &value);
    }
    let flushed = value.get("flushed").and_then(Value::as_u64);
    writeln!(desk.out, "{}: {} ids forgotten", clean(name), or_dash(flushed, grouped))?;
    Ok(())
}
