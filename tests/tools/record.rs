//! `hapax record`: the tap on a window, and a real relay before a real RabbitMQ, recorded and replayed.

use crate::e2e::raw::{Publish, Told};
use crate::e2e::site::Site;
use crate::e2e::wait;
use hapax::config::WindowConfig;
use hapax_core::window::event::NoListener;
use hapax_core::window::tap::{BUFFERED, RECORDERS, Sample};
use hapax_core::window::{Key, LocalWindow, Mailbox, Ticket, Verdict, reserve_one};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "one base instant; the tests count from there")]
fn base() -> Instant {
    Instant::now()
}

fn window() -> Arc<LocalWindow> {
    let default = WindowConfig::named("test");
    LocalWindow::new(default.rules, default.limits, default.engine, Arc::new(NoListener))
}

/// Publishes it; whether it was fresh.
fn publish(window: &Arc<LocalWindow>, key: u128, now: Instant) -> bool {
    let mailbox = Arc::new(Mailbox::new());
    match reserve_one(window, Key(key), now, &mailbox, Ticket(0)) {
        Verdict::Fresh(reservation) => {
            reservation.commit(now, Duration::from_secs(60));
            true
        }
        _ => false,
    }
}

#[test]
fn a_recorder_sees_what_is_judged_while_it_is_there() {
    let (window, begin) = (window(), base());
    let second = Duration::from_secs(1);
    publish(&window, 1, begin);
    let recorder = window.record(begin + second).expect("room");
    assert!(!publish(&window, 1, begin + 2 * second));
    assert!(publish(&window, 2, begin + 3 * second));
    let mut samples = vec![Sample { at: second, key: Key(9) }];
    recorder.take(&mut samples);
    let sample = |at: u32, key| Sample { at: second * at, key: Key(key) };
    assert_eq!(samples, [sample(1, 1), sample(2, 2)]);
    // A duplicate that waits for the outcome of another publish is a publish, too.
    let mailbox = Arc::new(Mailbox::new());
    let now = begin + 4 * second;
    let _first = reserve_one(&window, Key(3), now, &mailbox, Ticket(1));
    let second_one = reserve_one(&window, Key(3), now, &mailbox, Ticket(2));
    assert!(matches!(second_one, Verdict::InFlight(_)));
    recorder.take(&mut samples);
    assert_eq!(samples, [sample(3, 3), sample(3, 3)]);
    assert_eq!(recorder.dropped(), 0);
}

#[test]
fn a_recorder_that_takes_nothing_loses_and_counts_and_stops_nobody() {
    let (window, now) = (window(), base());
    let (idle, busy) = (window.record(now).expect("room"), window.record(now).expect("room"));
    let (mut samples, mut seen) = (Vec::new(), 0);
    for key in 0..BUFFERED as u128 + 10 {
        assert!(publish(&window, key, now));
        if key % 10_000 == 0 {
            busy.take(&mut samples);
            seen += samples.len();
        }
    }
    busy.take(&mut samples);
    assert_eq!((seen + samples.len(), busy.dropped()), (BUFFERED + 10, 0));
    idle.take(&mut samples);
    assert_eq!((samples.len(), idle.dropped()), (BUFFERED, 10));
    assert_eq!(samples.last().expect("some").key, Key(BUFFERED as u128 - 1), "the first ones are kept");
    publish(&window, 1, now);
    idle.take(&mut samples);
    assert_eq!((samples.len(), idle.dropped()), (1, 10), "there is room again");
}

#[test]
fn there_are_few_recorders_and_a_place_is_given_back() {
    let (window, now) = (window(), base());
    let mut all: Vec<_> = (0..RECORDERS).map(|_| window.record(now).expect("room")).collect();
    assert!(window.record(now).is_none());
    drop(all.pop());
    let again = window.record(now).expect("room again");
    drop(all);
    publish(&window, 1, now);
    let mut samples = Vec::new();
    again.take(&mut samples);
    assert_eq!(samples.len(), 1);
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn hapax(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    command.args(args).env_remove("HAPAX_ADMIN_TOKEN").env_remove("HAPAX_ADMIN_URL");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: Output) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = output;
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// 100 ids, 30 of them again: through a relay, into a file, through the simulation. The simulation catches exactly
/// the publishes that the relay has dropped.
#[test]
fn what_a_relay_judges_is_recorded_and_replayed_as_it_was() {
    let Some(site) = Site::of_relay("record", "") else { return };
    let folder = Folder(std::env::temp_dir().join(format!("hapax-record-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    let path = folder.0.join("trace.jsonl");
    let file = path.to_str().unwrap();
    let admin = format!("http://{}/", site.relay().admin());
    let child = hapax(&["record", "--admin", &admin, "--max-events", "130", "-o", file]).spawn().unwrap();
    let written = || std::fs::read_to_string(&path).unwrap_or_default();
    wait::until("the recording has begun", wait::PATIENCE, || {
        written().contains("hapax_record").then_some(())
    });

    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    let ids = (0..100).chain(40..70).map(|n| format!("order-{n}"));
    for id in ids {
        let told = client.publish_and_settle(1, &Publish::to("q", &id));
        assert!(matches!(told[..], [Told::Ack { .. }]), "{told:?}");
    }
    assert_eq!(client.drain(1, "q").len(), 100);

    let (code, stdout, stderr) = text(child.wait_with_output().unwrap());
    assert_eq!((code, stdout.as_str()), (Some(0), ""), "{stderr}");
    assert!(stderr.starts_with("130 publishes in ") && stderr.contains("; 0 had no place"), "{stderr}");
    let trace = written();
    assert!(!trace.contains("order"), "no id leaves the relay:\n{trace}");
    assert_eq!(trace.lines().count(), 132);

    let (code, stdout, stderr) = text(
        hapax(&["simulate", file, "--capacities", "10,1000", "--ttls", "10m", "--json"]).output().unwrap(),
    );
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let json: Value = serde_json::from_str(&stdout).unwrap();
    let recorded =
        ["events", "ids", "repeats", "dropped_by_recorder"].map(|name| json["trace"][name].as_u64());
    assert_eq!(recorded, [130, 100, 30, 0].map(Some));
    let dropped = site.metrics().sum("publishes_total", &[("verdict", "duplicate")]);
    assert_eq!(json["cells"][1]["caught"].as_f64(), Some(dropped));
    assert_eq!((&json["cells"][0]["caught"], &json["cells"][0]["escaped"]), (&0.into(), &30.into()));
}

#[test]
fn a_recording_that_can_not_be_made_says_why() {
    let Some(site) = Site::of_relay("record-errors", "") else { return };
    let admin = site.relay().admin().to_string();
    let cases: [(&[&str], i32, &[&str]); 4] = [
        (&["--window", "nope"], 1, &["refuses (404)", "default"]),
        (&["-o", "/no/such/folder/trace"], 1, &["/no/such/folder/trace", "can't be written", "fix: "]),
        (&["--seconds", "0"], 2, &["--seconds", "longer than nothing"]),
        (&["--window", "a/b?c"], 2, &["letters, digits"]),
    ];
    for (args, exit, texts) in cases {
        let args: Vec<&str> = ["record", "--admin", &admin].iter().chain(args).copied().collect();
        let (code, _, stderr) = text(hapax(&args).output().unwrap());
        assert_eq!(code, Some(exit), "{args:?}: {stderr}");
        assert!(texts.iter().all(|text| stderr.contains(text)), "{texts:?} in\n{stderr}");
    }
    let nobody = hapax_testbed::free_port().unwrap();
    let admin = format!("127.0.0.1:{nobody}");
    let (code, _, stderr) = text(hapax(&["record", "--admin", &admin]).output().unwrap());
    assert!(code == Some(1) && stderr.contains("no relay answers") && stderr.contains("--admin"), "{stderr}");
}
