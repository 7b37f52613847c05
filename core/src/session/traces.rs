//! Messages to the shell about judged publishes that belong to a trace: the shell makes spans of them.
//!
//! It looks at every n-th judged publish, and reads only its header again, for `traceparent`. Off, which is the default,
//! a publish costs one comparison.

use super::sightings::Publication;
use crate::window::Verdict;
use crate::wire::method::Publish;
use crate::wire::properties::{ContentHeader, IdSource, IdValue};
use crate::wire::trace_parent::{TRACE_PARENT, TraceParent};
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

/// The most that wait for the shell. It takes them whenever it has handled a read.
const MOST: usize = 64;

static SOURCE: LazyLock<IdSource> = LazyLock::new(|| IdSource::Header(TRACE_PARENT.into()));

/// A judged publish that belongs to a trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Traced {
    /// the span that the publisher has given it
    pub parent: TraceParent,
    /// the name of the window
    pub window: Arc<str>,
    /// what the window said: `fresh`, `duplicate`, `in_flight` or `crowded`
    pub verdict: &'static str,
    /// vhost
    pub vhost: Box<[u8]>,
    /// the exchange that the publisher names
    pub exchange: Box<[u8]>,
    /// routing key
    pub routing_key: Box<[u8]>,
    /// how many of this connection were left out since the last one, because too many waited
    pub left_out: u64,
}

/// The traced publishes of one session. It holds a few at most.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// some publishes are looked at, or chaos keeps some
    is_on: bool,
    /// every n-th publish is looked at; 0: none
    every: u32,
    /// how many are passed over before the next one
    left: u32,
    waiting: VecDeque<Box<Traced>>,
    left_out: u64,
}

impl Traces {
    /// Looks at every n-th publish from now on. The first one comes after `left` others.
    pub(super) fn set(&mut self, every: u32, left: u32) {
        (self.every, self.left) = (every, left.min(every.saturating_sub(1)));
        self.is_on = every > 0;
    }

    /// Lets publishes be looked at because chaos keeps some of them, or no more.
    pub(super) fn set_keeping(&mut self, keeps: bool) {
        self.is_on = keeps || self.every > 0;
    }

    /// Returns true if publishes are looked at.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Counts a publish. Returns true if it is to be looked at.
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.left == 0 && self.every > 0;
        self.left = if due { self.every.saturating_sub(1) } else { self.left.saturating_sub(1) };
        due
    }

    /// Notes a publish, if it belongs to a trace that its publisher records.
    #[cold]
    pub(super) fn note(&mut self, verdict: &'static str, publication: Publication<'_>) {
        let Some(parent) = parent_of(publication.header).filter(|parent| parent.sampled) else { return };
        if self.waiting.len() >= MOST {
            self.left_out += 1;
            return;
        }
        let Ok(publish) = Publish::parse(publication.publish.payload()) else { return };
        self.waiting.push_back(Box::new(Traced {
            parent,
            window: Arc::clone(&publication.window.rules().name),
            verdict,
            vhost: publication.vhost.into(),
            exchange: publish.exchange.into(),
            routing_key: publish.routing_key.into(),
            left_out: std::mem::take(&mut self.left_out),
        }));
    }

    /// Takes the next one that waits.
    pub(super) fn take(&mut self) -> Option<Box<Traced>> {
        self.waiting.pop_front()
    }
}

/// Returns the verdict in a word. `None` if it is none yet.
pub(super) fn word(verdict: &Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Fresh(_) => Some("fresh"),
        Verdict::Duplicate(_) => Some("duplicate"),
        Verdict::InFlight(_) => Some("in_flight"),
        Verdict::Refused(_) => Some("refused"),
        Verdict::Crowded => Some("crowded"),
        Verdict::Pending(_) => None,
    }
}

fn parent_of(header: &[u8]) -> Option<TraceParent> {
    match ContentHeader::parse(header, &SOURCE).ok()?.id {
        Some(IdValue::Bytes(text)) => TraceParent::parse(text),
        _ => None,
    }
}
