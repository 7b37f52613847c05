//! The journal, the history, and both of them and the windows as CSV.

use super::site::{Answer, Site, now};
use serde_json::{Value, json};

fn told(answer: &Answer) -> Vec<String> {
    let entry = |entry: &Value| {
        let word = |key: &str| entry[key].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", word("kind"), word("window"), word("text"))
    };
    let all = answer.json()["entries"].as_array().unwrap().iter().map(entry).collect::<Vec<_>>();
    all.into_iter().filter(|entry| !entry.starts_with("upstream") && !entry.starts_with("start")).collect()
}

#[tokio::test]
async fn the_journal_says_what_was_done_and_by_whom() {
    let site = Site::open().await;
    site.fill(3);
    site.change("PATCH", "/api/v1/windows/orders", r#"{"capacity": 50, "ttl": "2m", "mode": "observe"}"#)
        .await;
    site.change("PATCH", "/api/v1/windows/orders", r#"{"capacity": 50}"#).await;
    site.change("DELETE", "/api/v1/windows/orders/ids/id-1?routing_key=k", "").await;
    site.change("POST", "/api/v1/windows/orders/flush", "").await;
    site.change("POST", "/api/v1/drain", "").await;
    let journal = site.get("/api/v1/journal").await;
    assert_eq!(
        told(&journal),
        [
            "settings orders capacity 1000 → 50, TTL 1m 30s → 2m, mode enforce → observe",
            "forget orders id id-1 forgotten",
            "flush orders flushed: 2 ids forgotten",
            "drain - told to drain",
        ],
        "{journal:?}"
    );
    let journal = journal.json();
    for entry in journal["entries"].as_array().unwrap() {
        if entry["kind"] != "upstream" && entry["kind"] != "start" {
            let by = entry["by"].as_str().unwrap();
            assert!(by.starts_with("127.0.0.1:") && by.ends_with(" (loopback)"), "{entry}");
        }
    }
    let last = journal["last"].as_u64().unwrap();
    assert_eq!(site.get("/api/v1/status").await.json()["journal"], last);
    assert_eq!(told(&site.get("/api/v1/journal?limit=1").await), ["drain - told to drain"]);
    assert_eq!(site.get(&format!("/api/v1/journal?after={last}")).await.json()["entries"], json!([]));
}

/// The journal sees within a second that another relay of a shared store has changed a window.
#[tokio::test]
async fn the_journal_sees_what_others_have_changed() {
    let site = Site::open().await;
    let seen = async |what: &str| {
        let all = async {
            let mut again = tokio::time::interval(std::time::Duration::from_millis(50));
            while !told(&site.get("/api/v1/journal").await).iter().any(|entry| entry.contains(what)) {
                again.tick().await;
            }
        };
        tokio::time::timeout(super::site::DEADLINE, all).await.unwrap_or_else(|_| panic!("{what}"));
    };
    // The first look is over when the history has its first sample.
    let first = async {
        let mut again = tokio::time::interval(std::time::Duration::from_millis(20));
        while site.get("/api/v1/history?window=orders").await.json()["windows"][0]["samples"] == json!([]) {
            again.tick().await;
        }
    };
    tokio::time::timeout(super::site::DEADLINE, first).await.expect("a first sample");
    site.window("orders").set_mode(hapax_core::window::Mode::Off);
    seen("settings orders mode enforce → off (a reload, or another relay)").await;
    site.window("orders").resize(9, now());
    seen("settings orders capacity 1000 → 9 (a reload, or another relay)").await;
}

fn rows(answer: &Answer) -> Vec<Vec<String>> {
    assert!(answer.head.contains("content-type: text/csv; charset=utf-8"), "{answer:?}");
    assert!(answer.head.contains("content-disposition: attachment; filename=\"hapax-"), "{answer:?}");
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(answer.text.as_bytes());
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn windows_connections_and_history_are_csv_too() {
    let text = "[[window]]\nname = \"rf\"\nvhost = \"=1+1\"\nexchange = \"@SUM(A1)\"\nid = \"header:+x\"\ncapacity = 10\n";
    let site = Site::start(text, None).await;
    let windows = rows(&site.get("/api/v1/windows?format=csv").await);
    assert_eq!(windows.len(), 2);
    assert!(windows[0].len() == windows[1].len() && windows[0][..4] == ["name", "vhost", "exchange", "id"]);
    assert_eq!(windows[1][..4], ["rf", "'=1+1", "'@SUM(A1)", "header:+x"], "no cell is a formula");
    let accept = site.ask("GET", "/api/v1/windows", &[("Accept", "text/csv")], "").await;
    assert_eq!(rows(&accept)[0], windows[0]);
    assert!(site.get("/api/v1/windows").await.head.contains("content-type: application/json"));
    let connections = rows(&site.get("/api/v1/connections?format=csv").await);
    assert_eq!((connections.len(), &*connections[0][0]), (1, "id"));
    let wait = async {
        let mut again = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            again.tick().await;
            let history = rows(&site.get("/api/v1/history?format=csv").await);
            if history.len() > 1 {
                break history;
            }
        }
    };
    let history = tokio::time::timeout(super::site::DEADLINE, wait).await.expect("a first sample");
    assert_eq!(history[0][..3], ["window", "at", "fresh"]);
    assert_eq!((&*history[1][0], &*history[1][8], history[1].len()), ("rf", "10", history[0].len()));
    for (path, status) in [
        ("/api/v1/windows?format=xml", 400),
        ("/api/v1/history?window=nope", 404),
        ("/api/v1/history?format=", 400),
        ("/api/v1/connections?format=json", 200),
    ] {
        assert_eq!(site.get(path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn a_request_to_change_the_log_is_checked() {
    let site = Site::open().await;
    for (body, status, text) in [
        ("debug", 400, "write {\"level\": \"debug\"}"),
        ("{}", 400, "missing field `level`"),
        (r#"{"level": "info", "for": 5}"#, 400, "unknown field"),
        (r#"{"level": "chatty"}"#, 422, "`level`"),
        (r#"{"level": "info,hapax::nett=debug"}"#, 422, "hapax::net"),
    ] {
        let answer = site.change("PUT", "/api/v1/log", body).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.error().contains(text), "{body}: {answer:?}");
    }
    let level = site.get("/api/v1/log").await.json();
    assert_eq!(level["configured"], "info");
}
