//! The commands as scripts see them: what is asked, what is printed, and the exit codes.

use super::facts::HOSTILE;
use super::stub::{Stub, TOKEN};
use hapax_core::pressure::Level;
use hapax_core::pressure::facts::{HeaderShare, MissingIds};
use hapax_testbed::free_port;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// The binary with this command line, before this relay, with nothing else of Hapax in its environment.
pub fn hapax(args: &[&str], url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    for name in ["CONFIG", "LISTEN", "UPSTREAM", "ADMIN", "LOG", "ADMIN_TOKEN"] {
        command.env_remove(format!("HAPAX_{name}"));
    }
    command.env("HAPAX_ADMIN_URL", url).args(args).stdin(Stdio::null());
    command
}

pub fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

fn ran(args: &[&str], stub: &Stub) -> Ran {
    run(&mut hapax(args, &stub.url()))
}

/// A line, with its blanks made single.
fn squeezed(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn list_has_a_line_for_each_window_and_json_has_it_all() {
    let stub = Stub::start();
    let ran_list = ran(&["windows", "list"], &stub);
    assert_eq!((ran_list.code, ran_list.err.as_str()), (Some(0), ""));
    let lines = squeezed(&ran_list.out);
    assert_eq!(
        lines[0],
        "NAME LEVEL MODE ENTRIES CAPACITY PRESSURE COVERAGE TTL REMEMBERS FRESH/S DUP/S ESC/S ESCAPED NO-ID RECOMMENDED"
    );
    assert_eq!(
        lines[1],
        "orders CRITICAL enforce 1.00M 1.00M 1.83 54.0 % 10m 5m 24s 3051 121 2.4 12.4k 1.2 % 2.29M"
    );
    assert_eq!(lines.len(), 4);
    assert!(!ran_list.out.contains(['\x1b', '\u{9b}', '\u{202e}', '\r']), "{:?}", ran_list.out);
    let json = ran(&["windows", "--json", "list"], &stub);
    assert!(!json.out.contains(['\x1b', '\u{9b}', '\u{202e}', '\r']), "{:?}", json.out);
    let value: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(value["windows"][0]["news"], "of a later version", "what the relay says, not what we know");
    assert_eq!(value["windows"][2]["name"], HOSTILE, "the same name, for a program");
}

/// A window that is young, or sees no ids, or lets more through than it can count, does not look well anywhere.
#[test]
fn what_is_not_known_is_not_shown_as_well() {
    let mut young = super::facts::well();
    (young.level, young.warming_seconds, young.coverage) = (Level::Warming, 2_700.0, 0.25);
    let mut blind = super::facts::well();
    let header = HeaderShare { name: "x-id\u{1b}[31m".to_owned(), share: 0.94 };
    blind.level = Level::Blind;
    blind.missing_ids = MissingIds { share: Some(0.97), publishes: 9_700, headers: vec![header] };
    let mut pressed = super::facts::critical();
    (pressed.escaped_duplicates, pressed.escaped_duplicates_about) = (9_035, 19_000);
    let stub = Stub::start();
    stub.edit(|windows| {
        windows[0] = super::facts::window("orders", &pressed);
        windows[1] = super::facts::window("young", &young);
        windows[2] = super::facts::window("blind", &blind);
    });
    let list = squeezed(&ran(&["windows", "list"], &stub).out);
    assert!(list[1].contains(">9,035 ~19.0k"), "{list:?}");
    assert!(list[2].starts_with("young warming") && list[2].contains("25.0 %"), "{list:?}");
    assert!(list[3].starts_with("blind blind") && list[3].contains("97.0 %"), "{list:?}");
    let shown = |name: &str| ran(&["windows", "show", name], &stub).out;
    let says = "warm in 45m: until then, duplicates of what was published before get through uncounted";
    assert!(shown("young").contains(says), "{}", shown("young"));
    let blind = shown("blind");
    assert!(
        blind.contains(
            "97.0 % of the publishes carry no id, so their duplicates get through; 94.0 % of them have x-id"
        ),
        "{blind}"
    );
    assert!(!blind.contains('\x1b'), "{blind:?}");
    assert!(shown("orders").contains(">9,035 ~19,000"), "{}", shown("orders"));
}

#[test]
fn show_says_all_of_one_window() {
    let stub = Stub::start();
    let shown = ran(&["windows", "show", "orders"], &stub);
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    let lines = squeezed(&shown.out);
    for line in [
        "too small, remembers 5m 24s of 10m: set it to 2290000 (+113 MiB)",
        "pressure 1.83",
        "coverage 54.0 %",
        "recommended 2,290,000, 201 MiB",
        "escaped 2.4/s 12,431",
        "capacity 627,020 early",
        "nack 41",
        "CRITICAL 2m 3s since",
        "exchange orders.*",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line} in\n{}", shown.out);
    }
    assert!(!shown.out.contains('\x1b'));
    let json = ran(&["windows", "show", "orders", "--json"], &stub);
    assert_eq!(serde_json::from_str::<Value>(&json.out).unwrap()["capacity"], 1_000_000);
}

#[test]
fn set_changes_and_says_what() {
    let stub = Stub::start();
    let set =
        ran(&["windows", "set", "orders", "--capacity", "2M", "--ttl", "20m", "--mode", "observe"], &stub);
    assert_eq!(set.code, Some(0), "{}", set.err);
    assert_eq!(
        set.out,
        "orders: capacity 1,000,000 → 2,000,000\norders: ttl 10m → 20m\norders: mode enforce → observe\n"
    );
    assert!(set.err.contains("until the relay restarts"), "{}", set.err);
    let patch = stub.asked().into_iter().find(|line| line.starts_with("PATCH")).unwrap();
    let body: Value =
        serde_json::from_str(patch.strip_prefix("PATCH /api/v1/windows/orders ").unwrap()).unwrap();
    assert_eq!(body, json!({ "capacity": 2_000_000, "mode": "observe", "ttl": "20m" }));
    let again = ran(&["windows", "set", "orders", "--capacity", "2000000", "--json"], &stub);
    assert_eq!(serde_json::from_str::<Value>(&again.out).unwrap()["capacity"], 2_000_000);
}

#[test]
fn a_dry_run_asks_for_a_forecast_and_changes_nothing() {
    let stub = Stub::start();
    let dry = ran(&["windows", "set", "orders", "--capacity", "2000000", "--dry-run"], &stub);
    assert_eq!(dry.code, Some(0), "{}", dry.err);
    assert_eq!(
        squeezed(&dry.out),
        [
            "NOW THEN",
            "capacity 1,000,000 2,000,000",
            "memory 88.0 MiB 176 MiB",
            "pressure 1.83 0.92",
            "coverage 54.0 % 100 %",
            "caught 19.6 % 26.8 %",
        ]
    );
    assert!(stub.asked().iter().any(|l| l == r#"POST /api/v1/windows/orders/forecast {"capacity":2000000}"#));
    assert!(!stub.asked().iter().any(|line| line.starts_with("PATCH")));
}

#[test]
fn what_the_relay_refuses_is_2_with_all_reasons() {
    let stub = Stub::start();
    let refused = ran(&["windows", "set", "orders", "--capacity", "auto"], &stub);
    assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""));
    assert_eq!(
        refused.err,
        "error: the relay refuses (422): nothing was changed\n  * capacity: no memory_budget is configured\n  * ttl: ␛[31msoon is no duration\n"
    );
}

#[test]
fn flush_asks_or_is_told_not_to() {
    let stub = Stub::start();
    let unasked = ran(&["windows", "flush", "orders"], &stub);
    assert_eq!(unasked.code, Some(2));
    assert!(unasked.err.contains("add --yes"), "{}", unasked.err);
    assert!(!stub.asked().iter().any(|line| line.starts_with("POST")));
    let flushed = ran(&["windows", "flush", "orders", "--yes"], &stub);
    assert_eq!((flushed.code, flushed.out.as_str()), (Some(0), "orders: 1,000,000 ids forgotten\n"));
}

#[test]
fn an_unknown_window_gets_a_suggestion() {
    let stub = Stub::start();
    for args in [
        vec!["windows", "show", "ordres"],
        vec!["windows", "set", "ordres", "--ttl", "1m"],
        vec!["windows", "flush", "ordres", "--yes"],
        vec!["windows", "flush", "ordres"],
        vec!["ids", "get", "ordres", "x"],
        vec!["ids", "forget", "ordres", "x"],
    ] {
        let missing = ran(&args, &stub);
        assert_eq!((missing.code, missing.out.as_str()), (Some(1), ""), "{args:?}");
        assert!(missing.err.contains("there is no window `ordres`"), "{}", missing.err);
        assert!(missing.err.contains("did you mean `orders`?"), "{}", missing.err);
    }
    let other = ran(&["windows", "show", "zzz"], &stub);
    assert!(other.err.contains("the windows are: orders, default, evil␛"), "{}", other.err);
}

#[test]
fn an_id_is_found_whatever_is_in_it() {
    let stub = Stub::start();
    let found = ran(
        &["ids", "get", "orders", "a/b ?\x1b", "--exchange", "", "--routing-key", "k&k", "--vhost", "/"],
        &stub,
    );
    assert_eq!(found.code, Some(0), "{}", found.err);
    assert_eq!(
        squeezed(&found.out),
        [
            "id a/b ?␛",
            "state seen",
            "seen 2026-01-01T10:00:00Z (1m 1s ago)",
            "duplicates 3",
            "expires 2026-01-01T10:10:00Z (in 8m 59s)",
        ]
    );
    assert_eq!(
        stub.asked().last().unwrap(),
        "GET /api/v1/windows/orders/ids/a%2Fb%20%3F%1B?vhost=%2F&exchange=&routing_key=k%26k"
    );
    let unknown = ran(&["ids", "get", "orders", "other"], &stub);
    assert_eq!(
        (unknown.code, squeezed(&unknown.out)),
        (Some(0), vec!["id other".to_owned(), "state unknown".to_owned()])
    );
    let forgotten = ran(&["ids", "forget", "orders", "known"], &stub);
    assert_eq!(forgotten.out, "known: forgotten: the next publish of it gets through\n");
    let json = ran(&["ids", "forget", "orders", "other", "--json"], &stub);
    assert_eq!(serde_json::from_str::<Value>(&json.out).unwrap()["forgotten"], false);
}

#[test]
fn connections_are_listed() {
    let stub = Stub::start();
    let listed = ran(&["connections", "--limit", "7", "--offset", "0"], &stub);
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    let lines = squeezed(&listed.out);
    assert_eq!(lines.len(), 4);
    assert_eq!(
        lines[1],
        "1 10.1.2.1:54001 shop / RabbitMQ 1.10.0 open 2 17 102k 250 70.0 MiB 1.15 MiB 1m 33s"
    );
    assert!(lines[3].contains(" 10.1.2.3:54003 - -"), "before it said who it is: {}", lines[3]);
    assert!(!listed.out.contains('\x1b'));
    assert_eq!(stub.asked().last().unwrap(), "GET /api/v1/connections?limit=7&offset=0");
}

#[test]
fn the_nodes_of_the_broker_are_listed() {
    let stub = Stub::start();
    let listed = ran(&["upstreams"], &stub);
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    let lines = squeezed(&listed.out);
    assert_eq!(lines[0], "UPSTREAM STATE HEARD RESTS CONNECTIONS OPENED FAILURES ERROR");
    assert_eq!(lines[1], "a:5672 up 7s - 12 4,300 3 -");
    assert!(lines[2].starts_with("b:5672 down 7s 1m 33s 12 4,300 3 "), "{}", lines[2]);
    assert!(!listed.out.contains(['\x1b', '\u{9b}', '\u{202e}', '\r']), "{:?}", listed.out);
    assert_eq!(stub.asked().last().unwrap(), "GET /api/v1/upstreams");
    let json = ran(&["upstreams", "--json"], &stub);
    assert_eq!(serde_json::from_str::<Value>(&json.out).unwrap()["upstreams"][1]["state"], "down");
}

#[test]
fn the_last_duplicates_are_listed() {
    let stub = Stub::start();
    let listed = ran(&["drops", "--limit", "7"], &stub);
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    let lines = squeezed(&listed.out);
    assert_eq!(lines[1], "7s dropped orders order-17 / (default) eu shop 10.1.2.1:54001 1m 33s 3 0");
    assert!(lines[2].starts_with("7s refused, other content orders "), "{}", lines[2]);
    assert!(lines[2].ends_with(" - - 96"), "what the window has forgotten is not known: {}", lines[2]);
    assert!(!listed.out.contains('\x1b'), "an id that a stranger has chosen is text");
    assert_eq!(stub.asked().last().unwrap(), "GET /api/v1/drops?limit=7");
    let json: serde_json::Value = serde_json::from_str(&ran(&["drops", "--json"], &stub).out).unwrap();
    assert_eq!(json["last"], 2);
}

#[test]
fn a_token_comes_from_the_environment_or_a_file() {
    let stub = Stub::guarded();
    let without = ran(&["windows", "list"], &stub);
    assert_eq!(without.code, Some(1));
    assert!(
        without.err.contains("wants a token (401)") && without.err.contains("HAPAX_ADMIN_TOKEN"),
        "{}",
        without.err
    );
    let wrong = run(hapax(&["windows", "list"], &stub.url()).env("HAPAX_ADMIN_TOKEN", "wrong-token"));
    assert_eq!(wrong.code, Some(1));
    assert!(
        wrong.err.contains("does not accept this token") && !wrong.err.contains("wrong-token"),
        "{}",
        wrong.err
    );
    let right = run(hapax(&["windows", "list"], &stub.url()).env("HAPAX_ADMIN_TOKEN", TOKEN));
    assert_eq!(right.code, Some(0), "{}", right.err);
    let file = std::env::temp_dir().join(format!("hapax-token-{}", std::process::id()));
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let name = file.to_str().unwrap();
    let mut command = hapax(&["windows", "list", "--token-file", name], &stub.url());
    let from_file = run(command.env("HAPAX_ADMIN_TOKEN", "wrong-token"));
    assert_eq!(from_file.code, Some(0), "the flag comes first: {}", from_file.err);
    std::fs::remove_file(&file).unwrap();
    let missing = ran(&["windows", "list", "--token-file", name], &stub);
    assert_eq!(missing.code, Some(2));
    assert!(missing.err.contains(name), "{}", missing.err);
}

#[test]
fn nobody_and_somebody_else_are_told_apart() {
    let url = format!("http://127.0.0.1:{}", free_port().unwrap());
    for args in [vec!["windows", "list"], vec!["top", "--json", "--once"], vec!["connections"]] {
        let nobody = run(&mut hapax(&args, &url));
        assert_eq!((nobody.code, nobody.out.as_str()), (Some(1), ""));
        assert!(nobody.err.contains(&format!("no relay answers at {url}: ")), "{}", nobody.err);
        assert!(nobody.err.contains("fix: start it"), "{}", nobody.err);
    }
    // RabbitMQ's management port, say: it answers, in HTML.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", other.local_addr().unwrap());
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
            .unwrap();
    });
    let foreign = run(&mut hapax(&["windows", "list"], &url));
    answers.join().unwrap();
    assert_eq!(foreign.code, Some(1));
    assert!(
        foreign.err.contains("is no Hapax of this version: it answers /api/v1/windows with 404"),
        "{}",
        foreign.err
    );
}

#[test]
fn the_relays_own_variable_names_it_too() {
    let stub = Stub::start();
    let address = stub.url().trim_start_matches("http://").to_owned();
    let mut command = hapax(&["windows", "list"], "");
    assert_eq!(run(command.env("HAPAX_ADMIN", &address)).code, Some(0));
    let mut command = hapax(&["windows", "list"], &stub.url());
    assert_eq!(run(command.env("HAPAX_ADMIN", "127.0.0.1:1")).code, Some(0), "that for clients comes first");
    let mut command = hapax(&["--admin", &address, "windows", "list"], "http://127.0.0.1:1");
    assert_eq!(run(&mut command).code, Some(0), "a flag comes before a variable");
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn top_as_json_is_a_line_a_second_or_one_document() {
    let stub = Stub::start();
    let once = ran(&["top", "--json", "--once"], &stub);
    let value: Value = serde_json::from_str(&once.out).unwrap();
    assert_eq!(value["windows"][0]["name"], "orders");
    assert_eq!(value["status"]["upstream"]["ok"], true);
    let mut command = hapax(&["top", "--json"], &stub.url());
    let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    for entries in [1_000_000, 77] {
        let value: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(value["windows"][0]["entries"], entries);
        stub.edit(|windows| windows[0]["entries"] = 77.into());
    }
    // Its reader goes: it ends, and that is no failure.
    drop(lines);
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

#[test]
fn without_a_terminal_top_says_what_to_use() {
    let stub = Stub::start();
    let piped = ran(&["top"], &stub);
    assert_eq!((piped.code, piped.out.as_str()), (Some(2), ""));
    assert!(piped.err.contains("hapax windows list"), "{}", piped.err);
}

#[test]
fn check_has_json() {
    let mut command = hapax(&["check", "--json", "--listen", "127.0.0.1:9"], "");
    let valid = run(&mut command);
    let value: Value = serde_json::from_str(&valid.out).unwrap();
    assert_eq!((valid.code, &value["settings"]["listen"]), (Some(0), &Value::from("127.0.0.1:9")));
    assert_eq!(value["settings"]["window"][0]["name"], "default");
    assert_eq!(value["sources"]["listen"], "flag, --listen");
    let mut command = hapax(&["check", "--json", "--listen", "nowhere", "--upstream", "http://x"], "");
    let invalid = run(&mut command);
    let value: Value = serde_json::from_str(&invalid.out).unwrap();
    assert_eq!((invalid.code, value["errors"].as_array().unwrap().len()), (Some(2), 2));
    assert_eq!(value["errors"][0]["place"], "--listen");
    assert!(value["errors"][0]["fix"].is_string());
}

#[test]
fn a_run_of_chaos_is_started_shown_and_stopped() {
    let stub = Stub::start();
    let started = ran(
        &[
            "chaos",
            "start",
            "--seed",
            "7",
            "--duration",
            "5m",
            "--drop-acks",
            "0.01",
            "--hold-acks",
            "0.01",
            "--hold-for",
            "5s",
            "--cut",
            "0.001",
            "--redeliver",
            "0.01",
            "--replay",
            "0.1",
            "--window",
            "orders",
            "--window",
            "workers",
        ],
        &stub,
    );
    assert_eq!((started.code, started.out.as_str()), (Some(0), "chaos for 5m, seed 7\n"), "{}", started.err);
    assert!(started.err.contains("hapax chaos stop"), "{}", started.err);
    let asked = stub.asked();
    let (head, body) = asked[0].split_once(" {").unwrap();
    assert_eq!(head, "POST /api/v1/chaos");
    let body: Value = serde_json::from_str(&format!("{{{body}")).unwrap();
    let order = json!({
        "seed": 7, "duration": "5m", "hold_for": "5s", "drop_acks": 0.01, "hold_acks": 0.01, "cut": 0.001, "redeliver": 0.01,
        "replay": 0.1, "windows": ["orders", "workers"],
    });
    assert_eq!(body, order);
    let status = ran(&["chaos", "status"], &stub);
    let line = "on, seed 7, 4m left: drop_acks 12, cut 1, redeliver 40, replay 1,234\n";
    assert_eq!((status.code, status.out.as_str()), (Some(0), line));
    let stopped = ran(&["chaos", "stop"], &stub);
    assert!(stopped.out.starts_with("stopped after 1m: drop_acks 12"), "{}", stopped.out);
    assert!(stub.asked().last().unwrap().starts_with("DELETE /api/v1/chaos"));
}

#[test]
fn the_report_of_a_run_says_what_was_done_and_answered() {
    let stub = Stub::start();
    let report = ran(&["chaos", "report"], &stub);
    assert_eq!((report.code, report.err.as_str()), (Some(0), ""));
    let lines = squeezed(&report.out);
    for line in [
        "seed 7",
        "began 2026-01-01T10:00:00.000Z by 127.0.0.1:40000 (token)",
        "lasted 1m of 5m (it is on)",
        "windows orders",
        "FAULT SHARE DONE SPARED",
        "drop_acks 0.01 12 3",
        "drop_acks orders staging shop orders 12",
        "and 2 more",
        "replay: 1,240 picked, 1,234 published again, 2 not stored by anybody, 4 waiting",
        "orders enforce 12,000 1,250 0 0 0 0 0",
        "deliveries that consumers were shown again: 41; of these, acked before: 39",
        "jobs were shown twice after they were done: a [[guard]] for their queues hides them",
    ] {
        assert!(lines.iter().any(|l| l == line), "{line} in\n{}", report.out);
    }
    assert!(!report.out.contains(['\x1b', '\u{9b}', '\u{202e}', '\r']), "{:?}", report.out);
    for args in [&["chaos", "report", "--format", "json"][..], &["chaos", "--json", "report"]] {
        let json = ran(args, &stub);
        let value: Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!((&value["seed"], &value["windows"][0]["news"]), (&json!(7), &json!("of a later version")));
    }
}

#[test]
fn a_run_needs_a_fault_and_a_share_is_a_part() {
    let stub = Stub::start();
    for (args, told) in [
        (&["chaos", "start", "--seed", "7"][..], "--drop-acks"),
        (&["chaos", "start", "--cut", "1.5"], "it must be a number from 0 to 1"),
        (&["chaos", "start", "--cut", "5%"], "it must be a number from 0 to 1"),
        (&["chaos", "start", "--cut", "NaN"], "it must be a number from 0 to 1"),
        (&["chaos"], "start"),
    ] {
        let wrong = ran(args, &stub);
        assert_eq!(wrong.code, Some(2), "{args:?}: {}", wrong.out);
        assert!(wrong.err.contains(told), "{args:?}: {}", wrong.err);
    }
    assert_eq!(stub.asked(), [""; 0]);
}
