//! The guard against a dumb broker: a queue, consumers with a prefetch, and RabbitMQ's rules about tags. Whatever the consumers do, an id that
//! one has acked is shown to nobody, no two work on one id at a time, what nobody has acked is shown again, no tag is settled that is not
//! unacked, and no prefetch is used up by what is hidden.

use super::guard_post::{Post, begin, job};
use crate::support::frames::{Frame, Frames};
use crate::support::methods::{
    ack, ack_multiple, consume_acking, get, get_empty, give_back, nack, recover, recover_ok, tx_commit,
    tx_commit_ok, tx_rollback, tx_rollback_ok, tx_select, tx_select_ok,
};
use crate::support::pair::Pair;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, basic, tx};
use hapax_core::session::{ChaosFault, ChaosPlan, ChaosShares};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

const CONSUMERS: usize = 3;
const PREFETCH: usize = 3;

/// How a consumer works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Plain,
    Tx,
    Gets,
}

/// One channel as the broker has it, and as the client has it.
struct Line {
    kind: Kind,
    pair: Pair,
    // the broker
    tags: u64,
    unacked: Vec<(u64, u32)>,
    acked_in_tx: Vec<(u64, u32)>,
    // the client
    shown: u64,
    works: Vec<(u64, u32)>,
    done_in_tx: Vec<(u64, u32)>,
    asks: usize,
}

struct World {
    post: Post,
    queue: VecDeque<u32>,
    lines: Vec<Line>,
    done: BTreeSet<u32>,
}

fn line(post: &Post, kind: Kind) -> Line {
    let mut pair = post.pair();
    if kind == Kind::Tx {
        pair.client(tx_select(1));
        pair.upstream(tx_select_ok(1));
        pair.to_client();
        pair.to_upstream();
    }
    if kind != Kind::Gets {
        begin(&mut pair, consume_acking(1, "q", "c"), "c");
    }
    Line {
        kind,
        pair,
        tags: 0,
        unacked: Vec::new(),
        acked_in_tx: Vec::new(),
        shown: 0,
        works: Vec::new(),
        done_in_tx: Vec::new(),
        asks: 0,
    }
}

/// Takes the tags that a settle means out of the unacked ones, as RabbitMQ does.
fn collect(unacked: &mut Vec<(u64, u32)>, tag: u64, multiple: bool) -> Vec<(u64, u32)> {
    if multiple && tag == 0 {
        return std::mem::take(unacked);
    }
    let at = unacked.iter().position(|(own, _)| *own == tag);
    let at = at.unwrap_or_else(|| panic!("406: tag {tag} is not among {unacked:?}"));
    if multiple { unacked.drain(..=at).collect() } else { vec![unacked.remove(at)] }
}

impl World {
    fn new(kinds: [Kind; CONSUMERS]) -> World {
        let post = Post::new();
        let lines = kinds.into_iter().map(|kind| line(&post, kind)).collect();
        World { post, queue: VecDeque::new(), lines, done: BTreeSet::new() }
    }

    /// Lets the broker and the clients hear all that was written.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for at in 0..self.lines.len() {
                for frame in self.lines[at].pair.to_upstream() {
                    quiet = false;
                    self.broker(at, &frame);
                }
                let frames = self.lines[at].pair.to_client();
                quiet &= frames.is_empty();
                self.client(at, frames);
            }
            if quiet {
                return;
            }
        }
    }

    fn broker(&mut self, at: usize, frame: &Frame) {
        let World { queue, lines, .. } = self;
        let line = &mut lines[at];
        let is_tx = line.kind == Kind::Tx;
        match frame.method() {
            Some(AMQPClass::Basic(basic::AMQPMethod::Ack(ack))) => {
                let acked = collect(&mut line.unacked, ack.delivery_tag, ack.multiple);
                if is_tx {
                    line.acked_in_tx.extend(acked);
                }
            }
            Some(AMQPClass::Basic(basic::AMQPMethod::Nack(nack))) => {
                let back = collect(&mut line.unacked, nack.delivery_tag, nack.multiple);
                assert!(!is_tx, "the clients here do not nack in transactions, and nobody cancels");
                if nack.requeue {
                    back.into_iter().rev().for_each(|(_, id)| queue.push_front(id));
                }
            }
            Some(AMQPClass::Basic(basic::AMQPMethod::Recover(_))) => {
                let back = std::mem::take(&mut line.unacked);
                back.into_iter().rev().for_each(|(_, id)| queue.push_front(id));
                line.pair.upstream(recover_ok(1));
            }
            Some(AMQPClass::Tx(tx::AMQPMethod::Commit(_))) => {
                line.acked_in_tx.clear();
                line.pair.upstream(tx_commit_ok(1));
            }
            Some(AMQPClass::Tx(tx::AMQPMethod::Rollback(_))) => {
                line.unacked.append(&mut line.acked_in_tx);
                line.unacked.sort_unstable();
                line.pair.upstream(tx_rollback_ok(1));
            }
            Some(AMQPClass::Basic(basic::AMQPMethod::Get(_))) => match queue.pop_front() {
                Some(id) => {
                    line.tags += 1;
                    line.unacked.push((line.tags, id));
                    line.pair.upstream(job(&id.to_string()).get_ok(1, line.tags));
                }
                None => line.pair.upstream(get_empty(1)),
            },
            other => panic!("{other:?}"),
        }
    }

    fn client(&mut self, at: usize, frames: Frames) {
        for frame in frames {
            match frame.method() {
                Some(AMQPClass::Basic(
                    basic::AMQPMethod::Deliver(basic::Deliver { delivery_tag, .. })
                    | basic::AMQPMethod::GetOk(basic::GetOk { delivery_tag, .. }),
                )) => {
                    let line = &mut self.lines[at];
                    line.asks = line.asks.saturating_sub(usize::from(line.kind == Kind::Gets));
                    line.shown += 1;
                    assert_eq!(*delivery_tag, line.shown);
                }
                Some(AMQPClass::Basic(basic::AMQPMethod::GetEmpty(_))) => self.lines[at].asks -= 1,
                Some(AMQPClass::Basic(basic::AMQPMethod::RecoverOk(_))) => self.lines[at].works.clear(),
                Some(AMQPClass::Tx(tx::AMQPMethod::CommitOk(_))) => {
                    let done = std::mem::take(&mut self.lines[at].done_in_tx);
                    self.done.extend(done.into_iter().map(|(_, id)| id));
                }
                Some(AMQPClass::Tx(tx::AMQPMethod::RollbackOk(_))) => {
                    let line = &mut self.lines[at];
                    line.works.append(&mut line.done_in_tx);
                    line.works.sort_unstable();
                }
                None => {
                    if let AMQPFrame::Header(_, header) = &frame.0 {
                        let id: u32 =
                            header.properties.message_id().as_ref().unwrap().as_str().parse().unwrap();
                        assert!(!self.done.contains(&id), "{id} was acked, and is shown again");
                        let of = |line: &Line| {
                            line.works.iter().chain(&line.done_in_tx).any(|(_, other)| *other == id)
                        };
                        assert!(!self.lines.iter().any(of), "two work on {id}");
                        let line = &mut self.lines[at];
                        line.works.push((line.shown, id));
                    }
                }
                Some(other) => panic!("{other:?}"),
            }
        }
    }

    /// The broker delivers the next message to this consumer, if its prefetch allows it. Returns true if it has.
    fn deliver(&mut self, at: usize, count: usize) -> bool {
        let line = &mut self.lines[at];
        if line.kind == Kind::Gets {
            return false;
        }
        let mut frames = Frames::none();
        for _ in 0..count {
            if line.unacked.len() + line.acked_in_tx.len() >= PREFETCH {
                break;
            }
            let Some(id) = self.queue.pop_front() else { break };
            line.tags += 1;
            line.unacked.push((line.tags, id));
            frames += job(&id.to_string()).deliver(1, "c", line.tags);
        }
        let any = !frames.is_empty();
        line.pair.upstream(frames);
        self.settle();
        any
    }

    fn get(&mut self, at: usize) {
        let line = &mut self.lines[at];
        if line.kind == Kind::Gets && line.asks == 0 && line.works.len() < PREFETCH {
            line.asks = 1;
            line.pair.client(get(1, "q", false));
            self.settle();
            assert_eq!(self.lines[at].asks, 0, "a get was not answered");
        }
    }

    /// The client acks one delivery, or all up to it.
    fn ack(&mut self, at: usize, pick: usize, multiple: bool) {
        let line = &mut self.lines[at];
        let Some((tag, _)) = line.works.get(pick % line.works.len().max(1)).copied() else { return };
        let acked = collect(&mut line.works, tag, multiple);
        if line.kind == Kind::Tx {
            line.done_in_tx.extend(acked);
        } else {
            self.done.extend(acked.into_iter().map(|(_, id)| id));
        }
        line.pair.client(if multiple { ack_multiple(1, tag) } else { ack(1, tag) });
        self.settle();
    }

    fn nack(&mut self, at: usize, pick: usize, requeue: bool) {
        let line = &mut self.lines[at];
        if line.kind == Kind::Tx {
            return;
        }
        let Some((tag, _)) = line.works.get(pick % line.works.len().max(1)).copied() else { return };
        let back = collect(&mut line.works, tag, false);
        line.pair.client(if requeue { give_back(1, tag) } else { nack(1, tag) });
        // A rejected one goes to a dead-letter queue, from which somebody puts it back.
        if !requeue {
            self.queue.extend(back.into_iter().map(|(_, id)| id));
        }
        self.settle();
    }

    fn say(&mut self, at: usize, said: Frames) {
        self.lines[at].pair.client(said);
        self.settle();
    }

    /// Acks of this consumer's deliveries are lost on their way from now on, or no more.
    fn lose_acks(&mut self, at: usize, on: bool) {
        let line = &mut self.lines[at];
        let plan = ChaosPlan {
            seed: 1,
            shares: ChaosShares::default().with(ChaosFault::Redeliver, 0.7),
            hold_for: Duration::ZERO,
            windows: None,
            until: line.pair.now() + Duration::from_secs(60),
        };
        line.pair.chaos(on.then_some(plan));
        self.settle();
    }

    /// The client vanishes, and comes back.
    fn vanish(&mut self, at: usize) {
        let kind = self.lines[at].kind;
        let mut line = std::mem::replace(&mut self.lines[at], line(&self.post, kind));
        line.pair.client_eof();
        line.unacked.append(&mut line.acked_in_tx);
        line.unacked.sort_unstable();
        line.unacked.iter().rev().for_each(|(_, id)| self.queue.push_front(*id));
        drop(line);
        self.settle();
    }

    /// All consumers go on until everything is done.
    fn finish(&mut self, ids: &BTreeSet<u32>) {
        for round in 0.. {
            let mut progress = false;
            for at in 0..self.lines.len() {
                progress |= self.deliver(at, PREFETCH);
                self.get(at);
                while !self.lines[at].works.is_empty() {
                    progress = true;
                    self.ack(at, 0, false);
                }
                if self.lines[at].kind == Kind::Tx && !self.lines[at].done_in_tx.is_empty() {
                    self.say(at, tx_commit(1));
                }
            }
            let waits = self.lines.iter().any(|line| !line.unacked.is_empty());
            if self.queue.is_empty() && !waits && !progress {
                break;
            }
            assert!(progress || round < 3, "nobody gets anything, and {:?} wait", self.queue);
        }
        assert_eq!(&self.done, ids);
        assert_eq!(self.post.in_flight(), 0);
    }
}

proptest! {
    #[test]
    fn whatever_consumers_do_each_id_is_done_once(
        kinds in prop::array::uniform3(prop_oneof![Just(Kind::Plain), Just(Kind::Plain), Just(Kind::Tx), Just(Kind::Gets)]),
        steps in prop::collection::vec((0_u8..18, 0..CONSUMERS, 0_usize..4, any::<bool>()), 0..120),
    ) {
        let mut world = World::new(kinds);
        let mut ids = BTreeSet::new();
        for (step, at, pick, flag) in steps {
            match step {
                0..=3 => {
                    let id = u32::try_from(pick).unwrap() + 4 * u32::from(flag);
                    ids.insert(id);
                    world.queue.push_back(id);
                }
                4..=7 => _ = world.deliver(at, pick + 1),
                8 => world.get(at),
                9 | 10 => world.ack(at, pick, flag),
                11 => world.nack(at, pick, flag),
                12 if world.lines[at].kind == Kind::Tx => world.say(at, if flag { tx_commit(1) } else { tx_rollback(1) }),
                12 | 13 => world.get(at),
                14 if flag => world.say(at, recover(1)),
                14 => {}
                15 => world.vanish(at),
                _ => world.lose_acks(at, flag),
            }
        }
        world.finish(&ids);
    }
}
