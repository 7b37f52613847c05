//! The log lines about changes of a window's level.

use super::facts::{Facts, Level};

/// Logs that the level of a window has changed.
pub(super) fn change(window: &str, before: Level, facts: &Facts) {
    let Facts {
        level, pressure, coverage, escaped_duplicates: escaped, recommended_capacity, capacity, ..
    } = facts;
    // Without a capacity, the level never changes.
    let (Some(pressure), Some(capacity)) = (pressure, *capacity) else { return };
    let recommended = recommended_capacity.unwrap_or(capacity);
    let (pressure, coverage) = (hundredths(*pressure), hundredths(*coverage));
    match level {
        Level::Warming => tracing::info!(
            window,
            seconds_left = facts.warming_seconds.round(),
            "the window is younger than its TTL: duplicates of what was published before get through and are not counted"
        ),
        Level::Blind if before < *level => tracing::warn!(
            window,
            share = hundredths(facts.missing_ids.share.unwrap_or(0.0)),
            "most publishes carry no id, so their duplicates get through and are not counted: set the window's id to a header that they have"
        ),
        Level::Ok if before == Level::Warming => {
            tracing::info!(window, "the window is as old as its TTL: it knows every id");
        }
        Level::Critical if before < *level => tracing::warn!(
            window,
            pressure,
            coverage,
            escaped,
            capacity,
            recommended,
            "the window is too small: ids are forgotten before their TTL is over; set its capacity to the recommended one"
        ),
        Level::High if before < *level => tracing::warn!(
            window,
            pressure,
            coverage,
            escaped,
            capacity,
            recommended,
            "the window is nearly too small for its traffic; raise its capacity to the recommended one"
        ),
        _ => tracing::info!(
            window, pressure, coverage, escaped, capacity, recommended, pressure_level = ?level,
            "the pressure on the window has fallen"
        ),
    }
}

/// Rounds a ratio for the log.
fn hundredths(ratio: f64) -> f64 {
    (ratio * 100.0).round() / 100.0
}
