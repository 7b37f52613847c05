//! One line in the log for each publish that a window with `audit = true` drops, up to a bound for each second. The next line says how many
//! were left out.

use super::Publisher;
use hapax_core::session::{Sighted, Sighting};
use hapax_core::window::{OnConflict, Seen};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The most lines in [`EVERY`].
const MOST: u64 = 1000;
const EVERY: Duration = Duration::from_secs(1);

/// The lines of all connections.
#[derive(Debug, Default)]
pub struct Audit {
    bound: Mutex<Bound>,
    lines: AtomicU64,
    left_out: AtomicU64,
}

#[derive(Debug, Default)]
struct Bound {
    /// until when no more than [`MOST`] lines are written
    until: Option<Instant>,
    written: u64,
    /// since the last line
    left_out: u64,
}

impl Audit {
    /// Logs a publish that was dropped, unless there were too many in this second. `first` looks up what is remembered of its id.
    pub(super) fn note(
        &self,
        publisher: Publisher<'_>,
        sighting: &Sighting,
        first: impl FnOnce() -> Option<Seen>,
        now: Instant,
    ) {
        if let Some(left_out) = self.next(sighting.left_out, now) {
            write(publisher, sighting, first(), left_out, now);
        }
    }

    /// Counts publishes that a connection has left out, when it ends.
    pub fn leave_out(&self, publishes: u64) {
        self.left_out.fetch_add(publishes, Relaxed);
        self.bound.lock().left_out += publishes;
    }

    /// Returns the number of lines that were written.
    pub fn lines(&self) -> u64 {
        self.lines.load(Relaxed)
    }

    /// Returns the number of dropped publishes without a line.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Relaxed)
    }

    /// Returns how many were left out since the last line, if there is room for one more. `before`: those that the connection has left out.
    fn next(&self, before: u64, now: Instant) -> Option<u64> {
        let mut bound = self.bound.lock();
        if bound.until.is_none_or(|until| now >= until) {
            (bound.until, bound.written) = (Some(now + EVERY), 0);
        }
        bound.left_out += before;
        self.left_out.fetch_add(before, Relaxed);
        if bound.written >= MOST {
            bound.left_out += 1;
            self.left_out.fetch_add(1, Relaxed);
            return None;
        }
        bound.written += 1;
        self.lines.fetch_add(1, Relaxed);
        Some(std::mem::take(&mut bound.left_out))
    }
}

fn write(publisher: Publisher<'_>, sighting: &Sighting, first: Option<Seen>, left_out: u64, now: Instant) {
    let text = |octets| String::from_utf8_lossy(octets);
    let outcome = match sighting.what {
        Sighted::Conflict(OnConflict::Reject) => "refused",
        Sighted::Conflict(OnConflict::Forward) | Sighted::Observed | Sighted::Passed => "forwarded",
        Sighted::Conflict(OnConflict::Drop) | Sighted::Dropped => "dropped",
    };
    tracing::info!(
        target: "hapax::audit",
        window = &*sighting.window,
        vhost = &*text(&sighting.vhost),
        exchange = &*text(&sighting.exchange),
        routing_key = &*text(&sighting.routing_key),
        id = &*text(&sighting.id),
        user = publisher.user.unwrap_or_default(),
        peer = %publisher.peer,
        outcome,
        conflict = sighting.what.is_conflict(),
        first_seen_seconds = first.map(|seen| now.saturating_duration_since(seen.at).as_secs_f64()),
        count = first.map(|seen| seen.duplicates),
        left_out,
        "a duplicate was dropped"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many clients there are and whatever they send, a second has so many lines, and the next one says what is missing.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant; only distances to it count")]
    fn bounded_in_each_second_and_the_rest_counted() {
        let (audit, begin) = (Audit::default(), Instant::now());
        let written: Vec<u64> = (0..MOST + 50).filter_map(|_| audit.next(2, begin)).collect();
        assert_eq!((written.len() as u64, written[0], written[1]), (MOST, 2, 2));
        audit.leave_out(7);
        assert_eq!(audit.next(1, begin + EVERY), Some(50 * 3 + 7 + 1));
        assert_eq!((audit.lines(), audit.left_out()), (MOST + 1, (MOST + 50) * 2 + 50 + 7 + 1));
    }
}
