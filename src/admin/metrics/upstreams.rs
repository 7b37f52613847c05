//! The metrics of the broker's nodes. The label `upstream` is a node's address, as the configuration has it.

use super::count;
use crate::net::UpstreamNode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;

/// Writes what is known of the nodes. `dial_failures`: how many clients found no node.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    nodes: &[UpstreamNode],
    dial_failures: u64,
) -> fmt::Result {
    let failures = "Client connections for which no node of the broker could be reached.";
    count(encoder, "upstream_dial_failures", failures, dial_failures)?;
    let up = "Whether this node of the broker answered an AMQP handshake when it was last asked, or when a client last connected to it: 1 or 0.";
    gauge(encoder, "upstream_up", up, nodes, |node| node.up.map(u64::from))?;
    let open = "Connections to this node of the broker that are open.";
    gauge(encoder, "upstream_connections", open, nodes, |node| Some(node.connections))?;
    let opened = "Connections to this node of the broker that were opened for clients.";
    counter(encoder, "upstream_connections_opened", opened, nodes, |node| node.opened)?;
    let failed = "Attempts to reach this node of the broker, for clients and to see whether it is alive, that got no AMQP handshake.";
    counter(encoder, "upstream_failures", failed, nodes, |node| node.failures)
}

/// Writes a gauge with a series for each node that has a value.
fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    nodes: &[UpstreamNode],
    value: impl Fn(&UpstreamNode) -> Option<u64>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for node in nodes {
        if let Some(value) = value(node) {
            ConstGauge::new(value).encode(family.encode_family(&[("upstream", &*node.address)])?)?;
        }
    }
    Ok(())
}

/// Writes a counter with a series for each node.
fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    nodes: &[UpstreamNode],
    value: impl Fn(&UpstreamNode) -> u64,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for node in nodes {
        ConstCounter::new(value(node)).encode(family.encode_family(&[("upstream", &*node.address)])?)?;
    }
    Ok(())
}
