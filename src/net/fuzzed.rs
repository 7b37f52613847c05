//! Feeds arbitrary bytes to the parts that read a stranger's bytes before AMQP, and checks that nothing but a refusal comes of them. It is
//! for the fuzz targets `proxy` and `tls` (`fuzz/`), and for tests.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a panic is how a check fails"
)]

use super::proxy::{Ends, LONGEST, take_header};
use super::records::Records;
use bytes::BytesMut;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

/// The data that the peer sends when the handshake is over.
const SAID: &[u8] = b"AMQP\x00\x00\x09\x01 and what follows";
/// Bytes that a peer may send during the handshake.
const ROOM: usize = 16 << 10;

/// Reads bytes as a PROXY header. It must make no difference in how many pieces they come, and what follows the header must be left.
pub fn proxy(bytes: &[u8]) {
    let ip = |last| SocketAddr::from(([10, 0, 0, last], 5672));
    let direct = Ends { client: ip(9), listener: ip(1) };
    let mut whole = BytesMut::from(bytes);
    let at_once = take_header(&mut whole, direct);
    let (mut received, mut taken, mut in_pieces) = (BytesMut::new(), 0, Ok(None));
    for piece in bytes.chunks(1) {
        received.extend_from_slice(piece);
        taken += 1;
        in_pieces = take_header(&mut received, direct);
        if in_pieces != Ok(None) {
            break;
        }
        assert!(taken <= LONGEST, "it waits for more than the longest header");
    }
    match at_once {
        Ok(Some(_)) => {
            assert_eq!(in_pieces, at_once);
            assert_eq!((&whole[..], received.len()), (&bytes[taken..], 0), "what follows is left");
        }
        Ok(None) => assert_eq!((in_pieces, &whole[..]), (Ok(None), bytes)),
        Err(_) => assert!(in_pieces.is_err(), "{in_pieces:?} in pieces, {at_once:?} at once"),
    }
}

/// The settings of both sides of a TLS connection. The client trusts the server's certificate, which is for `localhost`.
#[derive(Clone, Debug)]
pub struct Peers {
    /// of the side that listens
    pub server: Arc<ServerConfig>,
    /// of the side that connects
    pub client: Arc<ClientConfig>,
}

impl Peers {
    /// Makes them of a certificate for `localhost` that has signed itself, and its key.
    pub fn new(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Peers {
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Peers { server: Arc::new(server), client: Arc::new(client) }
    }
}

/// Lets Hapax's side of a TLS connection, a client's or a broker's peer as the first octet says, read a real handshake and some data that
/// the octets change on the way: `[side, size of a piece, n, n × (position, position, xor), bytes that are put behind the first flight]`.
/// Hapax may refuse these bytes. The data that it lets through must be the beginning of the data that the peer has sent.
pub fn tls(peers: &Peers, octets: &[u8]) {
    let (&[side, size, count], rest) = octets.split_first_chunk().unwrap_or((&[0; 3], &[]));
    let (edits, tail) = rest.split_at(rest.len().min(3 * usize::from(count)));
    let edits: Vec<(usize, u8)> = edits
        .chunks_exact(3)
        .map(|edit| (usize::from(edit[0]) << 8 | usize::from(edit[1]), edit[2]))
        .filter(|(_, xor)| *xor != 0)
        .collect();
    let name = ServerName::try_from("localhost").unwrap();
    let client = Connection::Client(ClientConnection::new(Arc::clone(&peers.client), name).unwrap());
    let server = Connection::Server(ServerConnection::new(Arc::clone(&peers.server)).unwrap());
    let (ours, mut theirs) = if side & 1 == 0 { (server, client) } else { (client, server) };
    let mut ours = Records::new(ours, ROOM);
    let (mut inbox, mut position, mut said, mut is_broken) = (BytesMut::new(), 0, false, false);
    for round in 0..8 {
        let mut wire = Vec::new();
        if !theirs.is_handshaking() && !said {
            said = true;
            theirs.writer().write_all(SAID).unwrap();
        }
        while theirs.wants_write() {
            theirs.write_tls(&mut wire).unwrap();
        }
        for (at, xor) in &edits {
            if let Some(byte) = at.checked_sub(position).and_then(|at| wire.get_mut(at)) {
                *byte ^= xor;
            }
        }
        position += wire.len();
        if round == 0 {
            wire.extend_from_slice(tail);
        }
        for piece in wire.chunks(1 + usize::from(size)) {
            is_broken = is_broken || ours.receive(piece, &mut inbox).is_err();
            assert!(!ours.is_handshaking() || inbox.is_empty(), "data before the handshake is over");
        }
        let answer = ours.take_output();
        if theirs.read_tls(&mut &answer[..]).is_err() || theirs.process_new_packets().is_err() {
            break;
        }
    }
    assert!(SAID.starts_with(&inbox), "it lets through what nobody has said: {inbox:?}");
    if edits.is_empty() && tail.is_empty() {
        assert_eq!((&inbox[..], is_broken), (SAID, false), "nobody has changed anything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static PEERS: LazyLock<Peers> = LazyLock::new(|| {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Peers::new(cert.der().clone(), PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap())
    });

    #[test]
    fn nobody_changes_anything() {
        for side in [0, 1] {
            for size in [0, 1, 100, 255] {
                tls(&PEERS, &[side, size, 0]);
            }
        }
    }

    #[test]
    fn strangers_that_promise_much() {
        for start in [
            &b"\x16\x03\x01\xff\xff\x01\xff\xff\xff"[..],
            b"\x17\x03\x03\x00\x00",
            b"\x15\x03\x03\x00\x02\x02\x28",
            b"AMQP",
        ] {
            for side in [0, 1] {
                tls(&PEERS, &[&[side, 255, 0][..], &start.repeat(8_000)].concat());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        /// An edit hits a byte of the first two kilobytes: hello, key exchange, finished, data.
        #[test]
        fn what_comes_through_tls_is_what_was_said(
            side in 0_u8..2,
            size in any::<u8>(),
            edits in proptest::collection::vec((0_u16..2_000, any::<u8>()), 0..4),
            tail in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut octets = vec![side, size, u8::try_from(edits.len()).unwrap()];
            for (at, xor) in edits {
                octets.extend(at.to_be_bytes());
                octets.push(xor);
            }
            octets.extend(tail);
            tls(&PEERS, &octets);
        }

        #[test]
        fn pieces_of_a_proxy_header_make_no_difference(
            start in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 1.2.3.4 ", b"PROXY TCP6 ::1 ::1 1 ", b"PROXY UNKNOWN",
                b"\r\n\r\n\0\r\nQUIT\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24", b"\r\n\r\n\0\r\nQUIT\n\x20\0\x10"]),
            rest in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..120),
                "[0-9a-f.: \r\n]{0,120}".prop_map(String::into_bytes),
            ],
        ) {
            proxy(&[start, &rest].concat());
        }
    }
}
