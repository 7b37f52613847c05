//! The binary as scripts see it: exit codes, and what is said where.

use hapax_testbed::free_port;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary with this command line and nothing of Hapax in its environment.
pub(super) fn hapax(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    for name in ["CONFIG", "LISTEN", "UPSTREAM", "ADMIN", "ADMIN_TOKEN", "LOG"] {
        command.env_remove(format!("HAPAX_{name}"));
    }
    command.args(args).stdin(Stdio::null());
    command
}

pub(super) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("started");
    (status.code(), String::from_utf8(stdout).expect("UTF-8"), String::from_utf8(stderr).expect("UTF-8"))
}

/// A child that is killed at the end of its test.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn check_of_a_valid_file_prints_what_holds() {
    let (code, stdout, stderr) = run(&mut hapax(&["check", "--config", "config/hapax.toml"]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("capacity = 1000000"), "{stdout}");
    assert!(stdout.contains("# file, line "), "{stdout}");
}

#[test]
fn check_without_a_file_prints_the_defaults() {
    let (code, stdout, _) = run(&mut hapax(&["check"]));
    assert_eq!(code, Some(0));
    assert!(
        stdout
            .lines()
            .any(|line| line.starts_with("listen = \"127.0.0.1:5673\"") && line.ends_with("# default"))
    );
}

#[test]
fn flags_and_environment_are_named_as_sources() {
    let mut command = hapax(&["check", "--listen", "127.0.0.1:9"]);
    let (code, stdout, _) =
        run(command.env("HAPAX_UPSTREAM", "amqp://other").env("HAPAX_LISTEN", "127.0.0.1:8"));
    assert_eq!(code, Some(0));
    assert!(
        stdout.lines().any(|line| line.contains("127.0.0.1:9") && line.ends_with("# flag, --listen")),
        "{stdout}"
    );
    assert!(
        stdout.lines().any(|line| line.contains("other:5672") && line.ends_with("HAPAX_UPSTREAM")),
        "{stdout}"
    );
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let (code, stdout, _) = run(hapax(&["check"]).env("HAPAX_CONFIG", "config/examples/minimal.toml"));
    assert_eq!(code, Some(0));
    assert!(stdout.contains("capacity = 9000000"), "{stdout}");
    let (code, _, _) = run(hapax(&["check"]).env("HAPAX_CONFIG", ""));
    assert_eq!(code, Some(0), "an empty variable is none");
}

#[test]
fn an_invalid_file_is_2_with_all_errors() {
    let folder = std::env::temp_dir().join(format!("hapax-cli-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let file = folder.join("wrong.toml");
    std::fs::write(&file, "listen = 5\n[limits]\nframe_max = 1\n[[window]]\nttl = \"never\"\n")
        .expect("written");
    let name = file.to_str().expect("UTF-8");
    for args in [vec!["check", "--config", name], vec!["--config", name]] {
        let (code, stdout, stderr) = run(&mut hapax(&args));
        assert_eq!((code, stdout.as_str()), (Some(2), ""));
        for line in [1, 3, 4, 5] {
            assert!(stderr.contains(&format!("error: {name}:{line}: ")), "line {line} in\n{stderr}");
        }
        assert!(stderr.contains("4 errors in the configuration"), "{stderr}");
    }
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_missing_file_is_2() {
    let (code, _, stderr) = run(&mut hapax(&["--config", "no/such/file.toml"]));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("no/such/file.toml: the configuration file can't be read"), "{stderr}");
}

#[test]
fn an_admin_listener_beyond_loopback_needs_a_token() {
    let (code, _, stderr) = run(&mut hapax(&["--admin", "0.0.0.0:0"]));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("there is no token to ask them for"), "{stderr}");
    assert!(stderr.contains("HAPAX_ADMIN_TOKEN"), "{stderr}");
    let mut command = hapax(&["check", "--admin", "0.0.0.0:0"]);
    let (code, stdout, stderr) = run(command.env("HAPAX_ADMIN_TOKEN", "a-token-of-25-bytes-or-so"));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stdout.contains("a-token"), "{stdout}");
    let (code, _, stderr) = run(hapax(&["check"]).env("HAPAX_ADMIN_TOKEN", "secret"));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("HAPAX_ADMIN_TOKEN holds a token of 6 bytes"), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");
}

#[test]
fn an_unknown_flag_is_2() {
    let (code, _, stderr) = run(&mut hapax(&["--lisen", "x"]));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--listen"), "{stderr}");
}

#[test]
fn a_bad_variable_is_2_and_named() {
    let (code, _, stderr) = run(hapax(&["check"]).env("HAPAX_UPSTREAM", "amqps://u:secret@broker"));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("error: HAPAX_UPSTREAM: `upstream` has credentials in it"), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");
}

#[test]
fn help_and_version_are_0() {
    let (code, stdout, _) = run(&mut hapax(&["--version"]));
    assert_eq!((code, stdout.trim()), (Some(0), concat!("hapax ", env!("CARGO_PKG_VERSION"))));
    let (code, stdout, _) = run(&mut hapax(&["--help"]));
    assert_eq!(code, Some(0));
    for text in ["Examples:", "Exit codes:", "--listen", "HAPAX_UPSTREAM", "check", "demo"] {
        assert!(stdout.contains(text), "{text} in\n{stdout}");
    }
}

#[test]
fn a_port_in_use_is_1_and_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("address").to_string();
    let (code, _, stderr) = run(&mut hapax(&["--listen", &address, "--admin", "off"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&format!("can't listen on {address} (`listen`)")), "{stderr}");
    assert!(stderr.contains("another process has port"), "{stderr}");
    let (code, _, stderr) = run(&mut hapax(&["--listen", "127.0.0.1:0", "--admin", &address]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("--admin"), "{stderr}");
}

#[test]
fn sigterm_drains_and_ends_with_0() {
    let mut command =
        hapax(&["--listen", "127.0.0.1:0", "--admin", "off", "--upstream", "amqp://127.0.0.1:1"]);
    let mut child = Running(command.stderr(Stdio::piped()).spawn().expect("started"));
    let mut log = BufReader::new(child.0.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("\"ready\"") {
        line.clear();
        assert!(log.read_line(&mut line).expect("readable") > 0, "ended before it was ready");
        assert!(line.starts_with('{'), "JSON where there is no terminal: {line}");
    }
    let pid = child.0.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
    assert!(killed.success());
    let mut rest = String::new();
    log.read_to_string(&mut rest).expect("readable");
    assert_eq!(child.0.wait().expect("waited").code(), Some(0), "{rest}");
    assert!(rest.contains("SIGTERM"), "{rest}");
}

/// Returns the relay's answer to a client of another protocol: the shortest sign that it serves.
fn offered(port: u16) -> Option<[u8; 8]> {
    let mut client = TcpStream::connect(("127.0.0.1", port)).ok()?;
    client.write_all(b"AMQP\x00\x01\x00\x00").ok()?;
    let mut answer = [0; 8];
    client.read_exact(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn a_full_disk_under_the_log_does_not_end_the_relay() {
    let port = free_port().expect("a free port");
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let mut command = hapax(&["--listen", &format!("127.0.0.1:{port}"), "--admin", "off", "--log", "trace"]);
    let mut child = Running(command.stderr(full).spawn().expect("started"));
    for _ in 0..3 {
        let answer = loop {
            assert_eq!(child.0.try_wait().expect("waited"), None, "it has ended");
            if let Some(answer) = offered(port) {
                break answer;
            }
        };
        assert_eq!(&answer, b"AMQP\x00\x00\x09\x01");
    }
}

/// For an event to come about, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "a test waits for the process by the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Asks until there is an answer.
pub(super) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(now() < end, "{what}: not in time");
        std::thread::yield_now();
    }
}

/// The whole answer of the admin listener.
pub(super) fn http(port: u16, method: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A pipe that takes nothing more, and what reads it.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("flags");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("set");
    while writer.write(&[b'.'; 4096]).is_ok() {}
    while writer.write(b".").is_ok() {}
    fcntl_setfl(&writer, flags).expect("set back");
    (reader, writer)
}

pub(super) fn terminate(child: &Child) {
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
}

/// Ended with this code, in time.
pub(super) fn ended(child: &mut Child) -> Option<i32> {
    until("the end", || child.try_wait().expect("waited")).code()
}

/// A relay whose log is a full pipe that nobody reads: client and admin port, and that pipe.
fn with_a_stalled_log() -> (Running, u16, u16, std::io::PipeReader) {
    let (port, admin) = (free_port().expect("a free port"), free_port().expect("a free port"));
    let (reader, writer) = full_pipe();
    let mut command = hapax(&["--listen", &format!("127.0.0.1:{port}"), "--log", "trace"]);
    command.args(["--admin", &format!("127.0.0.1:{admin}"), "--upstream", "amqp://127.0.0.1:1"]);
    let child = Running(command.stderr(writer).spawn().expect("started"));
    (child, port, admin, reader)
}

#[test]
fn a_log_that_nobody_reads_stops_neither_clients_nor_the_end() {
    let (mut child, port, admin, reader) = with_a_stalled_log();
    for _ in 0..3 {
        let answer = until("a client", || offered(port));
        assert_eq!(&answer, b"AMQP\x00\x00\x09\x01");
        let alive = until("health", || http(admin, "GET", "/healthz"));
        assert!(alive.starts_with("HTTP/1.1 200"), "{alive}");
    }
    terminate(&child.0);
    assert_eq!(ended(&mut child.0), Some(0));
    drop(reader);
}

#[test]
fn lines_that_were_lost_are_counted_and_told_when_the_log_flows_again() {
    let (mut child, port, admin, mut reader) = with_a_stalled_log();
    let lost = || -> u64 {
        let text = until("metrics", || http(admin, "GET", "/metrics"));
        let line = text.lines().find_map(|line| line.strip_prefix("hapax_log_lines_lost_total "));
        line.expect("the metric").parse().expect("a number")
    };
    until("a client", || offered(port));
    assert_eq!(lost(), 0, "what is logged waits in memory at first");
    until("lines are lost", || {
        (0..200).for_each(|_| assert!(offered(port).is_some(), "a client is answered meanwhile"));
        (lost() > 0).then_some(())
    });
    let mut log = String::new();
    let told = until("the log says so", || {
        let mut bytes = [0; 65_536];
        let length = reader.read(&mut bytes).expect("readable");
        log.push_str(std::str::from_utf8(bytes.get(..length).expect("read")).unwrap_or_default());
        log.lines()
            .find(|line| line.contains("log lines were lost") && line.ends_with('}'))
            .map(str::to_owned)
    });
    assert!(told.contains("\"level\":\"WARN\"") && told.contains("\"lines\":"), "{told}");
    // Read on to the end: the last line is there, because the process waits for those who read.
    let rest = std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    });
    terminate(&child.0);
    assert_eq!(ended(&mut child.0), Some(0));
    let rest = rest.join().expect("read");
    assert!(rest.contains("drained; good bye"), "{rest}");
}

#[test]
fn an_end_with_an_error_does_not_wait_for_the_log_either() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("address").to_string();
    let (reader, writer) = full_pipe();
    let mut command = hapax(&["--listen", &address, "--admin", "off"]);
    let mut child = Running(command.stderr(writer).spawn().expect("started"));
    assert_eq!(ended(&mut child.0), Some(1));
    drop(reader);
}

/// A caller of the API chooses the id. It must not begin a line of its own, nor command a terminal.
#[test]
fn what_a_caller_sends_makes_no_line_in_a_log_of_text() {
    let (port, admin) = (free_port().expect("a free port"), free_port().expect("a free port"));
    let folder = std::env::temp_dir().join(format!("hapax-cli-log-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let file = folder.join("hapax.toml");
    std::fs::write(
        &file,
        "log = { format = \"text\", level = \"debug\" }\n[[window]]\nname = \"w\"\nscope = \"vhost\"\n",
    )
    .expect("written");
    let mut command = hapax(&["--config", file.to_str().expect("UTF-8")]);
    command.args(["--listen", &format!("127.0.0.1:{port}"), "--admin", &format!("127.0.0.1:{admin}")]);
    let mut child = Running(command.stderr(Stdio::piped()).spawn().expect("started"));
    let mut log = child.0.stderr.take().expect("piped");
    let forged =
        "x%0A2026-11-29T00:00:00Z%20%20INFO%20hapax:%20forged%1B%5B2J%C2%9B2J%E2%80%AE%20forgotten=true";
    let path = format!("/api/v1/windows/w/ids/{forged}");
    let answer = until("the answer", || http(admin, "DELETE", &path));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    terminate(&child.0);
    let mut text = String::new();
    log.read_to_string(&mut text).expect("readable");
    assert_eq!(child.0.wait().expect("waited").code(), Some(0));
    assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("2026-11-29T00:00:00Z")), "{text}");
    let line = text.lines().find(|line| line.contains("id forgotten")).expect("logged");
    let id = r#" id="x\n2026-11-29T00:00:00Z  INFO hapax: forged\u{1b}[2J\u{9b}2J\u{202e} forgotten=true" forgotten=false"#;
    assert!(line.ends_with(id), "{line}");
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_token_file_that_others_can_read_is_2_with_the_fix() {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::env::temp_dir().join(format!("hapax-cli-token-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let (file, token) = (folder.join("hapax.toml"), folder.join("token"));
    std::fs::write(&token, "0123456789abcdef\n").expect("written");
    std::fs::write(&file, format!("admin_token_file = {:?}\n", token.display().to_string()))
        .expect("written");
    let name = file.to_str().expect("UTF-8");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).expect("changed");
    for args in [vec!["check", "--config", name], vec!["--config", name]] {
        let (code, stdout, stderr) = run(&mut hapax(&args));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.contains(&format!("chmod 600 {}", token.display())), "{stderr}");
        assert!(!stderr.contains("0123456789"), "{stderr}");
    }
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("changed");
    let (code, _, stderr) = run(&mut hapax(&["check", "--config", name]));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    std::fs::remove_dir_all(&folder).expect("removed");
}
