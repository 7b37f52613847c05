//! The producers of a window with `id = "sequence"`: listed, shown, forgotten.

use super::site::{Site, now};
use hapax_core::window::{Claim, Mailbox, Scope, Ticket, Verdict, reserve_one};
use serde_json::json;
use std::sync::Arc;

const WINDOWS: &str = r#"
[[window]]
name = "numbered"
exchange = "orders"
id = "sequence"
scope = "exchange"
places = 64
[[window]]
name = "rest"
"#;

pub(super) async fn site() -> Site {
    Site::start(WINDOWS, None).await
}

/// As publishes of these numbers, which the broker has acked. True for each that was forwarded.
pub(super) fn publish(site: &Site, producer: &str, epoch: u64, numbers: &[u64]) -> Vec<bool> {
    let window = site.window("numbered");
    let scoped = site.keys.scoped(Scope::Exchange, b"/", b"orders", b"");
    let one = |number: &u64| {
        let claim =
            Claim::Sequence { producer: scoped.producer(producer.as_bytes()), epoch, number: *number };
        match reserve_one(window, claim, now(), &Arc::new(Mailbox::new()), Ticket(0)) {
            Verdict::Fresh(reservation) => drop(reservation.commit(now(), window.ttl())),
            Verdict::Duplicate(_) => return false,
            other => panic!("{number}: {other:?}"),
        }
        window.note_producer(claim, producer.as_bytes());
        true
    };
    numbers.iter().map(one).collect()
}

#[tokio::test]
async fn producers_are_listed_shown_and_forgotten() {
    let site = site().await;
    publish(&site, "orders-1", 0, &[1, 2, 5]);
    publish(&site, "orders-2", 7, &[1, 1]);
    let list = site.get("/api/v1/windows/numbered/producers").await.json();
    assert_eq!((&list["entries"], &list["capacity"]), (&json!(2), &json!(10_000)));
    let found = site.get("/api/v1/windows/numbered/producers?containing=s-1&limit=5").await.json();
    let [one] = &found["producers"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!((&one["name"], &one["epoch"], &one["highest"]), (&json!("orders-1"), &json!(0), &json!(5)));
    assert_eq!((&one["open"], &one["in_flight"]), (&json!(3), &json!(0)), "0, 3 and 4");
    let path = format!("/api/v1/windows/numbered/producers/{}", one["key"].as_str().unwrap());
    assert_eq!(site.get(&path).await.json()["name"], "orders-1");
    assert_eq!(publish(&site, "orders-1", 0, &[2]), [false]);
    for forgotten in [true, false] {
        assert_eq!(
            site.change("DELETE", &path, "").await.json(),
            json!({"forgotten": forgotten, "store_may_know_more": false})
        );
    }
    assert_eq!(site.get(&path).await.status, 404);
    assert_eq!(publish(&site, "orders-1", 0, &[2]), [true]);
    let facts = site.get("/api/v1/windows/numbered").await.json();
    assert_eq!((&facts["on_gap"], &facts["places"]), (&json!("forward"), &json!(64)));
    assert_eq!((&facts["sequences"]["gaps"], &facts["entries"]), (&json!(1), &json!(2)));
}

/// A capacity that a window of ids may have, and this one may not.
#[tokio::test]
async fn producers_have_a_bound_of_bytes() {
    let site = site().await;
    let change = async |capacity: &str| {
        let body = format!("{{\"capacity\": \"{capacity}\"}}");
        site.change("PATCH", "/api/v1/windows/numbered", &body).await
    };
    let refused = change("400M").await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.error().contains("more producers take more memory than a window may"), "{refused:?}");
    assert_eq!(site.get("/api/v1/windows/numbered").await.json()["capacity"], 10_000);
    assert_eq!(change("20k").await.status, 200);
}

#[tokio::test]
async fn a_key_has_24_digits_and_other_windows_have_no_producers() {
    let site = site().await;
    for (path, status, said) in [
        ("numbered/producers/orders-1", 400, "24 digits"),
        ("numbered/producers/00000000000000000000000g", 400, "24 digits"),
        ("numbered/producers/+00000000000000000000001", 400, "24 digits"),
        ("numbered/producers/000000000000000000000001", 404, "does not know producer"),
        ("numbered/producers?limit=10001", 400, "?limit="),
        ("rest/producers", 422, "remembers ids (message-id), not producers"),
        ("other/producers", 404, "there is no window"),
        ("numbered/ids/a?routing_key=", 400, "/producers"),
    ] {
        let answer = site.get(&format!("/api/v1/windows/{path}")).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.error().contains(said), "{path}: {answer:?}");
    }
}
