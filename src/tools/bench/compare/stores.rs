//! Rows 15 to 22: what a window's store costs, against the same window in memory.

use super::super::Error;
use super::super::dial::Target;
use super::super::load::Load;
use super::super::now;
use super::Extent;
use super::awake::Awake;
use super::rows::{BEFORE_RABBIT, FILLING, ROUND_TRIPS, RUN, alternate, rabbit};
use super::stand::{FOLDER, Process, Settings, WINDOW, put};
use super::table::{Goal, Pairs, Row, middle};
use hapax_testbed::Rabbit;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

/// A log, and when its window acks.
struct Log {
    /// of its row before the sink
    number: u8,
    store: &'static str,
    remember: &'static str,
    into_sink: &'static str,
    before_rabbit: &'static str,
    goal: Goal,
}

const LOGS: [Log; 4] = [
    Log {
        number: 15,
        store: "disk",
        remember: "async",
        into_sink: "store = \"disk\", async: throughput into the sink",
        before_rabbit: "store = \"disk\", async: throughput before RabbitMQ",
        goal: Goal::AtLeast(0.9),
    },
    Log {
        number: 16,
        store: "disk",
        remember: "sync",
        into_sink: "store = \"disk\", sync: throughput into the sink",
        before_rabbit: "store = \"disk\", sync: throughput before RabbitMQ",
        goal: Goal::AtLeast(0.7),
    },
    Log {
        number: 17,
        store: "stream",
        remember: "async",
        into_sink: "store = \"stream\", async: throughput into the sink",
        before_rabbit: "store = \"stream\", async: throughput before RabbitMQ",
        goal: Goal::AtLeast(0.9),
    },
    Log {
        number: 18,
        store: "stream",
        remember: "sync",
        into_sink: "store = \"stream\", sync: throughput into the sink",
        before_rabbit: "store = \"stream\", sync: throughput before RabbitMQ",
        goal: Goal::AtLeast(0.5),
    },
];

/// Row 19, once for each log.
const BEFORE_RABBIT_NUMBER: u8 = 19;
/// A message that Redis decides takes about ten times as long as one in memory.
const REDIS_DIVISOR: u64 = 10;

/// Ids that a relay reads after its death.
const REMEMBERED: u64 = 10_000_000;
/// More than by default, so that filling takes no longer than it must: an ack waits for the store.
const FILLING_WINDOW: u32 = 20_000;

impl Log {
    /// A relay before this address. A stream is on this node, in a vhost of its own.
    fn relay(
        &self,
        upstream: SocketAddr,
        rabbit: &Rabbit,
        vhost: &str,
        capacity: u64,
    ) -> Result<Process, Error> {
        rabbit.add_vhost(vhost).map_err(|error| Error::Step(error.to_string()))?;
        let stream = format!("[store.stream]\nuri = \"amqp://guest:guest@{}/{vhost}\"\n", rabbit.addr());
        let server = if self.store == "stream" { &stream } else { "" };
        Process::relay_with(upstream, &Settings { capacity, ..settings(self.store, self.remember, server) })
    }
}

fn settings(store: &str, remember: &str, server: &str) -> Settings {
    Settings {
        top: format!("state_dir = \"{FOLDER}/state\"\n{server}"),
        window: format!("store = \"{store}\"\nremember = \"{remember}\"\n"),
        ..Settings::default()
    }
}

/// Rows 15 to 18. The windows are full before the measuring begins, so each publish evicts an id.
pub(super) fn into_sink(extent: Extent, wanted: impl Fn(u8) -> bool) -> Result<Vec<Row>, Error> {
    let (sink, rabbit) = (Process::sink()?, rabbit()?);
    let memory = Process::relay(sink.address(), "enforce")?;
    put(&Load::new(memory.target(), FILLING))?;
    let rate =
        |relay: &Process| put(&Load::new(relay.target(), extent.messages(RUN))).map(|outcome| outcome.rate());
    LOGS.into_iter()
        .filter(|log| wanted(log.number))
        .map(|log| {
            let relay = log.relay(sink.address(), &rabbit, &format!("sink-{}", log.number), WINDOW)?;
            put(&Load::new(relay.target(), FILLING))?;
            let is_synced_disk = (log.store, log.remember) == ("disk", "sync");
            let bound = if is_synced_disk { Some(bound_by_sync(relay.folder())?) } else { None };
            Ok(Row {
                number: log.number,
                what: log.into_sink,
                against: "memory",
                unit: "msg/s",
                pairs: alternate(extent, || rate(&memory), || rate(&relay))?,
                goal: log.goal,
                note: bound,
            })
        })
        .collect()
}

/// Returns a note: the most messages a second that this disk allows. Acks wait for a sync, and at most 1,000 of them wait for one.
fn bound_by_sync(folder: &Path) -> Result<String, Error> {
    const SYNCS: usize = 200;
    // As much as the log writes for a thousand ids.
    let batch = vec![0; 24 * 1024];
    let syncs = || {
        let mut file = File::create(folder.join("syncs"))?;
        (0..SYNCS)
            .map(|_| {
                let from = now();
                file.write_all(&batch)?;
                file.sync_data()?;
                Ok(now().duration_since(from).as_secs_f64())
            })
            .collect::<io::Result<Vec<f64>>>()
    };
    let sync = middle(syncs().map_err(Error::io("syncing a file"))?.into_iter());
    let most = 1000.0 / sync;
    Ok(format!(
        "store = \"disk\", sync: a write of 24 KiB with fdatasync takes this disk {:.2} ms, so 1,000 in flight are {most:.0} msg/s at most",
        sync * 1e3
    ))
}

/// Row 19: before a real broker, which also has the streams.
pub(super) fn before_rabbit(extent: Extent) -> Result<Vec<Row>, Error> {
    let rabbit = rabbit()?;
    let memory = Process::relay(rabbit.addr(), "enforce")?;
    let rate = |relay: &Process| {
        put(&Load::new(relay.target(), extent.messages(BEFORE_RABBIT))).map(|outcome| outcome.rate())
    };
    // The node's first messages take longer than all that follow.
    rate(&memory)?;
    LOGS.into_iter()
        .map(|log| {
            let relay = log.relay(rabbit.addr(), &rabbit, &format!("rabbit-{}", log.number), WINDOW)?;
            Ok(Row {
                number: BEFORE_RABBIT_NUMBER,
                what: log.before_rabbit,
                against: "memory",
                unit: "msg/s",
                pairs: alternate(extent, || rate(&memory), || rate(&relay))?,
                goal: Goal::AtLeast(0.95),
                note: None,
            })
        })
        .collect()
}

/// Row 22: how long a relay that was killed takes until a client can log in again. It has read its log then.
pub(super) fn recovery(extent: Extent) -> Result<Vec<Row>, Error> {
    let (sink, rabbit) = (Process::sink()?, rabbit()?);
    let count = extent.messages(REMEMBERED);
    [(&LOGS[1], 5.0), (&LOGS[3], 15.0)]
        .into_iter()
        .map(|(log, most)| {
            let mut relay = log.relay(sink.address(), &rabbit, &format!("read-{}", log.number), count)?;
            put(&Load { window: FILLING_WINDOW, ..Load::new(relay.target(), count) })?;
            let mut pairs = Pairs::default();
            for _ in 0..extent.pairs {
                pairs.push(relay.restart()?.as_secs_f64(), 1.0);
            }
            Ok(Row {
                number: 22,
                what: match log.store {
                    "disk" => "store = \"disk\": 10 million ids are read",
                    _ => "store = \"stream\": 10 million ids are read",
                },
                against: "-",
                unit: "s",
                pairs,
                goal: Goal::AtMost(most),
                note: None,
            })
        })
        .collect()
}

/// Rows 20 and 21. The time of one message in flight is compared with a sum: that of the window in memory, and a round trip to Redis.
pub(super) fn redis(extent: Extent) -> Result<Vec<Row>, Error> {
    let (sink, redis) = (Process::sink()?, Process::redis()?);
    // Each has a database of its own, because each has a secret of its own.
    let server = |database: u8| format!("[store.redis]\nurl = \"redis://{}/{database}\"\n", redis.address());
    let memory = Process::relay(sink.address(), "enforce")?;
    let relay = |remember, database| {
        Process::relay_with(sink.address(), &settings("redis", remember, &server(database)))
    };
    let relays = [relay("sync", 0)?, relay("async", 1)?];
    let rate = |relay: &Process| {
        let load = Load::new(relay.target(), extent.messages(RUN) / REDIS_DIVISOR);
        put(&load).map(|outcome| outcome.rate())
    };
    let names = [
        "store = \"redis\", sync: throughput into the sink",
        "store = \"redis\", async: throughput into the sink",
    ];
    let mut rows = Vec::new();
    for (relay, what) in relays.iter().zip(names) {
        rows.push(Row {
            number: 20,
            what,
            against: "memory",
            unit: "msg/s",
            pairs: alternate(extent, || rate(&memory), || rate(relay))?,
            goal: Goal::Known,
            note: Some(format!(
                "{what}: target ≥ 60,000 msg/s on two cores, which Redis, relay, load and sink share"
            )),
        });
    }
    let _awake = Awake::new();
    let names = ["store = \"redis\", sync: publish→ack, p50", "store = \"redis\", async: publish→ack, p50"];
    let half = |target: Target| {
        let outcome = put(&Load { window: 1, ..Load::new(target, extent.messages(ROUND_TRIPS)) })?;
        Ok::<_, Error>(outcome.latency.value_at_quantile(0.5) as f64 / 1e3)
    };
    for (relay, what) in relays.iter().zip(names) {
        let theirs = || Ok(half(memory.target())? + redis.ping(extent.messages(ROUND_TRIPS))?);
        rows.push(Row {
            number: 21,
            what,
            against: "memory + a PING",
            unit: "µs",
            pairs: alternate(extent, theirs, || half(relay.target()))?,
            goal: Goal::AtMost(1.2),
            note: None,
        });
    }
    Ok(rows)
}
