//! `/api/v1/windows/{name}/forecast`: says what a change would bring, before it is made.
//!
//! The forecast assumes the present traffic. Pressure is demand × TTL / capacity, so the new pressure follows from the
//! present one. The share of caught duplicates comes from the what-if curve, which was measured with the present TTL;
//! between two points of the curve the forecast draws a straight line.

use super::Body;
use super::change::{Capacity, Change};
use crate::admin::Admin;
use crate::admin::clock::Now;
use crate::admin::complaint::{Complaint, ComplaintBody};
use axum::Json;
use axum::extract::{Path, State};
use hapax_core::pressure::Facts;
use hapax_core::pressure::facts::WhatIfPoint;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The result of a forecast.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, ToSchema)]
pub(super) struct Forecast {
    /// ids that can be remembered; absent if the window has no bound of its own
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<u64>,
    /// memory that the window takes when it is full; absent without a capacity
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// effective window / TTL, at most 1
    coverage: f64,
    /// fresh ids per second × TTL / capacity; absent without a capacity
    #[serde(skip_serializing_if = "Option::is_none")]
    pressure: Option<f64>,
    /// share of the publishes that would be caught as duplicates; null while too little is known
    caught: Option<f64>,
}

impl Forecast {
    fn of(facts: &Facts, change: &Change, budget: Option<usize>) -> Forecast {
        let capacity = match change.capacity {
            None => facts.capacity,
            Some(Capacity::Ids(ids)) => Some(ids as u64),
            Some(Capacity::Auto) => sized_by_itself(facts, budget),
        };
        let ttl = change.ttl.map_or(facts.ttl_seconds, |ttl| ttl.as_secs_f64());
        let (old, new) = (facts.capacity.map(float), capacity.map(float));
        let longer = if facts.ttl_seconds > 0.0 { ttl / facts.ttl_seconds } else { 1.0 };
        let pressure = || Some(facts.pressure? * (old? / new?) * longer);
        let pressure = pressure();
        // The window takes this beside its ids and the ids that were evicted early.
        let beside = facts.bytes.saturating_sub(facts.store_bytes).saturating_sub(facts.ghost.bytes);
        Forecast {
            capacity,
            bytes: new.map(|ids| whole(facts.bytes_per_id * ids) + beside),
            coverage: pressure.filter(|pressure| *pressure > 1.0).map_or(1.0, |pressure| 1.0 / pressure),
            pressure,
            caught: new.and_then(|ids| between(&facts.what_if.points, ids)),
        }
    }
}

/// Returns about how large a window with capacity "auto" would be: its recommended capacity, but no more than the
/// whole budget. How much of the budget the other windows leave is only known when the window really asks for it.
fn sized_by_itself(facts: &Facts, budget: Option<usize>) -> Option<u64> {
    let wish = facts.recommended_capacity.or(facts.capacity)?;
    Some(match budget {
        Some(bytes) if facts.bytes_per_id > 0.0 => {
            wish.min(whole(float(bytes as u64) / facts.bytes_per_id)).max(1)
        }
        _ => wish,
    })
}

/// Returns the curve's value at this capacity. Past an end of the curve, returns the value at that end.
fn between(points: &[WhatIfPoint], capacity: f64) -> Option<f64> {
    let at = points.partition_point(|point| float(point.capacity) < capacity);
    let above = points.get(at);
    let below = at.checked_sub(1).and_then(|at| points.get(at));
    match (below, above) {
        (Some(below), Some(above)) => {
            let (x0, x1) = (float(below.capacity), float(above.capacity));
            Some(below.caught + (above.caught - below.caught) * (capacity - x0) / (x1 - x0))
        }
        (Some(only), None) | (None, Some(only)) => Some(only.caught),
        (None, None) => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a forecast needs no more than 52 bits")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the nearest that there is")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Forecast what a change would bring with the present traffic; nothing is changed
#[utoipa::path(post, path = "/api/v1/windows/{name}/forecast", tag = "windows", security(("token" = [])),
    params(("name" = String, Path, description = "the window's name")), request_body = Change,
    responses((status = 200, body = Forecast), (status = 400, body = ComplaintBody),
        (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody), (status = 404, body = ComplaintBody),
        (status = 413, body = ComplaintBody), (status = 415, body = ComplaintBody), (status = 422, body = ComplaintBody)))]
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Json<Forecast>, Complaint> {
    let found = admin.find(&name)?;
    let change = Change::parse(&name, &body, &admin.running.budget)?;
    let facts = found.watched.facts(Now::read().instant);
    Ok(Json(Forecast::of(&facts, &change, admin.running.budget.budget_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hapax_core::pressure::Budget;
    use hapax_core::pressure::facts::WhatIf;

    fn facts() -> Facts {
        let point = |capacity, caught| WhatIfPoint { factor: 0.0, capacity, caught, bytes: 0 };
        let points = vec![point(500, 0.1), point(1000, 0.2), point(2000, 0.4)];
        Facts {
            capacity: Some(1000),
            ttl_seconds: 60.0,
            pressure: Some(2.0),
            bytes_per_id: 40.0,
            what_if: WhatIf { points, ..WhatIf::default() },
            ..Facts::default()
        }
    }

    fn forecast(text: &str) -> Forecast {
        let change = Change::parse("w", text.as_bytes(), &Budget::default()).expect(text);
        Forecast::of(&facts(), &change, None)
    }

    #[test]
    fn follows_capacity_and_ttl() {
        let table = [
            ("{}", 1000, 40_000, 0.5, 2.0, 0.2),
            (r#"{"capacity": 4000}"#, 4000, 160_000, 1.0, 0.5, 0.4),
            (r#"{"capacity": 1500}"#, 1500, 60_000, 0.75, 4.0 / 3.0, 0.3),
            (r#"{"capacity": 100}"#, 100, 4000, 0.05, 20.0, 0.1),
            (r#"{"ttl": 120}"#, 1000, 40_000, 0.25, 4.0, 0.2),
            (r#"{"ttl": 120, "capacity": 4000}"#, 4000, 160_000, 1.0, 1.0, 0.4),
        ];
        for (text, capacity, bytes, coverage, pressure, caught) in table {
            let have = forecast(text);
            assert_eq!((have.capacity, have.bytes), (Some(capacity), Some(bytes)), "{text}");
            let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{text}: {have:?}");
            near(have.coverage, coverage);
            near(have.pressure.unwrap(), pressure);
            near(have.caught.expect("a curve"), caught);
        }
    }

    #[test]
    fn by_itself_it_takes_what_is_recommended_within_the_budget() {
        let facts = Facts { recommended_capacity: Some(2500), ..facts() };
        let auto = Change { capacity: Some(Capacity::Auto), ..Change::default() };
        assert_eq!(Forecast::of(&facts, &auto, Some(1 << 20)).capacity, Some(2500));
        assert_eq!(Forecast::of(&facts, &auto, Some(40_000)).capacity, Some(1000));
    }

    #[test]
    fn without_traffic_nothing_is_pressed_and_nothing_known() {
        let facts = Facts { capacity: Some(10), pressure: Some(0.0), ttl_seconds: 1.0, ..Facts::default() };
        let forecast = Forecast::of(&facts, &Change::default(), None);
        assert_eq!((forecast.coverage, forecast.pressure, forecast.caught), (1.0, Some(0.0), None));
    }
}
