//! A window's Redis that others write to, or that has lost something; and leases that nobody replaces.

use super::server::Server;
use super::{PATIENCE, Stage, config, facts, ids};
use crate::e2e::raw::{Publish, Raw, Told, Value};
use crate::e2e::wait;

impl Stage {
    /// Publishes it by one relay, and waits for its ack.
    fn acked(&self, relay: usize, publish: &Publish<'_>) {
        let mut raw = Raw::connect(self.relays[relay].addr(), &self.vhost);
        raw.confirming(1);
        let told = raw.publish_and_settle(1, publish);
        assert!(matches!(told.as_slice(), [Told::Ack { .. }]), "{told:?}");
        raw.close();
    }
}

fn eval(redis: &Server, script: &str) -> String {
    redis.cli(&["EVAL", script, "0"])
}

/// Leases and records.
fn values(redis: &Server) -> String {
    eval(redis, "return #redis.call('KEYS', 'hapax:orders:*')")
}

/// `x-cache-ttl: 0`. Nobody writes a record, so the lease has to go by itself: with `in_doubt = "keep"` the other relay would take the next
/// message of the id for a duplicate, for a day.
#[test]
fn an_id_that_is_remembered_for_no_time_leaves_no_lease() {
    let redis = Server::start();
    let window = "in_doubt = \"keep\"";
    let Some(stage) = Stage::new("redis-no-time", 2, &config(&redis, &redis.url(), window)) else { return };
    for ttl in [0, 1] {
        let publish = Publish { headers: &[("x-cache-ttl", Value::Long(ttl))], ..Publish::to("q", "a") };
        stage.acked(0, &publish);
        wait::until("nothing is left of it", PATIENCE, || (values(&redis) == "0").then_some(()));
        stage.acked(1, &publish);
        assert_eq!(stage.queue().get("a"), Some(&2));
        wait::until("nothing is left of it", PATIENCE, || (values(&redis) == "0").then_some(()));
    }
}

/// The cost of a Redis that others may write to. A value has a seal, but no time. Somebody who has read one can write it again when its
/// time is over. The next message that uses the id is dropped then. A flush ends that.
#[test]
fn an_old_value_that_somebody_puts_back_counts_once_more_until_a_flush() {
    let redis = Server::start();
    let Some(stage) = Stage::new("redis-old-value", 2, &config(&redis, &redis.url(), "")) else { return };
    let short = Publish { headers: &[("x-cache-ttl", Value::Long(300))], ..Publish::to("q", "a") };
    stage.acked(0, &short);
    eval(
        &redis,
        "local key = redis.call('KEYS', 'hapax:orders:*')[1]
        redis.call('SET', 'name', key) redis.call('SET', 'old', redis.call('GET', key))",
    );
    let put_back = || eval(&redis, "redis.call('SET', redis.call('GET', 'name'), redis.call('GET', 'old'))");
    wait::until("its time is over", PATIENCE, || (values(&redis) == "0").then_some(()));
    put_back();
    stage.acked(1, &short);
    // (Who looks takes the messages out.)
    assert_eq!(stage.queue().get("a"), Some(&1), "the second message is dropped");
    stage.relays[1].api("POST", "/api/v1/windows/orders/flush", "");
    // Its record is written behind the flush.
    stage.publish(1, &ids("behind", 1));
    put_back();
    stage.acked(1, &short);
    assert_eq!(stage.queue().get("a"), Some(&1), "the third one passes");
}

/// Redis has lost the stream of changes, and goes on with smaller numbers: it failed over to a server whose clock is behind.
#[test]
fn relays_read_on_when_the_changes_begin_anew() {
    let redis = Server::start();
    let Some(stage) = Stage::new("redis-anew", 2, &config(&redis, &redis.url(), "")) else { return };
    let all = ids("l", 20);
    stage.publish(0, &all);
    stage.publish(1, &all);
    redis.cli(&["XADD", "hapax:{orders}:changes", "99999999999999-0", "b", "nothing of ours"]);
    for relay in &stage.relays {
        wait::until("the entry is read", PATIENCE, || {
            (relay.metrics().sum("store_damaged_total", &[]) == 1.0).then_some(())
        });
    }
    redis.cli(&["DEL", "hapax:{orders}:changes"]);
    // Its clock was set back, too.
    redis.cli(&["SET", "hapax:{orders}:since", "99999999999"]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    stage.publish(0, &ids("after", 1));
    stage.relays[0].api("POST", "/api/v1/windows/orders/flush", "");
    wait::until("the flush is known at the other relay", PATIENCE, || {
        let entries = stage.relays[1].api("GET", "/api/v1/windows/orders", "")["entries"].clone();
        (entries.as_u64() == Some(0)).then_some(())
    });
    let is_young = || facts(&stage.relays[1])["oldest_seconds"].as_f64().is_none_or(|age| age < 3_600.0);
    assert!(is_young(), "{}", facts(&stage.relays[1]));
}
