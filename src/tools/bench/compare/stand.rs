//! What is compared: processes on ports of their own, on the loopback, that end with this one.

use super::super::Error;
use super::super::dial::{Dialed, Target};
use super::super::load::{self, Load, Outcome};
use super::super::message::{self, Shape};
use super::super::now;
use super::table::middle;
use crate::process;
use hapax_testbed::Leash;
use hapax_testbed::free_port;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Milliseconds on an idle machine, and some seconds for a relay that reads millions of ids.
const START: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// jemalloc gives free pages back within ten seconds.
const SETTLES: Duration = Duration::from_secs(20);
/// Where Debian has it, if it is not in the path.
const HAPROXY: &str = "/usr/sbin/haproxy";
/// Set, these would make the relay another one than its command line says.
const ENVIRONMENT: [&str; 6] =
    ["HAPAX_CONFIG", "HAPAX_LISTEN", "HAPAX_UPSTREAM", "HAPAX_ADMIN", "HAPAX_LOG", WORKER_THREADS];
/// Of tokio's runtime: as many threads as this; without it, as the machine has cores.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";
/// Ids that the full window has room for.
pub(super) const WINDOW: u64 = 1_000_000;

/// Stands for the folder of a process in its settings.
pub(super) const FOLDER: &str = "{folder}";
/// Stands for the address that it listens at. Settings without it are about a plain listener, which the command line names.
pub(super) const ADDRESS: &str = "{address}";

/// The answer of Redis to a `PING`.
const PONG: &[u8] = b"+PONG\r\n";

/// A process that listens. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Process {
    label: &'static str,
    leash: Leash,
    command: Command,
    child: Child,
    address: SocketAddr,
}

/// The settings of a relay that a row chooses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    pub(super) mode: &'static str,
    pub(super) capacity: u64,
    /// worker threads, if not one for each core
    pub(super) threads: Option<usize>,
    /// lines at the top of its configuration, where [`FOLDER`] stands for its folder
    pub(super) top: String,
    /// lines of its window
    pub(super) window: String,
}

impl Default for Settings {
    fn default() -> Settings {
        let (top, window) = (String::new(), String::new());
        Settings { mode: "enforce", capacity: WINDOW, threads: None, top, window }
    }
}

impl Process {
    /// The sink.
    pub(super) fn sink() -> Result<Process, Error> {
        Process::start("sink", |address, _| {
            let mut command = this_program()?;
            command.args(["bench", "sink", "--listen", &address.to_string()]);
            Ok(command)
        })
    }

    /// haproxy in TCP mode, before this address.
    pub(super) fn haproxy(upstream: SocketAddr) -> Result<Process, Error> {
        Process::haproxy_with(upstream, "", "")
    }

    /// The same, with more words about its own side and about the upstream.
    pub(super) fn haproxy_with(upstream: SocketAddr, bind: &str, server: &str) -> Result<Process, Error> {
        Process::start("haproxy", |address, folder| {
            let config = format!(
                "global\n  maxconn 4000\n\
                 defaults\n  mode tcp\n  maxconn 4000\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
                 listen bench\n  bind {address} {bind}\n  server upstream {upstream} {server}\n"
            );
            let file = folder.join("haproxy.cfg");
            fs::write(&file, config).map_err(Error::io("writing haproxy's configuration"))?;
            let mut command = Command::new(haproxy());
            command.arg("-db").arg("-f").arg(file);
            Ok(command)
        })
    }

    /// A Redis that keeps nothing on disk.
    pub(super) fn redis() -> Result<Process, Error> {
        Process::start("redis", |address, folder| {
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.arg("--port").arg(address.port().to_string()).arg("--dir").arg(folder);
            Ok(command)
        })
    }

    /// Sends so many `PING`s to Redis, one after the other. Returns the median of their times in microseconds.
    pub(super) fn ping(&self, count: u64) -> Result<f64, Error> {
        let pings = || {
            let mut socket = TcpStream::connect(self.address)?;
            socket.set_nodelay(true)?;
            (0..count)
                .map(|_| {
                    let from = now();
                    socket.write_all(b"PING\r\n")?;
                    socket.read_exact(&mut [0; PONG.len()])?;
                    Ok(now().duration_since(from).as_secs_f64() * 1e6)
                })
                .collect::<io::Result<Vec<f64>>>()
        };
        Ok(middle(pings().map_err(Error::io("asking Redis"))?.into_iter()))
    }

    /// Hapax before this address, with a window of this mode. Its limits are out of the way; all else is as by default.
    pub(super) fn relay(upstream: SocketAddr, mode: &'static str) -> Result<Process, Error> {
        Process::relay_with(upstream, &Settings { mode, ..Settings::default() })
    }

    /// The same with these settings.
    pub(super) fn relay_with(upstream: SocketAddr, settings: &Settings) -> Result<Process, Error> {
        let Settings { mode, capacity, threads, top, window } = settings;
        Process::start("relay", |address, folder| {
            let is_plain = !top.contains(ADDRESS);
            let top = top.replace(FOLDER, &folder.display().to_string());
            let top = top.replace(ADDRESS, &address.to_string());
            let config = format!(
                "{top}\n[limits]\nmax_connections = 11000\nconnections_per_address = 11000\n\n\
                 [[window]]\nname = \"bench\"\ncapacity = {capacity}\nttl = \"1h\"\nmode = \"{mode}\"\n{window}"
            );
            let file = folder.join("hapax.toml");
            fs::write(&file, config)
                .and_then(|()| fs::set_permissions(&file, Permissions::from_mode(0o600)))
                .map_err(Error::io("writing the relay's configuration"))?;
            let mut command = this_program()?;
            command.arg("--config").arg(file);
            if is_plain {
                command.args(["--listen", &address.to_string()]);
            }
            command.args(["--upstream", &format!("amqp://{upstream}"), "--admin", "off"]);
            if let Some(threads) = threads {
                command.env(WORKER_THREADS, threads.to_string());
            }
            Ok(command)
        })
    }

    fn start(
        label: &'static str,
        command: impl FnOnce(SocketAddr, &Path) -> Result<Command, Error>,
    ) -> Result<Process, Error> {
        let leash = Leash::new(label).map_err(Error::io("making a folder"))?;
        let port = free_port().map_err(Error::io("looking for a free port"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = command(address, leash.folder())?;
        let log = File::create(leash.folder().join("log")).map_err(Error::io("making a log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        let child = command.spawn().map_err(Error::io(format!("starting {label}")))?;
        let mut process = Process { label, leash, command, child, address };
        process.is_started()?;
        Ok(process)
    }

    /// Kills it with signal 9 and starts it again. Returns how long that takes it until a client has logged in.
    pub(super) fn restart(&mut self) -> Result<Duration, Error> {
        self.leash.kill9(&mut self.child);
        let from = now();
        self.child = self.command.spawn().map_err(Error::io(format!("starting {}", self.label)))?;
        self.is_started()?;
        Dialed::open(&self.target())?;
        Ok(now().duration_since(from))
    }

    fn is_started(&mut self) -> Result<(), Error> {
        self.leash.hold(&self.child).map_err(Error::io("putting a process on the leash"))?;
        self.wait_until_it_listens()
    }

    fn wait_until_it_listens(&mut self) -> Result<(), Error> {
        let until = now() + START;
        while TcpStream::connect(self.address).is_err() {
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if ended || now() > until {
                let log = fs::read_to_string(self.leash.folder().join("log")).unwrap_or_default();
                return Err(Error::Step(format!("{} did not start; it says:\n{log}", self.label)));
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        Ok(())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn target(&self) -> Target {
        Target::guest(&self.address.to_string())
    }

    /// Its own, and gone with it.
    pub(super) fn folder(&self) -> &Path {
        self.leash.folder()
    }

    /// Bytes in RAM.
    pub(super) fn resident(&self) -> Result<f64, Error> {
        usage_of(self.child.id()).map(|(_, resident)| resident as f64)
    }

    /// Bytes in RAM when it has given back what is free. It rests meanwhile.
    pub(super) fn settled(&self) -> Result<f64, Error> {
        let until = now() + SETTLES;
        while let Some(left) = until.checked_duration_since(now()) {
            std::thread::park_timeout(left);
        }
        self.resident()
    }

    /// Processor seconds, user and system, that it has taken for this.
    pub(super) fn cpu<T>(&self, act: impl FnOnce() -> Result<T, Error>) -> Result<(f64, T), Error> {
        cpu_of(self.child.id(), act)
    }
}

/// Processor seconds, user and system, that this process has taken for this: it is the one that makes the load.
pub(super) fn cpu_of_load<T>(act: impl FnOnce() -> Result<T, Error>) -> Result<(f64, T), Error> {
    cpu_of(std::process::id(), act)
}

fn cpu_of<T>(id: u32, act: impl FnOnce() -> Result<T, Error>) -> Result<(f64, T), Error> {
    let (before, _) = usage_of(id)?;
    let result = act()?;
    let (after, _) = usage_of(id)?;
    Ok((after - before, result))
}

/// Processor seconds, and bytes in RAM.
fn usage_of(id: u32) -> Result<(f64, u64), Error> {
    let usage = process::of(id);
    usage.ok_or_else(|| Error::Step("a process that is measured is gone, or this is no Linux".to_owned()))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.leash.kill9(&mut self.child);
    }
}

/// Puts a load on it, and nobody watches.
pub(super) fn put(load: &Load) -> Result<Outcome, Error> {
    load::run(load, &mut |_| {})
}

/// The machine and the versions, a line each.
pub(super) fn about() -> Result<Vec<String>, Error> {
    let version = Command::new(haproxy()).arg("-v").output();
    let version = version.map_err(|source| Error::Step(format!(
        "haproxy can't be run: {source}\n    fix: `make bench` installs it, so does scripts/setup bench by itself (Debian, Ubuntu)"
    )))?;
    let version = String::from_utf8_lossy(&version.stdout);
    let shape = Shape::default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    Ok(vec![
        format!("{cores} cores, {}", model.map_or("unknown", |(_, name)| name.trim())),
        format!("hapax {}", env!("CARGO_PKG_VERSION")),
        version.lines().next().unwrap_or_default().to_owned(),
        format!("messages of {} octets on the wire, {} of them body", message::wire_len(&shape), shape.size),
    ])
}

fn haproxy() -> &'static str {
    if Path::new(HAPROXY).exists() { HAPROXY } else { "haproxy" }
}

fn this_program() -> Result<Command, Error> {
    let path = std::env::current_exe().map_err(Error::io("looking for this program"))?;
    let mut command = Command::new(path);
    for name in ENVIRONMENT {
        command.env_remove(name);
    }
    Ok(command)
}
