//! The page before the relay itself, and the relay before a real broker: what is shown is what `/metrics` says, and what
//! is clicked happens.

use super::browser::Browser;
use crate::e2e::raw::{Publish, Raw};
use crate::e2e::site::Site;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A copy of `tests/fixtures/admin.token` that is its owner's alone: git keeps no such mode.
const TOKEN_FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/dashboard.token");

/// Returns the API's answer at this path.
fn api(admin: SocketAddr, token: &str, path: &str) -> Value {
    let mut stream = TcpStream::connect(admin).unwrap();
    write!(
        stream,
        "GET /api/v1/{path} HTTP/1.0\r\nHost: {admin}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn publish(client: &mut Raw, ids: impl Iterator<Item = u32>) {
    for id in ids {
        let id = format!("order-{id}");
        client.publish_and_settle(1, &Publish::to("q", &id));
    }
}

/// A number as it is shown; "< 0.1 %" is as good as 0.1.
async fn shown(page: &Browser, css: &str) -> f64 {
    let text = page.text(css).await.replace(',', "");
    text.trim_matches([' ', '%', '<']).parse().unwrap_or(f64::NAN)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_is_shown_as_it_is_and_does_as_it_is_told() {
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/admin.token"), TOKEN_FILE).unwrap();
    std::fs::set_permissions(TOKEN_FILE, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config = format!(
        "admin_token_file = {TOKEN_FILE:?}\n[[window]]\nname = \"orders\"\nvhost = \"dashboard\"\nengine = \"lru\"\n\
         capacity = 2000\nttl = \"10m\"\n[[window]]\nname = \"rest\"\n"
    );
    let Some(site) = Site::of_relay("dashboard", &config) else { return };
    let token = std::fs::read_to_string(TOKEN_FILE).unwrap().trim().to_owned();
    let mut client = site.client();
    client.confirming(1);
    client.declare(1, "q", &[]);
    // More than there is room for; duplicates of the newest; and of the oldest, which get through.
    publish(&mut client, 0..2600);
    publish(&mut client, 2550..2600);
    publish(&mut client, 0..20);

    let admin = site.relay().admin();
    let page = Browser::start(admin).await;
    page.go("/").await;
    page.until_has("#token", "This relay asks for a token").await;
    page.fill("#token-field", &token).await;
    page.click("#token button").await;
    page.until_text("[data-show=name]", "orders").await;

    let same = [
        ("[data-fact='publishes.fresh']", "publishes_total", vec![("verdict", "fresh")]),
        ("[data-fact='publishes.duplicate']", "publishes_total", vec![("verdict", "duplicate")]),
        ("[data-fact='publishes.in_flight']", "publishes_total", vec![("verdict", "in_flight")]),
        ("[data-fact='commits']", "commits_total", vec![]),
        ("[data-fact='evictions.capacity']", "evictions_total", vec![("cause", "capacity")]),
        ("[data-fact='evictions.expired']", "evictions_total", vec![("cause", "expired")]),
        ("[data-fact='in_flight']", "window_in_flight", vec![]),
        ("[data-show=entries]", "window_entries", vec![]),
        ("[data-show=capacity]", "window_capacity", vec![]),
        ("[data-show=escaped_duplicates]", "escaped_duplicates_total", vec![]),
        ("[data-show=pressure]", "window_pressure", vec![]),
        ("[data-show=coverage]", "window_coverage", vec![]),
    ];
    let mut told = 0;
    for (css, name, mut labels) in same {
        labels.push(("window", "orders"));
        // The page is a second behind, and averages move: at some moment both say the same, as far as digits go.
        let scale = if name == "window_coverage" { 100.0 } else { 1.0 };
        let what = format!("{css} shows {name}");
        let value = page
            .until(&what, async || {
                let metric = site.metrics().sum(name, &labels) * scale;
                let near = if metric.fract() == 0.0 { 0.0 } else { 0.101_f64.max(metric * 0.005) };
                let page = shown(&page, css).await;
                ((page - metric).abs() <= near).then_some(metric)
            })
            .await;
        told += u32::from(value > 0.0);
    }
    assert!(told >= 7, "nearly all are zero: nothing was compared");
    assert!(site.metrics().sum("escaped_duplicates_total", &[("window", "orders")]) >= 20.0);
    assert_eq!(page.text("[data-fact=level]").await, "■ critical");
    // A recommendation needs one TTL of traffic, and so does its metric.
    page.until_text("[data-show=recommended_capacity]", "Not known yet").await;
    assert_eq!(site.metrics().sum("window_recommended_capacity", &[("window", "orders")]), 0.0);
    page.until_has("#scopes", "q").await;

    // A resize, by typing and clicking.
    page.fill("#set-capacity", "50,000").await;
    page.until_text("[data-after=capacity]", "50,000").await;
    assert_eq!(api(admin, &token, "windows/orders")["capacity"], 2000, "a forecast changes nothing");
    page.click("#apply").await;
    page.until_text("#applied", "Applied: capacity 2,000 → 50,000.").await;
    assert_eq!(api(admin, &token, "windows/orders")["capacity"], 50_000);
    site.until_metric("window_capacity", &[("window", "orders")], 50_000.0);
    page.until_text("[data-show=capacity]", "50,000").await;
    // The page shows a refusal in the relay's words.
    page.fill("#set-capacity", "9,000,000,000").await;
    page.until_has("#settings-problem", "capacity").await;
    page.click("#reset").await;

    page.fill("#look-id", "order-2599").await;
    page.fill("#look-exchange", "").await;
    page.fill("#look-routing-key", "q").await;
    page.click("#lookup button[type=submit]").await;
    page.until_has("#found", "Seen: its duplicates are taken out.").await;
    page.until_has("#found", "Duplicates since\n1").await;
    page.click("#forget").await;
    page.click("#confirm [data-yes]").await;
    page.until_text("#found", "Forgotten: a publish of it will be forwarded.").await;
    let place = "vhost=dashboard&exchange=&routing_key=q";
    assert_eq!(api(admin, &token, &format!("windows/orders/ids/order-2599?{place}"))["state"], "unknown");
    assert_eq!(api(admin, &token, &format!("windows/orders/ids/order-2598?{place}"))["state"], "seen");

    page.js("document.querySelector('#clients').scrollIntoView()").await;
    page.until_has("#client-list", "guest").await;

    page.click("#flush").await;
    page.click("#confirm [data-yes]").await;
    page.until_has("#flushed", " ids forgotten.").await;
    page.until_text("[data-show=entries]", "0").await;
    assert_eq!(api(admin, &token, "windows/orders")["entries"], 0);
    page.close(&["401", "422"]).await;
}
