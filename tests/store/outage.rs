//! A store that really does not work: Redis stopped, Redis killed, the stream's broker out of reach, a disk that is full. What publishers,
//! the load balancer and the operator see, and that nothing is lost, doubled or forgotten when it works again.

use crate::disk::{Mount, StateDir};
use crate::e2e::cut::Cut;
use crate::e2e::http;
use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::relay::Relay;
use crate::e2e::retry;
use crate::e2e::site::{shared_rabbit, without_relay};
use crate::e2e::wait::{self, PATIENCE};
use crate::redis::server::Server;
use amq_protocol::protocol::{AMQPClass, connection};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

/// How long a client listens for an ack that must not come. It is several times `timeouts.store`.
const LISTEN: Duration = Duration::from_millis(700);

/// A store that stops working, and works again.
trait Store {
    /// Whether nothing that is published after [`Store::stop`] is written. A full disk may have some room in its last block.
    const STOPS_AT_ONCE: bool = true;
    /// The configuration up to the keys of the window.
    fn config(&self) -> String;
    fn stop(&mut self);
    fn go_on(&mut self);
}

/// It is there and says nothing (signal STOP).
struct SilentRedis(Server);

/// It is killed. Its log has every write, so that it knows what it knew when it starts again.
struct DeadRedis(Server);

/// Nobody reaches the broker that has the stream.
struct StreamOutOfReach {
    cut: Cut,
    state: StateDir,
    vhost: &'static str,
}

struct FullDisk {
    state: StateDir,
    _mount: Mount,
}

fn redis_config(server: &Server) -> String {
    let secret = server.secret();
    format!(
        "digest_secret_file = \"{}\"\n[timeouts]\nstore = \"200ms\"\n[store.redis]\nlease = \"1s\"\n{}\n[[window]]\nname = \"orders\"\nstore = \"redis\"\n",
        secret.display(),
        server.url()
    )
}

impl SilentRedis {
    fn new() -> SilentRedis {
        SilentRedis(Server::start())
    }
}

impl Store for SilentRedis {
    fn config(&self) -> String {
        redis_config(&self.0)
    }

    fn stop(&mut self) {
        self.0.stand_still();
    }

    fn go_on(&mut self) {
        self.0.carry_on();
    }
}

impl DeadRedis {
    fn new() -> DeadRedis {
        DeadRedis(Server::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]))
    }
}

impl Store for DeadRedis {
    fn config(&self) -> String {
        redis_config(&self.0)
    }

    fn stop(&mut self) {
        self.0.kill9();
    }

    fn go_on(&mut self) {
        self.0.restart();
    }
}

impl StreamOutOfReach {
    fn new(vhost: &'static str) -> StreamOutOfReach {
        let state = StateDir::new(vhost);
        std::fs::create_dir_all(&state.0).unwrap();
        StreamOutOfReach { cut: Cut::forward(shared_rabbit().addr()), state, vhost }
    }

    fn secret(&self) -> PathBuf {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.state.0.join("secret");
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(b"0123456789abcdef0123456789abcdef").unwrap();
        path
    }
}

impl Store for StreamOutOfReach {
    fn config(&self) -> String {
        let (secret, broker) = (self.secret(), self.cut.addr());
        format!(
            "digest_secret_file = \"{}\"\n[timeouts]\nstore = \"200ms\"\n[store.stream]\nuri = \"amqp://guest:guest@{broker}/{}\"\n[[window]]\nname = \"orders\"\nstore = \"stream\"\n",
            secret.display(),
            self.vhost
        )
    }

    fn stop(&mut self) {
        self.cut.shut();
    }

    fn go_on(&mut self) {
        self.cut.resume();
    }
}

impl FullDisk {
    /// `None` where this user may not mount.
    fn new(name: &str) -> Option<FullDisk> {
        let state = StateDir::new(name);
        let mount = Mount::new(state.0.clone())?;
        Some(FullDisk { state, _mount: mount })
    }

    fn ballast(&self) -> PathBuf {
        self.state.0.join("ballast")
    }
}

impl Store for FullDisk {
    const STOPS_AT_ONCE: bool = false;

    fn config(&self) -> String {
        self.state.config("")
    }

    fn stop(&mut self) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}
    }

    fn go_on(&mut self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

/// A client with confirms that is told `connection.blocked`.
struct Client {
    raw: Raw,
    tag: u64,
    open: BTreeMap<u64, String>,
    acked: BTreeSet<String>,
    /// What it was told on channel 0, in order.
    told: Vec<&'static str>,
}

impl Client {
    fn of(relay: &Relay, vhost: &str) -> Client {
        let raw = retry::login(relay.addr(), vhost).unwrap();
        Client { raw, tag: 0, open: BTreeMap::new(), acked: BTreeSet::new(), told: Vec::new() }
    }

    fn publish(&mut self, ids: &[String]) {
        for id in ids {
            self.tag += 1;
            self.raw.publish(1, &Publish { persistent: true, ..Publish::to("q", id) });
            self.open.insert(self.tag, id.clone());
        }
    }

    /// Hears the next thing. An error is that nothing came in time.
    fn hear(&mut self) -> io::Result<()> {
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

    fn until_all_acked(&mut self) {
        while !self.open.is_empty() {
            self.hear().expect("all are acked in time");
        }
    }

    /// Hears whatever comes, for as long as this.
    fn listen(&mut self, time: Duration) {
        self.raw.socket().set_read_timeout(Some(time)).unwrap();
        while self.hear().is_ok() {}
        self.raw.socket().set_read_timeout(Some(PATIENCE)).unwrap();
    }
}

fn ids(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}-{n}")).collect()
}

/// A vhost with a queue, a relay in front of it, and all ids that were published.
struct Stage {
    vhost: String,
    direct: Raw,
    relay: Relay,
    published: Vec<String>,
}

impl Stage {
    fn new(vhost: &str, config: &str) -> Stage {
        let rabbit = shared_rabbit();
        rabbit.add_vhost(vhost).unwrap();
        let mut direct = Raw::connect(rabbit.addr(), vhost);
        direct.open_channel(1);
        direct.declare(1, "q", &[]);
        let relay = Relay::start(rabbit.addr(), config);
        Stage { vhost: vhost.to_owned(), direct, relay, published: Vec::new() }
    }

    fn client(&self) -> Client {
        Client::of(&self.relay, &self.vhost)
    }

    fn publish(&mut self, client: &mut Client, ids: Vec<String>) {
        client.publish(&ids);
        self.published.extend(ids);
    }

    fn metric(&self, name: &str) -> f64 {
        self.relay.metrics().sum(name, &[("window", "orders")])
    }

    fn ready(&self) -> (u16, String) {
        http::get(self.relay.admin(), "/readyz").unwrap()
    }

    /// Publishes one id after the other, until the relay has found out that its store does not work.
    fn until_down(&mut self, client: &mut Client) {
        let mut n = 0;
        wait::until("the store is down", PATIENCE, || {
            self.publish(client, vec![format!("finds-out-{n}")]);
            n += 1;
            (self.metric("store_up") == 0.0).then_some(())
        });
    }

    fn until_up(&self) {
        let is_up =
            || (self.metric("store_up") == 1.0 && self.metric("store_waiting_records") == 0.0).then_some(());
        wait::until("the store works, and has everything", PATIENCE, is_up);
    }

    /// Publishes everything again, by the relay's memory and after a kill by what the store knows. Nothing passes.
    fn check(mut self) {
        let published = std::mem::take(&mut self.published);
        let stored = self.metric("publishes_total");
        assert!(stored >= published.len() as f64);
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

/// The load balancer is told, clients are told and wait, and go on by themselves.
fn refuses<S: Store>(name: &str, mut store: S) {
    let mut stage = Stage::new(name, &(store.config() + "on_outage = \"refuse\"\n"));
    let (mut client, mut finder) = (stage.client(), stage.client());
    stage.publish(&mut client, ids("before", 20));
    client.until_all_acked();
    assert_eq!((stage.ready().0, stage.metric("store_up")), (200, 1.0));

    store.stop();
    stage.until_down(&mut finder);
    let (status, text) = stage.ready();
    assert!(status == 503 && text.contains("is down, and on_outage = \\\"refuse\\\""), "{status} {text}");
    stage.publish(&mut client, ids("during", 20));
    while client.told.is_empty() {
        client.hear().expect("it is told that it is blocked");
    }
    wait::until("its publishes wait", PATIENCE, || {
        (stage.metric("store_waiting_publishes") >= 20.0).then_some(())
    });
    client.listen(LISTEN);
    assert_eq!((client.open.len(), &client.told[..]), (20, &["blocked"][..]), "acked without the store");
    finder.listen(LISTEN);
    assert!(finder.acked.is_empty() || !S::STOPS_AT_ONCE, "acked without the store: {:?}", finder.acked);
    // One that comes now waits, too.
    let mut late = stage.client();
    stage.publish(&mut late, ids("late", 20));
    late.listen(LISTEN);
    assert_eq!((late.open.len(), &late.told[..]), (20, &["blocked"][..]));
    assert_eq!((stage.ready().0, stage.metric("store_up")), (503, 0.0));

    store.go_on();
    for client in [&mut client, &mut late, &mut finder] {
        client.until_all_acked();
        while client.told.len() < 2 {
            client.hear().expect("it is told that it may go on");
        }
        assert_eq!(client.told, ["blocked", "unblocked"]);
    }
    stage.until_up();
    assert_eq!((stage.ready().0, stage.metric("store_waiting_publishes")), (200, 0.0));
    assert_eq!(stage.metric("unremembered_total"), 0.0);
    stage.check();
}

/// Clients notice nothing, duplicates are dropped by memory, and it is counted what the store does not know yet.
fn continues<S: Store>(name: &str, mut store: S) {
    let mut stage = Stage::new(name, &(store.config() + "on_outage = \"continue\"\n"));
    let (mut client, mut finder) = (stage.client(), stage.client());
    stage.publish(&mut client, ids("before", 20));
    client.until_all_acked();
    assert_eq!((stage.metric("store_up"), stage.metric("unremembered_total")), (1.0, 0.0));

    store.stop();
    stage.until_down(&mut finder);
    let during = ids("during", 50);
    stage.publish(&mut client, during.clone());
    client.until_all_acked();
    client.publish(&during);
    client.until_all_acked();
    finder.until_all_acked();
    assert_eq!((client.told.len(), finder.told.len()), (0, 0), "a client was told of it");
    assert_eq!((stage.ready().0, stage.metric("store_up")), (200, 0.0));
    let unremembered = stage.metric("unremembered_total");
    let acked_meanwhile = during.len() + finder.acked.len();
    let least = if S::STOPS_AT_ONCE { acked_meanwhile } else { during.len() };
    assert!(
        (least as f64..=acked_meanwhile as f64).contains(&unremembered),
        "{unremembered} of {acked_meanwhile}"
    );

    store.go_on();
    stage.until_up();
    assert_eq!(stage.metric("unremembered_total"), unremembered, "it is counted once");
    stage.check();
}

#[test]
fn redis_stands_still() {
    if !without_relay() {
        refuses("outage-still-refuse", SilentRedis::new());
        continues("outage-still-continue", SilentRedis::new());
    }
}

#[test]
fn redis_is_killed_and_starts_again() {
    if !without_relay() {
        refuses("outage-dead-refuse", DeadRedis::new());
        continues("outage-dead-continue", DeadRedis::new());
    }
}

#[test]
fn the_broker_of_the_stream_is_out_of_reach() {
    if !without_relay() {
        for (name, on_outage) in [("outage-stream-refuse", true), ("outage-stream-continue", false)] {
            shared_rabbit().add_vhost(name).unwrap();
            let store = StreamOutOfReach::new(name);
            if on_outage { refuses(name, store) } else { continues(name, store) }
        }
    }
}

#[test]
fn the_disk_is_full() {
    if !without_relay() {
        if let Some(store) = FullDisk::new("outage-full-refuse") {
            refuses("outage-full-refuse", store);
        }
        if let Some(store) = FullDisk::new("outage-full-continue") {
            continues("outage-full-continue", store);
        }
    }
}
