//! `hapax upstreams`: the broker's nodes, and which of them take new connections.

use super::super::ApiClient;
use super::super::answer::Upstreams;
use super::super::client::Path;
use super::{Desk, print, table};
use crate::tools::reach::Failure;
use crate::tools::terminal::args::UpstreamsArgs;
use crate::tools::text::{clean, count, or_dash, span};

pub(super) fn run(args: &UpstreamsArgs, client: &ApiClient, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let value = client.get(&Path::new("upstreams"))?;
    if args.reach.json {
        return print(desk.out, &value);
    }
    let all: Upstreams = client.understand(value)?;
    let mut table =
        table(&["<UPSTREAM", "<STATE", "HEARD", "RESTS", "CONNECTIONS", "OPENED", "FAILURES", "<ERROR"]);
    for node in &all.upstreams {
        table.add_row([
            clean(&node.address),
            clean(&node.state),
            or_dash(node.age_seconds, span),
            or_dash(node.rest_seconds, span),
            count(node.connections),
            count(node.opened),
            count(node.failures),
            or_dash(node.error.as_deref(), clean),
        ]);
    }
    writeln!(desk.out, "{}", table.trim_fmt())?;
    Ok(())
}
