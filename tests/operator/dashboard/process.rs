//! An hour of history, the table of all windows, recent events, and what is done to connections and to the relay itself.

use super::browser::Browser;
use super::facts::connection;
use super::stub::{Asked, Stub, calm, critical, empty, window_of};
use serde_json::{Value, json};

/// An hour of samples: the pressure rises from 0 to 2.
fn hour() -> Vec<Value> {
    let sample = |n: u32| {
        json!({
            "at": "", "ago_seconds": 3_590 - n * 10, "fresh": 600 + n, "duplicate": 20, "escaped": 0, "pressure": f64::from(n) / 180.0,
            "coverage": 1, "entries": 1000 * n, "capacity": 250_000, "level": "ok",
        })
    };
    (0..360).map(sample).collect()
}

const LINE: &str = "document.querySelector('#c-pressure .line.pressure').getAttribute('d')";

#[tokio::test]
async fn charts_begin_with_what_the_relay_has_kept() {
    let stub = Stub::with(vec![window_of("orders", &critical())], |scene| scene.history = hour()).await;
    let page = Browser::open(stub.address).await;
    let axis = "[...document.querySelectorAll('#c-pressure svg text')].map((e) => e.textContent)";
    page.until_true("ten minutes are drawn", &format!("return {axis}.includes('−10\u{a0}min')")).await;
    page.until_true(
        "as one line",
        &format!("return {LINE}.split('L').length > 55 && {LINE}.split('M').length === 2"),
    )
    .await;
    page.js("const span = document.querySelector('#span'); span.value = '3600'; span.dispatchEvent(new Event('change'))").await;
    page.until_true(
        "an hour is drawn",
        &format!("return {axis}.includes('−1\u{a0}h') && {LINE}.split('L').length > 350"),
    )
    .await;
    // The thresholds say what they mean.
    for words in ["too small above 1", "high from 0.8"] {
        assert_eq!(page.js(&format!("return {axis}.includes('{words}')")).await, true, "{words}");
    }
    page.go("/").await;
    page.until_true("the choice stays", &format!("return {axis}.includes('−1\u{a0}h')")).await;
    page.close(&[]).await;
}

#[tokio::test]
async fn the_table_of_all_windows_is_sorted_by_any_column() {
    let stub = Stub::new(vec![
        window_of("orders", &calm()),
        window_of("audit", &critical()),
        window_of("rest", &empty()),
    ])
    .await;
    let page = Browser::open(stub.address).await;
    page.js("document.querySelector('#all').scrollIntoView()").await;
    let names = "return [...document.querySelectorAll('#all-list tbody tr')].map((row) => row.querySelector('a').textContent)";
    page.until_true("they are there", "return document.querySelectorAll('#all-list tbody tr').length === 3")
        .await;
    assert_eq!(page.js(names).await, json!(["orders", "audit", "rest"]), "as configured");
    let order = "return document.querySelector('[data-column=pressure]').getAttribute('aria-sort')";
    for (names_now, order_now) in [
        (json!(["audit", "orders", "rest"]), json!("descending")),
        (json!(["rest", "orders", "audit"]), json!("ascending")),
        (json!(["orders", "audit", "rest"]), Value::Null),
    ] {
        page.click("[data-column=pressure] button").await;
        assert_eq!((page.js(names).await, page.js(order).await), (names_now, order_now));
    }
    page.click("[data-column=name] button").await;
    assert_eq!(page.js(names).await, json!(["audit", "orders", "rest"]));
    page.click("#all-list tbody a").await;
    page.until_text("#window .title [data-show=name]", "audit").await;
    for width in [1920, 1280, 400] {
        page.size(width, 900).await;
        page.fits(&format!("all windows at {width}")).await;
    }
    page.close(&[]).await;
}

/// A page that is drawn each second must not take away what somebody is about to click on, or has selected to copy.
#[tokio::test]
async fn what_is_drawn_anew_keeps_a_click_that_has_begun() {
    let named = |names: [&str; 2], entries: u64| {
        names
            .map(|name| {
                let mut window = window_of(name, &calm());
                window["entries"] = entries.into();
                window
            })
            .to_vec()
    };
    let stub = Stub::new(named(["orders", "audit"], 1)).await;
    let page = Browser::open(stub.address).await;
    page.js("document.querySelector('#all').scrollIntoView()").await;
    for (entries, link, selected) in
        [(2, "#all-list tbody tr:last-child a", "audit"), (3, "#windows li:first-child a", "orders")]
    {
        page.until_true("it is drawn", &format!("return document.querySelector('{link}') !== null")).await;
        page.js(&format!("document.querySelector('{link}').scrollIntoView({{ block: 'center' }})")).await;
        let middle = page
            .js(&format!("const at = document.querySelector('{link}').getBoundingClientRect(); return [at.x + at.width / 2, at.y + at.height / 2]"))
            .await;
        let mouse = async |kind: &str| {
            let event =
                json!({ "type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1 });
            page.cdp("Input.dispatchMouseEvent", event).await;
        };
        mouse("mousePressed").await;
        stub.say(named(["orders", "audit"], entries));
        page.until_has("#all-list tbody tr:last-child td:nth-child(6)", &entries.to_string()).await;
        mouse("mouseReleased").await;
        page.until_text("#window .title [data-show=name]", selected).await;
    }
    page.js("getSelection().selectAllChildren(document.querySelector('#all-list tbody tr:last-child a'))")
        .await;
    stub.say(named(["orders", "audit"], 4));
    page.until_has("#all-list tbody tr:last-child td:nth-child(6)", "4").await;
    assert_eq!(page.js("return getSelection().toString()").await, "audit", "what is selected stays so");
    page.js("document.querySelector('#all-list tbody tr:last-child a').focus()").await;
    stub.say(named(["audit", "orders"], 5));
    page.until_has("#all-list tbody tr:last-child td:nth-child(6)", "5").await;
    let names = "return [...document.querySelectorAll('#all-list tbody a, #windows li .name')].map((a) => a.textContent)";
    assert_eq!(page.js(names).await, json!(["audit", "orders", "audit", "orders"]), "rows follow the order");
    assert_eq!(page.js("return document.activeElement.textContent").await, "audit", "and the focus its row");
    page.close(&[]).await;
}

#[tokio::test]
async fn recent_events_say_who() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    stub.happens("start", None, "Hapax 0.1.0 has started", None);
    let page = Browser::open(stub.address).await;
    page.until_has("#journal-list", "has started").await;
    stub.happens(
        "settings",
        Some("orders"),
        "mode enforce → observe <b>\u{202e}",
        Some("10.0.0.1:5 (token)"),
    );
    page.until_has("#journal-list tbody tr:first-child", "mode enforce → observe <b>").await;
    page.until_has("#journal-list tbody tr:first-child", "10.0.0.1:5 (token)").await;
    assert_eq!(page.js("return document.querySelectorAll('#journal-list tbody tr').length").await, 2);
    assert_eq!(page.js("return document.querySelector('#journal-list b')").await, Value::Null);
    page.close(&[]).await;
}

#[tokio::test]
async fn a_connection_is_closed_with_a_reason() {
    let clients = vec![connection(7, &json!({ "product": "pika" })), connection(8, &json!({}))];
    let stub = Stub::with(vec![window_of("orders", &calm())], |scene| scene.connections = clients).await;
    let page = Browser::open(stub.address).await;
    page.until_has("#client-list", "pika").await;
    page.js("document.querySelector('[data-close=\"7\"]').click()").await;
    page.until_has("#confirm", "Close the connection 7 from ").await;
    page.click("#confirm [data-no]").await;
    assert_eq!(stub.asked(), []);
    page.js("document.querySelector('[data-close=\"8\"]').click()").await;
    page.fill("#confirm-input", "moved & gone").await;
    page.click("#confirm [data-yes]").await;
    page.until_text("#closed", "Connection 8 is closed.").await;
    let target = "/api/v1/connections/8?reason=moved%20%26%20gone".to_owned();
    assert_eq!(stub.asked(), [Asked { method: "DELETE".into(), target, body: json!({}) }]);
    // The same dialog asks other questions without a field.
    page.click("#flush").await;
    page.until_true("no field", "return document.querySelector('#confirm-field').hidden").await;
    page.click("#confirm [data-no]").await;
    page.close(&[]).await;
}

#[tokio::test]
async fn the_log_and_the_drain() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    stub.happens("start", None, "started", None);
    let page = Browser::open(stub.address).await;
    page.until_text("#log-words", "The configuration says info.").await;
    assert_eq!(page.value("#log-level").await, "debug");
    page.fill("#log-level", "info").await;
    page.click("#log-form button").await;
    page.until_true("it was asked", "return document.querySelector('#log-level').value !== ''").await;
    page.click("#drain").await;
    page.until_has("#confirm", "This can't be taken back.").await;
    page.click("#confirm [data-yes]").await;
    page.until_text("#drained", "Draining: 3 connections.").await;
    let asked: Vec<(String, String, Value)> =
        stub.asked().into_iter().map(|asked| (asked.method, asked.target, asked.body)).collect();
    assert_eq!(
        asked,
        [
            ("PUT".to_owned(), "/api/v1/log".to_owned(), json!({ "level": "info" })),
            ("POST".to_owned(), "/api/v1/drain".to_owned(), json!({})),
        ]
    );
    page.close(&[]).await;
}

/// The page of a reader hides the controls that the relay would refuse.
#[tokio::test]
async fn a_reader_is_offered_no_change() {
    let stub = Stub::with(vec![window_of("orders", &calm())], |scene| {
        scene.may_change = false;
        scene.connections = vec![connection(7, &json!({}))];
    })
    .await;
    let page = Browser::open(stub.address).await;
    page.until_has("#notices", "This token may read and not change anything.").await;
    page.until_true("a client is listed", "return document.querySelector('[data-close]') !== null").await;
    for hidden in ["#flush", "#apply", "#drain", "#log-form button", "[data-close]"] {
        let shown = format!("return document.querySelector('{hidden}').getClientRects().length");
        assert_eq!(page.js(&shown).await, 0, "{hidden}");
    }
    // A forecast changes nothing.
    page.fill("#set-capacity", "500k").await;
    page.until_has("#forecast-words", "when full.").await;
    page.close(&[]).await;
}

#[tokio::test]
async fn an_export_is_saved_under_a_name() {
    let stub =
        Stub::with(vec![window_of("orders", &calm())], |scene| scene.token = Some("secret-of-the-stub"))
            .await;
    let page = Browser::start(stub.address).await;
    page.go("/").await;
    page.fill("#token-field", "secret-of-the-stub").await;
    page.click("#token button").await;
    page.until_true("the page is live", "return document.body.dataset.link === 'live'").await;
    // The link is kept from the browser: what it would save is looked at instead.
    page.js("HTMLAnchorElement.prototype.click = function () { window.saved = [this.download, this.href]; }")
        .await;
    page.js("document.querySelector('#all [data-export*=csv]').click()").await;
    page.until_true("it is saved", "return window.saved?.[0] === 'hapax-windows.csv'").await;
    assert_eq!(page.js("return window.saved[1].startsWith('blob:')").await, true);
    page.close(&["401"]).await;
}
