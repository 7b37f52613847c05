//! The metrics of what is said of dropped publishes, beside the answer to their publisher.

use super::{count, gauge, windows};
use crate::signals::{Copies, Reason, Signals};
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use std::fmt;

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, signals: &Signals) -> fmt::Result {
    let lines = "Lines in the log for dropped publishes of windows with audit = true.";
    count(encoder, "audit_lines", lines, signals.audit.lines())?;
    let left_out = "Dropped publishes of windows with audit = true that have no line in the log, because there were too many in a second.";
    count(encoder, "audit_left_out", left_out, signals.audit.left_out())?;
    let copies = signals.copies.as_deref();
    let copied = "Copies of dropped publishes that the broker has taken (duplicates_to).";
    count(encoder, "duplicates_copied", copied, copies.map_or(0, Copies::copied))?;
    let uncopied = "Dropped publishes without a copy, by reason: full (the queue had no room), refused (by the broker), unroutable (no queue took it), lost (the connection ended first), no_body (no room to hold the body), copy (it is a copy itself), unreadable (its properties, or they are too large).";
    let mut family = encoder.encode_descriptor("duplicates_uncopied", uncopied, None, MetricType::Counter)?;
    for reason in Reason::ALL {
        windows::count(
            &mut family,
            &[("reason", reason.name())],
            copies.map_or(0, |copies| copies.uncopied(reason)),
        )?;
    }
    let (waiting, bytes) = copies.map_or((0, 0), Copies::waiting);
    let help = "Copies of dropped publishes on their way to the broker.";
    gauge(encoder, "duplicates_copies_waiting", help, &(waiting as u64))?;
    let help = "Memory that these copies take, in bytes.";
    gauge(encoder, "duplicates_copies_waiting_bytes", help, &(bytes as u64))
}
