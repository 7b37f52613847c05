//! What the handshake tells the one who only listens: credentials, vhost, frame_max, heartbeat.
//!
//! ```text
//!  client                      Hapax                      upstream
//!    | -- protocol header -->    | --- dial, then header --> |
//!    | <-- start, secure, tune - | <------------------------ |   tune: frame_max lowered to our own bound, if need be
//!    | --- start-ok, secure-ok, tune-ok, open -----------> - |
//!    | <-- open-ok ------------- | <------------------------ |
//! ```
//!
//! Everything is passed on, every SASL mechanism included; nothing is answered for the other side.
//!
//! User and vhost are the client's word until `open-ok`, and they are taken once: what a client says in another place than
//! its turn, or again, goes to the broker and changes nothing here. A client may send all its methods in one write; each
//! waits for its turn.

use super::about::About;
use crate::wire::emit;
use crate::wire::frame::{self, ChannelId, MIN_FRAME_MAX};
use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::{AMQPMethod, Tune};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Counts the connections of the process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// The size that RabbitMQ offers by default; what an upstream may send before it has offered one.
const COMMON_FRAME_MAX: u32 = 131_072;

/// What a method of the handshake means for the session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// Nothing: pass it on.
    Pass,
    /// Pass this on in its place.
    Instead(Bytes),
    /// Pass it on, or the other in its place; both sides have agreed on heartbeats, in seconds.
    Tuned { heartbeat: u16, instead: Option<Bytes> },
    /// Pass it on; credentials or vhost are known better now.
    Identified,
    /// Pass it on; the connection is open.
    Opened,
    /// `connection.close`
    Close,
    /// `connection.close-ok`
    CloseOk,
}

/// The facts so far.
#[derive(Debug)]
pub(super) struct Handshake {
    credentials: Vec<u8>,
    /// by `connection.update-secret`
    secret: Vec<u8>,
    vhost: Option<Bytes>,
    about: Option<Arc<About>>,
    offered: u32,
    /// What is offered is less than the broker's offer.
    lowered: bool,
    frame_max: u32,
    /// channels that the upstream allows
    upstream_channel_max: u16,
    /// channels that the client may have
    client_channel_max: u16,
    clients_turn: bool,
    started: bool,
    tuned: bool,
    opened: bool,
    ceiling: u32,
    /// tells connections apart that do not show their credentials
    serial: u64,
    /// when the handshake has taken too long
    until: Instant,
}

impl Handshake {
    /// Creates the handshake of a client that has just connected. `ceiling` bounds the frame_max that is offered to it. The
    /// connection has to be open at the time `until`.
    pub(super) fn new(ceiling: u32, until: Instant) -> Handshake {
        Handshake {
            credentials: Vec::new(),
            secret: Vec::new(),
            vhost: None,
            about: None,
            offered: COMMON_FRAME_MAX,
            lowered: false,
            frame_max: MIN_FRAME_MAX,
            upstream_channel_max: u16::MAX,
            client_channel_max: u16::MAX,
            clients_turn: false,
            started: false,
            tuned: false,
            opened: false,
            ceiling: ceiling.max(MIN_FRAME_MAX),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            until,
        }
    }

    /// Whether `connection.open-ok` has passed.
    pub(super) fn opened(&self) -> bool {
        self.opened
    }

    /// Returns when the handshake has taken too long, if the connection is not open yet.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.opened { None } else { Some(self.until) }
    }

    /// Whether the client may be listened to: it is open, or the upstream has said what the client has to answer.
    pub(super) fn is_clients_turn(&self) -> bool {
        self.opened || self.clients_turn
    }

    /// The vhost, once the broker has let the client in.
    pub(super) fn vhost(&self) -> Option<&Bytes> {
        self.vhost.as_ref().filter(|_| self.opened)
    }

    /// What the client has said of itself, once the broker has let it in.
    pub(super) fn about(&self) -> Option<&Arc<About>> {
        self.about.as_ref().filter(|_| self.opened)
    }

    /// The length that no frame of the client may pass.
    pub(super) fn client_limit(&self) -> usize {
        frame::limit(self.frame_max)
    }

    /// The length that no frame of the upstream may pass.
    pub(super) fn upstream_limit(&self) -> usize {
        frame::limit(self.offered.max(self.frame_max))
    }

    /// How many channels the upstream allows.
    pub(super) fn upstream_channel_max(&self) -> u16 {
        self.upstream_channel_max
    }

    /// How many channels the client may have.
    pub(super) fn client_channel_max(&self) -> u16 {
        self.client_channel_max
    }

    /// What tells one user from another: the credentials as they were sent, and the vhost. `None` where the mechanism does
    /// not show them (EXTERNAL and the like): such a connection proves its rights for itself.
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

    /// A method of channel 0 from the client.
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
                // The broker may refuse it, and it names no user: what was shown at the start still counts.
                self.secret = update.new_secret.as_bytes().to_vec();
                Meaning::Identified
            }
            AMQPMethod::TuneOk(ok) if !self.tuned => {
                self.tuned = true;
                let asked = if ok.frame_max == 0 { self.offered } else { ok.frame_max };
                self.frame_max = asked.min(self.offered).max(MIN_FRAME_MAX);
                let mut tuned = ok.clone();
                // A client that ignores the bound that we have lowered would have the broker ignore it, too.
                if self.lowered && (ok.frame_max == 0 || ok.frame_max > self.offered) {
                    tuned.frame_max = self.offered;
                }
                self.offered = self.frame_max;
                // One channel more than the client wants: to verify a right, Hapax needs one of its own. (0 is no limit; more
                // than was offered is the broker's to refuse.)
                if ok.channel_max > 0 && ok.channel_max <= self.upstream_channel_max {
                    self.client_channel_max = ok.channel_max.min(self.client_channel_max);
                    tuned.channel_max = ok.channel_max.saturating_add(1).min(self.upstream_channel_max);
                    self.upstream_channel_max = tuned.channel_max;
                }
                let instead = (tuned != ok).then(|| {
                    emit::method(ChannelId::CONNECTION, AMQPClass::Connection(AMQPMethod::TuneOk(tuned)))
                });
                Meaning::Tuned { heartbeat: ok.heartbeat, instead }
            }
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

    /// A method of channel 0 from the upstream.
    pub(super) fn recv_upstream(&mut self, method: AMQPClass) -> Meaning {
        let AMQPClass::Connection(method) = method else { return Meaning::Pass };
        self.clients_turn = true;
        match method {
            AMQPMethod::Tune(tune) => self.recv_tune(&tune),
            AMQPMethod::OpenOk(_) if !self.opened => {
                self.opened = true;
                Meaning::Opened
            }
            AMQPMethod::Close(_) => Meaning::Close,
            AMQPMethod::CloseOk(_) => Meaning::CloseOk,
            _ => Meaning::Pass,
        }
    }

    /// A frame is held whole before it goes on, so its size must have a bound, whatever the broker offers.
    fn recv_tune(&mut self, tune: &Tune) -> Meaning {
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
