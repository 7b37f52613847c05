//! Jobs: messages in guarded queues of the model broker, with many copies, and with the same ids in each queue. The broker wants each to be settled, and gives those
//! back to their queue whose channel ends. Invariant (p): a job that a consumer has acked is never shown, one that none has acked is never hidden, and no tag is
//! settled that is not unacked.

use super::ctx::Ctx;
use super::truth::VHOST;
use crate::support::frames::{Message, message};
use hapax_core::window::{Key, KeyMaker, LocalWindow};
use hapax_core::wire::properties::IdValue;
use std::collections::VecDeque;
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
    fn id(self) -> String {
        format!("job-{}", self.id)
    }
}

/// The queues, and the guards that relays have had.
#[derive(Debug, Default)]
pub struct Jobs {
    queues: [VecDeque<u32>; 2],
    /// the last one is that of the relay that there is now; empty: there is no relay
    guards: Vec<Arc<LocalWindow>>,
}

fn key(queue: &str, id: &str) -> Key {
    let scoped = KeyMaker::new((1, 2)).scoped_to_queue(VHOST.as_bytes(), queue.as_bytes());
    scoped.key(&IdValue::Bytes(id.as_bytes()))
}

impl Jobs {
    /// The relay has this guard from now on.
    pub fn guarded_by(&mut self, guard: Arc<LocalWindow>) {
        self.guards.push(guard);
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
        let is_seen = self.guards.last()?.get(key(queue, id), now).is_some();
        is_seen.then(|| format!("{id} of {queue} is shown, and a consumer has acked it"))
    }

    /// Returns what is wrong with an ack of a job outside of transactions. (A relay that is gone may have sent it.)
    pub fn acked(&self, job: Job, now: Instant) -> Option<String> {
        let (key, guards) = (key(QUEUES[job.queue], &job.id()), &self.guards);
        let is_seen = guards.is_empty() || guards.iter().any(|guard| guard.get(key, now).is_some());
        (!is_seen).then(|| format!("{job:?} is acked, and no consumer has acked it"))
    }
}
