//! The log of a test with several threads and a Redis, for a person who looks at a red run. It has what the threads and Redis did, in the order
//! of time. Redis tells each command, and what a script changes in a hash.

use super::server::Server;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The log of a test. A test that fails leaves it in a file.
pub(super) struct Story {
    seed: u64,
    lines: Mutex<Vec<(Duration, String)>>,
    monitor: Child,
    told: PathBuf,
}

impl Story {
    /// Begins to listen to this server.
    pub(super) fn of(server: &Server, seed: u64) -> Story {
        let told = server.folder().join("monitor.txt");
        let monitor = Command::new("redis-cli")
            .args(["-p", &server.port.to_string(), "MONITOR"])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&told).unwrap())
            .spawn()
            .expect("redis-cli: run scripts/setup");
        Story { seed, lines: Mutex::default(), monitor, told }
    }

    /// Notes what this thread has done.
    #[expect(clippy::disallowed_methods, reason = "Redis tells the time by the wall clock")]
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let line = format!("{}: {}", thread::current().name().unwrap_or("?"), what());
        self.lines.lock().unwrap().push((at, line));
    }

    /// All of it, by the time.
    fn whole(&self) -> Vec<(Duration, String)> {
        let mut lines = self.lines.lock().map(|lines| lines.clone()).unwrap_or_default();
        let told = std::fs::read_to_string(&self.told).unwrap_or_default();
        lines.extend(told.lines().filter_map(|line| {
            let (at, what) = line.split_once(' ')?;
            let is_idle = ["\"XREAD\"", "\"INFO\"", "\"PING\""].iter().any(|idle| what.contains(idle));
            (!is_idle)
                .then_some((Duration::try_from_secs_f64(at.parse().ok()?).ok()?, format!("    redis {what}")))
        }));
        lines.sort_by_key(|(at, _)| *at);
        lines
    }

    fn write(&self) -> std::io::Result<PathBuf> {
        let path = std::env::temp_dir().join(format!("hapax-history-{}.txt", self.seed));
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        for (at, line) in self.whole() {
            writeln!(file, "{:.6} {line}", at.as_secs_f64())?;
        }
        Ok(path)
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
        if thread::panicking() {
            println!("everything that happened: {:?}", self.write());
        }
    }
}
