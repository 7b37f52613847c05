//! Makes the log of a window of ids smaller while it is in use: segments are replaced by ones with the records that are still needed, in the same order.
//!
//! (A log of sequences has passes of another kind, see `checkpoint.rs`.) A record is needed if the window still remembers what it says. The log therefore stays as large as the window: the record of an id goes
//! when capacity has pushed the id out, or when it was stored anew. A pass looks at the segments that are sealed when it begins, from the oldest
//! on. The result takes the name of the first segment that it replaces. Then the others are deleted, the lowest number first: a crash between
//! leaves the last ones, and reading them once more changes nothing.

use super::files::Files;
use super::frame::{self, Found};
use super::log::{Number, Segment, Span, UNFINISHED, name};
use hapax_core::window::Key;
use hapax_core::window::logged::{Batch, Codec, Record, RelayId, What, Written};
use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

/// The window's clock tells times in steps of a second at most, and the wall clock in milliseconds. An id that was stored anew within this
/// time keeps both records.
const SLACK: i64 = 2_000;
/// Batches whose clocks differ by more milliseconds than this are not joined.
const SAME_CLOCK: u64 = 10;
/// The most records of a joined batch.
const JOINED: usize = 4096;
/// Bytes that are written at once.
const CHUNK: usize = 1 << 20;

/// The state of a key in the window now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// It is remembered, and was committed or made young at this time, in milliseconds of the process's own clock.
    Seen(i64),
    /// Its outcome is not known.
    InFlight,
    /// It is not remembered.
    Unknown,
}

/// How a pass judges records.
pub(super) struct Judge<'a> {
    pub(super) codec: &'a Codec,
    /// The clock of batches that an earlier process has written: as it was when they were read.
    pub(super) earlier: i64,
    /// The moment at which the process's own clock says zero.
    pub(super) start: Instant,
    /// The log has everything that happened before this time of the process's own clock.
    pub(super) written_before: i64,
    /// Asks the window.
    pub(super) state: &'a dyn Fn(Key) -> State,
    pub(super) stop: &'a AtomicBool,
    pub(super) segment_bytes: u64,
}

/// One replacement that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Replaced {
    pub(super) old: Vec<Number>,
    pub(super) new: Option<Segment>,
    /// frames that could not be read
    pub(super) damaged: u64,
}

/// Goes through these segments, the oldest first. Tells of each replacement when it is made.
pub(super) fn pass<F: Files>(
    files: &F,
    segments: &[Segment],
    judge: &Judge<'_>,
    tell: impl FnMut(Replaced),
) -> io::Result<()> {
    let done = replace_all(files, segments, judge, tell);
    if done.is_err() {
        // On a full disk, what is unfinished takes the room of what is to be written.
        let _ = files.remove(UNFINISHED);
    }
    done
}

fn replace_all<F: Files>(
    files: &F,
    segments: &[Segment],
    judge: &Judge<'_>,
    mut tell: impl FnMut(Replaced),
) -> io::Result<()> {
    let mut kept = Kept::default();
    let mut rest = segments;
    while !rest.is_empty() && !judge.stop.load(Relaxed) {
        let mut group = Group::new(judge);
        let mut old = Vec::new();
        while let Some((segment, more)) = rest.split_first()
            && group.bytes() < judge.segment_bytes / 2
        {
            group.read(&files.read(&name(segment.number))?, &mut kept)?;
            old.push(segment.number);
            rest = more;
        }
        group.flush();
        let (Some(first), false) = (old.first().copied(), judge.stop.load(Relaxed)) else { return Ok(()) };
        let (bytes, span) = (group.out.len() as u64, group.span);
        let new = (bytes > 0).then_some(Segment { number: first, bytes, span });
        if new.is_some() {
            let _ = files.remove(UNFINISHED);
            let mut file = files.create(UNFINISHED)?;
            for chunk in group.out.chunks(CHUNK) {
                files.append(&mut file, chunk)?;
            }
            files.sync(&mut file)?;
            files.rename(UNFINISHED, &name(first))?;
            files.sync_names()?;
        }
        for number in old.iter().skip(usize::from(new.is_some())) {
            files.remove(&name(*number))?;
            files.sync_names()?;
        }
        tell(Replaced { old, new, damaged: group.damaged });
    }
    Ok(())
}

/// Notes what a pass has kept so far.
#[derive(Default)]
struct Kept {
    /// something
    any: bool,
    /// Ids that were in flight. A later record may take them back. That one is kept, too.
    in_flight: HashSet<Key>,
}

/// The segment that will stand in the place of some others.
struct Group<'a> {
    judge: &'a Judge<'a>,
    out: Vec<u8>,
    span: Span,
    damaged: u64,
    records: Vec<Record>,
    clock: i64,
    now: Instant,
    wall: SystemTime,
}

impl<'a> Group<'a> {
    fn new(judge: &'a Judge<'a>) -> Group<'a> {
        // Any two moments will do: times are turned into this one and back.
        let (now, wall) = (judge.start, SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 31));
        Group {
            judge,
            out: Vec::new(),
            span: Span::default(),
            damaged: 0,
            records: Vec::new(),
            clock: 0,
            now,
            wall,
        }
    }

    fn bytes(&self) -> u64 {
        self.out.len() as u64
    }

    fn read(&mut self, bytes: &[u8], kept: &mut Kept) -> io::Result<()> {
        for found in frame::scan(bytes) {
            match found {
                Found::Frame { clock, batch } => match self.judge.codec.decode(batch) {
                    Ok(batch) => self.batch(clock, batch, kept),
                    Err(_) => self.damaged += 1,
                },
                Found::Damaged { .. } => self.damaged += 1,
                // The end of a segment that was given up, or of one that this process has not written yet.
                Found::Torn { .. } => {}
                Found::Format(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }

    fn batch(&mut self, clock: i64, Batch { relay, records }: Batch, kept: &mut Kept) {
        let clock = clock_of(clock, relay, self.judge);
        if clock.abs_diff(self.clock) > SAME_CLOCK {
            self.flush();
        }
        for record in records {
            if self.records.is_empty() {
                self.clock = clock;
            }
            self.record(clock, &record, kept);
            if self.records.len() >= JOINED {
                self.flush();
            }
        }
    }

    fn record(&mut self, clock: i64, written: &Written, kept: &mut Kept) {
        let judge = self.judge;
        let what = match written {
            Written::Seen { claim, at, ttl, body, tenant }
            | Written::Touched { claim, at, ttl, body, tenant } => {
                let at_own = millis(*at).saturating_sub(clock);
                match (judge.state)(claim.key()) {
                    // (What the window knows and the log does not, a crash takes.)
                    State::Seen(newest)
                        if newest > at_own.saturating_add(SLACK)
                            && newest.saturating_add(SLACK) < judge.written_before =>
                    {
                        return;
                    }
                    State::Seen(_) => {}
                    State::InFlight => {
                        kept.in_flight.insert(claim.key());
                    }
                    State::Unknown => return,
                }
                kept.any = true;
                let at_own = instant(judge.start, at_own);
                self.span.add(at_own, at_own.checked_add(*ttl));
                let memo = hapax_core::window::Memo::new(*ttl, *body).of_tenant(*tenant);
                match written {
                    Written::Touched { .. } => What::Touched(*claim, memo),
                    _ => What::Seen(*claim, memo),
                }
            }
            Written::Forgotten(claim) if kept.in_flight.contains(&claim.key()) => What::Forgotten(*claim),
            Written::Flushed if kept.any => What::Flushed,
            Written::Changed(change) if kept.any => What::Changed(change.clone()),
            // The records that it takes back are gone.
            Written::Forgotten(_) | Written::Flushed | Written::Changed(_) => return,
            // The log of a window of sequences has passes of another kind.
            Written::Producer { .. } | Written::ProducerForgotten(_) => return,
        };
        let at = match written {
            Written::Seen { at, .. } | Written::Touched { at, .. } => self.then(*at),
            _ => self.now,
        };
        self.records.push(Record { at, what });
    }

    /// Turns a time of the wall clock into one that is written as this time again.
    fn then(&self, at: SystemTime) -> Instant {
        match self.wall.duration_since(at) {
            Ok(age) => self.now.checked_sub(age).unwrap_or(self.now),
            Err(error) => self.now.checked_add(error.duration()).unwrap_or(self.now),
        }
    }

    fn flush(&mut self) {
        if !self.records.is_empty() {
            let batch = self.judge.codec.encode(&self.records, self.now, self.wall);
            frame::put(&mut self.out, self.clock, &batch);
            self.records.clear();
        }
    }
}

/// Returns the clock that a batch was written by.
fn clock_of(clock: i64, relay: RelayId, judge: &Judge<'_>) -> i64 {
    if relay == judge.codec.relay() { clock } else { judge.earlier }
}

/// Milliseconds since 1970.
pub(super) fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The moment at which the process's own clock says this.
fn instant(start: Instant, own: i64) -> Instant {
    let distance = Duration::from_millis(own.unsigned_abs());
    let moment = if own < 0 { start.checked_sub(distance) } else { start.checked_add(distance) };
    moment.unwrap_or(start)
}
