//! The facts that Hapax learns while the client and the upstream shake hands: credentials, vhost, frame_max, channel_max,
//! heartbeat.
//!
//! ```text
//!  client                      Hapax                      upstream
//!    | -- protocol header -->    | --- dial, then header --> |
//!    | <-- start, secure, tune - | <------------------------ |   tune: frame_max lowered to our own bound, if need be
//!    | --- start-ok, secure-ok, tune-ok, open -----------> - |
//!    | <-- open-ok ------------- | <------------------------ |
//! ```
//!
//! Every method is passed on, so every SASL mechanism works. Hapax answers nothing itself.
//!
//! The broker has not checked user and vhost before `open-ok`. Hapax takes both from the first method that has them. A method
//! that comes again, or when it is not the client's turn, goes to the broker and changes nothing here. A client may send all
//! its methods in one write: each waits for its turn.

use super::Settings;
use super::about::About;
use super::external::without_external;
use crate::wire::emit;
use crate::wire::frame::{self, ChannelId, MIN_FRAME_MAX};
use crate::wire::method::MethodId;
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::{AMQPMethod, Start, Tune, TuneOk};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Counts the connections of the process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// The frame_max that RabbitMQ offers by default. An upstream may send frames of this size before it has offered one.
const COMMON_FRAME_MAX: u32 = 131_072;

/// The meaning of a handshake method for the session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// It means nothing. Pass it on.
    Pass,
    /// Pass this frame on instead.
    Instead(Bytes),
    /// Both sides have agreed on heartbeats, in seconds. Pass it on, or the other frame instead.
    Tuned { heartbeat: u16, instead: Option<Bytes> },
    /// The client has changed its secret. Pass it on.
    Identified,
    /// The connection is open. Pass it on.
    Opened,
    /// The broker says that the client may not publish, or that it may again.
    Blocked(bool),
    /// It is a `connection.close`.
    Close,
    /// It is a `connection.close-ok`.
    CloseOk,
}

/// The facts that were learned so far.
#[derive(Debug)]
pub(super) struct Handshake {
    /// the response of `start-ok`, if the mechanism shows the credentials in it
    credentials: Vec<u8>,
    /// the secret of the last `connection.update-secret`
    secret: Vec<u8>,
    vhost: Option<Bytes>,
    about: Option<Arc<About>>,
    /// the frame_max that the client was offered
    offered: u32,
    /// Hapax has offered less than the broker
    lowered: bool,
    /// the frame_max that was agreed on, and before that the one for the handshake
    frame_max: u32,
    /// channels that the upstream allows
    upstream_channel_max: u16,
    /// channels that the client may have
    client_channel_max: u16,
    /// the upstream waits for the client's answer
    clients_turn: bool,
    /// `start-ok` has passed
    started: bool,
    /// `tune` has passed
    offers: bool,
    /// `tune-ok` has passed
    tuned: bool,
    /// `open-ok` has passed
    opened: bool,
    /// the largest frame_max that Hapax offers
    ceiling: u32,
    /// the client may log in by EXTERNAL
    external: bool,
    /// tells connections apart that do not show their credentials
    serial: u64,
    /// when the handshake has taken too long
    until: Instant,
}

impl Handshake {
    /// Creates the handshake of a client that has just connected. The connection has to be open at the time `until`.
    pub(super) fn new(settings: &Settings, until: Instant) -> Handshake {
        Handshake {
            credentials: Vec::new(),
            secret: Vec::new(),
            vhost: None,
            about: None,
            offered: COMMON_FRAME_MAX,
            lowered: false,
            frame_max: settings.initial_frame_max.max(MIN_FRAME_MAX),
            upstream_channel_max: u16::MAX,
            client_channel_max: u16::MAX,
            clients_turn: false,
            started: false,
            offers: false,
            tuned: false,
            opened: false,
            ceiling: settings.frame_max.max(MIN_FRAME_MAX),
            external: settings.external,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            until,
        }
    }

    /// Returns true if `connection.open-ok` has passed.
    pub(super) fn opened(&self) -> bool {
        self.opened
    }

    /// Returns true if `start-ok` has passed.
    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    /// Returns true if the broker has accepted the login: it has sent `tune`.
    pub(super) fn is_accepted(&self) -> bool {
        self.offers
    }

    /// Returns the user's name, if the mechanism shows it. Before [`Handshake::is_accepted`], nobody has checked it.
    pub(super) fn named_user(&self) -> Option<&str> {
        self.about.as_ref().and_then(|about| about.user.as_deref())
    }

    /// Returns when the handshake has taken too long, if the connection is not open yet.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.opened { None } else { Some(self.until) }
    }

    /// Returns true if frames of the client may be handled: the connection is open, or the upstream waits for an answer.
    pub(super) fn is_clients_turn(&self) -> bool {
        self.opened || self.clients_turn
    }

    /// Returns the vhost, after the broker has opened the connection.
    pub(super) fn vhost(&self) -> Option<&Bytes> {
        self.vhost.as_ref().filter(|_| self.opened)
    }

    /// Returns the names that the client has given for itself, after the broker has opened the connection.
    pub(super) fn about(&self) -> Option<&Arc<About>> {
        self.about.as_ref().filter(|_| self.opened)
    }

    /// Returns the largest length of a frame of the client.
    pub(super) fn client_limit(&self) -> usize {
        frame::limit(self.frame_max)
    }

    /// Returns the largest length of a frame of the upstream.
    pub(super) fn upstream_limit(&self) -> usize {
        frame::limit(self.offered.max(self.frame_max))
    }

    /// Returns how many channels the upstream allows.
    pub(super) fn upstream_channel_max(&self) -> u16 {
        self.upstream_channel_max
    }

    /// Returns how many channels the client may have.
    pub(super) fn client_channel_max(&self) -> u16 {
        self.client_channel_max
    }

    /// Returns the bytes that it takes for what the client has sent.
    pub(super) fn memory(&self) -> usize {
        self.credentials.capacity() + self.secret.capacity() + self.vhost.as_ref().map_or(0, Bytes::len)
    }

    /// Returns bytes that tell one user from another: the vhost, and the credentials as they were sent. If the mechanism does
    /// not show the credentials (as EXTERNAL), it is the connection's number instead: such a connection proves its rights for
    /// itself.
    pub(super) fn identity(&self) -> Vec<u8> {
        let mut identity = self.vhost.as_deref().unwrap_or_default().to_vec();
        identity.push(0);
        if self.credentials.is_empty() {
            identity.extend_from_slice(&self.serial.to_be_bytes());
        } else {
            identity.extend_from_slice(&(self.credentials.len() as u64).to_be_bytes());
            identity.extend_from_slice(&self.credentials);
        }
        identity.extend_from_slice(&self.secret);
        identity
    }

    /// Notes an answer of the client that only the broker can read. Later frames wait for the broker's word, too.
    pub(super) fn recv_unreadable(&mut self, method: Option<MethodId>) {
        let answers =
            [MethodId::CONNECTION_START_OK, MethodId::CONNECTION_SECURE_OK, MethodId::CONNECTION_OPEN];
        if method.is_some_and(|method| answers.contains(&method)) {
            self.clients_turn = false;
        }
    }

    /// Handles a method of the client on channel 0.
    pub(super) fn recv_client(&mut self, method: AMQPClass) -> Meaning {
        let AMQPClass::Connection(method) = method else { return Meaning::Pass };
        match method {
            AMQPMethod::StartOk(ok) if !self.started => {
                self.started = true;
                self.clients_turn = false;
                if matches!(ok.mechanism.as_str(), "PLAIN" | "AMQPLAIN") {
                    self.credentials = ok.response.as_bytes().to_vec();
                }
                self.about = Some(Arc::new(About::of(&ok)));
                Meaning::Pass
            }
            AMQPMethod::SecureOk(_) => {
                self.clients_turn = false;
                Meaning::Pass
            }
            AMQPMethod::UpdateSecret(update) if self.opened => {
                // The broker may refuse the new secret, and it names no user. The old credentials still count, too.
                self.secret = update.new_secret.as_bytes().to_vec();
                Meaning::Identified
            }
            AMQPMethod::TuneOk(ok) if !self.tuned => self.recv_tune_ok(&ok),
            AMQPMethod::Open(open) if self.vhost.is_none() && !self.opened => {
                self.vhost = Some(Bytes::copy_from_slice(open.virtual_host.as_str().as_bytes()));
                self.clients_turn = false;
                Meaning::Pass
            }
            AMQPMethod::Close(_) => Meaning::Close,
            AMQPMethod::CloseOk(_) => Meaning::CloseOk,
            _ => Meaning::Pass,
        }
    }

    /// Handles a method of the upstream on channel 0.
    pub(super) fn recv_upstream(&mut self, method: AMQPClass) -> Meaning {
        let AMQPClass::Connection(method) = method else { return Meaning::Pass };
        self.clients_turn = true;
        match method {
            AMQPMethod::Start(start) => self.recv_start(start),
            AMQPMethod::Tune(tune) => self.recv_tune(&tune),
            AMQPMethod::OpenOk(_) if !self.opened => {
                self.opened = true;
                Meaning::Opened
            }
            AMQPMethod::Blocked(_) => Meaning::Blocked(true),
            AMQPMethod::Unblocked(_) => Meaning::Blocked(false),
            AMQPMethod::Close(_) => Meaning::Close,
            AMQPMethod::CloseOk(_) => Meaning::CloseOk,
            _ => Meaning::Pass,
        }
    }

    /// Handles `tune-ok`.
    fn recv_tune_ok(&mut self, ok: &TuneOk) -> Meaning {
        self.tuned = true;
        let asked = if ok.frame_max == 0 { self.offered } else { ok.frame_max };
        self.frame_max = asked.min(self.offered).max(MIN_FRAME_MAX);
        let mut tuned = ok.clone();
        // If the client ignores the lowered offer, the broker must not know of that.
        if self.lowered && (ok.frame_max == 0 || ok.frame_max > self.offered) {
            tuned.frame_max = self.offered;
        }
        self.offered = self.frame_max;
        // Asks for one channel more than the client wants: Hapax needs one of its own to verify rights. (0 means no limit. The
        // broker refuses more channels than it has offered. If it has not offered any yet, the client speaks too early.)
        if self.offers && ok.channel_max > 0 && ok.channel_max <= self.upstream_channel_max {
            self.client_channel_max = ok.channel_max.min(self.client_channel_max);
            tuned.channel_max = ok.channel_max.saturating_add(1).min(self.upstream_channel_max);
            self.upstream_channel_max = tuned.channel_max;
        }
        let heartbeat = ok.heartbeat;
        let instead = (tuned != *ok)
            .then(|| emit::method(ChannelId::CONNECTION, AMQPClass::Connection(AMQPMethod::TuneOk(tuned))));
        Meaning::Tuned { heartbeat, instead }
    }

    /// Handles `start`. A client library that finds EXTERNAL among the mechanisms may choose it by itself, so the client is not
    /// offered what it must not use.
    fn recv_start(&self, start: Start) -> Meaning {
        let hidden = if self.external { None } else { without_external(start.mechanisms.as_bytes()) };
        let Some(mechanisms) = hidden else { return Meaning::Pass };
        let start = Start { mechanisms: mechanisms.into(), ..start };
        Meaning::Instead(emit::method(ChannelId::CONNECTION, AMQPClass::Connection(AMQPMethod::Start(start))))
    }

    /// Handles `tune`. Lowers the frame_max: a frame is held whole before it goes on, so its size must have a bound, whatever
    /// the broker offers.
    fn recv_tune(&mut self, tune: &Tune) -> Meaning {
        self.offers = true;
        if tune.channel_max > 0 {
            self.upstream_channel_max = tune.channel_max;
            self.client_channel_max = tune.channel_max;
        }
        self.lowered = tune.frame_max == 0 || tune.frame_max > self.ceiling;
        if !self.lowered {
            self.offered = tune.frame_max;
            return Meaning::Pass;
        }
        self.offered = self.ceiling;
        let tune = AMQPMethod::Tune(Tune { frame_max: self.ceiling, ..*tune });
        Meaning::Instead(emit::method(ChannelId::CONNECTION, AMQPClass::Connection(tune)))
    }
}
