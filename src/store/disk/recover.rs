//! Reads the log of a window at the start: in order, so that the window has the order of its ids again.

use super::compact::millis;
use super::files::Files;
use super::frame::{self, Found};
use super::log::{Log, Number, Span, name};
use crate::store::{Failure, Logged, name_of};
use hapax_core::window::logged::{BadBatch, Batch, Codec, FORMAT, Written};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

/// Segments that are read ahead of the window.
const AHEAD: usize = 2;

/// One moment, on the clocks that a log has to do with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) wall: SystemTime,
}

impl Moment {
    /// Returns how far the wall clock is ahead of the clock that says zero at `start`, in milliseconds.
    pub(super) fn clock(&self, start: Instant) -> i64 {
        millis(self.wall).saturating_sub(own(self.now, start))
    }
}

/// Returns this moment in milliseconds of the clock that says zero at `start`.
pub(super) fn own(at: Instant, start: Instant) -> i64 {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match at.checked_duration_since(start) {
        Some(since) => millis(since),
        None => -millis(start.saturating_duration_since(at)),
    }
}

/// Counts what was found in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Recovered {
    pub(super) ids: u64,
    pub(super) expired: u64,
    pub(super) segments: u64,
    pub(super) bytes: u64,
    /// places that could not be read
    pub(super) damaged: u64,
    /// segments whose end was cut off
    pub(super) torn: u64,
}

/// A segment as it was read and decoded.
struct Read {
    number: Number,
    bytes: u64,
    span: Span,
    batches: Vec<Batch>,
    damaged: u64,
    torn_at: Option<usize>,
}

/// Reads the log into the window. One thread reads and decodes, this one lets the window take it.
pub(super) fn recover<F: Files>(
    log: &mut Log<F>,
    window: &Logged,
    codec: &Codec,
    folder: &str,
    moment: Moment,
) -> Result<Recovered, Failure> {
    let files = std::sync::Arc::clone(log.files());
    let numbers = log.numbers();
    let (sender, receiver) = sync_channel(AHEAD);
    std::thread::scope(|scope| {
        // The sender ends with its thread, and the receiver with an error: neither waits for the other for ever.
        scope.spawn(move || read_all(&*files, numbers, codec, moment, &sender));
        take_all(log, window, receiver, folder, moment)
    })
}

fn read_all<F: Files>(
    files: &F,
    numbers: Vec<Number>,
    codec: &Codec,
    moment: Moment,
    sender: &SyncSender<Result<Read, (Number, Unusable)>>,
) {
    for number in numbers {
        let read = files
            .read(&name(number))
            .map_err(Unusable::Io)
            .and_then(|bytes| decode(number, &bytes, codec, moment))
            .map_err(|error| (number, error));
        // Nobody takes it if the window has refused a segment.
        if sender.send(read).is_err() {
            return;
        }
    }
}

fn take_all<F: Files>(
    log: &mut Log<F>,
    window: &Logged,
    receiver: Receiver<Result<Read, (Number, Unusable)>>,
    folder: &str,
    moment: Moment,
) -> Result<Recovered, Failure> {
    let failed = |error, file: &str| Unusable::Io(error).failure(name_of(window), folder, file);
    let mut sum = Recovered::default();
    for read in receiver {
        let read = read.map_err(|(number, error)| error.failure(name_of(window), folder, &name(number)))?;
        let Read { number, mut bytes, span, batches, damaged, torn_at } = read;
        for batch in &batches {
            let applied = window.recover(batch, moment.now, moment.wall);
            sum.ids += applied.seen;
            sum.expired += applied.expired;
        }
        if damaged > 0 {
            tracing::error!(
                window = name_of(window),
                file = format!("{folder}/{}", name(number)),
                damaged,
                "the log of this window is damaged: what stood there is not remembered, so a duplicate of it passes"
            );
        }
        if let Some(at) = torn_at {
            sum.torn += 1;
            let file = format!("{folder}/{}", name(number));
            tracing::warn!(
                window = name_of(window),
                file,
                bytes = bytes - at as u64,
                "the log of this window ends within a record: the process was killed while it wrote; the end is cut off"
            );
            log.files().cut(&name(number), at).map_err(|error| failed(error, &name(number)))?;
            bytes = at as u64;
        }
        // A process that was killed has perhaps written more than it has synced. From now on duplicates of these ids are acked.
        log.files().sync_old(&name(number)).map_err(|error| failed(error, &name(number)))?;
        sum.damaged += damaged;
        sum.segments += 1;
        sum.bytes += bytes;
        log.note(number, bytes, span);
    }
    log.files().sync_names().map_err(|error| failed(error, ""))?;
    window.note_damaged(sum.damaged);
    Ok(sum)
}

fn decode(number: Number, bytes: &[u8], codec: &Codec, moment: Moment) -> Result<Read, Unusable> {
    let mut read = Read {
        number,
        bytes: bytes.len() as u64,
        span: Span::default(),
        batches: Vec::new(),
        damaged: 0,
        torn_at: None,
    };
    for found in frame::scan(bytes) {
        match found {
            Found::Frame { batch, .. } => match codec.decode(batch) {
                Ok(batch) => {
                    batch.records.iter().for_each(|record| span_of(record, moment, &mut read.span));
                    read.batches.push(batch);
                }
                Err(BadBatch::Format(format)) => return Err(Unusable::Format(format)),
                Err(BadBatch::Identity) => return Err(Unusable::Identity),
                Err(BadBatch::Foreign | BadBatch::Seal) => read.damaged += 1,
            },
            Found::Damaged { .. } => read.damaged += 1,
            Found::Torn { at } => read.torn_at = Some(at),
            Found::Format(format) => return Err(Unusable::Format(format)),
        }
    }
    Ok(read)
}

fn span_of(record: &Written, moment: Moment, span: &mut Span) {
    let (at, ttl) = match record {
        Written::Seen { at, ttl, .. } | Written::Touched { at, ttl, .. } => (at, ttl),
        Written::Producer { image, at } => (at, &image.ttl),
        Written::Forgotten(_) | Written::ProducerForgotten(_) | Written::Flushed | Written::Changed(_) => {
            return;
        }
    };
    let age = moment.wall.duration_since(*at).unwrap_or_default();
    let at = moment.now.checked_sub(age).unwrap_or(moment.now);
    let left = ttl.saturating_sub(age);
    span.add(at, moment.now.checked_add(left));
}

/// Why a log can't be used at all.
#[derive(Debug)]
enum Unusable {
    Io(io::Error),
    Format(u8),
    Identity,
}

impl Unusable {
    fn failure(self, window: &str, folder: &str, file: &str) -> Failure {
        let away = format!("move {folder} away, and the window begins empty");
        match self {
            Unusable::Io(error) => Failure {
                what: format!("window \"{window}\": can't use its log {folder}/{file}: {error}"),
                fix: format!("see to the disk and to the rights of the file; or {away}"),
            },
            Unusable::Format(format) => Failure {
                what: format!(
                    "window \"{window}\": its log {folder}/{file} has format {format}, which this version of Hapax does not read (it reads the formats up to {FORMAT})"
                ),
                fix: format!("start the version that has written it; or {away}"),
            },
            Unusable::Identity => Failure {
                what: format!(
                    "window \"{window}\": its log in {folder} was written with another digest secret, another `scope` or another `id`, so its ids mean nothing here"
                ),
                fix: format!(
                    "put the secret, `scope` and `id` back as they were (`digest_secret_file`, or the file `secret` in `state_dir`); or {away}"
                ),
            },
        }
    }
}
