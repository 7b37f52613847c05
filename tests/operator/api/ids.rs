//! One id: looked up, forgotten.

use super::site::Site;
use hapax_core::window::Verdict;
use hapax_core::wire::properties::IdValue;
use serde_json::{Value, json};

const ORDERS: [&str; 3] = ["/", "orders", "new"];

#[tokio::test]
async fn seen_in_flight_unknown() {
    let site = Site::open().await;
    let path = "/api/v1/windows/orders/ids/order-1?exchange=orders&routing_key=new";
    let unknown = site.get(path).await;
    let nothing = json!({"id": "order-1", "state": "unknown", "seen_at": null, "age_seconds": null, "duplicates": 0,
        "expires_at": null, "expires_in_seconds": null, "store_may_know_more": false});
    assert_eq!((unknown.status, unknown.json()), (200, nothing));
    let id = IdValue::Bytes(b"order-1");
    let Verdict::Fresh(reservation) = site.reserve("orders", ORDERS, id) else { panic!("not fresh") };
    assert_eq!(site.get(path).await.json()["state"], "in_flight");
    drop(reservation);
    assert_eq!(site.get(path).await.json()["state"], "unknown");
    site.store("orders", ORDERS, id);
    assert!(matches!(site.reserve("orders", ORDERS, id), Verdict::Duplicate(_)));
    let seen = site.get(path).await.json();
    assert_eq!((&seen["state"], &seen["duplicates"]), (&json!("seen"), &json!(1)));
    let (age, left) = (seen["age_seconds"].as_f64().unwrap(), seen["expires_in_seconds"].as_f64().unwrap());
    // The engine counts in milliseconds, and never forgets early.
    assert!((0.0..20.0).contains(&age) && (70.0..=90.002).contains(&left), "{seen}");
    assert!((age + left - 90.0).abs() < 0.01, "{seen}");
    for key in ["seen_at", "expires_at"] {
        let text = seen[key].as_str().unwrap();
        assert!(humantime::parse_rfc3339(text).is_ok() && text.ends_with('Z'), "{text}");
    }
    assert!(seen["seen_at"].as_str() < seen["expires_at"].as_str(), "{seen}");
}

#[tokio::test]
async fn forgotten_is_fresh_again() {
    let site = Site::open().await;
    let path = "/api/v1/windows/orders/ids/order-1?routing_key=new";
    site.store("orders", ORDERS, IdValue::Bytes(b"order-1"));
    assert_eq!(
        site.change("DELETE", path, "").await.json(),
        json!({"forgotten": true, "store_may_know_more": false})
    );
    assert_eq!(
        site.change("DELETE", path, "").await.json(),
        json!({"forgotten": false, "store_may_know_more": false})
    );
    assert_eq!(site.get(path).await.json()["state"], "unknown");
    assert!(matches!(site.reserve("orders", ORDERS, IdValue::Bytes(b"order-1")), Verdict::Fresh(_)));
}

#[tokio::test]
async fn what_the_scope_needs_and_the_pattern_does_not_say_must_be_named() {
    let site = Site::open().await;
    for (path, missing) in [
        ("/api/v1/windows/orders/ids/a", "?routing_key=KEY"),
        ("/api/v1/windows/events/ids/a?exchange=events.x&routing_key=", "?vhost=NAME"),
        ("/api/v1/windows/events/ids/a?vhost=test-1&routing_key=", "?exchange=NAME"),
        ("/api/v1/windows/events/ids/a?vhost=/&exchange=events.x&routing_key=", "fit \"test-*\""),
        ("/api/v1/windows/orders/ids/a?exchange=other&routing_key=", "fit \"orders\""),
        ("/api/v1/windows/orders/ids/a?routingkey=k", "?routingkey= is not known"),
    ] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.error().contains(missing), "{path}: {answer:?}");
    }
    for path in [
        "/api/v1/windows/numbers/ids/a",
        "/api/v1/windows/rest/ids/a",
        "/api/v1/windows/rest/ids/a?vhost=any&exchange=any",
        "/api/v1/windows/events/ids/a?vhost=test-1&exchange=events.x&routing_key=",
    ] {
        let answer = site.get(path).await;
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("unknown")), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn ids_are_bytes() {
    let site = Site::open().await;
    site.store("orders", ["/", "orders", "a b+c/ü"], IdValue::Bytes(b"\xff/x?\0"));
    let path = "/api/v1/windows/orders/ids/%FF%2Fx%3F%00?routing_key=a+b%2Bc/%C3%BC";
    let seen = site.get(path).await.json();
    assert_eq!((&seen["state"], &seen["id"]), (&json!("seen"), &json!("\u{fffd}/x?\0")));
    assert_eq!(
        site.change("DELETE", path, "").await.json(),
        json!({"forgotten": true, "store_may_know_more": false})
    );
}

#[tokio::test]
async fn each_scope_has_its_keys() {
    let site = Site::open().await;
    site.store("events", ["test-1", "events.a", "k"], IdValue::Bytes(b"e"));
    site.store("rest", ["/", "whatever", "k"], IdValue::Bytes(b"r"));
    let state = async |path: &str| site.get(path).await.json()["state"].clone();
    let events = "/api/v1/windows/events/ids/e?vhost=test-1&exchange=events.a&routing_key=k";
    assert_eq!(state(events).await, "seen");
    assert_eq!(state(&events.replace("events.a", "events.b")).await, "unknown");
    assert_eq!(state(&events.replace("test-1", "test-2")).await, "unknown");
    assert_eq!(state(&events.replace("=k", "=l")).await, "unknown");
    assert_eq!(state("/api/v1/windows/rest/ids/r").await, "seen", "the vhost is / unless named");
    assert_eq!(state("/api/v1/windows/rest/ids/r?vhost=other").await, "unknown");
}

/// A header may hold a number, or its digits as a text. These are two ids, but a caller can write only one text.
#[tokio::test]
async fn an_id_from_a_header_may_be_a_number() {
    let site = Site::open().await;
    let at = ["shop", "numbers", ""];
    site.store("numbers", at, IdValue::Integer(-17));
    let path = "/api/v1/windows/numbers/ids/-17";
    assert_eq!(site.get(path).await.json()["state"], "seen");
    site.store("numbers", at, IdValue::Bytes(b"-17"));
    assert_eq!(
        site.change("DELETE", path, "").await.json(),
        json!({"forgotten": true, "store_may_know_more": false})
    );
    assert_eq!(site.get(path).await.json()["state"], "unknown", "both are forgotten");
    assert_eq!(site.get(path).await.json()["seen_at"], Value::Null);
}
