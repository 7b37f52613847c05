//! Against a real relay: before a real broker with traffic, and before none with a token.

use super::commands::{hapax, run};
use super::emulator::Terminal;
use super::stub::TOKEN;
use crate::e2e::raw::Publish;
use crate::e2e::site::Site;
use crate::e2e::wait::{self, PATIENCE};
use hapax_testbed::free_port;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

const CONFIG: &str = "[[window]]\nname = \"orders\"\ncapacity = 100\nttl = \"10m\"\n";

fn json(args: &[&str], url: &str) -> Value {
    let ran = run(&mut hapax(&[args, &["--json"]].concat(), url));
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

#[test]
fn a_relay_with_traffic_is_seen_changed_and_asked() {
    let Some(site) = Site::of_relay("terminal", CONFIG) else { return };
    let url = format!("http://{}", site.relay().admin());
    let url = url.as_str();
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    for n in 0..500 {
        client.publish_and_settle(1, &Publish::to("q", &format!("id-{n}")));
    }
    client.publish_and_settle(1, &Publish::to("q", "id-499"));

    // The screen, the list and the document say the same.
    let window = &json(&["windows", "show", "orders"], url);
    assert_eq!((&window["publishes"]["fresh"], &window["publishes"]["duplicate"]), (&500.into(), &1.into()));
    let entries = window["entries"].as_u64().unwrap();
    assert!((50..=100).contains(&entries), "{entries}");
    let shown = run(&mut hapax(&["windows", "show", "orders"], url));
    for text in ["mode        enforce", "ttl         10m", "scope       routing-key"] {
        assert!(shown.out.contains(text), "{text} in\n{}", shown.out);
    }
    // The level is judged by the relay's next tick.
    wait::until("four of five ids went early: critical", PATIENCE, || {
        let list = run(&mut hapax(&["windows", "list"], url)).out;
        (list.contains("orders") && list.contains("CRITICAL")).then_some(())
    });

    let connections = run(&mut hapax(&["connections"], url));
    assert_eq!(connections.code, Some(0), "{}", connections.err);
    assert!(connections.out.contains("guest") && connections.out.contains("terminal"), "{}", connections.out);

    // The sender of the duplicates: the last ones, and those that come while somebody watches.
    let drops = run(&mut hapax(&["drops"], url));
    assert!(drops.out.contains("id-499") && drops.out.contains("guest"), "{}{}", drops.out, drops.err);
    let mut following = hapax(&["drops", "--follow"], url).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(
        lines.next().unwrap().contains("dropped orders: id id-499 to (default) key q in terminal from guest")
    );
    client.publish_and_settle(1, &Publish::to("q", "id-498"));
    assert!(lines.next().unwrap().contains("id id-498"));
    following.kill().unwrap();
    following.wait().unwrap();

    // An id, in the scope that the window asks for.
    let narrow = run(&mut hapax(&["ids", "get", "orders", "id-499"], url));
    assert_eq!(narrow.code, Some(2), "{}", narrow.out);
    assert!(narrow.err.contains("--exchange"), "{}", narrow.err);
    let scope = ["--vhost", "terminal", "--exchange", "", "--routing-key", "q"];
    let id = |action, id| json(&[&["ids", action, "orders", id], scope.as_slice()].concat(), url);
    let seen = id("get", "id-499");
    assert_eq!((&seen["state"], &seen["duplicates"]), (&"seen".into(), &1.into()));
    assert_eq!(id("get", "id-0")["state"], "unknown", "evicted");
    assert_eq!(id("forget", "id-499")["forgotten"], true);
    assert_eq!(id("get", "id-499")["state"], "unknown");
    assert_eq!(id("forget", "id-499")["forgotten"], false);

    // Live, in a terminal, while it is changed from another.
    let mut terminal = Terminal::start(&hapax(&["top"], url), 140, 40);
    terminal.wait_for("the window", |screen| {
        let text = screen.contents();
        text.contains("orders") && text.contains("CRITICAL") && text.contains("ok  clients 1/")
    });
    if let Some(file) = std::env::var_os("HAPAX_TEST_CAPTURE") {
        terminal.type_keys("\r");
        terminal.wait_for_text("Evictions by cause");
        std::fs::write(file, terminal.text()).unwrap();
        terminal.type_keys("\x1b");
    }
    let dry = run(&mut hapax(&["windows", "set", "orders", "--capacity", "123456", "--dry-run"], url));
    assert!(dry.out.contains("123,456"), "{}{}", dry.out, dry.err);
    assert_eq!(json(&["windows", "show", "orders"], url)["capacity"], 100, "only said");
    let set = run(&mut hapax(&["windows", "set", "orders", "--capacity", "123456", "--ttl", "1h"], url));
    assert_eq!(set.out, "orders: capacity 100 → 123,456\norders: ttl 10m → 1h\n", "{}", set.err);
    terminal.wait_for("the new capacity", |screen| screen.contents().contains("123k"));
    terminal.type_keys("q");
    assert_eq!(terminal.ended().code(), Some(0));
    terminal.assert_restored();

    let wrong = run(&mut hapax(&["windows", "set", "orders", "--capacity", "0", "--ttl", "soon"], url));
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("capacity") && wrong.err.contains("ttl"), "both at once: {}", wrong.err);
    let flushed = run(&mut hapax(&["windows", "flush", "orders", "--yes"], url));
    assert_eq!(flushed.out, format!("orders: {} ids forgotten\n", entries - 1));
    let missing = run(&mut hapax(&["windows", "show", "order"], url));
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("did you mean `orders`?"), "{}", missing.err);
    let once = json(&["top", "--once"], url);
    assert_eq!(
        (&once["windows"][0]["entries"], &once["status"]["connections"]["open"]),
        (&0.into(), &1.into())
    );
}

/// A relay that is killed at the end of its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_relay_with_a_token_and_without_a_broker() {
    let admin = format!("127.0.0.1:{}", free_port().unwrap());
    let url = format!("http://{admin}");
    let mut command =
        hapax(&["--listen", "127.0.0.1:0", "--upstream", "amqp://127.0.0.1:1", "--admin", &admin], "");
    command.env("HAPAX_ADMIN_TOKEN", TOKEN).stderr(Stdio::piped());
    let mut relay = Running(command.spawn().unwrap());
    let mut log = BufReader::new(relay.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"ready\"") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended");
    }
    std::thread::spawn(move || log.read_to_end(&mut Vec::new()));

    let without = run(&mut hapax(&["windows", "list"], &url));
    assert_eq!(without.code, Some(1));
    assert!(without.err.contains("wants a token (401)"), "{}", without.err);
    let with = run(hapax(&["windows", "list"], &url).env("HAPAX_ADMIN_TOKEN", TOKEN));
    assert_eq!(with.code, Some(0), "{}", with.err);
    assert!(with.out.contains("default"), "{}", with.out);
    // By name, too: the relay takes loopback names for its own.
    let named = url.replace("127.0.0.1", "localhost");
    let with = run(hapax(&["windows", "flush", "default", "--yes"], &named).env("HAPAX_ADMIN_TOKEN", TOKEN));
    assert_eq!((with.code, with.out.as_str()), (Some(0), "default: 0 ids forgotten\n"), "{}", with.err);

    let mut command = hapax(&["top"], &url);
    let mut terminal = Terminal::start(command.env("HAPAX_ADMIN_TOKEN", TOKEN), 80, 24);
    terminal.wait_for("a window and no broker", |screen| {
        screen.contents().contains("default") && screen.contents().contains("DOWN")
    });
    terminal.type_keys("q");
    assert_eq!(terminal.ended().code(), Some(0));
}
