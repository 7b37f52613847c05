//! Computes capacities from demands: what each window costs, what each one gets, and which changes are too small to
//! make.

use super::pace::{Pace, Signs};
use super::share::{Bid, share};
use std::time::Instant;

/// The smallest capacity that a window gets, in ids.
pub const FLOOR: usize = 1000;
/// The part of its fair share that an idle window would like to keep, for the first second of a burst.
const REST: f64 = 1.0 / 8.0;
/// A capacity stays as it is if its target differs by less than this fraction.
const NEAR: f64 = 0.05;

/// The most bytes that a window of this capacity takes. It rises with the capacity.
pub type Cost<'a> = dyn Fn(usize) -> usize + 'a;

/// A window that shares the budget.
pub struct Seat<'a> {
    /// its share of the budget relative to others
    pub weight: u32,
    /// its present state
    pub signs: Signs,
    /// its cost by capacity
    pub cost: Box<Cost<'a>>,
    /// its demand over time
    pub pace: &'a mut Pace,
}

/// Returns the new capacity of each window. Together they stay within the budget, unless the budget is too small for a
/// thousand ids in each.
pub fn plan(budget: usize, seats: &mut [Seat<'_>], now: Instant) -> Vec<usize> {
    let weights: u64 = seats.iter().map(|seat| u64::from(seat.weight)).sum();
    let bids: Vec<Bid> = seats
        .iter_mut()
        .map(|seat| {
            let weight = f64::from(seat.weight);
            let fair = budget as f64 * weight / weights.max(1) as f64;
            let rest = capacity_for(&seat.cost, whole(fair * REST)) as f64;
            let demand = seat.pace.tick(&seat.signs, FLOOR as f64, rest, now);
            let bytes = |ids: f64| (seat.cost)(whole(ids.ceil())) as f64;
            Bid { weight, need: bytes(demand.need), like: bytes(demand.like) }
        })
        .collect();
    let granted = share(budget as f64, &bids);
    let targets: Vec<usize> = seats
        .iter()
        .zip(granted)
        .map(|(seat, bytes)| round(capacity_for(&seat.cost, whole(bytes))).max(FLOOR))
        .collect();
    let near = |seat: &Seat<'_>, target: usize| {
        let now = seat.signs.capacity;
        if (now as f64 - target as f64).abs() <= target as f64 * NEAR { now } else { target }
    };
    let calm: Vec<usize> = seats.iter().zip(&targets).map(|(seat, target)| near(seat, *target)).collect();
    let fits = sum(seats, &calm) <= budget;
    // A window may only stay above its target while there is room. It may always stay below.
    let strict = || calm.iter().zip(&targets).map(|(calm, target)| *calm.min(target)).collect();
    if fits { calm } else { strict() }
}

/// Returns the bytes that all windows take together at these capacities.
pub fn sum(seats: &[Seat<'_>], capacities: &[usize]) -> usize {
    seats.iter().zip(capacities).map(|(seat, capacity)| (seat.cost)(*capacity)).sum()
}

/// Returns the largest capacity, from [`FLOOR`] on, that takes at most this many bytes.
pub fn capacity_for(cost: &Cost<'_>, bytes: usize) -> usize {
    let (mut fits, mut beyond) = (FLOOR, FLOOR * 2);
    while cost(beyond) <= bytes && beyond < usize::MAX / 4 {
        (fits, beyond) = (beyond, beyond * 2);
    }
    while beyond - fits > 1 {
        let middle = fits.midpoint(beyond);
        if cost(middle) <= bytes {
            fits = middle;
        } else {
            beyond = middle;
        }
    }
    fits
}

/// Rounds a capacity down in steps of one or two per cent, so that it is a readable number.
fn round(capacity: usize) -> usize {
    let mut step = 1;
    while capacity / step >= 500 {
        step *= 10;
    }
    capacity / step * step
}

#[expect(clippy::cast_possible_truncation, reason = "not negative, and a cast saturates")]
fn whole(value: f64) -> usize {
    value as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    /// A window as the budget sees it. A test sets its live ids. Its cost has steps like that of a hash table.
    struct Model {
        weight: u32,
        per_id: usize,
        capacity: usize,
        live: u64,
        pace: Pace,
    }

    impl Model {
        fn new(weight: u32, per_id: usize, capacity: usize, now: Instant) -> Model {
            Model { weight, per_id, capacity, live: 1, pace: Pace::new(capacity, now) }
        }

        fn seat(&mut self) -> Seat<'_> {
            let signs = Signs {
                capacity: self.capacity,
                entries: self.live.min(self.capacity as u64),
                ttl: 100 * SECOND,
                recommended: Some(self.live * 5 / 4),
                evicted_early: u64::from(self.live > self.capacity as u64),
                pressure: self.live as f64 / self.capacity as f64,
                arrived: self.live,
            };
            let cost = cost(self.per_id);
            Seat { weight: self.weight, signs, cost: Box::new(cost), pace: &mut self.pace }
        }

        fn cost(&self) -> usize {
            cost(self.per_id)(self.capacity)
        }
    }

    fn cost(per_id: usize) -> impl Fn(usize) -> usize {
        move |capacity| capacity * per_id + capacity.next_power_of_two() * 17 + 100_000
    }

    /// Lets a second pass: first shrinks, then grows, and checks the budget after each step.
    fn tick(budget: usize, models: &mut [Model], now: Instant) -> usize {
        let mut seats: Vec<Seat<'_>> = models.iter_mut().map(Model::seat).collect();
        let next = plan(budget, &mut seats, now);
        drop(seats);
        let mut changes = 0;
        for grow in [false, true] {
            for (n, next) in next.iter().enumerate() {
                if *next != models[n].capacity && (*next > models[n].capacity) == grow {
                    models[n].capacity = *next;
                    changes += 1;
                    let sum: usize = models.iter().map(Model::cost).sum();
                    assert!(sum <= budget, "{sum} of {budget}");
                }
            }
        }
        changes
    }

    #[test]
    fn what_is_lent_comes_back_within_a_tick() {
        let now = base();
        let budget = 64 << 20;
        let mut models = [Model::new(1, 64, 1000, now), Model::new(1, 64, 1000, now)];
        models[0].live = 10_000_000;
        tick(budget, &mut models, now);
        assert!(models[0].cost() > budget / 10 * 9 - 200_000, "it may borrow all: {}", models[0].cost());
        models[1].live = 200_000;
        tick(budget, &mut models, now + SECOND);
        assert!(models[1].capacity >= 195_000, "and gives it back: {}", models[1].capacity);
        models[1].live = 20_000_000;
        tick(budget, &mut models, now + 2 * SECOND);
        assert_eq!(models[0].capacity, models[1].capacity, "half and half");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Whatever the traffic does, the budget holds after every step. A while after the traffic stops changing, the
        /// capacities stop, too, and every window has what it needs, or at least its share.
        #[test]
        fn any_history_of_traffic(
            windows in prop::collection::vec((1..5_u32, 20..500_usize), 1..6),
            lives in prop::collection::vec(prop::collection::vec(0..3_000_000_u64, 6), 1..8),
        ) {
            let (budget, start) = (100 << 20, base());
            let mut now = start;
            let mut models: Vec<Model> = windows.iter().map(|(weight, per_id)| Model::new(*weight, *per_id, FLOOR, now)).collect();
            for lives in &lives {
                models.iter_mut().zip(lives).for_each(|(model, live)| model.live = *live);
                for _ in 0..20 {
                    now += SECOND;
                    tick(budget, &mut models, now);
                }
            }
            for _ in 0..3000 {
                now += SECOND;
                tick(budget, &mut models, now);
            }
            for _ in 0..300 {
                now += SECOND;
                prop_assert_eq!(tick(budget, &mut models, now), 0, "it oscillates");
            }
            let weights: u32 = models.iter().map(|model| model.weight).sum();
            for model in &models {
                let fair = budget / weights as usize * model.weight as usize;
                let wanted = cost(model.per_id)(usize::try_from(model.live).unwrap_or(0));
                prop_assert!(model.cost() * 20 >= wanted.min(fair) * 18 || model.capacity >= capacity_for(&cost(model.per_id), fair) / 100 * 93, "{} of {wanted}, share {fair}", model.cost());
            }
        }
    }
}
