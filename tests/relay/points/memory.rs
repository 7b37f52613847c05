//! Point 17: one budget. The relay stops reading from the connection that holds the most, and nobody else notices.

use super::acked;
use crate::e2e::raw::{Publish, Raw, Told, raw_method};
use crate::e2e::site::Site;
use crate::e2e::wait;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// The longest time that an honest client waits for its ack on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Writes as long as somebody reads. Gives the number of octets that were taken.
fn pour(socket: &mut TcpStream, octets: &[u8]) -> usize {
    socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut taken = 0;
    while taken < octets.len() {
        match socket.write(&octets[taken..]) {
            Ok(count) if count > 0 => taken += count,
            _ => break,
        }
    }
    taken
}

fn honest(client: &mut Raw, name: &str, rounds: usize) {
    for n in 0..rounds {
        let begin = Instant::now();
        acked(&client.publish_and_settle(1, &Publish::to("q", &format!("{name}-{n}"))));
        assert!(begin.elapsed() < AT_ONCE, "{name}: {:?}", begin.elapsed());
    }
}

fn until_memory_below(site: &Site, bytes: f64) {
    wait::until("the memory is given back", 3 * wait::PATIENCE, || {
        let metrics = site.metrics();
        let paused = metrics.sum("memory_paused_connections", &[]);
        (metrics.sum("memory_bytes", &[]) < bytes && paused == 0.0).then_some(())
    });
}

#[test]
fn p17_waiters_of_sixty_connections_stay_within_the_budget() {
    let config = "[limits]\nmemory = \"64MiB\"\nwaiters_per_id = 100000\n[timeouts]\nin_flight = \"15s\"\n";
    let Some(site) = Site::of_relay("p17-waiters", config) else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    honest(&mut client, "before", 1);
    let before = site.relay().memory();
    // Somebody begins a message and does not end it: all that is published with its id waits.
    let mut holder = site.client();
    holder.confirming(1);
    let held = Publish { body: b"never", ..Publish::to("q", "held") };
    holder.write(&[held.method(1), held.header(1)].concat()).unwrap();
    site.until_metric("publishes_total", &[("verdict", "fresh")], 2.0);
    let body = vec![b'w'; 100 << 10];
    let mut crowd: Vec<Raw> = (0..60).map(|_| site.client()).collect();
    let octets =
        Publish { body: &body, ..Publish::to("q", "held") }.encode(1, crowd[0].frame_max()).repeat(150);
    crowd.iter_mut().for_each(|raw| raw.confirming(1));
    let mut most = 0;
    let taken: usize = thread::scope(|scope| {
        let pouring: Vec<_> = crowd
            .iter()
            .map(|raw| {
                let (mut socket, octets) = (raw.socket(), &octets);
                scope.spawn(move || pour(&mut socket, octets))
            })
            .collect();
        while pouring.iter().any(|thread| !thread.is_finished()) {
            honest(&mut client, &format!("meanwhile-{most}"), 1);
            most = most.max(site.relay().memory());
        }
        pouring.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(taken < 60 * octets.len(), "all was taken");
    let metrics = site.metrics();
    let (held, paused) = (metrics.sum("memory_bytes", &[]), metrics.sum("memory_paused_connections", &[]));
    let grown = most.saturating_sub(before) / MIB;
    println!("{grown} MiB more are resident, {:.1} MiB are counted, {paused} are paused", held / MIB as f64);
    assert!(paused > 0.0, "somebody waits");
    assert!(held < 96.0 * MIB as f64 && grown < 128, "{held} {grown} MiB");
    // The wait is over, and they go on one after the other; then they leave.
    drop(crowd);
    drop(holder);
    until_memory_below(&site, MIB as f64);
    honest(&mut client, "after", 1);
}

/// As much as the allocator may keep of a burst.
const KEPT: u64 = 64 * MIB;

#[test]
fn p17_memory_is_given_back() {
    let config = "[limits]\nmemory = \"4GiB\"\nwaiters_per_id = 100000\n";
    let Some(site) = Site::of_relay("p17-given-back", config) else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    honest(&mut client, "before", 1);
    let before = site.relay().memory();
    let mut holder = site.client();
    holder.confirming(1);
    let held = Publish { body: b"never", ..Publish::to("q", "held") };
    holder.write(&[held.method(1), held.header(1)].concat()).unwrap();
    site.until_metric("publishes_total", &[("verdict", "fresh")], 2.0);
    let body = vec![b'w'; 100 << 10];
    let mut crowd: Vec<Raw> = (0..30).map(|_| site.client()).collect();
    let octets = Publish { body: &body, ..Publish::to("q", "held") }.encode(1, client.frame_max()).repeat(90);
    for raw in &mut crowd {
        raw.confirming(1);
        assert_eq!(pour(&mut raw.socket(), &octets), octets.len());
    }
    site.until_metric("publishes_total", &[("verdict", "in_flight")], 30.0 * 90.0);
    let peak = site.relay().memory();
    assert!(peak > before + 250 * MIB, "{} MiB are held", peak / MIB);
    drop(crowd);
    drop(holder);
    until_memory_below(&site, MIB as f64);
    wait::until("the system has it back", 3 * wait::PATIENCE, || {
        (site.relay().memory() < before + KEPT).then_some(())
    });
    println!("{} MiB, then {}, then {}", before / MIB, peak / MIB, site.relay().memory() / MIB);
}

#[test]
fn p17_open_transactions_stay_within_the_budget() {
    let Some(site) = Site::of_relay("p17-transactions", "[limits]\nmemory = \"16MiB\"\n") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let mut crowd: Vec<Raw> = (0..16).map(|_| site.client()).collect();
    let mut refused = 0;
    for (who, raw) in crowd.iter_mut().enumerate() {
        let max = raw.frame_max();
        // Without waiting for an answer: a connection that holds more than its share is not read any more.
        let octets: Vec<u8> = (1..=3)
            .flat_map(|channel| {
                let message = move |n| {
                    let id = format!("{who}-{channel}-{n}");
                    Publish { key: "q", id: Some(id.as_bytes()), ..Publish::default() }.encode(channel, max)
                };
                [raw_method(channel, &[0, 20, 0, 10, 0]), raw_method(channel, &[0, 90, 0, 10])]
                    .into_iter()
                    .chain((0..1500).map(message))
            })
            .flatten()
            .collect();
        pour(&mut raw.socket(), &octets);
        honest(&mut client, &format!("beside-{who}"), 1);
        let metrics = site.metrics();
        let held = metrics.sum("memory_bytes", &[]);
        assert!(held < 24.0 * MIB as f64, "{held} bytes are held");
    }
    for mut raw in crowd {
        raw.socket().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        while let Ok(Some((_, told))) = raw.receive() {
            match told {
                Told::ChannelClosed { code, text } | Told::ConnectionClosed { code, text } => {
                    assert_eq!(code, 506, "{text}");
                    refused += 1;
                }
                // of channel.open, or of tx.select
                Told::Method(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(refused > 0, "48 transactions of 1,500 are too many for 16 MiB");
    until_memory_below(&site, MIB as f64);
}

/// Each holds a little less than its share in a transaction, and more than that with its buffers. Only their `tx.commit`s would
/// free memory, and nobody reads these.
#[test]
fn p17_a_connection_that_only_its_own_commit_could_free_does_not_stand_still() {
    let Some(site) = Site::of_relay("p17-commits", "[limits]\nmemory = \"16MiB\"\n") else { return };
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let mut crowd: Vec<Raw> = (0..16).map(|_| site.client()).collect();
    for (who, raw) in crowd.iter_mut().enumerate() {
        raw.open_channel(1);
        raw.tx_select(1).unwrap();
        let max = raw.frame_max();
        let body = [b'b'; 100];
        let message = |n| {
            let id = format!("{who}-{n}");
            Publish { key: "q", id: Some(id.as_bytes()), body: &body, ..Publish::default() }.encode(1, max)
        };
        let octets: Vec<u8> = (0..1700).flat_map(message).collect();
        pour(&mut raw.socket(), &octets);
    }
    let (mut committed, mut refused) = (0, 0);
    for raw in &mut crowd {
        match raw.tx_commit(1) {
            Ok(_) => committed += 1,
            Err(Told::ChannelClosed { code: 506, .. } | Told::ConnectionClosed { code: 506, .. }) => {
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    println!("{committed} are committed, {refused} are refused");
    assert!(refused > 0, "together they hold more than half of the memory");
    honest(&mut client, "after", 1);
}
