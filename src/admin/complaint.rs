//! Error answers: a status, and JSON that says what is wrong, where, and what to do.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// An error answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Complaint {
    pub(super) status: StatusCode,
    pub(super) body: ComplaintBody,
}

/// An error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(super) struct ComplaintBody {
    /// what is wrong, where, and what to do
    pub(super) error: String,
    /// each single error, if there can be several
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(super) errors: Vec<String>,
}

impl Complaint {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Complaint {
        Complaint::of_many(status, error, Vec::new())
    }

    pub(super) fn of_many(status: StatusCode, error: impl Into<String>, errors: Vec<String>) -> Complaint {
        Complaint { status, body: ComplaintBody { error: error.into(), errors } }
    }
}

impl IntoResponse for Complaint {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"hapax\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
