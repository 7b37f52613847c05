//! Whom it lets in: every route with, without and with a wrong token; other pages' requests; and what is decent of HTTP.

use super::site::{Answer, Site, TOKEN, WINDOWS};

/// Every route behind the door, with what makes it succeed.
const GUARDED: [(&str, &str, &str); 17] = [
    ("GET", "/api/v1/windows", ""),
    ("GET", "/api/v1/windows/orders", ""),
    ("PATCH", "/api/v1/windows/orders", "{\"capacity\": 9}"),
    ("POST", "/api/v1/windows/orders/flush", ""),
    ("POST", "/api/v1/windows/orders/forecast", "{}"),
    ("GET", "/api/v1/windows/orders/ids/a?routing_key=", ""),
    ("DELETE", "/api/v1/windows/orders/ids/a?routing_key=", ""),
    ("GET", "/api/v1/connections", ""),
    ("GET", "/api/v1/drops", ""),
    ("GET", "/api/v1/status", ""),
    ("GET", "/api/v1/upstreams", ""),
    ("GET", "/api/v1/config", ""),
    ("GET", "/api/v1/access", ""),
    ("GET", "/api/v1/history", ""),
    ("GET", "/api/v1/journal", ""),
    ("GET", "/api/v1/log", ""),
    ("POST", "/api/v1/drain", ""),
];

const OPEN: [&str; 4] = ["/metrics", "/healthz", "/readyz", "/api/v1/openapi.json"];
const JSON: (&str, &str) = ("Content-Type", "application/json");

async fn events(site: &Site, headers: &[(&str, &str)]) -> u16 {
    // HEAD ends where GET would go on.
    site.ask("HEAD", "/api/v1/events", headers, "").await.status
}

#[tokio::test]
async fn with_a_token_nothing_goes_without_it() {
    let site = Site::guarded().await;
    let bearer = |token: &str| format!("Bearer {token}");
    let (right, wrong) = (bearer(TOKEN), bearer("a-token-that-somebody-guesse"));
    let (longer, shorter) = (bearer(&format!("{TOKEN}x")), bearer(&TOKEN[1..]));
    let basic = format!("Basic {TOKEN}");
    let refused: [&[(&str, &str)]; 8] = [
        &[],
        &[("Authorization", &wrong)],
        &[("Authorization", &longer)],
        &[("Authorization", &shorter)],
        &[("Authorization", "Bearer ")],
        &[("Authorization", &basic)],
        &[("Authorization", TOKEN)],
        &[("X-Token", TOKEN), ("Cookie", TOKEN)],
    ];
    for (method, path, body) in GUARDED {
        for headers in refused {
            let headers: Vec<_> = headers.iter().copied().chain([JSON]).collect();
            let answer = site.ask(method, path, &headers, body).await;
            assert_eq!(answer.status, 401, "{method} {path} with {headers:?}");
            assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
            assert!(answer.error().contains("Authorization: Bearer"), "{answer:?}");
        }
        let answer = site.ask(method, path, &[("Authorization", &right)], body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        let query = format!("{path}{}access_token={TOKEN}", if path.contains('?') { '&' } else { '?' });
        assert_eq!(site.ask(method, &query, &[JSON], body).await.status, 401, "not in an address");
    }
    assert_eq!(events(&site, &[]).await, 401);
    assert_eq!(events(&site, &[("Authorization", &right)]).await, 200);
    for path in OPEN {
        let answer = site.get(path).await;
        assert!(answer.status == 200 || path == "/readyz", "{path}: {answer:?}");
        assert!(!answer.text.contains(TOKEN), "{path} tells the token");
    }
    let status = site.ask("GET", "/api/v1/status", &[("Authorization", &right)], "").await;
    assert_eq!(status.json()["token_required"], true);
    assert!(!status.text.contains(TOKEN));
}

#[tokio::test]
async fn nothing_was_changed_by_who_was_refused() {
    let site = Site::guarded().await;
    site.fill(5);
    for (method, path, body) in GUARDED {
        site.ask(method, path, &[JSON], body).await;
    }
    assert_eq!((site.window("orders").entries(), site.window("orders").capacity()), (Some(5), Some(1000)));
}

#[tokio::test]
async fn without_a_token_everything_goes_on_loopback() {
    let site = Site::open().await;
    for (method, path, body) in GUARDED {
        let answer = site.ask(method, path, &[JSON], body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
    }
    assert_eq!(events(&site, &[]).await, 200);
}

#[tokio::test]
async fn a_name_that_was_made_to_point_here_is_refused() {
    let site = Site::open().await;
    for (method, path, body) in GUARDED {
        for host in ["evil.example", "evil.example:15673", "127.0.0.1.evil.example", "10.0.0.1:15673"] {
            let answer = site.ask(method, path, &[JSON, ("Host", host)], body).await;
            assert_eq!(answer.status, 403, "{method} {path} at {host}");
            assert!(answer.error().contains(host), "{answer:?}");
        }
        for host in ["localhost", "127.0.0.1:1", "[::1]:15673"] {
            assert_eq!(site.ask(method, path, &[JSON, ("Host", host)], body).await.status, 200, "{host}");
        }
    }
    assert_eq!(events(&site, &[("Host", "evil.example")]).await, 403);
}

/// A reload is a change as the others are. (This site has no configuration to read again, so 503 is who gets in.)
#[tokio::test]
async fn a_reload_needs_what_every_change_needs() {
    let (guarded, open) = (Site::guarded().await, Site::open().await);
    let right = format!("Bearer {TOKEN}");
    for path in ["/api/v1/reload", "/api/v1/reload?dry_run=true"] {
        assert_eq!(guarded.ask("POST", path, &[JSON], "").await.status, 401);
        assert_eq!(guarded.ask("POST", path, &[("Authorization", &right)], "").await.status, 503);
        assert_eq!(open.ask("POST", path, &[], "").await.status, 415, "a form of a foreign page");
        for header in [("Origin", "http://evil.example"), ("Host", "evil.example")] {
            assert_eq!(open.ask("POST", path, &[JSON, header], "").await.status, 403, "{header:?}");
        }
        assert_eq!(open.ask("POST", path, &[JSON], "").await.status, 503);
    }
}

/// Whatever is asked for, health and metrics included: a page that made its own name point here reads nothing.
#[tokio::test]
async fn no_path_is_answered_under_a_foreign_name() {
    for site in [Site::open().await, Site::guarded().await] {
        for path in OPEN.into_iter().chain(["/", "/assets/app.js", "/nothing"]) {
            for host in ["evil.example", "evil.example:15673", "localhost.evil.example", "10.0.0.1"] {
                let answer = site.ask("GET", path, &[("Host", host)], "").await;
                assert_eq!(answer.status, 403, "{path} at {host}: {answer:?}");
                assert!(answer.error().contains(host) && !answer.text.contains("hapax_"), "{answer:?}");
            }
            for host in ["localhost", "127.0.0.1:1", "[::1]:15673"] {
                let status = site.ask("GET", path, &[("Host", host)], "").await.status;
                assert!([200, 404, 503].contains(&status), "{path} at {host}: {status}");
            }
        }
    }
}

/// A listener on another address than loopback can't know its names: a kubelet uses an address, Prometheus a name.
#[tokio::test]
async fn beyond_loopback_probes_come_under_any_name() {
    let text = format!("admin = \"0.0.0.0:15673\"\n{WINDOWS}");
    let site = Site::start(&text, Some(TOKEN)).await;
    for host in ["10.1.2.3:15673", "[fd00::1]:15673", "hapax.monitoring.svc:15673", "localhost"] {
        for path in ["/healthz", "/metrics"] {
            assert_eq!(site.ask("GET", path, &[("Host", host)], "").await.status, 200, "{path} at {host}");
        }
        assert_eq!(site.ask("GET", "/readyz", &[("Host", host)], "").await.status, 503, "no broker");
        assert_eq!(site.ask("GET", "/api/v1/status", &[("Host", host)], "").await.status, 401);
    }
}

#[tokio::test]
async fn other_pages_are_refused_with_the_token_too() {
    let bearer = format!("Bearer {TOKEN}");
    for site in [Site::open().await, Site::guarded().await] {
        let authorized = ("Authorization", bearer.as_str());
        let own = format!("http://{}", site.address);
        for (method, path, body) in GUARDED {
            for foreign in [
                ("Origin", "http://evil.example"),
                ("Origin", "null"),
                ("Origin", "http://localhost:1"),
                ("Origin", ""),
                ("Sec-Fetch-Site", "cross-site"),
                ("Sec-Fetch-Site", "same-site"),
            ] {
                let answer = site.ask(method, path, &[JSON, authorized, foreign], body).await;
                assert_eq!(answer.status, 403, "{method} {path} from {foreign:?}: {answer:?}");
            }
            let headers = [JSON, authorized, ("Origin", &own), ("Sec-Fetch-Site", "same-origin")];
            assert_eq!(site.ask(method, path, &headers, body).await.status, 200, "{method} {path}");
        }
    }
}

/// Requests that a page of another origin can send without a preflight.
#[tokio::test]
async fn a_change_says_that_it_is_json() {
    let site = Site::open().await;
    for (method, path, body) in GUARDED.iter().filter(|(method, ..)| *method != "GET") {
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"]
        {
            let answer = site.ask(method, path, &[("Content-Type", kind)], body).await;
            assert_eq!(answer.status, 415, "{method} {path} as {kind}");
        }
        assert_eq!(site.ask(method, path, &[], body).await.status, 415, "{method} {path}");
        let utf8 = ("Content-Type", "Application/JSON; charset=utf-8");
        assert_eq!(site.ask(method, path, &[utf8], body).await.status, 200, "{method} {path}");
        assert_eq!(site.ask(method, path, &[("Authorization", "Bearer any")], body).await.status, 200);
    }
}

#[tokio::test]
async fn no_page_is_ever_told_that_it_may() {
    let site = Site::open().await;
    for (_, path, _) in GUARDED {
        let headers = [("Origin", "http://evil.example"), ("Access-Control-Request-Method", "PATCH")];
        let answer = site.ask("OPTIONS", path, &headers, "").await;
        assert!(answer.status == 403 || answer.status == 405, "{answer:?}");
        assert!(!answer.head.contains("access-control-allow"), "{answer:?}");
    }
}

fn is_json(answer: &Answer) -> bool {
    answer.head.contains("content-type: application/json")
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_allowed() {
    let site = Site::open().await;
    for path in [
        "/nothing",
        "/api",
        "/api/v2/windows",
        "/api/v1/windows/orders/ids/a/b",
        "/api/v1/windows/orders/ids/",
    ] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(is_json(&answer) && answer.error().contains(path), "{answer:?}");
    }
    let slash = site.get("/api/v1/windows/").await;
    assert_eq!(slash.status, 404);
    assert!(slash.error().contains("without the slash at its end, /api/v1/windows"), "{slash:?}");
    for (method, path, allow) in [
        ("POST", "/api/v1/windows", "get,head"),
        ("DELETE", "/api/v1/windows/orders", "get,head,patch"),
        ("GET", "/api/v1/windows/orders/flush", "post"),
        ("PUT", "/api/v1/windows/orders/ids/a", "get,head,delete"),
        ("OPTIONS", "/api/v1/status", "get,head"),
        ("POST", "/metrics", "get,head"),
    ] {
        let answer = site.change(method, path, "").await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(is_json(&answer) && answer.error().contains(path), "{answer:?}");
        let line = answer.head.lines().find_map(|line| line.strip_prefix("allow: ")).unwrap_or_default();
        let mut have: Vec<&str> = line.split(',').collect();
        let mut want: Vec<&str> = allow.split(',').collect();
        have.sort_unstable();
        want.sort_unstable();
        assert_eq!(have, want, "{method} {path}");
    }
    let head = site.ask("HEAD", "/api/v1/windows", &[], "").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
}

#[tokio::test]
async fn a_body_has_a_bound_and_must_be_json() {
    let site = Site::open().await;
    let long = format!("{{\"capacity\": {}1}}", " ".repeat(64 << 10));
    for path in ["/api/v1/windows/orders", "/api/v1/windows/orders/forecast"] {
        let method = if path.ends_with("orders") { "PATCH" } else { "POST" };
        let answer = site.change(method, path, &long).await;
        assert_eq!(answer.status, 413, "{answer:?}");
        assert!(answer.error().contains("65536 bytes"), "{answer:?}");
        let answer = site.change(method, path, "{capacity: 5}").await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.error().contains("not JSON"), "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_behind_the_door_is_kept_by_nobody() {
    let site = Site::open().await;
    let answer = site.get("/api/v1/windows").await;
    assert!(answer.head.contains("cache-control: no-store"), "{answer:?}");
    assert!(answer.head.contains("x-content-type-options: nosniff"), "{answer:?}");
}
