//! The relay and a service manager: it takes the sockets that it is given, and tells its phases by the protocol of sd_notify(3).

use super::cli::{Running, hapax, http, until};
use hapax::clock::now;
use hapax_testbed::free_port;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A test fails if it has waited for longer than this.
const DEADLINE: Duration = Duration::from_secs(20);

/// A service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let path = std::env::temp_dir().join(format!("hapax-notify-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("bound");
        socket.set_read_timeout(Some(DEADLINE)).expect("set");
        Manager { socket, path }
    }

    /// Reads messages until one has this line. Returns all of that message.
    fn until(&self, line: &str) -> String {
        let mut buffer = [0; 4096];
        let mut before = Vec::new();
        let began = now();
        loop {
            assert!(began.elapsed() < DEADLINE, "{line}: {before:?}");
            let length =
                self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{line}: {error}; {before:?}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|own| own == line) {
                return text;
            }
            before.push(text);
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A relay with nothing behind it.
fn relay(listen: &str, admin: &str) -> Command {
    let upstream = format!("amqp://127.0.0.1:{}", free_port().expect("free"));
    let mut command = hapax(&["--listen", listen, "--admin", admin, "--upstream", &upstream]);
    command.stderr(Stdio::null());
    command
}

fn terminate(child: &Running) {
    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("run").success());
}

/// A process that is started with this socket as file 3, as systemd does it.
fn with_socket(mut command: Command, socket: &TcpListener) -> Command {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=x exec \"$0\" \"$@\"",
    ]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdin(OwnedFd::from(socket.try_clone().expect("cloned"))).stderr(Stdio::null());
    command.stdin(Stdio::null());
    shell
}

#[test]
fn the_service_manager_hears_of_readiness_life_and_the_end() {
    let manager = Manager::new("phases");
    let listen = format!("127.0.0.1:{}", free_port().expect("free"));
    let mut command = relay(&listen, "off");
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "200000").env_remove("WATCHDOG_PID");
    let mut child = Running(command.spawn().expect("started"));
    manager.until("READY=1");
    let client = TcpStream::connect(&listen).expect("it listens by then");
    manager.until("STATUS=serving; clients: 1");
    manager.until("WATCHDOG=1");
    drop(client);
    terminate(&child);
    let last = manager.until("STOPPING=1");
    assert!(last.contains("STATUS=draining"), "{last}");
    assert!(child.0.wait().expect("ended").success());
}

#[test]
fn a_service_manager_that_reads_nothing_stops_nobody() {
    let manager = Manager::new("deaf");
    // Until the queue of the socket is full, and the next message would wait.
    let full = UnixDatagram::unbound().expect("made");
    full.set_nonblocking(true).expect("set");
    while full.send_to(b"STATUS=x", &manager.path).is_ok() {}
    let listen = format!("127.0.0.1:{}", free_port().expect("free"));
    let mut command = relay(&listen, "off");
    command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "2000").env_remove("WATCHDOG_PID");
    let mut child = Running(command.spawn().expect("started"));
    let began = now();
    let mut client = loop {
        match TcpStream::connect(&listen) {
            Ok(client) => break client,
            Err(_) if began.elapsed() < DEADLINE => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    // The relay answers: nothing is behind it, so it closes the connection.
    client.set_read_timeout(Some(DEADLINE)).expect("set");
    std::io::Write::write_all(&mut client, b"AMQP\0\0\x09\x01").expect("written");
    let heard = client.read(&mut [0; 1]);
    assert!(!matches!(&heard, Err(error) if error.kind() == ErrorKind::WouldBlock), "{heard:?}");
    terminate(&child);
    assert!(child.0.wait().expect("ended").success());
}

#[test]
fn clients_wait_while_a_relay_with_a_passed_socket_is_started_again() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = socket.local_addr().expect("bound").to_string();
    for round in 0..3 {
        // Nobody listens but the socket itself.
        let mut client = TcpStream::connect(&address).expect("never refused");
        let manager = Manager::new(&format!("passed-{round}"));
        let mut command = relay(&address, "off");
        command.env("NOTIFY_SOCKET", &manager.path);
        let mut child = Running(with_socket(command, &socket).spawn().expect("started"));
        manager.until("READY=1");
        std::io::Write::write_all(&mut client, b"AMQP\0\0\x09\x01").expect("written");
        client.set_read_timeout(Some(DEADLINE)).expect("set");
        let mut answer = [0; 1];
        let heard = client.read(&mut answer);
        assert!(!matches!(&heard, Err(error) if error.kind() == ErrorKind::WouldBlock), "served: {heard:?}");
        terminate(&child);
        assert!(child.0.wait().expect("ended").success());
    }
}

#[test]
fn a_passed_socket_that_nobody_has_configured_is_an_error() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = socket.local_addr().expect("bound").to_string();
    let mut command = with_socket(relay("127.0.0.1:0", "off"), &socket);
    let mut child = Running(command.stderr(Stdio::piped()).spawn().expect("started"));
    let status = until("it refuses to start", || child.0.try_wait().expect("asked"));
    let mut said = String::new();
    child.0.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("passed a socket on {address}")), "{said}");
    assert!(said.contains("fix: write `listen = "), "{said}");
}

#[test]
fn a_passed_file_that_is_no_socket_is_an_error() {
    let mut command = Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_hapax");
    command.args([
        "-c",
        "exec 3</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --listen 127.0.0.1:0 --admin off",
        binary,
    ]);
    let output = command.stdin(Stdio::null()).output().expect("started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("socket 0 of those that the service manager has passed"), "{said}");
}

#[test]
fn two_processes_listen_on_one_port_if_both_say_so() {
    let folder = std::env::temp_dir().join(format!("hapax-reuse-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("made");
    let port = free_port().expect("free");
    let start = |name: &str, reuse: bool| {
        let file = folder.join(format!("{name}.toml"));
        let text = format!("listen = \"127.0.0.1:{port}\"\nadmin = \"off\"\nreuse_port = {reuse}\n");
        std::fs::write(&file, text).expect("written");
        let manager = Manager::new(&format!("reuse-{name}"));
        let mut command = hapax(&["--config", file.to_str().expect("UTF-8")]);
        command.env("NOTIFY_SOCKET", &manager.path).stderr(Stdio::piped());
        (Running(command.spawn().expect("started")), manager)
    };
    let (_old, manager) = start("old", true);
    manager.until("READY=1");
    let (mut third, _silent) = start("third", false);
    let third = until("the third has ended", || third.0.try_wait().expect("asked"));
    assert_eq!(third.code(), Some(1), "the port is taken");
    let (_new, manager) = start("new", true);
    manager.until("READY=1");
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn the_drain_begins_after_its_delay_and_readyz_says_503_from_the_signal_on() {
    let folder = std::env::temp_dir().join(format!("hapax-delay-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("made");
    let (port, admin) = (free_port().expect("free"), free_port().expect("free"));
    let file = folder.join("hapax.toml");
    let text = format!(
        "listen = \"127.0.0.1:{port}\"\nadmin = \"127.0.0.1:{admin}\"\n[timeouts]\ndrain_delay = \"1h\"\n"
    );
    std::fs::write(&file, text).expect("written");
    let manager = Manager::new("delay");
    let mut command = hapax(&["--config", file.to_str().expect("UTF-8")]);
    command.env("NOTIFY_SOCKET", &manager.path).stderr(Stdio::null());
    let mut child = Running(command.spawn().expect("started"));
    manager.until("READY=1");
    terminate(&child);
    manager.until("STOPPING=1");
    let mut ready = TcpStream::connect(("127.0.0.1", admin)).expect("still there");
    std::io::Write::write_all(&mut ready, b"GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n")
        .expect("written");
    let mut answer = String::new();
    ready.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("draining"), "{answer}");
    // A client that comes all the same is served: it is still connected when the relay has looked at its greeting.
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("accepted");
    std::io::Write::write_all(&mut client, b"AMQP\0\0\x09\x01").expect("written");
    client.set_read_timeout(Some(DEADLINE)).expect("set");
    let heard = client.read(&mut [0; 1]);
    assert!(!matches!(&heard, Err(error) if error.kind() == ErrorKind::WouldBlock), "{heard:?}");
    // The second signal does not wait for the hour.
    terminate(&child);
    assert_eq!(child.0.wait().expect("ended").code(), Some(1));
    std::fs::remove_dir_all(&folder).expect("removed");
}

/// A relay whose window has its stream at a broker that takes connections and says nothing.
#[test]
fn a_store_that_is_silent_at_the_start_does_not_hold_up_the_end() {
    let folder = std::env::temp_dir().join(format!("hapax-silent-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("made");
    let secret = folder.join("secret");
    let mut options = std::fs::File::options();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create(true), 0o600);
    let mut written = options.open(&secret).expect("made");
    std::io::Write::write_all(&mut written, b"0123456789abcdef0123456789abcdef").expect("written");
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let file = folder.join("hapax.toml");
    let text = format!(
        "listen = \"127.0.0.1:{}\"\nadmin = \"off\"\ndigest_secret_file = {:?}\n[timeouts]\nstore = \"1m\"\n[store.stream]\nuri = \"amqp://{}\"\n[[window]]\nname = \"orders\"\nstore = \"stream\"\n",
        free_port().expect("free"),
        secret.display().to_string(),
        silent.local_addr().expect("bound")
    );
    std::fs::write(&file, text).expect("written");
    let mut command = hapax(&["--config", file.to_str().expect("UTF-8")]);
    let mut child = Running(command.stderr(Stdio::piped()).spawn().expect("started"));
    let _asked = silent.accept().expect("the store is asked");
    terminate(&child);
    let status = until("it ends", || child.0.try_wait().expect("asked"));
    let mut said = String::new();
    child.0.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
    assert!(status.success(), "{status}: {said}");
    assert!(said.contains("told to end while the stores were read"), "{said}");
    std::fs::remove_dir_all(&folder).expect("removed");
}

/// The bit of a signal in /proc/PID/status.
fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

/// A supervisor may start a process and ask it to read its configuration again in one breath.
#[test]
fn a_hangup_before_the_configuration_is_read_ends_nobody() {
    let folder = std::env::temp_dir().join(format!("hapax-hangup-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("made");
    let file = folder.join("hapax.toml");
    let listen = format!("127.0.0.1:{}", free_port().expect("free"));
    let mut text = format!("listen = \"{listen}\"\nadmin = \"off\"\n");
    // It takes a while to read them all.
    for n in 0..500 {
        text += &format!("[[window]]\nname = \"w{n}\"\nexchange = \"x{n}\"\ncapacity = 1000\n");
    }
    std::fs::write(&file, text).expect("written");
    // A machine that is busy may look too late, but not each time.
    let is_early = (0..20).any(|attempt| {
        let manager = Manager::new(&format!("hangup-{attempt}"));
        let mut command = hapax(&["--config", file.to_str().expect("UTF-8")]);
        command.env("NOTIFY_SOCKET", &manager.path).stderr(Stdio::null());
        let child = Running(command.spawn().expect("started"));
        let status = format!("/proc/{}/status", child.0.id());
        let caught = until("a handler of SIGHUP is there", || {
            let status = std::fs::read_to_string(&status).ok()?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
            let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
            Some(caught).filter(|caught| caught & bit(Signal::HUP) != 0)
        });
        kill_process(Pid::from_child(&child.0), Signal::HUP).expect("it runs");
        manager.until("READY=1");
        caught & bit(Signal::TERM) == 0
    });
    assert!(is_early, "it is there before those that are for the drain");
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_reload_that_lets_in_more_clients_than_files_may_be_open_says_so() {
    let folder = std::env::temp_dir().join(format!("hapax-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("made");
    let (port, admin) = (free_port().expect("free"), free_port().expect("free"));
    let file = folder.join("hapax.toml");
    let with = |most: usize| {
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\nadmin = \"127.0.0.1:{admin}\"\n[limits]\nmax_connections = {most}\n"
        );
        std::fs::write(&file, text).expect("written");
    };
    with(100);
    let manager = Manager::new("files");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 1000; exec \"$0\" --config \"$1\"", env!("CARGO_BIN_EXE_hapax")]);
    command.arg(&file).env("NOTIFY_SOCKET", &manager.path).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = Running(command.spawn().expect("started"));
    manager.until("READY=1");
    with(101);
    let answer = http(admin, "POST", "/api/v1/reload").expect("answered");
    assert!(answer.contains(" 200 ") && !answer.contains("limit of open files"), "{answer}");
    with(5000);
    let answer = http(admin, "POST", "/api/v1/reload").expect("answered");
    assert!(answer.contains(" 200 ") && answer.contains("the limit of open files is too low"), "{answer}");
    terminate(&child);
    assert!(child.0.wait().expect("ended").success());
    let mut said = String::new();
    child.0.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
    assert_eq!(said.matches("1000 may be open, and 10320 may be needed").count(), 1, "{said}");
    std::fs::remove_dir_all(&folder).expect("removed");
}
