//! A consumer tag that is used again at once, with deliveries under way: two queues have the same ids, and each of them is worked on once in
//! each queue.

use super::{ack, fill, left};
use crate::e2e::raw::{Raw, Told};
use crate::e2e::site::Site;
use crate::e2e::wait::{self, PATIENCE};
use amq_protocol::protocol::{AMQPClass, basic, queue};
use amq_protocol::types::AMQPValue;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

const IDS: usize = 150;
const PREFETCH: u16 = 25;

fn cancel(nowait: bool) -> AMQPClass {
    AMQPClass::Basic(basic::AMQPMethod::Cancel(basic::Cancel { consumer_tag: "c".into(), nowait }))
}

fn consume(queue: &str, nowait: bool) -> AMQPClass {
    let consume =
        basic::Consume { queue: queue.into(), consumer_tag: "c".into(), nowait, ..Default::default() };
    AMQPClass::Basic(basic::AMQPMethod::Consume(consume))
}

/// The client takes the other queue while deliveries of this one are on their way, as often as it can. (It waits for `consume-ok`, because
/// RabbitMQ ends the connection if a consumer is cancelled earlier.) Returns how often each id of each queue was worked on.
fn works_on_both(site: &Site, queues: [&str; 2], nowait: bool) -> (BTreeMap<(String, String), u32>, u32) {
    let mut client = site.client();
    client.open_channel(1);
    let qos = basic::Qos { prefetch_count: PREFETCH, global: false };
    client.call(1, &AMQPClass::Basic(basic::AMQPMethod::Qos(qos))).unwrap();
    client.send(1, &consume(queues[0], false));
    client.socket().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let (mut done, mut switches) = (BTreeMap::<_, u32>::new(), 0);
    let (mut is_served, mut since) = (false, 0);
    loop {
        let is_idle = match client.receive() {
            Ok(Some((_, Told::Delivered { tag, message }))) => {
                let id = String::from_utf8_lossy(message.id().unwrap()).into_owned();
                *done.entry((message.key, id)).or_default() += 1;
                client.send(1, &ack(tag));
                since += 1;
                false
            }
            Ok(Some((_, Told::Method(AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(_)))))) => {
                (is_served, since) = (true, 0);
                false
            }
            Ok(Some((_, Told::Method(AMQPClass::Basic(basic::AMQPMethod::CancelOk(_)))))) if !nowait => false,
            Ok(other) => panic!("{other:?}"),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => true,
            Err(error) => panic!("{error}"),
        };
        if is_idle && queues.iter().all(|queue| left(site, queue) == 0) {
            break;
        }
        if is_served && (is_idle || since == 4) {
            is_served = false;
            switches += 1;
            assert!(switches < 1_000, "it comes to no end");
            client.send(1, &cancel(nowait));
            client.send(1, &consume(queues[switches as usize % 2], false));
        }
    }
    // What the client has not acked goes back to the queues.
    drop(client);
    let mut others = queues.map(|queue| super::consumer(site, queue, PREFETCH));
    for other in &mut others {
        other.socket().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    }
    // Until they have all ids, or nothing comes any more.
    let mut silent = 0;
    while done.len() < 2 * IDS && silent < 10 {
        silent += 1;
        for (other, queue) in others.iter_mut().zip(queues) {
            while let Some((tag, id)) = super::delivered(other) {
                *done.entry((queue.to_owned(), id)).or_default() += 1;
                other.send(1, &ack(tag));
                silent = 0;
            }
        }
    }
    for queue in queues {
        let is_lost = |id: &String| !done.contains_key(&(queue.to_owned(), id.clone()));
        let lost: Vec<_> = (0..IDS).map(|id| id.to_string()).filter(is_lost).collect();
        assert!(lost.is_empty(), "lost of {queue}, where {} are left: {lost:?}", left(site, queue));
    }
    (done, switches)
}

/// Each id of each queue is worked on once, whether the client waits for `cancel-ok` or not.
fn each_id_is_worked_on_once(site: &Site, kind: &str) {
    let arguments = [("x-queue-type", AMQPValue::LongString(kind.into()))];
    for (nowait, queues) in [(false, ["jobs-1", "jobs-2"]), (true, ["jobs-3", "jobs-4"])] {
        queues.iter().for_each(|queue| fill(site, queue, &arguments, IDS, 2));
        let (done, switches) = works_on_both(site, queues, nowait);
        let wrong: Vec<_> = done.iter().filter(|(_, times)| **times != 1).collect();
        assert!(wrong.is_empty(), "{queues:?}, worked on more than once: {wrong:?}");
        assert!(switches > 5, "{queues:?}: {switches}");
    }
}

#[test]
fn a_tag_is_used_again_at_once_and_no_id_is_lost() {
    let Some(site) = Site::of_relay("guard-tags", super::GUARD) else { return };
    each_id_is_worked_on_once(&site, "classic");
}

/// A quorum queue knows an unacked message by the consumer's tag, its channel and a number.
#[test]
fn a_tag_is_used_again_at_once_at_quorum_queues() {
    let Some(site) = Site::of_relay("guard-tags-quorum", super::GUARD) else { return };
    each_id_is_worked_on_once(&site, "quorum");
}

/// The broker cancels the consumer of a queue that is deleted. The client declares the queue again, and takes its tag for it at once.
#[test]
fn the_broker_cancels_a_consumer_and_its_tag_is_used_again() {
    let Some(site) = Site::of_relay("guard-cancelled", super::GUARD) else { return };
    fill(&site, "jobs", &[], 10, 2);
    let mut client = super::consumer(&site, "jobs", 4);
    let mut other = site.direct();
    other.open_channel(1);
    for n in 0..5 {
        let (tag, id) = super::delivered(&mut client).unwrap();
        assert_eq!(id, n.to_string());
        client.send(1, &ack(tag));
    }
    let delete = AMQPClass::Queue(queue::AMQPMethod::Delete(queue::Delete {
        queue: "jobs".into(),
        if_unused: false,
        if_empty: false,
        nowait: false,
    }));
    other.call(1, &delete).unwrap();
    let is_cancel = |told: &Told| {
        let method = AMQPClass::Basic(basic::AMQPMethod::Cancel(basic::Cancel {
            consumer_tag: "c".into(),
            nowait: true,
        }));
        *told == Told::Method(method)
    };
    wait::until("the broker cancels the consumer", PATIENCE, || is_cancel(&client.next(1)).then_some(()));
    // The guard knows what was acked before. Everything else is shown.
    client.send(
        1,
        &AMQPClass::Basic(basic::AMQPMethod::Nack(basic::Nack {
            delivery_tag: 0,
            multiple: true,
            requeue: true,
        })),
    );
    fill(&site, "jobs", &[], 10, 2);
    client.send(1, &consume("jobs", false));
    for n in 5..10 {
        let (tag, id) = super::delivered(&mut client).unwrap();
        assert_eq!(id, n.to_string());
        client.send(1, &ack(tag));
    }
    wait::until("the queue is empty", PATIENCE, || (left(&site, "jobs") == 0).then_some(()));
}

/// Nothing tells the deliveries of two consumers apart if the client wants no answer at all. None is lost.
#[test]
fn without_any_answer_no_id_is_lost_either() {
    let Some(site) = Site::of_relay("guard-tags-nowait", super::GUARD) else { return };
    let queues = ["jobs-1", "jobs-2"];
    queues.iter().for_each(|queue| fill(&site, queue, &[], IDS, 2));
    let mut client: Raw = site.client();
    client.open_channel(1);
    let qos = basic::Qos { prefetch_count: PREFETCH, global: false };
    client.call(1, &AMQPClass::Basic(basic::AMQPMethod::Qos(qos))).unwrap();
    client.send(1, &consume(queues[0], true));
    client.socket().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut done: BTreeMap<(String, String), u32> = BTreeMap::new();
    for switches in 1_usize.. {
        let mut is_idle = false;
        for _ in 0..5 {
            match client.receive() {
                Ok(Some((_, Told::Delivered { tag, message }))) => {
                    let id = String::from_utf8_lossy(message.id().unwrap()).into_owned();
                    *done.entry((message.key, id)).or_default() += 1;
                    client.send(1, &ack(tag));
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => is_idle = true,
            }
        }
        if is_idle && queues.iter().all(|queue| left(&site, queue) == 0) {
            break;
        }
        assert!(switches < 1_000, "it comes to no end");
        client.send(1, &cancel(true));
        client.send(1, &consume(queues[switches % 2], true));
    }
    assert_eq!(done.len(), 2 * IDS, "an id is lost");
    assert!(done.values().all(|times| *times <= 2));
}
