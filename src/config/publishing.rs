//! A client of Hapax's own that publishes: to which broker, and how much may wait for it. `[duplicates]` and `[chaos.replay]` have one each.

use super::check::most;
use super::problem::Report;
use super::raw::Section;
use super::store::{self, Broker, Node};
use super::{defaults, value};
use crate::tls::ClientFiles;
use std::path::PathBuf;

/// The broker that messages are published to, and the bounds of those that wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishingSettings {
    /// nodes of one cluster, in the order in which they are tried
    pub nodes: Vec<Node>,
    /// the file that the URI came from
    pub uri_file: Option<PathBuf>,
    /// TLS to the nodes whose URI begins with `amqps`
    pub tls: Option<ClientFiles>,
    /// the most messages that wait
    pub messages: usize,
    /// the most bytes of them
    pub bytes: usize,
}

/// Reads the section of this name; `None` if there is none.
pub(super) fn read(mut section: Section<'_>, name: &str, report: &mut Report) -> Option<PublishingSettings> {
    if section.is_absent() {
        return None;
    }
    let Broker { nodes, uri_file, tls } = store::read_broker(&mut section, name, report);
    let settings = PublishingSettings {
        nodes,
        uri_file,
        tls,
        messages: section
            .read(report, "messages", defaults::COPIES, |v| value::count(v, 1..=most::UNRESOLVED)),
        bytes: section
            .read(report, "bytes", defaults::COPIES_BYTES, |v| value::bytes(v, 1 << 16..=most::HELD_BYTES)),
    };
    section.finish(report);
    Some(settings)
}
