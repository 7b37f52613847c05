//! A window with a store: what the API and `/readyz` say of it, and what a change tells the other relays.

use super::site::{Site, now};
use hapax::config::{Config, Overrides};
use hapax::store::Logged;
use hapax_core::pressure::{Accounting, Watched};
use hapax_core::window::logged::{AtStore, What};
use hapax_core::window::{Change, Inspect, LoggedWindow, Mode, OnOutage, Remember, Setting, StorePolicy};
use hapax_core::wire::properties::IdValue;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const TEXT: &str = "memory_budget = \"64MiB\"\nupstream = \"amqp://127.0.0.1:1\"\n[[window]]\nname = \"logged\"\nscope = \"vhost\"\nttl = \"90s\"\n\
                    exchange = \"logged\"\ncapacity = 1000\n[[window]]\nname = \"rest\"\ncapacity = \"auto\"\n";

/// A site whose first window has a store that the test plays.
pub(crate) async fn site(policy: StorePolicy) -> (Site, Arc<Logged>) {
    let config = Config::parse(None, TEXT, &Overrides::default()).unwrap_or_else(|e| panic!("{e}")).config;
    let mut windows = hapax::store::open(&config, now()).unwrap().windows;
    let (first, accounting) = (&config.windows[0], Arc::new(Accounting::new()));
    let (rules, listener) = (first.rules.clone(), Arc::clone(&accounting));
    let logged = LoggedWindow::new(rules, first.limits, first.engine, listener, "stream", policy, now());
    windows[0] = Watched { window: logged.clone(), accounting };
    (Site::of(&config, windows).await, logged)
}

fn policy(remember: Remember, on_outage: OnOutage) -> StorePolicy {
    StorePolicy { remember, on_outage, ..StorePolicy::default() }
}

#[tokio::test]
async fn a_window_shows_where_it_remembers() {
    let (site, logged) = site(policy(Remember::Async, OnOutage::Continue)).await;
    logged.recovered();
    logged.set_at_store(AtStore { bytes: Some(4096), ..AtStore::default() });
    site.store("logged", ["/", "logged", "k"], IdValue::Bytes(b"a"));
    let windows = site.get("/api/v1/windows").await.json();
    let mut store = windows["windows"][0]["store"].clone();
    assert!(store["lag_seconds"].as_f64().is_some_and(|lag| lag < 20.0), "{store}");
    store["lag_seconds"] = 0.into();
    assert_eq!(
        store,
        json!({
            "kind": "stream", "remember": "async", "remember_delay_seconds": 0.1, "on_outage": "continue", "up": true,
            "recovering": false, "waiting_records": 1, "lag_seconds": 0, "waiting_commits": 0, "waiting_publishes": 0,
            "unremembered": 0, "dropped_records": 0, "recovered": 0, "merged": 0, "crossed": 0, "damaged_batches": 0,
            "bytes": 4096,
        })
    );
    assert_eq!(windows["windows"][1].get("store"), None, "in memory");
    logged.store_failed(now());
    let store = site.get("/api/v1/windows/logged").await.json()["store"].clone();
    assert_eq!((&store["up"], store["down_seconds"].is_number()), (&false.into(), true), "{store}");
}

/// Publishers belong on another relay while a window does not know what its store knows, and while it holds publishes.
#[tokio::test]
async fn readiness_waits_for_stores() {
    let (site, logged) = site(policy(Remember::Sync, OnOutage::Refuse)).await;
    let reasons = async || {
        let answer = site.get("/readyz").await;
        let body = answer.json();
        assert_eq!((answer.status, &body["ready"]), (503, &false.into()), "there is no broker");
        let mut reasons: Vec<String> = serde_json::from_value(body["reasons"].clone()).unwrap();
        assert!(reasons.remove(0).starts_with("the broker does not answer: "), "{body}");
        (reasons, body["windows"][0]["store"].clone(), body["windows"][1].get("store").cloned())
    };
    let store = |up: bool, recovering: bool| json!({ "kind": "stream", "up": up, "recovering": recovering });
    let why = |text: &str| vec![text.to_owned()];
    let reading = "window \"logged\" still reads what its store (stream) knows";
    assert_eq!(reasons().await, (why(reading), store(true, true), None));
    logged.recovered();
    assert_eq!(reasons().await, (vec![], store(true, false), None));
    logged.store_failed(now());
    let down = "the store (stream) of window \"logged\" is down, and on_outage = \"refuse\" holds publishes until it is back";
    assert_eq!(reasons().await, (why(down), store(false, false), None));
    logged.set_mode(Mode::Off);
    assert_eq!(reasons().await, (vec![], store(false, false), None), "nothing is judged");
    logged.set_mode(Mode::Enforce);
    logged.store_works(now());
    assert_eq!(reasons().await, (vec![], store(true, false), None));
}

/// With `continue` publishes go on, so the relay is as ready as before.
#[tokio::test]
async fn a_store_that_is_down_is_no_reason_where_publishes_go_on() {
    let (site, logged) = site(policy(Remember::Sync, OnOutage::Continue)).await;
    logged.recovered();
    logged.store_failed(now());
    let body = site.get("/readyz").await.json();
    assert_eq!(body["reasons"].as_array().unwrap().len(), 1, "{body}");
}

/// Each change of an operator is a record for the other relays. A resize by the budget is not.
#[tokio::test]
async fn what_an_operator_does_is_told_to_the_other_relays() {
    let (site, logged) = site(policy(Remember::Async, OnOutage::Continue)).await;
    let told = || -> Vec<Setting> {
        let records = logged.take(100).map_or_else(Vec::new, |(records, _)| records);
        let changes = records.into_iter().filter_map(|record| match record.what {
            What::Changed(Change { setting, by }) => {
                assert!(by.starts_with("127.0.0.1:") && by.ends_with(" (loopback)"), "{by}");
                Some(setting)
            }
            _ => None,
        });
        changes.collect()
    };
    let patch = async |body: &str| {
        let answer = site.change("PATCH", "/api/v1/windows/logged", body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    patch(r#"{"capacity": 20, "ttl": "1h", "mode": "observe"}"#).await;
    let settings =
        [Setting::Capacity(20), Setting::Ttl(Duration::from_secs(3600)), Setting::Mode(Mode::Observe)];
    assert_eq!(told(), settings);
    patch(r#"{"capacity": "auto"}"#).await;
    logged.resize(30, now());
    assert_eq!(told(), [], "each relay sizes its windows by its own memory");
    let id = "/api/v1/windows/logged/ids/a?exchange=logged";
    assert_eq!(site.change("DELETE", id, "").await.status, 200);
    assert_eq!(site.change("POST", "/api/v1/windows/logged/flush", "").await.status, 200);
    assert_eq!(told(), [Setting::Forgotten, Setting::Flushed]);
    let refused = site.change("PATCH", "/api/v1/windows/logged", r#"{"ttl": "2h", "mode": "on"}"#).await;
    assert_eq!((refused.status, told()), (422, vec![]));
}
