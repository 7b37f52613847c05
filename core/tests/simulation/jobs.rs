//! Jobs: messages in guarded queues of the model broker, with many copies, and with the same ids in each queue. The broker wants each to be settled, and gives those
//! back to their queue whose channel ends. Invariant (p): a job that a consumer has acked is never shown, one that no consumer has acked is never acked at the broker,
//! and no tag is settled that is not unacked.

use super::ctx::Ctx;
use super::truth::VHOST;
use crate::support::frames::{Message, message};
use hapax_core::window::{Key, KeyMaker, LocalWindow};
use hapax_core::wire::properties::IdValue;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// The queues that have a guard.
pub const QUEUES: [&str; 2] = ["jobs", "more-jobs"];
/// The most deliveries that a consumer has to settle.
pub const PREFETCH: usize = 4;
/// How many different jobs there are.
const IDS: usize = 40;

/// A job: which queue it is in, and its id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Job {
    queue: usize,
    id: u32,
}

impl Job {
    /// Returns the job that a delivery shows by its queue and its id.
    pub fn shown_as(queue: &str, id: &str) -> Option<Job> {
        let queue = QUEUES.iter().position(|name| *name == queue)?;
        Some(Job { queue, id: id.strip_prefix("job-")?.parse().ok()? })
    }

    fn id(self) -> String {
        format!("job-{}", self.id)
    }
}

/// The queues, and the guards that relays have had.
#[derive(Debug, Default)]
pub struct Jobs {
    queues: [VecDeque<u32>; 2],
    /// the guard of the relay that there is now; `None`: there is no relay
    guard: Option<Arc<LocalWindow>>,
    /// what a client has acked, whether the relay has got that or not
    acked: BTreeSet<Job>,
    /// what the relay has passed on as acked
    done: BTreeSet<Job>,
    /// The relay has crashed, and its guard has forgotten all. Acks of the process before may still be on their way.
    has_crashed: bool,
}

fn key(queue: &str, id: &str) -> Key {
    let scoped = KeyMaker::new((1, 2)).scoped_to_queue(VHOST.as_bytes(), queue.as_bytes());
    scoped.key(&IdValue::Bytes(id.as_bytes()))
}

impl Jobs {
    /// The relay has this guard from now on.
    pub fn guarded_by(&mut self, guard: Arc<LocalWindow>) {
        self.has_crashed = self.guard.replace(guard).is_some();
        self.done.clear();
    }

    /// A client acks a job.
    pub fn acks(&mut self, job: Job) {
        self.acked.insert(job);
    }

    /// The broker gets the ack of a job. `is_final`: not in a transaction. Returns what is wrong with that.
    pub fn settled(&mut self, job: Job, is_final: bool) -> Option<String> {
        if is_final && !self.has_crashed && self.guard.is_some() {
            self.done.insert(job);
        }
        (!self.acked.contains(&job)).then(|| format!("{job:?} is acked, and no consumer has acked it"))
    }

    /// The next message for a consumer of a queue. Now and then somebody publishes a job, mostly more than once.
    pub fn next(queue: usize, ctx: &mut Ctx) -> (Job, Message) {
        if ctx.truth.jobs.queues[queue].is_empty() || ctx.rng.chance(300) {
            let id = ctx.rng.below(IDS) as u32;
            for _ in 0..=ctx.rng.below(3) {
                ctx.truth.jobs.queues[queue].push_back(id);
            }
        }
        let job = Job { queue, id: ctx.truth.jobs.queues[queue].pop_front().unwrap_or_default() };
        let size = 9 + ctx.rng.below(40);
        let message = message("jobs", QUEUES[queue]).id(&job.id()).app(QUEUES[queue]);
        (job, message.body(vec![7; ctx.rng.below(60)]).frame_size(size))
    }

    /// These have not been settled.
    pub fn give_back(&mut self, jobs: impl DoubleEndedIterator<Item = Job>) {
        jobs.rev().for_each(|job| self.queues[job.queue].push_front(job.id));
    }

    /// Returns what is wrong with showing a job of this queue now. (It need not be in flight: its channel may have ended since the session has decided.)
    pub fn shown(&self, queue: &str, id: &str, now: Instant) -> Option<String> {
        let is_seen = self.guard.as_ref()?.get(key(queue, id), now).is_some();
        let is_done = Job::shown_as(queue, id).is_some_and(|job| self.done.contains(&job));
        (is_seen || is_done).then(|| format!("{id} of {queue} is shown, and a consumer has acked it"))
    }
}
