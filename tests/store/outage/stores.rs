//! Stores that a test makes stop working.

use crate::disk::{Mount, StateDir};
use crate::e2e::cut::Cut;
use crate::e2e::site::shared_rabbit;
use crate::e2e::wait::{self, PATIENCE};
use crate::redis::server::Server;
use hapax_testbed::Rabbit;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A store that stops working, and works again.
pub(super) trait Store {
    /// Whether nothing that is published after [`Store::stop`] is written. A full disk may have some room in its last block, and a broker
    /// blocks a publisher at its next message.
    const STOPS_AT_ONCE: bool = true;
    /// The configuration up to the keys of the window.
    fn config(&self) -> String;
    fn stop(&mut self);
    fn go_on(&mut self);
}

/// It is there and says nothing (signal STOP).
pub(super) struct SilentRedis(Server);

/// It is killed. Its log has every write, so that it knows what it knew when it starts again.
pub(super) struct DeadRedis(Server);

/// It has no memory for more, and answers writes with an error.
pub(super) struct FullRedis(Server);

/// Nobody reaches the broker that has the stream.
pub(super) struct StreamOutOfReach {
    cut: Cut,
    state: StateDir,
    vhost: &'static str,
}

/// The broker that has the stream is short of disk. It blocks everybody who publishes there, Hapax among them.
pub(super) struct FullBroker {
    rabbit: Arc<Rabbit>,
    state: StateDir,
    vhost: String,
}

/// The log's disk has no room.
pub(super) struct FullDisk {
    state: StateDir,
    _mount: Mount,
}

fn redis_config(server: &Server) -> String {
    let secret = server.secret();
    format!(
        "digest_secret_file = \"{}\"\n[timeouts]\nstore = \"200ms\"\n[store.redis]\nlease = \"1s\"\n{}\n[[window]]\nname = \"orders\"\nstore = \"redis\"\n",
        secret.display(),
        server.url()
    )
}

fn stream_config(state: &StateDir, broker: SocketAddr, vhost: &str) -> String {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::create_dir_all(&state.0).unwrap();
    let path = state.0.join("secret");
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    file.write_all(b"0123456789abcdef0123456789abcdef").unwrap();
    format!(
        "digest_secret_file = \"{}\"\n[timeouts]\nstore = \"200ms\"\n[store.stream]\nuri = \"amqp://guest:guest@{broker}/{vhost}\"\n[[window]]\nname = \"orders\"\nstore = \"stream\"\n",
        path.display()
    )
}

impl SilentRedis {
    pub(super) fn new() -> SilentRedis {
        SilentRedis(Server::start())
    }
}

impl Store for SilentRedis {
    fn config(&self) -> String {
        redis_config(&self.0)
    }

    fn stop(&mut self) {
        self.0.stand_still();
    }

    fn go_on(&mut self) {
        self.0.carry_on();
    }
}

impl DeadRedis {
    pub(super) fn new() -> DeadRedis {
        DeadRedis(Server::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]))
    }
}

impl Store for DeadRedis {
    fn config(&self) -> String {
        redis_config(&self.0)
    }

    fn stop(&mut self) {
        self.0.kill9();
    }

    fn go_on(&mut self) {
        self.0.restart();
    }
}

impl FullRedis {
    pub(super) fn new() -> FullRedis {
        FullRedis(Server::with(&["--save", "", "--maxmemory-policy", "noeviction"]))
    }
}

impl Store for FullRedis {
    fn config(&self) -> String {
        redis_config(&self.0)
    }

    fn stop(&mut self) {
        self.0.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    }

    fn go_on(&mut self) {
        self.0.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    }
}

impl StreamOutOfReach {
    pub(super) fn new(vhost: &'static str) -> StreamOutOfReach {
        StreamOutOfReach { cut: Cut::forward(shared_rabbit().addr()), state: StateDir::new(vhost), vhost }
    }
}

impl Store for StreamOutOfReach {
    fn config(&self) -> String {
        stream_config(&self.state, self.cut.addr(), self.vhost)
    }

    fn stop(&mut self) {
        self.cut.shut();
    }

    fn go_on(&mut self) {
        self.cut.resume();
    }
}

impl FullBroker {
    /// One whose stream is in this vhost of a node of its own.
    pub(super) fn new(vhost: &str, rabbit: &Arc<Rabbit>) -> FullBroker {
        rabbit.add_vhost(vhost).unwrap();
        FullBroker { rabbit: Arc::clone(rabbit), state: StateDir::new(vhost), vhost: vhost.to_owned() }
    }

    /// The free room that the broker wants to have, and how many alarms there are then.
    fn wants(&self, free: &str, alarms: &str) {
        self.rabbit.eval(&format!("ok = rabbit_disk_monitor:set_disk_free_limit({free}).")).unwrap();
        wait::until("the alarm", PATIENCE, || {
            (self.rabbit.eval("length(rabbit_alarm:get_alarms()).").unwrap() == alarms).then_some(())
        });
    }
}

impl Store for FullBroker {
    const STOPS_AT_ONCE: bool = false;

    fn config(&self) -> String {
        stream_config(&self.state, self.rabbit.addr(), &self.vhost)
    }

    fn stop(&mut self) {
        self.wants("1000000000000000", "1");
    }

    fn go_on(&mut self) {
        self.wants("1000000", "0");
    }
}

impl FullDisk {
    /// `None` where this user may not mount.
    pub(super) fn new(name: &str) -> Option<FullDisk> {
        let state = StateDir::new(name);
        let mount = Mount::new(state.0.clone())?;
        Some(FullDisk { state, _mount: mount })
    }

    fn ballast(&self) -> PathBuf {
        self.state.0.join("ballast")
    }
}

impl Store for FullDisk {
    const STOPS_AT_ONCE: bool = false;

    fn config(&self) -> String {
        self.state.config("")
    }

    fn stop(&mut self) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}
    }

    fn go_on(&mut self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}
