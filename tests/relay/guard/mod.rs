//! The guard of consumers in front of a real RabbitMQ: consumers that die, queues with two copies of each message, and a process that is
//! killed.

mod effects;
mod storm;
mod tags;

use super::clients;
use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::site::Site;
use crate::e2e::wait::{self, PATIENCE};
use amq_protocol::protocol::{AMQPClass, basic};
use amq_protocol::types::AMQPValue;
use hapax_testbed::Leash;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const GUARD: &str =
    "window = []\n[[guard]]\nname = \"workers\"\nqueue = \"jobs*\"\nttl = \"1h\"\ncapacity = 10000\n";
const IDS: usize = 120;

fn ack(tag: u64) -> AMQPClass {
    AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag: tag, multiple: false }))
}

/// A consumer with this prefetch.
fn consume(client: &mut Raw, queue: &str, prefetch: u16) {
    let qos = basic::Qos { prefetch_count: prefetch, global: false };
    client.call(1, &AMQPClass::Basic(basic::AMQPMethod::Qos(qos))).unwrap();
    let consume = basic::Consume { queue: queue.into(), consumer_tag: "c".into(), ..Default::default() };
    client.call(1, &AMQPClass::Basic(basic::AMQPMethod::Consume(consume))).unwrap();
}

fn consumer(site: &Site, queue: &str, prefetch: u16) -> Raw {
    let mut client = site.client();
    client.open_channel(1);
    consume(&mut client, queue, prefetch);
    client
}

/// The next delivery: its tag and its id. `None`: nothing comes.
fn delivered(client: &mut Raw) -> Option<(u64, String)> {
    loop {
        match client.receive() {
            Ok(Some((_, Told::Delivered { tag, message }))) => {
                let id = String::from_utf8_lossy(message.id().unwrap()).into_owned();
                return Some((tag, id));
            }
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return None;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Fills a queue with copies of each id, past Hapax. Waits for all confirms: a quorum queue drops what it has not confirmed when the
/// publisher leaves.
fn fill(site: &Site, queue: &str, arguments: &[(&str, AMQPValue)], ids: usize, copies: usize) {
    let mut client = site.direct();
    client.confirming(1);
    client.declare(1, queue, arguments);
    for n in 0..copies * ids {
        let id = (n % ids).to_string();
        client.publish(1, &Publish { persistent: true, ..Publish::to(queue, &id) });
    }
    let mut open: BTreeSet<u64> = (1..=(copies * ids) as u64).collect();
    while !open.is_empty() {
        match client.next(1) {
            Told::Ack { tag, multiple: false } => _ = open.remove(&tag),
            Told::Ack { tag, multiple: true } => open.retain(|own| *own > tag),
            told => panic!("{told:?}"),
        }
    }
}

/// How many messages are in a queue, those included that nobody has acked. (What RabbitMQ tells of a quorum queue may be five seconds old,
/// so its state is asked.)
fn left(site: &Site, name: &str) -> usize {
    let queue = format!("rabbit_misc:r(<<\"{}\">>, queue, <<\"{name}\">>)", site.vhost);
    let messages = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup({queue}), \
         case amqqueue:get_type(Q) of \
             rabbit_quorum_queue -> \
                 {{ok, {{_, State}}, _}} = ra:local_query(amqqueue:get_pid(Q), fun rabbit_fifo:overview/1), \
                 maps:get(num_messages, State); \
             _ -> [{{messages, N}}] = rabbit_amqqueue:info(Q, [messages]), N \
         end."
    );
    site.rabbit.eval(&messages).unwrap().parse().unwrap()
}

/// A consumer that is killed before its work has done nothing, and one that is killed after its ack has done it. Both copies of each
/// message are in the queue all the time.
#[test]
fn two_copies_of_each_id_take_effect_once_while_consumers_die() {
    let Some(site) = Site::of_relay("guard-copies", GUARD) else { return };
    fill(&site, "jobs", &[], IDS, 2);
    let effects: Mutex<BTreeMap<String, u32>> = Mutex::default();
    let (seen, deaths) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = consumer(&site, "jobs", 5);
                client.socket().set_read_timeout(Some(Duration::from_millis(400))).unwrap();
                while let Some((tag, id)) = delivered(&mut client) {
                    let n = seen.fetch_add(1, SeqCst);
                    if n % 10 != 7 {
                        *effects.lock().unwrap().entry(id).or_default() += 1;
                        client.send(1, &ack(tag));
                    }
                    if n % 10 == 7 || n % 10 == 4 {
                        deaths.fetch_add(1, SeqCst);
                        // No good-bye.
                        client = consumer(&site, "jobs", 5);
                        client.socket().set_read_timeout(Some(Duration::from_millis(400))).unwrap();
                    }
                }
            });
        }
    });
    let effects = effects.into_inner().unwrap();
    let twice: Vec<_> = effects.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty() && effects.len() == IDS, "{} ids, more than once: {twice:?}", effects.len());
    assert!(deaths.load(SeqCst) > 10);
    wait::until("the queue is empty", PATIENCE, || (left(&site, "jobs") == 0).then_some(()));
    let metrics = site.metrics();
    assert!(metrics.sum("guard_deliveries_total", &[("verdict", "hidden")]) >= IDS as f64);
    assert_eq!(metrics.sum("commits_total", &[("window", "workers")]), IDS as f64);
    assert_eq!(metrics.sum("in_flight", &[("window", "workers")]), 0.0);
    let window = site.relay().api("GET", "/api/v1/windows/workers", "");
    assert_eq!((&window["judges"], &window["queue"]), (&"deliveries".into(), &"jobs*".into()));
    let found = site.relay().api("GET", "/api/v1/windows/workers/ids/7?queue=jobs&vhost=guard-copies", "");
    assert_eq!(found["state"], "seen");
}

/// What is hidden is no failed delivery, and a single active consumer with a prefetch of one goes on behind it.
#[test]
fn a_quorum_queue_with_a_delivery_limit_and_one_active_consumer() {
    let Some(site) = Site::of_relay("guard-quorum", GUARD) else { return };
    let text = |text: &str| AMQPValue::LongString(text.into());
    let arguments = [
        ("x-queue-type", text("quorum")),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
        ("x-delivery-limit", AMQPValue::LongInt(1)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ];
    fill(&site, "dead", &[], 0, 0);
    fill(&site, "jobs-q", &arguments, 20, 3);
    let mut client = consumer(&site, "jobs-q", 1);
    let mut standby = consumer(&site, "jobs-q", 1);
    for n in 0..20 {
        let (tag, id) = delivered(&mut client).unwrap();
        assert_eq!((tag, id), (n + 1, n.to_string()));
        client.send(1, &ack(tag));
    }
    wait::until("the queue is empty", PATIENCE, || (left(&site, "jobs-q") == 0).then_some(()));
    standby.socket().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(delivered(&mut standby), None);
    assert_eq!(left(&site, "dead"), 0);
}

/// `basic.get` finds each id once, and an unknown tag is what RabbitMQ says of it.
#[test]
fn gets_and_unknown_tags() {
    let Some(site) = Site::of_relay("guard-gets", GUARD) else { return };
    fill(&site, "jobs", &[], 10, 3);
    let mut client = site.client();
    client.open_channel(1);
    let expected: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(client.drain(1, "jobs"), expected);
    wait::until("the queue is empty", PATIENCE, || (left(&site, "jobs") == 0).then_some(()));
    let said = |site: &Site, direct: bool| {
        let mut client = if direct { site.direct() } else { site.client() };
        client.open_channel(1);
        consume(&mut client, "jobs", 5);
        client.send(1, &ack(3));
        client.next(1)
    };
    assert_eq!(said(&site, false), said(&site, true));
}

/// What a consumer has acked is hidden after the process was killed, if the guard has a log.
#[test]
fn an_ack_outlives_the_process() {
    let leash = Leash::new("guard").unwrap();
    let state = leash.folder().join("state");
    let config = format!("state_dir = \"{}\"\n{GUARD}store = \"disk\"\n", state.display());
    let Some(mut site) = Site::of_relay("guard-disk", &config) else { return };
    fill(&site, "jobs", &[], 1, 1);
    let mut client = consumer(&site, "jobs", 1);
    let (tag, _) = delivered(&mut client).unwrap();
    client.send(1, &ack(tag));
    // The broker hears of the ack when the log has the id.
    wait::until("the ack has reached the broker", PATIENCE, || (left(&site, "jobs") == 0).then_some(()));
    site.relay_mut().kill9();
    fill(&site, "jobs", &[], 1, 1);
    site.relay_mut().restart();
    let mut client = consumer(&site, "jobs", 1);
    wait::until("the copy is hidden", PATIENCE, || (left(&site, "jobs") == 0).then_some(()));
    client.socket().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(delivered(&mut client), None);
}

/// `release = "consumed"`: a job may be queued again when a consumer has acked it, and not before; also after the process was killed
/// meanwhile, if the window has a log.
#[test]
fn a_job_is_unique_until_a_consumer_has_acked_it() {
    let leash = Leash::new("release").unwrap();
    let config = format!(
        "state_dir = \"{}\"\n[[window]]\nname = \"jobs\"\nttl = \"1h\"\ncapacity = 1000\nstore = \"disk\"\nremember = \"sync\"\nrelease = \"consumed\"\n",
        leash.folder().join("state").display()
    );
    let Some(mut site) = Site::of_relay("release", &config) else { return };
    let queue = |site: &Site| {
        let mut client = site.client();
        client.confirming(1);
        client.declare(1, "jobs", &[]);
        client.publish_and_settle(1, &Publish { persistent: true, ..Publish::to("jobs", "a") });
        left(site, "jobs")
    };
    assert_eq!((queue(&site), queue(&site)), (1, 1), "it is queued already");
    let mut worker = consumer(&site, "jobs", 1);
    let (tag, _) = delivered(&mut worker).unwrap();
    assert_eq!(queue(&site), 1, "it is being worked on");
    worker.send(1, &ack(tag));
    wait::until("the job is done", PATIENCE, || (left(&site, "jobs") == 0).then_some(()));
    wait::until("its id is forgotten", PATIENCE, || {
        let metrics = site.metrics();
        (metrics.sum("evictions_total", &[("cause", "consumed")]) == 1.0).then_some(())
    });
    // The log may be a moment behind what nobody waits for.
    wait::until("the log has it", PATIENCE, || {
        (site.metrics().sum("store_waiting_records", &[]) == 0.0).then_some(())
    });
    drop(worker);
    site.relay_mut().kill9();
    site.relay_mut().restart();
    assert_eq!((queue(&site), queue(&site)), (1, 1), "it may be queued again, once");
}

/// A consumer in Python that writes to SQLite and acks, and is killed between the two.
#[test]
fn pika_writes_to_sqlite() {
    let Some(site) = Site::of_relay("guard-pika", GUARD) else { return };
    let addr = site.addr();
    clients::run_at(clients::pika(), &["guard"], &site, (&addr.ip().to_string(), addr.port()));
}
