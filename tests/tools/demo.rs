//! `hapax demo` as a newcomer runs it, small: it passes, says true numbers, leaves nothing behind; and it does fail
//! where there is something to fail on.

use hapax_testbed::Rabbit;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// `hapax demo` with these arguments, and with a temporary folder of its own, to see that nothing remains there.
fn demo(temporary: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    command.arg("demo").args(arguments).env_remove("KEEP").env("TMPDIR", temporary).stdin(Stdio::null());
    command
}

/// A folder that is removed at the end of its test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        // Short: RabbitMQ and the sockets below it have limits.
        let path = std::env::temp_dir().join(format!("hapax-demo-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The number behind this label in a table.
fn row(output: &str, label: &str) -> Vec<String> {
    let line = output.lines().find(|line| line.contains(label)).unwrap_or_default();
    let cells = line.trim_matches('│').split('┆').skip(1);
    cells.map(|cell| cell.trim_matches(['│', ' ']).to_owned()).collect()
}

/// The port in `…127.0.0.1:PORT…` behind this word.
fn port(output: &str, word: &str) -> u16 {
    let (_, rest) = output.split_once(word).unwrap();
    let (_, rest) = rest.split_once("127.0.0.1:").unwrap();
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn it_passes_says_true_numbers_and_leaves_nothing_running() {
    let folder = Folder::new("pass");
    let output = demo(&folder.0, &["--messages", "2000"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(row(&text, "│ all "), ["1,600", "2,000", "400"], "{text}");
    for (label, count) in [
        ("sent (written", "2,000"),
        ("forwarded by the relay", "1,600"),
        ("passive declare", "1,600"),
        ("taken out one by one", "1,600"),
        ("exactly once  ", "1,600"),
        ("more than once", "0"),
        ("not there", "0"),
    ] {
        assert_eq!(row(&text, label), [count], "{label}\n{text}");
    }
    let number = |label| row(&text, label).concat().parse::<u32>().unwrap();
    assert_eq!(number("dropped by the relay") + number("lost with a crashed"), 400, "{text}");
    assert!(number("lost with a crashed") <= 120, "{text}");

    // The failures: first answer, the answer to the same id, the queue; twice.
    let failures: Vec<_> = text.lines().filter(|line| line.contains("in the queue   ")).collect();
    assert_eq!(failures.len(), 2, "{text}");
    assert!(failures.iter().all(|line| line.contains("0: LOST") && line.contains("1: delivered")), "{text}");
    assert_eq!(row(&text, "1. Queue full"), ["nack", "nack"]);
    assert_eq!(row(&text, "2. mandatory"), ["returned", "returned"]);
    for store in ["disk", "stream"] {
        assert!(text.contains(&format!("ok    killed with store = \"{store}\"")), "{text}");
    }
    assert_eq!(row(&text, "twice after the retry  "), ["0", "0"], "{text}");
    assert_eq!(row(&text, "ids that are missing"), ["0", "0"], "{text}");
    assert!(text.ends_with("PASS\n"), "{text}");

    assert!(folder.is_empty(), "a folder was left");
    assert!(
        !listens(port(&text, "RabbitMQ ")) && !listens(port(&text, "--listen")),
        "something was left running"
    );
}

#[test]
fn with_the_relay_left_out_it_fails() {
    let rabbit = Rabbit::start().unwrap();
    let folder = Folder::new("fail");
    let broker = rabbit.uri();
    let arguments = ["--messages", "2000", "--json", "--upstream", &broker, "--relay", &broker];
    let output = demo(&folder.0, &arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["pass"], false);
    assert_eq!(report["checks"][0]["holds"], false, "every id exactly once: {report}");
    assert_eq!(report["queue"]["missing"], 0, "{report}");
    // All redundant and hasty repeats got through; of the replays those that were not lost with a crash.
    let repeated = report["queue"]["repeated"].as_u64().unwrap();
    assert!((280..=400).contains(&repeated), "{report}");
    assert!(errors.contains("FAIL  every id exactly once"), "{errors}");
    assert_eq!(rabbit.eval("rabbit_amqqueue:count().").unwrap(), "0", "its queues are gone");
}

#[test]
fn kept_it_runs_on_until_it_is_stopped_as_it_says() {
    let folder = Folder::new("keep");
    let output = demo(&folder.0, &["--messages", "100"]).env("KEEP", "1").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let (_, kept) = text.split_once("KEEP=1: left running").unwrap();
    let ports = [port(kept, "RabbitMQ "), port(kept, "Hapax "), port(kept, "metrics ")];
    let running = ports.map(listens);
    let stop = kept.lines().find_map(|line| line.trim().strip_prefix("stop both")).unwrap().trim();
    assert!(Command::new("sh").args(["-c", stop]).status().unwrap().success());
    assert_eq!(running, [true; 3], "{text}");
    assert_eq!(ports.map(listens), [false; 3], "{text}");
    assert!(folder.is_empty(), "a folder was left");
}

#[test]
fn ctrl_c_ends_it_with_all_that_it_has_started() {
    let folder = Folder::new("interrupt");
    let mut child = demo(&folder.0, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("Publishing") {
        assert_ne!(output.read_line(&mut text).unwrap(), 0, "{text}");
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("interrupted"));
    assert!(
        !listens(port(&text, "RabbitMQ ")) && !listens(port(&text, "--listen")),
        "something was left running"
    );
    assert!(folder.is_empty(), "a folder was left");
}
