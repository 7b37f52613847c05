//! A publisher that notes when each id was acked, until its connection breaks.

use super::raw::{Publish, Told, Value};
use super::retry::{self, over};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Publishes under way at a time.
const UNDER_WAY: usize = 100;

/// The ids of a publisher, as it knows them.
#[derive(Debug, Default)]
pub struct Published {
    /// the ids that were acked, and when
    pub acked: BTreeMap<String, Instant>,
    /// the ids whose ack did not come before the connection broke
    pub unknown: BTreeSet<String>,
}

/// Publishes these ids with confirms until all are acked or the connection breaks. `count` counts acks.
pub fn publish(
    (addr, vhost, queue): (SocketAddr, &str, &str),
    ids: impl IntoIterator<Item = String>,
    count: &AtomicUsize,
) -> Published {
    let mut published = Published::default();
    let _ = run(addr, vhost, queue, ids.into_iter(), count, &mut published);
    published
}

/// A message with its id as the message-id, and as a producer and its number, too: of `a-7` the number 7 of the producer `a`.
pub fn numbered(queue: &str, id: &str, frame_max: u32) -> Vec<u8> {
    let publish = Publish::to(queue, id);
    match id.rsplit_once('-').and_then(|(producer, number)| Some((producer, number.parse().ok()?))) {
        None => publish.encode(1, frame_max),
        Some((producer, number)) => {
            let headers =
                [("x-hapax-producer", Value::Text(producer)), ("x-hapax-sequence", Value::Long(number))];
            Publish { headers: &headers, ..publish }.encode(1, frame_max)
        }
    }
}

fn run(
    addr: SocketAddr,
    vhost: &str,
    queue: &str,
    mut ids: impl Iterator<Item = String>,
    count: &AtomicUsize,
    published: &mut Published,
) -> io::Result<()> {
    let mut raw = retry::login(addr, vhost)?;
    let (mut next, mut under_way) = (0, BTreeMap::new());
    loop {
        let mut bytes = Vec::new();
        while under_way.len() < UNDER_WAY
            && let Some(id) = ids.next()
        {
            next += 1;
            bytes.extend(numbered(queue, &id, raw.frame_max()));
            published.unknown.insert(id.clone());
            under_way.insert(next, id);
        }
        if under_way.is_empty() {
            return Ok(());
        }
        if !bytes.is_empty() {
            raw.write(&bytes)?;
        }
        match raw.receive()?.ok_or_else(over)? {
            (1, Told::Ack { tag, multiple }) => {
                for id in retry::settled(&mut under_way, tag, multiple) {
                    published.unknown.remove(&id);
                    published.acked.insert(id, Instant::now());
                    count.fetch_add(1, Relaxed);
                }
            }
            // connection.blocked and connection.unblocked
            (0, Told::Method(_)) => {}
            (_, told) => panic!("instead of an ack: {told:?}"),
        }
    }
}
