//! Users who may log in from the broker's own host only. The broker takes all clients of a relay on its host for local ones.

use super::script::{connection_open, start_ok, tune_ok};
use crate::e2e::raw::{HEADER, Raw, method_frame};
use crate::e2e::relay::Relay;
use crate::e2e::site::{shared_rabbit, without_relay};
use amq_protocol::protocol::{AMQPClass, connection};
use amq_protocol::types::{AMQPValue, FieldTable};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// An address of this host that is no loopback address. Nothing is sent: the kernel only chooses the address.
pub(crate) fn address_of_this_host() -> Option<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// A `start-ok` whose client understands a `connection.close` as the answer, or does not.
pub(crate) fn login(mechanism: &str, response: &str, told: bool) -> Vec<u8> {
    let mut capabilities = FieldTable::default();
    capabilities.insert("authentication_failure_close".into(), AMQPValue::Boolean(told));
    let mut client_properties = FieldTable::default();
    client_properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    let ok = connection::StartOk {
        client_properties,
        mechanism: mechanism.into(),
        response: response.into(),
        locale: "en_US".into(),
    };
    method_frame(0, &AMQPClass::Connection(connection::AMQPMethod::StartOk(ok)))
}

/// All octets that come after `connection.start` until the end of the socket, and when that comes.
fn refusal(addr: SocketAddr, login: &[u8]) -> (Vec<u8>, Duration) {
    let mut client = Raw::dial(addr).unwrap();
    client.write(HEADER).unwrap();
    client.frame().unwrap().expect("start");
    #[expect(clippy::disallowed_methods, reason = "the time until the socket ends")]
    let begin = Instant::now();
    // A client that is impatient sends the rest of its handshake at once.
    client.write(&[login, &tune_ok(100), &connection_open("/")].concat()).unwrap();
    client.socket().set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    let mut octets = Vec::new();
    loop {
        match client.frame() {
            Ok(Some(frame)) => octets.extend(frame.encode()),
            Ok(None) => break,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error} after {octets:?}"),
        }
    }
    (octets, begin.elapsed())
}

#[test]
fn guest_from_another_host_gets_the_brokers_refusal() {
    if without_relay() {
        return println!("passed over: it is about what only the relay does");
    }
    let Some(host) = address_of_this_host() else {
        return println!("passed over: this host has no address besides the loopback");
    };
    let rabbit = shared_rabbit();
    let relay = Relay::open(rabbit.addr(), "");
    let from_afar = SocketAddr::new(host, relay.addr().port());
    let table = "\u{5}LOGINS\0\0\0\u{5}guest\u{8}PASSWORDS\0\0\0\u{5}guest";
    let wrong_table = "\u{5}LOGINS\0\0\0\u{5}guest\u{8}PASSWORDS\0\0\0\u{5}wrong";
    // RabbitMQ gives the same answer to a wrong password as to a loopback user of another host. All take three seconds.
    thread::scope(|scope| {
        let mut pairs = Vec::new();
        for told in [true, false] {
            for (mechanism, right, wrong) in
                [("PLAIN", "\0guest\0guest", "\0guest\0wrong"), ("AMQPLAIN", table, wrong_table)]
            {
                let (theirs, ours) = (login(mechanism, wrong, told), login(mechanism, right, told));
                let theirs = scope.spawn(move || refusal(rabbit.addr(), &theirs));
                let ours = scope.spawn(move || refusal(from_afar, &ours));
                pairs.push((format!("{mechanism}, capability {told}"), theirs, ours, told));
            }
        }
        for (what, theirs, ours, told) in pairs {
            let ((theirs, their_time), (ours, our_time)) = (theirs.join().unwrap(), ours.join().unwrap());
            assert_eq!(theirs.escape_ascii().to_string(), ours.escape_ascii().to_string(), "{what}");
            assert_eq!(!theirs.is_empty(), told, "{what}");
            let apart = their_time.abs_diff(our_time);
            assert!(apart < Duration::from_secs(2), "{what}: {their_time:?}, {our_time:?}");
        }
    });
    assert_eq!(relay.metrics().sum("logins_refused_total", &[]), 4.0);
    relay.until_says("login refused: this user may log in from this host only");

    // Guest may log in from this host. Everybody else may log in from anywhere.
    Raw::connect(relay.addr(), "/").close();
    let mut bob = Raw::dial(from_afar).unwrap();
    bob.write(HEADER).unwrap();
    bob.frame().unwrap().expect("start");
    let bobs = refusal(from_afar, &start_ok("bob"));
    assert!(bobs.0.is_empty(), "the broker itself refuses bob, and says nothing: he has shown no capability");
    assert_eq!(relay.metrics().sum("logins_refused_total", &[]), 4.0, "bob is the broker's to refuse");
}

#[test]
fn an_empty_list_of_loopback_users_refuses_nobody() {
    if without_relay() {
        return println!("passed over: it is about what only the relay does");
    }
    let Some(host) = address_of_this_host() else {
        return println!("passed over: this host has no address besides the loopback");
    };
    let relay = Relay::open(shared_rabbit().addr(), "loopback_users = []\n");
    let from_afar = SocketAddr::new(host, relay.addr().port());
    Raw::connect(from_afar, "/").close();
    relay.until_says("guest can log in from anywhere");
}
