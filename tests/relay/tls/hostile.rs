//! Strangers at a TLS listener: half handshakes, endless ones, and what is no TLS. None of them holds anything for longer than
//! `timeouts.handshake`, and none keeps others out.

use super::{Encrypted, vhost};
use crate::e2e::pki::Pki;
use crate::e2e::raw::{HEADER, Raw};
use crate::e2e::wait;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The first octets of a client's handshake.
fn client_hello(site: &Encrypted) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(site.client(), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    hello
}

/// Reads to the end of the socket, orderly or by a reset.
fn rest(socket: &mut TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let mut octets = Vec::new();
    let mut part = [0; 4096];
    loop {
        match socket.read(&mut part) {
            Ok(0) => return octets,
            Ok(count) => octets.extend(&part[..count]),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the end in time");
                return octets;
            }
        }
    }
}

#[test]
fn amqp_at_a_tls_port_and_tls_at_an_amqp_port_are_answered_at_once() {
    let Some(site) = Encrypted::new() else { return };
    let mut plain = TcpStream::connect(site.addr).unwrap();
    plain.write_all(HEADER).unwrap();
    let answer = rest(&mut plain);
    assert_eq!(answer.first(), Some(&0x15), "an alert of TLS: {answer:?}");
    wait::until("the log says what the client did", wait::PATIENCE, || {
        site.relay.log().contains("does the client speak AMQP without TLS?").then_some(())
    });
    let mut encrypted = TcpStream::connect(site.relay.addr()).unwrap();
    encrypted.write_all(&client_hello(&site)).unwrap();
    assert_eq!(rest(&mut encrypted), HEADER, "as RabbitMQ answers what is no AMQP");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the time until a socket ends")]
fn half_handshakes_end_with_the_handshake_timeout() {
    let config = "[timeouts]\nhandshake = \"1s\"\n";
    let Some(site) = Encrypted::with(Pki::new(), "", "", config) else { return };
    let hello = client_hello(&site);
    let begun = Instant::now();
    let halves: Vec<TcpStream> = [&[][..], &hello[..1], &hello[..hello.len() - 1], &hello]
        .map(|said| {
            let mut socket = TcpStream::connect(site.addr).unwrap();
            socket.write_all(said).unwrap();
            socket
        })
        .into();
    // Who sends an octet now and then gets no more time.
    let mut slow = TcpStream::connect(site.addr).unwrap();
    let mut sent = 0;
    while sent < hello.len()
        && slow.write_all(&hello[sent..=sent]).is_ok()
        && begun.elapsed() < wait::PATIENCE
    {
        sent += 1;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(sent < hello.len(), "it was closed before");
    for mut socket in halves {
        rest(&mut socket);
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    // The one that said nothing at all waits in silence, as a health check that hangs does.
    wait::until("all are counted", wait::PATIENCE, || {
        (site.relay.metrics().sum("tls_handshakes_failed_total", &[]) == 5.0).then_some(())
    });
    wait::until("none is left", wait::PATIENCE, || {
        (site.relay.metrics().sum("connections", &[]) == 0.0).then_some(())
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the time until a socket ends")]
fn a_handshake_without_end_is_cut_after_16_kib() {
    let Some(site) = Encrypted::new() else { return };
    // The beginning of a ClientHello of nearly 64 KiB, in records of 8 KiB.
    let mut record = vec![0x16, 3, 1, 0x20, 0, 1, 0, 0xff, 0x00, 3, 3];
    record.resize(5 + 0x2000, 0);
    let begun = Instant::now();
    let mut socket = TcpStream::connect(site.addr).unwrap();
    for _ in 0..3 {
        let _ = socket.write_all(&record);
    }
    rest(&mut socket);
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "long before timeouts.handshake: {:?}",
        begun.elapsed()
    );
    assert_eq!(site.relay.metrics().sum("tls_handshakes_failed_total", &[]), 1.0);
    wait::until("the log says it", wait::PATIENCE, || {
        site.relay.log().contains("too much for a TLS handshake").then_some(())
    });
}

#[test]
fn half_handshakes_give_way_to_clients_that_log_in() {
    let config = "[limits]\nmax_connections = 4\nconnections_per_address = 4\n";
    let Some(site) = Encrypted::with(Pki::new(), "", "", config) else { return };
    let login = vhost("tls-give-way");
    let hello = client_hello(&site);
    let half = || {
        let mut socket = TcpStream::connect(site.addr).unwrap();
        let _ = socket.write_all(&hello[..100]);
        socket
    };
    let _strangers: Vec<TcpStream> = (0..8).map(|_| half()).collect();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(site.dial(&site.client()).unwrap().logged_in(&login).unwrap());
        let _more = half();
    }
    assert!(site.relay.metrics().sum("connections_displaced_total", &[]) >= 4.0);
    clients.into_iter().for_each(Raw::close);
}
