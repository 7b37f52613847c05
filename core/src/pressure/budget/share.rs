//! Divides the budget by weighted max-min fairness. It only computes with numbers.
//!
//! A window that needs no more than its share gets what it needs. The rest of its share is divided among the others by
//! the same rule. This way, nobody loses a share that it needs, and no share is unused while somebody needs it. When all
//! needs are met, the remaining budget is divided by the same rule among the windows that would like a little more.

/// The bid of one window. All amounts have the same unit, which is bytes here.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bid {
    /// its share of the budget relative to others
    pub weight: f64,
    /// with less than this, it forgets ids early
    pub need: f64,
    /// what it would like to have; the part above `need` is taken away as soon as somebody else needs it
    pub like: f64,
}

/// Returns what each window gets. Together this is never more than the budget.
pub fn share(budget: f64, bids: &[Bid]) -> Vec<f64> {
    let needs: Vec<_> = bids.iter().map(|bid| (bid.weight, bid.need)).collect();
    let got = fill(budget, &needs);
    let left = budget - got.iter().sum::<f64>();
    let wishes: Vec<_> =
        bids.iter().zip(&got).map(|(bid, got)| (bid.weight, (bid.like - got).max(0.0))).collect();
    let more = fill(left, &wishes);
    got.iter().zip(more).map(|(got, more)| got + more).collect()
}

/// Fills vessels of these widths with water to one common level, but none above the amount that it wants.
fn fill(water: f64, vessels: &[(f64, f64)]) -> Vec<f64> {
    let mut level_first: Vec<usize> = (0..vessels.len()).collect();
    let at = |n: usize| vessels.get(n).copied().unwrap_or_default();
    let level = |n: &usize| at(*n).1 / at(*n).0;
    level_first.sort_by(|a, b| level(a).total_cmp(&level(b)));
    let mut widths: f64 = vessels.iter().map(|(width, _)| width).sum();
    let (mut left, mut got) = (water.max(0.0), vec![0.0; vessels.len()]);
    for n in level_first {
        let (width, wanted) = at(n);
        let amount = (left * width / widths).min(wanted);
        if let Some(got) = got.get_mut(n) {
            *got = amount;
        }
        left = (left - amount).max(0.0);
        widths -= width;
    }
    got
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bid(weight: f64, need: f64, like: f64) -> Bid {
        Bid { weight, need, like: like.max(need) }
    }

    #[test]
    fn what_one_does_not_need_another_borrows() {
        let shares = |bids: &[Bid]| share(90.0, bids);
        assert_eq!(shares(&[bid(1.0, 10.0, 0.0), bid(1.0, 500.0, 0.0)]), [10.0, 80.0]);
        assert_eq!(shares(&[bid(1.0, 60.0, 0.0), bid(1.0, 500.0, 0.0)]), [45.0, 45.0], "and gives back");
        assert_eq!(shares(&[bid(2.0, 500.0, 0.0), bid(1.0, 500.0, 0.0)]), [60.0, 30.0]);
        assert_eq!(shares(&[bid(1.0, 10.0, 80.0), bid(1.0, 20.0, 20.0)]), [70.0, 20.0], "a wish comes last");
        assert_eq!(shares(&[bid(1.0, 10.0, 80.0), bid(1.0, 85.0, 85.0)]), [10.0, 80.0]);
    }

    proptest! {
        #[test]
        fn for_any_claims(
            budget in 0.0..1e10_f64,
            bids in prop::collection::vec((1..100_u32, 0.0..1e10_f64, 0.0..1e10_f64), 0..12),
        ) {
            let bids: Vec<Bid> = bids.iter().map(|(w, need, more)| bid(f64::from(*w), *need, need + more)).collect();
            let got = share(budget, &bids);
            let sum: f64 = got.iter().sum();
            let weights: f64 = bids.iter().map(|bid| bid.weight).sum();
            prop_assert!(sum <= budget * (1.0 + 1e-9), "never above the budget: {sum}");
            let wanted: f64 = bids.iter().map(|bid| bid.like).sum();
            prop_assert!(sum >= budget.min(wanted) * (1.0 - 1e-9), "nothing lies idle that somebody wants");
            for (bid, got) in bids.iter().zip(&got) {
                let fair = budget * bid.weight / weights;
                prop_assert!(*got >= bid.need.min(fair) * (1.0 - 1e-9), "a share that is needed: {got} of {fair}");
                prop_assert!(*got <= bid.like * (1.0 + 1e-9), "no more than it would like");
            }
            // A window with less than it needs must have, relative to its weight, at least as much as any window above
            // its share.
            for (poor, had) in bids.iter().zip(&got).filter(|(bid, got)| **got < bid.need * (1.0 - 1e-9)) {
                for (rich, got) in bids.iter().zip(&got) {
                    prop_assert!(got / rich.weight <= had / poor.weight * (1.0 + 1e-6) + 1e-6, "{poor:?} and {rich:?}");
                }
            }
        }
    }
}
