//! Files with certificates that change while Hapax runs.

use super::{BOTH, Encrypted, vhost};
use crate::e2e::pki::Pki;
use crate::e2e::raw::Raw;
use crate::e2e::relay::Relay;
use crate::e2e::site::shared_rabbit;
use crate::e2e::{tunnel, wait};
use rcgen::date_time_ymd;
use rustls::ClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// The certificate that a new connection is shown.
fn shown(site: &Encrypted) -> CertificateDer<'static> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(site.client(), name).unwrap();
    let mut socket = TcpStream::connect(site.addr).unwrap();
    tls.complete_io(&mut socket).unwrap();
    tls.peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn a_new_certificate_is_used_at_once_and_a_broken_one_changes_nothing() {
    let Some(site) = Encrypted::new() else { return };
    let first = site.server.der();
    let end = || site.relay.metrics().sum("certificate_not_after_timestamp_seconds", &[]);
    assert_eq!(shown(&site), first);
    let login = vhost("tls-files");
    let mut old = site.dial(&site.client()).unwrap().logged_in(&login).unwrap();
    old.open_channel(1);

    // A certificate without its key: both must fit.
    let second =
        site.pki.issue_with("second", &["localhost"], |params| params.not_after = date_time_ymd(2030, 1, 2));
    std::fs::rename(&second.certificate, &site.server.certificate).unwrap();
    wait::until("the log says that the key is another one", wait::PATIENCE, || {
        site.relay.log().contains("holds another key than that of the certificate").then_some(())
    });
    assert_eq!(shown(&site), first, "the old one stays");
    assert_eq!(site.relay.metrics().sum("certificate_read_failures_total", &[]), 1.0);
    // What is no certificate at all.
    std::fs::write(&site.server.certificate, "rubbish").unwrap();
    wait::until("the log says that there is no certificate", wait::PATIENCE, || {
        site.relay.log().contains("holds no certificate").then_some(())
    });
    assert_eq!(shown(&site), first, "the old one stays");
    assert_eq!(site.relay.metrics().sum("certificate_read_failures_total", &[]), 2.0);

    let third =
        site.pki.issue_with("third", &["localhost"], |params| params.not_after = date_time_ymd(2031, 1, 2));
    let wanted = third.der();
    third.replace(&site.server);
    wait::until("the new one is shown", wait::PATIENCE, || (shown(&site) == wanted).then_some(()));
    assert_eq!(end(), 1_925_078_400.0, "2031-01-02");
    assert_eq!(site.relay.metrics().sum("certificate_read_failures_total", &[]), 2.0);
    // Connections keep what they began with.
    old.open_channel(2);
    old.close();
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    if crate::e2e::site::without_relay() {
        return;
    }
    let pki = Pki::new();
    let server = pki.issue("server", &["localhost"]);
    std::fs::set_permissions(&server.key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let config = format!("[[listener]]\naddress = \"127.0.0.1:0\"\n[listener.tls]\n{}", server.toml());
    let (status, said) = Relay::refused(shared_rabbit().addr(), &config);
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("which its group can read or change (mode 640)"), "{said}");
    assert!(said.contains("chmod 600"), "{said}");
}

#[test]
fn the_admin_listener_speaks_tls() {
    if crate::e2e::site::without_relay() {
        return;
    }
    let pki = Pki::new();
    let server = pki.issue("admin", &["localhost"]);
    let config = format!("[admin_tls]\n{}", server.toml());
    let relay = Relay::start_with_admin_tls(&format!("amqp://{}", shared_rabbit().addr()), &config);
    let ask = |addr: SocketAddr| {
        let (mut socket, _) = tunnel::open(addr, &pki.client(BOTH, None), "localhost").unwrap();
        socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        write!(socket, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = wait::until("it answers", wait::PATIENCE, || {
        TcpStream::connect(relay.admin()).is_ok().then(|| ask(relay.admin()))
    });
    assert!(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("hapax_certificate_not_after_timestamp_seconds{use=\"admin\""), "{answer}");
    assert!(crate::e2e::http::get(relay.admin(), "/healthz").is_err(), "not without TLS");
    commands_reach_it(&pki, relay.admin().port());
    Raw::connect(relay.addr(), "/").close();
}

/// The commands of the terminal, with an authority and without one, and by a name that the certificate does not have.
fn commands_reach_it(pki: &Pki, port: u16) {
    let (url, other) = (format!("https://localhost:{port}"), format!("https://127.0.0.1:{port}"));
    let (ca, plain) = (pki.ca(), format!("http://localhost:{port}"));
    let ca = ca.to_str().unwrap();
    let ran = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
        command.env_remove("HAPAX_ADMIN_CA").env_remove("HAPAX_ADMIN_TOKEN").args(arguments);
        let done = command.stdin(Stdio::null()).output().unwrap();
        let text = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
        (done.status.code(), text.concat())
    };
    let (code, text) = ran(&["windows", "list", "--admin", &url, "--admin-ca", ca]);
    assert!(code == Some(0) && text.contains("default"), "{text}");
    let (code, text) = ran(&["record", "--seconds", "0.01", "--admin", &url, "--admin-ca", ca]);
    assert!(code == Some(0) && text.contains("\"end\""), "{text}");
    for arguments in [
        ["windows", "list", "--admin", &url].as_slice(),
        &["windows", "list", "--admin", &other, "--admin-ca", ca],
        &["record", "--admin", &url],
    ] {
        let (code, text) = ran(arguments);
        assert!(code == Some(1) && text.contains("does not show that it is the relay"), "{text}");
        assert!(text.contains("--admin-ca FILE"), "{text}");
    }
    let (code, text) = ran(&["windows", "list", "--admin", &url, "--admin-ca", "no/such/file"]);
    assert!(code == Some(2) && text.contains("no/such/file"), "{text}");
    assert_eq!(ran(&["windows", "list", "--admin", &plain]).0, Some(1), "there is no plain HTTP");
}
