//! Clients that speak TLS to Hapax: versions, names, certificates of clients, and how a connection ends.

use super::{BOTH, Encrypted, publish_and_read_back, vhost};
use crate::e2e::pki::Pki;
use crate::e2e::raw::{HEADER, Publish, Raw};
use crate::e2e::{tunnel, wait};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

#[test]
fn messages_pass_by_tls_1_2_and_1_3_and_duplicates_are_dropped() {
    let Some(site) = Encrypted::new() else { return };
    for (version, name) in [(&rustls::version::TLS12, "tls-12"), (&rustls::version::TLS13, "tls-13")] {
        let login = vhost(name);
        let (socket, spoken) =
            tunnel::open(site.addr, &site.pki.client(&[version], None), "localhost").unwrap();
        assert_eq!(spoken, Some(version.version));
        publish_and_read_back(Raw::over(socket).unwrap().logged_in(&login).unwrap());
    }
    assert_eq!(site.relay.metrics().sum("tls_handshakes_failed_total", &[]), 0.0);
}

#[test]
fn openssl_speaks_to_it_and_verifies_it() {
    let Some(site) = Encrypted::new() else { return };
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = Command::new("openssl")
            .args(["s_client", "-connect", &site.addr.to_string(), "-servername", "localhost", version])
            .args(["-verify_return_error", "-verify_hostname", "localhost", "-ign_eof", "-CAfile"])
            .arg(site.pki.ca())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = client.stdin.take().unwrap();
        // Another version of AMQP: Hapax answers with its own header, says close_notify, and closes.
        input.write_all(b"AMQP\x00\x01\x00\x00").unwrap();
        let said = client.wait_with_output().unwrap();
        drop(input);
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(text.contains("Verify return code: 0 (ok)"), "{version}: {text}");
        let answer = said.stdout.windows(HEADER.len()).any(|octets| octets == HEADER);
        assert!(answer && said.status.success(), "{version}: {text}");
    }
}

/// A TLS connection of ours, in which we see each step.
struct Bare {
    tls: ClientConnection,
    socket: TcpStream,
}

impl Bare {
    fn open(site: &Encrypted) -> Bare {
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(site.client(), name).unwrap();
        let socket = TcpStream::connect(site.addr).unwrap();
        socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        Bare { tls, socket }
    }

    fn write(&mut self, bytes: &[u8]) {
        rustls::Stream::new(&mut self.tls, &mut self.socket).write_all(bytes).unwrap();
    }

    /// Reads to the end. An end without `close_notify` is an error.
    fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        rustls::Stream::new(&mut self.tls, &mut self.socket).read_to_end(&mut octets).map(|_| octets)
    }
}

#[test]
fn close_notify_comes_before_the_end_whoever_closes_first() {
    let Some(site) = Encrypted::new() else { return };
    // Hapax closes first.
    let mut bare = Bare::open(&site);
    bare.write(b"AMQP\x00\x01\x00\x00");
    assert_eq!(bare.read_to_end().expect("close_notify, and then the end"), HEADER);
    // The client closes first, and Hapax answers.
    let mut bare = Bare::open(&site);
    bare.write(HEADER);
    bare.tls.send_close_notify();
    bare.tls.write_tls(&mut bare.socket).unwrap();
    bare.read_to_end().expect("close_notify, and then the end");
    // The broker has said good-bye, and the client has answered.
    let login = vhost("tls-close");
    let raw = site.dial(&site.client()).unwrap().logged_in(&login).unwrap();
    raw.close();
}

#[test]
fn what_was_cut_is_no_clean_end_and_half_a_message_is_none() {
    let Some(site) = Encrypted::with(Pki::new(), "", "", "[log]\nlevel = \"info,hapax::net=debug\"\n") else {
        return;
    };
    let login = vhost("tls-cut");
    let mut raw = Raw::connect(site.relay.addr(), "tls-cut");
    raw.confirming(1);
    raw.declare(1, "cut", &[]);

    let mut bare = Bare::open(&site);
    bare.write(HEADER);
    let mut tunnelled = site.dial(&site.client()).unwrap().logged_in(&login).unwrap();
    tunnelled.open_channel(1);
    let whole = Publish::to("cut", "half").encode(1, 4096);
    tunnelled.write(&whole[..whole.len() - 1]).unwrap();
    // The tunnel says close_notify: a clean end, but the message is not whole.
    drop(tunnelled);
    // This one is cut.
    drop(bare.socket);
    wait::until("the cut is told", wait::PATIENCE, || site.relay.log().contains("has cut TLS").then_some(()));
    wait::until("both are gone", wait::PATIENCE, || {
        (site.relay.metrics().sum("connections", &[]) == 1.0).then_some(())
    });
    assert_eq!(raw.get(1, "cut"), None);
    assert_eq!(site.relay.log().matches("has cut TLS").count(), 1, "a clean end is no cut");
    raw.close();
}

#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let pki = Pki::new();
    let other = pki.issue("other", &["other.test", "localhost"]);
    let below = pki.issue("below", &["*.below.test"]);
    let sni = format!(
        "[[listener.tls.sni]]\nname = \"other.test\"\n{}[[listener.tls.sni]]\nname = \"*.below.test\"\n{}",
        other.toml(),
        below.toml()
    );
    let Some(site) = Encrypted::with(pki, "", &sni, "") else { return };
    let shown = |name: &str| {
        let mut tls =
            ClientConnection::new(site.client(), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
        let mut socket = TcpStream::connect(site.addr).unwrap();
        let done = tls.complete_io(&mut socket);
        done.map(|_| tls.peer_certificates().unwrap()[0].clone().into_owned())
    };
    assert_eq!(shown("localhost").unwrap(), site.server.der());
    assert_eq!(shown("Other.test").unwrap(), other.der());
    assert_eq!(shown("a.below.test").unwrap(), below.der());
    for name in ["a.b.below.test", "below.test", "nobody.test"] {
        assert!(shown(name).is_err(), "{name}: the default certificate is for localhost alone");
    }
}

#[test]
fn clients_show_certificates_of_the_right_authority_with_an_allowed_name() {
    let pki = Pki::new();
    let own = pki.issue("own", &["orders.clients.test"]);
    let by_name = pki.issue("by-name", &["billing"]);
    let wrong = pki.issue("wrong", &["somebody.else.test"]);
    let late = pki.expired("late", &["orders.clients.test"]);
    let strange = Pki::new();
    let stranger = strange.issue("stranger", &["orders.clients.test"]);
    let rules = |rule: &str, pki: &Pki| {
        format!(
            "client_certificates = \"{rule}\"\nclient_ca = {:?}\nclient_names = [\"*.clients.test\", \"billing\"]\n",
            pki.ca()
        )
    };
    let required = rules("required", &pki);
    let Some(site) = Encrypted::with(pki, "", &required, "") else { return };
    let login = vhost("tls-certificates");
    // By TLS 1.3, a client learns only after its handshake that it was refused.
    let try_as = |site: &Encrypted, own| {
        let raw = site.dial(&site.pki.client(BOTH, own)).and_then(|raw| raw.logged_in(&login));
        raw.map(Raw::close)
    };
    for (own, who) in [(&own, "by a name of the certificate"), (&by_name, "by the common name")] {
        try_as(&site, Some(own)).unwrap_or_else(|error| panic!("{who}: {error}"));
    }
    for (own, who, why) in [
        (None, "without a certificate", "peer sent no certificates"),
        (Some(&wrong), "with another name", "none of its names is in client_names: somebody.else.test"),
        (Some(&late), "too late", "certificate expired"),
        (Some(&stranger), "of another authority", "UnknownIssuer"),
    ] {
        assert!(try_as(&site, own).is_err(), "{who}");
        // One line a second is written, so the line may be one that was left out.
        wait::until(who, wait::PATIENCE, || {
            let _ = try_as(&site, own);
            site.relay.log().contains(why).then_some(())
        });
    }
    assert!(site.relay.metrics().sum("tls_handshakes_failed_total", &[]) >= 4.0);

    let optional = rules("optional", &site.pki);
    let Encrypted { pki, relay, .. } = site;
    drop(relay);
    let site = Encrypted::with(pki, "", &optional, "").unwrap();
    try_as(&site, None).expect("optional");
    try_as(&site, Some(&own)).expect("a good one");
    assert!(try_as(&site, Some(&wrong)).is_err(), "a bad one is refused all the same");
}

#[test]
fn a_client_that_logs_in_by_its_certificate_is_told_why_it_can_not() {
    let Some(site) = Encrypted::new() else { return };
    let mut raw = site.dial(&Arc::clone(&site.client())).unwrap();
    raw.write(HEADER).unwrap();
    let start = raw.frame().unwrap().expect("connection.start");
    let offers = |name: &[u8]| start.payload.windows(name.len()).any(|octets| octets == name);
    assert!(offers(b"PLAIN") && !offers(b"EXTERNAL"));
    raw.write(&crate::hostile::loopback::login("EXTERNAL", "", true)).unwrap();
    let refused = raw.frame().unwrap().expect("connection.close");
    let text = String::from_utf8_lossy(&refused.payload);
    assert!(text.contains("ACCESS_REFUSED - EXTERNAL can't be used here"), "{text}");
    assert_eq!(site.relay.metrics().sum("logins_refused_total", &[]), 1.0);
}
