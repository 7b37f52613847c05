//! The order of an operator for a run, and whether it is allowed.

use crate::config::ChaosSettings;
use hapax_core::pressure::Watched;
use hapax_core::session::{ChaosFault, ChaosShares};
use std::sync::Arc;
use std::time::Duration;

/// The shortest run, and the shortest time that confirms are held back.
pub const MIN_DURATION: Duration = Duration::from_millis(1);

/// A run that somebody wants.
#[derive(Clone, PartialEq, Debug)]
pub struct ChaosOrder {
    /// by which the run decides
    pub seed: u64,
    /// how long it lasts
    pub duration: Duration,
    /// how often each fault happens
    pub shares: ChaosShares,
    /// how long confirms are held back
    pub hold_for: Duration,
    /// the windows and guards whose messages are troubled; empty: all messages are
    pub windows: Vec<Arc<str>>,
}

impl ChaosOrder {
    /// Returns true if the order means the messages of this window.
    pub(super) fn means(&self, window: &str) -> bool {
        self.windows.is_empty() || self.windows.iter().any(|name| **name == *window)
    }

    /// Returns all that is wrong with it.
    pub(super) fn check(&self, settings: &ChaosSettings, windows: &[Watched]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut bounded = |name: &str, duration: Duration, most: Duration, key: &str| {
            let shown = |duration: Duration| humantime::format_duration(duration).to_string();
            let (given, least) = (shown(duration), shown(MIN_DURATION));
            if duration > most {
                wrong.push(format!("`{name}` is {given}, but {key} is {}", shown(most)));
            } else if duration < MIN_DURATION {
                wrong.push(format!("`{name}` is {given}, but must be at least {least}"));
            }
        };
        bounded("duration", self.duration, settings.max_duration, "chaos.max_duration");
        if self.shares.of(ChaosFault::HoldAcks) > 0.0 {
            bounded("hold_for", self.hold_for, settings.max_hold, "chaos.max_hold");
        }
        for fault in ChaosFault::ALL {
            let share = self.shares.of(fault);
            if !(0.0..=1.0).contains(&share) {
                wrong.push(format!("`{}` is {share}, but must be from 0 to 1", fault.name()));
            }
        }
        if ChaosFault::ALL.iter().all(|fault| self.shares.of(*fault) == 0.0) {
            wrong.push("nothing is to be done: give one of drop_acks, hold_acks, cut, redeliver and replay a share, as in 0.01".to_owned());
        }
        if self.shares.of(ChaosFault::Replay) > 0.0 && settings.replay.is_none() {
            wrong.push("`replay` needs a client of its own: write [chaos.replay], and below it uri = \"amqp://USER:PASSWORD@HOST:PORT/VHOST\" of this relay's own listener".to_owned());
        }
        let names = || windows.iter().map(|watched| &*watched.window.rules().name).collect::<Vec<_>>();
        for name in self.windows.iter().filter(|name| !names().contains(&&***name)) {
            wrong.push(format!(
                "there is no window and no guard named {name:?}; there are: {}",
                names().join(", ")
            ));
        }
        wrong
    }
}
