//! Dials and probes over real sockets, to brokers that answer, refuse, or say nothing.

use super::*;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

/// The smallest `connection.start`.
const START: &[u8] = b"\x01\x00\x00\x00\x00\x00\x1c\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x00\x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US\xce";
/// A client, wherever it is.
const ENDS: Ends = Ends {
    client: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1),
    listener: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2),
};
const DEADLINE: Duration = Duration::from_secs(20);

const HEALTH: UpstreamHealth = UpstreamHealth {
    interval: Duration::from_secs(3600),
    timeout: Duration::from_millis(300),
    rest: Duration::from_millis(50),
    max_rest: Duration::from_millis(200),
};

/// A node that answers while `speaks` is true. It counts its connections.
struct Broker {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    speaks: Arc<AtomicBool>,
}

impl Broker {
    async fn start(speaks: bool) -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, speaks) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(speaks)));
        let (count, may_speak) = (Arc::clone(&connections), Arc::clone(&speaks));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
                let speaks = may_speak.load(Relaxed);
                tokio::spawn(async move {
                    let mut header = [0; 8];
                    if stream.read_exact(&mut header).await.is_ok() && speaks {
                        let _ = stream.write_all(START).await;
                    }
                    // Until the other side closes.
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                });
            }
        });
        Broker { address, connections, speaks }
    }

    fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

/// An address where nobody listens, and nobody else will while the socket lives.
fn nobody() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

fn opening(opener: &Opener) -> Opening<'_> {
    Opening { opener, ends: None, protocol_header: &PROTOCOL_HEADER }
}

fn before(nodes: &[SocketAddr], order: UpstreamOrder, connect_timeout: Duration) -> Arc<Upstreams> {
    let address = |node: &SocketAddr| UpstreamAddress {
        host: node.ip().to_string().into(),
        port: node.port(),
        tls: false,
    };
    let nodes: Vec<UpstreamAddress> = nodes.iter().map(address).collect();
    Upstreams::of(&nodes, order, HEALTH, Opener::default(), connect_timeout, Duration::from_millis(10))
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut again = tokio::time::interval(Duration::from_millis(5));
    let wait = async {
        while !holds() {
            again.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn dialled(upstreams: &Upstreams) -> Dialled {
    upstreams.dial(&PROTOCOL_HEADER, ENDS).await.unwrap_or_else(|why| panic!("{why:?}"))
}

#[tokio::test]
async fn what_the_node_has_said_is_handed_over_whole() {
    let broker = Broker::start(true).await;
    let upstreams = before(&[broker.address], UpstreamOrder::Priority, DEADLINE);
    let dialled = dialled(&upstreams).await;
    assert_eq!(&*dialled.said, START);
    let [node] = upstreams.nodes().try_into().unwrap();
    assert_eq!((node.up, node.connections, node.opened, node.failures), (Some(true), 1, 1, 0));
    drop(dialled);
    assert_eq!(upstreams.nodes()[0].connections, 0);
}

#[tokio::test]
async fn a_node_that_refuses_and_one_that_is_silent_are_passed_over() {
    let ((refuses, _socket), silent, speaks) =
        (nobody(), Broker::start(false).await, Broker::start(true).await);
    let nodes = [refuses, silent.address, speaks.address];
    let upstreams = before(&nodes, UpstreamOrder::Priority, DEADLINE);
    let begun = now();
    let dialled = dialled(&upstreams).await;
    assert_eq!(&*dialled.upstream, &*speaks.address.to_string());
    let took = now() - begun;
    assert!(took >= HEALTH.timeout && took < 10 * HEALTH.timeout, "{took:?}");
    let failures: Vec<u64> = upstreams.nodes().iter().map(|node| node.failures).collect();
    assert_eq!(failures, [1, 1, 0]);
}

/// The probe that a failed connection calls for sends the node to rest, and the next connections lose no time at it. When the node
/// speaks again, it is used again.
#[tokio::test]
async fn a_silent_node_rests_and_comes_back() {
    let (first, second) = (Broker::start(true).await, Broker::start(true).await);
    let upstreams = before(&[first.address, second.address], UpstreamOrder::Priority, DEADLINE);
    let watch = tokio::spawn(Arc::clone(&upstreams).watch());
    until("both are asked at the start", || upstreams.nodes().iter().all(|node| node.up == Some(true))).await;
    first.speaks.store(false, Relaxed);
    assert_eq!(&*dialled(&upstreams).await.upstream, &*second.address.to_string());
    until("it rests", || upstreams.nodes()[0].rest.is_some()).await;
    assert!(upstreams.nodes()[0].error.as_ref().unwrap().contains("no answer within"));
    let begun = now();
    assert_eq!(&*dialled(&upstreams).await.upstream, &*second.address.to_string());
    assert!(now() - begun < HEALTH.timeout, "a connection waits for a node that rests");
    first.speaks.store(true, Relaxed);
    until("it is back", || upstreams.nodes()[0].rest.is_none()).await;
    assert_eq!(&*dialled(&upstreams).await.upstream, &*first.address.to_string());
    watch.abort();
}

/// A name may stand for many addresses, and the first ones may be silent: each gets its share of the time.
#[tokio::test]
async fn each_address_of_a_name_is_tried() {
    let ((refuses, _socket), speaks) = (nobody(), Broker::start(true).await);
    let silent = [Broker::start(false).await, Broker::start(false).await];
    let opener = Opener::default();
    let node = Node::new(&UpstreamAddress { host: "rabbit.internal".into(), port: 5672, tls: false });
    let addresses = [silent[0].address, refuses, silent[1].address, speaks.address];
    for each in [HEALTH.timeout, DEADLINE] {
        let patience = Patience { until: now() + Duration::from_secs(4), each, nodes_left: 1, is_only: true };
        let (stream, _) = node.greet_any(&addresses, opening(&opener), patience, false).await.unwrap();
        assert_eq!(stream.socket().peer_addr().unwrap(), speaks.address);
    }
}

/// What was wrong with the address that speaks something else is told, and not that nobody listens at the other one.
#[tokio::test]
async fn of_several_addresses_the_error_that_says_most_is_told() {
    let (refuses, _socket) = nobody();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let opener = Opener::default();
    let node = Node::new(&UpstreamAddress { host: "rabbit.internal".into(), port: 5672, tls: false });
    for addresses in [[refuses, other], [other, refuses]] {
        let patience = Patience { until: now() + DEADLINE, each: DEADLINE, nodes_left: 1, is_only: true };
        let error = node.greet_any(&addresses, opening(&opener), patience, false).await.unwrap_err();
        assert!(matches!(error, NoAnswer::NotAmqp), "{error:?}");
    }
}

#[tokio::test]
async fn connections_take_the_addresses_of_a_name_by_turns() {
    let brokers = [Broker::start(true).await, Broker::start(true).await];
    let opener = Opener::default();
    let node = Node::new(&UpstreamAddress { host: "rabbit.internal".into(), port: 5672, tls: false });
    let addresses = [brokers[0].address, brokers[1].address];
    let patience = Patience { until: now() + DEADLINE, each: DEADLINE, nodes_left: 1, is_only: true };
    for _ in 0..6 {
        node.greet_any(&addresses, opening(&opener), patience, true).await.unwrap();
    }
    assert_eq!([brokers[0].connections(), brokers[1].connections()], [3, 3]);
}

#[tokio::test]
async fn round_robin_spreads_evenly_over_the_nodes_that_answer() {
    let brokers = [Broker::start(true).await, Broker::start(true).await, Broker::start(true).await];
    let (gone, _socket) = nobody();
    let nodes = [brokers[0].address, brokers[1].address, gone, brokers[2].address];
    let upstreams = before(&nodes, UpstreamOrder::RoundRobin, DEADLINE);
    let watch = tokio::spawn(Arc::clone(&upstreams).watch());
    until("the third one rests", || upstreams.nodes()[2].rest.is_some()).await;
    watch.abort();
    let opened = || -> Vec<u64> { upstreams.nodes().iter().map(|node| node.opened).collect() };
    for _ in 0..30 {
        drop(dialled(&upstreams).await);
    }
    assert_eq!(opened(), [10, 10, 0, 10]);
}

#[tokio::test]
async fn when_no_node_can_be_reached_all_are_tried_again_until_the_time_is_over() {
    let ((first, _first), (second, _second)) = (nobody(), nobody());
    let upstreams = before(&[first, second], UpstreamOrder::Priority, Duration::from_millis(400));
    let begun = now();
    let why = upstreams.dial(&PROTOCOL_HEADER, ENDS).await.unwrap_err();
    assert!(now() - begun < DEADLINE);
    assert_eq!((&*why.upstream, why.error.to_string().contains("refused")), (&*second.to_string(), true));
    let tries = upstreams.nodes()[0].failures;
    assert!((2..=20).contains(&tries), "{tries} tries in 400 ms");
    assert!(upstreams.check().await.unwrap_err().len() == 2);
}

/// There is no other node to try, so the client gets its answer at once.
#[tokio::test]
async fn the_only_node_is_tried_once() {
    let (gone, _socket) = nobody();
    let upstreams = before(&[gone], UpstreamOrder::Priority, DEADLINE);
    assert!(upstreams.dial(&PROTOCOL_HEADER, ENDS).await.is_err());
    assert_eq!(upstreams.nodes()[0].failures, 1);
}

#[tokio::test]
async fn a_node_that_comes_up_while_a_client_waits_is_taken() {
    let ((gone, _socket), (later, socket)) = (nobody(), nobody());
    let upstreams = before(&[gone, later], UpstreamOrder::Priority, DEADLINE);
    let dial = {
        let upstreams = Arc::clone(&upstreams);
        tokio::spawn(async move { dialled(&upstreams).await.upstream })
    };
    until("both have failed", || upstreams.nodes().iter().all(|node| node.failures > 0)).await;
    let listener = socket.listen(8).unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(START).await.unwrap();
    assert_eq!(&*dial.await.unwrap(), &*later.to_string());
}

/// Strangers who connect and leave while Hapax dials for them, by thousands: no node rests, and none is asked more than once a second.
#[tokio::test]
async fn dials_that_are_given_up_say_nothing_of_a_node() {
    let (first, second) = (Broker::start(true).await, Broker::start(true).await);
    let upstreams = before(&[first.address, second.address], UpstreamOrder::Priority, DEADLINE);
    let watch = tokio::spawn(Arc::clone(&upstreams).watch());
    until("both are asked at the start", || upstreams.nodes().iter().all(|node| node.up.is_some())).await;
    let asked = second.connections();
    for _ in 0..2_000 {
        let dial = upstreams.dial(&PROTOCOL_HEADER, ENDS);
        let _ = tokio::time::timeout(Duration::ZERO, dial).await;
    }
    let nodes = upstreams.nodes();
    assert!(
        nodes.iter().all(|node| node.up == Some(true) && node.rest.is_none() && node.failures == 0),
        "{nodes:?}"
    );
    assert_eq!(second.connections(), asked, "the second node was bothered");
    watch.abort();
}

/// A request of `/readyz` whose client leaves must not leave the node in a state in which nobody asks it any more.
#[tokio::test]
async fn a_probe_that_is_given_up_is_begun_again() {
    let (first, second) = (Broker::start(false).await, Broker::start(false).await);
    let upstreams = before(&[first.address, second.address], UpstreamOrder::Priority, DEADLINE);
    let _ = tokio::time::timeout(Duration::from_millis(20), upstreams.check()).await;
    let later = now() + 2 * HEALTH.interval;
    assert_eq!(upstreams.chooser.lock().take_due(later), [0, 1], "the first one is not asked for ever");
    first.speaks.store(true, Relaxed);
    assert!(upstreams.check().await.is_ok());
}

#[tokio::test]
async fn ready_when_any_node_answers_and_the_others_are_not_asked_for_that() {
    let (first, second) = (Broker::start(true).await, Broker::start(true).await);
    let upstreams = before(&[first.address, second.address], UpstreamOrder::Priority, DEADLINE);
    for _ in 0..3 {
        assert!(upstreams.check().await.is_ok());
    }
    assert_eq!(second.connections(), 0);
    let (gone, _socket) = nobody();
    let upstreams = before(&[gone, second.address], UpstreamOrder::Priority, DEADLINE);
    assert!(upstreams.check().await.is_ok());
}

#[test]
fn errors_of_this_process_are_told_from_those_of_a_node() {
    use rustix::io::Errno;
    let error = |errno: Errno| NoAnswer::from(std::io::Error::from(errno));
    for ours in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS] {
        assert!(error(ours).is_our_own(), "{ours}");
    }
    for theirs in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::HOSTUNREACH, Errno::TIMEDOUT] {
        assert!(!error(theirs).is_our_own(), "{theirs}");
    }
    assert!(!NoAnswer::Silent(DEADLINE).is_our_own() && !NoAnswer::Closed.is_our_own());
}
