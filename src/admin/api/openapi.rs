//! The OpenAPI document. It is made from the routes when it is first requested.

use super::{changing, reading};
use crate::admin::complaint::ComplaintBody;
use crate::admin::open;
use axum::body::Bytes;
use axum::http::header;
use axum::response::IntoResponse;
use std::sync::LazyLock;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;

const ABOUT: &str = "Windows of remembered message ids: what they hold, how hard they are pressed, and what can be \
changed while they work. With a token configured, every request brings one: the read-only token \
shows all and changes nothing. A change says `Content-Type: application/json` or brings the token. Times are ISO 8601 in UTC, spans are seconds, sizes are bytes.";

static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| serde_json::to_vec(&document()).unwrap_or_default().into());

fn document() -> OpenApi {
    OpenApiRouter::with_openapi(preamble()).merge(reading()).merge(changing()).merge(open()).into_openapi()
}

fn preamble() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Hapax")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(LicenseBuilder::new().name(env!("CARGO_PKG_LICENSE")).build()))
        .build();
    let bearer = |about: &str| {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(about.to_owned());
        SecurityScheme::Http(scheme)
    };
    let components = ComponentsBuilder::new()
        .security_scheme("token", bearer("The admin token or the read-only token."))
        .security_scheme("admin", bearer("The admin token. The read-only token gets 403."))
        .build();
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// Show this document
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "process",
    responses((status = 200, body = Object, content_type = "application/json"), (status = 403, body = ComplaintBody)))]
pub(in crate::admin) async fn show() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}
