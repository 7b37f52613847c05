//! Windows: shown, changed, flushed.

use super::site::Site;
use serde_json::{Value, json};

#[tokio::test]
async fn settings_and_facts_are_flat_in_the_order_of_the_configuration() {
    let site = Site::open().await;
    site.fill(3);
    let list = site.get("/api/v1/windows").await.json();
    let names: Vec<&Value> = list["windows"].as_array().unwrap().iter().map(|w| &w["name"]).collect();
    assert_eq!(names, ["orders", "numbers", "events", "rest"]);
    let orders = site.get("/api/v1/windows/orders").await.json();
    assert_eq!(orders, list["windows"][0]);
    for (key, value) in [
        ("vhost", json!("/")),
        ("exchange", json!("orders")),
        ("id", json!("message-id")),
        ("scope", json!("routing-key")),
        ("engine", json!("compact")),
        ("mode", json!("enforce")),
        ("in_doubt", json!("forget")),
        ("missing_id", json!("forward")),
        ("on_conflict", json!("drop")),
        ("on_duplicate", json!("ack")),
        ("duplicates_to", Value::Null),
        ("audit", json!(false)),
        ("republish", json!("connection")),
        ("confirms", json!("shadow")),
        ("verify_routing", json!(true)),
        ("refresh_on_duplicate", json!(false)),
        ("waiters_per_id", json!(64)),
        ("forward_to", Value::Null),
        ("auto", json!(false)),
        ("entries", json!(3)),
        ("capacity", json!(1000)),
        ("ttl_seconds", json!(90.0)),
        ("commits", json!(3)),
    ] {
        assert_eq!(orders[key], value, "{key}");
    }
    assert_eq!(orders["publishes"]["fresh"], 3);
    let events = &list["windows"][2];
    assert_eq!((&events["mode"], &events["forward_to"]), (&json!("observe"), &json!("events.backing")));
    assert_eq!(list["windows"][1]["id"], "header:x-id");
    assert_eq!((&list["windows"][3]["engine"], &list["windows"][3]["vhost"]), (&json!("moka"), &json!("*")));
}

#[tokio::test]
async fn shrinking_evicts_at_once_and_growing_keeps_what_is_there() {
    let site = Site::open().await;
    site.fill(1000);
    let small = site.change("PATCH", "/api/v1/windows/orders", r#"{"capacity": 100}"#).await;
    assert_eq!(small.status, 200, "{small:?}");
    let small = small.json();
    assert_eq!((&small["capacity"], &small["entries"]), (&json!(100), &json!(100)));
    assert_eq!(small["evictions"]["resize"], 900);
    let large = site.change("PATCH", "/api/v1/windows/orders", r#"{"capacity": 5000}"#).await.json();
    assert_eq!((&large["capacity"], &large["entries"]), (&json!(5000), &json!(100)));
    // The least recently seen have gone.
    for (id, state) in [("id-899", "unknown"), ("id-900", "seen"), ("id-999", "seen")] {
        let path = format!("/api/v1/windows/orders/ids/{id}?routing_key=k");
        assert_eq!(site.get(&path).await.json()["state"], state, "{id}");
    }
}

#[tokio::test]
async fn shrinking_gives_memory_back() {
    let site = Site::open().await;
    site.change("PATCH", "/api/v1/windows/orders", r#"{"capacity": 100000}"#).await;
    site.fill(50_000);
    let before = site.get("/api/v1/windows/orders").await.json();
    let after = site.change("PATCH", "/api/v1/windows/orders", r#"{"capacity": 100}"#).await.json();
    assert_eq!((&before["entries"], &after["entries"]), (&json!(50_000), &json!(100)));
    let bytes = |window: &Value| window["bytes"].as_u64().unwrap();
    // The ghosts of evicted ids stay for a TTL, to count the duplicates that escape.
    assert!(bytes(&after) < bytes(&before) / 4 * 3, "{} of {}", bytes(&after), bytes(&before));
}

#[tokio::test]
async fn ttl_and_mode_change_together_or_not_at_all() {
    let site = Site::open().await;
    let changed =
        site.change("PATCH", "/api/v1/windows/orders", r#"{"ttl": "2m", "mode": "observe"}"#).await.json();
    assert_eq!((&changed["ttl_seconds"], &changed["mode"]), (&json!(120.0), &json!("observe")));
    assert_eq!(changed["capacity"], 1000, "what is absent stays");
    let wrong = r#"{"capacity": 5, "ttl": 0.5, "mode": "on", "scope": "vhost"}"#;
    let refused = site.change("PATCH", "/api/v1/windows/orders", wrong).await;
    assert_eq!(refused.status, 422);
    let errors = refused.json()["errors"].as_array().unwrap().len();
    assert_eq!(errors, 2, "{refused:?}");
    let after = site.get("/api/v1/windows/orders").await.json();
    assert_eq!(
        (&after["capacity"], &after["ttl_seconds"], &after["mode"]),
        (&json!(1000), &json!(120.0), &json!("observe"))
    );
}

#[tokio::test]
async fn flush_says_how_many() {
    let site = Site::open().await;
    site.fill(7);
    let flushed = site.change("POST", "/api/v1/windows/orders/flush", "").await;
    assert_eq!((flushed.status, flushed.json()), (200, json!({"flushed": 7})));
    assert_eq!(site.get("/api/v1/windows/orders").await.json()["entries"], 0);
    assert_eq!(site.change("POST", "/api/v1/windows/orders/flush", "").await.json(), json!({"flushed": 0}));
}

#[tokio::test]
async fn a_forecast_changes_nothing() {
    let site = Site::open().await;
    let forecast = site.change("POST", "/api/v1/windows/orders/forecast", r#"{"capacity": 2000}"#).await;
    assert_eq!(forecast.status, 200, "{forecast:?}");
    let forecast = forecast.json();
    assert_eq!((&forecast["capacity"], &forecast["coverage"]), (&json!(2000), &json!(1.0)));
    assert!(forecast["pressure"].is_number() && forecast["bytes"].is_number());
    assert_eq!(site.get("/api/v1/windows/orders").await.json()["capacity"], 1000);
    let wrong = site.change("POST", "/api/v1/windows/orders/forecast", r#"{"capacity": "auto"}"#).await;
    assert_eq!(wrong.status, 422);
    assert!(wrong.error().contains("no memory_budget is configured"), "{wrong:?}");
}

#[tokio::test]
async fn a_window_may_size_itself_within_a_budget() {
    let text = "memory_budget = \"64MiB\"\n[[window]]\nname = \"orders\"\ncapacity = 1000\nengine = \"lru\"\n\
                [[window]]\nname = \"other\"\nengine = \"moka\"\n";
    let site = Site::start(text, None).await;
    assert_eq!(site.get("/api/v1/status").await.json()["memory"]["budget_bytes"], 64 << 20);
    let auto = r#"{"capacity": "auto", "ttl": "5m"}"#;
    let forecast = site.change("POST", "/api/v1/windows/orders/forecast", auto).await;
    assert_eq!(forecast.status, 200, "{forecast:?}");
    assert_eq!(site.get("/api/v1/windows/orders").await.json()["auto"], false);
    let changed = site.change("PATCH", "/api/v1/windows/orders", auto).await.json();
    assert_eq!((&changed["auto"], &changed["ttl_seconds"]), (&json!(true), &json!(300.0)), "{changed}");
    let fixed = site.change("PATCH", "/api/v1/windows/orders", r#"{"capacity": 7}"#).await.json();
    assert_eq!((&fixed["auto"], &fixed["capacity"]), (&json!(false), &json!(7)), "{fixed}");
    let refused = site.change("PATCH", "/api/v1/windows/other", auto).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    let other = site.get("/api/v1/windows/other").await.json();
    assert_eq!((&other["auto"], &other["ttl_seconds"]), (&json!(false), &json!(600.0)), "all or nothing");
}

#[tokio::test]
async fn an_unknown_window_is_404_and_told_the_names() {
    let site = Site::open().await;
    for (method, path) in [
        ("GET", "/api/v1/windows/nope"),
        ("PATCH", "/api/v1/windows/nope"),
        ("POST", "/api/v1/windows/nope/flush"),
        ("POST", "/api/v1/windows/nope/forecast"),
        ("GET", "/api/v1/windows/nope/ids/a"),
        ("DELETE", "/api/v1/windows/nope/ids/a"),
    ] {
        let answer = site.change(method, path, "{}").await;
        assert_eq!(answer.status, 404, "{method} {path}");
        assert!(answer.error().contains("\"nope\"; the windows are: orders, numbers"), "{answer:?}");
    }
}

#[tokio::test]
async fn status_and_connections() {
    let site = Site::open().await;
    let status = site.get("/api/v1/status").await.json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["draining"], &status["token_required"]), (&json!(false), &json!(false)));
    assert_eq!(status["connections"], json!({"open": 0, "accepted": 0, "rejected": 0, "max": 10_000}));
    assert_eq!(status["upstream"]["ok"], false);
    assert!(status["upstream"]["error"].as_str().unwrap().contains("refused"), "{status}");
    assert!(status["memory"]["resident_bytes"].as_u64().unwrap() > 1 << 20, "{status}");
    assert_eq!(status["memory"]["budget_bytes"], Value::Null);
    assert_eq!(status["listen"], "127.0.0.1:5673");
    assert_eq!(site.get("/api/v1/connections").await.json(), json!({"connections": [], "total": 0}));
    for query in ["limit=1001", "limit=x", "offset=-1", "page=2"] {
        let answer = site.get(&format!("/api/v1/connections?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(!answer.error().is_empty());
    }
}
