//! `hapax bench` as its users run it: what it counts is what the broker has, and what it measures is what happened.

use crate::e2e::site::{Site, shared_rabbit};
use crate::e2e::wait;
use futures_util::StreamExt;
use hapax::tools::bench::Target;
use hapax::tools::bench::load::{self, Load, Outcome};
use hapax_testbed::free_port;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use serde_json::Value;
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn hapax(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    command.arg("bench").args(arguments).stdin(Stdio::null());
    command
}

/// Exit code, stdout, stderr.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = hapax(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The result as JSON of a load on this vhost.
fn measured(addr: SocketAddr, vhost: &str, arguments: &[&str]) -> Value {
    let url = format!("amqp://guest:guest@{addr}/{vhost}");
    let (code, stdout, stderr) = run(&[&["--url", &url, "--json"], arguments].concat());
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

fn numbers<const N: usize>(result: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| result[name].as_u64().unwrap_or_else(|| panic!("{name}: {result}")))
}

/// A vhost of the broker itself, with a queue `q`.
fn vhost(name: &str) -> SocketAddr {
    let rabbit = shared_rabbit();
    rabbit.add_vhost(name).unwrap();
    let mut client = crate::e2e::raw::Raw::connect(rabbit.addr(), name);
    client.open_channel(1);
    client.declare(1, "q", &[]);
    rabbit.addr()
}

/// All ids that are in `q`.
fn ids(vhost: &str) -> Vec<String> {
    let mut client = crate::e2e::raw::Raw::connect(shared_rabbit().addr(), vhost);
    client.open_channel(1);
    client.drain(1, "q")
}

/// `hapax bench sink`, killed at the end of its test.
struct Sink {
    child: Child,
    addr: SocketAddr,
}

impl Sink {
    fn start() -> Sink {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let child = hapax(&["sink", "--listen", &addr.to_string()]).spawn().unwrap();
        let sink = Sink { child, addr };
        wait::until("the sink listens", wait::PATIENCE, || TcpStream::connect(addr).ok());
        sink
    }

    fn signal(pid: u32, name: &str) {
        assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_it_counts_is_what_the_queue_holds() {
    let addr = vhost("bench-counts");
    let arguments = ["--count", "2000", "--routing-key", "q", "--connections", "3", "--size", "10"];
    let result = measured(addr, "bench-counts", &arguments);
    let counts = numbers(&result, ["published", "repeated", "acked", "nacked", "returned"]);
    assert_eq!(counts, [2000, 0, 2000, 0, 0]);
    let held = ids("bench-counts");
    let different: HashSet<_> = held.iter().collect();
    assert_eq!((held.len(), different.len()), (2000, 2000));
    assert!(held.iter().all(|id| id.len() == 32), "{:?}", held.first());
}

#[test]
fn without_confirms_all_of_it_arrives_too() {
    let addr = vhost("bench-none");
    let result = measured(addr, "bench-none", &["--count", "3k", "--routing-key", "q", "--confirms", "0"]);
    assert_eq!(numbers(&result, ["published", "acked"]), [3000, 0]);
    assert_eq!(result["latency_seconds"], Value::Null);
    assert_eq!(ids("bench-none").len(), 3000);
}

#[test]
fn the_share_of_repeats_is_as_asked_and_a_relay_takes_them_out() {
    let Some(site) = Site::of_relay("bench-repeats", "") else { return };
    let mut client = site.direct();
    client.open_channel(1);
    client.declare(1, "q", &[]);
    let arguments = ["--count", "4000", "--routing-key", "q", "--duplicates", "50%", "--confirms", "50"];
    let result = measured(site.addr(), &site.vhost, &arguments);
    assert_eq!(numbers(&result, ["published", "repeated", "acked", "nacked"]), [4000, 2000, 4000, 0]);
    let held = ids(&site.vhost);
    let different: HashSet<_> = held.iter().collect();
    assert_eq!((held.len(), different.len()), (2000, 2000));
}

#[test]
fn producers_number_their_messages_and_a_relay_takes_repeats_out() {
    let window = "[[window]]\nname = \"orders\"\nid = \"sequence\"\nscope = \"exchange\"\n";
    let Some(site) = Site::of_relay("bench-producers", window) else { return };
    let mut client = site.direct();
    client.open_channel(1);
    client.declare(1, "q", &[]);
    let arguments = [
        "--count",
        "4000",
        "--routing-key",
        "q",
        "--duplicates",
        "50%",
        "--connections",
        "3",
        "--producers",
        "7",
    ];
    // Each run begins a new epoch, so its numbers are new again.
    for run in 1..=2 {
        let result = measured(site.addr(), &site.vhost, &arguments);
        assert_eq!(numbers(&result, ["published", "acked", "nacked"]), [4000, 4000, 0]);
        let fresh = 4000 - result["repeated"].as_u64().unwrap();
        let stored = site.metrics().sum("publishes_total", &[("verdict", "fresh")]);
        assert_eq!(ids(&site.vhost).len() as u64, fresh, "run {run}: {stored} in all");
        let list = site.relay().api("GET", "/api/v1/windows/orders/producers", "");
        let producers = list["producers"].as_array().unwrap();
        let names: HashSet<_> = producers.iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!((names.len(), names.contains("bench-00000006")), (7, true), "{list}");
        let counted: u64 = producers.iter().map(|one| one["highest"].as_u64().unwrap()).sum();
        assert_eq!(
            (counted, list["producers"][0]["open"].as_u64()),
            (fresh, Some(1)),
            "each from 1 on: {list}"
        );
    }
}

#[test]
fn flat_says_what_is_in_memory_at_each_tenth() {
    let (code, stdout, stderr) = run(&["flat", "--count", "300k", "--producers", "1k"]);
    assert_eq!(code, Some(if stderr.contains("memory grows") { 1 } else { 0 }), "{stdout}{stderr}");
    assert!(stderr.lines().filter(|line| line.contains(" messages: ")).count() >= 2, "{stderr}");
    assert!(stdout.contains("1,000 producers, 300,000 messages") || code == Some(1), "{stdout}{stderr}");
}

#[test]
fn what_it_consumes_is_what_it_has_published() {
    let addr = vhost("bench-consume");
    let result = measured(addr, "bench-consume", &["--count", "5000", "--consume"]);
    assert_eq!(numbers(&result, ["published", "acked", "delivered"]), [5000, 5000, 5000]);
    let queues = "length(rabbit_amqqueue:list(<<\"bench-consume\">>)).";
    wait::until("its own queue is gone", wait::PATIENCE, || {
        (shared_rabbit().eval(queues).unwrap() == "1").then_some(())
    });
}

#[test]
fn what_no_queue_takes_is_returned_if_asked() {
    let addr = vhost("bench-returned");
    let arguments = ["--count", "200", "--exchange", "amq.direct", "--routing-key", "nowhere", "--mandatory"];
    let result = measured(addr, "bench-returned", &arguments);
    assert_eq!(numbers(&result, ["published", "acked", "returned"]), [200, 200, 200]);
}

#[test]
fn the_json_has_every_field() {
    let addr = vhost("bench-json");
    let result = measured(addr, "bench-json", &["--count", "100", "--rate", "1000", "--persistent"]);
    for field in [
        "address",
        "connections",
        "confirms",
        "rate_asked",
        "duplicates_asked",
        "size",
        "headers",
        "message_bytes",
        "seconds",
        "published",
        "repeated",
        "acked",
        "nacked",
        "returned",
        "delivered",
        "messages_per_second",
        "bytes_per_second",
        "deliveries_per_second",
    ] {
        assert!(!result[field].is_null(), "{field}: {result}");
    }
    let latency = &result["latency_seconds"];
    assert_eq!((latency["from"].as_str(), latency["count"].as_u64()), (Some("due"), Some(100)));
    let values = ["p50", "p90", "p99", "p999", "max"].map(|name| latency[name].as_f64().unwrap());
    assert!(values.is_sorted() && values[0] > 0.0, "{latency}");
    let rate = result["messages_per_second"].as_f64().unwrap();
    assert!((200.0..=1100.0).contains(&rate), "100 messages at 1,000/s: {rate}");
}

#[test]
fn all_that_is_wrong_with_a_command_line_is_said_at_once() {
    let arguments = [
        "--url",
        "http://host",
        "--rate",
        "0",
        "--duplicates",
        "100%",
        "--size",
        "99999999999",
        "--connections",
        "0",
        "--producers",
        "4G",
    ];
    let (code, stdout, stderr) = run(&arguments);
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    for name in ["--url: ", "--rate: ", "--duplicates: ", "--size: ", "--connections: ", "--producers: "] {
        assert!(stderr.contains(&format!("error: {name}")), "{name}\n{stderr}");
    }
    assert_eq!(stderr.matches("    fix: ").count(), 6, "{stderr}");
    for line in [["--count", "0"], ["--duration", "0"], ["--exchange", "e"], ["--confirms", "-1"]] {
        assert_eq!(run(&line).0, Some(2), "{line:?}");
    }
}

#[test]
fn a_broker_that_is_not_there_or_refuses_is_an_error_at_run_time() {
    let nobody = format!("amqp://127.0.0.1:{}", free_port().unwrap());
    let (code, _, stderr) = run(&["--url", &nobody]);
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("error: no broker answers at 127.0.0.1:"), "{stderr}");

    let addr = shared_rabbit().addr();
    let (code, _, stderr) = run(&["--url", &format!("amqp://guest:wrong@{addr}/%2f")]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the broker refuses: 403 ACCESS_REFUSED"), "{stderr}");

    let url = format!("amqp://{addr}");
    let (code, _, stderr) =
        run(&["--url", &url, "--exchange", "none", "--routing-key", "k", "--duration", "20s"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the broker refuses: 404 NOT_FOUND"), "{stderr}");
}

#[tokio::test]
async fn the_sink_serves_a_client_library() {
    let sink = Sink::start();
    let uri = format!("amqp://anybody:anything@{}/anywhere", sink.addr);
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_declare("q".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    // Empty, small, and in more frames than one.
    let bodies = [0, 100, 300_000].map(|size| vec![b'x'; size]);
    let mut confirms = Vec::new();
    for body in bodies.iter().cycle().take(300) {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        confirms.push(channel.basic_publish("".into(), "q".into(), options, body, properties).await.unwrap());
    }
    for confirm in confirms {
        assert!(matches!(confirm.await.unwrap(), Confirmation::Ack(None)));
    }
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let queue = "hapax-bench-deliver:5000".into();
    let mut consumer =
        channel.basic_consume(queue, "taster".into(), options, FieldTable::default()).await.unwrap();
    for tag in 1..=5000 {
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!((delivery.delivery_tag, delivery.data.len()), (tag, 256));
    }
    connection.close(200, "done".into()).await.unwrap();
}

/// How long a broker says nothing.
const STALL: Duration = Duration::from_millis(500);

/// A load with one message in flight, in the middle of which the broker stands still.
fn stalled(rate: Option<f64>, count: u64) -> Outcome {
    let sink = Sink::start();
    let pid = sink.child.id();
    let load = Load { rate, window: 1, ..Load::new(Target::guest(&sink.addr.to_string()), count) };
    let mut waking = None;
    let outcome = load::run(&load, &mut |tally| {
        if tally.acked > 0 && waking.is_none() {
            Sink::signal(pid, "-STOP");
            // It is the stall itself that takes time here; nothing waits for it to pass.
            waking = Some(std::thread::spawn(move || {
                std::thread::park_timeout(STALL);
                Sink::signal(pid, "-CONT");
            }));
        }
    });
    waking.expect("it was stopped").join().unwrap();
    outcome.unwrap()
}

#[test]
fn a_stall_is_seen_by_all_the_messages_that_were_due_meanwhile() {
    let least = u64::try_from(STALL.as_nanos()).unwrap() * 3 / 4;
    let steady = stalled(Some(500.0), 1000);
    assert_eq!(steady.tally.acked, 1000);
    // A quarter of them were due while it stood still; the first waited for all of it, the last for hardly any.
    let quantile = |quantile| steady.latency.value_at_quantile(quantile);
    assert!(quantile(0.99) > least, "p99 {} ns", quantile(0.99));
    assert!(quantile(0.85) > least / 10, "p85 {} ns", quantile(0.85));
    assert!(steady.latency.max() >= least);

    // Without a rate nothing is due: one message has seen the stall, and one of thousands is no p99.
    let closed = stalled(None, 20_000);
    assert!(closed.latency.value_at_quantile(0.99) < least, "{}", closed.latency.value_at_quantile(0.99));
    assert!(closed.latency.max() >= least);
}
