//! The last duplicates that clients have sent, for the API and `hapax drops`. They are a sample: each connection tells of a few a second
//! ([`Sighting`]), the process keeps a bounded number of them, and each says how many were left out before it.

use hapax_core::session::Sighting;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many are kept. Each takes less than 1.5 kB: the id and the names have at most 255 octets each.
pub const KEPT: usize = 500;
/// How many are taken from all connections in [`EVERY`], at most.
const MOST: usize = 100;
const EVERY: Duration = Duration::from_secs(1);

/// One duplicate.
#[derive(Debug)]
pub struct SeenDuplicate {
    /// counts from 1; a number is never given twice
    pub number: u64,
    /// when it came
    pub at: Instant,
    /// the address that the client connects from
    pub peer: SocketAddr,
    /// the user's name, if it is known
    pub user: Option<Box<str>>,
    /// the publish
    pub sighting: Box<Sighting>,
    /// duplicates that are not in the list, since the one before: of this connection, and of others for want of room
    pub left_out: u64,
}

/// The last duplicates of all connections.
#[derive(Debug, Default)]
pub struct Duplicates {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    kept: VecDeque<Arc<SeenDuplicate>>,
    /// until when no more than [`MOST`] are taken, and how many there were
    bound: Option<(Instant, usize)>,
    left_out: u64,
}

impl Duplicates {
    /// Keeps this one, unless there were too many in this second.
    pub(super) fn note(&self, peer: SocketAddr, user: Option<&str>, sighting: Box<Sighting>, now: Instant) {
        let mut inner = self.inner.lock();
        let (until, taken) = inner.bound.filter(|(until, _)| now < *until).unwrap_or((now + EVERY, 0));
        if taken >= MOST {
            inner.left_out += 1 + sighting.left_out;
            return;
        }
        inner.bound = Some((until, taken + 1));
        inner.last += 1;
        let left_out = std::mem::take(&mut inner.left_out) + sighting.left_out;
        let (number, user) = (inner.last, user.map(Box::from));
        if inner.kept.len() >= KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(Arc::new(SeenDuplicate { number, at: now, peer, user, sighting, left_out }));
    }

    /// Returns the number of the last one, and those after the number `after`, oldest first. If they are more than `limit`, the
    /// newest of them.
    pub fn after(&self, after: u64, limit: usize) -> (u64, Vec<Arc<SeenDuplicate>>) {
        let inner = self.inner.lock();
        let newer = inner.kept.iter().rev().take_while(|seen| seen.number > after).take(limit);
        let mut newer: Vec<_> = newer.cloned().collect();
        newer.reverse();
        (inner.last, newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hapax_core::session::Sighted;
    use hapax_core::window::Key;

    fn sighting(left_out: u64) -> Box<Sighting> {
        Box::new(Sighting {
            what: Sighted::Dropped,
            window: "test".into(),
            claim: Key(7).into(),
            id: Box::from(*b"id"),
            vhost: Box::from(*b"/"),
            exchange: Box::default(),
            routing_key: Box::from(*b"q"),
            left_out,
        })
    }

    /// However many strangers there are and whatever they send, the list stays small, and says what it does not hold.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant; only distances to it count")]
    fn bounded_in_number_and_in_each_second() {
        let (duplicates, begin) = (Duplicates::default(), Instant::now());
        let peer = SocketAddr::from(([10, 0, 0, 7], 40_000));
        let note = |second: u64, left_out| {
            duplicates.note(peer, Some("guest"), sighting(left_out), begin + Duration::from_secs(second));
        };
        (0..1000).for_each(|_| note(0, 2));
        let (last, kept) = duplicates.after(0, usize::MAX);
        assert_eq!((last, kept.len()), (100, 100));
        note(1, 5);
        let (last, newer) = duplicates.after(100, 10);
        assert_eq!((last, newer.len(), newer[0].left_out), (101, 1, 900 * 3 + 5));
        (2..20).for_each(|second| (0..100).for_each(|_| note(second, 0)));
        let (last, kept) = duplicates.after(0, usize::MAX);
        assert_eq!((last, kept.len(), kept[0].number), (1901, KEPT, 1402));
        let (_, newest) = duplicates.after(0, 3);
        assert_eq!(newest.iter().map(|seen| seen.number).collect::<Vec<_>>(), [1899, 1900, 1901]);
        assert_eq!(duplicates.after(1901, 10).1.len(), 0);
    }
}
