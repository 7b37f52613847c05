//! Something that speaks the relay's API, says what a test wants it to say, and remembers what it was asked.

use super::facts;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// The token that a guarded one asks for.
pub const TOKEN: &str = "0123456789abcdef-secret";

#[derive(Debug)]
struct Inner {
    windows: Mutex<Vec<Value>>,
    asked: Mutex<Vec<String>>,
    guarded: bool,
    /// what it says of its configuration file
    config: Mutex<Value>,
}

/// It runs until it is dropped.
#[derive(Debug)]
pub struct Stub {
    inner: Arc<Inner>,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

type Shared = State<Arc<Inner>>;

impl Stub {
    pub fn start() -> Stub {
        Stub::with(false)
    }

    /// It wants [`TOKEN`].
    pub fn guarded() -> Stub {
        Stub::with(true)
    }

    fn with(guarded: bool) -> Stub {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inner = Arc::new(Inner {
            windows: Mutex::new(facts::three()),
            asked: Mutex::default(),
            guarded,
            config: Mutex::default(),
        });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/api/v1/windows", get(list))
            .route("/api/v1/windows/{name}", get(show).patch(patch))
            .route("/api/v1/windows/{name}/flush", post(flush))
            .route("/api/v1/windows/{name}/forecast", post(forecast))
            .route("/api/v1/windows/{name}/ids/{id}", get(id).delete(forget))
            .route("/api/v1/connections", get(async || Json(facts::connections())))
            .route(
                "/api/v1/config",
                get(async |State(inner): Shared| Json(inner.config.lock().unwrap().clone())),
            )
            .route("/api/v1/upstreams", get(async || Json(facts::upstreams())))
            .route(
                "/api/v1/chaos",
                get(async || Json(facts::chaos()))
                    .post(async || Json(facts::chaos()["run"].clone()))
                    .delete(async || Json(facts::chaos()["run"].clone())),
            )
            .route("/api/v1/drops", get(async || Json(facts::drops())))
            .route("/api/v1/status", get(async || Json(facts::status())))
            .layer(middleware::from_fn_with_state(Arc::clone(&inner), watch))
            .with_state(Arc::clone(&inner));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Stub { inner, address, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Each request as `METHOD /path?query body`.
    pub fn asked(&self) -> Vec<String> {
        self.inner.asked.lock().unwrap().clone()
    }

    /// Says that it reads this file, in this version.
    pub fn configure(&self, file: &str, version: &str) {
        *self.inner.config.lock().unwrap() = json!({"file": file, "file_version": version});
    }

    /// Other numbers from now on.
    pub fn edit(&self, change: impl FnOnce(&mut Vec<Value>)) {
        change(&mut self.inner.windows.lock().unwrap());
    }
}

async fn watch(State(inner): Shared, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let line = format!("{} {} {}", parts.method, parts.uri, String::from_utf8_lossy(&body));
    inner.asked.lock().unwrap().push(line.trim_end().to_owned());
    let right =
        |headers: &HeaderMap| headers.get("authorization").is_some_and(|v| *v == *format!("Bearer {TOKEN}"));
    if inner.guarded && !right(&parts.headers) {
        return complain(StatusCode::UNAUTHORIZED, json!({"error": "a token is needed"}));
    }
    if parts.method != Method::GET
        && parts.headers.get("content-type").is_none_or(|t| t != "application/json")
    {
        return complain(StatusCode::UNSUPPORTED_MEDIA_TYPE, json!({"error": "JSON only"}));
    }
    next.run(Request::from_parts(parts, body.into())).await
}

fn complain(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}

async fn list(State(inner): Shared) -> Json<Value> {
    Json(json!({"windows": *inner.windows.lock().unwrap()}))
}

/// With the window of this name.
fn with(inner: &Inner, name: &str, then: impl FnOnce(&mut Value) -> Response) -> Response {
    match inner.windows.lock().unwrap().iter_mut().find(|window| window["name"] == name) {
        Some(window) => then(window),
        None => complain(StatusCode::NOT_FOUND, json!({"error": format!("there is no window {name}")})),
    }
}

async fn show(State(inner): Shared, Path(name): Path<String>) -> Response {
    with(&inner, &name, |window| Json(window.clone()).into_response())
}

async fn patch(State(inner): Shared, Path(name): Path<String>, Json(body): Json<Value>) -> Response {
    if body["capacity"] == "auto" || body["ttl"] == "soon" {
        let errors = ["capacity: no memory_budget is configured", "ttl: \x1b[31msoon is no duration"];
        return complain(
            StatusCode::UNPROCESSABLE_ENTITY,
            json!({"error": "nothing was changed", "errors": errors}),
        );
    }
    with(&inner, &name, |window| {
        for (key, value) in body.as_object().unwrap() {
            match key.as_str() {
                "ttl" => window["ttl_seconds"] = json!(1200.0),
                key => window[key] = value.clone(),
            }
        }
        Json(window.clone()).into_response()
    })
}

async fn forecast(State(inner): Shared, Path(name): Path<String>, Json(body): Json<Value>) -> Response {
    with(&inner, &name, |_| {
        Json(json!({"capacity": body["capacity"], "bytes": 184_549_376, "coverage": 1.0, "pressure": 0.92, "caught": 0.268}))
            .into_response()
    })
}

async fn flush(State(inner): Shared, Path(name): Path<String>) -> Response {
    with(&inner, &name, |window| {
        let flushed = std::mem::replace(&mut window["entries"], json!(0));
        Json(json!({"flushed": flushed})).into_response()
    })
}

async fn id(State(inner): Shared, Path((name, id)): Path<(String, String)>, _: Uri) -> Response {
    with(&inner, &name, |_| {
        let answer = match id.as_str() {
            "a/b ?\x1b" => json!({
                "id": id, "state": "seen", "seen_at": "2026-01-01T10:00:00Z", "age_seconds": 61.0, "duplicates": 3,
                "expires_at": "2026-01-01T10:10:00Z", "expires_in_seconds": 539.0,
            }),
            _ => json!({
                "id": id, "state": "unknown", "seen_at": null, "age_seconds": null, "duplicates": 0,
                "expires_at": null, "expires_in_seconds": null,
            }),
        };
        Json(answer).into_response()
    })
}

async fn forget(State(inner): Shared, Path((name, id)): Path<(String, String)>) -> Response {
    with(&inner, &name, |_| Json(json!({"forgotten": id == "known"})).into_response())
}
