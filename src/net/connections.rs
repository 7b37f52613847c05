//! The list of open client connections, for the API and the dashboard.
//!
//! Each connection's own task writes its entry once per wake-up, with relaxed atomics. Nothing happens here for a
//! single message. The lock of the list is taken when a connection opens or closes, and when somebody reads the list.
//! The entry of an idle connection takes about 300 bytes plus the client's own description.

use super::duplicates::Duplicates;
use bytes::Bytes;
use hapax_core::session::{About, Phase};
use hapax_core::window::Mailbox;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// All open client connections. There is one list per process.
#[derive(Debug, Default)]
pub struct ConnectionList {
    /// what they have sent twice of late
    pub duplicates: Duplicates,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_number: u64,
    open: BTreeMap<u64, Arc<ConnectionEntry>>,
}

impl ConnectionList {
    /// Creates an empty list.
    pub fn new() -> Arc<ConnectionList> {
        Arc::default()
    }

    /// Adds a connection. It stays in the list until the guard is dropped.
    pub(super) fn enter(
        self: &Arc<ConnectionList>,
        peer: SocketAddr,
        since: Instant,
        mailbox: &Arc<Mailbox>,
    ) -> ListedConnection {
        let mut inner = self.inner.lock();
        inner.last_number += 1;
        let id = inner.last_number;
        let entry = Arc::new(ConnectionEntry {
            id,
            peer,
            since,
            vhost: OnceLock::new(),
            about: OnceLock::new(),
            upstream: OnceLock::new(),
            close: OnceLock::new(),
            mailbox: Arc::clone(mailbox),
            live: Live::default(),
        });
        inner.open.insert(id, Arc::clone(&entry));
        ListedConnection { connections: Arc::clone(self), entry }
    }

    /// Asks the connection with this number to close, for this reason. Returns it, or `None` if there is none.
    pub fn close(&self, id: u64, reason: &str) -> Option<Arc<ConnectionEntry>> {
        let entry = self.inner.lock().open.get(&id).cloned()?;
        // The first reason stays.
        let _ = entry.close.set(reason.into());
        entry.mailbox.call();
        Some(entry)
    }

    /// Wakes the tasks of all connections.
    pub fn wake_all(&self) {
        self.inner.lock().open.values().for_each(|entry| entry.mailbox.call());
    }

    /// Returns the number of the newest connection: how many there have been.
    pub fn last_number(&self) -> u64 {
        self.inner.lock().last_number
    }

    /// Returns at most `limit` connections with larger numbers than `id`, oldest first.
    pub fn after(&self, id: u64, limit: usize) -> Vec<Arc<ConnectionEntry>> {
        let later = (Bound::Excluded(id), Bound::Unbounded);
        self.inner.lock().open.range(later).take(limit).map(|(_, entry)| Arc::clone(entry)).collect()
    }

    /// Returns the number of connections, and at most `limit` of them from index `offset` on, oldest first.
    pub fn page(&self, offset: usize, limit: usize) -> (usize, Vec<Arc<ConnectionEntry>>) {
        let inner = self.inner.lock();
        (inner.open.len(), inner.open.values().skip(offset).take(limit).cloned().collect())
    }
}

/// One open client connection.
#[derive(Debug)]
pub struct ConnectionEntry {
    /// counts from 1; a number is never given twice
    pub id: u64,
    /// the address that the client connects from
    pub peer: SocketAddr,
    /// when the connection was accepted
    pub since: Instant,
    vhost: OnceLock<Bytes>,
    about: OnceLock<Arc<About>>,
    upstream: OnceLock<Arc<str>>,
    /// why an operator wants it closed
    close: OnceLock<Box<str>>,
    /// of its session; a call wakes the connection's task
    mailbox: Arc<Mailbox>,
    live: Live,
}

impl ConnectionEntry {
    /// Returns the vhost, once the client has named it.
    pub fn vhost(&self) -> Option<&[u8]> {
        self.vhost.get().map(|vhost| &**vhost)
    }

    /// Returns what the client has said about itself, once it has.
    pub fn about(&self) -> Option<&About> {
        self.about.get().map(|about| &**about)
    }

    /// Returns `HOST:PORT` of the broker's node, once it has answered.
    pub fn upstream(&self) -> Option<&str> {
        self.upstream.get().map(|upstream| &**upstream)
    }

    /// Returns why the connection is to be closed, once an operator wants that.
    pub(super) fn close_reason(&self) -> Option<&str> {
        self.close.get().map(|reason| &**reason)
    }

    /// Sets the broker's node.
    pub(super) fn set_upstream(&self, upstream: &Arc<str>) {
        let _ = self.upstream.set(Arc::clone(upstream));
    }

    /// Returns the connection's state and counts. They are read one by one, so two of them may be a moment apart.
    pub fn numbers(&self) -> Numbers {
        let live = &self.live;
        Numbers {
            state: ConnectionState::from_code(live.state.load(Relaxed)),
            channels: live.channels.load(Relaxed),
            unresolved: live.unresolved.load(Relaxed),
            publishes: live.publishes.load(Relaxed),
            duplicates: live.duplicates.load(Relaxed),
            deliveries: live.deliveries.load(Relaxed),
            bytes_in: live.bytes_in.load(Relaxed),
            bytes_out: live.bytes_out.load(Relaxed),
        }
    }

    /// Updates the numbers. The connection's task calls this once per wake-up.
    pub(super) fn note(&self, numbers: Numbers) {
        let live = &self.live;
        live.state.store(numbers.state as u8, Relaxed);
        live.channels.store(numbers.channels, Relaxed);
        live.unresolved.store(numbers.unresolved, Relaxed);
        live.publishes.store(numbers.publishes, Relaxed);
        live.duplicates.store(numbers.duplicates, Relaxed);
        live.deliveries.store(numbers.deliveries, Relaxed);
        live.bytes_in.store(numbers.bytes_in, Relaxed);
        live.bytes_out.store(numbers.bytes_out, Relaxed);
    }

    /// Stores the client's description and the vhost as soon as they are known. Values that are set already stay.
    pub(super) fn identify(&self, about: Option<&Arc<About>>, vhost: Option<&Bytes>) {
        if let (Some(about), None) = (about, self.about.get()) {
            let _ = self.about.set(Arc::clone(about));
        }
        if let (Some(vhost), None) = (vhost, self.vhost.get()) {
            let _ = self.vhost.set(vhost.clone());
        }
    }
}

/// The state and the counts of a connection at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Numbers {
    /// the connection's state
    pub state: ConnectionState,
    /// open channels
    pub channels: u64,
    /// publishes whose outcome is not known yet
    pub unresolved: u64,
    /// publishes since the connection was opened, dropped ones included
    pub publishes: u64,
    /// how many of them were duplicates: dropped, or forwarded because the window only observes
    pub duplicates: u64,
    /// messages that the broker has sent to the client
    pub deliveries: u64,
    /// bytes read from the client
    pub bytes_in: u64,
    /// bytes written to the client
    pub bytes_out: u64,
}

/// The state of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionState {
    /// not open yet
    #[default]
    Handshake,
    /// open, and read from
    Open,
    /// open, but not read from: its buffers are full, or a limit is reached
    Paused,
    /// one side has sent `connection.close`
    Closing,
    /// the client has gone; the outcomes of its publishes are still awaited
    Lingering,
}

impl ConnectionState {
    /// All states.
    pub const ALL: [ConnectionState; 5] = [
        ConnectionState::Handshake,
        ConnectionState::Open,
        ConnectionState::Paused,
        ConnectionState::Closing,
        ConnectionState::Lingering,
    ];

    /// Returns the state of a session in this phase. `reading` tells whether the client is read from.
    pub(super) fn of(phase: Phase, reading: bool) -> ConnectionState {
        match phase {
            Phase::Handshake => ConnectionState::Handshake,
            Phase::Open if reading => ConnectionState::Open,
            Phase::Open => ConnectionState::Paused,
            Phase::Closing => ConnectionState::Closing,
            Phase::Lingering => ConnectionState::Lingering,
        }
    }

    fn from_code(code: u8) -> ConnectionState {
        ConnectionState::ALL.into_iter().find(|state| *state as u8 == code).unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct Live {
    state: AtomicU8,
    channels: AtomicU64,
    unresolved: AtomicU64,
    publishes: AtomicU64,
    duplicates: AtomicU64,
    deliveries: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// A guard: the connection is in the list while this lives.
#[must_use = "dropping it takes the connection off the list"]
#[derive(Debug)]
pub(super) struct ListedConnection {
    connections: Arc<ConnectionList>,
    pub(super) entry: Arc<ConnectionEntry>,
}

impl Drop for ListedConnection {
    fn drop(&mut self) {
        self.connections.inner.lock().open.remove(&self.entry.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant; nothing is counted from it")]
    fn in_the_list_while_the_guard_lives_oldest_first() {
        let connections = ConnectionList::new();
        let now = Instant::now();
        let peer = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut guards: Vec<ListedConnection> =
            (1..=5).map(|port| connections.enter(peer(port), now, &Arc::default())).collect();
        drop(guards.remove(1));
        let ports = |offset, limit| {
            let (total, page) = connections.page(offset, limit);
            (total, page.iter().map(|entry| entry.peer.port()).collect::<Vec<_>>())
        };
        assert_eq!(ports(0, 10), (4, vec![1, 3, 4, 5]));
        assert_eq!(ports(1, 2), (4, vec![3, 4]));
        assert_eq!(ports(9, 2), (4, vec![]));
        let after = |id, limit| connections.after(id, limit).iter().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!((after(0, 2), after(3, 9), after(5, 9)), (vec![1, 3], vec![4, 5], vec![]));
        drop(guards);
        assert_eq!(ports(0, 10), (0, vec![]));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant; nothing is counted from it")]
    fn a_close_wakes_its_connection_and_no_other() {
        let connections = ConnectionList::new();
        let (now, peer) = (Instant::now(), SocketAddr::from(([127, 0, 0, 1], 1)));
        let mailboxes: [Arc<Mailbox>; 2] = std::array::from_fn(|_| Arc::default());
        let [one, other] = mailboxes.each_ref().map(|mailbox| connections.enter(peer, now, mailbox));
        assert!(connections.close(other.entry.id + 1, "nobody").is_none());
        assert!(connections.close(one.entry.id, "first").is_some());
        assert!(connections.close(one.entry.id, "second").is_some());
        assert_eq!((one.entry.close_reason(), other.entry.close_reason()), (Some("first"), None));
        assert_eq!(mailboxes.map(|mailbox| mailbox.take_all().1), [true, false]);
    }

    #[test]
    fn every_state_survives_its_code() {
        for state in ConnectionState::ALL {
            assert_eq!(ConnectionState::from_code(state as u8), state);
        }
    }
}
