//! Every change is logged, with who and what.

use super::site::{Site, TOKEN};
use crate::ground::run_alone;
use hapax_core::window::{Change, Mode, Setting};
use hapax_core::wire::properties::IdValue;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

/// In a process of its own: there is one subscriber in a process, and other tests log, too.
#[test]
fn who_what_from_and_to() {
    run_alone("api::log::who_what_from_and_to_alone", ("", ""));
}

#[tokio::test]
#[ignore = "a process of its own: see who_what_from_and_to"]
async fn who_what_from_and_to_alone() {
    let lines = Lines::default();
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(lines.clone()).init();
    let text = "[[window]]\nname = \"logged\"\nscope = \"vhost\"\ncapacity = 10\nttl = \"90s\"\n";
    let site = Site::start(text, Some(TOKEN)).await;
    let open = Site::start(text, None).await;
    site.store("logged", ["/", "x", "k"], IdValue::Bytes(b"a"));
    site.store("logged", ["/", "x", "k"], IdValue::Bytes(b"b"));
    let bearer = format!("Bearer {TOKEN}");
    let change = async |method: &str, path: &str, body: &str| {
        let path = format!("/api/v1/windows/logged{path}");
        assert_eq!(site.ask(method, &path, &[("Authorization", &bearer)], body).await.status, 200);
    };
    change("PATCH", "", r#"{"capacity": 20, "ttl": 3600.5, "mode": "off"}"#).await;
    change("DELETE", "/ids/a", "").await;
    change("POST", "/flush", "").await;
    change("POST", "/forecast", r#"{"capacity": 5}"#).await;
    open.change("PATCH", "/api/v1/windows/logged", r#"{"capacity": 11}"#).await;
    open.change("PATCH", "/api/v1/windows/logged", r#"{"capacity": 0}"#).await;
    let by = || "10.0.0.7:51422 (token)".into();
    let settings = [
        Setting::Capacity(7),
        Setting::Ttl(Duration::from_secs(90)),
        Setting::Mode(Mode::Observe),
        Setting::Flushed,
        Setting::Forgotten,
    ];
    let changes = settings.map(|setting| Change { setting, by: by() });
    hapax::store::log_merged(&**site.window("logged"), &changes);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains(TOKEN), "{text}");
    let logged: Vec<serde_json::Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &serde_json::Value| line["window"] == "logged")
        .collect();
    let brief = |line: &serde_json::Value| {
        let field = |key: &str| match &line[key] {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => format!(" {key}={text}"),
            other => format!(" {key}={other}"),
        };
        let fields: String = ["by", "from", "to", "id", "forgotten", "flushed"].map(field).concat();
        format!("{} {}{fields}", line["level"].as_str().unwrap(), line["message"].as_str().unwrap())
    };
    assert_eq!(
        logged.iter().map(brief).collect::<Vec<_>>(),
        [
            "INFO capacity changed by=token from=10 to=20",
            "INFO ttl changed by=token from=1m 30s to=1h 500ms",
            "INFO mode changed by=token from=enforce to=off",
            "INFO id forgotten by=token id=a forgotten=true",
            "INFO flushed by=token flushed=1",
            "INFO capacity changed by=loopback from=10 to=11",
            "INFO capacity changed at another relay by=10.0.0.7:51422 (token) to=7",
            "INFO ttl changed at another relay by=10.0.0.7:51422 (token) to=1m 30s",
            "INFO mode changed at another relay by=10.0.0.7:51422 (token) to=observe",
            "INFO flushed at another relay by=10.0.0.7:51422 (token)",
            "INFO id forgotten at another relay by=10.0.0.7:51422 (token)",
        ],
        "{text}"
    );
    for line in logged.iter().filter(|line| line["target"] == "hapax::admin") {
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
}
