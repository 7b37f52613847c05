//! `store = "redis"`: relays that share a Redis, in front of one RabbitMQ.

mod faults;
mod history;
mod linear;
mod numbers;
pub(crate) mod server;
mod story;
mod strangers;

use crate::e2e::kills::{Lane, Outcome, Plan, killed_again_and_again};
use crate::e2e::load::numbered;
use crate::e2e::publisher::restarted_one_after_the_other;
use crate::e2e::raw::{Raw, Told};
use crate::e2e::relay::Relay;
use crate::e2e::retry;
use crate::e2e::site;
use crate::e2e::wait::{self, now};
use server::Server;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// A configuration: the lines of `[store.redis]`, and those of the window.
fn config(server: &Server, redis: &str, window: &str) -> String {
    format!(
        "digest_secret_file = \"{}\"\n[timeouts]\nstore = \"500ms\"\n[store.redis]\nlease = \"1s\"\n{redis}\n[[window]]\nname = \"orders\"\nstore = \"redis\"\n{window}\n",
        server.secret().display()
    )
}

/// Nobody is judged by the memory alone, however busy the machine is.
const REFUSE: &str = "on_outage = \"refuse\"";

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
        retry::held(&mut direct, "q")
    }

    /// Publishes these by one relay, all at once, until each is acked. A nack is published again.
    fn publish(&self, relay: usize, ids: &[String]) {
        self.publish_at(self.relays[relay].addr(), ids);
    }

    fn publish_at(&self, relay: SocketAddr, ids: &[String]) {
        let acked = publish(relay, &self.vhost, ids, PATIENCE);
        assert_eq!(acked.len(), ids.len(), "not all are acked");
    }
}

/// Publishes these, and returns those that were acked before the connection or the time was over.
fn publish(addr: SocketAddr, vhost: &str, ids: &[String], patience: Duration) -> BTreeSet<String> {
    let mut acked = BTreeSet::new();
    let end = now() + patience;
    let mut publish = || -> std::io::Result<()> {
        let mut raw = retry::login(addr, vhost)?;
        let mut todo: Vec<String> = ids.to_vec();
        let (mut last, mut under_way) = (0, BTreeMap::new());
        while acked.len() < ids.len() && now() < end {
            let mut octets = Vec::new();
            for id in todo.drain(..) {
                last += 1;
                octets.extend(numbered("q", &id, raw.frame_max()));
                under_way.insert(last, id);
            }
            raw.write(&octets)?;
            let told = match raw.receive()? {
                // connection.blocked, or unblocked
                Some((0, Told::Method(_))) => continue,
                Some((1, told)) => told,
                _ => return Ok(()),
            };
            let (tag, multiple, is_ack) = match told {
                Told::Ack { tag, multiple } => (tag, multiple, true),
                Told::Nack { tag, multiple } => (tag, multiple, false),
                _ => return Ok(()),
            };
            for id in retry::settled(&mut under_way, tag, multiple) {
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
    each_passes_once("redis-two", "", 1_000);
}

/// Two relays get so many publishes, twice each. Each message passes once, also after both relays were killed. Returns the Redis and the relays.
fn each_passes_once(test: &str, window: &str, count: usize) -> Option<(Server, Stage)> {
    let redis = Server::start();
    let mut stage = Stage::new(test, 2, &config(&redis, &redis.url(), window))?;
    let ids = ids("a", count);
    thread::scope(|scope| {
        for relay in [0, 1, 0, 1] {
            let (stage, ids) = (&stage, &ids);
            scope.spawn(move || stage.publish(relay, ids));
        }
    });
    assert_each_once(&stage.queue(), &ids);
    // When they come back, both know what was stored.
    stage.relays.iter_mut().for_each(Relay::restart);
    stage.publish(0, &ids);
    stage.publish(1, &ids);
    assert_eq!(stage.queue().len(), 0);
    Some((redis, stage))
}

/// How many relays are killed at a time. A round waits for the leases of the killed relay, a second each time.
const LANES: usize = 12;

/// Relays that share a Redis, killed so often altogether. Another relay judges the retries until the killed one is back.
fn killed(test: &str, plan: Plan, window: &str) -> Option<Outcome> {
    let redis = Server::start();
    let config = config(&redis, &redis.url(), window);
    let stage = Stage::new(&format!("redis-{test}"), 1, &config)?;
    let lanes = (0..LANES).map(|n| Lane::new(format!("redis-{test}-{n}"), &config)).collect();
    Some(killed_again_and_again(lanes, Plan { other: Some(stage.relays[0].addr()), ..plan }))
}

#[test]
fn what_was_acked_never_passes_again_whenever_a_relay_is_killed() {
    if let Some(outcome) = killed("sync", Plan { kills: retry::kills(200), acks: 150, other: None }, REFUSE) {
        outcome.assert_nothing_is_forgotten();
    }
}

/// With `async` a kill forgets what was acked within the last `remember_delay`, and no more.
#[test]
fn with_async_a_kill_forgets_what_the_delay_allows() {
    let window = "remember = \"async\"\nremember_delay = \"250ms\"";
    if let Some(outcome) = killed("async", Plan { kills: retry::kills(20), acks: 3_000, other: None }, window)
    {
        outcome.assert_forgotten_within(Duration::from_millis(250));
    }
}

/// The window's memory holds ten ids, so Redis is asked about the others. Their records wait for a question, or for a while.
#[test]
fn with_async_no_question_overtakes_the_record_of_its_id() {
    let redis = Server::start();
    let window = "capacity = 10\nremember = \"async\"\nremember_delay = \"60s\"\non_outage = \"refuse\"";
    let Some(stage) = Stage::new("redis-overtaken", 1, &config(&redis, &redis.url(), window)) else { return };
    let ids = ids("a", 5_000);
    for ids in [&ids[..1], &ids[..20], &ids] {
        stage.publish(0, ids);
        stage.publish(0, ids);
    }
    assert_each_once(&stage.queue(), &ids);
}

/// Nothing is lost, nothing is doubled, and a restart costs a publisher one reconnect at most.
#[test]
fn two_relays_are_restarted_one_after_the_other_under_load() {
    let redis = Server::start();
    let Some(mut stage) = Stage::new("redis-rolling", 2, &config(&redis, &redis.url(), REFUSE)) else {
        return;
    };
    let mut relays: [Relay; 2] = [stage.relays.remove(0), stage.relays.remove(0)];
    restarted_one_after_the_other(&mut relays, &stage.vhost, || stage.queue());
}

/// Everything that a window says of itself.
fn facts(relay: &Relay) -> serde_json::Value {
    relay.api("GET", "/api/v1/windows/orders", "")["store"].clone()
}

fn is_down(relay: &Relay) -> bool {
    facts(relay)["up"] == false
}

#[test]
fn redis_is_killed_and_sentinel_names_another_server() {
    let mut master = Server::start();
    let replica = Server::with(&["--save", "", "--replicaof", "127.0.0.1", &master.port.to_string()]);
    wait::until("the replica is in step", PATIENCE, || {
        replica.cli(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
    });
    let sentinel = Server::sentinel(&master);
    wait::until("the sentinel knows the replica", PATIENCE, || {
        sentinel.cli(&["SENTINEL", "MASTER", "mymaster"]).contains("num-slaves\n1").then_some(())
    });
    let redis = format!("url = \"redis://127.0.0.1:{}\"\nmode = \"sentinel\"\nreplicas = 1", sentinel.port);
    // No id passes twice, whatever happens.
    let Some(stage) = Stage::new("redis-sentinel", 2, &config(&master, &redis, REFUSE)) else {
        return;
    };
    let before = ids("before", 300);
    stage.publish(0, &before);
    // Without a replica, `replicas = 1` can't hold after the failover.
    let after = ids("after", 300);
    thread::scope(|scope| {
        let (stage, after) = (&stage, &after);
        let publisher = scope.spawn(move || publish(stage.relays[1].addr(), &stage.vhost, after, PATIENCE));
        master.kill9();
        wait::until("the replica is the master", PATIENCE, || {
            replica.cli(&["ROLE"]).starts_with("master").then_some(())
        });
        let second = Server::with(&["--save", "", "--replicaof", "127.0.0.1", &replica.port.to_string()]);
        assert_eq!(publisher.join().unwrap().len(), 300, "not all are acked");
        drop(second);
    });
    // `before` was in the replica before its clients were acked.
    let again = publish(stage.relays[1].addr(), &stage.vhost, &before, Duration::from_secs(3));
    println!("{} of 300 are acked again", again.len());
    let all: Vec<String> = before.into_iter().chain(after).collect();
    assert_each_once(&stage.queue(), &all);
}

#[test]
fn a_silent_redis_stops_nobody_with_continue_and_everybody_with_refuse() {
    let redis = Server::start();
    for (vhost, on_outage) in [("redis-continue", "continue"), ("redis-refuse", "refuse")] {
        let window = format!("on_outage = \"{on_outage}\"");
        let Some(stage) = Stage::new(vhost, 2, &config(&redis, &redis.url(), &window)) else { return };
        let before = ids(&format!("{on_outage}-before"), 50);
        stage.publish(0, &before);
        redis.stand_still();
        let during = ids(&format!("{on_outage}-during"), 50);
        if on_outage == "continue" {
            stage.publish(0, &during);
            stage.publish(0, &during);
            assert!(is_down(&stage.relays[0]));
            assert!(facts(&stage.relays[0])["unremembered"].as_u64().unwrap() >= 50);
            redis.carry_on();
        } else {
            let none = publish(stage.relays[0].addr(), &stage.vhost, &during, Duration::from_secs(2));
            assert_eq!(none.len(), 0, "acked without Redis");
            redis.carry_on();
            stage.publish(0, &during);
        }
        wait::until("the relay has Redis again", PATIENCE, || (!is_down(&stage.relays[0])).then_some(()));
        wait::until("everything is written", PATIENCE, || {
            (facts(&stage.relays[0])["waiting_records"].as_u64() == Some(0)).then_some(())
        });
        // The other one knows all of it.
        stage.publish(1, &before);
        stage.publish(1, &during);
        assert_each_once(&stage.queue(), &[before, during].concat());
    }
}

#[test]
fn a_cluster_of_three_holds_the_ids() {
    let mut servers = Server::cluster(0);
    servers.iter().for_each(|server| server.add_user(&["+cluster|slots"]));
    let redis = format!("url = \"redis://hapax:PASSWORD@127.0.0.1:{}\"\nmode = \"cluster\"", servers[0].port);
    let Some(mut stage) = Stage::new("redis-cluster", 2, &config(&servers[0], &redis, "")) else { return };
    let ids = ids("c", 500);
    thread::scope(|scope| {
        for relay in [0, 1] {
            let (stage, ids) = (&stage, &ids);
            scope.spawn(move || stage.publish(relay, ids));
        }
    });
    assert_each_once(&stage.queue(), &ids);
    for server in &servers {
        let keys: usize = server.cli(&["DBSIZE"]).parse().unwrap();
        assert!(keys > 50, "{keys} of 500 ids");
    }
    stage.relays[0].restart();
    stage.publish(0, &ids);
    assert_eq!(stage.queue().len(), 0);
    servers.pop();
}

#[test]
fn tls_and_a_user_with_few_rights() {
    let mut redis = Server::tls();
    redis.add_user(&[]);
    let url = format!(
        "url = \"rediss://hapax:PASSWORD@localhost:{}\"\nca_file = \"{}\"",
        redis.port,
        redis.folder().join("ca.pem").display()
    );
    let Some(mut stage) = Stage::new("redis-tls", 2, &config(&redis, &url, "")) else { return };
    let ids = ids("t", 100);
    stage.publish(0, &ids);
    stage.publish(1, &ids);
    stage.relays[0].restart();
    stage.publish(0, &ids);
    assert_each_once(&stage.queue(), &ids);
    assert!(
        facts(&stage.relays[0])["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0),
        "{}",
        facts(&stage.relays[0])
    );
    redis.kill9();
}

/// What is forgotten, flushed and changed at one relay is so at the other, too, without a restart.
#[test]
fn an_operator_at_one_relay_reaches_the_other() {
    let redis = Server::start();
    let Some(stage) = Stage::new("redis-live", 2, &config(&redis, &redis.url(), "")) else { return };
    let ids = ids("l", 20);
    stage.publish(0, &ids);
    stage.publish(1, &ids);
    assert_each_once(&stage.queue(), &ids);
    stage.relays[0].api("POST", "/api/v1/windows/orders/flush", "");
    wait::until("the flush is known there", PATIENCE, || {
        let entries = stage.relays[1].api("GET", "/api/v1/windows/orders", "")["entries"].clone();
        (entries.as_u64() == Some(0)).then_some(())
    });
    stage.publish(1, &ids);
    stage.publish(0, &ids);
    assert_each_once(&stage.queue(), &ids);
}
