//! The log lines about changes of a window's level.

use super::facts::{Facts, Level};

/// Logs that the level of a window has changed.
pub(super) fn change(window: &str, before: Level, facts: &Facts) {
    let Facts {
        level, pressure, coverage, escaped_duplicates: escaped, recommended_capacity, capacity, ..
    } = facts;
    // Without a capacity, the level never changes.
    let (Some(pressure), Some(capacity)) = (pressure, *capacity) else { return };
    if facts.sequences.is_some() && *level >= Level::High && before < *level {
        return producers(window, facts, capacity);
    }
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
        _ if facts.sequences.is_some() => {
            tracing::info!(window, pressure, capacity, pressure_level = ?level, "the window has room for more producers again");
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

/// Logs that a window of sequences is nearly full. Its traffic does not say how many producers there will be, so nothing is recommended.
fn producers(window: &str, facts: &Facts, capacity: u64) {
    let producers = facts.entries.unwrap_or_default();
    let evicted = facts.evictions.get("capacity").copied().unwrap_or_default();
    tracing::warn!(
        window,
        producers,
        capacity,
        evicted,
        "the window has nearly as many producers as it has room for: those that were seen least recently are forgotten, and a number that they publish again passes; raise its capacity to the number of producers, and some more"
    );
}

/// Rounds a ratio for the log.
fn hundredths(ratio: f64) -> f64 {
    (ratio * 100.0).round() / 100.0
}
