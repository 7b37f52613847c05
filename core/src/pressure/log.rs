//! The log lines about changes of a window's level.

use super::facts::{Bound, Facts, Level};

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
    let recommended = *recommended_capacity;
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
            "the window is too small: ids are forgotten before their TTL is over; {}",
            advice(facts, capacity)
        ),
        Level::High if before < *level => tracing::warn!(
            window,
            pressure,
            coverage,
            escaped,
            capacity,
            recommended,
            "the window is {} for its traffic; {}",
            if pressure > 1.0 { "too small" } else { "nearly too small" },
            advice(facts, capacity)
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

/// Returns what to do about a window that is too small.
fn advice(facts: &Facts, capacity: u64) -> &'static str {
    match (facts.recommended_capacity, facts.recommended_bound) {
        (Some(recommended), _) if recommended > capacity => "set its capacity to the recommended one",
        (Some(_), Some(Bound::Memory)) => {
            "no larger capacity fits into the memory that the process may use: raise that, or lower the TTL"
        }
        (Some(_), Some(Bound::Maximum)) => {
            "no window may be larger: divide its traffic among windows, or lower the TTL"
        }
        (Some(_), None) => "it has the recommended capacity by now, so this will pass",
        (None, _) => {
            "a capacity is recommended when it has seen its traffic for a TTL; until then, capacity times pressure is what it needs"
        }
    }
}

/// Rounds a ratio for the log.
fn hundredths(ratio: f64) -> f64 {
    (ratio * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_set_the_capacity_that_there_is() {
        let facts = |recommended_capacity, recommended_bound| Facts {
            recommended_capacity,
            recommended_bound,
            ..Facts::default()
        };
        let recommended = "set its capacity to the recommended one";
        assert_eq!(advice(&facts(Some(11), None), 10), recommended);
        assert_eq!(advice(&facts(Some(11), Some(Bound::Memory)), 10), recommended);
        let others = [
            facts(None, None),
            facts(Some(10), None),
            facts(Some(10), Some(Bound::Memory)),
            facts(Some(10), Some(Bound::Maximum)),
        ];
        let mut told: Vec<&str> = others.iter().map(|facts| advice(facts, 10)).collect();
        told.sort_unstable();
        told.dedup();
        assert!(told.len() == others.len() && !told.contains(&recommended), "{told:?}");
    }
}
