//! One consumer tag for two queues that have the same ids, against a model of RabbitMQ's channel: a process with one mailbox, to which the client
//! and the queues write. Whatever the order, no id is acked that nobody has done in its own queue, each is done, and the client gets the answers
//! that it has asked for.

use super::guard_post::{Post, job};
use crate::support::frames::{Frame, Frames};
use crate::support::methods::{ack, cancel, cancel_nowait, cancel_ok, consume_acking, consume_ok};
use crate::support::pair::Pair;
use amq_protocol::frame::AMQPFrame;
use amq_protocol::protocol::{AMQPClass, basic};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};

const QUEUES: [&str; 2] = ["q", "r"];
const PREFETCH: usize = 6;

/// A message: its queue, and its id.
type Job = (usize, u32);

/// A mail for the broker's channel.
#[derive(Debug)]
enum Mail {
    Client(Box<Frame>),
    Deliver(Job),
    ConsumeOk,
    CancelOk,
}

/// The broker: two queues, and a channel with one consumer at most.
#[derive(Default)]
struct Broker {
    queues: [VecDeque<u32>; 2],
    /// the queue that has the channel's consumer
    serves: Option<usize>,
    mail: VecDeque<Mail>,
    /// on the way to the relay
    out: VecDeque<Frames>,
    tags: u64,
    unacked: Vec<(u64, Job)>,
    /// messages that clients have done; told by the client
    done: BTreeSet<Job>,
}

impl Broker {
    /// A queue sends the next message to the channel.
    fn deliver(&mut self) -> bool {
        let Some(queue) = self.serves else { return false };
        let coming = self.mail.iter().filter(|mail| matches!(mail, Mail::Deliver(_))).count();
        if self.unacked.len() + coming >= PREFETCH {
            return false;
        }
        let Some(id) = self.queues[queue].pop_front() else { return false };
        self.mail.push_back(Mail::Deliver((queue, id)));
        true
    }

    /// The channel handles the next mail.
    fn handle(&mut self) -> bool {
        let Some(mail) = self.mail.pop_front() else { return false };
        match mail {
            Mail::ConsumeOk => self.out.push_back(consume_ok(1, "c")),
            Mail::CancelOk => self.out.push_back(cancel_ok(1, "c")),
            Mail::Deliver((queue, id)) => {
                self.tags += 1;
                self.unacked.push((self.tags, (queue, id)));
                self.out.push_back(job(&id.to_string()).body(QUEUES[queue]).deliver(1, "c", self.tags));
            }
            Mail::Client(frame) => self.method(&frame),
        }
        true
    }

    fn method(&mut self, frame: &Frame) {
        match frame.method() {
            Some(AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel))) => {
                // The queue answers behind its last delivery; if there is none, the channel does at once.
                match self.serves.take() {
                    Some(_) if !cancel.nowait => self.mail.push_back(Mail::CancelOk),
                    None if !cancel.nowait => self.out.push_back(cancel_ok(1, "c")),
                    _ => {}
                }
            }
            Some(AMQPClass::Basic(basic::AMQPMethod::Consume(consume))) => {
                assert_eq!(self.serves, None, "530: the tag is used");
                self.serves = QUEUES.iter().position(|queue| *queue == consume.queue.as_str());
                if !consume.nowait {
                    self.mail.push_back(Mail::ConsumeOk);
                }
            }
            Some(AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple }))) => {
                let at = self.unacked.iter().position(|(own, _)| own == delivery_tag);
                let at = at.unwrap_or_else(|| panic!("406: tag {delivery_tag} of {:?}", self.unacked));
                let settled: Vec<_> = self.unacked.drain(if *multiple { 0..=at } else { at..=at }).collect();
                for (_, job) in settled {
                    assert!(self.done.contains(&job), "{job:?} is lost: it is acked, and nobody has done it");
                }
            }
            Some(AMQPClass::Basic(basic::AMQPMethod::Nack(basic::Nack {
                delivery_tag,
                multiple,
                requeue,
            }))) => {
                assert!(*requeue);
                let at = self.unacked.iter().position(|(own, _)| own == delivery_tag);
                let at = at.unwrap_or_else(|| panic!("406: tag {delivery_tag} of {:?}", self.unacked));
                let back: Vec<_> = self.unacked.drain(if *multiple { 0..=at } else { at..=at }).collect();
                back.into_iter().rev().for_each(|(_, (queue, id))| self.queues[queue].push_front(id));
            }
            other => panic!("{other:?}"),
        }
    }
}

struct World {
    pair: Pair,
    broker: Broker,
    /// what the client has been shown and not acked
    works: Vec<(u64, Job)>,
    coming: Option<(u64, u32)>,
    shown: u64,
    /// answers that the client expects: consume-ok, cancel-ok
    expects: (usize, usize),
    consumes: bool,
    /// A consumer has begun without an answer, or a cancel was said twice while others were not answered. Copies may be shown.
    is_vague: bool,
    /// cancels that the relay has sent and has no answer to
    cancels: usize,
}

impl World {
    fn new(post: &Post) -> World {
        World {
            pair: post.pair(),
            broker: Broker::default(),
            works: Vec::new(),
            coming: None,
            shown: 0,
            expects: (0, 0),
            consumes: false,
            is_vague: false,
            cancels: 0,
        }
    }

    /// Lets the client and the broker's mailbox have what the relay has written.
    fn pass(&mut self) {
        for frame in self.pair.to_upstream() {
            let is_cancel = matches!(frame.method(), Some(AMQPClass::Basic(basic::AMQPMethod::Cancel(_))));
            self.cancels += usize::from(is_cancel);
            self.broker.mail.push_back(Mail::Client(frame.into()));
        }
        for frame in self.pair.to_client() {
            self.client(&frame);
        }
    }

    fn client(&mut self, frame: &Frame) {
        match (frame.method(), &frame.0) {
            (Some(AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(_))), _) => self.expects.0 -= 1,
            (Some(AMQPClass::Basic(basic::AMQPMethod::CancelOk(_))), _) => self.expects.1 -= 1,
            (Some(AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))), _) => {
                self.shown += 1;
                assert_eq!(deliver.delivery_tag, self.shown);
            }
            (None, AMQPFrame::Header(_, header)) => {
                let id = header.properties.message_id().as_ref().unwrap().as_str().parse().unwrap();
                self.coming = Some((self.shown, id));
            }
            (None, AMQPFrame::Body(_, body)) => {
                let (tag, id) = self.coming.take().unwrap();
                let queue = QUEUES.iter().position(|queue| queue.as_bytes() == body).unwrap();
                let job = (queue, id);
                let is_copy =
                    self.broker.done.contains(&job) || self.works.iter().any(|(_, own)| *own == job);
                assert!(self.is_vague || !is_copy, "a copy of {job:?} is shown");
                self.works.push((tag, job));
            }
            other => panic!("{other:?}"),
        }
    }

    fn says(&mut self, said: Frames) {
        self.pair.client(said);
        self.pass();
    }

    /// The client takes the other queue, or the same one again, and does not wait for anything. (One `basic.cancel` has always come before.)
    fn switch(&mut self, queue: usize, twice: bool, waits: (bool, bool)) {
        let mut said = Frames::none();
        self.is_vague |= twice && self.cancels > 0;
        for _ in 0..usize::from(self.consumes) + usize::from(twice) {
            said += if waits.0 { cancel(1, "c") } else { cancel_nowait(1, "c") };
            self.expects.1 += usize::from(waits.0);
        }
        if waits.1 {
            self.expects.0 += 1;
            said += consume_acking(1, QUEUES[queue], "c");
        } else {
            self.is_vague = true;
            let consume = basic::Consume {
                queue: QUEUES[queue].into(),
                consumer_tag: "c".into(),
                nowait: true,
                ..Default::default()
            };
            said += Frames::method(1, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)));
        }
        self.consumes = true;
        self.says(said);
    }

    fn ack(&mut self, pick: usize) -> bool {
        if self.works.is_empty() {
            return false;
        }
        let (tag, job) = self.works.remove(pick % self.works.len());
        self.broker.done.insert(job);
        self.says(ack(1, tag));
        true
    }

    /// The relay reads the next frames of the broker.
    fn read(&mut self) -> bool {
        let Some(frames) = self.broker.out.pop_front() else { return false };
        self.cancels -= usize::from(frames == cancel_ok(1, "c"));
        self.pair.upstream(frames);
        self.pass();
        true
    }

    fn rest(&mut self) {
        while self.broker.handle() | self.broker.deliver() | self.read() | self.ack(0) {}
    }
}

proptest! {
    #[test]
    fn no_id_is_lost_whenever_a_tag_is_used_again(
        vague in prop_oneof![Just(false), Just(false), Just(true)],
        steps in prop::collection::vec((0_u8..16, 0_usize..6, any::<bool>(), any::<bool>()), 0..160),
    ) {
        let post = Post::new();
        let mut world = World::new(&post);
        let mut all = BTreeSet::new();
        for (step, pick, one, other) in steps {
            match step {
                0..=3 => {
                    let job = (pick % 2, u32::try_from(pick / 2).unwrap());
                    all.insert(job);
                    world.broker.queues[job.0].push_back(job.1);
                }
                4 | 5 => world.switch(pick % 2, pick == 5, (one, other || !vague)),
                6..=8 => _ = world.broker.deliver(),
                9..=11 => _ = world.broker.handle(),
                12 | 13 => _ = world.read(),
                _ => _ = world.ack(pick),
            }
        }
        for queue in [0, 1, 0, 1] {
            world.rest();
            world.switch(queue, false, (true, true));
        }
        world.rest();
        prop_assert_eq!(world.expects, (0, 0));
        prop_assert_eq!(&world.broker.done, &all);
        prop_assert!(world.broker.unacked.is_empty() && world.broker.queues.iter().all(VecDeque::is_empty));
        prop_assert_eq!(post.in_flight(), 0);
    }
}
