//! The metrics of TLS handshakes, certificates and PROXY headers.

use super::count;
use crate::stats::Snapshot;
use crate::tls::Certificates;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;

/// Writes them. The ends of certificates are there only if there are certificates.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    stats: &Snapshot,
    certificates: &Certificates,
) -> fmt::Result {
    let failed = "Client connections closed, because the TLS handshake failed, or it or the PROXY header took longer than timeouts.handshake.";
    count(encoder, "tls_handshakes_failed", failed, stats.handshakes_failed)?;
    let refused = "Client connections closed, because their PROXY header can't be read, or does not come from a trusted proxy.";
    count(encoder, "proxy_headers_refused", refused, stats.proxy_headers_refused)?;
    if certificates.is_empty() {
        return Ok(());
    }
    let failures = "How often files with certificates were read again and could not be used.";
    count(encoder, "certificate_read_failures", failures, certificates.failures())?;
    let mut ends = Vec::new();
    certificates.expiries(|used_for, expiry| {
        ends.push((used_for.to_owned(), expiry.file.display().to_string(), expiry.not_after));
    });
    let help = "When a certificate ends, in seconds since 1970-01-01 UTC.";
    let mut family = encoder.encode_descriptor(
        "certificate_not_after_timestamp_seconds",
        help,
        None,
        MetricType::Gauge,
    )?;
    for (used_for, file, not_after) in &ends {
        let labels = [("use", used_for.as_str()), ("file", file.as_str())];
        ConstGauge::new(*not_after).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
