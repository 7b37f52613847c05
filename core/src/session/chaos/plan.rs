//! The plan of a run, and what it decides. Equal questions always get equal answers: there is no random state.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// A trouble that the world makes, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ChaosFault {
    /// The confirm of a stored message is lost with the connection of its client.
    DropAck,
    /// The confirms of a channel come late.
    HoldAcks,
    /// The connection of a client ends without a word.
    Cut,
    /// A client's ack of a delivery is lost, so the broker delivers the message again.
    Redeliver,
    /// A stored message is published again.
    Replay,
}

impl ChaosFault {
    /// All of them.
    pub const ALL: [ChaosFault; 5] = [
        ChaosFault::DropAck,
        ChaosFault::HoldAcks,
        ChaosFault::Cut,
        ChaosFault::Redeliver,
        ChaosFault::Replay,
    ];

    /// As metrics and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            ChaosFault::DropAck => "drop_acks",
            ChaosFault::HoldAcks => "hold_acks",
            ChaosFault::Cut => "cut",
            ChaosFault::Redeliver => "redeliver",
            ChaosFault::Replay => "replay",
        }
    }
}

/// How often each fault happens: the share of its occasions, from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ChaosShares([f64; ChaosFault::ALL.len()]);

impl ChaosShares {
    /// Sets the share of a fault.
    #[must_use]
    pub fn with(mut self, fault: ChaosFault, share: f64) -> ChaosShares {
        if let Some(slot) = self.0.get_mut(fault as usize) {
            *slot = share;
        }
        self
    }

    /// Returns the share of a fault.
    pub fn of(&self, fault: ChaosFault) -> f64 {
        self.0.get(fault as usize).copied().unwrap_or_default()
    }
}

/// The plan of a run. All sessions that it may trouble share one.
#[derive(Clone, PartialEq, Debug)]
pub struct ChaosPlan {
    /// another seed decides otherwise
    pub seed: u64,
    /// how often each fault happens
    pub shares: ChaosShares,
    /// how long confirms are held back
    pub hold_for: Duration,
    /// the windows and guards whose messages are troubled; `None`: all messages are, those that nothing judges included
    pub windows: Option<Box<[Arc<str>]>>,
    /// when the run is over, if nobody stops it
    pub until: Instant,
}

impl ChaosPlan {
    /// Returns true if this fault happens to the occasion of this number on the connection of this number.
    pub fn decides(&self, fault: ChaosFault, connection: u64, occasion: u64) -> bool {
        let share = self.shares.of(fault);
        if share <= 0.0 {
            return false;
        }
        // 53 bits are a whole number in a float.
        let drawn = self.draw(fault, connection, occasion) >> 11;
        (drawn as f64) < share * (1_u64 << 53) as f64
    }

    /// Returns the number that decides about an occasion. All numbers are equally likely.
    pub fn draw(&self, fault: ChaosFault, connection: u64, occasion: u64) -> u64 {
        [fault as u64 + 1, connection, occasion]
            .into_iter()
            .fold(mix(self.seed), |hash, part| mix(hash ^ part))
    }

    /// Returns true if the messages of this window are troubled.
    pub(super) fn covers(&self, window: Option<&str>) -> bool {
        let Some(chosen) = &self.windows else { return true };
        window.is_some_and(|window| chosen.iter().any(|name| **name == *window))
    }
}

/// Mixes the bits of a number, as SplitMix64 does: each bit of the result depends on all bits of the number.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant; nothing is counted from it")]
mod tests {
    use super::*;

    fn plan(seed: u64, share: f64) -> ChaosPlan {
        let shares =
            ChaosFault::ALL.into_iter().fold(ChaosShares::default(), |all, fault| all.with(fault, share));
        ChaosPlan { seed, shares, hold_for: Duration::ZERO, windows: None, until: Instant::now() }
    }

    fn decided(plan: &ChaosPlan, fault: ChaosFault, connection: u64) -> Vec<u64> {
        (0..10_000).filter(|at| plan.decides(fault, connection, *at)).collect()
    }

    #[test]
    fn a_seed_always_decides_the_same_and_another_one_otherwise() {
        let (one, again, other) = (plan(7, 0.01), plan(7, 0.01), plan(8, 0.01));
        for fault in ChaosFault::ALL {
            assert_eq!(decided(&one, fault, 3), decided(&again, fault, 3));
            assert_ne!(decided(&one, fault, 3), decided(&other, fault, 3));
            assert_ne!(decided(&one, fault, 3), decided(&one, fault, 4), "each connection has its own luck");
        }
        assert_ne!(decided(&one, ChaosFault::Cut, 3), decided(&one, ChaosFault::DropAck, 3));
        // These numbers are kept: a report names its seed for years.
        assert_eq!(decided(&one, ChaosFault::Cut, 1).get(..4), Some(&KEPT[..]));
    }

    /// The first of 10,000 occasions that seed 7 picks with a share of 0.01.
    const KEPT: [u64; 4] = [245, 296, 339, 417];

    #[test]
    fn a_share_is_as_often_as_it_says() {
        for share in [0.001, 0.01, 0.3, 0.9] {
            let plan = plan(1, share);
            for fault in ChaosFault::ALL {
                let count =
                    (0..4).map(|connection| decided(&plan, fault, connection).len()).sum::<usize>() as f64;
                let (mean, deviation) = (40_000.0 * share, (40_000.0 * share * (1.0 - share)).sqrt());
                assert!((count - mean).abs() < 5.0 * deviation, "{count} of 40,000 with {share}");
            }
        }
        assert_eq!(decided(&plan(1, 0.0), ChaosFault::Cut, 0).len(), 0);
        assert_eq!(decided(&plan(1, 1.0), ChaosFault::Cut, 0).len(), 10_000);
    }

    #[test]
    fn only_the_chosen_windows_are_troubled() {
        let all = plan(1, 1.0);
        assert!(all.covers(None) && all.covers(Some("orders")));
        let some = ChaosPlan { windows: Some(Box::from(["orders".into()])), ..all };
        assert!(some.covers(Some("orders")) && !some.covers(Some("order")) && !some.covers(None));
    }
}
