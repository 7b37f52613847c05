//! Windows by hand, as the API says them: one that is too small, one that is well, and one that means harm.

use hapax::tools::terminal::answer::{Connections, Status, Window};
use hapax::tools::terminal::top::poll::Polled;
use hapax_core::pressure::facts::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A name that a client may give itself: a terminal would clear its screen, turn red, and turn the line around.
pub const HOSTILE: &str = "evil\x1b[2J\x1b[31m\r\n\u{9b}2J\u{202e}cod\u{200b}e\x07";

/// Too small, in every number.
pub fn critical() -> Facts {
    let edges = [1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];
    let counts = [0, 0, 120, 4_000, 52_000, 310_000, 260_000, 900, 0, 0];
    let les = edges.into_iter().map(Some).chain([None]);
    let buckets = les.zip(counts).map(|(le, count)| AgeBucket { le, count }).collect();
    let points = [0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0];
    let what_if = points.map(|factor: f64| WhatIfPoint {
        factor,
        capacity: (factor * 1e6) as u64,
        caught: 0.31 * (1.0 - (-factor).exp()),
        bytes: (factor * 92e6) as u64,
    });
    Facts {
        publishes: Publishes {
            fresh: 1_912_345,
            duplicate: 214_567,
            in_flight: 321,
            republished: 0,
            no_id: 12,
            bypassed: 3,
        },
        commits: 1_912_001,
        commits_in_doubt: 0,
        promoted: 7,
        takeovers: 2,
        refused: 1,
        conflicts: 2,
        uncompared: 3,
        forgotten: BTreeMap::from([("nack".to_owned(), 41), ("returned".to_owned(), 0)]),
        evictions: BTreeMap::from([("capacity".to_owned(), 627_020), ("expired".to_owned(), 284_981)]),
        escaped_duplicates: 12_431,
        escaped_duplicates_about: 12_431,
        missing_ids: MissingIds { share: Some(0.012), publishes: 31, headers: vec![] },
        ghost: GhostFacts {
            keys: 402_113,
            capacity: 4_000_000,
            dropped: 0,
            bits_per_key: 32,
            false_positive_rate: 7.6e-6,
            watched: 1.0,
            bytes: 0,
        },
        entries: Some(1_000_000),
        in_flight: Some(303),
        capacity: Some(1_000_000),
        ttl_seconds: 600.0,
        bytes: 92_274_688,
        bytes_per_id: 92.3,
        rates: Rates { fresh: 3_051.2, duplicate: 121.4, escaped: 2.4, evicted_early: 2_950.0 },
        hit_ratio: Some(0.1009),
        distinct: Distinct { ids: 183_211, seconds: 60.0, standard_error: 0.0163 },
        age_at_eviction: Ages {
            p1_seconds: Some(44.0),
            p50_seconds: Some(324.0),
            sum_seconds: 1.4e8,
            buckets,
        },
        oldest_seconds: Some(331.5),
        pressure: Some(1.83),
        effective_seconds: 324.0,
        coverage: 0.54,
        recommended_capacity: Some(2_290_000),
        recommended_bytes: Some(211_000_000),
        level: Level::Critical,
        level_history: vec![
            LevelChange { ago_seconds: 7_200.0, level: Level::Ok },
            LevelChange { ago_seconds: 400.0, level: Level::High },
            LevelChange { ago_seconds: 123.0, level: Level::Critical },
        ],
        top_scopes: vec![
            TopScope {
                vhost: "/".to_owned(),
                exchange: "orders.eu".to_owned(),
                routing_key: "created".to_owned(),
                fresh: 150_322,
                error: 12,
            },
            TopScope {
                vhost: "/".to_owned(),
                exchange: String::new(),
                routing_key: HOSTILE.to_owned(),
                fresh: 32_001,
                error: 12,
            },
        ],
        what_if: WhatIf { sample_rate: 0.0078, sampled: 16_611, bytes: 1_300_000, points: what_if.to_vec() },
        ..Facts::default()
    }
}

/// Large enough.
pub fn well() -> Facts {
    Facts {
        publishes: Publishes { fresh: 4_012, duplicate: 17, ..Publishes::default() },
        commits: 4_012,
        entries: Some(3_100),
        in_flight: Some(0),
        capacity: Some(250_000),
        ttl_seconds: 3_600.0,
        bytes: 301_000,
        bytes_per_id: 97.0,
        rates: Rates { fresh: 0.86, ..Rates::default() },
        hit_ratio: Some(0.0042),
        pressure: Some(0.012),
        effective_seconds: 3_600.0,
        coverage: 1.0,
        recommended_capacity: Some(4_000),
        recommended_bytes: Some(390_000),
        ..Facts::default()
    }
}

/// A window as the API says it.
pub fn window(name: &str, facts: &Facts) -> Value {
    let mut window = serde_json::to_value(facts).unwrap();
    let settings = json!({
        "name": name, "vhost": "*", "exchange": format!("{name}.*"), "id": "message-id", "scope": "routing-key",
        "engine": "lru", "mode": "enforce", "in_doubt": "forget", "missing_id": "forward", "confirms": "shadow",
        "refresh_on_duplicate": false, "waiters_per_id": 64, "forward_to": null, "auto": false, "news": "of a later version",
    });
    window.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    window
}

/// The relay, as the API says it.
pub fn status() -> Value {
    json!({
        "version": "0.1.0", "uptime_seconds": 273_900.0, "draining": false,
        "upstream": {"address": "127.0.0.1:5672", "ok": true, "error": null},
        "connections": {"open": 12, "accepted": 4321, "rejected": 0, "max": 10_000},
        "memory": {"resident_bytes": 125_829_120u64, "budget_bytes": null},
        "listen": "127.0.0.1:5673", "token_required": false,
    })
}

/// A run of chaos that is on, as the API says it. One of its clients wants to write into the terminal.
pub fn chaos() -> Value {
    let fault = |fault: &str, share: f64, done: u64, spared: u64| json!({"fault": fault, "share": share, "done": done, "spared": spared});
    let row = |what: &str, window: Option<&str>, user: &str, count: u64| json!({"what": what, "window": window, "vhost": "staging", "user": user, "place": "orders", "count": count});
    json!({
        "enabled": true, "vhosts": ["staging"], "users": ["*"], "running": true,
        "run": {
            "number": 1, "seed": 7, "running": true, "by": "127.0.0.1:40000 (token)", "began_at": "2026-01-01T10:00:00.000Z",
            "ended_at": null, "ended": null, "ended_by": null, "duration_seconds": 300.0, "elapsed_seconds": 60.0,
            "hold_for_seconds": 5.0, "chosen": ["orders"],
            "faults": [
                fault("drop_acks", 0.01, 12, 3), fault("hold_acks", 0.0, 0, 0), fault("cut", 0.001, 1, 0),
                fault("redeliver", 0.01, 40, 0), fault("replay", 0.1, 1234, 0),
            ],
            "rows": [row("drop_acks", Some("orders"), "shop", 12), row("cut", None, HOSTILE, 1)], "rows_left_out": 2,
            "shown_again": 41, "acked_shown_again": 39,
            "windows": [{
                "name": "orders", "mode": "enforce", "fresh": 12_000, "duplicates": 1_250, "escaped": 0, "conflicts": 0,
                "refused": 0, "no_id": 0, "in_doubt": 0, "news": "of a later version",
            }],
            "replays": {
                "picked": 1240, "published": 1234, "refused": 0, "not_stored": 2, "full": 0, "other_vhost": 0,
                "unreadable": 0, "lost": 0, "waiting": 4,
            },
        },
    })
}

/// Duplicates, as the API says them. One is from a stranger who wants to write into the terminal.
pub fn drops() -> Value {
    let one = |number: u64, id: &str, outcome: &str, seen: Option<f64>| {
        json!({
            "number": number, "at": "2026-01-01T00:00:00Z", "age_seconds": 7.0, "outcome": outcome, "conflict": outcome == "refused",
            "window": "orders", "id": id, "vhost": "/", "exchange": "", "routing_key": "eu", "user": "shop",
            "peer": "10.1.2.1:54001", "first_seen_at": null, "first_seen_seconds": seen, "duplicates": seen.map(|_| 3), "left_out": 96 * (number - 1),
        })
    };
    json!({"drops": [one(1, "order-17", "dropped", Some(93.0)), one(2, HOSTILE, "refused", None)], "last": 2})
}

/// Clients, as the API says them.
pub fn connections() -> Value {
    let one = |id: u64, user: Option<&str>, product: &str| {
        json!({
            "id": id, "peer": format!("10.1.2.{id}:54{id:03}"), "user": user, "vhost": user.map(|_| "/"),
            "since": "2026-01-01T00:00:00Z", "age_seconds": 93.0 * id as f64,
            "client": {"product": product, "version": "1.10.0"}, "channels": 2, "unresolved": 17 * id,
            "publishes": 102_000 * id, "duplicates": 250 * id,
            "bytes_in": 73_400_320u64, "bytes_out": 1_204_000, "state": "open",
        })
    };
    json!({"connections": [one(1, Some("shop"), "RabbitMQ"), one(2, Some("audit"), HOSTILE), one(3, None, "")], "total": 3})
}

/// The broker's nodes, as the API says them.
pub fn upstreams() -> Value {
    let node = |address: &str, state: &str, error: Option<&str>, rest: Option<f64>| {
        json!({
            "address": address, "state": state, "error": error, "age_seconds": 7.0, "rest_seconds": rest,
            "connections": 12, "opened": 4300, "failures": 3,
        })
    };
    json!({"upstreams": [node("a:5672", "up", None, None), node("b:5672", "down", Some(HOSTILE), Some(93.0))]})
}

/// An answer to `hapax top`.
pub fn polled(windows: &[Value]) -> Polled {
    let windows: Vec<Window> = windows.iter().map(|w| serde_json::from_value(w.clone()).unwrap()).collect();
    let status: Status = serde_json::from_value(status()).unwrap();
    let connections: Connections = serde_json::from_value(connections()).unwrap();
    Polled { windows, status, connections: Some(connections) }
}

/// Three windows: critical, well, and one with a name that means harm.
pub fn three() -> Vec<Value> {
    let mut high = Facts { level: Level::High, pressure: Some(0.86), capacity: Some(5_000), ..well() };
    high.recommended_capacity = Some(5_400);
    vec![window("orders", &critical()), window("default", &well()), window(HOSTILE, &high)]
}
