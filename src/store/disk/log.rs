//! The log of one window: segments that are appended to, one after the other. A segment never changes after it was sealed; it is deleted, or
//! replaced by one that holds less.
//!
//! * A segment that a write or a sync has failed on is sealed: nobody knows what the disk has of its end. The batch goes into a
//!   new one.
//! * Segments are deleted from the oldest on, and one after the other. A record that takes an id back is never gone before the
//!   record of that id.

use super::files::Files;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// The size from which on a new segment is begun.
pub(super) const SEGMENT: u64 = 16 << 20;
/// The file that a smaller segment is written to before it replaces others.
pub(super) const UNFINISHED: &str = "unfinished.tmp";

/// The number of a segment: they are read in this order.
pub(super) type Number = u64;

/// Returns the name of the file of a segment.
pub(super) fn name(number: Number) -> String {
    format!("{number:016x}.log")
}

/// Returns the number of the segment that has this file name.
pub(super) fn number(name: &str) -> Option<Number> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// When the ids of a segment, or of a batch, were committed, and when the last of them expires.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Span {
    pub(super) since: Option<Instant>,
    pub(super) until: Option<Instant>,
}

impl Span {
    /// Adds an id.
    pub(super) fn add(&mut self, at: Instant, until: Option<Instant>) {
        // The clock can't tell when it expires: as late as the clock can tell.
        let until = until.unwrap_or_else(|| far(at));
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
        self.until = Some(self.until.map_or(until, |latest| latest.max(until)));
    }

    pub(super) fn join(&mut self, other: Span) {
        if let (Some(since), Some(until)) = (other.since, other.until) {
            self.add(since, Some(until));
            self.add(since, self.until);
        }
    }
}

fn far(at: Instant) -> Instant {
    at.checked_add(std::time::Duration::from_secs(1 << 32)).unwrap_or(at)
}

/// One segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) number: Number,
    pub(super) bytes: u64,
    pub(super) span: Span,
}

/// The log of one window.
#[derive(Debug)]
pub(super) struct Log<F: Files> {
    files: Arc<F>,
    segments: VecDeque<Segment>,
    /// The file of the last segment, while it is appended to.
    open: Option<F::File>,
    next: Number,
    /// see [`SEGMENT`]
    segment_bytes: u64,
}

impl<F: Files> Log<F> {
    /// Opens the log. Its segments are still to be read.
    pub(super) fn open(files: Arc<F>, segment_bytes: u64) -> io::Result<Log<F>> {
        let names = files.names()?;
        if names.iter().any(|name| name == UNFINISHED) {
            files.remove(UNFINISHED)?;
        }
        let mut numbers: Vec<Number> = names.iter().filter_map(|name| number(name)).collect();
        numbers.sort_unstable();
        let next = numbers.last().map_or(1, |last| last + 1);
        let segment = |number| Segment { number, bytes: 0, span: Span::default() };
        let segments = numbers.into_iter().map(segment).collect();
        Ok(Log { files, segments, open: None, next, segment_bytes })
    }

    /// Returns the numbers of all segments, the oldest first.
    pub(super) fn numbers(&self) -> Vec<Number> {
        self.segments.iter().map(|segment| segment.number).collect()
    }

    /// Returns the folder.
    pub(super) fn files(&self) -> &Arc<F> {
        &self.files
    }

    /// Notes what was found in a segment at the start.
    pub(super) fn note(&mut self, number: Number, bytes: u64, span: Span) {
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.number == number) {
            (segment.bytes, segment.span) = (bytes, span);
        }
    }

    /// Appends bytes. They survive a power loss when it returns. After a failure nothing is known of them, and they are to be appended again.
    pub(super) fn append(&mut self, bytes: &[u8], span: Span) -> io::Result<()> {
        if self.segments.back().is_some_and(|last| last.bytes >= self.segment_bytes) {
            self.seal();
        }
        if self.open.is_none() {
            self.begin()?;
        }
        let (Some(file), Some(segment)) = (&mut self.open, self.segments.back_mut()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let done = self.files.append(file, bytes).and_then(|()| self.files.sync(file));
        if let Err(error) = done {
            self.give_up();
            return Err(error);
        }
        segment.bytes += bytes.len() as u64;
        segment.span.join(span);
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        let number = self.next;
        self.next += 1;
        let file = self.files.create(&name(number))?;
        if let Err(error) = self.files.sync_names() {
            let _ = self.files.remove(&name(number));
            return Err(error);
        }
        self.segments.push_back(Segment { number, bytes: 0, span: Span::default() });
        self.open = Some(file);
        Ok(())
    }

    /// Leaves a segment whose end nobody knows. Its synced part is not touched. The rest is cut off, if the disk lets it.
    fn give_up(&mut self) {
        self.open = None;
        let Some(segment) = self.segments.back().copied() else { return };
        if segment.bytes == 0 && self.files.remove(&name(segment.number)).is_ok() {
            self.segments.pop_back();
            return;
        }
        let _ = self.files.cut(&name(segment.number), usize::try_from(segment.bytes).unwrap_or(usize::MAX));
    }

    /// Ends the last segment. The next batch begins a new one.
    pub(super) fn seal(&mut self) {
        self.open = None;
    }

    /// Deletes the oldest segments whose ids are all expired. Returns how many.
    pub(super) fn expire(&mut self, now: Instant) -> io::Result<usize> {
        let mut count = 0;
        loop {
            let Some(oldest) = self.sealed().next().copied() else { break };
            if oldest.span.until.is_some_and(|until| until > now) {
                break;
            }
            match self.files.remove(&name(oldest.number)) {
                // Somebody has deleted it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
            self.files.sync_names()?;
            self.segments.pop_front();
            count += 1;
        }
        Ok(count)
    }

    /// Returns true if everything in the oldest segment is expired.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.sealed().next().is_some_and(|oldest| oldest.span.until.is_none_or(|until| until <= now))
    }

    /// Returns the segments that do not change any more, the oldest first.
    pub(super) fn sealed(&self) -> impl Iterator<Item = &Segment> {
        let count = self.segments.len() - usize::from(self.open.is_some());
        self.segments.iter().take(count)
    }

    /// Notes that one segment stands in the place of these, or none.
    pub(super) fn replaced(&mut self, old: &[Number], new: Option<Segment>) {
        self.segments.retain(|segment| !old.contains(&segment.number));
        let Some(new) = new else { return };
        let place = self.segments.partition_point(|segment| segment.number < new.number);
        self.segments.insert(place, new);
    }

    /// Appends bytes that nobody relies on.
    #[cfg(test)]
    pub(super) fn append_unsynced(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.open.is_none() || self.segments.back().is_some_and(|last| last.bytes >= self.segment_bytes) {
            self.begin()?;
        }
        let (Some(file), Some(segment)) = (&mut self.open, self.segments.back_mut()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        segment.bytes += bytes.len() as u64;
        self.files.append(file, bytes)
    }

    /// Returns the bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Returns when the oldest id in the log was committed.
    pub(super) fn since(&self) -> Option<Instant> {
        self.segments.iter().filter_map(|segment| segment.span.since).min()
    }
}
