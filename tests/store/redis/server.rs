//! Private servers of Redis: own ports, own folder, and they end with the test.

use crate::e2e::wait;
use hapax_testbed::{Leash, free_port};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a server may take to say what it is asked for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `redis-server`, or a Sentinel.
pub(crate) struct Server {
    leash: Leash,
    pub(crate) port: u16,
    child: Option<Child>,
    arguments: Vec<String>,
    /// what `redis-cli` needs to log in
    login: Vec<String>,
}

impl Server {
    /// One that keeps nothing on disk.
    pub(crate) fn start() -> Server {
        Server::with(&["--save", "", "--appendonly", "no"])
    }

    /// One with these arguments.
    pub(crate) fn with(arguments: &[&str]) -> Server {
        let leash = Leash::new("redis").unwrap();
        let port = free_port().unwrap();
        let mut all: Vec<String> =
            ["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"].map(str::to_owned).to_vec();
        all.push(leash.folder().display().to_string());
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let mut server = Server { leash, port, child: None, arguments: all, login: Vec::new() };
        server.restart();
        server
    }

    /// One that speaks TLS only. Its certificate is for `localhost`; `ca.pem` in its folder has signed it.
    pub(crate) fn tls() -> Server {
        let leash = Leash::new("redis").unwrap();
        let folder = leash.folder().to_owned();
        let openssl = |line: &str| {
            let done = Command::new("openssl").args(line.split(' ')).current_dir(&folder).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem");
        openssl("req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr");
        std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1").unwrap();
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
        );
        let port = free_port().unwrap();
        let at = |name: &str| folder.join(name).display().to_string();
        let arguments = [
            "--bind",
            "127.0.0.1",
            "--port",
            "0",
            "--tls-port",
            &port.to_string(),
            "--save",
            "",
            "--dir",
            &at(""),
            "--tls-cert-file",
            &at("server.pem"),
            "--tls-key-file",
            &at("server.key"),
            "--tls-ca-cert-file",
            &at("ca.pem"),
            "--tls-auth-clients",
            "no",
        ]
        .map(str::to_owned)
        .to_vec();
        let login = vec!["--tls".to_owned(), "--cacert".to_owned(), at("ca.pem")];
        let mut server = Server { leash, port, child: None, arguments, login };
        server.restart();
        server
    }

    /// A Sentinel that watches this server, and calls it down after half a second.
    pub(crate) fn sentinel(master: &Server) -> Server {
        let leash = Leash::new("sentinel").unwrap();
        let port = free_port().unwrap();
        let mut text = String::new();
        writeln!(text, "bind 127.0.0.1\nport {port}\ndir {}", leash.folder().display()).unwrap();
        writeln!(text, "sentinel monitor mymaster 127.0.0.1 {} 1", master.port).unwrap();
        writeln!(text, "sentinel down-after-milliseconds mymaster 500").unwrap();
        writeln!(text, "sentinel failover-timeout mymaster 5000").unwrap();
        let file = leash.folder().join("sentinel.conf");
        std::fs::write(&file, text).unwrap();
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        let mut server = Server { leash, port, child: None, arguments, login: Vec::new() };
        server.restart();
        server
    }

    /// Three servers that are a cluster, and as many replicas of the first one as this.
    pub(crate) fn cluster(replicas: usize) -> Vec<Server> {
        let count = 3 + replicas;
        // By itself Redis takes the port 10,000 above its own as the bus, which another process may have.
        let buses: Vec<String> = (0..count).map(|_| free_port().unwrap().to_string()).collect();
        let member = |bus: &String| {
            let cluster =
                ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", bus];
            Server::with(&[&["--save", "", "--appendonly", "no"][..], &cluster].concat())
        };
        let servers: Vec<Server> = buses.iter().map(member).collect();
        for (n, (server, slots)) in servers.iter().zip(["0 5460", "5461 10922", "10923 16383"]).enumerate() {
            server.cli(&[&["CLUSTER", "ADDSLOTSRANGE"][..], &slots.split(' ').collect::<Vec<_>>()].concat());
            server.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
        }
        for server in &servers[1..] {
            server.cli(&["CLUSTER", "MEET", "127.0.0.1", &servers[0].port.to_string(), &buses[0]]);
        }
        let known = format!("cluster_known_nodes:{count}");
        wait::until("the cluster is complete", PATIENCE, || {
            servers
                .iter()
                .all(|server| {
                    let info = server.cli(&["CLUSTER", "INFO"]);
                    info.contains("cluster_state:ok") && info.contains(&known)
                })
                .then_some(())
        });
        let first = servers[0].cli(&["CLUSTER", "MYID"]);
        for replica in &servers[3..] {
            assert_eq!(replica.cli(&["CLUSTER", "REPLICATE", &first]), "OK");
        }
        servers
    }

    /// Kills it and starts it again, on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill9();
        let child = Command::new("redis-server")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server: run scripts/setup");
        self.leash.hold(&child).unwrap();
        self.child = Some(child);
        wait::until("the server listens", PATIENCE, || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            self.leash.kill9(&mut child);
        }
    }

    /// Stops the process where it is, until [`Server::carry_on`].
    pub(crate) fn stand_still(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn carry_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Asks it.
    pub(crate) fn cli(&self, command: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &port])
            .args(&self.login)
            .args(command)
            .output()
            .expect("redis-cli: run scripts/setup");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Makes the user `hapax` with the rights that the docs name, and these.
    pub(crate) fn add_user(&self, more: &[&str]) {
        let docs = std::fs::read_to_string("docs/stores.md").unwrap();
        let line = docs
            .lines()
            .find(|line| line.starts_with("ACL SETUSER hapax "))
            .expect("the docs name the rights");
        let command: Vec<&str> = line.split(' ').chain(more.iter().copied()).collect();
        assert_eq!(self.cli(&command), "OK");
    }

    /// The line of the configuration.
    pub(crate) fn url(&self) -> String {
        format!("url = \"redis://127.0.0.1:{}\"", self.port)
    }

    /// A file with the secret that the relays of this server share.
    pub(crate) fn secret(&self) -> PathBuf {
        let file = self.leash.folder().join("digest.secret");
        if !file.exists() {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).mode(0o600);
            options.open(&file).unwrap().write_all(b"0123456789abcdef0123456789abcdef").unwrap();
        }
        file
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.leash.folder()
    }
}
