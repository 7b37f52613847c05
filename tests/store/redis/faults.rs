//! Redis itself loses ids, or has values that no relay wrote. The tests count the retries that pass.

use super::server::Server;
use super::{PATIENCE, REFUSE, Stage, assert_each_once, config, ids};
use crate::e2e::cut::Cut;
use crate::e2e::relay::Relay;
use crate::e2e::site::{shared_rabbit, without_relay};
use crate::e2e::wait;
use std::net::SocketAddr;

/// Evicted ids pass, unless the memory of the relay has them.
#[test]
fn evictions_of_redis_are_seen_and_cost_what_the_memory_does_not_have() {
    let redis = Server::with(&["--save", "", "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru"]);
    let Some(mut stage) = Stage::new("redis-evicts", 1, &config(&redis, &redis.url(), REFUSE)) else {
        return;
    };
    let all: Vec<Vec<String>> = (0..10).map(|round| ids(&format!("e{round}"), 2_000)).collect();
    all.iter().for_each(|ids| stage.publish(0, ids));
    wait::until("evictions show", PATIENCE, || {
        let metrics = stage.relays[0].metrics();
        (metrics.sum("store_evicted_keys_total", &[]) > 0.0).then_some(())
    });
    let metrics = stage.relays[0].metrics();
    assert_eq!(metrics.sum("store_memory_max_bytes", &[]), 3.0 * 1024.0 * 1024.0);
    stage.publish(0, &all[0]);
    assert_each_once(&stage.queue(), &all.concat());
    // Another process has nothing but Redis.
    stage.relays[0].restart();
    stage.publish(0, &all[0]);
    let passed = stage.queue().len();
    println!("{passed} of 2000 passed");
    assert!(passed > 0, "none of the oldest was evicted");
}

/// A value that was changed counts as absent: that id passes, and no other. It is counted.
#[test]
fn a_value_that_was_changed_costs_its_id() {
    let redis = Server::start();
    let Some(stage) = Stage::new("redis-damage", 2, &config(&redis, &redis.url(), REFUSE)) else { return };
    let all = ids("d", 50);
    stage.publish(0, &all);
    assert_each_once(&stage.queue(), &all);
    // One octet of three values, and a text that is no value at all in place of a fourth one. They live on.
    let script = "local n = 0 \
        for _, key in ipairs(redis.call('KEYS', 'hapax:orders:*')) do \
          if n < 3 then \
            local value = redis.call('GETRANGE', key, 9, 9) \
            redis.call('SETRANGE', key, 9, string.char((string.byte(value) + 1) % 256)) \
          elseif n == 3 then redis.call('SET', key, 'hello', 'KEEPTTL') end \
          n = n + 1 \
        end \
        return n";
    assert_eq!(redis.cli(&["EVAL", script, "0"]), "50");
    stage.publish(1, &all);
    assert_eq!(stage.queue().len(), 4);
    assert_eq!(stage.relays[1].metrics().sum("store_damaged_total", &[]), 4.0);
    // They are whole again.
    stage.publish(0, &all);
    stage.publish(1, &all);
    assert_eq!(stage.queue().len(), 0);
}

/// Without `replicas`, a failover forgets what the replica had not got. Another relay lets it through; the one that has it in memory does not.
#[test]
fn a_failover_forgets_what_was_not_replicated() {
    let mut master = Server::start();
    let link = Cut::forward(SocketAddr::from(([127, 0, 0, 1], master.port)));
    let replica = Server::with(&["--save", "", "--replicaof", "127.0.0.1", &link.addr().port().to_string()]);
    wait::until("the replica is in step", PATIENCE, || {
        replica.cli(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
    });
    let redis = |port| format!("url = \"redis://127.0.0.1:{port}\"");
    let Some(stage) = Stage::new("redis-unreplicated", 1, &config(&master, &redis(master.port), REFUSE))
    else {
        return;
    };
    let (before, after) = (ids("before", 50), ids("after", 50));
    stage.publish(0, &before);
    let size = |server: &Server| server.cli(&["DBSIZE"]);
    wait::until("they are replicated", PATIENCE, || (size(&replica) == size(&master)).then_some(()));
    link.shut();
    stage.publish(0, &after);
    stage.publish(0, &after);
    master.kill9();
    assert_eq!(replica.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    let other = Relay::start(shared_rabbit().addr(), &config(&master, &redis(replica.port), REFUSE));
    stage.publish_at(other.addr(), &before);
    assert_each_once(&stage.queue(), &[before, after.clone()].concat());
    stage.publish_at(other.addr(), &after);
    assert_each_once(&stage.queue(), &after);
}

/// A node of the cluster dies, and its replica takes over. Publishers wait meanwhile (`refuse`), and no id passes twice.
#[test]
fn a_node_of_a_cluster_dies_and_its_replica_takes_over() {
    let mut servers = Server::cluster(1);
    let redis = format!("url = \"redis://127.0.0.1:{}\"\nmode = \"cluster\"", servers[1].port);
    let config = config(&servers[1], &redis, REFUSE);
    let Some(mut stage) = Stage::new("redis-cluster-failover", 2, &config) else { return };
    let (before, after) = (ids("before", 200), ids("after", 200));
    stage.publish(0, &before);
    let size = |server: &Server| server.cli(&["DBSIZE"]);
    wait::until("they are replicated", PATIENCE, || (size(&servers[3]) == size(&servers[0])).then_some(()));
    assert_ne!(size(&servers[3]), "0");
    servers[0].kill9();
    stage.publish(0, &after);
    assert!(servers[3].cli(&["ROLE"]).starts_with("master"));
    for relay in [1, 0] {
        stage.publish(relay, &before);
        stage.publish(relay, &after);
        stage.relays[0].restart();
    }
    assert_each_once(&stage.queue(), &[before, after].concat());
}

/// Redis is killed and has nothing when it starts again. A relay still knows the ids in its own memory.
#[test]
fn a_redis_that_comes_back_empty_costs_what_the_memory_does_not_have() {
    let mut redis = Server::start();
    let Some(stage) = Stage::new("redis-empty", 2, &config(&redis, &redis.url(), REFUSE)) else { return };
    let (before, after) = (ids("before", 50), ids("after", 50));
    stage.relays[0].api("POST", "/api/v1/windows/orders/flush", "");
    stage.publish(0, &before);
    let identity = |redis: &Server| redis.cli(&["GET", "hapax:{orders}:identity"]);
    let first = identity(&redis);
    redis.restart();
    // Both see it, and go on.
    stage.publish(0, &after);
    stage.publish(1, &after);
    stage.publish(0, &before);
    wait::until("both have Redis", PATIENCE, || {
        let is_up = |relay: &Relay| relay.metrics().sum("store_up", &[]) == 1.0;
        stage.relays.iter().all(is_up).then_some(())
    });
    assert!(first.len() > 10 && identity(&redis) == first, "nobody else's ids may come in between");
    let queue = stage.queue();
    assert!(before.iter().all(|id| queue[id] == 1), "the memory of the relay has them");
    assert!(after.iter().all(|id| queue.contains_key(id)));
    stage.publish(1, &before);
    assert_each_once(&stage.queue(), &before);
    stage.publish(1, &before);
    stage.publish(1, &after);
    stage.publish(0, &after);
    assert_eq!(stage.queue().len(), 0);
}

/// Its keys would mean nothing. The relay says so and ends, and the ids stay as they are.
#[test]
fn another_secret_scope_or_id_is_refused_with_what_to_do() {
    let redis = Server::start();
    let config = config(&redis, &redis.url(), REFUSE);
    let Some(mut stage) = Stage::new("redis-secret", 1, &config) else { return };
    let ids = ids("s", 10);
    stage.publish(0, &ids);
    let secret = redis.folder().join("digest.secret");
    let another = redis.folder().join("another.secret");
    std::fs::copy(&secret, &another).unwrap();
    std::fs::write(&another, "ffffffffffffffffffffffffffffffff").unwrap();
    let with = |from: &str, to: &str| {
        let changed = config.replace(from, to);
        assert_ne!(changed, config);
        changed
    };
    for config in [
        with("digest.secret", "another.secret"),
        with("store = \"redis\"", "store = \"redis\"\nscope = \"exchange\""),
        with("store = \"redis\"", "store = \"redis\"\nid = \"header:x-id\""),
    ] {
        let (status, said) = Relay::refused(shared_rabbit().addr(), &config);
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("another digest secret, scope or id"), "{said}");
        assert!(said.contains("digest_secret_file"), "it says what to do: {said}");
    }
    stage.relays[0].restart();
    stage.publish(0, &ids);
    assert_each_once(&stage.queue(), &ids);
}

/// A Redis that answers with an error (while it reads its data, it says `LOADING`) is out of order, and nobody else's. The relay begins, and uses
/// it when it works.
#[test]
fn a_redis_that_answers_with_an_error_is_not_that_of_others() {
    if without_relay() {
        println!("passed over: this is about relays");
        return;
    }
    let redis = Server::start();
    redis.add_user(&["-set"]);
    let url = redis.url().replace("redis://", "redis://hapax:PASSWORD@");
    let relay = Relay::start_before(&shared_rabbit().uri(), &config(&redis, &url, ""), 503);
    relay.until_says("NoPerm");
    redis.add_user(&[]);
    wait::until("Redis works", PATIENCE, || (relay.metrics().sum("store_up", &[]) == 1.0).then_some(()));
}
