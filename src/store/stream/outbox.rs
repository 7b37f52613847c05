//! The batches of this relay on their way into the stream, until the broker has confirmed them.

use super::envelope::{Envelope, Kind};
use hapax_core::window::Position;
use hapax_core::window::logged::Record;
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

/// The most records of a batch. With 40 to 50 KB it fits into one frame, and the broker has few messages to take.
pub(super) const MOST_RECORDS: usize = 2_000;
/// The most batches that wait for their confirms. The window keeps what comes behind them.
pub(super) const MOST_BATCHES: usize = 16;
/// The most own batches that are followed until they come back.
const MOST_FOLLOWED: usize = 1024;

/// A batch that the broker has not confirmed.
#[derive(Debug)]
pub(super) struct Batch {
    /// the message as it is published, the same each time
    pub(super) bytes: Vec<u8>,
    /// of its last record
    position: Position,
    /// when it was made
    made: Instant,
}

/// The batches that are not confirmed, in order, and those that have not come back by the consumer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    batches: VecDeque<Batch>,
    made: u64,
    /// the numbers of the batches and marks that have not come back yet, and when each was published
    followed: VecDeque<(Kind, Instant)>,
    marks: u64,
    /// The broker has not taken a batch, and may have taken a later one.
    has_gap: bool,
    /// how long the last one that came back took
    echo: Option<Duration>,
}

impl Outbox {
    /// Makes a batch of these records, to be published behind all others.
    pub(super) fn push(
        &mut self,
        envelope: &Envelope,
        (records, position): (Vec<Record>, Position),
        now: Instant,
        wall: SystemTime,
    ) -> &Batch {
        self.made += 1;
        let kind = Kind::Records(self.made);
        let bytes = envelope.seal(kind, &records, now, wall);
        self.follow(kind, now);
        self.batches.push_back(Batch { bytes, position, made: now });
        &self.batches[self.batches.len() - 1]
    }

    /// Notes that the broker has not taken a batch, and may have taken a later one.
    pub(super) fn not_taken(&mut self) {
        self.has_gap = true;
    }

    /// Returns the batches that are not confirmed, oldest first, to be published again. If a later one may stand in the stream without an
    /// earlier one, they get new numbers: readers pass over a number that comes after a larger one.
    pub(super) fn again(&mut self, envelope: &Envelope, now: Instant, wall: SystemTime) -> Vec<Vec<u8>> {
        if std::mem::take(&mut self.has_gap) {
            for at in 0..self.batches.len() {
                self.made += 1;
                if let Some(batch) = self.batches.get_mut(at) {
                    batch.bytes = envelope.renumber(&batch.bytes, self.made, wall);
                }
                self.follow(Kind::Records(self.made), now);
            }
        }
        self.batches.iter().map(|batch| batch.bytes.clone()).collect()
    }

    /// Makes a mark. It has to come back on the connection that it is published on, or never.
    pub(super) fn mark(&mut self, envelope: &Envelope, now: Instant, wall: SystemTime) -> (u64, Vec<u8>) {
        self.marks += 1;
        let kind = Kind::Mark(self.marks);
        self.follow(kind, now);
        (self.marks, envelope.seal(kind, &[], now, wall))
    }

    /// Notes that the oldest batch is confirmed. Returns the position that is written now, and how long it took.
    pub(super) fn confirmed(&mut self, now: Instant) -> Option<(Position, Duration)> {
        let batch = self.batches.pop_front()?;
        Some((batch.position, now.saturating_duration_since(batch.made)))
    }

    /// Returns true if no batch waits for its confirm.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Returns true if another batch may be published before one is confirmed.
    pub(super) fn has_room(&self) -> bool {
        self.batches.len() < MOST_BATCHES
    }

    /// Returns when the oldest batch was made that is not confirmed.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.batches.front().map(|batch| batch.made)
    }

    fn follow(&mut self, kind: Kind, now: Instant) {
        if self.followed.len() == MOST_FOLLOWED {
            self.followed.pop_front();
        }
        self.followed.push_back((kind, now));
    }

    /// Notes that this one came back by the consumer. All that was published before it on this connection came back, or never will.
    pub(super) fn came_back(&mut self, kind: Kind, now: Instant) {
        let Some(place) = self.followed.iter().position(|(followed, _)| *followed == kind) else { return };
        if let Some((_, published)) = self.followed.drain(..=place).next_back() {
            self.echo = Some(now.saturating_duration_since(published));
        }
    }

    /// Returns how far this relay is behind the end of the stream: how long its own messages take to come back.
    pub(super) fn behind(&self, now: Instant) -> Option<Duration> {
        match self.followed.front() {
            Some((_, published)) => {
                Some(now.saturating_duration_since(*published).max(self.echo.unwrap_or_default()))
            }
            None => self.echo,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::stream::reader::{Came, Reader};
    use hapax_core::window::logged::{RelayId, What, Written};
    use hapax_core::window::{Key, KeyMaker, Rules};

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    fn envelope() -> Envelope {
        Envelope::new(KeyMaker::new((1, 2)), &Rules::named("orders"), RelayId(1))
    }

    fn push(outbox: &mut Outbox, position: u64, now: Instant) {
        let _ = outbox.push(&envelope(), (Vec::new(), Position(position)), now, SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn positions_are_told_in_order_and_a_batch_is_the_same_each_time() {
        let (mut outbox, now) = (Outbox::default(), base());
        push(&mut outbox, 3, now);
        push(&mut outbox, 5, now);
        let before = outbox.again(&envelope(), now, SystemTime::UNIX_EPOCH);
        assert_eq!(outbox.confirmed(now + SECOND), Some((Position(3), SECOND)));
        assert_eq!(outbox.again(&envelope(), now, SystemTime::UNIX_EPOCH), before[1..]);
        assert_eq!(envelope().open(&before[1]).unwrap().kind, Kind::Records(2));
        assert_eq!(outbox.confirmed(now), Some((Position(5), Duration::ZERO)));
        assert_eq!((outbox.confirmed(now), outbox.is_empty()), (None, true));
    }

    /// The stream was deleted: the first batch came back. Another relay declared it again, so the second one was taken.
    #[test]
    fn a_batch_that_was_not_taken_counts_for_readers_that_have_a_later_one() {
        let (mut outbox, now, wall) = (Outbox::default(), base(), SystemTime::UNIX_EPOCH);
        for key in [1, 2] {
            let seen = What::Seen(Key(key).into(), SECOND.into());
            let records = vec![Record { at: now, what: seen }];
            let _ = outbox.push(&envelope(), (records, Position(1)), now, wall);
        }
        let taken = outbox.batches[1].bytes.clone();
        outbox.not_taken();
        let again = outbox.again(&envelope(), now, wall);
        assert_eq!(outbox.again(&envelope(), now, wall), again, "the same bytes from now on");
        let mut reader = Reader::new(RelayId(2));
        let read: Vec<_> = [&taken, &again[0], &again[1]]
            .into_iter()
            .map(|bytes| match reader.take(envelope().open(bytes)) {
                Came::Batch { message, .. } => message.batch.records[0].clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        let of = |key| matches!(read[key], Written::Seen { claim, .. } if claim.key() == Key([2, 1, 2][key]));
        assert!((0..3).all(of), "{read:?}");
        // The next one goes on from there.
        push(&mut outbox, 3, now);
        assert_eq!(envelope().open(&outbox.batches[2].bytes).unwrap().kind, Kind::Records(5));
    }

    #[test]
    fn there_is_a_most_of_everything() {
        let (mut outbox, now) = (Outbox::default(), base());
        for position in 1..=MOST_BATCHES as u64 {
            assert!(outbox.has_room());
            push(&mut outbox, position, now);
        }
        assert!(!outbox.has_room());
        for position in 0..2 * MOST_FOLLOWED as u64 {
            push(&mut outbox, position, now);
        }
        assert_eq!(outbox.followed.len(), MOST_FOLLOWED);
    }

    #[test]
    fn what_has_not_come_back_says_how_far_the_reader_is_behind() {
        let (mut outbox, now) = (Outbox::default(), base());
        assert_eq!(outbox.behind(now), None);
        push(&mut outbox, 1, now);
        let (mark, _) = outbox.mark(&envelope(), now + SECOND, SystemTime::UNIX_EPOCH);
        push(&mut outbox, 2, now + 2 * SECOND);
        assert_eq!(outbox.behind(now + 3 * SECOND), Some(3 * SECOND));
        outbox.came_back(Kind::Mark(mark), now + 4 * SECOND);
        assert_eq!(outbox.behind(now + 4 * SECOND), Some(3 * SECOND));
        outbox.came_back(Kind::Records(2), now + 4 * SECOND);
        assert_eq!(outbox.behind(now + 50 * SECOND), Some(2 * SECOND));
        // A repeated one says nothing.
        outbox.came_back(Kind::Records(1), now + 60 * SECOND);
        assert_eq!(outbox.behind(now + 60 * SECOND), Some(2 * SECOND));
    }
}
