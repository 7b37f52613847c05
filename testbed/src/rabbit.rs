//! A private RabbitMQ node: its own ports, name, cookie, folder and epmd, on the loopback only, gone with its owner.
//!
//! By default it is that of Debian's `rabbitmq-server` package, run straight from `/usr/lib/rabbitmq/bin` by the current
//! user. The environment variable `HAPAX_RABBITMQ` names the folder of another one's programs ([`Programs`]). The node shares
//! nothing with the machine's own node and needs no rights. It is ready when it says so on its output *and* greets an AMQP
//! client; a start takes about six seconds.
//!
//! [`Rabbit::eval`] is the quick way to administer it (milliseconds); [`Rabbit::ctl`] is the `rabbitmqctl` that the
//! manuals speak of, which takes a second or two to start itself.

use crate::leash::Leash;
use crate::port;
use crate::programs::Programs;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Six seconds on an idle machine; a busy one gets ten times that.
const START: Duration = Duration::from_secs(60);
/// How often we look whether it has started.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of the node's output that are shown when something goes wrong.
const LOG_LINES: usize = 400;
/// Lines that may wait to be written before the node leaves some out.
const LOG_QUEUE: u32 = 1_000_000;
const READY: &str = "Server startup complete";

/// Why there is no node, or why it would not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is missing.
    #[error("{0} is not there: run scripts/setup")]
    Missing(String),
    /// The operating system refused.
    #[error("{doing}: {source}")]
    Io {
        /// what we were doing
        doing: String,
        /// what it said
        source: io::Error,
    },
    /// It did not start in time, or ended instead.
    #[error("RabbitMQ did not start ({why}); its last words:\n{log}")]
    NotReady {
        /// what was seen instead of readiness
        why: String,
        /// the end of its output
        log: String,
    },
    /// An administrative command failed.
    #[error("{command} failed:\n{output}")]
    Command {
        /// as it was given
        command: String,
        /// what it printed
        output: String,
    },
}

fn doing(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { doing: what.into(), source }
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    amqp: u16,
    dist: u16,
    epmd: u16,
    ctl: u16,
}

impl Ports {
    fn free(epmd: Option<u16>) -> Result<Ports, Error> {
        let free = || port::free_port().map_err(doing("looking for a free port"));
        let epmd = match epmd {
            Some(epmd) => epmd,
            None => free()?,
        };
        Ok(Ports { amqp: free()?, dist: free()?, epmd, ctl: free()? })
    }

    fn node_name(self) -> String {
        format!("hapax-{}-{}@localhost", std::process::id(), self.amqp)
    }
}

/// A running node. Dropped, it is killed and its folder removed; should we die first, the same happens.
#[derive(Debug)]
pub struct Rabbit {
    leash: Leash,
    programs: Programs,
    ports: Ports,
    name: String,
    /// `None`: it uses that of another node.
    epmd: Mutex<Option<Child>>,
    server: Mutex<Option<Child>>,
    kept: bool,
}

/// A node that goes on without its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// the node, and its port mapper
    pub pids: Vec<u32>,
    /// its data and its log
    pub folder: PathBuf,
}

impl Rabbit {
    /// Starts a node and waits until it takes connections.
    pub fn start() -> Result<Rabbit, Error> {
        let rabbit = Rabbit::prepare(Ports::free(None)?, None)?;
        rabbit.restart()?;
        Ok(rabbit)
    }

    /// Starts nodes that form a cluster. They share the port mapper of the first one.
    pub fn cluster(count: usize) -> Result<Vec<Rabbit>, Error> {
        let first = Ports::free(None)?;
        let others = (1..count).map(|_| Ports::free(Some(first.epmd)));
        let ports: Vec<Ports> = std::iter::once(Ok(first)).chain(others).collect::<Result<_, Error>>()?;
        let names: Vec<String> = ports.iter().map(|ports| ports.node_name()).collect();
        let prepare = |ports: &Ports| Rabbit::prepare(*ports, Some(&names));
        let nodes: Vec<Rabbit> = ports.iter().map(prepare).collect::<Result<_, Error>>()?;
        // At the same time: each waits for the others, or joins those that are there already.
        let started = thread::scope(|scope| {
            let starting: Vec<_> = nodes.iter().map(|node| scope.spawn(|| node.restart())).collect();
            starting.into_iter().map(|starting| starting.join()).collect::<Vec<_>>()
        });
        for started in started {
            started.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(nodes)
    }

    fn prepare(ports: Ports, cluster: Option<&[String]>) -> Result<Rabbit, Error> {
        let programs = Programs::of_environment().map_err(Error::Missing)?;
        let leash = Leash::new("rabbit").map_err(doing("making a folder for RabbitMQ"))?;
        let name = ports.node_name();
        write_config(leash.folder(), ports, cluster).map_err(doing("writing RabbitMQ's configuration"))?;
        let mut epmd = Command::new(&programs.epmd);
        epmd.args(["-address", "127.0.0.1", "-port", &ports.epmd.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let is_first = cluster.is_none_or(|names| names.first() == Some(&name));
        let epmd = if is_first { Some(spawn(&leash, &mut epmd)?) } else { None };
        Ok(Rabbit {
            leash,
            programs,
            ports,
            name,
            epmd: Mutex::new(epmd),
            server: Mutex::new(None),
            kept: false,
        })
    }

    /// The name of the node in its cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens for AMQP.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.amqp).into()
    }

    /// `amqp://127.0.0.1:PORT`, as `hapax --upstream` wants it.
    pub fn uri(&self) -> String {
        format!("amqp://{}", self.addr())
    }

    /// Kills the node with signal 9, as a power cut would.
    pub fn kill9(&self) {
        if let Some(mut child) = lock(&self.server).take() {
            self.leash.kill9(&mut child);
        }
    }

    /// Stops the node where it is, until [`Rabbit::carry_on`]: the kernel still takes connections for it, and nobody answers them.
    pub fn stand_still(&self) -> Result<(), Error> {
        self.signal("-STOP")
    }

    /// Lets it run again.
    pub fn carry_on(&self) -> Result<(), Error> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> Result<(), Error> {
        let Some(pid) = lock(&self.server).as_ref().map(Child::id) else { return Ok(()) };
        let mut kill = Command::new("kill");
        let output = kill.args([signal, &pid.to_string()]).output().map_err(doing("running kill"))?;
        answer(format!("kill {signal}"), &output).map(drop)
    }

    /// Starts the node again on the same ports and the same data, killing it first where it runs.
    pub fn restart(&self) -> Result<(), Error> {
        self.kill9();
        // A file, not a pipe to us: a node that is kept must not lose its output when we end.
        let console = self.console().map_err(doing("opening a file for RabbitMQ's output"))?;
        let said = console.metadata().map_err(doing("looking at RabbitMQ's output"))?.len();
        let mut command = Command::new(&self.programs.server);
        self.environment(&mut command).stdin(Stdio::null()).stdout(console).stderr(Stdio::null());
        let child = spawn(&self.leash, &mut command)?;
        *lock(&self.server) = Some(child);
        self.wait_until_ready(said)?;
        self.log_every_line()
    }

    /// Makes the node write each line of its log. By default it leaves lines out while more than 500 a second come, and many tests share
    /// one node: a test that counts lines would miss some because of its neighbours.
    fn log_every_line(&self) -> Result<(), Error> {
        self.eval(&format!(
            "[ok = logger:update_handler_config(Id, config, maps:merge(Config, \
             #{{burst_limit_enable => false, drop_mode_qlen => {LOG_QUEUE}, flush_qlen => {LOG_QUEUE}}})) \
             || #{{id := Id, config := #{{type := standard_io}} = Config}} <- logger:get_handler_config()], ok."
        ))
        .map(drop)
    }

    /// Lets the node live on without us.
    pub fn keep(mut self) -> io::Result<Kept> {
        self.leash.cut()?;
        self.kept = true;
        let server = lock(&self.server).as_ref().map(Child::id);
        let epmd = lock(&self.epmd).as_ref().map(Child::id);
        let pids = server.into_iter().chain(epmd).collect();
        Ok(Kept { pids, folder: self.leash.folder().to_owned() })
    }

    /// Runs `rabbitmqctl` against the node and gives what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, Error> {
        let mut command = Command::new(&self.programs.ctl);
        self.environment(&mut command).args(["--quiet", "--node", &self.name]).args(arguments);
        let output = command.stdin(Stdio::null()).output().map_err(doing("running rabbitmqctl"))?;
        answer(format!("rabbitmqctl {}", arguments.join(" ")), &output)
    }

    /// Evaluates Erlang expressions (`rabbit_amqqueue:count().`) in the node and gives what the last one returned.
    pub fn eval(&self, expressions: &str) -> Result<String, Error> {
        let cookie = fs::read_to_string(self.leash.folder().join("home/.erlang.cookie"))
            .map_err(doing("reading the node's cookie"))?;
        // -R: the node names the caller, so that any number may call at a time. (-r draws names by the clock.)
        let mut call = Command::new(&self.programs.erl_call)
            .args(["-R", "-e", "-c", cookie.trim()])
            .args(["-address", &format!("127.0.0.1:{}", self.ports.dist)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(doing("running erl_call"))?;
        if let Some(mut input) = call.stdin.take() {
            writeln!(input, "{expressions}").map_err(doing("speaking to erl_call"))?;
        }
        let output = call.wait_with_output().map_err(doing("waiting for erl_call"))?;
        let said = answer(expressions.to_owned(), &output)?;
        match said.trim().strip_prefix("{ok,").and_then(|rest| rest.strip_suffix('}')) {
            Some(value) => Ok(value.trim().to_owned()),
            None => Err(Error::Command { command: expressions.to_owned(), output: said }),
        }
    }

    /// Waits until queues, users and vhosts are on the disk. RabbitMQ answers a declare before that, as long as it keeps them
    /// in Mnesia. Khepri, where RabbitMQ 4 keeps them, writes first. Who keeps the streams has tables of its own.
    pub fn sync_metadata(&self) -> Result<(), Error> {
        self.eval(
            "[ok = dets:sync(Table) || Table <- dets:all()], \
             case erlang:function_exported(rabbit_khepri, is_enabled, 0) andalso rabbit_khepri:is_enabled() of \
             true -> ok; false -> ok = mnesia:sync_log() end.",
        )
        .map(drop)
    }

    /// A virtual host in which `guest` may do everything.
    pub fn add_vhost(&self, vhost: &str) -> Result<(), Error> {
        self.eval(&format!(
            "ok = rabbit_vhost:add(<<\"{vhost}\">>, <<\"hapax\">>), \
             ok = rabbit_auth_backend_internal:set_permissions(\
             <<\"guest\">>, <<\"{vhost}\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"hapax\">>)."
        ))
        .map(drop)
    }

    /// Listens for AMQP over TLS on this port of the loopback, too. With `asks`, a client must show a certificate that an authority
    /// in `ca` has signed.
    pub fn listen_with_tls(
        &self,
        port: u16,
        (certificate, key): (&Path, &Path),
        ca: &Path,
        asks: bool,
    ) -> Result<(), Error> {
        let (certificate, key, ca) = (certificate.display(), key.display(), ca.display());
        let verify = if asks { "verify_peer" } else { "verify_none" };
        self.eval(&format!(
            "{{ok, _}} = application:ensure_all_started(ssl), \
             ok = rabbit_networking:start_ssl_listener({{\"127.0.0.1\", {port}, inet}}, \
             [{{certfile, \"{certificate}\"}}, {{keyfile, \"{key}\"}}, {{cacertfile, \"{ca}\"}}, \
             {{verify, {verify}}}, {{fail_if_no_peer_cert, {asks}}}], 2)."
        ))
        .map(drop)
    }

    /// Expects a PROXY header on every connection from now on, or no more.
    pub fn expect_proxy_headers(&self, expects: bool) -> Result<(), Error> {
        self.eval(&format!("ok = application:set_env(rabbit, proxy_protocol, {expects}).")).map(drop)
    }

    /// The end of the node's output.
    pub fn log(&self) -> String {
        let text = self.said_since(0).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        lines.iter().skip(from).fold(String::new(), |text, line| text + line + "\n")
    }

    /// How many lines of the node's whole output contain each of these words.
    pub fn lines_with(&self, words: &[&str]) -> usize {
        let text = self.said_since(0).unwrap_or_default();
        text.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// The file that the node's output goes to.
    fn console(&self) -> io::Result<File> {
        let path = self.leash.folder().join("console.log");
        OpenOptions::new().read(true).append(true).create(true).open(path)
    }

    fn said_since(&self, from: u64) -> io::Result<String> {
        let mut console = self.console()?;
        console.seek(SeekFrom::Start(from))?;
        let mut text = Vec::new();
        console.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    #[expect(clippy::disallowed_methods, reason = "a process is started: this is the shell")]
    fn wait_until_ready(&self, said: u64) -> Result<(), Error> {
        let until = Instant::now() + START;
        let why = loop {
            let ended = lock(&self.server).as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if self.said_since(said).is_ok_and(|text| text.contains(READY)) {
                match greet(self.addr()) {
                    Ok(()) => return Ok(()),
                    Err(source) => break format!("no greeting: {source}"),
                }
            }
            if ended {
                break "it ended".to_owned();
            }
            if Instant::now() > until {
                break format!("not ready within {START:?}");
            }
            thread::sleep(LOOK_EVERY);
        };
        Err(Error::NotReady { why, log: self.log() })
    }

    /// Everything that would otherwise come from `/etc`, `/var` or the user's home.
    fn environment<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let folder = self.leash.folder();
        let loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
        command
            .env("HOME", folder.join("home"))
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // The script then becomes the virtual machine, so that the id we hold is the node's own.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env("RABBITMQ_NODENAME", &self.name)
            .env("RABBITMQ_DIST_PORT", self.ports.dist.to_string())
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("env.conf"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", folder.join("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", format!("+S 2:2 {loopback}"))
            .env("RABBITMQ_CTL_ERL_ARGS", loopback)
            .env("RABBITMQ_CTL_DIST_PORT_MIN", self.ports.ctl.to_string())
            .env("RABBITMQ_CTL_DIST_PORT_MAX", (self.ports.ctl + 8).to_string())
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        self.kill9();
        if let Some(epmd) = &mut *lock(&self.epmd) {
            self.leash.kill9(epmd);
        }
    }
}

/// A child in a process group of its own: a Ctrl-C at the terminal is ours to handle, not the broker's.
fn spawn(leash: &Leash, command: &mut Command) -> Result<Child, Error> {
    use std::os::unix::process::CommandExt;
    let program = command.get_program().display().to_string();
    let child = command.process_group(0).spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing(program.clone()),
        _ => Error::Io { doing: format!("starting {program}"), source },
    })?;
    leash.hold(&child).map_err(doing(format!("putting {program} on the leash")))?;
    Ok(child)
}

/// Says the protocol header and waits for the first octet of `connection.start`.
fn greet(addr: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, START)?;
    stream.set_read_timeout(Some(START))?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    let mut frame_type = [0];
    stream.read_exact(&mut frame_type)?;
    match frame_type {
        [1] => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not an AMQP 0-9-1 broker")),
    }
}

fn answer(command: String, output: &Output) -> Result<String, Error> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(Error::Command { command, output: said + &String::from_utf8_lossy(&output.stderr) })
}

fn write_config(folder: &Path, ports: Ports, cluster: Option<&[String]>) -> io::Result<()> {
    fs::create_dir(folder.join("home"))?;
    let mut others = String::new();
    if let Some(names) = cluster {
        // Nodes of a cluster have the same cookie. It is a secret of this process only as far as the loopback is.
        let cookie = folder.join("home/.erlang.cookie");
        fs::write(&cookie, format!("HAPAX{}", std::process::id()))?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        others += "cluster_formation.peer_discovery_backend = classic_config\n";
        for (n, name) in (1..).zip(names) {
            others += &format!("cluster_formation.classic_config.nodes.{n} = {name}\n");
        }
    }
    fs::write(folder.join("env.conf"), "")?;
    fs::write(folder.join("enabled_plugins"), "[].\n")?;
    let amqp = ports.amqp;
    fs::write(
        folder.join("rabbitmq.conf"),
        format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
             num_acceptors.tcp = 4\n\
             disk_free_limit.absolute = 1MB\n\
             log.file = false\n\
             log.console = true\n\
             log.console.level = info\n\
             {others}"
        ),
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
