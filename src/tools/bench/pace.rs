//! When each message is due, if there is a rate: evenly, and in turn over the connections.

use std::time::Duration;

const NANOS: f64 = 1e9;

/// A schedule. Times are nanoseconds after the start.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Pace {
    /// messages per second, over all connections
    rate: f64,
    connections: u64,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "times are positive, and exact in 53 bits for a hundred days"
)]
impl Pace {
    pub(super) fn new(rate: f64, connections: usize) -> Pace {
        Pace { rate, connections: connections.max(1) as u64 }
    }

    /// How many messages are due by now, over all connections. The first one is due at once.
    pub(super) fn due_by(&self, now: u64) -> u64 {
        (now as f64 * self.rate / NANOS) as u64 + 1
    }

    /// How many of them are this connection's.
    pub(super) fn owed(&self, connection: u64, now: u64) -> u64 {
        (self.due_by(now) + self.connections - 1 - connection) / self.connections
    }

    /// When this connection's message with this number is due.
    pub(super) fn due(&self, connection: u64, number: u64) -> u64 {
        self.moment(number * self.connections + connection)
    }

    /// How long until the next one is.
    pub(super) fn next(&self, now: u64) -> Duration {
        Duration::from_nanos(self.moment(self.due_by(now)).saturating_sub(now))
    }

    fn moment(&self, number: u64) -> u64 {
        (number as f64 * NANOS / self.rate) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_evenly_and_in_turn() {
        let pace = Pace::new(1000.0, 3);
        assert_eq!([0, 999_999, 1_000_001, 9_000_001].map(|now| pace.due_by(now)), [1, 1, 2, 10]);
        assert_eq!([0, 1, 2].map(|connection| pace.owed(connection, 9_000_001)), [4, 3, 3]);
        assert_eq!([0, 1, 2].map(|connection| pace.due(connection, 2)), [6_000_000, 7_000_000, 8_000_000]);
        assert_eq!(pace.next(1_500_000), Duration::from_micros(500));
    }
}
