//! The two kinds of tokens, over every route of the OpenAPI document: a route that comes without a door of its own is found here.

use super::site::{READ_ONLY, Site, TOKEN};
use serde_json::Value;

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Returns every operation of the document: its method, its path with real names in it, and the security scheme that it names.
async fn operations(site: &Site) -> Vec<(String, String, Option<String>)> {
    let document = site.get("/api/v1/openapi.json").await.json();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let scheme =
                operation["security"][0].as_object().and_then(|scheme| scheme.keys().next().cloned());
            // An answer that never ends is asked for its head only.
            let endless = path.ends_with("/events") || path.ends_with("/record");
            let verb = if endless { "HEAD".to_owned() } else { method.to_ascii_uppercase() };
            operations.push((verb, path.replace("{name}", "orders").replace("{id}", "7"), scheme));
        }
    }
    operations
}

#[tokio::test]
async fn every_route_asks_for_the_token_that_its_description_names() {
    let site = Site::guarded().await;
    let bearer = |token: &str| format!("Bearer {token}");
    let (admin, reader, wrong) = (bearer(TOKEN), bearer(READ_ONLY), bearer("a-token-that-only-read"));
    let mut walked = [0; 3];
    let all = operations(&site).await;
    for (method, path, scheme) in &all {
        let ask = async |headers: &[(&str, &str)]| {
            let headers: Vec<_> = headers.iter().copied().chain([JSON]).collect();
            site.ask(method, path, &headers, "{}").await
        };
        let place = format!("{method} {path}");
        let none = ask(&[]).await;
        let bad = ask(&[("Authorization", &wrong)]).await;
        let read = ask(&[("Authorization", &reader)]).await;
        let both = ask(&[("Authorization", &reader), ("Authorization", &admin)]).await;
        let full = ask(&[("Authorization", &admin)]).await;
        let in_ = |status: u16| status != 401 && status != 403;
        match scheme.as_deref() {
            None => {
                walked[0] += 1;
                assert!([&none, &bad, &read, &full].iter().all(|answer| in_(answer.status)), "{place}");
            }
            Some("token") => {
                walked[1] += 1;
                assert_eq!((none.status, bad.status), (401, 401), "{place}");
                assert!(in_(read.status) && in_(full.status), "{place}: {read:?} {full:?}");
                let changes = !["GET", "HEAD"].contains(&&**method);
                assert!(!changes || path.ends_with("/forecast"), "{place} changes something");
            }
            Some("admin") => {
                walked[2] += 1;
                assert_eq!((none.status, bad.status, read.status), (401, 401, 403), "{place}");
                assert!(read.error().contains("may only read") && read.error().contains("admin_token_file"));
                assert_ne!(both.status, 200, "{place}: the first of two tokens counts");
                assert!(in_(full.status), "{place}: {full:?}");
            }
            Some(other) => panic!("{place}: {other}"),
        }
        // The right token does not help a foreign page, nor a foreign name.
        for foreign in [
            ("Host", "evil.example"),
            ("Origin", "http://evil.example"),
            ("Origin", "null"),
            ("Sec-Fetch-Site", "cross-site"),
        ] {
            let answer = ask(&[("Authorization", &admin), foreign]).await;
            assert_eq!(answer.status, 403, "{place} from {foreign:?}");
        }
    }
    assert_eq!(walked[0], 4, "what is open is few: {all:?}");
    assert!(walked[1] >= 12 && walked[2] >= 7, "{walked:?}");
    assert_eq!(site.orders.lock().await.try_recv().map(|by| by.ends_with(" (token)")), Ok(true));
}

#[tokio::test]
async fn a_reader_sees_all_and_changes_nothing() {
    let site = Site::guarded().await;
    site.fill(5);
    let reader = format!("Bearer {READ_ONLY}");
    let headers = [("Authorization", reader.as_str())];
    for (method, path, scheme) in operations(&site).await {
        if scheme.as_deref() == Some("admin") {
            site.ask(&method, &path, &[headers[0], JSON], r#"{"capacity": 2, "level": "off"}"#).await;
        }
    }
    assert_eq!((site.window("orders").entries(), site.window("orders").capacity()), (Some(5), Some(1000)));
    assert!(site.orders.lock().await.try_recv().is_err(), "nobody told it to drain");
    let access = site.ask("GET", "/api/v1/access", &headers, "").await;
    assert_eq!(access.json(), serde_json::json!({"may_change": false, "by": "read-only token"}));
    let admin = format!("Bearer {TOKEN}");
    let access = site.ask("GET", "/api/v1/access", &[("Authorization", &admin)], "").await;
    assert_eq!(access.json(), serde_json::json!({"may_change": true, "by": "token"}));
    let open = Site::open().await.get("/api/v1/access").await.json();
    assert_eq!(open, serde_json::json!({"may_change": true, "by": "loopback"}));
    let journal = site.ask("GET", "/api/v1/journal", &headers, "").await;
    let kinds: Vec<Value> =
        journal.json()["entries"].as_array().unwrap().iter().map(|entry| entry["kind"].clone()).collect();
    assert!(kinds.iter().all(|kind| kind == "start" || kind == "upstream"), "{kinds:?}");
}

/// A foreign page that embeds what is open gets nothing, as it gets nothing of the API.
#[tokio::test]
async fn what_is_open_is_closed_to_foreign_pages() {
    let site = Site::open().await;
    for path in ["/metrics", "/healthz", "/readyz", "/", "/assets/app.js", "/api/v1/openapi.json"] {
        for foreign in [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "same-site")] {
            assert_eq!(site.ask("GET", path, &[foreign], "").await.status, 403, "{path} {foreign:?}");
        }
        // A link that somebody follows is no embedding.
        let link = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")];
        assert_ne!(site.ask("GET", path, &link, "").await.status, 403, "{path}");
    }
}
