//! The controls of the page: settings with their forecast, look-up, forgetting, flushing; with the mouse and without it.

use super::browser::Browser;
use super::stub::{Asked, Stub, calm, critical, window_of};
use serde_json::{Value, json};
use thirtyfour::prelude::*;

fn asked(method: &str, target: &str, body: Value) -> Asked {
    Asked { method: method.to_owned(), target: format!("/api/v1/windows/orders{target}"), body }
}

#[tokio::test]
async fn a_forecast_comes_before_a_change() {
    let stub = Stub::new(vec![window_of("orders", &critical())]).await;
    let page = Browser::open(stub.address).await;
    assert_eq!(page.value("#set-capacity").await, "250,000");
    assert_eq!(page.value("#set-ttl").await, "10m");
    assert!(!page.find("#apply").await.is_enabled().await.unwrap());
    page.fill("#set-capacity", "500k").await;
    page.until_text("#forecast-words", "Pressure 0.80, coverage 100 %, 47.7 MiB when full.").await;
    assert_eq!(page.text("[data-now=capacity]").await, "250,000");
    assert_eq!(page.text("[data-after=capacity]").await, "500,000");
    assert_eq!(page.text("[data-now=pressure]").await, "1.59");
    assert_eq!(page.text("[data-after=coverage]").await, "100 %");
    assert_eq!(page.text("[data-now=caught]").await, "3.0 %");
    let change = json!({ "capacity": 500_000 });
    assert_eq!(stub.asked().pop().unwrap(), asked("POST", "/forecast", change.clone()));
    page.click("#apply").await;
    page.until_text("#applied", "Applied: capacity 250,000 → 500,000.").await;
    assert_eq!(stub.asked(), [asked("PATCH", "", change)]);
    page.until_text("[data-show=capacity]", "500,000").await;
    assert!(!page.find("#apply").await.is_enabled().await.unwrap());
    page.close(&[]).await;
}

#[tokio::test]
async fn what_is_typed_survives_the_news_until_it_is_reset() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    page.fill("#set-ttl", "1h 30m").await;
    page.until_text("[data-after=capacity]", "1,000,000").await;
    let mut facts = calm();
    facts.entries = Some(400_000);
    facts.ttl_seconds = 900.0;
    stub.say(vec![window_of("orders", &facts)]);
    page.until_text("[data-show=entries]", "400,000").await;
    assert_eq!(page.value("#set-ttl").await, "1h 30m");
    page.click("#reset").await;
    assert_eq!(page.value("#set-ttl").await, "15m");
    page.until_text("#forecast-words", "Change a value to see what it would bring.").await;
    assert!(stub.asked().iter().all(|asked| asked.method == "POST"), "nothing was changed");
    page.close(&[]).await;
}

#[tokio::test]
async fn what_can_not_be_is_told_and_not_sent() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    for (field, text, problem) in [
        ("#set-capacity", "many", "Write a whole number of ids, such as 2,000,000 or 2M."),
        ("#set-capacity", "1.5", "Write a whole number of ids, such as 2,000,000 or 2M."),
        ("#set-capacity", "0", "Write a whole number of ids, such as 2,000,000 or 2M."),
        ("#set-ttl", "1,5h", "Write a time, such as 90s, 10m or 1h 30m. A number alone counts seconds."),
        (
            "#set-ttl",
            "10 parsecs",
            "Write a time, such as 90s, 10m or 1h 30m. A number alone counts seconds.",
        ),
    ] {
        page.fill(field, text).await;
        let shown = field.replace("set-", "") + "-problem";
        page.until_text(&shown, problem).await;
        assert_eq!(page.find(field).await.attr("aria-invalid").await.unwrap().as_deref(), Some("true"));
        assert!(!page.find("#apply").await.is_enabled().await.unwrap());
        page.click("#reset").await;
    }
    assert_eq!(stub.asked(), []);
    // The page shows all errors that only the relay can find, in the relay's words.
    page.fill("#set-capacity", "2g").await;
    page.until_text("#settings-problem", "capacity: is above the maximum\nttl: is all right").await;
    assert!(!page.find("#apply").await.is_enabled().await.unwrap());
    page.click("#reset").await;
    page.click("#set-auto").await;
    page.until_text("#settings-problem", "capacity: no memory_budget is configured").await;
    assert!(!page.find("#apply").await.is_enabled().await.unwrap());
    page.close(&["422"]).await;
}

#[tokio::test]
async fn a_costly_change_says_so_first() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    page.fill("#set-capacity", "100,000").await;
    page.until_has("#warnings", "About 297,370 ids are evicted at once").await;
    page.click("#reset").await;
    page.find("#set-mode").await.send_keys("observe").await.unwrap();
    page.until_has("#warnings", "Duplicates will be counted and forwarded").await;
    page.until_true("the forecast is there", "return !document.querySelector('#apply').disabled").await;
    page.click("#apply").await;
    page.until_text("#applied", "Applied: mode enforce → observe.").await;
    page.close(&[]).await;
}

#[tokio::test]
async fn an_id_is_found_and_forgotten() {
    let found = json!({
        "state": "seen", "seen_at": "2026-11-24T22:00:00Z", "age_seconds": 133.0, "duplicates": 1_204,
        "expires_at": "2026-11-24T22:10:00Z", "expires_in_seconds": 467.0,
    });
    let mut window = window_of("orders", &calm());
    window["exchange"] = "orders.in".into();
    let stub = Stub::with(vec![window], |scene| scene.found = found).await;
    let page = Browser::open(stub.address).await;
    // The exchange is known; the vhost is a pattern; and this scope has a routing key.
    assert!(!page.find("#look-exchange").await.is_displayed().await.unwrap());
    page.click("#lookup button[type=submit]").await;
    page.until_text("#found", "Write the id to look for.").await;
    page.fill("#look-id", "a/b?c=1&d#ä%").await;
    page.fill("#look-routing-key", "eu west").await;
    page.click("#lookup button[type=submit]").await;
    page.until_has("#found", "Seen: its duplicates are taken out.").await;
    let shown = page.text("#found").await;
    for part in ["a/b?c=1&d#ä%", "2 min 13 s ago", "1,204", "in 7 min 47 s"] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    let target = "/ids/a%2Fb%3Fc%3D1%26d%23%C3%A4%25?vhost=%2F&exchange=orders.in&routing_key=eu+west";
    assert_eq!(stub.asked(), [asked("GET", target, Value::Null)]);
    page.click("#forget").await;
    page.until_has("#confirm", "it is forwarded to the broker as if it were new").await;
    page.click("#confirm [data-no]").await;
    assert_eq!(stub.asked(), []);
    page.click("#forget").await;
    page.click("#confirm [data-yes]").await;
    page.until_text("#found", "Forgotten: a publish of it will be forwarded.").await;
    assert_eq!(stub.asked(), [asked("DELETE", target, json!({}))]);
    page.close(&[]).await;
}

#[tokio::test]
async fn a_flush_is_asked_about() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    page.click("#flush").await;
    page.until_has("#confirm", "All 397,370 ids of “orders” are forgotten.").await;
    page.press(Key::Escape + "").await;
    page.until_true("the dialog is closed", "return !document.querySelector('#confirm').open").await;
    assert_eq!(stub.asked(), []);
    page.click("#flush").await;
    page.until_text("#confirm [data-yes]", "Flush orders").await;
    page.click("#confirm [data-yes]").await;
    page.until_text("#flushed", "397,370 ids forgotten.").await;
    assert_eq!(stub.asked(), [asked("POST", "/flush", json!({}))]);
    page.close(&[]).await;
}

/// The element with the focus: its id, or else its text, and whether the focus is visible.
const FOCUS: &str = "const e = document.activeElement; const s = getComputedStyle(e);
    return [e.id || e.textContent.trim().slice(0, 40), s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]";

#[tokio::test]
async fn everything_can_be_done_with_the_keyboard() {
    let windows = vec![window_of("orders", &critical()), window_of("rest", &calm())];
    let stub = Stub::new(windows).await;
    let page = Browser::open(stub.address).await;
    let mut order = Vec::new();
    loop {
        page.press(Key::Tab + "").await;
        let focus = page.js(FOCUS).await;
        let name = focus[0].as_str().unwrap().to_owned();
        if order.contains(&name)
            || name.is_empty()
            || focus[0] == page.js("return document.body.textContent.trim().slice(0, 40)").await
        {
            break;
        }
        assert_eq!(focus[1], true, "one can't see that {name} has the focus");
        order.push(name);
    }
    let wanted = [
        "Skip to the window",
        "theme",
        "orders■ criticalpressure 1.59691/s",
        "rest● okpressure 0.40691/s",
        "span",
        "CSV",
        "JSON",
        "try-recommended",
        "set-capacity",
        "set-auto",
        "set-ttl",
        "set-mode",
        "reset",
        "look-id",
        "look-vhost",
        "look-exchange",
        "look-routing-key",
        "Look up",
        "flush",
    ];
    let wanted: Vec<&str> = wanted.into_iter().filter(|name| *name != "reset").collect();
    assert_eq!(order, wanted);
    // The recommended capacity, by keys alone: to the button, Enter, to Apply, Enter.
    page.js("document.querySelector('#theme').focus()").await;
    for _ in 0..6 {
        page.press(Key::Tab + "").await;
    }
    page.press(Key::Enter + "").await;
    page.until_text("[data-after=capacity]", "520,000").await;
    assert_eq!(page.js(FOCUS).await, json!(["set-capacity", true]), "the focus goes where it continues");
    for _ in 0..4 {
        page.press(Key::Tab + "").await;
    }
    assert_eq!(page.js(FOCUS).await[0], "apply");
    page.press(Key::Enter + "").await;
    page.until_text("#applied", "Applied: capacity 250,000 → 520,000.").await;
    assert_eq!(page.js(FOCUS).await[0], "set-capacity", "the focus is not lost with the button");
    // Enter in a field applies, too.
    page.fill("#set-ttl", "20m").await;
    page.until_true("the forecast is there", "return !document.querySelector('#apply').disabled").await;
    page.press(Key::Enter + "").await;
    page.until_text("#applied", "Applied: TTL 10 min → 20 min.").await;
    // A dialog has the focus on the harmless answer, keeps it, and gives it back.
    page.js("document.querySelector('#flush').focus()").await;
    page.press(Key::Enter + "").await;
    page.until_true("it asks", "return document.querySelector('#confirm').open").await;
    assert_eq!(page.js(FOCUS).await, json!(["Cancel", true]));
    page.press(Key::Enter + "").await;
    page.until_true("it is closed", "return !document.querySelector('#confirm').open").await;
    assert_eq!(page.js(FOCUS).await[0], "flush");
    assert!(!stub.asked().iter().any(|asked| asked.target.ends_with("/flush")));
    page.close(&[]).await;
}
