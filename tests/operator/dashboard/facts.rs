//! The numbers and texts that the page shows.

use super::browser::Browser;
use super::stub::{self, Stub, calm, critical, empty, window_of};
use hapax_core::pressure::facts::{Facts, HeaderShare, Level, LevelChange, MissingIds, Store, TopScope};
use hapax_core::window::{OnOutage, Remember};
use serde_json::{Value, json};

#[tokio::test]
async fn a_calm_window() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    for (css, wanted) in [
        ("[data-show=name]", "orders"),
        ("[data-fact=level]", "● ok"),
        ("#verdict", "Yes. Every id is remembered as long as it should be."),
        ("[data-show=pressure]", "0.40"),
        ("[data-show=coverage]", "100 %"),
        ("[data-show=remembered]", "Ids are remembered for the full 10 min."),
        ("[data-show=escaped_duplicates]", "0"),
        ("[data-show=recommended_capacity]", "520,000"),
        ("[data-show=rate_fresh]", "662/s"),
        ("[data-show=rate_duplicate]", "28.1/s"),
        ("[data-show=entries]", "397,370"),
        ("[data-show=capacity]", "1,000,000"),
        ("[data-fact='evictions.expired']", "27,944,420"),
        ("[data-fact='evictions.capacity']", "0"),
        ("[data-fact='publishes.fresh']", "28,341,902"),
        ("[data-fact='publishes.duplicate']", "1,204,511"),
        ("[data-fact=forgotten]", "112"),
        ("[data-fact=in_flight]", "17"),
        ("[data-status=upstream]", "answers"),
        ("[data-status=memory]", "125 MiB"),
        ("[data-status=uptime]", "1 d 2 h"),
        ("#c-ages", "No id was evicted before its time"),
        ("#c-what-if", "Not enough traffic sampled yet"),
        ("#no-scopes", "No publishes yet"),
        ("#no-clients", "No clients are connected"),
    ] {
        assert_eq!(page.text(css).await, wanted, "{css}");
    }
    assert_eq!(page.js("return document.title").await, "orders · Hapax");
    page.close(&[]).await;
}

#[tokio::test]
async fn a_window_that_is_too_small() {
    let mut facts = critical();
    facts.level_history = vec![
        LevelChange { ago_seconds: 500.0, level: Level::High },
        LevelChange { ago_seconds: 192.0, level: Level::Critical },
    ];
    let stub = Stub::new(vec![window_of("orders", &facts)]).await;
    let page = Browser::open(stub.address).await;
    for (css, wanted) in [
        ("[data-fact=level]", "■ critical"),
        ("#verdict", "No. Ids are forgotten before their time."),
        ("[data-show=coverage]", "62.9 %"),
        ("[data-show=remembered]", "Ids are remembered for 6 min 17 s of 10 min."),
        ("[data-show=escaped_duplicates]", "4,127"),
        ("[data-show=level_since]", "critical for 3 min 12 s"),
        ("[data-show=early]", "9,224,111 ids evicted before their time, 245/s now."),
        ("[data-show=ghost]", "Counted by mistake: at most 1 in 131,062 fresh publishes."),
        ("#c-ages .note.ttl", "TTL 10 min"),
        ("#c-entries .note.recommended", "recommended"),
    ] {
        assert_eq!(page.text(css).await, wanted, "{css}");
    }
    let meter =
        |id: &str, name: &str| format!("return document.querySelector('#{id}').getAttribute('{name}')");
    assert_eq!(page.js(&meter("pressure-meter", "aria-valuetext")).await, "1.59, level critical");
    assert_eq!(page.js(&meter("coverage-meter", "aria-valuenow")).await, "0.629");
    assert_eq!(page.js("return document.title").await, "critical: orders · Hapax");
    let strip = "return [...document.querySelectorAll('#c-pressure rect')].map((r) => r.className.baseVal)";
    assert_eq!(page.js(strip).await, json!(["level-critical"]), "the last minute was all critical");
    let changes = page.js("return document.querySelectorAll('#level-history li').length").await;
    assert_eq!(changes, 2);
    page.close(&[]).await;
}

fn with_store(store: Store) -> Vec<Value> {
    vec![window_of("orders", &Facts { store: Some(store), ..calm() })]
}

#[tokio::test]
async fn a_window_says_where_it_remembers() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    assert_eq!(page.text("#store-verdict").await, "In memory only.");
    assert_eq!(page.text("#store-words").await, "A restart of Hapax forgets these ids.");
    assert!(!page.find("#store-facts").await.is_displayed().await.unwrap());
    let well = Store {
        kind: "stream".to_owned(),
        up: true,
        waiting_records: 3,
        lag_seconds: 0.002,
        recovered: 81_020,
        merged: 4_120,
        oldest_seconds: Some(3_900.0),
        behind_seconds: Some(0.0),
        bytes: Some(4_980_736),
        ..Store::default()
    };
    stub.say(with_store(well.clone()));
    page.until_text("#store-verdict", "In memory, and in a stream of the broker.").await;
    let sync = "A publisher gets its ack when the id is there: no crash forgets it.";
    assert_eq!(page.text("#store-words").await, sync);
    for (fact, wanted) in [
        ("oldest_seconds", "1 h 5 min"),
        ("waiting_records", "3, for 2.0 ms"),
        ("behind_seconds", "0 s"),
        ("bytes", "4.8 MiB"),
        ("recovered", "81,020"),
        ("merged", "4,120"),
    ] {
        assert_eq!(page.text(&format!("[data-fact='store.{fact}']")).await, wanted, "{fact}");
    }
    let rows = "return document.querySelectorAll('#store-facts div').length";
    assert_eq!(page.js(rows).await, 6, "nothing that is not known, or never went wrong");

    let late = Store { remember: Remember::Async, remember_delay_seconds: Some(0.1), ..well.clone() };
    stub.say(with_store(Store { behind_seconds: Some(12.0), ..late }));
    page.until_text("#store-verdict", "In memory, and in a stream of the broker, but 12 s late.").await;
    let words = page.text("#store-words").await;
    assert_eq!(words, "An id is there 100 ms after its ack at the latest. A crash before that forgets it.");

    assert_eq!(page.text("#notices").await, "");
    stub.say(with_store(Store { recovering: true, ..well.clone() }));
    page.until_text("#store-verdict", "It reads its store.").await;

    let down = Store { up: false, down_seconds: Some(83.0), crossed: 2, unremembered: 412, ..well };
    stub.say(with_store(down.clone()));
    page.until_text("#store-verdict", "The store has been down for 1 min 23 s.").await;
    let words = page.text("#store-words").await;
    assert!(words.ends_with("A crash now forgets what was stored since: 412 ids so far."), "{words}");
    assert_eq!(page.text("[data-fact='store.crossed']").await, "2");
    page.until_has("#notices", "A store is down. Look at window orders").await;
    for width in [1920, 1280, 400] {
        page.size(width, 900).await;
        page.fits(&format!("a store at {width}")).await;
    }
    if let Some(folder) = std::env::var_os("HAPAX_SHOTS") {
        page.size(1280, 900).await;
        page.shoot(&std::path::Path::new(&folder).join("dashboard-store.png")).await;
    }
    let refuse = Store { on_outage: OnOutage::Refuse, waiting_publishes: 12, waiting_commits: 3, ..down };
    stub.say(with_store(refuse));
    let waits = "Publishers wait until it is back: 12 publishes, and the acks of 3 stored messages.";
    page.until_text("#store-words", waits).await;
    page.close(&[]).await;
}

#[tokio::test]
async fn a_young_window_says_that_duplicates_cannot_be_counted() {
    let mut facts = calm();
    (facts.level, facts.warming_seconds, facts.coverage) = (Level::Warming, 450.0, 0.25);
    (facts.effective_seconds, facts.recommended_capacity, facts.recommended_from) = (150.0, None, 0.25);
    let stub = Stub::new(vec![window_of("orders", &facts)]).await;
    let page = Browser::open(stub.address).await;
    for (css, wanted) in [
        ("[data-fact=level]", "◔ warming"),
        ("#verdict", "Not known yet. It is warm in 7 min 30 s."),
        ("[data-show=coverage]", "25.0 %"),
        ("[data-show=escaped_now]", "Duplicates of what was published before it began can't be counted."),
        ("[data-show=recommended_capacity]", "Not known yet"),
        ("#levels", "1 warming"),
    ] {
        assert_eq!(page.text(css).await, wanted, "{css}");
    }
    page.close(&[]).await;
}

#[tokio::test]
async fn a_window_without_ids_says_what_the_messages_have_instead() {
    let mut facts = calm();
    facts.level = Level::Blind;
    let header = |name: &str, share| HeaderShare { name: name.to_owned(), share };
    facts.missing_ids = MissingIds {
        share: Some(0.97),
        publishes: 9_700,
        headers: vec![header("x-request-id", 0.94), header("<b>\u{202e}", 0.5)],
    };
    let stub = Stub::new(vec![window_of("orders", &facts)]).await;
    let page = Browser::open(stub.address).await;
    assert_eq!(page.text("[data-fact=level]").await, "◌ blind");
    let said = page.text("[data-show=missing]").await;
    assert!(said.starts_with("97.0 % of the publishes of the last minutes carry no id"), "{said}");
    assert!(
        said.contains("94.0 % have x-request-id, 50.0 % have <b>") && !said.contains('\u{202e}'),
        "{said:?}"
    );
    page.close(&[]).await;
}

#[tokio::test]
async fn more_escaped_than_could_be_counted() {
    let mut facts = critical();
    (facts.escaped_duplicates, facts.escaped_duplicates_about) = (9_035, 19_012);
    let stub = Stub::new(vec![window_of("orders", &facts)]).await;
    let page = Browser::open(stub.address).await;
    assert_eq!(page.text("[data-show=escaped_duplicates]").await, "≥ 9,035");
    assert_eq!(page.text("[data-show=escaped_about]").await, "escaped duplicates, about 19,012");
    page.close(&[]).await;
}

#[tokio::test]
async fn a_change_of_level_is_announced() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    stub.say(vec![window_of("orders", &critical())]);
    page.until_has("#announcer", "Window orders: level ok → critical, pressure 1.59").await;
    page.close(&[]).await;
}

#[tokio::test]
async fn a_window_without_traffic_and_no_window_at_all() {
    let stub = Stub::new(vec![window_of("default", &empty())]).await;
    let page = Browser::open(stub.address).await;
    assert_eq!(page.text("#verdict").await, "No publishes yet.");
    assert_eq!(page.text("[data-show=recommended_capacity]").await, "Not known yet");
    assert!(!page.find("#try-recommended").await.is_displayed().await.unwrap());
    stub.say(vec![]);
    page.until_has("#no-windows", "No windows are configured").await;
    assert!(!page.find("#window").await.is_displayed().await.unwrap());
    page.close(&[]).await;
}

#[tokio::test]
async fn the_broker_is_gone_and_the_relay_drains() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    stub.change(|now| {
        now["status"]["draining"] = json!(true);
        now["status"]["upstream"] =
            json!({ "address": "10.0.0.7:5672", "ok": false, "error": "connection refused" });
    });
    page.until_has("#notices", "The broker at 10.0.0.7:5672 does not answer: connection refused").await;
    assert!(page.text("#notices").await.contains("The relay is draining"));
    assert_eq!(page.text("[data-status=upstream]").await, "does not answer");
    page.close(&[]).await;
}

#[tokio::test]
async fn a_run_of_chaos_is_not_forgotten() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    stub.change(|now| {
        now["status"]["chaos"] =
            json!({ "seed": 7, "by": "<b>me</b> (token)", "left_seconds": 130.5, "done": 12 });
    });
    let banner = "A run of chaos is on: clients are cut and delayed on purpose. Seed 7, started by <b>me</b> (token); it ends within 3 min.";
    page.until_has("#notices", banner).await;
    stub.change(|now| now["status"]["chaos"] = json!(null));
    page.until_true("the banner goes", "return document.querySelector('#notices').textContent === ''").await;
    page.close(&[]).await;
}

#[tokio::test]
async fn the_nodes_of_a_cluster_are_listed() {
    let stub = Stub::new(vec![window_of("orders", &calm())]).await;
    let page = Browser::open(stub.address).await;
    assert!(!page.find("#upstreams").await.is_displayed().await.unwrap(), "one node is no list");
    stub.change(|now| {
        let node = |address: &str, state: &str, error: Option<&str>| {
            json!({
                "address": address, "state": state, "error": error, "age_seconds": 7.2, "rest_seconds": error.map(|_| 93.0),
                "connections": 12, "opened": 4300, "failures": 3,
            })
        };
        let nodes = [node("a:5672", "up", None), node("b:5672", "down", Some("<b>refused</b>"))];
        now["status"]["upstreams"] = json!(nodes);
    });
    page.until_has(
        "#notices",
        "A node of the broker does not answer; new connections go to the others: b:5672 (<b>refused</b>)",
    )
    .await;
    assert_eq!(page.text("[data-status=upstream]").await, "1 of 2 nodes answers");
    page.until_has("#upstream-list tbody tr:nth-child(1)", "a:5672").await;
    let second = page.text("#upstream-list tbody tr:nth-child(2)").await;
    for words in ["b:5672", "down", "7 s", "1 min 33 s", "4,300", "<b>refused</b>"] {
        assert!(second.contains(words), "{words:?} is not in {second:?}");
    }
    page.close(&[]).await;
}

fn many() -> Vec<Value> {
    let window = |n: u64| {
        let mut facts = match n % 7 {
            0 => critical(),
            _ => calm(),
        };
        if n % 5 == 1 {
            facts.level = Level::High;
        }
        facts.pressure = facts.pressure.map(|pressure| pressure + n as f64 / 1000.0);
        window_of(&format!("window-{n:02}"), &facts)
    };
    (1..=50).map(window).collect()
}

#[tokio::test]
async fn fifty_windows() {
    let stub = Stub::new(many()).await;
    let page = Browser::open(stub.address).await;
    assert_eq!(page.text("#levels").await, "6 critical · 10 high · 34 ok");
    let names = "return [...document.querySelectorAll('#windows .name')].map((e) => e.textContent)";
    assert_eq!(page.js(names).await.as_array().unwrap().len(), 50);
    page.click("#pressed-first").await;
    page.until_text("#windows li:first-child .name", "window-49").await;
    page.fill("#filter", "dow-2").await;
    page.until_true("the list is filtered", &format!("{names}.length === 10")).await;
    page.fill("#filter", "none").await;
    page.until_has("#windows", "No window has that in its name").await;
    page.fill("#filter", "w-33").await;
    page.until_text("#windows li:first-child .name", "window-33").await;
    page.click("#windows a").await;
    page.until_text("[data-show=name]", "window-33").await;
    assert_eq!(page.js("return location.hash").await, "#/windows/window-33");
    page.go("/#/windows/window-44").await;
    page.until_text("[data-show=name]", "window-44").await;
    page.fits("50 windows at 1280").await;
    page.close(&[]).await;
}

/// Numbers as large as they can get without being wrong in JavaScript.
fn huge() -> Value {
    const MANY: u64 = 9_007_199_254_740_991;
    let mut facts = critical();
    facts.publishes.fresh = MANY;
    facts.publishes.duplicate = MANY;
    facts.escaped_duplicates = MANY;
    facts.capacity = Some(4_000_000_000);
    facts.entries = Some(4_000_000_000);
    facts.bytes = 400_000_000_000;
    facts.ttl_seconds = 31_536_000.0;
    facts.pressure = Some(123_456.789);
    facts.coverage = 0.000_004;
    facts.rates.fresh = 1_234_567.8;
    facts.recommended_capacity = Some(4_000_000_000_000);
    facts.recommended_bytes = Some(400_000_000_000_000);
    for cause in ["capacity", "resize", "expired", "forget", "flush"] {
        facts.evictions.insert(cause.to_owned(), MANY);
    }
    facts.top_scopes = vec![scope(&"v".repeat(255), &"e".repeat(255), &"k".repeat(255), MANY)];
    let mut window = window_of(&"n".repeat(64), &facts);
    window["exchange"] = "x".repeat(255).into();
    window["forward_to"] = "f".repeat(255).into();
    window
}

pub(crate) fn scope(vhost: &str, exchange: &str, routing_key: &str, fresh: u64) -> TopScope {
    let [vhost, exchange, routing_key] = [vhost, exchange, routing_key].map(str::to_owned);
    TopScope { vhost, exchange, routing_key, fresh, error: fresh / 100 }
}

pub(crate) fn connection(n: u64, client: &Value) -> Value {
    json!({
        "id": n, "peer": format!("10.0.3.{}:{}", n % 256, 40_000 + n), "user": "orders-service", "vhost": "/",
        "since": "2026-11-24T10:02:11Z", "age_seconds": 4_000.0 + n as f64, "client": client, "channels": 4,
        "unresolved": 17, "publishes": 1_203_981, "duplicates": 4_127, "bytes_in": 903_118_221, "bytes_out": 40_221_098, "state": "open",
    })
}

#[tokio::test]
async fn nothing_overflows() {
    let own = json!({ "product": "pika", "version": "1.3.2", "connection_name": "c".repeat(200) });
    let connections = (0..3).map(|n| connection(n, &own)).collect();
    let mut windows = many();
    windows.push(huge());
    let stub = Stub::with(windows, |scene| scene.connections = connections).await;
    let page = Browser::open(stub.address).await;
    let name = "n".repeat(64);
    for (width, window) in [
        (1280, "window-01"),
        (400, "window-07"),
        (320, "window-02"),
        (1280, &*name),
        (400, &*name),
        (1920, "window-07"),
    ] {
        page.size(width, 900).await;
        page.go(&format!("/#/windows/{window}")).await;
        page.until_text("[data-show=name]", window).await;
        page.js("document.querySelector('#clients').scrollIntoView()").await;
        page.until_has("#client-list", "pika").await;
        page.fits(&format!("{window} at {width}")).await;
    }
    assert_eq!(page.text("[data-show=escaped_duplicates]").await, "4,127");
    page.close(&[]).await;
}

#[tokio::test]
async fn what_publishers_choose_is_shown_as_text() {
    let hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
    let mut facts = calm();
    facts.top_scopes = vec![scope("/", hostile, "safe\u{202e}gnp.exe\n\u{0007}", 9), scope("/", "", "", 3)];
    let own = json!({ "product": hostile, "version": "\u{200b}1", "connection_name": hostile });
    let mut window = window_of("orders", &facts);
    window["forward_to"] = hostile.into();
    let stub = Stub::with(vec![window], |scene| {
        scene.connections = vec![connection(1, &own)];
        scene.found = json!({ "state": "unknown", "seen_at": null, "age_seconds": null, "duplicates": 0, "expires_at": null, "expires_in_seconds": null });
    })
    .await;
    stub.change(|now| now["status"]["upstream"] = json!({ "address": "b:1", "ok": false, "error": hostile }));
    let page = Browser::open(stub.address).await;
    let key = page.text("#scopes tbody td:nth-child(3)").await;
    assert_eq!(key, "safe\\u202egnp.exe\\u000a\\u0007");
    assert_eq!(page.text("#scopes tbody td:nth-child(2)").await, hostile);
    assert_eq!(page.text("#scopes tbody tr:nth-child(2) td:nth-child(2)").await, "(default)");
    page.js("document.querySelector('#clients').scrollIntoView()").await;
    page.until_has("#client-list", hostile).await;
    page.until_has("#notices", hostile).await;
    page.fill("#look-id", hostile).await;
    page.click("#lookup button[type=submit]").await;
    page.until_has("#found", hostile).await;
    let target = stub.asked().pop().unwrap().target;
    assert!(target.starts_with("/api/v1/windows/orders/ids/%3Cimg%20src%3Dx%20"), "{target}");
    assert_eq!(page.js("return document.querySelectorAll('main img, main script').length").await, 0);
    assert_eq!(page.js("return document.title").await, "orders · Hapax");
    // A later change must not open a way in: the browser refuses to parse markup.
    let markup = "try { document.body.innerHTML = '<p>'; return 'parsed' } catch (e) { return e.name }";
    assert_eq!(page.js(markup).await, "TypeError");
    page.close(&["TrustedHTML"]).await;
}

#[tokio::test]
async fn connections_come_in_pages() {
    let own = json!({ "product": "amqplib", "version": "0.10.4" });
    let connections = (0..120).map(|n| connection(n, &own)).collect();
    let stub = Stub::with(vec![window_of("orders", &calm())], |scene| scene.connections = connections).await;
    let page = Browser::open(stub.address).await;
    page.js("document.querySelector('#clients').scrollIntoView()").await;
    page.until_text("#clients-words", "1 to 50 of 120 open").await;
    assert!(page.text("#client-list tbody tr").await.contains("10.0.3.0:40000"));
    page.click("#page-on").await;
    page.until_text("#clients-words", "51 to 100 of 120 open").await;
    page.click("#page-on").await;
    page.until_text("#clients-words", "101 to 120 of 120 open").await;
    assert!(!page.find("#page-on").await.is_enabled().await.unwrap());
    page.close(&[]).await;
}

/// For the sake of those who read this far: the stub speaks as the contract says.
#[test]
fn the_stub_speaks_of_facts() {
    let window = window_of("orders", &critical());
    let facts: hapax_core::pressure::Facts = serde_json::from_value(window).unwrap();
    assert_eq!(facts, critical());
    assert_eq!(stub::status()["upstream"]["ok"], true);
}
