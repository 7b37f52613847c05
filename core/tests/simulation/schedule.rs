//! Virtual time: what is to happen when.

use super::plan::Micros;
use super::tap::Toward;
use super::truth::LinkId;
use crate::support::pair::epoch;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Event {
    /// a client has a moment
    Act(usize),
    /// the broker has a moment for a connection
    Work(LinkId, Micros),
    /// bytes from the client or the broker arrive at the relay
    ToRelay(LinkId, Toward),
    /// frames of the relay arrive at the client or the broker
    FromRelay(LinkId, Toward),
    /// a dial is over
    Dialled(LinkId),
    /// the relay's timeout has passed
    Timer(LinkId),
    /// there is mail for the relay
    Mail(LinkId),
    /// the relay's process is to end
    Drain,
    /// the clients of a relay that drains have had their time to finish
    DrainOverdue(LinkId),
    /// the process of a relay ends in a moment
    DrainOver(LinkId),
    /// the relay's process ends without a word, and another one begins
    Crash,
    /// a late window answers
    Answer(usize),
}

/// Events in the order of their time, and of their making where the time is the same.
#[derive(Debug, Default)]
pub struct Schedule {
    heap: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    made: u64,
}

impl Schedule {
    /// This will happen then.
    pub fn at(&mut self, time: Micros, event: Event) {
        self.made += 1;
        self.heap.push(Reverse((time, self.made, event)));
    }

    /// What happens next.
    pub fn next(&mut self) -> Option<(Micros, Event)> {
        self.heap.pop().map(|Reverse((time, _, event))| (time, event))
    }
}

/// A virtual time as the session wants it.
pub fn instant(at: Micros) -> Instant {
    epoch() + Duration::from_micros(at)
}

/// And back, rounded up.
pub fn micros(at: Instant) -> Micros {
    let since = at.saturating_duration_since(epoch()).as_nanos();
    u64::try_from(since.div_ceil(1000)).expect("a run does not last for centuries")
}
