//! A private Prometheus: its own port and folder, loopback only, gone with its test. It runs the example configuration
//! and the alert rules of `config/prometheus`, before the relay of a test and faster than any operator would scrape.

use super::{http, wait};
use hapax_testbed::Leash;
use hapax_testbed::free_port;
use serde_json::Value;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SCRAPE_EVERY: &str = "1s";

/// `config/prometheus`.
pub fn config_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/prometheus")
}

/// One series of an answer: its labels, and its value.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    pub labels: Value,
    pub value: f64,
}

/// An alert as Prometheus has read it.
#[derive(Clone, PartialEq, Debug)]
pub struct Alert {
    pub name: String,
    pub query: String,
    pub annotations: Value,
    pub labels: Value,
}

/// A running Prometheus. Dropped, it is killed.
pub struct Prometheus {
    leash: Leash,
    addr: SocketAddr,
    child: Child,
}

impl Prometheus {
    /// Starts it before the admin listener of a relay.
    pub fn start(target: SocketAddr) -> Prometheus {
        let leash = Leash::new("prometheus").unwrap();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let config = leash.folder().join("prometheus.yml");
        fs::write(&config, example(target)).unwrap();
        let log = File::create(leash.folder().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", leash.folder().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus is there: run scripts/setup");
        leash.hold(&child).unwrap();
        let mut prometheus = Prometheus { leash, addr, child };
        wait::until("Prometheus is ready", wait::PATIENCE, || {
            let ended = prometheus.child.try_wait().unwrap();
            assert_eq!(ended, None, "Prometheus ended at once:\n{}", prometheus.log());
            matches!(http::get(addr, "/-/ready"), Ok((200, _))).then_some(())
        });
        prometheus
    }

    /// Returns the answer to a query as of now.
    pub fn query(&self, expression: &str) -> Vec<Sample> {
        self.ask(&format!("/api/v1/query?query={}", encoded(expression)))
    }

    /// Returns the answer to a query as of a moment long before this Prometheus was started.
    pub fn query_before_all(&self, expression: &str) -> Vec<Sample> {
        self.ask(&format!("/api/v1/query?time=1000000000&query={}", encoded(expression)))
    }

    /// The alerts of the rule files, in their order.
    pub fn alerts(&self) -> Vec<Alert> {
        let data = self.data("/api/v1/rules?type=alert");
        let groups = data["groups"].as_array().unwrap();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        rules
            .map(|rule| Alert {
                name: text(&rule["name"]),
                query: text(&rule["query"]),
                annotations: rule["annotations"].clone(),
                labels: rule["labels"].clone(),
            })
            .collect()
    }

    /// Waits until the relay was scraped `times` more, with success.
    pub fn until_scraped(&self, times: f64) {
        let count = || {
            let up = self.query(r#"sum_over_time(up{job="hapax"}[1h])"#);
            up.first().map_or(0.0, |sample| sample.value)
        };
        let before = count();
        wait::until("the relay is scraped", wait::PATIENCE, || (count() >= before + times).then_some(()));
    }

    fn ask(&self, path: &str) -> Vec<Sample> {
        let data = self.data(path);
        assert_eq!(data["resultType"], "vector", "{path}: {data}");
        let sample = |series: &Value| Sample {
            labels: series["metric"].clone(),
            value: series["value"][1].as_str().unwrap().parse().unwrap(),
        };
        data["result"].as_array().unwrap().iter().map(sample).collect()
    }

    fn data(&self, path: &str) -> Value {
        let (status, body) = http::get(self.addr, path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str::<Value>(&body).unwrap()["data"].take()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.leash.folder().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.leash.kill9(&mut self.child);
        if std::thread::panicking() {
            println!("--- the log of Prometheus:\n{}\n---", self.log());
        }
    }
}

/// The example configuration, with another target and in a hurry. Each replacement must find its place.
fn example(target: SocketAddr) -> String {
    let rules = config_folder().join("hapax.rules.yml");
    let mut text = fs::read_to_string(config_folder().join("prometheus.yml")).unwrap();
    for (from, to) in [
        (
            "scrape_interval: 15s",
            format!("scrape_interval: {SCRAPE_EVERY}\n  scrape_timeout: {SCRAPE_EVERY}"),
        ),
        ("evaluation_interval: 15s", "evaluation_interval: 1s".to_owned()),
        ("- hapax.rules.yml", format!("- {}", rules.display())),
        ("127.0.0.1:15673", target.to_string()),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from:?} in config/prometheus/prometheus.yml");
        text = text.replace(from, &to);
    }
    text
}

/// For a query string.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
