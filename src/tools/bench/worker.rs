//! The loop over all publishing connections: one thread, which waits for sockets and for the next message that is due.

use super::Error;
use super::dial::Dialed;
use super::ids::Ids;
use super::ledger::Ledger;
use super::load::{End, Load, Watch};
use super::now;
use super::outlet::Batch;
use super::pace::Pace;
use super::poll::{Poll, Ready};
use super::publisher::{Publisher, Sums};
use super::tally::Tally;
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// A broker that answers nothing for so long is not measured any more.
const STALLED: Duration = Duration::from_secs(30);
const WATCH_EVERY: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 256 << 10;
/// Latencies above this one count as this one. In nanoseconds: an hour.
const LATENCY_MAX: u64 = 3_600_000_000_000;
/// Of the histogram: an error of a thousandth.
const DIGITS: u8 = 3;

/// The result of a run.
pub(super) struct Ran {
    pub(super) tally: Tally,
    pub(super) latency: Histogram<u64>,
    pub(super) started: Instant,
    pub(super) ended: Instant,
    pub(super) connections: Vec<Publisher>,
}

/// All publishing connections of one thread, and the load that they carry together.
pub(super) struct Worker {
    poll: Poll,
    publishers: Vec<Publisher>,
    batch: Batch,
    buffer: Vec<u8>,
    sums: Sums,
    pace: Option<Pace>,
    until: Option<Duration>,
    started: Instant,
    /// messages whose time has come, over all connections
    due: u64,
    done: usize,
}

impl Worker {
    pub(super) fn new(dialed: Vec<Dialed>, batch: Batch, load: &Load) -> Result<Worker, Error> {
        let poll = Poll::new().map_err(Error::io("making an epoll"))?;
        let connections = dialed.len() as u64;
        let mut publishers = Vec::with_capacity(dialed.len());
        for (number, dialed) in dialed.into_iter().enumerate() {
            let left = match load.end {
                End::Count(count) => (count + connections - 1 - number as u64) / connections,
                End::After(_) => u64::MAX,
            };
            let ids = Ids::new(number, load.duplicates, load.repeat_after);
            let ledger = (load.window > 0).then(|| Ledger::new(load.window));
            let numbers = load.shape.producers.map(|producers| producers.of(number as u64, connections));
            let publisher = Publisher::new(dialed, number, ids, numbers, ledger, left)?;
            poll.add(&publisher.stream, number, publisher.interest)
                .map_err(Error::io("watching a socket"))?;
            publishers.push(publisher);
        }
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS)
            .map_err(|error| Error::Step(format!("making a histogram: {error}")))?;
        Ok(Worker {
            poll,
            batch,
            buffer: vec![0; READ_BYTES],
            sums: Sums { tally: Tally::default(), latency },
            pace: load.rate.map(|rate| Pace::new(rate, publishers.len())),
            publishers,
            until: match load.end {
                End::Count(_) => None,
                End::After(duration) => Some(duration),
            },
            started: now(),
            due: 0,
            done: 0,
        })
    }

    /// Until all is sent and answered.
    pub(super) fn run(mut self, watch: Watch<'_>) -> Result<Ran, Error> {
        let mut ready = Vec::new();
        let (mut watched, mut moved) = (Duration::ZERO, (Tally::default(), Duration::ZERO));
        self.started = now();
        (0..self.publishers.len()).try_for_each(|number| self.pump(number))?;
        while self.done < self.publishers.len() {
            let elapsed = self.elapsed();
            if self.until.is_some_and(|until| elapsed >= until) {
                self.stop()?;
            }
            self.pump_due()?;
            if elapsed >= watched + WATCH_EVERY {
                watched = elapsed;
                watch(self.sums.tally);
                if self.sums.tally != moved.0 || self.is_idle() {
                    moved = (self.sums.tally, elapsed);
                } else if elapsed > moved.1 + STALLED {
                    return Err(self.stalled());
                }
            }
            let wait = self.wait();
            self.poll.wait(wait, &mut ready).map_err(Error::io("waiting for sockets"))?;
            ready.iter().try_for_each(|ready| self.handle(*ready))?;
        }
        let Sums { tally, latency } = self.sums;
        Ok(Ran { tally, latency, started: self.started, ended: now(), connections: self.publishers })
    }

    fn handle(&mut self, ready: Ready) -> Result<(), Error> {
        let now = self.nanos();
        let Some(publisher) = self.publishers.get_mut(ready.token) else { return Ok(()) };
        if ready.readable {
            publisher.read(now, &mut self.buffer, &mut self.sums)?;
        }
        if publisher.counted { Ok(()) } else { self.pump(ready.token) }
    }

    /// Lets one connection send, and sees whether it is done by now.
    fn pump(&mut self, number: usize) -> Result<(), Error> {
        let now = self.nanos();
        let Some(publisher) = self.publishers.get_mut(number) else { return Ok(()) };
        publisher.pump(now, self.pace.as_ref(), &mut self.batch, &mut self.sums)?;
        let wanted = publisher.wanted();
        if wanted != publisher.interest {
            publisher.interest = wanted;
            self.poll.change(&publisher.stream, number, wanted).map_err(Error::io("watching a socket"))?;
        }
        if publisher.is_done() && !publisher.counted {
            publisher.counted = true;
            self.done += 1;
        }
        Ok(())
    }

    /// Those whose next message has become due.
    fn pump_due(&mut self) -> Result<(), Error> {
        let Some(pace) = self.pace else { return Ok(()) };
        let (connections, due) = (self.publishers.len() as u64, pace.due_by(self.nanos()));
        let new = (due - self.due).min(connections);
        for turn in due - new..due {
            #[expect(clippy::cast_possible_truncation, reason = "below the number of connections")]
            let number = (turn % connections) as usize;
            if self.publishers.get(number).is_some_and(|publisher| !publisher.counted) {
                self.pump(number)?;
            }
        }
        self.due = due;
        Ok(())
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.until = None;
        for number in 0..self.publishers.len() {
            if let Some(publisher) = self.publishers.get_mut(number).filter(|publisher| !publisher.counted) {
                publisher.stop();
                self.pump(number)?;
            }
        }
        Ok(())
    }

    /// Nothing is due for a while, and nothing waits for an answer.
    fn is_idle(&self) -> bool {
        let Tally { published, acked, nacked, .. } = self.sums.tally;
        self.pace.is_some() && published == acked + nacked
    }

    fn wait(&self) -> Duration {
        let until = self.until.map_or(WATCH_EVERY, |until| until.saturating_sub(self.elapsed()));
        let next = self.pace.map_or(WATCH_EVERY, |pace| pace.next(self.nanos()));
        WATCH_EVERY.min(until).min(next)
    }

    fn elapsed(&self) -> Duration {
        now().duration_since(self.started)
    }

    fn nanos(&self) -> u64 {
        u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn stalled(&self) -> Error {
        let Tally { published, acked, nacked, .. } = self.sums.tally;
        Error::Stalled { seconds: STALLED.as_secs(), published, answered: acked + nacked }
    }
}
