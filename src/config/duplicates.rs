//! The section `[duplicates]`: where the copies of windows with `duplicates_to` go, and how many of them may wait.

use super::check::most;
use super::problem::Report;
use super::raw::Section;
use super::store::{self, Broker, Node};
use super::{Config, value};
use crate::tls::ClientFiles;
use std::path::PathBuf;

/// The broker that gets copies of dropped publishes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DuplicatesSettings {
    /// nodes of one cluster, in the order in which they are tried
    pub nodes: Vec<Node>,
    /// the file that the URI came from
    pub uri_file: Option<PathBuf>,
    /// TLS to the nodes whose URI begins with `amqps`
    pub tls: Option<ClientFiles>,
    /// the most copies on their way
    pub messages: usize,
    /// the most bytes of them
    pub bytes: usize,
}

/// Reads it.
pub(super) fn read(mut section: Section<'_>, report: &mut Report) -> Option<DuplicatesSettings> {
    if section.is_absent() {
        return None;
    }
    let Broker { nodes, uri_file, tls } = store::read_broker(&mut section, "duplicates", report);
    let settings = DuplicatesSettings {
        nodes,
        uri_file,
        tls,
        messages: section
            .read(report, "messages", super::defaults::COPIES, |v| value::count(v, 1..=most::UNRESOLVED)),
        bytes: section.read(report, "bytes", super::defaults::COPIES_BYTES, |v| {
            value::bytes(v, 1 << 16..=most::HELD_BYTES)
        }),
    };
    section.finish(report);
    Some(settings)
}

/// Reports a window whose copies have nowhere to go.
pub(super) fn check(config: &Config, report: &mut Report) {
    for (index, window) in config.windows.iter().enumerate() {
        let Some(exchange) = &window.rules.signals.duplicates_to else { continue };
        if config.duplicates.is_none() && !report.is_wrong("duplicates") {
            let source = report.source(&format!("window.{index}.duplicates_to"));
            report.problem(
                &source,
                format!(
                    "window \"{}\": `duplicates_to` is \"{exchange}\", but nobody says at which broker",
                    window.rules.name
                ),
                "write a line [duplicates], and below it uri = \"amqp://hapax:PASSWORD@127.0.0.1:5672\"",
            );
        }
    }
}
