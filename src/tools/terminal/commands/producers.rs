//! `hapax producers list|show|forget`: the producers of a window with `id = "sequence"`.

use super::super::ApiClient;
use super::super::answer::{Forgotten, Producer, Producers};
use super::super::client::Path;
use super::{Desk, print, table};
use crate::tools::reach::Failure;
use crate::tools::terminal::args::{ProducersArgs, ProducersCommand};
use crate::tools::text::{clean, count, grouped, or_dash, span};
use ureq::http::Method;

pub(super) fn run(args: &ProducersArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let (method, window, key) = match &args.command {
        ProducersCommand::List { window, containing, limit } => {
            let path = |path: Path| {
                let path = path.then("producers").query("limit", &limit.to_string());
                containing.iter().fold(path, |path, text| path.query("containing", text))
            };
            let value = client.of_window(Method::GET, window, path, None)?;
            return if args.reach.json {
                print(desk.out, &value)
            } else {
                list(client.understand(value)?, desk)
            };
        }
        ProducersCommand::Show { window, key } => (Method::GET, window, key),
        ProducersCommand::Forget { window, key } => (Method::DELETE, window, key),
    };
    let value = client.of_window(method.clone(), window, |path| path.then("producers").then(key), None)?;
    if args.reach.json {
        return print(desk.out, &value);
    }
    if method == Method::DELETE {
        let forgotten: Forgotten = client.understand(value)?;
        writeln!(desk.out, "{}: {}", clean(key), forgotten.shown("all of its numbers get through"))?;
        return Ok(());
    }
    let one: Producer = client.understand(value)?;
    writeln!(desk.out, "key         {}", clean(&one.key))?;
    writeln!(desk.out, "name        {}", or_dash(one.name.as_deref(), clean))?;
    writeln!(desk.out, "epoch       {}", grouped(one.epoch))?;
    writeln!(desk.out, "highest     {}", or_dash(one.highest, grouped))?;
    writeln!(desk.out, "open        {} of its places", grouped(one.open))?;
    writeln!(desk.out, "in flight   {}", grouped(one.in_flight))?;
    writeln!(desk.out, "duplicates  {}", grouped(one.duplicates))?;
    writeln!(desk.out, "seen        {} ago", span(one.idle_seconds))?;
    writeln!(desk.out, "expires     in {}", span(one.expires_in_seconds))?;
    Ok(())
}

fn list(all: Producers, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let mut table =
        table(&["<PRODUCER", "<KEY", "EPOCH", "HIGHEST", "OPEN", "IN FLIGHT", "DUPLICATES", "SEEN"]);
    let shown = all.producers.len();
    for one in all.producers {
        table.add_row([
            or_dash(one.name.as_deref(), clean),
            clean(&one.key),
            grouped(one.epoch),
            or_dash(one.highest, grouped),
            count(one.open),
            count(one.in_flight),
            count(one.duplicates),
            span(one.idle_seconds),
        ]);
    }
    writeln!(desk.out, "{}", table.trim_fmt())?;
    let (entries, capacity) = (grouped(all.entries), grouped(all.capacity));
    writeln!(desk.remarks, "{shown} shown of {entries} remembered; room for {capacity}")?;
    if all.store_may_know_more {
        writeln!(
            desk.remarks,
            "these are in the relay's memory; its store may know more. A producer is listed when it has published here"
        )?;
    }
    Ok(())
}
