//! The pictures in `docs/images`: a window that gets too small for its traffic, and is made large enough again.
//!
//! The numbers come from a small model of such ten minutes, told to the page as a relay would tell them, but faster: the
//! page's clock goes a second on with each. Written only where `HAPAX_SHOTS` names a folder; without it the same pages are
//! drawn all the same, and looked at for what sticks out.

use super::browser::Browser;
use super::facts::{connection, scope};
use super::stub::{Stub, ages, calm, critical, empty, what_if, window_of};
use hapax_core::pressure::facts::{Facts, Level, LevelChange};
use serde_json::{Value, json};
use std::path::PathBuf;

const SECONDS: u32 = 560;
const BEFORE: u64 = 420_000;
/// When the operator sets the recommended capacity.
const RESIZED: u32 = 430;

/// The window at this second of its story: the rate rises, ids go before their time, the capacity is raised.
fn orders(second: u32) -> Facts {
    let t = f64::from(second);
    let wave = (t / 17.0).sin() * 21.0 + (t / 5.3).sin() * 9.0 + (t * 1.7).sin() * 6.0;
    let rise = 420.0 / (1.0 + (-(t - 190.0) / 26.0).exp());
    let fresh = 560.0 + rise + wave;
    let resized = second >= RESIZED;
    let mut facts = calm();
    let capacity = if resized { 760_000 } else { BEFORE };
    facts.capacity = Some(capacity);
    facts.recommended_capacity = Some(if second < 150 { 430_000 } else { 740_000 });
    facts.recommended_bytes = facts.recommended_capacity.map(|ids| ids * 104);
    let pressure = fresh * 600.0 / capacity as f64;
    facts.pressure = Some(pressure);
    facts.rates.fresh = fresh;
    facts.rates.duplicate = fresh * 0.083 + (t / 3.1).sin() * 5.0;
    // A window that is too small fills first; then ids go early; once it is larger it fills again.
    let full = 205;
    let since_full = if second > full && !resized { t - f64::from(full) } else { 0.0 };
    let filled = 331_000.0 + 520.0 * t.min(f64::from(full));
    let entries = match second {
        _ if resized => (BEFORE as f64 + (t - f64::from(RESIZED)) * 940.0) as u64,
        _ => filled.min(BEFORE as f64) as u64,
    };
    facts.entries = Some(entries);
    if since_full > 0.0 {
        facts.coverage = (1.0 / pressure).max(1.0 - since_full / 160.0).min(1.0);
        facts.rates.escaped = (since_full / 40.0).min(1.0) * (7.2 + (t / 7.0).sin() * 1.6);
        facts.rates.evicted_early = (since_full / 20.0).min(1.0) * 388.0;
    }
    let trouble = f64::from(RESIZED.min(second).saturating_sub(full));
    facts.effective_seconds = 600.0 * facts.coverage;
    facts.escaped_duplicates = (trouble * 6.7) as u64;
    facts.evictions.insert("capacity".to_owned(), (trouble * 371.0) as u64);
    facts.evictions.insert("expired".to_owned(), 1_804_420 + u64::from(second) * 560);
    facts.evictions.insert("forget".to_owned(), 3);
    facts.evictions.insert("resize".to_owned(), 0);
    facts.publishes.fresh = 2_283_190 + u64::from(second) * 720;
    facts.publishes.duplicate = 190_004 + u64::from(second) * 60;
    facts.commits = facts.publishes.fresh - 17;
    facts.bytes = entries * 98 + 6_100_000;
    facts.bytes_per_id = 104.2;
    facts.distinct.ids = (fresh * 60.0) as u64;
    facts.distinct.seconds = 60.0;
    facts.level = match pressure {
        _ if since_full > 3.0 => Level::Critical,
        pressure if pressure >= 0.8 && !(resized && pressure < 0.83) => Level::High,
        _ => Level::Ok,
    };
    if trouble > 0.0 {
        let n = (trouble * 371.0) as u64;
        facts.age_at_eviction.buckets =
            ages(&[(600.0, n / 9), (500.0, n * 5 / 9), (700.0, 0), (300.0, n / 30), (430.0, n / 4)]);
        facts.ghost = critical().ghost;
    }
    if since_full > 0.0 {
        facts.age_at_eviction.p50_seconds = Some(facts.effective_seconds);
        facts.age_at_eviction.p1_seconds = Some(facts.effective_seconds * 0.96);
    }
    facts.what_if = what_if(capacity);
    facts.top_scopes = vec![
        scope("/", "orders", "eu.created", 31_204),
        scope("/", "orders", "us.created", 17_880),
        scope("/", "orders", "eu.cancelled", 4_112),
        scope("/", "", "invoices", 2_390),
        scope("tenants/17", "orders", "backfill", 911),
    ];
    facts
}

/// Beside it, so that the list is one.
fn others() -> [Value; 3] {
    let mut high = calm();
    high.level = Level::High;
    high.pressure = Some(0.87);
    high.rates.fresh = 41.2;
    let mut observed = window_of("audit", &calm());
    observed["mode"] = "observe".into();
    [window_of("payments", &high), observed, window_of("default", &empty())]
}

/// The page after the story was told up to there.
async fn told(stub: &Stub, until: u32) -> Browser {
    stub.say(vec![window_of("orders", &orders(0))]);
    let page = Browser::start(stub.address).await;
    // One second for each message, the last one now.
    let clock = format!(
        "const real = Date.now.bind(Date);
         Date.now = () => real() - 1000 * Math.max(0, {until} - (window.told ?? 0));
         window.tell = () => {{ window.told = (window.told ?? 0) + 1; }};"
    );
    page.cdp("Page.addScriptToEvaluateOnNewDocument", json!({ "source": clock })).await;
    page.go("/").await;
    page.until_true("the page is live", "return document.body.dataset.link === 'live'").await;
    let mut history: Vec<(u32, Level)> = Vec::new();
    for second in 1..=until {
        let mut facts = orders(second);
        if history.last().map_or(Level::Ok, |last| last.1) != facts.level {
            history.push((second, facts.level));
        }
        let change = |&(at, level)| LevelChange { ago_seconds: f64::from(second - at), level };
        facts.level_history = history.iter().map(change).collect();
        page.js("window.tell()").await;
        let mut windows = vec![window_of("orders", &facts)];
        windows[0]["exchange"] = "orders".into();
        windows.extend(others());
        stub.say(windows);
        let fresh = facts.publishes.fresh;
        let shown =
            r#"document.querySelector("[data-fact='publishes.fresh']").textContent.replaceAll(",", "")"#;
        let seen = format!("return {shown} === '{fresh}'");
        page.until_true("the page has heard of it", &seen).await;
    }
    page
}

#[tokio::test]
async fn pictures() {
    let folder = std::env::var_os("HAPAX_SHOTS").map(PathBuf::from);
    let clients = [
        json!({ "product": "pika", "version": "1.3.2", "connection_name": "checkout-7f9c" }),
        json!({ "product": "RabbitMQ Java Client", "version": "5.22.0" }),
        json!({ "product": "amqp091-go", "version": "1.10.0" }),
    ];
    let connections = (7..).zip(&clients).map(|(n, client)| connection(n, client)).collect();
    let windows = vec![window_of("orders", &orders(1))];
    let stub = Stub::with(windows, |scene| scene.connections = connections).await;
    // Without anyone to show them to, a minute is enough.
    let (trouble, end) = if folder.is_some() { (RESIZED - 20, SECONDS) } else { (30, 60) };
    for (name, until, width, scheme) in
        [("light", trouble, 1280, "light"), ("dark", end, 1280, "dark"), ("narrow", trouble, 400, "light")]
    {
        let page = told(&stub, until).await;
        page.prefer(scheme).await;
        page.size(width, 900).await;
        page.js("document.querySelector('#clients').scrollIntoView()").await;
        page.until_has("#client-list", "pika").await;
        if name == "light" {
            page.click("#try-recommended").await;
            page.until_true("the forecast is there", "return !document.querySelector('#apply').disabled")
                .await;
        }
        page.js("document.activeElement.blur(); scrollTo(0, 0)").await;
        page.fits(name).await;
        if let Some(folder) = &folder {
            page.shoot(&folder.join(format!("dashboard-{name}.png"))).await;
        }
        page.close(&[]).await;
    }
}
