//! `hapax connections`: who is connected; and who shall be no longer.

use super::super::ApiClient;
use super::super::answer::{Closing, Connections};
use super::super::client::Path;
use super::super::columns::fit;
use super::{Desk, print, table};
use crate::tools::reach::Failure;
use crate::tools::terminal::args::{ConnectionsArgs, ConnectionsCommand};
use crate::tools::text::{bytes, clean, count, grouped, or_dash, span};
use ureq::http::Method;

/// Columns of a name that a client has chosen; the rest is cut.
const NAME: usize = 24;

pub(super) fn run(args: &ConnectionsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    if let Some(ConnectionsCommand::Close { ids, reason }) = &args.command {
        return ids.iter().try_for_each(|id| close(*id, reason.as_deref(), args.reach.json, client, desk));
    }
    let path = Path::new("connections")
        .query("limit", &args.limit.to_string())
        .query("offset", &args.offset.to_string());
    let value = client.get(&path)?;
    if args.reach.json {
        return print(desk.out, &value);
    }
    let page: Connections = client.understand(value)?;
    let mut table = table(&[
        "ID",
        "<PEER",
        "<USER",
        "<VHOST",
        "<CLIENT",
        "<STATE",
        "CHANNELS",
        "UNRESOLVED",
        "PUBLISHES",
        "DUPLICATES",
        "IN",
        "OUT",
        "AGE",
    ]);
    for connection in &page.connections {
        table.add_row([
            clean(&connection.id.to_string()),
            clean(&connection.peer),
            or_dash(connection.user.as_deref(), |user| fit(user, NAME)),
            or_dash(connection.vhost.as_deref(), |vhost| fit(vhost, NAME)),
            fit(&connection.software(), NAME),
            clean(&connection.state),
            count(connection.channels),
            count(connection.unresolved),
            count(connection.publishes),
            count(connection.duplicates),
            bytes(connection.bytes_in),
            bytes(connection.bytes_out),
            span(connection.age_seconds),
        ]);
    }
    writeln!(desk.out, "{}", table.trim_fmt())?;
    let shown = page.connections.len() as u64;
    if shown < page.total {
        let next = args.offset + shown;
        writeln!(desk.remarks, "{shown} of {}; the next with --offset {next}", grouped(page.total))?;
    }
    Ok(())
}

fn close(
    id: u64,
    reason: Option<&str>,
    json: bool,
    client: &ApiClient,
    desk: &mut Desk<'_>,
) -> Result<(), Failure> {
    let path = Path::new("connections").then(&id.to_string());
    let path = reason.into_iter().fold(path, |path, reason| path.query("reason", reason));
    let value = client.call(Method::DELETE, &path, None)?;
    if json {
        return print(desk.out, &value);
    }
    let Closing { closing, reason } = client.understand(value)?;
    let user = or_dash(closing.user.as_deref(), clean);
    writeln!(desk.out, "{id}: {} ({user}) is told: {}", clean(&closing.peer), clean(&reason))?;
    Ok(())
}
