//! `hapax connections`: who is connected.

use super::super::ApiClient;
use super::super::answer::Connections;
use super::super::client::Path;
use super::super::columns::fit;
use super::{Desk, print, table};
use crate::tools::reach::Failure;
use crate::tools::terminal::args::ConnectionsArgs;
use crate::tools::text::{bytes, clean, count, grouped, or_dash, span};

/// Columns of a name that a client has chosen; the rest is cut.
const NAME: usize = 24;

pub(super) fn run(args: &ConnectionsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let path = Path::new("connections")
        .query("limit", &args.limit.to_string())
        .query("offset", &args.offset.to_string());
    let value = client.get(&path)?;
    if args.reach.json {
        return print(desk.out, &value);
    }
    let page: Connections = client.understand(value)?;
    let mut table = table(&[
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
