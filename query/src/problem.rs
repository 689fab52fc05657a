//! Errors as callers see them: problem details (RFC 9457). What they must not see is logged instead.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seconds after which a caller turned away for now may come again.
const RETRY_AFTER_S: u16 = 1;

/// Problem details, `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank`: the status says what kind it is (RFC 9457, section 4.2.1).
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong and what to do about it.
    pub detail: String,
    /// The parameter at fault, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

impl Problem {
    /// The media type of its JSON.
    pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

    /// A problem with a status and what to do about it.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            parameter: None,
        }
    }

    /// A parameter that cannot be taken: 400.
    pub(crate) fn parameter(name: &str, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::BAD_REQUEST, detail);
        Self { parameter: Some(name.to_owned()), ..problem }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Self::CONTENT_TYPE));
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        if status == StatusCode::UNAUTHORIZED {
            for challenge in ["Bearer realm=\"flowtrail\"", "Basic realm=\"flowtrail\""] {
                headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
        }
        response
    }
}
