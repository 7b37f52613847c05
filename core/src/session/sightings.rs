//! Messages to the shell about publishes of known ids, for people to read. They are a sample: the window counts all of them.

use super::outbox::View;
use crate::window::{Claim, OnConflict, Window};
use crate::wire::Sequence;
use crate::wire::method::Publish;
use crate::wire::properties::{ContentHeader, IdSource, IdValue};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time that the bounds below are for.
const EVERY: Duration = Duration::from_secs(1);
/// Conflicts of a connection in this time, at most.
const CONFLICTS: usize = 1;
/// Duplicates of a connection in this time, at most. One that sends thousands costs no more than one that sends a few.
const DUPLICATES: usize = 4;
/// Lines for the log about the publishes that a connection has had dropped in this time, where the window is audited, at most.
const AUDITED: usize = 200;
/// Octets kept of an id. A header may be longer.
const LONGEST: usize = 255;

/// A publish of a known id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// what is to say about it
    pub what: Sighted,
    /// the name of the window
    pub window: Arc<str>,
    /// what the window knows it by
    pub claim: Claim,
    /// the first octets of the id
    pub id: Box<[u8]>,
    /// vhost
    pub vhost: Box<[u8]>,
    /// the exchange that the publisher names
    pub exchange: Box<[u8]>,
    /// routing key
    pub routing_key: Box<[u8]>,
    /// how many publishes of this kind were not told of since the last one of this connection
    pub left_out: u64,
}

/// The kind of a [`Sighting`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sighted {
    /// Its body is not the one that was stored. By this rule of its window it was dropped, forwarded or refused.
    Conflict(OnConflict),
    /// The same in a window with mode observe: it was forwarded, as all duplicates are.
    Observed,
    /// It is a duplicate, and was dropped.
    Dropped,
    /// It is a duplicate in a window with mode observe, and was forwarded.
    Passed,
}

impl Sighted {
    /// Returns true if the body is not the one that was stored.
    pub fn is_conflict(self) -> bool {
        match self {
            Sighted::Conflict(_) | Sighted::Observed => true,
            Sighted::Dropped | Sighted::Passed => false,
        }
    }
}

/// The sightings of one session. It holds a few at most.
#[derive(Debug)]
pub(super) struct Sightings {
    conflicts: Sample,
    duplicates: Sample,
    audits: Sample,
    /// Publishes of known ids since the connection began.
    known: u64,
}

impl Default for Sightings {
    fn default() -> Sightings {
        Sightings {
            conflicts: Sample::new(CONFLICTS),
            duplicates: Sample::new(DUPLICATES),
            audits: Sample::new(AUDITED),
            known: 0,
        }
    }
}

/// A publish that is sighted.
#[derive(Clone, Copy)]
pub(super) struct Publication<'a> {
    pub(super) window: &'a Arc<dyn Window>,
    pub(super) claim: Claim,
    pub(super) vhost: &'a [u8],
    pub(super) publish: View<'a>,
    /// the payload of its header
    pub(super) header: &'a [u8],
}

impl Sightings {
    /// Returns the number of publishes of known ids. Those with another body count, too.
    pub(super) fn known(&self) -> u64 {
        self.known
    }

    /// Counts a publish of a known id whose body is another. It is a conflict.
    pub(super) fn count(&mut self) {
        self.known += 1;
    }

    /// Counts a publish of a known id. Returns true if [`Sightings::note`] wants to know more of it.
    #[inline]
    pub(super) fn wants_duplicate(&mut self, now: Instant) -> bool {
        self.known += 1;
        self.duplicates.is_due(now)
    }

    /// Notes a publish, if it is time for one.
    pub(super) fn note(&mut self, what: Sighted, publication: Publication<'_>, now: Instant) {
        let sample = if what.is_conflict() { &mut self.conflicts } else { &mut self.duplicates };
        if what.is_conflict() && !sample.is_due(now) {
            return;
        }
        sample.note(what, publication);
    }

    /// Notes a publish that was dropped and whose window is audited. Counts it as left out if there are too many.
    pub(super) fn audit(&mut self, what: Sighted, publication: Publication<'_>, now: Instant) {
        if self.audits.is_due(now) {
            self.audits.note(what, publication);
        }
    }

    /// Takes the next one that is for the log.
    pub(super) fn take_audited(&mut self) -> Option<Box<Sighting>> {
        self.audits.waiting.pop_front()
    }

    /// Returns how many were left out since the last one that was for the log.
    pub(super) fn unaudited(&self) -> u64 {
        self.audits.left_out
    }

    /// Takes the next one that waits.
    pub(super) fn take(&mut self) -> Option<Box<Sighting>> {
        self.conflicts.waiting.pop_front().or_else(|| self.duplicates.waiting.pop_front())
    }
}

/// A few sightings of one kind in each second. Counts the others.
#[derive(Debug)]
struct Sample {
    waiting: VecDeque<Box<Sighting>>,
    most: usize,
    left: usize,
    until: Option<Instant>,
    left_out: u64,
}

impl Sample {
    fn new(most: usize) -> Sample {
        Sample { waiting: VecDeque::new(), most, left: most, until: None, left_out: 0 }
    }

    /// Returns true if there is room for one more. Counts it as left out if not.
    #[inline]
    fn is_due(&mut self, now: Instant) -> bool {
        if self.until.is_none_or(|until| now >= until) {
            (self.left, self.until) = (self.most, Some(now + EVERY));
        }
        let due = self.left > 0 && self.waiting.len() < self.most;
        self.left_out += u64::from(!due);
        due
    }

    /// Adds one, for which there is room.
    fn note(&mut self, what: Sighted, publication: Publication<'_>) {
        if let Some(sighting) = sighting(what, publication, self.left_out) {
            self.left = self.left.saturating_sub(1);
            self.left_out = 0;
            self.waiting.push_back(Box::new(sighting));
        }
    }
}

fn sighting(what: Sighted, publication: Publication<'_>, left_out: u64) -> Option<Sighting> {
    let Publication { window, claim, vhost, publish, header } = publication;
    let rules = window.rules();
    let Publish { exchange, routing_key, .. } = Publish::parse(publish.payload()).ok()?;
    let found = ContentHeader::parse(header, &rules.id).ok();
    let id = found.and_then(|found| match &rules.id {
        IdSource::Parts(parts) => {
            let parts = parts.iter().filter_map(|part| found.part(part));
            let mut parts = parts.map(|part| text(&part)).collect::<Vec<_>>().join(&b' ');
            parts.truncate(LONGEST);
            Some(parts.into())
        }
        IdSource::Sequence => {
            let Ok(Some(Sequence { producer, number, .. })) = found.sequence() else { return None };
            Some([producer, b" ", number.to_string().as_bytes()].concat().into())
        }
        _ => found.id.as_ref().map(text),
    });
    Some(Sighting {
        what,
        window: Arc::clone(&rules.name),
        claim,
        id: id.unwrap_or_default(),
        vhost: vhost.into(),
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        left_out,
    })
}

/// Returns an id as people read it.
fn text(id: &IdValue<'_>) -> Box<[u8]> {
    match *id {
        IdValue::Bytes(bytes) | IdValue::Other(_, bytes) => bytes.iter().take(LONGEST).copied().collect(),
        IdValue::Integer(number) => number.to_string().into_bytes().into(),
    }
}
