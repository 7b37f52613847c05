//! The result of a load, for people and for programs.

use super::load::{Load, Outcome};
use crate::tools::text::{grouped, micros};
use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The quantiles of the latency that are shown.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// For people.
pub(super) fn text(load: &Load, outcome: &Outcome) -> String {
    let tally = outcome.tally;
    let mut lines = vec![
        (
            "messages".to_owned(),
            format!("{} in {:.2} s", grouped(tally.published), outcome.elapsed.as_secs_f64()),
        ),
        ("messages/s".to_owned(), grouped(whole(outcome.rate()))),
        (
            "bytes/s".to_owned(),
            format!(
                "{} ({} octets each on the wire)",
                grouped(whole(outcome.rate() * outcome.message_bytes as f64)),
                grouped(outcome.message_bytes)
            ),
        ),
        ("with a repeated id".to_owned(), grouped(tally.repeated)),
    ];
    if load.window > 0 {
        lines.push(("acked".to_owned(), grouped(tally.acked)));
        lines.push(("nacked".to_owned(), grouped(tally.nacked)));
    }
    lines.push(("returned".to_owned(), grouped(tally.returned)));
    if load.consume {
        let rate = grouped(whole(outcome.delivery_rate()));
        lines.push(("delivered".to_owned(), format!("{} ({rate}/s)", grouped(tally.delivered))));
    }
    let mut table = plain();
    for (name, value) in lines {
        table.add_row([name, value]);
    }
    let mut text = table.to_string();
    if outcome.latency.is_empty() {
        text += "\n\nwithout confirms there is no latency to tell";
    } else {
        let from = if load.rate.is_some() { "due" } else { "sent" };
        text += &format!("\n\nlatency, from {from} to answered\n{}", latencies(&outcome.latency));
    }
    text
}

fn latencies(latency: &Histogram<u64>) -> Table {
    let mut table = plain();
    let rows = QUANTILES.map(|(name, quantile)| (name, latency.value_at_quantile(quantile)));
    for (name, nanos) in rows.into_iter().chain([("max", latency.max())]) {
        table.add_row([name.to_owned(), micros(nanos)]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// For programs. Times in seconds.
pub(super) fn json(load: &Load, outcome: &Outcome) -> Value {
    let tally = outcome.tally;
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let latency = (!outcome.latency.is_empty()).then(|| {
        let quantile = |quantile| seconds(outcome.latency.value_at_quantile(quantile));
        json!({
            "from": if load.rate.is_some() { "due" } else { "sent" },
            "count": outcome.latency.len(),
            "mean": outcome.latency.mean() / 1e9,
            "p50": quantile(0.5),
            "p90": quantile(0.9),
            "p99": quantile(0.99),
            "p999": quantile(0.999),
            "max": seconds(outcome.latency.max()),
        })
    });
    json!({
        "address": load.target.address,
        "connections": load.connections,
        "confirms": load.window,
        "rate_asked": load.rate,
        "duplicates_asked": load.duplicates,
        "size": load.shape.size,
        "headers": load.shape.headers,
        "message_bytes": outcome.message_bytes,
        "seconds": outcome.elapsed.as_secs_f64(),
        "published": tally.published,
        "repeated": tally.repeated,
        "acked": tally.acked,
        "nacked": tally.nacked,
        "returned": tally.returned,
        "delivered": tally.delivered,
        "messages_per_second": outcome.rate(),
        "bytes_per_second": outcome.rate() * outcome.message_bytes as f64,
        "deliveries_per_second": outcome.delivery_rate(),
        "latency_seconds": latency,
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, to be read")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}
