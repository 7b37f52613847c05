//! One client paired with one upstream connection: the whole protocol, without a socket, a task or a clock.
//!
//! Methods come in four kinds, told by their names: getters, `handle_*` (from the world), `poll_*` (to the world), and
//! the constructor. The shell (`net` in the package `hapax`) reads bytes into two buffers, hands them over, carries out what
//! [`Session::poll_output`] says until it says `None`, and sleeps until [`Session::poll_timeout`].

mod about;
#[doc(hidden)]
pub mod alone;
mod answers;
mod blame;
mod candidate;
mod channel;
mod client;
mod confirms;
mod connection;
mod cx;
mod entry;
mod fault;
mod finder;
mod handshake;
mod inbound;
mod liveness;
mod outbox;
mod probe;
mod publisher;
mod replies;
mod returns;
mod rights;
mod runs;
mod timers;
mod transaction;
mod unremembered;
mod upstream;
mod waiting;
mod written;

pub use about::About;
pub use confirms::{ClientTag, UpstreamTag};
pub use connection::Session;
pub use fault::Fault;
pub use rights::Rights;

use crate::window::{KeyMaker, Windows};
use bytes::Bytes;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// What all sessions of a process have in common.
#[derive(Debug)]
pub struct Shared {
    /// bounds and times
    pub settings: Settings,
    /// makes keys out of ids
    pub keys: KeyMaker,
    /// which window judges a publish
    pub windows: Arc<dyn Windows>,
    /// who may publish where, as the broker has shown
    pub rights: Rights,
    /// told what no window can see
    pub listener: Arc<dyn Listener>,
}

/// How long the store of a window may be silent.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds and times of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// how long an upstream connection outlives its client, or a close is held back, while outcomes are unresolved
    pub linger: Duration,
    /// how long a publish waits for the outcome of another of the same id before it is given up
    pub in_flight_timeout: Duration,
    /// how long the store of a window may be silent: about a verdict, or about a commit that it does not remember yet
    pub store_timeout: Duration,
    /// how long the handshake may take, and the answer to a close
    pub handshake_timeout: Duration,
    /// how long the broker's proof that a user may publish somewhere is believed
    pub rights_held: Duration,
    /// publishes of one connection whose outcome is unknown, before Hapax stops reading from the client
    pub max_unresolved: usize,
    /// bytes held for waiting publishes of one connection
    pub held_bytes: usize,
    /// the largest frame_max that Hapax lets a broker offer
    pub frame_max: u32,
}

/// What a session tells about itself beside what its windows tell.
pub trait Listener: Send + Sync + Debug {
    /// A publish that no window matched, or whose window is off.
    fn unmatched(&self);
    /// From their arrival to their answer by the upstream: so long for each of so many publishes.
    fn publish_latency(&self, elapsed: Duration, publishes: u64);
}

/// How far a connection is, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// not open yet
    Handshake,
    /// open on both sides
    Open,
    /// a close was said by either side, or is about to be
    Closing,
    /// the client is gone; the upstream is kept until the outcome of what was sent is known
    Lingering,
}

/// What a session holds for its client, in bytes: frames, entries, channels, and what comes with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// all of it
    pub held: usize,
    /// of it, what only more words of the client can end: an open transaction, a body that is its own id, channels, consumers.
    /// The rest ends by itself, by an outcome or by a timeout.
    pub stuck: usize,
    /// how much has to be read, at most, until a frame of the client is whole
    pub frame: usize,
}

/// What the shell is to do. Carried out in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Open the upstream connection; [`Session::handle_upstream_open`] or [`Session::handle_upstream_eof`] answers.
    Dial,
    /// Write these bytes to the client.
    ToClient(Bytes),
    /// Write these bytes to the upstream.
    ToUpstream(Bytes),
    /// Write a heartbeat to the client, unless bytes are waiting to be written already.
    HeartbeatClient,
    /// Write a heartbeat to the upstream, unless bytes are waiting to be written already.
    HeartbeatUpstream,
    /// Nothing more will be written to the client: flush, then close its socket.
    CloseClient,
    /// Nothing more will be written to the upstream: flush, then close its socket. (Both closed: the session is over.)
    CloseUpstream,
    /// The upstream is given up: drop what waits to be written to it, in the system's buffers, too, and close its socket. What
    /// it has not received is called in doubt now, so it must not be stored later.
    CutUpstream,
}
