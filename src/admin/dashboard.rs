//! The dashboard at `/`: files that are compiled into the binary, and the headers that protect them. The page calls
//! the API as any other client does, with the token that its reader enters. The files hold no secret, so they are
//! served to everybody who reaches the listener.
//!
//! The scripts are modules without a build step; `dashboard/app.js` says what each one does. The page shows texts that
//! publishers choose (ids, routing keys). The policy below therefore forbids everything that could turn such a text
//! into markup or script: no inline script, no outside source, and no text that is parsed as markup (`trusted-types
//! 'none'`).

use axum::Router;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// The Content-Security-Policy: only files of this listener, each only as its own type.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// One file: its path, its content type, and its text.
#[derive(Clone, Copy, Debug)]
struct Asset {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! asset {
    ($path:literal, $kind:expr, $file:literal) => {
        Asset { path: $path, kind: $kind, text: include_str!(concat!("dashboard/", $file)) }
    };
}

const ASSETS: [Asset; 16] = [
    asset!("/", HTML, "index.html"),
    asset!("/assets/style.css", CSS, "style.css"),
    asset!("/assets/all.js", SCRIPT, "all.js"),
    asset!("/assets/app.js", SCRIPT, "app.js"),
    asset!("/assets/charts.js", SCRIPT, "charts.js"),
    asset!("/assets/clients.js", SCRIPT, "clients.js"),
    asset!("/assets/controls.js", SCRIPT, "controls.js"),
    asset!("/assets/dom.js", SCRIPT, "dom.js"),
    asset!("/assets/drift.js", SCRIPT, "drift.js"),
    asset!("/assets/format.js", SCRIPT, "format.js"),
    asset!("/assets/history.js", SCRIPT, "history.js"),
    asset!("/assets/live.js", SCRIPT, "live.js"),
    asset!("/assets/panel.js", SCRIPT, "panel.js"),
    asset!("/assets/process.js", SCRIPT, "process.js"),
    asset!("/assets/store.js", SCRIPT, "store.js"),
    asset!("/assets/upstreams.js", SCRIPT, "upstreams.js"),
];

/// Returns the routes of the page and its files.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.into_iter().fold(Router::new(), |router, asset| {
        let tag = asset.tag();
        router.route(asset.path, get(async move |headers: HeaderMap| asset.answer(&headers, &tag)))
    })
}

impl Asset {
    /// Returns the same tag for the same text, so that a browser downloads a file again only after it has changed.
    fn tag(self) -> String {
        let mut hasher = SipHasher13::new();
        hasher.write(self.text.as_bytes());
        format!("\"{:032x}\"", hasher.finish128().as_u128())
    }

    fn answer(self, asked: &HeaderMap, tag: &str) -> Response {
        let headers: [(HeaderName, &str); 6] = [
            (header::CONTENT_TYPE, self.kind),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
            (header::ETAG, tag),
        ];
        let known = asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        if known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)) {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, self.text).into_response()
    }
}
