//! The settings of several upstreams: nodes of one cluster.

use super::check::{TICK, most};
use super::problem::{Report, Wrong};
use super::raw::{Section, type_name};
use super::{Config, UpstreamAddress, value};
use std::time::Duration;
use toml::de::DeValue;

/// The most nodes. A larger list is surely not meant: a name with several addresses is better then.
const NODES: usize = 64;

/// Which node a new connection goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamOrder {
    /// the first one that answers
    #[default]
    Priority,
    /// each in its turn
    RoundRobin,
}

/// When nodes are asked whether they are alive, and what happens to those that are not. It matters if there are several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpstreamHealth {
    /// a node from which nothing was heard for this long is asked
    pub interval: Duration,
    /// how long one address of a node may take to answer, before another one is tried
    pub timeout: Duration,
    /// how long a node that does not answer gets no connections, at first
    pub rest: Duration,
    /// the same, at most
    pub max_rest: Duration,
}

/// Parses the nodes: a string, or a list of strings.
pub(super) fn nodes(value: &DeValue<'_>) -> Result<Vec<UpstreamAddress>, Wrong> {
    let example = "amqp://127.0.0.1:5672";
    let DeValue::Array(items) = value else {
        return match value {
            DeValue::String(text) => listed(text),
            other => Err(Wrong::new(
                format!("is {}, but must be a string or a list of strings", type_name(other)),
                format!("write it in quotes, as in {example:?}"),
            )),
        };
    };
    let one = |item: &toml::Spanned<DeValue<'_>>| value::upstream(value::text(item.get_ref(), example)?);
    checked(items.iter().map(one).collect::<Result<_, _>>()?)
}

/// Parses the nodes from a text: those of a flag are separated by commas.
pub(super) fn listed(text: &str) -> Result<Vec<UpstreamAddress>, Wrong> {
    checked(text.split(',').map(|node| value::upstream(node.trim())).collect::<Result<_, _>>()?)
}

fn checked(nodes: Vec<UpstreamAddress>) -> Result<Vec<UpstreamAddress>, Wrong> {
    // Metrics tell the nodes by host and port.
    let is_same = |a: &UpstreamAddress, b: &UpstreamAddress| (&a.host, a.port) == (&b.host, b.port);
    let mut all = nodes.iter().enumerate();
    let twice = all.find(|(n, node)| nodes.iter().take(*n).any(|before| is_same(before, node)));
    match twice {
        Some((_, node)) => Err(Wrong::new(format!("has {node} twice"), "name each node once")),
        None if nodes.is_empty() => {
            Err(Wrong::new("is an empty list", "name at least one node, as in [\"amqp://127.0.0.1:5672\"]"))
        }
        None if nodes.len() > NODES => Err(Wrong::new(
            format!("has {} nodes", nodes.len()),
            format!("name {NODES} at most, or one name that stands for all addresses"),
        )),
        None => Ok(nodes),
    }
}

/// Reads `[upstream_health]`.
pub(super) fn read_health(mut section: Section<'_>, report: &mut Report) -> UpstreamHealth {
    let default = UpstreamHealth::default();
    let mut read =
        |key, default| section.read(report, key, default, |v| value::duration(v, TICK..=most::TIMEOUT));
    let health = UpstreamHealth {
        interval: read("interval", default.interval),
        timeout: read("timeout", default.timeout),
        rest: read("rest", default.rest),
        max_rest: read("max_rest", default.max_rest),
    };
    section.finish(report);
    health
}

/// Reports a longest rest that is shorter than the first one.
pub(super) fn check(config: &Config, report: &mut Report) {
    let UpstreamHealth { rest, max_rest, .. } = config.upstream_health;
    if max_rest < rest {
        let source = report.source("upstream_health.max_rest").max(report.source("upstream_health.rest"));
        report.problem(
            &source,
            format!(
                "`upstream_health.max_rest` is {}, shorter than `upstream_health.rest`, which is {}",
                humantime::format_duration(max_rest),
                humantime::format_duration(rest)
            ),
            "make max_rest at least as long as rest",
        );
    }
}

/// Warns of settings that mean nothing, because there is one node. Their defaults may stand anywhere.
pub(super) fn warn(config: &Config, report: &mut Report) {
    if config.upstreams.len() > 1 {
        return;
    }
    let (health, default) = (&config.upstream_health, UpstreamHealth::default());
    let changed = [
        ("upstream_order", config.upstream_order != UpstreamOrder::default()),
        ("upstream_health.interval", health.interval != default.interval),
        ("upstream_health.timeout", health.timeout != default.timeout),
        ("upstream_health.rest", health.rest != default.rest),
        ("upstream_health.max_rest", health.max_rest != default.max_rest),
    ];
    for (key, _) in changed.into_iter().filter(|(_, changed)| *changed) {
        let source = report.source(key);
        let what = format!("`{key}` means nothing, because `upstream` names one node");
        report.warning(&source, what, "leave it out, or name the other nodes of the cluster in `upstream`");
    }
}
