//! The relay as its users run it: the `hapax` binary, a process with ports and a log of its own.

use super::{http, wait};
use hapax_testbed::Leash;
use hapax_testbed::free_port;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// `None` until the crate has a binary of that name.
const BINARY: Option<&str> = option_env!("CARGO_BIN_EXE_hapax");

/// A running `hapax`. Dropped, it is killed; its log is shown if the test fails.
pub struct Relay {
    leash: Leash,
    /// `amqp://HOST:PORT` or `amqps://HOST:PORT`, or several, separated by commas; empty: the config file says it
    upstream: String,
    /// the status of `/readyz` once it has started; 0: nobody asks
    ready: u16,
    listen: SocketAddr,
    /// Listens on every interface, not on the loopback alone.
    is_open: bool,
    admin: SocketAddr,
    child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

/// The processor time that a process has taken so far, with that of threads that have ended. It is as fine as the kernel's clock ticks.
pub fn cpu_of(pid: u32) -> std::time::Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may have spaces in it: the state, and eleven fields later the ticks in user mode and in the kernel.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>();
    std::time::Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// The nodes at these addresses, as `--upstream` takes them.
pub fn nodes(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| format!("amqp://{address}")).collect::<Vec<_>>().join(",")
}

impl Relay {
    /// Starts it before the broker at `upstream`, with this TOML as its config file (`""`: without one).
    pub fn start(upstream: SocketAddr, config: &str) -> Relay {
        Relay::started(&format!("amqp://{upstream}"), config, (false, 200))
    }

    /// As [`Relay::start`], before a broker at this URL, or before its nodes, separated by commas. `/readyz` must have this status once
    /// the relay has started.
    pub fn start_before(upstream: &str, config: &str, ready: u16) -> Relay {
        Relay::started(upstream, config, (false, ready))
    }

    /// Starts one whose admin listener speaks TLS, so that nobody asks whether it is ready.
    pub fn start_with_admin_tls(upstream: &str, config: &str) -> Relay {
        Relay::started(upstream, config, (false, 0))
    }

    /// Starts it before an address where nothing listens.
    pub fn start_without_broker(upstream: SocketAddr) -> Relay {
        Relay::started(&format!("amqp://{upstream}"), "", (false, 503))
    }

    /// As [`Relay::start`], and it listens on every interface.
    pub fn open(upstream: SocketAddr, config: &str) -> Relay {
        Relay::started(&format!("amqp://{upstream}"), config, (true, 200))
    }

    /// Starts one that ends by itself. Returns how, and what it said.
    pub fn refused(upstream: SocketAddr, config: &str) -> (ExitStatus, String) {
        let port = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let leash = Leash::new("relay").unwrap();
        let file = leash.folder().join("hapax.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(BINARY.expect("there is no hapax binary"));
        command
            .args(["--listen", &port().to_string(), "--admin", &port().to_string()])
            .args(["--upstream", &format!("amqp://{upstream}")])
            .arg("--config")
            .arg(file);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        leash.hold(&child).unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let reader = thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            said
        });
        let status = wait::until("it ends by itself", wait::PATIENCE, || child.try_wait().unwrap());
        leash.let_go(&child);
        (status, reader.join().unwrap())
    }

    fn started(upstream: &str, config: &str, (is_open, ready): (bool, u16)) -> Relay {
        let port = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
        let mut relay = Relay {
            leash: Leash::new("relay").unwrap(),
            upstream: upstream.to_owned(),
            ready,
            listen: port(),
            is_open,
            admin: port(),
            child: None,
            log: Arc::default(),
            readers: Vec::new(),
        };
        if !config.is_empty() {
            std::fs::write(relay.leash.folder().join("hapax.toml"), config).unwrap();
        }
        relay.restart();
        relay
    }

    /// Starts it (again) on the same ports and waits until it says that it is ready.
    pub fn restart(&mut self) {
        self.kill9();
        let binary = BINARY.expect("there is no hapax binary: HAPAX_E2E_DIRECT=1 tests the tests");
        let mut command = Command::new(binary);
        let ip = if self.is_open { Ipv4Addr::UNSPECIFIED.into() } else { self.listen.ip() };
        command
            .args(["--listen", &SocketAddr::new(ip, self.listen.port()).to_string()])
            .args(["--admin", &self.admin.to_string()]);
        if !self.upstream.is_empty() {
            command.args(["--upstream", &self.upstream]);
        }
        let config = self.leash.folder().join("hapax.toml");
        if config.exists() {
            command.arg("--config").arg(config);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        self.leash.hold(&child).unwrap();
        self.follow(child.stdout.take().unwrap());
        self.follow(child.stderr.take().unwrap());
        self.child = Some(child);
        wait::until("/readyz of the relay says what it should", wait::PATIENCE, || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert_eq!(ended, None, "the relay ended at once:\n{}", self.log());
            if self.ready == 0 {
                return self.log().contains("ready").then_some(());
            }
            http::get(self.admin, "/readyz").is_ok_and(|(status, _)| status == self.ready).then_some(())
        });
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.listen
    }

    /// Where the admin interface is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Asks the API, as one who may and means it: the answer must be a 200.
    pub fn api(&self, method: &str, path: &str, body: &str) -> serde_json::Value {
        let headers = "Content-Type: application/json\r\n";
        let (status, text) = http::ask(self.admin, method, path, headers, body).unwrap();
        assert_eq!(status, 200, "{method} {path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Every series of `/metrics`, by its name with labels as written, e.g. `hapax_commits_total{window="default"}`.
    pub fn metrics(&self) -> Metrics {
        let (status, text) = http::get(self.admin, "/metrics").unwrap();
        assert_eq!(status, 200, "{text}");
        Metrics::parse(&text)
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        let pid = self.child.as_ref().expect("it runs").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The processor time that it has taken so far.
    pub fn cpu(&self) -> std::time::Duration {
        cpu_of(self.child.as_ref().expect("it runs").id())
    }

    /// How many of its threads have this name.
    pub fn threads(&self, name: &str) -> usize {
        let pid = self.child.as_ref().expect("it runs").id();
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|comm| comm.trim() == name).count()
    }

    /// Kills it with signal 9.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.leash.kill9(&mut child);
        }
    }

    /// Asks it to drain.
    pub fn sigterm(&self) {
        self.signal("-TERM");
    }

    /// Writes its config file, which it must have been started with. It does not read it by itself.
    pub fn write_config(&self, text: &str) {
        std::fs::write(self.config_file(), text).unwrap();
    }

    /// Its config file.
    pub fn config_file(&self) -> std::path::PathBuf {
        self.leash.folder().join("hapax.toml")
    }

    /// Asks it to read its config file.
    pub fn sighup(&self) {
        self.signal("-HUP");
    }

    /// Stops the process where it is, until [`Relay::carry_on`].
    pub fn stand_still(&self) {
        self.signal("-STOP");
    }

    /// Lets it run again.
    pub fn carry_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let status = wait::until("the relay drains and ends", wait::PATIENCE, || child.try_wait().unwrap());
        self.leash.let_go(&child);
        status
    }

    /// Waits until its log has these words. A line may come a moment after what it tells of.
    pub fn until_says(&self, words: &str) {
        wait::until(words, wait::PATIENCE, || self.log().contains(words).then_some(()));
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    fn follow(&mut self, output: impl Read + Send + 'static) {
        let log = Arc::clone(&self.log);
        self.readers.push(thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                log.lock().unwrap().push(line);
            }
        }));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill9();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if thread::panicking() {
            println!("--- the relay's log:\n{}\n---", self.log.lock().unwrap().join("\n"));
        }
    }
}

/// Counters and gauges as they were at one moment.
#[derive(Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Metrics {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        Metrics(
            samples
                .filter_map(|line| line.rsplit_once(' '))
                .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
                .collect(),
        )
    }

    /// The sum over all series `hapax_<name>` that carry all of these `label="value"` pairs; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        self.0
            .iter()
            .filter(|(series, _)| {
                let (head, rest) = series.split_once('{').unwrap_or((series, ""));
                head.strip_prefix("hapax_") == Some(name)
                    && wanted.iter().all(|label| rest.trim_end_matches('}').split(',').any(|l| l == label))
            })
            .map(|(_, value)| value)
            .sum()
    }
}
