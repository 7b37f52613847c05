//! One attempt to publish: how it was made, and when what became of it.

use super::super::plan::Micros;

/// One attempt to publish.
pub type Uid = u32;
/// One connection of a client.
pub type LinkId = usize;

/// The exchanges: the first two belong to windows, the third to none.
pub const EXCHANGES: [&str; 3] = ["alpha", "beta", "free"];
/// The routing keys.
pub const ROUTING_KEYS: [&str; 2] = ["red", "blue"];

/// The vhost that has windows.
pub const VHOST: &str = "/";
/// A vhost that has none, where everybody may do everything.
pub const OTHER_VHOST: &str = "/other";

/// Where the second window sends what was published to the second exchange, where it sends it elsewhere.
pub const BACKING: &str = "beta-store";

/// The place and the id of a publish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct What {
    /// index into [`EXCHANGES`]
    pub exchange: usize,
    /// index into [`ROUTING_KEYS`]
    pub routing_key: usize,
    /// its id
    pub id: Option<u32>,
}

/// The key by which two publishes count as the same message: window, exchange, routing key (if it is in the scope),
/// id.
pub type ModelKey = (usize, usize, usize, u32);

/// A connection, and the place and the id of a message that it was delivered.
pub type Delivered = (LinkId, usize, usize, u32);

/// One attempt to publish: how it was made, and when what became of it.
#[derive(Clone, Debug)]
pub struct Publish {
    /// on which connection
    pub link: LinkId,
    /// on which channel
    pub channel: u16,
    /// which opening of the channel it was
    pub era: u32,
    /// what it says
    pub what: What,
    /// the client's delivery tag, where it uses confirms
    pub tag: Option<u64>,
    /// whether it is part of a transaction
    pub tx: bool,
    /// which of its channel's transactions that is
    pub transaction: Option<u32>,
    /// whether it asks for its return
    pub mandatory: bool,
    /// whether it passes the window by
    pub bypass: bool,
    /// whether its user may publish there, and the window does not refuse it for want of an id
    pub allowed: bool,
    /// its own TTL
    pub ttl: Option<Micros>,
    /// the length of its body
    pub len: usize,
    /// which of the bodies that its id comes with; `None`: its body does not matter
    pub edition: Option<u32>,
    /// its body is its id
    pub by_body: bool,
    /// its id is a header of its own
    pub by_header: bool,
    /// its header is that of many others: only its body, which is its id, tells it from them
    pub alike: bool,
    /// its client was delivered the same message before, and has not published it since: it is a new message
    pub republish: bool,
    /// when the client began it
    pub begun: Micros,
    /// when the relay had taken all of it
    pub reached: Option<Micros>,
    /// when the relay had written all of it to the broker
    pub forwarded: Option<Micros>,
    /// whether all of it was written: a linger may end in the middle of a message
    pub whole: bool,
    /// whether it was forwarded as a message that its consumer publishes again, whatever else was in flight
    pub beside: bool,
    /// when the broker stored it
    pub stored: Option<Micros>,
    /// when the relay closed its channel to the broker: nothing of it is forwarded after that
    pub closed: Option<Micros>,
    /// whether the broker wrote a return
    pub returned: bool,
    /// whether no queue took it, and the broker said nothing of that
    pub dropped: bool,
    /// what the broker wrote of it: ack or nack
    pub settled: Option<bool>,
    /// what the relay took of it: ack or nack
    pub heard: Option<bool>,
    /// and when
    pub heard_at: Micros,
    /// when the relay took the ack of what was stored, not having given up its channel to the broker before
    pub known: Option<Micros>,
    /// when the window gave it up early
    pub evicted: Option<Micros>,
    /// whether the client got its return
    pub return_seen: bool,
    /// whether the client was told by a return that it is a duplicate
    pub told: bool,
    /// what the client got: ack or nack
    pub answered: Option<bool>,
    /// the broker, or the line to it, failed around it: nobody promises that it is stored
    pub excused: bool,
}

impl Publish {
    /// One that has just begun, of which nothing is said yet.
    pub fn begun(now: Micros) -> Publish {
        Publish {
            link: 0,
            channel: 0,
            era: 0,
            what: What { exchange: 0, routing_key: 0, id: None },
            tag: None,
            tx: false,
            transaction: None,
            mandatory: false,
            bypass: false,
            allowed: true,
            ttl: None,
            len: 0,
            edition: None,
            by_body: false,
            by_header: false,
            alike: false,
            republish: false,
            begun: now,
            reached: None,
            forwarded: None,
            whole: false,
            beside: false,
            stored: None,
            closed: None,
            returned: false,
            dropped: false,
            settled: None,
            heard: None,
            heard_at: 0,
            known: None,
            evicted: None,
            return_seen: false,
            told: false,
            answered: None,
            excused: false,
        }
    }
}
