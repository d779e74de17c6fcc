//! Refusals as problem documents (RFC 9457). The error itself travels with them, so that the other side has the same one.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use trocar_proto::session::admission::AdmitError;
use trocar_proto::session::link_test::LinkTestRefused;
use trocar_proto::session::problem::{PROBLEM_JSON, Problem};

/// A refusal on its way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For people and for those who know nothing of us.
    #[serde(flatten)]
    pub problem: Problem,
    /// The relay's own error, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admit_error: Option<AdmitError>,
}

impl Refusal {
    /// A refusal that is no [`AdmitError`].
    #[must_use]
    pub fn new(status: StatusCode, name: &str, title: &str, detail: impl Into<String>) -> Self {
        Self { problem: Problem::new(status.as_u16(), name, title, detail), admit_error: None }
    }
}

impl From<AdmitError> for Refusal {
    fn from(e: AdmitError) -> Self {
        let (status, name, title) = match &e {
            AdmitError::NoSuchFeed => (StatusCode::NOT_FOUND, "feed-missing", "No such feed"),
            AdmitError::NoSuchLeg => (StatusCode::NOT_FOUND, "leg-missing", "No such leg"),
            AdmitError::NoSuchPublication => (StatusCode::NOT_FOUND, "publication-missing", "No such publication"),
            AdmitError::FeedExists => (StatusCode::CONFLICT, "feed-exists", "The name is taken"),
            AdmitError::NoSuchRealm(_) => (StatusCode::UNPROCESSABLE_ENTITY, "realm-unserved", "Realm is not served"),
            AdmitError::BadSdp(_) => (StatusCode::BAD_REQUEST, "sdp-invalid", "SDP cannot be used"),
            AdmitError::NotAcceptable { .. } => (StatusCode::NOT_ACCEPTABLE, "not-acceptable", "Nothing offered fits"),
            AdmitError::Full(_) => (StatusCode::SERVICE_UNAVAILABLE, "relay-full", "The relay is full"),
            AdmitError::LinkTest(LinkTestRefused::Unused) => {
                (StatusCode::NOT_FOUND, "link-tests-unused", "Measurements are not answered")
            }
            AdmitError::LinkTest(LinkTestRefused::Operated(_)) => {
                (StatusCode::CONFLICT, "link-test-operated", "Somebody operates")
            }
            AdmitError::LinkTest(LinkTestRefused::Busy) => {
                (StatusCode::CONFLICT, "link-test-busy", "The line is being measured")
            }
            AdmitError::LinkTest(LinkTestRefused::Failed(_)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "link-test-failed", "No measurement can begin")
            }
            AdmitError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "relay-unavailable", "The relay is away"),
        };
        Self { admit_error: Some(e.clone()), ..Self::new(status, name, title, e.to_string()) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Strings and numbers alone: there is nothing that cannot be written.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON))], body).into_response()
    }
}
