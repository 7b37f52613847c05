//! `/api/v1/chaos`: who may start a run, what is refused with what to do, and that nobody forgets one that is on.

use super::site::{DEADLINE, READ_ONLY, Site, TOKEN, WINDOWS};
use serde_json::{Value, json};

const ALLOWED: &str = "[chaos]\nenabled = true\nvhosts = [\"staging\"]\nmax_duration = \"10m\"\n";
const PATH: &str = "/api/v1/chaos";

async fn allowed() -> Site {
    Site::start(&format!("{ALLOWED}{WINDOWS}"), None).await
}

/// Waits until this is so.
async fn until(site: &Site, is_so: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            let state = site.get(PATH).await.json();
            if is_so(&state) {
                return state;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("in time")
}

#[tokio::test]
async fn without_the_configuration_nothing_starts() {
    for (text, told) in [
        ("", "write enabled = true under [chaos]"),
        ("[chaos]\nenabled = true\n", "[chaos] names no vhost: write vhosts = [\"staging\"]"),
        ("[chaos]\nvhosts = [\"*\"]\n", "write enabled = true under [chaos]"),
    ] {
        let site = Site::start(&format!("{text}{WINDOWS}"), None).await;
        let refused = site.change("POST", PATH, r#"{"cut": 0.1}"#).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        assert!(refused.error().contains(told), "{refused:?}");
        let state = site.get(PATH).await.json();
        assert_eq!((&state["running"], &state["run"]), (&json!(false), &Value::Null));
        assert_eq!(site.change("DELETE", PATH, "").await.status, 409, "there is nothing to stop");
    }
}

#[tokio::test]
async fn a_reader_may_look_and_not_start() {
    let site = Site::start(&format!("{ALLOWED}{WINDOWS}"), Some(TOKEN)).await;
    let json = ("Content-Type", "application/json");
    let (reader, admin) = (format!("Bearer {READ_ONLY}"), format!("Bearer {TOKEN}"));
    for method in ["POST", "DELETE"] {
        let refused = site.ask(method, PATH, &[json, ("Authorization", &reader)], r#"{"cut": 0.1}"#).await;
        assert_eq!(refused.status, 403, "{refused:?}");
    }
    assert_eq!(site.ask("GET", PATH, &[("Authorization", &reader)], "").await.status, 200);
    let begun = site.ask("POST", PATH, &[json, ("Authorization", &admin)], r#"{"cut": 0.1}"#).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    assert!(begun.json()["by"].as_str().unwrap().ends_with(" (token)"));
}

#[tokio::test]
async fn a_run_is_seen_everywhere_until_it_is_over() {
    let site = allowed().await;
    let body =
        json!({"seed": 7, "duration": "5m", "drop_acks": 0.01, "hold_for": "2s", "windows": ["orders"]});
    let begun = site.change("POST", PATH, &body.to_string()).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    let run = begun.json();
    assert_eq!(
        (&run["seed"], &run["running"], &run["duration_seconds"]),
        (&json!(7), &json!(true), &json!(300.0))
    );
    assert_eq!((&run["chosen"], &run["hold_for_seconds"]), (&json!(["orders"]), &json!(2.0)));
    assert_eq!(run["faults"][0], json!({"fault": "drop_acks", "share": 0.01, "done": 0, "spared": 0}));
    assert_eq!(run["windows"].as_array().unwrap().len(), 1, "the windows that were not chosen say nothing");
    let second = site.change("POST", PATH, r#"{"cut": 1}"#).await;
    assert_eq!(second.status, 409, "{second:?}");
    assert!(second.error().contains("seed 7") && second.error().contains("hapax chaos stop"), "{second:?}");
    let status = site.get("/api/v1/status").await.json();
    assert_eq!(status["chaos"]["seed"], 7);
    assert!(status["chaos"]["left_seconds"].as_f64().unwrap() > 200.0, "{status}");
    let metrics = site.get("/metrics").await.text;
    assert!(metrics.contains("\nhapax_chaos_running 1\n"), "{metrics}");
    assert!(metrics.contains("\nhapax_chaos_faults_total{fault=\"drop_acks\"} 0\n"), "{metrics}");
    let stopped = site.change("DELETE", PATH, "").await;
    assert_eq!(stopped.status, 200, "{stopped:?}");
    let run = stopped.json();
    assert_eq!((&run["running"], &run["ended"]), (&json!(false), &json!("stopped")));
    assert!(run["ended_by"].as_str().unwrap().ends_with("(loopback)"), "{run}");
    assert_eq!(site.get("/api/v1/status").await.json()["chaos"], Value::Null);
    assert!(site.get("/metrics").await.text.contains("\nhapax_chaos_running 0\n"));
    assert_eq!(site.get(PATH).await.json()["run"]["seed"], 7, "the report stays");
    let told = async {
        loop {
            let journal = site.get("/api/v1/journal").await.json();
            let entries = journal["entries"].as_array().unwrap().clone();
            if entries.iter().filter(|entry| entry["kind"] == "chaos").count() == 2 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, told).await.expect("the journal has its begin and its end");
}

#[tokio::test]
async fn a_run_ends_by_itself_and_without_a_seed_it_draws_one() {
    let site = allowed().await;
    let mut drawn = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let begun = site.change("POST", PATH, r#"{"redeliver": 1, "duration": "5ms"}"#).await;
        assert_eq!(begun.status, 200, "{begun:?}");
        drawn.insert(begun.json()["seed"].as_u64());
        let state = until(&site, |state| state["running"] == false).await;
        assert_eq!(state["run"]["ended"], "time");
    }
    assert!(drawn.len() > 1, "{drawn:?}");
    assert_eq!(site.get(PATH).await.json()["run"]["number"], 3);
}

#[tokio::test]
async fn what_is_wrong_is_said_at_once() {
    let site = allowed().await;
    for (body, told) in [
        (r#"{}"#, "nothing is to be done"),
        (r#"{"cut": 0}"#, "nothing is to be done"),
        (r#"{"cut": 1.5}"#, "`cut` is 1.5, but must be from 0 to 1"),
        (r#"{"drop_acks": -0.1}"#, "`drop_acks` is -0.1"),
        (r#"{"cut": 0.1, "duration": "1h"}"#, "chaos.max_duration is 10m"),
        (r#"{"cut": 0.1, "duration": "0s"}"#, "`duration` is 0s, but must be at least 1ms"),
        (r#"{"cut": 0.1, "duration": "365d"}"#, "but chaos.max_duration is 10m"),
        (r#"{"cut": 0.1, "duration": "soon"}"#, "is no duration"),
        (r#"{"hold_acks": 0.1, "hold_for": "5m"}"#, "chaos.max_hold is 30s"),
        (r#"{"replay": 0.1}"#, "write [chaos.replay]"),
        (r#"{"cut": 0.1, "windows": ["order"]}"#, "named \"order\"; there are: orders, numbers"),
    ] {
        let answer = site.change("POST", PATH, body).await;
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
        assert!(answer.error().contains(told), "{body}: {answer:?}");
    }
    for body in ["", "[]", r#"{"cut": NaN}"#, r#"{"cut": 1e999}"#, r#"{"cuts": 0.1}"#, r#"{"cut": "often"}"#]
    {
        assert_eq!(site.change("POST", PATH, body).await.status, 400, "{body}");
    }
    assert_eq!(site.get(PATH).await.json()["run"], Value::Null, "nothing has begun");
}

/// A reload that takes the permission away ends the run.
#[tokio::test]
async fn a_reload_ends_what_it_forbids() {
    let file = std::env::temp_dir().join(format!("hapax-chaos-{}.toml", std::process::id()));
    let write = |text: &str| std::fs::write(&file, format!("{text}{WINDOWS}")).unwrap();
    write(ALLOWED);
    let site = Site::with_file(&file).await;
    let begun = site.change("POST", PATH, r#"{"cut": 0.1, "duration": "5m"}"#).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    write("[chaos]\nenabled = true\nvhosts = [\"staging\", \"other\"]\n");
    assert_eq!(site.change("POST", "/api/v1/reload", "").await.status, 200);
    assert_eq!(site.get(PATH).await.json()["running"], true, "it is still allowed");
    write("");
    let reload = site.change("POST", "/api/v1/reload", "").await;
    assert_eq!(reload.status, 200, "{reload:?}");
    let state = site.get(PATH).await.json();
    assert_eq!((&state["enabled"], &state["run"]["ended"]), (&json!(false), &json!("reload")));
}
