//! TLS: between clients and Hapax, between Hapax and RabbitMQ, and at the admin listener. All certificates are made by the test.

mod clients;
mod files;
mod hostile;
mod listener;
mod revoked;
mod upstream;

use crate::e2e::pki::{Files, Pki};
use crate::e2e::raw::{Login, Publish, Raw, Told};
use crate::e2e::relay::Relay;
use crate::e2e::site::{shared_rabbit, without_relay};
use crate::e2e::tunnel;
use hapax_testbed::free_port;
use rustls::ClientConfig;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// All versions that Hapax speaks.
const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

/// A relay with a TLS listener beside its plain one, in front of the shared node.
struct Encrypted {
    pki: Pki,
    server: Files,
    relay: Relay,
    /// where it speaks TLS
    addr: SocketAddr,
}

impl Encrypted {
    /// `more` is added to `[listener.tls]`, and `rest` to the end of the file. `top` comes first.
    fn with(pki: Pki, top: &str, more: &str, rest: &str) -> Option<Encrypted> {
        if without_relay() {
            println!("passed over: it is about what only the relay does");
            return None;
        }
        let server = pki.issue("server", &["localhost"]);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let config = format!(
            "{top}\n[[listener]]\naddress = \"{addr}\"\n[listener.tls]\n{}{more}\n{rest}",
            server.toml()
        );
        let relay = Relay::start(shared_rabbit().addr(), &config);
        Some(Encrypted { pki, server, relay, addr })
    }

    fn new() -> Option<Encrypted> {
        Encrypted::with(Pki::new(), "", "", "")
    }

    fn client(&self) -> Arc<ClientConfig> {
        self.pki.client(BOTH, None)
    }

    /// A client that has not said anything yet.
    fn dial(&self, config: &Arc<ClientConfig>) -> io::Result<Raw> {
        Raw::over(tunnel::open(self.addr, config, "localhost")?.0)
    }
}

/// A vhost of its own on the shared node.
fn vhost(name: &str) -> Login {
    shared_rabbit().add_vhost(name).unwrap();
    Login::guest(name)
}

/// Publishes short and long messages, some of them twice, and reads them back: each is there once, as it was sent.
fn publish_and_read_back(mut raw: Raw) {
    raw.confirming(1);
    raw.declare(1, "encrypted", &[]);
    let long = vec![b'x'; 3 << 20];
    for (id, body) in [("1", &b"short"[..]), ("2", &long), ("1", b"short"), ("2", &long), ("3", b"")] {
        let publish = Publish { key: "encrypted", id: Some(id.as_bytes()), body, ..Publish::default() };
        let said = raw.publish_and_settle(1, &publish);
        assert!(matches!(said.last(), Some(Told::Ack { .. })), "{said:?}");
    }
    for number in 0..500 {
        raw.publish(1, &Publish::to("encrypted", &format!("burst-{number}")));
    }
    let mut acked = 0;
    while acked < 505 {
        match raw.next(1) {
            Told::Ack { tag, .. } => acked = tag,
            told => panic!("{told:?}"),
        }
    }
    assert_eq!(raw.get(1, "encrypted").unwrap().body, b"short");
    assert_eq!(raw.get(1, "encrypted").unwrap().body, long);
    assert_eq!(raw.drain(1, "encrypted").len(), 501);
    raw.close();
}
