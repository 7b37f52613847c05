//! A stage for one test: a vhost with queues and exchanges, and the users that the test is about.

use crate::e2e::raw::{Login, Publish, Raw, Told, Value};
use crate::e2e::site::Site;
use amq_protocol::protocol::{AMQPClass, exchange, queue};
use amq_protocol::types::AMQPValue;
use std::net::SocketAddr;

/// A user, told by its rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// may write everywhere
    All,
    /// may write to the exchange `open` only
    Some,
    /// may write nowhere
    None,
    /// may write everywhere, but of the exchange `topics` only the keys that begin with `b.`
    Topic,
}

const EVERYBODY: [(Who, &str); 4] = [
    (Who::All, ".*"),
    (Who::Some, "^open$"),
    // Not even an exchange with an empty name: this pattern fits nothing.
    (Who::None, "^$"),
    (Who::Topic, ".*"),
];

/// A vhost with
///
/// * the queue `q`, also bound to `open`, `shut` (both fanout), `topics` (topic, every key) and `heads` (headers, `kind` =
///   `stored`);
/// * a user for each [`Who`].
pub(crate) struct Stage {
    pub(crate) site: Site,
    /// a client at the broker itself, with its channel 1 open
    pub(crate) direct: Raw,
}

impl Stage {
    /// With or without the relay, as the environment asks.
    pub(crate) fn new(vhost: &str, config: &str) -> Stage {
        Stage::on(Site::new(vhost, config))
    }

    /// Only with the relay.
    pub(crate) fn of_relay(vhost: &str, config: &str) -> Option<Stage> {
        Site::of_relay(vhost, config).map(Stage::on)
    }

    /// Only with the relay, and with a forwarder between it and the broker.
    pub(crate) fn with_cut(vhost: &str, config: &str) -> Option<Stage> {
        Site::with_cut(vhost, config).map(Stage::on)
    }

    fn on(site: Site) -> Stage {
        let mut direct = site.direct();
        direct.open_channel(1);
        direct.declare(1, "q", &[]);
        for (name, kind) in
            [("open", "fanout"), ("shut", "fanout"), ("topics", "topic"), ("heads", "headers")]
        {
            let declare = exchange::Declare {
                exchange: name.into(),
                kind: kind.into(),
                ..exchange::Declare::default()
            };
            direct.call(1, &AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare))).unwrap();
        }
        let mut stage = Stage { site, direct };
        for name in ["open", "shut", "topics"] {
            stage.bind("q", name, "#", None);
        }
        stage.bind("q", "heads", "", Some("stored"));
        for (who, write) in EVERYBODY {
            stage.site.add_user(&stage.user(who), write);
        }
        let (topic, vhost) = (stage.user(Who::Topic), &stage.site.vhost);
        stage
            .site
            .rabbit
            .eval(&format!(
                "ok = rabbit_auth_backend_internal:set_topic_permissions(\
                 <<\"{topic}\">>, <<\"{vhost}\">>, <<\"topics\">>, <<\"^b\\\\.\">>, <<\".*\">>, <<\"hapax\">>)."
            ))
            .unwrap();
        stage
    }

    /// Binds a queue; to a headers exchange by the header `kind`.
    pub(crate) fn bind(&mut self, queue: &str, exchange: &str, key: &str, kind: Option<&str>) {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let arguments = kind.map(|kind| [("x-match", text("all")), ("kind", text(kind))]);
        self.direct.bind(1, queue, (exchange, key), arguments.as_ref().map_or(&[], |all| all));
    }

    /// Its name, and its password.
    pub(crate) fn user(&self, who: Who) -> String {
        format!("{}-{who:?}", self.site.vhost).to_lowercase()
    }

    /// A client of this user, where clients connect.
    pub(crate) fn client(&self, who: Who) -> Raw {
        self.client_at(self.site.addr(), who)
    }

    /// A client of this user at the broker, or at the relay.
    pub(crate) fn client_at(&self, addr: SocketAddr, who: Who) -> Raw {
        let user = self.user(who);
        Raw::login(addr, &Login::new(&self.site.vhost, &user, &user)).unwrap()
    }

    /// A client that uses confirms on its channel 1.
    pub(crate) fn confirming(&self, who: Who) -> Raw {
        let mut client = self.client(who);
        client.confirming(1);
        client
    }

    /// Messages that are ready in a queue.
    pub(crate) fn held(&mut self, queue: &str) -> u32 {
        let declare = queue::Declare { queue: queue.into(), passive: true, ..queue::Declare::default() };
        match self.direct.call(1, &AMQPClass::Queue(queue::AMQPMethod::Declare(declare))) {
            Ok(AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok))) => ok.message_count,
            other => panic!("{other:?}"),
        }
    }

    /// The ids in `q`, which is empty then, in alphabetical order.
    pub(crate) fn stored(&mut self) -> Vec<String> {
        let mut ids = self.direct.drain(1, "q");
        ids.sort();
        ids
    }
}

/// This many ids that begin alike.
pub(crate) fn ids(of: &str, count: usize) -> Vec<String> {
    let mut ids: Vec<_> = (0..count).map(|n| format!("{of}-{n}")).collect();
    ids.sort();
    ids
}

/// Publishes by the default exchange to `q`, as [`settle_all`] does.
pub(crate) fn publish_all(client: &mut Raw, channel: u16, ids: &[String]) -> Settled {
    let publishes: Vec<_> = ids.iter().map(|id| Publish::to("q", id)).collect();
    settle_all(client, channel, &publishes)
}

/// The outcome of messages that were published with confirms.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Settled {
    pub(crate) acked: usize,
    pub(crate) nacked: usize,
    pub(crate) returned: usize,
}

impl Settled {
    pub(crate) fn acked(acked: usize) -> Settled {
        Settled { acked, ..Settled::default() }
    }
}

/// Opens a channel with confirms, publishes all of it in one write and waits until all of it is settled.
pub(crate) fn settle_all(client: &mut Raw, channel: u16, publishes: &[Publish<'_>]) -> Settled {
    client.confirming(channel);
    let octets: Vec<u8> = publishes.iter().flat_map(|publish| publish.encode(channel, 4096)).collect();
    // By another thread: who only writes may be stopped by what it does not read.
    let mut socket = client.socket();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut socket, &octets));
    let settled = settle(client, channel, publishes.len());
    writer.join().unwrap().unwrap();
    settled
}

/// Waits until the first messages of a channel, this many, are settled.
pub(crate) fn settle(client: &mut Raw, channel: u16, count: usize) -> Settled {
    let (mut settled, mut open, mut low) = (Settled::default(), Vec::new(), None);
    while settled.acked + settled.nacked < count {
        let (tag, multiple, ack) = match client.next(channel) {
            Told::Ack { tag, multiple } => (tag, multiple, true),
            Told::Nack { tag, multiple } => (tag, multiple, false),
            Told::Returned { .. } => {
                settled.returned += 1;
                continue;
            }
            other => panic!("{settled:?} of {count}, then {other:?}"),
        };
        // `multiple` covers what is below and was not settled yet.
        let first = low.unwrap_or(1);
        let covered = if multiple { (first..=tag).filter(|tag| !open.contains(tag)).count() } else { 1 };
        if multiple {
            low = Some(tag + 1);
            open.retain(|&settled| settled > tag);
        } else {
            open.push(tag);
        }
        *(if ack { &mut settled.acked } else { &mut settled.nacked }) += covered;
    }
    settled
}

/// Headers with a dedup key and a kind, on `heads`.
pub(crate) fn headed<'a>(headers: &'a [(&'a str, Value<'a>)], body: &'a str) -> Publish<'a> {
    Publish { exchange: "heads", headers, mandatory: true, body: body.as_bytes(), ..Publish::default() }
}
