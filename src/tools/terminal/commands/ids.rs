//! `hapax ids get|forget`: one id of one window.

use super::super::ApiClient;
use super::super::answer::{Forgotten, Id};
use super::super::client::Path;
use super::{Desk, print};
use crate::tools::reach::Failure;
use crate::tools::terminal::args::{IdArgs, IdsArgs, IdsCommand};
use crate::tools::text::{clean, grouped, or_dash, span};
use ureq::http::Method;

pub(super) fn run(args: &IdsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let (method, id) = match &args.command {
        None => return list(args, client, desk),
        Some(IdsCommand::Get(id)) => (Method::GET, id),
        Some(IdsCommand::Forget(id)) => (Method::DELETE, id),
    };
    let value = client
        .of_window(method.clone(), &id.window, |path| address(path, id), None)
        .map_err(in_words_of_flags)?;
    if args.reach.json {
        return print(desk.out, &value);
    }
    let shown = clean(&id.id);
    if method == Method::DELETE {
        let forgotten: Forgotten = client.understand(value)?;
        writeln!(desk.out, "{shown}: {}", forgotten.shown("the next publish of it gets through"))?;
        return Ok(());
    }
    let known: Id = client.understand(value)?;
    let time = |at: Option<String>| or_dash(at, |at| clean(&at));
    writeln!(desk.out, "id          {shown}")?;
    writeln!(desk.out, "state       {}", clean(&known.state).replace('_', " "))?;
    if known.store_may_know_more {
        writeln!(
            desk.remarks,
            "it is not in the relay's memory; its store may know it, and is asked when the id is published"
        )?;
    }
    if known.state == "seen" {
        let age = or_dash(known.age_seconds, span);
        writeln!(desk.out, "seen        {} ({age} ago)", time(known.seen_at))?;
        writeln!(desk.out, "duplicates  {}", or_dash(known.duplicates, grouped))?;
        let left = or_dash(known.expires_in_seconds, span);
        writeln!(desk.out, "expires     {} (in {left})", time(known.expires_at))?;
    }
    Ok(())
}

/// Lists the windows, which is all that can be listed: Hapax keeps digests and not the ids.
fn list(args: &IdsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    super::windows::list(client, args.reach.json, desk)?;
    writeln!(
        desk.remarks,
        "Hapax keeps digests, not ids. To look one up: hapax ids get WINDOW ID [--exchange X] [--routing-key K] [--queue Q]"
    )?;
    Ok(())
}

/// Names flags where the relay's message names parameters of a query.
fn in_words_of_flags(failure: Failure) -> Failure {
    match failure {
        Failure::Refused { status: 400, error, mut errors } => {
            errors.push(
                "here these are --vhost, --exchange, --routing-key, --queue, --part, --cc and --death"
                    .to_owned(),
            );
            Failure::Refused { status: 400, error, errors }
        }
        other => other,
    }
}

fn address(path: Path, id: &IdArgs) -> Path {
    let once = [
        ("vhost", &id.vhost),
        ("exchange", &id.exchange),
        ("queue", &id.queue),
        ("routing_key", &id.routing_key),
        ("death", &id.death),
    ];
    let once = once.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
    let parts = id.parts.iter().map(|part| ("part", part));
    let keys = id.cc.iter().map(|key| ("cc", key));
    let path = path.then("ids").then(&id.id);
    once.chain(parts).chain(keys).fold(path, |path, (key, value)| path.query(key, value))
}
