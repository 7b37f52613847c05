//! The PROXY protocol: who may say who a client is, what is done with it, and what RabbitMQ hears.

use crate::e2e::http;
use crate::e2e::pki::Pki;
use crate::e2e::raw::{HEADER, Login, Publish, Raw};
use crate::e2e::relay::Relay;
use crate::e2e::site::{own_rabbit, shared_rabbit, without_relay};
use crate::e2e::{tunnel, wait};
use hapax_testbed::{Rabbit, free_port};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// A relay with a listener for proxies.
struct Stage {
    relay: Relay,
    addr: SocketAddr,
}

impl Stage {
    fn new(rabbit: &Rabbit, trusted: &str, top: &str, rest: &str) -> Option<Stage> {
        if without_relay() {
            println!("passed over: it is about what only the relay does");
            return None;
        }
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let config = format!(
            "{top}\n[[listener]]\naddress = \"{addr}\"\nproxy_protocol = true\ntrusted = [{trusted}]\n{rest}"
        );
        Some(Stage { relay: Relay::start(rabbit.addr(), &config), addr })
    }

    /// A client whose proxy sends this header.
    fn dial(&self, header: &[u8]) -> Raw {
        let mut raw = Raw::dial(self.addr).unwrap();
        raw.write(header).unwrap();
        raw
    }

    fn text(&self, client: &str) -> Raw {
        self.dial(line(client).as_bytes())
    }
}

/// A header of version 1 that names this client.
fn line(client: &str) -> String {
    format!("PROXY TCP4 {client} 198.51.100.1 4711 5672\r\n")
}

/// A header of version 2 that names this client.
fn binary(client: [u8; 4]) -> Vec<u8> {
    let ends = [&client[..], &[198, 51, 100, 1], &4711_u16.to_be_bytes(), &5672_u16.to_be_bytes()].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &ends].concat()
}

/// Returns true if the connection ends without an answer.
fn is_closed(mut raw: Raw) -> bool {
    matches!(raw.frame(), Ok(None)) && raw.read_ahead().is_empty()
}

fn user(rabbit: &Rabbit, name: &str) -> Login {
    rabbit
        .eval(&format!(
            "catch rabbit_auth_backend_internal:add_user(<<\"{name}\">>, <<\"{name}\">>, <<\"hapax\">>), \
             ok = rabbit_auth_backend_internal:set_permissions(\
             <<\"{name}\">>, <<\"/\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"hapax\">>)."
        ))
        .unwrap();
    Login::new("/", name, name)
}

#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    let Some(stage) = Stage::new(shared_rabbit(), "\"127.0.0.0/8\"", "", "") else { return };
    let bob = user(shared_rabbit(), "proxied");
    let first = stage.text("192.0.2.7").logged_in(&bob).unwrap();
    let second = stage.dial(&binary([192, 0, 2, 8])).logged_in(&bob).unwrap();
    let listed = stage.relay.api("GET", "/api/v1/connections", "");
    let peers: Vec<&str> =
        listed["connections"].as_array().unwrap().iter().map(|c| c["peer"].as_str().unwrap()).collect();
    assert_eq!(peers, ["192.0.2.7:4711", "192.0.2.8:4711"], "{listed}");
    first.close();
    second.close();
    // A health check of the proxy itself.
    let direct = stage.dial(b"PROXY UNKNOWN\r\n").logged_in(&bob).unwrap();
    direct.close();
}

#[test]
fn guest_is_known_by_the_clients_own_address_and_nobody_can_lie_about_it() {
    let Some(stage) = Stage::new(shared_rabbit(), "\"127.0.0.1\"", "", "") else { return };
    let guest = Login::guest("/");
    let refused = |header: Vec<u8>| {
        let error = stage.dial(&header).logged_in(&guest).expect_err("guest is not of this host").to_string();
        assert!(error.contains("403"), "{error}");
    };
    // The proxy is on this host, and its client is not.
    thread::scope(|scope| {
        scope.spawn(|| refused(line("192.0.2.7").into_bytes()));
        scope.spawn(|| refused(binary([192, 0, 2, 7])));
    });
    assert_eq!(stage.relay.metrics().sum("logins_refused_total", &[]), 2.0);
    stage.text("127.0.0.1").logged_in(&guest).expect("of this host, says a proxy of this host").close();
    // A second header is no AMQP, and changes nothing.
    let mut twice = stage.text("192.0.2.7");
    twice.write(line("127.0.0.1").as_bytes()).unwrap();
    let mut answer = [0; 8];
    twice.socket().read_exact(&mut answer).unwrap();
    assert_eq!(answer, HEADER, "as to everybody who speaks no AMQP");
    // Where no header is expected, one is no AMQP, either.
    let mut socket = TcpStream::connect(stage.relay.addr()).unwrap();
    socket.write_all(line("127.0.0.1").as_bytes()).unwrap();
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, HEADER);
}

#[test]
fn who_is_no_trusted_proxy_is_refused_at_once() {
    let Some(stage) = Stage::new(shared_rabbit(), "\"192.0.2.0/24\", \"2001:db8::/32\"", "", "") else {
        return;
    };
    assert!(is_closed(stage.text("127.0.0.1")), "a stranger names itself one of this host");
    assert!(is_closed(Raw::dial(stage.addr).unwrap()), "before it has said a word");
    let metrics = stage.relay.metrics();
    assert_eq!(metrics.sum("proxy_headers_refused_total", &[]), 2.0);
    assert_eq!(metrics.sum("connections_accepted_total", &[]), 0.0, "it takes no place");
    stage.relay.until_says("takes connections from its `trusted` proxies only");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the time until a socket ends")]
fn headers_that_are_slow_or_endless_or_none_hold_nothing() {
    let config = "[timeouts]\nhandshake = \"1s\"\n";
    let Some(stage) = Stage::new(shared_rabbit(), "\"127.0.0.1\"", "", config) else { return };
    let begun = Instant::now();
    let promised = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; 8000]].concat();
    let at_once: [&[u8]; 4] = [HEADER, b"PROXY TCP4 nobody 1.1.1.1 1 1\r\n", &[b'P'; 500], &promised];
    for said in at_once {
        let mut raw = Raw::dial(stage.addr).unwrap();
        let _ = raw.write(said);
        assert!(is_closed(raw), "{said:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "these need no timeout");
    assert_eq!(stage.relay.metrics().sum("proxy_headers_refused_total", &[]), 4.0);
    let half = stage.dial(b"PROXY TCP4 192.0.2.7");
    let silent = Raw::dial(stage.addr).unwrap();
    let mut slow = TcpStream::connect(stage.addr).unwrap();
    let endless = line("192.0.2.7");
    let mut octets = endless.bytes();
    while let Some(octet) = octets.next()
        && slow.write_all(&[octet]).is_ok()
    {
        thread::park_timeout(Duration::from_millis(50));
    }
    assert!(is_closed(half) && is_closed(silent));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    wait::until("all are gone", wait::PATIENCE, || {
        (stage.relay.metrics().sum("connections", &[]) == 0.0).then_some(())
    });
}

#[test]
fn limits_count_the_clients_own_address() {
    let limits = "[limits]\nmax_connections = 10\nconnections_per_address = 1\n";
    let Some(stage) = Stage::new(shared_rabbit(), "\"127.0.0.1\"", "", limits) else { return };
    let bob = user(shared_rabbit(), "limited");
    let mut open: Vec<Raw> =
        ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|c| stage.text(c).logged_in(&bob).unwrap()).into();
    assert!(is_closed(stage.text("192.0.2.2")), "one connection for each address, whatever the proxy's is");
    assert_eq!(stage.relay.metrics().sum("connections_rejected_by_address_total", &[]), 1.0);
    open.remove(1).close();
    wait::until("the place is free again", wait::PATIENCE, || stage.text("192.0.2.2").logged_in(&bob).ok());
}

/// The address of the client of the node's only connection, as RabbitMQ has it, e.g. `192.0.2.7 4711`.
fn client_at(rabbit: &Rabbit) -> String {
    wait::until("the node has one connection", wait::PATIENCE, || {
        (rabbit.eval("length(rabbit_networking:connections()).").unwrap() == "1").then_some(())
    });
    let ask = "[P] = rabbit_networking:connections(), \
               [{_, Host}, {_, Port}] = rabbit_networking:connection_info(P, [peer_host, peer_port]), \
               lists:flatten(io_lib:format(\"~s ~p\", [inet:ntoa(Host), Port])).";
    rabbit.eval(ask).unwrap().trim_matches('"').to_owned()
}

#[test]
fn rabbitmq_sees_the_client_through_both() {
    if without_relay() {
        return;
    }
    let rabbit = own_rabbit();
    rabbit.expect_proxy_headers(true).unwrap();
    let (pki, port) = (Pki::new(), free_port().unwrap());
    let broker = pki.issue("broker", &["localhost"]);
    rabbit.listen_with_tls(port, broker.paths(), &pki.ca(), false).unwrap();
    let bob = user(&rabbit, "bob");
    let sends = "upstream_proxy_protocol = \"v2\"";

    // Without TLS. /readyz says 200: the probe sends a header, too.
    let stage = Stage::new(&rabbit, "\"127.0.0.1\"", sends, "").unwrap();
    let raw = stage.text("192.0.2.7").logged_in(&bob).unwrap();
    assert_eq!(client_at(&rabbit), "192.0.2.7 4711");
    raw.close();
    let raw = Raw::connect(stage.relay.addr(), "/");
    let own = raw.socket().local_addr().unwrap();
    assert_eq!(client_at(&rabbit), format!("{} {}", own.ip(), own.port()));
    raw.close();
    // RabbitMQ looks at the address of the socket, not at that of the header: Hapax refuses guest in its place.
    let error = stage.text("192.0.2.7").logged_in(&Login::guest("/")).expect_err("from afar").to_string();
    assert!(error.contains("403"), "{error}");
    drop(stage);

    // With TLS on both sides: the header comes before TLS.
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let config = format!(
        "{sends}\n[upstream_tls]\nca = {:?}\n[[listener]]\naddress = \"{addr}\"\nproxy_protocol = true\n\
         trusted = [\"127.0.0.1\"]\n[listener.tls]\n{}",
        pki.ca(),
        pki.issue("server", &["localhost"]).toml()
    );
    let _relay = Relay::start_before(&format!("amqps://localhost:{port}"), &config, 200);
    let proxy = proxy_before(addr, binary([192, 0, 2, 9])).unwrap();
    let config = pki.client(&[&rustls::version::TLS13], None);
    let socket = tunnel::open(proxy, &config, "localhost").unwrap().0;
    let mut raw = Raw::over(socket).unwrap().logged_in(&bob).unwrap();
    assert_eq!(client_at(&rabbit), "192.0.2.9 4711");
    raw.confirming(1);
    raw.declare(1, "proxied", &[]);
    raw.publish_and_settle(1, &Publish::to("proxied", "1"));
    raw.publish_and_settle(1, &Publish::to("proxied", "1"));
    assert_eq!(raw.drain(1, "proxied"), ["1"]);
    raw.close();
}

/// A proxy of one connection, which sends this header first.
fn proxy_before(to: SocketAddr, header: Vec<u8>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let addr = listener.local_addr()?;
    thread::spawn(move || -> io::Result<()> {
        let (near, _) = listener.accept()?;
        let mut far = TcpStream::connect(to)?;
        far.write_all(&header)?;
        let (mut from, mut back) = (near.try_clone()?, far.try_clone()?);
        let forth = thread::spawn(move || io::copy(&mut from, &mut far));
        let mut near = near;
        io::copy(&mut back, &mut near)?;
        let _ = forth.join();
        Ok(())
    });
    Ok(addr)
}

#[test]
fn a_broker_that_expects_no_header_counts_as_down() {
    if without_relay() {
        return;
    }
    let relay = Relay::start_before(&shared_rabbit().uri(), "upstream_proxy_protocol = \"v2\"\n", 503);
    let (_, ready) = http::get(relay.admin(), "/readyz").unwrap();
    assert!(ready.contains("\"ok\":false"), "{ready}");
}
