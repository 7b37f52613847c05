//! `store = "redis"`: relays that share a Redis, in front of one RabbitMQ.

mod server;

use crate::e2e::raw::{Login, Publish, Raw, Told};
use crate::e2e::relay::Relay;
use crate::e2e::site;
use server::Server;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// How often something is repeated: `make chaos` sets more.
fn times(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A configuration: the lines of `[store.redis]`, and those of the window.
fn config(server: &Server, redis: &str, window: &str) -> String {
    format!(
        "digest_secret_file = \"{}\"\n[timeouts]\nstore = \"500ms\"\n[store.redis]\nlease = \"1s\"\n{redis}\n[[window]]\nname = \"orders\"\nstore = \"redis\"\n{window}\n",
        server.secret().display()
    )
}

/// A vhost with a queue `q`, and relays in front of it.
struct Stage {
    vhost: String,
    relays: Vec<Relay>,
}

impl Stage {
    fn new(vhost: &str, relays: usize, config: &str) -> Option<Stage> {
        if site::without_relay() {
            println!("passed over: this is about relays");
            return None;
        }
        let rabbit = site::shared_rabbit();
        rabbit.add_vhost(vhost).unwrap();
        let vhost = vhost.to_owned();
        let mut direct = Raw::connect(rabbit.addr(), &vhost);
        direct.open_channel(1);
        direct.declare(1, "q", &[]);
        let relays = (0..relays).map(|_| Relay::start(rabbit.addr(), config)).collect();
        Some(Stage { vhost, relays })
    }

    /// How often each id is in the queue.
    fn queue(&self) -> BTreeMap<String, usize> {
        let mut direct = Raw::connect(site::shared_rabbit().addr(), &self.vhost);
        direct.open_channel(1);
        let mut held = BTreeMap::new();
        for id in direct.drain(1, "q") {
            *held.entry(id).or_default() += 1;
        }
        held
    }

    /// Publishes these by one relay, all at once, until each is acked. A nack is published again.
    fn publish(&self, relay: usize, ids: &[String]) {
        let acked = publish(self.relays[relay].addr(), &self.vhost, ids, PATIENCE);
        assert_eq!(acked.len(), ids.len(), "not all are acked");
    }
}

/// Publishes these, and returns those that were acked before the connection or the time was over.
fn publish(addr: SocketAddr, vhost: &str, ids: &[String], patience: Duration) -> BTreeSet<String> {
    let mut acked = BTreeSet::new();
    let end = Instant::now() + patience;
    let mut publish = || -> std::io::Result<()> {
        let mut raw = Raw::login(addr, &Login::guest(vhost))?;
        raw.confirming(1);
        let mut todo: Vec<String> = ids.to_vec();
        let (mut last, mut under_way) = (0, BTreeMap::new());
        while acked.len() < ids.len() && Instant::now() < end {
            let mut octets = Vec::new();
            for id in todo.drain(..) {
                last += 1;
                octets.extend(Publish::to("q", &id).encode(1, raw.frame_max()));
                under_way.insert(last, id);
            }
            raw.write(&octets)?;
            let Some((1, told)) = raw.receive()? else { return Ok(()) };
            let (tag, multiple, is_ack) = match told {
                Told::Ack { tag, multiple } => (tag, multiple, true),
                Told::Nack { tag, multiple } => (tag, multiple, false),
                _ => return Ok(()),
            };
            let first = if multiple { 0 } else { tag };
            let tags: Vec<u64> = under_way.range(first..=tag).map(|(tag, _)| *tag).collect();
            for id in tags.iter().filter_map(|tag| under_way.remove(tag)) {
                match is_ack {
                    true => drop(acked.insert(id)),
                    false => todo.push(id),
                }
            }
        }
        Ok(())
    };
    let _ = publish();
    acked
}

fn ids(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}-{n}")).collect()
}

fn assert_each_once(queue: &BTreeMap<String, usize>, ids: &[String]) {
    for id in ids {
        assert_eq!(queue.get(id), Some(&1), "{id}");
    }
    assert_eq!(queue.len(), ids.len(), "others are there, too");
}

#[test]
fn two_relays_let_each_id_through_once() {
    let redis = Server::start();
    let Some(mut stage) = Stage::new("redis-two", 2, &config(&redis, &redis.url(), "")) else {
        return;
    };
    let ids = ids("a", 1_000);
    thread::scope(|scope| {
        for relay in [0, 1, 0, 1] {
            let (stage, ids) = (&stage, &ids);
            scope.spawn(move || stage.publish(relay, ids));
        }
    });
    assert_each_once(&stage.queue(), &ids);
    // Both are killed. What was stored is known to them when they come back.
    stage.relays.iter_mut().for_each(Relay::restart);
    stage.publish(0, &ids);
    stage.publish(1, &ids);
    assert_eq!(stage.queue().len(), 0);
}

#[test]
fn what_was_acked_never_passes_again_whenever_a_relay_is_killed() {
    let redis = Server::start();
    let window = "remember = \"sync\"";
    let Some(mut stage) = Stage::new("redis-kill", 2, &config(&redis, &redis.url(), window)) else {
        return;
    };
    let mut all = BTreeMap::new();
    for round in 0..times("HAPAX_KILLS", 5) {
        let ids = ids(&format!("k{round}"), 300);
        let (addr, vhost) = (stage.relays[0].addr(), stage.vhost.clone());
        let published = {
            let ids = ids.clone();
            thread::spawn(move || publish(addr, &vhost, &ids, PATIENCE))
        };
        // Somewhere in the first milliseconds, at another place each time.
        thread::park_timeout(Duration::from_micros(500 + (round as u64 * 7_919) % 25_000));
        stage.relays[0].kill9();
        let acked = published.join().unwrap();
        let by_other = publish(stage.relays[1].addr(), &stage.vhost, &ids, PATIENCE);
        assert_eq!(by_other.len(), ids.len(), "a retry is not acked");
        stage.relays[0].restart();
        stage.publish(0, &ids);
        println!("round {round}: {} were acked before the kill", acked.len());
        all.extend(ids.into_iter().map(|id| (id.clone(), acked.contains(&id))));
    }
    let queue = stage.queue();
    for (id, was_acked) in &all {
        let copies = queue.get(id).copied().unwrap_or_default();
        assert!(copies > 0, "{id} is lost");
        assert!(copies == 1 || !was_acked, "{id} was acked and is there {copies} times");
        assert!(copies <= 2, "{id} is there {copies} times");
    }
}
