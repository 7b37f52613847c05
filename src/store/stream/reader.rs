//! The meaning of the stream's messages for this relay: whose they are, whether they are new, and how old.

use super::envelope::{Kind, Message};
use hapax_core::window::logged::{BadBatch, RelayId};
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

/// The most runs of relays that are known. The one is forgotten that was silent for the longest time.
const MOST_RUNS: usize = 4096;
/// Clocks that differ by less are taken for equal.
pub(super) const SKEW: Duration = Duration::from_secs(5);
/// For how long a clock is compared at least before it is compared anew.
const COMPARED: Duration = Duration::from_secs(60);
/// Bytes at the end of a message by which it is known again. It is the seal.
const TAIL: usize = 16;

/// The meaning of a message for this relay.
#[derive(PartialEq, Debug)]
pub(super) enum Came {
    /// This relay has written it itself, since it started.
    Own(Kind),
    /// It was read before, or it is a mark of another relay.
    Nothing,
    /// A batch of another relay, or of an earlier run of this one.
    Batch {
        message: Message,
        /// Batches of the same run that should have come before it, and did not.
        missed: u64,
    },
    /// It can't be read.
    Bad(BadBatch),
}

/// Where in the stream a message stands, and what it looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    offset: u64,
    length: usize,
    tail: [u8; TAIL],
}

impl Place {
    fn new(offset: u64, bytes: &[u8]) -> Place {
        let mut tail = [0; TAIL];
        tail.iter_mut().zip(bytes.iter().rev()).for_each(|(tail, byte)| *tail = *byte);
        Place { offset, length: bytes.len(), tail }
    }
}

/// What the first message after a reconnect says about the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rejoined {
    /// It is the next message.
    Next,
    /// It is the message that was read last: everything is where it was.
    Same,
    /// Messages that were not read are gone, because the broker has dropped them.
    Gap,
    /// It is another stream under the same name: it has to be read from its beginning.
    Other,
}

/// The state of reading one stream.
#[derive(Debug)]
pub(super) struct Reader {
    me: RelayId,
    runs: HashMap<RelayId, Run>,
    came: u64,
    last: Option<Place>,
    /// The next message is the first one on its connection.
    is_first: bool,
    ours: u64,
    stranger: Option<BadBatch>,
}

/// The facts about one run of a relay.
#[derive(Debug, Default)]
struct Run {
    /// of its last batch that was read
    number: u64,
    /// when that was, in the order of all messages
    came: u64,
    clock: Clock,
}

/// How much later the clock of this relay is than that of another one, in milliseconds: at most what is between writing and reading a
/// message, at its quickest. Two periods are kept, so that a clock that was set is noticed.
#[derive(Debug, Default)]
struct Clock {
    since: Option<Instant>,
    before: Option<i64>,
    least: Option<i64>,
}

impl Clock {
    fn compare(&mut self, later: i64, now: Instant) {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) > COMPARED) {
            self.since = Some(now);
            self.before = self.least.take();
        }
        self.least = Some(self.least.map_or(later, |least| least.min(later)));
    }

    fn later(&self) -> Option<i64> {
        self.before.into_iter().chain(self.least).min()
    }
}

impl Reader {
    pub(super) fn new(me: RelayId) -> Reader {
        let (runs, came, last, ours, stranger) = (HashMap::new(), 0, None, 0, None);
        Reader { me, runs, came, last, is_first: true, ours, stranger }
    }

    /// Begins to read on a new connection. Returns the offset to read from: that of the message which was read last, to see whether it
    /// is still there. `None`: the stream has to be read from its beginning.
    pub(super) fn attach(&mut self) -> Option<u64> {
        self.is_first = true;
        self.last.map(|last| last.offset)
    }

    /// Forgets where it has read: the stream is read from its beginning next. Batches that were read are known by their numbers.
    pub(super) fn lose_place(&mut self) {
        self.last = None;
    }

    /// Looks at where a message stands.
    pub(super) fn place(&mut self, offset: u64, bytes: &[u8]) -> Rejoined {
        let place = Place::new(offset, bytes);
        let is_first = std::mem::replace(&mut self.is_first, false);
        let rejoined = match self.last {
            Some(last) if is_first && offset == last.offset && place == last => Rejoined::Same,
            Some(last) if is_first && offset > last.offset => Rejoined::Gap,
            Some(_) if is_first => Rejoined::Other,
            _ => Rejoined::Next,
        };
        self.last = (rejoined != Rejoined::Other).then_some(place);
        rejoined
    }

    /// Looks at a message.
    pub(super) fn take(&mut self, opened: Result<Message, BadBatch>) -> Came {
        let message = match opened {
            Ok(message) => message,
            Err(bad) => {
                if matches!(bad, BadBatch::Identity | BadBatch::Format(_)) {
                    self.stranger = Some(bad);
                }
                return Came::Bad(bad);
            }
        };
        if message.batch.relay == self.me {
            return Came::Own(message.kind);
        }
        self.ours += 1;
        let Kind::Records(number) = message.kind else { return Came::Nothing };
        self.came += 1;
        self.make_room(message.batch.relay);
        let known = self.runs.contains_key(&message.batch.relay);
        let run = self.runs.entry(message.batch.relay).or_default();
        run.came = self.came;
        if number <= run.number {
            return Came::Nothing;
        }
        let missed = if known { number - run.number - 1 } else { 0 };
        run.number = number;
        Came::Batch { message, missed }
    }

    fn make_room(&mut self, for_run: RelayId) {
        if self.runs.len() < MOST_RUNS || self.runs.contains_key(&for_run) {
            return;
        }
        if let Some((&oldest, _)) = self.runs.iter().min_by_key(|(_, run)| run.came) {
            self.runs.remove(&oldest);
        }
    }

    /// Returns why all that stood in the stream is of no use here, if it is so: others have written it, with another secret, or about
    /// something else, or another version.
    pub(super) fn stranger(&self) -> Option<BadBatch> {
        self.stranger.filter(|_| self.ours == 0)
    }

    /// Returns the time that a clock of the writer would show now, and how far that clock is off, if it is.
    ///
    /// `is_live`: what was written before this relay came is read already, so the message was written a moment ago. Then clocks can be
    /// compared. What an old message says about a clock can't be told from its age.
    pub(super) fn moment(
        &mut self,
        message: &Message,
        is_live: bool,
        (now, wall): (Instant, SystemTime),
    ) -> (SystemTime, Option<Skew>) {
        let later = millis_between(message.sent, wall);
        let Some(run) = self.runs.get_mut(&message.batch.relay) else { return (wall, None) };
        if is_live {
            run.clock.compare(later, now);
        }
        let skew = run.clock.later().map(|millis| Skew { millis }).filter(Skew::is_evident);
        let there = skew.map_or(wall, |skew| skew.on_its_clock(wall));
        (there, skew)
    }
}

/// How far the clock of another relay is off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Skew {
    /// how much later this relay's clock is
    millis: i64,
}

impl Skew {
    fn is_evident(&self) -> bool {
        Duration::from_millis(self.millis.unsigned_abs()) >= SKEW
    }

    fn on_its_clock(self, wall: SystemTime) -> SystemTime {
        let off = Duration::from_millis(self.millis.unsigned_abs());
        let there = if self.millis > 0 { wall.checked_sub(off) } else { wall.checked_add(off) };
        there.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Says it.
    pub(super) fn seconds_behind(self) -> i64 {
        self.millis / 1000
    }
}

fn millis_between(from: SystemTime, to: SystemTime) -> i64 {
    let whole = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    match to.duration_since(from) {
        Ok(later) => whole(later),
        Err(earlier) => -whole(earlier.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::stream::envelope::Envelope;
    use hapax_core::window::engine::EngineKind;
    use hapax_core::window::event::NoListener;
    use hapax_core::window::local::Limits;
    use hapax_core::window::logged::{Record, StorePolicy, What};
    use hapax_core::window::{Found, Inspect, Key, KeyMaker, LoggedWindow, Mode, Rules};
    use std::sync::Arc;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    #[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
    fn base() -> Instant {
        Instant::now()
    }

    fn wall() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn envelope(secret: u64, relay: u64) -> Envelope {
        Envelope::new(KeyMaker::new((secret, 2)), &Rules::named("orders"), RelayId(relay))
    }

    /// A batch with one id, which was committed a second before.
    fn batch(relay: u64, number: u64, key: u128, (now, wall): (Instant, SystemTime)) -> Vec<u8> {
        let seen = What::Seen(Key(key).into(), Duration::from_secs(60).into());
        let record = Record { at: now - SECOND, what: seen };
        envelope(1, relay).seal(Kind::Records(number), &[record], now, wall)
    }

    fn take(reader: &mut Reader, bytes: &[u8]) -> Came {
        reader.take(envelope(1, 1).open(bytes))
    }

    #[test]
    fn what_this_run_has_written_is_its_own() {
        let (mut reader, at) = (Reader::new(RelayId(1)), (base(), wall()));
        assert_eq!(take(&mut reader, &batch(1, 7, 1, at)), Came::Own(Kind::Records(7)));
        assert!(matches!(take(&mut reader, &batch(2, 1, 1, at)), Came::Batch { missed: 0, .. }));
    }

    /// It was written again after a reconnect, or a stranger has published it again.
    #[test]
    fn a_batch_counts_once() {
        let (mut reader, at) = (Reader::new(RelayId(1)), (base(), wall()));
        let [first, second] = [batch(2, 1, 1, at), batch(2, 2, 2, at)];
        assert!(matches!(take(&mut reader, &first), Came::Batch { .. }));
        assert!(matches!(take(&mut reader, &second), Came::Batch { .. }));
        for again in [&first, &second] {
            assert_eq!(take(&mut reader, again), Came::Nothing);
        }
        // Another run begins to count anew.
        assert!(matches!(take(&mut reader, &batch(3, 1, 1, at)), Came::Batch { .. }));
    }

    #[test]
    fn a_batch_that_is_missing_is_noticed() {
        let (mut reader, at) = (Reader::new(RelayId(1)), (base(), wall()));
        for (number, missing) in [(5, 0), (6, 0), (9, 2)] {
            let Came::Batch { missed, .. } = take(&mut reader, &batch(2, number, 1, at)) else { panic!() };
            assert_eq!(missed, missing, "{number}");
        }
    }

    #[test]
    fn runs_of_relays_do_not_pile_up() {
        let (mut reader, at) = (Reader::new(RelayId(1)), (base(), wall()));
        for relay in 0..2 * MOST_RUNS as u64 {
            let _ = take(&mut reader, &batch(relay + 2, 1, 1, at));
        }
        assert_eq!(reader.runs.len(), MOST_RUNS);
        assert_eq!(take(&mut reader, &batch(2 * MOST_RUNS as u64 + 1, 1, 1, at)), Came::Nothing);
    }

    #[test]
    fn a_reconnect_finds_its_place_again() {
        let mut reader = Reader::new(RelayId(1));
        assert_eq!(reader.attach(), None);
        for (offset, bytes) in [(4, b"a"), (5, b"b"), (9, b"c")] {
            assert_eq!(reader.place(offset, bytes), Rejoined::Next);
        }
        assert_eq!(reader.attach(), Some(9));
        assert_eq!(reader.place(9, b"c"), Rejoined::Same);
        assert_eq!(reader.place(10, b"d"), Rejoined::Next);
        // The broker has dropped what this relay had read, and more.
        assert_eq!(reader.attach(), Some(10));
        assert_eq!(reader.place(12, b"e"), Rejoined::Gap);
    }

    #[test]
    fn another_stream_of_the_same_name_is_noticed() {
        for (offset, bytes) in [(9, b"x"), (0, b"x"), (0, b"c")] {
            let mut reader = Reader::new(RelayId(1));
            assert_eq!(reader.place(9, b"c"), Rejoined::Next);
            assert_eq!(reader.attach(), Some(9));
            assert_eq!(reader.place(offset, bytes), Rejoined::Other);
            assert_eq!(reader.attach(), None, "it is read from its beginning");
            assert_eq!(reader.place(0, b"x"), Rejoined::Next);
        }
    }

    #[test]
    fn a_stream_of_strangers_is_refused_and_one_message_of_a_stranger_is_not() {
        let at = (base(), wall());
        let mut reader = Reader::new(RelayId(1));
        let strange = envelope(2, 9).seal(Kind::Mark(1), &[], at.0, at.1);
        assert_eq!(take(&mut reader, &strange), Came::Bad(BadBatch::Identity));
        assert_eq!(take(&mut reader, b"hello"), Came::Bad(BadBatch::Foreign));
        assert_eq!(reader.stranger(), Some(BadBatch::Identity));
        let mut later = batch(2, 1, 1, at);
        later[3] = 9;
        assert_eq!(take(&mut reader, &later), Came::Bad(BadBatch::Format(9)));
        assert_eq!(reader.stranger(), Some(BadBatch::Format(9)));
        let _ = take(&mut reader, &batch(2, 1, 1, at));
        assert_eq!(reader.stranger(), None);
        // Only what nobody can read is no reason.
        let mut reader = Reader::new(RelayId(1));
        let _ = take(&mut reader, b"hello");
        assert_eq!(reader.stranger(), None);
    }

    fn window(now: Instant) -> Arc<LoggedWindow> {
        let limits = Limits {
            capacity: 100,
            ttl: HOUR,
            mode: Mode::Enforce,
            refresh_on_duplicate: false,
            waiters_per_id: 2,
        };
        let (engine, policy) = (EngineKind::default(), StorePolicy::default());
        LoggedWindow::new(Rules::named("orders"), limits, engine, Arc::new(NoListener), "stream", policy, now)
    }

    /// The other relay's clock is off by this much; TTL is a minute. Returns for how many seconds the id is known.
    fn known_for(other: impl Fn(SystemTime) -> SystemTime, is_live: bool) -> Option<u64> {
        let now = base();
        let (mut reader, window) = (Reader::new(RelayId(1)), window(now));
        let Came::Batch { message, .. } = take(&mut reader, &batch(2, 1, 7, (now, other(wall())))) else {
            panic!()
        };
        let (there, _) = reader.moment(&message, is_live, (now, wall()));
        let _ = window.merge(&message.batch, now, there);
        match window.find(Key(7).into(), now).unwrap() {
            Found::Seen(seen) => Some((seen.until.duration_since(now) + SECOND / 2).as_secs()),
            _ => None,
        }
    }

    #[test]
    fn a_relay_whose_clock_is_off_is_understood_while_both_run() {
        assert_eq!(known_for(|wall| wall, true), Some(59));
        assert_eq!(known_for(|wall| wall + HOUR, true), Some(59));
        assert_eq!(known_for(|wall| wall - HOUR, true), Some(59));
        // A moment is no skew: the message may have taken that long.
        assert_eq!(known_for(|wall| wall - 4 * SECOND, true), Some(55));
    }

    /// How old a message is that was read at the start can be told by the clocks alone. An id never lives longer than its TTL from now.
    #[test]
    fn after_a_restart_only_the_clocks_can_tell() {
        assert_eq!(known_for(|wall| wall + HOUR, false), Some(60));
        assert_eq!(known_for(|wall| wall - HOUR, false), None);
    }

    #[test]
    fn a_message_that_was_slow_is_as_old_as_it_is() {
        let now = base();
        let mut reader = Reader::new(RelayId(1));
        for (number, slow) in [(1, 0), (2, 40), (3, 20)] {
            let sent = wall() + HOUR;
            let message = batch(2, number, 7, (now, sent));
            let Came::Batch { message, .. } = take(&mut reader, &message) else { panic!() };
            let read = wall() + slow * SECOND;
            let (there, skew) = reader.moment(&message, true, (now, read));
            assert_eq!(there, sent + slow * SECOND);
            assert_eq!(skew.map(Skew::seconds_behind), Some(-3600));
        }
    }

    #[test]
    fn a_clock_that_was_set_is_believed_after_a_while() {
        let (now, mut reader) = (base(), Reader::new(RelayId(1)));
        let mut skew = |number: u64, sent: SystemTime| {
            let later = Duration::from_secs(number);
            let Came::Batch { message, .. } = take(&mut reader, &batch(2, number, 7, (now, sent + later)))
            else {
                panic!()
            };
            reader.moment(&message, true, (now + later, wall() + later)).1.map(Skew::seconds_behind)
        };
        assert_eq!(skew(1, wall()), None);
        assert_eq!(skew(2, wall() - HOUR), None, "it may have been slow");
        assert_eq!(skew(70, wall() - HOUR), None);
        assert_eq!(skew(140, wall() - HOUR), Some(3600));
        assert_eq!(skew(141, wall()), None);
    }
}
