//! Chaos that an operator asks for (`hapax chaos`), in front of a real RabbitMQ: with a window and a guard nothing is lost and nothing is
//! done twice, and without a guard the report says what is. Each run is made over a classic queue and over a quorum queue.

use crate::e2e::http;
use crate::e2e::publisher::{Publisher, check, persistent, publish_while};
use crate::e2e::raw::{Login, Publish, Raw, Told, method_frame};
use crate::e2e::retry;
use crate::e2e::site::{Site, own_rabbit, without_relay};
use crate::e2e::wait::{self, PATIENCE, now};
use crate::hostile::alarm;
use amq_protocol::protocol::{AMQPClass, basic, channel};
use amq_protocol::types::AMQPValue;
use hapax_core::session::{ChaosFault, ChaosPlan, ChaosShares};
use hapax_testbed::{Leash, free_port};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// A relay before which chaos is allowed in this vhost. Messages are published again through a listener of its own.
fn troubled(vhost: &str) -> Option<Site> {
    Site::of_relay(vhost, &config(vhost, "guest"))
}

fn config(vhost: &str, again: &str) -> String {
    let port = free_port().unwrap();
    format!(
        "[chaos]\nenabled = true\nvhosts = [\"{vhost}\"]\n\
         [chaos.replay]\nuri = \"amqp://{again}:{again}@127.0.0.1:{port}/{vhost}\"\n\
         [[listener]]\naddress = \"127.0.0.1:{port}\"\n\
         [[window]]\nname = \"orders\"\n\
         [[guard]]\nname = \"workers\"\nqueue = \"q*\"\nttl = \"1h\"\ncapacity = 100000\n"
    )
}

fn start(site: &Site, order: &Value) {
    site.relay().api("POST", "/api/v1/chaos", &order.to_string());
}

/// Ends the run, and returns its report.
fn stop(site: &Site) -> Value {
    let report = site.relay().api("DELETE", "/api/v1/chaos", "");
    println!("{report:#}");
    report
}

/// How often a fault was done.
fn done(report: &Value, fault: &str) -> u64 {
    let faults = report["faults"].as_array().unwrap();
    let found = faults.iter().find(|one| one["fault"] == fault).expect(fault);
    found["done"].as_u64().unwrap()
}

/// A count of a window's answers.
fn answered(report: &Value, window: &str, what: &str) -> u64 {
    let windows = report["windows"].as_array().unwrap();
    windows.iter().find(|one| one["name"] == window).expect(window)[what].as_u64().unwrap()
}

/// The argument of a queue of this type.
fn of_type(kind: &str) -> (&'static str, AMQPValue) {
    ("x-queue-type", AMQPValue::LongString(kind.into()))
}

#[test]
fn with_a_window_nothing_is_lost_and_nothing_is_there_twice() {
    publishers_are_troubled("troubled-publishers", "classic");
}

#[test]
fn with_a_window_nothing_is_lost_or_doubled_in_a_quorum_queue() {
    publishers_are_troubled("troubled-quorum-publishers", "quorum");
}

/// Publishers with retries, while confirms are lost or late, connections end, and messages come again.
fn publishers_are_troubled(vhost: &str, kind: &str) {
    const IDS: usize = 1_500;
    let Some(site) = troubled(vhost) else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[of_type(kind)]);
    let order = json!({
        "seed": 7, "duration": "2m", "drop_acks": 0.004, "hold_acks": 0.004, "hold_for": "40ms", "cut": 0.002,
        "replay": 0.2, "windows": ["orders"],
    });
    start(&site, &order);
    let ids = |n: usize| (0..IDS).map(|id| format!("{n}-{id}")).collect();
    let addr = [site.addr()];
    let mut publishers: Vec<Publisher> =
        (0..3).map(|n| Publisher::new(&site.vhost, &addr, ids(n), 20)).collect();
    publish_while(&mut publishers, |acked| acked.wait_for(0));
    // Some messages are due by now.
    let replayed = || {
        let report = site.relay().api("GET", "/api/v1/chaos", "")["run"].clone();
        (done(&report, "replay") >= 20).then_some(())
    };
    wait::until("messages are published again", PATIENCE, replayed);
    let report = stop(&site);
    for fault in ["drop_acks", "hold_acks", "cut"] {
        assert!(done(&report, fault) > 3, "{fault}: {report:#}");
    }
    let connections: usize = publishers.iter().map(|one| one.connections).sum();
    assert!(connections > 6, "their connections have ended: {connections}");
    // Each retry of a stored message, and each message that came again.
    let replays = done(&report, "replay");
    assert!(answered(&report, "orders", "duplicates") >= replays + done(&report, "drop_acks"), "{report:#}");
    assert_eq!((answered(&report, "orders", "escaped"), answered(&report, "orders", "in_doubt")), (0, 0));
    wait::until("nothing is in flight", PATIENCE, || {
        (site.metrics().sum("in_flight", &[("window", "orders")]) == 0.0).then_some(())
    });
    let held = retry::held(&mut direct, "q");
    let doubled = check(&held, &publishers.iter().collect::<Vec<_>>());
    assert_eq!((held.len(), doubled), (3 * IDS, 0));
    site.relay().until_says("a run of chaos has begun");
    site.relay().until_says("the run of chaos is over");
    assert!(site.metrics().sum("chaos_faults_total", &[("fault", "cut")]) > 0.0);
    assert_eq!(site.metrics().sum("chaos_running", &[]), 0.0);
}

/// Works off a queue until nothing comes for a while. Returns how often each id took effect, and how often the connection has ended: then
/// it begins anew.
fn work(site: &Site, queue: &str) -> (BTreeMap<String, u32>, usize) {
    let (mut effects, mut again) = (BTreeMap::new(), 0);
    let mut client = consumer(site, queue);
    loop {
        match client.receive() {
            Ok(Some((_, Told::Delivered { tag, message }))) => {
                let id = String::from_utf8_lossy(message.id().unwrap()).into_owned();
                *effects.entry(id).or_default() += 1;
                let ack = basic::Ack { delivery_tag: tag, multiple: false };
                let ack = AMQPClass::Basic(basic::AMQPMethod::Ack(ack));
                if client.write(&method_frame(1, &ack)).is_err() {
                    client = consumer(site, queue);
                    again += 1;
                }
            }
            Ok(Some(_)) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return (effects, again);
            }
            Ok(None) | Err(_) => {
                client = consumer(site, queue);
                again += 1;
            }
        }
    }
}

/// A consumer whose questions are on their way. Its connection may end at any moment.
fn consumer(site: &Site, queue: &str) -> Raw {
    let begin = || -> io::Result<Raw> {
        let mut client = Raw::login(site.addr(), &Login::guest(&site.vhost))?;
        let open = AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}));
        let qos = basic::Qos { prefetch_count: 10, global: false };
        let consume = basic::Consume { queue: queue.into(), consumer_tag: "c".into(), ..Default::default() };
        let [qos, consume] =
            [basic::AMQPMethod::Qos(qos), basic::AMQPMethod::Consume(consume)].map(AMQPClass::Basic);
        client.write(&[open, qos, consume].map(|method| method_frame(1, &method)).concat())?;
        client.socket().set_read_timeout(Some(Duration::from_millis(700)))?;
        Ok(client)
    };
    wait::until("a consumer is there", PATIENCE, || begin().ok())
}

/// Fills a queue with jobs, past Hapax. Waits for all confirms: a quorum queue drops what it has not confirmed when the publisher leaves.
fn fill(site: &Site, queue: &str, arguments: &[(&str, AMQPValue)], jobs: usize) {
    let mut direct = site.direct();
    direct.confirming(1);
    direct.declare(1, queue, arguments);
    for n in 0..jobs {
        direct.publish(1, &Publish { persistent: true, ..Publish::to(queue, &n.to_string()) });
    }
    let mut open: BTreeSet<u64> = (1..=jobs as u64).collect();
    while !open.is_empty() {
        match direct.next(1) {
            Told::Ack { tag, multiple: false } => _ = open.remove(&tag),
            Told::Ack { tag, multiple: true } => open.retain(|own| *own > tag),
            told => panic!("{told:?}"),
        }
    }
}

#[test]
fn a_guard_hides_what_comes_again_and_without_one_the_report_shows_the_doubles() {
    acks_are_lost("troubled-consumers", "classic");
}

#[test]
fn a_guard_hides_what_comes_again_from_a_quorum_queue() {
    acks_are_lost("troubled-quorum-consumers", "quorum");
}

/// The same run over two queues: behind a guard no job is done twice, and without one the report says how many are.
fn acks_are_lost(vhost: &str, kind: &str) {
    const JOBS: usize = 200;
    let Some(site) = troubled(vhost) else { return };
    for (queue, is_guarded) in [("q", true), ("free", false)] {
        fill(&site, queue, &[of_type(kind)], JOBS);
        start(&site, &json!({"seed": 7, "duration": "2m", "redeliver": 0.3}));
        let (effects, _) = work(&site, queue);
        let report = stop(&site);
        let redelivered = done(&report, "redeliver");
        assert!((30..100).contains(&redelivered), "{report:#}");
        assert_eq!(effects.len(), JOBS, "nothing is lost");
        let doubled = effects.values().filter(|times| **times > 1).count() as u64;
        let seen = report["acked_shown_again"].as_u64().unwrap();
        let hidden = answered(&report, "workers", "duplicates");
        match is_guarded {
            true => assert_eq!((doubled, seen, hidden), (0, 0, redelivered)),
            false => assert_eq!((doubled, seen, hidden), (redelivered, redelivered, 0)),
        }
    }
}

#[test]
fn consumers_that_are_cut_lose_nothing() {
    consumers_are_cut("troubled-cuts", "classic");
}

#[test]
fn consumers_of_a_quorum_queue_that_are_cut_lose_nothing() {
    consumers_are_cut("troubled-quorum-cuts", "quorum");
}

/// Consumers that are cut get again what they have not acked.
fn consumers_are_cut(vhost: &str, kind: &str) {
    const JOBS: usize = 300;
    let Some(site) = troubled(vhost) else { return };
    fill(&site, "q", &[of_type(kind)], JOBS);
    start(&site, &json!({"seed": 3, "duration": "2m", "cut": 0.02}));
    let (effects, again) = work(&site, "q");
    let report = stop(&site);
    assert_eq!(effects.len(), JOBS);
    assert!(done(&report, "cut") > 0 && again > 0, "{again}: {report:#}");
    assert_eq!(report["acked_shown_again"], 0, "nobody had acked them");
}

/// A quorum queue drops a message that came back too often: in RabbitMQ 4 by default after 20 times, here after 3. A run that cuts at every
/// occasion must not be the reason, and comes to an end.
#[test]
fn a_consumer_that_is_cut_at_every_occasion_reaches_no_delivery_limit() {
    const JOBS: usize = 60;
    let Some(site) = troubled("troubled-limit") else { return };
    for (queue, faults) in [
        ("q", json!({"cut": 1})),
        ("q2", json!({"cut": 1, "redeliver": 1})),
        ("free", json!({"cut": 0.5, "redeliver": 0.5})),
    ] {
        fill(&site, queue, &[of_type("quorum"), ("x-delivery-limit", AMQPValue::LongInt(3))], JOBS);
        let mut order = json!({"seed": 3, "duration": "2m"});
        order.as_object_mut().unwrap().extend(faults.as_object().unwrap().clone());
        start(&site, &order);
        let (effects, again) = work(&site, queue);
        let report = stop(&site);
        assert_eq!(effects.len(), JOBS, "{queue}: nothing is lost");
        assert!(done(&report, "cut") > 0 && again > 0, "{again}: {report:#}");
    }
}

/// A run troubles nobody outside of the vhosts that the configuration names.
#[test]
fn a_neighbour_in_another_vhost_is_not_troubled() {
    let Some(site) = troubled("troubled-here") else { return };
    site.rabbit.add_vhost("untroubled").unwrap();
    start(&site, &json!({"seed": 1, "duration": "2m", "cut": 1, "drop_acks": 1, "redeliver": 1}));
    let mut neighbour = Raw::connect(site.addr(), "untroubled");
    neighbour.confirming(1);
    neighbour.declare(1, "q", &[]);
    for tag in 1..=20 {
        let told = neighbour.publish_and_settle(1, &Publish::to("q", &tag.to_string()));
        assert_eq!(told, [Told::Ack { tag, multiple: false }]);
    }
    let mut here = site.client();
    here.confirming(1);
    here.publish(1, &Publish::to("nowhere", "a"));
    assert!(matches!(here.receive(), Ok(None) | Err(_)), "this one is cut");
    let report = stop(&site);
    assert_eq!(done(&report, "cut") + done(&report, "drop_acks"), 1, "{report:#}");
    assert_eq!(report["rows"][0]["vhost"], "troubled-here");
}

/// RabbitMQ closes the channel of a consumer that gives a message back to a stream. A consumer that names no offset can't be told from
/// others, its messages can.
#[test]
fn a_stream_is_delivered_once() {
    const MESSAGES: u64 = 20;
    let Some(site) = troubled("troubled-stream") else { return };
    fill(&site, "log", &[of_type("stream")], 0);
    start(&site, &json!({"seed": 1, "duration": "2m", "redeliver": 1}));
    let mut client = consumer(&site, "log");
    wait::until("the consumer reads", PATIENCE, || {
        matches!(
            client.receive(),
            Ok(Some((_, Told::Method(AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(_))))))
        )
        .then_some(())
    });
    let mut direct = site.direct();
    direct.confirming(1);
    for n in 1..=MESSAGES {
        direct.publish_and_settle(1, &Publish { persistent: true, ..Publish::to("log", &n.to_string()) });
        let (tag, message) = wait::until("a delivery", PATIENCE, || match client.receive() {
            Ok(Some((_, Told::Delivered { tag, message }))) => Some((tag, message)),
            Ok(Some((_, told))) => panic!("{told:?}"),
            Ok(None) => panic!("the connection has ended"),
            Err(_) => None,
        });
        assert_eq!((tag, message.id()), (n, Some(n.to_string().as_bytes())));
        let ack = AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag: tag, multiple: false }));
        client.send(1, &ack);
    }
    assert_eq!(done(&stop(&site), "redeliver"), 0);
}

/// The relay dies while it holds confirms back. Nobody has heard an ack, and what was stored is known to the disk.
#[test]
fn a_relay_that_is_killed_with_confirms_in_its_hands_doubles_nothing() {
    let state = Leash::new("troubled-held").unwrap();
    let vhost = "troubled-held";
    let config = format!(
        "state_dir = \"{}\"\n[chaos]\nenabled = true\nvhosts = [\"{vhost}\"]\n\
         [[window]]\nname = \"orders\"\nttl = \"1h\"\nstore = \"disk\"\nremember = \"sync\"\n",
        state.folder().join("state").display()
    );
    let Some(mut site) = Site::of_relay(vhost, &config) else { return };
    let mut direct = site.direct();
    direct.open_channel(1);
    direct.declare(1, "q", &[]);
    start(&site, &json!({"seed": 1, "duration": "2m", "hold_acks": 1, "hold_for": "30s"}));
    let ids: Vec<String> = (0..50).map(|id| id.to_string()).collect();
    let mut client = site.client();
    client.confirming(1);
    ids.iter().for_each(|id| client.publish(1, &persistent(id)));
    site.until_metric("commits_total", &[("window", "orders")], 50.0);
    assert!(client.read_ahead().is_empty(), "no confirm");
    site.relay_mut().restart();
    assert!(matches!(client.receive(), Ok(None) | Err(_)), "it has heard nothing");
    let mut publisher = Publisher::new(vhost, &[site.addr()], ids.clone(), 50);
    publisher.run(&|_| true);
    let held = retry::held(&mut direct, "q");
    assert_eq!((held.len(), held.values().sum::<usize>()), (50, 50));
}

/// A drain ends the run, so the confirms that were held back are written. A new run is refused.
#[test]
fn a_drain_ends_the_run_and_lets_confirms_go() {
    let vhost = "troubled-drain";
    let config =
        format!("[timeouts]\ndrain_delay = \"3s\"\n[chaos]\nenabled = true\nvhosts = [\"{vhost}\"]\n");
    let Some(mut site) = Site::of_relay(vhost, &config) else { return };
    start(&site, &json!({"seed": 1, "duration": "2m", "hold_acks": 1, "hold_for": "30s"}));
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    client.publish(1, &persistent("1"));
    site.until_metric("chaos_faults_total", &[("fault", "hold_acks")], 1.0);
    let asked = now();
    site.relay().api("POST", "/api/v1/drain", "");
    assert_eq!(client.next(1), Told::Ack { tag: 1, multiple: false });
    assert!(now() < asked + Duration::from_secs(20), "its time was not over");
    let state = site.relay().api("GET", "/api/v1/chaos", "");
    assert_eq!((&state["running"], &state["run"]["ended"]), (&json!(false), &json!("drain")));
    let json = "Content-Type: application/json\r\n";
    let refused = http::ask(site.relay().admin(), "POST", "/api/v1/chaos", json, r#"{"cut": 1}"#).unwrap();
    assert!(refused.0 == 409 && refused.1.contains("about to end"), "{refused:?}");
    drop(client);
    assert!(site.relay_mut().ended().success());
}

/// Whether the messages of the connection that was there before a run with this seed come again in its second half.
fn all_are_due_late(seed: u64, messages: usize) -> bool {
    let plan = ChaosPlan {
        seed,
        shares: ChaosShares::default(),
        hold_for: Duration::ZERO,
        windows: None,
        until: now(),
    };
    let late = |draw: u64| (u64::MAX / 2..u64::MAX / 10 * 9).contains(&draw);
    (1..=messages as u64).all(|number| late(plan.draw(ChaosFault::Replay, !0, number)))
}

/// The broker has no memory left and reads nothing, so nobody says whether the user who publishes again may do so. The run ends in its time, each
/// message that was picked is in its report, and when the broker reads again, everything is there once.
#[test]
fn a_run_that_publishes_again_before_a_broker_without_memory_ends_in_time() {
    const IDS: usize = 4;
    if without_relay() {
        return;
    }
    let rabbit = own_rabbit();
    let site = Site::on(&rabbit, "troubled-alarm", &config("troubled-alarm", "again"));
    site.add_user("again", ".*");
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let began = now();
    let seed = (0..).find(|seed| all_are_due_late(*seed, IDS)).unwrap();
    start(&site, &json!({ "seed": seed, "duration": "4s", "replay": 1.0, "windows": ["orders"] }));
    let ids: Vec<String> = (0..IDS).map(|id| id.to_string()).collect();
    for id in &ids {
        client.publish_and_settle(1, &Publish::to("q", id));
    }
    alarm::watermark(&rabbit, "0.000001", "1");
    let report = || site.relay().api("GET", "/api/v1/chaos", "")["run"].clone();
    let report = wait::until("the run is over", PATIENCE, || {
        let report = report();
        (report["running"] == false).then_some(report)
    });
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let count = |what: &str| report["replays"][what].as_u64().expect(what);
    let kinds =
        ["published", "refused", "not_stored", "full", "other_vhost", "unreadable", "lost", "waiting"];
    let counted: u64 = kinds.iter().map(|kind| count(kind)).sum();
    assert_eq!((count("picked"), counted), (IDS as u64, IDS as u64), "{report:#}");
    assert!(count("lost") > 0, "{report:#}");
    alarm::watermark(&rabbit, "0.4", "0");
    assert_eq!(client.publish_and_settle(1, &Publish::to("q", "last")).len(), 1, "it goes on");
    // What was sent before the end is judged now.
    wait::until("nobody publishes again", PATIENCE, || {
        let connections = site.relay().api("GET", "/api/v1/connections", "");
        (connections["connections"].as_array().unwrap().len() == 1).then_some(())
    });
    let mut direct = site.direct();
    direct.open_channel(1);
    let mut held = direct.drain(1, "q");
    held.sort();
    let mut all = [ids, vec!["last".to_owned()]].concat();
    all.sort();
    assert_eq!(held, all);
}
