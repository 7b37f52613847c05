//! One client paired with one upstream connection: the whole protocol, without a socket, a task or a clock.
//!
//! [`Session`] has four kinds of methods: the constructor, getters, `handle_*` (something has happened) and `poll_*` (what is
//! to be done). The shell (`net` in the package `hapax`) reads bytes into two buffers and hands them over. It carries out
//! every [`Output`] of [`Session::poll_output`] until there is none, and sleeps until [`Session::poll_timeout`].
//!
//! Who owns what:
//!
//! ```text
//!   Session      what the shell calls, and the order in which frames are handled
//!    Connection  channel 0, and how both sides end
//!     Sides      how far both sides are: ClientSide, UpstreamSide, Handshake
//!     Link       what all channels use: outbox, inbound frames, rights, mailbox
//!     Channels   the channels, and the sums over them
//!      Channel   the state of one channel
//!       Publisher    what the client publishes
//!       Deliveries   what is sent to the client
//! ```

mod about;
#[doc(hidden)]
pub mod alone;
mod answers;
mod awaited;
mod bad_header_log;
mod blame;
mod blocked;
mod by_tag;
mod candidate;
mod channel;
mod channels;
mod chaos;
mod client;
mod confirms;
mod connection;
mod copies;
mod cx;
mod delivered;
mod dismissal;
mod drain;
mod ending;
mod entry;
mod exchanges;
mod exclusive;
mod external;
mod fault;
mod finder;
mod flow;
mod guard;
mod handshake;
mod held_returns;
mod hosts;
mod inbound;
mod liveness;
mod loopback;
mod message_key;
mod noted;
mod numbers;
mod outbox;
mod patience;
mod places;
mod probe;
mod publisher;
mod replies;
mod returning;
mod returns;
mod rights;
mod runs;
#[expect(clippy::module_inception, reason = "named after the type that the folder is about")]
mod session;
mod sides;
mod sightings;
mod timers;
mod traces;
mod transaction;
mod unremembered;
mod upstream;
mod waiting;
mod written;

pub use about::About;
pub use chaos::{ChaosDeed, ChaosFault, ChaosOrders, ChaosPlan, ChaosShares, ChaosWhat, KeptPublish};
pub use confirms::{ClientTag, UpstreamTag};
pub use copies::CopiedDuplicate;
pub use exchanges::Exchanges;
pub use fault::Fault;
pub use flow::{Queued, Reading, Room};
pub use hosts::Hosts;
pub use loopback::{LoopbackUsers, RefusedBecause, RefusedLogin, is_loopback};
pub use places::{UserPlaces, counted_as};
pub use rights::{Rights, may_have_topics};
pub use session::Session;
pub use sightings::{Sighted, Sighting};
pub use traces::Traced;

use crate::window::{KeyMaker, Windows};
use crate::wire::BadHeader;
use bytes::Bytes;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// The things that all sessions of a process share.
#[derive(Debug)]
pub struct Shared {
    /// bounds and times
    pub settings: Settings,
    /// makes keys out of ids
    pub keys: KeyMaker,
    /// which window judges a publish
    pub windows: Arc<dyn Windows>,
    /// who may publish where, as the broker has shown
    pub rights: Arc<Rights>,
    /// the types of exchanges, as far as they matter
    pub exchanges: Arc<Exchanges>,
    /// what was delivered to users of several connections
    pub hosts: Arc<Hosts>,
    /// who may log in from this host only
    pub loopback_users: LoopbackUsers,
    /// how many connections users have
    pub places: Arc<UserPlaces>,
    /// counts what no window can see
    pub listener: Arc<dyn SessionListener>,
}

impl Shared {
    /// Creates what sessions share, with nothing known yet.
    pub fn new(
        settings: Settings,
        keys: KeyMaker,
        windows: Arc<dyn Windows>,
        loopback_users: LoopbackUsers,
        listener: Arc<dyn SessionListener>,
    ) -> Shared {
        let exchanges = Arc::new(Exchanges::counting(windows.changes()));
        let (rights, hosts, places) = (Arc::default(), Arc::default(), Arc::default());
        Shared { settings, keys, windows, rights, exchanges, hosts, loopback_users, places, listener }
    }

    /// Returns other settings for sessions that begin from now on. They share all else with those that run.
    #[must_use]
    pub fn with(&self, settings: Settings, loopback_users: LoopbackUsers) -> Shared {
        Shared {
            settings,
            keys: self.keys.clone(),
            windows: Arc::clone(&self.windows),
            rights: Arc::clone(&self.rights),
            exchanges: Arc::clone(&self.exchanges),
            hosts: Arc::clone(&self.hosts),
            loopback_users,
            places: Arc::clone(&self.places),
            listener: Arc::clone(&self.listener),
        }
    }
}

/// How long the store of a window may be silent.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds and times of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// how long an upstream connection outlives its client, or a close is held back, while outcomes are unresolved
    pub linger: Duration,
    /// how long a publish waits for the outcome of another with the same id
    pub in_flight_timeout: Duration,
    /// how long the store of a window may be silent: about a verdict, or about a commit that it does not remember yet
    pub store_timeout: Duration,
    /// how long the handshake may take, and the answer to a close
    pub handshake_timeout: Duration,
    /// how long the broker's proof that a user may publish somewhere is believed
    pub rights_held: Duration,
    /// bound on the publishes of one connection whose outcome is unknown; Hapax stops reading from the client there
    pub max_unresolved: usize,
    /// bound on the bytes held for waiting publishes of one connection
    pub held_bytes: usize,
    /// the largest frame_max that Hapax lets a broker offer
    pub frame_max: u32,
    /// the largest frame of a client before `tune-ok`
    pub initial_frame_max: u32,
    /// whether a client may log in by EXTERNAL, that is, by the certificate of the connection that the broker sees. It must be
    /// false where TLS ends in Hapax: the broker would take Hapax's own certificate for the client's
    pub external: bool,
}

/// Receives what a session counts and no window knows of.
pub trait SessionListener: Send + Sync + Debug {
    /// Counts a publish that matched no window, or whose window is off.
    fn unmatched(&self);
    /// Counts a publish with a header whose value can't be understood.
    fn bad_header(&self, header: BadHeader);
    /// Counts a publish that is forwarded unjudged, because there was no channel to verify its user's right on.
    fn unverified(&self);
    /// Tells that the broker has closed a connection of this user (if its name is known) because its limit of channels leaves none
    /// to verify rights on. Called once a day for each user.
    fn channel_limited(&self, user: Option<&str>);
    /// Notes that an exchange has returned this many messages of one connection in a row, and stored none.
    fn returns_everything(&self, vhost: &[u8], exchange: &[u8], returns: u32);
    /// Records the time from the arrival of a publish to its answer by the upstream. Several publishes (`publishes`) may
    /// share one time.
    fn publish_latency(&self, elapsed: Duration, publishes: u64);
}

/// How far a connection is, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// not open yet
    Handshake,
    /// open on both sides
    Open,
    /// either side has sent a close, or is about to
    Closing,
    /// the client is gone; the upstream is kept until the outcome of every publish is known
    Lingering,
}

/// The bytes that a session holds for its client: frames, ledger entries, channels and more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// all of it
    pub held: usize,
    /// the part that only the client can end: an open transaction, a body that is its own id, channels, consumers. The rest
    /// ends by itself, by an outcome or by a timeout
    pub stuck: usize,
    /// the part that can be given up at once: what was delivered, and may be published again
    pub spare: usize,
    /// the largest number of bytes to read until a frame of the client is whole
    pub frame: usize,
}

/// An order for the shell. It carries out all outputs in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Open the upstream connection; [`Session::handle_upstream_open`], [`Session::handle_upstream_greeted`] or
    /// [`Session::handle_upstream_eof`] answers.
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
    /// The client is cut off: drop the bytes that wait to be written to it, and close its socket without a word.
    CutClient,
    /// The upstream is given up: drop the bytes that wait to be written to it, those in the system's buffers included, and
    /// close its socket. The publishes in them are in doubt now, so they must not be stored later.
    CutUpstream,
    /// Tell people about a publish of a known id. Nothing else depends on it.
    Sighted(Box<Sighting>),
    /// Log that a publish was dropped: its window is audited. Nothing else depends on it.
    Audited(Box<Sighting>),
    /// Publish the copy of a dropped publish to the exchange that its window names. Nothing else depends on it.
    Copied(Box<CopiedDuplicate>),
    /// Make a span of a judged publish. Nothing else depends on it.
    Traced(Box<Traced>),
    /// Note what was done in a run of chaos. Nothing else depends on it.
    Chaos(Box<ChaosDeed>),
    /// Publish this again, later, if its window has it as stored then. Nothing else depends on it.
    Kept(Box<KeptPublish>),
    /// Log that the client sends this header with a value that can't be understood. It comes once per connection and header.
    BadHeader(BadHeader),
}
