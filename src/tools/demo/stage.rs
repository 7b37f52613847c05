//! The processes of the demo: a private RabbitMQ node, and in front of it this very binary as a relay, in a process of its own
//! with the command line that a user would type. Either can be somebody else's instead.

use super::Error;
use super::metrics;
use hapax_testbed::Leash;
use hapax_testbed::free_port;
use hapax_testbed::rabbit::{Kept, Rabbit};
use lapin::uri::{AMQPScheme, AMQPUri};
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// Milliseconds on an idle machine.
const START: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Set, these would make the relay another one than its command line says.
const ENVIRONMENT: [&str; 5] = ["HAPAX_CONFIG", "HAPAX_LISTEN", "HAPAX_UPSTREAM", "HAPAX_ADMIN", "HAPAX_LOG"];

/// The private node; none if the broker is somebody else's.
pub(super) async fn start_rabbit() -> Result<Rabbit, Error> {
    let starting = tokio::task::spawn_blocking(Rabbit::start);
    starting.await.map_err(|error| Error::Step(format!("starting RabbitMQ: {error}")))?.map_err(Error::from)
}

/// Signals a process and waits until it is gone, for at most `$2` tenths of a second. The relay drains at SIGTERM, and takes its
/// `timeouts.drain` for it at most; the node is private and may go at once.
const STOP: &str = r#"end() {
  kill -s "$1" "$3" 2>/dev/null
  tries=$2
  while [ "$tries" -gt 0 ] && kill -0 "$3" 2>/dev/null; do sleep 0.1; tries=$((tries - 1)); done
}
"#;

/// `amqp://…` with what it says of user, password and vhost.
pub(super) fn parse(uri: &str, flag: &str) -> Result<AMQPUri, Error> {
    match uri.parse::<AMQPUri>() {
        Ok(uri) if uri.scheme == AMQPScheme::AMQP => Ok(uri),
        Ok(_) => Err(Error::Step(format!("{flag}: the demo speaks amqp:// only, not amqps://"))),
        Err(error) => Err(Error::Step(format!("{flag}: {error}; amqp://USER:PASSWORD@HOST:PORT is wanted"))),
    }
}

/// The relay as a process. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Relay {
    leash: Leash,
    child: Child,
    arguments: Vec<String>,
    listen: SocketAddr,
    admin: SocketAddr,
    kept: bool,
}

impl Relay {
    /// Starts it before this broker, without a configuration, and waits until it is ready.
    pub(super) async fn start(broker: &AMQPUri) -> Result<Relay, Error> {
        Relay::configured(broker, |_| None).await
    }

    /// Starts it before this broker and waits until it is ready. The configuration may use the relay's own folder.
    pub(super) async fn configured(
        broker: &AMQPUri,
        configuration: impl FnOnce(&Path) -> Option<String>,
    ) -> Result<Relay, Error> {
        let leash = Leash::new("relay").map_err(Error::io("making a folder for the relay"))?;
        let free = || free_port().map_err(Error::io("looking for a free port"));
        let [listen, admin] = [free()?, free()?].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let mut arguments = vec![
            "--listen".to_owned(),
            listen.to_string(),
            "--upstream".to_owned(),
            format!("amqp://{}:{}", broker.authority.host, broker.authority.port),
            "--admin".to_owned(),
            admin.to_string(),
        ];
        if let Some(text) = configuration(leash.folder()) {
            let path = leash.folder().join("hapax.toml");
            fs::write(&path, text).map_err(Error::io("writing the relay's configuration"))?;
            arguments.extend(["--config".to_owned(), path.display().to_string()]);
        }
        let child = spawn(&leash, &arguments)?;
        let mut relay = Relay { leash, child, arguments, listen, admin, kept: false };
        relay.leash.hold(&relay.child).map_err(Error::io("putting the relay on the leash"))?;
        relay.wait_until_ready().await?;
        Ok(relay)
    }

    /// Kills it with signal 9.
    pub(super) fn kill(&mut self) {
        self.leash.kill9(&mut self.child);
    }

    /// Starts it again with the same command line, and waits until it is ready.
    pub(super) async fn restart(&mut self) -> Result<(), Error> {
        self.child = spawn(&self.leash, &self.arguments)?;
        self.leash.hold(&self.child).map_err(Error::io("putting the relay on the leash"))?;
        self.wait_until_ready().await
    }

    async fn wait_until_ready(&mut self) -> Result<(), Error> {
        let until = Instant::now() + START;
        loop {
            let ready = metrics::get(self.admin, "/readyz").await;
            if matches!(ready, Ok((200, _))) {
                return Ok(());
            }
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if ended || Instant::now() > until {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                let why = if ended { "it ended" } else { "it does not become ready" };
                return Err(Error::Step(format!("the relay did not start ({why}); it says:\n{log}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// As a user would type it.
    pub(super) fn command(&self) -> String {
        format!("hapax {}", self.arguments.join(" "))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn listen(&self) -> SocketAddr {
        self.listen
    }

    pub(super) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where it writes what it has to say.
    pub(super) fn log(&self) -> PathBuf {
        self.leash.folder().join("relay.log")
    }

    /// Leaves the relay and the node running when this process ends. Returns the command that ends both.
    pub(super) fn keep(mut self, rabbit: Option<&Kept>) -> Result<String, Error> {
        self.leash.cut().map_err(Error::io("letting the relay go"))?;
        self.kept = true;
        let folder = self.leash.folder();
        let (mut end, mut folders) =
            (format!("end TERM 400 {}\n", self.child.id()), format!("'{}'", folder.display()));
        if let Some(kept) = rabbit {
            end.extend(kept.pids.iter().map(|pid| format!("end KILL 50 {pid}\n")));
            folders += &format!(" '{}'", kept.folder.display());
        }
        let script = format!("{STOP}{end}rm -rf {folders}\n");
        let path = folder.join("stop");
        fs::write(&path, script).map_err(Error::io("writing down how to stop"))?;
        Ok(format!("sh {}", path.display()))
    }
}

fn spawn(leash: &Leash, arguments: &[String]) -> Result<Child, Error> {
    let binary = std::env::current_exe().map_err(Error::io("looking for this program"))?;
    let mut log = OpenOptions::new();
    let log = log.create(true).append(true).open(leash.folder().join("relay.log"));
    let mut command = Command::new(binary);
    for name in ENVIRONMENT {
        command.env_remove(name);
    }
    // A group of its own: a Ctrl-C at the terminal is for the demo, which then ends the relay.
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.map_err(Error::io("making the relay's log"))?)
        .process_group(0);
    command.spawn().map_err(Error::io("starting the relay"))
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !self.kept {
            self.leash.kill9(&mut self.child);
        }
    }
}
