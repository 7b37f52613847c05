//! Point 11: two heartbeat clocks, back-pressure, and nothing that grows without a bound.

use super::acked;
use crate::e2e::raw::{Login, Publish, Raw};
use crate::e2e::site::Site;
use crate::e2e::wait;
use amq_protocol::protocol::{AMQPClass, basic};
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// With heartbeats of one second RabbitMQ gives a silent peer up after two, and so should we.
const SECONDS_OF_SILENCE: Duration = Duration::from_secs(4);

#[test]
fn p11_the_upstream_hears_us_while_nothing_but_duplicates_flow() {
    let Some(site) = Site::of_relay("p11-duplicates", "") else { return };
    let mut client = Raw::login(site.addr(), &Login { heartbeat: 1, ..Login::guest(&site.vhost) }).unwrap();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let begin = Instant::now();
    while begin.elapsed() < SECONDS_OF_SILENCE {
        acked(&client.publish_and_settle(1, &Publish::to("q", "a")));
    }
    assert_eq!(client.drain(1, "q"), ["a"]);
}

#[test]
fn p11_a_client_that_falls_silent_is_given_up_as_by_the_broker() {
    let site = Site::new("p11-silent", "");
    let login = Login { heartbeat: 1, ..Login::guest(&site.vhost) };
    let [theirs, ours] = [site.rabbit.addr(), site.addr()].map(|addr| {
        let mut client = Raw::login(addr, &login).unwrap();
        client.open_channel(1);
        let begin = Instant::now();
        // Heartbeats come all the while, until the patience with us is over.
        let rest = client.rest();
        (rest, begin.elapsed())
    });
    assert_eq!(ours.0, theirs.0, "neither says a word");
    assert!(ours.1 > Duration::from_secs(1) && ours.1 < Duration::from_secs(10), "{ours:?} {theirs:?}");
}

#[test]
fn p11_a_publisher_is_stopped_when_the_broker_does_not_read() {
    let Some(site) = Site::with_cut("p11-publisher", "") else { return };
    let mut client = site.client();
    client.open_channel(1);
    client.declare(1, "q", &[]);
    site.cut().stall_up();
    let before = site.relay().memory();
    let mut socket = client.socket();
    socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let body = vec![0; 1 << 20];
    let stopped = (0..512).find_map(|n: u32| {
        let id = n.to_string();
        let publish = Publish { body: &body, ..Publish::to("q", &id) };
        socket.write_all(&publish.encode(1, client.frame_max())).err().map(|error| (n, error.kind()))
    });
    let Some((n, ErrorKind::WouldBlock)) = stopped else { panic!("half a GB was taken: {stopped:?}") };
    // Sockets of the kernel on both sides of the relay and of the forwarder hold a few MB each.
    assert!(n < 64, "{n} MB were taken");
    let grown = site.relay().memory().saturating_sub(before);
    assert!(grown < 32 << 20, "the relay has grown by {grown} bytes");
    site.cut().resume();
    drop(client);
}

#[test]
fn p11_a_consumer_that_does_not_read_stops_the_reading_from_the_broker() {
    let Some(site) = Site::of_relay("p11-consumer", "") else { return };
    let mut direct = site.direct();
    direct.confirming(1);
    direct.declare(1, "q", &[]);
    let body = vec![b'x'; 1 << 20];
    let count = 100_usize;
    for n in 0..count {
        let id = n.to_string();
        direct.publish_and_settle(1, &Publish { body: &body, ..Publish::to("q", &id) });
    }
    let mut client = site.client();
    client.open_channel(1);
    let before = site.relay().memory();
    let consume = basic::Consume { queue: "q".into(), no_ack: true, ..basic::Consume::default() };
    client.call(1, &AMQPClass::Basic(basic::AMQPMethod::Consume(consume))).unwrap();
    // Nothing is read now. All there is of the queue is on its way, as far as anybody takes it: the relay has stopped
    // when its memory has, over a few looks at it.
    let (mut last, mut same) = (0, 0);
    wait::until("the relay's memory stands still", wait::PATIENCE, || {
        let now = site.relay().memory();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same == 30).then_some(())
    });
    let grown = last.saturating_sub(before);
    assert!(grown < 32 << 20, "the relay has grown by {grown} bytes");
    // And it carries on when the client does.
    let octets_of = |bytes: &[u8]| bytes.iter().filter(|octet| **octet == b'x').count();
    let mut left = count * (1 << 20) - octets_of(client.read_ahead());
    let (mut socket, mut part) = (client.socket(), vec![0; 1 << 20]);
    while left > 0 {
        let length = socket.read(&mut part).unwrap();
        assert_ne!(length, 0);
        left = left.saturating_sub(octets_of(&part[..length]));
    }
}
