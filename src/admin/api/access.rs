//! `/api/v1/access`: what the caller may do, so that a page does not offer what will be refused.

use crate::admin::auth::{Caller, Right};
use crate::admin::complaint::ComplaintBody;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

/// The rights of the caller.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Access {
    /// false with the read-only token: whatever changes something is refused with 403
    may_change: bool,
    /// why the caller was let in: `token`, `read-only token`, or `loopback`, where no token is configured
    #[schema(value_type = String, example = "token")]
    by: &'static str,
}

/// Show what the caller may do
#[utoipa::path(get, path = "/api/v1/access", tag = "process", security(("token" = [])),
    responses((status = 200, body = Access), (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody)))]
pub(super) async fn show(Extension(caller): Extension<Caller>) -> Json<Access> {
    Json(Access { may_change: caller.right == Right::Change, by: caller.by })
}
