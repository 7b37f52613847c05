//! The PROXY protocol: a header in front of a connection, in which a proxy says who the client is.
//!
//! Hapax reads the header on listeners with `proxy_protocol = true`, from proxies in `trusted` only, and writes it to the broker if
//! `upstream_proxy_protocol` says so. Both versions are read; version 2 is written.
//!
//! A loopback address means "this host", so it must not travel between hosts. If a proxy on another host says that a client is on
//! its loopback, the client counts as being on the proxy's host. If a client of Hapax's own host is announced to a broker on another
//! host, its address is the one that Hapax has there.

use bytes::{Buf, BytesMut};
use hapax_core::session::is_loopback;
use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader};
use std::net::{IpAddr, SocketAddr};

/// The longest header that is read, in bytes. Version 1 has 107 at most. Version 2 may carry more than addresses, such as the
/// client's certificate as the proxy has seen it.
pub(super) const LONGEST: usize = 4096;

/// The two addresses of a client's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// where the client is
    pub client: SocketAddr,
    /// where it has connected to
    pub listener: SocketAddr,
}

/// Why a header is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum BadHeader {
    /// it is none
    #[error("this is no PROXY header; does the proxy send one?")]
    NoHeader,
    /// it is too long
    #[error("the PROXY header is longer than 4096 bytes")]
    TooLong,
}

/// Takes a header out of the bytes that were received. `direct` are the addresses of the socket itself, that is, of the proxy's connection.
/// Returns `None` if the header is not whole yet.
pub(super) fn take_header(received: &mut BytesMut, direct: Ends) -> Result<Option<Ends>, BadHeader> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (said, length) = match ProxyHeader::parse(received, config) {
        Ok((header, length)) => (header.proxied_address().cloned(), length),
        Err(proxy_header::Error::BufferTooShort) if received.len() > LONGEST => {
            return Err(BadHeader::TooLong);
        }
        Err(proxy_header::Error::BufferTooShort) => return Ok(None),
        Err(_) => return Err(BadHeader::NoHeader),
    };
    if length > LONGEST {
        return Err(BadHeader::TooLong);
    }
    received.advance(length);
    Ok(Some(said.map_or(direct, |said| believed(&said, direct))))
}

/// Returns what a proxy says, except that it is on Hapax's host while the proxy is not.
fn believed(said: &ProxiedAddress, direct: Ends) -> Ends {
    let is_here = |address: SocketAddr| is_loopback(address.ip());
    let client = if is_here(said.source) && !is_here(direct.client) { direct.client } else { said.source };
    Ends { client, listener: said.destination }
}

/// Returns the header for the broker. `ends` is the client's connection, `None` for one of Hapax itself. `own` is Hapax's address on
/// the connection to `broker`.
pub(super) fn header(ends: Option<Ends>, own: SocketAddr, broker: SocketAddr) -> Vec<u8> {
    let ends = ends.unwrap_or(Ends { client: own, listener: broker });
    let client = if is_loopback(ends.client.ip()) && !is_loopback(broker.ip()) { own } else { ends.client };
    let (source, destination) = of_one_family(client, ends.listener);
    let mut header = Vec::new();
    // This fails only for addresses of two families.
    let _ = ProxyHeader::with_address(ProxiedAddress::stream(source, destination)).encode_v2(&mut header);
    header
}

fn of_one_family(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (a, b) = (canonical(a), canonical(b));
    let as_v6 = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    if a.is_ipv4() == b.is_ipv4() { (a, b) } else { (as_v6(a), as_v6(b)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(client: &str, listener: &str) -> Ends {
        Ends { client: client.parse().unwrap(), listener: listener.parse().unwrap() }
    }

    fn read(bytes: &[u8], direct: Ends) -> (Result<Option<Ends>, BadHeader>, Vec<u8>) {
        let mut received = BytesMut::from(bytes);
        let found = take_header(&mut received, direct);
        (found, received.to_vec())
    }

    #[test]
    fn a_header_of_either_version_says_who_the_client_is() {
        let direct = ends("10.0.0.9:1", "10.0.0.1:5672");
        let said = ends("192.0.2.7:4711", "198.51.100.1:5671");
        let text = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 5671\r\nAMQP".to_vec();
        let binary = [header(Some(said), direct.listener, direct.client), b"AMQP".to_vec()].concat();
        for whole in [text, binary] {
            assert_eq!(read(&whole, direct), (Ok(Some(said)), b"AMQP".to_vec()));
            for end in 0..whole.len() - 4 {
                let part = &whole[..end];
                assert_eq!(read(part, direct), (Ok(None), part.to_vec()), "{part:?}");
            }
        }
    }

    #[test]
    fn who_is_not_named_is_the_proxy_itself() {
        let direct = ends("10.0.0.9:1", "10.0.0.1:5672");
        let local = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        for whole in [&b"PROXY UNKNOWN\r\n"[..], &local] {
            assert_eq!(read(whole, direct), (Ok(Some(direct)), Vec::new()));
        }
    }

    #[test]
    fn a_loopback_address_does_not_travel_between_hosts() {
        let far = ends("10.0.0.9:1", "10.0.0.1:5672");
        let near = ends("127.0.0.1:1", "127.0.0.1:5672");
        for said in ["TCP4 127.0.0.1 10.0.0.9 5 6", "TCP6 ::1 ::1 5 6", "TCP6 ::ffff:127.0.0.1 ::1 5 6"] {
            let line = format!("PROXY {said}\r\n");
            let client = |direct| read(line.as_bytes(), direct).0.unwrap().unwrap().client;
            assert_eq!(client(far), far.client, "{said}: the proxy's loopback is not ours");
            assert_ne!(client(near), near.client, "{said}");
            assert!(is_loopback(client(near).ip()), "{said}");
        }
        let (own, broker) = ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:5672".parse().unwrap());
        let told = |broker| read(&header(Some(near), own, broker), far).0.unwrap().unwrap().client;
        assert_eq!(told(broker), own, "the broker's loopback is not ours");
        let direct = |broker| read(&header(Some(near), own, broker), near).0.unwrap().unwrap().client;
        assert_eq!(direct("127.0.0.1:5672".parse().unwrap()), near.client);
    }

    #[test]
    fn addresses_of_two_families_are_written_in_one() {
        let mixed = ends("192.0.2.7:4711", "[2001:db8::1]:5671");
        let (own, broker) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap());
        let read = read(&header(Some(mixed), own, broker), mixed).0.unwrap().unwrap();
        assert_eq!(read, ends("[::ffff:192.0.2.7]:4711", "[2001:db8::1]:5671"));
    }

    #[test]
    fn a_header_without_end_is_refused() {
        let direct = ends("10.0.0.9:1", "10.0.0.1:5672");
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        assert_eq!(read(&long, direct).0, Err(BadHeader::NoHeader));
        let promised = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"[..], &[0; LONGEST]].concat();
        assert_eq!(read(&promised, direct).0, Err(BadHeader::TooLong));
        for other in [
            &b"AMQP\0\0\x09\x01"[..],
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
            b"PROXX TCP4 1.1.1.1 ",
        ] {
            assert_eq!(read(other, direct).0, Err(BadHeader::NoHeader), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_wait_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in any::<bool>()) {
            let direct = ends("10.0.0.9:1", "10.0.0.1:5672");
            let start: &[u8] = if text { b"PROXY TCP4 " } else { b"\r\n\r\n\0\r\nQUIT\n" };
            let _ = read(&[start, &bytes].concat(), direct);
            let _ = read(&bytes, direct);
            let endless = [start, &bytes, &[b'1'; 70_000]].concat();
            prop_assert_ne!(read(&endless, direct).0, Ok(None));
        }
    }
}
