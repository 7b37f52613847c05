//! Jobs: messages in a guarded queue of the model broker, with many copies. The broker wants each to be settled, and gives those back to the
//! queue whose channel ends. Invariant (p): a job that a consumer has acked is never shown, and no tag is settled
//! that is not unacked.

use super::ctx::Ctx;
use super::truth::VHOST;
use crate::support::frames::{Message, message};
use hapax_core::window::{Key, KeyMaker, LocalWindow};
use hapax_core::wire::properties::IdValue;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// The queue that has a guard.
pub const QUEUE: &str = "jobs";
/// The most deliveries that a consumer has to settle.
pub const PREFETCH: usize = 4;
/// How many different jobs there are.
const IDS: usize = 40;

/// The queue, and the guard of it that the relay has now.
#[derive(Debug, Default)]
pub struct Jobs {
    queue: VecDeque<u32>,
    /// `None`: there is no relay
    guard: Option<Arc<LocalWindow>>,
}

/// A job as it is published.
fn of(id: u32) -> Message {
    message("jobs", "").id(&format!("job-{id}"))
}

fn key(id: &str) -> Key {
    let scoped = KeyMaker::new((1, 2)).scoped_to_queue(VHOST.as_bytes(), QUEUE.as_bytes());
    scoped.key(&IdValue::Bytes(id.as_bytes()))
}

impl Jobs {
    /// The relay has this guard from now on.
    pub fn guarded_by(&mut self, guard: Arc<LocalWindow>) {
        self.guard = Some(guard);
    }

    /// The next message for a consumer. Now and then somebody publishes a job, mostly more than once.
    pub fn next(ctx: &mut Ctx) -> (u32, Message) {
        if ctx.truth.jobs.queue.is_empty() || ctx.rng.chance(300) {
            let id = ctx.rng.below(IDS) as u32;
            for _ in 0..=ctx.rng.below(3) {
                ctx.truth.jobs.queue.push_back(id);
            }
        }
        let id = ctx.truth.jobs.queue.pop_front().unwrap_or_default();
        let size = 9 + ctx.rng.below(40);
        (id, of(id).body(vec![7; ctx.rng.below(60)]).frame_size(size))
    }

    /// These have not been settled.
    pub fn give_back(&mut self, jobs: impl DoubleEndedIterator<Item = u32>) {
        jobs.rev().for_each(|id| self.queue.push_front(id));
    }

    /// What is wrong with showing a job now. (It need not be in flight: its channel may have ended since the session has decided.)
    pub fn shown(&self, id: &str, now: Instant) -> Option<String> {
        let is_seen = self.guard.as_ref()?.get(key(id), now).is_some();
        is_seen.then(|| format!("{id} is shown, and a consumer has acked it"))
    }
}
