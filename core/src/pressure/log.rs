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
    use crate::pressure::captured::log_of;
    use crate::pressure::{Accounting, Watched};
    use crate::window::engine::EngineKind;
    use crate::window::{
        Claim, Key, Limits, LocalWindow, Mailbox, Mode, ProducerKey, Rules, Ticket, Verdict, reserve_one,
    };
    use crate::wire::IdSource;
    use std::ops::Range;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    const TTL: Duration = Duration::from_secs(60);

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    /// A window of sequences with room for ten producers, and its accounting.
    fn ten_producers() -> (Arc<LocalWindow<Accounting>>, Arc<Accounting>) {
        let limits = Limits {
            capacity: 10,
            ttl: TTL,
            mode: Mode::Enforce,
            refresh_on_duplicate: false,
            waiters_per_id: 64,
        };
        let rules = Rules { id: IdSource::Sequence, ..Rules::named("orders") };
        let accounting = Arc::new(Accounting::new());
        (LocalWindow::new(rules, limits, EngineKind::default(), Arc::clone(&accounting)), accounting)
    }

    /// The line says how many producers there are and how many were pushed out. It recommends no capacity: traffic does not tell how many
    /// producers there will be. It comes once, when the window becomes so full.
    #[test]
    fn a_window_that_is_nearly_full_of_producers_says_how_many_there_are() {
        let (window, accounting) = ten_producers();
        let start = base();
        let watched = Watched { window: window.clone(), accounting };
        let logged = |producers: Range<u128>, second: u64| {
            let now = start + Duration::from_secs(second);
            for n in producers {
                let producer = ProducerKey::new(Key((n + 1) << 64));
                let claim = Claim::Sequence { producer, epoch: 0, number: 1 };
                match reserve_one(&window, claim, now, &Arc::new(Mailbox::new()), Ticket(0)) {
                    Verdict::Fresh(reservation) => drop(reservation.commit(now, TTL)),
                    other => panic!("{n}: {other:?}"),
                }
            }
            log_of(|| watched.tick(now))
        };
        let assert_warns = |text: &str, fields: &[&str]| {
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.contains(" WARN ") && text.contains("nearly as many producers"), "{text}");
            fields.iter().for_each(|field| assert!(text.contains(field), "{field}: {text}"));
            assert!(!text.contains("recommended") && !text.contains("pressure="), "{text}");
        };
        // It is as old as its TTL, so the level tells of nothing but its producers.
        logged(0..0, 0);
        logged(0..0, 60);
        assert_eq!(logged(0..7, 61), "");
        assert_warns(&logged(7..8, 62), &["window=\"orders\"", "producers=8 ", "capacity=10 ", "evicted=0"]);
        assert_eq!(logged(8..9, 63), "", "it is said once");
        assert_warns(&logged(9..13, 64), &["producers=10 ", "capacity=10 ", "evicted=3"]);
        window.resize(100, start + Duration::from_secs(64));
        let calm: String = (65..100).map(|second| logged(0..0, second)).collect();
        assert!(calm.contains(" INFO ") && calm.contains("has room for more producers again"), "{calm}");
        assert!(calm.contains("capacity=100 ") && !calm.contains(" WARN "), "{calm}");
    }

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
