//! Is a history linearizable? That is: can each operation be put at one moment between its begin and its end, so that a model that does one
//! thing at a time gives the same answers?
//!
//! The search goes over the operations that may come next, depth first, and remembers the states that led nowhere.

use std::collections::{BTreeMap, HashSet};

/// An operation on one producer, and its result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// a publish: this number in this epoch, and the verdict
    Publish(u64, u64, Says),
    /// The broker has stored it.
    Commit(u64, u64),
    /// The broker has not stored it.
    Rollback(u64, u64),
    /// An operator has it forgotten.
    Forget(u64, u64),
    /// Asked when all is done, of a relay that knows nothing by itself.
    Look(u64, u64, Says),
}

/// The verdict about a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Says {
    Fresh,
    Duplicate,
    Stale,
    /// Another publish of it is in flight. This one did not wait for its outcome.
    Waits,
}

/// An operation with the moments of its begin and its end: places in one order for all threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) op: Op,
    pub(super) begin: u64,
    pub(super) end: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
enum Stored {
    #[default]
    No,
    Yes,
    /// An operator has forgotten it. A relay that has not heard of that may still say that it is stored.
    Forgotten,
}

/// One producer, as if there were one relay without any store.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
struct Producer {
    epoch: u64,
    /// in flight, and stored, for each number of each epoch
    numbers: BTreeMap<(u64, u64), (bool, Stored)>,
}

impl Producer {
    /// Returns what the producer is after this operation; `None` if it can't have had this result.
    fn after(&self, op: Op) -> Option<Producer> {
        let mut next = self.clone();
        let (Op::Publish(epoch, number, _)
        | Op::Commit(epoch, number)
        | Op::Rollback(epoch, number)
        | Op::Forget(epoch, number)
        | Op::Look(epoch, number, _)) = op;
        let (in_flight, stored) = next.numbers.entry((epoch, number)).or_default();
        let is_legal = match op {
            Op::Publish(_, _, Says::Fresh) => {
                let is_legal = epoch >= self.epoch && !*in_flight && *stored != Stored::Yes;
                (*in_flight, next.epoch) = (true, epoch);
                is_legal
            }
            // A relay may know a number of an epoch that is over.
            Op::Publish(_, _, Says::Duplicate) => *stored != Stored::No,
            Op::Publish(_, _, Says::Stale) => epoch < self.epoch,
            // Redis may have given a lease to somebody who does not wait for it any more.
            Op::Publish(_, _, Says::Waits) => {
                next.epoch = self.epoch.max(epoch);
                true
            }
            Op::Commit(..) => {
                *stored = Stored::Yes;
                std::mem::take(in_flight)
            }
            Op::Rollback(..) => std::mem::take(in_flight),
            Op::Forget(..) => {
                if *stored == Stored::Yes {
                    *stored = Stored::Forgotten;
                }
                true
            }
            Op::Look(_, _, says) => {
                let is_stored = *stored == Stored::Yes;
                !*in_flight && says == if is_stored { Says::Duplicate } else { Says::Fresh }
            }
        };
        is_legal.then_some(next)
    }
}

/// Looks for an order of the operations. There is one list for each thread, in the order in which the thread did them. If there is no
/// order, returns the operations that could not come next where the search got furthest, and the producer there.
pub(super) fn check(threads: &[Vec<Done>]) -> Result<(), String> {
    let all: usize = threads.iter().map(Vec::len).sum();
    let mut open = vec![(vec![0; threads.len()], Producer::default())];
    let (mut known, mut furthest) = (HashSet::new(), (0, open.first().cloned()));
    while let Some((places, producer)) = open.pop() {
        let done: usize = places.iter().sum();
        if done == all {
            return Ok(());
        }
        let next: Vec<(usize, Done)> = next(threads, &places).collect();
        let first_end = next.iter().map(|(_, done)| done.end).min().unwrap_or(u64::MAX);
        // An operation that begins after another one has ended can't come before it.
        for (thread, done) in next.into_iter().filter(|(_, done)| done.begin <= first_end) {
            let Some(after) = producer.after(done.op) else { continue };
            let mut places = places.clone();
            places[thread] += 1;
            let state = (places, after);
            if known.insert(state.clone()) {
                open.push(state);
            }
        }
        if done >= furthest.0 {
            furthest = (done, Some((places, producer)));
        }
    }
    let (done, stuck) = furthest;
    let stuck = stuck.map(|(places, producer)| (producer, next(threads, &places).collect::<Vec<_>>()));
    Err(format!("{done} of {all} operations, and then {stuck:#?}"))
}

/// Returns the next operation of each thread that has one, and the thread.
fn next(threads: &[Vec<Done>], places: &[usize]) -> impl Iterator<Item = (usize, Done)> {
    let lists = threads.iter().zip(places).enumerate();
    lists.filter_map(|(thread, (list, place))| Some((thread, *list.get(*place)?)))
}

fn done(op: Op, begin: u64, end: u64) -> Done {
    Done { op, begin, end }
}

#[test]
fn the_checker_finds_an_order_if_and_only_if_there_is_one() {
    let fresh = |begin, end| done(Op::Publish(0, 1, Says::Fresh), begin, end);
    let duplicate = |begin, end| done(Op::Publish(0, 1, Says::Duplicate), begin, end);
    let commit = |begin, end| done(Op::Commit(0, 1), begin, end);
    let rollback = |begin, end| done(Op::Rollback(0, 1), begin, end);
    let look = |says, begin| done(Op::Look(0, 1, says), begin, begin + 1);
    // The duplicate overlaps the commit, or comes behind it, but not before it.
    assert_eq!(check(&[vec![fresh(0, 1), commit(4, 7)], vec![duplicate(2, 5)]]), Ok(()));
    assert_eq!(check(&[vec![fresh(0, 1), commit(4, 7)], vec![duplicate(8, 9)]]), Ok(()));
    assert!(check(&[vec![fresh(0, 1), commit(4, 7)], vec![duplicate(2, 3)]]).is_err());
    assert!(check(&[vec![fresh(0, 1), rollback(4, 5)], vec![duplicate(6, 7)]]).is_err());
    // Two are let through only if the first one is given up.
    assert_eq!(check(&[vec![fresh(0, 1), rollback(4, 5)], vec![fresh(2, 9)]]), Ok(()));
    assert!(check(&[vec![fresh(0, 1), commit(4, 5)], vec![fresh(2, 9)]]).is_err());
    assert!(check(&[vec![fresh(0, 1), rollback(4, 5)], vec![fresh(2, 3)]]).is_err());
    // An epoch that is over lets nothing through.
    let epoch = |epoch, says, begin| done(Op::Publish(epoch, 1, says), begin, begin + 1);
    assert_eq!(check(&[vec![epoch(1, Says::Fresh, 0), epoch(0, Says::Stale, 2)]]), Ok(()));
    assert!(check(&[vec![epoch(1, Says::Fresh, 0), epoch(0, Says::Fresh, 2)]]).is_err());
    assert!(check(&[vec![epoch(0, Says::Fresh, 0), epoch(0, Says::Stale, 2)]]).is_err());
    // A number that is forgotten may be known for a while, but not for ever.
    let forgotten = vec![fresh(0, 1), commit(2, 3), done(Op::Forget(0, 1), 4, 5), duplicate(6, 7)];
    assert_eq!(check(&[forgotten.clone(), vec![look(Says::Fresh, 8)]]), Ok(()));
    assert!(check(&[forgotten, vec![look(Says::Duplicate, 8)]]).is_err());
}
