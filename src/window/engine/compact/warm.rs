//! Fetching what operations are about to need, for many at once.
//!
//! An operation on a large store is two or three cache misses, one after the other, and there is nothing else to do
//! meanwhile. But whoever knows the next keys can have their lines fetched together: the loads of a loop that does nothing else
//! overlap. Not with a lock taken in between, for that waits for all loads before it; so all shards are locked first, those
//! that are free: it is only a hint.

use super::shard::{LOOK, Shard};
use super::{Compact, MAX_SHARDS};
use crate::window::Key;
use parking_lot::MutexGuard;
use std::hint::black_box;
use std::sync::atomic::Ordering::Relaxed;

type Guards<'a> = [Option<MutexGuard<'a, Shard>>; MAX_SHARDS];

/// For [`Compact::touch`](super::Engine::touch): the line where each key is, or would be.
pub(super) fn lookups(store: &Compact, keys: &[Key]) {
    let (guards, count) = lock(store);
    black_box(homes(&guards, count, keys));
}

/// For [`Compact::insert`](super::Engine::insert): that, and what will have to make room, with its lines.
pub(super) fn inserts(store: &Compact, keys: &[Key]) {
    let (guards, count) = lock(store);
    let mut sum = homes(&guards, count, keys);
    let mut coming = [0; MAX_SHARDS];
    for key in keys {
        coming[key.shard(count)] += 1;
    }
    let mut going = [None; MAX_SHARDS];
    for (going, guard) in going.iter_mut().zip(&guards) {
        *going = guard.as_ref().and_then(|shard| shard.next_to_go());
    }
    // A slot names the next one: a step in each shard, and then the next step, so that only the steps wait for each other.
    // (An insert looks a little further than at who has to go.)
    let most = coming.into_iter().max().unwrap_or(0);
    for step in 0..most + LOOK {
        for ((going, coming), guard) in going.iter_mut().zip(coming).zip(&guards) {
            if let (Some(place), Some(shard)) = (*going, guard)
                && step < coming + LOOK
                && coming > 0
            {
                let (next, warm) = shard.warm_slot(place, step < coming);
                *going = next;
                sum ^= warm;
            }
        }
    }
    black_box(sum);
}

fn lock(store: &Compact) -> (Guards<'_>, usize) {
    let guards = std::array::from_fn(|n| store.shards[n].0.try_lock());
    (guards, store.count.load(Relaxed))
}

fn homes(guards: &Guards<'_>, count: usize, keys: &[Key]) -> u32 {
    let of = |key: &Key| guards[key.shard(count)].as_ref().map_or(0, |shard| shard.warm(*key));
    keys.iter().map(of).fold(0, |sum, warm| sum ^ warm)
}
