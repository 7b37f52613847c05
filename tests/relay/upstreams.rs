//! A relay in front of a cluster of two nodes: which one new connections go to, and what becomes of clients when a node stops, dies,
//! or refuses a user.

use crate::e2e::http;
use crate::e2e::raw::{HEADER, Login, Publish, Raw, Told};
use crate::e2e::relay::{self, Relay};
use crate::e2e::retry::{self, over};
use crate::e2e::site::without_relay;
use crate::e2e::wait::{self, PATIENCE};
use hapax::clock::now;
use hapax_testbed::Rabbit;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const VHOST: &str = "upstreams";
/// How long one node may be silent.
const TIMEOUT: Duration = Duration::from_secs(2);
const HEALTH: &str =
    "[upstream_health]\ninterval = \"1h\"\ntimeout = \"2s\"\nrest = \"100ms\"\nmax_rest = \"500ms\"\n";

/// Two nodes, and a relay before them.
struct Cluster {
    nodes: Vec<Rabbit>,
    relay: Relay,
}

impl Cluster {
    fn node(&self, index: usize) -> String {
        self.nodes[index].addr().to_string()
    }

    /// A figure of a node.
    fn figure(&self, name: &str, index: usize) -> f64 {
        self.relay.metrics().sum(&format!("upstream_{name}"), &[("upstream", &self.node(index))])
    }

    fn until_up(&self, index: usize, up: bool) {
        wait::until(&format!("node {index} is up: {up}"), PATIENCE, || {
            (self.figure("up", index) == f64::from(u8::from(up))).then_some(())
        });
    }

    /// Connects a client, and says which node it has got.
    fn client(&self) -> (Raw, usize) {
        let before = [0, 1].map(|index| self.figure("connections_opened_total", index));
        let client = Raw::connect(self.relay.addr(), VHOST);
        let after = [0, 1].map(|index| self.figure("connections_opened_total", index));
        let taken: Vec<usize> = (0..2).filter(|index| after[*index] > before[*index]).collect();
        let [node] = taken.as_slice() else { panic!("{before:?}, and then {after:?}") };
        (client, *node)
    }

    fn ready(&self) -> u16 {
        http::get(self.relay.admin(), "/readyz").unwrap().0
    }
}

/// One story, because a cluster takes long to start.
#[test]
fn two_nodes_of_a_cluster() {
    if without_relay() {
        return;
    }
    let nodes = Rabbit::cluster(2).unwrap();
    let addresses: Vec<SocketAddr> = nodes.iter().map(Rabbit::addr).collect();
    nodes[0].add_vhost(VHOST).unwrap();
    // The queue is on the second node. It outlives the first one.
    let mut direct = Raw::connect(addresses[1], VHOST);
    direct.confirming(1);
    direct.declare(1, "q", &[]);
    let relay = Relay::start_before(&relay::nodes(&addresses), HEALTH, 200);
    let cluster = Cluster { nodes, relay };
    cluster.until_up(0, true);
    cluster.until_up(1, true);
    assert_eq!(cluster.client().1, 0, "the first one in the list");
    a_user_whom_a_node_refuses(&cluster);
    strangers_in_a_crowd(&cluster);
    round_robin(&addresses);
    a_node_that_stands_still(&cluster);
    a_node_dies(&cluster, &mut direct);
    all_nodes_are_gone(&cluster);
}

/// That is the client's own business, and nobody goes to another node for it.
fn a_user_whom_a_node_refuses(cluster: &Cluster) {
    let refused = Raw::login(cluster.relay.addr(), &Login::new(VHOST, "guest", "wrong")).unwrap_err();
    println!("refused: {refused}");
    let refused = Raw::login(cluster.relay.addr(), &Login::guest("nowhere")).unwrap_err();
    println!("refused: {refused}");
    assert_eq!((cluster.figure("up", 0), cluster.figure("failures_total", 0)), (1.0, 0.0));
    assert_eq!(cluster.figure("connections_opened_total", 1), 0.0, "nobody has to go elsewhere");
    assert_eq!(cluster.client().1, 0);
}

/// Strangers open very many connections and leave in the middle of the handshake. Others are served meanwhile, no node begins to
/// rest, and the first one stays the first choice.
fn strangers_in_a_crowd(cluster: &Cluster) {
    std::thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            for _ in 0..20 {
                let strangers: Vec<TcpStream> = (0..100)
                    .map(|_| {
                        let mut stranger = TcpStream::connect(cluster.relay.addr()).unwrap();
                        stranger.write_all(HEADER).unwrap();
                        stranger
                    })
                    .collect();
                drop(strangers);
            }
        });
        while !crowd.is_finished() {
            Raw::connect(cluster.relay.addr(), VHOST).close();
        }
    });
    wait::until("they are gone", PATIENCE, || {
        (cluster.figure("connections", 0) == 0.0 && cluster.figure("connections", 1) == 0.0).then_some(())
    });
    let failures = [0, 1].map(|index| cluster.figure("failures_total", index));
    println!("attempts that failed: {failures:?}");
    assert!(!cluster.relay.log().contains("this node of the broker does not answer"), "a node has rested");
    assert_eq!([0, 1].map(|index| cluster.figure("up", index)), [1.0; 2]);
    assert_eq!(cluster.client().1, 0);
}

fn round_robin(addresses: &[SocketAddr]) {
    let relay = Relay::start_before(
        &relay::nodes(addresses),
        &format!("upstream_order = \"round-robin\"\n{HEALTH}"),
        200,
    );
    let clients: Vec<Raw> = (0..10).map(|_| Raw::connect(relay.addr(), VHOST)).collect();
    let metrics = relay.metrics();
    for address in addresses {
        assert_eq!(metrics.sum("upstream_connections", &[("upstream", &address.to_string())]), 5.0);
    }
    drop(clients);
}

/// The kernel takes connections for a process that is stopped. A client waits for `timeout`, and no longer; those that come after the
/// node was found out do not wait at all.
fn a_node_that_stands_still(cluster: &Cluster) {
    cluster.nodes[0].stand_still().unwrap();
    let begun = now();
    assert_eq!(cluster.client().1, 1);
    let took = begun.elapsed();
    assert!(took >= TIMEOUT && took < 2 * TIMEOUT, "{took:?}");
    cluster.until_up(0, false);
    let begun = now();
    assert_eq!(cluster.client().1, 1);
    assert!(begun.elapsed() < TIMEOUT, "{:?}", begun.elapsed());
    assert_eq!(cluster.ready(), 200, "one node is enough");
    cluster.nodes[0].carry_on().unwrap();
    cluster.until_up(0, true);
    assert_eq!(cluster.client().1, 0, "a node that comes back is used again");
}

/// A publisher that sends everything again until it is acked.
#[derive(Default)]
struct Publisher {
    acked: Vec<String>,
    /// how often the outcome of an id was unknown to it
    unknown: BTreeMap<String, usize>,
}

impl Publisher {
    /// Publishes these ids until all of them are acked. `at`: how many are to be acked before `then` is done, once.
    fn publish(&mut self, relay: &Relay, ids: &[String], at: usize, then: &mut dyn FnMut()) {
        let mut rest: Vec<String> = ids.to_vec();
        let mut then = Some(then);
        wait::until("all is acked", PATIENCE, || {
            let mut under_way = BTreeMap::new();
            let ended = self.try_all(relay, &rest, &mut under_way, at, &mut then);
            if let Err(why) = ended {
                println!("the publisher's connection has ended: {why}");
            }
            for id in under_way.into_values() {
                *self.unknown.entry(id).or_default() += 1;
            }
            rest.retain(|id| !self.acked.contains(id));
            rest.is_empty().then_some(())
        });
    }

    fn try_all(
        &mut self,
        relay: &Relay,
        ids: &[String],
        under_way: &mut BTreeMap<u64, String>,
        at: usize,
        then: &mut Option<&mut dyn FnMut()>,
    ) -> io::Result<()> {
        let mut client = retry::login(relay.addr(), VHOST)?;
        for (tag, id) in (1..).zip(ids) {
            client.write(&Publish::to("q", id).encode(1, client.frame_max()))?;
            under_way.insert(tag, id.clone());
            while under_way.len() >= 50 {
                self.settle(&mut client, under_way)?;
            }
            if self.acked.len() >= at
                && let Some(then) = then.take()
            {
                then();
            }
        }
        while !under_way.is_empty() {
            self.settle(&mut client, under_way)?;
        }
        Ok(())
    }

    fn settle(&mut self, client: &mut Raw, under_way: &mut BTreeMap<u64, String>) -> io::Result<()> {
        match client.receive()?.ok_or_else(over)? {
            (1, Told::Ack { tag, multiple }) => self.acked.extend(retry::settled(under_way, tag, multiple)),
            (_, told) => return Err(io::Error::other(format!("{told:?}"))),
        }
        Ok(())
    }
}

/// The first node dies under load. New connections go to the second one. A publisher that reconnects loses nothing, and nothing is
/// there twice but what was in doubt when its connection ended.
fn a_node_dies(cluster: &Cluster, direct: &mut Raw) {
    let ids: Vec<String> = (0..2_000).map(|n| format!("id-{n}")).collect();
    let mut publisher = Publisher::default();
    publisher.publish(&cluster.relay, &ids, 1_000, &mut || cluster.nodes[0].kill9());
    assert_eq!(publisher.acked.len(), ids.len());
    assert!(publisher.unknown.len() <= 50, "{}", publisher.unknown.len());
    // All of it once more, by the other node: what the relay remembers belongs to the cluster.
    assert_eq!(cluster.client().1, 1);
    let mut again = Publisher::default();
    again.publish(&cluster.relay, &ids, usize::MAX, &mut || {});
    let held = retry::held(direct, "q");
    assert_eq!(held.len(), ids.len());
    let doubled = retry::doubled(&held, &ids, &publisher.unknown);
    let doubts = cluster.relay.metrics().sum("in_doubt_total", &[("outcome", "forgotten")]);
    println!("in doubt {doubts}, there twice {doubled}");
    assert!(doubled as f64 <= doubts);
    cluster.until_up(0, false);
    assert_eq!(cluster.ready(), 200);
    let facts = cluster.relay.api("GET", "/api/v1/upstreams", "");
    assert_eq!(
        (&facts["upstreams"][0]["state"], &facts["upstreams"][1]["state"]),
        (&"down".into(), &"up".into())
    );
    assert!(facts["upstreams"][0]["error"].as_str().unwrap().contains("refused"), "{facts}");
}

fn all_nodes_are_gone(cluster: &Cluster) {
    let mut open = Raw::connect(cluster.relay.addr(), VHOST);
    cluster.nodes[1].kill9();
    let told = std::iter::from_fn(|| open.receive().ok().flatten()).last();
    assert!(matches!(told, Some((0, Told::ConnectionClosed { code: 320, .. }))), "{told:?}");
    let begun = now();
    let refused = Raw::login(cluster.relay.addr(), &Login::guest(VHOST)).unwrap_err().to_string();
    assert!(refused.contains("320") && refused.contains("can't reach the broker"), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    wait::until("/readyz says so", PATIENCE, || (cluster.ready() == 503).then_some(()));
    let (_, body) = http::get(cluster.relay.admin(), "/readyz").unwrap();
    for index in [0, 1] {
        assert!(body.contains(&cluster.node(index)), "{body}");
    }
}

/// A stranger who has left costs the broker nothing more: nobody is dialled for it any longer.
#[test]
fn a_client_that_leaves_is_not_dialled_for_any_longer() {
    if without_relay() {
        return;
    }
    let silent = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [&silent[0], &silent[1]].map(|listener| listener.local_addr().unwrap());
    let config = "[timeouts]\nupstream_connect = \"10m\"\nhandshake = \"10m\"\n[upstream_health]\ntimeout = \"100ms\"\n";
    let relay = Relay::start_before(&relay::nodes(&addresses), config, 503);
    let open = |count: f64| {
        wait::until(&format!("{count} connections"), PATIENCE, || {
            (relay.metrics().sum("connections", &[]) == count).then_some(())
        });
    };
    let mut leaves = TcpStream::connect(relay.addr()).unwrap();
    // It has said more than it may before the broker has answered.
    leaves.write_all(&[HEADER, &[0; 100]].concat()).unwrap();
    let mut stays = TcpStream::connect(relay.addr()).unwrap();
    stays.write_all(HEADER).unwrap();
    open(2.0);
    drop(leaves);
    open(1.0);
}
