//! Reads the folders of windows for `hapax store`. It writes nothing, so a relay may be at work there.

use super::frame::{self, Found};
use super::log::{self, Number};
use hapax_core::window::logged::{Batch, Identity, Written, read_batch};
use hapax_core::window::{Claim, Key};
use serde::Serialize;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A window's folder that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WindowFolder {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// The content of a window's folder.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Content {
    /// the window's name
    pub(crate) window: String,
    /// its folder
    pub(crate) folder: PathBuf,
    /// format of the frames and of the batches
    pub(crate) format: Option<u8>,
    /// names the secret, the scope and the id that the keys were made with
    pub(crate) identity: Option<String>,
    /// bytes of all segments
    pub(crate) bytes: u64,
    /// records of ids or numbers that became seen or young again, and of producers
    pub(crate) records: u64,
    /// ids of them that are remembered now; with `id = "sequence"`, producers
    pub(crate) ids: u64,
    /// when the oldest of these was committed
    pub(crate) since: Option<String>,
    /// when the last of them expires
    pub(crate) until: Option<String>,
    /// places that are damaged
    pub(crate) damaged: u64,
    /// the segments, the oldest first
    pub(crate) segments: Vec<SegmentContent>,
}

/// The content of one segment.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct SegmentContent {
    /// its file
    pub(crate) file: String,
    /// its size
    pub(crate) bytes: u64,
    /// whole batches
    pub(crate) batches: u64,
    /// records in them
    pub(crate) records: u64,
    /// where bytes are that are no batch, and how many
    pub(crate) damaged: Vec<(usize, usize)>,
    /// where a batch begins that is not complete; if a relay is at work, it writes there
    pub(crate) incomplete_at: Option<usize>,
    /// the format, if this version does not read it
    pub(crate) foreign_format: Option<u8>,
}

/// Finds the folders of windows: DIR is a `state_dir`, or the folder of one window.
pub(crate) fn windows(dir: &Path) -> io::Result<Vec<WindowFolder>> {
    let named = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        path.is_dir().then_some(WindowFolder { name, path })
    };
    let below = dir.join("windows");
    if below.is_dir() {
        let mut found: Vec<_> =
            std::fs::read_dir(below)?.filter_map(|entry| named(entry.ok()?.path())).collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        return Ok(found);
    }
    if segments(dir)?.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "there is neither a folder `windows` nor a log in it; name a `state_dir`, or a folder in its `windows`",
        ));
    }
    Ok(named(dir.canonicalize()?).into_iter().collect())
}

fn segments(folder: &Path) -> io::Result<Vec<Number>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        numbers.extend(entry?.file_name().to_str().and_then(log::number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads all segments in order. A segment that a relay deletes at this moment is left out.
fn each(
    folder: &Path,
    mut segment: impl FnMut(&SegmentContent),
    mut batch: impl FnMut(Identity, Batch) -> io::Result<()>,
) -> io::Result<()> {
    for number in segments(folder)? {
        let file = log::name(number);
        let bytes = match std::fs::read(folder.join(&file)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut content = SegmentContent { file, bytes: bytes.len() as u64, ..SegmentContent::default() };
        let mut at = 0;
        for found in frame::scan(&bytes) {
            match found {
                Found::Frame { batch: bytes, .. } => {
                    let length = frame::HEAD + bytes.len();
                    match read_batch(bytes) {
                        Ok((identity, read)) => {
                            content.batches += 1;
                            content.records += read.records.len() as u64;
                            batch(identity, read)?;
                        }
                        Err(_) => content.damaged.push((at, length)),
                    }
                    at += length;
                }
                Found::Damaged { at: begin, length } => {
                    content.damaged.push((begin, length));
                    at = begin + length;
                }
                Found::Torn { at } => content.incomplete_at = Some(at),
                Found::Format(format) => content.foreign_format = Some(format),
            }
        }
        segment(&content);
    }
    Ok(())
}

/// The last record of one id or producer.
#[derive(Clone, Copy)]
struct Last {
    at: SystemTime,
    until: SystemTime,
    /// the epoch of a producer, and one more than its highest number
    sequence: Option<(u64, u64)>,
}

impl Last {
    fn new(at: SystemTime, ttl: Duration, sequence: Option<(u64, u64)>) -> Last {
        Last { at, until: until(at, ttl), sequence }
    }
}

fn until(at: SystemTime, ttl: Duration) -> SystemTime {
    at.checked_add(ttl).unwrap_or(at + Duration::from_secs(1 << 32))
}

/// Follows the log to its end: which ids or producers are remembered, and what it says of each last.
#[derive(Default)]
struct Follow {
    last: HashMap<Key, Last>,
    records: u64,
}

impl Follow {
    fn batch(&mut self, batch: &Batch) {
        for record in &batch.records {
            match record {
                Written::Seen { claim, at, ttl, .. } | Written::Touched { claim, at, ttl, .. } => {
                    self.records += 1;
                    let sequence = match *claim {
                        Claim::Digest(_) => None,
                        Claim::Sequence { epoch, number, .. } => Some((epoch, number.saturating_add(1))),
                    };
                    self.add(claim.owner(), Last::new(*at, *ttl, sequence));
                }
                Written::Producer { image, at } => {
                    self.records += 1;
                    let sequence = Some((image.epoch, image.end));
                    self.add(image.producer.key(), Last::new(*at, image.ttl, sequence));
                }
                // (Its producer is still known.)
                Written::Forgotten(Claim::Sequence { .. }) => {}
                Written::Forgotten(Claim::Digest(key)) => {
                    self.last.remove(key);
                }
                Written::ProducerForgotten(producer) => {
                    self.last.remove(&producer.key());
                }
                Written::Flushed => self.last.clear(),
                Written::Changed(_) => {}
            }
        }
    }

    /// A number of an epoch that is over says nothing.
    fn add(&mut self, owner: Key, last: Last) {
        let known = self.last.get(&owner).and_then(|known| known.sequence);
        let sequence = last.sequence.max(known);
        if last.sequence.map(|(epoch, _)| epoch) >= known.map(|(epoch, _)| epoch) {
            self.last.insert(owner, Last { sequence, ..last });
        }
    }

    fn live(&self, now: SystemTime) -> impl Iterator<Item = &Last> {
        self.last.values().filter(move |last| last.until > now)
    }
}

/// Reads the folder of a window.
pub(crate) fn content(folder: &WindowFolder, now: SystemTime) -> io::Result<Content> {
    let mut content =
        Content { window: folder.name.clone(), folder: folder.path.clone(), ..Content::default() };
    let (mut follow, mut identity) = (Follow::default(), None);
    each(
        &folder.path,
        |segment| content.segments.push(segment.clone()),
        |of, batch| {
            identity = Some(of);
            follow.batch(&batch);
            Ok(())
        },
    )?;
    content.format = match content.segments.iter().find_map(|segment| segment.foreign_format) {
        Some(format) => Some(format),
        None => identity.map(|_| frame::FORMAT),
    };
    content.identity = identity.map(|identity| format!("{identity:?}"));
    content.bytes = content.segments.iter().map(|segment| segment.bytes).sum();
    content.records = follow.records;
    content.ids = follow.live(now).count() as u64;
    content.since = follow.live(now).map(|last| last.at).min().map(time);
    content.until = follow.live(now).map(|last| last.until).max().map(time);
    content.damaged = content.segments.iter().map(|segment| segment.damaged.len() as u64).sum();
    Ok(content)
}

/// Writes one line of JSON for each id or producer that is remembered, in the order of the commits.
pub(crate) fn export(folder: &WindowFolder, now: SystemTime, out: &mut impl Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        window: &'a str,
        key: String,
        at: String,
        until: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        epoch: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        highest: Option<u64>,
    }
    let mut follow = Follow::default();
    each(
        &folder.path,
        |_| {},
        |_, batch| {
            follow.batch(&batch);
            Ok(())
        },
    )?;
    let mut last = follow.last;
    last.retain(|_, last| last.until > now);
    each(
        &folder.path,
        |_| {},
        |_, batch| {
            for record in &batch.records {
                let (key, at, body) = match record {
                    Written::Seen { claim, at, body, .. } | Written::Touched { claim, at, body, .. } => {
                        (claim.owner(), at, matches!(claim, Claim::Digest(_)).then_some(body))
                    }
                    Written::Producer { image, at } => (image.producer.key(), at, None),
                    Written::Forgotten(_)
                    | Written::ProducerForgotten(_)
                    | Written::Flushed
                    | Written::Changed(_) => continue,
                };
                // A relay may have moved it in the meantime, but its time stays. Each is written once.
                let Some(known) = last.get(&key).filter(|last| last.at == *at).copied() else { continue };
                last.remove(&key);
                let line = Line {
                    window: &folder.name,
                    key: format!("{:024x}", key.0),
                    at: time(*at),
                    until: time(known.until),
                    body: body.map(|body| format!("{:08x}", body.bits())),
                    epoch: known.sequence.map(|(epoch, _)| epoch),
                    highest: known.sequence.and_then(|(_, end)| end.checked_sub(1)),
                };
                serde_json::to_writer(&mut *out, &line)?;
                out.write_all(b"\n")?;
            }
            Ok(())
        },
    )
}

/// The year 9999 is the last that can be written.
fn time(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_millis(time.min(last)).to_string()
}
