//! Consumers that do everything that AMQP allows, in any order, in front of a real RabbitMQ: prefetches that change, `nack`, `recover`, cancels,
//! channels that close, sockets that end, transactions that are rolled back, and `basic.get`. Each id is in the queue three times, and is done
//! once.

use super::{GUARD, fill, left};
use crate::e2e::raw::{Raw, Told};
use crate::e2e::retry::Rng;
use crate::e2e::site::Site;
use crate::e2e::wait::{self, PATIENCE, now};
use amq_protocol::protocol::{AMQPClass, basic, channel, tx};
use amq_protocol::types::AMQPValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

const IDS: usize = 150;

/// The ids that surely were acked: the consumer has heard something after its ack.
type Done = Mutex<BTreeSet<String>>;

fn basic(method: basic::AMQPMethod) -> AMQPClass {
    AMQPClass::Basic(method)
}

/// A consumer and what it holds.
struct Worker<'a> {
    site: &'a Site,
    done: &'a Done,
    /// a quorum queue takes no prefetch for the whole channel
    is_quorum: bool,
    rng: Rng,
    client: Raw,
    /// unacked deliveries by their tags
    held: BTreeMap<u64, String>,
    /// those that were settled in the open transaction, and whether they were acked; `None`: the channel has none
    settled: Option<BTreeMap<u64, (String, bool)>>,
    tags: u64,
    steps: Vec<&'static str>,
}

impl<'a> Worker<'a> {
    fn new(site: &'a Site, done: &'a Done, is_quorum: bool, rng: Rng) -> Worker<'a> {
        let client = site.client();
        let (held, settled, steps) = (BTreeMap::new(), None, Vec::new());
        let mut worker = Worker { site, done, is_quorum, rng, client, held, settled, tags: 0, steps };
        worker.begin();
        worker
    }

    /// Opens the channel, in a third of all cases with transactions, and consumes.
    fn begin(&mut self) {
        self.client.open_channel(1);
        self.held.clear();
        let is_tx = self.rng.below(3) == 0;
        self.settled = is_tx.then(BTreeMap::new);
        if is_tx {
            self.client.tx_select(1).unwrap();
        }
        self.prefetch();
        self.consume();
    }

    /// Calls a method. Takes what is delivered before its answer.
    fn call(&mut self, method: &AMQPClass) {
        self.client.send(1, method);
        loop {
            match self.client.next(1) {
                Told::Delivered { tag, message } => {
                    self.take(tag, &String::from_utf8_lossy(message.id().unwrap()));
                }
                Told::Method(_) => return,
                told => panic!("{told:?} after {:?}", self.steps),
            }
        }
    }

    fn take(&mut self, tag: u64, id: &str) {
        let is_done = self.done.lock().unwrap().contains(id);
        assert!(!is_done, "{id} is shown after it was done; after {:?}", self.steps);
        self.held.insert(tag, id.to_owned());
    }

    /// Changes the prefetch. When it is answered, the acks before it count.
    fn prefetch(&mut self) {
        let qos = basic::Qos {
            prefetch_count: u16::try_from(1 + self.rng.below(12)).unwrap(),
            global: !self.is_quorum && self.rng.below(2) == 0,
        };
        self.call(&basic(basic::AMQPMethod::Qos(qos)));
    }

    fn consume(&mut self) {
        self.tags += 1;
        let consumer_tag = format!("c{}", self.tags).into();
        let consume = basic::Consume { queue: "jobs".into(), consumer_tag, ..Default::default() };
        self.call(&basic(basic::AMQPMethod::Consume(consume)));
    }

    /// One of the tags that it holds, and those that a settle of it means.
    fn pick(&mut self) -> Option<(u64, bool, BTreeMap<u64, String>)> {
        let at = usize::try_from(self.rng.below(self.held.len().max(1) as u64)).unwrap();
        let tag = *self.held.keys().nth(at)?;
        let multiple = self.rng.below(3) == 0;
        let meant = match multiple {
            true => {
                let rest = self.held.split_off(&(tag + 1));
                std::mem::replace(&mut self.held, rest)
            }
            false => self.held.remove_entry(&tag).into_iter().collect(),
        };
        Some((tag, multiple, meant))
    }

    fn ack(&mut self) {
        let Some((delivery_tag, multiple, meant)) = self.pick() else { return self.prefetch() };
        self.client.send(1, &basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple })));
        match &mut self.settled {
            Some(settled) => settled.extend(meant.into_iter().map(|(tag, id)| (tag, (id, true)))),
            None => {
                self.prefetch();
                self.done.lock().unwrap().extend(meant.into_values());
            }
        }
    }

    fn give_back(&mut self) {
        let Some((delivery_tag, multiple, meant)) = self.pick() else { return self.prefetch() };
        let nack = basic::Nack { delivery_tag, multiple, requeue: true };
        self.client.send(1, &basic(basic::AMQPMethod::Nack(nack)));
        if let Some(settled) = &mut self.settled {
            settled.extend(meant.into_iter().map(|(tag, id)| (tag, (id, false))));
        }
    }

    fn end_transaction(&mut self) {
        let Some(settled) = self.settled.as_mut().map(std::mem::take) else { return self.prefetch() };
        if self.rng.below(3) == 0 {
            self.call(&AMQPClass::Tx(tx::AMQPMethod::Rollback(tx::Rollback {})));
            self.held.extend(settled.into_iter().map(|(tag, (id, _))| (tag, id)));
        } else {
            self.call(&AMQPClass::Tx(tx::AMQPMethod::Commit(tx::Commit {})));
            let acked = settled.into_values().filter(|(_, is_ack)| *is_ack);
            self.done.lock().unwrap().extend(acked.map(|(id, _)| id));
        }
    }

    /// (A `basic.get` whose answer is hidden is answered later than what is asked behind it.)
    fn get(&mut self) {
        self.cancel();
        self.client
            .send(1, &basic(basic::AMQPMethod::Get(basic::Get { queue: "jobs".into(), no_ack: false })));
        match self.client.next(1) {
            Told::Delivered { tag, message } => {
                self.take(tag, &String::from_utf8_lossy(message.id().unwrap()));
            }
            Told::Method(AMQPClass::Basic(basic::AMQPMethod::GetEmpty(_))) => {}
            told => panic!("{told:?} after {:?}", self.steps),
        }
        self.consume();
    }

    fn recover(&mut self) {
        // (In a transaction RabbitMQ gives back what is unacked, and keeps what the transaction has acked.)
        self.call(&basic(basic::AMQPMethod::Recover(basic::Recover { requeue: true })));
        self.held.clear();
    }

    fn cancel(&mut self) {
        let cancel = basic::Cancel { consumer_tag: format!("c{}", self.tags).into(), nowait: false };
        self.call(&basic(basic::AMQPMethod::Cancel(cancel)));
    }

    fn consume_again(&mut self) {
        self.cancel();
        self.consume();
    }

    fn close_channel(&mut self) {
        let close = channel::Close { reply_code: 200, reply_text: "".into(), class_id: 0, method_id: 0 };
        self.call(&AMQPClass::Channel(channel::AMQPMethod::Close(close)));
        self.begin();
    }

    fn vanish(&mut self) {
        self.client = self.site.client();
        self.begin();
    }

    fn step(&mut self) {
        let (name, step): (&'static str, fn(&mut Worker<'a>)) = match self.rng.below(40) {
            0 => ("vanish", Worker::vanish),
            1 => ("close", Worker::close_channel),
            2 | 3 => ("cancel", Worker::consume_again),
            4 => ("recover", Worker::recover),
            5..=8 => ("give back", Worker::give_back),
            9..=11 => ("get", Worker::get),
            12..=17 => ("end", Worker::end_transaction),
            18..=23 => ("prefetch", Worker::prefetch),
            _ => ("ack", Worker::ack),
        };
        self.steps.push(name);
        if self.steps.len() > 30 {
            self.steps.remove(0);
        }
        step(self);
    }
}

fn storm(vhost: &str, kind: &str) {
    let Some(site) = Site::of_relay(vhost, GUARD) else { return };
    // No limit for how often a quorum queue delivers.
    let arguments = [("x-queue-type", AMQPValue::LongString(kind.into()))];
    fill(&site, "jobs", &arguments, IDS, 3);
    let done = Done::default();
    let mut rng = Rng::seeded(vhost);
    let end = now() + 2 * PATIENCE;
    let is_over = |done: &Done| done.lock().unwrap().len() == IDS && left(&site, "jobs") == 0;
    thread::scope(|scope| {
        for _ in 0..4 {
            let (site, done, rng) = (&site, &done, Rng(rng.below(u64::MAX) | 1));
            scope.spawn(move || {
                let mut worker = Worker::new(site, done, kind == "quorum", rng);
                while done.lock().unwrap().len() < IDS {
                    assert!(
                        now() < end,
                        "{} are done, {} are left",
                        done.lock().unwrap().len(),
                        left(site, "jobs")
                    );
                    worker.step();
                }
            });
        }
    });
    // One more consumer gets the copies that had waited. It is shown none of them.
    let mut last = Worker::new(&site, &done, kind == "quorum", Rng(1));
    wait::until("the queue is empty", PATIENCE, || {
        last.prefetch();
        is_over(&done).then_some(())
    });
    drop(last);
    let metrics = site.metrics();
    assert_eq!(metrics.sum("commits_total", &[("window", "workers")]), IDS as f64);
    assert_eq!(metrics.sum("forgotten_total", &[("cause", "in_doubt")]), 0.0);
    wait::until("nothing is in flight", Duration::from_secs(5), || {
        (site.metrics().sum("in_flight", &[("window", "workers")]) == 0.0).then_some(())
    });
}

#[test]
fn consumers_that_do_everything_do_each_id_once() {
    storm("guard-storm", "classic");
}

#[test]
fn consumers_that_do_everything_do_each_id_of_a_quorum_queue_once() {
    storm("guard-storm-quorum", "quorum");
}
