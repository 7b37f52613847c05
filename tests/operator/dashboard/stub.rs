//! The dashboard's files before an API that says whatever a test wants, and remembers what it was asked.

use super::facts::connection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hapax_core::pressure::facts::{AgeBucket, Facts, Level, WhatIf, WhatIfPoint};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// One request that would have changed or asked something.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// as written, with its query
    pub(crate) target: String,
    pub(crate) body: Value,
}

/// The answers of the stub.
pub(crate) struct Scene {
    now: watch::Sender<Value>,
    pub(crate) token: Option<&'static str>,
    pub(crate) connections: Vec<Value>,
    pub(crate) found: Value,
    /// samples of every window
    pub(crate) history: Vec<Value>,
    pub(crate) journal: Mutex<Vec<Value>>,
    pub(crate) may_change: bool,
    /// how file and process differ
    pub(crate) config: Mutex<Value>,
    asked: Mutex<Vec<Asked>>,
}

pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    pub(crate) scene: Arc<Scene>,
    served: JoinHandle<()>,
}

impl Stub {
    pub(crate) async fn new(windows: Vec<Value>) -> Stub {
        Stub::with(windows, |_| ()).await
    }

    pub(crate) async fn with(windows: Vec<Value>, set: impl FnOnce(&mut Scene)) -> Stub {
        let (now, _) = watch::channel(json!({ "windows": windows, "status": status() }));
        let mut scene = Scene {
            now,
            token: None,
            connections: Vec::new(),
            found: Value::Null,
            history: Vec::new(),
            journal: Mutex::default(),
            may_change: true,
            config: no_drift().into(),
            asked: Mutex::default(),
        };
        set(&mut scene);
        let scene = Arc::new(scene);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = serve(listener, &scene);
        Stub { address, scene, served }
    }

    /// Sets the windows that the stub shows from now on.
    pub(crate) fn say(&self, windows: Vec<Value>) {
        self.scene.now.send_modify(|now| now["windows"] = Value::from(windows));
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        self.scene.now.send_modify(change);
    }

    /// Something happens at the relay.
    pub(crate) fn happens(&self, kind: &str, window: Option<&str>, text: &str, by: Option<&str>) {
        let mut journal = self.scene.journal.lock().unwrap();
        let number = journal.len() + 1;
        journal.push(json!({
            "number": number, "at": "2026-01-02T03:04:05.678Z", "kind": kind, "window": window, "text": text, "by": by,
        }));
        drop(journal);
        self.change(|now| now["status"]["journal"] = number.into());
    }

    /// Returns the requests since the last call.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.scene.asked.lock().unwrap())
    }

    /// Gone, with every connection.
    pub(crate) async fn stop(&mut self) {
        self.served.abort();
        let _ = (&mut self.served).await;
    }

    /// There again, at the same address.
    pub(crate) async fn start(&mut self) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.served = serve(socket.listen(64).unwrap(), &self.scene);
    }
}

/// Connections are tasks of their own and outlive the listener's; the streams among them end when it does, by `alive`.
fn serve(listener: TcpListener, scene: &Arc<Scene>) -> JoinHandle<()> {
    let router = Router::new()
        .route("/api/v1/events", get(events))
        .route("/api/v1/connections", get(connections))
        .route("/api/v1/connections/{id}", axum::routing::delete(close))
        .route("/api/v1/access", get(access))
        .route("/api/v1/history", get(history))
        .route("/api/v1/journal", get(journal))
        .route("/api/v1/log", get(log).put(log))
        .route("/api/v1/drain", post(async || Json(json!({ "draining": true, "connections": 3 }))))
        .route("/api/v1/windows", get(async || "name,vhost\r\n"))
        .route("/api/v1/config", get(config))
        .route("/api/v1/windows/{name}", get(window).patch(patch))
        .route("/api/v1/windows/{name}/forecast", post(forecast))
        .route("/api/v1/windows/{name}/flush", post(flush))
        .route("/api/v1/windows/{name}/ids/{id}", get(look).delete(forget))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(scene), guard))
        .with_state(Arc::clone(scene))
        .merge(hapax::admin::dashboard::routes());
    tokio::spawn(async move {
        let (alive, ended) = watch::channel(());
        let router = router.layer(axum::Extension(ended));
        let _ = axum::serve(listener, router).await;
        drop(alive);
    })
}

async fn guard(State(scene): State<Arc<Scene>>, request: Request, next: axum::middleware::Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if scene.token.is_some_and(|token| given != Some(&format!("Bearer {token}"))) {
        return complain(StatusCode::UNAUTHORIZED, "this needs the admin token");
    }
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 65_536).await.unwrap();
    if parts.method != Method::GET || parts.uri.path().contains("/ids/") {
        let json = match parts.headers.get(header::CONTENT_TYPE) {
            Some(kind) if kind == "application/json" => serde_json::from_slice(&body).unwrap(),
            _ => Value::Null,
        };
        let (method, target) = (parts.method.to_string(), parts.uri.to_string());
        scene.asked.lock().unwrap().push(Asked { method, target, body: json });
    }
    next.run(Request::from_parts(parts, body.into())).await
}

fn complain(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

/// At once, at each change, and each second.
async fn events(
    State(scene): State<Arc<Scene>>,
    axum::Extension(ended): axum::Extension<watch::Receiver<()>>,
) -> Response {
    let mut now = scene.now.subscribe();
    now.mark_changed();
    let stream = futures_util::stream::unfold((now, ended), async |(mut now, mut ended)| {
        tokio::select! {
            _ = ended.changed() => return None,
            _ = now.changed() => (),
            () = tokio::time::sleep(Duration::from_secs(1)) => (),
        }
        let data = now.borrow_and_update().to_string();
        Some((Ok::<_, Infallible>(Event::default().event("windows").data(data)), (now, ended)))
    });
    Sse::new(stream).into_response()
}

fn named(scene: &Scene, name: &str) -> Value {
    let now = scene.now.borrow();
    let windows = now["windows"].as_array().unwrap();
    windows.iter().find(|window| window["name"] == name).cloned().unwrap()
}

async fn window(State(scene): State<Arc<Scene>>, Path(name): Path<String>) -> Json<Value> {
    Json(named(&scene, &name))
}

async fn patch(
    State(scene): State<Arc<Scene>>,
    Path(name): Path<String>,
    Json(body): Json<Value>,
) -> Json<Value> {
    scene.now.send_modify(|now| {
        let windows = now["windows"].as_array_mut().unwrap();
        let window = windows.iter_mut().find(|window| window["name"] == name.as_str()).unwrap();
        for (from, to) in [("capacity", "capacity"), ("ttl", "ttl_seconds"), ("mode", "mode")] {
            if !body[from].is_null() {
                window[to] = body[from].clone();
            }
        }
    });
    Json(named(&scene, &name))
}

/// More than a billion ids are too many here.
async fn forecast(
    State(scene): State<Arc<Scene>>,
    Path(name): Path<String>,
    Json(body): Json<Value>,
) -> Response {
    let window = named(&scene, &name);
    if body["capacity"] == "auto" {
        return complain(StatusCode::UNPROCESSABLE_ENTITY, "capacity: no memory_budget is configured");
    }
    let capacity = body["capacity"].as_f64().unwrap_or_else(|| window["capacity"].as_f64().unwrap());
    if capacity > 1e9 {
        let errors = ["capacity: is above the maximum", "ttl: is all right"];
        let body = json!({ "error": "the change is not possible", "errors": errors });
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response();
    }
    let pressure = window["pressure"].as_f64().unwrap() * window["capacity"].as_f64().unwrap() / capacity;
    let answer = json!({
        "capacity": capacity, "bytes": capacity * 100.0, "pressure": pressure,
        "coverage": (1.0 / pressure).min(1.0), "caught": 0.0405,
    });
    Json(answer).into_response()
}

async fn flush(State(scene): State<Arc<Scene>>, Path(name): Path<String>) -> Json<Value> {
    Json(json!({ "flushed": named(&scene, &name)["entries"] }))
}

async fn look(State(scene): State<Arc<Scene>>, Path((_, id)): Path<(String, String)>) -> Json<Value> {
    let mut found = scene.found.clone();
    found["id"] = id.into();
    Json(found)
}

async fn forget() -> Json<Value> {
    Json(json!({ "forgotten": true }))
}

async fn config(State(scene): State<Arc<Scene>>) -> Json<Value> {
    Json(scene.config.lock().unwrap().clone())
}

/// A file that is as the process is.
pub(crate) fn no_drift() -> Value {
    json!({
        "file": "/etc/hapax/hapax.toml", "file_version": "1", "last_reload_successful": true,
        "last_success_at": "2026-01-01T00:00:00.000Z", "changed_live": [], "not_loaded": [], "file_errors": [],
    })
}

async fn connections(
    State(scene): State<Arc<Scene>>,
    Query(query): Query<HashMap<String, usize>>,
) -> Json<Value> {
    let part = scene.connections.iter().skip(query["offset"]).take(query["limit"]);
    Json(json!({ "connections": part.collect::<Vec<_>>(), "total": scene.connections.len() }))
}

async fn close(Path(id): Path<u64>) -> Json<Value> {
    Json(json!({ "closing": connection(id, &json!({})), "reason": "" }))
}

async fn access(State(scene): State<Arc<Scene>>) -> Json<Value> {
    Json(json!({ "may_change": scene.may_change, "by": "token" }))
}

async fn history(
    State(scene): State<Arc<Scene>>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    let window = json!({ "name": query["window"], "samples": scene.history });
    Json(json!({ "every_seconds": 10, "windows": [window] }))
}

async fn journal(
    State(scene): State<Arc<Scene>>,
    Query(query): Query<HashMap<String, usize>>,
) -> Json<Value> {
    let journal = scene.journal.lock().unwrap();
    Json(json!({ "entries": journal[query["after"].min(journal.len())..], "last": journal.len() }))
}

async fn log() -> Json<Value> {
    Json(json!({ "level": "debug", "configured": "info" }))
}

pub(crate) fn status() -> Value {
    json!({
        "version": "0.1.0", "uptime_seconds": 93_784.2, "draining": false,
        "upstream": { "address": "127.0.0.1:5672", "ok": true, "error": null },
        "connections": { "open": 3, "accepted": 12, "rejected": 0, "max": 10_000 },
        "memory": { "resident_bytes": 131_072_000_u64, "budget_bytes": null },
        "listen": "127.0.0.1:5673", "token_required": false,
    })
}

/// A window as the API gives it: the settings that most have, and these facts.
pub(crate) fn window_of(name: &str, facts: &Facts) -> Value {
    let mut window = serde_json::to_value(facts).unwrap();
    let settings = json!({
        "name": name, "vhost": "*", "exchange": "*", "id": "message-id", "scope": "routing-key", "engine": "lru",
        "mode": "enforce", "in_doubt": "forget", "missing_id": "forward", "confirms": "shadow",
        "refresh_on_duplicate": false, "waiters_per_id": 64, "forward_to": null, "auto": false,
    });
    let all = window.as_object_mut().unwrap();
    all.extend(settings.as_object().unwrap().clone());
    window
}

/// A window that nobody has published to.
pub(crate) fn empty() -> Facts {
    Facts {
        capacity: Some(1_000_000),
        entries: Some(0),
        in_flight: Some(0),
        pressure: Some(0.0),
        ttl_seconds: 600.0,
        coverage: 1.0,
        effective_seconds: 600.0,
        bytes_per_id: 100.0,
        ..Facts::default()
    }
}

/// A window that is large enough, after a day.
pub(crate) fn calm() -> Facts {
    let mut facts = empty();
    facts.publishes.fresh = 28_341_902;
    facts.publishes.duplicate = 1_204_511;
    facts.publishes.no_id = 12;
    facts.commits = 28_341_790;
    facts.forgotten.insert("nack".to_owned(), 112);
    facts.evictions.insert("expired".to_owned(), 27_944_420);
    facts.entries = Some(397_370);
    facts.in_flight = Some(17);
    facts.bytes = 41_230_336;
    facts.rates.fresh = 662.4;
    facts.rates.duplicate = 28.1;
    facts.hit_ratio = Some(0.0408);
    facts.pressure = Some(0.4);
    facts.recommended_capacity = Some(520_000);
    facts.recommended_bytes = Some(52_000_000);
    facts
}

/// A window that is too small, and costs.
pub(crate) fn critical() -> Facts {
    let mut facts = calm();
    facts.level = Level::Critical;
    facts.capacity = Some(250_000);
    facts.entries = Some(250_000);
    facts.pressure = Some(1.59);
    facts.coverage = 0.629;
    facts.effective_seconds = 377.4;
    facts.escaped_duplicates = 4_127;
    facts.rates.escaped = 3.4;
    facts.rates.evicted_early = 245.0;
    facts.evictions.insert("capacity".to_owned(), 9_204_111);
    facts.evictions.insert("resize".to_owned(), 20_000);
    facts.ghost.keys = 140_200;
    facts.ghost.capacity = 1_000_000;
    facts.ghost.bits_per_key = 32;
    facts.ghost.false_positive_rate = 7.63e-6;
    facts.recommended_capacity = Some(520_000);
    facts.recommended_bytes = Some(52_000_000);
    facts.age_at_eviction.p1_seconds = Some(361.0);
    facts.age_at_eviction.p50_seconds = Some(377.4);
    facts.age_at_eviction.buckets = ages(&[(300.0, 12_000), (400.0, 5_100_000), (500.0, 3_900_000)]);
    facts.what_if = what_if(250_000);
    facts
}

/// A histogram of bounds 1, 2, 3, 5 times a power of ten, with these counts.
pub(crate) fn ages(counts: &[(f64, u64)]) -> Vec<AgeBucket> {
    let bounds = (-3..6).flat_map(|power| [1.0, 2.0, 3.0, 5.0].map(|n| n * 10_f64.powi(power)));
    let mut buckets: Vec<AgeBucket> =
        bounds.map(|le| AgeBucket { le: Some(le), count: 0 }).chain([AgeBucket::default()]).collect();
    for (age, count) in counts {
        let bucket = buckets.iter_mut().find(|bucket| bucket.le.is_none_or(|le| *age <= le)).unwrap();
        bucket.count += count;
    }
    buckets
}

/// A curve that rises and then has caught all that there is.
pub(crate) fn what_if(capacity: u64) -> WhatIf {
    let point = |factor: f64, caught: f64| WhatIfPoint {
        factor,
        capacity: (capacity as f64 * factor) as u64,
        caught,
        bytes: (capacity as f64 * factor * 100.0) as u64,
    };
    let points = [
        (0.25, 0.011),
        (0.5, 0.0196),
        (0.75, 0.0254),
        (1.0, 0.0301),
        (1.5, 0.0372),
        (2.0, 0.0405),
        (3.0, 0.0408),
        (4.0, 0.0408),
        (8.0, 0.0408),
    ];
    let points = points.map(|(factor, caught)| point(factor, caught)).to_vec();
    WhatIf { sample_rate: 0.01, sampled: 295_464, bytes: 1_300_000, points }
}
