//! The log of a relay that runs: each line is one JSON object, and signals that ask for nothing leave a line and no more.

use super::cli::{Running, ended, hapax, http, until};
use hapax_testbed::free_port;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// A relay without a broker, and its log.
struct Logged {
    child: Running,
    port: u16,
    admin: u16,
    log: Arc<Mutex<Vec<String>>>,
}

impl Logged {
    fn start(args: &[&str]) -> Logged {
        let (port, admin) = (free_port().expect("a free port"), free_port().expect("a free port"));
        let mut command = hapax(&["--upstream", "amqp://127.0.0.1:1"]);
        command
            .args(["--listen", &format!("127.0.0.1:{port}"), "--admin", &format!("127.0.0.1:{admin}")])
            .args(args);
        let mut child = Running(command.stderr(Stdio::piped()).spawn().expect("started"));
        let lines = BufReader::new(child.0.stderr.take().expect("piped"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            lines.lines().map_while(Result::ok).for_each(|line| kept.lock().expect("no panic").push(line));
        });
        let logged = Logged { child, port, admin, log };
        logged.wait_for("ready");
        logged
    }

    /// Waits for a line with this text, and returns it.
    fn wait_for(&self, text: &str) -> String {
        until(text, || {
            let log = self.log.lock().expect("no panic");
            log.iter().find(|line| line.contains(text)).cloned()
        })
    }

    fn signal(&self, name: &str) {
        let id = self.child.0.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill").success());
    }

    /// Asks the API with a body.
    fn api(&self, method: &str, path: &str, body: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).expect("connected");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("readable");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// Parses a JSON object, and refuses a key that is there twice. (serde_json takes the last one.)
fn strictly(line: &str) -> BTreeMap<String, Value> {
    struct Once;
    impl<'de> Visitor<'de> for Once {
        type Value = BTreeMap<String, Value>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, Value>()? {
                if let Some(first) = pairs.insert(key, value) {
                    return Err(serde::de::Error::custom(format!("a key is there twice: {first}")));
                }
            }
            Ok(pairs)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(line);
    let pairs = reader.deserialize_map(Once).unwrap_or_else(|error| panic!("{error}: {line}"));
    reader.end().expect(line);
    pairs
}

#[test]
fn every_log_line_is_json_with_each_key_once() {
    let relay = Logged::start(&["--log", "trace"]);
    relay.api("PATCH", "/api/v1/windows/default", r#"{"capacity": 2000, "ttl": 60, "mode": "observe"}"#);
    relay.api("POST", "/api/v1/windows/default/flush", "");
    // A client for which there is no broker.
    let mut client = TcpStream::connect(("127.0.0.1", relay.port)).expect("connected");
    client.write_all(b"AMQP\x00\x00\x09\x01").expect("written");
    relay.wait_for("can't reach the broker");
    relay.signal("-HUP");
    relay.wait_for("configuration reloaded");
    relay.signal("-TERM");
    let mut relay = relay;
    assert_eq!(ended(&mut relay.child.0), Some(0));
    relay.wait_for("drained; good bye");
    let log = relay.log.lock().expect("no panic").clone();
    let lines: Vec<_> = log.iter().map(|line| strictly(line)).collect();
    assert!(lines.len() >= 8, "{log:#?}");
    for line in &lines {
        for key in ["timestamp", "level", "target", "message"] {
            assert!(line.get(key).is_some_and(Value::is_string), "{key} of {line:?}");
        }
    }
    let with = |key: &str, value: &str| {
        lines
            .iter()
            .find(|line| line.get(key).is_some_and(|v| v == value))
            .unwrap_or_else(|| panic!("{value}"))
    };
    let resized = with("message", "capacity changed");
    assert_eq!((&resized["from"], &resized["to"]), (&1_000_000.into(), &2000.into()), "numbers are numbers");
    assert_eq!(with("message", "flushed")["flushed"], 0);
    assert_eq!(with("message", "can't reach the broker")["left_out"], 0);
}

#[test]
fn a_signal_that_asks_for_nothing_ends_nothing() {
    let relay = Logged::start(&[]);
    for (signal, name) in [("-USR1", "SIGUSR1"), ("-USR2", "SIGUSR2")] {
        relay.signal(signal);
        let line = relay.wait_for(name);
        assert!(line.contains("ignored: SIGHUP reloads the configuration"), "{line}");
    }
    // Nobody reads these pipes.
    relay.signal("-PIPE");
    let health = until("an answer", || http(relay.admin, "GET", "/healthz"));
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    relay.signal("-QUIT");
    let mut relay = relay;
    assert_eq!(ended(&mut relay.child.0), Some(0));
    relay.wait_for("drained; good bye");
}

#[test]
fn a_wrong_level_is_refused_wherever_it_comes_from() {
    let folder = std::env::temp_dir().join(format!("hapax-operate-level-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let file = folder.join("hapax.toml");
    std::fs::write(&file, "[log]\nlevel = \"wraning\"\n").expect("written");
    let file_text = file.to_str().expect("UTF-8").to_owned();
    for (args, env, place) in [
        (vec!["check", "--config", &file_text], None, format!("{file_text}:2")),
        (vec!["check", "--log", "wraning"], None, "--log".to_owned()),
        (vec!["check"], Some("wraning"), "HAPAX_LOG".to_owned()),
        (vec!["--admin", "off", "--log", "wraning"], None, "--log".to_owned()),
    ] {
        let mut command = hapax(&args);
        command.envs(env.map(|value| ("HAPAX_LOG", value)));
        let (code, _, stderr) = super::cli::run(&mut command);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(&place) && stderr.contains("did you mean \"warn\"?"), "{stderr}");
    }
    let (code, stdout, _) = super::cli::run(&mut hapax(&["check", "--log", "warning"]));
    assert_eq!(code, Some(0));
    assert!(stdout.contains("level = \"warn\""), "{stdout}");
    std::fs::remove_dir_all(&folder).expect("removed");
}
