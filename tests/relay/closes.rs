//! Everything that the broker says before its `close-ok` reaches the client, in order: the same octets are said to the broker and to the
//! relay, and the two transcripts must be the same.
#![allow(clippy::disallowed_methods, reason = "a few of them measure time")]

use crate::e2e::raw::{HEADER, Publish, Raw, Told, method_frame};
use crate::e2e::relay::Relay;
use crate::e2e::site::without_relay;
use crate::e2e::wait;
use crate::hostile::script::{
    Differences, channel_close, channel_close_ok, channel_open, confirm_select, connection_open, logged_in,
    next, qos, start_ok, to_the_end, tune_ok, tx_commit, tx_select,
};
use crate::hostile::stage::{Stage, Who};
use amq_protocol::protocol::{AMQPClass, basic, connection, exchange, queue};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Octets that end with the client's close, on channel 1, which is open.
struct Script {
    name: &'static str,
    /// what the broker says to it, somewhere
    says: &'static str,
    octets: fn() -> Vec<u8>,
}

fn to(exchange: &'static str, id: Option<&'static str>) -> Publish<'static> {
    Publish { exchange, key: "q", id: id.map(str::as_bytes), body: b"body", ..Publish::default() }
}

fn publish(exchange: &'static str, id: &'static str) -> Vec<u8> {
    to(exchange, Some(id)).encode(1, 4096)
}

fn basic(method: basic::AMQPMethod) -> Vec<u8> {
    method_frame(1, &AMQPClass::Basic(method))
}

fn ack(tag: u64) -> Vec<u8> {
    basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag: tag, multiple: false }))
}

fn consume(queue: &str, nowait: bool) -> Vec<u8> {
    let consume = basic::Consume {
        queue: queue.into(),
        consumer_tag: "mine".into(),
        nowait,
        ..basic::Consume::default()
    };
    basic(basic::AMQPMethod::Consume(consume))
}

fn cancel(nowait: bool) -> Vec<u8> {
    basic(basic::AMQPMethod::Cancel(basic::Cancel { consumer_tag: "mine".into(), nowait }))
}

fn get(queue: &str) -> Vec<u8> {
    basic(basic::AMQPMethod::Get(basic::Get { queue: queue.into(), no_ack: true }))
}

fn declare(queue: &str, passive: bool, durable: bool, nowait: bool) -> Vec<u8> {
    let declare =
        queue::Declare { queue: queue.into(), passive, durable, nowait, ..queue::Declare::default() };
    method_frame(1, &AMQPClass::Queue(queue::AMQPMethod::Declare(declare)))
}

fn bind(exchange: &str) -> Vec<u8> {
    let bind =
        queue::Bind { queue: "q".into(), exchange: exchange.into(), nowait: true, ..queue::Bind::default() };
    method_frame(1, &AMQPClass::Queue(queue::AMQPMethod::Bind(bind)))
}

fn exchange(name: &str, kind: &str) -> Vec<u8> {
    let declare = exchange::Declare {
        exchange: name.into(),
        kind: kind.into(),
        nowait: true,
        ..exchange::Declare::default()
    };
    method_frame(1, &AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare)))
}

fn recover() -> Vec<u8> {
    basic(basic::AMQPMethod::Recover(basic::Recover { requeue: true }))
}

const SCRIPTS: &[Script] = &[
    Script { name: "nothing", says: "CloseOk", octets: Vec::new },
    Script {
        name: "a publish to no exchange",
        says: "channel.close 404",
        octets: || publish("no such", "404"),
    },
    Script {
        name: "a publish without an id to no exchange",
        says: "channel.close 404",
        octets: || to("no such", None).encode(1, 4096),
    },
    Script { name: "a forbidden publish", says: "channel.close 403", octets: || publish("shut", "403") },
    Script {
        name: "a forbidden publish without an id",
        says: "channel.close 403",
        octets: || to("shut", None).encode(1, 4096),
    },
    Script {
        name: "a good publish, then one to no exchange",
        says: "channel.close 404",
        octets: || [publish("open", "good, then 404"), publish("no such", "404")].concat(),
    },
    Script {
        name: "two to no exchange, and a declaration",
        says: "channel.close 404",
        octets: || {
            [publish("no such", "1"), publish("no such", "2"), declare("q", true, false, false)].concat()
        },
    },
    Script {
        name: "confirms, one to no exchange",
        says: "channel.close 404",
        octets: || [confirm_select(1), publish("no such", "404")].concat(),
    },
    Script {
        name: "tx, one to no exchange, commit",
        says: "channel.close 404",
        octets: || [tx_select(1), publish("no such", "404"), tx_commit(1)].concat(),
    },
    Script {
        name: "tx, a good one, commit",
        says: "SelectOk",
        octets: || [tx_select(1), publish("open", "tx"), tx_commit(1)].concat(),
    },
    Script {
        name: "a publish, then tx, one to no exchange, commit",
        says: "channel.close 404",
        octets: || {
            [publish("open", "before tx"), tx_select(1), publish("no such", "404"), tx_commit(1)].concat()
        },
    },
    Script { name: "tx.commit without tx", says: "channel.close 406", octets: || tx_commit(1) },
    Script {
        name: "a publish, then tx.commit without tx",
        says: "channel.close 406",
        octets: || [publish("open", "commit without tx"), tx_commit(1)].concat(),
    },
    Script {
        name: "confirms, then tx.select",
        says: "channel.close 406",
        octets: || [confirm_select(1), tx_select(1)].concat(),
    },
    Script { name: "an ack of nothing", says: "channel.close 406", octets: || ack(7) },
    Script {
        name: "a publish, then an ack of nothing",
        says: "channel.close 406",
        octets: || [publish("open", "then a bad ack"), ack(7)].concat(),
    },
    Script {
        name: "a nowait consume of nothing",
        says: "channel.close 404",
        octets: || consume("no such", true),
    },
    Script {
        name: "a publish, then a nowait consume of nothing",
        says: "channel.close 404",
        octets: || [publish("open", "then a bad consume"), consume("no such", true)].concat(),
    },
    Script { name: "a nowait bind to nothing", says: "channel.close 404", octets: || bind("no such") },
    Script {
        name: "an exchange that it may not declare",
        says: "channel.close 403",
        octets: || [publish("open", "then an exchange"), exchange("mine", "topic")].concat(),
    },
    Script {
        name: "a queue that is not there",
        says: "channel.close 404",
        octets: || [publish("open", "then a queue"), declare("no such", true, false, true)].concat(),
    },
    Script {
        name: "get of an empty queue",
        says: "GetEmpty",
        octets: || [get("empty"), get("empty")].concat(),
    },
    Script {
        name: "publish, get of an empty queue",
        says: "GetEmpty",
        octets: || [publish("open", "then get"), get("empty")].concat(),
    },
    Script {
        name: "publish, consume",
        says: "CloseOk",
        octets: || [publish("open", "then consume"), consume("consumed", false)].concat(),
    },
    Script {
        name: "publish, nowait consume, nowait cancel, recover, qos",
        says: "RecoverOk",
        octets: || {
            [publish("open", "then recover"), consume("consumed", true), cancel(true), recover(), qos(1)]
                .concat()
        },
    },
    Script {
        name: "publish, a declaration",
        says: "DeclareOk",
        octets: || [publish("open", "then declare"), declare("empty", true, false, false)].concat(),
    },
    Script {
        name: "an unroutable mandatory publish",
        says: "Return",
        octets: || Publish { key: "nowhere", ..to("", Some("returned")) }.mandatory().encode(1, 4096),
    },
    Script {
        name: "an unroutable mandatory publish, then one to no exchange",
        says: "channel.close 404",
        octets: || {
            let returned = Publish { key: "nowhere", ..to("", Some("returned, then 404")) };
            [returned.mandatory().encode(1, 4096), publish("no such", "404")].concat()
        },
    },
    Script {
        name: "a publish, then two acks of nothing",
        says: "channel.close 406",
        octets: || [publish("open", "then ack twice"), ack(1), ack(1)].concat(),
    },
    Script {
        name: "two closes",
        says: "CloseOk",
        octets: || [publish("no such", "404"), channel_close(1)].concat(),
    },
];

/// Says the octets and a close. Returns the answers until the channel is closed and was opened again.
fn hear(addr: SocketAddr, stage: &Stage, who: Who, octets: &[u8], times: usize) -> Vec<String> {
    let mut client = logged_in(addr, &stage.user(who), &stage.site.vhost, 100);
    client.open_channel(1);
    let mut said = Vec::new();
    for _ in 0..times {
        client.write(&[octets, &channel_close(1)].concat()).unwrap();
        said.extend(to_close_ok(&mut client));
    }
    said
}

/// Returns the answers up to `channel.close-ok`, and opens the channel again.
fn to_close_ok(client: &mut Raw) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = true;
    while let Some(frame) = next(client, &mut lines) {
        match frame.payload.first_chunk() {
            Some([0, 20, 0, 40]) => client.write(&channel_close_ok(1)).unwrap(),
            Some([0, 20, 0, 41]) if open => {
                open = false;
                client.write(&channel_open(1)).unwrap();
            }
            Some([0, 20, 0, 11]) => break,
            Some([0, 10, 0, 50]) => break,
            _ => {}
        }
    }
    // It depends on which process of the broker is first whether these come before its close-ok. The relay waits for them.
    let may_come = ["Basic(Ack", "CommitOk", "ConsumeOk"];
    let told = lines.into_iter().map(|(_, line)| line);
    told.filter(|line| !may_come.iter().any(|word| line.contains(word))).collect()
}

fn compare(vhost: &str, who: Who, times: usize) {
    let mut stage = Stage::new(vhost, "");
    stage.direct.declare(1, "empty", &[]);
    stage.direct.declare(1, "consumed", &[]);
    let mut differences = Differences::default();
    for Script { name, says, octets } in SCRIPTS {
        let theirs = hear(stage.site.rabbit.addr(), &stage, who, &octets(), times);
        if who == Who::All && !says.ends_with(" 403") && *says != "channel.close 403" {
            differences.expect(name, says, &theirs);
        }
        differences.compare(name, &theirs, &hear(stage.site.addr(), &stage, who, &octets(), times));
    }
    differences.none();
}

/// Says the octets and `connection.close`. Returns the answers up to `connection.close-ok`.
fn hear_to_the_end(addr: SocketAddr, stage: &Stage, who: Who, octets: &[u8]) -> Vec<String> {
    let mut client = logged_in(addr, &stage.user(who), &stage.site.vhost, 100);
    client.open_channel(1);
    let close = method_frame(
        0,
        &AMQPClass::Connection(connection::AMQPMethod::Close(connection::Close {
            reply_code: 200,
            ..connection::Close::default()
        })),
    );
    client.write(&[octets, &close].concat()).unwrap();
    let mut lines = Vec::new();
    while let Some(frame) = next(&mut client, &mut lines) {
        // The broker does not answer a close that crosses its own. The relay does.
        if frame.payload.starts_with(&[0, 10, 0, 50]) || frame.payload.starts_with(&[0, 10, 0, 51]) {
            break;
        }
    }
    let may_come = ["Basic(Ack", "CommitOk", "ConsumeOk", "CancelOk"];
    let told = lines.into_iter().map(|(_, line)| line);
    told.filter(|line| !may_come.iter().any(|word| line.contains(word))).collect()
}

#[test]
fn what_the_broker_says_before_close_ok_reaches_the_client() {
    compare("closes-all", Who::All, 3);
}

#[test]
fn what_the_broker_says_before_close_ok_reaches_a_client_without_rights() {
    compare("closes-some", Who::None, 2);
}

/// Faults of the whole connection, whose close crosses the client's.
#[test]
fn what_the_broker_says_before_connection_close_ok_reaches_the_client() {
    let stage = Stage::new("closes-connection", "");
    let mut differences = Differences::default();
    let scripts: [(&str, &str, Vec<u8>); 5] = [
        ("nothing", "CloseOk", Vec::new()),
        ("a publish", "CloseOk", publish("open", "then connection.close")),
        (
            "a method where a header must be",
            "connection.close 505",
            [to("open", Some("x")).method(1), qos(1)].concat(),
        ),
        ("a channel that is not open", "connection.close 504", qos(7)),
        ("a channel that is opened twice", "connection.close 504", channel_open(1)),
    ];
    for (name, says, octets) in scripts {
        let theirs = hear_to_the_end(stage.site.rabbit.addr(), &stage, Who::All, &octets);
        differences.expect(name, says, &theirs);
        differences.compare(name, &theirs, &hear_to_the_end(stage.site.addr(), &stage, Who::All, &octets));
    }
    differences.none();
}

/// The answer of the broker itself takes a few milliseconds.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A client whose message is stuck: the process of its queue does nothing.
fn stuck(stage: &mut Stage) -> Raw {
    let mut client = stage.confirming(Who::All);
    client.publish(1, &Publish::to("q", "proves the right"));
    assert!(matches!(client.next(1), Told::Ack { .. }));
    sys(stage, "q", "suspend");
    client.publish(1, &Publish::to("q", "stuck"));
    stage.site.until_metric("window_in_flight", &[], 1.0);
    client
}

fn sys(stage: &Stage, queue: &str, what: &str) {
    let vhost = &stage.site.vhost;
    let pid = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"{queue}\">>)), \
         ok = sys:{what}(amqqueue:get_pid(Q))."
    );
    stage.site.rabbit.eval(&pid).unwrap();
}

/// The stuck message is stored now, once, and its retry is acked.
fn retry_shares_the_fate(stage: &mut Stage) {
    let mut retry = stage.confirming(Who::All);
    retry.publish(1, &Publish::to("q", "stuck"));
    sys(stage, "q", "resume");
    assert!(matches!(retry.next(1), Told::Ack { .. }));
    assert_eq!(stage.stored(), ["proves the right", "stuck"]);
    drop(retry);
    stage.site.until_metric("connections", &[], 0.0);
}

#[test]
fn p06_a_channel_with_a_stuck_message_is_closed_at_once() {
    let Some(mut stage) = Stage::of_relay("closes-stuck-channel", "") else { return };
    stage.direct.declare(1, "good", &[]);
    let mut client = stuck(&mut stage);
    let begin = Instant::now();
    client.write(&channel_close(1)).unwrap();
    let answers = to_close_ok(&mut client);
    assert_eq!(answers.len(), 2, "close-ok, open-ok: {answers:?}");
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    // The same number is another channel now.
    client.write(&confirm_select(1)).unwrap();
    client.publish(1, &Publish::to("good", "good"));
    assert!(matches!(client.next(1), Told::Method(AMQPClass::Confirm(_))));
    assert!(matches!(client.next(1), Told::Ack { tag: 1, .. }));
    assert!(begin.elapsed() < 2 * AT_ONCE, "{:?}", begin.elapsed());
    let retry = std::thread::spawn(move || client.close());
    retry.join().unwrap();
    assert!(begin.elapsed() < 4 * AT_ONCE, "{:?}", begin.elapsed());
    retry_shares_the_fate(&mut stage);
}

/// A client closes or vanishes, and this is left behind: its exclusive queue, and the messages that it had not acked.
fn left_behind(vhost: &str, closes: bool) {
    let Some(mut stage) = Stage::of_relay(vhost, "") else { return };
    stage.direct.declare(1, "jobs", &[]);
    stage.direct.publish(1, &Publish::to("jobs", "job"));
    stage.site.rabbit.eval(&format!(
        "ok = rabbit_auth_backend_internal:set_permissions(<<\"{}\">>, <<\"{vhost}\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"hapax\">>).",
        stage.user(Who::All)
    )).unwrap();
    let mut client = stuck(&mut stage);
    let declare = queue::Declare { queue: "mine".into(), exclusive: true, ..queue::Declare::default() };
    let declare = AMQPClass::Queue(queue::AMQPMethod::Declare(declare));
    client.call(1, &declare).unwrap();
    let consume = AMQPClass::Basic(basic::AMQPMethod::Consume(basic::Consume {
        queue: "jobs".into(),
        exclusive: true,
        ..basic::Consume::default()
    }));
    client.call(1, &consume).unwrap();
    assert!(matches!(client.next(1), Told::Delivered { .. }));
    let begin = Instant::now();
    if closes {
        client.close();
        assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    } else {
        drop(client);
    }
    let mut heir = stage.client(Who::All);
    wait::until("the exclusive queue and the exclusive consumer are gone", wait::PATIENCE, || {
        heir = stage.client(Who::All);
        heir.open_channel(1);
        heir.call(1, &declare).ok()?;
        heir.open_channel(2);
        heir.call(2, &consume).ok()
    });
    assert!(matches!(heir.next(2), Told::Delivered { .. }), "what was not acked is delivered again");
    assert!(begin.elapsed() < 3 * AT_ONCE, "{:?}", begin.elapsed());
    drop(heir);
    retry_shares_the_fate(&mut stage);
}

#[test]
fn p06_a_connection_with_a_stuck_message_is_closed_at_once() {
    left_behind("closes-stuck-connection", true);
}

#[test]
fn p06_a_client_with_a_stuck_message_vanishes_and_its_exclusive_queue_with_it() {
    left_behind("closes-stuck-vanishes", false);
}

#[test]
fn a_drain_does_not_wait_for_a_client_that_does_not_answer() {
    let Some(mut stage) = Stage::of_relay("closes-drain", "") else { return };
    let idle = stage.client(Who::All);
    let begin = Instant::now();
    stage.site.relay().sigterm();
    assert!(stage.site.relay_mut().ended().success());
    assert!(begin.elapsed() < 3 * AT_ONCE, "{:?}", begin.elapsed());
    drop(idle);
}

#[test]
fn a_client_hears_that_there_is_no_broker() {
    if without_relay() {
        return;
    }
    let nobody = SocketAddr::from(([127, 0, 0, 1], hapax_testbed::free_port().unwrap()));
    let relay = Relay::start_without_broker(nobody);
    // A relay before that one does not take it for a broker.
    drop(Relay::start_without_broker(relay.addr()));
    let mut client = Raw::dial(relay.addr()).unwrap();
    let begin = Instant::now();
    client.write(HEADER).unwrap();
    let login = [start_ok("guest"), tune_ok(2047), connection_open("/")].concat();
    let said = to_the_end(&mut client, &login);
    assert_eq!(said.len(), 4, "start, tune, close, the end: {said:?}");
    assert!(
        said[2].contains("connection.close 320") && said[2].contains("can't reach the broker"),
        "{said:?}"
    );
    assert!(
        begin.elapsed() < AT_ONCE,
        "who tries another host then is not kept waiting: {:?}",
        begin.elapsed()
    );
}
