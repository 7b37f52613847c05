//! A relay in front of a queue, and clients that hear everything.

use crate::e2e::http;
use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::relay::Relay;
use crate::e2e::retry;
use crate::e2e::site::shared_rabbit;
use crate::e2e::wait::{self, PATIENCE};
use amq_protocol::protocol::{AMQPClass, connection};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// A client with confirms. It understands `connection.blocked`.
pub(super) struct Client {
    pub(super) raw: Raw,
    pub(super) tag: u64,
    pub(super) open: BTreeMap<u64, String>,
    pub(super) acked: BTreeSet<String>,
    /// The methods of channel 0 that came, in order.
    pub(super) told: Vec<&'static str>,
}

impl Client {
    pub(super) fn of(relay: &Relay, vhost: &str) -> Client {
        let raw = retry::login(relay.addr(), vhost).unwrap();
        Client { raw, tag: 0, open: BTreeMap::new(), acked: BTreeSet::new(), told: Vec::new() }
    }

    pub(super) fn publish(&mut self, ids: &[String]) {
        for id in ids {
            self.tag += 1;
            self.raw.publish(1, &Publish { persistent: true, ..Publish::to("q", id) });
            self.open.insert(self.tag, id.clone());
        }
    }

    /// Hears the next thing. An error is that nothing came in time.
    pub(super) fn hear(&mut self) -> io::Result<()> {
        match self.raw.receive()?.expect("the connection stays") {
            (1, Told::Ack { tag, multiple }) => {
                self.acked.extend(retry::settled(&mut self.open, tag, multiple));
            }
            (0, Told::Method(AMQPClass::Connection(connection::AMQPMethod::Blocked(_)))) => {
                self.told.push("blocked");
            }
            (0, Told::Method(AMQPClass::Connection(connection::AMQPMethod::Unblocked(_)))) => {
                self.told.push("unblocked");
            }
            other => panic!("instead of an ack: {other:?}"),
        }
        Ok(())
    }

    pub(super) fn until_all_acked(&mut self) {
        while !self.open.is_empty() {
            self.hear().expect("all are acked in time");
        }
    }

    /// Hears whatever comes, for as long as this.
    pub(super) fn listen(&mut self, time: Duration) {
        self.raw.socket().set_read_timeout(Some(time)).unwrap();
        while self.hear().is_ok() {}
        self.raw.socket().set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

pub(super) fn ids(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}-{n}")).collect()
}

/// A vhost with a queue, a relay in front of it, and all ids that were published.
pub(super) struct Stage {
    pub(super) vhost: String,
    pub(super) direct: Raw,
    pub(super) relay: Relay,
    pub(super) published: Vec<String>,
}

impl Stage {
    pub(super) fn new(vhost: &str, config: &str) -> Stage {
        let rabbit = shared_rabbit();
        rabbit.add_vhost(vhost).unwrap();
        let mut direct = Raw::connect(rabbit.addr(), vhost);
        direct.open_channel(1);
        direct.declare(1, "q", &[]);
        let relay = Relay::start(rabbit.addr(), config);
        Stage { vhost: vhost.to_owned(), direct, relay, published: Vec::new() }
    }

    pub(super) fn client(&self) -> Client {
        self.client_of(&self.relay)
    }

    pub(super) fn client_of(&self, relay: &Relay) -> Client {
        Client::of(relay, &self.vhost)
    }

    /// Waits until another relay knows these, if its store tells it by itself.
    pub(super) fn until_known(&self, other: &Relay, ids: &[String]) {
        let metrics = other.metrics();
        if metrics.sum("store_up", &[("store", "stream")]) == 1.0 {
            wait::until("the other relay knows it", PATIENCE, || {
                (other.metrics().sum("window_entries", &[]) == ids.len() as f64).then_some(())
            });
        }
    }

    pub(super) fn publish(&mut self, client: &mut Client, ids: Vec<String>) {
        client.publish(&ids);
        self.published.extend(ids);
    }

    pub(super) fn metric(&self, name: &str) -> f64 {
        self.relay.metrics().sum(name, &[("window", "orders")])
    }

    pub(super) fn ready(&self) -> (u16, String) {
        http::get(self.relay.admin(), "/readyz").unwrap()
    }

    /// Publishes one id after the other, until the relay has found out that its store does not work.
    pub(super) fn until_down(&mut self, client: &mut Client) {
        let mut n = 0;
        wait::until("the store is down", PATIENCE, || {
            self.publish(client, vec![format!("finds-out-{n}")]);
            n += 1;
            (self.metric("store_up") == 0.0).then_some(())
        });
    }

    pub(super) fn until_up(&self) {
        let is_up =
            || (self.metric("store_up") == 1.0 && self.metric("store_waiting_records") == 0.0).then_some(());
        wait::until("the store works, and has everything", PATIENCE, is_up);
    }

    /// Publishes everything again, by the relay's memory and after a kill by what the store knows. Nothing passes.
    pub(super) fn check(mut self) {
        let published = std::mem::take(&mut self.published);
        for restart in [false, true] {
            if restart {
                self.relay.restart();
            }
            let fresh = |relay: &Relay| relay.metrics().sum("publishes_total", &[("verdict", "fresh")]);
            let before = fresh(&self.relay);
            let mut client = self.client();
            client.publish(&published);
            client.until_all_acked();
            assert_eq!(fresh(&self.relay), before, "restarted: {restart}");
        }
        let once: BTreeMap<String, usize> = published.into_iter().map(|id| (id, 1)).collect();
        assert_eq!(retry::held(&mut self.direct, "q"), once);
    }
}
