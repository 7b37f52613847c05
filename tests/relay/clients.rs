//! Client libraries in their own languages: they pass through Hapax as they pass at RabbitMQ itself.
//!
//! The programs are in `tests/clients/`, one folder each, with a README that says how they are called. A test here is
//! one program and one group of its scenarios; the libraries are fetched into `target/clients/` when they are missing.
//! `HAPAX_E2E_DIRECT=1` runs the same at the broker (see [`e2e`]), which is how they were proved.

use crate::e2e::site::{Site, own_rabbit};
use hapax_testbed::Rabbit;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

/// Where things that are fetched or built for a client go.
fn built(client: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(client);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Runs a step of a client's setup.
fn step(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}");
}

/// Runs the setup unless this very list of what is wanted was set up already.
fn once(cell: &OnceLock<()>, client: &str, wanted: &str, setup: impl FnOnce(&Path)) {
    cell.get_or_init(|| {
        let (folder, wanted) =
            (built(client), std::fs::read(Path::new(SOURCES).join(client).join(wanted)).unwrap());
        let stamp = folder.join("stamp");
        if std::fs::read(&stamp).ok().as_ref() != Some(&wanted) {
            setup(&folder);
            std::fs::write(stamp, wanted).unwrap();
        }
    });
}

/// Python, with a client's packages.
fn python(ready: &OnceLock<()>, client: &str) -> Command {
    let mut command = python_program(ready, client);
    command.arg(Path::new(SOURCES).join(client).join("scenarios.py"));
    command
}

/// Likewise, without a script.
fn python_program(ready: &OnceLock<()>, client: &str) -> Command {
    let sources = Path::new(SOURCES).join(client);
    once(ready, client, "requirements.txt", |folder| {
        step(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(folder.join("venv")));
        step(
            Command::new(folder.join("venv/bin/pip"))
                .args(["install", "--quiet", "-r"])
                .arg(sources.join("requirements.txt")),
        );
    });
    Command::new(built(client).join("venv/bin/python"))
}

static PIKA: OnceLock<()> = OnceLock::new();

pub(crate) fn pika() -> Command {
    python(&PIKA, "pika")
}

/// Python with pika, without a script.
pub(crate) fn pika_program() -> Command {
    python_program(&PIKA, "pika")
}

/// Node, with a client's packages.
fn node(ready: &OnceLock<()>, client: &str) -> Command {
    let mut command = node_program(ready, client);
    command.arg(Path::new(SOURCES).join(client).join("scenarios.js"));
    command
}

/// Likewise, without a script.
fn node_program(ready: &OnceLock<()>, client: &str) -> Command {
    let sources = Path::new(SOURCES).join(client);
    once(ready, client, "package-lock.json", |folder| {
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(sources.join(file), folder.join(file)).unwrap();
        }
        step(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(folder));
    });
    let mut command = Command::new("node");
    command.env("NODE_PATH", built(client).join("node_modules"));
    command
}

static AMQPLIB: OnceLock<()> = OnceLock::new();

pub(crate) fn amqplib() -> Command {
    node(&AMQPLIB, "amqplib")
}

/// Node with amqplib, without a script.
pub(crate) fn amqplib_program() -> Command {
    node_program(&AMQPLIB, "amqplib")
}

fn rascal() -> Command {
    static READY: OnceLock<()> = OnceLock::new();
    node(&READY, "rascal")
}

fn amqp091_go() -> Command {
    static READY: OnceLock<()> = OnceLock::new();
    // Debian packages the library as source below /usr/share/gocode; Go's own cache knows what is up to date.
    let program = built("amqp091-go").join("scenarios");
    READY.get_or_init(|| {
        step(
            Command::new("go")
                .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("GOFLAGS", "")])
                .args(["build", "-o"])
                .arg(&program)
                .current_dir(Path::new(SOURCES).join("amqp091-go")),
        );
    });
    Command::new(program)
}

/// Debian's package, which PHP finds on its own include path.
fn php_amqplib() -> Command {
    let mut command = Command::new("php");
    command.arg(Path::new(SOURCES).join("php-amqplib/scenarios.php"));
    command
}

pub(crate) fn celery() -> Command {
    static READY: OnceLock<()> = OnceLock::new();
    python(&READY, "celery")
}

/// Returns the relay's configuration for a client.
fn config(client: &str) -> &'static str {
    match client {
        "celery" => "[[window]]\nname = \"tasks\"\npreset = \"celery\"\n",
        _ => {
            "[[window]]\nname = \"nacks\"\nexchange = \"*-nacks\"\non_duplicate = \"nack\"\n\
             [[window]]\nname = \"returns\"\nexchange = \"*-returns\"\non_duplicate = \"return\"\n\
             [[window]]\nname = \"default\"\n"
        }
    }
}

fn amqp_tools() -> Command {
    let mut command = Command::new("bash");
    command.arg(Path::new(SOURCES).join("amqp-tools/scenarios.sh"));
    command
}

/// Runs a group, shows what the program says, does what it asks for, and fails with its "not ok" lines.
fn run(program: Command, group: &str, site: &Site) {
    let addr = site.addr();
    run_at(program, &[group], site, (&addr.ip().to_string(), addr.port()));
}

/// Runs a group, or one scenario of it, at this host and port.
pub(crate) fn run_at(mut program: Command, group: &[&str], site: &Site, (host, port): (&str, u16)) {
    let closed = format!("{}-closed", site.vhost);
    site.rabbit.eval(&format!("catch rabbit_vhost:add(<<\"{closed}\">>, <<\"hapax\">>).")).unwrap();
    site.add_user("reader", "");
    let mut child = program
        .args(group)
        .env("AMQP_HOST", host)
        .env("AMQP_PORT", port.to_string())
        .env("AMQP_VHOST", &site.vhost)
        .env("AMQP_CLOSED_VHOST", &closed)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?}: {error}"));
    let mut input = child.stdin.take().unwrap();
    let (mut bad, mut good) = (Vec::new(), 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        println!("{line}");
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("?", wish) => {
                fulfil(&site.rabbit, wish);
                writeln!(input, "done").unwrap();
            }
            ("ok", _) => good += 1,
            ("not", _) => bad.push(line),
            _ => {}
        }
    }
    let status = child.wait().unwrap();
    assert!(bad.is_empty(), "{group:?}:\n{}", bad.join("\n"));
    assert!(status.success() && good > 0, "{group:?}: {status} after {good} scenarios");
}

fn fulfil(rabbit: &Rabbit, wish: &str) {
    let watermark = match wish {
        "alarm on" => "0",
        "alarm off" => "0.4",
        other => panic!("the program asks for {other:?}"),
    };
    rabbit.ctl(&["set_vm_memory_high_watermark", watermark]).unwrap();
}

macro_rules! client {
    ($name:ident: $($group:ident),*) => {
        mod $name {
            $(client!(@ $name $group);)*
        }
    };
    (@ $name:ident base) => {
        #[test]
        fn base() {
            let site = super::Site::new(concat!(stringify!($name), "-base"), super::config(stringify!($name)));
            super::run(super::$name(), "base", &site);
        }
    };
    (@ $name:ident dedup) => {
        #[test]
        fn dedup() {
            let config = super::config(stringify!($name));
            if let Some(site) = super::Site::of_relay(concat!(stringify!($name), "-dedup"), config) {
                super::run(super::$name(), "dedup", &site);
            }
        }
    };
}

client!(pika: base, dedup);
client!(amqplib: base, dedup);
client!(amqp091_go: base, dedup);
client!(amqp_tools: base, dedup);
client!(rascal: base, dedup);
client!(celery: base, dedup);
client!(php_amqplib: base, dedup);

/// The library's own test suite, which Debian ships with its source: it cannot tell Hapax from the broker either.
#[test]
fn amqp091_go_passes_its_own_test_suite() {
    let site = Site::new("amqp091_go-own", "");
    let program = built("amqp091-go").join("own-tests");
    let library = "/usr/share/gocode/src/github.com/rabbitmq/amqp091-go";
    step(
        Command::new("go")
            .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("GOFLAGS", "")])
            .args(["test", "-c", "-tags", "integration", "-o"])
            .arg(&program)
            .current_dir(library),
    );
    let suite = |names: &str| {
        let mut suite = Command::new(&program);
        suite
            .args(["-test.v", "-test.timeout", "300s", "-test.run", names])
            .env("AMQP_URL", format!("amqp://guest:guest@{}/{}", site.addr(), site.vhost))
            .current_dir(library);
        suite
    };
    let output = suite(".").stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = |line: &str| Some(line.trim().strip_prefix("--- FAIL: ")?.split(' ').next()?.to_owned());
    let failed: Vec<String> = said.lines().filter_map(failed).collect();
    let only_hurried = !failed.is_empty() && failed.iter().all(|name| HURRIED.contains(&name.as_str()));
    assert!(output.status.success() || only_hurried, "{failed:?}\n{said}");
    if only_hurried {
        step(&mut suite(&format!("^({})$", failed.join("|"))));
    }
}

/// Tests of that suite with a deadline of their own that a busy machine may miss. Such a test gets a second try, by itself.
/// `TestIntegrationCancel` gives the broker 200 ms.
const HURRIED: [&str; 1] = ["TestIntegrationCancel"];

/// One after another: an alarm that one of them asks for stops the others, too.
#[test]
fn blocked_and_unblocked() {
    let site = Site::on(&own_rabbit(), "blocked", "");
    for program in [pika(), amqplib(), amqp091_go()] {
        run(program, "blocked", &site);
    }
}
