//! Makes the log of a window of sequences smaller: one record for each producer stands in the place of a record for each number.
//!
//! All segments that are sealed are replaced by one, which has what the window knows of its producers now. That is later than what
//! the sealed segments say, and perhaps later than the open segment: reading a number once more changes nothing, and of each number the last
//! record counts. The segment takes the name of the first one that it replaces. Then the others are deleted, the lowest number first. A
//! crash in between leaves the last ones.
//!
//! The window may have forgotten something that the log has not forgotten yet. The segment is prepared aside, and takes its place only
//! when the log has everything that happened before the window was asked.

use super::compact::Replaced;
use super::files::Files;
use super::frame;
use super::log::{Number, Segment, Span, UNFINISHED, name};
use super::recover::Moment;
use crate::store::Logged;
use hapax_core::window::Position;
use hapax_core::window::logged::{Codec, Record, What};
use std::io;
use std::time::Instant;

/// The most producers of a batch.
const BATCH: usize = 4096;
/// Bytes that are written at once.
const CHUNK: usize = 1 << 20;

/// A segment that is written and does not have its name yet.
#[derive(Debug)]
pub(super) struct Prepared {
    /// the segments that it replaces
    old: Vec<Number>,
    /// `None`: there is nothing to keep
    new: Option<Segment>,
    /// the log has to have everything up to this position before
    pub(super) position: Position,
}

/// Writes everything that the window knows now, to replace these segments. `start` is the moment at which the process's own clock says zero.
pub(super) fn prepare<F: Files>(
    files: &F,
    segments: &[Segment],
    window: &Logged,
    codec: &Codec,
    (moment, start): (Moment, Instant),
) -> io::Result<Prepared> {
    let (records, position) = window.images(moment.now);
    let (bytes, span) = frames(&records, codec, moment, start);
    let old: Vec<Number> = segments.iter().map(|segment| segment.number).collect();
    let first = old.first().copied().filter(|_| !bytes.is_empty());
    let new = first.map(|number| Segment { number, bytes: bytes.len() as u64, span });
    if new.is_some() {
        let _ = files.remove(UNFINISHED);
        let mut file = files.create(UNFINISHED)?;
        for chunk in bytes.chunks(CHUNK) {
            files.append(&mut file, chunk)?;
        }
        files.sync(&mut file)?;
    }
    Ok(Prepared { old, new, position })
}

fn frames(records: &[Record], codec: &Codec, moment: Moment, start: Instant) -> (Vec<u8>, Span) {
    let (mut bytes, mut span) = (Vec::new(), Span::default());
    for records in records.chunks(BATCH) {
        let batch = codec.encode(records, moment.now, moment.wall);
        frame::put(&mut bytes, moment.clock(start), &batch);
    }
    for Record { at, what } in records {
        if let What::Producer(image) = what {
            span.add(*at, at.checked_add(image.ttl));
        }
    }
    (bytes, span)
}

impl Prepared {
    /// Puts the segment in the place of the others.
    pub(super) fn install<F: Files>(self, files: &F) -> io::Result<Replaced> {
        let Prepared { old, new, .. } = self;
        if let Some(Segment { number, .. }) = new {
            files.rename(UNFINISHED, &name(number))?;
            files.sync_names()?;
        }
        for number in old.iter().skip(usize::from(new.is_some())) {
            match files.remove(&name(*number)) {
                // An earlier pass that failed has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
            files.sync_names()?;
        }
        Ok(Replaced { old, new, damaged: 0 })
    }
}
