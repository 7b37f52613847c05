//! One client paired with one upstream connection: the whole protocol, without a socket, a task or a clock.
//!
//! Methods come in four kinds, told by their names: getters, `handle_*` (from the world), `poll_*` (to the world), and
//! the constructor. The shell ([`crate::net`]) reads bytes into two buffers, hands them over, carries out what
//! [`Session::poll_output`] says until it says `None`, and sleeps until [`Session::poll_timeout`].

mod rights;

pub use rights::Rights;

use crate::window::{KeyMaker, Mailbox, Window};
use bytes::{Bytes, BytesMut};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// Finds the window of a publish: first match wins; `None` is unmatched.
pub trait Windows: Send + Sync + Debug {
    /// The window for publishes to this exchange of this vhost.
    fn find(&self, vhost: &[u8], exchange: &[u8]) -> Option<Arc<dyn Window>>;
}

/// Bounds and times of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// how long an upstream connection outlives its client, or a close is held back, while outcomes are unresolved
    pub linger: Duration,
    /// how long a publish waits for the outcome of another of the same id before it is given up
    pub in_flight_timeout: Duration,
    /// how long the handshake may take, and the answer to a close
    pub handshake_timeout: Duration,
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
    /// From a publish's arrival to its answer by the upstream.
    fn publish_latency(&self, elapsed: Duration);
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
    /// Nothing more will be written to the client: flush, then close its socket.
    CloseClient,
    /// Nothing more will be written to the upstream: flush, then close its socket. (Both closed: the session is over.)
    CloseUpstream,
}

/// One client connection and its upstream connection.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// For a client that has just connected.
    pub fn new(_shared: Arc<Shared>, _now: Instant) -> Session {
        todo!()
    }
    /// Bytes from the client. Whole frames are taken out of `buf`; the beginning of a frame stays in it, and so does
    /// everything while [`Session::wants_client`] is false. Call again when that turns true and `buf` is not empty.
    pub fn handle_client(&mut self, _buf: &mut BytesMut, _now: Instant) {
        todo!()
    }
    /// Bytes from the upstream, likewise (it never pauses by itself).
    pub fn handle_upstream(&mut self, _buf: &mut BytesMut, _now: Instant) {
        todo!()
    }
    /// The upstream connection is open (answers [`Output::Dial`]).
    pub fn handle_upstream_open(&mut self, _now: Instant) {
        todo!()
    }
    /// The client's socket is at its end or broken.
    pub fn handle_client_eof(&mut self, _now: Instant) {
        todo!()
    }
    /// The upstream's socket is at its end or broken, or could not be opened.
    pub fn handle_upstream_eof(&mut self, _now: Instant) {
        todo!()
    }
    /// There is mail in [`Session::mailbox`].
    pub fn handle_mail(&mut self, _now: Instant) {
        todo!()
    }
    /// [`Session::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, _now: Instant) {
        todo!()
    }
    /// The process is to end: settle what is in flight, then close the client with 320.
    pub fn handle_drain(&mut self, _now: Instant) {
        todo!()
    }
    /// The next thing to do, `None` when there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        todo!()
    }
    /// When [`Session::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// Where late verdicts for this session come; the shell registers its waker there.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        todo!()
    }
    /// Whether bytes from the client are wanted now.
    pub fn wants_client(&self) -> bool {
        todo!()
    }
    /// Both sides are closed and nothing is left.
    pub fn is_over(&self) -> bool {
        todo!()
    }
    /// Publishes whose outcome is unknown: forwarded and unanswered, or waiting.
    pub fn unresolved(&self) -> usize {
        todo!()
    }
    /// Bytes held for waiting publishes.
    pub fn held_bytes(&self) -> usize {
        todo!()
    }
}
