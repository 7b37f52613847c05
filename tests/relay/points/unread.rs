//! A client that publishes and reads nothing meanwhile. RabbitMQ takes its messages, because its reader does not wait for its
//! writer, and so does Hapax.

use crate::e2e::raw::{Publish, Raw, Told};
use crate::e2e::site::Site;
use crate::e2e::wait;
use amq_protocol::protocol::{AMQPClass, basic};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

const MIB: usize = 1 << 20;
/// A body of the messages in the queue.
const BODY: usize = 10 << 10;

fn fill(site: &Site, queue: &str, megabytes: usize) -> usize {
    let mut direct = site.direct();
    direct.confirming(1);
    direct.declare(1, queue, &[]);
    let count = megabytes * 1_000_000 / BODY;
    let body = vec![b'd'; BODY];
    let octets =
        Publish { key: queue, body: &body, ..Publish::default() }.encode(1, direct.frame_max()).repeat(count);
    direct.write(&octets).unwrap();
    let mut acked = 0;
    while acked < count as u64 {
        match direct.next(1) {
            Told::Ack { tag, .. } => acked = acked.max(tag),
            other => panic!("{other:?}"),
        }
    }
    count
}

/// A consumer without acks on channel 2.
fn consume(client: &mut Raw, queue: &str) {
    client.open_channel(2);
    let consume = basic::Consume { queue: queue.into(), no_ack: true, ..Default::default() };
    client.send(2, &AMQPClass::Basic(basic::AMQPMethod::Consume(consume)));
}

/// Makes the frames of this many messages to `target`.
fn publishes(count: usize, max: u32) -> Vec<u8> {
    let one = |n: usize| Publish { body: b"", ..Publish::to("target", &n.to_string()) }.encode(1, max);
    (0..count).flat_map(one).collect()
}

/// A frame of the relay, as far as these tests want to know. Frames of two channels may alternate, even amid a message.
enum Read {
    /// the body of a delivery
    Body,
    /// an ack of all up to this tag, or of this one
    Ack(u64),
    /// `connection.close`: the code and the text
    Closed(u16, String),
    Other,
}

fn read(client: &mut Raw) -> Read {
    let frame = client.frame().expect("it is there").expect("the connection is open");
    match (frame.channel, frame.kind, &frame.payload[..]) {
        (2, 3, body) => {
            assert_eq!(body.len(), BODY);
            Read::Body
        }
        (1, 1, [0, 60, 0, 80, tag @ .., _]) => Read::Ack(u64::from_be_bytes(tag.try_into().unwrap())),
        (0, 1, [0, 10, 0, 50, high, low, length, rest @ ..]) => {
            let text = String::from_utf8_lossy(&rest[..usize::from(*length)]);
            Read::Closed(u16::from_be_bytes([*high, *low]), text.into_owned())
        }
        _ => Read::Other,
    }
}

/// Reads until all has been delivered, and all is acked.
fn read_all(client: &mut Raw, mut deliveries: usize, acks: u64) {
    let mut acked = 0;
    while deliveries > 0 || acked < acks {
        match read(client) {
            Read::Body => deliveries -= 1,
            Read::Ack(tag) => acked = acked.max(tag),
            Read::Closed(code, text) => panic!("{code} {text}"),
            Read::Other => {}
        }
    }
    assert_eq!(acked, acks);
}

/// A client consumes from a queue that holds `megabytes`, publishes `count` messages, and reads after that. `proven`: Hapax
/// knows already that it may publish, and need not ask first.
fn publish_then_read(
    vhost: &str,
    config: &str,
    megabytes: usize,
    count: usize,
    (confirms, proven): (bool, bool),
) {
    let Some(site) = Site::of_relay(vhost, config) else { return };
    let deliveries = fill(&site, "source", megabytes);
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "target", &[]);
    if proven {
        let mut other = site.client();
        other.confirming(1);
        super::acked(&other.publish_and_settle(1, &Publish::to("target", "the right is proven")));
        other.close();
    }
    let mut client = site.client();
    if confirms {
        client.confirming(1);
    } else {
        client.open_channel(1);
    }
    consume(&mut client, "source");
    let before = site.relay().memory() as usize;
    client.socket().set_write_timeout(Some(wait::PATIENCE)).unwrap();
    client.write(&publishes(count, client.frame_max())).expect("all is taken, although nothing is read");
    let grown = (site.relay().memory() as usize).saturating_sub(before) / MIB;
    println!("{megabytes} MB, {count} messages: {grown} MiB more are resident");
    assert!(grown < 160, "{grown} MiB");
    read_all(&mut client, deliveries, if confirms { count as u64 } else { 0 });
    site.until_metric("publishes_total", &[("verdict", "fresh")], (count + usize::from(proven)) as f64);
    site.until_metric("window_in_flight", &[], 0.0);
    client.close();
}

#[test]
fn p11_a_client_may_publish_thirty_thousand_before_it_reads_twenty_megabytes() {
    publish_then_read("p11-unread", "", 20, 30_000, (true, false));
    publish_then_read("p11-unread-plain", "", 20, 30_000, (false, true));
}

/// With far fewer unresolved messages than it publishes, Hapax has to read the acks that stand behind deliveries.
#[test]
fn p11_acks_behind_deliveries_are_read_for_a_client_that_reads_nothing() {
    publish_then_read("p11-behind", "[limits]\nmax_unresolved = 1000\n", 20, 15_000, (true, true));
    publish_then_read("p11-behind-plain", "[limits]\nmax_unresolved = 1000\n", 20, 15_000, (false, true));
}

#[test]
#[ignore = "takes long"]
fn p11_five_times_as_much_of_both() {
    publish_then_read("p11-five", "", 100, 150_000, (true, true));
}

/// Writes until the connection is ended. Returns how many octets were taken.
fn pour(socket: &mut TcpStream, octets: &[u8]) -> usize {
    socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut taken = 0;
    wait::until("the connection is ended", 2 * wait::PATIENCE, || {
        match socket.write(&octets[taken % octets.len()..]) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Some(()),
        }
        None
    });
    taken
}

/// The bounds are soon reached.
const TIGHT: &str = "[limits]\nmax_unresolved = 100\nunread_bytes = \"1MiB\"\n[[window]]\nname = \"w\"\ncapacity = 10000\n\
                     [timeouts]\nunread = \"1s\"\n";

#[test]
fn p11_a_client_that_never_reads_is_ended_with_a_reason_and_disturbs_nobody() {
    let Some(site) = Site::of_relay("p11-never", &format!("{TIGHT}handshake = \"1s\"\n")) else { return };
    fill(&site, "source", 40);
    let mut honest = site.client();
    honest.confirming(1);
    honest.declare(1, "target", &[]);
    super::acked(&honest.publish_and_settle(1, &Publish::to("target", "the right is proven")));
    let mut hostile = site.client();
    hostile.confirming(1);
    consume(&mut hostile, "source");
    let before = site.relay().memory() as usize;
    let octets = publishes(20_000, hostile.frame_max());
    let mut socket = hostile.socket();
    let pouring = std::thread::spawn(move || pour(&mut socket, &octets));
    let mut rounds = 0;
    while !pouring.is_finished() {
        super::acked(&honest.publish_and_settle(1, &Publish::to("target", &format!("honest {rounds}"))));
        rounds += 1;
        let grown = (site.relay().memory() as usize).saturating_sub(before) / MIB;
        assert!(grown < 64, "{grown} MiB");
    }
    let taken = pouring.join().unwrap();
    println!("{taken} octets were taken; {rounds} honest messages meanwhile");
    assert_eq!(site.metrics().sum("connections_unread_total", &[]), 1.0);
    site.relay().until_says("the client publishes, but does not read");
    // Nothing of it is left, and nothing that was taken is in doubt for others.
    site.until_metric("window_in_flight", &[], 0.0);
    site.until_metric("connections", &[], 1.0);
}

/// A client publishes for too long before it reads. It finds the reason when it does.
#[test]
fn p11_a_client_that_reads_too_late_reads_the_reason() {
    let Some(site) = Site::of_relay("p11-late", TIGHT) else { return };
    fill(&site, "source", 40);
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "target", &[]);
    super::acked(&client.publish_and_settle(1, &Publish::to("target", "the right is proven")));
    consume(&mut client, "source");
    // More than all buffers hold.
    let octets = publishes(250_000, client.frame_max());
    // The rest is read and dropped after the connection was closed, so the write goes through.
    client.socket().set_write_timeout(Some(wait::PATIENCE)).unwrap();
    client.write(&octets).unwrap();
    let mut acked = 0;
    let (code, text) = loop {
        match read(&mut client) {
            Read::Ack(tag) => acked = acked.max(tag),
            Read::Closed(code, text) => break (code, text),
            Read::Body | Read::Other => {}
        }
    };
    assert_eq!(code, 506, "{text}");
    assert!(text.contains("read while you publish") && acked < 250_000, "{text}");
    site.until_metric("window_in_flight", &[], 0.0);
    let stored = site.metrics().sum("publishes_total", &[("verdict", "fresh")]);
    assert!(stored >= acked as f64, "what was acked is stored");
}
