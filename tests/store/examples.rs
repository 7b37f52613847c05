//! Every file in `config/examples` does what it says: relays run with it, and a retry does not reach the queue.
//!
//! Only what an operator would have to change is changed: addresses, and the paths of files and folders.

use crate::e2e::cut::Cut;
use crate::e2e::raw::{Publish, Raw, Told, Value};
use crate::e2e::relay::Relay;
use crate::e2e::retry;
use crate::e2e::site::{shared_rabbit, without_relay};
use crate::e2e::wait::{self, PATIENCE};
use crate::redis::server::Server;
use amq_protocol::protocol::{AMQPClass, exchange};
use hapax_testbed::Leash;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const FOLDER: &str = "config/examples";
const UPSTREAM: &str = "amqp://rabbitmq.internal:5672";
const SECRET: &str = "/etc/hapax/digest.secret";

/// An example, as a publisher uses it.
struct Example {
    file: &'static str,
    /// How many relays run with it. A retry goes to the last one.
    relays: usize,
    vhost: &'static str,
    exchange: &'static str,
    /// The header that has the id, unless it is the `message-id`.
    header: Option<&'static str>,
    /// How often an id that was published twice is in the queue.
    copies: usize,
}

/// One that judges every exchange by the `message-id`.
const PLAIN: Example =
    Example { file: "", relays: 1, vhost: "examples", exchange: "", header: None, copies: 1 };

const EXAMPLES: [Example; 10] = [
    Example { file: "cluster.toml", ..PLAIN },
    Example { file: "disk.toml", ..PLAIN },
    Example { file: "from-lavinmq.toml", header: Some("x-deduplication-header"), ..IN_EVENTS },
    Example {
        file: "from-noxdafox.toml",
        header: Some("x-deduplication-header"),
        exchange: "orders",
        ..IN_EVENTS
    },
    Example { file: "minimal.toml", ..PLAIN },
    Example { file: "observe-first.toml", copies: 2, ..PLAIN },
    Example { file: "per-exchange.toml", header: Some("payment-id"), exchange: "payments", ..IN_EVENTS },
    Example { file: "per-tenant.toml", vhost: "tenant-a", ..PLAIN },
    Example { file: "redis.toml", relays: 2, ..PLAIN },
    Example { file: "stream-pair.toml", relays: 2, ..PLAIN },
];

const IN_EVENTS: Example = Example { vhost: "/", exchange: "events", ..PLAIN };

/// The text of an example.
struct Text(String);

impl Text {
    fn of(file: &str) -> Text {
        Text(fs::read_to_string(Path::new(FOLDER).join(file)).unwrap())
    }

    fn has(&self, what: &str) -> bool {
        self.0.contains(what)
    }

    fn replace(&mut self, what: &str, by: &str) {
        assert!(self.has(what), "{what:?} is not in the example any more:\n{}", self.0);
        self.0 = self.0.replace(what, by);
    }

    /// The URL that a comment of the example shows.
    fn url_in_comment(&self, scheme: &str) -> String {
        let mut words = self.0.lines().filter(|line| line.starts_with('#')).flat_map(|line| line.split(' '));
        words.find(|word| word.starts_with(scheme)).expect("a comment shows the URL").to_owned()
    }
}

fn private_file(leash: &Leash, name: &str, text: &str) -> String {
    let path = leash.folder().join(name);
    let file = fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
    path.display().to_string()
}

/// Redis as the example expects it: a master, a Sentinel, and a user with the rights that the docs name.
fn redis() -> (Server, Server) {
    let master = Server::start();
    master.add_user(&[]);
    let sentinel = Server::sentinel(&master);
    (master, sentinel)
}

/// What stands behind the relays, until the example was tried.
#[derive(Default)]
struct Servers {
    /// master and Sentinel
    redis: Option<(Server, Server)>,
    /// nodes of a cluster: several ways to the same broker
    nodes: Vec<Cut>,
}

/// The configuration, with the addresses and paths of this test.
fn adapted(example: &Example, leash: &Leash) -> (String, Servers) {
    let rabbit = shared_rabbit();
    let (mut text, mut servers) = (Text::of(example.file), Servers::default());
    if text.has("upstream = [") {
        servers.nodes = (1..=3).map(|_| Cut::forward(rabbit.addr())).collect();
        for (number, node) in (1..).zip(&servers.nodes) {
            text.replace(&format!("rabbit-{number}.internal:5672"), &node.addr().to_string());
        }
    } else if text.has("upstream") {
        text.replace(UPSTREAM, &rabbit.uri());
    }
    if text.has("state_dir") {
        text.replace("/var/lib/hapax", &leash.folder().join("state").display().to_string());
    }
    if text.has("digest_secret_file") {
        text.replace(SECRET, &private_file(leash, "secret", "0123456789abcdef0123456789abcdef"));
    }
    if text.has("[store.stream]") {
        let uri = text.url_in_comment("amqp://");
        let here = uri.replace("rabbit-1.internal:5672", &rabbit.addr().to_string());
        assert_ne!(uri, here);
        text.replace("/etc/hapax/stream.uri", &private_file(leash, "stream.uri", &here));
        rabbit.add_vhost("hapax").unwrap();
        let add = "ok = rabbit_auth_backend_internal:add_user(<<\"hapax\">>, <<\"PASSWORD\">>, <<\"test\">>), \
            ok = rabbit_auth_backend_internal:set_permissions(<<\"hapax\">>, <<\"hapax\">>, <<\"^hapax\\\\.window\\\\.\">>, \
            <<\"^(hapax\\\\.window\\\\..*|amq\\\\.default)$\">>, <<\"^hapax\\\\.window\\\\.\">>, <<\"test\">>).";
        rabbit.eval(add).unwrap();
    }
    if text.has("[store.redis]") {
        let (master, sentinel) = redis();
        let url = text.url_in_comment("redis://");
        let here = url.replace("sentinel-1.internal:26379", &format!("127.0.0.1:{}", sentinel.port));
        assert_ne!(url, here);
        text.replace("/etc/hapax/redis.url", &private_file(leash, "redis.url", &here));
        servers.redis = Some((master, sentinel));
    }
    (text.0, servers)
}

/// A queue of this example's own, bound where its publishes go. Returns the queue and a client straight at the broker.
fn queue(example: &Example) -> (String, Raw) {
    let rabbit = shared_rabbit();
    if example.vhost != "/" {
        rabbit.add_vhost(example.vhost).unwrap();
    }
    let mut direct = Raw::connect(rabbit.addr(), example.vhost);
    direct.open_channel(1);
    let queue = format!("q-{}", example.file);
    direct.declare(1, &queue, &[]);
    if !example.exchange.is_empty() {
        let declare = exchange::Declare {
            exchange: example.exchange.into(),
            kind: "direct".into(),
            durable: true,
            ..exchange::Declare::default()
        };
        direct.call(1, &AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare))).unwrap();
        direct.bind(1, &queue, (example.exchange, &queue), &[]);
    }
    (queue, direct)
}

/// Publishes these by one relay, and waits until each is acked.
fn publish(example: &Example, relay: &Relay, queue: &str, ids: &[String]) {
    let mut client = Raw::connect(relay.addr(), example.vhost);
    client.confirming(1);
    for id in ids {
        let header = example.header.map(|name| (name, Value::Text(id)));
        let headers = header.as_slice();
        let publish =
            Publish { exchange: example.exchange, headers, persistent: true, ..Publish::to(queue, id) };
        let told = client.publish_and_settle(1, &publish);
        assert!(matches!(told[..], [Told::Ack { .. }]), "{}: {told:?}", example.file);
    }
}

/// How many ids this relay knows.
fn known(relay: &Relay) -> f64 {
    relay.metrics().sum("window_entries", &[])
}

fn tried(example: &Example) {
    let leash = Leash::new("example").unwrap();
    let (config, servers) = adapted(example, &leash);
    // A cluster's nodes stand in the file.
    let upstream = if servers.nodes.is_empty() { shared_rabbit().uri() } else { String::new() };
    let (queue, mut direct) = queue(example);
    let mut relays: Vec<Relay> =
        (0..example.relays).map(|_| Relay::start_before(&upstream, &config, 200)).collect();
    let ids: Vec<String> = (0..20).map(|n| format!("{}-{n}", example.file)).collect();
    publish(example, &relays[0], &queue, &ids);
    if config.contains("store = \"stream\"") {
        // With a stream, the other relay knows it a moment later.
        wait::until("the other relay knows", PATIENCE, || {
            (known(relays.last().unwrap()) == ids.len() as f64).then_some(())
        });
    }
    publish(example, relays.last().unwrap(), &queue, &ids);
    if config.contains("store = ") {
        // The store outlives the process.
        relays[0].restart();
        publish(example, &relays[0], &queue, &ids);
    }
    let once: BTreeMap<String, usize> = ids.into_iter().map(|id| (id, example.copies)).collect();
    assert_eq!(retry::held(&mut direct, &queue), once, "{}", example.file);
    drop(servers.redis);
}

#[test]
fn every_example_runs_and_does_what_it_says() {
    if without_relay() {
        return;
    }
    let files = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // hapax.socket is for systemd; tests/operator/packages.rs looks at it.
    let there: BTreeSet<String> = files.filter(|name| name != "hapax.socket").collect();
    let tried_here: BTreeSet<String> = EXAMPLES.iter().map(|example| example.file.to_owned()).collect();
    assert_eq!(there, tried_here, "each example is tried here");
    EXAMPLES.iter().for_each(tried);
}
