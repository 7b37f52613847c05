//! The relay's answers as types. Read tolerantly: what is missing has its default, what is new is passed over, so that a
//! client and a relay of neighbouring versions understand each other. `--json` prints the relay's own text, not these types.

use hapax_core::pressure::Facts;
use serde::Deserialize;
use serde_json::{Map, Value};

/// `GET /api/v1/windows`.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
pub struct Windows {
    /// in the order of the configuration: the first match judges
    pub windows: Vec<Window>,
}

/// A change of a capacity that takes several steps.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resizing {
    /// the capacity that the window will have
    pub to: u64,
    /// ids that have to be forgotten before that
    pub left: u64,
}

/// A window: what is set, and what is known of it.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
pub struct Window {
    /// its name
    pub name: String,
    /// pattern of vhosts
    #[serde(default)]
    pub vhost: String,
    /// pattern of exchanges
    #[serde(default)]
    pub exchange: String,
    /// pattern of queues, if it is a guard
    #[serde(default)]
    pub queue: Option<String>,
    /// where the id is
    #[serde(default)]
    pub id: String,
    /// what is one message
    #[serde(default)]
    pub scope: String,
    /// the store
    #[serde(default)]
    pub engine: String,
    /// enforce, observe, off
    #[serde(default)]
    pub mode: String,
    /// forget or keep
    #[serde(default)]
    pub in_doubt: String,
    /// forward or reject
    #[serde(default)]
    pub missing_id: String,
    /// drop, forward or reject
    #[serde(default)]
    pub on_conflict: String,
    /// ack, nack or return
    #[serde(default)]
    pub on_duplicate: String,
    /// where copies of duplicates go
    #[serde(default)]
    pub duplicates_to: Option<String>,
    /// whether each duplicate is a line in the log
    #[serde(default)]
    pub audit: bool,
    /// another backing exchange
    #[serde(default)]
    pub forward_to: Option<String>,
    /// the change of its capacity that is under way
    #[serde(default)]
    pub resizing: Option<Resizing>,
    /// whether the relay sizes it
    #[serde(default)]
    pub auto: bool,
    /// the numbers
    #[serde(flatten)]
    pub facts: Facts,
}

/// `GET /api/v1/status`.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Status {
    /// of the relay
    pub version: String,
    /// since its start
    pub uptime_seconds: f64,
    /// told to end
    pub draining: bool,
    /// the broker
    pub upstream: Upstream,
    /// its nodes
    pub upstreams: Vec<UpstreamNode>,
    /// clients
    pub connections: ConnectionCounts,
    /// of the process
    pub memory: Memory,
    /// the run of chaos that is on
    pub chaos: Option<ChaosOn>,
}

/// A run of chaos that is on.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct ChaosOn {
    /// by which it decides
    pub seed: u64,
    /// who has started it
    pub by: String,
    /// until it is over
    pub left_seconds: f64,
    /// faults that it has done
    pub done: u64,
}

/// `GET /api/v1/chaos`.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Chaos {
    /// whether a run may be started
    pub enabled: bool,
    /// the vhosts that may be troubled
    pub vhosts: Vec<String>,
    /// the users that may be troubled
    pub users: Vec<String>,
    /// the run that is on, or the last one
    pub run: Option<ChaosRun>,
}

/// A run of chaos.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct ChaosRun {
    /// by which it decides
    pub seed: u64,
    /// it is on
    pub running: bool,
    /// who has started it
    pub by: String,
    /// when
    pub began_at: String,
    /// when it ended
    pub ended_at: Option<String>,
    /// why
    pub ended: Option<String>,
    /// who has stopped it
    pub ended_by: Option<String>,
    /// how long it was to last
    pub duration_seconds: f64,
    /// how long it has lasted
    pub elapsed_seconds: f64,
    /// how long confirms are held back
    pub hold_for_seconds: f64,
    /// the windows and guards that it troubles
    pub chosen: Vec<String>,
    /// what was done
    pub faults: Vec<ChaosFaultCount>,
    /// where, and to whom
    pub rows: Vec<ChaosRow>,
    /// how many found no row
    pub rows_left_out: u64,
    /// redelivered deliveries that were shown
    pub shown_again: u64,
    /// those of them that were acked before
    pub acked_shown_again: u64,
    /// what windows and guards have answered
    pub windows: Vec<ChaosAnswers>,
    /// what became of messages that were to come again
    pub replays: Option<ChaosReplays>,
}

/// How often a fault was done.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct ChaosFaultCount {
    /// which
    pub fault: String,
    /// the share that was asked for
    pub share: f64,
    /// how often
    pub done: u64,
    /// how often it was not, because a message could have been lost
    pub spared: u64,
}

/// A count by fault, place and user.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct ChaosRow {
    /// what
    pub what: String,
    /// the window or guard
    pub window: Option<String>,
    /// of the client
    pub vhost: String,
    /// of the client
    pub user: String,
    /// the exchange or routing key
    pub place: String,
    /// how often
    pub count: u64,
}

/// The answers of a window or guard.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct ChaosAnswers {
    /// its name
    pub name: String,
    /// enforce, observe or off
    pub mode: String,
    /// forwarded, or shown
    pub fresh: u64,
    /// dropped, or hidden
    pub duplicates: u64,
    /// got through
    pub escaped: u64,
    /// with another body
    pub conflicts: u64,
    /// refused
    pub refused: u64,
    /// without an id
    pub no_id: u64,
    /// whose outcome nobody knows
    pub in_doubt: u64,
}

/// Counts of the messages that were to come again.
#[derive(Deserialize, Clone, Copy, PartialEq, Debug, Default)]
#[serde(default)]
pub struct ChaosReplays {
    /// picked by the seed
    pub picked: u64,
    /// published again
    pub published: u64,
    /// and refused
    pub refused: u64,
    /// not, because nobody has stored them
    pub not_stored: u64,
    /// not, for want of room
    pub full: u64,
    /// not, because of their vhost
    pub other_vhost: u64,
    /// not, because they can't be read
    pub unreadable: u64,
    /// nobody knows
    pub lost: u64,
    /// not yet
    pub waiting: u64,
}

/// The producers of a window.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Producers {
    /// how many are remembered
    pub entries: u64,
    /// how many there can be
    pub capacity: u64,
    /// the window's store may know others
    pub store_may_know_more: bool,
    /// some of them
    pub producers: Vec<Producer>,
}

/// A producer.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Producer {
    /// what the window knows it by
    pub key: String,
    /// its name, if that is known
    pub name: Option<String>,
    /// its epoch
    pub epoch: u64,
    /// the highest stored number
    pub highest: Option<u64>,
    /// numbers that are known one by one and are not stored
    pub open: u64,
    /// numbers in flight
    pub in_flight: u64,
    /// duplicates
    pub duplicates: u64,
    /// since it was seen last
    pub idle_seconds: f64,
    /// until it is forgotten
    pub expires_in_seconds: f64,
}

/// The broker, as the relay last saw it.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Upstream {
    /// host and port
    pub address: String,
    /// whether it answers a handshake
    pub ok: bool,
    /// why not
    pub error: Option<String>,
}

/// Clients.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct ConnectionCounts {
    /// now
    pub open: u64,
    /// since the start
    pub accepted: u64,
    /// because there were too many
    pub rejected: u64,
    /// at a time
    pub max: u64,
}

/// Memory of the process.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct Memory {
    /// resident
    pub resident_bytes: u64,
    /// what windows with `capacity = "auto"` share
    pub budget_bytes: Option<u64>,
}

/// `GET /api/v1/connections`.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Connections {
    /// a part of them
    pub connections: Vec<Connection>,
    /// all
    pub total: u64,
}

/// `GET /api/v1/journal`.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Journal {
    /// oldest first
    pub entries: Vec<JournalEntry>,
}

/// One thing that has happened.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct JournalEntry {
    /// when
    pub at: String,
    /// what it is about, in one word
    pub kind: String,
    /// the window that it is about
    pub window: Option<String>,
    /// what happened
    pub text: String,
    /// who did it
    pub by: Option<String>,
}

/// `POST /api/v1/drain`.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Drain {
    /// that were open
    pub connections: u64,
    /// in which clients are still served
    pub delay_seconds: f64,
    /// in which connections may settle what is in flight
    pub timeout_seconds: f64,
}

/// `/api/v1/log`.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct LogLevel {
    /// what is logged
    pub level: String,
    /// what the configuration says
    pub configured: String,
}

/// `DELETE /api/v1/connections/{id}`.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Closing {
    /// the connection as it was
    pub closing: Connection,
    /// what its client is told
    pub reason: String,
}

/// `GET /api/v1/upstreams`.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Upstreams {
    /// the broker's nodes, in the order of the configuration
    pub upstreams: Vec<UpstreamNode>,
}

/// A node of the broker.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct UpstreamNode {
    /// host and port
    pub address: String,
    /// up, down, unknown
    pub state: String,
    /// why it is down
    pub error: Option<String>,
    /// since it answered, or did not
    pub age_seconds: Option<f64>,
    /// how long it gets no connections
    pub rest_seconds: Option<f64>,
    /// open ones
    pub connections: u64,
    /// since the start
    pub opened: u64,
    /// attempts without an answer, since the start
    pub failures: u64,
}

/// `GET /api/v1/drops`.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Drops {
    /// oldest first
    pub drops: Vec<Drop>,
    /// the number of the last one
    pub last: u64,
}

/// A duplicate.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Drop {
    /// when it came
    pub at: String,
    /// how long ago that is
    pub age_seconds: f64,
    /// in a word
    pub outcome: String,
    /// true if its body is another one
    pub conflict: bool,
    /// which window knew its id
    pub window: String,
    /// its first octets
    pub id: String,
    /// of the publisher
    pub vhost: String,
    /// empty for the default exchange
    pub exchange: String,
    /// of the publish
    pub routing_key: String,
    /// who sent it
    pub user: Option<String>,
    /// address and port
    pub peer: String,
    /// how long ago its id was stored; none if it is forgotten
    pub first_seen_seconds: Option<f64>,
    /// of its id since then
    pub duplicates: Option<u64>,
    /// not shown since the one before
    pub left_out: u64,
}

/// A client's connection.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Connection {
    /// a number
    pub id: Value,
    /// address and port
    pub peer: String,
    /// who it says it is; none before it said so
    pub user: Option<String>,
    /// none before `connection.open`
    pub vhost: Option<String>,
    /// since its start
    pub age_seconds: f64,
    /// what the client says of itself
    pub client: Map<String, Value>,
    /// open ones
    pub channels: u64,
    /// publishes whose outcome is not known
    pub unresolved: u64,
    /// publishes since its start
    pub publishes: u64,
    /// how many of them were duplicates
    pub duplicates: u64,
    /// from the client
    pub bytes_in: u64,
    /// to the client
    pub bytes_out: u64,
    /// in a word
    pub state: String,
}

impl Connection {
    /// `product version`, as the client calls itself.
    pub fn software(&self) -> String {
        let text = |key| self.client.get(key).and_then(Value::as_str).unwrap_or_default();
        format!("{} {}", text("product"), text("version")).trim().to_owned()
    }
}

/// `GET /api/v1/windows/{name}/ids/{id}`.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Id {
    /// seen, in_flight, unknown
    pub state: String,
    /// when it was stored
    pub seen_at: Option<String>,
    /// since then
    pub age_seconds: Option<f64>,
    /// since then
    pub duplicates: Option<u64>,
    /// when it will be forgotten
    pub expires_at: Option<String>,
    /// until then
    pub expires_in_seconds: Option<f64>,
    /// it is unknown, but the window's store may know it
    pub store_may_know_more: bool,
}

/// `DELETE` of an id, or of a producer.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(default)]
pub struct Forgotten {
    /// it was known
    pub forgotten: bool,
    /// it was not, but the window's store may have known it
    pub store_may_know_more: bool,
}

impl Forgotten {
    /// Says it. `then`: what gets through now.
    pub fn shown(&self, then: &str) -> String {
        match (self.forgotten, self.store_may_know_more) {
            (true, _) => format!("forgotten: {then}"),
            (_, true) => format!("was not in the relay's memory; its store forgets it, too: {then}"),
            _ => "was not known".to_owned(),
        }
    }
}

/// `POST /api/v1/windows/{name}/forecast`.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(default)]
pub struct Forecast {
    /// ids
    pub capacity: Option<u64>,
    /// when full
    pub bytes: Option<u64>,
    /// of the TTL
    pub coverage: Option<f64>,
    /// demand against room
    pub pressure: Option<f64>,
    /// share of the publishes
    pub caught: Option<f64>,
}
